import Access
import Administration
import Audit
import Door
import Management
import Model

/// Leave to carry something out, for as long as it holds: between a decision and what follows from it others may change the policy, and what there is.
struct Warrant {
    let requests: [AdminRequest]
    /// What there is for whoever asks, as things are now; or why it may not be done any more.
    let sight: () -> Result<Sight, Transaction.Refused>

    /// The same, for what has been begun and is to be brought to its end.
    var asOfNow: Warrant {
        let now = sight()
        return Warrant(requests: requests) { now }
    }
}

extension Gate {
    /// Whether what was admitted still is, and what there is for whoever asks. What PAM has said of him counts.
    func warrant(_ admission: Admission, configuration: @escaping () -> Configuration) -> Warrant {
        Warrant(requests: admission.requests) { [unowned self] in
            Result { () throws(Transaction.Refused) -> Sight in
                func changed<Result>(_ what: String, _ body: () throws(Transaction.Refused) -> Result) throws(Transaction.Refused) -> Result {
                    do throws(Transaction.Refused) { return try body() } catch {
                        throw Transaction.Refused(error.request, error.error, "\(what) has changed meanwhile: \(error.reason)")
                    }
                }
                let allowances = try changed("the policy") { () throws(Transaction.Refused) in
                    let allowances = try Allowances(admission.requests, of: admission.identity.peer, policy, configuration())
                    guard !allowances.authenticates || admission.identity.proof == .authenticated else {
                        throw Transaction.Refused(nil, .unsupportedOperation, "it needs authentication by now")
                    }
                    return allowances
                }
                // Each request within what it alone may be about.
                _ = try changed("what there is") { () throws(Transaction.Refused) in try allowances.resolved(configuration()) }
                return Sight(allowances.reach)
            }
        }
    }
}

/// The way of a request: who asks, and may he (`Gate`)? What he wants is written down (`RequestAudit`), and only then planned, with what is configured and
/// allowed at that moment; what the plan needs is done, and when all of it is there the plan is made again, and committed.
extension Control {
    func submit(_ request: ManagementRequest, _ asker: Asker, _ reply: @escaping (Answer) -> Void) {
        let requests: [AdminRequest]
        var format = OutputFormat.text
        var isTransaction = false
        switch request {
        case .tgt(let request):
            guard let understood = try? AdminRequest(request) else { return refuse(request, asker, reply) }
            requests = [understood]
        case .native(let request):
            format = request.format
            switch request.content {
            case .single(let single): requests = [single]
            case .transaction(let parts): (requests, isTransaction) = (parts, true)
            }
        }
        log.debug(
            "management request", metadata: ["uid": "\(asker.uid)", "pid": "\(asker.peer.credentials.pid)", "what": "\(requests.first?.permission.description ?? "")"])
        let started = loop.now
        gate.admit(requests, asker, configuration: { [unowned self] in configuration }) { [unowned self] result in
            switch result {
            case .failure(let turned):
                audit.refused(
                    requests, isTransaction: isTransaction, by: Actor(asker, turned.identity), isStranger: !gate.policy.knows(turned.identity.peer),
                    turned.reason ?? turned.answer.reason, turned.answer, reply)
            case .success(let admission):
                let asked = audit.asked(admission.requests, isTransaction: isTransaction, by: Actor(asker, admission.identity), at: started)
                let rules = admission.identity.grants.map(\.description).joined(separator: ", ")
                let warrant = gate.warrant(admission) { [unowned self] in configuration }
                audit.carryOut(asked, rules, reply) { [unowned self] reply in
                    if isTransaction { return transact(warrant, format, reply) }
                    guard let request = admission.requests.first else { return }
                    if case .explainPolicy(let question) = request.action {
                        explainPolicy(question, of: request.tenant, within: admission.sight, admission.identity.peer, format, reply)
                    } else {
                        carryOut(request, warrant, format, reply)
                    }
                }
            }
        }
    }

    /// Somebody wants to send what is more than just anybody may.
    /// - Parameter reply: nil: he may
    func submit(_ announcement: NativeAnnouncement, _ asker: Asker, _ reply: @escaping (Answer?) -> Void) {
        gate.know(asker) { [unowned self] result in
            switch result {
            case .success: reply(nil)
            case .failure(let turned):
                audit.refused(announcement, by: Actor(asker, turned.identity), turned.reason ?? turned.answer.reason, turned.answer) { reply($0) }
            }
        }
    }

    /// Something that we ask for ourselves.
    func submit(_ request: AdminRequest, _ reply: @escaping (Answer) -> Void) {
        let warrant = Warrant(requests: [request]) { .success(.everything) }
        audit.carryOut(audit.asked([request], isTransaction: false, by: .ourselves, at: loop.now), "tgtd itself", reply) { [unowned self] reply in
            carryOut(request, warrant, .text, reply)
        }
    }

    /// What is no request needs nobody's leave to be refused.
    private func refuse(_ request: TgtRequest, _ asker: Asker, _ reply: @escaping (Answer) -> Void) {
        guard case .answer(let answer) = Administrator.plan(request, configuration, RuntimeView()) else { preconditionFailure("a request that is none is refused") }
        complaints.note(.notice, of: asker.uid, "an administrator's request is refused: \(answer.reason ?? "")")
        let actor = Actor(asker, AdministratorIdentity(peer: Peer(uid: asker.uid)))
        audit.refused(request, by: actor, isStranger: !gate.policy.knows(asker.byNumbers), answer.reason, answer, reply)
    }

    // MARK: One request

    /// Carries out what an administrator asks for.
    private func carryOut(_ request: AdminRequest, _ warrant: Warrant, _ format: OutputFormat, _ reply: @escaping (Answer) -> Void) {
        // In JSON, one target is shown with all it has.
        view(isNeeded: request.needsRuntimeView || format == .json) { [unowned self] view in
            let plan = plan(warrant, view) { Administrator.plan(request, $0, $1, format: format) }
            if let unkept, plan.changesSomething { return carryOut(.answer(unkept), warrant, reply) }
            carryOut(plan, warrant, reply)
        }
    }

    /// A plan for this moment.
    private func plan(_ warrant: Warrant, _ view: RuntimeView, _ make: (Configuration, RuntimeView) -> Plan) -> Plan {
        switch warrant.sight() {
        case .success(let sight): sight.plan(configuration, view, make)
        case .failure(let refused): .answer(refused.answer)
        }
    }

    /// - Parameter holder: whoever holds what an effect has withdrawn; nil: nothing has been
    private func carryOut(_ plan: Plan, _ warrant: Warrant, holding holder: Holds.Holder? = nil, opened: HeldStore? = nil, _ reply: @escaping (Answer) -> Void) {
        switch plan {
        case .answer(let answer):
            if let reason = answer.reason { log.notice("an administrator's request is refused: \(reason)") }
            guard let holder else { return reply(answer) }
            let rest = Countdown { reply(answer) }
            self.answer(rest)
            serving.giveBack(holder, rest)
        case .stop(var answer):
            answer.changes = ["tgtd ends"]
            reply(answer)
            stop("an administrator wants it")
        case .commit(let new, let changes, let answer):
            do throws(Holds.Taken) { try serving.check(changes, holder) } catch {
                return carryOut(.answer(.refusal(error.error, error.reason)), warrant, holding: holder, reply)
            }
            if let holder { serving.release(holder) }
            commit(new, changes, stores: { _ in opened }, answer, reply)
        case .perform(let effect, let continuation):
            var holder = holder
            do throws(Holds.Taken) { if let object = effect.withdrawn { holder = try serving.hold(object) } } catch {
                return carryOut(.answer(.refusal(error.error, error.reason)), warrant, reply)
            }
            // When initiators have noticed it, it is done, and what follows is to fit.
            let warrant = effect.isNoticed ? warrant.asOfNow : warrant
            perform(effect) { [unowned self, holder] outcome, opened in
                var next = self.plan(warrant, RuntimeView()) { configuration, _ in Administrator.resume(continuation, outcome, configuration) }
                if case .listening(let portal) = outcome, case .answer = next { portals.close(portal.endpoint) }
                // Nothing follows: it is what is different.
                if case .answer(var answer) = next, let change = effect.trace(outcome) {
                    answer.changes.append(change)
                    next = .answer(answer)
                }
                carryOut(next, warrant, holding: holder, opened: opened, reply)
                // What a commit has not taken.
                portals.forget(effect, outcome)
            }
        }
    }

    // MARK: Many

    private func transact(_ warrant: Warrant, _ format: OutputFormat, _ reply: @escaping (Answer) -> Void) {
        if let refusal = unkept { return carryOut(.answer(refusal), warrant, reply) }
        view(isNeeded: warrant.requests.contains { $0.needsRuntimeView }) { [unowned self] view in
            TransactionRun(warrant, self, view) { answer in
                var answer = answer
                if format == .json, answer.reason == nil {
                    answer.response = Answer.report(Transaction.report(warrant.requests.count)).response
                }
                reply(answer)
            }.start()
        }
    }

    // MARK: What plans need

    func perform(_ effect: Effect, _ whenDone: @escaping (EffectOutcome, HeldStore?) -> Void) {
        switch effect {
        case .openStore(let request):
            openings.open(request) { [unowned self] result in
                switch result {
                case .success((let store, let facts)):
                    // What data cannot serve is not to be in the configuration.
                    serving.order({ .tryStore($0, store.description) }, passing: store.descriptor.rawValue) { refusal in
                        if refusal == nil { whenDone(.opened(facts), store) } else { whenDone(.failed(.invalidRequest, "the data process cannot use the store"), nil) }
                    }
                case .failure(let error):
                    log.warning("a store is not opened: \(error.reason)", metadata: ["path": "\(request.store.path?.description ?? "none")"])
                    whenDone(.failed(.invalidRequest, error.reason), nil)
                }
            }
        case .withdrawLogicalUnit(let key):
            serving.withdraw(.logicalUnit(key), force: false) { refusal in
                whenDone(refusal == .logicalUnitActive ? .failed(.logicalUnitActive, "commands are under way") : .done, nil)
            }
        case .withdrawTarget(let tid, let force):
            serving.withdraw(.target(tid), force: force, inTime { refusal in
                whenDone(refusal == .targetActive ? .failed(.targetActive, "it has sessions") : .done, nil)
            })
        case .endConnection(_, let tsih, _):
            serving.order({ .endSession($0, tsih: tsih) }, inTime { refusal in
                whenDone(refusal == .unknownSession ? .failed(.noConnection, "it has just ended") : .done, nil)
            })
        case .listen(let portal):
            portals.make(portal) { result in
                switch result {
                case .success(let real): whenDone(.listening(real), nil)
                case .failure(let error): whenDone(.failed(.invalidRequest, "\(error)"), nil)
                }
            }
        case .renewPortal(let portal): portals.renew(portal) { error in whenDone(error.map { .failed(.invalidRequest, "\($0)") } ?? .done, nil) }
        case .close(let portal):
            portals.close(portal)
            whenDone(.done, nil)
        case .clearPenalties(let rule):
            let cleared = penalties.clear(rule)
            for source in cleared { keepOut(source, until: 0) }
            log.notice("failures to log in are forgotten", metadata: ["address": "\(rule.spelling)", "sources": "\(cleared.count)"])
            whenDone(cleared.isEmpty && rule.extent != .all ? .failed(.invalidRequest, "\(rule.spelling) has no failures") : .done, nil)
        case .drawSecret(let characters): whenDone(.drawn(.printable(characters: characters)), nil)
        }
    }

    /// What data has been told to end is over when its last command has left the store; a store that hangs keeps no administrator.
    private func inTime(_ whenDone: @escaping (DataRefusal?) -> Void) -> (DataRefusal?) -> Void {
        let first = First(whenDone)
        loop.after(nanoseconds: ControlLimits.publishing) { [weak self] in if first.take(nil) { self?.noteLate() } }
        return { _ = first.take($0) }
    }
}

extension Effect {
    /// Whether initiators have noticed it when it is done: there is no way back then.
    fileprivate var isNoticed: Bool {
        switch self {
        case .withdrawLogicalUnit, .withdrawTarget, .endConnection, .close, .clearPenalties: true
        case .openStore, .listen, .renewPortal, .drawSecret: false
        }
    }

    /// What is different when it is done and nothing follows, for the audit trail; nil: something does, or nothing is.
    func trace(_ outcome: EffectOutcome) -> String? {
        if case .failed = outcome { return nil }
        return switch self {
        case .withdrawTarget(let tid, force: true): "sessions of target \(tid) ended"
        case .withdrawTarget(let tid, force: false): "target \(tid) withdrawn for a moment"
        case .withdrawLogicalUnit(let key): "logical unit \(key.lun) of target \(key.target) withdrawn for a moment"
        case .endConnection(let tid, let tsih, let cid): "connection \(cid) of session \(tsih) of target \(tid) ended"
        case .clearPenalties(let rule): "failures of \(rule.spelling) forgotten"
        case .close(let portal): "portal \(portal) closed"
        case .openStore, .listen, .renewPortal, .drawSecret: nil
        }
    }
}
