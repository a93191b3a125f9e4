import Bytes
import Management
import Model

/// Many requests that are carried out together or not at all. The pure half, in two steps:
///
/// 1. `prepare` applies them, one after the other, to a copy of the configuration, and says what has to be done outside
///    (`Needs`): stores to open, portals to listen on or whose files are to be read, and then what is to be withdrawn from initiators. Of stores that are not open
///    yet it expects the best.
/// 2. `commit` applies them again, to the configuration of that time and with what the stores have turned out to be. Whatever
///    is not as it was prepared for refuses the whole.
///
/// Only changes of the configuration can be part of one. Time and memory are proportional to the number of requests, and, once, to what is configured.
public struct Transaction: Sendable {
    public let requests: [AdminRequest]
    /// What there is for whoever asks.
    private let sight: Sight

    public init(_ requests: [AdminRequest], sight: Sight = .everything) {
        self.requests = requests
        self.sight = sight
    }

    /// What has to be done before the configuration can change. Requests are known by their index.
    public struct Needs: Hashable, Sendable {
        /// To be opened: as many at once as one likes, for nobody notices.
        public internal(set) var openings: [Int: StoreRequest] = [:]
        /// Portals to listen on (`.listen`), and those whose files are to be read (`.renewPortal`).
        public internal(set) var portals: [Int: Effect] = [:]
        /// Targets that go, each with whether its sessions are to be ended. Those that may fail, for they have sessions, come first.
        public internal(set) var targets: [TargetID: Bool] = [:]
        /// Logical units that go while their target stays. These may fail.
        public internal(set) var logicalUnits: Set<LogicalUnitKey> = []

        public init() {}

        /// What initiators notice, so that it is done last; what may fail stands before what ends sessions.
        public var withdrawals: [[Effect]] {
            let sorted = targets.sorted { $0.key < $1.key }
            return [
                logicalUnits.sorted().map { .withdrawLogicalUnit($0) },
                sorted.filter { !$0.value }.map { .withdrawTarget($0.key, force: false) },
                sorted.filter(\.value).map { .withdrawTarget($0.key, force: true) },
            ]
        }
    }

    /// The end of a transaction that has everything it needs.
    public struct Commit: Sendable {
        public let configuration: Configuration
        /// What has changed in the end: what came and went within the transaction is not told. Removals come first.
        public let changes: [Change]
        /// Which opened store each logical unit has got, by the index of its request. The others are not needed any more.
        public let stores: [LogicalUnitKey: Int]
        /// Portals nobody should listen on any more.
        public let closedPortals: [PortalAddress]
    }

    /// Why none of it is done.
    public struct Refused: Error, Sendable {
        /// nil: none of them alone is the reason.
        public let request: Int?
        public let error: TgtError
        public let reason: String

        public init(_ request: Int?, _ error: TgtError, _ reason: String) {
            self.request = request
            self.error = error
            self.reason = reason
        }

        public var answer: Answer {
            var answer = Answer.refusal(error, reason)
            answer.request = request
            return answer
        }
    }

    /// What a transaction that was carried out answers in JSON.
    public static func report(_ count: Int) -> [UInt8] {
        JSONWriter.document { writer in writer.object("transaction") { $0.field("requests", count) } }
    }

    public func prepare(_ configuration: Configuration, _ view: RuntimeView) throws(Refused) -> Needs {
        try attempt(configuration, view) { configuration, view throws(Refused) in try walk(configuration, view, outcomes: nil) }.needs
    }

    /// - Parameters:
    ///   - needs: what has been done
    ///   - outcomes: how the openings and listens went: each `.opened` or `.listening`
    public func commit(_ needs: Needs, _ outcomes: [Int: EffectOutcome], _ configuration: Configuration, _ view: RuntimeView) throws(Refused) -> Commit {
        try attempt(configuration, view) { configuration, view throws(Refused) in
            let walk = try walk(configuration, view, outcomes: outcomes, withdrawn: Set(needs.targets.keys))
            guard walk.needs == needs else {
                throw Refused(nil, .logicalUnitActive, "somebody else has changed the same targets meanwhile; try again")
            }
            return walk
        }.commit(from: configuration)
    }

    private func attempt(
        _ configuration: Configuration, _ view: RuntimeView, _ walk: (Configuration, RuntimeView) throws(Refused) -> TransactionWalk
    ) throws(Refused) -> TransactionWalk {
        try sight.attempt(configuration, view, changes: { ($0.changes, $0.new) }, walk)
    }

    private func walk(
        _ configuration: Configuration, _ view: RuntimeView, outcomes: [Int: EffectOutcome]?, withdrawn: Set<TargetID> = []
    ) throws(Refused) -> TransactionWalk {
        var walk = TransactionWalk(configuration, view, outcomes, withdrawn)
        for (index, request) in requests.enumerated() {
            do throws(Refusal) { try walk.take(index, request) } catch { throw Refused(index, error.error, error.reason) }
        }
        do throws(ConfigurationError) { try walk.new.checkLimits(since: configuration) } catch { throw Refused(nil, .invalidRequest, error.description) }
        return walk
    }
}

/// A transaction's way through its requests.
private struct TransactionWalk {
    private let old: Configuration
    private let view: RuntimeView
    private let busy: Set<TargetID>
    private let outcomes: [Int: EffectOutcome]?

    private(set) var new: Configuration
    private(set) var needs = Transaction.Needs()
    /// In the order in which they were made, as if each request stood alone.
    private(set) var changes: [Change] = []
    private var stores: [LogicalUnitKey: Int] = [:]
    private var listened: [PortalAddress] = []

    /// - Parameter withdrawn: targets that have no sessions any more, whatever `view` says
    init(_ configuration: Configuration, _ view: RuntimeView, _ outcomes: [Int: EffectOutcome]?, _ withdrawn: Set<TargetID>) {
        old = configuration
        new = configuration
        self.view = view
        self.outcomes = outcomes
        busy = Set(view.sessions.map(\.target)).subtracting(withdrawn)
    }

    /// What a store is taken for until it is open.
    private static let hopedFor: UInt64 = 1 << 40

    mutating func take(_ index: Int, _ request: AdminRequest) throws(Refusal) {
        try Administrator.checkDriver(request)
        switch request.action {
        case .updateSystem, .newTarget, .updateTarget, .bindInitiators, .unbindInitiators, .newAccount, .deleteAccount, .addSecret, .retireSecret,
             .bindAccount, .unbindAccount:
            try apply(request)
        case .newLogicalUnit, .updateLogicalUnit:
            guard case .openStore(let store)? = try Administrator.effect(request, new, view) else {
                return try apply(request)
            }
            needs.openings[index] = store
            let outcome = outcomes?[index] ?? .opened(StoreFacts(byteCount: Self.hopedFor, isWritable: !store.readOnly))
            // Not asked for when this was prepared, and so not there: `commit` finds that the needs differ.
            guard case .opened = outcome else { throw Refusal(.invalidRequest, "the store is not open") }
            try apply(request, after: .openStore(store), outcome)
            stores[store.key] = index
        case .deleteLogicalUnit:
            guard case .withdrawLogicalUnit(let key)? = try Administrator.effect(request, new, view) else { return }
            try apply(request)
            stores[key] = nil
            if old.targets[key.target]?.logicalUnits[key.lun] != nil, needs.targets[key.target] == nil { needs.logicalUnits.insert(key) }
        case .deleteTarget(let tid, let force):
            let target = try Administrator.target(tid, new)
            let isOld = old.targets[target.id] != nil && needs.targets[target.id] == nil
            guard force || !isOld || !busy.contains(target.id) else {
                throw Refusal(.targetActive, "target \(tid) has sessions; end them, or use --force")
            }
            try apply(request)
            for lun in target.logicalUnits.keys { stores[LogicalUnitKey(target: target.id, lun: lun)] = nil }
            guard isOld else { return }
            needs.targets[target.id] = force
            // Its logical units go with it.
            for lun in old.targets[target.id]?.logicalUnits.keys.map(\.self) ?? [] { needs.logicalUnits.remove(LogicalUnitKey(target: target.id, lun: lun)) }
        case .newPortal:
            guard case .listen(let portal)? = try Administrator.effect(request, new, view) else { return }
            // One that was closed by an earlier request just stays open.
            if let open = old.portals.first(where: { $0.endpoint == portal.endpoint }) {
                guard open.tls == nil, portal.tls == nil else {
                    throw Refusal(.invalidRequest, "portal \(portal) with TLS is not closed and made anew within one transaction: update it")
                }
                return try apply(request, .listening(portal))
            }
            needs.portals[index] = .listen(portal)
            let outcome = outcomes?[index] ?? .listening(portal)
            guard case .listening(let real) = outcome else { throw Refusal(.invalidRequest, "nobody listens on \(portal)") }
            listened.append(real.endpoint)
            try apply(request, outcome)
        case .updatePortal:
            guard let effect = try Administrator.effect(request, new, view), case .renewPortal(let portal) = effect else { return }
            guard old.portals.contains(where: { $0.endpoint == portal.endpoint }) else {
                throw Refusal(.invalidRequest, "portal \(portal) is made in this transaction: make it as it is to be")
            }
            needs.portals[index] = effect
            try apply(request, after: effect)
        case .deletePortal: try apply(request)
        case .showSystem, .deleteSystem, .statSystem, .showTargets, .showTarget, .statTarget, .statLogicalUnit, .showPortals, .showAccounts,
             .statSession, .showConnections, .deleteConnection, .statConnections, .startDriver, .stopDriver, .showDrivers, .explainAccess, .explainPolicy, .showPenalties, .clearPenalties,
             .generateSecret:
            throw Refusal(.invalidRequest, "only changes of the configuration can be part of a transaction")
        }
    }

    private mutating func apply(_ request: AdminRequest, after effect: Effect? = nil, _ outcome: EffectOutcome = .done) throws(Refusal) {
        let made = try Administrator.apply(request, to: &new, after: effect, outcome)
        for case .mediumChanged(let key) in made {
            // It has another medium now, or none, and not the store that an earlier request has opened for it.
            stores[key] = nil
        }
        changes += made
    }

    // MARK: The end

    func commit(from old: Configuration) -> Transaction.Commit {
        let open = Set(new.portals.map(\.endpoint))
        return Transaction.Commit(
            configuration: new, changes: netChanges(from: old), stores: stores,
            closedPortals: (old.portals.map(\.endpoint) + listened).filter { !open.contains($0) })
    }

    /// What those who serve the old configuration have to be told.
    private func netChanges(from old: Configuration) -> [Change] {
        let removedTargets = needs.targets.keys.sorted()
        var added: Set<TargetID> = []
        for case .targetAdded(let id) in changes where new.targets[id] != nil { added.insert(id) }
        var net = removedTargets.map { Change.targetRemoved($0) }
        net += needs.logicalUnits.sorted().map { .logicalUnitRemoved($0) }
        net += added.sorted().map { .targetAdded($0) }

        // Of a target that is added, all that it has is told with it; of one that is gone, nothing.
        func stays(_ id: TargetID) -> Bool { new.targets[id] != nil && !added.contains(id) }
        var units: [LogicalUnitKey: Change] = [:]
        var told: Set<Change> = []
        for change in changes {
            switch change {
            case .targetAdded, .targetRemoved: break
            case .targetStateChanged(let id), .parametersChanged(let id), .rulesChanged(let id), .accountsChanged(let id?):
                if stays(id), told.insert(change).inserted { net.append(change) }
            case .logicalUnitAdded(let key), .logicalUnitRemoved(let key), .logicalUnitChanged(let key), .mediumChanged(let key):
                guard stays(key.target), new.targets[key.target]?.logicalUnits[key.lun] != nil else { continue }
                if old.targets[key.target]?.logicalUnits[key.lun] == nil || needs.logicalUnits.contains(key) {
                    units[key] = .logicalUnitAdded(key)
                } else if units[key] != .mediumChanged(key) {
                    units[key] = change
                }
            case .accountsChanged(nil), .accountChanged, .portalAdded, .portalRemoved, .portalChanged, .systemStateChanged, .debugChanged:
                if told.insert(change).inserted { net.append(change) }
            }
        }
        return net + units.sorted { $0.key < $1.key }.map(\.value)
    }
}
