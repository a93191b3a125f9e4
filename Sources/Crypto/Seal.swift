import COpenSSL

/// What is sealed was changed, or sealed under another key or for another context.
public struct SealError: Error, Hashable, Sendable {}

/// Secrets as they lie on a disk: AES-256-GCM (NIST SP 800-38D) with a nonce drawn for each, of which one key bears 2³² (§8.3).
public enum Seal {
    /// Bytes of a key.
    public static let keyLength = 32
    static let nonceLength = 12
    static let tagLength = 16
    /// Bytes by which the sealed form is longer than the secret: nonce and tag.
    public static let overhead = nonceLength + tagLength

    /// Nonce, ciphertext, tag.
    /// - Parameters:
    ///   - key: of `keyLength` bytes
    ///   - context: what the secret is and whose; `open` wants the same, so that nobody can put one into another's place
    public static func seal(_ secret: Secret, key: Secret, context: [UInt8]) -> [UInt8] {
        seal(secret, key: key, context: context, nonce: Random.bytes(count: nonceLength))
    }

    package static func seal(_ secret: Secret, key: Secret, context: [UInt8], nonce: [UInt8]) -> [UInt8] {
        precondition(nonce.count == nonceLength)
        var tag = [UInt8](repeating: 0, count: tagLength)
        var cipher = [UInt8](repeating: 0, count: secret.count)
        let isDone = secret.withBytes { plain in
            unsafe plain.withUnsafeBufferPointer { plain in
                unsafe cipher.withUnsafeMutableBufferPointer { cipher in
                    unsafe run(encrypting: true, key, context, nonce, &tag, plain, UnsafeMutableRawPointer(cipher.baseAddress))
                }
            }
        }
        precondition(isDone, "AES-256-GCM is available")
        return nonce + cipher + tag
    }

    /// The secret, if it was sealed so under this key for this context.
    public static func open(_ sealed: [UInt8], key: Secret, context: [UInt8]) throws(SealError) -> Secret {
        guard sealed.count >= overhead else { throw SealError() }
        let nonce = Array(sealed.prefix(nonceLength))
        var tag = Array(sealed.suffix(tagLength))
        let cipher = Array(sealed.dropFirst(nonceLength).dropLast(tagLength))
        var isDone = false
        let secret = unsafe Secret.made(count: cipher.count) { plain in
            unsafe cipher.withUnsafeBufferPointer { cipher in
                unsafe isDone = run(encrypting: false, key, context, nonce, &tag, cipher, plain)
            }
        }
        guard isDone else { throw SealError() }
        return secret
    }

    /// - Returns: false if the tag does not fit
    private static func run(
        encrypting: Bool, _ key: Secret, _ context: [UInt8], _ nonce: [UInt8], _ tag: inout [UInt8], _ input: UnsafeBufferPointer<UInt8>,
        _ output: UnsafeMutableRawPointer?
    ) -> Bool {
        precondition(key.count == keyLength && tag.count == tagLength)
        guard let cipher = unsafe EVP_CIPHER_CTX_new() else { preconditionFailure("there is memory for a cipher") }
        defer { unsafe EVP_CIPHER_CTX_free(cipher) }
        let started = key.withBytes { key in
            unsafe key.withUnsafeBufferPointer { key in
                unsafe nonce.withUnsafeBufferPointer { nonce in
                    unsafe EVP_CipherInit_ex2(cipher, EVP_aes_256_gcm(), key.baseAddress, nonce.baseAddress, encrypting ? 1 : 0, nil) == 1
                }
            }
        }
        guard started else { return false }
        // Where a last call has nothing to write it still wants an address.
        var none: UInt8 = 0
        var written: Int32 = 0
        let bytes = unsafe output?.assumingMemoryBound(to: UInt8.self)
        let contextTaken = unsafe context.withUnsafeBufferPointer { unsafe EVP_CipherUpdate(cipher, nil, &written, $0.baseAddress, Int32($0.count)) }
        guard context.isEmpty || contextTaken == 1 else { return false }
        if !input.isEmpty {
            guard unsafe EVP_CipherUpdate(cipher, bytes, &written, input.baseAddress, Int32(input.count)) == 1 else { return false }
        }
        func control(_ command: Int32) -> Bool {
            unsafe tag.withUnsafeMutableBytes { unsafe EVP_CIPHER_CTX_ctrl(cipher, command, Int32($0.count), $0.baseAddress) } == 1
        }
        guard encrypting || control(EVP_CTRL_AEAD_SET_TAG) else { return false }
        guard unsafe EVP_CipherFinal_ex(cipher, &none, &written) == 1 else { return false }
        return !encrypting || control(EVP_CTRL_AEAD_GET_TAG)
    }
}
