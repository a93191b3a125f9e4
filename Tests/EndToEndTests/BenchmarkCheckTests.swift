import Foundation
import Testing

/// What `make bench-check` says of fabricated tables.
struct BenchmarkCheckTests {
    private static let program = "\(Subject.package)/Tests/Benchmark/check.py"

    private struct Ratio {
        var clear = 2.0, latency = 1.2, inTheCrowd = 0.98
        /// Of others, which is not ours to keep.
        var peer = 0.5

        /// A table with these ratios; without that of the crowd if `isShort`.
        func table(isShort: Bool = false) -> String {
            func ratio(_ name: String, _ value: Double) -> String { "\"\(name)\": {\"median\": \(value), \"least\": \(value), \"most\": \(value)}" }
            return """
                {"cases": {"r4k-qd32": {"ratio": {\(ratio("ours/tgt", clear)), \(ratio("tgt/limit", peer))}}},
                 "beside": {"p99-r4k-qd1": {"better": "less", "ratio": {\(ratio("ours/limit", latency))}},
                            "idle-rate": {"better": "more", "ratio": {\(isShort ? "" : ratio("in the crowd/alone", inTheCrowd))}}}}
                """
        }
    }

    private func check(_ new: String) throws -> Finished {
        let folder = try Folder()
        let committed = try folder.write(Ratio().table(), to: "committed.json")
        return try run("python3", Self.program, committed, folder.write(new, to: "new.json"), folder: folder)
    }

    @Test("A ratio that has lost 11 % fails, whether more of it or less is better")
    func losses() throws {
        for changed in [Ratio(clear: 2 * 0.89), Ratio(latency: 1.2 * 1.11), Ratio(inTheCrowd: 0.98 * 0.89)] {
            let lost = try check(changed.table())
            #expect(lost.ending == .exited(1) && lost.output.contains("1 of 3 ratios have lost more than 10%"), "\(changed): \(lost.evidence)")
        }
    }

    @Test("Losses of 9 %, gains, and what others lose do not fail")
    func passes() throws {
        let same = try check(Ratio().table())
        #expect(same.succeeded, "\(same.evidence)")
        #expect(try check(Ratio(clear: 2 * 0.91, latency: 1.2 * 1.09, inTheCrowd: 0.98 * 0.91).table()).succeeded)
        #expect(try check(Ratio(clear: 3, latency: 0.5, inTheCrowd: 1.2).table()).succeeded)
        #expect(try check(Ratio(peer: 0.1).table()).succeeded)
    }

    @Test("A ratio that is missing although its case was measured fails; a case that was not measured does not; nothing in common does")
    func missing() throws {
        #expect(try check(Ratio().table(isShort: true)).ending == .exited(1))
        #expect(try check(#"{"cases": {"r4k-qd32": {"ratio": {"ours/tgt": {"median": 2.0}}}}}"#).succeeded)
        #expect(try check(#"{"cases": {}}"#).ending == .exited(1))
    }

    @Test("The committed table is none that has lost against itself")
    func committed() throws {
        let folder = try Folder()
        let results = "\(Subject.package)/Tests/Benchmark/results"
        let newest = try FileManager.default.contentsOfDirectory(atPath: results).filter { $0.hasSuffix(".json") }.sorted().last
        let table = "\(results)/\(try #require(newest))"
        let finished = try run("python3", Self.program, table, table, folder: folder)
        #expect(finished.succeeded, "\(finished.evidence)")
    }
}
