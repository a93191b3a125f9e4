import Bytes
import ISCSI

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
    /// An account by which initiators prove themselves.
    public struct Incoming: Hashable, Sendable {
        public let name: AccountName
        /// Which initiator it is for; nil: all that the rules admit.
        public let initiator: ISCSIName?
    }

    /// In tgt's order: what is unbound leaves a hole, which the next one bound fills.
    private var slots: [Incoming?] = []
    /// By which the target proves itself to initiators.
    public private(set) var outgoing: AccountName?

    public var incomingBindings: [Incoming] { slots.compactMap(\.self) }
    /// Each once, whatever initiators it is for.
    public var incoming: [AccountName] {
        var seen: Set<AccountName> = []
        return incomingBindings.map(\.name).filter { seen.insert($0).inserted }
    }
    public var isEmpty: Bool { incomingBindings.isEmpty && outgoing == nil }

    /// Whether an initiator that has authenticated with this account may come in.
    public func admits(_ name: AccountName, _ initiator: ISCSIName) -> Bool {
        slots.contains { $0?.name == name && ($0?.initiator == nil || $0?.initiator == initiator) }
    }

    /// - Parameter initiator: the one that an incoming account is for; nil: all
    mutating func bind(_ name: AccountName, outgoing isOutgoing: Bool, for initiator: ISCSIName? = nil) throws(ConfigurationError) {
        if isOutgoing {
            guard outgoing == nil else {
                throw ConfigurationError(.hasOutgoingAccount, "there is an outgoing account already; unbind it first")
            }
        }
        // One secret must not serve both directions (RFC 7143 §9.2.1).
        let binding = Incoming(name: name, initiator: initiator)
        guard outgoing != name, isOutgoing ? !incoming.contains(name) : !slots.contains(binding) else {
            throw ConfigurationError(.accountExists, "account \(name) is bound there already")
        }
        if isOutgoing {
            guard initiator == nil else { throw ConfigurationError(.invalid, "an outgoing account is for all initiators") }
            outgoing = name
        } else if let hole = slots.firstIndex(of: nil) {
            slots[hole] = binding
        } else {
            guard slots.count < Limits.boundAccounts else {
                throw ConfigurationError(.tooManyAccounts, "at most \(Limits.boundAccounts) accounts can be bound")
            }
            slots.append(binding)
        }
    }

    /// - Parameter initiator: the one that an incoming account is for no more; nil: it is for none there
    mutating func unbind(_ name: AccountName, outgoing isOutgoing: Bool, for initiator: ISCSIName? = nil) throws(ConfigurationError) {
        if let initiator, !isOutgoing {
            guard let index = slots.firstIndex(of: Incoming(name: name, initiator: initiator)) else {
                throw ConfigurationError(.noSuchAccount, "account \(name) is not bound there for \(initiator)")
            }
            slots[index] = nil
            return
        }
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
        guard direction(false), incoming.contains(name) else { return false }
        for index in slots.indices where slots[index]?.name == name { slots[index] = nil }
        return true
    }
}
