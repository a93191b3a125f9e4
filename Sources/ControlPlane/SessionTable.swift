import Access
import ISCSI
import Model
import Reactor
import SCSI

/// A login to a session: who is, or is to be, at its other end. Each is judged anew.
package struct SessionLogin {
    /// Of its grant. Rises with each login.
    package let number: UInt64
    let cid: UInt16
    /// The initiator's address, and ours that it has reached.
    package let peer: SocketAddress
    let local: SocketAddress
    /// Through what it has come.
    package fileprivate(set) var channel: Channel
    /// What it has shown on the way; nil in clear.
    let evidence: TLSEvidence?
    /// What its initiator has proved; nil: nothing.
    package let proof: LoginProof?
    var account: AccountName? { proof?.account }
    /// What it may see and write, as data has been told.
    package fileprivate(set) var mask: LUNMask
}

/// A session as control knows it, from its grant to its end.
package struct SessionRecord {
    let tid: TargetID
    let initiatorName: ISCSIName
    let initiatorAlias: [UInt8]?
    let isid: ISID
    /// Of the portal by which it has come.
    let portalGroupTag: UInt16
    /// Rises with each session, for the order of reports.
    let order: UInt64
    /// The login whose connection serves it; nil: none does yet, or any more.
    package fileprivate(set) var served: SessionLogin?
    /// Granted logins of which data has not said yet what became of them. One that takes the place of another is nobody until it begins.
    package fileprivate(set) var pending: [SessionLogin]

    /// All of them: one at least.
    var logins: [SessionLogin] { (served.map { [$0] } ?? []) + pending }
    /// Who it is.
    package var login: SessionLogin {
        guard let login = served ?? pending.last else { preconditionFailure("a session without a login is none") }
        return login
    }

    /// Whether whoever has shown this much is who its initiator has shown to be, and may go on with it or take its place.
    func isOf(_ account: AccountName?, _ channel: Channel) -> Bool {
        logins.allSatisfy { $0.account == account && ($0.channel.provenName == nil || $0.channel.provenName == channel.provenName) }
    }

    fileprivate mutating func change(_ change: (inout SessionLogin) -> Void) {
        if var login = served {
            change(&login)
            served = login
        }
        for index in pending.indices { change(&pending[index]) }
    }
}

/// The sessions of all targets by TSIH, which is never 0 and never that of another living session.
package struct SessionTable {
    /// Sessions in all: TSIHs are 16 bits (RFC 7143 §11.12.6), and a few are left free so that one is found quickly.
    static let most = 60_000

    package private(set) var records: [UInt16: SessionRecord] = [:]
    private var perTarget: [TargetID: Int] = [:]
    /// TSIHs by I_T nexus.
    private var perNexus: [Nexus: Set<UInt16>] = [:]
    private var lastTSIH: UInt16 = 0
    private var orders: UInt64 = 0

    /// The names of both ends (RFC 7143 §3.4.2).
    private struct Nexus: Hashable {
        let tid: TargetID
        let portalGroupTag: UInt16
        let initiatorName: ISCSIName
        let isid: ISID
    }

    package init() {}

    /// In the order of their logins.
    var all: [(tsih: UInt16, record: SessionRecord)] { records.map { ($0.key, $0.value) }.sorted { $0.record.order < $1.record.order } }

    /// Those of which data has said that they have begun.
    var served: [(tsih: UInt16, record: SessionRecord)] { all.filter { $0.record.served != nil } }

    /// Whether this request continues the session that it names (RFC 7143 §6.3.1).
    func continues(_ question: LoginQuestion, tid: TargetID, portalGroupTag: UInt16) -> SessionRecord? {
        guard let record = records[question.tsih], record.tid == tid, record.portalGroupTag == portalGroupTag, record.isid == question.isid,
            record.initiatorName == question.initiatorName
        else { return nil }
        return record
    }

    /// Whether the target may have this session too.
    /// - Parameter limit: sessions of one target, granted ones included
    func admits(_ question: LoginQuestion, tid: TargetID, portalGroupTag: UInt16, atMost limit: Int) -> Bool {
        guard question.tsih == 0, perTarget[tid, default: 0] >= limit else { return true }
        // One that takes the place of its nexus's session (RFC 7143 §6.3.5) is no more; but one at a time.
        return ofSameNexus(as: question, tid: tid, portalGroupTag: portalGroupTag).count == 1
    }

    /// The sessions whose place this one would take: those of its nexus.
    func ofSameNexus(as question: LoginQuestion, tid: TargetID, portalGroupTag: UInt16) -> [SessionRecord] {
        perNexus[Nexus(tid: tid, portalGroupTag: portalGroupTag, initiatorName: question.initiatorName, isid: question.isid), default: []].compactMap { records[$0] }
    }

    /// Enters a granted login, and a session for it if it continues none.
    /// - Returns: nil if there are too many
    package mutating func grant(
        _ question: LoginQuestion, tid: TargetID, portalGroupTag: UInt16 = 1, peer: SocketAddress, local: SocketAddress, channel: Channel = .clear, evidence: TLSEvidence? = nil, proof: LoginProof? = nil,
        mask: LUNMask = .all
    ) -> (tsih: UInt16, number: UInt64)? {
        orders += 1
        let login = SessionLogin(number: orders, cid: question.cid, peer: peer, local: local, channel: channel, evidence: evidence, proof: proof, mask: mask)
        if question.tsih != 0 {
            records[question.tsih]?.pending.append(login)
            return (question.tsih, login.number)
        }
        guard records.count < Self.most else { return nil }
        repeat { lastTSIH &+= 1 } while lastTSIH == 0 || records[lastTSIH] != nil
        records[lastTSIH] = SessionRecord(
            tid: tid, initiatorName: question.initiatorName, initiatorAlias: question.initiatorAlias, isid: question.isid, portalGroupTag: portalGroupTag, order: orders,
            pending: [login])
        perTarget[tid, default: 0] += 1
        perNexus[Nexus(tid: tid, portalGroupTag: portalGroupTag, initiatorName: question.initiatorName, isid: question.isid), default: []].insert(lastTSIH)
        return (lastTSIH, login.number)
    }

    /// The files of a portal have been read anew.
    /// - Returns: the targets of sessions that are somebody else's by them, who is entered from now on
    mutating func identify(through portal: UInt32, _ material: PortalMaterial) -> Set<TargetID> {
        var changed: Set<TargetID> = []
        for (tsih, record) in records {
            records[tsih]?.change { login in
                guard let evidence = login.evidence, evidence.portal == portal else { return }
                let channel = material.channel(evidence.shown)
                guard channel != login.channel else { return }
                login.channel = channel
                changed.insert(record.tid)
            }
        }
        return changed
    }

    /// Data is told what a login may see and write from now on.
    mutating func setMask(_ mask: LUNMask, of tsih: UInt16, grant: UInt64) {
        records[tsih]?.change { if $0.number == grant { $0.mask = mask } }
    }

    /// - Returns: false if no such grant was on its way, or an earlier one still serves: data may not say that.
    package mutating func began(_ tsih: UInt16, grant: UInt64) -> Bool {
        guard var record = records[tsih], record.served == nil, let index = record.pending.firstIndex(where: { $0.number == grant }) else { return false }
        record.served = record.pending.remove(at: index)
        records[tsih] = record
        return true
    }

    /// - Parameter neverBegan: a grant came to nothing; otherwise a session that was served by it has ended
    /// - Returns: the login; nil if there was nothing that could end: data may not say that.
    package mutating func ended(_ tsih: UInt16, grant: UInt64, neverBegan: Bool) -> SessionLogin? {
        guard var record = records[tsih] else { return nil }
        let ended: SessionLogin
        if neverBegan {
            guard let index = record.pending.firstIndex(where: { $0.number == grant }) else { return nil }
            ended = record.pending.remove(at: index)
        } else {
            guard let served = record.served, served.number == grant else { return nil }
            ended = served
            record.served = nil
        }
        guard record.served == nil, record.pending.isEmpty else {
            records[tsih] = record
            return ended
        }
        records[tsih] = nil
        let left = perTarget[record.tid, default: 1] - 1
        perTarget[record.tid] = left == 0 ? nil : left
        let nexus = Nexus(tid: record.tid, portalGroupTag: record.portalGroupTag, initiatorName: record.initiatorName, isid: record.isid)
        perNexus[nexus]?.remove(tsih)
        if perNexus[nexus]?.isEmpty == true { perNexus[nexus] = nil }
        return ended
    }

    /// Data is gone, and all of them with it.
    package mutating func removeAll() {
        records = [:]
        perTarget = [:]
        perNexus = [:]
    }
}
