import Testing

@testable import ISCSI

@Suite struct TagTableTests {
    @Test("It holds what a dictionary holds, through any number of changes", arguments: [UInt32(1), 0x9e37_79b1, 1 << 16, 1 << 28, 0x1000_0001])
    func dictionary(stride: UInt32) {
        var table = TagTable()
        var expected: [UInt32: Int] = [:]
        var random = SystemRandomNumberGenerator()
        for step in 0..<20_000 {
            // Few different tags, so that they go and come back, and collide if their stride makes them.
            let tag = UInt32.random(in: 0..<300, using: &random) &* stride
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                table[tag] = step
                expected[tag] = step
            case 1:
                table[tag] = nil
                expected[tag] = nil
            default:
                #expect(table[tag] == expected[tag])
            }
        }
        for index in 0..<UInt32(300) { #expect(table[index &* stride] == expected[index &* stride]) }
    }

    @Test("Tags that all want the same place are found, and those left are found when others go")
    func collisions() {
        // With 256 places the home is the upper eight bits of the product: the inverse of the multiplier gives tags for one place.
        var inverse: UInt32 = 1
        for _ in 0..<5 { inverse = inverse &* (2 &- 0x9e37_79b9 &* inverse) }
        let tags = (0..<UInt32(100)).map { inverse &* (0xff00_0000 | $0) }
        var table = TagTable()
        for (slot, tag) in tags.enumerated() { table[tag] = slot }
        for slot in tags.indices where slot % 3 == 0 { table[tags[slot]] = nil }
        for (slot, tag) in tags.enumerated() { #expect(table[tag] == (slot % 3 == 0 ? nil : slot)) }
    }

    @Test("An empty one finds nothing")
    func empty() {
        var table = TagTable()
        #expect(table[0] == nil)
        table[7] = nil
        table[7] = 1
        table[7] = nil
        #expect(table[7] == nil && table[0] == nil)
    }
}
