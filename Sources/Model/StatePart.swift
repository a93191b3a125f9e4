import JSON

/// A part of what is configured that is kept by itself: keeping a change costs as much as the parts that it concerns, whatever else there is.
public enum StatePart: Hashable, Sendable {
    /// State, debugging, portals, the accounts of discovery.
    case system
    case account(Account.Key)
    /// A target with all that it has.
    case target(TargetID)
    /// A target but for its logical units.
    case targetSettings(TargetID)
    case logicalUnit(LogicalUnitKey)

    /// Whether one of these has it in itself.
    func isWithinOne(of parts: Set<StatePart>) -> Bool {
        switch self {
        case .system, .account, .target: false
        case .targetSettings(let id): parts.contains(.target(id))
        case .logicalUnit(let key): parts.contains(.target(key.target))
        }
    }
}

extension Change {
    /// The part in which it is seen: no other is different after it.
    public var part: StatePart {
        switch self {
        case .targetAdded(let id), .targetRemoved(let id): .target(id)
        case .targetStateChanged(let id), .parametersChanged(let id), .rulesChanged(let id), .accountsChanged(let id?): .targetSettings(id)
        case .logicalUnitAdded(let key), .logicalUnitRemoved(let key), .logicalUnitChanged(let key), .mediumChanged(let key): .logicalUnit(key)
        case .accountChanged(let key): .account(key)
        case .accountsChanged(nil), .portalAdded, .portalRemoved, .portalChanged, .systemStateChanged, .debugChanged: .system
        }
    }
}

/// What a record says of one part, as `"name":value`: what it is from then on, or that there is none any more.
private enum PartName: String {
    case system, account, noAccount, target, noTarget, targetSettings, logicalUnit, noLogicalUnit
}

extension Configuration {
    /// What is to be written of a part; nil if what is written of another says it.
    func stored(_ part: StatePart, _ sealer: some SecretSealer) -> JSONValue? {
        func said(_ name: PartName, _ value: JSONValue) -> JSONValue { .object([.init(name.rawValue, value)]) }
        switch part {
        case .system: return said(.system, storedSystem)
        case .account(let key):
            guard let account = accountTable[key] else { return said(.noAccount, key.stored) }
            return said(.account, account.stored(sealer))
        case .target(let id):
            guard let target = targets[id] else { return said(.noTarget, id.stored) }
            return said(.target, target.stored)
        case .targetSettings(let id): return targets[id].map { said(.targetSettings, $0.storedSettings) }
        case .logicalUnit(let key):
            guard let target = targets[key.target] else { return nil }
            guard let unit = target.logicalUnits[key.lun] else { return said(.noLogicalUnit, key.stored) }
            return said(.logicalUnit, .object([.init("tid", key.target.stored), .init("unit", unit.stored)]))
        }
    }

    /// Takes in what was written of a part. One that goes need not be there: it may have come and gone between two records.
    mutating func restore(part value: JSONValue, _ sealer: some SecretSealer) throws(StoredError) {
        guard case .object(let members) = value, members.count == 1, let name = PartName(rawValue: members[0].name) else { throw StoredError("this version does not know what has changed") }
        let value = members[0].value
        switch name {
        case .system: try restoreSystem(value)
        case .account:
            let account = try Account(stored: value, sealer)
            accountTable[account.key] = account
        case .noAccount:
            accountTable[try Account.Key(stored: value)] = nil
        case .target:
            let target = try TargetConfiguration(stored: value)
            targets[target.id] = target
        case .noTarget:
            targets[try TargetID(stored: value)] = nil
        case .targetSettings:
            var target = try TargetConfiguration(storedSettings: value)
            guard let old = targets[target.id], old.tenant == target.tenant, old.name == target.name else { throw StoredError("target \(target.id) is not there") }
            target.logicalUnits = old.logicalUnits
            targets[target.id] = target
        case .logicalUnit:
            var members = try StoredMembers(value)
            let id = try members.take("tid", as: TargetID.self)
            let unit = try LogicalUnitConfiguration(stored: members.value("unit"), of: id)
            try members.end()
            guard targets[id] != nil else { throw StoredError("target \(id) is not there") }
            targets[id]?.logicalUnits[unit.key.lun] = unit
        case .noLogicalUnit:
            let key = try LogicalUnitKey(stored: value)
            guard key.lun != 0 else { throw StoredError("the controller goes only with its target") }
            targets[key.target]?.logicalUnits[key.lun] = nil
        }
    }
}
