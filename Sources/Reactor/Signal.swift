import Glibc

/// Signals that our processes send and receive.
public enum Signal {
    public static let kill = SIGKILL
    public static let terminate = SIGTERM
    public static let interrupt = SIGINT
    public static let hangup = SIGHUP
}
