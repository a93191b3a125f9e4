import Bytes
import Medium
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

/// How far somebody is trusted not to hold reactors up: a store whose writes they do themselves, or all such writes of one reactor. That may
/// come to a part of the time; what goes beyond that is left to the pool until it is made up for.
final class Trust: Sendable {
    /// What may be left to make up for while it is trusted, and the most that is ever held against it, in nanoseconds.
    static let tolerance: UInt64 = 20_000_000
    static let most: UInt64 = 10_000_000_000

    /// How many times as long as it has held a reactor up it must not do so.
    private let atonement: UInt64
    /// When all is made up for, by the monotonic clock.
    private let end = Atomic<UInt64>(0)
    /// Threads that it holds up now, as far as their reliefs have noticed. (Who is back may be counted out before.)
    private let holding = Atomic<Int>(0)

    init(atonement: UInt64) { self.atonement = atonement }

    /// At that time of the monotonic clock, in nanoseconds.
    func holds(at now: UInt64) -> Bool { holding.load(ordering: .relaxed) <= 0 && end.load(ordering: .relaxed) <= now + Self.tolerance }

    /// A reactor was held up for `time` until `now`, both in nanoseconds. Of two at the same moment one may go uncounted.
    func heldUp(for time: UInt64, until now: UInt64) {
        let (longer, overflow) = time.multipliedReportingOverflow(by: atonement)
        let from = max(end.load(ordering: .relaxed), now)
        end.store(min(from + (overflow ? Self.most : min(longer, Self.most)), now + Self.most), ordering: .relaxed)
    }

    /// A thread is held up by it, and has been relieved; it is back.
    func begins() { holding.add(1, ordering: .relaxed) }
    func ends() { holding.subtract(1, ordering: .relaxed) }
}

/// A store with the queue of its operations that may block. Its logical unit holds it, and each command that has begun.
final class ServedStore: MediumHandle {
    let store: any BackingStore
    let queue: StoreQueue<StorageTicket>
    /// A tenth of a reactor's time.
    let trust = Trust(atonement: 10)
    /// Let go with the store.
    private let waiting = Mutex<Acknowledgement?>(nil)

    init(_ store: any BackingStore, pool: IOPool<StorageTicket>) {
        self.store = store
        queue = pool.open(store)
    }

    func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome? {
        // What is served is what control says; it may have been wrong about the length.
        guard operation.fits(length: store.length, capacity: buffer?.capacity ?? 0) else {
            return .failed(operation.isWrite ? .unwritable : .unreadable)
        }
        return store.performAtOnce(operation, buffer: buffer)
    }

    /// Whether a reactor may well do the operation itself, at that time of the monotonic clock.
    func isTrusted(with operation: Operation, at now: UInt64) -> Bool { trust.holds(at: now) && store.isSeldomHeldUp(by: operation) }

    /// Does it on the calling thread; nil: it would have to wait for others in the store.
    func performBeside(_ operation: Operation, buffer: Buffer?) -> Outcome? { store.performBeside(operation, buffer: buffer) }

    /// `acknowledgement` is let go when nobody has anything to do with the store any more.
    func tellEnd(_ acknowledgement: Acknowledgement) { waiting.withLock { $0 = acknowledgement } }
}

/// To whom the outcome of an operation goes.
struct StorageTicket: Sendable {
    let mailbox: Mailbox<ReactorMessage>
    let nexus: NexusID
    let ticket: Ticket
}
