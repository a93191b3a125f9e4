import Bytes
import Crypto

/// What goes out (RFC 7143 §11): numbering, digests, and the PDUs that answer no SCSI command.
extension FullFeature {
    /// What a PDU carries as StatSN.
    enum StatusNumbering {
        /// A status of its own: the next number, which is used up.
        case advancing
        /// No status, but the next number is told.
        case next
        case absent
    }

    private mutating func stamp(_ header: inout BasicHeader, _ numbering: StatusNumbering) {
        if numbering != .absent { header.store(statSN, at: 24) }
        if numbering == .advancing { statSN &+= 1 }
        header.store(expCmdSN, at: 28)
        header.store(expCmdSN &+ UInt32(window) &- 1, at: 32)
        traffic.sent(header)
    }

    private func digest(of header: BasicHeader) -> InlineArray<4, UInt8> {
        var crc = CRC32C()
        crc.update(header.bytes.span)
        return Self.wireForm(crc)
    }

    /// Least significant byte first.
    private static func wireForm(_ crc: CRC32C) -> InlineArray<4, UInt8> {
        var bytes = InlineArray<4, UInt8>(repeating: 0)
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: crc.value >> (8 * index)) }
        return bytes
    }

    private static let zeros = InlineArray<4, UInt8>(repeating: 0)

    /// Queues a PDU without data.
    mutating func send(_ header: inout BasicHeader, _ numbering: StatusNumbering) {
        stamp(&header, numbering)
        queue(header)
    }

    /// Queues a PDU with a copy of its data.
    mutating func send(_ header: inout BasicHeader, _ numbering: StatusNumbering, _ data: borrowing Span<UInt8>) {
        header.store(dataSegmentLength: data.count)
        stamp(&header, numbering)
        queue(header)
        guard data.count > 0 else { return }
        let before = output.byteCount
        output.append(copying: data)
        let padding = PDU.padding(data.count)
        let zeros = Self.zeros
        if padding > 0 { output.append(copying: zeros.span.extracting(0..<padding)) }
        if negotiated.dataDigest {
            var crc = CRC32C()
            crc.update(data)
            crc.update(zeros.span.extracting(0..<padding))
            let digest = Self.wireForm(crc)
            output.append(copying: digest.span)
        }
        traffic.sentOctets &+= UInt64(output.byteCount - before)
    }

    private mutating func queue(_ header: BasicHeader) {
        output.append(copying: header.bytes.span)
        traffic.sentOctets &+= UInt64(PDU.headerLength)
        if negotiated.headerDigest {
            let digest = digest(of: header)
            output.append(copying: digest.span)
            traffic.sentOctets &+= UInt64(PDU.digestLength)
        }
    }

    /// Queues a PDU whose data lie in `buffer`, without copying them. The header of the first goes into the headroom; padding
    /// and digest of the last go behind the data, in the middle there is no room for either.
    mutating func send(_ header: inout BasicHeader, _ numbering: StatusNumbering, _ buffer: Buffer, _ range: Range<Int>, isLast: Bool) {
        header.store(dataSegmentLength: range.count)
        stamp(&header, numbering)
        let before = output.byteCount
        var begin = range.lowerBound
        var end = range.upperBound
        if begin == 0 {
            begin = -PDU.headerLength
            if negotiated.headerDigest {
                begin -= PDU.digestLength
                let digest = digest(of: header)
                buffer.copy(digest.span, to: -PDU.digestLength)
            }
            buffer.copy(header.bytes.span, to: begin)
        } else {
            output.append(copying: header.bytes.span)
            if negotiated.headerDigest {
                let digest = digest(of: header)
                output.append(copying: digest.span)
            }
        }
        var tail = InlineArray<8, UInt8>(repeating: 0)
        var tailLength = PDU.padding(range.count)
        if negotiated.dataDigest {
            var crc = CRC32C()
            buffer.withBytes(range) { crc.update($0) }
            crc.update(tail.span.extracting(0..<tailLength))
            let digest = Self.wireForm(crc)
            for index in 0..<4 { tail[tailLength + index] = digest[index] }
            tailLength += PDU.digestLength
        }
        if isLast {
            buffer.copy(tail.span.extracting(0..<tailLength), to: end)
            end += tailLength
            tailLength = 0
        }
        output.append(buffer, begin..<end)
        if tailLength > 0 { output.append(copying: tail.span.extracting(0..<tailLength)) }
        traffic.sentOctets &+= UInt64(output.byteCount - before)
    }

    // MARK: NOP

    /// Asks whether the initiator is still there (RFC 7143 §11.19): a NOP-In that wants an answer.
    public mutating func ping() {
        var header = BasicHeader(.nopIn, initiatorTaskTag: PDU.reservedTag)
        header.store(nextTag(), at: 20)
        unansweredPings += 1
        send(&header, .next)
    }

    /// Answers a NOP-Out with what it carried.
    mutating func pong(_ request: BasicHeader) {
        var header = BasicHeader(.nopIn, initiatorTaskTag: request.initiatorTaskTag)
        header.store(lun: request.lun)
        header.store(PDU.reservedTag, at: 20)
        let data = collected
        let count = min(data.count, maxXmitDataSegmentLength)
        send(&header, .advancing, data.span.extracting(0..<count))
    }

    /// A Target Transfer Tag of ours, never the reserved one.
    mutating func nextTag() -> UInt32 {
        tagCounter = tagCounter == PDU.reservedTag - 1 ? 1 : tagCounter + 1
        return tagCounter
    }

    // MARK: Requests

    mutating func managementRequest(_ header: BasicHeader) -> TaskManagementRequest {
        let function = header.bytes[1] & 0x7f
        return TaskManagementRequest(
            function: function, lun: header.lun, initiatorTaskTag: header.initiatorTaskTag,
            referenced: function == TaskManagementRequest.abortTask ? resolve(header) : .none, isImmediate: header.isImmediate)
    }

    /// What an ABORT TASK refers to (RFC 7143 §11.6.1).
    private mutating func resolve(_ header: BasicHeader) -> TaskManagementRequest.Referenced {
        let tag = header.targetTransferTag
        let refCmdSN = header.uint32(at: 32)
        if let slot = slotOfTag[tag], tasks[slot].info.lun == header.lun {
            if tasks[slot].isLive { return .task(TaskIndex(rawValue: slot)) }
            if case .deferred = tasks[slot].state {
                end(slot)
                return .isOver
            }
        }
        // A command that has not come in its turn, in the window and before this request: it counts as received.
        let ahead = Int(Int32(bitPattern: refCmdSN &- expCmdSN))
        guard (0..<window).contains(ahead), Int32(bitPattern: refCmdSN &- header.cmdSN) < 0 else { return .doesNotExist }
        if let index = held.firstIndex(where: { $0.cmdSN == refCmdSN }) {
            guard held[index].initiatorTaskTag == tag else { return .doesNotExist }
            heldBytes -= held[index].bytes.count
            held.remove(at: index)
        }
        held.append(HeldCommand(cmdSN: refCmdSN, initiatorTaskTag: tag, isCommand: false, bytes: []))
        return .isOver
    }

    /// Answers a task management request (RFC 7143 §11.6).
    /// - Parameter response: 0 function complete, 1 task does not exist, 2 LUN does not exist, 3 task still allegiant,
    ///   4 reassignment not supported, 5 function not supported, 6 authorization failed, 255 function rejected
    public mutating func answer(_ request: TaskManagementRequest, response: UInt8) {
        if request.isImmediate { immediateManagement -= 1 } else { occupied -= 1 }
        var header = BasicHeader(.taskManagementResponse, initiatorTaskTag: request.initiatorTaskTag)
        header.bytes[2] = response
        send(&header, .advancing)
    }

    /// Answers a Logout Request (RFC 7143 §11.15).
    /// - Parameter response: 0 closed, 1 CID not found, 2 connection recovery not supported, 3 cleanup failed
    public mutating func answer(_ request: LogoutRequest, response: UInt8) {
        // What is refused leaves the connection as it was.
        if response != 0 { logoutIsPending = false }
        var header = BasicHeader(.logoutResponse, initiatorTaskTag: request.initiatorTaskTag)
        header.bytes[2] = response
        header.store(UInt16(negotiated.defaultTime2Wait), at: 40)
        header.store(UInt16(negotiated.defaultTime2Retain), at: 42)
        send(&header, .advancing)
    }

    /// Sends a PDU's header back (RFC 7143 §11.17).
    mutating func reject(_ request: BasicHeader, _ reason: RejectReason) {
        var header = BasicHeader(.reject, initiatorTaskTag: PDU.reservedTag)
        header.bytes[2] = reason.rawValue
        send(&header, .advancing, request.bytes.span)
    }
}
