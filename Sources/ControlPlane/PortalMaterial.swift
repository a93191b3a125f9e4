import Access
import Bytes
import Crypto
import ISCSI
import Model

/// Why a portal cannot work with its files: which file, and what kind of trouble. It says nothing of what is in them.
package struct PortalFileError: Error, Hashable, Sendable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
    init(_ path: TrustedPath, _ reason: String) { description = "\(path): \(reason)" }
}

/// A file of a portal with TLS.
struct PortalFile: Sendable {
    let path: TrustedPath
    let kind: Kind

    enum Kind: CaseIterable, Sendable {
        case certificate, key, clientCA, revocations, clientMap, preSharedKeys

        /// Whether only root and our user may read it.
        var isPrivate: Bool { self == .key || self == .preSharedKeys }

        /// Bytes. Certificates and lists of them are handed to the process that serves the portal; lines are for so many initiators.
        var limit: Int {
            switch self {
            case .key: 16 << 10
            case .certificate: 64 << 10
            case .clientCA: 256 << 10
            case .revocations: 1 << 20
            case .clientMap, .preSharedKeys: 8 << 20
            }
        }

        func path(in portal: PortalTLS) -> TrustedPath? {
            switch self {
            case .certificate: portal.certificate
            case .key: portal.key
            case .clientCA: portal.clientCA
            case .revocations: portal.revocations
            case .clientMap: portal.clientMap
            case .preSharedKeys: portal.preSharedKeys
            }
        }
    }

    static func all(of portal: PortalTLS) -> [PortalFile] { Kind.allCases.compactMap { kind in kind.path(in: portal).map { PortalFile(path: $0, kind: kind) } } }
}

/// What a portal with TLS works with, as its files said when they were last read: they go together, or none of them counts. Private keys
/// and pre-shared keys stay in control.
package struct PortalMaterial: Sendable {
    /// The portal's own, and those between it and its authority. nil: it lives on pre-shared keys alone.
    package let certificates: CertificateChain?
    /// That of the first certificate.
    package let key: SigningKey?
    package let clientCA: CertificateChain?
    package let revocations: RevocationLists?
    package let preSharedKeys: PreSharedKeys?
    package let clientAuthentication: PortalTLS.ClientAuthentication
    package let policy: PortalTLS.Policy
    private let clientMap: ClientMap
    /// What will not be believed any more from some time on.
    let expiries: [Expiry]

    /// - Parameter contents: of each file
    package init(_ portal: PortalTLS, contents: (TrustedPath) -> Secret) throws(PortalFileError) {
        func read<Value, E: Error & CustomStringConvertible>(_ path: TrustedPath?, _ parse: (Secret) throws(E) -> Value) throws(PortalFileError) -> Value? {
            guard let path else { return nil }
            do throws(E) { return try parse(contents(path)) } catch { throw PortalFileError(path, error.description) }
        }
        certificates = try read(portal.certificate) { file throws(CertificateError) in try CertificateChain(pem: file) }
        key = try read(portal.key) { file throws(KeyError) in try SigningKey(pem: file) }
        clientCA = try read(portal.clientCA) { file throws(CertificateError) in try CertificateChain(pem: file) }
        revocations = try read(portal.revocations) { file throws(CertificateError) in try RevocationLists(pem: file) }
        preSharedKeys = try read(portal.preSharedKeys) { file throws(LineTrouble) in try PreSharedKeys(parsing: file) }
        clientMap = try read(portal.clientMap) { file throws(LineTrouble) in try file.withBytes { bytes throws(LineTrouble) in try ClientMap(parsing: bytes) } } ?? ClientMap()
        clientAuthentication = portal.clientAuthentication
        policy = portal.policy
        if let key, let certificates, let path = portal.key, !certificates.matches(key) {
            throw PortalFileError(path, "is not the key of the first certificate in \(portal.certificate?.text ?? "")")
        }
        var expiries: [Expiry] = []
        if let path = portal.certificate, let end = certificates?.expires { expiries.append(Expiry(path: path, kind: .certificate, time: end)) }
        if let path = portal.clientCA, let end = clientCA?.expires { expiries.append(Expiry(path: path, kind: .certificate, time: end)) }
        if let path = portal.revocations, let end = revocations?.nextUpdate { expiries.append(Expiry(path: path, kind: .revocations, time: end)) }
        self.expiries = expiries
    }

    /// When the first of the portal's certificates ends, in seconds since 1970.
    var certificateExpires: Int64? { certificates?.expires }

    // MARK: Who is there

    /// What a finished handshake has shown of whoever has connected.
    package enum Shown: Hashable, Sendable {
        case nothing
        /// A certificate that the portal's authorities stand for.
        /// - Parameters:
        ///   - fingerprint: SHA-256
        ///   - uris: its alternative names of the form URI
        case certificate(fingerprint: [UInt8], uris: [[UInt8]])
        /// Knowledge of this identity's key.
        case preSharedKey(identity: [UInt8])
    }

    /// Whom that proves it to be. Also for sessions that live, after files have been replaced.
    package func channel(_ shown: Shown) -> Channel {
        guard clientAuthentication != .none else { return .tls(.anybody) }
        switch shown {
        case .nothing: return .tls(clientAuthentication == .optional ? .anybody : .stranger)
        case .certificate(let fingerprint, let uris): return .tls((clientMap[fingerprint] ?? Self.initiator(uris)).map { .initiator($0) } ?? .stranger)
        case .preSharedKey(let identity): return .tls(preSharedKeys?[identity].map { .initiator($0.initiator) } ?? .stranger)
        }
    }

    private static let scheme = Array("iscsi:".utf8)

    /// The one initiator that these name, as `iscsi:<name>`; nil: none, or more than one.
    private static func initiator(_ uris: [[UInt8]]) -> ISCSIName? {
        let names = uris.filter { $0.prefix(scheme.count).elementsEqual(scheme) { $0 | 0x20 == $1 | 0x20 } }.map { try? ISCSIName($0.dropFirst(scheme.count)) }
        guard let first = names.first, names.allSatisfy({ $0 == first }) else { return nil }
        return first
    }
}

extension CertificateChain {
    /// When the first of them ends.
    fileprivate var expires: Int64? { certificates.map(\.notAfter).min() }
}
