import CLinux
import Glibc

/// An IP address and a port. IPv4-mapped IPv6 addresses are IPv4 addresses here, always.
public struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
    /// In network order: 4 bytes of IPv4 or 16 of IPv6.
    public let bytes: [UInt8]
    /// Interface index of a link-local IPv6 address, else 0.
    public let scope: UInt32
    public let port: UInt16

    public var isIPv6: Bool { bytes.count == 16 }
    /// 0.0.0.0 or ::.
    public var isUnspecified: Bool { bytes.allSatisfy { $0 == 0 } }

    /// - Parameter bytes: 4 or 16 bytes in network order; nil for any other length.
    public init?(bytes: [UInt8], port: UInt16, scope: UInt32 = 0) {
        switch bytes.count {
        case 4:
            self.bytes = bytes
            self.scope = 0
        case 16:
            let isMapped = bytes[..<10].allSatisfy { $0 == 0 } && bytes[10] == 0xff && bytes[11] == 0xff
            self.bytes = isMapped ? Array(bytes[12...]) : bytes
            self.scope = isMapped ? 0 : scope
        default: return nil
        }
        self.port = port
    }

    /// Reads "192.0.2.1:3260", "[2001:db8::1]:3260" or "[fe80::1%eth0]:3260": numbers only, no name service is asked.
    ///
    /// - Parameter defaultPort: the port of a text without one ("192.0.2.1", "[::1]" or "::1"); nil refuses it.
    public init?(_ text: String, defaultPort: UInt16? = nil) {
        var host = Substring(text)
        var port: Substring?
        if host.first == "[" {
            guard let end = host.firstIndex(of: "]") else { return nil }
            let rest = host[host.index(after: end)...]
            host = host[host.index(after: host.startIndex)..<end]
            guard host.contains(":") else { return nil }
            if !rest.isEmpty {
                guard rest.first == ":" else { return nil }
                port = rest.dropFirst()
            }
        } else if let colon = host.firstIndex(of: ":"), host.lastIndex(of: ":") == colon {
            port = host[host.index(after: colon)...]
            host = host[..<colon]
        }
        guard let number = port.map(Self.portNumber) ?? defaultPort, let (bytes, scope) = Self.host(host) else { return nil }
        self.init(bytes: bytes, port: number, scope: scope)
    }

    /// The addresses of a host, in the order in which they are to be tried, without asking anybody if it is an address already. It
    /// waits for the name service: not for a thread with a loop.
    public static func resolve(host: String, port: UInt16) throws(NameError) -> [SocketAddress] {
        if let address = SocketAddress(host.contains(":") ? "[\(host)]" : host, defaultPort: port) { return [address] }
        guard !host.utf8.contains(0) else { throw NameError(host: host, reason: "is not a name") }
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let result = unsafe getaddrinfo(host, nil, &hints, &list)
        guard result == 0 else { throw NameError(host: host, reason: unsafe String(cString: gai_strerror(result))) }
        defer { unsafe freeaddrinfo(list) }
        var found: [SocketAddress] = []
        var entry = unsafe list
        while let info = unsafe entry {
            // The address lies behind family and port, and in IPv6 behind the flow, too (ip(7), ipv6(7)).
            let start = unsafe UnsafeRawPointer(info.pointee.ai_addr)
            var address: SocketAddress?
            switch unsafe info.pointee.ai_family {
            case AF_INET: unsafe address = SocketAddress(bytes: Array(UnsafeRawBufferPointer(start: start! + 4, count: 4)), port: port)
            case AF_INET6:
                let scope = unsafe start!.load(fromByteOffset: 24, as: UInt32.self)
                unsafe address = SocketAddress(bytes: Array(UnsafeRawBufferPointer(start: start! + 8, count: 16)), port: port, scope: scope)
            default: break
            }
            if let address, !found.contains(address) { found.append(address) }
            unsafe entry = info.pointee.ai_next
        }
        guard !found.isEmpty else { throw NameError(host: host, reason: "has no address") }
        return found
    }

    /// 127.0.0.0/8 or ::1: nobody but this host can send there.
    public var isLoopback: Bool { isIPv6 ? bytes.dropLast().allSatisfy { $0 == 0 } && bytes[15] == 1 : bytes[0] == 127 }

    /// The same address with another port.
    public func with(port: UInt16) -> SocketAddress { SocketAddress(unchecked: bytes, port: port, scope: scope) }

    private init(unchecked bytes: [UInt8], port: UInt16, scope: UInt32) {
        self.bytes = bytes
        self.port = port
        self.scope = scope
    }

    private static func portNumber(_ text: Substring) -> UInt16? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }) else { return nil }
        return UInt16(text)
    }

    private static func host(_ text: Substring) -> (bytes: [UInt8], scope: UInt32)? {
        // Longer than any address with an interface name is; a zero byte would end the C string early.
        guard text.utf8.count < 64, !text.utf8.contains(0) else { return nil }
        guard text.contains(":") else {
            var bytes = [UInt8](repeating: 0, count: 4)
            return unsafe inet_pton(AF_INET, String(text), &bytes) == 1 ? (bytes, 0) : nil
        }
        let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
        var scope: UInt32 = 0
        if parts.count == 2 {
            scope = unsafe UInt32(parts[1]) ?? if_nametoindex(String(parts[1]))
            guard scope > 0 else { return nil }
        }
        var bytes = [UInt8](repeating: 0, count: 16)
        return unsafe inet_pton(AF_INET6, String(parts[0]), &bytes) == 1 ? (bytes, scope) : nil
    }

    /// The address without its port: "192.0.2.1", "2001:db8::1".
    public var host: String {
        var text = [UInt8](repeating: 0, count: 64)
        let count = socklen_t(text.count)
        unsafe text.withUnsafeMutableBytes { text in
            _ = unsafe inet_ntop(isIPv6 ? AF_INET6 : AF_INET, bytes, text.baseAddress!.assumingMemoryBound(to: CChar.self), count)
        }
        let end = text.firstIndex(of: 0) ?? 0
        return String(decoding: text[..<end], as: UTF8.self) + (scope == 0 ? "" : "%\(scope)")
    }

    /// "192.0.2.1:3260" or "[2001:db8::1]:3260".
    public var description: String { isIPv6 ? "[\(host)]:\(port)" : "\(host):\(port)" }

    // MARK: The kernel's side

    init?(_ address: linux_address) {
        var all: [UInt8] = []
        switch Int(address.family) {
        case LINUX_FAMILY_IPV4: unsafe withUnsafeBytes(of: address.bytes) { unsafe all = Array($0.prefix(4)) }
        case LINUX_FAMILY_IPV6: unsafe withUnsafeBytes(of: address.bytes) { unsafe all = Array($0) }
        default: return nil
        }
        self.init(bytes: all, port: address.port, scope: address.scope)
    }

    var kernelForm: linux_address {
        var address = linux_address()
        address.family = UInt16(isIPv6 ? LINUX_FAMILY_IPV6 : LINUX_FAMILY_IPV4)
        address.port = port
        address.scope = scope
        unsafe withUnsafeMutableBytes(of: &address.bytes) { unsafe $0.copyBytes(from: bytes) }
        return address
    }
}

/// A host's name that leads to no address.
public struct NameError: Error, Hashable, Sendable, CustomStringConvertible {
    public let host: String
    public let reason: String
    public var description: String { "\(host): \(reason)" }
}
