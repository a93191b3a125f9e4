import Access
import Administration
import Audit
import AuditLog
import Bytes
import Crypto
import Door
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
    /// Every record goes to syslog, or the journal behind it, too.
    public var copiesToSystemLog = false

    public enum OnFailure: String, CaseIterable, Sendable {
        case refuseChanges = "refuse-changes"
        case goOn = "continue"
    }
}

/// Writes down what administrators ask for and what comes of it. Changes wait for the medium, looks do not.
final class RequestAudit {
    private let loop: EventLoop
    private let auditor: Auditor

    /// - Parameter state: where the key is, under which the trails' keys are sealed
    /// - Returns: nil where nothing is kept: then there is no place for a trail
    static func begin(_ settings: AuditSettings, _ state: StateDirectory?, loop: EventLoop, log: Logger) throws -> RequestAudit? {
        guard let state else {
            log.notice("no audit trail is kept: there is no state directory")
            return nil
        }
        var options = AuditOptions()
        options.management.refusesChanges = settings.onFailure == .refuseChanges
        if settings.copiesToSystemLog {
            Console.openSystemLog()
            options.copy = AuditOptions.systemLog
        }
        let directory = try AuditDirectory(writing: settings.directory ?? state.path + "/audit")
        let key = HMAC.derive(Array("audit trails".utf8), from: state.key)
        return RequestAudit(loop: loop, auditor: try Auditor(loop: loop, directory, options, sealingKey: key, log: log))
    }

    private init(loop: EventLoop, auditor: Auditor) {
        self.loop = loop
        self.auditor = auditor
    }

    /// Something that concerns security; nobody waits for it.
    func event(_ event: SecurityEvent) { auditor.event(event) }

    /// Writes what there is and ends the thread.
    func end(_ whenDone: @escaping () -> Void) { auditor.end(whenDone) }

    /// A request that is not carried out: its answer waits until that is written down.
    func refused(_ requests: [AdminRequest], by actor: Actor, _ answer: Answer, _ reply: @escaping (Answer) -> Void) {
        refused(actions(requests), by: actor, answer, reply)
    }

    func refused(_ actions: [Action], by actor: Actor, _ answer: Answer, _ reply: @escaping (Answer) -> Void) {
        let attempt = Attempt(actor, actions, isTransaction: actions.count > 1, .refused, reason: answer.reason)
        auditor.attempt(attempt) { _ in reply(answer) }
    }

    /// A request that is carried out: if it changes something, when it has been written down; and its answer when what became of it has been.
    func carryOut(
        _ requests: [AdminRequest], isTransaction: Bool, by actor: Actor, reason: String, _ reply: @escaping (Answer) -> Void,
        _ body: @escaping (@escaping (Answer) -> Void) -> Void
    ) {
        let actions = actions(requests)
        let started = loop.now
        func outcome(of number: UInt64?, _ answer: Answer) -> Outcome {
            let result: Outcome.Result =
                switch (answer.reason, answer.changes.isEmpty) {
                case (nil, _): .success
                case (let reason?, true): .refused(number: Int(answer.response.error), reason)
                case (let reason?, false): .incomplete(reason)
                }
            return Outcome(
                of: number, actor, actions, isTransaction: isTransaction, result, changes: answer.changes, microseconds: Int((loop.now - started) / 1000))
        }
        guard isTransaction || requests.contains(where: { $0.permission.changesSomething }) else {
            return body { [self] answer in
                auditor.outcome(outcome(of: nil, answer))
                reply(answer)
            }
        }
        auditor.attempt(Attempt(actor, actions, isTransaction: isTransaction, .allowed, reason: reason)) { [self] kept in
            let number: UInt64?
            switch kept {
            case .recorded(let recorded): number = recorded
            case .unrecorded: number = nil
            case .refused(let reason):
                return reply(.refusal(.unknown, "nothing is changed, for the audit trail cannot be written: \(reason)"))
            }
            body { [self] answer in auditor.outcome(outcome(of: number, answer)) { _ in reply(answer) } }
        }
    }

    private func actions(_ requests: [AdminRequest]) -> [Action] {
        requests.map { request in
            Action(mode: request.permission.mode.rawValue, operation: request.permission.operation.rawValue, arguments: request.arguments(auditor.secretCode))
        }
    }
}

extension Permission {
    /// Whether it does more than look.
    var changesSomething: Bool { ![.show, .stat, .explain].contains(operation) }
}

extension Actor {
    init(_ asker: Asker, _ identity: AdministratorIdentity) {
        let credentials = asker.peer.credentials
        var how = identity.proof.rawValue
        if let verdict = identity.verdict, !verdict.isGranted { how = "PAM \(verdict.step): \(verdict.code)" }
        self.init(
            uid: credentials.uid, gid: credentials.gid, pid: credentials.pid, executable: asker.peer.executable,
            user: identity.peer.user.map { String(decoding: $0, as: UTF8.self) }, authentication: how,
            role: identity.grants.isEmpty ? nil : Set(identity.grants.map(\.role.name)).sorted().joined(separator: ", "),
            tenant: identity.reach.flatMap { if case .tenants(let tenants) = $0 { tenants.map(\.name).sorted().joined(separator: ", ") } else { nil } })
    }
}

private typealias AuditedArgument = Audit.Action.Argument

extension AdminRequest {
    /// What it says, for the trail.
    fileprivate func arguments(_ code: SecretCode) -> [AuditedArgument] {
        typealias Argument = AuditedArgument
        func text(_ name: String, _ value: [UInt8]?) -> [Argument] { value.map { [Argument(name, String(decoding: $0, as: UTF8.self))] } ?? [] }
        func number(_ name: String, _ value: some BinaryInteger) -> [Argument] { [Argument(name, "\(value)")] }
        func flag(_ name: String, _ value: Bool) -> [Argument] { value ? [Argument(name, "yes")] : [] }
        func settings(_ settings: [Setting]) -> [Argument] { settings.flatMap { text(String(decoding: $0.name, as: UTF8.self), $0.value) } }
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
            case .explainPolicy(let question): text("user", question.user)
            case .clearPenalties(let address): text("initiator-address", address)
            case .newLogicalUnit(let tid, let lun, let unit):
                number("tid", tid) + number("lun", lun) + text("path", unit.path) + text("bstype", unit.bstype) + text("bsopts", unit.bsopts)
                    + text("bsoflags", unit.bsoflags) + text("blocksize", unit.blockSize)
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
        return own + text("tenant", tenant)
    }
}

// MARK: What no administrator has asked for

extension Control {
    func notePolicy(_ file: PolicyFile) {
        audit?.event(SecurityEvent(.policyLoaded, source: nil, details: [.init("grants", "\(file.policy.grants.count)"), .init("tenants", "\(file.tenancy.tenants.count)")]))
    }

    func noteProcess(_ role: Role, _ isStarted: Bool) {
        audit?.event(SecurityEvent(isStarted ? .processStarted : .processEnded, source: nil, details: [.init("process", role.rawValue)]))
    }

    func noteSession(_ kind: SecurityEvent.Kind, _ tsih: UInt16, _ record: SessionRecord, _ decision: Decision?, _ reason: String?) {
        let target = configuration.targets[record.tid]
        audit?.event(SecurityEvent(
            kind, source: "\(Source(record.peer))", decision, reason: reason, tenant: target?.tenant.name, user: record.account?.description,
            initiator: record.initiatorName.spelling, target: target?.name.spelling, details: [.init("sid", "\(tsih)"), .init("address", "\(record.peer)")]))
    }
}
