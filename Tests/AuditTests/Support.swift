import Crypto
import JSON

@testable import Audit

/// A trail of so many records over several files, as it would lie on a disk, with all that a thief could find beside it.
struct WrittenTrail {
    var files: [[[UInt8]]] = []
    let verificationKey: VerificationKey
    var chain: Chain
    var head: Head { chain.head }
    /// The links before each record, and behind the last.
    private(set) var links: [[UInt8]]

    /// - Parameters:
    ///   - records: in all, with those of the chain itself
    ///   - perFile: records of a file
    ///   - perCheckpoint: every so many records is a checkpoint
    init(records: Int, perFile: Int = 80, perCheckpoint: Int = 37) {
        chain = Chain(trail: "management", key: Secret.random(count: Chain.keyLength), seed: Secret.random(count: Chain.keyLength))
        verificationKey = chain.verificationKey
        links = [chain.link]
        for number in 0..<records { add(number, perFile, perCheckpoint) }
    }

    mutating func add(_ number: Int, _ perFile: Int, _ perCheckpoint: Int) {
        let time = Timestamp(microseconds: 1_795_000_000_000_000 + Int64(number) * 1_000)
        if number % perFile == 0 {
            files.append([chain.beginFile(UInt32(files.count + 1), at: time)])
        } else if number % perCheckpoint == perCheckpoint - 1 {
            files[files.count - 1].append(chain.checkpoint(at: time))
        } else {
            files[files.count - 1].append(chain.append(.example(number), at: time))
        }
        links.append(chain.link)
    }

    var lines: [[UInt8]] { files.flatMap { $0 } }
    /// Where each line stands: its file, from 1 on.
    var places: [UInt32] { files.enumerated().flatMap { file, lines in lines.map { _ in UInt32(file + 1) } } }
}

extension Record {
    static func example(_ number: Int) -> Record {
        let actor = Actor(uid: UInt32(1000 + number % 3), gid: 1000, pid: 4711, executable: "/usr/sbin/tgtadm", user: "user-\(number % 3)", authentication: "socket", role: "operator", tenant: "t\(number % 4)")
        let action = Action(mode: "target", operation: number % 2 == 0 ? "new" : "delete", arguments: [.init("tid", "\(number)"), .init("targetname", "iqn.2026-11.org.example:\(number)")])
        return switch number % 3 {
        case 0: .attempt(Attempt(actor, [action], .allowed, reason: "grant 1"))
        case 1: .outcome(Outcome(of: UInt64(number), actor, [action], .success, changes: ["target \(number) added"], microseconds: 1234))
        default: .event(SecurityEvent(.loginRefused, source: "192.0.2.\(number % 200)", .refused, reason: "wrong response", initiator: "iqn.2026-11.org.example:\(number)"))
        }
    }
}

extension Verifier {
    /// The first break of these lines, each with its file; nil: there is none.
    static func firstBreak(_ key: VerificationKey, head: Head?, _ lines: some Sequence<(UInt32, [UInt8])>) -> Break? {
        var verifier = Verifier(key, heads: head.map { [$0] } ?? [])
        do {
            try verifier.take(lines)
            _ = try verifier.conclude()
            return nil
        } catch let error as Break { return error } catch { return nil }
    }

    mutating func take(_ lines: some Sequence<(UInt32, [UInt8])>) throws {
        for (number, line) in lines {
            if number != file { try begin(file: number) }
            try take(line[...])
        }
    }
}

extension Chain {
    /// What a thief does who has taken this chain: it is to look like an earlier one.
    mutating func pretend(count: UInt64, link: [UInt8], checkpoints: UInt64? = nil) {
        self.count = count
        self.link = link
        if let checkpoints { self.checkpoints = checkpoints }
    }
}
