import Bytes
import Door
import ISCSI
import Logging
import Reactor

/// Bounds of the login process: everything in it is done for peers that nobody knows yet.
public enum LoginProcessLimits {
    /// Nanoseconds from accept to the end of login, whatever the peer does. Initiators give up on their own after 15 s.
    public static let loginTime: UInt64 = 15_000_000_000
    /// Nanoseconds that a discovery session may be silent; then it is closed. Discovery takes a moment.
    public static let discoveryIdle: UInt64 = 60_000_000_000
    /// Nanoseconds to send what is left before a connection is closed.
    public static let lastWords: UInt64 = 2_000_000_000
    /// Bytes taken from a connection at a time; a Login Request has at most 8240.
    public static let receiveSize = 16 << 10
    /// Sources that are kept out at once: as many as control remembers.
    public static let keptOut = 65_536
    /// Bytes of discovery answers that may wait to be sent before nothing more is read from the connection.
    public static let unsent = 256 << 10
}

/// How a login process is set up.
public struct LoginOptions: Sendable {
    /// Connections in all. At the limit the oldest one of the source that holds most goes first, so that newcomers from quiet
    /// sources get in.
    public var connections: Int
    /// Connections from one IPv4 address or IPv6 /64.
    public var connectionsPerSource: Int

    public init(connections: Int, connectionsPerSource: Int) {
        self.connections = connections
        self.connectionsPerSource = connectionsPerSource
    }
}

/// The process that meets peers nobody knows yet: accepts on clear portals, speaks the login phase and discovery sessions, asks
/// control, and gives what has come through away. It holds no configuration and no secret.
public final class LoginProcess {
    let loop: EventLoop
    let log: Logger
    private let options: LoginOptions
    let answers = BufferPool(budget: 1 << 40, cached: 1 << 20)
    private(set) var link: DoorLink<LoginAnswerMessage, LoginQuestionMessage>?
    private var listeners: [UInt32: Listener] = [:]
    private var connections: [ConnectionID: LoginConnection] = [:]
    private var crowd = Crowd()
    /// Sources from which nothing is accepted, until when.
    private var keptOut: [Source: UInt64] = [:]
    /// Connections that were not accepted because of that.
    private var refused: UInt64 = 0
    /// Discovery sessions whose initiator wants to know its targets: each asks one thing at a time.
    private lazy var discoveries = PacedQueue<(ConnectionID, TextRequest.Selection)>(loop: loop) { [unowned self] id, scope in
        // It may have gone while it waited, and control has been told.
        if connections[id] != nil { link?.send(.sendTargets(id, scope)) }
    }
    private var nextConnection: UInt64 = 1
    private var isOnline = true
    var input = [UInt8](repeating: 0, count: LoginProcessLimits.receiveSize)

    public init(loop: EventLoop, door: consuming FileDescriptor, options: LoginOptions, log: Logger) throws(SystemError) {
        self.loop = loop
        self.options = options
        self.log = log
        Work.takePlace(0)
        link = try DoorLink(loop: loop, socket: door) { [unowned self] message, descriptors in
            handle(message, &descriptors)
        } onEnd: { [unowned self] reason in
            if case .closed = reason {} else { self.log.error("control is gone: \(reason)") }
            self.loop.stop()
        }
    }

    private func handle(_ message: LoginAnswerMessage, _ descriptors: inout ReceivedDescriptors) {
        switch message {
        case .listen(let portal):
            guard let descriptor = descriptors.take() else {
                return log.error("a portal cannot be served: this process may open no more descriptors")
            }
            listen(portal, descriptor)
        case .stopListening(let portal): listeners.removeValue(forKey: portal)?.close()
        case .setOnline(let isOnline): self.isOnline = isOnline
        case .proceed(let id, let parameters, let tag, let authentication):
            connections[id]?.answer(.proceed(parameters: parameters, portalGroupTag: tag, authentication: authentication))
        case .authenticated(let id, let parameters, let proof): connections[id]?.answer(.authenticated(parameters: parameters, proof: proof))
        case .drop(let id): connections[id]?.close(tellControl: true)
        case .refuse(let id, let status): connections[id]?.answer(.refuse(status))
        case .granted(let id): connections[id]?.close(tellControl: false)
        case .targets(let id, let targets, let isLast): connections[id]?.discovered(targets, isLast: isLast)
        case .heartbeat(let count): link?.send(.heartbeat(count, refused: refused))
        case .keepOut(let source, let milliseconds): keepOut(source, for: UInt64(milliseconds) * 1_000_000)
        }
    }

    /// Control remembers no more sources than this process has room for, and says each again that fails again.
    private func keepOut(_ source: Source, for nanoseconds: UInt64) {
        if keptOut.count >= LoginProcessLimits.keptOut { keptOut = keptOut.filter { $0.value > loop.now } }
        guard keptOut.count < LoginProcessLimits.keptOut || keptOut[source] != nil else { return }
        keptOut[source] = loop.now + nanoseconds
    }

    private func isKeptOut(_ source: Source) -> Bool {
        guard !keptOut.isEmpty else { return false }
        return [source, source.site].compactMap(\.self).contains { source in
            guard let end = keptOut[source] else { return false }
            if end <= loop.now { keptOut[source] = nil }
            return end > loop.now
        }
    }

    private func listen(_ portal: UInt32, _ descriptor: consuming FileDescriptor) {
        do {
            listeners[portal] = try Listener(loop, descriptor) { [unowned self] connection, peer in
                accept(connection, peer)
            } onTrouble: { [log] error in
                log.warning("connections wait: \(error)")
            }
        } catch {
            log.error("a portal cannot be served: \(error)")
        }
    }

    private func accept(_ descriptor: consuming FileDescriptor, _ peer: SocketAddress?) {
        // As tgt: offline, connections are taken and closed at once.
        guard isOnline, let peer else { return }
        let source = Source(peer)
        guard !isKeptOut(source) else { return refused += 1 }
        guard crowd.count(of: source) < options.connectionsPerSource else { return }
        if crowd.count >= options.connections, let victim = crowd.victim { connections[victim]?.close(tellControl: true) }
        try? Socket.setNoDelay(descriptor.rawValue)
        try? Socket.setKeepAlive(descriptor.rawValue, idle: 60, interval: 20, count: 3)
        let id = ConnectionID(rawValue: nextConnection)
        nextConnection += 1
        do {
            connections[id] = try LoginConnection(id, descriptor, source: source, process: self)
            crowd.add(id, from: source)
        } catch {
            log.warning("a connection cannot be watched: \(error)")
        }
    }

    func sendTargets(_ id: ConnectionID, _ scope: TextRequest.Selection) { discoveries.append((id, scope)) }

    func forget(_ connection: LoginConnection) {
        guard connections.removeValue(forKey: connection.id) != nil else { return }
        crowd.remove(connection.id, from: connection.source)
    }
}

/// One connection in the login process, from accept until it is given away or closed.
final class LoginConnection: EventHandler {
    private enum Stage {
        case login(LoginMachine)
        /// Negotiated: control decides.
        case finishing(LoginOutcome)
        case discovery(DiscoverySession)
        /// Only what is left to send is sent.
        case leaving
    }

    let id: ConnectionID
    let source: Source
    /// Its source, for the note of what is worked on.
    private let word: UInt64
    private unowned let process: LoginProcess
    private var connection: FileDescriptor?
    private var stage = Stage.login(LoginMachine())
    private var output: OutputQueue
    private var interest: Readiness = .readable
    private var unread: [UInt8] = []
    private var deadline: TimerID?
    /// Whether control has been asked about it.
    private var isKnownToControl = false

    init(_ id: ConnectionID, _ descriptor: consuming FileDescriptor, source: Source, process: LoginProcess) throws(SystemError) {
        self.id = id
        self.source = source
        word = source.word
        self.process = process
        output = OutputQueue(pool: process.answers)
        let number = descriptor.rawValue
        connection = consume descriptor
        try process.loop.add(number, .readable, self)
        expire(after: LoginProcessLimits.loginTime)
    }

    private func expire(after nanoseconds: UInt64) {
        if let deadline { process.loop.cancel(deadline) }
        deadline = process.loop.after(nanoseconds: nanoseconds) { [weak self] in self?.expired() }
    }

    private func expired() {
        if case .login = stage { report(.unfinished) }
        close(tellControl: true)
    }

    /// Tells control of what nobody else sees, showing it the connection.
    private func report(_ offence: LoginOffence) {
        guard let number = connection.rawValue else { return }
        process.link?.send(.failed(offence), passing: number)
    }

    // MARK: Bytes

    func ready(_ events: Readiness) {
        // If this process crashes or hangs meanwhile, control knows over whose bytes.
        Work.note(word)
        defer { Work.note(0) }
        if !events.isDisjoint(with: [.readable, .hangup, .error]) { receive() }
        // Nothing can be sent any more, and what has come is not wanted now: without this the loop would be told for ever.
        if !events.isDisjoint(with: [.hangup, .error]), !takesInput { return close(tellControl: true) }
        settle()
    }

    private func receive() {
        guard let number = connection.rawValue, unread.isEmpty else { return }
        switch Socket.receive(number, into: &process.input, 0..<process.input.count) {
        case .received(let count):
            let input = process.input
            let used = take(input.span.extracting(0..<count))
            if used < count { unread = Array(input[used..<count]) }
        case .wouldBlock: break
        case .closed: close(tellControl: true)
        }
    }

    /// Gives bytes to whoever speaks in this stage; how many it took.
    private func take(_ bytes: Span<UInt8>) -> Int {
        switch stage {
        case .login(var machine):
            let used = machine.receive(bytes)
            proceed(machine)
            return used
        case .discovery(let session):
            expire(after: LoginProcessLimits.discoveryIdle)
            return session.receive(bytes)
        // Nothing may come before the answer to the last request; what comes is not looked at.
        case .finishing, .leaving: return bytes.count
        }
    }

    private func proceed(_ machine: LoginMachine) {
        var machine = machine
        output.append(copying: machine.takeOutput().span)
        stage = .login(machine)
        switch machine.state {
        case .needsInput: break
        case .asks(let question): ask(.begin(id, question))
        case .proves(let answer): process.link?.send(.authenticate(id, answer))
        case .succeeded(let outcome):
            stage = .finishing(outcome)
            ask(.finish(id, outcome))
        case .discovery(let outcome):
            output.append(copying: outcome.finalResponseBytes(tsih: 1).span)
            stage = .discovery(DiscoverySession(outcome, answers: process.answers))
            expire(after: LoginProcessLimits.discoveryIdle)
        // Control itself has refused it, or it has sent what no initiator sends.
        case .failed(let status):
            if status == .initiatorError { report(.nonsense) }
            leave()
        case .closed:
            report(.nonsense)
            leave()
        }
    }

    /// Asks control, showing it the connection.
    private func ask(_ question: LoginQuestionMessage) {
        guard let number = connection.rawValue else { return }
        isKnownToControl = true
        process.link?.send(question, passing: number)
    }

    private func settle() {
        drainDiscovery()
        while connection.rawValue != nil, !unread.isEmpty, takesInput {
            let before = unread.count
            let used = take(unread.span)
            unread.removeFirst(used)
            drainDiscovery()
            if unread.count == before { break }
        }
        send()
        if case .leaving = stage, output.isEmpty { return close(tellControl: true) }
        watch()
    }

    private var takesInput: Bool {
        switch stage {
        case .login(let machine): machine.state == .needsInput
        case .finishing: false
        case .discovery(let session): session.wantsInput && output.byteCount < LoginProcessLimits.unsent
        case .leaving: false
        }
    }

    private func send() {
        guard let number = connection.rawValue, !output.isEmpty else { return }
        if case .closed = Socket.send(number, &output) { close(tellControl: true) }
    }

    private func watch() {
        guard let number = connection.rawValue else { return }
        var wanted: Readiness = takesInput ? .readable : []
        if !output.isEmpty { wanted.insert(.writable) }
        guard wanted != interest else { return }
        interest = wanted
        do { try process.loop.modify(number, wanted) } catch { close(tellControl: true) }
    }

    /// Sends what there is to send, then closes.
    private func leave() {
        stage = .leaving
        expire(after: LoginProcessLimits.lastWords)
    }

    func close(tellControl: Bool) {
        guard let descriptor = connection.take() else { return }
        process.loop.remove(descriptor.rawValue)
        if let deadline { process.loop.cancel(deadline) }
        if tellControl, isKnownToControl { process.link?.send(.gone(id)) }
        process.forget(self)
    }

    // MARK: What control says

    func answer(_ answer: LoginAnswer) {
        // What it has sent before goes on.
        Work.note(word)
        defer { Work.note(0) }
        switch stage {
        case .login(var machine):
            guard machine.expects(answer) else { return }
            machine.answer(answer)
            proceed(machine)
        case .finishing(let outcome):
            guard case .refuse(let status) = answer else { return }
            output.append(copying: outcome.refusalBytes(status).span)
            leave()
        case .discovery:
            // The rules have changed.
            guard case .refuse = answer else { return }
            leave()
        case .leaving: return
        }
        settle()
    }

    func discovered(_ targets: [DiscoveredTarget], isLast: Bool) {
        guard case .discovery(let session) = stage else { return }
        Work.note(word)
        defer { Work.note(0) }
        session.discovered(targets, isLast: isLast)
        settle()
    }

    private func drainDiscovery() {
        guard case .discovery(let session) = stage else { return }
        session.moveOutput(to: &output)
        if let scope = session.takeQuestion() { process.sendTargets(id, scope) }
        if session.isOver { leave() }
    }
}

/// A discovery session (RFC 7143 §4.3): SendTargets, NOP and Logout, nothing else.
final class DiscoverySession {
    /// Targets in one answer. A tenant's initiator sees its own; whoever sees more than this gets the first ones.
    static let mostTargets = 16384

    private var engine: FullFeature
    private var asked: TextRequest?
    private var question: TextRequest.Selection?
    private var targets: [DiscoveredTarget] = []
    private(set) var isOver = false

    init(_ outcome: LoginOutcome, answers: BufferPool) {
        engine = FullFeature(
            outcome.negotiated, sessionType: .discovery, cid: outcome.identity.cid, expCmdSN: outcome.expCmdSN, statSN: outcome.statSN,
            answers: answers)
    }

    /// One question at a time.
    var wantsInput: Bool { asked == nil && !isOver }

    func receive(_ input: Span<UInt8>) -> Int {
        var offset = 0
        while wantsInput {
            switch engine.next(input, &offset) {
            case .needsInput: return offset
            case .sendTargets(let request):
                asked = request
                question = request.selection
            case .logout(let request):
                engine.answer(request, response: 0)
                isOver = true
            case .fail, .command, .dataOutComplete, .dataOutFailed, .taskManagement: isOver = true
            }
        }
        return offset
    }

    func takeQuestion() -> TextRequest.Selection? {
        defer { question = nil }
        return question
    }

    func discovered(_ more: [DiscoveredTarget], isLast: Bool) {
        guard let asked else { return }
        targets += more.prefix(Self.mostTargets - targets.count)
        guard isLast else { return }
        engine.sendTargets(asked, targets)
        self.asked = nil
        targets = []
    }

    func moveOutput(to output: inout OutputQueue) {
        for segment in engine.output.segments { output.append(segment.buffer, segment.range) }
        engine.output.consume(engine.output.byteCount)
    }
}
