import ISCSI
import SCSI

/// Functions of Task Management Function Requests (RFC 7143 §11.5.1).
enum TaskManagementFunction: UInt8 {
    case abortTask = 1, abortTaskSet = 2, clearACA = 3, clearTaskSet = 4
    case logicalUnitReset = 5, targetWarmReset = 6, targetColdReset = 7, taskReassign = 8
}

/// Responses to them (RFC 7143 §11.6.1).
enum TaskManagementResponse: UInt8 {
    case functionComplete = 0, taskDoesNotExist = 1, lunDoesNotExist = 2
    case reassignmentNotSupported = 4, notSupported = 5, rejected = 255
}

/// Task management, and all else that ends tasks: an answer is given only when every affected task has left the store.
extension SessionState {
    mutating func manage(_ request: TaskManagementRequest) {
        guard waits.count(where: \.then.isFunction) < SessionLimits.pendingFunctions else { return respond(request, .rejected) }
        if target.unitGeneration != unitGeneration { refreshUnits(nil) }
        let nexus = nexus(request.lun)
        switch TaskManagementFunction(rawValue: request.function) {
        case .abortTask: abortTask(request)
        case .abortTaskSet, .clearTaskSet:
            // One task set per I_T nexus: clearing it touches nobody else's.
            guard let nexus else { return respond(request, .lunDoesNotExist) }
            let (stillOutside, _) = abort { $1.nexus == nexus }
            wait(for: stillOutside, awaitsOthers: false, then: .answer(request))
        case .logicalUnitReset:
            guard let nexus else { return respond(request, .lunDoesNotExist) }
            guard !nexuses[nexus].mayOnlyRead else { return respond(request, .rejected) }
            let (stillOutside, _) = abort { $1.nexus == nexus }
            let unit = nexuses[nexus].unit
            ask(target.others(than: start.nexus), thenWaitFor: stillOutside, then: .resetUnit(request, unit)) {
                .abortTasks(unit: unit, clearedByAnother: false, $0)
            }
        case .targetWarmReset: resetTarget(request, cold: false)
        case .targetColdReset: resetTarget(request, cold: true)
        case .taskReassign: respond(request, .reassignmentNotSupported)
        case .clearACA, nil: respond(request, .notSupported)
        }
    }

    private mutating func abortTask(_ request: TaskManagementRequest) {
        let index: TaskIndex
        switch request.referenced {
        case .task(let referenced): index = referenced
        case .isOver: return respond(request, .functionComplete)
        case .none, .doesNotExist: return respond(request, .taskDoesNotExist)
        }
        guard !tasks[index.rawValue].isVacant, engine.task(index).lun == request.lun else {
            return respond(request, .taskDoesNotExist)
        }
        let (stillOutside, _) = abort { found, _ in found == index }
        wait(for: stillOutside, awaitsOthers: false, then: .answer(request))
    }

    /// Resets the logical units that it may write; the sessions of others end only if that is all of them.
    private mutating func resetTarget(_ request: TaskManagementRequest, cold: Bool) {
        let (stillOutside, _) = abort { _, _ in true }
        let units = Set(seen.values.filter { !nexuses[$0].mayOnlyRead }.map { nexuses[$0].unit })
        let endsSessions = cold && target.numbers.allSatisfy { mask.access(to: $0) == .write }
        ask(target.others(than: start.nexus), thenWaitFor: stillOutside, then: .resetTarget(request, units, cold: cold)) {
            .targetReset(units, endsSessions: endsSessions, $0)
        }
    }

    private mutating func respond(_ request: TaskManagementRequest, _ response: TaskManagementResponse) {
        guard endReason == nil else { return }
        engine.answer(request, response: response.rawValue)
    }

    // MARK: Aborting

    /// Ends the tasks that `isMeant` says: those outside when they come back, the others at once.
    /// - Returns: those that are outside, and whether there were any at all.
    mutating func abort(fate: TaskState.Fate = .aborted, _ isMeant: (TaskIndex, borrowing TaskState) -> Bool) -> (outside: Set<TaskIndex>, any: Bool) {
        var stillOutside: Set<TaskIndex> = []
        var any = false
        for slot in tasks.indices {
            let index = TaskIndex(rawValue: slot)
            guard !tasks[slot].isVacant, isMeant(index, tasks[slot]) else { continue }
            any = true
            if tasks[slot].isOutside {
                if tasks[slot].fate != .aborted { tasks[slot].fate = fate }
                stillOutside.insert(index)
            } else {
                withdraw(index)
                if let answer = fate.answer {
                    giveAnswer(index, answer)
                } else {
                    engine.drop(index)
                    vacate(index)
                }
            }
        }
        return (stillOutside, any)
    }

    /// Takes a task out of the queue it waits in.
    private mutating func withdraw(_ index: TaskIndex) {
        switch tasks[index.rawValue].phase {
        case .ready: ready.removeAll { $0 == index }
        case .waitsForMemory: waitsForMemory.removeAll { $0 == index }
        case .answerWaits: answersWaiting.removeAll { $0 == index }
        case .collecting where unaccepted == index: unaccepted = nil
        default: break
        }
    }

    /// All tasks that are outside.
    var outsideTasks: Set<TaskIndex> {
        var found: Set<TaskIndex> = []
        for slot in tasks.indices where tasks[slot].isOutside { found.insert(TaskIndex(rawValue: slot)) }
        return found
    }

    /// Logical units came or went, or others are to be seen.
    mutating func refreshUnits(_ acknowledgement: Acknowledgement?) {
        let units = visibleUnits()
        for (number, nexus) in seen where units[number] !== nexuses[nexus].unit {
            seen[number] = nil
            nexuses[nexus].medium = nil
            let (stillOutside, _) = abort(fate: .unitRemoved) { $1.nexus == nexus }
            wait(for: stillOutside, awaitsOthers: false, then: .letGo(nil, detaching: nexuses[nexus].unit))
        }
        var free = nexusesOfNobody
        for (number, unit) in units where seen[number] == nil {
            let nexus = ITLNexus(unit: unit, mask.access(to: number))
            if let place = free.popLast() {
                nexuses[place] = nexus
                seen[number] = place
            } else {
                nexuses.append(nexus)
                seen[number] = nexuses.count - 1
            }
        }
        guard let acknowledgement else { return }
        let now = Set(seen.values)
        let ofUnitsGone = outsideTasks.filter { index in tasks[index.rawValue].nexus.map { !now.contains($0) } ?? false }
        wait(for: ofUnitsGone, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
    }

    /// Places in `nexuses` of units that are not seen any more, and of which no task is left.
    private var nexusesOfNobody: [Int] {
        var used = Set(seen.values)
        for slot in tasks.indices { if let nexus = tasks[slot].nexus { used.insert(nexus) } }
        return nexuses.indices.filter { !used.contains($0) }
    }

    /// The logical units that the session may see, as of now.
    mutating func visibleUnits() -> [Int: LogicalUnit] {
        let (units, generation) = target.units()
        unitGeneration = generation
        return mask == .all ? units : units.filter { mask.access(to: $0.key) != .none }
    }

    /// What the session may see and write has changed: commands that it may not give any more are ended, then it is told on what it
    /// sees. What of them is in the store comes to its end there before `acknowledgement` is let go.
    mutating func apply(_ new: LUNMask, _ acknowledgement: Acknowledgement) {
        if new != mask, endReason == nil {
            mask = new
            target.setMask(new, of: start.nexus)
            refreshUnits(nil)
            for (number, nexus) in seen {
                let mayOnlyRead = new.access(to: number) < .write
                let unit = nexuses[nexus].unit
                if mayOnlyRead != nexuses[nexus].mayOnlyRead {
                    nexuses[nexus].mayOnlyRead = mayOnlyRead
                    if mayOnlyRead { stopWriting(nexus, unit) }
                    unit.post(.modeParametersChanged, to: .only(start.nexus))
                }
                unit.post(.reportedLUNsDataChanged, to: .only(start.nexus))
            }
        }
        let ended = outsideTasks.filter { tasks[$0.rawValue].fate != .goesOn }
        wait(for: ended, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
    }

    private mutating func stopWriting(_ nexus: Int, _ unit: LogicalUnit) {
        _ = abort(fate: .writeProtected) { _, task in task.nexus == nexus && !task.isOver && !unit.isRead(task.device.cdb) }
        unit.release(start.nexus)
    }

    // MARK: Waiting

    mutating func wait(for tasks: Set<TaskIndex>, awaitsOthers: Bool, then: Wait.Then) {
        waitNumber += 1
        waits.append(Wait(number: waitNumber, tasks: tasks, awaitsOthers: awaitsOthers, then: then))
    }

    /// Asks other sessions, and waits for them and for tasks of this one.
    mutating func ask(
        _ others: [SessionHandle], thenWaitFor tasks: Set<TaskIndex>, then: Wait.Then, _ message: (Acknowledgement) -> Notification
    ) {
        wait(for: tasks, awaitsOthers: !others.isEmpty, then: then)
        guard !others.isEmpty else { return }
        let (number, deliver) = (waitNumber, deliver)
        let acknowledgement = Acknowledgement { deliver(.othersLetGo(number)) }
        for other in others { other.deliver(message(acknowledgement)) }
    }

    /// Carries out what waits for nothing any more, one at a time.
    mutating func carryOutNextWait() -> Bool {
        guard let position = waits.firstIndex(where: \.isOver) else { return false }
        switch waits.remove(at: position).then {
        case .answer(let request): respond(request, .functionComplete)
        case .resetUnit(let request, let unit):
            unit.reset()
            respond(request, .functionComplete)
        case .resetTarget(let request, let units, let cold):
            for unit in units { unit.reset() }
            respond(request, .functionComplete)
            if cold { close(.targetReset, afterOutput: true) }
        case .logout(let request):
            engine.answer(request, response: LogoutResponse.closed.rawValue)
            close(.loggedOut, afterOutput: true)
        case .settle(let index, let serial):
            let slot = index.rawValue
            // The task may have been aborted meanwhile, and its place may be gone.
            guard slot < tasks.count, tasks[slot].serial == serial, tasks[slot].phase == .waitsForOthers, let verdict = tasks[slot].verdict else { break }
            giveAnswer(index, verdict)
        case .letGo(_, let unit):
            // Unless it is to be seen again.
            if let unit, !seen.values.contains(where: { nexuses[$0].unit === unit }) { unit.detach(start.nexus) }
        }
        return true
    }

    /// The session has ended: nothing is answered any more. What others have been told to abort is reset all the same.
    mutating func forgetFunctions() {
        for wait in waits {
            switch wait.then {
            case .resetUnit(_, let unit): unit.reset()
            case .resetTarget(_, let units, _): for unit in units { unit.reset() }
            default: break
            }
        }
        waits.removeAll { wait in
            if case .letGo = wait.then { false } else { true }
        }
    }
}

extension Wait.Then {
    /// Whether an initiator has asked for it by a task management function.
    fileprivate var isFunction: Bool {
        switch self {
        case .answer, .resetUnit, .resetTarget: true
        default: false
        }
    }
}
