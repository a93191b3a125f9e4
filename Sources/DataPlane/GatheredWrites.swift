import Bytes
import DequeModule
import Medium
import Reactor
import SCSI
import Storage
import Target

/// Writes that the page cache takes at once, nearly always: the reactor's own thread does them, between two turns of its loop. If one of
/// them holds it up, its relief goes on with the reactor, and the writes that are left go to the pool.
final class GatheredWrites: Detour {
    private struct Write {
        let token: StorageTicket
        let operation: Operation
        let buffer: Buffer?
        let hold: Hold<ServedStore>
        let taken: UInt64
    }

    /// A write that is over, though its session does not know yet.
    struct Finished {
        let nexus: NexusID
        let ticket: Ticket
        let outcome: Outcome
    }

    /// How long it goes on before the loop has a turn, in nanoseconds.
    private static let budget: UInt64 = 1_000_000

    private let relief: Relief
    private let pool: IOPool<StorageTicket>
    private let tell: (ArraySlice<Finished>) -> Void
    private var waiting: Deque<Write> = []
    private var finished: [Finished] = []
    private var told: [Finished] = []
    /// Whose write is being done. Who finds one when it comes to the loop has relieved the thread that is at it.
    private var current: Hold<ServedStore>?
    /// All of them together may hold the reactor up for a third of its time.
    private let trust = Trust(atonement: 3)

    /// - Parameter tell: gets what is over of one session, all together
    init(_ relief: Relief, _ pool: IOPool<StorageTicket>, tell: @escaping (ArraySlice<Finished>) -> Void) {
        self.relief = relief
        self.pool = pool
        self.tell = tell
    }

    /// Whether it takes the operation; `now` is the loop's.
    func take(_ token: StorageTicket, _ operation: Operation, _ buffer: Buffer?, _ hold: Hold<ServedStore>, now: UInt64) -> Bool {
        guard relief.isThere, trust.holds(at: now), hold.withMedium({ $0.isTrusted(with: operation, at: now) }) else { return false }
        waiting.append(Write(token: token, operation: operation, buffer: buffer, hold: hold, taken: now))
        return true
    }

    var isWanted: Bool { !waiting.isEmpty || !finished.isEmpty || current != nil }

    func go() -> Bool {
        if let held = current.take() { held.medium.trust.begins() }
        relief.setOut()
        var time: UInt64 = 0
        while time < Self.budget, let write = waiting.popFirst() {
            guard let taken = perform(write) else { return false }
            time += taken
        }
        swap(&finished, &told)
        var rest = told[...]
        while let nexus = rest.first?.nexus {
            let end = rest.firstIndex { $0.nexus != nexus } ?? rest.endIndex
            tell(rest[..<end])
            rest = rest[end...]
        }
        rest = []
        told.removeAll(keepingCapacity: true)
        return true
    }

    /// - Returns: how long it has taken, in nanoseconds; nil: the reactor is another thread's by now
    private func perform(_ write: consuming Write) -> UInt64? {
        let (token, hold) = (write.token, write.hold)
        // What has held it up too long is not trusted with the next.
        guard relief.isThere, trust.holds(at: write.taken), hold.medium.trust.holds(at: write.taken) else {
            if !submit(write) { finish(token, .failed(.busy)) }
            return 0
        }
        var outcome: Outcome?
        current = hold
        let errand = relief.away(expected: Self.expected(write.buffer?.capacity ?? 0)) {
            outcome = hold.withMedium { $0.performBeside(write.operation, buffer: write.buffer) }
        }
        if errand.slept {
            hold.medium.trust.heldUp(for: errand.time, until: errand.end)
            trust.heldUp(for: min(errand.time, 2 * Relief.look), until: errand.end)
        }
        if errand.isRelieved {
            hold.medium.trust.ends()
            // The buffer goes before the outcome is out.
            if outcome == nil, !submit(write) { outcome = .failed(.busy) }
            _ = consume write
            if let outcome { token.mailbox.post(.completed(token.nexus, token.ticket, outcome)) }
            return nil
        }
        current = nil
        if outcome == nil, !submit(write) { outcome = .failed(.busy) }
        if let outcome { finish(token, outcome) }
        return errand.time
    }

    /// Leaves it to a thread that may wait; false: none takes it.
    private func submit(_ write: borrowing Write) -> Bool {
        pool.submit(write.operation, buffer: write.buffer, on: write.hold.medium.queue, token: write.token)
    }

    private func finish(_ token: StorageTicket, _ outcome: Outcome) { finished.append(Finished(nexus: token.nexus, ticket: token.ticket, outcome: outcome)) }

    /// What the copy into the page cache takes at the most on a machine of today, in nanoseconds.
    private static func expected(_ bytes: Int) -> UInt64 { 50_000 + UInt64(bytes) }
}
