import SCSI
import Synchronization
import Target

/// Where sessions leave what they tell each other, and buffers that they are free.
final class Postbox: Sendable {
    private let posted = Mutex<[(NexusID, Notification)]>([])
    let releases = Counter()

    func post(_ nexus: NexusID, _ notification: Notification) { posted.withLock { $0.append((nexus, notification)) } }
    func next() -> (NexusID, Notification)? { posted.withLock { $0.isEmpty ? nil : $0.removeFirst() } }
}

final class Counter: Sendable {
    private let value = Atomic<Int>(0)
    var count: Int { value.load(ordering: .relaxed) }
    func raise() { value.add(1, ordering: .relaxed) }
}
