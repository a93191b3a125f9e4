import Bytes
import CLinux
import Glibc

/// What came of an attempt to send.
public enum SendResult: Sendable {
    /// All of it is with the kernel.
    case done
    /// The rest waits until the descriptor is writable.
    case wouldBlock
    /// The connection is over.
    case closed(SystemError)
}

/// What came of an attempt to receive.
public enum ReceiveResult: Sendable {
    /// So many bytes, at least one.
    case received(Int)
    /// Nothing before the descriptor is readable.
    case wouldBlock
    /// The connection is over: by its peer's wish (nil) or by an error.
    case closed(SystemError?)
}

/// What came of an attempt to accept.
public enum AcceptResult: ~Copyable, Sendable {
    /// A non-blocking connection; no address for AF_UNIX.
    case connection(FileDescriptor, SocketAddress?)
    /// Nobody waits.
    case none
    /// Somebody waits, but the process or the system has no descriptors or memory. The listener stays readable: stop watching
    /// it for `Socket.exhaustedPause`, or the loop spins.
    case exhausted(SystemError)
}

/// What came of an attempt to receive a message.
public enum MessageResult: ~Copyable, Sendable {
    case message([UInt8], ReceivedDescriptors)
    case wouldBlock
    /// The other end has closed (nil), or it or the kernel broke the rules: EMSGSIZE is a message over the limit.
    case closed(SystemError?)
}

/// A process at the other end of an AF_UNIX socket, as it was when the connection was made.
public struct PeerCredentials: Hashable, Sendable {
    public let pid: Int32
    public let uid: UInt32
    public let gid: UInt32
}

/// Non-blocking sockets.
public enum Socket {
    /// How long a listener is left alone when descriptors or memory ran out, in nanoseconds: long enough not to burn a CPU,
    /// short enough that nobody gives up on connecting.
    public static let exhaustedPause: UInt64 = 100_000_000
    /// Pieces sent with one call. The kernel takes 1024 (IOV_MAX); more than this saves nothing.
    static let mostPieces = 64
    /// Waiting connections of a listener; the kernel lowers it to net.core.somaxconn.
    public static let defaultBacklog: Int32 = 1024
    /// Bytes of a message between processes, unless the receiver says otherwise: well below what a socket buffer holds.
    public static let defaultMessageLimit = 64 << 10
    /// Descriptors that fit into one message.
    public static let mostDescriptors = Int(LINUX_MOST_DESCRIPTORS)

    // MARK: Listening and connecting

    // Within a host there is no link to overrun. A congestion control that paces what is sent (BBR) has it wait for timers there.

    /// A TCP listener with SO_REUSEADDR; an IPv6 one takes no IPv4 connections.
    /// - Parameter prepare: sets options before the first connection comes. What is set of a listener, its connections have as well: Linux
    ///   makes them in its likeness.
    public static func listen(
        on address: SocketAddress, backlog: Int32 = defaultBacklog, prepare: (_ listener: Int32) throws(SystemError) -> Void = { _ in }
    ) throws(SystemError) -> FileDescriptor {
        var form = address.kernelForm
        let listener = FileDescriptor(owning: try unsafe check("listen on \(address)", linux_bind_tcp(&form, address.isLoopback)))
        try prepare(listener.rawValue)
        _ = try check("listen on \(address)", linux_listen(listener.rawValue, backlog))
        return listener
    }

    /// An AF_UNIX stream listener; the path must not exist, and its mode is the umask's. A leading 0 byte makes it an abstract
    /// name.
    public static func listen(path: String, backlog: Int32 = 128) throws(SystemError) -> FileDescriptor {
        let result = unsafe path.withCStringAndLength { unsafe linux_listen_unix($0, $1, backlog) }
        return FileDescriptor(owning: try check("listen on \(path)", result))
    }

    /// A TCP connection under way: when it is writable, `takeError` tells whether it stands.
    public static func connect(to address: SocketAddress) throws(SystemError) -> FileDescriptor {
        var form = address.kernelForm
        return FileDescriptor(owning: try unsafe check("connect to \(address)", linux_connect_tcp(&form, address.isLoopback)))
    }

    /// An AF_UNIX stream connection, blocking.
    public static func connect(path: String) throws(SystemError) -> FileDescriptor {
        let result = unsafe path.withCStringAndLength { unsafe linux_connect_unix($0, $1) }
        return FileDescriptor(owning: try check("connect to \(path)", result))
    }

    /// Sends one datagram to an AF_UNIX socket: sd_notify. A leading "@" of `path` stands for an abstract name.
    public static func sendDatagram(_ text: String, path: String) throws(SystemError) {
        let name = path.hasPrefix("@") ? "\0" + path.dropFirst() : path
        let result = unsafe name.withCStringAndLength { name, length in
            unsafe text.withCStringAndLength { unsafe linux_send_datagram(name, length, $0, $1) }
        }
        _ = try check("send to \(path)", result)
    }

    /// Takes one waiting connection. Connections that were reset while they waited are passed over.
    public static func accept(_ listener: Int32) throws(SystemError) -> AcceptResult {
        while true {
            var peer = linux_address()
            let result = unsafe linux_accept(listener, &peer)
            guard result < 0 else { return .connection(FileDescriptor(owning: result), SocketAddress(peer)) }
            switch -result {
            case EAGAIN: return .none
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted(SystemError("accept", -result))
            // What befell the connection, not the listener (accept(2), "Error handling").
            case ECONNABORTED, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM: continue
            default: throw SystemError("accept", -result)
            }
        }
    }

    /// Takes the error of a connection that was under way; nil: it stands.
    public static func takeError(_ fd: Int32) -> SystemError? {
        let result = linux_socket_error(fd)
        return result == 0 ? nil : SystemError("connect", -result)
    }

    // MARK: Options and addresses

    /// Small answers are not held back for larger ones (TCP_NODELAY).
    public static func setNoDelay(_ fd: Int32) throws(SystemError) { _ = try check("setsockopt", linux_set_nodelay(fd)) }

    /// A peer that is gone without a word is noticed within two minutes (`KeepAlive`). A listener's connections have it from it.
    public static func setKeepAlive(_ fd: Int32) throws(SystemError) {
        _ = try check("setsockopt", linux_set_keepalive(fd, KeepAlive.silence.upperBound, KeepAlive.interval, KeepAlive.count))
    }

    /// Has a connection with `setKeepAlive` probed at another time than those with other numbers.
    public static func spreadKeepAlive(_ fd: Int32, _ number: UInt16) throws(SystemError) {
        _ = try check("setsockopt", linux_set_keepalive_idle(fd, KeepAlive.silence(of: number)))
    }

    /// Bytes of the kernel's send and receive buffers (SO_SNDBUF, SO_RCVBUF); without it they grow as needed.
    public static func setBuffers(_ fd: Int32, send: Int32, receive: Int32) throws(SystemError) {
        _ = try check("setsockopt", linux_set_buffers(fd, send, receive))
    }

    public static func setNonBlocking(_ fd: Int32, _ isNonBlocking: Bool) throws(SystemError) {
        _ = try check("fcntl", linux_set_nonblocking(fd, isNonBlocking))
    }

    /// The address this end has; nil for a socket without an IP address.
    public static func localAddress(_ fd: Int32) throws(SystemError) -> SocketAddress? {
        var address = linux_address()
        _ = try unsafe check("getsockname", linux_local_address(fd, &address))
        return SocketAddress(address)
    }

    /// The address of the other end; nil for a socket without an IP address. Of an accepted connection that was reset since: where its first packet
    /// came from; the kernel says that once.
    public static func peerAddress(_ fd: Int32) throws(SystemError) -> SocketAddress? {
        var address = linux_address()
        _ = try unsafe check("getpeername", linux_peer_address(fd, &address))
        return SocketAddress(address)
    }

    /// Who is at the other end of an AF_UNIX connection (SO_PEERCRED).
    public static func peerCredentials(_ fd: Int32) throws(SystemError) -> PeerCredentials {
        var (pid, uid, gid): (Int32, UInt32, UInt32) = (0, 0, 0)
        _ = try unsafe check("getsockopt", linux_peer_credentials(fd, &pid, &uid, &gid))
        return PeerCredentials(pid: pid, uid: uid, gid: gid)
    }

    /// Tells the peer that nothing more comes; receiving goes on.
    public static func finishSending(_ fd: Int32) { _ = linux_finish_sending(fd) }

    /// Blocks until `fd` is ready for `interest`, has failed or was closed: false when `nanoseconds` pass first. For helper
    /// processes and tools that have no event loop.
    public static func wait(_ fd: Int32, _ interest: Readiness, nanoseconds: UInt64) -> Bool {
        let deadline = linux_monotonic_nanoseconds().addingReportingOverflow(nanoseconds)
        while true {
            let now = linux_monotonic_nanoseconds()
            let left = deadline.overflow ? UInt64.max : deadline.partialValue > now ? deadline.partialValue - now : 0
            var entry = pollfd(fd: fd, events: Int16(truncatingIfNeeded: interest.rawValue), revents: 0)
            let milliseconds = Int32(clamping: left / 1_000_000 + (left % 1_000_000 == 0 ? 0 : 1))
            if unsafe poll(&entry, 1, milliseconds) > 0 { return true }
            if left == 0 { return false }
        }
    }

    // MARK: Bytes

    /// Sends from the front of `queue` what the kernel takes, and takes it out of the queue.
    public static func send(_ fd: Int32, _ queue: inout OutputQueue) -> SendResult {
        while !queue.isEmpty {
            let (sent, offered) = unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: mostPieces) { pieces in
                var count = 0
                var offered = 0
                for segment in queue.segments {
                    guard count < mostPieces else { break }
                    unsafe pieces[count] = iovec(iov_base: segment.buffer.address(of: segment.range), iov_len: segment.range.count)
                    count += 1
                    offered += segment.range.count
                }
                return unsafe (linux_send_gathered(fd, UnsafePointer(pieces.baseAddress!), Int32(count)), offered)
            }
            guard sent >= 0 else { return sendFailure(sent) }
            queue.consume(sent)
            if sent < offered { return .wouldBlock }
        }
        return .done
    }

    /// Sends the bytes of `array` from `start` on, and moves `start` behind what the kernel took.
    public static func send(_ fd: Int32, _ array: [UInt8], from start: inout Int) -> SendResult {
        while start < array.count {
            let sent = unsafe array.withUnsafeBytes { bytes in
                var piece = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress! + start), iov_len: bytes.count - start)
                return unsafe linux_send_gathered(fd, &piece, 1)
            }
            guard sent >= 0 else { return sendFailure(sent) }
            start += sent
        }
        return .done
    }

    private static func sendFailure(_ result: Int) -> SendResult {
        let code = Int32(-result)
        return code == EAGAIN ? .wouldBlock : .closed(SystemError("send", code))
    }

    /// Receives into the bytes of `buffer` in `range`, which is not empty.
    public static func receive(_ fd: Int32, into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult {
        precondition(!range.isEmpty)
        return unsafe receiveResult(linux_receive(fd, buffer.address(of: range), range.count))
    }

    /// Receives into `array` at `range`, which is not empty.
    public static func receive(_ fd: Int32, into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult {
        precondition(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= array.count)
        return unsafe array.withUnsafeMutableBytes { bytes in
            unsafe receiveResult(linux_receive(fd, bytes.baseAddress! + range.lowerBound, range.count))
        }
    }

    /// Receives into the bytes of `buffer` in `range`, and when those are full into the beginning of `array` at `behind`. Neither is empty.
    public static func receive(_ fd: Int32, into buffer: Buffer, _ range: Range<Int>, then array: inout [UInt8], _ behind: Range<Int>) -> ReceiveResult {
        precondition(!range.isEmpty && !behind.isEmpty && behind.lowerBound >= 0 && behind.upperBound <= array.count)
        return unsafe array.withUnsafeMutableBytes { bytes in
            unsafe receiveResult(linux_receive_both(fd, buffer.address(of: range), range.count, bytes.baseAddress! + behind.lowerBound, behind.count))
        }
    }

    /// What `receive` would give; it stays to be received.
    public static func peek(_ fd: Int32, into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult {
        precondition(!range.isEmpty && range.lowerBound >= 0 && range.upperBound <= array.count)
        return unsafe array.withUnsafeMutableBytes { bytes in
            unsafe receiveResult(linux_peek(fd, bytes.baseAddress! + range.lowerBound, range.count))
        }
    }

    private static func receiveResult(_ result: Int) -> ReceiveResult {
        if result > 0 { return .received(result) }
        if result == 0 { return .closed(nil) }
        return -result == Int(EAGAIN) ? .wouldBlock : .closed(SystemError("recv", Int32(-result)))
    }

    // MARK: Messages

    /// Two ends that exchange messages with descriptors (AF_UNIX, SOCK_SEQPACKET), non-blocking.
    public static func messagePair() throws(SystemError) -> MessagePair {
        var (first, second): (Int32, Int32) = (-1, -1)
        _ = try unsafe check("socketpair", linux_seqpacket_pair(&first, &second))
        return MessagePair(first: FileDescriptor(owning: first), second: FileDescriptor(owning: second))
    }

    /// Sends one message, at least one byte, as a whole or not at all. The descriptors stay open here. A message larger than
    /// the socket's buffer is `.closed(EMSGSIZE)`, though the connection still stands.
    public static func sendMessage(_ fd: Int32, _ bytes: [UInt8], descriptors: [Int32] = []) -> SendResult {
        precondition(!bytes.isEmpty && descriptors.count <= mostDescriptors, "an empty message reads as the end")
        let result = unsafe linux_send_message(fd, bytes, bytes.count, descriptors, Int32(descriptors.count))
        return result >= 0 ? .done : sendFailure(result)
    }

    /// Receives one message of at most `limit` bytes and `descriptors` descriptors. One that exceeds either has been thrown
    /// away, with its descriptors closed. One whose descriptors this process could not open any more comes without them.
    public static func receiveMessage(
        _ fd: Int32, limit: Int = defaultMessageLimit, descriptors most: Int = mostDescriptors
    ) -> MessageResult {
        var bytes = [UInt8](repeating: 0, count: limit)
        var descriptors = ReceivedDescriptors()
        switch receiveMessage(fd, into: &bytes, &descriptors, atMost: most) {
        case .received(let count): return .message(Array(bytes[..<count]), descriptors)
        case .wouldBlock: return .wouldBlock
        case .closed(let error): return .closed(error)
        }
    }

    /// The same into `bytes`, whose length is the limit.
    /// - Parameter descriptors: gets those that have come
    public static func receiveMessage(
        _ fd: Int32, into bytes: inout [UInt8], _ descriptors: inout ReceivedDescriptors, atMost most: Int = mostDescriptors
    ) -> ReceiveResult {
        precondition(!bytes.isEmpty && (0...mostDescriptors).contains(most))
        var count = Int32(most)
        var lost: Int32 = 0
        let result = unsafe withUnsafeTemporaryAllocation(of: Int32.self, capacity: mostDescriptors) { numbers in
            let result = unsafe bytes.withUnsafeMutableBytes { bytes in
                unsafe linux_receive_message(fd, bytes.baseAddress!, bytes.count, numbers.baseAddress!, &count, &lost)
            }
            descriptors = unsafe ReceivedDescriptors(result < 0 ? [] : Array(numbers.prefix(Int(count))), someWereLost: lost != 0)
            return result
        }
        if result > 0 { return .received(result) }
        descriptors = ReceivedDescriptors()
        if result == 0 { return .closed(nil) }
        return -result == Int(EAGAIN) ? .wouldBlock : .closed(SystemError("recvmsg", Int32(-result)))
    }
}

/// The two ends of a message socket.
public struct MessagePair: ~Copyable, Sendable {
    public let first: FileDescriptor
    public let second: FileDescriptor

    /// Gives the two ends to two owners.
    /// - Parameter other: gets the second end
    /// - Returns: the first one
    public consuming func split(_ other: inout FileDescriptor?) -> FileDescriptor {
        let rest = second
        other = consume rest
        return first
    }
}

extension String {
    /// The text for C, with its length in bytes (which may hold zeros).
    @unsafe fileprivate func withCStringAndLength<R>(_ body: (UnsafePointer<CChar>, Int) -> R) -> R {
        var text = Array(utf8)
        text.append(0)
        return unsafe text.withUnsafeBytes { unsafe body($0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count - 1) }
    }
}
