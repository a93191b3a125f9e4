import ISCSI
import SCSI
import Testing

@testable import Model

@Suite("identity")
struct IdentityTests {
    func id(_ number: Int32) throws -> TargetID { try #require(TargetID(rawValue: number)) }

    @Test("SipHash-2-4-128 gives the reference vectors")
    func sipHash() {
        let key = [UInt8](0..<16)
        let vectors: [[UInt8]] = [
            [0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02, 0x93],
            [0xda, 0x87, 0xc1, 0xd8, 0x6b, 0x99, 0xaf, 0x44, 0x34, 0x76, 0x59, 0x11, 0x9b, 0x22, 0xfc, 0x45],
        ]
        for (count, vector) in vectors.enumerated() { #expect(SipHash128.hash(Array(key[..<count]), key: key) == vector) }
    }

    @Test("a default identity never changes")
    func stable() throws {
        let identity = IdentitySource(installation: [UInt8](0..<16)).identity(target: try id(1), name: try ISCSIName(utf8("iqn.a")), lun: 1)
        #expect(identity.scsiID.hasPrefix("IET     ") && identity.scsiID.utf8.count == 24)
        #expect(identity.serialNumber.utf8.count == 16)
        #expect(identity.naa.count == 8 && identity.naa[0] >> 4 == 3)
        // Written down: initiators know disks by these.
        #expect(identity == Self.pinned)
    }

    static let pinned = DeviceIdentity(
        scsiID: "IET     e51601fc64b55892", serialNumber: "b45e6aa13a1b6ca4", naa: [0x3e, 0x51, 0x60, 0x1f, 0xc6, 0x4b, 0x55, 0x89])

    @Test("installation, target name and LUN make it, the target's number and the name's case do not")
    func parts() throws {
        let source = IdentitySource(installation: [UInt8](0..<16))
        let name = try ISCSIName(utf8("iqn.a"))
        let identity = source.identity(target: try id(1), name: name, lun: 1)
        #expect(source.identity(target: try id(2), name: name, lun: 1) == identity)
        #expect(source.identity(target: try id(1), name: try ISCSIName(utf8("IQN.A")), lun: 1) == identity)
        let others = [
            IdentitySource(installation: [UInt8](1..<17)).identity(target: try id(1), name: name, lun: 1),
            source.identity(target: try id(1), name: try ISCSIName(utf8("iqn.b")), lun: 1),
            source.identity(target: try id(1), name: name, lun: 2),
        ]
        for other in others {
            #expect(other.naa != identity.naa && other.serialNumber != identity.serialNumber && other.scsiID != identity.scsiID)
        }
    }

    @Test("no two of many logical units have a default identity in common")
    func distinct() throws {
        let source = IdentitySource(installation: [UInt8](0..<16))
        var serials: Set<String> = []
        for target in 0..<20 {
            for lun in 0..<100 {
                serials.insert(source.identity(target: try id(1), name: try ISCSIName(utf8("iqn.t\(target)")), lun: lun).serialNumber)
            }
        }
        #expect(serials.count == 2000)
    }

    @Test("with compatible identities the defaults are tgt's, collisions included")
    func compatible() throws {
        let source = IdentitySource(installation: [UInt8](0..<16), keepsTgtDefaults: true)
        let name = try ISCSIName(utf8("iqn.a"))
        let identity = source.identity(target: try id(1), name: name, lun: 2)
        #expect(identity.scsiID == "IET     00010002" && identity.serialNumber == "beaf12")
        #expect(identity.naa == [0x60, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 0x01, 0, 0x02])
        #expect(source.identity(target: try id(26), name: name, lun: 10).scsiID == "IET     001a000a")
        #expect(source.identity(target: try id(1), name: name, lun: 11).serialNumber == source.identity(target: try id(11), name: name, lun: 1).serialNumber)
    }

    @Test("a chosen SCSI ID gives the NAA designator that Debian's tgtd gives it", arguments: [
        ("abc", "60000000000000000000000000000abc"), ("ABCDEF", "60000000000000000000000000abcdef"), ("gabc", "60000000000000000000000000000abc"),
        ("zzz", "60000000000000000000000000000000"), ("a-b-c", "600000000000000000000000000a0b0c"), ("IET 0001", "6000000000000000000000000e000001"),
        ("volume-3f2504e0-4f89-41d3-9a0c-0305e", "6e03f2504e004f89041d309a0c00305e"), ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "64e004f89041d309a0c00305e82c3301"),
        ("0123456789abcdef0123456789abcdef0123", "656789abcdef0123456789abcdef0123"), ("12345678901234567890123456789012", "62345678901234567890123456789012"),
        ("1234567890123456789012345678901", "61234567890123456789012345678901"), ("abcdefabcdefabcdefabcdefabcdefabcdef", "6fabcdefabcdefabcdefabcdefabcdef"),
    ])
    func chosen(scsiID: String, naa: String) {
        let digits = Array("0123456789abcdef")
        #expect(String(IdentitySource.naa(scsiID: scsiID).flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }) == naa)
    }
}
