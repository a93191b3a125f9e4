import ArgumentParser
import Audit
import AuditLog
import JSON
import Reactor

/// `tgt-audit`: shows what administrators did and what concerned security, and whether all of it is still as it was written.
@main
struct TgtAudit: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tgt-audit",
        abstract: "Show and verify the audit trails of tgtd.",
        discussion: """
            There are two: management, what administrators asked for and what became of it; and network, what anybody causes who reaches a port.
            They are read from tgtd's directory, which belongs to root.
            """,
        subcommands: [Show.self, Follow.self, Verify.self, CurrentHead.self])
}

/// Where the trails are.
struct Place: ParsableArguments {
    @Option(name: .shortAndLong, help: "The directory of the trails.")
    var directory = "/var/lib/tgt/0/audit"

    var storage: AuditDirectory { AuditDirectory(reading: directory) }
}

enum TrailName: String, ExpressibleByArgument, CaseIterable { case management, network }

/// Words of the command line that mean something.
enum Words {
    @Sendable static func time(_ text: String) throws -> Timestamp {
        guard let time = Timestamp(text) else { throw ValidationError("a time is YYYY-MM-DD, YYYY-MM-DDTHH:MM or YYYY-MM-DDTHH:MM:SS, in UTC") }
        return time
    }

    @Sendable static func count(_ text: String) throws -> Int {
        guard let count = Int(text), count >= 0 else { throw ValidationError("a number of records is wanted") }
        return count
    }

    @Sendable static func decision(_ text: String) throws -> Decision {
        guard let decision = Decision(rawValue: text) else { throw ValidationError("allowed or refused is wanted") }
        return decision
    }
}

/// Which records.
struct Filter: ParsableArguments {
    @Option(help: "Which trail; may be given twice.")
    var trail: [TrailName] = [.management]
    @Option(help: ArgumentHelp("Only of this user, uid, initiator or source.", valueName: "who"))
    var who: String?
    @Option(help: ArgumentHelp("Only from then on: YYYY-MM-DD[THH:MM[:SS]], UTC.", valueName: "time"), transform: Words.time)
    var since: Timestamp?
    @Option(help: ArgumentHelp("Only up to then.", valueName: "time"), transform: Words.time)
    var until: Timestamp?
    @Option(help: "Only of this tenant.")
    var tenant: String?
    @Option(help: ArgumentHelp("Only what was allowed, or what was refused.", valueName: "allowed|refused"), transform: Words.decision)
    var decision: Decision?
    @Option(help: "Only requests of this mode.")
    var mode: String?
    @Option(help: "Only requests of this operation.")
    var op: String?
    @Option(help: "Only records of this kind (attempt, outcome, event, …), or events of this kind (loginRefused, …).")
    var kind: String?

    var selection: Selection {
        var selection = Selection()
        (selection.who, selection.since, selection.until, selection.tenant) = (who, since, until, tenant)
        (selection.decision, selection.mode, selection.operation, selection.kind) = (decision, mode, op, kind)
        return selection
    }
}

/// Gathers lines: one system call for many.
private struct Page {
    private var text = ""
    mutating func add(_ line: String) {
        text += line + "\n"
        if text.utf8.count > 1 << 16 { flush() }
    }
    mutating func flush() {
        Console.output(text)
        text = ""
    }
}

private func fail(_ text: String) -> ExitCode {
    Console.error("tgt-audit: \(text)\n")
    return ExitCode(Verification.Verdict.impossible.rawValue)
}

/// The records of several trails, in the order of their times.
private struct Merged {
    private var readers: [(reader: RecordReader, next: ShownRecord?)]

    init(_ storage: AuditDirectory, _ trails: [TrailName]) {
        // Each once.
        readers = TrailName.allCases.filter(trails.contains).map { (RecordReader(storage, trail: $0.rawValue), nil) }
    }

    mutating func next() throws(FileError) -> ShownRecord? {
        for index in readers.indices where readers[index].next == nil { readers[index].next = try readers[index].reader.next() }
        func time(_ index: Int) -> Int64 { readers[index].next?.time?.microseconds ?? 0 }
        guard let first = readers.indices.filter({ readers[$0].next != nil }).min(by: { time($0) < time($1) }) else { return nil }
        defer { readers[first].next = nil }
        return readers[first].next
    }

    var strange: Int { readers.reduce(0) { $0 + $1.reader.strange } }
}

/// So many records that came last.
private struct Last {
    private let count: Int
    private var kept: [ShownRecord] = []

    init(_ count: Int) { self.count = count }

    mutating func add(_ record: ShownRecord) {
        kept.append(record)
        // Now and then, so that it costs little.
        if kept.count > 1000, kept.count / 2 > count { kept.removeFirst(kept.count - count) }
    }

    var records: ArraySlice<ShownRecord> { kept.suffix(count) }
}

struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show records.")

    @OptionGroup var place: Place
    @OptionGroup var filter: Filter
    @Option(help: "table, json (a record a line, as it was written) or csv.") var format: Format = .table
    @Option(help: ArgumentHelp("Only so many of the last ones.", valueName: "count"), transform: Words.count) var last: Int?

    func run() throws {
        let selection = filter.selection, format = format.shown
        var records = Merged(place.storage, filter.trail)
        var page = Page()
        if let heading = format.heading { page.add(heading) }
        do throws(FileError) {
            var kept = Last(last ?? 0)
            while let record = try records.next() {
                guard selection.takes(record) else { continue }
                if last == nil { page.add(format.text(record)) } else { kept.add(record) }
            }
            for record in kept.records { page.add(format.text(record)) }
            page.flush()
        } catch {
            page.flush()
            throw fail("\(error)")
        }
        if records.strange > 0 { Console.error("tgt-audit: \(records.strange) lines are no records; tgt-audit verify says more\n") }
    }
}

struct Follow: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Show records, and then those that come, until it is ended.")

    @OptionGroup var place: Place
    @OptionGroup var filter: Filter
    @Option(help: "table, json (a record a line, as it was written) or csv.") var format: Format = .table
    @Option(help: ArgumentHelp("First so many of the last ones.", valueName: "count"), transform: Words.count) var last = 10

    func run() throws {
        let selection = filter.selection, format = format.shown
        var records = Merged(place.storage, filter.trail)
        if let heading = format.heading { Console.output(heading + "\n") }
        do {
            var kept = Last(last)
            while let record = try records.next() { if selection.takes(record) { kept.add(record) } }
            for record in kept.records { Console.output(format.text(record) + "\n") }
            kept = Last(0)
            let loop = try EventLoop()
            while true {
                var page = Page()
                while let record = try records.next() { if selection.takes(record) { page.add(format.text(record)) } }
                page.flush()
                loop.turn(waitingAtMost: 200_000_000)
            }
        } catch { throw fail("\(error)") }
    }
}

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Find out whether every record is as it was written, and name the first that is not.",
        discussion: """
            The key is the line that tgtd left as TRAIL.verification-key in the directory when the trail began. Keep it elsewhere: with it, whoever takes \
            this host later cannot change what was written before without being found. Without its third part (portcullis-audit-1:TRAIL::PUBLIC-KEY) it is \
            no secret, and vouches as far as the last checkpoint.

            The exit code is 0 if every record is as it was written and none is missing; 1 if not; 2 if nothing is wrong that could be found, but not all \
            could be checked, and why; 3 if nothing could be checked; 64 for a wrong command line. Of several trails the worst counts: 1, then 3, then 2.
            """)

    @OptionGroup var place: Place
    @Option(help: "Which trail; may be given twice.")
    var trail: [TrailName] = TrailName.allCases
    @Option(name: .shortAndLong, help: ArgumentHelp("A file with one or more verification keys, a line each; - is standard input. May be given more than once.", valueName: "file"))
    var key: [String] = []
    @Option(help: ArgumentHelp("A file with heads that tgt-audit head has printed earlier: what was there then must be there still. May be given more than once.", valueName: "file"))
    var head: [String] = []

    func run() throws {
        var keys: [VerificationKey] = [], heads: [Head] = []
        for file in key {
            for line in try lines(file) {
                guard let key = VerificationKey(line) else { throw fail("\(file): this is no verification key (portcullis-audit-1:TRAIL:KEY:PUBLIC-KEY)") }
                keys.append(key)
            }
        }
        for file in head {
            for line in try lines(file) {
                guard let head = (try? JSONValue(parsing: line)).flatMap({ Head($0) }) else { throw fail("\(file): this is no head") }
                heads.append(head)
            }
        }
        let storage = place.storage
        var worst = Verification.Verdict.whole
        for name in TrailName.allCases where trail.contains(name) {
            let key = keys.first { $0.trail == name.rawValue }
            let verification = Verification(storage, name.rawValue, key: key, known: heads.filter { $0.trail == name.rawValue })
            for finding in verification.findings { Console.output("\(name): \(finding)\n") }
            let order: [Verification.Verdict] = [.whole, .incomplete, .impossible, .broken]
            if order.firstIndex(of: verification.verdict) ?? 0 > order.firstIndex(of: worst) ?? 0 { worst = verification.verdict }
        }
        Console.output("\(worst)\n")
        throw ExitCode(worst.rawValue)
    }

    /// Bytes of a file of keys, or of heads: one each minute of a month.
    private static let longest = 32 << 20

    /// The lines of a file, without blank ones and without comments.
    private func lines(_ path: String) throws -> [[UInt8]] {
        do throws(FileError) {
            let bytes: [UInt8]
            if path == "-" { bytes = Console.input(limit: Self.longest + 1) } else { bytes = try DataFile(path, .reading).read(at: 0, count: Self.longest + 1) }
            guard bytes.count <= Self.longest else { throw FileError(path, "it is longer than \(Self.longest) bytes") }
            return bytes.split(separator: UInt8(ascii: "\n")).map { Array($0) }.filter { $0.first != UInt8(ascii: "#") }
        } catch { throw fail("\(error)") }
    }
}

struct CurrentHead: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "head", abstract: "Print where the trails end now, to be kept elsewhere.",
        discussion: "Whoever puts trail and state back to what they were is found by a head of later: tgt-audit verify --head FILE.")

    @OptionGroup var place: Place
    @Option(help: "Which trail; may be given twice.")
    var trail: [TrailName] = TrailName.allCases

    func run() throws {
        let storage = place.storage
        for name in TrailName.allCases where trail.contains(name) {
            do throws(FileError) {
                guard let head = try Head.kept(storage, TrailNames(name.rawValue)) else { throw FileError(place.directory, "there is no trail \(name)") }
                Console.output(String(decoding: JSONValue.object(head.members).text, as: UTF8.self) + "\n")
            } catch { throw fail("\(error)") }
        }
    }
}

enum Format: String, ExpressibleByArgument, CaseIterable {
    case table, json, csv
    var shown: ShownFormat {
        switch self {
        case .table: .table
        case .json: .json
        case .csv: .csv
        }
    }
}
