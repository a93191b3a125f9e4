import CLinux
import Glibc
import Synchronization

/// Why a file that we depend on cannot be used; the description says what to do about it.
public struct FileError: Error, Hashable, Sendable, CustomStringConvertible {
    public let path: String
    public let reason: String
    public var description: String { "\(path): \(reason)" }

    public init(_ path: String, _ reason: String) {
        self.path = path
        self.reason = reason
    }
    init(_ path: String, errno code: Int32) { self.init(path, unsafe String(cString: strerror(code))) }
}

/// Files with power (settings, identity, state): small, owned by root or by ourselves, written by nobody else.
public enum Files {
    /// Reads a whole file of at most `limit` bytes; nil if there is none. A file that somebody else could have written is
    /// refused.
    /// - Parameter isPrivate: one that somebody else may read is refused, too
    public static func readTrusted(_ path: String, limit: Int, isPrivate: Bool = false) throws(FileError) -> [UInt8]? {
        let raw = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
        guard raw >= 0 else {
            if errno == ENOENT { return nil }
            throw FileError(path, errno: errno)
        }
        let descriptor = FileDescriptor(owning: raw)
        let status = try status(of: descriptor, path)
        guard status.st_mode & S_IFMT == S_IFREG else { throw FileError(path, "is not a regular file") }
        try checkTrusted(status, path, isPrivate: isPrivate)
        guard status.st_size <= limit else { throw FileError(path, "is larger than \(limit) bytes") }
        let limit = status.st_size
        var bytes = [UInt8](repeating: 0, count: limit)
        var count = 0
        while count < limit {
            let got = unsafe bytes.withUnsafeMutableBytes { unsafe Glibc.read(descriptor.rawValue, $0.baseAddress! + count, limit - count) }
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else { throw FileError(path, errno: errno) }
            if got == 0 { break }
            count += got
        }
        return Array(bytes.prefix(count))
    }

    /// Makes a directory for files with power, and those above it as far as they are missing: for us alone. One that is there is refused
    /// if somebody else could put other files into it.
    public static func makeTrustedDirectory(_ path: String) throws(FileError) {
        try makeDirectory(path, mode: 0o700)
        let raw = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard raw >= 0 else { throw FileError(path, errno: errno) }
        let descriptor = FileDescriptor(owning: raw)
        try checkTrusted(status(of: descriptor, path), path)
    }

    /// Bytes that anybody may still take of the file system that this is on, and that it has.
    public static func room(in path: String) throws(FileError) -> (free: Int, total: Int) {
        var status = statvfs()
        guard unsafe statvfs(path, &status) == 0 else { throw FileError(path, errno: errno) }
        return (Int(clamping: status.f_bavail) * Int(clamping: status.f_frsize), Int(clamping: status.f_blocks) * Int(clamping: status.f_frsize))
    }

    static func status(of descriptor: borrowing FileDescriptor, _ path: String) throws(FileError) -> stat {
        var status = stat()
        guard unsafe fstat(descriptor.rawValue, &status) == 0 else { throw FileError(path, errno: errno) }
        return status
    }

    static func checkTrusted(_ status: stat, _ path: String, isPrivate: Bool = false) throws(FileError) {
        if let reason = distrust(status, isPrivate: isPrivate) { throw FileError(path, reason) }
    }

    /// What is wrong with it; nil: it is to be trusted.
    static func distrust(_ status: stat, isPrivate: Bool) -> String? {
        if status.st_uid != 0 && status.st_uid != geteuid() { return "belongs to uid \(status.st_uid); it must belong to root or to the user that we run as" }
        if status.st_mode & 0o022 != 0 { return "can be written by others; take that away (chmod go-w)" }
        if isPrivate && status.st_mode & 0o077 != 0 { return "can be read by others; take that away (chmod 600)" }
        return nil
    }

    /// Replaces a file so that after a crash there is either the old one or the new one, whole and on the medium. What cannot be written
    /// leaves nothing behind.
    /// - Parameter previous: what the old one, if there is one, is called from then on
    public static func replace(_ path: String, with bytes: [UInt8], keeping previous: String? = nil, mode: mode_t = 0o600) throws(FileError) {
        let temporary = path + ".new"
        remove(temporary)
        do throws(FileError) {
            try write(bytes, to: temporary, mode: mode)
            if let previous {
                remove(previous)
                guard unsafe link(path, previous) == 0 || errno == ENOENT else { throw FileError(previous, errno: errno) }
            }
            guard unsafe rename(temporary, path) == 0 else { throw FileError(path, errno: errno) }
        } catch {
            remove(temporary)
            throw error
        }
        try flushDirectory(parent(of: path))
    }

    /// A new file, on the medium.
    private static func write(_ bytes: [UInt8], to temporary: String, mode: mode_t) throws(FileError) {
        let raw = unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode)
        guard raw >= 0 else { throw FileError(temporary, errno: errno) }
        let descriptor = FileDescriptor(owning: raw)
        var done = 0
        while done < bytes.count {
            let put = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor.rawValue, $0.baseAddress! + done, bytes.count - done) }
            if put < 0 && errno == EINTR { continue }
            guard put > 0 else { throw FileError(temporary, errno: errno) }
            done += put
        }
        guard fsync(descriptor.rawValue) == 0 else { throw FileError(temporary, errno: errno) }
    }

    private static func parent(of path: String) -> String {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        return parent.isEmpty ? "/" : parent
    }

    /// Has what was made, renamed and removed in a directory stay so.
    public static func flushDirectory(_ path: String) throws(FileError) {
        let raw = unsafe open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard raw >= 0 else { throw FileError(path, errno: errno) }
        let directory = FileDescriptor(owning: raw)
        guard fsync(directory.rawValue) == 0 else { throw FileError(path, errno: errno) }
    }

    /// What is in a directory, in no order, without `.` and `..`.
    public static func names(in path: String) throws(FileError) -> [String] {
        guard let directory = unsafe opendir(path) else { throw FileError(path, errno: errno) }
        defer { unsafe closedir(directory) }
        var names: [String] = []
        while true {
            errno = 0
            guard let entry = unsafe readdir(directory) else { break }
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
                unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        guard errno == 0 else { throw FileError(path, errno: errno) }
        return names
    }

    /// Makes a directory, and those above it as far as they are missing, all with the same mode.
    public static func makeDirectory(_ path: String, mode: mode_t) throws(FileError) {
        guard unsafe mkdir(path, mode) != 0, errno != EEXIST else { return }
        guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash != path.startIndex else { throw FileError(path, errno: errno) }
        try makeDirectory(String(path[..<slash]), mode: mode)
        guard unsafe mkdir(path, mode) == 0 || errno == EEXIST else { throw FileError(path, errno: errno) }
    }

    /// Makes a sparse regular file of `length` bytes unless there is a file of this name.
    /// - Returns: whether it was made.
    public static func makeSparse(_ path: String, length: Int) throws(FileError) -> Bool {
        let raw = unsafe open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard raw >= 0 else {
            if errno == EEXIST { return false }
            throw FileError(path, errno: errno)
        }
        let descriptor = FileDescriptor(owning: raw)
        guard ftruncate(descriptor.rawValue, length) == 0 else { throw FileError(path, errno: errno) }
        return true
    }

    /// Takes a lock file that only one process can hold; nil while another has it. Released with the descriptor.
    public static func lock(_ path: String) throws(FileError) -> FileDescriptor? {
        let raw = unsafe open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard raw >= 0 else { throw FileError(path, errno: errno) }
        let descriptor = FileDescriptor(owning: raw)
        switch linux_try_record_lock(descriptor.rawValue) {
        case 0...: return descriptor
        case -EAGAIN, -EACCES: return nil
        case let code: throw FileError(path, errno: -code)
        }
    }

    /// What the kernel says of a process, as far as it fits a page; nil: there is none.
    static func processText(_ path: String) -> String? {
        let raw = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { return nil }
        let descriptor = FileDescriptor(owning: raw)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe Glibc.read(descriptor.rawValue, $0.baseAddress, $0.count) }
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }

    /// Says who may connect to a socket of ours.
    /// - Parameter group: nil leaves it
    public static func admit(to path: String, mode: mode_t, group: UInt32?) throws(FileError) {
        if let group, unsafe lchown(path, .max, group) != 0 { throw FileError(path, errno: errno) }
        guard unsafe chmod(path, mode) == 0 else { throw FileError(path, errno: errno) }
    }

    public static func remove(_ path: String) { _ = unsafe unlink(path) }
}

/// The terminal or the journal behind descriptors 1 and 2, and syslog.
public enum Console {
    /// Where errors go: descriptor 2, or the terminal that has been left.
    private static let errors = Atomic<Int32>(STDERR_FILENO)

    /// What comes on descriptor 0 until its end, or as much as `limit` bytes of it.
    public static func input(limit: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while bytes.count < limit {
            let got = unsafe piece.withUnsafeMutableBytes { unsafe read(STDIN_FILENO, $0.baseAddress, $0.count) }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else { break }
            bytes += piece.prefix(got)
        }
        return Array(bytes.prefix(limit))
    }

    public static func output(_ text: String) { write(Array(text.utf8), to: STDOUT_FILENO) }
    public static func error(_ text: String) { error(Array(text.utf8)) }
    public static func error(_ text: [UInt8]) { write(text, to: errors.load(ordering: .relaxed)) }

    /// From now on descriptors 0, 1 and 2 lead nowhere, here and in processes started later, and the terminal's signals do not come
    /// here. Only our own errors still go to it, until `forgetTerminal`.
    public static func leaveTerminal() {
        _ = setsid()
        let nowhere = unsafe open("/dev/null", O_RDWR | O_CLOEXEC)
        let terminal = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
        guard nowhere >= 0, terminal >= 0 else { return }
        errors.store(terminal, ordering: .relaxed)
        for descriptor in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] { dup2(nowhere, descriptor) }
        close(nowhere)
    }

    public static func forgetTerminal() {
        let terminal = errors.exchange(STDERR_FILENO, ordering: .relaxed)
        if terminal != STDERR_FILENO { close(terminal) }
    }

    /// Connects to syslog(3) while that can be done: not any more in confinement.
    public static func openSystemLog() { unsafe linux_open_system_log(systemLogName.utf8Start) }
    private static let systemLogName: StaticString = "tgtd"

    /// One line to syslog(3). `priority` is syslog's: 2 critical … 7 debug.
    public static func systemLog(priority: Int32, _ text: String) { unsafe linux_system_log(priority, text) }

    private static func write(_ bytes: [UInt8], to descriptor: Int32) {
        var done = 0
        while done < bytes.count {
            let put = unsafe bytes.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress! + done, bytes.count - done) }
            guard put > 0 || errno == EINTR else { return }
            done += max(put, 0)
        }
    }
}

/// What the environment and the account database say.
public enum Host {
    public static func environment(_ name: String) -> String? {
        unsafe getenv(name).map { unsafe String(cString: $0) }
    }
    /// "NAME=value" each.
    public static var wholeEnvironment: [String] {
        var variables: [String] = []
        var entry = unsafe environ
        while let variable = unsafe entry.pointee {
            unsafe variables.append(String(cString: variable))
            unsafe entry = entry.advanced(by: 1)
        }
        return variables
    }
    /// Microseconds since 1970, as the clock on the wall says: it may jump.
    public static var wallClock: Int64 {
        var now = timespec()
        _ = unsafe clock_gettime(CLOCK_REALTIME, &now)
        return Int64(now.tv_sec) * 1_000_000 + Int64(now.tv_nsec) / 1000
    }
    public static var isRoot: Bool { geteuid() == 0 }
    public static var processors: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
    public static var processID: Int32 { getpid() }
    /// Lets this process and those that it starts open as many descriptors as the system permits: the soft limit is a
    /// courtesy to programs that use select(2).
    /// - Returns: how many those are
    public static func raiseDescriptorLimit() throws(SystemError) -> Int {
        Int(try check("setrlimit(RLIMIT_NOFILE)", linux_raise_descriptor_limit()))
    }
    public static var currentDirectory: String? {
        guard let path = unsafe getcwd(nil, 0) else { return nil }
        defer { unsafe free(path) }
        return unsafe String(cString: path)
    }
}

/// systemd's readiness protocol (sd_notify): a datagram to the socket that `NOTIFY_SOCKET` names.
public enum ServiceManager {
    /// Says nothing when nobody listens: readiness is news, not work.
    public static func notify(_ state: String) {
        guard let path = Host.environment("NOTIFY_SOCKET"), !path.isEmpty else { return }
        try? Socket.sendDatagram(state, path: path)
    }
}
