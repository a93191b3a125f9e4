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
