import Foundation
import Management
import Testing

@Suite("a transaction's text")
struct TransactionTextTests {
    static func lines(_ text: String) throws(TransactionText.Malformed) -> [Int: [String]] {
        Dictionary(uniqueKeysWithValues: try TransactionText(utf8(text)).lines.map { ($0.number, $0.words.map { decoded($0) }) })
    }

    @Test("lines are command lines, with or without the program's name")
    func words() throws {
        #expect(try Self.lines("--op new -T iqn.x\n\n  tgtadm --op\tdelete \r\n# nothing\ntgtadm\n-b a#b # c\n") == [
            1: ["--op", "new", "-T", "iqn.x"], 3: ["--op", "delete"], 6: ["-b", "a#b"]])
        #expect(try Self.lines("").isEmpty)
        #expect(try TransactionText([0x2d, 0xff]).lines.first?.words == [[0x2d, 0xff]])
    }

    @Test("words are quoted as in a shell", arguments: [
        (#"'a b' "c d" e\ f"#, ["a b", "c d", "e f"]), (#"--name='x y'z"#, ["--name=x yz"]), (#"'' """#, ["", ""]),
        (#"'a\b"c' "d\\e\"f\g'h""#, [#"a\b"c"#, #"d\e"f\g'h"#]), (##"\# \'"##, ["#", "'"]), (#"'#' a"#, ["#", "a"]),
    ])
    func quotes(line: String, words: [String]) throws { #expect(try Self.lines(line) == [1: words]) }

    @Test("what is not closed names its line", arguments: [
        ("a\n'b", 2, "an apostrophe has no second one"), ("\n\n\"b'", 3, "a quotation mark has no second one"), ("a\\", 1, "nothing follows the backslash"),
        ("\0", 1, "there is a zero byte"),
    ])
    func malformed(text: String, line: Int, reason: String) throws {
        let error = #expect(throws: TransactionText.Malformed.self) { try Self.lines(text) }
        #expect(error?.line == line && error?.reason == reason)
    }

    /// The line's request, or its end.
    static func request(_ words: String) -> Result<AdminRequest, TgtadmExit> {
        var line = TgtadmCommandLine()
        var rest = words.split(separator: " ").map(String.init)[...]
        var strays: [[UInt8]] = []
        while let word = rest.popFirst() {
            guard let option = TgtadmOption.all.first(where: { "--" + $0.name == word || utf8(word) == [UInt8(ascii: "-"), $0.letter] }) else {
                strays.append(utf8(word))
                continue
            }
            if let end = line.take(option.letter, option.longTakesArgument ? rest.popFirst().map(utf8) : nil) { return .failure(end) }
        }
        return line.finishLine(strays: strays)
    }

    @Test("a line is checked as tgtadm checks its command line")
    func requests() {
        #expect(Self.request("--op new --mode target --tid 3 -T iqn.x") == .success(AdminRequest(.newTarget(tid: 3, name: utf8("iqn.x")))))
        for (words, message) in [
            ("--op new --mode target -T iqn.x", "'tid' option is necessary"),
            ("--op new --mode target --tid 1 -T iqn.x stray", "unrecognized option 'stray'"),
            ("-C 1 --op new --mode target --tid 1 -T iqn.x", "option '-C' does not belong into a transaction"),
            ("--op show --mode target --json", "option '--json' does not belong into a transaction"),
            ("--transaction x", "option '--transaction' does not belong into a transaction"),
            ("-d --op delete --mode target --tid 1", "option '-d' does not belong into a transaction"),
        ] {
            guard case .failure(let end) = Self.request(words) else {
                Issue.record("\(words) is taken")
                continue
            }
            #expect(end.errors.first == "tgtadm: " + message && end.code == 22, "\(words)")
        }
        guard case .failure = Self.request("--op nonsense") else {
            Issue.record("an unknown operation is taken")
            return
        }
    }

    @Test("--json goes with show and stat, --transaction with nothing but how to reach the daemon")
    func options() {
        func outcome(_ words: String) -> TgtadmCommandLine.Outcome { ManagementTests.outcome(words.split(separator: " ").map(String.init)) }
        for words in ["--op show --mode target --json", "--json --op stat --mode conn --tid 1 --sid 1", "--op show --mode account --json", "--op show --mode system --json"] {
            guard case .send(let command) = outcome(words) else {
                Issue.record("\(words) is refused")
                continue
            }
            #expect(command.format == .json)
        }
        #expect(errors("--op delete --mode target --tid 1 --json") == ["tgtadm: --json goes with the operations show, stat, explain and generate, and with --transaction"])
        guard case .transact(let transaction) = outcome("--transaction /x -C 3 --json -d") else {
            Issue.record("--transaction is refused")
            return
        }
        #expect(transaction.path == utf8("/x") && transaction.controlPort == 3 && transaction.isDebugging && transaction.format == .json)
        #expect(errors("--transaction - --op show --mode target") == ["tgtadm: option '-o' does not go with --transaction"])
        #expect(!TgtadmOption.shortOptions.utf8.contains { $0 >= 0x80 })
    }

    @Test("a refused transaction names the line and says why; a refused request says what tgt says")
    func refusals() {
        let refusal = NativeAnswer(.noTarget, request: 1, reason: "there is no target 7")
        let end = TgtadmExit(refusal, format: .text) { "f:\($0 + 10)" }
        #expect(end == TgtadmExit(errors: ["tgtadm: f:11: can't find the target", "tgtadm: there is no target 7"], code: 22))
        #expect(TgtadmExit(NativeAnswer(.noTarget, reason: "there is no target 7"), format: .text) == TgtadmExit(errors: ["tgtadm: can't find the target"], code: 22))
        let json = TgtadmExit(refusal, format: .json) { _ in nil }
        #expect(text(json.output) == #"{"schemaVersion":1,"error":{"number":4,"text":"can't find the target","reason":"there is no target 7","request":1}}"# + "\n")
        #expect(json.code == 22 && json.errors == ["tgtadm: can't find the target"])
        #expect(TgtadmExit(NativeAnswer(.noTarget, reason: "there is no target 7"), format: .text, tellsReason: true).errors == ["tgtadm: can't find the target", "tgtadm: there is no target 7"])
        #expect(TgtadmExit(NativeAnswer(output: [1, 2]), format: .text) == TgtadmExit(output: [1, 2], code: 0))
    }
}

private func decoded(_ bytes: [UInt8]) -> String { text(bytes) }

@Suite("JSON")
struct JSONTests {
    @Test("a document is what a parser takes, with everything escaped that must be")
    func document() throws {
        let nasty = "\" \\ / \n \u{0} \u{1f} \u{7f} ü € 😀 \u{2028}"
        let bytes = JSONWriter.document { writer in
            writer.field("text", nasty)
            writer.field("none", nil)
            writer.field("large", UInt64.max)
            writer.field("negative", Int32.min)
            writer.field("yes", true)
            writer.object("empty") { _ in }
            writer.objects("list", 0..<3) { writer, number in
                writer.field("number", number)
                writer.strings("words", Array(repeating: "a", count: number))
            }
            writer.objects("nothing", [Int]()) { _, _ in }
            writer.object("outer") { writer in
                writer.object("inner") { $0.field("no", false) }
                writer.field("after", 1)
            }
        }
        #expect(decoded(bytes).hasPrefix(#"{"schemaVersion":1,"text":"\" \\ / \u000a \u0000 \u001f \u007f ü"#) && bytes.last == UInt8(ascii: "\n"))
        let parsed = try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
        #expect(parsed["text"] as? String == nasty)
        #expect(parsed["none"] is NSNull && parsed["large"] as? UInt64 == .max && parsed["negative"] as? Int32 == .min && parsed["yes"] as? Bool == true)
        #expect((parsed["list"] as? [[String: Any]])?.map { $0["words"] as? [String] } == [[], ["a"], ["a", "a"]])
        #expect((parsed["nothing"] as? [Any])?.isEmpty == true && (parsed["empty"] as? [String: Any])?.isEmpty == true)
        #expect((parsed["outer"] as? [String: Any])?["after"] as? Int == 1)
    }

    @Test("text of bytes loses nothing", arguments: [
        (utf8("/srv/größe €"), "/srv/größe €"), (utf8("a\\b"), #"a\x5cb"#), ([0x61, 0xff, 0xc3], #"a\xff\xc3"#), ([0xc3, 0xbc, 0x80], #"ü\x80"#),
        (utf8("\\ü"), #"\x5cü"#), ([0xed, 0xa0, 0x80], #"\xed\xa0\x80"#), ([], ""),
    ])
    func text(of bytes: [UInt8], expected: String) { #expect(JSONWriter.text(of: bytes) == expected) }
}
