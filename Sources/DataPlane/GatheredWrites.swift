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

    private let relief: Relief
    private let pool: IOPool<StorageTicket>
    private let tell: (ArraySlice<Finished>) -> Void
    private var waiting: Deque<Write> = []
    private var finished: [Finished] = []
    private var told: [Finished] = []

    /// - Parameter tell: gets what is over of one session, all together
    init(_ relief: Relief, _ pool: IOPool<StorageTicket>, tell: @escaping (ArraySlice<Finished>) -> Void) {
        self.relief = relief
        self.pool = pool
        self.tell = tell
    }

    /// Whether it takes the operation; `now` is the loop's.
    func take(_ token: StorageTicket, _ operation: Operation, _ buffer: Buffer?, _ hold: Hold<ServedStore>, now: UInt64) -> Bool {
        guard relief.isThere, hold.withMedium({ $0.isTrusted(with: operation, at: now) }) else { return false }
        waiting.append(Write(token: token, operation: operation, buffer: buffer, hold: hold, taken: now))
        return true
    }

    var isWanted: Bool { !waiting.isEmpty || !finished.isEmpty }

    func go() -> Bool {
        while let write = waiting.popFirst() { guard perform(write) else { return false } }
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

    /// false: the reactor is another thread's by now.
    private func perform(_ write: consuming Write) -> Bool {
        let (token, hold) = (write.token, write.hold)
        // What has held it up too long is not trusted with the next.
        guard relief.isThere, hold.medium.trust.holds(at: write.taken) else {
            if !pool.submit(write.operation, buffer: write.buffer, on: hold.medium.queue, token: token) { finish(token, .failed(.busy)) }
            return true
        }
        var outcome = Outcome.done
        let errand = relief.away(expected: Self.expected(write.buffer?.capacity ?? 0)) {
            outcome = hold.withMedium { $0.perform(write.operation, buffer: write.buffer) }
        }
        switch errand {
        case .quick: break
        case .slow(let time, let back): hold.medium.trust.heldUp(for: time, until: back)
        case .relieved(let time, let back):
            hold.medium.trust.heldUp(for: time, until: back)
            // The buffer goes before the outcome is out.
            _ = consume write
            token.mailbox.post(.completed(token.nexus, token.ticket, outcome))
            return false
        }
        finish(token, outcome)
        return true
    }

    private func finish(_ token: StorageTicket, _ outcome: Outcome) { finished.append(Finished(nexus: token.nexus, ticket: token.ticket, outcome: outcome)) }

    /// What the copy into the page cache takes at the most on a machine of today, in nanoseconds.
    private static func expected(_ bytes: Int) -> UInt64 { 50_000 + UInt64(bytes) }
}
