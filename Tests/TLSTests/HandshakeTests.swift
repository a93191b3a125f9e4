import Bytes
import Crypto
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

    @Test("The private key stays with its keeper: whatever kind it is, all its signatures are asked for", arguments: [Issuer.Key.p256, .p384, .ed25519], TLSPolicy.allCases)
    func signing(key: Issuer.Key, policy: TLSPolicy) throws {
        let portal = try party.issuer.issue("portal-\(key)-\(policy)", key: key, names: "DNS:portal.example")
        let signing = try portal.signing
        let asked = Asked()
        let server = try ServerContext(ServerMaterial(certificates: portal.certificate, policy: policy), sign: { scheme, message in
            asked.note(scheme, message)
            return try? signing.sign(message, by: scheme)
        })
        // One that speaks nothing newer, for the older version.
        let pair = try Pair(server, party.client(nil, .nobody, policy))
        if policy == .compatible { pair.client.speakOnlyTLS12() }
        let peers = try pair.connect()
        #expect(peers.server.version == (policy == .strict ? .tls13 : .tls12))
        #expect(try carry([1, 2, 3], from: pair.client, to: pair.server) == [1, 2, 3])
        let (scheme, message) = try #require(asked.all.first)
        #expect(asked.all.count == 1)
        #expect(scheme == [.p256: .ecdsaSHA256, .p384: .ecdsaSHA384, .ed25519: .ed25519][key] || policy == .compatible)
        #expect(ServerHandshake.isCertificateVerify(message) == (policy == .strict))
        #expect(ServerHandshake.isServerKeyExchange(message) == (policy == .compatible))
    }
}

import Synchronization

/// What a signing closure was asked for.
final class Asked: Sendable {
    private let notes = Mutex<[(SignatureScheme, [UInt8])]>([])
    func note(_ scheme: SignatureScheme, _ message: [UInt8]) { notes.withLock { $0.append((scheme, message)) } }
    var all: [(scheme: SignatureScheme, message: [UInt8])] { notes.withLock { $0 } }
}
