import Administration
import Logging
import Management
import Model
import Reactor

/// Carries out a transaction: first what nobody notices (stores are opened, portals listen), then what initiators do (what goes is
/// withdrawn), then the one commit. What fails before that takes back all that was done: what was opened is closed, what was
/// withdrawn serves again.
///
/// Sessions are ended by force only when nothing can fail any more. Other requests do not wait meanwhile: a commit that finds
/// the configuration changed in what matters to it is refused.
final class TransactionRun {
    private let warrant: Warrant
    private let control: Control
    private let view: RuntimeView
    private let reply: (Answer) -> Void

    private var needs = Transaction.Needs()
    /// Requests whose stores are not being opened yet.
    private var unopened: ArraySlice<(request: Int, store: StoreRequest)> = []
    private var opening = 0
    private var outcomes: [Int: EffectOutcome] = [:]
    private var held: [Int: HeldStore] = [:]
    private var withdrawn: [Effect] = []
    private var refusal: Transaction.Refused?

    /// It keeps itself until its reply.
    init(_ warrant: Warrant, _ control: Control, _ view: RuntimeView, _ reply: @escaping (Answer) -> Void) {
        self.warrant = warrant
        self.control = control
        self.view = view
        self.reply = reply
    }

    /// As far as it is allowed at this moment.
    private func transaction() throws(Transaction.Refused) -> Transaction {
        Transaction(warrant.requests, sight: try warrant.sight().get())
    }

    func start() {
        do throws(Transaction.Refused) { needs = try transaction().prepare(control.configuration, view) } catch { return finish(error) }
        unopened = needs.openings.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }[...]
        openStores()
    }

    // MARK: What nobody notices

    private func openStores() {
        while refusal == nil, opening < OpeningLimits.atOnce, let (request, store) = unopened.popFirst() {
            opening += 1
            control.perform(.openStore(store)) { [self] outcome, store in
                opening -= 1
                switch outcome {
                case .failed(let error, let reason): refuse(request, error, reason)
                default:
                    outcomes[request] = outcome
                    held[request] = store
                }
                openStores()
            }
        }
        guard opening == 0 else { return }
        if let refusal { return finish(refusal) }
        if unopened.isEmpty { listen() }
    }

    /// The first refusal counts.
    private func refuse(_ request: Int?, _ error: TgtError, _ reason: String) {
        if refusal == nil { refusal = Transaction.Refused(request, error, reason) }
    }

    private func listen() {
        let rest = Countdown { [self] in withdraw(needs.withdrawals[...]) }
        for (request, effect) in needs.portals.sorted(by: { $0.key < $1.key }) {
            control.perform(effect) { [self] outcome, _ in
                if case .failed(let error, let reason) = outcome { refuse(request, error, reason) } else { outcomes[request] = outcome }
                rest.keepAlive()
            }
        }
    }

    /// What was read for portals, and has not been taken.
    private func forgetPortals() {
        for (request, effect) in needs.portals { if let outcome = outcomes[request] { control.portals.forget(effect, outcome) } }
    }

    // MARK: What initiators notice

    private func withdraw(_ steps: ArraySlice<[Effect]>) {
        if let refusal { return finish(refusal) }
        guard let step = steps.first else { return commit() }
        let rest = Countdown { [self] in withdraw(steps.dropFirst()) }
        for effect in step {
            control.perform(effect) { [self] outcome, _ in
                if case .failed(let error, let reason) = outcome {
                    refuse(nil, error, "\(effect.subject): \(reason)")
                } else {
                    withdrawn.append(effect)
                }
                rest.keepAlive()
            }
        }
    }

    private func commit() {
        let old = control.configuration
        let commit: Transaction.Commit
        do throws(Transaction.Refused) { commit = try transaction().commit(needs, outcomes, old, view) } catch { return finish(error) }
        control.withdrawn.subtract(needs.targets.keys)
        control.commit(commit.configuration, commit.changes, stores: { key in commit.stores[key].flatMap { self.held[$0] } }, .success, reply)
        for portal in commit.closedPortals { control.portals.close(portal) }
        forgetPortals()
    }

    /// Nothing has happened.
    private func finish(_ refused: Transaction.Refused) {
        for case .listening(let portal) in outcomes.values { control.portals.close(portal.endpoint) }
        forgetPortals()
        control.withdrawn.subtract(needs.targets.keys)
        let reply = reply
        let answer = refused.answer
        control.log.notice("a transaction is refused: \(refused.reason)", metadata: refused.request.map { ["request": "\($0)"] } ?? [:])
        let rest = Countdown { reply(answer) }
        for effect in withdrawn {
            // Unless somebody else has deleted it meanwhile.
            switch effect {
            case .withdrawTarget(let tid, _): control.addTarget(tid, rest)
            case .withdrawLogicalUnit(let key): if control.configuration.targets[key.target]?.logicalUnits[key.lun] != nil { control.addLogicalUnit(key, rest) }
            default: break
            }
        }
    }
}

extension Effect {
    /// What it is about, for a reason.
    fileprivate var subject: String {
        switch self {
        case .withdrawTarget(let tid, _): "target \(tid)"
        case .withdrawLogicalUnit(let key): "logical unit \(key.lun) of target \(key.target)"
        case .openStore, .endConnection, .listen, .renewPortal, .close, .clearPenalties, .drawSecret: "\(self)"
        }
    }
}
