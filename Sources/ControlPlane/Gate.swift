import Access
import Administration
import Bytes
import Door
import Logging
import Management
import Model
import PAM
import Reactor

/// A request that may be carried out: by whom, within what, and how that came.
struct Admission {
    /// The requests as policy has understood them: whose each is about is said in it.
    let requests: [AdminRequest]
    let sight: Sight
    let identity: AdministratorIdentity
}

/// Who asks, and what he has proved: for the log and the audit trail.
struct AdministratorIdentity {
    enum Proof: String {
        /// The kernel's word alone.
        case kernel
        /// PAM had nothing against the account.
        case account
        /// PAM has authenticated.
        case authenticated
    }
    var peer: Peer
    var proof = Proof.kernel
    /// How far PAM let it come; nil: it was not asked.
    var verdict: PAMVerdict?
    /// The rules that allow it.
    var grants: [Grant] = []
    var reach: Reach?
}

/// A request that is not carried out.
struct Turned: Error {
    let answer: Answer
    let identity: AdministratorIdentity
}

/// Decides whether requests of the management socket are carried out: by what the kernel, the name service and PAM say of who asks, and what policy
/// says of what is asked.
final class Gate {
    private let log: Logger
    private let checks: PeerChecks
    var policy: Policy

    init(loop: EventLoop, policy: Policy, directory: String?, log: Logger) {
        checks = PeerChecks(loop: loop, directory: directory)
        self.policy = policy
        self.log = log
    }

    /// What whoever is not let in hears, whatever the reason: the exact one is in the log.
    private static let denied = "you may not administer this daemon, or have not proved who you are"
    private static let conversationWanted = "PAM has something to ask, and this client cannot ask it: use Portcullis's tgtadm at a terminal, or with --answers"

    /// - Parameters:
    ///   - configuration: that of the moment, whenever it is asked for
    ///   - whenDone: called once; not at all for a peer that goes away before
    func admit(
        _ requests: [AdminRequest], _ asker: Asker, configuration: @escaping () -> Configuration, _ whenDone: @escaping (Result<Admission, Turned>) -> Void
    ) {
        guard policy.asksPAM else {
            let identity = AdministratorIdentity(peer: Peer(uid: asker.uid, gids: asker.peer.groups))
            return whenDone(decided(requests, identity, configuration(), hasAuthenticated: false).map(\.admission))
        }
        checks.identify(asker) { [unowned self] check, result in
            var identity = AdministratorIdentity(peer: Peer(uid: asker.uid, gids: asker.peer.groups))
            switch result {
            case .failure(.gone): return
            case .failure(.failed(let reason)): return whenDone(.failure(turned(identity, "who it is cannot be found out: \(reason)")))
            case .success(let peer): identity.peer = peer
            }
            guard identity.peer.user != nil else {
                check.dismiss()
                return whenDone(.failure(turned(identity, "the name service knows nobody of this number")))
            }
            let authenticates: Bool
            switch decided(requests, identity, configuration(), hasAuthenticated: true) {
            case .failure(let turned):
                check.dismiss()
                return whenDone(.failure(turned))
            case .success(let decided): authenticates = decided.authenticates
            }
            check.verify(authenticates: authenticates) { [unowned self] result in
                switch result {
                case .failure(.gone): return
                case .failure(.failed(let reason)): return whenDone(.failure(turned(identity, "PAM: \(reason)")))
                case .success(let (verdict, wantedConversation)):
                    identity.verdict = verdict
                    guard verdict.isGranted else {
                        let reason = "PAM: \(verdict.step) ended with code \(verdict.code)"
                        return whenDone(.failure(turned(identity, reason, wantedConversation ? Self.conversationWanted : Self.denied)))
                    }
                    identity.proof = authenticates ? .authenticated : .account
                    // Somebody may have typed for long: what counts is how things are now.
                    whenDone(decided(requests, identity, configuration(), hasAuthenticated: authenticates).map(\.admission))
                }
            }
        }
    }

    /// Finds somebody by name, to explain what he may do.
    func lookUp(_ name: [UInt8], for uid: UInt32, _ whenDone: @escaping (Peer?) -> Void) {
        guard name.count <= AdministratorLimits.name else { return whenDone(nil) }
        checks.lookUp(name, for: uid) { check, result in
            check.dismiss()
            let found = try? result.get()
            if let found, found.user != nil { return whenDone(found) }
            whenDone(UInt32(String(decoding: name, as: UTF8.self)).map { Peer(uid: $0) })
        }
    }

    private func turned(_ identity: AdministratorIdentity, _ reason: String, _ said: String = denied) -> Turned {
        log.notice("an administrator is refused: \(reason)", metadata: identity.metadata)
        return Turned(answer: .refusal(.unsupportedOperation, said), identity: identity)
    }

    // MARK: What policy says

    private typealias Decided = (admission: Admission, authenticates: Bool)

    private func decided(
        _ requests: [AdminRequest], _ identity: AdministratorIdentity, _ configuration: Configuration, hasAuthenticated: Bool
    ) -> Result<Decided, Turned> {
        var identity = identity
        var resolved: [AdminRequest] = []
        var authenticates = false
        var reach = Reach.tenants([])
        for (index, request) in requests.enumerated() {
            func refuse(_ error: TgtError, _ reason: String) -> Result<Decided, Turned> {
                var answer = Answer.refusal(error, reason)
                if requests.count > 1 { answer.request = index }
                return .failure(Turned(answer: answer, identity: identity))
            }
            let question = request.question(configuration)
            switch decide(identity.peer, question, policy) {
            case .refused(let refusal):
                log.notice("policy refuses \(question.permission): \(refusal)", metadata: identity.metadata)
                return refuse(.unsupportedOperation, "\(refusal)")
            case .allowed(let allowance):
                let request = question.object == .unnamedTenant ? request.about(allowance.tenant) : request
                // One of many about what is not there for who asks: whatever comes before it, it fails as it would alone.
                if requests.count > 1, !allowance.reachesObject {
                    let alone = Sight(allowance.reach).plan(configuration, RuntimeView()) { Administrator.plan(request, $0, $1) }
                    guard case .answer(let answer) = alone, let reason = answer.reason, let error = TgtError(rawValue: answer.response.error) else {
                        return refuse(.invalidRequest, "it cannot be done")
                    }
                    return refuse(error, reason)
                }
                resolved.append(request)
                authenticates = authenticates || allowance.authenticates
                reach = reach.union(allowance.reach)
                for grant in allowance.grants where !identity.grants.contains(grant) { identity.grants.append(grant) }
            }
        }
        identity.reach = reach
        if authenticates, !hasAuthenticated { return .failure(turned(identity, "what is asked needs authentication by now")) }
        return .success((Admission(requests: resolved, sight: Sight(reach), identity: identity), authenticates))
    }
}

extension AdministratorIdentity {
    var metadata: Logger.Metadata { ["uid": "\(peer.uid)", "user": "\(peer.user.map { escaped($0) } ?? "?")"] }
}
