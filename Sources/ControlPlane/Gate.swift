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
    /// The exact reason, if it is not for whoever asks.
    var reason: String?
}

/// Decides whether requests of the management socket are carried out: by what the kernel, the name service and PAM say of who asks, and what policy
/// says of what is asked.
final class Gate {
    private let complaints: Complaints
    private let checks: PeerChecks
    var policy: Policy

    init(loop: EventLoop, policy: Policy, directory: String?, complaints: Complaints) {
        checks = PeerChecks(loop: loop, directory: directory)
        self.policy = policy
        self.complaints = complaints
    }

    /// What whoever is not let in hears, whatever the reason: the exact one is in the log.
    private static let denied = "you may not administer this daemon, or have not proved who you are"
    private static let conversationWanted = "PAM has something to ask, and this client cannot ask it: use Portcullis's tgtadm at a terminal, or with --answers"

    /// Whether somebody may do anything at all: then what he sends may be long. Nothing is asked of him, and PAM is not.
    /// - Parameter whenDone: called once
    func know(_ asker: Asker, _ whenDone: @escaping (Result<Void, Turned>) -> Void) {
        let identity = AdministratorIdentity(peer: asker.byNumbers)
        func unknown(_ identity: AdministratorIdentity) -> Turned {
            complaints.note(.notice, of: asker.uid, "\(ManagementDecision.Refusal.nobody)", identity.metadata)
            return Turned(answer: .refusal(.unsupportedOperation, ManagementDecision.Refusal.nobody.description), identity: identity)
        }
        if policy.knows(identity.peer) { return whenDone(.success(())) }
        guard policy.asksPAM else { return whenDone(.failure(unknown(identity))) }
        checks.identify(asker) { [unowned self] check, result in
            check.dismiss()
            var identity = identity
            switch result {
            case .failure(let trouble): return whenDone(.failure(turned(identity, "who it is cannot be found out: \(trouble)")))
            case .success(let peer): identity.peer = peer
            }
            guard identity.peer.user != nil else { return whenDone(.failure(turned(identity, "the name service knows nobody of this number"))) }
            if policy.knows(identity.peer) { return whenDone(.success(())) }
            checks.noteRefusal(asker.uid)
            whenDone(.failure(unknown(identity)))
        }
    }

    /// - Parameters:
    ///   - configuration: that of the moment, whenever it is asked for
    ///   - whenDone: called once
    func admit(
        _ requests: [AdminRequest], _ asker: Asker, configuration: @escaping () -> Configuration, _ whenDone: @escaping (Result<Admission, Turned>) -> Void
    ) {
        var identity = AdministratorIdentity(peer: asker.byNumbers)
        guard policy.asksPAM else { return whenDone(Result { () throws(Turned) in try settled(requests, asker, identity, configuration(), hasAuthenticated: false) }) }
        checks.identify(asker) { [unowned self] check, result in
            switch result {
            case .failure(let trouble): return whenDone(.failure(turned(identity, "who it is cannot be found out: \(trouble)")))
            case .success(let peer): identity.peer = peer
            }
            guard identity.peer.user != nil else {
                check.dismiss()
                return whenDone(.failure(turned(identity, "the name service knows nobody of this number")))
            }
            let authenticates: Bool
            do throws(Turned) { authenticates = try allowances(requests, identity, configuration()).authenticates } catch {
                check.dismiss()
                if !policy.knows(identity.peer) { checks.noteRefusal(asker.uid) }
                return whenDone(.failure(error))
            }
            check.verify(authenticates: authenticates) { [unowned self] result in
                switch result {
                case .failure(let trouble): return whenDone(.failure(turned(identity, "PAM: \(trouble)")))
                case .success(let (verdict, wantedConversation)):
                    identity.verdict = verdict
                    guard verdict.isGranted else {
                        let reason = "PAM: \(verdict.step) ended with code \(verdict.code)"
                        return whenDone(.failure(turned(identity, reason, wantedConversation ? Self.conversationWanted : Self.denied)))
                    }
                    identity.proof = authenticates ? .authenticated : .account
                    // Somebody may have typed for long: what counts is how things are now.
                    whenDone(Result { () throws(Turned) in try settled(requests, asker, identity, configuration(), hasAuthenticated: authenticates) })
                }
            }
        }
    }

    /// Finds somebody by name or number, to explain what he may do; nil: there is nobody.
    func lookUp(_ name: [UInt8], for uid: UInt32, _ whenDone: @escaping (Peer?) -> Void) {
        guard name.count <= AdministratorLimits.name else { return whenDone(nil) }
        checks.lookUp(name, for: uid) { check, result in
            check.dismiss()
            // One without a name is asked for nothing, either, when it asks for something.
            whenDone((try? result.get()).flatMap { $0.user != nil && PeerLimits.isSomebody($0.uid) ? $0 : nil })
        }
    }

    private func turned(_ identity: AdministratorIdentity, _ reason: String, _ said: String = denied) -> Turned {
        complaints.note(.notice, of: identity.peer.uid, "an administrator is refused: \(reason)", identity.metadata)
        checks.noteRefusal(identity.peer.uid)
        return Turned(answer: .refusal(.unsupportedOperation, said), identity: identity, reason: reason)
    }

    // MARK: What policy says

    private func allowances(
        _ requests: [AdminRequest], _ identity: AdministratorIdentity, _ configuration: Configuration
    ) throws(Turned) -> Allowances {
        do throws(Transaction.Refused) { return try Allowances(requests, of: identity.peer, policy, configuration) } catch {
            let what = requests.dropFirst(error.request ?? 0).first?.permission.description ?? "an empty transaction"
            complaints.note(.notice, of: identity.peer.uid, "policy refuses \(what): \(error.reason)", identity.metadata)
            throw Turned(answer: error.answer, identity: identity)
        }
    }

    /// What comes of requests of somebody of whom PAM has said all that it has to say.
    private func settled(
        _ requests: [AdminRequest], _ asker: Asker, _ identity: AdministratorIdentity, _ configuration: Configuration, hasAuthenticated: Bool
    ) throws(Turned) -> Admission {
        // Its connection may be in other hands by now.
        guard asker.peer.isAlive else { throw turned(identity, "the process that has connected has ended") }
        let allowances = try allowances(requests, identity, configuration)
        guard hasAuthenticated || !allowances.authenticates else { throw turned(identity, "what is asked needs authentication by now") }
        var identity = identity
        identity.grants = allowances.grants
        identity.reach = allowances.reach
        do throws(Transaction.Refused) {
            return Admission(requests: try allowances.resolved(configuration), sight: Sight(allowances.reach), identity: identity)
        } catch {
            throw Turned(answer: error.answer, identity: identity)
        }
    }
}

extension AdministratorIdentity {
    var metadata: Logger.Metadata { ["uid": "\(peer.uid)", "user": "\(peer.user.map { escaped($0) } ?? "?")"] }
}
