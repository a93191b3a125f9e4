import Model
import SCSI

/// What data has given control to keep of each logical unit, for data's successor. What counts is what was said last: it comes in order, and how data
/// numbers it is each process's own affair, which its successor hears nothing of.
package struct UnitRecords {
    private var records: [LogicalUnitKey: UnitRecord] = [:]
    /// Those whose failed flush an administrator has forgiven: data may say so, too, once. Otherwise one that has failed stays so.
    private var forgiven: Set<LogicalUnitKey> = []
    private var open: [LogicalUnitKey: Question] = [:]
    private var lastNumber: UInt64 = 0

    /// While a medium is being written.
    private struct Question {
        let number: UInt64
        /// What is kept if that fails.
        let before: PersistentReservations?
        /// The logical unit is; another may have its number.
        var isGone = false
    }

    package init() {}

    /// Those that have outlived a loss of power.
    package init(_ configuration: Configuration) {
        for unit in configuration.targets.values.flatMap(\.logicalUnits.values) {
            if let reservations = unit.reservations { records[unit.key] = UnitRecord(reservations: reservations) }
        }
    }

    /// What a successor is given.
    package subscript(key: LogicalUnitKey) -> UnitRecord { records[key] ?? UnitRecord() }

    /// - Parameter isKept: whether its reservations are
    /// - Returns: whether it tells of a failed flush that nobody knew of
    package mutating func keep(_ record: UnitRecord, of key: LogicalUnitKey, isKept: Bool = true) -> Bool {
        let old = self[key]
        let flushFailed = record.flushFailed || old.flushFailed && forgiven.remove(key) == nil
        records[key] = UnitRecord(reservations: isKept ? record.reservations : old.reservations, flushFailed: flushFailed)
        return flushFailed && !old.flushFailed
    }

    /// An administrator knows of it. Data is told, too; until it has heard that, what it says of an earlier failure still counts.
    package mutating func forgetFailedFlush(of key: LogicalUnitKey) {
        records[key]?.flushFailed = false
        forgiven.insert(key)
    }

    package mutating func remove(_ key: LogicalUnitKey) {
        records[key] = nil
        forgiven.remove(key)
        open[key]?.isGone = true
    }

    package var withFailedFlush: [LogicalUnitKey] { records.filter(\.value.flushFailed).map(\.key) }

    /// Registrations that outlive a loss of power, of all logical units but this one.
    package func keptRegistrations(besides key: LogicalUnitKey) -> Int {
        records.reduce(0) { $0 + ($1.key != key && $1.value.reservations.outlivesPowerLoss ? $1.value.reservations.registrations.count : 0) }
    }
}

extension UnitRecords {
    /// What came of the writing of a medium means to a logical unit.
    package enum End: Hashable {
        /// Whoever asked is gone, and its logical units are again as they were before.
        case forNobody
        case forOneThatIsGone
        case forOne
    }

    package func isOpen(_ key: LogicalUnitKey) -> Bool { open[key] != nil }

    /// - Parameter before: what is kept if it fails
    /// - Returns: what names the question
    package mutating func begin(_ key: LogicalUnitKey, before: PersistentReservations?) -> UInt64 {
        lastNumber += 1
        open[key] = Question(number: lastNumber, before: before)
        return lastNumber
    }

    /// The medium has answered.
    package mutating func end(_ key: LogicalUnitKey, question: UInt64) -> End {
        guard let asked = open[key], asked.number == question else { return .forNobody }
        open[key] = nil
        return asked.isGone ? .forOneThatIsGone : .forOne
    }

    /// Whoever asked is gone, and has told nobody anything.
    /// - Returns: what was kept before
    package mutating func abandonAll() -> [(key: LogicalUnitKey, before: PersistentReservations?)] {
        defer { open = [:] }
        return open.filter { !$0.value.isGone }.map { ($0.key, $0.value.before) }
    }
}
