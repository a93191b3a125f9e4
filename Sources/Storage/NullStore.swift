import Bytes
import Glibc
import Medium

/// Nothing (`null`): reads are zeros, writes are forgotten. It measures everything but the medium.
public final class NullStore: BackingStore {
    /// What tgt's null store claims to hold, in bytes: 1 TiB.
    public static let defaultLength: UInt64 = 1 << 40

    public let length: UInt64
    public init(length: UInt64 = defaultLength) { self.length = length }

    public func perform(_ operation: Operation, buffer: Buffer?) -> Outcome {
        precondition(operation.fits(length: length, capacity: buffer?.capacity ?? 0))
        switch operation {
        case .read(let extent):
            if let buffer { unsafe memset(buffer.address(of: 0..<Int(extent.length)), 0, Int(extent.length)) }
        case .compare(let extent), .compareAndWrite(let extent, _):
            guard let buffer else { break }
            let first = buffer.withBytes(0..<Int(extent.length)) { bytes in bytes.indices.first { bytes[$0] != 0 } }
            if let first { return .failed(.miscompare(offset: first)) }
        case .provisioning(let extent):
            return .provisioned(extent.length == 0 ? [] : [ProvisionedRun(extent: extent, isMapped: false)])
        case .write, .flush, .discard, .writeSame, .verify, .orWrite, .prefetch: break
        }
        return .done
    }

    public func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome? { perform(operation, buffer: buffer) }
}
