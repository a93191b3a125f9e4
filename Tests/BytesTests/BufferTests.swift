import Testing
import Bytes

@Suite struct BufferTests {
    @Test("A pool hands out no more than its budget, and has it again when buffers go")
    func budget() {
        let pool = BufferPool(budget: 3 * 4096)
        var buffers = (0..<3).map { _ in pool.allocate(1) }
        #expect(buffers.allSatisfy { $0 != nil })
        #expect(pool.allocate(1) == nil)
        buffers.removeLast()
        #expect(pool.inUse == 2 * 4096)
        #expect(pool.allocate(4097) == nil)
        #expect(pool.allocate(4096) != nil)
    }

    @Test("Who waits for memory is woken once, when some is given back")
    func waiters() async {
        let pool = BufferPool(budget: 4096)
        var buffer = pool.allocate(10)
        await confirmation(expectedCount: 1) { woken in
            pool.whenReleased { woken() }
            #expect(buffer != nil)
            buffer = nil
            buffer = pool.allocate(10)
            buffer = nil
        }
    }

    @Test("Headroom and tailroom can be written and read, data keep their place")
    func rooms() {
        let buffer = BufferPool(budget: 1 << 20).allocate(4096)!
        let last = buffer.capacity + Buffer.tailroom - 1
        buffer.withMutableBytes(-Buffer.headroom..<last + 1) { span in
            for index in 0..<span.count { span[index] = UInt8(truncatingIfNeeded: index) }
        }
        #expect(buffer.array(-Buffer.headroom ..< -Buffer.headroom + 3) == [0, 1, 2])
        #expect(buffer.array(0..<2) == [64, 65])
        #expect(buffer.array(last..<last + 1) == [UInt8(truncatingIfNeeded: last + Buffer.headroom)])
    }
}

@Suite struct OutputQueueTests {
    @Test("Pieces leave in order, however they were queued and however much is sent at a time", arguments: [1, 7, 4095, 4096, 4097, 100_000])
    func order(step: Int) {
        let pool = BufferPool(budget: 1 << 20)
        var queue = OutputQueue(pool: pool)
        var expected: [UInt8] = []
        let data = pool.allocate(9000)!
        data.withMutableBytes(0..<9000) { span in for index in 0..<9000 { span[index] = UInt8(truncatingIfNeeded: index * 7) } }
        for round in 0..<40 {
            let piece = (0..<round * 13).map { UInt8(truncatingIfNeeded: $0 &+ round) }
            queue.append(copying: piece.span)
            expected += piece
            if round % 5 == 0 {
                queue.append(data, round..<9000 - round)
                expected += data.array(round..<9000 - round)
            }
        }
        #expect(queue.byteCount == expected.count)
        var sent: [UInt8] = []
        while !queue.isEmpty {
            var rest = min(step, queue.byteCount)
            let now = rest
            for segment in queue.segments where rest > 0 {
                let count = min(rest, segment.range.count)
                sent += segment.buffer.array(segment.range.lowerBound..<segment.range.lowerBound + count)
                rest -= count
            }
            queue.consume(now)
        }
        #expect(sent == expected)
    }
}

@Suite struct EscapeTests {
    @Test("Only printable ASCII passes, and only up to the limit")
    func escape() {
        #expect(escaped([0x41, 0x0a, 0x5c, 0x7f, 0xc3]) == "A\\x0a\\x5c\\x7f\\xc3")
        #expect(escaped([UInt8](repeating: 0x61, count: 5), limit: 4) == "aaaa…")
        #expect(escaped([UInt8](repeating: 0x61, count: 4), limit: 4) == "aaaa")
    }

    @Test("A buffer that has been sent serves again, unless somebody else has it, there are enough, or another size is wanted")
    func reuse() {
        let pool = BufferPool(budget: 1 << 20)
        var queue = OutputQueue(pool: pool, keeps: 8192)
        func send(_ buffer: consuming Buffer) {
            queue.append(buffer, 0..<10)
            queue.append(buffer, 10..<20)
        }
        send(pool.allocate(4096)!)
        queue.consume(19)
        #expect(queue.reuse(4096) == nil, "its last byte still waits")
        queue.consume(1)
        #expect(queue.reuse(8192) == nil && pool.inUse == 0, "one of another size makes room")
        send(pool.allocate(4096)!)
        queue.consume(20)
        let again = queue.reuse(4096)
        #expect(again != nil && queue.reuse(4096) == nil)
        send(again!)
        queue.consume(20)
        #expect(queue.reuse(4096) == nil, "the test has it, too")
        queue.append(copying: [1, 2, 3].span)
        queue.consume(3)
        #expect(queue.reuse(4096) == nil, "small pieces lie in buffers of the queue's own")
        for _ in 0..<3 { send(pool.allocate(4096)!) }
        queue.consume(60)
        withExtendedLifetime(again) { #expect(pool.inUse == 3 * 4096, "two are kept, and the test has one") }
        queue.dropSpare()
        withExtendedLifetime(again) { #expect(pool.inUse == 4096) }
        var mixed = OutputQueue(pool: pool, keeps: 16384)
        for size in [8192, 4096] {
            mixed.append(pool.allocate(size)!, 0..<20)
            mixed.consume(20)
        }
        #expect(mixed.reuse(8192)?.capacity == 8192 && mixed.reuse(4096)?.capacity == 4096, "sizes that take turns are both found")
    }

    @Test("A pool is ample as long as less than half of it is handed out")
    func ample() {
        let pool = BufferPool(budget: 4 * 4096)
        var held = [pool.allocate(1)]
        #expect(pool.isAmple)
        held.append(pool.allocate(1))
        #expect(!pool.isAmple)
        held.removeLast()
        #expect(pool.isAmple)
    }

    @Test("Headers between large pieces share one buffer, and an empty queue holds that only if it may keep some and much was said lately", arguments: [0, 1])
    func headersShare(keeps: Int) {
        let (answers, dataPool) = (BufferPool(budget: 1 << 20), BufferPool(budget: 1 << 20))
        var queue = OutputQueue(pool: answers, keeps: keeps)
        let data = dataPool.allocate(4096)!
        for time in 1...OutputQueue.muchSaid + 2 {
            for index in 0..<20 {
                queue.append(copying: [UInt8](repeating: UInt8(index), count: 48).span)
                queue.append(data, 0..<4096)
            }
            #expect(answers.inUse == OutputQueue.scratchSize)
            var headers: [UInt8] = []
            for segment in queue.segments where segment.range.count == 48 { headers.append(segment.buffer.array(segment.range)[47]) }
            #expect(headers == Array(0..<20))
            queue.consume(queue.byteCount)
            #expect(answers.inUse == (keeps > 0 && time > OutputQueue.muchSaid ? OutputQueue.scratchSize : 0), "\(time)")
        }
        queue.append(copying: [1].span)
        queue.dropSpare()
        #expect(queue.drain() == [1])
        queue.dropSpare()
        #expect(answers.inUse == 0)
        queue.append(copying: [2].span)
        queue.consume(1)
        #expect(answers.inUse == 0)
    }
}
