import Access
import Door
import ISCSI
import Logging
import Model
import Reactor

/// Decides on logins, as the login process asks: it believes nothing that process says but what was negotiated, and that
/// only within what was offered. Addresses come from the connection itself.
package struct LoginDesk {
    /// A connection between its first question and its end in the login process.
    private struct Applicant {
        var phase: LoginPhase
        let question: LoginQuestion
        let peer: SocketAddress
        let local: SocketAddress
        let offered: SessionParameters
        /// Whose secret it has proved to know; nil: nobody's.
        var account: AccountName?
    }

    /// Applicants remembered at once: no fewer than the login process may have connections (`unauthenticated-connections`).
    static let mostApplicants = 16_384

    private let sessionsPerTarget: Int
    private var applicants: [ConnectionID: Applicant] = [:]

    package init(sessionsPerTarget: Int = Limits().sessionsPerTarget) { self.sessionsPerTarget = sessionsPerTarget }

    /// Checks that a question may be asked now of its connection. Whoever asks out of phase is not our login process any more.
    package func admit(_ message: LoginQuestionMessage) throws(DoorError) {
        guard let connection = message.connection, let phases = message.row.phases else { return }
        let phase = applicants[connection]?.phase ?? .unknown
        guard phases.contains(phase) else { throw .outOfPhase("\(message.row.name) in phase \(phase)") }
    }

    package enum Beginning {
        case proceed(SessionParameters, portalGroupTag: UInt16)
        case refuse(LoginStatus, String)
    }

    /// `begin`: who is it, and may it go on?
    package mutating func begin(
        _ id: ConnectionID, _ question: LoginQuestion, peer: SocketAddress, local: SocketAddress, _ configuration: Configuration,
        _ sessions: SessionTable
    ) -> Beginning {
        guard applicants.count < Self.mostApplicants else { return .refuse(.outOfResources, "too many logins at once") }
        let result = decide(question, account: nil, peer: peer, configuration, sessions)
        if case .proceed(let parameters, _) = result {
            applicants[id] = Applicant(
                phase: question.sessionType == .discovery ? .discovering : .negotiating, question: question, peer: peer, local: local,
                offered: parameters)
        }
        return result
    }

    /// It has proved to know the secret of an account: may it go on as that?
    package mutating func authenticated(
        _ id: ConnectionID, as account: AccountName, _ configuration: Configuration, _ sessions: SessionTable
    ) -> Beginning {
        guard let applicant = applicants[id] else { return .refuse(.initiatorError, "nobody has begun") }
        let result = decide(applicant.question, account: account, peer: applicant.peer, configuration, sessions)
        if case .proceed = result { applicants[id]?.account = account } else { applicants[id] = nil }
        return result
    }

    private func decide(
        _ question: LoginQuestion, account: AccountName?, peer: SocketAddress, _ configuration: Configuration, _ sessions: SessionTable
    ) -> Beginning {
        guard let name = question.targetName, question.sessionType == .normal else {
            if let refusal = Self.refusal(decideDiscovery(configuration, initiator: question.initiatorName, account: account)) { return refusal }
            guard question.tsih == 0 else { return .refuse(.sessionDoesNotExist, "a discovery session has one connection") }
            return .proceed(SessionParameters(), portalGroupTag: Self.portalGroupTag)
        }
        let decision = decideLogin(configuration, targetName: name, initiator: question.initiatorName, address: peer.network, account: account)
        if let refusal = Self.refusal(decision) { return refusal }
        guard let target = configuration.target(named: name) else { return .refuse(.notFound, "there is no such target") }
        if question.tsih != 0 {
            guard let record = sessions.continues(question, tid: target.id) else { return .refuse(.sessionDoesNotExist, "there is no such session") }
            guard record.account == account else { return .refuse(.sessionDoesNotExist, "the session is another account's") }
            guard record.cid == question.cid else { return .refuse(.tooManyConnections, "a session has one connection") }
        }
        // Whoever takes the place of a session (RFC 7143 §6.3.5) has to be who that session's initiator has shown to be; for others it looks
        // like a target that they may not log in to.
        guard sessions.ofSamePort(as: question, tid: target.id).allSatisfy({ $0.account == account }) else {
            return .refuse(.notFound, "its name and ISID have a session of another account")
        }
        return .proceed(target.parameters, portalGroupTag: Self.portalGroupTag)
    }

    /// There is one portal group (RFC 7143 §13.9).
    static let portalGroupTag: UInt16 = 1

    /// Not permitted and not there look the same to the initiator (RFC 7143 §11.13.5); the log tells them apart.
    private static func refusal(_ decision: AccessDecision) -> Beginning? {
        guard case .refused(let reason) = decision else { return nil }
        return .refuse(reason.loginStatus, reason.description)
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
        guard outcome.negotiated.isWithin(applicant.offered) else { throw .outOfPhase("finish with more than was offered") }
        if case .refuse(let status, let reason) = decide(applicant.question, account: applicant.account, peer: applicant.peer, configuration, sessions) {
            return .refuse(status, reason)
        }
        guard let name = applicant.question.targetName, let target = configuration.target(named: name),
            let mask = Access.decide(target, initiator: applicant.question.initiatorName, address: peer.network).mask
        else { return .refuse(.notFound, "there is no such target") }
        guard sessions.admits(applicant.question, tid: target.id, atMost: sessionsPerTarget) else {
            return .refuse(.outOfResources, "the target has \(sessionsPerTarget) sessions already")
        }
        guard let tsih = sessions.grant(applicant.question, tid: target.id, peer: applicant.peer, local: applicant.local, account: applicant.account, mask: mask) else {
            return .refuse(.outOfResources, "there are \(SessionTable.most) sessions already")
        }
        let grant = SessionGrant(
            tid: target.id.rawValue, tsih: tsih, outcome: outcome, nopInterval: UInt16(clamping: target.nopInterval),
            nopCount: UInt16(clamping: target.nopCount), mask: mask)
        return .grant(grant)
    }

    /// What a discovery session may see.
    package func targets(_ id: ConnectionID, _ scope: TextRequest.Selection, _ configuration: Configuration) -> [DiscoveredTarget] {
        guard let applicant = applicants[id],
            Self.refusal(decideDiscovery(configuration, initiator: applicant.question.initiatorName, account: applicant.account)) == nil
        else { return [] }
        return Self.targets(
            scope, initiator: applicant.question.initiatorName, account: applicant.account, current: nil, peer: applicant.peer, local: applicant.local, configuration)
    }

    /// The targets of `scope` that this initiator may log in to, at the address where it has reached us (RFC 7143 appendix C).
    static func targets(
        _ scope: TextRequest.Selection, initiator: ISCSIName, account: AccountName?, current: ISCSIName?, peer: SocketAddress, local: SocketAddress,
        _ configuration: Configuration
    ) -> [DiscoveredTarget] {
        discoverable(configuration, initiator: initiator, address: peer.network, account: account)
            .filter { target in
                switch scope {
                case .all: true
                case .name(let name): target.name == name
                case .sessionTarget: target.name == current
                }
            }
            .map { DiscoveredTarget(name: $0.name, addresses: ["\(local)"], portalGroupTag: portalGroupTag) }
    }

    /// The discovery sessions that the rules of today do not admit any more.
    func unwelcomeDiscoveries(_ configuration: Configuration) -> [ConnectionID] {
        applicants.filter { _, applicant in
            guard applicant.phase == .discovering else { return false }
            let decision = decideDiscovery(configuration, initiator: applicant.question.initiatorName, account: applicant.account)
            guard case .refused(let reason) = decision else { return false }
            return reason != .offline
        }.map(\.key)
    }

    package mutating func gone(_ id: ConnectionID) { applicants[id] = nil }

    /// The login process is gone.
    package mutating func removeAll() { applicants = [:] }
}

extension SocketAddress {
    /// For rules.
    var network: NetworkAddress {
        guard let address = NetworkAddress(bytes: bytes) else { preconditionFailure("a socket address has 4 or 16 bytes") }
        return address
    }
}
