import Bytes
import ISCSI

/// How initiators recognise a logical unit: VPD pages 80h and 83h (SPC-4 §7.8).
public struct DeviceIdentity: Hashable, Sendable {
    /// `scsi_id`: the T10 vendor ID based designator, at most 36 ASCII characters.
    public var scsiID: String
    /// `scsi_sn`: the unit serial number, at most 36 ASCII characters.
    public var serialNumber: String
    /// The NAA designator: 16 bytes (NAA 6h) or 8 (NAA 3h).
    public var naa: [UInt8]
}

/// Where the identities come from that no administrator has chosen.
public struct IdentitySource: Hashable, Sendable {
    /// Sixteen random bytes, drawn once for an installation and kept for ever.
    public let installation: [UInt8]
    /// tgt's defaults, made of target number and LUN only (`--compat-ids`): two hosts may show the same ones.
    public let keepsTgtDefaults: Bool

    public static let installationLength = 16

    public init(installation: [UInt8], keepsTgtDefaults: Bool = false) {
        precondition(installation.count == Self.installationLength)
        self.installation = installation
        self.keepsTgtDefaults = keepsTgtDefaults
    }

    /// The identity of a logical unit for which nothing was chosen. It depends on installation, target name and LUN, not on
    /// the target's number: that one may change when targets are made again.
    public func identity(target: TargetID, name: ISCSIName, lun: Int) -> DeviceIdentity {
        guard !keepsTgtDefaults else {
            let text = "IET     " + Self.hexadecimal(UInt64(target.rawValue), width: 4) + Self.hexadecimal(UInt64(lun), width: 4)
            return DeviceIdentity(scsiID: text, serialNumber: "beaf\(target)\(lun)", naa: Self.naa(scsiID: text))
        }
        var message: [UInt8] = []
        message.append(bigEndian: UInt16(name.bytes.count))
        message += name.bytes
        message.append(bigEndian: UInt16(lun))
        let hash = SipHash128.hash(message, key: installation)
        let (first, second) = (hash[0..<8].reduce(0) { $0 << 8 | UInt64($1) }, hash[8..<16].reduce(0) { $0 << 8 | UInt64($1) })
        // NAA 3h, locally assigned (SPC-4 §7.8.6.6.4): the only form that needs no company identifier.
        var naa: [UInt8] = []
        naa.append(bigEndian: 0x3 << 60 | first >> 4)
        return DeviceIdentity(
            scsiID: "IET     " + Self.hexadecimal(first, width: 16), serialNumber: Self.hexadecimal(second, width: 16), naa: naa)
    }

    private static func hexadecimal(_ value: UInt64, width: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// tgt's NAA 6h designator for a SCSI ID: its last 32 characters as hexadecimal digits, what is none of them as 0, and
    /// the first nibble replaced by 6.
    static func naa(scsiID: String) -> [UInt8] {
        var nibbles = scsiID.utf8.suffix(32).map { character in
            Number.digit(character).flatMap { $0 < 16 ? UInt8($0) : nil } ?? 0
        }
        nibbles = Array(repeating: 0, count: 32 - nibbles.count) + nibbles
        nibbles[0] = 0x6
        return (0..<16).map { nibbles[2 * $0] << 4 | nibbles[2 * $0 + 1] }
    }
}
