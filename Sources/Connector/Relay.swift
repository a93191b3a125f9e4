import Bytes
import Reactor

/// An initiator's clear connection and the secure one to the portal that is made for it alone: what comes from one goes to the other.
///
/// In each direction there is one buffer, and nothing is received while it waits to be sent: who is slow slows the other side down, and an
/// idle pair holds no memory. When one side has said its last, the other is told, and may go on.
final class Relay: TurnHandler {
    /// Bytes carried at once in one direction: some TLS records, so that a system call carries more than one.
    static let bufferSize = 128 << 10
    /// Buffers of one direction that are carried before others have their turn.
    private static let buffersPerTurn = 8
    /// Nanoseconds until the secure connection has to stand, unless it is told otherwise. Initiators wait 15 s for an answer to their login.
    static let patience: UInt64 = 10_000_000_000
    /// Nanoseconds that one side may be silent when the other has said its last.
    static let lastWords: UInt64 = 60_000_000_000

    enum Ending {
        /// The secure connection did not come to stand, and why.
        case unreachable(String)
        /// The portal ended it before it let anything through, or said what is wrong.
        case refused(String)
        /// As connections end.
        case over
    }

    private let loop: EventLoop
    private let pool: BufferPool
    private let secure: (Int32) -> any Stream
    private let onSpeech: (String) -> Void
    private let onEnd: (Relay, Ending) -> Void
    private let patience: UInt64
    private var addresses: ArraySlice<SocketAddress>
    private let near: End
    private var far: End?
    private var stage = Stage.connecting
    private var timer: TimerID?
    private var isQueuedForTurn = false
    /// What the secure connection is, until the portal has begun to speak.
    private var greeting: String?
    private var portalLeftFirst = false

    private enum Stage { case connecting, greeting, carrying, ended }

    /// - Parameters:
    ///   - connection: the initiator's
    ///   - addresses: the portal's, at least one, in the order in which they are tried
    ///   - pool: has two buffers of `bufferSize` for each relay
    ///   - secure: makes the secure stream of a connection to the portal
    ///   - onSpeech: called once, with what the secure connection is, when the portal's first bytes come
    ///   - onEnd: called once, at the end
    init(
        _ loop: EventLoop, _ connection: consuming FileDescriptor, to addresses: [SocketAddress], pool: BufferPool, patience: UInt64,
        secure: @escaping (Int32) -> any Stream, onSpeech: @escaping (String) -> Void, onEnd: @escaping (Relay, Ending) -> Void
    ) {
        self.loop = loop
        self.pool = pool
        self.secure = secure
        self.onSpeech = onSpeech
        self.onEnd = onEnd
        self.addresses = addresses[...]
        self.patience = patience
        near = End(connection, pool: pool)
    }

    /// Connects to the portal. What the initiator sends meanwhile waits in its socket.
    func begin() {
        do throws(SystemError) {
            near.relay = self
            near.stream = ClearStream(near.descriptor.rawValue)
            try near.watch(loop, [])
        } catch { return end(.unreachable("\(error)")) }
        timer = loop.after(nanoseconds: patience) { [unowned self] in end(.unreachable("it does not answer in time")) }
        connect(after: nil)
    }

    /// Ends it from here.
    func close() {
        takeLeave()
        end(.over)
    }

    /// Tells the portal that nothing more comes, as far as that can be done now.
    private func takeLeave() {
        if stage == .carrying, !near.isFinished { far?.stream.finish() }
    }

    // MARK: Coming to stand

    private func connect(after trouble: String?) {
        far?.ignore(loop)
        far = nil
        guard let address = addresses.popFirst() else { return end(.unreachable(trouble ?? "it has no address")) }
        do throws(SystemError) {
            let end = End(try Socket.connect(to: address), pool: pool)
            try? Socket.setNoDelay(end.descriptor.rawValue)
            try? Socket.setKeepAlive(end.descriptor.rawValue)
            try? Socket.spreadKeepAlive(end.descriptor.rawValue, UInt16(truncatingIfNeeded: end.descriptor.rawValue))
            end.relay = self
            try end.watch(loop, .writable)
            far = end
        } catch { connect(after: "\(error)") }
    }

    fileprivate func ready(_ end: End, _ events: Readiness) {
        switch stage {
        case .connecting where end === far:
            if let error = Socket.takeError(end.descriptor.rawValue) { return connect(after: "\(SystemError("connect", error.code))") }
            end.stream = secure(end.descriptor.rawValue)
            stage = .greeting
            greet(end)
        case .greeting where end === far: greet(end)
        // The initiator has gone, or its connection has failed: nothing else is asked about it yet.
        case .connecting, .greeting: self.end(.over)
        case .carrying:
            end.note(events)
            carry()
        case .ended: break
        }
    }

    private func greet(_ far: End) {
        do throws(SystemError) {
            switch far.stream.greet() {
            case .done(let how):
                if let timer { loop.cancel(timer) }
                timer = nil
                stage = .carrying
                greeting = how
                carry()
            case .wantsInput: try far.watch(loop, .readable)
            case .wantsOutput: try far.watch(loop, .writable)
            case .failed(let reason): end(.unreachable(reason))
            }
        } catch { end(.unreachable("\(error)")) }
    }

    // MARK: Carrying

    func endOfTurn() {
        isQueuedForTurn = false
        if stage == .carrying { carry() }
    }

    /// Carries what there is both ways, and says what is to be watched for.
    private func carry() {
        guard let far else { return }
        // A portal that does not want us says so and closes: what it said is to be heard before something is sent in vain.
        if greeting != nil { far.mayHaveMore = true }
        guard let hasMoreFromFar = carry(from: far, to: near), let hasMoreFromNear = carry(from: near, to: far) else { return }
        if near.isFinished, far.isFinished { return end(silence) }
        if hasMoreFromNear || hasMoreFromFar, !isQueuedForTurn {
            isQueuedForTurn = true
            loop.whenTurnEnds(self)
        }
        do throws(SystemError) {
            try near.watch(loop, near.interest(whileSending: far.waiting))
            try far.watch(loop, far.interest(whileSending: near.waiting))
        } catch { return end(.over) }
        if near.isFinished || far.isFinished { limitSilence() }
    }

    /// - Returns: whether there is more that epoll does not tell of; nil when the relay has ended
    private func carry(from source: End, to sink: End) -> Bool? {
        for _ in 0..<Self.buffersPerTurn {
            if !source.waiting.isEmpty {
                switch sink.stream.send(&source.waiting) {
                case .done: break
                case .wouldBlock: return false
                case .closed: return lose(sink)
                }
            }
            if source.isOver {
                if !source.isFinished { sink.stream.finish() }
                source.isFinished = true
                return false
            }
            guard source.mayHaveMore else { return false }
            guard let buffer = pool.allocate(Self.bufferSize) else { preconditionFailure("the pool has room for every relay") }
            switch source.stream.receive(into: buffer, 0..<Self.bufferSize) {
            case .received(let count):
                if source === far, let how = greeting.take() { onSpeech(how) }
                source.waiting.append(buffer, 0..<count)
                source.mayHaveMore = count == Self.bufferSize || !source.stream.isDrained || source.isHungUp
            case .wouldBlock:
                source.mayHaveMore = false
                source.isOver = source.isHungUp
            case .closed(nil):
                source.isOver = true
                if source === far, !near.isOver { portalLeftFirst = true }
            case .closed: return lose(source)
            }
        }
        return source.mayHaveMore || !source.waiting.isEmpty || source.isOver && !source.isFinished
    }

    /// One connection has failed, so that the other is of no use.
    private func lose(_ failed: End) -> Bool? {
        if failed === near { takeLeave() }
        if failed === far, !near.isOver { portalLeftFirst = true }
        end(failed.stream.complaint.map { .refused($0) } ?? silence)
        return nil
    }

    /// How it ends when nothing was said about the end.
    private var silence: Ending { greeting != nil && portalLeftFirst ? .refused("it closes before it has said anything") : .over }

    /// When one side has said its last, the other may not be silent for ever.
    private func limitSilence() {
        if let timer { loop.cancel(timer) }
        timer = loop.after(nanoseconds: Self.lastWords) { [unowned self] in end(.over) }
    }

    private func end(_ ending: Ending) {
        guard stage != .ended else { return }
        stage = .ended
        if let timer { loop.cancel(timer) }
        near.ignore(loop)
        far?.ignore(loop)
        onEnd(self, ending)
    }
}

/// One of the two connections of a relay.
private final class End: EventHandler {
    let descriptor: FileDescriptor
    /// Set before the first byte is carried.
    var stream: (any Stream)!
    unowned var relay: Relay!
    /// What came from here and waits to be sent to the other end.
    var waiting: OutputQueue
    /// There may be something to receive.
    var mayHaveMore = true
    /// Nothing more comes from here.
    var isOver = false
    /// The other end knows that.
    var isFinished = false
    private var watched: Readiness?
    /// epoll would tell of its end for ever, so it is asked no more: all that there is can be received.
    private(set) var isHungUp = false

    init(_ descriptor: consuming FileDescriptor, pool: BufferPool) {
        self.descriptor = descriptor
        waiting = OutputQueue(pool: pool)
    }

    func ready(_ events: Readiness) { relay.ready(self, events) }

    func note(_ events: Readiness) {
        if !events.isDisjoint(with: [.readable, .peerClosed, .hangup, .error]) { mayHaveMore = true }
        if !events.isDisjoint(with: [.hangup, .error]) { isHungUp = true }
    }

    /// - Parameter output: what waits to be sent here
    func interest(whileSending output: OutputQueue) -> Readiness {
        var interest: Readiness = []
        if waiting.isEmpty, !isOver { interest.insert(.readable) }
        if !output.isEmpty { interest.insert(.writable) }
        return interest
    }

    func watch(_ loop: EventLoop, _ interest: Readiness) throws(SystemError) {
        if isHungUp { return ignore(loop) }
        guard interest != watched else { return }
        if watched == nil { try loop.add(descriptor.rawValue, interest, self) } else { try loop.modify(descriptor.rawValue, interest) }
        watched = interest
    }

    func ignore(_ loop: EventLoop) {
        loop.remove(descriptor.rawValue)
        watched = nil
    }
}
