import Bytes
import Glibc
import Medium
import Reactor

/// A store that misbehaves on demand in front of one that does not: it delays, holds back, fails and tears. For tests.
public final class FaultyStore: BackingStore {
    /// Which operations are struck.
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        case read, write, flush, any

        func contains(_ operation: Operation) -> Bool {
            switch self {
            case .any: return true
            case .write: return operation.isWrite
            case .flush: return operation == .flush
            case .read:
                if case .read = operation { return true }
                return false
            }
        }
    }

    /// What happens to them.
    public struct Fault: Hashable, Sendable {
        public var kind: Kind
        /// Milliseconds before the operation begins.
        public var delay = 0
        /// How it ends instead of being done.
        public var failure: Failure?
        /// With a failure, so many first bytes of a write reach the medium nevertheless.
        public var tornAfter = 0
        /// Operations that pass before the first is struck, and how many are struck.
        public var skip = 0
        public var times = Int.max
        /// Of those, how many in a hundred.
        public var percent = 100

        public init(_ kind: Kind) { self.kind = kind }
    }

    fileprivate struct State {
        var faults: [Fault] = []
        var random: UInt64 = 0
        var held: Kind?
        var heldBack = 0
    }

    private let store: any BackingStore
    private let surprises: Bool
    private let monitor: Monitor<State>

    /// - Parameters:
    ///   - seed: decides which operations a fault with a percentage strikes
    ///   - surprises: it does not say beforehand that an operation may be struck
    public init(_ store: any BackingStore, faults: [Fault] = [], seed: UInt64 = 0, surprises: Bool = false) {
        self.store = store
        self.surprises = surprises
        monitor = Monitor(State(faults: faults, random: seed))
    }

    /// Reads faults such as "write:delay=500;read:fail=unreadable,skip=3,times=1;write:fail=unwritable,tear=512,percent=5", with
    /// "seed=7" among them if wanted; nil for any other text.
    public convenience init?(_ store: any BackingStore, script: String) {
        var faults: [Fault] = []
        var seed: UInt64 = 0
        for part in script.split(separator: ";") {
            if part.hasPrefix("seed="), let number = UInt64(part.dropFirst(5)) {
                seed = number
                continue
            }
            let halves = part.split(separator: ":", maxSplits: 1)
            guard halves.count == 2, let kind = Kind(rawValue: String(halves[0])) else { return nil }
            var fault = Fault(kind)
            for word in halves[1].split(separator: ",") {
                let pair = word.split(separator: "=", maxSplits: 1)
                guard pair.count == 2, fault.set(String(pair[0]), String(pair[1])) else { return nil }
            }
            faults.append(fault)
        }
        self.init(store, faults: faults, seed: seed)
    }

    public var length: UInt64 { store.length }

    /// From now on also this happens.
    public func inject(_ fault: Fault) { monitor.withLock { $0.faults.append(fault) } }
    /// Nothing more happens; what is held back goes on.
    public func heal() {
        monitor.withLock { state in
            state.faults = []
            state.held = nil
        }
        monitor.ringAll()
    }
    /// Operations of this kind do not begin before `release` or `heal`.
    public func hold(_ kind: Kind) { monitor.withLock { $0.held = kind } }
    public func release() {
        monitor.withLock { $0.held = nil }
        monitor.ringAll()
    }
    /// Operations that are held back now.
    public var heldBack: Int { monitor.withLock { $0.heldBack } }

    public func perform(_ operation: Operation, buffer: Buffer?) -> Outcome {
        let faults = monitor.withLock { $0.strike(operation) }
        let delay = faults.reduce(0) { $0 + $1.delay }
        if delay > 0 { sleep(milliseconds: delay) }
        var isCounted = false
        monitor.wait { state -> Void? in
            let waits = state.held?.contains(operation) ?? false
            if waits != isCounted { state.heldBack += waits ? 1 : -1 }
            isCounted = waits
            return waits ? nil : ()
        }
        guard let fault = faults.first(where: { $0.failure != nil }), let failure = fault.failure else {
            return store.perform(operation, buffer: buffer)
        }
        tear(operation, buffer, after: fault.tornAfter)
        return .failed(failure)
    }

    /// Whatever might be struck is left to a thread that may wait.
    public func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome? {
        isSafe(operation) ? store.performAtOnce(operation, buffer: buffer) : nil
    }

    public func isSeldomHeldUp(by operation: Operation) -> Bool {
        (surprises || isSafe(operation)) && store.isSeldomHeldUp(by: operation)
    }

    private func isSafe(_ operation: Operation) -> Bool {
        monitor.withLock { state in !(state.held?.contains(operation) ?? false) && !state.faults.contains { $0.kind.contains(operation) } }
    }

    private func tear(_ operation: Operation, _ buffer: Buffer?, after count: Int) {
        guard case .write(let extent, _) = operation, count > 0 else { return }
        let part = Extent(offset: extent.offset, length: min(extent.length, UInt64(count)))
        _ = store.perform(.write(part, durable: false), buffer: buffer)
    }

    private func sleep(milliseconds: Int) {
        var rest = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        var left = timespec()
        while unsafe nanosleep(&rest, &left) != 0 && errno == EINTR { rest = left }
    }
}

extension FaultyStore.State {
    /// The faults that strike this operation; each counts it.
    fileprivate mutating func strike(_ operation: Operation) -> [FaultyStore.Fault] {
        var struck: [FaultyStore.Fault] = []
        for index in faults.indices where faults[index].kind.contains(operation) {
            if faults[index].skip > 0 {
                faults[index].skip -= 1
            } else if faults[index].times > 0, faults[index].percent == 100 || Int(next() % 100) < faults[index].percent {
                faults[index].times -= 1
                struck.append(faults[index])
            }
        }
        return struck
    }

    /// SplitMix64: the same operations in the same order meet the same faults.
    private mutating func next() -> UInt64 {
        random &+= 0x9e37_79b9_7f4a_7c15
        var mixed = random
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

extension FaultyStore.Fault {
    private static let failures: [String: Failure] = [
        "unreadable": .unreadable, "unwritable": .unwritable, "flushFailed": .flushFailed, "noSpace": .noSpace, "readOnly": .readOnly,
        "unsupported": .unsupported,
    ]

    fileprivate mutating func set(_ word: String, _ value: String) -> Bool {
        if word == "fail" {
            failure = Self.failures[value]
            return failure != nil
        }
        guard let number = Int(value), number >= 0 else { return false }
        switch word {
        case "delay": delay = number
        case "tear": tornAfter = number
        case "skip": skip = number
        case "times": times = number
        case "percent": percent = number
        default: return false
        }
        return true
    }
}
