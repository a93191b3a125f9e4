import Crypto
import Foundation
import Reactor
import SettingsFile
import Testing

@testable import Connector

@Suite struct SettingsTests {
    static let least = "portals:\n  - {listen: '127.0.0.1:3260', connect: 'portal.example.org:3261', ca: ca.pem}\n"

    @Test("Every key takes effect, and files lie beside the settings unless they say where")
    func everyKey() throws {
        let settings = try ConnectorSettings(
            yaml: """
                portals:
                  - listen: 127.0.0.1:3260
                    connect: portal.example.org:3261
                    name: other.example.org
                    ca: ca.pem
                    crl: /srv/crl.pem
                    certificate: c/certificate.pem
                    key: key.pem
                    policy: 2026-11-compatible
                  - listen: 192.0.2.1:3260
                    other-hosts: true
                    connect: "[2001:db8::1]:3262"
                    psk-file: identity.psk
                    psk-identity: web-1
                connections: 7
                user: nobody
                """, file: "/etc/tgt/connect.yaml")
        var first = PortalSettings(listen: SocketAddress("127.0.0.1:3260")!, host: "portal.example.org", port: 3261)
        (first.name, first.ca, first.crl) = ("other.example.org", "/etc/tgt/ca.pem", "/srv/crl.pem")
        (first.certificate, first.key, first.policy) = ("/etc/tgt/c/certificate.pem", "/etc/tgt/key.pem", .compatible)
        var second = PortalSettings(listen: SocketAddress("192.0.2.1:3260")!, host: "2001:db8::1", port: 3262)
        (second.takesOtherHosts, second.preSharedKeyFile, second.identity) = (true, "/etc/tgt/identity.psk", "web-1")
        #expect(settings.portals == [first, second])
        #expect(settings.connections == 7 && settings.user == "nobody")
        #expect(second.title == "[2001:db8::1]:3262" && second.expectedName == "2001:db8::1" && first.expectedName == "other.example.org")
    }

    @Test("The shipped file is right, and names every key")
    func shipped() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("policy/connect.yaml")
        let text = try String(contentsOf: file, encoding: .utf8)
        let settings = try ConnectorSettings(yaml: text, file: "f")
        #expect(settings.portals.count == 1 && settings.connections == ConnectorSettings().connections)
        for key in ["listen", "connect", "ca", "crl", "name", "pin", "certificate", "key", "psk-file", "psk-identity", "policy", "other-hosts", "connections", "user"] {
            #expect(text.contains("\(key): "), "\(key)")
        }
        #expect(text.contains("#connections: \(ConnectorSettings().connections)\n"))
    }

    @Test(
        "What is wrong is told with its line",
        arguments: [
            ("portals: []\n", nil, "portals: there is none"),
            ("connections: 3\n", nil, "portals: there is none"),
            (least + "connections: 0\n", 3, "connections: a number from 1 to 4096 is wanted"),
            (least + "colour: red\n", 3, "there is no setting colour"),
            (least + "  - {listen: '127.0.0.1:3260', connect: 'b:1', ca: c}\n", 3, "127.0.0.1:3260 is listened on for two portals"),
            ("portals:\n  - listen: 127.0.0.1:3260\n    connect: a:1\n    colour: red\n", 4, "there is no setting colour"),
            ("portals:\n  - listen: 127.0.0.1:3260\n    connect: a:1\n", 2, "one of ca, pin and psk-file has to say which portal is the right one"),
            ("portals:\n  - {connect: 'a:1', ca: c}\n", 2, "listen: where initiators of this host connect to is missing"),
            ("portals:\n  - {listen: '127.0.0.1:1', ca: c}\n", 2, "connect: the portal's HOST:PORT is missing"),
            ("portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', ca: c, pin: p}\n", 2, "one of ca, pin and psk-file has to say which portal is the right one"),
            ("portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', pin: p, crl: c}\n", 2, "crl goes with ca"),
            ("portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', pin: p, name: b}\n", 2, "name goes with ca: with pin it is the key that counts"),
            (
                "portals:\n  - {listen: '0.0.0.0:1', connect: 'a:1', ca: c}\n", 2,
                "listen: 0.0.0.0:1 can be reached from other hosts, in clear; if it must be, say other-hosts: true"
            ),
            ("portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', ca: c, key: k}\n", 2, "certificate and key go together"),
            (
                "portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', ca: c, psk-file: p}\n", 2,
                "a pre-shared key proves both ends: psk-file excludes ca, pin, name, certificate and key"
            ),
            ("portals:\n  - {listen: '127.0.0.1:1', connect: 'a:1', ca: c, psk-identity: p}\n", 2, "psk-identity chooses a line of psk-file, which is missing"),
        ] as [(String, Int?, String)])
    func wrong(text: String, line: Int?, message: String) {
        #expect(throws: SettingsError(file: "f", line: line, message: message)) { try ConnectorSettings(yaml: text, file: "f") }
    }

    @Test("A host is a name or an address, with a port", arguments: ["a:0", "a", "a:b", "a:65536", "-a:1", "a b:1", "a..b:1", "1.2.3:4", ":1", "[::1]", "[a]:1", "a;b:1"])
    func hosts(text: String) {
        #expect(throws: SettingsError.self) { try ConnectorSettings(yaml: "portals:\n  - {listen: '127.0.0.1:1', connect: '\(text)', ca: c}\n", file: "f") }
    }

    @Test("What is written for stunnel says the same")
    func stunnel() throws {
        let settings = try ConnectorSettings(
            yaml: """
                portals:
                  - {listen: "127.0.0.1:3260", connect: "portal.example.org:3261", ca: ca.pem, certificate: c.pem, key: k.pem}
                  - {listen: "[::1]:3260", connect: "192.0.2.1:3261", ca: ca.pem, policy: 2026-11-compatible}
                  - {listen: "127.0.0.1:3262", connect: "a:1", pin: p.pem}
                  - {listen: "127.0.0.1:3263", connect: "a:2", psk-file: i.psk, psk-identity: web-1}
                """, file: "/e/f")
        let sections = settings.stunnel.components(separatedBy: "\n\n").map { $0.split(separator: "\n").map(String.init) }
        #expect(sections.count == 5 && sections[1][0] == "[portal.example.org:3261]" && sections[2][0] == "[192.0.2.1:3261]")
        func says(_ section: Int, _ lines: String...) -> Bool { Set(lines + ["client = yes"]).isSubset(of: sections[section]) }
        #expect(says(1, "accept = 127.0.0.1:3260", "connect = portal.example.org:3261", "sslVersionMin = TLSv1.3", "CAfile = /e/ca.pem"))
        #expect(says(1, "verifyChain = yes", "checkHost = portal.example.org", "cert = /e/c.pem", "key = /e/k.pem"))
        #expect(says(2, "accept = [::1]:3260", "sslVersionMin = TLSv1.2", "checkIP = 192.0.2.1"))
        #expect(says(3, "verifyPeer = yes", "CAfile = /e/p.pem") && !sections[3].contains { $0.hasPrefix("check") })
        #expect(says(4, "PSKsecrets = /e/i.psk", "PSKidentity = web-1", "sslVersionMin = TLSv1.3") && !sections[4].contains { $0.hasPrefix("CAfile") })
    }

    @Test("A pre-shared key is the chosen line's, or the first")
    func preSharedKeys() throws {
        let key = String(repeating: "0f", count: 16), other = String(repeating: "A1", count: 32)
        let text = Secret(Array("# one\n\nfirst:\(key)\n  second:\(other)\r\n".utf8))
        let first = try PortalFiles.line(of: nil, in: text, "f")
        let second = try PortalFiles.line(of: Array("second".utf8), in: text, "f")
        #expect(first.identity == Array("first".utf8) && first.key == .init([UInt8](repeating: 0x0f, count: 16)))
        #expect(second.key == .init([UInt8](repeating: 0xa1, count: 32)))
        #expect(throws: FileError("f", "there is no key for third")) { try PortalFiles.line(of: Array("third".utf8), in: text, "f") }
        #expect(throws: FileError("f", "there is no key in it")) { try PortalFiles.line(of: nil, in: Secret([]), "f") }
        for wrong in ["a", "a:", ":\(key)", "a:\(key.dropLast())", "a:\(key.dropLast(2))", "a:\(key)g0", "a:\(key):iqn.2026-11.org.example:b"] {
            #expect(throws: FileError("f", "line 1 is not identity:key, with a key of 32 to 128 hexadecimal digits")) {
                try PortalFiles.line(of: nil, in: Secret(Array(wrong.utf8)), "f")
            }
        }
    }
}
