import ISCSI
import Target

/// An initiator's end of one connection.
final class Client {
    /// What a command ended with.
    struct Result {
        var status: UInt8
        var sense: [UInt8]
        var dataIn: [UInt8]
        var residual: Int
        /// 0x4 overflow, 0x2 underflow.
        var residualFlags: UInt8

        /// Sense key, additional sense code and qualifier, of fixed format.
        var code: [UInt8] { sense.count >= 14 ? [sense[2] & 0xf, sense[12], sense[13]] : [] }
    }

    let session: Session
    let parameters: NegotiatedParameters
    /// Sent, not yet taken by the target.
    var pending: [UInt8] = []
    /// How many bytes of it the target may have now.
    var delivered = Int.max
    /// Whether it reads what it is sent.
    var reads = true
    var closed: EndReason?

    var cmdSN: UInt32 = 100
    var maxCmdSN: UInt32 = 131
    private var nextTag: UInt32 = 1
    private var stream: [UInt8] = []
    private var sending: [UInt32: [UInt8]] = [:]
    private var collected: [UInt32: [UInt8]] = [:]
    /// R2Ts are answered only later, by `answerTransfers`.
    var holdsTransfers = false
    private var transfers: [PDU] = []

    var results: [UInt32: Result] = [:]
    /// In the order in which they came.
    var order: [UInt32] = []
    var functionResponses: [UInt32: UInt8] = [:]
    var logoutResponse: UInt8?
    var rejects: [UInt8] = []
    var pings = 0
    var answersPings = true

    init(_ session: Session, _ parameters: NegotiatedParameters) {
        self.session = session
        self.parameters = parameters
        maxCmdSN = 100 &+ UInt32(parameters.queueDepth) &- 1
    }

    func tag() -> UInt32 {
        nextTag += 1
        return nextTag
    }

    func send(_ pdu: PDU) { pending += pdu.bytes }

    private func numbered(_ pdu: inout PDU, immediate: Bool = false) {
        pdu.set32(24, cmdSN)
        if !immediate { cmdSN &+= 1 }
    }

    /// Sends a command, and its data as negotiated.
    /// - Parameters:
    ///   - read: bytes expected
    ///   - write: data; `expecting`, if not nil, is announced as their length instead
    @discardableResult
    func command(
        _ cdb: [UInt8], lun: Int = 1, read: Int? = nil, write: [UInt8]? = nil, attribute: UInt8 = 1, immediate: Bool = false, lunField field: UInt64? = nil
    ) -> UInt32 {
        let tag = tag()
        var unsolicited = 0
        var pdu = PDU(opcode: 0x01, flags: 0x80 | attribute, immediate: immediate, itt: tag)
        let field = field ?? lunField(lun)
        pdu.set32(8, UInt32(field >> 32))
        pdu.set32(12, UInt32(truncatingIfNeeded: field))
        if read != nil { pdu.header[1] |= 0x40 }
        if let write {
            pdu.header[1] |= 0x20
            if parameters.immediateData {
                pdu.data = Array(write.prefix(min(parameters.firstBurstLength, parameters.maxRecvDataSegmentLength)))
            }
            if !parameters.initialR2T { unsolicited = min(parameters.firstBurstLength, write.count) - pdu.data.count }
            if unsolicited > 0 { pdu.header[1] &= 0x7f }
            sending[tag] = write
        }
        pdu.set32(20, UInt32(write?.count ?? read ?? 0))
        numbered(&pdu, immediate: immediate)
        for (index, byte) in cdb.enumerated() { pdu.header[32 + index] = byte }
        send(pdu)
        if unsolicited > 0, let write { sendData(tag, 0xffff_ffff, write, pdu.data.count..<pdu.data.count + unsolicited, lun: field) }
        return tag
    }

    func function(_ function: UInt8, lun: Int = 1, of task: UInt32 = 0xffff_ffff, lunField field: UInt64? = nil) -> UInt32 {
        let tag = tag()
        var pdu = PDU(opcode: 0x02, flags: 0x80 | function, immediate: true, itt: tag)
        pdu.set32(8, UInt32((field ?? lunField(lun)) >> 32))
        pdu.set32(20, task)
        numbered(&pdu, immediate: true)
        pdu.set32(32, cmdSN)
        send(pdu)
        return tag
    }

    func logout(reason: UInt8 = 0, cid: UInt16 = 7) {
        var pdu = PDU(opcode: 0x06, flags: 0x80 | reason, immediate: true, itt: tag())
        pdu.set16(20, cid)
        numbered(&pdu, immediate: true)
        send(pdu)
    }

    /// What the target has sent.
    func take(_ bytes: [UInt8]) {
        stream += bytes
        while let pdu = PDU.take(&stream) {
            if pdu.opcode != 0x3f { maxCmdSN = pdu.get32(32) }
            switch pdu.opcode {
            case 0x20: takePing(pdu)
            case 0x21: takeStatus(pdu, sense: pdu.data.count > 2 ? Array(pdu.data[2...]) : [])
            case 0x22: functionResponses[pdu.itt] = pdu.header[2]
            case 0x25:
                let offset = Int(pdu.get32(40))
                precondition(offset == collected[pdu.itt, default: []].count, "Data-In in order")
                collected[pdu.itt, default: []] += pdu.data
                if pdu.flags & 0x01 != 0 { takeStatus(pdu, sense: []) }
            case 0x26: logoutResponse = pdu.header[2]
            case 0x31: if holdsTransfers { transfers.append(pdu) } else { transfer(pdu) }
            case 0x3f: rejects.append(pdu.header[2])
            default: break
            }
        }
    }

    func answerTransfers() {
        for pdu in transfers { transfer(pdu) }
        transfers = []
    }

    private func takeStatus(_ pdu: PDU, sense: [UInt8]) {
        results[pdu.itt] = Result(
            status: pdu.header[3], sense: sense, dataIn: collected.removeValue(forKey: pdu.itt) ?? [], residual: Int(pdu.get32(44)),
            residualFlags: pdu.flags & 0x06)
        order.append(pdu.itt)
        sending[pdu.itt] = nil
    }

    private func takePing(_ pdu: PDU) {
        let transferTag = pdu.get32(20)
        guard transferTag != 0xffff_ffff else { return }
        pings += 1
        guard answersPings else { return }
        var answer = PDU(opcode: 0x00, immediate: true)
        answer.header.replaceSubrange(8..<16, with: pdu.header[8..<16])
        answer.set32(20, transferTag)
        numbered(&answer, immediate: true)
        send(answer)
    }

    private func transfer(_ request: PDU) {
        guard let data = sending[request.itt] else { return }
        let (start, length) = (Int(request.get32(40)), Int(request.get32(44)))
        let lun = UInt64(request.get32(8)) << 32 | UInt64(request.get32(12))
        sendData(request.itt, request.get32(20), data, start..<start + length, lun: lun)
    }

    private func sendData(_ tag: UInt32, _ transferTag: UInt32, _ data: [UInt8], _ range: Range<Int>, lun: UInt64) {
        var (offset, sequence) = (range.lowerBound, UInt32(0))
        while offset < range.upperBound {
            let count = min(parameters.maxRecvDataSegmentLength, range.upperBound - offset)
            var pdu = PDU(opcode: 0x05, flags: offset + count == range.upperBound ? 0x80 : 0, itt: tag)
            pdu.set32(8, UInt32(lun >> 32))
            pdu.set32(12, UInt32(truncatingIfNeeded: lun))
            pdu.set32(20, transferTag)
            pdu.set32(36, sequence)
            pdu.set32(40, UInt32(offset))
            pdu.data = Array(data[offset..<offset + count])
            send(pdu)
            offset += count
            sequence += 1
        }
    }
}
