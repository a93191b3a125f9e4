import COpenSSL
import CTLS
import Crypto

/// OpenSSL as this room uses it: a library context of its own, so that no configuration of the host changes what a named policy means,
/// with the default provider and the one that has others sign.
public enum TLSLibrary {
    /// Sets OpenSSL up, without its configuration file. A process that goes into confinement calls it before: nothing opens a file after.
    public static func prepare() { _ = unsafe context }

    nonisolated(unsafe) static let context: OpaquePointer = {
        let options = UInt64(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS | OPENSSL_INIT_LOAD_CRYPTO_STRINGS)
        guard OPENSSL_init_ssl(options, nil) == 1, let context = unsafe OSSL_LIB_CTX_new(),
            unsafe OSSL_PROVIDER_load(context, "default") != nil, unsafe tls_signing_provider_add(context) == 1,
            // It looks up every algorithm.
            let example = unsafe SSL_CTX_new_ex(context, nil, TLS_method())
        else { preconditionFailure("OpenSSL can be set up") }
        unsafe SSL_CTX_free(example)
        return unsafe context
    }()
}

/// What a portal or a connector speaks; a policy never changes: a better one gets a new date.
public enum TLSPolicy: String, CaseIterable, Sendable {
    /// TLS 1.3.
    case strict = "2026-11-strict"
    /// Also TLS 1.2, with ephemeral keys and authenticated encryption.
    case compatible = "2026-11-compatible"

    var minimumVersion: Int { Int(self == .strict ? TLS1_3_VERSION : TLS1_2_VERSION) }
}

/// What every context of ours has in common.
extension TLSPolicy {
    /// In the order the server prefers. A pre-shared key goes with SHA-256 (RFC 8446 §4.2.11), so a suite with it is the first.
    private static let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    /// TLS 1.2.
    private static let ciphers = """
        ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
        ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305
        """
    private static let groups = "X25519:P-256:P-384"
    /// What keys of ours sign with.
    private static let ownSchemes = "ECDSA+SHA256:ECDSA+SHA384:ed25519"
    /// What the other side, and the authorities of both sides, may sign with.
    private static let theirSchemes = """
        ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ed25519:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:\
        RSA+SHA256:RSA+SHA384:RSA+SHA512
        """
    /// Bytes of the certificates that the other side may send.
    private static let mostCertificateBytes = 32 << 10
    /// Certificates between the other side's own and the authority.
    static let mostIntermediates: Int32 = 4
    /// SSL_CTX_set_security_level(3): 112 bits, no SHA-1.
    static let securityLevel: Int32 = 2

    /// An SSL_CTX of this policy that trusts nobody and proves nothing yet.
    @unsafe func makeContext(isServer: Bool) throws(TLSError) -> OpaquePointer {
        guard let context = unsafe SSL_CTX_new_ex(TLSLibrary.context, nil, isServer ? TLS_server_method() : TLS_client_method()) else {
            throw .library("SSL_CTX_new")
        }
        func set(_ command: Int32, _ value: some BinaryInteger) -> Bool { unsafe SSL_CTX_ctrl(context, command, Int(value), nil) != 0 }
        func set(_ command: Int32, _ list: String) -> Bool {
            var text = Array(list.utf8CString)
            return unsafe SSL_CTX_ctrl(context, command, 0, &text) == 1
        }
        unsafe SSL_CTX_clear_options(context, tls_all_options)
        unsafe SSL_CTX_set_options(context, tls_options)
        let isSet = unsafe set(SSL_CTRL_SET_MIN_PROTO_VERSION, minimumVersion) && set(SSL_CTRL_SET_MAX_PROTO_VERSION, Int(TLS1_3_VERSION))
            && SSL_CTX_set_ciphersuites(context, Self.suites) == 1 && SSL_CTX_set_cipher_list(context, Self.ciphers) == 1
            && set(SSL_CTRL_SET_GROUPS_LIST, Self.groups)
            && set(isServer ? SSL_CTRL_SET_SIGALGS_LIST : SSL_CTRL_SET_CLIENT_SIGALGS_LIST, Self.ownSchemes)
            && set(isServer ? SSL_CTRL_SET_CLIENT_SIGALGS_LIST : SSL_CTRL_SET_SIGALGS_LIST, Self.theirSchemes)
            && SSL_CTX_set_num_tickets(context, 0) == 1
            // A server that verifies clients wants one, even where nothing is resumed but pre-shared keys.
            && (!isServer || SSL_CTX_set_session_id_context(context, "portcullis", 10) == 1)
        guard isSet else {
            unsafe SSL_CTX_free(context)
            throw .library("SSL_CTX")
        }
        unsafe SSL_CTX_set_security_level(context, Self.securityLevel)
        _ = set(SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_OFF)
        _ = set(SSL_CTRL_SET_MAX_CERT_LIST, Self.mostCertificateBytes)
        _ = set(SSL_CTRL_MODE, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS)
        unsafe SSL_CTX_set_verify_depth(context, Self.mostIntermediates)
        return unsafe context
    }
}

// MARK: Certificates in a context

/// An X509 of this room's library context.
@unsafe func decoded(_ certificate: Certificate) throws(TLSError) -> OpaquePointer {
    var made = unsafe X509_new_ex(TLSLibrary.context, nil)
    let read = unsafe certificate.der.withUnsafeBufferPointer { bytes in
        var next = bytes.baseAddress
        return unsafe d2i_X509(&made, &next, bytes.count)
    }
    guard let read = unsafe read else { throw .library("d2i_X509") }
    return unsafe read
}

/// Gives a context its certificates and the key that `signer` signs for.
@unsafe func use(_ chain: CertificateChain, signer: UnsafePointer<tls_signer>, in context: OpaquePointer) throws(TLSError) {
    for (index, certificate) in chain.certificates.enumerated() {
        let own = unsafe try decoded(certificate)
        defer { unsafe X509_free(own) }
        if index == 0 {
            guard let publicKey = unsafe X509_get0_pubkey(own), let key = unsafe tls_signing_key(TLSLibrary.context, publicKey, signer) else {
                throw .unsupportedKey
            }
            defer { unsafe EVP_PKEY_free(key) }
            guard unsafe SSL_CTX_use_certificate(context, own) == 1, unsafe SSL_CTX_use_PrivateKey(context, key) == 1 else {
                throw .library("SSL_CTX_use_certificate")
            }
        } else {
            guard unsafe SSL_CTX_ctrl(context, SSL_CTRL_CHAIN_CERT, 1, UnsafeMutableRawPointer(own)) == 1 else { throw .library("SSL_CTX_add1_chain_cert") }
        }
    }
}

/// Has a context believe what `authorities` have signed and `revoked` do not take back.
///
/// With lists each authority on the way must have a valid one: what cannot be checked is refused.
@unsafe func trust(_ authorities: CertificateChain, revoked: RevocationLists?, in context: OpaquePointer) throws(TLSError) {
    guard let store = unsafe SSL_CTX_get_cert_store(context) else { throw .library("X509_STORE") }
    // An authority that another one has signed may be the end of the chain.
    var flags = UInt(X509_V_FLAG_PARTIAL_CHAIN)
    for authority in authorities.certificates {
        let certificate = unsafe try decoded(authority)
        defer { unsafe X509_free(certificate) }
        guard unsafe X509_STORE_add_cert(store, certificate) == 1 else { throw .library("X509_STORE_add_cert") }
    }
    if let revoked {
        flags |= UInt(X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
        for der in revoked.lists {
            let list = unsafe der.withUnsafeBufferPointer { bytes in
                var next = bytes.baseAddress
                return unsafe d2i_X509_CRL(nil, &next, bytes.count)
            }
            guard let list = unsafe list else { throw .library("d2i_X509_CRL") }
            defer { unsafe X509_CRL_free(list) }
            guard unsafe X509_STORE_add_crl(store, list) == 1 else { throw .library("X509_STORE_add_crl") }
        }
    }
    _ = unsafe X509_STORE_set_flags(store, flags)
}
