import Access
import Door
import Model
import Reactor

/// Who has to wait before it may try again: each failure of a source costs it time, failures in a row cost more and more, and time heals.
///
/// A source is kept out while it owes more than `tolerated`. Sessions are never touched: only who logs in has to wait. (The idea is that
/// of OpenSSH's PerSourcePenalties.)
package struct Penalties {
    /// What a failure costs, in milliseconds.
    package enum Offence: Hashable, Sendable, CaseIterable {
        /// A wrong response or an unknown user: a guess. Doubled by each guess before it, so that nobody guesses more than once a second for long.
        case guess
        /// A target that is not there or not permitted: a mistake, mostly.
        case notAdmitted
        case unfinished
        case nonsense
        /// The process that served it died while it did.
        case crash

        var cost: UInt64 {
            switch self {
            case .guess: 1000
            case .notAdmitted: 50
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
    private var debts: [Source: Debt] = [:]

    /// - Parameter exempt: who never has to wait; nor does a network that somebody of them is in
    package init(exempt: [AddressRule] = []) { self.exempt = exempt }

    /// Somebody has failed.
    /// - Parameter now: nanoseconds of the loop's clock
    /// - Returns: who is kept out from now on, and until when
    package mutating func note(_ offence: Offence, from address: SocketAddress, at now: UInt64) -> [(source: Source, until: UInt64)] {
        let source = Source(address)
        var keptOut: [(source: Source, until: UInt64)] = []
        if let until = charge(source, offence, share: 1, at: now) { keptOut.append((source, until)) }
        if let site = source.site, let until = charge(site, offence, share: Self.siteShare, at: now) { keptOut.append((site, until)) }
        return keptOut
    }

    private mutating func charge(_ source: Source, _ offence: Offence, share: UInt64, at now: UInt64) -> UInt64? {
        guard !exempt.contains(where: { $0.overlaps(source) }) else { return nil }
        var debt = debts[source] ?? Debt(until: now)
        if debt.until <= now { debt = Debt(until: now) }
        var cost = offence.cost
        if offence == .guess {
            cost <<= UInt64(min(debt.guesses, Self.mostDoublings))
            debt.guesses += 1
        }
        debt.until = min(debt.until + cost / share * Self.millisecond, now + Self.most * Self.millisecond)
        if debts[source] == nil, debts.count >= Self.mostSources { forget(at: now) }
        debts[source] = debt
        let end = Self.end(debt)
        return end > now ? end : nil
    }

    /// Whether it has to wait.
    package func keepsOut(_ address: SocketAddress, at now: UInt64) -> Bool {
        let source = Source(address)
        return [source, source.site].compactMap(\.self).contains { source in debts[source].map { Self.end($0) > now } ?? false }
    }

    /// Who has to wait, and until when.
    package func keptOut(at now: UInt64) -> [(source: Source, until: UInt64)] {
        debts.map { ($0.key, Self.end($0.value)) }.filter { $0.1 > now }
    }

    package var count: Int { debts.count }

    /// Forgets what those owe that the rule names, and the networks that they are in.
    /// - Returns: who is let in again
    package mutating func clear(_ rule: AddressRule) -> [Source] {
        let cleared = debts.keys.filter(rule.overlaps)
        for source in cleared { debts[source] = nil }
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
