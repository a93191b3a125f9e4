import Reactor
import Testing

@testable import Door

@Suite struct LinkTests {
    /// Control's end of data's door, and data's.
    private final class Ends {
        let loop: EventLoop
        var link: DoorLink<DataReportMessage, DataOrderMessage>?
        private var theirs: FileDescriptor?
        var received = 0
        var end: DoorEnd?

        init() throws {
            loop = try EventLoop()
            let ours = try Socket.messagePair().split(&theirs)
            link = try DoorLink(loop: loop, socket: ours, onMessage: { [unowned self] _, _ in received += 1 }, onEnd: { [unowned self] in end = $0 })
        }

        func say(_ count: Int) {
            var left = count
            while left > 0 {
                var batch = Batch()
                while left > 0, !batch.isFull {
                    batch.append(DataReportMessage.heartbeat(1), passing: nil)
                    left -= 1
                }
                _ = Socket.sendMessage(theirs.rawValue ?? -1, batch.bytes)
            }
        }
        func die() { theirs = nil }
        /// How many turns the loop takes in that time.
        func turns(nanoseconds: UInt64) -> Int {
            loop.turn(waitingAtMost: 0)
            let end = loop.now + nanoseconds
            var count = 0
            while loop.now < end {
                loop.turn(waitingAtMost: end - loop.now)
                count += 1
            }
            return count
        }
    }

    private static let most = 100

    @Test("A process that says too much of a kind is not read until the second is over, also if it says all at once")
    func pace() throws {
        #expect(DataReportMessage.heartbeat(1).row.perSecond == Self.most)
        let ends = try Ends()
        ends.say(Self.most - 1)
        _ = ends.turns(nanoseconds: 50_000_000)
        #expect(ends.received == Self.most - 1)
        ends.say(2)
        _ = ends.turns(nanoseconds: 50_000_000)
        #expect(ends.received == Self.most, "at the limit it is left to wait")
        _ = ends.turns(nanoseconds: 1_100_000_000)
        #expect(ends.received == Self.most + 1 && ends.end == nil)
    }

    @Test("One that dies in such a pause is known to be gone at once, and nobody waits for it in circles")
    func deathInPause() throws {
        let ends = try Ends()
        ends.say(Self.most + 1)
        _ = ends.turns(nanoseconds: 20_000_000)
        #expect(ends.received == Self.most)
        ends.die()
        let turns = ends.turns(nanoseconds: 100_000_000)
        guard case .closed? = ends.end else {
            Issue.record("\(String(describing: ends.end))")
            return
        }
        #expect(turns < 10)
    }
}
