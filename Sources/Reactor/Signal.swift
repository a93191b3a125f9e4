import Glibc

/// Signals that our processes send and receive.
public enum Signal {
    public static let kill = SIGKILL
    public static let terminate = SIGTERM
    public static let interrupt = SIGINT
    public static let hangup = SIGHUP
    /// Comes of writing where nobody reads: a log whose reader has gone.
    public static let pipe = SIGPIPE
    /// Comes of writing past the greatest length that this process may give a file; the call then fails with EFBIG.
    public static let fileTooLong = SIGXFSZ

    /// What a process is killed by for its own fault. (Not by `kill`, which only others send.)
    public static let crashes: Set<Int32> = [SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS]

    /// Has these signals do nothing in this process, whatever the kernel does by default. Processes that it starts take them the
    /// default way again.
    public static func ignore(_ signals: [Int32]) {
        for number in signals { _ = signal(number, SIG_IGN) }
    }
}
