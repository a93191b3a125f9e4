import Foundation
import Testing
@testable import ISCSI

/// How many times as many streams as in an ordinary run: for long runs.
let fuzzRounds = max(1, ProcessInfo.processInfo.environment["PORTCULLIS_FUZZ_ROUNDS"].flatMap { Int($0) } ?? 1)

/// Streams that are right, wrong in one place, or nonsense, from a seed.
@Suite struct FuzzTests {
    /// PDUs that refer to what is under way often enough to get deep.
    private static func randomPDU(_ random: inout Seeded, _ cmdSN: inout UInt32, _ transferTags: [UInt32]) -> TestPDU {
        let tag = UInt32.random(in: 0..<6, using: &random)
        let data = Rig.pattern(Int.random(in: 0..<40, using: &random))
        let immediate = Int.random(in: 0..<4, using: &random) == 0
        let transfer = Bool.random(using: &random) ? Make.none : transferTags.randomElement(using: &random) ?? 3
        func next() -> UInt32 {
            if immediate { return cmdSN }
            let jump = Int.random(in: 0..<10, using: &random)
            if jump == 0 { return cmdSN &+ UInt32.random(in: 0..<12, using: &random) &- 2 }
            cmdSN &+= 1
            return cmdSN &- 1
        }
        switch Int.random(in: 0..<12, using: &random) {
        case 0, 1: return Make.command(tag, next(), read: true, length: Int.random(in: 0..<2000, using: &random), immediate: immediate)
        case 2, 3, 4:
            let length = Int.random(in: 0..<200, using: &random)
            return Make.command(
                tag, next(), write: true, final: Bool.random(using: &random), length: length, immediate: immediate, data: Array(data.prefix(length)))
        case 5, 6, 7:
            return Make.dataOut(
                tag, transfer, sn: UInt32.random(in: 0..<2, using: &random), offset: Int.random(in: 0..<40, using: &random), data,
                final: Bool.random(using: &random))
        case 8: return Make.management(100 + tag, next(), UInt8.random(in: 0..<10, using: &random), of: tag, ref: cmdSN &- 1 &+ tag % 3, immediate: immediate)
        case 9: return Make.text(tag, next(), transfer: transfer, flags: [0x80, 0x40, 0].randomElement(using: &random) ?? 0, keys("SendTargets=", "X-a=1"))
        case 10: return Make.nop(tag, next(), immediate: immediate, data)
        default: return TestPDU(UInt8.random(in: 0...255, using: &random), UInt8.random(in: 0...255, using: &random), tag: tag, data: data)
        }
    }

    /// Random lengths reach 4 GiB; the caller wants and returns little of them.
    private static func modest(_ rig: Rig) -> Rig {
        rig.wants = { $0.writes ? min($0.expectedDataTransferLength, 2000) : 0 }
        rig.returns = { $0.reads ? min($0.expectedDataTransferLength, 2000) : 0 }
        return rig
    }

    @Test("Streams of PDUs, right and wrong, never trap, never exceed a limit and leave no memory behind", arguments: 0..<8)
    func streams(part: Int) {
        for round in 0..<400 * fuzzRounds {
            var random = Seeded(state: UInt64(part) << 32 | UInt64(round))
            let digests = round % 4 == 0
            let rig = Self.modest(Rig({
                $0.headerDigest = digests
                $0.dataDigest = digests
                $0.initialR2T = round % 2 == 0
                $0.immediateData = round % 3 != 0
                $0.firstBurstLength = 64
                $0.maxBurstLength = 48
                $0.maxOutstandingR2T = 1 + round % 3
                $0.maxXmitDataSegmentLength = 512
            }, type: round % 16 == 15 ? .discovery : .normal))
            var cmdSN: UInt32 = 10
            var transferTags: [UInt32] = []
            var answered = 0
            for _ in 0..<32 {
                var bytes: [UInt8] = []
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    var pdu = rig.bytes(Self.randomPDU(&random, &cmdSN, transferTags))
                    if Int.random(in: 0..<12, using: &random) == 0 { pdu[Int.random(in: 0..<pdu.count, using: &random)] = UInt8.random(in: 0...255, using: &random) }
                    bytes += pdu
                }
                rig.finishes = Bool.random(using: &random)
                let cut = Int.random(in: 0...bytes.count, using: &random)
                rig.feed(Array(bytes[..<cut]))
                rig.feed(Array(bytes[cut...]))
                if rig.events.contains(where: { $0.hasPrefix("fail ") }) { break }
                // The caller ends, drops and answers now and then.
                while let index = rig.waiting.popLast() {
                    if Bool.random(using: &random) { rig.finish(index) } else { rig.engine.drop(index) }
                }
                while answered < rig.requests.count {
                    if case .task(let index) = rig.requests[answered].referenced, rig.engine.liveTaskIndexes.contains(index) { rig.engine.drop(index) }
                    rig.engine.answer(rig.requests[answered], response: 0)
                    answered += 1
                }
                if let question = rig.questions.popLast() { rig.engine.sendTargets(question, []) }
                let pdus = rig.output()
                transferTags = (transferTags + pdus.filter { [0x31, 0x24].contains($0.opcode) }.map(\.transferTag)).suffix(6)
                #expect(rig.engine.heldBytes <= FullFeatureLimits.heldBytes && rig.engine.tasks.count <= 8 + 16 + 64)
                #expect(rig.engine.occupied >= 0 && rig.engine.window >= 0)
            }
            if !rig.logouts.isEmpty { rig.engine.answer(rig.logouts[0], response: 0) }
        }
    }

    @Test("Bytes at random never trap", arguments: 0..<4)
    func noise(part: Int) {
        for round in 0..<1000 * fuzzRounds {
            var random = Seeded(state: UInt64(part) << 40 | UInt64(round))
            let rig = Self.modest(Rig { $0.initialR2T = false; $0.headerDigest = round % 8 == 0; $0.maxXmitDataSegmentLength = 512 })
            var bytes = (0..<Int.random(in: 1...600, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            // Short lengths and low opcodes get further.
            for start in stride(from: 0, to: bytes.count - 48, by: 48) {
                bytes[start] &= 0x47
                bytes.replaceSubrange(start + 4..<start + 8, with: [0, 0, 0, 0])
            }
            rig.feed(bytes)
            _ = rig.engine.output.drain()
        }
    }
}
