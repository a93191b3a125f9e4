import Bytes

/// What a target answers itself, whatever logical unit a command is for.
public enum TargetLevel {
    public static func isReportLUNs(_ cdb: CommandDescriptorBlock) -> Bool { cdb.operationCode == 0xa0 }

    /// REPORT LUNS (SPC-4 §6.33), also on a LUN that does not exist.
    /// - Parameter luns: flat numbers, 0…16383, in the order in which they are to be reported
    public static func reportLUNs(_ cdb: CommandDescriptorBlock, luns: [Int]) -> Completion {
        let allocated = Int(cdb.bytes.span.uint32(at: 6))
        if cdb.bytes[11] & 0x3f != 0 { return .checkCondition(.field(11)) }
        let reported: [Int]
        switch cdb.bytes[2] {
        case 0x00, 0x02: reported = luns
        // Well-known logical units only: there are none.
        case 0x01: reported = []
        default: return .checkCondition(.field(2))
        }
        var data: [UInt8] = []
        data.reserveCapacity(8 + 8 * reported.count)
        data.append(bigEndian: UInt32(8 * reported.count))
        data += [0, 0, 0, 0]
        for lun in reported { data.append(bigEndian: LogicalUnitNumber(flat: lun).rawValue) }
        return .data(data, allocated: allocated)
    }

    /// The answer for a LUN that does not exist (SAM-5 §5.11).
    public static func unknownLogicalUnit(_ cdb: CommandDescriptorBlock) -> Completion {
        let unsupported = Sense(.illegalRequest, .logicalUnitNotSupported)
        switch cdb.operationCode {
        case 0x12:
            // PERIPHERAL QUALIFIER 011b, device type 1Fh.
            let bytes = cdb.bytes.span
            let vital = bytes[1] & 0x01 != 0
            guard bytes[2] == 0 else { return .checkCondition(.field(2)) }
            let data: [UInt8] = vital ? [0x7f, 0, 0, 1, 0] : [0x7f, 0, 0x06, 0x02, 31] + [UInt8](repeating: 0, count: 3) + [UInt8](repeating: 0x20, count: 28)
            return .data(data, allocated: Int(bytes.uint16(at: 3)))
        case 0x03:
            return .data(unsupported.encoded(descriptorFormat: cdb.bytes[1] & 0x01 != 0), allocated: Int(cdb.bytes[4]))
        default:
            return .checkCondition(unsupported)
        }
    }
}
