import Bytes
import Door
import ISCSI
import Reactor
import SCSI

/// What comes out of the socket of a door between the processes: packets of messages of one family, cut anywhere, with descriptors. Whoever
/// waits for each message and whoever is told of them by a loop see the same; and what has passed is what it was when it is sent on.
enum DoorFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let family = input.byte()
        let atOnce = family & 0x80 != 0
        let packets = Packet.all(&input)
        switch family & 7 {
        case 0: pass(LoginQuestionMessage.self, packets, atOnce: atOnce)
        case 1: pass(LoginAnswerMessage.self, packets, atOnce: atOnce)
        case 2: for order in pass(DataOrderMessage.self, packets, atOnce: atOnce) { serve(order) }
        case 3:
            // What data says is to be kept comes back to its successor.
            for case .keep(_, _, let record) in pass(DataReportMessage.self, packets, atOnce: atOnce) {
                serve(LogicalUnitSettings(disk: 64, blockLength: 512, scsiID: "", serialNumber: "", naa: []), record)
            }
        case 4: pass(OpenQuestion.self, packets, atOnce: atOnce)
        default: pass(OpenAnswer.self, packets, atOnce: atOnce)
        }
    }

    @discardableResult
    private static func pass<Message: DoorMessage>(_ family: Message.Type, _ packets: [Packet], atOnce: Bool) -> [Message] {
        do {
            let (messages, framed, isRefused) = try waitFor(family, packets)
            let echo = try Echo<Message>()
            echo.take(packets, atOnce: atOnce)
            // One of a kind that comes too often is not read for the rest of a second.
            let isPaced = family.table.contains { row in messages.count { $0.code == row.code } >= row.perSecond }
            precondition(isPaced ? framed.starts(with: echo.taken) : echo.taken == framed && echo.isOver == isRefused, "both see the same")
            precondition(isPaced || isRefused ? framed.starts(with: echo.sent) : echo.sent == framed, "it is the same when it is sent on")
            return messages
        } catch { preconditionFailure("sockets can be had: \(error)") }
    }

    /// Takes all messages one by one, up to one that may not be.
    /// - Returns: also those as they stood in their packets
    private static func waitFor<Message: DoorMessage>(_ family: Message.Type, _ packets: [Packet]) throws -> (messages: [Message], framed: [UInt8], isRefused: Bool) {
        var other: FileDescriptor?
        let door = PlainDoor<Message, Message>(try Socket.messagePair().split(&other))
        var (messages, framed): ([Message], [UInt8]) = ([], [])
        for packet in packets {
            guard packet.send(over: other.rawValue ?? -1) else { preconditionFailure("what was sent before has been read") }
            let before = framed.count
            do throws(DoorError) {
                while let message = try door.next(within: 0) {
                    framed += frame(message, descriptors: door.descriptors.count)
                    messages.append(message)
                    precondition(packet.bytes.starts(with: framed[before...]), "\(message.row.name) is what came")
                }
            } catch { return (messages, framed, true) }
            precondition(framed.count - before == packet.bytes.count, "all of a packet is messages")
        }
        return (messages, framed, false)
    }

    /// A message as it stands in a packet.
    static func frame(_ message: some DoorMessage, descriptors: Int) -> [UInt8] {
        let bytes = message.encoded()
        var writer = ByteWriter()
        writer.write(UInt8(descriptors))
        writer.write(bytes)
        return writer.bytes
    }

    /// Sends a message of ours through the door.
    static func passes<Message: DoorMessage>(_ message: Message) {
        let bytes = message.encoded()
        do throws(DoorError) {
            let again = try Message(bytes, descriptors: message.row.descriptors.upperBound)
            precondition(again.encoded() == bytes)
        } catch { preconditionFailure("\(message.row.name) passes: \(error)") }
    }

    private static func serve(_ order: DataOrderMessage) {
        switch order {
        case .addLogicalUnit(_, _, _, let settings, _, let record): serve(settings, record)
        case .updateLogicalUnit(_, _, _, let settings, _, _): serve(settings, UnitRecord())
        default: break
        }
    }

    /// A logical unit of these settings and reservations answers what shows them.
    private static func serve(_ settings: LogicalUnitSettings, _ record: UnitRecord) {
        let unit = LogicalUnit(settings, targetName: Array("iqn.t".utf8), record: record)
        let initiators = [InitiatorPort(name: Array("iqn.a".utf8), isid: 1)] + record.reservations.registrations.prefix(2).map(\.initiator)
        for (number, initiator) in initiators.enumerated() { unit.attach(NexusID(rawValue: UInt64(number) + 1), NexusName(initiator: initiator, portalGroupTag: 1)) }
        for nexus in initiators.indices {
            for cdb in questions { answer(unit, NexusID(rawValue: UInt64(nexus) + 1), cdb) }
        }
    }

    /// INQUIRY and its pages, MODE SENSE of all pages, READ CAPACITY(16), PERSISTENT RESERVE IN, then OUT: CLEAR.
    private static let questions: [[UInt8]] = [
        [0x00], [0x12, 0, 0, 0, 0xff], [0x12, 1, 0x00, 0, 0xff], [0x12, 1, 0x80, 0, 0xff], [0x12, 1, 0x83, 2, 0xff], [0x12, 1, 0xb0, 0, 0xff],
        [0x12, 1, 0xb1, 0, 0xff], [0x12, 1, 0xb2, 0, 0xff], [0x5a, 0, 0x3f, 0xff, 0, 0, 0, 0xff, 0xff], [0x1a, 0, 0x3f, 0, 0xff],
        [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20], [0x5e, 0, 0, 0, 0, 0, 0, 0xff, 0xff], [0x5e, 1, 0, 0, 0, 0, 0, 0xff, 0xff],
        [0x5e, 2, 0, 0, 0, 0, 0, 0xff, 0xff], [0x5e, 3, 0, 0, 0, 0, 0, 0xff, 0xff], [0x5f, 3, 0, 0, 0, 0, 0, 0, 24],
    ]

    private static func answer(_ unit: LogicalUnit, _ nexus: NexusID, _ cdb: [UInt8]) {
        let block = CommandDescriptorBlock(InlineArray { $0 < cdb.count ? cdb[$0] : 0 })
        let count = unit.dataOutLength(block)
        let pool = BufferPool(budget: 1 << 20, cached: 0)
        let buffer = count > 0 ? pool.allocate(count) : nil
        var task = DeviceTask(nexus: nexus, cdb: block, dataOutCount: count)
        var step = unit.begin(&task, dataOut: buffer)
        while case .keep = step {
            while let record = unit.recordToKeep() {
                precondition(record.reservations.isSound)
                unit.settle(isKept: true)
            }
            step = unit.resume(&task, after: .done, buffer: buffer)
        }
        guard case .done = step else { preconditionFailure("none of these needs the medium") }
    }
}

/// What passes the socket at once.
private struct Packet {
    /// At least one.
    let bytes: [UInt8]
    let descriptors: Int

    /// Up to the end of `input`: for each, how many descriptors, how many bytes, and these.
    static func all(_ input: inout Input) -> [Packet] {
        var packets: [Packet] = []
        while !input.isEmpty {
            let descriptors = min(input.number(), DoorLimits.batchMessages)
            let bytes = input.take(Int(input.uint16()))
            if !bytes.isEmpty { packets.append(Packet(bytes: bytes, descriptors: descriptors)) }
        }
        return packets
    }

    /// - Returns: false: nobody reads any more
    func send(over socket: Int32) -> Bool {
        guard case .done = Socket.sendMessage(socket, bytes, descriptors: [Int32](repeating: Self.file.rawValue, count: descriptors)) else { return false }
        return true
    }

    /// What is sent along.
    private static let file = try! FoundFile("/dev/null").open(0)
}

/// Says in the turns of a loop what it is told, with the descriptors that came along.
private final class Echo<Message: DoorMessage> {
    private let loop: EventLoop
    private let other: FileDescriptor
    private var link: DoorLink<Message, Message>?
    /// The messages as they stood in their packets.
    private(set) var taken: [UInt8] = []
    /// What came back.
    private(set) var sent: [UInt8] = []
    private(set) var isOver = false

    /// As many packets fit a socket.
    private static var packetsAtOnce: Int { 8 }

    init() throws {
        loop = try EventLoop()
        var other: FileDescriptor?
        let socket = try Socket.messagePair().split(&other)
        guard let other = other.take() else { preconditionFailure("a pair has two ends") }
        self.other = other
        link = try DoorLink(loop: loop, socket: socket) { [unowned self] message, descriptors in
            taken += DoorFuzz.frame(message, descriptors: descriptors.count)
            link?.send(message, giving: descriptors.take())
        } onEnd: { [unowned self] _ in isOver = true }
    }

    func take(_ packets: [Packet], atOnce: Bool) {
        // The loop and what it watches hold each other.
        defer { link?.close() }
        for (index, packet) in packets.enumerated() {
            guard packet.send(over: other.rawValue) else { return }
            if !atOnce || index % Self.packetsAtOnce == Self.packetsAtOnce - 1 { turn(1) }
        }
        turn(Self.packetsAtOnce)
    }

    private func turn(_ count: Int) {
        for _ in 0..<count { loop.turn(waitingAtMost: 0) }
        while case .message(let bytes, _) = Socket.receiveMessage(other.rawValue) { sent += bytes }
    }
}
