import Bytes
import Crypto
import ISCSI
import Reactor
import SCSI
import TLS
import Testing

@testable import Door

private func name(_ text: String) -> ISCSIName {
    guard let name = try? ISCSIName(text.utf8) else { preconditionFailure("a test's name is a name") }
    return name
}

private let question = LoginQuestion(
    initiatorName: name("iqn.2000-01.test:Ini"), initiatorAlias: [0x41, 0x0a], sessionType: .normal, targetName: name("iqn.t:1"),
    isid: ISID(rawValue: 0x80_1234_5678_9a), tsih: 3, cid: 4)
private let outcome = LoginOutcome(
    identity: question, negotiated: NegotiatedParameters(), expCmdSN: 7, statSN: 9,
    finalResponse: FinalLoginResponse(currentStage: 1, initiatorTaskTag: 11, statSN: 8, text: Array("A=b\0".utf8)))
private let settings: LogicalUnitSettings = {
    var settings = LogicalUnitSettings(disk: 1000, blockLength: 4096, scsiID: "id", serialNumber: "sn", naa: [0x60, 1, 2])
    settings.modePages = [.init(page: 8, subpage: 0, data: [1, 2, 3])]
    settings.isThinProvisioned = true
    settings.keepsReservations = true
    return settings
}()
private let record = UnitRecord(
    revision: 5,
    reservations: PersistentReservations(
        generation: 6, registrations: [.init(initiator: InitiatorPort(name: Array("iqn.a".utf8), isid: 1), relativeTargetPort: 1, key: 99)],
        kind: .writeExclusiveRegistrantsOnly, holder: 0, outlivesPowerLoss: true),
    flushFailed: true)
private let store = StoreDescription(kind: .file, length: 1 << 20, isSynchronous: true, isDirect: false, isReadOnly: true)
private let targets = (0..<DoorLimits.discoveredTargets).map { index in
    DiscoveredTarget(
        name: name(String(repeating: "n", count: 220) + "\(index)"),
        addresses: Array(repeating: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", count: DoorLimits.discoveredAddresses), portalGroupTag: 1)
}
private let connection = ConnectionID(rawValue: 77)
private let request = RequestID(rawValue: 78)

/// Every number different, so that none is taken for another.
private let activity: NexusActivity = {
    var activity = NexusActivity()
    activity.readSubmitted = .init(bytes: 1, commands: 2)
    activity.readDone = .init(bytes: 3, commands: 4)
    activity.writeSubmitted = .init(bytes: 5, commands: 6)
    activity.writeDone = .init(bytes: 7, commands: 8)
    activity.errors = 9
    return activity
}()
private let traffic: Traffic = {
    var traffic = Traffic()
    traffic.receivedOctets = 10
    traffic.sentOctets = 11
    traffic.receivedPDUs = 12
    traffic.sentPDUs = 13
    traffic.dataOutPDUs = 14
    traffic.dataInPDUs = 15
    traffic.commandPDUs = 16
    traffic.responsePDUs = 17
    return traffic
}()
private let findings: [SurveyEntry] = [
    .logicalUnit(tid: 1, lun: 2, UnitCondition(preventsRemoval: true)), .logicalUnit(tid: 1, lun: 3, UnitCondition(isSoftwareWriteProtected: true)),
    .logicalUnit(tid: 1, lun: 4, UnitCondition(flushFailed: true)), .connection(tsih: 5, cid: 6, traffic),
]

/// As long as they get.
private let somebody = TLSPeer(
    identity: .certificate(
        fingerprint: [UInt8](repeating: 1, count: 32), uris: [[UInt8]](repeating: [UInt8](repeating: 0x75, count: 255), count: 8),
        subject: [UInt8](repeating: 0x73, count: 512), notAfter: -1),
    version: .tls13, cipher: "TLS_AES_256_GCM_SHA384", usesKernelTLS: true)
private let keyHolder = TLSPeer(
    identity: .preSharedKey(identity: [UInt8](repeating: 0x69, count: 128)), version: .tls13, cipher: "TLS_AES_128_GCM_SHA256", usesKernelTLS: false)

/// One of every message, the largest of its kind where there is a limit.
private let loginQuestions: [LoginQuestionMessage] = [
    .begin(connection, question, LoginChannel(portal: 1)), .begin(connection, question, LoginChannel(portal: 2, peer: somebody)),
    .begin(connection, question, LoginChannel(portal: 2, peer: keyHolder)), .finish(connection, outcome), .sendTargets(connection, .name(name("t"))), .sendTargets(connection, .all),
    .gone(connection), .heartbeat(1, refused: 2), .failed(.unfinished), .failed(.nonsense), .failed(.tlsInClear),
    .sign(request, portal: 2, .ed25519, [UInt8](repeating: 0x20, count: 200)), .preSharedKey(request, portal: 2, identity: Array("host-1".utf8)),
    .handshakeFailed(portal: 2, .certificate, String(repeating: "r", count: 512), from: Source(SocketAddress("192.0.2.1:9")!)),
    .authenticate(
        connection,
        CHAPAnswer(
            algorithm: .sha256, name: [UInt8](repeating: 0x61, count: 255), response: [UInt8](repeating: 1, count: 32),
            counterdemand: CHAPAnswer.Counterdemand(identifier: 1, challenge: [UInt8](repeating: 2, count: 1024)))),
    .authenticate(connection, CHAPAnswer(algorithm: .md5, name: [0], response: [UInt8](repeating: 1, count: 16), counterdemand: nil)),
]
private let loginAnswers: [LoginAnswerMessage] = [
    .secure(portal: 2, [UInt8](repeating: 7, count: 64 << 10), isLast: false), .secure(portal: 2, [], isLast: true), .signed(request, nil),
    .signed(request, [UInt8](repeating: 8, count: 104)), .preSharedKey(request, nil), .preSharedKey(request, Secret([UInt8](repeating: 9, count: 64))),
    .listen(portal: 1), .stopListening(portal: 1), .setOnline(true), .proceed(connection, SessionParameters(), portalGroupTag: 1, .none),
    .proceed(connection, SessionParameters(), portalGroupTag: 1, .chap(CHAPDemand(algorithms: [.md5, .sha3_256], identifier: 9, challenge: [1, 2]))),
    .authenticated(connection, SessionParameters(), nil), .drop(connection),
    .keepOut(Source(SocketAddress("192.0.2.1:1")!), milliseconds: 5), .keepOut(Source(SocketAddress("[2001:db8::1]:1")!), milliseconds: .max),
    .authenticated(connection, SessionParameters(), CHAPProof(name: Array("target".utf8), response: [UInt8](repeating: 3, count: 32))),
    .refuse(connection, .notFound), .turnAway([UInt8](repeating: 3, count: 48)), .targets(connection, targets, isLast: false), .heartbeat(2),
]
private let dataOrders: [DataOrderMessage] = [
    .addTarget(request, tid: 1, name: name("t")), .removeTarget(request, tid: 1, force: true),
    .addLogicalUnit(request, tid: 1, lun: 2, settings, store, record), .updateLogicalUnit(request, tid: 1, lun: 2, settings, nil, forgetsFailedFlush: true),
    .updateLogicalUnit(request, tid: 1, lun: 2, settings, store, forgetsFailedFlush: false), .tryStore(request, store), .removeLogicalUnit(request, tid: 1, lun: 2, force: false),
    .grant(SessionGrant(tid: 1, tsih: 2, number: 3, outcome: outcome, nopInterval: 5, nopCount: 6)),
    .endSession(request, tsih: 2), .targets(request, targets, isLast: true), .kept(tid: 1, lun: 2, revision: 3, isKept: true), .heartbeat(3),
    .openLoginDoor, .grantHere(connection, SessionGrant(tid: 1, tsih: 2, number: 3, outcome: outcome, nopInterval: 5, nopCount: 6)),
    .survey(request), .setMask(request, tsih: 2, grant: 3, .all), .setMask(request, tsih: 2, grant: 3, LUNMask([LUNMask.Run]())!),
    // As long as two rules can make it.
    .setMask(request, tsih: 2, grant: 3, LUNMask((0..<2 * UInt16(LUNMask.mostRuns)).map { LUNMask.Run(2 * $0...2 * $0, .read) })!),
    .grant(SessionGrant(
        tid: 1, tsih: 2, outcome: outcome, nopInterval: 5, nopCount: 6, mask: LUNMask([LUNMask.Run(0...3, .read), LUNMask.Run(5...9, .write)])!)),
]
private let dataReports: [DataReportMessage] = [
    .done(request), .refused(request, .targetActive), .sessionBegan(tsih: 2, grant: 3), .sessionEnded(tsih: 2, grant: 3, .loggedOut), .keep(tid: 1, lun: 2, record),
    .sendTargets(request, tsih: 2, .sessionTarget), .heartbeat(4), .survey(request, findings, isLast: false),
    .survey(request, Array(repeating: .nexus(tsih: 7, lun: 8, activity), count: DoorLimits.surveyEntries), isLast: true),
]

@Suite struct DoorTests {
    private func check<Message: DoorMessage>(_ messages: [Message]) {
        #expect(Message.table.map { Int($0.code) } == Array(1...Message.table.count), "codes count from 1")
        #expect(Set(messages.map(\.code)) == Set(Message.table.map(\.code)), "every message has its row and its sample")
        for message in messages {
            let bytes = message.encoded()
            let descriptors = message.row.descriptors
            #expect(throws: Never.self) {
                let again = try Message(bytes, descriptors: descriptors.upperBound)
                #expect(again.encoded() == bytes, "\(message.row.name) is the same behind the door")
            }
            // Whatever its last descriptor count permits, one more is refused, and so is one less than it needs.
            #expect(throws: DoorError.wrongDescriptors(message.row.name)) { try Message(bytes, descriptors: descriptors.upperBound + 1) }
            if descriptors.lowerBound > 0 {
                #expect(throws: DoorError.wrongDescriptors(message.row.name)) { try Message(bytes, descriptors: 0) }
            }
            let step = max(1, bytes.count / 400)
            for length in stride(from: 1, to: bytes.count, by: step) {
                #expect(throws: DoorError.self, "\(message.row.name) cut to \(length)") {
                    try Message(Array(bytes.prefix(length)), descriptors: descriptors.upperBound)
                }
            }
            #expect(throws: DoorError.self) { try Message(bytes + [0], descriptors: descriptors.upperBound) }
            #expect(throws: DoorError.tooLong(message.row.name)) {
                try Message([message.code] + [UInt8](repeating: 0, count: message.row.limit), descriptors: descriptors.upperBound)
            }
        }
    }

    @Test("Every message of login passes the door unchanged; cut, lengthened or with other descriptors it does not pass")
    func login() {
        check(loginQuestions)
        check(loginAnswers)
    }

    @Test("Every message of data passes the door unchanged; cut, lengthened or with other descriptors it does not pass")
    func data() {
        check(dataOrders)
        check(dataReports)
    }

    @Test("What a survey has found is the same behind the door")
    func survey() throws {
        let sent = findings + [.nexus(tsih: 7, lun: 8, activity)]
        guard case .survey(request, let found, isLast: true) = try DataReportMessage(
            DataReportMessage.survey(request, sent, isLast: true).encoded(), descriptors: 0)
        else {
            Issue.record("another message")
            return
        }
        #expect(found == sent)
        let tooMany = Array(repeating: SurveyEntry.logicalUnit(tid: 1, lun: 1, UnitCondition()), count: DoorLimits.surveyEntries + 1)
        #expect(throws: DoorError.malformed("survey", .invalid)) {
            try DataReportMessage(DataReportMessage.survey(request, tooMany, isLast: true).encoded(), descriptors: 0)
        }
    }

    @Test("What is said of a store fits its message, also if its path is the longest and no text")
    func opening() throws {
        let path = String(repeating: "\u{fffd}", count: DoorLimits.path)
        let refusal = OpenAnswer.failed("\(path) has \(UInt64.max) bytes, which direct I/O cannot reach to the end: make it a multiple of \(Int.max), or leave out the flag \"direct\"")
        #expect(try OpenAnswer(refusal.encoded(), descriptors: 0) == refusal)
        let longest = [UInt8](repeating: 0xff, count: DoorLimits.path)
        let bytes = StorePlacement.mostBytes / (3 * StorePlacement.most)
        let full = [[UInt8]](repeating: [UInt8](repeating: 0x61, count: bytes), count: StorePlacement.most)
        let places = StorePlacement(directories: full, mapperNames: full, deviceLinks: full)
        for question in [OpenQuestion.store(path: longest, isSynchronous: true, isDirect: true, isReadOnly: true, places: places), .trusted(path: longest, isPrivate: true, limit: .max)] {
            #expect(try OpenQuestion(question.encoded(), descriptors: 0) == question)
        }
        #expect(try OpenAnswer(OpenAnswer.trusted.encoded(), descriptors: 1) == .trusted)
        #expect(throws: DoorError.self) { try OpenAnswer(OpenAnswer.trusted.encoded(), descriptors: 0) }
    }

    @Test("What a portal with TLS presents is the same behind the door, in as many parts as it takes", arguments: [0, 1, 65_536, 200_000])
    func material(length: Int) throws {
        let material = ServerMaterial(
            certificates: Array("-----BEGIN".utf8), clientCA: [UInt8](repeating: 1, count: length), crl: [2], clientAuthentication: .optional,
            takesPreSharedKeys: true, policy: .compatible)
        var parts: [UInt8] = []
        var wasLast = false
        for message in try #require(MaterialParts.messages(portal: 3, material)) {
            guard case .secure(portal: 3, let part, let isLast) = try LoginAnswerMessage(message.encoded(), descriptors: 0) else {
                Issue.record("another message")
                return
            }
            #expect(!wasLast)
            wasLast = isLast
            parts += part
        }
        #expect(wasLast)
        #expect(try MaterialParts.material(parts) == material)
        #expect(throws: ByteReaderError.trailingBytes) { try MaterialParts.material(parts + [0]) }
        #expect(throws: ByteReaderError.truncated) { try MaterialParts.material(Array(parts.dropLast())) }
    }

    @Test("More than a portal may present is not sent")
    func tooMuchMaterial() {
        let material = ServerMaterial(
            certificates: [], clientCA: [], crl: [UInt8](repeating: 0, count: MaterialParts.most), clientAuthentication: .none,
            takesPreSharedKeys: false, policy: .strict)
        #expect(MaterialParts.messages(portal: 1, material) == nil)
    }

    @Test("No message, and one that is not in the table, is refused", arguments: [[], [0], [200], [255, 1, 2]] as [[UInt8]])
    func unknown(bytes: [UInt8]) {
        #expect(throws: DoorError.unknownMessage(bytes.first ?? 0)) { try LoginQuestionMessage(bytes, descriptors: 0) }
        #expect(throws: DoorError.unknownMessage(bytes.first ?? 0)) { try DataReportMessage(bytes, descriptors: 0) }
    }

    @Test("Random bytes never pass as more than they are, and never trap")
    func noise() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 1...200, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
            bytes[0] = UInt8.random(in: 0...16, using: &random)
            for descriptors in 0...1 {
                if let message = try? LoginQuestionMessage(bytes, descriptors: descriptors) { #expect(message.encoded() == bytes) }
                if let message = try? DataReportMessage(bytes, descriptors: descriptors) { #expect(message.encoded() == bytes) }
            }
        }
    }
}

@Suite struct AdministratorDoorTests {
    @Test("What is asked about people, and what is said of them, survives; the longest there is as well") func survives() throws {
        let gids = (0..<UInt32(AdministratorLimits.groups)).map { $0 }
        let name = [UInt8](repeating: 0xff, count: AdministratorLimits.name)
        for question in [AdministratorQuestion.identify(uid: 7, gids: gids), .lookUp(name: name), .check(directory: String(repeating: "d", count: DoorLimits.path), authenticates: true), .check(directory: nil, authenticates: false)] {
            #expect(try AdministratorQuestion(question.encoded(), descriptors: 0) == question)
        }
        let groups = [[UInt8]](repeating: [0x61, 0x62], count: AdministratorLimits.groups)
        let wide = [[UInt8]](repeating: name, count: AdministratorLimits.names / AdministratorLimits.name)
        for answer in [AdministratorAnswer.identified(uid: 7, user: name, gids: gids, groups: groups), .identified(uid: 7, user: nil, gids: gids, groups: wide), .verdict(step: 2, code: -1, wantedConversation: true)] {
            #expect(try AdministratorAnswer(answer.encoded(), descriptors: 0) == answer)
            #expect(throws: DoorError.self) { try AdministratorAnswer(answer.encoded(), descriptors: 1) }
        }
        #expect(throws: DoorError.self) { try AdministratorQuestion(AdministratorQuestion.lookUp(name: []).encoded(), descriptors: 1) }
    }
}
