import Door
import ISCSI
import Reactor
import SCSI

/// SendTargets of sessions: what each asks of control, one thing at a time, and the parts of the answer that have come.
final class SessionDiscoveries {
    private struct Discovery {
        let reactor: Int
        let nexus: NexusID
        let request: TextRequest
        var targets: [DiscoveredTarget] = []
    }

    private let reactors: [Mailbox<ReactorMessage>]
    private let questions: PacedQueue<DataReportMessage>
    private var asked: [RequestID: Discovery] = [:]
    private var next: UInt64 = 1

    /// - Parameter tell: reaches control
    init(loop: EventLoop, reactors: [Mailbox<ReactorMessage>], tell: @escaping (DataReportMessage) -> Void) {
        self.reactors = reactors
        questions = PacedQueue(loop: loop, send: tell)
    }

    func ask(_ reactor: Int, _ nexus: NexusID, _ tsih: UInt16, _ request: TextRequest) {
        let id = RequestID(rawValue: next)
        next += 1
        asked[id] = Discovery(reactor: reactor, nexus: nexus, request: request)
        questions.append(.sendTargets(id, tsih: tsih, request.selection))
    }

    func answered(_ id: RequestID, _ targets: [DiscoveredTarget], isLast: Bool) {
        guard var discovery = asked.removeValue(forKey: id) else { return }
        discovery.targets += targets
        guard isLast else { return asked[id] = discovery }
        reactors[discovery.reactor].post(.targets(discovery.nexus, discovery.request, discovery.targets))
    }
}
