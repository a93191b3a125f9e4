/// What a target offers its initiators: its value of every key an administrator can configure (RFC 7143 §13).
public struct SessionParameters: Hashable, Sendable {
    /// Why a key cannot be set.
    public enum ParameterError: Error, Hashable, Sendable {
        case unknownKey
        /// Not a value of this key, or outside of its range.
        case invalidValue
    }

    /// The values in the order in which tgt shows the keys, for messages between our own processes.
    public private(set) var rawValues: [UInt32]

    /// What a new target offers.
    public init() { rawValues = Key.configurable.map(\.description.initial) }

    /// What another process of ours has written, if every value is in its range.
    public init?(rawValues: [UInt32]) {
        guard rawValues.count == Key.configurable.count else { return nil }
        for (key, value) in zip(Key.configurable, rawValues) where !key.permits(value) { return nil }
        self.rawValues = rawValues
    }

    subscript(key: Key) -> UInt32 { rawValues[key.rawValue] }

    /// Our side of a negotiation: what is configured, as far as it exists here.
    func offer(_ key: Key) -> UInt32 {
        switch key {
        case .dataPDUInOrder, .dataSequenceInOrder: 1
        case .errorRecoveryLevel: 0
        case .maxConnections: 1
        default: self[key]
        }
    }

    /// Sets one key.
    /// - Parameters:
    ///   - name: the key, in any case
    ///   - value: a number (decimal, or hexadecimal behind 0x), `Yes` or `No`, or a list of digests
    public mutating func set(name: some Collection<UInt8>, value: some Collection<UInt8>) throws(ParameterError) {
        guard let key = Key(configured: name) else { throw .unknownKey }
        guard let raw = key.parse(Array(value)) else { throw .invalidValue }
        rawValues[key.rawValue] = raw
    }

    /// The value of the key of that name (in any case) as tgt shows it; nil if there is no such key.
    public func value(of name: some Collection<UInt8>) -> String? { Key(configured: name).map { $0.show(self[$0]) } }

    /// Every key and its value as tgt shows them, in its order.
    public var shown: [(name: String, value: String)] {
        Key.configurable.map { ($0.description.name, $0.show(self[$0])) }
    }

    public var maxRecvDataSegmentLength: Int { Int(self[.maxRecvDataSegmentLength]) }
    /// The longest data segment this target sends, in bytes; the initiator's MaxRecvDataSegmentLength bounds it as well.
    public var maxXmitDataSegmentLength: Int { Int(self[.maxXmitDataSegmentLength]) }
    public var headerDigest: DigestSet { DigestSet(rawValue: self[.headerDigest]) }
    public var dataDigest: DigestSet { DigestSet(rawValue: self[.dataDigest]) }
    public var initialR2T: Bool { self[.initialR2T] == 1 }
    public var immediateData: Bool { self[.immediateData] == 1 }
    public var maxOutstandingR2T: Int { Int(self[.maxOutstandingR2T]) }
    public var firstBurstLength: Int { Int(self[.firstBurstLength]) }
    public var maxBurstLength: Int { Int(self[.maxBurstLength]) }
    public var maxConnections: Int { Int(self[.maxConnections]) }
    public var errorRecoveryLevel: Int { Int(self[.errorRecoveryLevel]) }
    public var defaultTime2Wait: Int { Int(self[.defaultTime2Wait]) }
    public var defaultTime2Retain: Int { Int(self[.defaultTime2Retain]) }
    /// How many commands of one session may be under way.
    public var maxQueueCmd: Int { Int(self[.maxQueueCmd]) }
}

extension Key {
    /// Whether an administrator's value is in range.
    fileprivate func permits(_ value: UInt32) -> Bool {
        switch description.values {
        case .number(let range): range.contains(value) && (self != .maxOutstandingUnexpectedPDUs || value != 1)
        case .boolean: value <= 1
        case .digests: (1...3).contains(value)
        case .markerInterval: value <= 65535
        case .text: false
        }
    }

    fileprivate func parse(_ text: [UInt8]) -> UInt32? {
        let value: UInt32?
        switch description.values {
        case .number: value = number(text[...])
        case .boolean: value = boolean(text[...]).map { $0 ? 1 : 0 }
        case .digests:
            var set: DigestSet = []
            for part in text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
                guard let digest = DigestSet.named(part) else { return nil }
                set.insert(digest)
            }
            value = set.rawValue
        case .markerInterval: value = number(text[...]).flatMap { $0 == 0 ? nil : $0 }
        case .text: value = nil
        }
        return value.flatMap { permits($0) ? $0 : nil }
    }

    fileprivate func show(_ value: UInt32) -> String {
        switch description.values {
        case .number, .text: String(value)
        case .boolean: value == 1 ? "Yes" : "No"
        case .digests: DigestSet(rawValue: value).contains(.crc32c) ? "CRC32C" : "None"
        case .markerInterval: value == 0 ? "Reject" : "Irrelevant"
        }
    }
}

/// What one session has agreed on. Lengths in bytes.
public struct NegotiatedParameters: Hashable, Sendable {
    public var headerDigest = false
    public var dataDigest = false
    /// The longest data segment the initiator may send.
    public var maxRecvDataSegmentLength = Int(Key.maxRecvDataSegmentLength.description.standard)
    /// The longest data segment the initiator takes.
    public var initiatorMaxRecvDataSegmentLength = Int(Key.maxRecvDataSegmentLength.description.standard)
    /// The longest data segment we send: the initiator's limit and the administrator's.
    public var maxXmitDataSegmentLength = Int(Key.maxRecvDataSegmentLength.description.standard)
    public var initialR2T = true
    public var immediateData = true
    public var maxOutstandingR2T = Int(Key.maxOutstandingR2T.description.standard)
    public var firstBurstLength = Int(Key.firstBurstLength.description.standard)
    public var maxBurstLength = Int(Key.maxBurstLength.description.standard)
    public var dataPDUInOrder = true
    public var dataSequenceInOrder = true
    public var maxConnections = 1
    public var errorRecoveryLevel = 0
    /// Seconds.
    public var defaultTime2Wait = Int(Key.defaultTime2Wait.description.standard)
    public var defaultTime2Retain = Int(Key.defaultTime2Retain.description.standard)
    /// How many commands may be under way at once: the size of the command window.
    public var queueDepth = Int(Key.maxQueueCmd.description.standard)

    /// What holds if nobody mentions any key.
    public init() {}

    /// Whether a negotiation over `offered` can have ended like this: for whoever does not trust the one who negotiated. A key may also
    /// have its standard value, for an initiator need not agree to another.
    public func isWithin(_ offered: SessionParameters) -> Bool {
        let lengths = Int(Key.lengths.lowerBound)...Int(Key.lengths.upperBound)
        func isStandard(_ value: Int, _ key: Key) -> Bool { value == Int(key.description.standard) }
        func permitted(_ used: Bool, _ set: DigestSet) -> Bool { set.contains(used ? .crc32c : DigestSet.none) }
        return permitted(headerDigest, offered.headerDigest)
            && permitted(dataDigest, offered.dataDigest)
            && maxRecvDataSegmentLength == offered.maxRecvDataSegmentLength
            && lengths.contains(initiatorMaxRecvDataSegmentLength)
            && maxXmitDataSegmentLength == min(initiatorMaxRecvDataSegmentLength, offered.maxXmitDataSegmentLength)
            && (initialR2T || !offered.initialR2T)
            && (1...offered.maxOutstandingR2T).contains(maxOutstandingR2T)
            && maxBurstLength >= lengths.lowerBound && (maxBurstLength <= offered.maxBurstLength || isStandard(maxBurstLength, .maxBurstLength))
            && firstBurstLength >= lengths.lowerBound && firstBurstLength <= maxBurstLength
            && firstBurstLength <= max(offered.firstBurstLength, Int(Key.firstBurstLength.description.standard))
            && dataPDUInOrder && dataSequenceInOrder
            && maxConnections == 1 && errorRecoveryLevel == 0
            && ((offered.defaultTime2Wait...3600).contains(defaultTime2Wait) || isStandard(defaultTime2Wait, .defaultTime2Wait))
            && ((0...offered.defaultTime2Retain).contains(defaultTime2Retain) || isStandard(defaultTime2Retain, .defaultTime2Retain))
            && queueDepth == offered.maxQueueCmd
    }
}
