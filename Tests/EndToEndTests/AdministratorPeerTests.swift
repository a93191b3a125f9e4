import Foundation
import Glibc
import Testing

/// Who is at the other end of the management socket, and how many.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct AdministratorPeerTests {
    private static let everybody = "  - {users: [mail, news], role: observer, tenant: all, authenticate: no}\n"

    /// A process connects, leaves the connection to a child, and ends.
    private static let inheriting = """
        read, write = os.pipe()
        if os.fork() == 0:
            client = connected()
            if sys.argv[2] == "early": client.sendall(bytes.fromhex(sys.argv[3]))
            else: time.sleep(0.5)
            first = os.getpid()
            if os.fork(): os._exit(0)
            while os.getppid() == first: time.sleep(0.01)
            time.sleep(0.1)
            if sys.argv[2] != "early": client.sendall(bytes.fromhex(sys.argv[3]))
            answer = b""
            try:
                while more := client.recv(4096): answer += more
            except ConnectionResetError: pass
            os.write(write, b"answer " + answer[:4].hex().encode() + b"\\n")
            os._exit(0)
        os.close(write)
        os.wait()
        sys.stdout.write(os.read(read, 100).decode())

        """

    private static let request = Request(.target, .show).bytes().map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    private static let notSupported = "answer 16000000\n"

    @Test("A connection whose process has ended is nobody's, whoever has inherited it")
    func inherited() throws {
        let it = try Administered(grants: "")
        let asked = try it.client(0, Self.inheriting, ["late", Self.request]).wait(seconds: 20)
        #expect(asked.output == Self.notSupported && it.daemon.log.contains("the process that has connected has ended"), "\(asked.evidence)\n\(it.daemon.log)")
        // Before anybody has looked who it is.
        it.daemon.process.signal(SIGSTOP)
        let early = try it.client(0, Self.inheriting, ["early", Self.request])
        pause(seconds: 1)
        it.daemon.process.signal(SIGCONT)
        let closed = early.wait(seconds: 20)
        #expect(closed.output == "answer \n" && it.daemon.log.contains("cannot be found out who it is"), "\(closed.evidence)\n\(it.daemon.log)")
        #expect(try it.tgtadm(0, Administered.show).succeeded)
        let trail = try String(contentsOfFile: it.daemon.folder.path("state/audit/management-00000001.jsonl"), encoding: .utf8)
        #expect(trail.contains("peerRefused"))
    }

    @Test("That is so without a policy, too")
    func inheritedWithoutPolicy() throws {
        let daemon = try Daemon(options: ["--policy", "none"])
        let asked = try Running(
            ["/usr/bin/python3", "-u", "-c", Administered.talk + Self.inheriting, daemon.folder.path("socket.\(Daemon.controlPort)"), "late", Self.request], folder: daemon.folder
        ).wait(seconds: 20)
        #expect(asked.output == Self.notSupported && daemon.log.contains("the process that has connected has ended"), "\(asked.evidence)\n\(daemon.log)")
    }

    @Test("A peer that this host does not see is refused, though it is root")
    func unseen() throws {
        let folder = try Folder()
        // In a world of processes of its own: nobody outside has a number there.
        let daemon = try Running(
            ["unshare", "--pid", "--fork", "--kill-child", Subject.tgtd, "-f", "-C", "\(Daemon.controlPort)", "--iscsi", "portal=127.0.0.1:\(Ports.next())", "--state", folder.path("state"), "--policy", "none"],
            environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
        defer { daemon.kill() }
        let client = [Subject.tgtadm, "-C", "\(Daemon.controlPort)", "--op", "show", "--mode", "system"]
        var asked: Finished?
        let refused = try eventually(within: 20) {
            asked = try Running(client, environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder).wait(seconds: 10)
            return daemon.output.contains("it cannot be found out who it is")
        }
        #expect(refused && asked?.succeeded == false, "\(daemon.output)")
        #expect(daemon.poll() == nil)
    }

    @Test("A group counts as the kernel says it, also behind a hundred others; the one that stands for what has no number here does not")
    func groups() throws {
        let it = try Administered(grants: "  - {groups: [games], role: observer, tenant: all, authenticate: no}\n  - {groups: [nogroup], role: observer, tenant: all, authenticate: no}\n")
        #expect(try it.tgtadm(Administered.webUser, Administered.show, groups: [60]).succeeded, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.webUser, Administered.show, groups: Array(3000..<3100) + [60]).succeeded, it.daemon.evidence)
        // games is of the group games by the name service, and this process of it is not.
        #expect(try !it.tgtadm(Administered.webUser, Administered.show, groups: Array(3000..<3100)).succeeded)
        #expect(try !it.tgtadm(Administered.webUser, Administered.show, groups: [65534]).succeeded)
    }

    @Test("The socket is open to all unless somebody has said otherwise")
    func mode() throws {
        let it = try Administered(grants: "")
        let attributes = try FileManager.default.attributesOfItem(atPath: it.daemon.folder.path("socket.\(Daemon.controlPort)"))
        #expect(attributes[.posixPermissions] as? Int == 0o666)
        let closed = try Administered(grants: Self.everybody, settings: "socket:\n  mode: 0600\n")
        #expect(try closed.tgtadm(0, Administered.show).succeeded)
        #expect(try closed.tgtadm(Administered.mail, Administered.show).ending == .exited(107))
    }

    /// For news alone PAM takes for ever.
    private static let slow = """
        auth required pam_permit.so
        account required pam_exec.so quiet FOLDER/slow

        """

    @Test("Connections of one user are limited: below, at and above; others and root get in all the same")
    func limited() throws {
        let it = try Administered(
            grants: Self.everybody, pam: Self.slow, settings: "limits:\n  management-connections-per-user: 3\n  management-connections: 4\n",
            scripts: ["slow": "#!/bin/sh\n[ \"$PAM_USER\" = news ] || { [ \"$PAM_USER\" = mail ] && [ -e FOLDER/mail ]; } || exit 0\necho x >> FOLDER/waiting\nsleep 600\n"])
        func waiting() -> Int { ((try? String(contentsOfFile: it.files.path("waiting"), encoding: .utf8)) ?? "").split(separator: "\n").count }
        // Below the limit, and at it.
        let asking = try (0..<3).map { _ in try it.start(Administered.news, Administered.show) }
        #expect(eventually(within: 8) { waiting() == 3 }, it.daemon.evidence)
        // Above: none of them idles.
        let fourth = try it.tgtadm(Administered.news, Administered.show, seconds: 8)
        #expect(!fourth.succeeded && fourth.elapsed < .seconds(6) && it.daemon.log.contains("too many management connections at once"), "\(fourth.evidence)")
        #expect(try it.tgtadm(Administered.mail, Administered.show, seconds: 8).succeeded, it.daemon.evidence)
        let client = try it.client(Administered.mail, "waiting = connected()\nprint('in')\ntime.sleep(8)")
        #expect(eventually(within: 5) { client.output == "in\n" })
        // At the limit of all none of the greediest user's idles, but one of another's does.
        #expect(try it.tgtadm(Administered.mail, Administered.show, seconds: 8).succeeded, it.daemon.evidence)
        // None idles: one more has no place, but for root.
        try Data().write(to: URL(fileURLWithPath: it.files.path("mail")))
        let fifth = try it.start(Administered.mail, Administered.show)
        #expect(eventually(within: 8) { waiting() == 4 }, it.daemon.evidence)
        #expect(try !it.tgtadm(Administered.mail, Administered.show, seconds: 8).succeeded)
        #expect(try it.tgtadm(0, Administered.show, seconds: 8).succeeded, it.daemon.evidence)
        #expect(try it.tgtadm(0, Administered.show, seconds: 8).succeeded, it.daemon.evidence)
        for client in asking + [fifth] { client.kill() }
        client.kill()
        try FileManager.default.removeItem(atPath: it.files.path("mail"))
        #expect(try eventually(within: 20) { try it.tgtadm(Administered.mail, Administered.show).succeeded }, it.daemon.evidence)
    }
}
