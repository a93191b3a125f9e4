import Bytes

/// A request of tgt's management protocol: a header of 120 bytes in the machine's byte order, then text.
///
/// One request and one answer make a connection. The header carries no magic number and no version.
public struct TgtRequest: Hashable, Sendable {
    public enum Mode: UInt32, Sendable, CaseIterable {
        case system, target, logicalUnit, portal, lld, session, connection, account
    }

    public enum Operation: UInt32, Sendable, CaseIterable {
        case new, delete, show, bind, unbind, update, stat, start, stop
    }

    /// Which way an account proves something.
    public enum AccountDirection: UInt32, Sendable { case incoming, outgoing }

    public var mode: Mode
    public var operation: Operation
    /// Name of the low-level driver, at most 63 bytes; empty: the first one.
    public var lld: [UInt8] = []
    /// −1 where none is meant.
    public var tid: Int32 = -1
    public var sid: UInt64 = 0
    /// All ones where none is meant.
    public var lun = UInt64.max
    public var cid: UInt32 = 0
    public var hostNumber: UInt32 = 0
    public var deviceType: UInt32 = 0
    public var accountDirection = AccountDirection.incoming
    public var force = false
    /// The text, without the zero that ends it.
    public var payload: [UInt8] = []

    public init(_ mode: Mode, _ operation: Operation) {
        self.mode = mode
        self.operation = operation
    }

    static let headerLength = 120
    static let lldLength = 64
    /// Bytes of text with the zero behind it: tgt's own limit.
    public static let greatestPayload = 8192
    /// Bytes of a whole request.
    public static let greatestLength = headerLength + greatestPayload

    /// Where the fields are in the header.
    enum Offset {
        static let mode = 0, operation = 4, lld = 8, length = 72, tid = 76, sid = 80, lun = 88, cid = 96
        static let hostNumber = 100, deviceType = 104, accountDirection = 108, pack = 112, force = 116
    }

    /// The bytes for the socket, or nil if the name of the driver or the text is too long.
    public func encoded() -> [UInt8]? {
        let textLength = payload.isEmpty ? 0 : payload.count + 1
        guard lld.count < Self.lldLength, textLength <= Self.greatestPayload else { return nil }
        var bytes: [UInt8] = []
        bytes.append(littleEndian: mode.rawValue)
        bytes.append(littleEndian: operation.rawValue)
        bytes += lld + Array(repeating: 0, count: Self.lldLength - lld.count)
        bytes.append(littleEndian: UInt32(Self.headerLength + textLength))
        bytes.append(littleEndian: UInt32(bitPattern: tid))
        bytes.append(littleEndian: sid)
        bytes.append(littleEndian: lun)
        bytes.append(littleEndian: cid)
        bytes.append(littleEndian: hostNumber)
        bytes.append(littleEndian: deviceType)
        bytes.append(littleEndian: accountDirection.rawValue)
        bytes.append(littleEndian: UInt32(0))
        bytes.append(littleEndian: UInt32(force ? 1 : 0))
        if !payload.isEmpty { bytes += payload + [0] }
        return bytes
    }
}

/// Why bytes on the management socket are no request, or no answer.
public enum TgtWireError: Error, Hashable, Sendable {
    /// The length in the header is less than the header's, or more than a request may have. tgt closes without an answer.
    case length(UInt32)
    /// A field of the header has a value that does not exist. The answer is "invalid request".
    case field(String, UInt32)
    /// The driver's name is not ended by a zero, or something follows that zero.
    case driverName
    /// The text does not end with its only zero.
    case text
    /// Bytes behind the end.
    case trailing
}

/// Takes a request apart as its bytes arrive; holds no more of them than a request may have.
public struct TgtRequestDecoder: Sendable {
    private var bytes: [UInt8] = []
    private var length: Int?

    public init() {}

    /// Whether bytes of a request have arrived.
    public var hasBegun: Bool { !bytes.isEmpty }

    /// Takes the next bytes of the connection.
    /// - Returns: the request once it is whole, nil before. A decoder is for one request, and after an error or a request
    ///   it takes no more.
    public mutating func feed(_ input: Span<UInt8>) throws(TgtWireError) -> TgtRequest? {
        for index in input.indices {
            guard bytes.count < length ?? TgtRequest.headerLength else { throw .trailing }
            bytes.append(input[index])
            if bytes.count == TgtRequest.headerLength { length = try totalLength() }
        }
        return try bytes.count == length ? request() : nil
    }

    private func totalLength() throws(TgtWireError) -> Int {
        let length = bytes.littleEndian32(at: TgtRequest.Offset.length)
        guard (UInt32(TgtRequest.headerLength)...UInt32(TgtRequest.headerLength + TgtRequest.greatestPayload)).contains(length) else { throw .length(length) }
        return Int(length)
    }

    private func request() throws(TgtWireError) -> TgtRequest {
        typealias Offset = TgtRequest.Offset
        let mode: TgtRequest.Mode = try field("mode", Offset.mode)
        let operation: TgtRequest.Operation = try field("op", Offset.operation)
        var request = TgtRequest(mode, operation)
        let name = bytes[Offset.lld..<Offset.lld + TgtRequest.lldLength]
        guard let end = name.firstIndex(of: 0), name[end...].allSatisfy({ $0 == 0 }) else { throw .driverName }
        request.lld = Array(name[..<end])
        request.tid = Int32(bitPattern: bytes.littleEndian32(at: Offset.tid))
        request.sid = bytes.littleEndian64(at: Offset.sid)
        request.lun = bytes.littleEndian64(at: Offset.lun)
        request.cid = bytes.littleEndian32(at: Offset.cid)
        request.hostNumber = bytes.littleEndian32(at: Offset.hostNumber)
        request.deviceType = bytes.littleEndian32(at: Offset.deviceType)
        request.accountDirection = try field("ac_dir", Offset.accountDirection)
        request.force = bytes.littleEndian32(at: Offset.force) != 0
        if bytes.count > TgtRequest.headerLength {
            let text = bytes[TgtRequest.headerLength...]
            guard text.firstIndex(of: 0) == text.endIndex - 1 else { throw .text }
            request.payload = Array(text.dropLast())
        }
        return request
    }

    private func field<Field: RawRepresentable<UInt32>>(_ name: String, _ offset: Int) throws(TgtWireError) -> Field {
        let value = bytes.littleEndian32(at: offset)
        guard let field = Field(rawValue: value) else { throw .field(name, value) }
        return field
    }
}

/// An answer of tgt's management protocol: error number and length, then text.
public struct TgtResponse: Hashable, Sendable {
    /// A number of `TgtError`, or one that we do not know.
    public var error: UInt32
    /// The text, without the zero that ends it.
    public var text: [UInt8]

    public init(_ error: TgtError = .success, text: [UInt8] = []) {
        self.error = error.rawValue
        self.text = text
    }

    static let headerLength = 8
    /// Bytes of text a client takes: the report of every target we can have fits.
    public static let greatestText = 1 << 30

    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        let textLength = text.isEmpty ? 0 : text.count + 1
        bytes.reserveCapacity(Self.headerLength + textLength)
        bytes.append(littleEndian: error)
        bytes.append(littleEndian: UInt32(Self.headerLength + textLength))
        if !text.isEmpty { bytes += text + [0] }
        return bytes
    }
}

/// Takes an answer apart as its bytes arrive.
public struct TgtResponseDecoder: Sendable {
    private var header: [UInt8] = []
    private var text: [UInt8] = []
    private var textLength: Int?

    public init() {}

    /// Whether bytes of an answer have arrived.
    public var hasBegun: Bool { !header.isEmpty }

    /// - Returns: the answer once it is whole, nil before. Bytes behind it are an error.
    public mutating func feed(_ input: Span<UInt8>) throws(TgtWireError) -> TgtResponse? {
        for index in input.indices {
            guard let textLength else {
                header.append(input[index])
                if header.count == TgtResponse.headerLength { self.textLength = try lengthOfText() }
                continue
            }
            guard text.count < textLength else { throw .trailing }
            text.append(input[index])
        }
        guard text.count == textLength else { return nil }
        var response = TgtResponse()
        response.error = header.littleEndian32(at: 0)
        response.text = text.last == 0 ? Array(text.dropLast()) : text
        return response
    }

    private func lengthOfText() throws(TgtWireError) -> Int {
        let length = header.littleEndian32(at: 4)
        guard length >= UInt32(TgtResponse.headerLength), length <= UInt32(TgtResponse.headerLength + TgtResponse.greatestText) else { throw .length(length) }
        return Int(length) - TgtResponse.headerLength
    }
}

extension [UInt8] {
    fileprivate mutating func append(littleEndian value: UInt32) {
        for shift in stride(from: UInt32(0), to: 32, by: 8) { append(UInt8(truncatingIfNeeded: value >> shift)) }
    }
    fileprivate mutating func append(littleEndian value: UInt64) {
        append(littleEndian: UInt32(truncatingIfNeeded: value))
        append(littleEndian: UInt32(truncatingIfNeeded: value >> 32))
    }
    fileprivate func littleEndian32(at offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(self[offset + $1]) << UInt32(8 * $1) }
    }
    fileprivate func littleEndian64(at offset: Int) -> UInt64 {
        UInt64(littleEndian32(at: offset)) | UInt64(littleEndian32(at: offset + 4)) << 32
    }
}
