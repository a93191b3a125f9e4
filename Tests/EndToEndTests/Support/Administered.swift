import Foundation
import Glibc

func permit(_ path: String, _ mode: mode_t) { unsafe _ = chmod(path, mode) }

/// A tgtd with a policy and services of PAM's of its own, and administrators of other uids.
final class Administered {
    let files: Folder
    let daemon: Daemon

    /// Users that every Debian has.
    static let daemonUser = 1, bin = 2, games = 5, mail = 8, news = 9, webUser = 33
    static let tenants = """
        tenants:
          red:
            target-names: ["iqn.2026-11.org.example:red*"]
            tids: 100-199
            directories: [FOLDER/red]
          blue:
            target-names: ["iqn.2026-11.org.example:blue*"]
            tids: 200-299
            directories: [FOLDER/blue]

        """
    static let root = "grants:\n  - {users: [0], role: administrator, tenant: all, authenticate: no}\n"
    static let letIn = "auth required pam_permit.so\naccount required pam_permit.so\n"

    /// - Parameters:
    ///   - grants: behind root's
    ///   - pam: the service's file; FOLDER stands for the folder of these files
    ///   - passwd: lines for /etc/passwd, and shadow's for /etc/shadow, as this daemon sees them
    ///   - settings: lines of tgtd.yaml
    init(grants: String, pam: String = letIn, settings: String = "", portals: Int = 1, options: [String] = [], passwd: String = "", shadow: String = "", scripts: [String: String] = [:], wrapper outer: [String] = []) throws {
        files = try Folder()
        permit(files.path, 0o755)
        for directory in ["pam.d", "red", "blue"] { try FileManager.default.createDirectory(atPath: files.path(directory), withIntermediateDirectories: true) }
        try files.writeFile("pam.d/tgtd", pam.replacingOccurrences(of: "FOLDER", with: files.path))
        try files.writeFile("tgtd.yaml", "pam:\n  directory: \(files.path("pam.d"))\n" + settings)
        for (name, text) in scripts {
            try files.writeFile(name, text.replacingOccurrences(of: "FOLDER", with: files.path))
            permit(files.path(name), 0o755)
        }
        try Self.write(grants, files)
        var wrapper = outer
        if !passwd.isEmpty {
            for (name, more) in [("passwd", passwd), ("shadow", shadow)] {
                try files.writeFile(name, String(contentsOfFile: "/etc/\(name)", encoding: .utf8) + more)
            }
            let folder = files.path
            let mounts = ["passwd", "shadow"].map { "mount --bind \(folder)/\($0) /etc/\($0)" }.joined(separator: " && ")
            wrapper += ["unshare", "-m", "--propagation", "private", "sh", "-c", mounts + " && exec \"$@\"", "sh"]
        }
        daemon = try Daemon(portals: portals, options: ["--config", files.path("tgtd.yaml"), "--policy", files.path("policy.yaml")] + options, wrapper: wrapper)
        permit(daemon.folder.path, 0o755)
    }

    private static func write(_ grants: String, tenants: String = tenants, root: String = root, _ files: Folder) throws {
        try files.writeFile("policy.yaml", (tenants + root + grants).replacingOccurrences(of: "FOLDER", with: files.path))
    }
    func rewrite(grants: String, tenants: String = tenants, root: String = root) throws { try Self.write(grants, tenants: tenants, root: root, files) }
    /// Has the daemon read the policy again.
    func reload(grants: String, tenants: String = tenants) throws {
        try rewrite(grants: grants, tenants: tenants)
        let before = daemon.log.components(separatedBy: "the policy has been read again").count
        daemon.process.signal(SIGHUP)
        guard eventually(within: 10, { daemon.log.components(separatedBy: "the policy has been read again").count > before }) else { throw Failure("the policy is not read: \(daemon.log)") }
    }

    /// A tgtadm of this user.
    func start(_ uid: Int, _ line: String, groups: [Int] = [], answers: [String]? = nil, client: String = Subject.tgtadm) throws -> Running {
        var words = ["setpriv", "--reuid=\(uid)", "--regid=\(uid)", groups.isEmpty ? "--clear-groups" : "--groups=\(groups.map(String.init).joined(separator: ","))", client]
        words += ["-C", String(Daemon.controlPort), "--lld", "iscsi"] + line.split(separator: " ").map(String.init)
        if let answers {
            let file = daemon.folder.fresh("answers")
            try Data(answers.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: file))
            permit(file, 0o644)
            words += ["--answers", file]
        }
        return try Running(words, environment: ["TGT_IPC_SOCKET": daemon.folder.path("socket")], folder: daemon.folder)
    }
    func tgtadm(_ uid: Int, _ line: String, groups: [Int] = [], answers: [String]? = nil, client: String = Subject.tgtadm, seconds: Double = 30) throws -> Finished {
        try start(uid, line, groups: groups, answers: answers, client: client).wait(seconds: seconds)
    }

    static func target(_ tid: Int, _ name: String) -> String { "--op new --mode target --tid \(tid) -T iqn.2026-11.org.example:\(name)" }
    static let show = "--op show --mode target"

    /// Processes that know people.
    var checks: Int { Processes.children(of: daemon.process.pid).count { Processes.arguments(of: $0).contains("administrator") } }

    /// A client of this user, in Python: `hello` and `ask` are there, and the path of the socket is the first argument.
    func client(_ uid: Int, _ script: String, _ arguments: [String] = []) throws -> Running {
        try Running(
            ["setpriv", "--reuid=\(uid)", "--regid=\(uid)", "--clear-groups", "/usr/bin/python3", "-u", "-c", Self.talk + script, daemon.folder.path("socket.\(Daemon.controlPort)")] + arguments,
            folder: daemon.folder)
    }
    static let talk = """
        import os, socket, struct, sys, time
        def frame(kind, body): return bytes([kind, 0, 0, 0]) + struct.pack(">I", len(body)) + body
        def connected():
            client = socket.socket(socket.AF_UNIX)
            client.connect(sys.argv[1])
            return client
        def hello(client):
            greeting = b"PORTCULL" + struct.pack(">HHB", 1, 1, 1)
            client.sendall(greeting + bytes(120 - len(greeting)))
            return client.recv(16, socket.MSG_WAITALL)
        def ask(client): client.sendall(frame(1, b"\\0" + struct.pack(">I", 0) + bytes([12])))
        def heard(client):
            header = client.recv(8, socket.MSG_WAITALL)
            if len(header) < 8: return (0, b"")
            return (header[0], client.recv(struct.unpack(">I", header[4:])[0], socket.MSG_WAITALL))

        """

    /// Clients that ask for something and answer no question, until they are ended: prints a line for each question.
    func prompts(_ uid: Int, _ count: Int) throws -> Running {
        try Running(
            ["setpriv", "--reuid=\(uid)", "--regid=\(uid)", "--clear-groups", "/usr/bin/python3", "-u", "-c", Self.prompter, daemon.folder.path("socket.\(Daemon.controlPort)"), String(count)],
            folder: daemon.folder)
    }
    private static let prompter = """
        import socket, struct, sys, select
        hello = b"PORTCULL" + struct.pack(">HHB", 1, 1, 1)
        body = b"\\0" + struct.pack(">I", 0) + bytes([12])
        waiting = []
        for _ in range(int(sys.argv[2])):
            client = socket.socket(socket.AF_UNIX)
            client.connect(sys.argv[1])
            client.sendall(hello + bytes(120 - len(hello)))
            client.recv(16, socket.MSG_WAITALL)
            client.sendall(bytes([1, 0, 0, 0]) + struct.pack(">I", len(body)) + body)
            waiting.append(client)
        asked = []
        while waiting:
            for client in select.select(waiting, [], [])[0]:
                if client.recv(4096)[:1] == b"\\4": print("asked")
                waiting.remove(client)
                asked.append(client)
        select.select([], [], [])

        """
}

extension Folder {
    func writeFile(_ name: String, _ text: String) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: path(name)))
        permit(path(name), 0o644)
    }
}
