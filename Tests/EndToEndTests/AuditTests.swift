import Foundation
import Glibc
import Testing

/// The audit trails of a daemon, read with tgt-audit.
struct Trails {
    let daemon: Daemon
    let directory: String

    static let program = (Subject.tgtd as NSString).deletingLastPathComponent + "/tgt-audit"

    /// - Parameter directory: nil: in the state directory
    init(_ daemon: Daemon, _ directory: String? = nil) {
        self.daemon = daemon
        self.directory = directory ?? daemon.folder.path("state/audit")
    }

    func start(_ words: [String]) throws -> Running { try Running([Self.program, words[0], "--directory", directory] + words.dropFirst(), folder: daemon.folder) }
    func run(_ words: String...) throws -> Finished { try start(words).wait(seconds: 60) }

    func records(_ trail: String = "management", _ words: String...) throws -> [Record] {
        let shown = try start(["show", "--trail", trail, "--format", "json"] + words).wait(seconds: 60)
        guard shown.succeeded else { throw Failure(shown.evidence) }
        return try shown.output.split(separator: "\n").map { try Record(String($0)) }
    }

    /// Carries the keys elsewhere, as an administrator should.
    func takeKeys(to folder: Folder) throws -> String {
        let text = ["management", "network"].map { folder.text(of: "\(directory)/\($0).verification-key") }.joined()
        for trail in ["management", "network"] { try FileManager.default.removeItem(atPath: "\(directory)/\(trail).verification-key") }
        return try folder.write(text, to: "keys")
    }

    struct Record {
        let members: [String: Any]
        let line: String

        init(_ line: String) throws {
            guard let members = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else { throw Failure("no record: \(line)") }
            self.members = members
            self.line = line
        }
        subscript(name: String) -> String? { members[name] as? String }
        func number(_ name: String) -> Int? { members[name] as? Int }
        var uid: Int? { (members["peer"] as? [String: Any])?["uid"] as? Int }
        var what: String { "\(self["mode"] ?? "") \(self["op"] ?? "")" }
        /// Arguments, or details of an event.
        func argument(_ name: String) -> String? {
            let pairs = (members["arguments"] ?? members["details"]) as? [[String]] ?? []
            return pairs.first { $0[0] == name }?[1]
        }
        var changes: [String] { members["changes"] as? [String] ?? [] }
    }
}

extension [Trails.Record] {
    func of(_ kind: String, _ what: String? = nil, uid: Int? = nil) -> [Trails.Record] {
        filter { $0["kind"] == kind && (what == nil || $0.what == what) && (uid == nil || $0.uid == uid) }
    }
    func events(_ kind: String) -> [Trails.Record] { filter { $0["kind"] == "event" && $0["event"] == kind } }
}

extension Folder {
    /// A settings file of this text.
    func settings(_ text: String) throws -> String {
        let file = try write(text, to: "tgtd.yaml")
        permit(file, 0o600)
        return file
    }
}

func words(_ line: String) -> [String] { line.split(separator: " ").map(String.init) }

/// What stands in the audit trail of what administrators do.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct AuditedTests {
    @Test("Each request stands there with who asked, by which rule and what became of it, a transaction once with all that it changes")
    func requests() throws {
        let it = try Administered(grants: "  - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}\n")
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded, it.daemon.evidence)
        #expect(try !it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded)
        #expect(try !it.tgtadm(Administered.webUser, Administered.show).succeeded)
        #expect(try !it.tgtadm(65534, Administered.show).succeeded)
        #expect(try it.tgtadm(Administered.mail, Administered.show).succeeded)
        func transact(_ lines: [String]) throws -> Finished {
            let file = it.daemon.folder.fresh("lines")
            try Data((lines.joined(separator: "\n") + "\n").utf8).write(to: URL(fileURLWithPath: file))
            permit(file, 0o644)
            return try it.tgtadm(Administered.mail, "--transaction \(file)")
        }
        #expect(try transact([Administered.target(101, "red1"), Administered.target(102, "red2"), "--op bind --mode target --tid 102 -I ALL"]).succeeded, it.daemon.evidence)
        #expect(try !transact([Administered.target(103, "red3"), Administered.target(101, "red1")]).succeeded)
        #expect(try !transact(["--op new --mode portal --param portal=127.0.0.1:1"]).succeeded)

        let records = try Trails(it.daemon).records()
        let attempts = records.of("attempt", "target new", uid: 8), outcomes = records.of("outcome", "target new", uid: 8)
        #expect(attempts.count == 2 && outcomes.count == 2)
        let first = try #require(attempts.first), end = try #require(outcomes.first)
        #expect(first["user"] == "mail" && first["authentication"] == "account" && first["role"] == "tenant-administrator" && first["tenant"] == "red", "\(first.line)")
        #expect(first["decision"] == "allowed" && first["reason"]?.contains("line 12") == true && first.argument("targetname") == "iqn.2026-11.org.example:red", "\(first.line)")
        let peer = try #require(first.members["peer"] as? [String: Any])
        #expect(peer["gid"] as? Int == 8 && peer["pid"] as? Int ?? 0 > 1 && peer["executable"] as? String == URL(fileURLWithPath: Subject.tgtadm).resolvingSymlinksInPath().path)
        #expect(end.number("attempt") == first.number("sequence") && end["result"] == "success" && end.changes == ["target 100 added"], "\(end.line)")
        #expect(end.number("durationMicroseconds") ?? 0 > 0 && end.number("sequence") ?? 0 > first.number("sequence") ?? 0)
        #expect(outcomes.last?["result"] == "refused" && outcomes.last?["error"]?.contains("exists already") == true && outcomes.last?.changes == [])
        let stranger = records.of("attempt", "target show", uid: 33)
        #expect(stranger.count == 1 && stranger[0]["decision"] == "refused" && stranger[0]["reason"]?.contains("no grant") == true)
        #expect(records.of("outcome", "target show", uid: 33).isEmpty)
        #expect(records.of("outcome", "target show", uid: 8).count == 1 && records.of("attempt", "target show", uid: 8).isEmpty)
        // Each of the transactions that policy lets pass: one attempt, one outcome.
        let transactions = records.of("attempt", "transaction commit", uid: 8), ends = records.of("outcome", "transaction commit", uid: 8)
        #expect(transactions.map { $0["decision"] } == ["allowed", "allowed", "refused"] && ends.map { $0["result"] } == ["success", "refused"])
        #expect((transactions.first?.members["requests"] as? [[String: Any]])?.map { "\($0["mode"] ?? "") \($0["op"] ?? "")" } == ["target new", "target new", "target bind"])
        #expect((transactions.last?.members["requests"] as? [Any])?.count == 1)
        #expect(ends.first?.number("attempt") == transactions.first?.number("sequence") && Set(ends.first?.changes ?? []) == ["target 101 added", "target 102 added"], "\(ends.first?.line ?? "")")
        #expect(ends.last?.changes == [])
        #expect(records.events("peerRefused").contains { $0["source"] == "uid 65534" })
    }

    @Test("What PAM refuses stands there with its code, though nobody else hears it")
    func pam() throws {
        let it = try Administered(
            grants: "  - {users: [news], role: observer, tenant: all}\n",
            pam: "auth required /usr/lib/x86_64-linux-gnu/pam_wrapper/pam_matrix.so passdb=FOLDER/passdb\naccount required pam_permit.so\n",
            scripts: ["passdb": "news:the right one:tgtd\n"])
        #expect(try it.tgtadm(Administered.news, Administered.show, answers: ["the right one"]).succeeded, it.daemon.evidence)
        let wrong = try it.tgtadm(Administered.news, Administered.show, answers: ["wrong"])
        #expect(!wrong.succeeded && !wrong.output.contains("code"))
        // Nobody of that number.
        #expect(try !it.tgtadm(54321, Administered.show).succeeded)
        // One that dies while it is asked.
        let prompt = try it.prompts(Administered.news, 1)
        #expect(eventually(within: 20) { prompt.output == "asked\n" }, it.daemon.evidence)
        prompt.kill()
        let trails = Trails(it.daemon)
        #expect(try eventually(within: 10) { try trails.records().of("attempt", uid: 9).count == 2 })
        let records = try trails.records(), refused = records.of("attempt", uid: 9)
        #expect(records.of("outcome", "target show", uid: 9).map { $0["authentication"] } == ["authenticated"])
        #expect(refused.first?["reason"]?.contains("authenticate ended with code 7") == true && refused.first?["authentication"] == "PAM authenticate: 7", "\(refused)")
        #expect(refused.allSatisfy { $0["decision"] == "refused" && $0["user"] == "news" } && refused.last?["reason"]?.contains("gone") == true, "\(refused)")
        #expect(records.of("attempt", uid: 54321).first?["reason"]?.contains("knows nobody") == true)
        #expect(!records.contains { $0.line.contains("right one") || $0.line.contains("wrong") })
    }

    @Test("Everything that was said stands there, and every secret as a code, wherever somebody has put it")
    func secrets() throws {
        let daemon = try Daemon(), folder = daemon.folder
        try daemon.addTarget()
        func admin(_ line: String) throws { _ = try daemon.admin(words(line)) }
        try admin("--op new --mode account --user u --password planted-secret-1")
        try admin("--op update --mode account --user u --add-secret --password-file \(folder.write("planted-secret-2", to: "secret"))")
        try admin("--op new --mode account --user v --password planted-secret-1")
        let drawn = try daemon.admin(words("--op generate --mode account --user w"))
        // Where it does not belong: refused, and written down all the same.
        try admin("--op update --mode target --tid 1 --name Password --value planted-secret-3")
        try admin("--op update --mode logicalunit --tid 1 --lun 1 --params online=1,password=planted-secret-4")
        let socket = daemon.folder.path("socket.\(Daemon.controlPort)")
        for text in ["user=x,pasword=planted-secret-5", "pass=planted-secret-6"] {
            let wire = try ManagementWire(daemon)
            wire.send(Request(.account, .new, text: text).bytes())
            #expect(wire.answer(within: 5) != .silence, "\(socket)")
        }
        try admin("--op bind --mode target --tid 1 -I 192.0.2.0/24 --luns 1,2:ro")
        try admin("--op new --mode portal --param portal=127.0.0.1:1,tls=required,psk-file=/planted/file")
        try admin("--mode access --op explain --tid 1 --initiator-name iqn.x --initiator-address 192.0.2.7 --tls yes")

        let trails = Trails(daemon), records = try trails.records()
        let all = try FileManager.default.contentsOfDirectory(atPath: trails.directory).map { folder.text(of: "\(trails.directory)/\($0)") }.joined(separator: "\n")
        let spilled = all.split(separator: "\n").filter { $0.contains("planted-secret") }
        #expect(spilled.isEmpty)
        let secret = try #require(drawn.output.split(whereSeparator: { $0 == " " || $0 == "\n" }).map(String.init).max { $0.count < $1.count })
        #expect(drawn.succeeded && secret.utf8.count >= 16)
        let isWrittenDown = all.contains(secret)
        #expect(!isWrittenDown)
        let made = records.of("attempt", "account new").filter { $0.argument("user") != nil }
        #expect(made.count == 2 && made[0].argument("password")?.hasPrefix("hmac:") == true && made[0].argument("password") == made[1].argument("password"))
        let added = try #require(records.of("attempt", "account update").first)
        #expect(added.argument("password")?.hasPrefix("hmac:") == true && added.argument("password") != made[0].argument("password"))
        #expect(records.of("attempt", "target update").first?.argument("Password")?.hasPrefix("hmac:") == true)
        #expect(records.of("attempt", "logicalunit update").first.map { $0.argument("online") == "1" && $0.argument("password")?.hasPrefix("hmac:") == true } == true)
        let unreadable = records.of("attempt", "account new").filter { $0.argument("user") == nil }
        #expect(unreadable.count == 2 && unreadable.allSatisfy { $0["decision"] == "refused" && $0.argument("text")?.hasPrefix("hmac:") == true })
        #expect(records.of("attempt", "target bind").first.map { $0.argument("initiator-address") == "192.0.2.0/24" && $0.argument("luns") == "1,2:ro" } == true)
        #expect(records.of("attempt", "portal new").first?.argument("psk-file") == "/planted/file")
        #expect(records.of("outcome", "access explain").first?.argument("tls") == "yes")
    }

    @Test("What cannot be read, comes too slowly or too often is written down as well; what a stranger can cause at will is counted")
    func unreadable() throws {
        let folder = try Folder()
        permit(folder.path, 0o755)
        let settings = try folder.write("limits:\n  management-idle-seconds: 2\n  management-connections-per-user: 4\n", to: "tgtd.yaml")
        permit(settings, 0o644)
        let daemon = try Daemon(options: ["--config", settings])
        permit(daemon.folder.path, 0o755)
        let trails = Trails(daemon)
        // Garbage, a field that does not exist, a length that cannot be.
        var wrong = Request(.target, .show).bytes()
        wrong[0] = 99
        var long = Request(.target, .show).bytes()
        long.replaceSubrange(72..<76, with: [0xff, 0xff, 0xff, 0x7f])
        for bytes in [wrong, long, Array("PORTCULL".utf8) + [0, 1, 0, 1, 0] + [UInt8](repeating: 0, count: 107) + [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]] {
            let wire = try ManagementWire(daemon)
            wire.send(bytes)
            _ = wire.answer(within: 5)
        }
        let slow = try ManagementWire(daemon)
        slow.send(Array(Request(.target, .show).bytes().prefix(60)))
        #expect(slow.answer(within: 10) == .closed)
        // Those of somebody who may ask nothing: all of them are answered.
        let many = try run(
            "setpriv", "--reuid=33", "--regid=33", "--clear-groups", "/usr/bin/python3", "-c", Self.flood, daemon.folder.path("socket.\(Daemon.controlPort)"), "500", folder: folder)
        #expect(many.succeeded && many.output == "500\n", "\(many.evidence)")
        let asked = ContinuousClock.now
        try daemon.addTarget()
        #expect(ContinuousClock.now - asked < .seconds(5))
        let records = try trails.records(), unreadable = records.of("attempt", "unreadable request", uid: 0)
        #expect(unreadable.count == 4 && unreadable.allSatisfy { $0["decision"] == "refused" }, "\(unreadable.map(\.line))")
        #expect(unreadable.last?["reason"]?.contains("did not come whole in time") == true && unreadable.first?["reason"]?.contains("mode") == true, "\(unreadable.map(\.line))")
        #expect(records.of("attempt", uid: 33).count == 60)
        #expect(daemon.stop().succeeded)
        let counted = try trails.records().filter { $0["kind"] == "suppressed" && $0["source"] == "uid 33" }
        #expect(counted.count == 1 && counted.first?["event"] == "requestRefused" && counted.first?.number("count") == 440, "\(counted)")
    }
    /// Asks for something, so many times; prints how many answers there were.
    private static let flood = """
        import socket, struct, sys
        request = struct.pack("<II", 1, 2) + bytes(64) + struct.pack("<IiQQIIIIII", 120, -1, 0, 2**64 - 1, 0, 0, 0, 0, 0, 0)
        answers = 0
        for _ in range(int(sys.argv[2])):
            client = socket.socket(socket.AF_UNIX)
            client.connect(sys.argv[1])
            client.sendall(request)
            answers += len(client.recv(4096)) >= 8
            client.close()
        print(answers)

        """

    // MARK: What nobody asked for

    @Test("Start, stop, policy, signals and processes stand there, with who did it; logins in their own trail, with all that is known of the initiator")
    func events() throws {
        let it = try Administered(grants: ""), daemon = it.daemon
        let target = try daemon.addTarget()
        try daemon.must("--op new --mode logicalunit --tid 1 --lun 1 -b \(daemon.folder.sparseFile("disk", size: 1 << 20))")
        try daemon.admit()
        try daemon.addTarget(2, name: "closed")
        let trails = Trails(daemon)
        func network(_ kind: String, _ count: Int = 1) throws -> [Trails.Record] {
            #expect(try eventually(within: 10) { try trails.records("network").events(kind).count >= count }, "\(kind): \(daemon.log.suffix(3000))")
            return try trails.records("network").events(kind)
        }
        // Logins.
        let initiator = try Initiator.login(port: daemon.port, target: target)
        let accepted = try #require(try network("loginAccepted").first)
        #expect(accepted["initiator"] == Initiator.name && accepted["target"] == target && accepted["source"] == "127.0.0.1" && accepted["decision"] == "allowed" && accepted["tenant"] == "default", "\(accepted.line)")
        #expect(accepted.argument("address")?.hasPrefix("127.0.0.1:") == true && accepted.argument("portal") == daemon.portal && accepted.argument("proof") == "none" && accepted.argument("tls") == "none", "\(accepted.line)")
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("closed")) == 0x0203)
        let refused = try #require(try network("loginRefused").first)
        #expect(refused["initiator"] == Initiator.name && refused["target"] == Daemon.iqn("closed") && refused["decision"] == "refused" && refused.argument("status") == "203", "\(refused.line)")
        #expect(refused["reason"]?.contains("rule") == true, "\(refused.line)")
        initiator.wire.shutdown()
        let ended = try #require(try network("sessionEnded").first)
        #expect(ended["initiator"] == Initiator.name && ended["target"] == target && ended["reason"] == "connectionLost" && ended.argument("sid") == accepted.argument("sid"), "\(ended.line)")
        do {
            let discovery = try Initiator(port: daemon.port)
            #expect(discovery.login(target: nil) == 0)
            #expect(try network("loginAccepted", 2).last?["target"] == "discovery")
        }
        #expect(try network("sessionEnded", 2).last?["target"] == "discovery")
        // What is no login.
        let garbage = try Wire(port: daemon.port)
        garbage.send([UInt8](repeating: 0xff, count: 100))
        #expect(garbage.closes(within: 10))
        #expect(try network("loginRefused", 2).last.map { $0["reason"] == "nonsense" && $0["initiator"] == nil && $0["source"] == "127.0.0.1" } == true)

        // Processes, and the sessions that end with one.
        _ = try Initiator.login(port: daemon.port, target: target)
        for role in ["login", "data"] {
            let pid = try #require(daemon.child(role: role))
            let living = role == "data" ? try Initiator.login(port: daemon.port, target: target, isid: 2) : try Initiator(port: daemon.port)
            if role == "login" { #expect(living.login(target: nil) == 0) }
            _ = kill(pid, SIGKILL)
            #expect(eventually(within: 10) { daemon.child(role: role).map { $0 != pid } ?? false })
            withExtendedLifetime(living) {}
            let end = try #require(try network("processEnded").last { $0.argument("process") == role })
            #expect(end["reason"]?.contains("killed by signal 9") == true, "\(end.line)")
            guard role == "login" else { continue }
            #expect(try eventually(within: 10) { try trails.records("network").events("sessionEnded").filter { $0["target"] == "discovery" }.count == 2 })
        }
        #expect(try network("processStarted", 4).map { $0.argument("process") } == ["data", "login", "login", "data"])
        #expect(try network("sessionEnded").contains { $0["reason"] == "the data process has ended" })

        // Policy and signals.
        it.daemon.process.signal(SIGHUP)
        try it.rewrite(grants: "  - {users: [mail], role: king, tenant: all}\n")
        it.daemon.process.signal(SIGHUP)
        #expect(try eventually(within: 5) { try !trails.records().events("policyRefused").isEmpty }, daemon.evidence)
        var records = try trails.records()
        let loaded = records.events("policyLoaded")
        #expect(loaded.count >= 1 && loaded[0].argument("file") == it.files.path("policy.yaml") && loaded[0].argument("sha256")?.utf8.count == 64 && loaded[0].argument("grants") == "1", "\(loaded)")
        #expect(records.events("policyRefused").first?["reason"]?.contains("there is no role “king”") == true)
        #expect(records.events("rereading").first.map { $0.argument("uid") == "0" && $0.argument("pid") == "\(getpid())" && $0.argument("signal") == "\(SIGHUP)" } == true)
        #expect(!records.events("portalsLoaded").isEmpty)
        // Start and stop.
        let started = try #require(records.events("daemonStarted").first)
        #expect(started.argument("version")?.isEmpty == false && started.argument("arguments")?.contains("--policy \(it.files.path("policy.yaml"))") == true, "\(started.line)")
        #expect(started.argument("settings")?.hasPrefix("\(it.files.path("tgtd.yaml")), SHA-256 ") == true && started.argument("portals") == daemon.portal && started.argument("pid") == "\(daemon.process.pid)", "\(started.line)")
        try it.rewrite(grants: "")
        #expect(daemon.stop().succeeded)
        records = try trails.records()
        #expect(records.events("daemonStopped").last.map { $0["reason"] == "signal \(SIGTERM)" && $0.argument("pid") == "\(getpid())" } == true)
        try daemon.restart()
        for tid in [1, 2] { try daemon.must("--op delete --mode target --tid \(tid)") }
        #expect(try daemon.admin(words("--op delete --mode system")).succeeded)
        #expect(daemon.process.wait(seconds: 10).succeeded)
        records = try trails.records()
        #expect(records.events("daemonStopped").last?["reason"]?.contains("an administrator") == true && records.of("outcome", "system delete").first?["result"] == "success")
        #expect(records.events("daemonStarted").count == 2)
    }

    @Test("Wrong secrets, penalties and TLS handshakes that fail stand in the network's trail")
    func failures() throws {
        let apart = try Folder()
        let daemon = try Daemon.serving(size: 1 << 20, options: ["--config", apart.settings("penalties:\n  exempt: []\n")])
        let folder = daemon.folder, authority = try Authority(), portal = try authority.portal(), port = try Ports.next()
        try daemon.must("--op new --mode portal --param portal=127.0.0.1:\(port),tls=required,certificate=\(portal.certificate),key=\(portal.key)")
        try daemon.must("--op new --mode account --user alice --password the-right-secret")
        try daemon.must("--op bind --mode account --tid 1 --user alice")
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), user: "alice", secret: "the-right-secret", folder: folder) == 0)
        for number in 0..<6 {
            _ = try? Initiator(port: daemon.port, source: 9).login(target: Daemon.iqn("disk"), user: number == 0 ? "bob" : "alice", secret: "planted-wrong-secret", folder: folder)
        }
        // Not TLS at all, and one that does not trust us.
        let clear = try Wire(port: port)
        clear.send(Array("GET / HTTP/1.0\r\n\r\n".utf8))
        _ = clear.closes(within: 10)
        let trails = Trails(daemon)
        #expect(try eventually(within: 10) { try !trails.records("network").events("tlsFailed").isEmpty && !trails.records("network").events("penalty").isEmpty }, daemon.evidence)
        let records = try trails.records("network")
        let accepted = try #require(records.events("loginAccepted").first)
        #expect(accepted["user"] == "alice" && accepted.argument("proof") == "CHAP, SHA-256, in clear", "\(accepted.line)")
        let refused = records.events("loginRefused")
        #expect(refused.first.map { $0["user"] == "bob" && $0["reason"]?.contains("there is no account") == true && $0["source"] == "127.0.0.9" } == true, "\(refused)")
        #expect(refused.dropFirst().first.map { $0["user"] == "alice" && $0["reason"]?.contains("wrong response") == true && $0["target"] == Daemon.iqn("disk") } == true)
        let penalty = try #require(records.events("penalty").first)
        #expect(penalty["source"] == "127.0.0.9" && penalty["reason"] == "guess" && Int(penalty.argument("seconds") ?? "") != nil, "\(penalty.line)")
        let tls = try #require(records.events("tlsFailed").first)
        #expect(tls["source"] == "127.0.0.1" && tls["reason"]?.isEmpty == false && tls.argument("portal") == "127.0.0.1:\(port)", "\(tls.line)")
        #expect(!records.contains { $0.line.contains("planted-wrong-secret") || $0.line.contains("the-right-secret") })
    }

    // MARK: A decision is as things are when it is carried out

    @Test("Leave that is taken away while the store is opened is no leave any more, for one and for many", arguments: [false, true])
    func overtakenOpening(isTransaction: Bool) throws {
        let granted = "  - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}\n"
        let it = try Administered(grants: granted)
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded, it.daemon.evidence)
        let disk = try it.files.sparseFile("red/disk", size: 1 << 20)
        // An open that breaks a lease waits until its holder lets go (fcntl(2)).
        let script = "import fcntl, os, signal, sys, time; signal.signal(signal.SIGIO, signal.SIG_IGN); d = os.open(sys.argv[1], os.O_RDWR); fcntl.fcntl(d, fcntl.F_SETLEASE, fcntl.F_WRLCK); print('held', flush=True); time.sleep(600)"
        let holder = try Running(["python3", "-c", script, disk], folder: it.files)
        #expect(eventually(within: 30) { holder.output.hasPrefix("held") }, "\(holder.output)")
        let line = "--op new --mode logicalunit --tid 100 --lun 1 -b \(disk)", file = it.daemon.folder.path("lines")
        try Data((line + "\n").utf8).write(to: URL(fileURLWithPath: file))
        permit(file, 0o644)
        let asking = try it.start(Administered.mail, isTransaction ? "--transaction \(file)" : line)
        let trails = Trails(it.daemon)
        #expect(try eventually(within: 10) { try trails.records().of("attempt", uid: 8).count == 2 })
        try it.rewrite(grants: "")
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("the policy has been read again: 1 grants") }, it.daemon.evidence)
        holder.kill()
        let asked = asking.wait(seconds: 20)
        #expect(!asked.succeeded && asked.output.contains("the policy has changed meanwhile"), "\(asked.evidence)")
        #expect(try !it.tgtadm(0, "--op show --mode target").output.contains("LUN: 1\n"))
        let outcome = try #require(try trails.records().of("outcome", uid: 8).last)
        #expect(outcome["result"] == "refused" && outcome["error"]?.contains("the policy has changed") == true && outcome.changes == [], "\(outcome.line)")
    }
}

/// A trail that is moved, ended, gone on with, searched, tampered with.
@Suite(.enabled(if: Subject.isPortcullis)) struct AuditTrailTests {
    @Test("Over many files and starts it is one trail, in a directory of its own; tgt-audit shows what is asked for, follows, and names the first record that was changed")
    func whole() throws {
        let apart = try Folder(), directory = apart.path("audit")
        let daemon = try Daemon(options: ["--config", apart.settings("audit:\n  directory: \(directory)\n  file-size: 64KiB\n")])
        #expect(!FileManager.default.fileExists(atPath: daemon.folder.path("state/audit")))
        let trails = Trails(daemon, directory)
        #expect(try trails.run("verify").ending == .exited(2), "the key lies beside it")
        let keys = try trails.takeKeys(to: apart)
        let following = try trails.start(["follow", "--format", "json", "--kind", "outcome", "--op", "update", "--last", "1000"])
        try daemon.addTarget()
        func files() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasPrefix("management-") }.sorted() }
        var changes = 0
        func change(_ count: Int) throws {
            for _ in 0..<count {
                changes += 1
                let wire = try ManagementWire(daemon)
                wire.send(Request(.target, .update, tid: 1, text: "nop_interval=\(changes)").bytes())
                guard case .answered(0, _) = wire.answer(within: 10) else { throw Failure("change \(changes) is refused\n\(daemon.log)") }
            }
        }
        try change(60)
        #expect(daemon.stop().succeeded)
        try daemon.restart()
        try change(60)
        daemon.process.kill()
        try daemon.restart()
        try change(30)
        #expect(try files().count >= 3)
        func followed() -> [Int] {
            following.output.split(separator: "\n").compactMap { line in (try? Trails.Record(String(line)))?.argument("nop_interval").flatMap { Int($0) } }
        }
        #expect(eventually(within: 20) { followed().count >= 150 } && followed() == Array(1...150), "\(followed())")
        let verified = try trails.run("verify", "--key", keys)
        #expect(verified.succeeded && verified.output.hasSuffix("whole\n"), "\(verified.evidence)")

        // What is asked for.
        let updates = try trails.records("management", "--mode", "target", "--op", "update", "--kind", "outcome")
        #expect(updates.compactMap { $0.argument("nop_interval") }.map { Int($0) } == Array(1...150))
        let middle = try #require(updates[75]["time"])
        #expect(try trails.records("management", "--kind", "outcome", "--op", "update", "--until", middle).count == 76)
        #expect(try trails.records("management", "--kind", "outcome", "--op", "update", "--since", middle).count == 75)
        #expect(try trails.records("management", "--who", "0", "--decision", "refused").isEmpty)
        #expect(try trails.records("management", "--tenant", "no-such").isEmpty)
        #expect(try trails.records("management", "--who", "nobody-here").isEmpty && trails.records("management", "--who", "0", "--op", "new").count == 2)
        let csv = try trails.run("show", "--format", "csv", "--op", "update", "--last", "3").output.split(separator: "\n")
        #expect(csv.count == 4 && csv[0] == "sequence,time,kind,who,role,tenant,what,result,details" && csv[3].contains("target update"), "\(csv)")
        let table = try trails.run("show", "--op", "new").output.split(separator: "\n")
        #expect(table.count == 3 && table[2].contains("outcome") && table[2].contains("target 1 added"), "\(table)")

        // As somebody changes it behind our back.
        #expect(daemon.stop().succeeded)
        let second = "\(directory)/\(try files()[1])"
        let lines = apart.text(of: second).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let number = try #require(Trails.Record(lines[20]).number("sequence"))
        func broken(_ lines: [String], _ what: String, at place: String = "(file 2, line 21)") throws {
            try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: second))
            let verified = try trails.run("verify", "--key", keys)
            #expect(verified.ending == .exited(1) && verified.output.contains("management: record \(number) \(place)") && verified.output.hasSuffix("broken\n"), "\(what): \(verified.evidence)")
        }
        var edited = lines
        edited[20] = lines[20].replacingOccurrences(of: "\"uid\":0", with: "\"uid\":8")
        #expect(edited != lines)
        try broken(edited, "edited")
        edited = lines
        edited.remove(at: 20)
        try broken(edited, "deleted")
        edited = lines
        edited.insert(lines[3], at: 20)
        try broken(edited, "inserted")
        edited = lines
        edited.swapAt(20, 21)
        try broken(edited, "reordered")
        edited = Array(lines[..<20]) + [""]
        try broken(edited, "truncated", at: "(file 3, line 1)")
        // And put back: tgtd goes on, and all is as it was.
        try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: second))
        permit(second, 0o600)
        try daemon.restart()
        #expect(try trails.run("verify", "--key", keys).succeeded)
    }

    @Test("Where there is no key there is no trail, and a place for one that cannot be used ends the start; a trail whose state is gone is not begun anew")
    func places() throws {
        let folder = try Folder()
        let settings = try folder.settings("audit:\n  directory: \(folder.path("audit"))\n")
        func start(_ words: [String]) throws -> Finished {
            try run(
                Subject.tgtd, "-f", "-C", "7", "--iscsi", "portal=127.0.0.1:\(try Ports.next())", words[0], words[1], words[2], words[3],
                environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder, seconds: 10)
        }
        let refused = try start(["--config", settings, "--state", "none"])
        #expect(refused.ending == .exited(1) && refused.output.contains("there is no key for an audit trail"), "\(refused.evidence)")
        let daemon = try Daemon(options: ["--config", settings])
        // Somebody else's.
        let rival = try start(["--config", settings, "--state", folder.path("state")])
        #expect(rival.ending == .exited(1) && rival.output.contains("another process writes its audit trails there"), "\(rival.evidence)")
        #expect(daemon.stop().succeeded)
        let state = folder.path("audit/management.state"), kept = try Data(contentsOf: URL(fileURLWithPath: state))
        try FileManager.default.removeItem(atPath: state)
        let again = try daemon.launchRival().wait(seconds: 10)
        #expect(again.ending == .exited(1) && again.output.contains("management.state of the audit trail management is gone"), "\(again.evidence)")
        try kept.write(to: URL(fileURLWithPath: state))
        permit(state, 0o600)
        try daemon.restart()
    }

    @Test("Killed at any moment, every change that took effect has its record, and every answer its outcome")
    func killed() throws {
        let (rounds, clients) = (Subject.soaks ? 60 : 8, 12)
        var changed = 0, answered = 0, amid = 0
        let daemon = try Daemon()
        let trails = Trails(daemon)
        let keys = try trails.takeKeys(to: daemon.folder)
        for round in 0..<rounds {
            // Each asks for one thing after the other, until it is killed.
            let script = """
                import os, socket, struct, sys, threading
                def request(tid):
                    text = b"targetname=iqn.2026-11.org.example:t%d\\0" % tid
                    return struct.pack("<II", 1, 0) + b"iscsi" + bytes(59) + struct.pack("<IiQQIIIIII", 120 + len(text), tid, 0, 2**64 - 1, 0, 0, 0, 0, 0, 0) + text
                def work(first):
                    for tid in range(first, first + 1000):
                        client = socket.socket(socket.AF_UNIX)
                        try:
                            client.connect(sys.argv[1])
                            client.sendall(request(tid))
                            if client.recv(64)[:4] == bytes(4): os.write(1, b"%d\\n" % tid)
                            else: return
                        except OSError: return
                for index in range(\(clients)): threading.Thread(target=work, args=(\(round + 1) * 100000 + index * 1000,)).start()

                """
            let load = try Running(["python3", "-u", "-c", script, daemon.folder.path("socket.\(Daemon.controlPort)")], folder: daemon.folder)
            #expect(eventually(within: 20) { load.output.contains("\n") }, daemon.evidence)
            usleep(.random(in: 0..<150_000))
            daemon.process.kill()
            let told = Set(load.wait(seconds: 20).output.split(separator: "\n").compactMap { Int($0) })
            try daemon.restart()
            let shown = try daemon.must("--op show --mode target").split(separator: "\n").compactMap { line in
                line.firstMatch(of: /^Target ([0-9]+):/).flatMap { Int($0.1) }
            }
            let there = Set(shown.filter { $0 / 100_000 == round + 1 })
            let records = try trails.records("management", "--mode", "target")
            func tids(_ kind: String) -> Set<Int> { Set(records.of(kind, "target new").compactMap { $0.argument("tid").flatMap { Int($0) } }) }
            let attempts = tids("attempt"), outcomes = tids("outcome")
            #expect(there.isSubset(of: attempts), "\(there.subtracting(attempts))")
            #expect(told.isSubset(of: outcomes) && told.isSubset(of: there), "\(told.subtracting(outcomes)) \(told.subtracting(there))")
            if attempts.contains(where: { $0 / 100_000 == round + 1 && !told.contains($0) }) { amid += 1 }
            changed += there.count
            answered += told.count
            // What there is to restore stays small.
            let lines = there.map { "--op delete --mode target --tid \($0)" }.joined(separator: "\n")
            if !there.isEmpty { try daemon.must("--transaction \(daemon.folder.write(lines + "\n", to: "lines"))") }
        }
        #expect(try trails.run("verify", "--key", keys).succeeded)
        print("killed \(rounds) times, \(amid) of them amid changes: \(changed) changes and \(answered) answers, each with its record")
        #expect(amid > 0 && changed > 0)
    }
}
