import Door
import ISCSI
import Reactor
import SCSI
import Target
import Testing

@testable import DataPlane

/// The sessions that reactors have.
@Suite struct ServedSessionTests {
    private let target = ServedTarget(name: name("iqn.t"), tid: 1)

    private func beginning(_ number: UInt64, of initiator: String = "iqn.a") throws -> SessionBeginning {
        var other: FileDescriptor?
        let stream = ByteStream(try Socket.messagePair().split(&other))
        let question = LoginQuestion(
            initiatorName: name(initiator), sessionType: .normal, targetName: name("iqn.t"), isid: ISID(rawValue: number), tsih: 0, cid: 0)
        let outcome = LoginOutcome(
            identity: question, negotiated: NegotiatedParameters(), expCmdSN: 1, statSN: 1,
            finalResponse: FinalLoginResponse(currentStage: 1, initiatorTaskTag: 0, statSN: 0, text: []))
        let grant = SessionGrant(tid: 1, tsih: UInt16(number), outcome: outcome, nopInterval: 0, nopCount: 0)
        return SessionBeginning(grant: grant, target: target, connection: stream, nexus: NexusID(rawValue: number))
    }

    @Test(
        "A login has the latest sessions of its initiator probed, and no more than so many",
        arguments: [0, 1, SessionPlacement.probes - 1, SessionPlacement.probes, SessionPlacement.probes + 1, 3 * SessionPlacement.probes])
    func latest(count: Int) throws {
        var sessions = ServedSessions()
        for number in 0..<UInt64(count) {
            sessions.insert(try beginning(2 * number + 1), on: 0)
            sessions.insert(try beginning(2 * number + 2, of: "iqn.b"), on: 0)
        }
        func probed() throws -> [UInt64] {
            sessions.latest(SessionPlacement.probes, ofInitiatorOf: try beginning(1000)).map { $0.beginning.grant.outcome.identity.isid.rawValue }
        }
        let all = (0..<UInt64(count)).map { 2 * $0 + 1 }
        #expect(try probed() == Array(all.reversed().prefix(SessionPlacement.probes)))
        // One that has ended makes room for one that came before it.
        guard let last = all.last else { return }
        #expect(sessions.remove(NexusID(rawValue: last)) != nil)
        #expect(try probed() == Array(all.dropLast().reversed().prefix(SessionPlacement.probes)))
    }

    @Test("Who has more sessions than are probed logs in once more", arguments: [SessionPlacement.probes, SessionPlacement.probes + 1])
    func another(count: Int) throws {
        let rig = try Rig { $0.reactors = 2 }
        let clients = try (1...UInt16(count)).map { try rig.grant(tsih: $0, isid: UInt64($0)) }
        for client in clients { try client.begin() }
        let next = try rig.grant(tsih: 1000, isid: 1000)
        try next.begin()
        for client in clients { #expect(client.perform([0, 0, 0, 0, 0, 0]) == 0) }
    }
}
