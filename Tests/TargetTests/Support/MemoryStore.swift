import Bytes
import Medium
import SCSI

/// A medium in memory that carries out operations at once. All of a test is one thread.
final class MemoryStore: MediumHandle, @unchecked Sendable {
    let content: Buffer
    let length: Int
    /// What the next operations end with, instead of being carried out.
    var failures: [Failure] = []
    private(set) var writes = 0

    init(length: Int) {
        self.length = length
        content = BufferPool(budget: 64 << 20).allocate(length)!
        content.withMutableBytes(0..<length) { span in for index in 0..<length { span[index] = 0 } }
    }

    func bytes(_ range: Range<Int>) -> [UInt8] { content.array(range) }

    func perform(_ operation: Operation, _ buffer: Buffer?) -> Outcome {
        if !failures.isEmpty { return .failed(failures.removeFirst()) }
        switch operation {
        case .read(let extent):
            content.withBytes(range(extent)) { buffer!.copy($0, to: 0) }
        case .write(let extent, _):
            writes += 1
            buffer!.withBytes(0..<Int(extent.length)) { content.copy($0, to: Int(extent.offset)) }
        case .orWrite(let extent, _):
            writes += 1
            let (old, new) = (content.array(range(extent)), buffer!.array(0..<Int(extent.length)))
            let both = zip(old, new).map { $0 | $1 }
            content.copy(both.span, to: Int(extent.offset))
        case .compareAndWrite(let extent, _):
            let count = Int(extent.length)
            let (old, expected) = (content.array(range(extent)), buffer!.array(0..<count))
            if let offset = zip(old, expected).enumerated().first(where: { $1.0 != $1.1 })?.offset {
                return .failed(.miscompare(offset: offset))
            }
            writes += 1
            buffer!.withBytes(count..<2 * count) { content.copy($0, to: Int(extent.offset)) }
        case .compare(let extent):
            let (old, expected) = (content.array(range(extent)), buffer!.array(0..<Int(extent.length)))
            if let offset = zip(old, expected).enumerated().first(where: { $1.0 != $1.1 })?.offset {
                return .failed(.miscompare(offset: offset))
            }
        case .writeSame(let extent, let pattern, _):
            writes += 1
            for offset in stride(from: Int(extent.offset), to: Int(extent.end), by: pattern) {
                buffer!.withBytes(0..<pattern) { content.copy($0, to: offset) }
            }
        case .discard(let extents):
            for extent in extents { content.withMutableBytes(range(extent)) { span in for index in 0..<span.count { span[index] = 0 } } }
        case .provisioning(let extent): return .provisioned([ProvisionedRun(extent: extent, isMapped: true)])
        case .flush, .verify, .prefetch: break
        }
        return .done
    }

    private func range(_ extent: Extent) -> Range<Int> { Int(extent.offset)..<Int(extent.end) }
}
