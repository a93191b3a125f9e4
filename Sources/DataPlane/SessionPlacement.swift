import Bytes
import Door
import ISCSI
import Reactor
import SCSI
import TLS
import Target

/// Puts granted sessions on reactors, each when nothing is left of the session whose place it takes, and knows where each is until it has ended.
/// All that control hears of a session's life it hears from here.
final class SessionPlacement: LoopDweller {
    /// Sessions of an initiator with the target that are looked at before another one of it begins: those of several paths, and of several
    /// programs. Of one that has more the latest are: what a login costs others does not grow with what its initiator has.
    static let probes = 32

    let loop: EventLoop
    private let reactors: [Mailbox<ReactorMessage>]
    /// Sessions of each.
    private var load: [Int]
    private let answers: BufferPool
    private let trusts: (ByteStream) -> Bool
    private let tell: (DataReportMessage) -> Void
    private var served = ServedSessions()
    /// Grants whose session has no reactor yet: the initiator port's old session, if it has one, ends first.
    private var pending: [NexusID: SessionBeginning] = [:]
    private var nextNexus: UInt64 = 1
    /// Orders to end sessions, and those that have not ended yet.
    private var endings: [(request: RequestID, nexuses: Set<NexusID>)] = []

    /// - Parameters:
    ///   - answers: for refusals
    ///   - trusts: whether what the peer of a connection has shown is what its portal accepts now
    ///   - tell: reaches control
    init(
        loop: EventLoop, reactors: [Mailbox<ReactorMessage>], answers: BufferPool, trusts: @escaping (ByteStream) -> Bool, tell: @escaping (DataReportMessage) -> Void
    ) {
        self.loop = loop
        self.reactors = reactors
        self.answers = answers
        self.trusts = trusts
        self.tell = tell
        load = [Int](repeating: 0, count: reactors.count)
    }

    subscript(nexus: NexusID) -> ServedSessions.Served? { served[nexus] }

    func serves(_ target: ServedTarget) -> Bool { served.values.contains { $0.beginning.target === target } }

    // MARK: From a grant to its reactor

    /// - Parameter target: nil: it is not there any more
    func take(_ grant: SessionGrant, _ connection: ByteStream, _ target: ServedTarget?) {
        guard let target else { return withdraw(grant, connection, .targetRemoved) }
        let beginning = SessionBeginning(grant: grant, target: target, connection: connection, nexus: NexusID(rawValue: nextNexus))
        nextNexus += 1
        // Of the logins of one nexus the last one counts; so no more than one of them waits here.
        for earlier in pending.values where earlier.isOfSameNexus(as: beginning) { withdraw(earlier, .targetError) }
        pending[beginning.nexus] = beginning
        probe(beginning)
    }

    /// An initiator that has closed a connection and logs in again finds what that session held released, whichever of the two a
    /// reactor would have noticed first. (With more sessions than are probed it may find what an early one held only a moment later.)
    private func probe(_ beginning: SessionBeginning) {
        let others = served.latest(Self.probes, ofInitiatorOf: beginning)
        guard !others.isEmpty else { return replace(beginning) }
        let allHaveLooked = Acknowledgement(here { $0.replace(beginning) })
        for other in others { reactors[other.reactor].post(.probe(other.beginning.nexus, allHaveLooked)) }
    }

    /// Ends the session that the nexus has, then begins the new one (RFC 7143 §6.3.5): its login response goes out only
    /// when nothing of the old one is left in a store.
    private func replace(_ beginning: SessionBeginning) {
        // Asked for twice, by the probe and by the old session's end: once it has begun, it would end itself.
        guard pending[beginning.nexus] != nil else { return }
        guard beginning.target.hasSession(of: beginning.name) else { return begin(beginning) }
        beginning.target.reinstate(beginning.name, whenGone: here { $0.begin(beginning) })
    }

    private func begin(_ beginning: SessionBeginning) {
        guard pending[beginning.nexus] != nil else { return }
        // One that its reactor has not begun, or whose end it has not reported: control hears of that first. The report comes back here.
        if let earlier = served.session(ofNexusOf: beginning) {
            earlier.beginning.revoke()
            return beginning.target.reinstate(beginning.name, whenGone: {})
        }
        // What its portal accepts may have been replaced while it was on its way to a reactor that could not begin it.
        guard trusts(beginning.connection) else { return withdraw(beginning, .authenticationFailure) }
        pending[beginning.nexus] = nil
        let reactor = load.indices.min { load[$0] < load[$1] } ?? 0
        load[reactor] += 1
        served.insert(beginning, on: reactor)
        reactors[reactor].post(.begin(beginning))
    }

    // MARK: Grants that come to nothing

    private func withdraw(_ beginning: SessionBeginning, _ status: LoginStatus) {
        pending[beginning.nexus] = nil
        withdraw(beginning.grant, beginning.connection, status)
    }

    /// Says on the connection itself why there is no session after all; a peer that does not read it misses it.
    private func withdraw(_ grant: SessionGrant, _ connection: ByteStream, _ status: LoginStatus) {
        var output = OutputQueue(pool: answers)
        output.append(copying: grant.outcome.refusalBytes(status).span)
        _ = connection.send(&output)
        connection.close()
        withdraw(grant)
    }

    /// Its connection is not here.
    func withdraw(_ grant: SessionGrant) { tell(.sessionEnded(tsih: grant.tsih, grant: grant.number, .neverBegan)) }

    /// A portal accepts something else from now on. (Those that are served are looked at where they are.)
    func withdrawAll(through portal: UInt32, notTrustedBy context: ServerContext) {
        for beginning in pending.values where beginning.connection.portal == portal && !beginning.connection.isStillTrusted(by: context) {
            withdraw(beginning, .authenticationFailure)
        }
    }

    // MARK: Orders

    /// None of them is to go on; whoever asks ends the target's sessions next.
    func revokeAll(on target: ServedTarget) {
        for beginning in pending.values where beginning.target === target { withdraw(beginning, .targetRemoved) }
        for session in served.values where session.beginning.target === target { session.beginning.revoke() }
    }

    func end(_ request: RequestID, _ tsih: UInt16) {
        let granted = pending.values.filter { $0.grant.tsih == tsih }
        let begun = served.values.map(\.beginning).filter { $0.grant.tsih == tsih }
        guard let target = (granted.first ?? begun.first)?.target else { return tell(.refused(request, .unknownSession)) }
        // Nobody is told more than an initiator that was never admitted (RFC 7143 §11.13.5).
        for beginning in granted { withdraw(beginning, .notFound) }
        for beginning in begun { beginning.revoke() }
        let nexuses = Set(begun.map(\.nexus))
        // Done is what control has heard the end of: `forget` says so.
        if nexuses.isEmpty { tell(.done(request)) } else { endings.append((request, nexuses)) }
        target.endSessions(.administrator, where: { nexuses.contains($0.nexus) }, whenGone: {})
    }

    func setMask(_ request: RequestID, _ tsih: UInt16, _ grant: UInt64, _ mask: LUNMask) {
        let granted = pending.values.filter { $0.grant.tsih == tsih && $0.grant.number == grant }
        let begun = served.values.filter { $0.beginning.grant.tsih == tsih && $0.beginning.grant.number == grant }
        guard !granted.isEmpty || !begun.isEmpty else { return tell(.refused(request, .unknownSession)) }
        let applied = Acknowledgement(here { $0.tell(.done(request)) })
        for beginning in granted { beginning.setMask(mask) }
        for session in begun {
            session.beginning.setMask(mask)
            reactors[session.reactor].post(.notification(session.beginning.nexus, .maskChanged(mask, applied)))
        }
    }

    // MARK: What reactors report

    func began(_ beginning: SessionBeginning) { tell(.sessionBegan(tsih: beginning.grant.tsih, grant: beginning.grant.number)) }

    /// Its nexus has a session again.
    func occupied(_ beginning: SessionBeginning) {
        pending[beginning.nexus] = beginning
        forget(beginning)
    }

    func revoked(_ beginning: SessionBeginning, _ status: LoginStatus) {
        withdraw(beginning, status)
        forget(beginning)
    }

    func ended(_ beginning: SessionBeginning, _ reason: EndReason) {
        tell(.sessionEnded(tsih: beginning.grant.tsih, grant: beginning.grant.number, SessionEnd(reason)))
        forget(beginning)
    }

    /// A session is no more; who waits for its initiator port goes on.
    private func forget(_ beginning: SessionBeginning) {
        guard let gone = served.remove(beginning.nexus) else { return }
        load[gone.reactor] -= 1
        for index in endings.indices { endings[index].nexuses.remove(beginning.nexus) }
        for ending in endings where ending.nexuses.isEmpty { tell(.done(ending.request)) }
        endings.removeAll(where: \.nexuses.isEmpty)
        for next in pending.values where next.isOfSameNexus(as: beginning) { replace(next) }
    }
}

extension SessionEnd {
    init(_ reason: EndReason) {
        switch reason {
        case .connectionLost: self = .connectionLost
        case .loggedOut: self = .loggedOut
        case .reinstated: self = .reinstated
        case .administrator: self = .administrator
        case .targetReset: self = .targetReset
        case .protocolError: self = .protocolError
        case .pingTimeout: self = .unanswered
        case .outputStalled: self = .outputStalled
        case .inputStalled: self = .inputStalled
        case .distrusted: self = .distrusted
        }
    }
}
