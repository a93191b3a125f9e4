import CLinux
import Glibc

/// What a descriptor is ready for, or is watched for. `error` and `hangup` are always watched.
public struct Readiness: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readable = Readiness(rawValue: 0x001)
    public static let writable = Readiness(rawValue: 0x004)
    public static let error = Readiness(rawValue: 0x008)
    public static let hangup = Readiness(rawValue: 0x010)
    /// The peer sends no more.
    public static let peerClosed = Readiness(rawValue: 0x2000)
}

/// Who is told that a descriptor is ready.
public protocol EventHandler: AnyObject {
    func ready(_ events: Readiness)
}

/// Who is told that a turn of the loop is over: all that was ready has been handled, and the loop waits next.
public protocol TurnHandler: AnyObject {
    func endOfTurn()
}

/// Who does something between two turns of a loop that may hold its thread up (`Relief`).
public protocol Detour: AnyObject {
    /// Whether there is something to do: then the loop does not wait for events first.
    var isWanted: Bool { get }
    /// Does it. false: the loop is another thread's by now, and this one has touched nothing of it since.
    func go() -> Bool
}

/// A loop around epoll, level-triggered. One thread runs it, and all of it belongs to that thread; other threads reach it
/// through a `Mailbox`.
public final class EventLoop {
    /// Events taken from the kernel at once: enough to spread the cost of the call, few enough that timers are not late.
    static let eventsPerTurn = 128
    /// Arrays that swelled in a burst are given back above this capacity.
    static let keptCapacity = 4096

    private struct Watch {
        var handler: (any EventHandler)?
        /// Tells an event of this registration from one of an earlier registration of the same number.
        var generation: UInt32 = 0
    }

    private let epoll: FileDescriptor
    /// By descriptor: the kernel gives out the lowest free number, so the array stays as short as the process has descriptors.
    private var watches: [Watch] = []
    private var generations: UInt32 = 0
    private var timers = TimerQueue()
    private var turnHandlers: [any TurnHandler] = []
    private var endingHandlers: [any TurnHandler] = []
    private var events = [linux_event](repeating: linux_event(), count: EventLoop.eventsPerTurn)
    private var isStopping = false
    /// What is done after each turn of `run`.
    public var detour: (any Detour)?
    private var busyPolling = BusyPolling(most: 0)
    private var givingWay = GivingWay(isWanted: false)

    /// Runs what other threads hand over, on the loop's thread, in the order of posting.
    public let mailbox: Mailbox<@Sendable (EventLoop) -> Void>

    /// Nanoseconds of the monotonic clock, as of the start of this turn.
    public private(set) var now: UInt64

    public init() throws(SystemError) {
        epoll = FileDescriptor(owning: try check("epoll_create1", linux_epoll_create()))
        now = linux_monotonic_nanoseconds()
        mailbox = try Mailbox()
        try receive(mailbox) { [unowned self] work in work(self) }
    }

    // MARK: Descriptors

    /// Watches `fd`, which is not watched yet. The loop keeps `handler` until `remove`; the caller keeps the descriptor.
    public func add(_ fd: Int32, _ interest: Readiness, _ handler: any EventHandler) throws(SystemError) {
        precondition(fd >= 0 && !isWatched(fd), "a descriptor is watched once")
        generations &+= 1
        let data = UInt64(generations) << 32 | UInt64(fd)
        _ = try check("epoll_ctl", linux_epoll_add(epoll.rawValue, fd, interest.rawValue, data))
        while watches.count <= Int(fd) { watches.append(Watch()) }
        watches[Int(fd)] = Watch(handler: handler, generation: generations)
    }

    /// Changes what `fd` is watched for; an empty interest leaves only errors and hang-ups.
    public func modify(_ fd: Int32, _ interest: Readiness) throws(SystemError) {
        precondition(isWatched(fd), "a descriptor is added first")
        let data = UInt64(watches[Int(fd)].generation) << 32 | UInt64(fd)
        _ = try check("epoll_ctl", linux_epoll_modify(epoll.rawValue, fd, interest.rawValue, data))
    }

    /// Watches `fd` no more: call it before the descriptor is closed. Nothing that happened to it is delivered afterwards, nor
    /// to a new descriptor that gets its number.
    public func remove(_ fd: Int32) {
        guard isWatched(fd) else { return }
        _ = linux_epoll_remove(epoll.rawValue, fd)
        watches[Int(fd)].handler = nil
    }

    public func isWatched(_ fd: Int32) -> Bool { Int(fd) < watches.count && watches[Int(fd)].handler != nil }

    // MARK: Timers

    /// Calls `work` once, at least `nanoseconds` from the start of this turn, in a later turn.
    @discardableResult
    public func after(nanoseconds: UInt64, _ work: @escaping () -> Void) -> TimerID {
        let (deadline, overflow) = now.addingReportingOverflow(nanoseconds)
        return timers.schedule(at: overflow ? .max : deadline, work)
    }

    /// Calls `work` once `now` has reached `deadline`, in a later turn.
    @discardableResult
    public func at(_ deadline: UInt64, _ work: @escaping () -> Void) -> TimerID { timers.schedule(at: deadline, work) }

    /// The timer will not fire. Nothing happens if it has.
    public func cancel(_ timer: TimerID) { timers.cancel(timer) }

    // MARK: Mailboxes and turns

    /// Delivers what is posted to `mailbox`, message by message in the order of posting, on the loop's thread.
    public func receive<Message>(_ mailbox: Mailbox<Message>, _ handler: @escaping (Message) -> Void) throws(SystemError) {
        try add(mailbox.descriptor, .readable, MailboxReceiver(mailbox, handler))
    }

    /// Ends the delivery to `mailbox`'s handler.
    public func ignore<Message>(_ mailbox: Mailbox<Message>) { remove(mailbox.descriptor) }

    /// Calls `handler` once when this turn is over. A handler that asks again from `endOfTurn` is called at the end of the
    /// next turn, which then does not wait.
    public func whenTurnEnds(_ handler: any TurnHandler) { turnHandlers.append(handler) }

    // MARK: Running

    /// Looks for events for up to so many nanoseconds before it sleeps, as long as events come that soon. Others that want the
    /// processor meanwhile get it.
    public func pollBusily(atMost nanoseconds: UInt64) { busyPolling = BusyPolling(most: nanoseconds) }

    /// Lets other threads have the processor before it looks for events, while events come faster than it handles them: for who
    /// stands between two that speak with each other.
    public func giveWay() { givingWay = GivingWay(isWanted: true) }

    /// Runs until `stop`, or until a detour has lost the loop to another thread: false.
    @discardableResult
    public func run() -> Bool {
        isStopping = false
        while !isStopping {
            turn(waitingAtMost: nil)
            if !isStopping, let detour, detour.isWanted, !detour.go() { return false }
        }
        return true
    }

    /// Lets `run` return when the present turn is over.
    public func stop() { isStopping = true }

    /// One turn: waits for the first event or timer, but not longer than `limit` nanoseconds, and handles all that is ready.
    public func turn(waitingAtMost limit: UInt64?) {
        let count = wait(atMost: limit)
        now = linux_monotonic_nanoseconds()
        for index in 0..<count {
            let (data, bits) = (events[index].data, events[index].events)
            let watch = watches[Int(data & 0xffff_ffff)]
            guard UInt64(watch.generation) == data >> 32, let handler = watch.handler else { continue }
            handler.ready(Readiness(rawValue: bits))
        }
        let newest = timers.newest
        while let work = timers.takeDue(at: now, notAfter: newest) { work() }
        endTurn()
    }

    private func endTurn() {
        guard !turnHandlers.isEmpty else { return }
        swap(&turnHandlers, &endingHandlers)
        for handler in endingHandlers { handler.endOfTurn() }
        endingHandlers.removeAll(keepingCapacity: endingHandlers.capacity <= Self.keptCapacity)
    }

    private func wait(atMost limit: UInt64?) -> Int {
        var wait = limit
        if !turnHandlers.isEmpty || detour?.isWanted == true { wait = 0 }
        if let next = timers.next {
            let clock = linux_monotonic_nanoseconds()
            wait = min(wait ?? .max, next > clock ? next - clock : 0)
        }
        if givingWay.isWanted {
            let count = takeAfterOthers()
            if count > 0 || wait == 0 { return count }
        }
        guard busyPolling.most > 0, wait != 0 else { return take(within: wait) }
        let begin = linux_monotonic_nanoseconds()
        guard begin - now <= BusyPolling.longestWork else { return take(within: wait) }
        let end = begin + min(busyPolling.window, wait ?? .max)
        var clock = begin
        while clock < end {
            let count = take(within: 0)
            if count == 0 { linux_yield() }
            let last = clock
            clock = linux_monotonic_nanoseconds()
            if clock - last > busyPolling.most { busyPolling.lostProcessor(now: clock) }
            guard count == 0 else {
                busyPolling.waited(clock - begin, now: clock)
                return count
            }
        }
        let count = take(within: wait)
        clock = linux_monotonic_nanoseconds()
        busyPolling.waited(clock - begin, now: clock)
        return count
    }

    /// What is ready when others have had the processor, if it is for them to have it first.
    private func takeAfterOthers() -> Int {
        let begin = linux_monotonic_nanoseconds()
        if givingWay.isDue(now: begin) {
            linux_yield()
            let clock = linux_monotonic_nanoseconds()
            givingWay.gaveWay(for: clock - begin, now: clock)
        }
        let count = take(within: 0)
        givingWay.looked(found: count)
        return count
    }

    /// Asks the kernel for what is ready; nil: waits for it.
    private func take(within wait: UInt64?) -> Int {
        let nanoseconds = wait.map { Int64(clamping: $0) } ?? -1
        let count = unsafe linux_epoll_wait(epoll.rawValue, &events, Int32(events.count), nanoseconds)
        precondition(count >= 0 || count == -EINTR, "epoll_wait fails only for a descriptor that is no epoll")
        return max(0, Int(count))
    }
}
