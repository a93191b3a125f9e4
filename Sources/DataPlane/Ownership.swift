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

/// A store with the queue of its operations that may block. Its logical unit holds it, and each command that has begun.
final class ServedStore: MediumHandle {
    let store: any BackingStore
    let queue: StoreQueue<StorageTicket>
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
