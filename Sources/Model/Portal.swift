import Bytes

/// An address and port on which initiators are served, as the administrator names it. There is one portal for each.
public struct PortalAddress: Hashable, Sendable, CustomStringConvertible {
    /// 0.0.0.0 and :: stand for every address of their family.
    public let address: NetworkAddress
    /// 0 asks for any free port.
    public let port: UInt16

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

    /// Whether a connection whose own end has this address may have come through it.
    public func admits(_ local: PortalAddress) -> Bool {
        local.port == port && local.address.family == address.family && (address.value == 0 || local.address == address)
    }

    /// As in TargetAddress (RFC 7143 §13.8), without the group tag.
    public var description: String {
        address.family == .ipv4 ? "\(address):\(port)" : "[\(address)]:\(port)"
    }
}

/// Where initiators are served, and how.
public struct Portal: Hashable, Sendable, CustomStringConvertible {
    public internal(set) var endpoint: PortalAddress
    /// What SendTargets answers here instead of the address that was reached: an initiator behind a connector has to be told the
    /// connector's. nil: that address.
    public internal(set) var advertised: PortalAddress?
    var chosenGroupTag: GroupTag?
    /// nil: in clear.
    public internal(set) var tls: PortalTLS?

    /// TargetPortalGroupTag (RFC 7143 §13.9).
    public var groupTag: UInt16 { chosenGroupTag?.rawValue ?? Self.defaultGroupTag }
    public static let defaultGroupTag: UInt16 = 1

    /// A clear portal.
    public init(_ endpoint: PortalAddress) { self.endpoint = endpoint }

    /// A clear portal, as `PortalAddress` reads it.
    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) { self.init(try PortalAddress(parsing: text)) }

    /// What may be known of it by who has not configured it.
    var withoutFiles: Portal {
        var portal = self
        portal.tls = tls?.withoutFiles
        return portal
    }

    /// Where it is.
    public var description: String { endpoint.description }

    /// The same with the port that it really has.
    public func listening(on port: UInt16) -> Portal {
        var portal = self
        portal.endpoint = PortalAddress(address: endpoint.address, port: port)
        return portal
    }
}

// MARK: What an administrator says of it

/// `name=value` of a portal.
public struct PortalParameter: Hashable, Sendable {
    public let name: [UInt8]
    public let value: [UInt8]
    public init(name: [UInt8], value: [UInt8]) {
        self.name = name
        self.value = value
    }
}

/// What a parameter's value is, and its text.
protocol PortalValue: Sendable {
    init(portalText: [UInt8]) throws(ConfigurationError)
    var portalText: String { get }
}

/// A parameter: what it is called and where it stands. An empty value takes it away.
struct PortalRow<Whole>: Sendable {
    let name: String
    let read: @Sendable (Whole) -> String?
    let write: @Sendable (inout Whole, [UInt8]) throws(ConfigurationError) -> Void

    init<Value: PortalValue>(_ name: String, _ path: WritableKeyPath<Whole, Value?> & Sendable) {
        self.name = name
        read = { $0[keyPath: path]?.portalText }
        write = { whole, text throws(ConfigurationError) in
            if text.isEmpty { whole[keyPath: path] = nil } else { whole[keyPath: path] = try Value(portalText: text) }
        }
    }
}

extension Portal {
    struct GroupTag: Hashable, RawRepresentable { let rawValue: UInt16 }

    static let rows = [PortalRow<Portal>("advertise", \.advertised), PortalRow("tpgt", \.chosenGroupTag)]
    static let protection = "tls"

    /// A new portal with these parameters, in any order.
    public init(_ endpoint: PortalAddress, _ parameters: [PortalParameter]) throws(ConfigurationError) {
        self.init(endpoint)
        for parameter in parameters where parameter.name.elementsEqual(Self.protection.utf8) {
            if try PortalTLS.isAskedFor(parameter.value) { tls = PortalTLS() }
        }
        try set(parameters)
    }

    /// The portal with these parameters in the place of those that it has; what is not named stays.
    public func with(_ parameters: [PortalParameter]) throws(ConfigurationError) -> Portal {
        var portal = self
        for parameter in parameters where parameter.name.elementsEqual(Self.protection.utf8) {
            guard try PortalTLS.isAskedFor(parameter.value) == (tls != nil) else {
                throw ConfigurationError(.invalid, "a portal does not change between clear and TLS: delete it, and make it anew")
            }
        }
        try portal.set(parameters)
        return portal
    }

    private mutating func set(_ parameters: [PortalParameter]) throws(ConfigurationError) {
        var seen: Set<[UInt8]> = []
        for parameter in parameters {
            let name = parameter.name
            guard seen.insert(name).inserted else { throw ConfigurationError(.invalid, "“\(escaped(name))” is said twice") }
            if let row = Self.rows.first(where: { name.elementsEqual($0.name.utf8) }) {
                try row.write(&self, parameter.value)
            } else if let row = PortalTLS.rows.first(where: { name.elementsEqual($0.name.utf8) }) {
                guard var changed = tls else { throw ConfigurationError(.invalid, "\(row.name) is for portals with tls=required") }
                try row.write(&changed, parameter.value)
                tls = changed
            } else if !name.elementsEqual(Self.protection.utf8) {
                throw ConfigurationError(.invalid, "a portal has no parameter “\(escaped(name))”")
            }
        }
        try tls?.check()
    }

    /// What makes it again, in a fixed order; nothing for a portal that is as tgt's.
    public var parameters: [(name: String, value: String)] {
        let own = Self.rows.compactMap { row in row.read(self).map { (row.name, $0) } }
        return tls.map { tls in [(Self.protection, PortalTLS.required)] + tls.parameters + own } ?? own
    }
}

extension Portal.GroupTag: PortalValue {
    init(portalText text: [UInt8]) throws(ConfigurationError) {
        // As a relative target port, 0 is reserved (SAM-5 §4.6.4).
        guard let number = Number.decimal(text).flatMap(UInt16.init(exactly:)), number > 0 else {
            throw ConfigurationError(.invalid, "tpgt “\(escaped(text))”: write a number from 1 to 65535")
        }
        rawValue = number
    }
    var portalText: String { "\(rawValue)" }
}

extension PortalAddress: PortalValue {
    init(portalText text: [UInt8]) throws(ConfigurationError) {
        try self.init(parsing: text)
        guard port != 0, address.value != 0 else {
            throw ConfigurationError(.invalid, "advertise “\(escaped(text))”: initiators need an address and a port that they can connect to")
        }
    }
    var portalText: String { description }
}
