import Bytes

/// Asked of the process that opens files, one question at a time.
public enum OpenQuestion: Sendable, Equatable {
    /// - Parameter places: where it has to be; nil: anywhere
    case store(path: [UInt8], isSynchronous: Bool, isDirect: Bool, isReadOnly: Bool, places: StorePlacement?)
    /// One that tgtd depends on, and that nobody else can have written; nor read, if it is private.
    case trusted(path: [UInt8], isPrivate: Bool, limit: UInt32)
}

/// Where a tenant's stores may be.
public struct StorePlacement: Sendable, Equatable {
    public var directories: [[UInt8]]
    /// Patterns for names of the device mapper, and for links under /dev/disk/by-id.
    public var mapperNames: [[UInt8]]
    public var deviceLinks: [[UInt8]]

    public init(directories: [[UInt8]], mapperNames: [[UInt8]], deviceLinks: [[UInt8]]) {
        self.directories = directories
        self.mapperNames = mapperNames
        self.deviceLinks = deviceLinks
    }

    /// Of each kind, and bytes of all of them together.
    public static let most = 256
    public static let mostBytes = 64 << 10

    func encode(into writer: inout ByteWriter) {
        for list in [directories, mapperNames, deviceLinks] { writer.write(list) { $0.write($1) } }
    }
    init(from reader: inout ByteReader) throws(ByteReaderError) {
        func list(_ reader: inout ByteReader) throws(ByteReaderError) -> [[UInt8]] {
            try reader.list(limit: Self.most) { reader throws(ByteReaderError) in try reader.byteString(limit: DoorLimits.path) }
        }
        self.init(directories: try list(&reader), mapperNames: try list(&reader), deviceLinks: try list(&reader))
    }
}

/// What it says; what is opened comes with its descriptor.
public enum OpenAnswer: Sendable, Equatable {
    case opened(StoreDescription, physicalBlockLength: UInt32)
    case failed(String)
    case trusted
}

extension OpenQuestion: DoorMessage {
    public static let table = [DoorRow(1, "open", limit: DoorLimits.opening + StorePlacement.mostBytes + 12 * StorePlacement.most), DoorRow(2, "openTrusted", limit: DoorLimits.opening)]
    public var code: UInt8 {
        switch self {
        case .store: 1
        case .trusted: 2
        }
    }
    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .store(let path, let isSynchronous, let isDirect, let isReadOnly, let places):
            writer.write(path)
            for flag in [isSynchronous, isDirect, isReadOnly] { writer.write(flag) }
            writer.write(places) { $1.encode(into: &$0) }
        case .trusted(let path, let isPrivate, let limit):
            writer.write(path)
            writer.write(isPrivate)
            writer.write(limit)
        }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        let path = try reader.byteString(limit: DoorLimits.path)
        self = switch code {
        case 1:
            .store(
                path: path, isSynchronous: try reader.bool(), isDirect: try reader.bool(), isReadOnly: try reader.bool(),
                places: try reader.optional { reader throws(ByteReaderError) in try StorePlacement(from: &reader) })
        default: .trusted(path: path, isPrivate: try reader.bool(), limit: try reader.uint32())
        }
    }
}

extension OpenAnswer: DoorMessage {
    public static let table = [
        DoorRow(1, "opened", limit: 64, descriptors: 1...1),
        DoorRow(2, "failed", limit: DoorLimits.opening),
        DoorRow(3, "openedTrusted", limit: 8, descriptors: 1...1),
    ]
    public var code: UInt8 {
        switch self {
        case .opened: 1
        case .failed: 2
        case .trusted: 3
        }
    }
    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .opened(let description, let length):
            description.encode(into: &writer)
            writer.write(length)
        case .failed(let why): writer.write(why)
        case .trusted: break
        }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1: self = .opened(try StoreDescription(from: &reader), physicalBlockLength: try reader.uint32())
        case 3: self = .trusted
        default: self = .failed(try reader.string(limit: DoorLimits.opening))
        }
    }
}
