import Bytes
import Model

/// What is asked for, as far as policy looks at it.
public struct ManagementQuestion: Hashable, Sendable {
    public enum Object: Hashable, Sendable {
        /// The daemon as a whole.
        case whole
        /// Whatever whoever asks may know of.
        case list
        /// Something of this tenant's, there or to be made, or not there and with one of its numbers.
        case tenant(Tenant)
        /// Something of a tenant that has not been named: the only one that whoever asks has, or else nobody's.
        case unnamedTenant
    }

    /// All of them are needed.
    public let permissions: Set<Permission>
    public let object: Object

    public init(_ permission: Permission, _ object: Object) { self.init([permission], object) }

    public init(_ permissions: Set<Permission>, _ object: Object) {
        self.permissions = permissions
        self.object = Permission.whole.isDisjoint(with: permissions) ? object : .whole
    }
}

/// Whether an administrator's request is carried out, and by which rule.
public enum ManagementDecision: Hashable, Sendable {
    case allowed(Allowance)
    case refused(Refusal)

    public struct Allowance: Hashable, Sendable {
        /// The rules that allow it, all of them. None of them is about the object: then it is there for others only.
        public let grants: [Grant]
        /// What there is for this request: everything else does not exist.
        public let reach: Reach
        /// Whose the object is.
        public let tenant: Tenant?
        /// Whether PAM has to authenticate first.
        public var authenticates: Bool { grants.allSatisfy(\.authenticates) }
        /// Whether the object is among what there is.
        public var reachesObject: Bool { tenant.map(reach.covers) ?? true }
    }

    public enum Refusal: Hashable, Sendable, CustomStringConvertible {
        /// No rule is about who asks.
        case nobody
        /// None that is has a role with these permissions.
        case permission
        /// Those that do are about some tenants only.
        case whole
        /// There are several tenants whose it could be.
        case tenantNotNamed

        public var description: String {
            switch self {
            case .nobody: "the policy has no grant for this user"
            case .permission: "no grant of this user has a role that may do this"
            case .whole: "it is about all tenants, and no grant of this user for all of them may do it"
            case .tenantNotNamed: "it could be of several tenants: say which (--tenant)"
            }
        }
    }

    public var allowance: Allowance? {
        if case .allowed(let allowance) = self { allowance } else { nil }
    }
}

/// Decides on a request of an administrator.
///
/// Of the grants whose role has the permissions those count that reach the object; if none does, all of them do, and the object is not there for
/// whoever asks. If some of these want no authentication, these alone count.
public func decide(_ peer: Peer, _ question: ManagementQuestion, _ policy: Policy) -> ManagementDecision { decide(policy.grants(of: peer), question) }

/// The same for whoever these grants are for.
public func decide(_ theirs: [Grant], _ question: ManagementQuestion) -> ManagementDecision {
    guard !theirs.isEmpty else { return .refused(.nobody) }
    let able = theirs.filter { $0.role.permissions.isSuperset(of: question.permissions) }
    guard let first = able.first else { return .refused(.permission) }
    var tenant: Tenant?
    switch question.object {
    case .whole:
        guard able.contains(where: { $0.reach == .all }) else { return .refused(.whole) }
        return allow(able.filter { $0.reach == .all }, nil)
    case .list: break
    case .tenant(let named): tenant = named
    case .unnamedTenant:
        switch able.reduce(first.reach, { $0.union($1.reach) }) {
        case .all: tenant = .default
        case .tenants(let tenants):
            guard let only = tenants.first, tenants.count == 1 else { return .refused(.tenantNotNamed) }
            tenant = only
        }
    }
    let reaching = able.filter { grant in tenant.map { grant.reach.covers($0) } ?? true }
    return allow(reaching.isEmpty ? able : reaching, tenant)
}

private func allow(_ grants: [Grant], _ tenant: Tenant?) -> ManagementDecision {
    let ready = grants.filter { !$0.authenticates }
    let counting = ready.isEmpty ? grants : ready
    let reach = counting.dropFirst().reduce(counting.first?.reach ?? .tenants([])) { $0.union($1.reach) }
    return .allowed(.init(grants: counting, reach: reach, tenant: tenant))
}
