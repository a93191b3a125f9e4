import Bytes

/// The path of a backing store as the kernel takes it: 1…4095 bytes without control characters (they would forge lines of a
/// report) and commas (tgt's requests are joined by them).
public struct StorePath: Hashable, Sendable, CustomStringConvertible {
    public let bytes: [UInt8]

    public init(_ path: some Collection<UInt8>) throws(ConfigurationError) {
        let bytes = Array(path)
        guard (1...Limits.pathLength).contains(bytes.count), bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7f && $0 != UInt8(ascii: ",") }) else {
            throw ConfigurationError(.invalid, "“\(escaped(bytes))” is no path: 1 to \(Limits.pathLength) bytes without control characters and commas")
        }
        self.bytes = bytes
    }

    /// Fit for a log.
    public var description: String { escaped(bytes) }
}

/// Where the blocks of a logical unit are, and how they are reached.
public struct BackingStore: Hashable, Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        /// A file or block device, read and written with plain system calls.
        case rdwr
        /// No store: reads are zeros, writes are forgotten.
        case null
    }

    /// tgt's `bsoflags`.
    public struct Flags: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// Every write is on the medium before it is answered (O_DSYNC).
        public static let sync = Flags(rawValue: 1)
        /// The page cache is passed by (O_DIRECT).
        public static let direct = Flags(rawValue: 2)

        private static let known: [(flag: Flags, name: String)] = [(.sync, "sync"), (.direct, "direct")]

        /// Flags joined by colons.
        public init(parsing text: some Collection<UInt8>) throws(ConfigurationError) {
            self = []
            for word in text.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false) {
                guard let row = Self.known.first(where: { word.elementsEqual($0.name.utf8) }) else {
                    throw ConfigurationError(.invalid, "“\(escaped(text))” are no bsoflags: write sync, direct or sync:direct")
                }
                insert(row.flag)
            }
        }

        /// As `show` prints them: `sync`, `direct` or `sync:direct`; empty without flags.
        public var text: String { names.joined(separator: ":") }
        public var names: [String] { Self.known.filter { contains($0.flag) }.map(\.name) }
    }

    public var kind: Kind
    /// nil without a medium, which only a removable logical unit may be.
    public var path: StorePath?
    public var flags: Flags

    public init(kind: Kind, path: StorePath?, flags: Flags = []) {
        self.kind = kind
        self.path = path
        self.flags = flags
    }
}

/// What opening a store has shown.
public struct StoreFacts: Hashable, Sendable {
    /// Bytes on the medium.
    public var byteCount: UInt64
    /// False if it was opened for reading only, as asked.
    public var isWritable: Bool
    /// Bytes that the medium writes at once (st_blksize, or a block device's physical block); 0 if unknown.
    public var physicalBlockLength: Int

    public init(byteCount: UInt64, isWritable: Bool, physicalBlockLength: Int = 0) {
        self.byteCount = byteCount
        self.isWritable = isWritable
        self.physicalBlockLength = physicalBlockLength
    }

    /// The medium that every `null` store has, as in tgt: 1 TiB.
    public static let null = StoreFacts(byteCount: 1 << 40, isWritable: true)
}

/// A store to be opened: what control asks the helper that opens files.
public struct StoreRequest: Hashable, Sendable {
    public let key: LogicalUnitKey
    public let store: BackingStore
    /// Open for reading only. If false, a store that cannot be written is an error: nobody said `readonly`.
    public let readOnly: Bool
    /// Where it has to be; nil: anywhere.
    public let places: StorePlaces?

    public init(key: LogicalUnitKey, store: BackingStore, readOnly: Bool, places: StorePlaces? = nil) {
        self.key = key
        self.store = store
        self.readOnly = readOnly
        self.places = places
    }
}
