import Bytes
import Model

/// A file that is not believed any more from some time on.
struct Expiry: Hashable, Sendable {
    enum Kind: Sendable { case certificate, revocations }
    let path: TrustedPath
    let kind: Kind
    /// Seconds since 1970.
    let time: Int64

    /// Days before its end at which the administrator is told, and at it.
    fileprivate var milestones: [Int64] {
        switch kind {
        case .certificate: [30, 7, 0]
        // Some live for a week.
        case .revocations: [1, 0]
        }
    }

    func text(daysLeft: Int64) -> String {
        let when = utcTime(time)
        switch kind {
        case .certificate: return daysLeft > 0 ? "a certificate ends in less than \(daysLeft) days, on \(when): replace it" : "a certificate has ended on \(when): nobody believes it any more"
        case .revocations:
            return daysLeft > 0
                ? "a revocation list is to be replaced within a day, by \(when)"
                : "a revocation list was to be replaced by \(when): no initiator's certificate is believed any more"
        }
    }
}

/// Remembers what has been said about what ends, so that it is said once.
struct ExpiryWatch {
    /// What was said, by days before the end.
    private var told: [Expiry: Int64] = [:]

    /// What is to be said at this time: each file at 30 and at 7 days, and at its end.
    /// - Parameter now: seconds since 1970
    mutating func due(_ expiries: [Expiry], at now: Int64) -> [(expiry: Expiry, daysLeft: Int64)] {
        // What is not there any more may come again.
        told = told.filter { expiries.contains($0.key) }
        var due: [(Expiry, Int64)] = []
        for expiry in expiries {
            guard let passed = expiry.milestones.filter({ expiry.time - now <= $0 * 86400 }).min(), passed < told[expiry] ?? .max else { continue }
            told[expiry] = passed
            due.append((expiry, passed))
        }
        return due
    }
}
