import Audit
import Crypto
import Foundation
import Glibc
import JSON
import Logging
import Reactor
import Testing

@testable import AuditLog

/// `tgt-audit` as an administrator runs it.
@Suite("tgt-audit", .serialized)
struct ProgramTests {
    private let folder: Folder
    private let keys: String

    /// Both trails, ended as tgtd ends them, and their keys carried elsewhere.
    init() throws {
        folder = try Folder()
        let loop = try EventLoop()
        var log = Logger(label: "audit")
        log.logLevel = .critical
        var options = AuditOptions()
        options.management.fileLength = 4096
        let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), options, sealingKey: key, log: log)
        for number in 1...30 {
            let actor = Actor(uid: UInt32(number % 2), gid: 0, pid: 7, user: number % 2 == 0 ? "root" : "eve", role: "operator", tenant: "t\(number % 3)")
            auditor.attempt(Attempt(actor, [Action(mode: "target", operation: number % 2 == 0 ? "new" : "delete", arguments: [.init("tid", "\(number)")])], number % 5 == 0 ? .refused : .allowed, reason: "a rule")) { _ in }
            if number % 10 == 0 { auditor.event(SecurityEvent(.loginRefused, source: "192.0.2.\(number)", .refused, reason: "wrong response")) }
            // Each its own group.
            var isDone = false
            auditor.settle { isDone = true }
            while !isDone { loop.turn(waitingAtMost: 100_000_000) }
        }
        keys = folder.path + "/keys"
        var text: [UInt8] = []
        for name in ["management", "network"] {
            let path = folder.path + "/" + TrailNames(name).verificationKey
            text += try Files.readTrusted(path, limit: 1000) ?? []
            Files.remove(path)
        }
        try Files.replace(keys, with: text)
    }

    private func run(_ arguments: [String]) throws -> (code: Int32, output: String, errors: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: programs + "/tgt-audit")
        process.arguments = [arguments[0], "--directory", folder.path] + arguments.dropFirst()
        let output = Pipe(), errors = Pipe()
        (process.standardOutput, process.standardError) = (output, errors)
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile(), trouble = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: text, as: UTF8.self), String(decoding: trouble, as: UTF8.self))
    }

    private var files: [String] { get throws { try Files.names(in: folder.path).filter { $0.hasPrefix("management-") }.sorted().map { folder.path + "/" + $0 } } }

    private func contents(_ path: String) throws -> [UInt8] { try Files.readTrusted(path, limit: 1 << 20) ?? [] }

    private func edit(_ path: String, _ body: (inout [[UInt8]]) -> Void) throws {
        var lines = try contents(path).split(separator: UInt8(ascii: "\n")).map { Array($0) }
        body(&lines)
        try Files.replace(path, with: Array(lines.joined(separator: [UInt8(ascii: "\n")])) + (lines.isEmpty ? [] : [UInt8(ascii: "\n")]))
    }

    @Test("A trail that nobody has touched is whole: 0; with the public key alone as well, since its end has a checkpoint")
    func whole() throws {
        let result = try run(["verify", "--key", keys])
        #expect(result.code == 0 && result.output.hasSuffix("whole\n"), "\(result)")
        let publicKeys = folder.path + "/public"
        let text = String(decoding: try contents(keys), as: UTF8.self)
        let lines = text.split(separator: "\n").map { line in line.split(separator: ":").enumerated().map { $0.offset == 2 ? "" : $0.element }.joined(separator: ":") }
        try Files.replace(publicKeys, with: Array(("# no secret\n" + lines.joined(separator: "\n") + "\n").utf8))
        let byPublic = try run(["verify", "--key", publicKeys])
        #expect(byPublic.code == 0 && byPublic.output.contains("checkpoints vouch"), "\(byPublic)")
    }

    @Test("A record that was changed, removed, inserted or moved: 1, and it is named", arguments: ["change", "remove", "insert", "move", "truncate", "file"])
    func broken(how: String) throws {
        let files = try files
        #expect(files.count > 3)
        let (file, other) = (files[1], files[2])
        let first = try #require(ShownRecord(contents(file).split(separator: UInt8(ascii: "\n"))[3])).number
        switch how {
        case "change": try edit(file) { lines in lines[3][lines[3].count - 100] ^= 1 }
        case "remove": try edit(file) { lines in lines.remove(at: 3) }
        case "insert": try edit(file) { lines in lines.insert(lines[0], at: 3) }
        case "move": try edit(file) { lines in lines.swapAt(3, 5) }
        case "truncate": try edit(files[files.count - 1]) { lines in lines.removeLast() }
        default: Files.remove(other)
        }
        let result = try run(["verify", "--key", keys])
        #expect(result.code == 1 && result.output.hasSuffix("broken\n"), "\(result)")
        if how != "truncate" && how != "file" { #expect(result.output.contains("management: record \(first) "), "\(first): \(result)") }
        #expect(result.output.contains("network: records 1 to"))
    }

    @Test("What cannot be checked is not called whole: 2 without the state or with the key beside, 3 with nothing to check by, 64 for a wrong command line")
    func incomplete() throws {
        #expect(try run(["verify"]).code == 3)
        #expect(try run(["verify", "--key", folder.path + "/nothing"]).code == 3)
        #expect(try run(["verify", "--keys", keys]).code == 64)
        #expect(try run(["show", "--since", "yesterday"]).code == 64)
        for wrong in ["-1", "x", "9223372036854775808"] { #expect(try run(["show", "--last=" + wrong]).code == 64) }
        #expect(try run(["show", "--last", "9223372036854775807"]).output == run(["show"]).output)
        let head = folder.path + "/head"
        let printed = try run(["head"])
        #expect(printed.code == 0)
        try Files.replace(head, with: Array(printed.output.utf8))
        #expect(try run(["verify", "--key", keys, "--head", head]).code == 0)
        // The last of many counts.
        let other = printed.output.split(separator: "\n").map { $0.prefix($0.utf8.count - 4) + "ff\"}" }.joined(separator: "\n") + "\n"
        let heads = String(repeating: printed.output, count: (1 << 16) / printed.output.utf8.count + 1)
        try Files.replace(folder.path + "/heads", with: Array((heads + other).utf8))
        #expect(try run(["verify", "--key", keys, "--head", folder.path + "/heads"]).code == 1)
        Files.remove(folder.path + "/management.state")
        let result = try run(["verify", "--trail", "management", "--key", keys])
        #expect(result.code == 2 && result.output.contains("cannot be said"), "\(result)")
        // A head from elsewhere finds what the state would have.
        try edit(files.last ?? "") { lines in lines.removeLast() }
        #expect(try run(["verify", "--trail", "management", "--key", keys]).code == 2)
        #expect(try run(["verify", "--trail", "management", "--key", keys, "--head", head]).code == 1)
        let networkKey = try contents(keys).split(separator: UInt8(ascii: "\n")).last ?? []
        try Files.replace(folder.path + "/network.verification-key", with: Array(networkKey))
        let beside = try run(["verify", "--trail", "network"])
        #expect(beside.code == 2 && beside.output.contains("the key lay beside"), "\(beside)")
    }

    @Test("Records are shown as asked for, in each form")
    func shown() throws {
        let table = try run(["show"])
        #expect(table.code == 0 && table.output.contains("target delete") && table.output.contains("tid=30"))
        let json = try run(["show", "--format", "json", "--who", "eve", "--decision", "refused"])
        let values = try json.output.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }
        #expect(values.count == 3 && values.allSatisfy { $0["user"] == .string("eve") && $0["decision"] == .string("refused") })
        let csv = try run(["show", "--format", "csv", "--op", "new", "--tenant", "t0", "--last", "2"])
        let rows = csv.output.split(separator: "\n")
        #expect(rows.count == 3 && rows[0].hasPrefix("sequence,time,kind") && rows[1].contains("tid=24") && rows[2].contains("tid=30"))
        let both = try run(["show", "--trail", "management", "--trail", "network", "--format", "json", "--since", "2026-01-01"])
        #expect(both.output.contains("loginRefused") && both.output.contains("attempt"))
        // The trails' own records are written later than those that came before them.
        let requests = try both.output.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }.filter { ["attempt", "event"].contains($0["kind"]?.string) }
        let times = requests.map { $0["time"]?.string ?? "" }
        #expect(times.count == 33)
        #expect(times == times.sorted())
        #expect(try run(["show", "--until", "2001-01-01", "--format", "json"]).output == "")
        #expect(try run(["show", "--directory", "/nonexistent"]).code == 3)
    }

    @Test("Following shows what comes, also over the end of a file", .timeLimit(.minutes(1)))
    func follow() throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: programs + "/tgt-audit")
        process.arguments = ["follow", "--directory", folder.path, "--format", "json", "--kind", "attempt", "--last", "1"]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        // The threads of tests block the other signals, and so do processes that they start.
        defer {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
        var text = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        #expect(text.contains("\"tid\",\"30\""))
        let loop = try EventLoop()
        var log = Logger(label: "audit")
        log.logLevel = .critical
        var options = AuditOptions()
        options.management.fileLength = 2048
        let auditor = try Auditor(loop: loop, AuditDirectory(writing: folder.path), options, sealingKey: key, log: log)
        for number in 31...50 {
            auditor.attempt(Attempt(Actor(uid: 0, gid: 0, pid: 7), [Action(mode: "target", operation: "new", arguments: [.init("tid", "\(number)")])], .allowed)) { _ in }
            var isDone = false
            auditor.settle { isDone = true }
            while !isDone { loop.turn(waitingAtMost: 100_000_000) }
        }
        // Whoever waits in vain is to see what there is.
        while !text.contains("\"tid\",\"50\""), Socket.wait(output.fileHandleForReading.fileDescriptor, .readable, nanoseconds: 20_000_000_000) {
            let more = output.fileHandleForReading.availableData
            guard !more.isEmpty else { break }
            text += String(decoding: more, as: UTF8.self)
        }
        for number in 30...50 { #expect(text.components(separatedBy: "\"tid\",\"\(number)\"").count == 2, "\(number)") }
    }
}
