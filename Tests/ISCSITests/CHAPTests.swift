import Testing
@testable import ISCSI

private let usualDemand = CHAPDemand(algorithms: Set(CHAPAlgorithm.allCases), identifier: 7, challenge: [0xab, 0x01, 0xff])
private let demandText = ["CHAP_I=7", "CHAP_C=0xab01ff"]

private func hexadecimal(_ count: Int) -> String { "0x" + String(repeating: "5a", count: count) }

/// The text of RFC 4648 §4, without padding.
private func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    let bits = bytes.flatMap { byte in (0..<8).map { byte >> (7 - $0) & 1 } }
    return String(stride(from: 0, to: bits.count, by: 6).map { start in
        digits[(0..<6).reduce(0) { $0 << 1 | (start + $1 < bits.count ? Int(bits[start + $1]) : 0) }]
    })
}

/// A login with CHAP: what the machine says, what it asks, and how it ends.
private struct Exchange {
    var machine = LoginMachine()
    var responses: [TestPDU] = []
    var answers: [CHAPAnswer] = []
    let demand: CHAPDemand
    let judgement: LoginAnswer
    var parameters = SessionParameters()

    init(_ demand: CHAPDemand = usualDemand, judgement: LoginAnswer = .authenticated(parameters: SessionParameters(), proof: nil)) {
        self.demand = demand
        self.judgement = judgement
    }

    mutating func feed(_ bytes: [UInt8]) {
        var rest = bytes[...]
        var output: [UInt8] = []
        while true {
            let count = machine.receive(Array(rest).span)
            rest = rest.dropFirst(count)
            output += machine.takeOutput()
            switch machine.state {
            case .asks: machine.answer(.proceed(parameters: parameters, portalGroupTag: 1, authentication: .chap(demand)))
            case .proves(let answer):
                answers.append(answer)
                machine.answer(judgement)
            default:
                responses += TestPDU.parse(output)
                return
            }
            output += machine.takeOutput()
        }
    }

    /// Requests in the security stage, the last one with the T bit.
    mutating func secure(_ texts: [[String]]) {
        for (index, text) in texts.enumerated() where machine.refusal == nil {
            feed(LoginWriter().request(0, to: index == texts.count - 1 ? 1 : nil, (index == 0 ? names : []) + text.flatMap { keys($0) }).bytes())
        }
    }

    mutating func operate() { feed(LoginWriter().request(1, to: 3, []).bytes()) }
}

@Suite struct CHAPTests {
    private let response = ["CHAP_N=user", "CHAP_R=\(hexadecimal(32))"]

    @Test("A login with CHAP, at every split")
    func everySplitOfALogin() {
        let writer = LoginWriter()
        let bytes =
            writer.request(0, names + keys("AuthMethod=CHAP,None")).bytes() + writer.request(0, keys("CHAP_A=5,8")).bytes()
            + writer.request(0, to: 1, response.flatMap { keys($0) }).bytes() + writer.request(1, to: 3, keys("MaxBurstLength=4096")).bytes()
        everySplit(bytes) { pieces in
            var exchange = Exchange()
            for piece in pieces { exchange.feed(piece) }
            #expect(exchange.responses.map(\.text) == [["AuthMethod=CHAP", "TargetPortalGroupTag=1"], ["CHAP_A=8"] + demandText, []])
            #expect(exchange.responses.map(\.flags) == [0, 0, 0x81])
            #expect(exchange.answers == [
                CHAPAnswer(algorithm: .sha3_256, name: Array("user".utf8), response: [UInt8](repeating: 0x5a, count: 32), counterdemand: nil)
            ])
            #expect(exchange.machine.outcome?.negotiated.maxBurstLength == 4096)
        }
    }

    @Test("Of the algorithms that both sides allow it is the strongest, whatever the order", arguments: 0..<16)
    func strongest(allowed bits: Int) {
        let allowed = Set(CHAPAlgorithm.allCases.enumerated().filter { bits >> $0.offset & 1 == 1 }.map(\.element))
        let offers = ["5", "6", "7", "8", "0x7", "1", "x", "5,5", "256"]
        for first in offers {
            for second in offers {
                for third in offers {
                    let offered: Set<CHAPAlgorithm> = Set([first, second, third].compactMap { offer in
                        switch offer {
                        case "5", "5,5": .md5
                        case "6": .sha1
                        case "7", "0x7": .sha256
                        case "8": .sha3_256
                        default: nil
                        }
                    })
                    var exchange = Exchange(CHAPDemand(algorithms: allowed, identifier: 7, challenge: [0xab, 0x01, 0xff]))
                    exchange.secure([["AuthMethod=CHAP"], ["CHAP_A=\(first),\(second),\(third)"], []])
                    if let best = allowed.intersection(offered).max() {
                        #expect(exchange.responses[1].text == ["CHAP_A=\(best.rawValue)"] + demandText)
                    } else {
                        #expect(exchange.machine.refusal == .authenticationFailure)
                    }
                }
            }
        }
    }

    @Test("A response of any other length than its algorithm's is a wrong one, in hexadecimal, base64 and base64 without padding", arguments: CHAPAlgorithm.allCases)
    func lengths(of algorithm: CHAPAlgorithm) {
        for count in 0...4 * algorithm.responseLength {
            let bytes = [UInt8](repeating: 0x5a, count: count)
            let unpadded = base64(bytes)
            let padded = unpadded + String(repeating: "=", count: (4 - unpadded.count % 4) % 4)
            for spelling in [hexadecimal(count), "0X" + hexadecimal(count).dropFirst(2), "0b" + padded, "0B" + unpadded] {
                var exchange = Exchange()
                exchange.secure([["AuthMethod=CHAP"], ["CHAP_A=\(algorithm.rawValue)"], ["CHAP_N=u", "CHAP_R=\(spelling)"]])
                if count == algorithm.responseLength {
                    #expect(exchange.answers.map(\.response) == [bytes], "\(spelling)")
                    #expect(exchange.machine.refusal == nil)
                } else {
                    #expect(exchange.answers.isEmpty, "\(spelling)")
                    #expect(exchange.machine.refusal == .authenticationFailure)
                }
            }
        }
    }

    @Test("Binary values", arguments: [
        ("0x0", [0]), ("0xF", [15]), ("0xaBc", [0x0a, 0xbc]), ("0X00", [0]), ("0bAA", [0]), ("0bAA==", [0]), ("0B/+8=", [0xff, 0xef]), ("0b/+8", [0xff, 0xef]),
        ("0bAQID", [1, 2, 3]), ("", nil), ("0", nil), ("0x", nil), ("0b", nil), ("12", nil), ("x12", nil), ("0xg0", nil), ("0x 1", nil), ("0b=", nil), ("0bA", nil),
        ("0bA===", nil), ("0bAA=", nil), ("0bAA===", nil), ("0bAB==", nil), ("0bAAA=A", nil), ("0bAAAA=", nil), ("0b-_8", nil), ("0o17", nil),
    ] as [(String, [UInt8]?)])
    func binary(text: String, value: [UInt8]?) { #expect(BinaryValue.decode(Array(text.utf8)[...]) == value) }

    @Test("A binary value has at most 1024 bytes")
    func longest() {
        for count in 1023...1025 {
            let fits = count <= 1024
            #expect((BinaryValue.decode(Array(hexadecimal(count).utf8)[...]) != nil) == fits)
            #expect((BinaryValue.decode(Array("0b\(base64([UInt8](repeating: 1, count: count)))".utf8)[...]) != nil) == fits)
            var exchange = Exchange()
            exchange.secure([["AuthMethod=CHAP"], ["CHAP_A=7"], response + ["CHAP_I=0xff", "CHAP_C=\(hexadecimal(count))"]])
            #expect(exchange.answers.first?.counterdemand?.challenge.count == (fits ? 1024 - (1024 - count) : nil))
            #expect((exchange.machine.refusal == nil) == fits)
        }
        #expect(BinaryValue.decode(BinaryValue.hexadecimal([0, 1, 0xfe])[...]) == [0, 1, 0xfe])
    }

    @Test("Whoever wants the target's proof gets it with the answer that lets it in")
    func mutual() {
        var exchange = Exchange(judgement: .authenticated(parameters: SessionParameters(), proof: CHAPProof(name: Array("target".utf8), response: [0xde, 0xad])))
        exchange.secure([["AuthMethod=CHAP"], ["CHAP_A=7"], response + ["CHAP_I=200", "CHAP_C=0bAQID"]])
        #expect(exchange.answers.map(\.counterdemand) == [CHAPAnswer.Counterdemand(identifier: 200, challenge: [1, 2, 3])])
        #expect(exchange.responses.last?.text == ["CHAP_N=target", "CHAP_R=0xdead"])
        #expect(exchange.responses.last?.flags == 0x81)
        exchange.operate()
        #expect(exchange.machine.outcome != nil)
    }

    @Test("A wrong response ends the login")
    func wrong() {
        var exchange = Exchange(judgement: .refuse(.authenticationFailure))
        exchange.secure([["AuthMethod=CHAP"], ["CHAP_A=7"], response])
        #expect(exchange.machine.refusal == .authenticationFailure)
        #expect(exchange.responses.last.map { u16($0.header, 36) } == 0x0201)
    }

    @Test("Whoever would go on before it has proved itself stays where it is")
    func hasty() {
        var exchange = Exchange()
        exchange.feed(LoginWriter().request(0, to: 3, names + keys("AuthMethod=CHAP")).bytes())
        exchange.feed(LoginWriter().request(0, to: 1, keys("CHAP_A=7")).bytes())
        #expect(exchange.responses.map(\.flags) == [0, 0])
        exchange.feed(LoginWriter().request(0, to: 3, response.flatMap { keys($0) }).bytes())
        #expect(exchange.machine.outcome?.finalResponse.currentStage == 0)
    }

    /// The texts of the security stage, and what comes of them.
    static let breaches: [(String, [[String]], LoginStatus)] = [
        ("no method", [[]], .authenticationFailure),
        ("the method None", [["AuthMethod=None"]], .authenticationFailure),
        ("an unknown method", [["AuthMethod=KRB5,chap"], []], .authenticationFailure),
        ("an empty method", [["AuthMethod="], []], .authenticationFailure),
        ("the method twice in a text", [["AuthMethod=CHAP", "AuthMethod=CHAP"], []], .initiatorError),
        ("the method twice", [["AuthMethod=CHAP"], ["AuthMethod=CHAP"], []], .initiatorError),
        ("algorithms before the method", [["CHAP_A=5"], []], .initiatorError),
        ("algorithms with the method", [["AuthMethod=CHAP", "CHAP_A=5"], []], .initiatorError),
        ("a response before the algorithm", [["AuthMethod=CHAP"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))"], []], .initiatorError),
        ("a name alone", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u"], []], .initiatorError),
        ("a response alone", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_R=\(hexadecimal(16))"], []], .initiatorError),
        ("an empty name", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=", "CHAP_R=\(hexadecimal(16))"], []], .authenticationFailure),
        ("a name of 256 bytes", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=\(String(repeating: "u", count: 256))", "CHAP_R=\(hexadecimal(16))"], []], .initiatorError),
        ("an identifier alone", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))", "CHAP_I=1"], []], .initiatorError),
        ("a challenge alone", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))", "CHAP_C=0x1"], []], .initiatorError),
        ("an identifier of 256", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))", "CHAP_I=256", "CHAP_C=0x1"], []], .authenticationFailure),
        ("an empty challenge", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))", "CHAP_I=1", "CHAP_C=0x"], []], .authenticationFailure),
        ("a key that asks about the target", [["AuthMethod=CHAP", "MaxBurstLength=512"], []], .initiatorError),
        ("a second response", [["AuthMethod=CHAP"], ["CHAP_A=5"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))"], ["CHAP_N=u", "CHAP_R=\(hexadecimal(16))"], []], .initiatorError),
    ]

    @Test("What is no CHAP is refused", arguments: breaches)
    func breach(what: String, texts: [[String]], status: LoginStatus) {
        var exchange = Exchange()
        for (index, text) in texts.enumerated() where exchange.machine.refusal == nil {
            let last = index == texts.count - 1
            exchange.feed(LoginWriter().request(0, to: last ? 1 : nil, (index == 0 ? names : []) + text.flatMap { keys($0) }).bytes())
        }
        #expect(exchange.machine.refusal == status)
        #expect(exchange.machine.outcome == nil)
    }

    @Test("The operational stage is closed to who has proved nothing")
    func operational() {
        for text in [[], keys("AuthMethod=CHAP"), keys("MaxBurstLength=512")] {
            var exchange = Exchange()
            exchange.feed(LoginWriter().request(1, to: 3, names + text).bytes())
            #expect(exchange.machine.refusal == (text == keys("AuthMethod=CHAP") ? .initiatorError : .authenticationFailure))
        }
    }

    @Test("CHAP is no use where nothing is demanded")
    func notDemanded() {
        let (machine, _, _) = login([LoginWriter().request(0, names + keys("AuthMethod=CHAP,None")).bytes(), LoginWriter().request(0, to: 1, keys("CHAP_A=5")).bytes()])
        #expect(machine.refusal == .initiatorError)
    }
}
