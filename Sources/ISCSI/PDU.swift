import Bytes

/// The shape all PDUs share (RFC 7143 §11.2).
package enum PDU {
    /// The basic header segment, in bytes.
    package static let headerLength = 48
    package static let digestLength = 4
    /// InitiatorTaskTag and Target Transfer Tag that stand for none.
    package static let reservedTag: UInt32 = 0xffff_ffff

    /// Bytes that fill a data segment up to a multiple of four.
    package static func padding(_ length: Int) -> Int { -length & 3 }
}

/// PDU opcodes (RFC 7143 §11.2.1.2).
package enum Opcode: UInt8, Sendable {
    case nopOut = 0x00, scsiCommand = 0x01, taskManagementRequest = 0x02, loginRequest = 0x03, textRequest = 0x04
    case dataOut = 0x05, logoutRequest = 0x06, snackRequest = 0x10
    case nopIn = 0x20, scsiResponse = 0x21, taskManagementResponse = 0x22, loginResponse = 0x23, textResponse = 0x24
    case dataIn = 0x25, logoutResponse = 0x26, readyToTransfer = 0x31, asynchronousMessage = 0x32, reject = 0x3f
}

/// A basic header segment (RFC 7143 §11.2.1), and the fields that most PDUs have in the same place.
package struct BasicHeader: Sendable {
    package var bytes = InlineArray<48, UInt8>(repeating: 0)

    package init() {}

    /// A PDU of ours whose final or only piece it is.
    package init(_ opcode: Opcode, initiatorTaskTag: UInt32) {
        bytes[0] = opcode.rawValue
        bytes[1] = Self.finalBit
        store(initiatorTaskTag, at: 16)
    }

    package static let finalBit: UInt8 = 0x80
    static let continueBit: UInt8 = 0x40
    package static let immediateBit: UInt8 = 0x40

    package var opcode: Opcode? { Opcode(rawValue: bytes[0] & ~Self.immediateBit) }
    var isImmediate: Bool { bytes[0] & Self.immediateBit != 0 }
    package var isFinal: Bool { bytes[1] & Self.finalBit != 0 }
    var continues: Bool { bytes[1] & Self.continueBit != 0 }
    /// Of all additional header segments, in bytes.
    var totalAHSLength: Int { Int(bytes[4]) * 4 }
    package var dataSegmentLength: Int { Int(bytes.span.uint24(at: 5)) }
    package var lun: UInt64 { bytes.span.uint64(at: 8) }
    package var initiatorTaskTag: UInt32 { uint32(at: 16) }
    /// Of Data-Out, Text Request and NOP-Out; in a task management request the Referenced Task Tag stands there.
    package var targetTransferTag: UInt32 { uint32(at: 20) }
    var cmdSN: UInt32 { uint32(at: 24) }

    @inline(__always) package func uint32(at offset: Int) -> UInt32 { bytes.span.uint32(at: offset) }

    @inline(__always) package mutating func store(_ value: UInt32, at offset: Int) {
        var span = bytes.mutableSpan
        span.store(value, at: offset)
    }
    @inline(__always) package mutating func store(_ value: UInt16, at offset: Int) {
        var span = bytes.mutableSpan
        span.store(value, at: offset)
    }
    @inline(__always) package mutating func store(lun: UInt64) {
        var span = bytes.mutableSpan
        span.store(lun, at: 8)
    }
    @inline(__always) package mutating func store(dataSegmentLength length: Int) {
        var span = bytes.mutableSpan
        span.store24(UInt32(length), at: 5)
    }
}
