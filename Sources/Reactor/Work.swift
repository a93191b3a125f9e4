import CLinux
import Glibc

/// In a process that works on what peers send: notes whose bytes it is, on a page that outlives it.
public enum Work {
    /// Notes go to this page from now on, and a thread that crashes leaves its own in front of all others. Before the first thread is
    /// started.
    public static func join(_ page: consuming FileDescriptor) throws(SystemError) {
        _ = try check("map the page of work", linux_work_join(page.rawValue))
    }

    /// Gives this thread its place on the page, if there is one.
    /// - Parameter number: below `WorkPage.places`, of no other thread, but of one that rests while this one works
    public static func takePlace(_ number: Int) { linux_work_take_place(Int32(clamping: number)) }

    /// This thread leaves its place to another one that has been given the same; and has it again.
    static func rest() { linux_work_rest() }
    static func resume() { linux_work_resume() }

    /// This thread works on that from now on; 0: on nothing. Two stores.
    public static func note(_ word: UInt64) { linux_work_note(word) }
}

/// The page on which another process notes what its threads work on, for who started it. What stands there is that process's word.
public final class WorkPage: Sendable {
    public static let places = Int(LINUX_WORK_PLACES)

    private let file: FileDescriptor

    public init() throws(SystemError) { file = FileDescriptor(owning: try check("memfd_create", linux_work_file())) }

    /// To be given to the process; stays this page's.
    public var descriptor: Int32 { file.rawValue }

    /// What stands there now.
    public func read() -> WorkNotes {
        let count = 1 + 2 * Self.places
        var words = [UInt64](repeating: 0, count: count)
        let wanted = count * MemoryLayout<UInt64>.size
        let got = unsafe words.withUnsafeMutableBytes { unsafe linux_read_at(file.rawValue, $0.baseAddress!, wanted, 0, 0) }
        guard got == wanted else { return WorkNotes(crashed: 0, working: []) }
        return WorkNotes(crashed: words[0], working: (0..<Self.places).map { WorkNote(number: words[1 + 2 * $0], word: words[2 + 2 * $0]) })
    }
}

/// A piece of work of one thread.
public struct WorkNote: Hashable, Sendable {
    /// How many there have been of this thread, so that one that never ends can be told from many.
    public var number: UInt64
    /// What it is about; 0: nothing.
    public var word: UInt64

    public init(number: UInt64, word: UInt64) {
        self.number = number
        self.word = word
    }
}

/// Looks at what is under work from time to time: who does not come to an end?
public struct WorkWatch: Sendable {
    /// What was found last, and the time before.
    public private(set) var notes: [WorkNote] = []
    public private(set) var earlier: [WorkNote] = []
    private var looks: [Int] = []

    public init() {}

    /// - Returns: at how many looks in a row before this one a thread has been at the same piece of work; of the one that has been longest
    public mutating func look(_ found: WorkNotes) -> Int {
        earlier = notes
        notes = found.working
        looks = notes.indices.map { index in
            earlier.indices.contains(index) && earlier[index] == notes[index] && notes[index].word != 0 ? looks[index] + 1 : 0
        }
        return looks.max() ?? 0
    }
}

/// What the threads of a process were working on.
public struct WorkNotes: Hashable, Sendable {
    /// The one that crashed.
    public var crashed: UInt64
    public var working: [WorkNote]

    public init(crashed: UInt64, working: [WorkNote]) {
        self.crashed = crashed
        self.working = working
    }

    /// What the process ended over, if it did not end for another reason: what the thread that crashed has left, or the only thing that it can
    /// have hung over. Where it might be several it is none: nobody answers for what somebody else did.
    /// - Parameter earlier: what was under work a while before it was ended because it hung; nil: it was not
    public func culprit(of end: ChildProcess.End, hanging earlier: [WorkNote]?) -> Culprit? {
        if let earlier {
            let stuck = Set(zip(earlier, working).filter { $0 == $1 && $0.word != 0 }.map(\.0.word))
            return stuck.count == 1 ? stuck.first.map { Culprit(word: $0, hung: true) } : nil
        }
        guard case .killed(let signal) = end, Signal.crashes.contains(signal) else { return nil }
        return crashed != 0 ? Culprit(word: crashed, hung: false) : nil
    }
}

/// What a process was working on when it crashed or hung.
public struct Culprit: Hashable, Sendable {
    public var word: UInt64
    public var hung: Bool

    public init(word: UInt64, hung: Bool) {
        self.word = word
        self.hung = hung
    }
}
