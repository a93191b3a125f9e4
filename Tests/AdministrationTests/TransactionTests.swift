import Administration
import Bytes
import Foundation
import ISCSI
import Management
import Model
import Testing

/// A control process that carries out transactions, without any machine below it.
struct TransactionRig {
    var rig: Rig
    /// Between the effects and the commit.
    var meanwhile: (inout Configuration) throws -> Void = { _ in }
    private(set) var needs = Transaction.Needs()
    private(set) var commit: Transaction.Commit?

    init(_ rig: Rig) { self.rig = rig }

    static func request(_ line: String) throws -> AdminRequest {
        var command = TgtadmCommandLine()
        var words = line.split(separator: " ").map(String.init)[...]
        while let word = words.popFirst() {
            let option = try #require(TgtadmOption.all.first { "--" + $0.name == word || utf8(word) == [UInt8(ascii: "-"), $0.letter] })
            if let end = command.take(option.letter, option.longTakesArgument ? words.popFirst().map(utf8) : nil) { throw end }
        }
        return try command.finishLine(strays: []).get()
    }

    mutating func run(_ lines: [String]) throws -> Transaction.Refused? {
        let transaction = Transaction(try lines.map(Self.request))
        needs = .init()
        commit = nil
        do throws(Transaction.Refused) { needs = try transaction.prepare(rig.configuration, rig.view) } catch { return error }
        var outcomes: [Int: EffectOutcome] = [:]
        for (index, store) in needs.openings {
            guard let path = store.store.path, let size = rig.stores[text(path.bytes)] else { return Transaction.Refused(index, .invalidRequest, "no such file") }
            outcomes[index] = .opened(StoreFacts(byteCount: size, isWritable: !store.readOnly))
        }
        for (index, effect) in needs.portals {
            if case .listen(let portal) = effect { outcomes[index] = .listening(portal.endpoint.port == 0 ? portal.listening(on: 4000) : portal) } else { outcomes[index] = .done }
        }
        try meanwhile(&rig.configuration)
        do throws(Transaction.Refused) {
            let commit = try transaction.commit(needs, outcomes, rig.configuration, rig.view)
            rig.configuration = commit.configuration
            self.commit = commit
            return nil
        } catch {
            return error
        }
    }
}

@Suite("transactions")
struct TransactionTests {
    static func unit(_ tid: Int32, _ lun: Int) throws -> LogicalUnitKey { LogicalUnitKey(target: try #require(TargetID(rawValue: tid)), lun: lun) }

    @Test("what many requests come to is one change, and what they open is known by their place")
    func build() throws {
        var run = TransactionRig(try Rig())
        #expect(try run.run([
            "--mode account --op new --user u --password long-enough-1", "--mode target --op new --tid 2 -T iqn.two", "--mode lu --op new --tid 2 --lun 1 -b /tmp/pcx/disk1",
            "--mode lu --op new --tid 2 --lun 2 --bstype null -b x", "--mode target --op bind --tid 2 -I ALL", "--mode account --op bind --tid 2 --user u",
            "--mode lu --op update --tid 2 --lun 1 --params thin_provisioning=1", "--mode portal --op new --params portal=127.0.0.1:0",
            "--mode target --op update --tid 2 --name nop_interval --value 5",
        ]) == nil)
        #expect(run.needs.openings.keys.sorted() == [2] && run.needs.portals.keys.sorted() == [7] && run.needs.targets.isEmpty && run.needs.logicalUnits.isEmpty)
        let commit = try #require(run.commit)
        let two = try #require(TargetID(rawValue: 2))
        #expect(try commit.changes == [.targetAdded(two), .accountChanged(.init(name: AccountName(utf8("u")))), .portalAdded(Portal(parsing: utf8("127.0.0.1:4000")))])
        #expect(try commit.stores == [Self.unit(2, 1): 2] && commit.closedPortals.isEmpty)
        let target = try #require(run.rig.configuration.targets[two])
        #expect(target.logicalUnits.count == 3 && target.logicalUnits[1]?.isThinProvisioned == true && target.logicalUnits[1]?.medium?.byteCount == 100 << 20)
    }

    @Test("one request that is wrong, and none is done", arguments: [
        ("--mode target --op new --tid 1 -T iqn.again", TgtError.targetExists), ("--mode target --op new --tid 9 -T iqn.NEW", .targetExists),
        ("--mode lu --op new --tid 5 --lun 1 -b /tmp/pcx/disk2", .logicalUnitExists), ("--mode lu --op new --tid 5 --lun 3 -b /nowhere", .invalidRequest),
        ("--mode lu --op new --tid 5 --lun 3 -b /tmp/pcx/tiny -y 4096", .invalidRequest), ("--mode lu --op delete --tid 5 --lun 7", .noLogicalUnit),
        ("--mode target --op delete --tid 77", .noTarget), ("--mode target --op delete --tid 1", .targetActive), ("--mode account --op bind --tid 5 --user none", .noAccount),
        ("--mode target --op bind --tid 5 -I ALL", .ruleExists), ("--lld iser --mode target --op new --tid 8 -T iqn.8", .noDriver),
        ("--mode portal --op new --params portal=127.0.0.1:13990", .invalidRequest), ("--mode portal --op delete --params portal=127.0.0.1:1", .invalidRequest),
        ("--mode target --op show", .invalidRequest), ("--mode system --op delete", .invalidRequest), ("--mode conn --op delete --tid 1 --sid 11 --cid 0", .invalidRequest),
        ("--mode lld --op stop", .invalidRequest), ("--mode system --op stat", .invalidRequest),
    ])
    func refused(line: String, error: TgtError) throws {
        var run = TransactionRig(try busyRig())
        run.rig.stores["/tmp/pcx/tiny"] = 1024
        let before = run.rig.configuration
        let first = [
            "--mode target --op new --tid 5 -T iqn.new", "--mode lu --op new --tid 5 --lun 1 -b /tmp/pcx/disk2", "--mode target --op bind --tid 5 -I ALL",
            "--mode target --op update --tid 1 --name state --value offline",
        ]
        let refused = try #require(try run.run(first + [line] + ["--mode target --op new --tid 6 -T iqn.six"]))
        #expect(refused.request == 4 && refused.error == error && !refused.reason.isEmpty)
        #expect(refused.answer.request == 4 && refused.answer.response.error == error.rawValue)
        #expect(run.rig.configuration == before && run.commit == nil)
    }

    @Test("what goes and comes again in one transaction is withdrawn first and made new")
    func recreate() throws {
        var run = TransactionRig(try busyRig())
        #expect(try run.run([
            "--mode target --op delete --tid 1 --force", "--mode target --op new --tid 1 -T iqn.t", "--mode lu --op new --tid 1 --lun 1 -b /tmp/pcx/disk3",
            "--mode target --op bind --tid 1 -I 10.0.0.1",
        ]) == nil)
        #expect(run.needs.withdrawals == [[], [], [.withdrawTarget(one, force: true)]])
        #expect(run.commit?.changes == [.targetRemoved(one), .targetAdded(one)])
        #expect(run.commit?.stores == [disk: 2])
        #expect(run.rig.configuration.targets[one]?.addressRules.map(\.spelling) == ["10.0.0.1"])

        // A logical unit alone; and one whose target goes anyway.
        #expect(try run.run(["--mode lu --op delete --tid 1 --lun 1", "--mode lu --op new --tid 1 --lun 1 -b /tmp/pcx/disk2", "--mode lu --op update --tid 1 --lun 1 --params readonly=1"]) == nil)
        #expect(run.needs.withdrawals == [[.withdrawLogicalUnit(disk)], [], []])
        #expect(run.commit?.changes == [.logicalUnitRemoved(disk), .logicalUnitAdded(disk)] && run.commit?.stores == [disk: 1])
        run.rig.view.sessions = []
        #expect(try run.run(["--mode lu --op delete --tid 1 --lun 1", "--mode target --op delete --tid 1"]) == nil)
        #expect(run.needs.withdrawals == [[], [.withdrawTarget(one, force: false)], []])
        #expect(run.commit?.changes == [.targetRemoved(one)])
    }

    @Test("what comes and goes within a transaction is nobody's business, but its stores have to open")
    func passing() throws {
        var run = TransactionRig(try busyRig())
        let before = run.rig.configuration
        #expect(try run.run([
            "--mode target --op new --tid 2 -T iqn.two", "--mode lu --op new --tid 2 --lun 1 -b /tmp/pcx/disk2", "--mode lu --op delete --tid 2 --lun 1",
            "--mode lu --op new --tid 2 --lun 1 -b /tmp/pcx/disk3", "--mode target --op delete --tid 2", "--mode lu --op new --tid 1 --lun 2 -b /tmp/pcx/disk2",
            "--mode lu --op delete --tid 1 --lun 2", "--mode portal --op new --params portal=127.0.0.1:5000", "--mode portal --op delete --params portal=127.0.0.1:5000",
        ]) == nil)
        #expect(run.needs.openings.keys.sorted() == [1, 3, 5] && run.needs.targets.isEmpty && run.needs.logicalUnits.isEmpty)
        let commit = try #require(run.commit)
        #expect(commit.changes.allSatisfy { if case .portalAdded = $0 { true } else if case .portalRemoved = $0 { true } else { false } })
        #expect(try commit.stores.isEmpty && commit.closedPortals == [PortalAddress(parsing: utf8("127.0.0.1:5000"))])
        #expect(run.rig.configuration == before)
        #expect(try run.run(["--mode target --op new --tid 2 -T iqn.two", "--mode lu --op new --tid 2 --lun 1 -b /nowhere", "--mode target --op delete --tid 2"])?.request == 1)
    }

    @Test("a portal that is closed and opened again stays open")
    func portals() throws {
        var run = TransactionRig(try busyRig())
        let portal = "--params portal=127.0.0.1:13990"
        #expect(try run.run(["--mode portal --op delete \(portal)", "--mode portal --op new \(portal)"]) == nil)
        #expect(run.needs.portals.isEmpty && run.commit?.closedPortals == [])
        #expect(try run.run(["--mode portal --op delete \(portal)"]) == nil)
        #expect(try run.commit?.closedPortals == [PortalAddress(parsing: utf8("127.0.0.1:13990"))] && run.rig.configuration.portals.isEmpty)
    }

    @Test("files of portals are read before anything changes, and TLS is never in the place of a clear portal that stays open")
    func securePortals() throws {
        var run = TransactionRig(try Rig())
        let (clear, secure) = ("--params portal=127.0.0.1:13990", "--params portal=127.0.0.1:5000,tls=required,psk-file=/p")
        #expect(try run.run(["--mode portal --op new \(secure)", "--mode portal --op update \(clear),tpgt=2"]) == nil)
        let made = try Portal(PortalAddress(parsing: utf8("127.0.0.1:5000")), [.init(name: utf8("tls"), value: utf8("required")), .init(name: utf8("psk-file"), value: utf8("/p"))])
        let changed = try #require(run.rig.configuration.portals.first)
        #expect(run.needs.portals == [0: .listen(made), 1: .renewPortal(changed)] && changed.groupTag == 2)
        #expect(run.commit?.changes == [.portalAdded(made), .portalChanged(changed)] && run.rig.configuration.portals == [changed, made])
        #expect(try run.run(["--mode portal --op delete \(clear)", "--mode portal --op new \(clear),tls=required,psk-file=/p"])?.request == 1)
        #expect(try run.run(["--mode portal --op delete --params portal=127.0.0.1:5000", "--mode portal --op new \(secure)"])?.request == 1)
        #expect(try run.run(["--mode portal --op new --params portal=127.0.0.1:1", "--mode portal --op update --params portal=127.0.0.1:1,tpgt=2"])?.request == 1)
        #expect(try run.run(["--mode portal --op update --params portal=127.0.0.1:1,tpgt=2"])?.error == .invalidRequest)
        #expect(try run.run(["--mode portal --op update \(clear),tpgt=3"]) == nil)
        run.meanwhile = { _ = try $0.changePortal(try $0.portals[0].with([.init(name: utf8("advertise"), value: utf8("192.0.2.1"))])) }
        // What was read was for the portal of then.
        #expect(try run.run(["--mode portal --op update \(clear),tpgt=4"]) != nil)
    }

    @Test("the last medium of a logical unit is the one it has")
    func media() throws {
        var run = TransactionRig(try busyRig())
        let update = "--mode lu --op update --tid 1 --lun 1 --params "
        #expect(try run.run([update + "removable=1,online=0,path=/tmp/pcx/disk2", update + "online=0,path=/tmp/pcx/disk3", update + "thin_provisioning=1"]) == nil)
        #expect(run.needs.openings.keys.sorted() == [0, 1] && run.commit?.stores == [disk: 1] && run.commit?.changes == [.mediumChanged(disk)])
        #expect(try run.run([update + "online=0,path=/tmp/pcx/disk2", update + "online=0,path="]) == nil)
        #expect(run.commit?.stores == [:] && run.commit?.changes == [.mediumChanged(disk)] && run.rig.configuration.targets[one]?.logicalUnits[1]?.medium == nil)
        #expect(try run.run([update + "readonly=1", update + "readonly=0,product_id=x"]) == nil)
        #expect(run.commit?.changes == [.logicalUnitChanged(disk)])
    }

    @Test("each change of a target is told once")
    func told() throws {
        var run = TransactionRig(try busyRig())
        #expect(try run.run([
            "--mode target --op bind --tid 1 -I 10.0.0.1", "--mode target --op unbind --tid 1 -I ALL", "--mode system --op update --name State --value offline",
            "--mode system --op update --name State --value ready", "--mode target --op bind --tid 1 -Q iqn.x",
        ]) == nil)
        #expect(run.commit?.changes == [.rulesChanged(one), .systemStateChanged])
    }

    @Test("what somebody else changed meanwhile refuses the whole", arguments: [
        ("delete", "--mode target --op bind --tid 1 -I 10.0.0.9", Optional(0)), ("taken", "--mode target --op new --tid 3 -T iqn.3", 0),
        ("remade", "--mode lu --op delete --tid 1 --lun 1", 0), ("moved", "--mode lu --op update --tid 1 --lun 1 --params online=0,path=/tmp/pcx/disk2,removable=1", nil),
    ])
    func conflict(what: String, line: String, request: Int?) throws {
        var run = TransactionRig(try busyRig())
        run.meanwhile = { configuration in
            switch what {
            case "taken": _ = try configuration.newTarget(try #require(TargetID(rawValue: 3)), name: utf8("iqn.other"))
            case "remade": _ = try configuration.deleteLogicalUnit(disk)
            case "moved":
                _ = try configuration.updateLogicalUnit(disk, [.init(name: utf8("readonly"), value: utf8("1"))])
            default: _ = try configuration.deleteTarget(one)
            }
        }
        let refused = try #require(try run.run([line]))
        #expect(refused.request == request && run.commit == nil)
        if request == nil { #expect(refused.error == .logicalUnitActive) }
    }

    @Test("ten thousand targets with ten disks each are one transaction, and its work is proportional")
    func large() throws {
        var requests: [AdminRequest] = []
        for tid in 1...10_000 as ClosedRange<Int32> {
            requests.append(AdminRequest(.newTarget(tid: tid, name: utf8("iqn.2026-11.org.example:\(tid)"))))
            for lun in 1...10 as ClosedRange<UInt64> {
                var unit = AdminRequest.NewLogicalUnit()
                unit.path = utf8("/dev/vg0/volume-\(tid)-\(lun)")
                requests.append(AdminRequest(.newLogicalUnit(tid: tid, lun: lun, unit)))
            }
            requests.append(AdminRequest(.bindInitiators(tid: tid, .init(address: utf8("10.0.0.0/8")))))
        }
        let bytes = try #require(NativeRequest(.transaction(requests)).encoded())
        #expect(bytes.count <= NativeProtocol.greatestRequest)
        let configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16)))
        let transaction = Transaction(requests)
        let start = ContinuousClock.now
        let needs = try transaction.prepare(configuration, RuntimeView())
        #expect(needs.openings.count == 100_000)
        let commit = try transaction.commit(
            needs, needs.openings.mapValues { _ in .opened(StoreFacts(byteCount: 1 << 30, isWritable: true)) }, configuration, RuntimeView())
        // Quadratic work would take many minutes, even in a release build.
        #expect(ContinuousClock.now - start < .seconds(60))
        #expect(commit.stores.count == 100_000 && commit.changes.count == 10_000 && commit.configuration.targets.count == 10_000)

        let deletion = Transaction((1...10_000).map { AdminRequest(.deleteTarget(tid: $0, force: true)) })
        let gone = try deletion.commit(try deletion.prepare(commit.configuration, RuntimeView()), [:], commit.configuration, RuntimeView())
        #expect(gone.configuration.targets.isEmpty && gone.changes.count == 10_000)
    }
}

@Suite("reports in JSON")
struct JSONReportTests {
    static func report(_ rig: Rig, _ action: AdminRequest.Action) throws -> [String: Any] {
        guard case .answer(let answer) = Administrator.plan(AdminRequest(action), rig.configuration, rig.view, format: .json) else { throw TgtError.unknown }
        #expect(answer.reason == nil)
        let parsed = try JSONSerialization.jsonObject(with: Data(answer.response.text)) as? [String: Any]
        #expect(parsed?["schemaVersion"] as? Int == 1)
        return try #require(parsed)
    }

    static func members(_ value: Any?) -> [String] { (value as? [String: Any])?.keys.sorted() ?? [] }
    static func first(_ value: Any?) throws -> [String: Any] { try #require((value as? [[String: Any]])?.first) }

    static func rig() throws -> Rig {
        var rig = try busyRig()
        for line in [
            "--op new --mode account --user secretive --password long-enough-1", "--op bind --mode account --tid 1 --user secretive", "--op bind --mode target --tid 1 -Q iqn.x*",
            "--op new --mode lu --tid 1 --lun 2 -b /tmp/pcx/disk2 -f sync:direct -y 4096",
        ] { #expect(try rig.call(line).code == 0) }
        rig.view.limits = [("some limit", "12")]
        rig.view.audit = RuntimeView.Audit(directory: "/a")
        rig.view.penalties = RuntimeView.Penalties()
        rig.view.penalties?.waiting = { [("192.0.2.1", 12)] }
        return rig
    }

    /// `JSONSchema` is a promise: a member may be added here, none may go.
    @Test("every report has the members that its schema says")
    func schema() throws {
        let rig = try Self.rig()
        let system = try Self.report(rig, .showSystem)["system"] as? [String: Any]
        #expect(Self.members(system) == ["audit", "backingStores", "debug", "deviceTypes", "discoveryAccounts", "hindrance", "limits", "penalties", "state", "version"])
        #expect(Self.members(system?["audit"]) == ["directory", "networkTrouble", "trouble"])
        #expect(Self.members(system?["penalties"]) == ["refusedAnswers", "refusedConnections", "sourcesRemembered", "sourcesWaiting"])
        let penalty = try Self.first(try Self.report(rig, .showPenalties)["penalties"])
        #expect(penalty["source"] as? String == "192.0.2.1" && penalty["secondsLeft"] as? Int == 12)
        #expect(system?["limits"] as? [String: String] == ["some limit": "12"])
        #expect(Self.members(system?["discoveryAccounts"]) == ["incoming", "initiators", "outgoing"])

        let shown = try Self.report(rig, .showTargets)
        #expect(NSDictionary(dictionary: shown) == NSDictionary(dictionary: try Self.report(rig, .showTarget(tid: 1))))
        let target = try Self.first(shown["targets"])
        #expect(target.keys.sorted() == ["accounts", "logicalUnits", "name", "nopCount", "nopInterval", "parameters", "requireMutualCHAP", "requireTLS", "rules", "sessions", "state", "tenant", "tid"])
        #expect((target["parameters"] as? [String: String])?["MaxBurstLength"] == "262144")
        let rules = try #require(target["rules"] as? [String: Any])
        #expect(rules.keys.sorted() == ["addresses", "masks", "names"])
        #expect(rules["addresses"] as? [String] == ["ALL"] && rules["names"] as? [String] == ["iqn.x*"])
        #expect((target["accounts"] as? [String: Any])?["incoming"] as? [String] == ["secretive"])
        let sessions = try #require(target["sessions"] as? [[String: Any]])
        #expect(sessions.map { $0["sid"] as? Int } == [11, 12] && sessions[0].keys.sorted() == ["connections", "initiatorAlias", "initiatorName", "sid"])
        #expect(sessions[0]["initiatorAlias"] is NSNull && sessions[1]["initiatorAlias"] as? String == #"x\x0a\x1b[1mTarget 9: z"#)
        #expect(Self.members(try Self.first(sessions[0]["connections"])) == ["address", "cid"])
        let units = try #require(target["logicalUnits"] as? [[String: Any]])
        #expect(units.count == 3 && units[2].keys.sorted() == [
            "backingStore", "blockSize", "flushFailed", "identity", "lun", "online", "preventRemoval", "product", "readOnly", "removable", "revision",
            "size", "softwareWriteProtected", "thinProvisioning", "type", "vendor",
        ])
        #expect(units[2]["size"] as? Int == 1 << 30 && units[2]["blockSize"] as? Int == 4096 && units[0]["blockSize"] as? Int == 1)
        #expect(Self.members(units[2]["identity"]) == ["naa", "scsiId", "serialNumber"])
        let store = try #require(units[2]["backingStore"] as? [String: Any])
        #expect(store["path"] as? String == "/tmp/pcx/disk2" && store["flags"] as? [String] == ["sync", "direct"] && store["type"] as? String == "rdwr")
        #expect((units[0]["backingStore"] as? [String: Any])?["path"] is NSNull)

        #expect(try Self.first(Self.report(rig, .showConnections(tid: 1))["connections"]).keys.sorted() == ["address", "cid", "initiatorAlias", "initiatorName", "sid", "tid"])
        #expect(try Self.first(Self.report(rig, .showPortals)["portals"]).keys.sorted() == ["address", "advertise", "groupTag", "open", "port", "tls"])
        let account = try Self.first(Self.report(rig, .showAccounts)["accounts"])
        #expect(NSDictionary(dictionary: account) == ["name": "secretive", "tenant": "default", "secrets": 1])
        #expect(try Self.first(Self.report(rig, .showDrivers)["drivers"]).keys.sorted() == ["name", "state", "targets"])
    }

    @Test("statistics have the members that their schema says")
    func statistics() throws {
        var rig = try Self.rig()
        var row = RuntimeView.Statistics(key: disk, tsih: 11)
        row.writeDone = .init(bytes: 512, commands: 1)
        rig.view.statistics = [row]
        for action in [AdminRequest.Action.statSystem, .statTarget(tid: 1), .statLogicalUnit(tid: 1, lun: 1), .statSession(tid: 1, sid: 11)] {
            let rows = try #require(try Self.report(rig, action)["statistics"] as? [[String: Any]])
            #expect(rows[0].keys.sorted() == ["errors", "lun", "reads", "sid", "tid", "writes"])
            let written = try #require(rows.first { $0["lun"] as? Int == 1 && $0["sid"] as? Int == 11 })
            #expect(written["writes"] as? [String: Int] == ["submittedBytes": 0, "submittedCommands": 0, "doneBytes": 512, "doneCommands": 1])
        }
        for action in [AdminRequest.Action.statSession(tid: 1, sid: 11), .statConnections(tid: 1, sid: 11)] {
            let connection = try Self.first(Self.report(rig, action)["connections"])
            #expect(connection["receivedOctets"] as? Int == 4544 && connection.count == 8)
        }
    }

    @Test("what does not exist is refused in JSON as it is in text")
    func refusals() throws {
        let rig = try Self.rig()
        for action in [AdminRequest.Action.showTarget(tid: 9), .showConnections(tid: 9), .statTarget(tid: 9), .statLogicalUnit(tid: 1, lun: 9), .statSession(tid: 1, sid: 9), .statConnections(tid: 1, sid: 9)] {
            guard case .answer(let json) = Administrator.plan(AdminRequest(action), rig.configuration, rig.view, format: .json),
                  case .answer(let plain) = Administrator.plan(AdminRequest(action), rig.configuration, rig.view)
            else { throw TgtError.unknown }
            #expect(json == plain && json.reason != nil)
        }
    }
}
