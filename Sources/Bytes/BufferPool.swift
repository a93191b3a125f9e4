import Synchronization

/// The memory budget of a process: every byte that peers make it hold is in a buffer of this pool.
///
/// Capacities are powers of two from 4 KiB on. What is given back is kept for the next owner as far as `cached` allows,
/// with the bytes that are in it: an owner sends only what it has written itself.
public final class BufferPool: Sendable {
    /// The smallest capacity handed out, in bytes.
    public static let smallest = 4096

    /// All that may be handed out at once, in bytes.
    public let budget: Int
    private let state: Mutex<State>
    /// `inUse`, for those who look without the lock.
    private let used = Atomic<Int>(0)

    private struct State {
        var inUse = 0
        var cachedBytes = 0
        /// By class of size, the smallest first.
        var free: [[MemoryBlock]] = []
        var waiters: [@Sendable () -> Void] = []
    }

    private let cacheLimit: Int

    /// - Parameters:
    ///   - budget: bytes that may be in use at once
    ///   - cached: bytes of unused memory that are kept ready
    public init(budget: Int, cached: Int = 32 << 20) {
        self.budget = budget
        cacheLimit = cached
        state = Mutex(State())
    }

    /// Whether less than half of the budget is handed out: then who has some may keep it a while, for the next use. No lock.
    public var isAmple: Bool { used.load(ordering: .relaxed) < budget / 2 }

    /// Bytes handed out now.
    public var inUse: Int { state.withLock { $0.inUse } }

    /// The bytes a buffer for `length` bytes takes from the budget.
    public static func charge(for length: Int) -> Int {
        var capacity = smallest
        while capacity < length { capacity <<= 1 }
        return capacity
    }

    /// How often the smallest capacity is to be doubled for `capacity`.
    private static func sizeClass(of capacity: Int) -> Int { capacity.trailingZeroBitCount - smallest.trailingZeroBitCount }

    /// A buffer of at least `length` bytes, or nil when the budget has no room for it now.
    public func allocate(_ length: Int) -> Buffer? {
        let capacity = Self.charge(for: length)
        let (granted, reused) = state.withLock { state -> (Bool, MemoryBlock?) in
            guard capacity <= budget - state.inUse else { return (false, nil) }
            state.inUse += capacity
            used.store(state.inUse, ordering: .relaxed)
            let size = Self.sizeClass(of: capacity)
            guard size < state.free.count, let block = state.free[size].popLast() else { return (true, nil) }
            state.cachedBytes -= capacity
            return (true, block)
        }
        guard granted else { return nil }
        return Buffer(capacity: capacity, block: reused ?? MemoryBlock(capacity: capacity), pool: self)
    }

    /// Calls `wake` once, from whatever thread gives memory back next.
    public func whenReleased(_ wake: @escaping @Sendable () -> Void) {
        state.withLock { $0.waiters.append(wake) }
    }

    func recycle(_ block: MemoryBlock, capacity: Int) {
        let waiters = state.withLock { state in
            state.inUse -= capacity
            used.store(state.inUse, ordering: .relaxed)
            if state.cachedBytes + capacity <= cacheLimit {
                state.cachedBytes += capacity
                let size = Self.sizeClass(of: capacity)
                while state.free.count <= size { state.free.append([]) }
                state.free[size].append(block)
            }
            let waiters = state.waiters
            state.waiters = []
            return waiters
        }
        for wake in waiters { wake() }
    }
}
