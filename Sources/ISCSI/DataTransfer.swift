import Bytes

/// SCSI commands, their data and their end (RFC 7143 §4.2.4, §11.3, §11.4, §11.7, §11.8).
extension FullFeature {
    mutating func admitCommand(_ header: BasicHeader, _ additional: AdditionalHeaders?) -> Event? {
        let tag = header.initiatorTaskTag
        guard tag != PDU.reservedTag else { return refuse(header, .invalidPDUField) }
        if let slot = slotOfTag[tag] {
            // An initiator that uses the tag again sends no more data of the old task.
            guard tasks[slot].isDraining else { return refuse(header, .taskInProgress) }
            forgetDraining(slot)
        }
        guard !header.isImmediate || immediateTasks < FullFeatureLimits.immediate else { return refuse(header, .immediateCommandReject) }

        var cdb = InlineArray<16, UInt8>(repeating: 0)
        for index in 0..<16 { cdb[index] = header.bytes[32 + index] }
        let flags = header.bytes[1]
        let info = TaskInfo(
            initiatorTaskTag: tag, lun: header.lun, cdb: cdb, attribute: flags & 7, isImmediate: header.isImmediate,
            reads: flags & 0x40 != 0, writes: flags & 0x20 != 0, expectedDataTransferLength: Int(header.uint32(at: 20)),
            bidirectionalReadLength: additional?.bidirectionalReadLength, cmdSN: header.cmdSN)
        let slot = allocate(info)
        let length = header.dataSegmentLength
        tasks[slot].unsolicitedIsOpen = info.writes && !header.isFinal
        if length > 0, !info.writes || !negotiated.immediateData {
            tasks[slot].failure = .unexpectedUnsolicitedData
        } else if length > unsolicitedLimit(slot) {
            tasks[slot].failure = .incorrectAmountOfData
        } else if tasks[slot].unsolicitedIsOpen, negotiated.initialR2T {
            tasks[slot].failure = .unexpectedUnsolicitedData
        }
        if length > 0 || tasks[slot].failure != nil {
            tasks[slot].isReadingPDU = true
            conclusion = .command(slot)
            if tasks[slot].failure == nil { destination = .task(slot, at: 0) }
        }
        return .command(TaskIndex(rawValue: slot))
    }

    /// Bytes of immediate and unsolicited data together.
    private func unsolicitedLimit(_ slot: Int) -> Int {
        min(negotiated.firstBurstLength, tasks[slot].info.expectedDataTransferLength)
    }

    /// Takes a task on: `wanted` bytes of its Data-Out go into `buffer`, further ones are discarded. Needed R2Ts are sent.
    /// - Parameters:
    ///   - wanted: at most the task's expected data transfer length if it writes, otherwise 0
    ///   - buffer: of at least `wanted` bytes; nil if that is 0
    /// - Returns: true if there is nothing to wait for; otherwise `dataOutComplete` or `dataOutFailed` comes later
    public mutating func accept(_ index: TaskIndex, wanted: Int, buffer: Buffer?) -> Bool {
        let slot = index.rawValue
        guard case .presented = tasks[slot].state else { preconditionFailure("a task is accepted once, when its command is told") }
        precondition(wanted >= 0 && wanted <= (tasks[slot].info.writes ? tasks[slot].info.expectedDataTransferLength : 0))
        precondition(wanted == 0 || buffer?.capacity ?? 0 >= wanted)
        tasks[slot].state = .live
        tasks[slot].wanted = wanted
        tasks[slot].buffer = buffer
        if case .dataOutComplete? = progress(slot) { return true }
        return false
    }

    /// Ends a task. The response goes out when all Data-Out that is on the way has come, so at once for most.
    ///
    /// Data-In is cut to what the initiator expects; if there is any and the status is GOOD, the status rides on its last PDU.
    /// - Parameters:
    ///   - status: SCSI status (SAM-5 §5.3.1)
    ///   - sense: sense data, at most 252 bytes
    ///   - naturalLength: bytes that the command transfers by itself, whatever the initiator expects: what the residual count
    ///     is computed from (RFC 7143 §11.4.5)
    public mutating func finish(_ index: TaskIndex, status: UInt8, sense: consuming [UInt8], dataIn: consuming DataIn, naturalLength: Int) {
        let slot = index.rawValue
        precondition(tasks[slot].isLive && sense.count <= Self.longestSense && naturalLength >= 0)
        let ending = TaskSlot.Ending(status: status, sense: consume sense, dataIn: consume dataIn, naturalLength: naturalLength)
        if tasks[slot].expectsData {
            tasks[slot].buffer = nil
            tasks[slot].state = .deferred
            tasks[slot].ending = consume ending
        } else {
            respond(slot, ending)
        }
    }

    /// Forgets a task that is aborted: there is no response, and data that are on the way are discarded.
    public mutating func drop(_ index: TaskIndex) {
        precondition(tasks[index.rawValue].isLive)
        end(index.rawValue)
    }

    private static let longestSense = 252

    // MARK: Data-Out

    mutating func admitDataOut(_ header: BasicHeader) -> Event? {
        guard let slot = slotOfTag[header.initiatorTaskTag] else { return refuse(header, .protocolError) }
        let isSolicited = header.targetTransferTag != PDU.reservedTag
        var counts = false
        switch tasks[slot].state {
        case .live where tasks[slot].failure == nil:
            tasks[slot].failure = objection(to: header, slot, isSolicited: isSolicited)
            if tasks[slot].failure == nil {
                counts = true
                destination = .task(slot, at: tasks[slot].received)
            }
        case .presented, .free: preconditionFailure("the task was to be accepted before")
        case .live, .deferred, .draining: break
        }
        tasks[slot].isReadingPDU = true
        conclusion = .dataOut(slot, isFinal: header.isFinal, isSolicited: isSolicited, counts: counts)
        return nil
    }

    /// What is wrong with a Data-Out, if anything: a sequence comes whole, in order, and no longer than it may be.
    private func objection(to header: BasicHeader, _ slot: Int, isSolicited: Bool) -> DataOutError? {
        let end = tasks[slot].received + header.dataSegmentLength
        if isSolicited {
            guard !tasks[slot].unsolicitedIsOpen, tasks[slot].r2tsSent > tasks[slot].r2tsAnswered,
                header.targetTransferTag == transferTag(slot, tasks[slot].r2tsAnswered)
            else { return .outOfSequence }
            guard isInSequence(header, tasks[slot]) else { return .outOfSequence }
            let due = burstEnd(slot)
            return end > due || header.isFinal != (end == due) ? .incorrectAmountOfData : nil
        }
        guard tasks[slot].unsolicitedIsOpen else { return .unexpectedUnsolicitedData }
        guard isInSequence(header, tasks[slot]) else { return .outOfSequence }
        return end > unsolicitedLimit(slot) ? .incorrectAmountOfData : nil
    }

    private func isInSequence(_ header: BasicHeader, _ task: borrowing TaskSlot) -> Bool {
        header.uint32(at: 36) == task.dataSN && Int(header.uint32(at: 40)) == task.received
    }

    mutating func concludeDataOut(_ slot: Int, _ length: Int, isFinal: Bool, isSolicited: Bool, counts: Bool) -> Event? {
        tasks[slot].isReadingPDU = false
        if counts {
            tasks[slot].received += length
            tasks[slot].dataSN &+= 1
        }
        if isFinal {
            if !isSolicited {
                if tasks[slot].unsolicitedIsOpen { tasks[slot].dataSN = 0 }
                tasks[slot].unsolicitedIsOpen = false
            } else if tasks[slot].r2tsSent > tasks[slot].r2tsAnswered {
                tasks[slot].r2tsAnswered += 1
                tasks[slot].dataSN = 0
            }
        }
        return progress(slot)
    }

    /// Does what has become possible for a task whose data have come further.
    mutating func progress(_ slot: Int) -> Event? {
        switch tasks[slot].state {
        case .free, .presented: return nil
        case .draining:
            if !tasks[slot].expectsData { forgetDraining(slot) }
            return nil
        case .deferred:
            if !tasks[slot].expectsData, let ending = tasks[slot].ending.take() { respond(slot, ending) }
            return nil
        case .live:
            guard !tasks[slot].dataOutIsTold, !tasks[slot].isReadingPDU else { return nil }
            if let failure = tasks[slot].failure {
                tasks[slot].dataOutIsTold = true
                return .dataOutFailed(TaskIndex(rawValue: slot), failure)
            }
            guard !tasks[slot].unsolicitedIsOpen else { return nil }
            solicit(slot)
            guard tasks[slot].dataOutIsComplete else { return nil }
            tasks[slot].dataOutIsTold = true
            return .dataOutComplete(TaskIndex(rawValue: slot))
        }
    }

    /// Sends the R2Ts that may be outstanding.
    private mutating func solicit(_ slot: Int) {
        if tasks[slot].r2tsSent == 0 { tasks[slot].solicitedFrom = tasks[slot].received }
        let most = min(negotiated.maxOutstandingR2T, FullFeatureLimits.outstandingR2Ts)
        while tasks[slot].r2tsSent - tasks[slot].r2tsAnswered < most {
            let number = tasks[slot].r2tsSent
            let start = tasks[slot].solicitedFrom + number * negotiated.maxBurstLength
            guard start < tasks[slot].wanted else { return }
            var header = BasicHeader(.readyToTransfer, initiatorTaskTag: tasks[slot].info.initiatorTaskTag)
            header.store(lun: tasks[slot].info.lun)
            header.store(transferTag(slot, number), at: 20)
            header.store(UInt32(number), at: 36)
            header.store(UInt32(start), at: 40)
            header.store(UInt32(min(negotiated.maxBurstLength, tasks[slot].wanted - start)), at: 44)
            tasks[slot].r2tsSent += 1
            send(&header, .next)
        }
    }

    // MARK: Data-In and response

    private mutating func respond(_ slot: Int, _ ending: consuming TaskSlot.Ending) {
        let info = tasks[slot].info
        let residual = Residual(expected: info.expectedDataTransferLength, natural: ending.naturalLength)
        let length = info.reads ? min(ending.dataIn.count, info.writes ? Int(info.bidirectionalReadLength ?? 0) : info.expectedDataTransferLength) : 0
        let numbered = UInt32(tasks[slot].r2tsSent)
        end(slot)
        let rides = length > 0 && ending.status == 0
        let dataPDUs = sendDataIn(ending.dataIn, length, info, rides ? (ending.status, residual) : nil)
        guard !rides else { return }

        var header = BasicHeader(.scsiResponse, initiatorTaskTag: info.initiatorTaskTag)
        header.bytes[1] |= residual.flags
        header.bytes[3] = ending.status
        header.store(numbered &+ dataPDUs, at: 36)
        header.store(residual.count, at: 44)
        guard !ending.sense.isEmpty else { return send(&header, .advancing) }
        var data: [UInt8] = []
        data.append(bigEndian: UInt16(ending.sense.count))
        data += ending.sense
        send(&header, .advancing, data.span)
    }

    /// How far a command's length and the initiator's expectation differ (RFC 7143 §11.4.5).
    private struct Residual {
        let flags: UInt8
        let count: UInt32

        init(expected: Int, natural: Int) {
            flags = natural > expected ? 0x04 : natural < expected ? 0x02 : 0
            count = UInt32(clamping: (natural - expected).magnitude)
        }
    }

    /// Sends the first `length` bytes in PDUs of the initiator's size, with the status on the last one if there is one to ride.
    /// - Returns: how many PDUs that took
    private mutating func sendDataIn(_ data: DataIn, _ length: Int, _ info: TaskInfo, _ riding: (status: UInt8, residual: Residual)?) -> UInt32 {
        var offset = 0
        var number: UInt32 = 0
        var burst = 0
        while offset < length {
            let count = min(length - offset, maxXmitDataSegmentLength, negotiated.maxBurstLength - burst)
            let isLast = offset + count == length
            burst += count
            let endsBurst = isLast || burst == negotiated.maxBurstLength
            if endsBurst { burst = 0 }
            var header = BasicHeader(.dataIn, initiatorTaskTag: info.initiatorTaskTag)
            header.bytes[1] = endsBurst ? BasicHeader.finalBit : 0
            header.store(PDU.reservedTag, at: 20)
            header.store(number, at: 36)
            header.store(UInt32(offset), at: 40)
            var numbering = StatusNumbering.absent
            if isLast, let riding {
                header.bytes[1] |= Self.statusBit | riding.residual.flags
                header.bytes[3] = riding.status
                header.store(riding.residual.count, at: 44)
                numbering = .advancing
            }
            switch data {
            case .none: preconditionFailure("there are data to send")
            case .bytes(let bytes): send(&header, numbering, bytes.span.extracting(offset..<offset + count))
            case .buffer(let buffer, _): send(&header, numbering, buffer, offset..<offset + count, isLast: isLast)
            }
            offset += count
            number &+= 1
        }
        return number
    }

    private static let statusBit: UInt8 = 0x01
}
