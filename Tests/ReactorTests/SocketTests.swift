import Bytes
import CLinux
import Glibc
import Testing

@testable import Reactor

/// Two ends of a TCP connection over the loopback.
struct TCPPair: ~Copyable {
    let client: FileDescriptor
    let server: FileDescriptor
    let clientAddress: SocketAddress?

    init(_ host: String = "127.0.0.1:0") throws {
        guard let address = SocketAddress(host) else { throw Unexpected(what: host) }
        let listener = try Socket.listen(on: address)
        guard let bound = try Socket.localAddress(listener.rawValue) else { throw Unexpected(what: "no address") }
        let connecting = try Socket.connect(to: bound)
        _ = Socket.wait(listener.rawValue, .readable, nanoseconds: 5_000_000_000)
        let accepted: FileDescriptor
        let peer: SocketAddress?
        switch try Socket.accept(listener.rawValue) {
        case .connection(let connection, let address):
            accepted = connection
            peer = address
        default: throw Unexpected(what: "nobody came")
        }
        _ = Socket.wait(connecting.rawValue, .writable, nanoseconds: 5_000_000_000)
        if let error = Socket.takeError(connecting.rawValue) { throw error }
        client = connecting
        server = accepted
        clientAddress = peer
    }
}

@Suite struct SocketTests {
    @Test("a connection knows both addresses, IPv4 and IPv6", arguments: ["127.0.0.1:0", "[::1]:0"])
    func addresses(host: String) throws {
        let pair = try TCPPair(host)
        #expect(pair.clientAddress == (try Socket.localAddress(pair.client.rawValue)))
        #expect(try Socket.peerAddress(pair.client.rawValue) == (try Socket.localAddress(pair.server.rawValue)))
        try Socket.setNoDelay(pair.server.rawValue)
        try Socket.setKeepAlive(pair.server.rawValue)
    }

    @Test("what stays within the host is not paced, whatever the host does with what leaves it", arguments: ["127.0.0.1:0", "[::1]:0", "127.8.7.6:0"])
    func unpaced(host: String) throws {
        let pair = try TCPPair(host)
        #expect(try congestionControl(pair.client.rawValue) == "reno" && congestionControl(pair.server.rawValue) == "reno")
    }

    @Test("what leaves the host goes as the host says")
    func hostsOwn() throws {
        let plain = FileDescriptor(owning: socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0))
        let listener = try Socket.listen(on: try #require(SocketAddress("0.0.0.0:0")))
        #expect(try congestionControl(listener.rawValue) == congestionControl(plain.rawValue))
    }

    private func congestionControl(_ fd: Int32) throws -> String {
        var name = [CChar](repeating: 0, count: 16)
        var length = socklen_t(name.count)
        let result = unsafe getsockopt(fd, Int32(IPPROTO_TCP), TCP_CONGESTION, &name, &length)
        guard result == 0 else { throw Unexpected(what: "no congestion control: \(errno)") }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    @Test("what is set of a listener before it listens, its connections have as well", arguments: ["127.0.0.1:0", "[::1]:0"])
    func inherited(host: String) throws {
        let listener = try Socket.listen(on: try #require(SocketAddress(host))) { listener throws(SystemError) in
            try Socket.setNoDelay(listener)
            try Socket.setKeepAlive(listener)
        }
        let client = try Socket.connect(to: try #require(try Socket.localAddress(listener.rawValue)))
        #expect(Socket.wait(listener.rawValue, .readable, nanoseconds: 5_000_000_000))
        guard case .connection(let connection, _) = try Socket.accept(listener.rawValue) else { throw Unexpected(what: "nobody came") }
        func option(_ level: Int32, _ name: Int32) -> Int32 {
            var (value, length): (Int32, socklen_t) = (-1, 4)
            return unsafe getsockopt(connection.rawValue, level, name, &value, &length) == 0 ? value : -1
        }
        let tcp = Int32(IPPROTO_TCP)
        #expect([option(tcp, TCP_NODELAY), option(SOL_SOCKET, SO_KEEPALIVE)] == [1, 1])
        #expect([option(tcp, TCP_KEEPIDLE), option(tcp, TCP_KEEPINTVL), option(tcp, TCP_KEEPCNT)] == [60, 10, 6])
        try Socket.spreadKeepAlive(connection.rawValue, 7)
        #expect([option(tcp, TCP_KEEPIDLE), option(tcp, TCP_KEEPINTVL), option(tcp, TCP_KEEPCNT)] == [22, 10, 6])
        _ = client.rawValue
    }

    @Test("of many connections no more than one in 46 is probed after the same silence, and the dead are noticed within two minutes")
    func keepAlive() {
        let silences = (0...UInt16.max).map(KeepAlive.silence)
        #expect(Set(silences) == Set(15...60))
        // Those that come one after the other differ.
        for number in 0..<1000 where Set(silences[number..<(number + 46)]).count != 46 { Issue.record("\(number)") }
        #expect(silences.allSatisfy { $0 + KeepAlive.interval * KeepAlive.count <= 120 })
    }

    @Test("of a peer that has reset its connection the kernel says once more where it was", arguments: ["127.0.0.1:0", "[::1]:0"])
    func gone(host: String) throws {
        let listener = try Socket.listen(on: try #require(SocketAddress(host)))
        var client: FileDescriptor? = try Socket.connect(to: try #require(try Socket.localAddress(listener.rawValue)))
        let address = try Socket.localAddress(client.rawValue ?? -1)
        #expect(Socket.wait(listener.rawValue, .readable, nanoseconds: 5_000_000_000))
        guard case .connection(let connection, let peer) = try Socket.accept(listener.rawValue) else { throw Unexpected(what: "nobody came") }
        var reset = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(client.rawValue ?? -1, SOL_SOCKET, SO_LINGER, &reset, socklen_t(MemoryLayout.size(ofValue: reset)))
        client = nil
        #expect(Socket.wait(connection.rawValue, .readable, nanoseconds: 5_000_000_000))
        #expect(try address == peer && Socket.peerAddress(connection.rawValue) == peer)
        #expect(throws: SystemError.self) { try Socket.peerAddress(connection.rawValue) }
    }

    @Test("an address in use is refused with its name")
    func inUse() throws {
        let listener = try Socket.listen(on: try #require(SocketAddress("127.0.0.1:0")))
        let address = try #require(try Socket.localAddress(listener.rawValue))
        do {
            _ = try Socket.listen(on: address)
            Issue.record("listens twice")
        } catch {
            #expect(error.description == "listen on \(address): Address already in use")
        }
    }

    @Test("an IPv6 wildcard leaves the port free for IPv4")
    func v6only() throws {
        let listener = try Socket.listen(on: try #require(SocketAddress("[::]:0")))
        let port = try #require(try Socket.localAddress(listener.rawValue)).port
        _ = try Socket.listen(on: try #require(SocketAddress("0.0.0.0:\(port)")))
    }

    @Test("a gathered send takes all pieces in order, across many calls and a full socket")
    func gathered() throws {
        let pair = try TCPPair()
        try Socket.setBuffers(pair.client.rawValue, send: 16384, receive: 16384)
        let pool = BufferPool(budget: 64 << 20)
        var queue = OutputQueue(pool: pool)
        var expected: [UInt8] = []
        for index in 0..<100 {
            let small = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: 48)
            queue.append(copying: small.span)
            expected += small
            let buffer = try #require(pool.allocate(8192))
            let large = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ index) }
            buffer.copy(large.span, to: 0)
            queue.append(buffer, 1..<8192)
            expected += large[1...]
        }
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 100_000)
        var blocked = 0
        while received.count < expected.count {
            switch Socket.send(pair.client.rawValue, &queue) {
            case .done: break
            case .wouldBlock: blocked += 1
            case .closed(let error): throw error
            }
            _ = Socket.wait(pair.server.rawValue, .readable, nanoseconds: 1_000_000_000)
            while case .received(let count) = Socket.receive(pair.server.rawValue, into: &chunk, 0..<chunk.count) { received += chunk[..<count] }
        }
        #expect(received == expected && queue.isEmpty && blocked > 0)
        #expect(pool.inUse == 0)
    }

    @Test("receiving into a buffer, waiting, and the end")
    func receive() throws {
        let pair = try TCPPair()
        let buffer = try #require(BufferPool(budget: 4096).allocate(4096))
        if case .wouldBlock = Socket.receive(pair.server.rawValue, into: buffer, 0..<10) {} else { Issue.record("did not wait") }
        var start = 1
        guard case .done = Socket.send(pair.client.rawValue, [9, 1, 2, 3], from: &start) else { throw Unexpected(what: "not sent") }
        #expect(start == 4)
        _ = Socket.wait(pair.server.rawValue, .readable, nanoseconds: 1_000_000_000)
        if case .received(3) = Socket.receive(pair.server.rawValue, into: buffer, -2..<100) {} else { Issue.record("not received") }
        #expect(buffer.array(-2..<1) == [1, 2, 3])
        Socket.finishSending(pair.client.rawValue)
        _ = Socket.wait(pair.server.rawValue, .readable, nanoseconds: 1_000_000_000)
        if case .closed(nil) = Socket.receive(pair.server.rawValue, into: buffer, 0..<10) {} else { Issue.record("no end") }
    }

    @Test("sending to a peer that has gone says so, without a signal")
    func closed() throws {
        let pair = try MessageEnds()
        pair.second.close()
        if case .closed(let error) = Socket.sendMessage(pair.first.rawValue, [1]) { #expect(error.code == EPIPE) } else { Issue.record("sent") }
        if case .closed(nil) = Socket.receiveMessage(pair.first.rawValue) {} else { Issue.record("no end") }
    }

    @Test("messages keep their bounds and carry descriptors")
    func messages() throws {
        let pair = try MessageEnds()
        let (read, write) = try pipe()
        guard case .done = Socket.sendMessage(pair.first.rawValue, [1, 2, 3], descriptors: [write.rawValue]),
            case .done = Socket.sendMessage(pair.first.rawValue, [4])
        else { throw Unexpected(what: "not sent") }
        write.close()
        guard case .message(let bytes, var descriptors) = Socket.receiveMessage(pair.second.rawValue) else { throw Unexpected(what: "nothing") }
        #expect(bytes == [1, 2, 3] && descriptors.count == 1)
        guard let passed = descriptors.take()?.release() else { throw Unexpected(what: "no descriptor") }
        #expect(fcntl(passed, F_GETFD) & FD_CLOEXEC != 0)
        #expect(unsafe Glibc.write(passed, "x", 1) == 1)
        close(passed)
        var byte: UInt8 = 0
        #expect(unsafe Glibc.read(read.rawValue, &byte, 1) == 1 && byte == UInt8(ascii: "x"))
        #expect(unsafe Glibc.read(read.rawValue, &byte, 1) == 0, "no copy of the writing end is left")
        guard case .message([4], let none) = Socket.receiveMessage(pair.second.rawValue) else { throw Unexpected(what: "nothing") }
        #expect(none.count == 0)
        if case .wouldBlock = Socket.receiveMessage(pair.second.rawValue) {} else { Issue.record("something") }
    }

    @Test("a message with too many bytes or descriptors is thrown away and leaks nothing", arguments: [(3, 2), (4, 2), (5, 2), (4, 1), (4, 0)])
    func limits(bytes: Int, descriptors: Int) throws {
        let pair = try MessageEnds()
        let (read, write) = try pipe()
        guard case .done = Socket.sendMessage(
            pair.first.rawValue, [UInt8](repeating: 7, count: bytes), descriptors: [write.rawValue, write.rawValue]) else { throw Unexpected(what: "not sent") }
        write.close()
        switch Socket.receiveMessage(pair.second.rawValue, limit: 4, descriptors: descriptors) {
        case .message(let got, let came): #expect(got.count == bytes && bytes <= 4 && descriptors == 2 && came.count == 2)
        case .closed(let error): #expect(error?.code == EMSGSIZE && (bytes > 4 || descriptors < 2))
        case .wouldBlock: Issue.record("nothing")
        }
        var byte: UInt8 = 0
        #expect(unsafe Glibc.read(read.rawValue, &byte, 1) == 0)
    }

    @Test("the peer of an AF_UNIX connection is known, and a listener accepts it without an address")
    func credentials() throws {
        let path = "/tmp/portcullis-reactor-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        let listener = try Socket.listen(path: path)
        defer { unsafe unlink(path) }
        let client = try Socket.connect(path: path)
        guard case .connection(let server, let peer) = try Socket.accept(listener.rawValue) else { throw Unexpected(what: "nobody") }
        #expect(peer == nil)
        let who = try Socket.peerCredentials(server.rawValue)
        #expect(who == PeerCredentials(pid: getpid(), uid: getuid(), gid: getgid()))
        _ = client.rawValue
    }

    @Test("an AF_UNIX path that is too long or empty is refused")
    func paths() {
        for count in [0, 108, 200] {
            #expect(throws: SystemError.self) { _ = try Socket.listen(path: String(repeating: "x", count: count)) }
        }
    }

    @Test("waiting ends at its deadline")
    func waiting() throws {
        let pair = try MessageEnds()
        let start = linux_monotonic_nanoseconds()
        #expect(!Socket.wait(pair.first.rawValue, .readable, nanoseconds: 3_000_000))
        #expect(linux_monotonic_nanoseconds() - start >= 3_000_000)
    }

    @Test("a listener accepts on a loop until it is closed")
    func listener() throws {
        let loop = try EventLoop()
        let bound = try Socket.listen(on: try #require(SocketAddress("127.0.0.1:0")))
        let address = try #require(try Socket.localAddress(bound.rawValue))
        var peers: [SocketAddress?] = []
        let listener = try Listener(loop, bound, onConnection: { _, peer in peers.append(peer) }, onTrouble: { Issue.record($0) })
        var clients: [Int32] = []
        for _ in 0..<3 { clients.append(try Socket.connect(to: address).release()) }
        while peers.count < 3 { loop.turn(waitingAtMost: 1_000_000_000) }
        listener.close()
        #expect(!loop.isWatched(listener.fd))
        for client in clients { close(client) }
    }
}
