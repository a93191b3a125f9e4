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
            let two = try AccountName(utf8("two"))
            _ = try configuration.newAccount(two, secret: Secret(utf8("the first of \(tenant.name)")), tenant: tenant)
            _ = try configuration.addSecret(Secret(utf8("the second of \(tenant.name)")), to: two, tenant: tenant)
            _ = try configuration.bindAccount(two, to: id, outgoing: false)
            _ = try configuration.bind([AddressRule(parsing: utf8("ALL"))], [], to: id)
            let address = try #require(NetworkAddress(parsing: utf8("10.0.0.\(number)")))
            view.sessions.append(.init(
                target: id, tsih: UInt16(number), initiatorName: try ISCSIName(utf8("iqn.host.\(tenant.name)")), connections: [.init(cid: 0, address: address)]))
        }
        _ = try configuration.bindAccount(AccountName(utf8("only-default")), to: nil, outgoing: false)
        _ = try configuration.addPortal(Portal(parsing: utf8("10.9.9.9:3260")))
    }

    /// A request for each row of the table, about a target of this number and this session, or about accounts of a tenant.
    static func requests(_ tid: Int32, sid: UInt64, tenant: [UInt8]?) -> [String: AdminRequest] {
        let name = tid == 100 ? "red" : "blue"
        let initiators = AdminRequest.Initiators(address: utf8("10.0.0.7"))
        let setting = AdminRequest.Setting(name: utf8("nop_count"), value: utf8("3"))
        var unit = AdminRequest.NewLogicalUnit()
        unit.bstype = utf8("null")
        unit.path = utf8("/srv/x")
        let actions: [String: AdminRequest.Action] = [
            "system show": .showSystem, "system update": .updateSystem(.init(name: utf8("State"), value: utf8("offline"))), "system delete": .deleteSystem,
            "system stat": .statSystem,
            "target new": .newTarget(tid: tid + 1, name: utf8("iqn.\(name).new")), "target delete": .deleteTarget(tid: tid, force: true),
            "target show all": .showTargets, "target show": .showTarget(tid: tid), "target stat": .statTarget(tid: tid), "target update": .updateTarget(tid: tid, setting),
            "target protect": .updateTarget(tid: tid, .init(name: utf8("RequireTLS"), value: utf8("No"))),
            "target protect mutual": .updateTarget(tid: tid, .init(name: utf8("RequireMutualCHAP"), value: utf8("No"))),
            "target bind": .bindInitiators(tid: tid, initiators), "target unbind": .unbindInitiators(tid: tid, .init(address: utf8("ALL"))),
            "access explain": .explainAccess(.init(tid: tid, name: utf8("iqn.x"), address: utf8("10.0.0.1"))), "policy explain self": .explainPolicy(.init()),
            "policy explain": .explainPolicy(.init(user: utf8("somebody"))), "access show": .showPenalties, "access delete": .clearPenalties(address: utf8("ALL")),
            "logicalunit new": .newLogicalUnit(tid: tid, lun: 2, unit), "logicalunit delete": .deleteLogicalUnit(tid: tid, lun: 1),
            "logicalunit stat": .statLogicalUnit(tid: tid, lun: 1),
            "logicalunit update": .updateLogicalUnit(tid: tid, lun: 1, [.init(name: utf8("product_id"), value: utf8("X")), .init(name: utf8("online"), value: utf8("0"))]),
            "logicalunit store": .updateLogicalUnit(tid: tid, lun: 1, [.init(name: utf8("product_id"), value: utf8("X")), .init(name: utf8("readonly"), value: utf8("0"))]),
            "logicalunit store path": .updateLogicalUnit(tid: tid, lun: 1, [.init(name: utf8("online"), value: utf8("0")), .init(name: utf8("path"), value: utf8("/srv/y"))]),
            "portal new": .newPortal(utf8("127.0.0.1:1")), "portal delete": .deletePortal(utf8("10.9.9.9:3260")),
            "portal update": .updatePortal(utf8("10.9.9.9:3260"), [.init(name: utf8("tpgt"), value: utf8("2"))]), "portal show": .showPortals,
            "account new": .newAccount(user: utf8("new"), password: utf8("secret of twelve"), allowWeak: false), "account delete": .deleteAccount(user: utf8("user")),
            "account show": .showAccounts, "account update": .addSecret(user: utf8("user"), password: utf8("secret of twelve"), allowWeak: false),
            "account update retire": .retireSecret(user: utf8("two"), .old), "account generate": .generateSecret(user: utf8("user"), bits: 96),
            "account bind": .bindAccount(.init(user: utf8("user"), tid: tid, outgoing: false)),
            "account unbind": .unbindAccount(.init(user: utf8("two"), tid: tid, outgoing: false)),
            "account bind discovery": .bindAccount(.init(user: utf8("user"), tid: nil, outgoing: false)),
            "session stat": .statSession(tid: tid, sid: sid), "connection show": .showConnections(tid: tid),
            "connection delete": .deleteConnection(tid: tid, sid: sid, cid: 0), "connection stat": .statConnections(tid: tid, sid: sid),
            "lld start": .startDriver, "lld stop": .stopDriver, "lld show": .showDrivers,
        ]
        return actions.mapValues { AdminRequest(tenant: tenant, $0) }
    }

    /// What comes of it: the text of an answer, or what is begun.
    func outcome(_ request: AdminRequest, _ role: PolicyRole, _ reach: Reach, _ format: OutputFormat) -> String {
        outcome(request, [Grant([.uid(7)], role, reach, authenticates: false)], format)
    }
    func outcome(_ request: AdminRequest, _ grants: [Grant], _ format: OutputFormat = .text) -> String {
        do throws(Transaction.Refused) {
            let allowances = try Allowances([request], of: Peer(uid: 7), Policy(grants), configuration)
            guard let request = try allowances.resolved(configuration).first else { return "nothing" }
            // The policy is no part of the configuration.
            if case .explainPolicy = request.action { return "answer 0" }
            return Self.told(Sight(allowances.reach).plan(configuration, view) { Administrator.plan(request, $0, $1, format: format) })
        } catch {
            return "policy: \(error.reason)"
        }
    }

    /// Who refuses a transaction, and why; nil: nobody.
    func refusal(_ requests: [AdminRequest], _ grants: [Grant], uid: UInt32 = 7) -> Transaction.Refused? {
        do throws(Transaction.Refused) {
            let allowances = try Allowances(requests, of: Peer(uid: uid), Policy(grants), configuration)
            _ = try Transaction(allowances.resolved(configuration), sight: Sight(allowances.reach)).prepare(configuration, view)
            return nil
        } catch { return error }
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
    private static let hidden = "answer \(TgtError.invalidRequest.rawValue) it cannot be done "
    static let foreign = ["blue", "200", "iqn.default", "only-default", "10.9.9.9", "10.0.0.1:", "srv/default"]

    /// Who may do what, in words that the code does not know: for each role what somebody who has it for the tenant `red` may do with what is red's,
    /// and with what is blue's. `y`: it is done. `n`: the policy refuses it. `w`: the policy refuses it, for it is about all tenants. `-`: there is no such thing.
    static let table = """
                                administrator  tenant-administrator  operator  auditor  observer
        system show             y y            y y                   y y       y y      y y
        system stat             y y            y y                   y y       y y      y y
        system update           w w            n n                   n n       n n      n n
        system delete           w w            n n                   n n       n n      n n
        target new              y -            y -                   n n       n n      n n
        target delete           y -            y -                   n n       n n      n n
        target show all         y y            y y                   y y       y y      y y
        target show             y -            y -                   y -       y -      y -
        target update           y -            y -                   y -       n n      n n
        target protect          y -            y -                   n n       n n      n n
        target protect mutual   y -            y -                   n n       n n      n n
        target bind             y -            y -                   n n       n n      n n
        target unbind           y -            y -                   n n       n n      n n
        target stat             y -            y -                   y -       y -      y -
        logicalunit new         y -            y -                   n n       n n      n n
        logicalunit delete      y -            y -                   n n       n n      n n
        logicalunit update      y -            y -                   y -       n n      n n
        logicalunit store       y -            y -                   n n       n n      n n
        logicalunit store path  y -            y -                   n n       n n      n n
        logicalunit stat        y -            y -                   y -       y -      y -
        portal show             y y            y y                   y y       y y      y y
        portal new              w w            n n                   n n       n n      n n
        portal delete           w w            n n                   n n       n n      n n
        portal update           w w            n n                   n n       n n      n n
        account new             y -            y -                   n n       n n      n n
        account delete          y -            y -                   n n       n n      n n
        account show            y y            y y                   y y       y y      n n
        account update          y -            y -                   n n       n n      n n
        account update retire   y -            y -                   n n       n n      n n
        account generate        y -            y -                   n n       n n      n n
        account bind            y -            y -                   n n       n n      n n
        account unbind          y -            y -                   n n       n n      n n
        account bind discovery  w w            w w                   n n       n n      n n
        session stat            y -            y -                   y -       y -      y -
        connection show         y -            y -                   y -       y -      y -
        connection delete       y -            y -                   y -       n n      n n
        connection stat         y -            y -                   y -       y -      y -
        lld show                y y            y y                   y y       y y      y y
        lld start               w w            n n                   n n       n n      n n
        lld stop                w w            n n                   n n       n n      n n
        access explain          y -            y -                   y -       y -      n n
        access show             w w            n n                   w w       w w      n n
        access delete           w w            n n                   n n       n n      n n
        policy explain self     y y            y y                   y y       y y      n n
        policy explain          w w            w w                   w w       w w      n n
        """

    /// The rows of the table: what it is about, and for each role what is expected of one's own and of another's.
    static func rows() throws -> [(what: String, expected: [(PolicyRole, own: Character, other: Character)])] {
        let roles: [PolicyRole] = [.administrator, .tenantAdministrator, .operator, .auditor, .observer]
        return try table.split(separator: "\n").dropFirst().map { line in
            let words = line.split(separator: " ")
            let letters = try words.suffix(10).map { word in try #require(word.count == 1 ? word.first : nil) }
            return (words.dropLast(10).joined(separator: " "), roles.enumerated().map { ($1, letters[2 * $0], letters[2 * $0 + 1]) })
        }
    }

    /// What an outcome is in the table.
    private static func letter(_ told: String) -> Character {
        if told.contains("has a role that may do this") { return "n" }
        if told.contains("it is about all tenants") { return "w" }
        return told.hasPrefix("answer 0") || told.hasPrefix("commit") || told.hasPrefix("perform") || told == "stop" ? "y" : "-"
    }

    @Test("Every role and every request, about its own tenant and another one, is as the table says; others' is as what is not there")
    func everything() throws {
        let world = try World()
        let rows = try Self.rows()
        let own = World.requests(100, sid: 100, tenant: nil), other = World.requests(200, sid: 200, tenant: utf8("blue"))
        let absent = World.requests(250, sid: 200, tenant: utf8("no-such"))
        #expect(Set(rows.map(\.what)) == Set(own.keys) && Set(own.values.flatMap(\.permissions)) == Set(Permission.all))
        var outcomes = 0
        for (what, expected) in rows {
            let (mine, theirs, nobodys) = try (#require(own[what]), #require(other[what]), #require(absent[what]))
            for (role, ownLetter, otherLetter) in expected {
                for format in [OutputFormat.text, .json] {
                    outcomes += 3
                    let told = world.outcome(mine, role, .tenants([red]), format)
                    #expect(Self.letter(told) == ownLetter, "\(role.name), \(what): \(told)")
                    for word in Self.foreign { #expect(!told.contains(word), "\(role.name), \(what): \(told)") }

                    let hidden = world.outcome(theirs, role, .tenants([red]), format)
                    // Nothing is done to what is others': what needs no object is done within one's own.
                    #expect(Self.letter(hidden) == otherLetter || otherLetter == "y" && theirs.tenant != nil && hidden.contains("there is no tenant"), "\(role.name), \(what): \(hidden)")
                    let nothing = world.outcome(nobodys, role, .tenants([red]), format)
                    #expect(
                        hidden.replacingOccurrences(["200", "201"], "N").replacingOccurrences(["blue"], "T")
                            == nothing.replacingOccurrences(["250", "251", "200"], "N").replacingOccurrences(["no-such", "blue"], "T"),
                        "\(role.name), \(what): \(hidden) / \(nothing)")

                    // With a grant for all, it is what the daemon does without any policy.
                    let everywhere = world.outcome(theirs, role, .all, format)
                    if ownLetter == "n" {
                        #expect(Self.letter(everywhere) == "n", "\(role.name), \(what): \(everywhere)")
                    } else if !what.hasPrefix("policy explain") {
                        #expect(everywhere == World.told(Administrator.plan(theirs, world.configuration, world.view, format: format)), "\(role.name), \(what)")
                    }
                }
            }
        }
        print("\(outcomes) outcomes of \(rows.count) requests")
        #expect(outcomes == 45 * 5 * 2 * 3)
    }

    @Test("Who has what is nobody's does nothing to what is a tenant's, whatever number and name are said")
    func outside() throws {
        let world = try World()
        let grants = [Grant([.uid(7)], .administrator, .tenants([.default]), authenticates: false)]
        for (tid, name) in [(250, "iqn.blue.new"), (250, "iqn.mine"), (5, "iqn.blue.new")] as [(Int32, String)] {
            let told = world.outcome(AdminRequest(.newTarget(tid: tid, name: utf8(name))), grants)
            #expect(told == Self.hidden && !told.contains("blue"), "\(tid) \(name): \(told)")
            let transaction = Transaction([AdminRequest(.newTarget(tid: tid, name: utf8(name)))], sight: Sight(.tenants([.default])))
            let refused = #expect(throws: Transaction.Refused.self) { try transaction.prepare(world.configuration, world.view) }
            #expect(refused?.reason == "it cannot be done")
        }
        #expect(world.outcome(AdminRequest(.newTarget(tid: 5, name: utf8("iqn.mine"))), grants).hasPrefix("commit"))
        // The account that opens discovery is the whole daemon's matter.
        #expect(world.outcome(AdminRequest(.deleteAccount(user: utf8("only-default"))), grants) == Self.hidden)
        #expect(world.outcome(AdminRequest(.deleteAccount(user: utf8("user"))), grants).hasPrefix("commit"))
    }

    @Test("Who sees a tenant alone hears of no file of the daemon's, nor what others' handshakes came to")
    func paths() throws {
        var world = try World()
        let endpoint = try PortalAddress(parsing: utf8("10.9.9.8:3260"))
        let parameters = [("tls", "required"), ("certificate", "/hidden/cert"), ("key", "/hidden/key"), ("client-ca", "/hidden/ca"), ("client-map", "/hidden/map")]
        _ = try world.configuration.addPortal(Portal(endpoint, parameters.map { PortalParameter(name: utf8($0.0), value: utf8($0.1)) }))
        var bounds = try #require(world.configuration.tenancy.tenants[red])
        bounds.portals = [endpoint]
        world.configuration.tenancy = Tenancy([red: bounds])
        world.view.hindrance = "/hidden/state: No space left on device"
        world.view.audit = RuntimeView.Audit(directory: "/hidden/audit", trouble: "/hidden/audit: Input/output error")
        var condition = RuntimeView.PortalCondition()
        condition.failedHandshakes = [("alert", 4711)]
        world.view.portals[endpoint] = condition
        for action in [AdminRequest.Action.showPortals, .showSystem] {
            for format in [OutputFormat.text, .json] {
                let request = AdminRequest(action)
                let theirs = world.outcome(request, .tenantAdministrator, .tenants([red]), format), all = world.outcome(request, .administrator, .all, format)
                #expect(theirs.hasPrefix("answer 0") && !theirs.contains("hidden") && !theirs.contains("4711"), "\(theirs)")
                #expect(all.contains("/hidden/"), "\(all)")
                if case .showSystem = action { #expect(theirs.contains("its administrators see why")) } else { #expect(theirs.contains("10.9.9.8") && theirs.contains("required")) }
            }
        }
    }

    @Test("What a target's number says counts for who may make one, whoever has such a number from before")
    func numberOfAnother() throws {
        var world = try World()
        let tenancy = world.configuration.tenancy
        world.configuration.tenancy = Tenancy()
        _ = try world.configuration.newTarget(#require(TargetID(rawValue: 150)), name: utf8("iqn.old"))
        world.configuration.tenancy = tenancy
        // Everything outside of the tenants, and looking at red's.
        let grants = [
            Grant([.uid(7)], .administrator, .tenants([.default]), authenticates: false), Grant([.uid(7)], .observer, .tenants([red]), authenticates: false),
        ]
        let requests = [AdminRequest(.deleteTarget(tid: 150, force: true)), AdminRequest(.newTarget(tid: 150, name: utf8("iqn.red.mine")))]
        #expect(world.refusal(requests, grants)?.request == 1)
    }

    @Test("Each request of a transaction is about whoever's its target is by then, and needs leave for that")
    func owners() throws {
        var world = try World()
        // One of red's from before there were tenants, with a number that is blue's.
        let tenancy = world.configuration.tenancy
        world.configuration.tenancy = Tenancy([red: TenantBounds(targetNames: [try NameRule(parsing: utf8("iqn.red.*"))], targetNumbers: 100...250, places: try StorePlaces(directories: []))])
        let id = try #require(TargetID(rawValue: 250))
        _ = try world.configuration.newTarget(id, name: utf8("iqn.red.old"))
        world.configuration.tenancy = tenancy
        #expect(world.configuration.targets[id]?.tenant == red)
        let makes = PolicyRole(name: "makes", permissions: [Permission(.target, .new)])
        let grants = [Grant([.uid(7)], .tenantAdministrator, .tenants([red]), authenticates: false), Grant([.uid(7)], makes, .tenants([blue]), authenticates: false)]
        let anew = [AdminRequest(.deleteTarget(tid: 250, force: true)), AdminRequest(.newTarget(tid: 250, name: utf8("iqn.blue.mine")))]
        let bound = AdminRequest(.bindInitiators(tid: 250, .init(address: utf8("ALL"))))
        #expect(world.refusal(anew, grants) == nil && world.refusal([bound] + anew, grants) == nil)
        #expect(world.refusal(anew + [bound], grants)?.request == 2)
        #expect(world.refusal(anew + [AdminRequest(.deleteTarget(tid: 250, force: true))], grants)?.request == 2)
        // And who may do that with what is blue's may do it with what has just been made, too.
        let whole = grants + [Grant([.uid(7)], .tenantAdministrator, .tenants([blue]), authenticates: false)]
        #expect(world.refusal(anew + [bound], whole) == nil)
        #expect(world.refusal(anew + [bound], [Grant([.uid(7)], .tenantAdministrator, .tenants([blue]), authenticates: false)])?.request == 0)
    }

    @Test("A transaction is what all of its requests are: the first that is refused refuses it, and an empty one is for those who may do something")
    func mixed() throws {
        let world = try World()
        let update = AdminRequest.Setting(name: utf8("nop_count"), value: utf8("3"))
        func updating(_ tid: Int32) -> AdminRequest { AdminRequest(.updateTarget(tid: tid, update)) }
        func deleting(_ tid: Int32) -> AdminRequest { AdminRequest(.deleteTarget(tid: tid, force: true)) }
        // May change all of red's, and only update blue's.
        let grants = [Grant([.uid(7)], .tenantAdministrator, .tenants([red]), authenticates: false), Grant([.uid(7)], .operator, .tenants([blue]), authenticates: true)]
        #expect(world.refusal([deleting(100), updating(200)], grants) == nil)
        let other = world.refusal([updating(200), deleting(200)], grants)
        #expect(other?.request == 1 && other?.error == .noTarget && other?.reason == "there is no target 200")
        let third = world.refusal([updating(100), updating(1)], grants)
        #expect(third?.request == 1 && third?.reason == "there is no target 1")
        #expect(world.refusal([updating(100), AdminRequest(.deleteSystem)], grants)?.error == .unsupportedOperation)
        #expect(try Allowances([updating(100), updating(200)], of: Peer(uid: 7), Policy(grants), world.configuration).authenticates)
        #expect(try !Allowances([updating(100), deleting(100)], of: Peer(uid: 7), Policy(grants), world.configuration).authenticates)
        #expect(world.refusal([], grants) == nil && world.refusal([], grants, uid: 8)?.reason == "the policy has no grant for this user")
    }

    @Test("A change is made in the whole configuration, and an account of the same name elsewhere stays as it is")
    func accounts() throws {
        let world = try World()
        let request = AdminRequest(.deleteAccount(user: utf8("user")))
        let allowances = try Allowances([request], of: Peer(uid: 7), Policy([Grant([.uid(7)], .tenantAdministrator, .tenants([red]), authenticates: false)]), world.configuration)
        let resolved = try #require(allowances.resolved(world.configuration).first)
        guard case .commit(let new, _, _) = Sight(allowances.reach).plan(world.configuration, world.view, { Administrator.plan(resolved, $0, $1) }) else {
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

    @Test("A tenant has as many targets, logical units and accounts as it may, and not one more, one by one and together", arguments: [0, 1, 2])
    func limits(kind: Int) throws {
        var world = try World()
        // It has one target, one disk and three accounts; two more of each are allowed.
        var limits = TenantLimits()
        (limits.targets, limits.logicalUnits, limits.accounts) = (3, 3, 5)
        world.configuration.tenancy = Tenancy(world.configuration.tenancy.tenants.mapValues { bounds in
            var bounds = bounds
            bounds.limits = limits
            return bounds
        })
        func request(_ index: Int) -> AdminRequest {
            var unit = AdminRequest.NewLogicalUnit()
            (unit.bstype, unit.path) = (utf8("null"), utf8("/srv/x"))
            return switch kind {
            case 0: AdminRequest(.newTarget(tid: Int32(101 + index), name: utf8("iqn.red.\(index)")))
            case 1: AdminRequest(.newLogicalUnit(tid: 100, lun: UInt64(2 + index), unit))
            default: AdminRequest(tenant: utf8("red"), .newAccount(user: utf8("u\(index)"), password: utf8("secret of twelve"), allowWeak: false))
            }
        }
        let name = ["targets", "logical-units", "accounts"][kind], most = [3, 3, 5][kind]
        // Whoever asks: somebody of the tenant, and somebody for all.
        for sight in [Sight(.tenants([red])), .everything] {
            var configuration = world.configuration
            for index in 0..<2 {
                guard case .commit(let new, _, _) = sight.plan(configuration, world.view, { Administrator.plan(request(index), $0, $1) }) else {
                    Issue.record("\(name) \(index) is refused")
                    return
                }
                configuration = new
            }
            let above = World.told(sight.plan(configuration, world.view) { Administrator.plan(request(2), $0, $1) })
            #expect(above.contains("tenant red may have \(most) \(name)"), "\(above)")
            // Others have their own.
            guard case .commit = Sight.everything.plan(configuration, world.view, { Administrator.plan(AdminRequest(.newTarget(tid: 201, name: utf8("iqn.blue.2"))), $0, $1) }) else {
                Issue.record("another tenant is refused")
                return
            }
            func together(_ count: Int) -> String? {
                do throws(Transaction.Refused) {
                    _ = try Transaction((0..<count).map(request), sight: sight).prepare(world.configuration, world.view)
                    return nil
                } catch { return error.reason }
            }
            #expect(together(1) == nil && together(2) == nil && together(3) == "tenant red may have \(most) \(name)")
        }
        // Who has more than it may from before keeps it, and gets no more.
        limits = TenantLimits()
        (limits.targets, limits.logicalUnits, limits.accounts) = (0, 0, 0)
        world.configuration.tenancy = Tenancy(world.configuration.tenancy.tenants.mapValues { bounds in
            var bounds = bounds
            bounds.limits = limits
            return bounds
        })
        #expect(World.told(Sight.everything.plan(world.configuration, world.view) { Administrator.plan(request(0), $0, $1) }).contains("may have 0 \(name)"))
        guard case .commit = Sight.everything.plan(world.configuration, world.view, { Administrator.plan(AdminRequest(.updateTarget(tid: 100, .init(name: utf8("nop_count"), value: utf8("3")))), $0, $1) }) else {
            Issue.record("it cannot change what it has")
            return
        }
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
