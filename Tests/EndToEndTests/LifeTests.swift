import Foundation
import Glibc
import Testing

/// Starting, stopping, starting again.
@Suite struct LifeTests {
    @Test("A signal to stop ends it cleanly with status 0, sessions or not", .enabled(if: Subject.isPortcullis), arguments: [SIGTERM, SIGINT])
    func stops(signal: Int32) throws {
        let daemon = try Daemon.serving()
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let family = daemon.family
        let finished = daemon.stop(signal)
        #expect(finished.ending == .exited(0), "\(finished.evidence)")
        #expect(finished.elapsed > .zero && initiator.wire.closes(within: 1))
        #expect(eventually(within: 1) { family.allSatisfy { kill($0, 0) != 0 } }, "processes left behind: \(family)")
    }

    @Test("A signal that a terminal or a service manager sends to all its processes ends it without a word of trouble", .enabled(if: Subject.isPortcullis), arguments: [SIGTERM, SIGINT])
    func stopsAsAGroup(signal: Int32) throws {
        let daemon = try Daemon.serving()
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        for pid in daemon.family.reversed() { kill(pid, signal) }
        let finished = daemon.process.wait(seconds: Daemon.stopLimit)
        #expect(finished.ending == .exited(0), "\(finished.evidence)")
        // At the first start a trail's key lies beside it, which is worth a warning.
        let trouble = daemon.log.split(separator: "\n").filter { ($0.contains(" error: ") || $0.contains(" warning: ")) && !$0.contains(".verification-key") }
        #expect(trouble.isEmpty, daemon.evidence)
    }

    @Test("A log that nobody reads any more ends no process", .enabled(if: Subject.isPortcullis))
    func unreadLog() throws {
        let daemon = try Daemon.serving()
        for pid in daemon.family {
            let ignored = try #require(Processes.status("SigIgn", of: pid).flatMap { UInt64($0, radix: 16) })
            #expect(ignored & 1 << UInt64(SIGPIPE - 1) != 0, "\(Processes.arguments(of: pid))")
        }
    }

    @Test("A second instance on the same socket says so and ends with status 1")
    func secondInstance() throws {
        let daemon = try Daemon.serving()
        let rival = try daemon.launchRival().wait(seconds: 10)
        #expect(rival.ending == .exited(1), "\(rival.evidence)")
        #expect(rival.output.contains("another tgtd is using"), "\(rival.output)")
        #expect(try daemon.admin(["--op", "show", "--mode", "system"]).succeeded, "the second took the first one's socket")
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
    }

    @Test("It can be started again at once on the same port, and its disks keep data and identity")
    func restart() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        try QemuIO(daemon).check("write -P 0x5c 1M 1M")
        let identity = try daemon.identity()
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        if Subject.isReference { daemon.process.kill() } else { #expect(daemon.stop().succeeded) }
        let begin = ContinuousClock.now
        try daemon.restart()
        #expect(ContinuousClock.now - begin < .seconds(3), "\(ContinuousClock.now - begin)")
        if (try daemon.must("--op show --mode target")).isEmpty {
            try daemon.addTarget()
            try daemon.addDisk(file: daemon.folder.path("disk"))
            try daemon.admit()
        }
        #expect(try daemon.identity() == identity)
        try QemuIO(daemon).check("read -P 0x5c 1M 1M", "read -P 0 0 1M")
    }

    @Test("A kill -9 of the whole daemon leaves nothing that keeps the next from starting", .enabled(if: Subject.isPortcullis))
    func killed() throws {
        let daemon = try Daemon.serving()
        let children = Array(daemon.family.dropFirst())
        #expect(children.count == 2, daemon.evidence)
        kill(daemon.process.pid, SIGKILL)
        daemon.process.wait(seconds: 5)
        #expect(eventually(within: 2) { children.allSatisfy { kill($0, 0) != 0 } }, "children outlive control")
        try daemon.restart()
    }

    @Test("Two installations give their disks different identities", .enabled(if: Subject.isPortcullis))
    func identities() throws {
        let (one, other) = (try Daemon.serving(), try Daemon.serving())
        #expect(try one.identity() != other.identity())
    }

    @Test(
        "A mistake on the command line ends it with a message",
        // tgt goes on without a portal it cannot open.
        arguments: [["--nonsense"], ["-C", "99999999"]] + (Subject.isPortcullis ? [["--iscsi", "portal=nowhere:x"], ["--iscsi", "portal=192.0.2.1:3260"]] : []))
    func mistakes(words: [String]) throws {
        let folder = try Folder()
        let finished = try Running(
            [Subject.tgtd, "-f"] + words + (Subject.isPortcullis ? ["--state", folder.path("state")] : []), environment: ["TGT_IPC_SOCKET": folder.path("socket")],
            folder: folder
        ).wait(seconds: 10)
        #expect(!finished.succeeded && finished.ending != .timedOut, "\(finished.evidence)")
        #expect(!finished.output.isEmpty)
    }

    @Test("The version is one word")
    func version() throws {
        let folder = try Folder()
        for program in [Subject.tgtd, Subject.tgtadm] {
            let output = try must(program, "-V", folder: folder)
            #expect(output.split(whereSeparator: \.isWhitespace).count == 1, "\(program): \(output)")
        }
    }

    @Test("A wrong setting ends it at its start with the file and the line", .enabled(if: Subject.isPortcullis))
    func wrongSetting() throws {
        let folder = try Folder()
        let settings = try folder.write("# settings\nnop-interval: 5\nnop-intervall: 5\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        let finished = try run(
            Subject.tgtd, "-f", "--config", settings, "--state", folder.path("state"), environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder,
            seconds: 10)
        #expect(finished.ending == .exited(1) || finished.ending == .exited(22), "\(finished.evidence)")
        #expect(finished.output.contains("tgtd.yaml:3"), "\(finished.output)")
    }

    @Test("A settings file that others may write is refused", .enabled(if: Subject.isPortcullis))
    func settingsOthersMayWrite() throws {
        let folder = try Folder()
        let settings = try folder.write("nop-interval: 5\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o666)
        let finished = try run(
            Subject.tgtd, "-f", "--config", settings, "--state", folder.path("state"), environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder,
            seconds: 10)
        #expect(!finished.succeeded && finished.ending != .timedOut, "\(finished.evidence)")
    }

    @Test("The shipped settings file is accepted, and so is every default it names", .enabled(if: Subject.isPortcullis), arguments: [false, true])
    func shippedSettings(uncommented: Bool) throws {
        let folder = try Folder()
        var lines = try String(contentsOfFile: "\(Subject.package)/policy/tgtd.yaml", encoding: .utf8).components(separatedBy: "\n")
        if uncommented {
            // A setting stands behind a `#` without a blank; portal, user, group and directories would not be this test's own.
            lines = lines.map { $0.wholeMatch(of: /#(reactors|busy-poll|io-uring|io-threads|memory|nop-.*|log|limits|chap|penalties|socket|audit|  (?!group:|directory:)[a-z0-9-]+):.*/) != nil ? String($0.dropFirst()) : $0 }
        }
        let settings = try folder.write(lines.joined(separator: "\n"), to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        let daemon = try Daemon(options: ["--config", settings])
        #expect(try daemon.admin(["--op", "show", "--mode", "system"]).succeeded)
    }

    @Test("It says to systemd when it is ready, and that it stops before it does", .enabled(if: Subject.isPortcullis))
    func notifiesSystemd() throws {
        let folder = try Folder()
        let listener = try NotifySocket(path: folder.path("notify"))
        let port = try Ports.next()
        let daemon = try Running(
            [Subject.tgtd, "-f", "--iscsi", "portal=127.0.0.1:\(port)", "--state", folder.path("state")],
            environment: ["TGT_IPC_SOCKET": folder.path("socket"), "NOTIFY_SOCKET": folder.path("notify")], folder: folder)
        #expect(listener.receive(seconds: 10)?.contains("READY=1") == true, "\(daemon.output)")
        _ = try Wire(port: port)
        // It takes its time to stop: one of its processes does not hear.
        let data = try #require(Processes.children(of: daemon.pid).first { Processes.arguments(of: $0).contains("data") })
        kill(data, SIGSTOP)
        daemon.signal(SIGTERM)
        #expect(listener.receive(seconds: 2)?.contains("STOPPING=1") == true, "\(daemon.output)")
        #expect(daemon.poll() == nil, "it had stopped already when it said so")
        kill(data, SIGCONT)
        #expect(daemon.wait(seconds: 10).succeeded)
    }
}

extension Daemon {
    /// What an initiator tells the first disk by: its serial number and designators.
    func identity() throws -> String {
        try ["128", "131"].map { try EndToEndTests.must("iscsi-inq", "-e", "1", "-c", $0, url(), folder: folder) }.joined()
    }
}

/// The receiving end of sd_notify(3).
private final class NotifySocket {
    private let descriptor: Int32

    init(path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let bound = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard bound == 0 else { throw Failure("bind \(path): \(reason(errno))") }
    }
    deinit { close(descriptor) }

    func receive(seconds: Double) -> String? {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard unsafe poll(&entry, 1, Int32(seconds * 1000)) == 1 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress!, $0.count, 0) }
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }
}
