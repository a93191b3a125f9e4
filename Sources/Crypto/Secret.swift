import Bytes
import COpenSSL

/// Bytes that nobody but their user may see: wiped when the last reference goes, printed never, compared in constant time.
///
/// Whoever makes one of bytes, or reads it with `withBytes`, answers for the copies.
@safe public final class Secret: Hashable, @unchecked Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    public let count: Int
    /// Written only before anybody else has the object.
    private let start: UnsafeMutableRawPointer

    private init(uninitialized count: Int) {
        // One byte more, so that an empty secret has an address, too.
        guard let memory = unsafe portcullis_malloc(count + 1) else { preconditionFailure("there is memory for a secret") }
        self.count = count
        unsafe start = memory
    }

    public convenience init(_ bytes: borrowing Span<UInt8>) {
        self.init(uninitialized: bytes.count)
        unsafe bytes.withUnsafeBytes { source in
            if let base = source.baseAddress { unsafe start.copyMemory(from: base, byteCount: source.count) }
        }
    }

    public convenience init(_ bytes: [UInt8]) { self.init(bytes.span) }

    /// What hexadecimal digits, two a byte, stand for; nil if they are none.
    public convenience init?(hexadecimal digits: borrowing Span<UInt8>) {
        guard digits.count.isMultiple(of: 2) else { return nil }
        self.init(uninitialized: digits.count / 2)
        for index in 0..<count {
            guard let high = Number.digit(digits[2 * index]), let low = Number.digit(digits[2 * index + 1]), high < 16, low < 16 else { return nil }
            unsafe start.storeBytes(of: UInt8(high << 4 | low), toByteOffset: index, as: UInt8.self)
        }
    }

    /// What `fill` writes into so many bytes of room, for secrets that are read.
    /// - Parameter fill: returns how many of them it has written
    public static func filled<E: Error>(room: Int, _ fill: (inout MutableSpan<UInt8>) throws(E) -> Int) throws(E) -> Secret {
        let whole = Secret(uninitialized: room)
        let bytes = unsafe whole.start.bindMemory(to: UInt8.self, capacity: room)
        unsafe bytes.initialize(repeating: 0, count: room)
        var span = unsafe MutableSpan(_unsafeStart: bytes, count: room)
        let count = try fill(&span)
        return count == room ? whole : whole.withBytes { Secret($0.extracting(first: count)) }
    }

    /// These, one behind the other.
    public convenience init(joining first: Secret, _ second: Secret) {
        self.init(uninitialized: first.count + second.count)
        unsafe start.copyMemory(from: first.start, byteCount: first.count)
        unsafe start.advanced(by: first.count).copyMemory(from: second.start, byteCount: second.count)
    }

    /// So many bytes from OpenSSL's generator.
    public static func random(count: Int) -> Secret {
        unsafe made(count: count) { unsafe Random.fill($0, count: count, private: true) }
    }

    /// So many printable characters that nothing treats specially, each with 6 bits from OpenSSL's generator.
    public static func printable(characters: Int) -> Secret {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._".utf8)
        return unsafe made(count: characters) { start in
            unsafe Random.fill(start, count: characters, private: true)
            let bytes = unsafe UnsafeMutableRawBufferPointer(start: start, count: characters)
            for index in 0..<characters { unsafe bytes[index] = alphabet[Int(bytes[index] & 0x3f)] }
        }
    }

    /// One whose bytes `fill` writes.
    static func made(count: Int, _ fill: (UnsafeMutableRawPointer) -> Void) -> Secret {
        let secret = Secret(uninitialized: count)
        unsafe fill(secret.start)
        return secret
    }

    deinit { unsafe portcullis_clear_free(start, count + 1) }

    /// Reads the bytes; they are valid in `body` only.
    public func withBytes<R: ~Copyable, E: Error>(_ body: (Span<UInt8>) throws(E) -> R) throws(E) -> R {
        try body(unsafe Span(_unsafeStart: start.assumingMemoryBound(to: UInt8.self), count: count))
    }

    /// In a time that depends on the lengths alone.
    public static func == (a: Secret, b: Secret) -> Bool {
        unsafe a.count == b.count && CRYPTO_memcmp(a.start, b.start, a.count) == 0
    }

    /// The length alone: a hash would say something about the bytes.
    public func hash(into hasher: inout Hasher) { hasher.combine(count) }

    public var description: String { "secret" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// Whether two byte strings are the same, in a time that depends on their lengths alone.
public func isSameInConstantTime(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    guard a.count == b.count else { return false }
    return unsafe a.withUnsafeBytes { a in unsafe b.withUnsafeBytes { b in unsafe CRYPTO_memcmp(a.baseAddress, b.baseAddress, a.count) == 0 } }
}
