import Foundation
import Glibc
import Testing

/// CHAP with clients that nobody here wrote, and what an overheard or taken-over process gives away.
@Suite(.enabled(if: Subject.isPortcullis)) struct CHAPTests {
    static let secret = "secret of alice!"
    static let outgoingSecret = "secret of target"

    /// A target with a disk for “alice”; “target” is the account by which it proves itself.
    private func serving(_ size: Int = 64 << 20, mutual: Bool = false) throws -> Daemon {
        let daemon = try Daemon.serving(size: size)
        for (user, secret) in [("alice", Self.secret), ("target", Self.outgoingSecret)] {
            let file = try daemon.folder.write(secret, to: "\(user).secret")
            try daemon.must("--mode account --op new --user \(user) --password-file \(file)")
        }
        try daemon.must("--mode account --op bind --tid 1 --user alice")
        if mutual { try daemon.must("--mode account --op bind --tid 1 --user target --outgoing") }
        return daemon
    }

    private static let environment = ["LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": secret]
    private static let mutualEnvironment = environment.merging(
        ["LIBISCSI_CHAP_TARGET_USERNAME": "target", "LIBISCSI_CHAP_TARGET_PASSWORD": outgoingSecret]) { $1 }

    @Test("libiscsi's tools log in with the right secret, one-way and mutual, and with no other", arguments: [false, true])
    func libiscsi(mutual: Bool) throws {
        let daemon = try serving(mutual: mutual)
        func inquire(_ environment: [String: String]) throws -> Finished {
            try run("iscsi-inq", daemon.url(), environment: environment, folder: daemon.folder)
        }
        let right = mutual ? Self.mutualEnvironment : Self.environment
        let finished = try inquire(right)
        #expect(finished.succeeded && finished.output.contains("VIRTUAL-DISK"), "\(finished.evidence)\n\(daemon.log.suffix(2000))")
        #expect(try !inquire(["LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": "secret of alice?"]).succeeded)
        #expect(try !inquire(["LIBISCSI_CHAP_USERNAME": "bob", "LIBISCSI_CHAP_PASSWORD": Self.secret]).succeeded)
        #expect(try !inquire([:]).succeeded)
        if mutual {
            // The initiator does not take a target that proves itself by another secret, …
            #expect(try !inquire(right.merging(["LIBISCSI_CHAP_TARGET_PASSWORD": "secret of nobody"]) { $1 }).succeeded)
        } else {
            // … and the target has nothing to prove itself by.
            #expect(try !inquire(Self.mutualEnvironment).succeeded)
        }
        #expect(daemon.log.contains("an initiator authenticates by MD5 in clear"))
        #expect(!daemon.log.contains(Self.secret) && !daemon.log.contains(Self.outgoingSecret))
    }

    @Test("Mutual authentication can be required of initiators")
    func required() throws {
        let daemon = try serving(mutual: true)
        try daemon.must("--mode target --op update --tid 1 --name RequireMutualCHAP --value Yes")
        #expect(try !run("iscsi-inq", daemon.url(), environment: Self.environment, folder: daemon.folder).succeeded)
        let finished = try run("iscsi-inq", daemon.url(), environment: Self.mutualEnvironment, folder: daemon.folder)
        #expect(finished.succeeded, "\(finished.evidence)\n\(daemon.log.suffix(2000))")
    }

    @Test("QEMU writes an image and reads it back with CHAP; show says who it is and that MD5 was in clear")
    func qemu() throws {
        let size = 64 << 20
        let daemon = try serving(size)
        let source = try daemon.folder.randomFile("source", size: size)
        let file = "secret,id=s,file=\(daemon.folder.path("alice.secret"))"
        func image(_ options: String) -> String {
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=\(daemon.portal),file.target=\(Daemon.iqn("disk")),file.lun=1,\(options)"
        }
        let right = image("file.user=alice,file.password-secret=s")
        try must("qemu-img", "convert", "--object", file, "-n", "--target-image-opts", "-f", "raw", source, right, folder: daemon.folder)
        try must("qemu-img", "convert", "--object", file, "--image-opts", right, "-O", "raw", daemon.folder.path("back"), folder: daemon.folder)
        #expect(try daemon.folder.sha256(source) == daemon.folder.sha256(daemon.folder.path("back")))
        #expect(try !run("qemu-img", "info", "--object", file, "--image-opts", image("file.user=bob,file.password-secret=s"), folder: daemon.folder).succeeded)

        // One that does not read its answer stays logged in.
        let qemu = try Running(["qemu-io", "--object", file, "--image-opts", right, "-c", "sleep 20000"], folder: daemon.folder)
        defer { qemu.kill() }
        #expect(try eventually(within: 10) { try daemon.must("--op show --mode target").contains("            Account: alice, CHAP with MD5, in clear\n") }, daemon.evidence)
        let json = try daemon.must("--json --op show --mode target")
        #expect(json.contains(#""authentication":{"account":"alice","algorithm":"MD5","mutual":false,"md5InClear":true}"#), "\(json)")
    }

    @Test("Discovery asks for its account, and lists what the initiator may log in to")
    func discovery() throws {
        let daemon = try serving()
        try daemon.addTarget(2, name: "other")
        try daemon.admit(tid: 2)
        try daemon.must("--mode account --op new --user other --password another-secret-2")
        try daemon.must("--mode account --op bind --tid 2 --user other")
        try daemon.must("--mode account --op bind --user alice")
        func list(_ environment: [String: String]) throws -> Finished {
            try run("iscsi-ls", "iscsi://\(daemon.portal)", environment: environment, folder: daemon.folder)
        }
        let listed = try list(Self.environment)
        #expect(listed.succeeded && listed.output.contains(Daemon.iqn("disk")) && !listed.output.contains(Daemon.iqn("other")), "\(listed.evidence)")
        #expect(try !list([:]).succeeded)
        // Whoever is bound to a target alone has no business with the list.
        #expect(try !list(["LIBISCSI_CHAP_USERNAME": "other", "LIBISCSI_CHAP_PASSWORD": "another-secret-2"]).succeeded)
    }

    @Test("Where MD5 is never used, an initiator that offers nothing else is refused")
    func neverMD5() throws {
        let folder = try Folder()
        let settings = try folder.write("chap:\n  md5: never\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        let daemon = try Daemon.serving(options: ["--config", settings])
        try daemon.must("--mode account --op new --user alice --password alicesecret12")
        try daemon.must("--mode account --op bind --tid 1 --user alice")
        let environment = ["LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": "alicesecret12"]
        #expect(try !run("iscsi-inq", daemon.url(), environment: environment, folder: daemon.folder).succeeded)
    }

    @Test("An unknown target, one that is not permitted and one that is open to others look the same, answer by answer")
    func alike() throws {
        let daemon = try serving()
        try daemon.addTarget(2, name: "forbidden")
        try daemon.must("--mode target --op bind --tid 2 -I 192.0.2.1")
        try daemon.addTarget(3, name: "unbound")
        try daemon.admit(tid: 3)
        try daemon.must("--mode account --op new --user other --password another-secret-2")
        try daemon.must("--mode account --op bind --tid 3 --user other")
        /// The answers to a login with this response, without the challenge and the numbers that chance makes.
        func answers(_ target: String, response: String) throws -> [String] {
            let initiator = try Initiator(port: daemon.port)
            var seen: [String] = []
            let texts = [
                ["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn(target))", "AuthMethod=CHAP,None"], ["CHAP_A=7"],
                ["CHAP_N=alice", "CHAP_R=\(response)"],
            ]
            for text in texts {
                var request = Initiator.loginRequest(keys: text)
                request.header[1] = 0
                initiator.wire.send(request.bytes)
                guard let answer = initiator.receive() else { return seen + ["closed"] }
                let keys = answer.data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }.map { key in
                    key.hasPrefix("CHAP_I=") ? "CHAP_I" : key.hasPrefix("CHAP_C=0x") ? "CHAP_C of \(key.count)" : key
                }
                seen.append("\(String(answer.statusClassAndDetail, radix: 16)) \(answer.header[1]) \(keys)")
            }
            return seen
        }
        for response in ["0x" + String(repeating: "00", count: 32), "0x00", "nonsense"] {
            let known = try answers("disk", response: response)
            #expect(known.count == 3 && known[2].hasPrefix("201 "), "\(known)")
            for target in ["absent", "forbidden", "unbound"] { #expect(try answers(target, response: response) == known) }
        }
    }

    @Test("A tenant with another's name and ISID, target, account or session is refused, and the other's session does not notice")
    func tenants() throws {
        let daemon = try Daemon.serving()
        try daemon.addTarget(2, name: "b")
        try daemon.admit(tid: 2)
        for (tid, tenant) in [(1, "a"), (2, "b")] {
            try daemon.must("--mode account --op new --user \(tenant) --password secret-of-\(tenant)-1")
            try daemon.must("--mode account --op bind --tid \(tid) --user \(tenant)")
        }
        let nameOfA = "iqn.2026-11.org.example:host-of-a"
        func login(_ target: String, _ user: String, _ secret: String, name: String = nameOfA, isid: UInt8 = 1, tsih: Int = 0) throws -> (Initiator, UInt16?) {
            let initiator = try Initiator(port: daemon.port)
            return (initiator, try initiator.login(target: Daemon.iqn(target), user: user, secret: secret, name: name, isid: isid, tsih: tsih, folder: daemon.folder))
        }
        let (mine, status) = try login("disk", "a", "secret-of-a-1")
        #expect(status == 0, daemon.evidence)
        try mine.settle()
        let shown = try daemon.must("--op show --mode target")
        let session = try #require(shown.components(separatedBy: "I_T nexus: ").dropFirst().first.flatMap { Int($0.prefix { $0.isNumber }) })
        func refused(_ status: UInt16, _ attempt: (Initiator, UInt16?), _ what: Comment) throws {
            #expect(attempt.1 == status, what)
            #expect(try mine.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0, what)
        }
        try refused(0x0203, login("disk", "b", "secret-of-b-1"), "B's account is not bound to A's target")
        try refused(0x0203, login("b", "a", "secret-of-a-1"), "A's account is not bound to B's target")
        try refused(0x0201, login("disk", "a", "secret-of-b-1"), "A's account needs A's secret")
        try refused(0x0201, login("disk", "b", "secret-of-a-1"), "B's account needs B's secret")
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), name: nameOfA) == 0x0201)
        // Where B may use A's target, it is still not A.
        try daemon.must("--mode account --op bind --tid 1 --user b")
        try refused(0x0203, login("disk", "b", "secret-of-b-1"), "B does not take the place of A's session")
        try refused(0x020a, login("disk", "b", "secret-of-b-1", tsih: session), "B does not join A's session")
        try refused(0x020a, login("disk", "b", "secret-of-b-1", name: "iqn.2026-11.org.example:host-of-b", tsih: session), "nor under its own name")
        let (theirs, own) = try login("disk", "b", "secret-of-b-1", name: "iqn.2026-11.org.example:host-of-b")
        #expect(own == 0)
        try theirs.settle()
        // And from when the name is A's alone, B does not come in with it at all.
        try daemon.must("--mode account --op bind --tid 1 --user a -Q \(nameOfA)")
        try refused(0x0203, login("disk", "b", "secret-of-b-1", isid: 2), "the name is A's")
        // A itself takes the place of its session.
        let (again, replaced) = try login("disk", "a", "secret-of-a-1")
        #expect(replaced == 0 && mine.wire.closes(within: 5), daemon.evidence)
        try again.settle()
    }

    @Test("A secret that takes the place of another ends nobody's session, and both are right as long as there are two")
    func rotation() throws {
        let daemon = try Daemon.serving()
        try daemon.must("--mode account --op new --user a --password first-secret-1")
        try daemon.must("--mode account --op bind --tid 1 --user a")
        func login(_ secret: String, isid: UInt8) throws -> Initiator? {
            let initiator = try Initiator(port: daemon.port)
            return try initiator.login(target: Daemon.iqn("disk"), user: "a", secret: secret, isid: isid, folder: daemon.folder) == 0 ? initiator : nil
        }
        let old = try #require(try login("first-secret-1", isid: 1))
        try old.settle()
        try daemon.must("--mode account --op update --user a --add-secret --password second-secret-2")
        let new = try #require(try login("second-secret-2", isid: 2))
        try new.settle()
        #expect(try login("first-secret-1", isid: 3) != nil)
        try daemon.must("--mode account --op update --user a --retire-secret old")
        #expect(try login("first-secret-1", isid: 4) == nil)
        for initiator in [old, new] { #expect(try initiator.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0, daemon.evidence) }
    }

    @Test("A secret is in the memory of control, and of no other process of ours")
    func planted() throws {
        let daemon = try serving(mutual: true)
        #expect(try run("iscsi-inq", daemon.url(), environment: Self.mutualEnvironment, folder: daemon.folder).succeeded)
        #expect(try !run("iscsi-inq", daemon.url(), environment: Self.mutualEnvironment.merging(["LIBISCSI_CHAP_PASSWORD": "wrong"]) { $1 }, folder: daemon.folder).succeeded)
        #expect(daemon.family.count == 3)
        #expect(try daemon.folder.copies(of: [Self.secret, Self.outgoingSecret].map { Array($0.utf8) }, in: daemon.family) == [[1, 0, 0], [1, 0, 0]])
    }

    @Test("Control holds a secret once, whichever way it came in, and not at all when its account is gone; the key of its state it holds once")
    func forgotten() throws {
        let daemon = try Daemon()
        let secrets = ["planted as an argument", "planted in a file here", "planted with many more", "planted beside another"]
        func file(_ index: Int) throws -> String { try daemon.folder.write(secrets[index], to: "secret \(index)") }
        #expect(try daemon.admin(["--mode", "account", "--op", "new", "--user", "u0", "--password", secrets[0]]).succeeded)
        #expect(try daemon.admin(["--mode", "account", "--op", "new", "--user", "u1", "--password-file", file(1)]).succeeded)
        let lines = try daemon.folder.write(
            (0..<50).map { "--mode target --op new --tid \($0 + 1) --targetname \(Daemon.iqn("t\($0)"))\n" }.joined()
                + "--mode account --op new --user u2 --password '\(secrets[2])'\n", to: "lines")
        #expect(try daemon.admin(["--transaction", lines]).succeeded)
        #expect(try daemon.admin(["--mode", "account", "--op", "update", "--user", "u1", "--add-secret", "--password-file", file(3)]).succeeded)
        let drawn = try daemon.must("--mode account --op generate --user u4").split(whereSeparator: \.isWhitespace).last.map { Array($0.utf8) }
        let all = try secrets.map { Array($0.utf8) } + [#require(drawn)]
        let key = daemon.folder.text(of: daemon.folder.path("state/key"))
        let digits = key.compactMap(\.hexDigitValue)
        let rawKey = stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
        try #require(rawKey.count == 32)
        func held(_ bytes: [[UInt8]]) throws -> [Int] { try daemon.folder.copies(of: bytes, in: [daemon.process.pid]).flatMap(\.self) }
        #expect(try held(all) == [1, 1, 1, 1, 1])
        #expect(try held([rawKey, Array(key.utf8.prefix(64))]) == [1, 0])
        for user in ["u0", "u1", "u2", "u4"] { try daemon.must("--mode account --op delete --user \(user)") }
        #expect(try held(all) == [0, 0, 0, 0, 0])
    }

    @Test("Nothing of a secret is left in control that came in a request which was refused, was none, or never came to its end")
    func forgottenRequests() throws {
        let daemon = try Daemon()
        let secrets = ["planted and refused", "planted beside a mistake", "planted in tgt's protocol", "planted under no name", "planted and never ended"]
        try daemon.must("--mode account --op new --user u --password a-secret-of-its-own")
        #expect(try !daemon.admin(["--mode", "account", "--op", "new", "--user", "u", "--password", secrets[0]]).succeeded)
        let lines = try daemon.folder.write("--mode account --op new --user v --password '\(secrets[1])'\n--mode target --op delete --tid 99\n", to: "lines")
        #expect(try !daemon.admin(["--transaction", lines]).succeeded)
        for text in ["user=u,password=\(secrets[2])", "password=\(secrets[3])"] {
            let wire = try ManagementWire(daemon)
            wire.send(Request(.account, .new, text: text).bytes())
            guard case .answered(let error, _) = wire.answer(within: 5), error != 0 else { throw Failure("“\(text)” is not refused") }
        }
        let half = try ManagementWire(daemon)
        half.send(Request(.account, .new, text: "user=w,password=\(secrets[4])").bytes().dropLast(1).map(\.self))
        let planted = secrets.map { Array($0.utf8) }
        // It has come, and waits for its end.
        #expect(try eventually(within: 5) { try daemon.folder.copies(of: [planted[4]], in: [daemon.process.pid]) != [[0]] }, daemon.evidence)
        half.leave()
        #expect(try eventually(within: 5) { try daemon.folder.copies(of: planted, in: [daemon.process.pid]).flatMap(\.self) == [0, 0, 0, 0, 0] }, daemon.evidence)
    }
}
