import Glibc
import Testing

@testable import Reactor

/// Serialized: each looks at how long threads take.
@Suite(.serialized) struct ReliefTests {
    @Test("While a loop's thread is held up, another goes on with the loop; the first stands by when it is back")
    func relieved() throws {
        let office = try Office()
        defer { office.close() }
        var clerk = try office.clerk()
        // They change places again and again: there are two.
        var clerks: Set<pthread_t> = [clerk]
        for round in 1...5 {
            #expect(office.hasRelief())
            let barrier = Barrier()
            office.send { barrier.pass() }
            let next = try office.clerk(after: { $0 != clerk })
            #expect(!office.relief.isThere, "round \(round): who stood by has taken over")
            barrier.open()
            #expect(office.reports(round).last?.isRelieved == true && office.reports(round).last?.slept == true)
            clerk = next
            clerks.insert(next)
        }
        #expect(clerks.count == 2)
    }

    @Test("Who is away on the same errand at two looks is relieved, who is away on one after the other is not")
    func looks() {
        var watch = Relief.Watch()
        for errands: UInt64 in 1...99 { #expect(watch.look(errands) == .goOn) }
        #expect(watch.look(99) == .relieve)
        #expect(watch.look(100) == .goOn)
        for _ in 1..<Relief.quietLooks { #expect(watch.look(100) == .goOn) }
        #expect(watch.look(100) == .sleep)
        #expect(watch.look(101) == .goOn)
        #expect(watch.look(101) == .relieve)
    }

    @Test("An errand that takes longer than expected is told to have slept if it did, not if it worked")
    func slept() throws {
        let office = try Office(expected: 100_000)
        defer { office.close() }
        #expect(office.hasRelief())
        let errands: [@Sendable () -> Void] = [{ usleep(300) }, { work(for: 300_000) }, {}, { usleep(300) }]
        // One after the other, and together.
        for (count, errand) in errands.enumerated() {
            office.send(errand)
            #expect(office.reports(count + 1).count == count + 1)
        }
        office.thread.mailbox.post { _ in for errand in errands { office.send(errand) } }
        let reports = office.reports(8)
        #expect(reports.map(\.slept) == [true, false, false, true, true, false, false, true], "\(reports)")
        #expect(reports.allSatisfy { !$0.slept || $0.time >= 300_000 && $0.end > $0.time })
    }

    @Test("Who stands by sleeps while nobody goes, and is there when somebody does")
    func asleep() throws {
        let office = try Office()
        defer { office.close() }
        let clerk = try office.clerk()
        for count in 1...3 {
            #expect(eventually { office.relief.sleeps })
            office.send {}
            #expect(office.reports(count).last?.isRelieved == false)
        }
        #expect(eventually { office.relief.sleeps })
        let barrier = Barrier()
        office.send { barrier.pass() }
        _ = try office.clerk(after: { $0 != clerk })
        barrier.open()
    }

    @Test("A loop ends while one of its threads is held up, and that thread when it is back")
    func ended() throws {
        let office = try Office()
        let clerk = try office.clerk()
        #expect(office.hasRelief())
        let barrier = Barrier()
        office.send { barrier.pass() }
        _ = try office.clerk(after: { $0 != clerk })
        office.thread.stop()
        barrier.open()
        office.thread.join()
    }

    @Test("A loop ends that is stopped in the turn after which its thread would be held up")
    func stoppedBefore() throws {
        let office = try Office()
        #expect(office.hasRelief())
        let barrier = Barrier()
        let (thread, sent) = (office.thread, Barrier())
        thread.mailbox.post { loop in
            sent.pass()
            loop.stop()
        }
        office.send { barrier.pass() }
        sent.open()
        thread.join()
        barrier.open()
    }

    @Test("Errands that wait when their thread is relieved are gone on with")
    func rest() throws {
        let office = try Office()
        defer { office.close() }
        #expect(office.hasRelief())
        let barrier = Barrier()
        // Both are there before the first is gone on.
        office.thread.mailbox.post { _ in
            office.send { barrier.pass() }
            office.send {}
        }
        #expect(office.reports(1).map(\.isRelieved) == [false])
        barrier.open()
        #expect(office.reports(2).last?.isRelieved == true)
    }
}

/// A door that is shut until it is opened.
private final class Barrier: Sendable {
    private let monitor = Monitor(false)

    func open() {
        monitor.withLock { $0 = true }
        monitor.ringAll()
    }
    func pass() { monitor.wait { $0 ? () : nil } }
}

private func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<10_000 {
        if try condition() { return true }
        usleep(1000)
    }
    return false
}

/// A loop with a relief, that goes on the errands which are sent to it.
private final class Office: Sendable {
    private final class Messenger: Detour {
        private let relief: Relief
        private let expected: UInt64
        private let journal: Monitor<[Relief.Errand]>
        var errands: [@Sendable () -> Void] = []

        init(_ relief: Relief, _ expected: UInt64, _ journal: Monitor<[Relief.Errand]>) { (self.relief, self.expected, self.journal) = (relief, expected, journal) }

        var isWanted: Bool { !errands.isEmpty }
        func go() -> Bool {
            relief.setOut()
            while !errands.isEmpty {
                let errand = errands.removeFirst()
                // What is not the loop's may be touched by whoever is relieved.
                let journal = journal
                let how = relief.away(expected: expected, errand)
                journal.withLock { $0.append(how) }
                journal.ringAll()
                if how.isRelieved { return false }
            }
            return true
        }
    }

    let relief = Relief(name: "office relief")
    let thread: LoopThread
    private let errands: Mailbox<@Sendable () -> Void>
    private let journal = Monitor<[Relief.Errand]>([])

    init(expected: UInt64 = 1_000_000_000) throws {
        let (errands, relief, journal) = (try Mailbox<@Sendable () -> Void>(), relief, journal)
        self.errands = errands
        thread = try LoopThread(name: "office", relief: relief) { loop in
            let messenger = Messenger(relief, expected, journal)
            loop.detour = messenger
            do { try loop.receive(errands) { messenger.errands.append($0) } } catch { preconditionFailure("\(error)") }
        }
    }

    func close() {
        thread.stop()
        thread.join()
    }

    func send(_ errand: @escaping @Sendable () -> Void) { errands.post(errand) }

    /// The thread that runs the loop, once it is one that is meant.
    func clerk(after isMeant: (pthread_t) -> Bool = { _ in true }) throws -> pthread_t {
        let end = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < end {
            let answer = Monitor<pthread_t?>(nil)
            thread.mailbox.post { _ in
                answer.withLock { $0 = pthread_self() }
                answer.ringAll()
            }
            if let thread = answer.wait(nanoseconds: 10_000_000_000, { $0 }), isMeant(thread) { return thread }
        }
        throw Unexpected(what: "nobody runs the loop")
    }

    func hasRelief() -> Bool { eventually { relief.isThere } }

    /// How the errands were that are over, once they are so many.
    func reports(_ count: Int) -> [Relief.Errand] { journal.wait(nanoseconds: 10_000_000_000) { $0.count >= count ? $0 : nil } ?? [] }
}

/// Uses the processor for so many nanoseconds.
private func work(for nanoseconds: UInt64) {
    var usage = timespec()
    unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &usage)
    let end = UInt64(usage.tv_sec) * 1_000_000_000 + UInt64(usage.tv_nsec) + nanoseconds
    repeat { unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &usage) } while UInt64(usage.tv_sec) * 1_000_000_000 + UInt64(usage.tv_nsec) < end
}
