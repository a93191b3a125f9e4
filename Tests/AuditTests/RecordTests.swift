import Crypto
import JSON
import Testing

@testable import Audit

@Suite("Records of a trail")
struct RecordTests {
    private var chain: Chain { Chain(trail: "management", key: Secret([UInt8](repeating: 1, count: 32)), seed: Secret([UInt8](repeating: 2, count: 32))) }
    private let noon = Timestamp("2026-11-23T12:00:00.5Z")!

    @Test("A line is JSON with every member that was asked for, and nothing of a secret")
    func members() throws {
        var chain = chain
        let actor = Actor(uid: 0, gid: 0, pid: 77, executable: "/usr/sbin/tgtadm", user: "a \\ \"b\"\n\u{202e}", authentication: "pam", role: "administrator", tenant: nil)
        let code = SecretCode(derivedFrom: Secret(Array("key".utf8)))
        let secret = Secret(Array("open sesame 1234".utf8))
        let action = Action(mode: "account", operation: "new", arguments: [.init("user", "joe"), .init("password", secret, code)])
        let line = chain.append(.attempt(Attempt(actor, [action], .allowed, reason: "grant 3")), at: noon)
        #expect(!line.contains(UInt8(ascii: "\n")))
        #expect(line.firstRange(of: Array("sesame".utf8)) == nil)
        let value = try JSONValue(parsing: line)
        #expect(value["sequence"] == .number(1) && value["time"] == .string("2026-11-23T12:00:00.500000Z") && value["kind"] == .string("attempt"))
        #expect(value["peer"] == .object([.init("uid", .number(0)), .init("gid", .number(0)), .init("pid", .number(77)), .init("executable", .string("/usr/sbin/tgtadm"))]))
        #expect(value["user"] == .string("a \\ \"b\"\n\u{202e}") && value["tenant"] == .null && value["role"] == .string("administrator"))
        #expect(value["mode"] == .string("account") && value["op"] == .string("new") && value["decision"] == .string("allowed"))
        #expect(value["arguments"] == .array([.array([.string("user"), .string("joe")]), .array([.string("password"), .string(code.text(of: secret))])]))
        #expect(code.text(of: secret) == code.text(of: Secret(Array("open sesame 1234".utf8))))
        #expect(code.text(of: secret) != SecretCode(derivedFrom: Secret(Array("kez".utf8))).text(of: secret))

        let outcome = try JSONValue(parsing: chain.append(.outcome(Outcome(of: 1, actor, [action], .refused(number: 5, "no such target"), changes: ["a", "b"], microseconds: 12)), at: noon))
        #expect(outcome["attempt"] == .number(1) && outcome["result"] == .string("refused") && outcome["number"] == .number(5) && outcome["error"] == .string("no such target"))
        #expect(outcome["changes"] == .array([.string("a"), .string("b")]) && outcome["durationMicroseconds"] == .number(12))
    }

    @Test("A transaction's requests stand in its attempt, as many as fit; the others by number and digest")
    func transaction() throws {
        let actor = Actor(uid: 0, gid: 0, pid: 1)
        func attempt(_ count: Int, _ length: Int) throws -> (JSONValue, Int) {
            var chain = chain
            let actions = (0..<count).map { Action(mode: "target", operation: "new", arguments: [.init("targetname", String(repeating: "x", count: length) + "\($0)")]) }
            let line = chain.append(.attempt(Attempt(actor, actions, isTransaction: true, .allowed)), at: noon)
            return (try JSONValue(parsing: line), line.count)
        }
        let (small, _) = try attempt(3, 10)
        guard case .array(let requests) = small["requests"] else { Issue.record("no requests"); return }
        #expect(requests.count == 3 && small["mode"] == .string("transaction") && small["leftOut"] == nil)
        let (large, length) = try attempt(200, 100_000)
        guard case .array(let kept) = large["requests"] else { Issue.record("no requests"); return }
        #expect(kept.count < 200 && large["leftOut"] == .number(200 - kept.count) && large["leftOutSHA256"]?.string?.utf8.count == 64)
        #expect(length < RecordLimits.list + 4096)
    }

    @Test("A single request is no longer than a part of a transaction, whatever stands in it; what was not said in full has its length and its code")
    func single() throws {
        let actor = Actor(uid: 1000, gid: 1000, pid: 1)
        let worst = Action(mode: "portal", operation: "new", arguments: (0..<128).map { _ in .init("x", String(repeating: "\u{1}", count: 8192)) })
        for record in [Record.attempt(Attempt(actor, [worst], .allowed)), .outcome(Outcome(of: nil, actor, [worst], .success, microseconds: 1))] {
            var chain = chain
            let line = chain.append(record, at: noon)
            let value = try JSONValue(parsing: line)
            guard case .array(let kept) = value["arguments"] else { Issue.record("no arguments"); return }
            #expect(!kept.isEmpty && value["leftOut"] == .number(128 - kept.count) && value["leftOutSHA256"]?.string?.utf8.count == 64)
            #expect(line.count < RecordLimits.arguments + 4096)
            #expect(record.weight > 1 << 20)
        }
        var chain = chain
        let gist = Gist(requests: 3, bytes: 4711, code: "hmac:00")
        let line = chain.append(.attempt(Attempt(actor, [], isTransaction: true, .refused, reason: "no", gist: gist)), at: noon)
        let value = try JSONValue(parsing: line)
        #expect(value["count"] == .number(3) && value["bytes"] == .number(4711) && value["code"] == .string("hmac:00") && value["op"] == .string("commit"))
        #expect(line.count < 1000)
    }

    @Test("The chain is what it says: codes by hand")
    func byHand() throws {
        var chain = chain
        let publicKey = Ed25519.publicKey(seed: Secret([UInt8](repeating: 2, count: 32)))
        let first = chain.append(.example(0), at: noon), second = chain.checkpoint(at: noon)
        let link0 = Digest.sha256.hash(Array("portcullis audit: chain management\n".utf8) + publicKey)
        let body = Array(first.dropLast(",\"mac\":\"\"}".utf8.count + 64))
        #expect(Line.sealed(body, code: HMAC.sha256(Array("portcullis audit: record\n".utf8) + link0 + body, key: Secret([UInt8](repeating: 1, count: 32)))) == first)
        let key2 = Secret(HMAC.sha256(Array("portcullis audit: next key".utf8), key: Secret([UInt8](repeating: 1, count: 32))))
        let link1 = Digest.sha256.hash(link0 + first)
        let body2 = Array(second.dropLast(",\"mac\":\"\"}".utf8.count + 64))
        #expect(Line.sealed(body2, code: HMAC.sha256(Array("portcullis audit: record\n".utf8) + link1 + body2, key: key2)) == second)
        let value = try JSONValue(parsing: second)
        let signature = JSONValue.bytes(hexadecimal: value["signature"]!.string!.utf8)!
        let signed = Array(body2.dropLast(",\"signature\":\"\"".utf8.count + 128))
        #expect(Ed25519.isSignature(signature, of: Array("portcullis audit: checkpoint\n".utf8) + link1 + signed, by: publicKey))
        #expect(value["nextPublicKey"]?.string != JSONValue.hexadecimal(publicKey))
    }

    @Test("A chain goes on from its sealed keys, and behind what it had written since")
    func sealing() throws {
        let key = Secret.random(count: Seal.keyLength), context = Array("context".utf8)
        var chain = chain
        _ = chain.beginFile(1, at: noon)
        _ = chain.append(.example(1), at: noon)
        let (head, sealed) = (chain.head, chain.sealedKeys(key, context: context))
        let since = [chain.append(.example(2), at: noon), chain.checkpoint(at: noon), chain.beginFile(2, at: noon), chain.append(.example(4), at: noon)]
        #expect(Chain(head, sinceCheckpoint: 2, sealedKeys: sealed, Secret.random(count: Seal.keyLength), context: context) == nil)
        #expect(Chain(head, sinceCheckpoint: 2, sealedKeys: sealed, key, context: []) == nil)
        #expect(Chain(chain.head, sinceCheckpoint: 2, sealedKeys: sealed, key, context: context) == nil)
        var copy = try #require(Chain(head, sinceCheckpoint: 2, sealedKeys: sealed, key, context: context))
        #expect(copy.head == head)
        let isForeign = copy.goOn(behind: since[1][...])
        #expect(!isForeign && copy.head == head)
        for line in since {
            let isOurs = copy.goOn(behind: line[...])
            #expect(isOurs)
        }
        #expect(copy.head == chain.head && copy.sinceCheckpoint == chain.sinceCheckpoint)
        #expect(copy.append(.example(5), at: noon) == chain.append(.example(5), at: noon))
        #expect(copy.checkpoint(at: noon) == chain.checkpoint(at: noon))
    }

    @Test("A verification key is what its text says")
    func keys() throws {
        let key = chain.verificationKey
        #expect(VerificationKey(key.text) == key)
        #expect(VerificationKey(key.withoutSecret.text) == key.withoutSecret && key.withoutSecret.key == nil)
        #expect("\(key)".contains("secret") && !"\(key)".contains("0101"))
        for text in ["", "x", "portcullis-audit-1:management::", "portcullis-audit-2:management:00:00", "portcullis-audit-1:Management::" + String(repeating: "00", count: 32)] {
            #expect(VerificationKey(Array(text.utf8)) == nil)
        }
        let head = chain.head
        #expect(Head(.object(head.members)) == head)
        #expect(Head(.object(Array(head.members.dropLast()))) == nil)
    }

    @Test("Times are written and read, on every day of four centuries")
    func times() throws {
        #expect("\(Timestamp(microseconds: 0))" == "1970-01-01T00:00:00.000000Z")
        #expect("\(Timestamp(microseconds: -1))" == "1969-12-31T23:59:59.999999Z")
        #expect("\(Timestamp(microseconds: .max))" == "9999-12-31T23:59:59.999999Z")
        #expect("\(Timestamp(microseconds: .min))" == "0000-01-01T00:00:00.000000Z")
        #expect(Timestamp("2026-11-23")?.microseconds == 1_795_392_000_000_000)
        #expect(Timestamp("2026-11-23 12:34")?.description == "2026-11-23T12:34:00.000000Z")
        for text in ["", "2026", "2026-13-01", "2026-02-29", "2026-11-23T", "2026-11-23T24:00", "2026-11-23T12:00:60", "2026-11-23T12:00:00.", "2026-11-23x", "+026-11-23", "2026-11-23T12:00:00.1234567"] {
            #expect(Timestamp(text) == nil, "\(text)")
        }
        var previous = ""
        for day in -5_000..<146_097 {
            let time = Timestamp(microseconds: Int64(day) * 86_400_000_000)
            let text = time.description
            guard text > previous, Timestamp(text) == time else { Issue.record("\(text)"); break }
            previous = text
        }
    }
}

@Suite("Events that are too many")
struct EventGateTests {
    private func event(_ source: String, _ kind: SecurityEvent.Kind = .loginRefused) -> SecurityEvent { SecurityEvent(kind, source: source) }

    @Test("A source that causes many is counted, others are not touched")
    func oneSource() {
        var gate = EventGate()
        let start = Timestamp(microseconds: 1_000_000)
        let admitted = (0..<100_000).filter { _ in gate.admits(event("192.0.2.1"), at: start) }.count
        #expect(admitted == gate.perSource)
        let other = gate.admits(event("192.0.2.2"), at: start)
        #expect(other)
        #expect(gate.due(at: start.advanced(seconds: gate.window - 1)).isEmpty)
        #expect(gate.due(at: start.advanced(seconds: gate.window)) == [.suppressed(.loginRefused, source: "192.0.2.1", count: 100_000 - gate.perSource, since: start)])
        let again = gate.admits(event("192.0.2.1"), at: start.advanced(seconds: gate.window))
        #expect(again)
    }

    @Test("Many sources neither fill the disk nor our memory, and none is forgotten")
    func manySources() {
        var gate = EventGate()
        let start = Timestamp(microseconds: 0)
        let admitted = (0..<100_000).filter { gate.admits(event("source \($0)"), at: start) }.count
        #expect(admitted <= gate.ofKind)
        let records = gate.due(at: start.advanced(seconds: gate.window))
        #expect(records.count <= EventGate.mostSources + SecurityEvent.Kind.allCases.count)
        let counted = records.reduce(0) { sum, record in if case .suppressed(_, _, let count, _) = record { sum + count } else { sum } }
        #expect(admitted + counted == 100_000)
    }

    @Test("Whoever fills a kind hides nothing of another kind, and what is ours is never counted only")
    func kinds() {
        var gate = EventGate()
        let start = Timestamp(microseconds: 0)
        for number in 0..<100_000 { _ = gate.admits(event("source \(number)"), at: start) }
        // As many sources of another kind are still told apart.
        for number in 0..<EventGate.mostSources { for _ in 0..<2 { _ = gate.admits(event("peer \(number)", .peerRefused), at: start) } }
        let all = gate.due(at: start, all: true)
        let apart = all.contains { if case .suppressed(.peerRefused, "peer \(EventGate.mostSources - 1)"?, let count, _) = $0 { count == 2 } else { false } }
        #expect(apart)
        for number in 0..<100_000 { _ = gate.admits(event("source \(number)"), at: start) }
        let (refused, accepted) = (gate.admits(event("192.0.2.1"), at: start), gate.admits(event("192.0.2.1", .loginAccepted), at: start))
        #expect(!refused && accepted)
        for kind in SecurityEvent.Kind.allCases where kind.isOurs {
            let admitted = (0..<1000).filter { _ in gate.admits(SecurityEvent(kind, source: nil), at: start) }.count
            #expect(admitted == 1000)
        }
    }
}

@Suite("Records that are shown")
struct ShownTests {
    private var records: [ShownRecord] { WrittenTrail(records: 60).lines.compactMap { ShownRecord($0[...]) } }

    @Test("A selection takes what it says", arguments: [
        ("who", 40), ("tenant", 15),
    ])
    func selected(name: String, most: Int) {
        var selection = Selection()
        #expect(records.filter(selection.takes).count == 60)
        if name == "who" { selection.who = "user-1" } else { selection.tenant = "t3" }
        let taken = records.filter(selection.takes)
        #expect(!taken.isEmpty && taken.count <= most)
        for record in taken { #expect(name == "who" ? record.text("user") == "user-1" : record.text("tenant") == "t3") }
    }

    @Test("By decision, kind, operation and time")
    func more() {
        var refused = Selection()
        refused.decision = .refused
        #expect(records.filter(refused.takes).allSatisfy { $0.text("event") == "loginRefused" } && records.contains(where: refused.takes))
        var created = Selection()
        (created.mode, created.operation) = ("target", "new")
        #expect(records.filter(created.takes).allSatisfy { $0.what == "target new" } && records.contains(where: created.takes))
        var kind = Selection()
        kind.kind = "checkpoint"
        #expect(records.filter(kind.takes).count == 1)
        var time = Selection()
        (time.since, time.until) = (records[10].time, records[19].time)
        #expect(records.filter(time.takes).count == 10)
    }

    @Test("Nor can anything in JSON, though it was written as it came")
    func json() throws {
        let line = Array("{\"sequence\":1,\"kind\":\"attempt\",\"user\":\"\u{9b}2J\u{202e}\"}".utf8)
        let text = ShownFormat.json.text(try #require(ShownRecord(line[...])))
        #expect(text == "{\"sequence\":1,\"kind\":\"attempt\",\"user\":\"\\u009b2J\\u202e\"}")
    }

    @Test("Nothing in a table or in CSV can move a terminal's cursor, begin a line or become a formula")
    func escapes() throws {
        var chain = Chain(trail: "network", key: Secret.random(count: 32), seed: Secret.random(count: 32))
        let bad = "=cmd|' /C calc'!A0\n\u{1b}[2J\u{9b}1m\u{202e},\""
        let event = SecurityEvent(.loginRefused, source: bad, .refused, reason: bad, user: bad, initiator: bad)
        let record = try #require(ShownRecord(chain.append(.event(event), at: Timestamp(microseconds: 0))[...]))
        for format in [ShownFormat.table, .csv] {
            let text = format.text(record)
            #expect(text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7f })
        }
        let csv = ShownFormat.csv.text(record)
        #expect(csv.contains("\"'=cmd|"))
        #expect(try JSONValue(parsing: Array(ShownFormat.json.text(record).utf8))["reason"] == .string(bad))
        #expect(ShownFormat.csv.heading == "sequence,time,kind,who,role,tenant,what,result,details")
    }
}
