import Bytes
import DequeModule
import Medium
import Reactor

/// Threads for what blocks: a bounded number, started when there is work for them, shared fairly by the stores.
///
/// Operations on one store start in the order of submission and run side by side; stores take turns, and none has more than
/// `perStore` threads, so that one that hangs leaves the others their share. Who comes to work calls the next if there is more: many
/// operations that are submitted together wake one thread, and no more come than find something to do.
public final class IOPool<Token: Sendable>: Sendable {
    private struct State {
        /// Stores with something that may start, the next first.
        var ready: Deque<StoreQueue<Token>> = []
        var waiting = 0
        /// Threads that wait for work; one of them may have been called.
        var idle = 0
        var isCalling = false
        var calls = 0
        var isStopping = false
        var threads: [WorkerThread] = []

        /// Whether to ring for one more thread.
        mutating func call() -> Bool {
            guard !ready.isEmpty, idle > 0, !isCalling else { return false }
            isCalling = true
            calls += 1
            return true
        }
    }

    private let monitor = Monitor(State())
    private let mostThreads: Int
    private let perStore: Int
    private let queueLimit: Int
    private let deliver: @Sendable (Token, Outcome) -> Void

    /// - Parameters:
    ///   - threads: at most so many are started; tgt has 16 for each logical unit, and twice that serves two busy ones
    ///   - perStore: at most so many work for one store; half of them by default
    ///   - queueLimit: operations that may wait; what comes above it is refused. All the commands that sessions may have
    ///     outstanding should fit.
    ///   - deliver: gets each outcome, on the thread that did the work, when the buffer has been let go: leave it in a mailbox
    public init(
        threads: Int = 32, perStore: Int? = nil, queueLimit: Int = 1 << 16, deliver: @escaping @Sendable (Token, Outcome) -> Void
    ) {
        precondition(threads > 0 && queueLimit > 0)
        mostThreads = threads
        self.perStore = perStore ?? max(1, threads / 2)
        self.queueLimit = queueLimit
        self.deliver = deliver
    }

    /// A queue for operations on `store`. One for each store: they share its share of the threads.
    public func open(_ store: any BackingStore) -> StoreQueue<Token> { StoreQueue(store) }

    /// Has the operation done; `deliver` gets `token` with the outcome. false: too many wait already, nothing happens; or no
    /// thread could be started for the first of them.
    public func submit(_ operation: Operation, buffer: Buffer?, on queue: StoreQueue<Token>, token: Token) -> Bool {
        let (accepted, calls) = monitor.withLock { state in
            guard state.waiting < queueLimit, !state.isStopping else { return (false, false) }
            if state.idle <= state.ready.count, state.threads.count < mostThreads {
                // Without one more thread it takes longer; without any it would take for ever.
                do throws(SystemError) {
                    state.threads.append(try WorkerThread(name: "storage") { [self] in work() })
                } catch {
                    if state.threads.isEmpty { return (false, false) }
                }
            }
            state.waiting += 1
            queue.waiting.append(StoreQueue.Job(operation: operation, buffer: buffer, token: token))
            list(queue, &state)
            return (true, state.call())
        }
        if calls { monitor.ringOne() }
        return accepted
    }

    /// How often a thread was called. For tests.
    var calls: Int { monitor.withLock { $0.calls } }

    /// Finishes what was submitted, takes nothing more and ends the threads. Once, and not from `deliver`.
    public func stop() {
        let threads = monitor.withLock { state in
            state.isStopping = true
            return state.threads
        }
        monitor.ringAll()
        for thread in threads { thread.join() }
    }

    // MARK: The threads

    /// Lists `queue` if it has something that may start.
    private func list(_ queue: StoreQueue<Token>, _ state: inout State) {
        guard !queue.isListed, !queue.waiting.isEmpty, queue.running < perStore else { return }
        queue.isListed = true
        state.ready.append(queue)
    }

    private func work() {
        var last: StoreQueue<Token>?
        while let (queue, job) = next(after: last.take()) {
            // The job goes, and its buffer with it, before the outcome is out.
            let token = job.token
            let outcome = perform(consume job, on: queue.store)
            deliver(token, outcome)
            last = queue
        }
    }

    private func perform(_ job: consuming StoreQueue<Token>.Job, on store: any BackingStore) -> Outcome {
        store.perform(job.operation, buffer: job.buffer)
    }

    /// The next job; nil when the thread shall end.
    /// - Parameter done: of which it has done a job; while it waits it holds on to none
    private func next(after done: consuming StoreQueue<Token>?) -> (StoreQueue<Token>, StoreQueue<Token>.Job)? {
        var last = done.take()
        var isIdle = false
        let (job, calls) = monitor.wait { state -> ((StoreQueue<Token>, StoreQueue<Token>.Job)?, Bool)? in
            if let queue = last.take() {
                queue.running -= 1
                list(queue, &state)
            }
            if isIdle {
                state.idle -= 1
                state.isCalling = false
                isIdle = false
            }
            if let queue = state.ready.popFirst(), let job = queue.waiting.popFirst() {
                queue.isListed = false
                state.waiting -= 1
                queue.running += 1
                list(queue, &state)
                return ((queue, job), state.call())
            }
            // The others are told, too.
            if state.isStopping { return (nil, false) }
            isIdle = true
            state.idle += 1
            return nil
        }
        if calls { monitor.ringOne() }
        return job
    }
}

/// The operations of one store that wait for a thread. What it holds belongs to its pool's lock.
public final class StoreQueue<Token: Sendable>: @unchecked Sendable {
    struct Job {
        let operation: Operation
        let buffer: Buffer?
        let token: Token
    }

    public let store: any BackingStore
    fileprivate var waiting: Deque<Job> = []
    fileprivate var running = 0
    fileprivate var isListed = false

    fileprivate init(_ store: any BackingStore) { self.store = store }
}
