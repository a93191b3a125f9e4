import Bytes
import Medium
import Testing
@testable import SCSI

@Suite struct BlockTests {
    let pattern: [UInt8] = (0..<4 * 4096).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }

    @Test("What any WRITE writes any READ reads", arguments: [512, 4096])
    func readAndWrite(blockLength: Int) {
        let rig = Rig(Rig.disk(blockLength: blockLength))
        let two = Array(pattern[..<(2 * blockLength)])
        let writes: [[UInt8]] = [[0x0a, 0, 0, 9, 2, 0], ten(0x2a, 9, 2), [0xaa, 0] + big(UInt32(9)) + big(UInt32(2)) + [0, 0], sixteen(0x8a, 9, 2),
                                 ten(0x2e, 9, 2), [0xae, 0] + big(UInt32(9)) + big(UInt32(2)) + [0, 0], sixteen(0x8e, 9, 2), ten(0x2e, 9, 2, flags: 2)]
        let reads: [[UInt8]] = [[0x08, 0, 0, 9, 2, 0], ten(0x28, 9, 2), [0xa8, 0] + big(UInt32(9)) + big(UInt32(2)) + [0, 0], sixteen(0x88, 9, 2)]
        for write in writes {
            rig.medium = [UInt8](repeating: 0, count: rig.medium.count)
            #expect(rig.run(write, sending: two).isGood)
            #expect(Array(rig.medium[9 * blockLength..<11 * blockLength]) == two)
            #expect(rig.medium[11 * blockLength] == 0)
            for read in reads { #expect(rig.run(read).data == two) }
        }
    }

    @Test("READ(6) and WRITE(6) take 0 for 256 blocks")
    func six() {
        let rig = Rig()
        #expect(rig.run([0x08, 0, 0, 0, 0, 0]).data.count == 256 * 512)
        #expect(rig.unit.dataOutLength(cdb([0x0a, 0, 0, 0, 0, 0])) == 256 * 512)
        #expect(rig.run([0x08, 0x1f, 0xff, 0xff, 1, 0]).check(5, 0x21, 0))
    }

    @Test("Blocks are in range as block numbers: the last one is, the next is not, nor is what overflows in bytes")
    func range() {
        let rig = Rig.with { $0.isThinProvisioned = true }
        for command in CommandTable.commands where command.addressing == .ten || command.addressing == .twelve || command.addressing == .sixteen || command.addressing == .short16 {
            guard command.action != .readCapacity10 else { continue }
            func run(_ lba: UInt64, _ count: Int) -> Answer {
                var bytes = plain(command)
                if command.addressing == .ten || command.addressing == .twelve {
                    guard let lba = UInt32(exactly: lba) else { return Answer(status: .good, sense: [], data: [], aborts: []) }
                    bytes.replaceSubrange(2..<6, with: big(lba))
                } else {
                    bytes.replaceSubrange(2..<10, with: big(lba))
                }
                switch command.addressing {
                case .ten: bytes.replaceSubrange(7..<9, with: big(UInt16(count)))
                case .twelve: bytes.replaceSubrange(6..<10, with: big(UInt32(count)))
                case .short16: bytes[13] = UInt8(count)
                default: bytes.replaceSubrange(10..<14, with: big(UInt32(count)))
                }
                let sent = command.action == .compareAndWrite ? 1024 * count : command.action == .writeSame ? 512 : 512 * count
                return rig.run(bytes, sending: [UInt8](repeating: 0, count: sent))
            }
            let name = "\(command.name)"
            #expect(run(1023, 1).isGood, "\(name)")
            #expect(run(1022, 2).isGood, "\(name)")
            #expect(run(1023, 0).isGood, "\(name)")
            for (lba, count) in [(1024, 1), (1023, 2), (1024, 0), (1025, 0), (1 << 31, 0), (1 << 31, 1), (0xffff_ffff, 0), (0xffff_ffff, 1)] as [(UInt64, Int)] {
                #expect(run(lba, count).check(5, 0x21, 0), "\(name) \(lba) \(count)")
            }
            guard command.addressing == .sixteen || command.addressing == .short16 else { continue }
            for lba in [1 << 55, 1 << 63, UInt64.max] as [UInt64] {
                for count in 0...2 { #expect(run(lba, count).check(5, 0x21, 0), "\(name) \(lba) \(count)") }
            }
        }
    }

    @Test("Transfers up to the maximum are taken, more is refused before any data come", arguments: [512, 4096])
    func transferLimit(blockLength: Int) {
        var settings = Rig.disk(blockLength: blockLength)
        settings.blockCount = 1 << 40
        let unit = LogicalUnit(settings, targetName: Rig.target)
        let most = UInt32(Limits.maximumTransferBytes / blockLength)
        for code in [0x88, 0x8a, 0x8b, 0x8e, 0x8f] as [UInt8] {
            let flags: UInt8 = code == 0x8f ? 2 : 0
            for (count, fits) in [(most - 1, true), (most, true), (most + 1, false), (UInt32.max, false)] {
                let block = cdb(sixteen(code, 0, count, flags: flags))
                let length = unit.dataOutLength(block)
                #expect(length == (code == 0x88 || !fits ? 0 : Int(count) * blockLength))
                var task = DeviceTask(nexus: NexusID(rawValue: 1), cdb: block, dataOutCount: length)
                switch unit.begin(&task, dataOut: nil) {
                case .medium: #expect(fits)
                case .done(let completion): #expect(!fits && completion.sense[12] == 0x24)
                case .keep: Issue.record("reservations kept")
                }
            }
        }
    }

    @Test("Transfers of no blocks are GOOD and touch nothing")
    func zero() {
        let rig = Rig()
        for bytes in [read10(5, 0), write10(5, 0), ten(0x2f, 5, 0), ten(0x2f, 5, 0, flags: 2), ten(0x2f, 5, 0, flags: 6), ten(0x2e, 5, 0), sixteen(0x89, 5, 0), sixteen(0x8b, 5, 0)] {
            let answer = rig.run(bytes)
            #expect(answer.isGood && answer.data.isEmpty)
        }
        #expect(rig.operations.isEmpty)
    }

    @Test("FUA, and a write cache that is off, make writes durable and FUA reads flush first")
    func durability() {
        let rig = Rig()
        let block = [UInt8](repeating: 1, count: 512)
        let extent = Extent(offset: 512, length: 512)
        rig.run(write10(1, 1), sending: block)
        rig.run(write10(1, 1, flags: 0x10), sending: block)
        rig.run(write10(1, 1, flags: 0x08), sending: block)
        rig.run(read10(1, 1, flags: 0x08))
        rig.run(read10(1, 1))
        #expect(rig.operations == [.write(extent, durable: false), .write(extent, durable: false), .write(extent, durable: true), .flush, .read(extent), .read(extent)])
        var settings = rig.unit.settings
        settings.modePages = [.init(page: 8, subpage: 0, data: [0x10, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0])]
        rig.unit.apply(settings)
        #expect(rig.run(testUnitReady).check(6, 0x2a, 1))
        rig.operations = []
        rig.run(write10(1, 1), sending: block)
        rig.run(read10(1, 1, flags: 0x08))
        #expect(rig.operations == [.write(extent, durable: true), .read(extent)])
        #expect(rig.run([0x0a, 0x08, 0, 1, 1, 0], sending: block).check(5, 0x21, 0), "what is FUA elsewhere is an address in a 6-byte CDB")
    }

    @Test("SYNCHRONIZE CACHE flushes, with IMMED as well")
    func synchronize() {
        let rig = Rig()
        for bytes in [ten(0x35, 0, 0), ten(0x35, 5, 9, flags: 6), sixteen(0x91, 0, 0), sixteen(0x91, 7, 1, flags: 2)] {
            rig.operations = []
            #expect(rig.run(bytes).isGood && rig.operations == [.flush])
        }
    }

    @Test("A command whose initiator sends less is carried out on what arrived")
    func residual() {
        let rig = Rig()
        rig.medium = [UInt8](repeating: 9, count: rig.medium.count)
        for count in [0, 200, 512, 700, 1024] {
            for (code, flags) in [(0x2a, 0), (0x2e, 0), (0x2e, 2)] as [(UInt8, UInt8)] {
                rig.medium = [UInt8](repeating: 9, count: rig.medium.count)
                #expect(rig.run(ten(code, 0, 2, flags: flags), sending: [UInt8](repeating: 1, count: count)).isGood)
                #expect(rig.medium.prefix(count).allSatisfy { $0 == 1 } && rig.medium[count...].allSatisfy { $0 == 9 })
            }
        }
    }

    @Test("VERIFY reads, compares all data or one block with all, and points to the first difference")
    func verify() {
        let rig = Rig()
        let data = Array(pattern[..<2048])
        rig.run(write10(4, 4), sending: data)
        rig.operations = []
        #expect(rig.run(ten(0x2f, 4, 4)).isGood)
        #expect(rig.operations == [.verify(Extent(offset: 2048, length: 2048))])
        for (code, make) in [(0x2f, ten(0x2f, 4, 4, flags: 2)), (0x8f, sixteen(0x8f, 4, 4, flags: 2)), (0xaf, [0xaf, 2] + big(UInt32(4)) + big(UInt32(4)) + [0, 0])] as [(UInt8, [UInt8])] {
            #expect(rig.run(make, sending: data).isGood, "\(code)")
            for position in [0, 511, 512, 2047] {
                var wrong = data
                wrong[position] ^= 1
                let answer = rig.run(make, sending: wrong)
                #expect(answer.check(0xe, 0x1d, 0) && answer.sense[0] == 0xf0 && number(answer.sense[3..<7]) == UInt64(position))
            }
        }
        #expect(rig.run(ten(0x2f, 4, 4, flags: 4), sending: data).check(5, 0x24, 0))
        let one = Array(pattern[..<512])
        for block in 0..<300 { rig.medium.replaceSubrange(block * 512..<(block + 1) * 512, with: one) }
        #expect(rig.run(ten(0x2f, 0, 300, flags: 6), sending: one).isGood)
        #expect(rig.run(ten(0x2f, 0, 301, flags: 6), sending: one).check(0xe, 0x1d, 0))
        rig.medium[299 * 512 + 17] ^= 1
        #expect(number(rig.run(ten(0x2f, 0, 300, flags: 6), sending: one).sense[3..<7]) == 17)
        #expect(rig.run(ten(0x2f, 0, 300, flags: 6), sending: [1]).check(5, 0x1a, 0))
    }

    @Test("WRITE AND VERIFY writes durably and then verifies or compares")
    func writeAndVerify() {
        let rig = Rig()
        let extent = Extent(offset: 0, length: 512)
        rig.run(ten(0x2e, 0, 1), sending: Array(pattern[..<512]))
        rig.run(ten(0x2e, 0, 1, flags: 2), sending: Array(pattern[..<512]))
        #expect(rig.operations == [.write(extent, durable: true), .verify(extent), .write(extent, durable: true), .compare(extent)])
        for flags in [4, 6] as [UInt8] { #expect(rig.run(ten(0x2e, 0, 1, flags: flags), sending: Array(pattern[..<512])).check(5, 0x24, 0)) }
    }

    @Test("ORWRITE sets bits")
    func orWrite() {
        let rig = Rig()
        rig.run(write10(0, 1), sending: [UInt8](repeating: 0x50, count: 512))
        #expect(rig.run(sixteen(0x8b, 0, 1), sending: [UInt8](repeating: 0x0a, count: 512)).isGood)
        #expect(rig.run(read10(0, 1)).data == [UInt8](repeating: 0x5a, count: 512))
    }

    func compareAndWrite(_ lba: UInt64, _ count: UInt8) -> [UInt8] { [0x89, 0] + big(lba) + [0, 0, 0, count, 0, 0] }

    @Test("COMPARE AND WRITE writes if the data are as expected, up to its maximum, and wants exactly its data")
    func comparing() {
        let rig = Rig()
        let old = [UInt8](repeating: 0, count: 512), new = Array(pattern[..<512])
        #expect(rig.run(compareAndWrite(3, 1), sending: old + new, exact: true).isGood)
        #expect(rig.run(read10(3, 1)).data == new)
        let answer = rig.run(compareAndWrite(3, 1), sending: old + new, exact: true)
        #expect(answer.check(0xe, 0x1d, 0) && number(answer.sense[3..<7]) == UInt64(new.firstIndex { $0 != 0 } ?? -1))
        #expect(rig.run(read10(3, 1)).data == new)
        for count in [0, 511, 512, 1023] { #expect(rig.run(compareAndWrite(3, 1), sending: [UInt8](repeating: 0, count: count)).check(5, 0x24, 0)) }
        #expect(rig.run(compareAndWrite(3, 1), sending: [UInt8](repeating: 0, count: 2048), exact: true).check(5, 0x24, 0))
        #expect(rig.run(compareAndWrite(3, 0), sending: old, exact: true).check(5, 0x24, 0))
        for (count, fits) in [(127, true), (128, true), (129, false), (255, false)] as [(UInt8, Bool)] {
            #expect(rig.unit.dataOutLength(cdb(compareAndWrite(0, count))) == (fits ? Int(count) * 1024 : 0))
            let bytes = Array(repeating: UInt8(0), count: Int(count) * 1024)
            let answer = rig.run(compareAndWrite(128, count), sending: bytes, exact: true)
            #expect(fits ? answer.isGood : answer.check(5, 0x24, 0))
        }
    }

    @Test("WRITE SAME repeats a block, to the end for 0 blocks, up to its maximum")
    func writeSame() {
        let rig = Rig()
        let one = Array(pattern[..<512])
        for (bytes, first, count) in [(ten(0x41, 10, 5), 10, 5), (sixteen(0x93, 1000, 0), 1000, 24), (ten(0x41, 0, 0), 0, 1024)] {
            rig.medium = [UInt8](repeating: 0, count: rig.medium.count)
            #expect(rig.run(bytes, sending: one).isGood)
            for block in 0..<1024 { #expect(rig.medium[block * 512 + 1] == ((first..<first + count).contains(block) ? one[1] : 0)) }
        }
        for sent in [0, 511] { #expect(rig.run(ten(0x41, 0, 1), sending: [UInt8](repeating: 0, count: sent)).check(5, 0x24, 0)) }
        #expect(rig.run(ten(0x41, 0, 1), sending: [UInt8](repeating: 0, count: 1024), exact: true).check(5, 0x24, 0))
        #expect(rig.run(ten(0x41, 0, 1, flags: 8), sending: one).check(5, 0x24, 0), "UNMAP, without thin provisioning")
        var large = Rig.disk()
        large.blockCount = 1 << 32
        let unit = LogicalUnit(large, targetName: Rig.target)
        let most = UInt32(Limits.writeSameBytes / 512)
        let buffer = BufferPool(budget: 4096).allocate(512)
        for (first, count, fits) in [(0, most, true), (0, most + 1, false), (0, 0, false), ((1 << 32) - UInt64(most), 0, true), ((1 << 32) - UInt64(most) - 1, 0, false)] as [(UInt64, UInt32, Bool)] {
            var task = DeviceTask(nexus: NexusID(rawValue: 1), cdb: cdb(sixteen(0x93, first, count)), dataOutCount: 512)
            switch unit.begin(&task, dataOut: buffer) {
            case .medium: #expect(fits)
            case .done(let completion): #expect(!fits && completion.sense[12] == 0x24)
            case .keep: Issue.record("reservations kept")
            }
        }
    }

    @Test("WRITE SAME unmaps if asked to, whatever the block says; NDOB stands for zeros")
    func writeSameUnmapping() {
        let rig = Rig.with { $0.isThinProvisioned = true }
        let extent = Extent(offset: 1024, length: 1024)
        let zeros = [UInt8](repeating: 0, count: 512), ones = [UInt8](repeating: 1, count: 512)
        for (bytes, data, expected) in [
            (ten(0x41, 2, 2, flags: 8), zeros, [.discard([extent])]), (sixteen(0x93, 2, 2, flags: 8), zeros, [.discard([extent])]),
            (sixteen(0x93, 2, 2, flags: 8), ones, [.discard([extent])]), (sixteen(0x93, 2, 2, flags: 9), [], [.discard([extent])]),
            (sixteen(0x93, 2, 2, flags: 1), [], [.prefetch(Extent(offset: 1024, length: 0)), .writeSame(extent, pattern: 512, durable: false)]),
        ] as [([UInt8], [UInt8], [Medium.Operation])] {
            rig.medium = [UInt8](repeating: 0xee, count: rig.medium.count)
            rig.operations = []
            #expect(rig.run(bytes, sending: data).isGood)
            #expect(rig.operations == expected)
            #expect(rig.medium[1024..<2048].allSatisfy { $0 == 0 } && rig.medium[2048] == 0xee)
        }
        for flags in [0x10, 0x18] as [UInt8] { #expect(rig.run(sixteen(0x93, 2, 2, flags: flags), sending: zeros).check(5, 0x24, 0), "ANCHOR") }
        #expect(rig.run(ten(0x41, 2, 2, flags: 1), sending: zeros).check(5, 0x24, 0), "NDOB is of the 16-byte CDB")
    }

    // MARK: UNMAP

    func unmap(_ rig: Rig, _ list: [UInt8], length: Int? = nil) -> Answer {
        rig.run([0x42, 0, 0, 0, 0, 0, 0] + big(UInt16(length ?? list.count)) + [0], sending: list)
    }
    func list(_ descriptors: [(UInt64, UInt32)]) -> [UInt8] {
        big(UInt16(16 * descriptors.count + 6)) + big(UInt16(16 * descriptors.count)) + [0, 0, 0, 0] + descriptors.flatMap { big($0.0) + big($0.1) + [0, 0, 0, 0] }
    }

    @Test("UNMAP takes its descriptors, ignores those of no blocks, and knows its limits")
    func unmapping() {
        let rig = Rig.with { $0.isThinProvisioned = true; $0.blockCount = 1 << 33 }
        rig.fault = { _ in .unsupported }
        func asked(_ descriptors: [(UInt64, UInt32)]) -> [Extent]? {
            rig.operations = []
            _ = unmap(rig, list(descriptors))
            guard case .discard(let extents)? = rig.operations.first else { return nil }
            return extents
        }
        #expect(asked([(4, 2), (9, 0), (7, 1)]) == [Extent(offset: 2048, length: 1024), Extent(offset: 3584, length: 512)])
        #expect(unmap(rig, []).isGood && unmap(rig, list([])).isGood && unmap(rig, list([(1 << 33, 0)])).isGood)
        #expect(unmap(rig, list([(1 << 33, 1)])).check(5, 0x21, 0) && unmap(rig, list([(UInt64.max, 1)])).check(5, 0x21, 0))
        #expect(asked([(0, 1 << 20)]) != nil && asked([(0, (1 << 20) - 1), (1 << 21, 1)]) != nil)
        #expect(unmap(rig, list([(0, (1 << 20) + 1)])).check(5, 0x26, 0))
        #expect(unmap(rig, list([(0, 1 << 20), (1 << 21, 1)])).check(5, 0x26, 0))
        #expect(unmap(rig, list([(0, UInt32.max), (0, UInt32.max)])).check(5, 0x26, 0))
        #expect(asked((0..<256).map { ($0, 1) })?.count == 256)
        #expect(unmap(rig, list((0..<257).map { ($0, 1) })).check(5, 0x26, 0))
        #expect(Rig().run([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], sending: list([(0, 1)])).check(5, 0x20, 0))
    }

    @Test("An UNMAP list cut at any length does all of a shorter list or nothing")
    func unmapTruncated() {
        let rig = Rig.with { $0.isThinProvisioned = true }
        let whole = list([(1, 1), (5, 2), (9, 1)])
        for count in 0..<whole.count {
            rig.operations = []
            // Announced in the CDB as well, and announced in full.
            #expect(count == 0 ? unmap(rig, []).isGood : unmap(rig, Array(whole[..<count])).check(5, 0x1a, 0), "\(count)")
            #expect(unmap(rig, Array(whole[..<count]), length: whole.count).check(5, 0x1a, 0), "\(count)")
            #expect(rig.operations.isEmpty)
        }
        #expect(unmap(rig, whole).isGood)
        var ragged = whole
        ragged[3] = 40
        rig.operations = []
        #expect(unmap(rig, ragged).isGood)
        #expect(rig.operations == [.discard([Extent(offset: 512, length: 512), Extent(offset: 2560, length: 1024)])], "an incomplete descriptor is ignored")
    }

    @Test("GET LBA STATUS tells runs of mapped and deallocated blocks")
    func status() {
        let rig = Rig.with { $0.isThinProvisioned = true }
        rig.run(write10(10, 5), sending: [UInt8](repeating: 1, count: 5 * 512))
        func runs(_ lba: UInt64, _ allocated: UInt32 = 1000) -> [[UInt64]] {
            let data = rig.run([0x9e, 0x12] + big(lba) + big(allocated) + [0, 0]).data
            #expect(number(data[0..<4]) == UInt64(data.count - 4))
            return statusRuns(data)
        }
        #expect(runs(0) == [[0, 10, 1], [10, 5, 0], [15, 1009, 1]])
        #expect(runs(12) == [[12, 3, 0], [15, 1009, 1]])
        #expect(runs(1023) == [[1023, 1, 1]])
        for lba in [1024, 1 << 55, 1 << 63] as [UInt64] { #expect(rig.run([0x9e, 0x12] + big(lba) + big(UInt32(24)) + [0, 0]).check(5, 0x21, 0)) }
        rig.fault = { _ in .unsupported }
        #expect(runs(1) == [[1, 1023, 0]])
        rig.fault = { _ in .unreadable }
        #expect(rig.run([0x9e, 0x12] + big(UInt64(0)) + big(UInt32(24)) + [0, 0]).check(3, 0x11, 0))
    }

    @Test("Runs that split blocks, overlap, or come in great number make sound status descriptors")
    func statusOfOddRuns() {
        let unit = LogicalUnit({ var settings = Rig.disk(); settings.isThinProvisioned = true; return settings }(), targetName: Rig.target)
        func runs(_ provisioned: [(UInt64, UInt64, Bool)]) -> [[UInt64]] {
            var task = DeviceTask(nexus: NexusID(rawValue: 9), cdb: cdb([0x9e, 0x12] + big(UInt64(0)) + big(UInt32.max) + [0, 0]))
            _ = unit.begin(&task, dataOut: nil)
            let outcome = Outcome.provisioned(provisioned.map { ProvisionedRun(extent: Extent(offset: $0.0, length: $0.1), isMapped: $0.2) })
            guard case .done(let completion) = unit.resume(&task, after: outcome, buffer: nil), case .bytes(let data) = completion.dataIn else { return [] }
            return statusRuns(data)
        }
        #expect(runs([(0, 700, true), (700, 1000, false), (1700, 100, true)]) == [[0, 2, 0], [2, 1, 1], [3, 1, 0]])
        #expect(runs([(0, 100, false), (100, 100, true)]) == [[0, 1, 0]])
        #expect(runs([(0, UInt64.max, true), (5, UInt64.max, false)]) == [[0, 1024, 0]])
        #expect(runs([]) == [[0, 1024, 0]])
        #expect(runs((0..<1024).map { ($0 * 512, 512, $0 % 2 == 0) }).count == Limits.statusDescriptors)
    }

    @Test("READ CAPACITY tells the last block, block length, provisioning and alignment")
    func capacity() {
        let rig = Rig.with { $0.isThinProvisioned = true; $0.physicalBlockExponent = 3; $0.lowestAlignedBlock = 0x1234 }
        let sixteen: [UInt8] = [0x9e, 0x10] + [UInt8](repeating: 0, count: 11) + [32, 0, 0]
        #expect(rig.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).data == big(UInt32(1023)) + big(UInt32(512)))
        #expect(rig.run(sixteen).data == big(UInt64(1023)) + big(UInt32(512)) + [0, 3, 0xd2, 0x34] + [UInt8](repeating: 0, count: 16))
        #expect(Array(Rig().run(sixteen).data[12..<16]) == [0, 0, 0, 0])
        #expect(rig.run([0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]).check(5, 0x24, 0) && rig.run([0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0]).isGood)
        let large = Rig.with { $0.blockCount = 1 << 40 }
        #expect(large.run([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).data == [255, 255, 255, 255, 0, 0, 2, 0])
        #expect(number(large.run(sixteen).data[0..<8]) == (1 << 40) - 1)
    }

    // MARK: Failures

    @Test("Failures of the medium become their sense data", arguments: [
        (Failure.unreadable, [3, 0x11, 0]), (.unwritable, [3, 0x0c, 0]), (.flushFailed, [3, 0x0c, 0]), (.noSpace, [7, 0x27, 7]),
        (.readOnly, [7, 0x27, 0]), (.miscompare(offset: 77), [0xe, 0x1d, 0]), (.unsupported, [5, 0x20, 0]),
    ] as [(Failure, [UInt8])])
    func failures(failure: Failure, code: [UInt8]) {
        for command in CommandTable.commands where command.needs.contains(.medium) {
            let rig = Rig.with { $0.isThinProvisioned = true }
            rig.fault = { _ in failure }
            let answer = rig.run(plain(command), sending: plainData(command))
            if !rig.operations.isEmpty, command.action != .statusOfBlocks { #expect(answer.status == .checkCondition && answer.code == code, "\(command.name)") }
        }
    }

    @Test("After a failed flush writes, FUA and flushes fail until it is forgotten, and its keeper knows before anybody is told")
    func failedFlush() {
        let rig = Rig()
        let block = [UInt8](repeating: 1, count: 512)
        rig.fault = { $0 == .flush ? .flushFailed : nil }
        #expect(rig.kept.isEmpty)
        #expect(rig.run(ten(0x35, 0, 0)).check(3, 0x0c, 0))
        #expect(rig.kept.map(\.flushFailed) == [true])
        rig.fault = { _ in nil }
        rig.operations = []
        #expect(rig.unit.condition.flushFailed)
        for bytes in [write10(0, 1), write10(0, 1, flags: 8), ten(0x35, 0, 0), read10(0, 1, flags: 8), ten(0x2e, 0, 1), ten(0x41, 0, 1), sixteen(0x8b, 0, 1)] {
            #expect(rig.run(bytes, sending: block).check(3, 0x0c, 0))
        }
        #expect(rig.operations.isEmpty)
        #expect(rig.run(read10(0, 1)).isGood && rig.run(testUnitReady).isGood)
        rig.unit.reset()
        #expect(rig.run(testUnitReady).check(6, 0x29, 3) && rig.run(write10(0, 1), sending: block).check(3, 0x0c, 0))
        var settings = rig.unit.settings
        settings.isOnline = false
        rig.unit.apply(settings)
        #expect(rig.unit.condition.flushFailed)
        settings.isOnline = true
        rig.unit.apply(settings)
        #expect(rig.unit.condition.flushFailed)
        let successor = Rig(record: rig.unit.record)
        #expect(successor.run(write10(0, 1), sending: block).check(3, 0x0c, 0))
        #expect(rig.unit.forgetFailedFlush() && !rig.unit.forgetFailedFlush() && rig.unit.recordToKeep()?.flushFailed == false)
        #expect(!rig.unit.condition.flushFailed)
        #expect(rig.run(testUnitReady).check(6, 0x28, 0) && rig.run(write10(0, 1), sending: block).isGood && rig.run(ten(0x35, 0, 0)).isGood)
    }

    @Test("A durable write that fails in its flush is remembered, one that fails otherwise is not")
    func failedDurableWrite() {
        for (failure, remembered) in [(Failure.flushFailed, true), (.unwritable, false), (.noSpace, false)] {
            let rig = Rig()
            rig.fault = { _ in failure }
            rig.run(write10(0, 1, flags: 8), sending: [UInt8](repeating: 1, count: 512))
            #expect(rig.unit.condition.flushFailed == remembered)
        }
    }
}
