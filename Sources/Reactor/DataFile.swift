import CLinux
import Glibc

/// A regular file that is read and written at places, and made to stay. Every call takes as long as the medium does.
public final class DataFile: Sendable {
    public enum Use: Sendable {
        case reading
        /// One that is there, and that nobody else could have written or read.
        case writing
        /// One that is not there yet, for us alone.
        case making
    }

    public let path: String
    private let descriptor: FileDescriptor

    public init(_ path: String, _ use: Use) throws(FileError) {
        let flags: Int32 =
            switch use {
            case .reading: O_RDONLY
            case .writing: O_RDWR
            case .making: O_RDWR | O_CREAT | O_EXCL
            }
        let raw = unsafe open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW, 0o600)
        guard raw >= 0 else { throw FileError(path, errno: errno) }
        let descriptor = FileDescriptor(owning: raw)
        let status = try Files.status(of: descriptor, path)
        guard status.st_mode & S_IFMT == S_IFREG else { throw FileError(path, "is not a regular file") }
        if case .writing = use { try Files.checkTrusted(status, path, isPrivate: true) }
        self.path = path
        self.descriptor = descriptor
    }

    /// In bytes.
    public func length() throws(FileError) -> Int { Int(try Files.status(of: descriptor, path).st_size) }

    /// So many bytes, or as many as there are.
    public func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
        var failure: Int32 = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, done in
            while done < count {
                let got = unsafe linux_read_at(descriptor.rawValue, buffer.baseAddress! + done, count - done, UInt64(offset + done), 0)
                if got < 0 { failure = Int32(-got) }
                guard got > 0 else { break }
                done += got
            }
        }
        guard failure == 0 else { throw FileError(path, errno: failure) }
        return bytes
    }

    public func write(_ bytes: [UInt8], at offset: Int) throws(FileError) {
        var done = 0
        while done < bytes.count {
            let put = unsafe bytes.withUnsafeBytes { unsafe linux_write_at(descriptor.rawValue, $0.baseAddress! + done, bytes.count - done, UInt64(offset + done), 0) }
            guard put > 0 else { throw FileError(path, errno: put < 0 ? Int32(-put) : EIO) }
            done += put
        }
    }

    /// Has the medium keep space for these bytes, whether they are behind the end or not.
    /// - Returns: false if the file system cannot
    public func reserve(_ range: Range<Int>) throws(FileError) -> Bool {
        guard !range.isEmpty else { return true }
        switch linux_reserve(descriptor.rawValue, UInt64(range.lowerBound), UInt64(range.count)) {
        case 0...: return true
        case -EOPNOTSUPP, -ENOSYS: return false
        case let code: throw FileError(path, errno: -code)
        }
    }

    /// Cuts off what is behind, and gives space back that was reserved there.
    public func truncate(to length: Int) throws(FileError) {
        guard ftruncate(descriptor.rawValue, length) == 0 else { throw FileError(path, errno: errno) }
    }

    /// What was written is on the medium when this returns.
    public func flush() throws(FileError) {
        let result = linux_data_sync(descriptor.rawValue)
        guard result == 0 else { throw FileError(path, errno: -result) }
    }
}
