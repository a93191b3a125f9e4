import COpenSSL

/// Ed25519 (RFC 8032 §5.1) with keys as bare bytes: for keys that we draw ourselves and let go of, which never were in a file.
public enum Ed25519 {
    /// Bytes of the private key, of the public key and of a signature.
    public static let seedLength = 32
    public static let publicKeyLength = 32
    public static let signatureLength = 64

    /// - Parameter seed: the private key, of `seedLength` bytes
    public static func publicKey(seed: Secret) -> [UInt8] {
        unsafe withKey(seed) { key in
            unsafe [UInt8](unsafeUninitializedCapacity: publicKeyLength) { buffer, initialized in
                var length = publicKeyLength
                let result = unsafe EVP_PKEY_get_raw_public_key(key, buffer.baseAddress, &length)
                precondition(result == 1 && length == publicKeyLength, "an Ed25519 key has a public key")
                initialized = length
            }
        }
    }

    /// - Parameter seed: the private key, of `seedLength` bytes
    public static func sign(_ message: [UInt8], seed: Secret) -> [UInt8] {
        unsafe withKey(seed) { key in
            guard let context = unsafe EVP_MD_CTX_new() else { preconditionFailure("there is memory for a signature") }
            defer { unsafe EVP_MD_CTX_free(context) }
            return unsafe [UInt8](unsafeUninitializedCapacity: signatureLength) { buffer, initialized in
                var length = signatureLength
                let result = unsafe message.withUnsafeBufferPointer { message in
                    unsafe EVP_DigestSignInit(context, nil, nil, nil, key) == 1
                        && EVP_DigestSign(context, buffer.baseAddress, &length, message.baseAddress, message.count) == 1
                }
                precondition(result && length == signatureLength, "an Ed25519 key signs")
                initialized = length
            }
        }
    }

    /// Whether the owner of this public key signed this message so. What is no public key signs nothing.
    public static func isSignature(_ signature: [UInt8], of message: [UInt8], by publicKey: [UInt8]) -> Bool {
        guard publicKey.count == publicKeyLength, signature.count == signatureLength else { return false }
        let key = unsafe publicKey.withUnsafeBufferPointer { unsafe EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nil, $0.baseAddress, $0.count) }
        guard let key = unsafe key else { return false }
        defer { unsafe EVP_PKEY_free(key) }
        guard let context = unsafe EVP_MD_CTX_new() else { preconditionFailure("there is memory for a signature") }
        defer { unsafe EVP_MD_CTX_free(context) }
        return unsafe signature.withUnsafeBufferPointer { signature in
            unsafe message.withUnsafeBufferPointer { message in
                unsafe EVP_DigestVerifyInit(context, nil, nil, nil, key) == 1
                    && EVP_DigestVerify(context, signature.baseAddress, signature.count, message.baseAddress, message.count) == 1
            }
        }
    }

    private static func withKey<R>(_ seed: Secret, _ body: (OpaquePointer) -> R) -> R {
        precondition(seed.count == seedLength)
        let key = unsafe seed.withBytes { seed in
            unsafe seed.withUnsafeBufferPointer { unsafe EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nil, $0.baseAddress, $0.count) }
        }
        guard let key = unsafe key else { preconditionFailure("OpenSSL has Ed25519") }
        // OpenSSL wipes it.
        defer { unsafe EVP_PKEY_free(key) }
        return unsafe body(key)
    }
}
