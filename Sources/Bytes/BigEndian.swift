/// Big-endian integers in byte spans, as SCSI and iSCSI have them on the wire (SAM-5 §4.2, RFC 7143 §11.2).
///
/// Offsets are in bytes. An offset outside the span is a programming error and traps: callers check the length of what
/// came from outside first, once, against a fixed header size.
extension Span where Element == UInt8 {
    @inlinable @inline(__always) public func uint16(at offset: Int) -> UInt16 {
        UInt16(self[offset]) << 8 | UInt16(self[offset + 1])
    }
    @inlinable @inline(__always) public func uint24(at offset: Int) -> UInt32 {
        UInt32(self[offset]) << 16 | UInt32(self[offset + 1]) << 8 | UInt32(self[offset + 2])
    }
    @inlinable @inline(__always) public func uint32(at offset: Int) -> UInt32 {
        UInt32(uint16(at: offset)) << 16 | UInt32(uint16(at: offset + 2))
    }
    @inlinable @inline(__always) public func uint48(at offset: Int) -> UInt64 {
        UInt64(uint16(at: offset)) << 32 | UInt64(uint32(at: offset + 2))
    }
    @inlinable @inline(__always) public func uint64(at offset: Int) -> UInt64 {
        UInt64(uint32(at: offset)) << 32 | UInt64(uint32(at: offset + 4))
    }
    /// A copy of the whole span.
    @inlinable public func toArray() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        for index in indices { bytes.append(self[index]) }
        return bytes
    }
    /// Whether both spans hold the same bytes. Not for secrets: it stops at the first difference.
    @inlinable public func elementsEqual(_ other: borrowing Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        for index in indices where self[index] != other[index] { return false }
        return true
    }
}

extension MutableSpan where Element == UInt8 {
    @inlinable @inline(__always) public mutating func store(_ value: UInt16, at offset: Int) {
        self[offset] = UInt8(truncatingIfNeeded: value >> 8)
        self[offset + 1] = UInt8(truncatingIfNeeded: value)
    }
    @inlinable @inline(__always) public mutating func store(_ value: UInt32, at offset: Int) {
        store(UInt16(truncatingIfNeeded: value >> 16), at: offset)
        store(UInt16(truncatingIfNeeded: value), at: offset + 2)
    }
    @inlinable @inline(__always) public mutating func store(_ value: UInt64, at offset: Int) {
        store(UInt32(truncatingIfNeeded: value >> 32), at: offset)
        store(UInt32(truncatingIfNeeded: value), at: offset + 4)
    }
    /// The low 24 bits of `value`.
    @inlinable @inline(__always) public mutating func store24(_ value: UInt32, at offset: Int) {
        self[offset] = UInt8(truncatingIfNeeded: value >> 16)
        store(UInt16(truncatingIfNeeded: value), at: offset + 1)
    }
    /// The low 48 bits of `value`.
    @inlinable @inline(__always) public mutating func store48(_ value: UInt64, at offset: Int) {
        store(UInt16(truncatingIfNeeded: value >> 32), at: offset)
        store(UInt32(truncatingIfNeeded: value), at: offset + 2)
    }
    /// Copies all of `source` to `offset` onwards.
    @inlinable public mutating func copy(_ source: borrowing Span<UInt8>, at offset: Int = 0) {
        precondition(offset >= 0 && source.count <= count - offset)
        for index in source.indices { self[offset + index] = source[index] }
    }
}

extension [UInt8] {
    @inlinable public mutating func append(bigEndian value: UInt16) {
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }
    @inlinable public mutating func append(bigEndian value: UInt32) {
        append(bigEndian: UInt16(truncatingIfNeeded: value >> 16))
        append(bigEndian: UInt16(truncatingIfNeeded: value))
    }
    @inlinable public mutating func append(bigEndian value: UInt64) {
        append(bigEndian: UInt32(truncatingIfNeeded: value >> 32))
        append(bigEndian: UInt32(truncatingIfNeeded: value))
    }
    @inlinable public mutating func append(copying span: borrowing Span<UInt8>) {
        reserveCapacity(count + span.count)
        for index in span.indices { append(span[index]) }
    }
}
