import Bytes
import Crypto
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

/// Who can prove who it is: an initiator to us, or, bound as outgoing, one of our targets to initiators.
public struct Account: Hashable, Sendable {
    /// Accounts of two tenants may have the same name.
    public struct Key: Hashable, Sendable {
        public let tenant: Tenant
        public let name: AccountName
        public init(tenant: Tenant = .default, name: AccountName) {
            self.tenant = tenant
            self.name = name
        }
    }
    public let key: Key
    /// Rises with each account that is made.
    let number: UInt64
    /// CHAP secrets (RFC 7143 §9.2.1). While one takes the place of another there are two, the older one first; each of them is right.
    public internal(set) var secrets: [Secret]

    public var tenant: Tenant { key.tenant }
    public var name: AccountName { key.name }

    /// - Parameter allowWeak: whether a secret may be shorter than `Limits.strongSecretLength`
    init(_ key: Key, number: UInt64, secret: Secret, allowWeak: Bool) throws(ConfigurationError) {
        try Self.check(secret, allowWeak: allowWeak)
        self.key = key
        self.number = number
        secrets = [secret]
    }

    /// As it was kept: its secrets were checked on entry.
    init(_ key: Key, number: UInt64, restored secrets: [Secret]) {
        self.key = key
        self.number = number
        self.secrets = secrets
    }

    /// Whether a secret may be entered.
    static func check(_ secret: Secret, allowWeak: Bool) throws(ConfigurationError) {
        guard (1...Limits.secretLength).contains(secret.count) else {
            throw ConfigurationError(.invalid, "a secret has 1 to \(Limits.secretLength) bytes")
        }
        guard allowWeak || secret.count >= Limits.strongSecretLength else {
            throw ConfigurationError(
                .invalid, "the secret has less than 96 bits: take one of at least \(Limits.strongSecretLength) characters, or say --allow-weak")
        }
    }

    /// Which of two live secrets.
    public enum Generation: String, CaseIterable, Sendable { case old, new }

    /// A second secret beside the one it has.
    mutating func add(_ secret: Secret, allowWeak: Bool) throws(ConfigurationError) {
        try Self.check(secret, allowWeak: allowWeak)
        guard let only = secrets.first, secrets.count == 1 else {
            throw ConfigurationError(.invalid, "account \(name) has two secrets already; retire one of them")
        }
        guard only != secret else { throw ConfigurationError(.invalid, "account \(name) has this secret already") }
        secrets.append(secret)
    }

    mutating func retire(_ generation: Generation) throws(ConfigurationError) {
        guard secrets.count == 2 else { throw ConfigurationError(.invalid, "account \(name) has one secret; add another before one goes") }
        secrets.remove(at: generation == .old ? 0 : 1)
    }

    /// Whether one of its secrets is one of the other's.
    public func sharesSecret(with other: Account) -> Bool { secrets.contains { other.secrets.contains($0) } }
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
    var slots: [Incoming?] = []
    /// By which the target proves itself to initiators.
    public internal(set) var outgoing: AccountName?

    public var incomingBindings: [Incoming] { slots.compactMap(\.self) }
    /// Each once, whatever initiators it is for.
    public var incoming: [AccountName] {
        var seen: Set<AccountName> = []
        return incomingBindings.map(\.name).filter { seen.insert($0).inserted }
    }
    public var isEmpty: Bool { incomingBindings.isEmpty && outgoing == nil }

    /// Whether an initiator that has authenticated with this account may come in. A name that accounts are bound for is theirs alone: others,
    /// whoever they are bound for, do not come in with it.
    public func admits(_ name: AccountName, _ initiator: ISCSIName) -> Bool {
        let isOwned = slots.contains { $0?.initiator == initiator }
        return slots.contains { $0?.name == name && $0?.initiator == (isOwned ? initiator : nil) }
    }

    /// Those that are bound, in either direction.
    var names: Set<AccountName> { Set(slots.compactMap { $0?.name } + (outgoing.map { [$0] } ?? [])) }

    /// Whether this account is bound for some initiator.
    public func admits(_ name: AccountName) -> Bool { slots.contains { $0?.name == name } }

    /// - Parameter initiator: the one that an incoming account is for; nil: all
    mutating func bind(_ name: AccountName, outgoing isOutgoing: Bool, for initiator: ISCSIName? = nil) throws(ConfigurationError) {
        if isOutgoing {
            guard outgoing == nil else {
                throw ConfigurationError(.hasOutgoingAccount, "there is an outgoing account already; unbind it first")
            }
        }
        // One secret must not serve both directions (RFC 7143 §9.2.1).
        let binding = Incoming(name: name, initiator: initiator)
        guard outgoing != name, isOutgoing ? !admits(name) : !slots.contains(binding) else {
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
        guard direction(false), admits(name) else { return false }
        for index in slots.indices where slots[index]?.name == name { slots[index] = nil }
        return true
    }
}
