import Bytes

/// An address and port on which initiators are served, as the administrator names it.
public struct Portal: Hashable, Sendable, CustomStringConvertible {
    /// 0.0.0.0 and :: stand for every address of their family.
    public let address: NetworkAddress
    /// 0 asks for any free port.
    public let port: UInt16
    /// TargetPortalGroupTag (RFC 7143 §13.9): there is one group.
    public let groupTag: UInt16 = 1

    /// The port of iSCSI (RFC 7143 §1).
    public static let defaultPort: UInt16 = 3260

    public init(address: NetworkAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// `address[:port]`, with an IPv6 address in brackets where a port follows.
    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
        let text = Array(text)
        let refused = ConfigurationError(.invalid, "“\(escaped(text))” is no portal: write address, address:port or [IPv6 address]:port")
        let host: ArraySlice<UInt8>
        let rest: ArraySlice<UInt8>
        if text.first == UInt8(ascii: "[") {
            guard let end = text.firstIndex(of: UInt8(ascii: "]")) else { throw refused }
            host = text[1..<end]
            rest = text[(end + 1)...]
        } else if text.count(where: { $0 == UInt8(ascii: ":") }) > 1 {
            host = text[...]
            rest = []
        } else {
            let end = text.firstIndex(of: UInt8(ascii: ":")) ?? text.endIndex
            host = text[..<end]
            rest = text[end...]
        }
        guard let address = NetworkAddress(parsing: host) else { throw refused }
        if rest.isEmpty {
            self.init(address: address, port: Self.defaultPort)
        } else {
            guard rest.first == UInt8(ascii: ":"), let number = Number.decimal(rest.dropFirst()), let port = UInt16(exactly: number) else { throw refused }
            self.init(address: address, port: port)
        }
    }

    /// As in TargetAddress (RFC 7143 §13.8), without the group tag.
    public var description: String {
        address.family == .ipv4 ? "\(address):\(port)" : "[\(address)]:\(port)"
    }
}
