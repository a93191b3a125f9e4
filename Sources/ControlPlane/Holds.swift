import Administration
import Management
import Model

/// A part of what data serves that comes and goes as one.
enum ServedObject: Hashable {
    /// With all of its logical units.
    case target(TargetID)
    case logicalUnit(LogicalUnitKey)

    var target: TargetID {
        switch self {
        case .target(let tid): tid
        case .logicalUnit(let key): key.target
        }
    }

    /// Whether one is the other, or has it.
    func overlaps(_ other: ServedObject) -> Bool {
        if case .logicalUnit(let one) = self, case .logicalUnit(let two) = other { one == two } else { target == other.target }
    }
}

extension ServedObject: CustomStringConvertible {
    var description: String {
        switch self {
        case .target(let tid): "target \(tid)"
        case .logicalUnit(let key): "logical unit \(key.lun) of target \(key.target)"
        }
    }
}

extension Change {
    /// Of what is served; nil: it is about something else.
    var object: ServedObject? {
        switch self {
        case .targetAdded(let tid), .targetRemoved(let tid), .targetStateChanged(let tid), .parametersChanged(let tid), .rulesChanged(let tid), .accountsChanged(let tid?):
            .target(tid)
        case .logicalUnitAdded(let key), .logicalUnitRemoved(let key), .logicalUnitChanged(let key), .mediumChanged(let key): .logicalUnit(key)
        case .accountsChanged(nil), .accountChanged, .portalAdded, .portalRemoved, .portalChanged, .systemStateChanged, .debugChanged: nil
        }
    }
}

extension Effect {
    /// What data is to let go, while it is configured.
    var withdrawn: ServedObject? {
        switch self {
        case .withdrawTarget(let tid, _): .target(tid)
        case .withdrawLogicalUnit(let key): .logicalUnit(key)
        case .openStore, .endConnection, .listen, .renewPortal, .close, .clearPenalties, .drawSecret: nil
        }
    }
}

/// What administrators hold while they take something away, which takes as long as its commands do: until it is gone, or there again, nobody
/// else changes it. So between the first step and the last it is the same thing, and data has it or has it not as these books say.
struct Holds {
    /// Of all that one piece of work holds.
    struct Holder: Hashable { fileprivate let number: UInt64 }

    /// Somebody else holds it.
    struct Taken: Error {
        let object: ServedObject

        var reason: String { "somebody else is changing \(object) at this moment; try again" }
        var error: TgtError { if case .target = object { .targetActive } else { .logicalUnitActive } }
    }

    private var byTarget: [TargetID: [ServedObject: Holder]] = [:]
    private var held: [Holder: [ServedObject]] = [:]
    /// Those of which data has been told that they go.
    private var withdrawn: Set<ServedObject> = []
    private var lastNumber: UInt64 = 0

    /// All of these, or none.
    mutating func take(_ objects: some Sequence<ServedObject>) throws(Taken) -> Holder {
        let objects = Set(objects)
        for object in objects { try check(object, nil) }
        lastNumber += 1
        let holder = Holder(number: lastNumber)
        for object in objects { byTarget[object.target, default: [:]][object] = holder }
        held[holder] = Array(objects)
        return holder
    }

    /// Whether these may be changed by this holder; nil: by one who holds nothing.
    func check(_ changes: [Change], _ holder: Holder?) throws(Taken) {
        if byTarget.isEmpty { return }
        for change in changes { if let object = change.object { try check(object, holder) } }
    }

    private func check(_ object: ServedObject, _ holder: Holder?) throws(Taken) {
        for (other, owner) in byTarget[object.target] ?? [:] where owner != holder && other.overlaps(object) { throw Taken(object: object) }
    }

    /// Data is told to let it go, by its holder; or has refused that.
    mutating func setWithdrawn(_ object: ServedObject, _ isWithdrawn: Bool = true) {
        if isWithdrawn { withdrawn.insert(object) } else { withdrawn.remove(object) }
    }

    func isWithdrawn(_ object: ServedObject) -> Bool { withdrawn.contains(object) }

    /// Of what this one holds.
    func withdrawn(by holder: Holder) -> [ServedObject] { (held[holder] ?? []).filter(withdrawn.contains) }

    /// - Returns: what of it data has not any more
    mutating func release(_ holder: Holder) -> [ServedObject] {
        let objects = held.removeValue(forKey: holder) ?? []
        for object in objects {
            byTarget[object.target]?[object] = nil
            if byTarget[object.target]?.isEmpty == true { byTarget[object.target] = nil }
        }
        return objects.filter { withdrawn.remove($0) != nil }
    }
}
