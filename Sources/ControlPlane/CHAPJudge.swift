import Access
import Crypto
import ISCSI
import Model

/// When CHAP may use MD5 (`chap.md5` in the settings). Stock initiators offer nothing else until they are told to.
public enum MD5Use: String, CaseIterable, Sendable {
    case never
    /// Where nobody can overhear it: on portals with TLS.
    case tlsOnly = "tls-only"
    case always
}

/// Draws the challenges of CHAP and judges the responses (RFC 7143 §9.2.1, §12.1.3; RFC 1994). The secrets stay here.
package struct CHAPJudge {
    /// A challenge is this much chance, as much as the longest digest has, …
    private static let chance = 32
    /// … and this much of its authentication code, by which we know again each challenge that we have ever drawn.
    private static let mark = 16

    /// Drawn anew for each life of control.
    private let key = Secret.random(count: 32)
    /// What stands in for the secrets that there are not, so that each judgement is the same work.
    private let nobodys = Secret.random(count: 16)
    private let inClear: Set<CHAPAlgorithm>
    private let overTLS: Set<CHAPAlgorithm>

    package init(md5: MD5Use = .always) {
        let available = Set(CHAPAlgorithm.allCases.filter(\.digest.isAvailable))
        inClear = available.filter { $0 != .md5 || md5 == .always }
        overTLS = available.filter { $0 != .md5 || md5 != .never }
    }

    /// What the initiator on one connection has to answer: once.
    package func demand(over channel: Channel = .clear) -> CHAPDemand {
        let algorithms = channel.isTLS ? overTLS : inClear
        let chance = Random.bytes(count: Self.chance)
        return CHAPDemand(algorithms: algorithms, identifier: Random.bytes(count: 1)[0], challenge: chance + mark(of: chance))
    }

    private func mark(of chance: [UInt8]) -> [UInt8] { Array(HMAC.sha256(chance, key: key).prefix(Self.mark)) }

    /// Whether we have drawn this challenge, for whichever connection. An initiator that has us answer it is a mirror.
    package func isOurs(_ challenge: [UInt8]) -> Bool {
        challenge.count == Self.chance + Self.mark
            && isSameInConstantTime(mark(of: Array(challenge.prefix(Self.chance))), Array(challenge.suffix(Self.mark)))
    }

    /// Whether the answer proves that its sender knows one of the account's secrets, and not the one by which the target proves itself:
    /// who knows that could play the target. How long it takes does not depend on whether there is such an account, or on what is wrong.
    /// - Parameter respond: makes the responses to compare with
    package func isRight(
        _ answer: CHAPAnswer, to demand: CHAPDemand, account: Account?, outgoing: Account?,
        respond: (CHAPAlgorithm, UInt8, Secret, [UInt8]) -> [UInt8] = Self.response
    ) -> Bool {
        let secrets = account?.secrets ?? []
        let own = outgoing?.secrets.first
        func matches(_ secret: Secret?) -> Bool {
            let expected = respond(answer.algorithm, demand.identifier, secret ?? nobodys, demand.challenge)
            return isSameInConstantTime(expected, answer.response) && secret != nil
        }
        let (first, second, isTargets) = (matches(secrets.first), matches(secrets.dropFirst().first), matches(own))
        return (first || second) && !isTargets
    }

    /// CHAP_R: the digest of identifier, secret and challenge (RFC 1994 §4.1).
    package static func response(_ algorithm: CHAPAlgorithm, _ identifier: UInt8, _ secret: Secret, _ challenge: [UInt8]) -> [UInt8] {
        var digest = DigestState(algorithm.digest)
        digest.update([identifier].span)
        digest.update(secret)
        digest.update(challenge.span)
        return digest.finish()
    }
}

extension CHAPAlgorithm {
    fileprivate var digest: Digest {
        switch self {
        case .md5: .md5
        case .sha1: .sha1
        case .sha256: .sha256
        case .sha3_256: .sha3_256
        }
    }
}
