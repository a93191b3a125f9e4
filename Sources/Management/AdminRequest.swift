import Bytes

/// What an administrator asks for, as the daemon understands it.
///
/// Names and values are bytes as they came: whoever uses them checks them. Numbers are as wide as on the wire.
public struct AdminRequest: Hashable, Sendable {
    /// Name of the low-level driver; empty: not said.
    public var lld: [UInt8]
    /// Whose account it is about, for requests that name no target; nil: not said.
    public var tenant: [UInt8]?
    public var action: Action

    public init(lld: [UInt8] = [], tenant: [UInt8]? = nil, _ action: Action) {
        self.lld = lld
        self.tenant = tenant
        self.action = action
    }

    public enum Action: Hashable, Sendable {
        case showSystem
        case updateSystem(Setting)
        case deleteSystem
        case statSystem

        case newTarget(tid: Int32, name: [UInt8])
        case deleteTarget(tid: Int32, force: Bool)
        case showTargets
        case showTarget(tid: Int32)
        case statTarget(tid: Int32)
        case updateTarget(tid: Int32, Setting)
        /// - Parameter luns: which logical units they show; nil: all of them
        case bindInitiators(tid: Int32, Initiators, luns: [UInt8]? = nil)
        case unbindInitiators(tid: Int32, Initiators)
        case explainAccess(AccessQuestion)
        /// Who may do what, and by which rule?
        case explainPolicy(PolicyQuestion)
        /// Which sources have to wait after failures to log in.
        case showPenalties
        /// Forgets what sources have failed in.
        /// - Parameter address: theirs, a network of them, or `ALL`
        case clearPenalties(address: [UInt8])

        case newLogicalUnit(tid: Int32, lun: UInt64, NewLogicalUnit)
        case deleteLogicalUnit(tid: Int32, lun: UInt64)
        case statLogicalUnit(tid: Int32, lun: UInt64)
        case updateLogicalUnit(tid: Int32, lun: UInt64, [Setting])

        case newPortal([UInt8], [Setting] = [])
        case updatePortal([UInt8], [Setting])
        case deletePortal([UInt8])
        case showPortals

        /// - Parameter allowWeak: whether the secret may have less than 96 bits
        case newAccount(user: [UInt8], password: [UInt8], allowWeak: Bool)
        case deleteAccount(user: [UInt8])
        case showAccounts
        /// - Parameter allowWeak: whether the secret may have less than 96 bits
        case addSecret(user: [UInt8], password: [UInt8], allowWeak: Bool)
        case retireSecret(user: [UInt8], SecretGeneration)
        /// Draws a secret for an account, new or there already, and shows it.
        case generateSecret(user: [UInt8], bits: UInt32)
        case bindAccount(AccountBinding)
        case unbindAccount(AccountBinding)

        case statSession(tid: Int32, sid: UInt64)
        case showConnections(tid: Int32)
        case deleteConnection(tid: Int32, sid: UInt64, cid: UInt32)
        case statConnections(tid: Int32, sid: UInt64)

        case startDriver
        case stopDriver
        case showDrivers
    }

    /// `name=value`.
    public struct Setting: Hashable, Sendable {
        public var name: [UInt8]
        public var value: [UInt8]
        public init(name: [UInt8], value: [UInt8]) {
            self.name = name
            self.value = value
        }
    }

    /// An address rule, a name rule, or both.
    public struct Initiators: Hashable, Sendable {
        public var address: [UInt8]?
        public var name: [UInt8]?
        public init(address: [UInt8]? = nil, name: [UInt8]? = nil) {
            self.address = address
            self.name = name
        }
    }

    /// Would somebody be let in?
    public struct AccessQuestion: Hashable, Sendable {
        public var tid: Int32
        /// The initiator's.
        public var name: [UInt8]
        public var address: [UInt8]
        /// The account it has authenticated with; nil: none.
        public var user: [UInt8]?
        /// Whether it comes through TLS, and as what it says.
        public var overTLS: Bool
        public init(tid: Int32, name: [UInt8], address: [UInt8], user: [UInt8]? = nil, overTLS: Bool = false) {
            self.overTLS = overTLS
            self.tid = tid
            self.name = name
            self.address = address
            self.user = user
        }
    }

    /// Who may do what?
    public struct PolicyQuestion: Hashable, Sendable {
        /// A user of this host, by name or number; nil: who asks.
        public var user: [UInt8]?
        public init(user: [UInt8]? = nil) { self.user = user }
    }

    public struct NewLogicalUnit: Hashable, Sendable {
        public var deviceType: UInt32 = 0
        public var path: [UInt8]?
        public var bstype: [UInt8]?
        public var bsopts: [UInt8]?
        public var bsoflags: [UInt8]?
        public var blockSize: [UInt8]?
        public init() {}
    }

    /// Which of an account's two secrets.
    public enum SecretGeneration: UInt8, Sendable { case old = 0, new = 1 }

    public struct AccountBinding: Hashable, Sendable {
        public var user: [UInt8]
        /// The one that it is for; nil: all.
        public var initiator: [UInt8]?
        /// nil: discovery.
        public var tid: Int32?
        public var outgoing: Bool
        public init(user: [UInt8], tid: Int32?, outgoing: Bool, initiator: [UInt8]? = nil) {
            self.user = user
            self.initiator = initiator
            self.tid = tid
            self.outgoing = outgoing
        }
    }

    /// Whether the answer shows or depends on what the data process knows: conditions of logical units, statistics, and which
    /// sessions there are at this moment. Whoever has seen a connection end sees it gone.
    public var needsRuntimeView: Bool {
        switch action {
        case .statSystem, .showTargets, .statTarget, .statLogicalUnit, .statSession, .statConnections, .showConnections, .deleteConnection: true
        // By force it goes whatever it has.
        case .deleteTarget(_, let force): !force
        // A medium that an initiator has locked cannot be changed.
        case .updateLogicalUnit(_, _, let settings): settings.contains { $0.name.elementsEqual("path".utf8) }
        default: false
        }
    }
}

extension AdminRequest {
    /// Understands a request of tgt's protocol.
    /// - Throws: `.invalidRequest` for a combination that does not exist and for text that is not as it must be.
    public init(_ request: TgtRequest) throws(TgtError) {
        let text = TgtText(request.payload)
        lld = request.lld
        switch (request.mode, request.operation) {
        case (.system, .show): action = .showSystem
        case (.system, .update): action = .updateSystem(try text.setting())
        case (.system, .delete): action = .deleteSystem
        case (.system, .stat): action = .statSystem

        case (.target, .new): action = .newTarget(tid: request.tid, name: try text.items(["targetname"]).required("targetname"))
        case (.target, .delete): action = .deleteTarget(tid: request.tid, force: request.force)
        case (.target, .show): action = request.tid == -1 ? .showTargets : .showTarget(tid: request.tid)
        case (.target, .stat): action = .statTarget(tid: request.tid)
        case (.target, .update): action = .updateTarget(tid: request.tid, try text.setting())
        case (.target, .bind): action = .bindInitiators(tid: request.tid, try text.initiators())
        case (.target, .unbind): action = .unbindInitiators(tid: request.tid, try text.initiators())

        case (.logicalUnit, .new):
            action = .newLogicalUnit(tid: request.tid, lun: request.lun, try text.newLogicalUnit(deviceType: request.deviceType))
        case (.logicalUnit, .delete): action = .deleteLogicalUnit(tid: request.tid, lun: request.lun)
        case (.logicalUnit, .stat): action = .statLogicalUnit(tid: request.tid, lun: request.lun)
        case (.logicalUnit, .update): action = .updateLogicalUnit(tid: request.tid, lun: request.lun, try text.operations("targetOps "))

        case (.portal, .new): action = .newPortal(try text.portal())
        case (.portal, .delete): action = .deletePortal(try text.portal())
        case (.portal, .show): action = .showPortals

        case (.account, .new):
            let items = try text.items(["user", "password"], lastTakesRest: true)
            // tgt's header has a flag for force, which tgt does not look at here.
            action = .newAccount(user: try items.required("user"), password: try items.required("password"), allowWeak: request.force)
        case (.account, .delete): action = .deleteAccount(user: try text.items(["user"]).required("user"))
        case (.account, .show): action = .showAccounts
        case (.account, .bind): action = .bindAccount(try text.accountBinding(request))
        case (.account, .unbind): action = .unbindAccount(try text.accountBinding(request))

        case (.session, .stat): action = .statSession(tid: request.tid, sid: request.sid)
        case (.connection, .show): action = .showConnections(tid: request.tid)
        case (.connection, .delete): action = .deleteConnection(tid: request.tid, sid: request.sid, cid: request.cid)
        case (.connection, .stat): action = .statConnections(tid: request.tid, sid: request.sid)

        case (.lld, .start): action = .startDriver
        case (.lld, .stop): action = .stopDriver
        case (.lld, .show): action = .showDrivers

        default: throw .invalidRequest
        }
    }
}

/// The text of a request: items joined by commas, in a fixed order.
struct TgtText {
    private let bytes: [UInt8]
    private static let comma = UInt8(ascii: ",")
    private static let equals = UInt8(ascii: "=")

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Items by name.
    struct Items {
        fileprivate var values: [String: [UInt8]] = [:]
        subscript(name: String) -> [UInt8]? { values[name] }
        func required(_ name: String) throws(TgtError) -> [UInt8] {
            guard let value = values[name] else { throw .invalidRequest }
            return value
        }
    }

    /// The items of the whole text. Each is one of `names`, and they are in that order: so a comma inside a value can at most
    /// make the request invalid.
    /// - Parameter lastTakesRest: the last of `names` may have commas in its value.
    func items(_ names: [String], lastTakesRest: Bool = false) throws(TgtError) -> Items {
        var items = Items()
        var position = 0
        var rest = bytes[...]
        while !rest.isEmpty {
            guard let index = names[position...].firstIndex(where: { rest.starts(with: Array(($0 + "=").utf8)) }) else { throw .invalidRequest }
            position = index + 1
            let value = rest.dropFirst(names[index].utf8.count + 1)
            let end = lastTakesRest && position == names.count ? value.endIndex : value.firstIndex(of: Self.comma) ?? value.endIndex
            items.values[names[index]] = Array(value[..<end])
            rest = value[end...].dropFirst()
        }
        return items
    }

    /// The whole text as one `name=value`; the value may have commas.
    func setting() throws(TgtError) -> AdminRequest.Setting {
        guard let setting = Self.setting(bytes[...]) else { throw .invalidRequest }
        return setting
    }

    func initiators() throws(TgtError) -> AdminRequest.Initiators {
        let items = try items(["initiator-address", "initiator-name"])
        let initiators = AdminRequest.Initiators(address: items["initiator-address"], name: items["initiator-name"])
        guard initiators.address != nil || initiators.name != nil else { throw .invalidRequest }
        return initiators
    }

    func newLogicalUnit(deviceType: UInt32) throws(TgtError) -> AdminRequest.NewLogicalUnit {
        let items = try items(["path", "bstype", "bsopts", "bsoflags", "blocksize"])
        var unit = AdminRequest.NewLogicalUnit()
        unit.deviceType = deviceType
        unit.path = items["path"]
        unit.bstype = items["bstype"]
        unit.bsopts = items["bsopts"]
        unit.bsoflags = items["bsoflags"]
        unit.blockSize = items["blocksize"]
        return unit
    }

    func accountBinding(_ request: TgtRequest) throws(TgtError) -> AdminRequest.AccountBinding {
        AdminRequest.AccountBinding(
            user: try items(["user"]).required("user"), tid: request.tid == -1 ? nil : request.tid,
            outgoing: request.accountDirection == .outgoing)
    }

    /// `<prefix>name=value,name=value,`: behind what `--params` gave, tgtadm puts a comma. Empty items are passed over, and no
    /// text at all is no settings.
    func operations(_ prefix: String) throws(TgtError) -> [AdminRequest.Setting] {
        var rest = bytes[...]
        guard !rest.isEmpty else { return [] }
        // tgtadm sends the options of `new` along if they are given with `update`; tgt passes over them.
        while !rest.starts(with: Array(prefix.utf8)) {
            guard let comma = rest.firstIndex(of: Self.comma) else { throw .invalidRequest }
            rest = rest[(comma + 1)...]
        }
        var settings: [AdminRequest.Setting] = []
        for item in rest.dropFirst(prefix.utf8.count).split(separator: Self.comma) {
            guard let setting = Self.setting(item) else { throw .invalidRequest }
            settings.append(setting)
        }
        return settings
    }

    func portal() throws(TgtError) -> [UInt8] {
        let settings = try operations("portalOps ")
        guard settings.count == 1, settings[0].name.elementsEqual("portal".utf8) else { throw .invalidRequest }
        return settings[0].value
    }

    private static func setting(_ item: ArraySlice<UInt8>) -> AdminRequest.Setting? {
        guard let split = item.firstIndex(of: equals), split > item.startIndex else { return nil }
        return AdminRequest.Setting(name: Array(item[..<split]), value: Array(item[(split + 1)...]))
    }
}
