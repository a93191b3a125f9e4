import Bytes
import Medium
import Synchronization

/// The device server of one logical unit (SAM-5 §4.6.8). Shared by all reactors; its state is behind its own lock, held only
/// for short work that never waits.
///
/// A command is a `DeviceTask`: `begin` it, do what the `Step` says, `resume` it, until it is `.done`.
public final class LogicalUnit: Sendable {
    private let server: Mutex<DeviceServer>
    private let devices: DeviceTypes
    /// As the settings say, for those who look without the lock.
    private let blockLength: Atomic<Int>
    /// Commands of all nexuses that have entered a task set and not left it, as those who route them count.
    private let commands = Atomic<Int>(0)

    /// - Parameters:
    ///   - targetName: the iSCSI name of its target, in its folded form
    ///   - record: what was kept of an earlier process's persistent reservations and of a failed flush
    public init(
        _ settings: LogicalUnitSettings, targetName: [UInt8], record: UnitRecord = UnitRecord(), medium: (any MediumHandle)? = nil
    ) {
        var server = DeviceServer(settings, targetName: targetName, record: record)
        server.medium = medium
        devices = server.deviceTypes
        blockLength = Atomic(server.settings.blockLength)
        self.server = Mutex(server)
    }

    public var settings: LogicalUnitSettings { server.withLock { $0.settings } }
    /// Whether a command of any nexus is under way.
    public var isBusy: Bool { commands.load(ordering: .acquiring) > 0 }
    public func commandEntered() { commands.add(1, ordering: .relaxed) }
    public func commandLeft() { commands.subtract(1, ordering: .releasing) }

    public var condition: Condition { server.withLock { $0.condition } }

    /// An administrative change. Posts the unit attentions it makes necessary to every nexus: 2A/01, 3F/03, 28/00, 2A/09. The
    /// device type stays.
    public func apply(_ settings: LogicalUnitSettings) { server.withLock { apply(settings, to: &$0) } }

    private func apply(_ settings: LogicalUnitSettings, to server: inout DeviceServer) {
        server.apply(settings)
        blockLength.store(settings.blockLength, ordering: .relaxed)
    }

    /// The same with another medium, or none: commands that begin later are for that one.
    /// - Returns: the medium it had. Commands that have begun hold it until they are over.
    public func apply(_ settings: LogicalUnitSettings, medium: (any MediumHandle)?) -> (any MediumHandle)? {
        server.withLock { server in
            let old = server.medium
            server.medium = medium
            apply(settings, to: &server)
            return old
        }
    }

    /// It is gone: it lets go of its medium.
    /// - Returns: what it was
    @discardableResult
    public func removeMedium() -> (any MediumHandle)? { server.withLock { $0.medium.take() } }

    /// An administrator knows of a failed flush: what is written from now on is kept again.
    /// - Returns: whether one had failed: then something is to be kept
    public func forgetFailedFlush() -> Bool { server.withLock { $0.forgetFailedFlush() } }

    /// A nexus comes to exist: unit attention 29/00 is pending for it.
    public func attach(_ nexus: NexusID, _ name: NexusName) { server.withLock { $0.attach(nexus, name) } }

    /// A nexus ended. Its RESERVE(6), its prevention of removal and its unit attentions go; persistent registrations stay, and
    /// a nexus of the same name has them again.
    public func detach(_ nexus: NexusID) { server.withLock { $0.detach(nexus) } }

    /// A nexus may only read from now on: its RESERVE(6) and its prevention of removal go.
    public func release(_ nexus: NexusID) { server.withLock { $0.release(nexus) } }

    /// Establishes a unit attention condition (SAM-5 §5.14).
    public func post(_ attention: UnitAttention, to recipients: Recipients) { server.withLock { $0.post(attention, to: recipients) } }

    /// The nexus has been answered a REPORT LUNS: it need not be told 3F/0E REPORTED LUNS DATA HAS CHANGED any more.
    public func reportedLUNs(to nexus: NexusID) { server.withLock { $0.clear(.reportedLUNsDataChanged, of: nexus) } }

    /// LOGICAL UNIT RESET (SAM-5 §6.3.3): RESERVE(6) and preventions of removal are released, mode parameters are the defaults
    /// again, unit attention 29/03 is pending for all. Aborting the commands is the caller's.
    public func reset() { server.withLock { $0.reset() } }

    /// Bytes of Data-Out that this CDB asks for; 0 if none, if the command is unknown, and if it asks for more than we take:
    /// `begin` then refuses it.
    public func dataOutLength(_ cdb: CommandDescriptorBlock) -> Int {
        guard case .command(let index) = CommandTable.find(cdb.operationCode, service: cdb.bytes[1] & 0x1f, on: devices) else { return 0 }
        return CommandTable.commands[index].dataOutLength(cdb, blockLength: blockLength.load(ordering: .relaxed))
    }

    /// Starts a command whose Data-Out bytes, `task.dataOutCount` of them, are at the start of `dataOut`.
    public func begin(_ task: inout DeviceTask, dataOut: Buffer?) -> Step {
        server.withLock { server in
            let step = server.begin(&task, dataOut: dataOut)
            if case .done = step {
                task.medium = nil
            } else if task.medium?.identity != server.mediumIdentity {
                task.medium = server.medium?.makeHold()
            }
            return step
        }
    }

    /// Goes on after `.medium`, with the buffer that was asked for, or after `.keep`.
    public func resume(_ task: inout DeviceTask, after outcome: Outcome, buffer: Buffer?) -> Step {
        let step: Step
        if case .done = outcome, let completion = task.success {
            // So most commands end, and nothing of the logical unit has any part in it.
            step = .done(completion)
        } else {
            step = server.withLock { $0.resume(&task, after: outcome, buffer: buffer) }
        }
        if case .done = step { task.medium = nil }
        return step
    }

    /// Whether a command may carry on for an initiator that may only read. Commands that we do not know are refused otherwise.
    public func isRead(_ cdb: CommandDescriptorBlock) -> Bool {
        guard case .command(let index) = CommandTable.find(cdb.operationCode, service: cdb.bytes[1] & 0x1f, on: devices)
        else { return true }
        return CommandTable.commands[index].isRead
    }

    // MARK: What is kept

    /// What holds now.
    public var record: UnitRecord { server.withLock { $0.keeping.record } }

    /// What is to be kept; nil: nothing that the keeper has not been asked for already. One question is open at a time.
    public func recordToKeep() -> UnitRecord? { server.withLock { $0.keeping.ask() } }

    /// The keeper has answered what it was asked last: from now on that is in force, or it will never be, nor what was to follow upon it.
    public func settle(isKept: Bool) { server.withLock { $0.settle(isKept: isKept) } }

    /// Whether the command that waits for this revision can go on.
    public func isDecided(_ revision: UInt64) -> Bool { server.withLock { $0.keeping.isDecided(revision) } }
}

extension LogicalUnit: Hashable {
    public static func == (a: LogicalUnit, b: LogicalUnit) -> Bool { a === b }
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(self)) }
}
