import Crypto
import Management
import Model

/// What control does with a request. It decides nothing itself any more.
public enum Plan: Sendable {
    /// Send this; nothing changes.
    case answer(Answer)
    /// Adopt the new configuration, tell those whom the changes concern and wait until they have them, put it into the
    /// store, then send the answer.
    case commit(Configuration, [Change], Answer)
    /// Have this done first, then call `Administrator.resume` with how it went and the configuration of *that* time.
    case perform(Effect, Continuation)
    /// Send this, then end the daemon.
    case stop(Answer)

    /// Whether something is configured differently when it has been carried out.
    public var changesSomething: Bool {
        switch self {
        case .answer, .stop, .perform(.endConnection, _): false
        case .commit, .perform: true
        }
    }
}

/// An answer, and what the log says about it.
public struct Answer: Hashable, Sendable {
    public var response: TgtResponse
    /// For a refusal: one sentence that says what is wrong and what would be right. tgt's protocol cannot carry it.
    public var reason: String?
    /// Of a transaction: which request is refused, counted from 0.
    public var request: Int?
    /// What has changed, for the audit trail.
    public var changes: [String] = []

    public init(_ response: TgtResponse, reason: String? = nil) {
        self.response = response
        self.reason = reason
    }
    public static let success = Answer(TgtResponse())
    public static func report(_ text: [UInt8]) -> Answer { Answer(TgtResponse(text: text)) }
    public static func refusal(_ error: TgtError, _ reason: String) -> Answer { Answer(TgtResponse(error), reason: reason) }
}

/// Something that takes time or another process.
public enum Effect: Hashable, Sendable {
    /// Open it, and keep the descriptor for the change that follows. If no commit follows, close it.
    /// → `.opened`, or `.failed(.invalidRequest, why)`
    case openStore(StoreRequest)
    /// Have data stop serving the logical unit if no command is under way there: from then on it is gone for initiators.
    /// → `.done`, or `.failed(.logicalUnitActive, …)`
    case withdrawLogicalUnit(LogicalUnitKey)
    /// Refuse further logins to the target. If it has sessions: with `force` end them all and wait until their I/O is over;
    /// without, take logins again and fail. → `.done`, or `.failed(.targetActive, …)`
    case withdrawTarget(TargetID, force: Bool)
    /// End one connection (with it the session, if it was its last) and wait until its I/O is over.
    /// → `.done`, or `.failed(.noConnection, …)`
    case endConnection(TargetID, tsih: UInt16, cid: UInt16)
    /// Read its files, if it has any, and listen. → `.listening` with the real port, or `.failed(.invalidRequest, why)`
    case listen(Portal)
    /// Read its files, all of them right, or nothing changes; listen if nobody does yet. → `.done`, or `.failed(.invalidRequest, why)`
    case renewPortal(Portal)
    /// Stop listening. → `.done`
    case close(PortalAddress)
    /// Forget what these have failed in. → `.done`, or `.failed(.invalidRequest, …)` if nothing is known of them
    case clearPenalties(AddressRule)
    /// Draw a secret of so many printable characters. → `.drawn`
    case drawSecret(characters: Int)
}

/// How an effect went.
public enum EffectOutcome: Sendable {
    case done
    case opened(StoreFacts)
    case listening(Portal)
    case drawn(Secret)
    /// Why not: the number for the administrator, and a sentence for the log.
    case failed(TgtError, String)
}

/// A request that waits for an effect.
public struct Continuation: Sendable {
    let request: AdminRequest
    public let effect: Effect
    /// Of what the answer reports.
    let format: OutputFormat
}

/// A refusal on its way out.
struct Refusal: Error {
    let error: TgtError
    let reason: String

    init(_ error: TgtError, _ reason: String) {
        self.error = error
        self.reason = reason
    }

    init(_ error: ConfigurationError) {
        let number: TgtError = switch error.kind {
        case .targetExists: .targetExists
        case .noSuchTarget: .noTarget
        case .logicalUnitExists: .logicalUnitExists
        case .noSuchLogicalUnit: .noLogicalUnit
        case .ruleExists: .ruleExists
        case .noSuchRule: .noRule
        case .accountExists: .accountExists
        case .noSuchAccount: .noAccount
        case .tooManyAccounts: .tooManyAccounts
        case .hasOutgoingAccount: .outgoingAccountExists
        case .invalid: .invalidRequest
        }
        self.init(number, error.description)
    }

    var plan: Plan { .answer(.refusal(error, reason)) }
}

/// Runs a part that checks or changes the configuration.
func configured<Result>(_ body: () throws(ConfigurationError) -> Result) throws(Refusal) -> Result {
    do throws(ConfigurationError) {
        return try body()
    } catch {
        throw Refusal(error)
    }
}
