import Bytes
import ISCSI
import Testing

@testable import Model

func utf8(_ text: String) -> [UInt8] { Array(text.utf8) }
func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// The kind of error that `body` ends in.
func kind(_ body: () throws(ConfigurationError) -> some Any) -> ConfigurationError.Kind? {
    do throws(ConfigurationError) {
        _ = try body()
        return nil
    } catch {
        #expect(!error.description.isEmpty)
        return error.kind
    }
}

@Suite("network addresses")
struct NetworkAddressTests {
    @Test("addresses are read and written in their canonical form", arguments: [
        ("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("255.255.255.255", "255.255.255.255"),
        ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("2001:DB8::1", "2001:db8::1"), ("2001:db8:0:0:0:0:0:1", "2001:db8::1"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"), ("1:0:0:4:0:0:0:8", "1:0:0:4::8"), ("1:0:0:4:5:0:0:8", "1::4:5:0:0:8"),
        ("0:0:0:0:0:0:0:0", "::"), ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"), ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
        ("::ffff:1.2.3.4", "1.2.3.4"), ("::ffff:102:304", "1.2.3.4"), ("0:0:0:0:0:ffff:1.2.3.4", "1.2.3.4"), ("::1.2.3.4", "::102:304"), ("::fffe:1.2.3.4", "::fffe:102:304"),
    ])
    func readAndWritten(written: String, canonical: String) throws {
        let address = try #require(NetworkAddress(parsing: utf8(written)))
        #expect(address.description == canonical)
        #expect(NetworkAddress(parsing: utf8(canonical)) == address)
        #expect(NetworkAddress(bytes: address.bytes) == address)
    }

    @Test("anything else is no address", arguments: [
        "", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.04", "1.2.3.", ".1.2.3", "1..2.3", "1.2.3.4 ", "+1.2.3.4", "0x1.2.3.4", "1.2.3.1000",
        ":", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "1:", ":1", "1:2:3:4:5:6:1.2.3.4:8",
        "1.2.3.4::", "::1%eth0", "[::1]", "localhost", "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4:3260",
    ])
    func noAddress(text: String) {
        #expect(NetworkAddress(parsing: utf8(text)) == nil)
    }

    @Test("only 4 or 16 bytes are an address, and mapped ones are IPv4")
    func fromBytes() {
        for count in 0..<20 { #expect((NetworkAddress(bytes: [UInt8](repeating: 1, count: count)) != nil) == (count == 4 || count == 16)) }
        let mapped = [UInt8](repeating: 0, count: 10) + [0xff, 0xff, 10, 0, 0, 1]
        #expect(NetworkAddress(bytes: mapped) == NetworkAddress(bytes: [10, 0, 0, 1]))
        #expect(NetworkAddress(bytes: mapped)?.family == .ipv4)
    }
}

@Suite("access rules")
struct AccessRuleTests {
    @Test("rules that admit the same addresses are the same", arguments: [
        ("10.0.0.0/8", "10.1.2.3/8"), ("10.0.0.1", "10.0.0.1/32"), ("::1", "::1/128"), ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:10.0.0.1", "10.0.0.1"),
        ("0.0.0.0/0", "1.2.3.4/0"), ("::/0", "2001:db8::/0"), ("::ffff:0:0/96", "0.0.0.0/0"), ("2001:DB8::/32", "2001:db8:1::/32"),
    ])
    func same(one: String, other: String) throws {
        #expect(try AddressRule(parsing: utf8(one)) == AddressRule(parsing: utf8(other)))
        #expect(try AddressRule(parsing: utf8(one)).spelling == one)
    }

    @Test("what is neither ALL nor an address nor a network is refused", arguments: [
        "", "all", "All", "ALL ", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "::/129", "::/1000", "/8", "host.example", "10.0.0.0/0x8",
        "::ffff:10.0.0.0/95", "::ffff:0:0/0", "10.0.0.0/ 8", "10.0.0.1,10.0.0.2", "[::1]", "10.*",
    ])
    func refusedAddress(text: String) {
        #expect(kind { () throws(ConfigurationError) in try AddressRule(parsing: utf8(text)) } == .invalid)
    }

    @Test("names are folded, patterns recognised")
    func names() throws {
        let name = try NameRule(parsing: utf8("IQN.2003-01.org.Example:A"))
        #expect(name.bytes == utf8("iqn.2003-01.org.example:a") && !name.isPattern && name.spelling == "IQN.2003-01.org.Example:A")
        #expect(try NameRule(parsing: utf8("iqn.2003-01.org.example:a")) == name)
        let pattern = try NameRule(parsing: utf8("IQN.*:x?"))
        #expect(pattern.bytes == utf8("iqn.*:x?") && pattern.isPattern)
    }

    @Test("a name or pattern has 1 to 223 permitted bytes")
    func nameLengths() {
        #expect(kind { () throws(ConfigurationError) in try NameRule(parsing: []) } == .invalid)
        #expect(kind { () throws(ConfigurationError) in try NameRule(parsing: [UInt8](repeating: 0x2a, count: 223)) } == nil)
        #expect(kind { () throws(ConfigurationError) in try NameRule(parsing: [UInt8](repeating: 0x61, count: 224)) } == .invalid)
        for wrong in ["a b", "a\n", "a_b", "[a-z]", "\u{212a}", "a,b", "a\0"] {
            #expect(kind { () throws(ConfigurationError) in try NameRule(parsing: utf8(wrong)) } == .invalid, "\(wrong)")
        }
    }

    @Test("portals are an address with or without a port", arguments: [
        ("127.0.0.1", "127.0.0.1:3260"), ("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:65535", "0.0.0.0:65535"), ("[::1]:3261", "[::1]:3261"), ("[::]", "[::]:3260"), ("::1", "[::1]:3260"),
        ("1.2.3.4:0", "1.2.3.4:0"), ("[2001:DB8::1]:860", "[2001:db8::1]:860"),
    ])
    func portals(written: String, shown: String) throws {
        #expect(try Portal(parsing: utf8(written)).description == shown)
    }

    @Test("anything else is no portal", arguments: ["", ":3260", "foo", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:x", "[::1", "[::1]3260", "[::1]:", "::1]:3260", "[]:1", "1.2.3.4:1:2", "localhost:3260"])
    func noPortal(text: String) {
        #expect(kind { () throws(ConfigurationError) in try Portal(parsing: utf8(text)) } == .invalid)
    }
}
