import Crypto
import Door
import ISCSI
import Model
import Reactor
import Testing

@testable import ControlPlane

private func name(_ text: String) -> ISCSIName {
    guard let name = try? ISCSIName(text.utf8) else { preconditionFailure("a test's name is a name") }
    return name
}

private let here = SocketAddress("127.0.0.1:3260")!
private let peer = SocketAddress("127.0.0.9:40000")!

/// A desk with the target iqn.t, on which the account “a” (incoming) and perhaps “t” (outgoing) are bound, and the target iqn.other with an account of its own.
private struct Bureau {
    var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](repeating: 7, count: 16)))
    var desk: LoginDesk
    let sessions = SessionTable()
    private var lastID: UInt64 = 0

    static func secret(of account: String) -> Secret { Secret(Array("a secret of \(account)".utf8)) }

    init(md5: MD5Use = .always, isMutual: Bool = false, requiresMutual: Bool = false) throws {
        desk = LoginDesk(judge: CHAPJudge(md5: md5))
        for (number, target, account) in [(1, "iqn.t", "a"), (2, "iqn.other", "o")] as [(Int32, String, String)] {
            let tid = try #require(TargetID(rawValue: number))
            _ = try configuration.newTarget(tid, name: Array(target.utf8))
            _ = try configuration.bind([try AddressRule(parsing: Array("ALL".utf8))], [], to: tid)
            try bind(account, to: tid, outgoing: false)
            if isMutual { try bind("t", to: tid, outgoing: true) }
            if requiresMutual { _ = try configuration.updateTarget(tid, name: Array("RequireMutualCHAP".utf8), value: Array("Yes".utf8)) }
        }
    }

    private mutating func bind(_ name: String, to tid: TargetID, outgoing: Bool) throws {
        let account = try AccountName(Array(name.utf8))
        if configuration.account(account) == nil { _ = try configuration.newAccount(account, secret: Self.secret(of: name)) }
        _ = try configuration.bindAccount(account, to: tid, outgoing: outgoing)
    }

    static func question(_ target: String? = "iqn.t", isid: UInt64 = 1) -> LoginQuestion {
        LoginQuestion(
            initiatorName: ControlPlaneTests.initiator, sessionType: target == nil ? .discovery : .normal, targetName: target.map { name($0) },
            isid: ISID(rawValue: isid), tsih: 0, cid: 0)
    }

    mutating func nextID() -> ConnectionID {
        lastID += 1
        return ConnectionID(rawValue: lastID)
    }

    mutating func begin(_ id: ConnectionID, _ question: LoginQuestion) -> LoginDesk.Beginning {
        desk.begin(id, question, peer: peer, local: here, configuration, sessions)
    }

    /// A connection that has been given its challenge.
    mutating func challenged(_ id: ConnectionID? = nil, target: String = "iqn.t") throws -> (id: ConnectionID, demand: CHAPDemand) {
        let id = id ?? nextID()
        guard case .proceed(_, _, .chap(let demand)) = begin(id, Self.question(target, isid: id.rawValue)) else { throw Unexpected.noChallenge }
        return (id, demand)
    }

    mutating func authenticate(_ id: ConnectionID, _ answer: CHAPAnswer) throws -> LoginDesk.Judgement {
        try desk.authenticate(id, answer, configuration, sessions)
    }

    enum Unexpected: Error { case noChallenge, noDemandInText }

    /// What the account answers.
    static func answer(_ account: String, to demand: CHAPDemand, _ algorithm: CHAPAlgorithm = .sha256, secret: Secret? = nil) -> CHAPAnswer {
        CHAPAnswer(
            algorithm: algorithm, name: Array(account.utf8),
            response: CHAPJudge.response(algorithm, demand.identifier, secret ?? Self.secret(of: account), demand.challenge), counterdemand: nil)
    }
}

private let initiator = name("iqn.a")

// MARK: The whole table

/// An initiator on the wire: login's machine and control's desk as one, bytes in, what becomes of it out.
private struct WireLogin {
    enum End: Hashable, CustomStringConvertible {
        /// With the target's proof, if it gave one.
        case admitted([String])
        case refused(LoginStatus)
        case dropped
        case goesOn

        var description: String {
            switch self {
            case .admitted(let proof): "admitted \(proof)"
            case .refused(let status): "refused with \(String(status.rawValue, radix: 16))"
            case .dropped: "dropped"
            case .goesOn: "goes on"
            }
        }
    }

    let id: ConnectionID
    private var machine = LoginMachine()
    /// The keys of the last response.
    private(set) var said: [String] = []
    private(set) var end = End.goesOn
    private(set) var answersJudged = 0

    init(_ id: ConnectionID) { self.id = id }

    func value(_ key: String) -> String? { said.first { $0.hasPrefix("\(key)=") }.map { String($0.dropFirst(key.count + 1)) } }

    /// A Login Request in the security stage.
    mutating func say(_ keys: [String], isLast: Bool = false, to bureau: inout Bureau) throws {
        let data: [UInt8] = keys.flatMap { Array($0.utf8) + [0] as [UInt8] }
        var bytes = [UInt8](repeating: 0, count: 48)
        bytes[0] = 0x43
        bytes[1] = isLast ? 0x81 : 0
        (bytes[5], bytes[6], bytes[7]) = (UInt8(data.count >> 16), UInt8(data.count >> 8 & 255), UInt8(data.count & 255))
        bytes[13] = UInt8(truncatingIfNeeded: id.rawValue)
        bytes += data + [UInt8](repeating: 0, count: -data.count & 3)
        var output: [UInt8] = []
        while !bytes.isEmpty, end == .goesOn {
            let count = machine.receive(bytes.span)
            bytes.removeFirst(count)
            output += machine.takeOutput()
            try consult(&bureau)
            output += machine.takeOutput()
            if count == 0, end == .goesOn, machine.state != .needsInput { break }
        }
        if case .failed(let status) = machine.state { end = .refused(status) }
        let length = output.count >= 48 ? Int(output[5]) << 16 | Int(output[6]) << 8 | Int(output[7]) : 0
        said = output.dropFirst(48).prefix(length).split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        if end == .goesOn, isLast, output.count >= 48, output[1] & 0x80 != 0 { end = .admitted(said) }
    }

    private mutating func consult(_ bureau: inout Bureau) throws {
        switch machine.state {
        case .asks(let question):
            switch bureau.begin(id, question) {
            case .proceed(let parameters, let tag, let authentication):
                machine.answer(.proceed(parameters: parameters, portalGroupTag: tag, authentication: authentication))
            case .refuse(let status, _): machine.answer(.refuse(status))
            }
        case .proves(let answer):
            answersJudged += 1
            switch try bureau.authenticate(id, answer) {
            case .authenticated(let parameters, let proof): machine.answer(.authenticated(parameters: parameters, proof: proof))
            case .refuse(let status, _): machine.answer(.refuse(status))
            case .drop: end = .dropped
            }
        default: break
        }
    }
}

/// What is wrong with an initiator's answer.
private enum Fault: CaseIterable {
    case none, secret, user, nameInAnotherCase, targetsOwnSecret, replayed, truncated, oversize, reflected
}

private enum Direction: CaseIterable {
    case oneWay, mutual
    /// The target wants to prove itself, and the initiator does not ask.
    case requiredNotAsked
    case required

    var asks: Bool { self == .mutual || self == .required }
}

private enum Spelling: CaseIterable {
    case hexadecimal, base64, base64Unpadded

    func write(_ bytes: [UInt8]) -> String {
        switch self {
        case .hexadecimal: return "0x" + hexadecimalDigits(bytes)
        case .base64, .base64Unpadded:
            let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
            var (text, held, bits) = ("0b", 0, 0)
            for byte in bytes {
                (held, bits) = (held << 8 | Int(byte), bits + 8)
                while bits >= 6 {
                    bits -= 6
                    text.append(digits[held >> bits & 63])
                }
            }
            if bits > 0 { text.append(digits[held << (6 - bits) & 63]) }
            return text + (self == .base64 ? String(repeating: "=", count: (3 - bytes.count % 3) % 3) : "")
        }
    }
}

private func hexadecimalDigits(_ bytes: [UInt8]) -> String {
    bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
}

private func bytes(hexadecimal text: some StringProtocol) -> [UInt8] {
    let digits = text.utf8.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// Each selection of CHAP's algorithms that an initiator can offer, in each order.
private let offers: [[CHAPAlgorithm]] = {
    var all: [[CHAPAlgorithm]] = []
    func extend(_ offer: [CHAPAlgorithm]) {
        if !offer.isEmpty { all.append(offer) }
        for algorithm in CHAPAlgorithm.allCases where !offer.contains(algorithm) { extend(offer + [algorithm]) }
    }
    extend([])
    return all
}()

@Suite struct CHAPTableTests {
    private static let settings = MD5Use.allCases.flatMap { use in Direction.allCases.map { (use, $0) } }

    @Test("Each offer in each order, each setting, each direction, each fault, each spelling: from the initiator's bytes to the answer's", arguments: settings.indices)
    func table(index: Int) throws {
        let (use, direction) = Self.settings[index]
        var bureau = try Bureau(md5: use, isMutual: true, requiresMutual: direction == .required || direction == .requiredNotAsked)
        var cells = 0
        for offer in offers {
            let best = offer.filter { $0 != .md5 || use == .always }.max()
            for fault in Fault.allCases {
                for spelling in Spelling.allCases {
                    let end = try logIn(offer, expecting: best, direction, fault, spelling, &bureau)
                    let cell: Comment = "\(offer) \(use) \(direction) \(fault) \(spelling)"
                    switch fault {
                    case _ where best == nil: #expect(end == .refused(.authenticationFailure), cell)
                    case .reflected: #expect(end == .dropped, cell)
                    case .none where direction != .requiredNotAsked:
                        guard case .admitted = end else {
                            Issue.record("\(cell): \(end)")
                            continue
                        }
                    default: #expect(end == .refused(.authenticationFailure), cell)
                    }
                    cells += 1
                }
            }
        }
        #expect(cells == 64 * 9 * 3)
        #expect(bureau.configuration.targets.count == 2)
    }

    private func logIn(
        _ offer: [CHAPAlgorithm], expecting best: CHAPAlgorithm?, _ direction: Direction, _ fault: Fault, _ spelling: Spelling, _ bureau: inout Bureau
    ) throws -> WireLogin.End {
        var login = WireLogin(bureau.nextID())
        try login.say(["InitiatorName=iqn.a", "TargetName=iqn.t", "SessionType=Normal", "AuthMethod=CHAP"], to: &bureau)
        try login.say(["CHAP_A=" + offer.map { "\($0.rawValue)" }.joined(separator: ",")], to: &bureau)
        guard let algorithm = best, login.end == .goesOn else {
            bureau.desk.gone(login.id)
            return login.end
        }
        #expect(login.value("CHAP_A") == "\(algorithm.rawValue)")
        guard let identifier = login.value("CHAP_I").flatMap({ UInt8($0) }), let text = login.value("CHAP_C"), text.hasPrefix("0x") else {
            throw Bureau.Unexpected.noDemandInText
        }
        let demand = CHAPDemand(algorithms: [], identifier: identifier, challenge: bytes(hexadecimal: text.dropFirst(2)))
        #expect(demand.challenge.count >= algorithm.responseLength)
        let other = fault == .replayed ? try bureau.challenged().demand : demand
        let (user, secret) =
            switch fault {
            case .secret: ("a", "b")
            case .user: ("b", "a")
            case .nameInAnotherCase: ("A", "a")
            case .targetsOwnSecret: ("a", "t")
            default: ("a", "a")
            }
        var response = Bureau.answer(user, to: other, algorithm, secret: Bureau.secret(of: secret)).response
        if fault == .truncated { response.removeLast() }
        if fault == .oversize { response.append(0) }
        let ours: [UInt8] = fault == .reflected ? demand.challenge : [1, 2, 3]
        let asks = direction.asks || fault == .reflected
        try login.say(
            ["CHAP_N=\(user)", "CHAP_R=\(spelling.write(response))"] + (asks ? ["CHAP_I=9", "CHAP_C=\(spelling.write(ours))"] : []), isLast: true, to: &bureau)
        bureau.desk.gone(login.id)
        #expect(login.answersJudged == (fault == .truncated || fault == .oversize ? 0 : 1), "what has no length of a response is not even asked about")
        if case .admitted(let said) = login.end {
            let proof = CHAPJudge.response(algorithm, 9, Bureau.secret(of: "t"), ours)
            #expect(said == (direction.asks ? ["CHAP_N=t", "CHAP_R=0x\(hexadecimalDigits(proof))"] : []))
        } else {
            #expect(!login.said.contains { $0.hasPrefix("CHAP_R") }, "whoever is not right is told nothing that a secret has made")
        }
        return login.end
    }
}

// MARK: Who asks again

@Suite struct LoginPhaseTests {
    /// Where a connection stands, and which of `begin`, `authenticate`, `finish`, `sendTargets` and `gone` may be asked of it then.
    private static let table: [(String, permitted: [Bool], reach: @Sendable (inout Bureau, ConnectionID) throws -> Void)] = [
        ("nothing asked yet", [true, false, false, false, true], { _, _ in }),
        ("challenged", [false, true, false, false, true], { bureau, id in _ = try bureau.challenged(id) }),
        ("judged right", [false, false, true, false, true], { bureau, id in
            let demand = try bureau.challenged(id).demand
            _ = try bureau.authenticate(id, Bureau.answer("a", to: demand))
        }),
        ("judged wrong", [true, false, false, false, true], { bureau, id in
            let demand = try bureau.challenged(id).demand
            _ = try bureau.authenticate(id, Bureau.answer("b", to: demand))
        }),
        ("right, but not permitted there", [true, false, false, false, true], { bureau, id in
            let demand = try bureau.challenged(id, target: "iqn.other").demand
            _ = try bureau.authenticate(id, Bureau.answer("a", to: demand))
        }),
        ("a mirror", [true, false, false, false, true], { bureau, id in
            let demand = try bureau.challenged(id).demand
            var answer = Bureau.answer("a", to: demand)
            answer.counterdemand = CHAPAnswer.Counterdemand(identifier: 1, challenge: demand.challenge)
            _ = try bureau.authenticate(id, answer)
        }),
        ("discovering", [false, false, false, true, true], { bureau, id in _ = bureau.begin(id, Bureau.question(nil)) }),
        ("gone", [true, false, false, false, true], { bureau, id in
            _ = try bureau.challenged(id)
            bureau.desk.gone(id)
        }),
    ]

    private static let answer = CHAPAnswer(algorithm: .sha256, name: Array("a".utf8), response: [UInt8](repeating: 0, count: 32), counterdemand: nil)

    @Test("A question that is not one of its connection's phase is not let in, and ends who asks", arguments: table.indices)
    func phases(index: Int) throws {
        let (what, permitted, reach) = Self.table[index]
        var bureau = try Bureau()
        let id = bureau.nextID()
        try reach(&bureau, id)
        let question = Bureau.question()
        let outcome = LoginOutcome(
            identity: question, negotiated: NegotiatedParameters(), expCmdSN: 1, statSN: 1,
            finalResponse: FinalLoginResponse(currentStage: 1, initiatorTaskTag: 0, statSN: 0, text: []))
        let messages: [LoginQuestionMessage] = [.begin(id, question, LoginChannel(portal: 1)), .authenticate(id, Self.answer), .finish(id, outcome), .sendTargets(id, .all), .gone(id)]
        for (message, isPermitted) in zip(messages, permitted) {
            let error: DoorError? = Result { () throws(DoorError) in try bureau.desk.admit(message) }.failure
            #expect((error == nil) == isPermitted, "\(message.row.name) of a connection that is \(what)")
            if let error, case .outOfPhase = error {} else if error != nil { Issue.record("another error: \(error!)") }
        }
    }

    @Test("Whoever answers a challenge again, after a wrong answer or a right one, is not looked at, even where the door would let it in", arguments: ["a", "b"])
    func again(account: String) throws {
        var bureau = try Bureau()
        let (id, demand) = try bureau.challenged()
        _ = try bureau.authenticate(id, Bureau.answer(account, to: demand))
        let right = Bureau.answer("a", to: demand)
        #expect(throws: DoorError.self) { try bureau.desk.admit(.authenticate(id, right)) }
        #expect(throws: DoorError.self) { try bureau.authenticate(id, right) }
        // Nor does the attempt bring it back.
        #expect(throws: DoorError.self) { try bureau.authenticate(id, right) }
    }

    @Test("Whoever begins again with the number of a connection that answered wrongly gets another challenge: the right answer to the old one is wrong")
    func afresh() throws {
        var bureau = try Bureau()
        let (id, old) = try bureau.challenged()
        _ = try bureau.authenticate(id, Bureau.answer("b", to: old))
        let fresh = try bureau.challenged(id).demand
        #expect(fresh.challenge != old.challenge)
        guard case .refuse(.authenticationFailure, _) = try bureau.authenticate(id, Bureau.answer("a", to: old)) else {
            Issue.record("the old challenge still counts")
            return
        }
    }
}

extension Result {
    fileprivate var failure: Failure? { if case .failure(let error) = self { error } else { nil } }
}

// MARK: The same in time

@Suite struct CHAPWorkTests {
    @Test("Each judgement makes three responses with that challenge, whoever answers what", arguments: CHAPAlgorithm.allCases)
    func digests(algorithm: CHAPAlgorithm) throws {
        let judge = CHAPJudge()
        let demand = judge.demand()
        var bureau = try Bureau(isMutual: true)
        let (name, target) = (try AccountName(Array("a".utf8)), bureau.configuration.account(try AccountName(Array("t".utf8))))
        let one = bureau.configuration.account(name)
        _ = try bureau.configuration.addSecret(Bureau.secret(of: "b"), to: name)
        let two = bureau.configuration.account(name)
        for (account, secrets) in [(nil, []), (one, ["a"]), (two, ["a", "b"])] as [(Account?, [String])] {
            for outgoing in [nil, target] {
                for answered in ["a", "b", "t", "nobody"] {
                    var responses: [Int] = []
                    let answer = Bureau.answer("a", to: demand, algorithm, secret: Bureau.secret(of: answered))
                    let isRight = judge.isRight(answer, to: demand, account: account, outgoing: outgoing) { used, identifier, secret, challenge in
                        #expect(used == algorithm && identifier == demand.identifier && challenge == demand.challenge)
                        responses.append(secret.count)
                        return CHAPJudge.response(used, identifier, secret, challenge)
                    }
                    #expect(isRight == (secrets.contains(answered)))
                    #expect(responses.count == 3 && responses.allSatisfy { $0 > 0 }, "\(secrets) \(answered)")
                }
            }
        }
    }

    /// Nanoseconds of each of three logins that fail, by turns; the median of each.
    private func measure(_ rounds: Int) throws -> (medians: [Duration], digest: Duration) {
        var bureau = try Bureau()
        // An unknown user, a wrong secret, an unknown target; names of one length.
        let kinds: [(user: String, target: String)] = [("z", "iqn.t"), ("a", "iqn.t"), ("a", "iqn.u")]
        var times: [[Duration]] = [[], [], []]
        var digests: [Duration] = []
        let wrong = Bureau.secret(of: "x")
        let clock = ContinuousClock()
        for round in 0..<rounds {
            // The order changes, so that nobody always comes after the same one.
            for step in 0..<3 {
                let kind = (step * (round % 2 + 1) + round) % 3
                let (id, demand) = try bureau.challenged(target: kinds[kind].target)
                let answer = Bureau.answer(kinds[kind].user, to: demand, secret: wrong)
                let start = clock.now
                let judgement = try bureau.authenticate(id, answer)
                times[kind].append(clock.now - start)
                guard case .refuse(.authenticationFailure, _) = judgement else { throw Bureau.Unexpected.noChallenge }
            }
            let demand = CHAPDemand(algorithms: [], identifier: 1, challenge: [UInt8](repeating: 1, count: 48))
            let start = clock.now
            _ = Bureau.answer("a", to: demand, secret: wrong)
            digests.append(clock.now - start)
        }
        return (times.map { $0.sorted()[$0.count / 2] }, digests.sorted()[digests.count / 2])
    }

    @Test("An unknown user, a wrong secret and an unknown target take the same time to judge, to less than a digest")
    func time() throws {
        _ = try measure(200)
        // Others may run beside: a digest that is missing is missing each time.
        var found = try measure(2000)
        for _ in 0..<4 where found.medians.max()! - found.medians.min()! >= found.digest * 3 / 4 { found = try measure(2000) }
        let (medians, digest) = found
        print("""
            judged in the median: an unknown user in \(medians[0]), a wrong secret in \(medians[1]), an unknown target in \(medians[2]) \
            (the slowest to the quickest: \(medians.max()! / medians.min()!)); one digest takes \(digest)
            """)
        #expect(medians.max()! - medians.min()! < digest * 3 / 4)
    }
}
