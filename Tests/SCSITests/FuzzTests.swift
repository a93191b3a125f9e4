import Bytes
import Medium
import Testing
@testable import SCSI

@Suite struct FuzzTests {
    @Test("Nothing that a CDB and its data say makes the device server trap", arguments: [1, 2, 3, 4] as [UInt64])
    func random(seed: UInt64) throws {
        var seeded = Seeded(seed &* 0x9e37_79b9_7f4a_7c15)
        var settings = Rig.disk(blockLength: seed % 2 == 0 ? 512 : 4096)
        settings.isThinProvisioned = seed != 3
        settings.isRemovable = seed > 2
        let unit = LogicalUnit(settings, targetName: Rig.target)
        let pool = BufferPool(budget: 1 << 26)
        let buffer = try #require(pool.allocate(1 << 20))
        let nexuses = (1...3).map { NexusID(rawValue: $0) }
        for nexus in nexuses { unit.attach(nexus, Rig.name(nexus)) }
        let failures: [Failure] = [.unreadable, .unwritable, .noSpace, .readOnly, .miscompare(offset: .max), .unsupported]
        var seen: Set<UInt8> = []
        for round in 0..<50_000 {
            var bytes = seeded.bytes(16)
            // Mostly commands that exist, often with their small numbers: the rest dies at the first check.
            if seeded.below(4) > 0 {
                let command = CommandTable.commands[seeded.below(CommandTable.commands.count)]
                bytes[0] = command.operationCode
                if let action = command.serviceAction { bytes[1] = action }
                for index in 1..<16 where seeded.below(8) > 0 { bytes[index] &= command.allowedBits(index) }
                if seeded.below(2) == 0 { for index in 1..<command.length where seeded.below(3) > 0 && index != 1 { bytes[index] &= 0x01 } }
            }
            let block = cdb(bytes)
            let wanted = unit.dataOutLength(block)
            check(wanted >= 0 && wanted <= Limits.maximumTransferBytes)
            let count = min(wanted, seeded.below(3) == 0 ? seeded.below(1 << 12) : 1 << 20)
            // Keys, lengths and block numbers are small half of the time, so that they match.
            let mask: UInt8 = seeded.below(2) == 0 ? 0xff : 0x01
            let noise = seeded.bytes(min(count, 64)).map { $0 & mask }
            buffer.copy(noise.span, to: 0)
            let nexus = nexuses[seeded.below(3)]
            var task = DeviceTask(nexus: nexus, cdb: block, dataOutCount: count, expectedDataOutCount: seeded.below(2) == 0 ? count : nil)
            var step = unit.begin(&task, dataOut: count > 0 ? buffer : nil)
            var turns = 0
            loop: while true {
                turns += 1
                check(turns < 2000)
                switch step {
                case .done(let completion):
                    check((completion.status == .checkCondition) == !completion.sense.isEmpty)
                    seen.insert(completion.status.rawValue)
                    break loop
                case .keep(let revision):
                    while let record = unit.recordToKeep() {
                        check(record.reservations.isSound)
                        unit.settle(isKept: seeded.below(4) > 0)
                    }
                    check(unit.isDecided(revision))
                    step = unit.resume(&task, after: .done, buffer: buffer)
                case .medium(let operation, let length):
                    check(length >= 0 && length <= Limits.maximumTransferBytes)
                    check(end(operation) <= UInt64(settings.blockLength) * Rig.blocks)
                    let outcome: Outcome = switch seeded.below(8) {
                    case 0: .failed(failures[seeded.below(failures.count)])
                    case 1: .provisioned([ProvisionedRun(extent: Extent(offset: seeded.next(), length: seeded.next()), isMapped: true)])
                    default: .done
                    }
                    step = unit.resume(&task, after: outcome, buffer: length <= buffer.capacity ? buffer : nil)
                }
            }
            if round % 1000 == 0 {
                unit.detach(nexus)
                unit.attach(nexus, Rig.name(nexus))
            }
            if round % 977 == 0 {
                unit.reset()
                unit.apply({ var off = settings; off.isOnline = false; return off }())
                unit.apply(settings)
            }
        }
        #expect(seen == [0x00, 0x02, 0x18])
    }

    /// `#expect` costs more than what it checks.
    private func check(_ holds: Bool, _ location: SourceLocation = #_sourceLocation) {
        if !holds { Issue.record("an invariant does not hold", sourceLocation: location) }
    }

    private func end(_ operation: Medium.Operation) -> UInt64 {
        switch operation {
        case .read(let extent), .write(let extent, _), .verify(let extent), .compare(let extent), .orWrite(let extent, _),
             .compareAndWrite(let extent, _), .prefetch(let extent), .provisioning(let extent), .writeSame(let extent, _, _): extent.end
        case .flush: 0
        case .discard(let extents): extents.map(\.end).max() ?? 0
        }
    }
}
