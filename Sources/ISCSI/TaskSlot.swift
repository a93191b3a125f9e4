import BasicContainers
import Bytes

/// All that this side keeps of one task. It lies in the table, and cannot be copied: it holds on to the task's buffer.
struct TaskSlot: ~Copyable {
    enum State {
        case free
        /// Its command has been told; `accept`, `finish` or `drop` is due.
        case presented
        case live
        /// Finished, but the initiator still sends data; the response waits for their end (RFC 7143 §11.17).
        case deferred
        /// Dropped; data that are still on the way are discarded.
        case draining(since: UInt64)
    }

    /// The end of a task as it goes over the wire.
    struct Ending: ~Copyable {
        let status: UInt8
        let sense: [UInt8]
        let dataIn: DataIn
        let naturalLength: Int
    }

    var state = State.free
    /// While it is `deferred`.
    var ending: Ending?
    var info: TaskInfo
    var buffer: Buffer?
    /// Bytes of Data-Out that go into the buffer.
    var wanted = 0
    /// Bytes of Data-Out that have come, in order, whether kept or not.
    var received = 0
    /// Unsolicited Data-Out follow.
    var unsolicitedIsOpen = false
    /// A PDU with data of this task is being read.
    var isReadingPDU = false
    /// DataSN of the next Data-Out in the current sequence.
    var dataSN: UInt32 = 0
    /// R2Ts sent and answered. The n-th asks for bytes from `solicitedFrom` + n · MaxBurstLength on.
    var solicitedFrom = 0
    var r2tsSent = 0
    var r2tsAnswered = 0
    var failure: DataOutError?
    /// The end of its data, or their failure, has been told.
    var dataOutIsTold = false

    init(info: TaskInfo) { self.info = info }

    var isLive: Bool {
        switch state {
        case .presented, .live: true
        case .free, .deferred, .draining: false
        }
    }
    var isDraining: Bool { if case .draining = state { true } else { false } }

    /// Keeps data of its PDUs that belong at `offset`, as far as they are wanted.
    borrowing func place(_ data: borrowing Span<UInt8>, at offset: Int) {
        let count = min(data.count, wanted - offset)
        if count > 0 { buffer?.copy(data.extracting(0..<count), to: offset) }
    }

    var expectsData: Bool { unsolicitedIsOpen || isReadingPDU || r2tsSent > r2tsAnswered }
    var dataOutIsComplete: Bool { !expectsData && received >= wanted }
}

extension FullFeature {
    /// Where an R2T's data end.
    func burstEnd(_ slot: Int) -> Int {
        let start = tasks[slot].solicitedFrom + tasks[slot].r2tsAnswered * negotiated.maxBurstLength
        return min(start + negotiated.maxBurstLength, tasks[slot].wanted)
    }

    /// Never the reserved tag: there are far fewer slots than 0xffff.
    func transferTag(_ slot: Int, _ number: Int) -> UInt32 { UInt32(slot) << 16 | UInt32(number & 0xffff) }

    /// A slot for a new task.
    mutating func allocate(_ info: TaskInfo) -> Int {
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
            tasks[slot] = TaskSlot(info: info)
        } else {
            slot = tasks.count
            tasks.append(TaskSlot(info: info))
        }
        tasks[slot].state = .presented
        slotOfTag[info.initiatorTaskTag] = slot
        liveTasks += 1
        if info.isImmediate { immediateTasks += 1 } else { occupied += 1 }
        return slot
    }

    /// The task no longer counts; its slot is free, or drains what is still on the way.
    mutating func end(_ slot: Int) {
        liveTasks -= 1
        if tasks[slot].info.isImmediate { immediateTasks -= 1 } else { occupied -= 1 }
        tasks[slot].buffer = nil
        tasks[slot].ending = nil
        if tasks[slot].expectsData {
            if drainingTasks == FullFeatureLimits.draining { forgetOldestDraining() }
            drainingCounter += 1
            tasks[slot].state = .draining(since: drainingCounter)
            drainingTasks += 1
        } else {
            release(slot)
        }
    }

    /// Frees a slot that counts neither as live nor as draining any more.
    private mutating func release(_ slot: Int) {
        slotOfTag[tasks[slot].info.initiatorTaskTag] = nil
        tasks[slot].state = .free
        freeSlots.append(slot)
    }

    /// Gives back the room of tasks that were, while there is none and no data of one are still to come.
    public mutating func shrink() {
        guard liveTasks == 0, drainingTasks == 0 else { return }
        tasks = UniqueArray()
        (freeSlots, slotOfTag) = ([], TagTable())
    }

    mutating func forgetDraining(_ slot: Int) {
        drainingTasks -= 1
        release(slot)
    }

    private mutating func forgetOldestDraining() {
        var oldest: (slot: Int, since: UInt64)?
        for slot in tasks.indices {
            guard case .draining(let since) = tasks[slot].state, !tasks[slot].isReadingPDU, since < oldest?.since ?? .max else { continue }
            oldest = (slot, since)
        }
        if let oldest { forgetDraining(oldest.slot) }
    }
}
