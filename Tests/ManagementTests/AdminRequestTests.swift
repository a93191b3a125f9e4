import Management
import Testing

func action(_ mode: TgtRequest.Mode, _ operation: TgtRequest.Operation, _ text: String = "", _ change: (inout TgtRequest) -> Void = { _ in }) throws(TgtError) -> AdminRequest.Action {
    var request = TgtRequest(mode, operation)
    request.payload = utf8(text)
    change(&request)
    return try AdminRequest(request).action
}

@Suite("what a request of tgt's protocol asks for")
struct AdminRequestTests {
    @Test("every request of tgtadm is understood")
    func understood() throws {
        let setting = AdminRequest.Setting(name: utf8("a"), value: utf8("b"))
        #expect(try action(.system, .show) == .showSystem)
        #expect(try action(.system, .update, "a=b") == .updateSystem(setting))
        #expect(try action(.system, .delete) == .deleteSystem)
        #expect(try action(.system, .stat) == .statSystem)
        #expect(try action(.target, .new, "targetname=iqn.a") { $0.tid = 1 } == .newTarget(tid: 1, name: utf8("iqn.a")))
        #expect(try action(.target, .delete) { ($0.tid, $0.force) = (1, true) } == .deleteTarget(tid: 1, force: true))
        #expect(try action(.target, .show) == .showTargets)
        #expect(try action(.target, .show) { $0.tid = 0 } == .showTarget(tid: 0))
        #expect(try action(.target, .stat) { $0.tid = 3 } == .statTarget(tid: 3))
        #expect(try action(.target, .update, "HeaderDigest=CRC32C,None") { $0.tid = 1 }
            == .updateTarget(tid: 1, .init(name: utf8("HeaderDigest"), value: utf8("CRC32C,None"))))
        #expect(try action(.target, .bind, "initiator-address=ALL") { $0.tid = 1 } == .bindInitiators(tid: 1, .init(address: utf8("ALL"))))
        #expect(try action(.target, .unbind, "initiator-address=ALL,initiator-name=x") { $0.tid = 1 }
            == .unbindInitiators(tid: 1, .init(address: utf8("ALL"), name: utf8("x"))))
        #expect(try action(.logicalUnit, .delete) { ($0.tid, $0.lun) = (1, 2) } == .deleteLogicalUnit(tid: 1, lun: 2))
        #expect(try action(.logicalUnit, .stat) { ($0.tid, $0.lun) = (1, 2) } == .statLogicalUnit(tid: 1, lun: 2))
        #expect(try action(.portal, .new, "portalOps portal=[::1]:3260,") == .newPortal(utf8("[::1]:3260")))
        #expect(try action(.portal, .delete, "portalOps portal=1.2.3.4,") == .deletePortal(utf8("1.2.3.4")))
        #expect(try action(.portal, .show) == .showPortals)
        #expect(try action(.account, .new, "bsoflags=x,user=a,password=b") { $0.payload = utf8("user=a,password=b,c=d") }
            == .newAccount(user: utf8("a"), password: utf8("b,c=d"), allowWeak: false))
        #expect(try action(.account, .delete, "user=a") == .deleteAccount(user: utf8("a")))
        #expect(try action(.account, .show) == .showAccounts)
        #expect(try action(.account, .bind, "user=a") == .bindAccount(.init(user: utf8("a"), tid: nil, outgoing: false)))
        #expect(try action(.account, .unbind, "user=a") { ($0.tid, $0.accountDirection) = (4, .outgoing) }
            == .unbindAccount(.init(user: utf8("a"), tid: 4, outgoing: true)))
        #expect(try action(.session, .stat) { ($0.tid, $0.sid) = (1, 2) } == .statSession(tid: 1, sid: 2))
        #expect(try action(.connection, .show) { $0.tid = 1 } == .showConnections(tid: 1))
        #expect(try action(.connection, .delete) { ($0.tid, $0.sid, $0.cid) = (1, 2, 3) } == .deleteConnection(tid: 1, sid: 2, cid: 3))
        #expect(try action(.connection, .stat) { ($0.tid, $0.sid) = (1, 2) } == .statConnections(tid: 1, sid: 2))
        #expect(try action(.lld, .start) == .startDriver)
        #expect(try action(.lld, .stop) == .stopDriver)
        #expect(try action(.lld, .show) == .showDrivers)
    }

    @Test("only what depends on what is going on waits for the data process")
    func view() throws {
        let path = AdminRequest.Setting(name: utf8("path"), value: utf8("/x")), other = AdminRequest.Setting(name: utf8("online"), value: utf8("0"))
        let waiting: [AdminRequest.Action] = [
            .statSystem, .statTarget(tid: 1), .statLogicalUnit(tid: 1, lun: 1), .statSession(tid: 1, sid: 1), .statConnections(tid: 1, sid: 1), .showTargets,
            .showConnections(tid: 1), .deleteTarget(tid: 1, force: false), .deleteConnection(tid: 1, sid: 1, cid: 0), .updateLogicalUnit(tid: 1, lun: 1, [other, path]),
        ]
        let others: [AdminRequest.Action] = [
            .showSystem, .showTarget(tid: 1), .deleteTarget(tid: 1, force: true), .deleteLogicalUnit(tid: 1, lun: 1), .updateLogicalUnit(tid: 1, lun: 1, [other]),
            .newTarget(tid: 1, name: []), .showPortals, .showAccounts, .showDrivers, .deleteSystem,
        ]
        #expect(waiting.allSatisfy { AdminRequest($0).needsRuntimeView } && !others.contains { AdminRequest($0).needsRuntimeView })
    }

    @Test("all items of a new logical unit are found")
    func newLogicalUnit() throws {
        var unit = AdminRequest.NewLogicalUnit()
        #expect(try action(.logicalUnit, .new) { ($0.tid, $0.lun) = (1, 1) } == .newLogicalUnit(tid: 1, lun: 1, unit))
        unit.deviceType = 5
        unit.path = utf8("/x=y")
        unit.bstype = utf8("rdwr")
        unit.bsopts = utf8("o")
        unit.bsoflags = utf8("sync")
        unit.blockSize = utf8("4096")
        #expect(try action(.logicalUnit, .new, "path=/x=y,bstype=rdwr,bsopts=o,bsoflags=sync,blocksize=4096") { ($0.tid, $0.lun, $0.deviceType) = (1, 1, 5) }
            == .newLogicalUnit(tid: 1, lun: 1, unit))
    }

    @Test("a parameter list has empty items and items before it passed over", arguments: [
        ("targetOps a=b,c=d,,", ["a=b", "c=d"]), ("targetOps ,", []), ("", []), ("targetOps ,,a=b,,,c=,", ["a=b", "c="]),
        ("bsoflags=sync,blocksize=4,targetOps a=b,", ["a=b"]), ("targetOps a=b=c,", ["a=b=c"]),
    ] as [(String, [String])])
    func parameterLists(text: String, settings: [String]) throws {
        let expected = settings.map { setting in
            let parts = setting.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            return AdminRequest.Setting(name: Array(parts[0].utf8), value: Array(parts[1].utf8))
        }
        #expect(try action(.logicalUnit, .update, text) { ($0.tid, $0.lun) = (1, 1) } == .updateLogicalUnit(tid: 1, lun: 1, expected))
    }

    @Test("missing, unknown, repeated and disordered items are invalid", arguments: [
        (.target, .new, ""), (.target, .new, "targetname"), (.target, .new, "name=x"), (.target, .new, "targetname=a,targetname=b"), (.target, .new, "targetname=a,b"),
        (.target, .bind, ""), (.target, .bind, "initiator-name=x,initiator-address=ALL"), (.target, .bind, "initiator-address=a,b"),
        (.target, .update, ""), (.target, .update, "x"), (.target, .update, "=x"),
        (.system, .update, ""), (.system, .update, "State"),
        (.logicalUnit, .new, "path=/a,b"), (.logicalUnit, .new, "bstype=null,path=/a"), (.logicalUnit, .new, "path=/a,path=/b"), (.logicalUnit, .new, ",path=/a"),
        (.logicalUnit, .update, "targetOps a"), (.logicalUnit, .update, "targetOps =b,"), (.logicalUnit, .update, "a=b"),
        (.portal, .new, ""), (.portal, .new, "portalOps "), (.portal, .new, "portalOps foo=1,"), (.portal, .new, "portalOps portal=1,portal=2,"), (.portal, .delete, "portal=1"),
        (.account, .new, ""), (.account, .new, "user=a"), (.account, .new, "password=a"), (.account, .delete, ""), (.account, .bind, ""), (.account, .unbind, "password=x"),
        (.session, .show, ""), (.session, .delete, ""), (.session, .new, ""), (.connection, .new, ""), (.connection, .update, "a=b"),
        (.target, .start, ""), (.logicalUnit, .show, ""), (.logicalUnit, .bind, ""), (.portal, .update, ""), (.account, .stat, ""), (.lld, .new, ""), (.system, .bind, ""),
    ] as [(TgtRequest.Mode, TgtRequest.Operation, String)])
    func invalid(mode: TgtRequest.Mode, operation: TgtRequest.Operation, text: String) {
        #expect(throws: TgtError.invalidRequest) { try action(mode, operation, text) }
    }
}
