import Logging
import Reactor
import Synchronization

/// Log lines on standard error: with the journal's priority prefix when the journal reads them, readable otherwise.
///
/// Values from outside reach a line only through metadata or `escaped()`; control characters in either are escaped here once
/// more, so that one record is always one line.
struct StandardErrorLog: LogHandler {
    /// From which level on anything is logged, by all loggers of the process; it changes while running.
    static let level = SharedLevel()

    final class SharedLevel: Sendable {
        private let value = Mutex(Logger.Level.info)
        func load() -> Logger.Level { value.withLock { $0 } }
        func store(_ level: Logger.Level) { value.withLock { $0 = level } }
    }

    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level {
        get { Self.level.load() }
        set { Self.level.store(newValue) }
    }
    private let role: String
    private let forJournal = Host.environment("JOURNAL_STREAM") != nil
    private let toSystemLog: Bool

    /// - Parameter toSystemLog: for a daemon without a terminal: lines go to syslog(3) as well
    init(role: String, toSystemLog: Bool) {
        self.role = role
        self.toSystemLog = toSystemLog
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var text = event.message.description
        let merged = metadata.merging(event.metadata ?? [:]) { $1 }
        for (key, value) in merged.sorted(by: { $0.key < $1.key }) { text += " \(key)=\(value)" }
        text = String(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f ? "·" : Character($0) })
        if toSystemLog { Console.systemLog(priority: Self.priority(event.level), "\(role): \(text)") }
        var line = forJournal ? "<\(Self.priority(event.level))>" : "tgtd[\(Host.processID)] "
        line += "\(role): "
        if !forJournal { line += "\(event.level): " }
        Console.error(line + text + "\n")
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
