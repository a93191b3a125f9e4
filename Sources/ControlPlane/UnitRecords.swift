import Model
import SCSI

/// What data has given control to keep of each logical unit, for data's successor.
package struct UnitRecords {
    private var records: [LogicalUnitKey: ReservationRecord] = [:]

    package init() {}

    /// What a successor is given.
    package subscript(key: LogicalUnitKey) -> ReservationRecord { records[key] ?? ReservationRecord() }

    /// An older one than there is already changes nothing.
    /// - Returns: whether it tells of a failed flush that nobody knew of
    package mutating func keep(_ record: ReservationRecord, of key: LogicalUnitKey) -> Bool {
        let old = self[key]
        guard record.revision > old.revision else { return false }
        records[key] = record
        return record.flushFailed && !old.flushFailed
    }

    /// An administrator knows of it. Data is told, too; until it has heard that, what it says of an earlier failure still counts.
    package mutating func forgetFailedFlush(of key: LogicalUnitKey) { records[key]?.flushFailed = false }

    package mutating func remove(_ key: LogicalUnitKey) { records[key] = nil }

    package var withFailedFlush: [LogicalUnitKey] { records.filter(\.value.flushFailed).map(\.key) }
}
