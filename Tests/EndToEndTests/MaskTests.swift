import Glibc
import Testing

/// What rules show of a target, and what becomes of sessions when rules change.
@Suite(.enabled(if: Subject.isPortcullis)) struct MaskTests {
    private static func name(_ tenant: String) -> String { "iqn.2026-11.org.example:tenant-\(tenant)" }
    private static let reportLUNs: [UInt8] = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    private static let inquiry: [UInt8] = [0x12, 0, 0, 0, 36, 0]
    private static let testUnitReady = [UInt8](repeating: 0, count: 6)
    private static func read10(_ lba: UInt8 = 0) -> [UInt8] { [0x28, 0, 0, 0, 0, lba, 0, 0, 1, 0] }
    private static func write10(_ lba: UInt8 = 0) -> [UInt8] { [0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0] }
    private static let block = [UInt8](repeating: 0x42, count: 512)

    /// One target with disks 1, 2 and 3.
    private func daemon() throws -> Daemon {
        let daemon = try Daemon()
        try daemon.addTarget()
        for lun in 1...3 { try daemon.addDisk(lun: lun, file: daemon.folder.sparseFile("disk\(lun)", size: 8 << 20)) }
        return daemon
    }
    private func login(_ daemon: Daemon, _ tenant: String, source: UInt8 = 1) throws -> Initiator {
        let initiator = try Initiator(port: daemon.port, source: source)
        guard initiator.login(target: Daemon.iqn("disk"), name: Self.name(tenant)) == 0 else { throw Failure("tenant \(tenant) is not let in\n\(daemon.log)") }
        return initiator
    }
    private func luns(_ initiator: Initiator) throws -> [UInt8] {
        let data = try initiator.perform(cdb: Self.reportLUNs, lun: 0, read: 256).data
        return stride(from: 9, to: data.count, by: 8).map { data[$0] }
    }
    private func sense(_ initiator: Initiator, _ cdb: [UInt8], lun: Int, read: Int = 0, write: [UInt8] = []) throws -> [UInt8] {
        let answer = try initiator.perform(cdb: cdb, lun: lun, read: read, write: write)
        return answer.sense.count >= 14 ? [answer.sense[2] & 0xf, answer.sense[12], answer.sense[13]] : [answer.status]
    }

    @Test("Two tenants share a target, and each sees and writes what its rule shows")
    func tenants() throws {
        let daemon = try daemon()
        try daemon.admit("-Q \(Self.name("a")) --luns 1,3:ro")
        try daemon.admit("-Q \(Self.name("b")) --luns 2-3")
        try daemon.admit("-Q iqn.2026-11.org.example:* --luns 0")
        let (a, b, other) = (try login(daemon, "a"), try login(daemon, "b"), try login(daemon, "c"))
        for (initiator, seen) in [(a, [1, 3]), (b, [2, 3])] { for lun in seen { try initiator.settle(lun: lun) } }
        #expect(try luns(a) == [1, 3] && luns(b) == [2, 3] && luns(other) == [0])
        #expect(try a.perform(cdb: Self.inquiry, lun: 0, read: 36).data.first == 0x7f && a.perform(cdb: Self.inquiry, lun: 2, read: 36).data.first == 0x7f)
        #expect(try sense(a, Self.testUnitReady, lun: 2) == [5, 0x25, 0] && sense(b, Self.write10(), lun: 1, write: Self.block) == [5, 0x25, 0])
        #expect(try sense(a, Self.write10(), lun: 3, write: Self.block) == [7, 0x27, 0])
        #expect(try b.perform(cdb: Self.write10(), lun: 3, write: Self.block).status == 0)
        #expect(try a.perform(cdb: Self.read10(), lun: 3, read: 512).data == Self.block)
        // As stock initiators see it.
        for (tenant, shown, hidden) in [("a", [1, 3], 2), ("b", [2, 3], 1)] {
            let listed = try run("iscsi-ls", "-s", "-i", Self.name(tenant), "iscsi://\(daemon.portal)", folder: daemon.folder)
            #expect(shown.allSatisfy { listed.output.contains("Lun:\($0) ") } && !listed.output.contains("Lun:\(hidden) "), "\(listed.evidence)")
        }
        let report = try daemon.must("--op show --mode target")
        #expect(report.contains("        \(Self.name("a")) (LUNs 1,3:ro)\n"), "\(report)")
        let explained = try daemon.must("--mode access --op explain --tid 1 -Q \(Self.name("a")) -I 127.0.0.1")
        #expect(explained == "admitted\n    by the name rule \(Self.name("a")) (LUNs 1,3:ro)\n    shown LUNs: 1,3:ro\n")
    }

    @Test("A mask of a name rule and one of an address rule hold both")
    func bothKinds() throws {
        let daemon = try daemon()
        try daemon.admit("-Q \(Self.name("a")) --luns 1-2")
        try daemon.admit("-I ALL --luns 2-3")
        try daemon.admit("-I 127.0.0.2 --luns all:ro")
        let (here, there) = (try login(daemon, "a"), try login(daemon, "a", source: 2))
        #expect(try luns(there) == [1, 2])
        #expect(here.wire.closes(within: 5), "the same initiator port has logged in again")
        try there.settle(lun: 2)
        #expect(try sense(there, Self.write10(), lun: 2, write: Self.block) == [7, 0x27, 0])
        let again = try login(daemon, "a")
        #expect(try luns(again) == [2])
        try again.settle(lun: 2)
        #expect(try again.perform(cdb: Self.write10(), lun: 2, write: Self.block).status == 0)
    }

    @Test("A mask that changes is applied to the session that lives, which is told")
    func liveMask() throws {
        let daemon = try daemon()
        try daemon.admit("-Q \(Self.name("a"))")
        try daemon.admit("-Q \(Self.name("b"))")
        let (a, b) = (try login(daemon, "a"), try login(daemon, "b"))
        for lun in 0...3 { try a.settle(lun: lun); try b.settle(lun: lun) }
        #expect(try a.perform(cdb: [0x16, 0, 0, 0, 0, 0], lun: 2).status == 0)
        let start = ContinuousClock.now
        try daemon.must("--op bind --mode target --tid 1 -Q \(Self.name("a")) --luns 1,3:ro")
        #expect(try luns(a) == [1, 3])
        print("a changed mask: in force \(ContinuousClock.now - start) after the command was given")
        #expect(try sense(a, Self.testUnitReady, lun: 2) == [5, 0x25, 0] && sense(a, Self.testUnitReady, lun: 1) == [6, 0x3f, 0x0e])
        #expect(try sense(a, Self.testUnitReady, lun: 3) == [6, 0x2a, 1] && sense(a, Self.testUnitReady, lun: 3) == [6, 0x3f, 0x0e])
        #expect(try sense(a, Self.write10(), lun: 3, write: Self.block) == [7, 0x27, 0])
        #expect(try a.perform(cdb: Self.write10(), lun: 1, write: Self.block).status == 0)
        // What it had reserved is free, and the other session has noticed nothing.
        #expect(try b.perform(cdb: Self.write10(), lun: 2, write: Self.block).status == 0)
        // A more specific rule shows more; what a general one shows counts no more.
        try daemon.admit("-I ALL --luns 1-2")
        #expect(try luns(a) == [1] && luns(b) == [1, 2])
        try daemon.must("--op bind --mode target --tid 1 -I ALL --luns all")
        try daemon.must("--op bind --mode target --tid 1 -Q \(Self.name("a")) --luns all")
        #expect(try luns(a) == [0, 1, 2, 3])
        for lun in 0...3 { try a.settle(lun: lun) }
        #expect(try a.perform(cdb: Self.write10(), lun: 3, write: Self.block).status == 0)
        #expect(!a.wire.isClosedNow() && !b.wire.isClosedNow(), daemon.evidence)
    }

    @Test("When rules change, sessions that they refuse end within five seconds and the others go on")
    func rulesChange() throws {
        let daemon = try daemon()
        try daemon.admit("-Q iqn.2026-11.org.example:*")
        try daemon.admit("-Q \(Self.name("stays"))")
        let stays = try login(daemon, "stays")
        try stays.settle()
        let going = try (0..<40).map { try login(daemon, "goes\($0)") }
        for initiator in going {
            try initiator.settle()
            // Commands are under way when the rule goes.
            for _ in 0..<8 { initiator.wire.send(initiator.command(cdb: Self.write10(9), write: 512, data: Self.block).bytes) }
        }
        let start = ContinuousClock.now
        try daemon.must("--op unbind --mode target --tid 1 -Q iqn.2026-11.org.example:*")
        #expect(going.allSatisfy { $0.wire.closes(within: 5) }, daemon.evidence)
        let took = ContinuousClock.now - start
        print("a rule that goes: 40 sessions with commands under way had ended \(took) after the command was given")
        #expect(took < .seconds(5))
        #expect(try stays.perform(cdb: Self.write10(), write: Self.block).status == 0)
        // In one transaction, a rule that takes the place of another ends nobody.
        let changes = try daemon.folder.write(
            "--op unbind --mode target --tid 1 -Q \(Self.name("stays"))\n--op bind --mode target --tid 1 -Q iqn.*:tenant-s* --luns 1\n", to: "changes")
        try daemon.must("--transaction \(changes)")
        #expect(try luns(stays) == [1] && !stays.wire.isClosedNow(), daemon.evidence)
    }

    @Test("A mask survives the end of the data process")
    func crash() throws {
        let daemon = try daemon()
        try daemon.admit("-Q \(Self.name("a")) --luns 2:ro")
        kill(try #require(daemon.child(role: "data"), daemon.evidence), SIGKILL)
        var initiator: Initiator?
        #expect(eventually(within: 10) {
            initiator = try? login(daemon, "a")
            return initiator != nil
        }, daemon.evidence)
        #expect(try luns(try #require(initiator)) == [2])
    }
}
