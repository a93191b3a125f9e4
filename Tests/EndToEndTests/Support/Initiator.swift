/// One PDU as bytes (RFC 7143 §11), made and read without a check so that a test can say anything.
struct PDU {
    var header: [UInt8]
    var additional: [UInt8] = []
    var data: [UInt8] = []

    init(opcode: UInt8, flags: UInt8 = 0x80, data: [UInt8] = []) {
        header = [UInt8](repeating: 0, count: 48)
        header[0] = opcode
        header[1] = flags
        self.data = data
    }
    fileprivate init(header: [UInt8]) { self.header = header }

    var opcode: UInt8 { header[0] & 0x3f }
    var statusClassAndDetail: UInt16 { UInt16(header[36]) << 8 | UInt16(header[37]) }
    var scsiStatus: UInt8 { header[3] }

    func number(at offset: Int, bytes count: Int = 4) -> Int { header[offset..<offset + count].reduce(0) { $0 << 8 | Int($1) } }
    mutating func put(_ value: Int, at offset: Int, bytes count: Int = 4) {
        for index in 0..<count { header[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - index))) }
    }

    /// As sent, with the lengths that are true.
    var bytes: [UInt8] {
        var honest = self
        honest.header[4] = UInt8(additional.count / 4)
        honest.put(data.count, at: 5, bytes: 3)
        return honest.bytesAsWritten
    }
    /// As sent, with the lengths that stand in the header.
    var bytesAsWritten: [UInt8] { header + additional + data + [UInt8](repeating: 0, count: -data.count & 3) }

    static let nopOut: UInt8 = 0x00, scsiCommand: UInt8 = 0x01, taskManagement: UInt8 = 0x02, login: UInt8 = 0x03
    static let text: UInt8 = 0x04, dataOut: UInt8 = 0x05, logout: UInt8 = 0x06, snack: UInt8 = 0x10
    static let nopIn: UInt8 = 0x20, scsiResponse: UInt8 = 0x21, loginResponse: UInt8 = 0x23, dataIn: UInt8 = 0x25, reject: UInt8 = 0x3f
    static let immediate: UInt8 = 0x40
}

/// The least an initiator can be: logs in, sends commands, reads what comes. No digests.
final class Initiator {
    let wire: Wire
    var cmdSN = 1
    private var expStatSN = 0
    private var nextTag = 1
    static let name = "iqn.2026-11.org.example:initiator"

    init(port: Int, source: UInt8 = 1) throws { wire = try Wire(port: port, source: source) }

    /// A whole login in one exchange.
    static func login(port: Int, target: String, name: String = Initiator.name, isid: UInt8 = 1) throws -> Initiator {
        let initiator = try Initiator(port: port)
        let status = initiator.login(target: target, name: name, isid: isid)
        guard status == 0 else { throw Failure("login to \(target) was answered \(status.map { String($0, radix: 16) } ?? "not at all")") }
        return initiator
    }

    /// Login straight into the operational stage; the answer's status class and detail.
    func login(target: String?, name: String = Initiator.name, isid: UInt8 = 1) -> UInt16? {
        var keys = ["InitiatorName=\(name)"]
        if let target { keys += ["SessionType=Normal", "TargetName=\(target)"] } else { keys.append("SessionType=Discovery") }
        keys += ["HeaderDigest=None", "DataDigest=None", "MaxRecvDataSegmentLength=262144", "InitialR2T=Yes", "ImmediateData=Yes"]
        wire.send(Self.loginRequest(keys: keys, isid: isid).bytes)
        while let answer = receive() {
            guard answer.opcode == PDU.loginResponse else { return nil }
            // Some targets have keys of their own to settle first.
            if answer.statusClassAndDetail == 0, answer.header[1] & 0x80 == 0 {
                wire.send(Self.loginRequest(keys: [], isid: isid, expStatSN: expStatSN).bytes)
                continue
            }
            return answer.statusClassAndDetail
        }
        return nil
    }

    /// Login with CHAP by SHA-256, all the way; the last answer's status class and detail.
    /// - Parameters:
    ///   - folder: where the digest is made
    ///   - tsih: of the session to join or continue; 0: a new one
    func login(
        target: String, user: String, secret: String, name: String = Initiator.name, isid: UInt8 = 1, tsih: Int = 0, folder: Folder
    ) throws -> UInt16? {
        func exchange(_ keys: [String], flags: UInt8) -> PDU? {
            var request = Self.loginRequest(keys: keys, isid: isid, expStatSN: expStatSN)
            request.header[1] = flags
            request.put(tsih, at: 14, bytes: 2)
            wire.send(request.bytes)
            return receive()
        }
        let identity = ["InitiatorName=\(name)", "SessionType=Normal", "TargetName=\(target)", "AuthMethod=CHAP,None"]
        guard let offered = exchange(identity, flags: 0), offered.statusClassAndDetail == 0 else { return nil }
        guard let challenge = exchange(["CHAP_A=7"], flags: 0), challenge.statusClassAndDetail == 0 else { return nil }
        var keys: [String: String] = [:]
        for pair in challenge.data.split(separator: 0).map({ String(decoding: $0, as: UTF8.self) }) {
            if let equals = pair.firstIndex(of: "=") { keys[String(pair[..<equals])] = String(pair[pair.index(after: equals)...]) }
        }
        guard let identifier = keys["CHAP_I"].flatMap({ UInt8($0) }), let digits = keys["CHAP_C"]?.dropFirst(2) else { throw Failure("no challenge in \(keys)") }
        let bytes = stride(from: 0, to: digits.count, by: 2).compactMap { UInt8(digits.dropFirst($0).prefix(2), radix: 16) }
        let digest = try folder.sha256(folder.write([identifier] + Array(secret.utf8) + bytes, to: "challenge"))
        guard let judged = exchange(["CHAP_N=\(user)", "CHAP_R=0x\(digest)"], flags: 0x81), judged.statusClassAndDetail == 0 else { return lastStatus }
        return exchange(["HeaderDigest=None", "DataDigest=None"], flags: 0x87)?.statusClassAndDetail
    }

    /// T=1, CSG operational, NSG full feature (§11.12).
    static func loginRequest(keys: [String], isid: UInt8 = 1, expStatSN: Int = 0) -> PDU {
        var request = PDU(opcode: PDU.login | PDU.immediate, flags: 0x87, data: keys.flatMap { Array($0.utf8) + [0] })
        request.header[8] = 0x80
        request.header[13] = isid
        request.put(1, at: 16)
        request.put(1, at: 24)
        request.put(expStatSN, at: 28)
        return request
    }

    private var lastStatus: UInt16?

    /// The next PDU whatever it is.
    func receive(seconds: Double = 10) -> PDU? {
        guard let header = wire.receive(48, seconds: seconds) else { return nil }
        var pdu = PDU(header: header)
        let length = pdu.number(at: 5, bytes: 3)
        guard let rest = wire.receive(Int(header[4]) * 4 + (length + 3) & ~3, seconds: seconds) else { return nil }
        pdu.additional = Array(rest.prefix(Int(header[4]) * 4))
        pdu.data = Array(rest.dropFirst(pdu.additional.count).prefix(length))
        if pdu.opcode == PDU.loginResponse { lastStatus = pdu.statusClassAndDetail }
        if pdu.opcode != PDU.dataIn || pdu.header[1] & 1 == 1 { expStatSN = pdu.number(at: 24) + 1 }
        return pdu
    }

    /// A SCSI Command PDU (§11.3) that takes the next CmdSN; simple task attribute.
    func command(cdb: [UInt8], lun: Int = 1, read: Int = 0, write: Int = 0, data: [UInt8] = []) -> PDU {
        var request = PDU(opcode: PDU.scsiCommand, flags: 0x81 | (read > 0 ? 0x40 : 0) | (write > 0 ? 0x20 : 0), data: data)
        request.header[9] = UInt8(lun)
        request.put(nextTag, at: 16)
        request.put(max(read, write), at: 20)
        request.put(cmdSN, at: 24)
        request.put(expStatSN, at: 28)
        request.header.replaceSubrange(32..<32 + cdb.count, with: cdb)
        nextTag += 1
        cmdSN += 1
        return request
    }

    /// Sends a command and gathers its answer; write data go as immediate data.
    func perform(cdb: [UInt8], lun: Int = 1, read: Int = 0, write data: [UInt8] = []) throws -> (status: UInt8, data: [UInt8], sense: [UInt8]) {
        let request = command(cdb: cdb, lun: lun, read: read, write: data.count, data: data)
        wire.send(request.bytes)
        var gathered: [UInt8] = []
        while let answer = receive() {
            guard answer.number(at: 16) == request.number(at: 16) else { continue }
            switch answer.opcode {
            case PDU.dataIn:
                gathered += answer.data
                if answer.header[1] & 1 == 1 { return (answer.scsiStatus, gathered, []) }
            case PDU.scsiResponse:
                return (answer.scsiStatus, gathered, Array(answer.data.dropFirst(2)))
            default:
                throw Failure("an answer of opcode \(answer.opcode)")
            }
        }
        throw Failure("no answer to the command of operation code \(cdb[0])")
    }

    /// TEST UNIT READY until no unit attention is left.
    func settle(lun: Int = 1) throws {
        for _ in 0..<8 where try perform(cdb: [0, 0, 0, 0, 0, 0], lun: lun).status == 0 { return }
        throw Failure("the logical unit stays not ready")
    }
}
