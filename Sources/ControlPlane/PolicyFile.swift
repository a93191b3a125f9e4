import Access
import Crypto
import Door
import Model
import Reactor
import SettingsFile
import Yams

/// What `policy.yaml` says: who may do what, and what is whose. `policy/policy.yaml` is the shipped file, with comments.
public struct PolicyFile: Sendable, Equatable {
    public let policy: Policy
    public let tenancy: Tenancy
    /// SHA-256 of its text: which one it was.
    let digest: String

    /// Everything has a limit. A host serves ten thousand targets; these are far more than its administrators and tenants.
    static let mostTenants = 4096
    static let mostGrants = 4096
    static let mostEntries = 256

    /// Reads the file's text. All of it is right, or none of it counts.
    /// - Parameter file: its name, for errors
    public init(yaml text: String, file: String) throws(SettingsError) {
        digest = Digest.sha256.text(of: Array(text.utf8))
        let root = try SettingsFile(name: file).root(of: text)
        do throws(Wrong) {
            let parts = try root?.keys(["roles", "tenants", "grants"]) ?? [:]
            let roles = try Self.roles(parts["roles"])
            let tenants = try Self.tenants(parts["tenants"])
            policy = Policy(try Self.grants(parts["grants"], roles, Set(tenants.keys)))
            tenancy = Tenancy(tenants)
        } catch {
            throw SettingsError(file: file, line: error.line, message: error.message)
        }
    }

    /// Where the file is.
    public struct Source: Sendable {
        public let path: String
        /// Whether there has to be one.
        public let isRequired: Bool

        /// nil: there is no file, and none has to be.
        func read() throws -> PolicyFile? {
            guard let bytes = try Files.readTrusted(path, limit: greatestLength) else {
                if isRequired { throw StartError("\(path): there is no such file") }
                return nil
            }
            guard let text = String(validating: bytes, as: UTF8.self) else { throw StartError("\(path): it is not UTF-8") }
            return try PolicyFile(yaml: text, file: path)
        }
    }
    /// Bytes of the file.
    static let greatestLength = 4 << 20

    /// What is not right, and where.
    fileprivate struct Wrong: Error {
        let line: Int?
        let message: String
        init(_ node: Node?, _ message: String) {
            line = node?.mark?.line
            self.message = message
        }
    }

    // MARK: Roles

    /// The shipped ones, and the file's.
    private static func roles(_ node: Node?) throws(Wrong) -> [String: PolicyRole] {
        var roles = Dictionary(uniqueKeysWithValues: PolicyRole.shipped.map { ($0.name, $0) })
        for (key, value) in try node?.pairs("roles", most: mostEntries) ?? [] {
            let name = try key.name("a role")
            guard roles[name] == nil else { throw Wrong(key, "there is a role \(name) already") }
            var permissions: Set<Permission> = []
            for (modeNode, list) in try value.pairs("role \(name)", most: mostEntries) {
                guard let mode = modeNode.scalar.flatMap({ Permission.Mode(rawValue: $0.string) }) else {
                    throw Wrong(modeNode, "role \(name): there is no mode \(modeNode.spelling); there are \(Permission.Mode.allCases.map(\.rawValue).joined(separator: ", "))")
                }
                for item in try list.items("role \(name), \(mode.rawValue)", most: mostEntries) {
                    let permission = item.scalar.flatMap { Permission.Operation(rawValue: $0.string) }.map { Permission(mode, $0) }
                    guard let permission, Permission.all.contains(permission) else {
                        let known = Permission.all.filter { $0.mode == mode }.map(\.operation.rawValue)
                        throw Wrong(item, "role \(name): \(mode.rawValue) has no operation \(item.spelling); it has \(known.joined(separator: ", "))")
                    }
                    guard permissions.insert(permission).inserted else { throw Wrong(item, "role \(name): \(permission) is named twice") }
                }
            }
            guard !permissions.isEmpty else { throw Wrong(key, "role \(name) may do nothing") }
            roles[name] = PolicyRole(name: name, permissions: permissions)
        }
        return roles
    }

    // MARK: Tenants

    private static func tenants(_ node: Node?) throws(Wrong) -> [Tenant: TenantBounds] {
        var tenants: [Tenant: TenantBounds] = [:]
        for (key, value) in try node?.pairs("tenants", most: mostTenants) ?? [] {
            let name = try key.name("a tenant")
            guard name != all, name != Tenant.default.name else { throw Wrong(key, "\(name) is no tenant's name: it has a meaning of its own") }
            let bounds = try bounds(of: name, key, value)
            for (other, theirs) in tenants {
                if let overlap = bounds.overlap(theirs) { throw Wrong(key, "tenants \(other.name) and \(name) overlap: \(overlap)") }
            }
            tenants[Tenant(name: name)] = bounds
        }
        return tenants
    }

    private static func bounds(of name: String, _ key: Node, _ node: Node) throws(Wrong) -> TenantBounds {
        let parts = try node.keys(["target-names", "tids", "directories", "devices", "portals", "limits"], "tenant \(name)")
        func list<Value>(_ part: String, _ parse: ([UInt8]) throws(ConfigurationError) -> Value) throws(Wrong) -> [Value] {
            guard let node = parts[part] else { return [] }
            var values: [Value] = []
            for item in try node.items("tenant \(name), \(part)", most: mostEntries) {
                guard let text = item.scalar?.string else { throw Wrong(item, "tenant \(name), \(part): a text is wanted") }
                do throws(ConfigurationError) { values.append(try parse(Array(text.utf8))) } catch { throw Wrong(item, "tenant \(name), \(part): \(error)") }
            }
            return values
        }
        let names = try list("target-names") { text throws(ConfigurationError) in try NameRule(parsing: text) }
        guard !names.isEmpty else { throw Wrong(parts["target-names"] ?? key, "tenant \(name) has no target-names: one pattern at least is wanted") }
        guard let numbers = parts["tids"] else { throw Wrong(key, "tenant \(name) has no tids: a range of target numbers like 1000-1999 is wanted") }
        let ends = (numbers.scalar?.string ?? "").split(separator: "-", omittingEmptySubsequences: false).map { Int32($0) }
        guard ends.count == 2, let first = ends[0], let last = ends[1], first > 0, first <= last else {
            throw Wrong(numbers, "tenant \(name), tids: a range of target numbers like 1000-1999 is wanted")
        }
        let directories = try list("directories") { text throws(ConfigurationError) in
            let path = try StorePath(text)
            _ = try StorePlaces(directories: [path])
            return path
        }
        let devices = try list("devices") { text throws(ConfigurationError) in try DevicePattern(parsing: text) }
        let length = directories.reduce(0) { $0 + $1.bytes.count } + devices.reduce(0) { $0 + $1.pattern.count }
        guard length <= StorePlacement.mostBytes else { throw Wrong(key, "tenant \(name): its directories and devices have more than \(StorePlacement.mostBytes) bytes") }
        let portals = try list("portals") { text throws(ConfigurationError) in try PortalAddress(parsing: text) }
        let places: StorePlaces
        do throws(ConfigurationError) { places = try StorePlaces(directories: directories, devices: devices) } catch { throw Wrong(key, "\(error)") }
        return TenantBounds(
            targetNames: names, targetNumbers: first...last, places: places, portals: portals, limits: try limits(of: name, parts["limits"]))
    }

    private static func limits(of name: String, _ node: Node?) throws(Wrong) -> TenantLimits {
        var limits = TenantLimits()
        guard let node else { return limits }
        let parts = try node.keys(TenantLimits.rows.map(\.name), "tenant \(name), limits")
        for row in TenantLimits.rows {
            guard let part = parts[row.name] else { continue }
            guard let value = part.int, (0...row.greatest).contains(value) else {
                throw Wrong(part, "tenant \(name), \(row.name): a number from 0 to \(row.greatest) is wanted")
            }
            limits[keyPath: row.limit] = value
        }
        return limits
    }

    // MARK: Grants

    /// What stands for every tenant.
    private static let all = "all"

    private static func grants(_ node: Node?, _ roles: [String: PolicyRole], _ tenants: Set<Tenant>) throws(Wrong) -> [Grant] {
        struct Given: Hashable {
            let subject: Subject
            let role: String
            let reach: Reach
        }
        var given: [Given: Int?] = [:]
        var grants: [Grant] = []
        for item in try node?.items("grants", most: mostGrants) ?? [] {
            let parts = try item.keys(["users", "groups", "role", "tenant", "authenticate"], "a grant")
            let users = try subjects(parts["users"], "users", number: { .uid($0) }, name: { .user($0) })
            let groups = try subjects(parts["groups"], "groups", number: { .gid($0) }, name: { .group($0) })
            guard !users.isEmpty || !groups.isEmpty else { throw Wrong(item, "a grant is for users or groups: there are none") }
            guard let roleNode = parts["role"] else { throw Wrong(item, "a grant has a role") }
            guard let role = roleNode.scalar.flatMap({ roles[$0.string] }) else {
                throw Wrong(roleNode, "there is no role \(roleNode.spelling); there are \(roles.keys.sorted().joined(separator: ", "))")
            }
            guard let tenantNode = parts["tenant"] else { throw Wrong(item, "a grant is for one tenant, or for \(all)") }
            let name = tenantNode.scalar?.string ?? ""
            let reach: Reach = name == all ? .all : .tenants([Tenant(name: name)])
            guard name == all || name == Tenant.default.name || tenants.contains(Tenant(name: name)) else {
                throw Wrong(tenantNode, "there is no tenant \(tenantNode.spelling): write one of this file's, \(Tenant.default.name) for what is no tenant's, or \(all)")
            }
            var authenticates = true
            if let node = parts["authenticate"] {
                guard let word = node.scalar?.string, let value = ["yes": true, "no": false][word] else { throw Wrong(node, "authenticate: yes or no is wanted") }
                authenticates = value
            }
            for subject in users + groups {
                if let line = given.updateValue(item.mark?.line, forKey: Given(subject: subject, role: role.name, reach: reach)) {
                    throw Wrong(item, "\(subject) has the role \(role.name) for \(reach) already" + (line.map { ", from line \($0)" } ?? ""))
                }
            }
            grants.append(Grant(users + groups, role, reach, authenticates: authenticates, line: item.mark?.line))
        }
        return grants
    }

    private static func subjects(_ node: Node?, _ what: String, number: (UInt32) -> Subject, name: ([UInt8]) -> Subject) throws(Wrong) -> [Subject] {
        var subjects: [Subject] = []
        for item in try node?.items("grants, \(what)", most: mostEntries) ?? [] {
            guard item.null == nil, let text = item.scalar?.string, !text.isEmpty, !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else {
                throw Wrong(item, "grants, \(what): a name or a number is wanted")
            }
            guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
                subjects.append(name(Array(text.utf8)))
                continue
            }
            guard let value = UInt32(text), PeerLimits.isSomebody(value) else { throw Wrong(item, "grants, \(what): nobody has the number \(text)") }
            subjects.append(number(value))
        }
        return subjects
    }
}

// MARK: Walking

extension Node {
    /// For a complaint.
    fileprivate var spelling: String { scalar.map { "“\($0.string)”" } ?? "of this kind" }

    /// A mapping's keys and values, each key once.
    fileprivate func pairs(_ what: String, most: Int) throws(PolicyFile.Wrong) -> [(key: Node, value: Node)] {
        guard let mapping, mapping.count <= most else { throw PolicyFile.Wrong(self, "\(what): at most \(most) keys with values are wanted") }
        var seen: Set<String> = []
        for (key, _) in mapping where !seen.insert(key.scalar?.string ?? "").inserted { throw PolicyFile.Wrong(key, "\(what): \(key.spelling) stands there twice") }
        return mapping.map { ($0.key, $0.value) }
    }

    /// The values of known keys.
    fileprivate func keys(_ known: [String], _ what: String = "the policy") throws(PolicyFile.Wrong) -> [String: Node] {
        var values: [String: Node] = [:]
        for (key, value) in try pairs(what, most: known.count + 1) {
            guard let name = key.scalar?.string, known.contains(name) else {
                throw PolicyFile.Wrong(key, "\(what): there is no \(key.spelling); there are \(known.joined(separator: ", "))")
            }
            values[name] = value
        }
        return values
    }

    fileprivate func items(_ what: String, most: Int) throws(PolicyFile.Wrong) -> [Node] {
        guard let sequence, sequence.count <= most else { throw PolicyFile.Wrong(self, "\(what): a list of at most \(most) is wanted") }
        return Array(sequence)
    }

    /// A name that an administrator can type, and that a log can show.
    fileprivate func name(_ what: String) throws(PolicyFile.Wrong) -> String {
        let name = scalar?.string ?? ""
        let isPlain = name.utf8.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x7a).contains($0) || (0x41...0x5a).contains($0) || "-_.".utf8.contains($0) }
        guard (1...64).contains(name.utf8.count), isPlain else { throw PolicyFile.Wrong(self, "\(what)'s name is 1 to 64 letters, digits, “-”, “_” and “.”") }
        return name
    }
}
