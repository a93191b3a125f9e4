import Crypto
import ISCSI
import JSON
import SCSI
import Testing

@testable import Model

private let key = Secret([UInt8](repeating: 7, count: Seal.keyLength))
private let base = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)), nopDefaults: NopDefaults(interval: 1, count: 2))

/// A configuration in which nothing has the value that it begins with.
private func everythingChanged() throws -> Configuration {
    var it = base
    it.state = .offline
    it.isDebugging = true
    for text in ["192.0.2.1:3261", "[2001:db8::1]:0"] { _ = try it.addPortal(Portal(parsing: utf8(text))) }
    let everyParameter = "tls=required,certificate=/c é,key=/k,client-ca=/a,crl=/r,client-map=/m,psk-file=/p,client-auth=optional,policy=2026-11-compatible,advertise=[::1]:1,tpgt=2"
    _ = try it.addPortal(Portal(PortalAddress(parsing: utf8("192.0.2.1:1")), portalParameters(everyParameter)))
    let (first, second, third, fourth) = (try AccountName(utf8("b")), try AccountName(utf8("a\"\\")), try AccountName(utf8("out")), try AccountName(utf8("d")))
    for (name, secret) in [(first, "first of two secrets"), (second, "\u{0}\u{1}ébytes of all kinds"), (third, "the secret of the target"), (fourth, "four")] {
        _ = try it.newAccount(name, secret: Secret(utf8(secret)), allowWeak: true)
    }
    _ = try it.addSecret(Secret(utf8("second of two secrets")), to: first)
    _ = try it.newTarget(two, name: utf8("iqn.2026-11.org.example:Two"))
    _ = try it.newTarget(one, name: utf8("IQN.One"))
    let initiator = try ISCSIName(utf8("iqn.Initiator"))
    for id in [nil, one] {
        _ = try it.bindAccount(first, to: id, outgoing: false)
        _ = try it.bindAccount(second, to: id, outgoing: false, for: initiator)
        _ = try it.bindAccount(fourth, to: id, outgoing: false)
        _ = try it.bindAccount(third, to: id, outgoing: true)
        // Holes, at the beginning and at the end.
        _ = try it.unbindAccount(first, from: id, outgoing: false)
        _ = try it.unbindAccount(fourth, from: id, outgoing: false)
    }
    for (name, value) in [("state", "offline"), ("MaxBurstLength", "524288"), ("HeaderDigest", "CRC32C,None"), ("nop_interval", "77"), ("nop_count", "9"), ("RequireMutualCHAP", "Yes"), ("RequireTLS", "Yes")] {
        _ = try it.updateTarget(one, name: utf8(name), value: utf8(value))
    }
    _ = try it.bind(
        [AddressRule(parsing: utf8("192.0.2.77/24")), AddressRule(parsing: utf8("ALL"))], [NameRule(parsing: utf8("iqn.X*"))], mask: LUNMask(parsing: utf8("0,2-5:ro,7")), to: one)
    _ = try it.bind([AddressRule(parsing: utf8("2001:db8::/33"))], [], to: one)
    let medium = StoreFacts(byteCount: 1 << 33, isWritable: true, physicalBlockLength: 16384)
    let odd = BackingStore(kind: .rdwr, path: try StorePath([0x2f, 0xff, 0x5c]), flags: [.sync, .direct])
    for (lun, store, facts) in [(3, odd, medium), (4, BackingStore(kind: .rdwr, path: try StorePath(utf8("/srv/é\\"))), medium), (16383, BackingStore(kind: .null, path: nil), nil)] as [(Int, BackingStore, StoreFacts?)] {
        _ = try it.newLogicalUnit(LogicalUnitKey(target: one, lun: lun), blockLength: 4096, store: store, medium: facts)
    }
    _ = try it.updateLogicalUnit(LogicalUnitKey(target: one, lun: 3), parameters(
        "scsi_id=id,scsi_sn=sn,vendor_id=V,product_id=P,product_rev=R,mode_page=0x0a:0x01:0x1c:1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21:22:23:24:25:26:27:28,removable=1,online=0,readonly=1,"
            + "thin_provisioning=1,rotation_rate=7200,lbppbe=3,la_lba=5,optimal_xfer_gran=6,optimal_xfer_len=4294967295,sense_format=1"))
    _ = try it.updateLogicalUnit(LogicalUnitKey(target: one, lun: 0), parameters("product_id=boss,online=0"))
    it.setReservations(
        PersistentReservations(
            registrations: [
                .init(initiator: InitiatorPort(name: utf8("iqn.2026-11.org.example:a"), isid: 0xffff_ffff_ffff), relativeTargetPort: 1, key: .max),
                .init(initiator: InitiatorPort(name: [0xff, 0x22, 0], isid: 0), relativeTargetPort: 65535, key: 1),
            ], kind: .exclusiveAccess, holder: 1, outlivesPowerLoss: true),
        of: LogicalUnitKey(target: one, lun: 3))
    return it
}

/// Says nothing of secrets.
private struct Open: SecretSealer {
    func seal(_ account: Account) -> [JSONValue] { [] }
    func open(_ secrets: [JSONValue], of key: Account.Key) -> [Secret] { [] }
}

/// The stored properties of a value with what is in them, as text.
private func properties(_ value: Any) -> [String: String] {
    Dictionary(Mirror(reflecting: value).children.map { ($0.label ?? "", String(describing: $0.value)) }) { first, _ in first }
}

/// Those that are the same in both.
private func unchanged(_ a: Any, _ b: Any) -> Set<String> {
    let (a, b) = (properties(a), properties(b))
    return Set(a.keys.filter { a[$0] == b[$0] })
}

@Suite("what is kept")
struct StateTests {
    @Test("the example leaves no property at its default: one that comes new has to be in it, and then in what is kept")
    func exampleIsComplete() throws {
        let all = try everythingChanged()
        #expect(unchanged(all, base) == ["identitySource", "nopDefaults", "tenancy"])
        var plain = base
        _ = try plain.newTarget(one, name: utf8("iqn.one"))
        let (target, plainTarget) = (try all.target(one), try plain.target(one))
        #expect(unchanged(target, plainTarget) == ["id", "tenant"])
        let key = LogicalUnitKey(target: one, lun: 3)
        let standard = LogicalUnitConfiguration(disk: key, blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: nil)
        // Of a disk with a medium, one without is no measure for what follows from it.
        let served = LogicalUnitConfiguration(disk: key, blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: .null)
        #expect(unchanged(try all.logicalUnit(key), standard).intersection(unchanged(try all.logicalUnit(key), served)) == ["key", "deviceType"])
        #expect(unchanged(target.accounts, AccountBindings()).isEmpty)
        #expect(unchanged(all.discoveryAccounts, AccountBindings()).isEmpty)
        #expect(unchanged(try all.logicalUnit(key).store, standard.store).isEmpty)
        let medium = try #require(try all.logicalUnit(key).medium), page = try #require(try all.logicalUnit(key).modePages.first)
        #expect(unchanged(medium, StoreFacts(byteCount: 0, isWritable: false)).isEmpty)
        #expect(unchanged(page, LogicalUnitSettings.ModePageOverride(page: 0, subpage: 0, data: [])).isEmpty)
        // What this table does not reflect: it must be the same types that are written by hand.
        #expect(properties(all.accounts[0]).keys.sorted() == ["key", "number", "secrets"])
        #expect(properties(target.nameRules[0]).keys.sorted() == ["bytes", "isPattern", "mask", "spelling"])
        #expect(properties(target.addressRules[0]).keys.sorted() == ["extent", "mask", "spelling"])
        let portal = try #require(all.portals.last), tls = try #require(portal.tls)
        #expect(unchanged(portal, Portal(portal.endpoint)) == ["endpoint"] && unchanged(tls, PortalTLS()).isEmpty)
        #expect(properties(portal.endpoint).keys.sorted() == ["address", "port"])
        let reservations = try #require(try all.logicalUnit(key).reservations)
        // It begins anew at each start.
        #expect(unchanged(reservations, PersistentReservations()) == ["generation"])
        #expect(properties(reservations.registrations[0]).keys.sorted() == ["initiator", "key", "relativeTargetPort"])
        #expect(properties(target.accounts.incomingBindings[0]).keys.sorted() == ["initiator", "name"])
    }

    @Test("everything that is configured comes back, spelling and order too")
    func roundTrip() throws {
        let all = try everythingChanged()
        let document = try StateDocument(StateDocument(sequence: 42, configuration: all).encoded(key: key).text, key: key, base: base)
        #expect(document.sequence == 42 && document.recordCount == 0 && document.tornBytes == 0)
        #expect(document.configuration == all)
        #expect(document.configuration.accounts.map(\.secrets) == all.accounts.map(\.secrets))
        // `==` takes two spellings of a name or rule for one.
        #expect(document.configuration.stored(Open()) == all.stored(Open()))
        let spellings = try document.configuration.target(one).addressRules.map(\.spelling)
        #expect(spellings == ["192.0.2.77/24", "ALL", "2001:db8::/33"])
        #expect(document.configuration.target(named: try ISCSIName(utf8("iqn.one")))?.name.spelling == "IQN.One")
    }

    @Test("an empty configuration comes back, too")
    func empty() throws {
        let document = try StateDocument(StateDocument(sequence: 0, configuration: base).encoded(key: key).text, key: key, base: base)
        #expect(document.configuration == base)
    }

    @Test("no secret stands in it, and none of it is the same twice")
    func sealed() throws {
        let all = try everythingChanged()
        let (one, two) = (StateDocument(sequence: 1, configuration: all).encoded(key: key).text, StateDocument(sequence: 1, configuration: all).encoded(key: key).text)
        for secret in ["first of two secrets", "second of two secrets", "the secret of the target"] {
            #expect(!String(decoding: one, as: UTF8.self).contains(secret))
            #expect(!String(decoding: one, as: UTF8.self).contains(JSONValue.hexadecimal(utf8(secret))))
        }
        #expect(one != two && one.count == two.count)
    }

    @Test("reservations that no logical unit could have come to are refused; they go with their logical unit, and a new one has none")
    func reservations() throws {
        var it = base
        _ = try it.newTarget(one, name: utf8("iqn.t"))
        let unit = LogicalUnitKey(target: one, lun: 3)
        func make() throws { _ = try it.newLogicalUnit(unit, blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: .null) }
        try make()
        func registration(_ name: String = "iqn.a", isid: UInt64 = 1, key: UInt64 = 1) -> PersistentReservations.Registration {
            .init(initiator: InitiatorPort(name: utf8(name), isid: isid), relativeTargetPort: 1, key: key)
        }
        func comesBack(_ reservations: PersistentReservations) throws -> Bool {
            it.setReservations(reservations, of: unit)
            var other = base
            do throws(StoredError) { try other.restore(it.stored(Open()), Open()) } catch { return false }
            return try other.logicalUnit(unit).reservations == reservations
        }
        let many = (0..<PersistentReservations.mostRegistrations).map { registration(key: UInt64($0) + 1) }
        for reservations in [[], [registration()], many] { #expect(try comesBack(PersistentReservations(registrations: reservations, outlivesPowerLoss: true))) }
        #expect(try comesBack(PersistentReservations(registrations: many, kind: .writeExclusive, holder: many.count - 1, outlivesPowerLoss: true)))
        for (registrations, kind, holder) in [
            (many + [registration()], nil, nil), ([registration("")], nil, nil), ([registration(String(repeating: "n", count: 224))], nil, nil),
            ([registration(isid: 1 << 48)], nil, nil), ([registration(key: 0)], nil, nil), ([registration()], nil, 0), ([registration()], .writeExclusive, nil),
            ([registration()], .writeExclusive, 1), ([registration()], .writeExclusive, -1), ([registration()], .writeExclusiveAllRegistrants, 0), ([], .writeExclusiveAllRegistrants, nil),
        ] as [([PersistentReservations.Registration], PersistentReservations.Kind?, Int?)] {
            #expect(try !comesBack(PersistentReservations(registrations: registrations, kind: kind, holder: holder, outlivesPowerLoss: true)), "\(registrations.count)")
        }
        #expect(try comesBack(PersistentReservations(registrations: [registration()], outlivesPowerLoss: true)))
        _ = try it.deleteLogicalUnit(unit)
        it.setReservations(PersistentReservations(), of: unit)
        try make()
        #expect(try it.logicalUnit(unit).reservations == nil)
    }

    @Test("one that is torn anywhere, or has one other bit, is refused")
    func damaged() throws {
        var small = base
        _ = try small.newAccount(AccountName(utf8("a")), secret: secret)
        let whole = StateDocument(sequence: 9, configuration: small).encoded(key: key).text
        func isRefused(_ bytes: [UInt8]) -> Bool {
            do throws(StateDocument.Trouble) { _ = try StateDocument(bytes, key: key, base: base) } catch { return true }
            return false
        }
        #expect(!isRefused(whole))
        for length in 0..<whole.count where !isRefused(Array(whole.prefix(length))) { Issue.record("\(length) bytes are enough") }
        for index in whole.indices {
            var bytes = whole
            bytes[index] ^= 1 << UInt8(index % 8)
            if !isRefused(bytes) { Issue.record("byte \(index) counts for nothing") }
        }
        #expect(isRefused(whole + whole) && isRefused(whole + [0x0a]))
    }

    @Test("each refusal says what is wrong")
    func troubles() throws {
        func trouble(_ bytes: [UInt8], _ key: Secret) -> StateDocument.Trouble? {
            do throws(StateDocument.Trouble) { _ = try StateDocument(bytes, key: key, base: base) } catch { return error }
            return nil
        }
        let whole = StateDocument(sequence: 9, configuration: base).encoded(key: key).text
        #expect(trouble(utf8("targets: []\n"), key) == .foreign)
        #expect(trouble([], key) == .foreign)
        #expect(trouble(utf8(#"{"portcullisState":3,"x":1}"#), key) == .newer(3) && trouble(utf8(#"{"portcullisState":1,"x":1}"#), key) == .damaged)
        #expect(trouble(whole, Secret([UInt8](repeating: 8, count: Seal.keyLength))) == .otherKey)
        #expect(trouble(Array(whole.dropLast(5)), key) == .damaged)
    }

    @Test("what an earlier version has kept is as it was there")
    func earlier() throws {
        let earlier = #"{"state":"ready","debug":false,"portals":["192.0.2.1:1"],"discoveryAccounts":{"incoming":[],"outgoing":null},"accounts":[{"tenant":"default","name":"b","secrets":[]},{"tenant":"default","name":"a","secrets":[]}],"targets":[{"tid":1,"tenant":"default","name":"iqn.t","state":"ready","parameters":PARAMETERS,"nopInterval":0,"nopCount":0,"addressRules":[],"nameRules":[],"accounts":{"incoming":[],"outgoing":null},"requireMutualCHAP":false,"logicalUnits":[LUN0]}]}"#
        var now = base
        _ = try now.newTarget(one, name: utf8("iqn.t"))
        let target = try now.target(one)
        func text(_ value: JSONValue) -> String { String(decoding: value.text, as: UTF8.self) }
        let filled = earlier.split(separator: "PARAMETERS", omittingEmptySubsequences: false).joined(separator: text(target.parameters.stored))
            .split(separator: "LUN0", omittingEmptySubsequences: false).joined(separator: text(try #require(target.logicalUnits[0]).stored).replacing(#","reservations":null"#, with: ""))
        var configuration = base
        try configuration.restore(JSONValue(parsing: Array(filled.utf8)), Open())
        try configuration.index()
        #expect(configuration.accounts.map(\.name.description) == ["b", "a"] && configuration.lastAccountNumber == 2)
        #expect(try !configuration.target(one).requiresTLS && configuration.portals == [Portal(parsing: utf8("192.0.2.1:1"))])
    }

    @Test("a member that is missing, unknown or of another kind is refused, not guessed")
    func unknown() throws {
        // Earlier versions have kept none.
        let newer: Set = ["requireTLS", "number", "reservations"]
        /// Every value that differs from this one by one member: left out, added, or of another kind.
        func variations(_ value: JSONValue) -> [JSONValue] {
            switch value {
            case .object(let members):
                var all = [JSONValue.object(members + [.init("more", .null)])]
                for index in members.indices {
                    var fewer = members
                    let member = fewer.remove(at: index)
                    if !newer.contains(member.name) { all.append(.object(fewer)) }
                    for other in variations(member.value) { all.append(.object(Array(members[..<index]) + [.init(member.name, other)] + Array(members[(index + 1)...]))) }
                }
                return all
            case .array(let elements): return [.bool(true)] + elements.indices.flatMap { index in
                variations(elements[index]).map { .array(Array(elements[..<index]) + [$0] + Array(elements[(index + 1)...])) }
            }
            case .null, .bool, .number, .string: return [.array([.array([])])]
            }
        }
        let stored = try everythingChanged().stored(Open())
        var good = base
        try good.restore(stored, Open())
        let all = variations(stored)
        #expect(all.count > 200)
        for (index, variation) in all.enumerated() {
            var configuration = base
            #expect(throws: StoredError.self, "variation \(index)") { try configuration.restore(variation, Open()) }
        }
    }
}

/// An administrator who does anything at all, from a seed.
private struct Restless {
    private var state: UInt64
    private(set) var configuration = base
    /// What has succeeded.
    private(set) var done: [String: Int] = [:]

    init(seed: UInt64) { state = seed }

    private mutating func below(_ bound: Int) -> Int {
        state = state &* 6364136223846793005 &+ 1442695040888963407
        return Int(state >> 33) % bound
    }

    /// - Returns: what has changed
    mutating func act() throws -> [Change] {
        let id = TargetID(rawValue: Int32(1 + below(3)))!
        let key = LogicalUnitKey(target: id, lun: below(4))
        let account = try AccountName(utf8("a\(below(3))"))
        let number = below(1000)
        let isOdd = below(2) == 1
        let place = isOdd ? nil : id
        let rule = [try AddressRule(parsing: utf8("192.0.2.\(number % 4)"))]
        let portal = try Portal(parsing: utf8("192.0.2.1:\(3260 + number % 3)"))
        let actions: [(String, (inout Configuration) throws(ConfigurationError) -> [Change])] = [
            ("new target", { it throws(ConfigurationError) in try it.newTarget(id, name: utf8("iqn.t\(number % 4)")) }),
            ("delete target", { it throws(ConfigurationError) in number % 4 == 0 ? try it.deleteTarget(id) : [] }),
            ("parameter", { it throws(ConfigurationError) in try it.updateTarget(id, name: utf8("nop_interval"), value: utf8("\(number)")) }),
            ("state", { it throws(ConfigurationError) in try it.updateTarget(id, name: utf8("state"), value: utf8(isOdd ? "ready" : "offline")) }),
            ("mutual", { it throws(ConfigurationError) in try it.updateTarget(id, name: utf8("RequireMutualCHAP"), value: utf8(isOdd ? "Yes" : "No")) }),
            ("bind rule", { it throws(ConfigurationError) in try it.bind(rule, [NameRule(parsing: utf8("iqn.x\(number % 3)"))], to: id) }),
            ("unbind rule", { it throws(ConfigurationError) in try it.unbind(rule, [], from: id) }),
            ("new unit", { it throws(ConfigurationError) in try it.newLogicalUnit(key, blockLength: 512, store: BackingStore(kind: .null, path: StorePath(utf8("/x"))), medium: .null) }),
            ("delete unit", { it throws(ConfigurationError) in try it.deleteLogicalUnit(key) }),
            ("update unit", { it throws(ConfigurationError) in try it.updateLogicalUnit(key, parameters("product_rev=\(number)")) }),
            ("reservations", { it throws(ConfigurationError) in
                _ = try it.logicalUnit(key)
                it.setReservations(isOdd ? PersistentReservations(
                    registrations: [.init(initiator: InitiatorPort(name: utf8("iqn.i\(number)"), isid: UInt64(number)), relativeTargetPort: 1, key: UInt64(number) + 1)],
                    kind: number % 3 == 0 ? .writeExclusiveAllRegistrants : nil, outlivesPowerLoss: true) : nil, of: key)
                return [.logicalUnitChanged(key)]
            }),
            ("medium", { it throws(ConfigurationError) in try it.updateLogicalUnit(key, parameters("removable=1,online=0,path=")) }),
            ("new account", { it throws(ConfigurationError) in try it.newAccount(account, secret: Secret(utf8("secret no. \(number)"))) }),
            ("delete account", { it throws(ConfigurationError) in try it.deleteAccount(account) }),
            ("add secret", { it throws(ConfigurationError) in try it.addSecret(Secret(utf8("added secret \(number)")), to: account) }),
            ("retire secret", { it throws(ConfigurationError) in try it.retireSecret(isOdd ? .old : .new, of: account) }),
            ("bind account", { it throws(ConfigurationError) in try it.bindAccount(account, to: place, outgoing: number % 3 == 0) }),
            ("unbind account", { it throws(ConfigurationError) in try it.unbindAccount(account, from: place, outgoing: number % 3 == 0) }),
            ("new portal", { it throws(ConfigurationError) in try it.addPortal(portal) }),
            ("delete portal", { it throws(ConfigurationError) in try it.deletePortal(portal.endpoint) }),
            ("system", { it throws(ConfigurationError) in try it.updateSystem(name: utf8("State"), value: utf8(isOdd ? "ready" : "offline")) }),
            ("debug", { it throws(ConfigurationError) in try it.updateSystem(name: utf8("debug"), value: utf8(isOdd ? "on" : "off")) }),
        ]
        let (name, action) = actions[below(actions.count)]
        var new = configuration
        do throws(ConfigurationError) {
            let changes = try action(&new)
            configuration = new
            done[name, default: 0] += changes.isEmpty ? 0 : 1
            return changes
        } catch {
            done[name] = done[name] ?? 0
            return []
        }
    }
}

@Suite("changes behind what is kept")
struct JournalTests {
    /// A document and these changes, one record each.
    private static func file(_ changes: Int) throws -> (document: [UInt8], records: [[UInt8]], states: [Configuration]) {
        var administrator = Restless(seed: 5)
        var (document, journal) = StateDocument(sequence: 3, configuration: administrator.configuration).encoded(key: key)
        var (records, states) = ([] as [[UInt8]], [administrator.configuration])
        while records.count < changes {
            let parts = Set(try administrator.act().map(\.part))
            guard !parts.isEmpty else { continue }
            records.append(journal.record(parts, of: administrator.configuration))
            states.append(administrator.configuration)
        }
        return (document, records, states)
    }

    private func trouble(_ bytes: [UInt8]) -> StateDocument.Trouble? {
        do throws(StateDocument.Trouble) { _ = try StateDocument(bytes, key: key, base: base) } catch { return error }
        return nil
    }

    @Test("whatever is done, the records of its parts lead to it, each change by itself or many in one", arguments: 1...8 as ClosedRange<UInt64>)
    func replay(seed: UInt64) throws {
        var administrator = Restless(seed: seed)
        var (text, journal) = StateDocument(sequence: 1, configuration: administrator.configuration).encoded(key: key)
        var parts: Set<StatePart> = [], records = 0
        for step in 1...1500 {
            parts.formUnion(try administrator.act().map(\.part))
            // Every tenth hundred of steps each is a record; between, seven are.
            guard step.isMultiple(of: step / 100 % 2 == 0 ? 1 : 7) else { continue }
            text += journal.record(parts, of: administrator.configuration)
            (parts, records) = ([], records + 1)
            guard records.isMultiple(of: 150) || step > 1490 else { continue }
            let found = try StateDocument(text, key: key, base: base)
            #expect(found.recordCount == records && found.tornBytes == 0)
            #expect(found.configuration.stored(Open()) == administrator.configuration.stored(Open()), "seed \(seed), step \(step)")
            #expect(found.configuration.accounts.map(\.secrets) == administrator.configuration.accounts.map(\.secrets))
            for target in administrator.configuration.targets.values { #expect(found.configuration.target(named: target.name)?.id == target.id) }
            #expect(found.configuration.targets == administrator.configuration.targets)
        }
        // Not each of them has unbound an account.
        #expect(administrator.done.values.count { $0 == 0 } <= 1 && (seed > 1 || administrator.done.values.allSatisfy { $0 > 0 }), "\(administrator.done)")
    }

    @Test("a record is as long as what has changed, whatever else there is")
    func cost() throws {
        func length(_ units: Int) throws -> Int {
            var it = base
            _ = try it.newTarget(one, name: utf8("iqn.t"))
            for lun in 1...units { _ = try it.newLogicalUnit(LogicalUnitKey(target: one, lun: lun), blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: .null) }
            var (_, journal) = StateDocument(sequence: 1, configuration: it).encoded(key: key)
            let changes = try it.updateLogicalUnit(LogicalUnitKey(target: one, lun: 1), parameters("product_rev=1")) + it.updateTarget(one, name: utf8("nop_interval"), value: utf8("5"))
            return journal.record(Set(changes.map(\.part)), of: it).count
        }
        #expect(try length(1) == length(2000))
    }

    @Test("cut off anywhere, it has all whole changes, and says that the beginning of another is there")
    func torn() throws {
        let (document, records, states) = try Self.file(2)
        let whole = document + records.joined()
        for length in document.count...whole.count {
            var (count, end) = (0, document.count)
            while count < records.count, end + records[count].count <= length { (count, end) = (count + 1, end + records[count].count) }
            for zeros in [0, 700] {
                let found = try StateDocument(whole.prefix(length) + [UInt8](repeating: 0, count: zeros), key: key, base: base)
                let isRight = found.recordCount == count && found.tornBytes == length - end + zeros && found.configuration.stored(Open()) == states[count].stored(Open())
                if !isRight { Issue.record("\(length) bytes and \(zeros) zeros: \(found.recordCount) records, \(found.tornBytes) torn") }
            }
        }
        for length in 0..<document.count where trouble(Array(whole.prefix(length))) == nil { Issue.record("\(length) bytes are enough") }
    }

    @Test("one other bit, in whichever change, is refused; so is a change that is left out, moved, there twice, or of another file")
    func damaged() throws {
        let (document, records, _) = try Self.file(3)
        let whole = document + records.joined()
        for index in whole.indices {
            // All of them where a line ends: there one could be taken for another's middle.
            for bit in 0..<8 where whole[index] == UInt8(ascii: "\n") || bit == index % 8 {
                var bytes = whole
                bytes[index] ^= 1 << UInt8(bit)
                if trouble(bytes) == nil { Issue.record("bit \(bit) of byte \(index) of \(whole.count) counts for nothing") }
            }
        }
        #expect(trouble(document + records[0] + records[2]) == .damagedRecord(2))
        #expect(trouble(document + records[1] + records[0] + records[2]) == .damagedRecord(1))
        #expect(trouble(whole + records[2]) == .damagedRecord(4))
        #expect(trouble(try Self.file(3).document + records.joined()) == .damagedRecord(1))
        // What no torn end of ours is.
        for end in ["x", "\n", #"{"length":"zz"#, #"{"length":"00000004"#, "\0x", " "] { #expect(trouble(whole + utf8(end)) == .damagedRecord(4), "\(end)") }
        #expect(trouble(document + records[0].map { $0 == 0x30 ? 0 : $0 }) == .damagedRecord(1), "zeros in the midst")
    }

    @Test("no secret stands in a record, and the same change is another record in another file")
    func sealed() throws {
        var it = base
        var (_, journal) = StateDocument(sequence: 1, configuration: it).encoded(key: key), (_, other) = StateDocument(sequence: 1, configuration: it).encoded(key: key)
        let parts = Set(try it.newAccount(AccountName(utf8("u")), secret: Secret(utf8("planted secret here"))).map(\.part))
        let (record, its) = (journal.record(parts, of: it), other.record(parts, of: it))
        for form in ["planted secret", JSONValue.hexadecimal(utf8("planted secret"))] { #expect(!String(decoding: record, as: UTF8.self).contains(form)) }
        #expect(record != its && record.count == its.count)
    }
}

@Suite("from one start to the next")
struct StartTests {
    @Test("portals and debugging that the settings say are not kept; what was added to them is")
    func settings() throws {
        var running = try example()
        let (given, added) = (try Portal(parsing: utf8("192.0.2.1")), try Portal(parsing: utf8("192.0.2.2")))
        for portal in [given, added] { _ = try running.addPortal(portal) }
        running.isDebugging = true
        let kept = running.kept(without: [given], isDebugging: true)
        #expect(try running.kept(without: [Portal(given.endpoint, portalParameters("tpgt=2"))], isDebugging: true).portals == [added])
        #expect(kept.portals == [added] && !kept.isDebugging && kept.targets == running.targets)
        #expect(running.kept(without: [], isDebugging: false) == running)
        var next = base
        _ = try next.addPortal(given)
        next.goOn(with: running.kept(without: [given], isDebugging: false))
        #expect(next == running)
    }

    @Test("a disk whose medium is gone stays, is not served, and wants its store at the next change")
    func missingMedium() throws {
        var configuration = try example()
        #expect(configuration.storesToOpen == [StoreRequest(key: disk, store: try configuration.logicalUnit(disk).store, readOnly: false)])
        #expect(throws: ConfigurationError.self) { try configuration.setMedium(StoreFacts(byteCount: 1 << 20, isWritable: false), of: disk) }
        try configuration.setMedium(nil, of: disk)
        #expect(try configuration.logicalUnit(disk).isOnline && !configuration.logicalUnit(disk).isServed && !configuration.settings(disk).isOnline)
        #expect(try configuration.storeToOpen(disk, parameters("online=1")) != nil)
        _ = try configuration.updateLogicalUnit(disk, parameters("online=1"), medium: StoreFacts(byteCount: 1 << 20, isWritable: true))
        #expect(try configuration.logicalUnit(disk) == example().logicalUnit(disk))
    }
}
