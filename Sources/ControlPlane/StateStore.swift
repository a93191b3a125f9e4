import Logging
import Model
import Reactor

/// Keeps what is configured: a thread writes, control never waits for it. While one write is under way whatever comes waits for the next one,
/// which has the newest of it.
///
/// What data has given to keep (reservations, saved mode pages) is to become part of the same document.
final class StateStore {
    /// Nanoseconds until it is tried again after a write has failed.
    private static let pause: UInt64 = 1_000_000_000
    /// Why something is not kept; nil: it is.
    typealias WhenKept = (FileError?) -> Void

    private let loop: EventLoop
    private let log: Logger
    private let directory: StateDirectory
    private let thread: LoopThread
    private let results: Mailbox<FileError?>

    private var sequence: UInt64
    /// What is to be written next, and who waits for it.
    private var next: Configuration?
    private var waiting: [WhenKept] = []
    /// What is being written.
    private var current: (configuration: Configuration, waiting: [WhenKept])?
    private var whenSettled: (() -> Void)?
    /// Why the last write failed: until one succeeds, nothing more is to change.
    private(set) var trouble: FileError?

    /// - Parameter sequence: the number of the document that is there; 0: none
    init(loop: EventLoop, directory: StateDirectory, sequence: UInt64, log: Logger) throws(SystemError) {
        self.loop = loop
        self.directory = directory
        self.sequence = sequence
        self.log = log
        thread = try LoopThread(name: "state") { _ in }
        results = try Mailbox()
        try loop.receive(results) { [unowned self] in written($0) }
    }

    /// - Parameter whenKept: called in a later turn, when this configuration or a later one is on the medium, or could not be written
    func keep(_ configuration: Configuration, _ whenKept: @escaping WhenKept) {
        next = configuration
        waiting.append(whenKept)
        write()
    }

    /// Calls `whenDone` when no write is under way any more.
    func settle(_ whenDone: @escaping () -> Void) {
        guard current != nil else { return whenDone() }
        whenSettled = whenDone
    }

    private func write() {
        guard current == nil, let configuration = next else { return }
        current = (configuration, waiting)
        (next, waiting) = (nil, [])
        let document = StateDocument(sequence: sequence + 1, configuration: configuration)
        thread.mailbox.post { [directory, results] _ in
            do throws(FileError) {
                try directory.write(document)
                results.post(nil)
            } catch {
                results.post(error)
            }
        }
    }

    private func written(_ failure: FileError?) {
        guard let written = current else { return }
        current = nil
        if let failure {
            if trouble == nil { log.error("what is configured cannot be kept, and is not to be changed until it can: \(failure)") }
            if next == nil { next = written.configuration }
            loop.after(nanoseconds: Self.pause) { [weak self] in self?.write() }
        } else {
            if trouble != nil { log.notice("what is configured is kept again") }
            sequence += 1
        }
        trouble = failure
        for whenKept in written.waiting { whenKept(failure) }
        if let whenSettled, waiting.isEmpty { return whenSettled() }
        if failure == nil || !waiting.isEmpty { write() }
    }
}
