import Bytes
import SCSI

/// The values of `SCSI` as they pass the door. Limits are those of the standards' fields, so that a reader can hold a writer
/// to them.
extension LogicalUnitSettings {
    static let longestText = 256
    static let mostModePages = 64

    func encode(into writer: inout ByteWriter) {
        writer.write(deviceType.rawValue)
        writer.write(UInt32(blockLength))
        writer.write(blockCount)
        for text in [vendor, product, revision, scsiID, serialNumber] { writer.write(text) }
        writer.write(naa)
        for flag in [isOnline, isRemovable, hasMedium, isReadOnly, isThinProvisioned, descriptorSense, keepsReservations] { writer.write(flag) }
        writer.write(rotationRate)
        writer.write(physicalBlockExponent)
        writer.write(lowestAlignedBlock)
        writer.write(optimalTransferGranularity)
        writer.write(optimalTransferLength)
        writer.write(modePages) { writer, page in
            writer.write(page.page)
            writer.write(page.subpage)
            writer.write(page.data)
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let deviceType = try reader.enumeration(DeviceType.self)
        let blockLength = Int(try reader.uint32())
        guard blockLength == 512 || blockLength == 4096 else { throw .invalid }
        let blockCount = try reader.uint64()
        guard !blockCount.multipliedReportingOverflow(by: UInt64(blockLength)).overflow else { throw .invalid }
        self.init(disk: blockCount, blockLength: blockLength, scsiID: "", serialNumber: "", naa: [])
        self.deviceType = deviceType
        vendor = try reader.string(limit: Self.longestText)
        product = try reader.string(limit: Self.longestText)
        revision = try reader.string(limit: Self.longestText)
        scsiID = try reader.string(limit: Self.longestText)
        serialNumber = try reader.string(limit: Self.longestText)
        naa = try reader.byteString(limit: 16)
        isOnline = try reader.bool()
        isRemovable = try reader.bool()
        hasMedium = try reader.bool()
        isReadOnly = try reader.bool()
        isThinProvisioned = try reader.bool()
        descriptorSense = try reader.bool()
        keepsReservations = try reader.bool()
        rotationRate = try reader.uint16()
        physicalBlockExponent = try reader.uint8()
        lowestAlignedBlock = try reader.uint16()
        optimalTransferGranularity = try reader.uint16()
        optimalTransferLength = try reader.uint32()
        modePages = try reader.list(limit: Self.mostModePages) { reader throws(ByteReaderError) in
            ModePageOverride(page: try reader.uint8(), subpage: try reader.uint8(), data: try reader.byteString(limit: 255))
        }
    }
}

extension LUNMask {
    func encode(into writer: inout ByteWriter) {
        writer.write(runs) { writer, run in
            writer.write(run.first)
            writer.write(run.last)
            writer.write(run.access.rawValue)
        }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        // A rule for the name and one for the address, together.
        let runs = try reader.list(limit: 2 * Self.mostRuns) { reader throws(ByteReaderError) in
            let (first, last) = (try reader.uint16(), try reader.uint16())
            guard first <= last else { throw .invalid }
            return Run(first...last, try reader.enumeration())
        }
        // There is one way to say each mask.
        guard let mask = LUNMask(runs), mask.runs == runs else { throw .invalid }
        self = mask
    }
}

extension UnitRecord {
    func encode(into writer: inout ByteWriter) {
        writer.write(revision)
        reservations.encode(into: &writer)
        writer.write(flushFailed)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(revision: try reader.uint64(), reservations: try PersistentReservations(from: &reader), flushFailed: try reader.bool())
    }
}

extension PersistentReservations {
    func encode(into writer: inout ByteWriter) {
        writer.write(generation)
        writer.write(registrations) { writer, registration in
            writer.write(registration.initiator.name)
            writer.write(registration.initiator.isid)
            writer.write(registration.relativeTargetPort)
            writer.write(registration.key)
        }
        writer.write(kind) { $0.write($1.rawValue) }
        writer.write(holder) { $0.write(count: $1) }
        writer.write(outlivesPowerLoss)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init()
        generation = try reader.uint32()
        registrations = try reader.list(limit: Self.mostRegistrations) { reader throws(ByteReaderError) in
            Registration(
                initiator: InitiatorPort(name: try reader.byteString(limit: 223), isid: try reader.uint64()),
                relativeTargetPort: try reader.uint16(), key: try reader.uint64())
        }
        kind = try reader.optional { reader throws(ByteReaderError) in try reader.enumeration(Kind.self) }
        holder = try reader.optional { reader throws(ByteReaderError) in try reader.count(limit: Self.mostRegistrations - 1) }
        outlivesPowerLoss = try reader.bool()
        guard isSound else { throw .invalid }
    }
}
