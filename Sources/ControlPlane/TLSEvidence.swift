import Access
import Administration
import Bytes
import Door
import Logging
import Model
import Reactor
import TLS

/// What whoever has connected through a portal with TLS has shown: what that means may change while it is connected.
package struct TLSEvidence: Hashable, Sendable {
    /// The portal's number.
    let portal: UInt32
    let shown: PortalMaterial.Shown
    private let version: String
    private let cipher: String
    private let isByKernel: Bool
    /// Version and cipher suite, for people.
    var protection: String { "\(version) \(cipher)\(isByKernel ? " (kernel)" : "")" }

    init(portal: UInt32, peer: TLSPeer) {
        self.portal = portal
        (version, cipher, isByKernel) = (peer.version.rawValue, escaped(peer.cipher.utf8), peer.usesKernelTLS)
        shown =
            switch peer.identity {
            case .nobody: .nothing
            case .certificate(let fingerprint, let uris, _, _): .certificate(fingerprint: fingerprint, uris: uris)
            case .preSharedKey(let identity): .preSharedKey(identity: identity)
            }
    }

    /// For reports.
    /// - Parameter channel: what it means
    func report(_ channel: Channel) -> RuntimeView.Protection {
        let shown: RuntimeView.Protection.Shown =
            switch shown {
            case .nothing: .nothing
            case .certificate(let fingerprint, _): .certificate(fingerprint: fingerprint)
            case .preSharedKey(let identity): .preSharedKey(identity: identity)
            }
        return RuntimeView.Protection(version: version, cipher: cipher, isByKernel: isByKernel, shown: shown, provenName: channel.provenName)
    }
}

extension PortalMaterial {
    /// What the process that serves the portal needs of it: nothing that is secret.
    var server: ServerMaterial {
        ServerMaterial(
            certificates: certificates?.pem ?? [], clientCA: clientCA?.pem ?? [], crl: revocations?.pem ?? [], clientAuthentication: authentication,
            takesPreSharedKeys: preSharedKeys != nil, policy: TLSPolicy(rawValue: policy.rawValue) ?? .strict)
    }

    private var authentication: ClientAuthentication { ClientAuthentication(rawValue: clientAuthentication.rawValue) ?? .required }
}

/// Says of TLS handshakes that came to nothing why: each reason once for each source and portal in a while.
struct FailedHandshakes {
    /// Nanoseconds in which a reason is logged once.
    private static let interval: UInt64 = 600_000_000_000
    /// Reasons of one cause that are logged in that time: OpenSSL has fewer. They are text from the process that was spoken to, which may be
    /// somebody's who wants the log to be full.
    private static let mostReasons = 16
    /// Causes that are remembered. When there are more, it begins anew.
    private static let most = 4096

    private struct Cause: Hashable {
        let source: Source
        let portal: PortalAddress?
        let kind: TLSFailure.Cause
    }

    private struct Window {
        let since: UInt64
        /// Hashes of what has been said.
        var reasons: Set<Int> = []
        /// Those of which nothing was said.
        var suppressed: UInt64 = 0
    }

    private let log: Logger
    private var causes: [Cause: Window] = [:]

    init(log: Logger) { self.log = log }

    /// One more.
    /// - Parameters:
    ///   - peer: nil: it is gone
    ///   - source: where it came from then
    mutating func note(_ peer: SocketAddress?, _ source: Source, _ portal: PortalAddress?, _ kind: TLSFailure.Cause, _ reason: String, at now: UInt64) {
        let cause = Cause(source: peer.map { Source($0) } ?? source, portal: portal, kind: kind)
        let earlier = causes[cause]
        var window = Window(since: now)
        if let earlier, now < earlier.since + Self.interval {
            window = earlier
        } else if causes.count >= Self.most {
            causes = [:]
        }
        let isNew = window.reasons.count < Self.mostReasons && window.reasons.insert(reason.hashValue).inserted
        if !isNew { window.suppressed += 1 }
        causes[cause] = window
        guard isNew else { return }
        var metadata: Logger.Metadata = ["address": "\(peer.map { "\($0)" } ?? "\(source), gone")", "portal": "\(portal.map { "\($0)" } ?? "closed")"]
        if let earlier, earlier.since != window.since, earlier.suppressed > 0 { metadata["suppressed"] = "\(earlier.suppressed)" }
        log.notice("a TLS handshake has failed: \(escaped(reason.utf8))", metadata: metadata)
    }
}
