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
        var text = event.message.description
        let merged = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in merged.sorted(by: { $0.key < $1.key }) { text += " \(key)=\(value)" }
        text = String(text.unicodeScalars.map { $0.isHidden ? "·" : Character($0) })
        let origin = role.map { "\($0): " } ?? ""
        if toSystemLog { Console.systemLog(priority: Self.priority(event.level), origin + text) }
        if forJournal {
            Console.error("<\(Self.priority(event.level))>\(origin)\(text)\n")
        } else {
            Console.error("\(program)[\(Host.processID)] \(origin)\(event.level): \(text)\n")
        }
    }

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
