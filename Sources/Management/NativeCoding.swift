import Bytes

/// How reports are written.
public enum OutputFormat: UInt8, Sendable {
    /// tgt's.
    case text = 0
    /// `JSONSchema`.
    case json = 1
}

/// A request of our protocol.
public struct NativeRequest: Hashable, Sendable {
    public enum Content: Hashable, Sendable {
        case single(AdminRequest)
        /// All of them or none.
        case transaction([AdminRequest])
    }

    public var format: OutputFormat
    public var content: Content

    public init(_ content: Content, format: OutputFormat = .text) {
        self.content = content
        self.format = format
    }

    /// The bytes for the socket, or nil if they are too many.
    public func encoded() -> [UInt8]? {
        var writer = ByteWriter()
        writer.write(format.rawValue)
        switch content {
        case .single(let request):
            request.encode(into: &writer)
            return NativeFrame(.request, writer.bytes).encoded(limit: NativeProtocol.greatestRequest)
        case .transaction(let requests):
            guard requests.count <= NativeProtocol.greatestTransaction else { return nil }
            writer.write(requests) { writer, request in request.encode(into: &writer) }
            return NativeFrame(.transaction, writer.bytes).encoded(limit: NativeProtocol.greatestRequest)
        }
    }

    init(_ frame: NativeFrame) throws(NativeWireError) {
        var reader = ByteReader(frame.body)
        do throws(ByteReaderError) {
            format = try reader.enumeration()
            if frame.kind == .transaction {
                content = .transaction(try reader.list(limit: NativeProtocol.greatestTransaction) { reader throws(ByteReaderError) in try AdminRequest(&reader) })
            } else {
                content = .single(try AdminRequest(&reader))
            }
            try reader.end()
        } catch {
            throw .body(error)
        }
    }
}

/// An answer of our protocol.
public struct NativeAnswer: Hashable, Sendable {
    /// A number of `TgtError`, or one that we do not know.
    public var error: UInt32
    /// Of a transaction: which request was refused, counted from 0.
    public var request: UInt32?
    /// For a refusal: one sentence that says what is wrong and what would be right. Bytes from outside are escaped in it.
    public var reason: String
    /// The report.
    public var output: [UInt8]

    public init(_ error: TgtError = .success, request: Int? = nil, reason: String = "", output: [UInt8] = []) {
        self.error = error.rawValue
        self.request = request.map { UInt32($0) }
        self.reason = reason
        self.output = output
    }

    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(error)
        writer.write(request) { $0.write($1) }
        writer.write(Array(reason.utf8.prefix(NativeProtocol.greatestReason)))
        writer.write(output)
        guard output.count <= NativeProtocol.greatestAnswer, let bytes = NativeFrame(.answer, writer.bytes).encoded(limit: .max) else {
            return NativeAnswer(.outOfMemory, reason: "the report is longer than \(NativeProtocol.greatestAnswer) bytes").encoded()
        }
        return bytes
    }

    init(_ frame: NativeFrame) throws(NativeWireError) {
        var reader = ByteReader(frame.body)
        do throws(ByteReaderError) {
            error = try reader.uint32()
            request = try reader.optional { reader throws(ByteReaderError) in try reader.uint32() }
            reason = String(decoding: try reader.byteString(limit: NativeProtocol.greatestReason), as: UTF8.self)
            output = try reader.byteString(limit: NativeProtocol.greatestAnswer)
            try reader.end()
        } catch {
            throw .body(error)
        }
    }
}

extension AdminRequest {
    /// The first byte of an action. Numbers are never used again for something else.
    private enum Code: UInt8 {
        case showSystem = 1, updateSystem, deleteSystem, statSystem
        case newTarget = 10, deleteTarget, showTargets, showTarget, statTarget, updateTarget, bindInitiators, unbindInitiators, bindInitiatorsToLUNs
        case newLogicalUnit = 20, deleteLogicalUnit, statLogicalUnit, updateLogicalUnit
        case newPortal = 30, deletePortal, showPortals, newPortalWithParameters, updatePortal
        case newAccount = 40, deleteAccount, showAccounts, bindAccount, unbindAccount
        case addSecret = 45, retireSecret, generateSecret, bindAccountToInitiator, unbindAccountFromInitiator
        case statSession = 50, showConnections, deleteConnection, statConnections
        case startDriver = 60, stopDriver, showDrivers
        case explainAccess = 70, showPenalties, clearPenalties, explainAccessOverTLS
        case explainPolicy = 75
        /// A tenant's name, and then the action's own first byte.
        case ofTenant = 80
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(lld)
        if let tenant {
            writer.write(Code.ofTenant.rawValue)
            writer.write(tenant)
        }
        func begin(_ code: Code) { writer.write(code.rawValue) }
        func begin(_ code: Code, _ tid: Int32) {
            writer.write(code.rawValue)
            writer.write(tid)
        }
        switch action {
        case .showSystem: begin(.showSystem)
        case .updateSystem(let setting):
            begin(.updateSystem)
            setting.encode(into: &writer)
        case .deleteSystem: begin(.deleteSystem)
        case .statSystem: begin(.statSystem)

        case .newTarget(let tid, let name):
            begin(.newTarget, tid)
            writer.write(name)
        case .deleteTarget(let tid, let force):
            begin(.deleteTarget, tid)
            writer.write(force)
        case .showTargets: begin(.showTargets)
        case .showTarget(let tid): begin(.showTarget, tid)
        case .statTarget(let tid): begin(.statTarget, tid)
        case .updateTarget(let tid, let setting):
            begin(.updateTarget, tid)
            setting.encode(into: &writer)
        case .bindInitiators(let tid, let initiators, let luns):
            begin(luns == nil ? .bindInitiators : .bindInitiatorsToLUNs, tid)
            initiators.encode(into: &writer)
            if let luns { writer.write(luns) }
        case .unbindInitiators(let tid, let initiators):
            begin(.unbindInitiators, tid)
            initiators.encode(into: &writer)

        case .explainAccess(let question):
            begin(question.overTLS ? .explainAccessOverTLS : .explainAccess, question.tid)
            writer.write(question.name)
            writer.write(question.address)
            writer.write(question.user)
        case .explainPolicy(let question):
            begin(.explainPolicy)
            writer.write(question.user)
        case .showPenalties: begin(.showPenalties)
        case .clearPenalties(let address):
            begin(.clearPenalties)
            writer.write(address)

        case .newLogicalUnit(let tid, let lun, let unit):
            begin(.newLogicalUnit, tid)
            writer.write(lun)
            unit.encode(into: &writer)
        case .deleteLogicalUnit(let tid, let lun):
            begin(.deleteLogicalUnit, tid)
            writer.write(lun)
        case .statLogicalUnit(let tid, let lun):
            begin(.statLogicalUnit, tid)
            writer.write(lun)
        case .updateLogicalUnit(let tid, let lun, let settings):
            begin(.updateLogicalUnit, tid)
            writer.write(lun)
            writer.write(settings) { $1.encode(into: &$0) }

        case .newPortal(let portal, let settings):
            begin(settings.isEmpty ? .newPortal : .newPortalWithParameters)
            writer.write(portal)
            if !settings.isEmpty { writer.write(settings) { $1.encode(into: &$0) } }
        case .updatePortal(let portal, let settings):
            begin(.updatePortal)
            writer.write(portal)
            writer.write(settings) { $1.encode(into: &$0) }
        case .deletePortal(let portal):
            begin(.deletePortal)
            writer.write(portal)
        case .showPortals: begin(.showPortals)

        case .newAccount(let user, let password, let allowWeak):
            begin(.newAccount)
            writer.write(user)
            writer.write(password)
            writer.write(allowWeak)
        case .deleteAccount(let user):
            begin(.deleteAccount)
            writer.write(user)
        case .showAccounts: begin(.showAccounts)
        case .addSecret(let user, let password, let allowWeak):
            begin(.addSecret)
            writer.write(user)
            writer.write(password)
            writer.write(allowWeak)
        case .retireSecret(let user, let generation):
            begin(.retireSecret)
            writer.write(user)
            writer.write(generation.rawValue)
        case .generateSecret(let user, let bits):
            begin(.generateSecret)
            writer.write(user)
            writer.write(bits)
        case .bindAccount(let binding):
            begin(binding.initiator == nil ? .bindAccount : .bindAccountToInitiator)
            binding.encode(into: &writer)
        case .unbindAccount(let binding):
            begin(binding.initiator == nil ? .unbindAccount : .unbindAccountFromInitiator)
            binding.encode(into: &writer)

        case .statSession(let tid, let sid):
            begin(.statSession, tid)
            writer.write(sid)
        case .showConnections(let tid): begin(.showConnections, tid)
        case .deleteConnection(let tid, let sid, let cid):
            begin(.deleteConnection, tid)
            writer.write(sid)
            writer.write(cid)
        case .statConnections(let tid, let sid):
            begin(.statConnections, tid)
            writer.write(sid)

        case .startDriver: begin(.startDriver)
        case .stopDriver: begin(.stopDriver)
        case .showDrivers: begin(.showDrivers)
        }
    }

    init(_ reader: inout ByteReader) throws(ByteReaderError) {
        lld = try reader.text()
        var code: Code = try reader.enumeration()
        if code == .ofTenant {
            tenant = try reader.text()
            code = try reader.enumeration()
        }
        switch code {
        case .ofTenant: throw .invalid
        case .showSystem: action = .showSystem
        case .updateSystem: action = .updateSystem(try Setting(&reader))
        case .deleteSystem: action = .deleteSystem
        case .statSystem: action = .statSystem

        case .newTarget: action = .newTarget(tid: try reader.int32(), name: try reader.text())
        case .deleteTarget: action = .deleteTarget(tid: try reader.int32(), force: try reader.bool())
        case .showTargets: action = .showTargets
        case .showTarget: action = .showTarget(tid: try reader.int32())
        case .statTarget: action = .statTarget(tid: try reader.int32())
        case .updateTarget: action = .updateTarget(tid: try reader.int32(), try Setting(&reader))
        case .bindInitiators: action = .bindInitiators(tid: try reader.int32(), try Initiators(&reader))
        case .bindInitiatorsToLUNs: action = .bindInitiators(tid: try reader.int32(), try Initiators(&reader), luns: try reader.text())
        case .unbindInitiators: action = .unbindInitiators(tid: try reader.int32(), try Initiators(&reader))

        case .explainAccess, .explainAccessOverTLS:
            action = .explainAccess(AdminRequest.AccessQuestion(
                tid: try reader.int32(), name: try reader.text(), address: try reader.text(), user: try reader.optionalText(),
                overTLS: code == .explainAccessOverTLS))
        case .explainPolicy: action = .explainPolicy(PolicyQuestion(user: try reader.optionalText()))
        case .showPenalties: action = .showPenalties
        case .clearPenalties: action = .clearPenalties(address: try reader.text())

        case .newLogicalUnit: action = .newLogicalUnit(tid: try reader.int32(), lun: try reader.uint64(), try NewLogicalUnit(&reader))
        case .deleteLogicalUnit: action = .deleteLogicalUnit(tid: try reader.int32(), lun: try reader.uint64())
        case .statLogicalUnit: action = .statLogicalUnit(tid: try reader.int32(), lun: try reader.uint64())
        case .updateLogicalUnit:
            action = .updateLogicalUnit(tid: try reader.int32(), lun: try reader.uint64(), try reader.settings())

        case .newPortal: action = .newPortal(try reader.text())
        case .newPortalWithParameters: action = .newPortal(try reader.text(), try reader.settings())
        case .updatePortal: action = .updatePortal(try reader.text(), try reader.settings())
        case .deletePortal: action = .deletePortal(try reader.text())
        case .showPortals: action = .showPortals

        case .newAccount: action = .newAccount(user: try reader.text(), password: try reader.text(), allowWeak: try reader.bool())
        case .deleteAccount: action = .deleteAccount(user: try reader.text())
        case .showAccounts: action = .showAccounts
        case .bindAccount: action = .bindAccount(try AccountBinding(&reader))
        case .unbindAccount: action = .unbindAccount(try AccountBinding(&reader))
        case .bindAccountToInitiator: action = .bindAccount(try AccountBinding(&reader, forInitiator: true))
        case .unbindAccountFromInitiator: action = .unbindAccount(try AccountBinding(&reader, forInitiator: true))
        case .addSecret: action = .addSecret(user: try reader.text(), password: try reader.text(), allowWeak: try reader.bool())
        case .retireSecret: action = .retireSecret(user: try reader.text(), try reader.enumeration())
        case .generateSecret: action = .generateSecret(user: try reader.text(), bits: try reader.uint32())

        case .statSession: action = .statSession(tid: try reader.int32(), sid: try reader.uint64())
        case .showConnections: action = .showConnections(tid: try reader.int32())
        case .deleteConnection: action = .deleteConnection(tid: try reader.int32(), sid: try reader.uint64(), cid: try reader.uint32())
        case .statConnections: action = .statConnections(tid: try reader.int32(), sid: try reader.uint64())

        case .startDriver: action = .startDriver
        case .stopDriver: action = .stopDriver
        case .showDrivers: action = .showDrivers
        }
    }
}

extension ByteReader {
    /// A text of a request.
    fileprivate mutating func text() throws(ByteReaderError) -> [UInt8] { try byteString(limit: NativeProtocol.greatestText) }
    fileprivate mutating func optionalText() throws(ByteReaderError) -> [UInt8]? {
        try optional { reader throws(ByteReaderError) in try reader.text() }
    }
    fileprivate mutating func settings() throws(ByteReaderError) -> [AdminRequest.Setting] {
        try list(limit: NativeProtocol.greatestSettings) { reader throws(ByteReaderError) in try AdminRequest.Setting(&reader) }
    }
}

extension ByteWriter {
    fileprivate mutating func write(_ text: [UInt8]?) { write(text) { $0.write($1) } }
}

extension AdminRequest.Setting {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(name)
        writer.write(value)
    }
    fileprivate init(_ reader: inout ByteReader) throws(ByteReaderError) {
        name = try reader.text()
        value = try reader.text()
    }
}

extension AdminRequest.Initiators {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(address)
        writer.write(name)
    }
    /// One rule at least.
    fileprivate init(_ reader: inout ByteReader) throws(ByteReaderError) {
        address = try reader.optionalText()
        name = try reader.optionalText()
        guard address != nil || name != nil else { throw .invalid }
    }
}

extension AdminRequest.NewLogicalUnit {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(deviceType)
        for text in [path, bstype, bsopts, bsoflags, blockSize] { writer.write(text) }
    }
    fileprivate init(_ reader: inout ByteReader) throws(ByteReaderError) {
        self.init()
        deviceType = try reader.uint32()
        path = try reader.optionalText()
        bstype = try reader.optionalText()
        bsopts = try reader.optionalText()
        bsoflags = try reader.optionalText()
        blockSize = try reader.optionalText()
    }
}

extension AdminRequest.AccountBinding {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(user)
        writer.write(tid) { $0.write($1) }
        writer.write(outgoing)
        if let initiator { writer.write(initiator) }
    }
    fileprivate init(_ reader: inout ByteReader, forInitiator: Bool = false) throws(ByteReaderError) {
        user = try reader.text()
        tid = try reader.optional { reader throws(ByteReaderError) in try reader.int32() }
        outgoing = try reader.bool()
        initiator = forInitiator ? try reader.text() : nil
    }
}
