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

    /// Closes it now. Nobody may use `rawValue` any more.
    func close() {
        guard isOpen.exchange(false, ordering: .acquiringAndReleasing) else { return }
        _ = FileDescriptor(owning: rawValue)
    }

    deinit { close() }
}

/// A store with the queue of its operations that may block.
final class ServedStore: Sendable {
    let store: any BackingStore
    let queue: StoreQueue<StorageTicket>

    init(_ store: any BackingStore, pool: IOPool<StorageTicket>) {
        self.store = store
        queue = pool.open(store)
    }
}

/// To whom the outcome of an operation goes.
struct StorageTicket: Sendable {
    let mailbox: Mailbox<ReactorMessage>
    let nexus: NexusID
    let ticket: Ticket
}

/// Which store serves which logical unit. Shared by reactors; a change takes effect with the next command.
final class StoreTable: Sendable {
    private let stores = Mutex<[ObjectIdentifier: ServedStore]>([:])

    subscript(unit: LogicalUnit) -> ServedStore? {
        get { stores.withLock { $0[ObjectIdentifier(unit)] } }
        set { stores.withLock { $0[ObjectIdentifier(unit)] = newValue } }
    }
}
