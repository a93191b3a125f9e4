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
}

/// An answer, and what the log says about it.
public struct Answer: Hashable, Sendable {
    public var response: TgtResponse
    /// For a refusal: one sentence that says what is wrong and what would be right. tgt's protocol cannot carry it.
    public var reason: String?

    public init(_ response: TgtResponse, reason: String? = nil) {
        self.response = response
        self.reason = reason
    }
    public static let success = Answer(TgtResponse())
    public static func refusal(_ error: TgtError, _ reason: String) -> Answer { Answer(TgtResponse(error), reason: reason) }
}

/// Something that takes time or another process.
public enum Effect: Hashable, Sendable {
    /// Open it, and keep the descriptor for the change that follows. → `.opened`, or `.failed(.invalidRequest, why)`
    case openStore(StoreRequest)
    /// Have data stop serving it if no command is under way: from then on it is gone for initiators. → `.done`, or
    /// `.failed(.logicalUnitActive, …)`
    case withdraw(LogicalUnitKey)
    /// Refuse further logins to the target, end its sessions, wait until their I/O is over. → `.done`
    case endSessions(TargetID)
    /// End one connection (with it the session, if it was its last). → `.done`, or `.failed(.noConnection, …)`
    case endConnection(TargetID, tsih: UInt16, cid: UInt16)
    /// Listen. → `.listening` with the real port, or `.failed(.invalidRequest, why)`
    case listen(Portal)
    /// Stop listening. → `.done`
    case close(Portal)
}

/// How an effect went.
public enum EffectOutcome: Sendable {
    case done
    case opened(StoreFacts)
    case listening(Portal)
    /// Why not: the number for the administrator, and a sentence for the log.
    case failed(TgtError, String)
}

/// A request that waits for an effect.
public struct Continuation: Sendable {
    let request: AdminRequest
    let effect: Effect
}
