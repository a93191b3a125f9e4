import Foundation
import Glibc
import Testing

/// What only our own management protocol carries: transactions and JSON.
@Suite(.enabled(if: Subject.isPortcullis)) struct ProtocolTests {
    /// `tgtadm --transaction` with these lines in a file.
    static func transact(_ daemon: Daemon, _ lines: [String], _ more: [String] = []) throws -> Finished {
        let file = try daemon.folder.write(lines.joined(separator: "\n") + "\n", to: "lines.\(UInt64.random(in: 0 ... .max))")
        return try daemon.admin(["--transaction", file] + more, seconds: 120)
    }

    /// The report of all targets.
    static func targets(_ daemon: Daemon) throws -> [[String: Any]] {
        let text = try daemon.must("--op show --mode target --json")
        return try #require((try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])?["targets"] as? [[String: Any]])
    }

    static func descriptors(of pid: pid_t) -> Int { ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd")) ?? []).count }

    @Test("A transaction builds targets that serve, and the next one takes them away")
    func build() throws {
        let daemon = try Daemon()
        let folder = daemon.folder
        let files = try (1...4).map { try folder.sparseFile("disk \($0)", size: 8 << 20) }
        var lines = ["# two targets", "--op new --mode account --user u --password 'p w of twelve'"]
        for tid in 1...2 {
            lines.append("tgtadm --lld iscsi --op new --mode target --tid \(tid) -T \(Daemon.iqn("t\(tid)"))")
            for lun in 1...2 { lines.append("--op new --mode logicalunit --tid \(tid) --lun \(lun) --backing-store \"\(files[2 * tid + lun - 3])\"") }
            lines += ["", "--op bind --mode target --tid \(tid) -I ALL", "--op update --mode lu --tid \(tid) --lun 1 --params thin_provisioning=1,product_id=MINE"]
        }
        let built = try Self.transact(daemon, lines)
        #expect(built.succeeded && built.output.isEmpty, "\(built.evidence)")
        for tid in 1...2 { try must("iscsi-inq", daemon.url("t\(tid)", lun: 2), folder: folder) }
        let target = try #require(try Self.targets(daemon).last)
        let units = try #require(target["logicalUnits"] as? [[String: Any]])
        #expect(units.map { $0["size"] as? Int } == [0, 8 << 20, 8 << 20] && units[1]["product"] as? String == "MINE")
        #expect((units[2]["backingStore"] as? [String: Any])?["path"] as? String == files[3])

        // It is one change: with a session, none of it is done without --force.
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("t2"))
        let active = try Self.transact(daemon, ["--op delete --mode target --tid 1", "--op delete --mode target --tid 2"])
        #expect(active.ending == .exited(22) && active.output.contains(":2: this target is still active\n"), "\(active.evidence)")
        try must("iscsi-inq", daemon.url("t1"), folder: folder)
        let gone = try Self.transact(daemon, ["--op delete --mode target --tid 1", "--op delete --mode target --tid 2 --force"], ["--json"])
        #expect(gone.succeeded && gone.output == "{\"schemaVersion\":1,\"transaction\":{\"requests\":2}}\n", "\(gone.evidence)")
        #expect(try daemon.must("--op show --mode target").isEmpty)
        #expect(initiator.wire.closes(within: 5), "the session outlives its target")
    }

    @Test("What a transaction has withdrawn serves again when something else cannot be withdrawn")
    func rollBack() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("second", size: 8 << 20))
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        for lun in 1...2 { try initiator.settle(lun: lun) }
        let block = [UInt8](repeating: 0x5a, count: 512), write: [UInt8] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]
        #expect(try initiator.perform(cdb: write, lun: 1, write: block).status == 0)
        // A write whose data never come: it is under way.
        initiator.wire.send(initiator.command(cdb: write, lun: 2, write: 512).bytes)
        #expect(initiator.receive() != nil, "no R2T")
        let before = try daemon.must("--op show --mode target")
        let open = Self.descriptors(of: daemon.process.pid)
        for _ in 0..<3 {
            let refused = try Self.transact(daemon, ["--op delete --mode lu --tid 1 --lun 1", "--op delete --mode lu --tid 1 --lun 2"])
            #expect(refused.ending == .exited(22) && refused.output.contains("still active") && daemon.log.contains("logical unit 2 of target 1"), "\(refused.evidence)")
            #expect(try daemon.must("--op show --mode target") == before)
        }
        let other = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: 2)
        try other.settle(lun: 1)
        #expect(try other.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], lun: 1, read: 512).data == block, daemon.evidence)
        #expect(eventually(within: 2) { Self.descriptors(of: daemon.process.pid) <= open + 2 }, "descriptors stay open")
    }

    @Test("A transaction of which anything fails changes nothing and leaves nothing open")
    func nothing() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let files = try (1...12).map { try daemon.folder.sparseFile("other\($0)", size: 1 << 20) }
        let before = try daemon.must("--op show --mode target")
        let open = Self.descriptors(of: daemon.process.pid)
        let port = try Ports.next()
        let start = ["--op new --mode target --tid 2 -T \(Daemon.iqn("two"))", "--op new --mode portal --params portal=127.0.0.1:\(port)", "--op delete --mode lu --tid 1 --lun 1"]
            + files.enumerated().map { "--op new --mode lu --tid 2 --lun \($0 + 1) -b \($1)" }
        for (line, words) in [
            ("--op new --mode lu --tid 2 --lun 50 -b /nowhere/disk", "invalid request"), ("--op new --mode target --tid 1 -T iqn.x", "this target already exists"),
            ("--op new --mode lu --tid 1 --lun 2 -b /tmp", "invalid request"), ("--op unbind --mode target --tid 1 -I 1.2.3.4", "this access control rule does not exist"),
            ("--op new --mode portal --params portal=127.0.0.1:\(daemon.port)", "invalid request"), ("--op show --mode target", "invalid request"),
            ("--op nonsense --mode target", "unknown operation: nonsense"), ("--op new --mode target --tid 3", "creating new target requires a name, use --targetname"),
            ("--op new --mode target --tid 3 -T 'iqn.x", "an apostrophe has no second one"), ("--nonsense", "unrecognized option '--nonsense'"),
        ] {
            let refused = try Self.transact(daemon, start + [line, "--op new --mode target --tid 4 -T iqn.four"])
            #expect(refused.ending == .exited(22) && refused.output.contains(":\(start.count + 1): \(words)\n"), "\(refused.evidence)")
            #expect(try daemon.must("--op show --mode target") == before)
        }
        #expect(eventually(within: 5) { Self.descriptors(of: daemon.process.pid) == open }, "\(Self.descriptors(of: daemon.process.pid)) descriptors, not \(open)")
        #expect(Wire.isFree(port: port))
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        let missing = try daemon.admin(["--transaction", "/nowhere/lines"])
        #expect(missing.ending == .exited(22) && missing.output.contains("/nowhere/lines: No such file or directory"), "\(missing.evidence)")
    }

    @Test("What is deleted and made again in one transaction is another disk at the same place")
    func recreate() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        let other = try daemon.folder.sparseFile("other", size: 16 << 20)
        let unit = try Self.transact(daemon, ["--op delete --mode lu --tid 1 --lun 1", "--op new --mode lu --tid 1 --lun 1 -b \(other)"])
        #expect(unit.succeeded, "\(unit.evidence)")
        #expect(try must("iscsi-readcapacity16", daemon.url(), folder: daemon.folder).contains("\(16 << 20)"))
        #expect(!initiator.wire.isClosedNow())
        let target = try Self.transact(daemon, [
            "--op delete --mode target --tid 1 --force", "--op new --mode target --tid 1 -T \(Daemon.iqn("again"))",
            "--op new --mode lu --tid 1 --lun 1 -b \(daemon.folder.path("disk"))", "--op bind --mode target --tid 1 -I ALL",
        ])
        #expect(target.succeeded, "\(target.evidence)")
        #expect(try must("iscsi-readcapacity16", daemon.url("again"), folder: daemon.folder).contains("\(8 << 20)"))
        #expect(initiator.wire.closes(within: 5), "the session outlives its target")
        // What has been made in a transaction is there when the data process starts again.
        let data = try #require(daemon.child(role: "data"))
        kill(data, SIGKILL)
        #expect(try eventually(within: 10) { try run("iscsi-inq", daemon.url("again"), folder: daemon.folder).succeeded })
    }

    @Test("Ten thousand targets with ten disks each are one transaction, and the data process starts again with them", .timeLimit(.minutes(5)))
    func thousands() throws {
        let count = 10_000
        let daemon = try Daemon()
        var lines: [String] = []
        for tid in 1...count {
            lines.append("--op new --mode target --tid \(tid) -T \(Daemon.iqn("t\(tid)"))")
            for lun in 1...10 { lines.append("--op new --mode lu --tid \(tid) --lun \(lun) --bstype null -b none") }
            lines.append("--op bind --mode target --tid \(tid) -I ALL")
        }
        let built = try Self.transact(daemon, lines)
        #expect(built.succeeded, "\(built.evidence)")
        try must("iscsi-inq", daemon.url("t\(count)", lun: 10), folder: daemon.folder)
        let shown = try daemon.admin(["--op", "show", "--mode", "target"], seconds: 60)
        #expect(shown.succeeded && shown.output.components(separatedBy: "            Type: disk\n").count == 10 * count + 1)
        let data = try #require(daemon.child(role: "data"))
        let start = ContinuousClock.now
        kill(data, SIGKILL)
        #expect(try eventually(within: 60) { try run("iscsi-inq", daemon.url("t\(count)", lun: 10), folder: daemon.folder).succeeded })
        let again = ContinuousClock.now - start
        let gone = try Self.transact(daemon, (1...count).map { "--op delete --mode target --tid \($0)" })
        #expect(gone.succeeded, "\(gone.evidence)")
        #expect(try daemon.must("--op show --mode target").isEmpty)
        print("\(count) targets with ten disks: built in \(built.elapsed), shown in \(shown.elapsed), served again by a new data process in \(again), deleted in \(gone.elapsed)")
        // Ten times what it takes: a walk that is quadratic takes longer.
        for finished in [built, shown, gone] { #expect(finished.elapsed < .seconds(60), "\(finished.evidence)") }
    }

    @Test("Every show and stat prints JSON that other parsers take")
    func json() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try daemon.must("--op new --mode account --user u --password long-enough-1")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        let sessions = try #require(try Self.targets(daemon).first?["sessions"] as? [[String: Any]])
        let sid = try #require(sessions.first?["sid"] as? Int)
        #expect(sessions.first?["initiatorName"] as? String == Initiator.name)
        for (line, member) in [
            ("--op show --mode system", "system"), ("--op show --mode target", "targets"), ("--op show --mode target --tid 1", "targets"),
            ("--op show --mode conn --tid 1", "connections"), ("--op show --mode account", "accounts"), ("--op show --mode portal", "portals"),
            ("--op show --mode lld", "drivers"), ("--op stat --mode system", "statistics"), ("--op stat --mode target --tid 1", "statistics"),
            ("--op stat --mode lu --tid 1 --lun 1", "statistics"), ("--op stat --mode session --tid 1 --sid \(sid)", "connections"),
            ("--op stat --mode conn --tid 1 --sid \(sid)", "connections"),
        ] {
            let file = try daemon.folder.write(try daemon.must(line + " --json"), to: "report.json")
            #expect(daemon.folder.text(of: file).split(separator: "\n").count == 1)
            #expect(try must("python3", "-m", "json.tool", file, folder: daemon.folder).contains("\"\(member)\": "), "\(line)")
        }
        let refused = try daemon.admin(["--op", "show", "--mode", "target", "--tid", "9", "--json"])
        #expect(refused.ending == .exited(22) && refused.output.contains("{\"schemaVersion\":1,\"error\":{\"number\":4,"), "\(refused.evidence)")
        #expect(refused.output.contains("tgtadm: can't find the target\n"))
        initiator.wire.shutdown()
    }

    @Test("With tgt's own daemon tgtadm speaks tgt's protocol, and asks for nothing twice", .enabled(if: Debian.isThere))
    func debian() throws {
        let daemon = try Debian()
        // Each of these fails when it is done a second time.
        let name = Daemon.iqn("x")
        for line in [
            "--op new --mode target --tid 1 -T \(name)", "--op bind --mode target --tid 1 -I 10.0.0.1", "--op new --mode account --user u --password long-enough-1",
            "--op bind --mode account --tid 1 --user u", "--op new --mode lu --tid 1 --lun 1 -b \(try daemon.folder.sparseFile("disk", size: 1 << 20))",
        ] {
            let first = try daemon.admin(line)
            #expect(first.succeeded, "\(first.evidence)")
            let second = try daemon.admin(line)
            #expect(second.ending == .exited(22), "\(second.evidence)")
        }
        #expect(try daemon.admin("--op show --mode target").output.hasPrefix("Target 1: \(name)\n"))
        let json = try daemon.admin("--op show --mode target --json")
        #expect(json.ending == .exited(22) && json.output == "tgtadm: --json cannot be had: this tgtd speaks tgt's protocol only\n", "\(json.evidence)")
        let file = try daemon.folder.write("--op new --mode target --tid 2 -T iqn.y\n", to: "lines")
        let transaction = try daemon.admin("--transaction \(file)")
        #expect(transaction.ending == .exited(22) && transaction.output.contains("--transaction cannot be had"), "\(transaction.evidence)")
        for (line, words) in [
            ("--mode access --op explain --tid 1 -Q iqn.x -I ::1", "--mode access"), ("--mode target --op bind --tid 1 -I ::1 --luns 1", "--luns"),
            ("--mode account --op generate --user u", "--op generate"), ("--mode account --op update --user u --retire-secret old", "--retire-secret"),
            ("--mode account --op bind --tid 1 --user u -Q iqn.x", "--initiator-name with accounts"),
        ] {
            let own = try daemon.admin(line)
            #expect(own.ending == .exited(22) && own.output == "tgtadm: \(words) cannot be had: this tgtd speaks tgt's protocol only\n", "\(own.evidence)")
        }
        #expect(try !daemon.admin("--op show --mode target").output.contains("Target 2"))
        for line in ["--op delete --mode lu --tid 1 --lun 1", "--op delete --mode target --tid 1", "--op delete --mode system"] {
            let end = try daemon.admin(line)
            #expect(end.succeeded, "\(end.evidence)")
        }
    }

    @Test("What is no hello, no frame and no version we speak is answered clearly or closed, and nobody waits for it")
    func hostile() throws {
        let daemon = try Daemon()
        let script = """
            import os, socket, struct, sys, time
            path = sys.argv[1]
            HELLO = b"PORTCULL" + struct.pack(">HH", 1, 1) + bytes(108)
            def connect():
                s = socket.socket(socket.AF_UNIX); s.connect(path); s.settimeout(5); return s
            def read(s):
                data = b""
                while True:
                    try: piece = s.recv(65536)
                    except ConnectionResetError: break
                    if not piece: break
                    data += piece
                return data
            def talk(*pieces):
                s = connect()
                for piece in pieces:
                    try: s.sendall(piece)
                    except (BrokenPipeError, ConnectionResetError): break
                return read(s)
            def frame(kind, body, length=None):
                return struct.pack(">B3xI", kind, len(body) if length is None else length) + body
            welcome = b"PORTCULL" + struct.pack(">HHHH", 1, 1, 1, 0)
            show = b"\\0" + struct.pack(">I", 0) + bytes([1])
            def refused(data, word):
                assert data.startswith(welcome), data
                kind, length = struct.unpack(">B3xI", data[16:24])
                assert kind == 3 and len(data) == 24 + length, data
                assert struct.unpack(">I", data[24:28])[0] == 17 and word in data, data
            # Our version among others; none of ours; versions that are none.
            s = connect(); s.sendall(b"PORTCULL" + struct.pack(">HH", 1, 9) + bytes(108)); assert s.recv(100) == welcome; s.sendall(frame(1, show)); assert b"State: ready" in read(s)
            assert talk(b"PORTCULL" + struct.pack(">HH", 2, 9) + bytes(108)) == b"PORTCULL" + struct.pack(">HHHH", 0, 1, 1, 0)
            assert talk(b"PORTCULL" + struct.pack(">HH", 3, 2) + bytes(108)) == b""
            # Byte by byte.
            s = connect()
            for byte in HELLO + frame(1, show): s.sendall(bytes([byte]))
            assert b"State: ready" in read(s)
            refused(talk(HELLO, frame(9, b"")), b"no frame of kind 9")
            refused(talk(HELLO, frame(4, b"")), b"no frame of kind 4")
            refused(talk(HELLO, frame(1, b"", 0xffffffff)), b"too long")
            refused(talk(HELLO, frame(1, b"\\0")), b"malformed")
            refused(talk(HELLO, frame(2, b"\\0\\xff\\xff\\xff\\xff")), b"malformed")
            refused(talk(HELLO, frame(2, os.urandom(1 << 20))), b"malformed")
            # Silence at every place, and clients that are gone before their answer.
            waiting = []
            for length in list(range(0, 140, 7)):
                s = connect(); s.sendall((HELLO + frame(1, show))[:length]); waiting.append(s)
            for _ in range(40):
                s = connect(); s.sendall(HELLO + frame(1, show)); s.close()
            for _ in range(200):
                s = connect()
                try: s.sendall(HELLO[:os.urandom(1)[0] % 121] + os.urandom(200))
                except (BrokenPipeError, ConnectionResetError): pass
                s.close()
            start = time.time()
            # A user has so many connections at once: the dead ones may still be on their way out.
            while b"State: ready" not in talk(HELLO, frame(1, show)): assert time.time() - start < 60
            for s in waiting: s.settimeout(60); read(s)
            print("silent clients are gone after %.1f s, where 10 s are their time" % (time.time() - start))
            """
        try must("python3", "-c", script, daemon.folder.path("socket.\(Daemon.controlPort)"), folder: daemon.folder)
        #expect(daemon.process.poll() == nil)
        try daemon.must("--op show --mode system")
    }
}

/// Debian's tgtd, of a test's own. It takes no notice of SIGTERM.
final class Debian {
    static let program = Subject.variable("PORTCULLIS_DEBIAN_TGTD") ?? "/usr/sbin/tgtd"
    static var isThere: Bool { FileManager.default.isExecutableFile(atPath: program) }

    let folder: Folder
    private let process: Running

    init() throws {
        folder = try Folder()
        process = try Running(
            [Self.program, "-f", "-C", "7", "--iscsi", "portal=127.0.0.1:\(try Ports.next())"], environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
        guard try eventually(within: 10, { try admin("--op show --mode system").succeeded }) else { throw Failure("Debian's tgtd does not answer:\n\(process.output)") }
    }
    deinit { process.kill() }

    /// Our tgtadm.
    func admin(_ line: String) throws -> Finished {
        try Running([Subject.tgtadm, "-C", "7"] + line.split(separator: " ").map(String.init), environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder).wait(seconds: 20)
    }
}
