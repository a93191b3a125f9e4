import Foundation
import Glibc
import Testing

/// Many who do not get in, and one who should.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct AttackTests {
    /// A daemon that exempts nobody else, with a disk for everybody and one for “alice”.
    private func daemon(exempt: [String] = []) throws -> (Daemon, Folder) {
        let folder = try Folder()
        let settings = try folder.write("penalties:\n  exempt: [\(exempt.joined(separator: ", "))]\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        let daemon = try Daemon.serving(options: ["--config", settings])
        try daemon.addTarget(2, name: "locked")
        try daemon.addDisk(tid: 2, file: daemon.folder.sparseFile("locked", size: 8 << 20))
        try daemon.admit(tid: 2)
        try daemon.must("--mode account --op new --user alice --password alicesecret12")
        try daemon.must("--mode account --op bind --tid 2 --user alice")
        return (daemon, folder)
    }

    private func inquire(_ daemon: Daemon, _ secret: String = "alicesecret12") throws -> Finished {
        try run(
            "iscsi-inq", daemon.url("locked"), environment: ["LIBISCSI_CHAP_USERNAME": "alice", "LIBISCSI_CHAP_PASSWORD": secret], folder: daemon.folder,
            seconds: 30)
    }

    /// Keeps so many connections open from 64 addresses, each of them up to no good, and opens another for each that is closed.
    private static let flood = """
        import random, resource, select, socket, sys, time
        port, most, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        header = bytes([0x43, 0x87, 0, 0, 0, 0, 0, 64]) + bytes(40)
        beginnings = [b"", b"\\x43", header[:20], random.randbytes(600)]
        epoll, there, opened = select.epoll(), {}, 0
        def connect():
            global opened
            s = socket.socket()
            s.setblocking(False)
            try:
                s.bind(("127.0.0.%d" % (2 + opened % 64), 0))
                s.connect(("127.0.0.1", port))
            except BlockingIOError: pass
            except OSError: return s.close()
            there[s.fileno()] = [s, opened % 4]
            opened += 1
            epoll.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
        def drop(number):
            epoll.unregister(number)
            there.pop(number)[0].close()
        for _ in range(most): connect()
        end, beat, peak = time.time() + seconds, time.time() + 1, 0
        while time.time() < end:
            for number, events in epoll.poll(0.05):
                s, kind = there[number]
                try:
                    if events & (select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP): raise OSError
                    if events & select.EPOLLIN and not s.recv(4096): raise OSError
                    if events & select.EPOLLOUT:
                        s.send(beginnings[kind])
                        epoll.modify(number, select.EPOLLIN | select.EPOLLRDHUP)
                except OSError: drop(number)
            peak = max(peak, len(there))
            for _ in range(min(most - len(there), 200)): connect()
            if time.time() > beat:
                beat += 1
                for number, (s, kind) in list(there.items()):
                    if kind == 1:
                        try: s.send(b"x")
                        except OSError: drop(number)
        print(f"{opened} connections, {peak} at once")
        """

    @Test("Five thousand hostile connections from 64 addresses keep a right login from another one for less than a second, and leave nothing behind")
    func flooded() throws {
        let (daemon, folder) = try daemon()
        #expect(try inquire(daemon).succeeded)
        let witness = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), name: "iqn.2026-11.org.example:witness")
        try witness.settle()
        let family = daemon.family
        func descriptors() -> [Int] { family.map { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\($0)/fd").count) ?? 0 } }
        let (descriptorsBefore, memoryBefore) = (descriptors(), daemon.residentBytes)
        let seconds = Subject.soaks ? 120.0 : 8.0
        let attack = try Running(["python3", folder.write(Self.flood, to: "flood.py"), "\(daemon.port)", "5000", "\(seconds)"], folder: folder)
        pause(seconds: 2)

        var (logins, reads): ([Duration], [Duration]) = ([], [])
        let end = ContinuousClock.now + .seconds(seconds - 4)
        while ContinuousClock.now < end {
            let finished = try inquire(daemon)
            #expect(finished.succeeded, "\(finished.evidence)\n\(daemon.log.suffix(2000))")
            logins.append(finished.elapsed)
            let start = ContinuousClock.now
            #expect(try witness.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096).data.count == 4096)
            reads.append(ContinuousClock.now - start)
        }
        let (descriptorsDuring, memoryDuring) = (descriptors(), daemon.residentBytes)
        let said = attack.wait(seconds: seconds + 30)
        #expect(said.succeeded, "\(said.evidence)")
        // Slack for a machine that does other things beside.
        #expect(logins.max()! < .seconds(3))
        #expect(daemon.family == family, "a process died\n\(daemon.log.suffix(4000))")
        #expect(eventually(within: 25) { descriptors() == descriptorsBefore }, "\(descriptorsBefore) descriptors before, \(descriptors()) after")
        #expect(eventually(within: 5) { daemon.residentBytes < memoryBefore + 48 << 20 }, "\(memoryBefore) bytes before, \(daemon.residentBytes) after")
        print("""
            under attack (\(said.output.trimmingCharacters(in: .whitespacesAndNewlines))): \(logins.count) right logins, the slowest \(logins.max()!); \
            a read of the established session at most \(reads.max()!); descriptors \(descriptorsBefore) → \(descriptorsDuring) → \(descriptors()); \
            memory \(memoryBefore >> 20) → \(memoryDuring >> 20) → \(daemon.residentBytes >> 20) MiB
            """)
    }

    /// Offers CHAP and takes the challenge.
    private func challenged(_ daemon: Daemon, source: UInt8, target: String = "locked") throws -> Initiator? {
        let initiator = try Initiator(port: daemon.port, source: source)
        for text in [["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn(target))", "AuthMethod=CHAP"], ["CHAP_A=7"]] {
            var request = Initiator.loginRequest(keys: text)
            request.header[1] = 0
            initiator.wire.send(request.bytes)
            guard let answer = initiator.receive(seconds: 3), answer.statusClassAndDetail == 0 else { return nil }
        }
        return initiator
    }

    /// Answers the challenge with zeros; status class and detail.
    private func guess(_ initiator: Initiator, user: String = "alice") -> UInt16? {
        var request = Initiator.loginRequest(keys: ["CHAP_N=\(user)", "CHAP_R=0x" + String(repeating: "00", count: 32)])
        request.header[1] = 0x81
        initiator.wire.send(request.bytes)
        return initiator.receive(seconds: 5)?.statusClassAndDetail
    }

    /// What judges them is measured where nothing else is (`CHAPWorkTests`); here only the figures are printed, for what a peer sees is mostly the machine's.
    @Test("How long an unknown user, a wrong secret and an unknown target wait for their refusal")
    func refusalTimes() throws {
        let (daemon, _) = try daemon(exempt: ["127.0.0.0/8"])
        let kinds = [("alice", "locked"), ("nobod", "locked"), ("alice", "nobody")]
        var times: [[Duration]] = [[], [], []]
        for round in 0..<300 {
            let kind = round % 3
            let initiator = try #require(try challenged(daemon, source: 2, target: kinds[kind].1))
            let start = ContinuousClock.now
            #expect(guess(initiator, user: kinds[kind].0) == 0x0201)
            times[kind].append(ContinuousClock.now - start)
        }
        let medians = times.map { $0.sorted()[$0.count / 2] }
        print("refused in the median of \(times[0].count): a wrong secret in \(medians[0]), an unknown user in \(medians[1]), an unknown target in \(medians[2])")
    }

    @Test("Who guesses has to wait longer and longer, from wherever it has connections already; others and sessions do not notice")
    func guesses() throws {
        let (daemon, _) = try daemon()
        let witness = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try witness.settle()
        func challenged(source: UInt8) throws -> Initiator? { try self.challenged(daemon, source: source) }
        let ready = try (0..<40).map { _ in try #require(try challenged(source: 2)) }
        for initiator in ready { #expect(guess(initiator) == 0x0201) }
        let judged = daemon.log.components(separatedBy: "a wrong response for account “alice”").count - 1
        #expect((3...6).contains(judged), "\(judged) of 40 guesses were looked at")
        #expect(daemon.log.contains("too many failures: nothing is accepted from there for a while"))
        #expect(try challenged(source: 2) == nil)
        #expect(try challenged(source: 3) != nil)
        #expect(try inquire(daemon).succeeded)
        #expect(try witness.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        // The debt of three guesses and what came in at the same moment is paid soon.
        let start = ContinuousClock.now
        #expect(try eventually(within: 30) { pause(seconds: 0.2); return try challenged(source: 2) != nil }, daemon.evidence)
        print("\(judged) of 40 guesses made at once were looked at; the next was admitted after \(ContinuousClock.now - start)")
    }

    @Test("A connection that is reset while control is asked about it, with more behind its question, keeps nobody busy")
    func resetWhileAsked() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let login = try #require(daemon.child(role: "login"), daemon.evidence)
        let request = Initiator.loginRequest(keys: ["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn("disk"))"]).bytes
        // Nobody answers for a while.
        kill(daemon.process.pid, SIGSTOP)
        let before = Processes.cpuSeconds(of: login)
        for _ in 0..<8 {
            let wire = try Wire(port: daemon.port)
            wire.send(request + request)
            pause(seconds: 0.05)
            wire.reset()
        }
        pause(seconds: 2)
        let busy = Processes.cpuSeconds(of: login) - before
        kill(daemon.process.pid, SIGCONT)
        #expect(busy < 0.5, "\(busy) s of 2 on a processor")
        #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk")) == 0, daemon.evidence)
    }

    /// A discovery session from 127.0.0.9 that pings without end, and comes again when it is closed.
    private static let pings = """
        import socket, sys, threading, time
        header = bytearray([0x43, 0x87, 0, 0, 0, 0, 0, 0]) + bytes(40)
        header[8], header[13], header[19], header[27] = 0x80, 1, 1, 1
        text = b"InitiatorName=iqn.2026-11.org.example:busy\\0SessionType=Discovery\\0"
        header[5:8] = len(text).to_bytes(3, "big")
        ping = bytearray([0x40, 0x80]) + bytes(46)
        ping[19], ping[20:24], ping[27] = 1, b"\\xff" * 4, 1
        def swallow(s):
            try:
                while s.recv(1 << 20): pass
            except OSError: pass
        while True:
            try:
                s = socket.socket()
                s.bind(("127.0.0.9", 0))
                s.connect(("127.0.0.1", int(sys.argv[1])))
                s.sendall(header + text + bytes(-len(text) & 3))
                if not s.recv(4096): raise OSError
                threading.Thread(target=swallow, args=(s,), daemon=True).start()
                while True: s.sendall(bytes(ping) * 2000)
            except OSError:
                s.close()
                time.sleep(0.01)
        """

    /// Stops a process in the middle of what it does, again and again, until one of its threads is at somebody's bytes; and has that thread crash, or
    /// leaves all as it is: it hangs.
    private static let crash = """
        import ctypes, os, re, signal, struct, sys, time
        control, process, hangs = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "true"
        # The page of this process among those that control has.
        inode = int(re.search(r"\\S+ \\S+ \\S+ \\S+ (\\d+) +/memfd:work", open(f"/proc/{process}/maps").read())[1])
        paths = [f"/proc/{control}/fd/{name}" for name in os.listdir(f"/proc/{control}/fd")]
        page = os.open(next(path for path in paths if os.path.exists(path) and os.stat(path).st_ino == inode), os.O_RDONLY)
        def text(thread, name): return open(f"/proc/{process}/task/{thread}/{name}").read()
        threads = os.listdir(f"/proc/{process}/task")
        # Who has which place: the thread with the door the first, then those of handshakes and the reactors.
        names = {text(thread, "comm").strip(): int(thread) for thread in threads}
        places = {0: process} | {1 + n: names.get(f"handshakes {n}") for n in range(4)} | {5 + n: names.get(f"reactor {n}") for n in range(16)}
        # Which of them is meant.
        wanted = range(1, 5) if sys.argv[4] == "handshakes" else range(64)
        def hang(thread):
            "stops one thread, and it alone, as long as it lives"
            c = ctypes.CDLL(None)
            assert c.ptrace(0x4206, thread, None, None) == 0 and c.ptrace(0x4207, thread, None, None) == 0
            os.kill(process, signal.SIGCONT)
            # Whoever traces it reaps it; nobody else can before.
            while True:
                found, status = os.waitpid(thread, 0x40000000)
                if os.WIFEXITED(status) or os.WIFSIGNALED(status): return
        end = time.time() + 30
        while time.time() < end:
            time.sleep(0.003)
            os.kill(process, signal.SIGSTOP)
            while not all(text(thread, "stat").rsplit(")", 1)[1].split()[0] == "T" for thread in threads): pass
            words = struct.unpack("<128Q", os.pread(page, 1024, 8))
            busy = [places[place] for place in wanted if words[2 * place + 1]]
            if busy and hangs:
                if sys.argv[4] == "handshakes": hang(busy[0])
                sys.exit(0)
            if busy: ctypes.CDLL(None).tgkill(process, busy[0], signal.SIGSEGV)
            os.kill(process, signal.SIGCONT)
            if busy: sys.exit(0)
        sys.exit("it was never at anybody's bytes")
        """

    /// Has a process crash or hang over somebody's bytes; control says whose.
    /// - Parameter threads: which; of those that compute handshakes one hangs by itself, else all of the process
    private func crash(_ role: String, _ daemon: Daemon, hangs: Bool = false, threads: String = "all") throws {
        // So that there are some.
        pause(seconds: 0.5)
        let process = try #require(daemon.child(role: role), daemon.evidence)
        let program = try daemon.folder.write(Self.crash, to: "crash.py")
        try must("python3", program, "\(daemon.process.pid)", "\(process)", "\(hangs)", threads, folder: daemon.folder)
        let blame = "the \(role) process \(hangs ? "hung" : "crashed") over what came from there"
        #expect(eventually(within: hangs ? 40 : 10) { daemon.log.contains(blame) }, daemon.evidence)
    }

    @Test("Whoever's bytes login was at when it crashed or hung has to wait; sessions and everybody else do not notice", arguments: [false, true])
    func crashOfLogin(hangs: Bool) throws {
        let (daemon, folder) = try daemon()
        let witness = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try witness.settle()
        let busy = try Running(["python3", folder.write(Self.pings, to: "pings.py"), "\(daemon.port)"], folder: folder)
        try crash("login", daemon, hangs: hangs)
        #expect(daemon.log.contains("source=127.0.0.9") && !daemon.log.contains("source=127.0.0.1 "), daemon.evidence)
        #expect(eventually(within: 5) { (try? Wire(port: daemon.port, source: 9))?.closes(within: 0.5) == true }, daemon.evidence)
        #expect(try eventually(within: 5) { try Initiator(port: daemon.port, source: 3).login(target: Daemon.iqn("disk"), isid: 2) == 0 }, daemon.evidence)
        #expect(try Wire(port: daemon.port, source: 9).closes(within: 0.5), "it still waits")
        let waiting = try daemon.must("--mode access --op show")
        #expect(waiting.hasPrefix("Source: 127.0.0.9, waits ") && waiting.split(separator: "\n").count == 1, "\(waiting)")
        #expect(try witness.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        busy.kill()
    }

    @Test("Whoever is exempt comes again at once, whatever crashed over its bytes; the log says whose they were")
    func crashOfExempt() throws {
        let (daemon, folder) = try daemon(exempt: ["127.0.0.9"])
        let busy = try Running(["python3", folder.write(Self.pings, to: "pings.py"), "\(daemon.port)"], folder: folder)
        try crash("login", daemon)
        busy.kill()
        #expect(daemon.log.contains("source=127.0.0.9"), daemon.evidence)
        #expect(try daemon.must("--mode access --op show") == "")
        #expect(try eventually(within: 5) { try Initiator(port: daemon.port, source: 9).login(target: Daemon.iqn("disk")) == 0 }, daemon.evidence)
    }

    @Test("Whoever's bytes data was at when it crashed has to wait, and the others' sessions come back")
    func crashOfData() throws {
        let (daemon, folder) = try daemon()
        let idle = try Initiator(port: daemon.port, source: 3)
        #expect(idle.login(target: Daemon.iqn("disk")) == 0)
        try idle.settle()
        let busy = try Running(["qemu-img", "bench", "-c", "100000000", "-d", "64", "-s", "4096", "-f", "raw", daemon.url()], folder: folder)
        try crash("data", daemon)
        #expect(daemon.log.contains("source=127.0.0.1") && !daemon.log.contains("source=127.0.0.3"), daemon.evidence)
        #expect(try eventually(within: 10) { try Initiator(port: daemon.port, source: 3).login(target: Daemon.iqn("disk")) == 0 }, daemon.evidence)
        #expect(try Wire(port: daemon.port, source: 1).closes(within: 0.5), "it still waits\n\(daemon.log.suffix(4000))")
        busy.kill()
    }

    // MARK: Behind TLS

    /// A portal with TLS beside the clear one; its port.
    private func addSecurePortal(_ daemon: Daemon, _ authority: Authority) throws -> Int {
        let (port, portal) = (try Ports.next(), try authority.portal())
        try daemon.must("--op new --mode portal --param portal=127.0.0.1:\(port),tls=required,certificate=\(portal.certificate),key=\(portal.key)")
        return port
    }

    /// Nothing but handshakes, many at once, from 127.0.0.9.
    private static let handshakes = """
        import socket, ssl, sys, threading, time
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        def shake():
            while True:
                try:
                    s = socket.socket()
                    s.bind(("127.0.0.9", 0))
                    s.connect(("127.0.0.1", int(sys.argv[1])))
                    with context.wrap_socket(s): pass
                except OSError: time.sleep(0.01)
        for _ in range(6): threading.Thread(target=shake).start()
        """

    @Test("Whoever's handshake data was at when it crashed, or a thread of it hung, has to wait; others come through TLS again", arguments: [false, true])
    func crashOverHandshake(hangs: Bool) throws {
        let (daemon, folder) = try daemon()
        let authority = try Authority()
        let port = try addSecurePortal(daemon, authority)
        let busy = try Running(["python3", folder.write(Self.handshakes, to: "handshakes.py"), "\(port)"], folder: folder)
        try crash("data", daemon, hangs: hangs, threads: "handshakes")
        #expect(daemon.log.contains("source=127.0.0.9") && !daemon.log.contains("source=127.0.0.1 "), daemon.evidence)
        #expect(eventually(within: 10) { daemon.log.components(separatedBy: "the data process runs").count == 3 }, daemon.evidence)
        #expect(eventually(within: 5) { (try? Wire(port: port, source: 9))?.closes(within: 0.5) == true }, daemon.evidence)
        let waiting = try daemon.must("--mode access --op show")
        #expect(waiting.hasPrefix("Source: 127.0.0.9, waits ") && waiting.split(separator: "\n").count == 1, "\(waiting)")
        busy.kill()
        let other = try run(
            "python3", "-c", """
                import socket, ssl
                s = socket.socket()
                s.bind(("127.0.0.3", 0))
                s.connect(("127.0.0.1", \(port)))
                print(ssl.create_default_context(cafile="\(authority.certificate)").wrap_socket(s, server_hostname="127.0.0.1").version())
                """, folder: folder, seconds: 10)
        #expect(other.succeeded && other.output.contains("TLSv1.3"), "\(other.evidence)")
    }

    /// Sends something and resets the connection at once, from 127.0.0.N, so often.
    private static let resets = """
        import socket, ssl, struct, sys
        port, host, count, content = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), bytes([255] * 64)
        if sys.argv[4] == "handshake":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
            try: context.wrap_bio(received, sent).do_handshake()
            except ssl.SSLWantReadError: content = sent.read()
        for _ in range(count):
            s = socket.socket()
            s.bind((host, 0))
            s.connect(("127.0.0.1", port))
            s.sendall(content)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        """

    @Test("Whoever fails and resets the connection at once, so that nobody sees any more where it came from, has to wait all the same")
    func resetting() throws {
        let (daemon, folder) = try daemon()
        let port = try addSecurePortal(daemon, Authority())
        let program = try folder.write(Self.resets, to: "resets.py")
        func waits(_ host: String) throws -> Bool {
            try eventually(within: 5) { try daemon.must("--mode access --op show").split(separator: "\n").contains { $0.hasPrefix("Source: \(host), waits ") } }
        }
        func reset(_ port: Int, _ host: String, _ count: Int, _ what: String) throws {
            try must("python3", program, "\(port)", host, "\(count)", what, folder: folder)
        }
        // No Login Request; half a second each.
        try reset(daemon.port, "127.0.0.5", 30, "nonsense")
        #expect(try waits("127.0.0.5"), daemon.evidence)
        // No TLS, and the beginning of a handshake that goes on for longer than its peer stays; a twentieth of a second each.
        try reset(port, "127.0.0.6", 200, "nonsense")
        #expect(try waits("127.0.0.6"), daemon.evidence)
        try reset(port, "127.0.0.7", 200, "handshake")
        #expect(try waits("127.0.0.7"), daemon.evidence)
    }

    @Test("An administrator sees who has to wait and what that refused, and lets them in again")
    func shownAndCleared() throws {
        let (daemon, _) = try daemon()
        #expect(try daemon.must("--mode access --op show") == "")
        func number(_ name: String) throws -> Int {
            let line = try daemon.must("--mode system --op show").split(separator: "\n").first { $0.hasPrefix("    \(name)=") }
            return try #require(line.flatMap { Int($0.drop { $0 != "=" }.dropFirst()) })
        }
        #expect(try number("sources-waiting") == 0)
        // Five seconds are tolerated, and half a second is owed for each.
        for _ in 0..<14 { try Wire(port: daemon.port, source: 2).send([UInt8](repeating: 0xff, count: 64)) }
        #expect(try eventually(within: 3) { try number("sources-waiting") == 1 }, daemon.evidence)
        let shown = try daemon.must("--mode access --op show")
        #expect(shown.hasPrefix("Source: 127.0.0.2, waits ") && shown.hasSuffix(" s\n"), "\(shown)")
        #expect(try daemon.must("--json --mode access --op show").hasPrefix("{\"schemaVersion\":1,\"penalties\":[{\"source\":\"127.0.0.2\",\"secondsLeft\":"))
        let refused = try Wire(port: daemon.port, source: 2)
        #expect(refused.closes(within: 1))
        #expect(try eventually(within: 5) { try number("refused-connections") >= 1 }, "login tells with its heartbeat")

        #expect(try !daemon.admin(["--mode", "access", "--op", "delete", "-I", "127.0.0.77"]).succeeded)
        #expect(try !daemon.admin(["--mode", "access", "--op", "delete", "-I", "localhost"]).succeeded)
        try daemon.must("--mode access --op delete -I 127.0.0.2")
        #expect(try daemon.must("--mode access --op show") == "")
        #expect(try eventually(within: 1) { try Initiator(port: daemon.port, source: 2).login(target: Daemon.iqn("disk")) == 0 }, daemon.evidence)
        try daemon.must("--mode access --op delete -I ALL")
    }
}
