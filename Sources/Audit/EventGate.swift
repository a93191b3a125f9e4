/// Lets events through as long as they are few, and counts the others: whoever can cause events at will fills neither the disk nor the view.
///
/// Of each kind and source some are let through in a window of time; when it ends, one record says how many more there were. Sources beyond
/// the number we keep count together, and so do events of a kind once there were very many of all sources: those of other kinds are not affected.
public struct EventGate: Sendable {
    /// Of one kind and source, in one window.
    let perSource: Int
    /// Of one kind, of all sources together, in one window: with what is then counted, less than a megabyte.
    let ofKind: Int
    /// Kinds and sources that are told apart.
    static let mostSources = 1024
    /// Seconds.
    static let window: Int64 = 60

    private struct Key: Hashable { let kind: SecurityEvent.Kind; let source: String? }
    private struct Window { let start: Timestamp; var count = 0; var suppressed = 0 }

    private var windows: [Key: Window] = [:]
    private var kinds: [SecurityEvent.Kind: Window] = [:]

    /// What stands for the sources that are not told apart.
    public static let others = "others"

    public init(perSource: Int = 10, ofKind: Int = 1000) {
        self.perSource = perSource
        self.ofKind = ofKind
    }

    /// Whether this event is to be recorded; else it is counted.
    public mutating func admits(_ event: SecurityEvent, at now: Timestamp) -> Bool {
        if event.kind.isOurs { return true }
        var key = Key(kind: event.kind, source: event.source)
        if windows[key] == nil, windows.count >= Self.mostSources { key = Key(kind: event.kind, source: Self.others) }
        windows[key, default: Window(start: now)].count += 1
        guard windows[key]?.count ?? 0 <= perSource, kinds[event.kind]?.count ?? 0 < ofKind else {
            windows[key]?.suppressed += 1
            return false
        }
        kinds[event.kind, default: Window(start: now)].count += 1
        return true
    }

    /// Records about what was only counted, of the windows that have ended; call it once in a while.
    /// - Parameter all: of those, too, that have not ended
    public mutating func due(at now: Timestamp, all everything: Bool = false) -> [Record] {
        func hasEnded(_ window: Window) -> Bool {
            // A clock that was set back ends them, too.
            everything || now >= window.start.advanced(seconds: Self.window) || now < window.start
        }
        kinds = kinds.filter { !hasEnded($0.value) }
        let ended = windows.filter { hasEnded($0.value) }
        for key in ended.keys { windows[key] = nil }
        return ended.filter { $0.value.suppressed > 0 }.sorted { ($0.value.start, $0.key.kind.rawValue, $0.key.source ?? "") < ($1.value.start, $1.key.kind.rawValue, $1.key.source ?? "") }
            .map { .suppressed($0.key.kind, source: $0.key.source, count: $0.value.suppressed, since: $0.value.start) }
    }
}
