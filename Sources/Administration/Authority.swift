import Access
import Bytes
import ISCSI
import Management
import Model

extension AdminRequest {
    /// What policy has to allow for it.
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
    public func question(_ configuration: Configuration) -> ManagementQuestion {
        ManagementQuestion(permission, object(configuration))
    }

    private func object(_ configuration: Configuration) -> ManagementQuestion.Object {
        /// A number that is nobody's now is his whose targets have such numbers.
        func target(_ tid: Int32) -> ManagementQuestion.Object {
            guard let id = TargetID(rawValue: tid) else { return .tenant(.default) }
            return .tenant(configuration.targets[id]?.tenant ?? configuration.tenancy.owner(of: id))
        }
        var named: ManagementQuestion.Object {
            guard let tenant else { return .unnamedTenant }
            // One that is not there is as one that is others'.
            return .tenant((try? configuration.tenant(named: tenant)) ?? Tenant(name: ""))
        }
        switch action {
        case .showSystem, .statSystem, .showTargets, .showPortals, .showAccounts, .showDrivers: return .list
        case .updateSystem, .deleteSystem, .showPenalties, .clearPenalties, .newPortal, .deletePortal, .updatePortal, .startDriver, .stopDriver: return .whole
        case .newTarget(let tid, _), .deleteTarget(let tid, _), .showTarget(let tid), .statTarget(let tid), .updateTarget(let tid, _),
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

    /// The same about this tenant, if it names none: what it is about is then the same whoever looks at it.
    public func about(_ tenant: Tenant?) -> AdminRequest {
        var request = self
        if request.tenant == nil, let tenant { request.tenant = Array(tenant.name.utf8) }
        return request
    }
}

/// What there is for whoever asks. A plan is made in what they see first: so what they hear of it is what they may know. What then
/// fails only because of what they do not see is refused without a reason.
public struct Sight: Sendable {
    private let reach: Reach

    public init(_ reach: Reach) { self.reach = reach }
    public static let everything = Sight(.all)

    private static let hidden = "it cannot be done"

    /// - Parameter make: plans within a configuration and what is going on in it
    public func plan(_ configuration: Configuration, _ view: RuntimeView, _ make: (Configuration, RuntimeView) -> Plan) -> Plan {
        guard case .tenants(let tenants) = reach else { return make(configuration, view) }
        let seen = configuration.seen(by: tenants)
        let first = make(seen, view.seen(in: seen))
        guard first.isAction else { return first }
        let plan = make(configuration, view)
        return plan.isAction ? plan : .answer(.refusal(.invalidRequest, Self.hidden))
    }

    /// The same for a part of a transaction.
    func attempt<Result>(
        _ configuration: Configuration, _ view: RuntimeView, _ make: (Configuration, RuntimeView) throws(Transaction.Refused) -> Result
    ) throws(Transaction.Refused) -> Result {
        guard case .tenants(let tenants) = reach else { return try make(configuration, view) }
        let seen = configuration.seen(by: tenants)
        _ = try make(seen, view.seen(in: seen))
        do throws(Transaction.Refused) { return try make(configuration, view) } catch {
            throw Transaction.Refused(error.request, .invalidRequest, Self.hidden)
        }
    }
}

extension Plan {
    /// Whether something is done, not only answered.
    fileprivate var isAction: Bool { if case .answer = self { false } else { true } }
}

extension RuntimeView {
    /// What is going on in this part of the configuration.
    fileprivate func seen(in configuration: Configuration) -> RuntimeView {
        var view = self
        view.sessions.removeAll { configuration.targets[$0.target] == nil }
        view.logicalUnits = logicalUnits.filter { configuration.targets[$0.key.target] != nil }
        view.statistics.removeAll { configuration.targets[$0.key.target] == nil }
        view.penalties = nil
        return view
    }
}
