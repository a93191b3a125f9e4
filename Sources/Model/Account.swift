import Bytes

/// The name of an account, as it stands in CHAP_N: 1…255 bytes of printable ASCII without blanks and commas. Case matters.
public struct AccountName: Hashable, Sendable, CustomStringConvertible {
    public let bytes: [UInt8]

    public init(_ name: some Collection<UInt8>) throws(ConfigurationError) {
        let bytes = Array(name)
        guard (1...Limits.accountNameLength).contains(bytes.count),
              bytes.allSatisfy({ (0x21...0x7e).contains($0) && $0 != UInt8(ascii: ",") })
        else {
            throw ConfigurationError(.invalid, "“\(escaped(bytes))” is no account name: 1 to \(Limits.accountNameLength) printable ASCII characters without blanks and commas")
        }
        self.bytes = bytes
    }

    public var description: String { String(decoding: bytes, as: UTF8.self) }
}

/// Who may authenticate. Its secret is not kept yet: until CHAP exists, a bound account refuses every login.
public struct Account: Hashable, Sendable {
    public let tenant: Tenant
    public let name: AccountName
}

/// The accounts bound to a target, or to discovery.
public struct AccountBindings: Hashable, Sendable {
    /// In tgt's order: what is unbound leaves a hole, which the next one bound fills.
    private var slots: [AccountName?] = []
    /// By which the target proves itself to initiators.
    public private(set) var outgoing: AccountName?

    public var incoming: [AccountName] { slots.compactMap(\.self) }
    public var isEmpty: Bool { incoming.isEmpty && outgoing == nil }

    mutating func bind(_ name: AccountName, outgoing isOutgoing: Bool) throws(ConfigurationError) {
        if isOutgoing {
            guard outgoing == nil else {
                throw ConfigurationError(.hasOutgoingAccount, "there is an outgoing account already; unbind it first")
            }
        }
        // One secret must not serve both directions (RFC 7143 §9.2.1).
        guard outgoing != name, !slots.contains(name) else {
            throw ConfigurationError(.accountExists, "account \(name) is bound there already")
        }
        if isOutgoing {
            outgoing = name
        } else if let hole = slots.firstIndex(of: nil) {
            slots[hole] = name
        } else {
            guard slots.count < Limits.boundAccounts else {
                throw ConfigurationError(.tooManyAccounts, "at most \(Limits.boundAccounts) accounts can be bound")
            }
            slots.append(name)
        }
    }

    mutating func unbind(_ name: AccountName, outgoing isOutgoing: Bool) throws(ConfigurationError) {
        guard remove(name, where: { $0 == isOutgoing }) else {
            throw ConfigurationError(.noSuchAccount, "account \(name) is not bound there\(isOutgoing ? " as outgoing" : "")")
        }
    }

    /// Takes the account out wherever it stands; whether it did.
    mutating func remove(_ name: AccountName, where direction: (_ isOutgoing: Bool) -> Bool = { _ in true }) -> Bool {
        if direction(true), outgoing == name {
            outgoing = nil
            return true
        }
        guard direction(false), let index = slots.firstIndex(of: name) else { return false }
        slots[index] = nil
        return true
    }
}
