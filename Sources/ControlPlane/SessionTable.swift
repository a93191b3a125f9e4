import Access
import ISCSI
import Model
import Reactor
import SCSI

/// A session as control knows it, from its grant to its end.
package struct SessionRecord {
    var tid: TargetID
    var initiatorName: ISCSIName
    var initiatorAlias: [UInt8]?
    var isid: ISID
    var cid: UInt16
    /// The initiator's address, and ours that it has reached.
    var peer: SocketAddress
    var local: SocketAddress
    /// Of the portal by which it has come.
    let portalGroupTag: UInt16
    /// Through what it has come.
    var channel: Channel
    /// What it has shown on the way; nil in clear.
    var evidence: TLSEvidence?
    /// What its initiator has proved; nil: nothing.
    var proof: LoginProof?
    var account: AccountName? { proof?.account }
    /// Whether whoever has shown this much is who its initiator has shown to be, and may go on with it or take its place.
    func isOf(_ account: AccountName?, _ channel: Channel) -> Bool {
        self.account == account && (self.channel.provenName == nil || self.channel.provenName == channel.provenName)
    }
    /// What it may see and write, as data has been told.
    var mask: LUNMask
    /// Grants on their way: data has not said yet what became of them.
    package var pendingGrants = 1
    package var isServed = false
    /// Rises with each login, for the order of reports.
    var order: UInt64
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
    var served: [(tsih: UInt16, record: SessionRecord)] {
        records.filter(\.value.isServed).map { ($0.key, $0.value) }.sorted { $0.record.order < $1.record.order }
    }

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

    /// Enters a granted session; nil if there are too many.
    package mutating func grant(
        _ question: LoginQuestion, tid: TargetID, portalGroupTag: UInt16 = 1, peer: SocketAddress, local: SocketAddress, channel: Channel = .clear, evidence: TLSEvidence? = nil, proof: LoginProof? = nil,
        mask: LUNMask = .all
    ) -> UInt16? {
        orders += 1
        if question.tsih != 0 {
            records[question.tsih]?.pendingGrants += 1
            records[question.tsih]?.peer = peer
            records[question.tsih]?.local = local
            records[question.tsih]?.channel = channel
            records[question.tsih]?.evidence = evidence
            records[question.tsih]?.cid = question.cid
            records[question.tsih]?.proof = proof
            records[question.tsih]?.mask = mask
            return question.tsih
        }
        guard records.count < Self.most else { return nil }
        repeat { lastTSIH &+= 1 } while lastTSIH == 0 || records[lastTSIH] != nil
        records[lastTSIH] = SessionRecord(
            tid: tid, initiatorName: question.initiatorName, initiatorAlias: question.initiatorAlias, isid: question.isid, cid: question.cid,
            peer: peer, local: local, portalGroupTag: portalGroupTag, channel: channel, evidence: evidence, proof: proof, mask: mask, order: orders)
        perTarget[tid, default: 0] += 1
        perNexus[Nexus(tid: tid, portalGroupTag: portalGroupTag, initiatorName: question.initiatorName, isid: question.isid), default: []].insert(lastTSIH)
        return lastTSIH
    }

    /// The files of a portal have been read anew.
    /// - Returns: the targets of sessions that are somebody else's by them, who is entered from now on
    mutating func identify(through portal: UInt32, _ material: PortalMaterial) -> Set<TargetID> {
        var changed: Set<TargetID> = []
        for (tsih, record) in records {
            guard let evidence = record.evidence, evidence.portal == portal else { continue }
            let channel = material.channel(evidence.shown)
            guard channel != record.channel else { continue }
            records[tsih]?.channel = channel
            changed.insert(record.tid)
        }
        return changed
    }

    /// Data is told what a session may see and write from now on.
    mutating func setMask(_ mask: LUNMask, of tsih: UInt16) { records[tsih]?.mask = mask }

    /// - Returns: false if no such grant was on its way: data may not say that.
    package mutating func began(_ tsih: UInt16) -> Bool {
        guard let record = records[tsih], record.pendingGrants > 0 else { return false }
        records[tsih]?.pendingGrants -= 1
        records[tsih]?.isServed = true
        return true
    }

    /// - Parameter neverBegan: a grant came to nothing; otherwise a session that was served has ended
    /// - Returns: false if there was nothing that could end: data may not say that.
    package mutating func ended(_ tsih: UInt16, neverBegan: Bool) -> Bool {
        guard var record = records[tsih], neverBegan ? record.pendingGrants > 0 : record.isServed else { return false }
        if neverBegan { record.pendingGrants -= 1 } else { record.isServed = false }
        if record.pendingGrants > 0 || record.isServed {
            records[tsih] = record
        } else {
            records[tsih] = nil
            let left = perTarget[record.tid, default: 1] - 1
            perTarget[record.tid] = left == 0 ? nil : left
            let nexus = Nexus(tid: record.tid, portalGroupTag: record.portalGroupTag, initiatorName: record.initiatorName, isid: record.isid)
            perNexus[nexus]?.remove(tsih)
            if perNexus[nexus]?.isEmpty == true { perNexus[nexus] = nil }
        }
        return true
    }

    /// Data is gone, and all of them with it.
    package mutating func removeAll() {
        records = [:]
        perTarget = [:]
        perNexus = [:]
    }
}
