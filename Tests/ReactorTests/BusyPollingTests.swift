import Testing

@testable import Reactor

@Suite struct BusyPollingTests {
    @Test("The window grows while waits are short, and is given up at the first long one")
    func window() {
        var polling = BusyPolling(most: 50_000)
        #expect(polling.window == 0)
        var grown: [UInt64] = []
        for _ in 0..<5 {
            polling.waited(49_000, now: 0)
            grown.append(polling.window)
        }
        #expect(grown == [10_000, 20_000, 40_000, 50_000, 50_000])
        polling.waited(50_001, now: 0)
        #expect(polling.window == 0)
    }

    @Test("A window that is long enough stays; the longest wait that counts as short is the longest window")
    func edges() {
        var polling = BusyPolling(most: 50_000)
        polling.waited(9_999, now: 0)
        polling.waited(10_000, now: 0)
        #expect(polling.window == 10_000)
        polling.waited(10_001, now: 0)
        #expect(polling.window == 20_000)
        polling.waited(50_000, now: 0)
        polling.waited(50_000, now: 0)
        #expect(polling.window == 50_000)
    }

    @Test("When the processor was taken away it only sleeps for a while")
    func contention() {
        var polling = BusyPolling(most: 50_000)
        polling.waited(20_000, now: 5)
        #expect(polling.window == 10_000)
        polling.lostProcessor(now: 5)
        #expect(polling.window == 0)
        polling.waited(20_000, now: 5 + BusyPolling.rest - 1)
        #expect(polling.window == 0)
        polling.waited(20_000, now: 5 + BusyPolling.rest)
        #expect(polling.window == 10_000)
    }

    @Test("Without leave to look it always sleeps")
    func never() {
        var polling = BusyPolling(most: 0)
        for wait: UInt64 in [0, 1, 10_000] { polling.waited(wait, now: 0) }
        #expect(polling.window == 0)
    }
}
