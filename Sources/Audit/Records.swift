import Crypto
import JSON

/// Who asks for something at the management socket.
public struct Actor: Hashable, Sendable {
    /// As the kernel says it of the peer (SO_PEERCRED).
    public var uid: UInt32
    public var gid: UInt32
    public var pid: Int32
    /// What the peer runs, if that could be found out.
    public var executable: String?
    /// The name of the uid; nil: it has none.
    public var user: String?
    /// How it is known who it is: a word such as `socket` or `pam`.
    public var authentication: String?
    public var role: String?
    /// nil: no tenant, or all of them.
    public var tenant: String?

    public init(
        uid: UInt32, gid: UInt32, pid: Int32, executable: String? = nil, user: String? = nil, authentication: String? = nil, role: String? = nil, tenant: String? = nil
    ) {
        self.uid = uid
        self.gid = gid
        self.pid = pid
        self.executable = executable
        self.user = user
        self.authentication = authentication
        self.role = role
        self.tenant = tenant
    }

    var members: [JSONValue.Member] {
        [
            .init("peer", .object([.init("uid", .number(Int(uid))), .init("gid", .number(Int(gid))), .init("pid", .number(Int(pid))), .init("executable", .init(executable))])),
            .init("user", .init(user)), .init("authentication", .init(authentication)), .init("role", .init(role)), .init("tenant", .init(tenant)),
        ]
    }
}

/// One thing that is asked for: a request, or a line of a transaction.
public struct Action: Hashable, Sendable {
    /// One argument. A secret is written down only as a code under a key of its own (`SecretCode`): two that are the same look the same.
    public struct Argument: Hashable, Sendable {
        public let name: String
        public let value: String
        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
        public init(_ name: String, _ secret: Secret, _ code: SecretCode) { self.init(name, code.text(of: secret)) }

        /// As pairs: a name may be there twice.
        static func list(_ arguments: [Argument]) -> JSONValue { .array(arguments.map { .array([.string($0.name), .string($0.value)]) }) }
    }

    public var mode: String
    public var operation: String
    public var arguments: [Argument]

    public init(mode: String, operation: String, arguments: [Argument] = []) {
        self.mode = mode
        self.operation = operation
        self.arguments = arguments
    }

    /// Bytes of memory that it takes, about.
    public var weight: Int { arguments.reduce(96) { $0 + 64 + $1.name.utf8.count + $1.value.utf8.count } }

    var members: [JSONValue.Member] {
        let names: [JSONValue.Member] = [.init("mode", .string(mode)), .init("op", .string(operation))]
        let list = Argument.list(arguments)
        // A byte is six at the most.
        guard 6 * weight > RecordLimits.arguments, case .array(let pairs) = list else { return names + [.init("arguments", list)] }
        let (kept, rest) = RecordLimits.fitting(pairs, RecordLimits.arguments)
        return names + [.init("arguments", .array(kept))] + rest
    }
}

/// How much was asked for, where not all of it is written down, and what tells whether two such requests were the same.
public struct Gist: Hashable, Sendable {
    /// nil: it was not read.
    public var requests: Int?
    /// Bytes of what was said.
    public var bytes: Int
    /// Of all that was said (`SecretCode`): secrets may be among it. nil: it was not read.
    public var code: String?

    public init(requests: Int? = nil, bytes: Int, code: String? = nil) {
        self.requests = requests
        self.bytes = bytes
        self.code = code
    }

    var members: [JSONValue.Member] { [.init("count", requests.map { .number($0) } ?? .null), .init("bytes", .number(bytes)), .init("code", .init(code))] }
}

/// How secrets stand in records: whoever has not the key learns from the code whether two are the same, and nothing else.
public struct SecretCode: Sendable {
    private let key: Secret
    /// - Parameter key: any secret of this installation; what is used here is derived from it
    public init(derivedFrom key: Secret) { self.key = HMAC.derive(Array("portcullis audit: secrets in arguments".utf8), from: key) }

    public func text(of secret: Secret) -> String {
        "hmac:" + JSONValue.hexadecimal(HMAC.sha256(secret, key: key).prefix(16))
    }
}

/// What was decided about a request.
public enum Decision: String, CaseIterable, Sendable { case allowed, refused }

/// A request, before anything changes; or one that was refused, of which there is no more to say.
public struct Attempt: Hashable, Sendable {
    public var actor: Actor
    /// One; or all of a transaction.
    public var actions: [Action]
    public var isTransaction: Bool
    public var decision: Decision
    /// The rule that allowed it, or why it was refused.
    public var reason: String?
    /// nil: all that was asked for stands in `actions`.
    public var gist: Gist?

    public init(_ actor: Actor, _ actions: [Action], isTransaction: Bool = false, _ decision: Decision, reason: String? = nil, gist: Gist? = nil) {
        self.actor = actor
        self.actions = actions
        self.isTransaction = isTransaction
        self.decision = decision
        self.reason = reason
        self.gist = gist
    }

    var members: [JSONValue.Member] {
        actor.members + Attempt.members(actions, isTransaction) + (gist?.members ?? [])
            + [.init("decision", .string(decision.rawValue)), .init("reason", .init(reason))]
    }

    static func members(_ actions: [Action], _ isTransaction: Bool) -> [JSONValue.Member] {
        if !isTransaction, actions.count == 1 { return actions[0].members }
        let (kept, rest) = RecordLimits.fitting(actions.map { .object($0.members) }, RecordLimits.list)
        return [.init("mode", .string("transaction")), .init("op", .string("commit")), .init("requests", .array(kept))] + rest
    }
}

/// What became of a request, before its answer goes out.
public struct Outcome: Hashable, Sendable {
    public enum Result: Hashable, Sendable {
        case success
        /// Nothing has changed: tgt's number of the error, and the text.
        case refused(number: Int, String)
        /// Something has changed, but not all is well (it could not be kept, say).
        case incomplete(String)
    }

    /// The number of its attempt; nil: a request that changes nothing, which has this record alone.
    public var attempt: UInt64?
    public var actor: Actor
    public var actions: [Action]
    public var isTransaction: Bool
    public var result: Result
    /// Everything that changed, a line each.
    public var changes: [String]
    /// From the request to the answer.
    public var microseconds: Int

    public init(
        of attempt: UInt64?, _ actor: Actor, _ actions: [Action], isTransaction: Bool = false, _ result: Result, changes: [String] = [], microseconds: Int
    ) {
        self.attempt = attempt
        self.actor = actor
        self.actions = actions
        self.isTransaction = isTransaction
        self.result = result
        self.changes = changes
        self.microseconds = microseconds
    }

    /// An attempt that stands there as allowed, and has been refused all the same.
    public static func takenBack(_ attempt: Attempt, _ number: UInt64, _ reason: String, microseconds: Int) -> Outcome {
        Outcome(of: number, attempt.actor, attempt.actions, isTransaction: attempt.isTransaction, .refused(number: 1, reason), microseconds: microseconds)
    }

    var members: [JSONValue.Member] {
        let (result, number, error): (String, Int?, String?) =
            switch self.result {
            case .success: ("success", nil, nil)
            case .refused(let number, let text): ("refused", number, text)
            case .incomplete(let text): ("incomplete", nil, text)
            }
        let (kept, rest) = RecordLimits.fitting(changes.map { .string($0) }, RecordLimits.list)
        // The requests stand in the attempt.
        let what: [JSONValue.Member] =
            isTransaction ? [.init("mode", .string("transaction")), .init("op", .string("commit"))] : Attempt.members(actions, isTransaction)
        return [.init("attempt", attempt.map { .number(Int($0)) } ?? .null)] + actor.members + what + [
            .init("decision", .string(Decision.allowed.rawValue)), .init("result", .string(result)), .init("number", number.map { .number($0) } ?? .null),
            .init("error", .init(error)), .init("changes", .array(kept)),
        ] + rest + [.init("durationMicroseconds", .number(microseconds))]
    }
}

/// Something that concerns security and that no administrator asked for.
public struct SecurityEvent: Hashable, Sendable {
    public enum Kind: String, CaseIterable, Sendable {
        case loginAccepted, loginRefused, sessionEnded
        /// A source has to wait; a login came too soon.
        case penalty
        case tlsFailed
        case processStarted, processEnded
        /// tgtd itself, and by whom it is told to end.
        case daemonStarted, daemonStopped
        /// It is told to read its files again.
        case rereading
        case policyLoaded, policyRefused
        /// The files of its portals.
        case portalsLoaded, portalsRefused
        /// A peer at the management socket that is refused before it has asked anything.
        case peerRefused
        /// Requests of somebody who may ask nothing; only ever counted as such, for those that are few are recorded as attempts.
        case requestRefused

        /// Whether it happens because of us, or of who has this host, and never because of who may merely reach a socket: all of them are recorded.
        var isOurs: Bool {
            switch self {
            case .daemonStarted, .daemonStopped, .rereading, .policyLoaded, .policyRefused, .portalsLoaded, .portalsRefused: true
            case .loginAccepted, .loginRefused, .sessionEnded, .penalty, .tlsFailed, .processStarted, .processEnded, .peerRefused, .requestRefused: false
            }
        }
    }

    public var kind: Kind
    /// Whom it comes from, as penalties count sources: an address, or the /64 around it; `uid N` at the management socket; nil: ourselves.
    public var source: String?
    public var decision: Decision?
    public var reason: String?
    public var tenant: String?
    /// The account that was proven or claimed.
    public var user: String?
    public var initiator: String?
    public var target: String?
    /// What else is to be said: names in lower camel case.
    public var details: [Action.Argument]

    public init(
        _ kind: Kind, source: String?, _ decision: Decision? = nil, reason: String? = nil, tenant: String? = nil, user: String? = nil, initiator: String? = nil,
        target: String? = nil, details: [Action.Argument] = []
    ) {
        self.kind = kind
        self.source = source
        self.decision = decision
        self.reason = reason
        self.tenant = tenant
        self.user = user
        self.initiator = initiator
        self.target = target
        self.details = details
    }

    var members: [JSONValue.Member] {
        [
            .init("event", .string(kind.rawValue)), .init("source", .init(source)), .init("decision", .init(decision?.rawValue)), .init("reason", .init(reason)),
            .init("tenant", .init(tenant)), .init("user", .init(user)), .init("initiator", .init(initiator)), .init("target", .init(target)),
            .init("details", Action.Argument.list(details)),
        ]
    }
}

/// What a trail says: what others give it to keep, and what it says of itself. Its name in a record is `kind`.
public enum Record: Hashable, Sendable {
    case attempt(Attempt)
    case outcome(Outcome)
    case event(SecurityEvent)
    /// Events of one kind and source that were counted only, since they were too many.
    case suppressed(SecurityEvent.Kind, source: String?, count: Int, since: Timestamp)
    /// Records that could not be written.
    case unrecorded(count: Int, since: Timestamp, reason: String)
    /// At a start: bytes at the end that were no whole records and that nobody had been told of, and are cut off; what is missing although it had been kept.
    case recovered(cut: Int, missing: String?)
    /// Old files, up to this number, that are deleted since the trail may not take more room.
    case removed(through: UInt32)

    /// Of a record in `kind`; `file` and `checkpoint` are the chain's own.
    public enum Kind: String, CaseIterable, Sendable { case attempt, outcome, event, suppressed, unrecorded, recovered, removed, file, checkpoint }

    var kind: Kind {
        switch self {
        case .attempt: .attempt
        case .outcome: .outcome
        case .event: .event
        case .suppressed: .suppressed
        case .unrecorded: .unrecorded
        case .recovered: .recovered
        case .removed: .removed
        }
    }

    /// Bytes of memory that it takes, about.
    public var weight: Int {
        func weight(_ actions: [Action]) -> Int { actions.reduce(0) { $0 + $1.weight } }
        return switch self {
        case .attempt(let attempt): 1024 + weight(attempt.actions)
        case .outcome(let outcome): 1024 + weight(outcome.actions) + outcome.changes.reduce(0) { $0 + 32 + $1.utf8.count }
        case .event, .suppressed, .unrecorded, .recovered, .removed: 1024
        }
    }

    var members: [JSONValue.Member] {
        switch self {
        case .attempt(let attempt): attempt.members
        case .outcome(let outcome): outcome.members
        case .event(let event): event.members
        case .suppressed(let kind, let source, let count, let since):
            [.init("event", .string(kind.rawValue)), .init("source", .init(source)), .init("count", .number(count)), .init("since", .string("\(since)"))]
        case .unrecorded(let count, let since, let reason):
            [.init("count", .number(count)), .init("since", .string("\(since)")), .init("reason", .string(reason))]
        case .recovered(let cut, let missing): [.init("cutBytes", .number(cut)), .init("missing", .init(missing))]
        case .removed(let through): [.init("throughFile", .number(Int(through)))]
        }
    }
}

/// How long a record may be.
enum RecordLimits {
    /// Bytes of what a transaction lists: four times what a sane one needs. A quarter of a million requests of the longest kind do not fit.
    static let list = 16 << 20
    /// Bytes of what one request lists: a thousand settings fit, if they are not long ones.
    static let arguments = 256 << 10

    /// As many of these as there is room for; then how many were left out, and the digest of their texts, by which they can be recognised.
    static func fitting(_ elements: [JSONValue], _ limit: Int) -> (kept: [JSONValue], rest: [JSONValue.Member]) {
        var room = limit
        guard let first = elements.firstIndex(where: { element in
            room -= element.text.count + 1
            return room < 0
        }) else { return (elements, []) }
        var digest = DigestState(.sha256)
        for element in elements[first...] { digest.update((element.text + [UInt8(ascii: "\n")]).span) }
        return (Array(elements[..<first]), [.init("leftOut", .number(elements.count - first)), .init("leftOutSHA256", .string(JSONValue.hexadecimal(digest.finish())))])
    }
}

extension JSONValue {
    init(_ text: String?) { self = text.map { .string($0) } ?? .null }
}
