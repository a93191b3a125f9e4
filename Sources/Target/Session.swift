import Bytes
import DequeModule
import ISCSI
import Medium
import SCSI

/// What a session starts from: the fruit of a login.
public struct SessionStart: Sendable {
    /// Never used before in this process.
    public var nexus: NexusID
    public var initiatorName: ISCSIName
    public var isid: ISID
    public var tsih: UInt16
    public var cid: UInt16
    public var parameters: NegotiatedParameters
    public var expCmdSN: UInt32
    public var statSN: UInt32
    /// Seconds of silence before a ping, 0 for never, and pings without an answer before the connection is closed.
    public var nopInterval: UInt32
    public var nopCount: UInt32
    /// What it may see and write.
    public var mask = LUNMask.all
    /// Of the portal by which it has come (RFC 7143 §13.9).
    public var portalGroupTag: UInt16 = 1

    public init(
        nexus: NexusID, initiatorName: ISCSIName, isid: ISID, tsih: UInt16, cid: UInt16, parameters: NegotiatedParameters,
        expCmdSN: UInt32, statSN: UInt32, nopInterval: UInt32 = SessionLimits.nopInterval, nopCount: UInt32 = SessionLimits.nopCount
    ) {
        self.nexus = nexus
        self.initiatorName = initiatorName
        self.isid = isid
        self.tsih = tsih
        self.cid = cid
        self.parameters = parameters
        self.expCmdSN = expCmdSN
        self.statSN = statSN
        self.nopInterval = nopInterval
        self.nopCount = nopCount
    }

    /// What a login has ended in, now that control has granted it.
    public init(
        nexus: NexusID, outcome: LoginOutcome, tsih: UInt16, nopInterval: UInt32 = SessionLimits.nopInterval,
        nopCount: UInt32 = SessionLimits.nopCount
    ) {
        self.init(
            nexus: nexus, initiatorName: outcome.identity.initiatorName, isid: outcome.identity.isid, tsih: tsih, cid: outcome.identity.cid,
            parameters: outcome.negotiated, expCmdSN: outcome.expCmdSN, statSN: outcome.statSN, nopInterval: nopInterval, nopCount: nopCount)
    }

    /// The I_T nexus that the session is of (RFC 7143 §3.4.2).
    public var name: NexusName { NexusName(initiator: InitiatorPort(name: initiatorName.bytes, isid: isid.rawValue), portalGroupTag: portalGroupTag) }
}

/// One normal session with its one connection, in full-feature phase. Confined to its reactor.
///
/// The caller hands in bytes, ends of operations, notifications and time (`now`: monotonic, in nanoseconds). After every call
/// it takes out every `nextAction()`, sends `output`, and if `wantsInput` calls `receive` with the bytes that are left, even if none
/// are: a command may have waited in here. When `isQuiet`, nothing of the session is left in the store, and it can be dropped.
public final class Session {
    public let start: SessionStart
    public let target: ServedTarget
    let data: BufferPool
    private let answers: BufferPool
    let deliver: @Sendable (Notification) -> Void
    var engine: FullFeature

    // Tasks, by the engine's slots.
    var tasks: [SessionTask?] = []
    var taskSerial: UInt64 = 0
    var outside = 0
    /// May begin, or go on, in this order.
    var ready: Deque<TaskIndex> = []
    var answersWaiting: Deque<TaskIndex> = []
    /// Those that it may see.
    var nexuses: [Int: ITLNexus] = [:]
    var mask: LUNMask
    var unitGeneration: UInt64

    // Memory.
    var memoryHeld = 0
    let memoryShare: Int
    var waitsForMemory: Deque<TaskIndex> = []
    /// A write whose data cannot be read before there is a buffer for them.
    var unaccepted: TaskIndex?
    var unacceptedSince: UInt64 = 0
    var memoryIsAwaited = false
    /// Buffers in `output`: up to which byte of all bytes ever sent they reach, and their charge.
    var chargesInOutput: Deque<(end: UInt64, charge: Int)> = []
    var bytesSent: UInt64 = 0

    // What waits for tasks to leave the store.
    var waits: [Wait] = []
    var waitNumber: UInt64 = 0

    var actions: Deque<Action> = []
    /// `now` of the last call.
    var clock: UInt64
    var lastHeard: UInt64
    var lastPing: UInt64
    var lastSent: UInt64
    var takesInput = true
    public private(set) var endReason: EndReason?
    var isDeregistered = false

    /// Enters the session in `target` and attaches its nexus to every logical unit that it may see.
    ///
    /// nil if its nexus has a session already: call `ServedTarget.reinstate` and try again when that is gone.
    /// - Parameters:
    ///   - data: memory for the data of commands, shared by all sessions of the process. An idle session holds none.
    ///   - answers: memory for small answers: `SessionLimits.unsentBeforeInputStops` and a little more for every session.
    ///   - deliver: posts to the mailbox of the reactor, which calls `notified`; see `SessionHandle`.
    public init?(
        _ start: SessionStart, target: ServedTarget, data: BufferPool, answers: BufferPool, now: UInt64,
        deliver: @escaping @Sendable (Notification) -> Void
    ) {
        var handle = SessionHandle(nexus: start.nexus, start.name, deliver: deliver)
        handle.mask = start.mask
        guard target.register(handle) else { return nil }
        self.start = start
        self.target = target
        mask = start.mask
        self.data = data
        self.answers = answers
        self.deliver = deliver
        engine = FullFeature(
            start.parameters, sessionType: .normal, cid: start.cid, expCmdSN: start.expCmdSN, statSN: start.statSN, answers: answers)
        memoryShare = data.budget / SessionLimits.shareOfMemory
        (clock, lastHeard, lastPing, lastSent) = (now, now, now, now)
        unitGeneration = 0
        refreshUnits(nil)
    }

    // MARK: What the caller asks

    /// Bytes that are to be sent.
    public var unsent: Int { engine.output.byteCount }

    /// Queues what goes out before anything else: the Login Response with which the session begins.
    public func begin(with loginResponse: [UInt8]) { engine.output.append(copying: loginResponse.span) }

    /// False while the connection must not be read: a write waits for memory, or too many answers wait to be sent.
    public var wantsInput: Bool {
        takesInput && unaccepted == nil && answersWaiting.isEmpty && engine.output.byteCount < SessionLimits.unsentBeforeInputStops
    }

    /// Whether the session has ended and nothing of it is left in the store.
    public var isQuiet: Bool { endReason != nil && outside == 0 }

    /// What is to be done now; nil when that is all.
    public func nextAction() -> Action? {
        while let action = actions.popFirst() {
            if case .perform(let ticket, _, _, _) = action, let task = tasks[ticket.task.rawValue], task.fate != .goesOn {
                // It was aborted before it was begun.
                left(ticket.task)
                drain()
                continue
            }
            return action
        }
        return nil
    }

    /// The medium that the task's operation is for.
    public func medium(of ticket: Ticket) -> (any MediumHandle)? { tasks[ticket.task.rawValue]?.device.medium }

    /// What it has done so far, by logical unit number.
    public var statistics: [(number: Int, statistics: IOStatistics)] {
        nexuses.values.map { ($0.number, $0.statistics) }.sorted { $0.0 < $1.0 }
    }

    /// Octets and PDUs of its connection since login.
    public var traffic: Traffic { engine.traffic }

    // MARK: What happens

    /// What the peer has sent.
    /// - Returns: how many bytes of `input` are used up: all, unless `wantsInput` has become false. Hand in the rest when it is true again.
    public func receive(_ input: Span<UInt8>, now: UInt64) -> Int {
        clock = now
        if input.count > 0 { lastHeard = now }
        var used = 0
        while wantsInput {
            // In pieces: requests that are answered without our doing would not stop at the limit for answers.
            let piece = input.extracting(used..<min(input.count, used + SessionLimits.inputPiece))
            var offset = 0
            let event = engine.next(piece, &offset)
            used += offset
            switch event {
            case .needsInput:
                drain()
                if used == input.count { return used }
            case .command(let index): command(index)
            case .dataOutComplete(let index): dataOutComplete(index)
            case .dataOutFailed(let index, let error): dataOutFailed(index, error)
            case .taskManagement(let request): manage(request)
            case .sendTargets(let request): actions.append(.askSendTargets(request))
            case .logout(let request): logout(request)
            case .fail(let error): close(.protocolError("\(error)"), afterOutput: true)
            }
            drain()
        }
        return used
    }

    /// Lets `send` take from the front of what is to be sent.
    public func send(now: UInt64, _ send: (inout OutputQueue) -> Void) {
        let before = engine.output.byteCount
        send(&engine.output)
        let count = before - engine.output.byteCount
        guard count > 0 else { return }
        clock = now
        lastSent = now
        bytesSent += UInt64(count)
        while let first = chargesInOutput.first, first.end <= bytesSent {
            chargesInOutput.removeFirst()
            memoryHeld -= first.charge
        }
        serveMemory()
        drain()
    }

    /// An operation is over; its buffer is the session's again.
    public func completed(_ ticket: Ticket, outcome: Outcome, now: UInt64) {
        clock = now
        guard isOutside(ticket) else { return }
        resume(ticket.task, outcome)
        serveMemory()
        drain()
    }

    /// What a command changes is kept, or refused: its logical unit knows which.
    public func kept(_ ticket: Ticket, now: UInt64) { completed(ticket, outcome: .done, now: now) }

    /// Memory may be had now.
    /// - Parameter isReport: this is the report that `.waitForMemory` asked for. False: a try after registering for it, because memory
    ///   may have been given back just before.
    public func memoryAvailable(isReport: Bool, now: UInt64) {
        clock = now
        if isReport { memoryIsAwaited = false }
        serveMemory()
        drain()
    }

    public func notified(_ notification: Notification, now: UInt64) {
        clock = now
        switch notification {
        case .logicalUnitsChanged(let acknowledgement): refreshUnits(acknowledgement)
        case .abortTasks(let unit, let clearedByAnother, let acknowledgement):
            let (stillOutside, anyAborted) = abort { $0.nexus?.unit === unit }
            if clearedByAnother && anyAborted { unit.post(.commandsClearedByAnotherInitiator, to: .only(start.nexus)) }
            wait(for: stillOutside, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
        case .targetReset(let units, let endsSessions, let acknowledgement):
            let (stillOutside, _) = abort { $0.nexus.map { units.contains($0.unit) } ?? endsSessions }
            wait(for: stillOutside, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
            if endsSessions { close(.targetReset, afterOutput: false) }
        case .maskChanged(let mask, let acknowledgement): apply(mask, acknowledgement)
        case .end(let reason, let acknowledgement):
            close(reason, afterOutput: false)
            wait(for: outsideTasks, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
        case .othersLetGo(let number):
            if let position = waits.firstIndex(where: { $0.number == number }) { waits[position].awaitsOthers = false }
        }
        drain()
    }

    /// About once a second: pings and deadlines.
    public func tick(now: UInt64) {
        clock = now
        guard endReason == nil else { return }
        if engine.output.isEmpty { lastSent = now }
        let unreadIsCostly = !chargesInOutput.isEmpty || engine.output.byteCount >= SessionLimits.unsentBeforeInputStops
        if unreadIsCostly && now >= lastSent + SessionLimits.outputStall { return close(.outputStalled, afterOutput: false) }
        // While it is not read, its silence says nothing.
        if !wantsInput { lastHeard = now }
        if now >= lastHeard + SessionLimits.inputStall && holdsMemoryUntilRead { return close(.inputStalled, afterOutput: false) }
        ping()
        serveMemory()
        drain()
    }

    /// The answer to `.askSendTargets`: the targets that the initiator may see.
    public func answer(_ request: TextRequest, _ targets: [DiscoveredTarget]) {
        guard endReason == nil else { return }
        engine.sendTargets(request, targets)
    }

    /// The connection is gone, or must go: nothing is answered any more, tasks not yet in the store never get there. What waits in
    /// `output` is dropped, also that of a session that has ended before.
    public func end(_ reason: EndReason) {
        finish(reason)
        engine.output = OutputQueue(pool: answers)
        chargesInOutput = []
    }

    // MARK: Its own ends

    private func finish(_ reason: EndReason) {
        guard endReason == nil else { return }
        endReason = reason
        takesInput = false
        _ = abort { _ in true }
        forgetFunctions()
        drain()
    }

    /// Ends and has the connection closed.
    func close(_ reason: EndReason, afterOutput: Bool) {
        guard endReason == nil else { return }
        if afterOutput { finish(reason) } else { end(reason) }
        actions.append(.close(reason, afterOutput: afterOutput))
    }

    private func ping() {
        let interval = UInt64(start.nopInterval) * SessionLimits.second
        guard interval > 0, start.nopCount > 0, clock >= lastHeard + interval, clock >= lastPing + interval else { return }
        guard engine.unansweredPings < Int(start.nopCount) else { return close(.pingTimeout, afterOutput: false) }
        lastPing = clock
        engine.ping()
    }

    private func logout(_ request: LogoutRequest) {
        switch request.reason {
        case .closeSession,
            .closeConnection where request.cid == start.cid:
            takesInput = false
            let (stillOutside, _) = abort { _ in true }
            wait(for: stillOutside, awaitsOthers: false, then: .logout(request))
        case .closeConnection: engine.answer(request, response: LogoutResponse.cidNotFound.rawValue)
        case .removeForRecovery: engine.answer(request, response: LogoutResponse.recoveryNotSupported.rawValue)
        }
    }
}

/// Responses to a Logout Request (RFC 7143 §11.15.1).
enum LogoutResponse: UInt8 { case closed = 0, cidNotFound = 1, recoveryNotSupported = 2 }
