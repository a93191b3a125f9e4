import Administration
import Bytes
import Logging
import Management
import Reactor

/// Bounds of the management socket.
public enum ManagementLimits {
    /// Connections in all, and of one user: scripts of one administrator, with room for others.
    public static let connections = 256
    public static let connectionsPerUser = 64
    /// Nanoseconds from accept until the whole request has come, and from the answer until the whole of it has been taken.
    public static let patience: UInt64 = 10_000_000_000
}

/// Where the management socket is, and who holds it.
enum ManagementSocket {
    /// tgt's name for a control port: `<base>.<port>`.
    static func path(base: String?, controlPort: Int) -> String { "\(base ?? "/var/run/tgtd/socket").\(controlPort)" }

    /// Takes the lock beside the socket. It is a record lock, as tgt's is, so that either keeps the other out: it goes when the
    /// process closes any descriptor of the file, and so there is to be only this one.
    static func lock(_ path: String) throws -> FileDescriptor {
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex { try Files.makeDirectory(String(path[..<slash]), mode: 0o755) }
        guard let lock = try Files.lock(path + ".lock") else { throw StartError("another tgtd is using \(path).lock") }
        return lock
    }

    /// Removes what an earlier daemon left, and listens. For the holder of the lock.
    static func listen(_ path: String) throws(SystemError) -> FileDescriptor {
        Files.remove(path)
        return try Socket.listen(path: path)
    }
}

/// Serves tgt's management protocol: one request and one answer a connection. Everybody has a deadline, nobody waits for
/// somebody else.
final class ManagementServer {
    /// Hands a request over; its answer comes later, once. `true` with it: the daemon ends.
    typealias Submit = (TgtRequest, PeerCredentials, @escaping (Answer) -> Void) -> Void

    fileprivate let loop: EventLoop
    fileprivate let log: Logger
    fileprivate let submit: Submit
    private var listener: Listener?
    private var connections: [ObjectIdentifier: ManagementConnection] = [:]
    private var perUser: [UInt32: Int] = [:]
    /// How many there have been.
    private var accepted: UInt64 = 0

    init(loop: EventLoop, listener descriptor: consuming FileDescriptor, log: Logger, submit: @escaping Submit) throws(SystemError) {
        self.loop = loop
        self.log = log
        self.submit = submit
        listener = try Listener(loop, descriptor) { [unowned self] connection, _ in
            accept(connection)
        } onTrouble: { error in
            log.warning("management requests wait: \(error)")
        }
    }

    private func accept(_ descriptor: consuming FileDescriptor) {
        do {
            let peer = try Socket.peerCredentials(descriptor.rawValue)
            // Until there is a policy, control's own user administers, and nobody else.
            guard peer.uid == Identity.current.uid else {
                log.warning("a management request of another user is refused", metadata: ["uid": "\(peer.uid)", "pid": "\(peer.pid)"])
                return
            }
            guard makeRoom(for: peer) else {
                log.warning("too many management requests at once: one is refused", metadata: ["uid": "\(peer.uid)", "pid": "\(peer.pid)"])
                return
            }
            accepted += 1
            let connection = try ManagementConnection(descriptor, peer: peer, number: accepted, server: self)
            connections[ObjectIdentifier(connection)] = connection
            perUser[peer.uid, default: 0] += 1
        } catch {
            log.warning("a management connection cannot be served: \(error)")
        }
    }

    /// Whether there is room for one more connection. At the limit, the oldest that has kept its request back makes room, else
    /// the oldest that does not take its answer: who idles keeps nobody out who has something to ask.
    private func makeRoom(for peer: PeerCredentials) -> Bool {
        let isFull = connections.count >= ManagementLimits.connections
        guard isFull || perUser[peer.uid, default: 0] >= ManagementLimits.connectionsPerUser else { return true }
        let idle = connections.values.filter { !$0.isExecuting && (isFull || $0.peer.uid == peer.uid) }
            .min { ($0.isReading ? 0 : 1, $0.number) < ($1.isReading ? 0 : 1, $1.number) }
        guard let idle else { return false }
        log.debug("an idle management connection makes room", metadata: ["uid": "\(idle.peer.uid)", "pid": "\(idle.peer.pid)"])
        idle.close()
        return true
    }

    fileprivate func forget(_ connection: ManagementConnection) {
        guard connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        let left = perUser[connection.peer.uid, default: 1] - 1
        perUser[connection.peer.uid] = left == 0 ? nil : left
    }

    /// Whether answers are still on their way.
    var isIdle: Bool { connections.isEmpty }

    func close() {
        listener?.close()
        listener = nil
    }
}

/// One request and its answer.
private final class ManagementConnection: EventHandler {
    private enum Stage { case reading(TgtRequestDecoder), executing, answering }

    let peer: PeerCredentials
    /// Connections are numbered as they come.
    let number: UInt64
    private unowned let server: ManagementServer
    private var descriptor: FileDescriptor?
    private var stage = Stage.reading(TgtRequestDecoder())
    private var answer: [UInt8] = []
    private var sent = 0
    private var deadline: TimerID?
    private var input = [UInt8](repeating: 0, count: 16 << 10)

    init(_ descriptor: consuming FileDescriptor, peer: PeerCredentials, number: UInt64, server: ManagementServer) throws(SystemError) {
        self.peer = peer
        self.number = number
        self.server = server
        let rawValue = descriptor.rawValue
        self.descriptor = consume descriptor
        try server.loop.add(rawValue, .readable, self)
        expire()
    }

    /// Whether its request is not whole yet.
    var isReading: Bool { if case .reading = stage { true } else { false } }

    /// Whether its answer is being found, which nobody can hurry.
    var isExecuting: Bool { if case .executing = stage { true } else { false } }

    private func expire() {
        if let deadline { server.loop.cancel(deadline) }
        deadline = server.loop.after(nanoseconds: ManagementLimits.patience) { [weak self] in self?.close() }
    }

    func ready(_ events: Readiness) {
        switch stage {
        case .reading: read()
        case .executing:
            // It has nothing more to say; if it is gone, its request is carried out all the same.
            if !events.isDisjoint(with: [.hangup, .error]) { close() }
        case .answering: write()
        }
    }

    private func read() {
        guard let number = descriptor.rawValue, case .reading(var decoder) = stage else { return }
        switch Socket.receive(number, into: &input, 0..<input.count) {
        case .wouldBlock: return
        case .closed: return close()
        case .received(let count):
            do throws(TgtWireError) {
                let request = try decoder.feed(input.span.extracting(0..<count))
                stage = .reading(decoder)
                if let request { execute(request) }
            } catch {
                refuse(error)
            }
        }
    }

    /// A wrong length gets no answer, as with tgt: nobody knows where the request would end.
    private func refuse(_ error: TgtWireError) {
        server.log.warning("a management request is malformed: \(error)", metadata: ["uid": "\(peer.uid)", "pid": "\(peer.pid)"])
        switch error {
        case .length, .trailing: close()
        case .field, .driverName, .text: give(.refusal(.invalidRequest, "it is malformed"))
        }
    }

    private func execute(_ request: TgtRequest) {
        guard let number = descriptor.rawValue else { return }
        stage = .executing
        if let deadline { server.loop.cancel(deadline) }
        deadline = nil
        do { try server.loop.modify(number, []) } catch { return close() }
        server.submit(request, peer) { [self] answer in give(answer) }
    }

    private func give(_ answer: Answer) {
        guard descriptor.rawValue != nil else { return }
        stage = .answering
        self.answer = answer.response.encoded()
        expire()
        write()
    }

    private func write() {
        guard let number = descriptor.rawValue else { return }
        switch Socket.send(number, answer, from: &sent) {
        case .done, .closed: close()
        case .wouldBlock: do { try server.loop.modify(number, .writable) } catch { close() }
        }
    }

    func close() {
        guard let descriptor = descriptor.take() else { return }
        server.loop.remove(descriptor.rawValue)
        if let deadline { server.loop.cancel(deadline) }
        server.forget(self)
    }
}
