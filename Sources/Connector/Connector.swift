import Bytes
import Logging
import Reactor

/// Accepts initiators' clear connections and carries each to its portal over a connection of its own.
final class Connector {
    private let loop: EventLoop
    private let log: Logger
    private let limit: Int
    private let patience: UInt64
    private let pool: BufferPool
    private var gates: [Gate] = []
    private var relays: [ObjectIdentifier: Relay] = [:]
    private var isFull = false

    /// How many connections are carried.
    var count: Int { relays.count }
    /// Bytes that wait in it.
    var bytesHeld: Int { pool.inUse }

    /// - Parameters:
    ///   - connections: carried at once
    ///   - patience: nanoseconds until a portal has to have greeted us
    init(_ loop: EventLoop, connections: Int, patience: UInt64 = Relay.patience, log: Logger) {
        self.patience = patience
        self.loop = loop
        self.log = log
        limit = connections
        pool = BufferPool(budget: connections * 2 * BufferPool.charge(for: Relay.bufferSize), cached: 8 << 20)
    }

    /// Begins to accept for a portal.
    /// - Parameters:
    ///   - listener: where initiators connect to
    ///   - title: the portal's, for the log
    ///   - addresses: the portal's
    ///   - secure: makes the secure stream of a connection to it
    func serve(
        _ listener: consuming FileDescriptor, title: String, addresses: [SocketAddress], secure: @escaping (Int32) -> any Stream
    ) throws(SystemError) {
        let gate = Gate(title: title, addresses: addresses, secure: secure, log: log)
        gate.listener = try Listener(loop, listener) { [unowned self, unowned gate] connection, _ in
            accept(connection, gate)
        } onTrouble: { [log] error in
            log.warning("connections to \(title) wait: \(error)")
        }
        gates.append(gate)
    }

    /// From now on makes secure streams so, portal by portal in the order in which they were begun; connections that stand go on.
    func renew(_ secure: [(Int32) -> any Stream]) {
        for (gate, secure) in zip(gates, secure) { gate.secure = secure }
    }

    private func accept(_ connection: consuming FileDescriptor, _ gate: Gate) {
        guard relays.count < limit else {
            if !isFull { log.warning("\(limit) connections are open; more are closed at once (connections: in the settings)") }
            isFull = true
            return
        }
        try? Socket.setNoDelay(connection.rawValue)
        let relay = Relay(loop, connection, to: gate.addresses, pool: pool, patience: patience, secure: gate.secure) { [unowned gate] in
            gate.speaks($0)
        } onEnd: { [unowned self, unowned gate] relay, ending in
            relays[ObjectIdentifier(relay)] = nil
            // Some room, so that one connection that comes and goes at the limit is not a line each time.
            if relays.count <= limit - max(1, limit / 8) { isFull = false }
            gate.ended(ending)
        }
        relays[ObjectIdentifier(relay)] = relay
        relay.begin()
    }

    /// Accepts no more and ends what is carried.
    func close() {
        for gate in gates { gate.listener?.close() }
        for relay in Array(relays.values) { relay.close() }
        gates = []
    }
}

/// One portal as initiators of this host reach it, and what has been said about it: a trouble is told once, and that it is over.
private final class Gate {
    /// Different troubles that are told while nothing comes to stand; a portal has few ways to be away.
    private static let mostTroubles = 8

    let title: String
    let addresses: [SocketAddress]
    var secure: (Int32) -> any Stream
    var listener: Listener?
    private let log: Logger
    private var told: Set<String> = []
    private var failures = 0

    init(title: String, addresses: [SocketAddress], secure: @escaping (Int32) -> any Stream, log: Logger) {
        self.title = title
        self.addresses = addresses
        self.secure = secure
        self.log = log
    }

    /// The portal has begun to speak.
    func speaks(_ how: String) {
        log.debug("connected to \(title): \(how)")
        guard failures > 0 else { return }
        log.notice("\(title) is reached again; failed connections before: \(failures)")
        failures = 0
        told = []
    }

    func ended(_ ending: Relay.Ending) {
        switch ending {
        case .unreachable(let reason): tell("\(title) cannot be reached: \(reason)")
        case .refused(let reason): tell("\(title) ends connections: \(reason)")
        case .over: break
        }
    }

    private func tell(_ trouble: String) {
        failures += 1
        guard told.count < Self.mostTroubles, told.insert(trouble).inserted else { return }
        log.error("\(trouble); this is said once")
    }
}
