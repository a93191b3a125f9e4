import Administration
import Door
import Logging
import Management
import Model
import Reactor
import SCSI
import Testing

@testable import ControlPlane

private func utf8(_ text: String) -> [UInt8] { Array(text.utf8) }
extension Configuration {
    fileprivate func target(_ number: Int32) -> TargetConfiguration? { TargetID(rawValue: number).flatMap { targets[$0] } }
}

/// Control without processes, with a data process that is a few lines: it does at once what it is told, as the real one does, and answers when it is
/// let to; what takes something away it answers later than all else, if it is slow.
private final class World {
    let control: Control
    /// What data serves.
    private(set) var served: [Int32: Set<UInt16>] = [:]
    /// Those that refuse to go without force.
    var busy: Set<Int32> = []
    var isSlow = false
    private var isAlive = true
    /// How often data was to be ended, for it refused what by control's books it could do.
    private(set) var condemned = 0
    private(set) var withdrawals = 0
    private var answers: [(id: RequestID, refusal: DataRefusal?)] = []
    private var late: [(id: RequestID, refusal: DataRefusal?)] = []
    private(set) var said: [Answer] = []

    init() throws {
        var other: FileDescriptor?
        let lock = try Socket.messagePair().split(&other)
        control = try Control(
            loop: EventLoop(),
            options: ControlOptions(
                settings: Settings(), identity: IdentitySource(installation: Array(0..<16)), socket: "",
                administration: AdministrationOptions(socket: SocketAccess(), source: nil, policy: nil, pamDirectory: nil), user: nil, state: nil, logsToSystem: false, descriptors: 1024,
                launch: ("", "")),
            lock: lock, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        control.serving = Serving(
            control,
            Serving.Link(send: { [unowned self] order, _ in take(order) }, isAlive: { [unowned self] in isAlive }, condemn: { [unowned self] _ in condemned += 1 }))
    }

    private func take(_ order: DataOrderMessage) {
        switch order {
        case .addTarget(let id, let tid, _):
            answers.append((id, served[tid] == nil ? nil : .alreadyExists))
            if served[tid] == nil { served[tid] = [] }
        case .removeTarget(let id, let tid, let force):
            withdrawals += 1
            guard served[tid] != nil else { return answers.append((id, .unknownTarget)) }
            guard force || !busy.contains(tid) else { return answers.append((id, .targetActive)) }
            served[tid] = nil
            if isSlow { late.append((id, nil)) } else { answers.append((id, nil)) }
        case .addLogicalUnit(let id, let tid, let lun, _, _, _):
            guard served[tid] != nil else { return answers.append((id, .unknownTarget)) }
            answers.append((id, served[tid]?.insert(lun).inserted == true ? nil : .alreadyExists))
        case .updateLogicalUnit(let id, let tid, let lun, _, _, _): answers.append((id, served[tid]?.contains(lun) == true ? nil : .unknownLogicalUnit))
        case .removeLogicalUnit(let id, let tid, let lun, _):
            withdrawals += 1
            let refusal: DataRefusal? = served[tid]?.remove(lun) == nil ? .unknownLogicalUnit : nil
            if isSlow { late.append((id, refusal)) } else { answers.append((id, refusal)) }
        default: break
        }
    }

    /// Data answers all that it can answer.
    func settle() {
        while !answers.isEmpty {
            let (id, refusal) = answers.removeFirst()
            control.serving.finished(id, refusal)
        }
    }
    /// What took so long is over: one of these, or all.
    func finish(_ index: Int? = nil) {
        if let index { answers.append(late.remove(at: index)) } else { answers += late; late = [] }
        settle()
    }
    var waiting: Int { late.count }

    /// Data has ended, and a successor has been started.
    func restart() {
        (served, answers, late, isAlive) = ([:], [], [], false)
        control.serving.ended()
        isAlive = true
        control.serving.tellAll()
    }

    func ask(_ request: AdminRequest.Action) {
        control.submit(AdminRequest(request)) { [unowned self] in said.append($0) }
        settle()
    }
    func transact(_ requests: [AdminRequest.Action], sight: @escaping () -> Result<Sight, Transaction.Refused> = { .success(.everything) }) {
        TransactionRun(Warrant(requests: requests.map { AdminRequest($0) }, sight: sight), control, RuntimeView()) { [unowned self] in said.append($0) }.start()
        settle()
    }

    /// Whether data has what is configured, and had it all the time.
    var agrees: Bool {
        let configured = control.configuration.targets.map { ($0.key.rawValue, Set($0.value.logicalUnits.keys.map { UInt16($0) })) }
        return condemned == 0 && served == Dictionary(uniqueKeysWithValues: configured)
    }
}

private func newTarget(_ tid: Int32, _ name: String? = nil) -> AdminRequest.Action { .newTarget(tid: tid, name: utf8(name ?? "iqn.\(tid)")) }
private func newUnit(_ tid: Int32, _ lun: UInt64) -> AdminRequest.Action {
    var unit = AdminRequest.NewLogicalUnit()
    (unit.bstype, unit.path) = (utf8("null"), utf8("none"))
    return .newLogicalUnit(tid: tid, lun: lun, unit)
}
private func updateUnit(_ tid: Int32, _ lun: UInt64, _ product: String = "X") -> AdminRequest.Action {
    .updateLogicalUnit(tid: tid, lun: lun, [.init(name: utf8("product_id"), value: utf8(product))])
}
private func delete(_ tid: Int32, force: Bool = false) -> AdminRequest.Action { .deleteTarget(tid: tid, force: force) }

@Suite struct ServingTests {
    private static let busy = "somebody else is changing"

    private func world() throws -> World {
        let world = try World()
        world.transact([newTarget(5), newUnit(5, 1), newTarget(6), newUnit(6, 1)])
        try #require(world.said.last?.reason == nil && world.agrees)
        return world
    }

    @Test("While a target is being deleted nobody else changes it, and data is not told of what it has forgotten", arguments: [false, true])
    func deleting(isTransaction: Bool) throws {
        let world = try world()
        world.isSlow = true
        if isTransaction { world.transact([delete(5, force: true)]) } else { world.ask(delete(5, force: true)) }
        #expect(world.waiting == 1 && world.said.count == 1)
        for request in [updateUnit(5, 1), newUnit(5, 2), .deleteLogicalUnit(tid: 5, lun: 1), delete(5), delete(5, force: true), .updateTarget(tid: 5, .init(name: utf8("state"), value: utf8("offline")))] {
            world.ask(request)
            #expect(world.said.last?.reason?.contains(Self.busy) == true, "\(request): \(world.said.last.map { "\($0)" } ?? "")")
            world.transact([request])
            #expect(world.said.last?.reason?.contains(Self.busy) == true, "\(request): \(world.said.last.map { "\($0)" } ?? "")")
        }
        // One that would put another in its place.
        world.transact([delete(5, force: true), newTarget(5, "iqn.other"), newUnit(5, 1)])
        #expect(world.said.last?.reason?.contains(Self.busy) == true)
        // Others are nobody's.
        world.ask(updateUnit(6, 1))
        #expect(world.said.last?.reason == nil)
        world.finish()
        #expect(world.said.last?.reason == nil && world.control.configuration.target(5) == nil && world.agrees)
        world.transact([newTarget(5, "iqn.other"), newUnit(5, 1)])
        #expect(world.said.last?.reason == nil && world.agrees)
    }

    @Test("What a transaction has withdrawn serves again when it fails after all, and the record says what came of it")
    func failing() throws {
        let world = try world()
        world.isSlow = true
        world.transact([delete(5, force: true), .deleteLogicalUnit(tid: 6, lun: 1), newTarget(7, "iqn.wanted")])
        world.finish()
        world.ask(newTarget(8, "iqn.wanted"))
        #expect(world.said.last?.reason == nil && world.waiting == 1)
        world.finish()
        #expect(world.said.last?.reason?.contains("has this name already") == true, "\(world.said)")
        #expect(world.said.last?.changes == ["logical unit 1 of target 6 withdrawn for a moment", "sessions of target 5 ended"])
        #expect(world.agrees && world.control.configuration.targets.count == 3)
        // It is nobody's any more.
        world.isSlow = false
        world.ask(updateUnit(5, 1))
        #expect(world.said.last?.reason == nil)
        world.ask(delete(5))
        #expect(world.said.last?.reason == nil && world.agrees)
    }

    @Test("What a transaction touches stays as it is from its first step that is noticed")
    func touched() throws {
        let world = try world()
        world.isSlow = true
        world.transact([delete(5, force: true), updateUnit(6, 1)])
        world.ask(.deleteLogicalUnit(tid: 6, lun: 1))
        #expect(world.said.last?.reason?.contains(Self.busy) == true)
        world.finish()
        #expect(world.said.last?.reason == nil && world.agrees && world.control.configuration.target(6)?.logicalUnits[1]?.product == "X")
    }

    @Test("A target that does not go is nobody's afterwards")
    func active() throws {
        let world = try world()
        world.busy = [5]
        for _ in 0..<2 {
            world.ask(delete(5))
            #expect(world.said.last?.response.error == TgtError.targetActive.rawValue && world.said.last?.changes == [])
            world.transact([delete(6), delete(5)])
            #expect(world.said.last?.response.error == TgtError.targetActive.rawValue && world.said.last?.changes == ["target 6 withdrawn for a moment"])
            #expect(world.agrees)
        }
    }

    @Test("Leave that is taken away while stores are opened ends nobody's sessions")
    func revoked() throws {
        let world = try world()
        var looks = 0
        let withdrawals = world.withdrawals
        world.transact([delete(5, force: true)]) {
            looks += 1
            return looks == 1 ? .success(.everything) : .failure(Transaction.Refused(nil, .unsupportedOperation, "not any more"))
        }
        #expect(world.said.last?.reason == "not any more" && world.said.last?.changes == [] && world.withdrawals == withdrawals && world.agrees)
        // Taken away later, it changes nothing about what has been begun.
        looks = 0
        world.isSlow = true
        world.transact([delete(5, force: true)]) {
            looks += 1
            return looks <= 2 ? .success(.everything) : .failure(Transaction.Refused(nil, .unsupportedOperation, "not any more"))
        }
        world.finish()
        #expect(world.said.last?.reason == nil && world.agrees && world.control.configuration.target(5) == nil)
    }

    @Test("A successor of data is not told of what is being taken away, until that is given back")
    func restart() throws {
        let world = try world()
        world.isSlow = true
        world.transact([.deleteLogicalUnit(tid: 6, lun: 1), delete(5, force: true), newTarget(7, "iqn.wanted")])
        world.finish()
        world.ask(newTarget(8, "iqn.wanted"))
        // The end of data is the end of what it was to do.
        world.restart()
        world.settle()
        #expect(world.said.last?.reason?.contains("has this name already") == true && world.agrees)
    }

    @Test("A store that hangs keeps no administrator, and what is given back waits for it", .timeLimit(.minutes(1)))
    func deadline() throws {
        let world = try world()
        world.isSlow = true
        world.ask(delete(5, force: true))
        world.transact([delete(6, force: true), newTarget(7, "iqn.wanted")])
        world.ask(newTarget(8, "iqn.wanted"))
        let said = world.said.count
        let begin = ContinuousClock.now
        while world.said.count < said + 2, ContinuousClock.now - begin < .seconds(30) {
            world.control.loop.turn(waitingAtMost: 1_000_000_000)
            world.settle()
        }
        #expect((.seconds(4)...(.seconds(25))).contains(ContinuousClock.now - begin))
        let reasons = world.said.suffix(2).map(\.reason)
        #expect(reasons.contains(nil) && reasons.contains { $0?.contains("has this name already") == true }, "\(reasons)")
        #expect(world.control.configuration.target(5) == nil && world.control.configuration.target(6) != nil)
        // Nobody is let in there while what was ended may still write.
        #expect(try world.served[6] == nil && world.control.serving.isWithdrawn(#require(TargetID(rawValue: 6))))
        world.ask(updateUnit(6, 1))
        #expect(world.said.last?.reason?.contains(Self.busy) == true)
        world.finish()
        #expect(try world.agrees && !world.control.serving.isWithdrawn(#require(TargetID(rawValue: 6))))
    }

    @Test("Whatever comes at the same time, data has what is configured and is never told of anything else", arguments: 0..<40)
    func schedules(seed: UInt64) throws {
        var random = Dice(state: seed &* 7919 &+ 1)
        let world = try world()
        world.isSlow = true
        for _ in 0..<300 {
            let target = Int32.random(in: 5...8, using: &random), lun = UInt64.random(in: 1...2, using: &random)
            world.busy = Bool.random(using: &random) ? [target] : []
            func one() -> AdminRequest.Action {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: newTarget(target, "iqn.\(Int.random(in: 0..<4, using: &random))")
                case 1, 2: delete(target, force: Bool.random(using: &random))
                case 3, 4: newUnit(target, lun)
                case 5: .deleteLogicalUnit(tid: target, lun: lun)
                case 6: .updateTarget(tid: target, .init(name: utf8("state"), value: utf8(Bool.random(using: &random) ? "ready" : "offline")))
                default: updateUnit(target, lun, "P\(Int.random(in: 0..<9, using: &random))")
                }
            }
            switch Int.random(in: 0..<12, using: &random) {
            case 0..<5: world.ask(one())
            case 5..<7: world.transact((0..<Int.random(in: 1...4, using: &random)).map { _ in one() })
            case 7: world.transact([delete(target, force: true), newTarget(target, "iqn.\(Int.random(in: 0..<4, using: &random))"), newUnit(target, lun)])
            case 8 where Int.random(in: 0..<10, using: &random) == 0: world.restart()
            default: if world.waiting > 0 { world.finish(Int.random(in: 0..<world.waiting, using: &random)) }
            }
            try #require(world.condemned == 0)
        }
        while world.waiting > 0 { world.finish() }
        world.settle()
        #expect(world.agrees)
    }
}

/// Numbers that are the same each time (splitmix64).
private struct Dice: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
