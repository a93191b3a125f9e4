import Bytes
import CLinux
import Glibc
import Medium
import Reactor
import Synchronization
import Testing

@testable import Storage

struct Unexpected: Error {
    let what: String
}

final class Counter: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .sequentiallyConsistent) }
    func add(_ number: Int) { count.add(number, ordering: .sequentiallyConsistent) }
}

/// Where test files lie: in memory and on the file system of the temporary folder.
enum Place: String, CaseIterable, CustomTestStringConvertible {
    case memory = "/dev/shm"
    case disk = "/tmp"
    var testDescription: String { rawValue }
}

/// A file that goes with its owner.
final class TestFile {
    let path: String

    init(_ place: Place = .memory, length: Int) throws {
        path = "\(place.rawValue)/portcullis-storage-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        let fd = unsafe Glibc.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard fd >= 0 else { throw SystemError("open", errno) }
        defer { close(fd) }
        guard ftruncate(fd, length) == 0 else { throw SystemError("ftruncate", errno) }
    }

    deinit { unsafe unlink(path) }

    /// A descriptor as the opener makes it, for an owner.
    func open(_ flags: StoreFlags = [], readOnly: Bool = false) throws -> Int32 {
        let opened = try StoreOpener.open(path, flags: flags, readOnly: readOnly)
        let copy = try opened.descriptor.duplicate()
        return copy.release()
    }

    /// - Parameter refusing: opened for writing, but told not to
    func store(_ flags: StoreFlags = [], readOnly: Bool = false, refusing: Bool = false) throws -> FileStore {
        try FileStore(adopting: FileDescriptor(owning: open(flags, readOnly: readOnly)), readOnly: refusing)
    }

    /// What the file holds, past the store.
    func contents() throws -> [UInt8] {
        let fd = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { throw SystemError("open", errno) }
        defer { close(fd) }
        var bytes = [UInt8](repeating: 0, count: Int(lseek(fd, 0, SEEK_END)))
        let count = unsafe pread(fd, &bytes, bytes.count, 0)
        guard count == bytes.count else { throw SystemError("pread", errno) }
        return bytes
    }

    func truncate(_ length: Int) { unsafe Glibc.truncate(path, length) }
}

/// A file as a block device; root can make one where the kernel has them.
final class LoopDevice {
    let file: TestFile
    let path: String

    init(length: Int, sector: Int) throws {
        file = try TestFile(.disk, length: length)
        path = try run("losetup --find --show --direct-io=off --sector-size \(sector) \(file.path)")
        guard path.hasPrefix("/dev/loop") else { throw Unexpected(what: path) }
    }

    deinit { _ = try? run("losetup --detach \(path)") }

    static let isAvailable = geteuid() == 0 && (try? LoopDevice(length: 8192, sector: 4096)) != nil
}

/// The first line that a shell command prints; nothing if it fails.
private func run(_ command: String) throws -> String {
    var ends: [Int32] = [-1, -1]
    guard unsafe pipe(&ends) == 0 else { throw SystemError("pipe", errno) }
    let (read, write) = (ends[0], ends[1])
    defer { close(read) }
    let child = try ChildProcess(
        path: "/bin/sh", arguments: ["sh", "-c", "\(command) >&3 2>/dev/null"], environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], descriptors: [write])
    close(write)
    guard child.wait(nanoseconds: 10_000_000_000) == .exited(0) else { return "" }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = unsafe Glibc.read(read, &bytes, 256)
    return String(decoding: bytes.prefix(max(0, count)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
}

let testPool = BufferPool(budget: 1 << 30)

func buffer(_ bytes: [UInt8]) throws -> Buffer {
    guard let buffer = testPool.allocate(bytes.count) else { throw Unexpected(what: "no memory") }
    buffer.copy(bytes.span, to: 0)
    return buffer
}

func buffer(count: Int) throws -> Buffer {
    guard let buffer = testPool.allocate(count) else { throw Unexpected(what: "no memory") }
    buffer.withMutableBytes(0..<count) { bytes in for index in bytes.indices { bytes[index] = 0xee } }
    return buffer
}

func pattern(_ count: Int, seed: Int) -> [UInt8] {
    var state = UInt64(bitPattern: Int64(seed)) &* 0x9e37_79b9_7f4a_7c15 | 1
    return (0..<count).map { _ in
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return UInt8(truncatingIfNeeded: state >> 24)
    }
}

/// The first eight bytes, big-endian.
func number(_ bytes: [UInt8]) -> UInt64 { bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }

extension Extent {
    init(_ offset: Int, _ length: Int) { self.init(offset: UInt64(offset), length: UInt64(length)) }
    var range: Range<Int> { Int(offset)..<Int(end) }
}

extension BackingStore {
    func read(_ offset: Int, _ length: Int) throws -> [UInt8] {
        let buffer = try buffer(count: length)
        let outcome = perform(.read(Extent(offset, length)), buffer: buffer)
        guard outcome == .done else { throw Unexpected(what: "\(outcome)") }
        return buffer.array(0..<length)
    }

    func write(_ offset: Int, _ bytes: [UInt8], durable: Bool = false) throws -> Outcome {
        perform(.write(Extent(offset, bytes.count), durable: durable), buffer: try buffer(bytes))
    }
}

/// What a store must do, on an array.
struct ModelStore {
    var bytes: [UInt8]

    mutating func perform(_ operation: Operation, _ data: [UInt8]) -> Outcome {
        switch operation {
        case .read, .flush, .verify, .prefetch, .provisioning: break
        case .write(let extent, _): bytes.replaceSubrange(extent.range, with: data[..<Int(extent.length)])
        case .discard(let extents):
            for extent in extents { bytes.replaceSubrange(extent.range, with: [UInt8](repeating: 0, count: Int(extent.length))) }
        case .writeSame(let extent, let pattern, _):
            for index in extent.range { bytes[index] = data[(index - Int(extent.offset)) % pattern] }
        case .compare(let extent): return compare(extent, data)
        case .orWrite(let extent, _): for index in extent.range { bytes[index] |= data[index - Int(extent.offset)] }
        case .compareAndWrite(let extent, _):
            let outcome = compare(extent, data)
            guard outcome == .done else { return outcome }
            bytes.replaceSubrange(extent.range, with: data[Int(extent.length)..<2 * Int(extent.length)])
        }
        return .done
    }

    private func compare(_ extent: Extent, _ data: [UInt8]) -> Outcome {
        for (place, index) in extent.range.enumerated() where bytes[index] != data[place] { return .failed(.miscompare(offset: place)) }
        return .done
    }
}
