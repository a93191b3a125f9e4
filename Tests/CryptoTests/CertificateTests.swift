import Crypto
import Foundation
import Issuing
import Testing

@Suite struct SigningKeyTests {
    static let issuer = Result { try Issuer() }
    let issuer: Issuer
    init() throws { issuer = try Self.issuer.get() }

    @Test("What a key signs, openssl verifies with its certificate's key; another scheme than its own is refused", arguments: [Issuer.Key.p256, .p384, .ed25519])
    func signs(kind: Issuer.Key) throws {
        let made = try issuer.issue("signs-\(kind)", key: kind)
        let key = try made.signing
        let base = "\(issuer.folder)/signs-\(kind)"
        let message = Array("what is signed".utf8)
        try Data(message).write(to: URL(fileURLWithPath: "\(base).message"))
        try openssl("x509 -in \(base).crt -noout -pubkey -out \(base).public")
        let own: [SignatureScheme: String] =
            kind == .ed25519
            ? [.ed25519: "pkeyutl -verify -rawin -pubin -inkey \(base).public -in \(base).message -sigfile"]
            : [.ecdsaSHA256: "dgst -sha256 -verify \(base).public -signature", .ecdsaSHA384: "dgst -sha384 -verify \(base).public -signature"]
        for scheme in SignatureScheme.allCases {
            guard let verify = own[scheme] else {
                #expect(throws: KeyError.wrongScheme) { try key.sign(message, by: scheme) }
                continue
            }
            try Data(key.sign(message, by: scheme)).write(to: URL(fileURLWithPath: "\(base).signature"))
            try openssl(verify + " \(base).signature" + (kind == .ed25519 ? "" : " \(base).message"))
            try Data(key.sign(message + [0], by: scheme)).write(to: URL(fileURLWithPath: "\(base).signature"))
            #expect(throws: (any Error).self, "another message's") { try openssl(verify + " \(base).signature" + (kind == .ed25519 ? "" : " \(base).message")) }
        }
        #expect(try made.chain.matches(key))
        #expect(try !issuer.issue("other-\(kind)", key: kind).chain.matches(key))
    }

    @Test("A key of another kind, one behind a pass phrase and none are refused, each for its reason")
    func refuses() throws {
        func refusal(_ pem: [UInt8]) -> KeyError? { #expect(throws: KeyError.self) { try SigningKey(pem: Secret(pem)) } }
        #expect(try refusal(issuer.issue("rsa", key: .rsa).key) == .unsupported("RSA with 2048 bits"))
        #expect("\(KeyError.unsupported("RSA with 2048 bits"))" == "the private key is of kind RSA with 2048 bits: only ECDSA P-256, ECDSA P-384 and Ed25519 are supported")
        #expect(try refusal(issuer.issue("p521", key: .p521).key) == .unsupported("EC secp521r1"))
        let good = try issuer.issue("good")
        let base = "\(issuer.folder)/good"
        for form in ["pkcs8 -topk8 -in \(base).key -passout pass:secret -out \(base).locked", "ec -in \(base).key -aes128 -passout pass:secret -out \(base).locked"] {
            try openssl(form)
            #expect(try refusal(contents("\(base).locked")) == .encrypted)
        }
        for pem in [[], Array("nothing".utf8), good.certificate, Array(good.key.prefix(100)), [UInt8](repeating: 0, count: 1000)] { #expect(refusal(pem) == .noKey) }
    }

    @Test("The first key of a file is taken, whatever is around it")
    func around() throws {
        let good = try issuer.issue("around")
        #expect(try good.chain.matches(SigningKey(pem: Secret(good.certificate + good.key + issuer.issue("rsa-behind", key: .rsa).key))))
        // As `openssl ecparam -genkey` writes them: the curve in a block of its own before the key.
        let file = "\(issuer.folder)/parameters.key"
        try openssl("ecparam -name prime256v1 -genkey -out \(file)")
        #expect(try String(decoding: contents(file), as: UTF8.self).contains("BEGIN EC PARAMETERS"))
        #expect(try SigningKey(pem: Secret(contents(file))).publicKey.count == 91)
    }

    @Test("However it is printed, a key does not show")
    func printing() throws {
        let key = try issuer.issue("printed").signing
        var dumped = ""
        dump(key, to: &dumped)
        for text in ["\(key)", String(reflecting: key), dumped] { #expect(text.count < 20 && text.contains("signing key")) }
    }
}

@Suite struct ServerHandshakeTests {
    private let spaces = [UInt8](repeating: 0x20, count: 64)
    private let context = Array("TLS 1.3, server CertificateVerify".utf8)

    private func verify(hash: Int) -> [UInt8] { spaces + context + [0] + [UInt8](repeating: 7, count: hash) }
    /// - Parameters:
    ///   - curve: number and bytes of a point
    private func exchange(_ curve: (UInt8, UInt8), _ random: [UInt8] = [UInt8](repeating: 9, count: 56) + Array("DOWNGRD".utf8) + [1]) -> [UInt8] {
        random + [3, 0, curve.0, curve.1] + [UInt8](repeating: 4, count: Int(curve.1))
    }

    @Test("What a server signs in TLS 1.3 has one form; a byte more, less or different in it is another")
    func newer() {
        for hash in [32, 48] {
            let message = verify(hash: hash)
            #expect(ServerHandshake.isCertificateVerify(message))
            #expect(!ServerHandshake.isServerKeyExchange(message))
            for index in 0..<98 {
                var changed = message
                changed[index] ^= 1
                #expect(!ServerHandshake.isCertificateVerify(changed))
            }
            for length in message.indices where length != 98 + 32 { #expect(!ServerHandshake.isCertificateVerify(Array(message[..<length]))) }
            #expect(!ServerHandshake.isCertificateVerify(message + [0]))
        }
        // What a client signs.
        #expect(!ServerHandshake.isCertificateVerify(spaces + Array("TLS 1.3, client CertificateVerify".utf8) + [0] + [UInt8](repeating: 7, count: 32)))
    }

    @Test("What a server signs in TLS 1.2 says that it speaks something newer, and has one form for each curve")
    func older() {
        for curve in [(23, 65), (24, 97), (29, 32)] as [(UInt8, UInt8)] {
            let message = exchange(curve)
            #expect(ServerHandshake.isServerKeyExchange(message))
            #expect(!ServerHandshake.isCertificateVerify(message))
            for index in 56..<68 {
                var changed = message
                changed[index] ^= 1
                #expect(!ServerHandshake.isServerKeyExchange(changed))
            }
            for length in message.indices { #expect(!ServerHandshake.isServerKeyExchange(Array(message[..<length]))) }
            #expect(!ServerHandshake.isServerKeyExchange(message + [0]))
        }
        for curve in [(25, 133), (30, 56), (23, 33), (29, 33)] as [(UInt8, UInt8)] { #expect(!ServerHandshake.isServerKeyExchange(exchange(curve))) }
    }
}

@Suite struct CertificateTests {
    let issuer: Issuer
    init() throws { issuer = try SigningKeyTests.issuer.get() }

    @Test("A certificate says whose it is, how long, and by which URIs")
    func fields() throws {
        let made = try issuer.issue("fields", names: "URI:iscsi:iqn.2026-11.org.example:a,DNS:portal.example,URI:https://b", dates: ("19690101000000Z", "20991231235959Z"))
        let leaf = try made.chain.leaf
        #expect(leaf.subject == Array("CN=fields".utf8))
        #expect(leaf.uris == [Array("iscsi:iqn.2026-11.org.example:a".utf8), Array("https://b".utf8)])
        #expect(leaf.notBefore == -31_536_000)
        #expect(leaf.notAfter == 4_102_444_799)
        #expect(leaf.fingerprint == Digest.sha256.hash(leaf.der))
        #expect(Certificate(der: leaf.der) == leaf)
        for length in [0, 1, leaf.der.count - 1] { #expect(Certificate(der: Array(leaf.der[..<length])) == nil) }
    }

    @Test("A file gives its certificates in order, and what is to be given on has nothing else in it: no key above all")
    func files() throws {
        let (first, second) = (try issuer.issue("first"), try issuer.issue("second"))
        let chain = try CertificateChain(pem: Array("a comment\n".utf8) + first.key + first.certificate + second.key + second.certificate + Array("and so on".utf8))
        #expect(chain.certificates.map(\.subject) == ["CN=first", "CN=second"].map { Array($0.utf8) })
        #expect(chain.pem == first.certificate + second.certificate)
        #expect(try CertificateChain(pem: chain.pem) == chain)
    }

    @Test("What cannot be read is told apart: nothing, and which one")
    func malformed() throws {
        let good = try issuer.issue("before").certificate
        func refusal(_ pem: [UInt8]) -> CertificateError? { #expect(throws: CertificateError.self) { try CertificateChain(pem: pem) } }
        #expect(refusal([]) == CertificateError.none)
        #expect(refusal(Array("-----BEGIN".utf8)) == CertificateError.none)
        #expect(refusal(good + Array("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".utf8)) == .malformed(2))
        #expect(refusal(Array(good.prefix(good.count - 30))) == .malformed(1))
        #expect(refusal(Array((0...CertificateChain.mostInFile).map { _ in good }.joined())) == .tooMany)
    }

    @Test("Revocation lists say when they are to be replaced")
    func lists() throws {
        let now = Int64(Date().timeIntervalSince1970)
        let (longer, shorter) = (try issuer.revocationList(seconds: 5000), try issuer.revocationList(seconds: 1000))
        let lists = try RevocationLists(pem: longer + shorter)
        let nextUpdate = try #require(lists.nextUpdate)
        #expect((now + 990...now + 1060).contains(nextUpdate))
        #expect(lists.pem == longer + shorter)
        #expect(throws: CertificateError.none) { try RevocationLists(pem: issuer.certificate) }
    }
}
