import Bytes
import Door
import ISCSI
import Logging
import Reactor
import SCSI
import Storage
import Target

/// How a data process is set up.
public struct DataOptions: Sendable {
    public var reactors: Int
    public var ioThreads: Int
    var busyPoll: UInt64
    /// Whether reactors read many pieces of a file with one system call, where the kernel lets them (`ReadRing`).
    var gathersReads: Bool
    /// Bytes for the data of commands, and for input that a session does not take at once.
    public var memory: Int
    /// Which part of it is for such input: what waits there keeps nothing from commands, without which nothing would be taken.
    static let shareForInput = 8
    /// Operations that may wait for a thread: all the commands that sessions may have outstanding should fit.
    var waitingOperations = 1 << 16
    /// Puts a store in front of each that is served: tests give it one that misbehaves.
    var decorate: @Sendable (any BackingStore) -> any BackingStore = { $0 }

    /// - Parameter busyPoll: for how long a reactor may look for events before it sleeps, in nanoseconds
    public init(reactors: Int, ioThreads: Int, memory: Int, busyPoll: UInt64 = 0, gathersReads: Bool = false) {
        self.reactors = reactors
        self.gathersReads = gathersReads
        self.busyPoll = busyPoll
        self.ioThreads = ioThreads
        self.memory = memory
    }
}

/// The process that serves logical units: its main thread carries out what control orders, its reactors serve the sessions.
///
/// All of this belongs to the main thread's loop; reactors report to it through one mailbox.
public final class DataProcess: LoopDweller {
    /// Bytes for small answers of all sessions: what bounds a single one is `SessionLimits`.
    private static let answerMemory = 1 << 40

    let loop: EventLoop
    private let log: Logger
    private let shared: Shared
    private let decorate: @Sendable (any BackingStore) -> any BackingStore
    private let reactors: [Mailbox<ReactorMessage>]
    private var threads: [LoopThread] = []
    private var link: DoorLink<DataOrderMessage, DataReportMessage>?
    /// Where initiators log in that come through portals with TLS.
    private var logins: LoginService?
    private let loginOptions: LoginOptions
    private var targets: [Int32: ServedTarget] = [:]
    private lazy var sessions = SessionPlacement(
        loop: loop, reactors: reactors, answers: shared.answers, trusts: { [unowned self] in logins?.trusts($0) ?? true }, tell: { [unowned self] in link?.send($0) })
    private lazy var discoveries = SessionDiscoveries(loop: loop, reactors: reactors) { [unowned self] in link?.send($0) }
    /// What control keeps of logical units, and the commands that wait for it.
    private lazy var keeper = UnitKeeper(
        loop: loop, unit: { [unowned self] in targets[$0.tid]?.unit(Int($0.lun)) }, ask: { [unowned self] in link?.send(.keep(tid: $0.tid, lun: $0.lun, $1)) },
        tell: { [reactors] in reactors[$0.reactor].post(.kept($0.nexus, $0.ticket)) })
    private var heartbeats: [UInt64: Int] = [:]
    /// Surveys that wait for so many reactors, and what the others have found.
    private var surveys: [RequestID: (missing: Int, found: [SurveyEntry])] = [:]

    /// Starts the threads and listens to control.
    /// - Parameters:
    ///   - logins: for portals with TLS
    ///   - rings: for the first reactors; those without read one piece with each call
    public init(
        loop: EventLoop, door: consuming FileDescriptor, options: DataOptions, logins: LoginOptions = LoginOptions(connections: 1, connectionsPerSource: 1),
        rings: [ReadRing] = [], log: Logger
    ) throws(SystemError) {
        self.loop = loop
        loginOptions = logins
        self.log = log
        decorate = options.decorate
        let reports = try Mailbox<ReactorReport>()
        shared = Shared(
            data: BufferPool(budget: options.memory - options.memory / DataOptions.shareForInput),
            input: BufferPool(budget: options.memory / DataOptions.shareForInput, cached: 0), answers: BufferPool(budget: Self.answerMemory, cached: 4 << 20),
            pool: IOPool(threads: options.ioThreads, queueLimit: options.waitingOperations) { $0.mailbox.post(.completed($0.nexus, $0.ticket, $1)) }, reports: reports, log: log)
        var mailboxes: [Mailbox<ReactorMessage>] = []
        for _ in 0..<options.reactors { mailboxes.append(try Mailbox()) }
        reactors = mailboxes
        try loop.receive(reports) { [unowned self] report in handle(report) }
        for (number, mailbox) in mailboxes.enumerated() {
            let (shared, busyPoll) = (shared, options.busyPoll)
            let ring = number < rings.count ? rings[number] : nil
            let relief = Relief(name: "relief \(number)")
            threads.append(
                try LoopThread(name: "reactor \(number)", relief: relief, enter: { Work.takePlace(WorkPlace.reactor(number)) }) { loop in
                    loop.pollBusily(atMost: busyPoll)
                    do {
                        try SessionReactor(number: number, loop: loop, relief: relief, mailbox: mailbox, shared: shared, ring: ring).start()
                    } catch {
                        preconditionFailure("a reactor that cannot start serves nobody: \(error)")
                    }
                })
        }
        link = try DoorLink(loop: loop, socket: door) { [unowned self] message, descriptors in
            carryOut(message, &descriptors)
        } onEnd: { [unowned self] reason in
            if case .closed = reason {} else { self.log.error("control is gone: \(reason)") }
            self.loop.stop()
        }
    }

    // MARK: Orders

    private func carryOut(_ order: DataOrderMessage, _ descriptors: inout ReceivedDescriptors) {
        switch order {
        case .addTarget(let request, let tid, let name):
            guard targets[tid] == nil else { return refuse(request, .alreadyExists) }
            targets[tid] = ServedTarget(name: name, tid: tid)
            link?.send(.done(request))
        case .removeTarget(let request, let tid, let force): removeTarget(request, tid, force: force)
        case .addLogicalUnit(let request, let tid, let lun, let settings, let description, let record):
            addUnit(request, tid, lun, settings, description, record, descriptors.take())
        case .updateLogicalUnit(let request, let tid, let lun, let settings, let description, let forgetsFailedFlush):
            updateUnit(request, tid, lun, settings, description, forgetsFailedFlush: forgetsFailedFlush, descriptors.take())
        case .tryStore(let request, let description):
            if attempt(description, descriptors.take()) == nil { refuse(request, .badStore) } else { link?.send(.done(request)) }
        case .removeLogicalUnit(let request, let tid, let lun, let force): removeUnit(request, tid, lun, force: force)
        case .grant(let grant):
            // If it could not be opened here, the peer's other descriptors are closed already, and it will try again.
            guard let descriptor = descriptors.take() else { return turnAway(grant, "this process may open no more descriptors") }
            sessions.take(grant, ByteStream(descriptor), targets[grant.tid])
        case .grantHere(let id, let grant):
            guard let stream = logins?.take(id) else { return turnAway(grant, "its connection has just ended") }
            sessions.take(grant, stream, targets[grant.tid])
        case .openLoginDoor: openLogins(descriptors.take())
        case .endSession(let request, let tsih): sessions.end(request, tsih)
        case .setMask(let request, let tsih, let grant, let mask): sessions.setMask(request, tsih, grant, mask)
        case .targets(let request, let targets, let isLast): discoveries.answered(request, targets, isLast: isLast)
        case .kept(let tid, let lun, let revision, let isKept): keeper.answered(UnitKey(tid: tid, lun: lun), revision, isKept: isKept)
        case .heartbeat(let count):
            heartbeats[count] = reactors.count
            for reactor in reactors { reactor.post(.heartbeat(count)) }
        case .survey(let request):
            surveys[request] = (reactors.count, [])
            for reactor in reactors { reactor.post(.survey(request)) }
        }
    }

    private func refuse(_ request: RequestID, _ refusal: DataRefusal) { link?.send(.refused(request, refusal)) }

    private func removeTarget(_ request: RequestID, _ tid: Int32, force: Bool) {
        guard let target = targets[tid] else { return refuse(request, .unknownTarget) }
        guard force || !sessions.serves(target) else { return refuse(request, .targetActive) }
        // From here on nobody finds it any more; what is left of it ends, then its stores are let go.
        targets[tid] = nil
        sessions.revokeAll(on: target)
        target.endSessions(
            .administrator,
            whenGone: here { process in
                let done = process.acknowledgement(of: request)
                for number in target.numbers { (target.remove(number: number)?.removeMedium() as? ServedStore)?.tellEnd(done) }
            })
    }

    private func addUnit(
        _ request: RequestID, _ tid: Int32, _ lun: UInt16, _ settings: LogicalUnitSettings, _ description: StoreDescription,
        _ record: UnitRecord, _ descriptor: consuming FileDescriptor?
    ) {
        guard let target = targets[tid] else { return refuse(request, .unknownTarget) }
        guard target.unit(Int(lun)) == nil else { return refuse(request, .alreadyExists) }
        guard let store = attempt(description, descriptor) else { return refuse(request, .badStore) }
        target.add(LogicalUnit(settings, targetName: target.name.bytes, record: record, medium: serve(store)), number: Int(lun))
        link?.send(.done(request))
    }

    private func updateUnit(
        _ request: RequestID, _ tid: Int32, _ lun: UInt16, _ settings: LogicalUnitSettings, _ description: StoreDescription?,
        forgetsFailedFlush: Bool, _ descriptor: consuming FileDescriptor?
    ) {
        guard let target = targets[tid], let unit = target.unit(Int(lun)) else { return refuse(request, .unknownLogicalUnit) }
        var medium: Servable?
        if let description {
            medium = attempt(description, descriptor)
            guard medium != nil else { return refuse(request, .badStore) }
        }
        let done = acknowledgement(of: request)
        if let medium {
            // The old one ends, and is closed, when the last command that has begun with it is over.
            (target.apply(settings, medium: serve(medium), to: unit) as? ServedStore)?.tellEnd(done)
        } else {
            unit.apply(settings)
        }
        if forgetsFailedFlush, unit.forgetFailedFlush() { keeper.hasNews(UnitKey(tid: tid, lun: lun)) }
        withExtendedLifetime(done) {}
    }

    /// What a logical unit can be given.
    private enum Servable {
        case nothing
        case store(any BackingStore)
    }

    private func serve(_ servable: Servable) -> ServedStore? {
        switch servable {
        case .nothing: nil
        case .store(let store): ServedStore(decorate(store), pool: shared.pool)
        }
    }

    /// nil if it cannot be used; the log says why.
    private func attempt(_ description: StoreDescription, _ descriptor: consuming FileDescriptor?) -> Servable? {
        do {
            return try makeStore(description, descriptor)
        } catch {
            log.error("a store cannot be used: \(error)")
            return nil
        }
    }

    private func makeStore(_ description: StoreDescription, _ descriptor: consuming FileDescriptor?) throws(SystemError) -> Servable {
        switch description.kind {
        case .none: return .nothing
        case .null: return .store(NullStore(length: description.length))
        case .file, .blockDevice:
            guard let descriptor else { throw SystemError("a store without a descriptor", 0) }
            // A file may have grown or shrunk since it was opened: what is served stays what was opened.
            return .store(try FileStore(adopting: descriptor, readOnly: description.isReadOnly, length: description.length))
        }
    }

    private func removeUnit(_ request: RequestID, _ tid: Int32, _ lun: UInt16, force: Bool) {
        guard let target = targets[tid], let unit = target.unit(Int(lun)) else { return refuse(request, .unknownLogicalUnit) }
        guard force || !unit.isBusy else { return refuse(request, .logicalUnitActive) }
        target.remove(
            number: Int(lun),
            whenReleased: here { process in
                // Done is what nobody has anything to do with any more, to the last thread.
                let done = process.acknowledgement(of: request)
                (unit.removeMedium() as? ServedStore)?.tellEnd(done)
            })
    }

    /// Control hears that it is done when it is let go.
    private func acknowledgement(of request: RequestID) -> Acknowledgement { Acknowledgement(here { $0.link?.send(.done(request)) }) }

    private func openLogins(_ door: consuming FileDescriptor?) {
        guard logins == nil, let door else { return log.error("no portal with TLS is served: this process may open no more descriptors") }
        do {
            let service = try LoginService(loop: loop, door: door, options: loginOptions, handshakes: try Handshakes(), log: log)
            service.onReplacement = { [unowned self] portal, context in
                for reactor in reactors { reactor.post(.replaced(portal: portal, context)) }
                sessions.withdrawAll(through: portal, notTrustedBy: context)
            }
            logins = service
        } catch {
            log.error("no portal with TLS is served: \(error)")
        }
    }

    /// The connection is not there.
    private func turnAway(_ grant: SessionGrant, _ reason: String) {
        log.error("a session is not served: \(reason)", metadata: ["tsih": "\(grant.tsih)"])
        sessions.withdraw(grant)
    }

    // MARK: Reports

    private func handle(_ report: ReactorReport) {
        switch report {
        case .began(let beginning): sessions.began(beginning)
        case .occupied(let beginning) where !beginning.isRevoked: sessions.occupied(beginning)
        case .occupied(let beginning), .revoked(let beginning):
            sessions.revoked(beginning, targets[beginning.target.tid] === beginning.target ? .notFound : .targetRemoved)
        case .ended(let beginning, let reason): sessions.ended(beginning, reason)
        case .keep(let reactor, let nexus, let ticket, let unit, let revision): keep(unit, UnitKeeper.Command(reactor: reactor, nexus: nexus, ticket: ticket), revision)
        case .sendTargets(let reactor, let nexus, let request):
            guard let served = sessions[nexus] else { return }
            discoveries.ask(reactor, nexus, served.beginning.grant.tsih, request)
        case .heartbeat(_, let count):
            guard let missing = heartbeats[count] else { return }
            heartbeats[count] = missing == 1 ? nil : missing - 1
            if missing == 1 { link?.send(.heartbeat(count)) }
        case .surveyed(let request, let entries): surveyed(request, entries)
        }
    }

    private func surveyed(_ request: RequestID, _ entries: [SurveyEntry]) {
        guard var survey = surveys.removeValue(forKey: request) else { return }
        survey.missing -= 1
        survey.found += entries
        guard survey.missing == 0 else { return surveys[request] = survey }
        let found = logicalUnits() + survey.found
        let size = DoorLimits.surveyEntries
        for start in stride(from: 0, to: max(found.count, 1), by: size) {
            let page = Array(found[start..<min(start + size, found.count)])
            link?.send(.survey(request, page, isLast: start + size >= found.count))
        }
    }

    /// The logical units that are not as they would be without any initiator.
    private func logicalUnits() -> [SurveyEntry] {
        targets.values.flatMap { target in
            target.numbers.compactMap { number in
                guard let condition = target.unit(number).map({ UnitCondition($0.condition) }), condition != UnitCondition() else { return nil }
                return .logicalUnit(tid: target.tid, lun: UInt16(number), condition)
            }
        }
    }

    private func keep(_ unit: LogicalUnit, _ command: UnitKeeper.Command, _ revision: UInt64) {
        guard let target = sessions[command.nexus]?.beginning.target, let number = target.numbers.first(where: { target.unit($0) === unit }) else {
            // The logical unit is gone, and with it what was reserved.
            return reactors[command.reactor].post(.kept(command.nexus, command.ticket))
        }
        keeper.keep(UnitKey(tid: target.tid, lun: UInt16(number)), unit, command, revision)
    }
}

extension UnitCondition {
    init(_ condition: Condition) {
        self.init(
            preventsRemoval: condition.preventsRemoval, isSoftwareWriteProtected: condition.isSoftwareWriteProtected, flushFailed: condition.flushFailed)
    }
}
