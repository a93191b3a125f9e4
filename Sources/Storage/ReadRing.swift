import Bytes
import CRing
import Glibc
import Medium
import Reactor
import Synchronization

/// Has the kernel do many reads of a file with one system call (io_uring). One thread at a time uses it.
///
/// What it can do is bounded for whoever takes the process over: the kernel lets this ring do reads alone, of descriptors that are open.
/// It must be made before the filter of system calls comes (`Sandbox.enter`), which allows its use and no new one.
@safe public final class ReadRing: @unchecked Sendable {
    /// Reads that are done together at most.
    public static let most = 64

    private let ring: OpaquePointer
    private var entries: [ring_read] = unsafe []
    /// Reads that were done together with others. For tests.
    public var count: UInt64 { together.load(ordering: .relaxed) }
    private let together = Atomic<UInt64>(0)

    /// - Throws: why there is none: ENOSYS or EPERM where the kernel has none or its administrator wants none
    public init() throws(SystemError) {
        var made: OpaquePointer?
        _ = try unsafe check("io_uring_setup", ring_open(&made, UInt32(Self.most)))
        guard let made = unsafe made else { preconditionFailure("a ring without an error is a ring") }
        unsafe ring = made
    }

    deinit { unsafe ring_close(ring) }

    /// A read of a gathering.
    public struct Read {
        public let extent: Extent
        /// Of at least the extent's length; the bytes go to its beginning.
        public let buffer: Buffer
        /// Whether all of it was read. Otherwise it would have to wait, or fails: a thread that may wait finds out.
        public internal(set) var isDone = false

        public init(_ extent: Extent, into buffer: Buffer) {
            precondition(buffer.capacity >= extent.length)
            (self.extent, self.buffer) = (extent, buffer)
        }
    }

    /// Does those of the reads of an open file that need not wait.
    /// - Returns: false if the file cannot be read that way
    func perform(_ reads: inout [Read], of descriptor: Int32) -> Bool {
        precondition(!reads.isEmpty && reads.count <= Self.most)
        unsafe entries.removeAll(keepingCapacity: true)
        for read in reads {
            let length = Int(read.extent.length)
            unsafe entries.append(
                ring_read(fd: descriptor, bytes: read.buffer.address(of: 0..<length), count: UInt32(length), offset: read.extent.offset, result: 0))
        }
        let result = unsafe ring_perform(ring, &entries, UInt32(reads.count))
        // Its memory may still be written to: nobody can go on.
        precondition(result == 0, "a ring that has taken reads does them")
        together.add(UInt64(reads.count), ordering: .relaxed)
        var isSupported = true
        for index in reads.indices {
            let result = unsafe entries[index].result
            reads[index].isDone = Int(result) == Int(reads[index].extent.length)
            if result == -EOPNOTSUPP || result == -EINVAL { isSupported = false }
        }
        return isSupported
    }

    /// What the kernel answers to an operation with this code: an error of `errno`, positive. For tests.
    func refusal(of code: UInt8) -> Int32 { unsafe -ring_try(ring, code) }
}
