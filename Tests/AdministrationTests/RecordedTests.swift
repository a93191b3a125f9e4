import Administration
import Foundation
import Management
import Testing

/// Debian's tgtd and tgtadm were asked the same (`Recorded/record.py`).
@Suite("as tgt answers")
struct RecordedTests {
    struct Call {
        var words: String
        var code: Int32 = -1
        var output = ""
        var errors: [String] = []
    }

    static func calls(_ name: String) throws -> [Call] {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Recorded/\(name).recorded")
        var calls: [Call] = []
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
            let rest = String(line.dropFirst(2))
            switch line.first {
            case "$": calls.append(Call(words: rest))
            case "=": calls[calls.count - 1].code = try #require(Int32(rest))
            case "|": calls[calls.count - 1].output += rest + "\n"
            default: calls[calls.count - 1].errors.append(rest)
            }
        }
        return calls
    }

    /// Lines of tgt's system and driver reports about what does not exist here.
    static let absent: Set<String> = [
        "    iser: error", "    rbd", "    sheepdog", "    bsg", "    sg", "    ssc", "    smc (bsoflags sync:direct)", "    mmc (bsoflags sync:direct)",
        "    aio", "    cd/dvd", "    osd", "    changer", "    tape", "    passthrough",
    ]

    static func present(_ output: String) -> String {
        output.split(separator: "\n", omittingEmptySubsequences: false).filter { !absent.contains(String($0)) }.joined(separator: "\n")
    }

    /// tgt takes any secret, and the same one for both directions of a target.
    static func withStrongSecret(_ words: String) -> String {
        guard let user = words.split(separator: " ").drop(while: { $0 != "-u" }).dropFirst().first, words.contains(" -p ") else { return words }
        return words + "-of-the-user-\(user)"
    }

    @Test("every call of the record has tgt's exit code, output and error text", arguments: ["targets", "units", "access"])
    func sameAnswers(name: String) throws {
        var rig = try Rig()
        let calls = try Self.calls(name)
        #expect(calls.count > 60)
        for call in calls {
            let end = try rig.call(Self.withStrongSecret(call.words))
            let reports = call.words.contains("system") || call.words.contains("lld")
            #expect(end.code == call.code, "\(call.words) (\(rig.reason ?? ""))")
            #expect(text(end.output) == (reports ? Self.present(call.output) : call.output), "\(call.words)")
            #expect(end.errors == call.errors, "\(call.words)")
        }
    }
}
