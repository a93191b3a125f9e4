import Foundation
import Glibc

/// A program that a test started, in a process group of its own, its output in a file.
final class Running {
    let name: String
    let pid: pid_t
    private let outputPath: String
    private let started = ContinuousClock.now
    private(set) var ending: Ending?

    enum Ending: Equatable, CustomStringConvertible {
        case exited(Int32)
        case signalled(Int32)
        case timedOut

        init(waitStatus: Int32) {
            let signal = waitStatus & 0x7f
            self = signal == 0 ? .exited(waitStatus >> 8 & 0xff) : .signalled(signal)
        }
        var description: String {
            switch self {
            case .exited(let code): "exit \(code)"
            case .signalled(let signal): "signal \(signal)"
            case .timedOut: "still running at its time limit"
            }
        }
    }

    /// Starts `words` (the first is looked up in PATH) with standard input from /dev/null.
    init(_ words: [String], environment: [String: String] = [:], folder: Folder) throws {
        name = words.joined(separator: " ")
        outputPath = folder.fresh("output")
        var variables = ProcessInfo.processInfo.environment
        variables.merge(environment) { _, new in new }

        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, outputPath, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)

        var attributes = posix_spawnattr_t()
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        var none = sigset_t(), all = sigset_t()
        unsafe sigemptyset(&none)
        unsafe sigfillset(&all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setpgroup(&attributes, 0)
        unsafe posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        var child: pid_t = 0
        let error = unsafe withCStrings(words) { argv in
            unsafe withCStrings(variables.map { "\($0)=\($1)" }) { envp in
                unsafe posix_spawnp(&child, words[0], &actions, &attributes, argv, envp)
            }
        }
        guard error == 0 else { throw Failure("cannot start \(words[0]): \(reason(error)); `make setup` installs the clients") }
        pid = child
    }

    deinit { kill() }

    /// Everything it has printed so far, standard error included.
    var output: String { String(decoding: FileManager.default.contents(atPath: outputPath) ?? Data(), as: UTF8.self) }

    /// Its ending if it has ended.
    func poll() -> Ending? {
        if ending != nil { return ending }
        var status: Int32 = 0
        if unsafe waitpid(pid, &status, WNOHANG) == pid { ending = Ending(waitStatus: status) }
        return ending
    }

    /// Waits for its end; at the time limit its whole process group is killed.
    @discardableResult
    func wait(seconds: Double) -> Finished {
        if !eventually(within: seconds, { poll() != nil }) {
            kill()
            ending = .timedOut
        }
        return Finished(name: name, ending: ending ?? .timedOut, output: output, elapsed: ContinuousClock.now - started)
    }

    func signal(_ number: Int32) { if poll() == nil { _ = Glibc.kill(pid, number) } }

    /// Kills its whole process group and reaps it.
    func kill() {
        guard poll() == nil else { return }
        _ = Glibc.kill(-pid, SIGKILL)
        var status: Int32 = 0
        while unsafe waitpid(pid, &status, 0) == -1, errno == EINTR {}
        ending = Ending(waitStatus: status)
    }
}

/// How a program ended and what it said.
struct Finished {
    let name: String
    let ending: Running.Ending
    let output: String
    let elapsed: Duration

    var succeeded: Bool { ending == .exited(0) }
    /// For an expectation's comment.
    var evidence: String { "\(name)\n→ \(ending) after \(elapsed)\n\(output.suffix(6000))" }
}

struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Runs a program to its end.
@discardableResult
func run(_ words: String..., environment: [String: String] = [:], folder: Folder, seconds: Double = 60) throws -> Finished {
    try Running(words, environment: environment, folder: folder).wait(seconds: seconds)
}

/// Runs a program that has to end with exit status 0; returns what it printed.
@discardableResult
func must(_ words: String..., environment: [String: String] = [:], folder: Folder, seconds: Double = 60) throws -> String {
    let finished = try Running(words, environment: environment, folder: folder).wait(seconds: seconds)
    guard finished.succeeded else { throw Failure(finished.evidence) }
    return finished.output
}

/// Looks every few milliseconds until `condition` holds; false when it did not within `seconds`.
func eventually(within seconds: Double, _ condition: () throws -> Bool) rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    var pause: UInt32 = 1000
    while true {
        if try condition() { return true }
        if ContinuousClock.now >= end { return false }
        usleep(pause)
        pause = min(pause * 2, 20_000)
    }
}

func pause(seconds: Double) { usleep(UInt32(seconds * 1e6)) }

/// What an error number means.
func reason(_ number: Int32) -> String { unsafe String(cString: strerror(number)) }

/// A folder of a test's own, gone when the test is.
final class Folder {
    let path: String
    private var count = 0

    init() throws {
        let base = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
        var template = Array("\(base)/portcullis-test.XXXXXX".utf8CString)
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer in unsafe mkdtemp(buffer.baseAddress!) != nil }
        guard made else { throw Failure("cannot make a folder in \(base): \(reason(errno))") }
        path = unsafe template.withUnsafeBytes { unsafe String(decoding: $0.dropLast(), as: UTF8.self) }
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    func path(_ name: String) -> String { "\(path)/\(name)" }
    /// A name not used before.
    func fresh(_ stem: String) -> String {
        count += 1
        return "\(path)/\(stem).\(count)"
    }

    /// A file of `size` bytes that occupies nothing yet.
    func sparseFile(_ name: String, size: Int) throws -> String {
        let file = path(name)
        guard FileManager.default.createFile(atPath: file, contents: nil), unsafe truncate(file, size) == 0 else {
            throw Failure("cannot make \(file): \(reason(errno))")
        }
        return file
    }

    /// A file of `size` bytes nobody can guess.
    func randomFile(_ name: String, size: Int) throws -> String {
        let file = path(name)
        try must("dd", "if=/dev/urandom", "of=\(file)", "bs=64k", "iflag=count_bytes,fullblock", "count=\(size)", folder: self)
        return file
    }

    func text(of file: String) -> String { String(decoding: FileManager.default.contents(atPath: file) ?? Data(), as: UTF8.self) }

    func write(_ text: String, to name: String) throws -> String { try write(Array(text.utf8), to: name) }

    func write(_ bytes: [UInt8], to name: String) throws -> String {
        let file = path(name)
        guard FileManager.default.createFile(atPath: file, contents: Data(bytes)) else { throw Failure("cannot write \(file)") }
        return file
    }

    func sha256(_ file: String) throws -> String {
        let output = try must("sha256sum", file, folder: self)
        return String(output.prefix(64))
    }
}

private func withCStrings<Result>(_ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result) -> Result {
    var pointers: [UnsafeMutablePointer<CChar>?] = unsafe strings.map { unsafe strdup($0) }
    unsafe pointers.append(nil)
    defer { for unsafe pointer in unsafe pointers { unsafe free(pointer) } }
    return unsafe pointers.withUnsafeMutableBufferPointer { buffer in unsafe body(buffer.baseAddress!) }
}
