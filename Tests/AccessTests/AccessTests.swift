import Crypto
import ISCSI
import Model
import SCSI
import Testing

@testable import Access

func utf8(_ text: String) -> [UInt8] { Array(text.utf8) }
func address(_ text: String) -> NetworkAddress { NetworkAddress(parsing: utf8(text))! }
func name(_ text: String) throws -> ISCSIName { try ISCSIName(utf8(text)) }
let one = TargetID(rawValue: 1)!

func configuration(_ addresses: [String], _ names: [String]) throws -> Configuration {
    var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
    _ = try configuration.newTarget(one, name: utf8("iqn.t"))
    _ = try configuration.bind(try addresses.map { try AddressRule(parsing: utf8($0)) }, try names.map { try NameRule(parsing: utf8($0)) }, to: one)
    return configuration
}

@Suite("who may log in")
struct LoginTests {
    static let table: [(addresses: [String], names: [String], initiator: String, from: String, refusal: AccessDecision.Refusal?)] = [
        ([], [], "iqn.i", "127.0.0.1", .noRules),
        (["ALL"], [], "iqn.i", "127.0.0.1", nil),
        (["ALL"], [], "iqn.i", "2001:db8::1", nil),
        (["10.0.0.1"], [], "iqn.i", "10.0.0.1", nil),
        (["10.0.0.1"], [], "iqn.i", "10.0.0.2", .address),
        (["10.0.0.1"], [], "iqn.i", "::ffff:10.0.0.1", nil),
        (["::ffff:10.0.0.1"], [], "iqn.i", "10.0.0.1", nil),
        (["10.0.0.1", "10.0.0.2"], [], "iqn.i", "10.0.0.2", nil),
        (["0.0.0.0/0"], [], "iqn.i", "10.0.0.2", nil),
        (["0.0.0.0/0"], [], "iqn.i", "::1", .address),
        (["::/0"], [], "iqn.i", "::1", nil),
        (["::/0"], [], "iqn.i", "10.0.0.1", .address),
        (["::/0"], [], "iqn.i", "::ffff:10.0.0.1", .address),
        ([], ["iqn.i"], "iqn.i", "10.0.0.1", nil),
        ([], ["iqn.i"], "IQN.I", "10.0.0.1", nil),
        ([], ["IQN.I"], "iqn.i", "10.0.0.1", nil),
        ([], ["iqn.i"], "iqn.ii", "10.0.0.1", .name),
        ([], ["iqn.ii"], "iqn.i", "10.0.0.1", .name),
        ([], ["iqn.a", "iqn.b*"], "iqn.bcd", "10.0.0.1", nil),
        ([], ["ALL"], "iqn.i", "10.0.0.1", .name),
        (["ALL"], ["iqn.i"], "iqn.i", "10.0.0.1", nil),
        (["ALL"], ["iqn.i"], "iqn.x", "10.0.0.1", .name),
        (["10.0.0.0/8"], ["iqn.i"], "iqn.i", "11.0.0.1", .address),
        (["10.0.0.0/8"], ["iqn.i"], "iqn.x", "10.0.0.1", .name),
        (["10.0.0.0/8"], ["iqn.i"], "iqn.i", "10.0.0.1", nil),
    ]

    @Test("the rules of one kind: one must match; addresses and names: one of each", arguments: table.indices)
    func rules(index: Int) throws {
        let row = Self.table[index]
        let decision = decideLogin(
            try configuration(row.addresses, row.names), targetName: try name("iqn.t"), initiator: try name(row.initiator), address: address(row.from))
        if let refusal = row.refusal { #expect(decision == .refused(refusal)) } else { #expect(decision.isAdmitted) }
    }

    @Test("the decision says which rules admitted: of each kind the most specific one that matches, among equals the first", arguments: [
        (["ALL", "10.0.0.0/8"], "10.0.0.0/8", ["x", "iqn.*", "iqn.i"], "iqn.i"),
        (["10.0.0.0/8", "ALL"], "10.0.0.0/8", ["iqn.i", "iqn.*"], "iqn.i"),
        (["0.0.0.0/0", "10.1.1.1", "10.1.1.0/24", "10.1.0.0/16"], "10.1.1.1", ["*", "iqn.*", "iqn.?"], "iqn.*"),
        (["10.1.1.2", "10.1.0.0/16", "10.1.1.0/31"], "10.1.1.0/31", ["iqn.?", "iqn.*"], "iqn.?"),
        (["ALL", "0.0.0.0/0"], "0.0.0.0/0", ["?qn.i", "i*", "iqn.ii*"], "i*"),
        (["::/0", "ALL"], "ALL", ["*i", "?qn.i"], "*i"),
    ])
    func explained(addresses: [String], address rule: String, names: [String], name pattern: String) throws {
        let configuration = try configuration(addresses, names)
        let decision = decideLogin(configuration, targetName: try name("iqn.T"), initiator: try name("iqn.i"), address: address("10.1.1.1"))
        #expect(decision == .admitted([.address(try AddressRule(parsing: utf8(rule))), .name(try NameRule(parsing: utf8(pattern)))]))
    }

    @Test("what TLS has proved has to be the initiator's name, and a target that requires TLS is not there in clear", arguments: [
        (Channel.clear, false, AccessDecision.Refusal?.none, "iqn.t"), (.clear, true, .tlsRequired, ""),
        (.tls(.anybody), false, nil, "iqn.t"), (.tls(.anybody), true, nil, "iqn.t"),
        (.tls(.initiator(try! name("IQN.I"))), true, nil, "iqn.t"), (.tls(.initiator(try! name("iqn.ii"))), false, .otherIdentity, ""),
        (.tls(.stranger), false, .otherIdentity, ""), (.tls(.stranger), true, .otherIdentity, ""),
    ])
    func channels(channel: Channel, isRequired: Bool, refusal: AccessDecision.Refusal?, listed: String) throws {
        var configuration = try configuration(["ALL"], [])
        _ = try configuration.updateTarget(one, name: utf8("RequireTLS"), value: utf8(isRequired ? "Yes" : "No"))
        let (initiator, from) = (try name("iqn.i"), address("10.0.0.1"))
        let decision = decideLogin(configuration, targetName: try name("iqn.t"), initiator: initiator, address: from, channel: channel)
        if let refusal { #expect(decision == .refused(refusal) && refusal.loginStatus == .notFound) } else { #expect(decision.isAdmitted) }
        let found = discoverable(configuration, initiator: initiator, address: from, channel: channel)
        #expect(found.map(\.name.spelling) == (listed.isEmpty ? [] : [listed]))
        #expect(decideDiscovery(configuration, initiator: initiator, channel: channel).isAdmitted == (refusal != .otherIdentity))
        if refusal == .otherIdentity {
            // Whether the target is there is none of its business.
            #expect(decideLogin(configuration, targetName: try name("iqn.x"), initiator: initiator, address: from, channel: channel) == .refused(.otherIdentity))
        }
    }

    @Test("one target that is asked for costs as much as one, however many there are, and is what the list says of it")
    func named() throws {
        func cost(_ count: Int32) throws -> Duration {
            var configuration = try configuration(["ALL"], [])
            for number in 2...count {
                let id = try #require(TargetID(rawValue: number))
                _ = try configuration.newTarget(id, name: utf8("iqn.t:\(number)"))
                if number % 2 == 0 { _ = try configuration.bind([AddressRule(parsing: utf8("ALL"))], [], to: id) }
            }
            let (initiator, from) = (try name("iqn.i"), address("10.0.0.1"))
            let all = discoverable(configuration, initiator: initiator, address: from).map(\.name)
            for wanted in [try name("iqn.t"), try name("iqn.t:2"), try name("iqn.t:3"), try name("iqn.x")] {
                #expect(discoverable(configuration, named: wanted, initiator: initiator, address: from).map(\.name) == (all.contains(wanted) ? [wanted] : []))
            }
            let last = try name("iqn.t:\(count)")
            return (0..<5).map { _ in
                ContinuousClock().measure { for _ in 0..<200 { _ = discoverable(configuration, named: last, initiator: initiator, address: from) } }
            }.min() ?? .zero
        }
        let (few, many) = (try cost(16), try cost(4096))
        print("200 questions for one target of 16: \(few), of 4096: \(many)")
        #expect(many < few * 10)
    }

    @Test("what is shown is what each of the deciding rules shows; others that match count for nothing")
    func masks() throws {
        var configuration = try configuration([], [])
        func bind(_ address: String?, _ pattern: String?, _ luns: String) throws {
            _ = try configuration.bind(
                try address.map { [try AddressRule(parsing: utf8($0))] } ?? [], try pattern.map { [try NameRule(parsing: utf8($0))] } ?? [],
                mask: try LUNMask(parsing: utf8(luns)), to: one)
        }
        func shown(_ initiator: String, _ from: String) throws -> String? {
            decide(try configuration.target(one), initiator: try name(initiator), address: address(from)).mask?.description
        }
        try bind("ALL", nil, "all")
        try bind("10.0.0.0/8", nil, "0-9:ro")
        try bind("10.1.0.0/16", nil, "2-20")
        #expect(try shown("iqn.i", "10.1.1.1") == "2-20" && shown("iqn.i", "10.2.1.1") == "0-9:ro" && shown("iqn.i", "::1") == "all")
        try bind(nil, "iqn.*", "all:ro")
        try bind(nil, "iqn.i", "0-4,19-30")
        #expect(try shown("iqn.i", "10.1.1.1") == "2-4,19-20" && shown("iqn.i", "10.2.1.1") == "0-4:ro" && shown("iqn.i", "::1") == "0-4,19-30")
        #expect(try shown("iqn.j", "10.1.1.1") == "2-20:ro" && shown("x", "10.1.1.1") == nil)
        try bind(nil, "iqn.none", "100")
        #expect(try shown("iqn.none", "10.1.1.1") == "none")
    }

    @Test("whoever no rule admits learns neither that the target exists nor its state")
    func statuses() throws {
        var configuration = try configuration(["10.0.0.1"], [])
        func decide(_ from: String, _ target: String = "iqn.t") throws -> AccessDecision {
            decideLogin(configuration, targetName: try name(target), initiator: try name("iqn.i"), address: address(from))
        }
        #expect(try decide("10.0.0.1", "iqn.other") == .refused(.noTarget))
        _ = try configuration.updateTarget(one, name: utf8("state"), value: utf8("offline"))
        #expect(try decide("10.0.0.1") == .refused(.offline))
        #expect(try decide("10.0.0.2") == .refused(.address))
        _ = try configuration.updateTarget(one, name: utf8("state"), value: utf8("ready"))
        _ = try configuration.updateSystem(name: utf8("State"), value: utf8("offline"))
        #expect(try decide("10.0.0.1") == .refused(.offline))
        let statuses: [(AccessDecision.Refusal, LoginStatus)] = [
            (.noRules, .notFound), (.address, .notFound), (.name, .notFound), (.noTarget, .notFound), (.authenticationRequired, .authenticationFailure), (.offline, .serviceUnavailable),
        ]
        for (refusal, status) in statuses { #expect(refusal.loginStatus == status) }
    }

    @Test("a tenant's target is there at the tenant's portals alone, to log in to and in the list")
    func portals() throws {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
        func bounds(_ name: String, _ numbers: ClosedRange<Int32>, _ portals: [String]) throws -> TenantBounds {
            TenantBounds(
                targetNames: [try NameRule(parsing: utf8("iqn.\(name).*"))], targetNumbers: numbers, places: .nowhere,
                portals: try portals.map { try PortalAddress(parsing: utf8($0)) })
        }
        configuration.tenancy = Tenancy([
            Tenant(name: "red"): try bounds("red", 10...19, ["10.0.0.1:3260", "[::]:3261"]), Tenant(name: "blue"): try bounds("blue", 20...29, []),
        ])
        for (number, target) in [(1, "iqn.t"), (10, "iqn.red.t"), (20, "iqn.blue.t")] as [(Int32, String)] {
            let id = try #require(TargetID(rawValue: number))
            _ = try configuration.newTarget(id, name: utf8(target))
            _ = try configuration.bind([AddressRule(parsing: utf8("ALL"))], [], to: id)
        }
        for (local, isThere) in [
            ("10.0.0.1:3260", true), ("10.0.0.1:3261", false), ("10.0.0.2:3260", false), ("[::1]:3261", true), ("[2001:db8::1]:3261", true), ("[::1]:3260", false), ("0.0.0.0:3260", false),
        ] {
            let here = try PortalAddress(parsing: utf8(local))
            func decide(_ target: String) throws -> AccessDecision {
                decideLogin(configuration, targetName: try name(target), initiator: try name("iqn.i"), address: address("10.1.1.1"), local: here)
            }
            #expect(try decide("iqn.red.t") == (isThere ? .admitted([.address(AddressRule(parsing: utf8("ALL")))]) : .refused(.portal)), "\(local)")
            #expect(try decide("iqn.t").isAdmitted && decide("iqn.blue.t").isAdmitted && decide("iqn.red.x") == .refused(.noTarget))
            let listed = discoverable(configuration, initiator: try name("iqn.i"), address: address("10.1.1.1"), local: here).map(\.id.rawValue)
            #expect(listed == (isThere ? [1, 10, 20] : [1, 20]), "\(local)")
        }
        #expect(AccessDecision.Refusal.portal.loginStatus == .notFound)
        #expect(try decideLogin(configuration, targetName: name("iqn.red.t"), initiator: name("iqn.i"), address: address("10.1.1.1")).isAdmitted)
    }

    @Test("an account of discovery is nobody's of a tenant who has one of that name")
    func discoveryAccount() throws {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
        let red = Tenant(name: "red"), user = try AccountName(utf8("u"))
        configuration.tenancy = Tenancy([red: TenantBounds(targetNames: [try NameRule(parsing: utf8("iqn.red.*"))], targetNumbers: 10...19, places: .nowhere)])
        for (number, target, tenant) in [(1, "iqn.t", .default), (10, "iqn.red.t", red)] as [(Int32, String, Tenant)] {
            let id = try #require(TargetID(rawValue: number))
            _ = try configuration.newTarget(id, name: utf8(target))
            _ = try configuration.bind([AddressRule(parsing: utf8("ALL"))], [], to: id)
            _ = try configuration.newAccount(user, secret: Secret(utf8("a secret of \(target)")), tenant: tenant)
            _ = try configuration.bindAccount(user, to: id, outgoing: false)
        }
        let listed = discoverable(configuration, initiator: try name("iqn.i"), address: address("10.1.1.1"), account: user).map(\.id.rawValue)
        #expect(listed == [1])
    }

    @Test("an account admits to the targets it is bound to, for the initiator that it is bound for")
    func authenticated() throws {
        var configuration = try configuration(["ALL"], ["iqn.*"])
        let (user, other) = (try AccountName(utf8("u")), try AccountName(utf8("o")))
        for account in [user, other] { _ = try configuration.newAccount(account, secret: Secret(utf8("a secret of \(account)"))) }
        func decide(_ account: AccountName?, _ initiator: String = "iqn.i") throws -> AccessDecision {
            decideLogin(configuration, targetName: try name("iqn.t"), initiator: try name(initiator), address: address("::1"), account: account)
        }
        #expect(try decide(nil).isAdmitted && decide(user).isAdmitted)
        _ = try configuration.bindAccount(user, to: one, outgoing: false, for: try name("IQN.I"))
        #expect(try decide(user).isAdmitted)
        #expect(try decide(user, "iqn.j") == .refused(.account) && decide(other) == .refused(.account) && decide(nil) == .refused(.authenticationRequired))
        #expect(try decide(user, "x") == .refused(.name))
        _ = try configuration.bindAccount(user, to: one, outgoing: false, for: try name("iqn.j"))
        #expect(try decide(user, "iqn.j").isAdmitted && decide(user, "iqn.k") == .refused(.account))
        _ = try configuration.bindAccount(other, to: one, outgoing: true)
        #expect(try decide(other) == .refused(.account))
        _ = try configuration.unbindAccount(other, from: one, outgoing: true)
        // Bound for all, but not with a name that is somebody's.
        _ = try configuration.bindAccount(other, to: one, outgoing: false)
        #expect(try decide(other, "iqn.k").isAdmitted && decide(other) == .refused(.account) && decide(other, "iqn.J") == .refused(.account))
        #expect(try decide(user).isAdmitted && decide(user, "iqn.k") == .refused(.account))
        _ = try configuration.unbindAccount(other, from: one, outgoing: false)
        _ = try configuration.unbindAccount(user, from: one, outgoing: false, for: try name("iqn.j"))
        #expect(try decide(user, "iqn.j") == .refused(.account) && decide(user).isAdmitted)
        _ = try configuration.updateTarget(one, name: utf8("state"), value: utf8("offline"))
        #expect(try decide(user) == .refused(.offline) && decide(user, "iqn.j") == .refused(.account) && decide(nil) == .refused(.authenticationRequired))
    }

    @Test("a bound account, incoming or outgoing, refuses every login that has not authenticated", arguments: [false, true])
    func accounts(outgoing: Bool) throws {
        var configuration = try configuration(["ALL"], [])
        let user = try AccountName(utf8("u"))
        _ = try configuration.newAccount(user, secret: Secret(utf8("a secret of users")))
        _ = try configuration.bindAccount(user, to: one, outgoing: outgoing)
        #expect(decideLogin(configuration, targetName: try name("iqn.t"), initiator: try name("iqn.i"), address: address("::1")) == .refused(.authenticationRequired))
        #expect(decideDiscovery(configuration, initiator: try name("iqn.i")).isAdmitted)
        _ = try configuration.unbindAccount(user, from: one, outgoing: outgoing)
        #expect(decideLogin(configuration, targetName: try name("iqn.t"), initiator: try name("iqn.i"), address: address("::1")).isAdmitted)
        _ = try configuration.bindAccount(user, to: nil, outgoing: outgoing)
        #expect(decideDiscovery(configuration, initiator: try name("iqn.i")) == .refused(.authenticationRequired))
    }

    @Test("discovery wants its account, and lists what the initiator could log in to with the account that it has")
    func discoveryAccounts() throws {
        var configuration = try configuration(["ALL"], [])
        let (two, three) = (TargetID(rawValue: 2)!, TargetID(rawValue: 3)!)
        for (tid, target) in [(two, "iqn.2"), (three, "iqn.3")] {
            _ = try configuration.newTarget(tid, name: utf8(target))
            _ = try configuration.bind([try AddressRule(parsing: utf8("ALL"))], [], to: tid)
        }
        let (a, b, key) = (try AccountName(utf8("a")), try AccountName(utf8("b")), try AccountName(utf8("key")))
        for account in [a, b, key] { _ = try configuration.newAccount(account, secret: Secret(utf8("a secret of \(account)"))) }
        _ = try configuration.bindAccount(a, to: two, outgoing: false, for: try name("iqn.a"))
        _ = try configuration.bindAccount(b, to: three, outgoing: false)
        func listed(_ initiator: String, _ account: AccountName?) throws -> [TargetID] {
            discoverable(configuration, initiator: try name(initiator), address: address("::1"), account: account).map(\.id)
        }
        #expect(try listed("iqn.a", nil) == [one, two, three] && listed("iqn.x", nil) == [one, three])
        #expect(try listed("iqn.a", key) == [one, two, three] && listed("iqn.x", key) == [one, three])
        #expect(try listed("iqn.a", a) == [one, two] && listed("iqn.x", a) == [one])
        // Tenant B with tenant A's name.
        #expect(try listed("iqn.a", b) == [one, three])
        #expect(decideDiscovery(configuration, initiator: try name("iqn.a")).isAdmitted)
        _ = try configuration.bindAccount(key, to: nil, outgoing: false)
        _ = try configuration.bindAccount(a, to: nil, outgoing: false, for: try name("iqn.a"))
        func decide(_ initiator: String, _ account: AccountName?) throws -> AccessDecision {
            decideDiscovery(configuration, initiator: try name(initiator), account: account)
        }
        #expect(try decide("iqn.a", nil) == .refused(.authenticationRequired) && decide("iqn.a", b) == .refused(.account))
        #expect(try decide("iqn.a", a).isAdmitted && decide("iqn.b", a) == .refused(.account) && decide("iqn.b", key).isAdmitted)
        _ = try configuration.bindAccount(b, to: one, outgoing: true)
        #expect(try listed("iqn.a", nil) == [two, three])
    }

    @Test("discovery lists the targets that admit, offline ones too, and nothing else")
    func discovery() throws {
        var configuration = try configuration(["10.0.0.0/8"], [])
        let two = TargetID(rawValue: 2)!
        let three = TargetID(rawValue: 3)!
        _ = try configuration.newTarget(three, name: utf8("iqn.3"))
        _ = try configuration.bind([], [try NameRule(parsing: utf8("iqn.i"))], to: three)
        _ = try configuration.newTarget(two, name: utf8("iqn.2"))
        func listed(_ initiator: String, _ from: String) throws -> [TargetID] {
            discoverable(configuration, initiator: try name(initiator), address: address(from)).map(\.id)
        }
        #expect(try listed("iqn.i", "10.0.0.1") == [one, three])
        #expect(try listed("iqn.x", "10.0.0.1") == [one])
        #expect(try listed("iqn.x", "11.0.0.1") == [])
        _ = try configuration.updateTarget(one, name: utf8("state"), value: utf8("offline"))
        #expect(try listed("iqn.x", "10.0.0.1") == [one])
        _ = try configuration.updateSystem(name: utf8("State"), value: utf8("offline"))
        #expect(decideDiscovery(configuration, initiator: try name("iqn.i")) == .refused(.offline))
    }
}

@Suite("what rules match")
struct MatchTests {
    @Test("an IPv4 network of every length begins and ends where it should", arguments: 0...32)
    func ipv4(prefixLength: Int) throws {
        let base: UInt128 = 0xc0a8_a55a
        let size = UInt128(1) << UInt128(32 - prefixLength)
        let first = base / size * size
        let last = first + size - 1
        let rule = try AddressRule(parsing: utf8("192.168.165.90/\(prefixLength)"))
        for value in [first, base, last] { #expect(rule.admits(NetworkAddress(family: .ipv4, value: value))) }
        if first > 0 { #expect(!rule.admits(NetworkAddress(family: .ipv4, value: first - 1))) }
        if last < 0xffff_ffff { #expect(!rule.admits(NetworkAddress(family: .ipv4, value: last + 1))) }
    }

    @Test("an IPv6 network of every length begins and ends where it should", arguments: 0...128)
    func ipv6(prefixLength: Int) throws {
        let base = address("2001:db8:a55a:5aa5:1234:8765:fedc:ba98")
        let rule = try AddressRule(parsing: utf8("\(base)/\(prefixLength)"))
        let hostMask = prefixLength == 0 ? UInt128.max : (UInt128(1) << UInt128(128 - prefixLength)) - 1
        let first = base.value & ~hostMask
        let last = base.value | hostMask
        #expect(rule.admits(base))
        for value in [first, last] where value >> 32 != 0xffff { #expect(rule.admits(NetworkAddress(family: .ipv6, value: value))) }
        if first > 0 { #expect(!rule.admits(NetworkAddress(family: .ipv6, value: first - 1))) }
        if last < .max { #expect(!rule.admits(NetworkAddress(family: .ipv6, value: last + 1))) }
    }

    @Test("patterns", arguments: [
        ("*", "a", true), ("*", "iqn.2003-01.org.example:x", true), ("?", "a", true), ("?", "ab", false), ("a?", "a", false), ("a*", "a", true), ("*a", "a", true), ("*a", "ba", true),
        ("*a", "ab", false), ("a*b", "ab", true), ("a*b", "axxb", true), ("a*b", "axxbc", false), ("a*b*c", "abbbc", true), ("a*b*c", "acb", false), ("a**b", "ab", true),
        ("*a*b", "xaxxab", true), ("??*", "a", false), ("??*", "ab", true), ("iqn.*:host-?", "iqn.2003-01.org:host-7", true), ("iqn.*:host-?", "iqn.2003-01.org:host-77", false),
        ("IQN.*", "iqn.x", true), ("iqn.*", "IQN.X", true), ("a.c", "abc", false), ("*.*", "abc", false),
    ])
    func patterns(pattern: String, initiator: String, matches: Bool) throws {
        #expect(try NameRule(parsing: utf8(pattern)).admits(try name(initiator)) == matches)
    }

    @Test("the worst pattern takes no long time")
    func worstPattern() throws {
        let rule = try NameRule(parsing: utf8(String(repeating: "*a", count: 110) + "*b"))
        #expect(!rule.admits(try name(String(repeating: "a", count: 223))))
    }
}
