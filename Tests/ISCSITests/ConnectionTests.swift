import Testing
@testable import ISCSI

@Suite struct NopTests {
    @Test("A ping comes back with what it carried, at every split; a NOP-Out without a tag is not answered")
    func ping() {
        let bytes = Make.nop(1, 10, [1, 2, 3, 4, 5]).bytes() + Make.nop(2, 10, immediate: false).bytes() + Make.nop(Make.none, 11).bytes()
        everySplit(bytes) { pieces in
            let rig = Rig()
            for piece in pieces { rig.feed(piece) }
            let pdus = rig.output()
            #expect(pdus.map(\.opcode) == [0x20, 0x20] && pdus.map(\.tag) == [1, 2])
            #expect(pdus[0].data == [1, 2, 3, 4, 5] && pdus[0].transferTag == Make.none && pdus[0].expCmdSN == 10)
            #expect(pdus[1].data == [] && pdus[1].expCmdSN == 11)
        }
    }

    @Test("A long ping is answered as far as the initiator can take it, and we care to keep")
    func long() {
        let rig = Rig { $0.maxXmitDataSegmentLength = 512 }
        rig.feed(Make.nop(1, 10, Rig.pattern(2000)))
        #expect(rig.output()[0].data == Array(Rig.pattern(2000)[..<512]))
        let large = Rig { $0.maxRecvDataSegmentLength = 1 << 20; $0.maxXmitDataSegmentLength = 1 << 20 }
        large.feed(Make.nop(1, 10, Rig.pattern(1 << 20)))
        #expect(large.output()[0].data.count == FullFeatureLimits.pingBytes)
        #expect(large.engine.collected.capacity <= FullFeatureLimits.textBytes)
    }

    @Test("Our pings are counted until one is answered")
    func pong() {
        let rig = Rig()
        rig.engine.ping()
        rig.engine.ping()
        #expect(rig.engine.unansweredPings == 2)
        let pings = rig.output()
        #expect(pings.allSatisfy { $0.opcode == 0x20 && $0.tag == Make.none && $0.transferTag != Make.none && $0.flags == 0x80 })
        rig.feed(Make.nop(Make.none, 10).with(pings[1].transferTag, at: 20))
        #expect(rig.engine.unansweredPings == 0 && rig.output().isEmpty)
    }
}

@Suite struct TextTests {
    static func targets(_ count: Int) throws -> [DiscoveredTarget] {
        try (0..<count).map {
            DiscoveredTarget(name: try ISCSIName("iqn.2001-04.com.example:disk\($0)".utf8), addresses: ["192.0.2.1:3260", "[2001:db8::1]:3260"], portalGroupTag: 1)
        }
    }

    @Test("SendTargets in discovery, at every split")
    func sendTargets() throws {
        let targets = try Self.targets(2)
        let bytes = Make.text(1, 10, keys("SendTargets=All")).bytes()
        everySplit(bytes) { pieces in
            let rig = Rig(type: .discovery)
            for piece in pieces { rig.feed(piece) }
            #expect(rig.questions.map(\.selection) == [.all])
            rig.engine.sendTargets(rig.questions[0], targets)
            let pdu = rig.output()[0]
            #expect(pdu.opcode == 0x24 && pdu.flags == 0x80 && pdu.tag == 1 && pdu.transferTag == Make.none)
            #expect(
                pdu.text == [
                    "TargetName=iqn.2001-04.com.example:disk0", "TargetAddress=192.0.2.1:3260,1", "TargetAddress=[2001:db8::1]:3260,1",
                    "TargetName=iqn.2001-04.com.example:disk1", "TargetAddress=192.0.2.1:3260,1", "TargetAddress=[2001:db8::1]:3260,1",
                ])
        }
    }

    @Test("A long answer is fetched piece by piece", arguments: [(512, 300), (512, 12), (8192, 300)])
    func paging(segment: Int, count: Int) throws {
        let rig = Rig({ $0.maxXmitDataSegmentLength = segment }, type: .discovery)
        let targets = try Self.targets(count)
        rig.feed(Make.text(1, 10, keys("SendTargets=All")))
        rig.engine.sendTargets(rig.questions[0], targets)
        var text: [UInt8] = []
        var cmdSN: UInt32 = 11
        while let pdu = rig.output().first {
            text += pdu.data
            if pdu.flags == 0x80 { break }
            #expect(pdu.flags == 0x40 && pdu.data.count == segment && pdu.transferTag != Make.none)
            rig.feed(Make.text(1, cmdSN, transfer: pdu.transferTag, []))
            cmdSN += 1
        }
        #expect(text == targets.flatMap(\.text))
        #expect(rig.engine.text == nil)
    }

    @Test("No target is an answer, too")
    func none() {
        let rig = Rig(type: .discovery)
        rig.feed(Make.text(1, 10, keys("SendTargets=iqn.x:y")))
        #expect(rig.questions.first?.selection == (try? .name(ISCSIName("iqn.x:y".utf8))))
        rig.engine.sendTargets(rig.questions[0], [])
        #expect(rig.output().map(\.data) == [[]])
    }

    @Test("What a session may ask for: Appendix C", arguments: [
        (SessionType.normal, "All", false), (.normal, "", true), (.normal, "iqn.b", true), (.discovery, "All", true), (.discovery, "", false), (.discovery, "a b", false),
    ])
    func permitted(type: SessionType, value: String, isPermitted: Bool) {
        let rig = Rig(type: type)
        rig.feed(Make.text(1, 10, keys("SendTargets=\(value)")))
        #expect(rig.questions.count == (isPermitted ? 1 : 0))
        #expect(rig.output().map(\.text) == (isPermitted ? [] : [["SendTargets=Reject"]]))
    }

    @Test("Keys split over requests, an exchange that goes on, other keys")
    func exchange() {
        let rig = Rig { $0.maxXmitDataSegmentLength = 4096 }
        rig.feed(Make.text(1, 10, flags: 0x40, Array("X-a=".utf8)))
        let first = rig.output()[0]
        #expect(first.flags == 0 && first.data == [] && first.transferTag != Make.none)
        rig.feed(Make.text(1, 11, transfer: first.transferTag, flags: 0, keys("1", "MaxBurstLength=1000", "MaxRecvDataSegmentLength=600", "InitiatorAlias=b")))
        let second = rig.output()[0]
        #expect(second.flags == 0 && second.text == ["X-a=NotUnderstood", "MaxBurstLength=Reject"])
        rig.feed(Make.text(1, 12, transfer: second.transferTag, []))
        #expect(rig.output()[0].flags == 0x80)
        rig.feed(Make.read(2, 13, 1000))
        #expect(rig.output().map(\.data.count) == [600, 400])
        for (value, answers) in [("511", ["MaxRecvDataSegmentLength=Reject"]), ("512", []), ("16777215", []), ("16777216", ["MaxRecvDataSegmentLength=Reject"])] {
            rig.feed(Make.text(3, rig.engine.expCmdSN, keys("MaxRecvDataSegmentLength=\(value)")))
            #expect(rig.output().map(\.text) == [answers])
        }
        #expect(rig.engine.maxXmitDataSegmentLength == 4096)
    }

    @Test("What is wrong with a Text Request is rejected, and the next one works")
    func wrong() throws {
        let cases: [(String, [TestPDU], UInt8)] = [
            ("F and C", [Make.text(1, 10, flags: 0xc0, [])], 0x04),
            ("no tag", [Make.text(Make.none, 10, [])], 0x04),
            ("unknown transfer tag", [Make.text(1, 10, transfer: 99, [])], 0x09),
            ("unterminated", [Make.text(1, 10, Array("X-a=1".utf8))], 0x04),
            ("a key twice", [Make.text(1, 10, keys("X-a=1", "X-a=1"))], 0x04),
            ("too many keys", [Make.text(1, 10, (0..<33).flatMap { keys("X-\($0)=1") })], 0x04),
            ("too much text", [Make.text(1, 10, flags: 0x40, Array(repeating: 0x61, count: 8192)), Make.text(1, 11, transfer: 1, [0x61])], 0x09),
        ]
        for (what, pdus, reason) in cases {
            let rig = Rig()
            for pdu in pdus { rig.feed(pdu) }
            let rejects = rig.output()
            #expect(rejects.last?.opcode == 0x3f && rejects.last?.header[2] == reason, "\(what)")
            rig.feed(Make.text(9, 10 + UInt32(pdus.count), keys("X-a=1")))
            #expect(rig.output().map(\.text) == [["X-a=NotUnderstood"]], "\(what)")
        }
        let fetching = Rig({ $0.maxXmitDataSegmentLength = 512 }, type: .discovery)
        fetching.feed(Make.text(1, 10, keys("SendTargets=All")))
        fetching.engine.sendTargets(fetching.questions[0], Array(repeating: DiscoveredTarget(name: try ISCSIName("a".utf8), addresses: [], portalGroupTag: 1), count: 100))
        fetching.feed(Make.text(1, 11, transfer: fetching.output()[0].transferTag, keys("X-a=1")))
        #expect(fetching.output().map { $0.header[2] } == [0x04])

        let rig = Rig()
        rig.feed(Make.text(1, 10, keys("SendTargets=")), Make.text(2, 11, keys("X-a=1")))
        #expect(rig.output().map { $0.header[2] } == [0x04])
        rig.engine.sendTargets(rig.questions[0], [])
        #expect(rig.output().map(\.tag) == [1])
    }
}

@Suite struct ConnectionTests {
    @Test("Logout tells its reason and connection, is answered when the caller says, and nothing may follow it")
    func logout() {
        for reason in 0...2 as ClosedRange<UInt8> {
            let rig = Rig()
            rig.finishes = false
            rig.feed(Make.command(1, 10, write: true, length: 4), Make.logout(9, 11, reason, immediate: reason != 1))
            #expect(rig.logouts.map(\.reason.rawValue) == [reason] && rig.logouts.map(\.cid) == [7])
            // Data of tasks under way still come.
            let r2t = rig.output()[0]
            rig.feed(Make.dataOut(1, r2t.transferTag, sn: 0, offset: 0, [1, 2, 3, 4], final: true))
            rig.finish(rig.waiting[0])
            rig.engine.answer(rig.logouts[0], response: 0)
            let pdus = rig.output()
            #expect(pdus.map(\.opcode) == [0x21, 0x26] && pdus[1].tag == 9)
            #expect(u16(pdus[1].header, 40) == 2 && u16(pdus[1].header, 42) == 20)
            rig.feed(Make.read(2, 12, 4))
            #expect(rig.events == ["fail requestAfterLogout"])
        }
        let refused = Rig()
        refused.feed(Make.logout(9, 10, 2))
        refused.engine.answer(refused.logouts[0], response: 2)
        refused.feed(Make.read(1, 10, 4))
        #expect(refused.output().map(\.opcode) == [0x26, 0x25] && refused.events.isEmpty, "what is refused leaves the connection as it was")

        let rig = Rig()
        rig.feed(Make.logout(9, 10, 3))
        #expect(rig.logouts.isEmpty && rig.output().map { $0.header[2] } == [0x09])
    }

    @Test("Opcodes out of place are rejected with their header, and the connection goes on", arguments: [false, true])
    func opcodes(digests: Bool) {
        let initiator: Set<UInt8> = [0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10]
        let known: Set<UInt8> = [0x03, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f]
        for opcode in 0...0x3f as ClosedRange<UInt8> where !initiator.contains(opcode) {
            let rig = Rig { $0.headerDigest = digests; $0.dataDigest = digests }
            let pdu = TestPDU(opcode, 0x80, tag: 3, data: [1, 2, 3, 4, 5])
            rig.feed(pdu, Make.read(1, 10, 4))
            let pdus = rig.output()
            #expect(pdus.map(\.opcode) == [0x3f, 0x25])
            #expect(pdus[0].header[2] == (known.contains(opcode) ? 0x04 : 0x05))
            #expect(pdus[0].data == Array(rig.bytes(pdu).prefix(48)) && pdus[0].tag == Make.none)
        }
        let rig = Rig()
        rig.feed(TestPDU(0x10, 0x80, tag: 3))
        #expect(rig.output().map { $0.header[2] } == [0x03])
    }

    @Test("A discovery session serves Text and Logout alone")
    func discovery() {
        let rig = Rig(type: .discovery)
        rig.feed(Make.read(1, 10, 4), Make.management(2, 11, 5), Make.nop(3, 11), Make.dataOut(1, sn: 0, offset: 0, [1], final: true), Make.logout(4, 11))
        #expect(rig.output().map { $0.header[2] } == [0x05, 0x05, 0x05, 0x05])
        #expect(rig.logouts.count == 1 && rig.order.isEmpty && rig.requests.isEmpty)
    }

    @Test("A wrong header digest closes; a wrong data digest is rejected first; at every byte")
    func digests() {
        let rig = Rig { $0.headerDigest = true; $0.dataDigest = true }
        let good = rig.bytes(Make.command(1, 10, write: true, length: 5, data: [1, 2, 3, 4, 5]))
        for position in good.indices where !(4..<8).contains(position) {
            var bad = good
            bad[position] ^= 0x10
            let rig = Rig { $0.headerDigest = true; $0.dataDigest = true }
            rig.feed(bad)
            #expect(rig.events == [position < 52 ? "fail headerDigest" : "fail dataDigest"])
            let pdus = rig.output()
            #expect(pdus.map { $0.header[2] } == (position < 52 ? [] : [0x02]))
            #expect(rig.written.isEmpty)
            rig.feed(good)
            #expect(rig.events.count == 2 && rig.output().isEmpty, "it stays failed")
        }
    }

    @Test("A data segment may be as long as agreed and no longer", arguments: [8191, 8192, 8193, 16_777_215])
    func segmentLength(length: Int) {
        let rig = Rig { $0.firstBurstLength = 65536 }
        var pdu = Make.command(1, 10, write: true, length: length).bytes()
        pdu.replaceSubrange(5..<8, with: big(UInt32(length))[1...])
        rig.feed(pdu)
        #expect(rig.events == (length > 8192 ? ["fail dataSegmentTooLong"] : []))
        #expect(rig.output().map { $0.header[2] } == (length > 8192 ? [0x04] : []))
    }

    @Test("Additional headers: a long CDB passes, a bidirectional length is told, at every split", arguments: [false, true])
    func additional(digests: Bool) {
        let make = { Rig { $0.headerDigest = digests } }
        var pdu = Make.command(1, 10, read: true, write: true, length: 4, data: [1, 2, 3, 4])
        pdu.additional = [0, 17, 1, 0] + (0..<16).map { UInt8($0) } + [0, 5, 2, 0, 0, 0, 2, 0]
        everySplit(make().bytes(pdu)) { pieces in
            let rig = make()
            rig.finishes = false
            for piece in pieces { rig.feed(piece) }
            #expect(rig.waiting.count == 1)
            #expect(rig.engine.task(rig.waiting[0]).bidirectionalReadLength == 512)
        }
    }

    @Test("Additional headers that lie are rejected and end the connection", arguments: [
        [0, 0, 2, 0, 0, 0, 0, 0], [0, 0, 0, 0], [0, 6, 2, 0, 0, 0, 0, 0], [0, 4, 2, 0, 0, 0, 0, 0], [0xff, 0xff, 1, 0], [0, 5, 3, 0, 0, 0, 0, 0], [0, 9, 1, 0, 0, 0, 0, 0],
        [0, 5, 2, 0, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0, 0],
    ] as [[UInt8]])
    func lyingAdditional(bytes: [UInt8]) {
        var pdu = Make.read(1, 10, 4)
        pdu.additional = bytes
        let rig = Rig()
        rig.feed(pdu)
        #expect(rig.events == ["fail additionalHeaderSegments"] && rig.order.isEmpty)
        #expect(rig.output().map { $0.header[2] } == [0x09])
    }

    @Test("Additional headers belong to commands alone; the most there can be are taken")
    func additionalPlace() {
        var nop = Make.nop(1, 10)
        nop.additional = [0, 5, 2, 0, 0, 0, 0, 0]
        let rig = Rig()
        rig.feed(nop)
        #expect(rig.events == ["fail additionalHeaderSegments"])
        var long = Make.read(1, 10, 4)
        long.additional = [0x03, 0xf9, 1] + [UInt8](repeating: 0, count: 1017)
        let other = Rig()
        other.feed(long)
        #expect(other.order == [1])
    }

    @Test("Data of a task nobody knows are rejected, and the connection goes on")
    func unknownTask() {
        let rig = Rig()
        rig.feed(Make.dataOut(77, sn: 0, offset: 0, Rig.pattern(100), final: true), Make.read(1, 10, 4))
        #expect(rig.output().map(\.opcode) == [0x3f, 0x25])
    }

    @Test("What went in and out is counted")
    func counters() {
        let rig = Rig { $0.headerDigest = true; $0.dataDigest = true }
        let request = rig.bytes(Make.read(1, 10, 1001))
        rig.feed(request)
        #expect(rig.engine.traffic.receivedOctets == UInt64(request.count) && rig.engine.traffic.receivedPDUs == 1)
        #expect(rig.engine.traffic.sentOctets == UInt64(rig.engine.output.byteCount) && rig.engine.traffic.sentPDUs == 1)
    }

    @Test("PDUs are counted by their kind, those that come before their turn once")
    func countersByKind() {
        let rig = Rig()
        rig.feed(Make.read(1, 12, 600), Make.nop(2, 10), Make.command(3, 11, write: true, length: 8))
        #expect(rig.engine.traffic.commandPDUs == 2 && rig.engine.traffic.receivedPDUs == 3)
        rig.feed(Make.nop(4, 10, immediate: false))
        // Now all have had their turn; the write has asked for its data.
        guard let r2t = rig.output().first(where: { $0.opcode == 0x31 }) else { Issue.record("no R2T"); return }
        for pdu in Make.answer(r2t, [1, 2, 3, 4, 5, 6, 7, 8], segment: 4) { rig.feed(pdu) }
        let traffic = rig.engine.traffic
        #expect(traffic.commandPDUs == 2 && traffic.dataOutPDUs == 2 && traffic.receivedPDUs == 6)
        // Two answers to pings, R2T, Data-In with its status, response to the write.
        #expect(traffic.dataInPDUs == 1 && traffic.responsePDUs == 1 && traffic.sentPDUs == 5)
    }

    @Test("It begins where a login has ended")
    func fromLogin() {
        let (machine, _, _) = login([LoginWriter().request(1, to: 3, names + keys("MaxRecvDataSegmentLength=512")).bytes()])
        guard let outcome = machine.outcome else { Issue.record("no success"); return }
        let engine = FullFeature(outcome, answers: Rig().memory)
        #expect(engine.expCmdSN == 100 && engine.statSN == 51 && engine.cid == 7 && engine.maxXmitDataSegmentLength == 512)
    }
}
