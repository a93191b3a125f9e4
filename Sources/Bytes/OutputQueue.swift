import DequeModule

/// Bytes on their way to a peer, in order: small pieces are copied together, large ones are slices of buffers.
public struct OutputQueue {
    /// A slice of a buffer that waits to be sent.
    public struct Segment {
        public fileprivate(set) var buffer: Buffer
        public fileprivate(set) var range: Range<Int>
        /// Whether the buffer is one that was handed over, not one of ours for small pieces.
        fileprivate let isHandedOver: Bool
    }

    private var queue: Deque<Segment> = []
    /// Where small pieces are gathered, and how far it is full. Large ones in between do not end it: otherwise each header between
    /// two of them would hold a scratch buffer of its own.
    private var scratch: Buffer?
    private var scratchEnd = 0
    /// How often all has been sent since memory was last given back.
    private var exhaustions = 0
    private let pool: BufferPool
    /// Buffers that were handed over, and have been sent: for whoever needs one like them.
    private var spare: [Buffer] = []
    private var spareBytes = 0
    /// Bytes of such buffers that are kept, none of which is one that still waits; and if that is any, the buffer for small pieces of who
    /// says much.
    public let keeps: Int

    /// Bytes that wait to be sent.
    public private(set) var byteCount = 0
    public var isEmpty: Bool { byteCount == 0 }
    public var segments: some Collection<Segment> { queue }

    /// Small pieces are gathered in buffers of this many bytes.
    public static let scratchSize = 4096
    /// Whoever has had nothing more to send as often as that says much. A thousand who log in and are silent would each leave a buffer
    /// that the allocator does not get out from between what stays.
    public static let muchSaid = 64

    /// - Parameter pool: where the memory for small pieces comes from. Give it a pool of its own: an answer must not fail
    ///   because the data of tasks have used up their budget. What bounds it is the reader, who stops reading requests
    ///   while too many answers wait.
    /// - Parameter keeps: how many bytes of buffers to keep for `reuse` when they have been sent, besides the one for small pieces; 0: none at all
    public init(pool: BufferPool, keeps: Int = 0) {
        self.pool = pool
        self.keeps = keeps
    }

    /// Queues a copy of `bytes`.
    public mutating func append(copying bytes: borrowing Span<UInt8>) {
        var done = 0
        while done < bytes.count {
            if scratch == nil || scratchEnd == Self.scratchSize { beginScratch() }
            let piece = scratchEnd..<min(scratchEnd + bytes.count - done, Self.scratchSize)
            scratch?.copy(bytes.extracting(done..<done + piece.count), to: piece.lowerBound)
            let last = queue.count - 1
            // Of ours the last one is of this buffer, unless that has just begun.
            if last >= 0, !queue[last].isHandedOver, queue[last].range.upperBound == piece.lowerBound {
                queue[last].range = queue[last].range.lowerBound..<piece.upperBound
            } else if let scratch {
                queue.append(Segment(buffer: scratch, range: piece, isHandedOver: false))
            }
            scratchEnd = piece.upperBound
            done += piece.count
        }
        byteCount += bytes.count
    }

    private mutating func beginScratch() {
        guard let fresh = pool.allocate(Self.scratchSize) else { preconditionFailure("the pool for answers is bounded by its readers") }
        scratch = fresh
        scratchEnd = 0
    }

    /// Queues the bytes of `buffer` in `range`, which may reach into headroom and tailroom. They must not change any more.
    public mutating func append(_ buffer: Buffer, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        queue.append(Segment(buffer: buffer, range: range, isHandedOver: true))
        byteCount += range.count
    }

    /// Forgets the first `count` bytes: they are sent.
    public mutating func consume(_ count: Int) {
        precondition(count <= byteCount)
        byteCount -= count
        var rest = count
        while rest > 0 {
            let held = queue[0].range.count
            if rest < held {
                queue[0].range = queue[0].range.lowerBound + rest..<queue[0].range.upperBound
                return
            }
            rest -= held
            finish(queue.removeFirst())
        }
        guard queue.isEmpty else { return }
        // Nobody reads what is in it any more.
        if exhaustions == Self.muchSaid, keeps > 0, isKnownUniquelyReferenced(&scratch) {
            scratchEnd = 0
        } else {
            scratch = nil
            exhaustions = min(exhaustions + 1, Self.muchSaid)
        }
    }

    private mutating func finish(_ segment: consuming Segment) {
        guard segment.isHandedOver, spareBytes + segment.buffer.capacity <= keeps, isKnownUniquelyReferenced(&segment.buffer) else { return }
        spareBytes += segment.buffer.capacity
        spare.append(segment.buffer)
    }

    /// Keeps a buffer for `reuse`, if nobody else has it and there is room.
    public mutating func keep(_ buffer: consuming Buffer?) {
        guard let capacity = buffer?.capacity, spareBytes + capacity <= keeps, isKnownUniquelyReferenced(&buffer), let buffer else { return }
        spareBytes += capacity
        spare.append(buffer)
    }

    /// A buffer of exactly `capacity` bytes that was sent or kept, and that nobody else has.
    public mutating func reuse(_ capacity: Int) -> Buffer? {
        // They are nearly always of one size; those of another make room, one for each that was wanted.
        let index = spare.lastIndex { $0.capacity == capacity }
        guard let place = index ?? spare.indices.first else { return nil }
        let buffer = spare.remove(at: place)
        spareBytes -= buffer.capacity
        return index == nil ? nil : buffer
    }

    /// Gives back what is kept for `reuse`, and for small pieces while there are none.
    public mutating func dropSpare() {
        if isEmpty { scratch = nil }
        exhaustions = 0
        guard spareBytes > 0 else { return }
        spare = []
        spareBytes = 0
    }

    /// Takes everything out as one array: for tests and for peers without gathered sends.
    public mutating func drain() -> [UInt8] {
        var bytes: [UInt8] = []
        for segment in queue { bytes += segment.buffer.array(segment.range) }
        queue = []
        byteCount = 0
        scratch = nil
        return bytes
    }
}
