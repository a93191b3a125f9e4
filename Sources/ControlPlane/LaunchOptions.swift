import Model
import Reactor

/// What the command line of `tgtd` asks for: tgt's own options (their spelling, their exit codes) and ours.
public struct LaunchOptions: Sendable, Equatable {
    public enum Mode: Sendable, Equatable {
        /// Detach from the terminal, tgt's default.
        case daemon
        /// `-f`: stay in front, log to standard error.
        case foreground
    }

    public var mode = Mode.daemon
    /// `-C`: which management socket, for several daemons on one host.
    public var controlPort = 0
    /// `-t`: threads for I/O that may block; overrides the settings file.
    public var ioThreads: Int?
    public var pidFile: String?
    public var debug = false
    /// `--iscsi portal=…`: these take the place of the portals of the settings file.
    public var portals: [Portal] = []
    public var nopInterval: Int?
    public var nopCount: Int?
    public var config: String?
    /// `--state DIR`; `none` keeps nothing.
    public var state: State?
    public enum State: Sendable, Equatable { case directory(String), none }
    /// `--policy FILE`; `none` has no policy: only our own user administers.
    public var policy: Policy?
    public enum Policy: Sendable, Equatable { case file(String), none }
    /// `--socket-mode`, `--socket-group`: who may connect to the management socket.
    public var socketMode: UInt32?
    public var socketGroup: String?
    /// `--compat-ids`: SCSI ids and serial numbers as tgt derives them.
    public var compatibleIdentifiers = false
    /// `--demo DIR`: a demonstration disk and target in DIR.
    public var demo: String?

    public init() {}

    /// What `main` is to do.
    public enum Parsed: Sendable, Equatable {
        case run(LaunchOptions)
        /// Print this on standard output and exit with 0.
        case say(String)
        /// Print this on standard error and exit with the code: 1 unknown option, 34 (ERANGE) out of range, 22 (EINVAL) other.
        case refuse(String, code: Int32)
    }

    public static let version = "0.1.0"
    /// As tgt's: the management socket's suffix.
    static let controlPorts = 0...32767

    public static let usage = """
        Usage: tgtd [OPTION]
        Serve block devices to iSCSI initiators.

          -f, --foreground        stay in the foreground, log to standard error
          -D, --nodaemonize       the same
          -C, --control-port N    use management socket N (0…32767, default 0)
          -t, --nr_iothreads N    threads for I/O that may block (default 16)
          -p, --pid-file FILE     write the process id to FILE
          -d, --debug N           1: log everything
              --iscsi OPTIONS     portal=ADDRESS[:PORT] (repeatable; behind it, what tgtadm
                                  takes with it: tls=required,certificate=FILE,…),
                                  nop_interval=S, nop_count=N, joined by commas
              --config FILE       settings (default /etc/tgt/tgtd.yaml, if there is one)
              --state DIR         keep what is configured in DIR (default /var/lib/tgt/N,
                                  with a TGT_IPC_SOCKET none); none: keep nothing
              --policy FILE       who may administer (default /etc/tgt/policy.yaml, if there
                                  is one); none: only the user that tgtd runs as
              --socket-mode MODE  of the management socket (octal, default 0666)
              --socket-group NAME the management socket's group
              --compat-ids        SCSI ids and serial numbers as tgt makes them
              --demo DIR          serve a demonstration disk kept in DIR
          -V, --version           print the version and exit
          -h, --help              print this and exit

        """

    private struct Option {
        var long: String
        var short: Character?
        var takesValue = true
        var apply: @Sendable (inout LaunchOptions, String) -> Refusal?
    }
    private enum Refusal { case invalid(String), range(String), print(String) }

    private static func number(_ text: String, in range: ClosedRange<Int>, of option: String) -> Result<Int, OptionTrouble> {
        guard let value = Int(text) else { return .failure(.invalid("\(option) wants a number, not '\(text)'")) }
        guard range.contains(value) else { return .failure(.range("\(option) wants a number from \(range.lowerBound) to \(range.upperBound), not \(value)")) }
        return .success(value)
    }
    private enum OptionTrouble: Error { case invalid(String), range(String) }

    private static func numeric(
        _ long: String, _ short: Character?, _ range: ClosedRange<Int>, _ set: @escaping @Sendable (inout LaunchOptions, Int) -> Void
    ) -> Option {
        Option(long: long, short: short) { options, text in
            switch number(text, in: range, of: "--\(long)") {
            case .success(let value):
                set(&options, value)
                return nil
            case .failure(.invalid(let message)): return .invalid(message)
            case .failure(.range(let message)): return .range(message)
            }
        }
    }

    private static let options: [Option] = [
        Option(long: "foreground", short: "f", takesValue: false) { options, _ in options.mode = .foreground; return nil },
        Option(long: "nodaemonize", short: "D", takesValue: false) { options, _ in options.mode = .foreground; return nil },
        numeric("control-port", "C", controlPorts) { $0.controlPort = $1 },
        numeric("nr_iothreads", "t", 1...256) { $0.ioThreads = $1 },
        Option(long: "pid-file", short: "p") { options, text in options.pidFile = text; return nil },
        numeric("debug", "d", 0...1) { $0.debug = $1 == 1 },
        Option(long: "iscsi", short: nil) { options, text in options.applyDriver(text) },
        Option(long: "config", short: nil) { options, text in options.config = text; return nil },
        Option(long: "state", short: nil) { options, text in
            guard text == "none" || text.hasPrefix("/") else { return .invalid("--state wants an absolute directory or 'none'") }
            options.state = text == "none" ? State.none : .directory(text)
            return nil
        },
        Option(long: "policy", short: nil) { options, text in
            guard text == "none" || text.hasPrefix("/") else { return .invalid("--policy wants an absolute path or 'none'") }
            options.policy = text == "none" ? Policy.none : .file(text)
            return nil
        },
        Option(long: "socket-mode", short: nil) { options, text in
            guard let mode = Settings.socketMode(text) else { return .invalid("--socket-mode wants an octal number like 0660") }
            options.socketMode = mode
            return nil
        },
        Option(long: "socket-group", short: nil) { options, text in options.socketGroup = text; return nil },
        Option(long: "compat-ids", short: nil, takesValue: false) { options, _ in options.compatibleIdentifiers = true; return nil },
        Option(long: "demo", short: nil) { options, text in options.demo = text; return nil },
        Option(long: "version", short: "V", takesValue: false) { _, _ in .print(version + "\n") },
        Option(long: "help", short: "h", takesValue: false) { _, _ in .print(usage) },
    ]

    /// `portal=ADDRESS[:PORT]`, `nop_interval=S`, `nop_count=N`, joined by commas. Other names are parameters of the portal in front of them.
    private mutating func applyDriver(_ text: String) -> Refusal? {
        var described: [(place: String, parameters: [PortalParameter])] = []
        for item in text.split(separator: ",") {
            let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2 else { return .invalid("--iscsi: '\(item)' is not NAME=VALUE") }
            switch parts[0] {
            case "portal":
                described.append((parts[1], []))
            case "nop_interval":
                guard let value = Int(parts[1]), (0...3600).contains(value) else { return .range("--iscsi: nop_interval wants seconds from 0 to 3600") }
                nopInterval = value
            case "nop_count":
                guard let value = Int(parts[1]), (0...100).contains(value) else { return .range("--iscsi: nop_count wants a number from 0 to 100") }
                nopCount = value
            default:
                guard !described.isEmpty else { return .invalid("--iscsi: there is no option '\(parts[0])'") }
                described[described.count - 1].parameters.append(PortalParameter(name: Array(parts[0].utf8), value: Array(parts[1].utf8)))
            }
        }
        for (place, parameters) in described {
            do throws(ConfigurationError) { portals.append(try Portal(PortalAddress(parsing: Array(place.utf8)), parameters)) } catch {
                return .invalid("--iscsi: \(error.description)")
            }
            guard portals.count <= Settings.mostPortals else { return .range("--iscsi: at most \(Settings.mostPortals) portals") }
        }
        return nil
    }

    /// Reads the words behind the program's name.
    public static func parse(_ arguments: [String]) -> Parsed {
        var parsed = LaunchOptions()
        var rest = arguments[...]
        func unknown(_ text: String) -> Parsed { .refuse("tgtd: unrecognized option '\(text)'\nTry `tgtd --help' for more information.", code: 1) }

        /// Applies one option; nil: go on.
        func take(_ option: Option, value: String?) -> Parsed? {
            var value = value
            if option.takesValue, value == nil { value = rest.popFirst() }
            guard option.takesValue == (value != nil) else {
                return .refuse("tgtd: option '--\(option.long)' \(option.takesValue ? "requires an argument" : "doesn't allow an argument")", code: 1)
            }
            switch option.apply(&parsed, value ?? "") {
            case nil: return nil
            case .print(let text): return .say(text)
            case .invalid(let message): return .refuse("tgtd: \(message)", code: 22)
            case .range(let message): return .refuse("tgtd: \(message)", code: 34)
            }
        }

        while let word = rest.popFirst() {
            if word.hasPrefix("--") {
                let parts = word.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                let name = parts.first ?? ""
                let exact = options.filter { $0.long == name }
                let matches = exact.isEmpty ? options.filter { !name.isEmpty && $0.long.hasPrefix(name) } : exact
                // As with tgt, a driver's options are a word of their own.
                guard matches.count == 1, let option = matches.first, !(option.long == "iscsi" && parts.count == 2) else { return unknown(word) }
                if let end = take(option, value: parts.count == 2 ? parts[1] : nil) { return end }
            } else if word.hasPrefix("-"), word.count > 1 {
                var letters = word.dropFirst()
                while let letter = letters.popFirst() {
                    guard let option = options.first(where: { $0.short == letter }) else { return unknown("-\(letter)") }
                    var value: String?
                    if option.takesValue, !letters.isEmpty {
                        value = String(letters)
                        letters = ""
                    }
                    if let end = take(option, value: value) { return end }
                }
            } else {
                return unknown(word)
            }
        }
        return .run(parsed)
    }
}
