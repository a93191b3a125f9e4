/// Decisions and bytes taken from the front of an input; behind its end all are zero, so that every input means something.
struct Input {
    private var bytes: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }
    mutating func number() -> Int { Int(byte()) }
    mutating func uint16() -> UInt16 { UInt16(byte()) << 8 | UInt16(byte()) }
    mutating func uint32() -> UInt32 { UInt32(uint16()) << 16 | UInt32(uint16()) }
    mutating func uint64() -> UInt64 { UInt64(uint32()) << 32 | UInt64(uint32()) }

    /// At most `count` bytes.
    mutating func take(_ count: Int) -> [UInt8] {
        defer { bytes = bytes.dropFirst(count) }
        return Array(bytes.prefix(count))
    }
    /// Exactly `count` bytes.
    mutating func exactly(_ count: Int) -> [UInt8] {
        let taken = take(count)
        return taken + [UInt8](repeating: 0, count: count - taken.count)
    }
    mutating func rest() -> [UInt8] { take(bytes.count) }
}

/// The bits of one byte, as decisions.
struct Choices {
    private let byte: UInt8
    init(_ byte: UInt8) { self.byte = byte }
    subscript(bit: Int) -> Bool { byte >> UInt8(bit) & 1 == 1 }
}
