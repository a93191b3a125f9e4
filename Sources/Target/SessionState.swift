import BasicContainers
import Bytes
import DequeModule
import ISCSI
import Medium
import SCSI

/// What a session is. See `Session` for what its functions mean.
struct SessionState: ~Copyable {
    let start: SessionStart
    let target: ServedTarget
    let data: BufferPool
    private let answers: BufferPool
    let deliver: @Sendable (Notification) -> Void
    var engine: FullFeature

    // Tasks, by the engine's slots.
    var tasks = UniqueArray<TaskState>()
    var taskSerial: UInt64 = 0
    var outside = 0
    /// May begin, or go on, in this order.
    var ready: Deque<TaskIndex> = []
    var answersWaiting: Deque<TaskIndex> = []
    /// Those that it may see, and those that tasks are of still.
    var nexuses = UniqueArray<ITLNexus>()
    /// Where those are that it may see, by logical unit number.
    var seen: [Int: Int] = [:] { didSet { recent = nil } }
    /// The LUN field of the last command, and whose it is: most commands are for the same one.
    private var recent: (lun: UInt64, nexus: Int)?
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

    var actions: Deque<Errand> = []
    /// `now` of the last call.
    var clock: UInt64
    var lastHeard: UInt64
    var lastPing: UInt64
    var lastSent: UInt64
    var takesInput = true
    private(set) var endReason: EndReason?
    var isDeregistered = false

    init(
        _ start: SessionStart, target: ServedTarget, data: BufferPool, answers: BufferPool, now: UInt64,
        deliver: @escaping @Sendable (Notification) -> Void
    ) {
        self.start = start
        self.target = target
        mask = start.mask
        self.data = data
        self.answers = answers
        self.deliver = deliver
        engine = FullFeature(
            start.parameters, sessionType: .normal, cid: start.cid, expCmdSN: start.expCmdSN, statSN: start.statSN, answers: answers,
            keeps: SessionLimits.spareMemory)
        memoryShare = data.budget / SessionLimits.shareOfMemory
        (clock, lastHeard, lastPing, lastSent) = (now, now, now, now)
        unitGeneration = 0
        refreshUnits(nil)
    }

    /// The nexus that a LUN field names; nil if it may see none of that number.
    mutating func nexus(_ lun: UInt64) -> Int? {
        if let recent, recent.lun == lun { return recent.nexus }
        guard let nexus = LogicalUnitNumber(rawValue: lun).flat.flatMap({ seen[$0] }) else { return nil }
        recent = (lun, nexus)
        return nexus
    }

    var wantsInput: Bool {
        takesInput && unaccepted == nil && answersWaiting.isEmpty && engine.output.byteCount < SessionLimits.unsentBeforeInputStops
    }

    var isQuiet: Bool { endReason != nil && outside == 0 }

    mutating func nextAction() -> Action? {
        while let errand = actions.popFirst() {
            guard case .perform(let ticket) = errand else {
                if case .other(let action) = errand { return action }
                continue
            }
            let slot = ticket.task.rawValue
            if tasks[slot].fate == .goesOn { return .perform(ticket) }
            // It was aborted before it was begun.
            left(ticket.task)
            drain()
        }
        return nil
    }

    var statistics: [(number: Int, statistics: IOStatistics)] {
        seen.map { ($0, nexuses[$1].statistics) }.sorted { $0.0 < $1.0 }
    }

    // MARK: What happens

    mutating func receive(_ input: Span<UInt8>, now: UInt64) -> Int {
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
            case .sendTargets(let request): actions.append(.other(.askSendTargets(request)))
            case .logout(let request): logout(request)
            case .fail(let error): close(.protocolError("\(error)"), afterOutput: true)
            }
            drain()
        }
        return used
    }

    mutating func landed(_ count: Int, of landing: Landing, now: UInt64) {
        (clock, lastHeard) = (now, now)
        engine.landed(count, of: landing)
    }

    mutating func send(now: UInt64, _ send: (inout OutputQueue) -> Void) {
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
        if !data.isAmple { engine.output.dropSpare() }
        serveMemory()
        drain()
    }

    mutating func perform(_ ticket: Ticket, now: UInt64, _ body: (Operation, Buffer?, (any MediumHold)?) -> Outcome?) {
        guard isOutside(ticket), let outcome = tasks[ticket.task.rawValue].withOperation(body) else { return }
        completed(ticket, outcome: outcome, now: now)
    }

    mutating func completed(_ ticket: Ticket, outcome: Outcome, now: UInt64) {
        clock = now
        guard isOutside(ticket) else { return }
        resume(ticket.task, outcome)
        serveMemory()
        drain()
    }

    mutating func memoryAvailable(isReport: Bool, now: UInt64) {
        clock = now
        if isReport { memoryIsAwaited = false }
        serveMemory()
        drain()
    }

    mutating func notified(_ notification: Notification, now: UInt64) {
        clock = now
        switch notification {
        case .logicalUnitsChanged(let acknowledgement): refreshUnits(acknowledgement)
        case .mediumChanged(let unit): for nexus in nexuses.indices where nexuses[nexus].unit === unit { nexuses[nexus].medium = nil }
        case .abortTasks(let unit, let clearedByAnother, let acknowledgement):
            let meant = nexuses.indices.filter { nexuses[$0].unit === unit }
            let (stillOutside, anyAborted) = abort { _, task in task.nexus.map { meant.contains($0) } ?? false }
            if clearedByAnother && anyAborted { unit.post(.commandsClearedByAnotherInitiator, to: .only(start.nexus)) }
            wait(for: stillOutside, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
        case .targetReset(let units, let endsSessions, let acknowledgement):
            let meant = Set(nexuses.indices.filter { units.contains(nexuses[$0].unit) })
            let (stillOutside, _) = abort { _, task in task.nexus.map { meant.contains($0) } ?? endsSessions }
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

    mutating func tick(now: UInt64) {
        clock = now
        guard endReason == nil else { return }
        if engine.output.isEmpty { lastSent = now }
        let isIdle = engine.isIdle && engine.output.isEmpty && now >= lastHeard + SessionLimits.second
        if isIdle || !data.isAmple { engine.output.dropSpare() }
        if isIdle {
            engine.shrink()
            tasks = UniqueArray()
        }
        let unreadIsCostly = !chargesInOutput.isEmpty || engine.output.byteCount >= SessionLimits.unsentBeforeInputStops
        if unreadIsCostly && now >= lastSent + SessionLimits.outputStall { return close(.outputStalled, afterOutput: false) }
        // While it is not read, its silence says nothing.
        if !wantsInput { lastHeard = now }
        if now >= lastHeard + SessionLimits.inputStall && holdsMemoryUntilRead { return close(.inputStalled, afterOutput: false) }
        ping()
        serveMemory()
        drain()
    }

    mutating func answer(_ request: TextRequest, _ targets: [DiscoveredTarget]) {
        guard endReason == nil else { return }
        engine.sendTargets(request, targets)
    }

    mutating func end(_ reason: EndReason) {
        finish(reason)
        engine.output = OutputQueue(pool: answers)
        chargesInOutput = []
    }

    // MARK: Its own ends

    private mutating func finish(_ reason: EndReason) {
        guard endReason == nil else { return }
        endReason = reason
        takesInput = false
        _ = abort { _, _ in true }
        for nexus in nexuses.indices { nexuses[nexus].medium = nil }
        forgetFunctions()
        drain()
    }

    /// Ends and has the connection closed.
    mutating func close(_ reason: EndReason, afterOutput: Bool) {
        guard endReason == nil else { return }
        if afterOutput { finish(reason) } else { end(reason) }
        actions.append(.other(.close(reason, afterOutput: afterOutput)))
    }

    private mutating func ping() {
        let interval = UInt64(start.nopInterval) * SessionLimits.second
        guard interval > 0, start.nopCount > 0, clock >= lastHeard + interval, clock >= lastPing + interval else { return }
        guard engine.unansweredPings < Int(start.nopCount) else { return close(.pingTimeout, afterOutput: false) }
        lastPing = clock
        engine.ping()
    }

    private mutating func logout(_ request: LogoutRequest) {
        switch request.reason {
        case .closeSession,
            .closeConnection where request.cid == start.cid:
            takesInput = false
            let (stillOutside, _) = abort { _, _ in true }
            wait(for: stillOutside, awaitsOthers: false, then: .logout(request))
        case .closeConnection: engine.answer(request, response: LogoutResponse.cidNotFound.rawValue)
        case .removeForRecovery: engine.answer(request, response: LogoutResponse.recoveryNotSupported.rawValue)
        }
    }
}

/// Responses to a Logout Request (RFC 7143 §11.15.1).
enum LogoutResponse: UInt8 { case closed = 0, cidNotFound = 1, recoveryNotSupported = 2 }
