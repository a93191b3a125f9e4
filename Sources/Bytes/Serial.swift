/// Writes values one behind the other, big-endian, variable ones behind their length: the form in which our own processes
/// talk to one another. `ByteReader` reads it back in the same order.
public struct ByteWriter: Sendable {
    public private(set) var bytes: [UInt8] = []

    public init() {}

    /// Forgets what was written; the room for it stays.
    public mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }

    /// What `body` writes, behind its length.
    /// - Returns: that length
    public mutating func writeMeasured(_ body: (inout ByteWriter) -> Void) -> Int {
        let start = bytes.count
        write(UInt32(0))
        body(&self)
        let length = bytes.count - start - 4
        var span = bytes.mutableSpan
        span.store(UInt32(length), at: start)
        return length
    }

    public mutating func write(_ value: UInt8) { bytes.append(value) }
    public mutating func write(_ value: UInt16) { bytes.append(bigEndian: value) }
    public mutating func write(_ value: UInt32) { bytes.append(bigEndian: value) }
    public mutating func write(_ value: UInt64) { bytes.append(bigEndian: value) }
    public mutating func write(_ value: Int32) { write(UInt32(bitPattern: value)) }
    public mutating func write(_ value: Bool) { bytes.append(value ? 1 : 0) }
    /// A count or an index: must fit 32 bits.
    public mutating func write(count: Int) { write(UInt32(count)) }
    public mutating func write(_ value: [UInt8]) {
        write(count: value.count)
        bytes += value
    }
    public mutating func write(_ value: String) {
        write(count: value.utf8.count)
        bytes += value.utf8
    }
    public mutating func write<Element>(_ values: [Element], _ each: (inout ByteWriter, Element) -> Void) {
        write(count: values.count)
        for value in values { each(&self, value) }
    }
    public mutating func write<Value>(_ value: Value?, _ some: (inout ByteWriter, Value) -> Void) {
        write(value != nil)
        if let value { some(&self, value) }
    }
}

/// Why bytes are not what a `ByteWriter` has written.
public enum ByteReaderError: Error, Hashable, Sendable {
    case truncated
    /// A value outside its range, a list or text over its limit.
    case invalid
    case trailingBytes
}

/// Reads what a `ByteWriter` wrote, trusting none of it: every length is checked against what is there and against the
/// caller's limit before anything is made of it.
public struct ByteReader: Sendable {
    private let bytes: [UInt8]
    private var position: Int
    private let bound: Int

    public init(_ bytes: [UInt8]) { self.init(bytes, 0..<bytes.count) }

    /// - Parameter range: what is read of these bytes
    public init(_ bytes: [UInt8], _ range: Range<Int>) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bytes.count)
        self.bytes = bytes
        (position, bound) = (range.lowerBound, range.upperBound)
    }

    public var remaining: Int { bound - position }

    public mutating func uint8() throws(ByteReaderError) -> UInt8 {
        guard remaining >= 1 else { throw .truncated }
        position += 1
        return bytes[position - 1]
    }
    public mutating func uint16() throws(ByteReaderError) -> UInt16 { UInt16(try uint8()) << 8 | UInt16(try uint8()) }
    public mutating func uint32() throws(ByteReaderError) -> UInt32 { UInt32(try uint16()) << 16 | UInt32(try uint16()) }
    public mutating func uint64() throws(ByteReaderError) -> UInt64 { UInt64(try uint32()) << 32 | UInt64(try uint32()) }
    public mutating func int32() throws(ByteReaderError) -> Int32 { Int32(bitPattern: try uint32()) }
    public mutating func bool() throws(ByteReaderError) -> Bool {
        switch try uint8() {
        case 0: false
        case 1: true
        default: throw .invalid
        }
    }
    /// A count of at most `limit`.
    public mutating func count(limit: Int) throws(ByteReaderError) -> Int {
        let value = Int(try uint32())
        guard value <= limit else { throw .invalid }
        return value
    }
    /// At most `limit` bytes.
    public mutating func byteString(limit: Int) throws(ByteReaderError) -> [UInt8] {
        let count = try count(limit: limit)
        guard remaining >= count else { throw .truncated }
        defer { position += count }
        return Array(bytes[position..<position + count])
    }
    /// UTF-8 of at most `limit` bytes.
    public mutating func string(limit: Int) throws(ByteReaderError) -> String {
        guard let text = String(validating: try byteString(limit: limit), as: UTF8.self) else { throw .invalid }
        return text
    }
    public mutating func list<Element>(
        limit: Int, _ each: (inout ByteReader) throws(ByteReaderError) -> Element
    ) throws(ByteReaderError) -> [Element] {
        var values: [Element] = []
        for _ in 0..<(try count(limit: limit)) { values.append(try each(&self)) }
        return values
    }
    public mutating func optional<Value>(
        _ some: (inout ByteReader) throws(ByteReaderError) -> Value
    ) throws(ByteReaderError) -> Value? {
        try bool() ? try some(&self) : nil
    }
    /// An enumeration's raw byte.
    public mutating func enumeration<E: RawRepresentable>(_ type: E.Type = E.self) throws(ByteReaderError) -> E where E.RawValue == UInt8 {
        guard let value = E(rawValue: try uint8()) else { throw .invalid }
        return value
    }
    /// There must be nothing left.
    public func end() throws(ByteReaderError) {
        guard remaining == 0 else { throw .trailingBytes }
    }
}
