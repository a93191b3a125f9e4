import Bytes
import Reactor

/// Where a connection that logs in stands, as control remembers it: what may be asked of it next.
public enum LoginPhase: UInt8, CaseIterable, Hashable, Sendable {
    /// Nothing has been asked yet.
    case unknown
    /// Has been given a challenge.
    case proving
    /// Told to proceed to a normal session.
    case negotiating
    /// Told to proceed to a discovery session.
    case discovering
}

/// One permitted message: the row of the door's table that it must satisfy before anything in it is looked at.
public final class DoorRow: Sendable {
    public let code: UInt8
    public let name: String
    /// Most bytes of the whole message.
    public let limit: Int
    /// Descriptors that travel beside it.
    public let descriptors: ClosedRange<Int>
    /// Most messages of this kind in a second; an asker that has more to say is not read until the second is over.
    public let perSecond: Int
    /// In which phases of its connection it may be asked; nil: it belongs to none.
    public let phases: Set<LoginPhase>?
    /// Whether only a process that serves portals with TLS may say it.
    public let isForTLS: Bool
    /// Whether its bytes are wiped behind it, at both ends.
    let isSecret: Bool

    init(
        _ code: UInt8, _ name: String, limit: Int = 4096, descriptors: ClosedRange<Int> = 0...0, perSecond: Int = .max,
        in phases: Set<LoginPhase>? = nil, isForTLS: Bool = false, isSecret: Bool = false
    ) {
        self.code = code
        self.name = name
        self.limit = limit
        self.descriptors = descriptors
        self.perSecond = perSecond
        self.phases = phases
        self.isForTLS = isForTLS
        self.isSecret = isSecret
    }
}

/// Limits of the door as a whole.
public enum DoorLimits {
    /// Most bytes of any message: a reservation record with all its registrations, or a page of discovered targets.
    public static let message = 128 << 10
    /// Most targets in one part of an answer to `SendTargets`, and most addresses of one target: so many fit a message.
    public static let discoveredTargets = 32
    public static let discoveredAddresses = 64
    /// Most findings in one part of a survey: so many of the longest fit a message.
    public static let surveyEntries = 1024
    /// Seconds between heartbeats, and how long one may stay unanswered before the process is ended.
    public static let heartbeatInterval = 2
    public static let heartbeatPatience = 15
    /// Messages that may wait for a process to read them: control's pictures of all that is served, at its start.
    public static let unsent = 1 << 20
    /// Messages that pass together: as many as may each bring a descriptor.
    public static let batchMessages = Socket.mostDescriptors
    /// Bytes of them after which no more come along.
    static let batchBytes = 16 << 10
    /// Bytes that are received at once: the last message of a batch may be the longest.
    static let received = batchBytes + Batch.header + message
    /// Messages taken from one door before the others of the loop have their turn, and the rest of those that have come with them.
    public static let messagesPerTurn = 64
    /// Bytes of a path (PATH_MAX without its terminating zero).
    public static let path = 4095
    /// Bytes of the messages with the process that opens stores: a sentence about a path, each of whose bytes may take three where it is
    /// no UTF-8.
    static let opening = 4 * path
    /// Bytes of a Login Response that refuses: it has no text (RFC 7143 §11.13).
    static let refusal = 48
    /// Pairs of a parameter list.
    static let parameters = 64
}

/// Why a message is not let through. Its sender is ended: our own processes do not send such.
public enum DoorError: Error, Hashable, Sendable {
    case unknownMessage(UInt8)
    /// More at once than pass together.
    case tooMany
    case tooLong(String)
    case wrongDescriptors(String)
    case malformed(String, ByteReaderError)
    case outOfPhase(String)
}

/// A family of messages that go one way through the door.
public protocol DoorMessage: Sendable {
    /// Every message of the family, in the order of their codes, which count from 1.
    static var table: [DoorRow] { get }
    /// Its code, and the code's row in `table`.
    var code: UInt8 { get }
    func encodeBody(into writer: inout ByteWriter)
    /// Reads the body of the message with this code, which is in the table.
    init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError)
}

extension DoorMessage {
    public var row: DoorRow {
        guard let row = Self.row(code) else { preconditionFailure("every message has its row") }
        return row
    }

    private static func row(_ code: UInt8) -> DoorRow? {
        let (table, index) = (Self.table, Int(code) - 1)
        guard table.indices.contains(index) else { return nil }
        precondition(table[index].code == code, "codes count from 1")
        return table[index]
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(code)
        encodeBody(into: &writer)
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        encode(into: &writer)
        precondition(writer.bytes.count <= row.limit, "a message of ours is within its own limit")
        return writer.bytes
    }

    /// Reads one message, which is all of these bytes, against its row.
    /// - Parameter descriptors: as many as its sender says it has sent along
    public init(_ bytes: [UInt8], descriptors: Int) throws(DoorError) { try self.init(bytes, 0..<bytes.count, descriptors: descriptors) }

    /// - Parameter range: where the message stands
    init(_ bytes: [UInt8], _ range: Range<Int>, descriptors: Int) throws(DoorError) {
        let code = range.isEmpty ? 0 : bytes[range.lowerBound]
        guard let row = Self.row(code) else { throw .unknownMessage(code) }
        guard range.count <= row.limit else { throw .tooLong(row.name) }
        guard row.descriptors.contains(descriptors) else { throw .wrongDescriptors(row.name) }
        var reader = ByteReader(bytes, range)
        do {
            _ = try reader.uint8()
            self = try Self(code: code, body: &reader)
            try reader.end()
        } catch {
            throw .malformed(row.name, error)
        }
    }
}
