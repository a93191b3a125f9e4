import Access
import Crypto
import ISCSI
import Issuing
import Model
import Testing

@testable import ControlPlane

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
private func initiator(_ text: String) throws -> Channel { .tls(.initiator(try ISCSIName(bytes(text)))) }

/// A portal's parameters and its files, each under the name of its parameter.
private func material(_ more: String, _ files: [String: [UInt8]]) throws -> PortalMaterial {
    let words = files.keys.sorted().map { "\($0)=/\($0)" } + more.split(separator: ",").map(String.init)
    let parameters = (["tls=required"] + words).map { word in
        let parts = word.split(separator: "=", maxSplits: 1).map { bytes(String($0)) }
        return PortalParameter(name: parts[0], value: parts[1])
    }
    let portal = try Portal(PortalAddress(parsing: bytes("192.0.2.1")), parameters)
    return try PortalMaterial(try #require(portal.tls)) { path in Secret(files[String(path.text.dropFirst())] ?? []) }
}

private func trouble(_ files: [String: [UInt8]]) throws -> String {
    do { _ = try material("", files) } catch let error as PortalFileError { return error.description }
    throw Unexpected(description: "all of it is right")
}

@Suite("what a portal with TLS works with")
struct PortalMaterialTests {
    private static let key = String(repeating: "5a", count: 32)
    private static let keys = bytes("host:\(key):iqn.psk\n")

    @Test("the files go together, or the one that does not is named, and nothing of what is in it")
    func together() throws {
        let issuer = try Issuer()
        let (own, other, rsa) = try (issuer.issue("own"), issuer.issue("other", key: .ed25519), issuer.issue("rsa", key: .rsa))
        let pair = ["certificate": own.certificate, "key": own.key]
        let made = try material("", pair)
        #expect(try made.certificates == own.chain && made.key?.publicKey == own.signing.publicKey)
        #expect(try made.certificateExpires == own.chain.leaf.notAfter && made.clientAuthentication == .none && made.preSharedKeys == nil)
        #expect(try material("", ["certificate": other.certificate, "key": other.key]).key != nil)
        let all = try material("policy=2026-11-compatible", pair.merging(["client-ca": issuer.certificate, "crl": issuer.revocationList(), "psk-file": Self.keys, "client-map": []]) { $1 })
        #expect(all.policy == .compatible && all.clientCA != nil && all.revocations != nil && all.preSharedKeys?[bytes("host")] != nil)
        #expect(all.expiries.map(\.path.text) == ["/certificate", "/client-ca", "/crl"])
        #expect(try trouble(["certificate": own.certificate, "key": other.key]) == "/key: is not the key of the first certificate in /certificate")
        #expect(try trouble(["certificate": own.key, "key": own.key]).hasPrefix("/certificate: "))
        #expect(try trouble(["certificate": own.certificate, "key": own.certificate]) == "/key: there is no private key in PEM form")
        #expect(try trouble(["certificate": rsa.certificate, "key": rsa.key]).hasPrefix("/key: the private key is of kind RSA"))
        #expect(try trouble(pair.merging(["client-ca": bytes("nothing")]) { $1 }).hasPrefix("/client-ca: "))
        #expect(try trouble(pair.merging(["client-ca": issuer.certificate, "crl": issuer.certificate]) { $1 }).hasPrefix("/crl: "))
        #expect(try trouble(pair.merging(["client-ca": issuer.certificate, "client-map": bytes("x\n")]) { $1 }).hasPrefix("/client-map: line 1: "))
        let short = try trouble(["psk-file": bytes("host:\(Self.key.dropLast(40)):iqn.psk")])
        #expect(short.hasPrefix("/psk-file: line 1: the key has") && !short.contains("5a5a") && !short.contains("host"))
    }

    @Test("who somebody is: by the map, by the one name in the certificate, or by the key's line; else a stranger")
    func identities() throws {
        let issuer = try Issuer()
        let own = try issuer.issue("own")
        let mapped = [UInt8](repeating: 7, count: 32)
        let map = bytes(mapped.map { _ in "07" }.joined() + " iqn.mapped")
        let files = ["certificate": own.certificate, "key": own.key, "client-ca": issuer.certificate, "client-map": map, "psk-file": Self.keys]
        func shown(_ uris: String..., by fingerprint: [UInt8] = []) -> PortalMaterial.Shown { .certificate(fingerprint: fingerprint, uris: uris.map(bytes)) }
        let table: [(PortalMaterial.Shown, Channel)] = try [
            (shown("iscsi:iqn.a"), initiator("iqn.a")), (shown("ISCSI:IQN.A"), initiator("iqn.a")), (shown("https://x", "iscsi:iqn.a"), initiator("iqn.a")),
            (shown("iscsi:iqn.a", "iscsi:IQN.a"), initiator("iqn.a")), (shown("iscsi:iqn.a", "iscsi:iqn.b"), .tls(.stranger)), (shown(), .tls(.stranger)),
            (shown("iscsi:iqn.a", "iscsi:not a name"), .tls(.stranger)), (shown("iscsi:"), .tls(.stranger)), (shown("iqn.a"), .tls(.stranger)),
            (shown("iscsi:iqn.a", by: mapped), initiator("iqn.mapped")), (shown(by: mapped), initiator("iqn.mapped")),
            (.preSharedKey(identity: bytes("host")), initiator("iqn.psk")), (.preSharedKey(identity: bytes("iqn.psk")), .tls(.stranger)),
        ]
        for (authentication, nothing) in [("required", Channel.tls(.stranger)), ("optional", .tls(.anybody))] {
            let material = try material("client-auth=\(authentication)", files)
            for (shown, channel) in table { #expect(material.channel(shown) == channel, "\(shown)") }
            #expect(material.channel(.nothing) == nothing)
        }
        let open = try material("", ["certificate": own.certificate, "key": own.key])
        #expect(open.channel(.nothing) == .tls(.anybody) && open.channel(shown("iscsi:iqn.a")) == .tls(.anybody))
    }

    @Test("the log is told once of what ends: at 30 and 7 days, and at the end; of a revocation list a day before")
    func expiries() throws {
        let day: Int64 = 86400, end = 1000 * day
        func expiry(_ kind: Expiry.Kind) throws -> Expiry { Expiry(path: try TrustedPath(bytes("/f")), kind: kind, time: end) }
        func told(_ kind: Expiry.Kind, _ days: [Int64]) throws -> [Int64?] {
            var watch = ExpiryWatch()
            let expiry = try expiry(kind)
            return days.map { watch.due([expiry], at: end - $0 * day).first?.daysLeft }
        }
        #expect(try told(.certificate, [31, 30, 29, 8, 7, 6, 1, 0, -1]) == [nil, 30, nil, nil, 7, nil, nil, 0, nil])
        #expect(try told(.certificate, [3, 2, 0]) == [7, nil, 0] && told(.certificate, [-5, -6]) == [0, nil])
        #expect(try told(.revocations, [7, 2, 1, 0]) == [nil, nil, 1, 0])
        var watch = ExpiryWatch()
        let old = try expiry(.certificate)
        #expect(watch.due([old], at: end).count == 1 && watch.due([], at: end).isEmpty && watch.due([old], at: end).count == 1)
        #expect(old.text(daysLeft: 7).contains("1972-09-27T00:00:00Z"))
    }
}
