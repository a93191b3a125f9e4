import DequeModule
import Door
import Logging
import Management
import Model
import Reactor
import Storage

/// Bounds of opening stores.
enum OpeningLimits {
    /// Nanoseconds for one store; then the process that opens it is ended, and whoever asked is told. Its medium may be a network that
    /// does not answer.
    static let patience: UInt64 = 10_000_000_000
    /// Nanoseconds after which a process that still opens the same store holds up nobody else any more: others go to another process.
    static let slow: UInt64 = 100_000_000
    /// Processes at once: so many stores that do not answer may keep others from being opened.
    static let processes = 64
    /// Stores of one transaction at once: a medium that does not answer leaves the processes to others.
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

/// A file that tgtd depends on, open for reading and in memory.
final class HeldFile {
    let descriptor: FileDescriptor
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
}

/// Has stores and other files opened by short-lived processes, so that control never waits for a medium. One process opens whatever has to be opened,
/// one store after the other, and ends when nobody waits. A process that takes long keeps its store; the others go to another one.
final class StoreOpenings {
    typealias Result<Opened> = Swift.Result<Opened, OpeningError>
    struct OpeningError: Error { let reason: String }

    fileprivate enum Opened {
        case store(HeldStore, StoreFacts)
        case file(HeldFile)
    }

    /// What is to be opened, and whom to tell.
    fileprivate struct Opening {
        let question: OpenQuestion
        let whenDone: (Result<Opened>) -> Void
    }

    fileprivate let loop: EventLoop
    private var waiting: Deque<Opening> = []
    private var openers: [Opener] = []

    init(loop: EventLoop) { self.loop = loop }

    /// Calls `whenDone` once, in a later turn of the loop.
    func open(_ request: StoreRequest, _ whenDone: @escaping (Result<(HeldStore, StoreFacts)>) -> Void) {
        guard let path = request.store.path else { return fail(whenDone, "there is no path") }
        let question = OpenQuestion.store(
            path: path.bytes, isSynchronous: request.store.flags.contains(.sync), isDirect: request.store.flags.contains(.direct),
            isReadOnly: request.readOnly, places: request.places.map(StorePlacement.init))
        ask(question) { result in
            whenDone(result.flatMap { if case .store(let store, let facts) = $0 { .success((store, facts)) } else { .failure(Self.otherAnswer) } })
        }
    }

    /// Opens a file that only root or our user can have written. Calls `whenDone` once, in a later turn of the loop.
    /// - Parameters:
    ///   - isPrivate: whether others may not read it either
    ///   - limit: bytes that it may have
    func open(_ path: TrustedPath, isPrivate: Bool, limit: Int, _ whenDone: @escaping (Result<HeldFile>) -> Void) {
        ask(.trusted(path: Array(path.text.utf8), isPrivate: isPrivate, limit: UInt32(limit))) { result in
            whenDone(result.flatMap { if case .file(let file) = $0 { .success(file) } else { .failure(Self.otherAnswer) } })
        }
    }

    private static let otherAnswer = OpeningError(reason: "the process that opens files has answered something else")

    private func ask(_ question: OpenQuestion, _ whenDone: @escaping (Result<Opened>) -> Void) {
        waiting.append(Opening(question: question, whenDone: whenDone))
        serve()
    }

    fileprivate func fail<Opened>(_ whenDone: @escaping (Result<Opened>) -> Void, _ reason: String) {
        loop.after(nanoseconds: 0) { whenDone(.failure(OpeningError(reason: reason))) }
    }

    /// Gives what waits to processes that have nothing to do; ends these if nothing waits.
    fileprivate func serve() {
        while let next = waiting.first {
            guard let opener = openers.first(where: \.isIdle) ?? another() else {
                // A process that works takes it later.
                guard openers.isEmpty else { return }
                waiting.removeFirst()
                fail(next.whenDone, "the process that opens stores cannot be started: \(lastTrouble)")
                continue
            }
            waiting.removeFirst()
            opener.open(next)
        }
        for opener in openers where opener.isIdle { opener.dismiss() }
        openers.removeAll(where: \.isIdle)
    }

    private var lastTrouble = ""

    /// One more process, if all that work have been slow.
    private func another() -> Opener? {
        guard openers.count < OpeningLimits.processes, openers.allSatisfy(\.isSlow) else { return nil }
        do {
            let opener = try Opener(self)
            openers.append(opener)
            return opener
        } catch {
            lastTrouble = "\(error)"
            return nil
        }
    }

    fileprivate func forget(_ opener: Opener) { openers.removeAll { $0 === opener } }
}

/// A process that opens one store after the other.
private final class Opener {
    private let openings: StoreOpenings
    private var process: DoorProcess<OpenAnswer, OpenQuestion>?
    private var current: StoreOpenings.Opening?
    private var timers: [TimerID] = []
    /// It has been at the same store for long.
    private(set) var isSlow = false
    var isIdle: Bool { current == nil }

    private static let failed = "the process that opens stores has failed"

    init(_ openings: StoreOpenings) throws(SystemError) {
        self.openings = openings
        process = try DoorProcess(
            .opener, loop: openings.loop, onMessage: { [weak self] answer, descriptors in self?.answered(answer, descriptors.take()) },
            onShut: { [weak self] _ in self?.giveUp(Self.failed) }, onEnd: { [weak self] _ in self?.giveUp(Self.failed) })
    }

    func open(_ opening: StoreOpenings.Opening) {
        current = opening
        timers = [
            openings.loop.after(nanoseconds: OpeningLimits.slow) { [weak self] in
                guard let self else { return }
                isSlow = true
                openings.serve()
            },
            openings.loop.after(nanoseconds: OpeningLimits.patience) { [weak self] in
                self?.giveUp("it does not open within \(OpeningLimits.patience / 1_000_000_000) s")
            },
        ]
        process?.send(opening.question)
    }

    /// It ends when it has nothing to do.
    func dismiss() {
        process?.shut()
        process = nil
    }

    private func answered(_ answer: OpenAnswer, _ descriptor: consuming FileDescriptor?) {
        switch answer {
        case .opened where descriptor == nil: finish(.failure(.init(reason: "this process may open no more descriptors")))
        case .opened(let description, let physicalBlockLength):
            let facts = StoreFacts(
                byteCount: description.length, isWritable: !description.isReadOnly, physicalBlockLength: Int(physicalBlockLength))
            finish(.success(.store(HeldStore(descriptor, description), facts)))
        case .trusted:
            guard let descriptor else { return finish(.failure(.init(reason: "this process may open no more descriptors"))) }
            finish(.success(.file(HeldFile(descriptor))))
        case .failed(let reason): finish(.failure(.init(reason: reason)))
        }
    }

    private func giveUp(_ reason: String) {
        guard process != nil else { return }
        process?.kill()
        dismiss()
        openings.forget(self)
        if let whenDone = release() { openings.fail(whenDone, reason) }
        openings.serve()
    }

    private func finish(_ result: StoreOpenings.Result<StoreOpenings.Opened>) {
        release()?(result)
        openings.serve()
    }

    /// It is done with its store.
    /// - Returns: whom to tell
    private func release() -> ((StoreOpenings.Result<StoreOpenings.Opened>) -> Void)? {
        for timer in timers { openings.loop.cancel(timer) }
        timers = []
        isSlow = false
        defer { current = nil }
        return current?.whenDone
    }
}

extension StorePlacement {
    init(_ places: StorePlaces) {
        func patterns(_ kind: DevicePattern.Kind) -> [[UInt8]] { places.devices.filter { $0.kind == kind }.map(\.pattern) }
        self.init(directories: places.directories.map(\.bytes), mapperNames: patterns(.mapper), deviceLinks: patterns(.byID))
    }
}
