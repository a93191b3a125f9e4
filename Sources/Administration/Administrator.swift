import Bytes
import Crypto
import ISCSI
import Management
import Model
import SCSI

/// Turns requests into plans: the pure half of carrying them out.
public enum Administrator {
    /// Understands a request of tgt's protocol and decides what it takes.
    public static func plan(_ request: TgtRequest, _ configuration: Configuration, _ view: RuntimeView) -> Plan {
        do throws(TgtError) {
            return plan(try AdminRequest(request), configuration, view)
        } catch {
            return .answer(.refusal(error, "there is no such request, or its text is not as it must be"))
        }
    }

    /// Decides what a request takes.
    /// - Parameters:
    ///   - view: what is going on now; of what data knows nothing is needed unless `needsRuntimeView`
    ///   - format: of a report
    public static func plan(_ request: AdminRequest, _ configuration: Configuration, _ view: RuntimeView, format: OutputFormat = .text) -> Plan {
        do throws(Refusal) {
            try checkDriver(request)
            if let tenant = request.tenant { _ = try configured { () throws(ConfigurationError) in try configuration.tenant(named: tenant) } }
            if let effect = try effect(request, configuration, view) {
                return .perform(effect, Continuation(request: request, effect: effect, format: format))
            }
            let reporter = Reporter(configuration: configuration, view: view)
            if let report = try format == .json ? JSONReporter(reporter).report(request.action) : reporter.report(request.action) {
                return .answer(.report(report))
            }
            if case .deleteSystem = request.action {
                guard configuration.targets.isEmpty else { throw Refusal(.invalidRequest, "there are targets; delete them first") }
                return .stop(.success)
            }
            if case .explainPolicy = request.action { throw Refusal(.unsupportedOperation, "the policy is not part of what is configured") }
            return try change(request, configuration)
        } catch {
            return error.plan
        }
    }

    static func checkDriver(_ request: AdminRequest) throws(Refusal) {
        guard request.lld.isEmpty || request.lld.elementsEqual("iscsi".utf8) else {
            throw Refusal(.noDriver, "there is no driver “\(escaped(request.lld))”: iscsi is the only one")
        }
    }

    /// Goes on with a request after its effect. Everything is checked again, against the configuration of now.
    public static func resume(_ continuation: Continuation, _ outcome: EffectOutcome, _ configuration: Configuration) -> Plan {
        do throws(Refusal) {
            if case .failed(let error, let reason) = outcome { throw Refusal(error, reason) }
            return try change(continuation.request, configuration, format: continuation.format, after: continuation.effect, outcome)
        } catch {
            return error.plan
        }
    }

    /// What must be done outside before the configuration can change, if anything.
    static func effect(_ request: AdminRequest, _ configuration: Configuration, _ view: RuntimeView) throws(Refusal) -> Effect? {
        switch request.action {
        case .newLogicalUnit(let tid, let lun, let unit):
            let new = try NewUnit(tid, lun, unit)
            try configured { () throws(ConfigurationError) in try configuration.checkNewLogicalUnit(new.key, blockLength: new.blockLength) }
            return new.storeToOpen(configuration).map { .openStore($0) }
        case .updateLogicalUnit(let tid, let lun, let settings):
            let key = try key(tid, lun)
            let request = try configured { () throws(ConfigurationError) in try configuration.storeToOpen(key, parameters(settings)) }
            if settings.contains(where: { $0.name.elementsEqual("path".utf8) }), view.logicalUnits[key]?.preventsRemoval == true {
                throw Refusal(.removalPrevented, "an initiator has locked the medium")
            }
            return request.map { .openStore($0) }
        case .deleteLogicalUnit(let tid, let lun):
            let key = try key(tid, lun)
            guard configuration.targets[key.target] != nil else { throw Refusal(.noLogicalUnit, "there is no target \(tid)") }
            try configured { () throws(ConfigurationError) in try configuration.checkDeleteLogicalUnit(key) }
            return .withdrawLogicalUnit(key)
        case .deleteTarget(let tid, let force):
            let target = try target(tid, configuration)
            guard force || view.sessions(of: target.id).isEmpty else {
                throw Refusal(.targetActive, "target \(tid) has sessions; end them, or use --force")
            }
            return .withdrawTarget(target.id, force: force)
        case .deleteConnection(let tid, let sid, let cid):
            _ = try target(tid, configuration)
            let session = try Reporter(configuration: configuration, view: view).session(tid, sid)
            guard let connection = session.connections.first(where: { UInt32($0.cid) == cid }) else {
                throw Refusal(.noConnection, "session \(sid) has no connection \(cid)")
            }
            return .endConnection(session.target, tsih: session.tsih, cid: connection.cid)
        case .newPortal(let text, let settings):
            let portal = try configured { () throws(ConfigurationError) in
                let portal = try Portal(PortalAddress(parsing: text), parameters(settings))
                try configuration.checkNewPortal(portal)
                return portal
            }
            return .listen(portal)
        case .updatePortal(let text, let settings): return .renewPortal(try updated(text, settings, configuration))
        case .deletePortal(let text):
            let portal = try configured { () throws(ConfigurationError) in
                try configuration.portal(PortalAddress(parsing: text)).endpoint
            }
            return .close(portal)
        case .clearPenalties(let address): return .clearPenalties(try configured { () throws(ConfigurationError) in try AddressRule(parsing: address) })
        case .generateSecret(let user, let bits):
            _ = try configured { () throws(ConfigurationError) in try AccountName(user) }
            guard GeneratedSecret.bits.contains(bits) else {
                throw Refusal(.invalidRequest, "a secret is drawn with \(GeneratedSecret.bits.lowerBound) to \(GeneratedSecret.bits.upperBound) bits")
            }
            return .drawSecret(characters: GeneratedSecret.characters(bits: Int(bits)))
        default: return nil
        }
    }

    /// The new configuration, once everything else is done.
    private static func change(
        _ request: AdminRequest, _ old: Configuration, format: OutputFormat = .text, after effect: Effect? = nil, _ outcome: EffectOutcome = .done
    ) throws(Refusal) -> Plan {
        switch request.action {
        case .deleteConnection, .startDriver, .clearPenalties: return .answer(.success)
        case .stopDriver:
            guard old.targets.isEmpty else { throw Refusal(.driverBusy, "there are targets") }
            throw Refusal(.unsupportedOperation, "the driver cannot be stopped; set the system offline instead")
        default:
            var new = old
            let changes = try apply(request, to: &new, after: effect, outcome)
            try configured { () throws(ConfigurationError) in try new.checkLimits(since: old) }
            guard case .drawn(let secret) = outcome, case .generateSecret(let user, _) = request.action else { return .commit(new, changes, .success) }
            return .commit(new, changes, GeneratedSecret.answer(secret, user, format))
        }
    }

    /// Makes the change that a request asks for. In place: thousands of them may follow one another.
    static func apply(
        _ request: AdminRequest, to new: inout Configuration, after effect: Effect? = nil, _ outcome: EffectOutcome = .done
    ) throws(Refusal) -> [Change] {
        let changes: [Change]
        let tenant = try configured { () throws(ConfigurationError) in try request.tenant.map { name throws(ConfigurationError) in try new.tenant(named: name) } ?? .default }
        switch request.action {
        case .updateSystem(let setting):
            changes = try configured { () throws(ConfigurationError) in try new.updateSystem(name: setting.name, value: setting.value) }

        case .newTarget(let tid, let name):
            guard let id = TargetID(rawValue: tid) else { throw Refusal(.invalidRequest, "target numbers begin with 1") }
            changes = try configured { () throws(ConfigurationError) in try new.newTarget(id, name: name) }
        case .deleteTarget(let tid, _):
            let id = try target(tid, new).id
            changes = try configured { () throws(ConfigurationError) in try new.deleteTarget(id) }
        case .updateTarget(let tid, let setting):
            let id = try target(tid, new).id
            changes = try configured { () throws(ConfigurationError) in try new.updateTarget(id, name: setting.name, value: setting.value) }
        case .bindInitiators(let tid, let initiators, let luns):
            let id = try target(tid, new).id
            changes = try configured { () throws(ConfigurationError) in 
                let mask: LUNMask? = if let luns { try LUNMask(parsing: luns) } else { nil }
                return try new.bind(initiators.addressRules(), initiators.nameRules(), mask: mask, to: id)
            }
        case .unbindInitiators(let tid, let initiators):
            let id = try target(tid, new).id
            changes = try configured { () throws(ConfigurationError) in
                let addresses = try existing(.noSuchRule) { () throws(ConfigurationError) in try initiators.addressRules() }
                let names = try existing(.noSuchRule) { () throws(ConfigurationError) in try initiators.nameRules() }
                return try new.unbind(addresses, names, from: id)
            }

        case .newLogicalUnit(let tid, let lun, let unit):
            let unit = try NewUnit(tid, lun, unit)
            try configured { () throws(ConfigurationError) in try new.checkNewLogicalUnit(unit.key, blockLength: unit.blockLength) }
            // The effect was for the configuration of then: the target may be another's by now, and its stores elsewhere.
            guard unit.storeToOpen(new).map({ .openStore($0) }) == effect else { throw Refusal(.targetActive, "the target has been changed meanwhile; try again") }
            let medium: StoreFacts? = if case .opened(let facts) = outcome { facts } else { unit.store.path == nil ? nil : .null }
            changes = try configured { () throws(ConfigurationError) in
                try new.newLogicalUnit(unit.key, blockLength: unit.blockLength, store: unit.store, medium: medium)
            }
        case .deleteLogicalUnit(let tid, let lun):
            let key = try key(tid, lun)
            changes = try configured { () throws(ConfigurationError) in try new.deleteLogicalUnit(key) }
        case .updateLogicalUnit(let tid, let lun, let settings):
            let key = try key(tid, lun)
            var medium: StoreFacts?
            if case .opened(let facts) = outcome { medium = facts }
            let asked = try configured { () throws(ConfigurationError) in try new.storeToOpen(key, parameters(settings)) }
            // The effect was for the configuration of then.
            guard asked.map({ .openStore($0) }) == effect else { throw Refusal(.logicalUnitActive, "the logical unit has been changed meanwhile; try again") }
            changes = try configured { () throws(ConfigurationError) in try new.updateLogicalUnit(key, parameters(settings), medium: medium) }

        case .newPortal:
            guard case .listening(let portal) = outcome else { preconditionFailure("a portal listens before it is configured") }
            changes = try configured { () throws(ConfigurationError) in try new.addPortal(portal) }
        case .updatePortal(let text, let settings):
            let portal = try updated(text, settings, new)
            // The files are those of then.
            guard effect == .renewPortal(portal) else { throw Refusal(.invalidRequest, "the portal has been changed meanwhile; try again") }
            changes = try configured { () throws(ConfigurationError) in try new.changePortal(portal) }
        case .deletePortal(let text):
            changes = try configured { () throws(ConfigurationError) in try new.deletePortal(PortalAddress(parsing: text)) }

        case .newAccount(let user, let password, let allowWeak):
            changes = try configured { () throws(ConfigurationError) in
                try new.newAccount(AccountName(user), secret: Secret(password), allowWeak: allowWeak, tenant: tenant)
            }
        case .deleteAccount(let user):
            changes = try configured { () throws(ConfigurationError) in try new.deleteAccount(known(user), tenant: tenant) }
        case .addSecret(let user, let password, let allowWeak):
            changes = try configured { () throws(ConfigurationError) in try new.addSecret(Secret(password), to: known(user), allowWeak: allowWeak, tenant: tenant) }
        case .retireSecret(let user, let generation):
            changes = try configured { () throws(ConfigurationError) in try new.retireSecret(generation == .old ? .old : .new, of: known(user), tenant: tenant) }
        case .generateSecret(let user, _):
            guard case .drawn(let secret) = outcome else { preconditionFailure("a secret is drawn before it is anybody's") }
            changes = try configured { () throws(ConfigurationError) in
                let name = try AccountName(user)
                return try new.account(name, tenant: tenant) == nil ? new.newAccount(name, secret: secret, tenant: tenant) : new.addSecret(secret, to: name, tenant: tenant)
            }
        case .bindAccount(let binding):
            let id = try binding.tid.map { tid throws(Refusal) in try target(tid, new).id }
            changes = try configured { () throws(ConfigurationError) in
                try new.bindAccount(known(binding.user), to: id, outgoing: binding.outgoing, for: binding.initiatorName())
            }
        case .unbindAccount(let binding):
            let id = try binding.tid.map { tid throws(Refusal) in try target(tid, new).id }
            changes = try configured { () throws(ConfigurationError) in
                try new.unbindAccount(known(binding.user), from: id, outgoing: binding.outgoing, for: binding.initiatorName())
            }

        case .showSystem, .deleteSystem, .statSystem, .showTargets, .showTarget, .statTarget, .statLogicalUnit, .showPortals,
             .showAccounts, .statSession, .showConnections, .statConnections, .showDrivers, .deleteConnection, .startDriver, .stopDriver,
             .explainAccess, .explainPolicy, .showPenalties, .clearPenalties:
            preconditionFailure("these change nothing")
        }
        return changes
    }

    static func target(_ tid: Int32, _ configuration: Configuration) throws(Refusal) -> TargetConfiguration {
        guard let id = TargetID(rawValue: tid), let target = configuration.targets[id] else { throw Refusal(.noTarget, "there is no target \(tid)") }
        return target
    }

    static func key(_ tid: Int32, _ lun: UInt64) throws(Refusal) -> LogicalUnitKey {
        guard let id = TargetID(rawValue: tid) else { throw Refusal(.noTarget, "there is no target \(tid)") }
        // A number that cannot exist stays one that does not.
        return LogicalUnitKey(target: id, lun: Int(exactly: lun) ?? Int.max)
    }

    /// What has no valid spelling cannot be there: whoever wants to take it away hears that, as from tgt.
    private static func existing<Found>(
        _ kind: ConfigurationError.Kind, _ parse: () throws(ConfigurationError) -> Found
    ) throws(ConfigurationError) -> Found {
        do throws(ConfigurationError) { return try parse() } catch { throw ConfigurationError(kind, error.description) }
    }

    /// The name of an account that should be there.
    private static func known(_ user: [UInt8]) throws(ConfigurationError) -> AccountName {
        try existing(.noSuchAccount) { () throws(ConfigurationError) in try AccountName(user) }
    }

    /// A portal as it is to be.
    private static func updated(_ text: [UInt8], _ settings: [AdminRequest.Setting], _ configuration: Configuration) throws(Refusal) -> Portal {
        try configured { () throws(ConfigurationError) in try configuration.portal(PortalAddress(parsing: text)).with(parameters(settings)) }
    }

    private static func parameters(_ settings: [AdminRequest.Setting]) -> [PortalParameter] {
        settings.map { PortalParameter(name: $0.name, value: $0.value) }
    }

    private static func parameters(_ settings: [AdminRequest.Setting]) -> [LogicalUnitParameter] {
        settings.map { LogicalUnitParameter(name: $0.name, value: $0.value) }
    }
}

/// A logical unit to be made, understood.
private struct NewUnit {
    let key: LogicalUnitKey
    let blockLength: Int
    let store: BackingStore

    init(_ tid: Int32, _ lun: UInt64, _ request: AdminRequest.NewLogicalUnit) throws(Refusal) {
        guard let id = TargetID(rawValue: tid) else { throw Refusal(.noTarget, "there is no target \(tid)") }
        key = LogicalUnitKey(target: id, lun: Int(exactly: lun) ?? Int.max)
        guard request.deviceType == 0 else { throw Refusal(.invalidRequest, "disks are the only device type") }
        if let size = request.blockSize {
            guard let size = Number.literal(size).flatMap(Int.init(exactly:)) else {
                throw Refusal(.invalidRequest, "“\(escaped(size))” is no block size: write 512 or 4096")
            }
            blockLength = size
        } else {
            blockLength = 512
        }
        let name = request.bstype ?? Array("rdwr".utf8)
        guard let kind = BackingStore.Kind.allCases.first(where: { name.elementsEqual($0.rawValue.utf8) }) else {
            throw Refusal(.invalidRequest, "there is no backing store “\(escaped(name))”: write rdwr or null")
        }
        guard request.bsopts?.isEmpty ?? true else { throw Refusal(.invalidRequest, "\(kind) takes no bsopts") }
        let (path, flags) = try configured { () throws(ConfigurationError) in
            let path: StorePath? = if let path = request.path { try StorePath(path) } else { nil }
            let flags: BackingStore.Flags = if let flags = request.bsoflags { try BackingStore.Flags(parsing: flags) } else { [] }
            return (path, flags)
        }
        guard flags.isEmpty || kind == .rdwr else { throw Refusal(.invalidRequest, "\(kind) takes no bsoflags") }
        store = BackingStore(kind: kind, path: path, flags: flags)
    }

    /// The store that has to be opened for it, if any.
    func storeToOpen(_ configuration: Configuration) -> StoreRequest? {
        store.kind == .rdwr && store.path != nil ? configuration.storeRequest(key, store, readOnly: false) : nil
    }
}

extension AdminRequest.AccountBinding {
    fileprivate func initiatorName() throws(ConfigurationError) -> ISCSIName? {
        guard let initiator else { return nil }
        do throws(ISCSIName.NameError) { return try ISCSIName(initiator) } catch {
            throw ConfigurationError(.invalid, "“\(escaped(initiator))” is no initiator name")
        }
    }
}

extension AdminRequest.Initiators {
    func addressRules() throws(ConfigurationError) -> [AddressRule] {
        if let address { [try AddressRule(parsing: address)] } else { [] }
    }
    func nameRules() throws(ConfigurationError) -> [NameRule] {
        if let name { [try NameRule(parsing: name)] } else { [] }
    }
}
