import Testing

@testable import Model

/// `name=value,name=value`.
func portalParameters(_ text: String) -> [PortalParameter] {
    text.split(separator: ",").map { item in
        let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        return PortalParameter(name: Array(parts[0].utf8), value: parts.count > 1 ? Array(parts[1].utf8) : [])
    }
}

private func portal(_ text: String) throws(ConfigurationError) -> Portal { try Portal(PortalAddress(parsing: utf8("192.0.2.1")), portalParameters(text)) }
private func shown(_ portal: Portal) -> String { portal.parameters.map { "\($0.name)=\($0.value)" }.joined(separator: ",") }

@Suite("portals with parameters")
struct PortalTests {
    @Test("what makes a portal again is what was said, in a fixed order", arguments: [
        ("", ""), ("tls=none", ""), ("tpgt=65535", "tpgt=65535"), ("advertise=127.0.0.1", "advertise=127.0.0.1:3260"),
        ("key=/k,certificate=/c,tls=required", "tls=required,certificate=/c,key=/k"), ("psk-file=/p,tls=required,tpgt=2", "tls=required,psk-file=/p,tpgt=2"),
        ("tls=required,certificate=/c é,key=/k,policy=2026-11-strict,client-auth=none,crl=", "tls=required,certificate=/c é,key=/k,client-auth=none,policy=2026-11-strict"),
    ])
    func said(text: String, again: String) throws {
        let made = try portal(text)
        #expect(shown(made) == again)
        #expect(try portal(again) == made)
    }

    @Test("who can show who it is has to, unless the administrator says otherwise", arguments: [
        ("certificate=/c,key=/k", PortalTLS.ClientAuthentication.none), ("certificate=/c,key=/k,client-ca=/a", .required),
        ("psk-file=/p", .required), ("certificate=/c,key=/k,psk-file=/p,client-auth=optional", .optional), ("certificate=/c,key=/k,client-auth=none", .none),
    ])
    func clientAuthentication(text: String, expected: PortalTLS.ClientAuthentication) throws {
        let tls = try #require(try portal("tls=required," + text).tls)
        #expect(tls.clientAuthentication == expected && tls.policy == .strict)
    }

    @Test("what does not go together is refused, and the reason names it", arguments: [
        ("tls=yes", "tls"), ("tls=", "tls"), ("tls=required", "certificate"), ("certificate=/c,key=/k", "certificate is for"), ("psk-file=/p", "psk-file is for"),
        ("tls=none,key=/k", "key is for"), ("tls=required,certificate=/c", "key"), ("tls=required,key=/k", "certificate"),
        ("tls=required,psk-file=/p,client-ca=/a", "client-ca"), ("tls=required,certificate=/c,key=/k,crl=/r", "crl"),
        ("tls=required,certificate=/c,key=/k,client-map=/m", "client-map"), ("tls=required,certificate=/c,key=/k,client-auth=required", "client-auth=required"),
        ("tls=required,certificate=/c,key=/k,client-ca=/a,client-auth=none", "client-auth=none"), ("tls=required,psk-file=/p,client-auth=optional", "client-auth is required"),
        ("tls=required,psk-file=/p,client-auth=maybe", "none or optional or required"), ("tls=required,psk-file=/p,policy=strict", "2026-11-strict"),
        ("tls=required,psk-file=p", "absolute"), ("tls=required,psk-file=/a\nb", "absolute"), ("tpgt=0", "tpgt"), ("tpgt=65536", "tpgt"), ("tpgt=x", "tpgt"),
        ("advertise=host", "no portal"), ("advertise=0.0.0.0", "advertise"), ("advertise=[::]:1", "advertise"), ("advertise=1.2.3.4:0", "advertise"),
        ("tpgt=1,tpgt=1", "twice"), ("colour=red", "colour"), ("tls=required,psk-file=/a\u{0}", "absolute"),
    ])
    func refused(text: String, reason: String) {
        do throws(ConfigurationError) {
            _ = try portal(text)
            Issue.record("\(text) is accepted")
        } catch {
            #expect(error.kind == .invalid && error.description.contains(reason) && !error.description.contains("\n"), "\(error)")
        }
        #expect(throws: ConfigurationError.self) { try portal("tls=required,psk-file=/" + String(repeating: "a", count: Limits.pathLength)) }
        #expect(throws: ConfigurationError.self) { try Portal(PortalAddress(parsing: utf8("192.0.2.1")), [
            PortalParameter(name: utf8("tls"), value: utf8("required")), PortalParameter(name: utf8("psk-file"), value: [0x2f, 0xff])]) }
    }

    @Test("an update replaces what it names, takes away what it names empty, and turns no clear portal into another")
    func updated() throws {
        let made = try portal("tls=required,certificate=/c,key=/k,client-ca=/a,crl=/r,tpgt=2")
        #expect(try made.with([]) == made && made.with(portalParameters("tls=required")) == made)
        #expect(shown(try made.with(portalParameters("crl=,key=/l,tpgt="))) == "tls=required,certificate=/c,key=/l,client-ca=/a")
        for wrong in ["client-ca=", "tls=none", "certificate=", "portal=1.2.3.4"] {
            #expect(throws: ConfigurationError.self, "\(wrong)") { try made.with(portalParameters(wrong)) }
        }
        #expect(throws: ConfigurationError.self) { try portal("").with(portalParameters("tls=required,psk-file=/p")) }
        #expect(try portal("").with(portalParameters("advertise=127.0.0.1:1")).advertised?.port == 1)
    }

    @Test("a portal is changed where it is, and found by the address that a connection has reached")
    func changed() throws {
        var configuration = try example()
        for text in ["192.0.2.1:1", "0.0.0.0:2", "[::]:1"] { _ = try configuration.addPortal(Portal(parsing: utf8(text))) }
        let first = try configuration.portals[0].with(portalParameters("tpgt=5"))
        #expect(try configuration.changePortal(first) == [.portalChanged(first)] && configuration.portals[0] == first && configuration.portals.count == 3)
        #expect(throws: ConfigurationError.self) { try configuration.changePortal(Portal(parsing: utf8("192.0.2.1:2"))) }
        #expect(throws: ConfigurationError.self) { try configuration.addPortal(Portal(parsing: utf8("192.0.2.1:1"))) }
        for (local, found) in [("192.0.2.1:1", "192.0.2.1:1"), ("192.0.2.9:1", nil), ("192.0.2.9:2", "0.0.0.0:2"), ("[2001:db8::1]:1", "[::]:1"), ("[2001:db8::1]:2", nil)] {
            #expect(configuration.portal(reachedAt: try PortalAddress(parsing: utf8(local)))?.description == found)
        }
    }
}
