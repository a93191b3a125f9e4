import Bytes
import Reactor

/// From where connections come, as far as one peer can be told from another: an IPv4 address, or the /64 of an IPv6 address, since
/// a host takes as many addresses of its network as it likes.
public struct Source: Hashable, Sendable, CustomStringConvertible {
    /// How much of an address counts.
    public enum Extent: UInt8, Sendable {
        case ipv4 = 32
        case ipv6 = 64
        /// What a provider gives to one customer: who has many /64 has them here.
        case ipv6Site = 48
    }

    public let extent: Extent
    /// The 32 bits of an IPv4 address, or the first 64 of an IPv6 address; those that do not count are 0.
    public let bits: UInt64

    public init(_ address: SocketAddress) {
        let bytes = address.bytes
        if address.isIPv6, !bytes.starts(with: Self.translated) {
            self.init(.ipv6, bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) })
        } else {
            self.init(.ipv4, bytes.suffix(4).reduce(0) { $0 << 8 | UInt64($1) })
        }
    }

    private init(_ extent: Extent, _ bits: UInt64) {
        self.extent = extent
        self.bits = bits
    }

    /// 64:ff9b::/96, RFC 6052 §2.1: all IPv4 hosts behind a translator, one address each.
    private static let translated: [UInt8] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]

    /// The network around it that counts, too.
    public var site: Source? { extent == .ipv6 ? Source(.ipv6Site, bits & ~0xffff) : nil }

    /// Bits of a prefix of its family.
    public var prefixLength: Int { Int(extent.rawValue) }

    /// Its first address in network order: 4 bytes or 16.
    public var bytes: [UInt8] {
        let length = extent == .ipv4 ? 4 : 8
        let counted = (0..<length).map { UInt8(truncatingIfNeeded: bits >> UInt64(8 * (length - 1 - $0))) }
        return extent == .ipv4 ? counted : counted + [UInt8](repeating: 0, count: 8)
    }
}

extension Source {
    /// The address, or the network as 2001:db8:1:2::/64.
    public var description: String {
        if extent == .ipv4 { return bytes.map { String($0) }.joined(separator: ".") }
        let groups = stride(from: 0, to: prefixLength / 8, by: 2).map { String(UInt16(bytes[$0]) << 8 | UInt16(bytes[$0 + 1]), radix: 16) }
        return groups.joined(separator: ":") + "::/\(prefixLength)"
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(extent.rawValue)
        writer.write(bits)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let extent: Extent = try reader.enumeration()
        let bits = try reader.uint64()
        switch extent {
        case .ipv4 where bits > UInt64(UInt32.max), .ipv6Site where bits & 0xffff != 0: throw .invalid
        default: self.init(extent, bits)
        }
    }
}

/// As one word, for a page that is written with one store.
extension Source {
    private static let (ipv4, loopback): (UInt64, UInt64) = (1 << 48, 2 << 48)
    private static let reserved = 0...UInt64(2)

    /// An IPv6 network as it is, an IPv4 address in a part of 0000::/8 that is nobody's; 0: one that has no word, which is nobody's either.
    public var word: UInt64 {
        switch extent {
        case .ipv4: Self.ipv4 | bits
        case .ipv6 where bits == 0: Self.loopback
        case .ipv6: Self.reserved.contains(bits >> 48) ? 0 : bits
        case .ipv6Site: 0
        }
    }

    /// nil for a word that is none.
    public init?(word: UInt64) {
        if word >> 32 == Self.ipv4 >> 32 {
            self.init(.ipv4, word & UInt64(UInt32.max))
        } else if word == Self.loopback {
            self.init(.ipv6, 0)
        } else {
            guard !Self.reserved.contains(word >> 48) else { return nil }
            self.init(.ipv6, word)
        }
    }

    /// An address of it.
    public var address: SocketAddress {
        guard let address = SocketAddress(bytes: bytes, port: 0) else { preconditionFailure("a source has 4 or 16 bytes") }
        return address
    }
}

/// What a connection did that never logged in: only the login process sees it.
public enum LoginOffence: UInt8, Sendable {
    /// It had not logged in at its deadline.
    case unfinished = 1
    /// It sent what no initiator sends.
    case nonsense
    /// It began TLS on a clear portal: most likely somebody has mistaken the port.
    case tlsInClear
}
