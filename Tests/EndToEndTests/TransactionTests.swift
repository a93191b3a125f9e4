import Foundation
import Glibc
import Testing

/// Transactions at their limits, without their clients, and at the same time as others.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct TransactionTests {
    /// The words of a client that speaks our protocol as it likes, for scripts; the socket is their first argument.
    private static let speech = """
        import select, socket, struct, sys, time
        HELLO = b"PORTCULL" + struct.pack(">HH", 1, 1) + bytes(108)
        def connect():
            s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60); return s
        def read(s, count=None):
            data = b""
            while count is None or len(data) < count:
                try: piece = s.recv(65536 if count is None else count - len(data))
                except ConnectionResetError: break
                if not piece: break
                data += piece
            return data
        def greet():
            s = connect(); s.sendall(HELLO); assert read(s, 16) == b"PORTCULL" + struct.pack(">HHHH", 1, 1, 1, 0); return s
        def frame(kind, body, length=None): return struct.pack(">B3xI", kind, len(body) if length is None else length) + body
        def text(bytes): return struct.pack(">I", len(bytes)) + bytes
        # tgt's number of the error, and the reason.
        def answer(s):
            data = read(s)
            if not data: return None, b"closed"
            kind, length = struct.unpack(">B3xI", data[:8])
            assert kind == 3 and len(data) == 8 + length, data[:100]
            return struct.unpack(">I", data[8:12])[0], data[12:]
        def transaction(requests): return b"\\0" + struct.pack(">I", len(requests)) + b"".join(requests)
        # The driver's name, the code of an update of the system, its name and value.
        def update(name, value): return text(b"") + bytes([2]) + text(name) + text(value)
        OUT_OF_MEMORY, INVALID = 2, 17
        LONGEST = 16 << 20

        """

    private func speak(_ script: String, to daemon: Daemon) throws -> String {
        try must("python3", "-c", Self.speech + script, daemon.folder.path("socket.\(Daemon.controlPort)"), folder: daemon.folder, seconds: 120)
    }

    /// A daemon that lets its clients take their time.
    private func patientDaemon() throws -> (Daemon, Folder) {
        let folder = try Folder()
        let settings = try folder.write("limits:\n  management-idle-seconds: 600\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        return (try Daemon(options: ["--config", settings]), folder)
    }

    @Test("What is held of unfinished requests is limited: below, at and above the limit", .timeLimit(.minutes(3)))
    func held() throws {
        let (daemon, _) = try patientDaemon()
        let script = """
            def silent(s): return not select.select([s], [], [], 0)[0]
            def show(): s = greet(); s.sendall(frame(1, b"\\0" + text(b"") + bytes([1]))); return answer(s)
            # All but eight bytes of the longest transaction: with its header it holds a fourth of the limit.
            def hold():
                s = greet(); s.sendall(frame(2, bytes(LONGEST - 8), LONGEST)); return s
            crowd = [hold() for _ in range(4)]
            # Its answer shows that what came before it has been read.
            def settle():
                for _ in range(50):
                    assert show()[0] == 0
                    time.sleep(0.02)
            settle()
            assert all(silent(s) for s in crowd), "at the limit somebody is refused"
            # One byte more.
            extra = connect(); extra.sendall(b"P")
            refused = read(extra)
            assert struct.unpack("<I", refused[:4])[0] == OUT_OF_MEMORY, refused
            extra = greet(); extra.sendall(frame(2, bytes(100), LONGEST))
            number, reason = answer(extra)
            assert number == OUT_OF_MEMORY and b"too many long requests at once; try again" in reason, reason
            # Whoever has been there stays; requests that come whole are served.
            settle()
            assert all(silent(s) for s in crowd)
            # Who ends his request, and who dies, makes room again.
            crowd[0].sendall(bytes(8))
            number, reason = answer(crowd[0])
            assert number == INVALID and b"malformed" in reason, reason
            crowd[1].close()
            crowd[:2] = [hold(), hold()]
            settle()
            assert all(silent(s) for s in crowd), "room that is free again is not given"
            """
        _ = try speak(script, to: daemon)
        #expect(daemon.process.poll() == nil)
    }

    @Test("A transaction has so many requests and so many bytes, for tgtadm and for the daemon", .timeLimit(.minutes(3)))
    func size() throws {
        let (daemon, folder) = try patientDaemon()
        let script = """
            most = 1 << 18
            one = update(b"State", b"ready")
            def transact(body):
                s = greet(); s.sendall(frame(2, body)); return answer(s)
            for count in (most - 1, most):
                assert transact(transaction([one] * count))[0] == 0, count
            number, reason = transact(transaction([one] * (most + 1)))
            assert number == INVALID and b"malformed" in reason, reason
            # The same in bytes: a value may have 8192, so the last takes what is left.
            def of_length(length):
                long = update(b"x", bytes([120]) * 8000)
                count, left = divmod(length - 5 - len(update(b"x", b"")), len(long))
                return transaction([long] * count + [update(b"x", bytes([120]) * left)])
            body = of_length(LONGEST)
            assert len(body) == LONGEST
            # It is understood as a whole: the first of its requests is refused.
            number, reason = transact(body)
            assert number not in (0, None) and b"malformed" not in reason, reason
            s = greet(); s.sendall(frame(2, b"", LONGEST + 1))
            number, reason = answer(s)
            assert number == INVALID and b"too long" in reason, reason
            """
        _ = try speak(script, to: daemon)
        let words = "a transaction has at most 262144 requests and 16777216 bytes"
        let many = try folder.write(String(repeating: "--op update --mode sys -n State -v ready\n", count: 262_145), to: "many")
        let long = try folder.write(
            String(repeating: "--op new --mode lu --tid 1 --lun 1 -b /\(String(repeating: "x", count: 4000))\n", count: 4200), to: "long")
        for file in [many, long] {
            let refused = try daemon.admin(["--transaction", file], seconds: 60)
            #expect(refused.ending == .exited(22) && refused.output == "tgtadm: \(file): \(words)\n", "\(refused.evidence)")
        }
        #expect(daemon.process.poll() == nil)
    }

    @Test("A client that dies with half a transaction has changed nothing; one that dies before its answer has changed all of it")
    func death() throws {
        let daemon = try Daemon()
        let files = try (1...40).map { try daemon.folder.sparseFile("disk\($0)", size: 1 << 20) }
        // From the first change on it has its state open.
        try daemon.must("--op update --mode system --name State --value ready")
        let open = ProtocolTests.descriptors(of: daemon.process.pid)
        let paths = files.map { "b'\($0)'" }.joined(separator: ", ")
        let script = """
            paths = [\(paths)]
            # New target: driver, code, number, name. New logical unit: driver, code, target, LUN, kind, path, and four texts that are not there.
            def target(tid, name): return text(b"") + bytes([10]) + struct.pack(">i", tid) + text(name)
            def disk(tid, lun, path): return text(b"") + bytes([20]) + struct.pack(">iQI", tid, lun, 0) + bytes([1]) + text(path) + bytes(4)
            whole = frame(2, transaction([target(1, b"iqn.2026-11.org.example:one")] + [disk(1, lun + 1, path) for lun, path in enumerate(paths)]))
            for cut in (1, 8, 9, 100, len(whole) // 2, len(whole) - 1):
                s = greet(); s.sendall(whole[:cut]); s.close()
            """
        _ = try speak(script, to: daemon)
        for _ in 0..<10 { #expect(try daemon.must("--op show --mode target") == "") }
        _ = try speak(script + "\ns = greet(); s.sendall(whole); s.close()\n", to: daemon)
        #expect(try eventually(within: 60) { try daemon.must("--op show --mode target").components(separatedBy: "Type: disk").count == files.count + 1 }, daemon.evidence)
        // One that is refused after that leaves nothing open.
        _ = try speak(
            script + "\ns = greet(); s.sendall(frame(2, transaction([target(2, b'iqn.2026-11.org.example:two')] + [disk(2, 1, p) for p in paths[:2]]))); s.close()\n",
            to: daemon)
        #expect(eventually(within: 60) { daemon.log.contains("a transaction is refused") }, daemon.evidence)
        try daemon.must("--op delete --mode target --tid 1")
        #expect(eventually(within: 30) { ProtocolTests.descriptors(of: daemon.process.pid) == open }, "\(ProtocolTests.descriptors(of: daemon.process.pid)) descriptors, not \(open)")
    }

    @Test("Of two transactions at once for the same targets one is carried out, and nothing of the other", .timeLimit(.minutes(3)))
    func rivals() throws {
        let daemon = try Daemon()
        let folder = daemon.folder
        let files = try ["a", "b"].map { name in try (1...20).map { try folder.sparseFile("\(name)\($0)", size: 1 << 20) } }
        let scripts = try files.enumerated().map { rival, files in
            let lines = ["--op new --mode target --tid 1 -T \(Daemon.iqn("rival\(rival)"))", "--op bind --mode target --tid 1 -I ALL"]
                + files.enumerated().map { "--op new --mode lu --tid 1 --lun \($0 + 1) -b \($1)" }
            return try folder.write(lines.joined(separator: "\n") + "\n", to: "rival\(rival)")
        }
        // From the first change on it has its state open.
        try daemon.must("--op update --mode system --name State --value ready")
        let open = ProtocolTests.descriptors(of: daemon.process.pid)
        let family = daemon.family
        for _ in 0..<(Subject.soaks ? 200 : 15) {
            let rivals = try scripts.map { try daemon.startAdmin(["--transaction", $0]) }
            let ends = rivals.map { $0.wait(seconds: 60) }
            let winners = ends.indices.filter { ends[$0].succeeded }
            try #require(winners.count == 1, "\(ends.map(\.evidence))")
            let (winner, loser) = (winners[0], 1 - winners[0])
            #expect(ends[loser].ending == .exited(22) && ends[loser].output.contains(": this target already exists\n"), "\(ends[loser].evidence)")
            let shown = try #require(try ProtocolTests.targets(daemon).first)
            let paths = (shown["logicalUnits"] as? [[String: Any]])?.compactMap { ($0["backingStore"] as? [String: Any])?["path"] as? String }
            #expect(shown["name"] as? String == Daemon.iqn("rival\(winner)") && paths?.filter { $0.hasPrefix("/") } == files[winner])
            try must("iscsi-inq", daemon.url("rival\(winner)", lun: 20), folder: folder)
            try daemon.must("--op delete --mode target --tid 1")
        }
        #expect(daemon.family == family, daemon.evidence)
        #expect(eventually(within: 30) { ProtocolTests.descriptors(of: daemon.process.pid) == open }, "\(ProtocolTests.descriptors(of: daemon.process.pid)) descriptors, not \(open)")
    }

    @Test("Transactions that race with single changes are whole or refused, and what is served is what is shown", .timeLimit(.minutes(3)))
    func race() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let (folder, family) = (daemon.folder, daemon.family)
        let (one, other, third) = (try folder.sparseFile("one", size: 16 << 20), try folder.sparseFile("other", size: 32 << 20), try folder.sparseFile("third", size: 64 << 20))
        let build = try folder.write("""
            --op new --mode target --tid 2 -T \(Daemon.iqn("two"))
            --op new --mode lu --tid 1 --lun 5 -b \(one)
            --op new --mode lu --tid 2 --lun 1 -b \(other)
            --op new --mode target --tid 3 -T \(Daemon.iqn("three"))

            """, to: "build")
        let raze = try folder.write("--op delete --mode target --tid 3\n--op delete --mode lu --tid 1 --lun 5\n--op delete --mode target --tid 2\n", to: "raze")
        // Singles that want the same logical unit, change it, and change what the transaction does not touch.
        let singles = try Running(
            ["sh", "-c", """
                while :; do
                    "$0" -C 7 --op new --mode lu --tid 1 --lun 5 -b \(third)
                    "$0" -C 7 --op update --mode lu --tid 1 --lun 5 --params product_id=RACE
                    "$0" -C 7 --op delete --mode lu --tid 1 --lun 5
                    "$0" -C 7 --op bind --mode target --tid 2 -I 10.0.0.1
                    "$0" -C 7 --op new --mode lu --tid 1 --lun 6 --bstype null -b none
                    "$0" -C 7 --op delete --mode lu --tid 1 --lun 6
                done
                """, Subject.tgtadm], environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
        defer { singles.kill() }
        var carriedOut = 0
        for round in 0..<(Subject.soaks ? 2000 : 120) {
            let finished = try daemon.admin(["--transaction", round % 2 == 0 ? build : raze])
            let refusals = ["already exists", "can't find the", "is still active"]
            #expect(finished.succeeded || finished.ending == .exited(22) && refusals.contains { finished.output.contains($0) }, "\(finished.evidence)")
            if finished.succeeded { carriedOut += 1 }
            let tids = try ProtocolTests.targets(daemon).compactMap { $0["tid"] as? Int }
            #expect(tids == [1] || tids == [1, 2, 3], "half a transaction: \(tids)")
        }
        singles.kill()
        print("of \(Subject.soaks ? 2000 : 120) transactions that race with single changes \(carriedOut) were carried out")
        #expect(carriedOut > 0)
        // What initiators meet is what is shown; what was asked last, by a client that is no more, may still be on its way into the trail.
        func agrees() throws -> Bool {
            let target = try #require(try ProtocolTests.targets(daemon).first)
            let unit = (target["logicalUnits"] as? [[String: Any]] ?? []).first { $0["lun"] as? Int == 5 }
            let capacity = try run("iscsi-readcapacity16", daemon.url(lun: 5), folder: folder)
            guard let size = unit?["size"] as? Int else { return !capacity.succeeded }
            return capacity.succeeded && capacity.output.contains("\(size)")
        }
        #expect(try eventually(within: 5) { try agrees() }, "\(daemon.evidence)")
        // All that time the data process was told nothing that it could not do: it would have been ended, and everybody's sessions with it.
        #expect(daemon.family == family, daemon.evidence)
    }

    @Test("While a target is being deleted nobody changes it, and nobody else's sessions end over that")
    func changedWhileItGoes() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try daemon.addTarget(2, name: "two")
        try daemon.addDisk(tid: 2, file: daemon.folder.sparseFile("two", size: 8 << 20))
        let family = daemon.family
        let neighbour = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try neighbour.settle()
        // What takes as long as a command that the store keeps: the process that has to end it.
        let data = try #require(daemon.child(role: "data"))
        kill(data, SIGSTOP)
        defer { kill(data, SIGCONT) }
        let deletion = try daemon.startAdmin(["--op", "delete", "--mode", "target", "--tid", "2", "--force"])
        #expect(try eventually(within: 3) { try !daemon.admin(["--op", "update", "--mode", "target", "--tid", "2", "--name", "nop_count", "--value", "0"]).succeeded }, daemon.evidence)
        for line in ["--op update --mode lu --tid 2 --lun 1 --params product_id=X", "--op new --mode lu --tid 2 --lun 2 --bstype null -b none", "--op delete --mode lu --tid 2 --lun 1"] {
            let refused = try daemon.admin(line.split(separator: " ").map(String.init))
            #expect(!refused.succeeded && refused.output.contains("is still active"), "\(refused.evidence)")
        }
        #expect(daemon.log.contains("somebody else is changing logical unit 1 of target 2 at this moment; try again"), daemon.evidence)
        kill(data, SIGCONT)
        #expect(deletion.wait(seconds: 10).succeeded)
        #expect(try neighbour.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        #expect(daemon.family == family, daemon.evidence)
    }
}
