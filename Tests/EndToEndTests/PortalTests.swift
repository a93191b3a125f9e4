import Foundation
import Glibc
import Issuing
import Testing

/// What an administrator says of portals, and what is read of their files.
@Suite(.enabled(if: Subject.isPortcullis)) struct PortalTests {
    /// The files of a portal in a daemon's folder, as `certs/issue` would make them.
    private struct Files {
        let issuer: Issuer
        let folder: Folder

        init(_ folder: Folder) throws {
            issuer = try Issuer()
            self.folder = folder
            _ = try folder.write(issuer.certificate, to: "ca")
            try put(issuer.issue("first"))
            try put("psk", Array("host:\(String(repeating: "5a", count: 32)):iqn.host\n".utf8))
        }

        func put(_ credentials: Issuing.Credentials) throws {
            try put("certificate", credentials.certificate, mode: 0o644)
            try put("key", credentials.key)
        }
        func put(_ name: String, _ bytes: [UInt8], mode: mode_t = 0o600) throws {
            _ = try folder.write(bytes, to: name)
            try give(name, mode: mode)
        }
        func give(_ name: String, mode: mode_t) throws { guard unsafe chmod(folder.path(name), mode) == 0 else { throw Failure("chmod") } }

        func words(_ portal: String, _ more: String = "") -> String { "portal=\(portal),tls=required,certificate=\(folder.path("certificate")),key=\(folder.path("key"))\(more)" }
    }

    /// What a refused tgtadm says.
    private func refusal(_ daemon: Daemon, _ line: String) throws -> String {
        let finished = try daemon.admin(line.split(separator: " ").map(String.init))
        #expect(finished.ending == .exited(22), "\(finished.evidence)")
        return finished.output
    }

    @Test("What a clear portal advertises is what discovery answers there, until it is updated, and after a restart")
    func advertised() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        let port = try Ports.next()
        try daemon.must("--op new --mode portal --param portal=127.0.0.1:\(port),advertise=192.0.2.77:860,tpgt=9")
        func listed() throws -> String { try must("iscsi-ls", "iscsi://127.0.0.1:\(port)", folder: daemon.folder) }
        func shown() throws -> String { try daemon.must("--op show --mode portal") }
        #expect(try listed().contains("Portal:192.0.2.77:860,9"), daemon.evidence)
        #expect(try shown() == "Portal: 127.0.0.1:\(port),9\n    advertise: 192.0.2.77:860\nPortal: \(daemon.portal),1\n")
        #expect(try must("iscsi-ls", "iscsi://\(daemon.portal)", folder: daemon.folder).contains("Portal:\(daemon.portal),1"))
        // The same initiator port through either portal is a nexus of its own, and INQUIRY names the port that it has come through.
        let ports = [(daemon.port, UInt8(1)), (port, 9)]
        let sessions = try ports.map { try Initiator.login(port: $0.0, target: Daemon.iqn("disk")) }
        for (session, (_, tag)) in zip(sessions, ports) {
            try session.settle()
            let page = try session.perform(cdb: [0x12, 1, 0x83, 1, 0, 0], read: 256).data
            let name = Array("\(Daemon.iqn("disk")),t,0x000\(tag)".utf8), relative: [UInt8] = [0x51, 0x94, 0, 4, 0, 0, 0, tag]
            #expect(page.indices.contains { page[$0...].starts(with: name) } && page.indices.contains { page[$0...].starts(with: relative) }, "\(page)")
        }
        try daemon.must("--op update --mode portal --param portal=127.0.0.1:\(port),advertise=[2001:db8::1]:3261")
        #expect(try listed().contains("Portal:[2001:db8::1]:3261,9"))
        let before = try shown()
        _ = daemon.stop()
        try daemon.restart()
        #expect(try shown() == before && listed().contains("Portal:[2001:db8::1]:3261,9"))
        try daemon.must("--op update --mode portal --param portal=127.0.0.1:\(port),advertise=,tpgt=")
        #expect(try shown() == "Portal: 127.0.0.1:\(port),1\nPortal: \(daemon.portal),1\n" && listed().contains("Portal:127.0.0.1:\(port),1"))
        #expect(try refusal(daemon, "--op update --mode portal --param portal=127.0.0.1:\(port),tls=required,psk-file=/p").contains("make it anew"))
        #expect(try refusal(daemon, "--op update --mode portal --param portal=127.0.0.1:1").contains("there is no portal"))
    }

    @Test("A target that requires TLS is not there in clear: not listed, not reachable, and sessions in clear end")
    func requiresTLS() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try daemon.must("--op update --mode target --tid 1 --name RequireTLS --value Yes")
        #expect(initiator.wire.closes(within: 5), daemon.evidence)
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk")) == 0x0203)
        #expect(try !must("iscsi-ls", "iscsi://\(daemon.portal)", folder: daemon.folder).contains("Target:"))
        #expect(daemon.log.contains("the target requires TLS"), daemon.evidence)
        let question = "--mode access --op explain --tid 1 -Q \(Initiator.name) -I 127.0.0.1"
        #expect(try daemon.must(question).contains("requires TLS") && daemon.must(question + " --tls yes").hasPrefix("admitted"))
        #expect(try daemon.must("--op show --mode target --tid 1").contains("RequireTLS=Yes"))
        try daemon.must("--op update --mode target --tid 1 --name RequireTLS --value No")
        _ = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
    }

    @Test("A file that is not right is named, with what is wrong and nothing of what is in it; the portal is not there")
    func wrongFiles() throws {
        let daemon = try Daemon()
        let files = try Files(daemon.folder)
        let place = "127.0.0.1:\(try Ports.next())"
        func said(_ more: String = "") throws -> String { try refusal(daemon, "--op new --mode portal --param \(files.words(place, more))") }
        let key = daemon.folder.path("key"), psk = daemon.folder.path("psk")
        try files.give("key", mode: 0o640)
        #expect(try said().contains("\(key): can be read by others"))
        try files.give("key", mode: 0o600)
        try files.give("psk", mode: 0o604)
        #expect(try said(",psk-file=\(psk)").contains("\(psk): can be read by others"))
        try files.put("psk", Array("host:5a5a:iqn.host".utf8))
        #expect(try said(",psk-file=\(psk)").contains("\(psk): line 1: the key has"))
        try files.give("certificate", mode: 0o666)
        #expect(try said().contains("\(daemon.folder.path("certificate")): can be written by others"))
        try files.give("certificate", mode: 0o644)
        #expect(try said(",client-ca=\(daemon.folder.path("none"))").contains("\(daemon.folder.path("none")): No such file"))
        #expect(try said(",client-ca=\(daemon.folder.path)").contains("is not a regular file") && said(",client-ca=/dev/zero").contains("is not a regular file"))
        #expect(try said(",client-ca=relative").contains("no absolute path"))
        try files.put("key", files.issuer.issue("other").key)
        #expect(try said().contains("\(key): is not the key of the first certificate"))
        try files.put("key", Array("-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n".utf8))
        #expect(try said().contains("\(key): there is no private key"))
        #expect(unsafe mkfifo(daemon.folder.path("pipe"), 0o600) == 0)
        #expect(try said(",client-ca=\(daemon.folder.path("pipe"))").contains("is not a regular file"))
        #expect(try daemon.must("--op show --mode portal") == "Portal: \(daemon.portal),1\n")
        #expect(!daemon.log.contains("planted") && !daemon.log.contains("5a5a"), daemon.evidence)
        // tgt's own tgtadm cannot say it, and opens no clear portal instead.
        let debian = try daemon.admin(["--op", "new", "--mode", "portal", "--param", files.words(place)], client: Subject.debianTgtadm)
        #expect(!debian.succeeded)
        #expect(try daemon.must("--op show --mode portal") == "Portal: \(daemon.portal),1\n")
    }

    @Test("A portal of the settings whose files are not right ends tgtd at its start, and it says why")
    func wrongAtStart() throws {
        let folder = try Folder()
        let files = try Files(folder)
        try files.give("key", mode: 0o644)
        let words = [Subject.tgtd, "-f", "-C", "7", "--state", "none", "--iscsi", files.words("127.0.0.1:\(try Ports.next())")]
        let finished = try Running(words, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder).wait(seconds: 10)
        #expect(finished.ending == .exited(1) && finished.output.contains("\(folder.path("key")): can be read by others"), "\(finished.evidence)")
    }

    @Test("A portal with TLS is made, shown, kept, updated and read anew; what is not right changes nothing")
    func secure() throws {
        let daemon = try Daemon()
        let files = try Files(daemon.folder)
        let place = "127.0.0.1:\(try Ports.next())"
        try daemon.must("--op new --mode portal --param \(files.words(place, ",client-ca=\(daemon.folder.path("ca"))"))")
        func shown() throws -> String { try daemon.must("--op show --mode portal") }
        func json() throws -> String { try daemon.must("--json --op show --mode portal") }
        let first = try shown()
        #expect(first.contains("Portal: \(place),1\n    tls: required\n") && first.contains("certificate expires: 2040-01-01T00:00:00Z\n"), daemon.evidence)
        #expect(try json().contains(#""clientAuth":"required""#) && json().contains(#""certificateExpires":2208988800"#))
        daemon.process.signal(SIGKILL)
        daemon.process.wait(seconds: 5)
        try daemon.restart()
        #expect(try shown() == first)
        func renewed(_ text: String) throws -> Bool { try eventually(within: 5) { try shown().contains("certificate expires: \(text)") } }
        // A new certificate, by an update that names nothing.
        try files.put(files.issuer.issue("second", dates: ("20200101000000Z", "20410101000000Z")))
        try daemon.must("--op update --mode portal --param portal=\(place)")
        #expect(try shown().contains("certificate expires: 2041-01-01T00:00:00Z"))
        // By SIGHUP; first with the key of another one.
        let third = try files.issuer.issue("third", key: .ed25519, dates: ("20200101000000Z", "20420101000000Z"))
        try files.put("certificate", third.certificate, mode: 0o644)
        daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { daemon.log.contains("nothing is read anew") && daemon.log.contains("is not the key of") }, daemon.evidence)
        #expect(try refusal(daemon, "--op update --mode portal --param portal=\(place)").contains("is not the key of"))
        #expect(try shown().contains("certificate expires: 2041-01-01T00:00:00Z"))
        try files.put(third)
        daemon.process.signal(SIGHUP)
        #expect(try renewed("2042-01-01T00:00:00Z"), daemon.evidence)
        // What ends soon is said once, what is over too.
        let soon = ISO8601DateFormatter().string(from: Date(timeIntervalSinceNow: 5 * 86400)).filter(\.isNumber) + "Z"
        try files.put(files.issuer.issue("soon", dates: ("20200101000000Z", soon)))
        for _ in 1...2 { try daemon.must("--op update --mode portal --param portal=\(place)") }
        let told = daemon.log.split(separator: "\n").filter { $0.contains("a certificate ends in less than 7 days") && $0.contains(daemon.folder.path("certificate")) }
        #expect(told.count == 1, daemon.evidence)
        // A kept portal whose files are gone stays, closed; an update opens it when they are there again.
        _ = daemon.stop()
        try files.give("key", mode: 0o644)
        try daemon.restart()
        #expect(try shown().contains("    open: No\n") && daemon.log.contains("portal \(place) is not served"), daemon.evidence)
        try files.give("key", mode: 0o600)
        try daemon.must("--op update --mode portal --param portal=\(place)")
        #expect(try !shown().contains("open: No"))
        try daemon.must("--op delete --mode portal --param portal=\(place)")
        #expect(try shown() == "Portal: \(daemon.portal),1\n")
    }

    @Test("A portal's private key and pre-shared keys are in the memory of control, and of no other process of ours")
    func planted() throws {
        let daemon = try Daemon()
        let files = try Files(daemon.folder)
        let place = "127.0.0.1:\(try Ports.next())"
        let key = (0..<32).map { _ in UInt8.random(in: 0...255) }
        let text = key.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        try files.put("psk", Array("host:\(text):iqn.host\n".utf8))
        try daemon.must("--op new --mode portal --param \(files.words(place, ",client-auth=optional,psk-file=\(daemon.folder.path("psk"))"))")
        // The number that a P-256 key is (RFC 5915 §3), in either order.
        try must("openssl", "pkey", "-in", daemon.folder.path("key"), "-outform", "DER", "-out", daemon.folder.path("der"), folder: daemon.folder)
        let der = [UInt8](try #require(FileManager.default.contents(atPath: daemon.folder.path("der"))))
        let start = try #require(der.indices.first { der[$0...].starts(with: [0x02, 0x01, 0x01, 0x04, 0x20]) }) + 5
        let number = Array(der[start..<start + 32])
        // Handshakes by certificate and by key, one after the other, and one of each that stays.
        let certified = ["s_client", "-connect", place, "-CAfile", daemon.folder.path("ca"), "-verify_return_error"]
        let shared = ["s_client", "-connect", place, "-psk_identity", "host", "-psk", text, "-tls1_3"]
        func shake(_ words: [String]) throws -> Finished { try run("sh", "-c", "exec openssl \(words.joined(separator: " ")) < /dev/null", folder: daemon.folder, seconds: 20) }
        for _ in 1...3 {
            let (first, second) = (try shake(certified), try shake(shared))
            #expect(first.output.contains("Verification: OK"), "\(first.evidence)")
            #expect(second.output.contains("Reused, TLSv1.3"), "\(second.evidence)")
        }
        let staying = try [certified, shared].map { words in
            try Running(["sh", "-c", "sleep 30 | openssl \(words.joined(separator: " "))"], folder: daemon.folder)
        }
        #expect(eventually(within: 10) { zip(staying, ["Verification: OK", "Reused, TLSv1.3"]).allSatisfy { $0.output.contains($1) } }, daemon.evidence)
        let (control, others) = (daemon.process.pid, daemon.family.filter { $0 != daemon.process.pid })
        #expect(others.count == 2)
        #expect(try daemon.folder.copies(of: [key], in: [control]) == [[1]], daemon.evidence)
        #expect(try daemon.folder.copies(of: [key, number, number.reversed()], in: others) == [[0, 0], [0, 0], [0, 0]], daemon.evidence)
        #expect(try daemon.folder.copies(of: [number, number.reversed()], in: [control]).flatMap(\.self).reduce(0, +) > 0, daemon.evidence)
        for process in staying { process.signal(SIGKILL) }
    }
}
