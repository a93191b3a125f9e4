import Logging
import Reactor
import Storage
import TLS

/// What a login or data process is told when it is started.
public struct RoleOptions: Sendable {
    /// Who to become; nil: whoever it is.
    public var identity: Identity?
    /// The control process.
    public var parent: Int32
    public var login: LoginOptions
    public var data: DataOptions

    public init(identity: Identity?, parent: Int32, login: LoginOptions, data: DataOptions) {
        self.identity = identity
        self.parent = parent
        self.login = login
        self.data = data
    }
}

/// The processes that meet the network, from their start to their exit code.
public enum NetworkRole {
    /// Runs a login process until control is gone.
    /// - Parameter page: where it notes whose bytes it works on
    public static func runLogin(door: consuming FileDescriptor, page: consuming FileDescriptor, _ options: RoleOptions, log: Logger) -> Int32 {
        run(door, page, options, log, usesRings: false, prepare: {}) { loop, door throws(SystemError) in
            try LoginService(loop: loop, door: door, options: options.login, log: log)
        }
    }

    /// Runs a data process until control is gone.
    /// - Parameter page: where it notes whose bytes it works on
    public static func runData(door: consuming FileDescriptor, page: consuming FileDescriptor, _ options: RoleOptions, log: Logger) -> Int32 {
        let rings = options.data.gathersReads ? rings(options.data.reactors, log) : []
        return run(door, page, options, log, usesRings: !rings.isEmpty, prepare: TLSLibrary.prepare) { loop, door throws(SystemError) in
            try DataProcess(loop: loop, door: door, options: options.data, logins: options.login, rings: rings, log: log)
        }
    }

    /// As many rings as the kernel gives, at most `count`.
    private static func rings(_ count: Int, _ log: Logger) -> [ReadRing] {
        var rings: [ReadRing] = []
        do throws(SystemError) {
            for _ in 0..<count { rings.append(try ReadRing()) }
        } catch {
            log.info("io_uring is not to be had from this kernel, so each read takes a call of its own: \(error)")
        }
        return rings
    }

    /// Goes into confinement before anything is read and before the first thread is started, then runs.
    private static func run<Process>(
        _ door: consuming FileDescriptor, _ page: consuming FileDescriptor, _ options: RoleOptions, _ log: Logger, usesRings: Bool,
        prepare: () -> Void,
        _ make: (EventLoop, consuming FileDescriptor) throws(SystemError) -> Process
    ) -> Int32 {
        do {
            try Work.join(page)
            prepare()
            let walls = try Sandbox.enter(identity: options.identity, parent: options.parent, usesRings: usesRings)
            if walls.landlock == nil { log.warning("this kernel has no Landlock; the filter of system calls holds alone") }
            Work.takePlace(WorkPlace.door)
            let loop = try EventLoop()
            let process = try make(loop, door)
            loop.run()
            return withExtendedLifetime(process) { 0 }
        } catch {
            log.critical("it cannot run confined: \(error)")
            return 1
        }
    }
}

/// Places on the page of work: each thread that touches what peers send has one of its own.
enum WorkPlace {
    /// Of the thread that speaks with control, and with newcomers: in a login process it is the only one.
    static let door = 0
    static func handshakes(_ number: Int) -> Int { 1 + number }
    static func reactor(_ number: Int) -> Int { handshakes(HandshakeLimits.threads) + number }
}
