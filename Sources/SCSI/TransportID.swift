import Bytes

/// The iSCSI TransportID of an initiator port (SPC-4 §7.6.4.6).
enum TransportID {
    static func encoded(_ port: InitiatorPort) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        var name = port.name + Array(",i,0x".utf8)
        for shift in stride(from: 44, through: 0, by: -4) { name.append(digits[Int(port.isid >> UInt64(shift) & 0xf)]) }
        repeat { name.append(0) } while name.count % 4 != 0 || name.count < 20
        var bytes: [UInt8] = [0x45, 0]
        bytes.append(bigEndian: UInt16(clamping: name.count))
        return bytes + name
    }

    /// The port, if these bytes are exactly one TransportID that names a port (format 01b), its name folded to lower case.
    static func decode(_ bytes: ArraySlice<UInt8>) -> InitiatorPort? {
        let bytes = Array(bytes)
        guard bytes.count >= 24, bytes.count % 4 == 0, bytes[0] == 0x45, bytes[1] == 0 else { return nil }
        guard bytes.span.uint16(at: 2) == UInt16(exactly: bytes.count - 4) else { return nil }
        guard let end = bytes[4...].firstIndex(of: 0), bytes[end...].allSatisfy({ $0 == 0 }) else { return nil }
        let text = bytes[4..<end].map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
        let separator = Array(",i,0x".utf8)
        let digitCount = 12
        let nameCount = text.count - separator.count - digitCount
        guard nameCount >= 1, nameCount <= Limits.nameBytes, text[nameCount..<nameCount + separator.count].elementsEqual(separator) else { return nil }
        let name = Array(text[..<nameCount])
        guard name.allSatisfy(isNameByte) else { return nil }
        var isid: UInt64 = 0
        for digit in text.suffix(digitCount) {
            switch digit {
            case 0x30...0x39: isid = isid << 4 | UInt64(digit - 0x30)
            case 0x61...0x66: isid = isid << 4 | UInt64(digit - 0x61 + 10)
            default: return nil
            }
        }
        return InitiatorPort(name: name, isid: isid)
    }

    /// RFC 7143 §4.2.7.2, ASCII, folded.
    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x2d, 0x2e, 0x3a, 0x30...0x39, 0x61...0x7a: true
        default: false
        }
    }
}
