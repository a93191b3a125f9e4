import Bytes
import Foundation
import Management
import Testing

func utf8(_ text: String) -> [UInt8] { Array(text.utf8) }
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// As GNU getopt_long takes words apart: abbreviations, `--name=value`, bundled letters, strays anywhere.
func outcome(_ words: [String]) -> TgtadmCommandLine.Outcome {
    var line = TgtadmCommandLine()
    var strays: [[UInt8]] = []
    var rest = words[...]
    func option(_ letter: UInt8) -> TgtadmOption? { TgtadmOption.all.first { $0.letter == letter } }
    while let word = rest.popFirst() {
        if word == "--" {
            strays += rest.map(utf8)
            break
        }
        if word.hasPrefix("--") {
            let parts = word.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard let option = TgtadmOption.all.first(where: { $0.name.hasPrefix(parts[0]) }) else { return .exit(line.take(UInt8(ascii: "?"), nil)!) }
            let argument = !option.longTakesArgument ? nil : parts.count == 2 ? parts[1] : rest.popFirst()
            if let end = line.take(option.letter, argument.map(utf8)) { return .exit(end) }
        } else if word.hasPrefix("-"), word != "-" {
            var letters = utf8(word).dropFirst()
            while let letter = letters.popFirst() {
                guard let option = option(letter) else { return .exit(line.take(UInt8(ascii: "?"), nil)!) }
                guard option.shortTakesArgument else {
                    if let end = line.take(letter, nil) { return .exit(end) }
                    continue
                }
                let argument = letters.isEmpty ? rest.popFirst().map(utf8) : Array(letters)
                if let end = line.take(letter, argument) { return .exit(end) }
                break
            }
        } else {
            strays.append(utf8(word))
        }
    }
    return line.finish(strays: strays)
}

func errors(_ words: String) -> [String] {
    switch outcome(words.split(separator: " ").map(String.init)) {
    case .exit(let end), .needsSecret(.terminal(_, let end)): end.errors
    default: []
    }
}

func request(_ words: String) -> TgtRequest? {
    if case .send(let command) = outcome(words.split(separator: " ").map(String.init)) { command.request } else { nil }
}

@Suite("tgtadm's command line")
struct CommandLineTests {
    struct Call {
        var words: String
        var code: Int32 = -1
        var errors: [String] = []
        var request: TgtRequest?
    }

    /// What Debian's tgtadm was seen to do (`Recorded/record.py`).
    static func recorded() throws -> [Call] {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Recorded/tgtadm.recorded")
        var calls: [Call] = []
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
            let rest = String(line.dropFirst(2))
            switch line.first {
            case "$": calls.append(Call(words: rest))
            case "=": calls[calls.count - 1].code = try #require(Int32(rest))
            case "!": calls[calls.count - 1].errors.append(rest)
            default: calls[calls.count - 1].request = try Self.recordedRequest(rest)
            }
        }
        return calls
    }

    static func recordedRequest(_ record: String) throws -> TgtRequest {
        let fields = record.split(separator: " ", maxSplits: 11, omittingEmptySubsequences: false).map(String.init)
        func number<Number: FixedWidthInteger>(_ index: Int) throws -> Number { try #require(Number(fields[index])) }
        var request = TgtRequest(try #require(.init(rawValue: try number(0))), try #require(.init(rawValue: try number(1))))
        request.lld = fields[2] == "-" ? [] : utf8(fields[2])
        request.tid = try number(3)
        request.sid = try number(4)
        request.lun = try number(5)
        request.cid = try number(6)
        request.hostNumber = try number(7)
        request.deviceType = try number(8)
        request.accountDirection = try #require(.init(rawValue: try number(9)))
        request.force = try number(10) as Int != 0
        request.payload = utf8(fields[11])
        return request
    }

    @Test("every recorded call ends as with Debian's tgtadm: the same request, or the same error text and exit code")
    func recordedCalls() throws {
        let calls = try Self.recorded()
        #expect(calls.count > 300)
        for call in calls {
            switch outcome(call.words.split(separator: " ").map(String.init)) {
            case .exit(let end), .needsSecret(.terminal(_, let end)):
                #expect(end.code == call.code, "\(call.words)")
                // What getopt_long itself says stands before this line, and is not ours.
                #expect(end.errors.map { $0.trimmingCharacters(in: .whitespaces) } == call.errors.map { $0.trimmingCharacters(in: .whitespaces) }, "\(call.words)")
                #expect(call.request == nil, "\(call.words)")
            case .send(let command):
                #expect(call.code == 0, "\(call.words)")
                #expect(command.request == call.request, "\(call.words)")
            case .transact, .needsSecret: Issue.record("tgt has no transactions: \(call.words)")
            }
        }
    }

    @Test("the messages that Longhorn, Pacemaker and others know", arguments: [
        ("", "specify the operation type"),
        ("--op new", "specify the mode"),
        ("--op new --mode target", "'tid' option is necessary"),
        ("--op new --mode target --tid 0", "'tid' cannot be 0"),
        ("--op new --mode target --tid 1", "creating new target requires a name, use --targetname"),
        ("--op bind --mode target --tid 1", "bind operation requires initiator-address, initiator-nameor bus"),
        ("--op update --mode target --tid 1 -n x", "update operation requires 'name' and 'value' options"),
        ("--op new --mode lu --tid 0 --lun 1", "'tid' must not be 0"),
        ("--op new --mode lu --tid 1", "'lun' option is necessary"),
        ("--op new --mode lu --tid 1 --lun 1 -Y changer", "'backing-store' option is necessary"),
        ("--op new --mode lu --tid 1 --lun 1 -Y floppy", "unknown target type: floppy"),
        ("--op new --mode account -u x", "'user' and 'password' options are required"),
        ("--op bind --mode account", "'user' option is necessary"),
        ("--op new --mode portal", "you must specify --param portal=<portal>"),
        ("--op show --mode lu --tid 1 --lun 1", "operation show not supported in logicalunit mode"),
        ("--op new --mode lld", "option 0 not supported in lld mode"),
        ("--op update --mode lu --tid 1 --lun 1 -n x", "option '-n' not supported in logicalunit mode"),
        ("--op show --mode portal -P x", "option '-P' not supported in portal mode"),
        ("--op update --mode portal", "operation update not supported in portal mode"),
        ("--op update --mode portal -P portal=127.0.0.1,portal=127.0.0.2", "operation update not supported in portal mode"),
        ("--op update --mode portal -P portal=127.0.0.1 -b /x", "portal mode: option '-b' is not allowed/supported"),
        ("--op explain --mode access --tid 1 -Q iqn.x -I ::1 --tls maybe", "--tls takes yes or no"),
        ("--op bind --mode target --tid 1 -B 1,0", "can't find bus: 1"),
        ("--op new --mode target --tid 1 -T x -b y", "target mode: option '-b' is not allowed/supported"),
    ])
    func messages(words: String, message: String) {
        #expect(errors(words) == ["tgtadm: " + message])
    }

    @Test("an unknown word for operation or mode ends with 1, other usage errors with 22")
    func exitCodes() {
        for (words, code) in [("--op foo", 1), ("--op new --mode foo", 1), ("--op new", 22), ("--tid x", 22), ("stray", 22)] as [(String, Int32)] {
            guard case .exit(let end) = outcome(words.split(separator: " ").map(String.init)) else {
                Issue.record("\(words) is sent")
                continue
            }
            #expect(end.code == code, "\(words)")
        }
    }

    @Test("help and version go to standard output with 0")
    func help() {
        guard case .exit(let help) = outcome(["-h"]), case .exit(let number) = outcome(["--version"]) else {
            Issue.record("sent")
            return
        }
        #expect(help.code == 0 && help.errors.isEmpty && text(help.output).contains("--mode logicalunit --op new"))
        #expect(number.code == 0 && text(number.output) == version + "\n")
    }

    @Test("a comma in an item's value is refused, in the last item or a parameter list it is not")
    func commas() {
        #expect(errors("--op new --mode lu --tid 1 --lun 1 -b /a,bstype=null") == ["tgtadm: the argument of option '-b' must not have a comma"])
        #expect(errors("--op bind --mode target --tid 1 -I a,b") == ["tgtadm: the argument of option '-I' must not have a comma"])
        #expect(request("--op new --mode account -u a -p b,c")?.payload == utf8("user=a,password=b,c"))
        #expect(request("--op update --mode target --tid 1 -n HeaderDigest -v CRC32C,None")?.payload == utf8("HeaderDigest=CRC32C,None"))
    }

    @Test("text of 8192 bytes with its zero is sent, one more is refused")
    func longText() {
        let room = TgtRequest.greatestPayload - 1 - "targetname=".utf8.count
        #expect(request("--op new --mode target --tid 1 -T " + String(repeating: "a", count: room)) != nil)
        #expect(errors("--op new --mode target --tid 1 -T " + String(repeating: "a", count: room + 1)).first?.contains("too long") == true)
        #expect(request("--op show --mode target -L " + String(repeating: "a", count: 63)) != nil)
        #expect(errors("--op show --mode target -L " + String(repeating: "a", count: 64)).first?.contains("too long") == true)
    }

    @Test("what tgt's protocol cannot say is a request of ours, and says which words those are")
    func ownRequests() throws {
        func command(_ words: String) throws -> TgtadmCommandLine.Command {
            guard case .send(let command) = outcome(words.split(separator: " ").map(String.init)) else { throw TgtError.invalidRequest }
            return command
        }
        for (words, action, own) in [
            ("--op bind --mode target --tid 1 -Q iqn.x --luns 0,2-5:ro,7", .bindInitiators(tid: 1, .init(name: utf8("iqn.x")), luns: utf8("0,2-5:ro,7")), "--luns"),
            ("--mode access --op explain --tid 1 -Q iqn.x -I ::1 -u u", .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("::1"), user: utf8("u"))), "--mode access"),
            ("--mode access --op explain --tid 1 -Q iqn.x -I ::1 --tls yes", .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("::1"), overTLS: true)), "--mode access"),
            ("--mode access --op explain --tid 1 -Q iqn.x -I ::1 --tls no", .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("::1"))), "--mode access"),
            ("--mode portal --op new --param tls=required,portal=[::1]:1,psk-file=/a=b,", .newPortal(utf8("[::1]:1"), [.init(name: utf8("tls"), value: utf8("required")), .init(name: utf8("psk-file"), value: utf8("/a=b"))]), "--param with more than portal="),
            ("--mode portal --op update --param portal=[::1]:1", .updatePortal(utf8("[::1]:1"), []), "--op update with portals"),
            ("--mode portal --op update --param portal=[::1]:1,crl=", .updatePortal(utf8("[::1]:1"), [.init(name: utf8("crl"), value: [])]), "--op update with portals"),
            ("--mode access --op show", .showPenalties, "--mode access"),
            ("--mode access --op delete -I 192.0.2.0/24", .clearPenalties(address: utf8("192.0.2.0/24")), "--mode access"),
            ("--mode account --op generate -u u", .generateSecret(user: utf8("u"), bits: 96), "--op generate"),
            ("--mode account --op generate -u u --bits 256", .generateSecret(user: utf8("u"), bits: 256), "--op generate"),
            ("--mode account --op update -u u --add-secret -p p", .addSecret(user: utf8("u"), password: utf8("p"), allowWeak: false), "--add-secret"),
            ("--mode account --op update -u u --add-secret -p p --allow-weak", .addSecret(user: utf8("u"), password: utf8("p"), allowWeak: true), "--add-secret"),
            ("--mode account --op update -u u --retire-secret old", .retireSecret(user: utf8("u"), .old), "--retire-secret"),
            ("--mode account --op update -u u --retire-secret new", .retireSecret(user: utf8("u"), .new), "--retire-secret"),
            ("--mode account --op bind -u u -t 3 -Q iqn.x", .bindAccount(.init(user: utf8("u"), tid: 3, outgoing: false, initiator: utf8("iqn.x"))), "--initiator-name with accounts"),
            ("--mode account --op unbind -u u -Q iqn.x", .unbindAccount(.init(user: utf8("u"), tid: nil, outgoing: false, initiator: utf8("iqn.x"))), "--initiator-name with accounts"),
        ] as [(String, AdminRequest.Action, String)] {
            #expect(try command(words).content == .own(AdminRequest(action), words: own), "\(words)")
        }
        #expect(try command("--op new --mode portal --param portal=[::1]:1").request != nil)
        #expect(try command("--op bind --mode target --tid 1 -Q iqn.x").request != nil && command("--mode account --op bind -u u -t 3").request != nil)
        #expect(try command("--mode access --op explain --tid 1 -Q iqn.x -I ::1 --json").format == .json)
        #expect(try command("--mode account --op new -u u -p p --allow-weak").request?.force == true)
        for (words, message) in [
            ("--mode account --op update -u u", "operation update not supported in account mode"),
            ("--mode account --op update -u u --add-secret --retire-secret old -p p", "'add-secret' and 'retire-secret' do not go together"),
            ("--mode account --op update --add-secret -p p", "'user' option is necessary"),
            ("--mode account --op update -u u --retire-secret old -p p", "'retire-secret' takes no secret"),
            ("--mode account --op update -u u --retire-secret older", "--retire-secret takes old or new"),
            ("--mode account --op generate", "'user' option is necessary"),
            ("--mode account --op generate -u u --bits many", "--bits takes a number, not 'many'"),
            ("--mode account --op generate -u u -p p", "account mode: option '-p' is not allowed/supported"),
            ("--mode account --op new -u u -p p --password-file f", "--password and --password-file do not go together"),
            ("--mode access --op explain -Q iqn.x -I ::1", "'tid' option is necessary"),
            ("--mode access --op explain --tid 1 -Q iqn.x", "'initiator-name' and 'initiator-address' options are required"),
            ("--mode access --op show --tid 1", "access mode: option '-t' is not allowed/supported"),
            ("--mode access --op delete", "'initiator-address' option is necessary"),
            ("--mode access --op bind -I ::1", "operation bind not supported in access mode"),
            ("--mode target --op explain --tid 1", "operation explain not supported in target mode"),
            ("--mode session --op explain", "operation explain not supported in session mode"),
            ("--op unbind --mode target --tid 1 -Q iqn.x --luns 1", "target mode: option '--luns' is not allowed/supported"),
        ] { #expect(errors(words) == ["tgtadm: " + message]) }
    }

    @Test("a secret comes from a file, or is asked for; on the command line it is taken with a warning")
    func secrets() throws {
        func finish(_ words: String, secret: String? = nil) throws -> TgtadmCommandLine.Outcome {
            var line = TgtadmCommandLine()
            for word in words.split(separator: " ").map(String.init) {
                let parts = word.dropFirst(2).split(separator: "=").map(String.init)
                let option = try #require(TgtadmOption.all.first { $0.name == parts[0] })
                #expect(line.take(option.letter, parts.count > 1 ? utf8(parts[1]) : nil) == nil)
            }
            if let secret { line.supply(secret: utf8(secret)) }
            return line.finish(strays: [])
        }
        let new = "--mode=account --op=new --user=u"
        #expect(try finish(new + " --password-file=/f") == .needsSecret(.file(utf8("/f"))))
        #expect(try finish(new) == .needsSecret(.terminal(user: "u", otherwise: TgtadmExit(errors: ["tgtadm: 'user' and 'password' options are required"], code: 22))))
        #expect(try finish("--mode=account --op=update --user=u --add-secret --password-file=-") == .needsSecret(.file(utf8("-"))))
        for words in [new, new + " --password-file=/f"] {
            guard case .send(let command) = try finish(words, secret: "p,q") else {
                Issue.record("\(words) is not sent")
                continue
            }
            #expect(command.understood == AdminRequest(.newAccount(user: utf8("u"), password: utf8("p,q"), allowWeak: false)) && command.warnings.isEmpty)
            #expect(command.request?.payload == utf8("user=u,password=p,q"))
        }
        guard case .send(let command) = try finish(new + " --password=x") else { throw TgtError.invalidRequest }
        #expect(command.warnings == ["tgtadm: warning: others on this host can see a secret on the command line; see --password-file"])
        for (file, secret) in [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\n", ""), ("", "")] {
            #expect(TgtadmCommandLine.secret(fromFile: utf8(file)) == utf8(secret))
        }
    }

    @Test("abbreviations of tgt's options stay what they were, where ours would make them ambiguous", arguments: [
        ("--lu 1 --mo target", "--lun 1 --mo target"), ("--lu=1", "--lun=1"), ("--lun 1 --luns 2", "--lun 1 --luns 2"), ("--value --lu --lu 1", "--value --lu --lun 1"),
        ("--va=x --lu 1", "--va=x --lun 1"), ("-v --lu --lu 1", "-v --lu --lun 1"), ("-vx --lu 1", "-vx --lun 1"), ("-dv --lu --lu 1", "-dv --lu --lun 1"),
        ("-- --lu 1", "-- --lu 1"), ("--l 1", "--l 1"), ("--force --lu 1", "--force --lun 1"), ("stray --lu 1", "stray --lun 1"), ("--t 1 --lu", "--t 1 --lun"),
        ("--pass x", "--password x"), ("--passw=x --passwo y", "--password=x --password y"), ("--password x", "--password x"), ("--password-f x", "--password-f x"),
    ])
    func abbreviations(words: String, written: String) {
        #expect(TgtadmOption.unabbreviated(words.split(separator: " ").map { utf8(String($0)) }).map(text) == written.split(separator: " ").map(String.init))
    }

    @Test("numbers are read as strtoull reads them", arguments: [
        ("1", 1), ("1:", 1), ("0x10", 16), ("0X1f", 31), ("010", 8), ("08", 0), ("0", 0), ("0x", 0), ("+5", 5), (" 7", 7), ("-0", 0), ("12abc", 12),
        ("2147483647", 2_147_483_647),
    ] as [(String, Int32)])
    func numbers(word: String, tid: Int32) {
        guard case .send(let command) = outcome(["--op", "show", "--mode", "target", "--tid", word]) else {
            Issue.record("\(word) is refused")
            return
        }
        #expect(command.request?.tid == tid)
    }

    @Test("other numbers are invalid or out of range", arguments: [
        ("", "invalid"), ("abc", "invalid"), ("-", "invalid"), ("-1", "invalid"), ("18446744073709551615", "invalid"), ("99999999999999999999", "invalid"),
        ("2147483648", "out of range"), ("-5", "out of range"),
    ])
    func wrongNumbers(word: String, reason: String) {
        guard case .exit(let end) = outcome(["--op", "show", "--mode", "target", "--tid", word]) else {
            Issue.record("\(word) is sent")
            return
        }
        #expect(end.errors == ["-t argument value '\(word)' \(reason)", "Try `tgtadm --help' for more information."])
        #expect(end.code == 22)
    }

    @Test("control ports end at 32767")
    func controlPorts() {
        guard case .send(let command) = outcome(["--op=show", "--mode=sys", "-C32767"]) else {
            Issue.record("refused")
            return
        }
        #expect(command.controlPort == 32767)
        #expect(errors("--op show --mode sys -C 32768").first == "-C argument value '32768' out of range")
    }

    @Test("only a granted end of the daemon is waited for")
    func endOfDaemon() {
        guard case .send(let end) = outcome(["--op=delete", "--mode=sys"]), case .send(let show) = outcome(["--op=show", "--mode=sys"]) else {
            Issue.record("refused")
            return
        }
        #expect(end.endsDaemon(.response(TgtResponse())))
        #expect(!end.endsDaemon(.response(TgtResponse(.invalidRequest))))
        #expect(!end.endsDaemon(.closed))
        #expect(!show.endsDaemon(.response(TgtResponse())))
    }

    @Test("each answer has its exit code and text")
    func replies() {
        var unknown = TgtResponse()
        unknown.error = 25
        let table: [(TgtadmExit.Reply, Int32, [String])] = [
            (.response(TgtResponse()), 0, []),
            (.response(TgtResponse(.noTarget)), 22, ["tgtadm: can't find the target"]),
            (.response(unknown), 22, ["tgtadm: (unknown tgtadm_errno)"]),
            (.closed, 0, ["tgtadm: tgtd closed the socket"]),
            (.broken, 104, ["tgtadm: a partial response"]),
            (.reset, 104, ["tgtadm: can't get the response, Connection reset by peer"]),
        ]
        for (reply, code, errors) in table {
            let end = TgtadmExit(reply)
            #expect(end.code == code && end.errors == errors && end.output.isEmpty)
        }
        #expect(TgtadmExit(.response(TgtResponse(text: utf8("a\n")))).output == utf8("a\n"))
        #expect(TgtadmExit.noDaemon.code == 107)
        #expect(TgtadmExit.noDaemon.errors == ["tgtadm: failed to send request hdr to tgt daemon, Transport endpoint is not connected"])
    }

    @Test("every error number has tgt's text")
    func errorTexts() {
        #expect(TgtError.allCases.count == 25)
        #expect(TgtError.logicalUnitExists.rawValue == 10 && TgtError.logicalUnitExists.text == "this logical unit number already exists")
        #expect(TgtError.removalPrevented.rawValue == 24 && TgtError.removalPrevented.text == "this device has Prevent Removal set")
        for error in TgtError.allCases { #expect(!error.text.isEmpty && TgtError.text(for: error.rawValue) == error.text) }
    }
}
