import Bytes
import ISCSI
import Medium
import SCSI

/// The way of one command: it enters, gets its data and its turn, goes to the store and back, is answered.
extension Session {
    /// A command has entered, in CmdSN order.
    func command(_ index: TaskIndex) {
        if target.unitGeneration != unitGeneration { refreshUnits(nil) }
        let info = engine.task(index)
        let cdb = CommandDescriptorBlock(info.cdb)
        let nexus = LogicalUnitNumber(rawValue: info.lun).flat.flatMap { nexuses[$0] }
        let verdict = targetLevelAnswer(cdb, nexus, info)
        let dataOutLength = verdict == nil && info.writes ? nexus?.unit.dataOutLength(cdb) ?? 0 : 0
        let expected = info.expectedDataTransferLength
        let wanted = min(expected, dataOutLength)

        taskSerial += 1
        let device = DeviceTask(
            nexus: start.nexus, cdb: cdb, dataOutCount: wanted, expectedDataOutCount: info.writes ? expected : nil)
        let task = SessionTask(index: index, serial: taskSerial, nexus: nexus, device: device)
        task.isRead = info.reads
        task.isWrite = info.writes
        task.expectedLength = expected
        task.dataOutLength = dataOutLength
        task.verdict = verdict
        if verdict == nil, let nexus {
            let (place, mayRun) = nexus.taskSet.enter(index, TaskAttribute(rawValue: info.attribute) ?? .ordered)
            task.place = place
            task.mayRun = mayRun
            nexus.unit.commandEntered()
            if task.isRead { nexus.statistics.readSubmitted.add(expected) }
            if task.isWrite { nexus.statistics.writeSubmitted.add(expected) }
        }
        while tasks.count <= index.rawValue { tasks.append(nil) }
        precondition(tasks[index.rawValue] == nil, "the engine gives a slot anew only when it has been told that its task is over")
        tasks[index.rawValue] = task
        accept(index, wanted: wanted)
    }

    /// What the target itself answers, for whatever LUN (SAM-5 §4.7, SPC-4 §6.33).
    private func targetLevelAnswer(_ cdb: CommandDescriptorBlock, _ nexus: ITLNexus?, _ info: TaskInfo) -> Completion? {
        if TargetLevel.isReportLUNs(cdb) {
            nexus?.unit.reportedLUNs(to: start.nexus)
            return TargetLevel.reportLUNs(cdb, luns: nexuses.keys.sorted())
        }
        if nexus == nil { return TargetLevel.unknownLogicalUnit(cdb) }
        if info.reads && info.writes { return .checkCondition(Sense(.illegalRequest, .invalidFieldInCDB)) }
        return nil
    }

    /// Gives a command a buffer for its data, or stops reading until there is one.
    func accept(_ index: TaskIndex, wanted: Int) {
        if wanted > 0 {
            guard obtainBuffer(index, wanted) else { return postpone(index) }
        }
        unaccepted = nil
        if engine.accept(index, wanted: wanted, buffer: tasks[index.rawValue]?.buffer) { dataOutComplete(index) }
    }

    /// All its Data-Out has come.
    func dataOutComplete(_ index: TaskIndex) {
        guard let task = tasks[index.rawValue] else { return }
        if let verdict = task.verdict { return settle(index, verdict) }
        task.phase = .ready
        if task.mayRun { ready.append(index) }
    }

    /// Its Data-Out cannot be had: the command ends with ABORTED COMMAND (RFC 7143 §11.4.7.2).
    func dataOutFailed(_ index: TaskIndex, _ error: DataOutError) {
        guard tasks[index.rawValue] != nil else { return }
        let (code, qualifier) = error.additionalSense
        settle(index, .checkCondition(key: .abortedCommand, asc: code, ascq: qualifier))
    }

    /// Does all that can be done now.
    func drain() {
        while true {
            if let index = ready.popFirst() {
                begin(index)
            } else if let index = answersWaiting.first, answersMayGo {
                answersWaiting.removeFirst()
                if case .answerWaits(let completion) = tasks[index.rawValue]?.phase { answer(index, completion) }
            } else {
                // Before anybody is told that this session is gone.
                if isQuiet { deregister() }
                guard carryOutNextWait() || breakDeadlock() else { break }
            }
        }
    }

    private func deregister() {
        guard !isDeregistered else { return }
        isDeregistered = true
        target.deregister(start.nexus)
    }

    private func begin(_ index: TaskIndex) {
        guard let task = tasks[index.rawValue], let nexus = task.nexus else { return }
        task.device.mayOnlyRead = nexus.mayOnlyRead
        let step = nexus.unit.begin(&task.device, dataOut: task.buffer)
        advance(index, step)
    }

    private func advance(_ index: TaskIndex, _ step: Step) {
        switch step {
        case .done(let completion): settle(index, completion)
        case .medium(let operation, let length):
            guard obtainBuffer(index, length) else {
                tasks[index.rawValue]!.phase = .waitsForMemory(operation, length: length)
                tasks[index.rawValue]!.waitsSince = clock
                waitsForMemory.append(index)
                awaitMemory()
                return
            }
            perform(index, operation)
        case .keep(let revision): keep(index, revision)
        }
    }

    func perform(_ index: TaskIndex, _ operation: Operation) {
        guard let task = tasks[index.rawValue], let nexus = task.nexus else { return }
        task.phase = .inStore
        outside += 1
        actions.append(.perform(Ticket(task: index, serial: task.serial), nexus.unit, operation, task.buffer))
    }

    private func keep(_ index: TaskIndex, _ revision: UInt64) {
        guard let task = tasks[index.rawValue], let nexus = task.nexus else { return }
        task.phase = .keeping
        outside += 1
        actions.append(.keep(Ticket(task: index, serial: task.serial), nexus.unit, revision))
    }

    /// Whether `ticket` is of a task that somebody outside works for.
    func isOutside(_ ticket: Ticket) -> Bool {
        guard tasks.indices.contains(ticket.task.rawValue), let task = tasks[ticket.task.rawValue] else { return false }
        return task.serial == ticket.serial && task.isOutside
    }

    /// The store, or the keeper, is done with a task. An aborted one is told to its logical unit all the same: a failed flush is
    /// remembered, and what reservations have become is kept.
    func resume(_ index: TaskIndex, _ outcome: Outcome) {
        guard let task = tasks[index.rawValue], let nexus = task.nexus else { return }
        let step = nexus.unit.resume(&task.device, after: outcome, buffer: task.buffer)
        switch (task.fate, step) {
        case (.goesOn, _):
            outside -= 1
            advance(index, step)
        case (_, .keep(let revision)):
            outside -= 1
            keep(index, revision)
        default: left(index)
        }
    }

    /// A task that was ended while it was outside has come back, or was not sent there.
    func left(_ index: TaskIndex) {
        outside -= 1
        if endReason == nil, let answer = tasks[index.rawValue]?.fate.answer {
            settle(index, answer)
        } else {
            engine.drop(index)
            vacate(index)
        }
        for position in waits.indices { waits[position].tasks.remove(index) }
    }

    /// A task is over, but for the tasks it has aborted (PREEMPT AND ABORT, SPC-4 §5.13.11.2.7).
    private func settle(_ index: TaskIndex, _ completion: Completion) {
        guard let task = tasks[index.rawValue] else { return }
        let preempted = task.device.abortsTasksOf
        guard !preempted.isEmpty, let nexus = task.nexus else { return giveAnswer(index, completion) }
        task.phase = .waitsForOthers(completion)
        var own: Set<TaskIndex> = []
        if preempted.contains(start.nexus) { (own, _) = abort { $0.nexus === nexus && $0.index != index } }
        let others = preempted.filter { $0 != start.nexus }.compactMap { target.session($0) }
        ask(others, thenWaitFor: own, then: .settle(index, serial: task.serial)) {
            .abortTasks(unit: nexus.unit, clearedByAnother: true, $0)
        }
    }

    private var answersMayGo: Bool { engine.output.byteCount < SessionLimits.unsentBeforeAnswersWait }

    /// Answers a task, now or when answers before it have been sent.
    func giveAnswer(_ index: TaskIndex, _ completion: Completion) {
        if answersWaiting.isEmpty && answersMayGo {
            answer(index, completion)
        } else {
            tasks[index.rawValue]!.phase = .answerWaits(completion)
            answersWaiting.append(index)
        }
    }

    func answer(_ index: TaskIndex, _ completion: Completion) {
        guard let task = tasks[index.rawValue] else { return }
        let dataIn: DataIn
        var length = 0
        switch completion.dataIn {
        case .none: dataIn = .none
        case .bytes(let bytes):
            dataIn = .bytes(bytes)
            length = bytes.count
        case .buffer(let count):
            guard let buffer = task.buffer else { preconditionFailure("data come from the buffer that the device server asked for") }
            dataIn = .buffer(buffer, count: count)
            length = count
        }
        engine.finish(
            index, status: completion.status.rawValue, sense: completion.sense, dataIn: dataIn,
            naturalLength: task.isWrite ? task.dataOutLength : length)
        task.nexus?.count(task, completion.status, dataIn: length)
        if case .buffer = completion.dataIn {
            chargesInOutput.append((bytesSent + UInt64(engine.output.byteCount), task.charge))
            task.charge = 0
        }
        vacate(index)
    }

    /// The task is no more; those that waited for it may run.
    func vacate(_ index: TaskIndex) {
        guard let task = tasks[index.rawValue] else { return }
        tasks[index.rawValue] = nil
        memoryHeld -= task.charge
        guard let place = task.place, let nexus = task.nexus else { return }
        nexus.unit.commandLeft()
        nexus.taskSet.leave(index, place, mayRun: task.mayRun) { released in
            guard let task = tasks[released.rawValue] else { return }
            task.mayRun = true
            if case .ready = task.phase { ready.append(released) }
        }
    }
}

extension ITLNexus {
    fileprivate func count(_ task: SessionTask, _ status: Status, dataIn: Int) {
        guard status == .good || status == .conditionMet else {
            statistics.errors &+= 1
            return
        }
        if task.isRead { statistics.readDone.add(min(dataIn, task.expectedLength)) }
        if task.isWrite { statistics.writeDone.add(min(task.dataOutLength, task.expectedLength)) }
    }
}
