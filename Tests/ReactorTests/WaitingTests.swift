import Reactor
import Testing

@Suite struct WaitingTests {
    /// What a loop does before it sleeps.
    enum Way: CaseIterable {
        case nothing, looksBusily, givesWay
    }

    @Test("A loop hears of descriptors, mail and timers, whatever it does before it sleeps", arguments: Way.allCases)
    func loop(way: Way) throws {
        let loop = try EventLoop()
        switch way {
        case .nothing: break
        case .looksBusily: loop.pollBusily(atMost: 1_000_000)
        case .givesWay: loop.giveWay()
        }
        var (ticks, mails) = (0, 0)
        let mailbox = try Mailbox<Int>()
        try loop.receive(mailbox) { _ in
            mails += 1
            if mails < 1000 { mailbox.post(mails) }
        }
        mailbox.post(0)
        func tick() {
            loop.after(nanoseconds: 20_000) {
                ticks += 1
                if ticks >= 100, mails >= 1000 { loop.stop() } else { tick() }
            }
        }
        tick()
        let limit = loop.after(nanoseconds: 60_000_000_000) { loop.stop() }
        loop.run()
        loop.cancel(limit)
        #expect(mails == 1000 && ticks >= 100)
    }
}
