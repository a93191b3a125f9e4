import Bytes
import Crypto
import ISCSI
import SCSI

/// Everything that is configured, as one value: a change makes a new value and the `Change`s that lead to it, or throws and
/// leaves the old one as it was.
public struct Configuration: Hashable, Sendable {
    public let identitySource: IdentitySource
    public let nopDefaults: NopDefaults
    public internal(set) var state = ServiceState.ready
    public internal(set) var isDebugging: Bool
    public internal(set) var targets: [TargetID: TargetConfiguration] = [:]
    var numbers: [ISCSIName: TargetID] = [:]
    var accountTable = AccountTable()
    /// Of the account that was made last.
    var lastAccountNumber: UInt64 = 0
    public internal(set) var discoveryAccounts = AccountBindings()
    /// In the order they were opened.
    public internal(set) var portals: [Portal] = []
    /// Who has what of it. Policy says that at every start; it is not kept.
    public var tenancy = Tenancy()

    public init(identitySource: IdentitySource, nopDefaults: NopDefaults = NopDefaults(), isDebugging: Bool = false) {
        self.identitySource = identitySource
        self.nopDefaults = nopDefaults
        self.isDebugging = isDebugging
    }

    /// The targets in the order of their numbers.
    public var sortedTargets: [TargetConfiguration] { targets.values.sorted { $0.id < $1.id } }

    public func target(_ id: TargetID) throws(ConfigurationError) -> TargetConfiguration {
        guard let target = targets[id] else { throw ConfigurationError(.noSuchTarget, "there is no target \(id)") }
        return target
    }

    /// In the order they were made.
    public var accounts: [Account] { accountTable.values.sorted { $0.number < $1.number } }
    /// Whether anybody can prove anything; at no cost, however many accounts there are.
    public var hasAccounts: Bool { !accountTable.isEmpty }

    /// The targets to which an account is bound, in either direction.
    public func targets(of account: AccountName, tenant: Tenant = .default) -> Set<TargetID> { accountTable.targets(of: Account.Key(tenant: tenant, name: account)) }

    public func account(_ name: AccountName, tenant: Tenant = .default) -> Account? { accountTable[Account.Key(tenant: tenant, name: name)] }

    public func target(named name: ISCSIName) -> TargetConfiguration? { numbers[name].flatMap { targets[$0] } }

    public func logicalUnit(_ key: LogicalUnitKey) throws(ConfigurationError) -> LogicalUnitConfiguration {
        guard let unit = try target(key.target).logicalUnits[key.lun] else {
            throw ConfigurationError(.noSuchLogicalUnit, "target \(key.target) has no logical unit \(key.lun)")
        }
        return unit
    }

    /// What the device server of a logical unit needs to know.
    public func settings(_ key: LogicalUnitKey) throws(ConfigurationError) -> LogicalUnitSettings {
        try logicalUnit(key).settings(identitySource, targetName: target(key.target).name)
    }

    /// How initiators recognise a logical unit.
    public func identity(_ key: LogicalUnitKey) throws(ConfigurationError) -> DeviceIdentity {
        try logicalUnit(key).identity(identitySource, targetName: target(key.target).name)
    }

    // MARK: Targets

    /// Its tenant is the one whose number and name it has.
    public mutating func newTarget(_ id: TargetID, name text: [UInt8]) throws(ConfigurationError) -> [Change] {
        guard targets[id] == nil else { throw ConfigurationError(.targetExists, "target \(id) exists already") }
        let name: ISCSIName
        do throws(ISCSIName.NameError) {
            name = try ISCSIName(text)
        } catch {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is no target name: 1 to \(NameRule.greatestLength) of the letters, digits, “-”, “.” and “:”")
        }
        let tenant = try tenancy.owner(of: id, name)
        if let other = target(named: name) { throw ConfigurationError(.targetExists, "target \(other.id) has this name already") }
        guard targets.count < Limits.targets else { throw ConfigurationError(.invalid, "there are \(Limits.targets) targets already") }
        targets[id] = TargetConfiguration(id: id, tenant: tenant, name: name, nop: nopDefaults)
        numbers[name] = id
        return [.targetAdded(id)]
    }

    /// Sessions must have ended before.
    public mutating func deleteTarget(_ id: TargetID) throws(ConfigurationError) -> [Change] {
        let target = try target(id)
        numbers[target.name] = nil
        accountTable.rebind(id, of: target.tenant, from: target.accounts, to: nil)
        targets[id] = nil
        return [.targetRemoved(id)]
    }

    public mutating func updateTarget(_ id: TargetID, name: [UInt8], value: [UInt8]) throws(ConfigurationError) -> [Change] {
        var target = try target(id)
        let change = try target.update(name: name, value: value)
        targets[id] = target
        return [change]
    }

    // MARK: Who may log in

    /// Adds rules to a target: all of them, or none.
    /// - Parameter mask: what they show. Rules that are there already get it instead of theirs; nil: everything, and they must not be there
    public mutating func bind(
        _ addresses: [AddressRule], _ names: [NameRule], mask: LUNMask? = nil, to id: TargetID
    ) throws(ConfigurationError) -> [Change] {
        var target = try target(id)
        func add<Rule: MaskedRule>(_ rules: [Rule], to existing: inout [Rule]) throws(ConfigurationError) {
            for var rule in rules {
                rule.mask = mask ?? .all
                guard let index = existing.firstIndex(where: { $0.admitted == rule.admitted }) else {
                    existing.append(rule)
                    continue
                }
                guard mask != nil, existing[index].mask != rule.mask else { throw ConfigurationError(.ruleExists, "target \(id) admits \(rule.spelling) already") }
                existing[index].mask = rule.mask
            }
        }
        try add(addresses, to: &target.addressRules)
        try add(names, to: &target.nameRules)
        guard target.addressRules.count <= Limits.rules, target.nameRules.count <= Limits.rules else {
            throw ConfigurationError(.invalid, "a target has at most \(Limits.rules) rules of a kind")
        }
        targets[id] = target
        return [.rulesChanged(id)]
    }

    /// Takes rules from a target: all of them, or none.
    public mutating func unbind(_ addresses: [AddressRule], _ names: [NameRule], from id: TargetID) throws(ConfigurationError) -> [Change] {
        var target = try target(id)
        for rule in addresses {
            guard let index = target.addressRules.firstIndex(where: { $0.admitted == rule.admitted }) else { throw ConfigurationError(.noSuchRule, "target \(id) has no rule \(rule.spelling)") }
            target.addressRules.remove(at: index)
        }
        for rule in names {
            guard let index = target.nameRules.firstIndex(where: { $0.admitted == rule.admitted }) else { throw ConfigurationError(.noSuchRule, "target \(id) has no rule \(rule.spelling)") }
            target.nameRules.remove(at: index)
        }
        targets[id] = target
        return [.rulesChanged(id)]
    }

    // MARK: Logical units

    /// Whether a disk can be made there; its store, if it has a path, is opened after this and before `newLogicalUnit`.
    public func checkNewLogicalUnit(_ key: LogicalUnitKey, blockLength: Int) throws(ConfigurationError) {
        let target = try target(key.target)
        guard (0..<Limits.logicalUnits).contains(key.lun) else {
            throw ConfigurationError(.invalid, "logical unit numbers end at \(Limits.logicalUnits - 1)")
        }
        guard target.logicalUnits[key.lun] == nil else {
            throw ConfigurationError(.logicalUnitExists, "target \(key.target) has a logical unit \(key.lun) already")
        }
        guard LogicalUnitConfiguration.blockLengths.contains(blockLength) else {
            throw ConfigurationError(.invalid, "the block size can be 512 or 4096")
        }
    }

    /// Adds a disk: with its open medium, or without one, removable and offline.
    public mutating func newLogicalUnit(
        _ key: LogicalUnitKey, blockLength: Int, store: BackingStore, medium: StoreFacts?
    ) throws(ConfigurationError) -> [Change] {
        try checkNewLogicalUnit(key, blockLength: blockLength)
        let unit = LogicalUnitConfiguration(disk: key, blockLength: blockLength, store: store, medium: medium)
        try unit.checkMedium()
        targets[key.target]?.logicalUnits[key.lun] = unit
        return [.logicalUnitAdded(key)]
    }

    /// LUN 0 goes only with its target.
    public mutating func deleteLogicalUnit(_ key: LogicalUnitKey) throws(ConfigurationError) -> [Change] {
        try checkDeleteLogicalUnit(key)
        targets[key.target]?.logicalUnits[key.lun] = nil
        return [.logicalUnitRemoved(key)]
    }

    public func checkDeleteLogicalUnit(_ key: LogicalUnitKey) throws(ConfigurationError) {
        _ = try target(key.target)
        guard key.lun != 0 else { throw ConfigurationError(.invalid, "the controller at LUN 0 goes only with its target") }
        _ = try logicalUnit(key)
    }

    /// The store that must be opened before these parameters can be applied, if any.
    public func storeToOpen(_ key: LogicalUnitKey, _ parameters: [LogicalUnitParameter]) throws(ConfigurationError) -> StoreRequest? {
        let old = try logicalUnit(key)
        var new = old
        try new.apply(parameters)
        guard new.deviceType == .disk, new.store.kind == .rdwr, new.store.path != nil else { return nil }
        let needsWriting = !new.isReadOnly && new.medium?.isWritable == false
        return new.medium == nil || needsWriting ? storeRequest(key, new.store, readOnly: new.isReadOnly) : nil
    }

    /// Applies parameters from left to right: all of them, or none.
    /// - Parameter medium: what `storeToOpen` has asked for.
    public mutating func updateLogicalUnit(
        _ key: LogicalUnitKey, _ parameters: [LogicalUnitParameter], medium: StoreFacts? = nil
    ) throws(ConfigurationError) -> [Change] {
        let old = try logicalUnit(key)
        var new = old
        try new.apply(parameters)
        let needsStore = try storeToOpen(key, parameters) != nil
        precondition(needsStore == (medium != nil), "the store that a change needs is opened before it, and no other")
        if new.store.path != nil, new.store.kind == .null { new.medium = .null }
        if let medium {
            new.medium = medium
            try new.checkMedium()
        }
        guard new != old || medium != nil else { return [] }
        targets[key.target]?.logicalUnits[key.lun] = new
        return [medium != nil || new.store.path != old.store.path ? .mediumChanged(key) : .logicalUnitChanged(key)]
    }

    // MARK: Accounts

    /// - Parameter allowWeak: whether the secret may have less than 96 bits
    public mutating func newAccount(
        _ name: AccountName, secret: Secret, allowWeak: Bool = false, tenant: Tenant = .default
    ) throws(ConfigurationError) -> [Change] {
        let key = Account.Key(tenant: tenant, name: name)
        guard accountTable[key] == nil else { throw ConfigurationError(.accountExists, "account \(name) exists already") }
        guard accountTable.count < Limits.accounts else { throw ConfigurationError(.tooManyAccounts, "there are \(Limits.accounts) accounts already") }
        let account = try Account(key, number: lastAccountNumber + 1, secret: secret, allowWeak: allowWeak)
        lastAccountNumber = account.number
        accountTable[key] = account
        return [.accountChanged(key)]
    }

    /// Takes the account away wherever it is bound, too.
    public mutating func deleteAccount(_ name: AccountName, tenant: Tenant = .default) throws(ConfigurationError) -> [Change] {
        let key = Account.Key(tenant: tenant, name: name)
        guard accountTable[key] != nil else { throw ConfigurationError(.noSuchAccount, "there is no account \(name)") }
        accountTable[key] = nil
        var changes: [Change] = [.accountChanged(key)]
        for id in accountTable.targets(of: key).sorted() {
            changes += try changeBindings(of: id) { bindings, _ throws(ConfigurationError) in _ = bindings.remove(name) }
        }
        if tenant == .default, discoveryAccounts.remove(name) { changes.append(.accountsChanged(nil)) }
        return changes
    }

    /// - Parameters:
    ///   - id: nil binds it to discovery
    ///   - initiator: the one that it is for; nil: all
    public mutating func bindAccount(
        _ name: AccountName, to id: TargetID?, outgoing: Bool, for initiator: ISCSIName? = nil
    ) throws(ConfigurationError) -> [Change] {
        let table = accountTable
        return try changeBindings(of: id) { bindings, tenant throws(ConfigurationError) in
            func lookUp(_ name: AccountName) -> Account? { table[Account.Key(tenant: tenant, name: name)] }
            guard let account = lookUp(name) else { throw ConfigurationError(.noSuchAccount, "there is no account \(name)") }
            // Who knows a secret by which somebody proves itself to us could prove itself as the target (RFC 7143 §9.2.1).
            let others = outgoing ? bindings.incoming : bindings.outgoing.map { [$0] } ?? []
            for other in others where other != name && lookUp(other)?.sharesSecret(with: account) == true { throw Self.sameSecret(as: other) }
            guard !outgoing || account.secrets.count == 1 else {
                throw ConfigurationError(.invalid, "account \(name) has two secrets; one that is outgoing has one: retire the other")
            }
            try bindings.bind(name, outgoing: outgoing, for: initiator)
        }
    }

    private static func sameSecret(as other: AccountName) -> ConfigurationError {
        ConfigurationError(.invalid, "account \(other), bound there for the other direction, has the same secret")
    }

    /// Begins to take the place of an account's secret: from now on it has two, and either is right. Ends nobody's session.
    /// - Parameter allowWeak: whether the secret may have less than 96 bits
    public mutating func addSecret(
        _ secret: Secret, to name: AccountName, allowWeak: Bool = false, tenant: Tenant = .default
    ) throws(ConfigurationError) -> [Change] {
        let key = Account.Key(tenant: tenant, name: name)
        guard var account = accountTable[key] else { throw ConfigurationError(.noSuchAccount, "there is no account \(name)") }
        try account.add(secret, allowWeak: allowWeak)
        for bindings in accountTable.targets(of: key).compactMap({ targets[$0]?.accounts }) + (tenant == .default ? [discoveryAccounts] : []) {
            guard bindings.outgoing != name else { throw ConfigurationError(.invalid, "account \(name) is bound as outgoing, and has one secret") }
            guard bindings.admits(name), let outgoing = bindings.outgoing, let other = self.account(outgoing, tenant: tenant) else { continue }
            guard !other.sharesSecret(with: account) else { throw Self.sameSecret(as: outgoing) }
        }
        accountTable[key] = account
        return [.accountChanged(key)]
    }

    /// Takes one of an account's two secrets away.
    public mutating func retireSecret(
        _ generation: Account.Generation, of name: AccountName, tenant: Tenant = .default
    ) throws(ConfigurationError) -> [Change] {
        let key = Account.Key(tenant: tenant, name: name)
        guard var account = accountTable[key] else { throw ConfigurationError(.noSuchAccount, "there is no account \(name)") }
        try account.retire(generation)
        accountTable[key] = account
        return [.accountChanged(key)]
    }

    public mutating func unbindAccount(
        _ name: AccountName, from id: TargetID?, outgoing: Bool, for initiator: ISCSIName? = nil
    ) throws(ConfigurationError) -> [Change] {
        try changeBindings(of: id) { bindings, _ throws(ConfigurationError) in try bindings.unbind(name, outgoing: outgoing, for: initiator) }
    }

    private mutating func changeBindings(
        of id: TargetID?, _ body: (inout AccountBindings, Tenant) throws(ConfigurationError) -> Void
    ) throws(ConfigurationError) -> [Change] {
        if let id {
            var target = try target(id)
            let old = target.accounts
            try body(&target.accounts, target.tenant)
            accountTable.rebind(id, of: target.tenant, from: old, to: target.accounts)
            targets[id] = target
        } else {
            var bindings = discoveryAccounts
            try body(&bindings, .default)
            discoveryAccounts = bindings
        }
        return [.accountsChanged(id)]
    }

    // MARK: The whole system

    public func portal(_ endpoint: PortalAddress) throws(ConfigurationError) -> Portal {
        guard let portal = portals.first(where: { $0.endpoint == endpoint }) else { throw ConfigurationError(.invalid, "there is no portal \(endpoint)") }
        return portal
    }

    /// The portal at which a connection has arrived whose own end has this address. Two cannot listen for the same.
    public func portal(reachedAt local: PortalAddress) -> Portal? {
        let here = portals.filter { $0.endpoint.port == local.port && $0.endpoint.address.family == local.address.family }
        return here.first { $0.endpoint.address == local.address } ?? here.first { $0.endpoint.address.value == 0 }
    }

    /// The portal must be listening already.
    public mutating func addPortal(_ portal: Portal) throws(ConfigurationError) -> [Change] {
        try checkNewPortal(portal)
        portals.append(portal)
        return [.portalAdded(portal)]
    }

    public func checkNewPortal(_ portal: Portal) throws(ConfigurationError) {
        guard !portals.contains(where: { $0.endpoint == portal.endpoint }) else { throw ConfigurationError(.invalid, "portal \(portal) exists already") }
        guard portals.count < Limits.portals else { throw ConfigurationError(.invalid, "there are \(Limits.portals) portals already") }
    }

    /// The files of the new one must have been read already. It is a change even if nothing is configured differently: what is in the
    /// files may be.
    public mutating func changePortal(_ portal: Portal) throws(ConfigurationError) -> [Change] {
        let old = try self.portal(portal.endpoint)
        portals = portals.map { $0 == old ? portal : $0 }
        return [.portalChanged(portal)]
    }

    public mutating func deletePortal(_ endpoint: PortalAddress) throws(ConfigurationError) -> [Change] {
        let portal = try portal(endpoint)
        portals.removeAll { $0 == portal }
        return [.portalRemoved(portal)]
    }

    /// `--op update --mode system --name … --value …`. iSNS can only be switched off, which it is.
    public mutating func updateSystem(name: [UInt8], value: [UInt8]) throws(ConfigurationError) -> [Change] {
        switch name {
        case Array("State".utf8):
            state = try ServiceState(parsing: value)
            return [.systemStateChanged]
        case Array("debug".utf8):
            guard value == Array("on".utf8) || value == Array("off".utf8) else {
                throw ConfigurationError(.invalid, "“\(escaped(value))” is no value for debug: write on or off")
            }
            isDebugging = value == Array("on".utf8)
            return [.debugChanged]
        case Array("iSNS".utf8) where value == Array("Off".utf8): return []
        case _ where name.starts(with: "iSNS".utf8): throw ConfigurationError(.invalid, "iSNS is not supported")
        default: throw ConfigurationError(.invalid, "the system has no parameter “\(escaped(name))”")
        }
    }
}

/// From one start to the next.
extension Configuration {
    /// What is to be kept: all but what the settings say at every start.
    /// - Parameters:
    ///   - portals: those of the settings
    ///   - isDebugging: whether the settings say so
    public func kept(without portals: [Portal], isDebugging: Bool) -> Configuration {
        var kept = self
        let endpoints = portals.map(\.endpoint)
        kept.portals.removeAll { endpoints.contains($0.endpoint) }
        if isDebugging { kept.isDebugging = false }
        return kept
    }

    /// Goes on with what was kept; this one has nothing but what the settings say.
    public mutating func goOn(with kept: Configuration) {
        let started = self
        self = kept
        let endpoints = started.portals.map(\.endpoint)
        tenancy = started.tenancy
        portals = started.portals + kept.portals.filter { !endpoints.contains($0.endpoint) }
        isDebugging = started.isDebugging || kept.isDebugging
    }

    /// The stores of all logical units, for a daemon that has none of them open.
    public var storesToOpen: [StoreRequest] {
        sortedTargets.flatMap(\.sortedLogicalUnits).filter { $0.store.kind == .rdwr && $0.store.path != nil }.map {
            storeRequest($0.key, $0.store, readOnly: $0.isReadOnly)
        }
    }

    /// How a store of one of the logical units is to be opened: where its tenant's stores may be.
    public func storeRequest(_ key: LogicalUnitKey, _ store: BackingStore, readOnly: Bool) -> StoreRequest {
        StoreRequest(key: key, store: store, readOnly: readOnly, places: targets[key.target].flatMap { tenancy.places(of: $0.tenant) })
    }

    /// What initiators have reserved and want to have after a loss of power, too; nil: nothing. One who is gone has nothing.
    public mutating func setReservations(_ reservations: PersistentReservations?, of key: LogicalUnitKey) {
        targets[key.target]?.logicalUnits[key.lun]?.reservations = reservations
    }

    /// The medium as it is found at a start. nil if it cannot be opened: then the logical unit stays, and is not served.
    public mutating func setMedium(_ medium: StoreFacts?, of key: LogicalUnitKey) throws(ConfigurationError) {
        var unit = try logicalUnit(key)
        unit.medium = medium
        try unit.checkMedium()
        targets[key.target]?.logicalUnits[key.lun] = unit
    }
}

extension LogicalUnitConfiguration {
    /// A medium must hold a block, and be writable unless the administrator said `readonly`.
    func checkMedium() throws(ConfigurationError) {
        guard let medium else { return }
        guard blockCount > 0 else { throw ConfigurationError(.invalid, "the store holds less than one block of \(blockLength) bytes") }
        guard medium.isWritable || isReadOnly else {
            throw ConfigurationError(.invalid, "the store cannot be written; make the logical unit read-only (readonly=1) to serve it nevertheless")
        }
    }
}
