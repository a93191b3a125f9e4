import Bytes
import Door
import ISCSI
import Logging
import Reactor
import TLS

/// Bounds of logins: everything here is done for peers that nobody knows yet.
public enum NewcomerLimits {
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
    /// Bytes of the sentence that says why a TLS handshake has failed.
    static let reason = 512
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

/// Meets peers nobody knows yet: accepts on portals, speaks the login phase and discovery sessions, asks control, and gives what has
/// come through away. It holds no configuration and no secret.
///
/// It is all that the login process does, for clear portals; and a part of the data process, for portals with TLS, since a connection
/// with TLS cannot move from one process to another.
public final class LoginService {
    let loop: EventLoop
    let log: Logger
    private let options: LoginOptions
    let answers = BufferPool(budget: 1 << 40, cached: 1 << 20)
    private(set) var link: DoorLink<LoginAnswerMessage, LoginQuestionMessage>?
    private var listeners: [UInt32: Listener] = [:]
    /// nil: here is no TLS.
    let handshakes: Handshakes?
    private var questions: HandshakeQuestions?
    /// What portals with TLS present and accept, and the parts of what is on its way.
    private var contexts: [UInt32: ServerContext] = [:]
    private var parts: [UInt32: [UInt8]] = [:]
    /// Called when what a portal accepts is replaced: whoever has come through it before may not be trusted any more.
    var onReplacement: ((_ portal: UInt32, ServerContext) -> Void)?
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
    var input = [UInt8](repeating: 0, count: NewcomerLimits.receiveSize)

    /// - Parameter handshakes: nil for a process without TLS
    init(loop: EventLoop, door: consuming FileDescriptor, options: LoginOptions, handshakes: Handshakes? = nil, log: Logger) throws(SystemError) {
        self.loop = loop
        self.options = options
        self.handshakes = handshakes
        self.log = log
        link = try DoorLink(loop: loop, socket: door) { [unowned self] message, descriptors in
            handle(message, &descriptors)
        } onEnd: { [unowned self] reason in
            if case .closed = reason {} else { self.log.error("control is gone: \(reason)") }
            self.loop.stop()
        }
        if handshakes != nil { questions = HandshakeQuestions(here { $0.link?.send($1) }) }
    }

    /// Runs `work` on the loop's thread, from any other.
    func here<Value: Sendable>(_ work: @escaping @Sendable (LoginService, Value) -> Void) -> @Sendable (Value) -> Void {
        // It lives as long as its loop runs, and the mailbox delivers on the loop's thread only.
        nonisolated(unsafe) let service = self
        let mailbox = loop.mailbox
        return { value in mailbox.post { _ in work(unsafe service, value) } }
    }

    private func handle(_ message: LoginAnswerMessage, _ descriptors: inout ReceivedDescriptors) {
        switch message {
        case .listen(let portal):
            guard let descriptor = descriptors.take() else {
                return log.error("a portal cannot be served: this process may open no more descriptors")
            }
            listen(portal, descriptor)
        case .stopListening(let portal):
            listeners.removeValue(forKey: portal)?.close()
            contexts[portal] = nil
            for connection in Array(connections.values) where connection.portal == portal { connection.close(tellControl: true) }
        case .secure(let portal, let part, let isLast): secure(portal, part, isLast: isLast)
        case .signed(let id, let signature): questions?.answered(id, signature: signature)
        case .preSharedKey(let id, let key): questions?.answered(id, key: key)
        case .setOnline(let isOnline): self.isOnline = isOnline
        case .proceed(let id, let parameters, let tag, let authentication):
            connections[id]?.answer(.proceed(parameters: parameters, portalGroupTag: tag, authentication: authentication))
        case .authenticated(let id, let parameters, let proof): connections[id]?.answer(.authenticated(parameters: parameters, proof: proof))
        case .drop(let id): connections[id]?.close(tellControl: true)
        case .refuse(let id, let status): connections[id]?.answer(.refuse(status))
        case .turnAway(let refusal): turnAway(refusal, descriptors.take())
        case .targets(let id, let targets, let isLast): connections[id]?.discovered(targets, isLast: isLast)
        case .heartbeat(let count): link?.send(.heartbeat(count, refused: refused))
        case .keepOut(let source, let milliseconds): keepOut(source, for: UInt64(milliseconds) * 1_000_000)
        }
    }

    /// What a portal presents and accepts: from now on for whoever connects, and for whoever is connected as far as it is trusted.
    private func secure(_ portal: UInt32, _ part: [UInt8], isLast: Bool) {
        let bytes = parts.removeValue(forKey: portal).map { $0 + part } ?? part
        guard let questions, bytes.count <= MaterialParts.most else { return log.error("what a portal with TLS presents is too long, or not for this process") }
        guard isLast else { return parts[portal] = bytes }
        do {
            let context = try questions.context(portal: portal, try MaterialParts.material(bytes))
            contexts[portal] = context
            for connection in Array(connections.values) where connection.portal == portal && !connection.isStillTrusted(by: context) {
                connection.close(tellControl: true)
            }
            onReplacement?(portal, context)
        } catch {
            // Control has tried it before: it goes on with what there was.
            log.error("what a portal with TLS presents cannot be used: \(error)")
        }
    }

    /// A login has come to nothing at its last moment. A peer that does not read that misses it.
    private func turnAway(_ refusal: [UInt8], _ connection: consuming FileDescriptor?) {
        var sent = 0
        if let connection { _ = Socket.send(connection.rawValue, refusal, from: &sent) }
    }

    /// Whether what the peer of a connection has shown is what its portal accepts now.
    func trusts(_ stream: ByteStream) -> Bool { stream.portal.flatMap { contexts[$0] }.map(stream.isStillTrusted) ?? true }

    /// A session takes the place of a login on a connection that stays here. nil: it has gone.
    func take(_ id: ConnectionID) -> ByteStream? { connections[id]?.give() }

    /// Control remembers no more sources than this process has room for, and says each again that fails again.
    private func keepOut(_ source: Source, for nanoseconds: UInt64) {
        if keptOut.count >= NewcomerLimits.keptOut { keptOut = keptOut.filter { $0.value > loop.now } }
        guard keptOut.count < NewcomerLimits.keptOut || keptOut[source] != nil else { return }
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
                accept(connection, peer, portal)
            } onTrouble: { [log] error in
                log.warning("connections wait: \(error)")
            }
        } catch {
            log.error("a portal cannot be served: \(error)")
        }
    }

    private func accept(_ descriptor: consuming FileDescriptor, _ peer: SocketAddress?, _ portal: UInt32) {
        // As tgt: offline, connections are taken and closed at once.
        guard isOnline, let peer else { return }
        let source = Source(peer)
        guard !isKeptOut(source) else { return refused += 1 }
        guard crowd.count(of: source) < options.connectionsPerSource else { return }
        if crowd.count >= options.connections, let victim = crowd.victim { connections[victim]?.close(tellControl: true) }
        let id = ConnectionID(rawValue: nextConnection)
        nextConnection += 1
        do {
            let stream = if let context = contexts[portal] { ByteStream(descriptor, accepting: context, portal: portal) } else { ByteStream(descriptor) }
            let connection = try LoginConnection(id, stream, portal: portal, source: source, service: self)
            connections[id] = connection
            crowd.add(id, from: source)
            connection.begin()
        } catch {
            log.warning("a connection cannot be served: \(error)")
        }
    }

    /// The connection with this number, while it is here.
    func connection(_ id: ConnectionID) -> LoginConnection? { connections[id] }

    func sendTargets(_ id: ConnectionID, _ scope: TextRequest.Selection) { discoveries.append((id, scope)) }

    func forget(_ connection: LoginConnection) {
        guard connections.removeValue(forKey: connection.id) != nil else { return }
        crowd.remove(connection.id, from: connection.source)
    }
}

/// One connection in the login process, from accept until it is given away or closed.
final class LoginConnection: EventHandler, TurnHandler {
    private enum Stage {
        /// TLS is being agreed on, and waits for this; nil: a step of it is computed, and nobody here touches the stream.
        case securing(Readiness?)
        case login
        /// Negotiated, through TLS: control decides.
        case finishing(LoginOutcome)
        case discovery(DiscoverySession)
        /// Only what is left to send is sent.
        case leaving
        /// TLS has failed, and the peer has been told: what it still sends is not looked at.
        case draining
    }

    let id: ConnectionID
    let source: Source
    /// Its source, for the note of what is worked on.
    private let word: UInt64
    private unowned let service: LoginService
    let portal: UInt32
    /// What the peer has shown by TLS.
    private var peer: TLSPeer?
    /// nil once it is closed, or given away.
    private var stream: ByteStream?
    private var stage: Stage
    /// Of the login: in its place, so that what comes is taken without a copy of all that came before.
    private var machine = LoginMachine()
    private var output: OutputQueue
    private var interest: Readiness = .readable
    /// Whether input has come that is not taken yet. Few peers do that, so input stays watched until one does: each change of what is
    /// watched is a system call.
    private var isEarly = false
    private var unread: [UInt8] = []
    /// Whether it goes on at the end of the turn.
    private var isInLine = false
    private var hasSpoken = false
    private var deadline: TimerID?
    /// Whether control has been asked about it.
    private var isKnownToControl = false

    init(_ id: ConnectionID, _ stream: ByteStream, portal: UInt32, source: Source, service: LoginService) throws(SystemError) {
        self.id = id
        self.source = source
        self.portal = portal
        word = source.word
        self.service = service
        self.stream = stream
        stage = stream.secure == nil ? .login : .securing(.readable)
        output = OutputQueue(pool: service.answers)
        try service.loop.add(stream.number, .readable, self)
    }

    /// Its time runs from here.
    func begin() { expire(after: NewcomerLimits.loginTime) }

    private func expire(after nanoseconds: UInt64) {
        if let deadline { service.loop.cancel(deadline) }
        deadline = service.loop.after(nanoseconds: nanoseconds) { [weak self] in self?.expired() }
    }

    private func expired() {
        switch stage {
        case .login: report(.unfinished)
        case .securing: report(.timedOut)
        case .finishing, .discovery, .leaving, .draining: break
        }
        close(tellControl: true)
    }

    /// Tells control of what nobody else sees, showing it the connection.
    private func report(_ offence: LoginOffence) {
        guard let stream else { return }
        service.link?.send(.failed(offence), passing: stream.number)
    }

    /// The same of a handshake that has come to nothing.
    private func report(_ failure: TLSFailure) {
        guard let stream else { return }
        let reason = String("\(failure)".utf8.prefix(NewcomerLimits.reason)) ?? ""
        service.link?.send(.handshakeFailed(portal: portal, failure.cause, reason, from: source), passing: stream.number)
    }

    // MARK: TLS

    func isStillTrusted(by context: ServerContext) -> Bool {
        // One whose handshake is not over is held to what it began with, and looked at when it is over.
        if case .securing = stage { return true }
        return stream?.isStillTrusted(by: context) ?? true
    }

    /// The peer's next bytes are there: another step towards TLS, on another thread.
    private func secure() {
        guard case .securing(.some) = stage, let handshakes = service.handshakes, let stream, let secure = stream.secure else { return }
        stage = .securing(nil)
        watch()
        let id = id
        handshakes.step(stream, secure, for: word, service.here { $0.connection(id)?.computed($1) })
    }

    private func computed(_ step: HandshakeStep) {
        guard case .securing = stage, let stream else { return }
        Work.note(word)
        defer { Work.note(0) }
        switch step {
        case .wantsInput: stage = .securing(.readable)
        case .wantsOutput: stage = .securing(.writable)
        case .failed(let failure):
            // A peer that still sends would have the alert torn away by the reset of a connection that is closed with input unread.
            stage = .draining
            Socket.finishSending(stream.number)
            expire(after: NewcomerLimits.lastWords)
            report(failure)
        case .done(let peer):
            self.peer = peer
            stage = .login
            // What the portal accepts may have been replaced meanwhile.
            guard service.trusts(stream) else { return close(tellControl: true) }
            settle()
        }
        watch()
    }

    // MARK: Bytes

    func ready(_ events: Readiness) {
        // If this process crashes or hangs meanwhile, control knows over whose bytes.
        Work.note(word)
        defer { Work.note(0) }
        if case .securing(let waitsFor) = stage {
            guard waitsFor == nil else { return secure() }
            // The peer is gone, and has had us compute for nothing; without this the loop would be told for ever while a step is computed.
            guard !events.isDisjoint(with: [.hangup, .error]) else { return }
            report(.closed(nil))
            return close(tellControl: true)
        }
        if case .draining = stage { return drain() }
        if !takesInput { isEarly = true } else if !events.isDisjoint(with: [.readable, .hangup, .error]) { receive() }
        // Nothing can be sent any more, and what has come is not wanted now: without this the loop would be told for ever.
        if !events.isDisjoint(with: [.hangup, .error]), !takesInput { return close(tellControl: true) }
        settle()
    }

    private func drain() {
        guard let stream else { return }
        // In clear, for there is no TLS.
        switch Socket.receive(stream.number, into: &service.input, 0..<service.input.count) {
        case .received, .wouldBlock: return
        case .closed: close(tellControl: true)
        }
    }

    private func receive() {
        guard let stream, unread.isEmpty else { return }
        switch stream.receive(into: &service.input, 0..<service.input.count) {
        case .received(let count):
            let input = service.input
            let used = take(input.span.extracting(0..<count))
            if used < count { unread = Array(input[used..<count]) }
        case .wouldBlock: break
        case .closed: close(tellControl: true)
        }
    }

    /// Gives bytes to whoever speaks in this stage; how many it took.
    private func take(_ bytes: Span<UInt8>) -> Int {
        switch stage {
        case .login:
            if !hasSpoken, peer == nil, TLSHello.begins(bytes) {
                report(.tlsInClear)
                output.append(copying: TLSHello.alert.span)
                leave()
                return bytes.count
            }
            hasSpoken = true
            let used = machine.receive(bytes)
            proceed(isLast: used == bytes.count)
            return used
        case .discovery(let session):
            expire(after: NewcomerLimits.discoveryIdle)
            return session.receive(bytes)
        // Nothing may come before the answer to the last request; what comes is not looked at.
        case .finishing, .leaving, .securing, .draining: return bytes.count
        }
    }

    /// Does what the machine has come to.
    /// - Parameter isLast: whether nothing more has been received
    private func proceed(isLast: Bool) {
        output.append(copying: machine.takeOutput().span)
        switch machine.state {
        case .needsInput: break
        case .asks(let question): ask(.begin(id, question, LoginChannel(portal: portal, peer: peer)))
        case .proves(let answer): service.link?.send(.authenticate(id, answer))
        case .succeeded(let outcome):
            guard isLast else {
                // Nothing comes before the answer to the last request; and it would not be there for the session.
                report(.nonsense)
                output.append(copying: outcome.refusalBytes(.initiatorError).span)
                return leave()
            }
            finish(outcome)
        case .discovery(let outcome):
            output.append(copying: outcome.finalResponseBytes(tsih: 1).span)
            stage = .discovery(DiscoverySession(outcome, answers: service.answers))
            machine = LoginMachine()
            expire(after: NewcomerLimits.discoveryIdle)
        // Control itself has refused it, or it has sent what no initiator sends.
        case .failed(let status):
            if status == .initiatorError { report(.nonsense) }
            leave()
        case .closed:
            report(.nonsense)
            leave()
        }
    }

    /// Negotiated: control decides. A connection in clear is given up with the question.
    private func finish(_ outcome: LoginOutcome) {
        guard peer == nil else {
            stage = .finishing(outcome)
            machine = LoginMachine()
            return ask(.finish(id, outcome))
        }
        // What was said before comes before what is said by whoever goes on.
        send()
        guard output.isEmpty, let descriptor = letGo()?.give() else { return close(tellControl: true) }
        service.link?.send(.finish(id, outcome), giving: descriptor)
    }

    /// Asks control, showing it the connection.
    private func ask(_ question: LoginQuestionMessage) {
        guard let stream else { return }
        isKnownToControl = true
        service.link?.send(question, passing: stream.number)
    }

    private func settle() {
        drainDiscovery()
        while takesInput, !unread.isEmpty {
            let used = take(unread.span)
            unread.removeFirst(used)
            drainDiscovery()
            if used == 0 { break }
        }
        send()
        if case .leaving = stage, output.isEmpty { return close(tellControl: true) }
        // Epoll does not tell of input that has left the socket; the others have their turn before it.
        if let stream, takesInput, unread.isEmpty, stream.holdsInput, !isInLine {
            isInLine = true
            service.loop.whenTurnEnds(self)
        }
        watch()
    }

    /// The others have had their turn.
    func endOfTurn() {
        isInLine = false
        guard stream != nil, takesInput else { return }
        Work.note(word)
        defer { Work.note(0) }
        receive()
        settle()
    }

    private var takesInput: Bool {
        switch stage {
        case .login: machine.needsInput
        case .finishing, .securing: false
        case .draining: true
        case .discovery(let session): session.wantsInput && output.byteCount < NewcomerLimits.unsent
        case .leaving: false
        }
    }

    private func send() {
        guard let stream, !output.isEmpty else { return }
        if case .closed = stream.send(&output) { close(tellControl: true) }
    }

    private func watch() {
        guard let stream else { return }
        if takesInput { isEarly = false }
        var wanted: Readiness = isEarly ? [] : .readable
        if case .securing(let waitsFor) = stage { wanted = waitsFor ?? [] }
        if !output.isEmpty { wanted.insert(.writable) }
        guard wanted != interest else { return }
        interest = wanted
        do { try service.loop.modify(stream.number, wanted) } catch { close(tellControl: true) }
    }

    /// Sends what there is to send, then closes.
    private func leave() {
        stage = .leaving
        expire(after: NewcomerLimits.lastWords)
    }

    func close(tellControl: Bool) {
        guard let stream = letGo() else { return }
        // A step of its handshake that is computed holds it until it is over.
        if case .securing(nil) = stage {} else { stream.close() }
        if tellControl, isKnownToControl { service.link?.send(.gone(id)) }
    }

    /// Gives the stream to the session that its login has come to.
    func give() -> ByteStream? {
        guard case .finishing = stage else { return nil }
        return letGo()
    }

    private func letGo() -> ByteStream? {
        guard let stream else { return nil }
        service.loop.remove(stream.number)
        if let deadline { service.loop.cancel(deadline) }
        self.stream = nil
        service.forget(self)
        return stream
    }

    // MARK: What control says

    func answer(_ answer: LoginAnswer) {
        // What it has sent before goes on.
        Work.note(word)
        defer { Work.note(0) }
        switch stage {
        case .login:
            guard machine.expects(answer) else { return }
            machine.answer(answer)
            proceed(isLast: unread.isEmpty)
        case .finishing(let outcome):
            guard case .refuse(let status) = answer else { return }
            output.append(copying: outcome.refusalBytes(status).span)
            leave()
        case .discovery:
            // The rules have changed.
            guard case .refuse = answer else { return }
            leave()
        case .leaving, .securing, .draining: return
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
        if let scope = session.takeQuestion() { service.sendTargets(id, scope) }
        if session.isOver { leave() }
    }
}

/// What TLS looks like to whoever does not speak it.
private enum TLSHello {
    /// Whether this is the beginning of a handshake (RFC 8446 §5.1): no Login Request is, whose opcode is 0x43.
    static func begins(_ bytes: Span<UInt8>) -> Bool { bytes.count >= 2 && bytes[0] == 22 && bytes[1] == 3 }
    /// A fatal `unexpected_message` (RFC 8446 §6), for whoever tells its user what it was told.
    static let alert: [UInt8] = [21, 3, 3, 0, 2, 2, 10]
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
        engine = FullFeature(outcome, answers: answers)
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
