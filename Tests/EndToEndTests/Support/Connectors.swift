import Foundation

/// stunnel with a configuration of a test's own, running.
final class Stunnel {
    let process: Running

    /// - Parameter configuration: its services; what keeps it in the foreground is put before them
    init(_ configuration: String, folder: Folder, ports: [Int]) throws {
        let file = try folder.write("foreground = yes\nsyslog = no\npid =\n\(configuration)\n", to: "stunnel.\(ports[0]).conf")
        process = try Running(["stunnel", file], folder: folder)
        guard eventually(within: 10, { process.poll() != nil || ports.allSatisfy { !Wire.isFree(port: $0) } }), process.poll() == nil else {
            throw Failure("stunnel does not start:\n\(process.output)")
        }
    }
    deinit { process.kill() }

    /// One that takes TLS connections in front of a clear port.
    /// - Parameter more: lines that say who is let in
    static func server(accept: Int, clear: Int, _ credentials: Credentials, more: String = "", folder: Folder) throws -> Stunnel {
        try Stunnel(
            """
            [portal]
            accept = 127.0.0.1:\(accept)
            connect = 127.0.0.1:\(clear)
            cert = \(credentials.certificate)
            key = \(credentials.key)
            sslVersionMin = TLSv1.3
            \(more)
            """, folder: folder, ports: [accept])
    }
}

/// tgt-connect with settings of a test's own, running.
final class Connector {
    let process: Running
    let ports: [Int]
    var log: String { process.output }

    static var program: String { (Subject.tgtd as NSString).deletingLastPathComponent + "/tgt-connect" }

    /// - Parameters:
    ///   - portals: for each where it listens, and lines of its settings
    init(_ portals: [(port: Int, lines: [String])], options: [String] = [], more: String = "", folder: Folder, environment: [String: String] = [:]) throws {
        ports = portals.map(\.port)
        let file = try folder.write(Self.settings(portals) + more, to: "connect.\(ports[0]).yaml")
        process = try Running([Self.program, "--config", file] + options, environment: environment, folder: folder)
        try waitUntilReady()
    }

    /// With a settings file that is there.
    init(settings: String, ports: [Int], folder: Folder) throws {
        self.ports = ports
        process = try Running([Self.program, "--config", settings], folder: folder)
        try waitUntilReady()
    }
    deinit { process.kill() }

    static func settings(_ portals: [(port: Int, lines: [String])]) -> String {
        "portals:\n" + portals.map { portal in
            "  - listen: 127.0.0.1:\(portal.port)\n" + portal.lines.map { "    \($0)\n" }.joined()
        }.joined()
    }

    private func waitUntilReady() throws {
        let ready = eventually(within: 10) { process.poll() != nil || ports.allSatisfy { log.contains("127.0.0.1:\($0) leads to") } }
        guard ready, process.poll() == nil else { throw Failure("tgt-connect does not start:\n\(log)") }
    }

    func says(_ text: String, within seconds: Double = 10) -> Bool { eventually(within: seconds) { log.contains(text) } }
    var evidence: String { "tgt-connect's log:\n\(log.suffix(4000))" }
}
