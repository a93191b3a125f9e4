import Bytes
import Testing
@testable import SCSI

@Suite struct InquiryTests {
    func page(_ rig: Rig, _ code: UInt8) -> [UInt8] {
        let data = rig.run([0x12, 1, code, 0x10, 0, 0]).data
        #expect(data.count >= 4 && data[1] == code && number(data[2..<4]) == UInt64(data.count - 4))
        return Array(data.dropFirst(4))
    }

    @Test("Standard INQUIRY claims SPC-4, command queueing and its standards")
    func standard() {
        let data = Rig().run([0x12, 0, 0, 1, 0, 0]).data
        #expect(data.count == 66 && data[4] == 61)
        #expect(Array(data[0..<8]) == [0, 0, 6, 0x12, 61, 0, 0, 2])
        #expect(Array(data[8..<36]) == Array("IET     VIRTUAL-DISK    0001".utf8))
        #expect(stride(from: 58, to: 66, by: 2).map { number(data[$0..<$0 + 2]) } == [0x00a0, 0x0460, 0x04c0, 0x0960])
        #expect(Rig.with { $0.isRemovable = true }.run([0x12, 0, 0, 0, 36, 0]).data[1] == 0x80)
        let long = Rig.with { $0.vendor = "0123456789"; $0.product = ""; $0.revision = "äö" }.run([0x12, 0, 0, 0, 36, 0]).data
        #expect(Array(long[8..<32]) == Array("01234567                ".utf8))
    }

    @Test("Page 00h lists exactly the pages that exist, and page codes without EVPD are refused")
    func listed() {
        let rig = Rig()
        let pages = page(rig, 0)
        #expect(pages == [0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2])
        for code in UInt8.min...UInt8.max {
            #expect(rig.run([0x12, 1, code, 0, 255, 0]).isGood == pages.contains(code))
            #expect(rig.run([0x12, 0, code, 0, 255, 0]).isGood == (code == 0))
        }
    }

    @Test("Serial number and vendor designator are tgt's, byte for byte; longer ones are not cut to the same")
    func identity() {
        #expect(page(Rig(), 0x80) == Array("                              beaf11".utf8))
        let rig = Rig.with { $0.serialNumber = "world"; $0.scsiID = "hello" }
        #expect(page(rig, 0x80) == Array("                               world".utf8))
        #expect(Array(page(rig, 0x83)[0..<40]) == [2, 1, 0, 36] + Array("hello".utf8) + [UInt8](repeating: 0, count: 31))
        let text = String(repeating: "x", count: 40)
        #expect(page(Rig.with { $0.serialNumber = text }, 0x80) == Array(text.utf8))
        #expect(page(Rig.with { $0.serialNumber = String(repeating: "x", count: 5000); $0.scsiID = $0.serialNumber }, 0x80).count == 252)
    }

    /// Association, type, code set and value of each designator.
    func designators(_ bytes: [UInt8]) -> [(association: UInt8, type: UInt8, codeSet: UInt8, value: [UInt8])] {
        var result: [(UInt8, UInt8, UInt8, [UInt8])] = []
        var rest = bytes[...]
        while rest.count >= 4 {
            let header = Array(rest.prefix(4))
            rest = rest.dropFirst(4)
            #expect(rest.count >= Int(header[3]))
            #expect(header[1] & 0x80 == 0 || header[0] >> 4 == 5)
            result.append((header[1] >> 4 & 3, header[1] & 15, header[0] & 15, Array(rest.prefix(Int(header[3])))))
            rest = rest.dropFirst(Int(header[3]))
        }
        #expect(rest.isEmpty)
        return result
    }

    @Test("Device identification names unit, target port and target device")
    func identification() {
        let found = designators(page(Rig(), 0x83))
        #expect(found.map { [$0.association, $0.type, $0.codeSet] } == [[0, 1, 2], [0, 3, 1], [1, 4, 1], [1, 8, 3], [2, 8, 3]])
        #expect(found[0].value.starts(with: Array("IET     00010001".utf8)))
        #expect(found[1].value.count == 16 && found[1].value[0] >> 4 == 6)
        #expect(found[2].value == [0, 0, 0, 1])
        #expect(found[3].value.prefix { $0 != 0 } == Array("iqn.2001-04.com.example:disk,t,0x0001".utf8)[...])
        #expect(found[4].value.prefix { $0 != 0 } == Array("iqn.2001-04.com.example:disk".utf8)[...])
        for value in [found[3].value, found[4].value] { #expect(value.count % 4 == 0 && value.last == 0) }
        #expect(designators(page(Rig.with { $0.naa = [] }, 0x83)).count == 4)
        // Of the port that it is asked through (RFC 7143 §3.4.2), and no other.
        let rig = Rig()
        rig.unit.attach(rig.b, Rig.name(rig.b, through: 0xa07))
        let there = designators(Array(rig.run([0x12, 1, 0x83, 0xff, 0xff, 0], rig.b).data.dropFirst(4)))
        #expect(there[2].value == [0, 0, 0x0a, 0x07])
        #expect(there[3].value.prefix { $0 != 0 } == Array("iqn.2001-04.com.example:disk,t,0x0a07".utf8)[...])
        #expect(there[0].value == found[0].value && there[1].value == found[1].value && there[4].value == found[4].value, "the logical unit is the same")
        #expect(designators(Array(rig.run([0x12, 1, 0x83, 0xff, 0xff, 0], rig.a).data.dropFirst(4)))[2].value == [0, 0, 0, 1])
        let long = LogicalUnit(Rig.disk(), targetName: [UInt8](repeating: 0x61, count: 223))
        long.attach(NexusID(rawValue: 1), Rig.name(NexusID(rawValue: 1), through: 0xffff))
        var task = DeviceTask(nexus: NexusID(rawValue: 1), cdb: cdb([0x12, 1, 0x83, 0xff, 0xff, 0]))
        guard case .done(let completion) = long.begin(&task, dataOut: nil), case .bytes(let bytes) = completion.dataIn else { return }
        #expect(designators(Array(bytes.dropFirst(4))).count == 5)
    }

    @Test("Block limits advertise what exists", arguments: [512, 4096])
    func limits(blockLength: Int) {
        var settings = Rig.disk(blockLength: blockLength)
        settings.optimalTransferGranularity = 8
        settings.optimalTransferLength = 0x1234
        let thick = page(Rig(settings), 0xb0)
        settings.isThinProvisioned = true
        let thin = page(Rig(settings), 0xb0)
        func field(_ page: [UInt8], _ range: Range<Int>) -> Int { Int(number(page[range.lowerBound - 4..<range.upperBound - 4])) }
        for page in [thick, thin] {
            #expect(page.count == 60 && page[0] == 0 && page[1] == 128)
            #expect(field(page, 6..<8) == 8 && field(page, 12..<16) == 0x1234)
            #expect(field(page, 8..<12) == (16 << 20) / blockLength && field(page, 36..<44) == (16 << 20) / blockLength)
        }
        #expect([field(thick, 20..<24), field(thick, 24..<28), field(thick, 28..<32)] == [0, 0, 0])
        #expect([field(thin, 20..<24), field(thin, 24..<28), field(thin, 28..<32)] == [1 << 20, 256, blockLength < 4096 ? 4096 / blockLength : 0])
    }

    @Test("Block device characteristics and logical block provisioning follow the settings")
    func characteristics() {
        let thin = Rig.with { $0.isThinProvisioned = true; $0.rotationRate = 7200 }
        #expect(page(thin, 0xb1).count == 60 && number(page(thin, 0xb1)[0..<2]) == 7200)
        #expect(page(thin, 0xb2) == [0, 0xe4, 2, 0] && page(Rig(), 0xb2) == [0, 0, 0, 0])
        let extended = page(Rig(), 0x86)
        #expect(extended.count == 60 && extended[1] == 7 && extended[3] == 1)
    }

    // MARK: The target's answers

    @Test("REPORT LUNS lists every unit in the form of its number, in each allocation length")
    func reportLUNs() {
        func answer(_ luns: [Int], select: UInt8 = 0, allocated: UInt32 = 1 << 20) -> Completion {
            TargetLevel.reportLUNs(cdb([0xa0, 0, select, 0, 0, 0] + big(allocated) + [0, 0]), luns: luns)
        }
        func bytes(_ completion: Completion) -> [UInt8] { if case .bytes(let bytes) = completion.dataIn { bytes } else { [] } }
        let luns = [0, 1, 255, 256, 16383]
        let data = bytes(answer(luns))
        #expect(number(data[0..<4]) == 40 && data.count == 48)
        let fields = stride(from: 8, to: 48, by: 8).map { number(data[$0..<$0 + 8]) }
        #expect(fields == [0, 0x0001 << 48, 0x00ff << 48, 0x4100 << 48, 0x7fff << 48])
        #expect(fields.map { LogicalUnitNumber(rawValue: $0).flat } == luns)
        for length in 0...49 { #expect(bytes(answer(luns, allocated: UInt32(length))) == Array(data.prefix(length))) }
        #expect(bytes(answer(luns, select: 1)) == [0, 0, 0, 0, 0, 0, 0, 0] && bytes(answer(luns, select: 2)) == data)
        #expect(answer(luns, select: 3).status == .checkCondition)
        #expect(TargetLevel.isReportLUNs(cdb([0xa0])) && !TargetLevel.isReportLUNs(cdb([0x12])))
    }

    @Test("A LUN that does not exist answers INQUIRY and REQUEST SENSE, everything else with LOGICAL UNIT NOT SUPPORTED")
    func unknownUnit() {
        for code in UInt8.min...UInt8.max {
            let completion = TargetLevel.unknownLogicalUnit(cdb([code, 0, 0, 0, 255, 0]))
            switch (code, completion.dataIn) {
            case (0x12, .bytes(let data)): #expect(completion.status == .good && data.count == 36 && data[0] == 0x7f && data[4] == 31)
            case (0x03, .bytes(let data)): #expect(completion.status == .good && data[2] == 5 && data[12] == 0x25)
            default: #expect(completion.status == .checkCondition && completion.sense[2] == 5 && completion.sense[12] == 0x25 && completion.sense[13] == 0)
            }
        }
        guard case .bytes(let data) = TargetLevel.unknownLogicalUnit(cdb([0x03, 1, 0, 0, 255, 0])).dataIn else { return }
        #expect(Array(data[0..<3]) == [0x72, 5, 0x25])
    }
}
