import ISCSI

/// The login of one session, from the initiator's side (RFC 7143 §6.3): a stage for security, then one for parameters, as stock initiators do.
struct Login {
    /// What the target has answered; before, what the standard says (RFC 7143 §13).
    struct Agreement {
        var headerDigest = false
        var dataDigest = false
        /// The longest data segment that the target takes.
        var segment = 8192
        var firstBurst = 65536
        var initialR2T = true
        var immediateData = true
    }

    private enum Step { case method, algorithm, response, parameters, rest }

    private let words: LoginWords
    private var step = Step.method
    private(set) var agreed = Agreement()
    /// What the target wants proved.
    private var identifier: UInt8 = 0
    private var challenge: [UInt8] = []

    init(_ words: LoginWords) { self.words = words }

    /// The request of this step.
    func request(isid: UInt32, expStatSN: UInt32) -> (header: BasicHeader, text: [UInt8]) {
        let keys: [(String, String)]
        // T, CSG, NSG (RFC 7143 §11.12).
        let flags: UInt8
        switch step {
        case .method:
            flags = words.proof == nil ? 0x81 : 0x00
            keys = [
                ("InitiatorName", words.initiator), ("TargetName", words.target), ("SessionType", "Normal"),
                ("AuthMethod", words.proof == nil ? "None" : "CHAP"),
            ]
        case .algorithm:
            flags = 0x00
            keys = [("CHAP_A", String(words.proof?.algorithm.rawValue ?? 0))]
        case .response:
            flags = 0x81
            let response = words.proof?.response(identifier: identifier, challenge: challenge) ?? []
            keys = [("CHAP_N", words.proof?.user ?? ""), ("CHAP_R", String(decoding: BinaryValue.hexadecimal(response), as: UTF8.self))]
        case .parameters:
            flags = 0x87
            keys = [
                ("HeaderDigest", words.headerDigest ? "CRC32C" : "None"), ("DataDigest", words.dataDigest ? "CRC32C" : "None"),
                ("InitialR2T", "No"), ("ImmediateData", "Yes"), ("MaxRecvDataSegmentLength", String(Client.segment)),
                ("FirstBurstLength", String(Client.segment)), ("MaxBurstLength", String(Client.segment)), ("MaxOutstandingR2T", "1"),
                ("MaxConnections", "1"), ("ErrorRecoveryLevel", "0"), ("DefaultTime2Wait", "2"), ("DefaultTime2Retain", "0"),
                ("DataPDUInOrder", "Yes"), ("DataSequenceInOrder", "Yes"),
            ]
        case .rest:
            flags = 0x87
            keys = []
        }
        var header = BasicHeader(.loginRequest, initiatorTaskTag: 0)
        header.bytes[0] |= BasicHeader.immediateBit
        header.bytes[1] = flags
        // An ISID of the random format (RFC 7143 §11.12.5).
        header.bytes[8] = 0x80
        header.store(isid, at: 10)
        header.store(expStatSN, at: 28)
        return (header, keys.flatMap { Array("\($0)=\($1)".utf8) + [0] })
    }

    /// Takes the answer to the last request, which was not a refusal.
    /// - Returns: the next request; nil: the login is over
    mutating func answered(
        _ header: BasicHeader, _ text: [UInt8], isid: UInt32, expStatSN: UInt32
    ) -> (header: BasicHeader, text: [UInt8])? {
        var keys: [String: String] = [:]
        do throws(KeyValue.TextError) {
            for pair in try KeyValue.pairs(text, atMost: 64) { keys[String(decoding: pair.name, as: UTF8.self)] = String(decoding: pair.value, as: UTF8.self) }
        } catch { fail("the text of a Login Response: \(error)") }
        settle(keys)
        let transits = header.isFinal
        switch step {
        case .method: step = words.proof == nil ? .parameters : .algorithm
        case .algorithm:
            guard let identifier = keys["CHAP_I"].flatMap({ UInt8($0) }), let text = keys["CHAP_C"], let challenge = BinaryValue.decode(Array(text.utf8)[...])
            else { fail("no challenge came: \(keys)") }
            (self.identifier, self.challenge) = (identifier, challenge)
            step = .response
        case .response: step = .parameters
        case .parameters, .rest:
            guard !transits else {
                guard agreed.headerDigest == words.headerDigest, agreed.dataDigest == words.dataDigest else { fail("the target does not agree to these digests") }
                return nil
            }
            step = .rest
        }
        return request(isid: isid, expStatSN: expStatSN)
    }

    private mutating func settle(_ keys: [String: String]) {
        if let value = keys["HeaderDigest"] { agreed.headerDigest = value == "CRC32C" }
        if let value = keys["DataDigest"] { agreed.dataDigest = value == "CRC32C" }
        if let value = keys["InitialR2T"] { agreed.initialR2T = value == "Yes" }
        if let value = keys["ImmediateData"] { agreed.immediateData = value == "Yes" }
        if let value = keys["MaxRecvDataSegmentLength"].flatMap({ Int($0) }) { agreed.segment = value }
        if let value = keys["FirstBurstLength"].flatMap({ Int($0) }) { agreed.firstBurst = value }
    }
}
