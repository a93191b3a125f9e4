import Bytes
import Crypto
import Glibc
import Issuing
import Reactor
import Synchronization
import Testing

@testable import TLS

@Suite struct HandshakeTests {
    let party: Party
    init() throws { party = try Party.common.get() }

    @Test("A server with a certificate and a client that knows its authority exchange data", arguments: [false, true])
    func certificate(isTCP: Bool) throws {
        let pair = try Pair(party.server(), party.client(), on: Wire(isTCP: isTCP))
        let peers = try pair.connect()
        #expect(peers.server == TLSPeer(identity: .nobody, version: .tls13, cipher: "TLS_AES_128_GCM_SHA256", usesKernelTLS: false))
        let own = try party.portal.chain.leaf
        #expect(
            peers.client.identity
                == .certificate(fingerprint: own.fingerprint, uris: [], subject: Array("CN=portal".utf8), notAfter: 2_208_988_800))
        let bytes = pattern(1_000_000)
        #expect(try carry(bytes, from: pair.server, to: pair.client) == bytes)
        #expect(try carry(bytes, from: pair.client, to: pair.server) == bytes)
    }

    @Test(
        "The private key stays with its keeper: whatever kind it is, each handshake asks for one signature of the known form",
        arguments: [Issuer.Key.p256, .p384, .ed25519], TLSPolicy.allCases)
    func signing(key: Issuer.Key, policy: TLSPolicy) throws {
        let portal = try party.issuer.issue("portal-\(key)-\(policy)", key: key, names: "DNS:portal.example")
        let signing = try portal.signing
        let asked = Asked()
        let server = try ServerContext(ServerMaterial(certificates: portal.certificate, policy: policy), sign: { scheme, message in
            asked.note(scheme, message)
            return try? signing.sign(message, by: scheme)
        })
        let pair = try Pair(server, party.client(nil, .nobody, policy))
        if policy == .compatible { pair.client.speakOnlyTLS12() }
        let peers = try pair.connect()
        #expect(peers.server.version == (policy == .strict ? .tls13 : .tls12))
        #expect(try carry([1, 2, 3], from: pair.client, to: pair.server) == [1, 2, 3])
        let (scheme, message) = try #require(asked.all.first)
        #expect(asked.all.count == 1)
        #expect(policy == .compatible || scheme == [.p256: .ecdsaSHA256, .p384: .ecdsaSHA384, .ed25519: .ed25519][key])
        #expect(ServerHandshake.isCertificateVerify(message) == (policy == .strict))
        #expect(ServerHandshake.isServerKeyExchange(message) == (policy == .compatible))
    }

    @Test("Without the signature, with another's and with an endless one there is no connection")
    func noSignature() throws {
        let refused = try Pair(ServerContext(party.material, sign: { _, _ in nil }), party.client()).shakeHands()
        #expect(refused.server == .failure(.notSigned))
        #expect(refused.client == .failure(.alert(80)))
        let endless = try Pair(ServerContext(party.material, sign: { _, _ in [UInt8](repeating: 0, count: 10000) }), party.client()).shakeHands()
        #expect(endless.server == .failure(.notSigned))
        let other = try party.initiator.signing
        let forged = try Pair(ServerContext(party.material, sign: { try? other.sign($1, by: $0) }), party.client()).shakeHands()
        #expect(forged.client == .failure(.protocolError("bad signature")))
        #expect(forged.server == .failure(.alert(51)))
    }

    @Test("A certificate with an RSA key, or with a curve that is not signed with, is refused by its kind", arguments: [Issuer.Key.rsa, .p521])
    func unsupportedKey(key: Issuer.Key) throws {
        let portal = try party.issuer.issue("portal-\(key)", key: key)
        let error = #expect(throws: TLSError.self) { try ServerContext(ServerMaterial(certificates: portal.certificate), sign: { _, _ in nil }) }
        #expect(error == .unsupportedKey)
        #expect("\(TLSError.unsupportedKey)".contains("only ECDSA P-256, ECDSA P-384 and Ed25519"))
    }

    @Test("What cannot be a server's or client's material is refused before anybody connects")
    func material() throws {
        func refusal(_ change: (inout ServerMaterial) -> Void) throws -> TLSError? {
            var material = party.material
            change(&material)
            return #expect(throws: TLSError.self) { try ServerContext(material, sign: { _, _ in nil }) }
        }
        #expect(try refusal { $0.certificates = [] } == .noCredentials)
        #expect(try refusal { $0.certificates = Array("nothing".utf8) } == .certificate(.none))
        #expect(try refusal { $0.certificates = party.portal.key } == .certificate(.none))
        #expect(try refusal { $0.clientAuthentication = .required } == .noAuthority)
        #expect(try refusal { $0.clientAuthentication = .optional } == .noAuthority)
        #expect(try refusal { $0.clientCA = Array("x".utf8) } == .authority(.none))
        #expect(try refusal { ($0.clientCA, $0.crl) = (party.issuer.certificate, party.issuer.certificate) } == .revocationList(.none))
        for trust in [ServerTrust.pinnedKey([1]), .authority(ca: party.issuer.certificate, crl: [], name: ""), .authority(ca: party.issuer.certificate, crl: [], name: "*.x")] {
            #expect(throws: TLSError.badExpectation) { try ClientContext(trust) }
        }
        #expect(throws: TLSError.noAuthority) { try ClientContext(.authority(ca: [], crl: [], name: "a")) }
        #expect(throws: TLSError.noCredentials) { try ClientContext(.preSharedKey) }
    }

    @Test("Intermediate certificates are sent along, and an intermediate authority is an authority")
    func chains() throws {
        let between = try party.issuer.issueAuthority("between")
        let lower = try Issuer(below: between)
        let portal = try lower.issue("portal-below", names: "DNS:portal.example")
        let signing = try portal.signing
        let server = try ServerContext(ServerMaterial(certificates: portal.certificate + between.certificate), sign: { try? signing.sign($1, by: $0) })
        _ = try Pair(server, party.client()).connect()
        _ = try Pair(server, party.client(.authority(ca: between.certificate, crl: [], name: "portal.example"))).connect()
        let alone = try ServerContext(ServerMaterial(certificates: portal.certificate), sign: { try? signing.sign($1, by: $0) })
        #expect(try Pair(alone, party.client()).shakeHands().client == .failure(.certificate(.unknownAuthority)))
    }

    @Test("TLS 1.2 under the strict policy is refused by both sides; under the compatible one the newer version wins")
    func versions() throws {
        let strict = try Pair(party.server(), party.client(nil, .nobody, .compatible))
        strict.client.speakOnlyTLS12()
        let ends = strict.shakeHands()
        #expect(ends.server == .failure(.version))
        #expect(ends.client == .failure(.alert(70)))
        #expect(try Pair(party.server { $0.policy = .compatible }, party.client(nil, .nobody, .compatible)).connect().server.version == .tls13)
    }

    @Test("A clear iSCSI login, garbage and silence end without an answer in TLS")
    func notTLS() throws {
        // Login Request, immediate (RFC 7143 §11.12).
        var login = [UInt8](repeating: 0, count: 48)
        login[0] = 0x43
        for bytes in [login, Array("GET / HTTP/1.1\r\n\r\n".utf8), [0], [0x80, 0x2e, 1, 3, 1], [23, 3, 3, 0, 1, 0]] {
            let wire = try Wire()
            let server = try SecureConnection(accepting: party.server(), descriptor: wire.server)
            guard case .wantsInput = server.handshake() else { throw Unexpected(description: "it starts by itself") }
            var start = 0
            _ = Socket.send(wire.client, bytes, from: &start)
            guard case .failed(.notTLS) = server.handshake() else { throw Unexpected(description: "\(bytes)") }
            guard case .failed(.notTLS) = server.handshake() else { throw Unexpected(description: "it stays so") }
            var room = [UInt8](repeating: 0, count: 100)
            guard case .wouldBlock = Socket.receive(wire.client, into: &room, 0..<100) else { throw Unexpected(description: "it answers") }
        }
        let gone = try Wire()
        let server = try SecureConnection(accepting: party.server(), descriptor: gone.server)
        gone.closeClient()
        guard case .failed(.closed(nil)) = server.handshake() else { throw Unexpected(description: "it waits for nobody") }
    }

    @Test("What begins like TLS and goes on as garbage ends with an alert")
    func garbage() throws {
        for seed in UInt64(1)...200 {
            var bytes = pattern(Int(seed % 90) + 6, seed: seed)
            bytes.replaceSubrange(0..<3, with: [22, 3, 1])
            // A length that the bytes fill, or one that no record has.
            if seed % 2 == 0 { bytes.replaceSubrange(3..<5, with: [0, UInt8(max(1, bytes.count - 5))]) }
            let wire = try Wire()
            let server = try SecureConnection(accepting: party.server(), descriptor: wire.server)
            var start = 0
            _ = Socket.send(wire.client, bytes, from: &start)
            Socket.finishSending(wire.client)
            var step = server.handshake()
            // The end comes as an event of its own.
            if case .wantsInput = step { step = server.handshake() }
            guard case .failed(let failure) = step else { throw Unexpected(description: "seed \(seed) is taken") }
            #expect(failure != .notTLS)
        }
    }

    @Test("A hello that comes in two parts, wherever it is cut, and one byte at a time, is a hello")
    func split() throws {
        let hello = try clientHello()
        #expect(hello.count > 100)
        for cut in 1..<hello.count { #expect(try answer(to: [Array(hello[..<cut]), Array(hello[cut...])]) > 500) }
        #expect(try answer(to: hello.map { [$0] }) > 500)
    }

    /// The first flight of a client.
    private func clientHello() throws -> [UInt8] {
        let wire = try Wire()
        let client = try SecureConnection(connecting: party.client(), descriptor: wire.client)
        _ = client.handshake()
        var room = [UInt8](repeating: 0, count: 5000)
        guard case .received(let count) = Socket.receive(wire.server, into: &room, 0..<room.count) else { throw Unexpected(description: "no hello") }
        return Array(room[..<count])
    }

    /// Bytes that the server sends when all parts have come.
    private func answer(to parts: [[UInt8]]) throws -> Int {
        let wire = try Wire()
        let server = try SecureConnection(accepting: party.server(), descriptor: wire.server)
        var room = [UInt8](repeating: 0, count: 5000)
        for part in parts {
            guard case .wouldBlock = Socket.receive(wire.client, into: &room, 0..<room.count) else { throw Unexpected(description: "too early") }
            var start = 0
            _ = Socket.send(wire.client, part, from: &start)
            guard case .wantsInput = server.handshake() else { throw Unexpected(description: "it fails") }
        }
        guard case .received(let count) = Socket.receive(wire.client, into: &room, 0..<room.count) else { return 0 }
        return count
    }

    @Test("Confined as the data process is, contexts are made, handshakes succeed, peers are judged anew")
    func confined() async {
        await #expect(processExitsWith: .success) {
            let party = try Party()
            let key = Secret.random(count: 32)
            try party.issuer.revoke(party.portal)
            let list = try party.issuer.revocationList()
            let (wire, second, third) = (try Wire(isTCP: true), try Wire(), try Wire())
            let (identity, signing) = (try party.identity(party.initiator), try party.portal.signing)
            TLSLibrary.prepare()
            _ = try Sandbox.enter(identity: geteuid() == 0 ? Identity(uid: 65534, gid: 65534) : nil, parent: nil)
            var material = party.material
            (material.clientCA, material.crl, material.clientAuthentication) = (party.issuer.certificate, list, .required)
            material.takesPreSharedKeys = true
            let server = try ServerContext(material, sign: { try? signing.sign($1, by: $0) }, preSharedKey: { _ in key })
            let pair = try Pair(server, party.client(nil, identity), on: wire)
            guard pair.shakeHands().server.peer?.identity != .nobody, pair.server.isStillTrusted(by: server) else { _exit(1) }
            guard try carry(pattern(300_000), from: pair.server, to: pair.client) == pattern(300_000) else { _exit(2) }
            guard try carry(pattern(300_000), from: pair.client, to: pair.server) == pattern(300_000) else { _exit(3) }
            let byKey = try Pair(server, ClientContext(.preSharedKey, identity: .preSharedKey(identity: Array("a".utf8), key: key)), on: second)
            guard byKey.shakeHands().server.peer?.identity == .preSharedKey(identity: Array("a".utf8)) else { _exit(4) }
            // On a thread of its own, too.
            let thread = try WorkerThread(name: "handshake") {
                guard let pair = try? Pair(server, party.client(nil, identity), on: third), pair.shakeHands().server.peer != nil else { _exit(5) }
            }
            thread.join()
            _exit(0)
        }
    }
}

/// What a signing closure was asked for.
final class Asked: Sendable {
    private let notes = Mutex<[(SignatureScheme, [UInt8])]>([])
    func note(_ scheme: SignatureScheme, _ message: [UInt8]) { notes.withLock { $0.append((scheme, message)) } }
    var all: [(scheme: SignatureScheme, message: [UInt8])] { notes.withLock { $0 } }
}
