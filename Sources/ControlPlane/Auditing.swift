import Access
import Administration
import Audit
import AuditLog
import Bytes
import Crypto
import Door
import ISCSI
import Logging
import Management
import Model
import Reactor

/// How the audit is kept, as the settings say.
public struct AuditSettings: Sendable, Equatable {
    /// nil: `audit` in the state directory.
    public var directory: String?
    /// What happens while the trail of the management cannot be written.
    public var onFailure = OnFailure.refuseChanges
    /// Bytes of a file of that trail, after which the next one begins.
    public var fileSize = AuditOptions().management.fileLength
    /// Bytes that all files of the network's trail may take.
    public var networkQuota = AuditOptions().network.fileLength * AuditOptions.networkFiles
    /// Every record goes to syslog, or the journal behind it, too.
    public var copiesToSystemLog = false

    public enum OnFailure: String, CaseIterable, Sendable {
        case refuseChanges = "refuse-changes"
        case goOn = "continue"
    }

    static let fileSizes = 64 << 10...1 << 30
    static let networkQuotas = 512 << 10...1 << 40

    fileprivate var options: AuditOptions {
        var options = AuditOptions()
        options.management.refusesChanges = onFailure == .refuseChanges
        options.management.fileLength = fileSize
        options.network.fileLength = networkQuota / AuditOptions.networkFiles
        // What is reserved behind the last record counts, too.
        options.network.reserve = min(options.network.reserve, options.network.fileLength / 16)
        options.network.fileLength -= options.network.reserve * 2
        if copiesToSystemLog { options.copy = AuditOptions.systemLog }
        return options
    }
}

/// How much of what is refused is written down.
enum RefusedLimits {
    /// Bytes of the arguments of one request, and of those of one user in a window: beyond, requests are known by what they are, how much was said, and a code.
    static let arguments = 64 << 10
    static let perUser = 256 << 10
    /// Nanoseconds.
    static let window: UInt64 = 60_000_000_000
    /// Users who are told apart.
    static let users = 1024
}

/// Bytes that each user may cause in a window of time.
struct UserQuota {
    private var windows: [UInt32: (start: UInt64, bytes: Int)] = [:]

    /// - Returns: how many are left
    func left(of uid: UInt32, at now: UInt64) -> Int {
        guard let window = windows[uid], now - window.start < RefusedLimits.window else { return RefusedLimits.perUser }
        return max(0, RefusedLimits.perUser - window.bytes)
    }

    mutating func take(_ bytes: Int, of uid: UInt32, at now: UInt64) {
        if windows.count >= RefusedLimits.users { windows = windows.filter { now - $0.value.start < RefusedLimits.window } }
        var window = (start: now, bytes: 0)
        if let open = windows[uid], now - open.start < RefusedLimits.window { window = open }
        window.bytes += bytes
        if windows[uid] != nil || windows.count < RefusedLimits.users { windows[uid] = window }
    }
}

/// Something that is asked for, as the trail has it.
struct Asked {
    let actor: Actor
    let actions: [Action]
    let isTransaction: Bool
    /// Whether it does more than look.
    let changesSomething: Bool
    /// When it came, by the loop's clock.
    let started: UInt64
}

/// Writes down what administrators ask for and what comes of it, and what concerns security. Changes wait for the medium, looks do not.
final class RequestAudit {
    private let loop: EventLoop
    /// nil: nothing is kept, so there is no place for a trail.
    private let auditor: Auditor?
    private let directory: String
    private let refusesChanges: Bool
    private var refusedBytes = UserQuota()

    /// One that writes nothing.
    init(loop: EventLoop) {
        self.loop = loop
        (auditor, directory, refusesChanges) = (nil, "", false)
    }

    /// - Parameter state: where the key is, under which the trails' keys are sealed; nil: nothing is kept
    init(_ settings: AuditSettings, _ state: StateDirectory?, loop: EventLoop, log: Logger) throws {
        self.loop = loop
        refusesChanges = settings.onFailure == .refuseChanges
        guard let state else {
            if let directory = settings.directory { throw StartError("audit.directory is \(directory), but without a state directory there is no key for an audit trail") }
            log.notice("no audit trail is kept: there is no state directory")
            (auditor, directory) = (nil, "")
            return
        }
        if settings.copiesToSystemLog { Console.openSystemLog() }
        directory = settings.directory ?? state.path + "/audit"
        let key = HMAC.derive(Array("audit trails".utf8), from: state.key)
        auditor = try Auditor(loop: loop, AuditDirectory(writing: directory), settings.options, sealingKey: key, log: log)
    }

    /// Something that concerns security; nobody waits for it.
    /// - Parameters: as those of `SecurityEvent`. Those that are put together by whoever calls are only if the event is kept: what comes too
    ///   often is not
    func event(
        _ kind: SecurityEvent.Kind, source: @autoclosure () -> String? = nil, _ decision: Decision? = nil, reason: @autoclosure () -> String? = nil,
        tenant: String? = nil, user: @autoclosure () -> String? = nil, initiator: String? = nil, target: @autoclosure () -> String? = nil,
        details: @autoclosure () -> KeyValuePairs<String, String> = [:]
    ) {
        auditor?.event(kind, source: source()) { source in
            SecurityEvent(
                kind, source: source, decision, reason: reason(), tenant: tenant, user: user(), initiator: initiator, target: target(),
                details: details().map { Action.Argument($0.key, $0.value) })
        }
    }

    /// Writes what there is and ends the thread.
    func end(_ whenDone: @escaping () -> Void) { if let auditor { auditor.end(whenDone) } else { whenDone() } }

    /// Why nothing is changed at the moment.
    var hindrance: String? { refusesChanges ? auditor?.trouble.map { "the audit trail cannot be written: \($0)" } : nil }

    /// For `show`.
    var condition: RuntimeView.Audit? {
        auditor.map { RuntimeView.Audit(directory: directory, trouble: $0.trouble, networkTrouble: $0.networkTrouble) }
    }

    // MARK: Requests

    /// - Parameter started: when it came, by the loop's clock
    func asked(_ requests: [AdminRequest], isTransaction: Bool, by actor: Actor, at started: UInt64) -> Asked {
        let actions = auditor.map { auditor in
            requests.map { Action($0.permission, $0.arguments(auditor.secretCode)) }
        }
        let changesSomething = isTransaction || requests.contains { $0.permission.changesSomething }
        return Asked(actor: actor, actions: actions ?? [], isTransaction: isTransaction, changesSomething: changesSomething, started: started)
    }

    /// Requests that are not carried out: their answer waits until that is written down. Of whoever may ask nothing stands there what he wanted and how
    /// much he said, and nothing that he has said; of others as much as is short.
    /// - Parameter reason: the exact one
    func refused(_ requests: [AdminRequest], isTransaction: Bool, by actor: Actor, isStranger: Bool, _ reason: String?, _ answer: Answer, _ reply: @escaping (Answer) -> Void) {
        guard let auditor else { return reply(answer) }
        let content: NativeRequest.Content = if !isTransaction, let only = requests.first { .single(only) } else { .transaction(requests) }
        func gist() -> Gist {
            let bytes = NativeRequest(content).encoded() ?? []
            return Gist(requests: requests.count, bytes: bytes.count, code: auditor.secretCode.text(of: Secret(bytes)))
        }
        let names = isTransaction ? [] : requests.map { Action($0.permission) }
        guard !isStranger else {
            return auditor.refusal(Attempt(actor, names, isTransaction: isTransaction, .refused, reason: reason, gist: gist()), of: actor.source) { _ in reply(answer) }
        }
        var room = min(RefusedLimits.arguments, refusedBytes.left(of: actor.uid, at: loop.now))
        let least = room
        var actions: [Action] = []
        for request in requests {
            let action = Action(request.permission, request.arguments(auditor.secretCode))
            guard action.weight <= room else { break }
            room -= action.weight
            actions.append(action)
        }
        refusedBytes.take(least - room, of: actor.uid, at: loop.now)
        let isWhole = actions.count == requests.count
        let attempt = Attempt(actor, isWhole || isTransaction ? actions : names, isTransaction: isTransaction, .refused, reason: reason, gist: isWhole ? nil : gist())
        auditor.attempt(attempt) { _ in reply(answer) }
    }

    /// A request that is not read, for who sends it may ask nothing.
    func refused(_ announcement: NativeAnnouncement, by actor: Actor, _ reason: String?, _ answer: Answer, _ reply: @escaping (Answer) -> Void) {
        guard let auditor else { return reply(answer) }
        let actions = announcement.isTransaction ? [] : [Action(mode: "unread", operation: "request")]
        let attempt = Attempt(actor, actions, isTransaction: announcement.isTransaction, .refused, reason: reason, gist: Gist(bytes: announcement.bytes))
        auditor.refusal(attempt, of: actor.source) { _ in reply(answer) }
    }

    /// One of tgt's protocol that says nothing which could be understood.
    func refused(_ request: TgtRequest, by actor: Actor, isStranger: Bool, _ reason: String?, _ answer: Answer, _ reply: @escaping (Answer) -> Void) {
        guard let auditor else { return reply(answer) }
        let (mode, operation) = ("\(request.mode)".lowercased(), "\(request.operation)")
        func gist() -> Gist {
            let bytes = request.encoded() ?? []
            return Gist(requests: 1, bytes: bytes.count, code: auditor.secretCode.text(of: Secret(bytes)))
        }
        if isStranger {
            auditor.refusal(Attempt(actor, [Action(mode: mode, operation: operation)], .refused, reason: reason, gist: gist()), of: actor.source) { _ in reply(answer) }
        } else {
            let action = Action(mode: mode, operation: operation, arguments: request.arguments(auditor.secretCode))
            auditor.attempt(Attempt(actor, [action], .refused, reason: reason)) { _ in reply(answer) }
        }
    }

    /// Bytes that are no request, or none yet: nobody waits for that.
    func unreadable(by peer: ConnectedPeer, _ reason: String) {
        let actor = Actor(peer, AdministratorIdentity(peer: Peer(uid: peer.credentials.uid)))
        let attempt = Attempt(actor, [Action(mode: "unreadable", operation: "request")], .refused, reason: reason)
        auditor?.refusal(attempt, of: actor.source) { _ in }
    }

    /// A request that is carried out: if it changes something, when it has been written down; and its answer when what became of it has been.
    /// - Parameter rules: what allows it
    func carryOut(_ asked: Asked, _ rules: String, _ reply: @escaping (Answer) -> Void, _ body: @escaping (@escaping (Answer) -> Void) -> Void) {
        guard let auditor else { return body(reply) }
        guard asked.changesSomething else {
            return body { [self] answer in
                auditor.look(outcome(of: nil, asked, answer))
                reply(answer)
            }
        }
        auditor.attempt(Attempt(asked.actor, asked.actions, isTransaction: asked.isTransaction, .allowed, reason: rules)) { [self] kept in
            let number: UInt64?
            switch kept {
            case .recorded(let recorded): number = recorded
            case .unrecorded: number = nil
            case .refused(let reason): return reply(.refusal(.unknown, "nothing is changed, for the audit trail cannot be written: \(reason)"))
            }
            body { [self] answer in auditor.outcome(outcome(of: number, asked, answer)) { _ in reply(answer) } }
        }
    }

    private func outcome(of number: UInt64?, _ asked: Asked, _ answer: Answer) -> Outcome {
        let result: Outcome.Result =
            switch (answer.reason, answer.changes.isEmpty) {
            case (nil, _): .success
            case (let reason?, true): .refused(number: Int(answer.response.error), reason)
            case (let reason?, false): .incomplete(reason)
            }
        return Outcome(
            of: number, asked.actor, asked.actions, isTransaction: asked.isTransaction, result, changes: answer.changes,
            microseconds: Int((loop.now - asked.started) / 1000))
    }
}

extension Permission {
    /// Whether it does more than look.
    var changesSomething: Bool { ![.show, .stat, .explain].contains(operation) }
}

extension Action {
    fileprivate init(_ permission: Permission, _ arguments: [Argument] = []) {
        self.init(mode: permission.mode.rawValue, operation: permission.operation.rawValue, arguments: arguments)
    }
}

extension Actor {
    /// As whose it is counted.
    fileprivate var source: String { "uid \(uid)" }

    /// Bytes of an executable's name: whoever runs it may have chosen it.
    private static let greatestName = 512

    init(_ asker: Asker, _ identity: AdministratorIdentity) { self.init(asker.peer, identity) }

    init(_ peer: ConnectedPeer, _ identity: AdministratorIdentity) {
        let credentials = peer.credentials
        var how = identity.proof.rawValue
        if let verdict = identity.verdict, !verdict.isGranted { how = "PAM \(verdict.step): \(verdict.code)" }
        self.init(
            uid: credentials.uid, gid: credentials.gid, pid: credentials.pid, executable: peer.executable.map { String(decoding: $0.utf8.prefix(Self.greatestName), as: UTF8.self) },
            user: identity.peer.user.map { String(decoding: $0, as: UTF8.self) }, authentication: how,
            role: identity.grants.isEmpty ? nil : Set(identity.grants.map(\.role.name)).sorted().joined(separator: ", "),
            tenant: identity.reach.flatMap { if case .tenants(let tenants) = $0 { tenants.map(\.name).sorted().joined(separator: ", ") } else { nil } })
    }

    static var ourselves: Actor {
        let identity = Identity.current
        return Actor(uid: identity.uid, gid: identity.gid, pid: Host.processID, authentication: "tgtd")
    }
}

private typealias AuditedArgument = Audit.Action.Argument

extension Audit.Action.Argument {
    /// As it was said. What is no UTF-8 is escaped.
    fileprivate init(_ name: String, said value: [UInt8]) { self.init(name, String(validating: value, as: UTF8.self) ?? escaped(value, limit: .max)) }

    /// A secret, if by its name it is one; else as it was said.
    fileprivate init(_ name: String, _ value: [UInt8], _ code: SecretCode) {
        if Self.mayBeSecret(name.utf8) { self.init(name, Secret(value), code) } else { self.init(name, said: value) }
    }

    /// Whether what has this in its name may be a secret, wherever somebody has put it. No parameter of ours is: those that are about secrets are names of files.
    fileprivate static func mayBeSecret(_ text: some Collection<UInt8>) -> Bool {
        let text = text.map { (0x41...0x5a).contains($0) ? $0 | 0x20 : $0 }
        return !text.ends(withWord: "file") && ["password", "passwd", "passphrase", "secret", "psk"].contains { text.contains(Array($0.utf8)) }
    }
}

extension [UInt8] {
    fileprivate func ends(withWord word: String) -> Bool { suffix(word.utf8.count).elementsEqual(word.utf8) }
}

extension TgtRequest {
    /// What stands in one that cannot be understood. Its text is not to be seen where somebody may have mistyped a secret.
    fileprivate func arguments(_ code: SecretCode) -> [AuditedArgument] {
        var arguments: [AuditedArgument] = []
        if tid != -1 { arguments.append(.init("tid", "\(tid)")) }
        if sid != 0 { arguments.append(.init("sid", "\(sid)")) }
        if lun != .max { arguments.append(.init("lun", "\(lun)")) }
        if cid != 0 { arguments.append(.init("cid", "\(cid)")) }
        guard !payload.isEmpty else { return arguments }
        let isSecret = mode == .account || AuditedArgument.mayBeSecret(payload)
        return arguments + [isSecret ? .init("text", Secret(payload), code) : .init("text", said: payload)]
    }
}

extension AdminRequest {
    /// What it says, for the trail.
    fileprivate func arguments(_ code: SecretCode) -> [AuditedArgument] {
        typealias Argument = AuditedArgument
        func text(_ name: String, _ value: [UInt8]?) -> [Argument] { value.map { [Argument(name, said: $0)] } ?? [] }
        func number(_ name: String, _ value: some BinaryInteger) -> [Argument] { [Argument(name, "\(value)")] }
        func flag(_ name: String, _ value: Bool) -> [Argument] { value ? [Argument(name, "yes")] : [] }
        func settings(_ settings: [Setting]) -> [Argument] { settings.map { Argument(escaped($0.name), $0.value, code) } }
        func secret(_ bytes: [UInt8]) -> [Argument] { [Argument("password", Secret(bytes), code)] }
        func initiators(_ initiators: Initiators) -> [Argument] { text("initiator-address", initiators.address) + text("initiator-name", initiators.name) }
        func binding(_ binding: AccountBinding) -> [Argument] {
            text("user", binding.user) + (binding.tid.map { number("tid", $0) } ?? []) + flag("outgoing", binding.outgoing) + text("initiator-name", binding.initiator)
        }
        let own: [Argument] =
            switch action {
            case .showSystem, .deleteSystem, .statSystem, .showTargets, .showPortals, .showAccounts, .startDriver, .stopDriver, .showDrivers, .showPenalties: []
            case .updateSystem(let setting): settings([setting])
            case .newTarget(let tid, let name): number("tid", tid) + text("targetname", name)
            case .deleteTarget(let tid, let force): number("tid", tid) + flag("force", force)
            case .showTarget(let tid), .statTarget(let tid), .showConnections(let tid): number("tid", tid)
            case .updateTarget(let tid, let setting): number("tid", tid) + settings([setting])
            case .bindInitiators(let tid, let who, let luns): number("tid", tid) + initiators(who) + text("luns", luns)
            case .unbindInitiators(let tid, let who): number("tid", tid) + initiators(who)
            case .explainAccess(let question):
                number("tid", question.tid) + text("initiator-name", question.name) + text("initiator-address", question.address) + text("user", question.user)
                    + flag("tls", question.overTLS)
            case .explainPolicy(let question): text("user", question.user)
            case .clearPenalties(let address): text("initiator-address", address)
            case .newLogicalUnit(let tid, let lun, let unit):
                number("tid", tid) + number("lun", lun) + text("path", unit.path) + text("bstype", unit.bstype) + text("bsopts", unit.bsopts)
                    + text("bsoflags", unit.bsoflags) + text("blocksize", unit.blockSize) + (unit.deviceType == 0 ? [] : number("device-type", unit.deviceType))
            case .deleteLogicalUnit(let tid, let lun), .statLogicalUnit(let tid, let lun): number("tid", tid) + number("lun", lun)
            case .updateLogicalUnit(let tid, let lun, let more): number("tid", tid) + number("lun", lun) + settings(more)
            case .newPortal(let portal, let more): text("portal", portal) + settings(more)
            case .deletePortal(let portal): text("portal", portal)
            case .updatePortal(let portal, let more): text("portal", portal) + settings(more)
            case .newAccount(let user, let password, let weak), .addSecret(let user, let password, let weak):
                text("user", user) + secret(password) + flag("allow-weak", weak)
            case .deleteAccount(let user): text("user", user)
            case .retireSecret(let user, let generation): text("user", user) + [Argument("retire-secret", "\(generation)")]
            case .generateSecret(let user, let bits): text("user", user) + number("bits", bits)
            case .bindAccount(let bound), .unbindAccount(let bound): binding(bound)
            case .statSession(let tid, let sid), .statConnections(let tid, let sid): number("tid", tid) + number("sid", sid)
            case .deleteConnection(let tid, let sid, let cid): number("tid", tid) + number("sid", sid) + number("cid", cid)
            }
        // There is one driver: another name is worth a word.
        return own + text("tenant", tenant) + (lld.isEmpty || lld.elementsEqual("iscsi".utf8) ? [] : text("lld", lld))
    }
}

// MARK: What no administrator has asked for

extension ReceivedSignal {
    /// Who has sent it.
    var details: KeyValuePairs<String, String> { ["signal": "\(number)", "pid": "\(pid)", "uid": "\(uid)"] }
}

extension Control {
    func noteStart() {
        audit.event(
            .daemonStarted,
            details: [
                "version": LaunchOptions.version, "pid": "\(Host.processID)", "arguments": options.launch.words, "settings": options.launch.settings,
                "policy": options.administration.source?.path ?? "none", "socket": options.socket,
                "portals": configuration.portals.map { "\($0)" }.joined(separator: ", "),
            ])
    }

    func notePolicy(_ file: PolicyFile) {
        audit.event(
            .policyLoaded,
            details: [
                "file": options.administration.source?.path ?? "", "sha256": file.digest, "grants": "\(file.policy.grants.count)",
                "tenants": "\(file.tenancy.tenants.count)",
            ])
    }

    func noteStart(of role: Role, pid: Int32?) { audit.event(.processStarted, details: ["process": role.rawValue, "pid": "\(pid ?? 0)"]) }

    /// - Parameter culprit: over whose bytes it has ended
    func noteEnd(of role: Role, _ end: ChildProcess.End?, _ culprit: SocketAddress?) {
        audit.event(
            .processEnded, reason: end.map { "it \($0)" }, details: ["process": role.rawValue, "over": culprit.map { "\(Source($0))" } ?? "nobody's"])
    }

    func noteSession(_ kind: SecurityEvent.Kind, _ tsih: UInt16, _ record: SessionRecord, _ login: SessionLogin, _ decision: Decision?, _ reason: String?) {
        let target = configuration.targets[record.tid]
        let proof = login.proof.map { "CHAP, \($0.algorithm)\($0.isMutual ? ", mutual" : "")\($0.isInClear ? ", in clear" : "")" }
        audit.event(
            kind, source: "\(Source(login.peer))", decision, reason: reason, tenant: target?.tenant.name, user: login.account?.description,
            initiator: record.initiatorName.spelling, target: target?.name.spelling ?? "target \(record.tid)",
            details: [
                "sid": "\(tsih)", "address": "\(login.peer)", "portal": "\(login.local)", "proof": proof ?? "none", "tls": login.evidence?.protection ?? "none",
                "luns": "\(login.mask)",
            ])
    }

    /// A discovery session: it has no grant, and no number.
    func noteDiscovery(_ kind: SecurityEvent.Kind, _ applicant: (question: LoginQuestion, peer: SocketAddress, channel: Channel), _ account: AccountName?) {
        audit.event(
            kind, source: "\(Source(applicant.peer))", kind == .loginAccepted ? .allowed : nil, user: account?.description,
            initiator: applicant.question.initiatorName.spelling, target: "discovery",
            details: ["address": "\(applicant.peer)", "tls": applicant.channel.isTLS ? "yes" : "none"])
    }
}
