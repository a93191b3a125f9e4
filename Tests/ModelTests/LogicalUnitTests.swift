import ISCSI
import SCSI
import Testing

@testable import Model

@Suite("logical units")
struct LogicalUnitTests {
    let path: StorePath
    let store: BackingStore
    let facts = StoreFacts(byteCount: 1 << 20, isWritable: true)

    init() throws {
        path = try StorePath(utf8("/disk"))
        store = BackingStore(kind: .rdwr, path: path)
    }

    @Test("a disk has its size in whole blocks, tgt's words, and is online", arguments: [512, 4096])
    func newDisk(blockLength: Int) throws {
        var configuration = try example()
        let key = LogicalUnitKey(target: one, lun: 7)
        #expect(try configuration.newLogicalUnit(key, blockLength: blockLength, store: store, medium: StoreFacts(byteCount: 10_000, isWritable: true)) == [.logicalUnitAdded(key)])
        let settings = try configuration.settings(key)
        #expect(settings.blockLength == blockLength && settings.blockCount == UInt64(10_000 / blockLength))
        #expect(settings.vendor == "IET" && settings.product == "VIRTUAL-DISK" && settings.revision == "0001")
        #expect(settings.isOnline && settings.hasMedium && !settings.isRemovable && !settings.isReadOnly && !settings.isThinProvisioned)
    }

    @Test("without a path a disk is removable, offline and empty")
    func empty() throws {
        var configuration = try example()
        let key = LogicalUnitKey(target: one, lun: 7)
        _ = try configuration.newLogicalUnit(key, blockLength: 512, store: BackingStore(kind: .rdwr, path: nil), medium: nil)
        let settings = try configuration.settings(key)
        #expect(!settings.isOnline && !settings.hasMedium && settings.isRemovable && settings.blockCount == 0)
    }

    @Test("numbers, block sizes and stores have limits")
    func limits() throws {
        var configuration = try example()
        func make(_ lun: Int, blockLength: Int = 512, byteCount: UInt64 = 1 << 20, isWritable: Bool = true) -> ConfigurationError.Kind? {
            kind { () throws(ConfigurationError) in
                try configuration.newLogicalUnit(
                    LogicalUnitKey(target: one, lun: lun), blockLength: blockLength, store: store, medium: StoreFacts(byteCount: byteCount, isWritable: isWritable))
            }
        }
        #expect(make(0) == .logicalUnitExists)
        #expect(make(1) == .logicalUnitExists)
        #expect(make(-1) == .invalid)
        #expect(make(16383) == nil)
        #expect(make(16384) == .invalid)
        #expect(make(.max) == .invalid)
        for blockLength in [0, 1, 511, 513, 1000, 1024, 2048, 8192] { #expect(make(2, blockLength: blockLength) == .invalid) }
        #expect(make(2, byteCount: 511) == .invalid)
        #expect(make(2, isWritable: false) == .invalid)
        #expect(make(2, byteCount: 512) == nil)
        #expect(make(3, blockLength: 4096, byteCount: 4095) == .invalid)
    }

    @Test("LUN 0 stays, others are deleted once")
    func delete() throws {
        var configuration = try example()
        #expect(kind { () throws(ConfigurationError) in try configuration.deleteLogicalUnit(LogicalUnitKey(target: one, lun: 0)) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.deleteLogicalUnit(LogicalUnitKey(target: two, lun: 1)) } == .noSuchTarget)
        #expect(try configuration.deleteLogicalUnit(disk) == [.logicalUnitRemoved(disk)])
        #expect(kind { () throws(ConfigurationError) in try configuration.deleteLogicalUnit(disk) } == .noSuchLogicalUnit)
    }

    /// The settings of the example's disk after an update.
    func updated(_ text: String) throws -> LogicalUnitSettings {
        var configuration = try example()
        _ = try configuration.updateLogicalUnit(disk, parameters(text))
        return try configuration.settings(disk)
    }

    @Test("identity is what was chosen")
    func identity() throws {
        let settings = try updated("scsi_id=abc,scsi_sn=SER 1,vendor_id=ACME,product_id=Sixteen characte,product_rev=2.01")
        #expect(settings.scsiID == "abc" && settings.serialNumber == "SER 1" && settings.vendor == "ACME" && settings.product == "Sixteen characte" && settings.revision == "2.01")
        #expect(settings.naa == IdentitySource.naa(scsiID: "abc"))
    }

    @Test("a chosen serial number alone leaves the other identifiers as they were")
    func serialOnly() throws {
        let configuration = try example()
        let before = try configuration.identity(disk)
        let settings = try updated("scsi_sn=x")
        #expect(settings.serialNumber == "x" && settings.scsiID == before.scsiID && settings.naa == before.naa)
    }

    @Test("each parameter reaches the device server")
    func parametersArrive() throws {
        #expect(try updated("readonly=1").isReadOnly)
        #expect(try updated("removable=1").isRemovable)
        #expect(try !updated("online=0").isOnline)
        #expect(try updated("thin_provisioning=1").isThinProvisioned)
        #expect(try updated("rotation_rate=7200").rotationRate == 7200)
        #expect(try updated("lbppbe=3,la_lba=5").physicalBlockExponent == 3)
        #expect(try updated("lbppbe=3,la_lba=5").lowestAlignedBlock == 5)
        #expect(try updated("optimal_xfer_gran=8,optimal_xfer_len=128").optimalTransferGranularity == 8)
        #expect(try updated("optimal_xfer_gran=8,optimal_xfer_len=128").optimalTransferLength == 128)
        #expect(try updated("sense_format=1").descriptorSense)
        #expect(try !updated("sense_format=1,sense_format=0").descriptorSense)
    }

    @Test("values outside of their ranges are refused", arguments: [
        "scsi_id=", "scsi_sn=", "vendor_id=", "product_id=", "product_rev=", "scsi_id=0123456789012345678901234567890123456", "scsi_sn=0123456789012345678901234567890123456",
        "vendor_id=123456789", "product_id=12345678901234567", "product_rev=12345", "scsi_id=é", "scsi_sn=a\nb", "readonly=2", "readonly=", "readonly=yes", "removable=01", "online=-1",
        "thin_provisioning=2", "rotation_rate=65535", "rotation_rate=x", "lbppbe=16", "la_lba=16384", "optimal_xfer_gran=65536", "optimal_xfer_len=4294967296", "sense_format=2",
        "foo=1", "SCSI_ID=a", "bsopts=x", "bsoflags=sync", "element_type=1", "path=/other", "path=",
    ])
    func wrongValues(text: String) throws {
        var configuration = try example()
        let before = configuration
        #expect(kind { () throws(ConfigurationError) in try configuration.updateLogicalUnit(disk, parameters(text)) } == .invalid)
        #expect(configuration == before)
    }

    @Test("values at their limits are taken", arguments: [
        "scsi_id=012345678901234567890123456789012345", "vendor_id=12345678", "product_id=1234567890123456", "product_rev=1234", "rotation_rate=65534", "rotation_rate=0x1c20",
        "lbppbe=15", "la_lba=16383", "optimal_xfer_gran=65535", "optimal_xfer_len=4294967295",
    ])
    func limitValues(text: String) throws {
        _ = try updated(text)
    }

    @Test("parameters are applied from left to right, all or none")
    func allOrNone() throws {
        var configuration = try example()
        let before = configuration
        #expect(kind { () throws(ConfigurationError) in try configuration.updateLogicalUnit(disk, parameters("readonly=1,foo=1,scsi_id=a")) } == .invalid)
        #expect(configuration == before)
        #expect(try updated("scsi_id=a,scsi_id=b").scsiID == "b")
    }

    @Test("an update says what it changes, and nothing if nothing does")
    func changes() throws {
        var configuration = try example()
        #expect(try configuration.updateLogicalUnit(disk, []) == [])
        #expect(try configuration.updateLogicalUnit(disk, parameters("readonly=0")) == [])
        #expect(try configuration.updateLogicalUnit(disk, parameters("readonly=1")) == [.logicalUnitChanged(disk)])
    }

    @Test("Longhorn's and Cinder's way to switch the write cache off is a mode page")
    func writeCache() throws {
        let text = "mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0"
        let pages = try updated(text + "," + text).modePages
        #expect(pages == [.init(page: 8, subpage: 0, data: [0x10, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0])])
    }

    @Test("a mode page of another number or length, or with other than bytes, is refused", arguments: [
        "", ":", "8", "8:0", "8:0:0", "8:0:18", "8:0:1:1", "8:0:2:1", "8:0:18:" + String(repeating: "0:", count: 18), "8:0:19:" + String(repeating: "0:", count: 18) + "0",
        "8:1:18:" + String(repeating: "0:", count: 17) + "0", "300:0:18:" + String(repeating: "0:", count: 17) + "0", "8:0:18:" + String(repeating: "0:", count: 17) + "256",
        "8:0:18:" + String(repeating: "0:", count: 17) + "-1", "8:0:18:" + String(repeating: "0:", count: 17) + "x", "0x3f:0:1:0", "0:0:1:0",
    ])
    func wrongModePages(text: String) throws {
        #expect(kind { () throws(ConfigurationError) in
            var configuration = (try? example())!
            return try configuration.updateLogicalUnit(disk, [LogicalUnitParameter(name: utf8("mode_page"), value: utf8(text))])
        } == .invalid)
    }

    @Test("a medium is changed only offline, opened before, and online afterwards")
    func changeMedium() throws {
        var configuration = try example()
        #expect(kind { () throws(ConfigurationError) in try configuration.storeToOpen(disk, parameters("path=/new")) } == .invalid)
        #expect(try configuration.storeToOpen(disk, parameters("online=0")) == nil)
        _ = try configuration.updateLogicalUnit(disk, parameters("online=0"))
        let change = parameters("path=/new")
        #expect(try configuration.storeToOpen(disk, change) == StoreRequest(key: disk, store: BackingStore(kind: .rdwr, path: try StorePath(utf8("/new"))), readOnly: false))
        #expect(try configuration.updateLogicalUnit(disk, change, medium: StoreFacts(byteCount: 2 << 20, isWritable: true)) == [.mediumChanged(disk)])
        let settings = try configuration.settings(disk)
        #expect(settings.isOnline && settings.blockCount == 4096)
    }

    @Test("the whole change can stand in one list")
    func changeAtOnce() throws {
        let configuration = try example()
        #expect(try configuration.storeToOpen(disk, parameters("online=0,path=/new,readonly=1"))?.readOnly == true)
    }

    @Test("a removable medium is ejected by an empty path; then it cannot be online")
    func eject() throws {
        var configuration = try example()
        #expect(try configuration.updateLogicalUnit(disk, parameters("removable=1,online=0,path=")) == [.mediumChanged(disk)])
        #expect(try !configuration.settings(disk).hasMedium)
        #expect(kind { () throws(ConfigurationError) in try configuration.updateLogicalUnit(disk, parameters("online=1")) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try configuration.updateLogicalUnit(disk, parameters("removable=0")) } == .invalid)
    }

    @Test("a store opened for reading only is opened again before readonly is lifted, and fails if it cannot be written")
    func liftReadOnly() throws {
        var configuration = try example()
        _ = try configuration.updateLogicalUnit(disk, parameters("readonly=1,online=0,path=/ro"), medium: StoreFacts(byteCount: 1 << 20, isWritable: false))
        #expect(try configuration.storeToOpen(disk, parameters("thin_provisioning=1")) == nil)
        let request = try configuration.storeToOpen(disk, parameters("readonly=0"))
        #expect(request?.readOnly == false && request?.store.path?.bytes == utf8("/ro"))
        #expect(kind { () throws(ConfigurationError) in
            try configuration.updateLogicalUnit(disk, parameters("readonly=0"), medium: StoreFacts(byteCount: 1 << 20, isWritable: false))
        } == .invalid)
        #expect(try configuration.updateLogicalUnit(disk, parameters("readonly=0"), medium: facts) == [.mediumChanged(disk)])
    }

    @Test("a null store has a medium with any path, and is never opened")
    func null() throws {
        var configuration = try example()
        let key = LogicalUnitKey(target: one, lun: 2)
        _ = try configuration.newLogicalUnit(key, blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: nil)
        #expect(try configuration.storeToOpen(key, parameters("path=x")) == nil)
        #expect(try configuration.updateLogicalUnit(key, parameters("path=x")) == [.mediumChanged(key)])
        #expect(try configuration.settings(key).blockCount == 1 << 31)
        #expect(try configuration.settings(key).isOnline)
    }

    @Test("the controller takes identity and state, not what only disks have")
    func controller() throws {
        var configuration = try example()
        let key = LogicalUnitKey(target: one, lun: 0)
        #expect(try configuration.updateLogicalUnit(key, parameters("scsi_sn=CTRL,readonly=1")) == [.logicalUnitChanged(key)])
        for text in ["thin_provisioning=1", "mode_page=2:0:14:0:0:0:0:0:0:0:0:0:0:0:0:0:0", "path=/x", "lbppbe=1"] {
            #expect(kind { () throws(ConfigurationError) in try configuration.updateLogicalUnit(key, parameters("online=0," + text)) } == .invalid)
        }
    }

    @Test("the physical block follows from the medium unless it was chosen", arguments: [
        (512, 0, 0), (512, 512, 0), (512, 4096, 3), (4096, 4096, 0), (4096, 512, 0), (512, 1000, 0), (512, 1536, 0), (512, 1 << 30, 15),
    ] as [(Int, Int, UInt8)])
    func physicalBlock(blockLength: Int, physical: Int, exponent: UInt8) throws {
        var configuration = try example()
        let key = LogicalUnitKey(target: one, lun: 2)
        _ = try configuration.newLogicalUnit(
            key, blockLength: blockLength, store: store, medium: StoreFacts(byteCount: 1 << 20, isWritable: true, physicalBlockLength: physical))
        #expect(try configuration.settings(key).physicalBlockExponent == exponent)
        _ = try configuration.updateLogicalUnit(key, parameters("lbppbe=2"))
        #expect(try configuration.settings(key).physicalBlockExponent == 2)
    }

    @Test("paths are 1 to 4095 bytes without control characters and commas")
    func paths() {
        for right in [[0x2f, 0xff], [UInt8](repeating: 0x61, count: 4095), utf8("relative path")] {
            #expect(kind { () throws(ConfigurationError) in try StorePath(right) } == nil)
        }
        for wrong in [[], [UInt8](repeating: 0x61, count: 4096), utf8("/a\nTarget 1: x"), utf8("/a,b"), [0x2f, 0], [0x2f, 0x7f]] {
            #expect(kind { () throws(ConfigurationError) in try StorePath(wrong) } == .invalid)
        }
    }

    @Test("flags are sync, direct or both", arguments: [("sync", "sync"), ("direct", "direct"), ("sync:direct", "sync:direct"), ("direct:sync", "sync:direct")])
    func flags(written: String, shown: String) throws {
        #expect(try BackingStore.Flags(parsing: utf8(written)).text == shown)
        for wrong in ["", ":", "sync:", "Sync", "foo", "sync,direct"] {
            #expect(kind { () throws(ConfigurationError) in try BackingStore.Flags(parsing: utf8(wrong)) } == .invalid)
        }
    }
}
