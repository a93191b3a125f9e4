import Audit
import Crypto
import Logging
import Reactor
import Synchronization

/// Bounds of what waits for the medium.
enum AuditLimits {
    /// Records for which somebody waits, those for which nobody does, and those that could not be written: each.
    static let waiting = 4096
    /// Bytes of memory of each of them. One record may be longer, if it is alone.
    static let waitingBytes = 32 << 20
    /// Bytes of memory of the records that are written as one group, or one record.
    static let group = 4 << 20
    /// Nanoseconds until what could not be written is tried again.
    static let pause: UInt64 = 1_000_000_000
    /// Nanoseconds between looks at what was counted only.
    static let look: UInt64 = 5_000_000_000
    /// Lines that wait to be copied to the second sink, and bytes of one.
    static let copies = 1024
    static let copiedLine = 8000
}

/// How the audit is kept.
public struct AuditOptions: Sendable {
    /// What administrators do: nothing of it is ever removed by ourselves.
    public var management = TrailOptions(name: "management")
    /// What anybody may cause who reaches a port: it has a quota, and never keeps anybody from anything.
    public var network = TrailOptions(
        name: "network", fileLength: 8 << 20, mostFiles: networkFiles, reserve: 64 << 10, leaves: 16 << 20, checkpointRecords: 1024, refusesChanges: false)
    /// Files among which the network trail's quota is divided.
    public static let networkFiles = 8
    /// Nanoseconds after which records have a checkpoint at the latest.
    public var checkpointInterval: UInt64 = 60_000_000_000
    /// Nanoseconds that anybody waits for the medium; then the change is refused. A disk that hangs keeps no administrator.
    public var patience: UInt64 = 10_000_000_000
    /// A second sink: gets every line when it is on the medium, on a thread of its own.
    public var copy: (@Sendable (String) -> Void)?

    public init() {}

    /// The second sink that is syslog, or the journal behind it.
    public static let systemLog: @Sendable (String) -> Void = { Console.systemLog(priority: 5, $0) }
}

/// Writes down what administrators do and what concerns security. Belongs to one loop, which never waits: a thread of its own writes and flushes, all
/// that has come meanwhile as one group.
///
/// What changes something: `attempt`, and when it is kept the change, then `outcome`, and when that is kept the answer. What changes nothing, or was
/// refused by the policy: one record, for which nobody has to wait.
public final class Auditor {
    /// What became of a record.
    public enum Kept: Hashable, Sendable {
        /// On the medium, as the record of this number: go on.
        case recorded(UInt64)
        /// Not on the medium, but go on: it will be, as soon as that can be done, or its loss will.
        case unrecorded(reason: String)
        /// The change is not to be made; that is on the medium too, where it could be.
        case refused(reason: String)
    }
    public typealias WhenKept = (Kept) -> Void

    private struct Waiting {
        let attempt: Attempt?
        let weight: Int
        var whenKept: WhenKept?
        var deadline: TimerID?
    }

    private let loop: EventLoop
    private let log: Logger
    private let writer: Writer
    private let patience: UInt64
    /// What local users can cause at will, and what the network can: neither hides anything of the other. The first has no quota, so it is slower.
    private var gates: [Writer.Which: EventGate] = [.management: EventGate(perSource: 60, window: 3600), .network: EventGate()]
    private var waiting: [UInt64: Waiting] = [:]
    private var waitingBytes = 0
    private var lastID: UInt64 = 0
    private var whenSettled: (() -> Void)?
    /// How secrets in arguments are written down.
    public let secretCode: SecretCode
    /// Why the management trail cannot be written as it should; nil: it can.
    public private(set) var trouble: String?
    /// The same of the network trail, which keeps nobody from anything.
    public private(set) var networkTrouble: String?
    /// The medium has not answered in time, and nothing has been heard of it since: nobody else is to wait for it as long.
    private var isSilent = false
    private static let silence = "the medium of the audit trail does not answer"

    /// Goes on with both trails, or begins them. Takes as long as the medium does.
    /// - Parameters:
    ///   - storage: nobody else writes there
    ///   - sealingKey: of `Seal.keyLength` bytes, and the same at every start
    public init(loop: EventLoop, _ storage: sending any AuditStorage, _ options: AuditOptions, sealingKey: Secret, log: Logger) throws {
        self.loop = loop
        self.log = log
        patience = options.patience
        secretCode = SecretCode(derivedFrom: sealingKey)
        let results = try Mailbox<[Writer.Result]>()
        writer = try Writer(storage, options, sealingKey, results)
        for notice in writer.notices { log.warning("\(notice)") }
        try loop.receive(results) { [weak self] in self?.take($0) }
        look()
    }

    // MARK: What is written down

    /// A request that would change something, or that was refused.
    /// - Parameter whenKept: called in a later turn; if it says `refused`, the change is not to be made
    public func attempt(_ attempt: Attempt, _ whenKept: @escaping WhenKept) {
        let entry = Trail.Entry(.attempt(attempt), now)
        guard waiting.isEmpty || waiting.count < AuditLimits.waiting && waitingBytes + entry.weight <= AuditLimits.waitingBytes else {
            return turnAway(attempt, "the audit is behind: too many requests wait for it", whenKept)
        }
        if isSilent { return turnAway(attempt, Self.silence, whenKept) }
        wait(attempt, entry, whenKept)
    }

    /// A request of somebody who may ask nothing. Anybody on this host can make such ones: those that are too many are only counted.
    /// - Parameters:
    ///   - attempt: not made for those
    ///   - source: as that of an event
    ///   - whenKept: called in a later turn; then the answer may go out
    public func refusal(_ attempt: @autoclosure () -> Attempt, of source: String, _ whenKept: @escaping WhenKept) {
        guard gates[.management]?.admits(.requestRefused, source: source, at: now) == true else {
            return loop.later { whenKept(.unrecorded(reason: "it is counted")) }
        }
        self.attempt(attempt(), whenKept)
    }

    /// What became of a request that changes nothing. Nobody waits for it, and it keeps nobody.
    public func look(_ outcome: Outcome) { writer.post(.init(id: nil, trail: .management, entry: .init(.outcome(outcome), now))) }

    /// What became of a request.
    /// - Parameter whenKept: called in a later turn; then the answer may go out. It does not say `refused`
    public func outcome(_ outcome: Outcome, _ whenKept: @escaping WhenKept = { _ in }) {
        let entry = Trail.Entry(.outcome(outcome), now)
        if isSilent {
            writer.post(.init(id: nil, trail: .management, entry: entry))
            return loop.later { whenKept(.unrecorded(reason: Self.silence)) }
        }
        wait(nil, entry, whenKept)
    }

    private func wait(_ attempt: Attempt?, _ entry: Trail.Entry, _ whenKept: @escaping WhenKept) {
        lastID += 1
        let id = lastID
        let deadline = loop.after(nanoseconds: patience) { [weak self] in self?.expire(id) }
        waiting[id] = Waiting(attempt: attempt, weight: entry.weight, whenKept: whenKept, deadline: deadline)
        waitingBytes += entry.weight
        writer.post(.init(id: id, trail: .management, entry: entry))
    }

    /// Nobody waits for this one: it is recorded when that can be done, as what has become of it.
    private func turnAway(_ attempt: Attempt, _ reason: String, _ whenKept: @escaping WhenKept) {
        var attempt = attempt
        let isRefused = attempt.decision == .allowed && writer.refusesChanges
        if isRefused { (attempt.decision, attempt.reason) = (.refused, "audit: \(reason)") }
        writer.post(.init(id: nil, trail: .management, entry: .init(.attempt(attempt), now)))
        loop.later { whenKept(isRefused ? .refused(reason: reason) : .unrecorded(reason: reason)) }
    }

    /// Something that concerns security. Nobody waits for it, and what comes too often is only counted.
    public func event(_ event: SecurityEvent) { self.event(event.kind, source: event.source) { _ in event } }

    /// The same of one that is only put together if it is to be recorded.
    public func event(_ kind: SecurityEvent.Kind, source: String?, _ make: (_ source: String?) -> SecurityEvent) {
        let now = now
        if gates[kind.trail]?.admits(kind, source: source, at: now) == true { writer.post(.init(id: nil, trail: kind.trail, entry: .init(.event(make(source)), now))) }
    }

    /// Writes what there is, under a last checkpoint, and ends the thread: a process may not exit while one of its threads still computes codes.
    /// What comes afterwards is not recorded, and nothing is to be changed any more.
    /// - Parameter whenDone: called in a later turn, once, also if the medium does not answer
    public func end(_ whenDone: @escaping () -> Void) {
        var whenDone: (() -> Void)? = whenDone
        let deadline = loop.after(nanoseconds: patience) {
            whenDone?()
            whenDone = nil
        }
        settle { [self] in
            loop.cancel(deadline)
            writer.end()
            whenDone?()
            whenDone = nil
        }
    }

    /// Calls `whenDone` when all that has been given is written, under a checkpoint, or cannot be.
    public func settle(_ whenDone: @escaping () -> Void) {
        flushGate(all: true)
        whenSettled = whenDone
        writer.settle()
    }

    // MARK: Inside

    private var now: Timestamp { Timestamp(microseconds: Host.wallClock) }

    private func look() {
        loop.after(nanoseconds: AuditLimits.look) { [weak self] in
            self?.flushGate()
            self?.look()
        }
    }

    private func flushGate(all: Bool = false) {
        for trail in [Writer.Which.management, .network] {
            for record in gates[trail]?.due(at: now, all: all) ?? [] { writer.post(.init(id: nil, trail: trail, entry: .init(record, now))) }
        }
    }

    /// The medium does not answer.
    private func expire(_ id: UInt64) {
        isSilent = true
        trouble(is: Self.silence)
        guard let whenKept = waiting[id]?.whenKept else { return }
        waiting[id]?.whenKept = nil
        let isChange = waiting[id]?.attempt?.decision == .allowed
        whenKept(isChange && writer.refusesChanges ? .refused(reason: Self.silence) : .unrecorded(reason: Self.silence))
    }

    private func take(_ results: [Writer.Result]) {
        for result in results {
            switch result {
            case .kept(let id, let kept):
                guard let waiting = waiting.removeValue(forKey: id) else { continue }
                waitingBytes -= waiting.weight
                if let deadline = waiting.deadline { loop.cancel(deadline) }
                if let whenKept = waiting.whenKept {
                    whenKept(kept)
                } else if let attempt = waiting.attempt, attempt.decision == .allowed, case .recorded(let number) = kept, writer.refusesChanges {
                    // It stands there as allowed, and has been refused meanwhile.
                    outcome(.takenBack(attempt, number, "the audit trail was not written in time", microseconds: Int(patience / 1000)))
                }
            case .trouble(let reason):
                isSilent = false
                trouble(is: reason)
            case .networkTrouble(let reason):
                networkTrouble = reason
                if let reason { log.warning("security events cannot be recorded: \(reason)") } else { log.notice("security events are recorded again") }
            case .settled:
                whenSettled?()
                whenSettled = nil
            }
        }
    }

    private func trouble(is reason: String?) {
        guard reason != trouble else { return }
        if let reason {
            log.error("the audit trail cannot be written\(writer.refusesChanges ? ", and nothing is changed until it can" : ""): \(reason)")
        } else {
            log.notice("the audit trail is written again")
        }
        trouble = reason
    }
}

extension SecurityEvent.Kind {
    /// What others than administrators can cause is apart from what they do.
    var trail: Writer.Which {
        switch self {
        case .loginAccepted, .loginRefused, .sessionEnded, .penalty, .tlsFailed, .processStarted, .processEnded: .network
        case .daemonStarted, .daemonStopped, .rereading, .policyLoaded, .policyRefused, .portalsLoaded, .portalsRefused, .peerRefused, .requestRefused: .management
        }
    }
}

extension EventLoop {
    /// In a later turn of this loop.
    fileprivate func later(_ work: @escaping () -> Void) { after(nanoseconds: 0, work) }
}

/// The thread that writes, and what waits for it.
final class Writer: Sendable {
    enum Which: Sendable { case management, network }

    struct Item: Sendable {
        let id: UInt64?
        let trail: Which
        let entry: Trail.Entry
    }

    enum Result: Sendable {
        case kept(UInt64, Auditor.Kept)
        case trouble(String?)
        case networkTrouble(String?)
        case settled
    }

    private struct Queue {
        var items: [Item] = []
        /// How many of them nobody waits for, and their weight.
        var idle: [Which: (count: Int, weight: Int)] = [:]
        /// Those for which there was no room.
        var lost: [Which: (count: Int, since: Timestamp)] = [:]
        var isSettling = false
        /// Somebody is on the way to take them.
        var isTaken = false
        /// Nobody takes anything any more.
        var hasEnded = false
    }

    /// Of the thread alone.
    private struct Trails {
        let management: Trail
        let network: Trail
        /// Outcomes that could not be written yet, and their weight.
        var late: [Trail.Entry] = []
        var lateBytes = 0
        var hasTimer = false
        /// Records have waited long enough for a checkpoint.
        var isToCheckpoint = false
        var isToTryAgain = false
        var networkTrouble: String?

        /// Whether there are records that no checkpoint vouches for.
        var wantsCheckpoint: Bool { management.wantsCheckpoint || network.wantsCheckpoint }

        /// An outcome is given again, as long as there is room.
        mutating func keep(_ entry: Trail.Entry) -> Bool {
            guard case .outcome = entry.record, late.count < AuditLimits.waiting, late.isEmpty || lateBytes + entry.weight <= AuditLimits.waitingBytes else { return false }
            late.append(entry)
            lateBytes += entry.weight
            return true
        }
    }

    private let queue = Mutex(Queue())
    private let trails: Mutex<Trails>
    private let thread: LoopThread
    private let copier: Copier?
    private let results: Mailbox<[Result]>
    private let checkpointInterval: UInt64
    let refusesChanges: Bool
    /// What the administrator is to be told at the start.
    let notices: [String]

    init(_ storage: sending any AuditStorage, _ options: AuditOptions, _ sealingKey: Secret, _ results: Mailbox<[Result]>) throws {
        let management = try Trail(storage, options.management, sealingKey: sealingKey)
        let network = try Trail(storage, options.network, sealingKey: sealingKey)
        var notices: [String] = []
        for trail in [management, network] {
            if let found = trail.finding { notices.append("the audit trail \(trail.options.name) was not ended as it should have been: \(found)") }
            guard try trail.keyIsBeside() else { continue }
            notices.append(
                "what verifies the audit trail \(trail.options.name) still lies beside it (\(trail.names.verificationKey)): carry it elsewhere and remove it here, or whoever takes this host can write the trail anew")
        }
        self.notices = notices
        self.results = results
        checkpointInterval = options.checkpointInterval
        refusesChanges = options.management.refusesChanges
        copier = try options.copy.map { copy throws(SystemError) in try Copier(copy) }
        trails = Mutex(Trails(management: management, network: network))
        thread = try LoopThread(name: "audit") { _ in }
        // What the start has found is recorded before anything else.
        wake()
    }

    deinit { thread.stop() }

    func post(_ item: Item) {
        let isFirst = queue.withLock { queue in
            guard !queue.hasEnded else { return false }
            // What nobody waits for is bounded here: of each trail so many, and the others are counted.
            if item.id == nil {
                let idle = queue.idle[item.trail] ?? (0, 0)
                guard idle.count < AuditLimits.waiting, idle.count == 0 || idle.weight + item.entry.weight <= AuditLimits.waitingBytes else {
                    queue.lost[item.trail, default: (0, item.entry.time)].count += 1
                    return false
                }
                queue.idle[item.trail] = (idle.count + 1, idle.weight + item.entry.weight)
            }
            queue.items.append(item)
            defer { queue.isTaken = true }
            return !queue.isTaken
        }
        if isFirst { wake() }
    }

    func settle() {
        queue.withLock { $0.isSettling = true }
        wake()
    }

    /// When it has settled. Waits for the end of its present turn.
    func end() {
        queue.withLock { $0.hasEnded = true }
        thread.stop()
        thread.join()
    }

    private func wake() { thread.mailbox.post { [weak self] loop in self?.work(loop) } }

    private func work(_ loop: EventLoop) {
        let taken = queue.withLock { queue in
            defer { queue = Queue(hasEnded: queue.hasEnded) }
            return queue
        }
        let (items, isSettling) = (taken.items, taken.isSettling)
        trails.withLock { trails in
            let behind = "the medium was behind: too many records waited for it"
            if let lost = taken.lost[.management] { trails.management.lose(lost.count, since: lost.since, behind) }
            if let lost = taken.lost[.network] { trails.network.lose(lost.count, since: lost.since, behind) }
            write(items, &trails)
            if isSettling || trails.isToCheckpoint { checkpoint(&trails) }
            report(&trails)
            if isSettling { results.post([.settled]) }
            if !trails.hasTimer, trails.wantsCheckpoint {
                trails.hasTimer = true
                loop.after(nanoseconds: checkpointInterval) { [weak self] in
                    self?.trails.withLock { trails in
                        trails.hasTimer = false
                        trails.isToCheckpoint = true
                    }
                    self?.work(loop)
                }
            }
            if trails.management.trouble != nil || trails.network.trouble != nil || !trails.late.isEmpty, !trails.isToTryAgain {
                trails.isToTryAgain = true
                loop.after(nanoseconds: AuditLimits.pause) { [weak self] in
                    self?.trails.withLock { $0.isToTryAgain = false }
                    self?.work(loop)
                }
            }
        }
    }

    /// In groups, so that no more of it is there twice.
    private func write(_ items: [Item], _ trails: inout Trails) {
        let late = trails.late.map { (id: nil as UInt64?, entry: $0) }
        (trails.late, trails.lateBytes) = ([], 0)
        // Nobody who waits for the first waits for what the network does. Each trail has its turn, also when there is nothing to be written.
        for group in Self.groups(late + items.filter { $0.trail == .management }.map { ($0.id, $0.entry) }) { writeManagement(group, &trails) }
        for group in Self.groups(items.filter { $0.trail == .network }.map { ($0.id, $0.entry) }) { writeNetwork(group.map(\.entry), &trails) }
    }

    private static func groups(_ items: [(id: UInt64?, entry: Trail.Entry)]) -> [ArraySlice<(id: UInt64?, entry: Trail.Entry)>] {
        var groups: [ArraySlice<(id: UInt64?, entry: Trail.Entry)>] = []
        var start = 0, weight = 0
        for (index, item) in items.enumerated() {
            if index > start, weight + item.entry.weight > AuditLimits.group {
                groups.append(items[start..<index])
                (start, weight) = (index, 0)
            }
            weight += item.entry.weight
        }
        return groups + [items[start...]]
    }

    private func writeManagement(_ items: ArraySlice<(id: UInt64?, entry: Trail.Entry)>, _ trails: inout Trails) {
        let now = Timestamp(microseconds: Host.wallClock)
        let kept = trails.management.write(items.map(\.entry), at: now)
        copy(trails.management)
        var answers: [Result] = []
        var lost: (entries: [Trail.Entry], error: FileError)?
        for ((id, entry), kept) in zip(items, kept) {
            let answer: Auditor.Kept
            switch kept {
            case .recorded(let number): answer = .recorded(number)
            case .takenBack(let number, let error):
                if case .attempt(let attempt) = entry.record {
                    _ = trails.keep(.init(.outcome(.takenBack(attempt, number, "the audit trail cannot be written: \(error)", microseconds: 0)), now))
                }
                answer = .refused(reason: "\(error)")
            case .refused(let number, let error):
                if number == nil { lost = ((lost?.entries ?? []) + [entry], error) }
                answer = .refused(reason: "\(error)")
            case .failed(let error):
                if !trails.keep(entry) { lost = ((lost?.entries ?? []) + [entry], error) }
                answer = .unrecorded(reason: "\(error)")
            }
            if let id { answers.append(.kept(id, answer)) }
        }
        if let lost { trails.management.lose(lost.entries.count, since: lost.entries.first?.time ?? now, lost.error.reason) }
        // Before those that wait are told.
        results.post([.trouble(trails.management.trouble.map { "\($0)" })] + answers)
    }

    private func writeNetwork(_ entries: [Trail.Entry], _ trails: inout Trails) {
        let now = Timestamp(microseconds: Host.wallClock)
        let kept = trails.network.write(entries, at: now)
        copy(trails.network)
        var failure: FileError?
        let lost = zip(entries, kept).compactMap { entry, kept in
            guard case .failed(let error) = kept else { return nil as Trail.Entry? }
            failure = error
            return entry
        }
        if let failure { trails.network.lose(lost.count, since: lost.first?.time ?? now, failure.reason) }
    }

    /// Also when nothing has changed: control knows of a medium that does not answer, which we do not.
    private func report(_ trails: inout Trails) {
        results.post([.trouble(trails.management.trouble.map { "\($0)" })])
        let trouble = trails.network.trouble.map { "\($0)" }
        if trouble != trails.networkTrouble { results.post([.networkTrouble(trouble)]) }
        trails.networkTrouble = trouble
    }

    private func checkpoint(_ trails: inout Trails) {
        for trail in [trails.management, trails.network] {
            trail.checkpoint(at: Timestamp(microseconds: Host.wallClock))
            copy(trail)
        }
        // One that could not be made is tried again with whatever could not be written.
        trails.isToCheckpoint = trails.wantsCheckpoint
    }

    private func copy(_ trail: Trail) {
        guard let copier else { return }
        for line in trail.written { copier.post(trail.options.name, line) }
    }
}

/// The second sink, which may be slow or hang: what it does not take is counted, and keeps nobody.
private final class Copier: Sendable {
    private struct Queue {
        var lines: [String] = []
        var lost = 0
    }
    private let queue = Mutex(Queue())
    private let thread: LoopThread
    private let copy: @Sendable (String) -> Void

    init(_ copy: @escaping @Sendable (String) -> Void) throws(SystemError) {
        self.copy = copy
        thread = try LoopThread(name: "audit-copy") { _ in }
    }

    deinit { thread.stop() }

    /// As much of the line as the sink takes.
    func post(_ trail: String, _ line: [UInt8]) {
        let isFirst = queue.withLock { queue in
            guard queue.lines.count < AuditLimits.copies else {
                queue.lost += 1
                return false
            }
            let room = AuditLimits.copiedLine - trail.utf8.count - 1
            queue.lines.append("\(trail) \(String(decoding: line.prefix(room), as: UTF8.self))\(line.count <= room ? "" : "…")")
            return queue.lines.count == 1
        }
        if isFirst { thread.mailbox.post { [weak self] _ in self?.work() } }
    }

    private func work() {
        let taken = queue.withLock { queue in
            defer { queue = Queue() }
            return queue
        }
        for line in taken.lines { copy(line) }
        if taken.lost > 0 { copy("\(taken.lost) more records were not copied") }
    }
}
