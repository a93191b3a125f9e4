import Bytes
import CLinux
import Glibc
import Medium
import Reactor
import Synchronization

/// A regular file or a block device (`rdwr`).
///
/// Ordinary operations run side by side; those that must be atomic against every other (ORWRITE, COMPARE AND WRITE, and writes
/// that share an indivisible piece of a direct file with their neighbours) run alone.
public final class FileStore: BackingStore {
    /// Largest operation done on the caller's thread: copying it takes some 100 µs, which a reactor can spare.
    static let mostAtOnce: UInt64 = 1 << 20
    /// Longest read that is done together with others: the copy of a longer one costs so much that the call does not matter.
    public static let mostTogether: UInt64 = 16 << 10
    /// What tells direct I/O's alignment where the file system has not: the largest that exists.
    static let coarsestAlignment = 4096
    /// Runs in one answer to `.provisioning`: what fits into the largest page of descriptors that initiators ask for.
    static let mostRuns = 256

    public let length: UInt64
    /// Whether writes fail with `.readOnly`.
    public let isReadOnly: Bool
    public let flags: StoreFlags
    let isBlockDevice: Bool
    /// Bytes of a device's logical sector.
    let sector: Int
    /// On tmpfs and ramfs there is no medium to wait for.
    let isInMemory: Bool

    let descriptor: FileDescriptor
    private let gate = Gate()
    /// What offsets, lengths and addresses of direct I/O are multiples of; found out by the first refusal.
    private let alignment: Atomic<Int>
    private let readsAtOnce: Atomic<Bool>
    private let writesAtOnce: Atomic<Bool>

    /// Takes over an open file or block device. How it was opened (O_DIRECT, O_DSYNC, O_RDONLY) is asked of the kernel.
    ///
    /// - Parameters:
    ///   - readOnly: refuse writes though the descriptor would take them
    ///   - served: bytes that it is to have, whatever the file has now: what is not there cannot be read; nil: all of it
    /// - Throws: what the kernel says; EINVAL for anything but a file or a block device
    public init(adopting descriptor: consuming FileDescriptor, readOnly: Bool = false, length served: UInt64? = nil) throws(SystemError) {
        let description = try StoreDescription(of: descriptor.rawValue)
        let fd = descriptor.rawValue
        let status = fcntl(fd, F_GETFL)
        guard status >= 0 else { throw SystemError("fcntl", errno) }
        self.descriptor = descriptor
        length = served ?? description.length
        isBlockDevice = description.isBlockDevice
        isInMemory = description.isInMemory
        sector = description.sector
        isReadOnly = readOnly || status & O_ACCMODE == O_RDONLY
        var flags: StoreFlags = []
        if status & O_DSYNC != 0 { flags.insert(.sync) }
        if status & linux_o_direct != 0 { flags.insert(.direct) }
        self.flags = flags
        alignment = Atomic(description.sector)
        readsAtOnce = Atomic(!flags.contains(.direct))
        writesAtOnce = Atomic(!flags.contains(.direct) && (isInMemory || !flags.contains(.sync)))
    }

    public func perform(_ operation: Operation, buffer: Buffer?) -> Outcome {
        precondition(operation.fits(length: length, capacity: buffer?.capacity ?? 0))
        if isReadOnly && operation.isWrite { return .failed(.readOnly) }
        while true {
            let alignment = alignment.load(ordering: .relaxed)
            let result = gate.pass(alone: mustBeAlone(operation, alignment)) { () -> Outcome? in
                do throws(Trouble) {
                    return try Transfer(self, alignment).run(operation, buffer)
                } catch {
                    guard case .failure(let failure) = error else { return nil }
                    return .failed(failure)
                }
            }
            if let result { return result }
            guard alignment < Self.coarsestAlignment else { return .failed(operation.isWrite ? .unwritable : .unreadable) }
            self.alignment.store(Self.coarsestAlignment, ordering: .relaxed)
        }
    }

    private func mustBeAlone(_ operation: Operation, _ alignment: Int) -> Bool {
        switch operation {
        case .orWrite, .compareAndWrite: return true
        case .write(let extent, _), .writeSame(let extent, _, _): return flags.contains(.direct) && !extent.isAligned(to: alignment)
        case .discard(let extents): return flags.contains(.direct) && !extents.allSatisfy { $0.isAligned(to: alignment) }
        case .read, .flush, .verify, .compare, .prefetch, .provisioning: return false
        }
    }

    public func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome? {
        precondition(operation.fits(length: length, capacity: buffer?.capacity ?? 0))
        if isReadOnly && operation.isWrite { return .failed(.readOnly) }
        switch operation {
        case .read(let extent):
            guard let buffer, extent.length <= Self.mostAtOnce, readsAtOnce.load(ordering: .relaxed) else { return nil }
            return gate.passAtOnce { tryAtOnce(operation, buffer, Int(extent.length), remember: readsAtOnce) }
        case .write(let extent, let durable):
            guard let buffer, extent.length <= Self.mostAtOnce, writesAtOnce.load(ordering: .relaxed), isInMemory || !durable else { return nil }
            return gate.passAtOnce { tryAtOnce(operation, buffer, Int(extent.length), remember: writesAtOnce) }
        case .flush: return isInMemory || isReadOnly ? .done : nil
        case .discard, .writeSame, .verify, .compare, .orWrite, .compareAndWrite, .prefetch, .provisioning: return nil
        }
    }

    /// The page cache takes most writes at once: not where it is to be passed, nor where they are to be on the medium when they are done.
    public func isSeldomHeldUp(by operation: Operation) -> Bool {
        guard case .write(let extent, durable: false) = operation else { return false }
        return extent.length <= Self.mostAtOnce && flags.isEmpty && !isReadOnly
    }

    public func performBeside(_ operation: Operation, buffer: Buffer?) -> Outcome? {
        precondition(isSeldomHeldUp(by: operation) && operation.fits(length: length, capacity: buffer?.capacity ?? 0))
        return gate.passAtOnce { () -> Outcome? in
            do throws(Trouble) {
                return try Transfer(self, 1).run(operation, buffer)
            } catch {
                guard case .failure(let failure) = error else { preconditionFailure("only direct I/O is misaligned") }
                return .failed(failure)
            }
        }
    }

    public func fileToRead(for operation: Operation) -> FileStore? {
        // A file system in memory has no reads that do not wait: a ring would give them to threads of its own.
        guard case .read(let extent) = operation, !isInMemory, (1...Self.mostTogether).contains(extent.length), readsAtOnce.load(ordering: .relaxed) else {
            return nil
        }
        return self
    }

    /// Does those of the reads that are sure not to wait for the medium, together. Each is one that `fileToRead` has named this file for.
    public func readAtOnce(_ reads: inout [ReadRing.Read], through ring: ReadRing) {
        precondition(reads.allSatisfy { $0.extent.offset <= length && $0.extent.length <= length - $0.extent.offset })
        if reads.count == 1 {
            reads[0].isDone = performAtOnce(.read(reads[0].extent), buffer: reads[0].buffer) == .done
        } else {
            _ = gate.passAtOnce { if !ring.perform(&reads, of: descriptor.rawValue) { readsAtOnce.store(false, ordering: .relaxed) } }
        }
    }

    /// Runs `body` while nobody else is in the file. For tests.
    func alone(_ body: () -> Void) { gate.pass(alone: true, body) }

    /// One call that does not wait; nil unless it does all.
    private func tryAtOnce(_ operation: Operation, _ buffer: Buffer, _ count: Int, remember: borrowing Atomic<Bool>) -> Outcome? {
        guard count > 0, let offset = operation.extent?.offset else { return .done }
        let memory = unsafe buffer.address(of: 0..<count)
        let flags = isInMemory ? 0 : Int32(LINUX_RWF_NOWAIT)
        let result = unsafe operation.isWrite
            ? linux_write_at(descriptor.rawValue, memory, count, offset, flags)
            : linux_read_at(descriptor.rawValue, memory, count, offset, flags)
        if result == count { return .done }
        if result == -Int(EOPNOTSUPP) || result == -Int(EINVAL) { remember.store(false, ordering: .relaxed) }
        return nil
    }
}

/// Why an operation on a file does not go on.
enum Trouble: Error {
    case failure(Failure)
    /// Direct I/O wants a coarser alignment than was believed; nothing of this call has happened.
    case misaligned
}

/// What kind of file a descriptor stands for, as far as a store needs to know.
struct StoreDescription {
    let length: UInt64
    let isBlockDevice: Bool
    let isInMemory: Bool
    /// Bytes of a logical sector; for files the smallest that exists.
    let sector: Int
    let physicalSector: Int

    init(of fd: Int32) throws(SystemError) {
        var info = linux_file_info()
        _ = try unsafe check("fstat", linux_describe(fd, &info))
        switch Int(info.kind) {
        case LINUX_KIND_FILE:
            length = info.size
            // A file system writes whole blocks of its own: that is what a physical block is to who writes to a file on it.
            (sector, physicalSector) = (512, (512...4096).contains(info.preferred) ? Int(info.preferred) : 512)
            isBlockDevice = false
            isInMemory = linux_is_memory_filesystem(info.filesystem)
        case LINUX_KIND_BLOCK:
            var (size, logical, physical): (UInt64, UInt32, UInt32) = (0, 0, 0)
            _ = try unsafe check("ioctl(BLKGETSIZE64)", linux_block_device_size(fd, &size))
            _ = try unsafe check("ioctl(BLKSSZGET)", linux_block_device_sectors(fd, &logical, &physical))
            length = size
            (sector, physicalSector) = (Int(logical), Int(physical))
            isBlockDevice = true
            isInMemory = false
        default: throw SystemError("fstat", EINVAL)
        }
    }
}

extension Extent {
    func isAligned(to alignment: Int) -> Bool { (offset | length) % UInt64(alignment) == 0 }
}
