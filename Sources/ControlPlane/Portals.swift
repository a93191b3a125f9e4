import Administration
import Bytes
import Crypto
import Logging
import Model
import Reactor
import TLS

/// A portal that is open: its socket listens as long as we live, so that connections wait while another process is started again.
final class OpenPortal {
    /// Given once.
    let number: UInt32
    let descriptor: FileDescriptor
    fileprivate(set) var portal: Portal
    /// What it works with if it has TLS; nil until its files have been read.
    fileprivate(set) var material: PortalMaterial?
    /// TLS handshakes that came to nothing since it is open, for `show`.
    var failedHandshakes: [TLSFailure.Cause: UInt64] = [:]

    fileprivate var isServable: Bool { portal.tls == nil || material != nil }

    fileprivate init(_ number: UInt32, _ descriptor: consuming FileDescriptor, _ portal: Portal) {
        self.number = number
        self.descriptor = descriptor
        self.portal = portal
    }
}

/// Opens portals, and reads the files of those with TLS: all of a portal's files are right, or it goes on with those that it has.
final class Portals {
    /// Nanoseconds between two looks at what ends.
    private static let expiryInterval: UInt64 = 3600 * 1_000_000_000

    private let loop: EventLoop
    private let openings: StoreOpenings
    private let log: Logger
    private var open: [PortalAddress: OpenPortal] = [:]
    private var lastNumber: UInt32 = 0
    /// Read for a portal that is not configured so yet.
    private var read: [Portal: PortalMaterial] = [:]
    private var watch = ExpiryWatch()

    /// Called for each that is to be served from now on, and again when it has other material.
    var onServe: (OpenPortal) -> Void = { _ in }
    var onClose: (OpenPortal) -> Void = { _ in }

    init(loop: EventLoop, openings: StoreOpenings, log: Logger) {
        self.loop = loop
        self.openings = openings
        self.log = log
    }

    var all: [OpenPortal] { open.values.sorted { $0.number < $1.number } }
    /// Those that can be served: one with TLS has read its files.
    var served: [OpenPortal] { all.filter(\.isServable) }
    func portal(number: UInt32) -> OpenPortal? { open.values.first { $0.number == number } }

    // MARK: Sockets

    /// Listens; the answer has the real port.
    func listen(_ portal: Portal) throws(SystemError) -> Portal {
        // Its connections are as it is: nobody has to tell each of them.
        let descriptor = try Socket.listen(on: portal.endpoint.socketAddress) { listener throws(SystemError) in
            try Socket.setNoDelay(listener)
            try Socket.setKeepAlive(listener)
        }
        let real = try Socket.localAddress(descriptor.rawValue).map { portal.listening(on: $0.port) } ?? portal
        lastNumber += 1
        let opened = OpenPortal(lastNumber, descriptor, real)
        open[real.endpoint] = opened
        if opened.isServable { onServe(opened) }
        return real
    }

    func close(_ endpoint: PortalAddress) {
        guard let closed = open.removeValue(forKey: endpoint) else { return }
        onClose(closed)
    }

    // MARK: Making and changing them

    /// Reads its files, if it has any, and listens. Calls `whenDone` once, with the real port.
    func make(_ portal: Portal, _ whenDone: @escaping (Result<Portal, PortalFileError>) -> Void) {
        files(of: portal) { [unowned self] result in
            do {
                let material = try result.get()
                let real = try listen(portal)
                read[real] = material
                whenDone(.success(real))
            } catch {
                whenDone(.failure(error as? PortalFileError ?? PortalFileError("\(error)")))
            }
        }
    }

    /// Reads the files of one that is configured, perhaps otherwise until now, and opens it if that has failed before.
    /// - Parameter whenDone: called once, with what is wrong
    func renew(_ portal: Portal, _ whenDone: @escaping (PortalFileError?) -> Void) {
        files(of: portal) { [unowned self] result in
            do {
                let material = try result.get()
                if open[portal.endpoint] == nil { _ = try listen(portal) }
                read[portal] = material
                whenDone(nil)
            } catch {
                whenDone(error as? PortalFileError ?? PortalFileError("\(error)"))
            }
        }
    }

    /// It is configured: from now on it works with what was read for it.
    func adopt(_ portal: Portal) {
        let material = read.removeValue(forKey: portal)
        guard let opened = open[portal.endpoint] else { return }
        opened.portal = portal
        guard let material else { return }
        opened.material = material
        onServe(opened)
        warn()
    }

    /// It is not configured so after all.
    func forget(_ portal: Portal) { read[portal] = nil }

    /// The effect is over, and whoever wanted it has taken what has come of it.
    func forget(_ effect: Effect, _ outcome: EffectOutcome) {
        if case .listening(let portal) = outcome { forget(portal) }
        if case .renewPortal(let portal) = effect { forget(portal) }
    }

    /// What is wrong with the files of a portal.
    typealias Trouble = (portal: Portal, error: PortalFileError)

    /// Reads the files of those with TLS anew.
    /// - Parameters:
    ///   - isTogether: all are right, or nothing changes
    ///   - whenDone: called once, with what is wrong
    func renewAll(isTogether: Bool, _ whenDone: @escaping ([Trouble]) -> Void) {
        let portals = all.filter { $0.portal.tls != nil }.map(\.portal)
        var troubles: [Trouble] = []
        let rest = Countdown { [unowned self] in
            for portal in portals {
                // One that has been changed or closed meanwhile has its own.
                if troubles.isEmpty || !isTogether, open[portal.endpoint]?.portal == portal { adopt(portal) } else { forget(portal) }
            }
            whenDone(troubles)
        }
        for portal in portals {
            renew(portal) { error in
                if let error { troubles.append((portal, error)) }
                rest.keepAlive()
            }
        }
    }

    // MARK: Files

    /// Opens and reads the files of a portal; nil: it has none.
    private func files(of portal: Portal, _ whenDone: @escaping (Result<PortalMaterial?, PortalFileError>) -> Void) {
        guard let tls = portal.tls else { return whenDone(.success(nil)) }
        var contents: [TrustedPath: Secret] = [:]
        var trouble: PortalFileError?
        let rest = Countdown {
            do throws(PortalFileError) {
                if let trouble { throw trouble }
                let material = try PortalMaterial(tls) { contents[$0] ?? Secret([]) }
                whenDone(.success(material))
            } catch {
                whenDone(.failure(error))
            }
        }
        for file in PortalFile.all(of: tls) {
            openings.open(file.path, isPrivate: file.kind.isPrivate, limit: file.kind.limit) { result in
                do {
                    contents[file.path] = try Self.contents(of: try result.get(), file)
                } catch {
                    trouble = trouble ?? (error as? PortalFileError ?? PortalFileError(file.path, (error as? StoreOpenings.OpeningError)?.reason ?? "\(error)"))
                }
                rest.keepAlive()
            }
        }
    }

    private static func contents(of held: HeldFile, _ file: PortalFile) throws(PortalFileError) -> Secret {
        let limit = file.kind.limit
        let contents: Secret
        do throws(SystemError) {
            // One byte more than it may have.
            contents = try Secret.filled(room: limit + 1) { room throws(SystemError) in try Files.read(held.descriptor.rawValue, into: &room) }
        } catch {
            throw PortalFileError(file.path, SystemError.text(of: error.code))
        }
        guard contents.count <= limit else { throw PortalFileError(file.path, "is larger than \(limit) bytes") }
        return contents
    }

    // MARK: What ends

    /// Looks from time to time at what will not be believed any more.
    func watchExpiries() {
        warn()
        loop.after(nanoseconds: Self.expiryInterval) { [weak self] in self?.watchExpiries() }
    }

    private func warn() {
        for (expiry, daysLeft) in watch.due(all.flatMap { $0.material?.expiries ?? [] }, at: Host.secondsSince1970) {
            log.warning("\(expiry.text(daysLeft: daysLeft))", metadata: ["path": "\(expiry.path)"])
        }
    }

    /// For `show`: how these are.
    func conditions(of portals: [Portal]) -> [PortalAddress: RuntimeView.PortalCondition] {
        Dictionary(portals.map { portal in
            var condition = RuntimeView.PortalCondition()
            let opened = open[portal.endpoint]
            condition.isOpen = opened != nil
            condition.certificateExpires = opened?.material?.certificateExpires
            condition.failedHandshakes = TLSFailure.Cause.allCases.map { ($0.rawValue, opened?.failedHandshakes[$0] ?? 0) }
            return (portal.endpoint, condition)
        }) { first, _ in first }
    }
}

extension PortalAddress {
    var socketAddress: SocketAddress {
        guard let address = SocketAddress(bytes: address.bytes, port: port) else { preconditionFailure("a portal's address has 4 or 16 bytes") }
        return address
    }
}
