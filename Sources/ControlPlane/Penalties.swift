import Access
import Door
import ISCSI
import Model
import Reactor

/// Who has to wait before it may try again: each failure of a source costs it time, failures in a row cost more and more, and time heals.
///
/// A source is kept out while it owes more than `tolerated`. Sessions are never touched: only who logs in has to wait. (The idea is that
/// of OpenSSH's PerSourcePenalties.)
package struct Penalties {
    /// Who fails, as far as one can be told from another.
    package enum Party: Hashable, Sendable {
        case source(SocketAddress)
        /// Whom TLS has proved it to be: through one connector come many, and none of them answers for another.
        case initiator(ISCSIName)

        package init(_ peer: SocketAddress, _ channel: Channel) { self = channel.provenName.map { .initiator($0) } ?? .source(peer) }

        /// Whether it is somebody, and not just from somewhere.
        package var isKnown: Bool { if case .initiator = self { true } else { false } }
    }

    /// What a failure costs, in milliseconds.
    package enum Offence: Hashable, Sendable, CaseIterable {
        /// A wrong response or an unknown user: a guess. Doubled by each guess before it, so that nobody guesses more than once a second for long.
        case guess
        /// A target that is not there or not permitted: a mistake, mostly.
        case notAdmitted
        case unfinished
        case nonsense
        /// A TLS handshake came to nothing: a certificate that has expired, mostly, of one of the many behind a connector.
        case handshake
        /// The process that served it died while it did.
        case crash

        var cost: UInt64 {
            switch self {
            case .guess: 1000
            case .notAdmitted, .handshake: 50
            case .unfinished: 500
            case .nonsense: 500
            case .crash: 90_000
            }
        }
    }

    /// Milliseconds that a source may owe and still come in: a few guesses, a hundred logins to targets that have gone.
    package static let tolerated: UInt64 = 5_000
    /// Milliseconds that it owes at the most.
    package static let most: UInt64 = 600_000
    /// A guess costs at most so many times the first one.
    private static let mostDoublings = 6
    /// What a /64 does counts so many times less for the /48 around it, in which many live.
    package static let siteShare: UInt64 = 16
    /// Sources remembered. At the limit those that owe least are forgotten, half of them.
    package static let mostSources = 65_536

    private struct Debt {
        /// When it owes nothing any more, in nanoseconds.
        var until: UInt64
        var guesses = 0
    }

    private let exempt: [AddressRule]
    private var debts: [Debtor: Debt] = [:]

    /// Who owes.
    private enum Debtor: Hashable {
        case source(Source)
        case initiator(ISCSIName)
    }

    /// - Parameter exempt: who never has to wait; nor does a network that somebody of them is in
    package init(exempt: [AddressRule] = []) { self.exempt = exempt }

    /// Somebody has failed.
    /// - Parameter now: nanoseconds of the loop's clock
    /// - Returns: the sources that are kept out from now on, and until when; nobody connects from there. Who is known to be an initiator
    ///   is told when it has shown that.
    package mutating func note(_ offence: Offence, from party: Party, at now: UInt64) -> [(source: Source, until: UInt64)] {
        switch party {
        case .source(let address): return note(offence, from: address, at: now)
        case .initiator(let name):
            _ = charge(.initiator(name), offence, share: 1, at: now)
            return []
        }
    }

    /// The same for a source.
    package mutating func note(_ offence: Offence, from address: SocketAddress, at now: UInt64) -> [(source: Source, until: UInt64)] {
        let source = Source(address)
        var keptOut: [(source: Source, until: UInt64)] = []
        if let until = charge(.source(source), offence, share: 1, at: now) { keptOut.append((source, until)) }
        if let site = source.site, let until = charge(.source(site), offence, share: Self.siteShare, at: now) { keptOut.append((site, until)) }
        return keptOut
    }

    private mutating func charge(_ debtor: Debtor, _ offence: Offence, share: UInt64, at now: UInt64) -> UInt64? {
        if case .source(let source) = debtor, exempt.contains(where: { $0.overlaps(source) }) { return nil }
        var debt = debts[debtor] ?? Debt(until: now)
        if debt.until <= now { debt = Debt(until: now) }
        var cost = offence.cost
        if offence == .guess {
            cost <<= UInt64(min(debt.guesses, Self.mostDoublings))
            debt.guesses += 1
        }
        debt.until = min(debt.until + cost / share * Self.millisecond, now + Self.most * Self.millisecond)
        if debts[debtor] == nil, debts.count >= Self.mostSources { forget(at: now) }
        debts[debtor] = debt
        let end = Self.end(debt)
        return end > now ? end : nil
    }

    /// Whether it has to wait.
    package func keepsOut(_ party: Party, at now: UInt64) -> Bool {
        switch party {
        case .source(let address): keepsOut(address, at: now)
        case .initiator(let name): owes(.initiator(name), at: now)
        }
    }

    package func keepsOut(_ address: SocketAddress, at now: UInt64) -> Bool {
        guard !debts.isEmpty else { return false }
        let source = Source(address)
        return owes(.source(source), at: now) || source.site.map { owes(.source($0), at: now) } ?? false
    }

    private func owes(_ debtor: Debtor, at now: UInt64) -> Bool { debts[debtor].map { Self.end($0) > now } ?? false }

    /// The sources that have to wait, and until when.
    package func keptOut(at now: UInt64) -> [(source: Source, until: UInt64)] {
        debts.compactMap { debtor, debt in if case .source(let source) = debtor, Self.end(debt) > now { (source, Self.end(debt)) } else { nil } }
    }

    /// Who has to wait, and until when; sources and initiators.
    package func waiting(at now: UInt64) -> [(who: String, until: UInt64)] {
        debts.filter { Self.end($0.value) > now }.map { debtor, debt in
            switch debtor {
            case .source(let source): ("\(source)", Self.end(debt))
            case .initiator(let name): ("\(name)", Self.end(debt))
            }
        }
    }

    package var count: Int { debts.count }

    /// Forgets what those owe that the rule names, and the networks that they are in; what initiators owe, if it names all.
    /// - Returns: who is let in again
    package mutating func clear(_ rule: AddressRule) -> [Source] {
        let cleared = debts.keys.compactMap { if case .source(let source) = $0, rule.overlaps(source) { source } else { nil } }
        if rule.extent == .all { debts = [:] }
        for source in cleared { debts[.source(source)] = nil }
        return cleared
    }

    private static let millisecond: UInt64 = 1_000_000

    /// When it owes no more than is tolerated.
    private static func end(_ debt: Debt) -> UInt64 { debt.until - min(debt.until, tolerated * millisecond) }

    private mutating func forget(at now: UInt64) {
        let owing = debts.filter { $0.value.until > now }
        guard owing.count > Self.mostSources / 2 else { return debts = owing }
        let worst = owing.sorted { $0.value.until > $1.value.until }.prefix(Self.mostSources / 2)
        debts = Dictionary(uniqueKeysWithValues: worst.map { ($0.key, $0.value) })
    }
}

extension AddressRule {
    /// Whether some address is in both.
    func overlaps(_ source: Source) -> Bool {
        switch extent {
        case .all: return true
        case .network(let base, let prefixLength):
            guard let first = NetworkAddress(bytes: source.bytes), first.family == base.family else { return false }
            let shared = min(prefixLength, source.prefixLength)
            guard shared > 0 else { return true }
            let rest = UInt128(first.family.bitCount - shared)
            return first.value >> rest == base.value >> rest
        }
    }
}
