import Door
import Logging
import Model
import Reactor
import Synchronization
import Testing
import TLS

@testable import ControlPlane

/// Takes down what is logged.
private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    var log: Logger { Logger(label: "test") { [self] _ in Handler(lines: self) } }

    private struct Handler: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let text = "\(event.message) \((event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " "))"
            lines.lines.withLock { $0.append(text) }
        }
    }
}

@Suite struct StrangerTests {
    @Test("Lines about one user are so many, whatever he does; others' are there all the same, and users beyond the limit are one")
    func complaints() throws {
        let lines = Lines()
        let complaints = Complaints(loop: try EventLoop(), log: lines.log)
        for number in 0..<1000 { complaints.note(.notice, of: 33, "refused \(number)", ["pid": "\(number)"]) }
        #expect(lines.all.count == Complaints.perUser && lines.all.first == "refused 0 pid=0 uid=33")
        complaints.note(.notice, of: 34, "refused")
        #expect(lines.all.last == "refused uid=34")
        for uid in 100..<UInt32(Complaints.users * 3) { complaints.note(.notice, of: uid, "refused") }
        #expect(lines.all.count <= 2 * Complaints.perUser + Complaints.users)
    }

    @Test("Who is refused waits the longer the more often, has one process at a time, and is forgotten after a while; so many users are told apart")
    func pauses() {
        var pauses = RefusalPauses()
        var now: UInt64 = 1_000_000_000_000
        #expect(!pauses.holds(33, running: 5, at: now))
        var lengths: [UInt64] = []
        for _ in 0..<10 {
            lengths.append(pauses.note(33, at: now))
            #expect(pauses.holds(33, running: 0, at: now) && !pauses.holds(34, running: 5, at: now))
            now += lengths.last!
            #expect(!pauses.holds(33, running: 0, at: now) && pauses.holds(33, running: 1, at: now))
        }
        #expect(lengths.first == PeerLimits.pauses.lowerBound && lengths.last == PeerLimits.pauses.upperBound && lengths == lengths.sorted())
        now += PeerLimits.forgotten + 1
        #expect(!pauses.holds(33, running: 1, at: now))
        #expect(pauses.note(33, at: now) == PeerLimits.pauses.lowerBound)
        for uid in 1000..<UInt32(10_000) { _ = pauses.note(uid, at: now) }
        #expect(pauses.count <= PeerLimits.refused + 1 && pauses.holds(9999, running: 0, at: now))
    }

    @Test("Handshakes that fail are said once a while for each reason, and no more of them than there are")
    func handshakes() throws {
        let lines = Lines()
        var handshakes = FailedHandshakes(log: lines.log)
        let peer = try #require(SocketAddress(bytes: [192, 0, 2, 1], port: 1))
        for number in 0..<100 { handshakes.note(peer, Source(peer), nil, .protocolError, "reason \(number)\u{9b}2J", at: 0) }
        #expect(lines.all.count == 16 && lines.all.first?.contains("\u{9b}") == false)
        for _ in 0..<2 { handshakes.note(peer, Source(peer), nil, .timedOut, "reason", at: 0) }
        #expect(lines.all.count == 17)
        handshakes.note(peer, Source(peer), nil, .timedOut, "reason", at: 600_000_000_000)
        #expect(lines.all.count == 18 && lines.all.last?.contains("suppressed=1") == true)
    }

    @Test("What one user causes in a minute is bounded in bytes, and in users")
    func quota() {
        var quota = UserQuota()
        #expect(quota.left(of: 5, at: 0) == RefusedLimits.perUser)
        quota.take(RefusedLimits.perUser - 1, of: 5, at: 0)
        #expect(quota.left(of: 5, at: 1) == 1 && quota.left(of: 6, at: 1) == RefusedLimits.perUser)
        quota.take(10, of: 5, at: 1)
        #expect(quota.left(of: 5, at: RefusedLimits.window - 1) == 0 && quota.left(of: 5, at: RefusedLimits.window) == RefusedLimits.perUser)
    }

    @Test("What costs much is spread over time, in its order; what costs little is done at once; and so many wait")
    func pace() throws {
        let loop = try EventLoop()
        let pace = CostPace(loop: loop, perSecond: 1_000_000, most: 30)
        var done: [Int] = []
        let start = ContinuousClock.now
        for number in 0..<20 { #expect(pace.run(cost: 1) { done.append(number) }) }
        #expect(done.count == 20)
        for number in 20..<40 { #expect(pace.run(cost: 20_000) { done.append(number) }) }
        #expect(done.count < 25)
        while done.count < 40 { loop.turn(waitingAtMost: 1_000_000_000) }
        #expect(done == Array(0..<40) && ContinuousClock.now - start > .milliseconds(350))
        var isFull = false
        for _ in 0..<40 where !pace.run(cost: 1_000_000, {}) { isFull = true }
        #expect(isFull)
    }
}
