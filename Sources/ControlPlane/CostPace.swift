import DequeModule
import Reactor

/// Spreads over time what costs the more the more there is: so much in a second, and what is more waits for its turn.
final class CostPace {
    private let loop: EventLoop
    /// Nanoseconds that one unit of cost takes of the pace.
    private let unit: UInt64
    private let most: Int
    /// When all that has been done so far is paid for.
    private var paid: UInt64 = 0
    private var waiting: Deque<(cost: Int, work: () -> Void)> = []
    private var timer: TimerID?
    /// Nanoseconds for which one may be ahead, so that little things do not wait.
    private static let ahead: UInt64 = 10_000_000

    /// - Parameters:
    ///   - perSecond: units of cost, 10⁹ at the most
    ///   - most: that may wait
    init(loop: EventLoop, perSecond: Int, most: Int) {
        self.loop = loop
        self.most = most
        unit = UInt64(1_000_000_000 / perSecond)
    }

    /// Does it, now or later.
    /// - Returns: false if too many wait already: it will not be done
    func run(cost: Int, _ work: @escaping () -> Void) -> Bool {
        guard waiting.count < most else { return false }
        waiting.append((cost, work))
        if timer == nil { serve() }
        return true
    }

    private func serve() {
        timer = nil
        while paid <= loop.now + Self.ahead, let (cost, work) = waiting.popFirst() {
            paid = max(paid, loop.now) + UInt64(cost) * unit
            work()
        }
        if !waiting.isEmpty { timer = loop.after(nanoseconds: paid - loop.now) { [weak self] in self?.serve() } }
    }
}
