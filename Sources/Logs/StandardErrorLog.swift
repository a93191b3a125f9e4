import Bytes
import Logging
import Reactor
import Synchronization

/// Log lines on standard error: with the journal's priority prefix when the journal reads them, readable otherwise.
///
/// Values from outside reach a line only through metadata or `escaped()`; what is hidden in either is made visible here once
/// more, so that one record is always one line and looks like what it is.
public struct StandardErrorLog: LogHandler {
    /// From which level on anything is logged, by all loggers of the process; it changes while running.
    public static let level = SharedLevel()

    public final class SharedLevel: Sendable {
        private let value = Mutex(Logger.Level.info)
        public func load() -> Logger.Level { value.withLock { $0 } }
        public func store(_ level: Logger.Level) { value.withLock { $0 = level } }
    }

    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level {
        get { Self.level.load() }
        set { Self.level.store(newValue) }
    }
    private let program: String
    private let role: String?
    private let forJournal = Host.environment("JOURNAL_STREAM") != nil
    private let toSystemLog: Bool

    /// - Parameters:
    ///   - program: its name
    ///   - role: which of its processes this is, if it has several
    ///   - toSystemLog: for a daemon without a terminal: lines go to syslog(3) as well
    public init(program: String, role: String? = nil, toSystemLog: Bool = false) {
        self.program = program
        self.role = role
        self.toSystemLog = toSystemLog
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let origin = role.map { "\($0): " } ?? ""
        let text = text(of: event)
        if toSystemLog { Console.systemLog(priority: Self.priority(event.level), origin + String(decoding: text, as: UTF8.self)) }
        let front = forJournal ? "<\(Self.priority(event.level))>\(origin)" : "\(program)[\(Host.processID)] \(origin)\(event.level): "
        Console.error(Array(front.utf8) + text + [UInt8(ascii: "\n")])
    }

    /// The message, and its metadata by their names: one line, whatever is in them.
    private func text(of event: LogEvent) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(Self.usualLength)
        func append(_ piece: String) {
            // Nothing hides among the characters that are printed in ASCII, as most are.
            if piece.utf8.allSatisfy({ (0x20..<0x7f).contains($0) }) { return text += piece.utf8 }
            for scalar in piece.unicodeScalars { text += String(scalar.isHidden ? "·" : Character(scalar)).utf8 }
        }
        append(event.message.description)
        let merged = metadata.isEmpty ? event.metadata ?? [:] : metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in merged.sorted(by: { $0.key < $1.key }) {
            append(" ")
            append(key)
            append("=")
            append(value.description)
        }
        return text
    }
    private static let usualLength = 256

    /// syslog(3) priorities.
    private static func priority(_ level: Logger.Level) -> Int32 {
        switch level {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
