import DequeModule

/// Bytes on their way to a peer, in order: small pieces are copied together, large ones are slices of buffers.
public struct OutputQueue {
    /// A slice of a buffer that waits to be sent.
    public struct Segment {
        public let buffer: Buffer
        public fileprivate(set) var range: Range<Int>
    }

    private var queue: Deque<Segment> = []
    /// The last segment, while it may still take small pieces.
    private var scratchIsOpen = false
    private let pool: BufferPool

    /// Bytes that wait to be sent.
    public private(set) var byteCount = 0
    public var isEmpty: Bool { byteCount == 0 }
    public var segments: some Collection<Segment> { queue }

    /// Small pieces are gathered in buffers of this many bytes.
    public static let scratchSize = 4096

    /// - Parameter pool: where the memory for small pieces comes from. Give it a pool of its own: an answer must not fail
    ///   because the data of tasks have used up their budget. What bounds it is the reader, who stops reading requests
    ///   while too many answers wait.
    public init(pool: BufferPool) { self.pool = pool }

    /// Queues a copy of `bytes`.
    public mutating func append(copying bytes: borrowing Span<UInt8>) {
        var done = 0
        while done < bytes.count {
            if !scratchIsOpen || queue[queue.count - 1].range.upperBound == Self.scratchSize {
                guard let buffer = pool.allocate(Self.scratchSize) else { preconditionFailure("the pool for answers is bounded by its readers") }
                queue.append(Segment(buffer: buffer, range: 0..<0))
                scratchIsOpen = true
            }
            let last = queue.count - 1
            let end = queue[last].range.upperBound
            let count = min(bytes.count - done, Self.scratchSize - end)
            queue[last].buffer.copy(bytes.extracting(done..<done + count), to: end)
            queue[last].range = queue[last].range.lowerBound..<end + count
            done += count
        }
        byteCount += bytes.count
    }

    /// Queues the bytes of `buffer` in `range`, which may reach into headroom and tailroom. They must not change any more.
    public mutating func append(_ buffer: Buffer, _ range: Range<Int>) {
        guard !range.isEmpty else { return }
        queue.append(Segment(buffer: buffer, range: range))
        scratchIsOpen = false
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
            queue.removeFirst()
        }
        if queue.isEmpty { scratchIsOpen = false }
    }

    /// Takes everything out as one array: for tests and for peers without gathered sends.
    public mutating func drain() -> [UInt8] {
        var bytes: [UInt8] = []
        for segment in queue { bytes += segment.buffer.array(segment.range) }
        queue = []
        byteCount = 0
        scratchIsOpen = false
        return bytes
    }
}
