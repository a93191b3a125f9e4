import CForget
import Crypto
import Logging
import Reactor
import SettingsFile
import TLS

/// tgt-connect from its settings to its exit code.
public enum ConnectorProgram {
    public static let defaultSettings = "/etc/tgt/connect.yaml"
    /// A settings file is a page or two.
    private static let mostBytes = 1 << 20
    /// Descriptors beside two for each connection: listeners, epoll, signals, standard streams, the keeper of files.
    private static let spareDescriptors = ConnectorSettings.mostPortals + 16

    /// Reads a settings file. What it names beside itself has its whole path from then on.
    public static func settings(_ file: String) throws -> ConnectorSettings {
        let path = file.hasPrefix("/") ? file : "\(Host.currentDirectory ?? ".")/\(file)"
        guard let bytes = try Files.readTrusted(path, limit: mostBytes) else { throw FileError(path, "there is no such file") }
        return try ConnectorSettings(yaml: String(decoding: bytes, as: UTF8.self), file: path)
    }

    /// What is to be served, with everything that is not there any more once the program is confined.
    struct Plan {
        var title: String
        var listen: SocketAddress
        var addresses: [SocketAddress]
        var secure: (Int32) -> any Stream
    }

    /// Reads every file, makes what comes of them, and asks for every name; nothing is opened to the network.
    static func plans(_ settings: ConnectorSettings) throws -> [Plan] {
        try settings.portals.map { portal in
            let secure = try streams(portal, PortalFiles(portal))
            let addresses = try SocketAddress.resolve(host: portal.host, port: portal.port)
            return Plan(title: portal.title, listen: portal.listen, addresses: addresses, secure: secure)
        }
    }

    /// What makes secure streams to a portal. OpenSSL frees what it has made of a key on the way, without wiping all of it.
    private static func streams(_ portal: PortalSettings, _ files: PortalFiles) throws -> (Int32) -> any Stream {
        forget_what_is_freed(true)
        defer { forget_what_is_freed(false) }
        let context = try files.context(portal)
        return { SecureStream(context, descriptor: $0) }
    }

    /// The files have been read anew: all of them are right, or nothing changes.
    private static func renew(_ connector: Connector, _ settings: ConnectorSettings, _ read: Result<KeptFiles.Contents, FileError>, _ log: Logger) {
        do {
            let contents = try read.get()
            connector.renew(try settings.portals.map { portal in try streams(portal, PortalFiles(portal) { contents[$0] ?? Secret([]) }) })
            log.notice("certificates and keys have been read anew")
        } catch {
            log.error("nothing is read anew: \(error)")
        }
    }

    /// Whether the program would run with these settings.
    public static func check(_ settings: ConnectorSettings) throws {
        _ = try plans(settings)
        _ = try Identity.forNetwork(settings.user)
    }

    /// Serves until SIGTERM or SIGINT; reads the files that the settings name anew at SIGHUP.
    /// - Returns: the exit code
    public static func run(_ settings: ConnectorSettings, log: Logger) -> Int32 {
        do {
            // A connection is two descriptors; our own limit is what bounds them.
            let descriptors = try Host.raiseDescriptorLimit()
            if descriptors < 2 * settings.connections + spareDescriptors {
                log.warning("this process may open \(descriptors) files: too few for \(settings.connections) connections")
            }
            let loop = try EventLoop()
            loop.giveWay()
            let connector = Connector(loop, connections: settings.connections, log: log)
            let files = try KeptFiles(loop, Array(Set(settings.portals.flatMap(\.files)))) { renew(connector, settings, $0, log) }
            let signals = try SignalSource(loop, [Signal.terminate, Signal.interrupt, Signal.hangup]) { [unowned loop] signal in
                if signal.number == Signal.hangup { files.read() } else { loop.stop() }
            }
            TLSLibrary.prepare()
            let plans = try plans(settings)
            for plan in plans {
                try connector.serve(Socket.listen(on: plan.listen), title: plan.title, addresses: plan.addresses, secure: plan.secure)
            }
            // Who connects from now on waits until we are confined; nobody can be told any more afterwards.
            ServiceManager.notify("READY=1")
            let walls = try Sandbox.enter(
                identity: Identity.forNetwork(settings.user), parent: nil, connectingTo: Array(Set(plans.flatMap { $0.addresses.map(\.port) })))
            if walls.landlock == nil { log.warning("this kernel has no Landlock; the filter of system calls holds alone") }
            for plan in plans { log.notice("\(plan.listen) leads to \(plan.title)") }
            loop.run()
            connector.close()
            return withExtendedLifetime(signals) { 0 }
        } catch {
            log.critical("\(error)")
            return 1
        }
    }
}
