/// Numbers in text from outside. Nothing but digits is a number: no sign, no blanks, and too large is nil, too.
public enum Number {
    public static func decimal(_ text: some Collection<UInt8>) -> UInt64? { digits(text, radix: 10) }
    public static func hexadecimal(_ text: some Collection<UInt8>) -> UInt64? { digits(text, radix: 16) }

    /// As in C source: `0x…` hexadecimal, `0…` octal, else decimal.
    public static func literal(_ text: some Collection<UInt8>) -> UInt64? {
        guard text.count > 1, text.first == UInt8(ascii: "0") else { return decimal(text) }
        let rest = text.dropFirst()
        if rest.first == UInt8(ascii: "x") || rest.first == UInt8(ascii: "X") { return hexadecimal(rest.dropFirst()) }
        return digits(rest, radix: 8)
    }

    private static func digits(_ text: some Collection<UInt8>, radix: UInt64) -> UInt64? {
        guard !text.isEmpty else { return nil }
        var value: UInt64 = 0
        for byte in text {
            guard let digit = digit(byte), digit < radix else { return nil }
            let (product, tooLarge) = value.multipliedReportingOverflow(by: radix)
            let (sum, overflow) = product.addingReportingOverflow(digit)
            guard !tooLarge, !overflow else { return nil }
            value = sum
        }
        return value
    }

    /// The value of a digit up to base 36; nil for another byte.
    public static func digit(_ byte: UInt8) -> UInt64? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt64(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt64(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }
}
