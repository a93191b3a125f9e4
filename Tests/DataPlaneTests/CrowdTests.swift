import Door
import Reactor
import Testing

@testable import DataPlane

private func source(_ address: String) -> Source {
    guard let address = SocketAddress(address, defaultPort: 0) else { preconditionFailure("a test's address is one") }
    return Source(address)
}
private func id(_ number: UInt64) -> ConnectionID { ConnectionID(rawValue: number) }

@Suite struct CrowdTests {
    @Test("The oldest connection of the source that has most goes first")
    func victim() {
        var crowd = Crowd()
        #expect(crowd.victim == nil)
        let (greedy, modest) = (source("192.0.2.1"), source("192.0.2.2"))
        crowd.add(id(1), from: modest)
        #expect(crowd.victim == id(1))
        for number in 2...4 { crowd.add(id(UInt64(number)), from: greedy) }
        #expect(crowd.victim == id(2) && crowd.count(of: greedy) == 3 && crowd.count == 4)
        crowd.remove(id(2), from: greedy)
        #expect(crowd.victim == id(3))
        crowd.remove(id(4), from: greedy)
        // Now both have one: the one who came to have one first.
        #expect(crowd.victim == id(1))
        crowd.remove(id(1), from: modest)
        #expect(crowd.victim == id(3))
        crowd.remove(id(3), from: greedy)
        #expect(crowd.victim == nil && crowd.count == 0)
        // Twice is once.
        crowd.remove(id(3), from: greedy)
        #expect(crowd.count == 0)
    }

    @Test("It agrees with counting, whatever comes and goes, and a newcomer from a quiet source is never the one to go")
    func againstCounting() {
        var random = SplitMix(state: 7)
        var crowd = Crowd()
        var held: [(id: ConnectionID, source: Source)] = []
        let sources = (1...9).map { source("198.51.100.\($0)") }
        for number in 0..<4_000 {
            if held.isEmpty || random.next() % 5 < 3, held.count < 200 {
                // Some are greedier.
                let source = sources[min(Int(random.next() % 9), Int(random.next() % 9))]
                held.append((id(UInt64(number)), source))
                crowd.add(id(UInt64(number)), from: source)
            } else {
                let gone = held.remove(at: Int(random.next() % UInt64(held.count)))
                crowd.remove(gone.id, from: gone.source)
            }
            let counts = Dictionary(grouping: held, by: \.source).mapValues(\.count)
            let most = counts.values.max() ?? 0
            guard crowd.count == held.count, sources.allSatisfy({ crowd.count(of: $0) == counts[$0] ?? 0 }) else {
                Issue.record("step \(number)")
                return
            }
            guard let victim = crowd.victim.flatMap({ victim in held.first { $0.id == victim } }) else {
                guard held.isEmpty else {
                    Issue.record("step \(number): nobody goes")
                    return
                }
                continue
            }
            guard counts[victim.source] == most, held.first(where: { $0.source == victim.source })?.id == victim.id else {
                Issue.record("step \(number): the wrong one goes")
                return
            }
        }
    }

    @Test("A source is an IPv4 address or the /64 of an IPv6 address")
    func sources() {
        #expect(source("192.0.2.1") != source("192.0.2.2"))
        #expect(source("192.0.2.1") == source("::ffff:192.0.2.1") && source("192.0.2.1") == source("64:ff9b::192.0.2.1"))
        #expect(source("2001:db8:1:2::1") == source("2001:db8:1:2:ffff::9") && source("2001:db8:1:2::1") != source("2001:db8:1:3::1"))
        #expect(source("2001:db8:1:2::1").site == source("2001:db8:1:ffff::1").site && source("2001:db8:1::1").site != source("2001:db8:2::1").site)
        #expect(source("192.0.2.1").site == nil && source("192.0.2.1").bytes == [192, 0, 2, 1])
        #expect(source("::1") != source("0.0.0.0"))
        #expect(source("2001:db8:1:2::1").site?.bytes == [0x20, 1, 0xd, 0xb8, 0, 1] + [UInt8](repeating: 0, count: 10))
    }
}

private struct SplitMix {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

@Suite struct PacedQueueTests {
    @Test("So many in a tenth of a second, the others in their order; never as many as would close the door")
    func pace() throws {
        for row in DataReportMessage.table where ["keep", "sendTargets"].contains(row.name) {
            // A second of control's may touch eleven of ours.
            #expect(11 * PacedQueue<Int>.usual < row.perSecond, "\(row.name)")
        }
        for row in LoginQuestionMessage.table where row.name == "sendTargets" { #expect(11 * PacedQueue<Int>.usual < row.perSecond) }
        let loop = try EventLoop()
        var sent: [Int] = []
        let queue = PacedQueue<Int>(loop: loop, limit: 10) { sent.append($0) }
        let begin = loop.now
        for number in 0..<25 { queue.append(number) }
        #expect(sent == Array(0..<10) && queue.count == 15)
        while sent.count < 25, loop.now < begin + 5_000_000_000 {
            loop.turn(waitingAtMost: 1_000_000_000)
            #expect(sent.count <= 10 + 10 * Int((loop.now - begin) / PacedQueue<Int>.span))
        }
        #expect(sent == Array(0..<25))
        // Whoever asks later waits for nothing.
        let end = loop.now + 2 * PacedQueue<Int>.span
        while loop.now < end { loop.turn(waitingAtMost: end - loop.now) }
        queue.append(99)
        #expect(sent.last == 99 && queue.count == 0)
    }
}
