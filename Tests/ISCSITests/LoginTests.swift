import Testing
@testable import ISCSI

/// Login Requests as an initiator writes them.
struct LoginWriter {
    var isid: UInt64 = 0x4001_0203_0405
    var tsih: UInt16 = 0
    var cid: UInt16 = 7
    var tag: UInt32 = 0x1234
    var cmdSN: UInt32 = 100
    var expStatSN: UInt32 = 50

    func request(_ csg: UInt8, to nsg: UInt8? = nil, continues: Bool = false, _ data: [UInt8]) -> TestPDU {
        var pdu = TestPDU(0x43, (nsg.map { 0x80 | $0 } ?? 0) | (continues ? 0x40 : 0) | csg << 2, tag: tag, data: data)
        pdu.header.replaceSubrange(8..<14, with: big64(isid)[2...])
        pdu.put(tsih, 14)
        pdu.put(cid, 20)
        pdu.put(cmdSN, 24)
        pdu.put(expStatSN, 28)
        return pdu
    }
}

let names = keys("InitiatorName=iqn.a:host", "TargetName=iqn.b:disk", "SessionType=Normal")

/// Runs a login over pieces of input; every question is answered the same way.
func login(_ pieces: [[UInt8]], _ parameters: SessionParameters = SessionParameters(), answer: LoginAnswer? = nil) -> (LoginMachine, [TestPDU], [LoginQuestion]) {
    var machine = LoginMachine()
    var output: [UInt8] = []
    var questions: [LoginQuestion] = []
    for piece in pieces {
        var rest = piece[...]
        while !rest.isEmpty {
            let chunk = Array(rest)
            let count = machine.receive(chunk.span)
            output += machine.takeOutput()
            rest = rest.dropFirst(count)
            if case .asks(let question) = machine.state {
                questions.append(question)
                machine.answer(answer ?? .proceed(parameters: parameters, portalGroupTag: 1, authentication: .none))
                output += machine.takeOutput()
            } else if machine.state != .needsInput, count == 0 {
                break
            }
        }
        if case .asks = machine.state { Issue.record("an empty piece asks nothing") }
    }
    return (machine, TestPDU.parse(output), questions)
}

extension LoginMachine {
    var outcome: LoginOutcome? {
        switch state {
        case .succeeded(let outcome), .discovery(let outcome): outcome
        default: nil
        }
    }
    var refusal: LoginStatus? { if case .failed(let status) = state { status } else { nil } }
}

@Suite struct LoginTests {
    let writer = LoginWriter()

    @Test("Straight into the operational stage and on to full feature, at every split")
    func straight() throws {
        let bytes = writer.request(1, to: 3, names + keys("MaxRecvDataSegmentLength=65536", "InitialR2T=No")).bytes()
        everySplit(bytes) { pieces in
            let (machine, responses, questions) = login(pieces)
            #expect(responses.isEmpty)
            #expect(questions.count == 1)
            guard case .succeeded(let outcome) = machine.state else { Issue.record("no success"); return }
            #expect(outcome.identity.initiatorName.spelling == "iqn.a:host")
            #expect(outcome.identity.targetName?.spelling == "iqn.b:disk")
            #expect(outcome.identity.isid.rawValue == 0x4001_0203_0405)
            #expect(outcome.identity.cid == 7)
            #expect(outcome.expCmdSN == 100)
            #expect(outcome.statSN == 51)
            #expect(!outcome.negotiated.initialR2T)
            #expect(outcome.negotiated.initiatorMaxRecvDataSegmentLength == 65536)
            #expect(outcome.negotiated.isWithin(SessionParameters()))
            let final = TestPDU.parse(outcome.finalResponseBytes(tsih: 0x55))[0]
            #expect(final.opcode == 0x23 && final.flags == 0x87)
            #expect(u16(final.header, 14) == 0x55)
            #expect(u16(final.header, 36) == 0)
            #expect(final.tag == 0x1234 && final.statSN == 50 && final.expCmdSN == 100 && final.maxCmdSN == 227)
            #expect(final.text == ["InitialR2T=No", "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144"])
            let refused = TestPDU.parse(outcome.refusalBytes(.outOfResources))[0]
            #expect(u16(refused.header, 36) == 0x0302 && refused.flags & 0x80 == 0)
        }
    }

    @Test("Both stages, keys split over requests, at every split")
    func bothStages() {
        let operational = keys("HeaderDigest=CRC32C,None", "MaxBurstLength=131072", "FirstBurstLength=262144", "X-com.example.key=1")
        let bytes =
            writer.request(0, continues: true, Array(names[..<9])).bytes() + writer.request(0, to: 1, names[9...] + keys("AuthMethod=CHAP,None")).bytes()
            + writer.request(1, continues: true, Array(operational[..<30])).bytes() + writer.request(1, to: 3, Array(operational[30...])).bytes()
        everySplit(bytes) { pieces in
            let (machine, responses, questions) = login(pieces)
            #expect(questions.count == 1)
            #expect(responses.count == 3)
            #expect(responses.map(\.flags) == [0x00, 0x81, 0x04])
            #expect(responses.map(\.statSN) == [50, 51, 52])
            #expect(responses.allSatisfy { u16($0.header, 36) == 0 && $0.tag == 0x1234 })
            #expect(responses[1].text == ["AuthMethod=None", "TargetPortalGroupTag=1"])
            guard let outcome = machine.outcome else { Issue.record("no success"); return }
            #expect(
                outcome.finalResponse.text
                    == keys(
                        "HeaderDigest=None", "MaxBurstLength=131072", "X-com.example.key=NotUnderstood", "FirstBurstLength=131072",
                        "MaxRecvDataSegmentLength=262144"))
            #expect(outcome.negotiated.firstBurstLength == 131_072)
            #expect(outcome.statSN == 54)
        }
    }

    @Test("From the security stage to full feature at once")
    func skipping() {
        let (machine, responses, _) = login([writer.request(0, to: 3, names + keys("AuthMethod=None")).bytes()])
        #expect(responses.isEmpty)
        #expect(machine.outcome?.finalResponse.currentStage == 0)
        #expect(machine.outcome?.finalResponse.text == keys("AuthMethod=None", "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144"))
    }

    @Test("A request without T keeps the stage")
    func staying() {
        let (machine, responses, _) = login([writer.request(1, names).bytes(), writer.request(1, to: 3, []).bytes()])
        #expect(responses.map(\.flags) == [0x04])
        #expect(responses[0].text == ["TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144"])
        #expect(machine.outcome?.finalResponse.text == [])
    }

    @Test("A discovery session needs no target, gets no tag, and its keys that mean nothing are Irrelevant")
    func discovery() {
        let text = keys("InitiatorName=iqn.a:host", "SessionType=Discovery", "MaxBurstLength=512", "ErrorRecoveryLevel=2", "TaskReporting=FastAbort")
        let (machine, _, questions) = login([writer.request(1, to: 3, text).bytes()])
        guard case .discovery(let outcome) = machine.state else { Issue.record("no discovery"); return }
        #expect(questions[0].sessionType == .discovery && questions[0].targetName == nil)
        #expect(
            outcome.finalResponse.text
                == keys("MaxBurstLength=Irrelevant", "ErrorRecoveryLevel=0", "TaskReporting=Irrelevant", "MaxRecvDataSegmentLength=262144"))
        #expect(outcome.negotiated.isWithin(SessionParameters()))
    }

    @Test("The question tells what control needs, and nothing is negotiated before its answer")
    func question() {
        var writer = writer
        writer.tsih = 9
        var machine = LoginMachine()
        let bytes = writer.request(1, to: 3, names + keys("InitiatorAlias=my host")).bytes()
        #expect(machine.receive(bytes.span) == bytes.count)
        guard case .asks(let question) = machine.state else { Issue.record("no question"); return }
        #expect(question.tsih == 9 && question.initiatorAlias == Array("my host".utf8) && question.sessionType == .normal)
        #expect(machine.takeOutput() == [])
        #expect(machine.receive(bytes.span) == 0)
        machine.answer(.refuse(.authorizationFailure))
        #expect(machine.refusal == .authorizationFailure)
        let response = TestPDU.parse(machine.takeOutput())[0]
        #expect(u16(response.header, 36) == 0x0202 && u16(response.header, 14) == 9)
        #expect(machine.receive(bytes.span) == 0)
    }

    // MARK: Keys

    /// Key, what the initiator says, our answer (nil: none), for a target as it is made.
    static let answers: [(String, String, String?)] = [
        ("HeaderDigest", "None", "None"), ("HeaderDigest", "CRC32C,None", "None"), ("HeaderDigest", "CRC32C", "Reject"), ("DataDigest", "", "Reject"),
        ("InitialR2T", "Yes", "Yes"), ("InitialR2T", "No", "No"), ("InitialR2T", "yes", "Reject"), ("ImmediateData", "Yes", "Yes"),
        ("ImmediateData", "No", "No"), ("ImmediateData", "", "Reject"), ("MaxOutstandingR2T", "0", "Reject"), ("MaxOutstandingR2T", "1", "1"),
        ("MaxOutstandingR2T", "65535", "1"), ("MaxOutstandingR2T", "65536", "Reject"), ("FirstBurstLength", "511", "Reject"),
        ("FirstBurstLength", "512", "512"), ("FirstBurstLength", "16777215", "262144"), ("FirstBurstLength", "16777216", "Reject"),
        ("MaxBurstLength", "511", "Reject"), ("MaxBurstLength", "0x200", "512"), ("MaxBurstLength", "16777215", "262144"),
        ("MaxBurstLength", "16777216", "Reject"), ("MaxBurstLength", "1~5", "Reject"), ("MaxConnections", "0", "Reject"), ("MaxConnections", "8", "1"),
        ("DefaultTime2Wait", "0", "2"), ("DefaultTime2Wait", "3600", "3600"), ("DefaultTime2Wait", "3601", "Reject"), ("DefaultTime2Retain", "0", "0"),
        ("DefaultTime2Retain", "3600", "20"), ("DefaultTime2Retain", "3601", "Reject"), ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"), ("DataPDUInOrder", "No", "Yes"), ("DataPDUInOrder", "Yes", "Yes"), ("DataSequenceInOrder", "No", "Yes"),
        ("IFMarker", "No", "No"), ("OFMarker", "Yes", "No"), ("IFMarkInt", "2048~65535", "Reject"), ("OFMarkInt", "1", "Reject"),
        ("MaxRecvDataSegmentLength", "512", nil), ("MaxRecvDataSegmentLength", "511", "Reject"), ("MaxRecvDataSegmentLength", "16777215", nil),
        ("MaxRecvDataSegmentLength", "16777216", "Reject"), ("RDMAExtensions", "Yes", "No"), ("TargetRecvDataSegmentLength", "8192", "Irrelevant"),
        ("InitiatorRecvDataSegmentLength", "8192", "Irrelevant"), ("MaxOutstandingUnexpectedPDUs", "0", "Irrelevant"), ("InitiatorAlias", "x", nil),
        ("TargetAlias", "x", "Reject"), ("TargetAddress", "1.2.3.4", "Reject"), ("TargetPortalGroupTag", "1", "Reject"), ("SendTargets", "All", "Reject"),
        ("TaskReporting", "FastAbort,RFC3720", "RFC3720"), ("TaskReporting", "FastAbort", "Reject"), ("X#NodeArchitecture", "x", nil),
        ("iSCSIProtocolLevel", "1", "NotUnderstood"), ("MaxQueueCmd", "1", "NotUnderstood"), ("maxburstlength", "512", "NotUnderstood"),
    ]

    @Test("Every key is answered by its rule", arguments: answers)
    func rule(key: String, value: String, answer: String?) {
        let (machine, _, _) = login([writer.request(1, to: 3, names + keys("\(key)=\(value)")).bytes()])
        guard let outcome = machine.outcome else { Issue.record("no success"); return }
        let mine = keys("TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144")
        #expect(outcome.finalResponse.text == (answer.map { keys("\(key)=\($0)") } ?? []) + mine)
        #expect(outcome.negotiated.isWithin(SessionParameters()))
    }

    @Test("Digests are agreed on when both sides have them")
    func digests() throws {
        var parameters = SessionParameters()
        try parameters.set(name: "HeaderDigest".utf8, value: "CRC32C,None".utf8)
        try parameters.set(name: "DataDigest".utf8, value: "CRC32C".utf8)
        let (machine, _, _) = login([writer.request(1, to: 3, names + keys("HeaderDigest=CRC32C,None", "DataDigest=None,CRC32C")).bytes()], parameters)
        #expect(machine.outcome?.negotiated.headerDigest == true)
        #expect(machine.outcome?.negotiated.dataDigest == true)
        #expect(machine.outcome?.negotiated.isWithin(parameters) == true)
        #expect(machine.outcome?.negotiated.isWithin(SessionParameters()) == false)
        let (without, _, _) = login([writer.request(1, to: 3, names + keys("DataDigest=None")).bytes()], parameters)
        #expect(without.refusal == .initiatorError)
    }

    @Test("What a target must not leave at its standard value it demands, and waits for the answer")
    func demands() throws {
        var parameters = SessionParameters()
        for (name, value) in [
            ("ImmediateData", "No"), ("MaxBurstLength", "8192"), ("DataDigest", "CRC32C"), ("DefaultTime2Wait", "5"), ("DefaultTime2Retain", "10"),
        ] {
            try parameters.set(name: name.utf8, value: value.utf8)
        }
        let demands = ["DataDigest=CRC32C", "ImmediateData=No", "MaxBurstLength=8192", "DefaultTime2Wait=5", "DefaultTime2Retain=10"]
        let answers = keys("DataDigest=CRC32C", "ImmediateData=No", "MaxBurstLength=4096", "DefaultTime2Wait=6", "DefaultTime2Retain=0")
        let (machine, responses, _) = login([writer.request(1, to: 3, names).bytes(), writer.request(1, to: 3, answers).bytes()], parameters)
        #expect(responses.count == 1 && responses[0].flags == 0x04)
        #expect(Array(responses[0].text.suffix(5)) == demands)
        #expect(machine.outcome?.negotiated.isWithin(parameters) == true)
        #expect(machine.outcome?.negotiated.maxBurstLength == 4096)
        #expect(machine.outcome?.negotiated.firstBurstLength == 4096)
        #expect(machine.outcome?.finalResponse.text == [])

        let (silent, _, _) = login([writer.request(1, to: 3, names).bytes(), writer.request(1, to: 3, []).bytes()], parameters)
        #expect(silent.refusal == .initiatorError)
        let (refusing, _, _) = login([writer.request(1, to: 3, names).bytes(), writer.request(1, to: 3, keys("DataDigest=Reject")).bytes()], parameters)
        #expect(refusing.refusal == .initiatorError)
        // From the security stage the way leads through the operational one.
        let (later, early, _) = login([writer.request(0, to: 3, names).bytes(), writer.request(1, to: 3, answers).bytes()], parameters)
        #expect(early[0].flags == 0x81)
        #expect(later.outcome != nil)
    }

    @Test("A demand that is not answered, or rejected, leaves the standard value", arguments: ["", "Reject", "Irrelevant", "NotUnderstood"])
    func unansweredDemands(word: String) throws {
        var parameters = SessionParameters()
        let demanded = [
            ("ImmediateData", "No"), ("MaxBurstLength", "8192"), ("FirstBurstLength", "4096"), ("DefaultTime2Wait", "5"), ("DefaultTime2Retain", "0"),
        ]
        for (name, value) in demanded { try parameters.set(name: name.utf8, value: value.utf8) }
        let answers = word.isEmpty ? [] : demanded.flatMap { keys("\($0.0)=\(word)") }
        let (machine, responses, _) = login([writer.request(1, to: 3, names).bytes(), writer.request(1, to: 3, answers).bytes()], parameters)
        #expect(responses.count == 1 && Set(responses[0].text.suffix(5)) == Set(demanded.map { "\($0.0)=\($0.1)" }))
        let negotiated = try #require(machine.outcome).negotiated
        #expect(negotiated.immediateData && negotiated.maxBurstLength == 262_144 && negotiated.firstBurstLength == 65536)
        #expect(negotiated.defaultTime2Wait == 2 && negotiated.defaultTime2Retain == 20)
        #expect(negotiated.isWithin(parameters))
        // Neither what was offered nor what stands if nothing is said.
        var other = negotiated
        other.maxBurstLength = 131_072
        #expect(!other.isWithin(parameters))
        other = negotiated
        other.defaultTime2Retain = 19
        #expect(!other.isWithin(parameters))
    }

    // MARK: Refusals

    static func refusals() -> [(String, [TestPDU], LoginStatus)] {
        let writer = LoginWriter()
        var other = writer
        func with(_ change: (inout LoginWriter) -> Void) -> LoginWriter { other = writer; change(&other); return other }
        var version = writer.request(1, to: 3, names)
        version.header[2] = 1
        version.header[3] = 1
        var additional = writer.request(1, to: 3, names)
        additional.additional = [0, 5, 2, 0]
        let first = writer.request(0, to: 1, names)
        let many = (0..<62).map { Array("X-\($0)=1\0".utf8) }.flatMap { $0 }
        return [
            ("no initiator name", [writer.request(1, to: 3, keys("TargetName=iqn.b"))], .missingParameter),
            ("no target name", [writer.request(1, to: 3, keys("InitiatorName=iqn.b"))], .missingParameter),
            ("no text", [writer.request(0, to: 1, [])], .missingParameter),
            ("bad initiator name", [writer.request(1, to: 3, keys("InitiatorName=iqn_b", "TargetName=a"))], .initiatorError),
            ("bad target name", [writer.request(1, to: 3, keys("InitiatorName=iqn.b", "TargetName=a b"))], .notFound),
            ("empty target name", [writer.request(1, to: 3, keys("InitiatorName=iqn.b", "TargetName="))], .notFound),
            ("bad session type", [writer.request(1, to: 3, keys("InitiatorName=iqn.b", "SessionType=normal"))], .sessionTypeNotSupported),
            ("unsupported version", [version], .unsupportedVersion),
            ("additional headers", [additional], .initiatorError),
            ("T and C", [writer.request(1, to: 3, continues: true, names)], .initiatorError),
            ("stage 2", [writer.request(2, to: 3, names)], .initiatorError),
            ("stage 3", [writer.request(3, to: 3, names)], .initiatorError),
            ("next stage 2", [writer.request(1, to: 2, names)], .initiatorError),
            ("next stage the same", [writer.request(1, to: 1, names)], .initiatorError),
            ("next stage lower", [writer.request(1, to: 0, names)], .initiatorError),
            ("stage skipped ahead", [writer.request(0, names), writer.request(1, to: 3, [])], .initiatorError),
            ("stage gone back", [first, writer.request(0, to: 1, [])], .initiatorError),
            ("another ISID", [first, with { $0.isid = 1 }.request(1, to: 3, [])], .initiatorError),
            ("another TSIH", [first, with { $0.tsih = 1 }.request(1, to: 3, [])], .initiatorError),
            ("another CID", [first, with { $0.cid = 1 }.request(1, to: 3, [])], .initiatorError),
            ("another tag", [first, with { $0.tag = 1 }.request(1, to: 3, [])], .initiatorError),
            ("another CmdSN", [first, with { $0.cmdSN = 1 }.request(1, to: 3, [])], .initiatorError),
            ("key twice", [writer.request(1, to: 3, names + keys("InitialR2T=No", "InitialR2T=No"))], .initiatorError),
            ("name twice", [writer.request(1, to: 3, names + keys("TargetName=iqn.b:disk"))], .initiatorError),
            ("unknown key twice", [writer.request(1, to: 3, names + keys("X-a=1", "X-a=2"))], .initiatorError),
            ("key twice in two requests", [writer.request(1, names + keys("InitialR2T=No")), writer.request(1, to: 3, keys("InitialR2T=No"))], .initiatorError),
            ("name in a later request", [writer.request(1, keys("InitiatorName=a", "TargetName=b")), writer.request(1, to: 3, keys("SessionType=Normal"))], .initiatorError),
            ("no equals sign", [writer.request(1, to: 3, names + keys("InitialR2T"))], .initiatorError),
            ("no name", [writer.request(1, to: 3, names + keys("=x"))], .initiatorError),
            ("bad name", [writer.request(1, to: 3, names + keys("A b=x"))], .initiatorError),
            ("name too long", [writer.request(1, to: 3, names + keys(String(repeating: "a", count: 64) + "=x"))], .initiatorError),
            ("unterminated", [writer.request(1, to: 3, names + Array("InitialR2T=No".utf8))], .initiatorError),
            ("value too long", [writer.request(1, to: 3, names + keys("InitialR2T=" + String(repeating: "N", count: 256)))], .initiatorError),
            ("alias too long", [writer.request(1, to: 3, names + keys("InitiatorAlias=" + String(repeating: "N", count: 256)))], .initiatorError),
            ("too many keys", [writer.request(1, to: 3, names + many)], .initiatorError),
            (
                "too many keys in two requests",
                [writer.request(1, names + keys("Y-1=1", "Y-2=1")), writer.request(1, to: 3, many)], .initiatorError
            ),
            ("no method of ours", [writer.request(0, to: 1, names + keys("AuthMethod=CHAP"))], .authenticationFailure),
            ("method in the wrong stage", [writer.request(1, to: 3, names + keys("AuthMethod=None"))], .initiatorError),
            ("data segment too long", [writer.request(1, to: 3, names + [UInt8](repeating: 0, count: 8193 - names.count))], .initiatorError),
            ("too much text", Array(repeating: writer.request(0, continues: true, [UInt8](repeating: 0x61, count: 8192)), count: 9), .initiatorError),
            ("too many requests", Array(repeating: writer.request(0, continues: true, []), count: 65), .initiatorError),
        ]
    }

    @Test("What is wrong is refused with its status", arguments: refusals().map(\.0))
    func refused(what: String) {
        guard let (_, requests, status) = Self.refusals().first(where: { $0.0 == what }) else { Issue.record("no such case"); return }
        let bytes = requests.flatMap { $0.bytes() }
        let splits: [[[UInt8]]] = [[bytes], bytes.count < 2000 ? bytes.map { [$0] } : [Array(bytes.prefix(100)), Array(bytes.dropFirst(100))]]
        for pieces in splits {
            let (machine, responses, _) = login(pieces)
            #expect(machine.refusal == status)
            #expect(responses.last.map { u16($0.header, 36) } == status.rawValue)
            #expect(responses.last.map { $0.flags & 0x80 } == 0)
        }
    }

    @Test("At the limits it still goes")
    func limits() {
        let many = (0..<61).map { Array("X-\($0)=1\0".utf8) }.flatMap { $0 }
        #expect(login([writer.request(1, to: 3, names + many).bytes()]).0.outcome != nil)
        let long = keys(String(repeating: "a", count: 63) + "=" + String(repeating: "x", count: 3000), "InitiatorAlias=" + String(repeating: "N", count: 255))
        #expect(login([writer.request(1, to: 3, names + long).bytes()]).0.outcome != nil)
        let full = names + [UInt8](repeating: 0, count: 8192 - names.count)
        #expect(login([writer.request(1, to: 3, full).bytes()]).0.outcome != nil)
        let sixtyFour = Array(repeating: writer.request(0, continues: true, []).bytes(), count: 63).flatMap { $0 }
        #expect(login([sixtyFour + writer.request(0, to: 3, names).bytes()]).0.outcome != nil)
    }

    @Test("Anything but a Login Request closes the connection without an answer")
    func notLogin() {
        for opcode in UInt8.min...UInt8.max where opcode & 0xbf != 0x03 {
            let (machine, responses, _) = login([TestPDU(opcode, 0x80).bytes()])
            #expect(machine.state == .closed(.notALoginRequest(opcode)))
            #expect(responses.isEmpty)
        }
    }

    @Test("Bytes behind the last request are an error, in the same piece or in a later one")
    func pipelined() {
        let request = writer.request(1, to: 3, names).bytes()
        for pieces in [[request + [1]], [request, [1]]] {
            let (machine, responses, _) = login(pieces)
            #expect(machine.refusal == .initiatorError)
            #expect(responses.count == 1)
        }
    }

    @Test("Answers never outgrow one segment")
    func longestAnswers() {
        let many = (0..<61).map { keys(String(repeating: "a", count: 60) + "\(100 + $0)=1") }.flatMap { $0 }
        let (machine, _, _) = login([writer.request(1, to: 3, names + many).bytes()])
        #expect((machine.outcome?.finalResponse.text.count ?? .max) <= LoginLimits.segment)
    }

    @Test("Mutated logins end in a state, without a trap and without output beyond bounds")
    func mutations() {
        let streams = [
            writer.request(1, to: 3, names + keys("MaxRecvDataSegmentLength=65536", "HeaderDigest=CRC32C,None", "InitialR2T=No")).bytes(),
            writer.request(0, to: 1, names + keys("AuthMethod=None")).bytes() + writer.request(1, to: 3, keys("MaxBurstLength=1024")).bytes(),
            writer.request(0, continues: true, Array(names[..<9])).bytes() + writer.request(0, to: 3, Array(names[9...])).bytes(),
        ]
        var random = Seeded(state: 2)
        for round in 0..<4_000 * fuzzRounds {
            var bytes = streams[round % streams.count]
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            let cut = Int.random(in: 0...bytes.count, using: &random)
            let (_, responses, questions) = login([Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(questions.count <= 1 && responses.count <= 3)
        }
    }
}
