/// An iSCSI node name (RFC 7143 §4.2.7): 1…223 bytes of ASCII letters, digits, `.`, `:` and `-`.
///
/// Two names are the same when they are the same in lower case. A prefix (`iqn.`, `eui.`, `naa.`) is not asked for: hosts
/// that come from tgt have names without.
public struct ISCSIName: Hashable, Sendable, CustomStringConvertible {
    /// The longest name, in bytes (RFC 7143 §4.2.7.1).
    public static let longest = 223

    /// Why bytes are no iSCSI name.
    public enum NameError: Error, Hashable, Sendable {
        case empty
        case tooLong
        /// A byte that is none of the permitted ones; the offset counts from 0.
        case forbiddenByte(at: Int)
    }

    /// The name in lower case: what decisions are made on.
    public let bytes: [UInt8]
    /// The name as it was written: what is shown and sent.
    public let spelling: String

    public init(_ written: some Collection<UInt8>) throws(NameError) { try self.init(Array(written)) }

    public init(_ written: [UInt8]) throws(NameError) {
        guard !written.isEmpty else { throw .empty }
        guard written.count <= Self.longest else { throw .tooLong }
        var hasCapitals = false
        for index in written.indices {
            switch written[index] {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): hasCapitals = true
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "."), UInt8(ascii: ":"), UInt8(ascii: "-"): break
            default: throw .forbiddenByte(at: index)
            }
        }
        bytes = hasCapitals ? written.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 } : written
        spelling = String(decoding: written, as: UTF8.self)
    }

    public var description: String { spelling }

    public static func == (left: ISCSIName, right: ISCSIName) -> Bool { left.bytes == right.bytes }
    public func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
}

/// The initiator's part of a session's identity: 48 bits (RFC 7143 §11.12.5).
public struct ISID: Hashable, Sendable {
    public let rawValue: UInt64

    /// - Parameter rawValue: the six bytes, big-endian; must fit 48 bits
    public init(rawValue: UInt64) {
        precondition(rawValue >> 48 == 0)
        self.rawValue = rawValue
    }
}

/// Session types (RFC 7143 §13.21).
public enum SessionType: UInt8, Hashable, Sendable {
    case discovery = 0
    case normal = 1
}

/// Status of a Login Response: Status-Class in the high byte, Status-Detail in the low one (RFC 7143 §11.13.5).
public enum LoginStatus: UInt16, Hashable, Sendable {
    case success = 0x0000
    case targetMovedTemporarily = 0x0101
    case targetMovedPermanently = 0x0102
    case initiatorError = 0x0200
    case authenticationFailure = 0x0201
    case authorizationFailure = 0x0202
    case notFound = 0x0203
    case targetRemoved = 0x0204
    case unsupportedVersion = 0x0205
    case tooManyConnections = 0x0206
    case missingParameter = 0x0207
    case cannotIncludeInSession = 0x0208
    case sessionTypeNotSupported = 0x0209
    case sessionDoesNotExist = 0x020a
    case invalidDuringLogin = 0x020b
    case targetError = 0x0300
    case serviceUnavailable = 0x0301
    case outOfResources = 0x0302
}
