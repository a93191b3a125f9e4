import Bytes
import ISCSI

/// A name of a block device, or a pattern for such names: `/dev/mapper/…` for what the device mapper calls it, `/dev/disk/by-id/…` for a
/// link that the device itself has given rise to. Nothing that whoever makes links could choose.
public struct DevicePattern: Hashable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable, CaseIterable {
        case mapper = "/dev/mapper/"
        case byID = "/dev/disk/by-id/"
    }

    public let kind: Kind
    /// Behind the kind's directory, with `*` and `?`.
    public let pattern: [UInt8]

    public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
        let text = Array(text)
        guard let kind = Kind.allCases.first(where: { text.starts(with: $0.rawValue.utf8) }), text.count > kind.rawValue.utf8.count else {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is no device: write /dev/mapper/NAME or /dev/disk/by-id/NAME, with * and ? as in file names")
        }
        self.kind = kind
        pattern = Array(text.dropFirst(kind.rawValue.utf8.count))
        guard pattern.allSatisfy({ $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "/") }) else {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is no device: the name behind \(kind.rawValue) is printable ASCII without slashes")
        }
    }

    public var description: String { kind.rawValue + escaped(pattern) }
    func overlaps(_ other: DevicePattern) -> Bool { kind == other.kind && Wildcard.overlap(pattern, other.pattern) }
}

/// Where the stores of a tenant's logical units may be.
public struct StorePlaces: Hashable, Sendable {
    /// Regular files, anywhere beneath these.
    public let directories: [StorePath]
    public let devices: [DevicePattern]

    /// - Throws: for a directory that is none, or not written the one way there is
    public init(directories: [StorePath] = [], devices: [DevicePattern] = []) throws(ConfigurationError) {
        for directory in directories {
            let parts = directory.bytes.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            guard parts.count > 1, parts[0].isEmpty, parts.dropFirst().allSatisfy({ !$0.isEmpty && !$0.elementsEqual(".".utf8) && !$0.elementsEqual("..".utf8) }) else {
                throw ConfigurationError(.invalid, "“\(directory)” is no directory's absolute path without “.”, “..” and a slash at its end")
            }
        }
        self.directories = directories
        self.devices = devices
    }

    /// Whether something could be in both.
    func overlaps(_ other: StorePlaces) -> String? {
        func isWithin(_ inner: StorePath, _ outer: StorePath) -> Bool { inner == outer || inner.bytes.starts(with: outer.bytes + [UInt8(ascii: "/")]) }
        for mine in directories {
            if let theirs = other.directories.first(where: { isWithin($0, mine) || isWithin(mine, $0) }) { return "the directories \(mine) and \(theirs)" }
        }
        for mine in devices { if let theirs = other.devices.first(where: mine.overlaps) { return "the devices \(mine) and \(theirs)" } }
        return nil
    }
}

/// How much a tenant may have; nil: what the daemon can.
public struct TenantLimits: Hashable, Sendable {
    public var targets: Int?
    /// Of all its targets together, without the controllers at LUN 0.
    public var logicalUnits: Int?
    public var accounts: Int?
    public init() {}

    public struct Row: Sendable {
        public let name: String
        public let limit: WritableKeyPath<TenantLimits, Int?> & Sendable
        public let greatest: Int
        fileprivate let count: @Sendable (TenantCounts, Tenant) -> Int
    }

    public static let rows = [
        Row(name: "targets", limit: \.targets, greatest: Limits.targets) { $0.targets[$1, default: 0] },
        Row(name: "logical-units", limit: \.logicalUnits, greatest: Limits.targets * 64) { $0.logicalUnits[$1, default: 0] },
        Row(name: "accounts", limit: \.accounts, greatest: Limits.accounts) { $0.accounts.count(of: $1) },
    ]
}

/// How much each tenant has, counted in one pass.
private struct TenantCounts {
    var targets: [Tenant: Int] = [:]
    var logicalUnits: [Tenant: Int] = [:]
    let accounts: AccountTable

    init(_ configuration: Configuration) {
        accounts = configuration.accountTable
        for target in configuration.targets.values {
            targets[target.tenant, default: 0] += 1
            logicalUnits[target.tenant, default: 0] += target.logicalUnits.count - 1
        }
    }
}

/// What is a tenant's.
public struct TenantBounds: Hashable, Sendable {
    /// Names and patterns, one at least: a target is a tenant's by its name.
    public var targetNames: [NameRule]
    /// The numbers of its targets, and of no other's.
    public var targetNumbers: ClosedRange<Int32>
    public var places: StorePlaces
    /// Its targets are reached and listed through these alone, and these it is shown. None: they are reached through all, and it is shown none.
    public var portals: [PortalAddress]
    public var limits: TenantLimits

    public init(
        targetNames: [NameRule], targetNumbers: ClosedRange<Int32>, places: StorePlaces, portals: [PortalAddress] = [], limits: TenantLimits = TenantLimits()
    ) {
        self.targetNames = targetNames
        self.targetNumbers = targetNumbers
        self.places = places
        self.portals = portals
        self.limits = limits
    }

    fileprivate var names: String { targetNames.map(\.spelling).joined(separator: ", ") }
    fileprivate var numbers: String { "\(targetNumbers.lowerBound) to \(targetNumbers.upperBound)" }

    /// What both could claim, if anything.
    public func overlap(_ other: TenantBounds) -> String? {
        for mine in targetNames {
            if let theirs = other.targetNames.first(where: { Wildcard.overlap(mine.bytes, $0.bytes) }) { return "the target names \(mine.spelling) and \(theirs.spelling)" }
        }
        if targetNumbers.overlaps(other.targetNumbers) { return "the target numbers \(numbers) and \(other.numbers)" }
        return places.overlaps(other.places)
    }
}

/// Which tenants there are, and what is theirs. What is nobody's is the default tenant's.
public struct Tenancy: Hashable, Sendable {
    public let tenants: [Tenant: TenantBounds]
    /// Whether there is anything outside of the tenants: not for who sees some of them only.
    public let hasDefault: Bool

    /// - Parameter tenants: no two of them overlap
    public init(_ tenants: [Tenant: TenantBounds] = [:]) {
        self.init(tenants, hasDefault: true)
    }
    private init(_ tenants: [Tenant: TenantBounds], hasDefault: Bool) {
        self.tenants = tenants
        self.hasDefault = hasDefault
    }

    func seen(by seen: Set<Tenant>) -> Tenancy { Tenancy(tenants.filter { seen.contains($0.key) }, hasDefault: seen.contains(.default)) }

    /// Whose targets have this number.
    public func owner(of id: TargetID) -> Tenant { tenants.first { $0.value.targetNumbers.contains(id.rawValue) }?.key ?? .default }
    /// Whose targets have such a name.
    public func owner(of name: ISCSIName) -> Tenant { tenants.first { $0.value.targetNames.contains { $0.admits(name) } }?.key ?? .default }

    /// Whose a new target is: its number and its name have to be the same tenant's.
    func owner(of id: TargetID, _ name: ISCSIName) throws(ConfigurationError) -> Tenant {
        let (byNumber, byName) = (owner(of: id), owner(of: name))
        guard byNumber != byName || byName == .default && !hasDefault else { return byName }
        if let bounds = tenants[byName] {
            throw ConfigurationError(.invalid, "a target with this name is tenant \(byName.name)'s, whose target numbers are \(bounds.numbers)")
        }
        if let bounds = tenants[byNumber] {
            throw ConfigurationError(.invalid, "target \(id) is tenant \(byNumber.name)'s, whose target names are \(bounds.names)")
        }
        let own = tenants.sorted { $0.key.name < $1.key.name }.map { "\($0.key.name): \($0.value.names), \($0.value.numbers)" }
        throw ConfigurationError(.invalid, "target names and numbers are those of a tenant (\(own.joined(separator: "; ")))")
    }

    /// Whether a tenant's targets are there for a connection whose own end has this address.
    public func serves(_ tenant: Tenant, at local: PortalAddress) -> Bool {
        guard let portals = tenants[tenant]?.portals, !portals.isEmpty else { return true }
        return portals.contains { $0.admits(local) }
    }

    /// Where the stores of a tenant may be; nil: anywhere.
    func places(of tenant: Tenant) -> StorePlaces? {
        // The stores of a tenant that is gone are nowhere.
        tenant == .default ? nil : tenants[tenant].map(\.places) ?? .nowhere
    }
}

extension StorePlaces {
    private init() {
        directories = []
        devices = []
    }
    public static let nowhere = StorePlaces()
}

extension Configuration {
    /// What is there for somebody who may know of these tenants alone: the same, without whatever is others'.
    public func seen(by seen: Set<Tenant>) -> Configuration {
        var view = self
        view.tenancy = tenancy.seen(by: seen)
        view.targets = targets.filter { seen.contains($0.value.tenant) }
        view.numbers = numbers.filter { view.targets[$0.value] != nil }
        view.accountTable = accountTable.seen(by: seen)
        view.discoveryAccounts = AccountBindings()
        let shown = view.tenancy.tenants.values.flatMap(\.portals)
        view.portals = portals.filter { portal in shown.contains { portal.endpoint.admits($0) || $0.admits(portal.endpoint) } }.map(\.withoutFiles)
        return view
    }

    /// Whether no tenant has come to more than it may have. What it had before it keeps.
    public func checkLimits(since old: Configuration) throws(ConfigurationError) {
        let limited = tenancy.tenants.filter { $0.value.limits != TenantLimits() }
        guard !limited.isEmpty else { return }
        let counts = TenantCounts(self)
        lazy var before = TenantCounts(old)
        for (tenant, bounds) in limited {
            for row in TenantLimits.rows {
                guard let limit = bounds.limits[keyPath: row.limit] else { continue }
                let count = row.count(counts, tenant)
                guard count <= limit || count <= row.count(before, tenant) else {
                    throw ConfigurationError(.invalid, "tenant \(tenant.name) may have \(limit) \(row.name)")
                }
            }
        }
    }

    /// The tenant of this name: one that there is, or that still has an account.
    public func tenant(named name: [UInt8]) throws(ConfigurationError) -> Tenant {
        // Byte for byte: equal strings may be spelled otherwise.
        guard let tenant = String(validating: name, as: UTF8.self).flatMap({ known(Tenant(name: $0)) }), name.elementsEqual(tenant.name.utf8) else {
            throw ConfigurationError(.invalid, "there is no tenant “\(escaped(name))”")
        }
        return tenant
    }

    private func known(_ tenant: Tenant) -> Tenant? {
        if tenancy.hasDefault, tenant == .default { return .default }
        return tenancy.tenants.index(forKey: tenant).map { tenancy.tenants[$0].key } ?? accountTable.tenant(named: tenant)
    }
}
