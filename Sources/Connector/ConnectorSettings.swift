import Reactor
import SettingsFile
import TLS
import Yams

/// What `connect.yaml` says: which portals are reached from where. `policy/connect.yaml` is the shipped file, with comments.
public struct ConnectorSettings: Sendable, Equatable {
    public var portals: [PortalSettings] = []
    /// Connections carried at once, all portals together.
    public var connections = 256
    /// Who the program becomes when started as root; nil: `tgt` if there is such a user, else `nobody`.
    public var user: String?

    public static let mostPortals = 64
    public static let mostConnections = 4096

    public init() {}
}

/// One TLS portal, and where initiators of this host find it.
public struct PortalSettings: Sendable, Equatable {
    /// Where clear connections are accepted; loopback unless `takesOtherHosts`.
    public var listen: SocketAddress
    public var takesOtherHosts = false
    /// The portal's name or address, and port.
    public var host: String
    public var port: UInt16
    /// What the portal's certificate has to be for; nil: the host.
    public var name: String?
    /// Certificates (PEM) that have to have signed the portal's.
    public var ca: String?
    /// Revocation lists (PEM) of these.
    public var crl: String?
    /// The portal's own certificate (PEM): its public key is the one that the portal has to have.
    public var pin: String?
    /// Our certificate, with what leads to its authority, and its key (PEM).
    public var certificate: String?
    public var key: String?
    /// A file of `identity:key in hexadecimal` lines; the first, unless an identity is chosen.
    public var preSharedKeyFile: String?
    public var identity: String?
    public var policy = TLSPolicy.strict

    public init(listen: SocketAddress, host: String, port: UInt16) {
        self.listen = listen
        self.host = host
        self.port = port
    }

    /// As it is called in what is said about it.
    public var title: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    public var expectedName: String { name ?? host }

    /// Those that it names.
    var files: [NamedFile] {
        [ca, crl, pin, certificate].compactMap { $0.map { NamedFile(path: $0, isPrivate: false) } }
            + [key, preSharedKeyFile].compactMap { $0.map { NamedFile(path: $0, isPrivate: true) } }
    }
}

extension ConnectorSettings {
    /// Reads a settings file's text. All of it is right, or none of it counts.
    /// - Parameter file: its name, for errors; files that it names without a directory lie beside it
    public init(yaml text: String, file: String) throws(SettingsError) {
        let reader = SettingsFile(name: file)
        var draft = Draft()
        try reader.read(text, into: &draft, keys: Self.keys)
        self.init()
        connections = draft.connections
        user = draft.user
        for node in draft.portals {
            let portal = try PortalSettings(node, reader)
            guard !portals.contains(where: { $0.listen == portal.listen }) else {
                throw SettingsError(file: file, line: node.mark?.line, message: "\(portal.listen) is listened on for two portals")
            }
            portals.append(portal)
        }
        guard !portals.isEmpty else { throw SettingsError(file: file, line: nil, message: "portals: there is none") }
    }

    private struct Draft {
        var portals: [Node] = []
        var connections = ConnectorSettings().connections
        var user: String?
    }

    private static let keys: [SettingsKey<Draft>] = [
        ("portals", { draft, node in
            guard let list = node.sequence, list.count <= mostPortals else { return "a list of at most \(mostPortals) portals is wanted" }
            draft.portals = Array(list)
            return nil
        }),
        ("connections", { draft, node in
            guard let value = node.int, (1...mostConnections).contains(value) else { return "a number from 1 to \(mostConnections) is wanted" }
            draft.connections = value
            return nil
        }),
        ("user", { draft, node in
            guard let value = node.scalar?.string, !value.isEmpty else { return "the name of a user is wanted" }
            draft.user = value
            return nil
        }),
    ]
}

extension PortalSettings {
    fileprivate init(_ node: Node, _ reader: SettingsFile) throws(SettingsError) {
        func refuse(_ message: String) -> SettingsError { SettingsError(file: reader.name, line: node.mark?.line, message: message) }
        var draft = Draft()
        try reader.read(node, into: &draft, keys: Self.keys)
        guard let listen = draft.listen else { throw refuse("listen: where initiators of this host connect to is missing") }
        guard let (host, port) = draft.connect else { throw refuse("connect: the portal's HOST:PORT is missing") }
        self = PortalSettings(listen: listen, host: host, port: port)
        takesOtherHosts = draft.takesOtherHosts
        name = draft.name
        policy = draft.policy
        identity = draft.identity
        func path(_ key: String) -> String? { draft.files[key].map { $0.hasPrefix("/") ? $0 : Self.directory(of: reader.name) + $0 } }
        (ca, crl, pin, certificate, key, preSharedKeyFile) = (path("ca"), path("crl"), path("pin"), path("certificate"), path("key"), path("psk-file"))
        if let trouble { throw refuse(trouble) }
    }

    private static func directory(of file: String) -> String { file.lastIndex(of: "/").map { String(file[...$0]) } ?? "" }

    /// What does not go together.
    private var trouble: String? {
        if !listen.isLoopback, !takesOtherHosts { return "listen: \(listen) can be reached from other hosts, in clear; if it must be, say other-hosts: true" }
        if (certificate == nil) != (key == nil) { return "certificate and key go together" }
        if crl != nil, ca == nil { return "crl goes with ca" }
        if preSharedKeyFile != nil {
            guard [ca, pin, certificate, key, name].allSatisfy({ $0 == nil }) else {
                return "a pre-shared key proves both ends: psk-file excludes ca, pin, name, certificate and key"
            }
            return policy == .strict ? nil : "pre-shared keys are for TLS 1.3: policy \(TLSPolicy.strict.rawValue)"
        }
        if identity != nil { return "psk-identity chooses a line of psk-file, which is missing" }
        if (ca == nil) == (pin == nil) { return "one of ca, pin and psk-file has to say which portal is the right one" }
        if pin != nil, name != nil { return "name goes with ca: with pin it is the key that counts" }
        return nil
    }

    private struct Draft {
        var listen: SocketAddress?
        var connect: (host: String, port: UInt16)?
        var takesOtherHosts = false
        var name: String?
        var identity: String?
        var files: [String: String] = [:]
        var policy = TLSPolicy.strict
    }

    private static let keys: [SettingsKey<Draft>] = plainKeys + ["ca", "crl", "pin", "certificate", "key", "psk-file"].map(file)

    private static func file(_ key: String) -> SettingsKey<Draft> {
        (key, { draft, node in
            guard let value = node.scalar?.string, !value.isEmpty else { return "the name of a file is wanted" }
            draft.files[key] = value
            return nil
        })
    }

    private static let plainKeys: [SettingsKey<Draft>] = [
        ("listen", { draft, node in
            guard let address = node.scalar.flatMap({ SocketAddress($0.string) }) else { return "ADDRESS:PORT or [IPv6]:PORT is wanted" }
            draft.listen = address
            return nil
        }),
        ("connect", { draft, node in
            guard let target = node.scalar.flatMap({ target($0.string) }) else { return "HOST:PORT, ADDRESS:PORT or [IPv6]:PORT is wanted" }
            draft.connect = target
            return nil
        }),
        ("other-hosts", { draft, node in
            guard let value = node.bool else { return "true or false is wanted" }
            draft.takesOtherHosts = value
            return nil
        }),
        ("name", { draft, node in
            guard let value = node.scalar?.string, isHost(value) || SocketAddress(value, defaultPort: 1) != nil else { return "a host's name or address is wanted" }
            draft.name = value
            return nil
        }),
        ("psk-identity", { draft, node in
            guard let value = node.scalar?.string, !value.isEmpty, !value.contains(":") else { return "an identity without a colon is wanted" }
            draft.identity = value
            return nil
        }),
        ("policy", { draft, node in
            guard let value = node.scalar.flatMap({ TLSPolicy(rawValue: $0.string) }) else {
                return "one of \(TLSPolicy.allCases.map(\.rawValue).joined(separator: ", ")) is wanted"
            }
            draft.policy = value
            return nil
        }),
    ]

    /// "portal.example.org:3261", "192.0.2.1:3261" or "[2001:db8::1]:3261".
    private static func target(_ text: String) -> (host: String, port: UInt16)? {
        if let address = SocketAddress(text) { return address.port > 0 ? (address.host, address.port) : nil }
        guard let colon = text.lastIndex(of: ":"), isHost(String(text[..<colon])) else { return nil }
        // The address stands for any: what counts is how a port is read.
        guard let port = SocketAddress("0.0.0.0" + text[colon...])?.port, port > 0 else { return nil }
        return (String(text[..<colon]), port)
    }

    /// Letters, digits and hyphens with dots between them, and at least one letter (RFC 1123 §2.1).
    private static func isHost(_ text: String) -> Bool {
        guard (1...253).contains(text.utf8.count), text.utf8.contains(where: { isLetter($0) }) else { return false }
        return text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
            (1...63).contains(label.utf8.count) && label.utf8.first != hyphen && label.utf8.last != hyphen
                && label.utf8.allSatisfy { isLetter($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == hyphen }
        }
    }
    private static let hyphen = UInt8(ascii: "-")
    private static func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
}
