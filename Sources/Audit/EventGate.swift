/// Lets events through as long as they are few, and counts the others: whoever can cause events at will fills neither the disk nor the view.
///
/// Of each kind and source some are let through in a window of time; when it ends, one record says how many more there were. Of a kind, sources beyond
/// the number we keep count together, and so do events once there were very many of all sources: those of other kinds are not affected.
public struct EventGate: Sendable {
    /// Of one kind and source, in one window.
    let perSource: Int
    /// Of one kind, of all sources together, in one window: with what is then counted, less than a megabyte.
    let ofKind: Int
    /// Seconds.
    let window: Int64
    /// Sources of one kind that are told apart.
    static let mostSources = 1024

    fileprivate struct Window { let start: Timestamp; var count = 0; var suppressed = 0 }
    fileprivate struct OfKind {
        /// nil: none has been let through lately.
        var all: Window?
        var sources: [String?: Window] = [:]
    }

    private var kinds: [SecurityEvent.Kind: OfKind] = [:]

    /// What stands for the sources that are not told apart.
    public static let others = "others"

    public init(perSource: Int = 10, ofKind: Int = 1000, window: Int64 = 60) {
        self.perSource = perSource
        self.ofKind = ofKind
        self.window = window
    }

    /// Whether this event is to be recorded; else it is counted.
    public mutating func admits(_ event: SecurityEvent, at now: Timestamp) -> Bool { admits(event.kind, source: event.source, at: now) }

    /// The same of one that is not put together yet.
    public mutating func admits(_ kind: SecurityEvent.Kind, source: String?, at now: Timestamp) -> Bool {
        if kind.isOurs { return true }
        return kinds[kind, default: OfKind()].admits(source, at: now, perSource: perSource, inAll: ofKind)
    }

    /// Records about what was only counted, of the windows that have ended; call it once in a while.
    /// - Parameter all: of those, too, that have not ended
    public mutating func due(at now: Timestamp, all everything: Bool = false) -> [Record] {
        // A clock that was set back ends them, too.
        func hasEnded(_ window: Window) -> Bool { everything || now >= window.start.advanced(seconds: self.window) || now < window.start }
        var ended: [(kind: SecurityEvent.Kind, source: String?, window: Window)] = []
        for (kind, var ofKind) in kinds {
            if let all = ofKind.all, hasEnded(all) { ofKind.all = nil }
            for (source, window) in ofKind.sources where hasEnded(window) {
                ofKind.sources[source] = nil
                if window.suppressed > 0 { ended.append((kind, source, window)) }
            }
            kinds[kind] = ofKind
        }
        return ended.sorted { ($0.window.start, $0.kind.rawValue, $0.source ?? "") < ($1.window.start, $1.kind.rawValue, $1.source ?? "") }
            .map { .suppressed($0.kind, source: $0.source, count: $0.window.suppressed, since: $0.window.start) }
    }
}

extension EventGate.OfKind {
    fileprivate mutating func admits(_ source: String?, at now: Timestamp, perSource: Int, inAll: Int) -> Bool {
        let source = sources[source] == nil && sources.count >= EventGate.mostSources ? EventGate.others : source
        var window = sources[source] ?? EventGate.Window(start: now)
        window.count += 1
        let isAdmitted = window.count <= perSource && all?.count ?? 0 < inAll
        if isAdmitted {
            var total = all ?? EventGate.Window(start: now)
            total.count += 1
            all = total
        } else {
            window.suppressed += 1
        }
        sources[source] = window
        return isAdmitted
    }
}
