import Glibc
import Testing

@testable import Reactor

@Suite struct WorkTests {
    /// - Parameter working: by place the word, or the word and how many there have been before
    private static func notes(_ crashed: UInt64, _ working: [Int: UInt64] = [:], numbers: [Int: UInt64] = [:]) -> WorkNotes {
        WorkNotes(crashed: crashed, working: (0..<WorkPage.places).map { WorkNote(number: numbers[$0] ?? 0, word: working[$0] ?? 0) })
    }

    @Test("The thread that crashed says what over; without a word of it, nobody answers for what others were at", arguments: [
        (notes(7, [0: 7, 1: 8]), 7), (notes(0, [1: 8]), nil), (notes(0, [0: 7, 1: 8]), nil), (notes(0), nil), (notes(9), 9), (WorkNotes(crashed: 0, working: []), nil),
    ] as [(WorkNotes, UInt64?)])
    func crash(notes: WorkNotes, word: UInt64?) {
        for signal in [SIGSEGV, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSYS] {
            #expect(notes.culprit(of: .killed(signal: signal), hanging: nil) == word.map { Culprit(word: $0, hung: false) })
        }
        // Nobody's fault but ours, the administrator's or the kernel's that has no memory.
        for end in [ChildProcess.End.exited(0), .exited(1), .killed(signal: SIGKILL), .killed(signal: SIGTERM)] {
            #expect(notes.culprit(of: end, hanging: nil) == nil)
        }
    }

    @Test("Who hangs is still at the same piece of work; if there are several of those it is nobody")
    func hanging() {
        let before = Self.notes(0, [0: 5, 1: 6, 3: 5], numbers: [0: 1, 1: 9, 3: 2])
        func culprit(_ after: WorkNotes) -> UInt64? { after.culprit(of: .killed(signal: SIGKILL), hanging: before.working)?.word }
        #expect(culprit(Self.notes(0, [0: 5, 1: 6], numbers: [0: 1, 1: 10])) == 5)
        #expect(culprit(Self.notes(0, [0: 5, 1: 6], numbers: [0: 1, 1: 9])) == nil)
        #expect(culprit(Self.notes(0, [0: 5], numbers: [0: 2])) == nil)
        #expect(culprit(Self.notes(0, [0: 5, 3: 5], numbers: [0: 1, 3: 2])) == 5, "at two places it is one all the same")
        #expect(culprit(Self.notes(0, numbers: [0: 1, 1: 9, 3: 2])) == nil)
        #expect(Self.notes(3, [0: 3]).culprit(of: .killed(signal: SIGKILL), hanging: []) == nil)
    }

    @Test("Whoever looks counts how long somebody has been at one piece of work, and forgets that when it ends")
    func watching() {
        var watch = WorkWatch()
        func look(_ working: [Int: UInt64], _ numbers: [Int: UInt64]) -> Int { watch.look(Self.notes(0, working, numbers: numbers)) }
        #expect(look([0: 5, 1: 6], [0: 1, 1: 1]) == 0)
        #expect(look([0: 5, 1: 6], [0: 1, 1: 2]) == 1)
        #expect(look([0: 5, 1: 6], [0: 1, 1: 2]) == 2)
        // The same word again is another piece.
        #expect(look([0: 5, 1: 6], [0: 2, 1: 2]) == 2)
        #expect(look([0: 5], [0: 2, 1: 2]) == 1)
        #expect(watch.notes == Self.notes(0, [0: 5], numbers: [0: 2, 1: 2]).working && watch.earlier == Self.notes(0, [0: 5, 1: 6], numbers: [0: 2, 1: 2]).working)
        for _ in 0..<20 { #expect(look([:], [0: 2, 1: 2]) == 0) }
    }

    @Test("What is no page says nothing")
    func foreign() throws {
        let page = try WorkPage()
        #expect(page.read() == Self.notes(0))
        #expect(ftruncate(page.descriptor, 0) == -1 && ftruncate(page.descriptor, 1 << 20) == -1, "nobody changes its length")
        // All that a process can write there is read as words.
        let ones = [UInt8](repeating: 0xff, count: 4096)
        #expect(unsafe pwrite(page.descriptor, ones, 4096, 0) == 4096)
        #expect(page.read() == WorkNotes(crashed: .max, working: [WorkNote](repeating: WorkNote(number: .max, word: .max), count: WorkPage.places)))
    }

    /// Ends this process, a child of an exit test, by a crash: each thread notes its words one after the other, and the one in `place` crashes
    /// when all have.
    private static func crash(_ page: String, place: Int, words: [[UInt64]], _ crash: @escaping @Sendable () -> Void) -> Never {
        alarm(20)
        let file = unsafe open(page, O_RDWR | O_CLOEXEC)
        guard file >= 0, (try? Work.join(FileDescriptor(owning: file))) != nil else { _exit(99) }
        let ready = Counter()
        for (number, words) in words.enumerated() {
            _ = try? WorkerThread(name: "work \(number)") {
                // Whoever runs tests blocks them, our processes do not.
                var none = sigset_t()
                unsafe sigemptyset(&none)
                unsafe pthread_sigmask(SIG_SETMASK, &none, nil)
                Work.takePlace(number)
                for word in words { Work.note(word) }
                ready.add(1)
                while ready.value < 3 { usleep(1000) }
                if number == place { crash() }
                while true { sleep(1) }
            }
        }
        while true { sleep(1) }
    }

    @Test("A thread that crashes leaves its word and no other thread's, and the process ends by that signal", arguments: [SIGSEGV, SIGILL, SIGTRAP, SIGABRT])
    func crashing(signal: Int32) async throws {
        let page = try WorkPage()
        let path = "/proc/\(getpid())/fd/\(page.descriptor)"
        await #expect(processExitsWith: .signal(signal)) { [path = path as String, signal = signal as Int32] in
            Self.crash(path, place: 1, words: [[100], [5, 0, 101], [102]]) { raise(signal) }
        }
        let notes = page.read()
        #expect(notes.crashed == 101 && notes.working.prefix(3).map(\.word) == [100, 101, 102] && notes.working.prefix(3).map(\.number) == [1, 2, 1])
        #expect(notes.culprit(of: .killed(signal: signal), hanging: nil) == Culprit(word: 101, hung: false))
    }

    /// No end of it, which the compiler does not see.
    private static func descend(_ depth: Int) -> Int { depth < 0 ? 0 : descend(depth + 1) &+ depth }

    @Test("A thread that has used up its stack leaves its word, too")
    func exhausted() async throws {
        let page = try WorkPage()
        let path = "/proc/\(getpid())/fd/\(page.descriptor)"
        await #expect(processExitsWith: .signal(SIGSEGV)) { [path = path as String] in
            Self.crash(path, place: 1, words: [[100], [101], [102]]) { _ = Self.descend(0) }
        }
        #expect(page.read().crashed == 101)
    }

    @Test("What is done ends: a crash between two pieces of work is nobody's, whatever others work on")
    func between() async throws {
        let page = try WorkPage()
        let path = "/proc/\(getpid())/fd/\(page.descriptor)"
        await #expect(processExitsWith: .signal(SIGSEGV)) { [path = path as String] in
            Self.crash(path, place: 0, words: [[5, 0], [102], []]) { raise(SIGSEGV) }
        }
        #expect(page.read() == Self.notes(0, [1: 102], numbers: [0: 1, 1: 1]))
        #expect(page.read().culprit(of: .killed(signal: SIGSEGV), hanging: nil) == nil)
    }

    @Test("Without a page, and without a place on it, notes go nowhere")
    func nowhere() {
        Work.takePlace(0)
        Work.note(1)
        Work.takePlace(-1)
        Work.takePlace(WorkPage.places)
        Work.note(0)
    }
}
