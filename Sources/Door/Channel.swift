import Bytes
import Crypto
import TLS

/// Bounds of what passes the door about TLS.
enum ChannelLimits {
    /// Bytes that a server signs in a handshake: 64 spaces, a context of 34 and a hash (RFC 8446 §4.4.3), or two random values and
    /// the longest point of a curve (RFC 8422 §5.4).
    static let signed = 256
    /// Bytes of a signature of any scheme that portals have: ECDSA over P-384 in DER.
    static let signature = 128
    /// Bytes of the identity of a pre-shared key: longer ones are nobody's.
    static let identity = 128
    /// Bytes of a pre-shared key.
    static let key = 64
    /// URIs of one certificate, and bytes of each: an iSCSI name behind `iscsi:`. Others are not told.
    static let uris = 8
    static let uri = 255
    /// Bytes of a certificate's subject as one line; longer ones are cut.
    static let subject = 512
    /// Bytes of a protocol's or cipher's name.
    static let word = 64
    /// Bytes of the sentence that says why a handshake has failed.
    static let reason = 512
    /// Bytes of a SHA-256 fingerprint.
    static let fingerprint = 32
}

extension LoginChannel {
    func encode(into writer: inout ByteWriter) {
        writer.write(portal)
        writer.write(peer) { $1.encode(into: &$0) }
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        self.init(portal: try reader.uint32(), peer: try reader.optional { reader throws(ByteReaderError) in try TLSPeer(from: &reader) })
    }
}

extension TLSPeer {
    /// How its identity was shown.
    private enum Kind: UInt8 { case nobody = 0, certificate, preSharedKey }

    func encode(into writer: inout ByteWriter) {
        switch identity {
        case .nobody: writer.write(Kind.nobody.rawValue)
        case .certificate(let fingerprint, let uris, let subject, let notAfter):
            writer.write(Kind.certificate.rawValue)
            writer.write(fingerprint)
            writer.write(Array(uris.filter { $0.count <= ChannelLimits.uri }.prefix(ChannelLimits.uris))) { $0.write($1) }
            writer.write(Array(subject.prefix(ChannelLimits.subject)))
            writer.write(UInt64(bitPattern: notAfter))
        case .preSharedKey(let identity):
            writer.write(Kind.preSharedKey.rawValue)
            writer.write(identity)
        }
        writer.write(version.rawValue)
        writer.write(cipher)
        writer.write(usesKernelTLS)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let kind: Kind = try reader.enumeration()
        let identity: Identity
        switch kind {
        case .nobody: identity = .nobody
        case .certificate:
            let fingerprint = try reader.byteString(limit: ChannelLimits.fingerprint)
            guard fingerprint.count == ChannelLimits.fingerprint else { throw .invalid }
            identity = .certificate(
                fingerprint: fingerprint,
                uris: try reader.list(limit: ChannelLimits.uris) { reader throws(ByteReaderError) in try reader.byteString(limit: ChannelLimits.uri) },
                subject: try reader.byteString(limit: ChannelLimits.subject), notAfter: Int64(bitPattern: try reader.uint64()))
        case .preSharedKey: identity = .preSharedKey(identity: try reader.byteString(limit: ChannelLimits.identity))
        }
        guard let version = Version(rawValue: try reader.string(limit: ChannelLimits.word)) else { throw .invalid }
        self.init(
            identity: identity, version: version, cipher: try reader.string(limit: ChannelLimits.word),
            usesKernelTLS: try reader.bool())
    }
}

extension ByteReader {
    mutating func signatureScheme() throws(ByteReaderError) -> SignatureScheme {
        guard let scheme = SignatureScheme(rawValue: try uint16()) else { throw .invalid }
        return scheme
    }
}

/// What a portal with TLS presents and accepts, as it passes the door: in parts, since lists of authorities and of revoked certificates
/// are longer than a message.
public enum MaterialParts {
    /// Bytes in all of one portal's: a list of some tens of thousands of revoked certificates.
    public static let most = 4 << 20
    /// Bytes of one part.
    static let size = 64 << 10

    /// The messages that tell of `material`; nil if it is too much.
    public static func messages(portal: UInt32, _ material: ServerMaterial) -> [LoginAnswerMessage]? {
        var writer = ByteWriter()
        material.encode(into: &writer)
        let bytes = writer.bytes
        guard bytes.count <= most else { return nil }
        return stride(from: 0, to: bytes.count, by: size).map { start in
            .secure(portal: portal, Array(bytes[start..<min(start + size, bytes.count)]), isLast: start + size >= bytes.count)
        }
    }

    /// Reads what all parts together are.
    public static func material(_ bytes: [UInt8]) throws(ByteReaderError) -> ServerMaterial {
        var reader = ByteReader(bytes)
        let material = try ServerMaterial(from: &reader)
        try reader.end()
        return material
    }
}

extension ServerMaterial {
    func encode(into writer: inout ByteWriter) {
        writer.write(certificates)
        writer.write(clientCA)
        writer.write(crl)
        writer.write(clientAuthentication.rawValue)
        writer.write(takesPreSharedKeys)
        writer.write(policy.rawValue)
    }

    init(from reader: inout ByteReader) throws(ByteReaderError) {
        let certificates = try reader.byteString(limit: MaterialParts.most)
        let clientCA = try reader.byteString(limit: MaterialParts.most)
        let crl = try reader.byteString(limit: MaterialParts.most)
        guard let authentication = ClientAuthentication(rawValue: try reader.string(limit: ChannelLimits.word)) else { throw .invalid }
        let takesPreSharedKeys = try reader.bool()
        guard let policy = TLSPolicy(rawValue: try reader.string(limit: ChannelLimits.word)) else { throw .invalid }
        self.init(
            certificates: certificates, clientCA: clientCA, crl: crl, clientAuthentication: authentication, takesPreSharedKeys: takesPreSharedKeys,
            policy: policy)
    }
}
