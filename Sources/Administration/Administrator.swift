import Management
import Model

/// Turns requests into plans: the pure half of carrying them out.
public enum Administrator {
    /// Understands a request of tgt's protocol and decides what it takes.
    public static func plan(_ request: TgtRequest, _ configuration: Configuration, _ view: RuntimeView) -> Plan {
        do throws(TgtError) {
            return plan(try AdminRequest(request), configuration, view)
        } catch {
            return .answer(.refusal(error, "the request cannot be understood"))
        }
    }

    public static func plan(_ request: AdminRequest, _ configuration: Configuration, _ view: RuntimeView) -> Plan {
        .answer(.refusal(.invalidRequest, "not yet"))
    }

    /// Goes on with a request after its effect. Everything is checked again, against the configuration of now.
    public static func resume(_ continuation: Continuation, _ outcome: EffectOutcome, _ configuration: Configuration) -> Plan {
        .answer(.refusal(.invalidRequest, "not yet"))
    }
}
