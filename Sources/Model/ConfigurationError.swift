/// Why a change of the configuration is refused.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Kind: Hashable, Sendable {
        case targetExists, noSuchTarget
        case logicalUnitExists, noSuchLogicalUnit
        case ruleExists, noSuchRule
        case accountExists, noSuchAccount, tooManyAccounts, hasOutgoingAccount
        /// A value that is out of range, malformed, or not supported here.
        case invalid
    }

    public let kind: Kind
    /// One sentence for the administrator: what is wrong and what would be right. Bytes from outside are escaped in it.
    public let description: String

    public init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
