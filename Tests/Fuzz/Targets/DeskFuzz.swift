import Bytes
import ControlPlane
import Crypto
import Door
import ISCSI
import Model
import Reactor

/// Control's side of the door: a login and a data process that say what they like, in any order.
enum DeskFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        var world = DeskWorld()
        while !input.isEmpty {
            let step = input.byte()
            switch step & 7 {
            case 0 where step & 0x20 != 0: world.authenticate(&input)
            case 0: world.ask(input.take(Int(input.uint16() & 0x7ff)), descriptors: Int(step >> 4 & 1))
            case 1, 2: world.begin(&input)
            case 3, 4: world.finish(&input)
            case 5: world.ask(LoginQuestionMessage.sendTargets(id(&input), step & 8 == 0 ? .all : .name(iscsiName("iqn.2026-01.test:t"))))
            case 6: world.ask(LoginQuestionMessage.gone(id(&input)))
            default: world.report(tsih: input.byte(), step)
            }
        }
    }

    static func id(_ input: inout Input) -> ConnectionID { ConnectionID(rawValue: UInt64(input.byte() & 7)) }
}

private struct DeskWorld {
    private var desk = LoginDesk(sessionsPerTarget: sessionsPerTarget)
    private var sessions = SessionTable()
    private let configuration: Configuration
    /// What `begin` was answered.
    private var proceeding: [ConnectionID: (question: LoginQuestion, offered: SessionParameters, demand: CHAPDemand?)] = [:]
    private let answers = BufferPool(budget: 1 << 20, cached: 0)

    private static let sessionsPerTarget = 2
    private static let peer = SocketAddress(bytes: [127, 0, 0, 9], port: 40000)
    private static let local = SocketAddress(bytes: [127, 0, 0, 1], port: 3260)
    private static let admitted = "iqn.2026-01.test:a"
    private static let initiators = [admitted, "IQN.2026-01.TEST:A", "iqn.2026-01.test:b"]
    private static let targets = ["iqn.2026-01.test:t", "iqn.2026-01.test:absent", "iqn.2026-01.test:locked"]
    private static let user = Array("user".utf8)
    private static let secret = Array("a secret of users".utf8)

    /// One target that admits one name; its data come in small bursts. Another one that wants an account.
    init() {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](repeating: 7, count: 16)))
        do throws(ConfigurationError) {
            guard let tid = TargetID(rawValue: 1) else { preconditionFailure("1 is a target's number") }
            _ = try configuration.newTarget(tid, name: Array(Self.targets[0].utf8))
            _ = try configuration.bind([AddressRule(parsing: Array("127.0.0.0/8".utf8))], [NameRule(parsing: Array(Self.admitted.utf8))], to: tid)
            guard let locked = TargetID(rawValue: 2) else { preconditionFailure("2 is a target's number") }
            _ = try configuration.newTarget(locked, name: Array(Self.targets[2].utf8))
            _ = try configuration.bind([AddressRule(parsing: Array("ALL".utf8))], [], to: locked)
            _ = try configuration.newAccount(AccountName(Self.user), secret: Secret(Self.secret))
            _ = try configuration.bindAccount(AccountName(Self.user), to: locked, outgoing: false)
        } catch { preconditionFailure("a configuration of ours: \(error)") }
        self.configuration = configuration
    }

    mutating func begin(_ input: inout Input) {
        let id = DeskFuzz.id(&input)
        let choice = input.byte()
        let choices = Choices(choice)
        ask(
            LoginQuestionMessage.begin(
                id,
                LoginQuestion(
                    initiatorName: iscsiName(Self.initiators[Int(choice & 3) % 3]), sessionType: choices[2] ? .discovery : .normal,
                    targetName: choices[3] ? nil : iscsiName(Self.targets[choices[4] ? 1 : choice & 3 == 3 ? 2 : 0]), isid: ISID(rawValue: choices[5] ? 2 : 1),
                    tsih: choices[6] ? UInt16(input.byte()) : 0, cid: choices[7] ? 1 : 0), LoginChannel(portal: 1)))
    }

    /// What would be right, with changes.
    mutating func finish(_ input: inout Input) {
        let id = DeskFuzz.id(&input)
        guard let (began, offered, _) = proceeding[id] else { return }
        var question = began
        let choices = Choices(input.byte())
        var negotiated = NegotiatedParameters()
        negotiated.maxRecvDataSegmentLength = offered.maxRecvDataSegmentLength
        negotiated.initiatorMaxRecvDataSegmentLength = choices[0] ? Int(input.uint32()) : 8192
        negotiated.maxXmitDataSegmentLength = min(negotiated.initiatorMaxRecvDataSegmentLength, offered.maxXmitDataSegmentLength)
        negotiated.queueDepth = offered.maxQueueCmd
        if choices[1] { negotiated.firstBurstLength = Int(input.uint32()) }
        if choices[2] { negotiated.maxBurstLength = Int(input.uint32()) }
        if choices[3] { negotiated.maxOutstandingR2T = Int(input.uint16()) }
        if choices[4] { negotiated.initialR2T = false }
        if choices[5] { negotiated.queueDepth = Int(input.uint16()) }
        if choices[6] { question.tsih = UInt16(input.byte()) }
        ask(
            LoginQuestionMessage.finish(
                id,
                LoginOutcome(
                    identity: question, negotiated: negotiated, expCmdSN: input.uint32(), statSN: input.uint32(),
                    finalResponse: FinalLoginResponse(
                        currentStage: input.byte(), initiatorTaskTag: 1, statSN: 1, text: choices[7] ? input.take(input.number()) : []))))
    }

    /// The right answer, with changes.
    mutating func authenticate(_ input: inout Input) {
        let id = DeskFuzz.id(&input)
        guard let demand = proceeding[id]?.demand else { return }
        let choices = Choices(input.byte())
        let algorithm = CHAPAlgorithm.allCases[Int(input.byte()) % CHAPAlgorithm.allCases.count]
        var response = CHAPJudge.response(algorithm, choices[0] ? 0 : demand.identifier, Secret(choices[1] ? [1] : Self.secret), demand.challenge)
        if choices[2] { response[Int(input.byte()) % response.count] ^= 1 }
        let counterdemand = choices[3] ? CHAPAnswer.Counterdemand(identifier: input.byte(), challenge: choices[4] ? demand.challenge : [input.byte()]) : nil
        ask(LoginQuestionMessage.authenticate(
            id, CHAPAnswer(algorithm: algorithm, name: choices[5] ? [input.byte()] : Self.user, response: response, counterdemand: counterdemand)))
    }

    /// Through the door, as from another process.
    mutating func ask(_ message: LoginQuestionMessage) { ask(message.encoded(), descriptors: message.row.descriptors.upperBound) }

    /// What control does with a message of login; one that it may not send ends that process.
    mutating func ask(_ bytes: [UInt8], descriptors: Int) {
        do throws(DoorError) {
            let message = try LoginQuestionMessage(bytes, descriptors: descriptors)
            try desk.admit(message)
            try answer(message)
        } catch {
            desk.removeAll()
            proceeding = [:]
        }
    }

    private mutating func answer(_ message: LoginQuestionMessage) throws(DoorError) {
        guard let peer = Self.peer, let local = Self.local else { preconditionFailure("addresses of ours") }
        switch message {
        case .begin(let id, let question, _):
            switch desk.begin(id, question, peer: peer, local: local, configuration, sessions) {
            case .proceed(let parameters, let tag, let authentication):
                var demanded: CHAPDemand?
                if case .chap(let demand) = authentication { demanded = demand } else { check(question) }
                proceeding[id] = (question, parameters, demanded)
                DoorFuzz.passes(LoginAnswerMessage.proceed(id, parameters, portalGroupTag: tag, authentication))
            case .refuse(let status, _): DoorFuzz.passes(LoginAnswerMessage.refuse(id, status))
            }
        case .authenticate(let id, let answer):
            guard let began = proceeding.removeValue(forKey: id) else { preconditionFailure("it was given a challenge") }
            switch try desk.authenticate(id, answer, configuration, sessions) {
            case .authenticated(let parameters, let proof):
                precondition(answer.name == Self.user && answer.counterdemand == nil && proof == nil, "there is one account, and none that is outgoing")
                check(began.question)
                proceeding[id] = (began.question, parameters, nil)
                DoorFuzz.passes(LoginAnswerMessage.authenticated(id, parameters, proof))
            case .refuse(let status, _): DoorFuzz.passes(LoginAnswerMessage.refuse(id, status))
            case .drop: DoorFuzz.passes(LoginAnswerMessage.drop(id))
            }
        case .finish(let id, let outcome):
            let began = proceeding.removeValue(forKey: id)
            let result = try desk.finish(id, outcome, peer: peer, configuration, &sessions)
            guard case .grant(let grant) = result else { return }
            precondition(began?.question == outcome.identity, "who finishes is who began")
            check(outcome.identity)
            check(grant)
        case .sendTargets(let id, let scope):
            let found = desk.targets(id, scope, configuration)
            DoorFuzz.passes(LoginAnswerMessage.targets(id, found, isLast: true))
        case .gone(let id):
            desk.gone(id)
            proceeding[id] = nil
        case .failed, .heartbeat, .sign, .preSharedKey, .handshakeFailed: break
        }
    }

    /// Nobody but who is admitted goes on to a target.
    private func check(_ question: LoginQuestion) {
        guard question.sessionType == .normal else { return }
        let isOpen = question.initiatorName == iscsiName(Self.admitted) && question.targetName == iscsiName(Self.targets[0])
        precondition(isOpen || question.targetName == iscsiName(Self.targets[2]))
    }

    /// Data can serve what control grants, whatever login has said.
    private func check(_ grant: SessionGrant) {
        // Each that there may be, and one that takes its place.
        precondition(sessions.records.count <= 2 * 2 * Self.sessionsPerTarget)
        precondition(grant.tsih != 0 && (1...2).contains(grant.tid) && sessions.records[grant.tsih] != nil)
        DoorFuzz.passes(DataOrderMessage.grant(grant))
        _ = grant.outcome.finalResponseBytes(tsih: grant.tsih)
        var engine = FullFeature(
            grant.outcome.negotiated, sessionType: .normal, cid: grant.outcome.identity.cid, expCmdSN: grant.outcome.expCmdSN,
            statSN: grant.outcome.statSN, answers: answers)
        engine.ping()
        precondition(!engine.output.isEmpty)
    }

    /// What data says of sessions: the table stands whatever it is.
    mutating func report(tsih: UInt8, _ step: UInt8) {
        let record = sessions.records[UInt16(tsih)]
        // One of its grants, or one of nobody.
        let grant = step & 32 == 0 ? record?.served?.number ?? 0 : step & 64 == 0 ? record?.pending.first?.number ?? 0 : record?.pending.last?.number ?? 0
        let message: DataReportMessage =
            step & 8 == 0 ? .sessionBegan(tsih: UInt16(tsih), grant: grant) : .sessionEnded(tsih: UInt16(tsih), grant: grant, step & 16 == 0 ? .neverBegan : .loggedOut)
        DoorFuzz.passes(message)
        switch message {
        case .sessionBegan(let tsih, let grant): _ = sessions.began(tsih, grant: grant)
        case .sessionEnded(let tsih, let grant, let end): _ = sessions.ended(tsih, grant: grant, neverBegan: end == .neverBegan)
        default: break
        }
        precondition(sessions.records.values.allSatisfy { $0.served != nil || !$0.pending.isEmpty })
    }
}
