import Administration
import Bytes
import Crypto
import ISCSI
import Management
import Model
import Testing

let one = TargetID(rawValue: 1)!
let disk = LogicalUnitKey(target: one, lun: 1)

/// Target 1 with a disk, and two sessions of which the second has sent an alias made to forge a report.
func busyRig() throws -> Rig {
    var rig = try Rig()
    for line in ["--op new --mode target --tid 1 -T iqn.t", "--op new --mode lu --tid 1 --lun 1 -b /tmp/pcx/disk1", "--op bind --mode target --tid 1 -I ALL"] {
        #expect(try rig.call(line).code == 0)
    }
    var counters = RuntimeView.ConnectionCounters()
    counters.receivedOctets = 4544
    counters.sentOctets = 4560
    counters.commandPDUs = 5
    rig.view.sessions = [
        .init(target: one, tsih: 11, initiatorName: try ISCSIName(utf8("iqn.One")), connections: [
            .init(cid: 0, address: NetworkAddress(parsing: utf8("127.0.0.1"))!, counters: counters)]),
        .init(target: one, tsih: 12, initiatorName: try ISCSIName(utf8("iqn.two")), initiatorAlias: utf8("x\n\u{1b}[1mTarget 9: z"), connections: [
            .init(cid: 3, address: NetworkAddress(parsing: utf8("2001:db8::2"))!)]),
    ]
    return rig
}

@Suite("what requests take")
struct PlanTests {
    @Test("a new disk is opened before it exists, and the answer waits for that")
    func newDisk() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op new --mode lu --tid 1 --lun 2 -b /tmp/pcx/disk2 -f direct").code == 0)
        let key = LogicalUnitKey(target: one, lun: 2)
        #expect(rig.effects == [.openStore(StoreRequest(key: key, store: BackingStore(kind: .rdwr, path: try StorePath(utf8("/tmp/pcx/disk2")), flags: .direct), readOnly: false))])
        #expect(rig.changes == [.logicalUnitAdded(key)])
    }

    @Test("nothing is opened for a request that is wrong anyway", arguments: [
        "--tid 9 --lun 1 -b /tmp/pcx/disk1", "--tid 1 --lun 1 -b /tmp/pcx/disk1", "--tid 1 --lun 2 -b /tmp/pcx/disk1 -y 1000", "--tid 1 --lun 2 -b /tmp/pcx/disk1 -y x",
        "--tid 1 --lun 2 -b /tmp/pcx/disk1 -E aio", "--tid 1 --lun 2 -b /tmp/pcx/disk1 -f none", "--tid 1 --lun 2 -b /tmp/pcx/disk1 -S x", "--tid 1 --lun 2 -b /tmp/pcx/disk1 -Y tape",
        "--tid 1 --lun 16384 -b /tmp/pcx/disk1", "--tid 1 --lun 18446744073709551614 -b /tmp/pcx/disk1", "--tid 1 --lun 2 --backing-store=",
    ])
    func wrongDisks(words: String) throws {
        var rig = try busyRig()
        let before = rig.configuration
        #expect(try rig.call("--op new --mode lu " + words).code == 22)
        #expect(rig.effects.isEmpty && rig.configuration == before && rig.reason != nil)
    }

    @Test("a failed effect is the answer, and nothing changes", arguments: [
        ("--op new --mode lu --tid 1 --lun 2 -b /x", TgtError.invalidRequest), ("--op delete --mode lu --tid 1 --lun 1", .logicalUnitActive),
        ("--op delete --mode target --tid 1 --force", .targetActive), ("--op delete --mode conn --tid 1 --sid 11 --cid 0", .noConnection),
        ("--op new --mode portal --param portal=10.0.0.1", .invalidRequest), ("--op update --mode lu --tid 1 --lun 1 --params online=0,path=/x", .invalidRequest),
    ])
    func failures(words: String, error: TgtError) throws {
        var rig = try busyRig()
        let before = rig.configuration
        rig.failure = (error, "why")
        #expect(try rig.call(words).errors == ["tgtadm: " + error.text])
        #expect(rig.effects.count == 1 && rig.configuration == before && rig.reason == "why")
    }

    @Test("a target with sessions goes only by force, and then they end first")
    func deleteTarget() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op delete --mode target --tid 1").errors == ["tgtadm: this target is still active"])
        #expect(rig.effects.isEmpty)
        #expect(try rig.call("--op delete --mode target --tid 1 --force").code == 0)
        #expect(rig.effects == [.withdrawTarget(one, force: true)] && rig.changes == [.targetRemoved(one)])
        #expect(rig.configuration.targets.isEmpty)
    }

    @Test("a target without sessions is withdrawn all the same: a login may be on its way")
    func deleteIdleTarget() throws {
        var rig = try busyRig()
        rig.view.sessions = []
        #expect(try rig.call("--op delete --mode target --tid 1").code == 0)
        #expect(rig.effects == [.withdrawTarget(one, force: false)])
    }

    @Test("a logical unit is withdrawn before it is deleted")
    func deleteLogicalUnit() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op delete --mode lu --tid 1 --lun 1").code == 0)
        #expect(rig.effects == [.withdrawLogicalUnit(disk)] && rig.changes == [.logicalUnitRemoved(disk)])
    }

    @Test("a connection is ended, the configuration stays")
    func deleteConnection() throws {
        var rig = try busyRig()
        let before = rig.configuration
        #expect(try rig.call("--op delete --mode conn --tid 1 --sid 12 --cid 3").code == 0)
        #expect(rig.effects == [.endConnection(one, tsih: 12, cid: 3)] && rig.configuration == before)
        #expect(try rig.call("--op delete --mode conn --tid 1 --sid 12 --cid 0").errors == ["tgtadm: can't find the connection"])
        #expect(try rig.call("--op delete --mode conn --tid 1 --sid 12 --cid 65539").errors == ["tgtadm: can't find the connection"])
        #expect(try rig.call("--op delete --mode conn --tid 1 --sid 13 --cid 0").errors == ["tgtadm: can't find the session"])
        #expect(try rig.call("--op delete --mode conn --tid 1 --sid 65548 --cid 3").errors == ["tgtadm: can't find the session"])
    }

    @Test("a locked medium is not changed, settings are")
    func lockedMedium() throws {
        var rig = try busyRig()
        var condition = RuntimeView.LogicalUnitCondition()
        condition.preventsRemoval = true
        rig.view.logicalUnits[disk] = condition
        #expect(try rig.call("--op update --mode lu --tid 1 --lun 1 --params removable=1,online=0,path=").errors == ["tgtadm: this device has Prevent Removal set"])
        #expect(try rig.call("--op update --mode lu --tid 1 --lun 1 --params readonly=1").code == 0)
    }

    @Test("settings that need no store have no effect outside, and an unchanged unit no change")
    func updateOnly() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op update --mode lu --tid 1 --lun 1 --params thin_provisioning=1").code == 0)
        #expect(rig.effects.isEmpty && rig.changes == [.logicalUnitChanged(disk)])
        #expect(try rig.call("--op update --mode lu --tid 1 --lun 1 --params thin_provisioning=1").code == 0)
        #expect(rig.changes.isEmpty)
    }

    @Test("addresses and names given together are both bound")
    func bindBoth() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op bind --mode target --tid 1 -I 10.0.0.1 -Q iqn.x").code == 0)
        #expect(rig.changes == [.rulesChanged(one)])
        let target = try #require(rig.configuration.targets[one])
        #expect(target.addressRules.map(\.spelling) == ["ALL", "10.0.0.1"] && target.nameRules.map(\.spelling) == ["iqn.x"])
        #expect(try rig.call("--op bind --mode target --tid 1 -B 1").errors == ["tgtadm: invalid request"])
    }

    @Test("what a rule shows is bound with it, changed in its place, and shown; a rule that shows everything is shown as ever")
    func masks() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op bind --mode target --tid 1 -Q iqn.x -I 10.0.0.0/8 --luns 7,2-5:ro,0").code == 0)
        #expect(rig.changes == [.rulesChanged(one)])
        let shown = text(try rig.call("--op show --mode target").output)
        #expect(shown.hasSuffix("    ACL information:\n        ALL\n        10.0.0.0/8 (LUNs 0,2-5:ro,7)\n        iqn.x (LUNs 0,2-5:ro,7)\n"))
        #expect(try rig.call("--op bind --mode target --tid 1 -Q iqn.x --luns all:ro").code == 0)
        #expect(try rig.call("--op bind --mode target --tid 1 -Q iqn.x").errors == ["tgtadm: this access control rule already exists"])
        #expect(try rig.call("--op bind --mode target --tid 1 -Q iqn.y --luns 1,1").errors == ["tgtadm: invalid request"])
        #expect(text(try rig.call("--op show --mode target").output).hasSuffix("        iqn.x (LUNs all:ro)\n"))
        let json = text(try rig.call("--op show --mode target --json").output)
        #expect(json.contains(#""rules":{"addresses":["ALL","10.0.0.0/8"],"names":["iqn.x"],"masks":[{"address":"10.0.0.0/8","name":null,"luns":"0,2-5:ro,7"},{"address":null,"name":"iqn.x","luns":"all:ro"}]}"#))
        #expect(try rig.call("--op unbind --mode target --tid 1 -Q iqn.x").code == 0)
    }

    @Test("a secret is drawn for an account, new or there, and shown in the answer alone")
    func generated() throws {
        var rig = try busyRig()
        let first = text(try rig.call("--mode account --op generate --user alice").output)
        #expect(try first.utf8.count == 17 && rig.effects == [.drawSecret(characters: 16)] && rig.changes == [.accountChanged(.init(name: AccountName(utf8("alice"))))])
        let alice = try AccountName(utf8("alice"))
        #expect(rig.configuration.account(alice)?.secrets == [Secret(utf8(String(first.dropLast())))])
        let second = text(try rig.call("--mode account --op generate --user alice --bits 256 --json").output)
        #expect(second.hasPrefix(#"{"schemaVersion":1,"account":{"name":"alice","secret":""#) && second.utf8.count == 43 + 59)
        #expect(rig.configuration.account(alice)?.secrets.map(\.count) == [16, 43])
        #expect(try rig.call("--mode account --op generate --user alice").errors == ["tgtadm: invalid request"])
        #expect(text(try rig.call("--op show --mode account").output) == "Account list:\n    alice (two secrets)\n")
        #expect(text(try rig.call("--op show --mode account --json").output).contains(#"[{"tenant":"default","name":"alice","secrets":2}]"#))
        #expect(try rig.call("--mode account --op update --user alice --retire-secret old").code == 0 && rig.changes == [.accountChanged(.init(name: AccountName(utf8("alice"))))])
        #expect(rig.configuration.account(alice)?.secrets.map(\.count) == [43])
        #expect(try rig.call("--mode account --op update --user alice --add-secret -p long-enough-1").code == 0)
        #expect(try rig.call("--mode account --op update --user alice --retire-secret new").code == 0)
        for bits in [0, 95, 1531, 4_294_967_295] { #expect(try rig.call("--mode account --op generate --user bob --bits \(bits)").errors == ["tgtadm: invalid request"]) }
        #expect(try rig.call("--mode account --op update --user bob --retire-secret new").errors == ["tgtadm: can't find the account"])
        var all: Set<Secret> = []
        for _ in 0..<100 { all.insert(.printable(characters: 16)) }
        #expect(all.count == 100)
    }

    @Test("an account is bound for one initiator, and shown so")
    func boundForInitiator() throws {
        var rig = try busyRig()
        for user in ["alice", "bob"] { #expect(try rig.call("--op new --mode account --user \(user) --password secret-of-\(user)").code == 0) }
        #expect(try rig.call("--op bind --mode account --tid 1 --user alice -Q iqn.X").code == 0)
        #expect(rig.changes == [.accountsChanged(one)])
        #expect(try rig.call("--op bind --mode account --tid 1 --user bob").code == 0)
        #expect(text(try rig.call("--op show --mode target").output).contains("    Account information:\n        alice (for iqn.X)\n        bob\n    ACL"))
        #expect(text(try rig.call("--op show --mode target --json").output).contains(
            #""accounts":{"incoming":["alice","bob"],"outgoing":null,"initiators":[{"account":"alice","initiator":"iqn.X"}]}"#))
        #expect(text(try rig.call("--mode access --op explain --tid 1 -Q iqn.y -I ::1 --user alice").output).hasPrefix("refused"))
        #expect(text(try rig.call("--mode access --op explain --tid 1 -Q iqn.x -I ::1 --user alice").output).hasPrefix("admitted"))
        #expect(try rig.call("--op bind --mode account --tid 1 --user alice -Q not_a_name").errors == ["tgtadm: invalid request"])
        #expect(try rig.call("--op unbind --mode account --tid 1 --user alice -Q iqn.y").errors == ["tgtadm: can't find the account"])
        #expect(try rig.call("--op unbind --mode account --tid 1 --user alice -Q iqn.x").code == 0)
    }

    @Test("explain says what would decide, in text and JSON")
    func explained() throws {
        var rig = try busyRig()
        func explain(_ name: String, _ address: String, _ more: String = "") throws -> String {
            text(try rig.call("--mode access --op explain --tid 1 -Q \(name) -I \(address) \(more)").output)
        }
        #expect(try explain("iqn.x", "10.0.0.1") == "admitted\n    by the address rule ALL\n")
        _ = try rig.call("--op bind --mode target --tid 1 -Q iqn.* -I 10.0.0.0/8 --luns 0-3:ro,5")
        _ = try rig.call("--op bind --mode target --tid 1 -Q iqn.x --luns 1-9")
        #expect(try explain("iqn.x", "10.0.0.1") == "admitted\n    by the address rule 10.0.0.0/8 (LUNs 0-3:ro,5)\n    by the name rule iqn.x (LUNs 1-9)\n    shown LUNs: 1-3:ro,5\n")
        #expect(try explain("iqn.x", "::1") == "admitted\n    by the address rule ALL\n    by the name rule iqn.x (LUNs 1-9)\n    shown LUNs: 1-9\n")
        #expect(try explain("eui.1", "::1") == "refused: no name rule of the target admits it\n")
        #expect(try explain("iqn.x", "::1", "--json") == #"{"schemaVersion":1,"access":{"admitted":true,"reason":null,"rules":[{"address":"ALL","luns":"all"},{"name":"iqn.x","luns":"1-9"}],"portals":[],"luns":"1-9","account":null}}"# + "\n")
        #expect(try explain("eui.1", "::1", "--json") == #"{"schemaVersion":1,"access":{"admitted":false,"reason":"no name rule of the target admits it","rules":[],"portals":[],"luns":null,"account":null}}"# + "\n")
        _ = try rig.call("--op new --mode account --user alice --password alicesecret12")
        _ = try rig.call("--op bind --mode account --tid 1 --user alice")
        #expect(try explain("iqn.x", "::1") == "refused: an account is bound there, and it has not authenticated\n")
        #expect(try explain("iqn.x", "::1", "--user bob") == "refused: the account is not bound there for this initiator\n")
        #expect(try explain("iqn.x", "::1", "--user alice").contains("    by the account alice\n"))
        #expect(try rig.call("--mode access --op explain --tid 9 -Q iqn.x -I ::1").errors == ["tgtadm: can't find the target"])
        #expect(try rig.call("--mode access --op explain --tid 1 -Q iqn.x -I host").errors == ["tgtadm: invalid request"])
        #expect(try rig.call("--mode access --op explain --tid 1 -Q iqn_x -I ::1").errors == ["tgtadm: invalid request"])
    }

    @Test("who has to wait is listed, and is let in again by address, by network, or with all")
    func penalties() throws {
        var rig = try busyRig()
        #expect(text(try rig.call("--mode access --op show").output) == "")
        #expect(text(try rig.call("--mode access --op show --json").output) == #"{"schemaVersion":1,"penalties":[]}"# + "\n")
        var waits = RuntimeView.Penalties()
        waits.waiting = { [("192.0.2.1", 85), ("2001:db8:1:2::/64", 1)] }
        waits.remembered = 3
        waits.refusedConnections = 4
        rig.view.penalties = waits
        #expect(text(try rig.call("--mode access --op show").output) == "Source: 192.0.2.1, waits 85 s\nSource: 2001:db8:1:2::/64, waits 1 s\n")
        #expect(text(try rig.call("--mode access --op show --json").output)
            == #"{"schemaVersion":1,"penalties":[{"source":"192.0.2.1","secondsLeft":85},{"source":"2001:db8:1:2::/64","secondsLeft":1}]}"# + "\n")
        #expect(text(try rig.call("--mode system --op show").output).contains(
            "Penalties:\n    sources-waiting=2\n    sources-remembered=3\n    refused-connections=4\n    refused-answers=0\n"))
        for address in ["192.0.2.1", "2001:db8::/32", "ALL"] {
            #expect(try rig.call("--mode access --op delete -I \(address)").code == 0)
            #expect(try rig.effects == [.clearPenalties(AddressRule(parsing: utf8(address)))] && rig.changes.isEmpty)
        }
        for address in ["localhost", "192.0.2.0/33", "somebody"] {
            #expect(try rig.call("--mode access --op delete -I \(address)").errors == ["tgtadm: invalid request"])
            #expect(rig.effects.isEmpty)
        }
        rig.failure = (.invalidRequest, "192.0.2.9 has no failures")
        #expect(try rig.call("--mode access --op delete -I 192.0.2.9").errors == ["tgtadm: invalid request"])
        #expect(rig.reason == "192.0.2.9 has no failures")
    }

    @Test("what has no valid spelling cannot be there, and so is not found", arguments: [
        ("--op unbind --mode target --tid 1 -I not-an-address", TgtError.noRule), ("--op unbind --mode target --tid 1 -I 192.0.2.0/33", .noRule),
        ("--op unbind --mode target --tid 1 -Q ", .noRule), ("--op delete --mode account -u \u{1}", .noAccount),
        ("--op bind --mode account --tid 1 -u \u{1}", .noAccount), ("--op unbind --mode account --tid 1 -u \u{1}", .noAccount),
    ])
    func impossibleNames(words: String, error: TgtError) throws {
        var rig = try busyRig()
        let before = rig.configuration
        #expect(try rig.call(words).errors == ["tgtadm: \(error.text)"])
        #expect(rig.configuration == before && rig.reason?.contains("\u{1}") == false)
    }

    @Test("a portal shows what was said of it and when its certificate ends; a clear one shows what tgt's does")
    func shownPortals() throws {
        var rig = try Rig()
        let secure = try Portal(PortalAddress(parsing: utf8("[::1]:1")), [("tls", "required"), ("certificate", "/c"), ("key", "/k"), ("client-ca", "/a"), ("tpgt", "7")].map {
            PortalParameter(name: utf8($0.0), value: utf8($0.1))
        })
        _ = try rig.configuration.addPortal(secure)
        var condition = RuntimeView.PortalCondition()
        condition.certificateExpires = 0
        condition.isOpen = false
        condition.failedHandshakes = [("notTLS", 2), ("closed", 0), ("alert", 1)]
        rig.view.portals[secure.endpoint] = condition
        #expect(try text(rig.call("--op show --mode portal").output) == """
            Portal: [::1]:1,7
                tls: required
                certificate: /c
                key: /k
                client-ca: /a
                certificate expires: 1970-01-01T00:00:00Z
                failed handshakes: notTLS 2, alert 1
                open: No
            Portal: 127.0.0.1:13990,1

            """)
        #expect(try text(rig.call("--op show --mode portal --json").output) == #"{"schemaVersion":1,"portals":[{"address":"127.0.0.1","port":13990,"groupTag":1,"open":true,"advertise":null,"tls":null},"#
            + #"{"address":"::1","port":1,"groupTag":7,"open":false,"advertise":null,"tls":{"policy":"2026-11-strict","clientAuth":"required","certificate":"/c","key":"/k","clientCA":"/a","crl":null,"clientMap":null,"pskFile":null,"certificateExpires":0,"failedHandshakes":{"notTLS":2,"closed":0,"alert":1}}}]}"# + "\n")
    }

    @Test("whether a target can be had only through TLS is shown where it is so, and explained")
    func requiresTLS() throws {
        var rig = try busyRig()
        for line in ["--op new --mode target --tid 9 -T iqn.nine", "--op bind --mode target --tid 9 -I ALL", "--op update --mode target --tid 9 -n RequireTLS -v Yes"] { #expect(try rig.call(line).code == 0) }
        #expect(try text(rig.call("--op show --mode target --tid 9").output).hasSuffix("RequireTLS=Yes\n") && !text(rig.call("--op show --mode target --tid 1").output).contains("RequireTLS"))
        #expect(try text(rig.call("--op show --mode target --tid 9 --json").output).contains(#""requireTLS":true"#))
        let question = "--op explain --mode access --tid 9 -Q iqn.i -I 192.0.2.1"
        #expect(try text(rig.call(question).output) == "refused: the target requires TLS\n")
        #expect(try text(rig.call(question + " --tls yes").output).hasPrefix("admitted"))
        #expect(try rig.call("--op update --mode target --tid 9 -n RequireTLS -v yes").code != 0)
    }

    @Test("a portal is updated once its files have been read, unless it is another one by then")
    func updatedPortal() throws {
        let rig = try Rig()
        let request = AdminRequest(.updatePortal(utf8("127.0.0.1:13990"), [.init(name: utf8("tpgt"), value: utf8("2"))]))
        guard case .perform(.renewPortal(let portal), let continuation) = Administrator.plan(request, rig.configuration, rig.view),
              case .commit(let new, let changes, _) = Administrator.resume(continuation, .done, rig.configuration)
        else {
            Issue.record("no files are read")
            return
        }
        #expect(changes == [.portalChanged(portal)] && new.portals == [portal] && portal.groupTag == 2)
        var other = rig.configuration
        _ = try other.changePortal(try other.portals[0].with([.init(name: utf8("advertise"), value: utf8("192.0.2.1"))]))
        for (outcome, configuration) in [(EffectOutcome.done, other), (.failed(.invalidRequest, "a file"), rig.configuration)] {
            guard case .answer(let answer) = Administrator.resume(continuation, outcome, configuration) else {
                Issue.record("it is committed")
                return
            }
            #expect(answer.reason != nil)
        }
    }

    @Test("a portal is configured with the port it really has")
    func anyPort() throws {
        let rig = try Rig()
        guard case .perform(.listen, let continuation) = Administrator.plan(AdminRequest(.newPortal(utf8("127.0.0.1:0"))), rig.configuration, rig.view) else {
            Issue.record("no listening")
            return
        }
        let real = try Portal(parsing: utf8("127.0.0.1:40000"))
        guard case .commit(let new, let changes, _) = Administrator.resume(continuation, .listening(real), rig.configuration) else {
            Issue.record("no commit")
            return
        }
        #expect(changes == [.portalAdded(real)] && new.portals.contains(real))
    }

    @Test("the daemon ends only without targets")
    func stop() throws {
        var rig = try busyRig()
        #expect(try rig.call("--op delete --mode system").code == 22)
        #expect(rig.isRunning)
        rig.view.sessions = []
        _ = try rig.call("--op delete --mode target --tid 1")
        #expect(try rig.call("--op delete --mode system").code == 0)
        #expect(!rig.isRunning)
    }

    @Test("the driver can neither be stopped nor started")
    func driver() throws {
        var rig = try Rig()
        #expect(try rig.call("--op stop --mode lld --lld iscsi").errors == ["tgtadm: this operation isn't supported"])
        #expect(try rig.call("--op start --mode lld --lld iscsi").code == 0)
        #expect(try rig.call("--op start --mode lld --lld iser").errors == ["tgtadm: can't find the driver"])
    }
}

@Suite("what happens while an effect takes its time")
struct RaceTests {
    /// The continuation of a request, and the configuration it was planned with.
    func begun(_ action: AdminRequest.Action, _ rig: Rig) throws -> Continuation {
        guard case .perform(_, let continuation) = Administrator.plan(AdminRequest(action), rig.configuration, rig.view) else {
            throw TgtError.unknown
        }
        return continuation
    }

    func error(_ plan: Plan) -> TgtError? {
        guard case .answer(let answer) = plan, answer.reason?.isEmpty == false else { return nil }
        return TgtError(rawValue: answer.response.error)
    }

    @Test("another request takes the LUN: the slower one is refused")
    func sameLUN() throws {
        var rig = try busyRig()
        var unit = AdminRequest.NewLogicalUnit()
        unit.path = utf8("/tmp/pcx/disk2")
        let slow = try begun(.newLogicalUnit(tid: 1, lun: 2, unit), rig)
        _ = try rig.call("--op new --mode lu --tid 1 --lun 2 -b /tmp/pcx/disk3")
        #expect(error(Administrator.resume(slow, .opened(StoreFacts(byteCount: 1 << 20, isWritable: true)), rig.configuration)) == .logicalUnitExists)
    }

    @Test("the target goes: what waits for it is refused")
    func targetGone() throws {
        var rig = try busyRig()
        var unit = AdminRequest.NewLogicalUnit()
        unit.path = utf8("/tmp/pcx/disk2")
        let new = try begun(.newLogicalUnit(tid: 1, lun: 2, unit), rig)
        let delete = try begun(.deleteLogicalUnit(tid: 1, lun: 1), rig)
        let again = try begun(.deleteTarget(tid: 1, force: true), rig)
        _ = try rig.call("--op delete --mode target --tid 1 --force")
        #expect(error(Administrator.resume(new, .opened(StoreFacts(byteCount: 1 << 20, isWritable: true)), rig.configuration)) == .noTarget)
        #expect(error(Administrator.resume(delete, .done, rig.configuration)) == .noTarget)
        #expect(error(Administrator.resume(again, .done, rig.configuration)) == .noTarget)
    }

    @Test("the target has become a tenant's, or its tenant's stores are to be elsewhere: what was opened for then is not served")
    func placesChanged() throws {
        func tenancy(_ directory: String) throws -> Tenancy {
            let places = try StorePlaces(directories: [StorePath(utf8(directory))])
            return Tenancy([Tenant(name: "red"): TenantBounds(targetNames: [try NameRule(parsing: utf8("iqn.red.*"))], targetNumbers: 5...9, places: places)])
        }
        var rig = try busyRig()
        rig.configuration.tenancy = try tenancy("/tmp/pcx")
        _ = try rig.configuration.newTarget(#require(TargetID(rawValue: 5)), name: utf8("iqn.red.disk"))
        var unit = AdminRequest.NewLogicalUnit()
        unit.path = utf8("/tmp/pcx/disk2")
        let new = try begun(.newLogicalUnit(tid: 5, lun: 2, unit), rig)
        let opened = EffectOutcome.opened(StoreFacts(byteCount: 1 << 20, isWritable: true))
        rig.configuration.tenancy = try tenancy("/srv/red")
        #expect(error(Administrator.resume(new, opened, rig.configuration)) == .targetActive)
        rig.configuration.tenancy = try tenancy("/tmp/pcx")
        guard case .commit = Administrator.resume(new, opened, rig.configuration) else {
            Issue.record("nothing has changed")
            return
        }
    }

    @Test("the medium is changed meanwhile: facts about the other one are not believed")
    func mediumChanged() throws {
        var rig = try busyRig()
        _ = try rig.call("--op update --mode lu --tid 1 --lun 1 --params readonly=1,online=0,path=/tmp/pcx/disk2")
        let lift = try begun(.updateLogicalUnit(tid: 1, lun: 1, [.init(name: utf8("readonly"), value: utf8("0"))]), rig)
        _ = try rig.call("--op update --mode lu --tid 1 --lun 1 --params online=0,path=/tmp/pcx/disk3")
        #expect(error(Administrator.resume(lift, .opened(StoreFacts(byteCount: 1 << 30, isWritable: true)), rig.configuration)) == .logicalUnitActive)
    }

    @Test("a store that has shrunk, or cannot be written, is not served")
    func unfit() throws {
        let rig = try busyRig()
        var unit = AdminRequest.NewLogicalUnit()
        unit.path = utf8("/tmp/pcx/disk2")
        let new = try begun(.newLogicalUnit(tid: 1, lun: 2, unit), rig)
        #expect(error(Administrator.resume(new, .opened(StoreFacts(byteCount: 100, isWritable: true)), rig.configuration)) == .invalidRequest)
        #expect(error(Administrator.resume(new, .opened(StoreFacts(byteCount: 1 << 20, isWritable: false)), rig.configuration)) == .invalidRequest)
    }
}

@Suite("reports about what is going on")
struct RuntimeReportTests {
    @Test("sessions are shown in order of login, their aliases escaped")
    func sessions() throws {
        var rig = try busyRig()
        #expect(text(try rig.call("--op show --mode target").output).contains("""
                I_T nexus information:
                    I_T nexus: 11
                        Initiator: iqn.One alias: none
                        Connection: 0
                            IP Address: 127.0.0.1
                    I_T nexus: 12
                        Initiator: iqn.two alias: x\\x0a\\x1b[1mTarget 9: z
                        Connection: 3
                            IP Address: 2001:db8::2
                LUN information:

            """))
        #expect(text(try rig.call("--op show --mode conn --tid 1").output) == """
            Session: 12
                Connection: 3
                    Initiator: iqn.two
                    IP Address: 2001:db8::2
            Session: 11
                Connection: 0
                    Initiator: iqn.One
                    IP Address: 127.0.0.1

            """)
    }

    @Test("what initiators have done to a logical unit is shown")
    func conditions() throws {
        var rig = try busyRig()
        var condition = RuntimeView.LogicalUnitCondition()
        condition.preventsRemoval = true
        condition.isSoftwareWriteProtected = true
        condition.flushFailed = true
        rig.view.logicalUnits[disk] = condition
        let report = text(try rig.call("--op show --mode target").output)
        for line in ["Prevent removal: Yes\n", "SWP: Yes\n", "Flush failed: Yes\n"] { #expect(report.contains(line)) }
    }

    @Test("statistics have a line for every logical unit and session, zeros where nothing is known")
    func statistics() throws {
        var rig = try busyRig()
        var row = RuntimeView.Statistics(key: disk, tsih: 12)
        row.readSubmitted = .init(bytes: 4192, commands: 2)
        row.readDone = .init(bytes: 4192, commands: 2)
        row.writeSubmitted = .init(bytes: 4096, commands: 1)
        row.writeDone = .init(bytes: 4096, commands: 1)
        row.errors = 1
        rig.view.statistics = [row]
        let heading = "tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs\n"
        func zeros(_ lun: Int, _ sid: Int) -> String { "  1   \(lun)  \(sid)            0      0            0      0            0      0            0      0    0\n" }
        let busy = "  1   1  12         4192      2         4192      2         4096      1         4096      1    1\n"
        let all = heading + zeros(0, 11) + zeros(0, 12) + zeros(1, 11) + busy
        #expect(text(try rig.call("--op stat --mode target --tid 1").output) == all)
        #expect(text(try rig.call("--op stat --mode system").output) == all)
        #expect(text(try rig.call("--op stat --mode lu --tid 1 --lun 1").output) == heading + zeros(1, 11) + busy)
        let connections = "sid cid rxdata_octets txdata_octets dataout_pdus datain_pdus cmd_pdus rsp_pdus\n"
        #expect(text(try rig.call("--op stat --mode sess --tid 1 --sid 12").output)
            == heading + busy + zeros(0, 12) + "\n" + connections + " 12   3             0             0            0           0        0        0\n")
        #expect(text(try rig.call("--op stat --mode conn --tid 1 --sid 11").output)
            == connections + " 11   0          4544          4560            0           0        5        0\n")
    }

    @Test("identities shown are those that initiators see")
    func identities() throws {
        var rig = try Rig()
        rig.configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16)))
        _ = try rig.call("--op new --mode target --tid 1 -T iqn.t")
        _ = try rig.call("--op new --mode lu --tid 1 --lun 1 -b /tmp/pcx/disk1")
        let settings = try rig.configuration.settings(disk)
        #expect(text(try rig.call("--op show --mode target").output).contains("            SCSI ID: \(settings.scsiID)\n            SCSI SN: \(settings.serialNumber)\n"))
        _ = try rig.call("--op update --mode lu --tid 1 --lun 1 --params scsi_id=abc")
        #expect(text(try rig.call("--op show --mode target").output).contains("            SCSI ID: abc\n            SCSI SN: \(settings.serialNumber)\n"))
    }
}

@Suite("requests from anybody")
struct HostileRequestTests {
    @Test("no request, however made, traps; and every refusal has a reason")
    func random() throws {
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        func next() -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state
        }
        func pick<Element>(_ elements: [Element]) -> Element { elements[Int(next() % UInt64(elements.count))] }
        let words = [
            "", ",", "=", "path=", "/tmp/pcx/disk1", "bstype=rdwr", "bstype=null", "bsoflags=", "blocksize=", "4096", "512", "targetname=", "iqn.x", "initiator-address=", "ALL",
            "10.0.0.0/8", "::/0", "initiator-name=", "iqn.*", "user=", "u", "password=", "targetOps ", "portalOps ", "portal=", "127.0.0.1", "online=0", "online=1", "readonly=1",
            "readonly=0", "scsi_id=", "mode_page=", "8:0:18", ":1", "MaxBurstLength=", "65536", "state=", "offline", "State=", "debug=on", "nop_interval=", "\u{ff}", "\n", "9999999999999999999999",
        ]
        let whole = [
            "path=/tmp/pcx/disk1", "path=/tmp/pcx/disk2,bsoflags=sync,blocksize=4096", "bstype=null", "targetname=iqn.x", "targetname=iqn.t", "initiator-address=ALL",
            "initiator-address=10.0.0.0/8,initiator-name=iqn.*", "user=u", "user=u,password=p", "targetOps online=0,path=/tmp/pcx/disk2,", "targetOps readonly=0,", "targetOps readonly=1,removable=1,",
            "targetOps online=0,path=,", "portalOps portal=127.0.0.1,", "portalOps portal=[::1]:0,", "nop_interval=5", "state=offline", "State=ready", "HeaderDigest=CRC32C,None",
        ]
        var rig = try busyRig()
        var seen: Set<UInt32> = []
        for _ in 0..<20_000 {
            var request = TgtRequest(pick(TgtRequest.Mode.allCases), pick(TgtRequest.Operation.allCases))
            request.lld = pick([[], [], utf8("iscsi"), utf8("x")])
            request.tid = pick([1, 1, 1, 2, 3, -1, 0, Int32.min, Int32.max])
            request.lun = pick([0, 1, 1, 2, 16383, 16384, .max, 1 << 63])
            request.sid = pick([11, 12, 0, .max])
            request.cid = pick([0, 3, .max])
            request.deviceType = pick([0, 0, 0, 1, .max])
            request.force = next() % 2 == 0
            request.accountDirection = pick([.incoming, .outgoing])
            request.payload = utf8(next() % 2 == 0 ? pick(whole) : (0..<next() % 6).map { _ in pick(words) }.joined(separator: pick(["", ",", "="])))
            if request.payload.contains(0) { continue }
            let bytes = try #require(request.encoded())
            var decoder = TgtRequestDecoder()
            #expect(try decoder.feed(bytes.span) == request)
            let response = rig.serve(request)
            seen.insert(response.error)
            #expect((response.error == 0) == (rig.reason == nil))
            if !rig.isRunning || rig.configuration.targets[one] == nil { rig = try busyRig() }
        }
        #expect(seen.count > 10)
    }

    @Test("no bytes, however made, trap the decoder")
    func randomBytes() throws {
        var state: UInt64 = 42
        for round in 0..<3_000 {
            var bytes = try #require(TgtRequest(.target, .show).encoded()) + utf8("targetname=x\0")
            bytes[72] = UInt8(bytes.count)
            for _ in 0..<round % 8 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                bytes[Int(state >> 33) % bytes.count] = UInt8(truncatingIfNeeded: state >> 25)
            }
            var decoder = TgtRequestDecoder()
            guard let request = try? decoder.feed(bytes.span) else { continue }
            var rig = try Rig()
            _ = rig.serve(request)
        }
    }
}
