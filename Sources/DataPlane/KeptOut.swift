import Door

/// Sources from which nothing is accepted for a while. Control remembers no more of them than there is room for here, and says each again that
/// fails again.
struct KeptOut {
    /// Until when.
    private var ends: [Source: UInt64] = [:]
    /// Connections that were not accepted because of that.
    private(set) var refused: UInt64 = 0

    mutating func add(_ source: Source, until end: UInt64, now: UInt64) {
        if ends.count >= NewcomerLimits.keptOut { ends = ends.filter { $0.value > now } }
        guard ends.count < NewcomerLimits.keptOut || ends[source] != nil else { return }
        ends[source] = end
    }

    /// Whether a connection of this source, or of its site, is not accepted now; then it is counted.
    mutating func refuses(_ source: Source, now: UInt64) -> Bool {
        guard !ends.isEmpty else { return false }
        let isKeptOut = [source, source.site].compactMap(\.self).contains { source in
            guard let end = ends[source] else { return false }
            if end <= now { ends[source] = nil }
            return end > now
        }
        if isKeptOut { refused += 1 }
        return isKeptOut
    }
}
