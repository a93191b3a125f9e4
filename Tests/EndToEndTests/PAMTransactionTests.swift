import Foundation
import Glibc
import Testing

/// The process that runs one transaction of PAM: what it has, how far it may go, and with whom it talks.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct PAMTransactionTests {
    private static let denied = "you may not administer this daemon, or have not proved who you are"
    private static let news = "  - {users: [news], role: observer, tenant: all}\n"
    private static let ready = "  - {users: [news], role: observer, tenant: all, authenticate: no}\n"
    /// For everybody but root.
    private static func others(_ type: String, _ module: String) -> String {
        "auth required pam_permit.so\n\(type) [success=1 default=ignore] pam_succeed_if.so quiet uid = 0\n\(type) required \(module)\naccount required pam_permit.so\n"
    }

    @Test("pam_exec: a program that is given the password decides, and one that is told who it is")
    func program() throws {
        let it = try Administered(
            grants: Self.news, pam: "auth required pam_exec.so quiet expose_authtok FOLDER/password\naccount required pam_exec.so quiet FOLDER/who\n",
            scripts: [
                "password": "#!/bin/sh\n[ \"$(tr -d '\\000')\" = 'the right one' ]\n",
                "who": "#!/bin/sh\n[ \"$PAM_USER $PAM_SERVICE $PAM_TYPE $PAM_RUSER\" = \"news tgtd account news\" ] || [ \"$PAM_USER\" = root ]\n",
            ])
        let right = try it.tgtadm(Administered.news, Administered.show, answers: ["the right one"])
        #expect(right.succeeded, "\(right.evidence)\n\(it.daemon.log)")
        let wrong = try it.tgtadm(Administered.news, Administered.show, answers: ["another one"])
        #expect(wrong.ending == .exited(22) && wrong.output.contains(Self.denied) && !wrong.output.contains("another one"), "\(wrong.evidence)")
    }

    @Test("It has the connection and its door and nothing else: no descriptor, no environment, no terminal; its memory and its time are bounded")
    func confined() throws {
        let it = try Administered(
            grants: Self.ready, pam: Self.others("account", "pam_exec.so quiet FOLDER/look"),
            scripts: ["look": """
                #!/bin/sh
                { for descriptor in /proc/$PPID/fd/*; do echo "fd ${descriptor##*/} $(readlink $descriptor)"; done
                tr '\\0' '\\n' < /proc/$PPID/environ | sed 's/^/env /'
                cat /proc/$PPID/limits
                echo "arguments $(tr '\\0' ' ' < /proc/$PPID/cmdline)"; } > FOLDER/seen

                """])
        try it.daemon.must("--op new --mode account --user planted --password planted-secret-1")
        let asked = try it.tgtadm(Administered.news, Administered.show)
        #expect(asked.succeeded, "\(asked.evidence)\n\(it.daemon.log)")
        let seen = try String(contentsOfFile: it.files.path("seen"), encoding: .utf8).split(separator: "\n").map(String.init)
        let descriptors = seen.filter { $0.hasPrefix("fd ") }.map { $0.split(separator: " ").dropFirst().map(String.init) }
        // Standard ones lead nowhere; the door, the connection, and perhaps the system's log.
        #expect(descriptors.filter { ["0", "1", "2"].contains($0[0]) }.allSatisfy { $0[1] == "/dev/null" }, "\(descriptors)")
        #expect(descriptors.count { $0[1].hasPrefix("socket:") } <= 3, "\(descriptors)")
        for word in ["state", "audit", "lock", "policy.yaml", "eventpoll", "signalfd"] { #expect(!descriptors.contains { $0[1].contains(word) }, "\(descriptors)") }
        #expect(seen.filter { $0.hasPrefix("env ") }.allSatisfy { line in ["SWIFT_BACKTRACE=", "JOURNAL_STREAM=", "TZ="].contains { line.hasPrefix("env " + $0) } }, "\(seen)")
        func limit(_ name: String) -> String? { seen.first { $0.hasPrefix(name) }?.dropFirst(name.count).split(separator: " ").prefix(2).joined(separator: " ") }
        #expect(limit("Max address space") == "536870912 536870912" && limit("Max cpu time") == "10 10" && limit("Max core file size") == "0 0", "\(seen)")
        #expect(seen.contains { $0.hasPrefix("arguments tgtd --role administrator --parent") }, "\(seen)")
    }

    @Test("A module that wants more memory than there is gets none, and control is none the bigger")
    func memory() throws {
        let it = try Administered(
            grants: Self.ready, pam: Self.others("account", "pam_exec.so quiet FOLDER/big"),
            scripts: ["big": "#!/usr/bin/python3\nx = bytearray(SIZE << 20)\n".replacingOccurrences(of: "SIZE", with: "600")])
        let before = it.daemon.residentBytes
        let asked = try it.tgtadm(Administered.news, Administered.show)
        #expect(asked.output.contains(Self.denied) && it.daemon.log.contains("PAM: account ended with code"), "\(asked.evidence)\n\(it.daemon.log)")
        #expect(it.daemon.residentBytes - before < 8 << 20)
        // With less it would have done.
        try "#!/usr/bin/python3\nx = bytearray(64 << 20)\n".write(toFile: it.files.path("big"), atomically: false, encoding: .utf8)
        #expect(try it.tgtadm(Administered.news, Administered.show).succeeded, it.daemon.evidence)
    }

    private static let matrix = "auth required /usr/lib/x86_64-linux-gnu/pam_wrapper/pam_matrix.so passdb=FOLDER/passdb\naccount required pam_permit.so\n"

    @Test("Who types slowly has the time for it, longer than anything else may take")
    func slowly() throws {
        let it = try Administered(grants: Self.news, pam: Self.matrix, scripts: ["passdb": "news:right:tgtd\n"])
        let typist = try it.client(Administered.news, """
            client = connected()
            hello(client)
            ask(client)
            kind, question = heard(client)
            print("asked" if kind == 4 and question[0] == 1 else "not asked")
            answer = frame(4, b"right")
            for byte in answer[:-1]:
                client.sendall(bytes([byte]))
                time.sleep(1)
            client.sendall(answer[-1:])
            kind, answer = heard(client)
            print(kind, struct.unpack(">I", answer[:4])[0])
            """)
        #expect(eventually(within: 10) { typist.output == "asked\n" }, "\(typist.output)")
        for _ in 0..<5 { #expect(try it.tgtadm(0, Administered.show, seconds: 5).succeeded, it.daemon.evidence) }
        let finished = typist.wait(seconds: 40)
        #expect(finished.output == "asked\n3 0\n" && finished.elapsed > .seconds(12), "\(finished.evidence)\n\(it.daemon.log)")
    }

    @Test("An answer that is none ends it: garbage, too long, another request, nothing more", arguments: [
        "client.sendall(b'\\xff' * 64)", "client.sendall(bytes([4, 0, 0, 0]) + struct.pack('>I', 0x7fffffff))", "client.sendall(frame(4, b'x' * 512))", "ask(client)",
        "client.sendall(b'PORTCULL' + bytes(112))", "client.sendall(frame(4, b'right\\0'))", "client.sendall(frame(4, b'right')[:9]); client.shutdown(socket.SHUT_WR)", "client.sendall(frame(3, b'right'))",
    ])
    func nonsense(said: String) throws {
        let it = try Administered(grants: Self.news, pam: Self.matrix, scripts: ["passdb": "news:right:tgtd\n"])
        let client = try it.client(Administered.news, "client = connected()\nhello(client)\nask(client)\nheard(client)\n\(said)\nkind, answer = heard(client)\nprint(kind, answer)\n")
        let finished = client.wait(seconds: 30)
        // It is refused, or closed where it speaks out of turn.
        #expect(!finished.output.contains("3 b'\\x00\\x00\\x00\\x00") && (finished.output.contains(Self.denied) || finished.output.hasPrefix("0 ") || !finished.succeeded), "\(finished.evidence)")
        #expect(eventually(within: 5) { it.checks == 0 })
        #expect(try it.tgtadm(Administered.news, Administered.show, answers: ["right"]).succeeded, it.daemon.evidence)
    }

    @Test("Who goes away while being asked has asked for nothing, and stands in the trail")
    func gone() throws {
        let it = try Administered(grants: Self.news, pam: Self.matrix, scripts: ["passdb": "news:right:tgtd\n"])
        let client = try it.client(Administered.news, "client = connected()\nhello(client)\nask(client)\nprint(heard(client)[0])\n")
        #expect(client.wait(seconds: 20).output == "4\n")
        #expect(eventually(within: 5) { it.checks == 0 && it.daemon.log.contains("PAM: whoever asks has gone away") }, it.daemon.evidence)
        let trail = try String(contentsOfFile: it.daemon.folder.path("state/audit/management-00000001.jsonl"), encoding: .utf8).split(separator: "\n")
        #expect(trail.contains { $0.contains("\"uid\":9") && $0.contains("refused") }, "\(trail)")
    }
}
