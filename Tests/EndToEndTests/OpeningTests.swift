import Foundation
import Glibc
import Testing

/// Backing stores that open, that do not, and that never answer.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct OpeningTests {
    /// Seconds after which an administrator is told that a store does not open.
    private static let patience = 10.0

    /// Files that do not open, as on a network that does not answer: somebody holds a lease on each, and does not let go when the kernel
    /// asks for it (fcntl(2): an open that breaks a lease waits for 45 seconds).
    private func hang(_ files: [String], _ folder: Folder) throws -> Running {
        let script = """
            import fcntl, os, signal, sys, time
            signal.signal(signal.SIGIO, signal.SIG_IGN)
            held = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
            for descriptor in held: fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            print("held", flush=True)
            time.sleep(600)
            """
        let holder = try Running(["python3", "-c", script] + files, folder: folder)
        try #require(eventually(within: 30) { holder.output.hasPrefix("held") }, "\(holder.output)")
        return holder
    }

    /// Only the processes that stay are left: those that opened stores are ended and reaped.
    private func nobodyOpens(_ daemon: Daemon) -> Bool {
        eventually(within: 30) { Set(Processes.children(of: daemon.process.pid)) == Set(daemon.family.dropFirst()) }
    }

    @Test("Stores that never open are refused in their time, and hold up nobody else", .timeLimit(.minutes(3)))
    func hanging() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let folder = daemon.folder
        let dead = try (1...20).map { try folder.sparseFile("dead\($0)", size: 1 << 20) }
        let good = try (1...40).map { try folder.sparseFile("good\($0)", size: 1 << 20) }
        let holder = try hang(dead, folder)
        let before = ContinuousClock.now
        // More than are opened at once for one transaction, and single ones beside it.
        try daemon.addTarget(2, name: "dead")
        let lines = dead.dropLast(8).enumerated().map { "--op new --mode lu --tid 2 --lun \($0 + 1) -b \($1)" }
        let transaction = try daemon.startAdmin(["--transaction", folder.write(lines.joined(separator: "\n") + "\n", to: "lines")])
        let single = try dead.suffix(8).enumerated().map { lun, file in
            try daemon.startAdmin("--op new --mode lu --tid 2 --lun \(lun + 50) -b \(file)".split(separator: " ").map(String.init))
        }
        let waiting = [transaction] + single
        #expect(eventually(within: 30) { Processes.children(of: daemon.process.pid).count > 2 }, "nothing opens a store")
        for (lun, file) in good.prefix(20).enumerated() { try daemon.must("--op new --mode lu --tid 1 --lun \(lun + 2) -b \(file)") }
        let built = try ProtocolTests.transact(daemon, good.dropFirst(20).enumerated().map { "--op new --mode lu --tid 1 --lun \($0 + 100) -b \($1)" })
        #expect(built.succeeded, "\(built.evidence)")
        try must("iscsi-inq", daemon.url(lun: 119), folder: folder)
        let elapsed = ContinuousClock.now - before
        print("forty stores are opened beside twenty that hang after \(elapsed)")
        // On a machine that is too slow for that, who hangs may have been told already.
        #expect(elapsed > .seconds(Self.patience) || waiting.allSatisfy { $0.poll() == nil }, "a store that hangs has been given up early")

        for admin in waiting {
            let finished = admin.wait(seconds: 60)
            #expect(finished.ending == .exited(22) && finished.output.contains("invalid request"), "\(finished.evidence)")
            #expect(finished.elapsed > .seconds(Self.patience - 1), "\(finished.evidence)")
        }
        #expect(transaction.output.contains("it does not open within 10 s"), "\(transaction.output)")
        #expect(daemon.log.components(separatedBy: "it does not open within 10 s").count > single.count, daemon.evidence)
        #expect(nobodyOpens(daemon), "\(Processes.children(of: daemon.process.pid).map { Processes.arguments(of: $0) })")
        #expect(try !daemon.must("--op show --mode target --tid 2").contains("dead1"))
        // What has come back opens.
        holder.kill()
        #expect(try eventually(within: 60) { try daemon.admin("--op new --mode lu --tid 2 --lun 1 -b \(dead[0])".split(separator: " ").map(String.init)).succeeded })
        #expect(nobodyOpens(daemon))
    }

    @Test("A thousand stores are opened in one transaction, each the right one", .timeLimit(.minutes(3)))
    func thousand() throws {
        let daemon = try Daemon()
        let folder = daemon.folder
        let files = try (1...1000).map { try folder.sparseFile("disk\($0)", size: $0 << 20) }
        var lines = ["--op new --mode target --tid 1 -T \(Daemon.iqn("disk"))", "--op bind --mode target --tid 1 -I ALL"]
        lines += files.enumerated().map { "--op new --mode lu --tid 1 --lun \($0 + 1) -b \($1)" }
        let built = try ProtocolTests.transact(daemon, lines)
        #expect(built.succeeded, "\(built.evidence)")
        print("a thousand stores are opened in \(built.elapsed)")
        let units = try #require(try ProtocolTests.targets(daemon).first?["logicalUnits"] as? [[String: Any]])
        #expect(units.map { $0["size"] as? Int } == [0] + (1...1000).map { $0 << 20 })
        // libiscsi says LUNs above 255 in a way of its own.
        for lun in [1, 128, 255] { #expect(try must("iscsi-readcapacity16", daemon.url(lun: lun), folder: folder).contains("\(lun << 20)")) }
        #expect(nobodyOpens(daemon))
        // One that does not open takes all of them back.
        let refused = try ProtocolTests.transact(
            daemon, ["--op new --mode target --tid 2 -T \(Daemon.iqn("two"))"] + files.enumerated().map { "--op new --mode lu --tid 2 --lun \($0 + 1) -b \($1)" }
                + ["--op new --mode lu --tid 2 --lun 1001 -b \(folder.path("missing"))"])
        #expect(refused.ending == .exited(22) && refused.output.contains(":1002: invalid request\n"), "\(refused.evidence)")
        #expect(refused.output.contains("\(folder.path("missing")) does not exist: create it first"), "\(refused.evidence)")
        #expect(nobodyOpens(daemon))
        #expect(eventually(within: 30) { ProtocolTests.descriptors(of: daemon.process.pid) < 1100 }, "\(ProtocolTests.descriptors(of: daemon.process.pid))")
    }

    @Test("A refusal says all about a path of the greatest length that is no text")
    func longPath() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let file = daemon.folder.path("lines")
        var line = Data("--op new --mode lu --tid 1 --lun 1 -b /".utf8)
        line.append(Data(repeating: 0xff, count: 4094))
        #expect(FileManager.default.createFile(atPath: file, contents: line))
        let refused = try daemon.admin(["--transaction", file])
        #expect(refused.ending == .exited(22) && refused.output.contains("cannot be opened: File name too long"), "\(refused.evidence)")
        #expect(nobodyOpens(daemon))
    }
}
