// What single steps cost inside of a process, without a socket:
//     PORTCULLIS_BENCHMARK=1 swift run -c release micro-benchmark
// One line of JSON: nanoseconds of processor time for one of each, the median of many batches. SHA-256 of 1 KiB by OpenSSL is the measure of the
// processor that they are compared with.
import Bytes
import Crypto
import Foundation
import ISCSI
import Medium
import SCSI
import Target

/// Nanoseconds of processor time that this thread has used.
func cpu() -> Double {
    var time = timespec()
    _ = unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Double(time.tv_sec) * 1e9 + Double(time.tv_nsec)
}

/// The median over batches of at least 10 ms, after one that warms up.
func median(each count: Int, _ batch: () -> Void) -> Double {
    var repetitions = 1
    func run() -> Double {
        let begin = cpu()
        for _ in 0..<repetitions { batch() }
        return cpu() - begin
    }
    while run() < 10e6 { repetitions *= 2 }
    let times = (0..<21).map { _ in run() / Double(repetitions * count) }
    return times.sorted()[10]
}

/// SCSI commands of 4 KiB, one behind the other as they come: READ(16), or WRITE(16) with its data in the same PDU.
struct Requests {
    enum Kind { case read, write }

    static let count = 32
    static let dataLength = 4096
    private let pduLength: Int
    private var cmdSN: UInt32
    private(set) var bytes: [UInt8]

    init(_ kind: Kind, cmdSN: UInt32) {
        self.cmdSN = cmdSN
        pduLength = PDU.headerLength + (kind == .write ? Self.dataLength : 0)
        bytes = [UInt8](repeating: 0, count: Self.count * pduLength)
        for index in 0..<Self.count {
            var header = BasicHeader(.scsiCommand, initiatorTaskTag: UInt32(index))
            header.bytes[1] = kind == .read ? 0xc1 : 0xa1
            if kind == .write { header.store(dataSegmentLength: Self.dataLength) }
            header.store(lun: 1 << 48)
            header.store(UInt32(Self.dataLength), at: 20)
            (header.bytes[32], header.bytes[45]) = (kind == .read ? 0x88 : 0x8a, 8)
            header.store(UInt32(8 * index), at: 38)
            for offset in 0..<PDU.headerLength { bytes[index * pduLength + offset] = header.bytes[offset] }
        }
    }

    /// The next ones: the same with new numbers.
    mutating func next() {
        let (first, length) = (cmdSN, pduLength)
        cmdSN &+= UInt32(Self.count)
        var span = bytes.mutableSpan
        for index in 0..<Self.count { span.store(first &+ UInt32(index), at: index * length + 24) }
    }
}

/// Cuts a stream into PDUs.
func parse() -> Double {
    let reads = Requests(.read, cmdSN: 1)
    var framing = Framing()
    return median(each: Requests.count) {
        var offset = 0, headers = 0
        parsing: while true {
            switch framing.step(reads.bytes.span, &offset, headerDigest: false, dataDigest: false) {
            case .needsInput: break parsing
            case .header: headers += 1
            default: break
            }
        }
        precondition(headers == Requests.count)
    }
}

func name(_ text: String) -> ISCSIName {
    guard let name = try? ISCSIName(text.utf8) else { preconditionFailure("\(text) is a name") }
    return name
}

/// A medium that does nothing, at once.
final class Nowhere: MediumHandle {
    func performAtOnce(_ operation: Medium.Operation, buffer: Buffer?) -> Outcome? { buffer == nil ? .failed(.unsupported) : .done }
}

/// Commands through a session, from their bytes to those of their answers.
func command(_ kind: Requests.Kind) -> Double {
    let target = ServedTarget(name: name("iqn.2026-11.org.example:t"), tid: 1)
    let settings = LogicalUnitSettings(disk: 1 << 20, blockLength: 512, scsiID: "id", serialNumber: "sn", naa: [0x60] + [UInt8](repeating: 1, count: 15))
    target.add(LogicalUnit(settings, targetName: target.name.bytes, medium: Nowhere()), number: 1)
    var negotiated = NegotiatedParameters()
    (negotiated.maxRecvDataSegmentLength, negotiated.maxXmitDataSegmentLength) = (262_144, 262_144)
    let start = SessionStart(
        nexus: NexusID(rawValue: 1), initiatorName: name("iqn.2026-11.org.example:i"), isid: ISID(rawValue: 1), tsih: 1, cid: 0, parameters: negotiated,
        expCmdSN: 1, statSN: 1)
    let session = Session(start, target: target, data: BufferPool(budget: 64 << 20), answers: BufferPool(budget: 64 << 20), now: 0) { _ in }
    guard let session else { preconditionFailure("nobody else is there") }
    var requests = Requests(kind, cmdSN: 1)
    var sent = 0
    func batch() {
        requests.next()
        sent = 0
        let used = session.receive(requests.bytes.span, now: 1)
        precondition(used == requests.bytes.count)
        while let action = session.nextAction() {
            guard case .perform(let ticket) = action else { continue }
            session.perform(ticket, now: 1) { operation, buffer, hold in (hold as? Hold<Nowhere>)?.medium.performAtOnce(operation, buffer: buffer) }
        }
        session.send(now: 1) { output in
            sent += output.byteCount
            output.consume(output.byteCount)
        }
    }
    // The unit attentions of a new nexus come first.
    for _ in 0..<4 { batch() }
    let time = median(each: Requests.count, batch)
    let answer = PDU.headerLength + (kind == .read ? Requests.dataLength : 0)
    precondition(sent == Requests.count * answer, "every command was answered, a read with its data: \(sent)")
    return time
}

/// A login without CHAP in two exchanges, control's answer included.
func login() -> Double {
    func request(flags: UInt8, _ keys: [String]) -> [UInt8] {
        let text: [UInt8] = keys.flatMap { [UInt8]($0.utf8) + [0] }
        var header = BasicHeader(.loginRequest, initiatorTaskTag: 0)
        header.bytes[0] |= BasicHeader.immediateBit
        (header.bytes[1], header.bytes[8]) = (flags, 0x80)
        header.store(dataSegmentLength: text.count)
        let fields: [UInt8] = (0..<PDU.headerLength).map { header.bytes[$0] }
        return fields + text + [UInt8](repeating: 0, count: PDU.padding(text.count))
    }
    let first = request(flags: 0x81, [
        "InitiatorName=iqn.2026-11.org.example:i", "TargetName=iqn.2026-11.org.example:t", "SessionType=Normal", "AuthMethod=None",
    ])
    let second = request(flags: 0x87, [
        "HeaderDigest=None,CRC32C", "DataDigest=None", "InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=262144", "FirstBurstLength=262144",
        "MaxBurstLength=262144", "MaxOutstandingR2T=1", "MaxConnections=1", "ErrorRecoveryLevel=0", "DefaultTime2Wait=2", "DefaultTime2Retain=0",
        "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes",
    ])
    let parameters = SessionParameters()
    return median(each: 1) {
        var machine = LoginMachine()
        _ = machine.receive(first.span)
        machine.answer(.proceed(parameters: parameters, portalGroupTag: 1, authentication: .none))
        var sent = machine.takeOutput().count
        _ = machine.receive(second.span)
        guard case .succeeded(let outcome) = machine.state else { preconditionFailure("the login ends well: \(machine.state)") }
        sent += outcome.finalResponseBytes(tsih: 1).count
        precondition(sent > 2 * PDU.headerLength)
    }
}

let kibibyte = [UInt8](repeating: 0x5a, count: 1024)
let results = [
    ("parse", parse()), ("command", command(.read)), ("write", command(.write)), ("login", login()), ("SHA-256", median(each: 1) { precondition(Digest.sha256.hash(kibibyte).count == 32) }),
]
print("{" + results.map { "\"\($0.0)\": \(String(format: "%.1f", $0.1))" }.joined(separator: ", ") + "}")
