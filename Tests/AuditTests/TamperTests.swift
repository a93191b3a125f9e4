import Crypto
import Foundation
import JSON
import Testing

@testable import Audit

private let isSoaking = ProcessInfo.processInfo.environment["PORTCULLIS_SOAK"] != nil

/// What somebody does to a trail at one of its records.
enum Tampering: String, CaseIterable, Sendable {
    case changeByte, changeMeaning, changeCode, delete, duplicate, insertForeign, swapWithNext, moveToEnd, mergeWithNext, split, rename
    /// With the keys that are on the machine when all of it has been written: edits, then writes all that follows anew.
    case rechain
    /// The same, but the earlier keys are guessed to be the later ones run on.
    case rechainWithEvolvedKeys
}

@Suite("Tampering with a trail")
struct TamperTests {
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

    /// What stands from `position` on after the tampering, and the number of the first record that must be called broken.
    /// - Parameter reach: how many lines from there on are made
    static func tampered(
        _ how: Tampering, _ trail: WrittenTrail, _ lines: [[UInt8]], _ places: [UInt32], at position: Int, reach: Int, _ generator: inout Generator
    ) -> (lines: [(UInt32, [UInt8])], first: Int)? {
        let end = min(lines.count, position + reach)
        var rest = zip(places[position..<end], lines[position..<end]).map { ($0, $1) }
        var line = rest[0].1
        switch how {
        case .changeByte:
            // The last bytes of a line included.
            let index = Int.random(in: 0..<line.count, using: &generator)
            line[index] ^= UInt8.random(in: 1...255, using: &generator)
            rest[0].1 = line
        case .changeMeaning:
            guard let at = line.firstRange(of: Array("user-".utf8)) ?? line.firstRange(of: Array("192.0.2.".utf8)) ?? line.firstRange(of: Array("2026-".utf8)) else { return nil }
            line[at.upperBound - 1] ^= 1
            rest[0].1 = line
        case .changeCode:
            let index = line.count - 3 - Int.random(in: 0..<64, using: &generator)
            line[index] = line[index] == UInt8(ascii: "0") ? UInt8(ascii: "1") : UInt8(ascii: "0")
            rest[0].1 = line
        case .delete:
            // Of the last one, see truncation.
            guard position < lines.count - 1 else { return nil }
            rest.removeFirst()
        case .duplicate:
            rest.insert(rest[0], at: 0)
            return (rest, position + 2)
        case .insertForeign:
            var other = Chain(trail: "management", key: Secret.random(count: 32), seed: Secret.random(count: 32))
            _ = (0..<2).map { other.append(.example($0), at: Timestamp(microseconds: 0)) }
            rest.insert((rest[0].0, other.append(.example(3), at: Timestamp(microseconds: 0))), at: 0)
        case .swapWithNext:
            guard position < lines.count - 1 else { return nil }
            (rest[0].1, rest[1].1) = (rest[1].1, rest[0].1)
        case .moveToEnd:
            guard position < lines.count - 1 else { return nil }
            rest.append((rest[rest.count - 1].0, rest.removeFirst().1))
        case .mergeWithNext:
            guard position < lines.count - 1 else { return nil }
            rest[0].1 = rest[0].1 + rest[1].1
            rest.remove(at: 1)
        case .split:
            let middle = line.count / 2
            rest[0].1 = Array(line[..<middle])
            rest.insert((rest[0].0, Array(line[middle...])), at: 1)
        case .rename:
            // The number of another record.
            let number = "\(position + 1)", other = "\(position + 2)"
            rest[0].1 = Array("{\"sequence\":\(other)".utf8) + line.dropFirst("{\"sequence\":\(number)".utf8.count)
        case .rechain, .rechainWithEvolvedKeys:
            rest = rechained(trail, lines, places, from: position, to: end, evolved: how == .rechainWithEvolvedKeys)
        }
        return (rest, position + 1)
    }

    /// Written anew from `position` on by a thief with the chain as it is at the end: all keys that are on the machine.
    static func rechained(_ trail: WrittenTrail, _ lines: [[UInt8]], _ places: [UInt32], from position: Int, to end: Int, evolved: Bool) -> [(UInt32, [UInt8])] {
        var thief = trail.chain
        if evolved { for _ in 0..<3 { _ = thief.append(.example(0), at: Timestamp(microseconds: 0)) } }
        // The link is public: he computes the right one.
        thief.pretend(count: UInt64(position), link: trail.links[position])
        return (position..<end).map { index in
            let time = Timestamp(microseconds: 1_795_000_000_000_000)
            let isFirst = index == 0 || places[index] != places[index - 1]
            let line =
                isFirst ? thief.beginFile(places[index], at: time)
                : lines[index].firstRange(of: Array("\"kind\":\"checkpoint\"".utf8)) != nil ? thief.checkpoint(at: time) : thief.append(.example(7), at: time)
            return (places[index], line)
        }
    }

    @Test("Every tampering with every record is found, and the first broken record named", arguments: Tampering.allCases)
    func everyPosition(how: Tampering) throws {
        let count = isSoaking ? 10_000 : 200
        let started = ContinuousClock.now
        let trail = WrittenTrail(records: count, perFile: isSoaking ? 1_100 : 80, perCheckpoint: isSoaking ? 97 : 37)
        let (lines, places) = (trail.lines, trail.places)
        var generator = Generator(state: 0x1234_5678)
        // What stands before is the same for all that is done behind it: a verifier that has read it is a value.
        var verifier = Verifier(trail.verificationKey, heads: [trail.head])
        var found = 0
        for position in 0..<count {
            if let (rest, first) = Self.tampered(how, trail, lines, places, at: position, reach: 3, &generator) {
                var copy = verifier
                let error = #expect(throws: Verifier.Break.self) {
                    try copy.take(rest)
                    _ = try copy.conclude()
                }
                #expect(error?.sequence == UInt64(first), "\(how) at \(position + 1)")
                found += 1
            }
            try verifier.take(CollectionOfOne((places[position], lines[position])))
        }
        #expect(try verifier.conclude().proven == UInt64(count))
        #expect(found >= count - 2)
        print("audit: \(how.rawValue): \(found) of \(found) found in a trail of \(count) records, \(ContinuousClock.now - started)")
    }

    @Test("The same from the first line to the last of whole files", arguments: Tampering.allCases)
    func wholeFiles(how: Tampering) throws {
        let trail = WrittenTrail(records: 200)
        let (lines, places) = (trail.lines, trail.places)
        var generator = Generator(state: 99)
        for position in [0, 1, 36, 37, 79, 80, 81, 150, 198, 199] {
            guard let (rest, first) = Self.tampered(how, trail, lines, places, at: position, reach: lines.count, &generator) else { continue }
            let whole = zip(places[..<position], lines[..<position]).map { ($0, $1) } + rest
            #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, whole)?.sequence == UInt64(first), "\(how) at \(position + 1)")
        }
    }

    @Test("Records cut off at the end are found against the head, wherever the cut is; without a head the end is not called proven")
    func truncation() throws {
        let count = isSoaking ? 10_000 : 200
        let trail = WrittenTrail(records: count)
        let (lines, places) = (trail.lines, trail.places)
        var withHead = Verifier(trail.verificationKey, heads: [trail.head])
        var publicOnly = Verifier(trail.verificationKey.withoutSecret, heads: [trail.head])
        var without = Verifier(trail.verificationKey, heads: [])
        for position in 0..<count {
            for verifier in [withHead, publicOnly] {
                let error = #expect(throws: Verifier.Break.self) { _ = try verifier.conclude() }
                #expect(error == Verifier.Break(sequence: UInt64(position + 1), file: position == 0 ? 0 : places[position - 1], line: 0, cause: .missing(of: UInt64(count))))
            }
            #expect(try without.conclude().proven == 0)
            let next = CollectionOfOne((places[position], lines[position]))
            try withHead.take(next)
            try publicOnly.take(next)
            try without.take(next)
        }
        #expect(try withHead.conclude().proven == UInt64(count) && publicOnly.conclude().proven == UInt64(count))
    }

    @Test("A head that the thief makes for a shorter trail, with all he has, is no head of it")
    func forgedHead() throws {
        let trail = WrittenTrail(records: 200)
        let (lines, places) = (trail.lines, trail.places)
        for length in Array(stride(from: 1, to: 200, by: 5)) + [184, 185, 199] {
            var thief = trail.chain
            thief.pretend(count: UInt64(length), link: trail.links[length], checkpoints: UInt64(lines[..<length].filter { $0.firstRange(of: Array("\"kind\":\"checkpoint\"".utf8)) != nil }.count))
            let short = zip(places, lines).prefix(length).map { ($0, $1) }
            #expect(Verifier.firstBreak(trail.verificationKey, head: thief.head, short)?.cause == .head, "\(length)")
            // Without the secret: as far as the last checkpoint. 184 records stand before it, it is the 185th.
            let byPublic = Verifier.firstBreak(trail.verificationKey.withoutSecret, head: thief.head, short)
            if length < 185 { #expect(byPublic?.cause == .head, "\(length)") } else { #expect(byPublic == nil, "\(length)") }
        }
    }

    @Test("With the public key alone all before the last checkpoint is safe, and nothing after it from who has the machine's keys")
    func publicKeyOnly() throws {
        let trail = WrittenTrail(records: 200)
        let (lines, places) = (trail.lines, trail.places)
        let key = trail.verificationKey.withoutSecret
        #expect(Verifier.firstBreak(key, head: trail.head, zip(places, lines)) == nil)
        for position in stride(from: 1, to: 200, by: 7) where places[position] == places[position - 1] {
            let whole = zip(places[..<position], lines[..<position]).map { ($0, $1) } + Self.rechained(trail, lines, places, from: position, to: 200, evolved: false)
            let error = Verifier.firstBreak(key, head: nil, whole)
            if position < 185 {
                // Named is the interval between two checkpoints.
                guard case .since(let since) = error?.cause else { Issue.record("\(position): \(String(describing: error))"); continue }
                #expect(since < UInt64(position + 1) && UInt64(position + 1) <= error?.sequence ?? 0)
            } else {
                // This is what the secret key, or a later checkpoint elsewhere, is for.
                #expect(error == nil)
            }
        }
    }

    @Test("Another trail's key, another trail's head, and a head of before say so")
    func mixedUp() throws {
        var trail = WrittenTrail(records: 50)
        let earlier = trail.head
        let other = WrittenTrail(records: 50)
        for number in 50..<60 { trail.add(number, 80, 37) }
        let lines = zip(trail.places, trail.lines)
        #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, lines) == nil)
        #expect(Verifier.firstBreak(trail.verificationKey, head: earlier, lines) == nil)
        // A trail that is put back to what it was, with its head of then, is found by who knows a later one.
        var putBack = Verifier(trail.verificationKey, heads: [earlier, trail.head])
        try putBack.take(lines.prefix(50))
        #expect(throws: Verifier.Break(sequence: 51, file: 1, line: 0, cause: .missing(of: 60))) { _ = try putBack.conclude() }
        #expect(Verifier.firstBreak(other.verificationKey, head: trail.head, lines)?.sequence == 1)
        #expect(Verifier.firstBreak(other.verificationKey.withoutSecret, head: nil, lines)?.sequence == 1)
        #expect(Verifier.firstBreak(trail.verificationKey, head: other.head, lines)?.cause == .head)
    }

    @Test("Verification begins with a later file where the secret key is there and a record says that the older ones were removed")
    func laterStart() throws {
        var trail = WrittenTrail(records: 200)
        let lines = zip(trail.places, trail.lines).filter { $0.0 > 1 }.map { ($0.0, $0.1) }
        #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, lines)?.cause == .olderFiles(2))
        let removal = (UInt32(3), trail.chain.append(.removed(through: 1), at: Timestamp(microseconds: 0)))
        #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, lines + [removal]) == nil)
        var verifier = Verifier(trail.verificationKey.withoutSecret, heads: [trail.head])
        #expect(throws: Verifier.CannotBegin.self) { try verifier.begin(file: 2) }
        // A start that is made up.
        var forged = lines
        forged[0].1 = Self.rechained(trail, trail.lines, trail.places, from: 80, to: 81, evolved: false)[0].1
        #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, forged + [removal]) == Verifier.Break(sequence: 81, file: 2, line: 1, cause: .code))
        // The middle of a trail is not its start.
        let middle = lines.filter { $0.0 != 2 }
        let broken = Array(zip(trail.places, trail.lines).filter { $0.0 == 1 }.map { ($0.0, $0.1) }) + middle
        #expect(Verifier.firstBreak(trail.verificationKey, head: trail.head, broken)?.sequence == 81)
    }

    @Test("A line that nobody ended is forgiven behind the head only")
    func unfinished() throws {
        let trail = WrittenTrail(records: 20)
        let lines = zip(trail.places, trail.lines)
        var whole = Verifier(trail.verificationKey, heads: [trail.head])
        try whole.take(lines)
        try whole.takeUnfinished(Array("{\"sequence\":21".utf8)[...])
        #expect(try whole.conclude().hasUnfinishedLine)
        var short = Verifier(trail.verificationKey, heads: [trail.head])
        try short.take(lines.prefix(19))
        let error = #expect(throws: Verifier.Break.self) { try short.takeUnfinished(trail.lines[19].dropLast()) }
        #expect(error?.sequence == 20)
    }
}
