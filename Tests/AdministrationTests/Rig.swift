import Administration
import Bytes
import Crypto
import ISCSI
import Management
import Model
import Testing

func utf8(_ text: String) -> [UInt8] { Array(text.utf8) }
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// tgtadm and a control process without any machine below them: stores are names with sizes, effects succeed unless told
/// otherwise. Requests and answers go through their wire formats.
struct Rig {
    var configuration = Configuration(identitySource: IdentitySource(installation: Array(0..<16), keepsTgtDefaults: true))
    var view = RuntimeView()
    /// Bytes of the stores that can be opened.
    var stores: [String: UInt64] = ["/tmp/pcx/disk1": 100 << 20, "/tmp/pcx/disk2": 1 << 30, "/tmp/pcx/disk3": 10 << 20]
    var failure: (TgtError, String)?
    var isRunning = true

    private(set) var effects: [Effect] = []
    private(set) var changes: [Change] = []
    private(set) var reason: String?

    init() throws { _ = try configuration.addPortal(Portal(parsing: utf8("127.0.0.1:13990"))) }

    /// Runs tgtadm with these words. Long options may be abbreviated.
    mutating func call(_ line: String) throws -> TgtadmExit {
        var command = TgtadmCommandLine()
        var words = line.split(separator: " ").map(String.init)[...]
        while let word = words.popFirst() {
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            let option = try #require(TgtadmOption.all.first { word.hasPrefix("--") ? ("--" + $0.name).hasPrefix(parts[0]) : utf8(word) == [UInt8(ascii: "-"), $0.letter] })
            let takesArgument = word.hasPrefix("--") ? option.longTakesArgument : option.shortTakesArgument
            let argument: String? = if !takesArgument { nil } else if word.hasPrefix("--"), parts.count == 2 { parts[1] } else { words.popFirst() }
            if let end = command.take(option.letter, argument.map(utf8)) { return end }
        }
        switch command.finish(strays: []) {
        case .exit(let end), .needsSecret(.terminal(_, let end)): return end
        case .needsSecret, .transact: throw TgtError.invalidRequest
        case .send(let command):
            guard let asked = command.request, command.format == .text else {
                return TgtadmExit(.response(serve(try #require(command.understood), format: command.format)))
            }
            var decoder = TgtRequestDecoder()
            let bytes = try #require(asked.encoded())
            let request = try decoder.feed(bytes.span)
            let answer = serve(try #require(request)).encoded()
            var answers = TgtResponseDecoder()
            let response = try answers.feed(answer.span)
            return TgtadmExit(.response(try #require(response)))
        }
    }

    mutating func serve(_ request: TgtRequest) -> TgtResponse { carryOut { Administrator.plan(request, $0, $1) } }
    mutating func serve(_ request: AdminRequest, format: OutputFormat) -> TgtResponse {
        carryOut { Administrator.plan(request, $0, $1, format: format) }
    }

    private mutating func carryOut(_ first: (Configuration, RuntimeView) -> Plan) -> TgtResponse {
        effects = []
        changes = []
        var plan = first(configuration, view)
        while case .perform(let effect, let continuation) = plan {
            effects.append(effect)
            plan = Administrator.resume(continuation, carryOut(effect), configuration)
        }
        switch plan {
        case .answer(let answer):
            reason = answer.reason
            return answer.response
        case .commit(let new, let changes, let answer):
            configuration = new
            self.changes = changes
            reason = nil
            return answer.response
        case .stop(let answer):
            isRunning = false
            reason = nil
            return answer.response
        case .perform: return TgtResponse(.unknown)
        }
    }

    private func carryOut(_ effect: Effect) -> EffectOutcome {
        if let failure { return .failed(failure.0, failure.1) }
        switch effect {
        case .openStore(let request):
            guard let path = request.store.path, let size = stores[text(path.bytes)] else { return .failed(.invalidRequest, "no such file") }
            return .opened(StoreFacts(byteCount: size, isWritable: !request.readOnly))
        case .listen(let portal): return .listening(portal)
        case .drawSecret(let characters): return .drawn(.printable(characters: characters))
        default: return .done
        }
    }
}
