import Foundation
import Glibc
import Testing

/// certs/issue, and what OpenSSL says to what it makes.
@Suite(.enabled(if: Subject.isPortcullis)) struct CertificateTests {
    static let name = "iqn.2026-11.org.example:web-1"

    private func verify(_ authority: Authority, _ certificate: String, _ words: String...) throws -> Finished {
        try Running(["openssl", "verify", "-x509_strict", "-CAfile", authority.certificate] + words + [certificate], folder: authority.folder).wait(seconds: 30)
    }
    private func text(_ authority: Authority, _ certificate: String) throws -> String {
        try must("openssl", "x509", "-in", certificate, "-noout", "-text", folder: authority.folder)
    }
    /// Every file below the authority's folder: its mode and what is in it.
    private func inventory(_ authority: Authority) throws -> [String: String] {
        var found: [String: String] = [:]
        for path in try FileManager.default.subpathsOfDirectory(atPath: authority.path) {
            var status = stat()
            _ = unsafe lstat("\(authority.path)/\(path)", &status)
            found[path] = "\(String(status.st_mode, radix: 8)) \(FileManager.default.contents(atPath: "\(authority.path)/\(path)")?.base64EncodedString() ?? "")"
        }
        return found
    }

    @Test("A portal's certificate is for its names and addresses, and an initiator's for its InitiatorName; neither is the other", arguments: [[], ["--ed25519"]])
    func purposes(options: [String]) throws {
        let authority = try options.isEmpty ? Authority() : Authority("--ed25519")
        let portal = try authority.portal("portal.example.org", "192.0.2.1", "2001:db8::1", options: options)
        try authority.issue(["initiator", "IQN.2026-11.org.Example:Web-1"] + options)
        let initiator = Credentials(folder: "\(authority.path)/initiators/\(Self.name)")

        #expect(try verify(authority, portal.certificate, "-purpose", "sslserver", "-verify_hostname", "portal.example.org").succeeded)
        #expect(try verify(authority, portal.certificate, "-verify_ip", "2001:db8::1").succeeded && verify(authority, portal.certificate, "-verify_ip", "192.0.2.1").succeeded)
        #expect(try !verify(authority, portal.certificate, "-verify_hostname", "other.example.org").succeeded)
        #expect(try !verify(authority, portal.certificate, "-purpose", "sslclient").succeeded)
        #expect(try verify(authority, initiator.certificate, "-purpose", "sslclient").succeeded)
        #expect(try !verify(authority, initiator.certificate, "-purpose", "sslserver").succeeded)

        let (ofPortal, ofInitiator) = try (text(authority, portal.certificate), text(authority, initiator.certificate))
        #expect(ofInitiator.contains("URI:iscsi:\(Self.name)\n") && !ofInitiator.contains("DNS:"))
        let algorithm = options.isEmpty ? "ASN1 OID: prime256v1" : "Public Key Algorithm: ED25519"
        #expect(ofPortal.contains(algorithm) && ofInitiator.contains(algorithm))
        #expect(ofPortal.contains("CA:FALSE") && ofInitiator.contains("CA:FALSE"))
        #expect(try must("openssl", "x509", "-in", authority.certificate, "-noout", "-ext", "basicConstraints", folder: authority.folder).contains("pathlen:0"))
        for credentials in [portal, initiator] {
            let own = try must("openssl", "pkey", "-in", credentials.key, "-pubout", folder: authority.folder)
            #expect(try must("openssl", "x509", "-in", credentials.certificate, "-noout", "-pubkey", folder: authority.folder) == own)
        }
    }

    @Test("What is secret only its owner may read")
    func modes() throws {
        let authority = try Authority()
        _ = try authority.portal()
        _ = try authority.initiator(Self.name, options: ["--portal", "127.0.0.1:3261"])
        _ = try authority.initiator("eui.02004567a425678d", options: ["--psk"])
        try authority.issue("revoke", "initiator", Self.name)
        var secrets = 0
        for (path, entry) in try inventory(authority) {
            let isPublic = ["ca.pem", "certificate.pem", "crl.pem", "tgt-connect.yaml", "iscsiadm.txt"].contains((path as NSString).lastPathComponent)
            let mode = entry.split(separator: " ")[0]
            #expect(mode == "40700" || mode == (isPublic ? "100644" : "100600"), "\(path): \(mode)")
            if path.hasSuffix(".key") || path.hasSuffix("key.pem") || path.hasSuffix(".psk") { secrets += 1 }
            #expect(!path.contains(".new."), "nothing is left of the work")
        }
        #expect(secrets == 5)
    }

    @Test("Nothing is overwritten, and a refusal changes nothing")
    func keeps() throws {
        let authority = try Authority()
        _ = try authority.portal("portal.example.org")
        _ = try authority.initiator(Self.name)
        _ = try authority.initiator("iqn.2026-11.org.example:web-2", options: ["--psk=web"])
        let before = try inventory(authority)
        let refused = [
            ["ca"], ["portal", "portal.example.org", "192.0.2.7"], ["initiator", Self.name], ["initiator", Self.name.uppercased()], ["initiator", Self.name, "--psk"],
            ["initiator", "iqn.2026-11.org.example:web-3", "--psk=web"], ["initiator", "iqn.2026-11.org.example:web-3", "--psk=a:b"],
            ["initiator", "web-3"], ["initiator", "iqn.2026-11.org.example:a b"], ["initiator", "iqn.2026-11.org.example:\(String(repeating: "x", count: 200))"],
            ["initiator", "iqn.2026-11.org.example:web-3", "--portal", "nowhere"], ["initiator", "iqn.2026-11.org.example:web-3", "--psk", "--portal", "nowhere"],
            ["portal"], ["portal", "a b"], ["portal", "a\nDNS.9 = b"], ["portal", "../x"], ["portal", "192.0.2.777"], ["portal", "other", "--from", "no day"],
            ["revoke", "initiator", "iqn.2026-11.org.example:nobody"], ["revoke", "portal", "../initiators/\(Self.name)"], ["revoke", "everything"],
            ["portal", "other", "--days", "0"], ["nothing"], [], ["portal", "other", "--colour"],
        ]
        for words in refused {
            let finished = try authority.attempt(words)
            #expect(!finished.succeeded && !finished.output.isEmpty, "\(words)")
            #expect(try inventory(authority) == before, "\(words)")
        }
    }

    @Test("A revoked certificate is on the list, a revoked key is not in the portals' file, and their names can be given out again")
    func revoke() throws {
        let authority = try Authority()
        let initiator = try authority.initiator(Self.name)
        let other = try authority.initiator("iqn.2026-11.org.example:web-2")
        _ = try authority.initiator("iqn.2026-11.org.example:web-3", options: ["--psk"])
        _ = try authority.initiator("iqn.2026-11.org.example:web-33", options: ["--psk"])
        let copy = try authority.folder.write(authority.folder.text(of: initiator.certificate), to: "copy.pem")
        func isGood(_ certificate: String) throws -> Bool {
            try verify(authority, certificate, "-CRLfile", authority.revocations, "-crl_check").succeeded
        }
        #expect(try isGood(copy))
        try authority.issue("revoke", "initiator", Self.name)
        #expect(try !isGood(copy) && isGood(other.certificate))
        let again = try authority.initiator(Self.name)
        #expect(try isGood(again.certificate) && !isGood(copy))
        try authority.issue("crl", "--days", "3")
        #expect(try isGood(again.certificate) && !isGood(copy))

        #expect(authority.folder.text(of: authority.preSharedKeys).split(separator: "\n").count == 3)
        try authority.issue("revoke", "initiator", "iqn.2026-11.org.example:web-3")
        let left = authority.folder.text(of: authority.preSharedKeys)
        #expect(!left.contains(":web-3\n") && left.contains(":web-33\n"))
    }

    @Test("A pre-shared key is one line for the initiator and one for the portals, and no two are the same")
    func preSharedKeys() throws {
        let authority = try Authority()
        let first = try authority.initiator(Self.name, options: ["--psk"])
        let second = try authority.initiator("iqn.2026-11.org.example:web-2", options: ["--psk=web-2@host"])
        let lines = [first, second].map { authority.folder.text(of: $0.preSharedKey) }
        #expect(lines.allSatisfy { $0.wholeMatch(of: /[A-Za-z0-9._@-]+:[0-9a-f]{64}\n/) != nil } && lines[1].hasPrefix("web-2@host:"))
        #expect(Set(lines.map { $0.split(separator: ":")[1] }).count == 2)
        let portals = authority.folder.text(of: authority.preSharedKeys).split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(portals == zip(lines, [Self.name, "iqn.2026-11.org.example:web-2"]).map { "\($0.dropLast()):\($1)" })
        #expect(!FileManager.default.fileExists(atPath: first.key))
    }

    @Test("A key that was made elsewhere is certified for whom the command line says, whatever the request asks for")
    func request() throws {
        let authority = try Authority()
        let key = authority.folder.path("own.pem"), request = authority.folder.path("request")
        try must("openssl", "genpkey", "-quiet", "-algorithm", "ED25519", "-out", key, folder: authority.folder)
        try must(
            "openssl", "req", "-new", "-key", key, "-subj", "/CN=root", "-addext", "subjectAltName=URI:iscsi:iqn.2026-11.org.example:other", "-addext",
            "basicConstraints=CA:TRUE", "-out", request, folder: authority.folder)
        let initiator = try authority.initiator(Self.name, options: ["--request", request])
        let shown = try text(authority, initiator.certificate)
        #expect(shown.contains("URI:iscsi:\(Self.name)\n") && !shown.contains("other") && !shown.contains("CN = root") && !shown.contains("CA:TRUE"))
        #expect(!FileManager.default.fileExists(atPath: initiator.key))
        #expect(
            try must("openssl", "x509", "-in", initiator.certificate, "-noout", "-pubkey", folder: authority.folder)
                == must("openssl", "pkey", "-in", key, "-pubout", folder: authority.folder))
    }

    @Test("Those who issue at once all get theirs")
    func atOnce() throws {
        let authority = try Authority()
        let running = try (0..<8).map { index in
            try Running([Authority.script, "-d", authority.path, "initiator", "iqn.2026-11.org.example:web-\(index)"] + (index % 2 == 0 ? ["--psk"] : []), folder: authority.folder)
        }
        for each in running { #expect(each.wait(seconds: 60).succeeded, "\(each.output)") }
        #expect(authority.folder.text(of: authority.preSharedKeys).split(separator: "\n").count == 5)
        #expect(authority.folder.text(of: "\(authority.path)/ledger/index.txt").split(separator: "\n").count == 4)
    }

    @Test("The script is clean to shellcheck")
    func clean() throws {
        let finished = try run("shellcheck", Authority.script, folder: Folder())
        #expect(finished.succeeded, "\(finished.evidence)")
    }
}
