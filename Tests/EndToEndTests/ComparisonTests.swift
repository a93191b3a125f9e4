import Foundation
import Testing

/// One script of tgtadm commands (`Comparison/commands`), carried out by {our tgtd, Debian's} with {our tgtadm, Debian's}.
/// Exit codes, output and error texts are what Debian's two say, but for what `Comparison/differences` lists with its reason.
@Suite(.enabled(if: Contender.isComplete, "Debian's tgtd and tgtadm are needed: `make setup`"))
struct ComparisonTests {
    /// What every pair answered, asked once for all tests.
    static let answers: Result<[Pair: [Answer]], any Error> = Result {
        let script = try Script.read()
        return try Dictionary(uniqueKeysWithValues: Pair.allCases.map { ($0, try Contender(pair: $0).perform(script)) })
    }

    @Test("The script asks for enough: every mode, and at least 200 commands")
    func extent() throws {
        let commands = try Script.read().compactMap(\.command)
        #expect(commands.count >= 200)
        for mode in ["system", "target", "lu", "portal", "account", "conn", "sess", "lld"] {
            #expect(commands.contains { $0.contains("--mode \(mode) ") || $0.hasSuffix("--mode \(mode)") }, "no command of mode \(mode)")
        }
    }

    @Test("Every command is answered as Debian's tgt answers it, but for the differences that are listed", arguments: Pair.allCases.filter { $0 != .reference })
    func answersAlike(pair: Pair) throws {
        let answers = try Self.answers.get()
        let listed = try Difference.read().filter { pair.sides.contains($0.side) }
        for (expected, answer) in zip(answers[.reference] ?? [], answers[pair] ?? []) {
            let unlisted = Difference.lines(from: expected, to: answer).filter { line in
                !listed.contains { $0.isAbout(answer.command) && $0.permits(line) }
            }
            #expect(unlisted.isEmpty, "line \(answer.line): \(answer.command)\n\(unlisted.joined(separator: "\n"))")
        }
    }

    @Test("Every listed difference still occurs")
    func listIsTrue() throws {
        let answers = try Self.answers.get()
        for difference in try Difference.read() {
            var commands = Set(difference.commands), lines = Set(difference.lines)
            for pair in Pair.allCases where pair.sides.contains(difference.side) {
                for (expected, answer) in zip(answers[.reference] ?? [], answers[pair] ?? []) where difference.isAbout(answer.command) {
                    for line in Difference.lines(from: expected, to: answer) where difference.permits(line) {
                        commands = commands.filter { !matches(answer.command, $0) }
                        lines = lines.filter { !matches(line, $0) }
                    }
                }
            }
            #expect(commands.isEmpty && lines.isEmpty, "no such difference any more: \(commands.sorted()) \(lines.sorted())\n\(difference.reason)")
        }
    }
}

/// Whose daemon and whose client.
enum Pair: CaseIterable, CustomTestStringConvertible {
    case reference, ourClient, ourDaemon, both

    /// Which side of the reference pair is replaced by ours.
    var sides: Set<Difference.Side> {
        switch self {
        case .reference: []
        case .ourClient: [.client]
        case .ourDaemon: [.daemon]
        case .both: [.client, .daemon]
        }
    }
    var daemonIsOurs: Bool { sides.contains(.daemon) }
    var client: String { sides.contains(.client) ? Subject.tgtadm : Subject.debianTgtadm }
    var testDescription: String { "\(daemonIsOurs ? "our" : "Debian's") tgtd, \(sides.contains(.client) ? "our" : "Debian's") tgtadm" }
}

/// A command's end: `= code`, then `| line` for each line of output and `! line` for each of errors.
struct Answer {
    let line: Int
    let command: String
    let text: [String]
}

/// A line of `Comparison/commands`.
struct Script {
    let line: Int
    let text: String

    /// What a shell gets to do.
    var command: String? { text.hasPrefix("tgtadm") ? text : nil }
    /// `@word argument`: what an initiator does, or the test.
    var event: [String]? { text.hasPrefix("@") ? text.dropFirst().split(separator: " ").map(String.init) : nil }

    static func read() throws -> [Script] {
        try lines(of: "commands").enumerated().map { Script(line: $0 + 1, text: $1) }.filter { !$0.text.isEmpty && !$0.text.hasPrefix("#") }
    }
    static func lines(of name: String) throws -> [String] {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Comparison/\(name)")
        return try String(contentsOf: file, encoding: .utf8).components(separatedBy: "\n")
    }
}

/// A block of `Comparison/differences`: `daemon:` or `client:` with the reason, `$ commands`, `- lines` of Debian's, `+ lines` of
/// ours; `*` in a command or a line stands for anything.
struct Difference {
    enum Side: String { case daemon, client }

    let side: Side
    let reason: String
    var commands: [String] = []
    var lines: [String] = []

    func isAbout(_ command: String) -> Bool { commands.contains { matches(command, $0) } }
    func permits(_ line: String) -> Bool { lines.contains { matches(line, $0) } }

    static func read() throws -> [Difference] {
        var blocks: [Difference] = []
        for line in try Script.lines(of: "differences") where !line.isEmpty && !line.hasPrefix("#") {
            let words = line.split(separator: ":", maxSplits: 1).map(String.init)
            if let side = Side(rawValue: words[0]), words.count == 2 {
                blocks.append(Difference(side: side, reason: words[1].trimmingCharacters(in: .whitespaces)))
            } else if blocks.isEmpty {
                throw Failure("a difference begins with daemon: or client:, not with “\(line)”")
            } else if line.hasPrefix("$ ") {
                blocks[blocks.count - 1].commands.append(String(line.dropFirst(2)))
            } else if line.hasPrefix("- ") || line.hasPrefix("+ ") {
                blocks[blocks.count - 1].lines.append(line)
            } else {
                throw Failure("“\(line)” is no line of a difference")
            }
        }
        for block in blocks where block.commands.isEmpty || block.lines.isEmpty || block.reason.isEmpty {
            throw Failure("a difference needs a reason, a command and a line: \(block)")
        }
        return blocks
    }

    static func lines(from expected: Answer, to answer: Answer) -> [String] {
        answer.text.difference(from: expected.text).map { change in
            switch change {
            case .remove(_, let line, _): "- \(line)"
            case .insert(_, let line, _): "+ \(line)"
            }
        }
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
private func matches(_ text: String, _ pattern: String) -> Bool {
    let parts = pattern.components(separatedBy: "*")
    guard parts.count > 1 else { return text == pattern }
    guard text.hasPrefix(parts[0]) else { return false }
    var rest = text.dropFirst(parts[0].count)
    for part in parts.dropFirst().dropLast() where !part.isEmpty {
        guard let found = rest.range(of: part) else { return false }
        rest = rest[found.upperBound...]
    }
    return rest.hasSuffix(parts[parts.count - 1])
}

/// A pair of programs with the disks that the script speaks of.
private final class Contender {
    static let debianTgtd = Subject.variable("PORTCULLIS_DEBIAN_TGTD") ?? "/usr/sbin/tgtd"
    static var isComplete: Bool {
        Subject.isPortcullis && [debianTgtd, Subject.debianTgtadm].allSatisfy { FileManager.default.isExecutableFile(atPath: $0) }
    }

    private let pair: Pair
    private let folder: Folder
    private let daemon: Running
    private var variables: [String: String]
    private let ports: [(name: String, port: Int)]
    /// Somebody else, who uses a port.
    private let neighbour: Running
    private var initiators: [Initiator] = []
    private var logins: UInt8 = 0

    init(pair: Pair) throws {
        self.pair = pair
        folder = try Folder()
        for (name, size) in [
            ("disk1", 100 << 20), ("disk2", 1 << 30), ("disk3", 10 << 20), ("odd", 1 << 20 + 100), ("tiny", 100), ("empty", 0), ("with space", 1 << 20),
        ] {
            _ = try folder.sparseFile(name, size: size)
        }
        try must("sh", "-c", "mkdir folder && mkfifo fifo && ln -s disk3 link && ln -s nowhere dangling", environment: [:], in: folder)
        ports = try ["PORT", "FREE1", "FREE2", "FREE3", "USED"].map { ($0, try Ports.next()) }
        variables = ["DIR": folder.path, "TGT_IPC_SOCKET": folder.path("socket"), "TGTADM": pair.client, "ERRORS": folder.path("errors")]
        for (name, port) in ports { variables[name] = String(port) }
        let holdsPort = "import socket, time; s = socket.create_server(('127.0.0.1', \(ports[4].port))); print('ready', flush=True); time.sleep(600)"
        neighbour = try Running(["python3", "-c", holdsPort], folder: folder)
        var words = [pair.daemonIsOurs ? Subject.tgtd : Self.debianTgtd, "-f", "--iscsi", "portal=127.0.0.1:\(ports[0].port)"]
        // Names and serial numbers are made from the installation's own number otherwise, which tgt has not.
        if pair.daemonIsOurs { words += ["--state", folder.path("state"), "--compat-ids"] }
        daemon = try Running(words, environment: variables, folder: folder)
        guard eventually(within: 10, { neighbour.output.hasPrefix("ready") }) else { throw Failure(neighbour.output) }
        let ready = try eventually(within: 10) { try call("tgtadm --op show --mode system").first == "= 0" }
        guard ready else { throw Failure("\(pair.testDescription) do not answer:\n\(daemon.output)") }
    }

    deinit {
        neighbour.kill()
        // Debian's ignores SIGTERM; ours ends its own.
        if pair.daemonIsOurs {
            daemon.signal(SIGTERM)
            daemon.wait(seconds: 10)
        } else {
            daemon.kill()
        }
    }

    func perform(_ script: [Script]) throws -> [Answer] {
        var answers: [Answer] = []
        for step in script {
            if let event = step.event {
                try carryOut(event)
            } else {
                answers.append(Answer(line: step.line, command: step.text, text: try call(step.text)))
            }
        }
        return answers
    }

    private func call(_ command: String) throws -> [String] {
        let shell = "tgtadm() { \"$TGTADM\" \"$@\"; }\n{ \(command)\n} 2>\"$ERRORS\""
        let end = try Running(["/bin/sh", "-c", shell], environment: variables, folder: folder).wait(seconds: 20)
        guard case .exited(let code) = end.ending else { throw Failure("\(command): \(end.evidence)") }
        return ["= \(code)"] + lines(end.output).map { "| \($0)" } + lines(folder.text(of: folder.path("errors"))).map { "! \($0)" }
    }

    /// The lines of a text with names for what differs from run to run: folders, ports, programs.
    private func lines(_ text: String) -> [String] {
        var text = text.replacingOccurrences(of: folder.path, with: "$DIR").replacingOccurrences(of: "\(pair.client):", with: "tgtadm:")
        for (name, port) in ports { text = text.replacingOccurrences(of: ":\(port)", with: ":$\(name)") }
        var lines = text.components(separatedBy: "\n")
        if lines.last == "" { lines.removeLast() }
        return lines
    }

    private func carryOut(_ event: [String]) throws {
        let count = event.count > 1 ? Int(event[1]) ?? 0 : 0
        switch event[0] {
        case "login":
            logins += 1
            let initiator = try Initiator.login(port: ports[0].port, target: "iqn.2003-01.org.example:\(event[1])", isid: logins)
            try initiator.settle(lun: 4)
            initiators.append(initiator)
            let newest = try call("tgtadm --op show --mode conn --tid 1").first { $0.hasPrefix("| Session: ") }
            variables["SID"] = newest.map { String($0.dropFirst("| Session: ".count)) }
        case "read":
            for _ in 0..<count { _ = try initiators[0].perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], lun: 4, read: 4096) }
        case "write":
            let data = [UInt8](repeating: 0x57, count: 4096)
            for _ in 0..<count { _ = try initiators[0].perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], lun: 4, write: data) }
        case "logout":
            for initiator in initiators { initiator.wire.shutdown() }
            initiators = []
            let gone = try eventually(within: 10) { try call("tgtadm --op show --mode conn --tid 1").allSatisfy { !$0.hasPrefix("| ") } }
            guard gone else { throw Failure("the sessions stay:\n\(daemon.output)") }
        case "ended":
            let end = daemon.wait(seconds: 10)
            guard end.succeeded else { throw Failure(end.evidence) }
        default: throw Failure("the script has no event “\(event[0])”")
        }
    }
}

private func must(_ words: String..., environment: [String: String], in folder: Folder) throws {
    let end = try Running(["env", "-C", folder.path] + words, environment: environment, folder: folder).wait(seconds: 20)
    guard end.succeeded else { throw Failure(end.evidence) }
}
