import Logging
import Model
import Reactor
import Synchronization

/// Keeps what is configured: a thread writes, control never waits for it. Changes that come while it writes are written together, by one flush.
///
/// A medium that fails, or does not answer in time, puts the store in trouble: who waits is told, and until a write succeeds whoever asks is
/// told at once. A write that hangs stays alone; when it is over after all, the store goes on with what has come meanwhile.
final class StateStore {
    /// Nanoseconds that a medium may take for one write before whoever waits is told that nobody knows.
    static let patience: UInt64 = 5_000_000_000
    /// Nanoseconds until it is tried again after a write has failed.
    static let pause: UInt64 = 1_000_000_000

    /// Why something is not kept.
    enum Trouble: Error, Hashable, CustomStringConvertible {
        /// It may lie on the medium all the same, whole or in part.
        case failed(FileError)
        case silent(path: String, seconds: UInt64)

        var description: String {
            switch self {
            case .failed(let error): "\(error)"
            case .silent(let path, let seconds): "\(path): the medium has not answered for \(seconds) s"
            }
        }

        /// For whoever has made a change that holds already.
        var consequence: String {
            switch self {
            case .failed: "the change is in effect, but it is not kept, and may be lost at a restart: \(self)"
            case .silent: "the change is in effect, but nobody knows whether it would survive a restart: \(self)"
            }
        }
    }

    /// Told once, in a later turn: nil when it is on the medium.
    typealias WhenKept = (Trouble?) -> Void

    private let loop: EventLoop
    private let log: Logger
    private let patience: UInt64
    private let writer: StateWriter
    private let thread: LoopThread
    private enum Report: Sendable { case writes, over(FileError?) }
    private let reports: Mailbox<Report>

    /// What is to be written next, and who waits for it.
    private var next: StateWriter.Change?
    private var waiting: [WhenKept] = []
    /// What is being written.
    private var current: (change: StateWriter.Change, waiting: [WhenKept])?
    private var deadline: TimerID?
    private var whenSettled: (() -> Void)?
    /// Until a write succeeds nothing more is to change.
    private(set) var trouble: Trouble?

    /// - Parameter sequence: the number of the document that is there; 0: none
    init(loop: EventLoop, medium: any StateMedium, sequence: UInt64, log: Logger, patience: UInt64 = StateStore.patience) throws(SystemError) {
        self.loop = loop
        self.log = log
        self.patience = patience
        writer = StateWriter(medium, sequence: sequence)
        thread = try LoopThread(name: "state") { _ in }
        reports = try Mailbox()
        try loop.receive(reports) { [unowned self] in
            switch $0 {
            case .writes: expectEnd()
            case .over(let failure): over(failure)
            }
        }
    }

    /// - Parameters:
    ///   - configuration: after a change
    ///   - parts: what is different in it
    func keep(_ configuration: Configuration, _ parts: Set<StatePart>, _ whenKept: @escaping WhenKept) {
        next = StateWriter.Change(configuration: configuration, parts: (next?.parts ?? []).union(parts))
        if let trouble {
            loop.after(nanoseconds: 0) { whenKept(trouble) }
        } else {
            waiting.append(whenKept)
            write()
        }
    }

    /// Calls `whenDone` when nothing is to be written any more, or cannot be.
    func settle(_ whenDone: @escaping () -> Void) {
        guard trouble == nil, current != nil else { return whenDone() }
        whenSettled = whenDone
    }

    private func write() {
        guard current == nil, let change = next else { return }
        current = (change, waiting)
        (next, waiting) = (nil, [])
        thread.mailbox.post { [writer, reports] _ in
            do throws(FileError) {
                try writer.write(change) { reports.post(.writes) }
                reports.post(.over(nil))
            } catch {
                reports.post(.over(error))
            }
        }
    }

    /// It is with the medium now.
    private func expectEnd() {
        deadline = loop.after(nanoseconds: patience) { [weak self] in
            guard let self else { return }
            deadline = nil
            fall(into: .silent(path: writer.path, seconds: patience / 1_000_000_000))
        }
    }

    private func over(_ failure: FileError?) {
        if let deadline { loop.cancel(deadline) }
        deadline = nil
        guard let written = current else { return }
        if let failure {
            next = StateWriter.Change(configuration: (next ?? written.change).configuration, parts: written.change.parts.union(next?.parts ?? []))
            fall(into: .failed(failure))
            current = nil
            loop.after(nanoseconds: Self.pause) { [weak self] in self?.write() }
        } else {
            current = nil
            if trouble != nil { log.notice("what is configured is kept again") }
            trouble = nil
            for whenKept in written.waiting { whenKept(nil) }
            write()
        }
        if current == nil { settled() }
    }

    /// Whoever waits is told.
    private func fall(into trouble: Trouble) {
        if self.trouble == nil { log.error("what is configured cannot be kept, and is not to be changed until it can: \(trouble)") }
        self.trouble = trouble
        let told = (current?.waiting ?? []) + waiting
        current?.waiting = []
        waiting = []
        for whenKept in told { whenKept(trouble) }
        settled()
    }

    private func settled() {
        whenSettled.take()?()
    }
}

/// The thread's side: the whole at first, then change after change, until these are as long as the whole; then the whole again, so that what a change
/// costs and what a start reads stay in proportion to what changes and what there is. After a failure nobody knows what the file has, so a new one
/// begins.
final class StateWriter: Sendable {
    /// Bytes of changes that a file takes even if the whole is shorter.
    static let leastJournal = 1 << 20

    /// Or several: what is different, and how it is after the last of them.
    struct Change: Sendable {
        let configuration: Configuration
        let parts: Set<StatePart>
    }

    private struct Place {
        var sequence: UInt64
        /// nil: a new file is to begin.
        var journal: StateJournal?
        /// Bytes.
        var wholeLength = 0
        var journalLength = 0
        var isFull: Bool { journalLength >= max(wholeLength, StateWriter.leastJournal) }
    }

    private let medium: any StateMedium
    private let place: Mutex<Place>
    var path: String { medium.path }

    init(_ medium: any StateMedium, sequence: UInt64) {
        self.medium = medium
        place = Mutex(Place(sequence: sequence))
    }

    /// - Parameter willWrite: called before the medium has it
    func write(_ change: Change, _ willWrite: () -> Void) throws(FileError) {
        try place.withLock { place throws(FileError) in
            if var journal = place.journal, !place.isFull {
                let text = journal.record(change.parts, of: change.configuration)
                place.journal = nil
                willWrite()
                try medium.append(text)
                place.journalLength += text.count
                place.journal = journal
            } else {
                let (text, journal) = StateDocument(sequence: place.sequence + 1, configuration: change.configuration).encoded(key: medium.key)
                place.journal = nil
                willWrite()
                try medium.begin(text, number: place.sequence + 1)
                place = Place(sequence: place.sequence + 1, journal: journal, wholeLength: text.count)
            }
        }
    }
}
