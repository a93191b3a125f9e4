import Administration
import Bytes
import Crypto
import JSON
import Logging
import Management
import Model
import Reactor

/// The control process from its command line to its exit code.
public enum Daemon {
    static let defaultConfig = "/etc/tgt/tgtd.yaml"
    static let defaultPolicy = "/etc/tgt/policy.yaml"
    static let defaultState = "/var/lib/tgt"
    /// A settings file is a page or two.
    static let configLimit = 1 << 20

    /// Runs until it is told to stop.
    /// - Parameters:
    ///   - isInBackground: descriptor `Role.door` leads to the process that waits until this one serves
    ///   - setLevel: sets what is logged from now on
    /// - Returns: the exit code
    public static func run(
        _ options: LaunchOptions, isInBackground: Bool, log: Logger, setLevel: @escaping (Logger.Level) -> Void
    ) -> Int32 {
        do {
            var trouble: (any Error)?
            let (control, loop) = try start(options, isInBackground: isInBackground, log: log, setLevel: setLevel) { trouble = $0 }
            loop.run()
            _ = control
            if let trouble { throw trouble }
            return 0
        } catch {
            log.critical("\(error)")
            return 1
        }
    }

    private static func start(
        _ options: LaunchOptions, isInBackground: Bool, log: Logger, setLevel: @escaping (Logger.Level) -> Void, fail: @escaping (any Error) -> Void
    ) throws -> (Control, EventLoop) {
        let demonstration = try options.demo.map(Demonstration.init)
        let (settings, source) = try settings(options, demonstration)
        setLevel(settings.logLevel.level)
        // A connection is a descriptor; our own limits are what bounds them.
        let descriptors = try Host.raiseDescriptorLimit()
        if let shortage = settings.limits.shortage(of: descriptors) { log.error("\(shortage)") }
        let loop = try EventLoop()
        var stop: (ReceivedSignal) -> Void = { _ in }
        var reload: (ReceivedSignal) -> Void = { _ in }
        // Before the first child and the first thread, so that nobody takes them the default way.
        let signals = try SignalSource(loop, [Signal.terminate, Signal.interrupt, Signal.hangup]) { $0.number == Signal.hangup ? reload($0) : stop($0) }
        // Before the state: a second daemon on the same socket is told of the socket.
        let lock = try ManagementSocket.lock(socketPath(options, demonstration))
        let state = try stateDirectory(options, settings, demonstration).map(StateDirectory.init)
        let installation = try state.map { try Installation.identity(in: $0.path) } ?? Installation.fresh()
        let policy = policySource(options, settings, demonstration)
        var access = SocketAccess()
        access.mode = settings.socketMode
        if let name = settings.socketGroup {
            guard let group = Identity.group(named: name) else { throw StartError("there is no group \(name) for the management socket") }
            access.group = group
        }
        let administration = try AdministrationOptions(socket: access, source: policy, policy: policy?.read(), pamDirectory: settings.pamDirectory)
        let control = Control(
            loop: loop,
            options: ControlOptions(
                settings: settings, identity: IdentitySource(installation: installation, keepsTgtDefaults: options.compatibleIdentifiers),
                socket: socketPath(options, demonstration), administration: administration, user: try Identity.forNetwork(settings.user), state: state, logsToSystem: isInBackground, descriptors: descriptors,
                launch: (CommandLine.arguments.dropFirst().map { escaped($0.utf8, limit: 4096) }.joined(separator: " "), source)),
            lock: lock, log: log)
        control.setDebug = { setLevel($0 ? .debug : settings.logLevel.level) }
        stop = { [control, signals] signal in
            _ = signals
            control.stop(signal)
        }
        reload = { [unowned control] signal in control.reload(signal) }
        try control.start { [unowned control] trouble in
            do {
                if let trouble { throw trouble }
                if let pidFile = options.pidFile { try Files.replace(pidFile, with: Array("\(Host.processID)\n".utf8), mode: 0o644) }
            } catch {
                fail(error)
                return control.stop("it cannot start: \(error)")
            }
            if let demonstration {
                demonstration.build(control, socketBase: socketBase(demonstration) ?? "") { Console.output($0) }
            }
            log.notice("tgtd \(LaunchOptions.version) is ready", metadata: ["socket": "\(socketPath(options, demonstration))"])
            ServiceManager.notify("READY=1")
            if isInBackground { Background.serves(FileDescriptor(owning: Role.door)) }
        }
        return (control, loop)
    }

    /// The settings file, and what the command line puts in the place of its settings.
    /// - Returns: where they are from, as well: the file and its digest
    private static func settings(_ options: LaunchOptions, _ demonstration: Demonstration?) throws -> (Settings, source: String) {
        var settings = Settings()
        var source = "none"
        let path = options.config ?? defaultConfig
        if options.config != nil || demonstration == nil {
            if let bytes = try Files.readTrusted(path, limit: configLimit) {
                settings = try Settings(yaml: String(decoding: bytes, as: UTF8.self), file: path)
                source = "\(path), SHA-256 \(Digest.sha256.text(of: bytes))"
            } else if options.config != nil {
                throw StartError("\(path): there is no such file")
            }
        }
        if let threads = options.ioThreads { settings.ioThreads = threads }
        if let interval = options.nopInterval { settings.nopInterval = interval }
        if let count = options.nopCount { settings.nopCount = count }
        if options.debug { settings.logLevel = .debug }
        if let mode = options.socketMode { settings.socketMode = mode }
        if let group = options.socketGroup { settings.socketGroup = group }
        if !options.portals.isEmpty {
            settings.portals = options.portals
        } else if settings.portals.isEmpty {
            settings.portals = demonstration?.portals ?? Settings.everywhere
        }
        return (settings, source)
    }

    /// Where policy is: where the command line or the settings say, else where it always is; nowhere for a demonstration.
    private static func policySource(_ options: LaunchOptions, _ settings: Settings, _ demonstration: Demonstration?) -> PolicyFile.Source? {
        switch options.policy {
        case .file(let path): .init(path: path, isRequired: true)
        case LaunchOptions.Policy.none?: nil
        case nil:
            if let path = settings.policy { .init(path: path, isRequired: true) } else if demonstration == nil { .init(path: defaultPolicy, isRequired: false) } else { nil }
        }
    }

    private static func socketBase(_ demonstration: Demonstration?) -> String? {
        Host.environment("TGT_IPC_SOCKET") ?? demonstration.map { $0.directory + "/socket" }
    }

    private static func socketPath(_ options: LaunchOptions, _ demonstration: Demonstration?) -> String {
        ManagementSocket.path(base: socketBase(demonstration), controlPort: options.controlPort)
    }

    /// Where something is kept: where the command line or the settings say, else one directory for each control port; nowhere for a
    /// daemon that has been given a socket of its own, as tests and benchmarks do.
    private static func stateDirectory(_ options: LaunchOptions, _ settings: Settings, _ demonstration: Demonstration?) -> String? {
        switch options.state {
        case .directory(let chosen): return chosen
        case LaunchOptions.State.none?: return nil
        case nil:
            if let demonstration { return demonstration.directory + "/state" }
            if let state = settings.state { return "\(state)/\(options.controlPort)" }
            return Host.environment("TGT_IPC_SOCKET") == nil ? "\(defaultState)/\(options.controlPort)" : nil
        }
    }
}

extension Settings {
    /// Every address of the host, as with tgt.
    static let everywhere = ["0.0.0.0:3260", "[::]:3260"].compactMap { try? Portal(parsing: Array($0.utf8)) }
}

extension Settings.LogLevel {
    var level: Logger.Level {
        switch self {
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}

extension Digest {
    /// In hexadecimal digits.
    func text(of bytes: [UInt8]) -> String {
        var state = DigestState(self)
        state.update(bytes.span)
        return JSONValue.hexadecimal(state.finish())
    }
}
