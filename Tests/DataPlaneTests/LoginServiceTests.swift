import Door
import ISCSI
import Logging
import Reactor
import Testing

@testable import DataPlane

/// A login process in this one, with the test at control's end of its door, and a portal in clear.
private final class LoginRig {
    private let door: PlainDoor<LoginQuestionMessage, LoginAnswerMessage>
    private let thread: WorkerThread
    let address: SocketAddress

    init() throws {
        var theirs: FileDescriptor?
        door = PlainDoor(try Socket.messagePair().split(&theirs))
        guard let end = theirs.take() else { throw Missing("a pair has two ends") }
        let number = end.release()
        thread = try WorkerThread(name: "login") {
            do {
                let loop = try EventLoop()
                let log = Logger(label: "login") { _ in SwiftLogNoOpLogHandler() }
                let service = try LoginService(
                    loop: loop, door: FileDescriptor(owning: number), options: LoginOptions(connections: 100, connectionsPerSource: 100), log: log)
                loop.run()
                withExtendedLifetime(service) {}
            } catch { preconditionFailure("no login process: \(error)") }
        }
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        address = try #require(try Socket.localAddress(listener.rawValue))
        try say(.setOnline(true))
        try say(.listen(portal: 1), passing: listener.rawValue)
    }

    func say(_ message: LoginAnswerMessage, passing descriptor: Int32? = nil) throws {
        guard door.send(message, passing: descriptor) else { throw Missing("the door takes nothing") }
    }

    func question() throws -> LoginQuestionMessage {
        guard let question = try door.next(within: Rig.patience) else { throw Missing("nothing is asked") }
        return question
    }

    func asksAnything() throws -> Bool { try door.next(within: 100_000_000) != nil }

    /// The connection that came with the last question.
    func connection() -> FileDescriptor? { door.descriptors.take() }

    func connect() throws -> Client { Client(try Socket.connect(to: address)) }

    /// Asked to begin; the connection's number.
    func begun() throws -> ConnectionID {
        guard case .begin(let id, _, _) = try question() else { throw Missing("another question") }
        return id
    }

    func proceed(_ id: ConnectionID) throws { try say(.proceed(id, SessionParameters(), portalGroupTag: 1, .none)) }

    /// A client that has negotiated: what it waits for is the answer to its last request.
    func negotiate() throws -> Client {
        let client = try connect()
        client.send(Self.first)
        try proceed(try begun())
        #expect(client.loginStatus() == 0)
        client.send(Self.second)
        return client
    }

    /// A Login Request of the first stage, and one of the second.
    static let (first, second) = (
        request(flags: 0x81, "InitiatorName=iqn.i\0TargetName=iqn.t\0SessionType=Normal\0AuthMethod=None\0"), request(flags: 0x87, "InitialR2T=No\0ImmediateData=Yes\0"))

    private static func request(flags: UInt8, _ text: String) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 48) + Array(text.utf8)
        bytes[0] = 0x43
        bytes[1] = flags
        bytes[7] = UInt8(text.utf8.count)
        bytes[8] = 0x80
        while bytes.count % 4 != 0 { bytes.append(0) }
        return bytes
    }
}

@Suite struct LoginServiceTests {
    @Test("Who has negotiated is given up with the question: whoever answers has the only end of the connection")
    func givesUp() throws {
        let rig = try LoginRig()
        let client = try rig.negotiate()
        guard case .finish(_, let outcome) = try rig.question(), let connection = rig.connection() else { throw Missing("it is not finished") }
        #expect(outcome.identity.initiatorName == name("iqn.i"))
        var sent = 0
        _ = Socket.send(connection.rawValue, outcome.finalResponseBytes(tsih: 7), from: &sent)
        #expect(client.pdu()?[15] == 7)
        Socket.finishSending(connection.rawValue)
        #expect(client.ends())
        #expect(try !rig.asksAnything(), "it has nothing to say of it any more")
    }

    @Test("Who is refused at the last moment hears so, and then the end")
    func turnsAway() throws {
        let rig = try LoginRig()
        let client = try rig.negotiate()
        guard case .finish(_, let outcome) = try rig.question(), let connection = rig.connection() else { throw Missing("it is not finished") }
        try rig.say(.turnAway(outcome.refusalBytes(.outOfResources)), passing: connection.rawValue)
        _ = consume connection
        #expect(client.loginStatus() == LoginStatus.outOfResources.rawValue)
        #expect(client.ends())
    }

    @Test("Who sends all at once is answered in order, before the connection goes on to whoever serves it")
    func early() throws {
        let rig = try LoginRig()
        let client = try rig.connect()
        client.send(LoginRig.first + LoginRig.second)
        try rig.proceed(try rig.begun())
        guard case .finish(_, let outcome) = try rig.question(), let connection = rig.connection() else { throw Missing("it is not finished") }
        var sent = 0
        _ = Socket.send(connection.rawValue, outcome.finalResponseBytes(tsih: 7), from: &sent)
        // The first answer has no TSIH, and its own stage.
        #expect(client.pdu().map { [$0[1], $0[15]] } == [0x81, 0])
        #expect(client.pdu().map { [$0[1], $0[15]] } == [0x87, 7])
    }

    @Test("Who sends before it is answered is not read meanwhile, keeps nobody busy, and is answered afterwards")
    func impatient() throws {
        let rig = try LoginRig()
        let client = try rig.connect()
        client.send(LoginRig.first)
        let id = try rig.begun()
        client.send(LoginRig.second)
        #expect(try !rig.asksAnything())
        // Another one is served.
        let other = try rig.connect()
        other.send(LoginRig.first)
        let second = try rig.begun()
        try rig.proceed(second)
        #expect(other.loginStatus() == 0)
        try rig.proceed(id)
        #expect(client.loginStatus() == 0)
        guard case .finish(id, _) = try rig.question() else { throw Missing("it is not finished") }
    }

    @Test("Who goes while control is asked is known to be gone")
    func gone() throws {
        let rig = try LoginRig()
        let client = try rig.connect()
        client.send(LoginRig.first)
        let id = try rig.begun()
        client.reset()
        guard case .gone(id) = try rig.question() else { throw Missing("another question") }
    }
}
