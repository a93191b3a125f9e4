import COpenSSL

/// OpenSSL's random generator, seeded by the kernel.
public enum Random {
    /// Bytes that others may see: challenges, identifiers, nonces.
    public static func bytes(count: Int) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            if let start = buffer.baseAddress { unsafe fill(start, count: count, private: false) }
            initialized = count
        }
    }

    /// - Parameter private: from the generator whose output nobody sees (RAND_priv_bytes(3))
    static func fill(_ start: UnsafeMutableRawPointer, count: Int, private isPrivate: Bool) {
        let bytes = unsafe start.assumingMemoryBound(to: UInt8.self)
        let result = unsafe isPrivate ? RAND_priv_bytes(bytes, Int32(count)) : RAND_bytes(bytes, Int32(count))
        // Nothing that is to be random may go on without.
        precondition(result == 1, "OpenSSL has random bytes")
    }
}
