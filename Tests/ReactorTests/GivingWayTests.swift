import Testing

@testable import Reactor

@Suite struct GivingWayTests {
    @Test("It gives way while events wait for it, and not when it waits for them")
    func behind() {
        var way = GivingWay(isWanted: true)
        #expect(!way.isDue(now: 0))
        way.looked(found: 1)
        #expect(way.isDue(now: 0))
        way.looked(found: 0)
        #expect(!way.isDue(now: 0))
    }

    @Test("Who has got the processor back late keeps it for a while")
    func late() {
        var way = GivingWay(isWanted: true)
        way.looked(found: 3)
        way.gaveWay(for: GivingWay.longest, now: 7)
        #expect(way.isDue(now: 7))
        way.gaveWay(for: GivingWay.longest + 1, now: 7)
        #expect(!way.isDue(now: 7 + GivingWay.rest - 1))
        #expect(way.isDue(now: 7 + GivingWay.rest))
    }

    @Test("Who is not told to does not give way")
    func never() {
        var way = GivingWay(isWanted: false)
        way.looked(found: 1)
        #expect(!way.isDue(now: 1 << 40))
    }

    @Test("A loop that gives way sleeps when there is nothing")
    func sleeps() throws {
        let loop = try EventLoop()
        loop.giveWay()
        var (isOver, turns) = (false, 0)
        loop.after(nanoseconds: 50_000_000) { isOver = true }
        while !isOver {
            loop.turn(waitingAtMost: nil)
            turns += 1
        }
        #expect(turns <= 3)
    }
}
