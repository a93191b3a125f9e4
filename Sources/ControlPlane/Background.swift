import Logging
import Reactor

/// A daemon that leaves the terminal, tgt's default. A process of Swift cannot fork safely, so tgtd starts itself again and waits
/// until that one serves: whoever started it learns whether it does.
public enum Background {
    /// First word of the process in the background; the words of the command line follow.
    public static let word = "--background"
    private static let ready: [UInt8] = Array("ready".utf8)

    /// In the process that was started: starts the daemon, waits until it serves.
    /// - Returns: the exit code
    public static func launch(_ words: [String]) -> Int32 {
        do {
            var theirs: FileDescriptor?
            let ours = try Socket.messagePair().split(&theirs)
            let child = try ChildProcess(
                arguments: ["tgtd", word] + words, environment: Host.wholeEnvironment, descriptors: [theirs.rawValue ?? -1])
            theirs = nil
            _ = Socket.wait(ours.rawValue, .readable, nanoseconds: .max)
            if case .message(let bytes, _) = Socket.receiveMessage(ours.rawValue), bytes == ready { return 0 }
            if case .exited(let code) = child.wait(nanoseconds: .max) { return code }
            return 1
        } catch {
            Console.error("tgtd: it cannot be started in the background: \(error)\n")
            return 1
        }
    }

    /// In the daemon, when it serves: says so, and forgets the terminal.
    static func serves(_ door: consuming FileDescriptor) {
        _ = Socket.sendMessage(door.rawValue, ready)
        Console.forgetTerminal()
    }
}
