import Bytes
import Crypto
import Reactor
import TLS

/// A connection to a TLS portal.
final class SecureStream: Stream {
    private let connection: SecureConnection

    init(_ context: ClientContext, descriptor: Int32) { connection = SecureConnection(connecting: context, descriptor: descriptor) }

    func greet() -> Greeting {
        switch connection.handshake() {
        case .done(let peer): .done("\(peer.version.rawValue), \(peer.cipher)\(peer.usesKernelTLS ? ", encrypted by the kernel" : "")")
        case .wantsInput: .wantsInput
        case .wantsOutput: .wantsOutput
        case .failed(let failure): .failed(failure.description)
        }
    }

    func receive(into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult { connection.receive(into: buffer, range) }
    func send(_ queue: inout OutputQueue) -> SendResult { connection.send(&queue) }
    func finish() { connection.finish() }
    var isDrained: Bool { connection.isDrained }

    var complaint: String? {
        switch connection.failure {
        case nil, .closed: nil
        case let failure?: failure.description
        }
    }
}

/// A portal's settings and files do not go together.
struct PortalError: Error, CustomStringConvertible {
    let description: String
}

extension PortalFiles {
    /// Whom to believe and what to show, as one portal's settings say.
    /// - Parameter settings: those that these files are of
    func context(_ settings: PortalSettings) throws -> ClientContext {
        try ClientContext(try trust(settings), identity: try identity(settings), policy: settings.policy)
    }

    private func trust(_ settings: PortalSettings) throws -> ServerTrust {
        if let ca { return .authority(ca: try Self.chain(ca, settings.ca).pem, crl: try crl.map { try Self.revocations($0, settings.crl).pem } ?? [], name: settings.expectedName) }
        if let pin { return .pinnedKey(Digest.sha256.hash(try Self.chain(pin, settings.pin).leaf.publicKey)) }
        return .preSharedKey
    }

    private func identity(_ settings: PortalSettings) throws -> ClientIdentity {
        if let preSharedKey { return .preSharedKey(identity: preSharedKey.identity, key: preSharedKey.key) }
        guard let certificate else { return .nobody }
        let chain = try Self.chain(certificate.chain, settings.certificate)
        let key: SigningKey
        do { key = try SigningKey(pem: certificate.key) } catch { throw PortalError(description: "\(settings.key ?? ""): \(error)") }
        guard chain.matches(key) else { throw PortalError(description: "\(settings.key ?? "") is not the key of \(settings.certificate ?? "")") }
        return .certificate(chain.pem) { scheme, message in try? key.sign(message, by: scheme) }
    }

    private static func chain(_ pem: Secret, _ path: String?) throws -> CertificateChain {
        do { return try CertificateChain(pem: pem) } catch { throw PortalError(description: "\(path ?? ""): \(error)") }
    }

    private static func revocations(_ pem: Secret, _ path: String?) throws -> RevocationLists {
        do { return try RevocationLists(pem: pem) } catch { throw PortalError(description: "\(path ?? ""): \(error)") }
    }
}
