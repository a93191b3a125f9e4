import Bytes

/// Asked of the process that knows people: one at a time, in this order.
public enum AdministratorQuestion: Sendable, Equatable {
    /// Who is it? By number, with the groups that the kernel says.
    case identify(uid: UInt32, gids: [UInt32])
    /// Who is called that? Then it is over.
    case lookUp(name: [UInt8])
    /// May whoever has been identified go on? With the connection of somebody who can be asked, if there is one.
    /// - Parameter directory: where PAM's services are; nil: where they always are
    case check(directory: String?, authenticates: Bool)
}

/// What it says.
public enum AdministratorAnswer: Sendable, Equatable {
    /// - Parameter user: nil: there is nobody of that name or number
    case identified(uid: UInt32, user: [UInt8]?, gids: [UInt32], groups: [[UInt8]])
    /// How far PAM let it come, and PAM's code there.
    /// - Parameter wantedConversation: something had to be asked, and there was nobody to ask
    case verdict(step: UInt8, code: Int32, wantedConversation: Bool)
}

/// Bounds of these messages.
public enum AdministratorLimits {
    /// Groups of somebody that are looked at.
    public static let groups = 4096
    /// Bytes of a user's or group's name: Linux has 32, directory services more.
    public static let name = 256
    /// Bytes of all group names together: of more, the rest is not told.
    public static let names = 64 << 10
    static let message = groups * 4 + names + groups * 4 + 1024
}

extension AdministratorQuestion: DoorMessage {
    public static let table = [
        DoorRow(1, "identify", limit: AdministratorLimits.groups * 4 + 64),
        DoorRow(2, "lookUp", limit: AdministratorLimits.name + 64),
        DoorRow(3, "check", limit: DoorLimits.path + 64, descriptors: 0...1),
    ]
    public var code: UInt8 {
        switch self {
        case .identify: 1
        case .lookUp: 2
        case .check: 3
        }
    }
    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .identify(let uid, let gids):
            writer.write(uid)
            writer.write(gids) { $0.write($1) }
        case .lookUp(let name): writer.write(name)
        case .check(let directory, let authenticates):
            writer.write(directory) { $0.write($1) }
            writer.write(authenticates)
        }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1:
            self = .identify(
                uid: try reader.uint32(),
                gids: try reader.list(limit: AdministratorLimits.groups) { reader throws(ByteReaderError) in try reader.uint32() })
        case 2: self = .lookUp(name: try reader.byteString(limit: AdministratorLimits.name))
        default:
            self = .check(
                directory: try reader.optional { reader throws(ByteReaderError) in try reader.string(limit: DoorLimits.path) },
                authenticates: try reader.bool())
        }
    }
}

extension AdministratorAnswer: DoorMessage {
    public static let table = [
        DoorRow(1, "identified", limit: AdministratorLimits.message),
        DoorRow(2, "verdict", limit: 64),
    ]
    public var code: UInt8 {
        switch self {
        case .identified: 1
        case .verdict: 2
        }
    }
    public func encodeBody(into writer: inout ByteWriter) {
        switch self {
        case .identified(let uid, let user, let gids, let groups):
            writer.write(uid)
            writer.write(user) { $0.write($1) }
            writer.write(gids) { $0.write($1) }
            writer.write(groups) { $0.write($1) }
        case .verdict(let step, let code, let wantedConversation):
            writer.write(step)
            writer.write(code)
            writer.write(wantedConversation)
        }
    }
    public init(code: UInt8, body reader: inout ByteReader) throws(ByteReaderError) {
        switch code {
        case 1:
            self = .identified(
                uid: try reader.uint32(),
                user: try reader.optional { reader throws(ByteReaderError) in try reader.byteString(limit: AdministratorLimits.name) },
                gids: try reader.list(limit: AdministratorLimits.groups) { reader throws(ByteReaderError) in try reader.uint32() },
                groups: try reader.list(limit: AdministratorLimits.groups) { reader throws(ByteReaderError) in
                    try reader.byteString(limit: AdministratorLimits.name)
                })
        default: self = .verdict(step: try reader.uint8(), code: try reader.int32(), wantedConversation: try reader.bool())
        }
    }
}
