import Door
import ISCSI
import Logging
import Model
import Reactor
import Testing

@testable import ControlPlane

/// Administrators who ask, and the test as the data process.
private final class World {
    let loop: EventLoop
    var asked: [RequestID] = []
    var answers: [(who: String, survey: Survey)] = []
    private(set) lazy var surveys = Surveys(loop: loop, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, patience: 50_000_000) { [unowned self] in
        asked.append($0)
    }

    init() throws { loop = try EventLoop() }

    func ask(_ who: String) { surveys.ask { [unowned self] in answers.append((who, $0)) } }
    var answered: [String] { answers.map(\.who) }
    func waitOutPatience() { loop.turn(waitingAtMost: 10_000_000_000) }
}

private let unit = SurveyEntry.logicalUnit(tid: 1, lun: 2, UnitCondition(preventsRemoval: true))
private let activity: NexusActivity = {
    var activity = NexusActivity()
    activity.errors = 3
    return activity
}()

@Suite struct SurveyTests {
    @Test("What comes in pages is one answer")
    func pages() throws {
        let world = try World()
        world.ask("a")
        let id = try #require(world.asked.first)
        #expect(world.surveys.heard(id, [unit], isLast: false) && world.answers.isEmpty)
        #expect(world.surveys.heard(id, [.nexus(tsih: 5, lun: 6, activity), .connection(tsih: 5, cid: 0, Traffic())], isLast: true))
        let survey = try #require(world.answers.first?.survey)
        let key = LogicalUnitKey(target: try #require(TargetID(rawValue: 1)), lun: 2)
        #expect(survey.logicalUnits[key]?.preventsRemoval == true && survey.nexuses[.init(tsih: 5, lun: 6)]?.errors == 3 && survey.connections.count == 1)
        let once = world.surveys.heard(id, [], isLast: true)
        #expect(!once, "an answer comes once")
    }

    @Test("Those who ask while a survey is under way get the next one, all of them together")
    func together() throws {
        let world = try World()
        for who in ["a", "b", "c", "d"] { world.ask(who) }
        #expect(world.asked.count == 1)
        #expect(world.surveys.heard(world.asked[0], [], isLast: true))
        #expect(world.answered == ["a"] && world.asked.count == 2)
        world.ask("e")
        #expect(world.surveys.heard(world.asked[1], [unit], isLast: true))
        #expect(world.answered == ["a", "b", "c", "d"] && world.asked.count == 3)
        #expect(world.answers.map { $0.survey.logicalUnits.count } == [0, 1, 1, 1])
        #expect(world.surveys.heard(world.asked[2], [], isLast: true) && world.answered.last == "e")
    }

    @Test("Who asks a data process that hangs is answered without it; what it says late is passed over")
    func late() throws {
        let world = try World()
        world.ask("a")
        #expect(world.surveys.heard(world.asked[0], [unit], isLast: false))
        world.ask("b")
        world.waitOutPatience()
        #expect(world.answered == ["a"] && world.asked.count == 2)
        #expect(world.surveys.heard(world.asked[0], [unit], isLast: true) && world.answered == ["a"])
        #expect(world.surveys.heard(world.asked[1], [unit], isLast: true) && world.answered == ["a", "b"])
        let again = world.surveys.heard(world.asked[0], [unit], isLast: true)
        #expect(!again)
    }

    @Test("When data ends everybody is answered, and its successor may not answer for it")
    func dataEnds() throws {
        let world = try World()
        for who in ["a", "b"] { world.ask(who) }
        world.surveys.dataEnded()
        #expect(world.answered == ["a", "b"])
        let old = world.surveys.heard(world.asked[0], [unit], isLast: true)
        #expect(!old)
        world.ask("c")
        #expect(world.surveys.heard(world.asked[1], [], isLast: true) && world.answered.last == "c")
    }

    @Test("Nobody can fill control's memory with findings")
    func bounded() {
        var survey = Survey()
        for tsih in 0..<UInt16(12) {
            survey.add((0..<UInt16.max).map { .nexus(tsih: tsih, lun: $0, activity) })
        }
        #expect(survey.nexuses.count == Survey.mostFindings)
        survey.add([unit])
        #expect(survey.logicalUnits.isEmpty)
    }
}
