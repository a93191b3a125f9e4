import Model
import SCSI
import Testing

@testable import ControlPlane

@Suite struct UnitRecordTests {
    @Test("A failed flush is news once, goes to the successor, and is forgotten when an administrator knows of it")
    func failedFlush() throws {
        let key = LogicalUnitKey(target: try #require(TargetID(rawValue: 1)), lun: 2)
        var records = UnitRecords()
        func keep(_ record: ReservationRecord) -> Bool { records.keep(record, of: key) }
        #expect(records[key] == ReservationRecord() && records.withFailedFlush.isEmpty)
        let registered = ReservationRecord.Registration(initiator: InitiatorPort(name: [1], isid: 2), relativeTargetPort: 1, key: 3)
        #expect(!keep(ReservationRecord(revision: 1, registrations: [registered])))
        #expect(keep(ReservationRecord(revision: 2, registrations: [registered], flushFailed: true)))
        #expect(!keep(ReservationRecord(revision: 3, registrations: [registered], flushFailed: true)))
        #expect(records[key].flushFailed && records.withFailedFlush == [key])
        records.forgetFailedFlush(of: key)
        #expect(records[key] == ReservationRecord(revision: 3, registrations: [registered]) && records.withFailedFlush.isEmpty)
        // Said before data had heard of that; and an old one that is late.
        #expect(keep(ReservationRecord(revision: 4, flushFailed: true)))
        #expect(!keep(ReservationRecord(revision: 4)) && records[key].flushFailed)
        #expect(!keep(ReservationRecord(revision: 5)) && !records[key].flushFailed)
        records.remove(key)
        #expect(records[key] == ReservationRecord())
    }
}
