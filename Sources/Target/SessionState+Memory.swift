import Bytes
import ISCSI
import SCSI

/// Memory for data: a share of the pool, waited for with a deadline.
extension SessionState {
    /// Sees to it that a task has a buffer of `length` bytes; what is in the one it has stays.
    /// - Returns: false if there is no memory for it now.
    mutating func obtainBuffer(_ index: TaskIndex, _ length: Int) -> Bool {
        let slot = index.rawValue
        guard !tasks[slot].isVacant, length > tasks[slot].buffer?.capacity ?? 0 else { return true }
        let charge = BufferPool.charge(for: length)
        // What holds nothing else may have one buffer of any size.
        let others = memoryHeld - tasks[slot].charge
        guard others == 0 || others + charge <= memoryShare, let buffer = engine.output.reuse(charge) ?? data.allocate(length) else { return false }
        if let old = tasks[slot].buffer { old.withBytes(0..<old.capacity) { buffer.copy($0, to: 0) } }
        memoryHeld += charge - tasks[slot].charge
        tasks[slot].buffer = consume buffer
        tasks[slot].charge = charge
        return true
    }

    /// Asks to be told of memory, unless that has been done.
    mutating func awaitMemory() {
        guard !memoryIsAwaited else { return }
        memoryIsAwaited = true
        actions.append(.other(.waitForMemory))
    }

    /// Gives memory to who waits for it, in order; who has waited too long is answered BUSY.
    mutating func serveMemory() {
        guard unaccepted != nil || !waitsForMemory.isEmpty else { return }
        if let index = unaccepted, !tasks[index.rawValue].isVacant {
            if clock >= unacceptedSince + SessionLimits.memoryWait {
                refuseData(index, .busy)
            } else {
                accept(index, wanted: min(tasks[index.rawValue].expectedLength, tasks[index.rawValue].dataOutLength))
            }
        }
        while let index = waitsForMemory.first {
            let slot = index.rawValue
            guard tasks[slot].phase == .waitsForMemory else {
                waitsForMemory.removeFirst()
                continue
            }
            if obtainBuffer(index, tasks[slot].wantedMemory) {
                waitsForMemory.removeFirst()
                perform(index, tasks[slot].operation)
            } else if clock >= tasks[slot].waitsSince + SessionLimits.memoryWait {
                waitsForMemory.removeFirst()
                giveAnswer(index, Completion(status: .busy))
            } else {
                break
            }
        }
        if unaccepted != nil || !waitsForMemory.isEmpty { awaitMemory() }
    }

    /// There is no buffer for the data of a write: reading stops until there is one – unless what is to be read next are data that
    /// hold memory themselves until they have come. Then waiting could last for ever, and the write is refused.
    mutating func postpone(_ index: TaskIndex) {
        if unaccepted == nil {
            guard !holdsMemoryUntilRead else { return refuseData(index, .taskSetFull) }
            unaccepted = index
            unacceptedSince = clock
        }
        awaitMemory()
    }

    /// Whether tasks have buffers whose data have not all come.
    var holdsMemoryUntilRead: Bool { tasks.indices.contains { tasks[$0].charge > 0 && tasks[$0].phase == .collecting } }

    /// Refuses who waits for memory that tasks behind it hold: those cannot run before it does, so nobody would ever.
    /// - Returns: whether there was one
    mutating func breakDeadlock() -> Bool {
        guard unaccepted != nil || !waitsForMemory.isEmpty, memoryHeld > 0, outside == 0, chargesInOutput.isEmpty else { return false }
        guard tasks.indices.allSatisfy({ tasks[$0].charge == 0 || tasks[$0].phase == .ready && !tasks[$0].mayRun }) else { return false }
        if let index = waitsForMemory.popFirst() {
            giveAnswer(index, Completion(status: .taskSetFull))
        } else if let index = unaccepted {
            refuseData(index, .taskSetFull)
        }
        return true
    }

    /// There is no memory for the data of a write: they are thrown away (SAM-5 §5.3.1: TASK SET FULL where other tasks of the
    /// nexus have the resources, else BUSY).
    private mutating func refuseData(_ index: TaskIndex, _ status: Status) {
        tasks[index.rawValue].verdict = Completion(status: status)
        tasks[index.rawValue].dataOutLength = 0
        accept(index, wanted: 0)
    }
}
