/// Binary values as keys write them (RFC 7143 §6.1): hexadecimal behind 0x, or base64 behind 0b.
package enum BinaryValue {
    /// Bytes of a decoded value: what CHAP_C and CHAP_R may have (RFC 7143 §12.1.3).
    static let longest = 1024
    /// Bytes of its longest spelling.
    static let longestSpelling = 2 + 2 * longest

    /// The value, if `text` is one of 1 to `longest` bytes.
    ///
    /// Digits in hexadecimal may be upper and lower case; if their number is odd, a zero stands in front of them. Base64 is that of
    /// RFC 4648 §4, with all of its padding or without any; bits that are left over must be zero.
    package static func decode(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        guard text.count > 2, text.count <= longestSpelling, text.first == UInt8(ascii: "0") else { return nil }
        let digits = text.dropFirst(2)
        let bytes: [UInt8]? =
            switch text[text.startIndex + 1] | 0x20 {
            case UInt8(ascii: "x"): fromHexadecimal(digits)
            case UInt8(ascii: "b"): fromBase64(digits)
            default: nil
            }
        guard let bytes, (1...longest).contains(bytes.count) else { return nil }
        return bytes
    }

    package static func hexadecimal(_ bytes: [UInt8]) -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        return Array("0x".utf8) + bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }
    }

    private static func fromHexadecimal(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
        collect(digits, bits: 4, leadingBits: digits.count % 2 * 4) { digit in
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
            default: nil
            }
        }
    }

    private static func fromBase64(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        let digits = text.prefix { $0 != UInt8(ascii: "=") }
        let padding = text.count - digits.count
        guard text.dropFirst(digits.count).allSatisfy({ $0 == UInt8(ascii: "=") }), digits.count % 4 != 1 else { return nil }
        guard padding == 0 || padding == (4 - digits.count % 4) % 4 else { return nil }
        return collect(digits, bits: 6, leadingBits: 0) { digit in
            switch digit {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit - UInt8(ascii: "A")
            case UInt8(ascii: "a")...UInt8(ascii: "z"): digit - UInt8(ascii: "a") + 26
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0") + 52
            case UInt8(ascii: "+"): 62
            case UInt8(ascii: "/"): 63
            default: nil
            }
        }
    }

    /// The bytes that digits of so many bits each make, the first one highest; nil if one is no digit or something is left over.
    private static func collect(_ digits: ArraySlice<UInt8>, bits: Int, leadingBits: Int, _ value: (UInt8) -> UInt8?) -> [UInt8]? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count * bits / 8 + 1)
        var (rest, count): (UInt32, Int) = (0, leadingBits)
        for digit in digits {
            guard let value = value(digit) else { return nil }
            rest = rest << UInt32(bits) | UInt32(value)
            count += bits
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: rest >> UInt32(count)))
                rest &= 1 << UInt32(count) - 1
            }
        }
        return rest == 0 ? bytes : nil
    }
}
