/// What an initiator may do with a logical unit.
public enum UnitAccess: UInt8, Comparable, Sendable {
    /// The logical unit does not exist for it.
    case none = 0
    /// What the table of commands calls a read.
    case read = 1
    case write = 2

    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// Which logical units of a target an initiator sees, and which of them it may write: one `UnitAccess` for each number from 0 to
/// 16383, all that flat space addressing reaches (SAM-5 §4.7.7). That without any mask is `all`.
///
/// Two masks are equal if they grant the same.
public struct LUNMask: Hashable, Sendable {
    /// Neighbouring numbers with the same access.
    public struct Run: Hashable, Sendable {
        public let first: UInt16
        public let last: UInt16
        /// Not `.none`.
        public let access: UnitAccess

        public init(_ luns: ClosedRange<UInt16>, _ access: UnitAccess) {
            first = luns.lowerBound
            last = luns.upperBound
            self.access = access
        }
    }

    public static let greatestLUN: UInt16 = 16383
    /// Runs of a mask that an administrator writes; one that two masks grant together has at most twice as many.
    public static let mostRuns = 256

    /// Ascending, apart from each other; neighbours differ in their access.
    public let runs: [Run]

    /// Everything, for writing.
    public static let all = LUNMask(merging: [Run(0...greatestLUN, .write)])

    /// From runs in any order; nil if a number is in two of them or beyond the greatest.
    public init?(_ runs: [Run]) {
        if runs == Self.all.runs {
            self = .all
            return
        }
        let sorted = runs.sorted { $0.first < $1.first }
        guard sorted.allSatisfy({ $0.last <= Self.greatestLUN }), zip(sorted, sorted.dropFirst()).allSatisfy({ $0.last < $1.first }) else { return nil }
        self.init(merging: sorted)
    }

    /// - Parameter sorted: ascending and apart
    private init(merging sorted: [Run]) {
        var merged: [Run] = []
        for run in sorted where run.access != .none {
            if let last = merged.last, last.access == run.access, last.last + 1 == run.first {
                merged[merged.count - 1] = Run(last.first...run.last, run.access)
            } else {
                merged.append(run)
            }
        }
        runs = merged
    }

    /// What is granted of one logical unit.
    public func access(to lun: Int) -> UnitAccess {
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if Int(runs[middle].last) < lun { low = middle + 1 } else { high = middle }
        }
        return low < runs.count && Int(runs[low].first) <= lun ? runs[low].access : .none
    }

    /// What both grant.
    public func intersection(_ other: LUNMask) -> LUNMask {
        var common: [Run] = []
        var (a, b) = (runs[...], other.runs[...])
        while let one = a.first, let two = b.first {
            let (first, last) = (max(one.first, two.first), min(one.last, two.last))
            if first <= last { common.append(Run(first...last, min(one.access, two.access))) }
            if one.last <= two.last { a = a.dropFirst() }
            if two.last <= one.last { b = b.dropFirst() }
        }
        return LUNMask(merging: common)
    }
}

extension LUNMask: CustomStringConvertible {
    /// As `tgtadm --luns` takes it: `0,2-5:ro,7`, or `all`, `all:ro`, and `none` for nothing.
    public var description: String {
        guard !runs.isEmpty else { return "none" }
        return runs.map { run in
            let numbers = (run.first, run.last) == (0, Self.greatestLUN) ? "all" : run.first == run.last ? "\(run.first)" : "\(run.first)-\(run.last)"
            return numbers + (run.access == .read ? ":ro" : "")
        }.joined(separator: ",")
    }
}
