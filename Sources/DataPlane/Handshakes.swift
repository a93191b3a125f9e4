import Crypto
import Door
import Logging
import Reactor
import Synchronization
import TLS

/// Bounds of TLS handshakes.
enum HandshakeLimits {
    /// Threads that compute handshakes: they wait for control's signatures, and keep the threads of sessions free of it all. A peer that
    /// stalls holds none of them.
    static let threads = 4
    /// Nanoseconds that a handshake waits for what it has asked of control.
    static let answer: UInt64 = 5_000_000_000
    /// Bytes of the identity of a pre-shared key: longer ones are nobody's.
    static let identity = 128
}

/// Questions of handshakes to control. The thread that asks waits; the answer comes over the thread that has the door.
final class HandshakeQuestions: Sendable {
    private enum Answer {
        case signature([UInt8]?)
        case key(Secret?)
    }

    private struct State {
        var last: UInt64 = 0
        var open: Set<UInt64> = []
        var answers: [UInt64: Answer] = [:]
    }

    private let state = Monitor(State())
    /// Reaches the thread that has the door.
    private let ask: @Sendable (LoginQuestionMessage) -> Void

    init(_ ask: @escaping @Sendable (LoginQuestionMessage) -> Void) { self.ask = ask }

    /// A context for `portal` whose handshakes ask here.
    func context(portal: UInt32, _ material: ServerMaterial) throws(TLSError) -> ServerContext {
        try ServerContext(
            material,
            sign: { [self] scheme, message in
                guard case .signature(let signature)? = wait({ .sign($0, portal: portal, scheme, message) }) else { return nil }
                return signature
            },
            preSharedKey: { [self] identity in
                guard identity.count <= HandshakeLimits.identity,
                    case .key(let key)? = wait({ .preSharedKey($0, portal: portal, identity: identity) })
                else { return nil }
                return key
            })
    }

    private func wait(_ question: (RequestID) -> LoginQuestionMessage) -> Answer? {
        let number = state.withLock { state in
            state.last += 1
            state.open.insert(state.last)
            return state.last
        }
        ask(question(RequestID(rawValue: number)))
        defer {
            state.withLock { state in
                state.open.remove(number)
                state.answers[number] = nil
            }
        }
        return state.wait(nanoseconds: HandshakeLimits.answer) { $0.answers.removeValue(forKey: number) }
    }

    func answered(_ id: RequestID, signature: [UInt8]?) { take(id, .signature(signature)) }
    func answered(_ id: RequestID, key: Secret?) { take(id, .key(key)) }

    private func take(_ id: RequestID, _ answer: Answer) {
        // Whoever asked may have given up.
        let isAwaited = state.withLock { state in
            guard state.open.contains(id.rawValue) else { return false }
            state.answers[id.rawValue] = answer
            return true
        }
        if isAwaited { state.ringAll() }
    }
}

/// The threads that compute handshakes, step by step: one when the peer's next bytes are there.
final class Handshakes: Sendable {
    private let threads: [LoopThread]
    /// Steps that wait or run, by thread.
    private let load: Mutex<[Int]>

    init(threads count: Int = HandshakeLimits.threads) throws(SystemError) {
        var threads: [LoopThread] = []
        for number in 0..<count { threads.append(try LoopThread(name: "handshakes \(number)") { _ in Work.takePlace(WorkPlace.handshakes(number)) }) }
        self.threads = threads
        load = Mutex([Int](repeating: 0, count: count))
    }

    /// Goes on with the handshake of `stream`, on another thread; `whenDone` is called there. Until then nobody else uses the stream:
    /// who does not want it any more lets go of it.
    /// - Parameter word: for the note of whose bytes are worked on
    func step(_ stream: ByteStream, _ secure: SecureConnection, for word: UInt64, _ whenDone: @escaping @Sendable (HandshakeStep) -> Void) {
        let number = load.withLock { load in
            let number = load.indices.min { load[$0] < load[$1] } ?? 0
            load[number] += 1
            return number
        }
        threads[number].mailbox.post { [self] _ in
            Work.note(word)
            let step = withExtendedLifetime(stream) { secure.handshake() }
            Work.note(0)
            load.withLock { $0[number] -= 1 }
            whenDone(step)
        }
    }

    deinit { for thread in threads { thread.stop() } }
}
