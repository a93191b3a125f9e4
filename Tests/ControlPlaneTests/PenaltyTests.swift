import Access
import Door
import ISCSI
import Model
import Reactor
import Testing

@testable import ControlPlane

@Suite struct PenaltyTests {
    private let second: UInt64 = 1_000_000_000
    private let start: UInt64 = 1 << 40
    private func address(_ text: String) -> SocketAddress { SocketAddress(text, defaultPort: 4000)! }

    @Test("A few guesses are free, then each costs twice the one before; time heals")
    func guesses() {
        var penalties = Penalties()
        let peer = address("192.0.2.1")
        // 1 + 2 seconds are tolerated, 1 + 2 + 4 are two too many.
        #expect(penalties.note(.guess, from: peer, at: start).isEmpty && penalties.note(.guess, from: peer, at: start).isEmpty)
        #expect(!penalties.keepsOut(peer, at: start))
        let verdict = penalties.note(.guess, from: peer, at: start)
        #expect(verdict.map(\.source.description) == ["192.0.2.1"] && verdict.map(\.until) == [start + 2 * second])
        #expect(penalties.keepsOut(peer, at: start + 2 * second - 1) && !penalties.keepsOut(peer, at: start + 2 * second))
        #expect(penalties.keptOut(at: start).map(\.until) == [start + 2 * second] && penalties.keptOut(at: start + 2 * second).isEmpty)
        #expect(!penalties.keepsOut(address("192.0.2.2"), at: start))
        // Another port is the same peer.
        #expect(penalties.keepsOut(address("192.0.2.1:9"), at: start))
        // All is forgiven after seven seconds, and counting begins anew.
        #expect(penalties.note(.guess, from: peer, at: start + 7 * second).isEmpty)
        #expect(penalties.note(.guess, from: peer, at: start + 7 * second).isEmpty)
    }

    @Test("Through one connector come many: whom TLS has proved to be somebody pays for itself alone, wherever it comes from")
    func identities() throws {
        var penalties = Penalties()
        let connector = address("192.0.2.1")
        let (one, other) = (try ISCSIName(Array("iqn.2026-11.org.example:one".utf8)), try ISCSIName(Array("iqn.2026-11.org.example:other".utf8)))
        func party(_ name: ISCSIName) -> Penalties.Party { Penalties.Party(connector, .tls(.initiator(name))) }
        for _ in 0..<5 { #expect(penalties.note(.guess, from: party(one), at: start).isEmpty, "no source is kept out") }
        #expect(penalties.keepsOut(party(one), at: start) && !penalties.keepsOut(party(other), at: start) && !penalties.keepsOut(connector, at: start))
        #expect(penalties.keepsOut(Penalties.Party(address("198.51.100.9"), .tls(.initiator(one))), at: start))
        // Who has proved nothing answers for where it comes from.
        for channel in [Channel.clear, .tls(.anybody), .tls(.stranger)] { #expect(Penalties.Party(connector, channel) == .source(connector)) }
    }

    @Test("Whoever guesses whenever it may, guesses less than once a second, and owes ten minutes at the most")
    func sustained() {
        var penalties = Penalties()
        let peer = address("192.0.2.1")
        var (now, guesses) = (start, 0)
        while now < start + 3600 * second {
            if penalties.keepsOut(peer, at: now) {
                now += second / 10
            } else {
                _ = penalties.note(.guess, from: peer, at: now)
                guesses += 1
            }
        }
        #expect((10...120).contains(guesses), "\(guesses) guesses in an hour")
        for _ in 0..<100 { _ = penalties.note(.crash, from: peer, at: now) }
        #expect(penalties.keptOut(at: now).map(\.until) == [now + (Penalties.most - Penalties.tolerated) * 1_000_000])
    }

    @Test("Each failure has its price", arguments: [(Penalties.Offence.notAdmitted, 100), (.unfinished, 10), (.nonsense, 10), (.crash, 0)])
    func prices(offence: Penalties.Offence, free: Int) {
        var penalties = Penalties()
        for _ in 0..<free { #expect(penalties.note(offence, from: address("192.0.2.1"), at: start).isEmpty) }
        #expect(!penalties.note(offence, from: address("192.0.2.1"), at: start).isEmpty)
    }

    @Test("A /64 is one source, and its /48 answers for many of them")
    func networks() {
        var penalties = Penalties()
        for host in 1...3 { _ = penalties.note(.guess, from: address("[2001:db8:1:2::\(host)]:1"), at: start) }
        #expect(penalties.keepsOut(address("[2001:db8:1:2:ffff::1]:1"), at: start))
        #expect(!penalties.keepsOut(address("[2001:db8:1:3::1]:1"), at: start))
        #expect(penalties.keptOut(at: start).map(\.source.description) == ["2001:db8:1:2::/64"])
        for network in 0x10...0xff { _ = penalties.note(.nonsense, from: address("[2001:db8:1:\(String(network, radix: 16))::1]:1"), at: start) }
        #expect(penalties.keepsOut(address("[2001:db8:1:3::1]:1"), at: start))
        #expect(!penalties.keepsOut(address("[2001:db8:2::1]:1"), at: start))
        // What stands for an IPv4 address is that.
        for _ in 1...3 { _ = penalties.note(.guess, from: address("[::ffff:192.0.2.7]:1"), at: start) }
        #expect(penalties.keepsOut(address("192.0.2.7"), at: start))
    }

    @Test("Who is exempt never has to wait")
    func exempt() throws {
        var penalties = Penalties(exempt: [try AddressRule(parsing: Array("192.0.2.0/24".utf8)), try AddressRule(parsing: Array("::1".utf8))])
        for peer in ["192.0.2.9", "::1"] {
            for _ in 0..<20 { #expect(penalties.note(.crash, from: address(peer), at: start).isEmpty) }
        }
        #expect(penalties.count == 0)
    }

    @Test("At the limit of sources those that owe least are forgotten")
    func full() {
        var penalties = Penalties()
        func peer(_ number: Int) -> SocketAddress { SocketAddress(bytes: [10, UInt8(number >> 16), UInt8(number >> 8 & 255), UInt8(number & 255)], port: 1)! }
        for number in 0..<Penalties.mostSources { _ = penalties.note(number % 4 == 0 ? .crash : .notAdmitted, from: peer(number), at: start) }
        #expect(penalties.count == Penalties.mostSources)
        _ = penalties.note(.crash, from: peer(1 << 20), at: start)
        #expect(penalties.count <= Penalties.mostSources / 2 + 1)
        #expect(penalties.keepsOut(peer(0), at: start) && penalties.keepsOut(peer(1 << 20), at: start))
        #expect(penalties.keptOut(at: start).count == Penalties.mostSources / 4 + 1)
    }

    @Test("An exempt address keeps its networks from having to wait", arguments: [
        ("2001:db8:1:2::9", "2001:db8:1:2::1", true), ("2001:db8:1:2::/64", "2001:db8:1:3::1", false), ("2001:db8::/32", "2001:db8:1:2::1", true),
        ("ALL", "2001:db8::1", true), ("0.0.0.0/0", "2001:db8::1", false), ("::/0", "192.0.2.1", false), ("192.0.2.0/24", "192.0.3.1", false),
        ("::ffff:192.0.2.1", "192.0.2.1", true),
    ])
    func overlaps(rule: String, peer: String, isExempt: Bool) throws {
        var penalties = Penalties(exempt: [try AddressRule(parsing: Array(rule.utf8))])
        _ = penalties.note(.crash, from: address(peer), at: start)
        #expect(penalties.keepsOut(address(peer), at: start) != isExempt)
    }

    @Test("The /48 around an exempt address does not have to wait, whatever others in it do")
    func exemptSite() throws {
        var penalties = Penalties(exempt: [try AddressRule(parsing: Array("2001:db8:1:2::9".utf8))])
        for network in 0x10...0xff { _ = penalties.note(.crash, from: address("2001:db8:1:\(String(network, radix: 16))::1"), at: start) }
        #expect(penalties.keepsOut(address("2001:db8:1:10::1"), at: start) && !penalties.keepsOut(address("2001:db8:1:2::9"), at: start))
        #expect(!penalties.keepsOut(address("2001:db8:1:3::1"), at: start))
    }

    @Test("An administrator has failures forgotten: of one, of a network, of all; then they begin anew")
    func clear() throws {
        func rule(_ text: String) throws -> AddressRule { try AddressRule(parsing: Array(text.utf8)) }
        var penalties = Penalties()
        let peers = ["192.0.2.1", "192.0.2.2", "192.0.3.1", "2001:db8:1:2::1"].map(address)
        for peer in peers { _ = penalties.note(.crash, from: peer, at: start) }
        func waiting() -> [Bool] { peers.map { penalties.keepsOut($0, at: start) } }
        #expect(penalties.clear(try rule("192.0.2.9")).isEmpty && waiting() == [true, true, true, true])
        #expect(penalties.clear(try rule("192.0.2.1")) == [Source(peers[0])] && waiting() == [false, true, true, true])
        #expect(penalties.clear(try rule("192.0.2.0/23")).count == 2 && waiting() == [false, false, false, true])
        #expect(Set(penalties.clear(try rule("2001:db8:1:2::77")).map(\.description)) == ["2001:db8:1:2::/64", "2001:db8:1::/48"])
        #expect(penalties.count == 0)
        #expect(penalties.note(.guess, from: peers[0], at: start).isEmpty)
        #expect(penalties.clear(try rule("ALL")).count == 1 && penalties.count == 0)
    }
}

@Suite struct DescriptorLimitTests {
    @Test("A hard limit of open files that is too low for the limits is said, with what would do")
    func shortage() throws {
        var limits = Limits()
        #expect(limits.shortage(of: 1 << 20) == nil && limits.shortage(of: 1024 + 128) == nil)
        let text = try #require(limits.shortage(of: 1024 + 127))
        #expect(text.contains("may open 1151 files") && text.contains("need 1152"))
        limits.sessionsPerTarget = 5000
        #expect(limits.shortage(of: 5127) != nil && limits.shortage(of: 5128) == nil)
        limits.managementConnections = 2501
        #expect(limits.shortage(of: 5129) != nil && limits.shortage(of: 5130) == nil)
    }

    @Test("Management connections leave descriptors to logins: as many as these may bring at once, or a quarter of few", arguments: [
        (1 << 20, (1 << 20) - 128), (513, 385), (512, 384), (511, 384), (60, 45), (4, 3),
    ])
    func management(all: Int, numbers: Int) {
        #expect(Limits.descriptorsForManagement(of: all) == numbers && 2 * DoorLimits.messagesPerTurn == 128)
    }
}
