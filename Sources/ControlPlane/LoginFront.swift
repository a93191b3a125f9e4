import Access
import Bytes
import Crypto
import Door
import ISCSI
import Logging
import Model
import Reactor
import TLS

/// Where initiators meet us: the login process, with its clear portals, or data, with its portals behind TLS. Both ask the same
/// questions, each over a door of its own, and what they ask is decided here.
final class LoginFront {
    /// Which portals it has.
    enum Kind { case clear, tls }

    let kind: Kind
    private unowned let control: Control
    private var desk: LoginDesk
    /// Sends to it, with a descriptor that stays the caller's.
    private let send: (LoginAnswerMessage, Int32?) -> Void
    /// Ends it, for it asks what it may not.
    private let condemn: (DoorError) -> Void
    /// It has answered a heartbeat.
    private let heard: () -> Void
    /// The portals of which its process has been told.
    private var served: Set<UInt32> = []
    /// That have ended.
    private var processes = 0
    /// Connections that it has not accepted because of penalties, this process and its predecessors.
    private var refusedByAll: (now: UInt64, before: UInt64) = (0, 0)

    init(
        _ kind: Kind, control: Control, desk: LoginDesk, send: @escaping (LoginAnswerMessage, Int32?) -> Void, condemn: @escaping (DoorError) -> Void,
        heard: @escaping () -> Void
    ) {
        self.kind = kind
        self.control = control
        self.desk = desk
        self.send = send
        self.condemn = condemn
        self.heard = heard
    }

    var refusedConnections: UInt64 { refusedByAll.before &+ refusedByAll.now }

    // MARK: Telling it

    /// What a process that has just been started has to know, before any portal.
    func tellAll() {
        served = []
        setOnline(control.configuration.state == .ready)
        for (source, until) in control.penalties.keptOut(at: control.loop.now) { keepOut(source, until: until) }
    }

    /// Its process has ended, and all that logged in there with it.
    func ended() {
        refusedByAll = (0, refusedConnections)
        processes += 1
        for id in desk.discovering { noteDiscoveryEnd(id) }
        desk.removeAll()
    }

    func setOnline(_ isOnline: Bool) { send(.setOnline(isOnline), nil) }

    func keepOut(_ source: Source, until: UInt64) {
        let now = control.loop.now
        send(.keepOut(source, milliseconds: UInt32(clamping: (until - min(until, now)) / 1_000_000)), nil)
    }

    /// Has it accept on a portal, with what that works with; if it does already, with what that works with from now on.
    func serve(_ portal: OpenPortal) {
        if let material = portal.material {
            guard let messages = MaterialParts.messages(portal: portal.number, material.server) else { preconditionFailure("its files are within their limits") }
            for message in messages { send(message, nil) }
        }
        if served.insert(portal.number).inserted { send(.listen(portal: portal.number), portal.descriptor.rawValue) }
    }

    func close(_ portal: OpenPortal) {
        if served.remove(portal.number) != nil { send(.stopListening(portal: portal.number), nil) }
    }

    /// The files of a portal have been read anew: who logs in there may be somebody else by them, and begins anew then.
    func identify(through portal: UInt32, _ material: PortalMaterial) {
        for id in desk.others(through: portal, material) {
            noteDiscoveryEnd(id)
            desk.gone(id)
            send(.drop(id), nil)
        }
    }

    /// Of a discovery session, if it is one.
    private func noteDiscoveryEnd(_ id: ConnectionID) {
        if let applicant = desk.applicant(id), desk.isDiscovering(id) { control.noteDiscovery(.sessionEnded, applicant, desk.account(id)) }
    }

    /// Ends the discovery sessions that the rules of today do not admit any more.
    func endUnwelcomeDiscoveries() {
        for id in desk.unwelcomeDiscoveries(control.configuration) { send(.refuse(id, .authenticationFailure), nil) }
    }

    // MARK: What it asks

    func handle(_ question: LoginQuestionMessage, _ descriptors: inout ReceivedDescriptors) {
        do throws(DoorError) {
            guard kind == .tls || !question.row.isForTLS else { throw .outOfPhase("\(question.row.name) without TLS") }
            try desk.admit(question)
            switch question {
            case .begin(let id, let login, let channel): try begin(id, login, channel, descriptors.take())
            case .authenticate(let id, let answer): try authenticate(id, answer)
            case .finish(let id, let outcome): try finish(id, outcome, descriptors.take())
            case .sendTargets(let id, let scope):
                guard scope == .all else { return sendTargets(id, scope) }
                let process = processes
                let isPaced = control.discoveries.run(cost: control.configuration.targets.count) { [weak self] in
                    if let self, processes == process { sendTargets(id, scope) }
                }
                guard isPaced else { throw .outOfPhase("to list the targets for more than there are") }
            case .gone(let id):
                noteDiscoveryEnd(id)
                desk.gone(id)
            case .failed(let offence):
                guard let connection = descriptors.take(), let peer = try? Socket.peerAddress(connection.rawValue) else { return }
                failed(offence, peer)
            case .sign(let id, let portal, let scheme, let message): try sign(id, portal, scheme, message)
            case .preSharedKey(let id, let portal, let identity):
                // It may have been taken away meanwhile.
                send(.preSharedKey(id, control.portals.portal(number: portal)?.material?.preSharedKeys?[identity]?.key), nil)
            case .handshakeFailed(let portal, let cause, let reason, let source):
                guard let connection = descriptors.take() else { return }
                control.noteFailedHandshake(try? Socket.peerAddress(connection.rawValue), source, portal, cause, reason)
            case .heartbeat(_, let refused):
                if refused > refusedByAll.now {
                    control.audit.event(.penalty, .refused, reason: "connections from who has to wait are not accepted", details: ["connections": "\(refused - refusedByAll.now)"])
                }
                refusedByAll.now = refused
                heard()
            }
        } catch {
            condemn(error)
        }
    }

    private func sendTargets(_ id: ConnectionID, _ scope: TextRequest.Selection) {
        for (page, isLast) in control.pages(desk.targets(id, scope, control.configuration)) { send(.targets(id, page, isLast: isLast), nil) }
    }

    private func failed(_ offence: LoginOffence, _ peer: SocketAddress) {
        control.audit.event(.loginRefused, source: "\(Source(peer))", .refused, reason: "\(offence)", details: ["status": "closed", "address": "\(peer)"])
        switch offence {
        case .unfinished: control.penalise(.unfinished, .source(peer))
        case .nonsense: control.penalise(.nonsense, .source(peer))
        case .tlsInClear:
            control.log.notice("a connection to a clear portal begins with TLS: is it meant for another portal?", metadata: ["address": "\(peer)"])
            control.penalise(.notAdmitted, .source(peer))
        }
    }

    /// Signs what a TLS server signs, and nothing else: a process that is taken over can pretend to be its portals, but has nothing left
    /// of that when it ends.
    private func sign(_ id: RequestID, _ portal: UInt32, _ scheme: SignatureScheme, _ message: [UInt8]) throws(DoorError) {
        guard let material = control.portals.portal(number: portal)?.material, let key = material.key else { return send(.signed(id, nil), nil) }
        let isServers = ServerHandshake.isCertificateVerify(message) || material.policy == .compatible && ServerHandshake.isServerKeyExchange(message)
        guard isServers else { throw .outOfPhase("to sign what is no handshake of a server") }
        send(.signed(id, try? key.sign(message, by: scheme)), nil)
    }

    /// Through what it has come, and what it has shown on the way. That was verified by who asks, since the handshake is there; what it means
    /// is decided here.
    private func way(_ said: LoginChannel, _ portal: OpenPortal) throws(DoorError) -> (channel: Channel, evidence: TLSEvidence?) {
        switch (kind, said.peer, portal.material) {
        case (.clear, nil, nil) where portal.kind == .clear: return (.clear, nil)
        case (.tls, let peer?, let material?):
            let evidence = TLSEvidence(portal: portal.number, peer: peer)
            return (material.channel(evidence.shown), evidence)
        default: throw .outOfPhase("begin at a portal of another kind")
        }
    }

    private func begin(_ id: ConnectionID, _ question: LoginQuestion, _ said: LoginChannel, _ connection: consuming FileDescriptor?) throws(DoorError) {
        guard let connection else { return outOfDescriptors(id) }
        guard let peer = try? Socket.peerAddress(connection.rawValue), let local = try? Socket.localAddress(connection.rawValue) else {
            // The peer is gone already.
            return send(.refuse(id, .targetError), nil)
        }
        // A portal may be taken away while somebody logs in there.
        guard let portal = control.portals.portal(number: said.portal) else { return send(.drop(id), nil) }
        guard portal.portal.endpoint.admits(PortalAddress(local)) else { throw .outOfPhase("begin at another portal than it has come to") }
        let (channel, evidence) = try way(said, portal)
        let party = Penalties.Party(peer, channel)
        guard !control.penalties.keepsOut(party, at: control.loop.now) || !party.isKnown else {
            logRefusal(question, peer, "closed", "it has to wait after failures")
            control.refusedAnswers += 1
            return send(.drop(id), nil)
        }
        switch desk.begin(id, question, peer: peer, local: local, channel: channel, evidence: evidence, control.configuration, control.sessions) {
        case .proceed(let parameters, let tag, let authentication):
            if desk.isDiscovering(id) { control.noteDiscovery(.loginAccepted, (question, peer, channel), nil) }
            send(.proceed(id, parameters, portalGroupTag: tag, authentication), nil)
        case .refuse(let status, let reason): refuse(id, question, peer, party, status, reason, offence: status == .notFound ? .notAdmitted : nil)
        }
    }

    private func authenticate(_ id: ConnectionID, _ answer: CHAPAnswer) throws(DoorError) {
        guard let applicant = desk.applicant(id) else { throw .outOfPhase("authenticate") }
        let party = Penalties.Party(applicant.peer, applicant.channel)
        // Connections that were there before it had to wait are no more guesses: their answers are not looked at.
        guard !control.penalties.keepsOut(party, at: control.loop.now) else {
            desk.gone(id)
            control.refusedAnswers += 1
            return refuse(id, applicant.question, applicant.peer, party, .authenticationFailure, "it has to wait after failures")
        }
        switch try desk.authenticate(id, answer, control.configuration, control.sessions) {
        case .authenticated(let parameters, let proof):
            if desk.isMD5InClear(id) {
                control.log.notice(
                    "an initiator authenticates by MD5 in clear: whoever listens may try secrets at a great rate",
                    metadata: ["initiator": "\(applicant.question.initiatorName)", "address": "\(applicant.peer)"])
            }
            if desk.isDiscovering(id) { control.noteDiscovery(.loginAccepted, applicant, desk.account(id)) }
            send(.authenticated(id, parameters, proof), nil)
        case .refuse(let status, let reason):
            refuse(
                id, applicant.question, applicant.peer, party, status, reason, user: answer.name,
                offence: status == .authenticationFailure ? .guess : status == .notFound ? .notAdmitted : nil)
        case .drop(let reason):
            logRefusal(applicant.question, applicant.peer, "closed", reason, user: answer.name)
            control.penalise(.guess, party)
            send(.drop(id), nil)
        }
    }

    private func finish(_ id: ConnectionID, _ outcome: LoginOutcome, _ connection: consuming FileDescriptor?) throws(DoorError) {
        guard let connection else {
            desk.gone(id)
            return outOfDescriptors(id)
        }
        guard let peer = try? Socket.peerAddress(connection.rawValue) else {
            desk.gone(id)
            return send(.refuse(id, .targetError), nil)
        }
        guard control.canGrant else {
            desk.gone(id)
            return turnAway(id, outcome, connection, peer, .serviceUnavailable, "the data process is being started")
        }
        if let name = outcome.identity.targetName, let target = control.configuration.target(named: name), control.serving.isWithdrawn(target.id) {
            desk.gone(id)
            return turnAway(id, outcome, connection, peer, .targetRemoved, "the target is being deleted")
        }
        switch try desk.finish(id, outcome, peer: peer, control.configuration, &control.sessions) {
        case .grant(let grant) where kind == .clear: control.order(.grant(grant), giving: connection)
        // Its connection is where it goes on.
        case .grant(let grant): control.order(.grantHere(id, grant), giving: nil)
        case .refuse(let status, let reason): turnAway(id, outcome, connection, peer, status, reason)
        }
    }

    /// It has negotiated, and is refused all the same: by whoever still has its connection, or is given it back.
    private func turnAway(
        _ id: ConnectionID, _ outcome: LoginOutcome, _ connection: borrowing FileDescriptor, _ peer: SocketAddress, _ status: LoginStatus, _ reason: String
    ) {
        logRefusal(outcome.identity, peer, String(status.rawValue, radix: 16), reason)
        if kind == .clear { send(.turnAway(outcome.refusalBytes(status)), connection.rawValue) } else { send(.refuse(id, status), nil) }
    }

    /// The connection could not be opened here: the initiator may try again. In clear that of a last question is lost with it, and the peer finds it
    /// closed; `Limits.descriptorsForManagement` sees to it that no administrator brings that about.
    private func outOfDescriptors(_ id: ConnectionID) {
        control.log.warning("a login is refused: this process may open no more descriptors")
        send(.refuse(id, .outOfResources), nil)
    }

    private func refuse(
        _ id: ConnectionID, _ question: LoginQuestion, _ peer: SocketAddress, _ party: Penalties.Party, _ status: LoginStatus, _ reason: String,
        user: [UInt8]? = nil, offence: Penalties.Offence? = nil
    ) {
        if let offence { control.penalise(offence, party) }
        logRefusal(question, peer, String(status.rawValue, radix: 16), reason, user: user)
        send(.refuse(id, status), nil)
    }

    /// - Parameter user: the account that it claims
    private func logRefusal(_ question: LoginQuestion, _ peer: SocketAddress, _ status: String, _ reason: String, user: [UInt8]? = nil) {
        let target = question.targetName.flatMap { control.configuration.target(named: $0) }
        control.audit.event(
            .loginRefused, source: "\(Source(peer))", .refused, reason: reason, tenant: target?.tenant.name, user: user.map { escaped($0) },
            initiator: question.initiatorName.spelling, target: question.targetName?.spelling ?? "discovery", details: ["status": status, "address": "\(peer)"])
        control.log.notice(
            "a login is refused: \(reason)",
            metadata: [
                "initiator": "\(question.initiatorName)", "target": "\(question.targetName?.spelling ?? "discovery")", "address": "\(peer)",
                "status": "\(status)",
            ])
    }
}

extension OpenPortal {
    /// Who serves it.
    var kind: LoginFront.Kind { portal.tls == nil ? .clear : .tls }
}
