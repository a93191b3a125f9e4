import Bytes
import Testing
@testable import ISCSI

/// An engine with a caller that serves it: it takes every byte of a write, answers reads with a pattern, and notes what happens.
final class Rig {
    var engine: FullFeature
    let memory = BufferPool(budget: 64 << 20, cached: 0)
    let negotiated: NegotiatedParameters
    /// Events other than commands and the ends of their data.
    var events: [String] = []
    var requests: [TaskManagementRequest] = []
    var logouts: [LogoutRequest] = []
    var questions: [TextRequest] = []
    /// Tasks that wait to be finished, when `finishes` is off.
    var waiting: [TaskIndex] = []
    var finishes = true
    /// How much of a write is wanted.
    var wants: (TaskInfo) -> Int = { $0.writes ? min($0.expectedDataTransferLength, 1 << 20) : 0 }
    /// What a read returns by itself.
    var returns: (TaskInfo) -> Int = { $0.reads ? min($0.expectedDataTransferLength, 1 << 16) : 0 }
    var usesBuffers = true
    /// Data that writes have brought, by tag.
    var written: [UInt32: [UInt8]] = [:]
    var order: [UInt32] = []
    private var buffers: [TaskIndex: Buffer] = [:]
    private var lastMaxCmdSN: UInt32
    private var nextStatSN: UInt32 = 500

    init(_ change: (inout NegotiatedParameters) -> Void = { _ in }, type: SessionType = .normal, expCmdSN: UInt32 = 10) {
        var parameters = NegotiatedParameters()
        parameters.maxRecvDataSegmentLength = 8192
        parameters.queueDepth = 8
        change(&parameters)
        negotiated = parameters
        lastMaxCmdSN = expCmdSN &+ UInt32(parameters.queueDepth) &- 1
        engine = FullFeature(
            parameters, sessionType: type, cid: 7, expCmdSN: expCmdSN, statSN: 500, answers: BufferPool(budget: 1 << 30, cached: 1 << 20))
    }

    var isIdle: Bool { engine.isIdle }

    static func pattern(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 8) } }

    func feed(_ pdus: TestPDU...) { feed(pdus.flatMap { bytes($0) }) }
    func bytes(_ pdu: TestPDU) -> [UInt8] { pdu.bytes(headerDigest: negotiated.headerDigest, dataDigest: negotiated.dataDigest) }

    func feed(_ bytes: [UInt8]) {
        var offset = 0
        while true {
            switch engine.next(bytes.span, &offset) {
            case .needsInput:
                #expect(offset == bytes.count)
                return
            case .command(let index): command(index)
            case .dataOutComplete(let index):
                if finishes { finish(index) } else { waiting.append(index) }
            case .dataOutFailed(let index, let error):
                events.append("failed \(error)")
                buffers[index] = nil
                engine.finish(index, status: 2, sense: [0x70, 0, 0x0b, error.additionalSense.code, error.additionalSense.qualifier], dataIn: .none, naturalLength: 0)
            case .taskManagement(let request): requests.append(request)
            case .sendTargets(let request): questions.append(request)
            case .logout(let request): logouts.append(request)
            case .fail(let error):
                events.append("fail \(error)")
                return
            }
        }
    }

    /// Feeds `bytes` as a caller does who receives data straight to their places where that is offered.
    /// - Parameter next: how many bytes come at a time, at least 1
    /// - Returns: how many of them went straight to their places
    func feed(_ bytes: [UInt8], landing next: () -> Int) -> Int {
        var offset = 0
        var all = 0
        while offset < bytes.count {
            let count = min(next(), bytes.count - offset)
            guard let landing = engine.landing else {
                feed(Array(bytes[offset..<offset + count]))
                offset += count
                continue
            }
            let landed = min(count, landing.range.count)
            landing.buffer.copy(bytes.span.extracting(offset..<offset + landed), to: landing.range.lowerBound)
            engine.landed(landed, of: landing)
            feed(Array(bytes[offset + landed..<offset + count]))
            offset += count
            all += landed
        }
        return all
    }

    private func command(_ index: TaskIndex) {
        let info = engine.task(index)
        order.append(info.initiatorTaskTag)
        let wanted = wants(info)
        let buffer = wanted > 0 ? memory.allocate(wanted) : nil
        buffers[index] = buffer
        if engine.accept(index, wanted: wanted, buffer: buffer) {
            if finishes { finish(index) } else { waiting.append(index) }
        }
    }

    func finish(_ index: TaskIndex, status: UInt8 = 0, sense: [UInt8] = []) {
        let info = engine.task(index)
        if info.writes {
            let wanted = wants(info)
            written[info.initiatorTaskTag] = buffers[index]?.array(0..<wanted) ?? []
            buffers[index] = nil
            engine.finish(index, status: status, sense: sense, dataIn: .none, naturalLength: wanted)
            return
        }
        let length = returns(info)
        let data = Self.pattern(length)
        if usesBuffers, let buffer = memory.allocate(max(length, 1)) {
            buffer.copy(data.span, to: 0)
            engine.finish(index, status: status, sense: sense, dataIn: .buffer(buffer, count: length), naturalLength: length)
        } else {
            engine.finish(index, status: status, sense: sense, dataIn: .bytes(data), naturalLength: length)
        }
    }

    /// What was sent, checked for what holds for every PDU: numbers in order, a window that never goes back, segments that fit.
    func output() -> [TestPDU] {
        let pdus = TestPDU.parse(engine.output.drain(), headerDigest: negotiated.headerDigest, dataDigest: negotiated.dataDigest)
        for pdu in pdus {
            #expect(pdu.data.count <= max(negotiated.maxXmitDataSegmentLength, 48))
            #expect(Int32(bitPattern: pdu.maxCmdSN &- lastMaxCmdSN) >= 0)
            lastMaxCmdSN = pdu.maxCmdSN
            let isPing = pdu.opcode == 0x20 && pdu.tag == 0xffff_ffff
            switch pdu.opcode {
            case 0x25 where pdu.flags & 1 == 0: #expect(pdu.statSN == 0)
            default: #expect(pdu.statSN == nextStatSN)
            }
            let advances = pdu.opcode == 0x25 ? pdu.flags & 1 == 1 : pdu.opcode != 0x31 && !isPing
            if advances { nextStatSN &+= 1 }
        }
        return pdus
    }
}

/// PDUs as an initiator writes them.
enum Make {
    static let none: UInt32 = 0xffff_ffff

    static func command(
        _ tag: UInt32, _ cmdSN: UInt32, read: Bool = false, write: Bool = false, final: Bool = true, length: Int = 0, immediate: Bool = false,
        data: [UInt8] = [], lun: UInt64 = 1 << 48, cdb: [UInt8] = [0x2a]
    ) -> TestPDU {
        var pdu = TestPDU(immediate ? 0x41 : 0x01, (final ? 0x80 : 0) | (read ? 0x40 : 0) | (write ? 0x20 : 0) | 1, tag: tag, data: data)
        pdu.put64(lun, 8)
        pdu.put(UInt32(length), 20)
        pdu.put(cmdSN, 24)
        pdu.header.replaceSubrange(32..<32 + cdb.count, with: cdb)
        return pdu
    }
    static func read(_ tag: UInt32, _ cmdSN: UInt32, _ length: Int) -> TestPDU { command(tag, cmdSN, read: true, length: length) }

    static func dataOut(_ tag: UInt32, _ transfer: UInt32 = none, sn: UInt32, offset: Int, _ data: [UInt8], final: Bool) -> TestPDU {
        var pdu = TestPDU(0x05, final ? 0x80 : 0, tag: tag, data: data)
        pdu.put(transfer, 20)
        pdu.put(sn, 36)
        pdu.put(UInt32(offset), 40)
        return pdu
    }
    /// The Data-Out PDUs that answer an R2T.
    static func answer(_ r2t: TestPDU, _ data: [UInt8], segment: Int = 8192) -> [TestPDU] {
        var pdus: [TestPDU] = []
        let start = Int(u32(r2t.header, 40))
        let end = start + Int(u32(r2t.header, 44))
        var offset = start
        while offset < end {
            let count = min(segment, end - offset)
            pdus.append(
                dataOut(r2t.tag, r2t.transferTag, sn: UInt32(pdus.count), offset: offset, Array(data[offset..<offset + count]), final: offset + count == end))
            offset += count
        }
        return pdus
    }
    static func management(_ tag: UInt32, _ cmdSN: UInt32, _ function: UInt8, of task: UInt32 = none, ref: UInt32 = 0, immediate: Bool = true, lun: UInt64 = 1 << 48)
        -> TestPDU
    {
        var pdu = TestPDU(immediate ? 0x42 : 0x02, 0x80 | function, tag: tag)
        pdu.put64(lun, 8)
        pdu.put(task, 20)
        pdu.put(cmdSN, 24)
        pdu.put(ref, 32)
        return pdu
    }
    static func text(_ tag: UInt32, _ cmdSN: UInt32, transfer: UInt32 = none, flags: UInt8 = 0x80, _ data: [UInt8]) -> TestPDU {
        var pdu = TestPDU(0x04, flags, tag: tag, data: data)
        pdu.put(transfer, 20)
        pdu.put(cmdSN, 24)
        return pdu
    }
    static func nop(_ tag: UInt32, _ cmdSN: UInt32, immediate: Bool = true, _ data: [UInt8] = []) -> TestPDU {
        var pdu = TestPDU(immediate ? 0x40 : 0x00, 0x80, tag: tag, data: data)
        pdu.put(none, 20)
        pdu.put(cmdSN, 24)
        return pdu
    }
    static func logout(_ tag: UInt32, _ cmdSN: UInt32, _ reason: UInt8 = 0, immediate: Bool = true) -> TestPDU {
        var pdu = TestPDU(immediate ? 0x46 : 0x06, 0x80 | reason, tag: tag)
        pdu.put(UInt16(7), 20)
        pdu.put(cmdSN, 24)
        return pdu
    }
}
