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
    /// - Parameter number: below `WorkPage.places`, of no other thread
    public static func takePlace(_ number: Int) { linux_work_take_place(Int32(clamping: number)) }

    /// This thread works on that from now on; 0: on nothing. One store.
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
        let count = 1 + Self.places
        var words = [UInt64](repeating: 0, count: count)
        let wanted = count * MemoryLayout<UInt64>.size
        let got = unsafe words.withUnsafeMutableBytes { unsafe linux_read_at(file.rawValue, $0.baseAddress!, wanted, 0, 0) }
        guard got == wanted else { return WorkNotes(crashed: 0, working: []) }
        return WorkNotes(crashed: words[0], working: Array(words.dropFirst()))
    }
}

/// What the threads of a process were working on; 0: nothing.
public struct WorkNotes: Hashable, Sendable {
    /// The one that crashed.
    public var crashed: UInt64
    public var working: [UInt64]

    public init(crashed: UInt64, working: [UInt64]) {
        self.crashed = crashed
        self.working = working
    }

    /// What the process ended over, if it did not end for another reason: what the thread that crashed has left, or the only thing that it can
    /// have hung over. Where it might be several it is none: nobody answers for what somebody else did.
    /// - Parameter earlier: what was under work a while before it was ended because it hung; nil: it was not
    public func culprit(of end: ChildProcess.End, hanging earlier: [UInt64]?) -> Culprit? {
        if let earlier {
            let stuck = zip(earlier, working).filter { $0 == $1 && $0 != 0 }.map(\.0)
            return stuck.count == 1 ? Culprit(word: stuck[0], hung: true) : nil
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
