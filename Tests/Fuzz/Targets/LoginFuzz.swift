import Bytes
import Door
import ISCSI

/// How control answers the question of a login.
struct LoginPolicy {
    let answer: LoginAnswer
    /// What control says to a response.
    let judgement: LoginAnswer
    let offered: SessionParameters

    init(_ choice: UInt8) {
        var offered = SessionParameters()
        func set(_ name: String, _ value: String) {
            do throws(SessionParameters.ParameterError) { try offered.set(name: name.utf8, value: value.utf8) } catch {
                preconditionFailure("\(name)=\(value) is a value of ours")
            }
        }
        if choice & 1 != 0 {
            set("HeaderDigest", "CRC32C")
            set("DataDigest", "None,CRC32C")
        }
        if choice & 2 != 0 {
            set("InitialR2T", "Yes")
            set("ImmediateData", "No")
            set("FirstBurstLength", "512")
            set("MaxBurstLength", "1024")
            set("MaxOutstandingR2T", "4")
        }
        self.offered = offered
        let demand = CHAPDemand(algorithms: choice & 0x40 == 0 ? Set(CHAPAlgorithm.allCases) : [.sha1, .sha256], identifier: choice, challenge: [1, 2, 3])
        answer =
            choice & 0x0c == 0x0c
            ? .refuse(.notFound)
            : .proceed(parameters: offered, portalGroupTag: 1, authentication: choice & 0x10 == 0 ? .none : .chap(demand))
        judgement =
            choice & 0x20 == 0
            ? .authenticated(parameters: offered, proof: choice & 0x80 == 0 ? nil : CHAPProof(name: [0x74], response: [1, 2])) : .refuse(.authenticationFailure)
    }
}

/// One login with whoever plays control.
struct LoginRun: Equatable {
    var machine = LoginMachine()
    private(set) var output: [UInt8] = []
    private(set) var isOver = false

    static func == (one: LoginRun, other: LoginRun) -> Bool {
        one.output == other.output && one.machine.state == other.machine.state && one.isOver == other.isOver
    }

    /// Hands `bytes` in; questions are answered as they come.
    mutating func feed(_ bytes: ArraySlice<UInt8>, _ policy: LoginPolicy) {
        var rest = bytes
        while !isOver {
            let used = machine.receive(Array(rest).span)
            rest = rest.dropFirst(used)
            output += machine.takeOutput()
            switch machine.state {
            case .needsInput:
                precondition(rest.isEmpty, "what it needs it takes")
                return
            case .asks:
                machine.answer(policy.answer)
                output += machine.takeOutput()
            case .proves(let answer):
                DoorFuzz.passes(LoginQuestionMessage.authenticate(ConnectionID(rawValue: 1), answer))
                machine.answer(policy.judgement)
                output += machine.takeOutput()
            case .succeeded(let outcome), .discovery(let outcome):
                check(outcome, policy)
                if rest.isEmpty { return }
            case .failed, .closed: isOver = true
            }
        }
    }

    /// What comes out of a login is what control and the door let pass.
    private func check(_ outcome: LoginOutcome, _ policy: LoginPolicy) {
        if case .proceed(_, _, .chap) = policy.answer, case .refuse = policy.judgement { preconditionFailure("nobody comes in who has proved nothing") }
        // Most keys mean nothing in a discovery session, which control does not grant.
        precondition(outcome.identity.sessionType == .discovery || outcome.negotiated.isWithin(policy.offered), "no more than was offered")
        precondition(outcome.finalResponseBytes(tsih: 1).count <= PDULength.header + LoginLimits.segment)
        precondition(outcome.refusalBytes(.outOfResources).count == PDULength.header)
        DoorFuzz.passes(LoginQuestionMessage.begin(ConnectionID(rawValue: 1), outcome.identity, LoginChannel(portal: 1)))
        DoorFuzz.passes(LoginQuestionMessage.finish(ConnectionID(rawValue: 1), outcome))
    }
}

enum PDULength { static let header = 48 }

/// A stream of PDUs before the login is over: the same at every split.
enum LoginFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let policy = LoginPolicy(input.byte())
        let piece = 1 + input.number()
        let stream = input.rest()
        var whole = LoginRun()
        whole.feed(stream[...], policy)
        var split = LoginRun()
        for start in stride(from: 0, to: stream.count, by: piece) { split.feed(stream[start..<min(start + piece, stream.count)], policy) }
        precondition(whole == split, "a login is the same at every split of its bytes")
    }
}

/// The text of a login, in Login Requests that are otherwise right: each of them up to a byte ff, its first byte the flags.
enum LoginTextFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let policy = LoginPolicy(input.byte())
        let first = Choices(input.byte())
        var login = LoginRun()
        var stage: UInt8 = first[0] ? 1 : 0
        var isFirst = true
        for request in input.rest().split(separator: 0xff, omittingEmptySubsequences: false) where !login.isOver {
            let flags = Choices(request.first ?? 0)
            var text = Array(request.dropFirst())
            if isFirst, !first[1] {
                text = Array("InitiatorName=iqn.2026-01.test:a\0".utf8) + (first[2] ? "SessionType=Discovery\0".utf8 : "TargetName=iqn.2026-01.test:t\0".utf8) + text
            }
            isFirst = false
            var header = [UInt8](repeating: 0, count: PDULength.header)
            header[0] = 0x43
            header[1] = stage << 2 | (flags[0] ? 0x80 | (flags[1] || stage == 1 ? 3 : 1) : 0) | (flags[2] ? 0x40 : 0)
            (header[6], header[7]) = (UInt8(truncatingIfNeeded: text.count >> 8), UInt8(truncatingIfNeeded: text.count))
            let answered = login.output.count
            login.feed((header + text + [UInt8](repeating: 0, count: (4 - text.count % 4) % 4))[...], policy)
            let answer = login.output.dropFirst(answered)
            if answer.count >= PDULength.header, answer[answer.startIndex + 1] & 0x80 != 0 { stage = answer[answer.startIndex + 1] & 3 }
        }
    }
}
