import Foundation
import Glibc
import Testing

/// Media of the audit trail that are full, or hang, and whoever tries to fill them.
@Suite(.serialized, .enabled(if: Subject.isPortcullis && geteuid() == 0, "only root mounts")) struct AuditFailureTests {
    /// A daemon whose trails are on a medium of their own, as `mount` says, at `audit` in its folder.
    private func daemon(_ mount: String, _ more: String = "") throws -> Daemon {
        let wrapper = Mount.wrapper(mount + " && printf 'audit:\\n  directory: '$place'/trails\\n\(more)' > $folder/tgtd.yaml && set -- \"$@\" --config $folder/tgtd.yaml", at: "audit")
        let daemon = try Daemon(wrapper: wrapper)
        try daemon.addTarget()
        try daemon.addDisk(file: daemon.folder.sparseFile("disk", size: 8 << 20))
        try daemon.admit()
        return daemon
    }

    private func trails(_ daemon: Daemon, _ place: String = "audit/trails") -> Trails { Trails(daemon, "/proc/\(daemon.process.pid)/root\(daemon.folder.path(place))") }
    private func change(_ daemon: Daemon, _ value: Int) throws -> Finished {
        try daemon.admin(words("--op update --mode target --tid 1 --name nop_interval --value \(value)"))
    }
    /// Looks and I/O, which nothing of this concerns.
    private func goesOn(_ daemon: Daemon) throws {
        let asked = ContinuousClock.now
        #expect(try daemon.must("--op show --mode target").contains("Target 1"))
        try QemuIO(daemon).check("write -P 0x77 0 4k", "read -P 0x77 0 4k")
        #expect(ContinuousClock.now - asked < .seconds(3))
    }

    // MARK: No room

    @Test("No room for state and trail on one file system: what the last change lacks is said and recorded, the next ones are refused; with room again all goes on by itself")
    func fullTogether() throws {
        let daemon = try Daemon.serving(size: 8 << 20, wrapper: Mount.wrapper("mount -t tmpfs -o size=8m,mode=700 none $place", at: "state"))
        let trails = trails(daemon, "state/audit")
        try daemon.inside("sh", "-c", "cat /dev/zero > \(daemon.folder.path("state/filler")) || true")
        var refusal: Finished?
        for value in 1...200 where refusal == nil {
            let finished = try change(daemon, value)
            if !finished.succeeded { refusal = finished }
        }
        let first = try #require(refusal, "200 changes have found room")
        #expect(first.output.contains("in effect, but it is not kept"), "\(first.evidence)")
        #expect(try change(daemon, 3600).output.contains("nothing is changed, for it is not certain that an earlier change is kept"))
        try goesOn(daemon)
        let outcomes = try trails.records().of("outcome", "target update").suffix(2)
        #expect(outcomes.map { $0["result"] } == ["incomplete", "refused"] && outcomes.first?.changes == ["parameters of target 1 changed"], "\(outcomes.map(\.line))")
        try daemon.inside("rm", daemon.folder.path("state/filler"))
        #expect(try eventually(within: 10) { try !daemon.must("--op show --mode system").contains("Nothing can be changed") }, daemon.evidence)
        #expect(try change(daemon, 3600).succeeded, daemon.evidence)
    }

    @Test("No room for the trail: changes are refused with the reason, and that is recorded out of the reserve; looks and I/O go on; with room again all goes on by itself")
    func full() throws {
        let daemon = try daemon("mount -t tmpfs -o size=8m,mode=700 none $place")
        let trails = trails(daemon)
        try daemon.inside("sh", "-c", "cat /dev/zero > \(daemon.folder.path("audit/filler")) || true")
        var refusal: Finished?
        var changes = 0
        while refusal == nil, changes < 3000 {
            let finished = try change(daemon, changes % 3000 + 1)
            if finished.succeeded { changes += 1 } else { refusal = finished }
        }
        // What had been reserved ahead goes first, then changes stop while the reserve is whole.
        let first = try #require(refusal, "\(changes) changes have found room")
        #expect(first.output.contains("nothing is changed, for the audit trail cannot be written") && first.output.contains("No space left"), "\(first.evidence)")
        let shown = try daemon.must("--op show --mode target")
        for _ in 0..<20 { #expect(try !change(daemon, 3600).succeeded) }
        let transaction = try daemon.folder.write("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three\n", to: "lines")
        #expect(try !daemon.admin(["--transaction", transaction]).succeeded)
        #expect(try daemon.must("--op show --mode target") == shown && shown.contains("Target 1"))
        let system = try daemon.must("--op show --mode system")
        #expect(system.contains("Nothing can be changed: the audit trail cannot be written") && system.contains("\n    trouble=") && system.contains("No space left"), "\(system)")
        try goesOn(daemon)
        let refused = try trails.records().of("attempt").filter { $0["decision"] == "refused" }
        #expect(refused.count >= 22 && refused.allSatisfy { $0["reason"]?.hasPrefix("audit: No space left") == true }, "\(refused.count)")
        #expect(refused.last?.what == "transaction commit")
        print("no room: \(changes) more changes before the first refusal; then refusals are recorded")

        try daemon.inside("rm", daemon.folder.path("audit/filler"))
        #expect(try eventually(within: 10) { try !daemon.must("--op show --mode system").contains("Nothing can be changed") }, daemon.evidence)
        #expect(daemon.log.contains("the audit trail is written again"))
        #expect(try change(daemon, 3600).succeeded, daemon.evidence)
        let keys = try trails.takeKeys(to: daemon.folder)
        let verified = try trails.run("verify", "--key", keys)
        #expect(verified.succeeded, "\(verified.evidence)")
    }

    @Test("With on-failure: continue changes are made all the same, `show` says that they are not recorded, and the trail that follows says how many")
    func goOn() throws {
        let daemon = try daemon("mount -t tmpfs -o size=8m,mode=700 none $place", "  on-failure: continue\\n")
        let trails = trails(daemon)
        let keys = try trails.takeKeys(to: daemon.folder)
        try daemon.inside("sh", "-c", "cat /dev/zero > \(daemon.folder.path("audit/filler")) || true")
        // Long ones: the reserve is used up, too.
        let name = String(repeating: "x", count: 190)
        var made = 0, system = ""
        while made < 4000, !system.contains("trouble=") {
            let lines = (0..<400).map { "--op new --mode target --tid \(1000 + made + $0) -T iqn.2026-11.org.example:\(name)\(made + $0)" }
            let finished = try daemon.admin(["--transaction", daemon.folder.write(lines.joined(separator: "\n") + "\n", to: "lines")])
            #expect(finished.succeeded, "\(finished.evidence)")
            made += 400
            system = try daemon.must("--op show --mode system")
        }
        #expect(system.contains("No space left") && !system.contains("Nothing can be changed"), "\(system)")
        for value in 1...60 {
            let lines = (0..<200).map { _ in "--op update --mode target --tid 1 --name nop_interval --value \(value)" }
            #expect(try daemon.admin(["--transaction", daemon.folder.write(lines.joined(separator: "\n") + "\n", to: "lines")]).succeeded, daemon.evidence)
        }
        try goesOn(daemon)
        try daemon.inside("rm", daemon.folder.path("audit/filler"))
        #expect(try eventually(within: 10) { try !daemon.must("--op show --mode system").contains("trouble=") }, daemon.evidence)
        #expect(try change(daemon, 77).succeeded)
        let records = try trails.records()
        let missing = records.filter { $0["kind"] == "unrecorded" }.reduce(0) { $0 + ($1.number("count") ?? 0) }
        let late = records.of("outcome").filter { $0.members["attempt"] is NSNull && $0.what == "transaction commit" }
        print("no room, continue: \(made / 400 + 60) transactions, \(missing) records counted only, \(late.count) outcomes written late")
        #expect(missing > 0 && !late.isEmpty)
        #expect(try trails.run("verify", "--key", keys).succeeded)
    }

    // MARK: A disk that hangs

    @Test(
        "A disk that hangs: the change is refused in its time and the next ones at once; a thousand targets are shown in no time meanwhile; then all goes on, and the trail says what became of it",
        .enabled(if: Mount.mayLoop, "there are no loop devices"))
    func hang() throws {
        let daemon = try daemon(Mount.ext4)
        let trails = trails(daemon), place = daemon.folder.path("audit")
        let keys = try trails.takeKeys(to: daemon.folder)
        let lines = (1...1000).map { "--op new --mode target --tid \($0 + 1000) -T iqn.2026-11.org.example:many-\($0)" }.joined(separator: "\n")
        try daemon.must("--transaction \(daemon.folder.write(lines + "\n", to: "many"))")
        try daemon.inside("fsfreeze", "--freeze", place)
        var isFrozen = true
        func thaw() throws {
            if isFrozen { try daemon.inside("fsfreeze", "--unfreeze", place) }
            isFrozen = false
        }
        defer { try? thaw() }
        let first = try daemon.startAdmin(words("--op new --mode target --tid 2 -T iqn.2026-11.org.example:two"))
        // A thousand targets, while it waits.
        usleep(200_000)
        var took: [Double] = []
        for _ in 0..<25 {
            let connection = try ManagementWire(daemon)
            let start = ContinuousClock.now
            connection.send(Request(.target, .show).bytes())
            guard case .answered(0, let text) = connection.answer(within: 5) else { throw Failure("no answer") }
            let elapsed = ContinuousClock.now - start
            took.append(Double(elapsed.components.attoseconds) / 1e15 + Double(elapsed.components.seconds) * 1000)
            #expect(text.contains("Target 2000:") && !text.contains("Target 2:"))
        }
        took.sort()
        #expect(first.poll() == nil)
        print("show target with 1,000 targets while a change waits for its audit: median \(took[12]) ms, longest \(took[24]) ms")
        #expect(took[12] < 100)
        try goesOn(daemon)
        let refused = first.wait(seconds: 20)
        #expect(!refused.succeeded && refused.output.contains("nothing is changed, for the audit trail cannot be written: the medium of the audit trail does not answer"), "\(refused.evidence)")
        #expect(refused.elapsed > .seconds(8) && refused.elapsed < .seconds(16))
        // Nobody else waits as long.
        for _ in 0..<5 {
            let next = try change(daemon, 99)
            #expect(!next.succeeded && next.output.contains("does not answer") && next.elapsed < .seconds(3), "\(next.evidence)")
        }
        #expect(try daemon.must("--op show --mode system").contains("Nothing can be changed: the audit trail cannot be written"))
        try goesOn(daemon)
        try thaw()
        #expect(try eventually(within: 10) { try !daemon.must("--op show --mode system").contains("Nothing can be changed") }, daemon.evidence)
        #expect(try change(daemon, 98).succeeded, daemon.evidence)
        #expect(try !daemon.must("--op show --mode target").contains("Target 2:"))
        let records = try trails.records()
        let attempt = try #require(records.of("attempt", "target new").last), outcome = try #require(records.of("outcome", "target new").last)
        #expect(attempt["decision"] == "allowed" && outcome.number("attempt") == attempt.number("sequence") && outcome["result"] == "refused", "\(outcome.line)")
        let next = records.of("attempt", "target update").filter { $0.argument("nop_interval") == "99" }
        #expect(next.count == 5 && next.allSatisfy { $0["decision"] == "refused" && $0["reason"]?.hasPrefix("audit: ") == true }, "\(next.map(\.line))")
        #expect(try trails.run("verify", "--key", keys).succeeded)
    }

    @Test("What is decided while the disk hangs is carried out as things are when it answers: by the policy of then, and on what is configured then", .enabled(if: Mount.mayLoop, "there are no loop devices"))
    func overtaken() throws {
        let wrapper = Mount.wrapper(Mount.ext4, at: "state/audit")
        let it = try Administered(grants: "  - {users: [mail, news], role: tenant-administrator, tenant: red, authenticate: no}\n", wrapper: wrapper)
        let daemon = it.daemon, place = daemon.folder.path("state/audit")
        let trails = trails(daemon, "state/audit")
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded, it.daemon.evidence)
        try daemon.inside("fsfreeze", "--freeze", place)
        var isFrozen = true
        func thaw() throws {
            if isFrozen { try daemon.inside("fsfreeze", "--unfreeze", place) }
            isFrozen = false
        }
        defer { try? thaw() }
        let before = daemon.log
        let asking = [
            try it.start(Administered.mail, "--op delete --mode target --tid 100"), try it.start(Administered.news, Administered.target(101, "red1")),
            try it.start(Administered.news, Administered.target(101, "red2")), try it.start(0, Administered.target(102, "red3")),
        ]
        // All are decided and wait for the disk: nothing is answered, and nobody is being identified any more.
        pause(seconds: 2)
        #expect(eventually(within: 5) { it.checks == 0 } && asking.allSatisfy { $0.poll() == nil }, "\(daemon.log.dropFirst(before.count))")
        try it.rewrite(grants: "  - {users: [news], role: tenant-administrator, tenant: red, authenticate: no}\n")
        daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { daemon.log.contains("the policy has been read again: 2 grants") }, daemon.evidence)
        try thaw()
        let answers = asking.map { $0.wait(seconds: 20) }
        #expect(!answers[0].succeeded && answers[0].output.contains("the policy has changed meanwhile"), "\(answers[0].evidence)")
        #expect([answers[1], answers[2]].count(where: \.succeeded) == 1 && [answers[1], answers[2]].count { $0.output.contains("this target already exists") } == 1, "\(answers[1].evidence) \(answers[2].evidence)")
        #expect(answers[3].succeeded, "\(answers[3].evidence)")
        let shown = try it.tgtadm(0, "--op show --mode target").output
        #expect(shown.contains("Target 100:") && shown.contains("Target 101:") && shown.contains("Target 102:"))
        let records = try trails.records()
        for uid in [8, 9, 9, 0] {
            let attempts = records.of("attempt", uid: uid).filter { $0["decision"] == "allowed" }
            for attempt in attempts { #expect(records.of("outcome", uid: uid).count { $0.number("attempt") == attempt.number("sequence") } == 1, "\(attempt.line)") }
        }
        #expect(records.of("outcome", "target delete", uid: 8).last?["error"]?.contains("the policy has changed") == true)
    }

    // MARK: What the network can cause

    /// Logins to a target that is not there, by many sources.
    private func flood(_ daemon: Daemon, _ count: Int, sources: Int) throws {
        for number in 0..<count {
            let initiator = try Initiator(port: daemon.port, source: UInt8(1 + number % sources))
            #expect(initiator.login(target: Daemon.iqn("nowhere"), name: "iqn.2026-11.org.example:\(String(repeating: "n", count: 150))") == 0x0203)
            initiator.wire.reset()
        }
    }

    @Test("Thousands of failing logins stay within their quota, are counted without one missing, and hide nothing else; the administrator notices nothing")
    func quota() throws {
        let daemon = try daemon("mount -t tmpfs -o size=64m,mode=700 none $place", "  network-quota: 512KiB\\n")
        let trails = trails(daemon)
        let management = try trails.records().count
        // One source first, whose every failure but ten is counted; then as many as there may be.
        try flood(daemon, 1500, sources: 1)
        try flood(daemon, 3000, sources: 250)
        // In the midst of it somebody logs in.
        _ = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        #expect(try eventually(within: 10) { try !trails.records("network", "--kind", "loginAccepted").isEmpty }, daemon.evidence)
        let asked = ContinuousClock.now
        #expect(try change(daemon, 5).succeeded)
        #expect(ContinuousClock.now - asked < .seconds(3))
        #expect(try trails.records().count == management + 2)
        let directory = trails.directory
        func bytes() throws -> Int {
            try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.hasPrefix("network-") }.reduce(0) { sum, name in
                var info = stat()
                guard unsafe stat("\(directory)/\(name)", &info) == 0 else { throw Failure(name) }
                return sum + Int(info.st_blocks) * 512
            }
        }
        let taken = try bytes()
        #expect(taken <= 512 << 10, "\(taken)")
        // The windows end after a minute, and with tgtd; the first hour's records are gone by then, what was counted is not.
        let kept = try trails.records("network").events("loginRefused").count
        let removed = try trails.records("network").contains { $0["kind"] == "removed" }
        #expect(removed)
        let keep = daemon.folder.path("kept")
        let copier = try Running(["nsenter", "--mount", "--target", "\(daemon.process.pid)", "sh", "-c", "while kill -0 \(daemon.process.pid) 2>/dev/null; do sleep 0.05; done; cp -a \(daemon.folder.path("audit/trails")) \(keep)"], folder: daemon.folder)
        #expect(daemon.stop().succeeded)
        #expect(copier.wait(seconds: 10).succeeded)
        let records = try Trails(daemon, keep).records("network")
        let counted = records.filter { $0["kind"] == "suppressed" && $0["event"] == "loginRefused" }
        let recorded = 1000
        let sum = counted.reduce(0) { $0 + ($1.number("count") ?? 0) }
        print("4,500 failing logins: \(kept) of \(recorded) records still there, \(sum) counted in \(counted.count) records, \(taken) bytes")
        #expect(sum + recorded == 4500, "\(sum)")
        #expect(counted.first { $0["source"] == "127.0.0.1" }?.number("count") ?? 0 >= 1490)
    }

    @Test("A disk that is nearly full is not filled by the network: its trail says so and is counted, and changes are recorded and made")
    func leavesRoom() throws {
        let daemon = try daemon("mount -t tmpfs -o size=16m,mode=700 none $place")
        let trails = trails(daemon)
        // Less than a quarter is left.
        try daemon.inside("sh", "-c", "head -c $((12 << 20)) /dev/zero > \(daemon.folder.path("audit/filler"))")
        try flood(daemon, 300, sources: 100)
        #expect(try eventually(within: 10) { try daemon.must("--op show --mode system").contains("network-trouble=") }, daemon.evidence)
        let system = try daemon.must("--op show --mode system")
        #expect(system.contains("is for others") && !system.contains("Nothing can be changed") && !system.contains("\n    trouble="), "\(system)")
        for value in 1...30 { #expect(try change(daemon, value).succeeded, daemon.evidence) }
        #expect(try trails.records().of("outcome", "target update").count >= 30)
        try daemon.inside("rm", daemon.folder.path("audit/filler"))
        #expect(try eventually(within: 10) { try !daemon.must("--op show --mode system").contains("network-trouble=") }, daemon.evidence)
        #expect(try trails.records("network").contains { $0["kind"] == "unrecorded" && $0.number("count") ?? 0 > 0 })
    }

    // MARK: The second sink

    @Test("With system-log every record goes to syslog too, as it stands in the trail, and a syslog that takes nothing keeps nobody")
    func systemLog() throws {
        // A /dev of its own with a syslog that takes down what it is told, until it is stopped.
        let script = "import os, socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('/dev/log'); open(sys.argv[1] + '/ready', 'w'); f = open(sys.argv[1] + '/syslog', 'wb', 0)\nwhile True: f.write(s.recv(65536) + b'\\n')"
        let wrapper = Mount.wrapper(
            """
            mount -t tmpfs -o mode=755 none $place && for node in null zero full random urandom tty; do touch $place/$node && mount --bind /dev/$node $place/$node; done \
            && mkdir $place/shm $place/pts && mount --move $place /dev 2>/dev/null || mount --rbind $place /dev; \
            python3 -c "$SYSLOG" $folder & echo $! > $folder/syslog.pid; while ! test -e $folder/ready; do sleep 0.05; done; true
            """, at: "dev")
        let apart = try Folder(), settings = try apart.settings("audit:\n  system-log: yes\n")
        let daemon = try Daemon(options: ["--config", settings], wrapper: ["env", "SYSLOG=\(script)"] + wrapper)
        let trails = Trails(daemon), syslog = daemon.folder.path("syslog")
        try daemon.addTarget()
        let lines = try trails.records().map(\.line)
        func told() -> [String] {
            daemon.folder.text(of: syslog).split(separator: "\n").compactMap { line in line.range(of: " management {").map { "{" + String(line[$0.upperBound...]) } }
        }
        #expect(eventually(within: 10) { Set(lines).isSubset(of: Set(told())) }, "\(told().count) of \(lines.count)\n\(daemon.folder.text(of: syslog).prefix(3000))")
        let first = try #require(daemon.folder.text(of: syslog).split(separator: "\n").first { $0.contains("management {") })
        #expect(first.hasPrefix("<") && first.contains("tgtd"), "\(first)")
        // It hangs: its socket is full soon.
        let pid = try #require(pid_t(daemon.folder.text(of: daemon.folder.path("syslog.pid")).trimmingCharacters(in: .whitespacesAndNewlines)))
        _ = kill(pid, SIGSTOP)
        for value in 1...60 {
            let asked = ContinuousClock.now
            #expect(try change(daemon, value).succeeded)
            #expect(ContinuousClock.now - asked < .seconds(3))
        }
        _ = kill(pid, SIGCONT)
        let all = try trails.records().map(\.line)
        #expect(eventually(within: 10) { Set(all).isSubset(of: Set(told())) }, "\(told().count) of \(all.count)")
        _ = kill(pid, SIGKILL)
    }
}
