import ISCSI
import SCSI
import Target
import Testing

private func block(_ value: UInt8, _ count: Int = 1) -> [UInt8] { [UInt8](repeating: value, count: 512 * count) }
private func mask(_ runs: (ClosedRange<UInt16>, UnitAccess)...) -> LUNMask { LUNMask(runs.map { LUNMask.Run($0, $1) })! }
private let b = "iqn.2026-01.test:b"
private let writeProtected: [UInt8] = [7, 0x27, 0]
private let notSupported: [UInt8] = [5, 0x25, 0]
private let lunsChanged: [UInt8] = [6, 0x3f, 0x0e]
private let modeChanged: [UInt8] = [6, 0x2a, 0x01]

extension World {
    fileprivate func result(_ client: Client, _ cdb: [UInt8], lun: Int = 1, read: Int? = nil, write: [UInt8]? = nil) -> Client.Result? {
        let tag = client.command(cdb, lun: lun, read: read, write: write)
        run()
        return client.results[tag]
    }
    fileprivate func respond(_ client: Client, _ function: UInt8, lun: Int = 1) -> UInt8? {
        let tag = client.function(function, lun: lun)
        run()
        return client.functionResponses[tag]
    }
    fileprivate func change(_ client: Client, _ mask: LUNMask, _ flag: Flag = Flag()) {
        mailbox.post(client.session.start.nexus, .maskChanged(mask, Acknowledgement { flag.raise() }))
        run()
    }
    fileprivate func luns(_ client: Client) -> [UInt8]? {
        result(client, CDB.reportLUNs(256), lun: 0, read: 256).map { result in stride(from: 9, to: result.dataIn.count, by: 8).map { result.dataIn[$0] } }
    }
}

@Suite struct MaskTests {
    @Test("A masked logical unit is not there: SAM-5 says how")
    func masked() {
        let world = World(disks: 3)
        let client = world.connect(mask: mask((2...2, .write), (7...9, .write)))!
        world.clearAttentions(client, 2)
        #expect(world.luns(client) == [2])
        for lun in [1, 3] {
            let inquiry = world.result(client, CDB.inquiry(36), lun: lun, read: 36)
            #expect(inquiry?.status == 0 && inquiry?.dataIn[0] == 0x7f)
            #expect(world.result(client, CDB.testUnitReady, lun: lun)?.code == notSupported)
            #expect(world.result(client, CDB.write(0, 1), lun: lun, write: block(1))?.code == notSupported)
            #expect(world.result(client, CDB.read(0, 1), lun: lun, read: 512)?.code == notSupported)
            for function in [2, 4, 5] as [UInt8] { #expect(world.respond(client, function, lun: lun) == 2) }
        }
        #expect(world.store(1).writes == 0 && world.store(3).writes == 0)
        #expect(world.result(client, CDB.write(0, 1), lun: 2, write: block(1))?.status == 0)
        #expect(client.session.statistics.map(\.number) == [2])
    }

    @Test("LUN 0 can be masked, and a mask can show nothing at all")
    func nothing() {
        let world = World(disks: 2)
        let client = world.connect(mask: mask((5...5, .write)))!
        #expect(world.luns(client) == [])
        #expect(world.result(client, CDB.inquiry(36), lun: 0, read: 36)?.dataIn.first == 0x7f)
        world.addDisk(5)
        #expect(world.luns(client) == [5])
    }

    @Test("A mask for reading grants reads; writes, reservations and resets of what it shows are refused")
    func readOnly() {
        let world = World(disks: 2)
        let client = world.ready(mask: mask((1...1, .read), (2...2, .write)))
        let other = world.ready(b)
        #expect(world.result(client, CDB.read(0, 1), read: 512)?.status == 0)
        #expect(world.result(client, CDB.write(0, 1), write: block(1))?.code == writeProtected)
        #expect(world.result(client, CDB.reserve6)?.code == writeProtected)
        #expect(world.result(client, CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 1))?.code == writeProtected)
        #expect(world.result(client, [0x1a, 0, 0x3f, 0, 0xff, 0], read: 255)?.dataIn[2] == 0x90)
        #expect(world.result(client, [0x1a, 0, 0x3f, 0, 0xff, 0], lun: 2, read: 255)?.dataIn[2] == 0x10)
        #expect(world.store(1).writes == 0 && world.kept.isEmpty)
        #expect(world.respond(client, 5) == 255)
        #expect(world.result(other, CDB.write(0, 1), write: block(2))?.status == 0)
        #expect(world.respond(client, 5, lun: 2) == 0)
        #expect(world.result(other, CDB.testUnitReady, lun: 2)?.code.prefix(2) == [6, 0x29])
    }

    @Test("TARGET WARM and COLD RESET reset what the session may write; only one that may write everything ends the others", arguments: [6, 7] as [UInt8])
    func targetReset(function: UInt8) {
        let world = World(disks: 3)
        let (client, other) = (world.ready(mask: mask((1...1, .write), (2...2, .read))), world.ready(b))
        world.holdsOperations = true
        let tags = (1...3).map { other.command(CDB.write(UInt64($0), 1), lun: $0, write: block(1)) }
        let own = client.command(CDB.read(9, 1), lun: 2, read: 512)
        world.run()
        let reset = client.function(function)
        world.run()
        world.releaseAll()
        #expect(client.functionResponses[reset] == 0 && client.results[own] == nil)
        #expect(tags.map { other.results[$0]?.status } == [nil, 0, 0])
        world.holdsOperations = false
        #expect((1...3).map { world.result(other, CDB.testUnitReady, lun: $0)?.status } == [2, 0, 0])
        #expect(other.closed == nil)
        #expect(client.closed == (function == 7 ? .targetReset : nil))
    }

    @Test("A logical unit that goes from the mask has lost its commands before the change is acknowledged, and what is left is told of")
    func unitLost() {
        let world = World(disks: 3)
        let (client, other) = (world.ready(), world.ready(b))
        #expect(world.result(client, CDB.reserve6, lun: 2)?.status == 0)
        world.holdsOperations = true
        let (lost, kept) = (client.command(CDB.write(0, 1), lun: 2, write: block(1)), client.command(CDB.write(1, 1), lun: 1, write: block(1)))
        let dormant = client.command(CDB.write(5, 1), lun: 2, write: block(1), attribute: 2)
        world.run()
        let done = Flag()
        world.change(client, mask((0...1, .write), (3...3, .write)), done)
        #expect(done.count == 0 && client.results[dormant]?.code == notSupported && client.results[lost] == nil)
        world.release(world.heldBlocks.firstIndex(of: 0)!)
        #expect(done.count == 1 && client.results[lost]?.code == notSupported && client.results[kept] == nil)
        world.releaseAll()
        #expect(client.results[kept]?.status == 0)
        world.holdsOperations = false
        for lun in [1, 3] {
            #expect(world.result(client, CDB.testUnitReady, lun: lun)?.code == lunsChanged)
            #expect(world.result(client, CDB.testUnitReady, lun: lun)?.status == 0)
        }
        #expect(world.result(client, CDB.testUnitReady, lun: 2)?.code == notSupported)
        #expect(world.luns(client)?.contains(2) == false)
        // What it had reserved there is free.
        #expect(world.result(other, CDB.write(0, 1), lun: 2, write: block(3))?.status == 0)
        #expect((1...3).allSatisfy { world.result(other, CDB.testUnitReady, lun: $0)?.status == 0 })
    }

    @Test("A logical unit that comes into the mask is new: power on there, REPORTED LUNS DATA HAS CHANGED on all")
    func unitGained() {
        let world = World(disks: 2)
        let client = world.ready(mask: mask((1...1, .write)))
        world.change(client, .all)
        #expect(world.result(client, CDB.testUnitReady)?.code == lunsChanged)
        #expect(world.result(client, CDB.testUnitReady, lun: 2)?.code == [6, 0x29, 0])
        #expect(world.result(client, CDB.testUnitReady, lun: 2)?.code == lunsChanged)
        #expect(world.result(client, CDB.write(0, 1), lun: 2, write: block(1))?.status == 0)
    }

    @Test("Lost and shown again while a command is in the store: the nexus is there, and the old command is no success")
    func lostAndGained() {
        let world = World(disks: 2)
        let client = world.ready()
        world.holdsOperations = true
        let tag = client.command(CDB.write(0, 1), lun: 2, write: block(1))
        world.run()
        let done = Flag()
        world.change(client, mask((1...1, .write)), done)
        world.change(client, .all, done)
        world.releaseAll()
        #expect(done.count == 2 && client.results[tag]?.code == notSupported)
        world.holdsOperations = false
        world.clearAttentions(client, 2)
        #expect(world.result(client, CDB.reserve6, lun: 2)?.status == 0)
        let other = world.ready(b)
        #expect(world.result(other, CDB.write(0, 1), lun: 2, write: block(1))?.status == 0x18)
    }

    @Test("Writing that is withdrawn ends writes under way and what was reserved, and lets reads go on; granted again, it works again")
    func writingLost() {
        let world = World()
        let (client, other) = (world.ready(), world.ready(b))
        #expect(world.result(client, CDB.reserve6)?.status == 0)
        world.holdsOperations = true
        let tags = [client.command(CDB.write(0, 1), write: block(1)), client.command(CDB.read(1, 1), read: 512)]
        client.holdsTransfers = true
        let collecting = client.command(CDB.write(9, 1024), write: block(1, 1024))
        world.run()
        let done = Flag()
        world.change(client, mask((0...16383, .read)), done)
        #expect(done.count == 0)
        world.releaseAll()
        client.holdsTransfers = false
        client.answerTransfers()
        world.run()
        world.releaseAll()
        #expect(done.count == 1)
        #expect(client.results[tags[0]]?.code == writeProtected && client.results[tags[1]]?.status == 0 && client.results[collecting]?.code == writeProtected)
        #expect(world.store(1).writes == 1)
        world.holdsOperations = false
        #expect([modeChanged, lunsChanged].allSatisfy { expected in world.result(client, CDB.testUnitReady)?.code == expected })
        #expect(world.result(client, CDB.write(0, 1), write: block(1))?.code == writeProtected)
        #expect(world.result(other, CDB.write(0, 1), write: block(1))?.status == 0)
        world.change(client, .all)
        world.clearAttentions(client, 1)
        #expect(world.result(client, CDB.write(0, 1), write: block(1))?.status == 0)
        world.tick(seconds: 2)
        #expect(world.data.inUse == 0)
    }

    @Test("Whoever does not see a logical unit is not told that it came or went")
    func silence() {
        let world = World(disks: 1)
        let (client, other) = (world.ready(mask: mask((0...1, .write))), world.ready(b))
        world.addDisk(2)
        #expect(world.result(client, CDB.testUnitReady)?.status == 0)
        #expect(world.result(other, CDB.testUnitReady)?.code == lunsChanged)
        world.clearAttentions(other, 2)
        world.target.remove(number: 2)
        world.run()
        #expect(world.result(client, CDB.testUnitReady)?.status == 0)
        #expect(world.result(other, CDB.testUnitReady)?.code == lunsChanged)
    }

    @Test("The same mask again changes nothing, and one for a session that has ended is acknowledged")
    func idle() {
        let world = World()
        let client = world.ready()
        let done = Flag()
        world.change(client, .all, done)
        #expect(done.count == 1 && world.result(client, CDB.testUnitReady)?.status == 0)
        world.tear(client)
        world.change(client, mask((1...1, .read)), done)
        #expect(done.count == 2)
    }
}
