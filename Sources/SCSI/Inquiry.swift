import Bytes

extension DeviceServer {
    /// INQUIRY (SPC-4 §6.6).
    /// - Parameter tag: of the portal group through which it is asked
    func inquiry(_ cdb: CommandDescriptorBlock, through tag: UInt16?) throws(Refusal) -> Step {
        let allocated = Int(cdb.bytes.span.uint16(at: 3))
        let page = cdb.bytes[2]
        guard cdb.bytes[1] & 0x01 != 0 else {
            guard page == 0 else { throw .check(.field(2)) }
            return .done(.data(standardInquiryData, allocated: allocated))
        }
        guard let body = vitalProductData(page, through: tag) else { throw .check(.field(2)) }
        var data: [UInt8] = [settings.deviceType.rawValue, page]
        data.append(bigEndian: UInt16(clamping: body.count))
        return .done(.data(data + body, allocated: allocated))
    }

    /// Standard INQUIRY data (SPC-4 §6.6.2), 66 bytes.
    private var standardInquiryData: [UInt8] {
        let standards: [UInt16] = settings.deviceType == .disk ? [0x00a0, 0x0460, 0x04c0, 0x0960] : [0x00a0, 0x0460, 0x0960, 0]
        var data: [UInt8] = [
            settings.deviceType.rawValue, settings.isRemovable ? 0x80 : 0,
            // SPC-4; HISUP, response data format 2; CMDQUE.
            0x06, 0x12, 0, 0, 0, 0x02,
        ]
        data += text(settings.vendor, 8) + text(settings.product, 16) + text(settings.revision, 4)
        data += [UInt8](repeating: 0, count: 22)
        for standard in standards { data.append(bigEndian: standard) }
        data[4] = UInt8(data.count - 5)
        return data
    }

    /// The page behind its header; nil if there is no such page. Ascending, as page 00h lists them.
    private func vitalProductData(_ page: UInt8, through tag: UInt16?) -> [UInt8]? {
        let isDisk = settings.deviceType == .disk
        switch page {
        case 0x00: return [0x00, 0x80, 0x83, 0x86] + (isDisk ? [0xb0, 0xb1, 0xb2] : [])
        case 0x80: return serialNumber
        case 0x83: return designators(of: TargetPort(name: targetName, portalGroupTag: tag ?? 1))
        case 0x86: return extendedInquiryData
        case 0xb0 where isDisk: return blockLimits
        case 0xb1 where isDisk:
            var body: [UInt8] = []
            body.append(bigEndian: settings.rotationRate)
            return body + [UInt8](repeating: 0, count: 58)
        case 0xb2 where isDisk:
            // LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned (SBC-3 §6.6.6).
            return settings.isThinProvisioned ? [0, 0xe4, 0x02, 0] : [0, 0, 0, 0]
        default: return nil
        }
    }

    /// Serial number and T10 vendor designator have the width that tgt gives them, so that initiators which know a disk by
    /// them know it again; longer ones, up to what a length byte can say, are not cut.
    private static var identityWidth: Int { 36 }
    private static var identityLimit: Int { 252 }

    /// Unit serial number (SPC-4 §7.8.16), right-aligned.
    private var serialNumber: [UInt8] {
        let text = Array(settings.serialNumber.utf8.prefix(Self.identityLimit))
        return [UInt8](repeating: 0x20, count: max(0, Self.identityWidth - text.count)) + text
    }

    /// The text of the T10 vendor designator, left-aligned. Its vendor is part of the text, as tgt's `scsi_id` has it.
    private var vendorDesignator: [UInt8] {
        let text = Array(settings.scsiID.utf8.prefix(Self.identityLimit))
        return text + [UInt8](repeating: 0, count: max(0, Self.identityWidth - text.count))
    }

    /// Device identification (SPC-4 §7.8.6): the logical unit's vendor and NAA designators; the target port's relative
    /// identifier and name, of the port that the command has come through; the target device's name.
    private func designators(of targetPort: TargetPort) -> [UInt8] {
        let deviceName = targetPort.name
        var portName = deviceName + Array(",t,0x".utf8)
        let digits = Array("0123456789abcdef".utf8)
        for shift in stride(from: 12, through: 0, by: -4) { portName.append(digits[Int(targetPort.portalGroupTag >> UInt16(shift) & 0xf)]) }
        let relative = [0, 0, UInt8(targetPort.relativeIdentifier >> 8), UInt8(targetPort.relativeIdentifier & 0xff)]
        return designator(codeSet: 2, type: 0x01, vendorDesignator)
            + (settings.naa.isEmpty ? [] : designator(codeSet: 1, type: 0x03, settings.naa))
            + designator(codeSet: 1, type: 0x94, protocolIdentifier: 5, relative)
            + designator(codeSet: 3, type: 0x98, protocolIdentifier: 5, nameString(portName))
            + designator(codeSet: 3, type: 0xa8, protocolIdentifier: 5, nameString(deviceName))
    }

    private func designator(codeSet: UInt8, type: UInt8, protocolIdentifier: UInt8 = 0, _ bytes: [UInt8]) -> [UInt8] {
        [protocolIdentifier << 4 | codeSet, type, 0, UInt8(clamping: bytes.count)] + bytes.prefix(255)
    }

    /// A SCSI name string: ends with a zero, its length is a multiple of four (SPC-4 §7.8.6.11).
    private func nameString(_ name: [UInt8]) -> [UInt8] {
        name + [UInt8](repeating: 0, count: 4 - name.count % 4)
    }

    /// Extended INQUIRY data (SPC-4 §7.8.7): HEADSUP, ORDSUP, SIMPSUP; LUICLR.
    private var extendedInquiryData: [UInt8] {
        var body = [UInt8](repeating: 0, count: 60)
        body[1] = 0x07
        body[3] = 0x01
        return body
    }

    /// Block limits (SBC-3 §6.6.4).
    private var blockLimits: [UInt8] {
        let thin = settings.isThinProvisioned
        var body: [UInt8] = [0, UInt8(Limits.compareAndWriteBlocks)]
        body.append(bigEndian: settings.optimalTransferGranularity)
        body.append(bigEndian: UInt32(Limits.maximumTransferBytes / settings.blockLength))
        body.append(bigEndian: settings.optimalTransferLength)
        body.append(bigEndian: UInt32(0))
        body.append(bigEndian: thin ? UInt32(Limits.unmapBlocks) : 0)
        body.append(bigEndian: thin ? UInt32(Limits.unmapDescriptors) : 0)
        // A granularity of one block says nothing, and QEMU's block driver (7.2) stops on an assertion when it has one of 4096 bytes.
        let granularity = Limits.unmapGranularityBytes / settings.blockLength
        body.append(bigEndian: thin && granularity > 1 ? UInt32(granularity) : 0)
        body.append(bigEndian: UInt32(0))
        body.append(bigEndian: UInt64(Limits.writeSameBytes / settings.blockLength))
        return body + [UInt8](repeating: 0, count: 60 - body.count)
    }

    /// ASCII text, left-aligned and padded with spaces (SPC-4 §4.3.1).
    private func text(_ string: String, _ width: Int) -> [UInt8] {
        let bytes = Array(string.utf8.prefix(width))
        return bytes + [UInt8](repeating: 0x20, count: width - bytes.count)
    }
}
