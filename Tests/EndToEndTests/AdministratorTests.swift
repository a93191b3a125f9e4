import Foundation
import Glibc
import Testing

/// Who administers: real processes of other uids, a real socket, real PAM.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct AdministratorTests {
    private static let denied = "you may not administer this daemon, or have not proved who you are"

    @Test("Users and groups do what their roles say, with their tenant only; nobody is nobody")
    func roles() throws {
        let it = try Administered(grants: """
              - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}
              - {users: [9], role: tenant-administrator, tenant: blue, authenticate: no}
              - {groups: [games], role: observer, tenant: all, authenticate: no}

            """)
        #expect(try it.tgtadm(0, Administered.target(1, "other")).succeeded, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.news, Administered.target(200, "blue"), client: Subject.debianTgtadm).succeeded, it.daemon.evidence)
        for (tid, name) in [(200, "red2"), (101, "blue2"), (2, "more")] {
            let refused = try it.tgtadm(Administered.mail, Administered.target(tid, name))
            #expect(refused.ending == .exited(22) && refused.output == "tgtadm: invalid request\n", "\(refused.evidence)")
        }
        func targets(_ uid: Int, groups: [Int] = []) throws -> [String] {
            let shown = try it.tgtadm(uid, Administered.show, groups: groups)
            #expect(shown.succeeded, "\(shown.evidence)")
            return shown.output.split(separator: "\n").filter { $0.hasPrefix("Target ") }.map { String($0.split(separator: ":")[0]) }
        }
        #expect(try targets(0) == ["Target 1", "Target 100", "Target 200"])
        #expect(try targets(Administered.mail) == ["Target 100"])
        #expect(try targets(Administered.news) == ["Target 200"])
        #expect(try targets(Administered.webUser, groups: [60]) == ["Target 1", "Target 100", "Target 200"])
        // What is others' is not there: the same words as for what is nobody's at all.
        for line in ["--op delete --mode target --tid TID", "--op show --mode target --tid TID --json", "--op show --mode conn --tid TID", "--op update --mode target --tid TID --name nop_count --value 1"] {
            let other = try it.tgtadm(Administered.mail, line.replacingOccurrences(of: "TID", with: "200")).output
            let nothing = try it.tgtadm(Administered.mail, line.replacingOccurrences(of: "TID", with: "250")).output
            #expect(other.replacingOccurrences(of: "200", with: "250") == nothing && other.contains("can't find the target"), "\(other)\n\(nothing)")
        }
        let whole = try it.tgtadm(Administered.mail, "--op update --mode sys --name State --value offline")
        #expect(whole.ending == .exited(22) && whole.output.contains("tgtadm: this operation isn't supported") && whole.output.contains("no grant of this user has a role that may do this"), "\(whole.evidence)")
        #expect(try !it.tgtadm(Administered.webUser, Administered.target(3, "x"), groups: [60]).succeeded)
        let stranger = try it.tgtadm(Administered.webUser, Administered.show)
        #expect(stranger.ending == .exited(22) && stranger.output.contains("no grant for this user"), "\(stranger.evidence)")
        let debian = try it.tgtadm(Administered.webUser, Administered.show, client: Subject.debianTgtadm)
        #expect(debian.output == "tgtadm: this operation isn't supported\n", "\(debian.evidence)")
        // Nobody's number, and one that the name service does not know.
        #expect(try !it.tgtadm(65534, Administered.show).succeeded && it.daemon.log.contains("a management connection of nobody is closed"))
        let unknown = try it.tgtadm(54321, Administered.show, groups: [60])
        #expect(unknown.output.contains(Self.denied) && it.daemon.log.contains("the name service knows nobody of this number"), "\(unknown.evidence)")
        #expect(try targets(0) == ["Target 1", "Target 100", "Target 200"])
    }

    @Test("Accounts of the same name are two of two tenants'")
    func accounts() throws {
        let it = try Administered(grants: """
              - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}
              - {users: [news], role: tenant-administrator, tenant: blue, authenticate: no}
              - {users: [bin], role: tenant-administrator, tenant: red, authenticate: no}
              - {users: [bin], role: tenant-administrator, tenant: blue, authenticate: no}

            """)
        let new = "--op new --mode account --user iqn --password secret-of-twelve"
        for uid in [0, Administered.mail, Administered.news] { #expect(try it.tgtadm(uid, new).succeeded, it.daemon.evidence) }
        #expect(try it.tgtadm(Administered.mail, new).output.contains("this account already exists"))
        #expect(try it.tgtadm(Administered.bin, new + "2").output.contains("say which (--tenant)"))
        #expect(try it.tgtadm(Administered.bin, "--op new --mode account --user two --password secret-of-twelve --tenant red").succeeded, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, "--op new --mode account --user x --password secret-of-twelve --tenant blue").output.contains("invalid request"))
        let shown = try it.tgtadm(Administered.mail, "--op show --mode account")
        #expect(shown.output == "Account list:\n    two\n    iqn\n", "\(shown.evidence)")
        #expect(try it.tgtadm(0, "--op show --mode account").output.contains("iqn (tenant blue)"))
        #expect(try it.tgtadm(Administered.news, "--op delete --mode account --user iqn").succeeded)
        #expect(try it.tgtadm(Administered.mail, "--op show --mode account").output.contains("iqn"))
        // Kept, and whose they are as well.
        _ = it.daemon.stop()
        try it.daemon.restart()
        permit(it.daemon.folder.path, 0o755)
        #expect(try it.tgtadm(Administered.mail, "--op show --mode account").output == "Account list:\n    two\n    iqn\n")
    }

    @Test("A tenant's stores are in its directories, and no link leads out of them")
    func stores() throws {
        let it = try Administered(grants: "  - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}\n")
        for name in ["red/disk", "blue/disk", "outside"] {
            _ = FileManager.default.createFile(atPath: it.files.path(name), contents: nil)
            unsafe _ = truncate(it.files.path(name), 1 << 20)
        }
        try FileManager.default.createSymbolicLink(atPath: it.files.path("red/link"), withDestinationPath: it.files.path("blue/disk"))
        #expect(try it.tgtadm(Administered.mail, Administered.target(100, "red")).succeeded, it.daemon.evidence)
        func disk(_ uid: Int, _ tid: Int, _ lun: Int, _ path: String) throws -> Finished {
            try it.tgtadm(uid, "--op new --mode logicalunit --tid \(tid) --lun \(lun) -b \(it.files.path(path))")
        }
        #expect(try disk(Administered.mail, 100, 1, "red/disk").succeeded, it.daemon.evidence)
        for path in ["blue/disk", "outside", "missing", "red/link", "red/../outside", "red/../missing"] {
            #expect(try disk(Administered.mail, 100, 2, path).ending == .exited(22), "\(path)")
            // Whoever makes it: it is the tenant's target.
            #expect(try disk(0, 100, 2, path).ending == .exited(22), "\(path)")
        }
        let log = it.daemon.log.split(separator: "\n").filter { $0.contains("a store is not opened") }
        #expect(log.count == 12 && log.allSatisfy { $0.contains("of this tenant") }, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, "--op update --mode logicalunit --tid 100 --lun 1 --params path=\(it.files.path("outside"))").ending == .exited(22))
        #expect(try it.tgtadm(0, Administered.target(1, "other")).succeeded && disk(0, 1, 1, "outside").succeeded, it.daemon.evidence)
    }

    @Test("A policy is read again on SIGHUP, whole or not at all")
    func reload() throws {
        let it = try Administered(grants: "")
        #expect(try !it.tgtadm(Administered.mail, Administered.show).succeeded)
        try it.rewrite(grants: "  - {users: [mail], role: observer, tenant: all, authenticate: no}\n")
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("the policy has been read again: 2 grants, 2 tenants") }, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, Administered.show).succeeded, it.daemon.evidence)
        try it.rewrite(grants: "  - {users: [mail], role: observer, tenant: all, authenticate: no}\n  - {users: [mail], role: king, tenant: all}\n")
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("the policy is as it was: \(it.files.path("policy.yaml")):13: there is no role “king”") }, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, Administered.show).succeeded)
        // One that others could have written is none.
        permit(it.files.path("policy.yaml"), 0o666)
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("can be written by others") }, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, Administered.show).succeeded)
        // And tgtd does not start with it.
        _ = it.daemon.stop()
        #expect(throws: Failure.self) { try it.daemon.restart() }
        #expect(it.daemon.log.contains("can be written by others"))
    }

    @Test("Root is subject to the policy as anybody is")
    func root() throws {
        let it = try Administered(grants: "  - {users: [mail], role: administrator, tenant: all, authenticate: no}\n")
        try it.rewrite(grants: "  - {users: [mail], role: administrator, tenant: all, authenticate: no}\n  - {users: [root], role: observer, tenant: red, authenticate: no}\n", root: "grants:\n")
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("the policy has been read again") }, it.daemon.evidence)
        let new = try it.tgtadm(0, Administered.target(1, "root"))
        #expect(new.ending == .exited(22) && new.output.contains("no grant of this user has a role that may do this"), "\(new.evidence)")
        #expect(try it.tgtadm(Administered.mail, Administered.target(1, "other")).succeeded, it.daemon.evidence)
        let shown = try it.tgtadm(0, Administered.show)
        #expect(shown.succeeded && shown.output.isEmpty, "\(shown.evidence)")
    }

    @Test("Explain says who may do what, and by which line")
    func explain() throws {
        let it = try Administered(grants: """
              - {users: [mail], role: tenant-administrator, tenant: red}
              - {groups: [mail], role: auditor, tenant: all, authenticate: no}

            """)
        let text = try it.tgtadm(0, "--op explain --mode policy --user mail").output
        #expect(text.contains("User: mail, uid 8, groups mail\n"), "\(text)")
        #expect(text.contains("    target new: allowed as tenant-administrator of tenant red (line 12), after authentication\n"), "\(text)")
        #expect(text.contains("    target show: allowed as auditor of all tenants (line 13)\n") && text.contains("    system update: refused: no grant of this user has a role that may do this\n"), "\(text)")
        let json = try it.tgtadm(Administered.mail, "--op explain --mode policy --json").output
        #expect(try JSONSerialization.jsonObject(with: Data(json.utf8)) is [String: Any] && json.contains("\"user\": \"mail\"") || json.contains("\"user\":\"mail\""), "\(json)")
        // By its number it is the same user, and groups and names count.
        let byNumber = try it.tgtadm(0, "--op explain --mode policy --user 8").output
        #expect(byNumber == text, "\(byNumber)")
        for nobody in ["no-such-user", "54321", "nobody", "65534", "4294967295"] {
            #expect(try it.tgtadm(0, "--op explain --mode policy --user \(nobody)").output.contains("can't find the account"), "\(nobody)")
        }
        // Others than oneself are for those who administer all tenants, and a tenant that is not one's own is none.
        let other = try it.tgtadm(Administered.mail, "--op explain --mode policy --user root")
        #expect(other.succeeded, "\(other.evidence)")
        try it.rewrite(grants: "  - {users: [mail], role: tenant-administrator, tenant: red, authenticate: no}\n")
        it.daemon.process.signal(SIGHUP)
        #expect(eventually(within: 5) { it.daemon.log.contains("the policy has been read again: 2 grants, 2 tenants") }, it.daemon.evidence)
        #expect(try it.tgtadm(Administered.mail, "--op explain --mode policy --user root").output.contains("it is about all tenants"))
        #expect(try it.tgtadm(Administered.mail, "--op explain --mode policy --tenant red").output.contains("target new: allowed as tenant-administrator of tenant red (line 12)\n"))
        for tenant in ["blue", "no-such"] {
            let refused = try it.tgtadm(Administered.mail, "--op explain --mode policy --tenant \(tenant)")
            #expect(refused.ending == .exited(22) && refused.output.contains("there is no tenant “\(tenant)”"), "\(refused.evidence)")
        }
        #expect(try it.tgtadm(0, "--op explain --mode policy --tenant no-such").output.contains("there is no tenant"))
        #expect(try it.tgtadm(0, "--op explain --mode policy --tenant blue").succeeded)
    }

    @Test("Without a policy, our own user administers, and others hear that they may not; the socket's mode and group are as said")
    func withoutPolicy() throws {
        let daemon = try Daemon(options: ["--policy", "none", "--socket-mode", "0660", "--socket-group", "mail"])
        permit(daemon.folder.path, 0o755)
        let socket = daemon.folder.path("socket.\(Daemon.controlPort)")
        let attributes = try FileManager.default.attributesOfItem(atPath: socket)
        #expect(attributes[.posixPermissions] as? Int == 0o660 && attributes[.groupOwnerAccountID] as? Int == 8)
        func show(_ uid: Int) throws -> Finished {
            try Running(
                ["setpriv", "--reuid=\(uid)", "--regid=\(uid)", "--clear-groups", Subject.tgtadm, "-C", "\(Daemon.controlPort)", "--op", "show", "--mode", "target"],
                environment: ["TGT_IPC_SOCKET": daemon.folder.path("socket")], folder: daemon.folder
            ).wait(seconds: 20)
        }
        #expect(try show(0).succeeded)
        #expect(try show(8).output.contains("no grant for this user"))
        // The kernel keeps the others out.
        #expect(try show(9).ending == .exited(107))
    }
}

/// PAM at the socket.
@Suite(.enabled(if: Subject.isPortcullis && geteuid() == 0, "other users are root's to become")) struct PAMTests {
    private static let denied = "you may not administer this daemon, or have not proved who you are"
    private static let needsTalk = "this client cannot ask it"
    private static let news = "  - {users: [news], role: observer, tenant: all}\n"
    private static let matrix = """
        auth required /usr/lib/x86_64-linux-gnu/pam_wrapper/pam_matrix.so passdb=FOLDER/passdb
        account required pam_permit.so

        """

    @Test("pam_matrix: the right password lets in, another one does not, and who cannot be asked hears why")
    func matrix() throws {
        let it = try Administered(grants: Self.news, pam: Self.matrix, scripts: ["passdb": "news:the right one:tgtd\n"])
        let right = try it.tgtadm(Administered.news, Administered.show, answers: ["the right one"])
        #expect(right.succeeded, "\(right.evidence) \(it.daemon.log)")
        let wrong = try it.tgtadm(Administered.news, Administered.show, answers: ["another"])
        #expect(wrong.ending == .exited(22) && wrong.output.contains(Self.denied), "\(wrong.evidence)")
        #expect(it.daemon.log.contains("PAM: authenticate ended with code 7") && !it.daemon.log.contains("right one") && !it.daemon.log.contains("another"), it.daemon.evidence)
        let mute = try it.tgtadm(Administered.news, Administered.show)
        #expect(mute.ending == .exited(22) && mute.output.contains(Self.needsTalk), "\(mute.evidence)")
        let debian = try it.tgtadm(Administered.news, Administered.show, client: Subject.debianTgtadm)
        #expect(debian.output == "tgtadm: this operation isn't supported\n", "\(debian.evidence)")
        let root = try it.tgtadm(0, Administered.show, client: Subject.debianTgtadm)
        #expect(root.succeeded, "\(root.evidence)")
        // At a terminal, and not seen there.
        let typed = try Running(
            ["python3", "-c", Self.terminal, "setpriv", "--reuid=9", "--regid=9", "--clear-groups", Subject.tgtadm, "-C", "\(Daemon.controlPort)", "--op", "show", "--mode", "system"],
            environment: ["TGT_IPC_SOCKET": it.daemon.folder.path("socket")], folder: it.daemon.folder
        ).wait(seconds: 30)
        #expect(typed.succeeded && typed.output.contains("State: ready") && !typed.output.contains("right one"), "\(typed.evidence)")
    }
    /// Runs its arguments at a terminal, and types the password when it is asked.
    private static let terminal = """
        import os, pty, sys
        pid, terminal = pty.fork()
        if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
        seen = b""
        while True:
            try: more = os.read(terminal, 4096)
            except OSError: break
            if not more: break
            seen += more
            if seen.endswith(b": ") and b"the right one" not in seen and b"asked" not in seen:
                os.write(terminal, b"the right one\\n")
        sys.stdout.write(seen.decode())
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        """

    @Test("pam_unix: a user of this host with its password, one whose account has expired, and one with blanks and a backslash in its name")
    func unix() throws {
        let hash = try run("openssl", "passwd", "-6", "of the host", folder: Folder()).output.trimmingCharacters(in: .whitespacesAndNewlines)
        let it = try Administered(
            grants: "  - {users: [keeper, 'EXAMPLE\\bob smith', expired], role: observer, tenant: all}\n",
            pam: "auth required pam_unix.so\naccount required pam_unix.so\n",
            passwd: "keeper:x:4242:4242::/:/bin/sh\nEXAMPLE\\bob smith:x:4243:4243::/:/bin/sh\nexpired:x:4244:4244::/:/bin/sh\n",
            shadow: "keeper:\(hash):19000:0:99999:7:::\nEXAMPLE\\bob smith:\(hash):19000:0:99999:7:::\nexpired:\(hash):19000:0:99999:7::19001:\n")
        for uid in [4242, 4243] {
            let right = try it.tgtadm(uid, Administered.show, answers: ["of the host"])
            #expect(right.succeeded, "\(right.evidence) \(it.daemon.log)")
        }
        #expect(try it.tgtadm(4242, Administered.show, answers: ["of another host"]).output.contains(Self.denied))
        #expect(try it.tgtadm(4242, Administered.show, answers: [""]).output.contains(Self.denied))
        #expect(try it.tgtadm(4244, Administered.show, answers: ["of the host"]).output.contains(Self.denied))
        #expect(it.daemon.log.contains("PAM: account ended with code 13"), it.daemon.evidence)
        // One word outside, the exact code in the trail.
        let trail = try String(contentsOfFile: it.daemon.folder.path("state/audit/management-00000001.jsonl"), encoding: .utf8)
        #expect(trail.contains("\"PAM account: 13\"") && trail.contains("\"PAM authenticate: 7\""), "\(trail)")
        // Root's account is asked, too.
        #expect(try it.tgtadm(0, Administered.show).succeeded, it.daemon.evidence)
    }

    @Test("pam_listfile: an account that is not to be used is not, whatever policy grants")
    func listfile() throws {
        let it = try Administered(
            grants: "  - {users: [mail, news], role: observer, tenant: all, authenticate: no}\n",
            pam: "auth required pam_deny.so\naccount required pam_listfile.so item=user sense=deny file=FOLDER/denied onerr=fail\naccount required pam_permit.so\n",
            scripts: ["denied": "mail\n"])
        // pam_listfile wants a list that nobody else writes or runs.
        permit(it.files.path("denied"), 0o600)
        #expect(try it.tgtadm(Administered.news, Administered.show).succeeded, it.daemon.evidence)
        let denied = try it.tgtadm(Administered.mail, Administered.show)
        #expect(denied.output.contains(Self.denied) && it.daemon.log.contains("PAM: account ended with code"), "\(denied.evidence)")
    }

    /// For everybody but root.
    private static func others(_ type: String, _ module: String) -> String {
        "auth required pam_permit.so\n\(type) [success=1 default=ignore] pam_succeed_if.so quiet uid = 0\n\(type) required \(module)\naccount required pam_permit.so\n"
    }

    @Test("A module that hangs is ended with all that it has started, and nobody else waits")
    func hangs() throws {
        let it = try Administered(
            grants: "  - {users: [news], role: observer, tenant: all, authenticate: no}\n", pam: Self.others("account", "pam_exec.so quiet FOLDER/hang"),
            scripts: ["hang": "#!/bin/sh\n(setsid sh -c 'echo $$ > FOLDER/orphan; exec sleep 600' &)\necho $$ > FOLDER/pid\nsleep 600\n"])
        let hanging = try it.start(Administered.news, Administered.show)
        #expect(eventually(within: 10) { ["pid", "orphan"].allSatisfy { FileManager.default.fileExists(atPath: it.files.path($0)) } })
        for _ in 0..<5 { #expect(try it.tgtadm(0, Administered.show, seconds: 5).succeeded) }
        let finished = hanging.wait(seconds: 20)
        #expect(finished.output.contains(Self.denied) && finished.elapsed > .seconds(8) && it.daemon.log.contains("there is no answer in time"), "\(finished.evidence)")
        // One that has left its session and its parent, too.
        let scripts = try ["pid", "orphan"].map { try #require(pid_t(String(contentsOfFile: it.files.path($0), encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines))) }
        #expect(eventually(within: 5) { scripts.allSatisfy { kill($0, 0) != 0 } && it.checks == 0 }, "what the module has started lives on")
    }

    @Test("A module that crashes takes its own process with it and no other")
    func crashes() throws {
        let it = try Administered(
            grants: "  - {users: [news], role: observer, tenant: all, authenticate: no}\n", pam: Self.others("account", "pam_exec.so quiet FOLDER/crash"),
            scripts: ["crash": "#!/bin/sh\nkill -SEGV $PPID\nsleep 1\n"])
        let crashed = try it.tgtadm(Administered.news, Administered.show)
        #expect(crashed.output.contains(Self.denied) && it.daemon.log.contains("the process ended"), "\(crashed.evidence)")
        #expect(try it.tgtadm(0, Administered.show).succeeded)
    }

    @Test("A module that says ten megabytes is not listened to", arguments: ["yes 'so much to say' | head -c 10000000", "head -c 10000000 /dev/zero | tr '\\0' x"])
    func prints(command: String) throws {
        let it = try Administered(grants: Self.news, pam: Self.others("auth", "pam_exec.so stdout quiet FOLDER/print"), scripts: ["print": "#!/bin/sh\n\(command)\n"])
        let before = it.daemon.residentBytes
        let finished = try it.tgtadm(Administered.news, Administered.show, answers: [])
        #expect(finished.output.utf8.count < 400_000, "\(finished.output.utf8.count) bytes")
        #expect(it.daemon.residentBytes - before < 8 << 20)
        #expect(try it.tgtadm(0, Administered.show).succeeded)
    }

    @Test("A module that makes somebody else of who asks is not believed")
    func otherUser() throws {
        let folder = try Folder()
        let source = folder.path("other.c"), module = folder.path("other.so")
        try """
            #include <security/pam_modules.h>
            int pam_sm_authenticate(pam_handle_t *h, int f, int c, const char **v) { return pam_set_item(h, PAM_USER, "root"); }
            int pam_sm_setcred(pam_handle_t *h, int f, int c, const char **v) { return PAM_SUCCESS; }
            """.write(toFile: source, atomically: true, encoding: .utf8)
        let made = try run("clang", "-shared", "-fPIC", "-o", module, source, folder: folder)
        #expect(made.succeeded, "\(made.evidence)")
        let it = try Administered(grants: Self.news, pam: "auth required \(module)\naccount required pam_permit.so\n")
        let refused = try it.tgtadm(Administered.news, Administered.show, answers: [])
        #expect(refused.output.contains(Self.denied) && it.daemon.log.contains("PAM: user ended with code 0"), "\(refused.evidence) \(it.daemon.log)")
    }

    @Test("A hundred prompts at once, and a thousand targets shown meanwhile; a client that dies in one leaves nothing behind")
    func hundredPrompts() throws {
        let uids = [1, 2, 3, 5, 6, 7, 8, 9, 10, 13]
        let it = try Administered(
            grants: "  - {users: [\(uids.map(String.init).joined(separator: ", "))], role: observer, tenant: all}\n", pam: Self.matrix,
            scripts: ["passdb": "news:right:tgtd\n"])
        let lines = (1...1000).map { "--op new --mode target --tid \($0 + 1000) -T iqn.2026-11.org.example:many-\($0)" }.joined(separator: "\n")
        try Data(lines.utf8).write(to: URL(fileURLWithPath: it.daemon.folder.path("many")))
        #expect(try it.tgtadm(0, "--transaction \(it.daemon.folder.path("many"))", seconds: 60).succeeded, it.daemon.evidence)
        func shown() throws -> [Double] {
            try (0..<9).map { _ in
                let connection = try ManagementWire(it.daemon)
                let start = ContinuousClock.now
                connection.send(Request(.target, .show).bytes())
                guard case .answered(0, let text) = connection.answer(within: 5) else { throw Failure("no answer") }
                let took = ContinuousClock.now - start
                #expect(text.contains("Target 2000:"))
                return Double(took.components.attoseconds) / 1e15 + Double(took.components.seconds) * 1000
            }.sorted()
        }
        let one = try it.prompts(9, 1)
        #expect(eventually(within: 20) { one.output == "asked\n" }, "\(one.output) \(it.daemon.log)")
        // Other tests have the processors, too.
        var beside: [Double] = []
        let isPrompt = try eventually(within: 60) {
            beside = try shown()
            return beside[4] < 100
        }
        print("show target with 1,000 targets while a prompt is open: median \(beside[4]) ms, longest \(beside[8]) ms")
        #expect(isPrompt)
        one.kill()
        #expect(eventually(within: 5) { it.checks == 0 }, "the process of a client that has died lives on")

        let crowd = try uids.map { try it.prompts($0, 10) }
        func asked() -> Int { crowd.reduce(0) { $0 + $1.output.split(separator: "\n").count } }
        #expect(eventually(within: 60) { asked() == 64 }, "\(asked()) are asked")
        let among = try shown()
        print("… while a hundred are open: median \(among[4]) ms, longest \(among[8]) ms")
        #expect(it.checks <= 65)
        for client in crowd { client.kill() }
        #expect(eventually(within: 10) { it.checks == 0 }, "\(it.checks)")
        #expect(try it.tgtadm(Administered.news, Administered.show, answers: ["right"]).succeeded, it.daemon.evidence)
    }
}
