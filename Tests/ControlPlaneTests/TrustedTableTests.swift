import Crypto
import ISCSI
import Testing

@testable import ControlPlane

private func keys(_ text: String) throws(LineTrouble) -> PreSharedKeys { try PreSharedKeys(parsing: Secret(Array(text.utf8))) }

@Suite("files of lines")
struct TrustedTableTests {
    private static let key = String(repeating: "0123456789abcDEF", count: 2)

    @Test("a pre-shared key is found by its identity, with the initiator that it stands for")
    func found() throws {
        let other = String(repeating: "ff", count: 64)
        let table = try keys("# for the hosts of one tenant\r\n\n  host-1:\(Self.key):iqn.2026-11.org.example:host-1 \r\nhost_2:\(other):IQN.Two")
        let first = try #require(table[Array("host-1".utf8)]), second = try #require(table[Array("host_2".utf8)])
        #expect(first.key == Secret([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]))
        #expect(first.initiator.spelling == "iqn.2026-11.org.example:host-1" && second.initiator.spelling == "IQN.Two" && second.key.count == 64)
        #expect(try keys("# nobody\n")[Array("host".utf8)] == nil && keys("")[[]] == nil)
        #expect(table[Array("host".utf8)] == nil && table[[]] == nil && table[Array("HOST-1".utf8)] == nil)
    }

    @Test("what is wrong is said with its line and nothing of what stands there", arguments: [
        ("a", 1, "identity:key"), ("\na:KEY", 2, "identity:key"), (":KEY:iqn.x", 1, "identity"),
        ("a b:KEY:iqn.x", 1, "identity"), ("\u{e9}:KEY:iqn.x", 1, "identity"), ("LONG:KEY:iqn.x", 1, "identity"), ("a::iqn.x", 1, "key has"),
        ("a:0011:iqn.x", 1, "key has"), ("a:KEY0:iqn.x", 1, "key has"), ("a:KEYKEYKEYKEY00:iqn.x", 1, "key has"), ("a:KEYxy:iqn.x", 1, "key has"),
        ("a:KEY:", 1, "initiator name"), ("a:KEY:iqn x", 1, "initiator name"), ("a:KEY:iqn.x\na:KEY00:iqn.y", 2, "a line already"),
        ("#\na:KEY:iqn.x\n\nb:KEY:iqn.y", 4, "the key of line 2"), ("b:key:iqn.y", 1, "key has"),
    ])
    func wrong(text: String, line: Int, reason: String) {
        let text = text.replacing("KEY", with: Self.key).replacing("LONG", with: String(repeating: "i", count: 129))
        do throws(LineTrouble) {
            _ = try keys(text)
            Issue.record("accepted")
        } catch {
            #expect(error.line == line && error.reason.contains(reason), "\(error)")
            #expect(!error.description.contains("iqn") && !error.description.contains(Self.key))
        }
    }

    @Test("a certificate is mapped by its fingerprint, with colons or without")
    func mapped() throws {
        let colons = Array(repeating: "AB", count: 32).joined(separator: ":"), plain = String(repeating: "cd", count: 32)
        let map = try ClientMap(parsing: Array("\(colons)\tiqn.a\n# and\n\(plain)   iqn.b\n".utf8).span)
        #expect(map[[UInt8](repeating: 0xab, count: 32)]?.spelling == "iqn.a" && map[[UInt8](repeating: 0xcd, count: 32)]?.spelling == "iqn.b")
        #expect(map[[UInt8](repeating: 0xcd, count: 31)] == nil)
        for (text, line) in [("\(plain)", 1), ("\(plain) iqn.a iqn.b", 1), ("\(plain.dropLast(2)) iqn.a", 1), ("\(plain)0 iqn.a", 1), ("\n\(plain) iqn_a", 2), ("\(plain) iqn.a\n\(colons.lowercased()) iqn.b\n\(plain) iqn.c", 3)] {
            #expect { try ClientMap(parsing: Array(text.utf8).span) } throws: { ($0 as? LineTrouble)?.line == line }
        }
    }
}
