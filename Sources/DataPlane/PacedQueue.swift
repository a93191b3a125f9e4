import DequeModule
import Reactor

/// What is said to control, no faster than its door lets through: so many in a tenth of a second, the rest waits in its order. So it
/// is we who wait, one peer's questions behind the other's, and never the door with everything behind it. Confined to its loop's
/// thread; who adds to it bounds it.
final class PacedQueue<Element> {
    /// In nanoseconds.
    static var span: UInt64 { 100_000_000 }
    /// Of a row with 5,000 a second: well below, wherever control's second begins.
    static var usual: Int { 200 }

    private let loop: EventLoop
    private let limit: Int
    private let send: (Element) -> Void
    private var waiting: Deque<Element> = []
    private var sent = 0
    private var spanEnds: UInt64 = 0
    private var isScheduled = false

    var count: Int { waiting.count }

    /// - Parameter limit: how many in a tenth of a second
    init(loop: EventLoop, limit: Int = PacedQueue.usual, send: @escaping (Element) -> Void) {
        self.loop = loop
        self.limit = limit
        self.send = send
    }

    func append(_ element: Element) {
        waiting.append(element)
        drain()
    }

    private func drain() {
        if loop.now >= spanEnds {
            spanEnds = loop.now + Self.span
            sent = 0
        }
        while sent < limit, let next = waiting.popFirst() {
            sent += 1
            send(next)
        }
        guard !waiting.isEmpty, !isScheduled else { return }
        isScheduled = true
        loop.at(spanEnds) { [weak self] in
            self?.isScheduled = false
            self?.drain()
        }
    }
}
