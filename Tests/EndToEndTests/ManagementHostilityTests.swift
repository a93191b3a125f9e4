import Foundation
import Glibc
import Testing

/// Whatever comes over the management socket is answered or ended in its time, and nobody else waits.
@Suite(.enabled(if: Subject.isPortcullis)) struct ManagementHostilityTests {
    @Test("A wrong length ends the connection without an answer, as with tgt", arguments: [0, 1, 119, 120 + 8193, 0x7fff_ffff, 0xffff_ffff])
    func wrongLength(length: UInt32) throws {
        let daemon = try Daemon()
        let connection = try ManagementWire(daemon)
        connection.send(Request(.target, .show).bytes(length: length))
        #expect(connection.answer(within: Self.promptly) == .closed)
        try stillAnswers(daemon)
    }

    @Test("A request that says something else than requests can say is invalid", arguments: Request.invalid)
    func invalid(_ request: Request) throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let before = try daemon.must("--op show --mode target")
        let connection = try ManagementWire(daemon)
        connection.send(request.bytes())
        #expect(connection.answer(within: Self.promptly) == .answered(Request.invalidRequest, ""), daemon.evidence)
        #expect(try daemon.must("--op show --mode target") == before && daemon.must("--op show --mode account") == "")
        #expect(!daemon.log.utf8.contains { ($0 < 0x20 && $0 != 0x0a) || $0 == 0x7f }, "control characters in the log")
    }

    @Test("A request in pieces is served, half a request is ended when its ten seconds are over and not before")
    func halfARequest() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let whole = Request(.target, .new, tid: 2, text: "targetname=\(Daemon.iqn("late"))").bytes()
        // Before the first of them is accepted.
        let start = ContinuousClock.now
        let halves = try [0, 1, 119, 120, whole.count - 1].map { count in
            let connection = try ManagementWire(daemon)
            connection.send(Array(whole.prefix(count)))
            return connection
        }
        let slow = try ManagementWire(daemon)
        for byte in whole { slow.send([byte]) }
        #expect(slow.answer(within: Self.promptly) == .answered(0, ""))
        try stillAnswers(daemon)
        for half in halves { #expect(half.answer(within: Self.promptly) == .closed) }
        let elapsed = ContinuousClock.now - start
        print("half a management request is ended after \(elapsed), where 10 s are its time")
        #expect(elapsed >= .seconds(10), "after \(elapsed)")
        try stillAnswers(daemon)
    }

    @Test("Three hundred silent connections keep nobody out, and end by themselves")
    func silentCrowd() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let start = ContinuousClock.now
        let crowd = try (0..<300).map { _ in try ManagementWire(daemon) }
        for _ in 0..<5 { try stillAnswers(daemon) }
        for silent in crowd { #expect(silent.answer(within: Self.promptly) == .closed) }
        print("three hundred silent management connections are gone after \(ContinuousClock.now - start), where 10 s are their time")
        try stillAnswers(daemon)
    }

    @Test("A client that leaves before its answer, or never takes it, does no harm and its request is carried out")
    func gone() throws {
        let daemon = try Daemon()
        for tid in 1...600 {
            let connection = try ManagementWire(daemon)
            connection.send(Request(.target, .new, tid: Int32(tid), text: "targetname=\(Daemon.iqn("target-\(tid)"))").bytes())
            if tid % 20 == 0 {
                connection.leave()
            } else {
                #expect(connection.answer(within: Self.promptly) == .answered(0, ""))
            }
        }
        #expect(try eventually(within: 10) { try daemon.must("--op show --mode target").components(separatedBy: "\nTarget ").count == 600 })
        // An answer of some 400 kB, more than a socket holds.
        let deaf = try (0..<80).map { _ in
            let connection = try ManagementWire(daemon)
            connection.send(Request(.target, .show).bytes())
            return connection
        }
        for _ in 0..<5 { try stillAnswers(daemon) }
        _ = deaf
    }

    @Test("Whoever may ask nothing is told so before he has sent what is long, and none of it is kept or written down; what he says otherwise is not either", .enabled(if: geteuid() == 0, "other users are root's to become"))
    func stranger() throws {
        let daemon = try Daemon(options: ["--policy", "none"])
        permit(daemon.folder.path, 0o755)
        // A transaction of sixteen MiB, a request of one MiB, and one that is as short as anybody's may be.
        let script = """
            import socket, sys, time
            hello = b"PORTCULL" + bytes([0, 1, 0, 1]) + bytes(108)
            for kind, length, sent in ((2, 16 << 20, 0), (1, 1 << 20, 4096), (1, 26, 26)):
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(9)
                client.connect(sys.argv[1])
                client.sendall(hello)
                client.recv(16)
                start = time.monotonic()
                body = b"\\x00" + (0).to_bytes(4, "big") + bytes([10]) + (7).to_bytes(4, "big") + (12).to_bytes(4, "big") + b"planted-name"
                client.sendall(bytes([kind, 0, 0, 0]) + length.to_bytes(4, "big") + (body + b"x" * sent)[:sent])
                answer = b""
                try:
                    while more := client.recv(65536): answer += more
                except ConnectionResetError: pass
                print(kind, b"no grant for this user" in answer, time.monotonic() - start < 5)

            """
        let asked = try run("setpriv", "--reuid=33", "--regid=33", "--clear-groups", "/usr/bin/python3", "-c", script, daemon.folder.path("socket.\(Daemon.controlPort)"), folder: daemon.folder)
        #expect(asked.output == "2 True True\n1 True True\n1 True True\n", "\(asked.evidence)\n\(daemon.log)")
        let trail = try String(contentsOfFile: daemon.folder.path("state/audit/management-00000001.jsonl"), encoding: .utf8)
        let records = trail.split(separator: "\n").filter { $0.contains("\"uid\":33,") }
        #expect(records.count == 3 && records.allSatisfy { $0.contains("\"decision\":\"refused\"") && $0.utf8.count < 1500 && !$0.contains("planted") }, "\(records)")
        #expect(records.first?.contains("\"op\":\"commit\"") == true && records.first?.contains("\"bytes\":\(16 << 20)") == true, "\(records)")
        #expect(records.last?.contains("\"op\":\"new\"") == true && records.last?.contains("\"code\":\"hmac:") == true && records.last?.contains("\"arguments\":[]") == true, "\(records)")
        try stillAnswers(daemon)
    }

    @Test("Garbage is ended or refused")
    func garbage() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        var random = SystemRandomNumberGenerator()
        for round in 0..<(Subject.soaks ? 5000 : 200) {
            let connection = try ManagementWire(daemon)
            var bytes = (0..<Int.random(in: 120...600, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            if round % 2 == 0 {
                // Plausible headers, so that more than the length is looked at.
                bytes.replaceSubrange(0..<8, with: [UInt8.random(in: 0...8, using: &random), 0, 0, 0, UInt8.random(in: 0...9, using: &random), 0, 0, 0])
                for index in 8..<72 { bytes[index] = 0 }
                let length = UInt32(bytes.count)
                for index in 0..<4 { bytes[72 + index] = UInt8(truncatingIfNeeded: length >> (8 * UInt32(index))) }
            }
            connection.send(bytes)
            #expect(connection.answer(within: Self.promptly) != .silence, "\(bytes)")
        }
        try stillAnswers(daemon)
    }

    @Test("A second daemon of either kind is refused in tgt's words", arguments: [(true, true), (true, false), (false, true), (false, false)])
    func rival(oursFirst: Bool, oursSecond: Bool) throws {
        let debian = Subject.variable("PORTCULLIS_DEBIAN_TGTD") ?? "/usr/sbin/tgtd"
        guard FileManager.default.isExecutableFile(atPath: debian) || (oursFirst && oursSecond) else { return }
        let folder = try Folder()
        func start(_ ours: Bool) throws -> Running {
            let words = [ours ? Subject.tgtd : debian, "-f", "--iscsi", "portal=127.0.0.1:\(try Ports.next())"] + (ours ? ["--state", folder.path("state")] : [])
            return try Running(words, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
        }
        func answers() throws -> Bool {
            try run(Subject.tgtadm, "--op", "show", "--mode", "sys", environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder).succeeded
        }
        let first = try start(oursFirst)
        defer { if oursFirst { first.signal(SIGTERM); first.wait(seconds: 10) } }
        #expect(try eventually(within: 10, answers), "\(first.output)")
        let second = try start(oursSecond).wait(seconds: 10)
        #expect(second.ending == .exited(1) && second.output.contains("another tgtd is using \(folder.path("socket.0")).lock"), "\(second.evidence)")
        #expect(try answers())
    }

    @Test("A block device that somebody else has opened for himself is refused, and taken when it is free")
    func deviceInUse() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        let file = try daemon.folder.sparseFile("device", size: 8 << 20)
        let attached = try run("losetup", "--find", "--show", file, folder: daemon.folder)
        guard attached.succeeded else {
            print("no loop devices here: the test of a device in use is left out (\(attached.output.trimmingCharacters(in: .whitespacesAndNewlines)))")
            return
        }
        let device = attached.output.trimmingCharacters(in: .whitespacesAndNewlines)
        defer { _ = try? run("losetup", "--detach", device, folder: daemon.folder) }
        let holder = try Running(
            ["python3", "-c", "import os, time; os.open('\(device)', os.O_RDWR | os.O_EXCL); print('held', flush=True); time.sleep(600)"], folder: daemon.folder)
        #expect(eventually(within: 10) { holder.output.hasPrefix("held") }, "\(holder.output)")
        let words = "--op new --mode logicalunit --tid 1 --lun 1 -b \(device)".split(separator: " ").map(String.init)
        let refused = try daemon.admin(words)
        #expect(refused.ending == .exited(22) && refused.output == "tgtadm: invalid request\n", "\(refused.evidence)")
        #expect(daemon.log.contains(device), daemon.evidence)
        holder.kill()
        #expect(try daemon.admin(words).succeeded, daemon.evidence)
        try daemon.must("--op delete --mode logicalunit --tid 1 --lun 1")
    }

    /// Seconds in which whoever speaks is answered, and whoever idles is ended, on a machine that has other things to do. What is
    /// tested is that it comes.
    static let promptly = 60.0

    private func stillAnswers(_ daemon: Daemon) throws {
        let end = try daemon.admin(["--op", "show", "--mode", "target"], seconds: Self.promptly)
        #expect(end.succeeded && !end.output.contains("tgtd closed the socket"), "\(end.evidence)\ntgtd's log:\n\(daemon.log.suffix(2000))")
    }
}

/// A request of tgt's protocol, made without a check so that a test can say anything.
struct Request: Sendable, CustomTestStringConvertible {
    enum Mode: UInt32 { case system, target, logicalUnit, portal, lld, session, connection, account }
    enum Operation: UInt32 { case new, delete, show, bind, unbind, update, stat, start, stop }

    var mode: UInt32
    var operation: UInt32
    var lld: [UInt8] = []
    var tid: Int32
    var lun: UInt64 = .max
    var direction: UInt32 = 0
    var text: [UInt8]
    /// tgt wants a zero behind the text.
    var isTerminated = true
    var about = ""

    init(_ mode: Mode, _ operation: Operation, tid: Int32 = -1, lun: UInt64 = .max, text: String = "", _ about: String = "", change: (inout Request) -> Void = { _ in }) {
        self.mode = mode.rawValue
        self.operation = operation.rawValue
        self.tid = tid
        self.lun = lun
        self.text = Array(text.utf8)
        self.about = about
        change(&self)
    }

    var testDescription: String { about }

    func bytes(length: UInt32? = nil) -> [UInt8] {
        func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
            stride(from: 0, to: Value.bitWidth, by: 8).map { UInt8(truncatingIfNeeded: value >> Value($0)) }
        }
        let payload = text.isEmpty ? [] : text + (isTerminated ? [0] : [])
        var bytes = little(mode) + little(operation) + lld + [UInt8](repeating: 0, count: 64 - lld.count)
        bytes += little(length ?? UInt32(120 + payload.count)) + little(tid) + little(UInt64(0)) + little(lun) + little(UInt32(0))
        bytes += little(UInt32(0)) + little(UInt32(0)) + little(direction) + little(UInt32(0)) + little(UInt32(0))
        return bytes + payload
    }

    static let invalidRequest: UInt32 = 17

    /// tgt falls over the first of these, and does something else than it was asked for with many others.
    static let invalid: [Request] = [
        Request(.target, .new, tid: 5, "a target without a name"),
        Request(.target, .new, tid: 5, text: "path=/dev/null", "a target with a path for a name"),
        Request(.target, .update, tid: 1, "an update of nothing"),
        Request(.target, .update, tid: 1, text: "MaxBurstLength", "an update without a value"),
        Request(.target, .bind, tid: 1, "a rule without address and name"),
        Request(.logicalUnit, .update, tid: 1, lun: 0, text: "targetOps", "parameters that are none"),
        Request(.account, .new, "an account without anything"),
        Request(.account, .new, text: "user=somebody", "an account without a password"),
        Request(.account, .new, text: "password=secret", "an account without a name"),
        Request(.account, .delete, "the end of no account"),
        Request(.account, .bind, tid: 1, "a binding of no account"),
        Request(.portal, .new, "a portal without an address"),
        Request(.portal, .new, text: "portalOps ,", "a portal with an empty address"),
        Request(.system, .update, "a setting of nothing"),
        Request(.session, .show, tid: 1, "sessions cannot be shown"),
        Request(.system, .new, "a second system"),
        Request(.target, .show, "mode 8") { $0.mode = 8 },
        Request(.target, .show, "operation 9") { $0.operation = 9 },
        Request(.account, .bind, tid: 1, text: "user=somebody", "a direction that does not exist") { $0.direction = 2 },
        Request(.target, .show, "a driver's name without its end") { $0.lld = [UInt8](repeating: 0x78, count: 64) },
        Request(.target, .show, "something behind the driver's name") { $0.lld = Array("iscsi\0x".utf8) },
        Request(.target, .new, tid: 5, text: "targetname=iqn.a\0b", "a zero in a name"),
        Request(.target, .new, tid: 5, text: "targetname=iqn.a", "a text without its zero") { $0.isTerminated = false },
        Request(.target, .new, tid: 5, text: "targetname=iqn.a\nTarget 9: b", "a line's end in a name"),
        Request(.target, .new, tid: 5, text: "targetname=iqn.\u{1b}[2J", "an escape sequence in a name"),
        Request(.target, .new, tid: 5, text: "targetname=iqn.\u{7f}", "a delete character in a name"),
        Request(.target, .new, tid: 5, text: "targetname=iqn.a,targetname=iqn.b", "two names"),
        Request(.target, .new, tid: 5, text: "targetname=" + String(repeating: "a", count: 224), "a name of 224 bytes"),
        Request(.target, .new, tid: 5, text: "targetname=" + String(repeating: "a", count: 8000), "a name of 8000 bytes"),
        Request(.target, .new, tid: 0, text: "targetname=iqn.a", "a target with the number 0"),
        Request(.target, .new, tid: -1, text: "targetname=iqn.a", "a target with a negative number"),
        Request(.target, .bind, tid: 1, text: "initiator-name=iqn.\u{1}", "a control character in an initiator's name"),
        Request(.target, .bind, tid: 1, text: "initiator-name=" + String(repeating: "a", count: 224), "an initiator's name of 224 bytes"),
        Request(.target, .bind, tid: 1, text: "initiator-address=ALL,initiator-address=ALL", "an address twice"),
        Request(.logicalUnit, .new, tid: 1, lun: 1, text: "path=/dev/zero,path=/dev/null", "two paths"),
        Request(.logicalUnit, .new, tid: 1, lun: 1, text: "path=/tmp/\u{1}", "a path to nowhere with a control character"),
        Request(.logicalUnit, .new, tid: 1, lun: 1, text: "bstype=rdwr,path=/dev/zero", "items in the wrong order"),
        Request(.account, .new, text: "user=a\u{1b}b,password=secret", "an escape character in an account's name"),
        Request(.account, .new, text: "user=" + String(repeating: "u", count: 256) + ",password=secret", "an account's name of 256 bytes"),
    ]
}

/// A connection to the management socket.
final class ManagementWire {
    private let descriptor: Int32
    private var received: [UInt8] = []

    enum Ending: Equatable { case answered(UInt32, String), closed, silence }

    init(_ daemon: Daemon) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: daemon.folder.path("socket.\(Daemon.controlPort)").utf8) }
        let connected = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard connected == 0 else { throw Failure("cannot connect to the management socket: \(reason(errno))") }
    }
    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) {
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { raw in
                unsafe Glibc.send(descriptor, raw.baseAddress! + sent, raw.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 || errno == EINTR else { return }
            sent += max(count, 0)
        }
    }

    func leave() { _ = shutdown(descriptor, Int32(SHUT_RDWR)) }

    /// The answer that stands when the other side closes.
    func answer(within seconds: Double) -> Ending {
        let end = ContinuousClock.now + .seconds(seconds)
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while ContinuousClock.now < end {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&entry, 1, 100) == 1 else { continue }
            let count = unsafe bytes.withUnsafeMutableBytes { raw in unsafe recv(descriptor, raw.baseAddress!, raw.count, Int32(MSG_DONTWAIT)) }
            if count > 0 {
                received += bytes.prefix(count)
            } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
                guard received.count >= 8 else { return .closed }
                let error = (0..<4).reduce(UInt32(0)) { $0 | UInt32(received[$1]) << UInt32(8 * $1) }
                return .answered(error, String(decoding: received.dropFirst(8).prefix { $0 != 0 }, as: UTF8.self))
            }
        }
        return .silence
    }
}
