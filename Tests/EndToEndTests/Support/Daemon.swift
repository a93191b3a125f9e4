import Foundation
import Glibc
import Synchronization
import Testing

/// Which programs the tests are about. `PORTCULLIS_TGTD` and `PORTCULLIS_TGTADM` name others than those built with the tests;
/// `PORTCULLIS_REFERENCE=1` says that they are tgt's, so that what only Portcullis does is not asked of them.
enum Subject {
    static let isReference = variable("PORTCULLIS_REFERENCE") != nil
    static let isPortcullis = !isReference
    /// `make soak`: everything that repeats does so many times more often.
    static let soaks = variable("PORTCULLIS_SOAK") != nil

    static let tgtd = variable("PORTCULLIS_TGTD") ?? built("tgtd")
    static let tgtadm = variable("PORTCULLIS_TGTADM") ?? built("tgtadm")
    /// The load client of the benchmarks.
    static let load = built("iscsi-load")
    /// tgt's own client, which has to go on working.
    static let debianTgtadm = variable("PORTCULLIS_DEBIAN_TGTADM") ?? "/usr/sbin/tgtadm"

    /// The package's folder: this file is Tests/EndToEndTests/Support/Daemon.swift in it.
    static let package = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    static func variable(_ name: String) -> String? {
        ProcessInfo.processInfo.environment[name].flatMap { $0.isEmpty ? nil : $0 }
    }
    private static func built(_ name: String) -> String {
        URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().appendingPathComponent(name).path
    }
}

/// A tgtd of a test's own: its folder, ports, socket and log.
final class Daemon {
    let folder: Folder
    let ports: [Int]
    private let host: String
    private let options: [String]
    /// Words before it: a program that becomes it.
    private let wrapper: [String]
    private(set) var process: Running

    var port: Int { ports[0] }
    var portal: String { "\(host):\(port)" }
    var log: String { process.output }

    static let controlPort = 7
    static let readyLimit = 10.0
    static let stopLimit = 10.0

    /// Starts it and waits until it answers.
    init(host: String = "127.0.0.1", portals: Int = 1, options: [String] = [], wrapper: [String] = []) throws {
        folder = try Folder()
        ports = try (0..<portals).map { _ in try Ports.next() }
        self.host = host
        self.options = options
        self.wrapper = wrapper
        process = try Self.launch(folder: folder, host: host, ports: ports, options: options, wrapper: wrapper)
        try waitUntilReady()
    }

    deinit { if Subject.isReference { process.kill() } else { stopOrKill() } }

    private static func launch(folder: Folder, host: String, ports: [Int], options: [String], wrapper: [String]) throws -> Running {
        var words = wrapper + [Subject.tgtd, "-f", "-C", String(controlPort), "--iscsi", ports.map { "portal=\(host):\($0)" }.joined(separator: ",")]
        if Subject.isPortcullis { words += ["--state", folder.path("state")] }
        return try Running(words + options, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
    }

    /// Starts a second one with the same settings, which the first should keep from running.
    func launchRival() throws -> Running {
        try Self.launch(folder: folder, host: host, ports: ports, options: options, wrapper: wrapper)
    }

    /// Starts it again after it has ended.
    func restart() throws {
        process = try Self.launch(folder: folder, host: host, ports: ports, options: options, wrapper: wrapper)
        try waitUntilReady()
    }

    private func waitUntilReady() throws {
        let ready = try eventually(within: Self.readyLimit) {
            if let ending = process.poll() { throw Failure("tgtd ended at its start (\(ending)):\n\(log)") }
            return try admin(["--op", "show", "--mode", "system"]).succeeded
        }
        guard ready else { throw Failure("tgtd does not answer:\n\(log)") }
    }

    /// Asks it to stop and waits.
    func stop(_ signal: Int32 = SIGTERM) -> Finished {
        process.signal(signal)
        return process.wait(seconds: Self.stopLimit)
    }

    private func stopOrKill() {
        process.signal(SIGTERM)
        process.wait(seconds: Self.stopLimit)
    }

    // MARK: Administration

    /// One call of tgtadm, whatever comes of it.
    func admin(_ words: [String], client: String = Subject.tgtadm, seconds: Double = 20) throws -> Finished {
        try startAdmin(words, client: client).wait(seconds: seconds)
    }

    /// A tgtadm that nobody waits for yet.
    func startAdmin(_ words: [String], client: String = Subject.tgtadm) throws -> Running {
        try Running(
            [client, "-C", String(Self.controlPort), "--lld", "iscsi"] + words, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
    }

    /// tgtadm with the words of `line`, which has to succeed; returns what it printed.
    @discardableResult
    func must(_ line: String, client: String = Subject.tgtadm) throws -> String {
        let finished = try admin(line.split(separator: " ").map(String.init), client: client)
        guard finished.succeeded else { throw Failure("\(finished.evidence)\ntgtd's log:\n\(log.suffix(4000))") }
        return finished.output
    }

    /// A target nobody may use yet.
    @discardableResult
    func addTarget(_ tid: Int = 1, name: String = "disk") throws -> String {
        let iqn = Self.iqn(name)
        try must("--op new --mode target --tid \(tid) -T \(iqn)")
        return iqn
    }

    /// A thin-provisioned disk.
    func addDisk(
        tid: Int = 1, lun: Int = 1, file: String, settings: String = "thin_provisioning=1", blockSize: Int = 512, more words: String = ""
    ) throws {
        try must("--op new --mode logicalunit --tid \(tid) --lun \(lun) -b \(file) --blocksize \(blockSize) \(words)")
        if !settings.isEmpty { try must("--op update --mode logicalunit --tid \(tid) --lun \(lun) --params \(settings)") }
    }

    func admit(_ rule: String = "-I ALL", tid: Int = 1) throws { try must("--op bind --mode target --tid \(tid) \(rule)") }

    static func iqn(_ name: String) -> String { "iqn.2026-11.org.example:\(name)" }
    func url(_ name: String = "disk", lun: Int = 1, portal index: Int = 0) -> String {
        "iscsi://\(host):\(ports[index])/\(Self.iqn(name))/\(lun)"
    }

    /// A daemon with one target that serves one disk of `size` bytes to everybody.
    static func serving(
        size: Int = 128 << 20, host: String = "127.0.0.1", portals: Int = 1, settings: String = "thin_provisioning=1", blockSize: Int = 512,
        more words: String = "", options: [String] = [], wrapper: [String] = []
    ) throws -> Daemon {
        let daemon = try Daemon(host: host, portals: portals, options: options, wrapper: wrapper)
        try daemon.addTarget()
        try daemon.addDisk(file: daemon.folder.sparseFile("disk", size: size), settings: settings, blockSize: blockSize, more: words)
        try daemon.admit()
        return daemon
    }

    // MARK: Its processes

    /// The child of control that was started with `--role` and this word.
    func child(role: String) -> pid_t? {
        Processes.children(of: process.pid).first { Processes.arguments(of: $0).contains(role) }
    }
    /// Those that live as long as it does.
    var family: [pid_t] { [process.pid] + ["login", "data"].compactMap { child(role: $0) } }
    /// Bytes of memory they hold that is not a file's.
    var residentBytes: Int { family.reduce(0) { $0 + Processes.anonymousBytes(of: $1) } }

    /// For an expectation's comment.
    var evidence: Comment { "tgtd's log:\n\(log.suffix(4000))" }
}

enum Processes {
    static func children(of parent: pid_t) -> [pid_t] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { pid_t($0) }.filter { parentOf($0) == parent }
    }
    private static func parentOf(_ pid: pid_t) -> pid_t? {
        guard let stat = read("/proc/\(pid)/stat"), let close = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[close...].split(separator: " ")
        return fields.count > 2 ? pid_t(fields[2]) : nil
    }
    static func arguments(of pid: pid_t) -> [String] {
        (read("/proc/\(pid)/cmdline") ?? "").split(separator: "\0").map(String.init)
    }
    /// What its threads are called.
    static func threads(of pid: pid_t) -> [String] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? []
        return tasks.compactMap { read("/proc/\(pid)/task/\($0)/comm")?.trimmingCharacters(in: .newlines) }
    }
    static func anonymousBytes(of pid: pid_t) -> Int { statusField("RssAnon", of: pid).map { $0 * 1024 } ?? 0 }
    /// Time that it has been running on a processor.
    static func cpuSeconds(of pid: pid_t) -> Double {
        guard let stat = read("/proc/\(pid)/stat"), let close = stat.lastIndex(of: ")") else { return 0 }
        // utime and stime, in ticks (proc(5)).
        let fields = stat[close...].split(separator: " ")
        return fields.count > 13 ? Double((Int(fields[12]) ?? 0) + (Int(fields[13]) ?? 0)) / Double(sysconf(Int32(_SC_CLK_TCK))) : 0
    }
    static func statusField(_ name: String, of pid: pid_t) -> Int? {
        status(name, of: pid)?.split(whereSeparator: { $0 == " " || $0 == "\t" }).first.flatMap { Int($0) }
    }
    /// A line of /proc/PID/status without its name.
    static func status(_ name: String, of pid: pid_t) -> String? {
        (read("/proc/\(pid)/status") ?? "").split(separator: "\n").first { $0.hasPrefix("\(name):") }
            .map { $0.dropFirst(name.count + 1).trimmingCharacters(in: .whitespaces) }
    }
    private static func read(_ path: String) -> String? {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) }
    }
}

/// Free ports of 127.0.0.1, each given once, below those the kernel gives to clients.
enum Ports {
    private static let range = 20_000..<32_000
    private static let cursor = Mutex(range.lowerBound + Int.random(in: 0..<range.count))

    static func next() throws -> Int {
        try cursor.withLock { cursor in
            for _ in range {
                cursor = cursor + 1 < range.upperBound ? cursor + 1 : range.lowerBound
                if Wire.isFree(port: cursor) { return cursor }
            }
            throw Failure("no free port")
        }
    }
}
