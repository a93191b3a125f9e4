import Administration
import Bytes
import Logging
import Management
import Reactor

/// Bounds of the management socket that nobody sets; the others are in `Limits`.
public enum ManagementLimits {
    /// Bytes of requests that have not been answered yet, of all connections together: a few of the longest transactions at once.
    public static let heldBytes = 64 << 20
    /// Of one request that is served in any case, once it is there: there are only so many connections.
    static let shortBytes = 64 << 10
}

extension ManagementRequest {
    /// Bytes of memory that it takes, about.
    /// - Parameter length: what it had on the wire
    fileprivate func weight(length: Int) -> Int {
        guard case .native(let request) = self, case .transaction(let requests) = request.content else { return length }
        return length + requests.count * MemoryLayout<AdminRequest>.stride
    }
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
    static func listen(_ path: String, _ access: SocketAccess) throws -> FileDescriptor {
        Files.remove(path)
        let socket = try Socket.listen(path: path)
        // Whoever comes before that is not let in.
        try Files.admit(to: path, mode: access.mode, group: access.group)
        return socket
    }
}

/// Who may connect to the management socket. Who may do what there is policy's.
public struct SocketAccess: Sendable, Equatable {
    public var mode: UInt32 = 0o666
    /// nil: the one that its directory gives it.
    public var group: UInt32?
    public init() {}
}

/// A request as it came over the management socket.
enum ManagementRequest {
    case tgt(TgtRequest)
    case native(NativeRequest)
}

/// Serves the management socket in tgt's protocol and in ours: one request and one answer a connection. Everybody has a deadline,
/// nobody waits for somebody else.
final class ManagementServer {
    /// Hands a request over; its answer comes later, once.
    typealias Submit = (ManagementRequest, Asker, @escaping (Answer) -> Void) -> Void
    /// Asks whether somebody may send what is more than just anybody may; whether he may hears who waits later, once: nil, or why not.
    typealias Announce = (NativeAnnouncement, Asker, @escaping (Answer?) -> Void) -> Void

    fileprivate let loop: EventLoop
    fileprivate let log: Logger
    fileprivate let submit: Submit
    fileprivate let announce: Announce
    fileprivate let complaints: Complaints
    fileprivate let limits: Limits
    private let descriptors: Int
    /// Called for a peer that is not even listened to.
    var onRefusedPeer: ((_ uid: UInt32?, _ reason: String) -> Void)?
    /// Called for one whose request could not be read.
    var onUnreadable: ((ConnectedPeer, _ reason: String) -> Void)?
    private var listener: Listener?
    private var connections: [ObjectIdentifier: ManagementConnection] = [:]
    private var perUser: [UInt32: Int] = [:]
    private var nextNumber: UInt64 = 0
    /// Of requests that have not been answered yet.
    fileprivate var heldBytes = 0

    /// - Parameter descriptors: its connections have numbers below this
    init(
        loop: EventLoop, listener descriptor: consuming FileDescriptor, limits: Limits, descriptors: Int, log: Logger, complaints: Complaints, announce: @escaping Announce,
        submit: @escaping Submit
    ) throws(SystemError) {
        self.complaints = complaints
        self.announce = announce
        self.loop = loop
        self.limits = limits
        self.descriptors = descriptors
        self.log = log
        self.submit = submit
        listener = try Listener(loop, descriptor) { [unowned self] connection, _ in
            accept(connection)
        } onTrouble: { error in
            log.warning("management requests wait: \(error)")
        }
    }

    private func accept(_ descriptor: consuming FileDescriptor) {
        let peer: ConnectedPeer
        do throws(SystemError) {
            guard descriptor.rawValue < descriptors else { throw .tooManyFiles }
            peer = try ConnectedPeer(of: descriptor.rawValue)
        } catch {
            guard error.isShortage else {
                onRefusedPeer?(nil, "it cannot be found out who it is: \(error)")
                return log.warning("a management connection is closed, for it cannot be found out who it is: \(error)")
            }
            // Whoever it is waits with those that are not accepted.
            listener?.rest(for: error)
            let number = descriptor.release()
            loop.after(nanoseconds: Socket.exhaustedPause) { [weak self] in
                let descriptor = FileDescriptor(owning: number)
                // A lower number may be free by now.
                if let other = try? descriptor.duplicate() { self?.accept(other) } else { self?.accept(descriptor) }
            }
            return
        }
        do {
            let (uid, pid) = (peer.credentials.uid, peer.credentials.pid)
            guard PeerLimits.isSomebody(uid) else {
                onRefusedPeer?(uid, "it is nobody's number")
                complaints.note(.warning, of: uid, "a management connection of nobody is closed", ["pid": "\(pid)"])
                return
            }
            guard makeRoom(for: uid) else {
                onRefusedPeer?(uid, "there are too many management connections")
                complaints.note(.warning, of: uid, "too many management connections at once: one is closed", ["pid": "\(pid)"])
                return
            }
            nextNumber += 1
            let connection = try ManagementConnection(descriptor, number: nextNumber, peer: peer, server: self)
            connections[ObjectIdentifier(connection)] = connection
            perUser[uid, default: 0] += 1
        } catch {
            onRefusedPeer?(peer.credentials.uid, "\(error)")
            log.warning("a management connection cannot be served: \(error)")
        }
    }

    /// At a limit, a connection that lets us wait for its request, else one that does not take its answer, goes for the new one: one of the user who
    /// has most connections, or most of those who have such a one. So who connects and idles keeps nobody out.
    /// What others have open keeps neither root out nor our own user.
    /// - Returns: false if there is none such
    private func makeRoom(for uid: UInt32) -> Bool {
        if perUser[uid, default: 0] >= limits.managementConnectionsPerUser, !closeIdlest(of: uid) { return false }
        guard connections.count >= limits.managementConnections else { return true }
        let users = perUser.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        return users.contains { closeIdlest(of: $0.key) } || PeerLimits.goesFirst(uid)
    }

    /// Closes the oldest connection of the user that has not sent its whole request, or else has not taken its whole answer.
    private func closeIdlest(of uid: UInt32) -> Bool {
        let idle = connections.values.filter { $0.peer.uid == uid && !$0.isExecuting }
            .min { ($0.isReading ? 0 : 1, $0.number) < ($1.isReading ? 0 : 1, $1.number) }
        guard let idle else { return false }
        complaints.note(.warning, of: uid, "an idle management connection makes room", ["pid": "\(idle.peer.pid)"])
        idle.giveUp("it made room for another one")
        return true
    }

    fileprivate func forget(_ connection: ManagementConnection) {
        guard connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        let left = perUser[connection.peer.uid, default: 1] - 1
        perUser[connection.peer.uid] = left == 0 ? nil : left
    }

    func close() {
        listener?.close()
        listener = nil
    }
}

/// One request and its answer.
private final class ManagementConnection: EventHandler {
    /// One that is `vetted` has announced what not everybody may send.
    private enum Stage { case reading, vetted, executing, answering }

    /// Rises with each connection.
    let number: UInt64
    let process: ConnectedPeer
    private unowned let server: ManagementServer
    private var descriptor: FileDescriptor?
    private var stage = Stage.reading
    private var decoder = ManagementDecoder(asksLeave: true)
    private var heldBytes = 0
    /// It has said hello: answers are in our protocol.
    private var isNative = false
    /// There is somebody who can be asked.
    private var converses = false
    /// While its request is executed, or whoever sends it is found out.
    private var asker: Asker?
    /// Bytes for the peer: a welcome, the answer.
    private var output: [UInt8] = []
    private var sent = 0
    private var deadline: TimerID?
    private var input = [UInt8](repeating: 0, count: 32 << 10)

    init(_ descriptor: consuming FileDescriptor, number: UInt64, peer: ConnectedPeer, server: ManagementServer) throws(SystemError) {
        self.number = number
        process = peer
        self.server = server
        let watched = descriptor.rawValue
        self.descriptor = consume descriptor
        try server.loop.add(watched, .readable, self)
        expire()
    }

    private func expire() {
        if let deadline { server.loop.cancel(deadline) }
        let patience = UInt64(server.limits.managementIdleSeconds) * 1_000_000_000
        deadline = server.loop.after(nanoseconds: patience) { [weak self] in self?.giveUp("it did not come whole in time") }
    }

    /// Nobody waits for it any more.
    func giveUp(_ reason: String) {
        if isReading, decoder.heldBytes > 0 { server.onUnreadable?(process, reason) }
        close()
    }

    /// Whether its request has not come yet.
    var isReading: Bool { if case .reading = stage { true } else { false } }

    /// Whether its answer is being found, which it cannot hurry. One that lets us wait for somebody who types could.
    var isExecuting: Bool {
        switch stage {
        case .reading, .answering: false
        case .vetted, .executing: asker?.isConversing != true
        }
    }

    var peer: PeerCredentials { process.credentials }

    func ready(_ events: Readiness) {
        switch stage {
        case .reading: read()
        case .vetted, .executing:
            // It has nothing more to say; if it is gone, its request is carried out all the same.
            if !events.isDisjoint(with: [.hangup, .error]) { close() }
        case .answering: write()
        }
    }

    private func read() {
        guard let number = descriptor.rawValue else { return }
        switch Socket.receive(number, into: &input, 0..<input.count) {
        case .wouldBlock: return
        case .closed: return close()
        case .received(let count):
            var events: [ManagementEvent] = []
            var failure: ManagementWireError?
            do throws(ManagementWireError) { try decoder.feed(input.span.extracting(0..<count), into: &events) } catch { failure = error }
            hold(failure == nil ? decoder.heldBytes : 0)
            take(events, failure)
        }
    }

    private func take(_ events: [ManagementEvent], _ failure: ManagementWireError?) {
        for event in events { take(event) }
        // What follows a request is not looked at, whether it has come with it or later.
        guard case .reading = stage else { return }
        if let failure { return refuse(failure) }
        if server.heldBytes > ManagementLimits.heldBytes { refuseForMemory() }
    }

    private func refuseForMemory() { refuse(.outOfMemory, "too many long requests at once; try again") }

    private func hold(_ bytes: Int) {
        server.heldBytes += bytes - heldBytes
        heldBytes = bytes
    }

    private func take(_ event: ManagementEvent) {
        guard case .reading = stage else { return }
        switch event {
        case .hello(let hello):
            isNative = true
            converses = hello.converses
            let welcome = NativeWelcome(answering: hello)
            output = welcome.encoded()
            // A peer that has just connected and cannot take sixteen bytes has shut its side.
            guard let number = descriptor.rawValue, case .done = Socket.send(number, output, from: &sent) else { return close() }
            if welcome.chosen == nil {
                server.complaints.note(.notice, of: peer.uid, "a management client speaks other versions", ["versions": "\(hello.versions)", "pid": "\(peer.pid)"])
                close()
            }
        case .announced(let announcement): announce(announcement)
        case .tgt(let request): execute(.tgt(request))
        case .native(let request): execute(.native(request))
        }
    }

    /// Not read on before it is known that whoever sends it may.
    private func announce(_ announcement: NativeAnnouncement) {
        guard let asker = pause(.vetted) else { return }
        server.announce(announcement, asker) { [self] refusal in
            self.asker = nil
            guard let number = descriptor.rawValue else { return }
            if let refusal { return give(refusal) }
            stage = .reading
            expire()
            do { try server.loop.modify(number, .readable) } catch { return close() }
            var events: [ManagementEvent] = []
            var failure: ManagementWireError?
            do throws(ManagementWireError) { try decoder.permit(into: &events) } catch { failure = error }
            take(events, failure)
        }
    }

    /// Nothing more is read for now.
    private func pause(_ stage: Stage) -> Asker? {
        guard let number = descriptor.rawValue else { return nil }
        self.stage = stage
        if let deadline { server.loop.cancel(deadline) }
        deadline = nil
        do { try server.loop.modify(number, []) } catch {
            close()
            return nil
        }
        let asker = Asker(process, conversation: converses ? number : nil)
        self.asker = asker
        return asker
    }

    private func refuse(_ error: ManagementWireError) {
        switch error {
        // A wrong length gets no answer, as with tgt: nobody knows where the request would end.
        case .tgt(.length), .tgt(.trailing), .native(.versions):
            server.complaints.note(.warning, of: peer.uid, "a management request is malformed: \(error)", ["pid": "\(peer.pid)"])
            server.onUnreadable?(process, "it is malformed: \(error)")
            close()
        case .tgt(let error): refuse(.invalidRequest, "it is malformed: \(error)")
        case .native(let error): refuse(.invalidRequest, error.description)
        }
    }

    private func refuse(_ error: TgtError, _ reason: String) {
        server.complaints.note(.warning, of: peer.uid, "a management request is refused: \(reason)", ["pid": "\(peer.pid)"])
        server.onUnreadable?(process, reason)
        give(.refusal(error, reason))
    }

    private func execute(_ request: ManagementRequest) {
        // Until its answer is there: it may wait for long, for who asks, or for a disk.
        hold(request.weight(length: decoder.taken))
        let isShort = heldBytes <= ManagementLimits.shortBytes, isAlone = heldBytes == server.heldBytes
        if server.heldBytes > ManagementLimits.heldBytes, !isShort, !isAlone, !PeerLimits.goesFirst(peer.uid) { return refuseForMemory() }
        guard let asker = pause(.executing) else { return hold(0) }
        server.submit(request, asker) { [self] answer in give(answer) }
    }

    private func give(_ answer: Answer) {
        hold(0)
        guard descriptor.rawValue != nil else { return }
        stage = .answering
        output = isNative ? answer.native.encoded() : answer.response.encoded()
        sent = 0
        expire()
        write()
    }

    private func write() {
        guard let number = descriptor.rawValue else { return }
        switch Socket.send(number, output, from: &sent) {
        case .done, .closed: close()
        case .wouldBlock: do { try server.loop.modify(number, .writable) } catch { close() }
        }
    }

    func close() {
        guard let descriptor = descriptor.take() else { return }
        // What is being carried out is still there.
        if case .executing = stage {} else { hold(0) }
        server.loop.remove(descriptor.rawValue)
        if let deadline { server.loop.cancel(deadline) }
        server.forget(self)
        asker?.isGone()
        asker = nil
    }
}

extension Answer {
    /// In our protocol.
    fileprivate var native: NativeAnswer {
        var answer = NativeAnswer(request: request, reason: reason ?? "", output: response.text)
        answer.error = response.error
        return answer
    }
}
