import Door
import Reactor
import Testing

@Suite struct SourceTests {
    private func source(_ address: String) -> Source {
        guard let address = SocketAddress(address, defaultPort: 0) else { preconditionFailure("a test's address is one") }
        return Source(address)
    }

    @Test("Every source that can come is one word, and that word is that source", arguments: [
        "0.0.0.0", "127.0.0.1", "192.0.2.1", "255.255.255.255", "::1", "2001:db8:1:2::9", "fe80::1", "64:ff9b::1", "ffff:ffff:ffff:ffff::", "3::",
    ])
    func words(address: String) {
        let source = source(address)
        #expect(source.word != 0 && Source(word: source.word) == source)
        #expect(Source(source.address) == source)
    }

    @Test("Other words are no source's", arguments: [0, 1, 0xffff_ffff, 0x1_0000_0000, 1 << 48 | 1 << 32, 2 << 48 | 1, 0xffff << 32] as [UInt64])
    func strangers(word: UInt64) { #expect(Source(word: word) == nil) }

    @Test("Networks that are nobody's have no word", arguments: ["0:0:0:1::1", "1::1", "2::1", "1:0:c000:201::"])
    func nobody(address: String) { #expect(source(address).word == 0) }

    @Test("Any word is either no source, or one whose word it is")
    func random() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            let word = random.next() >> UInt64.random(in: 0...63, using: &random)
            if let source = Source(word: word) { #expect(source.word == word) }
        }
    }
}
