import Bytes
import Logging
import Reactor
import Synchronization
import Testing

@testable import Connector

/// What was logged.
final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }

    struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) { lines.lines.withLock { $0.append("\(event.level): \(event.message)") } }
    }

    var logger: Logger { Logger(label: "test") { _ in Handler(lines: self) } }
}

/// One end of a TCP connection, as a test holds it.
final class Peer {
    private var descriptor: FileDescriptor?
    private(set) var received: [UInt8] = []
    private(set) var sawEnd = false
    private(set) var wasReset = false
    private var unsent: [UInt8] = []
    private var sent = 0
    var readsOn = true

    init(_ descriptor: consuming FileDescriptor) { self.descriptor = consume descriptor }

    /// Bytes that its socket has not taken yet.
    var unsentCount: Int { unsent.count - sent }
    var isGone: Bool { sawEnd || wasReset }

    func send(_ bytes: [UInt8]) {
        unsent += bytes
        pump()
    }
    func finish() { if let number = descriptor.rawValue { Socket.finishSending(number) } }
    func close() { descriptor = nil }

    func pump() {
        guard let number = descriptor.rawValue else { return }
        if unsentCount > 0, case .closed = Socket.send(number, unsent, from: &sent) { unsent = [] ; sent = 0 }
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while readsOn, !isGone {
            switch Socket.receive(number, into: &chunk, 0..<chunk.count) {
            case .received(let count): received += chunk[..<count]
            case .wouldBlock: return
            case .closed(nil): sawEnd = true
            case .closed: wasReset = true
            }
        }
    }
}

/// A connector on a loop that the test turns, with clear streams on both sides.
final class Rig {
    let loop: EventLoop
    let connector: Connector
    let lines = Lines()
    private let front: SocketAddress
    private var listener: Listener?
    private(set) var portalAddress: SocketAddress
    private var peers: [Peer] = []
    private var accepted: [Peer] = []
    private(set) var turns = 0

    init(
        connections: Int = 4, patience: UInt64 = Relay.patience, before: [SocketAddress] = [], listens: Bool = true,
        secure: @escaping (Int32) -> any Stream = { ClearStream($0) }
    ) throws {
        loop = try EventLoop()
        connector = Connector(loop, connections: connections, patience: patience, log: lines.logger)
        let portal = try Socket.listen(on: #require(SocketAddress("127.0.0.1:0")))
        portalAddress = try #require(try Socket.localAddress(portal.rawValue))
        let listener = try Socket.listen(on: #require(SocketAddress("127.0.0.1:0")))
        front = try #require(try Socket.localAddress(listener.rawValue))
        try connector.serve(listener, title: "portal", addresses: before + [portalAddress], secure: secure)
        if listens { try listen(portal) }
    }

    private func listen(_ descriptor: consuming FileDescriptor) throws {
        listener = try Listener(loop, descriptor) { [unowned self] connection, _ in
            let peer = Peer(connection)
            peers.append(peer)
            accepted.append(peer)
        } onTrouble: { _ in }
    }
    /// The portal comes (back) to its address.
    func listen() throws { try listen(Socket.listen(on: portalAddress)) }

    /// A new initiator.
    func connect() throws -> Peer {
        let peer = Peer(try Socket.connect(to: front))
        peers.append(peer)
        return peer
    }

    /// An initiator, and the portal's end of what was made for it.
    func pair() throws -> (Peer, Peer) {
        let count = accepted.count
        let initiator = try connect()
        try #require(until { accepted.count > count })
        return (initiator, accepted[count])
    }

    /// Turns the loop until it is so; false if that is not within five seconds.
    func until(_ condition: () throws -> Bool) rethrows -> Bool {
        let end = ContinuousClock.now + .seconds(5)
        while try !condition() {
            if ContinuousClock.now > end { return false }
            loop.turn(waitingAtMost: 1_000_000)
            turns += 1
            for peer in peers { peer.pump() }
        }
        return true
    }

    /// Turns it for a while.
    func rest(milliseconds: Int64) {
        let end = ContinuousClock.now + .milliseconds(milliseconds)
        _ = until { ContinuousClock.now > end }
    }
}

/// Bytes whose period is no power of two.
func noise(_ count: Int, seed: UInt8 = 1) -> [UInt8] {
    var state = UInt32(seed)
    let period = (0..<65_521).map { _ in
        state = state &* 1_664_525 &+ 1_013_904_223
        return UInt8(state >> 24)
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count + period.count)
    while bytes.count < count { bytes += period }
    return Array(bytes[..<count])
}

@Suite struct RelayTests {
    @Test("Bytes go both ways as they are, and an idle pair holds no memory")
    func carries() throws {
        let rig = try Rig()
        let (initiator, portal) = try rig.pair()
        let (there, back) = (noise(3_000_001), noise(2_000_003, seed: 7))
        initiator.send(there)
        portal.send(back)
        #expect(rig.until { portal.received.count == there.count && initiator.received.count == back.count })
        #expect(portal.received == there && initiator.received == back)
        #expect(rig.connector.bytesHeld == 0 && rig.connector.count == 1)
        #expect(rig.lines.all == [])
    }

    @Test("Each connection has one of its own")
    func apart() throws {
        let rig = try Rig()
        let pairs = try (0..<4).map { _ in try rig.pair() }
        for (index, pair) in pairs.enumerated() { pair.0.send([UInt8(index)]) }
        #expect(rig.until { pairs.enumerated().allSatisfy { $1.1.received == [UInt8($0)] } })
    }

    @Test("When one side has said its last, the other goes on and is heard", arguments: [true, false])
    func halfClose(initiatorFirst: Bool) throws {
        let rig = try Rig()
        let (initiator, portal) = try rig.pair()
        let (first, second) = initiatorFirst ? (initiator, portal) : (portal, initiator)
        first.send(noise(500_000))
        first.finish()
        #expect(rig.until { second.sawEnd && second.received.count == 500_000 })
        rig.rest(milliseconds: 20)
        #expect(rig.connector.count == 1 && !first.sawEnd)
        second.send(noise(400_000, seed: 3))
        #expect(rig.until { first.received.count == 400_000 })
        second.finish()
        #expect(rig.until { first.sawEnd && rig.connector.count == 0 })
        #expect(rig.connector.bytesHeld == 0)
    }

    @Test("Who does not read holds the other side up, at one buffer of memory", arguments: [true, false])
    func backPressure(initiatorReads: Bool) throws {
        let rig = try Rig()
        let (initiator, portal) = try rig.pair()
        let (slow, sender) = initiatorReads ? (portal, initiator) : (initiator, portal)
        slow.readsOn = false
        // More than all the sockets on the way hold.
        let bytes = noise(64 << 20)
        sender.send(bytes)
        var last = -1
        #expect(rig.until {
            defer { last = sender.unsentCount }
            if last != sender.unsentCount { rig.rest(milliseconds: 50) }
            return last == sender.unsentCount
        })
        #expect(sender.unsentCount > 0)
        #expect(rig.connector.bytesHeld == Relay.bufferSize)
        let before = rig.turns
        rig.rest(milliseconds: 100)
        #expect(rig.turns - before < 150, "a loop that spins makes thousands")
        // The other direction is open all the while.
        slow.send([1, 2, 3])
        #expect(rig.until { sender.received == [1, 2, 3] })
        slow.readsOn = true
        #expect(rig.until { slow.received.count == bytes.count })
        #expect(slow.received == bytes && rig.connector.bytesHeld == 0)
    }

    @Test("Who goes while the other does not read is forgotten when what was said is delivered, and costs nothing meanwhile")
    func goneWhileStalled() throws {
        let rig = try Rig()
        let (initiator, portal) = try rig.pair()
        portal.readsOn = false
        initiator.send(noise(32 << 20))
        rig.rest(milliseconds: 100)
        initiator.close()
        let before = rig.turns
        rig.rest(milliseconds: 200)
        #expect(rig.turns - before < 300)
        portal.readsOn = true
        #expect(rig.until { portal.isGone })
        portal.close()
        #expect(rig.until { rig.connector.count == 0 })
        #expect(rig.connector.bytesHeld == 0)
    }

    @Test("A portal that is away: the connection is closed, that is said once, and the next one tries again")
    func away() throws {
        let rig = try Rig(listens: false)
        for _ in 0..<5 {
            let initiator = try rig.connect()
            #expect(rig.until { initiator.isGone && rig.connector.count == 0 })
        }
        #expect(rig.lines.all == ["error: portal cannot be reached: connect: Connection refused; this is said once"])
        try rig.listen()
        let (initiator, portal) = try rig.pair()
        portal.send([5])
        #expect(rig.until { initiator.received == [5] })
        #expect(rig.lines.all.dropFirst() == ["notice: portal is reached again; failed connections before: 5"])
    }

    @Test("Of several addresses the next is tried when one fails")
    func addresses() throws {
        let nobody = try Socket.listen(on: #require(SocketAddress("127.0.0.1:0")))
        let address = try #require(try Socket.localAddress(nobody.rawValue))
        _ = consume nobody
        let rig = try Rig(before: [address])
        let (initiator, portal) = try rig.pair()
        initiator.send([9])
        #expect(rig.until { portal.received == [9] })
        #expect(rig.lines.all == [])
    }

    @Test("A portal that closes before it says anything is told of; one that closes later is not")
    func silent() throws {
        let rig = try Rig()
        let (first, refusing) = try rig.pair()
        refusing.close()
        #expect(rig.until { first.isGone })
        first.close()
        #expect(rig.until { rig.connector.count == 0 })
        #expect(rig.lines.all == ["error: portal ends connections: it closes before it has said anything; this is said once"])
        let (second, portal) = try rig.pair()
        portal.send([1])
        #expect(rig.until { second.received == [1] })
        portal.close()
        #expect(rig.until { second.isGone })
        second.close()
        #expect(rig.until { rig.connector.count == 0 })
        // An initiator that looks and leaves says nothing about the portal.
        let (third, _) = try rig.pair()
        third.close()
        _ = rig.until { rig.connector.count == 0 }
        #expect(rig.lines.all.dropFirst() == ["notice: portal is reached again; failed connections before: 1"])
    }

    @Test("One connection more than the limit is closed at once, which is said once; there is room when one has gone")
    func limit() throws {
        let rig = try Rig(connections: 2)
        let pairs = try (0..<2).map { _ in try rig.pair() }
        for _ in 0..<3 {
            let refused = try rig.connect()
            #expect(rig.until { refused.isGone })
        }
        #expect(rig.lines.all == ["warning: 2 connections are open; more are closed at once (connections: in the settings)"])
        pairs[0].0.close()
        pairs[0].1.close()
        #expect(rig.until { rig.connector.count == 1 })
        let (initiator, portal) = try rig.pair()
        initiator.send([4])
        #expect(rig.until { portal.received == [4] })
    }

    /// A stream that never comes to stand.
    final class Undecided: Stream {
        func greet() -> Greeting { .wantsInput }
        func receive(into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult { .wouldBlock }
        func send(_ queue: inout OutputQueue) -> SendResult { .wouldBlock }
        func finish() {}
        var isDrained: Bool { true }
        var complaint: String? { nil }
    }

    @Test("A portal that does not greet us in time is away; an initiator that leaves meanwhile is forgotten")
    func patience() throws {
        let rig = try Rig(patience: 100_000_000, secure: { _ in Undecided() })
        let begin = ContinuousClock.now
        let initiator = try rig.connect()
        #expect(rig.until { initiator.isGone })
        #expect(ContinuousClock.now - begin >= .milliseconds(95))
        #expect(rig.lines.all == ["error: portal cannot be reached: it does not answer in time; this is said once"])
        let leaving = try rig.connect()
        #expect(rig.until { rig.connector.count == 1 })
        leaving.send([1])
        leaving.close()
        #expect(rig.until { rig.connector.count == 0 })
    }

    @Test("At its end it closes what it carries")
    func close() throws {
        let rig = try Rig()
        let (initiator, portal) = try rig.pair()
        initiator.send([1])
        #expect(rig.until { portal.received == [1] })
        rig.connector.close()
        #expect(rig.until { initiator.isGone && portal.isGone })
        #expect(rig.connector.count == 0)
    }
}
