import Bytes

/// Portcullis's own management protocol, for what tgt's cannot carry: many changes as one, answers in JSON, conversations.
///
/// It shares the socket with tgt's protocol and is told apart by its first bytes: tgt's begin with a number from 0 to 7.
///
///     client                                   daemon
///       hello: the versions it speaks   ──►
///                                       ◄──    welcome: the one to speak, or 0 and the versions the daemon speaks
///       a frame: request or transaction ──►
///                                       ◄──    frames of conversation, where who asks has to be asked: each question is answered by one
///                                       ◄──    a frame: the answer; then it closes
///
/// Nothing follows the hello before the welcome has come. So a client that gets no welcome knows that nothing was carried out, and
/// may ask again in tgt's words: nothing is ever carried out twice. tgt's daemon reads the hello as a request's header whose
/// length is 0, which it closes without an answer and without having looked at the rest.
///
/// Numbers are big-endian. Hello and welcome are the same in all versions.
public enum NativeProtocol {
    /// The first bytes of either side.
    public static let magic = Array("PORTCULL".utf8)
    /// The only version so far.
    public static let version: UInt16 = 1

    /// Bytes of a frame that is sent to the daemon: a transaction with ten thousand targets of ten disks each, with long names, fits.
    public static let greatestRequest = 16 << 20
    /// Bytes of a request that anybody may send: no more than in tgt's protocol. Longer ones, and transactions, are for those who may do something.
    public static let greatestUnasked = TgtRequest.greatestLength
    /// Requests of a transaction. Their smallest is a few bytes, what comes of it is not: a hundred thousand disks fit, with as many
    /// settings.
    public static let greatestTransaction = 1 << 18
    /// Bytes of one text in a request: as many as in tgt's protocol.
    static let greatestText = TgtRequest.greatestPayload
    /// `name=value` settings of one request.
    static let greatestSettings = 1024
    /// Bytes of an answer's output: the report of everything that can be configured fits.
    public static let greatestAnswer = 1 << 30
    /// Bytes of a refusal's reason.
    static let greatestReason = 64 << 10
}

/// The client's first word: versions that it speaks.
///
/// 120 bytes, so that tgt's daemon takes it for a request's header: magic, oldest and newest version, and zeros, among them
/// at offset 72 the length that tgt refuses. Readers pass over the zeros: a later version may say something there.
public struct NativeHello: Hashable, Sendable {
    public var versions: ClosedRange<UInt16>
    /// Whether there is somebody who can be asked: a byte behind the versions is 1.
    public var converses: Bool

    public static let length = TgtRequest.headerLength

    public init(_ versions: ClosedRange<UInt16> = NativeProtocol.version...NativeProtocol.version, converses: Bool = false) {
        self.versions = versions
        self.converses = converses
    }

    public func encoded() -> [UInt8] {
        var bytes = NativeProtocol.magic
        bytes.append(bigEndian: versions.lowerBound)
        bytes.append(bigEndian: versions.upperBound)
        bytes.append(converses ? 1 : 0)
        return bytes + Array(repeating: 0, count: Self.length - bytes.count)
    }

    /// - Parameter bytes: `length` of them, the magic included
    fileprivate init(_ bytes: [UInt8]) throws(NativeWireError) {
        let (oldest, newest) = (bytes.span.uint16(at: 8), bytes.span.uint16(at: 10))
        guard oldest > 0, oldest <= newest else { throw .versions(oldest, newest) }
        versions = oldest...newest
        converses = bytes[12] & 1 != 0
    }
}

/// The daemon's answer to a hello: 16 bytes: magic, the version to speak, the oldest and newest the daemon speaks, and zeros.
public struct NativeWelcome: Hashable, Sendable {
    /// nil: there is none that both speak, and the daemon closes.
    public var chosen: UInt16?
    public var versions: ClosedRange<UInt16>

    public static let length = 16

    public init(chosen: UInt16?, versions: ClosedRange<UInt16>) {
        self.chosen = chosen
        self.versions = versions
    }

    public init(answering hello: NativeHello) {
        versions = NativeProtocol.version...NativeProtocol.version
        chosen = hello.versions.contains(NativeProtocol.version) ? NativeProtocol.version : nil
    }

    public func encoded() -> [UInt8] {
        var bytes = NativeProtocol.magic
        for number in [chosen ?? 0, versions.lowerBound, versions.upperBound, 0] { bytes.append(bigEndian: number) }
        return bytes
    }

    /// nil: this is no welcome.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.length, bytes.starts(with: NativeProtocol.magic) else { return nil }
        let (chosen, oldest, newest) = (bytes.span.uint16(at: 8), bytes.span.uint16(at: 10), bytes.span.uint16(at: 12))
        guard oldest > 0, oldest <= newest, chosen == 0 || (oldest...newest).contains(chosen) else { return nil }
        self.init(chosen: chosen == 0 ? nil : chosen, versions: oldest...newest)
    }
}

/// Why bytes are not of our protocol.
public enum NativeWireError: Error, Hashable, Sendable, CustomStringConvertible {
    /// A hello with versions that are none.
    case versions(UInt16, UInt16)
    case frame(UInt8)
    /// A frame longer than its kind may be.
    case length(UInt32)
    case reserved
    case body(ByteReaderError)
    /// Bytes behind the request.
    case trailing

    public var description: String {
        switch self {
        case .versions(let oldest, let newest): "the hello speaks of versions \(oldest) to \(newest)"
        case .frame(let kind): "there is no frame of kind \(kind) here"
        case .length(let length): "a frame of \(length) bytes is too long: at most \(NativeProtocol.greatestRequest)"
        case .reserved: "the bytes of a frame's header that mean nothing are not zero"
        case .body(let error): "the body of a frame is malformed (\(error))"
        case .trailing: "bytes follow the request"
        }
    }
}

/// A frame: kind, three zeros, length of the body (32 bits), body.
public struct NativeFrame: Hashable, Sendable {
    public enum Kind: UInt8, Sendable {
        /// To the daemon: one request.
        case request = 1
        /// To the daemon: requests that are carried out together or not at all.
        case transaction = 2
        /// To the client: how it went. The last frame.
        case answer = 3
        /// Both ways: PAM's questions and their answers, between a request and its answer (`NativeMessage`). Only with a client whose hello
        /// has said that it can.
        case conversation = 4
    }

    public var kind: Kind
    public var body: [UInt8]

    public init(_ kind: Kind, _ body: [UInt8]) {
        self.kind = kind
        self.body = body
    }

    static let headerLength = 8

    /// nil: it is longer than `limit`.
    func encoded(limit: Int) -> [UInt8]? {
        guard body.count <= limit else { return nil }
        var bytes = [kind.rawValue, 0, 0, 0]
        bytes.reserveCapacity(Self.headerLength + body.count)
        bytes.append(bigEndian: UInt32(body.count))
        bytes += body
        return bytes
    }
}

/// Takes frames apart as their bytes arrive, one at a time.
struct NativeFrameDecoder: Sendable {
    private let kinds: Set<NativeFrame.Kind>
    private let limit: Int
    private var header: [UInt8] = []
    private var frame: NativeFrame?
    private var length = 0

    /// - Parameters:
    ///   - kinds: which may come
    ///   - limit: bytes of a body
    init(_ kinds: Set<NativeFrame.Kind>, limit: Int) {
        self.kinds = kinds
        self.limit = limit
    }

    var heldBytes: Int { header.count + (frame?.body.count ?? 0) }
    /// Kind and length of the frame whose body is being read.
    var begun: (NativeFrame.Kind, Int)? { frame.map { ($0.kind, length) } }

    /// Takes bytes of `input` from `position` on, as many as belong to this frame, and moves `position` behind them.
    /// - Returns: the frame once it is whole
    mutating func feed(_ input: Span<UInt8>, _ position: inout Int) throws(NativeWireError) -> NativeFrame? {
        while frame == nil, position < input.count {
            header.append(input[position])
            position += 1
            if header.count == NativeFrame.headerLength { try begin() }
        }
        guard frame != nil else { return nil }
        // Byte by byte: reserving for each piece would copy all that is there each time.
        while position < input.count, (frame?.body.count ?? 0) < length {
            frame?.body.append(input[position])
            position += 1
        }
        guard let whole = frame, whole.body.count == length else { return nil }
        header = []
        frame = nil
        return whole
    }

    private mutating func begin() throws(NativeWireError) {
        guard let kind = NativeFrame.Kind(rawValue: header[0]), kinds.contains(kind) else { throw .frame(header[0]) }
        guard header[1...3].allSatisfy({ $0 == 0 }) else { throw .reserved }
        let announced = header.span.uint32(at: 4)
        guard announced <= limit else { throw .length(announced) }
        length = Int(announced)
        frame = NativeFrame(kind, [])
    }
}

// MARK: The daemon's side

/// A frame that has begun, before anything of it is understood.
public struct NativeAnnouncement: Hashable, Sendable {
    public let isTransaction: Bool
    /// Of its body.
    public let bytes: Int
}

/// What a connection to the management socket has said, as the daemon takes it apart.
public enum ManagementEvent: Hashable, Sendable {
    case tgt(TgtRequest)
    /// More than just anybody may say: nothing more is to be fed before it is known whether this one may, and then only after `permit`.
    case announced(NativeAnnouncement)
    /// To be answered with a welcome.
    case hello(NativeHello)
    case native(NativeRequest)
}

/// Why it could not be taken apart.
public enum ManagementWireError: Error, Hashable, Sendable {
    case tgt(TgtWireError)
    case native(NativeWireError)
}

/// Takes a connection apart as its bytes arrive, whichever protocol it speaks; holds no more of them than a request may have.
public struct ManagementDecoder: Sendable {
    private enum Stage: Sendable {
        /// Bytes that both protocols may begin with.
        case beginning([UInt8])
        case tgt(TgtRequestDecoder)
        case hello([UInt8])
        case frame(NativeFrameDecoder)
        /// It has come whole, and waits for leave to be understood.
        case announced(NativeFrame)
        case finished
    }
    private var stage = Stage.beginning([])
    private let asksLeave: Bool
    private var hasAsked = false
    private var hasLeave = false
    /// Bytes that it has been fed.
    public private(set) var taken = 0

    /// - Parameter asksLeave: whether a frame that is more than just anybody may say is announced first
    public init(asksLeave: Bool = false) { self.asksLeave = asksLeave }

    /// Bytes it holds.
    public var heldBytes: Int {
        switch stage {
        case .beginning(let bytes), .hello(let bytes): bytes.count
        case .tgt: TgtRequest.headerLength + TgtRequest.greatestPayload
        case .frame(let decoder): decoder.heldBytes
        case .announced(let frame): frame.body.count
        case .finished: 0
        }
    }

    /// Takes the next bytes of the connection. After an error or a request it takes no more.
    /// - Parameter events: gets what the bytes complete, in their order; before an error, too
    public mutating func feed(_ input: Span<UInt8>, into events: inout [ManagementEvent]) throws(ManagementWireError) {
        var position = 0
        taken += input.count
        while position < input.count {
            switch stage {
            case .beginning(var bytes):
                bytes.append(input[position])
                position += 1
                if NativeProtocol.magic == bytes {
                    stage = .hello(bytes)
                } else if NativeProtocol.magic.starts(with: bytes) {
                    stage = .beginning(bytes)
                } else {
                    var decoder = TgtRequestDecoder()
                    if let event = try Self.feed(&decoder, bytes.span) { events.append(event) }
                    stage = .tgt(decoder)
                }
            case .tgt(var decoder):
                stage = .finished
                if let event = try Self.feed(&decoder, input.extracting(position...)) { events.append(event) }
                stage = .tgt(decoder)
                position = input.count
            case .hello(var bytes):
                bytes.append(input[position])
                position += 1
                stage = .hello(bytes)
                guard bytes.count == NativeHello.length else { continue }
                events.append(.hello(try Self.native { () throws(NativeWireError) in try NativeHello(bytes) }))
                stage = .frame(NativeFrameDecoder([.request, .transaction], limit: NativeProtocol.greatestRequest))
            case .frame(var decoder):
                // So that the decoder is held once, and grows where it is.
                stage = .finished
                var frame: NativeFrame?
                do throws(NativeWireError) { frame = try decoder.feed(input, &position) } catch { throw .native(error) }
                if asksLeave, !hasAsked, let begun = frame.map({ ($0.kind, $0.body.count) }) ?? decoder.begun, begun.0 == .transaction || begun.1 > NativeProtocol.greatestUnasked {
                    hasAsked = true
                    events.append(.announced(NativeAnnouncement(isTransaction: begun.0 == .transaction, bytes: begun.1)))
                }
                guard let frame else {
                    stage = .frame(decoder)
                    continue
                }
                if hasAsked, !hasLeave {
                    stage = .announced(frame)
                } else {
                    events.append(.native(try Self.native { () throws(NativeWireError) in try NativeRequest(frame) }))
                }
            case .announced, .finished: throw .native(.trailing)
            }
        }
    }

    /// Whoever has announced a frame may send it.
    /// - Parameter events: gets what has been completed already
    public mutating func permit(into events: inout [ManagementEvent]) throws(ManagementWireError) {
        hasLeave = true
        guard case .announced(let frame) = stage else { return }
        stage = .finished
        events.append(.native(try Self.native { () throws(NativeWireError) in try NativeRequest(frame) }))
    }

    private static func feed(_ decoder: inout TgtRequestDecoder, _ input: Span<UInt8>) throws(ManagementWireError) -> ManagementEvent? {
        do throws(TgtWireError) { return try decoder.feed(input).map { .tgt($0) } } catch { throw .tgt(error) }
    }

    private static func native<Result>(_ body: () throws(NativeWireError) -> Result) throws(ManagementWireError) -> Result {
        do throws(NativeWireError) { return try body() } catch { throw .native(error) }
    }
}

// MARK: The client's side

/// Takes the daemon's answer apart as its bytes arrive.
public struct NativeAnswerDecoder: Sendable {
    private var decoder = NativeFrameDecoder([.answer, .conversation], limit: NativeProtocol.greatestAnswer + NativeProtocol.greatestReason + 64)

    public init() {}

    /// - Returns: the answer once it is whole, nil before. Bytes behind it are an error.
    public mutating func feed(_ input: Span<UInt8>) throws(NativeWireError) -> NativeAnswer? {
        var messages: [NativeMessage] = []
        let answer = try feed(input, into: &messages)
        guard messages.isEmpty else { throw .frame(NativeFrame.Kind.conversation.rawValue) }
        return answer
    }

    /// - Parameter messages: gets what is asked or said before the answer
    public mutating func feed(_ input: Span<UInt8>, into messages: inout [NativeMessage]) throws(NativeWireError) -> NativeAnswer? {
        var position = 0
        while let frame = try decoder.feed(input, &position) {
            if frame.kind == .conversation {
                messages.append(try NativeMessage(frame.body))
                continue
            }
            guard position == input.count else { throw .trailing }
            return try NativeAnswer(frame)
        }
        return nil
    }
}

// MARK: Conversations

/// What PAM asks or says, on its way to who asks. A question is answered by one frame of conversation, whose body is the line that was typed.
public struct NativeMessage: Hashable, Sendable {
    public enum Style: UInt8, Sendable {
        /// A question; the answer must not be seen.
        case secret = 1
        case question
        case error
        case info
    }
    public var style: Style
    public var text: [UInt8]
    public var isQuestion: Bool { style == .secret || style == .question }

    /// Bytes of a message's text; of one answer; messages of one conversation.
    public static let greatestText = 4096
    public static let greatestAnswer = 511
    public static let most = 64

    /// - Parameter text: as much of it as a message has
    public init(_ style: Style, _ text: [UInt8]) {
        self.style = style
        self.text = Array(text.prefix(Self.greatestText))
    }

    init(_ body: [UInt8]) throws(NativeWireError) {
        guard let style = body.first.flatMap(Style.init), body.count <= 1 + Self.greatestText else { throw .body(.invalid) }
        self.init(style, Array(body.dropFirst()))
    }

    /// Fit for a terminal: it comes from whatever modules there are.
    public var shown: [UInt8] {
        let scalars = String(decoding: text, as: UTF8.self).unicodeScalars.map { scalar in
            scalar.properties.generalCategory == .control && scalar != "\n" ? "?" : scalar
        }
        return Array(String(String.UnicodeScalarView(scalars)).utf8)
    }

    public func encoded() -> [UInt8] { NativeFrame(.conversation, [style.rawValue] + text).encoded(limit: .max) ?? [] }

    /// The frame with an answer, for the daemon; nil: it is too long.
    public static func encoded(answer: [UInt8]) -> [UInt8]? { NativeFrame(.conversation, answer).encoded(limit: greatestAnswer) }

    /// Bytes in front of an answer.
    public static let answerHeader = NativeFrame.headerLength
    /// How long the answer is that follows this header; nil: it is none.
    public static func answerLength(_ header: [UInt8]) -> Int? {
        guard header.count == answerHeader, header.starts(with: [NativeFrame.Kind.conversation.rawValue, 0, 0, 0]) else { return nil }
        let length = Int(header.span.uint32(at: 4))
        return length <= greatestAnswer ? length : nil
    }
}
