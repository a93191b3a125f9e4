import Bytes
import Crypto
import Glibc
import Issuing
import Reactor

@testable import TLS

/// Two connected sockets, non-blocking.
final class Wire: @unchecked Sendable {
    let server: Int32
    let client: Int32
    private var owned: [Int32]

    /// - Parameter buffer: bytes of each socket's send and receive buffers; nil: as they are
    init(isTCP: Bool = false, buffer: Int32? = nil) throws {
        if isTCP {
            let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
            let connecting = try Socket.connect(to: Socket.localAddress(listener.rawValue)!)
            guard Socket.wait(listener.rawValue, .readable, nanoseconds: 5_000_000_000) else { throw Unexpected(description: "nobody connects") }
            guard case .connection(let accepted, _) = try Socket.accept(listener.rawValue) else { throw Unexpected(description: "nobody connects") }
            (server, client) = (accepted.release(), connecting.release())
            for end in [server, client] { try Socket.setNoDelay(end) }
        } else {
            var ends: [Int32] = [-1, -1]
            guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else { throw SystemError("socketpair", errno) }
            (server, client) = (ends[0], ends[1])
            for end in ends { try Socket.setNonBlocking(end, true) }
        }
        owned = [server, client]
        if let buffer { for end in owned { try Socket.setBuffers(end, send: buffer, receive: buffer) } }
    }

    func closeClient() { close(client); owned = [server] }
    func closeServer() { close(server); owned = [client] }
    deinit { for end in owned { close(end) } }
}

enum End: Equatable {
    case peer(TLSPeer)
    case failure(TLSFailure)

    var peer: TLSPeer? { if case .peer(let peer) = self { peer } else { nil } }
    var failure: TLSFailure? { if case .failure(let failure) = self { failure } else { nil } }
}

/// A server's and a client's connection with each other.
final class Pair {
    let wire: Wire
    let server: SecureConnection
    let client: SecureConnection

    init(_ server: ServerContext, _ client: ClientContext, on wire: Wire? = nil) throws {
        let wire = try wire ?? Wire()
        self.wire = wire
        self.server = SecureConnection(accepting: server, descriptor: wire.server)
        self.client = SecureConnection(connecting: client, descriptor: wire.client)
    }

    /// Both handshakes to their ends.
    func shakeHands() -> (server: End, client: End) {
        var (server, client): (End?, End?) = (nil, nil)
        func step(_ connection: SecureConnection, _ end: inout End?, _ descriptor: Int32) {
            guard end == nil else { return }
            switch connection.handshake() {
            case .done(let peer): end = .peer(peer)
            case .failed(let failure):
                end = .failure(failure)
                Socket.finishSending(descriptor)
            case .wantsInput, .wantsOutput: break
            }
        }
        for _ in 0..<1000 where server == nil || client == nil {
            step(self.client, &client, wire.client)
            step(self.server, &server, wire.server)
        }
        // A client is done before the server has looked at what it showed: the refusal comes with the first data.
        if case .failure = server, case .peer = client {
            var bytes = [UInt8](repeating: 0, count: 16)
            if case .closed = self.client.receive(into: &bytes, 0..<16), let failure = self.client.failure { client = .failure(failure) }
        }
        return (server ?? .failure(.closed(nil)), client ?? .failure(.closed(nil)))
    }

    /// Handshakes that must succeed.
    func connect() throws -> (server: TLSPeer, client: TLSPeer) {
        let ends = shakeHands()
        guard let server = ends.server.peer, let client = ends.client.peer else { throw Unexpected(description: "\(ends)") }
        return (server, client)
    }
}

let answers = BufferPool(budget: 1 << 30)

extension OutputQueue {
    init(_ bytes: [UInt8]) {
        self.init(pool: answers)
        append(copying: bytes.span)
    }
}

/// Sends all of `bytes` one way, receiving as needed; returns what arrives.
func carry(_ bytes: [UInt8], from sender: SecureConnection, to receiver: SecureConnection, at once: Int = 100_000) throws -> [UInt8] {
    var queue = OutputQueue(bytes)
    var arrived: [UInt8] = []
    var room = [UInt8](repeating: 0, count: once)
    var idle = 0
    while arrived.count < bytes.count {
        if !queue.isEmpty, case .closed(let error) = sender.send(&queue) { throw error }
        switch receiver.receive(into: &room, 0..<once) {
        case .received(let count):
            arrived += room[..<count]
            idle = 0
        case .wouldBlock:
            idle += 1
            if idle > 10000 { throw Unexpected(description: "nothing comes any more") }
        case .closed(let error): throw Unexpected(description: "closed: \(error as Any)")
        }
    }
    return arrived
}

func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

/// What most tests need: one authority, a portal's certificate and an initiator's.
struct Party: Sendable {
    let issuer: Issuer
    let portal: Credentials
    let initiator: Credentials
    static let initiatorName = "iqn.2026-11.org.example:host1"

    static let common = Result { try Party() }

    init(portalKey: Issuer.Key = .p256) throws {
        issuer = try Issuer()
        portal = try issuer.issue("portal", key: portalKey, names: "DNS:portal.example,IP:127.0.0.1")
        initiator = try issuer.issue("initiator", names: "URI:iscsi:\(Self.initiatorName)")
    }

    /// The server's material, to be changed.
    var material: ServerMaterial { ServerMaterial(certificates: portal.certificate) }

    func server(_ change: (inout ServerMaterial) -> Void = { _ in }, preSharedKey: @escaping @Sendable ([UInt8]) -> Secret? = { _ in nil }) throws -> ServerContext {
        var material = material
        change(&material)
        let key = try portal.signing
        return try ServerContext(material, sign: { try? key.sign($1, by: $0) }, preSharedKey: preSharedKey)
    }

    var trust: ServerTrust { .authority(ca: issuer.certificate, crl: [], name: "portal.example") }

    func client(_ trust: ServerTrust? = nil, _ identity: ClientIdentity = .nobody, _ policy: TLSPolicy = .strict) throws -> ClientContext {
        try ClientContext(trust ?? self.trust, identity: identity, policy: policy)
    }

    func identity(_ credentials: Credentials) throws -> ClientIdentity {
        let key = try credentials.signing
        return .certificate(credentials.certificate) { try? key.sign($1, by: $0) }
    }
}
