import Reactor
import SCSI
import Storage
import Synchronization

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

/// Which store serves which logical unit. Shared by reactors; a change takes effect with the next command.
final class StoreTable: Sendable {
    private let stores = Mutex<[ObjectIdentifier: any BackingStore]>([:])

    subscript(unit: LogicalUnit) -> (any BackingStore)? {
        get { stores.withLock { $0[ObjectIdentifier(unit)] } }
        set { stores.withLock { $0[ObjectIdentifier(unit)] = newValue } }
    }
}
