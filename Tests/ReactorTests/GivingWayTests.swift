import CLinux
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

    @Test("A loop that gives way hears of descriptors, mail and timers as one that does not, and sleeps when there is nothing")
    func loop() throws {
        let loop = try EventLoop()
        loop.giveWay()
        var (ticks, mails, turns) = (0, 0, 0)
        let mailbox = try Mailbox<Int>()
        try loop.receive(mailbox) { _ in
            mails += 1
            if mails < 1000 { mailbox.post(mails) }
        }
        mailbox.post(0)
        func tick() {
            loop.after(nanoseconds: 20_000) {
                ticks += 1
                if ticks < 100 { tick() }
            }
        }
        tick()
        let start = linux_monotonic_nanoseconds()
        while mails < 1000 || ticks < 100 {
            loop.turn(waitingAtMost: nil)
            #expect(linux_monotonic_nanoseconds() - start < 60_000_000_000)
        }
        // Nothing is left to be heard of but this.
        var isOver = false
        loop.after(nanoseconds: 50_000_000) { isOver = true }
        while !isOver {
            loop.turn(waitingAtMost: nil)
            turns += 1
        }
        #expect(turns <= 3)
    }
}
