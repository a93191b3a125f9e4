import Foundation
import Glibc
import Testing

/// What was configured survives: a stop, a kill -9, a full disk, one that hangs.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct StateTests {
    /// What a test compares before and after: everything that can be shown of what is configured.
    private func shown(_ daemon: Daemon) throws -> [String] {
        try ["system", "target", "account", "portal"].map { try daemon.must("--op show --mode \($0)") }
            + [try daemon.must("--json --op show --mode target")]
    }

    private func crash(_ daemon: Daemon) throws {
        daemon.process.signal(SIGKILL)
        daemon.process.wait(seconds: 5)
        try daemon.restart()
    }

    private func file(_ daemon: Daemon, _ name: String = "state.json") -> String { daemon.folder.path("state/\(name)") }
    private func read(_ path: String) -> [UInt8]? { FileManager.default.contents(atPath: path).map { [UInt8]($0) } }
    private func mode(_ path: String) -> mode_t {
        var info = stat()
        return unsafe lstat(path, &info) == 0 ? info.st_mode & 0o777 : 0o7777
    }

    /// Starts a stopped daemon, which has to refuse; returns what it says.
    private func refusal(_ daemon: Daemon) throws -> String {
        let finished = try daemon.launchRival().wait(seconds: 10)
        #expect(finished.ending == .exited(1), "\(finished.evidence)")
        return finished.output
    }

    @Test("Everything that was configured is there after kill -9, and is served", arguments: [SIGKILL, SIGTERM])
    func everything(signal: Int32) throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        try QemuIO(daemon).check("write -P 0x5c 1M 1M")
        let other = try Ports.next()
        _ = try daemon.folder.write("a secret that is long", to: "secret")
        _ = try daemon.folder.write("another secret, long too", to: "secret2")
        try daemon.addTarget(7, name: "Seven")
        try daemon.addDisk(tid: 7, lun: 3, file: daemon.folder.sparseFile("seven", size: 8 << 20), settings: "", blockSize: 4096, more: "--bsoflags sync")
        for line in [
            "--op update --mode logicalunit --tid 7 --lun 3 --params scsi_id=ID,scsi_sn=SN,vendor_id=V,product_id=P,product_rev=R,thin_provisioning=1,rotation_rate=7200,lbppbe=3",
            "--op update --mode logicalunit --tid 7 --lun 3 --params online=0",
            "--op update --mode target --tid 7 --name MaxBurstLength --value 524288",
            "--op update --mode target --tid 7 --name nop_interval --value 33",
            "--op update --mode target --tid 7 --name RequireMutualCHAP --value Yes",
            "--op update --mode target --tid 7 --name state --value offline",
            "--op bind --mode target --tid 7 -I 192.0.2.0/24",
            "--op bind --mode target --tid 7 -Q iqn.2026-11.org.example:Web-* --luns 0,3:ro",
            "--op new --mode account --user zoe --password-file \(daemon.folder.path("secret"))",
            "--op new --mode account --user adam --password-file \(daemon.folder.path("secret2"))",
            "--op update --mode account --user zoe --add-secret --password-file \(daemon.folder.path("secret2"))",
            "--op update --mode account --user zoe --retire-secret new",
            "--op bind --mode account --tid 7 --user zoe",
            "--op bind --mode account --tid 7 --user adam --outgoing",
            "--op bind --mode account --user adam",
            "--op new --mode portal --params portal=127.0.0.1:\(other)",
            "--op update --mode system --name State --value offline",
        ] { try daemon.must(line) }
        let before = try shown(daemon)
        let identity = try daemon.must("--json --op show --mode target --tid 7")
        daemon.process.signal(signal)
        daemon.process.wait(seconds: 10)
        try daemon.restart()
        #expect(try shown(daemon) == before)
        #expect(try daemon.must("--json --op show --mode target --tid 7") == identity)
        try daemon.must("--op update --mode system --name State --value ready")
        // Once more, from what the restarted one has written.
        let again = try shown(daemon)
        try QemuIO(daemon).check("read -P 0x5c 1M 1M", "read -P 0 0 1M")
        _ = try Wire(port: other)
        try crash(daemon)
        #expect(try shown(daemon) == again)
    }

    @Test("The directory and what is in it are for us alone, ten predecessors stay, no secret stands in any of it")
    func files() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        _ = try daemon.folder.write("planted-secret-in-the-state", to: "secret")
        try daemon.must("--op new --mode account --user u --password-file \(daemon.folder.path("secret"))")
        // What is whole is written again by the first change after a start.
        for round in 0..<12 {
            try daemon.must("--op update --mode target --tid 1 --name nop_interval --value \(round + 1)")
            #expect(daemon.stop().succeeded)
            try daemon.restart()
        }
        #expect(mode(daemon.folder.path("state")) == 0o700)
        let names = try FileManager.default.contentsOfDirectory(atPath: daemon.folder.path("state")).sorted()
        #expect(names.count { $0.hasPrefix("state.json.") } == 10, "\(names)")
        #expect(!names.contains { $0.hasSuffix(".new") }, "\(names)")
        #expect(mode(file(daemon, "audit")) == 0o700)
        let trails = try FileManager.default.contentsOfDirectory(atPath: file(daemon, "audit")).map { "audit/\($0)" }
        for name in names + trails where name != "lock" && name != "audit" {
            #expect(mode(file(daemon, name)) == 0o600, "\(name)")
            let bytes = try #require(read(file(daemon, name)))
            #expect(!String(decoding: bytes, as: UTF8.self).contains("planted-secret"), "\(name)")
        }
        // A predecessor can take its successor's place.
        let latest = try #require(names.compactMap { $0.hasPrefix("state.json.") ? Int($0.dropFirst(11)) : nil }.max())
        #expect(daemon.stop().succeeded)
        try FileManager.default.removeItem(atPath: file(daemon))
        try FileManager.default.copyItem(atPath: file(daemon, "state.json.\(latest)"), toPath: file(daemon))
        _ = unsafe chmod(file(daemon), 0o600)
        try daemon.restart()
        #expect(try daemon.must("--json --op show --mode target").contains("\"nopInterval\":11"))
    }

    @Test("A state that is torn, edited, foreign, newer or too open, or has another key, keeps it from starting and says why")
    func refusals() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        let before = try shown(daemon)
        #expect(daemon.stop().succeeded)
        let good = try #require(read(file(daemon)))
        let key = try #require(read(file(daemon, "key")))
        func write(_ bytes: [UInt8], _ name: String = "state.json") throws { try Data(bytes).write(to: URL(fileURLWithPath: file(daemon, name))) }

        let edited = Array(String(decoding: good, as: UTF8.self).replacing(":disk\"", with: ":evil\"").utf8)
        #expect(edited != good)
        let lines = good.split(separator: UInt8(ascii: "\n"))
        #expect(lines.count > 2, "changes have records of their own")
        let last = try #require(lines.last), damaged = Array(good.dropLast(last.count / 2)) + last.suffix(last.count / 2) + [UInt8(ascii: "\n")]
        for (bytes, words) in [
            (Array(good.prefix(100)), "torn"), (edited, "changed"), ([], "no state of tgtd"), (Array("targets: []\n".utf8), "no state of tgtd"),
            (Array(#"{"portcullisState":3,"sequence":1}"#.utf8), "newer"), (damaged, "change \(lines.count - 1) in it is torn"),
            (lines[0] + [UInt8(ascii: "\n")] + last + [UInt8(ascii: "\n")], "change 1 in it is torn"),
        ] {
            try write(bytes)
            #expect(try refusal(daemon).contains(words))
        }
        try write(good)
        _ = unsafe chmod(file(daemon), 0o640)
        #expect(try refusal(daemon).contains("chmod 600"))
        _ = unsafe chmod(file(daemon), 0o600)
        _ = unsafe chmod(file(daemon, "key"), 0o644)
        #expect(try refusal(daemon).contains("chmod 600"))
        _ = unsafe chmod(file(daemon, "key"), 0o600)
        if geteuid() == 0 {
            _ = unsafe chown(file(daemon), 12345, 12345)
            #expect(try refusal(daemon).contains("belongs to uid 12345"))
            _ = unsafe chown(file(daemon), 0, 0)
        }
        try write(Array(String(repeating: "0", count: 64).utf8), "key")
        #expect(try refusal(daemon).contains("another key"))
        try write(Array("no key".utf8), "key")
        #expect(try refusal(daemon).contains("this is no key"))
        try FileManager.default.removeItem(atPath: file(daemon, "key"))
        #expect(try refusal(daemon).contains("is gone"))
        #expect(read(file(daemon, "key")) == nil, "it has made another key")
        try write(key, "key")
        _ = unsafe chmod(file(daemon, "key"), 0o600)
        #expect(read(file(daemon)) == good, "a refusal has changed the state")
        try daemon.restart()
        #expect(try shown(daemon) == before)
    }

    @Test("The beginning of a change at the end, as a crash leaves it, is left out, and the log says so; all before it is there")
    func torn() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 1")
        let before = try shown(daemon)
        let kept = try #require(read(file(daemon)))
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 2")
        let length = try #require(read(file(daemon))).count
        for cut in [kept.count, kept.count + 1, (kept.count + length) / 2, length - 1] {
            daemon.process.signal(SIGKILL)
            daemon.process.wait(seconds: 5)
            #expect(unsafe truncate(file(daemon), cut) == 0)
            try daemon.restart()
            #expect(try shown(daemon) == before, "cut at \(cut)")
            #expect(daemon.log.contains("the last change was being written") == (cut > kept.count), daemon.evidence)
        }
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 3")
        let after = try shown(daemon)
        try crash(daemon)
        #expect(try shown(daemon) == after && after != before)
    }

    @Test("What a change costs does not grow with what there is")
    func cost() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        func add(_ luns: ClosedRange<Int>) throws {
            let lines = luns.map { "--op new --mode logicalunit --tid 1 --lun \($0) --bstype null --backing-store x\n" }
            let path = try daemon.folder.write(lines.joined(), to: "units")
            guard try daemon.admin(["--transaction", path], seconds: 60).succeeded else { throw Failure(daemon.log) }
        }
        /// Milliseconds, the median of so many changes; and the bytes that one takes.
        func change() throws -> (milliseconds: Double, bytes: Int) {
            // What the first one writes is the whole.
            try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params product_rev=0")
            let length = try #require(read(file(daemon))).count
            let rounds = 41
            let times = try (1...rounds).map { round in
                let start = ContinuousClock.now
                try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params product_rev=\(round % 10)")
                return Double((ContinuousClock.now - start).components.attoseconds) / 1e15
            }
            return (times.sorted()[rounds / 2], (try #require(read(file(daemon))).count - length) / rounds)
        }
        try add(1...10)
        let few = try change()
        try add(11...10_000)
        let many = try change()
        print(String(format: "one change: %.1f ms and %d bytes with 10 units, %.1f ms and %d bytes with 10000", few.milliseconds, few.bytes, many.milliseconds, many.bytes))
        #expect(few.bytes == many.bytes && many.bytes < 1000)
        // All of it takes ten times as long.
        #expect(many.milliseconds < few.milliseconds * 4)
        let before = try daemon.must("--op show --mode target")
        try crash(daemon)
        #expect(try daemon.must("--op show --mode target") == before)
    }

    @Test("Two daemons with other sockets do not share a directory")
    func locked() throws {
        let daemon = try Daemon.serving(size: 1 << 20)
        let folder = try Folder()
        let rival = try run(
            Subject.tgtd, "-f", "--iscsi", "portal=127.0.0.1:\(try Ports.next())", "--state", daemon.folder.path("state"),
            environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder, seconds: 10)
        #expect(rival.ending == .exited(1) && rival.output.contains("another tgtd is using"), "\(rival.evidence)")
    }

    @Test("With --state none, and with a socket of its own and no --state, nothing is kept", arguments: [["--state", "none"], []])
    func forgets(words: [String]) throws {
        let folder = try Folder()
        for _ in 0..<2 {
            let port = try Ports.next()
            let daemon = try Running(
                [Subject.tgtd, "-f", "-C", "7", "--iscsi", "portal=127.0.0.1:\(port)"] + words, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
            func admin(_ words: String) throws -> Finished {
                try Running(
                    [Subject.tgtadm, "-C", "7"] + words.split(separator: " ").map(String.init), environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder
                ).wait(seconds: 10)
            }
            #expect(try eventually(within: 10) { try admin("--op show --mode system").succeeded }, "\(daemon.output)")
            // The second one does not know the target of the first.
            #expect(try admin("--op new --mode target --tid 1 -T iqn.2026-11.org.example:gone").succeeded, "\(daemon.output)")
            daemon.signal(SIGTERM)
            #expect(daemon.wait(seconds: 10).succeeded)
        }
    }

    @Test("The key can come as a systemd credential; then none lies beside the state, and without it nothing starts")
    func credential() throws {
        let folder = try Folder()
        try FileManager.default.createDirectory(atPath: folder.path("credentials"), withIntermediateDirectories: true)
        _ = unsafe chmod(try folder.write(String(repeating: "5a", count: 32) + "\n", to: "credentials/tgt-state-key"), 0o400)
        func launch(_ environment: [String: String]) throws -> Running {
            try Running(
                [Subject.tgtd, "-f", "-C", "7", "--iscsi", "portal=127.0.0.1:\(try Ports.next())", "--state", folder.path("state")],
                environment: ["TGT_IPC_SOCKET": folder.path("socket")].merging(environment) { $1 }, folder: folder)
        }
        let daemon = try launch(["CREDENTIALS_DIRECTORY": folder.path("credentials")])
        #expect(eventually(within: 10) { daemon.output.contains("is ready") }, "\(daemon.output)")
        let change = try Running(
            [Subject.tgtadm, "-C", "7", "--op", "new", "--mode", "target", "--tid", "1", "-T", "iqn.2026-11.org.example:a"],
            environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder
        ).wait(seconds: 10)
        #expect(change.succeeded, "\(change.evidence)")
        daemon.signal(SIGTERM)
        #expect(daemon.wait(seconds: 10).succeeded)
        #expect(!FileManager.default.fileExists(atPath: folder.path("state/key")))
        let without = try launch([:]).wait(seconds: 10)
        #expect(without.ending == .exited(1) && without.output.contains("is gone"), "\(without.evidence)")
    }

    @Test("A store that cannot be opened any more leaves its logical unit configured and not served, until it is back")
    func storeGone() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("second", size: 16 << 20), settings: "")
        let before = try shown(daemon)
        let (disk, away) = (daemon.folder.path("second"), daemon.folder.path("away"))
        #expect(daemon.stop().succeeded)
        try FileManager.default.moveItem(atPath: disk, toPath: away)
        try daemon.restart()
        #expect(daemon.log.contains("logical unit 2 of target 1 is not served"), daemon.evidence)
        let report = try daemon.must("--op show --mode target")
        #expect(report.contains(disk) && report.contains("Online: No"), "\(report)")
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        // It is not lost by what is changed meanwhile.
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 1")
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 0")
        try FileManager.default.moveItem(atPath: away, toPath: disk)
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 2 --params online=1")
        #expect(try shown(daemon) == before)
        try FileManager.default.moveItem(atPath: disk, toPath: away)
        try crash(daemon)
        #expect(daemon.stop().succeeded)
        try FileManager.default.moveItem(atPath: away, toPath: disk)
        try daemon.restart()
        #expect(try shown(daemon) == before)
    }

    @Test("kill -9 in the midst of changes leaves the state before or after the one under way")
    func killedWhileChanging() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let (kills, changes) = Subject.soaks ? (40, 1000) : (10, 300)
        var value = 0, made = 0, unanswered = 0
        for round in 0..<kills {
            // Each change counts one up; each kill falls at another moment of one: every fourth at that of the first, which writes the whole.
            var next = value
            let before = round % 4 == 3 ? 0 : changes * 4 / (kills * 3) - 1
            made += before + 1
            for _ in 0..<before {
                next += 1
                try daemon.must("--op update --mode target --tid 1 --name nop_interval --value \(next)")
            }
            let last = try daemon.startAdmin(["--op", "update", "--mode", "target", "--tid", "1", "--name", "nop_interval", "--value", "\(next + 1)"])
            pause(seconds: Double(round % 8) * 0.002)
            daemon.process.signal(SIGKILL)
            let isAnswered = last.wait(seconds: 10).succeeded
            if !isAnswered { unanswered += 1 }
            daemon.process.wait(seconds: 5)
            try daemon.restart()
            let shown = try daemon.must("--json --op show --mode target --tid 1")
            let found = try #require(shown.firstMatch(of: /"nopInterval":([0-9]+)/).flatMap { Int($0.1) }, "\(shown)")
            #expect(found == next + 1 || found == next && !isAnswered, "round \(round): \(found) after \(next), the one under way \(isAnswered ? "" : "not ")answered")
            value = found
        }
        print("\(made) changes, \(kills) kills, \(unanswered) of them in the midst of a change, nothing lost that was answered")
    }

    @Test("When nothing can be written a change says that it is not kept, further ones are refused, and all goes on when it can again")
    func fullDisk() throws {
        let apart = try Folder()
        let daemon = try Daemon.serving(size: 1 << 20, options: Self.auditElsewhere(apart))
        // A file of the state may have no byte more than it has now.
        let limit = try #require(read(file(daemon))).count + 8
        func limitFiles(_ bytes: String) throws {
            let finished = try run("prlimit", "--pid", "\(daemon.process.pid)", "--fsize=\(bytes)", folder: daemon.folder)
            guard finished.succeeded else { throw Failure(finished.evidence) }
        }
        try limitFiles("\(limit):")
        let first = try daemon.admin("--op new --mode target --tid 2 -T iqn.2026-11.org.example:two".split(separator: " ").map(String.init))
        #expect(!first.succeeded && first.output.contains("in effect, but it is not kept"), "\(first.evidence)")
        #expect(try daemon.must("--op show --mode target").contains("example:two"))
        let second = try daemon.admin("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three".split(separator: " ").map(String.init))
        #expect(!second.succeeded && second.output.contains("nothing is changed"), "\(second.evidence)")
        let transaction = try daemon.folder.write("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three\n", to: "changes")
        #expect(try !daemon.admin(["--transaction", transaction]).succeeded)
        #expect(try !daemon.must("--op show --mode target").contains("example:three"))
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        #expect(try !FileManager.default.contentsOfDirectory(atPath: daemon.folder.path("state")).contains { $0.hasSuffix(".new") })
        try limitFiles("unlimited:")
        #expect(eventually(within: 5) { daemon.log.contains("is kept again") }, daemon.evidence)
        try daemon.must("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three")
        let before = try shown(daemon)
        try crash(daemon)
        #expect(try shown(daemon) == before)
        #expect(before[1].contains("example:two") && before[1].contains("example:three"))
    }

    // MARK: A disk of the state's own

    /// What keeps the audit trail out of the way of a test about the state: it is elsewhere, and nothing waits for it.
    static func auditElsewhere(_ folder: Folder) throws -> [String] {
        let settings = folder.path("tgtd.yaml")
        try Data("audit:\n  directory: \(folder.path("audit"))\n  on-failure: continue\n".utf8).write(to: URL(fileURLWithPath: settings))
        _ = unsafe chmod(settings, 0o600)
        return ["--config", settings]
    }

    /// In a mount namespace of its own: what `mount` says is at $state.
    private static func mounting(_ mount: String) -> [String] {
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "folder=$(dirname \"$TGT_IPC_SOCKET\"); state=$folder/state; mkdir -p -m 700 $state && \(mount) && exec \"$@\"", "sh"]
    }

    /// In the daemon's mount namespace.
    @discardableResult
    private func inside(_ daemon: Daemon, _ words: String...) throws -> Finished {
        try Running(["nsenter", "--mount", "--target", "\(daemon.process.pid)"] + words, folder: daemon.folder).wait(seconds: 30)
    }

    private static let mayMount = unsafe geteuid() == 0 && access("/dev/loop-control", F_OK) == 0

    @Test("With no room left a change is not kept and the next ones are refused; with room again all goes on", .enabled(if: geteuid() == 0, "only root mounts"))
    func noRoom() throws {
        let apart = try Folder()
        let daemon = try Daemon.serving(size: 1 << 20, options: Self.auditElsewhere(apart), wrapper: Self.mounting("mount -t tmpfs -o size=256k,mode=700 none $state"))
        let state = daemon.folder.path("state")
        // All but what is left of a page or two.
        try inside(daemon, "sh", "-c", "cat /dev/zero > \(state)/filler || true")
        var kept = 0
        var refused: Finished?
        while refused == nil, kept < 200 {
            let finished = try daemon.admin("--op update --mode target --tid 1 --name nop_interval --value \(kept + 1)".split(separator: " ").map(String.init))
            if finished.succeeded { kept += 1 } else { refused = finished }
        }
        let first = try #require(refused, "200 changes have found room")
        #expect(first.output.contains("in effect, but it is not kept") && first.output.contains("No space left"), "\(first.evidence)")
        let second = try daemon.admin("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three".split(separator: " ").map(String.init))
        #expect(!second.succeeded && second.output.contains("nothing is changed"), "\(second.evidence)")
        #expect(try daemon.must("--op show --mode system").contains("Nothing can be changed: "))
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        try inside(daemon, "rm", "\(state)/filler")
        #expect(eventually(within: 5) { daemon.log.contains("is kept again") }, daemon.evidence)
        try daemon.must("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three")
        let before = try shown(daemon)
        #expect(before[1].contains("example:three") && !before[0].contains("Nothing can be changed"))
    }

    @Test(
        "A disk that hangs stops neither I/O nor show: the change is answered in time, further ones at once; when it answers again all goes on and is kept",
        .enabled(if: mayMount, "only root mounts"))
    func hang() throws {
        let apart = try Folder()
        let daemon = try Daemon.serving(size: 1 << 20, options: Self.auditElsewhere(apart), wrapper: Self.mounting("{ test -e $folder/image || { truncate -s 8M $folder/image && mke2fs -q -t ext4 $folder/image; }; } && mount -o loop $folder/image $state"))
        let state = daemon.folder.path("state")
        try inside(daemon, "fsfreeze", "--freeze", state)
        var isFrozen = true
        func thaw() throws {
            if isFrozen { try inside(daemon, "fsfreeze", "--unfreeze", state) }
            isFrozen = false
        }
        defer { try? thaw() }
        func words(_ line: String) -> [String] { line.split(separator: " ").map(String.init) }
        let start = ContinuousClock.now
        let first = try daemon.startAdmin(words("--op new --mode target --tid 2 -T iqn.2026-11.org.example:two"))
        #expect(try eventually(within: 2) { try daemon.must("--op show --mode target").contains("example:two") })
        // Nobody waits with it.
        for _ in 0..<20 {
            let asked = ContinuousClock.now
            try daemon.must("--op show --mode target")
            try QemuIO(daemon).check("write -P 0x77 0 4k", "read -P 0x77 0 4k")
            #expect(ContinuousClock.now - asked < .seconds(3))
        }
        let finished = first.wait(seconds: 20)
        #expect(!finished.succeeded && finished.output.contains("in effect, but nobody knows whether it would survive a restart"), "\(finished.evidence)")
        #expect(ContinuousClock.now - start < .seconds(15))
        let asked = ContinuousClock.now
        let second = try daemon.admin(words("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three"))
        #expect(!second.succeeded && second.output.contains("nothing is changed") && ContinuousClock.now - asked < .seconds(2), "\(second.evidence)")
        #expect(try daemon.must("--op show --mode system").contains("Nothing can be changed: "))
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        try thaw()
        #expect(eventually(within: 5) { daemon.log.contains("is kept again") }, daemon.evidence)
        try daemon.must("--op new --mode target --tid 3 -T iqn.2026-11.org.example:three")
        let before = try shown(daemon)
        try crash(daemon)
        #expect(try shown(daemon) == before && before[1].contains("example:two") && before[1].contains("example:three"))
    }
}
