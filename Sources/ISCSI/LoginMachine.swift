import Bytes

/// What one login may cost.
public enum LoginLimits {
    /// Bytes in the data segment of a login PDU, either way: nothing else is agreed yet (RFC 7143 §13.12).
    public static let segment = 8192
    /// Bytes of text that requests with the C bit may add up to: eight full segments, where logins need less than one.
    public static let text = 65536
    /// Keys in one login; twice as many as the standards have. Answers to so many fit one segment.
    public static let keys = 64
    /// Login Requests in one login; an ordinary one takes at most four.
    public static let requests = 64
}

/// The login phase of one connection (RFC 7143 §6.3): bytes in, bytes out; one question out, one answer in.
///
/// It stops in one of the final states, `succeeded`, `discovery`, `failed` or `closed`.
public struct LoginMachine: Sendable {
    public enum State: Hashable, Sendable {
        case needsInput
        /// Call `answer`; nothing is negotiated before.
        case asks(LoginQuestion)
        /// Call `answer`: is this the response of who it says it is?
        case proves(CHAPAnswer)
        /// A normal session may begin. The final response is not in the output: see `LoginOutcome.finalResponseBytes`.
        case succeeded(LoginOutcome)
        /// The same for a discovery session.
        case discovery(LoginOutcome)
        /// The refusal is in the output; send it and close.
        case failed(LoginStatus)
        /// Close without an answer.
        case closed(Closure)
    }

    /// Why a connection is closed without a Login Response.
    public enum Closure: Hashable, Sendable {
        /// Something else than a Login Request came: its opcode (RFC 7143 §6.3).
        case notALoginRequest(UInt8)
    }

    public private(set) var state = State.needsInput
    /// Whether that is its state.
    public var needsInput: Bool { if case .needsInput = state { true } else { false } }

    private var output: [UInt8] = []
    /// The basic header segment as far as it is there.
    private var header: [UInt8] = []
    /// Bytes of the data segment and of its padding that are still to come.
    private var dataMissing = 0
    private var paddingMissing = 0
    /// The text of the requests so far that belong together.
    private var text: [UInt8] = []
    private var requests = 0

    private var stage = LoginStage.securityNegotiation
    /// The first request, whose fields all later ones must repeat.
    private var first: LoginRequest?
    private var current: LoginRequest?
    private var statSN: UInt32 = 0
    private var question: LoginQuestion?
    private var security = SecurityNegotiation(.none)
    private var negotiation: KeyNegotiation?
    private var portalGroupTag: UInt16 = 0
    private var tagIsAnnounced = false

    public init() {}

    /// What is to be sent, and forgets it.
    public mutating func takeOutput() -> [UInt8] {
        defer { output = [] }
        return output
    }

    /// Consumes input as far as it can and returns how many bytes that were. It stops at a question and at the end.
    public mutating func receive(_ input: Span<UInt8>) -> Int {
        var offset = 0
        while offset < input.count {
            switch state {
            case .needsInput: take(input, &offset)
            case .succeeded, .discovery:
                // An initiator waits for the response before it sends more.
                refuse(.initiatorError)
            case .asks, .proves, .failed, .closed: return offset
            }
        }
        return offset
    }

    /// Whether this answers the question asked.
    public func expects(_ answer: LoginAnswer) -> Bool {
        switch (state, answer) {
        case (.asks, .refuse), (.proves, .refuse), (.asks, .proceed), (.proves, .authenticated): true
        default: false
        }
    }

    /// Answers the question asked: with what it `expects`.
    public mutating func answer(_ answer: LoginAnswer) {
        switch (state, answer) {
        case (.asks, .refuse(let status)), (.proves, .refuse(let status)): refuse(status)
        case (.asks(let question), .proceed(let parameters, let portalGroupTag, let authentication)):
            self.portalGroupTag = portalGroupTag
            security = SecurityNegotiation(authentication)
            negotiation = KeyNegotiation(parameters, question.sessionType)
            state = .needsInput
            secure(isFirst: true)
        case (.proves, .authenticated(let parameters, let proof)):
            negotiation?.offer(parameters)
            state = .needsInput
            let answers = security.succeed(proof)
            do throws(LoginRefusal) { negotiate(isFirst: false, try pairs(), answers) } catch { refuse(error.status) }
        default: preconditionFailure("this was not asked")
        }
    }

    // MARK: Framing

    private mutating func take(_ input: Span<UInt8>, _ offset: inout Int) {
        if header.count < PDU.headerLength {
            let count = min(PDU.headerLength - header.count, input.count - offset)
            header.append(copying: input.extracting(offset..<offset + count))
            offset += count
            guard header[0] & ~Self.immediateBit == Opcode.loginRequest.rawValue else {
                state = .closed(.notALoginRequest(header[0]))
                return
            }
            guard header.count == PDU.headerLength else { return }
            beginRequest()
        } else if dataMissing > 0 {
            let count = min(dataMissing, input.count - offset)
            text.append(copying: input.extracting(offset..<offset + count))
            offset += count
            dataMissing -= count
        } else {
            let count = min(paddingMissing, input.count - offset)
            offset += count
            paddingMissing -= count
        }
        if state == .needsInput, dataMissing + paddingMissing == 0 { endRequest() }
    }

    /// The I bit, with which a Login Request comes.
    private static let immediateBit: UInt8 = 0x40

    private mutating func beginRequest() {
        let request = LoginRequest(header.span)
        current = request
        if first == nil {
            first = request
            statSN = request.expStatSN
            if let begin = LoginStage(rawValue: request.currentStage), begin != .fullFeaturePhase { stage = begin }
        }
        requests += 1
        if let status = objection(to: request) { return refuse(status) }
        dataMissing = request.dataSegmentLength
        paddingMissing = PDU.padding(dataMissing)
    }

    /// What is wrong with a request's header, if anything.
    private func objection(to request: LoginRequest) -> LoginStatus? {
        guard let first else { preconditionFailure("there is a first request") }
        guard request.versionMin == 0 else { return .unsupportedVersion }
        guard requests <= LoginLimits.requests,
            request.totalAHSLength == 0,
            request.dataSegmentLength <= LoginLimits.segment,
            text.count + request.dataSegmentLength <= LoginLimits.text,
            request.repeats(first),
            request.currentStage == stage.rawValue
        else { return .initiatorError }
        guard request.transit else { return nil }
        guard !request.continues, let next = LoginStage(rawValue: request.nextStage), next.rawValue > stage.rawValue else { return .initiatorError }
        return nil
    }

    // MARK: Stages

    private mutating func endRequest() {
        guard let request = current else { preconditionFailure("a request was begun") }
        header = []
        if request.continues {
            respond(transitTo: nil, text: [])
        } else if question == nil {
            ask()
        } else {
            secure(isFirst: false)
        }
    }

    private mutating func ask() {
        guard let first else { preconditionFailure("there is a first request") }
        do throws(LoginRefusal) {
            let question = try LoginQuestion(pairs(), first)
            self.question = question
            state = .asks(question)
        } catch { refuse(error.status) }
    }

    private func pairs() throws(LoginRefusal) -> [KeyValue] {
        do throws(KeyValue.TextError) { return try KeyValue.pairs(text, atMost: LoginLimits.keys) } catch { throw LoginRefusal(status: .initiatorError) }
    }

    /// Who it is comes before what it wants.
    private mutating func secure(isFirst: Bool) {
        do throws(LoginRefusal) {
            let pairs = try pairs()
            switch try security.take(pairs, stage: stage) {
            case .answers(let answers): negotiate(isFirst: isFirst, pairs, answers)
            case .asks(let answer): state = .proves(answer)
            }
        } catch { refuse(error.status) }
    }

    private mutating func negotiate(isFirst: Bool, _ pairs: [KeyValue], _ security: [UInt8]) {
        guard let request = current, var negotiation = negotiation.take() else { preconditionFailure("the question is answered") }
        do throws(LoginRefusal) {
            var answers = try security + negotiation.answers(to: pairs, mayNegotiate: self.security.isSatisfied, isFirst: isFirst)
            text = []
            var next = request.transit ? LoginStage(rawValue: request.nextStage) : nil
            if next != nil, !self.security.isSatisfied {
                guard self.security.isUnderWay else { throw LoginRefusal(status: .authenticationFailure) }
                // It would go on, and is not done here.
                next = nil
            }
            if !tagIsAnnounced, question?.sessionType == .normal {
                KeyNegotiation.append(Key.targetPortalGroupTag.description.wireName[...], String(portalGroupTag).utf8, to: &answers)
                tagIsAnnounced = true
            }
            if stage == .operationalNegotiation || next == .fullFeaturePhase { answers += negotiation.declarations() }
            if next == .fullFeaturePhase {
                // A demand that was made and not answered in the next request will not be.
                try negotiation.forgetDemands()
                answers += negotiation.demands()
                if !negotiation.awaited.isEmpty { next = stage == .securityNegotiation ? .operationalNegotiation : nil }
            }
            self.negotiation = negotiation
            if next == .fullFeaturePhase { succeed(negotiation.negotiated, answers) } else { respond(transitTo: next, text: answers) }
        } catch { refuse(error.status) }
    }

    private mutating func succeed(_ negotiated: NegotiatedParameters, _ text: [UInt8]) {
        guard let first, let question else { preconditionFailure("the question is answered") }
        let response = FinalLoginResponse(currentStage: stage.rawValue, initiatorTaskTag: first.initiatorTaskTag, statSN: statSN, text: text)
        let outcome = LoginOutcome(
            identity: question, negotiated: negotiated, expCmdSN: first.cmdSN, statSN: statSN &+ 1, finalResponse: response)
        state = question.sessionType == .normal ? .succeeded(outcome) : .discovery(outcome)
    }

    private mutating func respond(transitTo next: LoginStage?, text: [UInt8]) {
        output += response(.success, next, text)
        statSN &+= 1
        if let next { stage = next }
    }

    private mutating func refuse(_ status: LoginStatus) {
        output += response(status, nil, [])
        state = .failed(status)
    }

    private func response(_ status: LoginStatus, _ next: LoginStage?, _ text: [UInt8]) -> [UInt8] {
        guard let first else { preconditionFailure("there is a first request") }
        precondition(text.count <= LoginLimits.segment)
        return LoginResponse(
            transit: next != nil, currentStage: stage.rawValue, nextStage: next ?? .securityNegotiation, isid: first.isid, tsih: first.tsih,
            initiatorTaskTag: first.initiatorTaskTag, statSN: statSN, expCmdSN: first.cmdSN, maxCmdSN: first.cmdSN, status: status, text: text
        ).bytes
    }
}

/// The header of a Login Request (RFC 7143 §11.12).
struct LoginRequest: Sendable {
    let transit: Bool
    let continues: Bool
    let currentStage: UInt8
    let nextStage: UInt8
    let versionMin: UInt8
    let totalAHSLength: Int
    let dataSegmentLength: Int
    let isid: ISID
    let tsih: UInt16
    let initiatorTaskTag: UInt32
    let cid: UInt16
    let cmdSN: UInt32
    let expStatSN: UInt32

    init(_ header: Span<UInt8>) {
        transit = header[1] & 0x80 != 0
        continues = header[1] & 0x40 != 0
        currentStage = header[1] >> 2 & 3
        nextStage = header[1] & 3
        versionMin = header[3]
        totalAHSLength = Int(header[4]) * 4
        dataSegmentLength = Int(header.uint24(at: 5))
        isid = ISID(rawValue: header.uint48(at: 8))
        tsih = header.uint16(at: 14)
        initiatorTaskTag = header.uint32(at: 16)
        cid = header.uint16(at: 20)
        cmdSN = header.uint32(at: 24)
        expStatSN = header.uint32(at: 28)
    }

    /// Whether it belongs to the same login.
    func repeats(_ first: LoginRequest) -> Bool {
        isid == first.isid && tsih == first.tsih && initiatorTaskTag == first.initiatorTaskTag && cid == first.cid && cmdSN == first.cmdSN
    }
}

extension LoginQuestion {
    /// What the first request's keys and header say.
    init(_ pairs: [KeyValue], _ request: LoginRequest) throws(LoginRefusal) {
        func value(_ key: Key) throws(LoginRefusal) -> ArraySlice<UInt8>? {
            guard let first = pairs.firstIndex(where: { $0.key == key }) else { return nil }
            guard !pairs[(first + 1)...].contains(where: { $0.key == key }) else { throw LoginRefusal(status: .initiatorError) }
            return pairs[first].value
        }
        func name(_ key: Key, ifInvalid status: LoginStatus) throws(LoginRefusal) -> ISCSIName? {
            guard let text = try value(key) else { return nil }
            do throws(ISCSIName.NameError) { return try ISCSIName(text) } catch { throw LoginRefusal(status: status) }
        }
        guard let initiator = try name(.initiatorName, ifInvalid: .initiatorError) else { throw LoginRefusal(status: .missingParameter) }
        let sessionType: SessionType
        switch try value(.sessionType) {
        case nil: sessionType = .normal
        case let text? where text.elementsEqual("Normal".utf8): sessionType = .normal
        case let text? where text.elementsEqual("Discovery".utf8): sessionType = .discovery
        default: throw LoginRefusal(status: .sessionTypeNotSupported)
        }
        let target = try name(.targetName, ifInvalid: .notFound)
        guard target != nil || sessionType == .discovery else { throw LoginRefusal(status: .missingParameter) }
        let alias = try value(.initiatorAlias)
        guard alias?.count ?? 0 <= KeyValue.longestValue else { throw LoginRefusal(status: .initiatorError) }
        self.init(
            initiatorName: initiator, initiatorAlias: alias.map(Array.init), sessionType: sessionType, targetName: target, isid: request.isid,
            tsih: request.tsih, cid: request.cid)
    }
}
