import Access
import Foundation
import Glibc
import Model
import Reactor
import SettingsFile
import Testing
@testable import ControlPlane

@Suite struct PolicyFileTests {
    private static func read(_ text: String) -> Result<PolicyFile, SettingsError> {
        do throws(SettingsError) { return .success(try PolicyFile(yaml: text, file: "p")) } catch { return .failure(error) }
    }

    static let whole = """
        roles:
          backup:
            target: [show]
            logicalunit: [stat]
        tenants:
          red:
            target-names: ["iqn.2026-11.org.example:red.*"]
            tids: 1000-1999
            directories: [/srv/red]
            devices: ["/dev/mapper/vg_red-*", "/dev/disk/by-id/wwn-0x5*"]
            portals: ["192.0.2.10:3260", "[2001:db8::1]:3261"]
            limits: {targets: 10, logical-units: 40, accounts: 0}
        grants:
          - users: [0, 'EXAMPLE\\bob smith']
            groups: [storage, 50]
            role: backup
            tenant: red
            authenticate: no
          - users: [0]
            role: administrator
            tenant: all
          - users: [alice]
            role: observer
            tenant: default
            authenticate: yes

        """

    @Test("A whole policy says what it says") func reads() throws {
        let file = try Self.read(Self.whole).get()
        #expect(file.policy.asksPAM && file.policy.grants.count == 3)
        let first = file.policy.grants[0]
        #expect(first.subjects == [.uid(0), .user(Array("EXAMPLE\\bob smith".utf8)), .group(Array("storage".utf8)), .gid(50)])
        #expect(first.role.permissions == [Permission(.target, .show), Permission(.logicalunit, .stat)] && first.line == 14)
        #expect(first.reach == .tenants([Tenant(name: "red")]) && !first.authenticates)
        // Who does not say has to authenticate.
        #expect(file.policy.grants[1].authenticates && file.policy.grants[1].reach == .all && file.policy.grants[1].role == .administrator)
        let red = try #require(file.tenancy.tenants[Tenant(name: "red")])
        #expect(red.targetNumbers == 1000...1999 && red.targetNames.map(\.spelling) == ["iqn.2026-11.org.example:red.*"])
        #expect(red.limits.targets == 10 && red.limits.logicalUnits == 40 && red.limits.accounts == 0)
        #expect(red.portals.map(\.description) == ["192.0.2.10:3260", "[2001:db8::1]:3261"] && red.places.devices.count == 2)
    }

    @Test("The shipped policy gives uid 0 everything without a prompt, and nobody else anything") func shipped() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent("policy/policy.yaml")
        let text = try String(contentsOf: path, encoding: .utf8)
        let file = try Self.read(text).get()
        #expect(file.policy.grants.count == 1 && file.policy.grants[0].subjects == [.uid(0)] && file.policy.grants[0].role == .administrator)
        #expect(file.policy.grants[0].reach == .all && !file.policy.grants[0].authenticates && file.tenancy.tenants.isEmpty)
        // What it shows as an example is right, too.
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let examples = lines.map { line in line.hasPrefix("#") && (!line.hasPrefix("# ") || line.hasPrefix("#  ")) ? String(line.dropFirst()) : line }
        let example = try Self.read(examples.joined(separator: "\n")).get()
        #expect(example.policy.grants.count == 3 && example.tenancy.tenants.count == 1)
    }

    @Test("However deep something stands, it is an error and no more", arguments: ["[", "{a: ", "- "])
    func deep(level: String) {
        guard case .failure(let error) = Self.read("grants: " + (level == "- " ? "\n" : "") + String(repeating: level, count: 100_000)) else {
            Issue.record("it is taken")
            return
        }
        #expect("\(error)".contains("not YAML"), "\(error)")
    }

    @Test("Names with blanks and backslashes, and users and groups that nobody has, are taken as they stand")
    func names() throws {
        let file = try Self.read("grants:\n  - users: ['EXAMPLE\\bob smith', \"EXAMPLE\\\\eve\", no-such-user, 4000000000]\n    groups: [no such group]\n    role: observer\n    tenant: all").get()
        #expect(file.policy.grants[0].subjects == ["EXAMPLE\\bob smith", "EXAMPLE\\eve", "no-such-user"].map { .user(Array($0.utf8)) } + [.uid(4_000_000_000), .group(Array("no such group".utf8))])
        let peer = Peer(uid: 5, user: Array("EXAMPLE\\bob smith".utf8))
        #expect(decide(peer, ManagementQuestion(Permission(.target, .show), .list), file.policy).allowance != nil)
        #expect(decide(Peer(uid: 5, user: Array("EXAMPLE\\bob".utf8)), ManagementQuestion(Permission(.target, .show), .list), file.policy) == .refused(.nobody))
    }

    @Test("A file is read whole or not at all: too long, not text, or others' to write, it is none")
    func files() throws {
        let path = NSTemporaryDirectory() + "policy-\(UUID().uuidString)"
        defer { unsafe _ = unlink(path) }
        func trouble(_ bytes: [UInt8], mode: mode_t = 0o644, owner: UInt32? = nil) -> String {
            _ = FileManager.default.createFile(atPath: path, contents: Data(bytes))
            unsafe _ = chmod(path, mode)
            if let owner { unsafe _ = chown(path, owner, 0) }
            do { return try PolicyFile.Source(path: path, isRequired: true).read() == nil ? "none" : "" } catch { return "\(error)" }
        }
        let right = Array("grants: []\n".utf8)
        #expect(trouble(right) == "")
        #expect(trouble(right + [UInt8](repeating: 0x23, count: PolicyFile.greatestLength)).contains("is larger than"))
        #expect(trouble(right + [0x23, 0xff, 0xfe]).contains("not UTF-8"))
        #expect(trouble(right, mode: 0o664).contains("can be written by others") && trouble(right, mode: 0o646).contains("can be written by others"))
        if geteuid() == 0 { #expect(trouble(right, owner: 12345).contains("belongs to uid 12345")) }
        unsafe _ = unlink(path)
        #expect(throws: StartError.self) { try PolicyFile.Source(path: path, isRequired: true).read() }
        #expect(try PolicyFile.Source(path: path, isRequired: false).read() == nil)
        #expect(throws: FileError.self) { try PolicyFile.Source(path: "/", isRequired: false).read() }
    }

    @Test("Nothing at all grants nothing") func empty() throws {
        for text in ["", "# nothing\n", "grants: []\n"] { #expect(try Self.read(text).get().policy.grants.isEmpty) }
    }

    @Test("What is wrong is said with its line", arguments: [
        ("users: []", 1, "there is no “users”"), ("grants: 7", 1, "list"), ("grants:\n  - role: observer\n    tenant: all", 2, "there are none"),
        ("grants:\n  - users: [a]\n    tenant: all", 2, "role"), ("grants:\n  - users: [a]\n    role: observer", 2, "tenant"),
        ("grants:\n  - users: [a]\n    role: king\n    tenant: all", 3, "there is no role “king”"),
        ("grants:\n  - users: [a]\n    role: observer\n    tenant: red", 4, "there is no tenant “red”"),
        ("grants:\n  - users: [a]\n    role: observer\n    tenant: all\n    authenticate: maybe", 5, "yes or no"),
        ("grants:\n  - users: [a]\n    role: observer\n    tenant: all\n    colour: blue", 5, "there is no “colour”"),
        ("grants:\n  - users: [a, b]\n    role: observer\n    tenant: all\n  - users: [b]\n    role: observer\n    tenant: all", 5, "user b has the role observer for all tenants already, from line 2"),
        ("grants:\n  - users: [65534]\n    role: observer\n    tenant: all", 2, "nobody has the number 65534"),
        ("grants:\n  - users: [99999999999]\n    role: observer\n    tenant: all", 2, "nobody has the number"),
        ("grants:\n  - users: [\"a\\nb\"]\n    role: observer\n    tenant: all", 2, "a name or a number"),
        ("roles:\n  observer:\n    target: [show]", 2, "there is a role observer already"), ("roles:\n  r:\n    targets: [show]", 3, "there is no mode “targets”"),
        ("roles:\n  r:\n    target: [show, fly]", 3, "target has no operation “fly”"), ("roles:\n  r:\n    lld: [new]", 3, "lld has no operation “new”"),
        ("roles:\n  r:\n    target: [show, show]", 3, "named twice"), ("roles:\n  r: {}", 2, "may do nothing"), ("roles:\n  a b:\n    target: [show]", 2, "a role's name"),
        ("tenants:\n  red:\n    tids: 1-9", 2, "tenant red has no target-names"), ("tenants:\n  red:\n    target-names: []\n    tids: 1-9", 3, "one pattern at least"),
        ("tenants:\n  red:\n    target-names: [iqn.a]", 2, "tenant red has no tids"), ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 9-1", 4, "a range"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 0-1", 4, "a range"), ("tenants:\n  red:\n    target-names: [\"iqn a\"]\n    tids: 1-2", 3, "no initiator name or pattern"),
        ("tenants:\n  all:\n    target-names: [iqn.a]\n    tids: 1-2", 2, "meaning of its own"), ("tenants:\n  default:\n    target-names: [iqn.a]\n    tids: 1-2", 2, "meaning of its own"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    directories: [srv]", 5, "directory"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    devices: [/dev/sda]", 5, "no device"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    limits: {luns: 3}", 5, "there is no “luns”"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    limits: {targets: -3}", 5, "a number from 0"),
        ("tenants:\n  red:\n    target-names: [\"iqn.*\"]\n    tids: 1-2\n  blue:\n    target-names: [\"*.b\"]\n    tids: 3-4", 5, "tenants red and blue overlap: the target names *.b and iqn.*"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n  blue:\n    target-names: [iqn.b]\n    tids: 2-4", 5, "the target numbers 2 to 4 and 1 to 2"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    directories: [/srv]\n  blue:\n    target-names: [iqn.b]\n    tids: 3-4\n    directories: [/srv/blue]", 6, "the directories /srv/blue and /srv"),
        ("grants: [\n", 2, "not YAML"), ("tenants:\n  red:\n    tids: 1-2\n    tids: 3-4", 3, "tids stands there twice"),
        ("grants:\n\t- users: [a]", 2, "not YAML"), ("grants: []\n---\ngrants: []", 2, "not YAML"), ("roles: [r]", 1, "keys with values"), ("tenants: red", 1, "keys with values"),
        ("grants:\n  - observer", 2, "keys with values"), ("grants:\n  - users: a\n    role: observer\n    tenant: all", 2, "a list"),
        ("grants:\n  - users: [~]\n    role: observer\n    tenant: all", 2, "a name or a number"), ("grants:\n  - users: [\"\"]\n    role: observer\n    tenant: all", 2, "a name or a number"),
        ("grants:\n  - users: [[a]]\n    role: observer\n    tenant: all", 2, "a name or a number"), ("grants:\n  - users: [a]\n    role: [observer]\n    tenant: all", 3, "there is no role"),
        ("grants:\n  - users: [a]\n    role: observer\n    tenant: {red: 1}", 4, "there is no tenant"),
        ("grants:\n  - users: [a]\n    role: observer\n    tenant: all\n    authenticate: [no]", 5, "yes or no"), ("grants:\n  - users: [a]\n    role: observer\n    tenant: all\n    authenticate: true", 5, "yes or no"),
        ("grants:\n  - groups: [4294967295]\n    role: observer\n    tenant: all", 2, "nobody has the number"),
        ("grants:\n  - groups: [g]\n    users: [a, a]\n    role: observer\n    tenant: all", 2, "user a has the role observer for all tenants already"),
        ("tenants:\n  red:\n    target-names: iqn.a\n    tids: 1-2", 3, "a list"), ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 5", 4, "a range"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: [1, 2]", 4, "a range"), ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    portals: [here]", 5, "no portal"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    limits: 3", 5, "keys with values"), ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    limits: {targets: many}", 5, "a number from 0"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    directories: [/srv/../etc]", 5, "directory"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    devices: [/dev/mapper/a/b]", 5, "no device"),
        ("tenants:\n  red:\n    target-names: [iqn.a]\n    tids: 1-2\n    devices: [\"/dev/mapper/v*\"]\n  blue:\n    target-names: [iqn.b]\n    tids: 3-4\n    devices: [\"/dev/mapper/*w\"]", 6, "the devices /dev/mapper/*w and /dev/mapper/v*"),
        ("tenants:\n  red:\n    target-names: [iqn.a, iqn.c]\n    tids: 1-2\n  blue:\n    target-names: [\"iqn.?\"]\n    tids: 3-4", 5, "the target names iqn.? and iqn."),
    ] as [(String, Int?, String)])
    func wrong(text: String, line: Int?, message: String) {
        guard case .failure(let error) = Self.read(text) else {
            Issue.record("it is taken")
            return
        }
        if let line { #expect(error.line == line, "\(error)") }
        #expect("\(error)".contains(message), "\(error)")
    }
}
