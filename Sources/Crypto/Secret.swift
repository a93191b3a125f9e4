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
