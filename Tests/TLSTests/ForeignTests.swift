import Bytes
import Crypto
import Foundation
import Issuing
import Reactor
import Testing

@testable import TLS

/// The other side is not ours: OpenSSL's own programs, and stunnel where it is installed.
@Suite(.serialized) struct ForeignTests {
    let party: Party
    static let key = "7c3bd0f1a2945e6688c0ffee1d2b3a495867a6b5c4d3e2f100112233445566aa"
    static let identity = Array("host1".utf8)
    init() throws { party = try Party.common.get() }

    private static var secret: Secret {
        let digits = Array(key)
        return Secret(stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...$0 + 1]), radix: 16)! })
    }

    private func byKey() throws -> ServerContext {
        try party.server({ ($0.certificates, $0.takesPreSharedKeys, $0.clientAuthentication) = ([], true, .required) }, preSharedKey: { $0 == Self.identity ? Self.secret : nil })
    }

    private func byCertificate() throws -> ServerContext {
        try party.server { ($0.clientCA, $0.clientAuthentication) = (party.issuer.certificate, .required) }
    }

    private func client(byKey: Bool) throws -> ClientContext {
        if byKey { return try ClientContext(.preSharedKey, identity: .preSharedKey(identity: Self.identity, key: Self.secret)) }
        return try party.client(nil, party.identity(party.initiator))
    }

    // MARK: OpenSSL

    @Test("openssl s_client shows a certificate or a pre-shared key, and talks", arguments: [false, true])
    func client(usesKey: Bool) throws {
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        let port = try Socket.localAddress(listener.rawValue)!.port
        let proof = usesKey ? ["-psk_identity", "host1", "-psk", Self.key] : ["-cert", party.initiator.certificateFile, "-key", party.initiator.keyFile, "-CAfile", party.issuer.certificateFile, "-verify_return_error"]
        let other = try Program("openssl", ["s_client", "-connect", "127.0.0.1:\(port)", "-quiet", "-no_ign_eof"] + proof)
        defer { other.end() }
        let server = try Talk(listener: listener.rawValue, usesKey ? byKey() : byCertificate())
        let peer = try server.shakeHands()
        #expect(peer.version == .tls13)
        #expect(usesKey == (peer.identity == .preSharedKey(identity: Self.identity)))
        try other.write("to the portal\n")
        #expect(try server.receive(14) == "to the portal\n")
        try server.send("to the initiator\n")
        #expect(try other.read(17) == "to the initiator\n")
        server.connection.finish()
        #expect(try other.read(1) == "", "it takes the goodbye for the end")
    }

    @Test("openssl s_server is talked with by certificate and by pre-shared key", arguments: [false, true])
    func server(usesKey: Bool) throws {
        let port = try freePort()
        let proof = usesKey ? ["-psk_identity", "host1", "-psk", Self.key, "-nocert"] : ["-cert", party.portal.certificateFile, "-key", party.portal.keyFile, "-CAfile", party.issuer.certificateFile, "-Verify", "2", "-verify_return_error"]
        let other = try Program("openssl", ["s_server", "-accept", "127.0.0.1:\(port)", "-quiet", "-naccept", "1"] + proof)
        defer { other.end() }
        let talk = try Talk(port: port, client(byKey: usesKey))
        let peer = try talk.shakeHands()
        #expect(usesKey == (peer.identity == .preSharedKey(identity: Self.identity)))
        try talk.send("to the portal\n")
        #expect(try other.read(14) == "to the portal\n")
        try other.write("to the initiator\n")
        #expect(try talk.receive(17) == "to the initiator\n")
    }

    @Test("What openssl s_client brings that a portal does not take is refused: an older version, no certificate, a wrong key")
    func refused() throws {
        func failure(_ words: [String], _ context: ServerContext) throws -> TLSFailure? {
            let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
            let port = try Socket.localAddress(listener.rawValue)!.port
            let other = try Program("openssl", ["s_client", "-connect", "127.0.0.1:\(port)", "-quiet"] + words)
            defer { other.end() }
            do {
                _ = try Talk(listener: listener.rawValue, context).shakeHands()
                return nil
            } catch let failure as TLSFailure { return failure }
        }
        #expect(try failure(["-tls1_2"], party.server()) == .version)
        #expect(try failure(["-tls1_2"], party.server { $0.policy = .compatible }) == nil)
        for weak in ["-tls1_1", "-tls1"] { #expect(try failure([weak, "-cipher", "DEFAULT@SECLEVEL=0"], party.server { $0.policy = .compatible }) == .version) }
        #expect(try failure(["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], party.server { $0.policy = .compatible }) == .nothingInCommon)
        #expect(try failure([], byCertificate()) == .noIdentity)
        #expect(try failure(["-psk_identity", "host1", "-psk", "00112233445566778899aabbccddeeff"], byKey()) == .wrongPreSharedKey(identity: Self.identity))
        #expect(try failure(["-psk_identity", "host2", "-psk", Self.key], byKey()) == .unknownPreSharedKey(identity: Array("host2".utf8)))
    }

    // MARK: stunnel

    static let hasStunnel = FileManager.default.isExecutableFile(atPath: "/usr/bin/stunnel")

    /// - Returns: stunnel, once it listens at `port`
    private func stunnel(isClient: Bool, port: UInt16, to target: UInt16, usesKey: Bool) throws -> Program {
        let folder = party.issuer.folder
        let file = "\(folder)/stunnel-\(isClient)-\(usesKey).conf"
        // Its key files hold identity:key.
        try "host1:\(Self.key)\n".write(toFile: "\(folder)/keys", atomically: true, encoding: .utf8)
        let own = isClient ? party.initiator : party.portal
        let proof =
            usesKey
            ? "PSKsecrets = \(folder)/keys\n" + (isClient ? "PSKidentity = host1\n" : "ciphers = PSK\n")
            : "cert = \(own.certificateFile)\nkey = \(own.keyFile)\nCAfile = \(party.issuer.certificateFile)\nverifyChain = yes\n" + (isClient ? "checkHost = portal.example\n" : "")
        try """
            foreground = quiet
            debug = 4
            pid =
            [link]
            client = \(isClient ? "yes" : "no")
            accept = 127.0.0.1:\(port)
            connect = 127.0.0.1:\(target)
            sslVersion = TLSv1.3
            \(proof)
            """.write(toFile: file, atomically: true, encoding: .utf8)
        return try Program("stunnel", [file])
    }

    @Test("stunnel as a connector reaches our server by certificate and by pre-shared key, with megabytes both ways", .enabled(if: hasStunnel), arguments: [false, true])
    func connector(usesKey: Bool) throws {
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        let port = try freePort()
        let other = try stunnel(isClient: true, port: port, to: Socket.localAddress(listener.rawValue)!.port, usesKey: usesKey)
        defer { other.end() }
        let clear = try connected(to: port)
        let server = try Talk(listener: listener.rawValue, usesKey ? byKey() : byCertificate())
        let peer = try server.shakeHands()
        switch peer.identity {
        case .preSharedKey(let identity): #expect(usesKey && identity == Self.identity)
        case .certificate(_, let uris, _, _): #expect(!usesKey && uris == [Array("iscsi:\(Party.initiatorName)".utf8)])
        case .nobody: throw Unexpected(description: "nobody")
        }
        try exchange(server.connection, clear.rawValue)
    }

    @Test("Our client reaches stunnel as a portal by certificate and by pre-shared key, with megabytes both ways", .enabled(if: hasStunnel), arguments: [false, true])
    func portal(usesKey: Bool) throws {
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        let port = try freePort()
        let other = try stunnel(isClient: false, port: port, to: Socket.localAddress(listener.rawValue)!.port, usesKey: usesKey)
        defer { other.end() }
        let talk = try Talk(port: port, client(byKey: usesKey))
        _ = try talk.shakeHands()
        guard Socket.wait(listener.rawValue, .readable, nanoseconds: 5_000_000_000), case .connection(let clear, _) = try Socket.accept(listener.rawValue)
        else { throw Unexpected(description: "it does not go on") }
        try exchange(talk.connection, clear.rawValue)
    }

    /// 3 MB each way at once between a secure and a clear end.
    private func exchange(_ secure: SecureConnection, _ clear: Int32) throws {
        let (down, up) = (pattern(3_000_000, seed: 3), pattern(3_000_000, seed: 4))
        var (downQueue, upQueue) = (OutputQueue(down), OutputQueue(up))
        var (gotDown, gotUp): ([UInt8], [UInt8]) = ([], [])
        var room = [UInt8](repeating: 0, count: 65536)
        let start = ContinuousClock.now
        while gotDown.count < down.count || gotUp.count < up.count {
            guard ContinuousClock.now - start < .seconds(20) else { throw Unexpected(description: "it stands at \(gotDown.count) and \(gotUp.count)") }
            if case .closed(let error) = secure.send(&downQueue) { throw error }
            if case .closed(let error) = Socket.send(clear, &upQueue) { throw error }
            if case .received(let count) = secure.receive(into: &room, 0..<65536) { gotUp += room[..<count] }
            if case .received(let count) = Socket.receive(clear, into: &room, 0..<65536) { gotDown += room[..<count] }
        }
        #expect(gotDown == down)
        #expect(gotUp == up)
    }
}

// MARK: Their programs

/// A program that is written to and read from, and ended.
private final class Program {
    private let child: ChildProcess
    private let ends: Wire

    init(_ name: String, _ words: [String]) throws {
        ends = try Wire()
        child = try ChildProcess(
            path: "/bin/sh", arguments: ["sh", "-c", "exec \"$0\" \"$@\" <&3 >&3 2>/dev/null 3>&-", name] + words, environment: ["PATH=/usr/bin:/bin"],
            descriptors: [ends.client])
        ends.closeClient()
    }

    func write(_ text: String) throws {
        var start = 0
        guard case .done = Socket.send(ends.server, Array(text.utf8), from: &start) else { throw Unexpected(description: "it reads nothing") }
    }

    /// So many bytes, or what comes before the end.
    func read(_ count: Int) throws -> String {
        var room = [UInt8](repeating: 0, count: count)
        var got = 0
        reading: while got < count {
            switch Socket.receive(ends.server, into: &room, got..<count) {
            case .received(let more): got += more
            case .wouldBlock: guard Socket.wait(ends.server, .readable, nanoseconds: 5_000_000_000) else { throw Unexpected(description: "it says nothing") }
            case .closed: break reading
            }
        }
        return String(decoding: room[..<got], as: UTF8.self)
    }

    func end() {
        child.send(signal: SIGKILL)
        _ = child.wait(nanoseconds: 5_000_000_000)
    }
}

/// One connection of ours that waits where it must.
private final class Talk {
    let connection: SecureConnection
    private let descriptor: FileDescriptor
    private static let patience: UInt64 = 5_000_000_000

    init(listener: Int32, _ context: ServerContext) throws {
        guard Socket.wait(listener, .readable, nanoseconds: Self.patience), case .connection(let accepted, _) = try Socket.accept(listener) else {
            throw Unexpected(description: "nobody connects")
        }
        connection = SecureConnection(accepting: context, descriptor: accepted.rawValue)
        descriptor = accepted
    }

    init(port: UInt16, _ context: ClientContext) throws {
        let socket = try connected(to: port)
        connection = SecureConnection(connecting: context, descriptor: socket.rawValue)
        descriptor = socket
    }

    func shakeHands() throws -> TLSPeer {
        while true {
            switch connection.handshake() {
            case .done(let peer): return peer
            case .failed(let failure): throw failure
            case .wantsInput: guard Socket.wait(descriptor.rawValue, .readable, nanoseconds: Self.patience) else { throw Unexpected(description: "silence") }
            case .wantsOutput: guard Socket.wait(descriptor.rawValue, .writable, nanoseconds: Self.patience) else { throw Unexpected(description: "full") }
            }
        }
    }

    func send(_ text: String) throws {
        var queue = OutputQueue(Array(text.utf8))
        guard case .done = connection.send(&queue) else { throw Unexpected(description: "it is not sent") }
    }

    func receive(_ count: Int) throws -> String {
        var room = [UInt8](repeating: 0, count: count)
        var got = 0
        while got < count {
            switch connection.receive(into: &room, got..<count) {
            case .received(let more): got += more
            case .wouldBlock: guard Socket.wait(descriptor.rawValue, .readable, nanoseconds: Self.patience) else { throw Unexpected(description: "silence") }
            case .closed(let error): throw Unexpected(description: "closed: \(error as Any)")
            }
        }
        return String(decoding: room, as: UTF8.self)
    }
}

private func freePort() throws -> UInt16 {
    let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
    return try Socket.localAddress(listener.rawValue)!.port
}

/// A connection to a program that may not listen yet.
private func connected(to port: UInt16) throws -> FileDescriptor {
    for _ in 0..<250 {
        let socket = try Socket.connect(to: SocketAddress("127.0.0.1:\(port)")!)
        if Socket.wait(socket.rawValue, .writable, nanoseconds: 1_000_000_000), Socket.takeError(socket.rawValue) == nil { return socket }
        usleep(20000)
    }
    throw Unexpected(description: "nobody listens")
}
