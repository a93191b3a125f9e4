import Bytes
import Medium

/// A medium in memory that carries out operations at once, and holds the device server to its promises: extents within the
/// medium, buffers as long as what is moved.
struct MemoryMedium {
    private var content: [UInt8]

    init(length: Int) { content = [UInt8](repeating: 0, count: length) }

    mutating func perform(_ operation: Operation, _ buffer: Buffer?) -> Outcome {
        switch operation {
        case .read(let extent): required(buffer).copy(content[range(extent)].span, to: 0)
        case .write(let extent, _): content.replaceSubrange(range(extent), with: required(buffer).array(0..<Int(extent.length)))
        case .orWrite(let extent, _):
            let bits = required(buffer).array(0..<Int(extent.length))
            for (index, position) in range(extent).enumerated() { content[position] |= bits[index] }
        case .compare(let extent): return compare(extent, buffer) ?? .done
        case .compareAndWrite(let extent, _):
            let count = Int(extent.length)
            if let failure = compare(extent, buffer) { return failure }
            content.replaceSubrange(range(extent), with: required(buffer).array(count..<2 * count))
        case .writeSame(let extent, let pattern, _):
            precondition(pattern > 0 && Int(extent.length) % pattern == 0)
            let one = required(buffer).array(0..<pattern)
            for start in stride(from: Int(extent.offset), to: Int(extent.end), by: pattern) { content.replaceSubrange(start..<start + pattern, with: one) }
        case .discard(let extents):
            for extent in extents { for position in range(extent) { content[position] = 0 } }
        case .provisioning(let extent):
            // Two runs, one of each kind.
            let half = UInt64(range(extent).count) / 2
            return .provisioned([
                ProvisionedRun(extent: Extent(offset: extent.offset, length: half), isMapped: true),
                ProvisionedRun(extent: Extent(offset: extent.offset + half, length: extent.length - half), isMapped: false),
            ])
        case .verify(let extent), .prefetch(let extent): _ = range(extent)
        case .flush: break
        }
        return .done
    }

    private func required(_ buffer: Buffer?) -> Buffer {
        guard let buffer else { preconditionFailure("an operation that moves data has a buffer") }
        return buffer
    }

    private func compare(_ extent: Extent, _ buffer: Buffer?) -> Outcome? {
        let expected = required(buffer).array(0..<Int(extent.length))
        for (index, position) in range(extent).enumerated() where content[position] != expected[index] { return .failed(.miscompare(offset: index)) }
        return nil
    }

    private func range(_ extent: Extent) -> Range<Int> {
        let end = extent.offset.addingReportingOverflow(extent.length)
        precondition(!end.overflow && end.partialValue <= UInt64(content.count), "an extent is within the medium")
        return Int(extent.offset)..<Int(end.partialValue)
    }
}

extension Failure {
    /// One of those that a store can end with.
    init(_ choice: UInt8) {
        let all: [Failure] = [.unreadable, .unwritable, .flushFailed, .noSpace, .readOnly, .miscompare(offset: 7), .unsupported]
        self = all[Int(choice) % all.count]
    }
}
