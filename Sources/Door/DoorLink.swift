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
public final class DoorLink<Incoming: DoorMessage, Outgoing: DoorMessage>: EventHandler {
    /// What a message brought along. A descriptor that its row asks for is missing if this process may open no more.
    public typealias Receive = (Incoming, inout ReceivedDescriptors) -> Void

    private struct Waiting {
        let bytes: [UInt8]
        let descriptor: Int32?
        let isSecret: Bool
        func wiped() { if isSecret { wipe(bytes) } }
    }

    private let loop: EventLoop
    private var socket: FileDescriptor?
    private let onMessage: Receive
    private let onEnd: (DoorEnd) -> Void
    private var unsent: Deque<Waiting> = []
    /// How many of each kind came in this second.
    private var counts: [UInt8: Int] = [:]
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

    /// Sends a message; it waits here while the other side is busy.
    /// - Parameter descriptor: travels along; stays the caller's
    public func send(_ message: Outgoing, passing descriptor: Int32? = nil) {
        guard let socket = socket.rawValue else { return }
        let (bytes, row) = (message.encoded(), message.row)
        if unsent.isEmpty {
            switch Socket.sendMessage(socket, bytes, descriptors: descriptor.map { [$0] } ?? []) {
            case .done: return row.isSecret ? wipe(bytes) : ()
            case .wouldBlock: break
            case .closed(let error): return end(DoorEnd(error))
            }
        }
        guard unsent.count < DoorLimits.unsent else { return end(.stuck) }
        var copy: Int32?
        if let descriptor {
            do { copy = try FileDescriptor.duplicate(descriptor).release() } catch { return end(.failed(error)) }
        }
        unsent.append(Waiting(bytes: bytes, descriptor: copy, isSecret: row.isSecret))
        watch()
    }

    public func ready(_ events: Readiness) {
        if events.contains(.writable) { sendWaiting() }
        // Nothing is read in a pause, and the loop would be told of the end for ever; what is left unread is from nobody any more.
        if isPaused, !events.isDisjoint(with: [.hangup, .error]) { return end(.closed) }
        if !events.isDisjoint(with: [.readable, .hangup, .error]) { receive() }
    }

    /// Shuts this end without a word to `onEnd`.
    public func close() {
        guard let socket = socket.rawValue else { return }
        loop.remove(socket)
        self.socket = nil
        discardUnsent()
    }

    private func end(_ reason: DoorEnd) {
        guard socket.rawValue != nil else { return }
        close()
        onEnd(reason)
    }

    private func sendWaiting() {
        while let socket = socket.rawValue, let first = unsent.first {
            switch Socket.sendMessage(socket, first.bytes, descriptors: first.descriptor.map { [$0] } ?? []) {
            case .done:
                unsent.removeFirst()
                first.wiped()
                if let descriptor = first.descriptor { _ = FileDescriptor(owning: descriptor) }
            case .wouldBlock: return
            case .closed(let error): return end(DoorEnd(error))
            }
        }
        watch()
    }

    private func receive() {
        for _ in 0..<DoorLimits.messagesPerTurn {
            guard let socket = socket.rawValue, !isPaused else { return }
            switch Socket.receiveMessage(socket, limit: DoorLimits.message, descriptors: DoorLimits.descriptors) {
            case .message(let bytes, var descriptors):
                do {
                    let message = try Incoming(bytes, descriptors: descriptors.count, someWereLost: descriptors.someWereLost)
                    if message.row.isSecret { wipe(bytes) }
                    pace(message)
                    onMessage(message, &descriptors)
                } catch {
                    return end(.refused(error))
                }
            case .wouldBlock: return
            case .closed(let error): return end(error.map { DoorEnd($0) } ?? .closed)
            }
        }
    }

    /// Stops reading for the rest of a second in which there were too many of a kind: our own processes pace what peers can make them
    /// say, so this one is ours no more.
    private func pace(_ message: Incoming) {
        if loop.now >= secondEnds {
            secondEnds = loop.now + 1_000_000_000
            counts.removeAll(keepingCapacity: true)
        }
        let count = counts[message.code, default: 0] + 1
        counts[message.code] = count
        guard count >= message.row.perSecond else { return }
        isPaused = true
        watch()
        loop.at(secondEnds) { [weak self] in
            self?.isPaused = false
            self?.watch()
        }
    }

    private func watch() {
        guard let socket = socket.rawValue else { return }
        var interest: Readiness = isPaused ? [] : .readable
        if !unsent.isEmpty { interest.insert(.writable) }
        do { try loop.modify(socket, interest) } catch { end(.failed(error)) }
    }

    private func discardUnsent() {
        for waiting in unsent {
            waiting.wiped()
            if let descriptor = waiting.descriptor { _ = FileDescriptor(owning: descriptor) }
        }
        unsent = []
    }
}
