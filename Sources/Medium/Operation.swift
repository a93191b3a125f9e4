/// A run of bytes on a medium. `end` never overflows: a device server checks an extent against its capacity first.
public struct Extent: Hashable, Sendable {
    /// First byte.
    public var offset: UInt64
    /// Bytes.
    public var length: UInt64
    public var end: UInt64 { offset + length }

    public init(offset: UInt64, length: UInt64) {
        self.offset = offset
        self.length = length
    }
}

/// What a device server asks of a backing store: the whole of the narrow wall between `SCSI` and `Storage`.
///
/// Offsets and lengths are in bytes. Data move between the medium and the task's buffer, from its byte 0 on. An operation
/// either happens as a whole or fails; after a failure the bytes it covers are undefined, no others.
public enum Operation: Hashable, Sendable {
    /// Medium → buffer.
    case read(Extent)
    /// Buffer → medium. `durable`: on stable storage before it is done (FUA, or the write cache is off).
    case write(Extent, durable: Bool)
    /// All earlier writes to stable storage.
    case flush
    /// The extents need no space any more and read as zeros from now on.
    case discard([Extent])
    /// Buffer's first `pattern` bytes, repeated over the extent, whose length is a multiple of it.
    case writeSame(Extent, pattern: Int, durable: Bool)
    /// Reads the extent and throws the data away: is it readable?
    case verify(Extent)
    /// Reads the extent and compares it with the buffer; fails with `.miscompare`.
    case compare(Extent)
    /// Medium := medium OR buffer, atomically against every other operation (SBC-3 §5.22).
    case orWrite(Extent, durable: Bool)
    /// If the medium holds the buffer's first `extent.length` bytes, they are replaced by the next `extent.length` bytes,
    /// atomically against every other operation; otherwise `.miscompare` (SBC-3 §5.3).
    case compareAndWrite(Extent, durable: Bool)
    /// Brings the extent into the cache, as far as that is possible.
    case prefetch(Extent)
    /// Which parts of the extent have space on the medium: answered by `.provisioned`.
    case provisioning(Extent)
}

/// How an operation ended.
public enum Outcome: Hashable, Sendable {
    case done
    /// Answer to `.provisioning`: consecutive runs from the start of the extent on, not necessarily to its end.
    case provisioned([ProvisionedRun])
    case failed(Failure)
}

/// A run that has, or has not, space on the medium.
public struct ProvisionedRun: Hashable, Sendable {
    public var extent: Extent
    public var isMapped: Bool

    public init(extent: Extent, isMapped: Bool) {
        self.extent = extent
        self.isMapped = isMapped
    }
}

/// Why an operation failed, as far as an initiator can be told.
public enum Failure: Hashable, Sendable {
    /// The medium did not give its data (EIO, a short file).
    case unreadable
    /// The medium did not take the data (EIO).
    case unwritable
    /// Earlier writes may be lost: a flush failed, or a durable write did at its flush.
    case flushFailed
    /// The store has no space for the data (ENOSPC, EDQUOT, EFBIG).
    case noSpace
    /// The store takes no writes (EROFS, EPERM, EBADF).
    case readOnly
    /// The data differ; `offset` is the first byte of the buffer that does.
    case miscompare(offset: Int)
    /// The store cannot do this at all (EOPNOTSUPP).
    case unsupported
    /// Too many operations wait for their turn already: nothing has happened, later it may.
    case busy
}
