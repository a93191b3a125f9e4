import Bytes
import Crypto
import ISCSI
import Target

/// An initiator's end of a connection, which writes PDUs as the input decides: mostly with the right lengths, numbers and digests.
final class Peer {
    let name: ISCSIName
    private let parameters: NegotiatedParameters
    var session: Session?
    /// Sent, not yet taken.
    var pending: [UInt8] = []
    /// How many bytes arrive at once.
    var cut = Int.max
    var reads = true

    private var cmdSN: UInt32 = 0
    private var stream: [UInt8] = []
    /// R2Ts without their data: their headers.
    private var transfers: [[UInt8]] = []

    private static let reservedTag: UInt32 = 0xffff_ffff
    /// More are not remembered.
    private static let mostTransfers = 8

    init(_ name: String, _ parameters: NegotiatedParameters) {
        self.name = iscsiName(name)
        self.parameters = parameters
    }

    func begin(_ session: Session, cmdSN: UInt32) {
        self.session = session
        self.cmdSN = cmdSN
        pending = []
        stream = []
        transfers = []
        reads = true
    }

    // MARK: Sending

    private struct PDU {
        var header = [UInt8](repeating: 0, count: 48)
        var data: [UInt8] = []

        init(_ opcode: UInt8, _ flags: UInt8) { (header[0], header[1]) = (opcode, flags) }
        mutating func put(_ value: UInt32, _ offset: Int) {
            for index in 0..<4 { header[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * index)) }
        }
    }

    private func send(_ pdu: PDU, wrongDigest: Bool = false) {
        var pdu = pdu
        let length = pdu.header[5..<8]
        pdu.put(UInt32(pdu.header[4]) << 24 | UInt32(pdu.data.count), 4)
        if pdu.data.isEmpty { pdu.header.replaceSubrange(5..<8, with: length) }
        pending += pdu.header
        if parameters.headerDigest { pending += Self.digest(pdu.header) }
        guard !pdu.data.isEmpty else { return }
        let data = pdu.data + [UInt8](repeating: 0, count: (4 - pdu.data.count % 4) % 4)
        pending += data
        if parameters.dataDigest { pending += wrongDigest ? [0, 0, 0, 0] : Self.digest(data) }
    }

    private static func digest(_ bytes: [UInt8]) -> [UInt8] {
        var crc = CRC32C()
        crc.update(bytes.span)
        return (0..<4).map { UInt8(truncatingIfNeeded: crc.value >> UInt32(8 * $0)) }
    }

    /// The next number for most, another one for some, none for immediate ones.
    private func number(_ pdu: inout PDU, _ choice: UInt8) {
        switch choice & 7 {
        case 0: pdu.put(cmdSN &+ UInt32(choice >> 3) &- 2, 24)
        case 1:
            pdu.header[0] |= 0x40
            pdu.put(cmdSN, 24)
        default:
            pdu.put(cmdSN, 24)
            cmdSN &+= 1
        }
    }

    private func lun(_ pdu: inout PDU, _ choice: UInt8) {
        switch choice & 7 {
        case 0...4: pdu.header[9] = 1
        case 5: (pdu.header[8], pdu.header[9]) = (0x41, 0x2c)  // 300
        case 6: break
        default: pdu.header[8] = choice
        }
    }

    private static func pattern(_ first: [UInt8], _ count: Int) -> [UInt8] {
        first.count >= count ? Array(first.prefix(count)) : first + (first.count..<count).map { UInt8(truncatingIfNeeded: $0) }
    }

    /// A SCSI Command; a short one is a transfer of some blocks.
    func command(_ input: inout Input, isShort: Bool) {
        let kind = input.byte()
        var pdu = PDU(0x01, kind & 0xf7)
        number(&pdu, input.byte())
        lun(&pdu, input.byte())
        pdu.put(UInt32(input.byte() & 0x0f), 16)
        if isShort {
            let isWrite = kind & 0x20 != 0
            let count = 1 + input.number() % 40
            pdu.header[1] = 0x80 | (isWrite ? 0x20 : 0x40) | kind & 0x07
            pdu.put(UInt32(count * 512), 20)
            (pdu.header[32], pdu.header[37], pdu.header[40]) = (isWrite ? 0x2a : 0x28, input.byte() & 0x1f, UInt8(count))
            if isWrite, parameters.immediateData, kind & 0x08 != 0 {
                pdu.data = Self.pattern([], min(count * 512, parameters.firstBurstLength, parameters.maxRecvDataSegmentLength))
            }
            if isWrite, !parameters.initialR2T, pdu.data.count < min(count * 512, parameters.firstBurstLength) { pdu.header[1] &= 0x7f }
            return send(pdu)
        }
        pdu.put(UInt32(input.uint16()), 20)
        let cdb = CDBBytes(&input)
        pdu.header.replaceSubrange(32..<48, with: cdb.bytes)
        let count = input.number()
        if count > 0 { pdu.data = Self.pattern(input.take(min(count, 64)), count & 0x80 != 0 ? count << 4 : count) }
        send(pdu)
    }

    /// Data-Out, as an R2T asks for it or as it comes.
    func dataOut(_ input: inout Input) {
        let kind = Choices(input.byte())
        var pdu = PDU(0x05, kind[0] ? 0x80 : 0)
        let tag = UInt32(input.byte() & 0x0f)
        var (offset, count) = (Int(input.byte()) * 128, Int(input.byte()) * 32)
        if kind[1], let r2t = transfers.first {
            pdu.header.replaceSubrange(8..<24, with: r2t[8..<24])
            offset += Int(Self.get(r2t, 40))
            count = min(count, Int(Self.get(r2t, 44)))
        } else {
            lun(&pdu, 0)
            pdu.put(tag, 16)
            pdu.put(kind[2] ? tag : Self.reservedTag, 20)
        }
        pdu.put(UInt32(input.byte() & 3), 36)
        pdu.put(UInt32(offset), 40)
        pdu.data = Self.pattern([], count)
        send(pdu, wrongDigest: kind[3])
    }

    /// All that the oldest R2T asks for.
    func answerTransfer() {
        guard !transfers.isEmpty else { return }
        let r2t = transfers.removeFirst()
        let (start, length) = (Int(Self.get(r2t, 40)), Int(Self.get(r2t, 44)))
        var (done, sequence) = (0, UInt32(0))
        while done < length {
            let count = min(length - done, parameters.maxRecvDataSegmentLength)
            var pdu = PDU(0x05, done + count == length ? 0x80 : 0)
            pdu.header.replaceSubrange(8..<24, with: r2t[8..<24])
            pdu.put(sequence, 36)
            pdu.put(UInt32(start + done), 40)
            pdu.data = Self.pattern([], count)
            send(pdu)
            sequence += 1
            done += count
        }
    }

    func management(_ input: inout Input) {
        var pdu = PDU(0x02, 0x80 | input.byte())
        number(&pdu, input.byte())
        lun(&pdu, input.byte())
        pdu.put(0x100 | UInt32(input.byte()), 16)
        let reference = input.byte()
        pdu.put(reference == 0xff ? Self.reservedTag : UInt32(reference & 0x0f), 20)
        pdu.put(cmdSN &- UInt32(input.byte() & 7), 32)
        send(pdu)
    }

    /// NOP-Out, Text, Logout, SNACK, what a target sends, what does not exist; additional header segments.
    func other(_ input: inout Input) {
        let opcode = input.byte()
        var pdu = PDU(opcode & 0x3f, input.byte())
        number(&pdu, input.byte())
        pdu.put(UInt32(input.byte()) | 0x200, 16)
        let transfer = input.byte()
        pdu.put(transfer == 0 ? Self.reservedTag : UInt32(transfer), 20)
        if opcode & 0x3f == 0x06 { pdu.put(0, 20) }
        if opcode & 0x80 != 0 { pdu.header[4] = input.byte() & 3 }
        let count = input.number()
        pdu.data = Self.pattern(input.take(count), opcode & 0x40 != 0 ? count << 3 : count)
        send(pdu)
    }

    // MARK: What comes back

    private static func get(_ bytes: [UInt8], _ offset: Int) -> UInt32 { (0..<4).reduce(0) { $0 << 8 | UInt32(bytes[offset + $1]) } }

    /// Whole PDUs with the lengths and digests that were agreed on.
    func take(_ bytes: [UInt8]) {
        stream += bytes
        var start = 0
        while stream.count - start >= 48 {
            let header = Array(stream[start..<start + 48])
            let length = Int(Self.get(header, 4) & 0xff_ffff)
            precondition(header[4] == 0 && length <= max(parameters.maxXmitDataSegmentLength, 48))
            var end = start + 48 + (parameters.headerDigest ? 4 : 0)
            let data = end
            end += (length + 3) & ~3
            let digest = end
            if length > 0, parameters.dataDigest { end += 4 }
            guard end <= stream.count else { break }
            if parameters.headerDigest { precondition(Array(stream[start + 48..<start + 52]) == Self.digest(header)) }
            if digest < end { precondition(Array(stream[digest..<end]) == Self.digest(Array(stream[data..<digest]))) }
            if header[0] & 0x3f == 0x31, transfers.count < Self.mostTransfers { transfers.append(header) }
            start = end
        }
        stream.removeFirst(start)
    }
}

/// A CDB as long as its group code says (SAM-5 §5.2.1), so that mutations stay with their command; the rest of its field is zero.
struct CDBBytes {
    var bytes = [UInt8](repeating: 0, count: 16)

    init(_ input: inout Input) {
        bytes[0] = input.byte()
        let length = switch bytes[0] >> 5 {
        case 0: 6
        case 1, 2: 10
        case 5: 12
        default: 16
        }
        for index in 1..<length { bytes[index] = input.byte() }
    }
}
