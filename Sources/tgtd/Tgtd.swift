import CForget
import ControlPlane
import DataPlane
import Glibc
import Logging
import Logs
import Reactor

/// `tgtd`: the control process, or one of the processes that it starts from this same file.
@main
struct Tgtd {
    static func main() {
        Signal.ignore([Signal.pipe, Signal.fileTooLong])
        var words = Array(CommandLine.arguments.dropFirst())
        if words.first == "--role" {
            exit(RoleArguments(words.dropFirst()).map(run) ?? 22)
        }
        let isInBackground = words.first == Background.word
        if isInBackground {
            words.removeFirst()
            Console.leaveTerminal()
        }
        switch LaunchOptions.parse(words) {
        case .say(let text):
            Console.output(text)
            exit(0)
        case .refuse(let text, let code):
            Console.error(text + "\n")
            exit(code)
        case .run(let options):
            guard options.mode == .foreground || isInBackground else { exit(Background.launch(words)) }
            // Secrets are here.
            forget_what_is_freed(true)
            let log = logger("control", toSystemLog: isInBackground)
            exit(Daemon.run(options, isInBackground: isInBackground, log: log) { StandardErrorLog.level.store($0) })
        }
    }

    private static func logger(_ role: String, toSystemLog: Bool = false) -> Logger {
        if toSystemLog { Console.openSystemLog() }
        LoggingSystem.bootstrap { _ in StandardErrorLog(program: "tgtd", role: role, toSystemLog: toSystemLog) }
        return Logger(label: role)
    }

    private static func run(_ arguments: RoleArguments) -> Int32 {
        // A terminal and a service manager send these to all processes at once; ours end when control closes their doors.
        Signal.ignore([Signal.interrupt, Signal.terminate, Signal.hangup])
        let log = logger(arguments.role.rawValue, toSystemLog: arguments.logsToSystem)
        let door = FileDescriptor(owning: Role.door)
        switch arguments.role {
        case .login: return NetworkRole.runLogin(door: door, page: FileDescriptor(owning: Role.page), arguments.options, log: log)
        case .data: return NetworkRole.runData(door: door, page: FileDescriptor(owning: Role.page), arguments.options, log: log)
        case .administrator:
            // Whatever PAM's modules make of what has been typed.
            forget_what_is_freed(true)
            return AdministratorRole.run(door: door, parent: arguments.options.parent)
        case .opener: return OpenerRole.run(door: door, parent: arguments.options.parent)
        }
    }
}

/// `--role ROLE --parent PID --system-log 0|1 [--uid N --gid N] [--connections N --connections-per-source N]
/// [--reactors N --busy-poll MICROSECONDS --io-uring 0|1 --io-threads N --memory N]`: written by control, for nobody else.
private struct RoleArguments {
    let role: Role
    let options: RoleOptions
    let logsToSystem: Bool

    /// nil unless it is what control writes.
    init?(_ words: ArraySlice<String>) {
        guard let role = words.first.flatMap(Role.init) else { return nil }
        var numbers: [String: Int] = [:]
        var rest = words.dropFirst()
        while let name = rest.popFirst() {
            guard let value = rest.popFirst().flatMap({ Int($0) }), value >= 0 else { return nil }
            numbers[name] = value
        }
        var identity: Identity?
        if let uid = numbers["--uid"].flatMap(UInt32.init(exactly:)), let gid = numbers["--gid"].flatMap(UInt32.init(exactly:)), uid != 0 {
            identity = Identity(uid: uid, gid: gid)
        }
        self.role = role
        logsToSystem = numbers["--system-log"] == 1
        options = RoleOptions(
            identity: identity, parent: Int32(clamping: numbers["--parent"] ?? 0),
            login: LoginOptions(
                connections: max(1, numbers["--connections"] ?? 1), connectionsPerSource: max(1, numbers["--connections-per-source"] ?? 1)),
            data: DataOptions(
                reactors: max(1, numbers["--reactors"] ?? 1), ioThreads: max(1, numbers["--io-threads"] ?? 1),
                memory: max(64 << 20, numbers["--memory"] ?? 0), busyPoll: UInt64(numbers["--busy-poll"] ?? 0) * 1000,
                gathersReads: numbers["--io-uring"] == 1))
    }
}
