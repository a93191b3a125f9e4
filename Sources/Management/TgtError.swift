/// The error numbers of tgt's management protocol.
public enum TgtError: UInt32, Error, Sendable, CaseIterable {
    case success = 0, unknown, outOfMemory, noDriver, noTarget, noLogicalUnit, noSession, noConnection, noBinding
    case targetExists, logicalUnitExists, bindingExists, ruleExists, noRule, accountExists, noAccount, tooManyAccounts
    case invalidRequest, outgoingAccountExists, targetActive, logicalUnitActive, driverBusy, unsupportedOperation
    case unknownParameter, removalPrevented

    /// What `tgtadm` prints behind `tgtadm: `.
    public var text: String { Self.texts[Int(rawValue)] }

    /// The text for a number that may be none of ours.
    public static func text(for number: UInt32) -> String { TgtError(rawValue: number)?.text ?? "(unknown tgtadm_errno)" }

    private static let texts = [
        "success",
        "unknown error",
        "out of memory",
        "can't find the driver",
        "can't find the target",
        "can't find the logical unit",
        "can't find the session",
        "can't find the connection",
        "can't find the binding",
        "this target already exists",
        "this logical unit number already exists",
        "this binding already exists",
        "this access control rule already exists",
        "this access control rule does not exist",
        "this account already exists",
        "can't find the account",
        "too many accounts",
        "invalid request",
        "this target already has an outgoing account",
        "this target is still active",
        "this logical unit is still active",
        "this driver is busy",
        "this operation isn't supported",
        "unknown parameter",
        "this device has Prevent Removal set",
    ]
}
