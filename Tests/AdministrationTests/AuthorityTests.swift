import Access
import Crypto
import ISCSI
import Management
import Model
import Testing
@testable import Administration

private let red = Tenant(name: "red"), blue = Tenant(name: "blue")

/// Two tenants and nobody's, each with a target, a disk, a session and an account.
private struct World {
    var configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16), keepsTgtDefaults: true))
    var view = RuntimeView()

    init() throws {
        func bounds(_ name: String, _ numbers: ClosedRange<Int32>) throws -> TenantBounds {
            TenantBounds(targetNames: [try NameRule(parsing: utf8("iqn.\(name).*"))], targetNumbers: numbers, places: try StorePlaces(directories: [StorePath(utf8("/srv/\(name)"))]))
        }
        configuration.tenancy = Tenancy([red: try bounds("red", 100...199), blue: try bounds("blue", 200...299)])
        let account = try AccountName(utf8("user"))
        for (number, tenant) in [(100, red), (200, blue), (1, Tenant.default)] as [(Int32, Tenant)] {
            let id = try #require(TargetID(rawValue: number))
            _ = try configuration.newTarget(id, name: utf8("iqn.\(tenant.name).disk"))
            _ = try configuration.newLogicalUnit(LogicalUnitKey(target: id, lun: 1), blockLength: 512, store: BackingStore(kind: .null, path: try StorePath(utf8("/srv/\(tenant.name)/disk"))), medium: .null)
            _ = try configuration.newAccount(account, secret: Secret(utf8("a secret of \(tenant.name)")), tenant: tenant)
            _ = try configuration.newAccount(AccountName(utf8("only-\(tenant.name)")), secret: Secret(utf8("another of \(tenant.name)")), tenant: tenant)
            _ = try configuration.bind([AddressRule(parsing: utf8("ALL"))], [], to: id)
            let address = try #require(NetworkAddress(parsing: utf8("10.0.0.\(number)")))
            view.sessions.append(.init(
                target: id, tsih: UInt16(number), initiatorName: try ISCSIName(utf8("iqn.host.\(tenant.name)")), connections: [.init(cid: 0, address: address)]))
        }
        _ = try configuration.bindAccount(AccountName(utf8("only-default")), to: nil, outgoing: false)
        _ = try configuration.addPortal(Portal(parsing: utf8("10.9.9.9:3260")))
    }

    /// A request for each permission, about a target of this number and this session, or about accounts of a tenant.
    static func requests(_ tid: Int32, sid: UInt64, tenant: [UInt8]?) -> [AdminRequest] {
        let initiators = AdminRequest.Initiators(address: utf8("10.0.0.7"))
        let setting = AdminRequest.Setting(name: utf8("nop_count"), value: utf8("3"))
        var unit = AdminRequest.NewLogicalUnit()
        unit.bstype = utf8("null")
        unit.path = utf8("/srv/x")
        let actions: [AdminRequest.Action] = [
            .showSystem, .updateSystem(.init(name: utf8("State"), value: utf8("offline"))), .deleteSystem, .statSystem,
            .newTarget(tid: tid + 1, name: utf8("iqn.\(tid == 100 ? "red" : "blue").new")), .deleteTarget(tid: tid, force: true), .showTargets, .showTarget(tid: tid),
            .statTarget(tid: tid), .updateTarget(tid: tid, setting), .bindInitiators(tid: tid, initiators), .unbindInitiators(tid: tid, .init(address: utf8("ALL"))),
            .explainAccess(.init(tid: tid, name: utf8("iqn.x"), address: utf8("10.0.0.1"))), .explainPolicy(.init()), .showPenalties, .clearPenalties(address: utf8("ALL")),
            .newLogicalUnit(tid: tid, lun: 2, unit), .deleteLogicalUnit(tid: tid, lun: 1), .statLogicalUnit(tid: tid, lun: 1),
            .updateLogicalUnit(tid: tid, lun: 1, [.init(name: utf8("readonly"), value: utf8("1"))]),
            .newPortal(utf8("127.0.0.1:1")), .deletePortal(utf8("10.9.9.9:3260")), .updatePortal(utf8("10.9.9.9:3260"), [.init(name: utf8("tpgt"), value: utf8("2"))]), .showPortals,
            .newAccount(user: utf8("new"), password: utf8("secret of twelve"), allowWeak: false), .deleteAccount(user: utf8("user")), .showAccounts,
            .addSecret(user: utf8("user"), password: utf8("secret of twelve"), allowWeak: false), .retireSecret(user: utf8("user"), .old),
            .generateSecret(user: utf8("user"), bits: 96), .bindAccount(.init(user: utf8("user"), tid: tid, outgoing: false)),
            .unbindAccount(.init(user: utf8("user"), tid: tid, outgoing: false)),
            .bindAccount(.init(user: utf8("user"), tid: nil, outgoing: false)),
            .statSession(tid: tid, sid: sid), .showConnections(tid: tid), .deleteConnection(tid: tid, sid: sid, cid: 0), .statConnections(tid: tid, sid: sid),
            .startDriver, .stopDriver, .showDrivers,
        ]
        return actions.map { AdminRequest(tenant: tenant, $0) }
    }

    /// What comes of it: the text of an answer, or what is begun.
    func outcome(_ request: AdminRequest, _ role: PolicyRole, _ reach: Reach, _ format: OutputFormat) -> String {
        switch decide(Peer(uid: 7), request.question(configuration), Policy([Grant([.uid(7)], role, reach, authenticates: false)])) {
        case .refused(let refusal): return "policy: \(refusal)"
        case .allowed(let allowance):
            let request = request.question(configuration).object == .unnamedTenant ? request.about(allowance.tenant) : request
            return Self.told(Sight(allowance.reach).plan(configuration, view) { Administrator.plan(request, $0, $1, format: format) })
        }
    }

    static func told(_ plan: Plan) -> String {
        switch plan {
        case .answer(let answer): "answer \(answer.response.error) \(answer.reason ?? "") \(text(answer.response.text))"
        case .commit(_, let changes, _): "commit \(changes)"
        case .perform(let effect, _): "perform \(effect)"
        case .stop: "stop"
        }
    }
}

@Suite struct AuthorityTests {
    static let foreign = ["blue", "200", "iqn.default", "only-default", "10.9.9.9", "10.0.0.1:", "srv/default"]

    @Test("Every role, about its own tenant, another one and nobody's: what a tenant's people are not to know they do not hear of, as if it were not there")
    func everything() throws {
        let world = try World()
        #expect(Set(World.requests(100, sid: 100, tenant: nil).map(\.permission)) == Set(Permission.all))
        var outcomes = 0
        for role in PolicyRole.shipped {
            for format in [OutputFormat.text, .json] {
                let own = World.requests(100, sid: 100, tenant: nil), other = World.requests(200, sid: 200, tenant: utf8("blue"))
                let absent = World.requests(250, sid: 200, tenant: utf8("no-such"))
                for index in own.indices {
                    outcomes += 1
                    let permission = own[index].permission
                    let told = world.outcome(own[index], role, .tenants([red]), format)
                    // With a grant for all, it is what the daemon does without any policy.
                    let everywhere = world.outcome(other[index], role, .all, format)
                    guard role.permissions.contains(permission) else {
                        #expect(told.hasPrefix("policy: ") && everywhere.hasPrefix("policy: "), "\(role.name) \(permission)")
                        continue
                    }
                    #expect(everywhere == World.told(Administrator.plan(other[index], world.configuration, world.view, format: format)))
                    for word in Self.foreign { #expect(!told.contains(word), "\(role.name) \(permission): \(told)") }
                    let hidden = world.outcome(other[index], role, .tenants([red]), format)
                    let nothing = world.outcome(absent[index], role, .tenants([red]), format)
                    #expect(!hidden.hasPrefix("commit") && !hidden.hasPrefix("perform") || hidden == told, "\(role.name) \(permission): \(hidden)")
                    #expect(
                        hidden.replacingOccurrences(["200", "201"], "N").replacingOccurrences(["blue"], "T")
                            == nothing.replacingOccurrences(["250", "251", "200"], "N").replacingOccurrences(["no-such", "blue"], "T"),
                        "\(role.name) \(permission): \(hidden) / \(nothing)")
                }
            }
        }
        print("\(outcomes) requests of each kind")
    }

    @Test("A tenant's administrator does what is its tenant's")
    func own() throws {
        let world = try World()
        for request in World.requests(100, sid: 100, tenant: nil) where PolicyRole.tenantAdministrator.permissions.contains(request.permission) {
            // Accounts for discovery are the whole daemon's.
            if case .bindAccount(let binding) = request.action, binding.tid == nil { continue }
            if case .retireSecret = request.action { continue }
            if case .unbindAccount = request.action { continue }
            if case .explainPolicy = request.action { continue }
            let told = world.outcome(request, .tenantAdministrator, .tenants([red]), .text)
            #expect(told.hasPrefix("commit") || told.hasPrefix("perform") || told.hasPrefix("answer 0"), "\(request.permission): \(told)")
        }
    }

    @Test("A change is made in the whole configuration, and an account of the same name elsewhere stays as it is")
    func accounts() throws {
        let world = try World()
        let request = AdminRequest(.deleteAccount(user: utf8("user")))
        let decision = decide(Peer(uid: 7), request.question(world.configuration), Policy([Grant([.uid(7)], .tenantAdministrator, .tenants([red]), authenticates: false)]))
        let allowance = try #require(decision.allowance)
        guard case .commit(let new, _, _) = Sight(allowance.reach).plan(world.configuration, world.view, { Administrator.plan(request.about(allowance.tenant), $0, $1) }) else {
            Issue.record("it is not done")
            return
        }
        let user = try AccountName(utf8("user"))
        #expect(new.account(user, tenant: red) == nil && new.account(user) != nil && new.account(user, tenant: blue) != nil && new.targets.count == 3)
    }

    @Test("What fails only because of what is hidden is refused without a reason")
    func hidden() throws {
        var world = try World()
        // Made before there were tenants.
        let tenancy = world.configuration.tenancy
        world.configuration.tenancy = Tenancy()
        _ = try world.configuration.newTarget(#require(TargetID(rawValue: 150)), name: utf8("iqn.red.old"))
        world.configuration.tenancy = tenancy
        for request in [AdminRequest(.newTarget(tid: 150, name: utf8("iqn.red.new"))), AdminRequest(.newTarget(tid: 151, name: utf8("iqn.red.old")))] {
            let plan = Sight(.tenants([red])).plan(world.configuration, world.view) { Administrator.plan(request, $0, $1) }
            guard case .answer(let answer) = plan else {
                Issue.record("\(plan)")
                return
            }
            #expect(answer.response.error == TgtError.invalidRequest.rawValue && answer.reason == "it cannot be done")
        }
        let transaction = Transaction([AdminRequest(.newTarget(tid: 150, name: utf8("iqn.red.new")))], sight: Sight(.tenants([red])))
        let refused = #expect(throws: Transaction.Refused.self) { try transaction.prepare(world.configuration, world.view) }
        #expect(refused?.reason == "it cannot be done" && refused?.request == 0)
    }

    @Test("A transaction is held to its tenant and to its limits")
    func transactions() throws {
        var world = try World()
        func refused(_ requests: [AdminRequest]) -> Transaction.Refused? {
            do throws(Transaction.Refused) {
                _ = try Transaction(requests, sight: Sight(.tenants([red]))).prepare(world.configuration, world.view)
                return nil
            } catch { return error }
        }
        let first = AdminRequest(.newTarget(tid: 101, name: utf8("iqn.red.2"))), second = AdminRequest(.newTarget(tid: 102, name: utf8("iqn.red.3")))
        #expect(refused([first, second]) == nil)
        #expect(refused([first, AdminRequest(.deleteTarget(tid: 200, force: true))])?.error == .noTarget)
        var limits = TenantLimits()
        limits.targets = 2
        world.configuration.tenancy = Tenancy(world.configuration.tenancy.tenants.mapValues { bounds in
            var bounds = bounds
            bounds.limits = limits
            return bounds
        })
        #expect(refused([first]) == nil && refused([first, second])?.error == .invalidRequest)
    }
}

extension String {
    fileprivate func replacingOccurrences(_ words: [String], _ other: String) -> String {
        words.reduce(self) { text, word in text.split(separator: word, omittingEmptySubsequences: false).joined(separator: other) }
    }
}
