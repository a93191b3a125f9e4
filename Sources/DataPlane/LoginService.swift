import Bytes
import Door
import ISCSI
import Logging
import Reactor
import TLS

/// Bounds of logins: everything here is done for peers that nobody knows yet.
public enum NewcomerLimits {
    /// Nanoseconds from accept to the end of login, whatever the peer does. Initiators give up on their own after 15 s.
    public static let loginTime: UInt64 = 15_000_000_000
    /// Nanoseconds that a discovery session may be silent; then it is closed. Discovery takes a moment.
    public static let discoveryIdle: UInt64 = 60_000_000_000
    /// Nanoseconds to send what is left before a connection is closed.
    public static let lastWords: UInt64 = 2_000_000_000
    /// Bytes taken from a connection at a time; a Login Request has at most 8240.
    public static let receiveSize = 16 << 10
    /// Sources that are kept out at once: as many as control remembers.
    public static let keptOut = 65_536
    /// Bytes of the sentence that says why a TLS handshake has failed.
    static let reason = 512
    /// Bytes of discovery answers that may wait to be sent before nothing more is read from the connection.
    public static let unsent = 256 << 10
}

/// How a login process is set up.
public struct LoginOptions: Sendable {
    /// Connections in all. At the limit the oldest one of the source that holds most goes first, so that newcomers from quiet
    /// sources get in.
    public var connections: Int
    /// Connections from one IPv4 address or IPv6 /64.
    public var connectionsPerSource: Int

    public init(connections: Int, connectionsPerSource: Int) {
        self.connections = connections
        self.connectionsPerSource = connectionsPerSource
    }
}

/// Meets peers nobody knows yet: accepts on portals, speaks the login phase and discovery sessions, asks control, and gives what has
/// come through away. It holds no configuration and no secret.
///
/// It is all that the login process does, for clear portals; and a part of the data process, for portals with TLS, since a connection
/// with TLS cannot move from one process to another.
public final class LoginService: LoopDweller {
    let loop: EventLoop
    let log: Logger
    private let options: LoginOptions
    let answers = BufferPool(budget: 1 << 40, cached: 1 << 20)
    private(set) var link: DoorLink<LoginAnswerMessage, LoginQuestionMessage>?
    private var listeners: [UInt32: Listener] = [:]
    /// nil: here is no TLS.
    private(set) var securePortals: SecurePortals?
    /// Called when what a portal accepts is replaced: whoever has come through it before may not be trusted any more.
    var onReplacement: ((_ portal: UInt32, ServerContext) -> Void)?
    private var connections: [ConnectionID: LoginConnection] = [:]
    private var crowd = Crowd()
    private var keptOut = KeptOut()
    /// Discovery sessions whose initiator wants to know its targets: each asks one thing at a time.
    private lazy var discoveries = PacedQueue<(ConnectionID, TextRequest.Selection)>(loop: loop) { [unowned self] id, scope in
        // It may have gone while it waited, and control has been told.
        if connections[id] != nil { link?.send(.sendTargets(id, scope)) }
    }
    private var nextConnection: UInt64 = 1
    private var isOnline = true
    var input = [UInt8](repeating: 0, count: NewcomerLimits.receiveSize)

    /// - Parameter handshakes: nil for a process without TLS
    init(loop: EventLoop, door: consuming FileDescriptor, options: LoginOptions, handshakes: Handshakes? = nil, log: Logger) throws(SystemError) {
        self.loop = loop
        self.options = options
        self.log = log
        link = try DoorLink(loop: loop, socket: door) { [unowned self] message, descriptors in
            handle(message, &descriptors)
        } onEnd: { [unowned self] reason in
            if case .closed = reason {} else { self.log.error("control is gone: \(reason)") }
            self.loop.stop()
        }
        if let handshakes { securePortals = SecurePortals(handshakes, ask: here { $0.link?.send($1) }) }
    }

    private func handle(_ message: LoginAnswerMessage, _ descriptors: inout ReceivedDescriptors) {
        switch message {
        case .listen(let portal):
            guard let descriptor = descriptors.take() else {
                return log.error("a portal cannot be served: this process may open no more descriptors")
            }
            listen(portal, descriptor)
        case .stopListening(let portal):
            listeners.removeValue(forKey: portal)?.close()
            securePortals?.forget(portal)
            for connection in Array(connections.values) where connection.portal == portal { connection.close(tellControl: true) }
        case .secure(let portal, let part, let isLast): secure(portal, part, isLast: isLast)
        case .signed(let id, let signature): securePortals?.questions.answered(id, signature: signature)
        case .preSharedKey(let id, let key): securePortals?.questions.answered(id, key: key)
        case .setOnline(let isOnline): self.isOnline = isOnline
        case .proceed(let id, let parameters, let tag, let authentication):
            connections[id]?.answer(.proceed(parameters: parameters, portalGroupTag: tag, authentication: authentication))
        case .authenticated(let id, let parameters, let proof): connections[id]?.answer(.authenticated(parameters: parameters, proof: proof))
        case .drop(let id): connections[id]?.close(tellControl: true)
        case .refuse(let id, let status): connections[id]?.answer(.refuse(status))
        case .turnAway(let refusal): turnAway(refusal, descriptors.take())
        case .targets(let id, let targets, let isLast): connections[id]?.discovered(targets, isLast: isLast)
        case .heartbeat(let count): link?.send(.heartbeat(count, refused: keptOut.refused))
        case .keepOut(let source, let milliseconds): keptOut.add(source, until: loop.now + UInt64(milliseconds) * 1_000_000, now: loop.now)
        }
    }

    /// What a portal presents and accepts: from now on for whoever connects, and for whoever is connected as far as it is trusted.
    private func secure(_ portal: UInt32, _ part: [UInt8], isLast: Bool) {
        guard let securePortals else { return log.error("what a portal with TLS presents is not for this process") }
        do {
            guard let context = try securePortals.take(part, isLast: isLast, of: portal) else { return }
            for connection in Array(connections.values) where connection.portal == portal && !connection.isStillTrusted(by: context) {
                connection.close(tellControl: true)
            }
            onReplacement?(portal, context)
        } catch {
            // Control has tried it before: it goes on with what there was.
            log.error("what a portal with TLS presents cannot be used: \(error)")
        }
    }

    /// A login has come to nothing at its last moment. A peer that does not read that misses it.
    private func turnAway(_ refusal: [UInt8], _ connection: consuming FileDescriptor?) {
        var sent = 0
        if let connection { _ = Socket.send(connection.rawValue, refusal, from: &sent) }
    }

    /// Whether what the peer of a connection has shown is what its portal accepts now.
    func trusts(_ stream: ByteStream) -> Bool { stream.portal.flatMap { securePortals?[$0] }.map(stream.isStillTrusted) ?? true }

    /// A session takes the place of a login on a connection that stays here. nil: it has gone.
    func take(_ id: ConnectionID) -> ByteStream? { connections[id]?.give() }

    private func listen(_ portal: UInt32, _ descriptor: consuming FileDescriptor) {
        do {
            listeners[portal] = try Listener(loop, descriptor) { [unowned self] connection, peer in
                accept(connection, peer, portal)
            } onTrouble: { [log] error in
                log.warning("connections wait: \(error)")
            }
        } catch {
            log.error("a portal cannot be served: \(error)")
        }
    }

    private func accept(_ descriptor: consuming FileDescriptor, _ peer: SocketAddress?, _ portal: UInt32) {
        // As tgt: offline, connections are taken and closed at once.
        guard isOnline, let peer else { return }
        let source = Source(peer)
        guard !keptOut.refuses(source, now: loop.now) else { return }
        guard crowd.count(of: source) < options.connectionsPerSource else { return }
        if crowd.count >= options.connections, let victim = crowd.victim { connections[victim]?.close(tellControl: true) }
        let id = ConnectionID(rawValue: nextConnection)
        nextConnection += 1
        do {
            let stream = if let context = securePortals?[portal] { ByteStream(descriptor, accepting: context, portal: portal) } else { ByteStream(descriptor) }
            let connection = try LoginConnection(id, stream, portal: portal, source: source, service: self)
            connections[id] = connection
            crowd.add(id, from: source)
            connection.begin()
        } catch {
            log.warning("a connection cannot be served: \(error)")
        }
    }

    /// The connection with this number, while it is here.
    func connection(_ id: ConnectionID) -> LoginConnection? { connections[id] }

    func sendTargets(_ id: ConnectionID, _ scope: TextRequest.Selection) { discoveries.append((id, scope)) }

    func forget(_ connection: LoginConnection) {
        guard connections.removeValue(forKey: connection.id) != nil else { return }
        crowd.remove(connection.id, from: connection.source)
    }
}
