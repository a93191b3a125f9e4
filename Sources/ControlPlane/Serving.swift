import Administration
import Door
import Logging
import Model
import Reactor
import SCSI

/// What data serves, by control's books: what it is told of targets and logical units, and what it has not answered yet.
///
/// It is told of each once, when it is configured, of what changes about it, and when it goes. What somebody takes away it has forgotten at once, but
/// is configured until its last command is over: that long it is held (`Holds`), and if it is not taken away after all data is told of it anew.
final class Serving {
    /// The data process.
    struct Link {
        /// With a descriptor that stays the caller's.
        let send: (DataOrderMessage, Int32?) -> Void
        /// Whether there is one, and be it that it is being ended.
        let isAlive: () -> Bool
        /// Ends it, for it does not what it can do.
        let condemn: (DoorError) -> Void
    }

    private unowned let control: Control
    private let link: Link
    /// What data has been told to do and has not answered yet.
    private var orders: [RequestID: (DataRefusal?) -> Void] = [:]
    private var lastRequest: UInt64 = 0
    private var holds = Holds()
    /// What data is letting go.
    private var leaving: [ServedObject: Leave] = [:]

    private final class Leave {
        /// Called at its end.
        var waiting: [() -> Void] = []
    }

    /// The open stores of logical units: a successor of data gets the same files.
    var stores: [LogicalUnitKey: HeldStore] = [:]
    /// Persistent reservations, and failed flushes, as data has given them to keep.
    var records = UnitRecords()

    init(_ control: Control, _ link: Link) {
        self.control = control
        self.link = link
    }

    private var configuration: Configuration { control.configuration }

    // MARK: Orders

    /// Gives data an order; `whenDone` comes with its refusal, or nil when it is done. While there is no data process an order is done
    /// at once: its successor is told everything anyway. One that is being ended is still there until it is reaped: then it is done.
    func order(
        _ message: (RequestID) -> DataOrderMessage, passing descriptor: Int32? = nil, _ whenDone: @escaping (DataRefusal?) -> Void
    ) {
        guard link.isAlive() else { return whenDone(nil) }
        lastRequest += 1
        let id = RequestID(rawValue: lastRequest)
        orders[id] = whenDone
        link.send(message(id), descriptor)
    }

    /// Data has answered.
    func finished(_ id: RequestID, _ refusal: DataRefusal?) {
        guard let whenDone = orders.removeValue(forKey: id) else { return link.condemn(.outOfPhase("an answer to nothing")) }
        whenDone(refusal)
    }

    /// Data is gone, and with it all that it has been told.
    func ended() {
        let waiting = orders
        orders = [:]
        for whenDone in waiting.values { whenDone(nil) }
    }

    /// Data does not do what it can do by these books, so they have come apart: its successor is told everything. Stores are
    /// tried before they are configured, and what came of that stays true.
    /// - Parameter rest: nil for a process that has just been started: one that cannot serve something serves the rest
    private func mustNotRefuse(_ what: ServedObject, _ rest: Countdown?) -> (DataRefusal?) -> Void {
        { [unowned self] refusal in
            if let refusal {
                control.log.error("data does not serve \(what): \(refusal)")
                if rest != nil { link.condemn(.outOfPhase("refused")) }
            }
            rest?.keepAlive()
        }
    }

    // MARK: What it is told

    /// A process that has just been started is told everything.
    func tellAll() {
        for target in configuration.sortedTargets where !holds.isWithdrawn(.target(target.id)) { addTarget(target.id, nil) }
    }

    /// Tells data what it has to know of a change that has been made.
    /// - Parameters:
    ///   - old: the configuration before it
    ///   - held: the open store of a logical unit that is new or has another medium
    ///   - rest: who waits until data has carried it out
    func tell(_ change: Change, old: Configuration, stores held: (LogicalUnitKey) -> HeldStore?, _ rest: Countdown) {
        switch change {
        case .targetAdded(let tid):
            // A target that comes with logical units brings their stores.
            for lun in configuration.targets[tid]?.logicalUnits.keys.map(\.self) ?? [] {
                let key = LogicalUnitKey(target: tid, lun: lun)
                stores[key] = held(key)
            }
            addTarget(tid, rest)
        case .targetRemoved(let tid):
            for lun in old.targets[tid]?.logicalUnits.keys.map(\.self) ?? [] { forget(LogicalUnitKey(target: tid, lun: lun)) }
            order({ .removeTarget($0, tid: tid.rawValue, force: true) }) { _ in rest.keepAlive() }
        case .logicalUnitAdded(let key):
            stores[key] = held(key)
            addLogicalUnit(key, rest)
        case .logicalUnitRemoved(let key):
            forget(key)
            order({ .removeLogicalUnit($0, tid: key.target.rawValue, lun: UInt16(key.lun), force: true) }) { _ in rest.keepAlive() }
        case .logicalUnitChanged(let key): updateLogicalUnit(key, nil, forgetsFailedFlush: isOnlineAgain(key, old), rest)
        case .mediumChanged(let key):
            stores[key] = held(key)
            updateLogicalUnit(key, storeDescription(key), forgetsFailedFlush: isOnlineAgain(key, old) || isOnAnotherStore(key, old), rest)
        case .targetStateChanged(let tid):
            guard let target = configuration.targets[tid], target.state == .ready else { return }
            for key in target.sortedLogicalUnits.map(\.key) where records[key].flushFailed {
                updateLogicalUnit(key, nil, forgetsFailedFlush: true, rest)
            }
        case .rulesChanged, .accountsChanged, .parametersChanged, .accountChanged, .portalAdded, .portalRemoved, .portalChanged, .systemStateChanged, .debugChanged: break
        }
    }

    private func forget(_ key: LogicalUnitKey) {
        stores[key] = nil
        records.remove(key)
    }

    private func isOnlineAgain(_ key: LogicalUnitKey, _ old: Configuration) -> Bool {
        (try? old.logicalUnit(key))?.isOnline == false && (try? configuration.logicalUnit(key))?.isOnline == true
    }

    private func isOnAnotherStore(_ key: LogicalUnitKey, _ old: Configuration) -> Bool {
        (try? old.logicalUnit(key))?.store.path != (try? configuration.logicalUnit(key))?.store.path
    }

    private func addTarget(_ tid: TargetID, _ rest: Countdown?) {
        guard let target = configuration.targets[tid] else { return }
        order({ .addTarget($0, tid: tid.rawValue, name: target.name) }, mustNotRefuse(.target(tid), rest))
        for unit in target.sortedLogicalUnits where !holds.isWithdrawn(.logicalUnit(unit.key)) { addLogicalUnit(unit.key, rest) }
    }

    private func addLogicalUnit(_ key: LogicalUnitKey, _ rest: Countdown?) {
        guard let settings = control.settings(key) else { return }
        let description = storeDescription(key)
        let record = records[key]
        order(
            { .addLogicalUnit($0, tid: key.target.rawValue, lun: UInt16(key.lun), settings, description, record) },
            passing: stores[key]?.descriptor.rawValue, mustNotRefuse(.logicalUnit(key), rest))
    }

    private func updateLogicalUnit(_ key: LogicalUnitKey, _ description: StoreDescription?, forgetsFailedFlush: Bool, _ rest: Countdown) {
        guard let settings = control.settings(key) else { return }
        if forgetsFailedFlush { records.forgetFailedFlush(of: key) }
        order(
            {
                .updateLogicalUnit(
                    $0, tid: key.target.rawValue, lun: UInt16(key.lun), settings, description, forgetsFailedFlush: forgetsFailedFlush)
            },
            passing: description == nil ? nil : stores[key]?.descriptor.rawValue, mustNotRefuse(.logicalUnit(key), rest))
    }

    private func storeDescription(_ key: LogicalUnitKey) -> StoreDescription {
        if let held = stores[key] { return held.description }
        guard let unit = configuration.targets[key.target]?.logicalUnits[key.lun], unit.deviceType == .disk, let medium = unit.medium else {
            return StoreDescription(kind: .none)
        }
        return StoreDescription(kind: .null, length: medium.byteCount)
    }

    // MARK: What is being taken away

    /// Whether nobody logs in there any more.
    func isWithdrawn(_ tid: TargetID) -> Bool { holds.isWithdrawn(.target(tid)) }

    /// Holds all that these changes are about.
    func hold(_ changes: [Change]) throws(Holds.Taken) -> Holds.Holder { try holds.take(changes.compactMap(\.object)) }
    func hold(_ object: ServedObject) throws(Holds.Taken) -> Holds.Holder { try holds.take([object]) }

    /// Whether these may be changed now.
    /// - Parameter holder: whoever wants to; nil: he holds nothing
    func check(_ changes: [Change], _ holder: Holds.Holder?) throws(Holds.Taken) { try holds.check(changes, holder) }

    /// Has data let go what its holder takes away.
    /// - Parameter force: whether sessions, and commands, are ended
    func withdraw(_ object: ServedObject, force: Bool, _ whenDone: @escaping (DataRefusal?) -> Void) {
        let leave = Leave()
        holds.setWithdrawn(object)
        leaving[object] = leave
        order({ id in
            switch object {
            case .target(let tid): .removeTarget(id, tid: tid.rawValue, force: force)
            case .logicalUnit(let key): .removeLogicalUnit(id, tid: key.target.rawValue, lun: UInt16(key.lun), force: force)
            }
        }) { [unowned self] refusal in
            if refusal == .targetActive || refusal == .logicalUnitActive { holds.setWithdrawn(object, false) }
            if leaving[object] === leave { leaving[object] = nil }
            whenDone(refusal)
            for next in leave.waiting { next() }
        }
    }

    /// What is held has been taken away or changed, or is about to be.
    func release(_ holder: Holds.Holder) { _ = holds.release(holder) }

    /// Nothing is taken away after all: data serves again what it has let go, as soon as that is over.
    func giveBack(_ holder: Holds.Holder, _ rest: Countdown) {
        if let leave = holds.withdrawn(by: holder).lazy.compactMap({ self.leaving[$0] }).first {
            return leave.waiting.append { [unowned self] in giveBack(holder, rest) }
        }
        for object in holds.release(holder) {
            switch object {
            case .target(let tid): addTarget(tid, rest)
            case .logicalUnit(let key): addLogicalUnit(key, rest)
            }
        }
    }
}
