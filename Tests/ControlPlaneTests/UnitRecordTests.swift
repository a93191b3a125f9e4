import Model
import SCSI
import Testing

@testable import ControlPlane

@Suite struct UnitRecordTests {
    private let key: LogicalUnitKey
    private static func registered(_ key: UInt64, outlivesPowerLoss: Bool = false) -> PersistentReservations {
        PersistentReservations(
            registrations: [.init(initiator: InitiatorPort(name: [0x61], isid: 2), relativeTargetPort: 1, key: key)], outlivesPowerLoss: outlivesPowerLoss)
    }

    init() throws { key = LogicalUnitKey(target: try #require(TargetID(rawValue: 1)), lun: 2) }

    @Test("A failed flush is news once, goes to the successor, and is forgotten when an administrator knows of it")
    func failedFlush() {
        var records = UnitRecords()
        func keep(_ revision: UInt64, _ reservations: PersistentReservations = PersistentReservations(), flushFailed: Bool = false) -> Bool {
            records.keep(UnitRecord(revision: revision, reservations: reservations, flushFailed: flushFailed), of: key)
        }
        #expect(records[key] == UnitRecord() && records.withFailedFlush.isEmpty)
        #expect(!keep(1, Self.registered(3)))
        #expect(keep(2, Self.registered(3), flushFailed: true))
        #expect(!keep(3, Self.registered(3), flushFailed: true))
        #expect(records[key].flushFailed && records.withFailedFlush == [key])
        records.forgetFailedFlush(of: key)
        #expect(records[key] == UnitRecord(reservations: Self.registered(3)) && records.withFailedFlush.isEmpty)
        // Said before data had heard of that, and after it.
        #expect(keep(4, flushFailed: true))
        #expect(!keep(5) && !records[key].flushFailed)
        records.remove(key)
        #expect(records[key] == UnitRecord())
    }

    @Test("How a process numbers its records means nothing to its successor's, and a failed flush is over when an administrator says so, not data")
    func hostile() {
        var records = UnitRecords()
        _ = records.keep(UnitRecord(revision: .max, reservations: Self.registered(1)), of: key)
        #expect(records[key] == UnitRecord(reservations: Self.registered(1)))
        _ = records.keep(UnitRecord(revision: 1, reservations: Self.registered(2)), of: key)
        #expect(records[key].reservations == Self.registered(2))
        var news = 0
        for revision in 0..<1000 { news += records.keep(UnitRecord(revision: UInt64(revision), flushFailed: revision % 2 == 0), of: key) ? 1 : 0 }
        #expect(news == 1 && records[key].flushFailed)
        for _ in 0..<3 { records.forgetFailedFlush(of: key) }
        for revision in 0..<1000 { news += records.keep(UnitRecord(revision: UInt64(revision), flushFailed: revision % 2 == 0), of: key) ? 1 : 0 }
        #expect(news == 3 && records[key].flushFailed)
    }

    @Test("Reservations that are not kept are what they were; that a flush has failed is known")
    func notKept() {
        var records = UnitRecords()
        _ = records.keep(UnitRecord(revision: 1, reservations: Self.registered(1)), of: key)
        let isNews = records.keep(UnitRecord(revision: 2, reservations: Self.registered(2), flushFailed: true), of: key, isKept: false)
        #expect(isNews)
        #expect(records[key] == UnitRecord(reservations: Self.registered(1), flushFailed: true))
    }

    @Test("What a medium answers is for the logical unit that has asked, not for one with its number, and for nobody if data is gone")
    func questions() {
        var records = UnitRecords()
        func end(_ question: UInt64) -> UnitRecords.End { records.end(key, question: question) }
        func abandoned() -> [PersistentReservations?] { records.abandonAll().map(\.before) }
        let before = Self.registered(1, outlivesPowerLoss: true)
        let first = records.begin(key, before: before)
        #expect(records.isOpen(key) && end(first) == .forOne && !records.isOpen(key))
        let second = records.begin(key, before: before)
        records.remove(key)
        #expect(records.isOpen(key) && end(second) == .forOneThatIsGone)
        let third = records.begin(key, before: before)
        #expect(abandoned() == [before] && !records.isOpen(key))
        let fourth = records.begin(key, before: nil)
        #expect(end(third) == .forNobody && end(fourth) == .forOne)
        _ = records.begin(key, before: before)
        records.remove(key)
        #expect(abandoned().isEmpty)
    }

    @Test("Only so many registrations are kept over a loss of power, of all together")
    func bound() throws {
        var records = UnitRecords()
        let other = LogicalUnitKey(target: try #require(TargetID(rawValue: 1)), lun: 3)
        _ = records.keep(UnitRecord(revision: 1, reservations: Self.registered(1, outlivesPowerLoss: true)), of: key)
        #expect(records.keptRegistrations(besides: key) == 0 && records.keptRegistrations(besides: other) == 1)
        _ = records.keep(UnitRecord(revision: 2, reservations: Self.registered(1)), of: key)
        #expect(records.keptRegistrations(besides: other) == 0)
    }
}
