import Bytes

/// The end of a tgtadm before or after it has talked to the daemon.
public struct TgtadmExit: Error, Hashable, Sendable {
    public var output: [UInt8] = []
    /// Lines for standard error.
    public var errors: [String] = []
    public var code: Int32

    /// EINVAL, for every usage error and every refusal of the daemon.
    public static let invalid: Int32 = 22
    /// ENOTCONN: there is no daemon.
    public static let notConnected: Int32 = 107
    /// ECONNRESET: the daemon ended the connection in mid answer.
    public static let reset: Int32 = 104

    public init(output: [UInt8] = [], errors: [String] = [], code: Int32) {
        self.output = output
        self.errors = errors
        self.code = code
    }

    static func usage(_ message: String) -> TgtadmExit { TgtadmExit(errors: ["tgtadm: " + message], code: invalid) }
    static let tryHelp = "Try `tgtadm --help' for more information."

    /// There is no socket, nobody listens, or we may not connect.
    public static let noDaemon = TgtadmExit(
        errors: ["tgtadm: failed to send request hdr to tgt daemon, Transport endpoint is not connected"], code: notConnected)

    /// The daemon is not ours, or older than what is asked for.
    public static func notSpoken(_ what: String, versions: ClosedRange<UInt16>?) -> TgtadmExit {
        let speaks = versions.map { "speaks versions \($0.lowerBound) to \($0.upperBound) of Portcullis's protocol, this tgtadm \(NativeProtocol.version)" }
        return .usage("\(what) cannot be had: this tgtd \(speaks ?? "speaks tgt's protocol only")")
    }

    /// How our protocol's request went.
    /// - Parameters:
    ///   - format: as asked for: in JSON a refusal is a document, too
    ///   - tellsReason: tgt's tgtadm cannot ask for this: we may say more than it does
    ///   - place: for a transaction: where each of its requests stands, like `file:12`
    public init(_ answer: NativeAnswer, format: OutputFormat, tellsReason: Bool = false, place: (Int) -> String? = { _ in nil }) {
        guard answer.error != TgtError.success.rawValue else {
            self.init(output: answer.output, code: 0)
            return
        }
        let text = TgtError.text(for: answer.error)
        let place = answer.request.flatMap { place(Int($0)) }
        self.init(errors: ["tgtadm: " + (place.map { "\($0): " } ?? "") + text], code: Self.invalid)
        if format == .json {
            output = JSONWriter.document { writer in
                writer.object("error") { writer in
                    writer.field("number", answer.error)
                    writer.field("text", text)
                    writer.field("reason", answer.reason.isEmpty ? nil : answer.reason)
                    if let request = answer.request { writer.field("request", request) }
                }
            }
        } else if tellsReason || place != nil || Self.obscure.contains(answer.error), !answer.reason.isEmpty {
            errors.append("tgtadm: \(answer.reason)")
        }
    }

    /// Errors whose text in tgt's words says nothing of what is wrong.
    private static let obscure = [TgtError.unknown.rawValue, TgtError.unsupportedOperation.rawValue]

    /// What the daemon's side of the conversation was.
    public enum Reply: Hashable, Sendable {
        case response(TgtResponse)
        /// It closed without an answer.
        case closed
        /// It closed in the middle of one, or what came is none.
        case broken
        case reset
    }

    public init(_ reply: Reply) {
        switch reply {
        case .response(let response) where response.error == TgtError.success.rawValue: self.init(output: response.text, code: 0)
        case .response(let response): self.init(errors: ["tgtadm: " + TgtError.text(for: response.error)], code: Self.invalid)
        case .closed: self.init(errors: ["tgtadm: tgtd closed the socket"], code: 0)
        case .broken: self.init(errors: ["tgtadm: a partial response"], code: Self.reset)
        case .reset: self.init(errors: ["tgtadm: can't get the response, Connection reset by peer"], code: Self.reset)
        }
    }
}
