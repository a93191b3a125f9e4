import COpenSSL
import CTLS
import Crypto

/// Signs the whole message by a scheme, or refuses. It may block; it runs on the thread that calls `handshake`.
public typealias Signing = @Sendable (SignatureScheme, _ message: [UInt8]) -> [UInt8]?

/// Whether clients prove who they are.
public enum ClientAuthentication: String, CaseIterable, Sendable {
    /// Certificates are not asked for. A pre-shared key is proof nevertheless.
    case none
    /// A client may show a certificate; if it does, it must be a good one.
    case optional
    /// Without a good certificate or a pre-shared key there is no connection.
    case required
}

/// What a TLS server shows and whom it believes: all of it public.
public struct ServerMaterial: Hashable, Sendable {
    /// PEM, its own first; empty: it lives on pre-shared keys alone.
    public var certificates: [UInt8]
    /// Authorities of clients' certificates, PEM; empty: none.
    public var clientCA: [UInt8]
    /// Revocation lists, PEM; empty: none. If there are any, each authority on the way of a client's certificate must have a valid one.
    public var crl: [UInt8]
    public var clientAuthentication: ClientAuthentication
    public var takesPreSharedKeys: Bool
    public var policy: TLSPolicy

    public init(
        certificates: [UInt8], clientCA: [UInt8] = [], crl: [UInt8] = [], clientAuthentication: ClientAuthentication = .none,
        takesPreSharedKeys: Bool = false, policy: TLSPolicy = .strict
    ) {
        self.certificates = certificates
        self.clientCA = clientCA
        self.crl = crl
        self.clientAuthentication = clientAuthentication
        self.takesPreSharedKeys = takesPreSharedKeys
        self.policy = policy
    }
}

/// External pre-shared keys (RFC 8446 §4.2.11, RFC 9257).
public enum PreSharedKey {
    /// Bytes of a key. Less than 16 can be guessed from a recorded handshake; more than 64 no hash uses.
    public static let lengths = 16...64
    /// Bytes of an identity: what stunnel and OpenSSL take.
    public static let mostIdentity = 128
    /// Identities of one client that are looked up, those of a repeated hello included.
    static let mostLookups = 4

    /// A session that OpenSSL takes as the key: for a suite with SHA-256, which is what a key without a hash goes with (§4.2.11).
    @unsafe static func session(_ key: Secret, for connection: OpaquePointer) -> OpaquePointer? {
        guard lengths.contains(key.count) else { return nil }
        // TLS_AES_128_GCM_SHA256 (§B.4).
        let suite: [UInt8] = [0x13, 0x01]
        guard let session = unsafe SSL_SESSION_new() else { return nil }
        let isSet = key.withBytes { key in
            unsafe key.withUnsafeBufferPointer { unsafe SSL_SESSION_set1_master_key(session, $0.baseAddress, $0.count) == 1 }
        }
        guard isSet, let cipher = unsafe SSL_CIPHER_find(connection, suite), unsafe SSL_SESSION_set_cipher(session, cipher) == 1,
            unsafe SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1
        else {
            unsafe SSL_SESSION_free(session)
            return nil
        }
        return unsafe session
    }
}

/// Where C finds who signs.
@safe final class Signer: Sendable {
    let sign: Signing
    /// Points back to this object.
    nonisolated(unsafe) let entry: UnsafeMutablePointer<tls_signer>

    init(_ sign: @escaping Signing) {
        self.sign = sign
        unsafe entry = .allocate(capacity: 1)
        unsafe entry.initialize(to: tls_signer(context: Unmanaged.passUnretained(self).toOpaque()) { context, scheme, message, length, signature, capacity in
            let signer = unsafe Unmanaged<Signer>.fromOpaque(context!).takeUnretainedValue()
            let message = unsafe Array(UnsafeBufferPointer(start: message, count: length))
            guard let scheme = SignatureScheme(rawValue: scheme), let made = signer.sign(scheme, message), made.count <= capacity else { return 0 }
            unsafe signature.update(from: made, count: made.count)
            return made.count
        })
    }

    deinit { unsafe entry.deallocate() }
}

/// A server's side of TLS, for any number of connections on any threads.
@safe public final class ServerContext: Sendable {
    nonisolated(unsafe) let context: OpaquePointer
    let material: ServerMaterial
    let preSharedKey: @Sendable ([UInt8]) -> Secret?
    private let signer: Signer

    /// - Parameters:
    ///   - sign: signs for the certificate's private key
    ///   - preSharedKey: the key of an identity that a client presents, which is any bytes; nil: unknown. It may block; it runs on the thread
    ///     that calls `handshake`
    public init(
        _ material: ServerMaterial, sign: @escaping Signing, preSharedKey: @escaping @Sendable (_ identity: [UInt8]) -> Secret? = { _ in nil }
    ) throws(TLSError) {
        guard !material.certificates.isEmpty || material.takesPreSharedKeys else { throw .noCredentials }
        let believesNobody = material.clientCA.isEmpty && !material.takesPreSharedKeys
        guard material.clientAuthentication == .none || !believesNobody else { throw .noAuthority }
        let chain = try parsed(material.certificates, TLSError.certificate, CertificateChain.init(pem:))
        let authorities = try parsed(material.clientCA, TLSError.authority, CertificateChain.init(pem:))
        let revoked = try parsed(material.crl, TLSError.revocationList, RevocationLists.init(pem:))
        let context = unsafe try material.policy.makeContext(isServer: true)
        unsafe self.context = context
        self.material = material
        self.preSharedKey = preSharedKey
        signer = Signer(sign)
        // From here on `deinit` frees what there is.
        if let chain { unsafe try use(chain, signer: signer.entry, in: context) }
        if let authorities { unsafe try trust(authorities, revoked: revoked, in: context) }
        if authorities != nil, material.clientAuthentication != .none {
            let mode = material.clientAuthentication == .required ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER
            unsafe SSL_CTX_set_verify(context, mode, nil)
        }
        if material.takesPreSharedKeys {
            unsafe SSL_CTX_set_psk_find_session_callback(context) { connection, identity, length, session in
                let bytes = unsafe Array(UnsafeBufferPointer(start: identity, count: length))
                unsafe session?.pointee = SecureConnection.of(connection)?.findPreSharedKey(bytes)
                return 1
            }
        }
    }

    deinit { unsafe SSL_CTX_free(context) }
}

/// Whom a client takes for the right server.
public enum ServerTrust: Hashable, Sendable {
    /// Whoever has a certificate of one of these authorities (PEM), not revoked by `crl` (PEM, empty: none), for this DNS name or IP address
    /// (RFC 9525; a subject's common name counts for nothing).
    case authority(ca: [UInt8], crl: [UInt8], name: String)
    /// Whoever has the key of this certificate (SHA-256 of its DER), while it is valid.
    case pinnedCertificate([UInt8])
    /// Whoever has this key (SHA-256 of SubjectPublicKeyInfo, as in RFC 7469 §2.4), with a certificate that is valid.
    case pinnedKey([UInt8])
    /// Nobody but who has the same pre-shared key.
    case preSharedKey
}

/// What a client shows.
public enum ClientIdentity: Sendable {
    case nobody
    /// PEM, its own first; `sign` signs for its private key, as in `ServerContext`.
    case certificate([UInt8], sign: Signing)
    case preSharedKey(identity: [UInt8], key: Secret)
}

/// A client's side of TLS, for any number of connections to one server on any threads.
@safe public final class ClientContext: Sendable {
    nonisolated(unsafe) let context: OpaquePointer
    let trust: ServerTrust
    let identity: ClientIdentity
    /// The identity of a pre-shared key, where it stays.
    nonisolated(unsafe) let presharedName: UnsafeMutablePointer<UInt8>
    private let signer: Signer

    public init(_ trust: ServerTrust, identity: ClientIdentity = .nobody, policy: TLSPolicy = .strict) throws(TLSError) {
        var chain: CertificateChain?
        var sign: Signing = { _, _ in nil }
        if case .certificate(let pem, let signing) = identity {
            chain = try parsed(pem, TLSError.certificate, CertificateChain.init(pem:))
            guard chain != nil else { throw .noCredentials }
            sign = signing
        }
        var presharedName: [UInt8] = []
        if case .preSharedKey(let name, let key) = identity {
            presharedName = name
            guard PreSharedKey.lengths.contains(key.count), (1...PreSharedKey.mostIdentity).contains(name.count) else { throw .noCredentials }
        } else if trust == .preSharedKey {
            throw .noCredentials
        }
        var authorities: CertificateChain?
        var revoked: RevocationLists?
        if case .authority(let ca, let crl, _) = trust {
            authorities = try parsed(ca, TLSError.authority, CertificateChain.init(pem:))
            guard authorities != nil else { throw .noAuthority }
            revoked = try parsed(crl, TLSError.revocationList, RevocationLists.init(pem:))
        }
        let context = unsafe try policy.makeContext(isServer: false)
        unsafe self.context = context
        self.trust = trust
        self.identity = identity
        unsafe self.presharedName = .allocate(capacity: max(1, presharedName.count))
        unsafe self.presharedName.initialize(from: presharedName, count: presharedName.count)
        signer = Signer(sign)
        // From here on `deinit` frees what there is.
        if let chain { unsafe try use(chain, signer: signer.entry, in: context) }
        if let authorities { unsafe try TLS.trust(authorities, revoked: revoked, in: context) }
        unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
        switch trust {
        case .authority(_, _, let name): unsafe try Self.expect(name, in: context)
        case .pinnedCertificate(let pin), .pinnedKey(let pin):
            guard pin.count == Digest.sha256.length else { throw .badExpectation }
            unsafe SSL_CTX_set_cert_verify_callback(context, { verification, context in
                unsafe Unmanaged<ClientContext>.fromOpaque(context!).takeUnretainedValue().verifyPin(verification!) ? 1 : 0
            }, Unmanaged.passUnretained(self).toOpaque())
        case .preSharedKey: break
        }
        if case .preSharedKey = identity {
            unsafe SSL_CTX_set_psk_use_session_callback(context) { connection, digest, identity, length, session in
                unsafe SecureConnection.of(connection)?.usePreSharedKey(digest, identity, length, session)
                return 1
            }
        }
    }

    deinit {
        unsafe SSL_CTX_free(context)
        unsafe presharedName.deallocate()
    }

    /// The DNS name that is to be told to the server (RFC 6066 §3); addresses are not.
    var serverName: String? {
        if case .authority(_, _, let name) = trust, !isAddress(name) { name } else { nil }
    }

    private static func expect(_ name: String, in context: OpaquePointer) throws(TLSError) {
        let expected = unsafe SSL_CTX_get0_param(context)
        unsafe X509_VERIFY_PARAM_set_hostflags(expected, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
        let isDNSName = !name.isEmpty && name.utf8.count < 254 && name.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "*") }
        let isSet = unsafe isAddress(name) ? X509_VERIFY_PARAM_set1_ip_asc(expected, name) : isDNSName ? X509_VERIFY_PARAM_set1_host(expected, name, 0) : 0
        guard isSet == 1 else { throw .badExpectation }
    }

    /// The pinned certificate is its own authority; the rest of the chain counts for nothing.
    @unsafe private func verifyPin(_ verification: OpaquePointer) -> Bool {
        guard let own = unsafe X509_STORE_CTX_get0_cert(verification) else { return false }
        let certificate = unsafe Certificate(der: encoding(own))
        let isPinned: Bool
        switch trust {
        case .pinnedCertificate(let pin): isPinned = certificate.map { isSameInConstantTime($0.fingerprint, pin) } ?? false
        case .pinnedKey(let pin): isPinned = certificate.map { isSameInConstantTime(Digest.sha256.hash($0.publicKey), pin) } ?? false
        case .authority, .preSharedKey: isPinned = false
        }
        guard isPinned, let anchors = unsafe OPENSSL_sk_new_null() else {
            unsafe X509_STORE_CTX_set_error(verification, X509_V_ERR_APPLICATION_VERIFICATION)
            return false
        }
        defer { unsafe OPENSSL_sk_free(anchors) }
        guard unsafe OPENSSL_sk_push(anchors, UnsafeRawPointer(own)) == 1 else { return false }
        unsafe X509_STORE_CTX_set0_trusted_stack(verification, anchors)
        unsafe X509_STORE_CTX_set_flags(verification, UInt(X509_V_FLAG_PARTIAL_CHAIN))
        return unsafe X509_verify_cert(verification) == 1
    }
}

private func isAddress(_ name: String) -> Bool {
    guard let address = unsafe a2i_IPADDRESS(name) else { return false }
    unsafe ASN1_STRING_free(address)
    return true
}

/// DER of an X509.
@unsafe func encoding(_ certificate: OpaquePointer) -> [UInt8] {
    var start: UnsafeMutablePointer<UInt8>?
    let length = unsafe i2d_X509(certificate, &start)
    guard length > 0, let made = unsafe start else { return [] }
    defer { unsafe portcullis_free(made) }
    return unsafe Array(UnsafeBufferPointer(start: made, count: Int(length)))
}

/// What `pem` holds; nil: it is empty.
private func parsed<Value>(
    _ pem: [UInt8], _ wrap: (CertificateError) -> TLSError, _ parse: ([UInt8]) throws(CertificateError) -> Value
) throws(TLSError) -> Value? {
    guard !pem.isEmpty else { return nil }
    do { return try parse(pem) } catch { throw wrap(error) }
}
