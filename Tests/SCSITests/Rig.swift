import Bytes
import Medium
import Testing
@testable import SCSI

func cdb(_ bytes: [UInt8]) -> CommandDescriptorBlock {
    var block = InlineArray<16, UInt8>(repeating: 0)
    for index in bytes.indices { block[index] = bytes[index] }
    return CommandDescriptorBlock(block)
}

func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    stride(from: T.bitWidth - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: value >> T($0)) }
}

func number(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

/// CDBs of the commands that tests use most.
func read10(_ lba: UInt32, _ count: UInt16, flags: UInt8 = 0) -> [UInt8] { [0x28, flags] + big(lba) + [0] + big(count) + [0] }
func write10(_ lba: UInt32, _ count: UInt16, flags: UInt8 = 0) -> [UInt8] { [0x2a, flags] + big(lba) + [0] + big(count) + [0] }
func ten(_ code: UInt8, _ lba: UInt32, _ count: UInt16, flags: UInt8 = 0) -> [UInt8] { [code, flags] + big(lba) + [0] + big(count) + [0] }
func sixteen(_ code: UInt8, _ lba: UInt64, _ count: UInt32, flags: UInt8 = 0) -> [UInt8] { [code, flags] + big(lba) + big(count) + [0, 0] }
let testUnitReady: [UInt8] = [0, 0, 0, 0, 0, 0]

struct Answer {
    var status: Status
    var sense: [UInt8]
    var data: [UInt8]
    var aborts: [NexusID]

    /// Key, ASC, ASCQ of fixed-format sense data.
    var code: [UInt8] { sense.count == 18 ? [sense[2], sense[12], sense[13]] : [] }
    var isGood: Bool { status == .good }
    var isConflict: Bool { status == .reservationConflict && sense.isEmpty }
    func check(_ key: UInt8, _ asc: UInt8, _ ascq: UInt8) -> Bool { status == .checkCondition && code == [key, asc, ascq] }
}

/// A logical unit with a medium in memory behind it, and whoever keeps its reservations.
final class Rig {
    let unit: LogicalUnit
    let pool = BufferPool(budget: 1 << 30)
    var medium: [UInt8]
    var mapped: [Bool]
    var operations: [Medium.Operation] = []
    var kept: [UnitRecord] = []
    /// Whether what is to be kept is.
    var isKept = true
    /// What the medium answers instead of doing what it is asked.
    var fault: ((Medium.Operation) -> Failure?) = { _ in nil }
    let a = NexusID(rawValue: 1), b = NexusID(rawValue: 2), c = NexusID(rawValue: 3)

    static let blocks: UInt64 = 1024
    static func disk(blockLength: Int = 512) -> LogicalUnitSettings {
        LogicalUnitSettings(disk: blocks, blockLength: blockLength, scsiID: "IET     00010001", serialNumber: "beaf11",
                            naa: [0x60] + [UInt8](repeating: 7, count: 15))
    }
    static let target = Array("iqn.2001-04.com.example:disk".utf8)
    static func name(_ nexus: NexusID, through tag: UInt16 = 1) -> NexusName { NexusName(initiator: initiator(nexus), portalGroupTag: tag) }
    static func initiator(_ nexus: NexusID) -> InitiatorPort {
        InitiatorPort(name: Array("iqn.2001-04.com.example:host\(nexus.rawValue)".utf8), isid: 0x8000_0000_0000 + nexus.rawValue)
    }

    init(_ settings: LogicalUnitSettings = Rig.disk(), record: UnitRecord = UnitRecord(), quiet: Bool = true) {
        unit = LogicalUnit(settings, targetName: Rig.target, record: record)
        medium = [UInt8](repeating: 0, count: Int(Rig.blocks) * settings.blockLength)
        mapped = [Bool](repeating: false, count: Int(Rig.blocks))
        for nexus in [a, b, c] {
            unit.attach(nexus, Rig.name(nexus))
            if quiet { #expect(run(testUnitReady, nexus).code == [6, 0x29, 0]) }
        }
    }

    static func with(_ change: (inout LogicalUnitSettings) -> Void, quiet: Bool = true) -> Rig {
        var settings = disk()
        change(&settings)
        return Rig(settings, quiet: quiet)
    }

    /// Carries a command out. `sent` is what the initiator expects to send; the rig transfers what the unit wants of it.
    @discardableResult
    func run(_ bytes: [UInt8], _ nexus: NexusID? = nil, sending sent: [UInt8] = [], exact: Bool = false, mayOnlyRead: Bool = false) -> Answer {
        let block = cdb(bytes)
        let count = min(unit.dataOutLength(block), sent.count)
        var buffer = count > 0 ? pool.allocate(count) : nil
        if count > 0 { sent.span.extracting(0..<count).copy(to: buffer) }
        var task = DeviceTask(nexus: nexus ?? a, cdb: block, dataOutCount: count, expectedDataOutCount: exact ? sent.count : nil)
        task.mayOnlyRead = mayOnlyRead
        var step = unit.begin(&task, dataOut: buffer)
        while true {
            switch step {
            case .done(let completion):
                let data: [UInt8] = switch completion.dataIn {
                case .none: []
                case .bytes(let bytes): bytes
                case .buffer(let count): buffer?.array(0..<count) ?? []
                }
                return Answer(status: completion.status, sense: completion.sense, data: data, aborts: task.abortsTasksOf)
            case .keep(let revision):
                keep()
                #expect(unit.isDecided(revision))
                step = unit.resume(&task, after: .done, buffer: buffer)
            case .medium(let operation, let length):
                operations.append(operation)
                if length > 0, buffer == nil || buffer?.capacity ?? 0 < length { buffer = pool.allocate(length) }
                step = unit.resume(&task, after: fault(operation).map(Outcome.failed) ?? perform(operation, buffer), buffer: buffer)
            }
        }
    }

    /// Answers what the unit wants kept.
    func keep() {
        while let record = unit.recordToKeep() {
            kept.append(record)
            unit.settle(isKept: isKept)
        }
    }

    private func perform(_ operation: Medium.Operation, _ buffer: Buffer?) -> Outcome {
        func range(_ extent: Extent) -> Range<Int> { Int(extent.offset)..<Int(extent.end) }
        func data(_ from: Int, _ count: Int) -> [UInt8] { buffer?.array(from..<from + count) ?? [] }
        func store(_ bytes: [UInt8], _ extent: Extent) {
            medium.replaceSubrange(range(extent), with: bytes)
            let blockLength = medium.count / mapped.count
            for block in Int(extent.offset) / blockLength..<(Int(extent.end) + blockLength - 1) / blockLength { mapped[block] = true }
        }
        switch operation {
        case .read(let extent): Array(medium[range(extent)]).span.copy(to: buffer)
        case .write(let extent, _): store(data(0, Int(extent.length)), extent)
        case .flush, .verify, .prefetch: break
        case .discard(let extents):
            let blockLength = medium.count / mapped.count
            for extent in extents {
                for index in range(extent) { medium[index] = 0 }
                for block in Int(extent.offset) / blockLength..<Int(extent.end) / blockLength { mapped[block] = false }
            }
        case .writeSame(let extent, let pattern, _):
            let one = data(0, pattern)
            store((0..<Int(extent.length) / pattern).flatMap { _ in one }, extent)
        case .compare(let extent):
            let wanted = data(0, Int(extent.length))
            for (index, position) in range(extent).enumerated() where medium[position] != wanted[index] {
                return .failed(.miscompare(offset: index))
            }
        case .orWrite(let extent, _):
            let bits = data(0, Int(extent.length))
            store(zip(medium[range(extent)], bits).map { $0 | $1 }, extent)
        case .compareAndWrite(let extent, _):
            let count = Int(extent.length)
            let wanted = data(0, count)
            for (index, position) in range(extent).enumerated() where medium[position] != wanted[index] {
                return .failed(.miscompare(offset: index))
            }
            store(data(count, count), extent)
        case .provisioning(let extent):
            let blockLength = UInt64(medium.count / mapped.count)
            var runs: [ProvisionedRun] = []
            for block in Int(extent.offset / blockLength)..<mapped.count {
                if let last = runs.last, last.isMapped == mapped[block] {
                    runs[runs.count - 1].extent.length += blockLength
                } else {
                    runs.append(ProvisionedRun(extent: Extent(offset: UInt64(block) * blockLength, length: blockLength), isMapped: mapped[block]))
                }
            }
            return .provisioned(runs)
        }
        return .done
    }
}

extension Span where Element == UInt8 {
    func copy(to buffer: Buffer?) { buffer?.copy(self, to: 0) }
}

/// A small generator for seeded tests (xorshift64*).
struct Seeded {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 0x2545_f491_4f6c_dd1d
    }
    mutating func below(_ bound: Int) -> Int { Int(next() >> 33) % bound }
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next() >> 40) } }
}

/// A CDB that asks for every command of the table in its plainest valid form.
func plain(_ command: Command) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: command.length)
    bytes[0] = command.operationCode
    bytes[1] = command.serviceAction ?? 0
    switch command.addressing {
    case .six: bytes[4] = 1
    case .ten where command.action != .readCapacity10: bytes[8] = 1
    case .twelve: bytes[9] = 1
    case .sixteen: bytes[13] = 1
    case .short16: bytes[13] = 1
    default: break
    }
    switch command.action {
    case .modeSense: bytes[2] = 0x3f; bytes[command.length == 6 ? 4 : 8] = 0xff
    case .inquiry, .requestSense: bytes[4] = 0xff
    case .readCapacity16, .statusOfBlocks: bytes[13] = 0xff
    case .reportOperationCodes, .reportTaskManagement: bytes[8] = 0xff
    case .reservationIn: bytes[8] = 0xff
    case .reservationOut: bytes[2] = 1; bytes[8] = 24
    case .preventAllow: bytes[4] = 1
    default: break
    }
    return bytes
}

/// Data-Out that goes with `plain`.
func plainData(_ command: Command) -> [UInt8] { command.action == .reservationOut ? [UInt8](repeating: 0, count: 24) : [UInt8](repeating: 0, count: 1024) }

/// The descriptors of GET LBA STATUS: first block, number of blocks, status.
func statusRuns(_ data: [UInt8]) -> [[UInt64]] {
    var runs: [[UInt64]] = []
    for start in stride(from: 8, to: data.count, by: 16) {
        let first = number(data[start..<start + 8])
        let count = number(data[start + 8..<start + 12])
        runs.append([first, count, UInt64(data[start + 12])])
    }
    return runs
}
