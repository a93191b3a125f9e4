import Testing
@testable import ISCSI

@Suite struct ReadTests {
    @Test("A read comes in segments and sequences, its status on the last", arguments: [false, true], [false, true])
    func segments(digests: Bool, buffers: Bool) {
        let rig = Rig {
            $0.headerDigest = digests
            $0.dataDigest = digests
            $0.maxXmitDataSegmentLength = 1022
            $0.maxBurstLength = 3000
        }
        rig.usesBuffers = buffers
        rig.feed(Make.read(1, 10, 7001))
        let pdus = rig.output()
        #expect(pdus.map(\.data.count) == [1022, 1022, 956, 1022, 1022, 956, 1001])
        #expect(pdus.map(\.flags) == [0, 0, 0x80, 0, 0, 0x80, 0x81])
        #expect(pdus.map { u32($0.header, 36) } == [0, 1, 2, 3, 4, 5, 6])
        #expect(pdus.map { u32($0.header, 40) } == [0, 1022, 2044, 3000, 4022, 5044, 6000])
        #expect(pdus.allSatisfy { $0.opcode == 0x25 && $0.tag == 1 && $0.transferTag == Make.none })
        #expect(pdus.flatMap(\.data) == Rig.pattern(7001))
        #expect(pdus.last?.maxCmdSN == 18 && pdus.last?.expCmdSN == 11)
        #expect(rig.memory.inUse == 0)
    }

    @Test("Every small length is padded and digested right", arguments: [false, true])
    func lengths(buffers: Bool) {
        for digest in [false, true] {
            let rig = Rig { $0.dataDigest = digest; $0.maxXmitDataSegmentLength = 512 }
            rig.usesBuffers = buffers
            for length in Array(1...9) + Array(509...517) + [4095, 4096] {
                rig.feed(Make.read(1, rig.engine.expCmdSN, length))
                let pdus = rig.output()
                #expect(pdus.flatMap(\.data) == Rig.pattern(length))
                #expect(pdus.last?.flags == 0x81)
            }
        }
    }

    @Test("Residuals: less, as much, and more than expected", arguments: [(100, 0x02, 412, 100), (512, 0, 0, 512), (600, 0x04, 88, 512), (0, 0x02, 512, 0)])
    func residuals(natural: Int, flag: UInt8, residual: Int, sent: Int) {
        let rig = Rig()
        rig.returns = { _ in natural }
        rig.feed(Make.read(1, 10, 512))
        let pdus = rig.output()
        #expect(pdus.count == 1)
        #expect(pdus[0].opcode == (sent > 0 ? 0x25 : 0x21))
        #expect(pdus[0].data.count == sent)
        #expect(pdus[0].flags & 0x06 == flag)
        #expect(Int(u32(pdus[0].header, 44)) == residual)
    }

    @Test("A read that nobody expects data of is an overflow without Data-In")
    func unexpected() {
        let rig = Rig()
        rig.returns = { _ in 512 }
        rig.feed(Make.command(1, 10))
        let pdu = rig.output()[0]
        #expect(pdu.opcode == 0x21 && pdu.flags == 0x84 && u32(pdu.header, 44) == 512 && pdu.data.isEmpty)
    }

    @Test("Data with another status than GOOD are followed by a response, which counts them")
    func dataAndSense() {
        let rig = Rig { $0.maxXmitDataSegmentLength = 512 }
        rig.finishes = false
        rig.feed(Make.read(1, 10, 1000))
        rig.finish(rig.waiting[0], status: 2, sense: [0x70, 0, 3])
        let pdus = rig.output()
        #expect(pdus.map(\.opcode) == [0x25, 0x25, 0x21])
        #expect(pdus[1].flags == 0x80)
        #expect(pdus[2].status == 2 && pdus[2].data == [0, 3, 0x70, 0, 3] && u32(pdus[2].header, 36) == 2)
    }

    @Test("What the command says is told as it came")
    func info() {
        let rig = Rig()
        rig.finishes = false
        var pdu = Make.command(5, 10, read: true, length: 77, lun: 0x4123_0000_0000_0000, cdb: (0..<16).map { UInt8($0 + 1) })
        pdu.header[1] |= 3
        rig.feed(pdu)
        let info = rig.engine.task(rig.waiting[0])
        #expect(info.initiatorTaskTag == 5 && info.lun == 0x4123_0000_0000_0000 && info.attribute == 3 && !info.isImmediate && info.reads && !info.writes)
        #expect(info.expectedDataTransferLength == 77 && info.bidirectionalReadLength == nil && info.cmdSN == 10)
        #expect((0..<16).allSatisfy { info.cdb[$0] == UInt8($0 + 1) })
        #expect(!rig.engine.isIdle && Array(rig.engine.liveTaskIndexes) == rig.waiting)
    }
}

@Suite struct WriteTests {
    let data = Rig.pattern(20_000)

    @Test("A whole write with immediate data, unsolicited data and R2Ts, at every split", arguments: [false, true])
    func everything(digests: Bool) {
        let data = Rig.pattern(100)
        func make() -> Rig {
            Rig {
                $0.headerDigest = digests
                $0.dataDigest = digests
                $0.initialR2T = false
                $0.firstBurstLength = 30
                $0.maxBurstLength = 25
                $0.maxOutstandingR2T = 2
            }
        }
        let first = make()
        let beginning = [
            Make.command(1, 10, write: true, final: false, length: 100, data: Array(data[..<10])),
            Make.dataOut(1, sn: 0, offset: 10, Array(data[10..<17]), final: false),
            Make.dataOut(1, sn: 1, offset: 17, Array(data[17..<30]), final: true),
        ].flatMap { first.bytes($0) }
        first.feed(beginning)
        let r2ts = first.output()
        #expect(r2ts.map(\.opcode) == [0x31, 0x31])
        #expect(r2ts.map { u32($0.header, 36) } == [0, 1])
        #expect(r2ts.map { u32($0.header, 40) } == [30, 55])
        #expect(r2ts.map { u32($0.header, 44) } == [25, 25])
        #expect(Set(r2ts.map(\.transferTag)).count == 2)
        first.feed(Make.answer(r2ts[0], data, segment: 12).flatMap { first.bytes($0) })
        let third = first.output()
        #expect(third.count == 1 && u32(third[0].header, 40) == 80 && u32(third[0].header, 44) == 20)
        let rest = (Make.answer(r2ts[1], data, segment: 25) + Make.answer(third[0], data)).flatMap { first.bytes($0) }
        first.feed(rest)
        let response = first.output()
        #expect(response.count == 1 && response[0].opcode == 0x21 && response[0].status == 0 && u32(response[0].header, 36) == 3)
        #expect(first.written[1] == data)

        let whole = beginning + Make.answer(r2ts[0], data, segment: 12).flatMap { first.bytes($0) } + rest
        everySplit(whole) { pieces in
            let rig = make()
            for piece in pieces { rig.feed(piece) }
            #expect(rig.output().map(\.header) == (r2ts + third + response).map(\.header))
            #expect(rig.written[1] == data)
            #expect(rig.events.isEmpty && rig.memory.inUse == 0)
        }
    }

    @Test("Data received straight to their places are as those that come as input, however they come", arguments: [false, true], [300, 3000, 20_000, 70_000, 200_000])
    func landing(digests: Bool, most: Int) {
        let data = Rig.pattern(400_000)
        func make() -> Rig {
            let rig = Rig {
                $0.headerDigest = digests
                $0.dataDigest = digests
                $0.maxRecvDataSegmentLength = 131_072
                $0.firstBurstLength = 200_001
                $0.maxBurstLength = 131_072
                $0.initialR2T = false
            }
            // Of the second command less than it sends, of the third nothing.
            rig.wants = { $0.initiatorTaskTag == 2 ? 80_000 : $0.initiatorTaskTag == 3 ? 0 : $0.expectedDataTransferLength }
            return rig
        }
        var random = Seeded(state: UInt64(most))
        func next() -> Int { Int.random(in: 1...most, using: &random) }
        let beginning = [
            Make.command(1, 10, write: true, final: false, length: 400_000, data: Array(data[..<100_001])),
            Make.command(2, 11, write: true, length: 100_003, data: Array(data[..<100_003])),
            Make.command(3, 12, write: true, length: 65_536, data: Array(data[..<65_536])),
            Make.dataOut(1, sn: 0, offset: 100_001, Array(data[100_001..<200_001]), final: true),
        ]
        let (plain, straight) = (make(), make())
        var landed = 0
        func both(_ pdus: [TestPDU]) -> [TestPDU] {
            let bytes = pdus.flatMap { plain.bytes($0) }
            plain.feed(bytes)
            landed += straight.feed(bytes, landing: next)
            let (output, other) = (plain.output(), straight.output())
            #expect(output.map(\.header) == other.map(\.header))
            return output
        }
        var pdus = both(beginning)
        while let r2t = pdus.first(where: { $0.opcode == 0x31 }) { pdus = both(Make.answer(r2t, data, segment: 100_000)) }
        #expect(straight.written[1] == data && straight.written[2] == Array(data[..<80_000]) && straight.written[3] == [])
        #expect(straight.written == plain.written && straight.events.isEmpty && straight.memory.inUse == 0)
        #expect(straight.engine.traffic == plain.engine.traffic)
        #expect(landed > 100_000 || most > 100_000, "\(landed) bytes went straight to their places")

        // A wrong data digest is found over what has landed, too.
        guard digests else { return }
        var wrong = plain.bytes(Make.command(4, 13, write: true, length: 100_000, data: Array(data[..<100_000])))
        wrong[wrong.count - 4 - Int.random(in: 1...100_000, using: &random)] ^= 1
        plain.feed(wrong)
        _ = straight.feed(wrong, landing: next)
        #expect(straight.events == ["fail dataDigest"] && plain.events == straight.events)
    }

    @Test("Only many bytes have a place of their own, and only while they are data of a task that wants them", arguments: [-1, 0, 1])
    func landingLimit(difference: Int) {
        let length = FullFeatureLimits.landing + difference
        let data = Rig.pattern(length)
        func rig(_ wants: Int) -> Rig {
            let rig = Rig { $0.maxRecvDataSegmentLength = 1 << 20; $0.firstBurstLength = 1 << 20 }
            rig.wants = { _ in wants }
            return rig
        }
        let bytes = Make.command(1, 10, write: true, length: length, data: data).bytes()
        let all = rig(length)
        #expect(all.engine.landing == nil && !all.engine.isInBulk)
        all.feed(Array(bytes[..<47]))
        #expect(all.engine.landing == nil)
        all.feed([bytes[47]])
        #expect(all.engine.landing?.range == (difference < 0 ? nil : 0..<length))
        #expect(all.engine.isInBulk == (difference >= 0))
        all.feed([bytes[48]])
        #expect(all.engine.landing?.range == (difference < 1 ? nil : 1..<length))
        all.feed(Array(bytes[49...]))
        #expect(all.engine.landing == nil && all.written[1] == data)

        let less = rig(FullFeatureLimits.landing - 1)
        less.feed(Array(bytes[..<48]))
        #expect(less.engine.landing == nil, "it wants less than it is sent")
        let dropped = rig(length)
        dropped.feed(Array(bytes[..<48]))
        dropped.engine.drop(TaskIndex(rawValue: 0))
        #expect(dropped.engine.landing == nil)
        dropped.feed(Array(bytes[48...]))
        #expect(dropped.events.isEmpty)
    }

    @Test("As many R2Ts as agreed are outstanding, and never more than the limit", arguments: [(1, 1), (4, 4), (16, 16), (65535, 16)])
    func outstanding(agreed: Int, seen: Int) {
        let rig = Rig { $0.maxOutstandingR2T = agreed; $0.maxBurstLength = 512; $0.maxRecvDataSegmentLength = 512 }
        rig.feed(Make.command(1, 10, write: true, length: data.count))
        var r2ts = rig.output()
        #expect(r2ts.count == seen)
        var total = r2ts.count
        while let r2t = r2ts.first, rig.written[1] == nil {
            r2ts.removeFirst()
            for pdu in Make.answer(r2t, data, segment: 512) { rig.feed(pdu) }
            let more = rig.output().filter { $0.opcode == 0x31 }
            total += more.count
            r2ts += more
            #expect(r2ts.count <= seen)
        }
        #expect(total == 40)
        #expect(rig.written[1] == data)
    }

    @Test("Without immediate data and with InitialR2T everything is asked for")
    func onlySolicited() {
        let rig = Rig { $0.immediateData = false }
        rig.feed(Make.command(1, 10, write: true, length: 5000))
        let r2t = rig.output()[0]
        #expect(u32(r2t.header, 40) == 0 && u32(r2t.header, 44) == 5000)
        #expect(u32(Array(r2t.header[8..<12]), 0) == 0x0001_0000)
        rig.feed(Make.answer(r2t, data)[0])
        #expect(rig.written[1] == Array(data[..<5000]))
    }

    @Test("What is sent and not wanted is discarded; what is wanted alone is asked for")
    func partlyWanted() {
        let rig = Rig { $0.initialR2T = false; $0.firstBurstLength = 1000 }
        rig.wants = { _ in 300 }
        rig.feed(Make.command(1, 10, write: true, final: false, length: 5000, data: Array(data[..<200])))
        rig.feed(Make.dataOut(1, sn: 0, offset: 200, Array(data[200..<1000]), final: true))
        let response = rig.output()
        #expect(response.count == 1 && response[0].flags == 0x82 && u32(response[0].header, 44) == 4700)
        #expect(rig.written[1] == Array(data[..<300]))

        let asking = Rig()
        asking.wants = { _ in 300 }
        asking.feed(Make.command(1, 10, write: true, length: 5000, data: Array(data[..<200])))
        let r2t = asking.output()[0]
        #expect(u32(r2t.header, 40) == 200 && u32(r2t.header, 44) == 100)
    }

    @Test("A write of which nothing is wanted ends when its unsolicited data are through")
    func unwanted() {
        let rig = Rig { $0.initialR2T = false }
        rig.wants = { _ in 0 }
        rig.feed(Make.command(1, 10, write: true, final: false, length: 2000, data: Array(data[..<1000])))
        #expect(rig.output().isEmpty)
        rig.feed(Make.dataOut(1, sn: 0, offset: 1000, Array(data[1000..<2000]), final: true))
        #expect(rig.output().map(\.opcode) == [0x21])
    }

    @Test("A response given early waits for the data on their way")
    func deferred() {
        let rig = Rig { $0.initialR2T = false }
        var offset = 0
        let command = Make.command(1, 10, write: true, final: false, length: 2000, data: Array(data[..<1000])).bytes()
        guard case .command(let index) = rig.engine.next(command.span, &offset) else { Issue.record("no command"); return }
        rig.engine.finish(index, status: 2, sense: [0x70], dataIn: .none, naturalLength: 0)
        guard case .needsInput = rig.engine.next(command.span, &offset) else { Issue.record("an event"); return }
        #expect(rig.output().isEmpty && !rig.engine.isIdle)
        rig.feed(Make.dataOut(1, sn: 0, offset: 1000, Array(data[1000..<2000]), final: true))
        let pdus = rig.output()
        #expect(pdus.count == 1 && pdus[0].status == 2 && rig.engine.isIdle)
    }

    @Test("FirstBurstLength bounds immediate and unsolicited data together", arguments: [(511, 1, true), (511, 2, false), (512, 0, true), (513, 0, false), (0, 512, true), (0, 513, false)])
    func firstBurst(immediate: Int, unsolicited: Int, fits: Bool) {
        let rig = Rig { $0.initialR2T = false; $0.firstBurstLength = 512 }
        rig.feed(Make.command(1, 10, write: true, final: unsolicited == 0, length: 5000, data: Array(data[..<immediate])))
        if unsolicited > 0 {
            rig.feed(Make.dataOut(1, sn: 0, offset: immediate, Array(data[immediate..<immediate + unsolicited]), final: true))
        }
        #expect(rig.events == (fits ? [] : ["failed incorrectAmountOfData"]))
        #expect(rig.output().map(\.opcode) == [fits ? 0x31 : 0x21])
    }

    /// What is wrong, how the session was agreed, the PDUs behind the command, and the error.
    @Test("Data that break the agreement end the task, not the connection; the response waits for their end")
    func violations() {
        typealias Case = (String, (inout NegotiatedParameters) -> Void, TestPDU, [TestPDU], DataOutError)
        let unsolicited: (inout NegotiatedParameters) -> Void = { $0.initialR2T = false }
        let first = Make.command(1, 10, write: true, final: false, length: 2000)
        let cases: [Case] = [
            ("immediate data of a read", unsolicited, Make.command(1, 10, read: true, length: 2000, data: [1]), [], .unexpectedUnsolicitedData),
            ("immediate data not agreed", { $0.immediateData = false }, Make.command(1, 10, write: true, length: 2000, data: [1]), [], .unexpectedUnsolicitedData),
            ("immediate data over the expected length", unsolicited, Make.command(1, 10, write: true, length: 2, data: [1, 2, 3]), [], .incorrectAmountOfData),
            ("unsolicited not agreed", { _ in }, first, [Make.dataOut(1, sn: 0, offset: 0, [1], final: true)], .unexpectedUnsolicitedData),
            ("DataSN not 0", unsolicited, first, [Make.dataOut(1, sn: 1, offset: 0, [1], final: true)], .outOfSequence),
            ("DataSN the same again", unsolicited, first, [Make.dataOut(1, sn: 0, offset: 0, [1], final: false), Make.dataOut(1, sn: 0, offset: 1, [1], final: true)], .outOfSequence),
            ("Buffer Offset", unsolicited, first, [Make.dataOut(1, sn: 0, offset: 4, [1], final: true)], .outOfSequence),
            ("over the expected length", unsolicited, first, [Make.dataOut(1, sn: 0, offset: 0, Array(data[..<2001]), final: true)], .incorrectAmountOfData),
            ("a tag never given", unsolicited, first, [Make.dataOut(1, 77, sn: 0, offset: 0, [1], final: true), Make.dataOut(1, sn: 0, offset: 0, [], final: true)], .outOfSequence),
        ]
        for (what, agreed, command, pdus, error) in cases {
            let rig = Rig(agreed)
            rig.feed(command)
            if pdus.isEmpty == false { #expect(rig.output().isEmpty, "\(what)") }
            for pdu in pdus { rig.feed(pdu) }
            #expect(rig.events == ["failed \(error)"], "\(what)")
            let responses = rig.output()
            #expect(responses.count == 1 && responses[0].opcode == 0x21 && responses[0].status == 2, "\(what)")
            // The connection goes on.
            rig.feed(Make.read(2, 11, 4))
            #expect(rig.output().map(\.tag) == [2], "\(what)")
            #expect(rig.memory.inUse == 0)
        }
    }

    @Test("An answer to an R2T that is not what was asked for ends the task when its F bit has come")
    func solicitedViolations() {
        let cases: [(String, (TestPDU) -> [TestPDU], DataOutError)] = [
            ("too little", { [Make.dataOut(1, $0.transferTag, sn: 0, offset: 0, [1], final: true)] }, .incorrectAmountOfData),
            ("F bit missing", { [Make.dataOut(1, $0.transferTag, sn: 0, offset: 0, Array(data[..<512]), final: false), Make.dataOut(1, $0.transferTag, sn: 1, offset: 512, [], final: true)] }, .incorrectAmountOfData),
            ("too much", { [Make.dataOut(1, $0.transferTag, sn: 0, offset: 0, Array(data[..<513]), final: true)] }, .incorrectAmountOfData),
            ("another tag", { [Make.dataOut(1, $0.transferTag + 9, sn: 0, offset: 0, Array(data[..<512]), final: true)] }, .outOfSequence),
            ("offset", { [Make.dataOut(1, $0.transferTag, sn: 0, offset: 512, Array(data[..<512]), final: true)] }, .outOfSequence),
            ("DataSN", { [Make.dataOut(1, $0.transferTag, sn: 27, offset: 0, Array(data[..<512]), final: true)] }, .outOfSequence),
            ("DataSN of all ones", { [Make.dataOut(1, $0.transferTag, sn: Make.none, offset: 0, Array(data[..<512]), final: true)] }, .outOfSequence),
            ("unsolicited", { [Make.dataOut(1, sn: 0, offset: 0, Array(data[..<512]), final: true), Make.dataOut(1, $0.transferTag, sn: 0, offset: 0, Array(data[..<512]), final: true)] }, .unexpectedUnsolicitedData),
        ]
        for (what, answer, error) in cases {
            let rig = Rig { $0.maxBurstLength = 512 }
            rig.feed(Make.command(1, 10, write: true, length: 2000))
            let r2t = rig.output()[0]
            for pdu in answer(r2t) { rig.feed(pdu) }
            #expect(rig.events == ["failed \(error)"], "\(what)")
            #expect(rig.output().map(\.opcode) == [0x21], "\(what)")
            #expect(rig.memory.inUse == 0 && rig.engine.isIdle)
        }
    }

    @Test("Data of a dropped task are discarded until their F bit, then its tag is unknown")
    func dropped() {
        let rig = Rig { $0.initialR2T = false }
        rig.finishes = false
        var offset = 0
        let command = Make.command(1, 10, write: true, final: false, length: 5000).bytes()
        guard case .command(let index) = rig.engine.next(command.span, &offset) else { Issue.record("no command"); return }
        rig.engine.drop(index)
        rig.feed([])
        #expect(rig.isIdle)
        rig.feed(Make.dataOut(1, sn: 0, offset: 0, Array(data[..<1000]), final: false))
        rig.feed(Make.dataOut(1, sn: 1, offset: 1000, Array(data[1000..<2000]), final: true))
        #expect(rig.output().isEmpty && rig.events.isEmpty)
        rig.feed(Make.dataOut(1, sn: 2, offset: 2000, Array(data[2000..<3000]), final: true))
        let pdus = rig.output()
        #expect(pdus.map(\.opcode) == [0x3f] && pdus[0].header[2] == 0x04)
    }

    @Test("The room of tasks is given back when there are none, and only then")
    func shrink() {
        let rig = Rig { $0.initialR2T = false }
        rig.finishes = false
        for tag in 0..<8 { rig.feed(Make.command(UInt32(tag), 10 + UInt32(tag), write: true, length: 4, data: [1, 2, 3, 4])) }
        for (index, task) in rig.waiting.enumerated() {
            rig.engine.shrink()
            #expect(rig.engine.tasks.count == 8, "\(8 - index) are under way")
            rig.finish(task)
        }
        rig.feed(Make.command(9, 18, write: true, final: false, length: 100))
        rig.engine.drop(TaskIndex(rawValue: rig.engine.slotOfTag[9] ?? 0))
        rig.engine.shrink()
        #expect(rig.engine.tasks.count == 8, "data of a dropped task are on their way")
        rig.feed(Make.dataOut(9, sn: 0, offset: 0, Rig.pattern(100), final: true))
        rig.engine.shrink()
        #expect(rig.engine.tasks.isEmpty && rig.engine.freeSlots.isEmpty)
        rig.finishes = true
        rig.feed(Make.command(9, 19, write: true, length: 4, data: [5, 6, 7, 8]))
        #expect(rig.written[9] == [5, 6, 7, 8] && rig.events.isEmpty)
    }

    @Test("The tag of a dropped task whose data never come serves a new task; many such tasks are forgotten")
    func reused() {
        let rig = Rig { $0.initialR2T = false }
        for round in 0..<200 as Range<UInt32> {
            var offset = 0
            let command = Make.command(round < 3 ? 1 : round, 10 + round, write: true, final: false, length: 5000).bytes()
            guard case .command(let index) = rig.engine.next(command.span, &offset) else { Issue.record("no command"); return }
            rig.engine.drop(index)
            rig.feed([])
        }
        #expect(rig.engine.drainingTasks == FullFeatureLimits.draining)
        #expect(rig.engine.tasks.count <= FullFeatureLimits.draining + 8)
        rig.feed(Make.command(1, 210, write: true, length: 4, data: [1, 2, 3, 4]))
        #expect(rig.written[1] == [1, 2, 3, 4])
    }

    @Test("A task dropped in the middle of its PDU leaves nothing behind, at every split")
    func droppedInside() {
        let command = Make.command(1, 10, write: true, length: 64, data: Rig.pattern(64)).bytes()
        for split in 48..<command.count {
            let rig = Rig()
            rig.finishes = false
            let beginning = Array(command[..<split])
            rig.feed(beginning)
            guard let index = rig.engine.liveTaskIndexes.first(where: { _ in true }) else { Issue.record("no task"); return }
            rig.engine.drop(index)
            rig.feed(Array(command[split...]) + Make.read(2, 11, 4).bytes())
            #expect(rig.waiting.count == 1 && rig.engine.drainingTasks == 0)
        }
    }
}
