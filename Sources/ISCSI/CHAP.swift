/// The digests of CHAP by their numbers (IANA, “PPP Authentication Algorithms”; RFC 7143 §12.1.3), the stronger the greater.
public enum CHAPAlgorithm: UInt8, CaseIterable, Comparable, Hashable, Sendable, CustomStringConvertible {
    case md5 = 5, sha1 = 6, sha256 = 7, sha3_256 = 8

    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

    public var description: String {
        switch self {
        case .md5: "MD5"
        case .sha1: "SHA-1"
        case .sha256: "SHA-256"
        case .sha3_256: "SHA3-256"
        }
    }

    /// Bytes of a response.
    public var responseLength: Int {
        switch self {
        case .md5: 16
        case .sha1: 20
        case .sha256, .sha3_256: 32
        }
    }
}

/// What an initiator has to prove itself by: drawn by control, for one connection and one answer.
public struct CHAPDemand: Hashable, Sendable {
    /// Those that may be used.
    public var algorithms: Set<CHAPAlgorithm>
    /// CHAP_I.
    public var identifier: UInt8
    /// CHAP_C, 1 to 1024 bytes.
    public var challenge: [UInt8]

    public init(algorithms: Set<CHAPAlgorithm>, identifier: UInt8, challenge: [UInt8]) {
        self.algorithms = algorithms
        self.identifier = identifier
        self.challenge = challenge
    }
}

/// An initiator's answer to a demand, for control to judge.
public struct CHAPAnswer: Hashable, Sendable {
    /// What the target is to prove itself by, if the initiator wants that.
    public struct Counterdemand: Hashable, Sendable {
        public var identifier: UInt8
        /// 1 to 1024 bytes.
        public var challenge: [UInt8]

        public init(identifier: UInt8, challenge: [UInt8]) {
            self.identifier = identifier
            self.challenge = challenge
        }
    }

    /// The strongest one that both sides allow.
    public var algorithm: CHAPAlgorithm
    /// CHAP_N as sent, 1 to 255 bytes.
    public var name: [UInt8]
    /// CHAP_R, of just the length that the algorithm makes.
    public var response: [UInt8]
    public var counterdemand: Counterdemand?

    public init(algorithm: CHAPAlgorithm, name: [UInt8], response: [UInt8], counterdemand: Counterdemand?) {
        self.algorithm = algorithm
        self.name = name
        self.response = response
        self.counterdemand = counterdemand
    }
}

/// By which the target proves itself.
public struct CHAPProof: Hashable, Sendable {
    /// CHAP_N, 1 to 255 bytes.
    public var name: [UInt8]
    /// CHAP_R.
    public var response: [UInt8]

    public init(name: [UInt8], response: [UInt8]) {
        self.name = name
        self.response = response
    }
}

/// The keys of the security stage (RFC 7143 §9.2, §12.1.3): which method, which algorithm, challenge and response.
///
/// It knows no secret and computes no digest: it asks.
struct SecurityNegotiation: Sendable {
    enum Step: Hashable, Sendable {
        /// AuthMethod has not been offered.
        case method
        /// CHAP it is; CHAP_A is next.
        case algorithm
        /// The demand is out; CHAP_N and CHAP_R are next.
        case response(CHAPAlgorithm)
        /// Control judges.
        case judgement
        /// Nothing more is to be proved.
        case over
    }

    /// What comes of the keys of one text.
    enum Result {
        /// These are our answers.
        case answers([UInt8])
        /// Control has to be asked.
        case asks(CHAPAnswer)
    }

    private let demand: CHAPDemand?
    private(set) var step = Step.method

    init(_ authentication: Authentication) {
        demand = if case .chap(let demand) = authentication { demand } else { nil }
    }

    /// Whether the initiator has proved all that it has to.
    var isSatisfied: Bool { demand == nil || step == .over }
    /// Whether it is on its way to.
    var isUnderWay: Bool { step != .method }

    /// Takes the security keys among the pairs of one text; what else they say is for `KeyNegotiation`.
    mutating func take(_ pairs: [KeyValue], stage: LoginStage) throws(LoginRefusal) -> Result {
        guard pairs.contains(where: { $0.key?.isSecurityKey ?? false }) else {
            guard stage == .securityNegotiation || isSatisfied else { throw LoginRefusal(status: .authenticationFailure) }
            return .answers([])
        }
        guard stage == .securityNegotiation else { throw LoginRefusal(status: .initiatorError) }
        let keys = Dictionary(pairs.compactMap { pair in pair.key.flatMap { $0.isSecurityKey ? ($0, pair.value) : nil } }) { first, _ in first }
        switch step {
        case .method where Set(keys.keys) == [.authMethod]: return .answers(try chooseMethod(keys[.authMethod] ?? []))
        case .algorithm where Set(keys.keys) == [.chapA]: return .answers(try chooseAlgorithm(keys[.chapA] ?? []))
        case .response(let algorithm): return .asks(try answer(keys, algorithm))
        default: throw LoginRefusal(status: .initiatorError)
        }
    }

    /// Control has found the answer right.
    /// - Returns: our own answers
    mutating func succeed(_ proof: CHAPProof?) -> [UInt8] {
        precondition(step == .judgement)
        step = .over
        guard let proof else { return [] }
        var text: [UInt8] = []
        Self.append(.chapN, proof.name, to: &text)
        Self.append(.chapR, BinaryValue.hexadecimal(proof.response), to: &text)
        return text
    }

    private mutating func chooseMethod(_ offers: ArraySlice<UInt8>) throws(LoginRefusal) -> [UInt8] {
        let method = demand == nil ? "None" : "CHAP"
        guard Self.list(offers).contains(where: { $0.elementsEqual(method.utf8) }) else { throw LoginRefusal(status: .authenticationFailure) }
        step = demand == nil ? .over : .algorithm
        var text: [UInt8] = []
        Self.append(.authMethod, Array(method.utf8), to: &text)
        return text
    }

    private mutating func chooseAlgorithm(_ offers: ArraySlice<UInt8>) throws(LoginRefusal) -> [UInt8] {
        guard let demand else { throw LoginRefusal(status: .initiatorError) }
        let offered = Self.list(offers).compactMap { number($0).flatMap(UInt8.init(exactly:)).flatMap(CHAPAlgorithm.init(rawValue:)) }
        guard let algorithm = demand.algorithms.intersection(offered).max() else { throw LoginRefusal(status: .authenticationFailure) }
        step = .response(algorithm)
        var text: [UInt8] = []
        Self.append(.chapA, Array(String(algorithm.rawValue).utf8), to: &text)
        Self.append(.chapI, Array(String(demand.identifier).utf8), to: &text)
        Self.append(.chapC, BinaryValue.hexadecimal(demand.challenge), to: &text)
        return text
    }

    /// What is no answer at all, or none of the length that the algorithm makes, is a wrong one.
    private mutating func answer(_ keys: [Key: ArraySlice<UInt8>], _ algorithm: CHAPAlgorithm) throws(LoginRefusal) -> CHAPAnswer {
        let wrong = LoginRefusal(status: .authenticationFailure)
        guard let name = keys[.chapN], let spelled = keys[.chapR], keys[.authMethod] == nil, keys[.chapA] == nil else {
            throw LoginRefusal(status: .initiatorError)
        }
        guard !name.isEmpty, let response = BinaryValue.decode(spelled), response.count == algorithm.responseLength else { throw wrong }
        var counterdemand: CHAPAnswer.Counterdemand?
        switch (keys[.chapI], keys[.chapC]) {
        case (nil, nil): break
        case (let identifier?, let challenge?):
            guard let identifier = number(identifier).flatMap(UInt8.init(exactly:)), let challenge = BinaryValue.decode(challenge) else { throw wrong }
            counterdemand = CHAPAnswer.Counterdemand(identifier: identifier, challenge: challenge)
        default: throw LoginRefusal(status: .initiatorError)
        }
        step = .judgement
        return CHAPAnswer(algorithm: algorithm, name: Array(name), response: response, counterdemand: counterdemand)
    }

    private static func list(_ value: ArraySlice<UInt8>) -> [ArraySlice<UInt8>] {
        value.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
    }

    private static func append(_ key: Key, _ value: [UInt8], to text: inout [UInt8]) {
        KeyNegotiation.append(key.description.wireName[...], value, to: &text)
    }
}
