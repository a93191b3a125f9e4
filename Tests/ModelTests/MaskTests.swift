import SCSI
import Testing

@testable import Model

@Suite("which logical units a rule shows")
struct MaskTests {
    static let table: [(text: String, shown: String)] = [
        ("0", "0"), ("all", "all"), ("all:ro", "all:ro"), ("all:rw", "all"), ("0-16383", "all"), ("0,2-5:ro,7", "0,2-5:ro,7"), ("7,5:ro,0", "0,5:ro,7"),
        ("1,2,3", "1-3"), ("3:ro,1-2:ro", "1-3:ro"), ("1:ro,2", "1:ro,2"), ("5-5", "5"), ("16383:ro", "16383:ro"), ("007", "7"),
    ]

    @Test("numbers, ranges, for reading only; in any order", arguments: table.indices)
    func valid(index: Int) throws {
        let row = Self.table[index]
        let mask = try LUNMask(parsing: utf8(row.text))
        #expect(mask.description == row.shown)
        #expect(try LUNMask(parsing: utf8(row.shown)) == mask)
    }

    @Test("nothing else", arguments: [
        "", ",", "1,", ",1", "16384", "-1", "1-", "-", "2-1", "1:", "1:r", "1:ro:ro", "1 ", " 1", "1-2-3", "0x1", "1,1", "1-5,3", "all,1", "ALL", "none", "1;2", "1:RO",
        "99999999999999999999",
    ])
    func invalid(text: String) {
        #expect(throws: ConfigurationError.self) { try LUNMask(parsing: utf8(text)) }
    }

    @Test("as many items as there may be, and not one more")
    func limit() throws {
        func text(_ count: Int) -> [UInt8] { utf8((0..<count).map { String(2 * $0) }.joined(separator: ",")) }
        #expect(try LUNMask(parsing: text(LUNMask.mostRuns)).runs.count == LUNMask.mostRuns)
        #expect(throws: ConfigurationError.self) { try LUNMask(parsing: text(LUNMask.mostRuns + 1)) }
    }

    @Test("two masks together grant of each number what both grant", arguments: 0..<200)
    func intersection(seed: Int) throws {
        var state = UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 | 1
        func draw(_ bound: UInt16) -> UInt16 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt16(truncatingIfNeeded: state >> 40) % bound
        }
        func mask() throws -> LUNMask {
            var runs: [LUNMask.Run] = []
            var next: UInt16 = 0
            while next < 60 {
                let first = next + draw(4), last = first + draw(5)
                runs.append(LUNMask.Run(first...last, draw(2) == 0 ? .read : .write))
                next = last + 1
            }
            return try #require(LUNMask(runs.reversed()))
        }
        let (a, b) = (try mask(), try mask())
        let both = a.intersection(b)
        for lun in 0..<80 { #expect(both.access(to: lun) == min(a.access(to: lun), b.access(to: lun))) }
        #expect(both == b.intersection(a) && a.intersection(.all) == a && a.intersection(a) == a)
        #expect(try both.runs.isEmpty || LUNMask(parsing: utf8(both.description)) == both)
        #expect(LUNMask.all.access(to: 16383) == .write && LUNMask.all.access(to: 16384) == .none)
    }

    @Test("a list given for a rule that is there takes the place of its list; without a list, or with the same, the rule is there already")
    func rebinding() throws {
        var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
        let one = TargetID(rawValue: 1)!
        _ = try configuration.newTarget(one, name: utf8("iqn.t"))
        let rules = [try AddressRule(parsing: utf8("10.0.0.0/8")), try AddressRule(parsing: utf8("ALL"))]
        let mask = try LUNMask(parsing: utf8("1:ro"))
        _ = try configuration.bind(rules, [], to: one)
        let open = configuration
        #expect(throws: ConfigurationError.self) { try configuration.bind([rules[0]], [], to: one) }
        #expect(throws: ConfigurationError.self) { try configuration.bind([rules[0]], [], mask: .all, to: one) }
        #expect(try configuration.bind([rules[0]], [], mask: mask, to: one) == [.rulesChanged(one)])
        #expect(try configuration.target(one).addressRules.map(\.mask) == [mask, .all])
        #expect(configuration != open)
        #expect(throws: ConfigurationError.self) { try configuration.bind([rules[0]], [], to: one) }
        #expect(throws: ConfigurationError.self) { try configuration.bind([rules[0]], [], mask: mask, to: one) }
        #expect(try configuration.bind([rules[0]], [], mask: .all, to: one) == [.rulesChanged(one)])
        #expect(configuration == open)
        _ = try configuration.bind([rules[0]], [], mask: mask, to: one)
        _ = try configuration.unbind([rules[0]], [], from: one)
        #expect(try configuration.target(one).addressRules == [rules[1]])
    }
}
