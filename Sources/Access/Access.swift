import Bytes
import ISCSI
import Model
import SCSI

/// What let somebody in.
public enum AccessRule: Hashable, Sendable {
    case address(AddressRule)
    case name(NameRule)

    public var spelling: String {
        switch self {
        case .address(let rule): rule.spelling
        case .name(let rule): rule.spelling
        }
    }

    /// What it shows.
    public var mask: LUNMask {
        switch self {
        case .address(let rule): rule.mask
        case .name(let rule): rule.mask
        }
    }
}

/// Through what an initiator reaches us, and what that has proved of it.
public enum Channel: Hashable, Sendable {
    case clear
    case tls(Identity)

    /// What the TLS handshake has proved.
    public enum Identity: Hashable, Sendable {
        /// Nothing, and nobody has asked: whoever has connected may be anybody.
        case anybody
        /// It is this initiator.
        case initiator(ISCSIName)
        /// It is somebody who is no initiator of ours.
        case stranger
    }

    public var isTLS: Bool { self != .clear }

    /// Who it has been proved to be; nil: nobody in particular.
    public var provenName: ISCSIName? {
        if case .tls(.initiator(let name)) = self { name } else { nil }
    }

    /// Whether it leaves open, or has proved, that this is the initiator.
    func admits(_ initiator: ISCSIName) -> Bool {
        switch self {
        case .clear, .tls(.anybody): true
        case .tls(.initiator(let name)): name == initiator
        case .tls(.stranger): false
        }
    }
}

/// Who may log in, and why.
public enum AccessDecision: Hashable, Sendable {
    /// By one rule, or by an address rule and a name rule.
    case admitted([AccessRule])
    case refused(Refusal)

    public enum Refusal: Hashable, Sendable, CustomStringConvertible {
        /// The target has no rule: nobody is admitted.
        case noRules
        /// It has address rules, and none matches.
        case address
        /// It has name rules, and none matches.
        case name
        /// There is no such target.
        case noTarget
        /// The target's tenant has other portals.
        case portal
        /// Accounts are bound to the target (or to discovery), and it has not authenticated.
        case authenticationRequired
        /// It has authenticated with an account that is not bound there, or not for this initiator.
        case account
        /// The target has to prove itself, too, and was not asked to.
        case mutualAuthenticationRequired
        /// The target is there only for those who come through TLS.
        case tlsRequired
        /// TLS has proved that it is somebody else.
        case otherIdentity
        /// The target, or the system, is offline.
        case offline

        /// What the initiator is told (RFC 7143 §11.13.5). Whoever is not admitted does not learn whether the target exists.
        public var loginStatus: LoginStatus {
            switch self {
            case .noRules, .address, .name, .noTarget, .portal, .account, .tlsRequired, .otherIdentity: .notFound
            case .authenticationRequired, .mutualAuthenticationRequired: .authenticationFailure
            case .offline: .serviceUnavailable
            }
        }

        /// For the administrator.
        public var description: String {
            switch self {
            case .noRules: "the target has no rule: it admits nobody"
            case .address: "no address rule of the target admits it"
            case .name: "no name rule of the target admits it"
            case .noTarget: "there is no such target"
            case .portal: "it has come through a portal that is none of the target's tenant"
            case .authenticationRequired: "an account is bound there, and it has not authenticated"
            case .account: "the account is not bound there for this initiator"
            case .mutualAuthenticationRequired: "the target wants mutual authentication, and was asked for no proof"
            case .tlsRequired: "the target requires TLS"
            case .otherIdentity: "its certificate or pre-shared key is not that initiator's"
            case .offline: "the target, or the system, is offline"
            }
        }
    }

    public var isAdmitted: Bool {
        if case .admitted = self { true } else { false }
    }

    /// What whoever is admitted may see and write: what each of the rules behind it shows. nil: nobody is.
    public var mask: LUNMask? {
        guard case .admitted(let rules) = self else { return nil }
        return rules.reduce(.all) { $0.intersection($1.mask) }
    }
}

/// Decides on the rules of a target alone: for logins, for what discovery lists, and for sessions that live when rules change.
///
/// Of the rules of a kind that match, the most specific one decides: a name before a pattern, and of the patterns that with the most
/// bytes in front of its first wildcard; the address rule with the longest prefix, `ALL` last. Among equals it is the first.
public func decide(_ target: TargetConfiguration, initiator: ISCSIName, address: NetworkAddress) -> AccessDecision {
    guard !target.addressRules.isEmpty || !target.nameRules.isEmpty else { return .refused(.noRules) }
    var rules: [AccessRule] = []
    if !target.addressRules.isEmpty {
        guard let rule = mostSpecific(target.addressRules, where: { $0.admits(address) }) else { return .refused(.address) }
        rules.append(.address(rule))
    }
    if !target.nameRules.isEmpty {
        guard let rule = mostSpecific(target.nameRules, where: { $0.admits(initiator) }) else { return .refused(.name) }
        rules.append(.name(rule))
    }
    return .admitted(rules)
}

/// Decides on a login to a target by name: its rules and its accounts have to admit, and whoever it is through TLS is who it says.
/// - Parameters:
///   - account: whose secret it has proved to know; nil: nobody's
///   - isMutual: whether it has let the target prove itself, too
///   - local: our own address that it has reached; nil: one where the target is there
public func decideLogin(
    _ configuration: Configuration, targetName: ISCSIName, initiator: ISCSIName, address: NetworkAddress, account: AccountName? = nil,
    isMutual: Bool = false, channel: Channel = .clear, local: PortalAddress? = nil
) -> AccessDecision {
    guard channel.admits(initiator) else { return .refused(.otherIdentity) }
    guard let target = configuration.target(named: targetName) else { return .refused(.noTarget) }
    guard local.map({ configuration.tenancy.serves(target.tenant, at: $0) }) ?? true else { return .refused(.portal) }
    guard channel.isTLS || !target.requiresTLS else { return .refused(.tlsRequired) }
    let decision = decide(target, initiator: initiator, address: address)
    guard decision.isAdmitted else { return decision }
    if !target.accounts.isEmpty || target.requiresMutualCHAP {
        guard let account else { return .refused(.authenticationRequired) }
        guard target.accounts.admits(account, initiator) else { return .refused(.account) }
        guard isMutual || !target.requiresMutualCHAP else { return .refused(.mutualAuthenticationRequired) }
    }
    guard configuration.state == .ready, target.state == .ready else { return .refused(.offline) }
    return decision
}

/// Decides on a discovery session. Which targets it sees is another question: `discoverable`.
/// - Parameter account: whose secret it has proved to know; nil: nobody's
public func decideDiscovery(
    _ configuration: Configuration, initiator: ISCSIName, account: AccountName? = nil, channel: Channel = .clear
) -> AccessDecision {
    guard channel.admits(initiator) else { return .refused(.otherIdentity) }
    if !configuration.discoveryAccounts.isEmpty {
        guard let account else { return .refused(.authenticationRequired) }
        guard configuration.discoveryAccounts.admits(account, initiator) else { return .refused(.account) }
    }
    guard configuration.state == .ready else { return .refused(.offline) }
    return .admitted([])
}

/// The targets that the initiator could log in to, by number: whose rules admit it, and whose accounts.
///
/// An account that is bound to any target is an identity, and sees what that may log in to. One that is bound to discovery alone is a key
/// to the list: behind it, as without any, an initiator sees the targets that some account is bound to for it, or none at all. An account of
/// discovery is no tenant's: one of the same name that a tenant has is another one.
/// - Parameters:
///   - name: of the only one that is asked for, at the cost of one; nil: of all of them
///   - local: our own address that it has reached; nil: one where all of them are there
public func discoverable(
    _ configuration: Configuration, named name: ISCSIName? = nil, initiator: ISCSIName, address: NetworkAddress, account: AccountName? = nil,
    channel: Channel = .clear, local: PortalAddress? = nil
) -> [TargetConfiguration] {
    guard channel.admits(initiator) else { return [] }
    func isServed(_ target: TargetConfiguration) -> Bool { local.map { configuration.tenancy.serves(target.tenant, at: $0) } ?? true }
    let identity = account.flatMap { account in
        configuration.targets(of: account).contains { id in configuration.targets[id].map { isServed($0) && $0.accounts.admits(account) } ?? false } ? account : nil
    }
    func isDiscoverable(_ target: TargetConfiguration) -> Bool {
        guard isServed(target), channel.isTLS || !target.requiresTLS, decide(target, initiator: initiator, address: address).isAdmitted else { return false }
        if target.accounts.isEmpty { return true }
        return identity.map { target.tenant == .default && target.accounts.admits($0, initiator) } ?? target.accounts.incoming.contains { target.accounts.admits($0, initiator) }
    }
    if let name { return configuration.target(named: name).map { isDiscoverable($0) ? [$0] : [] } ?? [] }
    return configuration.targets.values.filter(isDiscoverable).sorted { $0.id < $1.id }
}

private func mostSpecific<Rule: SpecificRule>(_ rules: [Rule], where matches: (Rule) -> Bool) -> Rule? {
    var best: Rule?
    for rule in rules where matches(rule) && rule.specificity > best?.specificity ?? -1 { best = rule }
    return best
}

private protocol SpecificRule {
    /// 0 or more; the greater, the fewer it is about.
    var specificity: Int { get }
}

extension AddressRule: SpecificRule {
    fileprivate var specificity: Int {
        switch extent {
        case .all: 0
        case .network(_, let prefixLength): 1 + prefixLength
        }
    }

    /// Whether the address is among the rule's.
    public func admits(_ address: NetworkAddress) -> Bool {
        switch extent {
        case .all: return true
        case .network(let base, let prefixLength):
            guard base.family == address.family else { return false }
            let hostBits = UInt128(base.family.bitCount - prefixLength)
            return hostBits == 128 || base.value >> hostBits == address.value >> hostBits
        }
    }
}

extension NameRule: SpecificRule {
    fileprivate var specificity: Int { isPattern ? bytes.prefix { !Wildcard.isWild($0) }.count : 1 + Self.greatestLength }
}
