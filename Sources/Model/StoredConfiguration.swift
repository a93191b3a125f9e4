import Bytes
import Crypto
import ISCSI
import JSON
import SCSI

// What is kept of each kind of object. A table says it for both ways.

extension StorePath: Stored {
    /// Bytes that are no text are kept as numbers.
    var stored: JSONValue { String(validating: bytes, as: UTF8.self)?.stored ?? bytes.stored }
    init(stored value: JSONValue) throws(StoredError) {
        let bytes: [UInt8] = if case .string(let text) = value { Array(text.utf8) } else { try [UInt8](stored: value) }
        do throws(ConfigurationError) { try self.init(bytes) } catch { throw StoredError("\(error)") }
    }
}

/// One as tgt's is its address; others are an object with each of their parameters.
extension Portal: Stored {
    private static let place = "portal"

    var stored: JSONValue {
        if parameters.isEmpty { return .string(description) }
        return .object([.init(Self.place, description.stored)] + .init(self, Self.rows) + [.init(Self.protection, tls.map { .object(.init($0, PortalTLS.rows)) } ?? .null)])
    }

    init(stored value: JSONValue) throws(StoredError) {
        guard case .object = value else {
            self.init(try PortalAddress(stored: value))
            return
        }
        var members = try StoredMembers(value)
        self.init(try PortalAddress(stored: members.value(Self.place)))
        try members.take(into: &self, Self.rows)
        let protection = try members.value(Self.protection)
        try members.end()
        guard protection != .null else { return }
        var tls = PortalTLS()
        members = try StoredMembers(protection)
        try members.take(into: &tls, PortalTLS.rows)
        try members.end()
        do throws(ConfigurationError) { try tls.check() } catch { throw StoredError("\(error)") }
        self.tls = tls
    }
}

extension PortalAddress {
    fileprivate init(stored value: JSONValue) throws(StoredError) {
        let text = try String(stored: value)
        do throws(ConfigurationError) { try self.init(parsing: text.utf8) } catch { throw StoredError("\(error)") }
    }
}

extension [JSONValue.Member] {
    fileprivate init<Whole>(_ whole: Whole, _ rows: [PortalRow<Whole>]) { self = rows.map { .init($0.name, $0.read(whole).stored) } }
}
extension StoredMembers {
    fileprivate mutating func take<Whole>(into whole: inout Whole, _ rows: [PortalRow<Whole>]) throws(StoredError) {
        for row in rows {
            guard let text = try take(row.name, as: String?.self) else { continue }
            do throws(ConfigurationError) { try row.write(&whole, Array(text.utf8)) } catch { throw StoredError("\(error)") }
        }
    }
}

extension SessionParameters: Stored {
    var stored: JSONValue { .object(zip(shown, rawValues).map { .init($0.name, $1.stored) }) }
    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        let values = try SessionParameters().shown.map { key throws(StoredError) in try members.take(key.name, as: UInt32.self) }
        try members.end()
        guard let parameters = SessionParameters(rawValues: values) else { throw StoredError("a value is out of range") }
        self = parameters
    }
}

extension LUNMask: Stored {
    /// First, last, access of each run.
    var stored: JSONValue { runs.map { [$0.first, $0.last, UInt16($0.access.rawValue)] }.stored }
    init(stored value: JSONValue) throws(StoredError) {
        let runs = try [[UInt16]](stored: value).map { run throws(StoredError) in
            guard run.count == 3, run[0] <= run[1], let access = UInt8(exactly: run[2]).flatMap(UnitAccess.init) else { throw StoredError("no run of numbers") }
            return Run(run[0]...run[1], access)
        }
        guard let mask = LUNMask(runs) else { throw StoredError("a number stands in it twice, or there is none such") }
        self = mask
    }
}

extension MaskedRule {
    var stored: JSONValue { .object([.init("admits", spelling.stored), .init("luns", mask.stored)]) }
    fileprivate init(stored value: JSONValue, _ parse: ([UInt8]) throws(ConfigurationError) -> Self) throws(StoredError) {
        var members = try StoredMembers(value)
        let spelling = try members.take("admits", as: String.self)
        do throws(ConfigurationError) { self = try parse(Array(spelling.utf8)) } catch { throw StoredError("\(error)") }
        mask = try members.take("luns")
        try members.end()
    }
}
extension AddressRule: Stored {
    init(stored value: JSONValue) throws(StoredError) { try self.init(stored: value) { text throws(ConfigurationError) in try AddressRule(parsing: text) } }
}
extension NameRule: Stored {
    init(stored value: JSONValue) throws(StoredError) { try self.init(stored: value) { text throws(ConfigurationError) in try NameRule(parsing: text) } }
}

extension AccountBindings.Incoming: Stored {
    var stored: JSONValue { .object([.init("account", name.stored), .init("initiator", initiator.stored)]) }
    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        self.init(name: try members.take("account"), initiator: try members.take("initiator"))
        try members.end()
    }
}

/// A value that is kept whole: it begins with its defaults, and all of it is in the table.
private protocol StoredByFields: Stored {
    static var fields: [StoredField<Self>] { get }
    init()
}
extension StoredByFields {
    var stored: JSONValue { .object(.init(self, Self.fields)) }
    init(stored value: JSONValue) throws(StoredError) {
        self.init()
        var members = try StoredMembers(value)
        try members.take(into: &self, Self.fields)
        try members.end()
    }
}

extension AccountBindings: StoredByFields {
    fileprivate static let fields = [StoredField<Self>("incoming", \.slots), StoredField("outgoing", \.outgoing)]
}
extension BackingStore: StoredByFields {
    fileprivate init() { self.init(kind: .null, path: nil) }
    fileprivate static let fields = [StoredField<Self>("kind", \.kind), StoredField("path", \.path), StoredField("flags", \.flags)]
}
extension StoreFacts: StoredByFields {
    fileprivate init() { self.init(byteCount: 0, isWritable: false) }
    fileprivate static let fields = [
        StoredField<Self>("bytes", \.byteCount), StoredField("writable", \.isWritable), StoredField("physicalBlockLength", \.physicalBlockLength),
    ]
}
extension LogicalUnitSettings.ModePageOverride: StoredByFields {
    fileprivate init() { self.init(page: 0, subpage: 0, data: []) }
    fileprivate static let fields = [StoredField<Self>("page", \.page), StoredField("subpage", \.subpage), StoredField("data", \.data)]
}

extension PersistentReservations.Registration: Stored {
    private static let keyDigits = 16

    var stored: JSONValue {
        let name: JSONValue = String(validating: initiator.name, as: UTF8.self)?.stored ?? initiator.name.stored
        let digits = String(key, radix: 16)
        let padded = String(repeating: "0", count: Self.keyDigits - digits.count) + digits
        return .object([.init("initiator", name), .init("isid", initiator.isid.stored), .init("port", relativeTargetPort.stored), .init("key", padded.stored)])
    }

    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        let value = try members.value("initiator")
        let name: [UInt8] = if case .string(let text) = value { Array(text.utf8) } else { try [UInt8](stored: value) }
        let (isid, port) = (try members.take("isid", as: UInt64.self), try members.take("port", as: UInt16.self))
        let digits = try members.take("key", as: String.self)
        try members.end()
        guard digits.utf8.count == Self.keyDigits, let key = Number.hexadecimal(digits.utf8) else { throw StoredError("no reservation key") }
        self.init(initiator: InitiatorPort(name: name, isid: isid), relativeTargetPort: port, key: key)
    }
}

/// Only those are kept that outlive a loss of power.
extension PersistentReservations: Stored {
    var stored: JSONValue {
        .object([.init("registrations", registrations.stored), .init("type", (kind?.rawValue).stored), .init("holder", holder.stored)])
    }

    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        let registrations = try members.take("registrations", as: [Registration].self)
        let (type, holder) = (try members.take("type", as: UInt8?.self), try members.take("holder", as: Int?.self))
        try members.end()
        self.init(registrations: registrations, kind: type.flatMap(Kind.init), holder: holder, outlivesPowerLoss: true)
        guard kind?.rawValue == type, isSound else { throw StoredError("there are no such reservations") }
    }
}

extension LogicalUnitConfiguration {
    private static let fields = [
        StoredField<Self>("store", \.store), StoredField("medium", \.medium),
        StoredField("scsiId", \.chosenSCSIID), StoredField("serialNumber", \.chosenSerialNumber),
        StoredField("vendor", \.vendor), StoredField("product", \.product), StoredField("revision", \.revision),
        StoredField("online", \.isOnline), StoredField("removable", \.isRemovable), StoredField("readOnly", \.isReadOnly),
        StoredField("thinProvisioning", \.isThinProvisioned), StoredField("rotationRate", \.rotationRate),
        StoredField("physicalBlockExponent", \.chosenPhysicalBlockExponent), StoredField("lowestAlignedBlock", \.lowestAlignedBlock),
        StoredField("optimalTransferGranularity", \.optimalTransferGranularity), StoredField("optimalTransferLength", \.optimalTransferLength),
        StoredField("descriptorSense", \.descriptorSense), StoredField("modePages", \.modePages), StoredField("reservations", \.reservations, isNewer: true),
    ]

    var stored: JSONValue {
        .object([.init("lun", key.lun.stored), .init("type", deviceType.stored), .init("blockSize", blockLength.stored)] + .init(self, Self.fields))
    }

    init(stored value: JSONValue, of target: TargetID) throws(StoredError) {
        var members = try StoredMembers(value)
        let key = LogicalUnitKey(target: target, lun: try members.take("lun"))
        let (type, blockLength) = (try members.take("type", as: LogicalUnitSettings.DeviceType.self), try members.take("blockSize", as: Int.self))
        guard (0..<Limits.logicalUnits).contains(key.lun), Self.blockLengths.contains(blockLength), (key.lun == 0) == (type == .controller) else {
            throw StoredError("there is no such logical unit \(key.lun)")
        }
        self = switch type {
        case .controller: Self(controllerOf: target)
        case .disk: Self(disk: key, blockLength: blockLength, store: BackingStore(), medium: nil)
        }
        try members.take(into: &self, Self.fields)
        try members.end()
    }
}

extension TargetConfiguration {
    private static let fields = [
        StoredField<Self>("state", \.state), StoredField("parameters", \.parameters), StoredField("nopInterval", \.nopInterval),
        StoredField("nopCount", \.nopCount), StoredField("addressRules", \.addressRules), StoredField("nameRules", \.nameRules),
        StoredField("accounts", \.accounts), StoredField("requireMutualCHAP", \.requiresMutualCHAP), StoredField("requireTLS", \.requiresTLS, isNewer: true),
    ]

    private var storedMembers: [JSONValue.Member] {
        [.init("tid", id.stored), .init("tenant", tenant.name.stored), .init("name", name.stored)] + .init(self, Self.fields)
    }
    private init(_ members: inout StoredMembers) throws(StoredError) {
        self.init(
            id: try members.take("tid"), tenant: Tenant(name: try members.take("tenant")), name: try members.take("name"), nop: NopDefaults())
        try members.take(into: &self, Self.fields)
    }

    /// All but its logical units.
    var storedSettings: JSONValue { .object(storedMembers) }
    /// One whose logical units are not known: it has its controller.
    init(storedSettings value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        try self.init(&members)
        try members.end()
    }

    var stored: JSONValue { .object(storedMembers + [.init("logicalUnits", .array(sortedLogicalUnits.map(\.stored)))]) }
    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        try self.init(&members)
        guard case .array(let units) = try members.value("logicalUnits") else { throw StoredError("logicalUnits: a list is wanted") }
        logicalUnits = [:]
        for unit in units {
            let unit = try LogicalUnitConfiguration(stored: unit, of: id)
            logicalUnits[unit.key.lun] = unit
        }
        guard logicalUnits[0] != nil, logicalUnits.count == units.count else { throw StoredError("logicalUnits: one is missing, or there twice") }
        try members.end()
    }
}

extension TargetConfiguration: Stored {}

extension LogicalUnitKey: Stored {
    var stored: JSONValue { .object([.init("tid", target.stored), .init("lun", lun.stored)]) }
    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        self.init(target: try members.take("tid"), lun: try members.take("lun"))
        guard (0..<Limits.logicalUnits).contains(lun) else { throw StoredError("there is no logical unit \(lun)") }
        try members.end()
    }
}

/// Hides the secrets of accounts: in what is kept they stand only sealed.
protocol SecretSealer {
    func seal(_ account: Account) -> [JSONValue]
    func open(_ secrets: [JSONValue], of key: Account.Key) throws(StoredError) -> [Secret]
}

extension Account.Key: Stored {
    private var members: [JSONValue.Member] { [.init("tenant", tenant.name.stored), .init("name", name.stored)] }
    fileprivate init(_ members: inout StoredMembers) throws(StoredError) {
        self.init(tenant: Tenant(name: try members.take("tenant")), name: try members.take("name"))
    }

    var stored: JSONValue { .object(members) }
    init(stored value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        try self.init(&members)
        try members.end()
    }

    fileprivate func stored(_ more: [JSONValue.Member]) -> JSONValue { .object(members + more) }
}

extension Account {
    func stored(_ sealer: some SecretSealer) -> JSONValue { key.stored([.init("number", number.stored), .init("secrets", .array(sealer.seal(self)))]) }

    /// - Parameter place: among those that are read, from 1; earlier versions have kept no numbers
    init(stored value: JSONValue, place: Int? = nil, _ sealer: some SecretSealer) throws(StoredError) {
        var members = try StoredMembers(value)
        let key = try Account.Key(&members)
        let number = if let place, !members.has("number") { UInt64(place) } else { try members.take("number", as: UInt64.self) }
        guard case .array(let secrets) = try members.value("secrets") else { throw StoredError("account \(key.name) has no secrets") }
        self.init(key, number: number, restored: try sealer.open(secrets, of: key))
        try members.end()
    }
}

extension Configuration {
    private static let fields = [
        StoredField<Self>("state", \.state), StoredField("debug", \.isDebugging), StoredField("portals", \.portals),
        StoredField("discoveryAccounts", \.discoveryAccounts),
    ]

    var storedSystem: JSONValue { .object(.init(self, Self.fields)) }

    mutating func restoreSystem(_ value: JSONValue) throws(StoredError) {
        var members = try StoredMembers(value)
        try members.take(into: &self, Self.fields)
        try members.end()
    }

    /// All but what the installation and the settings say at every start.
    func stored(_ sealer: some SecretSealer) -> JSONValue {
        .object(
            .init(self, Self.fields) + [.init("accounts", .array(accounts.map { $0.stored(sealer) })), .init("targets", .array(sortedTargets.map(\.stored)))])
    }

    /// Takes in what is kept; this one is new and empty. `index` makes it complete.
    mutating func restore(_ value: JSONValue, _ sealer: some SecretSealer) throws(StoredError) {
        var members = try StoredMembers(value)
        try members.take(into: &self, Self.fields)
        guard case .array(let accounts) = try members.value("accounts") else { throw StoredError("accounts: a list is wanted") }
        for (index, value) in accounts.enumerated() {
            let account = try Account(stored: value, place: index + 1, sealer)
            guard accountTable[account.key] == nil else { throw StoredError("accounts: \(account.name) is there twice") }
            accountTable[account.key] = account
        }
        for target in try members.take("targets", as: [TargetConfiguration].self) {
            guard targets.updateValue(target, forKey: target.id) == nil else { throw StoredError("targets: \(target.id) is there twice") }
        }
        try members.end()
    }

    /// Makes what follows from what was restored.
    mutating func index() throws(StoredError) {
        for target in targets.values {
            guard numbers.updateValue(target.id, forKey: target.name) == nil else { throw StoredError("two targets are called \(target.name)") }
            accountTable.rebind(target.id, of: target.tenant, from: nil, to: target.accounts)
        }
        lastAccountNumber = accountTable.values.map(\.number).max() ?? 0
        guard Set(accountTable.values.map(\.number)).count == accountTable.count else { throw StoredError("two accounts have one number") }
    }
}
