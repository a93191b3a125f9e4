import Foundation
import Reactor
import SCSI
import Storage
import Testing

@testable import DataPlane

/// Serialized: one of them looks at what the threads of reactors use of the processor.
@Suite(.serialized) struct SessionConnectionTests {
    @Test("A medium is changed when the last command of the old one is over; each command stays with the one it began with")
    func changedMedium() throws {
        let rig = try Rig()
        let client = try rig.grant(tsih: 1)
        try client.begin()
        rig.store(0).hold(.write)
        // WRITE AND VERIFY: a second operation follows the first.
        client.command([0x2e, 0, 0, 0, 0x07, 0, 0, 0, 1, 0], writes: [UInt8](repeating: 1, count: 512))
        #expect(eventually { rig.store(0).heldBack == 1 })
        let change = try rig.ask(passing: rig.file("small", blocks: 8)) {
            .updateLogicalUnit($0, tid: Rig.tid, lun: 1, Rig.settings(8), Rig.description(8), forgetsFailedFlush: false)
        }
        try rig.settle()
        #expect(!rig.hasHeard { if case .done(change) = $0 { true } else { false } }, "a command is in the old medium")
        // CAPACITY DATA HAS CHANGED; then the new medium serves beside the old one.
        #expect(client.perform([0, 0, 0, 0, 0, 0]) == 0x02)
        #expect(client.perform(Client.write(3), writes: [UInt8](repeating: 3, count: 512)) == 0)
        rig.store(0).release()
        #expect(client.pdu()?[3] == 0, "its second operation is for the old medium, too")
        #expect(try rig.answer(to: change) == nil)
        #expect(try rig.bytes("disk", block: 0x700) == [UInt8](repeating: 1, count: 512))
        #expect(try rig.bytes("small", block: 3) == [UInt8](repeating: 3, count: 512))
        #expect(try rig.bytes("disk", block: 3) == [UInt8](repeating: 0, count: 512))
    }

    @Test("A medium that is not used is changed at once, and a store that cannot be used leaves the old one")
    func refusedMedium() throws {
        let rig = try Rig()
        try rig.must(passing: rig.file("other", blocks: 8)) {
            .updateLogicalUnit($0, tid: Rig.tid, lun: 1, Rig.settings(8), Rig.description(8), forgetsFailedFlush: false)
        }
        // Without a descriptor.
        #expect(try rig.answer(to: rig.ask { .tryStore($0, Rig.description(8)) }) == .badStore)
        #expect(
            try rig.answer(to: rig.ask { .updateLogicalUnit($0, tid: Rig.tid, lun: 1, Rig.settings(8), Rig.description(8), forgetsFailedFlush: false) })
                == .badStore)
        try rig.must(passing: rig.open("disk")) { .tryStore($0, Rig.description(Rig.blocks)) }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        #expect(client.perform(Client.write(1), writes: [UInt8](repeating: 4, count: 512)) == 0)
        #expect(try rig.bytes("other", block: 1) == [UInt8](repeating: 4, count: 512))
    }

    @Test("A file that has grown or shrunk since it was opened is served as it was then", arguments: [UInt64(64), 16])
    func otherLength(blocks: UInt64) throws {
        let rig = try Rig()
        try rig.must(passing: rig.file("other", blocks: blocks)) {
            .addLogicalUnit($0, tid: Rig.tid, lun: 2, Rig.settings(32), Rig.description(32), UnitRecord())
        }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        _ = client.perform([0, 0, 0, 0, 0, 0], lun: 2)
        // VERIFY(10) of one block: there, behind the end of the shorter file, behind the end of the disk.
        for (block, status) in [(UInt8(15), UInt8(0)), (31, blocks > 31 ? 0 : 2), (32, 2)] {
            #expect(client.perform([0x2f, 0, 0, 0, 0, block, 0, 0, 1, 0], lun: 2) == status, "block \(block)")
        }
    }

    @Test("With little memory, and with none for input that waits, every session gets what it sent into its store", arguments: [512 << 10, 4 << 20])
    func littleMemory(memory: Int) throws {
        let rig = try Rig { $0.memory = memory }
        let clients = try (UInt16(1)...4).map { try rig.grant(tsih: $0, isid: UInt64($0)) }
        for client in clients { try client.begin() }
        rig.store(0).hold(.write)
        // Of each eight writes of 64 blocks, all at once; most find no memory.
        for (number, client) in clients.enumerated() {
            for index in 0..<8 {
                let first = 64 * (8 * number + index)
                client.command(
                    [0x2a, 0, 0, 0, UInt8(first >> 8), UInt8(first & 0xff), 0, 0, 64, 0], writes: [UInt8](repeating: UInt8(8 * number + index + 1), count: 64 * 512))
            }
        }
        // Half of the threads may work for one store.
        #expect(eventually { rig.store(0).heldBack == 2 })
        try rig.settle()
        rig.store(0).release()
        for client in clients { for _ in 0..<8 { #expect(client.pdu()?[3] == 0) } }
        for index in 0..<32 { #expect(try rig.bytes("disk", block: 64 * index, count: 64) == [UInt8](repeating: UInt8(index + 1), count: 64 * 512)) }
    }

    @Test("Large and small writes that come in one stream, in pieces, lie where they belong", arguments: [64 << 20, 256 << 10])
    func streams(memory: Int) throws {
        let rig = try Rig { $0.memory = memory }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        var expected = [UInt8](repeating: 0, count: Int(Rig.blocks) * 512)
        var stream: [UInt8] = []
        var generator = SystemRandomNumberGenerator()
        var commands = 0
        while commands < 64 {
            let count = [1, 8, 63, 64, 65, 128, 256].randomElement(using: &generator)!
            let first = Int.random(in: 0...Int(Rig.blocks) - count, using: &generator)
            let data = (0..<count * 512).map { UInt8(truncatingIfNeeded: commands &+ $0 &* 7 &+ $0 >> 9) }
            stream += client.request(
                [0x2a, 0, 0, 0, UInt8(first >> 8), UInt8(first & 0xff), 0, UInt8(count >> 8), UInt8(count & 0xff), 0], attribute: 2, writes: data)
            expected.replaceSubrange(first * 512..<(first + count) * 512, with: data)
            commands += 1
            guard commands % 8 == 0 else { continue }
            var sent = 0
            while sent < stream.count {
                let piece = min(stream.count - sent, [1, 50, 9000, 40_000, 200_000].randomElement(using: &generator)!)
                client.send(Array(stream[sent..<sent + piece]))
                sent += piece
            }
            stream = []
            for _ in 0..<8 { #expect(client.pdu()?[3] == 0) }
        }
        #expect(try rig.bytes("disk", block: 0, count: Int(Rig.blocks)) == expected)
    }

    @Test("Reads that a ring does together bring each its own bytes, whether they are in memory or not", .enabled(if: (try? ReadRing()) != nil))
    func gathered() throws {
        let rings = [try ReadRing()]
        let rig = try Rig(rings: rings) { $0.decorate = { $0 } }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        let disk = (0..<Int(Rig.blocks) * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &+ $0 &* 3) }
        try rig.overwrite("disk", with: disk)
        for round in 0..<20 {
            // Half of the rounds find nothing in memory at first.
            if round % 2 == 0 { try rig.dropCache("disk") }
            var wanted: [Range<Int>] = []
            var stream: [UInt8] = []
            for _ in 0..<32 {
                let count = Int.random(in: 1...40)
                let first = Int.random(in: 0...Int(Rig.blocks) - count)
                wanted.append(first * 512..<(first + count) * 512)
                stream += client.request([0x28, 0, 0, 0, UInt8(first >> 8), UInt8(first & 0xff), 0, 0, UInt8(count), 0], reads: count * 512)
            }
            let firstTag = client.nextTag - 32
            client.send(stream)
            var answers: [Int: [UInt8]] = [:]
            var ends = 0
            while ends < 32, let (header, data) = client.wholePDU(), header[0] == 0x25 {
                ends += Int(header[1] & 1)
                answers[Int(header[19]) | Int(header[18]) << 8 | Int(header[17]) << 16, default: []] += data
            }
            for (index, range) in wanted.enumerated() {
                let isRight = answers[Int(firstTag) + index] == Array(disk[range])
                #expect(isRight, "read \(index) of round \(round)")
            }
        }
        #expect(rings[0].count > 100)
        withExtendedLifetime(rings) {}
    }

    @Test("A write that holds up the thread of its reactor holds up nobody else's command, and its store is left to the pool")
    func heldUpReactor() throws {
        let rig = try Rig(surprises: true)
        try rig.must(passing: rig.file("other", blocks: 64)) {
            .addLogicalUnit($0, tid: Rig.tid, lun: 2, Rig.settings(64), Rig.description(64), UnitRecord())
        }
        let (client, neighbour) = (try rig.grant(tsih: 1), try rig.grant(tsih: 2, isid: 2))
        try client.begin()
        try neighbour.begin()
        _ = neighbour.perform([0, 0, 0, 0, 0, 0], lun: 2)
        func block(_ value: UInt8) -> [UInt8] { [UInt8](repeating: value, count: 512) }
        for round in UInt8(0)..<3 {
            rig.store(0).hold(.write)
            for index in UInt8(0)..<8 { client.command(Client.write(8 * round + index), writes: block(8 * round + index + 1)) }
            // Half of the pool's four threads may work for one store. The reactor's own comes to it the first time; then it is wiser, for a while.
            #expect(eventually { rig.store(0).heldBack >= 2 })
            let begin = ContinuousClock.now
            for index in UInt8(0)..<20 {
                #expect(neighbour.perform(Client.write(index), lun: 2, writes: block(index + 100)) == 0)
                neighbour.send(neighbour.request([0x28, 0, 0, 0, 0, index, 0, 0, 1, 0], lun: 2, reads: 512))
                #expect(neighbour.wholePDU()?.data == block(index + 100))
            }
            print("40 commands beside a store that hangs took \(begin.duration(to: .now))")
            rig.store(0).release()
            for _ in 0..<8 { #expect(client.pdu()?[3] == 0) }
        }
        for index in 0..<24 { #expect(try rig.bytes("disk", block: index) == block(UInt8(index + 1))) }
        for index in 0..<20 { #expect(try rig.bytes("other", block: index) == block(UInt8(index + 100))) }
    }

    @Test("A connection that breaks while its write holds up the reactor's thread ends when that is back, and the reactor does the next one's writes")
    func brokenWhileHeldUp() throws {
        let rig = try Rig(surprises: true)
        for tsih in UInt16(1)...3 {
            let client = try rig.grant(tsih: tsih)
            try client.begin()
            rig.store(0).hold(.write)
            client.command(Client.write(0), writes: [UInt8](repeating: UInt8(tsih), count: 512))
            #expect(eventually { rig.store(0).heldBack == 1 })
            client.reset()
            try rig.settle()
            #expect(try rig.news() == (tsih, nil))
            rig.store(0).release()
            #expect(try rig.news() == (tsih, .connectionLost))
            #expect(try rig.bytes("disk", block: 0) == [UInt8](repeating: UInt8(tsih), count: 512))
        }
    }

    @Test("A store may hold reactors up for a tenth of the time; what is beyond that it makes up for before it is trusted again")
    func trust() {
        let second: UInt64 = 1_000_000_000
        let trust = Trust(atonement: 10)
        #expect(trust.holds(at: 0))
        // A tenth, for a minute.
        var now = second
        for _ in 0..<60_000 {
            trust.heldUp(for: 100_000, until: now)
            #expect(trust.holds(at: now))
            now += 1_000_000
        }
        // A fifth.
        var held = 0
        for _ in 0..<60_000 {
            now += 500_000
            guard trust.holds(at: now) else { continue }
            trust.heldUp(for: 100_000, until: now)
            held += 1
        }
        #expect((30_000...30_100).contains(held), "\(held)")
        // Once, for long.
        now += Trust.most
        trust.heldUp(for: second / 10, until: now)
        #expect(!trust.holds(at: now + second - Trust.tolerance - 1))
        #expect(trust.holds(at: now + second - Trust.tolerance))
        for time in [3600 * second, .max] {
            trust.heldUp(for: time, until: now)
            #expect(!trust.holds(at: now + Trust.most - Trust.tolerance - 1))
            #expect(trust.holds(at: now + Trust.most - Trust.tolerance))
        }
        // As long as it holds anybody, it is trusted by none; who is back may be counted out first.
        now += Trust.most
        trust.begins()
        trust.ends()
        trust.ends()
        #expect(trust.holds(at: now))
        trust.begins()
        trust.begins()
        #expect(!trust.holds(at: now + Trust.most))
        trust.ends()
        #expect(trust.holds(at: now))
    }

    @Test("A command that finds the queue of its store full is answered BUSY, and done when it comes again")
    func fullQueue() throws {
        let rig = try Rig { options in
            options.ioThreads = 1
            options.waitingOperations = 1
        }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        rig.store(0).hold(.write)
        let data = [UInt8](repeating: 7, count: 512)
        client.command(Client.write(0), writes: data)
        #expect(eventually { rig.store(0).heldBack == 1 })
        client.command(Client.write(1), writes: data)
        #expect(client.perform(Client.write(2), writes: data) == 0x08)
        rig.store(0).release()
        #expect(client.pdu()?[3] == 0)
        #expect(client.pdu()?[3] == 0)
        #expect(client.perform(Client.write(2), writes: data) == 0)
        #expect(try rig.bytes("disk", block: 0, count: 3) == data + data + data)
    }

    @Test("A connection that breaks while it is not read costs no time until its tasks are back")
    func brokenWhileUnread() throws {
        let rig = try Rig()
        let client = try rig.grant(tsih: 1)
        try client.begin()
        rig.store(0).hold(.write)
        client.command(Client.write(0), writes: [UInt8](repeating: 1, count: 512))
        client.logout()
        #expect(!client.hearsAnything())
        #expect(eventually { rig.store(0).heldBack == 1 })
        try rig.settle()
        client.reset()
        let before = Self.reactorTicks()
        usleep(500_000)
        let used = Self.reactorTicks() - before
        #expect(used < 15, "\(used) ticks of 10 ms while nothing is to be done")
        rig.store(0).release()
        #expect(try rig.news() == (1, nil))
        #expect(try rig.news() == (1, .connectionLost))
    }

    /// Processor time of all threads that are called reactors.
    private static func reactorTicks() -> Int {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
        return tasks.reduce(0) { sum, task in
            let text = FileManager.default.contents(atPath: "/proc/self/task/\(task)/stat").map { String(decoding: $0, as: UTF8.self) } ?? ""
            guard text.contains("(reactor"), let end = text.lastIndex(of: ")") else { return sum }
            let fields = text[end...].split(separator: " ")
            return sum + (fields.count > 13 ? (Int(fields[12]) ?? 0) + (Int(fields[13]) ?? 0) : 0)
        }
    }
}
