import Bytes
import Model

/// Something an administrator may be allowed to do: a mode and an operation of tgtadm, or a part of one that has a name of its own here.
public struct Permission: Hashable, Sendable, CustomStringConvertible {
    public enum Mode: String, CaseIterable, Sendable {
        case system, target, logicalunit, portal, account, session, connection, lld, access, policy
    }
    public enum Operation: String, CaseIterable, Sendable {
        case new, delete, show, update, bind, unbind, stat, start, stop, explain, generate
        /// Of `update`: what a target asks of initiators before it lets them in (`RequireTLS`, `RequireMutualCHAP`).
        case protect
        /// Of `update`: which file or device a logical unit is, and whether it may be written (`path`, `readonly`).
        case store
    }

    public let mode: Mode
    public let operation: Operation

    public init(_ mode: Mode, _ operation: Operation) {
        self.mode = mode
        self.operation = operation
    }

    public var description: String { "\(mode.rawValue) \(operation.rawValue)" }

    /// Every one that there is, and which are about the daemon as a whole: these need a grant for all tenants.
    private static let table: [(mode: Mode, tenants: [Operation], whole: [Operation])] = [
        (.system, [.show, .stat], [.update, .delete]),
        (.target, [.new, .delete, .show, .update, .protect, .bind, .unbind, .stat], []),
        (.logicalunit, [.new, .delete, .update, .store, .stat], []),
        (.portal, [.show], [.new, .delete, .update]),
        (.account, [.new, .delete, .show, .update, .bind, .unbind, .generate], []),
        (.session, [.stat], []),
        (.connection, [.delete, .show, .stat], []),
        (.lld, [.show], [.start, .stop]),
        (.access, [.explain], [.show, .delete]),
        (.policy, [.explain], []),
    ]

    public static let all = table.flatMap { row in (row.tenants + row.whole).map { Permission(row.mode, $0) } }
    /// Those that are about the daemon as a whole.
    public static let whole = Set(table.flatMap { row in row.whole.map { Permission(row.mode, $0) } })
}

/// A set of permissions with a name.
public struct PolicyRole: Hashable, Sendable {
    public let name: String
    public let permissions: Set<Permission>

    public init(name: String, permissions: Set<Permission>) {
        self.name = name
        self.permissions = permissions
    }

    private init(_ name: String, where isIncluded: (Permission) -> Bool) {
        self.init(name: name, permissions: Set(Permission.all.filter(isIncluded)))
    }

    private static let looking: Set<Permission.Operation> = [.show, .stat, .explain]

    /// Everything.
    public static let administrator = PolicyRole("administrator") { _ in true }
    /// Everything that can be said of a tenant.
    public static let tenantAdministrator = PolicyRole("tenant-administrator") { !Permission.whole.contains($0) }
    /// Keeps things running: changes settings of what is there, takes it offline and online, ends connections. It makes and deletes nothing, serves no other
    /// store, lets nobody write what was only read, admits nobody, makes it easier for nobody to be admitted, and knows no secret.
    public static let `operator` = PolicyRole("operator") {
        looking.contains($0.operation) || [Permission(.target, .update), Permission(.logicalunit, .update), Permission(.connection, .delete)].contains($0)
    }
    /// Looks at everything, and may ask why.
    public static let auditor = PolicyRole("auditor") { looking.contains($0.operation) }
    /// Looks at what is served, not at who may what.
    public static let observer = PolicyRole("observer") {
        [.show, .stat].contains($0.operation) && [.system, .target, .logicalunit, .session, .connection, .portal, .lld].contains($0.mode)
    }

    public static let shipped = [administrator, tenantAdministrator, `operator`, auditor, observer]
}

/// Whom a grant is for. Names are bytes: they may have blanks and `\`.
public enum Subject: Hashable, Sendable, CustomStringConvertible {
    case user([UInt8])
    case uid(UInt32)
    case group([UInt8])
    case gid(UInt32)

    public var description: String {
        switch self {
        case .user(let name): "user \(escaped(name))"
        case .uid(let number): "uid \(number)"
        case .group(let name): "group \(escaped(name))"
        case .gid(let number): "gid \(number)"
        }
    }
}

/// Which tenants a grant, or an answer, is about.
public enum Reach: Hashable, Sendable, CustomStringConvertible {
    case all
    case tenants(Set<Tenant>)

    public func covers(_ tenant: Tenant) -> Bool {
        switch self {
        case .all: true
        case .tenants(let tenants): tenants.contains(tenant)
        }
    }

    public func union(_ other: Reach) -> Reach {
        guard case .tenants(let mine) = self, case .tenants(let others) = other else { return .all }
        return .tenants(mine.union(others))
    }

    public var description: String {
        switch self {
        case .all: "all tenants"
        case .tenants(let tenants): "tenant \(tenants.map(\.name).sorted().joined(separator: ", "))"
        }
    }
}

/// A rule of the policy: these may do this, there.
public struct Grant: Hashable, Sendable, CustomStringConvertible {
    public let subjects: [Subject]
    public let role: PolicyRole
    public let reach: Reach
    /// Whether who they are has to be proved anew for each request (PAM).
    public let authenticates: Bool
    /// Where it stands in the policy file; nil: it stands nowhere.
    public let line: Int?

    public init(_ subjects: [Subject], _ role: PolicyRole, _ reach: Reach, authenticates: Bool, line: Int? = nil) {
        self.subjects = subjects
        self.role = role
        self.reach = reach
        self.authenticates = authenticates
        self.line = line
    }

    public var description: String { "\(role.name) of \(reach)" + (line.map { " (line \($0))" } ?? "") }
}

/// Who asks, as the kernel and the name service say.
public struct Peer: Hashable, Sendable {
    public let uid: UInt32
    /// nil: the name service knows nobody of this number, or was not asked.
    public let user: [UInt8]?
    public let gids: Set<UInt32>
    public let groups: Set<[UInt8]>

    public init(uid: UInt32, user: [UInt8]? = nil, gids: Set<UInt32> = [], groups: Set<[UInt8]> = []) {
        self.uid = uid
        self.user = user
        self.gids = gids
        self.groups = groups
    }

    public func isOne(of subjects: [Subject]) -> Bool {
        subjects.contains { subject in
            switch subject {
            case .user(let name): user == name
            case .uid(let number): uid == number
            case .group(let name): groups.contains(name)
            case .gid(let number): gids.contains(number)
            }
        }
    }
}

/// Who may do what. What is whose stands with the configuration (`Tenancy`).
public struct Policy: Hashable, Sendable {
    public let grants: [Grant]
    /// Whether PAM has its say: not without a policy file.
    public let asksPAM: Bool

    public init(_ grants: [Grant], asksPAM: Bool = true) {
        self.grants = grants
        self.asksPAM = asksPAM
    }

    /// The grants that are for whoever asks.
    public func grants(of peer: Peer) -> [Grant] { grants.filter { peer.isOne(of: $0.subjects) } }
    /// Whether there is any.
    public func knows(_ peer: Peer) -> Bool { grants.contains { peer.isOne(of: $0.subjects) } }

    /// Without a policy file: our own user may do everything, and nobody else anything.
    public static func own(uid: UInt32) -> Policy {
        Policy([Grant([.uid(uid)], .administrator, .all, authenticates: false)], asksPAM: false)
    }
}
