import Bytes

/// The absolute path of a file that tgtd depends on, such as a certificate or a key: text of at most 4095 bytes without control
/// characters (they would forge lines of a report) and commas (parameters are joined by them).
public struct TrustedPath: Hashable, Sendable, CustomStringConvertible {
    public let text: String

    public init(_ path: some Collection<UInt8>) throws(ConfigurationError) {
        guard path.first == UInt8(ascii: "/"), path.count <= Limits.pathLength,
            path.allSatisfy({ $0 >= 0x20 && $0 != 0x7f && $0 != UInt8(ascii: ",") }), let text = String(validating: path, as: UTF8.self)
        else { throw ConfigurationError(.invalid, "“\(escaped(path))” is no absolute path of at most \(Limits.pathLength) bytes without control characters and commas") }
        self.text = text
    }

    public var description: String { text }
}

/// What makes a portal one with TLS: which files it takes, and whom it asks who it is. The files are read when it is made, changed or
/// read anew, never in between.
public struct PortalTLS: Hashable, Sendable {
    /// Whether whoever connects has to show who it is, by a certificate or a pre-shared key.
    public enum ClientAuthentication: String, CaseIterable, Sendable { case none, optional, required }

    /// Which versions and ciphers are taken, by the name under which they were laid down.
    public enum Policy: String, CaseIterable, Sendable {
        /// TLS 1.3 alone.
        case strict = "2026-11-strict"
        /// TLS 1.2 with ECDHE and AEAD, too.
        case compatible = "2026-11-compatible"
    }

    /// The portal's certificate and those between it and its CA (PEM), and its private key.
    public internal(set) var certificate: TrustedPath?
    public internal(set) var key: TrustedPath?
    /// Whose certificates initiators may show, and which of them are revoked (PEM).
    public internal(set) var clientCA: TrustedPath?
    public internal(set) var revocations: TrustedPath?
    /// Which initiator a certificate is, where it does not say so itself.
    public internal(set) var clientMap: TrustedPath?
    public internal(set) var preSharedKeys: TrustedPath?
    var chosenClientAuthentication: ClientAuthentication?
    var chosenPolicy: Policy?

    init() {}

    /// What the administrator has said; otherwise whoever can show who it is has to.
    public var clientAuthentication: ClientAuthentication { chosenClientAuthentication ?? (knowsClients ? .required : .none) }
    public var policy: Policy { chosenPolicy ?? .strict }
    /// There is something by which an initiator could show who it is.
    private var knowsClients: Bool { clientCA != nil || preSharedKeys != nil }

    /// What may be known of it by who has not configured it.
    var withoutFiles: PortalTLS {
        var shown = PortalTLS()
        (shown.chosenClientAuthentication, shown.chosenPolicy) = (clientAuthentication, policy)
        return shown
    }

    static let rows = [
        PortalRow<PortalTLS>("certificate", \.certificate), PortalRow("key", \.key), PortalRow("client-ca", \.clientCA), PortalRow("crl", \.revocations),
        PortalRow("client-map", \.clientMap), PortalRow("psk-file", \.preSharedKeys), PortalRow("client-auth", \.chosenClientAuthentication),
        PortalRow("policy", \.chosenPolicy),
    ]

    var parameters: [(name: String, value: String)] { Self.rows.compactMap { row in row.read(self).map { (row.name, $0) } } }

    static let required = "required"
    private static let none = "none"

    /// `tls=required`, or `tls=none`.
    static func isAskedFor(_ text: [UInt8]) throws(ConfigurationError) -> Bool {
        guard let word = [required, none].first(where: { text.elementsEqual($0.utf8) }) else {
            throw ConfigurationError(.invalid, "tls “\(escaped(text))”: write \(required) or \(none)")
        }
        return word == required
    }

    /// Whether the parameters go together; a file that nobody would look at is a mistake.
    func check() throws(ConfigurationError) {
        func need(_ condition: Bool, _ reason: String) throws(ConfigurationError) {
            if !condition { throw ConfigurationError(.invalid, reason) }
        }
        try need((certificate == nil) == (key == nil), "certificate and key go together")
        try need(certificate != nil || preSharedKeys != nil, "a portal with TLS takes certificate and key, or psk-file")
        try need(clientCA == nil || certificate != nil, "initiators show certificates only to a portal that has one: client-ca goes with certificate")
        try need(clientCA != nil || revocations == nil, "crl goes with client-ca")
        try need(clientCA != nil || clientMap == nil, "client-map goes with client-ca")
        try need(knowsClients || clientAuthentication == .none, "client-auth=\(clientAuthentication.rawValue) takes client-ca or psk-file")
        try need(!knowsClients || clientAuthentication != .none, "client-auth=none takes neither client-ca nor psk-file")
        try need(certificate != nil || clientAuthentication == .required, "without a certificate of the portal, client-auth is required: by pre-shared keys alone")
    }
}

extension TrustedPath: PortalValue {
    init(portalText text: [UInt8]) throws(ConfigurationError) { try self.init(text) }
    var portalText: String { text }
}

extension PortalValue where Self: RawRepresentable & CaseIterable, RawValue == String {
    init(portalText text: [UInt8]) throws(ConfigurationError) {
        guard let value = Self.allCases.first(where: { text.elementsEqual($0.rawValue.utf8) }) else {
            throw ConfigurationError(.invalid, "“\(escaped(text))”: write \(Self.allCases.map(\.rawValue).joined(separator: " or "))")
        }
        self = value
    }
    var portalText: String { rawValue }
}
extension PortalTLS.ClientAuthentication: PortalValue {}
extension PortalTLS.Policy: PortalValue {}
