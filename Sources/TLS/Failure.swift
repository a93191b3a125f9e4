import Bytes
import Crypto
import Reactor

/// Why a context cannot be made.
public enum TLSError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Neither a certificate nor pre-shared keys.
    case noCredentials
    /// Clients are to prove who they are, and there is nothing to verify that with.
    case noAuthority
    /// The certificates, the authorities or the revocation lists cannot be read.
    case certificate(CertificateError)
    case authority(CertificateError)
    case revocationList(CertificateError)
    /// The certificate's key is neither ECDSA P-256 or P-384 nor Ed25519.
    case unsupportedKey
    /// A pin that is no SHA-256, or a name that is neither a DNS name nor an address.
    case badExpectation
    /// OpenSSL refused this call.
    case library(String)

    public var description: String {
        switch self {
        case .noCredentials: "there is neither a certificate nor a pre-shared key"
        case .noAuthority: "clients are to be authenticated, but there is neither a client CA nor a pre-shared key"
        case .certificate(let error): "certificate: \(error)"
        case .authority(let error): "CA: \(error)"
        case .revocationList(let error): "CRL: \(error)"
        case .unsupportedKey: "the certificate's key is of a kind that is not supported: only ECDSA P-256, ECDSA P-384 and Ed25519 are"
        case .badExpectation: "what is expected of the server is neither a name nor a SHA-256"
        case .library(let call): "OpenSSL refuses \(call)"
        }
    }
}

/// Why a handshake failed, or why a connection broke. Its text is fit for a log: what the other side sent is escaped.
public enum TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The first byte is no TLS handshake's: an initiator without TLS, most likely.
    case notTLS
    /// The other side went away, or the network did.
    case closed(SystemError?)
    /// It speaks no version that the policy allows.
    case version
    /// No cipher, group or signature scheme in common.
    case nothingInCommon
    /// The other side proves nothing about itself, and must.
    case noIdentity
    /// Its certificate is not believed.
    case certificate(CertificateProblem)
    /// It offers a pre-shared key that nobody knows.
    case unknownPreSharedKey(identity: [UInt8])
    /// It offers a known identity with another key.
    case wrongPreSharedKey(identity: [UInt8])
    /// The owner of the private key did not sign.
    case notSigned
    /// The owner of the connection has waited long enough.
    case timedOut
    /// The other side gave up and says why (RFC 8446 §6.2).
    case alert(UInt8)
    /// The other side asks that we take a fresh key (RFC 8446 §4.6.3), and the kernel encrypts (kTLS), which cannot.
    case kernelKeepsKey
    /// It breaks the rules of TLS: OpenSSL's reason.
    case protocolError(String)

    public enum CertificateProblem: Hashable, Sendable {
        case expired, notYetValid, unknownAuthority, revoked, noRevocationList, revocationListExpired, wrongName, wrongPin
        /// OpenSSL's words for it.
        case other(String)
    }

    public var description: String {
        switch self {
        case .notTLS: "not a TLS connection"
        case .closed(let error): error.map { "the connection broke: \($0)" } ?? "the other side closed the connection"
        case .version: "the other side speaks no version of TLS that the policy allows"
        case .nothingInCommon: "no cipher, group or signature scheme in common"
        case .noIdentity: "the other side shows neither a certificate nor a pre-shared key"
        case .certificate(let problem): "the other side's certificate is refused: \(problem)"
        case .unknownPreSharedKey(let identity): "pre-shared key with an unknown identity \"\(escaped(identity))\""
        case .wrongPreSharedKey(let identity): "wrong pre-shared key for the identity \"\(escaped(identity))\""
        case .notSigned: "the private key's owner did not sign"
        case .timedOut: "it was not over in time"
        case .alert(let number): "the other side refused: \(Self.alerts[number] ?? "alert \(number)")"
        case .kernelKeepsKey: "the other side asks for a fresh key, which the kernel, who encrypts for us, cannot take; it may connect again"
        case .protocolError(let reason): "not valid TLS: \(reason)"
        }
    }

    /// Kinds of failures, by which they are counted; the names are for people and their programs.
    public enum Cause: String, CaseIterable, Sendable {
        case notTLS, closed, timedOut, version, nothingInCommon, noIdentity, certificate, preSharedKey, notSigned, alert
        case protocolError = "protocol"
    }

    public var cause: Cause {
        switch self {
        case .notTLS: .notTLS
        case .closed: .closed
        case .version: .version
        case .nothingInCommon: .nothingInCommon
        case .noIdentity: .noIdentity
        case .certificate: .certificate
        case .unknownPreSharedKey, .wrongPreSharedKey: .preSharedKey
        case .notSigned: .notSigned
        case .timedOut: .timedOut
        case .alert: .alert
        // Not in a handshake, of which alone there is a count.
        case .kernelKeepsKey, .protocolError: .protocolError
        }
    }

    /// RFC 8446 §6.
    private static let alerts: [UInt8: String] = [
        10: "unexpected message", 20: "bad record", 40: "handshake failure", 42: "bad certificate", 43: "unsupported certificate",
        44: "certificate revoked", 45: "certificate expired", 46: "certificate not accepted", 47: "illegal parameter",
        48: "unknown certificate authority", 49: "access denied", 50: "decoding error", 51: "decryption error", 70: "protocol version",
        71: "insufficient security", 80: "internal error", 90: "cancelled", 109: "missing extension", 112: "unrecognised name",
        115: "unknown pre-shared key identity", 116: "certificate required", 120: "no application protocol",
    ]
}

extension TLSFailure.CertificateProblem: CustomStringConvertible {
    public var description: String {
        switch self {
        case .expired: "it has expired"
        case .notYetValid: "it is not valid yet"
        case .unknownAuthority: "no trusted authority has signed it"
        case .revoked: "it is revoked"
        case .noRevocationList: "there is no revocation list of its authority"
        case .revocationListExpired: "the revocation list of its authority has expired"
        case .wrongName: "it is for another name"
        case .wrongPin: "it is not the pinned one"
        case .other(let reason): reason
        }
    }
}
