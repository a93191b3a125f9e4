import Bytes
import HashTreeCollections
import ISCSI

/// Whether new logins are taken.
public enum ServiceState: String, Sendable {
    case offline, ready

    init(parsing text: [UInt8]) throws(ConfigurationError) {
        guard let state = [Self.offline, .ready].first(where: { text.elementsEqual($0.rawValue.utf8) }) else {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is no state: write offline or ready")
        }
        self = state
    }
}

/// A target as the administrator wants it.
public struct TargetConfiguration: Hashable, Sendable {
    public let id: TargetID
    public let tenant: Tenant
    public let name: ISCSIName
    public internal(set) var state = ServiceState.ready
    public internal(set) var parameters = SessionParameters()
    /// Seconds between two NOP-In of ours; 0: none.
    public internal(set) var nopInterval: Int
    /// Unanswered ones before the connection is given up.
    public internal(set) var nopCount: Int
    /// By LUN; 0 is the controller. A tree: a configuration and the one before it share what they have in common, so that a change of one among
    /// thousands costs no copy of them all.
    public internal(set) var logicalUnits: TreeDictionary<Int, LogicalUnitConfiguration>
    /// In the order of binding, each admitting rule once. No rule at all admits nobody.
    public internal(set) var addressRules: [AddressRule] = []
    public internal(set) var nameRules: [NameRule] = []
    public internal(set) var accounts = AccountBindings()
    /// Whether initiators have to let the target prove itself (`RequireMutualCHAP`).
    public internal(set) var requiresMutualCHAP = false
    /// Whether it is there only for those who come through TLS (`RequireTLS`).
    public internal(set) var requiresTLS = false

    /// The logical units in the order of their numbers.
    public var sortedLogicalUnits: [LogicalUnitConfiguration] { logicalUnits.values.sorted { $0.key < $1.key } }

    init(id: TargetID, tenant: Tenant, name: ISCSIName, nop: NopDefaults) {
        self.id = id
        self.tenant = tenant
        self.name = name
        nopInterval = nop.interval
        nopCount = nop.count
        logicalUnits = [0: LogicalUnitConfiguration(controllerOf: id)]
    }

    /// `--op update --mode target --name … --value …`: an iSCSI key, `state`, `nop_interval`, `nop_count`, `RequireMutualCHAP` or
    /// `RequireTLS`.
    mutating func update(name: [UInt8], value: [UInt8]) throws(ConfigurationError) -> Change {
        switch name {
        case Array("state".utf8):
            state = try ServiceState(parsing: value)
            return .targetStateChanged(id)
        case Array("RequireMutualCHAP".utf8):
            requiresMutualCHAP = try Self.isRequired(name, value)
            return .rulesChanged(id)
        case Array("RequireTLS".utf8):
            requiresTLS = try Self.isRequired(name, value)
            return .rulesChanged(id)
        case Array("nop_interval".utf8):
            nopInterval = try Self.number(value, atMost: Limits.nopInterval)
        case Array("nop_count".utf8):
            nopCount = try Self.number(value, atMost: Limits.nopCount)
        default:
            try setKey(name, value)
        }
        return .parametersChanged(id)
    }

    private static func isRequired(_ name: [UInt8], _ value: [UInt8]) throws(ConfigurationError) -> Bool {
        guard let isRequired = [Array("Yes".utf8): true, Array("No".utf8): false][value] else {
            throw ConfigurationError(.invalid, "\(escaped(name))=\(escaped(value)): write Yes or No")
        }
        return isRequired
    }

    private mutating func setKey(_ name: [UInt8], _ value: [UInt8]) throws(ConfigurationError) {
        let changed: SessionParameters
        do throws(SessionParameters.ParameterError) {
            var parameters = parameters
            try parameters.set(name: name, value: value)
            changed = parameters
        } catch {
            // What is no key of ours may have been meant for something else: its value is nobody's business.
            let reason = error == .unknownKey ? ": there is no such key" : "=\(escaped(value)): the value is malformed or out of range"
            throw ConfigurationError(.invalid, "\(escaped(name))\(reason)")
        }
        guard changed.maxConnections == 1, changed.errorRecoveryLevel == 0 else {
            throw ConfigurationError(.invalid, "\(escaped(name))=\(escaped(value)): MaxConnections is 1 and ErrorRecoveryLevel 0 here")
        }
        parameters = changed
    }

    private static func number(_ text: [UInt8], atMost limit: Int) throws(ConfigurationError) -> Int {
        guard let number = Number.decimal(text).flatMap(Int.init(exactly:)), number <= limit else {
            throw ConfigurationError(.invalid, "“\(escaped(text))” is out of range: write 0 to \(limit)")
        }
        return number
    }
}

/// What new targets start with (`tgtd --iscsi nop_interval=…,nop_count=…`).
public struct NopDefaults: Hashable, Sendable {
    /// Seconds; 0: no NOP-In.
    public var interval: Int
    public var count: Int
    public init(interval: Int = 0, count: Int = 0) {
        self.interval = interval
        self.count = count
    }
}
