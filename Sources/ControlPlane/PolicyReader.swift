import Access
import Administration
import Audit
import Bytes
import Management
import Model
import Reactor

/// Who may use the management socket, from the start on.
struct AdministrationOptions: Sendable {
    let socket: SocketAccess
    /// Where policy is read from; nil: nowhere.
    let source: PolicyFile.Source?
    /// nil: there is none, and our own user administers.
    let policy: PolicyFile?
    let pamDirectory: String?
}

/// Reads the policy while control goes on: a thread waits for the disk.
final class PolicyReader {
    typealias Outcome = Result<PolicyFile?, StartError>

    private let loop: EventLoop
    private var thread: LoopThread?
    private var results: Mailbox<Outcome>?
    private var waiting: [(Outcome) -> Void] = []

    init(loop: EventLoop) { self.loop = loop }

    func read(_ source: PolicyFile.Source, _ whenDone: @escaping (Outcome) -> Void) {
        do {
            let (thread, results) = try ready()
            waiting.append(whenDone)
            thread.mailbox.post { _ in
                do { results.post(.success(try source.read())) } catch { results.post(.failure(StartError("\(error)"))) }
            }
        } catch {
            whenDone(.failure(StartError("\(error)")))
        }
    }

    private func ready() throws -> (LoopThread, Mailbox<Outcome>) {
        if let thread, let results { return (thread, results) }
        let made = (try LoopThread(name: "policy") { _ in }, try Mailbox<Outcome>())
        try loop.receive(made.1) { [unowned self] outcome in
            guard !waiting.isEmpty else { return }
            waiting.removeFirst()(outcome)
        }
        (thread, results) = made
        return made
    }
}

extension Control {
    /// Reads the policy again. What is wrong with it leaves the old one in force.
    func reloadPolicy() {
        guard let source = options.administration.source else { return }
        policyReader.read(source) { [unowned self] result in
            switch result {
            case .success(let file?):
                gate.policy = file.policy
                configuration.tenancy = file.tenancy
                // A tenant may have other portals now.
                applyRules(of: Set(configuration.targets.keys), Countdown {})
                notePolicy(file)
                log.notice("the policy has been read again: \(file.policy.grants.count) grants, \(file.tenancy.tenants.count) tenants")
            case .success(nil):
                audit.event(.policyRefused, .refused, reason: "there is no policy at \(source.path)")
                log.notice("there is no policy at \(source.path): who may administer is as it was")
            case .failure(let error):
                audit.event(.policyRefused, .refused, reason: "\(error)")
                log.error("the policy is as it was: \(error)")
            }
        }
    }

    /// Says who may do what: who asks, or somebody whom the name service knows.
    func explainPolicy(
        _ question: AdminRequest.PolicyQuestion, of tenantName: [UInt8]?, within sight: Sight, _ peer: Peer, _ format: OutputFormat,
        _ reply: @escaping (Answer) -> Void
    ) {
        let tenant: Tenant?
        do throws(ConfigurationError) {
            tenant = try tenantName.map { name throws(ConfigurationError) in try sight.seen(configuration).tenant(named: name) }
        } catch {
            return reply(.refusal(.invalidRequest, error.description))
        }
        func explain(_ peer: Peer) { reply(.report(PolicyExplanation(peer, gate.policy, tenant: tenant).rendered(format))) }
        guard let user = question.user else { return explain(peer) }
        gate.lookUp(user, for: peer.uid) { found in
            guard let found else { return reply(.refusal(.noAccount, "the name service knows no user “\(escaped(user))”")) }
            explain(found)
        }
    }
}
