import Reactor
import SCSI
import Target

/// A logical unit as control knows it.
struct UnitKey: Hashable {
    let tid: Int32
    let lun: UInt16
}

/// Has control keep what logical units want kept, one question of each at a time, and wakes the commands that wait for the answer. Confined to its
/// loop's thread.
final class UnitKeeper {
    /// Whom to tell.
    struct Command {
        let reactor: Int
        let nexus: NexusID
        let ticket: Ticket
    }

    private struct Waiting {
        let unit: LogicalUnit
        let revision: UInt64
        let command: Command
    }

    private let unit: (UnitKey) -> LogicalUnit?
    private let ask: (UnitKey, UnitRecord) -> Void
    private let tell: (Command) -> Void
    private var waiting: [UnitKey: [Waiting]] = [:]
    /// What control has been asked and has not answered: of this logical unit, whatever has its number by now.
    private var asked: [UnitKey: (unit: LogicalUnit, revision: UInt64)] = [:]
    /// Those whose question is next, in their order.
    private var inLine: Set<UnitKey> = []
    private var questions: PacedQueue<UnitKey>?

    /// - Parameters:
    ///   - unit: the one that has this number now
    ///   - ask: asks control, which answers each question
    ///   - tell: wakes a command whose revision is decided
    init(loop: EventLoop, unit: @escaping (UnitKey) -> LogicalUnit?, ask: @escaping (UnitKey, UnitRecord) -> Void, tell: @escaping (Command) -> Void) {
        self.unit = unit
        self.ask = ask
        self.tell = tell
        questions = PacedQueue(loop: loop) { [unowned self] key in
            inLine.remove(key)
            question(key)
        }
    }

    /// A command waits until this revision is kept, or refused.
    func keep(_ key: UnitKey, _ unit: LogicalUnit, _ command: Command, _ revision: UInt64) {
        // Two reactors may report in another order than they changed it.
        guard !unit.isDecided(revision) else { return tell(command) }
        waiting[key, default: []].append(Waiting(unit: unit, revision: revision, command: command))
        hasNews(key)
    }

    /// There is something to keep, whether somebody waits for that or not.
    func hasNews(_ key: UnitKey) {
        if asked[key] == nil, inLine.insert(key).inserted { questions?.append(key) }
    }

    private func question(_ key: UnitKey) {
        guard asked[key] == nil else { return }
        let unit = unit(key)
        // A logical unit that has gone meanwhile has nothing to keep, and another may have its number.
        wake(key) { $0.unit !== unit }
        guard let unit, let record = unit.recordToKeep() else { return }
        asked[key] = (unit, record.revision)
        ask(key, record)
    }

    func answered(_ key: UnitKey, _ revision: UInt64, isKept: Bool) {
        guard let (unit, asked) = asked[key], asked == revision else { return }
        self.asked[key] = nil
        unit.settle(isKept: isKept)
        wake(key) { $0.unit === unit && unit.isDecided($0.revision) }
        hasNews(key)
    }

    private func wake(_ key: UnitKey, where isOver: (Waiting) -> Bool) {
        guard var waiting = waiting.removeValue(forKey: key) else { return }
        let rest = waiting.partition(by: isOver)
        for entry in waiting[rest...] { tell(entry.command) }
        if rest > 0 { self.waiting[key] = Array(waiting[..<rest]) }
    }
}
