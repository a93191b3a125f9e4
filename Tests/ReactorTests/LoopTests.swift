import CLinux
import Glibc
import Testing

@testable import Reactor

final class Recorder: EventHandler {
    var events: [Readiness] = []
    var onReady: (Readiness) -> Void = { _ in }
    func ready(_ events: Readiness) {
        self.events.append(events)
        onReady(events)
    }
}

@Suite struct LoopTests {
    @Test("timers fire by deadline, and at one deadline by age")
    func order() throws {
        let loop = try EventLoop()
        var fired: [Int] = []
        for (index, milliseconds) in [3, 1, 2, 1, 0, 3].enumerated() {
            loop.at(loop.now + UInt64(milliseconds) * 1_000_000) { fired.append(index) }
        }
        loop.after(nanoseconds: 5_000_000) { loop.stop() }
        loop.run()
        #expect(fired == [4, 1, 3, 2, 0, 5])
    }

    @Test("a timer never fires before its time, nor for ever late")
    func punctual() throws {
        let loop = try EventLoop()
        let start = linux_monotonic_nanoseconds()
        loop.after(nanoseconds: 2_500_000) { loop.stop() }
        loop.run()
        let passed = linux_monotonic_nanoseconds() - start
        #expect(passed >= 2_400_000 && passed < 2_000_000_000)
    }

    @Test("a cancelled timer does not fire and takes no room")
    func cancel() throws {
        var queue = TimerQueue()
        for round in 0..<100 {
            let timers = (0..<50).map { queue.schedule(at: UInt64((round * 31 + $0 * 17) % 97)) {} }
            for timer in timers.dropFirst() { 
                let wasLive = queue.cancel(timer)
                #expect(wasLive)
            }
            #expect(queue.count == round + 1)
            let wasLive = queue.cancel(timers[1])
            #expect(!wasLive)
        }
        var last: UInt64 = 0
        while let next = queue.next {
            #expect(next >= last)
            last = next
            _ = queue.takeDue(at: .max, notAfter: .max)
        }
        #expect(queue.count == 0)
    }

    @Test("the queue keeps its order under many schedules and cancels")
    func heap() {
        var queue = TimerQueue()
        var random = SystemRandomNumberGenerator()
        var live: [(deadline: UInt64, order: Int, id: TimerID)] = []
        var fired: [Int] = []
        for order in 0..<2000 {
            let deadline = UInt64.random(in: 0..<500, using: &random)
            live.append((deadline, order, queue.schedule(at: deadline) { fired.append(order) }))
            if order % 3 == 0 {
                let victim = live.remove(at: Int.random(in: 0..<live.count, using: &random))
                let wasLive = queue.cancel(victim.id)
                #expect(wasLive)
            }
        }
        while let work = queue.takeDue(at: .max, notAfter: .max) { work() }
        #expect(fired == live.sorted { ($0.deadline, $0.order) < ($1.deadline, $1.order) }.map(\.order))
    }

    @Test("a timer scheduled by a timer waits for the next turn")
    func nested() throws {
        let loop = try EventLoop()
        var turns = 0
        func again() {
            turns += 1
            loop.after(nanoseconds: 0, again)
        }
        again()
        loop.turn(waitingAtMost: 0)
        #expect(turns == 2)
        loop.turn(waitingAtMost: 0)
        #expect(turns == 3)
    }

    @Test("a timer that another cancels in the same turn does not fire")
    func cancelDue() throws {
        let loop = try EventLoop()
        var fired = false
        var second: TimerID?
        loop.at(0) { if let second { loop.cancel(second) } }
        second = loop.at(0) { fired = true }
        loop.turn(waitingAtMost: 0)
        loop.turn(waitingAtMost: 0)
        #expect(!fired)
    }

    @Test("a deadline beyond the clock's end is never reached")
    func farAway() throws {
        let loop = try EventLoop()
        loop.after(nanoseconds: .max) { Issue.record("fired") }
        loop.turn(waitingAtMost: 1000)
    }

    @Test("messages from many threads arrive, each thread's in order")
    func mailbox() throws {
        let loop = try EventLoop()
        let box = try Mailbox<(Int, Int)>()
        let (threads, each) = (4, 5000)
        var next = [Int](repeating: 0, count: threads)
        var inOrder = true
        var total = 0
        try loop.receive(box) { message in
            inOrder = inOrder && next[message.0] == message.1
            next[message.0] += 1
            total += 1
            if total == threads * each { loop.stop() }
        }
        let workers = try (0..<threads).map { thread in
            try WorkerThread(name: "poster") { for number in 0..<each { box.post((thread, number)) } }
        }
        loop.run()
        for worker in workers { worker.join() }
        #expect(inOrder && total == threads * each)
    }

    @Test("what is posted while a batch is handled is handled too")
    func repost() throws {
        let loop = try EventLoop()
        let box = try Mailbox<Int>()
        var seen: [Int] = []
        try loop.receive(box) { number in
            seen.append(number)
            if number < 5 { box.post(number + 1) } else { loop.stop() }
        }
        box.post(0)
        loop.run()
        #expect(seen == Array(0...5))
        loop.ignore(box)
        box.post(9)
        loop.turn(waitingAtMost: 0)
        #expect(seen.count == 6)
    }

    @Test("a loop on a thread of its own is set up, does posted work and stops")
    func loopThread() throws {
        let count = Counter()
        let thread = try LoopThread(name: "loop") { loop in loop.after(nanoseconds: 0) { count.add(1) } }
        for _ in 0..<10 { thread.mailbox.post { _ in count.add(10) } }
        while count.value < 101 { usleep(100) }
        thread.stop()
        thread.join()
        #expect(count.value == 101)
    }

    @Test("readiness is delivered as long as it lasts")
    func level() throws {
        let loop = try EventLoop()
        let pair = try MessageEnds()
        let recorder = Recorder()
        try loop.add(pair.first.rawValue, .readable, recorder)
        loop.turn(waitingAtMost: 0)
        #expect(recorder.events.isEmpty)
        guard case .done = Socket.sendMessage(pair.second.rawValue, [1]) else { throw Unexpected(what: "not sent") }
        loop.turn(waitingAtMost: 0)
        loop.turn(waitingAtMost: 0)
        #expect(recorder.events == [.readable, .readable])
        try loop.modify(pair.first.rawValue, [.readable, .writable])
        loop.turn(waitingAtMost: 0)
        #expect(recorder.events.last == [.readable, .writable])
        try loop.modify(pair.first.rawValue, [])
        loop.turn(waitingAtMost: 0)
        #expect(recorder.events.count == 3)
        loop.remove(pair.first.rawValue)
        loop.remove(pair.first.rawValue)
        #expect(!loop.isWatched(pair.first.rawValue))
    }

    @Test("an event of a removed descriptor reaches neither its handler nor the next owner of its number")
    func stale() throws {
        let loop = try EventLoop()
        var fds: [Int32] = []
        for _ in 0..<2 {
            let fd = linux_eventfd()
            _ = linux_eventfd_signal(fd)
            fds.append(fd)
        }
        let (first, second, successor) = (Recorder(), Recorder(), Recorder())
        // Whoever comes first removes the other and gives its number to a descriptor that is not ready.
        func replace(_ fd: Int32) {
            loop.remove(fd)
            // In one step: tests beside this one open descriptors too.
            let fresh = linux_eventfd()
            #expect(dup2(fresh, fd) == fd)
            close(fresh)
            do { try loop.add(fd, .readable, successor) } catch { Issue.record(error) }
        }
        first.onReady = { _ in replace(fds[1]) }
        second.onReady = { _ in replace(fds[0]) }
        try loop.add(fds[0], .readable, first)
        try loop.add(fds[1], .readable, second)
        loop.turn(waitingAtMost: 0)
        #expect(first.events.count + second.events.count == 1)
        #expect(successor.events.isEmpty)
        for fd in fds {
            loop.remove(fd)
            close(fd)
        }
    }

    @Test("the end of a turn comes after all that was ready, and a handler that asks again keeps the loop from waiting")
    func turnEnd() throws {
        final class Ender: TurnHandler {
            var log: [String] = []
            var again = 2
            let loop: EventLoop
            init(_ loop: EventLoop) { self.loop = loop }
            func endOfTurn() {
                log.append("end")
                again -= 1
                if again > 0 { loop.whenTurnEnds(self) }
            }
        }
        let loop = try EventLoop()
        let ender = Ender(loop)
        loop.at(0) {
            ender.log.append("first")
            loop.whenTurnEnds(ender)
        }
        loop.at(0) { ender.log.append("second") }
        loop.turn(waitingAtMost: 0)
        #expect(ender.log == ["first", "second", "end"])
        loop.turn(waitingAtMost: nil)
        #expect(ender.log.count == 4)
    }
}
