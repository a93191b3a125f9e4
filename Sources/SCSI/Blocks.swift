import Bytes
import Medium

extension Command {
    /// LOGICAL BLOCK ADDRESS and number of blocks as they stand in the CDB.
    func blocks(_ cdb: CommandDescriptorBlock) -> (first: UInt64, count: UInt64) {
        let bytes = cdb.bytes.span
        switch addressing {
        case .none: return (0, 0)
        case .six: return (UInt64(bytes.uint24(at: 1) & 0x1f_ffff), bytes[4] == 0 ? 256 : UInt64(bytes[4]))
        case .ten: return (UInt64(bytes.uint32(at: 2)), UInt64(bytes.uint16(at: 7)))
        case .twelve: return (UInt64(bytes.uint32(at: 2)), UInt64(bytes.uint32(at: 6)))
        case .sixteen: return (bytes.uint64(at: 2), UInt64(bytes.uint32(at: 10)))
        case .short16: return (bytes.uint64(at: 2), UInt64(bytes[13]))
        case .addressOnly16: return (bytes.uint64(at: 2), 0)
        }
    }

    func parameterListLength(_ cdb: CommandDescriptorBlock) -> Int {
        switch dataOut {
        case .list8(let byte): Int(cdb.bytes[byte])
        case .list16(let byte): Int(cdb.bytes.span.uint16(at: byte))
        case .list32(let byte): Int(cdb.bytes.span.uint32(at: byte))
        default: 0
        }
    }

    /// Bytes of Data-Out that the CDB asks for; 0 where that is more than we take, so that the command is refused without.
    func dataOutLength(_ cdb: CommandDescriptorBlock, blockLength: Int) -> Int {
        let count = Int(blocks(cdb).count)
        let bytes = count * blockLength
        switch dataOut {
        case .none: return 0
        case .blocks: return bytes <= Limits.maximumTransferBytes ? bytes : 0
        case .verifiedBlocks:
            switch cdb.byteCheck {
            case 1: return bytes <= Limits.maximumTransferBytes ? bytes : 0
            case 3: return count > 0 ? blockLength : 0
            default: return 0
            }
        case .oneBlock: return cdb.hasNoDataOutBuffer ? 0 : blockLength
        case .twiceBlocks: return count <= Limits.compareAndWriteBlocks ? 2 * bytes : 0
        case .list8, .list16, .list32:
            let length = parameterListLength(cdb)
            return length <= Limits.parameterListBytes ? length : 0
        }
    }
}

extension CommandDescriptorBlock {
    /// BYTCHK of VERIFY and WRITE AND VERIFY.
    fileprivate var byteCheck: UInt8 { bytes[1] >> 1 & 0x03 }
    /// NDOB of WRITE SAME(16).
    fileprivate var hasNoDataOutBuffer: Bool { operationCode == 0x93 && bytes[1] & 0x01 != 0 }
    /// FUA, where the command has it. READ(6) and WRITE(6) have an address there.
    fileprivate var forcesUnitAccess: Bool { operationCode >= 0x20 && bytes[1] & 0x08 != 0 }
}

/// The commands that read and write blocks (SBC-3 §5). Blocks are counted in blocks until they are known to be on the medium.
///
/// An initiator that expects to send less than the CDB says gets its command carried out on the bytes that it sends; the
/// transport reports the residual.
extension DeviceServer {
    private func extent(first: UInt64, count: UInt64) throws(Refusal) -> Extent {
        guard first < settings.blockCount, count <= settings.blockCount - first else { throw .check(.outOfRange) }
        return Extent(offset: first * UInt64(settings.blockLength), length: count * UInt64(settings.blockLength))
    }

    /// The blocks of a command that transfers or verifies them.
    private func transfer(_ command: Command, _ cdb: CommandDescriptorBlock) throws(Refusal) -> Extent {
        let (first, count) = command.blocks(cdb)
        let extent = try extent(first: first, count: count)
        guard extent.length <= UInt64(Limits.maximumTransferBytes) else { throw .check(.field(command.addressing.countByte)) }
        return extent
    }

    /// The blocks of a command in which zero blocks means all that follow.
    private func rest(_ command: Command, _ cdb: CommandDescriptorBlock) throws(Refusal) -> Extent {
        let (first, count) = command.blocks(cdb)
        let whole = try extent(first: first, count: count)
        guard count == 0 else { return whole }
        return try extent(first: first, count: settings.blockCount - first)
    }

    private func isDurable(_ cdb: CommandDescriptorBlock) -> Bool { cdb.forcesUnitAccess || !pages.writeCacheEnabled }

    /// As much of the extent as there is data for.
    private func sent(_ extent: Extent, _ task: borrowing DeviceTask) -> Extent {
        Extent(offset: extent.offset, length: min(extent.length, UInt64(task.dataOutCount)))
    }

    func flush(_ task: inout DeviceTask) -> Step {
        task.phase = .good
        return .medium(.flush, bufferLength: 0)
    }

    // MARK: Reading

    func read(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        let extent = try transfer(command, task.cdb)
        guard task.cdb.forcesUnitAccess else { return read(extent, &task) }
        try requireNoFailedFlush()
        guard extent.length > 0, pages.writeCacheEnabled else { return read(extent, &task) }
        task.phase = .read(extent)
        return .medium(.flush, bufferLength: 0)
    }

    func read(_ extent: Extent, _ task: inout DeviceTask) -> Step {
        guard extent.length > 0 else { return .done(Completion()) }
        task.phase = .dataIn(Int(extent.length))
        return .medium(.read(extent), bufferLength: Int(extent.length))
    }

    func verify(_ command: Command, _ task: inout DeviceTask, _ dataOut: Buffer?) throws(Refusal) -> Step {
        let extent = try transfer(command, task.cdb)
        let sent = sent(extent, task)
        task.phase = .good
        switch task.cdb.byteCheck {
        case 0:
            guard extent.length > 0 else { return .done(Completion()) }
            return .medium(.verify(extent), bufferLength: 0)
        case 1:
            guard sent.length > 0 else { return .done(Completion()) }
            return .medium(.compare(sent), bufferLength: Int(sent.length))
        case 3:
            guard extent.length > 0 else { return .done(Completion()) }
            guard task.dataOutCount >= settings.blockLength else { throw .check(.listLength) }
            guard let dataOut, dataOut.capacity >= settings.blockLength else { throw .check(.targetFailure) }
            return compareNext(extent, pattern: dataOut.array(0..<settings.blockLength), &task)
        default: throw .check(.field(1, bit: 2))
        }
    }

    private func compareNext(_ extent: Extent, pattern: [UInt8], _ task: inout DeviceTask) -> Step {
        let length = min(extent.length, UInt64(Limits.repeatedCompareBytes))
        let part = Extent(offset: extent.offset, length: length)
        let rest = Extent(offset: part.end, length: extent.length - length)
        task.phase = .compareRepeated(part, rest: rest, pattern: pattern)
        return .medium(.read(part), bufferLength: Int(length))
    }

    func compareRepeated(
        _ extent: Extent, rest: Extent, pattern: [UInt8], _ task: inout DeviceTask, _ buffer: Buffer?
    ) throws(Refusal) -> Step {
        let count = Int(extent.length)
        guard let buffer, buffer.capacity >= count else { throw .check(.targetFailure) }
        let difference = buffer.withBytes(0..<count) { bytes -> Int? in
            var position = 0
            while position < count {
                for offset in pattern.indices where bytes[position + offset] != pattern[offset] { return offset }
                position += pattern.count
            }
            return nil
        }
        if let difference {
            throw .check(Sense(.miscompare, .miscompareDuringVerify, information: UInt64(difference)))
        }
        return rest.length > 0 ? compareNext(rest, pattern: pattern, &task) : .done(Completion())
    }

    func prefetch(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        let extent = try rest(command, task.cdb)
        task.phase = .good
        return .medium(.prefetch(extent), bufferLength: 0)
    }

    /// IMMED or not, GOOD means that the data are on stable storage.
    func synchronize(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        _ = try rest(command, task.cdb)
        try requireNoFailedFlush()
        return flush(&task)
    }

    // MARK: Writing

    func write(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        let extent = sent(try transfer(command, task.cdb), task)
        guard extent.length > 0 else { return .done(Completion()) }
        task.phase = .good
        return .medium(.write(extent, durable: isDurable(task.cdb)), bufferLength: Int(extent.length))
    }

    func orWrite(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        let extent = sent(try transfer(command, task.cdb), task)
        guard extent.length > 0 else { return .done(Completion()) }
        task.phase = .good
        return .medium(.orWrite(extent, durable: isDurable(task.cdb)), bufferLength: Int(extent.length))
    }

    /// What is verified is what is on the medium, so it has to get there first.
    func writeAndVerify(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        guard task.cdb.byteCheck < 2 else { throw .check(.field(1, bit: 2)) }
        let extent = sent(try transfer(command, task.cdb), task)
        guard extent.length > 0 else { return .done(Completion()) }
        task.phase = .verifyWritten(extent, withData: task.cdb.byteCheck == 1)
        return .medium(.write(extent, durable: true), bufferLength: Int(extent.length))
    }

    func compareAndWrite(_ command: Command, _ task: inout DeviceTask) throws(Refusal) -> Step {
        let (first, count) = command.blocks(task.cdb)
        let extent = try extent(first: first, count: count)
        guard count <= Limits.compareAndWriteBlocks else { throw .check(.field(13)) }
        try requireExactDataOut(2 * Int(extent.length), task, command)
        guard count > 0 else { return .done(Completion()) }
        task.phase = .good
        return .medium(.compareAndWrite(extent, durable: isDurable(task.cdb)), bufferLength: 2 * Int(extent.length))
    }

    /// Half of the data of such a command means something else than the whole.
    private func requireExactDataOut(_ length: Int, _ task: borrowing DeviceTask, _ command: Command) throws(Refusal) {
        guard task.dataOutCount == length, task.expectedDataOutCount ?? length == length else {
            throw .check(.field(command.addressing.countByte))
        }
    }

    func writeSame(_ command: Command, _ task: inout DeviceTask, _ dataOut: Buffer?) throws(Refusal) -> Step {
        let unmaps = task.cdb.bytes[1] & 0x08 != 0
        guard !unmaps || settings.isThinProvisioned else { throw .check(.field(1, bit: 3)) }
        let extent = try rest(command, task.cdb)
        guard extent.length <= UInt64(Limits.writeSameBytes) else { throw .check(.field(command.addressing.countByte)) }
        let blockLength = settings.blockLength
        guard !task.cdb.hasNoDataOutBuffer else {
            if unmaps { return discard([extent], &task) }
            // The data are zeros, and a buffer for them comes with the next step: this one does nothing else.
            task.phase = .writeZeros(extent)
            return .medium(.prefetch(Extent(offset: extent.offset, length: 0)), bufferLength: blockLength)
        }
        try requireExactDataOut(blockLength, task, command)
        guard let dataOut, dataOut.capacity >= blockLength else { throw .check(.targetFailure) }
        // Whatever the block says: initiators that unmap this way send zeros, and libiscsi's suite, tgt and Linux's target take the
        // UNMAP bit for the whole of the request.
        if unmaps { return discard([extent], &task) }
        task.phase = .good
        return .medium(.writeSame(extent, pattern: blockLength, durable: !pages.writeCacheEnabled), bufferLength: blockLength)
    }

    func writeZeros(_ extent: Extent, _ task: inout DeviceTask, _ buffer: Buffer?) throws(Refusal) -> Step {
        let blockLength = settings.blockLength
        guard let buffer, buffer.capacity >= blockLength else { throw .check(.targetFailure) }
        buffer.withMutableBytes(0..<blockLength) { bytes in
            for index in 0..<blockLength { bytes[index] = 0 }
        }
        task.phase = .good
        return .medium(.writeSame(extent, pattern: blockLength, durable: !pages.writeCacheEnabled), bufferLength: blockLength)
    }

    private func discard(_ extents: [Extent], _ task: inout DeviceTask) -> Step {
        task.phase = pages.writeCacheEnabled ? .good : .flush
        return .medium(.discard(extents), bufferLength: 0)
    }

    /// UNMAP (SBC-3 §5.28). A descriptor of zero blocks asks for nothing, wherever it points.
    func unmap(_ task: inout DeviceTask, _ list: [UInt8]) throws(Refusal) -> Step {
        guard !list.isEmpty else { return .done(Completion()) }
        let header = 8, descriptor = 16
        guard list.count >= header else { throw .check(.listLength) }
        let announced = Int(list.span.uint16(at: 2))
        guard announced <= list.count - header else { throw .check(.listLength) }
        let count = announced / descriptor
        guard count <= Limits.unmapDescriptors else { throw .check(.parameter(2)) }
        var extents: [Extent] = []
        var blocks: UInt64 = 0
        for index in 0..<count {
            let position = header + index * descriptor
            let length = UInt64(list.span.uint32(at: position + 8))
            guard length > 0 else { continue }
            extents.append(try extent(first: list.span.uint64(at: position), count: length))
            blocks += length
            guard blocks <= Limits.unmapBlocks else { throw .check(.parameter(position + 8)) }
        }
        return extents.isEmpty ? .done(Completion()) : discard(extents, &task)
    }

    // MARK: Provisioning and capacity

    /// GET LBA STATUS (SBC-3 §5.6).
    func statusOfBlocks(_ task: inout DeviceTask) throws(Refusal) -> Step {
        let first = task.cdb.bytes.span.uint64(at: 2)
        let allocated = Int(task.cdb.bytes.span.uint32(at: 10))
        guard first < settings.blockCount else { throw .check(.outOfRange) }
        let extent = try extent(first: first, count: settings.blockCount - first)
        guard settings.isThinProvisioned else {
            return .done(statusOfBlocks([], from: first, allocated: allocated))
        }
        task.phase = .provisioning(first: first, allocated: allocated)
        return .medium(.provisioning(extent), bufferLength: 0)
    }

    mutating func statusOfBlocks(from first: UInt64, allocated: Int, _ outcome: Outcome) throws(Refusal) -> Step {
        switch outcome {
        case .provisioned(let runs): return .done(statusOfBlocks(runs, from: first, allocated: allocated))
        case .done, .failed(.unsupported): return .done(statusOfBlocks([], from: first, allocated: allocated))
        case .failed(let failure): throw .check(sense(for: failure))
        }
    }

    /// Runs of bytes as runs of blocks: a block is mapped if any byte of it is. Without runs, everything is.
    private func statusOfBlocks(_ runs: [ProvisionedRun], from first: UInt64, allocated: Int) -> Completion {
        let blockLength = UInt64(settings.blockLength)
        var found: [(first: UInt64, count: UInt64, isMapped: Bool)] = []
        var next = first
        for run in runs {
            let (end, overflow) = run.extent.offset.addingReportingOverflow(run.extent.length)
            let whole = (overflow ? UInt64.max : end) / blockLength
            let isPartial = !overflow && end % blockLength != 0
            let blockEnd = min(run.isMapped && isPartial ? whole + 1 : whole, settings.blockCount)
            guard blockEnd > next else { continue }
            if let last = found.last, last.isMapped == run.isMapped {
                found[found.count - 1].count += blockEnd - next
            } else {
                guard found.count < Limits.statusDescriptors else { break }
                found.append((next, blockEnd - next, run.isMapped))
            }
            next = blockEnd
        }
        if found.isEmpty, first < settings.blockCount { found = [(first, settings.blockCount - first, true)] }
        var descriptors: [UInt8] = []
        for status in found {
            descriptors.append(bigEndian: status.first)
            descriptors.append(bigEndian: UInt32(clamping: status.count))
            descriptors += [status.isMapped ? 0 : 1, 0, 0, 0]
            // What follows a run too long for its field would have to start in the middle of it.
            if status.count > UInt64(UInt32.max) { break }
        }
        var data: [UInt8] = []
        data.append(bigEndian: UInt32(descriptors.count + 4))
        data += [0, 0, 0, 0]
        return .data(data + descriptors, allocated: allocated)
    }

    /// READ CAPACITY(10) (SBC-3 §5.15).
    func readCapacity10(_ cdb: CommandDescriptorBlock) throws(Refusal) -> Step {
        guard cdb.bytes[8] & 0x01 != 0 || cdb.bytes.span.uint32(at: 2) == 0 else { throw .check(.field(2)) }
        var data: [UInt8] = []
        data.append(bigEndian: UInt32(clamping: settings.blockCount - 1))
        data.append(bigEndian: UInt32(settings.blockLength))
        return .done(.data(data, allocated: data.count))
    }

    /// READ CAPACITY(16) (SBC-3 §5.16).
    func readCapacity16(_ cdb: CommandDescriptorBlock) throws(Refusal) -> Step {
        guard cdb.bytes[14] & 0x01 != 0 || cdb.bytes.span.uint64(at: 2) == 0 else { throw .check(.field(2)) }
        var data: [UInt8] = []
        data.append(bigEndian: settings.blockCount - 1)
        data.append(bigEndian: UInt32(settings.blockLength))
        // LBPME and LBPRZ in front of LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
        let provisioning: UInt16 = settings.isThinProvisioned ? 0xc000 : 0
        data += [0, settings.physicalBlockExponent & 0x0f]
        data.append(bigEndian: provisioning | settings.lowestAlignedBlock & 0x3fff)
        data += [UInt8](repeating: 0, count: 16)
        return .done(.data(data, allocated: Int(cdb.bytes.span.uint32(at: 10))))
    }
}
