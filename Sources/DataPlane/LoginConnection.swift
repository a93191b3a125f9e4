import Bytes
import Door
import ISCSI
import Reactor
import TLS

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
        guard case .securing(.some) = stage, let handshakes = service.securePortals?.handshakes, let stream, let secure = stream.secure else { return }
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
