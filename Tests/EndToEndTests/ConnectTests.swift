import Foundation
import Glibc
import Testing

/// tgt-connect against stunnel, which stands for any TLS portal, in front of a clear portal of ours.
@Suite(.enabled(if: Subject.isPortcullis)) struct ConnectTests {
    static let name = "iqn.2026-11.org.example:web-1"

    /// A daemon on a clear portal, stunnel in front of it, an authority for both and for initiators.
    final class Rig {
        let daemon: Daemon
        let authority: Authority
        let portal: Credentials
        let port: Int
        let clear: Int
        private var server: Stunnel?
        private let more: String
        var folder: Folder { authority.folder }

        /// - Parameters:
        ///   - more: lines that say whom stunnel lets in
        ///   - issue: what the portal's certificate is issued with
        init(size: Int = 64 << 20, names: [String] = ["127.0.0.1"], issue: [String] = [], starts: Bool = true, more: (Authority) -> String = { _ in "" }) throws {
            daemon = try Daemon.serving(size: size)
            authority = try Authority()
            try authority.issue(["portal"] + names + issue)
            portal = Credentials(folder: "\(authority.path)/portals/\(names[0])")
            port = try Ports.next()
            clear = try Ports.next()
            self.more = more(authority)
            if starts { try start() }
        }

        func start() throws { server = try Stunnel.server(accept: port, clear: daemon.port, portal, more: more, folder: folder) }
        func stop() { server = nil }

        /// What every connector here needs, and what stands under its portal.
        func lines(_ more: String...) -> [String] { ["connect: 127.0.0.1:\(port)"] + more }
        func connector(_ lines: String..., more: String = "", options: [String] = []) throws -> Connector {
            try Connector([(clear, ["connect: 127.0.0.1:\(port)"] + lines)], options: options, more: more, folder: folder)
        }
        var ca: String { "ca: \(authority.certificate)" }
        func shown(_ credentials: Credentials) -> [String] { ["certificate: \(credentials.certificate)", "key: \(credentials.key)"] }

        func url(_ port: Int? = nil) -> String { "iscsi://127.0.0.1:\(port ?? clear)/\(Daemon.iqn("disk"))/1" }

        /// An image goes in and comes back as it was.
        func carries(_ size: Int = 24 << 20, port: Int? = nil, evidence: () -> String) throws {
            let source = try folder.randomFile("source", size: size), back = folder.fresh("back")
            let into = try run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, url(port), folder: folder)
            try #require(into.succeeded, "\(into.evidence)\n\(evidence())")
            let out = try run("qemu-img", "convert", "-f", "raw", "-O", "raw", url(port), back, folder: folder)
            try #require(out.succeeded, "\(out.evidence)\n\(evidence())")
            try must("truncate", "-s", String(size), back, folder: folder)
            #expect(try folder.sha256(source) == folder.sha256(back))
        }

        /// An initiator comes and is closed to, and the log says why, once.
        func refuses(_ connector: Connector, _ reason: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            for _ in 0..<3 {
                let wire = try Wire(port: clear)
                wire.send(Initiator.loginRequest(keys: ["InitiatorName=\(Initiator.name)", "SessionType=Discovery"]).bytes)
                #expect(wire.closes(within: 10), "\(connector.evidence)", sourceLocation: sourceLocation)
            }
            let lines = connector.log.split(separator: "\n").filter { $0.contains("error:") }
            #expect(lines.count == 1 && lines[0].contains(reason), "\(connector.evidence)", sourceLocation: sourceLocation)
        }
    }

    // MARK: What goes through

    @Test("A portal that is known by its authority and its name")
    func authority() throws {
        let rig = try Rig(names: ["localhost"])
        let connector = try rig.connector(rig.ca, "name: localhost")
        try rig.carries { connector.evidence }
        let list = try must("iscsi-ls", "iscsi://127.0.0.1:\(rig.clear)", folder: rig.folder)
        #expect(list.contains("Target:\(Daemon.iqn("disk"))"))
    }

    @Test("Both show certificates, of either kind", arguments: [[], ["--ed25519"]])
    func mutual(options: [String]) throws {
        let rig = try Rig(issue: options) { "CAfile = \($0.certificate)\nverifyChain = yes" }
        let initiator = try rig.authority.initiator(Self.name, options: options)
        let shown = rig.shown(initiator)
        let connector = try rig.connector(rig.ca, shown[0], shown[1])
        try rig.carries { connector.evidence }
    }

    @Test("A portal that is known by its key alone")
    func pinned() throws {
        let rig = try Rig(names: ["anything.example.org"])
        let connector = try rig.connector("pin: \(rig.portal.certificate)")
        try rig.carries { connector.evidence }
    }

    @Test("A pre-shared key, and no certificate")
    func preSharedKey() throws {
        let authority = try Authority()
        _ = try authority.initiator("iqn.2026-11.org.example:other", options: ["--psk"])
        let initiator = try authority.initiator(Self.name, options: ["--psk=web-1"])
        let daemon = try Daemon.serving(size: 64 << 20)
        let (port, clear) = (try Ports.next(), try Ports.next())
        // stunnel knows no third field.
        let keys = authority.folder.text(of: authority.preSharedKeys).split(separator: "\n").filter { !$0.hasPrefix("#") }
            .map { $0.split(separator: ":")[..<2].joined(separator: ":") + "\n" }.joined()
        let file = try authority.folder.write(keys, to: "keys")
        unsafe chmod(file, 0o600)
        let server = try Stunnel(
            """
            [portal]
            accept = 127.0.0.1:\(port)
            connect = 127.0.0.1:\(daemon.port)
            PSKsecrets = \(file)
            ciphers = PSK
            sslVersionMin = TLSv1.3
            """, folder: authority.folder, ports: [port])
        let connector = try Connector([(clear, ["connect: 127.0.0.1:\(port)", "psk-file: \(initiator.preSharedKey)"])], folder: authority.folder)
        let io = try run("qemu-io", "-f", "raw", "-c", "write -P 7 0 8M", "-c", "read -P 7 0 8M", "iscsi://127.0.0.1:\(clear)/\(Daemon.iqn("disk"))/1", folder: authority.folder)
        #expect(io.succeeded && !io.output.contains("failed"), "\(io.evidence)\n\(connector.evidence)\n\(server.process.output)")
    }

    @Test("TLS 1.2 where the policy allows it")
    func compatible() throws {
        let rig = try Rig { _ in "sslVersionMax = TLSv1.2\nsslVersionMin = TLSv1.2" }
        let connector = try rig.connector(rig.ca, "policy: 2026-11-compatible", options: ["--verbose"])
        try rig.carries { connector.evidence }
        #expect(connector.says("TLSv1.2"), "\(connector.evidence)")
    }

    @Test("Several portals in one process, each as its settings say, at once")
    func several() throws {
        let first = try Rig(), second = try Rig { "CAfile = \($0.certificate)\nverifyChain = yes" }
        let initiator = try second.authority.initiator(Self.name)
        let connector = try Connector(
            [
                (first.clear, first.lines("pin: \(first.portal.certificate)")),
                (second.clear, second.lines(second.ca, "certificate: \(initiator.certificate)", "key: \(initiator.key)")),
            ], folder: first.folder)
        let clients = try [(first, 0x11), (second, 0x22)].map { rig, pattern in
            try Running(["qemu-io", "-f", "raw", "-c", "write -P \(pattern) 0 32M", "-c", "read -P \(pattern) 0 32M", rig.url()], folder: rig.folder)
        }
        for client in clients {
            let finished = client.wait(seconds: 60)
            #expect(finished.succeeded && !finished.output.contains("failed"), "\(finished.evidence)\n\(connector.evidence)")
        }
        for (rig, pattern) in [(first, 0x11), (second, 0x22)] { try QemuIO(rig.daemon).check("read -P \(pattern) 0 32M") }
    }

    @Test("The bundle that certs/issue makes is all that an initiator's host needs", arguments: [[], ["--psk"]])
    func bundle(options: [String]) throws {
        let rig = try Rig(starts: false)
        let bundle = try rig.authority.initiator(Self.name, options: options + ["--portal", "127.0.0.1:\(rig.port),127.0.0.1:\(rig.clear)"])
        let check = try run(Connector.program, "--config", bundle.connectorSettings, "--check", folder: rig.folder)
        #expect(check.succeeded && check.output.contains("all is well; portals: 1"), "\(check.evidence)")
        let steps = rig.folder.text(of: "\(bundle.folder)/iscsiadm.txt")
        #expect(steps.contains("InitiatorName=\(Self.name)") && steps.contains("iscsiadm -m discovery -t sendtargets -p 127.0.0.1:\(rig.clear)\n"))
        let who = options.isEmpty ? "CAfile = \(rig.authority.certificate)\nverifyChain = yes" : "PSKsecrets = \(bundle.preSharedKey)\nciphers = PSK"
        let server = try Stunnel.server(accept: rig.port, clear: rig.daemon.port, rig.portal, more: who, folder: rig.folder)
        let connector = try Connector(settings: bundle.connectorSettings, ports: [rig.clear], folder: rig.folder)
        try rig.carries(4 << 20) { connector.evidence + server.process.output }
    }

    @Test("What it writes for stunnel does the same", arguments: ["mutual", "pin", "psk", "compatible"])
    func printStunnel(way: String) throws {
        let rig = try Rig(starts: false)
        let initiator = try rig.authority.initiator(Self.name, options: way == "psk" ? ["--psk"] : [])
        let asks = "CAfile = \(rig.authority.certificate)\nverifyChain = yes"
        let (lines, who): ([String], String) = switch way {
        case "pin": (["pin: \(rig.portal.certificate)"], "")
        case "psk": (["psk-file: \(initiator.preSharedKey)"], "PSKsecrets = \(initiator.preSharedKey)\nciphers = PSK")
        case "compatible": ([rig.ca, "policy: 2026-11-compatible"], "sslVersionMin = TLSv1.2\nsslVersionMax = TLSv1.2")
        default: ([rig.ca] + rig.shown(initiator), asks)
        }
        let server = try Stunnel.server(accept: rig.port, clear: rig.daemon.port, rig.portal, more: who, folder: rig.folder)
        let settings = try rig.folder.write(Connector.settings([(rig.clear, ["connect: 127.0.0.1:\(rig.port)"] + lines)]), to: "connect.yaml")
        let printed = try must(Connector.program, "--config", settings, "--print-stunnel", folder: rig.folder)
        let client = try Stunnel(printed, folder: rig.folder, ports: [rig.clear])
        try rig.carries(4 << 20) { printed + client.process.output + server.process.output }
    }

    // MARK: What does not

    @Test("A portal that is not the right one gets nothing, and the log says why")
    func wrongPortal() throws {
        let rig = try Rig(names: ["localhost"])
        let other = try Authority()
        let stranger = try other.portal("localhost")
        try rig.refuses(rig.connector("ca: \(other.certificate)", "name: localhost"), "no trusted authority has signed it")
        try rig.refuses(rig.connector(rig.ca, "name: portal.example.org"), "it is for another name")
        try rig.refuses(rig.connector(rig.ca), "it is for another name")
        try rig.refuses(rig.connector("pin: \(stranger.certificate)"), "it is not the pinned one")
        try rig.authority.issue("revoke", "portal", "localhost")
        try rig.refuses(rig.connector(rig.ca, "name: localhost", "crl: \(rig.authority.revocations)"), "it is revoked")
    }

    @Test("A certificate that has expired, or is not valid yet, is refused", arguments: [(["--from", "10 days ago", "--days", "5"], "it has expired"), (["--from", "2 days"], "it is not valid yet")])
    func outOfTime(issue: [String], reason: String) throws {
        let rig = try Rig(issue: issue)
        try rig.refuses(rig.connector(rig.ca), reason)
    }

    @Test("A portal that refuses us is told of with its reason")
    func refused() throws {
        let rig = try Rig { "CAfile = \($0.certificate)\nverifyChain = yes" }
        let other = try Authority()
        let stranger = try other.initiator(Self.name)
        try rig.refuses(rig.connector(rig.ca), "certificate required")
        try rig.refuses(rig.connector(rig.ca, "certificate: \(stranger.certificate)", "key: \(stranger.key)"), "unknown certificate authority")
    }

    @Test("A pre-shared key that the portal does not know, or knows otherwise")
    func wrongKey() throws {
        let rig = try Rig(starts: false)
        let right = try rig.authority.initiator(Self.name, options: ["--psk=web-1"])
        let server = try Stunnel.server(
            accept: rig.port, clear: rig.daemon.port, rig.portal, more: "PSKsecrets = \(right.preSharedKey)\nciphers = PSK", folder: rig.folder)
        for (name, line) in [("unknown", "web-2:\(String(repeating: "ab", count: 32))"), ("wrong", "web-1:\(String(repeating: "ab", count: 32))")] {
            let file = try rig.folder.write(line + "\n", to: name)
            unsafe chmod(file, 0o600)
            try rig.refuses(rig.connector("psk-file: \(file)"), "cannot be reached: ")
        }
        _ = server
    }

    @Test("A portal that speaks no TLS, or only an old one")
    func notTLS() throws {
        let old = try Rig { _ in "sslVersionMax = TLSv1.2\nsslVersionMin = TLSv1.2" }
        try old.refuses(old.connector(old.ca), "cannot be reached: ")
        let clear = try Ports.next()
        let connector = try Connector([(clear, ["connect: 127.0.0.1:\(old.daemon.port)", old.ca])], folder: old.folder)
        let wire = try Wire(port: clear)
        #expect(wire.closes(within: 15))
        #expect(connector.says("127.0.0.1:\(old.daemon.port) cannot be reached: "), "\(connector.evidence)")
    }

    @Test("A portal that is away is told of once, and reached again when it is back; sessions under way end")
    func away() throws {
        let rig = try Rig(starts: false)
        let connector = try rig.connector(rig.ca)
        try rig.refuses(connector, "127.0.0.1:\(rig.port) cannot be reached: connect: Connection refused")
        try rig.start()
        let initiator = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"))
        try initiator.settle()
        #expect(connector.says("127.0.0.1:\(rig.port) is reached again; failed connections before: 3"), "\(connector.evidence)")
        rig.stop()
        #expect(initiator.wire.closes(within: 10), "\(connector.evidence)")
        #expect(try Wire(port: rig.clear).closes(within: 10))
        try rig.start()
        try Initiator.login(port: rig.clear, target: Daemon.iqn("disk")).settle()
    }

    // MARK: Bounds

    /// A TLS server that does what one line says with the connection `c`, for one connection.
    private func server(_ line: String, _ rig: Rig) throws -> Running {
        let script = """
            import socket, ssl, time
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain("\(rig.portal.certificate)", "\(rig.portal.key)")
            listener = socket.create_server(("127.0.0.1", \(rig.port)))
            print("listens", flush=True)
            raw, _ = listener.accept()
            c = context.wrap_socket(raw, server_side=True)
            \(line)
            """
        let process = try Running(["python3", "-c", script], folder: rig.folder)
        try #require(eventually(within: 10) { process.output.contains("listens") }, "\(process.output)")
        return process
    }

    @Test("Who does not read holds the other side up, in bounded memory and without work", arguments: [true, false])
    func backPressure(portalSends: Bool) throws {
        let rig = try Rig(starts: false)
        let peer = try server(portalSends ? "while True: c.sendall(b'x' * 65536)" : "time.sleep(3600)", rig)
        let connector = try rig.connector(rig.ca)
        let before = Processes.anonymousBytes(of: connector.process.pid)
        let wire = try Wire(port: rig.clear)
        if portalSends {
            pause(seconds: 2)
        } else {
            let chunk = [UInt8](repeating: 7, count: 1 << 20)
            // Until nothing more is taken for a while.
            for _ in 0..<256 where wire.send(chunk, seconds: 1) < chunk.count { break }
        }
        let grown = Processes.anonymousBytes(of: connector.process.pid) - before
        #expect(grown < 4 << 20, "it has grown by \(grown) bytes")
        let cpu = Processes.cpuSeconds(of: connector.process.pid)
        pause(seconds: 1)
        #expect(Processes.cpuSeconds(of: connector.process.pid) - cpu < 0.1)
        if portalSends {
            // And it goes on where it was.
            #expect(wire.receive(64 << 20, seconds: 30)?.allSatisfy { $0 == UInt8(ascii: "x") } == true)
        }
        _ = peer
    }

    @Test("When one side has said its last, the other still does")
    func halfClose() throws {
        let rig = try Rig(starts: false)
        // Python's unwrap answers close_notify with its own, so this one sends first what it has received, and then ends.
        let peer = try server("d = c.recv(100); c.sendall(d * 1000); c.unwrap(); raw.close(); time.sleep(3600)", rig)
        let connector = try rig.connector(rig.ca)
        let wire = try Wire(port: rig.clear)
        wire.send(Array("0123456789".utf8))
        #expect(wire.receive(10_000) == Array(String(repeating: "0123456789", count: 1000).utf8), "\(connector.evidence)\n\(peer.output)")
        #expect(wire.closes(within: 5))
    }

    @Test("200 sessions at once")
    func crowd() throws {
        let rig = try Rig()
        let connector = try rig.connector(rig.ca)
        let before = Processes.anonymousBytes(of: connector.process.pid)
        func descriptors() -> Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(connector.process.pid)/fd").count) ?? -1 }
        let idle = descriptors()
        let sessions = try (0..<200).map { index in
            try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: "iqn.2026-11.org.example:host-\(index)")
        }
        for initiator in sessions { try initiator.settle() }
        for (index, initiator) in sessions.enumerated() {
            let data = [UInt8](repeating: UInt8(index), count: 512)
            let block = [UInt8(index >> 8), UInt8(index & 0xff)]
            #expect(try initiator.perform(cdb: [0x2a, 0, 0, 0] + block + [0, 0, 1, 0], write: data).status == 0)
            #expect(try initiator.perform(cdb: [0x28, 0, 0, 0] + block + [0, 0, 1, 0], read: 512).data == data)
        }
        let each = (Processes.anonymousBytes(of: connector.process.pid) - before) / sessions.count
        print("tgt-connect holds \(each) bytes for an idle session")
        #expect(each < 64 << 10)
        for initiator in sessions { initiator.wire.shutdown() }
        #expect(eventually(within: 10) { descriptors() == idle }, "\(descriptors()) are open\n\(connector.evidence)")
        try Initiator.login(port: rig.clear, target: Daemon.iqn("disk")).settle()
    }

    @Test("One connection more than the settings allow is closed at once")
    func limit() throws {
        let rig = try Rig()
        let connector = try rig.connector(rig.ca, more: "connections: 2\n")
        let sessions = try (0..<2).map { try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), isid: UInt8($0)) }
        #expect(try Wire(port: rig.clear).closes(within: 5))
        #expect(connector.says("2 connections are open"))
        for initiator in sessions { try initiator.settle() }
    }

    // MARK: The process

    @Test("It gives up what it does not need before it carries anything")
    func confined() throws {
        let rig = try Rig()
        let connector = try rig.connector(rig.ca)
        let pid = connector.process.pid
        #expect(eventually(within: 5) { Processes.status("Seccomp", of: pid) == "2" })
        #expect(Processes.status("NoNewPrivs", of: pid) == "1" && Processes.status("CapEff", of: pid) == "0000000000000000")
        #expect(Processes.status("CapBnd", of: pid) == "0000000000000000" || geteuid() != 0)
        if geteuid() == 0 { #expect(Processes.status("Uid", of: pid)?.hasPrefix("0") == false) }
        try rig.carries(1 << 20) { connector.evidence }
    }

    @Test("Of keys nothing is in its memory but what it works with, at first and when they have been read anew")
    func planted() throws {
        let rig = try Rig { "CAfile = \($0.certificate)\nverifyChain = yes" }
        // In one file with its certificate, as some keep them.
        let (both, shared) = (rig.folder.path("both"), rig.folder.path("shared"))
        func draw(_ host: String) throws -> (texts: [[UInt8]], number: [[UInt8]], key: [UInt8]) {
            let certified = try rig.authority.initiator("\(Self.name)-\(host)")
            let text = rig.folder.text(of: certified.key)
            _ = try rig.folder.write(rig.folder.text(of: certified.certificate) + text, to: "both")
            let key = (0..<32).map { _ in UInt8.random(in: 0...255) }
            let digits = key.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
            _ = try rig.folder.write("# one of another\nother:\(String(repeating: "0", count: 64))\nhost:\(digits)\n", to: "shared")
            for file in [both, shared] { unsafe chmod(file, 0o600) }
            // The number that a P-256 key is (RFC 5915 §3), in either order.
            try must("openssl", "pkey", "-in", certified.key, "-outform", "DER", "-out", rig.folder.path("der"), folder: rig.folder)
            let der = [UInt8](try #require(FileManager.default.contents(atPath: rig.folder.path("der"))))
            let start = try #require(der.indices.first { der[$0...].starts(with: [0x02, 0x01, 0x01, 0x04, 0x20]) }) + 5
            let number = Array(der[start..<start + 32])
            return ([Array(text.split(separator: "\n")[1].utf8), Array(digits.utf8)], [number, number.reversed()], key)
        }
        let (port, clear) = (try Ports.next(), try Ports.next())
        /// Who knows the keys as they are now.
        func server() throws -> Stunnel {
            // stunnel knows no remarks.
            let file = try rig.folder.write(rig.folder.text(of: shared).split(separator: "\n").dropFirst().joined(separator: "\n") + "\n", to: "keys")
            unsafe chmod(file, 0o600)
            return try Stunnel.server(accept: port, clear: rig.daemon.port, rig.portal, more: "PSKsecrets = \(file)\nciphers = PSK", folder: rig.folder)
        }
        let first = try draw("1")
        var peer: Stunnel? = try server()
        let connector = try Connector(
            [
                (rig.clear, rig.lines(rig.ca, "certificate: \(both)", "key: \(both)")),
                (clear, ["connect: 127.0.0.1:\(port)", "psk-file: \(shared)", "psk-identity: host"]),
            ], folder: rig.folder)
        let processes = [connector.process.pid] + Processes.children(of: connector.process.pid)
        try #require(processes.count == 2)
        func held(_ bytes: [[UInt8]]) throws -> [Int] { try rig.folder.copies(of: bytes, in: processes).flatMap(\.self) }
        func check(_ drawn: (texts: [[UInt8]], number: [[UInt8]], key: [UInt8]), isUsed: Bool) throws {
            let (texts, number, key) = try (held(drawn.texts), held(drawn.number), held([drawn.key]))
            #expect(texts == [0, 0, 0, 0] && number.reduce(0, +) == (isUsed ? 1 : 0) && key == [isUsed ? 1 : 0, 0], "\(texts) \(number) \(key)\n\(connector.evidence)")
        }
        func carries() throws {
            for port in [rig.clear, clear] { try rig.carries(1 << 20, port: port) { connector.evidence } }
        }
        try check(first, isUsed: true)
        try carries()
        let staying = try [rig.clear, clear].map { try Initiator.login(port: $0, target: Daemon.iqn("disk"), name: "\(Self.name)-\($0)") }
        for initiator in staying { try initiator.settle() }
        try check(first, isUsed: true)
        for initiator in staying { initiator.wire.shutdown() }
        let second = try draw("2")
        connector.process.signal(SIGHUP)
        #expect(connector.says("certificates and keys have been read anew"), "\(connector.evidence)")
        peer = nil
        peer = try server()
        try carries()
        try check(second, isUsed: true)
        try check(first, isUsed: false)
        _ = peer
    }

    @Test("It ends cleanly when it is told to, and says to the service manager when it is ready", arguments: [SIGTERM, SIGINT])
    func ends(signal: Int32) throws {
        let rig = try Rig()
        let socket = rig.folder.path("notify")
        let listener = try Running(
            ["python3", "-c", "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('\(socket)'); print(s.recv(100).decode())"], folder: rig.folder)
        #expect(eventually(within: 10) { FileManager.default.fileExists(atPath: socket) })
        let connector = try Connector([(rig.clear, rig.lines(rig.ca))], folder: rig.folder, environment: ["NOTIFY_SOCKET": socket])
        #expect(eventually(within: 5) { listener.output.contains("READY=1") })
        let initiator = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"))
        connector.process.signal(signal)
        #expect(connector.process.wait(seconds: 5).succeeded, "\(connector.evidence)")
        #expect(initiator.wire.closes(within: 2))
        #expect(!connector.log.contains("error"), "\(connector.evidence)")
    }

    @Test("A key that others can read, or that is not the certificate's, and a file that is missing, keep it from running")
    func files() throws {
        let rig = try Rig(starts: false)
        let initiator = try rig.authority.initiator(Self.name)
        let shared = try rig.authority.initiator("iqn.2026-11.org.example:web-2", options: ["--psk"])
        func outcome(_ lines: [String], more: String = "") throws -> String {
            let settings = try rig.folder.write(Connector.settings([(rig.clear, rig.lines() + lines)]) + more, to: "connect.yaml")
            let (check, start) = (try run(Connector.program, "--config", settings, "--check", folder: rig.folder), try run(Connector.program, "--config", settings, folder: rig.folder, seconds: 5))
            #expect(!check.succeeded && start.ending == .exited(1), "\(check.evidence)\n\(start.evidence)")
            return check.output
        }
        let lines = [rig.ca] + rig.shown(initiator)
        for path in [initiator.key, shared.preSharedKey] {
            let settings = path == initiator.key ? lines : ["psk-file: \(path)"]
            unsafe chmod(path, 0o640)
            #expect(try outcome(settings).contains("\(path): can be read by others; take that away (chmod 600)"))
            unsafe chmod(path, 0o600)
            if geteuid() == 0 {
                unsafe chown(path, 12345, 0)
                #expect(try outcome(settings).contains("\(path): belongs to uid 12345"))
                unsafe chown(path, 0, 0)
            }
        }
        #expect(try outcome([rig.ca, "certificate: \(initiator.certificate)", "key: \(rig.portal.key)"]).contains("is not the key of"))
        #expect(try outcome([rig.ca, "certificate: \(initiator.certificate)", "key: \(initiator.certificate)"]).contains("can be read by others"))
        #expect(try outcome(["ca: \(rig.folder.path("nothing"))"]).contains("nothing: No such file or directory"))
        #expect(try outcome(["ca: \(initiator.key)"]).contains(": "))
        #expect(try outcome([rig.ca], more: "colour: red\n").contains("connect.yaml:5: there is no setting colour"))
        #expect(try outcome([rig.ca], more: "user: root\n").contains("root") || geteuid() != 0)
        let key = rig.folder.text(of: initiator.key).split(separator: "\n")[1]
        #expect(try !outcome([rig.ca, "certificate: \(initiator.certificate)", "key: \(rig.portal.key)"]).contains(key))
        // A port that is taken.
        let taken = try Daemon.serving()
        let settings = try rig.folder.write(Connector.settings([(taken.port, rig.lines(rig.ca))]), to: "taken.yaml")
        let start = try run(Connector.program, "--config", settings, folder: rig.folder, seconds: 5)
        #expect(start.ending == .exited(1) && start.output.contains("listen on 127.0.0.1:\(taken.port): Address already in use"), "\(start.evidence)")
    }
}
