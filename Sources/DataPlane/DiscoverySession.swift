import Bytes
import Door
import ISCSI

/// A discovery session (RFC 7143 §4.3): SendTargets, NOP and Logout, nothing else.
final class DiscoverySession {
    /// Targets in one answer. A tenant's initiator sees its own; whoever sees more than this gets the first ones.
    static let mostTargets = 16384

    private var engine: FullFeature
    private var asked: TextRequest?
    private var question: TextRequest.Selection?
    private var targets: [DiscoveredTarget] = []
    private(set) var isOver = false

    init(_ outcome: LoginOutcome, answers: BufferPool) {
        engine = FullFeature(outcome, answers: answers)
    }

    /// One question at a time.
    var wantsInput: Bool { asked == nil && !isOver }

    func receive(_ input: Span<UInt8>) -> Int {
        var offset = 0
        while wantsInput {
            switch engine.next(input, &offset) {
            case .needsInput: return offset
            case .sendTargets(let request):
                asked = request
                question = request.selection
            case .logout(let request):
                engine.answer(request, response: 0)
                isOver = true
            case .fail, .command, .dataOutComplete, .dataOutFailed, .taskManagement: isOver = true
            }
        }
        return offset
    }

    func takeQuestion() -> TextRequest.Selection? {
        defer { question = nil }
        return question
    }

    func discovered(_ more: [DiscoveredTarget], isLast: Bool) {
        guard let asked else { return }
        targets += more.prefix(Self.mostTargets - targets.count)
        guard isLast else { return }
        engine.sendTargets(asked, targets)
        self.asked = nil
        targets = []
    }

    func moveOutput(to output: inout OutputQueue) {
        for segment in engine.output.segments { output.append(segment.buffer, segment.range) }
        engine.output.consume(engine.output.byteCount)
    }
}
