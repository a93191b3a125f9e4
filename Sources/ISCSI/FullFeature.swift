import BasicContainers
import Bytes

/// Full-feature phase of one connection (RFC 7143 §4.2–4.4, §11) of a discovery or a normal session at ErrorRecoveryLevel 0:
/// framing, digests, command order and window, transfer of data, text, NOP, logout, Reject.
///
/// The caller hands in what it received, carries out the events, and sends what is in `output`. It does not call `next` while
/// `output` holds more than it cares to keep: that is what bounds a peer that asks and never listens.
public struct FullFeature: ~Copyable {
    public enum Event {
        /// The input is used up.
        case needsInput
        /// A SCSI command in its turn. Call `accept`, `finish` or `drop` before `next`.
        case command(TaskIndex)
        /// All the bytes accepted are in the buffer, and no more are on the way.
        case dataOutComplete(TaskIndex)
        /// The task's data cannot be used: finish it with CHECK CONDITION, ABORTED COMMAND.
        case dataOutFailed(TaskIndex, DataOutError)
        /// Answer with `answer(_:response:)`, now or later.
        case taskManagement(TaskManagementRequest)
        /// Answer with `sendTargets`, now or later.
        case sendTargets(TextRequest)
        /// End the tasks, then answer with `answer(_:response:)` and close behind it.
        case logout(LogoutRequest)
        /// Send what is in `output`, then close.
        case fail(ConnectionError)
    }

    /// What waits to be sent. The caller sends and consumes.
    public var output: OutputQueue
    public let negotiated: NegotiatedParameters
    public let sessionType: SessionType
    public let cid: UInt16

    public internal(set) var traffic = Traffic()
    /// Whether the last data that came were worth a `landing`: then it pays to receive a header without much of what follows.
    public private(set) var isInBulk = false
    /// NOP-Ins of ours that the initiator has not answered.
    public internal(set) var unansweredPings = 0
    /// The initiator's limit for our data segments, which a Text Request may change.
    var maxXmitDataSegmentLength: Int

    // Numbering (RFC 7143 §4.2.2).
    var expCmdSN: UInt32
    var statSN: UInt32
    /// Non-immediate requests that are not answered yet: what the window is smaller by.
    var occupied = 0

    // Tasks.
    var tasks = UniqueArray<TaskSlot>()
    var freeSlots: [Int] = []
    var slotOfTag = TagTable()
    var liveTasks = 0
    var immediateTasks = 0
    var immediateManagement = 0
    var drainingTasks = 0
    var drainingCounter: UInt64 = 0

    // The PDU that is being read.
    private var framing = Framing()
    var destination = Destination.discard
    var conclusion = Conclusion.nothing
    /// Data of the PDU, where they are small and kept here.
    var collected: [UInt8] = []

    // PDUs that came before their turn.
    var held: [HeldCommand] = []
    var heldBytes = 0
    private var replay: [UInt8] = []
    private var replayOffset = 0

    var text: TextExchange?
    var tagCounter: UInt32 = 0
    var logoutIsPending = false
    private var failure: ConnectionError?

    /// Where the data of the PDU go.
    enum Destination {
        case discard
        /// Into the task's buffer from this offset on.
        case task(Int, at: Int)
        /// Into `collected`, as far as that may grow.
        case collect(limit: Int)
    }

    /// What is to be done when the PDU is over.
    enum Conclusion {
        case nothing
        case command(Int)
        case dataOut(Int, isFinal: Bool, isSolicited: Bool, counts: Bool)
        case ping
        case pong
        case text
        case taskManagement
        case logout
        case hold
    }

    /// A PDU that waits for its turn, with the Data-Out PDUs that belong to it; as they came, without digests. Without bytes it
    /// stands for a command that counts as received and aborted.
    struct HeldCommand {
        var cmdSN: UInt32
        var initiatorTaskTag: UInt32
        var isCommand: Bool
        var bytes: [UInt8]
    }

    /// - Parameters:
    ///   - expCmdSN: CmdSN of the first command that is not immediate
    ///   - statSN: StatSN of the next response
    ///   - answers: memory for what is sent; see `OutputQueue`
    ///   - keeps: bytes of the buffers of answered tasks that `output` keeps for `OutputQueue.reuse`
    public init(
        _ negotiated: NegotiatedParameters, sessionType: SessionType, cid: UInt16, expCmdSN: UInt32, statSN: UInt32, answers: BufferPool,
        keeps: Int = 0
    ) {
        output = OutputQueue(pool: answers, keeps: keeps)
        self.negotiated = negotiated
        self.sessionType = sessionType
        self.cid = cid
        self.expCmdSN = expCmdSN
        self.statSN = statSN
        maxXmitDataSegmentLength = negotiated.maxXmitDataSegmentLength
    }

    /// Begins where a login has ended. The final Login Response is not part of it.
    public init(_ outcome: LoginOutcome, answers: BufferPool) {
        self.init(
            outcome.negotiated, sessionType: outcome.identity.sessionType, cid: outcome.identity.cid, expCmdSN: outcome.expCmdSN,
            statSN: outcome.statSN, answers: answers)
    }

    /// Whether no task is under way.
    public var isIdle: Bool { liveTasks == 0 }

    /// The tasks that are neither finished nor dropped.
    public var liveTaskIndexes: [TaskIndex] {
        tasks.indices.filter { tasks[$0].isLive }.map { TaskIndex(rawValue: $0) }
    }

    /// What the command of a task says.
    public func task(_ index: TaskIndex) -> TaskInfo {
        precondition(tasks[index.rawValue].isLive)
        return tasks[index.rawValue].info
    }

    /// Works on `input` from `offset` on, until something must be told or the input is used up. Data-Out bytes go straight
    /// into the buffers of their tasks.
    public mutating func next(_ input: Span<UInt8>, _ offset: inout Int) -> Event {
        while true {
            if let failure { return .fail(failure) }
            if framing.isAtBoundary, replay.isEmpty, !held.isEmpty { promoteHeld() }
            let step: Step
            if replay.isEmpty {
                let begin = offset
                step = self.step(input, &offset, headerDigest: negotiated.headerDigest, dataDigest: negotiated.dataDigest)
                traffic.receivedOctets &+= UInt64(offset - begin)
            } else {
                let bytes = replay
                var position = replayOffset
                step = self.step(bytes.span, &position, headerDigest: false, dataDigest: false)
                replayOffset = position
                if framing.isAtBoundary, replayOffset == bytes.count { replay = [] }
            }
            switch step {
            case .more: continue
            case .needsInput: return .needsInput
            case .tell(let event): return event
            }
        }
    }

    // MARK: Data past the input

    /// Where the next bytes from the peer may be received straight to, because they are data of a task and many; then tell `landed`.
    /// Asked for between calls of `next` that have used up their input. They may as well come as input.
    public var landing: Landing? {
        guard replay.isEmpty, let due = framing.dataDue, case .task(let slot, let start) = destination, let buffer = tasks[slot].buffer else { return nil }
        let end = min(start + due.upperBound, tasks[slot].wanted)
        let begin = start + due.lowerBound
        return end - begin >= FullFeatureLimits.landing ? Landing(buffer: buffer, range: begin..<end) : nil
    }

    /// The first `count` bytes of `landing` have been received.
    public mutating func landed(_ count: Int, of landing: Landing) {
        traffic.receivedOctets &+= UInt64(count)
        let begin = landing.range.lowerBound
        landing.buffer.withBytes(begin..<begin + count) { framing.take($0, dataDigest: negotiated.dataDigest) }
    }

    private enum Step {
        case more
        case needsInput
        case tell(Event)
    }

    private mutating func step(_ input: Span<UInt8>, _ offset: inout Int, headerDigest: Bool, dataDigest: Bool) -> Step {
        switch framing.step(input, &offset, headerDigest: headerDigest, dataDigest: dataDigest) {
        case .needsInput: return .needsInput
        case .header:
            // One that had to wait for its turn was counted when it came.
            if replay.isEmpty {
                traffic.received(framing.header)
                if framing.dataSegmentLength > 0 { isInBulk = framing.dataSegmentLength >= FullFeatureLimits.landing }
            }
            destination = .discard
            conclusion = .nothing
            return admit(framing.header).map { .tell($0) } ?? .more
        case .data(let range, let position):
            place(input.extracting(range), at: position)
            return .more
        case .end:
            let event = conclude(framing.header)
            // What was long is given back: an idle connection keeps nothing.
            if !collected.isEmpty { collected.removeAll(keepingCapacity: collected.capacity <= FullFeatureLimits.textBytes) }
            return event.map { .tell($0) } ?? .more
        case .headerDigestIsWrong: return .tell(fail(.headerDigest))
        case .dataDigestIsWrong:
            reject(framing.header, .dataDigestError)
            return .tell(fail(.dataDigest))
        }
    }

    mutating func fail(_ error: ConnectionError) -> Event {
        failure = error
        return .fail(error)
    }

    private mutating func place(_ data: borrowing Span<UInt8>, at position: Int) {
        switch destination {
        case .discard: break
        case .task(let slot, let start): tasks[slot].place(data, at: start + position)
        case .collect(let limit):
            let count = min(data.count, limit - collected.count)
            if count > 0 { collected.append(copying: data.extracting(0..<count)) }
        }
    }

    // MARK: What a header means

    private mutating func admit(_ header: BasicHeader) -> Event? {
        guard header.dataSegmentLength <= negotiated.maxRecvDataSegmentLength else {
            reject(header, .protocolError)
            return fail(.dataSegmentTooLong)
        }
        var headers: AdditionalHeaders?
        if header.totalAHSLength > 0 {
            if header.opcode == .scsiCommand { headers = AdditionalHeaders(framing.additionalHeaders.span) }
            guard headers != nil else {
                reject(header, .invalidPDUField)
                return fail(.additionalHeaderSegments)
            }
        }
        switch header.opcode {
        case .dataOut:
            guard sessionType == .normal else { return refuse(header, .commandNotSupported) }
            if let index = held.firstIndex(where: { $0.isCommand && $0.initiatorTaskTag == header.initiatorTaskTag }) {
                return hold(header, with: index)
            }
            return admitDataOut(header)
        case .nopOut, .scsiCommand, .taskManagementRequest, .textRequest, .logoutRequest:
            guard !logoutIsPending else { return fail(.requestAfterLogout) }
            if !header.isImmediate {
                switch turn(of: header.cmdSN) {
                case .ignored: return nil
                case .later: return hold(header, with: nil)
                case .now: expCmdSN &+= 1
                }
            }
            return dispatch(header, headers)
        case .snackRequest: return refuse(header, .snackReject)
        case nil: return refuse(header, .commandNotSupported)
        default: return refuse(header, .protocolError)
        }
    }

    private mutating func dispatch(_ header: BasicHeader, _ additional: AdditionalHeaders?) -> Event? {
        switch header.opcode {
        case .textRequest:
            destination = .collect(limit: FullFeatureLimits.textBytes + 1)
            conclusion = .text
        case .logoutRequest:
            guard LogoutRequest.Reason(rawValue: header.bytes[1] & 0x7f) != nil else { return refuse(header, .invalidPDUField) }
            conclusion = .logout
        // Discovery sessions serve SendTargets and Logout alone (RFC 7143 §4.3).
        case _ where sessionType == .discovery: return refuse(header, .commandNotSupported)
        case .scsiCommand: return admitCommand(header, additional)
        case .taskManagementRequest:
            guard !header.isImmediate || immediateManagement < FullFeatureLimits.immediate else { return refuse(header, .immediateCommandReject) }
            if header.isImmediate { immediateManagement += 1 } else { occupied += 1 }
            conclusion = .taskManagement
        default:
            if header.initiatorTaskTag == PDU.reservedTag {
                conclusion = .pong
            } else {
                destination = .collect(limit: FullFeatureLimits.pingBytes)
                conclusion = .ping
            }
        }
        return nil
    }

    /// Rejects a PDU whose data are to be passed over.
    mutating func refuse(_ header: BasicHeader, _ reason: RejectReason) -> Event? {
        reject(header, reason)
        return nil
    }

    private mutating func conclude(_ header: BasicHeader) -> Event? {
        switch conclusion {
        case .nothing: return nil
        case .command(let slot):
            tasks[slot].isReadingPDU = false
            tasks[slot].received = header.dataSegmentLength
            return progress(slot)
        case .dataOut(let slot, let isFinal, let isSolicited, let counts):
            return concludeDataOut(slot, header.dataSegmentLength, isFinal: isFinal, isSolicited: isSolicited, counts: counts)
        case .ping:
            pong(header)
            return nil
        case .pong:
            unansweredPings = 0
            return nil
        case .text: return concludeText(header)
        case .taskManagement: return .taskManagement(managementRequest(header))
        case .logout:
            guard let reason = LogoutRequest.Reason(rawValue: header.bytes[1] & 0x7f) else { preconditionFailure("checked with the header") }
            logoutIsPending = true
            return .logout(
                LogoutRequest(reason: reason, cid: UInt16(truncatingIfNeeded: header.uint32(at: 20) >> 16), initiatorTaskTag: header.initiatorTaskTag))
        case .hold:
            held[held.count - 1].bytes += collected
            held[held.count - 1].bytes += [UInt8](repeating: 0, count: PDU.padding(header.dataSegmentLength))
            return nil
        }
    }

    // MARK: Order of commands

    private enum Turn { case now, later, ignored }

    /// How many more non-immediate commands may come: MaxCmdSN is ExpCmdSN + `window` − 1. A command takes its place in the
    /// window until it is answered, so MaxCmdSN never goes back.
    var window: Int { negotiated.queueDepth - occupied }

    private func turn(of cmdSN: UInt32) -> Turn {
        let ahead = Int(Int32(bitPattern: cmdSN &- expCmdSN))
        guard (0..<window).contains(ahead) else { return .ignored }
        guard ahead > 0 else { return .now }
        return held.contains { $0.cmdSN == cmdSN } ? .ignored : .later
    }

    /// Keeps a PDU until its turn: as a command of its own, or behind the command it belongs to.
    private mutating func hold(_ header: BasicHeader, with index: Int?) -> Event? {
        let additional = framing.additionalHeaders
        heldBytes += PDU.headerLength + additional.count + header.dataSegmentLength + PDU.padding(header.dataSegmentLength)
        guard heldBytes <= FullFeatureLimits.heldBytes else { return fail(.tooMuchOutOfOrder) }
        let command: HeldCommand
        if let index {
            command = held.remove(at: index)
        } else {
            command = HeldCommand(
                cmdSN: header.cmdSN, initiatorTaskTag: header.initiatorTaskTag, isCommand: header.opcode == .scsiCommand, bytes: [])
        }
        held.append(command)
        held[held.count - 1].bytes.append(copying: header.bytes.span)
        held[held.count - 1].bytes += additional
        destination = .collect(limit: header.dataSegmentLength)
        conclusion = .hold
        return nil
    }

    /// Takes the held command whose turn it is, if there is one.
    private mutating func promoteHeld() {
        while let index = held.firstIndex(where: { $0.cmdSN == expCmdSN }) {
            let command = held.remove(at: index)
            guard command.bytes.isEmpty else {
                heldBytes -= command.bytes.count
                replay = command.bytes
                replayOffset = 0
                return
            }
            expCmdSN &+= 1
        }
    }
}
