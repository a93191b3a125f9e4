import Testing

/// Accounts as an administrator keeps them; who gets in with them is another suite's.
@Suite(.enabled(if: Subject.isPortcullis)) struct AccountTests {
    private static let warning = "tgtadm: warning: others on this host can see a secret on the command line; see --password-file\n"

    /// A shell with `$tgtadm` that reaches the daemon.
    private func shell(_ daemon: Daemon, _ script: String, client: String = Subject.tgtadm) throws -> Finished {
        try run(
            "bash", "-c", "tgtadm='\(client) -C \(Daemon.controlPort) --lld iscsi'; \(script)",
            environment: ["TGT_IPC_SOCKET": daemon.folder.path("socket")], folder: daemon.folder)
    }

    @Test("A secret comes from a file, from standard input, or from the command line with a warning; a weak one is refused")
    func sources() throws {
        let daemon = try Daemon()
        let file = try daemon.folder.write("secret-in-a-file\n", to: "secret")
        #expect(try daemon.must("--mode account --op new --user alice --password-file \(file)").isEmpty)
        let piped = try shell(daemon, "echo 'secret, through a pipe' | $tgtadm --mode account --op new --user bob --password-file -")
        #expect(piped.succeeded && piped.output.isEmpty, "\(piped.evidence)")
        #expect(try daemon.must("--mode account --op new --user carol --password secret-in-sight") == Self.warning)
        // As tgt's tgtadm abbreviates it.
        #expect(try daemon.must("--mode account --op new --user dave --pass secret-in-sight") == Self.warning)
        let lines = try daemon.folder.write("--mode account --op new --user erin --password-file \(file)\n", to: "lines")
        try daemon.must("--transaction \(lines)")
        #expect(try daemon.must("--mode account --op show") == "Account list:\n" + ["erin", "dave", "carol", "bob", "alice"].map { "    \($0)\n" }.joined())
        let short = try daemon.folder.write("short", to: "short")
        #expect(try daemon.admin(["--mode", "account", "--op", "new", "--user", "x", "--password-file", short]).output == "tgtadm: invalid request\n")
        try daemon.must("--mode account --op new --user weak --allow-weak --password-file \(short)")
        let absent = try daemon.admin(["--mode", "account", "--op", "new", "--user", "x", "--password-file", "/nowhere"])
        #expect(absent.ending == .exited(22) && absent.output == "tgtadm: /nowhere: No such file or directory\n", "\(absent.evidence)")
        // Nobody is asked where there is no terminal.
        let none = try daemon.admin(["--mode", "account", "--op", "new", "--user", "x"])
        #expect(none.ending == .exited(22) && none.output == "tgtadm: 'user' and 'password' options are required\n", "\(none.evidence)")
        for secret in ["secret-in-a-file", "secret, through", "secret-in-sight"] { #expect(!daemon.log.contains(secret)) }
    }

    @Test("At a terminal the secret is asked for twice, and is not shown; an interrupt ends that, and the terminal shows again")
    func terminal() throws {
        let daemon = try Daemon()
        let script = try daemon.folder.write("""
            import os, pty, select, sys, termios, time
            def ask(*answers):
                pid, terminal = pty.fork()
                if pid == 0: os.execv(sys.argv[1], [sys.argv[1], "-C", "\(Daemon.controlPort)", "--mode", "account", "--op", "new", "--user", "alice"])
                seen, answers = b"", list(answers)
                while True:
                    try: more = os.read(terminal, 1000)
                    except OSError: break
                    if not more: break
                    seen += more
                    if seen.endswith(b": ") and answers: os.write(terminal, answers.pop(0))
                shows = bool(termios.tcgetattr(terminal)[3] & termios.ECHO)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shows, seen.decode().replace("\\r\\n", "|")
            print(ask(b"typed-by-hand-1\\n", b"typed-by-hand-2\\n"))
            print(ask(b"typed-by\\x03"+b"\\n"))
            print(ask(b"typed-by-hand-1\\n", b"typed-by-hand-1\\n"))
            """, to: "terminal.py")
        let finished = try run("python3", script, Subject.tgtadm, environment: ["TGT_IPC_SOCKET": daemon.folder.path("socket")], folder: daemon.folder)
        #expect(finished.output == """
            (22, True, 'Secret of alice: |Again: |tgtadm: these are two different secrets|')
            (130, True, 'Secret of alice: |')
            (0, True, 'Secret of alice: |Again: |')

            """, "\(finished.evidence)")
        #expect(try daemon.must("--mode account --op show") == "Account list:\n    alice\n")
    }

    @Test("A secret that is drawn is shown once; while it takes the place of the old one both are there")
    func rotation() throws {
        let daemon = try Daemon()
        let first = try daemon.must("--mode account --op generate --user alice")
        let second = try daemon.must("--mode account --op generate --user alice --bits 256")
        #expect(first.count == 17 && second.count == 44 && first.dropLast() != second.prefix(16))
        #expect((first + second).allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._\n".contains($0)) })
        #expect(try daemon.must("--mode account --op show") == "Account list:\n    alice (two secrets)\n")
        #expect(try daemon.admin(["--mode", "account", "--op", "generate", "--user", "alice"]).ending == .exited(22))
        try daemon.must("--mode account --op update --user alice --retire-secret old")
        #expect(try daemon.must("--mode account --op show") == "Account list:\n    alice\n")
        let file = try daemon.folder.write("another secret", to: "secret")
        try daemon.must("--mode account --op update --user alice --add-secret --password-file \(file)")
        try daemon.must("--mode account --op update --user alice --retire-secret new")
        // An outgoing account has one secret.
        try daemon.addTarget()
        try daemon.must("--mode account --op bind --tid 1 --user alice --outgoing")
        #expect(try daemon.admin(["--mode", "account", "--op", "generate", "--user", "alice"]).ending == .exited(22))
        for secret in [first, second] { #expect(!daemon.log.contains(secret.dropLast())) }
    }

    @Test("An account is bound for one initiator; binding one ends within five seconds the sessions that have not authenticated")
    func boundForInitiator() throws {
        let daemon = try Daemon.serving()
        let going = try (1...20).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), name: "iqn.2026-11.org.example:host\($0)") }
        let file = try daemon.folder.write("a secret of alice", to: "secret")
        try daemon.must("--mode account --op new --user alice --password-file \(file)")
        for initiator in going { try initiator.settle() }
        let start = ContinuousClock.now
        try daemon.must("--mode account --op bind --tid 1 --user alice -Q iqn.2026-11.org.example:host1")
        #expect(going.allSatisfy { $0.wire.closes(within: 5) }, daemon.evidence)
        let took = ContinuousClock.now - start
        print("an account that is bound: 20 sessions without it had ended \(took) after the command was given")
        #expect(took < .seconds(5))
        #expect(try daemon.must("--op show --mode target").contains("        alice (for iqn.2026-11.org.example:host1)\n"))
        func explain(_ host: Int) throws -> String {
            try daemon.must("--mode access --op explain --tid 1 -Q iqn.2026-11.org.example:host\(host) -I 127.0.0.1 --user alice")
        }
        #expect(try explain(1) == "admitted\n    by the address rule ALL\n    by the account alice\n")
        #expect(try explain(2) == "refused: the account is not bound there for this initiator\n")
    }

    @Test("Debian's tgtadm keeps accounts as ever, and takes away what ours has bound")
    func debian() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        func debian(_ line: String) throws -> String { try daemon.must(line, client: Subject.debianTgtadm) }
        #expect(try debian("--op new --mode account --user alice --password secret-of-alice") == "")
        #expect(try debian("--op new --mode account --user target --password secret-of-target") == "")
        #expect(try debian("--op bind --mode account --tid 1 --user target --outgoing") == "")
        try daemon.must("--op bind --mode account --tid 1 --user alice -Q iqn.2026-11.org.example:a")
        try daemon.must("--op bind --mode account --tid 1 --user alice -Q iqn.2026-11.org.example:b")
        #expect(try debian("--op show --mode target").contains("        alice (for iqn.2026-11.org.example:b)\n        target (outgoing)\n"))
        #expect(try debian("--op unbind --mode account --tid 1 --user alice") == "")
        #expect(try !debian("--op show --mode target").contains("alice"))
        #expect(try debian("--op bind --mode account --user alice") == "" && debian("--op unbind --mode account --user alice") == "")
        #expect(try debian("--op delete --mode account --user alice") == "" && debian("--op show --mode account") == "Account list:\n    target\n")
    }
}
