import CCRC32C
import Crypto
import Testing

private func crc(_ bytes: [UInt8]) -> UInt32 {
    var crc = CRC32C()
    crc.update(bytes.span)
    return crc.value
}

/// The definition, bit by bit.
private func reference(_ bytes: [UInt8]) -> UInt32 {
    var state: UInt32 = 0xffff_ffff
    for byte in bytes {
        state ^= UInt32(byte)
        for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 1 ? 0x82f6_3b78 : 0) }
    }
    return ~state
}

@Suite struct CRC32CTests {
    /// RFC 3720 §B.4, which prints digests as they stand on the wire, least significant byte first; and the usual check value.
    static let examples: [(bytes: [UInt8], value: UInt32)] = [
        ([UInt8](repeating: 0, count: 32), 0x8a91_36aa),
        ([UInt8](repeating: 0xff, count: 32), 0x62a8_ab43),
        (Array(0..<32), 0x46dd_794e),
        ((0..<32).reversed(), 0x113f_db5c),
        (
            [
                0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
                0, 0, 0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0,
            ], 0xd996_3a56
        ),
        (Array("123456789".utf8), 0xe306_9283),
        ([], 0),
    ]

    @Test("The examples of RFC 3720 come out", arguments: examples)
    func vectors(bytes: [UInt8], value: UInt32) { #expect(crc(bytes) == value) }

    @Test("Every length around the steps of the fast paths agrees with the definition, at every alignment")
    func lengths() {
        let bytes = (0..<7000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 3) }
        for length in Array(0...40) + Array(3060...3090) + Array(6130...6160) {
            for start in 0..<4 {
                let piece = Array(bytes[start..<start + length])
                #expect(crc(piece) == reference(piece))
            }
        }
    }

    @Test("Without the CPU's instruction it is the same")
    func portable() {
        let bytes = (0..<5000).map { UInt8(truncatingIfNeeded: $0 &* 17) }
        for length in [0, 1, 7, 8, 9, 100, 4999, 5000] {
            let state = unsafe bytes.withUnsafeBufferPointer { unsafe portcullis_crc32c_portable(0xffff_ffff, $0.baseAddress, length) }
            #expect(~state == reference(Array(bytes[..<length])))
        }
    }

    @Test("Pieces make the same as the whole")
    func pieces() {
        let bytes = (0..<9000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        for split in stride(from: 0, through: bytes.count, by: 611) {
            var crc = CRC32C()
            crc.update(bytes.span.extracting(0..<split))
            crc.update(bytes.span.extracting(split..<bytes.count))
            #expect(crc.value == reference(bytes))
        }
    }
}
