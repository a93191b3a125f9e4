import Door
import Logging
import Reactor

/// The roles in which tgtd starts itself again.
public enum Role: String, Sendable, CaseIterable {
    /// Meets peers that nobody knows yet.
    case login
    /// Serves sessions and logical units.
    case data
    /// Opens backing stores, where that may take for ever.
    case opener
    /// Knows people: asks the name service and PAM, which may take for ever, too.
    case administrator

    /// The descriptor of its end of the door.
    public static let door: Int32 = 3
    /// The page on which login and data note whose bytes they work on.
    public static let page: Int32 = 4
}

/// Limits of looking after our other processes.
public enum SupervisionLimits {
    /// Nanoseconds before a process that ended is started again; doubled each time it ends early, up to the last figure.
    public static let firstDelay: UInt64 = 50_000_000
    public static let longestDelay: UInt64 = 30_000_000_000
    /// A process that has run for so many nanoseconds did not end early.
    public static let settled: UInt64 = 60_000_000_000
    /// How long a process may take to end when it is told to, in nanoseconds.
    public static let farewell: UInt64 = 5_000_000_000
}

/// Keeps one of our processes running: starts it, hears its heart, reaps it, starts its successor, with back-off.
///
/// The successor is started only when the old process is reaped: until then its operations may still reach a store.
final class RoleProcess<Incoming: DoorMessage, Outgoing: DoorMessage> {
    private let role: Role
    private let options: [String]
    private let loop: EventLoop
    private let log: Logger
    private let onStart: () -> Void
    private let onMessage: (Incoming, inout ReceivedDescriptors) -> Void
    private let onEnd: (Culprit?) -> Void
    private let heartbeat: (UInt64) -> Outgoing

    private var process: DoorProcess<Incoming, Outgoing>?
    private var page: WorkPage?
    /// What was under work at the last beats, and whether it is ended because it hangs.
    private var watch = WorkWatch()
    private var hangs = false
    private var delay = SupervisionLimits.firstDelay
    private var startedAt: UInt64 = 0
    private var beats: UInt64 = 0
    private var lastBeat: UInt64 = 0
    private var isStopping = false
    private var whenStopped: (() -> Void)?

    /// Whether it can be talked to.
    private(set) var isRunning = false
    /// Whether it may still touch anything: until it is reaped, however long nobody talks to it any more.
    var isAlive: Bool { process != nil }
    var pid: Int32? { process?.pid }
    /// How the last one ended.
    private(set) var lastEnd: ChildProcess.End?

    /// - Parameters:
    ///   - heartbeat: the message that it must answer
    ///   - onStart: called after each start: tell it all it needs
    ///   - onEnd: called after each end, before its successor starts: forget what belonged to it. With what it was working on, if it
    ///     crashed or hung over that
    init(
        _ role: Role, options: [String], loop: EventLoop, log: Logger, heartbeat: @escaping (UInt64) -> Outgoing, onStart: @escaping () -> Void,
        onMessage: @escaping (Incoming, inout ReceivedDescriptors) -> Void, onEnd: @escaping (Culprit?) -> Void
    ) {
        self.role = role
        self.options = options
        self.loop = loop
        self.log = log
        self.heartbeat = heartbeat
        self.onStart = onStart
        self.onMessage = onMessage
        self.onEnd = onEnd
    }

    func start() throws(SystemError) {
        let page = try WorkPage()
        let process = try DoorProcess<Incoming, Outgoing>(
            role, options: options, page: page, loop: loop, onMessage: { [unowned self] in onMessage($0, &$1) }, onShut: { [unowned self] in doorShut($0) },
            onEnd: { [unowned self] in ended($0) })
        self.process = process
        self.page = page
        watch = WorkWatch()
        hangs = false
        isRunning = true
        startedAt = loop.now
        lastBeat = loop.now
        log.info("the \(role) process runs", metadata: ["pid": "\(process.pid)"])
        onStart()
    }

    func send(_ message: Outgoing, passing descriptor: Int32? = nil) {
        if isRunning { process?.send(message, passing: descriptor) }
    }

    /// - Parameter descriptor: travels along, and is closed here
    func send(_ message: Outgoing, giving descriptor: consuming FileDescriptor?) {
        if isRunning { process?.send(message, giving: descriptor) }
    }

    /// It has answered a heartbeat.
    func heard() { lastBeat = loop.now }

    /// Called regularly: asks for a sign of life, and ends a process that gave none for too long.
    func beat() {
        guard let process, isRunning else { return }
        // A thread that answers no heartbeat may hang, too.
        let looks = page.map { watch.look($0.read()) } ?? 0
        if loop.now > lastBeat + UInt64(DoorLimits.heartbeatPatience) * 1_000_000_000 || looks * DoorLimits.heartbeatInterval > DoorLimits.heartbeatPatience {
            log.error("the \(role) process hangs and is ended", metadata: ["pid": "\(process.pid)"])
            hangs = true
            process.kill()
            return
        }
        beats += 1
        send(heartbeat(beats))
    }

    /// Ends a process that does what it may not.
    func condemn(_ reason: DoorError) { doorShut(.refused(reason)) }

    /// Ends it, for another door that it had is shut.
    func end(_ reason: DoorEnd) { doorShut(reason) }

    /// Ends it for good.
    func stop(_ whenStopped: @escaping () -> Void) {
        isStopping = true
        guard let process else { return whenStopped() }
        self.whenStopped = whenStopped
        isRunning = false
        process.shut()
        loop.after(nanoseconds: SupervisionLimits.farewell) { process.kill() }
    }

    private func doorShut(_ reason: DoorEnd) {
        if !isStopping, case .closed = reason {} else if let process {
            log.error("the \(role) process is ended: \(reason)", metadata: ["pid": "\(process.pid)"])
        }
        isRunning = false
        process?.shut()
        process?.kill()
    }

    /// Its descriptors are closed, its operations over: from here on a successor may touch the same stores.
    private func ended(_ end: ChildProcess.End) {
        guard let process else { return }
        self.process = nil
        isRunning = false
        lastEnd = end
        onEnd(page?.read().culprit(of: end, hanging: hangs ? watch.earlier : nil))
        page = nil
        if isStopping {
            whenStopped?()
            whenStopped = nil
            return
        }
        let ranFor = loop.now - startedAt
        delay = ranFor >= SupervisionLimits.settled ? SupervisionLimits.firstDelay : delay
        log.error("the \(role) process \(end); it is started again in \(delay / 1_000_000) ms", metadata: ["pid": "\(process.pid)"])
        let wait = delay
        delay = min(delay * 2, SupervisionLimits.longestDelay)
        startAgain(after: wait)
    }

    private func startAgain(after nanoseconds: UInt64) {
        loop.after(nanoseconds: nanoseconds) { [weak self] in
            guard let self, !isStopping, process == nil else { return }
            do {
                try start()
            } catch {
                log.error("the \(role) process cannot be started: \(error)")
                startAgain(after: SupervisionLimits.longestDelay)
            }
        }
    }
}
