import Bytes

/// An IPv4 or IPv6 address. An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) *is* the IPv4 address, so that no rule can be
/// passed by the other spelling of the same peer.
public struct NetworkAddress: Hashable, Sendable, CustomStringConvertible {
    public enum Family: UInt8, Sendable {
        case ipv4 = 4
        case ipv6 = 6

        /// Bits in an address.
        public var bitCount: Int { self == .ipv4 ? 32 : 128 }
    }

    public let family: Family
    /// The address as a number, most significant byte first on the wire.
    public let value: UInt128

    /// The bits of an IPv4-mapped address in front of the IPv4 address: `::ffff:0:0/96`.
    static let mappedPrefix: UInt128 = 0xffff
    static let mappedPrefixLength = 96

    public init(family: Family, value: UInt128) {
        if family == .ipv6, value >> 32 == Self.mappedPrefix {
            self.family = .ipv4
            self.value = value & 0xffff_ffff
        } else {
            precondition(family == .ipv6 || value >> 32 == 0)
            self.family = family
            self.value = value
        }
    }

    /// From the bytes of a socket address, in network order: 4 or 16 of them, else nil.
    public init?(bytes: [UInt8]) {
        guard bytes.count == 4 || bytes.count == 16 else { return nil }
        var value: UInt128 = 0
        for byte in bytes { value = value << 8 | UInt128(byte) }
        self.init(family: bytes.count == 4 ? .ipv4 : .ipv6, value: value)
    }

    /// From text: dotted decimal, or one of the forms of RFC 4291 §2.2. Host names, zone identifiers, and numbers with
    /// leading zeros (which some read as octal) are nil.
    public init?(parsing text: some Collection<UInt8>) {
        let text = Array(text)
        if let value = Self.parseIPv4(text[...]) {
            self.init(family: .ipv4, value: UInt128(value))
        } else if let value = Self.parseIPv6(text) {
            self.init(family: .ipv6, value: value)
        } else {
            return nil
        }
    }

    /// The bytes in network order: 4 or 16.
    public var bytes: [UInt8] {
        stride(from: family.bitCount - 8, through: 0, by: -8).map { UInt8(truncatingIfNeeded: value >> UInt128($0)) }
    }

    /// Dotted decimal, or RFC 5952's form.
    public var description: String {
        switch family {
        case .ipv4: return bytes.map(String.init).joined(separator: ".")
        case .ipv6:
            let groups = (0..<8).map { UInt16(truncatingIfNeeded: value >> UInt128(112 - 16 * $0)) }
            guard let gap = Self.longestRunOfZeros(groups) else { return Self.hexadecimal(groups[...]) }
            return Self.hexadecimal(groups[..<gap.lowerBound]) + "::" + Self.hexadecimal(groups[gap.upperBound...])
        }
    }

    /// The first of the longest runs of at least two zero groups (RFC 5952 §4.2).
    private static func longestRunOfZeros(_ groups: [UInt16]) -> Range<Int>? {
        var best = 0..<0
        var start = 0
        for (index, group) in groups.enumerated() {
            if group != 0 { start = index + 1 } else if index + 1 - start > best.count { best = start..<index + 1 }
        }
        return best.count >= 2 ? best : nil
    }

    private static func hexadecimal(_ groups: ArraySlice<UInt16>) -> String {
        groups.map { String($0, radix: 16) }.joined(separator: ":")
    }

    private static func parseIPv4(_ text: ArraySlice<UInt8>) -> UInt32? {
        let parts = text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.count), part.count == 1 || part.first != UInt8(ascii: "0") else { return nil }
            guard let octet = Number.decimal(part), octet <= 255 else { return nil }
            value = value << 8 | UInt32(octet)
        }
        return value
    }

    private static func parseIPv6(_ text: [UInt8]) -> UInt128? {
        let colon = UInt8(ascii: ":")
        let gap = text.indices.dropLast().first { text[$0] == colon && text[$0 + 1] == colon }
        guard let gap else {
            guard let groups = parseGroups(text[...]), groups.count == 8 else { return nil }
            return join(groups)
        }
        guard let head = parseGroups(text[..<gap], isEnd: false), let tail = parseGroups(text[(gap + 2)...]) else { return nil }
        // "::" stands for at least one group.
        guard head.count + tail.count <= 7 else { return nil }
        return join(head + Array(repeating: 0, count: 8 - head.count - tail.count) + tail)
    }

    private static func join(_ groups: [UInt16]) -> UInt128 { groups.reduce(0) { $0 << 16 | UInt128($1) } }

    /// Groups between single colons; at the end of the address, the last one may be dotted decimal and counts for two.
    private static func parseGroups(_ text: ArraySlice<UInt8>, isEnd: Bool = true) -> [UInt16]? {
        guard !text.isEmpty else { return [] }
        let parts = text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count <= 8 else { return nil }
        var groups: [UInt16] = []
        for (index, part) in parts.enumerated() {
            if isEnd, index == parts.count - 1, let dotted = parseIPv4(part) {
                groups += [UInt16(dotted >> 16), UInt16(dotted & 0xffff)]
            } else {
                guard (1...4).contains(part.count), let group = Number.hexadecimal(part) else { return nil }
                groups.append(UInt16(group))
            }
        }
        return groups
    }
}
