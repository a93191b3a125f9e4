/// What a read may have returned and still be right.
///
/// Times are steps of the simulation. A write takes effect at one moment between its issue and its end; one that was aborted may
/// have taken effect in that time, or not, but never after it.
struct Oracle {
    /// One value that a block has had, or may have had.
    private struct Version {
        let value: UInt64
        let issued: Int
        /// nil: may take effect yet.
        var ended: Int?
        /// It did take effect.
        var isDefinite = false
        /// A read that was issued after the end has returned something else, and was over then: it can never be read any more.
        var isGoneSince: Int?
    }

    /// One bit of a block that is only ever OR-written.
    private struct Bit {
        let issued: Int
        var ended: Int?
        var isDefinite = false
        /// A read that ended then has seen it set.
        var seenSet: Int?
        /// A read that was issued after the end has not seen it: it must never be set any more.
        var isDead = false
    }

    struct Violation: Error, CustomStringConvertible {
        let description: String
    }

    private var versions: [[Version]]
    private var bits: [[Bit]]

    /// Blocks 0..<`blocks` take writes, the `orBlocks` behind them OR-writes.
    init(blocks: Int, orBlocks: Int) {
        versions = Array(repeating: [Version(value: 0, issued: -1, ended: -1, isDefinite: true)], count: blocks)
        bits = Array(repeating: [], count: orBlocks)
    }

    var blocks: Int { versions.count }
    var orBlocks: Int { bits.count }

    // MARK: Writes

    mutating func issueWrite(_ block: Int, _ value: UInt64, _ now: Int) {
        versions[block].append(Version(value: value, issued: now))
    }

    /// - Parameters:
    ///   - tookEffect: true, false, or nil for who knows
    ///   - oldestRead: when the oldest read under way was issued
    mutating func endWrite(_ block: Int, _ value: UInt64, _ now: Int, tookEffect: Bool?, oldestRead: Int) {
        guard let index = versions[block].firstIndex(where: { $0.value == value }) else { return }
        if tookEffect == false {
            versions[block].remove(at: index)
            return
        }
        versions[block][index].ended = now
        versions[block][index].isDefinite = tookEffect == true
        let all = versions[block]
        versions[block].removeAll { version in Self.isOverwritten(version, all, before: oldestRead) }
    }

    private static func isOverwritten(_ version: Version, _ all: [Version], before time: Int) -> Bool {
        guard let ended = version.ended else { return false }
        if let gone = version.isGoneSince, gone < time { return true }
        return all.contains { other in
            guard other.isDefinite, let otherEnded = other.ended else { return false }
            return other.issued > ended && otherEnded < time
        }
    }

    /// A value the block may have.
    func guess(_ block: Int, _ random: inout Random) -> UInt64 { versions[block][random.below(versions[block].count)].value }

    mutating func checkRead(_ block: Int, _ value: UInt64, issued: Int, now: Int) throws(Violation) {
        let all = versions[block]
        guard all.contains(where: { $0.value == value && !Self.isOverwritten($0, all, before: issued) }) else {
            throw Violation(description: "block \(block) read as \(value), issued \(issued), now \(now); may be \(all)")
        }
        for index in versions[block].indices {
            let version = versions[block][index]
            guard version.value != value, version.isGoneSince == nil, let ended = version.ended, ended < issued else { continue }
            versions[block][index].isGoneSince = now
        }
    }

    // MARK: OR-writes

    /// The bit a new OR-write of the block sets; nil when it has no more.
    mutating func issueOr(_ block: Int, _ now: Int) -> Int? {
        guard bits[block].count < 64 else { return nil }
        bits[block].append(Bit(issued: now))
        return bits[block].count - 1
    }

    mutating func endOr(_ block: Int, _ bit: Int, _ now: Int, tookEffect: Bool?) {
        bits[block][bit].ended = now
        bits[block][bit].isDefinite = tookEffect == true
        if tookEffect == false { bits[block][bit].isDead = true }
    }

    mutating func checkOrRead(_ block: Int, _ value: UInt64, issued: Int, now: Int) throws(Violation) {
        for index in 0..<64 {
            let isSet = value >> UInt64(index) & 1 == 1
            guard index < bits[block].count else {
                if isSet { throw Violation(description: "OR block \(block): bit \(index) was never written") }
                continue
            }
            let bit = bits[block][index]
            if isSet {
                if bit.isDead { throw Violation(description: "OR block \(block): bit \(index) was set after its write had ended") }
                if bit.seenSet == nil { bits[block][index].seenSet = now }
            } else {
                if bit.isDefinite, let ended = bit.ended, ended < issued {
                    throw Violation(description: "OR block \(block): bit \(index) is lost")
                }
                if let seen = bit.seenSet, seen < issued { throw Violation(description: "OR block \(block): bit \(index) was there and is gone") }
                if let ended = bit.ended, ended < issued { bits[block][index].isDead = true }
            }
        }
    }
}
