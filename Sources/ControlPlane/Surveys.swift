import Administration
import Door
import ISCSI
import Logging
import Model
import Reactor

/// What data has found: as control uses it, by key.
struct Survey: Sendable {
    var logicalUnits: [LogicalUnitKey: UnitCondition] = [:]
    var connections: [ConnectionKey: Traffic] = [:]
    var nexuses: [NexusKey: NexusActivity] = [:]

    struct ConnectionKey: Hashable, Sendable {
        let tsih: UInt16
        let cid: UInt16
    }
    struct NexusKey: Hashable, Sendable {
        let tsih: UInt16
        let lun: Int
    }

    /// Findings that it keeps: a thousand sessions at five hundred logical units each. More are not shown: whoever speaks for data
    /// may not fill control's memory.
    static let mostFindings = 1 << 19

    private var count: Int { logicalUnits.count + connections.count + nexuses.count }

    mutating func add(_ entries: [SurveyEntry]) {
        for entry in entries where count < Self.mostFindings {
            switch entry {
            case .logicalUnit(let tid, let lun, let condition):
                if let target = TargetID(rawValue: tid) { logicalUnits[LogicalUnitKey(target: target, lun: Int(lun))] = condition }
            case .connection(let tsih, let cid, let traffic): connections[ConnectionKey(tsih: tsih, cid: cid)] = traffic
            case .nexus(let tsih, let lun, let activity): nexuses[NexusKey(tsih: tsih, lun: Int(lun))] = activity
            }
        }
    }
}

/// Asks data what is going on, for all who want to know: one survey at a time, so that many who ask cost no more than two.
final class Surveys {
    typealias WhenDone = (Survey) -> Void

    /// Nanoseconds that data may take; then administrators are answered without. A survey takes a few milliseconds; a process that
    /// hangs is found by its heart.
    static let patience: UInt64 = 5_000_000_000

    private struct Running {
        let id: RequestID
        var survey = Survey()
        var waiting: [WhenDone]
        let deadline: TimerID
    }

    private let loop: EventLoop
    private let log: Logger
    private let patience: UInt64
    private let send: (RequestID) -> Void
    private var lastRequest: UInt64 = 0
    private var running: Running?
    /// They came after it had begun: what it finds may be older than their question.
    private var next: [WhenDone] = []
    /// Given up; their pages may still come.
    private var late: Set<RequestID> = []

    /// - Parameter send: asks data
    init(loop: EventLoop, log: Logger, patience: UInt64 = Surveys.patience, send: @escaping (RequestID) -> Void) {
        self.patience = patience
        self.loop = loop
        self.log = log
        self.send = send
    }

    /// Calls `whenDone` with what was found after this call; with nothing if data does not say in time.
    func ask(_ whenDone: @escaping WhenDone) {
        next.append(whenDone)
        begin()
    }

    /// Part of an answer.
    /// - Returns: false if nobody has asked: data may not say that
    func heard(_ id: RequestID, _ entries: [SurveyEntry], isLast: Bool) -> Bool {
        guard running?.id == id else {
            guard late.contains(id) else { return false }
            if isLast { late.remove(id) }
            return true
        }
        running?.survey.add(entries)
        if isLast { end() }
        return true
    }

    /// Data is gone, and with it all that there was to find.
    func dataEnded() {
        late = []
        let waiting = (running?.waiting ?? []) + next
        if let running { loop.cancel(running.deadline) }
        running = nil
        next = []
        for whenDone in waiting { whenDone(Survey()) }
    }

    private func begin() {
        guard running == nil, !next.isEmpty else { return }
        lastRequest += 1
        let id = RequestID(rawValue: lastRequest)
        let deadline = loop.after(nanoseconds: patience) { [weak self] in self?.giveUp() }
        running = Running(id: id, waiting: next, deadline: deadline)
        next = []
        send(id)
    }

    private func giveUp() {
        guard let running else { return }
        log.warning("the data process does not say what is going on; \(running.waiting.count) requests are answered without that")
        late.insert(running.id)
        end()
    }

    private func end() {
        guard let ended = running else { return }
        loop.cancel(ended.deadline)
        running = nil
        begin()
        for whenDone in ended.waiting { whenDone(ended.survey) }
    }
}

extension RuntimeView {
    /// - Parameter sessions: those that there are now, in the order of their logins: what was found of others is old
    init(_ survey: Survey, sessions served: [(tsih: UInt16, record: SessionRecord)]) {
        self.init()
        logicalUnits = survey.logicalUnits.mapValues(LogicalUnitCondition.init)
        sessions = served.map { tsih, record in
            let login = record.login
            let traffic = survey.connections[.init(tsih: tsih, cid: login.cid)] ?? Traffic()
            var session = Session(
                target: record.tid, tsih: tsih, initiatorName: record.initiatorName, initiatorAlias: record.initiatorAlias,
                connections: [Connection(cid: login.cid, address: login.peer.network, counters: ConnectionCounters(traffic))])
            session.authentication = login.proof.map {
                Authentication(account: $0.account, algorithm: $0.algorithm, isMutual: $0.isMutual, isMD5InClear: $0.isMD5InClear)
            }
            session.protection = login.evidence?.report(login.channel)
            return session
        }
        let targets = Dictionary(uniqueKeysWithValues: served.map { ($0.tsih, $0.record.tid) })
        statistics = survey.nexuses.compactMap { key, activity in
            targets[key.tsih].map { Statistics(LogicalUnitKey(target: $0, lun: key.lun), tsih: key.tsih, activity) }
        }
    }
}

extension RuntimeView.LogicalUnitCondition {
    init(_ condition: UnitCondition) {
        self.init()
        preventsRemoval = condition.preventsRemoval
        isSoftwareWriteProtected = condition.isSoftwareWriteProtected
        flushFailed = condition.flushFailed
    }
}

extension RuntimeView.ConnectionCounters {
    init(_ traffic: Traffic) {
        self.init()
        receivedOctets = traffic.receivedOctets
        sentOctets = traffic.sentOctets
        dataOutPDUs = traffic.dataOutPDUs
        dataInPDUs = traffic.dataInPDUs
        commandPDUs = traffic.commandPDUs
        responsePDUs = traffic.responsePDUs
    }
}

extension RuntimeView.Statistics {
    init(_ key: LogicalUnitKey, tsih: UInt16, _ activity: NexusActivity) {
        func count(_ amount: NexusActivity.Amount) -> RuntimeView.Count { RuntimeView.Count(bytes: amount.bytes, commands: amount.commands) }
        self.init(key: key, tsih: tsih)
        readSubmitted = count(activity.readSubmitted)
        readDone = count(activity.readDone)
        writeSubmitted = count(activity.writeSubmitted)
        writeDone = count(activity.writeDone)
        errors = activity.errors
    }
}
