import Audit
import Reactor

/// What was found out about a trail as it lies in a directory.
public struct Verification: Sendable {
    /// The number is the exit code of `tgt-audit verify`.
    public enum Verdict: Int32, Sendable {
        /// Every record is as it was written, and none is missing.
        case whole = 0
        /// A record is not as it was written, not in its place or missing.
        case broken = 1
        /// Nothing is wrong that could be found, but not all could be checked.
        case incomplete = 2
        /// Nothing could be checked.
        case impossible = 3
    }

    public let verdict: Verdict
    /// For people, a line each.
    public let findings: [String]

    /// How often a directory is read again in which files came and went meanwhile.
    private static let attempts = 3

    /// - Parameters:
    ///   - key: from elsewhere; nil: the one beside the trail, if it is still there
    ///   - known: heads from elsewhere
    public init(_ storage: any AuditStorage, _ trail: String, key: VerificationKey?, known: [Head] = []) {
        for _ in 1..<Self.attempts {
            if let verification = try? Self.read(storage, trail, key, known) {
                self = verification
                return
            }
        }
        do throws(FileError) { self = try Self.read(storage, trail, key, known) } catch { self.init(.impossible, ["\(error)"]) }
    }

    private init(_ verdict: Verdict, _ findings: [String]) {
        self.verdict = verdict
        self.findings = findings
    }

    private static func read(_ storage: any AuditStorage, _ trail: String, _ given: VerificationKey?, _ known: [Head]) throws(FileError) -> Verification {
        let names = TrailNames(trail), there = try storage.names()
        let beside = there.contains(names.verificationKey) ? VerificationKey(try storage.read(names.verificationKey, at: 0, count: 1000)) : nil
        guard let key = given ?? beside else { return Verification(.impossible, ["what verifies the trail is needed (--key): it was \(names.verificationKey) once"]) }
        guard key.trail == trail else { return Verification(.impossible, ["the key is that of the trail \(key.trail)"]) }
        // Before the files: they may grow meanwhile.
        let kept = try Head.kept(storage, names)
        let numbers = names.numbers(among: try storage.names())
        guard !numbers.isEmpty || kept != nil else { return Verification(.impossible, ["there is no trail \(trail)"]) }
        var verifier = Verifier(key, heads: (kept.map { [$0] } ?? []) + known)
        let conclusion: Verifier.Conclusion
        do {
            for number in numbers {
                try verifier.begin(file: number)
                var reader = LineReader(storage, names.file(number))
                while let line = try reader.next() { try verifier.take(line) }
                try verifier.takeUnfinished(reader.unfinished)
            }
            conclusion = try verifier.conclude()
        } catch let error as FileError {
            throw error
        } catch let error as Verifier.Break {
            var findings = ["\(error)"]
            if error.sequence > 1 { findings.append("the \(error.sequence - 1) records before it are not called wrong") }
            return Verification(.broken, findings)
        } catch { return Verification(.impossible, ["\(error)"]) }
        return Verification(conclusion, hasHead: kept != nil, isKeyBeside: given == nil)
    }

    private init(_ conclusion: Verifier.Conclusion, hasHead: Bool, isKeyBeside: Bool) {
        var findings = [
            "records \(conclusion.first) to \(conclusion.last) are as they were written"
                + (conclusion.isByRecord ? "" : ", as far as the \(conclusion.checkpoints) checkpoints vouch for them")
        ]
        var isWhole = true
        func missing(_ text: String) {
            findings.append(text)
            isWhole = false
        }
        if !hasHead {
            missing(
                conclusion.proven > 0
                    ? "whether records are missing behind record \(conclusion.proven) cannot be said: the trail's state is gone"
                    : "whether records are missing at the end cannot be said: the trail's state is gone")
        }
        if !conclusion.isByRecord, conclusion.lastCheckpoint < conclusion.last {
            missing(
                "records \(conclusion.lastCheckpoint + 1) to \(conclusion.last) stand behind the last checkpoint: with the public key alone they are proven only against who has not the keys of this host")
        }
        if isKeyBeside { missing("the key lay beside the trail: who could change the one could change the other") }
        if conclusion.hasUnfinishedLine { findings.append("behind the last record a line is not whole: it is being written, or tgtd was killed; a start cuts it off") }
        self.init(isWhole ? .whole : .incomplete, findings)
    }
}
