import CLinux
import Glibc

/// A child process, held by a descriptor, so that its id can never mean another process.
public final class ChildProcess: Sendable {
    /// How a process ended.
    public enum End: Hashable, Sendable, CustomStringConvertible {
        case exited(Int32)
        case killed(signal: Int32)

        public var description: String {
            switch self {
            case .exited(let code): "exited with code \(code)"
            case .killed(let signal): unsafe "was killed by signal \(signal) (\(String(cString: strsignal(signal))))"
            }
        }
    }

    /// The image of this very process, also when its file has been replaced or removed.
    public static let ownImage = "/proc/self/exe"

    public let pid: Int32
    private let handle: FileDescriptor

    /// Starts a program in a fresh address space, all its signals at their defaults. Start it from a thread that lives as
    /// long as this process: a child's parent-death signal is tied to it.
    ///
    /// - Parameters:
    ///   - arguments: all of them, beginning with the program's name
    ///   - environment: "NAME=value", nothing else is passed on
    ///   - descriptors: become 3, 4, … in the child, which gets 0, 1 and 2 as they are and no others
    public init(
        path: String = ownImage, arguments: [String], environment: [String], descriptors: [Int32] = []
    ) throws(SystemError) {
        let result = unsafe Self.withCStrings(arguments) { arguments in
            unsafe Self.withCStrings(environment) { environment in
                unsafe linux_spawn(path, arguments, environment, descriptors, Int32(descriptors.count))
            }
        }
        pid = try check("start \(path)", result)
        let pidfd = linux_pidfd_open(pid)
        if pidfd < 0 {  // no descriptor left: it must not run unwatched
            kill(pid, SIGKILL)
            waitpid(pid, nil, 0)
        }
        handle = FileDescriptor(owning: try check("pidfd_open", pidfd))
    }

    private static func withCStrings<R>(_ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> R) -> R {
        var pointers = unsafe strings.map { unsafe strdup($0) }
        unsafe pointers.append(nil)
        defer { for unsafe pointer in unsafe pointers { unsafe free(pointer) } }
        return unsafe body(pointers)
    }

    /// Becomes readable when the process has ended.
    public var descriptor: Int32 { handle.rawValue }

    /// Sends a signal. Nothing happens if the process has ended.
    public func send(signal: Int32) { _ = linux_pidfd_send_signal(handle.rawValue, signal) }

    /// Ends it and those that it has started, whatever sessions and groups they are in: for one that has not been reaped.
    public func killAll() {
        for process in Self.stopped(pid) { kill(process, SIGKILL) }
        send(signal: SIGKILL)
    }

    /// Stops a process and its descendants, from the top down: one that is stopped starts nobody, and reaps nobody, so that the numbers of its
    /// children stay theirs.
    private static func stopped(_ pid: Int32) -> [Int32] {
        guard kill(pid, SIGSTOP) == 0 else { return [] }
        let threads = (try? Files.names(in: "/proc/\(pid)/task")) ?? []
        let children = threads.flatMap { thread in
            (Files.processText("/proc/\(pid)/task/\(thread)/children") ?? "").split(separator: " ").compactMap { Int32($0) }
        }
        return [pid] + children.flatMap(stopped)
    }

    /// How the process ended, if it has; it is reaped then, and only the first answer counts: ask no more afterwards.
    public func reap() -> End? {
        var status: Int32 = 0
        guard unsafe linux_pidfd_reap(handle.rawValue, &status) == 1 else { return nil }
        return status < 256 ? .exited(status) : .killed(signal: status - 256)
    }

    /// Waits for the end and reaps; nil when `nanoseconds` pass first.
    public func wait(nanoseconds: UInt64) -> End? {
        Socket.wait(handle.rawValue, .readable, nanoseconds: nanoseconds) ? reap() : nil
    }
}
