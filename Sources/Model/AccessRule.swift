import Bytes
import ISCSI
import SCSI

/// A rule, as the other kind has it too.
protocol MaskedRule {
    associatedtype Admitted: Hashable
    /// Two rules that admit the same are one rule, whatever they show.
    var admitted: Admitted { get }
    var spelling: String { get }
    var mask: LUNMask { get set }
}

/// Which addresses may log in to a target: all, one, or a network.
///
/// `spelling` is what the administrator wrote: it makes no other rule.
public struct AddressRule: MaskedRule, Hashable, Sendable {
    public enum Extent: Hashable, Sendable {
        /// tgt's `ALL`: every address of both families.
        case all
        /// The addresses whose first `prefixLength` bits are those of `base`; the other bits of `base` are 0.
        case network(base: NetworkAddress, prefixLength: Int)
    }

    public let extent: Extent
    public let spelling: String
    /// What it shows to those whom it admits.
    public internal(set) var mask = LUNMask.all

    /// `ALL`, an address, or `address/prefix length` of any length. Anything else (a host name, too) is an error.
    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
        let text = Array(text)
        let refused = ConfigurationError(.invalid, "“\(escaped(text))” is no initiator address: write ALL, an IPv4 or IPv6 address, or address/prefix length")
        spelling = String(decoding: text, as: UTF8.self)
        if text == Array("ALL".utf8) {
            extent = .all
            return
        }
        let parts = text.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard parts.count <= 2, let address = NetworkAddress(parsing: parts[0]) else { throw refused }
        guard parts.count == 2 else {
            extent = .network(base: address, prefixLength: address.family.bitCount)
            return
        }
        guard (1...3).contains(parts[1].count), let written = Number.decimal(parts[1]), var prefixLength = Int(exactly: written) else { throw refused }
        // A network of IPv4-mapped addresses is the IPv4 network; one that reaches beyond them would mean two families.
        if address.family == .ipv4, parts[0].contains(UInt8(ascii: ":")) { prefixLength -= NetworkAddress.mappedPrefixLength }
        let bitCount = address.family.bitCount
        guard (0...bitCount).contains(prefixLength) else { throw refused }
        let hostBits = UInt128(bitCount - prefixLength)
        let masked = prefixLength == 0 ? 0 : (address.value >> hostBits) << hostBits
        extent = .network(base: NetworkAddress(family: address.family, value: masked), prefixLength: prefixLength)
    }

    var admitted: Extent { extent }
    public static func == (a: Self, b: Self) -> Bool { a.extent == b.extent && a.mask == b.mask }
    public func hash(into hasher: inout Hasher) { hasher.combine(extent) }
}

/// Which initiator names may log in to a target: one, or those that match a pattern with `*` (any run of bytes) and `?` (any one).
///
/// Names are compared folded (RFC 7143 §4.2.7); `spelling` is what the administrator wrote.
public struct NameRule: MaskedRule, Hashable, Sendable {
    /// The folded name or pattern.
    public let bytes: [UInt8]
    public let spelling: String
    public let isPattern: Bool
    /// What it shows to those whom it admits.
    public internal(set) var mask = LUNMask.all

    /// Bytes of a name or pattern: the longest iSCSI name (RFC 7143 §4.2.7.2).
    public static let greatestLength = 223

    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
        let text = Array(text)
        isPattern = text.contains(where: Wildcard.isWild)
        // With the wildcards replaced by a letter, a pattern obeys the rules for names.
        let plain = text.map { Wildcard.isWild($0) ? UInt8(ascii: "x") : $0 }
        do throws(ISCSIName.NameError) {
            let name = try ISCSIName(plain)
            bytes = zip(text, name.bytes).map { Wildcard.isWild($0) ? $0 : $1 }
        } catch {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is no initiator name or pattern: 1 to \(Self.greatestLength) of the letters, digits, “-”, “.”, “:”, “*” and “?”")
        }
        spelling = String(decoding: text, as: UTF8.self)
    }

    /// Whether the name is the rule's, or matches its pattern.
    public func admits(_ name: ISCSIName) -> Bool { isPattern ? Wildcard.matches(bytes[...], name.bytes[...]) : bytes == name.bytes }

    var admitted: [UInt8] { bytes }
    public static func == (a: Self, b: Self) -> Bool { a.bytes == b.bytes && a.mask == b.mask }
    public func hash(into hasher: inout Hasher) { hasher.combine(bytes) }
}

extension LUNMask {
    /// `0,2-5:ro,7`: numbers and ranges, each for reading and writing (`:rw`, or nothing) or for reading alone (`:ro`); `all` is the range of
    /// all. A number stands in one of them only.
    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
        let text = Array(text)
        func refused(_ reason: String) -> ConfigurationError {
            ConfigurationError(.invalid, "“\(escaped(text))” is no list of logical units: \(reason)")
        }
        var runs: [Run] = []
        for item in text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false) {
            guard let run = Self.run(item) else { throw refused("write numbers from 0 to \(Self.greatestLUN) and ranges like 2-5, each alone or with :ro behind it; or all, or all:ro") }
            runs.append(run)
        }
        guard runs.count <= Self.mostRuns else { throw refused("it has more than \(Self.mostRuns) items") }
        guard let mask = LUNMask(runs) else { throw refused("a number stands in it twice") }
        self = mask
    }

    private static func run(_ item: ArraySlice<UInt8>) -> Run? {
        let parts = item.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        let accesses = ["ro": UnitAccess.read, "rw": .write]
        guard (1...2).contains(parts.count), let access = parts.count == 1 ? .write : accesses[String(decoding: parts[1], as: UTF8.self)] else { return nil }
        if parts[0].elementsEqual("all".utf8) { return Run(0...greatestLUN, access) }
        let numbers = parts[0].split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false).map { Number.decimal($0).flatMap { UInt16(exactly: $0) } }
        guard (1...2).contains(numbers.count), let first = numbers[0], let last = numbers[numbers.count - 1], first <= last, last <= greatestLUN else { return nil }
        return Run(first...last, access)
    }
}
