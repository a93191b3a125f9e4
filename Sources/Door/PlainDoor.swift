import Reactor

/// One end of a door in a process without a loop, which waits for what is asked and answers at once.
public final class PlainDoor<Incoming: DoorMessage, Outgoing: DoorMessage> {
    private let socket: FileDescriptor
    private var input = [UInt8](repeating: 0, count: DoorLimits.received)
    private var rest: ReceivedBatch?
    /// What the last message has brought along. Who does not take it until the next one has it closed.
    public var descriptors = ReceivedDescriptors()

    public init(_ socket: consuming FileDescriptor) { self.socket = socket }

    /// The next message.
    /// - Parameter nanoseconds: how long it is waited for
    /// - Returns: nil: none came in time, or the door is shut
    public func next(within nanoseconds: UInt64 = .max) throws(DoorError) -> Incoming? {
        if rest == nil {
            guard Socket.wait(socket.rawValue, .readable, nanoseconds: nanoseconds) else { return nil }
            var received = ReceivedDescriptors()
            switch Socket.receiveMessage(socket.rawValue, into: &input, &received, atMost: DoorLimits.batchMessages) {
            case .received(let count):
                rest = ReceivedBatch(input, count: count, received)
                input = []
            case .wouldBlock, .closed: return nil
            }
        }
        guard var batch = rest.take() else { return nil }
        let message: Incoming = try batch.next(&descriptors)
        if batch.isOver { input = batch.release() } else { rest = consume batch }
        return message
    }

    /// - Parameter descriptor: travels along; stays the caller's
    /// - Returns: whether it could be sent
    public func send(_ message: Outgoing, passing descriptor: Int32? = nil) -> Bool {
        var batch = Batch()
        defer { batch.clear() }
        batch.append(message, passing: descriptor)
        guard case .done = Socket.sendMessage(socket.rawValue, batch.bytes, descriptors: batch.descriptors) else { return false }
        return true
    }
}
