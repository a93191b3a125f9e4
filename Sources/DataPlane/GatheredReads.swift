import Bytes
import Medium
import SCSI
import Storage
import Target

/// Reads that one session wants done, gathered until it wants nothing more: then they take one system call.
///
/// A reactor has one, and it is empty between two of its connections.
final class GatheredReads {
    private let ring: ReadRing
    private var hold: Hold<ServedStore>?
    private var file: FileStore?
    /// Bytes of it.
    private var length: UInt64 = 0
    private var reads: [ReadRing.Read] = []
    private var tickets: [Ticket] = []

    init(_ ring: ReadRing) { self.ring = ring }

    var isEmpty: Bool { reads.isEmpty }
    var isFull: Bool { reads.count == ReadRing.most }

    /// Whether it takes the operation: a short read, of the same file as the others.
    func take(_ ticket: Ticket, _ operation: Operation, _ buffer: Buffer?, _ hold: Hold<ServedStore>) -> Bool {
        guard !isFull, case .read(let extent) = operation, let buffer else { return false }
        if isEmpty {
            guard let file = hold.medium.store.fileToRead(for: operation), operation.fits(length: file.length, capacity: buffer.capacity) else { return false }
            (self.hold, self.file, length) = (hold, file, file.length)
        } else {
            guard self.hold === hold, (1...FileStore.mostTogether).contains(extent.length), operation.fits(length: length, capacity: buffer.capacity)
            else { return false }
        }
        reads.append(ReadRing.Read(extent, into: buffer))
        tickets.append(ticket)
        return true
    }

    /// Does what does not wait, tells of each, and is empty.
    func perform(_ tell: (Ticket, ReadRing.Read, Hold<ServedStore>) -> Void) {
        guard let hold, let file else { return }
        file.readAtOnce(&reads, through: ring)
        for (ticket, read) in zip(tickets, reads) { tell(ticket, read, hold) }
        (self.hold, self.file) = (nil, nil)
        reads.removeAll(keepingCapacity: true)
        tickets.removeAll(keepingCapacity: true)
    }
}
