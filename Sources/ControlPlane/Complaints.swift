import Logging
import Reactor

/// Lines of the log that users of the management socket cause who ask what they may not, or nothing that can be understood: so many of each in a minute,
/// then their number.
final class Complaints {
    private struct Window {
        let start: UInt64
        var lines = 0
    }
    /// Lines of one user in a window, and its nanoseconds.
    static let perUser = 20
    static let window: UInt64 = 60_000_000_000
    /// Users who are told apart.
    static let users = 1024
    /// Who stands for all the others: nobody has this number.
    private static let others = UInt32.max

    private let loop: EventLoop
    private let log: Logger
    private var windows: [UInt32: Window] = [:]

    init(loop: EventLoop, log: Logger) {
        self.loop = loop
        self.log = log
    }

    /// - Parameter metadata: but for the user's number
    func note(_ level: Logger.Level, of uid: UInt32, _ text: @autoclosure () -> String, _ metadata: @autoclosure () -> Logger.Metadata = [:]) {
        guard admits(uid) else { return }
        log.log(level: level, "\(text())", metadata: metadata().merging(["uid": "\(uid)"]) { first, _ in first })
    }

    private func admits(_ uid: UInt32) -> Bool {
        let uid = windows[uid] == nil && windows.count >= Self.users ? Self.others : uid
        if windows[uid] == nil {
            windows[uid] = Window(start: loop.now)
            loop.after(nanoseconds: Self.window) { [weak self] in self?.end(uid) }
        }
        windows[uid]?.lines += 1
        return windows[uid]?.lines ?? 0 <= Self.perUser
    }

    private func end(_ uid: UInt32) {
        guard let window = windows.removeValue(forKey: uid), window.lines > Self.perUser else { return }
        log.warning("\(window.lines - Self.perUser) more lines about the management requests of a user are left out", metadata: ["uid": "\(uid == Self.others ? "others" : "\(uid)")"])
    }
}
