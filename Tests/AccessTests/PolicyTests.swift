import Model
import Testing
@testable import Access

private let red = Tenant(name: "red"), blue = Tenant(name: "blue")
private let all = Set(Permission.all)
private func only(_ words: [String: String]) -> Set<Permission> {
    Set(words.flatMap { mode, operations in
        operations.split(separator: " ").compactMap { operation in
            guard let mode = Permission.Mode(rawValue: mode), let operation = Permission.Operation(rawValue: String(operation)) else { return Permission?.none }
            return Permission(mode, operation)
        }
    })
}

@Suite struct PolicyTests {
    /// What each shipped role may, once more, in words.
    static let roles: [(PolicyRole, Set<Permission>)] = [
        (.administrator, only([
            "system": "show stat update delete", "target": "new delete show update protect bind unbind stat", "logicalunit": "new delete update store stat",
            "portal": "new delete show update", "account": "new delete show update bind unbind generate", "session": "stat",
            "connection": "delete show stat", "lld": "show start stop", "access": "explain show delete", "policy": "explain",
        ])),
        (.tenantAdministrator, only([
            "system": "show stat", "target": "new delete show update protect bind unbind stat", "logicalunit": "new delete update store stat", "portal": "show",
            "account": "new delete show update bind unbind generate", "session": "stat", "connection": "delete show stat", "lld": "show",
            "access": "explain", "policy": "explain",
        ])),
        (.operator, only([
            "system": "show stat", "target": "show update stat", "logicalunit": "update stat", "portal": "show", "account": "show", "session": "stat",
            "connection": "delete show stat", "lld": "show", "access": "explain show", "policy": "explain",
        ])),
        (.auditor, only([
            "system": "show stat", "target": "show stat", "logicalunit": "stat", "portal": "show", "account": "show", "session": "stat",
            "connection": "show stat", "lld": "show", "access": "explain show", "policy": "explain",
        ])),
        (.observer, only([
            "system": "show stat", "target": "show stat", "logicalunit": "stat", "portal": "show", "session": "stat", "connection": "show stat", "lld": "show",
        ])),
    ]
    /// What is about the daemon as a whole, once more.
    static let whole = only(["system": "update delete", "portal": "new delete update", "lld": "start stop", "access": "show delete"])

    @Test("Every role, with every permission, about its own tenant, another one, nobody's and the whole: for one tenant, for all")
    func everything() {
        #expect(Set(Self.roles.map(\.0)) == Set(PolicyRole.shipped))
        var decisions = 0
        for (role, permissions) in Self.roles {
            for reach in [Reach.all, .tenants([red])] {
                for authenticates in [false, true] {
                    let grant = Grant([.uid(7)], role, reach, authenticates: authenticates)
                    let policy = Policy([grant])
                    for permission in all {
                        for object in [ManagementQuestion.Object.tenant(red), .tenant(blue), .tenant(.default), .list, .whole, .unnamedTenant] {
                            decisions += 1
                            let question = ManagementQuestion(permission, object)
                            #expect(decide(Peer(uid: 8), question, policy) == .refused(.nobody))
                            let decision = decide(Peer(uid: 7), question, policy)
                            let isWhole = object == .whole || Self.whole.contains(permission)
                            guard permissions.contains(permission) else {
                                #expect(decision == .refused(.permission), "\(role.name) \(permission)")
                                continue
                            }
                            guard reach == .all || !isWhole else {
                                #expect(decision == .refused(.whole), "\(role.name) \(permission)")
                                continue
                            }
                            let allowance = decision.allowance
                            #expect(allowance?.reach == reach && allowance?.authenticates == authenticates && allowance?.grants == [grant], "\(role.name) \(permission)")
                            let isOwn = isWhole || reach == .all || object == .tenant(red) || object == .list || object == .unnamedTenant
                            #expect(allowance?.reachesObject == isOwn, "\(role.name) \(permission) \(object)")
                        }
                    }
                }
            }
        }
        print("\(decisions) decisions")
    }

    @Test("Who a grant is for: by name and number, of users and groups, byte for byte")
    func subjects() {
        let peer = Peer(uid: 5, user: Array("DOM\\al ice".utf8), gids: [50], groups: [Array("st".utf8)])
        for (subject, isOne) in [
            (Subject.user(Array("DOM\\al ice".utf8)), true), (.user(Array("DOM\\al".utf8)), false), (.uid(5), true), (.uid(50), false), (.gid(50), true), (.gid(5), false),
            (.group(Array("st".utf8)), true), (.group(Array("ST".utf8)), false), (.user(Array("st".utf8)), false), (.group(Array("DOM\\al ice".utf8)), false),
        ] { #expect(peer.isOne(of: [subject]) == isOne, "\(subject)") }
        // Without a name, no name is its.
        #expect(!Peer(uid: 5).isOne(of: [.user([])]))
    }

    @Test("Of several grants those count that reach the object, and of these the ones without authentication")
    func several() {
        let show = Permission(.target, .show)
        let peer = Peer(uid: 7)
        func grant(_ reach: Reach, _ authenticates: Bool, _ role: PolicyRole = .observer) -> Grant { Grant([.uid(7)], role, reach, authenticates: authenticates) }
        func allowance(_ grants: [Grant], _ object: ManagementQuestion.Object) -> ManagementDecision.Allowance? {
            decide(peer, ManagementQuestion(show, object), Policy(grants)).allowance
        }
        let (a, b, everywhere) = (grant(.tenants([red]), false), grant(.tenants([blue]), true), grant(.all, true))
        #expect(allowance([a, b], .list)?.reach == .tenants([red]) && allowance([a, b], .list)?.authenticates == false)
        #expect(allowance([a, b], .tenant(blue))?.reach == .tenants([blue]) && allowance([a, b], .tenant(blue))?.authenticates == true)
        #expect(allowance([a, everywhere], .tenant(blue))?.reach == .all && allowance([a, everywhere], .tenant(red))?.reach == .tenants([red]))
        // Of what is others' there is nothing, whatever may be seen elsewhere.
        #expect(allowance([a, b], .tenant(.default))?.reachesObject == false)
        #expect(decide(peer, ManagementQuestion(Permission(.account, .new), .unnamedTenant), Policy([grant(.tenants([red]), false, .tenantAdministrator), grant(.tenants([blue]), false, .tenantAdministrator)])) == .refused(.tenantNotNamed))
        #expect(allowance([a], .unnamedTenant)?.tenant == red && allowance([everywhere], .unnamedTenant)?.tenant == .default)
    }

    @Test("What needs several permissions needs one role that has them all")
    func together() {
        let (update, store) = (Permission(.logicalunit, .update), Permission(.logicalunit, .store))
        func role(_ permissions: Set<Permission>) -> Grant { Grant([.uid(7)], PolicyRole(name: "r", permissions: permissions), .all, authenticates: false) }
        func isAllowed(_ grants: [Grant]) -> Bool { decide(Peer(uid: 7), ManagementQuestion([update, store], .list), Policy(grants)).allowance != nil }
        #expect(isAllowed([role([update, store])]) && !isAllowed([role([update])]) && !isAllowed([role([store])]) && !isAllowed([role([update]), role([store])]))
    }

    @Test("Without a policy, our own user may do everything, and PAM is not asked")
    func own() {
        let policy = Policy.own(uid: 3)
        #expect(!policy.asksPAM)
        for permission in all {
            #expect(decide(Peer(uid: 3), ManagementQuestion(permission, .whole), policy).allowance?.reach == .all)
            #expect(decide(Peer(uid: 0), ManagementQuestion(permission, .list), policy) == .refused(.nobody))
        }
    }
}
