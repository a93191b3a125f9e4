/// A block of memory for the data of one task or for PDUs on their way out.
///
/// Offsets count from the first data byte, which lies on a page boundary (so that direct I/O can use it). In front of the
/// data there is `headroom` for a protocol header, behind it `tailroom` for padding and a digest; ranges may reach into
/// both, so offsets down to `-headroom` are legal.
///
/// A buffer has one owner at a time. Handing it to another thread hands over the right to touch its bytes: that is what
/// makes it `Sendable`, and what its users (a session, then a storage thread, then the session again) keep to.
@safe public final class Buffer: Sendable {
    /// Bytes in front of the data: a basic header segment and its digest (RFC 7143 §11.2), or a TLS record header.
    public static let headroom = 64
    /// Bytes behind the data: at most 3 of padding and 4 of digest (RFC 7143 §11.2.1, §11.2.3).
    public static let tailroom = 8
    static let alignment = 4096

    /// Data bytes, without headroom and tailroom.
    public let capacity: Int
    private let block: MemoryBlock
    private let pool: BufferPool

    init(capacity: Int, block: MemoryBlock, pool: BufferPool) {
        self.capacity = capacity
        self.block = block
        self.pool = pool
    }

    deinit { pool.recycle(block, capacity: capacity) }

    /// Reads the bytes in `range`.
    @inlinable
    public func withBytes<R: ~Copyable, E: Error>(_ range: Range<Int>, _ body: (Span<UInt8>) throws(E) -> R) throws(E) -> R {
        let span = unsafe Span<UInt8>(_unsafeStart: address(of: range).assumingMemoryBound(to: UInt8.self), count: range.count)
        return try body(span)
    }

    /// Changes the bytes in `range`.
    @inlinable
    public func withMutableBytes<R: ~Copyable, E: Error>(
        _ range: Range<Int>, _ body: (inout MutableSpan<UInt8>) throws(E) -> R
    ) throws(E) -> R {
        var span = unsafe MutableSpan<UInt8>(_unsafeStart: address(of: range).assumingMemoryBound(to: UInt8.self), count: range.count)
        return try body(&span)
    }

    /// Copies `source` to `offset` onwards.
    public func copy(_ source: borrowing Span<UInt8>, to offset: Int) {
        guard source.count > 0 else { return }
        let destination = unsafe address(of: offset..<offset + source.count)
        unsafe source.withUnsafeBytes { unsafe destination.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }

    /// A copy of the bytes in `range`.
    public func array(_ range: Range<Int>) -> [UInt8] { withBytes(range) { $0.toArray() } }

    /// Where `range` lies in memory: for the kernel's and OpenSSL's calls only. Valid as long as the buffer lives.
    public func address(of range: Range<Int>) -> UnsafeMutableRawPointer {
        precondition(range.lowerBound >= -Self.headroom && range.upperBound <= capacity + Self.tailroom)
        return unsafe block.start + (Self.alignment + range.lowerBound)
    }
}

/// Memory of a buffer, page-aligned: one page whose end is the headroom, the data, the tailroom.
@safe final class MemoryBlock: @unchecked Sendable {
    let start: UnsafeMutableRawPointer

    init(capacity: Int) {
        let count = Buffer.alignment + capacity + Buffer.tailroom
        unsafe start = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: Buffer.alignment)
        unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }

    deinit { unsafe start.deallocate() }
}
