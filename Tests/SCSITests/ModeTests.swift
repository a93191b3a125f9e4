import Bytes
import Testing
@testable import SCSI

@Suite struct ModeTests {
    struct Parsed {
        var deviceSpecific: UInt8
        var descriptor: [UInt8]
        /// (page, subpage) → bytes behind the header.
        var pages: [[UInt8]: [UInt8]]
        var order: [[UInt8]]
    }

    func parse(_ data: [UInt8], six: Bool) -> Parsed? {
        let header = six ? 4 : 8
        guard data.count >= header else { return nil }
        let length = six ? Int(data[0]) + 1 : Int(number(data[0..<2])) + 2
        #expect(length == data.count)
        let descriptorLength = six ? Int(data[3]) : Int(number(data[6..<8]))
        var parsed = Parsed(deviceSpecific: data[six ? 2 : 3], descriptor: Array(data[header..<header + descriptorLength]), pages: [:], order: [])
        var rest = data[(header + descriptorLength)...]
        while let first = rest.first {
            let hasSubpage = first & 0x40 != 0
            let bytes = Array(rest)
            let name = [first & 0x3f, hasSubpage ? bytes[1] : 0]
            let count = hasSubpage ? Int(number(bytes[2..<4])) : Int(bytes[1])
            let start = hasSubpage ? 4 : 2
            guard bytes.count >= start + count else { return nil }
            parsed.pages[name] = Array(bytes[start..<start + count])
            parsed.order.append(name)
            rest = rest.dropFirst(start + count)
        }
        return parsed
    }
    func sense6(_ rig: Rig, _ page: UInt8, _ subpage: UInt8 = 0, control: UInt8 = 0, dbd: Bool = false) -> Parsed? {
        parse(rig.run([0x1a, dbd ? 8 : 0, control << 6 | page, subpage, 255, 0]).data, six: true)
    }
    func sense10(_ rig: Rig, _ page: UInt8, _ subpage: UInt8 = 0, flags: UInt8 = 0) -> Parsed? {
        parse(rig.run([0x5a, flags, page, subpage, 0, 0, 0, 4, 0, 0]).data, six: false)
    }
    func select6(_ rig: Rig, _ list: [UInt8], _ nexus: NexusID? = nil, flags: UInt8 = 0x10) -> Answer {
        rig.run([0x15, flags, 0, 0, UInt8(list.count), 0], nexus, sending: list)
    }
    static let caching: [UInt8] = [0x08, 18, 0x14, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0]
    static let control: [UInt8] = [0x0a, 10, 0x22, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]
    func changed(_ page: [UInt8], _ index: Int, _ value: UInt8) -> [UInt8] { var page = page; page[index] = value; return page }

    @Test("MODE SENSE returns each page alone, all pages, and all subpages, in ascending order")
    func pages() {
        let rig = Rig()
        let plain: [[UInt8]] = [[2, 0], [8, 0], [10, 0], [0x1c, 0]]
        #expect(sense6(rig, 0x3f)?.order == plain && sense10(rig, 0x3f)?.order == plain)
        #expect(sense6(rig, 0x3f, 0xff)?.order == [[2, 0], [8, 0], [10, 0], [10, 1], [0x1c, 0]])
        #expect(sense6(rig, 0x0a, 0xff)?.order == [[10, 0], [10, 1]] && sense6(rig, 0x0a, 1)?.order == [[10, 1]])
        let lengths: [[UInt8]: Int] = [[2, 0]: 14, [8, 0]: 18, [10, 0]: 10, [10, 1]: 28, [0x1c, 0]: 10]
        #expect(sense10(rig, 0x3f, 0xff)?.pages.mapValues(\.count) == lengths)
        let known: Set<[UInt8]> = [[2, 0], [8, 0], [10, 0], [10, 1], [0x1c, 0], [0x3f, 0], [0x3f, 0xff], [2, 0xff], [8, 0xff], [10, 0xff], [0x1c, 0xff]]
        for page in 0..<0x40 as Range<UInt8> {
            for subpage in [0, 1, 2, 0xff] as [UInt8] {
                #expect(rig.run([0x1a, 0, page, subpage, 255, 0]).isGood == known.contains([page, subpage]), "\(page) \(subpage)")
                #expect(rig.run([0x1a, 0, 0xc0 | page, subpage, 255, 0]).check(5, 0x39, 0))
            }
        }
    }

    @Test("TST is one task set per nexus, WCE is on, and only WCE, SWP and D_SENSE can be changed")
    func values() {
        let rig = Rig()
        for control in [0, 2] as [UInt8] {
            #expect(sense6(rig, 8, control: control)?.pages[[8, 0]] == Array(Self.caching.dropFirst(2)))
            #expect(sense6(rig, 10, control: control)?.pages[[10, 0]] == Array(Self.control.dropFirst(2)))
        }
        let mask = sense10(rig, 0x3f | 0x40, 0xff)
        #expect(mask?.pages[[8, 0]] == [4] + [UInt8](repeating: 0, count: 17) && mask?.pages[[10, 0]] == [4, 0, 8, 0, 0, 0, 0, 0, 0, 0])
        for name in [[2, 0], [10, 1], [0x1c, 0]] as [[UInt8]] { #expect(mask?.pages[name]?.allSatisfy { $0 == 0 } == true) }
    }

    @Test("Block descriptors are short or long or absent; the device-specific parameter tells write protection and DPOFUA")
    func descriptors() {
        let rig = Rig()
        let short: [UInt8] = [0, 0, 4, 0, 0, 0, 2, 0]
        #expect(sense6(rig, 8)?.descriptor == short && sense10(rig, 8)?.descriptor == short)
        #expect(sense6(rig, 8, dbd: true)?.descriptor == [] && sense10(rig, 8, flags: 0x18)?.descriptor == [])
        #expect(sense10(rig, 8, flags: 0x10)?.descriptor == [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0])
        #expect(rig.run([0x5a, 0x10, 8, 0, 0, 0, 0, 1, 0, 0]).data[4] == 1)
        #expect(sense6(Rig.with { $0.blockCount = 1 << 40 }, 8)?.descriptor == [255, 255, 255, 255, 0, 0, 2, 0])
        #expect(sense6(Rig.with { $0.isRemovable = true; $0.hasMedium = false }, 8)?.descriptor == [0, 0, 0, 0, 0, 0, 2, 0])
        #expect(sense6(rig, 8)?.deviceSpecific == 0x10 && sense6(Rig.with { $0.isReadOnly = true }, 8)?.deviceSpecific == 0x90)
    }

    @Test("SWP protects the medium for everybody and tells the others")
    func softwareWriteProtect() {
        let rig = Rig()
        #expect(select6(rig, [0, 0, 0, 0] + changed(Self.control, 4, 0x08)).isGood)
        #expect(sense6(rig, 10)?.deviceSpecific == 0x90 && sense6(rig, 10)?.pages[[10, 0]]?[2] == 8 && sense6(rig, 10, control: 2)?.pages[[10, 0]]?[2] == 0)
        for nexus in [rig.b, rig.c] { #expect(rig.run(testUnitReady, nexus).check(6, 0x2a, 1) && rig.run(testUnitReady, nexus).isGood) }
        #expect(rig.run(write10(0, 1), rig.b, sending: [UInt8](repeating: 0, count: 512)).check(7, 0x27, 2))
        #expect(rig.unit.condition.isSoftwareWriteProtected)
        #expect(select6(rig, [0, 0, 0, 0] + Self.control).isGood && select6(rig, [0, 0, 0, 0] + Self.control).isGood)
        #expect(rig.run(testUnitReady, rig.b).check(6, 0x2a, 1) && rig.run(testUnitReady, rig.b).isGood, "what changes nothing tells nobody")
    }

    @Test("D_SENSE changes the format of sense data, whatever their fields")
    func descriptorSense() {
        let rig = Rig()
        #expect(select6(rig, [0, 0, 0, 0] + changed(Self.control, 2, 0x26)).isGood)
        #expect(rig.run(read10(5000, 1)).sense == [0x72, 5, 0x21, 0, 0, 0, 0, 0])
        #expect(rig.run([0x12, 0, 7, 0, 0, 0]).sense == [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xc0, 0, 2, 0])
        #expect(rig.run(ten(0x2f, 0, 1, flags: 2), sending: [0, 1] + [UInt8](repeating: 0, count: 510)).sense
            == [0x72, 0xe, 0x1d, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        #expect(Rig.with({ $0.descriptorSense = true }, quiet: false).run(read10(5000, 1)).sense.first == 0x72)
        #expect(rig.run([0x03, 0, 0, 0, 255, 0]).data == [0x70, 0, 0, 0, 0, 0, 0, 10] + [UInt8](repeating: 0, count: 10))
        #expect(rig.run([0x03, 1, 0, 0, 255, 0]).data == [0x72, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test("Fixed sense data leave out INFORMATION that does not fit, descriptor format has it all")
    func information() {
        let large = Sense(.miscompare, .miscompareDuringVerify, information: 1 << 32)
        #expect(Array(large.encoded(descriptorFormat: false)[0..<8]) == [0x70, 0, 0xe, 0, 0, 0, 0, 10])
        #expect(number(large.encoded(descriptorFormat: true)[12..<20]) == 1 << 32)
    }

    @Test("Turning the write cache off flushes first; a flush that fails leaves it on")
    func writeCache() {
        let rig = Rig()
        let off = [0, 0, 0, 0] + changed(Self.caching, 2, 0x10)
        rig.fault = { _ in .flushFailed }
        #expect(select6(rig, off).check(3, 0x0c, 0) && rig.unit.condition.isWriteCacheEnabled)
        let other = Rig()
        #expect(select6(other, off).isGood && other.operations == [.flush] && !other.unit.condition.isWriteCacheEnabled)
        other.operations = []
        #expect(select6(other, off).isGood && other.operations.isEmpty)
        #expect(select6(other, [0, 0, 0, 0] + Self.caching).isGood && other.operations.isEmpty && other.unit.condition.isWriteCacheEnabled)
        other.unit.reset()
        #expect(other.unit.condition.isWriteCacheEnabled)
    }

    @Test("MODE SELECT(10) takes long block descriptors and subpages")
    func selectTen() {
        let rig = Rig()
        func select(_ list: [UInt8]) -> Answer { rig.run([0x55, 0x10, 0, 0, 0, 0, 0] + big(UInt16(list.count)) + [0], sending: list) }
        let swp = changed(Self.control, 4, 0x08)
        let descriptor: [UInt8] = [0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0]
        #expect(select([0, 0, 0, 0, 1, 0, 0, 16] + descriptor + [0x4a, 1, 0, 28] + [UInt8](repeating: 0, count: 28) + swp).isGood)
        #expect(rig.unit.condition.isSoftwareWriteProtected)
        #expect(select([0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0] + Self.control).isGood && !rig.unit.condition.isSoftwareWriteProtected)
        #expect(select([0, 0, 0, 0, 0, 0, 0, 16] + descriptor + swp).check(5, 0x26, 0), "long without LONGLBA")
        #expect(select([0, 0, 0, 0, 1, 0, 0, 16] + changed(descriptor, 7, 1) + swp).check(5, 0x26, 0), "another capacity")
        #expect(select([0, 0, 0, 0, 1, 0, 0, 16] + changed(descriptor, 14, 4) + swp).check(5, 0x26, 0), "another block length")
        #expect(!rig.unit.condition.isSoftwareWriteProtected)
    }

    @Test("MODE SELECT changes all that it says or nothing")
    func refused() {
        let rig = Rig()
        let swp = changed(Self.control, 4, 0x08)
        for page in [Self.caching, Self.control] {
            for index in 2..<page.count {
                for bit in 0..<8 {
                    let altered = changed(page, index, page[index] ^ 1 << UInt8(bit))
                    let isChangeable = page[0] == 8 ? index == 2 && bit == 2 : index == 2 && bit == 2 || index == 4 && bit == 3
                    let answer = select6(rig, [0, 0, 0, 0] + altered)
                    if isChangeable {
                        rig.unit.reset()
                        #expect(answer.isGood && rig.run(testUnitReady).check(6, 0x29, 3))
                    } else {
                        #expect(answer.check(5, 0x26, 0) && Array(answer.sense[15..<18]) == [0x80, 0, UInt8(4 + index)])
                    }
                }
            }
        }
        #expect(select6(rig, [0, 0, 0, 0] + swp + changed(Self.caching, 3, 1)).check(5, 0x26, 0))
        #expect(select6(rig, [0, 0, 0, 0] + swp + [0x3e, 0]).check(5, 0x26, 0) && select6(rig, [0, 0, 0, 0, 0x0a, 9] + swp.dropFirst(2)).check(5, 0x26, 0))
        #expect(select6(rig, [0, 1, 0, 0] + swp).check(5, 0x26, 0) && select6(rig, [0, 0, 0, 4] + swp).check(5, 0x26, 0))
        #expect(select6(rig, [0, 0, 0, 0] + swp, flags: 0x11).check(5, 0x24, 0), "SP")
        #expect(select6(rig, [0, 0, 0, 0] + swp, flags: 0x00).check(5, 0x24, 0), "PF")
        #expect(!rig.unit.condition.isSoftwareWriteProtected)
        #expect(select6(rig, []).isGood && select6(rig, [0, 0, 0, 0]).isGood)
    }

    @Test("A MODE SELECT list cut at any length is a length error, unless whole pages are left")
    func truncated() {
        let rig = Rig()
        let list = [0, 0, 0, 8, 0, 0, 4, 0, 0, 0, 2, 0] + Self.control + Self.caching
        let whole: Set<Int> = [0, 12, 24, 44]
        for count in 0...list.count {
            let part = Array(list[..<count])
            #expect(whole.contains(count) ? select6(rig, part).isGood : select6(rig, part).check(5, 0x1a, 0), "\(count)")
            if count < list.count { #expect(rig.run([0x15, 0x10, 0, 0, UInt8(list.count), 0], sending: part).check(5, 0x1a, 0)) }
        }
        #expect(select6(rig, [0, 0, 0, 0, 0x4a, 1, 0]).check(5, 0x1a, 0) && select6(rig, [0, 0, 0, 0, 0x4a, 1, 0xff, 0xff]).check(5, 0x26, 0))
    }

    @Test("An administrator's mode page replaces the default, is what a reset returns to, and keeps what can be changed")
    func overridden() {
        let off: [UInt8] = [0x10, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0]
        let rig = Rig.with {
            $0.modePages = [.init(page: 8, subpage: 0, data: off), .init(page: 0x0a, subpage: 0, data: [1]), .init(page: 0x20, subpage: 0, data: [1, 2]),
                            .init(page: 0x3f, subpage: 0, data: [1]), .init(page: 0x21, subpage: 0, data: [UInt8](repeating: 0, count: 256))]
        }
        #expect(!rig.unit.condition.isWriteCacheEnabled)
        #expect(sense6(rig, 8)?.pages[[8, 0]] == off && sense6(rig, 8, control: 2)?.pages[[8, 0]] == off)
        #expect(sense6(rig, 10)?.pages[[10, 0]] == Array(Self.control.dropFirst(2)), "a page of another length is not ours")
        #expect(sense6(rig, 0x3f)?.order == [[2, 0], [8, 0], [10, 0], [0x1c, 0], [0x20, 0]] && sense6(rig, 0x20)?.pages[[0x20, 0]] == [1, 2])
        #expect(select6(rig, [0, 0, 0, 0] + Self.caching).isGood && rig.unit.condition.isWriteCacheEnabled)
        rig.unit.reset()
        #expect(!rig.unit.condition.isWriteCacheEnabled)
    }

    @Test("Pages that do not fit into the length field of MODE SENSE(6) are had with MODE SENSE(10) only")
    func tooLong() {
        let rig = Rig.with { $0.modePages = [.init(page: 0x20, subpage: 1, data: [UInt8](repeating: 7, count: 300))] }
        #expect(rig.run([0x1a, 0, 0x3f, 0xff, 255, 0]).check(5, 0x24, 0) && sense6(rig, 0x3f)?.order.count == 4)
        #expect(sense10(rig, 0x3f, 0xff)?.pages[[0x20, 1]]?.count == 300)
    }
}
