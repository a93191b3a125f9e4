import ISCSI
import Model

/// What let somebody in.
public enum AccessRule: Hashable, Sendable {
    case address(AddressRule)
    case name(NameRule)
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
        /// Accounts are bound to the target (or to discovery), and nobody can authenticate yet.
        case authenticationRequired
        /// The target, or the system, is offline.
        case offline

        /// What the initiator is told (RFC 7143 §11.13.5). Whoever is not admitted does not learn whether the target exists.
        public var loginStatus: LoginStatus {
            switch self {
            case .noRules, .address, .name, .noTarget: .notFound
            case .authenticationRequired: .authenticationFailure
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
            case .authenticationRequired: "an account is bound, and nobody can authenticate yet"
            case .offline: "the target, or the system, is offline"
            }
        }
    }

    public var isAdmitted: Bool {
        if case .admitted = self { true } else { false }
    }
}

/// Decides on the rules of a target alone: for logins, for what discovery lists, and for sessions that live when rules change.
public func decide(_ target: TargetConfiguration, initiator: ISCSIName, address: NetworkAddress) -> AccessDecision {
    guard !target.addressRules.isEmpty || !target.nameRules.isEmpty else { return .refused(.noRules) }
    var rules: [AccessRule] = []
    if !target.addressRules.isEmpty {
        guard let rule = target.addressRules.first(where: { $0.admits(address) }) else { return .refused(.address) }
        rules.append(.address(rule))
    }
    if !target.nameRules.isEmpty {
        guard let rule = target.nameRules.first(where: { $0.admits(initiator) }) else { return .refused(.name) }
        rules.append(.name(rule))
    }
    return .admitted(rules)
}

/// Decides on a login to a target by name.
public func decideLogin(_ configuration: Configuration, targetName: ISCSIName, initiator: ISCSIName, address: NetworkAddress) -> AccessDecision {
    guard let target = configuration.target(named: targetName) else { return .refused(.noTarget) }
    let decision = decide(target, initiator: initiator, address: address)
    guard decision.isAdmitted else { return decision }
    guard configuration.state == .ready, target.state == .ready else { return .refused(.offline) }
    guard target.accounts.isEmpty else { return .refused(.authenticationRequired) }
    return decision
}

/// Decides on a discovery session. Which targets it sees is another question: `discoverable`.
public func decideDiscovery(_ configuration: Configuration) -> AccessDecision {
    guard configuration.state == .ready else { return .refused(.offline) }
    guard configuration.discoveryAccounts.isEmpty else { return .refused(.authenticationRequired) }
    return .admitted([])
}

/// The targets whose rules admit the initiator, by number.
public func discoverable(_ configuration: Configuration, initiator: ISCSIName, address: NetworkAddress) -> [TargetConfiguration] {
    configuration.sortedTargets.filter { decide($0, initiator: initiator, address: address).isAdmitted }
}

extension AddressRule {
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

extension NameRule {
    /// Whether the name is the rule's, or matches its pattern.
    public func admits(_ name: ISCSIName) -> Bool {
        isPattern ? Self.matches(bytes[...], name.bytes[...]) : bytes == name.bytes
    }

    /// At most length of pattern times length of name steps: after a mismatch, only the last `*` takes one byte more.
    private static func matches(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        var (p, n) = (pattern.startIndex, name.startIndex)
        var retry: (afterStar: Int, name: Int)?
        while n < name.endIndex {
            if p < pattern.endIndex, pattern[p] == UInt8(ascii: "*") {
                p += 1
                retry = (p, n)
            } else if p < pattern.endIndex, pattern[p] == UInt8(ascii: "?") || pattern[p] == name[n] {
                p += 1
                n += 1
            } else if let (afterStar, start) = retry {
                p = afterStar
                n = start + 1
                retry = (p, n)
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
