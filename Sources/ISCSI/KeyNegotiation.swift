/// One key=value pair of a text segment (RFC 7143 §6.1).
package struct KeyValue {
    package let name: ArraySlice<UInt8>
    package let value: ArraySlice<UInt8>
    /// nil: it is none that is known here.
    let key: Key?

    /// The longest key name and the longest value of a key that is known here (RFC 7143 §6.1).
    static let longestName = 63
    static let longestValue = 255

    /// Why a text segment is malformed.
    package enum TextError: Error { case unterminated, noEqualsSign, badName, tooManyKeys }

    /// Splits `text`, in which each pair ends in a zero byte. Empty pairs are passed over.
    package static func pairs(_ text: [UInt8], atMost limit: Int) throws(TextError) -> [KeyValue] {
        var pairs: [KeyValue] = []
        guard text.last ?? 0 == 0 else { throw .unterminated }
        var (start, equals) = (0, -1)
        for (index, byte) in text.enumerated() {
            if byte == UInt8(ascii: "="), equals < start { equals = index }
            guard byte == 0 else { continue }
            defer { start = index + 1 }
            guard index > start else { continue }
            guard equals >= start else { throw .noEqualsSign }
            let name = text[start..<equals]
            guard isName(name) else { throw .badName }
            guard pairs.count < limit else { throw .tooManyKeys }
            pairs.append(KeyValue(name: name, value: text[equals + 1..<index], key: Key(onWire: name)))
        }
        return pairs
    }

    /// Letters, digits and `.-+@_#`, first a letter (RFC 7143 §6.1).
    private static func isName(_ name: ArraySlice<UInt8>) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
        guard let first = name.first, isLetter(first), name.count <= longestName else { return false }
        for byte in name where !isLetter(byte) {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "+"), UInt8(ascii: "@"), UInt8(ascii: "_"),
                UInt8(ascii: "#"): break
            default: return false
            }
        }
        return true
    }
}

/// A login that cannot go on.
struct LoginRefusal: Error {
    let status: LoginStatus
}

/// The negotiation of keys in one login (RFC 7143 §6.2): what was mentioned, what we asked for, what came of it.
struct KeyNegotiation {
    private var offered: SessionParameters
    private let sessionType: SessionType
    private(set) var negotiated = NegotiatedParameters()
    private var mentioned = KeySet()
    private var unknown: [ArraySlice<UInt8>] = []
    /// Keys that we brought up and whose answer is outstanding.
    private(set) var awaited = KeySet()
    private var declared = false
    private var keyCount = 0

    init(_ offered: SessionParameters, _ sessionType: SessionType) {
        self.offered = offered
        self.sessionType = sessionType
        offer(offered)
    }

    /// From now on these are offered; nothing has been agreed on before.
    mutating func offer(_ parameters: SessionParameters) {
        offered = parameters
        negotiated.queueDepth = parameters.maxQueueCmd
        limitSegments()
    }

    /// Takes in all the pairs of one text and returns our answers to them.
    /// - Parameter mayNegotiate: whether keys may come already whose answer depends on the target
    mutating func answers(to pairs: [KeyValue], mayNegotiate: Bool, isFirst: Bool) throws(LoginRefusal) -> [UInt8] {
        var text: [UInt8] = []
        // FirstBurstLength must not exceed MaxBurstLength, so it is decided behind it (RFC 7143 §13.14).
        for bursts in [false, true] {
            for pair in pairs where (pair.key == .firstBurstLength) == bursts {
                guard let answer = try answer(to: pair, mayNegotiate: mayNegotiate, isFirst: isFirst) else { continue }
                Self.append(pair.name, answer, to: &text)
            }
        }
        negotiated.firstBurstLength = min(negotiated.firstBurstLength, negotiated.maxBurstLength)
        return text
    }

    /// What we declare of our own accord, once.
    mutating func declarations() -> [UInt8] {
        var text: [UInt8] = []
        if !declared, offered[.maxRecvDataSegmentLength] != Key.maxRecvDataSegmentLength.description.standard {
            Self.append(Key.maxRecvDataSegmentLength.description.wireName[...], String(offered[.maxRecvDataSegmentLength]).utf8, to: &text)
        }
        declared = true
        return text
    }

    /// Keys that nobody has mentioned and whose standard value is not what was configured; they await the initiator's answer then.
    mutating func demands() -> [UInt8] {
        var text: [UInt8] = []
        for key in Key.configurable where !mentioned.contains(key) && appliesHere(key) && !standardSuits(key) {
            let value = offered.offer(key)
            let shown: String =
                switch key.description.values {
                case .boolean: value == 1 ? "Yes" : "No"
                case .digests: "CRC32C"
                default: String(value)
                }
            Self.append(key.description.wireName[...], shown.utf8, to: &text)
            _ = mentioned.insert(key)
            _ = awaited.insert(key)
        }
        return text
    }

    /// What we have brought up and got no answer to stays as it was, as after a `Reject`: nothing else was agreed on (RFC 7143 §6.2).
    mutating func forgetDemands() throws(LoginRefusal) {
        for key in Key.configurable where awaited.contains(key) { try leaveAtStandard(key) }
        awaited = KeySet()
    }

    /// Answers that leave a key at its value (RFC 7143 §6.2).
    private static let refusals = ["Reject", "Irrelevant", "NotUnderstood"]

    /// The standard value holds, if we can live with it. We can with every number and flag: they say what suits us, and what they
    /// promise us is enforced as it was agreed. A digest that is demanded protects; without it there is no session.
    private func leaveAtStandard(_ key: Key) throws(LoginRefusal) {
        if case .list = key.description.result, !standardSuits(key) { throw LoginRefusal(status: .initiatorError) }
    }

    static func append(_ name: ArraySlice<UInt8>, _ value: some Sequence<UInt8>, to text: inout [UInt8]) {
        text += name
        text.append(UInt8(ascii: "="))
        text += value
        text.append(0)
    }

    private func appliesHere(_ key: Key) -> Bool { sessionType == .normal || key.description.scope == .everySession }

    private func standardSuits(_ key: Key) -> Bool {
        let standard = key.description.standard
        let offer = offered.offer(key)
        return switch key.description.result {
        case .minimum, .and: standard <= offer
        case .maximum, .or: standard >= offer
        case .list: DigestSet(rawValue: offer).contains(.none)
        default: true
        }
    }

    /// Our answer to one pair, nil if there is none to give.
    private mutating func answer(to pair: KeyValue, mayNegotiate: Bool, isFirst: Bool) throws(LoginRefusal) -> String.UTF8View? {
        keyCount += 1
        guard keyCount <= LoginLimits.keys else { throw LoginRefusal(status: .initiatorError) }
        guard let key = pair.key else {
            guard !unknown.contains(pair.name) else { throw LoginRefusal(status: .initiatorError) }
            unknown.append(pair.name)
            return "NotUnderstood".utf8
        }
        guard pair.value.count <= key.longestValue else { throw LoginRefusal(status: .initiatorError) }
        if awaited.remove(key) {
            // The answer to our demand: it must be one that the demand permits.
            guard let value = agreed(key, pair.value) else {
                guard Self.refusals.contains(where: { pair.value.elementsEqual($0.utf8) }) else { throw LoginRefusal(status: .initiatorError) }
                try leaveAtStandard(key)
                return nil
            }
            apply(value, to: key)
            return nil
        }
        guard mentioned.insert(key) else { throw LoginRefusal(status: .initiatorError) }
        guard appliesHere(key) else { return "Irrelevant".utf8 }
        // What a target offers is for those who have proved who they are.
        guard mayNegotiate || !key.isNegotiated else { throw LoginRefusal(status: .initiatorError) }
        switch key.description.result {
        case .constant(let answer): return answer.description.utf8
        case .initial:
            guard isFirst else { throw LoginRefusal(status: .initiatorError) }
            return nil
        case .declared:
            guard key == .maxRecvDataSegmentLength else { return nil }
            guard let value = agreed(key, pair.value) else { return "Reject".utf8 }
            apply(value, to: key)
            return nil
        case .minimum, .maximum, .and, .or, .list:
            guard let value = agreed(key, pair.value) else {
                try leaveAtStandard(key)
                return "Reject".utf8
            }
            apply(value, to: key)
            return show(value, of: key).utf8
        case .security: return nil
        case .feature(let feature):
            let features = pair.value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
            return features.contains { $0.elementsEqual(feature.description.utf8) } ? feature.description.utf8 : "Reject".utf8
        case .local: preconditionFailure("a local key is never found on the wire")
        }
    }

    /// What the initiator's value and ours make together; nil if its value is none or nothing suits both.
    private func agreed(_ key: Key, _ text: ArraySlice<UInt8>) -> UInt32? {
        let ours = offered.offer(key)
        switch key.description.values {
        case .number(let range):
            guard let theirs = number(text), range.contains(theirs) else { return nil }
            return switch key.description.result {
            case .minimum where key == .firstBurstLength: min(theirs, ours, UInt32(negotiated.maxBurstLength))
            case .minimum: min(theirs, ours)
            case .maximum: max(theirs, ours)
            default: theirs
            }
        case .boolean:
            guard let theirs = boolean(text) else { return nil }
            if case .and = key.description.result { return theirs && ours == 1 ? 1 : 0 }
            return theirs || ours == 1 ? 1 : 0
        case .digests:
            for name in text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
                if let digest = DigestSet.named(name), DigestSet(rawValue: ours).contains(digest) { return digest.rawValue }
            }
            return nil
        case .markerInterval, .text: return nil
        }
    }

    private func show(_ value: UInt32, of key: Key) -> String {
        switch key.description.values {
        case .boolean: value == 1 ? "Yes" : "No"
        case .digests: value == DigestSet.crc32c.rawValue ? "CRC32C" : "None"
        default: String(value)
        }
    }

    private mutating func apply(_ value: UInt32, to key: Key) {
        switch key {
        case .maxRecvDataSegmentLength:
            negotiated.initiatorMaxRecvDataSegmentLength = Int(value)
            limitSegments()
        case .headerDigest: negotiated.headerDigest = value == DigestSet.crc32c.rawValue
        case .dataDigest: negotiated.dataDigest = value == DigestSet.crc32c.rawValue
        case .initialR2T: negotiated.initialR2T = value == 1
        case .immediateData: negotiated.immediateData = value == 1
        case .maxOutstandingR2T: negotiated.maxOutstandingR2T = Int(value)
        case .firstBurstLength: negotiated.firstBurstLength = Int(value)
        case .maxBurstLength: negotiated.maxBurstLength = Int(value)
        case .dataPDUInOrder: negotiated.dataPDUInOrder = value == 1
        case .dataSequenceInOrder: negotiated.dataSequenceInOrder = value == 1
        case .errorRecoveryLevel: negotiated.errorRecoveryLevel = Int(value)
        case .defaultTime2Wait: negotiated.defaultTime2Wait = Int(value)
        case .defaultTime2Retain: negotiated.defaultTime2Retain = Int(value)
        case .maxConnections: negotiated.maxConnections = Int(value)
        default: preconditionFailure("\(key) is not negotiated")
        }
    }

    private mutating func limitSegments() {
        negotiated.maxRecvDataSegmentLength = offered.maxRecvDataSegmentLength
        negotiated.maxXmitDataSegmentLength = min(negotiated.initiatorMaxRecvDataSegmentLength, offered.maxXmitDataSegmentLength)
    }
}
