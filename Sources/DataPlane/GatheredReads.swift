import Bytes
import Medium
import Storage
import Target

/// Reads that one session wants done, gathered until it wants nothing more: then they take one system call.
///
/// A reactor has one, and it is empty between two of its connections.
final class GatheredReads {
    private let ring: ReadRing
    private var served: ServedStore?
    private var file: FileStore?
    private var reads: [ReadRing.Read] = []
    private var tickets: [Ticket] = []

    init(_ ring: ReadRing) { self.ring = ring }

    var isEmpty: Bool { reads.isEmpty }
    var isFull: Bool { reads.count == ReadRing.most }

    /// Whether it takes the operation: a short read, of the same file as the others.
    func take(_ ticket: Ticket, _ operation: Operation, _ buffer: Buffer?, _ served: ServedStore) -> Bool {
        guard !isFull, self.served == nil || self.served === served, case .read(let extent) = operation, let buffer,
            let file = served.store.fileToRead(for: operation)
        else { return false }
        if isEmpty { (self.served, self.file) = (served, file) }
        reads.append(ReadRing.Read(extent, into: buffer))
        tickets.append(ticket)
        return true
    }

    /// Does what does not wait, tells of each, and is empty.
    func perform(_ tell: (Ticket, ReadRing.Read, ServedStore) -> Void) {
        guard let served, let file else { return }
        file.readAtOnce(&reads, through: ring)
        for (ticket, read) in zip(tickets, reads) { tell(ticket, read, served) }
        (self.served, self.file) = (nil, nil)
        reads.removeAll(keepingCapacity: true)
        tickets.removeAll(keepingCapacity: true)
    }
}
