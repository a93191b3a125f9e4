import Access
import Crypto
import Glibc
import ISCSI
import Management
import Model
import Testing

@testable import Administration

private let red = Tenant(name: "red")

/// What a transaction costs control's loop is a matter of its requests, and not of what else there is.
@Suite(.serialized) struct ProportionTests {
    /// Seconds of the processor that it takes, the best of some.
    private static func cost(_ work: () throws -> Void) rethrows -> Double {
        func now() -> Double {
            var time = timespec()
            _ = unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
            return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        }
        return try (0..<3).map { _ in
            let start = now()
            try work()
            return now() - start
        }.min() ?? 0
    }

    /// So many accounts of a tenant, each bound to a target of its own; and nobody's targets.
    private static func world(accounts: Int = 4, targets: Int = 0, tenants: Int = 1) throws -> Configuration {
        var configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16), keepsTgtDefaults: true))
        var all: [Tenant: TenantBounds] = [:]
        for number in 0..<tenants {
            let tenant = number == 0 ? red : Tenant(name: "tenant-\(number)")
            let first = Int32(100_000 + number * 100)
            var bounds = TenantBounds(
                targetNames: [try NameRule(parsing: utf8("iqn.\(tenant.name).*"))], targetNumbers: first...first + 99,
                places: try StorePlaces(directories: [StorePath(utf8("/srv/\(tenant.name)"))]))
            (bounds.limits.targets, bounds.limits.accounts) = (1000, 60_000)
            all[tenant] = bounds
        }
        configuration.tenancy = Tenancy(all)
        for number in 0..<accounts { _ = try configuration.newAccount(AccountName(utf8("a\(number)")), secret: Secret(utf8("secret of twelve")), tenant: red) }
        for number in 0..<targets { _ = try configuration.newTarget(#require(TargetID(rawValue: Int32(number + 1))), name: utf8("iqn.x:\(number)")) }
        return configuration
    }

    private static func policy(grants: Int) -> Policy {
        let others = (0..<grants).map { Grant([.uid(7)], .tenantAdministrator, .tenants([Tenant(name: "t\($0)")]), authenticates: false) }
        return Policy(others + [Grant([.uid(7)], .tenantAdministrator, .tenants([red]), authenticates: false)])
    }

    private static func transact(_ requests: [AdminRequest], _ configuration: Configuration, _ policy: Policy) throws {
        let allowances = try Allowances(requests, of: Peer(uid: 7), policy, configuration)
        let transaction = Transaction(try allowances.resolved(configuration), sight: Sight(allowances.reach))
        let needs = try transaction.prepare(configuration, RuntimeView())
        #expect(try !transaction.commit(needs, [:], configuration, RuntimeView()).changes.isEmpty)
    }

    private static func accountRequests(_ count: Int) -> [AdminRequest] {
        (0..<count).map { AdminRequest(tenant: utf8("red"), .newAccount(user: utf8("new\($0)"), password: utf8("secret of twelve"), allowWeak: false)) }
    }

    @Test("Accounts that are there already cost a transaction nothing to speak of")
    func accounts() throws {
        let requests = Self.accountRequests(1000)
        let few = try Self.world(accounts: 1000), many = try Self.world(accounts: 8000)
        let (one, other) = try (Self.cost { try Self.transact(requests, few, Self.policy(grants: 1)) }, Self.cost { try Self.transact(requests, many, Self.policy(grants: 1)) })
        print("a transaction of 1000 requests with 1000 accounts: \(one) s, with 8000: \(other) s")
        #expect(other < 3 * one)
    }

    @Test("Grants are gone through once, not for each request")
    func grants() throws {
        let requests = Self.accountRequests(1000), world = try Self.world()
        let (one, other) = try (Self.cost { try Self.transact(requests, world, Self.policy(grants: 10)) }, Self.cost { try Self.transact(requests, world, Self.policy(grants: 320)) })
        print("a transaction of 1000 requests under 10 grants: \(one) s, under 320: \(other) s")
        #expect(other < 2 * one)
    }

    @Test("An account that goes is looked for where it is bound, not at every target; and what tenants have is counted once")
    func targets() throws {
        let requests = (0..<1000).map { AdminRequest(tenant: utf8("red"), .deleteAccount(user: utf8("a\($0)"))) }
        let few = try Self.world(accounts: 1000, targets: 1000), many = try Self.world(accounts: 1000, targets: 8000)
        let (one, other) = try (Self.cost { try Self.transact(requests, few, Self.policy(grants: 1)) }, Self.cost { try Self.transact(requests, many, Self.policy(grants: 1)) })
        print("a transaction of 1000 requests with 1000 targets: \(one) s, with 8000: \(other) s")
        #expect(other < 3 * one)

        let lone = try Self.world(targets: 4000), shared = try Self.world(targets: 4000, tenants: 200)
        let (less, more) = try (Self.cost { try lone.checkLimits(since: lone) }, Self.cost { try shared.checkLimits(since: shared) })
        print("4000 targets are counted for one tenant: \(less) s, for 200: \(more) s")
        #expect(more < 5 * less)
    }

    @Test("Where an account is bound is known after every change, and after it has gone")
    func bound() throws {
        var configuration = try Self.world(accounts: 2)
        let ids = try [100_001, 100_002].map { try #require(TargetID(rawValue: $0)) }
        for id in ids { _ = try configuration.newTarget(id, name: utf8("iqn.red.\(id)")) }
        let (a, b) = (try AccountName(utf8("a0")), try AccountName(utf8("a1")))
        _ = try configuration.bindAccount(a, to: ids[0], outgoing: false)
        _ = try configuration.bindAccount(a, to: ids[0], outgoing: false, for: ISCSIName(utf8("iqn.h")))
        _ = try configuration.bindAccount(a, to: ids[1], outgoing: false)
        #expect(configuration.targets(of: a, tenant: red) == Set(ids) && configuration.targets(of: b, tenant: red) == [] && configuration.targets(of: a) == [])
        _ = try configuration.unbindAccount(a, from: ids[0], outgoing: false, for: ISCSIName(utf8("iqn.h")))
        #expect(configuration.targets(of: a, tenant: red) == Set(ids))
        _ = try configuration.unbindAccount(a, from: ids[0], outgoing: false)
        #expect(configuration.targets(of: a, tenant: red) == [ids[1]])
        let bound = configuration
        _ = try configuration.deleteTarget(ids[1])
        #expect(configuration.targets(of: a, tenant: red) == [])
        configuration = bound
        #expect(try configuration.deleteAccount(a, tenant: red) == [.accountChanged(Account.Key(tenant: red, name: a)), .accountsChanged(ids[1])])
        #expect(configuration.targets(of: a, tenant: red) == [] && configuration.targets[ids[1]]?.accounts.isEmpty == true)
        #expect(bound.seen(by: [red]).targets(of: a, tenant: red) == [ids[1]] && bound.seen(by: [.default]).targets(of: a, tenant: red) == [])
    }
}
