import Bytes

/// What a Login Request says about who wants to reach what, before anything is negotiated.
public struct LoginQuestion: Hashable, Sendable {
    public var initiatorName: ISCSIName
    /// InitiatorAlias as sent, at most 255 bytes: not to be trusted, to be shown only escaped.
    public var initiatorAlias: [UInt8]?
    public var sessionType: SessionType
    /// Always there for a normal session.
    public var targetName: ISCSIName?
    public var isid: ISID
    /// 0: a new session (or one that takes the place of an old one); otherwise the session to join (RFC 7143 §6.3.1).
    public var tsih: UInt16
    public var cid: UInt16

    public init(
        initiatorName: ISCSIName, initiatorAlias: [UInt8]? = nil, sessionType: SessionType, targetName: ISCSIName?, isid: ISID, tsih: UInt16, cid: UInt16
    ) {
        self.initiatorName = initiatorName
        self.initiatorAlias = initiatorAlias
        self.sessionType = sessionType
        self.targetName = targetName
        self.isid = isid
        self.tsih = tsih
        self.cid = cid
    }
}

/// How an initiator proves who it is.
public enum Authentication: Hashable, Sendable {
    /// Not at all: AuthMethod=None.
    case none
    case chap(CHAPDemand)
}

/// What is to become of a login.
public enum LoginAnswer: Hashable, Sendable {
    case refuse(LoginStatus)
    /// - Parameters:
    ///   - parameters: what the target (or discovery) offers
    ///   - portalGroupTag: announced in normal sessions (RFC 7143 §13.9)
    case proceed(parameters: SessionParameters, portalGroupTag: UInt16, authentication: Authentication)
    /// It is who it says it is.
    /// - Parameters:
    ///   - parameters: what it is offered now that this is known
    ///   - proof: our own, if it has asked for one
    case authenticated(parameters: SessionParameters, proof: CHAPProof?)
}

/// The fields of the final Login Response, which is sent by whoever takes the session over: its TSIH is known only there.
public struct FinalLoginResponse: Hashable, Sendable {
    /// Current stage: 0 SecurityNegotiation, 1 LoginOperationalNegotiation (RFC 7143 §11.12.3).
    public var currentStage: UInt8
    public var initiatorTaskTag: UInt32
    /// Its own StatSN.
    public var statSN: UInt32
    /// Keys that are still to be told, each ended by a zero byte; at most `LoginLimits.segment` bytes.
    public var text: [UInt8]

    public init(currentStage: UInt8, initiatorTaskTag: UInt32, statSN: UInt32, text: [UInt8]) {
        self.currentStage = currentStage
        self.initiatorTaskTag = initiatorTaskTag
        self.statSN = statSN
        self.text = text
    }
}

/// A login that has come to its end: all that the full-feature phase starts from.
public struct LoginOutcome: Hashable, Sendable {
    public var identity: LoginQuestion
    public var negotiated: NegotiatedParameters
    /// CmdSN of the first command that is not immediate.
    public var expCmdSN: UInt32
    /// StatSN of the first response after the final Login Response.
    public var statSN: UInt32
    public var finalResponse: FinalLoginResponse

    public init(identity: LoginQuestion, negotiated: NegotiatedParameters, expCmdSN: UInt32, statSN: UInt32, finalResponse: FinalLoginResponse) {
        self.identity = identity
        self.negotiated = negotiated
        self.expCmdSN = expCmdSN
        self.statSN = statSN
        self.finalResponse = finalResponse
    }

    /// The Login Response that ends the login and begins the full-feature phase.
    /// - Parameter tsih: the session's handle, not 0
    public func finalResponseBytes(tsih: UInt16) -> [UInt8] {
        response(tsih: tsih, status: .success, text: finalResponse.text)
    }

    /// The Login Response that refuses at the last moment; the connection is to be closed behind it.
    public func refusalBytes(_ status: LoginStatus) -> [UInt8] {
        response(tsih: identity.tsih, status: status, text: [])
    }

    private func response(tsih: UInt16, status: LoginStatus, text: [UInt8]) -> [UInt8] {
        LoginResponse(
            transit: status == .success, currentStage: finalResponse.currentStage, nextStage: .fullFeaturePhase, isid: identity.isid, tsih: tsih,
            initiatorTaskTag: finalResponse.initiatorTaskTag, statSN: finalResponse.statSN, expCmdSN: expCmdSN,
            maxCmdSN: expCmdSN &+ UInt32(negotiated.queueDepth) &- 1, status: status, text: text
        ).bytes
    }
}

/// Stages of a login (RFC 7143 §11.12.3).
enum LoginStage: UInt8, Sendable {
    case securityNegotiation = 0
    case operationalNegotiation = 1
    case fullFeaturePhase = 3
}

/// A Login Response PDU (RFC 7143 §11.13).
struct LoginResponse {
    var transit: Bool
    var currentStage: UInt8
    var nextStage: LoginStage
    var isid: ISID
    var tsih: UInt16
    var initiatorTaskTag: UInt32
    var statSN: UInt32
    var expCmdSN: UInt32
    var maxCmdSN: UInt32
    var status: LoginStatus
    var text: [UInt8]

    var bytes: [UInt8] {
        var pdu = [UInt8](repeating: 0, count: PDU.headerLength)
        pdu[0] = Opcode.loginResponse.rawValue
        pdu[1] = (transit ? 0x80 | nextStage.rawValue : 0) | currentStage << 2
        var span = pdu.mutableSpan
        span.store24(UInt32(text.count), at: 5)
        span.store48(isid.rawValue, at: 8)
        span.store(tsih, at: 14)
        span.store(initiatorTaskTag, at: 16)
        span.store(statSN, at: 24)
        span.store(expCmdSN, at: 28)
        span.store(maxCmdSN, at: 32)
        span.store(status.rawValue, at: 36)
        pdu += text
        pdu += [UInt8](repeating: 0, count: PDU.padding(text.count))
        return pdu
    }
}
