import Glibc
import Testing

/// What `--op stat` counts and `--op show` says of logical units, against an initiator that counts too.
@Suite(.enabled(if: Subject.isPortcullis)) struct StatTests {
    /// A table of `--op stat` by the words of its heading.
    struct Table {
        let columns: [String]
        let rows: [[Int]]

        /// - Parameter heading: its first word; a report may have two tables
        init(_ report: String, _ heading: String) throws {
            let lines = report.components(separatedBy: "\n").drop { !$0.hasPrefix(heading) }.prefix { !$0.isEmpty }
            guard let first = lines.first else { throw Failure("no table “\(heading) …” in\n\(report)") }
            // A pair is one word of the heading and two columns.
            let columns = first.split(separator: " ").flatMap { word in
                word.hasSuffix("(bytes,cmds)") ? ["\(word.dropLast(12)).bytes", "\(word.dropLast(12)).cmds"] : [String(word)]
            }
            self.columns = columns
            rows = try lines.dropFirst().map { line in
                let numbers = line.split(separator: " ").compactMap { Int($0) }
                guard numbers.count == columns.count else { throw Failure("“\(line)” does not fit under “\(first)”") }
                return numbers
            }
        }

        func values(_ names: String...) -> [[Int]] { rows.map { row in names.map { name in columns.firstIndex(of: name).map { row[$0] } ?? -1 } } }
        static let io = ["rd_subm", "rd_done", "wr_subm", "wr_done"]
        /// The I/O columns and the errors of each row.
        var io: [[Int]] {
            rows.map { row in (Self.io.flatMap { ["\($0).bytes", "\($0).cmds"] } + ["errs"]).map { name in columns.firstIndex(of: name).map { row[$0] } ?? -1 } }
        }
    }

    /// An initiator and what has gone over its connection since the login.
    final class Counting {
        let initiator: Initiator
        var sent = 0, received = 0, commands = 0, responses = 0, dataIns = 0, errors = 0

        init(_ daemon: Daemon, isid: UInt8 = 1) throws {
            initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: isid)
        }

        @discardableResult
        func perform(_ cdb: [UInt8], lun: Int = 1, read: Int = 0, write data: [UInt8] = []) throws -> UInt8 {
            let request = initiator.command(cdb: cdb, lun: lun, read: read, write: data.count, data: data).bytes
            initiator.wire.send(request)
            sent += request.count
            commands += 1
            while let answer = initiator.receive() {
                received += answer.bytesAsWritten.count
                if answer.opcode == PDU.dataIn { dataIns += 1 }
                if answer.opcode == PDU.scsiResponse { responses += 1 }
                guard answer.opcode == PDU.scsiResponse || answer.header[1] & 1 == 1 else { continue }
                if answer.scsiStatus != 0 { errors += 1 }
                return answer.scsiStatus
            }
            throw Failure("no answer")
        }

        func settle() throws { for _ in 0..<8 where try perform([0, 0, 0, 0, 0, 0]) == 0 { return } }
    }

    @Test("Bytes, commands, errors, octets and PDUs are counted by session and logical unit", arguments: AdministrationTests.clients)
    func counts(client: String) throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("other", size: 8 << 20))
        let busy = try Counting(daemon, isid: 1)
        try busy.settle()
        for block in 0..<3 { try busy.perform([0x2a, 0, 0, 0, 0, UInt8(block * 8), 0, 0, 8, 0], write: [UInt8](repeating: 7, count: 4096)) }
        for _ in 0..<2 { try busy.perform([0x28, 0, 0, 0, 0, 0, 0, 0, 16, 0], read: 8192) }
        // Past the end: asked for, not done.
        #expect(try busy.perform([0x28, 0, 0, 0xff, 0, 0, 0, 0, 1, 0], read: 512) == 2)
        let idle = try Counting(daemon, isid: 2)

        let expected = [8192 * 2 + 512, 3, 8192 * 2, 2, 4096 * 3, 3, 4096 * 3, 3, busy.errors]
        let nothing = [Int](repeating: 0, count: 9)
        let unit = try Table(daemon.must("--op stat --mode lu --tid 1 --lun 1", client: client), "tgt")
        #expect(unit.io == [expected, nothing])
        let sids = unit.values("sid").map { $0[0] }
        #expect(unit.values("tgt", "lun") == [[1, 1], [1, 1]] && Set(sids).count == 2)
        let target = try Table(daemon.must("--op stat --mode target --tid 1", client: client), "tgt")
        #expect(target.values("lun") == [[0], [0], [1], [1], [2], [2]] && target.io == [nothing, nothing, expected, nothing, nothing, nothing])
        #expect(try Table(daemon.must("--op stat --mode system", client: client), "tgt").rows == target.rows)

        let report = try daemon.must("--op stat --mode sess --tid 1 --sid \(sids[0])", client: client)
        let session = try Table(report, "tgt")
        #expect(session.values("lun") == [[2], [1], [0]] && session.io == [nothing, expected, nothing])
        #expect(try daemon.must("--op stat --mode conn --tid 1 --sid \(sids[0])", client: client) == report.components(separatedBy: "\n\n")[1])
        for (sid, counting) in [(sids[0], busy), (sids[1], idle)] {
            let wire = try Table(daemon.must("--op stat --mode conn --tid 1 --sid \(sid)", client: client), "sid")
            #expect(wire.rows == [[sid, 0, counting.received == 0 ? 0 : counting.sent, counting.received, 0, counting.dataIns, counting.commands, counting.responses]])
        }
        #expect(busy.dataIns == 2 && busy.commands == busy.responses + 2)
    }

    @Test("Data that the target asks for are counted as Data-Out")
    func dataOut() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let counting = try Counting(daemon)
        try counting.settle()
        let initiator = counting.initiator
        let write = initiator.command(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], write: 4096)
        initiator.wire.send(write.bytes)
        let ready = try #require(initiator.receive())
        #expect(ready.opcode == 0x31)
        for offset in [0, 2048] {
            var data = PDU(opcode: PDU.dataOut, flags: offset == 2048 ? 0x80 : 0, data: [UInt8](repeating: 9, count: 2048))
            data.header.replaceSubrange(8..<24, with: write.header[8..<20] + ready.header[20..<24])
            data.put(offset / 2048, at: 36)
            data.put(offset, at: 40)
            initiator.wire.send(data.bytes)
        }
        #expect(try #require(initiator.receive()).scsiStatus == 0)
        let sid = try Table(daemon.must("--op stat --mode lu --tid 1 --lun 1"), "tgt").values("sid")[0][0]
        let wire = try Table(daemon.must("--op stat --mode conn --tid 1 --sid \(sid)"), "sid")
        #expect(wire.values("dataout_pdus", "cmd_pdus", "rsp_pdus", "rxdata_octets") == [[2, counting.commands + 1, counting.responses + 1, counting.sent + 48 + 2 * (48 + 2048)]])
        #expect(try Table(daemon.must("--op stat --mode lu --tid 1 --lun 1"), "tgt").values("wr_subm.bytes", "wr_subm.cmds", "wr_done.bytes", "wr_done.cmds") == [[4096, 1, 4096, 1]])
    }

    @Test("A stock initiator's reads and writes are counted")
    func stockInitiator() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let client = try Running(
            ["qemu-io", "-f", "raw", "-c", "write -P 5 0 3M", "-c", "read -P 5 0 2M", "-c", "sleep 60000", daemon.url()], folder: daemon.folder)
        var seen: [[Int]] = []
        let complete = try eventually(within: 20) {
            seen = try Table(daemon.must("--op stat --mode lu --tid 1 --lun 1"), "tgt").values("wr_subm.bytes", "wr_done.bytes", "rd_subm.bytes", "rd_done.bytes")
            // Whatever else it reads (INQUIRY and the like) is counted too.
            return seen.first.map { $0[0] == 3 << 20 && $0[1] == 3 << 20 && $0[2] >= 2 << 20 && $0[3] >= 2 << 20 } ?? false
        }
        #expect(complete && seen.count == 1, "\(seen)\n\(client.output)")
        #expect(seen[0][2] < 3 << 20 && seen[0][3] <= seen[0][2], "\(seen)")
        client.kill()
        #expect(try eventually(within: 5) { try Table(daemon.must("--op stat --mode lu --tid 1 --lun 1"), "tgt").rows.isEmpty })
    }

    private func shows(_ line: String, _ daemon: Daemon) throws -> Bool {
        try daemon.must("--op show --mode target").components(separatedBy: "        LUN: 1\n").last?.contains("            \(line)\n") ?? false
    }

    @Test("A medium that an initiator has locked is shown so, and cannot be changed until it is let go")
    func preventRemoval() throws {
        let daemon = try Daemon.serving(size: 8 << 20, settings: "removable=1")
        let other = try daemon.folder.sparseFile("other", size: 16 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        #expect(try shows("Prevent removal: No", daemon))
        #expect(try initiator.perform(cdb: [0x1e, 0, 0, 0, 1, 0]).status == 0)
        #expect(try shows("Prevent removal: Yes", daemon))
        let words = ["--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "online=0,path=\(other)"]
        let refused = try daemon.admin(words)
        #expect(refused.ending == .exited(22) && refused.output == "tgtadm: this device has Prevent Removal set\n", "\(refused.evidence)")
        #expect(try initiator.perform(cdb: [0x1e, 0, 0, 0, 0, 0]).status == 0)
        #expect(try shows("Prevent removal: No", daemon))

        #expect(try initiator.perform(cdb: [0x1e, 0, 0, 0, 1, 0]).status == 0)
        #expect(try shows("Prevent removal: Yes", daemon))
        initiator.wire.shutdown()
        #expect(try eventually(within: 3) { try shows("Prevent removal: No", daemon) }, "who has gone prevents nothing")
        #expect(try shows("Online: Yes", daemon), "a refused change changes nothing")
        #expect(try daemon.admin(words).succeeded, daemon.evidence)
    }

    @Test("Software write protection is shown while an initiator has it set")
    func softwareWriteProtection() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        #expect(try shows("SWP: No", daemon))
        // Control mode page, byte 4 bit 3 (SPC-4 §7.5.8).
        let sensed = try initiator.perform(cdb: [0x1a, 8, 0x0a, 0, 255, 0], read: 255)
        var page = Array(sensed.data.dropFirst(4))
        #expect(sensed.status == 0 && page.count == 12)
        page[0] &= 0x3f
        for protected in [true, false] {
            page[4] = protected ? page[4] | 0x08 : page[4] & ~0x08
            let select = try initiator.perform(cdb: [0x15, 0x10, 0, 0, 16, 0], write: [0, 0, 0, 0] + page)
            #expect(select.status == 0, "\(select)")
            #expect(try shows("SWP: \(protected ? "Yes" : "No")", daemon))
            let write = try initiator.perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512))
            #expect(write.status == (protected ? 2 : 0))
        }
    }

    @Test("Whoever has seen a session end sees it gone, and can delete its target at once")
    func endIsSeen() throws {
        let daemon = try Daemon(options: [])
        for round in 0..<20 {
            try daemon.addTarget()
            try daemon.admit()
            let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
            if round % 2 == 0 { #expect(try daemon.must("--op show --mode conn --tid 1").contains("Connection: 0")) }
            var logout = PDU(opcode: PDU.logout | PDU.immediate)
            logout.put(99, at: 16)
            logout.put(initiator.cmdSN, at: 24)
            initiator.wire.send(logout.bytes)
            #expect(initiator.wire.closes(within: 3))
            if round % 2 == 0 { #expect(try daemon.must("--op show --mode conn --tid 1") == "") }
            try daemon.must("--op delete --mode target --tid 1")
        }
    }

    @Test("Counting goes on for hundreds of administrators at once")
    func manyAsk() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let counting = try Counting(daemon)
        try counting.settle()
        let environment = ["TGT_IPC_SOCKET": daemon.folder.path("socket")]
        let words = [Subject.tgtadm, "-C", String(Daemon.controlPort), "--op", "stat", "--mode", "lu", "--tid", "1", "--lun", "1"]
        for _ in 0..<8 {
            let asking = try (0..<25).map { _ in try Running(words, environment: environment, folder: daemon.folder) }
            for one in asking { #expect(try Table(one.wait(seconds: 20).output, "tgt").values("errs") == [[counting.errors]]) }
        }
    }

    @Test("While data hangs, administrators are answered without what only it knows, and late answers do no harm")
    func dataHangs() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let family = daemon.family
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let data = try #require(daemon.child(role: "data"))
        kill(data, SIGSTOP)
        let system = try daemon.admin(["--op", "show", "--mode", "system"])
        #expect(system.succeeded && system.elapsed < .seconds(3), "what does not need it does not wait for it\n\(system.evidence)")
        let shown = try daemon.admin(["--op", "show", "--mode", "target"])
        #expect(shown.succeeded && shown.elapsed > .seconds(4) && shown.elapsed < .seconds(9), "\(shown.evidence)")
        #expect(shown.output.contains("I_T nexus: 1") && daemon.log.contains("the data process does not say what is going on"), daemon.evidence)
        kill(data, SIGCONT)
        let again = try daemon.admin(["--op", "show", "--mode", "target"])
        #expect(again.succeeded && again.elapsed < .seconds(3), "\(again.evidence)")
        #expect(try initiator.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        #expect(daemon.family == family, daemon.evidence)
    }
}
