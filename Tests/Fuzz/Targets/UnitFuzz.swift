import Bytes
import Medium
import SCSI

/// Command descriptor blocks with their parameter data, from several initiators, at one logical unit.
enum UnitFuzz {
    private static let blocks: UInt64 = 16
    private static let target = Array("iqn.2026-01.test:t".utf8)
    private static let nexuses = (1...3).map { NexusID(rawValue: $0) }
    /// Turns that one command takes at most: UNMAP's and GET LBA STATUS's descriptors come in batches.
    private static let turns = 2000
    /// Bytes of data that one command brings at most: more than the medium has, little enough to be quick.
    private static let mostData = 512 << 10

    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let choices = Choices(input.byte())
        let settings = settings(choices)
        let unit = LogicalUnit(settings, targetName: target)
        for nexus in nexuses { attach(nexus, unit) }
        var medium = MemoryMedium(length: Int(blocks) * settings.blockLength)
        let pool = BufferPool(budget: 32 << 20, cached: 0)
        while !input.isEmpty {
            let step = input.byte()
            switch step & 0x0f {
            case 0x0e: change(unit, settings, &input)
            default: command(unit, &medium, pool, nexuses[Int(step & 3) % 3], &input, store: Choices(step >> 4))
            }
        }
        precondition(unit.record.reservations.isSound)
        precondition(pool.inUse == 0)
    }

    static func settings(_ choices: Choices) -> LogicalUnitSettings {
        var settings = LogicalUnitSettings(
            disk: blocks, blockLength: choices[0] ? 4096 : 512, scsiID: "IET     00010001", serialNumber: "beaf11",
            naa: [0x60] + [UInt8](repeating: 7, count: 15))
        settings.isThinProvisioned = choices[1]
        settings.isRemovable = choices[2]
        settings.descriptorSense = choices[3]
        settings.isReadOnly = choices[4]
        settings.keepsReservations = choices[6]
        if choices[5] { settings.modePages = [.init(page: 0x08, subpage: 0, data: [UInt8](repeating: 0xff, count: 0x12))] }
        return settings
    }

    private static func attach(_ nexus: NexusID, _ unit: LogicalUnit) {
        let initiator = InitiatorPort(name: Array("iqn.2026-01.test:\(nexus.rawValue)".utf8), isid: nexus.rawValue)
        unit.attach(nexus, NexusName(initiator: initiator, portalGroupTag: UInt16(nexus.rawValue)))
        // What begins every nexus is nothing new.
        var task = DeviceTask(nexus: nexus, cdb: CommandDescriptorBlock(InlineArray(repeating: 0)))
        _ = unit.begin(&task, dataOut: nil)
    }

    private static func change(_ unit: LogicalUnit, _ settings: LogicalUnitSettings, _ input: inout Input) {
        let choice = input.byte()
        let nexus = nexuses[Int(choice >> 4) % 3]
        switch choice & 7 {
        case 0: unit.detach(nexus)
        case 1: attach(nexus, unit)
        case 2: unit.reset()
        case 3, 4, 5:
            var changed = settings
            changed.isOnline = choice & 8 == 0
            changed.isReadOnly = choice & 0x10 != 0
            changed.hasMedium = choice & 0x20 == 0
            unit.apply(changed)
        default: unit.post(.reportedLUNsDataChanged, to: .allBut(nexus))
        }
    }

    private static func command(
        _ unit: LogicalUnit, _ medium: inout MemoryMedium, _ pool: BufferPool, _ nexus: NexusID, _ input: inout Input, store: Choices
    ) {
        let cdb = CommandDescriptorBlock(&input)
        let wanted = unit.dataOutLength(cdb)
        precondition((0...Limits.maximumTransferBytes).contains(wanted))
        // Data as announced, or less of it; what the input has not, is zero.
        var count = min(wanted, mostData)
        var content: [UInt8] = []
        if wanted > 0 {
            let given = input.number()
            if store[1] { count = min(count, given) }
            content = input.take(min(count, given))
        }
        var buffer = count > 0 ? pool.allocate(count) : nil
        buffer?.copy(content.span, to: 0)
        var task = DeviceTask(nexus: nexus, cdb: cdb, dataOutCount: count, expectedDataOutCount: store[0] ? count : nil)
        var step = unit.begin(&task, dataOut: buffer)
        for _ in 0..<turns {
            switch step {
            case .done(let completion): return check(completion, buffer)
            case .keep(let revision):
                while let record = unit.recordToKeep() {
                    precondition(record.reservations.isSound)
                    unit.settle(isKept: !store[2])
                }
                precondition(unit.isDecided(revision))
                step = unit.resume(&task, after: .done, buffer: buffer)
            case .medium(let operation, let length):
                precondition((0...Limits.maximumTransferBytes).contains(length))
                if length > buffer?.capacity ?? 0 {
                    guard let larger = pool.allocate(length) else { preconditionFailure("one command's data fit the pool") }
                    if let buffer { larger.copy(buffer.array(0..<buffer.capacity).span, to: 0) }
                    buffer = larger
                }
                let outcome: Outcome = store[2] ? .failed(Failure(input.byte())) : medium.perform(operation, buffer)
                step = unit.resume(&task, after: outcome, buffer: buffer)
            }
        }
        preconditionFailure("a command comes to its end")
    }

    private static func check(_ completion: Completion, _ buffer: Buffer?) {
        precondition((completion.status == .checkCondition) == !completion.sense.isEmpty)
        precondition(completion.sense.count <= 252, "SPC-4 §4.5.1")
        if case .buffer(let count) = completion.dataIn { precondition(count <= buffer?.capacity ?? 0) }
    }
}

extension CommandDescriptorBlock {
    init(_ input: inout Input) {
        let cdb = CDBBytes(&input)
        self.init(InlineArray { cdb.bytes[$0] })
    }
}
