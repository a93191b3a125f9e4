import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite struct SimulationTests {
    /// `PORTCULLIS_SIM_SEEDS=N` runs N seeds, `PORTCULLIS_SIM_SEED=n` the n-th alone.
    private static func number(_ name: String) -> Int? {
        guard let text = unsafe getenv(name) else { return nil }
        return unsafe Int(String(cString: text))
    }

    private static var groups: [Range<Int>] {
        if let seed = number("PORTCULLIS_SIM_SEED") { return [seed..<seed + 1] }
        let seeds = number("PORTCULLIS_SIM_SEEDS") ?? 150
        return stride(from: 0, to: seeds, by: 25).map { $0..<min($0 + 25, seeds) }
    }

    @Test("Every read returns what some order of the writes allows, whatever is delayed, aborted or torn", arguments: groups)
    func seeds(_ seeds: Range<Int>) {
        var counts: [String: Int] = [:]
        for seed in seeds {
            let simulation = Simulation(seed: seed)
            do throws(Oracle.Violation) {
                try simulation.run(steps: 2000)
            } catch {
                Issue.record("PORTCULLIS_SIM_SEED=\(seed): \(error)")
            }
            counts.merge(simulation.counts) { $0 + $1 }
        }
        if Self.number("PORTCULLIS_SIM_SEED") != nil { print(counts) }
        guard seeds.count == 25 else { return }
        for kind in ["read", "write", "orWrite", "compareAndWrite", "miscompares", "functions", "aborted", "resets", "torn", "reinstated"] {
            #expect(counts[kind, default: 0] > 0, "\(kind) is never simulated: \(counts)")
        }
    }
}
