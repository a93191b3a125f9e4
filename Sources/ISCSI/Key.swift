/// Every key of RFC 7143 §12 and §13, of RFC 7145 §6 (which TCP declines), and tgt's two local ones. The first 24, up to
/// `maxQueueCmd`, are what an administrator configures, in the order in which tgt shows them.
enum Key: Int, CaseIterable, Sendable {
    case maxRecvDataSegmentLength, headerDigest, dataDigest, initialR2T, maxOutstandingR2T, immediateData
    case firstBurstLength, maxBurstLength, dataPDUInOrder, dataSequenceInOrder, errorRecoveryLevel
    case ifMarker, ofMarker, defaultTime2Wait, defaultTime2Retain, ofMarkInt, ifMarkInt, maxConnections
    case rdmaExtensions, targetRecvDataSegmentLength, initiatorRecvDataSegmentLength, maxOutstandingUnexpectedPDUs
    case maxXmitDataSegmentLength, maxQueueCmd
    case initiatorName, initiatorAlias, targetName, sessionType
    case targetAlias, targetAddress, targetPortalGroupTag, sendTargets
    case authMethod, chapA, chapI, chapC, chapN, chapR
    case taskReporting, nodeArchitecture

    static let configurable = allCases[...Key.maxQueueCmd.rawValue]
}

/// Some of the keys, each a bit.
struct KeySet: Hashable, Sendable {
    private var bits: UInt64 = 0

    var isEmpty: Bool { bits == 0 }
    func contains(_ key: Key) -> Bool { bits & Self.bit(key) != 0 }
    /// - Returns: false if it was there already
    mutating func insert(_ key: Key) -> Bool {
        defer { bits |= Self.bit(key) }
        return !contains(key)
    }
    /// - Returns: whether it was there
    mutating func remove(_ key: Key) -> Bool {
        defer { bits &= ~Self.bit(key) }
        return contains(key)
    }
    private static func bit(_ key: Key) -> UInt64 { 1 << UInt64(key.rawValue) }
}

extension Key {
    /// The values a key can have. Numbers stand for themselves, `Yes` for 1, a set of digests for its bits.
    enum Values: Sendable {
        case number(ClosedRange<UInt32>)
        case boolean
        case digests
        /// Intervals of markers, which no longer exist (RFC 7143 §13.25): 0 until somebody sets them.
        case markerInterval
        case text
    }

    /// How two parties' values become one (RFC 7143 §6.2), or who says what.
    enum Result: Sendable {
        case minimum, maximum, and, or
        /// The first of the initiator's list that is in our set.
        case list
        /// Each side states its own.
        case declared
        /// Ours alone, never on the wire.
        case local
        /// The same answer whatever is offered.
        case constant(StaticString)
        /// Stated by the initiator in its first request, nothing to answer.
        case initial
        /// Handled by `SecurityNegotiation`.
        case security
        /// What the list of protocol features must contain.
        case feature(StaticString)
    }

    /// In which sessions a key means something.
    enum Scope: Sendable { case everySession, normalSessions }

    final class Description: Sendable {
        let name: String
        let values: Values
        let result: Result
        /// What holds if nobody mentions the key (RFC 7143 §13).
        let standard: UInt32
        /// What a new target offers.
        let initial: UInt32
        let scope: Scope
        let wireName: [UInt8]

        init(_ name: String, _ values: Values, _ result: Result, standard: UInt32 = 0, initial: UInt32? = nil, _ scope: Scope = .everySession) {
            self.name = name
            self.values = values
            self.result = result
            self.standard = standard
            self.initial = initial ?? standard
            self.scope = scope
            wireName = Array(name.utf8)
        }
    }

    /// Data segment and burst lengths (RFC 7143 §13.12–13.14).
    static let lengths: ClosedRange<UInt32> = 512...0xff_ffff

    /// One row for each key, in the order of the cases. Initial values that differ from tgt's: MaxRecvDataSegmentLength,
    /// FirstBurstLength and MaxXmitDataSegmentLength of 256 KiB and InitialR2T=No save round trips and headers.
    static let table: [Description] = [
        Description("MaxRecvDataSegmentLength", .number(lengths), .declared, standard: 8192, initial: 262_144),
        Description("HeaderDigest", .digests, .list, standard: DigestSet.none.rawValue),
        Description("DataDigest", .digests, .list, standard: DigestSet.none.rawValue),
        Description("InitialR2T", .boolean, .or, standard: 1, initial: 0, .normalSessions),
        Description("MaxOutstandingR2T", .number(1...65535), .minimum, standard: 1, .normalSessions),
        Description("ImmediateData", .boolean, .and, standard: 1, .normalSessions),
        Description("FirstBurstLength", .number(lengths), .minimum, standard: 65536, initial: 262_144, .normalSessions),
        Description("MaxBurstLength", .number(lengths), .minimum, standard: 262_144, .normalSessions),
        Description("DataPDUInOrder", .boolean, .or, standard: 1, .normalSessions),
        Description("DataSequenceInOrder", .boolean, .or, standard: 1, .normalSessions),
        Description("ErrorRecoveryLevel", .number(0...2), .minimum, standard: 0),
        Description("IFMarker", .boolean, .constant("No")),
        Description("OFMarker", .boolean, .constant("No")),
        Description("DefaultTime2Wait", .number(0...3600), .maximum, standard: 2),
        Description("DefaultTime2Retain", .number(0...3600), .minimum, standard: 20),
        Description("OFMarkInt", .markerInterval, .constant("Reject")),
        Description("IFMarkInt", .markerInterval, .constant("Reject")),
        Description("MaxConnections", .number(1...65535), .minimum, standard: 1, .normalSessions),
        Description("RDMAExtensions", .boolean, .constant("No"), initial: 1),
        Description("TargetRecvDataSegmentLength", .number(lengths), .constant("Irrelevant"), standard: 8192, initial: 262_144),
        Description("InitiatorRecvDataSegmentLength", .number(lengths), .constant("Irrelevant"), standard: 8192, initial: 262_144),
        Description("MaxOutstandingUnexpectedPDUs", .number(0...UInt32.max), .constant("Irrelevant")),
        Description("MaxXmitDataSegmentLength", .number(lengths), .local, standard: 8192, initial: 262_144),
        Description("MaxQueueCmd", .number(1...512), .local, standard: 128),
        Description("InitiatorName", .text, .initial),
        Description("InitiatorAlias", .text, .declared),
        Description("TargetName", .text, .initial),
        Description("SessionType", .text, .initial),
        Description("TargetAlias", .text, .constant("Reject")),
        Description("TargetAddress", .text, .constant("Reject")),
        Description("TargetPortalGroupTag", .text, .constant("Reject")),
        Description("SendTargets", .text, .constant("Reject")),
        Description("AuthMethod", .text, .security),
        Description("CHAP_A", .text, .security),
        Description("CHAP_I", .text, .security),
        Description("CHAP_C", .text, .security),
        Description("CHAP_N", .text, .security),
        Description("CHAP_R", .text, .security),
        Description("TaskReporting", .text, .feature("RFC3720"), .normalSessions),
        Description("X#NodeArchitecture", .text, .declared),
    ]

    var description: Description { Self.table[rawValue] }

    var isSecurityKey: Bool { if case .security = description.result { true } else { false } }

    /// Whether the answer to it says something about the target.
    var isNegotiated: Bool {
        switch description.result {
        case .minimum, .maximum, .and, .or, .list: true
        default: false
        }
    }

    /// Bytes of its longest value (RFC 7143 §6.1, §12.1.3).
    var longestValue: Int { self == .chapC || self == .chapR ? BinaryValue.longestSpelling : KeyValue.longestValue }

    /// The key of that name as it stands on the wire, where upper and lower case differ. Keys of ours alone do not exist there.
    init?(onWire name: ArraySlice<UInt8>) {
        guard name.count < Self.onWire.count, let key = Self.onWire[name.count].first(where: { $0.description.wireName[...] == name }) else { return nil }
        self = key
    }

    /// Those that may come from an initiator, by the length of their names: few have the same.
    private static let onWire: [[Key]] = {
        var keys: [[Key]] = []
        for key in allCases {
            if case .local = key.description.result { continue }
            let length = key.description.wireName.count
            while keys.count <= length { keys.append([]) }
            keys[length].append(key)
        }
        return keys
    }()

    /// The key an administrator means, who may write it in any case.
    init?(configured name: some Collection<UInt8>) {
        func fold(_ byte: UInt8) -> UInt8 { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte | 0x20 : byte }
        let match = Self.configurable.first { $0.description.wireName.lazy.map(fold).elementsEqual(name.lazy.map(fold)) }
        guard let match else { return nil }
        self = match
    }
}

/// Digests that a party may use (RFC 7143 §13.1).
public struct DigestSet: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let none = DigestSet(rawValue: 1)
    public static let crc32c = DigestSet(rawValue: 2)

    static func named(_ name: ArraySlice<UInt8>) -> DigestSet? {
        if name.elementsEqual("None".utf8) { return DigestSet.none }
        if name.elementsEqual("CRC32C".utf8) { return .crc32c }
        return nil
    }
}

/// A number as keys write it: decimal without leading zeros, or hexadecimal behind 0x (RFC 7143 §6.1). Nil for anything
/// else and for what does not fit 32 bits.
func number(_ text: ArraySlice<UInt8>) -> UInt32? {
    guard let first = text.first else { return nil }
    var digits = text
    var base: UInt64 = 10
    if first == UInt8(ascii: "0"), text.count > 1 {
        guard text[text.startIndex + 1] | 0x20 == UInt8(ascii: "x") else { return nil }
        digits = text.dropFirst(2)
        base = 16
        guard !digits.isEmpty else { return nil }
    }
    var value: UInt64 = 0
    for byte in digits {
        let digit: UInt64
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = UInt64(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = UInt64(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit = UInt64(byte - UInt8(ascii: "A") + 10)
        default: return nil
        }
        guard digit < base else { return nil }
        value = value * base + digit
        guard value <= UInt64(UInt32.max) else { return nil }
    }
    return UInt32(value)
}

/// `Yes` or `No`, in just this case (RFC 7143 §6.1).
func boolean(_ text: ArraySlice<UInt8>) -> Bool? {
    if text.elementsEqual("Yes".utf8) { return true }
    if text.elementsEqual("No".utf8) { return false }
    return nil
}
