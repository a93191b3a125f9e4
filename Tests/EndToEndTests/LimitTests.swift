import Foundation
import Glibc
import Testing

/// The limits of `tgtadm --mode system --op show`: below, at and above each of them.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct LimitTests {
    /// A daemon with a disk and these limits.
    private func daemon(_ limits: String..., wrapper: [String] = []) throws -> (Daemon, Folder) {
        let folder = try Folder()
        let settings = try folder.write((["limits:"] + limits.map { "  \($0)" }).joined(separator: "\n") + "\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        return (try Daemon.serving(size: 8 << 20, options: limits.isEmpty ? [] : ["--config", settings], wrapper: wrapper), folder)
    }

    /// The tgtadm of an administrator who will not wait.
    private func administrates(_ daemon: Daemon, within seconds: Double = 3) throws -> Bool {
        let finished = try daemon.admin(["--op", "show", "--mode", "target"])
        return finished.succeeded && finished.output.contains("Target 1: ") && finished.elapsed < .seconds(seconds)
    }

    @Test("They are shown, and everything that reads the report finds what it looks for")
    func shown() throws {
        let (daemon, _) = try daemon("sessions-per-target: 7", "management-idle-seconds: 3")
        let shown = try daemon.must("--op show --mode system")
        let limits = shown.components(separatedBy: "\nLimits:\n").last?.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) } ?? []
        #expect(limits == [
            "unauthenticated-connections=1024", "unauthenticated-connections-per-source=512", "sessions-per-target=7", "management-connections=256",
            "management-connections-per-user=64", "management-idle-seconds=3", "sessions=60000", "connections-per-session=1", "tasks-per-session=128",
            "memory=268435456", "management-request-bytes=8312", "transaction-bytes=16777216", "transaction-requests=262144", "management-held-bytes=67108864",
        ], "\(shown)")
        // As Longhorn looks for it.
        #expect(shown.contains(" rdwr") && shown.contains("State: ready"))
    }

    @Test("Connections that have not logged in are limited by source; one more is closed, and other sources are served")
    func bySource() throws {
        let (daemon, _) = try daemon("unauthenticated-connections-per-source: 4", "management-connections: 10")
        var idle = try (0..<3).map { _ in try Wire(port: daemon.port, source: 2) }
        #expect(try Initiator(port: daemon.port, source: 2).login(target: Daemon.iqn("disk")) == 0, "below the limit")
        // Who has logged in counts no more, as soon as login has heard of it.
        #expect(try eventually(within: 3) {
            let fourth = try Wire(port: daemon.port, source: 2)
            if !fourth.closes(within: 0.2) { idle.append(fourth) }
            return idle.count == 4
        })
        let extra = try Wire(port: daemon.port, source: 2)
        #expect(extra.closes(within: 3), "above the limit")
        #expect(idle.allSatisfy { !$0.isClosedNow() }, daemon.evidence)
        #expect(try Initiator(port: daemon.port, source: 3).login(target: Daemon.iqn("disk")) == 0)
        idle.removeLast().shutdown()
        #expect(try eventually(within: 3) { try Initiator(port: daemon.port, source: 2).login(target: Daemon.iqn("disk")) == 0 }, "there is room again")
    }

    @Test("Connections that have not logged in are limited in all; then the oldest of the greediest source goes")
    func inAll() throws {
        let (daemon, _) = try daemon("unauthenticated-connections: 6")
        let greedy = try (0..<4).map { _ in try Wire(port: daemon.port, source: 2) }
        let modest = try (3...4).map { try Wire(port: daemon.port, source: UInt8($0)) }
        // All six have been accepted when a seventh, which comes later, is served.
        let newcomer = try Initiator(port: daemon.port, source: 5)
        #expect(newcomer.login(target: Daemon.iqn("disk")) == 0)
        #expect(greedy[0].closes(within: 3))
        #expect((greedy.dropFirst() + modest).allSatisfy { !$0.isClosedNow() }, daemon.evidence)
    }

    @Test("A target has so many sessions; one more login is answered 0302, and a session may take its own place")
    func sessions() throws {
        let (daemon, _) = try daemon("sessions-per-target: 3")
        let initiators = try (1...3).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: UInt8($0)) }
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), isid: 4) == 0x0302)
        let again = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: 1)
        #expect(initiators[0].wire.closes(within: 3))
        for initiator in [again, initiators[1], initiators[2]] { try initiator.settle() }
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), isid: 4) == 0x0302)
        initiators[2].wire.shutdown()
        #expect(try eventually(within: 3) { try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), isid: 4) == 0 })
        #expect(daemon.log.contains("the target has 3 sessions already"))
    }

    @Test("A session has as many tasks as MaxQueueCmd says: the command window is no wider", arguments: [1, 5, 128])
    func tasks(depth: Int) throws {
        let (daemon, _) = try daemon()
        try daemon.must("--op update --mode target --tid 1 --name MaxQueueCmd --value \(depth)")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        initiator.wire.send(initiator.command(cdb: [0, 0, 0, 0, 0, 0]).bytes)
        let answer = try #require(initiator.receive())
        #expect(answer.number(at: 32) - answer.number(at: 28) + 1 == depth)
    }

    @Test("Silent management connections of one user make room for one that speaks, and are closed in time")
    func managementPerUser() throws {
        let (daemon, _) = try daemon("management-connections-per-user: 4", "management-idle-seconds: 4")
        let begin = ContinuousClock.now
        var silent = try (0..<3).map { _ in try LocalWire(daemon) }
        #expect(try administrates(daemon))
        #expect(silent.allSatisfy { !$0.isClosed(within: 0) }, "below the limit")
        silent.append(try LocalWire(daemon))
        #expect(try administrates(daemon), "at the limit")
        #expect(silent[0].isClosed(within: 1), "the one that has been silent longest makes room")
        try #require(ContinuousClock.now - begin < .seconds(4), "too slow to tell one reason to close from the other")
        #expect(silent.dropFirst().allSatisfy { !$0.isClosed(within: 0) }, daemon.evidence)
        #expect(silent.allSatisfy { $0.isClosed(within: 6) }, daemon.evidence)
    }

    @Test("Management connections are limited in all")
    func managementInAll() throws {
        let (daemon, _) = try daemon("management-connections: 2")
        let silent = try (0..<2).map { _ in try LocalWire(daemon) }
        #expect(try administrates(daemon))
        #expect(silent[0].isClosed(within: 1) && !silent[1].isClosed(within: 0), daemon.evidence)
    }

    @Test("Three hundred silent management connections keep no administrator waiting, and end by themselves")
    func silentCrowd() throws {
        let (daemon, _) = try daemon("management-idle-seconds: 5")
        let silent = try (0..<300).map { _ in try LocalWire(daemon) }
        #expect(try administrates(daemon), daemon.evidence)
        #expect(silent.allSatisfy { $0.isClosed(within: 8) }, daemon.evidence)
        #expect(try administrates(daemon))
    }

    @Test("Half a management request and silence ends in its time, and nobody else waits", arguments: [1, 119, 120, 121])
    func halfRequest(length: Int) throws {
        let (daemon, _) = try daemon("management-idle-seconds: 2")
        let half = try LocalWire(daemon)
        // A new target whose text never comes as a whole: operation 0, mode 1, 8312 bytes in all.
        half.send(LocalWire.request(operation: 0, mode: 1, length: 8312, text: []).prefix(length) + (length > 120 ? [0x74] : []))
        #expect(try administrates(daemon, within: 1.5))
        #expect(!half.isClosed(within: 0.5), "not before its time")
        #expect(half.isClosed(within: 5), daemon.evidence)
    }

    @Test("A management request has at most 8312 bytes")
    func requestBytes() throws {
        let (daemon, _) = try daemon()
        for (length, isAnswered) in [(8311, true), (8312, true), (8313, false)] {
            let wire = try LocalWire(daemon)
            wire.send(LocalWire.request(operation: 0, mode: 1, length: length, text: [UInt8](repeating: 0x61, count: length - 120)))
            #expect(wire.isClosed(within: 3) && (wire.received > 0) == isAnswered, "\(length): \(wire.received) bytes")
        }
    }

    // MARK: Too many open files

    /// So many descriptors for each of its processes.
    private func scarce(_ count: Int) -> [String] { ["sh", "-c", "ulimit -n \(count); exec \"$@\"", "sh"] }

    /// Seconds on a processor that its processes take while `body` runs.
    private func busySeconds(_ daemon: Daemon, _ body: () throws -> Void) throws -> Double {
        let family = daemon.family
        let before = family.reduce(0) { $0 + Processes.cpuSeconds(of: $1) }
        try body()
        return family.reduce(0) { $0 + Processes.cpuSeconds(of: $1) } - before
    }

    @Test("A low soft limit of open files is raised to the hard one")
    func softLimit() throws {
        let (daemon, _) = try daemon(wrapper: ["sh", "-c", "ulimit -S -n 64; exec \"$@\"", "sh"])
        let idle = try (0..<120).map { _ in try Wire(port: daemon.port) }
        let initiators = try (1...70).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: UInt8($0)) }
        #expect(idle.allSatisfy { !$0.isClosedNow() } && initiators.count == 70, daemon.evidence)
    }

    @Test("When login may open no more connections it rests, administrators are served, and service comes back")
    func descriptorsOfLogin() throws {
        let (daemon, _) = try daemon(wrapper: scarce(64))
        let family = daemon.family
        do {
            let idle = try (0..<120).map { _ in try Wire(port: daemon.port) }
            let busy = try busySeconds(daemon) { () throws in
                pause(seconds: 3)
                let served = try administrates(daemon)
                #expect(served)
            }
            #expect(busy < 0.5, "\(busy) s of 3 on a processor\n\(daemon.log.suffix(2000))")
            #expect(daemon.log.contains("connections wait"), daemon.evidence)
            #expect(daemon.log.contains("each process may open 64 files and the limits need 1152"), daemon.evidence)
            for wire in idle { wire.shutdown() }
        }
        #expect(try eventually(within: 5) { try Initiator(port: daemon.port).login(target: Daemon.iqn("disk")) == 0 }, daemon.evidence)
        #expect(daemon.family == family, daemon.evidence)
    }

    @Test("When data may open no more connections, the sessions it has go on, and others get in when they end")
    func descriptorsOfData() throws {
        let (daemon, _) = try daemon(wrapper: scarce(64))
        let family = daemon.family
        let initiators = try (1...90).compactMap { number -> Initiator? in
            let initiator = try Initiator(port: daemon.port)
            return initiator.login(target: Daemon.iqn("disk"), isid: UInt8(number)) == 0 ? initiator : nil
        }
        #expect((20..<90).contains(initiators.count) && daemon.log.contains("this process may open no more descriptors"), "\(initiators.count) sessions\n\(daemon.log.suffix(2000))")
        for initiator in initiators { try initiator.settle() }
        #expect(try administrates(daemon))
        #expect(daemon.family == family, daemon.evidence)
        for initiator in initiators { initiator.wire.shutdown() }
        #expect(try eventually(within: 5) { try Initiator(port: daemon.port).login(target: Daemon.iqn("disk")) == 0 }, daemon.evidence)
        #expect(daemon.family == family, daemon.evidence)
    }

    @Test("When administrators have opened what control may open but for logins, it rests, no session suffers, who logs in gets in, and service comes back")
    func descriptorsOfControl() throws {
        // A quarter of them is for logins.
        let (daemon, _) = try daemon("management-idle-seconds: 2", wrapper: scarce(80))
        let family = daemon.family
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        // One that logs in meanwhile: begun before, finished then.
        let begun = try Initiator(port: daemon.port)
        var request = Initiator.loginRequest(
            keys: ["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn("disk"))"], isid: 4)
        request.header[1] = 0x04
        begun.wire.send(request.bytes)
        let answer = try #require(begun.receive())
        #expect(answer.statusClassAndDetail == 0 && answer.header[1] & 0x80 == 0)
        let silent = try (0..<60).map { _ in try LocalWire(daemon) }
        let busy = try busySeconds(daemon) { () throws in
            pause(seconds: 1)
            begun.wire.send(Initiator.loginRequest(keys: [], isid: 4, expStatSN: answer.number(at: 24) + 1).bytes)
            #expect(begun.receive()?.statusClassAndDetail == 0, daemon.evidence)
            #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), isid: 2) == 0, daemon.evidence)
            let read = try initiator.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096)
            #expect(read.status == 0)
        }
        #expect(busy < 0.5, "\(busy) s on a processor\n\(daemon.log.suffix(2000))")
        #expect(daemon.log.contains("management requests wait"), daemon.evidence)
        #expect(silent.allSatisfy { $0.isClosed(within: 20) }, daemon.evidence)
        #expect(try administrates(daemon))
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk"), isid: 3) == 0)
        try daemon.addTarget(2, name: "other")
        try daemon.addDisk(tid: 2, file: daemon.folder.sparseFile("other", size: 1 << 20))
        #expect(daemon.family == family, daemon.evidence)
    }
}

/// A connection to the management socket that says what a test likes.
final class LocalWire {
    private let descriptor: Int32
    /// Bytes that have come.
    private(set) var received = 0

    init(_ daemon: Daemon) throws {
        let path = daemon.folder.path("socket.\(Daemon.controlPort)")
        descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let connected = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard connected == 0 else { throw Failure("cannot connect to \(path): \(reason(errno))") }
    }
    deinit { close(descriptor) }

    func send(_ bytes: some Collection<UInt8>) {
        let bytes = Array(bytes)
        _ = unsafe bytes.withUnsafeBytes { unsafe Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    /// Whether the daemon closes it within that time; what it says is counted.
    func isClosed(within seconds: Double) -> Bool {
        let end = ContinuousClock.now + .seconds(seconds)
        var bytes = [UInt8](repeating: 0, count: 4096)
        repeat {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard unsafe poll(&entry, 1, seconds == 0 ? 0 : 50) == 1 else { continue }
            let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
            guard count > 0 else { return true }
            received += count
        } while ContinuousClock.now < end
        return false
    }

    /// tgt's request: a header of 120 bytes and a text.
    static func request(operation: UInt32, mode: UInt32, length: Int, text: [UInt8]) -> [UInt8] {
        func little(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        var bytes = little(mode) + little(operation) + Array("iscsi".utf8) + [UInt8](repeating: 0, count: 59)
        bytes += little(UInt32(length)) + little(9) + [UInt8](repeating: 0, count: 40)
        return bytes + text
    }
}
