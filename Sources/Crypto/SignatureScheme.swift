/// How a TLS handshake is signed (RFC 8446 §4.2.3); the number on the wire.
public enum SignatureScheme: UInt16, CaseIterable, Sendable {
    /// In TLS 1.3 with P-256 only; in TLS 1.2 with any curve (RFC 8446 §4.2.3).
    case ecdsaSHA256 = 0x0403
    /// In TLS 1.3 with P-384 only.
    case ecdsaSHA384 = 0x0503
    case ed25519 = 0x0807

    /// OpenSSL's name of the digest; Ed25519 has its own inside.
    var digestName: String? {
        switch self {
        case .ecdsaSHA256: "SHA256"
        case .ecdsaSHA384: "SHA384"
        case .ed25519: nil
        }
    }
}

/// What a TLS server's key signs, and nothing else: whoever keeps the key for a process that may be taken over asks this first.
public enum ServerHandshake {
    /// Whether `message` has the form of what a server signs in TLS 1.3: 64 spaces, the context string, a zero byte, the hash of the
    /// handshake so far by SHA-256 or SHA-384 (RFC 8446 §4.4.3).
    public static func isCertificateVerify(_ message: [UInt8]) -> Bool {
        message.starts(with: certificateVerifyStart) && [32, 48].contains(message.count - certificateVerifyStart.count)
    }

    /// Whether `message` has the form of what a server that also speaks TLS 1.3 signs in TLS 1.2: the client's random, its own, which says
    /// so in its last eight bytes (RFC 8446 §4.1.3), and the public key of a named curve (RFC 8422 §5.4).
    public static func isServerKeyExchange(_ message: [UInt8]) -> Bool {
        guard message.count > randoms + 4, message[..<randoms].suffix(downgrade.count).elementsEqual(downgrade) else { return false }
        let parameters = message[randoms...]
        // ECCurveType named_curve; the group (RFC 8446 §4.2.7); the point's length; the point.
        guard let length = pointLengths[UInt16(parameters[randoms + 1]) << 8 | UInt16(parameters[randoms + 2])] else { return false }
        return parameters[randoms] == 3 && parameters[randoms + 3] == length && parameters.count == 4 + Int(length)
    }

    private static let certificateVerifyStart = [UInt8](repeating: 0x20, count: 64) + Array("TLS 1.3, server CertificateVerify".utf8) + [0]
    private static let downgrade = Array("DOWNGRD".utf8) + [1]
    /// Bytes of the two random values.
    private static let randoms = 64
    /// secp256r1, secp384r1, x25519.
    private static let pointLengths: [UInt16: UInt8] = [23: 65, 24: 97, 29: 32]
}
