import COpenSSL

/// The digests that CHAP knows (IANA, “iSCSI authentication methods: CHAP algorithms”).
public enum Digest: CaseIterable, Hashable, Sendable {
    case md5, sha1, sha256, sha3_256

    /// Bytes of its result.
    public var length: Int {
        switch self {
        case .md5: 16
        case .sha1: 20
        case .sha256, .sha3_256: 32
        }
    }

    /// Whether this host's OpenSSL computes it: one in FIPS mode knows no MD5.
    public var isAvailable: Bool {
        guard let algorithm = unsafe EVP_MD_fetch(nil, name, nil) else { return false }
        unsafe EVP_MD_free(algorithm)
        return true
    }

    /// OpenSSL's name for it.
    private var name: String {
        switch self {
        case .md5: "MD5"
        case .sha1: "SHA1"
        case .sha256: "SHA256"
        case .sha3_256: "SHA3-256"
        }
    }

    fileprivate func begin() -> OpaquePointer {
        guard let algorithm = unsafe EVP_MD_fetch(nil, name, nil), let context = unsafe EVP_MD_CTX_new() else {
            preconditionFailure("\(name) is available")
        }
        defer { unsafe EVP_MD_free(algorithm) }
        let result = unsafe EVP_DigestInit_ex2(context, algorithm, nil)
        precondition(result == 1, "\(name) can begin")
        return unsafe context
    }

    public func hash(_ bytes: [UInt8]) -> [UInt8] {
        var state = DigestState(self)
        state.update(bytes.span)
        return state.finish()
    }
}

/// A digest on its way, for what comes in parts or must not be copied. OpenSSL wipes it at its end.
@safe public struct DigestState: ~Copyable {
    private let context: OpaquePointer
    private let length: Int

    /// - Parameter digest: an available one
    public init(_ digest: Digest) {
        unsafe context = digest.begin()
        length = digest.length
    }

    deinit { unsafe EVP_MD_CTX_free(context) }

    public mutating func update(_ bytes: borrowing Span<UInt8>) {
        let result = unsafe bytes.withUnsafeBytes { unsafe EVP_DigestUpdate(context, $0.baseAddress, $0.count) }
        precondition(result == 1, "a digest takes bytes")
    }

    public mutating func update(_ secret: Secret) { secret.withBytes { update($0) } }

    public consuming func finish() -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: length) { buffer, initialized in
            let result = unsafe EVP_DigestFinal_ex(context, buffer.baseAddress, nil)
            precondition(result == 1, "a digest has an end")
            initialized = length
        }
    }
}

/// HMAC-SHA-256 (RFC 2104, RFC 4231).
public enum HMAC {
    public static let length = Digest.sha256.length

    public static func sha256(_ bytes: [UInt8], key: Secret) -> [UInt8] {
        unsafe [UInt8](unsafeUninitializedCapacity: length) { buffer, initialized in
            unsafe bytes.withUnsafeBufferPointer { unsafe compute($0, key, buffer.baseAddress) }
            initialized = length
        }
    }

    /// The code of a secret, which is not copied for it.
    public static func sha256(_ secret: Secret, key: Secret) -> [UInt8] {
        secret.withBytes { bytes in
            unsafe [UInt8](unsafeUninitializedCapacity: length) { buffer, initialized in
                unsafe bytes.withUnsafeBufferPointer { unsafe compute($0, key, buffer.baseAddress) }
                initialized = length
            }
        }
    }

    /// A key made of another one, which it does not betray, for the use that `label` names.
    public static func derive(_ label: [UInt8], from key: Secret) -> Secret {
        unsafe Secret.made(count: length) { result in
            unsafe label.withUnsafeBufferPointer { unsafe compute($0, key, result.assumingMemoryBound(to: UInt8.self)) }
        }
    }

    private static func compute(_ bytes: UnsafeBufferPointer<UInt8>, _ key: Secret, _ result: UnsafeMutablePointer<UInt8>?) {
        let isDone = key.withBytes { key in
            unsafe key.withUnsafeBytes { key in
                unsafe COpenSSL.HMAC(EVP_sha256(), key.baseAddress, Int32(key.count), bytes.baseAddress, bytes.count, result, nil) != nil
            }
        }
        precondition(isDone, "HMAC-SHA-256 is available")
    }
}
