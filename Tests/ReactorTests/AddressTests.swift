import Testing

@testable import Reactor

@Suite struct AddressTests {
    @Test("addresses are read and shown in their usual forms", arguments: [
        ("127.0.0.1:3260", "127.0.0.1:3260"), ("0.0.0.0:0", "0.0.0.0:0"), ("255.255.255.255:65535", "255.255.255.255:65535"),
        ("[::1]:3260", "[::1]:3260"), ("[::]:3260", "[::]:3260"), ("[2001:DB8:0:0::1]:860", "[2001:db8::1]:860"),
        ("[fe80::1%7]:3260", "[fe80::1%7]:3260"),
    ])
    func forms(text: String, shown: String) { #expect(SocketAddress(text)?.description == shown) }

    @Test("an address without a port takes the default", arguments: ["192.0.2.1", "[2001:db8::1]", "2001:db8::1"])
    func defaultPort(text: String) {
        #expect(SocketAddress(text) == nil)
        #expect(SocketAddress(text, defaultPort: 3260)?.port == 3260)
    }

    @Test("IPv4-mapped IPv6 addresses are IPv4 addresses")
    func mapped() {
        #expect(SocketAddress("[::ffff:192.0.2.1]:3260") == SocketAddress("192.0.2.1:3260"))
        #expect(SocketAddress(bytes: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], port: 1)?.bytes == [1, 2, 3, 4])
        #expect(SocketAddress("[::fffe:c000:201]:3260")?.isIPv6 == true)
    }

    @Test("what is no address is refused", arguments: [
        "", ":", ":3260", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1: 1", "127.0.0:3260", "127.1:3260",
        "256.0.0.1:3260", "0127.0.0.1:3260", "localhost:3260", "[::1]", "[::1]3260", "[::1", "::1:3260x", "[127.0.0.1]:3260", "[::1]:",
        "[]:3260", "[fe80::1%]:3260", "[fe80::1%nosuchinterface]:3260", "[::1%1%2]:1", "127.0.0.1\0:3260", "١٢٧.0.0.1:3260",
        "127.0.0.1:３２６０",
    ])
    func refused(text: String) { #expect(SocketAddress(text) == nil) }

    @Test("only 4 and 16 bytes are an address")
    func lengths() {
        for count in 0...17 { #expect((SocketAddress(bytes: .init(repeating: 1, count: count), port: 1) != nil) == (count == 4 || count == 16)) }
    }

    @Test("the wildcards are unspecified")
    func unspecified() {
        #expect(SocketAddress("0.0.0.0:1")?.isUnspecified == true && SocketAddress("[::]:1")?.isUnspecified == true)
        #expect(SocketAddress("127.0.0.1:1")?.isUnspecified == false)
    }
}
