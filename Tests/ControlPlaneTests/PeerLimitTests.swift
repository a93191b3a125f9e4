import Testing
@testable import ControlPlane

@Suite struct PeerLimitTests {
    @Test("The numbers of nobody are nobody's") func nobody() {
        for number in [65534, UInt32.max] { #expect(!PeerLimits.isSomebody(number)) }
        for number in [0, 1, 1000, 65533, 65535, UInt32.max - 1] { #expect(PeerLimits.isSomebody(number)) }
    }
}
