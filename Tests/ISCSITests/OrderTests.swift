import Testing
@testable import ISCSI

@Suite struct OrderTests {
    @Test("A CmdSN below the window, above it or seen before is ignored with its data")
    func window() {
        let rig = Rig()
        rig.finishes = false
        for cmdSN in [9, 0, 18, 0x8000_0009, 0x8000_000a] as [UInt32] {
            rig.feed(Make.command(cmdSN, cmdSN, write: true, length: 8, data: [1, 2, 3, 4, 5, 6, 7, 8]))
        }
        #expect(rig.order.isEmpty && rig.output().isEmpty && rig.events.isEmpty)
        rig.feed(Make.read(1, 10, 4), Make.read(2, 10, 4), Make.read(3, 11, 4))
        #expect(rig.order == [1, 3])
    }

    @Test("The window closes as tasks are under way and opens as they end; at its edge nothing more is taken")
    func closing() {
        let rig = Rig()
        rig.finishes = false
        for number in 0..<9 as Range<UInt32> { rig.feed(Make.read(number, 10 + number, 4)) }
        #expect(rig.order.count == 8)
        rig.finish(rig.waiting.removeFirst())
        let pdu = rig.output()[0]
        #expect(pdu.expCmdSN == 18 && pdu.maxCmdSN == 18)
        rig.feed(Make.read(8, 18, 4))
        #expect(rig.order.count == 9)
        while let index = rig.waiting.popLast() { rig.finish(index) }
        #expect(rig.output().last?.maxCmdSN == 26)
    }

    @Test("Numbers wrap around")
    func wrapping() {
        let rig = Rig(expCmdSN: 0xffff_fffe)
        for number in 0..<6 as Range<UInt32> { rig.feed(Make.read(number, 0xffff_fffe &+ number, 4)) }
        #expect(rig.order == [0, 1, 2, 3, 4, 5])
        #expect(rig.output().last?.maxCmdSN == 11)
    }

    @Test("Whatever order commands come in, they are told in theirs, with their data", arguments: 0..<40)
    func reordering(seed: Int) {
        var random = Seeded(state: UInt64(seed))
        let digests = seed % 2 == 1
        let rig = Rig { $0.initialR2T = false; $0.headerDigest = digests; $0.dataDigest = digests }
        var groups: [[TestPDU]] = []
        for number in 0..<6 as Range<UInt32> {
            let data = Rig.pattern(Int(number) * 7 + 40)
            switch number % 3 {
            case 0:
                groups.append([
                    Make.command(number, 10 + number, write: true, final: false, length: data.count, data: Array(data[..<10])),
                    Make.dataOut(number, sn: 0, offset: 10, Array(data[10...]), final: true),
                ])
            case 1: groups.append([Make.command(number, 10 + number, write: true, length: data.count, data: data)])
            default: groups.append([Make.read(number, 10 + number, 33)])
            }
        }
        groups.append([Make.nop(99, 16, immediate: false, [1, 2, 3])])
        groups.shuffle(using: &random)
        // Bytes of all, in random pieces.
        let bytes = groups.flatMap { $0 }.flatMap { rig.bytes($0) }
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = min(rest.count, Int.random(in: 1...60, using: &random))
            rig.feed(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
        }
        #expect(rig.order == [0, 1, 2, 3, 4, 5])
        for number in [0, 1, 3, 4] as [UInt32] { #expect(rig.written[number] == Rig.pattern(Int(number) * 7 + 40)) }
        // A write whose data come late is answered late.
        #expect(rig.output().map(\.tag).sorted() == [0, 1, 2, 3, 4, 5, 99])
        #expect(rig.engine.held.isEmpty && rig.engine.heldBytes == 0 && rig.memory.inUse == 0)
    }

    @Test("PDUs before their turn are held up to the limit of bytes", arguments: [0, 1])
    func heldTooMuch(over: Int) {
        let rig = Rig { $0.initialR2T = false; $0.maxRecvDataSegmentLength = 1 << 20; $0.firstBurstLength = 1 << 21 }
        let length = FullFeatureLimits.heldBytes - 48 - 48 - 4 + 4 * over
        rig.feed(Make.command(1, 11, write: true, final: false, length: length + 4, data: Rig.pattern(4)))
        rig.feed(Make.dataOut(1, sn: 0, offset: 4, Rig.pattern(length), final: true))
        #expect(rig.events == (over == 0 ? [] : ["fail tooMuchOutOfOrder"]))
    }

    @Test("Immediate commands go ahead at once, up to a limit")
    func immediate() {
        let rig = Rig()
        rig.finishes = false
        rig.feed(Make.read(1, 11, 4))
        for number in 0..<17 as Range<UInt32> { rig.feed(Make.command(100 + number, 10, read: true, length: 4, immediate: true)) }
        #expect(rig.order == Array(100..<116))
        let pdus = rig.output()
        #expect(pdus.count == 1 && pdus[0].opcode == 0x3f && pdus[0].header[2] == 0x06)
        #expect(u32(pdus[0].data, 16) == 116)
        rig.feed(Make.read(2, 10, 4))
        #expect(rig.order.suffix(2) == [2, 1])
    }

    @Test("A tag in use is rejected, and the CmdSN counts as used")
    func tagInUse() {
        let rig = Rig()
        rig.finishes = false
        rig.feed(Make.read(1, 10, 4), Make.read(1, 11, 4), Make.read(Make.none, 12, 4), Make.read(2, 13, 4))
        #expect(rig.order == [1, 2])
        #expect(rig.output().map { $0.header[2] } == [0x07, 0x09])
    }
}

@Suite struct TaskManagementTests {
    @Test("ABORT TASK finds the task by its tag and LUN")
    func abort() {
        let rig = Rig()
        rig.finishes = false
        rig.feed(Make.read(1, 10, 4), Make.management(50, 11, 1, of: 1, ref: 10), Make.management(51, 11, 1, of: 1, ref: 10, lun: 2 << 48))
        #expect(rig.requests.map(\.referenced) == [.task(rig.waiting[0]), .doesNotExist])
        rig.engine.drop(rig.waiting[0])
        for (request, response) in zip(rig.requests, [0, 1] as [UInt8]) { rig.engine.answer(request, response: response) }
        let pdus = rig.output()
        #expect(pdus.map(\.opcode) == [0x22, 0x22] && pdus.map(\.tag) == [50, 51] && pdus.map { $0.header[2] } == [0, 1])
        #expect(rig.engine.isIdle && pdus[1].maxCmdSN == 18)
    }

    @Test("A task that has ended does not exist; one that has not come counts as received and is ignored when it comes")
    func missing() {
        let rig = Rig()
        rig.feed(Make.read(1, 10, 4), Make.management(50, 11, 1, of: 1, ref: 10))
        #expect(rig.requests.last?.referenced == .doesNotExist)
        // 11 is in the window and before the request, whose CmdSN is 12.
        rig.feed(Make.management(51, 12, 1, of: 2, ref: 11))
        #expect(rig.requests.last?.referenced == .isOver)
        rig.feed(Make.read(2, 11, 4), Make.read(3, 12, 4))
        #expect(rig.order == [1, 3])
        // At or behind the request, or outside the window.
        for ref in [13, 14, 12, 9, 40] as [UInt32] {
            rig.feed(Make.management(60 + ref, 13, 1, of: 99, ref: ref))
            #expect(rig.requests.last?.referenced == .doesNotExist)
        }
    }

    @Test("A command held for its turn can be aborted; another at the same number cannot be mistaken for it")
    func held() {
        let rig = Rig()
        rig.feed(Make.command(2, 11, write: true, length: 8, data: Rig.pattern(8)))
        rig.feed(Make.management(50, 12, 1, of: 9, ref: 11))
        #expect(rig.requests.last?.referenced == .doesNotExist)
        rig.feed(Make.management(51, 12, 1, of: 2, ref: 11))
        #expect(rig.requests.last?.referenced == .isOver)
        rig.feed(Make.read(1, 10, 4), Make.read(3, 12, 4))
        #expect(rig.order == [1, 3])
        #expect(rig.engine.heldBytes == 0)
    }

    @Test("A task whose response waits for data is over when it is aborted")
    func deferred() {
        let rig = Rig { $0.initialR2T = false }
        rig.feed(Make.command(1, 10, write: true, final: false, length: 100), Make.dataOut(1, sn: 5, offset: 0, [1], final: false))
        #expect(rig.events == ["failed outOfSequence"])
        rig.feed(Make.management(50, 11, 1, of: 1, ref: 10))
        #expect(rig.requests[0].referenced == .isOver && rig.engine.isIdle)
        rig.feed(Make.dataOut(1, sn: 6, offset: 1, [1], final: true))
        #expect(rig.output().isEmpty && rig.engine.drainingTasks == 0)
    }

    @Test("Other functions are told as they came; immediate ones up to a limit, others take a place in the window")
    func functions() {
        let rig = Rig()
        for function in 2...9 as ClosedRange<UInt8> { rig.feed(Make.management(UInt32(function), 10, function)) }
        #expect(rig.requests.map(\.function) == [2, 3, 4, 5, 6, 7, 8, 9])
        #expect(rig.requests.allSatisfy { $0.referenced == .none && $0.lun == 1 << 48 && $0.isImmediate })
        for number in 0..<9 as Range<UInt32> { rig.feed(Make.management(100 + number, 10, 5)) }
        #expect(rig.requests.count == 16)
        let rejects = rig.output()
        #expect(rejects.count == 1 && rejects[0].header[2] == 0x06)
        for number in 0..<9 as Range<UInt32> { rig.feed(Make.management(200 + number, 10 + number, 5, immediate: false)) }
        #expect(rig.requests.count == 24)
        for request in rig.requests { rig.engine.answer(request, response: 5) }
        #expect(rig.output().last?.maxCmdSN == 25)
    }
}
