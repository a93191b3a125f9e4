import Bytes
import ISCSI

/// The values of `ISCSI` as they pass the door.
extension ISCSIName {
    func encode(into writer: inout ByteWriter) { writer.write(spelling) }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let written = try reader.byteString(limit: Self.longest)
        do { try self.init(written) } catch { throw .invalid }
    }
}

extension LoginQuestion {
    /// InitiatorAlias is a text value (RFC 7143 §13.7, §6.1).
    static let longestAlias = 255

    func encode(into writer: inout ByteWriter) {
        initiatorName.encode(into: &writer)
        writer.write(initiatorAlias) { $0.write($1) }
        writer.write(sessionType.rawValue)
        writer.write(targetName) { $1.encode(into: &$0) }
        writer.write(isid.rawValue)
        writer.write(tsih)
        writer.write(cid)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(
            initiatorName: try ISCSIName(from: &reader),
            initiatorAlias: try reader.optional { reader throws(ByteReaderError) in try reader.byteString(limit: Self.longestAlias) },
            sessionType: try reader.enumeration(),
            targetName: try reader.optional { reader throws(ByteReaderError) in try ISCSIName(from: &reader) },
            isid: try reader.isid(), tsih: try reader.uint16(), cid: try reader.uint16())
        guard sessionType == .discovery || targetName != nil else { throw .invalid }
    }
}

extension NegotiatedParameters {
    /// Shows `number` and `flag` every value, in the order in which they pass.
    private mutating func visit<Failure: Error>(
        _ number: (inout Int) throws(Failure) -> Void, _ flag: (inout Bool) throws(Failure) -> Void
    ) throws(Failure) {
        try number(&maxRecvDataSegmentLength)
        try number(&initiatorMaxRecvDataSegmentLength)
        try number(&maxXmitDataSegmentLength)
        try number(&maxOutstandingR2T)
        try number(&firstBurstLength)
        try number(&maxBurstLength)
        try number(&maxConnections)
        try number(&errorRecoveryLevel)
        try number(&defaultTime2Wait)
        try number(&defaultTime2Retain)
        try number(&queueDepth)
        try flag(&headerDigest)
        try flag(&dataDigest)
        try flag(&initialR2T)
        try flag(&immediateData)
        try flag(&dataPDUInOrder)
        try flag(&dataSequenceInOrder)
    }

    func encode(into writer: inout ByteWriter) {
        var values = self
        values.visit({ writer.write(count: $0) }, { writer.write($0) })
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init()
        // Lengths and counts of RFC 7143 §13 fit 24 bits.
        try visit(
            { number throws(ByteReaderError) in number = try reader.count(limit: 0xff_ffff) }, { flag throws(ByteReaderError) in flag = try reader.bool() })
    }
}

extension SessionParameters {
    func encode(into writer: inout ByteWriter) { writer.write(rawValues) { $0.write($1) } }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let values = try reader.list(limit: DoorLimits.parameters) { reader throws(ByteReaderError) in try reader.uint32() }
        guard let parameters = SessionParameters(rawValues: values) else { throw .invalid }
        self = parameters
    }
}

extension LoginOutcome {
    func encode(into writer: inout ByteWriter) {
        identity.encode(into: &writer)
        negotiated.encode(into: &writer)
        writer.write(expCmdSN)
        writer.write(statSN)
        writer.write(finalResponse.currentStage)
        writer.write(finalResponse.initiatorTaskTag)
        writer.write(finalResponse.statSN)
        writer.write(finalResponse.text)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(
            identity: try LoginQuestion(from: &reader), negotiated: try NegotiatedParameters(from: &reader), expCmdSN: try reader.uint32(),
            statSN: try reader.uint32(),
            finalResponse: FinalLoginResponse(
                currentStage: try reader.uint8(), initiatorTaskTag: try reader.uint32(), statSN: try reader.uint32(),
                text: try reader.byteString(limit: 8192)))
        guard finalResponse.currentStage <= 1 else { throw .invalid }
    }
}

extension TextRequest.Selection {
    func encode(into writer: inout ByteWriter) {
        switch self {
        case .all: writer.write(UInt8(0))
        case .name(let name):
            writer.write(UInt8(1))
            name.encode(into: &writer)
        case .sessionTarget: writer.write(UInt8(2))
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        switch try reader.uint8() {
        case 0: self = .all
        case 1: self = .name(try ISCSIName(from: &reader))
        case 2: self = .sessionTarget
        default: throw .invalid
        }
    }
}

extension DiscoveredTarget {
    func encode(into writer: inout ByteWriter) {
        name.encode(into: &writer)
        writer.write(addresses) { $0.write($1) }
        writer.write(portalGroupTag)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(
            name: try ISCSIName(from: &reader),
            addresses: try reader.list(limit: DoorLimits.discoveredAddresses) { reader throws(ByteReaderError) in try reader.string(limit: 64) },
            portalGroupTag: try reader.uint16())
    }
}

extension ByteReader {
    mutating func isid() throws(ByteReaderError) -> ISID {
        let value = try uint64()
        guard value >> 48 == 0 else { throw .invalid }
        return ISID(rawValue: value)
    }

    mutating func loginStatus() throws(ByteReaderError) -> LoginStatus {
        guard let status = LoginStatus(rawValue: try uint16()) else { throw .invalid }
        return status
    }

    mutating func discoveredTargets() throws(ByteReaderError) -> [DiscoveredTarget] {
        try list(limit: DoorLimits.discoveredTargets) { reader throws(ByteReaderError) in try DiscoveredTarget(from: &reader) }
    }
}
