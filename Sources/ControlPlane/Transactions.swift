import Administration
import Logging
import Management
import Model
import Reactor

/// Carries out a transaction: first what nobody notices (stores are opened, portals listen), then what initiators do (what goes is
/// withdrawn), then the one commit. What fails before that takes back all that was done: what was opened is closed, what was
/// withdrawn serves again.
///
/// Other requests do not wait for what nobody notices. Then the transaction is tried as a whole, with what there is and what is allowed at that
/// moment, and what it is about is held: nobody else changes that until it is over. Sessions are ended by force only after that, as the last step.
final class TransactionRun {
    private var warrant: Warrant
    private let control: Control
    private let view: RuntimeView
    private let reply: (Answer) -> Void

    private var needs = Transaction.Needs()
    /// Requests whose stores are not being opened yet.
    private var unopened: ArraySlice<(request: Int, store: StoreRequest)> = []
    private var opening = 0
    private var outcomes: [Int: EffectOutcome] = [:]
    private var opened: [Int: HeldStore] = [:]
    /// From the first step that initiators notice, if there is one.
    private var holder: Holds.Holder?
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
                    opened[request] = store
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
        let rest = Countdown { [self] in hold() }
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

    /// The last moment at which it costs nobody anything to refuse it.
    private func hold() {
        if let refusal { return finish(refusal) }
        let steps = needs.withdrawals.filter { !$0.isEmpty }
        guard !steps.isEmpty else { return commit() }
        warrant = warrant.asOfNow
        do throws(Transaction.Refused) {
            let changes = try transaction().commit(needs, outcomes, control.configuration, view).changes
            holder = try held { () throws(Holds.Taken) in try control.serving.hold(changes) }
        } catch {
            return finish(error)
        }
        withdraw(steps[...])
    }

    private func held<Result>(_ body: () throws(Holds.Taken) -> Result) throws(Transaction.Refused) -> Result {
        do throws(Holds.Taken) { return try body() } catch { throw Transaction.Refused(nil, error.error, error.reason) }
    }

    private func withdraw(_ steps: ArraySlice<[Effect]>) {
        if let refusal { return finish(refusal) }
        guard let step = steps.first else { return commit() }
        let rest = Countdown { [self] in withdraw(steps.dropFirst()) }
        for effect in step {
            control.perform(effect) { [self] outcome, _ in
                if case .failed(let error, let reason) = outcome {
                    refuse(nil, error, "\(effect.withdrawn.map { "\($0)" } ?? "\(effect)"): \(reason)")
                } else {
                    withdrawn.append(effect)
                }
                rest.keepAlive()
            }
        }
    }

    private func commit() {
        let commit: Transaction.Commit
        do throws(Transaction.Refused) {
            commit = try transaction().commit(needs, outcomes, control.configuration, view)
            try held { () throws(Holds.Taken) in try control.serving.check(commit.changes, holder) }
        } catch {
            return finish(error)
        }
        if let holder { control.serving.release(holder) }
        control.commit(commit.configuration, commit.changes, stores: { key in commit.stores[key].flatMap { opened[$0] } }, .success, reply)
        for portal in commit.closedPortals { control.portals.close(portal) }
        forgetPortals()
    }

    /// What is configured stays as it is.
    private func finish(_ refused: Transaction.Refused) {
        for case .listening(let portal) in outcomes.values { control.portals.close(portal.endpoint) }
        forgetPortals()
        let reply = reply
        var answer = refused.answer
        answer.changes = withdrawn.compactMap { $0.trace(.done) }
        control.log.notice("a transaction is refused: \(refused.reason)", metadata: refused.request.map { ["request": "\($0)"] } ?? [:])
        let rest = Countdown { [answer] in reply(answer) }
        control.answer(rest)
        if let holder { control.serving.giveBack(holder, rest) }
    }
}
