import Bytes
import SCSI

/// `name=value` of `--op update --mode logicalunit --params`.
public struct LogicalUnitParameter: Hashable, Sendable {
    public let name: [UInt8]
    public let value: [UInt8]
    public init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }
}

extension LogicalUnitConfiguration {
    /// tgt's table of parameters, each with what it does to the configuration or why not.
    private static let parameters: [(name: String, needsDisk: Bool, apply: @Sendable (inout Self, [UInt8]) throws(ConfigurationError) -> Void)] = [
        ("scsi_id", false, { unit, value throws(ConfigurationError) in unit.chosenSCSIID = try text(value, atMost: 36) }),
        ("scsi_sn", false, { unit, value throws(ConfigurationError) in unit.chosenSerialNumber = try text(value, atMost: 36) }),
        ("vendor_id", false, { unit, value throws(ConfigurationError) in unit.vendor = try text(value, atMost: 8) }),
        ("product_id", false, { unit, value throws(ConfigurationError) in unit.product = try text(value, atMost: 16) }),
        ("product_rev", false, { unit, value throws(ConfigurationError) in unit.revision = try text(value, atMost: 4) }),
        ("mode_page", true, { unit, value throws(ConfigurationError) in try unit.setModePage(value) }),
        ("readonly", false, { unit, value throws(ConfigurationError) in unit.isReadOnly = try flag(value) }),
        ("removable", true, { unit, value throws(ConfigurationError) in try unit.setRemovable(flag(value)) }),
        ("online", false, { unit, value throws(ConfigurationError) in try unit.setOnline(flag(value)) }),
        ("path", true, { unit, value throws(ConfigurationError) in try unit.setPath(value) }),
        ("thin_provisioning", true, { unit, value throws(ConfigurationError) in unit.isThinProvisioned = try flag(value) }),
        ("rotation_rate", true, { unit, value throws(ConfigurationError) in unit.rotationRate = UInt16(try number(value, atMost: 0xfffe)) }),
        ("lbppbe", true, { unit, value throws(ConfigurationError) in unit.chosenPhysicalBlockExponent = UInt8(try number(value, atMost: 15)) }),
        ("la_lba", true, { unit, value throws(ConfigurationError) in unit.lowestAlignedBlock = UInt16(try number(value, atMost: 0x3fff)) }),
        ("optimal_xfer_gran", true, { unit, value throws(ConfigurationError) in unit.optimalTransferGranularity = UInt16(try number(value, atMost: 0xffff)) }),
        ("optimal_xfer_len", true, { unit, value throws(ConfigurationError) in unit.optimalTransferLength = UInt32(try number(value, atMost: 0xffff_ffff)) }),
        ("sense_format", false, { unit, value throws(ConfigurationError) in unit.descriptorSense = try flag(value) }),
    ]

    /// Mode pages a disk has, with the bytes behind their header: no other can be set.
    private static let settablePages: [(page: UInt8, subpage: UInt8, length: Int)] = [
        (0x02, 0x00, 14), (0x08, 0x00, 18), (0x0a, 0x00, 10), (0x0a, 0x01, 28), (0x1c, 0x00, 10),
    ]

    /// Applies the parameters from left to right: all of them, or none if one is refused.
    ///
    /// A path is only noted (`medium` becomes nil); the store is opened before the change is made.
    mutating func apply(_ parameters: [LogicalUnitParameter]) throws(ConfigurationError) {
        var changed = self
        for parameter in parameters {
            guard let row = Self.parameters.first(where: { parameter.name.elementsEqual($0.name.utf8) }) else {
                throw ConfigurationError(.invalid, "there is no parameter “\(escaped(parameter.name))”")
            }
            guard deviceType == .disk || !row.needsDisk else {
                throw ConfigurationError(.invalid, "the controller has no parameter \(row.name)")
            }
            do throws(ConfigurationError) {
                try row.apply(&changed, parameter.value)
            } catch {
                throw ConfigurationError(error.kind, "\(row.name)=\(escaped(parameter.value)): \(error)")
            }
        }
        self = changed
    }

    private mutating func setRemovable(_ removable: Bool) throws(ConfigurationError) {
        guard removable || store.path != nil else {
            throw ConfigurationError(.invalid, "only a removable logical unit can be without a medium")
        }
        isRemovable = removable
    }

    private mutating func setOnline(_ online: Bool) throws(ConfigurationError) {
        guard !online || deviceType == .controller || store.path != nil else {
            throw ConfigurationError(.invalid, "there is no medium; set its path first")
        }
        isOnline = online
    }

    /// A medium that is put in is online, as in tgt.
    private mutating func setPath(_ path: [UInt8]) throws(ConfigurationError) {
        guard !isOnline else { throw ConfigurationError(.invalid, "the medium can be changed only while the logical unit is offline (online=0)") }
        guard !path.isEmpty else {
            guard isRemovable else { throw ConfigurationError(.invalid, "only a removable medium can be ejected (removable=1)") }
            store.path = nil
            medium = nil
            return
        }
        store.path = try StorePath(path)
        medium = nil
        isOnline = true
    }

    /// `page:subpage:length:byte:…`, numbers as in C source.
    private mutating func setModePage(_ text: [UInt8]) throws(ConfigurationError) {
        var numbers: [UInt8] = []
        for word in text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false) {
            guard let number = Number.literal(word).flatMap(UInt8.init(exactly:)) else {
                throw ConfigurationError(.invalid, "write page:subpage:length:byte:…, each 0 to 255")
            }
            numbers.append(number)
        }
        guard numbers.count >= 3, numbers.count - 3 == Int(numbers[2]) else {
            throw ConfigurationError(.invalid, "the number of bytes must be the length that stands in front of them")
        }
        guard Self.settablePages.contains(where: { ($0.page, $0.subpage, $0.length) == (numbers[0], numbers[1], Int(numbers[2])) }) else {
            throw ConfigurationError(.invalid, "a disk has no mode page of this number and length")
        }
        let page = LogicalUnitSettings.ModePageOverride(page: numbers[0], subpage: numbers[1], data: Array(numbers[3...]))
        modePages.removeAll { ($0.page, $0.subpage) == (page.page, page.subpage) }
        modePages.append(page)
    }

    private static func flag(_ text: [UInt8]) throws(ConfigurationError) -> Bool {
        switch text {
        case [UInt8(ascii: "0")]: return false
        case [UInt8(ascii: "1")]: return true
        default: throw ConfigurationError(.invalid, "write 0 or 1")
        }
    }

    private static func number(_ text: [UInt8], atMost limit: UInt64) throws(ConfigurationError) -> UInt64 {
        guard let number = Number.literal(text), number <= limit else { throw ConfigurationError(.invalid, "write a number from 0 to \(limit)") }
        return number
    }

    private static func text(_ text: [UInt8], atMost limit: Int) throws(ConfigurationError) -> String {
        guard (1...limit).contains(text.count), text.allSatisfy({ (0x20...0x7e).contains($0) }) else {
            throw ConfigurationError(.invalid, "write 1 to \(limit) printable ASCII characters")
        }
        return String(decoding: text, as: UTF8.self)
    }
}
