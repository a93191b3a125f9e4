import Crypto
import ISCSI
import Testing
@testable import Model

private let red = Tenant(name: "red"), blue = Tenant(name: "blue")

private func bounds(_ name: String, _ numbers: ClosedRange<Int32>, directories: [String] = [], devices: [String] = []) throws -> TenantBounds {
    TenantBounds(
        targetNames: [try NameRule(parsing: utf8("iqn.\(name).*"))], targetNumbers: numbers,
        places: try StorePlaces(directories: directories.map { try StorePath(utf8($0)) }, devices: devices.map { try DevicePattern(parsing: utf8($0)) }))
}

private func tenancy() throws -> Tenancy {
    Tenancy([red: try bounds("red", 100...199, directories: ["/srv/red"]), blue: try bounds("blue", 200...299, directories: ["/srv/blue"])])
}

private func id(_ number: Int32) throws -> TargetID { try #require(TargetID(rawValue: number)) }

@Suite struct TenancyTests {
    private func fresh() throws -> Configuration {
        var configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16), keepsTgtDefaults: true))
        configuration.tenancy = try tenancy()
        return configuration
    }

    @Test("A target is the tenant's whose name and number it has, and nobody's with the name of one and the number of another")
    func owner() throws {
        var configuration = try fresh()
        for (number, name, tenant) in [(100, "iqn.red.x", red), (200, "iqn.blue.x", blue), (1, "iqn.other", Tenant.default)] as [(Int32, String, Tenant)] {
            _ = try configuration.newTarget(id(number), name: utf8(name))
            #expect(try configuration.target(id(number)).tenant == tenant)
        }
        for (number, name) in [(101, "iqn.blue.y"), (201, "iqn.red.y"), (2, "iqn.red.z"), (102, "iqn.other.y")] as [(Int32, String)] {
            #expect(throws: ConfigurationError.self, "\(number) \(name)") { try configuration.newTarget(id(number), name: utf8(name)) }
        }
    }

    @Test("Who sees a tenant alone sees nothing of others', and makes nothing of nobody's")
    func seen() throws {
        var configuration = try fresh()
        for (number, name) in [(100, "iqn.red.x"), (200, "iqn.blue.x"), (1, "iqn.other")] as [(Int32, String)] { _ = try configuration.newTarget(id(number), name: utf8(name)) }
        for tenant in [red, blue, .default] {
            _ = try configuration.newAccount(AccountName(utf8("user")), secret: Secret(utf8("a secret of \(tenant.name)")), tenant: tenant)
        }
        _ = try configuration.bindAccount(AccountName(utf8("user")), to: nil, outgoing: false)
        var seen = configuration.seen(by: [red])
        #expect(seen.sortedTargets.map(\.id.rawValue) == [100] && seen.accounts.map(\.tenant) == [red])
        let blues = try ISCSIName(utf8("iqn.blue.x"))
        #expect(seen.discoveryAccounts.isEmpty && seen.target(named: blues) == nil)
        #expect(throws: ConfigurationError.self) { try seen.tenant(named: utf8("blue")) }
        #expect(throws: ConfigurationError.self) { try seen.tenant(named: utf8("default")) }
        for (number, name) in [(5, "iqn.other.2"), (5, "iqn.red.2"), (101, "iqn.other.2"), (201, "iqn.blue.2")] as [(Int32, String)] {
            let error = #expect(throws: ConfigurationError.self) { try seen.newTarget(id(number), name: utf8(name)) }
            #expect(error?.description.contains("blue") != true, "\(error?.description ?? "")")
        }
        _ = try seen.newTarget(id(101), name: utf8("iqn.red.2"))
    }

    @Test("An account of a tenant that goes is not taken from discovery, where nobody's of that name is bound")
    func sameName() throws {
        var configuration = try fresh()
        let user = try AccountName(utf8("user"))
        for tenant in [red, .default] { _ = try configuration.newAccount(user, secret: Secret(utf8("a secret of \(tenant.name)")), tenant: tenant) }
        _ = try configuration.bindAccount(user, to: nil, outgoing: false)
        #expect(try configuration.deleteAccount(user, tenant: red) == [.accountChanged(Account.Key(tenant: red, name: user))])
        #expect(configuration.discoveryAccounts.admits(user))
        #expect(configuration.account(user) != nil)
    }

    @Test("A tenant comes to as much as it may have, and keeps what it has when that becomes less")
    func limits() throws {
        var configuration = try fresh()
        var limited = try bounds("red", 100...199)
        (limited.limits.targets, limited.limits.logicalUnits, limited.limits.accounts) = (1, 1, 1)
        configuration.tenancy = Tenancy([red: limited])
        let empty = configuration
        _ = try configuration.newTarget(id(100), name: utf8("iqn.red.1"))
        try configuration.checkLimits(since: empty)
        let one = configuration
        _ = try configuration.newTarget(id(101), name: utf8("iqn.red.2"))
        #expect(throws: ConfigurationError.self) { try configuration.checkLimits(since: one) }
        // It had two already.
        try configuration.checkLimits(since: configuration)
        var units = one
        for lun in 1...2 { _ = try units.newLogicalUnit(LogicalUnitKey(target: id(100), lun: lun), blockLength: 512, store: BackingStore(kind: .null, path: nil), medium: .null) }
        #expect(throws: ConfigurationError.self) { try units.checkLimits(since: one) }
        var accounts = one
        for name in ["a", "b"] { _ = try accounts.newAccount(AccountName(utf8(name)), secret: Secret(utf8("secret of twelve")), tenant: red) }
        #expect(throws: ConfigurationError.self) { try accounts.checkLimits(since: one) }
    }

    @Test("Stores of a tenant are to be in its places, nobody's anywhere, and those of a tenant that is gone nowhere")
    func places() throws {
        var configuration = try fresh()
        for (number, name) in [(100, "iqn.red.x"), (1, "iqn.other")] as [(Int32, String)] { _ = try configuration.newTarget(id(number), name: utf8(name)) }
        let store = BackingStore(kind: .rdwr, path: try StorePath(utf8("/x")))
        func places(_ number: Int32) throws -> StorePlaces? { configuration.storeRequest(LogicalUnitKey(target: try id(number), lun: 1), store, readOnly: false).places }
        #expect(try places(100) == StorePlaces(directories: [StorePath(utf8("/srv/red"))]))
        #expect(try places(1) == nil)
        configuration.tenancy = Tenancy()
        #expect(try places(100) == .nowhere)
        #expect(try places(1) == nil)
    }

    @Test("What two tenants could both claim is found", arguments: [
        (["iqn.x.*"], 1...9, ["/a"], ["/dev/mapper/a*"], false),
        (["iqn.y.?", "*.z"], 1...9, ["/a"], [], true), (["iqn.w"], 20...29, ["/a"], [], true), (["iqn.w"], 1...9, ["/srv"], [], true),
        (["iqn.w"], 1...9, ["/srv/y/deep"], [], true), (["iqn.w"], 1...9, ["/srv/yy"], [], false), (["iqn.w"], 1...9, [], ["/dev/mapper/vg*"], true),
        (["iqn.w"], 1...9, [], ["/dev/disk/by-id/vg_y-1"], false),
    ] as [([String], ClosedRange<Int32>, [String], [String], Bool)])
    func overlap(names: [String], numbers: ClosedRange<Int32>, directories: [String], devices: [String], overlaps: Bool) throws {
        let other = try bounds("y", 25...30, directories: ["/srv/y"], devices: ["/dev/mapper/vg_y-*"])
        var one = try bounds("x", numbers, directories: directories, devices: devices)
        one.targetNames = try names.map { try NameRule(parsing: utf8($0)) }
        #expect((one.overlap(other) != nil) == overlaps && (other.overlap(one) != nil) == overlaps, "\(one.overlap(other) ?? "")")
    }

    @Test("A directory is written in one way", arguments: ["srv", "/srv/", "/srv//x", "/srv/../x", "/srv/./x", "/", "/..", ""])
    func directory(path: String) { #expect(throws: ConfigurationError.self) { _ = try StorePlaces(directories: [StorePath(utf8(path))]) } }

    @Test("A device is named by the device mapper or by itself", arguments: ["/dev/sda", "/dev/mapper/", "/dev/mapper/a/b", "/dev/disk/by-path/x", "vg-*", "/dev/mapper/../sda"])
    func device(path: String) { #expect(throws: ConfigurationError.self) { _ = try DevicePattern(parsing: utf8(path)) } }
}
