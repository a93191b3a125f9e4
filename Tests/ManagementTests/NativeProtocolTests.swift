import Bytes
@testable import Management
import Testing

/// All that a connection says, and where it goes wrong.
func events(_ bytes: [UInt8], pieces: [Int] = []) throws(ManagementWireError) -> [ManagementEvent] {
    var decoder = ManagementDecoder()
    var events: [ManagementEvent] = []
    var start = 0
    for end in pieces + [bytes.count] {
        try decoder.feed(bytes.span.extracting(start..<end), into: &events)
        start = end
    }
    return events
}

func answer(_ bytes: [UInt8]) throws(NativeWireError) -> NativeAnswer? {
    var decoder = NativeAnswerDecoder()
    return try decoder.feed(bytes.span)
}

@Suite("our own protocol on the wire")
struct NativeProtocolTests {
    static let unit: AdminRequest.NewLogicalUnit = {
        var unit = AdminRequest.NewLogicalUnit()
        unit.deviceType = 5
        unit.path = utf8("/srv/a,b")
        unit.bsoflags = utf8("sync")
        unit.blockSize = utf8("4096")
        return unit
    }()

    /// One of each action.
    static let actions: [AdminRequest.Action] = [
        .showSystem, .updateSystem(.init(name: utf8("State"), value: utf8("offline"))), .deleteSystem, .statSystem,
        .newTarget(tid: 1, name: utf8("iqn.x")), .deleteTarget(tid: -1, force: true), .deleteTarget(tid: 3, force: false), .showTargets,
        .showTarget(tid: .max), .statTarget(tid: 4), .updateTarget(tid: 4, .init(name: utf8("a"), value: utf8("b=c,d"))),
        .bindInitiators(tid: 1, .init(address: utf8("ALL"))), .bindInitiators(tid: 1, .init(name: utf8("iqn.x")), luns: utf8("0-3:ro,7")),
        .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("::1"))), .showPenalties, .clearPenalties(address: utf8("ALL")),
        .explainPolicy(.init()), .explainPolicy(.init(user: utf8("EXAMPLE\\bob smith"))),
        .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("10.0.0.1"), user: utf8("u"))),
        .unbindInitiators(tid: 1, .init(address: utf8("10.0.0.1"), name: utf8("iqn.*"))),
        .newLogicalUnit(tid: 1, lun: 1, unit), .newLogicalUnit(tid: 1, lun: .max, .init()), .deleteLogicalUnit(tid: 1, lun: 16383),
        .statLogicalUnit(tid: 1, lun: 2), .updateLogicalUnit(tid: 1, lun: 2, []),
        .updateLogicalUnit(tid: 1, lun: 2, [.init(name: utf8("online"), value: utf8("1")), .init(name: [], value: [0, 255])]),
        .explainAccess(.init(tid: 1, name: utf8("iqn.x"), address: utf8("::1"), overTLS: true)),
        .newPortal(utf8("127.0.0.1:3260")), .newPortal(utf8("127.0.0.1"), [.init(name: utf8("tls"), value: utf8("required"))]), .updatePortal(utf8("::1"), []),
        .updatePortal(utf8("::1"), [.init(name: utf8("crl"), value: [])]), .deletePortal(utf8("[::1]")), .showPortals, .newAccount(user: utf8("u"), password: utf8("p,q"), allowWeak: true),
        .addSecret(user: utf8("u"), password: utf8("p,q"), allowWeak: false), .retireSecret(user: utf8("u"), .old), .retireSecret(user: utf8("u"), .new),
        .generateSecret(user: utf8("u"), bits: 256), .bindAccount(.init(user: utf8("u"), tid: 3, outgoing: false, initiator: utf8("iqn.x"))),
        .unbindAccount(.init(user: utf8("u"), tid: nil, outgoing: false, initiator: utf8("iqn.x"))),
        .deleteAccount(user: utf8("u")), .showAccounts, .bindAccount(.init(user: utf8("u"), tid: nil, outgoing: true)),
        .unbindAccount(.init(user: utf8("u"), tid: 7, outgoing: false)), .statSession(tid: 1, sid: .max), .showConnections(tid: 1),
        .deleteConnection(tid: 1, sid: 2, cid: 3), .statConnections(tid: 1, sid: 2), .startDriver, .stopDriver, .showDrivers,
    ]

    static func connection(_ request: NativeRequest) throws -> [UInt8] { NativeHello().encoded() + (try #require(request.encoded())) }

    @Test("what is more than just anybody may say is announced, and understood only with leave", arguments: [1, 7, 40_000])
    func announced(piece: Int) throws {
        let small = NativeRequest(.single(.init(.showTargets)))
        let many = NativeRequest(.transaction([.init(.showTargets), .init(.showAccounts)]))
        let long = NativeRequest(.single(.init(.updateLogicalUnit(tid: 1, lun: 1, [.init(name: utf8("a"), value: [UInt8](repeating: 1, count: 8190)), .init(name: utf8("b"), value: [UInt8](repeating: 1, count: 300))]))))
        for (request, isTransaction) in [(small, nil), (many, true), (long, false)] as [(NativeRequest, Bool?)] {
            let bytes = try Self.connection(request)
            for stopsAtOnce in [true, false] {
                var decoder = ManagementDecoder(asksLeave: true)
                var events: [ManagementEvent] = []
                var start = 0
                func feed() throws {
                    let end = min(start + piece, bytes.count)
                    try decoder.feed(bytes.span.extracting(start..<end), into: &events)
                    start = end
                }
                func isAnnounced() -> Bool { events.contains { if case .announced = $0 { true } else { false } } }
                while start < bytes.count, !(stopsAtOnce && isAnnounced()) { try feed() }
                #expect(isAnnounced() == (isTransaction != nil))
                if let isTransaction {
                    #expect(events == [.hello(NativeHello()), .announced(NativeAnnouncement(isTransaction: isTransaction, bytes: bytes.count - NativeHello.length - 8))])
                    #expect(decoder.heldBytes > 0)
                    try decoder.permit(into: &events)
                }
                while start < bytes.count { try feed() }
                #expect(events.last == .native(request) && decoder.heldBytes == 0 && decoder.taken == bytes.count)
                #expect(throws: ManagementWireError.native(.trailing)) { try decoder.feed([0].span, into: &events) }
            }
        }
    }

    @Test("every request survives encoding and decoding, alone and in a transaction")
    func roundTrip() throws {
        for action in Self.actions {
            for format in [OutputFormat.text, .json] {
                let request = NativeRequest(.single(AdminRequest(lld: utf8("iscsi"), tenant: format == .json ? utf8("red") : nil, action)), format: format)
                #expect(try events(Self.connection(request)) == [.hello(NativeHello()), .native(request)])
            }
        }
        let all = NativeRequest(.transaction(Self.actions.map { AdminRequest($0) }), format: .json)
        #expect(try events(Self.connection(all)) == [.hello(NativeHello()), .native(all)])
        let none = NativeRequest(.transaction([]))
        #expect(try events(Self.connection(none)) == [.hello(NativeHello()), .native(none)])
    }

    @Test("at every split of its bytes a connection means the same, and no truncation means anything")
    func everySplit() throws {
        let request = NativeRequest(.transaction(Self.actions.map { AdminRequest($0) }))
        let whole = try Self.connection(request)
        for split in 0...whole.count {
            #expect(try events(whole, pieces: [split]) == [.hello(NativeHello()), .native(request)])
            if split < whole.count { #expect(try events(Array(whole[..<split])).count == (split < NativeHello.length ? 0 : 1)) }
        }
        #expect(try events(whole, pieces: Array(1..<whole.count)) == [.hello(NativeHello()), .native(request)])
        #expect(throws: ManagementWireError.native(.trailing)) { try events(whole + [0]) }
        #expect(throws: ManagementWireError.native(.trailing)) { try events(whole + [0], pieces: [whole.count]) }
        // What has come before an error is not lost.
        var decoder = ManagementDecoder()
        var before: [ManagementEvent] = []
        #expect(throws: ManagementWireError.native(.frame(9))) { try decoder.feed((NativeHello().encoded() + [9, 0, 0, 0, 0, 0, 0, 0]).span, into: &before) }
        #expect(before == [.hello(NativeHello())])
    }

    @Test("a truncated body is malformed, wherever it ends")
    func truncatedBodies() throws {
        for action in Self.actions {
            var writer = ByteWriter()
            writer.write(OutputFormat.text.rawValue)
            AdminRequest(action).encode(into: &writer)
            for length in 0..<writer.bytes.count {
                let frame = try #require(NativeFrame(.request, Array(writer.bytes[..<length])).encoded(limit: 1000))
                #expect(throws: ManagementWireError.native(.body(.truncated))) { try events(NativeHello().encoded() + frame) }
            }
            let frame = try #require(NativeFrame(.request, writer.bytes + [0]).encoded(limit: 1000))
            #expect(throws: ManagementWireError.native(.body(.trailingBytes))) { try events(NativeHello().encoded() + frame) }
        }
    }

    @Test("tgt's requests are told apart by their first bytes, whatever these are")
    func tgtAsEver() throws {
        let whole = try #require(WireTests.example.encoded())
        for split in 0...whole.count { #expect(try events(whole, pieces: [split]) == [.tgt(WireTests.example)]) }
        #expect(try events(whole, pieces: Array(1..<whole.count)) == [.tgt(WireTests.example)])
        // Begins as ours does.
        let almost = utf8("PORTCULK") + Array(repeating: UInt8(0), count: 64) + [120] + Array(repeating: UInt8(0), count: 47)
        for split in 0...almost.count {
            #expect(throws: ManagementWireError.tgt(.field("mode", 0x5452_4f50))) { try events(almost, pieces: [split]) }
        }
    }

    @Test("for tgt's daemon the hello is a header with a length that it refuses")
    func helloForTgt() throws {
        let hello = NativeHello(1...UInt16.max).encoded()
        #expect(hello.count == 120 && Array(hello[72..<76]) == [0, 0, 0, 0])
        #expect(throws: TgtWireError.length(0)) { try decode(hello) }
        let mode = hello[0..<4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        #expect(TgtRequest.Mode(rawValue: mode) == nil)
    }

    @Test("the version is agreed on, or the daemon says which it speaks")
    func versions() throws {
        func welcome(_ versions: ClosedRange<UInt16>) throws -> NativeWelcome {
            let events = try events(NativeHello(versions).encoded())
            guard case .hello(let hello)? = events.first else { throw NativeWireError.reserved }
            return try #require(NativeWelcome(NativeWelcome(answering: hello).encoded()))
        }
        #expect(try welcome(1...1).chosen == 1)
        #expect(try welcome(1...9).chosen == 1)
        #expect(try welcome(2...9) == NativeWelcome(chosen: nil, versions: 1...1))
        #expect(throws: ManagementWireError.native(.versions(0, 1))) { try events(NativeHello(0...1).encoded()) }
        var backwards = NativeHello().encoded()
        backwards[9] = 2
        #expect(throws: ManagementWireError.native(.versions(2, 1))) { try events(backwards) }
        let good = NativeWelcome(chosen: 1, versions: 1...1).encoded()
        #expect(good.count == NativeWelcome.length)
        for length in 0..<good.count { #expect(NativeWelcome(Array(good[..<length])) == nil) }
        #expect(NativeWelcome(NativeWelcome(chosen: 3, versions: 1...2).encoded()) == nil)
        #expect(NativeWelcome(Array(repeating: 0, count: 16)) == nil)
        #expect(TgtadmExit.notSpoken("--json", versions: 2...3).errors == [
            "tgtadm: --json cannot be had: this tgtd speaks versions 2 to 3 of Portcullis's protocol, this tgtadm 1"])
    }

    @Test("a length or a number that lies is refused before anything is held for it")
    func hostileSizes() throws {
        let hello = NativeHello().encoded()
        func frame(_ kind: UInt8, _ length: UInt32, _ body: [UInt8] = []) -> [UInt8] {
            var bytes: [UInt8] = [kind, 0, 0, 0]
            bytes.append(bigEndian: length)
            return hello + bytes + body
        }
        #expect(throws: ManagementWireError.native(.length(.max))) { try events(frame(1, .max)) }
        #expect(throws: ManagementWireError.native(.length(16 << 20 | 1))) { try events(frame(2, 16 << 20 | 1)) }
        #expect(throws: ManagementWireError.native(.body(.truncated))) { try events(frame(1, 0)) }
        #expect(try events(frame(2, 16 << 20)).count == 1)
        var decoder = ManagementDecoder()
        var held: [ManagementEvent] = []
        try decoder.feed(frame(2, 16 << 20, [1, 2, 3]).span, into: &held)
        #expect(decoder.heldBytes == 11)
        for kind in [0, 3, 4, 5, 255] as [UInt8] { #expect(throws: ManagementWireError.native(.frame(kind))) { try events(frame(kind, 0)) } }
        var reserved = frame(1, 0)
        reserved[hello.count + 2] = 1
        #expect(throws: ManagementWireError.native(.reserved)) { try events(reserved) }
        // Counts inside: of requests, of a text, of settings.
        let many = [0, 0, 4, 0, 1] as [UInt8]
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(2, 5, many)) }
        #expect(throws: ManagementWireError.native(.body(.truncated))) { try events(frame(2, 5, [0, 0, 4, 0, 0])) }
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(1, 5, [0, 0, 0, 0x20, 1])) }
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(1, 22, [0, 0, 0, 0, 0, 23] + Array(repeating: 0, count: 12) + [0, 0, 4, 1])) }
        // No format, no action, no rule.
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(1, 6, [2, 0, 0, 0, 0, 1])) }
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(1, 6, [0, 0, 0, 0, 0, 99])) }
        #expect(throws: ManagementWireError.native(.body(.invalid))) { try events(frame(1, 12, [0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0])) }
        let long = NativeRequest(.single(AdminRequest(.newPortal(Array(repeating: 1, count: 16 << 20)))))
        #expect(long.encoded() == nil)
        #expect(NativeRequest(.transaction(Array(repeating: AdminRequest(.showPortals), count: (1 << 18) + 1))).encoded() == nil)
    }

    @Test("what is asked before the answer comes at every split, and is fit for a terminal")
    func conversation() throws {
        let messages = [NativeMessage(.info, utf8("one\u{1b}[2J\u{9b}2J\ntwo")), NativeMessage(.secret, utf8("Password: ")), NativeMessage(.question, []), NativeMessage(.error, utf8("no"))]
        #expect(text(messages[0].shown) == "one?[2J?2J\ntwo" && messages.map(\.isQuestion) == [false, true, true, false])
        let reply = NativeAnswer(.noTarget)
        let whole = messages.flatMap { $0.encoded() } + reply.encoded()
        for split in 0...whole.count {
            var decoder = NativeAnswerDecoder()
            var came: [NativeMessage] = []
            let first = try decoder.feed(whole.span.extracting(0..<split), into: &came)
            let second = split == whole.count ? first : try decoder.feed(whole.span.extracting(split...), into: &came)
            #expect(second == reply && came == messages)
        }
        #expect(NativeMessage(.info, Array(repeating: 0x61, count: 5000)).text.count == 4096)
        for length in [0, 1, 511] {
            let frame = try #require(NativeMessage.encoded(answer: Array(repeating: 0x61, count: length)))
            #expect(NativeMessage.answerLength(Array(frame.prefix(8))) == length && frame.count == 8 + length)
        }
        #expect(NativeMessage.encoded(answer: Array(repeating: 0x61, count: 512)) == nil)
        for header in [[4, 0, 0, 0, 0, 0, 2, 0], [4, 0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0, 1], [4, 0, 0, 0, 255, 255, 255, 255], [4, 0, 0]] as [[UInt8]] {
            #expect(NativeMessage.answerLength(header) == nil)
        }
    }

    @Test("a hello says whether somebody can be asked")
    func hello() throws {
        for converses in [false, true] {
            var decoder = ManagementDecoder()
            var events: [ManagementEvent] = []
            let bytes = NativeHello(converses: converses).encoded()
            try decoder.feed(bytes.span, into: &events)
            #expect(events == [.hello(NativeHello(converses: converses))])
        }
    }

    @Test("an answer survives at every split, and nothing else is one")
    func answers() throws {
        let reply = NativeAnswer(.noTarget, request: 12, reason: "there is no target “7”", output: [0, 1, 255])
        let whole = reply.encoded()
        for split in 0...whole.count {
            var decoder = NativeAnswerDecoder()
            let first = try decoder.feed(whole.span.extracting(0..<split))
            let second = split == whole.count ? first : try decoder.feed(whole.span.extracting(split...))
            #expect(second == reply && (split == whole.count || first == nil))
        }
        #expect(throws: NativeWireError.trailing) { try answer(whole + [0]) }
        #expect(throws: NativeWireError.body(.invalid)) { try answer([4, 0, 0, 0, 0, 0, 0, 0]) }
        // A question to nobody.
        #expect(throws: NativeWireError.frame(4)) { try answer(NativeMessage(.secret, utf8("Password: ")).encoded()) }
        #expect(throws: NativeWireError.length(.max)) { try answer([3, 0, 0, 0, 255, 255, 255, 255]) }
        for length in 0..<whole.count - 8 {
            let cut = try #require(NativeFrame(.answer, Array(whole[8..<8 + length])).encoded(limit: 1000))
            #expect(throws: NativeWireError.body(.truncated)) { try answer(cut) }
        }
        let long = try #require(try answer(NativeAnswer(.invalidRequest, reason: String(repeating: "x", count: 70_000)).encoded()))
        #expect(long.reason.utf8.count == 64 << 10)
    }

    @Test("random bytes are refused or understood, and never more")
    func randomFrames() throws {
        var random = SplitMix(seed: 7)
        let hello = NativeHello().encoded()
        let samples = try Self.actions.map { try #require(NativeRequest(.single(AdminRequest($0))).encoded()) }
            + [try #require(NativeRequest(.transaction(Self.actions.map { AdminRequest($0) })).encoded())]
        var understood = 0
        for round in 0..<20_000 {
            var bytes: [UInt8]
            switch round % 4 {
            case 0: bytes = (0..<random.below(200)).map { _ in random.byte() }
            case 1: bytes = hello + (0..<random.below(64)).map { _ in random.byte() }
            default:
                bytes = hello + samples[random.below(samples.count)]
                for _ in 0...random.below(3) { bytes[random.below(bytes.count)] = random.byte() }
                if random.below(4) == 0 { bytes.removeLast(random.below(9)) }
            }
            do throws(ManagementWireError) {
                let split = random.below(bytes.count + 1)
                for event in try events(bytes, pieces: [split]) {
                    // What is understood is a request that can be sent again.
                    if case .native(let request) = event {
                        understood += 1
                        let again = try events(hello + (request.encoded() ?? []))
                        #expect(again.last == event)
                    }
                }
            } catch {}
            do throws(NativeWireError) { _ = try answer(Array(bytes.dropFirst(120))) } catch {}
        }
        #expect(understood > 1000)
    }
}

/// A small generator: the same numbers every time.
struct SplitMix {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }
    mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next()) }
}
