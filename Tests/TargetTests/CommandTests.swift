import ISCSI
import SCSI
import Target
import Testing

private func pattern(_ count: Int, _ seed: Int = 1) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ seed &* 7 &+ $0 >> 8) } }

/// Parameters under which a write of a few blocks takes every way data can go.
private var smallBursts: NegotiatedParameters {
    var parameters = NegotiatedParameters()
    parameters.maxRecvDataSegmentLength = 512
    parameters.maxXmitDataSegmentLength = 512
    parameters.initiatorMaxRecvDataSegmentLength = 512
    parameters.firstBurstLength = 512
    parameters.maxBurstLength = 1024
    return parameters
}

@Suite struct CommandTests {
    @Test("What is written is read back, whatever way the data take", arguments: [1, 3, 8, 64])
    func writeRead(blocks: Int) {
        for parameters in [NegotiatedParameters(), smallBursts] {
            let world = World()
            let client = world.ready(parameters: parameters)
            let data = pattern(blocks * 512, blocks)
            let write = client.command(CDB.write(5, blocks), write: data)
            world.run()
            #expect(client.results[write]?.status == 0)
            let isWritten = world.store(1).bytes(5 * 512..<(5 + blocks) * 512) == data
            #expect(isWritten)
            let read = client.command(CDB.read(5, blocks), read: data.count)
            world.run()
            let isRead = client.results[read]?.dataIn == data
            #expect(isRead)
            #expect(client.results[read]?.residualFlags == 0)
            #expect(world.data.inUse == 0)
        }
    }

    @Test("A write and a read end alike at every split of what the initiator sends")
    func everySplit() {
        let data = pattern(1536)
        let whole = { (client: Client) in
            client.command(CDB.write(0, 3), write: data)
            client.command(CDB.read(0, 3), read: 1536)
            client.command(CDB.reportLUNs(64), read: 64)
        }
        let sample = World().ready(parameters: smallBursts)
        sample.pending = []
        _ = whole(sample)
        let length = sample.pending.count
        for split in 0...length {
            let world = World()
            let client = world.ready(parameters: smallBursts)
            let before = client.order.count
            _ = whole(client)
            client.delivered = split
            world.run()
            client.delivered = .max
            world.run()
            let ends = client.order[before...].map { client.results[$0]?.status }
            #expect(ends == [0, 0, 0], "split at \(split)")
            let isWritten = world.store(1).bytes(0..<1536) == data
            #expect(isWritten, "split at \(split)")
        }
    }

    @Test("Data that come byte by byte make a whole write")
    func byteByByte() {
        let world = World()
        let client = world.ready(parameters: smallBursts)
        client.command(CDB.write(0, 4), write: pattern(2048))
        while !client.pending.isEmpty {
            client.delivered = 1
            world.run()
        }
        let isWritten = world.store(1).bytes(0..<2048) == pattern(2048)
        #expect(isWritten)
    }

    @Test("Residuals say what was too much and what was missing")
    func residuals() {
        let world = World()
        let client = world.ready()
        let less = client.command(CDB.read(0, 2), read: 512)
        let more = client.command(CDB.read(0, 2), read: 4096)
        let writeLess = client.command(CDB.write(0, 2), write: pattern(512))
        let writeMore = client.command(CDB.write(0, 2), write: pattern(2048))
        world.run()
        #expect(client.results[less].map { [$0.dataIn.count, $0.residual, Int($0.residualFlags)] } == [512, 512, 4])
        #expect(client.results[more].map { [$0.dataIn.count, $0.residual, Int($0.residualFlags)] } == [1024, 3072, 2])
        #expect(client.results[writeLess].map { [$0.residual, Int($0.residualFlags)] } == [512, 4])
        #expect(client.results[writeMore].map { [$0.residual, Int($0.residualFlags)] } == [1024, 2])
    }

    @Test("An unknown logical unit is answered as SAM-5 says; REPORT LUNS is answered by any")
    func unknownUnit() {
        let world = World(disks: 3)
        let client = world.ready()
        for field in [lunField(9), lunField(300), 0x0001_0001_0000_0000, 0xc101_0000_0000_0000, 0x8001_0000_0000_0000] {
            let inquiry = client.command(CDB.inquiry(96), read: 96, lunField: field)
            let ready = client.command(CDB.testUnitReady, lunField: field)
            let write = client.command(CDB.write(0, 4), write: pattern(2048), lunField: field)
            let luns = client.command(CDB.reportLUNs(256), read: 256, lunField: field)
            world.run()
            #expect(client.results[inquiry]?.status == 0)
            #expect(client.results[inquiry]?.dataIn.first == 0x7f)
            #expect(client.results[ready]?.code == [5, 0x25, 0])
            #expect(client.results[write]?.code == [5, 0x25, 0])
            #expect(client.results[luns]?.dataIn == [0, 0, 0, 24, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0])
        }
    }

    @Test("A command that wants to read and to write at once is refused")
    func bidirectional() {
        let world = World()
        let client = world.ready()
        let tag = client.tag()
        var pdu = PDU(opcode: 0x01, flags: 0x80 | 0x60 | 1, itt: tag)
        pdu.set32(8, UInt32(lunField(1) >> 32))
        pdu.set32(20, 512)
        pdu.set32(24, client.cmdSN)
        client.cmdSN += 1
        pdu.data = pattern(512)
        pdu.header.replaceSubrange(32..<48, with: CDB.write(0, 1))
        client.send(pdu)
        world.run()
        #expect(client.results[tag]?.status == 2)
        #expect(world.store(1).writes == 0)
    }

    @Test("A failure in the store becomes sense data")
    func storeFailure() {
        let world = World()
        let client = world.ready()
        world.store(1).failures = [.unreadable, .noSpace]
        let read = client.command(CDB.read(0, 1), read: 512)
        let write = client.command(CDB.write(0, 1), write: pattern(512))
        world.run()
        #expect(client.results[read]?.code == [3, 0x11, 0])
        #expect(client.results[write]?.code == [7, 0x27, 7])
        #expect(client.session.statistics.first?.statistics.errors ?? 0 >= 2)
    }

    @Test("Statistics count what was asked for and what was done")
    func statistics() {
        let world = World()
        let client = world.ready()
        client.command(CDB.write(0, 2), write: pattern(1024))
        client.command(CDB.read(0, 4), read: 2048)
        world.holdsOperations = true
        client.command(CDB.read(0, 1), read: 512)
        world.run()
        world.holdsOperations = false
        world.releaseAll()
        client.command(CDB.read(5000, 1), read: 512)
        world.run()
        let all = client.session.statistics
        #expect(all.count == 1 && all[0].number == 1)
        #expect(all[0].statistics.writeSubmitted == all[0].statistics.writeDone)
        #expect([all[0].statistics.writeDone.bytes, all[0].statistics.writeDone.commands] == [1024, 1])
        #expect([all[0].statistics.readSubmitted.bytes, all[0].statistics.readSubmitted.commands] == [3072, 3])
        #expect([all[0].statistics.readDone.bytes, all[0].statistics.readDone.commands] == [2560, 2])
    }

    @Test("The window is as wide as agreed, and a command behind it is ignored")
    func window() {
        var parameters = NegotiatedParameters()
        parameters.queueDepth = 4
        let world = World()
        let client = world.ready(parameters: parameters)
        world.holdsOperations = true
        let tags = (0..<5).map { client.command(CDB.read(UInt64($0), 1), read: 512) }
        world.run()
        #expect(world.held.count == 4)
        world.releaseAll()
        #expect(tags.map { client.results[$0] != nil } == [true, true, true, true, false])
        #expect(client.closed == nil)
    }

    // MARK: Order (SAM-5 §8)

    @Test("ORDERED waits for all before it, and all behind it wait")
    func ordered() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        for (lba, attribute) in [(0, 1), (1, 1), (2, 2), (3, 1), (4, 2), (5, 2)] as [(UInt64, UInt8)] {
            client.command(CDB.read(lba, 1), read: 512, attribute: attribute)
        }
        world.run()
        #expect(world.heldBlocks == [0, 1])
        world.release(1)
        #expect(world.heldBlocks == [0])
        world.release()
        #expect(world.heldBlocks == [2])
        world.release()
        #expect(world.heldBlocks == [3])
        world.release()
        #expect(world.heldBlocks == [4])
        world.release()
        #expect(world.heldBlocks == [5])
        world.release()
        #expect(client.order.suffix(6).allSatisfy { client.results[$0]?.status == 0 })
    }

    @Test("HEAD OF QUEUE runs at once, and holds back what has not begun")
    func headOfQueue() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        for (lba, attribute) in [(0, 1), (1, 2), (2, 3), (3, 1), (4, 3)] as [(UInt64, UInt8)] {
            client.command(CDB.read(lba, 1), read: 512, attribute: attribute)
        }
        world.run()
        #expect(world.heldBlocks == [0, 2, 4])
        world.release(0)
        #expect(world.heldBlocks == [2, 4])
        world.release(0)
        #expect(world.heldBlocks == [4])
        world.release(0)
        #expect(world.heldBlocks == [1])
        world.release(0)
        #expect(world.heldBlocks == [3])
    }

    @Test("Task sets of two logical units, and of two nexuses, do not wait for each other")
    func separateTaskSets() {
        let world = World(disks: 2)
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        first.command(CDB.read(0, 1), read: 512, attribute: 2)
        first.command(CDB.read(1, 1), lun: 2, read: 512, attribute: 2)
        second.command(CDB.read(2, 1), read: 512, attribute: 2)
        world.run()
        #expect(world.heldBlocks.sorted() == [0, 1, 2])
    }

    @Test("ORDERED behind a write whose data have not come waits for them")
    func orderedBehindCollecting() {
        let world = World()
        let client = world.ready(parameters: smallBursts)
        client.holdsTransfers = true
        client.command(CDB.write(0, 4), write: pattern(2048))
        let read = client.command(CDB.read(0, 4), read: 2048, attribute: 2)
        world.run()
        #expect(client.results[read] == nil)
        client.holdsTransfers = false
        client.answerTransfers()
        world.run()
        let isRead = client.results[read]?.dataIn == pattern(2048)
        #expect(isRead)
    }

    // MARK: Logical units that come and go

    @Test("A logical unit that is added can be reached, and the others report it")
    func added() {
        let world = World()
        let client = world.ready()
        world.addDisk(2)
        let other = client.command(CDB.testUnitReady)
        let again = client.command(CDB.testUnitReady)
        let new = client.command(CDB.testUnitReady, lun: 2)
        let luns = client.command(CDB.reportLUNs(64), read: 64)
        world.run()
        #expect(client.results[other]?.code == [6, 0x3f, 0x0e])
        #expect(client.results[again]?.status == 0)
        #expect(client.results[new]?.code == [6, 0x29, 0])
        #expect(client.results[luns]?.dataIn.count == 24)
    }

    @Test("REPORT LUNS takes REPORTED LUNS DATA HAS CHANGED away")
    func reportLUNsClears() {
        let world = World()
        let client = world.ready()
        world.addDisk(2)
        client.command(CDB.reportLUNs(64), read: 64)
        let ready = client.command(CDB.testUnitReady)
        world.run()
        #expect(client.results[ready]?.status == 0)
    }

    @Test("A logical unit is let go when its last task has left the store, and its tasks end with LOGICAL UNIT NOT SUPPORTED")
    func removed() {
        let world = World(disks: 2)
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        let inStore = first.command(CDB.read(0, 1), read: 512)
        let dormant = first.command(CDB.read(1, 1), read: 512, attribute: 2)
        let other = first.command(CDB.read(2, 1), lun: 2, read: 512)
        let second1 = second.command(CDB.read(3, 1), read: 512)
        world.run()
        let released = Flag()
        world.target.remove(number: 1) { released.raise() }
        world.run()
        let late = first.command(CDB.testUnitReady)
        world.run()
        #expect(first.results[dormant]?.code == [5, 0x25, 0])
        #expect(first.results[late]?.code == [5, 0x25, 0])
        #expect(released.count == 0)
        world.release(world.heldBlocks.firstIndex(of: 0)!)
        #expect(first.results[inStore]?.code == [5, 0x25, 0])
        #expect(released.count == 0)
        world.release(world.heldBlocks.firstIndex(of: 3)!)
        #expect(second.results[second1]?.code == [5, 0x25, 0])
        #expect(released.count == 1)
        world.releaseAll()
        #expect(first.results[other]?.status == 0)
    }

    @Test("A number can be given anew at once: the new logical unit has nothing of the old one")
    func replaced() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        let old = client.command(CDB.write(0, 1), write: pattern(512))
        world.run()
        let released = Flag()
        world.target.remove(number: 1) { released.raise() }
        world.addDisk(1)
        world.run()
        let new = client.command(CDB.testUnitReady)
        world.run()
        #expect(client.results[new]?.code == [6, 0x29, 0])
        world.releaseAll()
        #expect(client.results[old]?.code == [5, 0x25, 0])
        #expect(released.count == 1)
        #expect(world.store(1).bytes(0..<512) == [UInt8](repeating: 0, count: 512))
    }

    @Test("Removing a number that is free lets go at once")
    func removedNobody() {
        let released = Flag()
        #expect(World().target.remove(number: 77) { released.raise() } == nil)
        #expect(released.count == 1)
    }
}

extension World {
    /// First blocks of the operations in the store, in order.
    var heldBlocks: [Int] {
        held.map { operation in
            switch operation.operation {
            case .read(let extent), .write(let extent, _), .orWrite(let extent, _), .compareAndWrite(let extent, _):
                Int(extent.offset) / World.blockLength
            default: -1
            }
        }
    }
}
