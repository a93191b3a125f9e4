import Audit
import Crypto
import Glibc
import JSON
import Logging
import Reactor
import Synchronization
import Testing

@testable import AuditLog

/// A directory of a test's own.
final class Folder {
    let path: String

    init() throws {
        var template = Array("/tmp/portcullis-audit-XXXXXX\0".utf8CString.dropLast())
        guard unsafe mkdtemp(&template) != nil else { throw SystemError("mkdtemp", errno) }
        path = String(decoding: template.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    deinit {
        for name in (try? Files.names(in: path)) ?? [] { Files.remove(path + "/" + name) }
        _ = unsafe rmdir(path)
    }
}

private let quiet: Logger = {
    var log = Logger(label: "audit")
    log.logLevel = .critical
    return log
}()

private let actor = Actor(uid: 0, gid: 0, pid: 1, user: "root")

/// Where the programs are: beside the tests' own bundle.
let programs: String = {
    let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") }
    return bundle.flatMap { path in path.lastIndex(of: "/").map { String(path[..<$0]) } } ?? ".build/debug"
}()
/// What tests kill and starve.
private let writerProgram = programs + "/audit-writer"

@Suite("The audit as control sees it", .serialized)
struct AuditorTests {
    private static func wait(_ loop: EventLoop, seconds: Int = 20, until isDone: () -> Bool) {
        for _ in 0..<seconds * 100 where !isDone() { loop.turn(waitingAtMost: 10_000_000) }
    }

    private static func settle(_ auditor: Auditor, _ loop: EventLoop) {
        var isSettled = false
        auditor.settle { isSettled = true }
        wait(loop) { isSettled }
        #expect(isSettled)
    }

    @Test("Attempts, outcomes and events come into their trails, each in its file, and both verify")
    func together() throws {
        let folder = try Folder()
        let loop = try EventLoop()
        var kept: [Auditor.Kept] = []
        do {
            let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), AuditOptions(), sealingKey: key, log: quiet)
            let action = Action(mode: "account", operation: "new", arguments: [.init("password", Secret(Array("hush hush hush".utf8)), auditor.secretCode)])
            auditor.attempt(Attempt(actor, [action], .allowed)) { answer in
                kept.append(answer)
                guard case .recorded(let number) = answer else { return }
                auditor.outcome(Outcome(of: number, actor, [action], .success, changes: ["account added"], microseconds: 5)) { kept.append($0) }
            }
            #expect(kept.isEmpty)
            for _ in 0..<50 { auditor.event(SecurityEvent(.loginRefused, source: "192.0.2.1", .refused, reason: "wrong response")) }
            auditor.event(SecurityEvent(.peerRefused, source: "uid 65534", .refused))
            Self.wait(loop) { kept.count == 2 }
            #expect(kept == [.recorded(2), .recorded(4)] || kept == [.recorded(2), .recorded(3)])
            Self.settle(auditor, loop)
        }
        let storage = AuditDirectory(reading: folder.path)
        let management = Read(storage, try verificationKey(storage)), network = Read(storage, try verificationKey(storage, "network"), trail: "network")
        #expect(management.isWhole && network.isWhole)
        #expect(management.count("attempt") == 1 && management.count("outcome") == 1 && management.count("event") == 1)
        #expect(network.count("event") == 10 && network.count("suppressed") == 1)
        #expect(!management.lines.contains { $0.firstRange(of: Array("hush".utf8)) != nil })
        // Everything has its checkpoint.
        #expect(management.conclusion?.lastCheckpoint == management.conclusion?.last)
        for name in try Files.names(in: folder.path) {
            var status = stat()
            #expect(unsafe stat(folder.path + "/" + name, &status) == 0 && status.st_mode & 0o077 == 0)
        }
    }

    @Test("The loop does not wait for the medium: many requests are one group")
    func grouped() throws {
        let folder = try Folder()
        let loop = try EventLoop()
        let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), AuditOptions(), sealingKey: key, log: quiet)
        var kept = 0
        let started = ContinuousClock.now
        for _ in 0..<500 { auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { if case .recorded = $0 { kept += 1 } } }
        let given = ContinuousClock.now - started
        Self.wait(loop) { kept == 500 }
        #expect(kept == 500)
        print("audit: 500 attempts at once: given in \(given), on the medium after \(ContinuousClock.now - started)")
    }

    @Test("A medium that hangs: the change is refused in time, and what had been written as allowed gets its outcome", .timeLimit(.minutes(1)))
    func hanging() throws {
        let disk = HangingDisk()
        let shared = disk.gate
        let loop = try EventLoop()
        var options = AuditOptions()
        options.patience = 500_000_000
        let auditor = try Auditor(loop: loop, disk, options, sealingKey: key, log: quiet)
        Self.wait(loop, seconds: 1) { false }
        var kept: Auditor.Kept?
        shared.close()
        let started = ContinuousClock.now
        auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { kept = $0 }
        Self.wait(loop) { kept != nil }
        guard case .refused = kept else { Issue.record("\(String(describing: kept))"); return }
        #expect(ContinuousClock.now - started < .seconds(10))
        #expect(auditor.trouble != nil)
        shared.open()
        Self.settle(auditor, loop)
        Self.settle(auditor, loop)
        #expect(auditor.trouble == nil)
        var hasEnded = false
        auditor.end { hasEnded = true }
        Self.wait(loop) { hasEnded }
        #expect(hasEnded)
        let read = shared.withDisk { disk in Read(disk, try! verificationKey(disk)) }
        #expect(read.count("attempt") == 1 && read.count("outcome") == 1)
    }

    @Test("While the medium hangs, looks keep no change from being taken down, and what waits has its bound in bytes", .timeLimit(.minutes(1)))
    func stalled() throws {
        let disk = HangingDisk()
        let shared = disk.gate
        let loop = try EventLoop()
        var options = AuditOptions()
        options.patience = 60_000_000_000
        let auditor = try Auditor(loop: loop, disk, options, sealingKey: key, log: quiet)
        Self.wait(loop, seconds: 1) { false }
        shared.close()
        let small = Action(mode: "target", operation: "show"), large = Action(mode: "target", operation: "new", arguments: [.init("x", String(repeating: "x", count: 1 << 20))])
        for _ in 0..<10_000 { auditor.look(Outcome(of: nil, actor, [small], .success, microseconds: 1)) }
        var kept: [Auditor.Kept] = []
        auditor.attempt(Attempt(actor, [small], .allowed)) { kept.append($0) }
        for _ in 0..<100 { auditor.attempt(Attempt(actor, [large], .allowed)) { kept.append($0) } }
        Self.wait(loop) { kept.count >= 69 }
        // A few that go on being taken from the queue do not matter.
        #expect(kept.allSatisfy { if case .refused(let reason) = $0 { reason.contains("behind") } else { false } } && (60...70).contains(kept.count), "\(kept.count)")
        shared.open()
        Self.wait(loop) { kept.count == 101 }
        #expect(kept.count(where: { if case .recorded = $0 { true } else { false } }) >= 31)
        Self.settle(auditor, loop)
        let read = shared.withDisk { disk in Read(disk, try! verificationKey(disk)) }
        #expect(read.isWhole && (4000...2 * AuditLimits.waiting).contains(read.count("outcome")) && read.count("unrecorded") >= 1, "\(read.count("outcome"))")
    }

    @Test("What is recorded as allowed and refused since the trail's state cannot be kept has that for its outcome", .timeLimit(.minutes(1)))
    func takenBack() throws {
        let disk = HangingDisk()
        let shared = disk.gate
        let loop = try EventLoop()
        let auditor = try Auditor(loop: loop, disk, AuditOptions(), sealingKey: key, log: quiet)
        var kept: [Auditor.Kept] = []
        func attempt() { auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { kept.append($0) } }
        attempt()
        Self.wait(loop) { kept.count == 1 }
        Self.settle(auditor, loop)
        shared.withDisk { $0.failing = $0.steps + 3..<$0.steps + 4 }
        attempt()
        Self.wait(loop) { kept.count == 2 }
        guard case .recorded(let first) = kept[0], case .refused = kept[1] else { Issue.record("\(kept)"); return }
        Self.wait(loop) { auditor.trouble == nil }
        Self.settle(auditor, loop)
        let read = shared.withDisk { disk in Read(disk, try! verificationKey(disk)) }
        let outcome = read.lines.compactMap { try? JSONValue(parsing: $0) }.first { $0["kind"] == .string("outcome") }
        #expect(read.isWhole && outcome?["attempt"] == .number(Int(first) + 2) && outcome?["result"] == .string("refused"))
    }

    @Test("A checkpoint that cannot be made is said, and made as soon as it can be", .timeLimit(.minutes(1)))
    func lateCheckpoint() throws {
        let disk = HangingDisk()
        let shared = disk.gate
        let loop = try EventLoop()
        var options = AuditOptions()
        options.checkpointInterval = 1_000_000_000
        let auditor = try Auditor(loop: loop, disk, options, sealingKey: key, log: quiet)
        var kept: Auditor.Kept?
        auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { kept = $0 }
        Self.wait(loop) { kept != nil }
        shared.withDisk { $0.failing = 0..<Int.max }
        Self.wait(loop, seconds: 10) { auditor.trouble != nil }
        #expect(auditor.trouble != nil)
        shared.withDisk { $0.failing = 0..<0 }
        func isSigned() -> Bool {
            let read = shared.withDisk { disk in Read(disk, try! verificationKey(disk)) }
            return read.isWhole && read.conclusion?.lastCheckpoint == read.conclusion?.last
        }
        Self.wait(loop, seconds: 10) { auditor.trouble == nil && isSigned() }
        #expect(auditor.trouble == nil && isSigned())
    }

    @Test("The second sink gets every line, and one that hangs keeps nobody")
    func secondSink() throws {
        let folder = try Folder()
        let loop = try EventLoop()
        var options = AuditOptions()
        let lines = Mutex<[String]>([])
        // It hangs at first.
        let gate = Gate()
        gate.close()
        options.copy = { line in
            gate.pass()
            lines.withLock { $0.append(line) }
        }
        let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), options, sealingKey: key, log: quiet)
        var kept = 0
        for _ in 0..<3000 { auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { _ in kept += 1 } }
        Self.wait(loop) { kept == 3000 }
        #expect(kept == 3000)
        gate.open()
        Self.wait(loop) { lines.withLock { $0.last?.contains("were not copied") == true } }
        let copied = lines.withLock { $0 }
        #expect(copied.count <= 2 * AuditLimits.copies + 2 && copied.contains { $0.hasPrefix("management {\"sequence\":2,") })
        #expect(copied.last?.contains("were not copied") == true)
    }

    @Test("Killed at any moment: every change that took effect has its attempt, every answer its outcome, and the trail verifies")
    func killed() throws {
        let folder = try Folder()
        var generator = Generator(state: 17)
        var verification: VerificationKey?
        var changes = 0, answers = 0, cuts = 0
        let rounds = isSoaking ? 60 : 12
        for _ in 0..<rounds {
            let output = try Output()
            let child = try ChildProcess(
                path: writerProgram, arguments: ["audit-writer", "work", folder.path, String(repeating: "07", count: 32), "8", "60"], environment: [],
                descriptors: [output.writing])
            output.closeWriting()
            _ = child.wait(nanoseconds: UInt64.random(in: 20_000_000...250_000_000, using: &generator))
            child.send(signal: SIGKILL)
            _ = child.wait(nanoseconds: 10_000_000_000)
            let told = output.lines()
            let storage = AuditDirectory(reading: folder.path)
            // It can die before it has a trail.
            guard let there = try? verificationKey(storage) else { continue }
            verification = verification ?? there
            // As the next start leaves it.
            do {
                let loop = try EventLoop()
                let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), AuditOptions(), sealingKey: key, log: quiet)
                Self.settle(auditor, loop)
            }
            let read = Read(AuditDirectory(reading: folder.path), try #require(verification))
            #expect(read.isWhole, "\(read.failure.map { "\($0)" } ?? "")")
            var records: [UInt64: JSONValue] = [:]
            for line in read.lines.suffix(4 * told.count + 200) {
                guard let value = try? JSONValue(parsing: line), let number = value["sequence"]?.number else { continue }
                records[UInt64(number)] = value
            }
            for line in told {
                guard let number = UInt64(line.dropFirst()) else { continue }
                #expect(records[number]?["kind"] == .string(line.hasPrefix("c") ? "attempt" : "outcome"), "\(line)")
                if line.hasPrefix("c") { changes += 1 } else { answers += 1 }
            }
            cuts = read.count("recovered")
        }
        #expect(changes > 0 && answers > 0)
        print("audit: killed \(rounds) times: \(changes) changes and \(answers) answers, all recorded; \(cuts) torn ends were cut")
    }

    @Test("On a file system that is full changes are refused and that is recorded; with room they are allowed again", .enabled(if: geteuid() == 0, "only root mounts"))
    func fullFileSystem() throws {
        let folder = try Folder()
        let output = try Output()
        // The mount is the child's alone; what is left of the trail is copied out of it.
        let script = """
            set -e; mkdir "$1/small"; mount -t tmpfs -o size=1m,mode=700 none "$1/small"
            "$2" fill "$1/small" "$3"; cp -a "$1"/small/management* "$1/"; umount "$1/small"; rmdir "$1/small"
            """
        let child = try ChildProcess(
            path: "/usr/bin/unshare", arguments: ["unshare", "-m", "--propagation", "private", "/bin/bash", "-c", script, "-", folder.path, writerProgram, String(repeating: "07", count: 32)],
            environment: ["PATH=/usr/bin:/bin"], descriptors: [output.writing])
        output.closeWriting()
        #expect(child.wait(nanoseconds: 60_000_000_000) == .exited(0))
        let told = output.lines()
        #expect(told.count == 2, "\(told)")
        let storage = AuditDirectory(reading: folder.path)
        let read = Read(storage, try verificationKey(storage))
        #expect(read.isWhole, "\(read.failure.map { "\($0)" } ?? "")")
        let values = read.lines.compactMap { try? JSONValue(parsing: $0) }
        let refused = values.filter { $0["decision"] == .string("refused") }
        let lost = values.filter { $0["kind"] == .string("unrecorded") }.compactMap { $0["count"]?.number }.reduce(0, +)
        #expect(refused.count > 20 && refused.count + lost == 2000)
        print("audit: full file system: \(told.joined(separator: ", ")); \(refused.count) refusals recorded out of the reserve, \(lost) by number")
    }

    @Test("How fast it is, by requests at once")
    func figures() throws {
        for atOnce in [1, 16, 64] {
            let folder = try Folder()
            let output = try Output()
            let child = try ChildProcess(
                path: writerProgram, arguments: ["audit-writer", "work", folder.path, String(repeating: "07", count: 32), "\(atOnce)", "1"], environment: [],
                descriptors: [output.writing])
            output.closeWriting()
            let told = output.lines()
            #expect(child.wait(nanoseconds: 10_000_000_000) == .exited(0))
            let done = try #require(told.last.flatMap { Int($0.dropFirst("done ".count)) })
            #expect(done > 10)
            print("audit: \(atOnce) at once: \(done) requests in a second, each two records on the medium")
        }
    }
}

/// What a child writes to its descriptor 3.
private final class Output {
    private let reading: Int32
    private(set) var writing: Int32

    init() throws {
        var ends: [Int32] = [-1, -1]
        guard unsafe pipe(&ends) == 0 else { throw SystemError("pipe", errno) }
        (reading, writing) = (ends[0], ends[1])
        // What a child that is killed has said must fit.
        _ = fcntl(writing, 1031, 1 << 20)
    }

    func closeWriting() {
        if writing >= 0 { close(writing) }
        writing = -1
    }

    /// All whole lines until its end.
    func lines() -> [String] {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65536)
        while true {
            let got = unsafe piece.withUnsafeMutableBytes { unsafe read(reading, $0.baseAddress, $0.count) }
            guard got > 0 else { break }
            bytes += piece.prefix(got)
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).dropLast().map(String.init)
    }

    deinit {
        close(reading)
        closeWriting()
    }
}

/// Somebody who is let through, or waits.
final class Gate: Sendable {
    private let isClosed = Atomic<Bool>(false)
    func close() { isClosed.store(true, ordering: .sequentiallyConsistent) }
    func open() { isClosed.store(false, ordering: .sequentiallyConsistent) }
    func pass() { while isClosed.load(ordering: .sequentiallyConsistent) { usleep(1000) } }
}

/// A disk that stops answering.
private final class HangingDisk: AuditStorage {
    final class Shared: Sendable {
        private let disk = Mutex(SimulatedDisk())
        private let gate = Gate()
        func close() { gate.close() }
        func open() { gate.open() }
        func pass() { gate.pass() }
        func withDisk<R: Sendable>(_ body: (SimulatedDisk) -> R) -> R { disk.withLock { body($0) } }
        func call<R: Sendable>(_ body: (SimulatedDisk) throws(FileError) -> R) throws(FileError) -> R {
            let result: Result<R, FileError> = disk.withLock { disk in
                do throws(FileError) { return .success(try body(disk)) } catch { return .failure(error) }
            }
            return try result.get()
        }
    }
    let gate = Shared()

    func names() throws(FileError) -> [String] { try gate.call { disk throws(FileError) in try disk.names() } }
    func length(of name: String) throws(FileError) -> Int { try gate.call { disk throws(FileError) in try disk.length(of: name) } }
    func read(_ name: String, at offset: Int, count: Int) throws(FileError) -> [UInt8] { try gate.call { disk throws(FileError) in try disk.read(name, at: offset, count: count) } }
    func create(_ name: String) throws(FileError) { try gate.call { disk throws(FileError) in try disk.create(name) } }
    func write(_ name: String, _ bytes: [UInt8], at offset: Int) throws(FileError) { try gate.call { disk throws(FileError) in try disk.write(name, bytes, at: offset) } }
    func reserve(_ name: String, _ range: Range<Int>) throws(FileError) -> Bool { try gate.call { disk throws(FileError) in try disk.reserve(name, range) } }
    func room() throws(FileError) -> (free: Int, total: Int)? { nil }
    func truncate(_ name: String, to length: Int) throws(FileError) { try gate.call { disk throws(FileError) in try disk.truncate(name, to: length) } }
    func flush(_ name: String) throws(FileError) {
        gate.pass()
        try gate.call { disk throws(FileError) in try disk.flush(name) }
    }
    func flushNames() throws(FileError) { try gate.call { disk throws(FileError) in try disk.flushNames() } }
    func remove(_ name: String) { _ = try? gate.call { disk throws(FileError) in disk.remove(name) } }
}
