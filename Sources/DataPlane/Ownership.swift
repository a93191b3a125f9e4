import Reactor
import SCSI
import Storage
import Synchronization
import Target

/// A descriptor that travels between threads inside of messages and is closed when nobody needs it any more.
final class OwnedDescriptor: Sendable {
    let rawValue: Int32
    private let isOpen: Atomic<Bool>

    init(_ descriptor: consuming FileDescriptor) {
        rawValue = descriptor.release()
        isOpen = Atomic(true)
    }

    /// Gives it to somebody else; nil if it is closed. Nobody here may use `rawValue` any more.
    func give() -> FileDescriptor? {
        isOpen.exchange(false, ordering: .acquiringAndReleasing) ? FileDescriptor(owning: rawValue) : nil
    }

    /// Closes it now. Nobody may use `rawValue` any more.
    func close() { _ = give() }

    deinit { close() }
}

/// Whether reactors do a store's writes themselves. One that has held a reactor up is left to the pool for a while, for twice as long each
/// time that it happens again soon.
final class Trust: Sendable {
    /// How long, the first time, in nanoseconds; and how often that is doubled.
    static let first: UInt64 = 10_000_000
    static let doublings: UInt64 = 7
    /// How long it must have gone well to begin anew, in nanoseconds.
    static let forgiveness: UInt64 = 1_000_000_000

    private let until = Atomic<UInt64>(0)
    private let times = Atomic<UInt64>(0)

    /// At that time of the monotonic clock, in nanoseconds.
    func holds(at now: UInt64) -> Bool { now >= until.load(ordering: .relaxed) }

    /// A reactor was held up until `now`.
    func heldUp(at now: UInt64) {
        let before = until.load(ordering: .relaxed)
        // Another one has found that out.
        guard now >= before else { return }
        let level = now - before > Self.forgiveness ? 0 : min(times.load(ordering: .relaxed) + 1, Self.doublings)
        times.store(level, ordering: .relaxed)
        until.store(now + Self.first << level, ordering: .relaxed)
    }
}

/// A store with the queue of its operations that may block. Its logical unit holds it, and each command that has begun.
final class ServedStore: MediumHandle {
    let store: any BackingStore
    let queue: StoreQueue<StorageTicket>
    let trust = Trust()
    /// Let go with the store.
    private let waiting = Mutex<Acknowledgement?>(nil)

    init(_ store: any BackingStore, pool: IOPool<StorageTicket>) {
        self.store = store
        queue = pool.open(store)
    }

    /// `acknowledgement` is let go when nobody has anything to do with the store any more.
    func tellEnd(_ acknowledgement: Acknowledgement) { waiting.withLock { $0 = acknowledgement } }
}

/// To whom the outcome of an operation goes.
struct StorageTicket: Sendable {
    let mailbox: Mailbox<ReactorMessage>
    let nexus: NexusID
    let ticket: Ticket
}
