// Writes trails as control does, for tests that kill it and fill its disk:
//
//   audit-writer work DIRECTORY KEY AT-ONCE SECONDS   requests, so many at once; the numbers of what took effect (c) and was answered (a) to descriptor 3
//   audit-writer fill DIRECTORY KEY                   the same while the file system is full and when it is not any more

import Audit
import AuditLog
import Crypto
import Glibc
import JSON
import Logging
import Reactor

let words = CommandLine.arguments
guard words.count >= 4, let key = JSONValue.bytes(hexadecimal: words[3].utf8) else { exit(64) }
var log = Logger(label: "audit-writer")
log.logLevel = .error

func tell(_ text: String) {
    let bytes = Array(text.utf8)
    _ = unsafe bytes.withUnsafeBytes { unsafe write(3, $0.baseAddress, $0.count) }
}

func fail(_ text: String) -> Never {
    Console.error(text + "\n")
    exit(1)
}

@MainActor final class Work {
    let loop: EventLoop
    let auditor: Auditor
    private let actor = Actor(uid: 0, gid: 0, pid: 1, executable: "/usr/sbin/tgtadm", user: "root", authentication: "socket", role: "administrator")
    private(set) var done = 0
    private var started = 0

    init(_ directory: String, _ key: [UInt8], _ options: AuditOptions) {
        do {
            loop = try EventLoop()
            auditor = try Auditor(loop: loop, AuditDirectory(writing: directory), options, sealingKey: Secret(key), log: log)
        } catch { fail("\(error)") }
    }

    /// One request after another, for ever.
    func request() {
        started += 1
        let action = Action(mode: "target", operation: "new", arguments: [.init("tid", "\(started)"), .init("targetname", "iqn.2026-11.org.example:disk-\(started)")])
        auditor.attempt(Attempt(actor, [action], .allowed, reason: "grant 1")) { [self] kept in
            guard case .recorded(let number) = kept else { return }
            // This is the change.
            tell("c\(number)\n")
            auditor.outcome(Outcome(of: number, actor, [action], .success, changes: ["target added"], microseconds: 100)) { [self] kept in
                guard case .recorded(let number) = kept else { return }
                tell("a\(number)\n")
                done += 1
                request()
            }
        }
    }

    /// One request, and what was said to it.
    func attempt() -> Auditor.Kept {
        var result: Auditor.Kept?
        auditor.attempt(Attempt(actor, [Action(mode: "target", operation: "new")], .allowed)) { result = $0 }
        while result == nil { loop.turn(waitingAtMost: 1_000_000_000) }
        return result!
    }

    func end() {
        var hasEnded = false
        auditor.end { hasEnded = true }
        while !hasEnded { loop.turn(waitingAtMost: 1_000_000_000) }
    }
}

var options = AuditOptions()
switch words[1] {
case "work":
    guard words.count == 6, let atOnce = Int(words[4]), let seconds = UInt64(words[5]) else { exit(64) }
    // Small files, so that one begins now and then.
    options.management.fileLength = 64 << 10
    let work = Work(words[2], key, options)
    work.loop.after(nanoseconds: seconds * 1_000_000_000) { work.loop.stop() }
    for _ in 0..<atOnce { work.request() }
    work.loop.run()
    work.end()
    tell("done \(work.done)\n")
case "fill":
    options.management.reserve = 64 << 10
    options.network.reserve = 16 << 10
    let work = Work(words[2], key, options)
    guard case .recorded = work.attempt() else { fail("refused before the disk is full") }
    work.auditor.event(SecurityEvent(.loginRefused, source: "192.0.2.1", .refused))
    let filler = words[2] + "/filler"
    let descriptor = unsafe open(filler, O_WRONLY | O_CREAT, 0o600)
    let zeros = [UInt8](repeating: 0, count: 4096)
    while unsafe zeros.withUnsafeBytes({ unsafe write(descriptor, $0.baseAddress, $0.count) }) > 0 {}
    close(descriptor)
    // What is reserved beyond the reserve is used up, then the reserve.
    var recorded = 0, refused = 0
    while refused < 2000 {
        switch work.attempt() {
        case .recorded: if refused > 0 { fail("allowed while the disk is full") } else { recorded += 1 }
        case .refused(let reason):
            guard reason.contains("No space left") else { fail(reason) }
            refused += 1
        case .unrecorded(let reason): fail(reason)
        }
    }
    tell("recorded \(recorded) refused \(refused)\n")
    _ = unsafe unlink(filler)
    guard case .recorded(let number) = work.attempt() else { fail("refused when there is room again") }
    tell("again \(number)\n")
    work.end()
default: exit(64)
}
exit(0)
