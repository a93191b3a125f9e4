import Bytes
import ISCSI

/// One finding of a survey. What is at rest, and what has done nothing yet, is left out.
public enum SurveyEntry: Hashable, Sendable {
    case logicalUnit(tid: Int32, lun: UInt16, UnitCondition)
    case connection(tsih: UInt16, cid: UInt16, Traffic)
    /// What the commands of one session have done at one logical unit of its target.
    case nexus(tsih: UInt16, lun: UInt16, NexusActivity)
}

/// What initiators have made of a logical unit, and what befell it.
public struct UnitCondition: Hashable, Sendable {
    /// Some nexus prevents removal of the medium (SPC-4 §6.13).
    public var preventsRemoval: Bool
    /// SWP of the control mode page.
    public var isSoftwareWriteProtected: Bool
    public var flushFailed: Bool

    public init(preventsRemoval: Bool = false, isSoftwareWriteProtected: Bool = false, flushFailed: Bool = false) {
        self.preventsRemoval = preventsRemoval
        self.isSoftwareWriteProtected = isSoftwareWriteProtected
        self.flushFailed = flushFailed
    }
}

/// The columns of tgt's `--op stat`.
public struct NexusActivity: Hashable, Sendable {
    public struct Amount: Hashable, Sendable {
        public var bytes: UInt64
        public var commands: UInt64
        public init(bytes: UInt64 = 0, commands: UInt64 = 0) {
            self.bytes = bytes
            self.commands = commands
        }
    }
    public var readSubmitted = Amount()
    public var readDone = Amount()
    public var writeSubmitted = Amount()
    public var writeDone = Amount()
    public var errors: UInt64 = 0
    public init() {}
}

extension SurveyEntry {
    private enum Kind: UInt8 { case logicalUnit = 1, connection = 2, nexus = 3 }

    private static let flags: [WritableKeyPath<UnitCondition, Bool> & Sendable] = [\.preventsRemoval, \.isSoftwareWriteProtected, \.flushFailed]
    private static let counters: [WritableKeyPath<Traffic, UInt64> & Sendable] = [
        \.receivedOctets, \.sentOctets, \.receivedPDUs, \.sentPDUs, \.dataOutPDUs, \.dataInPDUs, \.commandPDUs, \.responsePDUs,
    ]
    private static let amounts: [WritableKeyPath<NexusActivity, NexusActivity.Amount> & Sendable] = [
        \.readSubmitted, \.readDone, \.writeSubmitted, \.writeDone,
    ]

    func encode(into writer: inout ByteWriter) {
        switch self {
        case .logicalUnit(let tid, let lun, let condition):
            writer.write(Kind.logicalUnit.rawValue)
            writer.write(tid)
            writer.write(lun)
            for flag in Self.flags { writer.write(condition[keyPath: flag]) }
        case .connection(let tsih, let cid, let traffic):
            writer.write(Kind.connection.rawValue)
            writer.write(tsih)
            writer.write(cid)
            for counter in Self.counters { writer.write(traffic[keyPath: counter]) }
        case .nexus(let tsih, let lun, let activity):
            writer.write(Kind.nexus.rawValue)
            writer.write(tsih)
            writer.write(lun)
            for amount in Self.amounts {
                writer.write(activity[keyPath: amount].bytes)
                writer.write(activity[keyPath: amount].commands)
            }
            writer.write(activity.errors)
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        switch try reader.enumeration(Kind.self) {
        case .logicalUnit:
            let (tid, lun) = (try reader.int32(), try reader.uint16())
            var condition = UnitCondition()
            for flag in Self.flags { condition[keyPath: flag] = try reader.bool() }
            self = .logicalUnit(tid: tid, lun: lun, condition)
        case .connection:
            let (tsih, cid) = (try reader.uint16(), try reader.uint16())
            var traffic = Traffic()
            for counter in Self.counters { traffic[keyPath: counter] = try reader.uint64() }
            self = .connection(tsih: tsih, cid: cid, traffic)
        case .nexus:
            let (tsih, lun) = (try reader.uint16(), try reader.uint16())
            var activity = NexusActivity()
            for amount in Self.amounts { activity[keyPath: amount] = .init(bytes: try reader.uint64(), commands: try reader.uint64()) }
            activity.errors = try reader.uint64()
            self = .nexus(tsih: tsih, lun: lun, activity)
        }
    }
}
