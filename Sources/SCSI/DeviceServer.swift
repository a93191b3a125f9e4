import Bytes
import Medium

/// Whom a unit attention is for.
public enum Recipients: Sendable {
    case all
    case allBut(NexusID)
    case only(NexusID)
    case these([NexusID])
}

/// The medium of a logical unit to whoever serves it. Here it is only carried along with commands: as long as somebody holds it, a
/// command may still do something there.
public protocol MediumHandle: AnyObject, Sendable {}

extension MediumHandle {
    func makeHold() -> any MediumHold { Hold(self) }
}

/// What `show` and the log say of a logical unit beyond its settings.
public struct Condition: Hashable, Sendable {
    /// Some nexus prevents removal of the medium.
    public var preventsRemoval = false
    /// An initiator ejected the medium (START STOP UNIT); loading it, or going offline and online, brings it back.
    public var isEjected = false
    /// An initiator set SWP in the control mode page.
    public var isSoftwareWriteProtected = false
    /// A flush failed; writes, FUA and flushes are refused until `forgetFailedFlush`.
    public var flushFailed = false
    public var isWriteCacheEnabled = true
    /// The nexus that holds a RESERVE(6).
    public var reservedBy: NexusID?
}

/// What a nexus holds a medium by, and its commands: a `Hold`. The medium is everybody's: if each command held that itself, the processors on which
/// nexuses live would contend for the count of its holders.
public protocol MediumHold: AnyObject, Sendable {
    /// Of the medium; while it is held no other one has it.
    var identity: ObjectIdentifier { get }
}

/// A hold on a medium of this kind: whoever serves that borrows it from here.
public final class Hold<Handle: MediumHandle>: MediumHold {
    public let medium: Handle
    public var identity: ObjectIdentifier { ObjectIdentifier(medium) }

    init(_ medium: Handle) { self.medium = medium }

    /// Lends the medium: nobody counts that `body` has it.
    public func withMedium<R>(_ body: (Handle) -> R) -> R { body(medium) }
}

/// One command on its way through the device server.
public struct DeviceTask: ~Copyable, Sendable {
    public let nexus: NexusID
    public let cdb: CommandDescriptorBlock
    /// Data-Out bytes that arrived: the smaller of what the initiator expected to send and `dataOutLength`.
    public let dataOutCount: Int
    /// What the initiator expected to send, if that is known: COMPARE AND WRITE and WRITE SAME want it to be exact.
    public let expectedDataOutCount: Int?
    /// Once the command is `.done`: the nexuses whose commands on this logical unit PREEMPT AND ABORT aborts (SPC-4 §5.13.11.3).
    /// Its response goes out when they have ended.
    public internal(set) var abortsTasksOf: [NexusID] = []
    /// The nexus may only read the logical unit. Set it before `begin`.
    public var mayOnlyRead = false
    /// The medium of the logical unit when the command began: all its operations are for that one. Set it before `begin` to what the
    /// nexus had last: it stays if the medium is the same.
    public var medium: (any MediumHold)?
    var phase = Phase.start

    public init(nexus: NexusID, cdb: CommandDescriptorBlock, dataOutCount: Int = 0, expectedDataOutCount: Int? = nil) {
        self.nexus = nexus
        self.cdb = cdb
        self.dataOutCount = dataOutCount
        self.expectedDataOutCount = expectedDataOutCount
    }

    /// Its end, when all has gone well on the medium and nothing is left to do.
    var success: Completion? {
        switch phase {
        case .good: Completion()
        case .dataIn(let count): Completion(dataIn: .buffer(count))
        default: nil
        }
    }

    /// What `resume` has to do when the medium, or the keeper of reservations, has answered.
    enum Phase: Equatable, Sendable {
        case start
        /// Nothing but GOOD.
        case good
        /// Flush what has been done, then GOOD.
        case flush
        /// GOOD with so many bytes of the buffer.
        case dataIn(Int)
        /// The cache has been flushed: read.
        case read(Extent)
        /// The data are written: check them.
        case verifyWritten(Extent, withData: Bool)
        /// The buffer is there: make it zeros and write them.
        case writeZeros(Extent)
        /// The buffer holds the medium's bytes of the first extent: each block must equal `pattern`. Then the second.
        case compareRepeated(Extent, rest: Extent, pattern: [UInt8])
        case provisioning(first: UInt64, allocated: Int)
        case modeSelect
        case eject
        /// Its reservations, this revision, are kept or refused.
        case kept(UInt64)
        /// It is kept that a flush has failed: MEDIUM ERROR.
        case failureKept
    }
}

/// The state of one logical unit, and how it answers commands. A value: `LogicalUnit` keeps it behind a lock.
struct DeviceServer: Sendable {
    struct Nexus: Sendable {
        let name: NexusName
        var attentions: [UnitAttention] = []
        /// Index into the registrations.
        var registration: Int?
    }

    var settings: LogicalUnitSettings
    /// The iSCSI name of the target.
    let targetName: [UInt8]
    var pages: ModePages
    var nexuses: [NexusID: Nexus] = [:]
    /// How many unit attentions are pending in all: with none, a command need not look for its own.
    private var attentionCount = 0
    var reservedBy: NexusID?
    var preventing: Set<NexusID> = []
    var isEjected = false
    var keeping: Keeping
    /// Those in force.
    var reservations: PersistentReservations { keeping.inForce }
    var flushFailed: Bool { keeping.flushFailed }
    var medium: (any MediumHandle)? { didSet { mediumIdentity = medium.map(ObjectIdentifier.init) } }
    private(set) var mediumIdentity: ObjectIdentifier?

    init(_ settings: LogicalUnitSettings, targetName: [UInt8], record: UnitRecord) {
        self.settings = settings.normalised
        self.targetName = targetName
        keeping = Keeping(record)
        pages = ModePages(settings)
    }

    var deviceTypes: DeviceTypes { DeviceTypes(settings.deviceType) }
    var hasAccessibleMedium: Bool { settings.isOnline && settings.hasMedium && !isEjected && settings.blockCount > 0 }
    var isWriteProtected: Bool { settings.isReadOnly || pages.softwareWriteProtected }

    var condition: Condition {
        Condition(
            preventsRemoval: !preventing.isEmpty, isEjected: isEjected, isSoftwareWriteProtected: pages.softwareWriteProtected,
            flushFailed: flushFailed, isWriteCacheEnabled: pages.writeCacheEnabled, reservedBy: reservedBy)
    }

    // MARK: Nexuses and unit attentions

    mutating func attach(_ nexus: NexusID, _ name: NexusName) {
        detach(nexus)
        nexuses[nexus] = Nexus(name: name, registration: reservations.index(of: name))
        post(.powerOnOrReset, to: .only(nexus))
    }

    mutating func detach(_ nexus: NexusID) {
        if let gone = nexuses.removeValue(forKey: nexus) { attentionCount -= gone.attentions.count }
        release(nexus)
    }

    /// What the nexus keeps from others goes.
    mutating func release(_ nexus: NexusID) {
        if reservedBy == nexus { reservedBy = nil }
        preventing.remove(nexus)
    }

    mutating func post(_ attention: UnitAttention, to recipients: Recipients) {
        switch recipients {
        case .all: for nexus in nexuses.keys { post(attention, toOne: nexus) }
        case .allBut(let excepted): for nexus in nexuses.keys where nexus != excepted { post(attention, toOne: nexus) }
        case .only(let nexus): post(attention, toOne: nexus)
        case .these(let some): for nexus in some { post(attention, toOne: nexus) }
        }
    }

    private mutating func post(_ attention: UnitAttention, toOne nexus: NexusID) {
        guard let pending = nexuses[nexus]?.attentions, !pending.contains(attention), pending.count < Limits.attentions else { return }
        nexuses[nexus]?.attentions.insert(attention, at: attention.isReset ? 0 : pending.count)
        attentionCount += 1
    }

    mutating func takeAttention(_ nexus: NexusID) -> UnitAttention? {
        guard attentionCount > 0, let first = nexuses[nexus]?.attentions.first else { return nil }
        nexuses[nexus]?.attentions.removeFirst()
        attentionCount -= 1
        return first
    }

    mutating func clear(_ attention: UnitAttention, of nexus: NexusID) {
        guard let index = nexuses[nexus]?.attentions.firstIndex(of: attention) else { return }
        nexuses[nexus]?.attentions.remove(at: index)
        attentionCount -= 1
    }

    // MARK: Changes from outside

    mutating func reset() {
        reservedBy = nil
        preventing = []
        pages.reset()
        post(.busDeviceReset, to: .all)
    }

    mutating func apply(_ new: LogicalUnitSettings) {
        let new = new.normalised
        let old = settings
        let wasAccessible = hasAccessibleMedium
        precondition(new.deviceType == old.deviceType, "a logical unit keeps its device type")
        if new.isOnline && !old.isOnline || new.hasMedium && !old.hasMedium { isEjected = false }
        settings = new
        if new.modePages != old.modePages || new.descriptorSense != old.descriptorSense {
            pages = ModePages(new)
            post(.modeParametersChanged, to: .all)
        } else if new.isReadOnly != old.isReadOnly {
            post(.modeParametersChanged, to: .all)
        }
        if new.identity != old.identity { post(.inquiryDataChanged, to: .all) }
        if hasAccessibleMedium, !wasAccessible { post(.notReadyToReadyChange, to: .all) }
        if hasAccessibleMedium, wasAccessible, new.geometry != old.geometry { post(.capacityDataChanged, to: .all) }
    }

    /// - Returns: whether one has failed
    mutating func forgetFailedFlush() -> Bool {
        guard flushFailed else { return false }
        _ = keeping.note(flushFailed: false)
        return true
    }

    /// Reservations that are kept are in force.
    mutating func settle(isKept: Bool) {
        guard let change = keeping.settle(isKept: isKept) else { return }
        let reservations = reservations
        for nexus in nexuses.keys {
            guard let name = nexuses[nexus]?.name else { continue }
            nexuses[nexus]?.registration = reservations.index(of: name)
            for attention in change.notices[name] ?? [] { post(attention, toOne: nexus) }
        }
    }

    // MARK: Commands

    func completion(_ refusal: Refusal) -> Completion {
        switch refusal {
        case .conflict: Completion(status: .reservationConflict)
        case .busy: Completion(status: .busy)
        case .check(let sense): .checkCondition(sense, descriptorFormat: pages.descriptorSense)
        }
    }

    mutating func begin(_ task: inout DeviceTask, dataOut: Buffer?) -> Step {
        do throws(Refusal) {
            return try start(&task, dataOut)
        } catch {
            return .done(completion(error))
        }
    }

    /// The order is SAM-5's (§5.3.3, §5.14.1): a reservation conflict before a unit attention before everything else.
    private mutating func start(_ task: inout DeviceTask, _ dataOut: Buffer?) throws(Refusal) -> Step {
        let cdb = task.cdb
        let found = CommandTable.find(cdb.operationCode, service: cdb.bytes[1] & 0x1f, on: deviceTypes)
        guard case .command(let index) = found else {
            if let attention = takeAttention(task.nexus) { throw .check(Sense(.unitAttention, attention.code)) }
            if case .unknownServiceAction = found { throw .check(.field(1, bit: 4)) }
            throw .check(Sense(.illegalRequest, .invalidOperationCode, field: .init(inCommand: true, byte: 0, bit: nil)))
        }
        let command = CommandTable.commands[index]
        try checkReservations(command, task)
        if !command.needs.contains(.noAttention), let attention = takeAttention(task.nexus) {
            throw .check(Sense(.unitAttention, attention.code))
        }
        if let (byte, bit) = command.strayBit(cdb) { throw .check(.field(byte, bit: bit)) }
        guard command.isRead || !task.mayOnlyRead else { throw .check(.writeProtected) }
        try checkReadiness(command)
        return try perform(command, &task, dataOut)
    }

    private func checkReservations(_ command: Command, _ task: borrowing DeviceTask) throws(Refusal) {
        guard reservedBy != nil || !keeping.inForce.registrations.isEmpty else { return }
        let demands = ReservationRules.demands(command.sharing, task.cdb)
        if let holder = reservedBy {
            if case .reservationOut = command.sharing { throw .conflict }
            if holder != task.nexus, demands.conflictsWithReserve { throw .conflict }
        }
        guard !reservations.registrations.isEmpty else { return }
        switch command.sharing {
        case .reserve, .release: throw .conflict
        default: break
        }
        guard let kind = reservations.kind, demands.access != .nothing else { return }
        let registration = nexuses[task.nexus]?.registration
        if let registration, reservations.isHolder(registration) { return }
        guard ReservationRules.permits(demands.access, under: kind, registered: registration != nil) else { throw .conflict }
    }

    private func checkReadiness(_ command: Command) throws(Refusal) {
        if command.needs.contains(.thin), !settings.isThinProvisioned {
            throw .check(Sense(.illegalRequest, .invalidOperationCode, field: .init(inCommand: true, byte: 0, bit: nil)))
        }
        if command.needs.contains(.medium) {
            try requireMedium()
        }
        if command.needs.contains(.writing) {
            if settings.isReadOnly { throw .check(.writeProtected) }
            if pages.softwareWriteProtected { throw .check(Sense(.dataProtect, .softwareWriteProtected)) }
            try requireNoFailedFlush()
        }
    }

    private func requireMedium() throws(Refusal) {
        if settings.isRemovable || settings.isOnline {
            guard settings.deviceType == .controller && settings.isOnline || hasAccessibleMedium else {
                throw .check(Sense(.notReady, .mediumNotPresent))
            }
        } else {
            throw .check(Sense(.notReady, .manualInterventionRequired))
        }
    }

    func requireNoFailedFlush() throws(Refusal) {
        if flushFailed { throw .check(Sense(.mediumError, .writeError)) }
    }

    private mutating func perform(_ command: Command, _ task: inout DeviceTask, _ dataOut: Buffer?) throws(Refusal) -> Step {
        let cdb = task.cdb
        switch command.action {
        case .testUnitReady, .sendDiagnostic: return .done(Completion())
        case .formatUnit: return flush(&task)
        case .requestSense: return requestSense(task)
        case .inquiry: return try inquiry(cdb, through: nexuses[task.nexus]?.name.portalGroupTag)
        // A target's answer, not a logical unit's: `TargetLevel`.
        case .reportLUNs: throw .check(.targetFailure)
        case .reserve:
            reservedBy = task.nexus
            return .done(Completion())
        case .release:
            if reservedBy == task.nexus { reservedBy = nil }
            return .done(Completion())
        case .reservationIn: return persistentReserveIn(cdb)
        case .reservationOut: return try persistentReserveOut(&task, try parameterList(command, task, dataOut))
        case .modeSense: return try modeSense(cdb, mayOnlyRead: task.mayOnlyRead)
        case .modeSelect: return try modeSelect(&task, try parameterList(command, task, dataOut))
        case .startStopUnit: return try startStopUnit(&task)
        case .preventAllow:
            if cdb.bytes[4] & 0x01 == 0 {
                preventing.remove(task.nexus)
            } else if nexuses[task.nexus] != nil {
                preventing.insert(task.nexus)
            }
            return .done(Completion())
        case .readCapacity10: return try readCapacity10(cdb)
        case .readCapacity16: return try readCapacity16(cdb)
        case .reportOperationCodes: return try reportOperationCodes(cdb)
        case .reportTaskManagement: return reportTaskManagement(cdb)
        case .unmap: return try unmap(&task, try parameterList(command, task, dataOut))
        case .statusOfBlocks: return try statusOfBlocks(&task)
        case .read: return try read(command, &task)
        case .write: return try write(command, &task)
        case .writeAndVerify: return try writeAndVerify(command, &task)
        case .verify: return try verify(command, &task, dataOut)
        case .orWrite: return try orWrite(command, &task)
        case .writeSame: return try writeSame(command, &task, dataOut)
        case .compareAndWrite: return try compareAndWrite(command, &task)
        case .prefetch: return try prefetch(command, &task)
        case .synchronize: return try synchronize(command, &task)
        }
    }

    /// The whole parameter list, or PARAMETER LIST LENGTH ERROR if the initiator sent less than it announced.
    private func parameterList(_ command: Command, _ task: borrowing DeviceTask, _ dataOut: Buffer?) throws(Refusal) -> [UInt8] {
        let length = command.parameterListLength(task.cdb)
        guard length <= Limits.parameterListBytes, task.dataOutCount >= length else { throw .check(.listLength) }
        guard length > 0 else { return [] }
        guard let dataOut, dataOut.capacity >= length else { throw .check(.targetFailure) }
        return dataOut.array(0..<length)
    }

    mutating func resume(_ task: inout DeviceTask, after outcome: Outcome, buffer: Buffer?) -> Step {
        do throws(Refusal) {
            return try proceed(&task, outcome, buffer)
        } catch {
            return .done(completion(error))
        }
    }

    private mutating func proceed(_ task: inout DeviceTask, _ outcome: Outcome, _ buffer: Buffer?) throws(Refusal) -> Step {
        switch task.phase {
        case .kept(let revision):
            guard keeping.isKept(revision) else {
                task.abortsTasksOf = []
                throw .check(Self.notKept(task.cdb))
            }
            return .done(Completion())
        case .failureKept: throw .check(Sense(.mediumError, .writeError))
        default: break
        }
        // Before anybody hears of it: the next process has to know it, too.
        if outcome == .failed(.flushFailed) {
            task.phase = .failureKept
            return .keep(keeping.note(flushFailed: true))
        }
        // Nothing is wrong with the medium, and the same command may well succeed later (SAM-5 §5.3.1).
        if outcome == .failed(.busy) { throw .busy }
        if case .provisioning(let first, let allocated) = task.phase {
            return try statusOfBlocks(from: first, allocated: allocated, outcome)
        }
        if case .failed(let failure) = outcome { throw .check(sense(for: failure)) }
        if let completion = task.success { return .done(completion) }
        switch task.phase {
        case .start, .good, .dataIn, .kept, .failureKept, .provisioning: preconditionFailure("a command that has not begun, or is over, does not go on")
        case .flush: return flush(&task)
        case .read(let extent): return read(extent, &task)
        case .verifyWritten(let extent, let withData):
            task.phase = .good
            return .medium(withData ? .compare(extent) : .verify(extent), bufferLength: withData ? Int(extent.length) : 0)
        case .writeZeros(let extent): return try writeZeros(extent, &task, buffer)
        case .compareRepeated(let extent, let rest, let pattern):
            return try compareRepeated(extent, rest: rest, pattern: pattern, &task, buffer)
        case .modeSelect:
            guard let buffer, buffer.capacity >= task.dataOutCount else { throw .check(.targetFailure) }
            return try modeSelect(&task, buffer.array(0..<task.dataOutCount))
        case .eject:
            // Another nexus may have prevented removal while the cache was flushed.
            guard preventing.isEmpty else { throw .check(Sense(.illegalRequest, .mediumRemovalPrevented)) }
            isEjected = true
            return .done(Completion())
        }
    }

    /// What an initiator is told of a failure.
    func sense(for failure: Failure) -> Sense {
        switch failure {
        case .unreadable: return Sense(.mediumError, .unrecoveredReadError)
        case .unwritable, .flushFailed: return Sense(.mediumError, .writeError)
        case .noSpace: return Sense(.dataProtect, .spaceAllocationFailedWriteProtect)
        case .readOnly: return .writeProtected
        case .miscompare(let offset): return Sense(.miscompare, .miscompareDuringVerify, information: UInt64(clamping: offset))
        case .unsupported: return Sense(.illegalRequest, .invalidOperationCode)
        case .busy: preconditionFailure("that is a status, no sense")
        }
    }
}

extension LogicalUnitSettings {
    /// With a capacity whose bytes can be counted: the device server multiplies blocks without looking.
    var normalised: LogicalUnitSettings {
        precondition(blockLength >= 512 && blockLength <= 1 << 16 && blockLength & (blockLength - 1) == 0, "block length is a power of two from 512 on")
        var settings = self
        settings.blockCount = min(blockCount, UInt64(Int64.max) / UInt64(blockLength))
        return settings
    }

    /// What INQUIRY and its pages show, and READ CAPACITY of provisioning.
    fileprivate var identity: [[UInt8]] {
        [
            Array(vendor.utf8), Array(product.utf8), Array(revision.utf8), Array(scsiID.utf8), Array(serialNumber.utf8), naa,
            [isRemovable ? 1 : 0, isThinProvisioned ? 1 : 0, UInt8(rotationRate >> 8), UInt8(rotationRate & 0xff)],
            [UInt8(optimalTransferGranularity >> 8), UInt8(optimalTransferGranularity & 0xff)],
            (0..<4).map { UInt8(truncatingIfNeeded: optimalTransferLength >> UInt32(8 * $0)) },
        ]
    }

    fileprivate var geometry: [UInt64] { [blockCount, UInt64(blockLength), UInt64(physicalBlockExponent), UInt64(lowestAlignedBlock)] }
}
