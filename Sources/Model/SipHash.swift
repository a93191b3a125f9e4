import Bytes

/// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, 2012): a keyed pseudo-random function for short inputs.
///
/// Written out because its results are on initiators' disks: they must never change, and the standard library's hash does
/// at every start.
struct SipHash128 {
    private var v0, v1, v2, v3: UInt64

    private init(key: [UInt8]) {
        precondition(key.count == 16)
        let k0 = Self.word(key[0..<8])
        let k1 = Self.word(key[8..<16])
        v0 = k0 ^ 0x736f_6d65_7073_6575
        v1 = k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee
        v2 = k0 ^ 0x6c79_6765_6e65_7261
        v3 = k1 ^ 0x7465_6462_7974_6573
    }

    /// The 16 bytes for `message` under a key of 16 bytes.
    static func hash(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
        var state = Self(key: key)
        let whole = message.count / 8 * 8
        for start in stride(from: 0, to: whole, by: 8) { state.absorb(word(message[start..<start + 8])) }
        state.absorb(word(message[whole...]) | UInt64(message.count & 0xff) << 56)
        state.v2 ^= 0xee
        let first = state.squeeze()
        state.v1 ^= 0xdd
        return littleEndian(first) + littleEndian(state.squeeze())
    }

    private mutating func absorb(_ word: UInt64) {
        v3 ^= word
        for _ in 0..<2 { round() }
        v0 ^= word
    }

    private mutating func squeeze() -> UInt64 {
        for _ in 0..<4 { round() }
        return v0 ^ v1 ^ v2 ^ v3
    }

    private mutating func round() {
        v0 &+= v1
        v1 = Self.rotate(v1, 13) ^ v0
        v0 = Self.rotate(v0, 32)
        v2 &+= v3
        v3 = Self.rotate(v3, 16) ^ v2
        v0 &+= v3
        v3 = Self.rotate(v3, 21) ^ v0
        v2 &+= v1
        v1 = Self.rotate(v1, 17) ^ v2
        v2 = Self.rotate(v2, 32)
    }

    private static func rotate(_ value: UInt64, _ bits: UInt64) -> UInt64 { value << bits | value >> (64 - bits) }

    private static func word(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }

    private static func littleEndian(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }
}
