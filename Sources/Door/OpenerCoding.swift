import Bytes

/// Asked of the process that opens backing stores, one question at a time.
public struct OpenQuestion: Sendable, Equatable {
    public var path: [UInt8]
    public var isSynchronous: Bool
    public var isDirect: Bool
    public var isReadOnly: Bool

    public init(path: [UInt8], isSynchronous: Bool, isDirect: Bool, isReadOnly: Bool) {
        self.path = path
        self.isSynchronous = isSynchronous
        self.isDirect = isDirect
        self.isReadOnly = isReadOnly
    }
}

/// What it says; an opened store comes with its descriptor.
public enum OpenAnswer: Sendable, Equatable {
    case opened(StoreDescription, physicalBlockLength: UInt32)
    case failed(String)
}

extension OpenQuestion: DoorMessage {
    public static let table = [DoorRow(1, "open", limit: DoorLimits.opening)]
    public var code: UInt8 { 1 }
    public func encodeBody(into writer: inout ByteWriter) {
        writer.write(path)
        for flag in [isSynchronous, isDirect, isReadOnly] { writer.write(flag) }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        path = try reader.byteString(limit: DoorLimits.path)
        isSynchronous = try reader.bool()
        isDirect = try reader.bool()
        isReadOnly = try reader.bool()
    }
}

extension OpenAnswer: DoorMessage {
    public static let table = [
        DoorRow(1, "opened", limit: 64, descriptors: 1...1),
        DoorRow(2, "failed", limit: DoorLimits.opening),
    ]
    public var code: UInt8 {
        switch self {
        case .opened: 1
        case .failed: 2
        }
    }
    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .opened(let description, let length):
            description.encode(into: &writer)
            writer.write(length)
        case .failed(let why): writer.write(why)
        }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1: self = .opened(try StoreDescription(from: &reader), physicalBlockLength: try reader.uint32())
        default: self = .failed(try reader.string(limit: DoorLimits.opening))
        }
    }
}
