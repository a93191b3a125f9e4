import Access
import Bytes
import ISCSI
import Management
import Model

extension AdminRequest {
    /// What is set by an update that not everybody who may update may set: a leave of its own, with a name of its own.
    private static let guarded: [(mode: Permission.Mode, settings: [String], operation: Permission.Operation)] = [
        (.target, ["RequireTLS", "RequireMutualCHAP"], .protect),
        (.logicalunit, ["path", "readonly"], .store),
    ]

    /// What policy has to allow for it, all of it.
    public var permissions: Set<Permission> {
        let settings: [Setting] =
            switch action {
            case .updateTarget(_, let setting): [setting]
            case .updateLogicalUnit(_, _, let settings): settings
            default: []
            }
        guard !settings.isEmpty else { return [permission] }
        return Set(settings.map { setting in
            let row = Self.guarded.first { row in row.mode == permission.mode && row.settings.contains { setting.name.elementsEqual($0.utf8) } }
            return row.map { Permission($0.mode, $0.operation) } ?? permission
        })
    }

    /// The mode and operation of tgtadm that it is.
    public var permission: Permission {
        switch action {
        case .showSystem: Permission(.system, .show)
        case .updateSystem: Permission(.system, .update)
        case .deleteSystem: Permission(.system, .delete)
        case .statSystem: Permission(.system, .stat)
        case .newTarget: Permission(.target, .new)
        case .deleteTarget: Permission(.target, .delete)
        case .showTargets, .showTarget: Permission(.target, .show)
        case .statTarget: Permission(.target, .stat)
        case .updateTarget: Permission(.target, .update)
        case .bindInitiators: Permission(.target, .bind)
        case .unbindInitiators: Permission(.target, .unbind)
        case .explainAccess: Permission(.access, .explain)
        case .showPenalties: Permission(.access, .show)
        case .clearPenalties: Permission(.access, .delete)
        case .newLogicalUnit: Permission(.logicalunit, .new)
        case .deleteLogicalUnit: Permission(.logicalunit, .delete)
        case .statLogicalUnit: Permission(.logicalunit, .stat)
        case .updateLogicalUnit: Permission(.logicalunit, .update)
        case .newPortal: Permission(.portal, .new)
        case .deletePortal: Permission(.portal, .delete)
        case .updatePortal: Permission(.portal, .update)
        case .showPortals: Permission(.portal, .show)
        case .newAccount: Permission(.account, .new)
        case .deleteAccount: Permission(.account, .delete)
        case .showAccounts: Permission(.account, .show)
        case .addSecret, .retireSecret: Permission(.account, .update)
        case .generateSecret: Permission(.account, .generate)
        case .bindAccount: Permission(.account, .bind)
        case .unbindAccount: Permission(.account, .unbind)
        case .statSession: Permission(.session, .stat)
        case .showConnections: Permission(.connection, .show)
        case .deleteConnection: Permission(.connection, .delete)
        case .statConnections: Permission(.connection, .stat)
        case .startDriver: Permission(.lld, .start)
        case .stopDriver: Permission(.lld, .stop)
        case .showDrivers: Permission(.lld, .show)
        case .explainPolicy: Permission(.policy, .explain)
        }
    }

    /// What policy is asked.
    public func question(_ configuration: Configuration) -> ManagementQuestion { question(Ownership(configuration)) }

    func question(_ ownership: Ownership) -> ManagementQuestion { ManagementQuestion(permissions, object(ownership)) }

    private func object(_ ownership: Ownership) -> ManagementQuestion.Object {
        let configuration = ownership.configuration
        func target(_ tid: Int32) -> ManagementQuestion.Object { .tenant(ownership.owner(of: tid)) }
        var named: ManagementQuestion.Object {
            guard let tenant else { return .unnamedTenant }
            // One that is not there is as one that is others'.
            return .tenant((try? configuration.tenant(named: tenant)) ?? Tenant(name: ""))
        }
        switch action {
        case .showSystem, .statSystem, .showTargets, .showPortals, .showAccounts, .showDrivers: return .list
        case .updateSystem, .deleteSystem, .showPenalties, .clearPenalties, .newPortal, .deletePortal, .updatePortal, .startDriver, .stopDriver: return .whole
        case .newTarget(let tid, _): return .tenant(ownership.ownerOfNew(tid))
        case .deleteTarget(let tid, _), .showTarget(let tid), .statTarget(let tid), .updateTarget(let tid, _),
             .bindInitiators(let tid, _, _), .unbindInitiators(let tid, _), .newLogicalUnit(let tid, _, _), .deleteLogicalUnit(let tid, _),
             .statLogicalUnit(let tid, _), .updateLogicalUnit(let tid, _, _), .statSession(let tid, _), .showConnections(let tid),
             .deleteConnection(let tid, _, _), .statConnections(let tid, _):
            return target(tid)
        case .explainAccess(let question): return target(question.tid)
        case .bindAccount(let binding), .unbindAccount(let binding): return binding.tid.map(target) ?? .whole
        case .newAccount, .deleteAccount, .addSecret, .retireSecret, .generateSecret: return named
        case .explainPolicy(let question): return question.user == nil ? .list : .whole
        }
    }

    /// The same about this tenant, if it names none.
    func about(_ tenant: Tenant?) -> AdminRequest {
        var request = self
        if request.tenant == nil, let tenant { request.tenant = Array(tenant.name.utf8) }
        return request
    }
}

/// Whose target each number means, while requests that come together are decided one after the other: what is there counts, and what those before would
/// have made and deleted.
struct Ownership {
    let configuration: Configuration
    private var changed: [Int32: Tenant] = [:]

    init(_ configuration: Configuration) { self.configuration = configuration }

    /// A number that is nobody's is his whose targets have such numbers.
    func owner(of tid: Int32) -> Tenant { changed[tid] ?? TargetID(rawValue: tid).flatMap { configuration.targets[$0]?.tenant } ?? ownerOfNew(tid) }

    /// Whoever has such a number from before.
    func ownerOfNew(_ tid: Int32) -> Tenant { TargetID(rawValue: tid).map { configuration.tenancy.owner(of: $0) } ?? .default }

    /// This one has been carried out.
    mutating func follow(_ request: AdminRequest) {
        switch request.action {
        case .newTarget(let tid, _), .deleteTarget(let tid, _): changed[tid] = ownerOfNew(tid)
        default: break
        }
    }
}

/// What policy allows of requests that come together. Pure: what the gate of the management socket asks.
public struct Allowances: Sendable {
    private let requests: [(request: AdminRequest, allowance: ManagementDecision.Allowance)]
    /// Which tenants they may be about, all together.
    public let reach: Reach
    /// The rules that allow them, each once.
    public let grants: [Grant]
    /// Whether PAM has to authenticate first.
    public let authenticates: Bool

    /// - Throws: for the first one that policy refuses; nothing is said yet of what there is
    public init(_ requests: [AdminRequest], of peer: Peer, _ policy: Policy, _ configuration: Configuration) throws(Transaction.Refused) {
        var allowed: [(AdminRequest, ManagementDecision.Allowance)] = []
        var reach = Reach.tenants([])
        var grants: [Grant] = []
        let theirs = policy.grants(of: peer)
        // Of many requests, most ask the same.
        var decisions: [ManagementQuestion: ManagementDecision] = [:]
        // Nothing at all is for those who may do something.
        if requests.isEmpty, theirs.isEmpty {
            throw Transaction.Refused(nil, .unsupportedOperation, "\(ManagementDecision.Refusal.nobody)")
        }
        var ownership = Ownership(configuration)
        for (index, request) in requests.enumerated() {
            let question = request.question(ownership)
            defer { ownership.follow(request) }
            let known = decisions[question]
            let decision = known ?? decide(theirs, question)
            if known == nil { decisions[question] = decision }
            switch decision {
            case .refused(let refusal): throw Transaction.Refused(requests.count > 1 ? index : nil, .unsupportedOperation, "\(refusal)")
            case .allowed(let allowance):
                // What it is about is then the same whoever looks at it.
                allowed.append((question.object == .unnamedTenant ? request.about(allowance.tenant) : request, allowance))
                guard known == nil else { continue }
                reach = reach.union(allowance.reach)
                for grant in allowance.grants where !grants.contains(grant) { grants.append(grant) }
            }
        }
        self.requests = allowed
        self.reach = reach
        self.grants = grants
        authenticates = allowed.contains { $0.1.authenticates }
    }

    /// The requests as they are to be carried out within `reach`.
    /// - Throws: for the first of many about what is not there for who asks: whatever comes before it, it fails as it would alone
    public func resolved(_ configuration: Configuration) throws(Transaction.Refused) -> [AdminRequest] {
        for (index, (request, allowance)) in requests.enumerated() where requests.count > 1 && !allowance.reachesObject {
            let alone = Sight(allowance.reach).plan(configuration, RuntimeView()) { Administrator.plan(request, $0, $1) }
            guard case .answer(let answer) = alone, let reason = answer.reason, let error = TgtError(rawValue: answer.response.error) else {
                throw Transaction.Refused(index, .invalidRequest, Sight.hidden)
            }
            throw Transaction.Refused(index, error, reason)
        }
        return requests.map(\.request)
    }
}

/// What there is for whoever asks. A plan is made in what they see first: so what they hear of it is what they may know. What then
/// fails only because of what they do not see, or would change some of that, is refused without a reason.
public struct Sight: Sendable {
    private let reach: Reach

    public init(_ reach: Reach) { self.reach = reach }
    public static let everything = Sight(.all)

    /// What of the configuration there is.
    public func seen(_ configuration: Configuration) -> Configuration {
        if case .tenants(let tenants) = reach { configuration.seen(by: tenants) } else { configuration }
    }

    fileprivate static let hidden = "it cannot be done"

    /// - Parameter make: plans within a configuration and what is going on in it
    public func plan(_ configuration: Configuration, _ view: RuntimeView, _ make: (Configuration, RuntimeView) -> Plan) -> Plan {
        guard case .tenants(let tenants) = reach else { return make(configuration, view) }
        let seen = configuration.seen(by: tenants)
        let first = make(seen, view.seen(in: seen))
        guard first.isAction else { return first }
        let plan = make(configuration, view)
        return plan.isAction && plan.stays(within: tenants, configuration) ? plan : .answer(.refusal(.invalidRequest, Self.hidden))
    }

    /// The same for a part of a transaction.
    /// - Parameter changes: what a result changes, and into what
    func attempt<Result>(
        _ configuration: Configuration, _ view: RuntimeView, changes: (Result) -> (changes: [Change], new: Configuration),
        _ make: (Configuration, RuntimeView) throws(Transaction.Refused) -> Result
    ) throws(Transaction.Refused) -> Result {
        guard case .tenants(let tenants) = reach else { return try make(configuration, view) }
        let seen = configuration.seen(by: tenants)
        _ = try make(seen, view.seen(in: seen))
        let result: Result
        do throws(Transaction.Refused) { result = try make(configuration, view) } catch {
            throw Transaction.Refused(error.request, .invalidRequest, Self.hidden)
        }
        let (changes, new) = changes(result)
        guard changes.stay(within: tenants, configuration, new) else { throw Transaction.Refused(nil, .invalidRequest, Self.hidden) }
        return result
    }
}

extension Plan {
    /// Whether something is done, not only answered.
    fileprivate var isAction: Bool { if case .answer = self { false } else { true } }

    /// Whether nobody else's is touched.
    fileprivate func stays(within tenants: Set<Tenant>, _ old: Configuration) -> Bool {
        switch self {
        case .answer: true
        case .stop: false
        case .commit(let new, let changes, _): changes.stay(within: tenants, old, new)
        case .perform(let effect, _):
            switch effect {
            case .drawSecret: true
            case .openStore(let store): old.targets[store.key.target].map { tenants.contains($0.tenant) } ?? false
            case .withdrawLogicalUnit(let key): old.targets[key.target].map { tenants.contains($0.tenant) } ?? false
            case .withdrawTarget(let id, _), .endConnection(let id, _, _): old.targets[id].map { tenants.contains($0.tenant) } ?? false
            case .listen, .renewPortal, .close, .clearPenalties: false
            }
        }
    }
}

extension [Change] {
    /// Whether all of them are about what is these tenants', before and after. What is the whole daemon's is nobody's.
    fileprivate func stay(within tenants: Set<Tenant>, _ old: Configuration, _ new: Configuration) -> Bool {
        func isTheirs(_ id: TargetID) -> Bool { [old, new].compactMap { $0.targets[id]?.tenant }.allSatisfy(tenants.contains) }
        return allSatisfy { change in
            switch change {
            case .targetAdded(let id), .targetRemoved(let id), .targetStateChanged(let id), .parametersChanged(let id), .rulesChanged(let id), .accountsChanged(let id?):
                isTheirs(id)
            case .logicalUnitAdded(let key), .logicalUnitRemoved(let key), .logicalUnitChanged(let key), .mediumChanged(let key): isTheirs(key.target)
            case .accountChanged(let key): tenants.contains(key.tenant)
            case .accountsChanged(nil), .portalAdded, .portalRemoved, .portalChanged, .systemStateChanged, .debugChanged: false
            }
        }
    }
}

extension RuntimeView {
    /// What is going on in this part of the configuration.
    fileprivate func seen(in configuration: Configuration) -> RuntimeView {
        var view = self
        view.sessions.removeAll { configuration.targets[$0.target] == nil }
        view.logicalUnits = logicalUnits.filter { configuration.targets[$0.key.target] != nil }
        view.statistics.removeAll { configuration.targets[$0.key.target] == nil }
        view.penalties = nil
        view.audit = nil
        // That nothing can be changed is theirs to know; where that is, and why, is not.
        if hindrance != nil { view.hindrance = "the daemon cannot keep it, or not record it; its administrators see why" }
        view.portals = portals.mapValues { condition in
            var condition = condition
            // Others come through it, too.
            condition.failedHandshakes = []
            return condition
        }
        return view
    }
}
