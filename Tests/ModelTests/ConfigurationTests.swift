import Crypto
import ISCSI
import SCSI
import Testing

@testable import Model

/// A configuration with target 1, which has a disk of 1 MiB at LUN 1.
func example() throws -> Configuration {
    var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
    _ = try configuration.newTarget(one, name: utf8("iqn.a"))
    _ = try configuration.newLogicalUnit(
        disk, blockLength: 512, store: BackingStore(kind: .rdwr, path: try StorePath(utf8("/disk"))), medium: StoreFacts(byteCount: 1 << 20, isWritable: true))
    return configuration
}

let one = TargetID(rawValue: 1)!
let two = TargetID(rawValue: 2)!
let secret = Secret(utf8("a secret of users"))
let disk = LogicalUnitKey(target: one, lun: 1)

func parameters(_ text: String) -> [LogicalUnitParameter] {
    text.split(separator: ",").map { item in
        let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        return LogicalUnitParameter(name: Array(parts[0].utf8), value: Array(parts[1].utf8))
    }
}

@Suite("configuration")
struct ConfigurationTests {
    @Test("target numbers are positive")
    func numbers() {
        for number in [Int32.min, -1, 0] { #expect(TargetID(rawValue: number) == nil) }
        for number in [1, Int32.max] { #expect(TargetID(rawValue: number)?.rawValue == number) }
    }

    @Test("a new target is ready, belongs to the default tenant, has a controller and no rule")
    func newTarget() throws {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)), nopDefaults: NopDefaults(interval: 5, count: 3))
        #expect(try configuration.newTarget(one, name: utf8("iqn.A")) == [.targetAdded(one)])
        let target = try configuration.target(one)
        #expect(target.state == .ready && target.tenant == .default && target.addressRules.isEmpty && target.nameRules.isEmpty && target.accounts.isEmpty)
        #expect(target.nopInterval == 5 && target.nopCount == 3)
        #expect(target.logicalUnits.keys.sorted() == [0])
        #expect(try configuration.settings(LogicalUnitKey(target: one, lun: 0)).deviceType == .controller)
        #expect(configuration.target(named: try ISCSIName(utf8("iqn.a")))?.id == one)
    }

    @Test("numbers and names are used once, whatever the name's case")
    func duplicates() throws {
        var configuration = try example()
        let before = configuration
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(one, name: utf8("iqn.b")) } == .targetExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(two, name: utf8("IQN.A")) } == .targetExists)
        for name in ["", "a_b", "a b", "a,b", "a\n", "é"] {
            #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(two, name: utf8(name)) } == .invalid, "\(name)")
        }
        #expect(configuration == before)
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(two, name: [UInt8](repeating: 0x61, count: 224)) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(two, name: [UInt8](repeating: 0x61, count: 223)) } == nil)
    }

    @Test("targets come in the order of their numbers, and can be deleted")
    func order() throws {
        var configuration = try example()
        let last = try #require(TargetID(rawValue: .max))
        _ = try configuration.newTarget(last, name: utf8("z"))
        _ = try configuration.newTarget(two, name: utf8("b"))
        #expect(configuration.sortedTargets.map(\.id) == [one, two, last])
        #expect(try configuration.deleteTarget(one) == [.targetRemoved(one)])
        #expect(kind { () throws(ConfigurationError) in try configuration.deleteTarget(one) } == .noSuchTarget)
        #expect(kind { () throws(ConfigurationError) in try configuration.logicalUnit(disk) } == .noSuchTarget)
    }

    @Test("no more targets than the limit")
    func targetLimit() throws {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
        for number in 1...Limits.targets {
            let id = try #require(TargetID(rawValue: Int32(number)))
            _ = try configuration.newTarget(id, name: utf8("t\(number)"))
        }
        let next = try #require(TargetID(rawValue: Int32(Limits.targets + 1)))
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(next, name: utf8("next")) } == .invalid)
        _ = try configuration.deleteTarget(one)
        #expect(kind { () throws(ConfigurationError) in try configuration.newTarget(next, name: utf8("next")) } == nil)
    }

    @Test("a target's keys, state and NOP settings can be set", arguments: [
        ("MaxRecvDataSegmentLength", "65536", Change.parametersChanged(one)), ("headerdigest", "CRC32C,None", .parametersChanged(one)), ("state", "offline", .targetStateChanged(one)),
        ("state", "ready", .targetStateChanged(one)), ("nop_interval", "0", .parametersChanged(one)), ("nop_interval", "86400", .parametersChanged(one)),
        ("nop_count", "1024", .parametersChanged(one)), ("MaxConnections", "1", .parametersChanged(one)), ("ErrorRecoveryLevel", "0", .parametersChanged(one)),
    ])
    func keys(name: String, value: String, change: Change) throws {
        var configuration = try example()
        #expect(try configuration.updateTarget(one, name: utf8(name), value: utf8(value)) == [change])
    }

    @Test("other keys and values are refused and change nothing", arguments: [
        ("MaxRecvDataSegmentLength", "511"), ("MaxRecvDataSegmentLength", "16777216"), ("MaxRecvDataSegmentLength", ""), ("InitialR2T", "yes"), ("Foo", "1"), ("", "1"),
        ("State", "offline"), ("state", "Offline"), ("state", ""), ("nop_interval", "86401"), ("nop_interval", "-1"), ("nop_interval", ""), ("nop_interval", "5s"),
        ("nop_count", "1025"), ("nop_count", "99999999999999999999"), ("MaxConnections", "2"), ("ErrorRecoveryLevel", "1"), ("RedirectAddress", "1.2.3.4"), ("RedirectCallback", "/x"),
    ])
    func wrongKeys(name: String, value: String) throws {
        var configuration = try example()
        let before = configuration
        #expect(kind { () throws(ConfigurationError) in try configuration.updateTarget(one, name: utf8(name), value: utf8(value)) } == .invalid)
        #expect(configuration == before)
        #expect(kind { () throws(ConfigurationError) in try configuration.updateTarget(two, name: utf8("state"), value: utf8("ready")) } == .noSuchTarget)
    }

    @Test("rules are bound once, in order, and unbound by what they admit; several at once all or none")
    func rules() throws {
        var configuration = try example()
        let all = try AddressRule(parsing: utf8("ALL"))
        let net = try AddressRule(parsing: utf8("10.0.0.0/8"))
        let name = try NameRule(parsing: utf8("iqn.i"))
        #expect(try configuration.bind([net], [name], to: one) == [.rulesChanged(one)])
        #expect(try configuration.bind([all], [], to: one) == [.rulesChanged(one)])
        #expect(try configuration.target(one).addressRules == [net, all])
        let before = configuration
        #expect(kind { () throws(ConfigurationError) in try configuration.bind([try AddressRule(parsing: utf8("10.9.9.9/8"))], [], to: one) } == .ruleExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.bind([try AddressRule(parsing: utf8("::1"))], [name], to: one) } == .ruleExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbind([all], [try NameRule(parsing: utf8("x"))], from: one) } == .noSuchRule)
        #expect(configuration == before)
        #expect(try configuration.unbind([net], [name], from: one) == [.rulesChanged(one)])
        #expect(try configuration.target(one).addressRules == [all] && configuration.target(one).nameRules.isEmpty)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbind([net], [], from: one) } == .noSuchRule)
        #expect(kind { () throws(ConfigurationError) in try configuration.bind([net], [], to: two) } == .noSuchTarget)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbind([net], [], from: two) } == .noSuchTarget)
    }

    @Test("no more rules of a kind than the limit")
    func ruleLimit() throws {
        var configuration = try example()
        func rules(_ count: Int) throws -> [AddressRule] { try (0..<count).map { try AddressRule(parsing: utf8("10.0.\($0 / 256).\($0 % 256)")) } }
        #expect(kind { () throws(ConfigurationError) in
            let rules = (try? rules(Limits.rules + 1)) ?? []
            return try configuration.bind(rules, [], to: one)
        } == .invalid)
        _ = try configuration.bind(try rules(Limits.rules), [], to: one)
    }

    @Test("accounts are bound in order, holes are filled, the outgoing one is alone")
    func accounts() throws {
        var configuration = try example()
        let names = try ["u1", "u2", "u3", "u4"].map { try AccountName(utf8($0)) }
        func changed(_ name: AccountName) -> Change { .accountChanged(Account.Key(name: name)) }
        for name in names { #expect(try configuration.newAccount(name, secret: Secret(utf8("a secret of \(name)"))) == [changed(name)]) }
        #expect(kind { () throws(ConfigurationError) in try configuration.newAccount(names[0], secret: secret) } == .accountExists)
        for name in names[..<3] { #expect(try configuration.bindAccount(name, to: one, outgoing: false) == [.accountsChanged(one)]) }
        _ = try configuration.unbindAccount(names[1], from: one, outgoing: false)
        _ = try configuration.bindAccount(names[3], to: one, outgoing: false)
        #expect(try configuration.target(one).accounts.incoming == [names[0], names[3], names[2]])
        _ = try configuration.bindAccount(names[1], to: one, outgoing: true)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(names[1], to: one, outgoing: true) } == .hasOutgoingAccount)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(names[0], to: one, outgoing: true) } == .hasOutgoingAccount)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(names[1], to: one, outgoing: false) } == .accountExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbindAccount(names[0], from: one, outgoing: true) } == .noSuchAccount)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbindAccount(names[1], from: one, outgoing: false) } == .noSuchAccount)
        #expect(try configuration.bindAccount(names[0], to: nil, outgoing: false) == [.accountsChanged(nil)])
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(try AccountName(utf8("nobody")), to: one, outgoing: false) } == .noSuchAccount)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(names[0], to: two, outgoing: false) } == .noSuchTarget)
        #expect(try configuration.deleteAccount(names[0]) == [changed(names[0]), .accountsChanged(one), .accountsChanged(nil)])
        #expect(try configuration.target(one).accounts.incoming == [names[3], names[2]] && configuration.discoveryAccounts.isEmpty)
        #expect(kind { () throws(ConfigurationError) in try configuration.deleteAccount(names[0]) } == .noSuchAccount)
    }

    @Test("an account has two secrets while one takes the place of the other, and a strong one unless weakness is allowed")
    func secrets() throws {
        var configuration = try example()
        let (user, other) = (try AccountName(utf8("u")), try AccountName(utf8("o")))
        func secret(_ text: String) -> Secret { Secret(utf8(text)) }
        func live() -> [Secret]? { configuration.account(user)?.secrets }
        #expect(kind { () throws(ConfigurationError) in try configuration.newAccount(user, secret: secret("eleven-char")) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.newAccount(user, secret: secret(""), allowWeak: true) } == .invalid)
        _ = try configuration.newAccount(user, secret: secret("x"), allowWeak: true)
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("x"), to: user, allowWeak: true) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("y"), to: user) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("twelve-chars"), to: other) } == .noSuchAccount)
        #expect(kind { () throws(ConfigurationError) in try configuration.retireSecret(.old, of: user) } == .invalid)
        #expect(try configuration.addSecret(secret("twelve-chars"), to: user) == [.accountChanged(Account.Key(name: user))])
        #expect(live() == [secret("x"), secret("twelve-chars")])
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("another-one-"), to: user) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(user, to: one, outgoing: true) } == .invalid)
        var back = configuration
        #expect(try back.retireSecret(.new, of: user) == [.accountChanged(Account.Key(name: user))])
        #expect(back.account(user)?.secrets == [secret("x")])
        _ = try configuration.retireSecret(.old, of: user)
        #expect(live() == [secret("twelve-chars")])
        // One that is outgoing somewhere has one secret, and never that of an incoming one there.
        _ = try configuration.newAccount(other, secret: secret("of-the-target"))
        _ = try configuration.bindAccount(other, to: one, outgoing: true)
        _ = try configuration.bindAccount(user, to: one, outgoing: false)
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("another-one-"), to: other) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.addSecret(secret("of-the-target"), to: user) } == .invalid)
        #expect(live() == [secret("twelve-chars")])
        _ = try configuration.addSecret(secret("another-one-"), to: user)
        #expect(live()?.count == 2)
    }

    @Test("an account is bound for all initiators or for some; unbinding without a name takes all of its bindings")
    func boundInitiators() throws {
        var configuration = try example()
        let (user, other) = (try AccountName(utf8("u")), try AccountName(utf8("o")))
        let (i, j) = (try ISCSIName(utf8("iqn.I")), try ISCSIName(utf8("iqn.j")))
        _ = try configuration.newAccount(user, secret: secret)
        _ = try configuration.newAccount(other, secret: Secret(utf8("another secret")))
        _ = try configuration.bindAccount(user, to: one, outgoing: false, for: i)
        _ = try configuration.bindAccount(user, to: one, outgoing: false, for: j)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(user, to: one, outgoing: false, for: i) } == .accountExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(user, to: one, outgoing: true) } == .accountExists)
        #expect(kind { () throws(ConfigurationError) in try configuration.bindAccount(other, to: one, outgoing: true, for: i) } == .invalid)
        #expect(try configuration.target(one).accounts.incoming == [user])
        #expect(try configuration.target(one).accounts.admits(user, i) && !configuration.target(one).accounts.admits(user, ISCSIName(utf8("iqn.k"))))
        _ = try configuration.unbindAccount(user, from: one, outgoing: false, for: i)
        #expect(kind { () throws(ConfigurationError) in try configuration.unbindAccount(user, from: one, outgoing: false, for: i) } == .noSuchAccount)
        #expect(try !configuration.target(one).accounts.admits(user, i) && configuration.target(one).accounts.admits(user, j))
        _ = try configuration.bindAccount(user, to: one, outgoing: false)
        _ = try configuration.unbindAccount(user, from: one, outgoing: false)
        #expect(try configuration.target(one).accounts.isEmpty)
    }

    @Test("account names are 1 to 255 printable characters without blanks and commas, and case matters")
    func accountNames() throws {
        #expect(try AccountName(utf8("U")) != AccountName(utf8("u")))
        #expect(kind { () throws(ConfigurationError) in try AccountName([UInt8](repeating: 0x61, count: 255)) } == nil)
        for wrong in [[], [UInt8](repeating: 0x61, count: 256), utf8("a b"), utf8("a,b"), utf8("a\n"), utf8("é"), [0x7f]] {
            #expect(kind { () throws(ConfigurationError) in try AccountName(wrong) } == .invalid)
        }
    }

    @Test("no more accounts are bound than the limit, and a hole makes room")
    func accountLimit() throws {
        var bindings = AccountBindings()
        for number in 0..<Limits.boundAccounts { try bindings.bind(try AccountName(utf8("u\(number)")), outgoing: false) }
        let next = try AccountName(utf8("next"))
        #expect(kind { () throws(ConfigurationError) in try bindings.bind(next, outgoing: false) } == .tooManyAccounts)
        try bindings.unbind(try AccountName(utf8("u0")), outgoing: false)
        try bindings.bind(next, outgoing: false)
        #expect(bindings.incoming.first == next)
    }

    @Test("portals are opened once and closed")
    func portals() throws {
        var configuration = try example()
        let portal = try Portal(parsing: utf8("127.0.0.1"))
        #expect(try configuration.addPortal(portal) == [.portalAdded(portal)])
        #expect(kind { () throws(ConfigurationError) in try configuration.addPortal(portal) } == .invalid)
        #expect(try configuration.deletePortal(portal.endpoint) == [.portalRemoved(portal)])
        #expect(kind { () throws(ConfigurationError) in try configuration.deletePortal(portal.endpoint) } == .invalid)
        for port in 1...UInt16(Limits.portals) { _ = try configuration.addPortal(portal.listening(on: port)) }
        #expect(kind { () throws(ConfigurationError) in try configuration.addPortal(portal) } == .invalid)
    }

    @Test("the system's state and debugging can be set, iSNS only switched off")
    func system() throws {
        var configuration = try example()
        #expect(try configuration.updateSystem(name: utf8("State"), value: utf8("offline")) == [.systemStateChanged])
        #expect(configuration.state == .offline)
        #expect(try configuration.updateSystem(name: utf8("debug"), value: utf8("on")) == [.debugChanged])
        #expect(configuration.isDebugging)
        #expect(try configuration.updateSystem(name: utf8("iSNS"), value: utf8("Off")) == [])
        for (name, value) in [("state", "offline"), ("State", "Ready"), ("debug", "1"), ("iSNS", "On"), ("iSNSServerIP", "1.2.3.4"), ("x", "y")] {
            #expect(kind { () throws(ConfigurationError) in try configuration.updateSystem(name: utf8(name), value: utf8(value)) } == .invalid)
        }
    }
}
