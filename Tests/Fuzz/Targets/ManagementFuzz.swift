import Administration
import Bytes
import ISCSI
import Management
import Model

/// Requests of tgt's protocol, from their bytes to their answers, one after another on a small configuration.
enum ManagementFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        var desk = ManagementDesk()
        while !input.isEmpty {
            let step = input.byte()
            let stream = step & 0x80 != 0 ? raw(&input) : written(step, &input)
            desk.serve(stream, piece: 1 + Int(step & 0x7f) * 32, outcome: step)
        }
    }

    /// Bytes as they come, up to the length of a header and a short text.
    private static func raw(_ input: inout Input) -> [UInt8] { input.take(120 + input.number()) }

    /// A request with a right header.
    private static func written(_ step: UInt8, _ input: inout Input) -> [UInt8] {
        let (mode, operation) = (TgtRequest.Mode.allCases, TgtRequest.Operation.allCases)
        var request = TgtRequest(mode[input.number() % mode.count], operation[input.number() % operation.count])
        request.tid = Int32(Int8(bitPattern: input.byte()))
        let choices = Choices(input.byte())
        request.lun = choices[0] ? UInt64.max : choices[1] ? input.uint64() : UInt64(input.byte())
        if choices[2] { request.sid = UInt64(input.byte()) }
        if choices[3] { request.cid = UInt32(input.byte()) }
        request.force = choices[4]
        request.accountDirection = choices[5] ? .outgoing : .incoming
        request.deviceType = choices[6] ? UInt32(input.byte()) : 0
        if choices[7] { request.lld = input.take(input.number() & 0x3f).filter { $0 != 0 } }
        request.payload = input.take(input.number()).filter { $0 != 0 }
        guard let bytes = request.encoded() else { preconditionFailure("driver and text are short enough") }
        return bytes
    }
}

/// Control with effects that succeed or fail as the input decides.
private struct ManagementDesk {
    private var configuration = Configuration(identitySource: IdentitySource(installation: [UInt8](repeating: 7, count: 16)))
    private var view = RuntimeView()

    /// A target with a disk, a rule and an account; a session at it that has locked the medium.
    init() {
        for (mode, operation, lun, text) in [
            (.portal, .new, 0, "portalOps portal=127.0.0.1:3260,"), (.target, .new, 0, "targetname=iqn.2026-01.test:t"),
            (.logicalUnit, .new, 1, "path=/disk,bstype=rdwr"), (.target, .bind, 0, "initiator-address=ALL"),
            (.account, .new, 0, "user=u,password=p"),
        ] as [(TgtRequest.Mode, TgtRequest.Operation, UInt64, String)] {
            var request = TgtRequest(mode, operation)
            (request.tid, request.lun, request.payload) = (1, lun, Array(text.utf8))
            serve(request, outcome: 0)
        }
        guard let target = TargetID(rawValue: 1), let address = NetworkAddress(parsing: Array("127.0.0.9".utf8)) else { preconditionFailure("values of ours") }
        view.sessions = [
            RuntimeView.Session(
                target: target, tsih: 1, initiatorName: iscsiName("iqn.2026-01.test:a"), initiatorAlias: [0x41, 0x0a, 0x1b, 0xff],
                connections: [RuntimeView.Connection(cid: 0, address: address)])
        ]
        view.logicalUnits[LogicalUnitKey(target: target, lun: 1)] = {
            var condition = RuntimeView.LogicalUnitCondition()
            condition.preventsRemoval = true
            return condition
        }()
        precondition(configuration.targets[target]?.logicalUnits.count == 2 && configuration.portals.count == 1)
    }

    mutating func serve(_ stream: [UInt8], piece: Int, outcome: UInt8) {
        var decoder = TgtRequestDecoder()
        do throws(TgtWireError) {
            for start in stride(from: 0, to: stream.count, by: piece) {
                guard let request = try decoder.feed(stream[start..<min(start + piece, stream.count)].span) else { continue }
                return serve(request, outcome: outcome)
            }
        } catch {}
    }

    private mutating func serve(_ request: TgtRequest, outcome: UInt8) {
        var plan = Administrator.plan(request, configuration, view)
        while case .perform(let effect, let continuation) = plan {
            plan = Administrator.resume(continuation, carryOut(effect, outcome), configuration)
        }
        switch plan {
        case .answer(let answer), .stop(let answer): check(answer)
        case .commit(let new, _, let answer):
            check(answer)
            configuration = new
            for target in new.sortedTargets {
                for unit in target.sortedLogicalUnits {
                    do throws(ConfigurationError) { _ = try new.settings(unit.key) } catch { preconditionFailure("what is configured can be served: \(error)") }
                }
            }
        case .perform: preconditionFailure("every effect is carried out")
        }
    }

    private func carryOut(_ effect: Effect, _ choice: UInt8) -> EffectOutcome {
        if choice & 3 == 3 { return .failed(.invalidRequest, "it failed") }
        switch effect {
        case .openStore(let request):
            let size: UInt64 = choice & 4 == 0 ? 1 << 20 : choice & 8 == 0 ? 0 : .max
            return .opened(StoreFacts(byteCount: size, isWritable: !request.readOnly, physicalBlockLength: 4096))
        case .listen(let portal): return .listening(portal.port == 0 ? Portal(address: portal.address, port: 40000) : portal)
        case .withdrawLogicalUnit(let key):
            precondition((0..<Model.Limits.logicalUnits).contains(key.lun), "the door's messages have 16 bits for it")
            return .done
        case .withdrawTarget, .endConnection, .close: return .done
        }
    }

    /// What goes to a terminal and into the log is text without control characters, whatever was asked.
    private func check(_ answer: Answer) {
        precondition(answer.response.text.allSatisfy { $0 == 0x0a || $0 >= 0x20 && $0 != 0x7f })
        precondition(answer.reason?.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f } ?? true)
        var decoder = TgtResponseDecoder()
        do throws(TgtWireError) {
            let again = try decoder.feed(answer.response.encoded().span)
            precondition(again == answer.response)
        } catch { preconditionFailure("tgtadm understands the answer: \(error)") }
    }
}
