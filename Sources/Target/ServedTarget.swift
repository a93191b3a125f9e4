import ISCSI
import SCSI
import Synchronization

/// A target as it is served: its logical units and its sessions. Shared by all reactors.
///
/// Its lock is held for look-ups and changes of two small tables, never while a command runs: sessions work with a copy of the
/// logical units and look at a counter to see whether it is still true.
public final class ServedTarget: Sendable {
    public let name: ISCSIName
    /// The administrator's number of the target.
    public let tid: Int32

    private let tables: Mutex<Tables>
    private let unitChanges = Atomic<UInt64>(0)

    private struct Tables {
        var units: [Int: LogicalUnit] = [:]
        var sessions: [NexusID: SessionHandle] = [:]
        /// Of each name there is one session at a time.
        var nexuses: [NexusName: NexusID] = [:]

        /// Tells those who see `number`, on what else they see, that it came or went.
        func announce(_ number: Int) {
            let seeing = sessions.values.filter { $0.sees(number) }.map(\.nexus)
            let recipients: Recipients = seeing.count == sessions.count ? .all : .these(seeing)
            for (other, unit) in units where other != number { unit.post(.reportedLUNsDataChanged, to: recipients) }
        }
    }

    public init(name: ISCSIName, tid: Int32) {
        self.name = name
        self.tid = tid
        tables = Mutex(Tables())
    }

    // MARK: Logical units

    /// Makes `unit` reachable under `number`, which is free. The initiators learn it by REPORTED LUNS DATA HAS CHANGED on the
    /// other logical units (SPC-4 §6.33).
    public func add(_ unit: LogicalUnit, number: Int) {
        let sessions = tables.withLock { tables in
            precondition(tables.units[number] == nil, "control gives every number once")
            tables.announce(number)
            tables.units[number] = unit
            for session in tables.sessions.values where session.sees(number) { unit.attach(session.nexus, session.name) }
            unitChanges.add(1, ordering: .releasing)
            return Array(tables.sessions.values)
        }
        let nobodyWaits = Acknowledgement {}
        for session in sessions { session.deliver(.logicalUnitsChanged(nobodyWaits)) }
    }

    /// Takes the logical unit away: its tasks end with LOGICAL UNIT NOT SUPPORTED.
    /// - Parameter whenReleased: called once, from any thread, when no session has a task of it in the store any more: only
    ///   then may its store be closed. At once if there is no such number.
    /// - Returns: the logical unit that had this number.
    @discardableResult
    public func remove(number: Int, whenReleased: @escaping @Sendable () -> Void = {}) -> LogicalUnit? {
        let released = Acknowledgement(whenReleased)
        let (unit, sessions) = tables.withLock { tables -> (LogicalUnit?, [SessionHandle]) in
            guard let unit = tables.units.removeValue(forKey: number) else { return (nil, []) }
            tables.announce(number)
            unitChanges.add(1, ordering: .releasing)
            return (unit, Array(tables.sessions.values))
        }
        for session in sessions { session.deliver(.logicalUnitsChanged(released)) }
        return unit
    }

    /// Gives a logical unit of its other settings and another medium, or none: commands that begin later are for that one.
    /// - Returns: the medium it had. Commands that have begun hold it until they are over, and sessions until they have heard of it.
    public func apply(_ settings: LogicalUnitSettings, medium: (any MediumHandle)?, to unit: LogicalUnit) -> (any MediumHandle)? {
        let old = unit.apply(settings, medium: medium)
        for session in sessions { session.deliver(.mediumChanged(unit)) }
        return old
    }

    public func unit(_ number: Int) -> LogicalUnit? { tables.withLock { $0.units[number] } }

    /// The numbers of its logical units, ascending.
    public var numbers: [Int] { tables.withLock { $0.units.keys.sorted() } }

    /// Rises with every change of `units`.
    var unitGeneration: UInt64 { unitChanges.load(ordering: .acquiring) }

    /// The logical units, and the generation they belong to.
    func units() -> (units: [Int: LogicalUnit], generation: UInt64) {
        tables.withLock { ($0.units, unitChanges.load(ordering: .relaxed)) }
    }

    // MARK: Sessions

    /// The sessions that there are, or that still have something in the store.
    public var sessions: [SessionHandle] { tables.withLock { Array($0.sessions.values) } }

    public func sessions(of name: NexusName) -> [SessionHandle] {
        tables.withLock { tables in tables.nexuses[name].flatMap { tables.sessions[$0] }.map { [$0] } ?? [] }
    }

    /// Whether there is such a session, or something of it is still in the store.
    public func hasSession(of name: NexusName) -> Bool { tables.withLock { $0.nexuses[name] != nil } }

    /// Ends the session that is of this nexus, if there is one (RFC 7143 §6.3.5).
    /// - Parameter whenGone: called once, from any thread, when nothing of it is left: then make the new `Session`, and come
    ///   back here should somebody else have been quicker.
    public func reinstate(_ name: NexusName, whenGone: @escaping @Sendable () -> Void) {
        end(sessions(of: name), .reinstated, whenGone: whenGone)
    }

    /// Ends all sessions, as when the target is deleted or its rules refuse them.
    public func endSessions(
        _ reason: EndReason, where isMeant: (SessionHandle) -> Bool = { _ in true }, whenGone: @escaping @Sendable () -> Void
    ) {
        end(sessions.filter(isMeant), reason, whenGone: whenGone)
    }

    private func end(_ sessions: [SessionHandle], _ reason: EndReason, whenGone: @escaping @Sendable () -> Void) {
        let gone = Acknowledgement(whenGone)
        for session in sessions { session.deliver(.end(reason, gone)) }
    }

    /// Enters a session and its nexus, unless there is one of the same name already.
    func register(_ session: SessionHandle) -> Bool {
        tables.withLock { tables in
            guard tables.nexuses[session.name] == nil else { return false }
            precondition(tables.sessions[session.nexus] == nil, "a nexus is never used again")
            tables.sessions[session.nexus] = session
            tables.nexuses[session.name] = session.nexus
            for (number, unit) in tables.units where session.sees(number) { unit.attach(session.nexus, session.name) }
            return true
        }
    }

    /// A session sees other logical units from now on: its nexus comes to those that are new to it.
    func setMask(_ mask: LUNMask, of nexus: NexusID) {
        tables.withLock { tables in
            guard let old = tables.sessions[nexus] else { return }
            tables.sessions[nexus]?.mask = mask
            for (number, unit) in tables.units where mask.access(to: number) != .none && !old.sees(number) { unit.attach(nexus, old.name) }
        }
    }

    /// Forgets a session of which nothing is left in the store.
    func deregister(_ nexus: NexusID) {
        tables.withLock { tables in
            guard let session = tables.sessions.removeValue(forKey: nexus) else { return }
            tables.nexuses[session.name] = nil
            for unit in tables.units.values { unit.detach(nexus) }
        }
    }

    func others(than nexus: NexusID) -> [SessionHandle] {
        tables.withLock { $0.sessions.values.filter { $0.nexus != nexus } }
    }

    func session(_ nexus: NexusID) -> SessionHandle? { tables.withLock { $0.sessions[nexus] } }
}

extension SessionHandle {
    func sees(_ number: Int) -> Bool { mask.access(to: number) != .none }
}
