import Bytes
import ISCSI
import Medium
import SCSI

/// The way of one command: it enters, gets its data and its turn, goes to the store and back, is answered.
extension SessionState {
    /// A command has entered, in CmdSN order.
    mutating func command(_ index: TaskIndex) {
        if target.unitGeneration != unitGeneration { refreshUnits(nil) }
        let info = engine.task(index)
        let cdb = CommandDescriptorBlock(info.cdb)
        let nexus = nexus(info.lun)
        let verdict = targetLevelAnswer(cdb, nexus, info)
        let own = verdict == nil ? nexus : nil
        var dataOutLength = 0
        if info.writes, let own { dataOutLength = nexuses[own].dataOutLength(cdb) }
        let expected = info.expectedDataTransferLength
        let wanted = min(expected, dataOutLength)

        let slot = index.rawValue
        while tasks.count <= slot { tasks.append(TaskState()) }
        precondition(tasks[slot].isVacant, "the engine gives a slot anew only when it has been told that its task is over")
        taskSerial += 1
        let device = DeviceTask(nexus: start.nexus, cdb: cdb, dataOutCount: wanted, expectedDataOutCount: info.writes ? expected : nil)
        tasks[slot].enter(serial: taskSerial, nexus, info, device, verdict: verdict, dataOutLength: dataOutLength)
        if let own { nexuses[own].enter(index, info, &tasks[slot]) }
        accept(index, wanted: wanted)
    }

    /// What the target itself answers, for whatever LUN (SAM-5 §4.7, SPC-4 §6.33).
    private func targetLevelAnswer(_ cdb: CommandDescriptorBlock, _ nexus: Int?, _ info: TaskInfo) -> Completion? {
        if TargetLevel.isReportLUNs(cdb) {
            if let nexus { nexuses[nexus].unit.reportedLUNs(to: start.nexus) }
            return TargetLevel.reportLUNs(cdb, luns: seen.keys.sorted())
        }
        if nexus == nil { return TargetLevel.unknownLogicalUnit(cdb) }
        if info.reads && info.writes { return .checkCondition(Sense(.illegalRequest, .invalidFieldInCDB)) }
        return nil
    }

    /// Gives a command a buffer for its data, or stops reading until there is one.
    mutating func accept(_ index: TaskIndex, wanted: Int) {
        if wanted > 0 {
            guard obtainBuffer(index, wanted) else { return postpone(index) }
        }
        unaccepted = nil
        if engine.accept(index, wanted: wanted, buffer: tasks[index.rawValue].buffer) { dataOutComplete(index) }
    }

    /// All its Data-Out has come.
    mutating func dataOutComplete(_ index: TaskIndex) {
        let slot = index.rawValue
        guard !tasks[slot].isVacant else { return }
        if let verdict = tasks[slot].verdict { return settle(index, verdict) }
        tasks[slot].phase = .ready
        if tasks[slot].mayRun { ready.append(index) }
    }

    /// Its Data-Out cannot be had: the command ends with ABORTED COMMAND (RFC 7143 §11.4.7.2).
    mutating func dataOutFailed(_ index: TaskIndex, _ error: DataOutError) {
        guard !tasks[index.rawValue].isVacant else { return }
        let (code, qualifier) = error.additionalSense
        settle(index, .checkCondition(key: .abortedCommand, asc: code, ascq: qualifier))
    }

    /// Does all that can be done now.
    mutating func drain() {
        while true {
            if let index = ready.popFirst() {
                begin(index)
            } else if let index = answersWaiting.first, answersMayGo {
                answersWaiting.removeFirst()
                if tasks[index.rawValue].phase == .answerWaits, let verdict = tasks[index.rawValue].verdict { answer(index, verdict) }
            } else {
                // Before anybody is told that this session is gone.
                if isQuiet { deregister() }
                guard carryOutNextWait() || breakDeadlock() else { break }
            }
        }
    }

    private mutating func deregister() {
        guard !isDeregistered else { return }
        isDeregistered = true
        target.deregister(start.nexus)
    }

    private mutating func begin(_ index: TaskIndex) {
        guard let nexus = tasks[index.rawValue].nexus else { return }
        advance(index, nexuses[nexus].begin(&tasks[index.rawValue]))
    }

    private mutating func advance(_ index: TaskIndex, _ step: consuming Step) {
        switch consume step {
        case .done(let completion): settle(index, completion)
        case .medium(let operation, let length):
            guard obtainBuffer(index, length) else {
                let slot = index.rawValue
                tasks[slot].phase = .waitsForMemory
                (tasks[slot].operation, tasks[slot].wantedMemory, tasks[slot].waitsSince) = (operation, length, clock)
                waitsForMemory.append(index)
                awaitMemory()
                return
            }
            perform(index, operation)
        case .keep(let revision): keep(index, revision)
        }
    }

    mutating func perform(_ index: TaskIndex, _ operation: Operation) {
        let slot = index.rawValue
        guard !tasks[slot].isVacant else { return }
        tasks[slot].operation = operation
        tasks[slot].phase = .inStore
        outside += 1
        actions.append(.perform(Ticket(task: index, serial: tasks[slot].serial)))
    }

    private mutating func keep(_ index: TaskIndex, _ revision: UInt64) {
        let slot = index.rawValue
        guard let nexus = tasks[slot].nexus else { return }
        tasks[slot].phase = .keeping
        outside += 1
        actions.append(.other(.keep(Ticket(task: index, serial: tasks[slot].serial), nexuses[nexus].unit, revision)))
    }

    /// Whether `ticket` is of a task that somebody outside works for.
    mutating func isOutside(_ ticket: Ticket) -> Bool {
        let slot = ticket.task.rawValue
        return slot < tasks.count && tasks[slot].serial == ticket.serial && tasks[slot].isOutside
    }

    /// The store, or the keeper, is done with a task. An aborted one is told to its logical unit all the same: a failed flush is
    /// remembered, and what reservations have become is kept.
    mutating func resume(_ index: TaskIndex, _ outcome: Outcome) {
        guard let nexus = tasks[index.rawValue].nexus else { return }
        let step = nexuses[nexus].resume(&tasks[index.rawValue], after: outcome)
        if tasks[index.rawValue].fate == .goesOn {
            outside -= 1
            advance(index, step)
        } else if case .keep(let revision) = step {
            outside -= 1
            keep(index, revision)
        } else {
            left(index)
        }
    }

    /// A task that was ended while it was outside has come back, or was not sent there.
    mutating func left(_ index: TaskIndex) {
        outside -= 1
        if endReason == nil, let answer = tasks[index.rawValue].fate.answer {
            settle(index, answer)
        } else {
            engine.drop(index)
            vacate(index)
        }
        for position in waits.indices { waits[position].tasks.remove(index) }
    }

    /// A task is over, but for the tasks it has aborted (PREEMPT AND ABORT, SPC-4 §5.13.11.2.7).
    private mutating func settle(_ index: TaskIndex, _ completion: consuming Completion) {
        let slot = index.rawValue
        guard !tasks[slot].isVacant else { return }
        guard !tasks[slot].device.abortsTasksOf.isEmpty, let nexus = tasks[slot].nexus else { return giveAnswer(index, completion) }
        let preempted = tasks[slot].device.abortsTasksOf
        tasks[slot].verdict = completion
        tasks[slot].phase = .waitsForOthers
        var own: Set<TaskIndex> = []
        if preempted.contains(start.nexus) { (own, _) = abort { $0 != index && $1.nexus == nexus } }
        let others = preempted.filter { $0 != start.nexus }.compactMap { target.session($0) }
        let unit = nexuses[nexus].unit
        ask(others, thenWaitFor: own, then: .settle(index, serial: tasks[slot].serial)) {
            .abortTasks(unit: unit, clearedByAnother: true, $0)
        }
    }

    private var answersMayGo: Bool { engine.output.byteCount < SessionLimits.unsentBeforeAnswersWait }

    /// Answers a task, now or when answers before it have been sent.
    mutating func giveAnswer(_ index: TaskIndex, _ completion: consuming Completion) {
        if answersWaiting.isEmpty && answersMayGo {
            answer(index, completion)
        } else {
            tasks[index.rawValue].verdict = completion
            tasks[index.rawValue].phase = .answerWaits
            answersWaiting.append(index)
        }
    }

    mutating func answer(_ index: TaskIndex, _ completion: consuming Completion) {
        let slot = index.rawValue
        guard !tasks[slot].isVacant else { return }
        let status = completion.status
        let dataIn: DataIn
        var isInBuffer = false
        switch completion.dataIn {
        case .none: dataIn = .none
        case .bytes(let bytes): dataIn = .bytes(bytes)
        case .buffer(let count):
            // From here on it is the output's.
            guard let buffer = tasks[slot].buffer.take() else { preconditionFailure("data come from the buffer that the device server asked for") }
            dataIn = .buffer(buffer, count: count)
            isInBuffer = true
        }
        let length = dataIn.count
        engine.finish(
            index, status: status.rawValue, sense: completion.sense, dataIn: consume dataIn,
            naturalLength: tasks[slot].isWrite ? tasks[slot].dataOutLength : length)
        if let nexus = tasks[slot].nexus {
            let expected = tasks[slot].expectedLength
            let (read, written) = (tasks[slot].isRead ? min(length, expected) : nil, tasks[slot].isWrite ? min(tasks[slot].dataOutLength, expected) : nil)
            nexuses[nexus].count(status, read: read, written: written)
        }
        if isInBuffer {
            chargesInOutput.append((bytesSent + UInt64(engine.output.byteCount), tasks[slot].charge))
            tasks[slot].charge = 0
        }
        vacate(index)
    }

    /// The task is no more; those that waited for it may run.
    mutating func vacate(_ index: TaskIndex) {
        let slot = index.rawValue
        guard !tasks[slot].isVacant else { return }
        memoryHeld -= tasks[slot].charge
        let (place, mayRun) = (tasks[slot].place, tasks[slot].mayRun)
        let buffer = tasks[slot].buffer.take()
        if data.isAmple { engine.output.keep(consume buffer) }
        let nexus = tasks[slot].leave()
        guard let place, let nexus else { return }
        nexuses[nexus].leave(index, place, mayRun: mayRun)
        while let next = nexuses[nexus].taskSet.nextToRun() {
            guard !tasks[next.rawValue].isVacant else { continue }
            tasks[next.rawValue].mayRun = true
            if tasks[next.rawValue].phase == .ready { ready.append(next) }
        }
    }
}
