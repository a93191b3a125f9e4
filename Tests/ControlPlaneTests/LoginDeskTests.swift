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

/// One target that admits 127.0.0.9 under the name iqn.a, and a desk that is asked about it.
private final class World {
    var configuration: Configuration
    var sessions = SessionTable()
    var desk = LoginDesk()
    let tid = TargetID(rawValue: 1)!

    init(addresses: [String] = ["127.0.0.9"], names: [String] = ["iqn.a"]) throws {
        configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](repeating: 7, count: 16)))
        _ = try configuration.newTarget(tid, name: Array("iqn.t".utf8))
        _ = try configuration.bind(
            addresses.map { try AddressRule(parsing: Array($0.utf8)) }, names.map { try NameRule(parsing: Array($0.utf8)) }, to: tid)
    }

    func question(_ initiator: String = "iqn.a", target: String? = "iqn.t", tsih: UInt16 = 0, cid: UInt16 = 0, isid: UInt64 = 1) -> LoginQuestion {
        LoginQuestion(
            initiatorName: name(initiator), sessionType: target == nil ? .discovery : .normal, targetName: target.map(name),
            isid: ISID(rawValue: isid), tsih: tsih, cid: cid)
    }

    func begin(_ question: LoginQuestion, id: UInt64 = 1, peer: SocketAddress = peer) -> LoginStatus? {
        switch desk.begin(ConnectionID(rawValue: id), question, peer: peer, local: here, configuration, sessions) {
        case .proceed: nil
        case .refuse(let status, _): status
        }
    }

    func outcome(_ question: LoginQuestion) -> LoginOutcome {
        var negotiated = NegotiatedParameters()
        negotiated.maxRecvDataSegmentLength = 262_144
        negotiated.maxXmitDataSegmentLength = 8192
        negotiated.queueDepth = 128
        return LoginOutcome(
            identity: question, negotiated: negotiated, expCmdSN: 1, statSN: 1,
            finalResponse: FinalLoginResponse(currentStage: 1, initiatorTaskTag: 0, statSN: 0, text: []))
    }

    func finish(_ outcome: LoginOutcome, id: UInt64 = 1, peer: SocketAddress = peer) throws(DoorError) -> LoginDesk.Finish {
        try desk.finish(ConnectionID(rawValue: id), outcome, peer: peer, configuration, &sessions)
    }

    func logIn(_ question: LoginQuestion, id: UInt64 = 1) throws -> UInt16 {
        #expect(begin(question, id: id) == nil)
        guard case .grant(let grant) = try finish(outcome(question), id: id) else {
            Issue.record("not granted")
            return 0
        }
        return grant.tsih
    }
}

@Suite struct LoginDeskTests {
    @Test("Name and address must both be admitted, and refusal looks the same as absence")
    func rules() throws {
        let world = try World()
        #expect(world.begin(world.question()) == nil)
        #expect(world.begin(world.question("IQN.A"), id: 2) == nil)
        #expect(world.begin(world.question("iqn.b"), id: 3) == .notFound)
        #expect(world.begin(world.question(), id: 4, peer: SocketAddress("127.0.0.8:1")!) == .notFound)
        #expect(world.begin(world.question(target: "iqn.absent"), id: 5) == .notFound)
        let bare = try World(addresses: [], names: [])
        #expect(bare.begin(bare.question()) == .notFound)
    }

    @Test("A bound account refuses every login until somebody can authenticate, on the target and on discovery")
    func accounts() throws {
        let world = try World()
        let account = try AccountName(Array("u".utf8))
        _ = try world.configuration.newAccount(account, secret: Secret(Array("a secret of users".utf8)))
        _ = try world.configuration.bindAccount(account, to: world.tid, outgoing: false)
        #expect(world.begin(world.question()) == .authenticationFailure)
        #expect(world.begin(world.question(target: nil), id: 2) == nil)
        _ = try world.configuration.bindAccount(account, to: nil, outgoing: false)
        #expect(world.begin(world.question(target: nil), id: 3) == .authenticationFailure)
    }

    @Test("Whoever takes the place of a session, or joins it, is who that session's initiator has shown to be; the session lives on untouched")
    func identity() throws {
        let world = try World(addresses: ["ALL"], names: [])
        let (a, b) = (try AccountName(Array("a".utf8)), try AccountName(Array("b".utf8)))
        func authenticated(_ id: UInt64, as account: AccountName) -> LoginStatus? {
            switch world.desk.authenticated(ConnectionID(rawValue: id), as: account, world.configuration, world.sessions) {
            case .proceed: nil
            case .refuse(let status, _): status
            }
        }
        func finish(_ question: LoginQuestion, id: UInt64) throws -> (tsih: UInt16, refusal: LoginStatus?) {
            switch try world.finish(world.outcome(question), id: id) {
            case .grant(let grant): (grant.tsih, nil)
            case .refuse(let status, _): (0, status)
            }
        }
        let (mine, elsewhere, theirs) = (world.question(), world.question(isid: 2), world.question("iqn.b"))
        for (id, question) in [(1, mine), (2, mine), (3, mine), (4, theirs), (5, elsewhere), (6, mine)] as [(UInt64, LoginQuestion)] {
            #expect(world.begin(question, id: id) == nil)
        }
        for account in [a, b] {
            _ = try world.configuration.newAccount(account, secret: Secret(Array("a secret of \(account)".utf8)))
            _ = try world.configuration.bindAccount(account, to: world.tid, outgoing: false)
        }
        #expect(authenticated(1, as: a) == nil)
        let tsih = try finish(mine, id: 1).tsih
        #expect(tsih != 0 && world.sessions.began(tsih))
        // B with A's name and ISID.
        #expect(authenticated(2, as: b) == .notFound)
        #expect(throws: DoorError.self) { try finish(mine, id: 2) }
        // Nobody with them.
        #expect(try finish(mine, id: 3).refusal == .authenticationFailure)
        // B as itself.
        #expect(authenticated(4, as: b) == nil)
        #expect(try finish(theirs, id: 4).refusal == nil)
        // B with A's name and another ISID: until the name is A's.
        #expect(authenticated(5, as: b) == nil)
        _ = try world.configuration.bindAccount(a, to: world.tid, outgoing: false, for: name("iqn.a"))
        #expect(try finish(elsewhere, id: 5).refusal == .notFound)
        #expect(world.sessions.records.count == 2)
        // A itself takes its place again.
        #expect(authenticated(6, as: a) == nil)
        #expect(try finish(mine, id: 6).refusal == nil)
        // Without accounts, the session stays that of who has shown to be A.
        for account in [a, b] { _ = try world.configuration.unbindAccount(account, from: world.tid, outgoing: false) }
        #expect(world.begin(mine, id: 7) == .notFound)
        #expect(world.begin(world.question(tsih: tsih), id: 8) == .sessionDoesNotExist)
        #expect(world.begin(elsewhere, id: 9) == nil)
    }

    @Test("A TSIH is that of the initiator's own session with the target, and its connection stays the only one")
    func tsih() throws {
        let world = try World(addresses: ["ALL"], names: [])
        let tsih = try world.logIn(world.question())
        #expect(tsih != 0)
        #expect(world.begin(world.question(tsih: tsih), id: 2) == nil)
        #expect(world.begin(world.question(tsih: tsih, cid: 1), id: 3) == .tooManyConnections)
        #expect(world.begin(world.question(tsih: tsih &+ 1), id: 4) == .sessionDoesNotExist)
        #expect(world.begin(world.question("iqn.b", tsih: tsih), id: 5) == .sessionDoesNotExist)
        #expect(world.begin(world.question(tsih: tsih, isid: 2), id: 6) == .sessionDoesNotExist)
    }

    @Test("What login says at the end must be what began, within what was offered")
    func finish() throws {
        let world = try World()
        #expect(throws: DoorError.self, "nothing began") { try world.finish(world.outcome(world.question())) }
        #expect(world.begin(world.question()) == nil)
        #expect(throws: DoorError.self, "somebody else") { try world.finish(world.outcome(world.question("iqn.b"))) }
        #expect(world.begin(world.question()) == nil)
        var greedy = world.outcome(world.question())
        greedy.negotiated.queueDepth = 512
        #expect(throws: DoorError.self, "more than offered") { try world.finish(greedy) }
        #expect(world.begin(world.question()) == nil)
        #expect(throws: DoorError.self, "another connection") {
            try world.finish(world.outcome(world.question()), peer: SocketAddress("127.0.0.9:40001")!)
        }
        #expect(throws: DoorError.self, "a grant is used up by one attempt") { try world.finish(world.outcome(world.question())) }
    }

    @Test("Rules that change during a login count at its end")
    func changedRules() throws {
        let world = try World()
        #expect(world.begin(world.question()) == nil)
        _ = try world.configuration.unbind([], [try NameRule(parsing: Array("iqn.a".utf8))], from: world.tid)
        _ = try world.configuration.bind([], [try NameRule(parsing: Array("iqn.other".utf8))], to: world.tid)
        guard case .refuse(.notFound, _) = try world.finish(world.outcome(world.question())) else {
            Issue.record("granted")
            return
        }
        #expect(world.sessions.records.isEmpty)
    }

    @Test("Each question has its phase: out of it, the asker is not our login process")
    func phases() throws {
        let world = try World()
        let id = ConnectionID(rawValue: 1)
        let (begin, finish, list) = (
            LoginQuestionMessage.begin(id, world.question()), LoginQuestionMessage.finish(id, world.outcome(world.question())),
            LoginQuestionMessage.sendTargets(id, .all)
        )
        #expect(throws: Never.self) { try world.desk.admit(begin) }
        #expect(throws: DoorError.self) { try world.desk.admit(finish) }
        #expect(throws: DoorError.self) { try world.desk.admit(list) }
        #expect(world.begin(world.question()) == nil)
        #expect(throws: DoorError.self) { try world.desk.admit(begin) }
        #expect(throws: DoorError.self) { try world.desk.admit(list) }
        #expect(throws: Never.self) { try world.desk.admit(finish) }
        world.desk.gone(id)
        #expect(throws: Never.self) { try world.desk.admit(begin) }
        #expect(world.begin(world.question(target: nil)) == nil)
        #expect(throws: DoorError.self) { try world.desk.admit(finish) }
        #expect(throws: Never.self) { try world.desk.admit(list) }
    }

    @Test("A target has so many sessions and no more; a session that takes another's place is no more")
    func sessionsPerTarget() throws {
        let world = try World(addresses: ["ALL"], names: [])
        world.desk = LoginDesk(sessionsPerTarget: 3)
        func finish(_ question: LoginQuestion) throws -> LoginStatus? {
            #expect(world.begin(question, id: question.isid.rawValue) == nil)
            switch try world.finish(world.outcome(question), id: question.isid.rawValue) {
            case .grant: return nil
            case .refuse(let status, _): return status
            }
        }
        let first = try world.logIn(world.question(isid: 1))
        #expect(try finish(world.question(isid: 2)) == nil, "below the limit")
        #expect(try finish(world.question(isid: 3)) == nil, "at the limit")
        #expect(try finish(world.question(isid: 4)) == .outOfResources, "above it")
        #expect(try finish(world.question("iqn.b", isid: 1)) == .outOfResources, "another initiator's port")
        #expect(try finish(world.question(tsih: first, isid: 1)) == nil, "the same session on a new connection")
        #expect(try finish(world.question(isid: 2)) == nil, "in the place of its own")
        #expect(try finish(world.question(isid: 2)) == .outOfResources, "but not many at once")
        #expect(world.sessions.sessions(of: world.tid).count == 4)

        // Other targets have their own.
        let other = try #require(TargetID(rawValue: 2))
        _ = try world.configuration.newTarget(other, name: Array("iqn.u".utf8))
        _ = try world.configuration.bind([try AddressRule(parsing: Array("ALL".utf8))], [], to: other)
        #expect(try finish(world.question(target: "iqn.u", isid: 9)) == nil)

        for tsih in world.sessions.sessions(of: world.tid) where tsih != first { _ = world.sessions.ended(tsih, neverBegan: true) }
        #expect(try finish(world.question(isid: 4)) == nil, "there is room again")
        world.sessions.removeAll()
        for isid in 1...3 { #expect(try finish(world.question(isid: UInt64(isid))) == nil) }
        #expect(try finish(world.question(isid: 4)) == .outOfResources)
    }

    @Test("Discovery lists what this initiator may log in to, at the address that it has reached")
    func discovery() throws {
        let world = try World()
        #expect(world.begin(world.question(target: nil), id: 1) == nil)
        #expect(world.begin(world.question("iqn.b", target: nil), id: 2) == nil)
        let mine = world.desk.targets(ConnectionID(rawValue: 1), .all, world.configuration)
        #expect(mine == [DiscoveredTarget(name: name("iqn.t"), addresses: ["127.0.0.1:3260"], portalGroupTag: 1)])
        #expect(world.desk.targets(ConnectionID(rawValue: 1), .name(name("iqn.u")), world.configuration).isEmpty)
        #expect(world.desk.targets(ConnectionID(rawValue: 2), .all, world.configuration).isEmpty)
        #expect(world.desk.unwelcomeDiscoveries(world.configuration).isEmpty)
        let account = try AccountName(Array("u".utf8))
        _ = try world.configuration.newAccount(account, secret: Secret(Array("a secret of users".utf8)))
        _ = try world.configuration.bindAccount(account, to: nil, outgoing: false)
        #expect(world.desk.targets(ConnectionID(rawValue: 1), .all, world.configuration).isEmpty)
        #expect(world.desk.unwelcomeDiscoveries(world.configuration).contains(ConnectionID(rawValue: 1)))
    }
}

@Suite struct SessionTableTests {
    @Test("TSIHs are never 0 and never those of living sessions, also when the numbers begin anew")
    func numbers() throws {
        let world = try World(addresses: ["ALL"], names: [])
        let first = try world.logIn(world.question(isid: 1))
        var last = first
        for round in 0..<70_000 {
            let tsih = world.sessions.grant(world.question(isid: 2), tid: world.tid, peer: peer, local: here)
            last = try #require(tsih)
            guard last != 0, last != first else {
                Issue.record("round \(round)")
                return
            }
            _ = world.sessions.ended(last, neverBegan: true)
        }
        #expect(world.sessions.records.count == 1)
    }

    @Test("Data may only say what can have happened")
    func order() throws {
        let world = try World(addresses: ["ALL"], names: [])
        let tsih = try world.logIn(world.question())
        let other = tsih &+ 1
        let early = (world.sessions.began(other), world.sessions.ended(tsih, neverBegan: false))
        #expect(early == (false, false))
        let once = (world.sessions.began(tsih), world.sessions.began(tsih), world.sessions.ended(tsih, neverBegan: true))
        #expect(once == (true, false, false))
        #expect(world.sessions.served.map(\.tsih) == [tsih])
        // The same session on a new connection: the old end comes first.
        let again = try world.logIn(world.question(tsih: tsih), id: 2)
        #expect(again == tsih)
        let replaced = (world.sessions.ended(tsih, neverBegan: false), world.sessions.began(tsih), world.sessions.ended(tsih, neverBegan: false))
        #expect(replaced == (true, true, true))
        #expect(world.sessions.records.isEmpty)
    }
}

@Suite struct InstallationTests {
    @Test("An identity is 32 hexadecimal digits and a line's end, and nothing else", arguments: ["", "00\n", String(repeating: "0", count: 31) + "\n", String(repeating: "g", count: 32) + "\n", String(repeating: "0", count: 32), String(repeating: "0", count: 33) + "\n"])
    func torn(text: String) {
        #expect(Installation.parse(Array(text.utf8)) == nil)
        #expect(Installation.parse(Array("000102030405060708090a0b0c0d0eff\n".utf8)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255])
    }
}
