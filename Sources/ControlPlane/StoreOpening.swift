import Bytes
import Door
import Logging
import Management
import Model
import Reactor
import Storage

/// Bounds of opening a store.
enum OpeningLimits {
    /// Nanoseconds; then the process is ended, and whoever asked is told. Its medium may be a network that does not answer.
    static let patience: UInt64 = 10_000_000_000
    /// Processes at once: so many stores that do not answer may keep others from being opened.
    static let atOnce = 8
}

/// A store that control has had opened: it keeps the descriptor, so that a successor of data gets the same file.
final class HeldStore {
    let descriptor: FileDescriptor?
    let description: StoreDescription

    init(_ descriptor: consuming FileDescriptor?, _ description: StoreDescription) {
        self.descriptor = descriptor
        self.description = description
    }
}

/// Has stores opened by short-lived processes, so that control never waits for a medium.
final class StoreOpenings {
    typealias Result = Swift.Result<(HeldStore, StoreFacts), OpeningError>
    struct OpeningError: Error { let reason: String }

    private let loop: EventLoop
    private var running = 0
    private var waiting: [() -> Void] = []

    init(loop: EventLoop) { self.loop = loop }

    func open(_ request: StoreRequest, _ whenDone: @escaping (Result) -> Void) {
        guard running < OpeningLimits.atOnce else {
            waiting.append { [unowned self] in open(request, whenDone) }
            return
        }
        guard let path = request.store.path else { return whenDone(.failure(OpeningError(reason: "there is no path"))) }
        running += 1
        let question = OpenQuestion(
            path: path.bytes, isSynchronous: request.store.flags.contains(.sync), isDirect: request.store.flags.contains(.direct),
            isReadOnly: request.readOnly)
        do {
            try StoreOpening(loop: loop, question) { [unowned self] result in
                running -= 1
                whenDone(result)
                if !waiting.isEmpty, running < OpeningLimits.atOnce { waiting.removeFirst()() }
            }.start()
        } catch {
            running -= 1
            whenDone(.failure(OpeningError(reason: "the process that opens stores cannot be started: \(error)")))
        }
    }
}

/// One process that opens one store. It lives until it is reaped.
private final class StoreOpening: EventHandler {
    private let loop: EventLoop
    private let question: OpenQuestion
    private var whenDone: ((StoreOpenings.Result) -> Void)?
    private var process: ChildProcess?
    private var link: DoorLink<OpenAnswer, OpenQuestion>?
    private var deadline: TimerID?

    init(loop: EventLoop, _ question: OpenQuestion, _ whenDone: @escaping (StoreOpenings.Result) -> Void) {
        self.loop = loop
        self.question = question
        self.whenDone = whenDone
    }

    func start() throws(SystemError) {
        var ours: FileDescriptor?
        let child = try ChildProcess(.opener, door: Socket.messagePair().split(&ours))
        guard let ours = ours.take() else { preconditionFailure("a pair has two ends") }
        process = child
        try loop.add(child.descriptor, .readable, self)
        link = try DoorLink(loop: loop, socket: ours) { [unowned self] answer, descriptors in
            answered(answer, descriptors.take())
        } onEnd: { [unowned self] _ in
            finish(.failure(.init(reason: "the process that opens stores has failed")))
        }
        link?.send(question)
        deadline = loop.after(nanoseconds: OpeningLimits.patience) { [unowned self] in
            finish(.failure(.init(reason: "the store does not open within \(OpeningLimits.patience / 1_000_000_000) s")))
        }
    }

    private func answered(_ answer: OpenAnswer, _ descriptor: consuming FileDescriptor?) {
        switch answer {
        case .opened where descriptor == nil: finish(.failure(.init(reason: "this process may open no more descriptors")))
        case .opened(let description, let physicalBlockLength):
            let facts = StoreFacts(
                byteCount: description.length, isWritable: !description.isReadOnly, physicalBlockLength: Int(physicalBlockLength))
            finish(.success((HeldStore(descriptor, description), facts)))
        case .failed(let reason): finish(.failure(.init(reason: reason)))
        }
    }

    private func finish(_ result: StoreOpenings.Result) {
        guard let whenDone else { return }
        self.whenDone = nil
        link?.close()
        if let deadline { loop.cancel(deadline) }
        process?.send(signal: Signal.kill)
        whenDone(result)
    }

    /// The process has ended.
    func ready(_ events: Readiness) {
        guard let process, process.reap() != nil else { return }
        loop.remove(process.descriptor)
        self.process = nil
        finish(.failure(.init(reason: "the process that opens stores has failed")))
        link = nil
    }
}
