import Crypto
import DequeModule
import Reactor

/// Why a door is shut.
public enum DoorEnd: Error, Sendable, CustomStringConvertible {
    /// The other process is gone.
    case closed
    case failed(SystemError)
    /// It said what it may not say.
    case refused(DoorError)
    /// It does not listen: more than `DoorLimits.unsent` messages wait for it.
    case stuck

    /// A process that ends has not always read all that was sent to it.
    init(_ error: SystemError) { self = error.isPeerGone ? .closed : .failed(error) }

    public var description: String {
        switch self {
        case .closed: "it closed its door"
        case .failed(let error): "its door failed: \(error)"
        case .refused(let error): "it sent what it may not: \(error)"
        case .stuck: "it does not read its messages"
        }
    }
}

/// One end of the door between two of our processes: typed messages with descriptors over a SOCK_SEQPACKET socket, each held
/// to its row of the table. Confined to its loop's thread.
///
/// What is said in one turn of the loop goes together when the turn is over, or when it is enough.
public final class DoorLink<Incoming: DoorMessage, Outgoing: DoorMessage>: EventHandler, TurnHandler {
    /// What a message brought along. A descriptor that its row asks for is missing if this process may open no more.
    public typealias Receive = (Incoming, inout ReceivedDescriptors) -> Void

    private let loop: EventLoop
    private var socket: FileDescriptor?
    private let onMessage: Receive
    private let onEnd: (DoorEnd) -> Void
    /// What goes with the end of this turn. Its descriptors are ours, as are those of all that wait.
    private var batch = Batch()
    private var isInLine = false
    /// What waits for the other side, which is busy.
    private var unsent: Deque<Batch> = []
    private var unsentMessages = 0
    /// Where the next batch is received; none while one is looked at.
    private var input: [UInt8] = []
    /// What is left of one in a pause.
    private var rest: ReceivedBatch?
    /// How many of each kind came in this second.
    private var counts = [Int](repeating: 0, count: Incoming.table.count)
    private var secondEnds: UInt64 = 0
    private var isPaused = false

    /// - Parameters:
    ///   - onMessage: called for each message that its row lets through
    ///   - onEnd: called once, when the door is shut by the other side or for its fault
    public init(
        loop: EventLoop, socket: consuming FileDescriptor, onMessage: @escaping Receive, onEnd: @escaping (DoorEnd) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.onMessage = onMessage
        self.onEnd = onEnd
        let number = socket.rawValue
        self.socket = consume socket
        try loop.add(number, .readable, self)
    }

    deinit { discardUnsent() }

    // MARK: Sending

    /// Sends a message with the end of the turn; it waits here while the other side is busy.
    /// - Parameter descriptor: travels along; stays the caller's
    public func send(_ message: Outgoing, passing descriptor: Int32? = nil) {
        guard socket.rawValue != nil else { return }
        guard let descriptor else { return send(message, giving: nil) }
        do throws(SystemError) {
            send(message, giving: try FileDescriptor.duplicate(descriptor))
        } catch {
            // This process may open no more. Nothing needs to be opened for what goes at once.
            sendBatch()
            var alone = Batch()
            alone.append(message, passing: descriptor)
            if !unsent.isEmpty || !hasSent(alone) { end(.failed(error)) }
            alone.clear()
        }
    }

    /// - Parameter descriptor: travels along, and is closed here
    public func send(_ message: Outgoing, giving descriptor: consuming FileDescriptor?) {
        guard socket.rawValue != nil else { return }
        guard unsentMessages + batch.count < DoorLimits.unsent else { return end(.stuck) }
        let number: Int32? = if let descriptor { descriptor.release() } else { nil }
        batch.append(message, passing: number)
        if batch.isFull { return sendBatch() }
        guard !isInLine else { return }
        isInLine = true
        loop.whenTurnEnds(self)
    }

    public func endOfTurn() {
        isInLine = false
        sendBatch()
    }

    private func sendBatch() {
        guard !batch.isEmpty else { return }
        if unsent.isEmpty, hasSent(batch) { return batch.close() }
        guard socket.rawValue != nil else { return }
        unsentMessages += batch.count
        unsent.append(batch)
        batch = Batch()
        watch()
    }

    private func sendWaiting() {
        while var first = unsent.first {
            guard hasSent(first) else { return }
            unsent.removeFirst()
            unsentMessages -= first.count
            first.close()
        }
        watch()
    }

    /// - Returns: false if the other side is busy, or the door is shut
    private func hasSent(_ batch: Batch) -> Bool {
        guard let socket = socket.rawValue else { return false }
        switch Socket.sendMessage(socket, batch.bytes, descriptors: batch.descriptors) {
        case .done: return true
        case .wouldBlock: return false
        case .closed(let error):
            end(DoorEnd(error))
            return false
        }
    }

    /// Sends what there is if the other side takes it now, and shuts this end without a word to `onEnd`.
    public func close() {
        if let socket = socket.rawValue, unsent.isEmpty, !batch.isEmpty { _ = Socket.sendMessage(socket, batch.bytes, descriptors: batch.descriptors) }
        shut()
    }

    private func shut() {
        guard let socket = socket.rawValue else { return }
        loop.remove(socket)
        self.socket = nil
        rest = nil
        discardUnsent()
    }

    private func end(_ reason: DoorEnd) {
        guard socket.rawValue != nil else { return }
        shut()
        onEnd(reason)
    }

    private func discardUnsent() {
        batch.close()
        for index in unsent.indices { unsent[index].close() }
        unsent = []
        unsentMessages = 0
    }

    // MARK: Receiving

    public func ready(_ events: Readiness) {
        if events.contains(.writable) { sendWaiting() }
        // Nothing is read in a pause, and the loop would be told of the end for ever; what is left unread is from nobody any more.
        if isPaused, !events.isDisjoint(with: [.hangup, .error]) { return end(.closed) }
        if !events.isDisjoint(with: [.readable, .hangup, .error]) { receive() }
    }

    private func receive() {
        var room = DoorLimits.messagesPerTurn
        while room > 0, let socket = socket.rawValue, !isPaused {
            if var batch = rest.take() {
                do throws(DoorError) {
                    room -= try handle(&batch)
                } catch {
                    return end(.refused(error))
                }
                if batch.isOver { input = batch.release() } else if self.socket.rawValue != nil { rest = consume batch }
                continue
            }
            if input.isEmpty { input = [UInt8](repeating: 0, count: DoorLimits.received) }
            var descriptors = ReceivedDescriptors()
            switch Socket.receiveMessage(socket, into: &input, &descriptors, atMost: DoorLimits.batchMessages) {
            case .received(let count):
                rest = ReceivedBatch(input, count: count, descriptors)
                input = []
            case .wouldBlock: return
            case .closed(let error): return end(error.map { DoorEnd($0) } ?? .closed)
            }
        }
    }

    /// Handles messages that came together, until a pause.
    /// - Returns: how many
    private func handle(_ batch: inout ReceivedBatch) throws(DoorError) -> Int {
        var count = 0
        while !batch.isOver, !isPaused, socket.rawValue != nil {
            var descriptors = ReceivedDescriptors()
            let message: Incoming = try batch.next(&descriptors)
            count += 1
            pace(message)
            onMessage(message, &descriptors)
        }
        return count
    }

    /// Stops reading for the rest of a second in which there were too many of a kind: our own processes pace what peers can make them
    /// say, so this one is ours no more.
    private func pace(_ message: Incoming) {
        if loop.now >= secondEnds {
            secondEnds = loop.now + 1_000_000_000
            for index in counts.indices { counts[index] = 0 }
        }
        let (row, index) = (message.row, Int(message.code) - 1)
        counts[index] += 1
        guard counts[index] >= row.perSecond else { return }
        isPaused = true
        watch()
        loop.at(secondEnds) { [weak self] in
            self?.isPaused = false
            self?.watch()
            // What is left of a batch has left the socket, of which the loop does not tell.
            self?.receive()
        }
    }

    private func watch() {
        guard let socket = socket.rawValue else { return }
        var interest: Readiness = isPaused ? [] : .readable
        if !unsent.isEmpty { interest.insert(.writable) }
        do { try loop.modify(socket, interest) } catch { end(.failed(error)) }
    }
}
