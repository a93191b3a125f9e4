import Model
import Reactor
import SettingsFile
import Yams

/// What `tgtd.yaml` says, every key with its default. `policy/tgtd.yaml` is the shipped file, with comments.
public struct Settings: Sendable, Equatable {
    /// Where initiators connect; tgt's default is every address on port 3260.
    public var portals: [Portal] = []
    /// Threads that serve sessions; nil: one for each CPU, at most `usualReactors`.
    public var reactors: Int?
    /// Threads for I/O that may block.
    public var ioThreads = 16
    /// Microseconds for which a reactor may look for the next request before it sleeps; nil: `usualBusyPoll` where there is more than one CPU.
    public var busyPoll: Int?
    /// Whether the data process reads by io_uring, where the kernel lets it.
    public var usesRings = true
    /// Bytes that the data of tasks may take in the data process.
    public var memory = 256 << 20
    /// Defaults of every target: seconds of silence before a NOP-In, and how many may stay unanswered. 0: never.
    public var nopInterval = 0
    public var nopCount = 0
    /// Who the login and data processes become when started as root; nil: `tgt` if there is such a user, else `nobody`.
    public var user: String?
    /// Where what must survive a restart is, a directory for each control port; nil: `/var/lib/tgt`.
    public var state: String?
    /// Who may do what; nil: `/etc/tgt/policy.yaml` if there is one.
    public var policy: String?
    /// Who may connect to the management socket; the group by its name.
    public var socketMode: UInt32 = 0o666
    public var socketGroup: String?
    /// Where PAM's services are; nil: where PAM looks for them.
    public var pamDirectory: String?
    public var audit = AuditSettings()
    public var logLevel = LogLevel.info
    /// Who never has to wait after failed logins. Connectors on this host carry many tenants from its own address.
    public var exempt = ["127.0.0.0/8", "::1"].compactMap { try? AddressRule(parsing: Array($0.utf8)) }
    /// When CHAP may use MD5.
    public var md5 = MD5Use.always
    public var limits = Limits()

    public enum LogLevel: String, CaseIterable, Sendable { case debug, info, notice, warning, error }

    public static let mostReactors = 64
    /// Where nothing else is set there are no more than these: they serve millions of requests a second, and leave processors to the file systems.
    public static let usualReactors = 16
    public static let usualBusyPoll = 200
    public static let mostPortals = 64
    public static let mostExempt = 256

    public init() {}
}

extension Settings {
    /// Reads a settings file's text. All of it is right, or none of it counts.
    /// - Parameter file: its name, for errors
    public init(yaml text: String, file: String) throws(SettingsError) {
        self.init()
        try SettingsFile(name: file).read(text, into: &self, keys: Self.keys)
    }

    private typealias Key = SettingsKey<Settings>

    private static let keys = plainKeys + Limits.rows.map(limit)

    private static let plainKeys: [Key] = [
        ("portals", { settings, node in
            guard let list = node.sequence, list.count <= mostPortals else { return "a list of at most \(mostPortals) portals is wanted" }
            settings.portals = []
            for item in list {
                let portal: Portal
                do throws(ConfigurationError) {
                    guard let found = try portalParameters(item) else { return "each portal is ADDRESS:PORT, or has portal: ADDRESS:PORT and other parameters" }
                    portal = try Portal(PortalAddress(parsing: found.place), found.others)
                } catch {
                    return error.description
                }
                guard !settings.portals.contains(where: { $0.endpoint == portal.endpoint }) else { return "the portal \(portal) is named twice" }
                settings.portals.append(portal)
            }
            return nil
        }),
        ("reactors", { settings, node in
            guard let value = node.int, (1...mostReactors).contains(value) else { return "a number from 1 to \(mostReactors) is wanted" }
            settings.reactors = value
            return nil
        }),
        ("io-threads", { settings, node in
            guard let value = node.int, (1...256).contains(value) else { return "a number from 1 to 256 is wanted" }
            settings.ioThreads = value
            return nil
        }),
        ("io-uring", { settings, node in
            guard let value = node.bool else { return "yes or no is wanted" }
            settings.usesRings = value
            return nil
        }),
        ("busy-poll", { settings, node in
            guard let value = node.int, (0...1000).contains(value) else { return "microseconds from 0 (never) to 1000 are wanted" }
            settings.busyPoll = value
            return nil
        }),
        ("memory", { settings, node in
            guard let value = node.scalar.flatMap({ bytes($0.string) }), (64 << 20...1 << 40).contains(value) else {
                return "a size from 64MiB to 1TiB is wanted (bytes, or with KiB, MiB, GiB)"
            }
            settings.memory = value
            return nil
        }),
        ("nop-interval", { settings, node in
            guard let value = node.int, (0...3600).contains(value) else { return "seconds from 0 (never) to 3600 are wanted" }
            settings.nopInterval = value
            return nil
        }),
        ("nop-count", { settings, node in
            guard let value = node.int, (0...100).contains(value) else { return "a number from 0 to 100 is wanted" }
            settings.nopCount = value
            return nil
        }),
        ("user", { settings, node in
            guard let value = node.scalar?.string, !value.isEmpty else { return "the name of a user is wanted" }
            settings.user = value
            return nil
        }),
        ("state", { settings, node in
            guard let value = node.scalar?.string, value.hasPrefix("/") else { return "an absolute directory is wanted" }
            settings.state = value
            return nil
        }),
        ("policy", { settings, node in
            guard let value = node.scalar?.string, value.hasPrefix("/") else { return "an absolute path is wanted" }
            settings.policy = value
            return nil
        }),
        ("socket.mode", { settings, node in
            guard let value = node.scalar.flatMap({ socketMode($0.string) }) else { return "an octal number like 0660 is wanted" }
            settings.socketMode = value
            return nil
        }),
        ("socket.group", { settings, node in
            guard let value = node.scalar?.string, !value.isEmpty else { return "the name of a group is wanted" }
            settings.socketGroup = value
            return nil
        }),
        ("pam.directory", { settings, node in
            guard let value = node.scalar?.string, value.hasPrefix("/") else { return "an absolute directory is wanted" }
            settings.pamDirectory = value
            return nil
        }),
        ("audit.directory", { settings, node in
            guard let value = node.scalar?.string, value.hasPrefix("/") else { return "an absolute directory is wanted" }
            settings.audit.directory = value
            return nil
        }),
        ("audit.on-failure", { settings, node in
            guard let value = node.scalar.flatMap({ AuditSettings.OnFailure(rawValue: $0.string) }) else {
                return "one of \(AuditSettings.OnFailure.allCases.map(\.rawValue).joined(separator: ", ")) is wanted"
            }
            settings.audit.onFailure = value
            return nil
        }),
        ("audit.file-size", { settings, node in
            guard let value = node.scalar.flatMap({ bytes($0.string) }), AuditSettings.fileSizes.contains(value) else { return "a size from 64KiB to 1GiB is wanted" }
            settings.audit.fileSize = value
            return nil
        }),
        ("audit.network-quota", { settings, node in
            guard let value = node.scalar.flatMap({ bytes($0.string) }), AuditSettings.networkQuotas.contains(value) else { return "a size from 512KiB to 1TiB is wanted" }
            settings.audit.networkQuota = value
            return nil
        }),
        ("audit.system-log", { settings, node in
            guard let word = node.scalar?.string, let value = ["yes": true, "no": false][word] else { return "yes or no is wanted" }
            settings.audit.copiesToSystemLog = value
            return nil
        }),
        ("penalties.exempt", { settings, node in
            let wrong = "a list of at most \(mostExempt) addresses or networks (ADDRESS/PREFIX LENGTH) is wanted"
            guard let list = node.sequence, list.count <= mostExempt else { return wrong }
            settings.exempt = list.compactMap { item in item.scalar.flatMap { try? AddressRule(parsing: Array($0.string.utf8)) } }
            return settings.exempt.count == list.count ? nil : wrong
        }),
        ("chap.md5", { settings, node in
            guard let value = node.scalar.flatMap({ MD5Use(rawValue: $0.string) }) else {
                return "one of \(MD5Use.allCases.map(\.rawValue).joined(separator: ", ")) is wanted"
            }
            settings.md5 = value
            return nil
        }),
        ("log.level", { settings, node in
            guard let value = node.scalar.flatMap({ LogLevel(rawValue: $0.string) }) else {
                return "one of \(LogLevel.allCases.map(\.rawValue).joined(separator: ", ")) is wanted"
            }
            settings.logLevel = value
            return nil
        }),
    ]

    /// Where a portal is and what is said of it; nil: it is no portal.
    private static func portalParameters(_ node: Node) throws(ConfigurationError) -> (place: [UInt8], others: [PortalParameter])? {
        if let text = node.scalar?.string { return (Array(text.utf8), []) }
        guard let mapping = node.mapping else { return nil }
        var place: [UInt8]?
        var others: [PortalParameter] = []
        for (name, value) in mapping {
            guard let name = name.scalar?.string, let value = value.scalar?.string else { return nil }
            if name == "portal" { place = Array(value.utf8) } else { others.append(PortalParameter(name: Array(name.utf8), value: Array(value.utf8))) }
        }
        return place.map { ($0, others) }
    }

    private static func limit(_ row: Limits.Row) -> Key {
        ("limits.\(row.name)", { settings, node in
            guard let value = node.int, row.range.contains(value) else { return "a number from \(row.range.lowerBound) to \(row.range.upperBound) is wanted" }
            settings.limits[keyPath: row.value] = value
            return nil
        })
    }

    /// A socket's mode: its owner, at least, can connect.
    static func socketMode(_ text: String) -> UInt32? {
        guard (3...4).contains(text.utf8.count), let mode = UInt32(text, radix: 8), mode <= 0o777, mode & 0o600 == 0o600 else { return nil }
        return mode
    }

    /// `262144`, `256KiB`, `1GiB`, … in bytes.
    static func bytes(_ text: String) -> Int? {
        let units: [(String, Int)] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)]
        for (unit, shift) in units where text.hasSuffix(unit) {
            guard let value = Int(text.dropLast(unit.count)), value >= 0, value <= Int.max >> shift else { return nil }
            return value << shift
        }
        return nil
    }
}
