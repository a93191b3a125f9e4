import Bytes
import Testing
@testable import ISCSI

/// Bit-by-bit CRC32C, so that the tests do not check the code with itself.
func referenceCRC(_ bytes: [UInt8]) -> [UInt8] {
    var state: UInt32 = 0xffff_ffff
    for byte in bytes {
        state ^= UInt32(byte)
        for _ in 0..<8 { state = state >> 1 ^ (state & 1 == 1 ? 0x82f6_3b78 : 0) }
    }
    state = ~state
    return (0..<4).map { UInt8(truncatingIfNeeded: state >> (8 * $0)) }
}

func big(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - 8 * $0)) } }
func big(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(truncatingIfNeeded: value)] }
func big64(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (56 - 8 * UInt64($0))) } }
func u32(_ bytes: [UInt8], _ offset: Int) -> UInt32 { bytes[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) } }
func u16(_ bytes: [UInt8], _ offset: Int) -> UInt16 { UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1]) }

/// Keys with their zero bytes.
func keys(_ pairs: String...) -> [UInt8] { pairs.flatMap { Array($0.utf8) + [0] } }

/// A PDU as the tests write and read it.
struct TestPDU: CustomStringConvertible {
    var header = [UInt8](repeating: 0, count: 48)
    var additional: [UInt8] = []
    var data: [UInt8] = []

    init(_ opcode: UInt8, _ flags: UInt8, tag: UInt32 = 0, data: [UInt8] = []) {
        header[0] = opcode
        header[1] = flags
        self.data = data
        put(tag, 16)
    }
    init() {}

    mutating func put(_ value: UInt32, _ offset: Int) { header.replaceSubrange(offset..<offset + 4, with: big(value)) }
    mutating func put(_ value: UInt16, _ offset: Int) { header.replaceSubrange(offset..<offset + 2, with: big(value)) }
    mutating func put64(_ value: UInt64, _ offset: Int) { header.replaceSubrange(offset..<offset + 8, with: big64(value)) }
    func with(_ value: UInt32, at offset: Int) -> TestPDU { var copy = self; copy.put(value, offset); return copy }

    var opcode: UInt8 { header[0] & 0x3f }
    var flags: UInt8 { header[1] }
    var tag: UInt32 { u32(header, 16) }
    var transferTag: UInt32 { u32(header, 20) }
    var statSN: UInt32 { u32(header, 24) }
    var expCmdSN: UInt32 { u32(header, 28) }
    var maxCmdSN: UInt32 { u32(header, 32) }
    var status: UInt8 { header[3] }
    var text: [String] { data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) } }
    var description: String { "PDU(\(String(opcode, radix: 16)) flags \(String(flags, radix: 16)) tag \(tag) data \(data.count))" }

    func bytes(headerDigest: Bool = false, dataDigest: Bool = false) -> [UInt8] {
        var head = header
        head[4] = UInt8(additional.count / 4)
        head.replaceSubrange(5..<8, with: big(UInt32(data.count))[1...])
        head += additional
        if headerDigest { head += referenceCRC(head) }
        var tail = data + [UInt8](repeating: 0, count: (4 - data.count % 4) % 4)
        if dataDigest, !tail.isEmpty { tail += referenceCRC(tail) }
        return head + tail
    }

    /// Reads all PDUs of `bytes`, which must end with one.
    static func parse(_ bytes: [UInt8], headerDigest: Bool = false, dataDigest: Bool = false) -> [TestPDU] {
        var pdus: [TestPDU] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            guard rest.count >= 48 else { Issue.record("half a header"); return pdus }
            var pdu = TestPDU()
            pdu.header = Array(rest.prefix(48))
            rest = rest.dropFirst(48)
            #expect(pdu.header[4] == 0, "we never send additional headers")
            if headerDigest {
                #expect(Array(rest.prefix(4)) == referenceCRC(pdu.header))
                rest = rest.dropFirst(4)
            }
            let length = Int(u32([0] + pdu.header[5..<8], 0))
            let padded = (length + 3) / 4 * 4
            guard rest.count >= padded else { Issue.record("half a data segment"); return pdus }
            pdu.data = Array(rest.prefix(length))
            #expect(rest.prefix(padded).dropFirst(length).allSatisfy { $0 == 0 })
            let covered = Array(rest.prefix(padded))
            rest = rest.dropFirst(padded)
            if dataDigest, length > 0 {
                #expect(Array(rest.prefix(4)) == referenceCRC(covered))
                rest = rest.dropFirst(4)
            }
            pdus.append(pdu)
        }
        return pdus
    }
}

/// Every way to cut `bytes` in two, then all single bytes.
func everySplit(_ bytes: [UInt8], _ body: ([[UInt8]]) throws -> Void) rethrows {
    for split in 0...bytes.count { try body([Array(bytes[..<split]), Array(bytes[split...])]) }
    try body(bytes.map { [$0] })
}

/// A generator with a seed (SplitMix64).
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}
