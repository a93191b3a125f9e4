import Bytes
import Door
import ISCSI
import Logging
import Medium
import Reactor
import SCSI
import Storage
import Synchronization
import TLS
import Target

/// What other threads tell a reactor.
enum ReactorMessage: Sendable {
    case begin(SessionBeginning)
    /// See whether the peer of this session is gone, now and not in its turn.
    case probe(NexusID, Acknowledgement)
    case notification(NexusID, Notification)
    case completed(NexusID, Ticket, Outcome)
    case kept(NexusID, Ticket)
    case targets(NexusID, TextRequest, [DiscoveredTarget])
    case memoryReleased(NexusID)
    case heartbeat(UInt64)
    case survey(RequestID)
    /// What a portal with TLS accepts has been replaced: sessions whose peers are not trusted any more end.
    case replaced(portal: UInt32, ServerContext)
}

/// What reactors tell the thread that talks to control.
enum ReactorReport: Sendable {
    /// The login response is on its way.
    case began(SessionBeginning)
    /// The initiator port has a session again: the beginning must wait for that one's end.
    case occupied(SessionBeginning)
    /// It was revoked before it began: nothing has been sent on its connection.
    case revoked(SessionBeginning)
    /// Nothing of it is left.
    case ended(SessionBeginning, EndReason)
    case keep(reactor: Int, NexusID, Ticket, LogicalUnit, revision: UInt64)
    case sendTargets(reactor: Int, NexusID, TextRequest)
    case heartbeat(reactor: Int, UInt64)
    /// What the sessions of this reactor have done, as of now.
    case surveyed(RequestID, [SurveyEntry])
}

/// A granted session on its way to, or on, its reactor. It owns the connection until the session does.
final class SessionBeginning: Sendable {
    let grant: SessionGrant
    let target: ServedTarget
    let connection: ByteStream
    let nexus: NexusID
    /// The I_T nexus.
    let name: NexusName
    private let revoked = Atomic(false)
    private let mask: Mutex<LUNMask>

    init(grant: SessionGrant, target: ServedTarget, connection: ByteStream, nexus: NexusID) {
        self.grant = grant
        self.target = target
        self.connection = connection
        self.nexus = nexus
        name = NexusName(
            initiator: InitiatorPort(name: grant.outcome.identity.initiatorName.bytes, isid: grant.outcome.identity.isid.rawValue), portalGroupTag: grant.portalGroupTag)
        mask = Mutex(grant.mask)
    }

    /// What is to begin.
    var start: SessionStart {
        var start = SessionStart(
            nexus: nexus, outcome: grant.outcome, tsih: grant.tsih, nopInterval: UInt32(grant.nopInterval), nopCount: UInt32(grant.nopCount))
        start.mask = currentMask
        start.portalGroupTag = grant.portalGroupTag
        return start
    }

    /// Whether both are of the same nexus: then there is only one of them at a time.
    func isOfSameNexus(as other: SessionBeginning) -> Bool { target === other.target && name == other.name }

    /// It is not to begin any more. Whoever revokes it ends the target's sessions next: either the reactor sees this behind its entry
    /// in the target, or the session is found there.
    func revoke() { revoked.store(true, ordering: .releasing) }
    /// What the session may see and write. Whoever changes it tells the session next: it begins with the new one, or is told.
    var currentMask: LUNMask { mask.withLock { $0 } }
    func setMask(_ new: LUNMask) { mask.withLock { $0 = new } }

    var isRevoked: Bool { revoked.load(ordering: .acquiring) }
}

/// What all reactors of a process share.
struct Shared: Sendable {
    let data: BufferPool
    /// For input that sessions have not taken yet.
    let input: BufferPool
    let answers: BufferPool
    let pool: IOPool<StorageTicket>
    let reports: Mailbox<ReactorReport>
    let log: Logger
}

/// Input that a session has not taken yet.
struct Unread {
    let buffer: Buffer
    var range: Range<Int>
}

/// One loop of the data process, with the sessions that live on it.
final class SessionReactor {
    /// Bytes received at once: several commands with their immediate data, or a quarter of a large burst.
    static let receiveSize = 256 << 10
    /// Between two looks at deadlines and pings, in nanoseconds.
    static let tick: UInt64 = 1_000_000_000

    let number: Int
    let loop: EventLoop
    let mailbox: Mailbox<ReactorMessage>
    let shared: Shared
    private var connections: [NexusID: SessionConnection] = [:]
    /// What a receive fills; only while one connection is at it.
    var input = [UInt8](repeating: 0, count: SessionReactor.receiveSize)

    /// Room for what may be left of one receive.
    private var room: Buffer?

    /// Whether `putAside` has room for what may be left of the next receive.
    var canPutAside: Bool {
        if room == nil { room = shared.input.allocate(Self.receiveSize) }
        return room != nil
    }

    /// Keeps input that its session has not taken. Only after `canPutAside`.
    func putAside(_ bytes: Range<Int>) -> Unread {
        guard let buffer = shared.input.allocate(bytes.count) ?? room else { preconditionFailure("there is room before anything is received") }
        if buffer === room { room = nil }
        let input = input
        buffer.copy(input.span.extracting(bytes), to: 0)
        return Unread(buffer: buffer, range: 0..<bytes.count)
    }

    /// Reads of one session that wait to be done together; nil where each is done by itself.
    let gathered: GatheredReads?

    /// Writes of all sessions that are done at the end of the turn.
    private(set) lazy var writes = GatheredWrites(relief, shared.pool) { [unowned self] writes in
        guard let nexus = writes.first?.nexus else { return }
        on(nexus) { $0.finished(writes) }
    }
    private let relief: Relief

    init(number: Int, loop: EventLoop, relief: Relief, mailbox: Mailbox<ReactorMessage>, shared: Shared, ring: ReadRing?) {
        gathered = ring.map(GatheredReads.init)
        self.relief = relief
        self.number = number
        self.loop = loop
        self.mailbox = mailbox
        self.shared = shared
    }

    /// The session that it worked for last, and since when for none but that.
    private var last: (tsih: UInt16, since: UInt64) = (0, 0)
    /// How long a session has to be the only one that works to count as alone, in nanoseconds.
    private static let solitude: UInt64 = 10_000_000

    /// Whether the session that is worked for has been the only one for a while.
    var servesOne: Bool { loop.now >= last.since + Self.solitude }

    /// Works for one session. If this process crashes or hangs meanwhile, control knows over whose.
    func work(for tsih: UInt16, _ body: () -> Void) {
        if tsih != last.tsih { last = (tsih, loop.now) }
        Work.note(UInt64(tsih))
        body()
        Work.note(0)
    }

    /// Serves what comes to its mailbox, for as long as its loop lives: the loop holds it.
    func start() throws(SystemError) {
        loop.detour = writes
        try loop.receive(mailbox) { [self] message in handle(message) }
        scheduleTick()
    }

    private func handle(_ message: ReactorMessage) {
        switch message {
        case .begin(let beginning): begin(beginning)
        case .probe(let nexus, _): on(nexus) { $0.ready(.readable) }
        case .notification(let nexus, let notification): on(nexus) { $0.notified(notification) }
        case .completed(let nexus, let ticket, let outcome): on(nexus) { $0.completed(ticket, outcome) }
        case .kept(let nexus, let ticket): on(nexus) { $0.kept(ticket) }
        case .targets(let nexus, let request, let targets): on(nexus) { $0.answer(request, targets) }
        case .memoryReleased(let nexus): on(nexus) { $0.memoryAvailable() }
        case .heartbeat(let count): report(.heartbeat(reactor: number, count))
        case .replaced(let portal, let context):
            for connection in Array(connections.values) { work(for: connection.tsih) { connection.replaced(portal, context) } }
        case .survey(let request): report(.surveyed(request, connections.values.flatMap(\.survey)))
        }
    }

    private func on(_ nexus: NexusID, _ body: (SessionConnection) -> Void) {
        guard let connection = connections[nexus] else { return }
        work(for: connection.tsih) { body(connection) }
    }

    private func begin(_ beginning: SessionBeginning) {
        guard let connection = SessionConnection(beginning, reactor: self) else {
            report(.occupied(beginning))
            return
        }
        guard !beginning.isRevoked else {
            connection.abandon()
            report(.revoked(beginning))
            return
        }
        connections[beginning.nexus] = connection
        hold(.began(beginning))
        work(for: connection.tsih) { connection.begin() }
    }

    // MARK: Reports

    /// What nobody waits for: it goes with what comes next, or after a moment. A login that is soon over wakes the others once.
    private var held: [ReactorReport] = []
    private var isHolding = false
    /// In nanoseconds.
    static let moment: UInt64 = 1_000_000

    private func hold(_ report: ReactorReport) {
        held.append(report)
        guard !isHolding else { return }
        isHolding = true
        loop.after(nanoseconds: Self.moment) { [unowned self] in
            isHolding = false
            releaseHeld()
        }
    }

    private func releaseHeld() {
        for report in held { shared.reports.post(report) }
        held.removeAll(keepingCapacity: true)
    }

    func report(_ report: ReactorReport) {
        releaseHeld()
        shared.reports.post(report)
    }

    /// The connection is closed and nothing of its session is left in the store.
    func forget(_ beginning: SessionBeginning, _ reason: EndReason) {
        guard connections.removeValue(forKey: beginning.nexus) != nil else { return }
        report(.ended(beginning, reason))
    }

    private func scheduleTick() {
        loop.after(nanoseconds: Self.tick) { [unowned self] in
            for connection in Array(connections.values) { work(for: connection.tsih) { connection.tick() } }
            scheduleTick()
        }
    }
}
