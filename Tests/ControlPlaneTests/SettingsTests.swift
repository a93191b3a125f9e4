import Foundation
import Model
import Reactor
import SettingsFile
import Testing

@testable import ControlPlane

@Suite struct SettingsTests {
    @Test("An empty file, and one of comments, leave the defaults", arguments: ["", "# nothing\n", "---\n"])
    func empty(text: String) throws {
        #expect(try Settings(yaml: text, file: "f") == Settings())
    }

    @Test("Every key takes effect")
    func everyKey() throws {
        let settings = try Settings(
            yaml: """
                portals:
                  - 127.0.0.1:3260
                  - "[::1]:3261"
                  - portal: 192.0.2.1:3260
                    tls: required
                    certificate: /c
                    key: /k
                    tpgt: 2
                reactors: 3
                io-threads: 5
                busy-poll: 6
                io-uring: no
                memory: 128MiB
                nop-interval: 7
                nop-count: 4
                user: nobody
                state: /srv/tgt
                limits:
                  unauthenticated-connections: 11
                  unauthenticated-connections-per-source: 12
                  sessions-per-target: 13
                  management-connections: 14
                  management-connections-per-user: 15
                  management-idle-seconds: 16
                policy: /p
                socket: {mode: 0660, group: mail}
                pam: {directory: /d}
                audit: {directory: /a, on-failure: continue, file-size: 1MiB, network-quota: 2MiB, system-log: yes}
                log:
                  level: warning
                """, file: "f")
        #expect(settings.portals.last?.parameters.map { "\($0.name)=\($0.value)" } == ["tls=required", "certificate=/c", "key=/k", "tpgt=2"])
        #expect(try settings.portals.dropLast() == ["127.0.0.1:3260", "[::1]:3261"].map { try Portal(parsing: Array($0.utf8)) })
        #expect(settings.policy == "/p" && settings.socketMode == 0o660 && settings.socketGroup == "mail" && settings.pamDirectory == "/d")
        #expect(settings.audit.directory == "/a" && settings.audit.onFailure == .goOn && settings.audit.copiesToSystemLog)
        #expect(settings.audit.fileSize == 1 << 20 && settings.audit.networkQuota == 2 << 20)
        #expect(settings.reactors == 3 && settings.ioThreads == 5 && settings.busyPoll == 6 && !settings.usesRings && Settings().usesRings && settings.memory == 128 << 20)
        #expect(settings.nopInterval == 7 && settings.nopCount == 4)
        #expect(settings.user == "nobody" && settings.state == "/srv/tgt" && settings.logLevel == .warning)
        #expect(Limits.rows.map { settings.limits[keyPath: $0.value] } == Array(11...16))
    }

    @Test("Every limit has a default within its range, is shown under the name of its setting, and stands so in the shipped file")
    func limits() throws {
        let policy = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("policy/tgtd.yaml")
        let lines = try String(contentsOf: policy, encoding: .utf8).components(separatedBy: "\n")
        let shown = Limits().shown(memory: 5)
        for row in Limits.rows {
            let value = Limits()[keyPath: row.value]
            #expect(row.range.contains(value) && !row.reason.isEmpty)
            #expect(lines.contains("#  \(row.name): \(value)") && shown.contains { $0 == (row.name, "\(value)") }, "\(row.name)")
            for wrong in [row.range.lowerBound - 1, row.range.upperBound + 1] {
                #expect(throws: SettingsError.self) { try Settings(yaml: "limits:\n  \(row.name): \(wrong)\n", file: "f") }
            }
        }
        #expect(shown.contains { $0 == ("memory", "5") } && shown.contains { $0 == ("tasks-per-session", "128") })
        #expect(shown.contains { $0 == ("management-request-bytes", "8312") } && Set(shown.map(\.name)).count == shown.count)
    }

    @Test(
        "What is wrong is refused with the line where it stands",
        arguments: [
            ("reactors: 1\nreactor: 2\n", 2, "there is no setting reactor"),
            ("reactors: 0\n", 1, "reactors: a number from 1 to 64 is wanted"),
            ("busy-poll: 1001\n", 1, "busy-poll: microseconds from 0 (never) to 1000 are wanted"),
            ("reactors: 65\n", 1, "reactors: a number from 1 to 64 is wanted"),
            ("io-uring: often\n", 1, "io-uring: yes or no is wanted"),
            ("\n\nportals: [ 'nowhere:99999' ]\n", 3, "portals: “nowhere:99999” is no portal: write address, address:port or [IPv6 address]:port"),
            ("portals: [['127.0.0.1:1']]\n", 1, "portals: each portal is ADDRESS:PORT, or has portal: ADDRESS:PORT and other parameters"),
            ("portals: [{tls: required}]\n", 1, "portals: each portal is ADDRESS:PORT, or has portal: ADDRESS:PORT and other parameters"),
            ("portals: [{portal: '127.0.0.1:1', tls: required}]\n", 1, "portals: a portal with TLS takes certificate and key, or psk-file"),
            ("portals: ['127.0.0.1:1', {portal: '127.0.0.1:1', tpgt: 2}]\n", 1, "portals: the portal 127.0.0.1:1 is named twice"),
            ("portals: ['127.0.0.1:1', '127.0.0.1:1']\n", 1, "portals: the portal 127.0.0.1:1 is named twice"),
            ("log:\n  level: loud\n", 2, "log.level: one of debug, info, notice, warning, error is wanted"),
            ("policy: policy.yaml\n", 1, "policy: an absolute path is wanted"), ("pam:\n  directory: pam.d\n", 2, "pam.directory: an absolute directory is wanted"),
            ("audit:\n  directory: trails\n", 2, "audit.directory: an absolute directory is wanted"),
            ("audit:\n  on-failure: stop\n", 2, "audit.on-failure: one of refuse-changes, continue is wanted"),
            ("audit:\n  file-size: 1KiB\n", 2, "audit.file-size: a size from 64KiB to 1GiB is wanted"),
            ("audit:\n  network-quota: 4KiB\n", 2, "audit.network-quota: a size from 512KiB to 1TiB is wanted"),
            ("audit:\n  system-log: perhaps\n", 2, "audit.system-log: yes or no is wanted"),
            ("socket:\n  mode: 0888\n", 2, "socket.mode: an octal number like 0660 is wanted"), ("socket:\n  mode: 0066\n", 2, "socket.mode: an octal number like 0660 is wanted"),
            ("log:\n  colour: red\n", 2, "there is no setting log.colour"),
            ("memory: 1MiB\n", 1, "memory: a size from 64MiB to 1TiB is wanted (bytes, or with KiB, MiB, GiB)"),
            ("state: relative\n", 1, "state: an absolute directory is wanted"),
            ("just text\n", 1, "keys with values are wanted"),
        ])
    func wrong(text: String, line: Int, message: String) {
        #expect(throws: SettingsError(file: "f", line: line, message: message)) { try Settings(yaml: text, file: "f") }
    }

    @Test("A file that is no YAML, or sets a key twice, is refused", arguments: ["reactors: [", "reactors: 1\nreactors: 2\n"])
    func malformed(text: String) {
        #expect(throws: SettingsError.self) { try Settings(yaml: text, file: "f") }
    }
}
