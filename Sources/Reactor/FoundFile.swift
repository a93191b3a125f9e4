import CLinux
import Glibc

/// A file that an administrator has named: looked at, and not opened yet, for opening some devices does something. What is opened is
/// what was looked at.
///
/// All that tgtd opens because somebody has named it goes through here: backing stores, certificates, keys. It may block for as long as
/// a disk or a network file system takes: it belongs into a helper process with a deadline.
public struct FoundFile: ~Copyable {
    public enum Kind: Sendable { case file, directory, blockDevice, characterDevice, other }

    public let kind: Kind
    /// Bytes, of a regular file.
    public let length: Int
    private let place: FileDescriptor
    private let status: stat

    /// - Parameter path: absolute
    public init(_ path: String) throws(SystemError) {
        try self.init(FileDescriptor(owning: try unsafe check("open", linux_open(path, linux_o_path))))
    }

    /// What this relative path names beneath a directory.
    /// - Throws: EXDEV or ELOOP where `..` or a symbolic link leads out of it
    public init(_ path: String, beneath directory: String) throws(SystemError) {
        let root = FileDescriptor(owning: try unsafe check("open", linux_open(directory, linux_o_path | O_DIRECTORY)))
        let resolve = UInt64(LINUX_RESOLVE_BENEATH | LINUX_RESOLVE_NO_MAGICLINKS)
        var found: Int32 = -EAGAIN
        // The kernel gives up where something is renamed while it goes by `..`.
        for _ in 0..<Self.renames where found == -EAGAIN { found = unsafe linux_openat2(root.rawValue, path, UInt64(linux_o_path), 0, resolve) }
        try self.init(FileDescriptor(owning: try check("openat2", found)))
    }

    /// How often something may be renamed on the way.
    private static let renames = 64

    private init(_ found: consuming FileDescriptor) throws(SystemError) {
        var status = stat()
        _ = try unsafe check("fstat", fstat(found.rawValue, &status) == 0 ? 0 : -errno)
        kind = switch status.st_mode & S_IFMT {
        case S_IFREG: .file
        case S_IFDIR: .directory
        case S_IFBLK: .blockDevice
        case S_IFCHR: .characterDevice
        default: .other
        }
        length = Int(status.st_size)
        self.status = status
        place = found
    }

    /// Of a device: which.
    public var device: UInt64 { UInt64(status.st_rdev) }

    /// - Parameter how: flags of open(2)
    public borrowing func open(_ how: Int32) throws(SystemError) -> FileDescriptor {
        FileDescriptor(owning: try unsafe check("open", linux_open("/proc/self/fd/\(place.rawValue)", how)))
    }

    /// Why it is not to be trusted, in words for an administrator; nil: only root or the user that tgtd runs as can have written it, or
    /// read it.
    /// - Parameter isPrivate: whether others may not read it either
    public borrowing func distrust(isPrivate: Bool) -> String? { Files.distrust(status, isPrivate: isPrivate) }
}

extension Files {
    /// Opens a file for reading that somebody has named and that tgtd will depend on, and touches all of it, so that its bytes are in
    /// memory for whoever is given the descriptor. It may block, as `FoundFile` does.
    /// - Parameters:
    ///   - limit: bytes that it may have
    ///   - isPrivate: one that somebody else may read is refused, too
    public static func openTrusted(_ path: String, limit: Int, isPrivate: Bool) throws(FileError) -> FileDescriptor {
        let found = try naming(path) { () throws(SystemError) in try FoundFile(path) }
        guard found.kind == .file else { throw FileError(path, "is not a regular file") }
        if let reason = found.distrust(isPrivate: isPrivate) { throw FileError(path, reason) }
        guard found.length <= limit else { throw FileError(path, "is larger than \(limit) bytes") }
        let descriptor = try naming(path) { () throws(SystemError) in try found.open(O_RDONLY) }
        for offset in stride(from: 0, to: found.length, by: smallestPage) {
            var byte: UInt8 = 0
            guard unsafe pread(descriptor.rawValue, &byte, 1, offset) >= 0 else { throw FileError(path, errno: errno) }
        }
        return descriptor
    }

    private static let smallestPage = 4096

    private static func naming<Result: ~Copyable>(_ path: String, _ body: () throws(SystemError) -> Result) throws(FileError) -> Result {
        do throws(SystemError) { return try body() } catch { throw FileError(path, errno: error.code) }
    }

    /// Reads a file from its beginning, at most as much as there is room for.
    /// - Returns: bytes read
    public static func read(_ descriptor: Int32, into room: inout MutableSpan<UInt8>) throws(SystemError) -> Int {
        var count = 0
        while count < room.count {
            let done = count
            let got = unsafe room.withUnsafeMutableBytes { unsafe pread(descriptor, $0.baseAddress! + done, $0.count - done, done) }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw SystemError("read", errno) }
            if got == 0 { break }
            count += got
        }
        return count
    }
}

extension Host {
    /// Of the clock that an administrator sets: for what has a date.
    public static var secondsSince1970: Int64 { Int64(time(nil)) }
}
