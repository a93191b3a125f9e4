import Bytes
import Reactor

/// Where connections come from, as far as one may be held to answer for another: an IPv4 address, or the /64 of an IPv6 address, which
/// is what one subscriber has; and what lies around such a network, a /48.
public struct Source: Hashable, Sendable, CustomStringConvertible {
    /// The address's first bytes: 4 of IPv4, 8 or 6 of IPv6.
    public let prefix: [UInt8]

    private static let networks = (subscriber: 8, site: 6)

    public init(_ address: SocketAddress) { prefix = address.isIPv6 ? Array(address.bytes.prefix(Self.networks.subscriber)) : address.bytes }

    /// - Parameter prefix: 4, 6 or 8 bytes; nil for any other number
    init?(prefix: [UInt8]) {
        guard [4, Self.networks.site, Self.networks.subscriber].contains(prefix.count) else { return nil }
        self.prefix = prefix
    }

    /// The /48 that a /64 lies in.
    public var site: Source? { prefix.count == Self.networks.subscriber ? Source(prefix: Array(prefix.prefix(Self.networks.site))) : nil }

    public var description: String {
        if prefix.count == 4 { return prefix.map { String($0) }.joined(separator: ".") }
        let groups = stride(from: 0, to: prefix.count, by: 2).map { String(UInt16(prefix[$0]) << 8 | UInt16(prefix[$0 + 1]), radix: 16) }
        return groups.joined(separator: ":") + "::/\(prefix.count * 8)"
    }
}

/// What a connection did that never logged in: only the login process sees it.
public enum LoginOffence: UInt8, Sendable {
    /// It had not logged in at its deadline.
    case unfinished = 1
    /// It sent what no initiator sends.
    case nonsense
}
