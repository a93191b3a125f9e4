import ArgumentParser
import Bytes
import Crypto
import Foundation
import ISCSI
import Reactor

/// `iscsi-load`: an initiator that measures, on any target. One thread, one loop, the PDUs and digests of the target's own rooms.
///
/// What comes out is one line of JSON. Any answer but the right one ends it: a rate of failures is no rate.
@main
struct Load: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "iscsi-load", abstract: "Measure an iSCSI target.", subcommands: [InputOutput.self, Logins.self, Idle.self])
}

/// Whom to log in to, and as whom.
struct Place: ParsableArguments {
    @Option(help: ArgumentHelp("Where the target listens.", valueName: "address:port"))
    var portal: String
    @Option(help: ArgumentHelp("The target's name.", valueName: "iqn"))
    var target: String
    @Option(help: ArgumentHelp("What the initiator calls itself.", valueName: "iqn"))
    var initiator = "iqn.2026-11.org.example:client"
    @Option(help: ArgumentHelp("The ISID of the first session: of two clients with one name and the same, one takes the place of the other.", valueName: "n"))
    var firstISID: UInt32 = 1
    @Option(help: "CHAP's algorithm: \(Proof.algorithms.keys.sorted().joined(separator: ", ")).")
    var chap: String?
    @Option(help: ArgumentHelp("CHAP's name.", valueName: "name"))
    var user = ""
    @Option(help: ArgumentHelp("A file with CHAP's secret.", valueName: "file"))
    var secret: String?
    @Flag(help: "CRC32C over headers.")
    var headerDigest = false
    @Flag(help: "CRC32C over data.")
    var dataDigest = false

    func validate() throws {
        guard SocketAddress(portal) != nil else { throw ValidationError("\(portal) is no address with a port") }
        guard chap.map({ Proof.algorithms[$0] != nil }) ?? true else { throw ValidationError("CHAP knows no such algorithm here") }
        guard (chap == nil) == (secret == nil) else { throw ValidationError("an algorithm needs a secret, a secret an algorithm") }
    }

    var address: SocketAddress { SocketAddress(portal)! }

    func words() throws -> LoginWords {
        let proof = try chap.map { algorithm in
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: secret ?? "")))
            return Proof(algorithm: Proof.algorithms[algorithm] ?? .md5, user: user, secret: Secret(Array(bytes.prefix { $0 != UInt8(ascii: "\n") })))
        }
        return LoginWords(target: target, initiator: initiator, headerDigest: headerDigest, dataDigest: dataDigest, proof: proof)
    }
}

/// What one run has found, as one line.
func report(_ result: some Encodable) {
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    guard let line = try? encoder.encode(result) else { fail("a result that is no JSON") }
    FileHandle.standardOutput.write(line + [UInt8(ascii: "\n")])
}

func fail(_ words: String) -> Never {
    FileHandle.standardError.write(Data("iscsi-load: \(words)\n".utf8))
    exit(1)
}
