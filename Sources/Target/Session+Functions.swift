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
extension Session {
    func manage(_ request: TaskManagementRequest) {
        guard waits.count(where: \.then.isFunction) < SessionLimits.pendingFunctions else { return respond(request, .rejected) }
        if target.unitGeneration != unitGeneration { refreshUnits(nil) }
        let nexus = LogicalUnitNumber(rawValue: request.lun).flat.flatMap { nexuses[$0] }
        switch TaskManagementFunction(rawValue: request.function) {
        case .abortTask: abortTask(request)
        case .abortTaskSet, .clearTaskSet:
            // One task set per I_T nexus: clearing it touches nobody else's.
            guard let nexus else { return respond(request, .lunDoesNotExist) }
            let (stillOutside, _) = abort { $0.nexus === nexus }
            wait(for: stillOutside, awaitsOthers: false, then: .answer(request))
        case .logicalUnitReset:
            guard let nexus else { return respond(request, .lunDoesNotExist) }
            let (stillOutside, _) = abort { $0.nexus === nexus }
            ask(target.others(than: start.nexus), thenWaitFor: stillOutside, then: .resetUnit(request, nexus.unit)) {
                .abortTasks(unit: nexus.unit, clearedByAnother: false, $0)
            }
        case .targetWarmReset: resetTarget(request, cold: false)
        case .targetColdReset: resetTarget(request, cold: true)
        case .taskReassign: respond(request, .reassignmentNotSupported)
        case .clearACA, nil: respond(request, .notSupported)
        }
    }

    private func abortTask(_ request: TaskManagementRequest) {
        let index: TaskIndex
        switch request.referenced {
        case .task(let referenced): index = referenced
        case .isOver: return respond(request, .functionComplete)
        case .none, .doesNotExist: return respond(request, .taskDoesNotExist)
        }
        guard tasks[index.rawValue] != nil, engine.task(index).lun == request.lun else {
            return respond(request, .taskDoesNotExist)
        }
        let (stillOutside, _) = abort { $0.index == index }
        wait(for: stillOutside, awaitsOthers: false, then: .answer(request))
    }

    private func resetTarget(_ request: TaskManagementRequest, cold: Bool) {
        let (stillOutside, _) = abort { _ in true }
        ask(target.others(than: start.nexus), thenWaitFor: stillOutside, then: .resetTarget(request, cold: cold)) {
            .targetReset(cold: cold, $0)
        }
    }

    private func respond(_ request: TaskManagementRequest, _ response: TaskManagementResponse) {
        guard endReason == nil else { return }
        engine.answer(request, response: response.rawValue)
    }

    // MARK: Aborting

    /// Ends the tasks that `isMeant` says: those outside when they come back, the others at once.
    /// - Returns: those that are outside, and whether there were any at all.
    func abort(fate: SessionTask.Fate = .aborted, _ isMeant: (SessionTask) -> Bool) -> (outside: Set<TaskIndex>, any: Bool) {
        var stillOutside: Set<TaskIndex> = []
        var any = false
        for slot in tasks.indices {
            guard let task = tasks[slot], isMeant(task) else { continue }
            any = true
            if task.isOutside {
                if task.fate != .aborted { task.fate = fate }
                stillOutside.insert(task.index)
            } else {
                withdraw(task)
                if fate == .unitRemoved {
                    giveAnswer(task.index, Self.unitIsGone)
                } else {
                    engine.drop(task.index)
                    vacate(task.index)
                }
            }
        }
        return (stillOutside, any)
    }

    /// Takes a task out of the queue it waits in.
    private func withdraw(_ task: SessionTask) {
        switch task.phase {
        case .ready: ready.removeAll { $0 == task.index }
        case .waitsForMemory: waitsForMemory.removeAll { $0 == task.index }
        case .answerWaits: answersWaiting.removeAll { $0 == task.index }
        case .collecting where unaccepted == task.index: unaccepted = nil
        default: break
        }
    }

    /// All tasks that are outside.
    var outsideTasks: Set<TaskIndex> {
        var found: Set<TaskIndex> = []
        for case let task? in tasks where task.isOutside { found.insert(task.index) }
        return found
    }

    /// Logical units came or went.
    func refreshUnits(_ acknowledgement: Acknowledgement?) {
        let (units, generation) = target.units()
        unitGeneration = generation
        for (number, nexus) in nexuses where units[number] !== nexus.unit {
            nexuses[number] = nil
            let (stillOutside, _) = abort(fate: .unitRemoved) { $0.nexus === nexus }
            wait(for: stillOutside, awaitsOthers: false, then: .letGo(nil, detaching: nexus.unit))
        }
        for (number, unit) in units where nexuses[number] == nil { nexuses[number] = ITLNexus(unit: unit, number: number) }
        guard let acknowledgement else { return }
        let ofUnitsGone = outsideTasks.filter { index in
            guard let nexus = tasks[index.rawValue]?.nexus else { return false }
            return nexuses[nexus.number] !== nexus
        }
        wait(for: ofUnitsGone, awaitsOthers: false, then: .letGo(acknowledgement, detaching: nil))
    }

    // MARK: Waiting

    func wait(for tasks: Set<TaskIndex>, awaitsOthers: Bool, then: Wait.Then) {
        waitNumber += 1
        waits.append(Wait(number: waitNumber, tasks: tasks, awaitsOthers: awaitsOthers, then: then))
    }

    /// Asks other sessions, and waits for them and for tasks of this one.
    func ask(
        _ others: [SessionHandle], thenWaitFor tasks: Set<TaskIndex>, then: Wait.Then, _ message: (Acknowledgement) -> Notification
    ) {
        wait(for: tasks, awaitsOthers: !others.isEmpty, then: then)
        guard !others.isEmpty else { return }
        let (number, deliver) = (waitNumber, deliver)
        let acknowledgement = Acknowledgement { deliver(.othersLetGo(number)) }
        for other in others { other.deliver(message(acknowledgement)) }
    }

    /// Carries out what waits for nothing any more, one at a time.
    func carryOutNextWait() -> Bool {
        guard let position = waits.firstIndex(where: \.isOver) else { return false }
        switch waits.remove(at: position).then {
        case .answer(let request): respond(request, .functionComplete)
        case .resetUnit(let request, let unit):
            unit.reset()
            respond(request, .functionComplete)
        case .resetTarget(let request, let cold):
            for unit in target.units().units.values { unit.reset() }
            respond(request, .functionComplete)
            if cold { close(.targetReset, afterOutput: true) }
        case .logout(let request):
            engine.answer(request, response: LogoutResponse.closed.rawValue)
            close(.loggedOut, afterOutput: true)
        case .settle(let index, let serial):
            guard let task = tasks[index.rawValue], task.serial == serial, case .waitsForOthers(let completion) = task.phase else { break }
            giveAnswer(index, completion)
        case .letGo(_, let unit): unit?.detach(start.nexus)
        }
        return true
    }

    /// The session has ended: nothing is answered any more. What others have been told to abort is reset all the same.
    func forgetFunctions() {
        for wait in waits {
            switch wait.then {
            case .resetUnit(_, let unit): unit.reset()
            case .resetTarget: for unit in target.units().units.values { unit.reset() }
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
