import Access
import Bytes
import Door
import ISCSI
import Logging
import Model
import Reactor

/// What an initiator has proved.
package struct LoginProof: Hashable, Sendable {
    package var account: AccountName
    var algorithm: CHAPAlgorithm
    /// Whether the target has proved itself, too.
    var isMutual: Bool
    /// Whether whoever listens could hear it.
    var isInClear: Bool
    /// Whether whoever overheard it may try secrets at a great rate.
    var isMD5InClear: Bool { algorithm == .md5 && isInClear }
}

/// Decides on logins, as the login process asks: it believes nothing that process says but what was negotiated, and that
/// only within what was offered. Addresses come from the connection itself.
package struct LoginDesk {
    /// A connection between its first question and its end in the login process.
    private struct Applicant {
        var phase: LoginPhase
        let question: LoginQuestion
        let peer: SocketAddress
        let local: SocketAddress
        /// Of the portal at which it has arrived: what it is told, whatever that portal is given meanwhile.
        let portalGroupTag: UInt16
        /// Through what it has come.
        var channel: Channel
        let evidence: TLSEvidence?
        /// What it may negotiate within; nil as long as it has to prove who it is.
        var offered: SessionParameters?
        /// What it has to answer, once.
        var demand: CHAPDemand?
        /// What it has proved; nil: nothing.
        var proof: LoginProof?

        func mayDiscover(_ configuration: Configuration) -> AccessDecision {
            decideDiscovery(configuration, initiator: question.initiatorName, account: proof?.account, channel: channel)
        }

        /// It has shown all that it has to: it may negotiate.
        mutating func proceed(_ parameters: SessionParameters) {
            phase = question.sessionType == .discovery ? .discovering : .negotiating
            offered = parameters
        }
    }

    /// Applicants remembered at once: no fewer than the login process may have connections (`unauthenticated-connections`).
    static let mostApplicants = 16_384

    private let sessionsPerTarget: Int
    private let judge: CHAPJudge
    private var applicants: [ConnectionID: Applicant] = [:]

    package init(sessionsPerTarget: Int = Limits().sessionsPerTarget, judge: CHAPJudge = CHAPJudge()) {
        self.sessionsPerTarget = sessionsPerTarget
        self.judge = judge
    }

    /// Checks that a question may be asked now of its connection. Whoever asks out of phase is not our login process any more.
    package func admit(_ message: LoginQuestionMessage) throws(DoorError) {
        guard let connection = message.connection, let phases = message.row.phases else { return }
        let phase = applicants[connection]?.phase ?? .unknown
        guard phases.contains(phase) else { throw .outOfPhase("\(message.row.name) in phase \(phase)") }
    }

    package enum Beginning {
        case proceed(SessionParameters, portalGroupTag: UInt16, Authentication)
        case refuse(LoginStatus, String)
    }

    /// `begin`: who is it, and may it go on?
    package mutating func begin(
        _ id: ConnectionID, _ question: LoginQuestion, peer: SocketAddress, local: SocketAddress, channel: Channel = .clear, evidence: TLSEvidence? = nil,
        _ configuration: Configuration, _ sessions: SessionTable
    ) -> Beginning {
        guard applicants.count < Self.mostApplicants else { return .refuse(.outOfResources, "too many logins at once") }
        let tag = Self.portalGroupTag(at: local, configuration)
        var applicant = Applicant(
            phase: .proving, question: question, peer: peer, local: local, portalGroupTag: tag, channel: channel, evidence: evidence)
        switch decide(applicant, configuration, sessions) {
        case .admitted(let parameters):
            applicant.proceed(parameters)
            applicants[id] = applicant
            return .proceed(parameters, portalGroupTag: tag, .none)
        // Where anybody can prove anything, what is not permitted looks just like what is not there: both have to prove who they are first.
        case .refused(.authenticationFailure, _) where configuration.hasAccounts, .refused(.notFound, _) where configuration.hasAccounts:
            let demand = judge.demand(over: channel)
            applicant.demand = demand
            applicants[id] = applicant
            return .proceed(SessionParameters(), portalGroupTag: tag, .chap(demand))
        case .refused(let status, let reason): return .refuse(status, reason)
        }
    }

    /// Who asks and from where, for the log.
    func applicant(_ id: ConnectionID) -> (question: LoginQuestion, peer: SocketAddress, channel: Channel)? {
        applicants[id].map { ($0.question, $0.peer, $0.channel) }
    }

    /// Whether it has been let in to look for targets, and by which account.
    func isDiscovering(_ id: ConnectionID) -> Bool { applicants[id]?.phase == .discovering }
    func account(_ id: ConnectionID) -> AccountName? { applicants[id]?.proof?.account }

    /// Whether it has just authenticated so that whoever listened may try secrets at a great rate.
    func isMD5InClear(_ id: ConnectionID) -> Bool { applicants[id]?.proof?.isMD5InClear ?? false }

    package enum Judgement {
        /// With our own proof, if it has asked for one.
        case authenticated(SessionParameters, CHAPProof?)
        case refuse(LoginStatus, String)
        /// Close it without a word.
        case drop(String)
    }

    /// `authenticate`: is its answer right, and may it go on as whom it has proved to be?
    ///
    /// First comes who it is, then what it may: what is not permitted is told only to whoever has an account here, and nothing of a target.
    package mutating func authenticate(
        _ id: ConnectionID, _ answer: CHAPAnswer, _ configuration: Configuration, _ sessions: SessionTable
    ) throws(DoorError) -> Judgement {
        guard var applicant = applicants.removeValue(forKey: id), let demand = applicant.demand, demand.algorithms.contains(answer.algorithm)
        else { throw .outOfPhase("authenticate") }
        applicant.demand = nil
        let target = applicant.question.sessionType == .normal ? applicant.question.targetName.flatMap { configuration.target(named: $0) } : nil
        let tenant = target?.tenant ?? .default
        func account(_ name: AccountName?) -> Account? { name.flatMap { configuration.account($0, tenant: tenant) } }
        let bindings = applicant.question.sessionType == .normal ? target?.accounts : configuration.discoveryAccounts
        let outgoing = account(bindings?.outgoing)
        let incoming = account(try? AccountName(answer.name))
        if let counterdemand = answer.counterdemand, judge.isOurs(counterdemand.challenge) { return .drop("it sends us a challenge of our own") }
        guard judge.isRight(answer, to: demand, account: incoming, outgoing: outgoing), let incoming else {
            return .refuse(.authenticationFailure, "\(incoming == nil ? "there is no account" : "a wrong response for account") “\(escaped(answer.name))”")
        }
        let proof = LoginProof(account: incoming.name, algorithm: answer.algorithm, isMutual: answer.counterdemand != nil, isInClear: !applicant.channel.isTLS)
        applicant.proof = proof
        switch decide(applicant, configuration, sessions) {
        case .refused(let status, let reason): return .refuse(status, reason)
        case .admitted(let parameters):
            let ours = answer.counterdemand.map { counterdemand in outgoing.flatMap { Self.proof(of: $0, counterdemand, answer.algorithm) } }
            if case .some(.none) = ours { return .refuse(.authenticationFailure, "it wants a proof from us, and no outgoing account is bound there") }
            applicant.proceed(parameters)
            applicants[id] = applicant
            return .authenticated(parameters, ours ?? nil)
        }
    }

    /// By which a target shows that it knows the outgoing account's secret.
    private static func proof(of account: Account, _ demand: CHAPAnswer.Counterdemand, _ algorithm: CHAPAlgorithm) -> CHAPProof? {
        account.secrets.first.map { secret in
            CHAPProof(name: account.name.bytes, response: CHAPJudge.response(algorithm, demand.identifier, secret, demand.challenge))
        }
    }

    private enum Verdict {
        case admitted(SessionParameters)
        case refused(LoginStatus, String)
    }

    private func decide(_ applicant: Applicant, _ configuration: Configuration, _ sessions: SessionTable) -> Verdict {
        let (question, channel, tag, account) = (applicant.question, applicant.channel, applicant.portalGroupTag, applicant.proof?.account)
        guard let name = question.targetName, question.sessionType == .normal else {
            if let refusal = Self.refusal(decideDiscovery(configuration, initiator: question.initiatorName, account: account, channel: channel)) { return refusal }
            guard question.tsih == 0 else { return .refused(.sessionDoesNotExist, "a discovery session has one connection") }
            return .admitted(SessionParameters())
        }
        let decision = decideLogin(configuration, targetName: name, initiator: question.initiatorName, address: applicant.peer.network, account: account,
            isMutual: applicant.proof?.isMutual ?? false, channel: channel, local: PortalAddress(applicant.local))
        if let refusal = Self.refusal(decision) { return refusal }
        guard let target = configuration.target(named: name) else { return .refused(.notFound, "there is no such target") }
        if question.tsih != 0 {
            guard let record = sessions.continues(question, tid: target.id, portalGroupTag: tag) else { return .refused(.sessionDoesNotExist, "there is no such session") }
            guard record.isOf(account, channel) else { return .refused(.sessionDoesNotExist, "the session is another identity's") }
            guard record.login.cid == question.cid else { return .refused(.tooManyConnections, "a session has one connection") }
        }
        // Whoever takes the place of a session (RFC 7143 §6.3.5) has to be who that session's initiator has shown to be; for others it looks
        // like a target that they may not log in to.
        guard sessions.ofSameNexus(as: question, tid: target.id, portalGroupTag: tag).allSatisfy({ $0.isOf(account, channel) }) else {
            return .refused(.notFound, "its name and ISID have a session of another identity")
        }
        return .admitted(target.parameters)
    }

    /// That of the portal at which it has arrived (RFC 7143 §13.9).
    private static func portalGroupTag(at local: SocketAddress, _ configuration: Configuration) -> UInt16 {
        configuration.portal(reachedAt: PortalAddress(local))?.groupTag ?? Portal.defaultGroupTag
    }

    /// Not permitted and not there look the same to the initiator (RFC 7143 §11.13.5); the log tells them apart.
    private static func refusal(_ decision: AccessDecision) -> Verdict? {
        guard case .refused(let reason) = decision else { return nil }
        return .refused(reason.loginStatus, reason.description)
    }

    package enum Finish {
        case grant(SessionGrant)
        case refuse(LoginStatus, String)
    }

    /// `finish`: it has negotiated; is it still admitted, and is what it brings within what it was offered?
    package mutating func finish(
        _ id: ConnectionID, _ outcome: LoginOutcome, peer: SocketAddress, _ configuration: Configuration, _ sessions: inout SessionTable
    ) throws(DoorError) -> Finish {
        guard let applicant = applicants.removeValue(forKey: id) else { throw .outOfPhase("finish") }
        // The address was decided on: the connection that is served must be the one that was shown then.
        guard peer == applicant.peer else { throw .outOfPhase("finish on another connection than began") }
        guard outcome.identity == applicant.question else { throw .outOfPhase("finish for somebody else than began") }
        guard let offered = applicant.offered, outcome.negotiated.isWithin(offered) else { throw .outOfPhase("finish with more than was offered") }
        if case .refused(let status, let reason) = decide(applicant, configuration, sessions) {
            return .refuse(status, reason)
        }
        guard let name = applicant.question.targetName, let target = configuration.target(named: name),
            let mask = Access.decide(target, initiator: applicant.question.initiatorName, address: peer.network).mask
        else { return .refuse(.notFound, "there is no such target") }
        guard sessions.admits(applicant.question, tid: target.id, portalGroupTag: applicant.portalGroupTag, atMost: sessionsPerTarget) else {
            return .refuse(.outOfResources, "the target has \(sessionsPerTarget) sessions already")
        }
        guard let granted = sessions.grant(
            applicant.question, tid: target.id, portalGroupTag: applicant.portalGroupTag, peer: applicant.peer, local: applicant.local, channel: applicant.channel, evidence: applicant.evidence,
            proof: applicant.proof, mask: mask) else {
            return .refuse(.outOfResources, "there are \(SessionTable.most) sessions already")
        }
        let grant = SessionGrant(
            tid: target.id.rawValue, tsih: granted.tsih, number: granted.number, outcome: outcome, nopInterval: UInt16(clamping: target.nopInterval),
            nopCount: UInt16(clamping: target.nopCount), mask: mask, portalGroupTag: applicant.portalGroupTag)
        return .grant(grant)
    }

    /// What a discovery session may see.
    package func targets(_ id: ConnectionID, _ scope: TextRequest.Selection, _ configuration: Configuration) -> [DiscoveredTarget] {
        guard let applicant = applicants[id], applicant.mayDiscover(configuration).isAdmitted else { return [] }
        return Self.targets(
            scope, initiator: applicant.question.initiatorName, account: applicant.proof?.account, channel: applicant.channel, current: nil, peer: applicant.peer,
            local: applicant.local, configuration)
    }

    /// The targets of `scope` that this initiator may log in to, at the address where it has reached us or that this portal advertises
    /// (RFC 7143 appendix C).
    static func targets(
        _ scope: TextRequest.Selection, initiator: ISCSIName, account: AccountName?, channel: Channel, current: ISCSIName?, peer: SocketAddress,
        local: SocketAddress, _ configuration: Configuration
    ) -> [DiscoveredTarget] {
        let portal = configuration.portal(reachedAt: PortalAddress(local))
        let (address, tag) = (portal?.advertised?.description ?? "\(local)", portal?.groupTag ?? Portal.defaultGroupTag)
        let wanted: ISCSIName?
        switch scope {
        case .all: wanted = nil
        case .name(let name): wanted = name
        case .sessionTarget:
            guard let current else { return [] }
            wanted = current
        }
        return discoverable(configuration, named: wanted, initiator: initiator, address: peer.network, account: account, channel: channel, local: PortalAddress(local))
            .map { DiscoveredTarget(name: $0.name, addresses: [address], portalGroupTag: tag) }
    }

    /// The discovery sessions that the rules of today do not admit any more.
    func unwelcomeDiscoveries(_ configuration: Configuration) -> [ConnectionID] {
        applicants.filter { _, applicant in
            guard applicant.phase == .discovering, case .refused(let reason) = applicant.mayDiscover(configuration) else { return false }
            return reason != .offline
        }.map(\.key)
    }

    /// Who have come through a portal, and are somebody else by its files as they are now.
    func others(through portal: UInt32, _ material: PortalMaterial) -> [ConnectionID] {
        applicants.filter { _, applicant in
            guard let evidence = applicant.evidence, evidence.portal == portal else { return false }
            return material.channel(evidence.shown) != applicant.channel
        }.map(\.key)
    }

    /// Those that have a discovery session.
    var discovering: [ConnectionID] { applicants.filter { $0.value.phase == .discovering }.map(\.key) }

    package mutating func gone(_ id: ConnectionID) { applicants[id] = nil }

    /// The login process is gone.
    package mutating func removeAll() { applicants = [:] }
}

extension PortalAddress {
    init(_ address: SocketAddress) { self.init(address: address.network, port: address.port) }
}

extension SocketAddress {
    /// For rules.
    var network: NetworkAddress {
        guard let address = NetworkAddress(bytes: bytes) else { preconditionFailure("a socket address has 4 or 16 bytes") }
        return address
    }
}
