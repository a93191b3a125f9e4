import CCRC32C

/// The checksum of header and data digests (RFC 7143 §13.1, polynomial 11EDC6F41h).
public struct CRC32C: Sendable {
    private var state: UInt32 = 0xffff_ffff

    public init() {}

    /// Takes in more bytes; in how many pieces they come makes no difference.
    public mutating func update(_ bytes: borrowing Span<UInt8>) {
        state = unsafe bytes.withUnsafeBufferPointer { unsafe portcullis_crc32c(state, $0.baseAddress, $0.count) }
    }

    /// The checksum of what has been taken in. A digest on the wire is this number with its least significant byte first.
    public var value: UInt32 { ~state }
}
