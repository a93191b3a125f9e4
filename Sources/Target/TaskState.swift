import Bytes
import ISCSI
import Medium
import SCSI

/// Names a task while the store, or whoever keeps reservations, works for it.
public struct Ticket: Hashable, Sendable {
    let task: TaskIndex
    let serial: UInt64
}

/// What is to be done outside of a session, in this order.
public enum Action: Sendable {
    /// Call `Session.perform`.
    case perform(Ticket)
    /// Have what the logical unit says kept outside of this process; call `Session.kept` when this revision of it is decided.
    case keep(Ticket, LogicalUnit, UInt64)
    /// Call `Session.answer` with what the initiator may see.
    case askSendTargets(TextRequest)
    /// Register with the pool for data (`whenReleased`) and call `Session.memoryAvailable(isReport: false)` then; after the release,
    /// call it with `isReport: true`.
    case waitForMemory
    /// Close the connection: after what is in `output` has been sent, if `afterOutput` says so, at once otherwise. Comes once; the
    /// session has ended, and can be dropped when it `isQuiet`. A peer that does not take the last output needs a deadline.
    case close(EndReason, afterOutput: Bool)
}

/// An I_T_L nexus: a session's view of one logical unit (SAM-5 §4.6.5). It lies in the session's table: commands borrow it from there, and
/// nobody counts who works with the logical unit, which all sessions share.
struct ITLNexus: ~Copyable {
    let unit: LogicalUnit
    /// The medium that its last command had.
    var medium: (any MediumHold)?
    var mayOnlyRead: Bool
    var taskSet = TaskSet()
    var statistics = IOStatistics()

    /// - Parameter access: not `.none`
    init(unit: LogicalUnit, _ access: UnitAccess) {
        self.unit = unit
        mayOnlyRead = access < .write
    }

    /// A command for it comes: where that stands, and whether it may run at once.
    mutating func enter(_ index: TaskIndex, _ command: TaskInfo, _ task: inout TaskState) {
        unit.commandEntered()
        if command.reads { statistics.readSubmitted.add(command.expectedDataTransferLength) }
        if command.writes { statistics.writeSubmitted.add(command.expectedDataTransferLength) }
        (task.place, task.mayRun) = taskSet.enter(index, TaskAttribute(rawValue: command.attribute) ?? .ordered)
    }

    borrowing func dataOutLength(_ cdb: CommandDescriptorBlock) -> Int { unit.dataOutLength(cdb) }

    mutating func begin(_ task: inout TaskState) -> Step {
        (task.device.mayOnlyRead, task.device.medium) = (mayOnlyRead, medium)
        let step = unit.begin(&task.device, dataOut: task.buffer)
        if let current = task.device.medium, current !== medium { medium = current }
        return step
    }

    /// The store, or the keeper, is done with a command.
    mutating func resume(_ task: inout TaskState, after outcome: Outcome) -> Step {
        unit.resume(&task.device, after: outcome, buffer: task.buffer)
    }

    /// Counts what a command has done, as it is answered.
    /// - Parameters:
    ///   - read: bytes, if it was to read
    ///   - written: bytes, if it was to write
    mutating func count(_ status: Status, read: Int?, written: Int?) {
        guard status == .good || status == .conditionMet else {
            statistics.errors &+= 1
            return
        }
        if let read { statistics.readDone.add(read) }
        if let written { statistics.writeDone.add(written) }
    }

    /// A command of it is over, or aborted. `taskSet` says who may run then.
    mutating func leave(_ index: TaskIndex, _ place: TaskSet.Place, mayRun: Bool) {
        unit.commandLeft()
        taskSet.leave(index, place, mayRun: mayRun)
    }
}

/// What is to be done outside of a session, as it waits in there.
enum Errand {
    /// The operation of a task, as the task says.
    case perform(Ticket)
    case other(Action)
}

/// A SCSI command on its way through a session. It lies in the session's table, and cannot be copied: it holds on to what it works with, and
/// whoever works for it borrows that from here.
struct TaskState: ~Copyable {
    enum Phase {
        /// There is no task here.
        case vacant
        /// Data-Out is on its way.
        case collecting
        /// Earlier tasks of its task set come first, or it is about to begin.
        case ready
        /// For its `operation`.
        case waitsForMemory
        /// With its `operation`.
        case inStore
        /// What it changes is being kept.
        case keeping
        /// Its `verdict` is clear. Tasks that it has aborted are to leave the store first.
        case waitsForOthers
        /// Its `verdict` is clear, while too many answers wait to be sent.
        case answerWaits
    }

    enum Fate: Equatable {
        case goesOn
        /// No answer will be given.
        case aborted
        /// Its logical unit is gone, or not to be seen any more.
        case unitRemoved
        /// It is none that the session may still do.
        case writeProtected

        /// What it ends with; nil: nothing, or what it comes to.
        var answer: Completion? {
            switch self {
            case .goesOn, .aborted: nil
            case .unitRemoved: .checkCondition(Sense(.illegalRequest, .logicalUnitNotSupported))
            case .writeProtected: .checkCondition(.writeProtected)
            }
        }
    }

    var serial: UInt64 = 0
    /// In the session's table; nil: its LUN is nobody's.
    var nexus: Int?
    var device: DeviceTask
    var phase = Phase.vacant
    var fate = Fate.goesOn
    /// What it does on its medium, or waits to do.
    var operation = Operation.flush
    /// Bytes of memory that it waits for.
    var wantedMemory = 0
    /// Its answer, where that is clear before it can be given.
    var verdict: Completion?
    var place: TaskSet.Place?
    var mayRun = true
    var buffer: Buffer?
    /// What its buffer takes from the session's share of memory.
    var charge = 0
    /// Data bytes the initiator expects to send or to get.
    var isRead = false
    var isWrite = false
    var expectedLength = 0
    var dataOutLength = 0
    /// Since when it waits for memory.
    var waitsSince: UInt64 = 0

    /// Nothing: what a free place of the table holds.
    init() { device = DeviceTask(nexus: NexusID(rawValue: 0), cdb: CommandDescriptorBlock(.init(repeating: 0))) }

    var isVacant: Bool { phase == .vacant }

    /// A command takes the place; where it stands is still to be said.
    /// - Parameters:
    ///   - verdict: its answer, if that is clear before it has begun
    ///   - dataOutLength: bytes of Data-Out that its CDB asks for
    mutating func enter(
        serial: UInt64, _ nexus: Int?, _ info: TaskInfo, _ device: consuming DeviceTask, verdict: consuming Completion?, dataOutLength: Int
    ) {
        (self.serial, self.nexus, self.dataOutLength) = (serial, nexus, dataOutLength)
        self.device = device
        self.verdict = verdict
        (phase, fate) = (.collecting, .goesOn)
        (place, mayRun, charge) = (nil, true, 0)
        (isRead, isWrite, expectedLength) = (info.reads, info.writes, info.expectedDataTransferLength)
    }

    /// Lends what it does, in which memory, and on which medium.
    borrowing func withOperation(_ body: (Operation, Buffer?, (any MediumHold)?) -> Outcome?) -> Outcome? { body(operation, buffer, device.medium) }

    /// It is over, and lets go of all that it works with.
    /// - Returns: the nexus that it was of
    mutating func leave() -> Int? {
        phase = .vacant
        operation = .flush
        verdict = nil
        buffer = nil
        device.medium = nil
        return nexus.take()
    }

    /// Whether somebody outside works for it: it cannot be called back.
    var isOutside: Bool { phase == .inStore || phase == .keeping }
    /// Whether all is done but its answer.
    var isOver: Bool { phase == .waitsForOthers || phase == .answerWaits }
}

/// What is done when tasks have left the store, and other sessions have let go.
struct Wait {
    enum Then {
        case answer(TaskManagementRequest)
        case resetUnit(TaskManagementRequest, LogicalUnit)
        case resetTarget(TaskManagementRequest, Set<LogicalUnit>, cold: Bool)
        case logout(LogoutRequest)
        /// The command that has aborted them is over.
        case settle(TaskIndex, serial: UInt64)
        /// Somebody waits for this session; a unit that is gone has it no more.
        case letGo(Acknowledgement?, detaching: LogicalUnit?)
    }

    let number: UInt64
    var tasks: Set<TaskIndex>
    var awaitsOthers: Bool
    let then: Then

    var isOver: Bool { tasks.isEmpty && !awaitsOthers }
}
