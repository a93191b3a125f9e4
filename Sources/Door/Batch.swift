import Bytes
import Crypto
import Reactor

/// Messages on their way out that pass the door together: what is said in one turn of a loop is sent with one system call, and wakes the
/// other side once. They stand one behind the other, each behind the number of its descriptors and its length.
struct Batch {
    /// Bytes in front of each message.
    static let header = 5

    private var writer = ByteWriter()
    /// Of all its messages, in their order.
    private(set) var descriptors: [Int32] = []
    private(set) var count = 0
    private(set) var isSecret = false

    var bytes: [UInt8] { writer.bytes }
    var isEmpty: Bool { count == 0 }
    /// Whether nothing more may come to it.
    var isFull: Bool { count == DoorLimits.batchMessages || writer.bytes.count >= DoorLimits.batchBytes }

    mutating func append(_ message: some DoorMessage, passing descriptor: Int32?) {
        precondition(!isFull)
        let row = message.row
        writer.write(UInt8(descriptor == nil ? 0 : 1))
        let length = writer.writeMeasured { message.encode(into: &$0) }
        precondition(length <= row.limit, "a message of ours is within its own limit")
        if let descriptor { descriptors.append(descriptor) }
        count += 1
        isSecret = isSecret || row.isSecret
    }

    /// It has been sent, or never will be. The descriptors stay open.
    mutating func clear() {
        if isSecret { wipe(writer.bytes) }
        writer.removeAll()
        descriptors.removeAll(keepingCapacity: true)
        (count, isSecret) = (0, false)
    }

    /// The same of one whose descriptors are its own.
    mutating func close() {
        for descriptor in descriptors { _ = FileDescriptor(owning: descriptor) }
        clear()
    }
}

/// Messages that have come together, one after the other: what one of them may not be, or may not bring along, ends them all.
struct ReceivedBatch: ~Copyable {
    private let bytes: [UInt8]
    private let end: Int
    private var position = 0
    private var taken = 0
    private var descriptors: ReceivedDescriptors

    /// - Parameters:
    ///   - bytes: what was received stands at their beginning
    ///   - count: so many of them
    init(_ bytes: [UInt8], count: Int, _ descriptors: consuming ReceivedDescriptors) {
        precondition(count <= bytes.count)
        self.bytes = bytes
        end = count
        self.descriptors = descriptors
    }

    var isOver: Bool { position == end }

    /// Takes the next message out.
    /// - Parameter own: gets the descriptors that came with it, and no other
    mutating func next<Message: DoorMessage>(_ own: inout ReceivedDescriptors) throws(DoorError) -> Message {
        guard taken < DoorLimits.batchMessages else { throw .tooMany }
        var reader = ByteReader(bytes, position..<end)
        let (said, length): (Int, Int)
        do {
            (said, length) = (Int(try reader.uint8()), try reader.count(limit: DoorLimits.message))
        } catch { throw .malformed("batch", error) }
        let start = position + Batch.header
        guard length <= end - start else { throw .malformed("batch", .truncated) }
        own = descriptors.take(first: said)
        position = start + length
        taken += 1
        let message = try Message(bytes, start..<start + length, descriptors: said)
        if message.row.isSecret { wipe(bytes, start..<position) }
        // One that could not be opened here is not its sender's fault; one too many is.
        guard own.count == said || own.someWereLost, !isOver || descriptors.count == 0 else { throw .wrongDescriptors(message.row.name) }
        return message
    }

    /// The bytes, to be received into again.
    consuming func release() -> [UInt8] { bytes }
}
