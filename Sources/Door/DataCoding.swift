import Bytes
import ISCSI
import SCSI

extension StoreDescription {
    func encode(into writer: inout ByteWriter) {
        writer.write(kind.rawValue)
        writer.write(length)
        for flag in [isSynchronous, isDirect, isReadOnly] { writer.write(flag) }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(
            kind: try reader.enumeration(), length: try reader.uint64(), isSynchronous: try reader.bool(),
            isDirect: try reader.bool(), isReadOnly: try reader.bool())
    }
}

extension SessionGrant {
    func encode(into writer: inout ByteWriter) {
        writer.write(tid)
        writer.write(tsih)
        writer.write(number)
        outcome.encode(into: &writer)
        writer.write(nopInterval)
        writer.write(nopCount)
        mask.encode(into: &writer)
        writer.write(portalGroupTag)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(
            tid: try reader.int32(), tsih: try reader.uint16(), number: try reader.uint64(), outcome: try LoginOutcome(from: &reader),
            nopInterval: try reader.uint16(), nopCount: try reader.uint16(), mask: try LUNMask(from: &reader), portalGroupTag: try reader.uint16())
    }
}

extension DataOrderMessage: DoorMessage {
    public static let table: [DoorRow] = [
        DoorRow(1, "addTarget"),
        DoorRow(2, "removeTarget", limit: 32),
        DoorRow(3, "addLogicalUnit", limit: DoorLimits.message, descriptors: 0...1),
        DoorRow(4, "updateLogicalUnit", limit: 32 << 10, descriptors: 0...1),
        DoorRow(5, "removeLogicalUnit", limit: 32),
        DoorRow(6, "grant", limit: 32 << 10, descriptors: 1...1),
        DoorRow(7, "endSession", limit: 32),
        DoorRow(8, "targets", limit: DoorLimits.message),
        DoorRow(9, "kept", limit: 32),
        DoorRow(10, "heartbeat", limit: 16),
        DoorRow(11, "survey", limit: 16),
        DoorRow(12, "setMask"),
        DoorRow(13, "tryStore", limit: 64, descriptors: 0...1),
        DoorRow(14, "openLoginDoor", limit: 1, descriptors: 1...1),
        DoorRow(15, "grantHere", limit: 32 << 10),
    ]

    public var code: UInt8 {
        switch self {
        case .addTarget: 1
        case .removeTarget: 2
        case .addLogicalUnit: 3
        case .updateLogicalUnit: 4
        case .removeLogicalUnit: 5
        case .grant: 6
        case .endSession: 7
        case .targets: 8
        case .kept: 9
        case .heartbeat: 10
        case .survey: 11
        case .setMask: 12
        case .tryStore: 13
        case .openLoginDoor: 14
        case .grantHere: 15
        }
    }

    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .addTarget(let request, let tid, let name):
            writer.write(request.rawValue)
            writer.write(tid)
            name.encode(into: &writer)
        case .removeTarget(let request, let tid, let force):
            writer.write(request.rawValue)
            writer.write(tid)
            writer.write(force)
        case .addLogicalUnit(let request, let tid, let lun, let settings, let store, let record):
            writer.write(request.rawValue)
            writer.write(tid)
            writer.write(lun)
            settings.encode(into: &writer)
            store.encode(into: &writer)
            record.encode(into: &writer)
        case .updateLogicalUnit(let request, let tid, let lun, let settings, let store, let forgetsFailedFlush):
            writer.write(request.rawValue)
            writer.write(tid)
            writer.write(lun)
            settings.encode(into: &writer)
            writer.write(store) { $1.encode(into: &$0) }
            writer.write(forgetsFailedFlush)
        case .removeLogicalUnit(let request, let tid, let lun, let force):
            writer.write(request.rawValue)
            writer.write(tid)
            writer.write(lun)
            writer.write(force)
        case .grant(let grant): grant.encode(into: &writer)
        case .endSession(let request, let tsih):
            writer.write(request.rawValue)
            writer.write(tsih)
        case .targets(let request, let targets, let isLast):
            writer.write(request.rawValue)
            writer.write(targets) { $1.encode(into: &$0) }
            writer.write(isLast)
        case .kept(let tid, let lun, let revision, let isKept):
            writer.write(tid)
            writer.write(lun)
            writer.write(revision)
            writer.write(isKept)
        case .heartbeat(let count): writer.write(count)
        case .survey(let request): writer.write(request.rawValue)
        case .setMask(let request, let tsih, let grant, let mask):
            writer.write(request.rawValue)
            writer.write(tsih)
            writer.write(grant)
            mask.encode(into: &writer)
        case .tryStore(let request, let store):
            writer.write(request.rawValue)
            store.encode(into: &writer)
        case .openLoginDoor: break
        case .grantHere(let id, let grant):
            writer.write(id.rawValue)
            grant.encode(into: &writer)
        }
    }

    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        func request() throws(ByteReaderError) -> RequestID { RequestID(rawValue: try reader.uint64()) }
        switch code {
        case 1: self = .addTarget(try request(), tid: try reader.int32(), name: try ISCSIName(from: &reader))
        case 2: self = .removeTarget(try request(), tid: try reader.int32(), force: try reader.bool())
        case 3:
            self = .addLogicalUnit(
                try request(), tid: try reader.int32(), lun: try reader.uint16(), try LogicalUnitSettings(from: &reader),
                try StoreDescription(from: &reader), try UnitRecord(from: &reader))
        case 4:
            self = .updateLogicalUnit(
                try request(), tid: try reader.int32(), lun: try reader.uint16(), try LogicalUnitSettings(from: &reader),
                try reader.optional { reader throws(ByteReaderError) in try StoreDescription(from: &reader) }, forgetsFailedFlush: try reader.bool())
        case 5: self = .removeLogicalUnit(try request(), tid: try reader.int32(), lun: try reader.uint16(), force: try reader.bool())
        case 6: self = .grant(try SessionGrant(from: &reader))
        case 7: self = .endSession(try request(), tsih: try reader.uint16())
        case 8: self = .targets(try request(), try reader.discoveredTargets(), isLast: try reader.bool())
        case 9: self = .kept(tid: try reader.int32(), lun: try reader.uint16(), revision: try reader.uint64(), isKept: try reader.bool())
        case 10: self = .heartbeat(try reader.uint64())
        case 11: self = .survey(try request())
        case 12: self = .setMask(try request(), tsih: try reader.uint16(), grant: try reader.uint64(), try LUNMask(from: &reader))
        case 13: self = .tryStore(try request(), try StoreDescription(from: &reader))
        case 14: self = .openLoginDoor
        case 15: self = .grantHere(ConnectionID(rawValue: try reader.uint64()), try SessionGrant(from: &reader))
        default: throw .invalid
        }
    }
}

extension DataReportMessage: DoorMessage {
    public static let table: [DoorRow] = [
        DoorRow(1, "done", limit: 32),
        DoorRow(2, "refused", limit: 32),
        DoorRow(3, "sessionBegan", limit: 16),
        DoorRow(4, "sessionEnded", limit: 16),
        DoorRow(5, "keep", limit: DoorLimits.message, perSecond: 5_000),
        DoorRow(6, "sendTargets", perSecond: 5_000),
        DoorRow(7, "heartbeat", limit: 16, perSecond: 100),
        DoorRow(8, "survey", limit: DoorLimits.message, perSecond: 5_000),
    ]

    public var code: UInt8 {
        switch self {
        case .done: 1
        case .refused: 2
        case .sessionBegan: 3
        case .sessionEnded: 4
        case .keep: 5
        case .sendTargets: 6
        case .heartbeat: 7
        case .survey: 8
        }
    }

    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .done(let request): writer.write(request.rawValue)
        case .refused(let request, let refusal):
            writer.write(request.rawValue)
            writer.write(refusal.rawValue)
        case .sessionBegan(let tsih, let grant):
            writer.write(tsih)
            writer.write(grant)
        case .sessionEnded(let tsih, let grant, let end):
            writer.write(tsih)
            writer.write(grant)
            writer.write(end.rawValue)
        case .keep(let tid, let lun, let record):
            writer.write(tid)
            writer.write(lun)
            record.encode(into: &writer)
        case .sendTargets(let request, let tsih, let scope):
            writer.write(request.rawValue)
            writer.write(tsih)
            scope.encode(into: &writer)
        case .heartbeat(let count): writer.write(count)
        case .survey(let request, let entries, let isLast):
            writer.write(request.rawValue)
            writer.write(entries) { $1.encode(into: &$0) }
            writer.write(isLast)
        }
    }

    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1: self = .done(RequestID(rawValue: try reader.uint64()))
        case 2: self = .refused(RequestID(rawValue: try reader.uint64()), try reader.enumeration())
        case 3: self = .sessionBegan(tsih: try reader.uint16(), grant: try reader.uint64())
        case 4: self = .sessionEnded(tsih: try reader.uint16(), grant: try reader.uint64(), try reader.enumeration())
        case 5: self = .keep(tid: try reader.int32(), lun: try reader.uint16(), try UnitRecord(from: &reader))
        case 6: self = .sendTargets(RequestID(rawValue: try reader.uint64()), tsih: try reader.uint16(), try TextRequest.Selection(from: &reader))
        case 7: self = .heartbeat(try reader.uint64())
        case 8:
            self = .survey(
                RequestID(rawValue: try reader.uint64()),
                try reader.list(limit: DoorLimits.surveyEntries) { reader throws(ByteReaderError) in try SurveyEntry(from: &reader) },
                isLast: try reader.bool())
        default: throw .invalid
        }
    }
}
