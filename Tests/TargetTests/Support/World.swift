import Bytes
import ISCSI
import Medium
import SCSI
import Synchronization
import Target

/// Where `deliver` of all sessions posts to.
final class Mailbox: Sendable {
    private let posted = Mutex<[(NexusID, Notification)]>([])
    func post(_ nexus: NexusID, _ notification: Notification) { posted.withLock { $0.append((nexus, notification)) } }
    func takeFirst() -> (NexusID, Notification)? { posted.withLock { $0.isEmpty ? nil : $0.removeFirst() } }
}

/// Tells whether something has been called.
final class Flag: Sendable {
    private let calls = Atomic<Int>(0)
    func raise() { calls.add(1, ordering: .relaxed) }
    var count: Int { calls.load(ordering: .relaxed) }
}

/// A target with disks in memory and initiators, without sockets: the test's own reactor.
final class World {
    static let blockLength = 512

    struct Held {
        let client: Client
        let ticket: Ticket
        /// The session's command holds it.
        weak var store: MemoryStore?
        let operation: Operation
        let buffer: Buffer?
    }

    let target: ServedTarget
    let data: BufferPool
    let answers = BufferPool(budget: 64 << 20)
    let mailbox = Mailbox()
    let memoryReleased = Flag()
    private var memoryReleasesSeen = 0
    private var memoryWaiters: [Client] = []
    var clients: [Client] = []
    var stores: [ObjectIdentifier: MemoryStore] = [:]
    /// Whether operations stay in the store until `release`.
    var holdsOperations = false
    var held: [Held] = []
    var kept: [UnitRecord] = []
    var now: UInt64 = 1_000 * SessionLimits.second
    private var nextNexus: UInt64 = 1

    init(disks: Int = 1, blocks: Int = 1024, memory: Int = 32 << 20) {
        target = ServedTarget(name: name("iqn.2026-01.test:disk"), tid: 1)
        data = BufferPool(budget: memory)
        for number in 1...disks { addDisk(number, blocks: blocks) }
    }

    func addDisk(_ number: Int, blocks: Int = 1024) {
        let settings = LogicalUnitSettings(
            disk: UInt64(blocks), blockLength: Self.blockLength, scsiID: "disk\(number)", serialNumber: "sn\(number)",
            naa: [0x60] + [UInt8](repeating: UInt8(number), count: 15))
        let store = MemoryStore(length: blocks * Self.blockLength)
        let unit = LogicalUnit(settings, targetName: target.name.bytes, medium: store)
        stores[ObjectIdentifier(unit)] = store
        target.add(unit, number: number)
    }

    /// Gives a disk another medium of the same size, or none.
    func changeMedium(_ number: Int, hasMedium: Bool = true) {
        let unit = target.unit(number)!
        let new = hasMedium ? MemoryStore(length: store(number).length) : nil
        _ = target.apply(unit.settings, medium: new, to: unit)
        stores[ObjectIdentifier(unit)] = new
    }

    func store(_ number: Int) -> MemoryStore { stores[ObjectIdentifier(target.unit(number)!)]! }

    func connect(
        _ initiator: String = "iqn.2026-01.test:a", isid: UInt64 = 1, parameters: NegotiatedParameters = NegotiatedParameters(),
        nopInterval: UInt32 = 0, nopCount: UInt32 = 0, mask: LUNMask = .all
    ) -> Client? {
        let nexus = NexusID(rawValue: nextNexus)
        nextNexus += 1
        var start = SessionStart(
            nexus: nexus, initiatorName: name(initiator), isid: ISID(rawValue: isid), tsih: UInt16(nexus.rawValue), cid: 7, parameters: parameters,
            expCmdSN: 100, statSN: 500, nopInterval: nopInterval, nopCount: nopCount)
        start.mask = mask
        let session = Session(start, target: target, data: data, answers: answers, now: now) { [mailbox] in mailbox.post(nexus, $0) }
        guard let session else { return nil }
        let client = Client(session, parameters)
        clients.append(client)
        return client
    }

    /// A session whose unit attentions from the beginning have been seen.
    func ready(
        _ initiator: String = "iqn.2026-01.test:a", isid: UInt64 = 1, parameters: NegotiatedParameters = NegotiatedParameters(), mask: LUNMask = .all
    ) -> Client {
        let client = connect(initiator, isid: isid, parameters: parameters, mask: mask)!
        for number in target.numbers { clearAttentions(client, number) }
        return client
    }

    func clearAttentions(_ client: Client, _ number: Int) {
        for _ in 0..<8 {
            let tag = client.command(CDB.testUnitReady, lun: number)
            run()
            if client.results[tag]?.status == 0 { return }
        }
    }

    /// Goes on until nothing moves any more.
    func run() {
        var moved = true
        while moved {
            moved = false
            while let (nexus, notification) = mailbox.takeFirst() {
                moved = true
                clients.first { $0.session.start.nexus == nexus }?.session.notified(notification, now: now)
            }
            if memoryReleased.count != memoryReleasesSeen {
                memoryReleasesSeen = memoryReleased.count
                moved = true
                let waiters = memoryWaiters
                memoryWaiters = []
                for client in waiters { client.session.memoryAvailable(isReport: true, now: now) }
            }
            for client in clients where step(client) { moved = true }
        }
    }

    private func step(_ client: Client) -> Bool {
        var moved = false
        if client.closed == nil && client.session.wantsInput {
            let chunk = Array(client.pending.prefix(client.delivered))
            let used = client.session.receive(chunk.span, now: now)
            client.pending.removeFirst(used)
            if client.delivered != .max { client.delivered -= used }
            if used > 0 { moved = true }
        }
        while let action = client.session.nextAction() {
            moved = true
            carryOut(action, client)
        }
        if !client.reads { return moved }
        if client.session.unsent > 0 {
            moved = true
            var bytes: [UInt8] = []
            client.session.send(now: now) { bytes = $0.drain() }
            client.take(bytes)
        }
        return moved
    }

    private func carryOut(_ action: Action, _ client: Client) {
        switch action {
        case .perform(let ticket):
            client.session.perform(ticket, now: now) { operation, buffer, hold in
                guard let store = (hold as? Hold<MemoryStore>)?.medium else { return .failed(.unsupported) }
                guard holdsOperations else { return store.perform(operation, buffer) }
                held.append(Held(client: client, ticket: ticket, store: store, operation: operation, buffer: buffer))
                return nil
            }
        case .keep(let ticket, let unit, _):
            while let record = unit.recordToKeep() {
                kept.append(record)
                unit.settle(isKept: true)
            }
            client.session.kept(ticket, now: now)
        case .askSendTargets(let request):
            client.session.answer(request, [])
        case .waitForMemory:
            memoryWaiters.append(client)
            data.whenReleased { [memoryReleased] in memoryReleased.raise() }
            client.session.memoryAvailable(isReport: false, now: now)
        case .close(let reason, _): client.closed = reason
        }
    }

    private func finish(_ operation: Held) {
        let outcome = operation.store!.perform(operation.operation, operation.buffer)
        operation.client.session.completed(operation.ticket, outcome: outcome, now: now)
    }

    /// Lets the store carry out what it holds at `position`.
    func release(_ position: Int = 0) {
        finish(held.remove(at: position))
        run()
    }

    func releaseAll() {
        while !held.isEmpty { release() }
    }

    /// The connection breaks.
    func tear(_ client: Client) {
        client.session.end(.connectionLost)
        if client.closed == nil { client.closed = .connectionLost }
        run()
    }

    func tick(seconds: UInt64) {
        for _ in 0..<seconds {
            now += SessionLimits.second
            for client in clients { client.session.tick(now: now) }
            run()
        }
    }
}

func name(_ text: String) -> ISCSIName {
    guard let name = try? ISCSIName(Array(text.utf8)) else { preconditionFailure("a name of the tests") }
    return name
}
