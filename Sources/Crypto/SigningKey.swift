import COpenSSL

/// Why a key is not taken, or does not sign. Says nothing of its bytes.
public enum KeyError: Error, Hashable, Sendable, CustomStringConvertible {
    /// No private key in PEM.
    case noKey
    /// One that wants a pass phrase; nobody is there to be asked.
    case encrypted
    /// A key of a kind that does not sign here: its kind.
    case unsupported(String)
    /// It was to sign by a scheme of another kind of key.
    case wrongScheme

    public var description: String {
        switch self {
        case .noKey: "there is no private key in PEM form"
        case .encrypted: "the private key is encrypted: it must be usable without a pass phrase"
        case .unsupported(let kind): "the private key is of kind \(kind): only ECDSA P-256, ECDSA P-384 and Ed25519 are supported"
        case .wrongScheme: "the private key does not sign by this scheme"
        }
    }
}

/// A private key that signs TLS handshakes: ECDSA with P-256 or P-384, or Ed25519. Never printed; OpenSSL wipes it at its end.
@safe public final class SigningKey: @unchecked Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Only read once it is made; OpenSSL locks what signing changes in it.
    private let key: OpaquePointer
    /// Its public half, DER (SubjectPublicKeyInfo, RFC 5280 §4.1.2.7).
    public let publicKey: [UInt8]
    /// Ed25519, not ECDSA.
    private let isEdwards: Bool

    /// The first private key in `pem`.
    public init(pem: Secret) throws(KeyError) {
        var askedForPassPhrase = false
        let found = unsafe pem.withBytes { bytes in
            unsafe withUnsafeMutablePointer(to: &askedForPassPhrase) { asked in
                unsafe withMemoryBIO(bytes) { bio in
                    unsafe PEM_read_bio_PrivateKey(bio, nil, { _, _, _, asked in
                        unsafe asked?.assumingMemoryBound(to: Bool.self).pointee = true
                        return -1
                    }, asked)
                }
            }
        }
        ERR_clear_error()
        guard let found = unsafe found else { throw askedForPassPhrase ? .encrypted : .noKey }
        isEdwards = unsafe EVP_PKEY_is_a(found, "ED25519") == 1
        guard unsafe isEdwards || ["P-256", "P-384"].contains(Self.curve(of: found)) else {
            let kind = unsafe Self.kind(of: found)
            unsafe EVP_PKEY_free(found)
            throw .unsupported(kind)
        }
        unsafe key = found
        publicKey = unsafe encoded { unsafe i2d_PUBKEY(found, $0) }
    }

    deinit { unsafe EVP_PKEY_free(key) }

    /// NIST's name of its curve; nil: none, or one that has none.
    @unsafe private static func curve(of key: OpaquePointer) -> String? {
        var name = [CChar](repeating: 0, count: 64)
        var length = 0
        guard unsafe EVP_PKEY_get_group_name(key, &name, name.count, &length) == 1 else { return nil }
        let text = String(decoding: name.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return ["prime256v1": "P-256", "secp384r1": "P-384"][text] ?? text
    }

    /// Its kind in OpenSSL's words.
    @unsafe private static func kind(of key: OpaquePointer) -> String {
        guard let name = unsafe EVP_PKEY_get0_type_name(key) else { return "unknown" }
        let type = unsafe String(cString: name)
        return unsafe curve(of: key).map { "\(type) \($0)" } ?? "\(type) with \(EVP_PKEY_get_bits(key)) bits"
    }

    /// Signs the whole of `message`, which it hashes as `scheme` says.
    public func sign(_ message: [UInt8], by scheme: SignatureScheme) throws(KeyError) -> [UInt8] {
        guard (scheme == .ed25519) == isEdwards else { throw .wrongScheme }
        guard let context = unsafe EVP_MD_CTX_new() else { preconditionFailure("there is memory for a signature") }
        defer { unsafe EVP_MD_CTX_free(context) }
        // The longest is P-384's: two integers of up to 49 bytes in DER.
        var signature = [UInt8](repeating: 0, count: 128)
        var length = signature.count
        let isDone = unsafe EVP_DigestSignInit_ex(context, nil, scheme.digestName, nil, nil, key, nil) == 1
            && EVP_DigestSign(context, &signature, &length, message, message.count) == 1
        precondition(isDone, "a key that was taken signs")
        signature.removeLast(signature.count - length)
        return signature
    }

    public var description: String { "signing key" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: []) }
}

/// Lets OpenSSL read `bytes`.
@unsafe func withMemoryBIO<R>(_ bytes: borrowing Span<UInt8>, _ body: (OpaquePointer) -> R) -> R {
    unsafe bytes.withUnsafeBytes { bytes in
        // An empty one has no address, which OpenSSL does not take.
        var none: UInt8 = 0
        return unsafe withUnsafePointer(to: &none) { none in
            guard let bio = unsafe BIO_new_mem_buf(bytes.baseAddress ?? UnsafeRawPointer(none), Int32(bytes.count)) else {
                preconditionFailure("there is memory to read with")
            }
            defer { unsafe BIO_free(bio) }
            return unsafe body(bio)
        }
    }
}

/// DER by one of OpenSSL's `i2d` functions.
@unsafe func encoded(_ body: (UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?) -> Int32) -> [UInt8] {
    let length = body(nil)
    precondition(length > 0, "what was decoded can be encoded")
    return unsafe [UInt8](unsafeUninitializedCapacity: Int(length)) { buffer, initialized in
        var start = buffer.baseAddress
        initialized = Int(unsafe body(&start))
    }
}
