/// What a finished handshake proves about the other side, and how it is spoken with.
public struct TLSPeer: Hashable, Sendable {
    public enum Identity: Hashable, Sendable {
        /// It has proved nothing.
        case nobody
        /// It has the key of a certificate that the context trusts.
        ///
        /// - Parameters:
        ///   - fingerprint: SHA-256 of the certificate
        ///   - uris: its alternative names of the form URI, as they are in it
        ///   - subject: one line of ASCII
        ///   - notAfter: seconds since 1970
        case certificate(fingerprint: [UInt8], uris: [[UInt8]], subject: [UInt8], notAfter: Int64)
        /// It has the key of this identity.
        case preSharedKey(identity: [UInt8])
    }

    public enum Version: String, Hashable, Sendable, CaseIterable {
        case tls12 = "TLSv1.2"
        case tls13 = "TLSv1.3"
    }

    public var identity: Identity
    public var version: Version
    /// The cipher suite, by its name in OpenSSL.
    public var cipher: String
    /// The kernel encrypts what is sent.
    public var usesKernelTLS: Bool

    public init(identity: Identity, version: Version, cipher: String, usesKernelTLS: Bool) {
        self.identity = identity
        self.version = version
        self.cipher = cipher
        self.usesKernelTLS = usesKernelTLS
    }
}
