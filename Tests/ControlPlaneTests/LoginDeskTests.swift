import Access
import Crypto
import Door
import ISCSI
import Model
import Reactor
import SCSI
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

    func begin(_ question: LoginQuestion, id: UInt64 = 1, peer: SocketAddress = peer, channel: Channel = .clear) -> LoginStatus? {
        switch desk.begin(ConnectionID(rawValue: id), question, peer: peer, local: here, channel: channel, configuration, sessions) {
        case .proceed(_, _, .none): nil
        case .proceed(_, _, .chap(let demand)): demanded(demand, id)
        case .refuse(let status, _): status
        }
    }

    /// Challenges that have not been answered.
    var demands: [UInt64: CHAPDemand] = [:]

    private func demanded(_ demand: CHAPDemand, _ id: UInt64) -> LoginStatus? {
        demands[id] = demand
        return nil
    }

    /// Answers the challenge of a connection, once.
    func authenticate(
        _ id: UInt64, as account: String, secret: String? = nil, _ algorithm: CHAPAlgorithm = .sha256, challenge: [UInt8]? = nil,
        change: (inout CHAPAnswer) -> Void = { _ in }
    ) throws -> LoginDesk.Judgement {
        let remembered = demands.removeValue(forKey: id)
        let demand = try #require(remembered, "connection \(id) has a challenge")
        let response = CHAPJudge.response(algorithm, demand.identifier, Secret(Array((secret ?? "a secret of \(account)").utf8)), challenge ?? demand.challenge)
        var answer = CHAPAnswer(algorithm: algorithm, name: Array(account.utf8), response: response, counterdemand: nil)
        change(&answer)
        return try desk.authenticate(ConnectionID(rawValue: id), answer, configuration, sessions)
    }

    func newAccount(_ name: String, boundTo tid: TargetID?, outgoing: Bool = false, for initiator: String? = nil) throws {
        let account = try AccountName(Array(name.utf8))
        if configuration.account(account) == nil { _ = try configuration.newAccount(account, secret: Secret(Array("a secret of \(name)".utf8))) }
        _ = try configuration.bindAccount(account, to: tid, outgoing: outgoing, for: initiator.map { ControlPlaneTests.name($0) })
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

    /// What data says of the last login that has been granted to a session.
    func began(_ tsih: UInt16) -> Bool { sessions.began(tsih, grant: number(tsih)) }
    func ended(_ tsih: UInt16, neverBegan: Bool) -> Bool { sessions.ended(tsih, grant: number(tsih), neverBegan: neverBegan) != nil }
    private func number(_ tsih: UInt16) -> UInt64 { sessions.records[tsih].map { $0.pending.last?.number ?? $0.login.number } ?? 0 }

    func logIn(_ question: LoginQuestion, id: UInt64 = 1, peer: SocketAddress = peer, channel: Channel = .clear) throws -> UInt16 {
        #expect(begin(question, id: id, peer: peer, channel: channel) == nil)
        guard case .grant(let grant) = try finish(outcome(question), id: id, peer: peer) else {
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

    @Test("What TLS has proved is kept with the session, and only who has proved it again takes its place")
    func channels() throws {
        let world = try World()
        let proven = Channel.tls(.initiator(name("iqn.a")))
        #expect(world.begin(world.question(), id: 1, channel: .tls(.initiator(name("iqn.b")))) == .notFound)
        #expect(world.begin(world.question(target: nil), id: 2, channel: .tls(.stranger)) == .notFound)
        let tsih = try world.logIn(world.question(), id: 3, channel: proven)
        #expect(world.sessions.records[tsih]?.login.channel == proven)
        #expect(world.begin(world.question(), id: 4) == .notFound)
        #expect(world.begin(world.question(), id: 5, channel: .tls(.anybody)) == .notFound)
        #expect(world.begin(world.question(tsih: tsih), id: 6) == .sessionDoesNotExist)
        #expect(world.begin(world.question(tsih: tsih), id: 7, channel: proven) == nil)
        #expect(world.begin(world.question(), id: 8, channel: proven) == nil)
        // Who has shown less than it could may show more.
        let other = try world.logIn(world.question(isid: 2), id: 9)
        #expect(world.sessions.records[other]?.login.channel == .clear)
        #expect(world.begin(world.question(isid: 2), id: 10, channel: proven) == nil)
    }

    @Test("A session is of the portal group by which it came: the same initiator port through another takes nobody's place")
    func portalGroups() throws {
        let world = try World()
        _ = try world.configuration.addPortal(Portal(PortalAddress(parsing: Array("127.0.0.1:3270".utf8)), [PortalParameter(name: Array("tpgt".utf8), value: Array("7".utf8))]))
        let other = SocketAddress("127.0.0.1:3270")!
        func grant(_ id: UInt64, at local: SocketAddress, tsih: UInt16 = 0) throws -> SessionGrant? {
            let id = ConnectionID(rawValue: id), question = world.question(tsih: tsih)
            guard case .proceed = world.desk.begin(id, question, peer: peer, local: local, world.configuration, world.sessions) else { return nil }
            guard case .grant(let grant) = try world.desk.finish(id, world.outcome(question), peer: peer, world.configuration, &world.sessions) else { return nil }
            return grant
        }
        let first = try #require(try grant(1, at: here)), second = try #require(try grant(2, at: other))
        #expect(first.portalGroupTag == 1 && second.portalGroupTag == 7 && first.tsih != second.tsih)
        func nexus(_ tag: UInt16) -> Int { world.sessions.ofSameNexus(as: world.question(), tid: world.tid, portalGroupTag: tag).count }
        #expect(nexus(1) == 1 && nexus(7) == 1 && nexus(2) == 0)
        // Nor is it continued by another one.
        #expect(try grant(3, at: here, tsih: second.tsih) == nil)
        #expect(try grant(4, at: other, tsih: second.tsih)?.tsih == second.tsih)
    }

    @Test("A target that requires TLS is neither listed nor reachable in clear, and what a portal advertises is what its visitors are told")
    func portals() throws {
        let world = try World()
        _ = try world.configuration.updateTarget(world.tid, name: Array("RequireTLS".utf8), value: Array("Yes".utf8))
        _ = try world.configuration.addPortal(Portal(PortalAddress(parsing: Array("0.0.0.0:3260".utf8)), [
            PortalParameter(name: Array("advertise".utf8), value: Array("192.0.2.1:860".utf8)), PortalParameter(name: Array("tpgt".utf8), value: Array("7".utf8)),
        ]))
        for (id, channel, status) in [(1, Channel.clear, LoginStatus.notFound), (2, .tls(.anybody), nil)] as [(UInt64, Channel, LoginStatus?)] {
            #expect(world.begin(world.question(), id: id, channel: channel) == status)
            #expect(world.begin(world.question(target: nil), id: id + 10, channel: channel) == nil)
            let found = world.desk.targets(ConnectionID(rawValue: id + 10), .all, world.configuration)
            #expect(found == (status == nil ? [DiscoveredTarget(name: name("iqn.t"), addresses: ["192.0.2.1:860"], portalGroupTag: 7)] : []))
        }
        guard case .proceed(_, portalGroupTag: 7, .none) = world.desk.begin(
            ConnectionID(rawValue: 3), world.question(), peer: peer, local: here, channel: .tls(.anybody), world.configuration, world.sessions)
        else {
            Issue.record("not the portal's tag")
            return
        }
        // The portal of just this address goes before that of all addresses.
        _ = try world.configuration.addPortal(Portal(parsing: Array("127.0.0.1:3260".utf8)))
        #expect(world.desk.targets(ConnectionID(rawValue: 12), .all, world.configuration).map(\.addresses) == [["127.0.0.1:3260"]])
    }

    @Test("A bound account refuses every login until somebody can authenticate, on the target and on discovery")
    func accounts() throws {
        let world = try World()
        let account = try AccountName(Array("u".utf8))
        _ = try world.configuration.newAccount(account, secret: Secret(Array("a secret of users".utf8)))
        _ = try world.configuration.bindAccount(account, to: world.tid, outgoing: false)
        #expect(world.begin(world.question()) == nil && world.demands[1] != nil)
        #expect(world.begin(world.question(target: nil), id: 2) == nil && world.demands[2] == nil)
        _ = try world.configuration.bindAccount(account, to: nil, outgoing: false)
        #expect(world.begin(world.question(target: nil), id: 3) == nil && world.demands[3] != nil)
        #expect(throws: DoorError.self) { try world.finish(world.outcome(world.question())) }
    }

    @Test("Whoever takes the place of a session, or joins it, is who that session's initiator has shown to be; the session lives on untouched")
    func identity() throws {
        let world = try World(addresses: ["ALL"], names: [])
        func authenticated(_ id: UInt64, as account: String) throws -> LoginStatus? { try world.authenticate(id, as: account).refusal }
        func finish(_ question: LoginQuestion, id: UInt64) throws -> (tsih: UInt16, refusal: LoginStatus?) {
            switch try world.finish(world.outcome(question), id: id) {
            case .grant(let grant): (grant.tsih, nil)
            case .refuse(let status, _): (0, status)
            }
        }
        let (mine, elsewhere, theirs) = (world.question(), world.question(isid: 2), world.question("iqn.b"))
        for account in ["a", "b"] { try world.newAccount(account, boundTo: world.tid) }
        for (id, question) in [(1, mine), (2, mine), (3, mine), (4, theirs), (5, elsewhere), (6, mine)] as [(UInt64, LoginQuestion)] {
            #expect(world.begin(question, id: id) == nil)
        }
        #expect(try authenticated(1, as: "a") == nil)
        let tsih = try finish(mine, id: 1).tsih
        #expect(tsih != 0 && world.began(tsih))
        // B with A's name and ISID.
        #expect(try authenticated(2, as: "b") == .notFound)
        #expect(throws: DoorError.self) { try finish(mine, id: 2) }
        // Nobody with them.
        #expect(throws: DoorError.self) { try finish(mine, id: 3) }
        // B as itself.
        #expect(try authenticated(4, as: "b") == nil)
        #expect(try finish(theirs, id: 4).refusal == nil)
        // B with A's name and another ISID: until the name is A's.
        #expect(try authenticated(5, as: "b") == nil)
        _ = try world.configuration.bindAccount(AccountName(Array("a".utf8)), to: world.tid, outgoing: false, for: name("iqn.a"))
        #expect(try finish(elsewhere, id: 5).refusal == .notFound)
        #expect(world.sessions.records.count == 2)
        // A itself takes its place again.
        #expect(try authenticated(6, as: "a") == nil)
        #expect(try finish(mine, id: 6).refusal == nil)
        // Without accounts, the session stays that of who has shown to be A.
        for account in ["a", "b"] { _ = try world.configuration.unbindAccount(AccountName(Array(account.utf8)), from: world.tid, outgoing: false) }
        #expect(world.begin(mine, id: 7) == nil)
        #expect(try authenticated(7, as: "b") == .notFound)
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
            LoginQuestionMessage.begin(id, world.question(), LoginChannel(portal: 1)), LoginQuestionMessage.finish(id, world.outcome(world.question())),
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
        #expect(world.sessions.records.filter { $0.value.tid == world.tid }.map(\.key).count == 4)

        // Other targets have their own.
        let other = try #require(TargetID(rawValue: 2))
        _ = try world.configuration.newTarget(other, name: Array("iqn.u".utf8))
        _ = try world.configuration.bind([try AddressRule(parsing: Array("ALL".utf8))], [], to: other)
        #expect(try finish(world.question(target: "iqn.u", isid: 9)) == nil)

        let granted = world.sessions.records.filter { $0.value.tid == world.tid }.map(\.key)
        for tsih in granted where tsih != first { _ = world.ended(tsih, neverBegan: true) }
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
        #expect(Set(world.desk.discovering) == [ConnectionID(rawValue: 1), ConnectionID(rawValue: 2)])
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
            last = try #require(tsih).tsih
            guard last != 0, last != first else {
                Issue.record("round \(round)")
                return
            }
            _ = world.ended(last, neverBegan: true)
        }
        #expect(world.sessions.records.count == 1)
    }

    @Test("Data may only say what can have happened")
    func order() throws {
        let world = try World(addresses: ["ALL"], names: [])
        let tsih = try world.logIn(world.question())
        let other = tsih &+ 1
        let early = (world.began(other), world.ended(tsih, neverBegan: false))
        #expect(early == (false, false))
        let once = (world.began(tsih), world.began(tsih), world.ended(tsih, neverBegan: true))
        #expect(once == (true, false, false))
        #expect(world.sessions.served.map(\.tsih) == [tsih])
        // The same session on a new connection: the old end comes first.
        let again = try world.logIn(world.question(tsih: tsih), id: 2)
        #expect(again == tsih)
        let served = try #require(world.sessions.records[tsih]?.served).number
        #expect(!world.began(tsih), "while the old one serves")
        #expect(world.sessions.ended(tsih, grant: served + 1, neverBegan: false) == nil, "the new one does not serve yet")
        let old = world.sessions.ended(tsih, grant: served, neverBegan: false)
        #expect(old?.number == served)
        let replaced = (world.began(tsih), world.ended(tsih, neverBegan: false))
        #expect(replaced == (true, true))
        #expect(world.sessions.records.isEmpty)
    }

    @Test("A login that continues a session is nobody until it begins: the session is whose it was, and stays that if it comes to nothing")
    func pending() throws {
        let world = try World(addresses: ["127.0.0.8", "127.0.0.9"], names: [])
        let elsewhere = SocketAddress("127.0.0.8:1")!
        let few = LUNMask([LUNMask.Run(1...1, .read)])!
        _ = try world.configuration.bind([AddressRule(parsing: Array("127.0.0.8".utf8))], [], mask: few, to: world.tid)
        let tsih = try world.logIn(world.question())
        _ = world.began(tsih)
        func record() throws -> SessionRecord { try #require(world.sessions.records[tsih]) }
        #expect(try world.logIn(world.question(tsih: tsih), id: 2, peer: elsewhere) == tsih)
        #expect(try world.logIn(world.question(tsih: tsih), id: 3, peer: elsewhere) == tsih)
        #expect(try record().login.peer == peer && record().login.mask == .all && record().pending.map(\.peer) == [elsewhere, elsewhere])
        // The last one comes to nothing before the one in front of it.
        let (first, last) = try (record().pending[0].number, record().pending[1].number)
        #expect(world.sessions.ended(tsih, grant: last, neverBegan: true)?.peer == elsewhere)
        #expect(try record().login.peer == peer && record().pending.map(\.number) == [first])
        #expect(world.sessions.ended(tsih, grant: first, neverBegan: true) != nil)
        #expect(try record().login.peer == peer && record().login.mask == .all && record().logins.count == 1)
        // One that begins is the session from then on; the end of the old one is the old one's.
        #expect(try world.logIn(world.question(tsih: tsih), id: 4, peer: elsewhere) == tsih)
        let served = try #require(record().served).number
        #expect(world.sessions.ended(tsih, grant: served, neverBegan: false)?.peer == peer)
        #expect(world.began(tsih))
        #expect(try record().login.peer == elsewhere && record().login.mask == few)
    }
}

@Suite struct BlameTests {
    private static func hostileWords() -> [UInt64] {
        var random = SystemRandomNumberGenerator()
        return [0, 1, 1 << 16, 2 << 16 | 1, .max, .max - 1, 1 << 63] + (0..<2000).map { _ in random.next() >> UInt64.random(in: 0...63, using: &random) }
    }

    @Test("Whatever the page says, data accuses the peer of a session of its, or a newcomer where there are some, or nobody")
    func data() throws {
        let world = try World()
        func accused(_ word: UInt64, hasNewcomers: Bool = false) -> SocketAddress? { Culprit(word: word, hung: false).peer(in: world.sessions, hasNewcomers: hasNewcomers) }
        #expect(Self.hostileWords().allSatisfy { accused($0) == nil })
        let tsih = try world.logIn(world.question())
        for hasNewcomers in [false, true] {
            #expect(accused(UInt64(tsih), hasNewcomers: hasNewcomers) == peer)
            for word in Self.hostileWords() where word != UInt64(tsih) {
                #expect(accused(word, hasNewcomers: hasNewcomers).map { Source($0) } == (hasNewcomers ? Source(word: word) : nil))
            }
        }
        // No session's word is a source's.
        for word in 0...UInt64(UInt16.max) where Source(word: word) != nil { Issue.record("\(word) is both") }
        let newcomer = try #require(SocketAddress("192.0.2.7:1"))
        #expect(accused(Source(newcomer).word, hasNewcomers: true).map { Source($0) } == Source(newcomer))
    }

    @Test("Whatever the page says, login accuses one source or nobody, whoever is exempt does not wait, and nobody waits longer than for guessing")
    func login() throws {
        let exempt = try AddressRule(parsing: Array("0.0.0.0/0".utf8))
        for word in Self.hostileWords() {
            guard let peer = Culprit(word: word, hung: false).newcomer else { continue }
            var penalties = Penalties(exempt: [exempt])
            for _ in 0..<20 { _ = penalties.note(.crash, from: peer, at: 1 << 40) }
            let keptOut = penalties.keptOut(at: 1 << 40)
            #expect(Set(keptOut.map(\.source)).isSubset(of: [Source(peer), Source(peer).site].compactMap(\.self)))
            #expect(peer.isIPv6 != keptOut.isEmpty)
            #expect(keptOut.allSatisfy { $0.until <= 1 << 40 + Penalties.most * 1_000_000 })
        }
    }
}

@Suite struct InstallationTests {
    @Test("An identity is 32 hexadecimal digits and a line's end, and nothing else", arguments: ["", "00\n", String(repeating: "0", count: 31) + "\n", String(repeating: "g", count: 32) + "\n", String(repeating: "0", count: 32), String(repeating: "0", count: 33) + "\n"])
    func torn(text: String) {
        #expect(Installation.parse(Array(text.utf8)) == nil)
        #expect(Installation.parse(Array("000102030405060708090a0b0c0d0eff\n".utf8)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255])
    }
}

extension LoginDesk.Judgement {
    fileprivate var refusal: LoginStatus? { if case .refuse(let status, _) = self { status } else { nil } }
    fileprivate var isDropped: Bool { if case .drop = self { true } else { false } }
    fileprivate var proof: CHAPProof? { if case .authenticated(_, let proof) = self { proof } else { nil } }
    fileprivate var isAdmitted: Bool { if case .authenticated = self { true } else { false } }
}

/// What CHAP lets in. World's target has the accounts “a” (incoming) and “t” (outgoing), each with a secret of its own.
@Suite struct CHAPDeskTests {
    private func world() throws -> World {
        let world = try World()
        try world.newAccount("a", boundTo: world.tid)
        try world.newAccount("t", boundTo: world.tid, outgoing: true)
        #expect(world.begin(world.question()) == nil)
        return world
    }

    private static func mutual(_ challenge: [UInt8] = [1, 2, 3]) -> (inout CHAPAnswer) -> Void {
        { $0.counterdemand = CHAPAnswer.Counterdemand(identifier: 9, challenge: challenge) }
    }

    @Test("The right response lets in, by each algorithm, one-way and mutual", arguments: CHAPAlgorithm.allCases, [false, true])
    func right(algorithm: CHAPAlgorithm, isMutual: Bool) throws {
        let world = try world()
        let judgement = try world.authenticate(1, as: "a", algorithm) { if isMutual { Self.mutual()(&$0) } }
        #expect(judgement.isAdmitted)
        let ours = CHAPJudge.response(algorithm, 9, Secret(Array("a secret of t".utf8)), [1, 2, 3])
        #expect(judgement.proof == (isMutual ? CHAPProof(name: Array("t".utf8), response: ours) : nil))
        guard case .grant(let grant) = try world.finish(world.outcome(world.question())) else { Issue.record("no grant"); return }
        #expect(world.sessions.records[grant.tsih]?.login.proof == LoginProof(account: try AccountName(Array("a".utf8)), algorithm: algorithm, isMutual: isMutual, isInClear: true))
    }

    static let wrong: [(String, account: String, secret: String, change: @Sendable (inout CHAPAnswer) -> Void)] = [
        ("another secret", "a", "a secret of b", { _ in }),
        ("no secret", "a", "", { _ in }),
        ("an unknown user", "b", "a secret of a", { _ in }),
        ("a user with another case", "A", "a secret of a", { _ in }),
        ("a name that no account can have", " ", "a secret of a", { _ in }),
        ("the target's own account", "t", "a secret of t", { _ in }),
        ("the target's secret for the account", "a", "a secret of t", { _ in }),
        ("one bit changed", "a", "a secret of a", { $0.response[31] ^= 1 }),
        ("another algorithm than the digest's", "a", "a secret of a", { $0.algorithm = .sha3_256 }),
    ]

    @Test("What is not right is refused, all of it with one status, and the challenge is used up", arguments: wrong.indices, [false, true])
    func refused(index: Int, isMutual: Bool) throws {
        let (what, account, secret, change) = Self.wrong[index]
        let world = try world()
        let judgement = try world.authenticate(1, as: account, secret: secret) { answer in
            if isMutual { Self.mutual()(&answer) }
            change(&answer)
        }
        #expect(judgement.refusal == .authenticationFailure, "\(what)")
        #expect(throws: DoorError.self) { try world.finish(world.outcome(world.question())) }
        let answer = CHAPAnswer(algorithm: .sha256, name: Array("a".utf8), response: [UInt8](repeating: 0, count: 32), counterdemand: nil)
        #expect(throws: DoorError.self) { try world.desk.admit(.authenticate(ConnectionID(rawValue: 1), answer)) }
        #expect(throws: DoorError.self) { try world.desk.authenticate(ConnectionID(rawValue: 1), answer, world.configuration, world.sessions) }
    }

    @Test("A response for another connection's challenge is wrong")
    func replayed() throws {
        let world = try world()
        #expect(world.begin(world.question(isid: 2), id: 2) == nil)
        let (first, second) = (try #require(world.demands[1]), try #require(world.demands[2]))
        #expect(first.challenge != second.challenge && first.challenge.count == 48)
        #expect(try world.authenticate(1, as: "a").isAdmitted)
        #expect(try world.authenticate(2, as: "a", challenge: first.challenge).refusal == .authenticationFailure)
    }

    @Test("A challenge of ours that comes back closes the connection, whichever it was for and however long ago, and even with a right response")
    func reflected() throws {
        let world = try world()
        for id: UInt64 in 2...4 { #expect(world.begin(world.question(isid: id), id: id) == nil) }
        let old = try #require(world.demands[2]?.challenge)
        #expect(try world.authenticate(2, as: "a", secret: "wrong").refusal == .authenticationFailure)
        let own = try #require(world.demands[1]?.challenge)
        #expect(try world.authenticate(1, as: "a", change: Self.mutual(own)).isDropped)
        #expect(try world.authenticate(3, as: "a", change: Self.mutual(old)).isDropped)
        var almost = old
        almost[0] ^= 1
        #expect(try world.authenticate(4, as: "a", change: Self.mutual(almost)).isAdmitted)
    }

    @Test("The target proves itself only if an outgoing account is bound, and demands it where it is required")
    func mutual() throws {
        let world = try world()
        _ = try world.configuration.updateTarget(world.tid, name: Array("RequireMutualCHAP".utf8), value: Array("Yes".utf8))
        #expect(try world.authenticate(1, as: "a").refusal == .authenticationFailure)
        #expect(world.begin(world.question(), id: 2) == nil)
        #expect(try world.authenticate(2, as: "a", change: Self.mutual()).isAdmitted)
        #expect(world.begin(world.question(isid: 3), id: 3) == nil)
        _ = try world.configuration.unbindAccount(AccountName(Array("t".utf8)), from: world.tid, outgoing: true)
        #expect(try world.authenticate(3, as: "a", change: Self.mutual()).refusal == .authenticationFailure)
    }

    @Test("Either of two secrets is right while one takes the place of the other")
    func rotation() throws {
        let world = try world()
        let account = try AccountName(Array("a".utf8))
        _ = try world.configuration.addSecret(Secret(Array("another secret of a".utf8)), to: account)
        for (id, secret, isRight) in [(2, "a secret of a", true), (3, "another secret of a", true), (4, "some secret of a", false)] as [(UInt64, String, Bool)] {
            #expect(world.begin(world.question(isid: id), id: id) == nil)
            #expect(try world.authenticate(id, as: "a", secret: secret).isAdmitted == isRight)
        }
        _ = try world.configuration.retireSecret(.old, of: account)
        #expect(try world.authenticate(1, as: "a").refusal == .authenticationFailure)
    }

    @Test("Where anybody can authenticate, an unknown target and one that is not permitted look like one that is: until a right response, and then both are not found")
    func unknown() throws {
        let world = try world()
        try world.newAccount("b", boundTo: nil)
        for (index, question) in [world.question(target: "iqn.absent"), world.question("iqn.b"), world.question()].enumerated() {
            for (step, account) in ["a", "b", "c"].enumerated() {
                let id = UInt64(10 * index + step + 2)
                #expect(world.begin(question, id: id) == nil)
                #expect(world.demands[id] != nil)
                let judgement = try world.authenticate(id, as: account)
                if account == "c" {
                    #expect(judgement.refusal == .authenticationFailure)
                } else if index == 2, account == "a" {
                    #expect(judgement.isAdmitted)
                } else {
                    #expect(judgement.refusal == .notFound)
                }
            }
        }
    }

    @Test("An account that is unbound before the login's end lets nobody in")
    func unbound() throws {
        let world = try world()
        #expect(try world.authenticate(1, as: "a").isAdmitted)
        _ = try world.configuration.unbindAccount(AccountName(Array("a".utf8)), from: world.tid, outgoing: false)
        guard case .refuse(let status, _) = try world.finish(world.outcome(world.question())) else { Issue.record("it is let in"); return }
        #expect(status == .notFound)
    }

    @Test("An account that is for one initiator is no use to another")
    func otherInitiator() throws {
        let world = try World(names: [])
        try world.newAccount("a", boundTo: world.tid, for: "iqn.a")
        try world.newAccount("b", boundTo: world.tid, for: "iqn.b")
        for (id, initiator, account, isAdmitted) in [(1, "iqn.a", "a", true), (2, "iqn.a", "b", false), (3, "iqn.b", "a", false), (4, "iqn.b", "b", true), (5, "iqn.c", "a", false)]
            as [(UInt64, String, String, Bool)]
        {
            #expect(world.begin(world.question(initiator, isid: id), id: id) == nil)
            #expect(try world.authenticate(id, as: account).refusal == (isAdmitted ? nil : .notFound))
        }
    }

    @Test("MD5 is offered as the setting says, in clear and over TLS", arguments: [(MD5Use.always, true, true), (.tlsOnly, false, true), (.never, false, false)])
    func md5(use: MD5Use, inClear: Bool, overTLS: Bool) throws {
        for (channel, isOffered) in [(Channel.clear, inClear), (.tls(.anybody), overTLS)] {
            #expect(CHAPJudge(md5: use).demand(over: channel).algorithms == Set(CHAPAlgorithm.allCases.filter { $0 != .md5 || isOffered }))
        }
    }

    /// Of the digest of 07, “a secret of chap” and the bytes 0 to 15, by Python's hashlib.
    @Test("Responses are what other programs make them", arguments: [
        (CHAPAlgorithm.md5, "1f3cc7a4e0a999f3208a442a04681bb4"), (.sha1, "2565de99662121d4bcbb43f1c323ec759fead079"), (.sha256, "7c319196f78c788ea6eebd246556ed424eda303ca5fb72d8b04630c078256470"), (.sha3_256, "b8934d2d25e24fd21a55f2a67f51faa7c300535fb7017b305519299ed8498606"),
    ])
    func vectors(algorithm: CHAPAlgorithm, hexadecimal: String) {
        let response = CHAPJudge.response(algorithm, 7, Secret(Array("a secret of chap".utf8)), Array(0..<16))
        #expect(response.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() == hexadecimal)
    }
}
