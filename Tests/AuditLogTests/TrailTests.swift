import Audit
import Crypto
import Foundation
import JSON
import Reactor
import Testing

@testable import AuditLog

let isSoaking = ProcessInfo.processInfo.environment["PORTCULLIS_SOAK"] != nil

/// A seeded generator: what fails can be done again.
struct Generator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}

let key = Secret([UInt8](repeating: 7, count: Seal.keyLength))
let noon = Timestamp("2026-11-23T12:00:00Z")!

func entry(_ number: Int, _ decision: Decision = .allowed) -> Trail.Entry {
    let action = Action(mode: "target", operation: "new", arguments: [.init("tid", "\(number)")])
    return .init(.attempt(Attempt(Actor(uid: 0, gid: 0, pid: 1, user: "root"), [action], decision)), noon)
}

/// All lines of a trail, verified with everything there is.
struct Read {
    var lines: [[UInt8]] = []
    var conclusion: Verifier.Conclusion?
    var failure: (any Error)?
    /// There is a head, and it is the head of these.
    var isWhole = false

    init(_ storage: any AuditStorage, _ verificationKey: VerificationKey, trail name: String = "management") {
        let names = TrailNames(name)
        do {
            let head = try Head.kept(storage, names)
            var verifier = Verifier(verificationKey, heads: head.map { [$0] } ?? [])
            for number in names.numbers(among: try storage.names()) {
                try verifier.begin(file: number)
                var reader = LineReader(storage, names.file(number))
                while let line = try reader.next() {
                    try verifier.take(line)
                    lines.append(Array(line))
                }
                try verifier.takeUnfinished(reader.unfinished)
            }
            conclusion = try verifier.conclude()
            isWhole = head != nil && conclusion?.proven == head?.count
        } catch { failure = error }
    }

    /// The record of this number.
    func record(_ number: UInt64) -> JSONValue? {
        let start = Array("{\"sequence\":\(number),".utf8)
        return lines.first { $0.starts(with: start) }.flatMap { try? JSONValue(parsing: $0) }
    }
    func count(_ kind: String) -> Int { lines.filter { $0.firstRange(of: Array("\"kind\":\"\(kind)\"".utf8)) != nil }.count }
}

func verificationKey(_ storage: any AuditStorage, _ name: String = "management") throws -> VerificationKey {
    try #require(VerificationKey(storage.read(TrailNames(name).verificationKey, at: 0, count: 1000)))
}

@Suite("A trail on a medium")
struct TrailTests {
    static let small = TrailOptions(name: "management", fileLength: 2500, mostFiles: 3, reserve: 4096, checkpointRecords: 5)

    static let groups = isSoaking ? 40 : 14

    /// Groups of one to four, until the machine stops.
    /// - Returns: what was called recorded, by number
    static func work(_ disk: SimulatedDisk, groups: Int) -> (recorded: [UInt64: Int], key: VerificationKey?) {
        var recorded: [UInt64: Int] = [:]
        guard let trail = try? Trail(disk, small, sealingKey: key) else { return ([:], nil) }
        let verification = VerificationKey(disk.contents(TrailNames("management").verificationKey))
        var number = 0
        for group in 0..<groups where !disk.hasCrashed {
            let entries = (0...group % 4).map { _ in
                number += 1
                return entry(number)
            }
            for (index, kept) in trail.write(entries, at: noon).enumerated() {
                if case .recorded(let sequence) = kept { recorded[sequence] = number - entries.count + 1 + index }
            }
            if group % 7 == 6 { trail.checkpoint(at: noon) }
        }
        return (recorded, verification)
    }

    @Test("What was called recorded is there after a crash at any step, the trail goes on, and it verifies")
    func crashes() throws {
        let whole = SimulatedDisk()
        _ = Self.work(whole, groups: Self.groups)
        var generator = Generator(state: 4711)
        var restarts = 0
        for step in 1...whole.steps {
            for _ in 0..<(isSoaking ? 8 : 1) {
                let disk = SimulatedDisk()
                disk.crashStep = step
                let (recorded, verification) = Self.work(disk, groups: Self.groups)
                let restarted = disk.restarted(&generator)
                // Whoever had carried the key away before.
                let trail = try Trail(restarted, Self.small, sealingKey: key)
                let results = trail.write([entry(1000)], at: noon)
                guard case .recorded(let last) = results.first else { Issue.record("step \(step): \(results)"); continue }
                let read = Read(restarted, try recorded.isEmpty ? verificationKey(restarted) : #require(verification))
                #expect(read.isWhole, "step \(step): \(read.failure.map { "\($0)" } ?? "")")
                guard let first = read.conclusion?.first else { continue }
                #expect(read.record(last).flatMap { Self.argument($0) } == "1000")
                for (sequence, number) in recorded where sequence >= first { #expect(read.record(sequence).flatMap { Self.argument($0) } == "\(number)", "step \(step)") }
                restarts += 1
            }
        }
        print("audit: \(restarts) crashes at \(whole.steps) steps, nothing lost that was called recorded")
    }

    static func argument(_ record: JSONValue) -> String? {
        guard case .array(let pairs) = record["arguments"], case .array(let pair) = pairs.first else { return nil }
        return pair[1].string
    }

    @Test("After a failure at any step what was called recorded is there, what was not is counted, and the trail verifies")
    func failures() throws {
        let whole = SimulatedDisk()
        _ = Self.work(whole, groups: Self.groups)
        for step in 12...whole.steps {
            for length in isSoaking ? [1, 2, 3, 5, 9] : [step % 4 + 1] {
                let disk = SimulatedDisk()
                disk.failing = step..<step + length
                let (recorded, verification) = Self.work(disk, groups: Self.groups)
                disk.failing = 0..<0
                let trail = try Trail(disk, Self.small, sealingKey: key)
                let results = trail.write([entry(1000)], at: noon)
                guard case .recorded(let last) = results.first else { Issue.record("step \(step): \(results)"); continue }
                let read = Read(disk, try #require(verification))
                #expect(read.isWhole, "step \(step): \(read.failure.map { "\($0)" } ?? "")")
                #expect(read.conclusion?.last ?? 0 >= last)
                guard let first = read.conclusion?.first else { continue }
                for (sequence, number) in recorded where sequence >= first { #expect(read.record(sequence).flatMap { Self.argument($0) } == "\(number)", "step \(step)") }
            }
        }
    }

    @Test("On the medium there are the keys of the future alone, in one place")
    func keysOfThePast() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
        for number in 1...10 {
            _ = trail.write([entry(number)], at: noon)
            let slots = disk.contents("management.state")
            let full = [slots.prefix(4096), slots.suffix(4096)].filter { $0.contains { $0 != 0 } }
            #expect(full.count == 1)
            // It is sealed: who has the disk alone has no key at all.
            #expect(TrailState.newest(slots, Secret.random(count: 32)) == nil)
            let head = try #require(try Head.kept(disk, TrailNames("management")))
            #expect(head.count == trail.count)
        }
    }

    @Test("Two flushes a group, however large it is")
    func groups() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
        _ = trail.write([entry(0)], at: noon)
        for size in [1, 10, 1000] {
            let before = disk.flushes
            _ = trail.write((0..<size).map { entry($0) }, at: noon)
            #expect(disk.flushes - before == 2)
        }
    }

    @Test("A full disk: changes are refused, that is recorded as long as the reserve lasts, then counted; with room all goes on")
    func full() throws {
        let disk = SimulatedDisk()
        let options = TrailOptions(name: "management", reserve: 8192)
        let trail = try Trail(disk, options, sealingKey: key)
        let verification = try verificationKey(disk)
        guard case .recorded = trail.write([entry(1)], at: noon)[0] else { Issue.record("refused"); return }
        disk.capacity = 0
        var kept: [Trail.Kept] = []
        for number in 2...200 { kept += trail.write([entry(number)], at: noon) }
        let recorded = kept.prefix { if case .recorded = $0 { true } else { false } }
        let refusals = kept.dropFirst(recorded.count).prefix { if case .refused(.some, _) = $0 { true } else { false } }
        let counted = kept.dropFirst(recorded.count + refusals.count)
        // What had been reserved ahead; then the reserve; then nothing.
        #expect(!recorded.isEmpty && refusals.count > 10 && !counted.isEmpty)
        #expect(counted.allSatisfy { if case .refused(nil, _) = $0 { true } else { false } })
        #expect(trail.trouble?.reason.contains("No space left") == true)
        trail.lose(counted.count, since: noon, "No space left on device")
        disk.capacity = .max
        guard case .recorded = trail.write([entry(300)], at: noon)[0] else { Issue.record("still refused"); return }
        #expect(trail.trouble == nil)
        let read = Read(disk, verification)
        #expect(read.isWhole)
        let lost = try #require(read.lines.compactMap { try? JSONValue(parsing: $0) }.first { $0["kind"] == .string("unrecorded") })
        #expect(lost["count"] == .number(counted.count))
        let refusal = try #require(read.lines.compactMap { try? JSONValue(parsing: $0) }.first { $0["decision"] == .string("refused") })
        #expect(refusal["reason"]?.string?.hasPrefix("audit: No space left") == true)
    }

    @Test("If the state cannot be kept behind a line, what stands there as allowed is taken back")
    func takenBack() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
        _ = trail.write([entry(1)], at: noon)
        let before = disk.steps
        _ = trail.write([entry(2)], at: noon)
        // The lines are written and flushed, the state is not.
        disk.failing = disk.steps + 3..<disk.steps + (disk.steps - before) + 1
        let kept = trail.write([entry(3), entry(4, .refused)], at: noon)
        guard case .takenBack(let number, _) = kept[0], case .recorded(number + 1) = kept[1] else { Issue.record("\(kept)"); return }
        #expect(trail.trouble != nil)
        disk.failing = 0..<0
        guard case .recorded = trail.write([entry(5)], at: noon)[0] else { Issue.record("still refused"); return }
        let read = Read(disk, try verificationKey(disk))
        #expect(read.isWhole && read.record(number)?["decision"] == .string("allowed"))
    }

    @Test("A request too long for the reserve does not cost the reserve")
    func longRequest() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, TrailOptions(name: "management", reserve: 8192), sealingKey: key)
        _ = trail.write([entry(1)], at: noon)
        disk.capacity = 0
        let action = Action(mode: "target", operation: "new", arguments: [.init("x", String(repeating: "x", count: 100_000))])
        let long = Trail.Entry(.attempt(Attempt(Actor(uid: 0, gid: 0, pid: 1), [action], .allowed)), noon)
        guard case .refused(nil, _) = trail.write([long], at: noon)[0] else { Issue.record("recorded"); return }
        let kept = (0..<100).flatMap { trail.write([entry($0)], at: noon) }
        #expect(kept.contains { if case .refused(.some, _) = $0 { true } else { false } })
    }

    @Test("With `continue` a full disk keeps nobody from changing anything")
    func goOn() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, TrailOptions(name: "management", reserve: 4096, refusesChanges: false), sealingKey: key)
        _ = trail.write([entry(1)], at: noon)
        disk.capacity = 0
        for number in 2...100 {
            let kept = trail.write([entry(number)], at: noon)[0]
            if case .refused = kept { Issue.record("refused") }
        }
    }

    @Test("Files begin when they are to, old ones go with a record, and what is left verifies")
    func rotation() throws {
        let disk = SimulatedDisk()
        let trail = try Trail(disk, Self.small, sealingKey: key)
        let verification = try verificationKey(disk)
        for number in 0..<100 { _ = trail.write([entry(number)], at: noon) }
        let numbers = TrailNames("management").numbers(among: try disk.names())
        #expect(numbers.count == 3 && numbers.first! > 5)
        let read = Read(disk, verification)
        #expect(read.isWhole && read.conclusion?.first ?? 0 > 1)
        // One that was removed by somebody else is missed.
        disk.take(TrailNames("management").file(numbers[0]))
        guard case .olderFiles = (Read(disk, verification).failure as? Verifier.Break)?.cause else { Issue.record("not missed"); return }
    }

    @Test("What somebody has cut off or taken away is noted, is not written over, and verification names it")
    func cutOff() throws {
        for taking in [false, true] {
            let disk = SimulatedDisk()
            let verification: VerificationKey
            do {
                let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
                verification = try verificationKey(disk)
                for number in 0..<10 { _ = trail.write([entry(number)], at: noon) }
            }
            let file = TrailNames("management").file(1)
            if taking { disk.take(file) } else { disk.change(file) { bytes in bytes = Array(bytes.prefix(bytes.count / 2)) } }
            let rest = disk.contents(file)
            let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
            #expect(trail.finding?.contains("missing") == true)
            guard case .recorded = trail.write([entry(11)], at: noon)[0] else { Issue.record("refused"); return }
            #expect(disk.contents(file) == rest)
            let read = Read(disk, verification)
            let broken = try #require(read.failure as? Verifier.Break)
            #expect(taking ? broken.cause == .olderFiles(2) : broken.sequence == UInt64(rest.filter { $0 == 10 }.count + 1))
        }
    }

    @Test("Bytes that a crash has left behind the last record are cut off and noted")
    func torn() throws {
        let disk = SimulatedDisk()
        let verification: VerificationKey
        do {
            let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
            verification = try verificationKey(disk)
            _ = trail.write([entry(1)], at: noon)
        }
        let file = TrailNames("management").file(1)
        disk.change(file) { $0 += Array("{\"sequence\":3,\"time".utf8) }
        let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
        #expect(trail.finding == "19 bytes behind the last record were cut off")
        _ = trail.write([], at: noon)
        let read = Read(disk, verification)
        #expect(read.isWhole && read.record(3)?["kind"] == .string("recovered") && read.record(3)?["cutBytes"] == .number(19))
    }

    @Test("Without its state, or with another key, a trail does not go on, and says what to do")
    func noState() throws {
        let disk = SimulatedDisk()
        do {
            let trail = try Trail(disk, TrailOptions(name: "management"), sealingKey: key)
            _ = trail.write([entry(1)], at: noon)
        }
        let other = #expect(throws: TrailError.self) { try Trail(disk, TrailOptions(name: "management"), sealingKey: Secret.random(count: 32)) }
        #expect(other?.description.contains("management.state") == true)
        disk.change("management.state") { $0[20] ^= 1 }
        #expect(throws: TrailError.self) { try Trail(disk, TrailOptions(name: "management"), sealingKey: key) }
        disk.take("management.state")
        #expect(throws: TrailError.self) { try Trail(disk, TrailOptions(name: "management"), sealingKey: key) }
    }
}
