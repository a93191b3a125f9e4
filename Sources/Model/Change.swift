/// What a change of the configuration means to those who serve it.
public enum Change: Hashable, Sendable {
    case targetAdded(TargetID)
    /// Its logical units are gone with it.
    case targetRemoved(TargetID)
    case targetStateChanged(TargetID)
    /// iSCSI keys or NOP-In: for sessions that begin later.
    case parametersChanged(TargetID)
    /// Live sessions that are not admitted any more must end.
    case rulesChanged(TargetID)
    /// Accounts bound to a target, or to discovery (nil).
    case accountsChanged(TargetID?)
    case logicalUnitAdded(LogicalUnitKey)
    case logicalUnitRemoved(LogicalUnitKey)
    /// Settings only: the store stays as it is.
    case logicalUnitChanged(LogicalUnitKey)
    /// Settings, and the store: another one was opened, or there is none any more.
    case mediumChanged(LogicalUnitKey)
    /// Made, deleted, or its secrets.
    case accountChanged(Account.Key)
    case portalAdded(Portal)
    case portalRemoved(Portal)
    /// What it advertises, or its files: they have been read anew.
    case portalChanged(Portal)
    case systemStateChanged
    case debugChanged
}

/// In words, for people.
extension Change: CustomStringConvertible {
    public var description: String {
        func unit(_ key: LogicalUnitKey) -> String { "logical unit \(key.lun) of target \(key.target)" }
        return switch self {
        case .targetAdded(let tid): "target \(tid) added"
        case .targetRemoved(let tid): "target \(tid) removed"
        case .targetStateChanged(let tid): "state of target \(tid) changed"
        case .parametersChanged(let tid): "parameters of target \(tid) changed"
        case .rulesChanged(let tid): "rules of target \(tid) changed"
        case .accountsChanged(let tid?): "accounts of target \(tid) changed"
        case .accountsChanged(nil): "accounts of discovery changed"
        case .logicalUnitAdded(let key): "\(unit(key)) added"
        case .logicalUnitRemoved(let key): "\(unit(key)) removed"
        case .logicalUnitChanged(let key): "settings of \(unit(key)) changed"
        case .mediumChanged(let key): "medium of \(unit(key)) changed"
        case .accountChanged(let key): "account \(key.name)\(key.tenant == .default ? "" : " of tenant \(key.tenant.name)") changed"
        case .portalAdded(let portal): "portal \(portal) added"
        case .portalRemoved(let portal): "portal \(portal) removed"
        case .portalChanged(let portal): "portal \(portal) changed"
        case .systemStateChanged: "state of the system changed"
        case .debugChanged: "debugging changed"
        }
    }
}
