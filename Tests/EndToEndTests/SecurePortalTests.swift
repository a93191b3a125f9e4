import Foundation
import Glibc
import Testing

/// Portals with TLS and programs that nobody here wrote: stunnel with libiscsi and QEMU behind it, `openssl s_client`, Python's ssl.
@Suite(.enabled(if: Subject.isPortcullis)) struct SecurePortalTests {
    static let name = "iqn.2026-11.org.example:web-1"
    static let stranger = "iqn.2026-11.org.example:stranger"

    /// How the two ends know each other.
    enum Way: String, CaseIterable, CustomTestStringConvertible {
        case serverCertificate, mutual, preSharedKey
        var testDescription: String { rawValue }
    }
    /// What an initiator's host has.
    enum Client: String, CaseIterable, CustomTestStringConvertible {
        case stunnel, connector
        var testDescription: String { rawValue }
    }

    /// A daemon with a clear portal and one behind TLS, and what both ends need.
    final class Rig {
        let daemon: Daemon
        let authority: Authority
        let way: Way
        let port: Int
        /// Where initiators connect to, which is what the portal advertises.
        let clear: Int
        let initiator: Credentials
        let portal: Credentials
        private var held: [AnyObject] = []
        var folder: Folder { authority.folder }

        init(_ way: Way, size: Int = 64 << 20, more: String = "") throws {
            self.way = way
            daemon = try Daemon.serving(size: size)
            authority = try Authority()
            port = try Ports.next()
            clear = try Ports.next()
            portal = try authority.portal()
            initiator = try authority.initiator(name, options: way == .preSharedKey ? ["--psk"] : [])
            try daemon.must("--op new --mode portal --param \(words)\(more)")
        }

        private var words: String {
            let shown = "certificate=\(portal.certificate),key=\(portal.key)"
            let proof = switch way {
            case .serverCertificate: shown
            case .mutual: "\(shown),client-ca=\(authority.certificate),crl=\(authority.revocations)"
            case .preSharedKey: "psk-file=\(authority.preSharedKeys)"
            }
            return "portal=127.0.0.1:\(port),tls=required,advertise=127.0.0.1:\(clear),\(proof)"
        }

        /// Sets up what leads from `clear` to the portal.
        func connect(_ client: Client) throws {
            switch client {
            case .stunnel:
                let lines = switch way {
                case .preSharedKey: "PSKsecrets = \(initiator.preSharedKey)\nciphers = PSK"
                case .mutual: "CAfile = \(authority.certificate)\nverifyChain = yes\ncheckIP = 127.0.0.1\ncert = \(initiator.certificate)\nkey = \(initiator.key)"
                case .serverCertificate: "CAfile = \(authority.certificate)\nverifyChain = yes\ncheckIP = 127.0.0.1"
                }
                let configuration = "[portal]\nclient = yes\naccept = 127.0.0.1:\(clear)\nconnect = 127.0.0.1:\(port)\n\(lines)"
                held.append(try Stunnel(configuration, folder: folder, ports: [clear]))
            case .connector:
                let lines = switch way {
                case .preSharedKey: ["psk-file: \(initiator.preSharedKey)"]
                case .mutual: ["ca: \(authority.certificate)", "certificate: \(initiator.certificate)", "key: \(initiator.key)"]
                case .serverCertificate: ["ca: \(authority.certificate)"]
                }
                held.append(try Connector([(clear, ["connect: 127.0.0.1:\(port)"] + lines)], folder: folder))
            }
        }

        /// QEMU's words for the disk.
        func image(_ name: String = SecurePortalTests.name) -> String {
            "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=127.0.0.1:\(clear),file.target=\(Daemon.iqn("disk")),file.lun=1,file.initiator-name=\(name)"
        }
        var url: String { "iscsi://127.0.0.1:\(clear)/\(Daemon.iqn("disk"))/1" }

        func python(_ script: String, seconds: Double = 60) throws -> Finished {
            let prelude = """
                import os, socket, ssl, sys, time
                address, ca = ("127.0.0.1", \(port)), "\(authority.certificate)"
                def context(certificate="\(initiator.certificate)", key="\(initiator.key)"):
                    c = ssl.create_default_context(cafile=ca)
                    c.minimum_version = ssl.TLSVersion.TLSv1_2
                    if certificate: c.load_cert_chain(certificate, key)
                    return c
                LOGIN = bytes.fromhex("\(Initiator.loginRequest(keys: ["InitiatorName=\(SecurePortalTests.name)", "SessionType=Discovery"]).bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined())")
                def login(s):
                    "the opcode and status of the answer to a login"
                    s.sendall(LOGIN)
                    got = b""
                    while len(got) < 48:
                        more = s.recv(4096)
                        if not more: return None
                        got += more
                    return got[0] & 0x3f, got[36], got[37]
                def right():
                    with context().wrap_socket(socket.create_connection(address, 10), server_hostname="127.0.0.1") as s:
                        assert login(s) == (0x23, 0, 0)

                """
            return try run("python3", "-c", prelude + script, folder: folder, seconds: seconds)
        }

        var evidence: Comment { daemon.evidence }
    }

    // MARK: What goes through

    @Test("Discovery, login, an image there and back, and mutual CHAP inside", arguments: Way.allCases, Client.allCases)
    func everyWay(way: Way, client: Client) throws {
        let rig = try Rig(way)
        try rig.connect(client)
        let list = try must("iscsi-ls", "-i", Self.name, "-s", "iscsi://127.0.0.1:\(rig.clear)", folder: rig.folder)
        #expect(list.contains("Target:\(Daemon.iqn("disk")) Portal:127.0.0.1:\(rig.clear),1") && list.contains("Lun:1    Type:DIRECT_ACCESS"), rig.evidence)

        let size = 32 << 20
        let source = try rig.folder.randomFile("source", size: size), back = rig.folder.path("back")
        let into = try run("qemu-img", "convert", "-n", "-f", "raw", "--target-image-opts", source, rig.image(), folder: rig.folder)
        try #require(into.succeeded, "\(into.evidence)\n\(rig.daemon.log.suffix(4000))")
        let out = try run("qemu-img", "convert", "--image-opts", "-O", "raw", rig.image(), back, folder: rig.folder)
        try #require(out.succeeded, "\(out.evidence)\n\(rig.daemon.log.suffix(4000))")
        try must("truncate", "-s", String(size), back, folder: rig.folder)
        #expect(try rig.folder.sha256(source) == rig.folder.sha256(back))

        let secrets = ["alice": "secret of alice!", "target": "secret of target"]
        for (user, secret) in secrets {
            try rig.daemon.must("--mode account --op new --user \(user) --password-file \(rig.daemon.folder.write(secret, to: user))")
        }
        try rig.daemon.must("--mode account --op bind --tid 1 --user alice")
        try rig.daemon.must("--mode account --op bind --tid 1 --user target --outgoing")
        let right = [
            "LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": "secret of alice!", "LIBISCSI_CHAP_TARGET_USERNAME": "target",
            "LIBISCSI_CHAP_TARGET_PASSWORD": "secret of target",
        ]
        func inquire(_ environment: [String: String]) throws -> Finished { try run("iscsi-inq", "-i", Self.name, rig.url, environment: environment, folder: rig.folder) }
        let finished = try inquire(right)
        #expect(finished.succeeded && finished.output.contains("VIRTUAL-DISK"), "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
        #expect(try !inquire(right.merging(["LIBISCSI_CHAP_PASSWORD": "secret of nobody"]) { $1 }).succeeded)
    }

    @Test("What the other end has proved is the name it logs in with, or it does not", arguments: Way.allCases)
    func names(way: Way) throws {
        let rig = try Rig(way)
        try rig.connect(.connector)
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.name) == 0)
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.stranger) == (way == .serverCertificate ? 0 : 0x0203), rig.evidence)
    }

    @Test("A target that requires TLS is there behind it, and nowhere else")
    func requireTLS() throws {
        let rig = try Rig(.mutual)
        try rig.connect(.connector)
        try rig.daemon.must("--op update --mode target --tid 1 --name RequireTLS --value Yes")
        #expect(try Initiator(port: rig.daemon.port).login(target: Daemon.iqn("disk"), name: Self.name) == 0x0203)
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.name) == 0, rig.evidence)
        #expect(try must("iscsi-ls", "-i", Self.name, "iscsi://127.0.0.1:\(rig.clear)", folder: rig.folder).contains(Daemon.iqn("disk")))
    }

    // MARK: Who does not get in

    @Test("openssl s_client without the right certificate is told why, and so is the log")
    func wrongCertificates() throws {
        let rig = try Rig(.mutual)
        let other = try Authority()
        let stranger = try other.initiator(Self.name)
        let expired = try rig.authority.initiator("iqn.2026-11.org.example:old", options: ["--from", "10 days ago", "--days", "5"])
        let early = try rig.authority.initiator("iqn.2026-11.org.example:early", options: ["--from", "2 days"])
        let revoked = try rig.authority.initiator("iqn.2026-11.org.example:lost")
        let kept = try (rig.folder.write(rig.folder.text(of: revoked.certificate), to: "lost.pem"), rig.folder.write(rig.folder.text(of: revoked.key), to: "lost.key"))
        try rig.authority.issue("revoke", "initiator", "iqn.2026-11.org.example:lost")
        try rig.daemon.must("--op update --mode portal --param portal=127.0.0.1:\(rig.port)")
        func client(_ words: [String]) throws -> Finished {
            try Running(["openssl", "s_client", "-connect", "127.0.0.1:\(rig.port)", "-CAfile", rig.authority.certificate, "-ign_eof"] + words, folder: rig.folder).wait(seconds: 20)
        }
        func shown(_ credentials: Credentials) -> [String] { ["-cert", credentials.certificate, "-key", credentials.key] }
        let refused: [(words: [String], alert: String, cause: String)] = [
            ([], "alert number 116", "neither a certificate nor"), (shown(stranger), "alert number 48", "no trusted authority has signed it"),
            (shown(expired), "alert number 45", "it has expired"), (shown(early), "alert number 42", "it is not valid yet"),
            (["-cert", kept.0, "-key", kept.1], "alert number 44", "it is revoked"), (shown(rig.portal), "alert number 43", "purpose"),
            (["-tls1_2"] + shown(rig.initiator), "alert number 70", "no version of TLS"),
        ]
        for each in refused {
            let finished = try client(each.words)
            #expect(!finished.succeeded && finished.output.contains(each.alert), "\(each.words)\n\(finished.evidence)")
            #expect(eventually(within: 5) { rig.daemon.log.contains("a TLS handshake has failed: ") && rig.daemon.log.contains(each.cause) }, "\(each.cause)\n\(rig.daemon.log)")
        }
        // What an administrator sees of it.
        let causes = ["version 1", "noIdentity 1", "certificate 5"].joined(separator: ", ")
        #expect(try rig.daemon.must("--op show --mode portal").contains("    failed handshakes: \(causes)\n"), rig.evidence)
        let json = try rig.daemon.must("--json --op show --mode portal")
        #expect(json.contains(#""failedHandshakes":{"notTLS":0,"closed":0,"timedOut":0,"version":1,"nothingInCommon":0,"noIdentity":1,"certificate":5,"#), "\(json)")
        // Each reason once, with whom it came from, however often.
        for _ in 0..<3 { _ = try client([]) }
        #expect(try rig.daemon.must("--op show --mode portal").contains("noIdentity 4"))
        let told = rig.daemon.log.split(separator: "\n").filter { $0.contains("a TLS handshake has failed") && $0.contains("neither a certificate nor") }
        #expect(told.count == 1 && told[0].contains("portal=127.0.0.1:\(rig.port)"), rig.evidence)
        // The client's own judgement of the portal.
        for words in [["-CAfile", other.certificate], ["-verify_ip", "127.0.0.9"], ["-verify_hostname", "portal.example.org"]] {
            #expect(try !client(words + ["-verify_return_error"] + shown(rig.initiator)).succeeded)
        }
        let finished = try rig.python("right()")
        #expect(finished.succeeded, "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
    }

    @Test("A pre-shared key that is unknown, wrong or revoked, and a certificate where there are only keys")
    func wrongKeys() throws {
        let rig = try Rig(.preSharedKey)
        _ = try rig.authority.initiator(Self.stranger, options: ["--psk=stranger"])
        func client(_ identity: String, _ key: String) throws -> Finished {
            try Running(["openssl", "s_client", "-connect", "127.0.0.1:\(rig.port)", "-ign_eof", "-psk_identity", identity, "-psk", key], folder: rig.folder).wait(seconds: 8)
        }
        let line = rig.folder.text(of: rig.initiator.preSharedKey).dropLast().split(separator: ":").map(String.init)
        // It is let in, and says nothing until it is asked to leave.
        #expect(try client(line[0], line[1]).output.contains("Reused, TLSv1.3"))
        for (identity, key) in [(line[0], String(repeating: "ab", count: 32)), ("nobody", line[1]), (String(repeating: "x", count: 128), line[1])] {
            let finished = try client(identity, key)
            #expect(!finished.succeeded && finished.output.contains("alert"), "\(finished.evidence)")
        }
        let certificate = try Running(["openssl", "s_client", "-connect", "127.0.0.1:\(rig.port)", "-ign_eof"], folder: rig.folder).wait(seconds: 8)
        #expect(!certificate.succeeded && certificate.output.contains("alert"), "\(certificate.evidence)")
        #expect(rig.daemon.log.contains("wrong pre-shared key for the identity") && rig.daemon.log.contains(#"unknown identity "nobody""#), rig.evidence)
        #expect(!rig.daemon.log.contains(line[1]))
    }

    @Test("Who speaks no TLS to a TLS portal, or TLS to a clear one, is closed to cleanly; garbage and a torn end harm nobody")
    func garbage() throws {
        let rig = try Rig(.mutual)
        let clear = try Wire(port: rig.port)
        clear.send(Initiator.loginRequest(keys: ["InitiatorName=\(Self.name)", "SessionType=Discovery"]).bytes)
        #expect(clear.closes(within: 5), rig.evidence)
        let finished = try rig.python(
            """
            def ends(s):
                "closes, by whatever way, within ten seconds"
                s.settimeout(10)
                try:
                    while s.recv(4096): pass
                except ConnectionError: pass
            # TLS to the clear portal.
            try:
                context().wrap_socket(socket.create_connection(("127.0.0.1", \(rig.daemon.port)), 10), server_hostname="127.0.0.1")
                raise SystemExit("a clear portal speaks TLS")
            except (ssl.SSLError, ConnectionError, socket.timeout) as e: print("clear portal:", e)
            # Garbage: as the first bytes, as a record, after the hello, in place of data.
            for first in (os.urandom(4096), b"\\x16\\x03\\x01\\x40\\x00" + os.urandom(20000), b"\\x16\\x03\\x01\\x00\\x05hello", b"\\x80\\x2e\\x01\\x00\\x02" + os.urandom(41), b"GET / HTTP/1.0\\r\\n\\r\\n"):
                s = socket.create_connection(address, 10)
                try: s.sendall(first)
                except ConnectionError: pass
                ends(s)
            s = socket.create_connection(address, 10)
            t = context().wrap_socket(s, server_hostname="127.0.0.1")
            assert login(t) == (0x23, 0, 0)
            raw = socket.socket(fileno=os.dup(t.fileno()))
            raw.sendall(b"\\x17\\x03\\x03\\x00\\x20" + os.urandom(32))
            ends(raw)
            # Ends without a close_notify: a FIN, a reset, and in the middle of a handshake.
            for how in ("fin", "reset", "middle"):
                s = socket.create_connection(address, 10)
                if how == "middle":
                    s.sendall(b"\\x16\\x03\\x01\\x02\\x00\\x01")
                else:
                    t = context().wrap_socket(s, server_hostname="127.0.0.1")
                    assert login(t) == (0x23, 0, 0)
                    s = socket.socket(fileno=t.detach())
                if how == "reset": s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\x01\\0\\0\\0\\0\\0\\0\\0")
                else: s.shutdown(socket.SHUT_WR); ends(s)
                s.close()
            right()
            """)
        #expect(finished.succeeded, "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
        #expect(!rig.daemon.log.contains("the data process is gone") && !rig.daemon.log.contains("was killed"), rig.evidence)
    }

    @Test("A hello that comes in two pieces is the same hello, wherever it is split")
    func split() throws {
        let rig = try Rig(.mutual)
        let finished = try rig.python(
            """
            length, at = None, 1
            while length is None or at < length:
                s = socket.create_connection(address, 10)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                t = context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
                isFirst = True
                while True:
                    try: t.do_handshake(); break
                    except ssl.SSLWantReadError: pass
                    data = outgoing.read()
                    if isFirst:
                        isFirst, length = False, len(data)
                        s.sendall(data[:at]); time.sleep(0.001); data = data[at:]
                    s.sendall(data)
                    more = s.recv(65536)
                    assert more, at
                    incoming.write(more)
                t.write(LOGIN); s.sendall(outgoing.read())
                while True:
                    try: got = t.read(4096); break
                    except ssl.SSLWantReadError: incoming.write(s.recv(65536))
                assert got[0] & 0x3f == 0x23 and got[36:38] == b"\\0\\0", at
                s.close()
                at += 1
            print("split at", length - 1, "places")
            """, seconds: 120)
        #expect(finished.succeeded, "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
    }

    @Test("No session is resumed, none can be: no tickets, so no early data; nothing is compressed, nothing renegotiated", arguments: ["TLSv1_3", "TLSv1_2"])
    func nothingResumed(version: String) throws {
        let rig = try Rig(.mutual, more: ",policy=2026-11-compatible")
        let finished = try rig.python(
            """
            def begin(session=None):
                c = kept
                s = c.wrap_socket(socket.create_connection(address, 10), server_hostname="127.0.0.1", session=session)
                assert login(s) == (0x23, 0, 0)
                return s
            kept = context()
            kept.minimum_version = kept.maximum_version = ssl.TLSVersion.\(version)
            with begin() as s:
                first = s.session
                assert s.version() == "\(version == "TLSv1_3" ? "TLSv1.3" : "TLSv1.2")" and s.compression() is None
                assert first is None or not first.has_ticket, first
            with begin(first) as s: assert not s.session_reused
            print("nothing")
            """)
        #expect(finished.succeeded && finished.output.contains("nothing"), "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
        guard version == "TLSv1_2" else { return }
        let shown = "-cert \(rig.initiator.certificate) -key \(rig.initiator.key) -CAfile \(rig.authority.certificate)"
        let again = try run(
            "sh", "-c", "(sleep 1; echo R; sleep 2) | openssl s_client -connect 127.0.0.1:\(rig.port) -tls1_2 \(shown)", folder: rig.folder, seconds: 20)
        #expect(again.output.contains("RENEGOTIATING") && again.output.contains("no renegotiation"), "\(again.evidence)")
    }

    @Test("A session of elsewhere that allows early data gets nowhere: it is not resumed, what was sent early is refused and not heard")
    func earlyData() throws {
        let rig = try Rig(.mutual)
        let elsewhere = try Ports.next()
        let shown = ["-cert", rig.initiator.certificate, "-key", rig.initiator.key, "-CAfile", rig.authority.certificate]
        let server = try Running(
            ["openssl", "s_server", "-accept", "127.0.0.1:\(elsewhere)", "-cert", rig.portal.certificate, "-key", rig.portal.key, "-early_data", "-tls1_3", "-quiet"], folder: rig.folder)
        defer { server.kill() }
        #expect(eventually(within: 10) { !Wire.isFree(port: elsewhere) }, "\(server.output)")
        func client(_ port: Int, _ words: String) throws -> String {
            let line = "sleep 2 | openssl s_client -connect 127.0.0.1:\(port) -tls1_3 \(shown.joined(separator: " ")) \(words)"
            let finished = try run("sh", "-c", line, folder: rig.folder, seconds: 20)
            return "\(finished.output)\(finished.evidence)"
        }
        // From ours there is no session to keep.
        let (ours, theirs) = (rig.folder.path("ours"), rig.folder.path("theirs"))
        #expect(try client(rig.port, "-sess_out \(ours)").contains("Verify return code: 0"))
        #expect(!FileManager.default.fileExists(atPath: ours))
        #expect(try client(elsewhere, "-sess_out \(theirs)").contains("Max Early Data: 16384"))
        // There it is as good as it looks.
        let login = rig.folder.path("login")
        let request = Initiator.loginRequest(keys: ["InitiatorName=\(Self.name)", "SessionType=Discovery", "MaxRecvDataSegmentLength=65536"]).bytes
        try Data(request).write(to: URL(fileURLWithPath: login))
        #expect(try client(elsewhere, "-sess_in \(theirs) -sess_out \(theirs) -early_data \(login)").contains("Early data was accepted"))
        let refused = try client(rig.port, "-sess_in \(theirs) -early_data \(login)")
        #expect(refused.contains("Early data was rejected") && refused.contains("New, TLSv1.3") && refused.contains("Verify return code: 0"), "\(refused)")
        #expect(!refused.contains("MaxRecvDataSegmentLength"), "what was sent early is answered")
        // Sent when it may be, the same is.
        let heard = try run("sh", "-c", "(sleep 1; cat \(login); sleep 2) | openssl s_client -connect 127.0.0.1:\(rig.port) \(shown.joined(separator: " "))", folder: rig.folder, seconds: 20)
        #expect("\(heard.output)".contains("MaxRecvDataSegmentLength"), "\(heard.evidence)\n\(rig.daemon.log.suffix(2000))")
    }

    @Test("An initiator's TLS takes fresh keys, asking for ours or not, and the session goes on", arguments: ["K", "k"])
    func freshKeys(letter: String) throws {
        let rig = try Rig(.mutual)
        var ping = [UInt8](repeating: 0, count: 48)
        let payload = Array("still here  ".utf8)
        (ping[0], ping[1], ping[7], ping[19]) = (0x40, 0x80, UInt8(payload.count), 9)
        for index in 20..<24 { ping[index] = 0xff }
        for (name, bytes) in [("login", Initiator.loginRequest(keys: ["InitiatorName=\(Self.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn("disk"))"]).bytes), ("ping", ping + payload)] {
            try Data(bytes).write(to: URL(fileURLWithPath: rig.folder.path(name)))
        }
        let (login, ping1) = (rig.folder.path("login"), rig.folder.path("ping"))
        let shown = "-cert \(rig.initiator.certificate) -key \(rig.initiator.key) -CAfile \(rig.authority.certificate)"
        let steps = "sleep 1; cat \(login); sleep 1; for i in 1 2 3; do echo \(letter); sleep 0.5; cat \(ping1); sleep 0.5; done"
        let finished = try run("sh", "-c", "(\(steps)) | openssl s_client -connect 127.0.0.1:\(rig.port) -tls1_3 \(shown)", folder: rig.folder, seconds: 20)
        let answers = "\(finished.output)".components(separatedBy: "still here").count - 1
        #expect("\(finished.output)\(finished.evidence)".contains("KEYUPDATE") && answers == 3, "\(answers) answers; \(finished.evidence)\n\(rig.daemon.log.suffix(2000))")
    }

    @Test("What TLS does for a session and who has shown what by it is told of it, and of one in clear there is nothing", arguments: Way.allCases)
    func shownOfSession(way: Way) throws {
        let rig = try Rig(way)
        try rig.connect(.connector)
        let secure = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name)
        let clear = try Initiator.login(port: rig.daemon.port, target: Daemon.iqn("disk"), name: Self.stranger)
        try secure.settle()
        try clear.settle()
        let proof: (text: String, json: String)
        switch way {
        case .serverCertificate: proof = ("", #""certificate":null,"pskIdentity":null,"provenName":null"#)
        case .mutual:
            let line = try must("openssl", "x509", "-in", rig.initiator.certificate, "-noout", "-fingerprint", "-sha256", folder: rig.folder)
            let print = line.split(separator: "=")[1].prefix(95).filter { $0 != ":" }.lowercased()
            proof = (", certificate \(print)", #""certificate":"\#(print)","pskIdentity":null,"provenName":"\#(Self.name)""#)
        case .preSharedKey:
            let identity = rig.folder.text(of: rig.initiator.preSharedKey).prefix { $0 != ":" }
            proof = (", pre-shared key \"\(identity)\"", #""certificate":null,"pskIdentity":"\#(identity)","provenName":"\#(Self.name)""#)
        }
        let text = try rig.daemon.must("--op show --mode target")
        let lines = text.split(separator: "\n").filter { $0.contains("TLS:") }
        #expect(lines == ["            TLS: TLSv1.3 TLS_AES_128_GCM_SHA256\(proof.text)"], "\(text)")
        let tls = #""tls":{"version":"TLSv1.3","cipher":"TLS_AES_128_GCM_SHA256","kernel":false,\#(proof.json)}"#
        for mode in ["--mode target", "--mode conn --tid 1"] {
            let json = try rig.daemon.must("--op show --json \(mode)")
            #expect(json.components(separatedBy: tls).count == 2 && json.components(separatedBy: #""tls""#).count == 2, "\(json)")
        }
    }

    @Test("A portal of the settings file serves; whom the mapping file names is who a certificate is for")
    func settingsFile() throws {
        let authority = try Authority()
        let folder = authority.folder
        let (portal, initiator) = (try authority.portal(), try authority.initiator(Self.name))
        let print = try must("openssl", "x509", "-in", initiator.certificate, "-noout", "-fingerprint", "-sha256", folder: folder)
        let map = try folder.write("\(print.split(separator: "=")[1].prefix(95)) \(Self.stranger)\n", to: "map")
        let (port, clear) = (try Ports.next(), try Ports.next())
        let settings = try folder.write(
            """
            portals:
              - portal: "127.0.0.1:\(port)"
                tls: required
                certificate: \(portal.certificate)
                key: \(portal.key)
                client-ca: \(authority.certificate)
                client-map: \(map)

            """, to: "tgtd.yaml")
        for file in [settings, map] { unsafe chmod(file, 0o600) }
        let environment = ["TGT_IPC_SOCKET": folder.path("socket")]
        let daemon = try Running([Subject.tgtd, "-f", "-C", "7", "--config", settings, "--state", "none"], environment: environment, folder: folder)
        #expect(eventually(within: 10) { daemon.output.contains("is ready") && !Wire.isFree(port: port) }, "\(daemon.output)")
        let disk = try folder.sparseFile("disk", size: 1 << 20)
        for line in ["--op new --mode target --tid 1 -T \(Daemon.iqn("disk"))", "--op new --mode logicalunit --tid 1 --lun 1 -b \(disk)", "--op bind --mode target --tid 1 -I ALL"] {
            let finished = try Running([Subject.tgtadm, "-C", "7", "--lld", "iscsi"] + line.split(separator: " ").map(String.init), environment: environment, folder: folder).wait(seconds: 20)
            try #require(finished.succeeded, "\(finished.evidence)")
        }
        let connector = try Connector(
            [(clear, ["connect: 127.0.0.1:\(port)", "ca: \(authority.certificate)", "certificate: \(initiator.certificate)", "key: \(initiator.key)"])], folder: folder)
        #expect(try Initiator(port: clear).login(target: Daemon.iqn("disk"), name: Self.stranger) == 0, "\(daemon.output)\n\(connector.log)")
        #expect(try Initiator(port: clear).login(target: Daemon.iqn("disk"), name: Self.name) == 0x0203, "\(daemon.output)")
        daemon.signal(SIGTERM)
        daemon.wait(seconds: 10)
    }

    @Test("500 handshakes that stall hold up nobody, and end at their deadline")
    func stalled() throws {
        let rig = try Rig(.mutual)
        let finished = try rig.python(
            """
            begin = time.monotonic()
            stalled = []
            for i in range(500):
                s = socket.create_connection(address, 10)
                # Nothing; a part of a hello; a whole record header and nothing behind it.
                s.sendall((b"", b"\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03", b"\\x16\\x03\\x01\\x02\\x00")[i % 3])
                stalled.append(s)
            took = []
            for _ in range(5):
                start = time.monotonic(); right(); took.append(time.monotonic() - start)
            print("a handshake and a login among 500 that stall: %.3f s at most" % max(took))
            assert max(took) < 1, took
            for s in stalled:
                s.settimeout(max(0.1, 25 - (time.monotonic() - begin)))
                try:
                    while s.recv(4096): pass
                except ConnectionError: pass
            print("all closed after %.1f s" % (time.monotonic() - begin))
            """, seconds: 60)
        #expect(finished.succeeded, "\(finished.evidence)\n\(rig.daemon.log.suffix(4000))")
        print(finished.output)
    }

    // MARK: Operation

    @Test("200 replacements of the certificate under I/O, and no session is dropped")
    func replacements() throws {
        let rig = try Rig(.mutual)
        try rig.connect(.connector)
        let live = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name)
        try live.settle()
        let writer = try Running(
            ["qemu-img", "bench", "-q", "-t", "none", "-w", "-c", "1000000", "-d", "8", "-s", "4096", "--image-opts", rig.image("\(Self.name)")], folder: rig.folder)
        let spare = try rig.authority.portal("localhost", "127.0.0.1")
        let pairs = [rig.portal, spare]
        for index in 0..<200 {
            let pair = pairs[index % 2]
            try rig.daemon.must("--op update --mode portal --param portal=127.0.0.1:\(rig.port),certificate=\(pair.certificate),key=\(pair.key)")
        }
        #expect(writer.poll() == nil || writer.wait(seconds: 1).succeeded, "\(writer.output)")
        #expect(try live.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        #expect(!rig.daemon.log.contains("a session has ended"), rig.evidence)
        _ = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name, isid: 9)
    }

    @Test("Who is revoked is ended within five seconds, and nobody else", arguments: [Way.mutual, .preSharedKey])
    func revoked(way: Way) throws {
        let rig = try Rig(way)
        let other = try rig.authority.initiator(Self.stranger, options: way == .preSharedKey ? ["--psk=other"] : [])
        let lines = way == .preSharedKey ? ["psk-file: \(other.preSharedKey)"] : ["ca: \(rig.authority.certificate)", "certificate: \(other.certificate)", "key: \(other.key)"]
        let second = try Ports.next()
        let connector = try Connector([(second, ["connect: 127.0.0.1:\(rig.port)"] + lines)], folder: rig.folder)
        try rig.connect(.connector)
        try rig.daemon.must("--op update --mode portal --param portal=127.0.0.1:\(rig.port)")
        let staying = try Initiator.login(port: second, target: Daemon.iqn("disk"), name: Self.stranger)
        let leaving = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name)
        try leaving.settle()
        try rig.authority.issue("revoke", "initiator", Self.name)
        rig.daemon.process.signal(SIGHUP)
        #expect(leaving.wire.closes(within: 5), rig.evidence)
        try staying.settle()
        #expect(try Wire(port: rig.clear).closes(within: 5))
        withExtendedLifetime(connector) {}
    }

    @Test("tgt-connect reads its files anew at SIGHUP: all of them are right, or nothing changes; connections that stand go on")
    func connectorReload() throws {
        let rig = try Rig(.mutual)
        let second = try rig.authority.initiator(Self.stranger)
        let folder = try Folder()
        func put(_ name: String, _ source: String, mode: mode_t = 0o600) throws -> String {
            let file = try folder.write(rig.folder.text(of: source), to: name)
            guard unsafe chmod(file, mode) == 0 else { throw Failure("chmod") }
            return file
        }
        let ca = try put("ca", rig.authority.certificate), certificate = try put("certificate", rig.initiator.certificate), key = try put("key", rig.initiator.key)
        let connector = try Connector([(rig.clear, ["connect: 127.0.0.1:\(rig.port)", "ca: \(ca)", "certificate: \(certificate)", "key: \(key)"])], folder: folder)
        func status(_ name: String, isid: UInt8) throws -> UInt16? { try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: name, isid: isid) }
        func told(_ text: String) -> Int { connector.log.split(separator: "\n").filter { $0.contains(text) }.count }
        let staying = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name)
        try staying.settle()
        // Another certificate and the old key; a key that others read; a file that is not there; nonsense.
        _ = try put("certificate", second.certificate)
        let wrong: [(make: () throws -> Void, reason: String)] = [
            ({}, "\(key) is not the key of \(certificate)"), ({ _ = try put("key", second.key, mode: 0o644) }, "\(key): can be read by others"),
            ({ _ = try put("key", second.key); try FileManager.default.removeItem(atPath: ca) }, "\(ca): No such file"),
            ({ _ = try put("ca", rig.portal.key) }, "\(ca): "),
        ]
        for (count, each) in wrong.enumerated() {
            try each.make()
            connector.process.signal(SIGHUP)
            #expect(eventually(within: 5) { told("nothing is read anew") == count + 1 } && connector.log.contains("nothing is read anew: \(each.reason)"), "\(connector.evidence)")
            #expect(try status(Self.name, isid: 2) == 0 && status(Self.stranger, isid: 3) == 0x0203, rig.evidence)
        }
        _ = try put("ca", rig.authority.certificate)
        connector.process.signal(SIGHUP)
        #expect(connector.says("certificates and keys have been read anew", within: 5), "\(connector.evidence)")
        #expect(try status(Self.name, isid: 4) == 0x0203 && status(Self.stranger, isid: 5) == 0, rig.evidence)
        try staying.settle()
        // An authority that has not signed the portal's certificate. Then two signals at once are as good as one.
        let other = try Authority()
        _ = try put("ca", other.certificate)
        connector.process.signal(SIGHUP)
        #expect(eventually(within: 5) { told("have been read anew") == 2 }, "\(connector.evidence)")
        #expect(try Wire(port: rig.clear).closes(within: 5) && connector.says("no trusted authority", within: 5), "\(connector.evidence)")
        _ = try put("ca", rig.authority.certificate)
        for _ in 0..<20 { connector.process.signal(SIGHUP) }
        #expect(try eventually(within: 5) { try status(Self.stranger, isid: 6) == 0 }, "\(connector.evidence)")
        try staying.settle()
        // Nothing of it stays behind.
        let keepers = Processes.children(of: connector.process.pid)
        #expect(keepers.count == 1 && Processes.arguments(of: keepers[0]).dropFirst().first == "--keep-files")
        connector.process.signal(SIGKILL)
        #expect(eventually(within: 5) { Processes.arguments(of: keepers[0]).isEmpty })
    }

    @Test("tgt-connect takes another pre-shared key at SIGHUP")
    func connectorKeyReload() throws {
        let rig = try Rig(.preSharedKey)
        let other = try rig.authority.initiator(Self.stranger, options: ["--psk=other"])
        try rig.daemon.must("--op update --mode portal --param portal=127.0.0.1:\(rig.port)")
        let file = try rig.folder.write(rig.folder.text(of: rig.initiator.preSharedKey), to: "mine.psk")
        unsafe chmod(file, 0o600)
        let connector = try Connector([(rig.clear, ["connect: 127.0.0.1:\(rig.port)", "psk-file: \(file)"])], folder: rig.folder)
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.name) == 0, rig.evidence)
        unsafe chmod(try rig.folder.write(rig.folder.text(of: other.preSharedKey), to: "mine.psk"), 0o600)
        connector.process.signal(SIGHUP)
        #expect(connector.says("have been read anew", within: 5), "\(connector.evidence)")
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.stranger) == 0, rig.evidence)
        #expect(try Initiator(port: rig.clear).login(target: Daemon.iqn("disk"), name: Self.name) == 0x0203, rig.evidence)
    }

    @Test("What an idle session through TLS costs")
    func memory() throws {
        let rig = try Rig(.mutual)
        try rig.connect(.connector)
        _ = try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name)
        let before = rig.daemon.residentBytes
        let sessions = try (1...100).map { try Initiator.login(port: rig.clear, target: Daemon.iqn("disk"), name: Self.name, isid: UInt8($0)) }
        for session in sessions { try session.settle() }
        let each = (rig.daemon.residentBytes - before) / sessions.count
        print("tgtd holds \(each) bytes for an idle session through TLS")
        #expect(each < 128 << 10, rig.evidence)
    }
}
