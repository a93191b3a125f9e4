import Glibc

/// A TCP connection to a portal that sends exactly what it is told to.
final class Wire {
    private let descriptor: Int32
    private var received: [UInt8] = []
    /// The other side has closed or reset the connection.
    private(set) var closed = false

    /// - Parameter source: the last number of the address 127.0.0.N that it comes from
    init(port: Int, source: UInt8 = 1) throws {
        descriptor = Self.socket()
        let bound = unsafe Self.withAddress(port: 0, host: source) { unsafe bind(descriptor, $0, $1) }
        guard bound == 0 else { throw Failure("cannot connect from 127.0.0.\(source): \(reason(errno))") }
        let connected = unsafe Self.withAddress(port: port) { unsafe connect(descriptor, $0, $1) }
        guard connected == 0 else { throw Failure("cannot connect to port \(port): \(reason(errno))") }
        var yes: Int32 = 1
        unsafe setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
    }
    deinit { close(descriptor) }

    static func isFree(port: Int) -> Bool {
        let probe = socket()
        defer { close(probe) }
        var yes: Int32 = 1
        unsafe setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        return unsafe withAddress(port: port) { unsafe bind(probe, $0, $1) } == 0
    }

    private static func socket() -> Int32 { Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0) }
    private static func withAddress(port: Int, host: UInt8 = 1, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = (0x7f00_0000 | UInt32(host)).bigEndian
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// Sends all of it unless the other side closes or takes nothing more for `seconds`; returns how much went.
    @discardableResult
    func send(_ bytes: [UInt8], seconds: Double = 10) -> Int {
        var sent = 0
        let end = ContinuousClock.now + .seconds(seconds)
        while sent < bytes.count, !closed, ContinuousClock.now < end {
            let count = unsafe bytes.withUnsafeBytes { raw in
                unsafe Glibc.send(descriptor, raw.baseAddress! + sent, raw.count - sent, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
            }
            if count >= 0 {
                sent += count
            } else if errno == EAGAIN {
                wait(for: POLLOUT, seconds: 0.1)
            } else if errno != EINTR {
                closed = true
            }
        }
        return sent
    }

    /// Sends whatever fits at once.
    func sendNow(_ bytes: [UInt8]) -> Int { send(bytes, seconds: 0.02) }

    /// The next `count` bytes, or nil when they do not come in time.
    func receive(_ count: Int, seconds: Double = 10) -> [UInt8]? {
        let end = ContinuousClock.now + .seconds(seconds)
        while received.count < count, !closed, ContinuousClock.now < end { take(seconds: 0.1) }
        guard received.count >= count else { return nil }
        defer { received.removeFirst(count) }
        return Array(received.prefix(count))
    }

    /// Whether the other side closes within that time; what it still says is thrown away.
    func closes(within seconds: Double) -> Bool {
        let end = ContinuousClock.now + .seconds(seconds)
        while !closed, ContinuousClock.now < end {
            take(seconds: 0.1)
            received.removeAll()
        }
        return closed
    }

    /// Whether it is closed by now; waits for nothing, and keeps what it still said.
    func isClosedNow() -> Bool {
        while !closed, take(seconds: 0) {}
        return closed
    }

    /// Ends it with a reset instead of an orderly end.
    func reset() {
        var now = linger(l_onoff: 1, l_linger: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &now, socklen_t(MemoryLayout<linger>.size))
        // The number stays taken until the end: a new socket in its place closes the old one.
        let other = Self.socket()
        dup2(other, descriptor)
        close(other)
    }

    func shutdown() { _ = Glibc.shutdown(descriptor, Int32(SHUT_RDWR)) }

    /// Reads what there is; false when nothing came in time.
    @discardableResult
    private func take(seconds: Double) -> Bool {
        guard wait(for: POLLIN, seconds: seconds) else { return false }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = unsafe bytes.withUnsafeMutableBytes { raw in unsafe recv(descriptor, raw.baseAddress!, raw.count, Int32(MSG_DONTWAIT)) }
        if count > 0 {
            received += bytes.prefix(count)
        } else if count == 0 || (errno != EAGAIN && errno != EINTR) {
            closed = true
        }
        return true
    }

    @discardableResult
    private func wait(for event: Int32, seconds: Double) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        return unsafe poll(&entry, 1, Int32(seconds * 1000)) == 1
    }
}
