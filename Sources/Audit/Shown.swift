import Bytes
import JSON

/// A record as it is read again, to be shown.
public struct ShownRecord: Sendable {
    /// As it lies in the file.
    public let line: [UInt8]
    let members: JSONValue

    /// nil: this is no record.
    public init?(_ line: ArraySlice<UInt8>) {
        guard let members = try? JSONValue(parsing: Array(line)), case .object = members, members["sequence"]?.number != nil else { return nil }
        self.line = Array(line)
        self.members = members
    }

    public var number: Int { members["sequence"]?.number ?? 0 }
    public var time: Timestamp? { text("time").flatMap { Timestamp($0) } }
    func text(_ name: String) -> String? { members[name]?.string }

    /// The user's name, or the number if it has none, or who an event comes from.
    var who: String? { text("user") ?? members["peer"]?["uid"]?.number.map { String($0) } ?? text("initiator") ?? text("source") }

    /// In a word or a line, what it is about.
    var what: String? {
        switch text("kind") {
        case "event", "suppressed": text("event")
        case "attempt", "outcome": [text("mode"), text("op")].compactMap { $0 }.joined(separator: " ")
        default: nil
        }
    }

    var result: String? { text("result") ?? text("decision") }

    /// What else there is to say.
    var details: String {
        var parts: [String] = []
        for name in ["arguments", "details"] {
            guard case .array(let pairs) = members[name] else { continue }
            parts += pairs.compactMap { pair in
                guard case .array(let words) = pair, words.count == 2, let name = words[0].string, let value = words[1].string else { return nil }
                return "\(name)=\(value)"
            }
        }
        if case .array(let requests) = members["requests"] { parts.append("requests=\(requests.count)") }
        for name in ["attempt", "count", "file", "checkpoint", "throughFile", "cutBytes"] { if let number = members[name]?.number { parts.append("\(name)=\(number)") } }
        for name in ["source", "initiator", "target", "since", "missing", "error", "reason"] { if let text = text(name) { parts.append("\(name)=\(text)") } }
        if case .array(let changes) = members["changes"] { parts += changes.compactMap { $0.string } }
        return parts.joined(separator: " ")
    }
}

/// Which records are shown: those to which everything applies that is asked for.
public struct Selection: Sendable {
    /// A user's name or uid, an initiator, or a source.
    public var who: String?
    public var since: Timestamp?
    public var until: Timestamp?
    public var tenant: String?
    public var decision: Decision?
    public var mode: String?
    public var operation: String?
    /// `kind`, or the kind of an event.
    public var kind: String?

    public init() {}

    public func takes(_ record: ShownRecord) -> Bool {
        func applies(_ wanted: String?, _ names: String?...) -> Bool { wanted.map { names.contains($0) } ?? true }
        guard applies(who, record.text("user"), record.members["peer"]?["uid"]?.number.map { String($0) }, record.text("initiator"), record.text("source")),
              applies(tenant, record.text("tenant")), applies(decision?.rawValue, record.text("decision")), applies(kind, record.text("kind"), record.text("event"))
        else { return false }
        guard mode == nil && operation == nil || actions(of: record).contains(where: { applies(mode, $0["mode"]?.string) && applies(operation, $0["op"]?.string) }) else {
            return false
        }
        guard since != nil || until != nil else { return true }
        guard let time = record.time else { return false }
        return time >= since ?? time && time <= until ?? time
    }

    /// A transaction is each of its requests, too.
    private func actions(of record: ShownRecord) -> [JSONValue] {
        guard case .array(let requests) = record.members["requests"] else { return [record.members] }
        return [record.members] + requests
    }
}

/// How records are shown.
public enum ShownFormat: String, CaseIterable, Sendable {
    case table, json, csv

    private static let columns: [(name: String, width: Int, value: @Sendable (ShownRecord) -> String?)] = [
        ("sequence", 8, { $0.members["sequence"]?.number.map { String($0) } }),
        ("time", 27, { $0.text("time") }),
        ("kind", 10, { $0.text("kind") }),
        ("who", 16, { $0.who }),
        ("role", 14, { $0.text("role") }),
        ("tenant", 12, { $0.text("tenant") }),
        ("what", 22, { $0.what }),
        ("result", 10, { $0.result }),
        ("details", 0, { $0.details }),
    ]

    /// The line above all records, if there is one.
    public var heading: String? {
        switch self {
        case .table: Self.row(Self.columns.map { ($0.name, $0.width) })
        case .json: nil
        case .csv: Self.columns.map(\.name).joined(separator: ",")
        }
    }

    /// One line, without its end. In a table and in CSV there is nothing but printable ASCII; JSON is the record as it was written, if nothing is hidden in it.
    public func text(_ record: ShownRecord) -> String {
        switch self {
        case .table: Self.row(Self.columns.map { (escaped(($0.value(record) ?? "-").utf8, limit: 4096), $0.width) })
        case .json: JSONValue.shown(record.line)
        case .csv: Self.columns.map { Self.quoted(escaped(($0.value(record) ?? "").utf8, limit: .max)) }.joined(separator: ",")
        }
    }

    private static func row(_ cells: [(String, Int)]) -> String {
        var text = ""
        for (index, (cell, width)) in cells.enumerated() {
            text += cell
            if index < cells.count - 1 { text += String(repeating: " ", count: max(0, width - cell.utf8.count) + 1) }
        }
        return text
    }

    /// RFC 4180; and what a spreadsheet would take for a formula is kept from being one.
    private static func quoted(_ text: String) -> String {
        let isFormula = text.utf8.first.map { "=+-@".utf8.contains($0) } ?? false
        let safe = isFormula ? "'" + text : text
        guard safe.utf8.contains(where: { ",\" ".utf8.contains($0) }) else { return safe }
        return "\"" + safe.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }
}
