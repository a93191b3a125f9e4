import Bytes
import CLinux
import Glibc
import Medium

/// One operation on a file, on the thread that does it; the gate is passed already.
struct Transfer: ~Copyable {
    /// Memory that an operation takes for itself: verifying, comparing, repeating patterns. Large enough for the medium to be
    /// busy, small enough for every thread of the pool to have it.
    static let scratchSize = 256 << 10

    private let store: FileStore
    private let fd: Int32
    /// 1 unless the file is direct.
    private let alignment: Int

    init(_ store: FileStore, _ alignment: Int) {
        self.store = store
        fd = store.descriptor.rawValue
        self.alignment = store.flags.contains(.direct) ? alignment : 1
    }

    func run(_ operation: Operation, _ buffer: Buffer?) throws(Trouble) -> Outcome {
        switch operation {
        case .read(let extent): try unsafe read(memory(buffer, 0, extent), at: extent.offset)
        case .write(let extent, let durable): try unsafe write(memory(buffer, 0, extent), at: extent.offset, durable)
        case .flush: try flush()
        case .discard(let extents): for extent in extents { try zero(extent, unmap: true) }
        case .writeSame(let extent, let pattern, let durable): try unsafe writeSame(extent, memory(buffer, 0, pattern), durable)
        case .verify(let extent): try unsafe inPieces(extent) { piece, _, offset throws(Trouble) in try unsafe read(piece, at: offset) }
        case .compare(let extent): try compare(extent, buffer)
        case .orWrite(let extent, let durable): try or(extent, buffer, durable)
        case .compareAndWrite(let extent, let durable):
            try compare(extent, buffer)
            try unsafe write(memory(buffer, Int(extent.length), extent), at: extent.offset, durable)
        case .prefetch(let extent):
            // Advice: a store that cannot take it has lost nothing.
            if alignment == 1 { _ = linux_will_need(fd, extent.offset, extent.length) }
        case .provisioning(let extent): return .provisioned(runs(of: extent))
        }
        return .done
    }

    // MARK: Bytes

    private func memory(_ buffer: Buffer?, _ start: Int, _ extent: Extent) -> UnsafeMutableRawBufferPointer {
        unsafe memory(buffer, start, Int(extent.length))
    }

    private func memory(_ buffer: Buffer?, _ start: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
        unsafe UnsafeMutableRawBufferPointer(start: buffer?.address(of: start..<start + count), count: count)
    }

    private func isAligned(_ bytes: UnsafeMutableRawBufferPointer, _ offset: UInt64) -> Bool {
        guard alignment > 1, let start = bytes.baseAddress else { return true }
        return (UInt(bitPattern: start) | UInt(bytes.count) | UInt(truncatingIfNeeded: offset)) % UInt(alignment) == 0
    }

    private func read(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Trouble) {
        guard unsafe isAligned(bytes, offset) else { return try unsafe readAround(bytes, at: offset) }
        guard try unsafe readUpTo(bytes, at: offset) == bytes.count else { throw .failure(.unreadable) }
    }

    /// Reads until `bytes` is full or the file ends; returns how many.
    private func readUpTo(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Trouble) -> Int {
        var done = 0
        while done < bytes.count {
            let result = unsafe linux_read_at(fd, bytes.baseAddress! + done, bytes.count - done, offset + UInt64(done), 0)
            if result == 0 { break }
            if result < 0 { throw trouble(result, .unreadable) }
            done += result
        }
        return done
    }

    private func write(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64, _ durable: Bool) throws(Trouble) {
        guard unsafe isAligned(bytes, offset) else { return try unsafe writeAround(bytes, at: offset, durable) }
        let flags = durable ? Int32(LINUX_RWF_DSYNC) : 0
        // The flush of a durable write also reports what befell earlier writes.
        let failure = durable || store.flags.contains(.sync) ? Failure.flushFailed : .unwritable
        var done = 0
        while done < bytes.count {
            let result = unsafe linux_write_at(fd, bytes.baseAddress! + done, bytes.count - done, offset + UInt64(done), flags)
            if result <= 0 { throw trouble(result == 0 ? -Int(EIO) : result, failure) }
            done += result
        }
    }

    private func flush() throws(Trouble) {
        if store.isReadOnly { return }
        let result = linux_data_sync(fd)
        if result < 0 { throw .failure(.flushFailed) }
    }

    private func trouble(_ result: Int, _ other: Failure) -> Trouble {
        switch Int32(-result) {
        case EINVAL where alignment > 1: .misaligned
        case ENOSPC, EDQUOT, EFBIG: .failure(.noSpace)
        case EROFS, EPERM, EBADF: .failure(other == .unreadable ? .unreadable : .readOnly)
        default: .failure(other)
        }
    }

    // MARK: Direct I/O off its alignment

    /// Calls `body` with aligned memory and the aligned piece of the medium around each part of the `count` bytes at `offset`:
    /// (memory, its place on the medium, where the part begins in the memory, the part's range in the caller's bytes).
    private func around(
        _ offset: UInt64, _ count: Int,
        _ body: (UnsafeMutableRawBufferPointer, UInt64, Int, Range<Int>) throws(Trouble) -> Void
    ) throws(Trouble) {
        let grain = UInt64(FileStore.coarsestAlignment)
        try unsafe withScratch(Self.scratchSize) { scratch throws(Trouble) in
            var done = 0
            while done < count {
                let start = offset + UInt64(done)
                let base = start / grain * grain
                let inset = Int(start - base)
                let part = min(count - done, scratch.count - inset)
                let whole = (inset + part + Int(grain) - 1) / Int(grain) * Int(grain)
                try unsafe body(UnsafeMutableRawBufferPointer(rebasing: scratch[..<whole]), base, inset, done..<done + part)
                done += part
            }
        }
    }

    private func readAround(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(Trouble) {
        try unsafe around(offset, bytes.count) { whole, base, inset, range throws(Trouble) in
            guard try unsafe readUpTo(whole, at: base) >= inset + range.count else { throw .failure(.unreadable) }
            unsafe bytes[range].copyBytes(from: UnsafeRawBufferPointer(rebasing: whole[inset..<inset + range.count]))
        }
    }

    /// Reads, changes and writes the aligned pieces around the bytes; alone in the store.
    private func writeAround(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64, _ durable: Bool) throws(Trouble) {
        try unsafe around(offset, bytes.count) { whole, base, inset, range throws(Trouble) in
            // The opener refuses direct files whose end is not on the alignment: writing must not make the file longer.
            guard try unsafe readUpTo(whole, at: base) == whole.count else { throw .failure(.unwritable) }
            unsafe UnsafeMutableRawBufferPointer(rebasing: whole[inset...]).copyBytes(from: UnsafeRawBufferPointer(rebasing: bytes[range]))
            try unsafe write(whole, at: base, durable)
        }
    }

    // MARK: Zeros and patterns

    private func writeSame(_ extent: Extent, _ pattern: UnsafeMutableRawBufferPointer, _ durable: Bool) throws(Trouble) {
        if unsafe isZero(pattern) {
            try zero(extent, unmap: false)
        } else {
            let repeats = max(1, min(Self.scratchSize, Int(clamping: extent.length)) / pattern.count)
            try unsafe withScratch(repeats * pattern.count) { scratch throws(Trouble) in
                for index in 0..<repeats {
                    unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[(index * pattern.count)...]).copyBytes(from: pattern)
                }
                try unsafe fill(extent, with: scratch)
            }
        }
        if durable { try flush() }
    }

    /// Writes `scratch` over and over; the extent may end within it.
    private func fill(_ extent: Extent, with scratch: UnsafeMutableRawBufferPointer) throws(Trouble) {
        var offset = extent.offset
        while offset < extent.end {
            let count = Int(min(UInt64(scratch.count), extent.end - offset))
            try unsafe write(UnsafeMutableRawBufferPointer(rebasing: scratch[..<count]), at: offset, false)
            offset += UInt64(count)
        }
    }

    private func isZero(_ bytes: UnsafeMutableRawBufferPointer) -> Bool { unsafe bytes.allSatisfy { $0 == 0 } }

    /// The extent reads as zeros; with `unmap` it gives back its space where that is possible, otherwise it keeps or gets it.
    private func zero(_ extent: Extent, unmap: Bool) throws(Trouble) {
        guard extent.length > 0 else { return }
        // Files take any range; devices want whole sectors, so the edges are written.
        let grain = store.isBlockDevice ? UInt64(max(alignment, store.sector)) : 1
        let start = extent.offset + (grain - extent.offset % grain) % grain
        let end = extent.end / grain * grain
        guard start < end else { return try writeZeros(extent) }
        if !quickly(Extent(offset: start, length: end - start), unmap: unmap) {
            try writeZeros(Extent(offset: start, length: end - start))
        }
        try writeZeros(Extent(offset: extent.offset, length: start - extent.offset))
        try writeZeros(Extent(offset: end, length: extent.end - end))
    }

    /// Whether the kernel has made it zeros without our writing them. What it cannot do that way, for whatever reason, is written,
    /// and the write's failure is the one to report.
    private func quickly(_ extent: Extent, unmap: Bool) -> Bool {
        if unmap, linux_punch_hole(fd, extent.offset, extent.length) == 0 { return true }
        return (store.isBlockDevice
            ? linux_block_device_zero(fd, extent.offset, extent.length) : linux_zero_range(fd, extent.offset, extent.length)) == 0
    }

    private func writeZeros(_ extent: Extent) throws(Trouble) {
        guard extent.length > 0 else { return }
        try unsafe withScratch(min(Self.scratchSize, Int(clamping: extent.length))) { scratch throws(Trouble) in
            unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0)
            try unsafe fill(extent, with: scratch)
        }
    }

    // MARK: Comparing and merging

    /// Calls `body` with memory for each piece of the extent: (memory, place in the extent, place on the medium).
    private func inPieces(
        _ extent: Extent, _ body: (UnsafeMutableRawBufferPointer, Int, UInt64) throws(Trouble) -> Void
    ) throws(Trouble) {
        guard extent.length > 0 else { return }
        try unsafe withScratch(min(Self.scratchSize, Int(clamping: extent.length))) { scratch throws(Trouble) in
            var done: UInt64 = 0
            while done < extent.length {
                let count = Int(min(UInt64(scratch.count), extent.length - done))
                try unsafe body(UnsafeMutableRawBufferPointer(rebasing: scratch[..<count]), Int(done), extent.offset + done)
                done += UInt64(count)
            }
        }
    }

    private func compare(_ extent: Extent, _ buffer: Buffer?) throws(Trouble) {
        try unsafe inPieces(extent) { piece, place, offset throws(Trouble) in
            try unsafe read(piece, at: offset)
            let expected = unsafe memory(buffer, place, piece.count)
            guard unsafe memcmp(piece.baseAddress!, expected.baseAddress!, piece.count) != 0 else { return }
            let first = unsafe zip(piece, expected).enumerated().first { $0.element.0 != $0.element.1 }
            throw .failure(.miscompare(offset: place + (first?.offset ?? 0)))
        }
    }

    private func or(_ extent: Extent, _ buffer: Buffer?, _ durable: Bool) throws(Trouble) {
        try unsafe inPieces(extent) { piece, place, offset throws(Trouble) in
            try unsafe read(piece, at: offset)
            let bits = unsafe memory(buffer, place, piece.count)
            for index in piece.indices { unsafe piece[index] |= bits[index] }
            try unsafe write(piece, at: offset, durable)
        }
    }

    // MARK: Provisioning

    private func runs(of extent: Extent) -> [ProvisionedRun] {
        var runs: [ProvisionedRun] = []
        var offset = extent.offset
        while offset < extent.end, runs.count < FileStore.mostRuns {
            let data = store.isBlockDevice ? Int64(clamping: offset) : linux_seek_data(fd, offset)
            let isMapped: Bool
            let next: UInt64
            if data == -Int64(ENXIO) {
                (isMapped, next) = (false, extent.end)
            } else if data < 0 || store.isBlockDevice {
                // A store that does not tell holds everything.
                (isMapped, next) = (true, extent.end)
            } else if UInt64(data) > offset {
                (isMapped, next) = (false, UInt64(data))
            } else {
                let hole = linux_seek_hole(fd, offset)
                (isMapped, next) = (true, hole > Int64(clamping: offset) ? UInt64(hole) : extent.end)
            }
            let end = min(next, extent.end)
            runs.append(ProvisionedRun(extent: Extent(offset: offset, length: end - offset), isMapped: isMapped))
            offset = end
        }
        return runs
    }
}

/// Page-aligned memory for one call.
@unsafe private func withScratch(
    _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(Trouble) -> Void
) throws(Trouble) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: FileStore.coarsestAlignment)
    defer { unsafe memory.deallocate() }
    try unsafe body(memory)
}
