import Bytes
import Crypto
import Glibc
import Testing

@testable import Door
@testable import Reactor

/// Messages that pass the door together.
@Suite struct BatchTests {
    private static let request = RequestID(rawValue: 1)
    private static let store = StoreDescription(kind: .null, length: 1)

    /// Orders without a descriptor, and `tryStore`, which may have one: its length says which one.
    private static func tryStore(_ number: UInt64) -> DataOrderMessage { .tryStore(request, StoreDescription(kind: .null, length: number)) }

    /// A pipe from which `number` can be read.
    private static func file(_ number: UInt8) throws -> FileDescriptor {
        var ends: [Int32] = [-1, -1]
        try #require(unsafe Glibc.pipe(&ends) == 0)
        let writer = FileDescriptor(owning: ends[1])
        #expect(unsafe Glibc.write(writer.rawValue, [number], 1) == 1)
        return FileDescriptor(owning: ends[0])
    }

    private static func number(of file: borrowing FileDescriptor) -> UInt8? {
        var number: UInt8 = 0
        return unsafe Glibc.read(file.rawValue, &number, 1) == 1 ? number : nil
    }

    private static func isOpen(_ descriptor: Int32) -> Bool { fcntl(descriptor, F_GETFD) >= 0 }

    /// All messages of a batch, as they come out at the other side, up to what may not be.
    private static func receive(_ bytes: [UInt8], descriptors: consuming ReceivedDescriptors = ReceivedDescriptors()) -> (messages: [DataOrderMessage], error: DoorError?) {
        var batch = ReceivedBatch(bytes, count: bytes.count, descriptors)
        var messages: [DataOrderMessage] = []
        while !batch.isOver {
            var own = ReceivedDescriptors()
            do throws(DoorError) { messages.append(try batch.next(&own)) } catch { return (messages, error) }
        }
        return (messages, nil)
    }

    private static let orders: [DataOrderMessage] = [.heartbeat(1), .survey(request), .kept(tid: 1, lun: 2, revision: 3, isKept: true), tryStore(4), .endSession(request, tsih: 5)]

    @Test("Each message of a batch is what it was; cut anywhere, those before the cut pass, and nothing else does")
    func cut() {
        var batch = Batch()
        var ends: [Int] = [0]
        for order in Self.orders {
            batch.append(order, passing: nil)
            ends.append(batch.bytes.count)
        }
        for length in 0...batch.bytes.count {
            let (messages, error) = Self.receive(Array(batch.bytes[..<length]))
            let whole = ends.lastIndex { $0 <= length } ?? 0
            #expect(messages.map { $0.encoded() } == Self.orders[..<whole].map { $0.encoded() })
            #expect((error == nil) == (ends[whole] == length))
        }
    }

    @Test("Whatever byte of a batch is another one, nobody traps, and no message is longer than its row permits")
    func noise() {
        var batch = Batch()
        for order in Self.orders { batch.append(order, passing: nil) }
        for index in batch.bytes.indices {
            for value: UInt8 in [0, 1, 2, 7, 15, 16, 0x7f, 0x80, 0xff] {
                var bytes = batch.bytes
                bytes[index] = value
                for message in Self.receive(bytes).messages { #expect(message.encoded().count <= message.row.limit) }
            }
        }
    }

    @Test("As many messages as there is room for, and no more", arguments: [31, 32, 33])
    func count(messages: Int) {
        var bytes: [UInt8] = []
        for _ in 0..<messages {
            var one = Batch()
            one.append(DataOrderMessage.heartbeat(1), passing: nil)
            bytes += one.bytes
        }
        let (received, error) = Self.receive(bytes)
        #expect(DoorLimits.batchMessages == 32)
        #expect(received.count == min(messages, 32) && error == (messages > 32 ? .tooMany : nil))
    }

    @Test("It is full when it has so many messages, or so many bytes; the longest message fits in behind that")
    func full() {
        var batch = Batch()
        for _ in 1..<DoorLimits.batchMessages { batch.append(DataOrderMessage.heartbeat(1), passing: nil) }
        #expect(!batch.isFull)
        batch.append(DataOrderMessage.heartbeat(1), passing: nil)
        #expect(batch.isFull)
        batch.clear()
        #expect(batch.isEmpty && batch.bytes.isEmpty)
        // A message has a byte of code, a portal, a length, and whether it is the last one; and its own header in front.
        let overhead = Batch.header + 10
        batch.append(LoginAnswerMessage.secure(portal: 1, [UInt8](repeating: 0, count: DoorLimits.batchBytes - overhead - 1), isLast: true), passing: nil)
        #expect(!batch.isFull)
        batch.append(LoginAnswerMessage.secure(portal: 1, [UInt8](repeating: 0, count: DoorLimits.message - 10), isLast: true), passing: nil)
        #expect(batch.isFull && batch.bytes.count <= DoorLimits.received)
        var received = ReceivedBatch(batch.bytes, count: batch.bytes.count, ReceivedDescriptors())
        var own = ReceivedDescriptors()
        #expect(throws: Never.self) { for _ in 0..<2 { let _: LoginAnswerMessage = try received.next(&own) } }
        let isOver = received.isOver
        #expect(isOver)
    }

    @Test("A message gets the descriptors that came with it, whatever those before it have done with theirs")
    func descriptors() throws {
        var batch = Batch()
        // Which of them bring a file along.
        let bring: [Bool] = [true, false, true, true, false, true]
        for (number, brings) in bring.enumerated() { batch.append(Self.tryStore(UInt64(number)), passing: brings ? try Self.file(UInt8(number)).release() : nil) }
        let numbers = batch.descriptors
        var received = ReceivedBatch(batch.bytes, count: batch.bytes.count, ReceivedDescriptors(numbers))
        for (number, brings) in bring.enumerated() {
            var own = ReceivedDescriptors()
            let message: DataOrderMessage = try received.next(&own)
            #expect(message.encoded() == Self.tryStore(UInt64(number)).encoded())
            let came = own.count
            #expect(came == (brings ? 1 : 0))
            // Every other one is left to be closed.
            guard number % 2 == 0, let file = own.take() else { continue }
            #expect(Self.number(of: file) == UInt8(number))
        }
        let isOver = received.isOver
        #expect(isOver && numbers.allSatisfy { !Self.isOpen($0) })
    }

    @Test("A descriptor that no message has brought along ends them all, and one that did not come, too; unless this process could not open it")
    func wrongDescriptors() throws {
        func receive(_ came: Int, said: Int, lost: Bool) throws -> (count: Int, error: DoorError?) {
            var batch = Batch()
            for number in 0..<3 { batch.append(Self.tryStore(UInt64(number)), passing: number < said ? 0 : nil) }
            let files = try (0..<came).map { try Self.file(UInt8($0)).release() }
            let (messages, error) = Self.receive(batch.bytes, descriptors: ReceivedDescriptors(files, someWereLost: lost))
            #expect(files.allSatisfy { !Self.isOpen($0) }, "nothing is left open")
            return (messages.count, error)
        }
        let wrong = DoorError.wrongDescriptors("tryStore")
        #expect(try receive(2, said: 2, lost: false) == (3, nil))
        #expect(try receive(3, said: 2, lost: false) == (2, wrong))
        #expect(try receive(1, said: 2, lost: false) == (1, wrong))
        #expect(try receive(1, said: 2, lost: true) == (3, nil))
        #expect(try receive(0, said: 2, lost: true) == (3, nil))
        // More than its row permits, or fewer.
        var two = Batch()
        two.append(DataOrderMessage.heartbeat(1), passing: 0)
        #expect(Self.receive(two.bytes).error == .wrongDescriptors("heartbeat"))
        var none = Batch()
        none.append(DataOrderMessage.openLoginDoor, passing: nil)
        #expect(Self.receive(none.bytes).error == .wrongDescriptors("openLoginDoor"))
    }

    @Test("A secret is wiped where it came in, and where it went out")
    func secret() throws {
        var batch = Batch()
        let key = [UInt8](repeating: 0xa5, count: 32)
        batch.append(LoginAnswerMessage.preSharedKey(Self.request, Secret(key)), passing: nil)
        batch.append(LoginAnswerMessage.heartbeat(0xa5a5), passing: nil)
        let bytes = batch.bytes
        let copy = bytes.map { $0 }
        var received = ReceivedBatch(copy, count: copy.count, ReceivedDescriptors())
        var own = ReceivedDescriptors()
        let first: LoginAnswerMessage = try received.next(&own)
        guard case .preSharedKey(_, let secret?) = first else {
            Issue.record("another message")
            return
        }
        let isRight = secret.withBytes { $0.count == 32 && $0[0] == 0xa5 }
        #expect(isRight)
        let second: LoginAnswerMessage = try received.next(&own)
        #expect(second.encoded() == LoginAnswerMessage.heartbeat(0xa5a5).encoded())
        let left = received.release()
        #expect(!left.dropLast(16).contains(0xa5), "what came")
        batch.clear()
        #expect(!bytes.contains(0xa5), "what went, wherever it stands")
    }
}

/// What is said in one turn goes with one system call.
@Suite struct GatheringTests {
    private final class Ends {
        let loop: EventLoop
        var link: DoorLink<DataReportMessage, DataOrderMessage>?
        let theirs: FileDescriptor
        var end: DoorEnd?

        init() throws {
            loop = try EventLoop()
            var other: FileDescriptor?
            let ours = try Socket.messagePair().split(&other)
            guard let theirs = other.take() else { preconditionFailure("a pair has two ends") }
            self.theirs = theirs
            link = try DoorLink(loop: loop, socket: ours, onMessage: { _, _ in }, onEnd: { [unowned self] in end = $0 })
        }

        /// Messages of each batch that has come.
        func received() -> [Int] {
            var counts: [Int] = []
            while case .message(let bytes, let descriptors) = Socket.receiveMessage(theirs.rawValue, limit: DoorLimits.received) {
                var batch = ReceivedBatch(bytes, count: bytes.count, descriptors)
                var count = 0
                var own = ReceivedDescriptors()
                while !batch.isOver, let _: DataOrderMessage = try? batch.next(&own) { count += 1 }
                counts.append(count)
            }
            return counts
        }
    }

    @Test("What is said in one turn goes with its end, as many messages at once as may", arguments: [1, 31, 32, 33, 100])
    func gathers(count: Int) throws {
        let ends = try Ends()
        for number in 0..<count { ends.link?.send(.heartbeat(UInt64(number))) }
        let before = ends.received()
        #expect(before == [Int](repeating: 32, count: count / 32), "only what is full has gone")
        ends.loop.turn(waitingAtMost: 0)
        #expect(ends.received() == (count % 32 == 0 ? [] : [count % 32]))
        ends.loop.turn(waitingAtMost: 0)
        #expect(ends.received() == [] && ends.end == nil)
    }

    @Test("What is said last goes before the door is shut")
    func shut() throws {
        let ends = try Ends()
        ends.link?.send(.heartbeat(1))
        ends.link?.send(.heartbeat(2))
        ends.link?.close()
        #expect(ends.received() == [2] && ends.end == nil)
    }

    @Test("A descriptor may be closed as soon as it has been handed over, or lent")
    func handsOver() throws {
        let ends = try Ends()
        let file = FileDescriptor(owning: dup(ends.theirs.rawValue))
        let lent = try file.duplicate()
        ends.link?.send(.openLoginDoor, passing: lent.rawValue)
        close(lent.release())
        ends.link?.send(.openLoginDoor, giving: file)
        ends.loop.turn(waitingAtMost: 0)
        guard case .message(_, let came) = Socket.receiveMessage(ends.theirs.rawValue, limit: DoorLimits.received) else {
            Issue.record("nothing came")
            return
        }
        #expect(came.count == 2)
    }

    @Test("While the other side does not read, everything waits in its order, and goes when it does")
    func waits() throws {
        let ends = try Ends()
        let count = 100_000
        for number in 0..<count { ends.link?.send(.heartbeat(UInt64(number))) }
        var numbers: [UInt64] = []
        let door = PlainDoor<DataOrderMessage, DataReportMessage>(try ends.theirs.duplicate())
        while numbers.count < count {
            ends.loop.turn(waitingAtMost: 0)
            guard case .heartbeat(let number)? = try door.next(within: 0) else { continue }
            numbers.append(number)
            while case .heartbeat(let number)? = try door.next(within: 0) { numbers.append(number) }
        }
        #expect(numbers == Array(0..<UInt64(count)) && ends.end == nil)
    }
}
