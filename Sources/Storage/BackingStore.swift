import Bytes
import Medium

/// Where the data of a logical unit lie: the narrow protocol that every kind of store speaks.
///
/// An operation's extents lie within `length`, and its buffer holds what the operation needs; both are checked by the device
/// server, so a violation is a programming error and traps. Any thread may call, several at once.
public protocol BackingStore: AnyObject, Sendable {
    /// Bytes.
    var length: UInt64 { get }

    /// Does it on the calling thread, which may block for as long as the medium takes.
    ///
    /// - Parameter buffer: the task's data, as `Operation` says; nil for operations without data
    func perform(_ operation: Operation, buffer: Buffer?) -> Outcome

    /// Does it if that is sure not to wait for the medium. nil: nothing is decided; give it to an `IOPool`.
    func performAtOnce(_ operation: Operation, buffer: Buffer?) -> Outcome?

    /// Whether the calling thread may well do it with `perform`: it seldom waits for the medium, though it may.
    func isSeldomHeldUp(by operation: Operation) -> Bool

    /// Does it on the calling thread, which may block for as long as the medium takes, but not for others in the store: nil, and nothing has
    /// happened, if one of them has to be alone there.
    func performBeside(_ operation: Operation, buffer: Buffer?) -> Outcome?

    /// The file that the operation is a read of, if it is one that pays to be done together with others (`FileStore.readAtOnce`).
    func fileToRead(for operation: Operation) -> FileStore?
}

extension BackingStore {
    public func isSeldomHeldUp(by operation: Operation) -> Bool { false }
    public func performBeside(_ operation: Operation, buffer: Buffer?) -> Outcome? { perform(operation, buffer: buffer) }
    public func fileToRead(for operation: Operation) -> FileStore? { nil }
}

extension Operation {
    /// Whether the medium changes.
    public var isWrite: Bool {
        switch self {
        case .write, .discard, .writeSame, .orWrite, .compareAndWrite: true
        case .read, .flush, .verify, .compare, .prefetch, .provisioning: false
        }
    }

    /// The bytes it is about; those of a discard and of a flush are not one extent.
    public var extent: Extent? {
        switch self {
        case .read(let extent), .write(let extent, _), .writeSame(let extent, _, _), .verify(let extent), .compare(let extent),
            .orWrite(let extent, _), .compareAndWrite(let extent, _), .prefetch(let extent), .provisioning(let extent):
            extent
        case .flush, .discard: nil
        }
    }

    /// Bytes the task's buffer must hold.
    public var bufferLength: Int {
        switch self {
        case .read(let extent), .write(let extent, _), .compare(let extent), .orWrite(let extent, _): Int(extent.length)
        case .compareAndWrite(let extent, _): 2 * Int(extent.length)
        case .writeSame(_, let pattern, _): pattern
        case .flush, .discard, .verify, .prefetch, .provisioning: 0
        }
    }

    /// Whether it keeps to a medium of `length` bytes and a buffer of `capacity`.
    public func fits(length: UInt64, capacity: Int) -> Bool {
        func lies(_ extent: Extent) -> Bool { extent.offset <= length && extent.length <= length - extent.offset }
        if case .discard(let extents) = self { return extents.allSatisfy(lies) }
        if case .writeSame(let extent, let pattern, _) = self {
            guard pattern > 0, extent.length % UInt64(pattern) == 0 else { return false }
        }
        return extent.map(lies) ?? true && bufferLength <= capacity
    }
}

/// How a store is opened, in tgt's words (`bsoflags`, joined by colons).
public struct StoreFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Every write is on stable storage before it is done (O_DSYNC).
    public static let sync = StoreFlags(rawValue: 1)
    /// Past the page cache (O_DIRECT).
    public static let direct = StoreFlags(rawValue: 2)

    private static let words: [(String, StoreFlags)] = [("sync", .sync), ("direct", .direct)]

    /// Reads "sync", "direct" or "sync:direct"; nil for any other word. The empty text is no flag.
    public init?(words text: String) {
        self = []
        guard !text.isEmpty else { return }
        for part in text.split(separator: ":", omittingEmptySubsequences: false) {
            guard let word = Self.words.first(where: { $0.0.utf8.elementsEqual(part.utf8) }) else { return nil }
            insert(word.1)
        }
    }

    /// "sync:direct".
    public var words: String { Self.words.filter { contains($0.1) }.map(\.0).joined(separator: ":") }
}

/// What a logical unit's data lie in (`bstype`).
public enum StoreType: String, Hashable, Sendable, CaseIterable {
    /// A file or a block device, read and written.
    case rdwr
    /// Nothing: reads are zeros.
    case null

    /// The flags this kind takes.
    public var flags: StoreFlags { self == .rdwr ? [.sync, .direct] : [] }
}
