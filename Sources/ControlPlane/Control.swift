import Access
import Administration
import Audit
import Door
import ISCSI
import Logging
import Management
import Model
import Reactor
import SCSI
import TLS

/// Why the daemon does not start.
public struct StartError: Error, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// Bounds of what control waits for.
enum ControlLimits {
    /// Nanoseconds that the answer to a change waits without hearing anything: sessions that it ends, commands that it takes away and
    /// the medium that it replaces are given so long to leave the store. The change itself is made by then; a store that hangs keeps no
    /// administrator. A hundred thousand logical units may take longer altogether.
    static let publishing: UInt64 = 5_000_000_000
    /// At a start, how often a store is tried, and nanoseconds in between: the data process of a predecessor that was killed may still have it.
    static let openingAttempts = 3
    static let openingPause: UInt64 = 300_000_000
    /// Registrations that are kept over a loss of power, of all logical units: initiators make them, and a start reads all that is kept.
    static let keptRegistrations = 65_536
    /// Targets that are looked at in a second for lists of all of them (SendTargets=All).
    static let listedTargets = 1_000_000
}

/// How a control process is set up: settings file and command line together.
public struct ControlOptions: Sendable {
    public var settings: Settings
    public var identity: IdentitySource
    /// Path of the management socket.
    public var socket: String
    /// Who may use it.
    let administration: AdministrationOptions
    /// Who login and data become; nil: they stay who they are.
    public var user: Identity?
    /// There is no terminal and no journal to read standard error.
    public var logsToSystem: Bool
    /// Where what is configured is kept; nil: nowhere.
    let state: StateDirectory?
    /// Those that it may open.
    let descriptors: Int
    /// With what words it was started, and what settings file it has: for the record.
    let launch: (words: String, settings: String)

    init(
        settings: Settings, identity: IdentitySource, socket: String, administration: AdministrationOptions, user: Identity?, state: StateDirectory?, logsToSystem: Bool,
        descriptors: Int, launch: (words: String, settings: String)
    ) {
        self.state = state
        self.descriptors = descriptors
        self.launch = launch
        self.administration = administration
        self.logsToSystem = logsToSystem
        self.settings = settings
        self.identity = identity
        self.socket = socket
        self.user = user
    }
}

/// The process that owns the truth: what is configured, who is admitted, what the other processes are to do. All of it belongs
/// to one loop, which never waits for a disk, a peer or a directory service.
public final class Control {
    let loop: EventLoop
    let log: Logger
    let options: ControlOptions
    let openings: StoreOpenings
    /// Of the management socket: held as long as we live.
    private let lock: FileDescriptor
    private var managementSocket: FileDescriptor?
    private var server: ManagementServer?
    let gate: Gate
    let complaints: Complaints
    /// Writes nothing before the start.
    private(set) var audit: RequestAudit
    lazy var policyReader = PolicyReader(loop: loop)

    public internal(set) var configuration: Configuration
    /// Those of the settings, with their real ports.
    private var startPortals: [Portal] = []
    /// nil: nothing is kept.
    private var stateStore: StateStore?
    var sessions = SessionTable()
    var penalties: Penalties
    /// Answers that were not looked at because of them.
    var refusedAnswers: UInt64 = 0

    private var login: RoleProcess<LoginQuestionMessage, LoginAnswerMessage>?
    private var data: RoleProcess<DataReportMessage, DataOrderMessage>?
    /// Where initiators log in: through the login process, and through data's portals behind TLS, with a door of their own.
    private var fronts: [LoginFront] = []
    /// Lists of all targets, which anybody may ask for where discovery has no account: a tenth of the loop's time, about.
    lazy var discoveries = CostPace(loop: loop, perSecond: ControlLimits.listedTargets, most: 2 * LoginDesk.mostApplicants)
    private var secureDoor: DoorLink<LoginQuestionMessage, LoginAnswerMessage>?
    private lazy var failedHandshakes = FailedHandshakes(log: log)
    /// What data serves.
    lazy var serving = Serving(
        self,
        Serving.Link(
            send: { [unowned self] in data?.send($0, passing: $1) }, isAlive: { [unowned self] in data?.isAlive ?? false },
            condemn: { [unowned self] in data?.condemn($0) }))
    private lazy var surveys = Surveys(loop: loop, log: log) { [unowned self] id in data?.send(.survey(id)) }

    /// Listening sockets stay here too, so that connections wait while login is started again.
    let portals: Portals

    /// - Parameter lock: of the management socket
    init(loop: EventLoop, options: ControlOptions, lock: consuming FileDescriptor, log: Logger) {
        self.loop = loop
        self.lock = lock
        self.options = options
        self.log = log
        audit = RequestAudit(loop: loop)
        openings = StoreOpenings(loop: loop)
        portals = Portals(loop: loop, openings: openings, log: log)
        penalties = Penalties(exempt: options.settings.exempt)
        let administration = options.administration
        complaints = Complaints(loop: loop, log: log)
        gate = Gate(
            loop: loop, policy: administration.policy?.policy ?? .own(uid: Identity.current.uid), directory: administration.pamDirectory, complaints: complaints)
        configuration = Configuration(
            identitySource: options.identity, nopDefaults: NopDefaults(interval: options.settings.nopInterval, count: options.settings.nopCount),
            isDebugging: options.settings.logLevel == .debug)
        if let policy = administration.policy { configuration.tenancy = policy.tenancy }
    }

    // MARK: Start and end

    /// Listens on the management socket and the portals, restores what was kept, opens its stores, then starts the other processes and
    /// answers administrators; who comes before that waits.
    /// - Parameter whenReady: called once, with what went wrong if something did
    func start(_ whenReady: @escaping ((any Error)?) -> Void) throws {
        // Before the portals: who waits until one of them listens finds this one listening, too.
        managementSocket = try ManagementSocket.listen(options.socket, options.administration.socket)
        portals.onServe = { [unowned self] in serve($0) }
        portals.onClose = { [unowned self] portal in fronts.first { $0.kind == portal.kind }?.close(portal) }
        for portal in options.settings.portals { _ = try configuration.addPortal(portals.listen(portal)) }
        startPortals = configuration.portals
        try restore()
        audit = try RequestAudit(options.settings.audit, options.state, loop: loop, log: log)
        noteStart()
        if let policy = options.administration.policy { notePolicy(policy) }
        let confinement = ["--system-log", options.logsToSystem ? "1" : "0"] + (options.user.map { ["--uid", "\($0.uid)", "--gid", "\($0.gid)"] } ?? [])
        let settings = options.settings
        let reactors = settings.reactors ?? min(Host.processors, Settings.usualReactors)
        let busyPoll = settings.busyPoll ?? (Host.processors > 1 ? Settings.usualBusyPoll : 0)
        let logins = [
            "--connections", "\(settings.limits.unauthenticatedConnections)",
            "--connections-per-source", "\(settings.limits.unauthenticatedConnectionsPerSource)",
        ]
        data = RoleProcess(
            .data,
            options: confinement + logins + [
                "--reactors", "\(reactors)", "--busy-poll", "\(busyPoll)", "--io-uring", settings.usesRings ? "1" : "0", "--io-threads", "\(settings.ioThreads)", "--memory", "\(settings.memory)",
            ],
            loop: loop, log: log, heartbeat: { .heartbeat($0) }, onStart: { [unowned self] in
                noteStart(of: .data, pid: data?.pid)
                tellDataAll()
            },
            onMessage: { [unowned self] message, _ in handle(message) }, onEnd: { [unowned self] in dataEnded($0) })
        login = RoleProcess(
            .login, options: confinement + logins,
            loop: loop, log: log, heartbeat: { .heartbeat($0) }, onStart: { [unowned self] in
                noteStart(of: .login, pid: login?.pid)
                tellLoginAll()
            },
            onMessage: { [unowned self] message, descriptors in front(.clear).handle(message, &descriptors) }, onEnd: { [unowned self] in loginEnded($0) })
        // One judge for all: what it has asked on one connection is no question on another.
        let desk = LoginDesk(sessionsPerTarget: settings.limits.sessionsPerTarget, judge: CHAPJudge(md5: settings.md5))
        fronts = [
            LoginFront(
                .clear, control: self, desk: desk, send: { [unowned self] in login?.send($0, passing: $1) },
                condemn: { [unowned self] in login?.condemn($0) }, heard: { [unowned self] in login?.heard() }),
            LoginFront(
                .tls, control: self, desk: desk, send: { [unowned self] in secureDoor?.send($0, passing: $1) },
                condemn: { [unowned self] in data?.condemn($0) }, heard: {}),
        ]
        readPortalFiles { [unowned self] error in
            if let error { return whenReady(error) }
            openStores(configuration.storesToOpen, attempts: ControlLimits.openingAttempts) { [unowned self] in
                guard !isStopping else { return }
                do {
                    try serve()
                    whenReady(nil)
                } catch {
                    whenReady(error)
                }
            }
        }
    }

    /// At a start. A portal of the settings has to be as they say.
    private func readPortalFiles(_ whenDone: @escaping (StartError?) -> Void) {
        portals.renewAll(isTogether: false) { [unowned self] troubles in
            for (portal, error) in troubles {
                if startPortals.contains(portal) { return whenDone(StartError("portal \(portal): \(error)")) }
                log.error("portal \(portal) is not served: \(error)")
                portals.close(portal.endpoint)
            }
            portals.watchExpiries()
            whenDone(nil)
        }
    }

    /// Reads the policy anew, and the files of all portals: if all of them are right, they are in use from now on.
    public func reload(_ signal: ReceivedSignal) {
        audit.event(.rereading, details: signal.details)
        reloadPolicy()
        portals.renewAll(isTogether: true) { [log, audit] troubles in
            for (portal, error) in troubles {
                audit.event(.portalsRefused, .refused, reason: "\(error)", details: ["portal": "\(portal)"])
                log.error("nothing is read anew, for portal \(portal) has a file that is not right: \(error)")
            }
            guard troubles.isEmpty else { return }
            audit.event(.portalsLoaded)
            log.notice("the files of all portals have been read anew")
        }
    }

    private func serve() throws {
        try data?.start()
        try login?.start()
        guard let socket = managementSocket.take() else { return }
        server = try ManagementServer(
            loop: loop, listener: socket, limits: options.settings.limits, descriptors: Limits.descriptorsForManagement(of: options.descriptors), log: log, complaints: complaints,
            announce: { [unowned self] announcement, asker, reply in submit(announcement, asker, reply) }
        ) { [unowned self] request, asker, reply in submit(request, asker, reply) }
        server?.onRefusedPeer = { [unowned self] uid, reason in audit.event(.peerRefused, source: uid.map { "uid \($0)" }, .refused, reason: reason) }
        server?.onUnreadable = { [unowned self] peer, reason in audit.unreadable(by: peer, reason) }
        beat()
    }

    /// Goes on with what was kept. A portal that cannot be opened any more stays configured, for somebody to delete or to restart us.
    private func restore() throws {
        guard let directory = options.state else { return }
        let kept = try directory.read(base: Configuration(identitySource: configuration.identitySource, nopDefaults: configuration.nopDefaults))
        stateStore = try StateStore(loop: loop, medium: directory, sequence: kept?.sequence ?? 0, log: log)
        guard let kept else { return }
        if kept.tornBytes > 0 {
            log.warning(
                "the last change was being written when tgtd or its host ended: nobody was told that it is kept, and it is left out",
                metadata: ["state": "\(directory.path)", "bytes": "\(kept.tornBytes)"])
        }
        configuration.goOn(with: kept.configuration)
        serving.records = UnitRecords(configuration)
        for portal in configuration.portals.dropFirst(startPortals.count) {
            do throws(SystemError) { _ = try portals.listen(portal) } catch { log.error("portal \(portal) is not served: \(error)") }
        }
        setDebug?(configuration.isDebugging)
        log.info("going on with \(configuration.targets.count) targets", metadata: ["state": "\(directory.path)", "changes": "\(kept.recordCount)"])
    }

    /// Opens stores that were open before. A logical unit whose store does not open stays, and is not served until an administrator changes
    /// something about it that opens the store.
    private func openStores(_ requests: [StoreRequest], attempts: Int, _ whenDone: @escaping () -> Void) {
        var failed: [StoreRequest] = []
        let rest = Countdown { [unowned self] in
            if failed.isEmpty || isStopping { return whenDone() }
            loop.after(nanoseconds: ControlLimits.openingPause) { [unowned self] in openStores(failed, attempts: attempts - 1, whenDone) }
        }
        for request in requests {
            openings.open(request) { [unowned self] result in
                do {
                    let (store, facts) = try result.get()
                    try configuration.setMedium(facts, of: request.key)
                    serving.stores[request.key] = store
                } catch {
                    guard attempts <= 1 else {
                        failed.append(request)
                        return rest.keepAlive()
                    }
                    try? configuration.setMedium(nil, of: request.key)
                    log.error(
                        "logical unit \(request.key.lun) of target \(request.key.target) is not served, its store is not opened: \((error as? StoreOpenings.OpeningError)?.reason ?? "\(error)")",
                        metadata: ["path": "\(request.store.path?.description ?? "none")"])
                }
                rest.keepAlive()
            }
        }
    }

    private func beat() {
        loop.after(nanoseconds: UInt64(DoorLimits.heartbeatInterval) * 1_000_000_000) { [unowned self] in
            login?.beat()
            data?.beat()
            beat()
        }
    }

    private var isStopping = false

    /// Ends the other processes, then the loop.
    /// - Parameter signal: by which it is told to
    public func stop(_ signal: ReceivedSignal) { stop("signal \(signal.number)", signal.details) }

    func stop(_ reason: String, _ details: KeyValuePairs<String, String> = [:]) {
        guard !isStopping else { return }
        isStopping = true
        audit.event(.daemonStopped, reason: reason, details: details)
        // First: what follows may take its time, and the service manager counts it.
        ServiceManager.notify("STOPPING=1")
        log.notice("tgtd stops")
        server?.close()
        let end = { [unowned self] in
            let ended = { [unowned self] in audit.end { [unowned self] in loop.stop() } }
            if let stateStore { stateStore.settle(ended) } else { ended() }
        }
        login?.stop { [unowned self] in data?.stop(end) }
    }

    // MARK: Changes

    /// While nothing can be kept, nothing is changed: the refusal.
    var unkept: Answer? {
        stateStore?.trouble.map { .refusal(.unknown, "nothing is changed, for it is not certain that an earlier change is kept (\($0)); when that is mended, try again") }
    }

    /// Makes a change. The answer comes when everybody has been told, and when it is kept.
    /// - Parameter held: as for `publish`
    func commit(
        _ new: Configuration, _ changes: [Change], stores held: (LogicalUnitKey) -> HeldStore?, _ answer: Answer, _ reply: @escaping (Answer) -> Void
    ) {
        let old = configuration
        configuration = new
        var answer = answer
        let rest = Countdown {
            answer.changes = changes.map { "\($0)" }
            reply(answer)
        }
        if let stateStore, !changes.isEmpty {
            stateStore.keep(kept, Set(changes.map(\.part))) { trouble in
                if let trouble { answer = .refusal(.unknown, trouble.consequence) }
                rest.keepAlive()
            }
        }
        publish(changes, old: old, stores: held) { rest.keepAlive() }
    }

    /// What is configured, without what the settings say.
    private var kept: Configuration { configuration.kept(without: startPortals, isDebugging: options.settings.logLevel == .debug) }

    /// What is going on now; what data knows is asked of it only if that is needed.
    func view(isNeeded: Bool, _ use: @escaping (RuntimeView) -> Void) {
        guard isNeeded, let data, data.isRunning else { return use(runtimeView(Survey())) }
        surveys.ask { [unowned self] survey in use(runtimeView(survey)) }
    }

    // MARK: Portals

    func front(_ kind: LoginFront.Kind) -> LoginFront {
        guard let front = fronts.first(where: { $0.kind == kind }) else { preconditionFailure("there is a front of each kind before there is a process") }
        return front
    }

    /// A portal is to be served, or what it works with has been replaced: that holds from now on. Who has come through it before goes on
    /// as long as it is trusted, which data sees to, and the same initiator, as its files say now.
    private func serve(_ portal: OpenPortal) {
        guard !fronts.isEmpty else { return }
        front(portal.kind).serve(portal)
        guard let material = portal.material else { return }
        let changed = sessions.identify(through: portal.number, material)
        if !changed.isEmpty { applyRules(of: changed, Countdown {}) }
        front(.tls).identify(through: portal.number, material)
    }

    // MARK: Telling the others what has changed

    /// Tells everybody what has changed, and calls `whenDone` when they have it.
    /// - Parameter held: the open store of a logical unit that is new or has another medium
    private func publish(_ changes: [Change], old: Configuration, stores held: (LogicalUnitKey) -> HeldStore?, _ whenDone: @escaping () -> Void) {
        let rest = Countdown(whenDone)
        answer(rest)
        var regarded: Set<TargetID> = []
        for change in changes {
            serving.tell(change, old: old, stores: held, rest)
            switch change {
            case .rulesChanged(let tid), .accountsChanged(let tid?): regarded.insert(tid)
            case .systemStateChanged: for front in fronts { front.setOnline(configuration.state == .ready) }
            case .accountsChanged(nil): for front in fronts { front.endUnwelcomeDiscoveries() }
            case .portalAdded(let portal), .portalChanged(let portal): portals.adopt(portal)
            case .debugChanged: setDebug?(configuration.isDebugging)
            case .targetAdded, .targetRemoved, .targetStateChanged, .logicalUnitAdded, .logicalUnitRemoved, .logicalUnitChanged, .mediumChanged, .parametersChanged,
                 .accountChanged, .portalRemoved: break
            }
        }
        if !regarded.isEmpty { applyRules(of: regarded, rest) }
    }

    /// Has an administrator answered when nothing has been heard of the steps of a change for too long.
    func answer(_ rest: Countdown, heard steps: Int = 0) {
        loop.after(nanoseconds: ControlLimits.publishing) { [weak self, weak rest] in
            guard let self, let rest else { return }
            guard rest.steps == steps else { return answer(rest, heard: rest.steps) }
            if rest.expire() { noteLate() }
        }
    }

    func noteLate() {
        log.warning("what a change ends is not over within \(ControlLimits.publishing / 1_000_000_000) s; the administrator is answered all the same")
    }

    /// Called when an administrator switches debugging on or off.
    public var setDebug: ((Bool) -> Void)?

    /// What data is told of a logical unit.
    func settings(_ key: LogicalUnitKey) -> LogicalUnitSettings? {
        guard var settings = try? configuration.settings(key) else { return nil }
        settings.keepsReservations = stateStore != nil
        return settings
    }

    /// Ends the sessions of these targets that the rules of today do not admit any more, and shows the others what they show.
    func applyRules(of changed: Set<TargetID>, _ rest: Countdown) {
        for (tsih, record) in sessions.records where changed.contains(record.tid) {
            guard let target = configuration.targets[record.tid] else { continue }
            for login in record.logins {
                let decision = decideLogin(
                    configuration, targetName: target.name, initiator: record.initiatorName, address: login.peer.network, account: login.account,
                    isMutual: login.proof?.isMutual ?? false, channel: login.channel, local: PortalAddress(login.local))
                if case .refused(let reason) = decision, reason != .offline {
                    // Whichever of its logins it is: if one takes the place of another, it does so as the same initiator.
                    log.notice("a session is ended: the rules do not admit it any more", metadata: ["initiator": "\(record.initiatorName)", "target": "\(target.name)"])
                    serving.order({ .endSession($0, tsih: tsih) }) { _ in rest.keepAlive() }
                    break
                }
                if let mask = decide(target, initiator: record.initiatorName, address: login.peer.network).mask, mask != login.mask {
                    log.notice("a session is shown other logical units: \(mask)", metadata: metadata(tsih, record, login))
                    sessions.setMask(mask, of: tsih, grant: login.number)
                    serving.order({ .setMask($0, tsih: tsih, grant: login.number, mask) }) { _ in rest.keepAlive() }
                }
            }
        }
    }

    // MARK: The data process

    private func tellDataAll() {
        openSecureDoor()
        serving.tellAll()
    }

    private func dataEnded(_ culprit: Culprit?) {
        let hasNewcomers = portals.served.contains { $0.kind == .tls }
        let culpritsPeer = culprit.flatMap { $0.peer(in: sessions, hasNewcomers: hasNewcomers) }
        noteEnd(of: .data, data?.lastEnd, culpritsPeer)
        for (tsih, record) in sessions.all {
            // Data is in no hurry to say that a session has begun: whoever has ended it may be among those of which it has not.
            if record.served == nil { noteSession(.loginAccepted, tsih, record, record.login, .allowed, "granted; the data process has not said what came of it") }
            noteSession(.sessionEnded, tsih, record, record.login, nil, "the data process has ended")
        }
        if let culprit, let culpritsPeer { blame(culpritsPeer, "data", culprit) }
        secureDoor?.close()
        secureDoor = nil
        front(.tls).ended()
        sessions.removeAll()
        surveys.dataEnded()
        serving.ended()
        // Its successor is told what was kept before, so that has to be what is kept.
        for (key, before) in serving.records.abandonAll() { takeBack(before, of: key) }
    }

    private func handle(_ report: DataReportMessage) {
        switch report {
        case .done(let id): serving.finished(id, nil)
        case .refused(let id, let refusal): serving.finished(id, refusal)
        case .sessionBegan(let tsih, let grant):
            guard sessions.began(tsih, grant: grant) else { return condemnData("sessionBegan") }
            if let record = sessions.records[tsih] {
                log.info("a session begins", metadata: metadata(tsih, record, record.login))
                noteSession(.loginAccepted, tsih, record, record.login, .allowed, nil)
            }
        case .sessionEnded(let tsih, let grant, .neverBegan):
            guard let record = sessions.records[tsih], let login = sessions.ended(tsih, grant: grant, neverBegan: true) else { return condemnData("sessionEnded") }
            log.info("a granted login has come to nothing", metadata: metadata(tsih, record, login))
            noteSession(.loginRefused, tsih, record, login, .refused, "it has come to nothing: its connection has ended, or has been taken by a later one, or the session or its target is gone")
        case .sessionEnded(let tsih, let grant, let end):
            guard let record = sessions.records[tsih], let login = sessions.ended(tsih, grant: grant, neverBegan: false) else { return condemnData("sessionEnded") }
            log.info("a session has ended: \(end)", metadata: metadata(tsih, record, login))
            noteSession(.sessionEnded, tsih, record, login, nil, "\(end)")
        case .keep(let tid, let lun, let record):
            guard let target = TargetID(rawValue: tid) else { return condemnData("keep") }
            keep(record, of: LogicalUnitKey(target: target, lun: Int(lun)))
        case .sendTargets(let id, let tsih, let scope): sendTargets(id, tsih, scope)
        case .heartbeat: data?.heard()
        case .survey(let id, let entries, let isLast):
            if !surveys.heard(id, entries, isLast: isLast) { condemnData("survey") }
        }
    }

    /// Keeps what data wants kept of a logical unit: for its successor, and for the next control what is to outlive a loss of power.
    private func keep(_ record: UnitRecord, of key: LogicalUnitKey) {
        guard !serving.records.isOpen(key) else { return condemnData("keep") }
        // A logical unit that is gone has nothing to keep, but whoever waits goes on.
        guard let unit = try? configuration.logicalUnit(key) else { return tellKept(record, of: key, true) }
        let (before, now) = (unit.reservations, record.reservations.afterPowerLoss)
        guard now != before else { return kept(record, of: key, true) }
        guard let stateStore, stateStore.trouble == nil, fits(now, of: key) else { return kept(record, of: key, false) }
        configuration.setReservations(now, of: key)
        let question = serving.records.begin(key, before: before)
        stateStore.keep(kept, [.logicalUnit(key)]) { [unowned self] trouble in
            switch serving.records.end(key, question: question) {
            case .forNobody: return
            case .forOneThatIsGone: tellKept(record, of: key, true)
            case .forOne:
                if trouble != nil { takeBack(before, of: key) }
                kept(record, of: key, trouble == nil)
            }
        }
    }

    private func fits(_ reservations: PersistentReservations?, of key: LogicalUnitKey) -> Bool {
        guard let reservations else { return true }
        return serving.records.keptRegistrations(besides: key) + reservations.registrations.count <= ControlLimits.keptRegistrations
    }

    /// Nobody has been told that it is kept: the next time that something is written, it is as it was before.
    private func takeBack(_ before: PersistentReservations?, of key: LogicalUnitKey) {
        configuration.setReservations(before, of: key)
        stateStore?.keep(kept, [.logicalUnit(key)]) { _ in }
    }

    private func kept(_ record: UnitRecord, of key: LogicalUnitKey, _ isKept: Bool) {
        // Initiators make them, as many as they like: no reason to fill a log.
        if !isKept { log.debug("persistent reservations are refused, for they are not kept", metadata: ["tid": "\(key.target)", "lun": "\(key.lun)"]) }
        if serving.records.keep(record, of: key, isKept: isKept) {
            log.error(
                "a flush has failed: logical unit \(key.lun) of target \(key.target) takes no writes until an administrator has taken it offline and online again",
                metadata: ["path": "\((try? configuration.logicalUnit(key))?.store.path?.description ?? "none")"])
        }
        tellKept(record, of: key, isKept)
    }

    private func tellKept(_ record: UnitRecord, of key: LogicalUnitKey, _ isKept: Bool) {
        data?.send(.kept(tid: key.target.rawValue, lun: UInt16(key.lun), revision: record.revision, isKept: isKept))
    }

    /// A door of its own for the logins at data's portals: what they ask keeps nothing waiting that data has to report.
    private func openSecureDoor() {
        do {
            var other: FileDescriptor?
            let socket = try Socket.messagePair().split(&other)
            guard let end = other.rawValue else { preconditionFailure("a pair has two ends") }
            secureDoor = try DoorLink(loop: loop, socket: socket) { [unowned self] message, descriptors in
                front(.tls).handle(message, &descriptors)
            } onEnd: { [unowned self] reason in
                // One that ends on its own is reaped.
                if case .closed = reason {} else { data?.end(reason) }
            }
            data?.send(.openLoginDoor, passing: end)
        } catch {
            log.error("no portal with TLS is served: \(error)")
        }
        front(.tls).tellAll()
        for portal in portals.served where portal.kind == .tls { serve(portal) }
    }

    private func condemnData(_ what: String) { data?.condemn(.outOfPhase(what)) }

    private func metadata(_ tsih: UInt16, _ record: SessionRecord, _ login: SessionLogin) -> Logger.Metadata {
        var metadata: Logger.Metadata = ["initiator": "\(record.initiatorName)", "address": "\(login.peer)", "tid": "\(record.tid)", "tsih": "\(tsih)"]
        if let proof = login.proof {
            metadata["account"] = "\(proof.account)"
            metadata["chap"] = "\(proof.algorithm)\(proof.isMutual ? ", mutual" : "")"
        }
        if let evidence = login.evidence { metadata["tls"] = "\(evidence.protection)" }
        return metadata
    }

    private func sendTargets(_ id: RequestID, _ tsih: UInt16, _ scope: TextRequest.Selection) {
        var found: [DiscoveredTarget] = []
        if let record = sessions.records[tsih] {
            // In a normal session only its own target may be asked for (RFC 7143 appendix C).
            found = LoginDesk.targets(
                scope == .all ? .sessionTarget : scope, initiator: record.initiatorName, account: record.login.account, channel: record.login.channel,
                current: configuration.targets[record.tid]?.name, peer: record.login.peer, local: record.login.local, configuration
            ).filter { $0.name == configuration.targets[record.tid]?.name }
        }
        for (page, isLast) in pages(found) { data?.send(.targets(id, page, isLast: isLast)) }
    }

    func pages(_ targets: [DiscoveredTarget]) -> [([DiscoveredTarget], Bool)] {
        let size = DoorLimits.discoveredTargets
        let starts = Array(stride(from: 0, to: max(targets.count, 1), by: size))
        return starts.map { (Array(targets[$0..<min($0 + size, targets.count)]), $0 == starts.last) }
    }

    // MARK: The login process

    private func tellLoginAll() {
        front(.clear).tellAll()
        for portal in portals.served where portal.kind == .clear { serve(portal) }
    }

    /// Whether there is a data process, to be given a session.
    var canGrant: Bool { data?.isRunning ?? false }

    /// Tells data what it does not answer.
    /// - Parameter descriptor: travels along, and is closed here
    func order(_ message: DataOrderMessage, giving descriptor: consuming FileDescriptor?) { data?.send(message, giving: descriptor) }

    /// Somebody has failed to log in: it may have to wait.
    func penalise(_ offence: Penalties.Offence, _ party: Penalties.Party) {
        let wasKeptOut = penalties.keepsOut(party, at: loop.now)
        for (source, until) in penalties.note(offence, from: party, at: loop.now) {
            if !wasKeptOut {
                audit.event(.penalty, source: "\(source)", .refused, reason: "\(offence)", details: ["seconds": "\((until - loop.now) / 1_000_000_000)"])
                log.notice("too many failures: nothing is accepted from there for a while", metadata: ["source": "\(source)", "seconds": "\((until - loop.now) / 1_000_000_000)"])
            }
            keepOut(source, until: until)
        }
        if case .initiator(let name) = party, !wasKeptOut, penalties.keepsOut(party, at: loop.now) {
            audit.event(.penalty, source: "\(name)", .refused, reason: "\(offence)", initiator: name.spelling)
            log.notice("too many failures: the initiator has to wait for a while", metadata: ["initiator": "\(name)"])
        }
    }

    func keepOut(_ source: Source, until: UInt64) {
        for front in fronts { front.keepOut(source, until: until) }
    }

    /// A TLS handshake has come to nothing.
    /// - Parameters:
    ///   - peer: nil: it is gone already, as whoever is refused often is
    ///   - source: where it came from, as data says; nobody has to wait for that
    func noteFailedHandshake(_ peer: SocketAddress?, _ source: Source, _ portal: UInt32, _ cause: TLSFailure.Cause, _ reason: String) {
        let portal = portals.portal(number: portal)
        portal?.failedHandshakes[cause, default: 0] += 1
        failedHandshakes.note(peer, source, portal?.portal.endpoint, cause, reason, at: loop.now)
        audit.event(
            .tlsFailed, source: "\(peer.map { Source($0) } ?? source)", .refused, reason: reason,
            details: ["address": peer.map { "\($0)" } ?? "gone", "portal": portal.map { "\($0.portal.endpoint)" } ?? "closed", "cause": "\(cause)"])
        // Who stalls holds a place that others want.
        if let peer { penalise(cause == .timedOut ? .unfinished : .handshake, .source(peer)) }
    }

    private func loginEnded(_ culprit: Culprit?) {
        noteEnd(of: .login, login?.lastEnd, culprit.flatMap(\.newcomer))
        if let culprit, let peer = culprit.newcomer { blame(peer, "login", culprit) }
        front(.clear).ended()
    }

    /// Whoever's bytes a process ended over does not come again so soon. Nobody else's do it any harm.
    private func blame(_ peer: SocketAddress, _ role: String, _ culprit: Culprit) {
        log.error("the \(role) process \(culprit.hung ? "hung" : "crashed") over what came from there", metadata: ["source": "\(Source(peer))"])
        penalise(.crash, .source(peer))
    }

    // MARK: What is going on

    private func runtimeView(_ survey: Survey) -> RuntimeView {
        var view = RuntimeView(survey, sessions: sessions.served)
        // Also while there is no data process to ask.
        for key in serving.records.withFailedFlush { view.logicalUnits[key, default: .init()].flushFailed = true }
        var waits = RuntimeView.Penalties()
        let (penalties, now) = (penalties, loop.now)
        waits.waiting = { penalties.waiting(at: now).sorted { $0.until > $1.until }.map { ($0.who, ($0.until - now + 999_999_999) / 1_000_000_000) } }
        waits.remembered = penalties.count
        waits.refusedAnswers = refusedAnswers
        waits.refusedConnections = fronts.reduce(0) { $0 &+ $1.refusedConnections }
        view.penalties = waits
        view.portals = portals.conditions(of: configuration.portals)
        view.hindrance = stateStore?.trouble?.description ?? audit.hindrance
        view.audit = audit.condition
        view.limits = options.settings.limits.shown(memory: options.settings.memory)
        return view
    }
}

/// Calls `whenDone` when nobody holds it any more: each step that somebody waits for keeps it alive until its end.
final class Countdown {
    private var whenDone: (() -> Void)?
    init(_ whenDone: @escaping () -> Void) { self.whenDone = whenDone }
    /// For the end of a step: whoever calls it has held it until here.
    func keepAlive() { steps += 1 }
    /// Steps that have ended.
    private(set) var steps = 0
    /// Waits no longer.
    /// - Returns: false if it has done that before
    func expire() -> Bool {
        guard let whenDone else { return false }
        self.whenDone = nil
        whenDone()
        return true
    }
    deinit { whenDone?() }
}

/// Of several answers, the first.
final class First<Answer> {
    private var use: ((Answer) -> Void)?
    init(_ use: @escaping (Answer) -> Void) { self.use = use }
    /// - Returns: whether it is that
    func take(_ answer: Answer) -> Bool {
        guard let use else { return false }
        self.use = nil
        use(answer)
        return true
    }
}
