import Bytes
import Door
import ISCSI
import SCSI

/// Messages of every family at the door between the processes: what passes is what it was on the other side.
enum DoorFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let family = input.byte()
        let descriptors = Int(family >> 4 & 3)
        let message = input.rest()
        switch family & 0x0f {
        case 0: receive(LoginQuestionMessage.self, message, descriptors)
        case 1: receive(LoginAnswerMessage.self, message, descriptors)
        case 2: receive(DataOrderMessage.self, message, descriptors).map(serve)
        case 3:
            // What data says is to be kept comes back to its successor.
            if case .keep(_, _, let record)? = receive(DataReportMessage.self, message, descriptors) {
                serve(LogicalUnitSettings(disk: 64, blockLength: 512, scsiID: "", serialNumber: "", naa: []), record)
            }
        case 4: receive(OpenQuestion.self, message, descriptors)
        default: receive(OpenAnswer.self, message, descriptors)
        }
    }

    @discardableResult
    private static func receive<Message: DoorMessage>(_ family: Message.Type, _ bytes: [UInt8], _ descriptors: Int) -> Message? {
        do throws(DoorError) {
            let message = try Message(bytes, descriptors: descriptors)
            precondition(message.encoded() == bytes, "\(message.row.name) is the same when it is sent on")
            return message
        } catch {
            return nil
        }
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
