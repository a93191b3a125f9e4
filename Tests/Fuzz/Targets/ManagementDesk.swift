import Administration
import Bytes
import Crypto
import ISCSI
import Management
import Model

/// Control's part in what administrators ask, with effects that succeed or fail as the input decides.
struct ManagementDesk {
    private var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](repeating: 7, count: 16)))
    private var view = RuntimeView()

    /// A target with a disk, a rule and an account; a session at it that has locked the medium.
    init() {
        for (mode, operation, lun, text) in [
            (.portal, .new, 0, "portalOps portal=127.0.0.1:3260,"), (.target, .new, 0, "targetname=iqn.2026-01.test:t"),
            (.logicalUnit, .new, 1, "path=/disk,bstype=rdwr"), (.target, .bind, 0, "initiator-address=ALL"),
            (.account, .new, 0, "user=u,password=p"),
        ] as [(TgtRequest.Mode, TgtRequest.Operation, UInt64, String)] {
            var request = TgtRequest(mode, operation)
            (request.tid, request.lun, request.payload) = (1, lun, Array(text.utf8))
            carryOut(Administrator.plan(request, configuration, view), 0)
        }
        guard let target = TargetID(rawValue: 1), let address = NetworkAddress(parsing: Array("127.0.0.9".utf8)) else { preconditionFailure("values of ours") }
        view.sessions = [
            RuntimeView.Session(
                target: target, tsih: 1, initiatorName: iscsiName("iqn.2026-01.test:a"), initiatorAlias: [0x41, 0x0a, 0x1b, 0xff],
                connections: [RuntimeView.Connection(cid: 0, address: address)])
        ]
        view.logicalUnits[LogicalUnitKey(target: target, lun: 1)] = {
            var condition = RuntimeView.LogicalUnitCondition()
            condition.preventsRemoval = true
            return condition
        }()
        precondition(configuration.targets[target]?.logicalUnits.count == 2 && configuration.portals.count == 1)
    }

    /// What one connection says, in pieces of so many bytes.
    mutating func serve(_ stream: [UInt8], piece: Int, outcome: UInt8) {
        var decoder = ManagementDecoder(asksLeave: true)
        var rest = stream[...]
        while !rest.isEmpty {
            let part = rest.prefix(piece)
            rest = rest.dropFirst(piece)
            var events: [ManagementEvent] = []
            var isRight = true
            do throws(ManagementWireError) {
                try decoder.feed(part.span, into: &events)
                if case .announced = events.last { try decoder.permit(into: &events) }
            } catch { isRight = false }
            for event in events { serve(event, outcome) }
            // A request is the last that is looked at.
            guard isRight, events.allSatisfy({ event in
                switch event {
                case .hello, .announced: true
                case .tgt, .native: false
                }
            }) else { return }
        }
    }

    private mutating func serve(_ event: ManagementEvent, _ outcome: UInt8) {
        switch event {
        case .tgt(let request): carryOut(Administrator.plan(request, configuration, view), outcome)
        case .hello(let hello):
            let welcome = NativeWelcome(answering: hello)
            precondition(NativeWelcome(welcome.encoded()) == welcome)
        case .announced(let announcement): precondition(announcement.isTransaction || announcement.bytes > NativeProtocol.greatestUnasked)
        case .native(let request):
            checkCoding(request)
            switch request.content {
            case .single(let single): carryOut(Administrator.plan(single, configuration, view, format: request.format), outcome)
            case .transaction(let requests): carryOut(Transaction(requests), outcome)
            }
        }
    }

    // MARK: One request

    private mutating func carryOut(_ plan: Plan, _ choice: UInt8) {
        var plan = plan
        while case .perform(let effect, let continuation) = plan {
            plan = Administrator.resume(continuation, Self.outcome(of: effect, choice), configuration)
        }
        switch plan {
        case .answer(let answer), .stop(let answer): check(answer)
        case .commit(let new, _, let answer):
            check(answer)
            adopt(new)
        case .perform: preconditionFailure("every effect is carried out")
        }
    }

    private static func outcome(of effect: Effect, _ choice: UInt8) -> EffectOutcome {
        if choice & 3 == 3 { return .failed(.invalidRequest, "it failed") }
        switch effect {
        case .openStore(let request):
            let size: UInt64 = choice & 4 == 0 ? 1 << 20 : choice & 8 == 0 ? 0 : .max
            return .opened(StoreFacts(byteCount: size, isWritable: !request.readOnly, physicalBlockLength: 4096))
        case .listen(let portal): return .listening(portal.endpoint.port == 0 ? portal.listening(on: 40000) : portal)
        case .withdrawLogicalUnit(let key):
            precondition((0..<Model.Limits.logicalUnits).contains(key.lun), "the door's messages have 16 bits for it")
            return .done
        case .withdrawTarget, .endConnection, .renewPortal, .close, .clearPenalties: return .done
        case .drawSecret(let characters): return .drawn(Secret([UInt8](repeating: choice | 0x40, count: characters)))
        }
    }

    /// What is configured can be served.
    private mutating func adopt(_ new: Configuration) {
        configuration = new
        for target in new.sortedTargets {
            for unit in target.sortedLogicalUnits {
                do throws(ConfigurationError) { _ = try new.settings(unit.key) } catch { preconditionFailure("\(error)") }
            }
        }
    }

    // MARK: Many as one

    private mutating func carryOut(_ transaction: Transaction, _ choice: UInt8) {
        do throws(Transaction.Refused) {
            let needs = try transaction.prepare(configuration, view)
            var outcomes: [Int: EffectOutcome] = [:]
            for (index, request) in needs.openings { outcomes[index] = Self.outcome(of: .openStore(request), choice) }
            for (index, effect) in needs.portals { outcomes[index] = Self.outcome(of: effect, choice) }
            for effect in needs.withdrawals.joined() { _ = Self.outcome(of: effect, choice) }
            check(try transaction.commit(needs, outcomes, configuration, view), transaction, choice)
            check(Answer.report(Transaction.report(transaction.requests.count)))
        } catch { check(error.answer) }
    }

    private mutating func check(_ commit: Transaction.Commit, _ transaction: Transaction, _ choice: UInt8) {
        let (old, new) = (configuration, commit.configuration)
        func has(_ key: LogicalUnitKey, _ configuration: Configuration) -> Bool { configuration.targets[key.target]?.logicalUnits[key.lun] != nil }
        precondition(commit.stores.keys.allSatisfy { has($0, new) }, "every store that is kept has its logical unit")
        precondition(commit.closedPortals.allSatisfy { closed in !new.portals.contains { $0.endpoint == closed } })
        for change in commit.changes {
            switch change {
            case .targetAdded(let id): precondition(new.targets[id] != nil)
            case .targetRemoved(let id): precondition(old.targets[id] != nil)
            case .logicalUnitAdded(let key), .logicalUnitChanged(let key), .mediumChanged(let key): precondition(has(key, new))
            case .logicalUnitRemoved(let key): precondition(has(key, old))
            default: break
            }
        }
        // One after another they come to the same, if each of them can be carried out alone.
        var alone = self
        for request in transaction.requests {
            var plan = Administrator.plan(request, alone.configuration, view)
            while case .perform(let effect, let continuation) = plan {
                plan = Administrator.resume(continuation, Self.outcome(of: effect, choice), alone.configuration)
            }
            guard case .commit(let next, _, _) = plan else { return adopt(new) }
            alone.configuration = next
        }
        precondition(alone.configuration == new, "a transaction is what its requests are one after another")
        adopt(new)
    }

    // MARK: What goes out

    /// What goes to a terminal and into the log is text without control characters, whatever was asked.
    private func check(_ answer: Answer) {
        precondition(answer.response.text.allSatisfy { $0 == 0x0a || $0 >= 0x20 && $0 != 0x7f })
        precondition(answer.reason?.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f } ?? true)
        var decoder = TgtResponseDecoder()
        do throws(TgtWireError) {
            let bytes = answer.response.encoded()
            let again = try decoder.feed(bytes.span)
            precondition(again == answer.response)
        } catch { preconditionFailure("tgtadm understands the answer: \(error)") }
        var native = NativeAnswer(request: answer.request, reason: answer.reason ?? "", output: answer.response.text)
        native.error = answer.response.error
        var answers = NativeAnswerDecoder()
        do throws(NativeWireError) {
            let bytes = native.encoded()
            let again = try answers.feed(bytes.span)
            precondition(again == native)
        } catch { preconditionFailure("our tgtadm understands the answer: \(error)") }
    }

    /// What was understood is the same when it is written again.
    private func checkCoding(_ request: NativeRequest) {
        guard let bytes = request.encoded() else { preconditionFailure("what came can be sent") }
        var decoder = ManagementDecoder()
        do throws(ManagementWireError) {
            let stream = NativeHello().encoded() + bytes
            var events: [ManagementEvent] = []
            try decoder.feed(stream.span, into: &events)
            precondition(events.last == .native(request))
        } catch { preconditionFailure("what was written can be read: \(error)") }
    }
}
