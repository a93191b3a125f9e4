import CLinux
import Glibc

/// The process at the other end of an AF_UNIX connection, as it was when it connected; held so that its number cannot come to mean another one.
public struct ConnectedPeer: Sendable {
    public let credentials: PeerCredentials
    /// Its groups, the main one among them; of more than `mostGroups` the first.
    public let groups: Set<UInt32>
    /// The program it runs, as far as we may know.
    public let executable: String?
    private let process: Process

    /// Groups of a peer that are looked at. The kernel allows 65536, which nobody has.
    public static let mostGroups = 4096

    private enum Process: Sendable {
        /// Becomes readable when it has ended.
        case descriptor(Handle)
        /// Of kernels before 6.5: its start in ticks since the host's (proc(5)), which no other process of its number shares.
        case start(String)
    }
    private final class Handle: Sendable {
        let descriptor: FileDescriptor
        init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
    }

    /// - Parameter usesDescriptor: false asks as kernels before 6.5 have to be asked
    /// - Throws: ESRCH for a peer that has ended, or that this host does not see
    public init(of connection: Int32, usesDescriptor: Bool = true) throws(SystemError) {
        credentials = try Socket.peerCredentials(connection)
        guard credentials.pid > 0 else { throw SystemError("SO_PEERCRED", ESRCH) }
        var numbers = [UInt32](repeating: 0, count: 64)
        var count = unsafe linux_peer_groups(connection, &numbers, Int32(numbers.count))
        if count == -ERANGE {
            numbers = [UInt32](repeating: 0, count: 65536)
            count = unsafe linux_peer_groups(connection, &numbers, Int32(numbers.count))
        }
        groups = Set(numbers.prefix(Int(try check("SO_PEERGROUPS", count))).prefix(Self.mostGroups)).union([credentials.gid])

        let pidfd = usesDescriptor ? linux_peer_pidfd(connection) : -ENOPROTOOPT
        if pidfd == -ENOPROTOOPT {
            guard let start = Self.start(of: credentials.pid) else { throw SystemError("/proc", ESRCH) }
            process = .start(start)
        } else {
            process = .descriptor(Handle(FileDescriptor(owning: try check("SO_PEERPIDFD", pidfd))))
        }
        executable = Self.link("/proc/\(credentials.pid)/exe")
        // What has been read of /proc was the peer's if it lives still.
        guard isAlive else { throw SystemError("the peer has ended", ESRCH) }
    }

    /// Whether the process is still there.
    public var isAlive: Bool {
        switch process {
        case .descriptor(let handle): !Socket.wait(handle.descriptor.rawValue, .readable, nanoseconds: 0)
        case .start(let start): Self.start(of: credentials.pid) == start
        }
    }

    private static func start(of pid: Int32) -> String? {
        guard let text = Files.processText("/proc/\(pid)/stat") else { return nil }
        // Its name stands in parentheses, and may have any.
        guard let close = text.lastIndex(of: ")") else { return nil }
        let fields = text[text.index(after: close)...].split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", fields[0] != "X" else { return nil }
        return String(fields[19])
    }

    private static func link(_ path: String) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe bytes.withUnsafeMutableBytes { unsafe readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count) }
        return count > 0 ? String(decoding: bytes.prefix(count), as: UTF8.self) : nil
    }
}
