import Bytes

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
