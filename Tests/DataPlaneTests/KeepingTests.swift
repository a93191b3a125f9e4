import Bytes
import Door
import Medium
import SCSI
import Storage
import Synchronization
import Testing

@testable import DataPlane

/// What an initiator is told is true of the medium, and of the next process, too.
@Suite struct KeepingTests {
    private static let synchronize: [UInt8] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    private let block = [UInt8](repeating: 9, count: 512)

    private func kept(_ rig: Rig) throws -> UnitRecord {
        guard case .keep(Rig.tid, 1, let record) = try rig.report(where: { if case .keep = $0 { true } else { false } }) else { throw Missing("nothing is kept") }
        return record
    }

    @Test("A failed flush is kept by control before anybody is told, given back to the successor, and forgotten when control says so")
    func failedFlush() throws {
        let rig = try Rig()
        let client = try rig.grant(tsih: 1)
        try client.begin()
        var fault = FaultyStore.Fault(.flush)
        fault.failure = .flushFailed
        fault.times = 1
        rig.store(0).inject(fault)
        client.command(Self.synchronize)
        let record = try kept(rig)
        #expect(record.flushFailed)
        #expect(!client.hearsAnything(), "the sense is out before control has it")
        try rig.order(.kept(tid: Rig.tid, lun: 1, revision: record.revision, isKept: true))
        #expect(client.pdu()?[3] == 0x02)
        #expect(client.perform(Client.write(0), writes: block) == 0x02)

        // As control gives it to a successor.
        try rig.must(passing: rig.file("second", blocks: 64)) {
            .addLogicalUnit($0, tid: Rig.tid, lun: 2, Rig.settings(64), Rig.description(64), record)
        }
        _ = client.perform([0, 0, 0, 0, 0, 0], lun: 2)
        #expect(client.perform(Client.write(0), lun: 2, writes: block) == 0x02)
        #expect(client.perform(Self.synchronize, lun: 2) == 0x02)

        try rig.must { .updateLogicalUnit($0, tid: Rig.tid, lun: 1, Rig.settings(Rig.blocks), nil, forgetsFailedFlush: true) }
        let forgotten = try kept(rig)
        #expect(!forgotten.flushFailed && forgotten.revision > record.revision)
        while client.perform([0, 0, 0, 0, 0, 0]) == 0x02 {}
        #expect(client.perform(Client.write(0), writes: block) == 0)
        #expect(client.perform(Self.synchronize) == 0)
    }

    @Test("A reservation is GOOD only when control keeps it: a process that dies before has promised nothing")
    func outstandingKeep() throws {
        let rig = try Rig()
        let client = try rig.grant(tsih: 1)
        try client.begin()
        // PERSISTENT RESERVE OUT, REGISTER.
        client.command([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], writes: [UInt8](repeating: 0, count: 15) + [7] + [UInt8](repeating: 0, count: 8))
        let record = try kept(rig)
        #expect(record.reservations.registrations.map(\.key) == [7])
        try rig.settle()
        #expect(!client.hearsAnything())
        // Of an older revision: not this one.
        try rig.order(.kept(tid: Rig.tid, lun: 1, revision: record.revision - 1, isKept: true))
        try rig.settle()
        #expect(!client.hearsAnything())
        try rig.order(.kept(tid: Rig.tid, lun: 1, revision: record.revision, isKept: true))
        #expect(client.pdu()?[3] == 0)
    }

    @Test("What control does not keep is refused with what was to follow, and asked one after the other; what has gone answers nobody")
    func refused() throws {
        let rig = try Rig()
        let clients = try (1...3).map { number in try rig.grant(tsih: UInt16(number), initiator: "iqn.2026-11.org.example:host\(number)") }
        for client in clients { try client.begin() }
        func register(_ client: Client, _ key: UInt8) {
            client.command([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], writes: [UInt8](repeating: 0, count: 15) + [key] + [UInt8](repeating: 0, count: 8))
        }
        register(clients[0], 1)
        let first = try kept(rig)
        for (client, key) in zip(clients.dropFirst(), [2, 3] as [UInt8]) {
            register(client, key)
            // What comes behind it is done: so it has begun.
            #expect(client.perform([0, 0, 0, 0, 0, 0]) == 0)
        }
        try rig.settle()
        #expect(!rig.hasHeard { if case .keep = $0 { true } else { false } }, "another question while one is open")
        try rig.order(.kept(tid: Rig.tid, lun: 1, revision: first.revision, isKept: false))
        for client in clients { #expect(client.pdu()?[3] == 0x02) }
        // From the beginning, as if nothing had been.
        register(clients[1], 4)
        let second = try kept(rig)
        #expect(second.revision > first.revision && second.reservations.registrations.map(\.key) == [4])
        try rig.order(.kept(tid: Rig.tid, lun: 1, revision: second.revision, isKept: true))
        #expect(clients[1].pdu()?[3] == 0)
    }

    /// Takes down what is done, when it is done.
    private final class Journal: Sendable {
        private let operations = Mutex<[Operation]>([])
        func append(_ operation: Operation) { operations.withLock { $0.append(operation) } }
        func take() -> [Operation] {
            operations.withLock { operations in
                defer { operations = [] }
                return operations
            }
        }
    }

    private final class JournalledStore: BackingStore {
        private let store: any BackingStore
        private let journal: Journal
        init(_ store: any BackingStore, _ journal: Journal) {
            self.store = store
            self.journal = journal
        }
        var length: UInt64 { store.length }
        func perform(_ operation: Operation, buffer: Buffer?) -> Outcome {
            let outcome = store.perform(operation, buffer: buffer)
            journal.append(operation)
            return outcome
        }
        func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome? { nil }
    }

    @Test("FUA and SYNCHRONIZE CACHE have reached the medium when their status comes, and so has every write without a cache")
    func durability() throws {
        let journal = Journal()
        let rig = try Rig { $0.decorate = { JournalledStore($0, journal) } }
        let client = try rig.grant(tsih: 1)
        try client.begin()
        func extent(_ block: UInt64) -> Extent { Extent(offset: block * 512, length: 512) }
        func fua(_ cdb: [UInt8]) -> [UInt8] { [cdb[0], 0x08] + cdb.dropFirst(2) }
        #expect(client.perform(Client.write(1), writes: block) == 0)
        #expect(journal.take() == [.write(extent(1), durable: false)])
        #expect(client.perform(fua(Client.write(2)), writes: block) == 0)
        #expect(journal.take() == [.write(extent(2), durable: true)])
        #expect(client.perform(Self.synchronize) == 0)
        #expect(journal.take() == [.flush])
        // MODE SELECT(6): the caching page without WCE. What is cached is flushed first.
        let caching: [UInt8] = [0, 0, 0, 0, 0x08, 18, 0x10, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0]
        #expect(client.perform([0x15, 0x10, 0, 0, UInt8(caching.count), 0], writes: caching) == 0)
        #expect(journal.take() == [.flush])
        #expect(client.perform(Client.write(3), writes: block) == 0)
        #expect(journal.take() == [.write(extent(3), durable: true)])
    }
}
