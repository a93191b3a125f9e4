import Bytes

/// An option of tgtadm, as GNU getopt_long wants it described.
public struct TgtadmOption: Sendable {
    public let letter: UInt8
    public let name: String
    /// Whether `--name` takes an argument.
    public let longTakesArgument: Bool
    /// Whether `-letter` takes one: tgt's `-F` and `-O` do, though `--force` and `--outgoing` don't.
    public let shortTakesArgument: Bool
    /// Ours, not tgt's: there is no `-letter`, which is no letter.
    public var isLongOnly: Bool { letter >= 0x80 }

    private init(_ letter: Unicode.Scalar, _ name: String, long: Bool = true, short: Bool = true) {
        self.letter = UInt8(ascii: letter)
        self.name = name
        longTakesArgument = long
        shortTakesArgument = short
    }

    private init(longOnly letter: UInt8, _ name: String, takesArgument: Bool) {
        self.letter = letter
        self.name = name
        longTakesArgument = takesArgument
        shortTakesArgument = takesArgument
    }

    /// What stands for the options without a letter.
    static let json: UInt8 = 0x80
    static let transaction: UInt8 = 0x81
    static let allowWeak: UInt8 = 0x82
    static let luns: UInt8 = 0x90
    static let passwordFile: UInt8 = 0x91
    static let addSecret: UInt8 = 0x92
    static let retireSecret: UInt8 = 0x93
    static let bits: UInt8 = 0x94
    static let tls: UInt8 = 0x96
    static let tenant: UInt8 = 0xa0
    static let answers: UInt8 = 0xa1

    public static let all: [TgtadmOption] = [
        TgtadmOption("d", "debug", long: false, short: false),
        TgtadmOption("h", "help", long: false, short: false),
        TgtadmOption("V", "version", long: false, short: false),
        TgtadmOption("L", "lld"),
        TgtadmOption("o", "op"),
        TgtadmOption("m", "mode"),
        TgtadmOption("t", "tid"),
        TgtadmOption("s", "sid"),
        TgtadmOption("c", "cid"),
        TgtadmOption("l", "lun"),
        TgtadmOption("n", "name"),
        TgtadmOption("v", "value"),
        TgtadmOption("b", "backing-store"),
        TgtadmOption("E", "bstype"),
        TgtadmOption("S", "bsopts"),
        TgtadmOption("f", "bsoflags"),
        TgtadmOption("y", "blocksize"),
        TgtadmOption("T", "targetname"),
        TgtadmOption("I", "initiator-address"),
        TgtadmOption("Q", "initiator-name"),
        TgtadmOption("u", "user"),
        TgtadmOption("p", "password"),
        TgtadmOption("H", "host"),
        TgtadmOption("B", "bus"),
        TgtadmOption("F", "force", long: false),
        TgtadmOption("P", "params"),
        TgtadmOption("Y", "device-type"),
        TgtadmOption("O", "outgoing", long: false),
        TgtadmOption("C", "control-port"),
        TgtadmOption(longOnly: json, "json", takesArgument: false),
        TgtadmOption(longOnly: transaction, "transaction", takesArgument: true),
        TgtadmOption(longOnly: allowWeak, "allow-weak", takesArgument: false),
        TgtadmOption(longOnly: luns, "luns", takesArgument: true),
        TgtadmOption(longOnly: passwordFile, "password-file", takesArgument: true),
        TgtadmOption(longOnly: addSecret, "add-secret", takesArgument: false),
        TgtadmOption(longOnly: retireSecret, "retire-secret", takesArgument: true),
        TgtadmOption(longOnly: bits, "bits", takesArgument: true),
        TgtadmOption(longOnly: tls, "tls", takesArgument: true),
        TgtadmOption(longOnly: tenant, "tenant", takesArgument: true),
        TgtadmOption(longOnly: answers, "answers", takesArgument: true),
    ]

    /// The words with tgt's long options written out where ours, for getopt_long, have made an abbreviation of one ambiguous: what
    /// tgt's tgtadm takes goes on working.
    /// - Parameter words: behind the program's name
    public static func unabbreviated(_ words: [[UInt8]]) -> [[UInt8]] {
        var words = words
        var index = 0
        while index < words.count {
            defer { index += 1 }
            let word = words[index]
            if word.elementsEqual("--".utf8) { break }
            guard word.starts(with: "--".utf8) else {
                // The last letter of a bundle, if it takes an argument, takes the next word.
                if word.first == UInt8(ascii: "-"), let last = word.dropFirst().firstIndex(where: { letter in all.contains { $0.letter == letter && $0.shortTakesArgument } }),
                    last == word.count - 1 { index += 1 }
                continue
            }
            let name = word.dropFirst(2).prefix { $0 != UInt8(ascii: "=") }
            let meant = all.filter { $0.name.utf8.starts(with: name) }
            let known = meant.filter { !$0.isLongOnly }
            let isExact = meant.contains { name.elementsEqual($0.name.utf8) }
            if !isExact, known.count == 1, meant.count > 1 { words[index] = Array("--\(known[0].name)".utf8) + word.dropFirst(2 + name.count) }
            let option = meant.first { name.elementsEqual($0.name.utf8) } ?? (known.count == 1 ? known[0] : meant.count == 1 ? meant[0] : nil)
            if option?.longTakesArgument == true, word.count == 2 + name.count { index += 1 }
        }
        return words
    }

    /// The short options as getopt_long takes them.
    public static let shortOptions = all.filter { !$0.isLongOnly }.map { String(Unicode.Scalar($0.letter)) + ($0.shortTakesArgument ? ":" : "") }.joined()
}

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

/// tgtadm's command line: options as getopt_long finds them, checked as tgt's tgtadm checks them and in its order.
public struct TgtadmCommandLine: Sendable {
    /// What the command line comes to.
    public struct Command: Hashable, Sendable {
        public enum Content: Hashable, Sendable {
            /// What tgt's protocol can say.
            case tgt(TgtRequest)
            /// What only ours can say, and the words that tgt's lacks.
            case own(AdminRequest, words: String)
        }
        public var content: Content
        /// nil: tgt's protocol cannot say it.
        public var request: TgtRequest? {
            if case .tgt(let request) = content { request } else { nil }
        }
        /// As the daemon understands it; nil if it is no request.
        public var understood: AdminRequest? {
            switch content {
            case .tgt(let request): try? AdminRequest(request)
            case .own(let request, _): request
            }
        }
        /// For standard error, before anything is sent.
        public var warnings: [String] = []
        /// Which daemon: the number behind the socket's name.
        public var controlPort: Int
        public var isDebugging: Bool
        public var format = OutputFormat.text
        /// Where answers to what PAM asks are; nil: at the terminal. `-` is standard input.
        public var answers: [UInt8]?

        /// Whether the daemon ends after this answer.
        public func endsDaemon(_ reply: TgtadmExit.Reply) -> Bool {
            guard case .response(let response) = reply else { return false }
            return endsDaemon(response.error)
        }
        public func endsDaemon(_ answer: NativeAnswer) -> Bool { endsDaemon(answer.error) }

        private func endsDaemon(_ error: UInt32) -> Bool {
            request?.mode == .system && request?.operation == .delete && error == TgtError.success.rawValue
        }
    }

    /// Many requests, from a file.
    public struct Transaction: Hashable, Sendable {
        /// `-` is standard input.
        public var path: [UInt8]
        /// For lines that name no driver.
        public var lld: [UInt8]
        public var controlPort: Int
        public var isDebugging: Bool
        public var format: OutputFormat
        /// As a command's.
        public var answers: [UInt8]?
    }

    /// Where a secret is to come from that is not on the command line.
    public enum SecretSource: Hashable, Sendable {
        /// `-` is standard input.
        case file([UInt8])
        /// Asked for at the terminal; without one, the end is this.
        case terminal(user: String, otherwise: TgtadmExit)
    }

    public enum Outcome: Hashable, Sendable {
        /// `supply` it, then `finish` again.
        case needsSecret(SecretSource)
        case send(Command)
        case transact(Transaction)
        case exit(TgtadmExit)
    }

    private var operation: Operation?
    private var mode: Mode?
    private var given: [UInt8] = []
    private var texts: [UInt8: [UInt8]] = [:]
    private var lld: [UInt8] = []
    private var tid: UInt64?
    private var sid: UInt64 = 0
    private var lun: UInt64?
    private var cid: UInt64 = 0
    private var host: UInt64 = 0
    private var deviceType: DeviceType?
    private var controlPort: UInt64 = 0
    private var bits: UInt64 = 96
    private var overTLS = false
    /// Not from the command line, where others see it.
    private var secretIsSupplied = false

    public init() {}

    /// The secret that was asked for.
    public mutating func supply(secret: [UInt8]) {
        texts[UInt8(ascii: "p")] = secret
        secretIsSupplied = true
    }

    /// The secret that a file has: its text, without the end of the line behind it.
    public static func secret(fromFile bytes: [UInt8]) -> [UInt8] {
        guard bytes.last == UInt8(ascii: "\n") else { return bytes }
        return bytes.dropLast().last == UInt8(ascii: "\r") ? bytes.dropLast(2) : bytes.dropLast()
    }
    /// Bytes of such a file: no secret is longer.
    public static let greatestSecretFile = 1024

    /// Takes the next option, with its argument if it has one.
    /// - Returns: nil to go on, or the end
    public mutating func take(_ letter: UInt8, _ argument: [UInt8]?) -> TgtadmExit? {
        let text = argument ?? []
        given.append(letter)
        switch Unicode.Scalar(letter) {
        case "h": return TgtadmExit(output: Array(Self.usage.utf8), code: 0)
        case "V": return TgtadmExit(output: Array((version + "\n").utf8), code: 0)
        case "o":
            operation = Self.operations.first { text.elementsEqual($0.word.utf8) }?.operation
            if operation == nil { return TgtadmExit(errors: ["tgtadm: unknown operation: \(Self.shown(text))"], code: 1) }
        case "m":
            mode = Self.modes.first { text.elementsEqual($0.word.utf8) }?.mode
            if mode == nil { return TgtadmExit(errors: ["tgtadm: unknown mode: \(Self.shown(text))"], code: 1) }
        case "Y":
            deviceType = DeviceType.named(text)
            if deviceType == nil { return .usage("unknown target type: \(Self.shown(text))") }
        case "B":
            // tgt looks in /sys/bus for BUS,DEVICE; no driver here has buses.
            if let comma = text.firstIndex(of: UInt8(ascii: ",")) { return .usage("can't find bus: \(Self.shown(Array(text[..<comma])))") }
            texts[letter] = text
        case "L": lld = text
        case "t": return number(text, letter, atMost: UInt64(Int32.max)) { $0.tid = $1 }
        case "s": return number(text, letter, atMost: .max) { $0.sid = $1 }
        case "l": return number(text, letter, atMost: .max) { $0.lun = $1 }
        case "c": return number(text, letter, atMost: UInt64(UInt32.max)) { $0.cid = $1 }
        case "H": return number(text, letter, atMost: UInt64(Int32.max)) { $0.host = $1 }
        case "C": return number(text, letter, atMost: Self.greatestControlPort) { $0.controlPort = $1 }
        case Unicode.Scalar(TgtadmOption.bits):
            guard let bits = Number.decimal(text), bits <= UInt64(UInt32.max) else { return .usage("--bits takes a number, not '\(Self.shown(text))'") }
            self.bits = bits
        case Unicode.Scalar(TgtadmOption.tls):
            guard let answer = [("yes", true), ("no", false)].first(where: { text.elementsEqual($0.0.utf8) }) else { return .usage("--tls takes yes or no") }
            overTLS = answer.1
        case Unicode.Scalar(TgtadmOption.retireSecret):
            guard Self.generations.contains(where: { text.elementsEqual($0.word.utf8) }) else { return .usage("--retire-secret takes old or new") }
            texts[letter] = text
        case "?": return TgtadmExit(errors: [TgtadmExit.tryHelp], code: TgtadmExit.invalid)
        default: texts[letter] = text
        }
        return nil
    }

    /// All options are taken.
    /// - Parameter strays: words that belong to no option
    public func finish(strays: [[UInt8]]) -> Outcome {
        if let stray = strays.first {
            return .exit(TgtadmExit(errors: ["tgtadm: unrecognized option '\(Self.shown(stray))'", TgtadmExit.tryHelp], code: TgtadmExit.invalid))
        }
        let isDebugging = given.contains(UInt8(ascii: "d"))
        let format: OutputFormat = given.contains(TgtadmOption.json) ? .json : .text
        if texts[TgtadmOption.passwordFile] != nil, given.contains(UInt8(ascii: "p")) { return .exit(.usage("--password and --password-file do not go together")) }
        if let path = texts[TgtadmOption.transaction] {
            let allowed = [TgtadmOption.transaction, TgtadmOption.json, TgtadmOption.answers] + Array("dCL".utf8)
            if let letter = given.first(where: { !allowed.contains($0) }) {
                return .exit(.usage("option '\(Self.shown(letter: letter))' does not go with --transaction"))
            }
            return .transact(Transaction(path: path, lld: lld, controlPort: Int(controlPort), isDebugging: isDebugging, format: format, answers: texts[TgtadmOption.answers]))
        }
        guard let operation else { return .exit(.usage("specify the operation type")) }
        guard let mode else { return .exit(.usage("specify the mode")) }
        let complaint = complaint(mode, operation)
        if complaint == nil || complaint == Self.secretIsMissing, let source = secretSource(mode, operation) { return .needsSecret(source) }
        if let complaint { return .exit(.usage(complaint)) }
        if format == .json, ![.tgt(.show), .tgt(.stat), .explain, .generate].contains(operation) {
            return .exit(.usage("--json goes with the operations show, stat, explain and generate, and with --transaction"))
        }
        func command(_ content: Command.Content) -> Outcome {
            var command = Command(content: content, controlPort: Int(controlPort), isDebugging: isDebugging, format: format)
            command.answers = texts[TgtadmOption.answers]
            if given.contains(UInt8(ascii: "p")) {
                command.warnings.append("tgtadm: warning: others on this host can see a secret on the command line; see --password-file")
            }
            return .send(command)
        }
        if let (action, words) = own(mode, operation) {
            return command(.own(AdminRequest(lld: lld, tenant: texts[TgtadmOption.tenant], action), words: words))
        }
        guard case .tgt(let mode) = mode, case .tgt(let operation) = operation else { return .exit(.usage(TgtError.invalidRequest.text)) }
        let request = request(mode, operation)
        guard request.encoded() != nil else {
            return .exit(.usage("the request is too long: at most \(TgtRequest.greatestPayload) bytes of text and a driver's name of 63"))
        }
        return command(.tgt(request))
    }

    /// What tgt's protocol has no words for, whose options are there; and those words.
    private func own(_ mode: Mode, _ operation: Operation) -> (AdminRequest.Action, words: String)? {
        func text(_ letter: Unicode.Scalar) -> [UInt8]? { texts[UInt8(ascii: letter)] }
        let number = tid.map { Int32(truncatingIfNeeded: $0) }
        let user = text("u") ?? []
        switch (mode, operation) {
        case (.access, .explain):
            return (.explainAccess(.init(tid: number ?? 0, name: text("Q") ?? [], address: text("I") ?? [], user: text("u"), overTLS: overTLS)), "--mode access")
        case (.policy, .explain): return (.explainPolicy(.init(user: text("u"))), "--mode policy")
        case (.tgt(.account), .tgt(.new)) where texts[TgtadmOption.tenant] != nil:
            return (.newAccount(user: user, password: text("p") ?? [], allowWeak: given.contains(TgtadmOption.allowWeak)), "--tenant")
        case (.tgt(.account), .tgt(.delete)) where texts[TgtadmOption.tenant] != nil: return (.deleteAccount(user: user), "--tenant")
        case (.access, .tgt(.show)): return (.showPenalties, "--mode access")
        case (.access, .tgt(.delete)): return (.clearPenalties(address: text("I") ?? []), "--mode access")
        case (.tgt(.target), .tgt(.bind)):
            guard let luns = texts[TgtadmOption.luns] else { return nil }
            return (.bindInitiators(tid: number ?? 0, .init(address: text("I"), name: text("Q")), luns: luns), "--luns")
        case (.tgt(.portal), .tgt(.new)), (.tgt(.portal), .tgt(.update)):
            // Of more than an address, a daemon that knows tgt's protocol alone would take the address, and open it in clear.
            guard let (place, others) = portalParameters else { return nil }
            if operation == .tgt(.update) { return (.updatePortal(place, others), "--op update with portals") }
            return others.isEmpty ? nil : (.newPortal(place, others), "--param with more than portal=")
        case (.tgt(.account), .generate): return (.generateSecret(user: user, bits: UInt32(truncatingIfNeeded: bits)), "--op generate")
        case (.tgt(.account), .tgt(.update)):
            if let word = texts[TgtadmOption.retireSecret], let generation = Self.generations.first(where: { word.elementsEqual($0.word.utf8) })?.generation {
                return (.retireSecret(user: user, generation), "--retire-secret")
            }
            return (.addSecret(user: user, password: text("p") ?? [], allowWeak: given.contains(TgtadmOption.allowWeak)), "--add-secret")
        case (.tgt(.account), .tgt(.bind)), (.tgt(.account), .tgt(.unbind)):
            guard let initiator = text("Q") else { return nil }
            let binding = AdminRequest.AccountBinding(user: user, tid: number, outgoing: given.contains(UInt8(ascii: "O")), initiator: initiator)
            return (operation == .tgt(.bind) ? .bindAccount(binding) : .unbindAccount(binding), "--initiator-name with accounts")
        default: return nil
        }
    }

    /// What `--param portal=ADDRESS,name=value,…` says; nil: it says no portal, or something that is no setting.
    private var portalParameters: (place: [UInt8], others: [AdminRequest.Setting])? {
        guard let text = texts[UInt8(ascii: "P")] else { return nil }
        var settings: [AdminRequest.Setting] = []
        for item in text.split(separator: UInt8(ascii: ",")) {
            guard let split = item.firstIndex(of: UInt8(ascii: "=")), split > item.startIndex else { return nil }
            settings.append(.init(name: Array(item[..<split]), value: Array(item[(split + 1)...])))
        }
        let places = settings.filter { $0.name.elementsEqual("portal".utf8) }
        return places.count == 1 ? (places[0].value, settings.filter { !$0.name.elementsEqual("portal".utf8) }) : nil
    }

    private static let generations: [(word: String, generation: AdminRequest.SecretGeneration)] = [("old", .old), ("new", .new)]

    /// Whether a secret has to come from elsewhere than the command line.
    private func secretSource(_ mode: Mode, _ operation: Operation) -> SecretSource? {
        let wantsSecret = operation == .tgt(.new) || operation == .tgt(.update) && given.contains(TgtadmOption.addSecret)
        guard mode == .tgt(.account), wantsSecret, texts[UInt8(ascii: "p")] == nil, let user = texts[UInt8(ascii: "u")] else { return nil }
        if let path = texts[TgtadmOption.passwordFile] { return .file(path) }
        return .terminal(user: Self.shown(user), otherwise: .usage(Self.secretIsMissing))
    }

    private static let secretIsMissing = "'user' and 'password' options are required"

    /// All options of a transaction's line are taken.
    /// - Returns: its request, or why it is none
    public func finishLine(strays: [[UInt8]]) -> Result<AdminRequest, TgtadmExit> {
        let elsewhere = Array("CdhV".utf8) + [TgtadmOption.json, TgtadmOption.transaction, TgtadmOption.answers]
        if let letter = given.first(where: elsewhere.contains) {
            return .failure(.usage("option '\(Self.shown(letter: letter))' does not belong into a transaction"))
        }
        switch finish(strays: strays) {
        case .exit(let end): return .failure(end)
        case .transact: return .failure(.usage("a transaction cannot be part of one"))
        case .send(let command):
            guard let request = command.understood else { return .failure(.usage(TgtError.invalidRequest.text)) }
            return .success(request)
        case .needsSecret(.terminal(_, let end)): return .failure(end)
        case .needsSecret(.file): return .failure(.usage("the secret's file has not been read"))
        }
    }

    private static func shown(letter: UInt8) -> String {
        let option = TgtadmOption.all.first { $0.letter == letter }
        return option?.isLongOnly == true ? "--" + (option?.name ?? "") : "-\(Unicode.Scalar(letter))"
    }

    /// Where the daemon listens: the number is added to the name.
    public static let defaultSocket = "/var/run/tgtd/socket"
    /// Environment variable with another name for the socket.
    public static let socketVariable = "TGT_IPC_SOCKET"
    static let greatestControlPort: UInt64 = 32767

    private enum Operation: Hashable, Sendable { case tgt(TgtRequest.Operation), explain, generate }

    private static let operations: [(word: String, operation: Operation)] = [
        ("new", .tgt(.new)), ("delete", .tgt(.delete)), ("bind", .tgt(.bind)), ("unbind", .tgt(.unbind)), ("show", .tgt(.show)),
        ("update", .tgt(.update)), ("stat", .tgt(.stat)), ("start", .tgt(.start)), ("stop", .tgt(.stop)), ("explain", .explain),
        ("generate", .generate),
    ]

    private enum Mode: Hashable, Sendable { case tgt(TgtRequest.Mode), access, policy }

    private static let modes: [(word: String, mode: Mode)] = [
        ("system", .tgt(.system)), ("sys", .tgt(.system)), ("target", .tgt(.target)), ("tgt", .tgt(.target)),
        ("logicalunit", .tgt(.logicalUnit)), ("lu", .tgt(.logicalUnit)), ("portal", .tgt(.portal)), ("pt", .tgt(.portal)),
        ("session", .tgt(.session)), ("sess", .tgt(.session)), ("connection", .tgt(.connection)), ("conn", .tgt(.connection)),
        ("account", .tgt(.account)), ("lld", .tgt(.lld)), ("access", .access), ("policy", .policy),
    ]

    private struct DeviceType: Sendable {
        let words: [String]
        let code: UInt32
        /// A removable medium may be absent.
        let needsStore: Bool

        static let all = [
            DeviceType(words: ["disk"], code: 0x00, needsStore: false),
            DeviceType(words: ["tape", "ssc"], code: 0x01, needsStore: false),
            DeviceType(words: ["cd"], code: 0x05, needsStore: false),
            DeviceType(words: ["changer"], code: 0x08, needsStore: true),
            DeviceType(words: ["osd"], code: 0x11, needsStore: true),
            DeviceType(words: ["pt"], code: 0xff, needsStore: true),
        ]
        static let tape: UInt32 = 0x01

        static func named(_ word: [UInt8]) -> DeviceType? { all.first { $0.words.contains { word.elementsEqual($0.utf8) } } }
    }

    // MARK: Checks

    /// What an operation asks for besides.
    private enum Requirement: Sendable { case targetName, initiator, nameAndValue, backingStore, portal, portalChange, userAndPassword, user, nameAndAddress, address, secretChange }

    private struct Rule: Sendable {
        let mode: Mode
        let operation: Operation
        /// Letters of the options that may be given (`-d` always may); nil: all.
        let allowed: [UInt8]?
        let requirement: Requirement?
        /// How another option is refused: tgt has two wordings.
        var wording = Wording.notAllowed

        enum Wording: Sendable { case notAllowed, notSupported }

        /// - Parameters:
        ///   - allowed: tgt's options
        ///   - own: ours
        init(
            _ mode: Mode, _ operation: Operation, _ allowed: String?, own: [UInt8] = [], _ requirement: Requirement? = nil, _ wording: Wording = .notAllowed
        ) {
            self.mode = mode
            self.operation = operation
            self.allowed = allowed.map { Array($0.utf8) + own }
            self.requirement = requirement
            self.wording = wording
        }

        init(
            _ mode: TgtRequest.Mode, _ operation: TgtRequest.Operation, _ allowed: String?, own: [UInt8] = [], _ requirement: Requirement? = nil,
            _ wording: Wording = .notAllowed
        ) {
            self.init(.tgt(mode), .tgt(operation), allowed, own: own, requirement, wording)
        }
    }

    private static let rules: [Rule] = [
        Rule(.system, .update, "LmonvC", .nameAndValue),
        Rule(.system, .show, nil),
        Rule(.system, .delete, nil),
        Rule(.system, .stat, nil),
        Rule(.target, .new, "LmotTC", .targetName),
        Rule(.target, .delete, "LmotCF"),
        Rule(.target, .show, "LmotC"),
        Rule(.target, .stat, "LmotC"),
        Rule(.target, .bind, "LmotIQBHC", own: [TgtadmOption.luns], .initiator),
        Rule(.target, .unbind, "LmotIQBHC", .initiator),
        Rule(.target, .update, "LmotnvC", .nameAndValue),
        Rule(.logicalUnit, .new, "LmofytlbEYCS", .backingStore),
        Rule(.logicalUnit, .delete, "LmotlC"),
        Rule(.logicalUnit, .stat, "LmotlC"),
        Rule(.logicalUnit, .update, "LmofytlPC", nil, .notSupported),
        Rule(.portal, .new, "LmoCP", .portal),
        Rule(.portal, .delete, "LmoCP", .portal),
        Rule(.portal, .update, "LmoCP", .portalChange),
        Rule(.portal, .show, "LmoC", nil, .notSupported),
        Rule(.account, .new, "LmoupfC", own: [TgtadmOption.passwordFile, TgtadmOption.allowWeak, TgtadmOption.tenant], .userAndPassword),
        Rule(.account, .update, "LmoupC", own: [TgtadmOption.addSecret, TgtadmOption.retireSecret, TgtadmOption.passwordFile, TgtadmOption.allowWeak, TgtadmOption.tenant], .secretChange),
        Rule(.tgt(.account), .generate, "LmouC", own: [TgtadmOption.bits, TgtadmOption.tenant], .user),
        Rule(.account, .show, "LmoC"),
        Rule(.account, .delete, "LmouC", own: [TgtadmOption.tenant]),
        Rule(.account, .bind, "LmotuOQC", .user),
        Rule(.account, .unbind, "LmotuOQC", .user),
        Rule(.lld, .start, "LmoC"),
        Rule(.lld, .stop, "LmoC"),
        Rule(.lld, .show, "LmoC"),
        Rule(.access, .explain, "LmotIQuC", own: [TgtadmOption.tls], .nameAndAddress),
        Rule(.policy, .explain, "LmouC", own: [TgtadmOption.tenant]),
        Rule(.access, .tgt(.show), "LmoC"),
        Rule(.access, .tgt(.delete), "LmoIC", .address),
    ]

    /// Modes whose requests tgtadm passes on unchecked.
    private static let unchecked: [Mode] = [.tgt(.session), .tgt(.connection)]

    private func complaint(_ mode: Mode, _ operation: Operation) -> String? {
        if Self.unchecked.contains(mode), case .tgt = operation { return commaComplaint() }
        if mode == .access && operation == .explain || mode == .tgt(.target) && operation != .tgt(.show) {
            guard let tid else { return "'tid' option is necessary" }
            if tid == 0 { return "'tid' cannot be 0" }
        }
        if mode == .tgt(.logicalUnit) {
            guard let tid else { return "'tid' option is necessary" }
            if tid == 0 { return "'tid' must not be 0" }
            if lun == nil { return "'lun' option is necessary" }
        }
        // Without our options, an account is updated no more than in tgt; and a portal without saying which.
        let changesSecret = given.contains(TgtadmOption.addSecret) || given.contains(TgtadmOption.retireSecret)
        let changesPortal = portalParameters != nil
        guard let rule = Self.rules.first(where: { $0.mode == mode && $0.operation == operation && ($0.requirement != .secretChange || changesSecret) && ($0.requirement != .portalChange || changesPortal) }) else {
            if mode == .tgt(.lld), case .tgt(let operation) = operation { return "option \(operation.rawValue) not supported in lld mode" }
            return "operation \(word(operation)) not supported in \(word(mode)) mode"
        }
        let everywhere = [UInt8(ascii: "d"), TgtadmOption.json, TgtadmOption.answers]
        if let allowed = rule.allowed, let letter = given.first(where: { !allowed.contains($0) && !everywhere.contains($0) }) {
            let option = "option '\(Self.shown(letter: letter))'"
            return rule.wording == .notAllowed ? "\(word(mode)) mode: \(option) is not allowed/supported" : "\(option) not supported in \(word(mode)) mode"
        }
        return rule.requirement.flatMap { complaint($0, operation) } ?? commaComplaint()
    }

    private func complaint(_ requirement: Requirement, _ operation: Operation) -> String? {
        func has(_ letter: Unicode.Scalar) -> Bool { texts[UInt8(ascii: letter)] != nil }
        return switch requirement {
        case .targetName: has("T") ? nil : "creating new target requires a name, use --targetname"
        case .initiator: has("I") || has("Q") || has("B") ? nil : "\(word(operation)) operation requires initiator-address, initiator-nameor bus"
        case .nameAndValue: has("n") && has("v") ? nil : "update operation requires 'name' and 'value' options"
        case .backingStore: has("b") || deviceType?.needsStore != true ? nil : "'backing-store' option is necessary"
        case .portalChange: nil
        case .portal: has("P") ? nil : "you must specify --param portal=<portal>"
        case .userAndPassword: has("u") && has("p") ? nil : Self.secretIsMissing
        case .user: has("u") ? nil : "'user' option is necessary"
        case .secretChange:
            if !has("u") {
                "'user' option is necessary"
            } else if given.contains(TgtadmOption.addSecret), given.contains(TgtadmOption.retireSecret) {
                "'add-secret' and 'retire-secret' do not go together"
            } else if given.contains(TgtadmOption.retireSecret), has("p") || texts[TgtadmOption.passwordFile] != nil || given.contains(TgtadmOption.allowWeak) {
                "'retire-secret' takes no secret"
            } else {
                nil
            }
        case .nameAndAddress: has("Q") && has("I") ? nil : "'initiator-name' and 'initiator-address' options are required"
        case .address: has("I") ? nil : "'initiator-address' option is necessary"
        }
    }

    /// The request's items are joined by commas, so that a comma in one would begin another.
    private func commaComplaint() -> String? {
        for (letter, _) in Self.items where texts[letter]?.contains(UInt8(ascii: ",")) == true && letter != UInt8(ascii: "p") {
            return "the argument of option '-\(Unicode.Scalar(letter))' must not have a comma"
        }
        return nil
    }

    private func word(_ operation: Operation) -> String { Self.operations.first { $0.operation == operation }?.word ?? "" }
    private func word(_ mode: Mode) -> String { Self.modes.first { $0.mode == mode }?.word ?? "" }

    private static func shown(_ text: [UInt8]) -> String { String(decoding: text, as: UTF8.self) }

    // MARK: The request

    /// Options that become items of the text, in this order, behind `name=value`.
    private static let items: [(letter: UInt8, name: String)] = [
        (UInt8(ascii: "b"), "path"), (UInt8(ascii: "E"), "bstype"), (UInt8(ascii: "S"), "bsopts"), (UInt8(ascii: "f"), "bsoflags"),
        (UInt8(ascii: "y"), "blocksize"), (UInt8(ascii: "T"), "targetname"), (UInt8(ascii: "I"), "initiator-address"),
        (UInt8(ascii: "Q"), "initiator-name"), (UInt8(ascii: "u"), "user"), (UInt8(ascii: "p"), "password"),
    ]

    private func request(_ mode: TgtRequest.Mode, _ operation: TgtRequest.Operation) -> TgtRequest {
        var request = TgtRequest(mode, operation)
        request.lld = lld
        request.tid = tid.map { Int32(truncatingIfNeeded: $0) } ?? -1
        request.sid = sid
        request.lun = lun ?? .max
        request.cid = UInt32(truncatingIfNeeded: cid)
        request.hostNumber = UInt32(truncatingIfNeeded: host)
        request.deviceType = deviceType?.code ?? 0
        request.accountDirection = given.contains(UInt8(ascii: "O")) ? .outgoing : .incoming
        request.force = given.contains(UInt8(ascii: "F")) || given.contains(TgtadmOption.allowWeak)
        request.payload = text(mode)
        return request
    }

    private func text(_ mode: TgtRequest.Mode) -> [UInt8] {
        var texts = texts
        if deviceType?.code == DeviceType.tape { texts[UInt8(ascii: "E")] = Array("ssc".utf8) }
        var items: [[UInt8]] = []
        if let name = texts[UInt8(ascii: "n")], let value = texts[UInt8(ascii: "v")] { items.append(name + Array("=".utf8) + value) }
        for (letter, name) in Self.items {
            if let value = texts[letter] { items.append(Array((name + "=").utf8) + value) }
        }
        if let parameters = texts[UInt8(ascii: "P")] {
            items.append(Array((mode == .portal ? "portalOps " : "targetOps ").utf8) + parameters + Array(",".utf8))
        }
        return Array(items.joined(separator: Array(",".utf8)))
    }

    // MARK: Numbers

    private mutating func number(_ text: [UInt8], _ letter: UInt8, atMost limit: UInt64, _ set: (inout Self, UInt64) -> Void) -> TgtadmExit? {
        func refusal(_ reason: String) -> TgtadmExit {
            TgtadmExit(errors: ["-\(Unicode.Scalar(letter)) argument value '\(Self.shown(text))' \(reason)", TgtadmExit.tryHelp], code: TgtadmExit.invalid)
        }
        guard let value = Self.unsignedLong(text), value != .max else { return refusal("invalid") }
        guard value <= limit else { return refusal("out of range") }
        set(&self, value)
        return nil
    }

    /// C's strtoull with base 0: leading blanks and a sign are taken, what follows the number is not looked at (Longhorn says
    /// `--tid 1:`), a negative number wraps, a too large one is the largest. nil without any digit.
    static func unsignedLong(_ text: [UInt8]) -> UInt64? {
        var rest = text[...].drop { $0 == 0x20 || (0x09...0x0d).contains($0) }
        var isNegative = false
        if let sign = rest.first, sign == UInt8(ascii: "-") || sign == UInt8(ascii: "+") {
            isNegative = sign == UInt8(ascii: "-")
            rest = rest.dropFirst()
        }
        var radix: UInt64 = 10
        if rest.first == UInt8(ascii: "0") {
            radix = 8
            let behind = rest.dropFirst()
            if let x = behind.first, x | 0x20 == UInt8(ascii: "x"), let digit = behind.dropFirst().first.flatMap(Number.digit), digit < 16 {
                radix = 16
                rest = behind.dropFirst()
            }
        }
        let digits = rest.prefix { Number.digit($0).map { $0 < radix } ?? false }
        guard !digits.isEmpty else { return nil }
        var value: UInt64 = 0
        for digit in digits {
            let (product, tooLarge) = value.multipliedReportingOverflow(by: radix)
            let (sum, overflow) = product.addingReportingOverflow(Number.digit(digit) ?? 0)
            if tooLarge || overflow { return .max }
            value = sum
        }
        return isNegative ? 0 &- value : value
    }
}

extension TgtadmCommandLine {
    static let usage = """
        tgtadm administers the iSCSI target daemon tgtd.

        Usage: tgtadm [--control-port N] [--lld iscsi] --mode MODE --op OPERATION [OPTION...]

        Targets
          --mode target --op new --tid ID --targetname NAME
          --mode target --op delete [--force] --tid ID
                ends the target's sessions only with --force
          --mode target --op show [--tid ID]
                all targets, or the iSCSI keys of one
          --mode target --op update --tid ID --name KEY --value VALUE
                KEY: an iSCSI key, state, nop_interval, nop_count
          --mode target --op bind|unbind --tid ID [--initiator-address ADDRESS] [--initiator-name NAME]
                who may log in; ADDRESS: ALL, an address, or a network like 10.0.0.0/8;
                NAME: an initiator name, with * and ? as in file names.
                Nobody may without any; addresses and names must both match if both are given.
                The most specific rule that matches decides
          --mode target --op stat --tid ID

        Logical units
          --mode logicalunit --op new --tid ID --lun LUN --backing-store PATH
                [--bstype rdwr|null] [--bsoflags sync|direct|sync:direct] [--blocksize 512|4096]
          --mode logicalunit --op delete --tid ID --lun LUN
          --mode logicalunit --op update --tid ID --lun LUN --params KEY=VALUE[,KEY=VALUE...]
                KEY: online, readonly, removable, path, thin_provisioning, scsi_id, scsi_sn, vendor_id,
                product_id, product_rev, mode_page, rotation_rate, lbppbe, la_lba, optimal_xfer_gran,
                optimal_xfer_len, sense_format
          --mode logicalunit --op stat --tid ID --lun LUN

        Accounts
          --mode account --op new --user NAME [--password-file FILE] [--allow-weak]
                the secret is the text of FILE (-: standard input), or asked for at the terminal. It has at
                least 12 characters, with --allow-weak 1. With --password SECRET others on this host see it
          --mode account --op delete --user NAME
          --mode account --op show
          --mode account --op bind|unbind --user NAME [--tid ID] [--outgoing]
                without a target: for discovery

        Connections
          --mode connection --op show --tid ID
          --mode connection --op delete --tid ID --sid SESSION --cid CONNECTION
          --mode connection --op stat --tid ID --sid SESSION
          --mode session --op stat --tid ID --sid SESSION

        Portals and the system
          --mode portal --op new|delete --param portal=ADDRESS[:PORT]
          --mode portal --op show
          --mode system --op show|stat
          --mode system --op update --name State --value offline|ready
          --mode system --op update --name debug --value on|off
          --mode system --op delete
                ends the daemon; there must be no target
          --mode lld --op show

        With Portcullis's tgtd only
          --mode target --op bind --tid ID ... --luns LIST
                what the rule shows of the target: numbers and ranges like 0,2-5:ro,7, with :ro for
                reading only; all, all:ro. Without it: everything. A rule that is there gets the list
          --mode account --op generate --user NAME [--bits BITS]
                draws a secret for the account, new or there already, and shows it this once: 16 printable
                characters (96 bits), or as many as BITS take
          --mode account --op update --user NAME --add-secret [--password-file FILE] [--allow-weak]
          --mode account --op update --user NAME --retire-secret old|new
                an account may have two secrets while one takes the place of the other
          --mode account --op bind|unbind --user NAME --tid ID --initiator-name NAME
                for this initiator alone; no other account may use its name there then
          --mode target --op update --tid ID --name RequireTLS --value Yes|No
                whether the target is there only on portals with TLS
          --mode portal --op new --param portal=ADDRESS[:PORT],tls=required,certificate=FILE,key=FILE[,...]
          --mode portal --op update --param portal=ADDRESS[:PORT][,NAME=VALUE...]
                NAME: certificate, key (PEM); client-ca, crl (PEM), client-map (lines fingerprint
                initiator-name); psk-file (lines identity:key:initiator-name); client-auth=required|optional|none;
                policy=2026-11-strict|2026-11-compatible; advertise=ADDRESS:PORT, tpgt=N also in clear.
                An update reads all files anew; NAME= takes a parameter away; sessions go on
          --mode access --op explain --tid ID --initiator-name NAME --initiator-address ADDRESS [--user USER]
                [--tls yes|no]
                whether this initiator may log in, having authenticated as USER, and by which rules
          --mode access --op show
                who has to wait after failures to log in, and for how many seconds more
          --mode access --op delete --initiator-address ADDRESS
                forgets their failures: of an address, of a network (ADDRESS/LENGTH), of ALL
          --mode policy --op explain [--user NAME] [--tenant NAME]
                what the user of this host, or who asks, may do (with what is the tenant's), and by which
                lines of the policy
          --tenant NAME         with accounts: whose it is, where it could be of several tenants
          --answers FILE        answers to what PAM asks, a line each (-: standard input), in the place of
                                the terminal
          --json                with show, stat and explain: print JSON
          --transaction FILE    carry out the lines of FILE (-: standard input), each the options of
                                one tgtadm that changes something: all of them, or none

        -d, --debug             tell what is sent
        -C, --control-port N    speak to the daemon with this number
        -V, --version
        -h, --help

        """
}
