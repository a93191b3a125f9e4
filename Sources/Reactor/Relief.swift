import CLinux
import Synchronization

/// Lets the thread of an event loop do what may hold it up in the kernel, though it seldom does: if that happens, a second thread goes on
/// with the loop, and the first stands by in its place when it comes back.
///
/// Handing work to another thread and being woken by its end costs far more than a write that the page cache takes at once; and nobody can
/// say beforehand which write it will not take. So the thread goes itself, on an errand, with all in the loop at rest; the other looks now
/// and then whether it has been away for long.
@safe public final class Relief: Sendable {
    /// Between two looks, in nanoseconds. Who is away on the same errand at two of them is relieved.
    public static let look: UInt64 = 2_000_000
    /// Looks in a row that find nobody away before the second thread sleeps until somebody goes.
    static let quietLooks = 50
    /// How an errand was.
    public struct Errand: Hashable, Sendable {
        /// In nanoseconds.
        public let time: UInt64
        /// When it was over, by the monotonic clock.
        public let end: UInt64
        /// Whether it took longer than expected, or was relieved, and the thread slept meanwhile. The clock alone cannot tell that from a processor that was
        /// somebody else's.
        public let slept: Bool
        /// Whether the loop is the other thread's by now: nothing of it may be touched any more.
        public let isRelieved: Bool
    }

    private struct State {
        var isStopping = false
        /// Whether the second thread sleeps until somebody goes.
        var sleeps = false
    }

    /// Twice as many as the errands so far, and one more while somebody is away.
    private let errands = Atomic<UInt64>(0)
    private let standsBy = Atomic(false)
    private let isAsleep = Atomic(false)
    /// Whether the second thread sleeps until somebody goes. For tests.
    var sleeps: Bool { isAsleep.load(ordering: .relaxed) }
    /// How often the loop's thread had slept when it set out, and since then where it is known.
    private let sleepsBefore = Atomic<Int64>(0)
    private let monitor = Monitor(State())

    /// What the thread is called that stands by.
    let name: String

    /// - Parameter name: shown by ps and debuggers for the thread that stands by, at most 15 bytes of it
    public init(name: String) { self.name = name }

    /// What who stands by makes of what it sees.
    struct Watch {
        enum Finding { case goOn, relieve, sleep }
        private var last: UInt64?
        private var quiet = 0

        /// - Parameter errands: twice as many as there have been, and one more while somebody is away
        mutating func look(_ errands: UInt64) -> Finding {
            defer { last = errands }
            guard errands == last else {
                quiet = 0
                return .goOn
            }
            if errands % 2 == 1 { return .relieve }
            quiet += 1
            guard quiet == Relief.quietLooks else { return .goOn }
            quiet = 0
            return .sleep
        }
    }

    // MARK: For the loop's thread

    /// Whether somebody would go on with the loop. Otherwise nobody should go away from it.
    public var isThere: Bool { standsBy.load(ordering: .acquiring) }

    /// Errands follow, and nothing else before the last of them is over.
    public func setOut() { sleepsBefore.store(linux_sleeps_of_thread(), ordering: .relaxed) }

    /// Does `errand`, which may hold this thread up. All in the loop must be ready to be gone on with, and only `EventLoop.run` and who it
    /// asked to may be on the stack.
    /// - Parameter expected: how long it should take at the most, in nanoseconds
    public func away(expected: UInt64, _ errand: () -> Void) -> Errand {
        let number = errands.load(ordering: .relaxed) + 1
        let before = sleepsBefore.load(ordering: .relaxed)
        Work.rest()
        let begin = linux_monotonic_nanoseconds()
        errands.store(number, ordering: .sequentiallyConsistent)
        if isAsleep.load(ordering: .sequentiallyConsistent) { wake() }
        errand()
        let isBack = errands.compareExchange(expected: number, desired: number + 1, ordering: .acquiringAndReleasing).exchanged
        let end = linux_monotonic_nanoseconds()
        let sleeps = end - begin > expected || !isBack ? linux_sleeps_of_thread() : before
        if isBack {
            Work.resume()
            if sleeps != before { sleepsBefore.store(sleeps, ordering: .relaxed) }
        }
        return Errand(time: end - begin, end: end, slept: sleeps != before, isRelieved: !isBack)
    }

    private func wake() {
        monitor.withLock { $0.sleeps = false }
        isAsleep.store(false, ordering: .relaxed)
        monitor.ringAll()
    }

    /// The loop has ended: nobody need stand by any more.
    func stop() {
        monitor.withLock { $0.isStopping = true }
        monitor.ringAll()
    }

    // MARK: For the other thread

    /// Stands by until the loop's thread is held up: then the loop is this thread's. false: the loop has ended.
    func standBy() -> Bool {
        Work.rest()
        standsBy.store(true, ordering: .releasing)
        var watch = Watch()
        while monitor.wait(nanoseconds: Self.look, { $0.isStopping ? () : nil }) == nil {
            let seen = errands.load(ordering: .acquiring)
            switch watch.look(seen) {
            case .goOn: break
            case .sleep: guard sleep(after: seen) else { return false }
            case .relieve:
                // Before it is so: who comes back stands by at once.
                standsBy.store(false, ordering: .releasing)
                guard errands.compareExchange(expected: seen, desired: seen + 1, ordering: .acquiringAndReleasing).exchanged else {
                    // It has come back just now.
                    standsBy.store(true, ordering: .releasing)
                    continue
                }
                Work.resume()
                return true
            }
        }
        return false
    }

    /// Sleeps until somebody has gone since the errand `last`. false: the loop has ended.
    private func sleep(after last: UInt64) -> Bool {
        monitor.withLock { $0.sleeps = true }
        isAsleep.store(true, ordering: .sequentiallyConsistent)
        // Who went just before has not seen that anybody is to be woken.
        if errands.load(ordering: .sequentiallyConsistent) != last { wake() }
        return monitor.wait { $0.isStopping ? false : $0.sleeps ? nil : true }
    }
}
