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
    /// All of it is one value: what happens is one exclusive access to that, whatever it comes to within.
    private var state: SessionState

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
        state = SessionState(start, target: target, data: data, answers: answers, now: now, deliver: deliver)
    }

    public var start: SessionStart { state.start }
    public var endReason: EndReason? { state.endReason }

    // MARK: What the caller asks

    /// Bytes that are to be sent.
    public var unsent: Int { state.engine.output.byteCount }

    /// False while the connection must not be read: a write waits for memory, or too many answers wait to be sent.
    public var wantsInput: Bool { state.wantsInput }

    /// Whether the session has ended and nothing of it is left in the store.
    public var isQuiet: Bool { state.isQuiet }

    /// What is to be done now; nil when that is all.
    public func nextAction() -> Action? { state.nextAction() }


    /// What it has done so far, by logical unit number.
    public var statistics: [(number: Int, statistics: IOStatistics)] { state.statistics }

    /// Octets and PDUs of its connection since login.
    public var traffic: Traffic { state.engine.traffic }

    // MARK: What happens

    /// Queues what goes out before anything else: the Login Response with which the session begins.
    public func begin(with loginResponse: [UInt8]) { state.engine.output.append(copying: loginResponse.span) }

    /// What the peer has sent.
    /// - Returns: how many bytes of `input` are used up: all, unless `wantsInput` has become false. Hand in the rest when it is true again.
    public func receive(_ input: Span<UInt8>, now: UInt64) -> Int { state.receive(input, now: now) }

    /// Where the next bytes may be received straight to, while all that was received is used up; see `FullFeature.landing`.
    public var landing: Landing? { state.wantsInput ? state.engine.landing : nil }

    /// Whether much data may follow the next header; see `FullFeature.isInBulk`.
    public var isInBulk: Bool { state.engine.isInBulk }

    /// The first `count` bytes of `landing` have come. Call `receive` next, with what has come behind them, if only with nothing.
    public func landed(_ count: Int, of landing: Landing, now: UInt64) { state.landed(count, of: landing, now: now) }

    /// Lets `send` take from the front of what is to be sent.
    public func send(now: UInt64, _ send: (inout OutputQueue) -> Void) { state.send(now: now, send) }

    /// Has `body` see to the operation of a task, as `.perform` wants it.
    /// - Parameter body: is lent the operation, the task's buffer and its medium, and does it at once if it can: then it says how that ended,
    ///   and need not hold on to anything. nil: it is not over yet; the buffer is the store's until `completed`. It must not call the session.
    public func perform(_ ticket: Ticket, now: UInt64, _ body: (Operation, Buffer?, (any MediumHold)?) -> Outcome?) {
        state.perform(ticket, now: now, body)
    }

    /// An operation is over; its buffer is the session's again.
    public func completed(_ ticket: Ticket, outcome: Outcome, now: UInt64) { state.completed(ticket, outcome: outcome, now: now) }

    /// What a command changes is kept, or refused: its logical unit knows which.
    public func kept(_ ticket: Ticket, now: UInt64) { state.completed(ticket, outcome: .done, now: now) }

    /// Memory may be had now.
    /// - Parameter isReport: this is the report that `.waitForMemory` asked for. False: a try after registering for it, because memory
    ///   may have been given back just before.
    public func memoryAvailable(isReport: Bool, now: UInt64) { state.memoryAvailable(isReport: isReport, now: now) }

    public func notified(_ notification: Notification, now: UInt64) { state.notified(notification, now: now) }

    /// About once a second: pings and deadlines.
    public func tick(now: UInt64) { state.tick(now: now) }

    /// The answer to `.askSendTargets`: the targets that the initiator may see.
    public func answer(_ request: TextRequest, _ targets: [DiscoveredTarget]) { state.answer(request, targets) }

    /// The connection is gone, or must go: nothing is answered any more, tasks not yet in the store never get there. What waits in
    /// `output` is dropped, also that of a session that has ended before.
    public func end(_ reason: EndReason) { state.end(reason) }
}
