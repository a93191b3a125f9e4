/// The shape all PDUs share (RFC 7143 §11.2).
enum PDU {
    /// The basic header segment, in bytes.
    static let headerLength = 48
    static let digestLength = 4
    /// InitiatorTaskTag and Target Transfer Tag that stand for none.
    static let reservedTag: UInt32 = 0xffff_ffff

    /// Bytes that fill a data segment up to a multiple of four.
    static func padding(_ length: Int) -> Int { -length & 3 }
}

/// PDU opcodes (RFC 7143 §11.2.1.2).
enum Opcode: UInt8, Sendable {
    case nopOut = 0x00, scsiCommand = 0x01, taskManagementRequest = 0x02, loginRequest = 0x03, textRequest = 0x04
    case dataOut = 0x05, logoutRequest = 0x06, snackRequest = 0x10
    case nopIn = 0x20, scsiResponse = 0x21, taskManagementResponse = 0x22, loginResponse = 0x23, textResponse = 0x24
    case dataIn = 0x25, logoutResponse = 0x26, readyToTransfer = 0x31, asynchronousMessage = 0x32, reject = 0x3f
}
