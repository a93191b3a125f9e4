import Bytes
import Crypto
import Foundation
import Issuing
import Reactor
import Synchronization
import Testing

@testable import TLS

@Suite struct ClientCertificateTests {
    let party: Party
    init() throws { party = try Party.common.get() }

    private func server(_ authentication: ClientAuthentication, crl: [UInt8] = []) throws -> ServerContext {
        try party.server { ($0.clientCA, $0.crl, $0.clientAuthentication) = (party.issuer.certificate, crl, authentication) }
    }

    @Test("A client's certificate proves its names, by whatever kind of key", arguments: Issuer.Key.allCases.filter { $0 != .rsa && $0 != .p521 })
    func proof(key: Issuer.Key) throws {
        let names = ["iqn.2026-11.org.example:\(key)", "iqn.2026-11.org.example:other"]
        let shown = try party.issuer.issue("client-\(key)", key: key, names: "URI:iscsi:\(names[0]),DNS:ignored,URI:iscsi:\(names[1])")
        let leaf = try shown.chain.leaf
        let expected = TLSPeer.Identity.certificate(
            fingerprint: leaf.fingerprint, uris: names.map { Array("iscsi:\($0)".utf8) }, subject: Array("CN=client-\(key)".utf8), notAfter: 2_208_988_800)
        for authentication in [ClientAuthentication.required, .optional] {
            let pair = try Pair(server(authentication), party.client(nil, party.identity(shown)))
            #expect(try pair.connect().server.identity == expected)
            #expect(try carry(pattern(1000), from: pair.client, to: pair.server) == pattern(1000))
        }
        // Nobody asks.
        #expect(try Pair(server(.none), party.client(nil, party.identity(shown))).connect().server.identity == .nobody)
    }

    @Test("TLS 1.2 proves the same under the compatible policy")
    func older() throws {
        let server = try party.server { ($0.clientCA, $0.clientAuthentication, $0.policy) = (party.issuer.certificate, .required, .compatible) }
        let pair = try Pair(server, party.client(nil, party.identity(party.initiator), .compatible))
        pair.client.speakOnlyTLS12()
        let peer = try pair.connect().server
        #expect(peer.version == .tls12)
        guard case .certificate(_, [Array("iscsi:\(Party.initiatorName)".utf8)], _, _) = peer.identity else { throw Unexpected(description: "\(peer)") }
    }

    @Test("Without a certificate: nobody if that may be, no connection if not")
    func none() throws {
        #expect(try Pair(server(.optional), party.client()).connect().server.identity == .nobody)
        let ends = try Pair(server(.required), party.client()).shakeHands()
        #expect(ends.server == .failure(.noIdentity))
        #expect(ends.client == .failure(.alert(116)))
    }

    @Test("A certificate that is expired, not valid yet, of another authority or for servers alone is refused, where one must be and where one may be")
    func refused() throws {
        let stranger = try Issuer()
        let cases: [(Credentials, TLSFailure.CertificateProblem, UInt8)] = [
            (try party.issuer.issue("expired", dates: ("20200101000000Z", "20210101000000Z")), .expired, 45),
            (try party.issuer.issue("early", dates: ("20390101000000Z", "20400101000000Z")), .notYetValid, 42),
            (try stranger.issue("stranger"), .unknownAuthority, 48),
            (try party.issuer.issue("server-only", extensions: ["extendedKeyUsage=serverAuth"]), .other("unsuitable certificate purpose"), 43),
        ]
        for (shown, problem, alert) in cases {
            for authentication in [ClientAuthentication.required, .optional] {
                let ends = try Pair(server(authentication), party.client(nil, party.identity(shown))).shakeHands()
                #expect(ends.server == .failure(.certificate(problem)), "\(shown.name)")
                #expect(ends.client == .failure(.alert(alert)), "\(shown.name)")
            }
        }
    }

    @Test("Who is on the revocation list is refused; without a valid list everybody is; who is put on it later is trusted no longer")
    func revoked() throws {
        let issuer = try Issuer()
        let (good, bad) = (try issuer.issue("good"), try issuer.issue("bad"))
        func server(_ crl: [UInt8], _ ca: [UInt8]? = nil) throws -> ServerContext {
            try party.server { ($0.clientCA, $0.crl, $0.clientAuthentication) = (ca ?? issuer.certificate, crl, .required) }
        }
        let before = try server(issuer.revocationList())
        let (goodPair, badPair) = (try Pair(before, party.client(nil, party.identity(good))), try Pair(before, party.client(nil, party.identity(bad))))
        _ = try goodPair.connect()
        _ = try badPair.connect()
        #expect(badPair.server.isStillTrusted(by: before))
        try issuer.revoke(bad)
        let after = try server(issuer.revocationList())
        #expect(!badPair.server.isStillTrusted(by: after))
        #expect(goodPair.server.isStillTrusted(by: after))
        #expect(try Pair(after, party.client(nil, party.identity(bad))).shakeHands().server == .failure(.certificate(.revoked)))
        _ = try Pair(after, party.client(nil, party.identity(good))).connect()
        // Sessions go on meanwhile: to judge one changes nothing in it.
        #expect(try carry([1, 2, 3], from: badPair.client, to: badPair.server) == [1, 2, 3])

        let anotherList = try server(party.issuer.revocationList())
        #expect(!goodPair.server.isStillTrusted(by: anotherList))
        #expect(try Pair(anotherList, party.client(nil, party.identity(good))).shakeHands().server == .failure(.certificate(.noRevocationList)))
        let stale = try server(issuer.revocationList(seconds: 1))
        Thread.sleep(forTimeInterval: 2.1)
        #expect(!goodPair.server.isStillTrusted(by: stale))
        #expect(try Pair(stale, party.client(nil, party.identity(good))).shakeHands().server == .failure(.certificate(.revocationListExpired)))
        #expect(try !goodPair.server.isStillTrusted(by: server([], party.issuer.certificate)), "another authority")
        #expect(try goodPair.server.isStillTrusted(by: server([], issuer.certificate + party.issuer.certificate)))
    }

    @Test("Who has shown nothing is trusted as long as that may be")
    func nobody() throws {
        let pair = try Pair(server(.optional), party.client())
        _ = try pair.connect()
        #expect(try pair.server.isStillTrusted(by: server(.optional)))
        #expect(try pair.server.isStillTrusted(by: server(.none)))
        #expect(try !pair.server.isStillTrusted(by: server(.required)))
    }
}

@Suite struct ServerVerificationTests {
    let party: Party
    init() throws { party = try Party.common.get() }

    private func failure(_ trust: ServerTrust, _ portal: Credentials? = nil) throws -> TLSFailure? {
        let portal = portal ?? party.portal
        let key = try portal.signing
        let server = try ServerContext(ServerMaterial(certificates: portal.certificate), sign: { try? key.sign($1, by: $0) })
        let ends = try Pair(server, party.client(trust)).shakeHands()
        #expect((ends.client.failure == nil) == (ends.server.failure == nil), "the server hears of it")
        return ends.client.failure
    }

    private func authority(_ name: String, crl: [UInt8] = []) -> ServerTrust { .authority(ca: party.issuer.certificate, crl: crl, name: name) }

    @Test("A server is the right one by its DNS name or address, not by its common name or anybody's certificate")
    func names() throws {
        for name in ["portal.example", "PORTAL.example", "127.0.0.1"] { #expect(try failure(authority(name)) == nil) }
        for name in ["other.example", "127.0.0.2", "portal", "example", "sub.portal.example", "::1"] {
            #expect(try failure(authority(name)) == .certificate(.wrongName), "\(name)")
        }
        // An initiator's certificate of the same authority is no portal's.
        #expect(try failure(authority("portal.example"), party.initiator) == .certificate(.wrongName))
        let wild = try party.issuer.issue("wild", names: "DNS:*.portals.example,DNS:p*.example.org")
        #expect(try failure(authority("any.portals.example"), wild) == nil)
        #expect(try failure(authority("portal.example.org"), wild) == .certificate(.wrongName))
    }

    @Test("A server with an expired, revoked or strange certificate is refused")
    func refused() throws {
        let issuer = try Issuer()
        #expect(try failure(.authority(ca: issuer.certificate, crl: [], name: "portal.example")) == .certificate(.unknownAuthority))
        let expired = try party.issuer.issue("expired-portal", names: "DNS:portal.example", dates: ("20200101000000Z", "20210101000000Z"))
        #expect(try failure(authority("portal.example"), expired) == .certificate(.expired))
        let client = try party.issuer.issue("client-only", names: "DNS:portal.example", extensions: ["extendedKeyUsage=clientAuth"])
        #expect(try failure(authority("portal.example"), client) == .certificate(.other("unsuitable certificate purpose")))
        let revoked = try issuer.issue("revoked", names: "DNS:portal.example")
        try issuer.revoke(revoked)
        #expect(try failure(.authority(ca: issuer.certificate, crl: issuer.revocationList(), name: "portal.example"), revoked) == .certificate(.revoked))
    }

    @Test("A pin takes the one certificate or key, while it is valid, whoever has signed it and for whatever name")
    func pins() throws {
        let leaf = try party.portal.chain.leaf
        let pin = Digest.sha256.hash(leaf.publicKey)
        #expect(try failure(.pinnedCertificate(leaf.fingerprint)) == nil)
        #expect(try failure(.pinnedKey(pin)) == nil)
        #expect(try failure(.pinnedKey(leaf.fingerprint)) == .certificate(.wrongPin))
        #expect(try failure(.pinnedCertificate(pin)) == .certificate(.wrongPin))
        #expect(try failure(.pinnedKey(pin), party.issuer.issue("pinned-other")) == .certificate(.wrongPin))
        let expired = try party.issuer.issue("pinned-expired", dates: ("20200101000000Z", "20210101000000Z"))
        #expect(try failure(.pinnedCertificate(expired.chain.leaf.fingerprint), expired) == .certificate(.expired))
    }
}

@Suite struct PreSharedKeyTests {
    let party: Party
    let keys = ["host1": Secret.random(count: 32), "host2": Secret.random(count: 16)]
    init() throws { party = try Party.common.get() }

    private func server(_ change: (inout ServerMaterial) -> Void = { $0.certificates = [] }, asked: @escaping @Sendable (String) -> Void = { _ in }) throws -> ServerContext {
        let keys = keys
        return try party.server({
            $0.takesPreSharedKeys = true
            change(&$0)
        }, preSharedKey: { identity in
            let name = String(decoding: identity, as: UTF8.self)
            asked(name)
            return keys[name]
        })
    }

    private func client(_ name: String, _ key: Secret) throws -> ClientContext {
        try ClientContext(.preSharedKey, identity: .preSharedKey(identity: Array(name.utf8), key: key))
    }

    @Test("A pre-shared key proves both sides, with and without a certificate beside it, under either policy")
    func proof() throws {
        for (name, key) in keys {
            for hasCertificate in [false, true] {
                for policy in TLSPolicy.allCases {
                    let asked = Mutex<[String]>([])
                    let server = try server({
                        if !hasCertificate { $0.certificates = [] }
                        ($0.policy, $0.clientAuthentication) = (policy, .required)
                    }, asked: { name in asked.withLock { $0.append(name) } })
                    let pair = try Pair(server, client(name, key))
                    let peers = try pair.connect()
                    let expected = TLSPeer(identity: .preSharedKey(identity: Array(name.utf8)), version: .tls13, cipher: "TLS_AES_128_GCM_SHA256", usesKernelTLS: false)
                    #expect(peers.server == expected)
                    #expect(peers.client == expected)
                    #expect(asked.withLock { $0 } == [name], "one question, for the identity that was presented")
                    #expect(try carry(pattern(50000), from: pair.server, to: pair.client) == pattern(50000))
                    #expect(pair.server.isStillTrusted(by: server))
                    #expect(try !pair.server.isStillTrusted(by: party.server()))
                }
            }
        }
    }

    @Test("An unknown identity, another's key and a wrong one are refused and told apart")
    func refused() throws {
        let unknown = try Pair(server(), client("nobody", keys["host1"]!)).shakeHands()
        #expect(unknown.server == .failure(.unknownPreSharedKey(identity: Array("nobody".utf8))))
        for key in [keys["host2"]!, Secret.random(count: 32)] {
            let wrong = try Pair(server(), client("host1", key)).shakeHands()
            #expect(wrong.server == .failure(.wrongPreSharedKey(identity: Array("host1".utf8))))
            #expect(wrong.client.failure != nil)
        }
        // A server that has a certificate goes on with it; the client takes nothing but the key.
        let certificate = try Pair(server { _ in }, client("nobody", keys["host1"]!)).shakeHands()
        #expect(certificate.client == .failure(.unknownPreSharedKey(identity: Array("nobody".utf8))))
        #expect(try Pair(party.server(), client("host1", keys["host1"]!)).shakeHands().client.failure != nil, "one that takes no keys")
        // Who comes without one is refused where that is required.
        let none = try Pair(server { $0.clientAuthentication = .required }, party.client()).shakeHands()
        #expect(none.server == .failure(.noIdentity))
        #expect(try Pair(server(), party.client()).shakeHands().server == .failure(.nothingInCommon))
    }

    @Test("Keys and identities out of bounds are not taken")
    func bounds() throws {
        for count in [0, 15, 65] { #expect(throws: TLSError.noCredentials) { try client("a", Secret.random(count: count)) } }
        for name in ["", String(repeating: "a", count: 129)] { #expect(throws: TLSError.noCredentials) { try client(name, Secret.random(count: 32)) } }
        let short = Secret.random(count: 8)
        let server = try party.server({ ($0.takesPreSharedKeys, $0.certificates) = (true, []) }, preSharedKey: { _ in short })
        #expect(try Pair(server, client("a", Secret.random(count: 32))).shakeHands().server.failure != nil)
    }

    @Test("When the connection stands, the key is nowhere in memory but with those who know it: nothing of the handshake is left")
    func wiped() async {
        await #expect(processExitsWith: .success) {
            let party = try Party()
            let key = Secret.random(count: 48)
            // Masked, so that the search itself does not hold what it looks for.
            let masked = key.withBytes { bytes in bytes.indices.map { bytes[$0] ^ 0x5a } }
            let server = try party.server({ ($0.takesPreSharedKeys, $0.certificates) = (true, []) }, preSharedKey: { _ in key })
            let client = try ClientContext(.preSharedKey, identity: .preSharedKey(identity: [65], key: key))
            let pair = try Pair(server, client)
            let hello = pair.client.handshake()
            guard case .wantsInput = hello else { _exit(1) }
            // The test finds what is there: now the client's session has it, too.
            guard try occurrences(masked) == 2 else { _exit(2) }
            _ = try pair.connect()
            guard try occurrences(masked) == 1 else { _exit(3) }
            guard try carry([1], from: pair.client, to: pair.server) == [1] else { _exit(4) }
            withExtendedLifetime(key) {}
            _exit(0)
        }
    }
}

/// How often this process holds the bytes whose masked form is given.
private func occurrences(_ masked: [UInt8]) throws -> Int {
    let first = Int32(masked[0] ^ 0x5a)
    let maps = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8).split(separator: "\n")
    let memory = unsafe open("/proc/self/mem", O_RDONLY)
    let room = 4 << 20
    // Made after the list was: it is not searched itself.
    guard memory >= 0, let copy = unsafe mmap(nil, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) else { throw Unexpected(description: "no memory") }
    defer {
        unsafe munmap(copy, room)
        close(memory)
    }
    var found = 0
    for line in maps where line.split(separator: " ")[1].hasPrefix("rw") {
        let ends = line.split(separator: " ")[0].split(separator: "-").map { UInt64($0, radix: 16)! }
        var position = ends[0]
        while position < ends[1] {
            let count = unsafe pread(memory, copy, min(room, Int(ends[1] - position)), off_t(position))
            guard count > 0 else { break }
            var rest = unsafe UnsafeRawBufferPointer(start: copy, count: count)
            while rest.count >= masked.count, let hit = unsafe memchr(rest.baseAddress!, first, rest.count) {
                let offset = unsafe UnsafeRawPointer(hit) - rest.baseAddress!
                unsafe rest = UnsafeRawBufferPointer(rebasing: rest[offset...])
                guard rest.count >= masked.count else { break }
                var length = 1
                while unsafe length < masked.count && rest[length] ^ 0x5a == masked[length] { length += 1 }
                if length == masked.count { found += 1 }
                unsafe rest = UnsafeRawBufferPointer(rebasing: rest[1...])
            }
            // The next part begins with the end of this one.
            position += UInt64(count == room ? count - masked.count : count)
        }
    }
    return found
}
