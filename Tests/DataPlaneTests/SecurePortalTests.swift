import Bytes
import Crypto
import Door
import ISCSI
import Issuing
import Reactor
import SCSI
import Testing

@testable import DataPlane
@testable import TLS

/// Data's end of a door for logins, with the test at control's.
private final class SecureRig {
    let rig: Rig
    private let door: PlainDoor<LoginQuestionMessage, LoginAnswerMessage>
    let address: SocketAddress
    static let portal: UInt32 = 5
    static let key = Secret([UInt8](repeating: 0x5a, count: 32))
    static let identity = Array("host-1".utf8)

    init() throws {
        rig = try Rig()
        var theirs: FileDescriptor?
        door = PlainDoor(try Socket.messagePair().split(&theirs))
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        address = try #require(try Socket.localAddress(listener.rawValue))
        try rig.order(passing: theirs.rawValue, .openLoginDoor)
        try say(.setOnline(true))
        try secure()
        try say(.listen(portal: Self.portal), passing: listener.rawValue)
    }

    /// Tells what the portal takes: pre-shared keys, so that there is no certificate to make; or some authority's certificates.
    func secure(by issuer: Issuer? = nil) throws {
        let material = ServerMaterial(
            certificates: try issuer?.issue("portal", names: "DNS:portal.example").certificate ?? [], clientCA: issuer?.certificate ?? [], crl: [],
            clientAuthentication: .required, takesPreSharedKeys: issuer == nil, policy: .strict)
        for message in try #require(MaterialParts.messages(portal: Self.portal, material)) { try say(message) }
    }

    func say(_ message: LoginAnswerMessage, passing descriptor: Int32? = nil) throws {
        guard door.send(message, passing: descriptor) else { throw Missing("the door takes nothing") }
    }

    func question() throws -> LoginQuestionMessage {
        guard let question = try door.next(within: Rig.patience) else { throw Missing("nothing is asked") }
        return question
    }

    /// Whether something is asked within a moment.
    func asksAnything() throws -> Bool { try door.next(within: 200_000_000) != nil }

    /// A connection whose handshake control has helped with.
    func connect(key: Secret = SecureRig.key, identity: [UInt8] = SecureRig.identity) throws -> Client {
        let socket = try Socket.connect(to: address)
        #expect(Socket.wait(socket.rawValue, .writable, nanoseconds: Rig.patience))
        let context = try ClientContext(.preSharedKey, identity: .preSharedKey(identity: identity, key: key))
        let secure = SecureConnection(connecting: context, descriptor: socket.rawValue)
        try shakeHands(secure) {
            guard Socket.wait(socket.rawValue, .readable, nanoseconds: Rig.patience) else { throw Missing("the handshake stands still") }
        }
        return Client(socket, secure: secure)
    }

    /// Makes a client's handshake.
    /// - Parameter wait: for something to read
    private func shakeHands(_ secure: SecureConnection, wait: () throws -> Void) throws {
        var isAsked = false
        while true {
            switch secure.handshake() {
            case .done: return
            case .failed(let failure): throw failure
            case .wantsOutput: throw Missing("a hello does not fit into a socket")
            case .wantsInput:
                if !isAsked {
                    isAsked = true
                    guard case .preSharedKey(let id, Self.portal, let identity) = try question() else { throw Missing("another question") }
                    try say(.preSharedKey(id, identity == Self.identity ? Self.key : nil))
                }
                try wait()
            }
        }
    }

    /// A client whose records pass through the test's hands: what it sends is carried to the portal when the test says so.
    final class Carried {
        private let wire: Client
        private let client: FileDescriptor
        private let tap: FileDescriptor
        private let secure: SecureConnection
        private let pool = BufferPool(budget: 1 << 20)

        init(_ rig: SecureRig) throws {
            let socket = try Socket.connect(to: rig.address)
            #expect(Socket.wait(socket.rawValue, .writable, nanoseconds: Rig.patience))
            let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
            client = try Socket.connect(to: try #require(try Socket.localAddress(listener.rawValue)))
            guard Socket.wait(listener.rawValue, .readable, nanoseconds: Rig.patience), case .connection(let end, _) = try Socket.accept(listener.rawValue) else {
                throw Missing("nobody connects")
            }
            tap = end
            // What is sent is there at once.
            for socket in [socket.rawValue, client.rawValue, tap.rawValue] { try Socket.setNoDelay(socket) }
            wire = Client(socket)
            let context = try ClientContext(.preSharedKey, identity: .preSharedKey(identity: SecureRig.identity, key: SecureRig.key))
            secure = SecureConnection(connecting: context, descriptor: client.rawValue)
            // Its first flight is there before control is asked.
            guard case .wantsInput = secure.handshake() else { throw Missing("no hello") }
            wire.send(records())
            try rig.shakeHands(secure) { try carryBack() }
            wire.send(records())
        }

        /// What the client has sent since the last time.
        private func records() -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: 1 << 16)
            var all: [UInt8] = []
            while Socket.wait(tap.rawValue, .readable, nanoseconds: 20_000_000), case .received(let count) = Socket.receive(tap.rawValue, into: &bytes, 0..<bytes.count) {
                all += bytes.prefix(count)
            }
            return all
        }

        private func carryBack() throws {
            guard let bytes = wire.some() else { throw Missing("the portal says nothing") }
            var start = 0
            _ = Socket.send(tap.rawValue, bytes, from: &start)
            guard Socket.wait(client.rawValue, .readable, nanoseconds: Rig.patience) else { throw Missing("it does not arrive") }
        }

        /// The records, one for each message.
        func encrypt(_ messages: [[UInt8]]) -> [UInt8] {
            var all: [UInt8] = []
            for (index, message) in messages.enumerated() {
                var queue = OutputQueue(pool: pool)
                queue.append(copying: message.span)
                _ = secure.send(&queue)
                if index % 500 == 499 { all += records() }
            }
            return all + records()
        }

        func carry(_ records: [UInt8]) { wire.send(records) }

        /// Whether the portal sends something, within a time.
        func hears() -> Bool { wire.hearsAnything(within: Rig.patience) }
        func forgetAnswers() { while wire.hearsAnything(within: 50_000_000), wire.some() != nil {} }
    }

    /// Logs in on the connection, as far as control's grant.
    func logIn(_ client: Client, tsih: UInt16, isid: UInt64 = 1) throws {
        client.send(Self.loginRequest(isid: isid))
        guard case .begin(let id, let login, let channel) = try question() else { throw Missing("another question") }
        #expect(login.initiatorName == name("iqn.a") && channel.portal == Self.portal)
        #expect(channel.peer?.identity == .preSharedKey(identity: Self.identity))
        try say(.proceed(id, SessionParameters(), portalGroupTag: 1, .none))
        guard case .finish(id, let outcome) = try question() else { throw Missing("another question") }
        try rig.order(.grantHere(id, SessionGrant(tid: Rig.tid, tsih: tsih, outcome: outcome, nopInterval: 0, nopCount: 0)))
    }

    /// One that asks for everything at once (RFC 7143 §11.12): operational stage, to full-feature phase.
    static func loginRequest(isid: UInt64, _ kind: String = "TargetName=iqn.t\0SessionType=Normal\0") -> [UInt8] {
        let text = Array("InitiatorName=iqn.a\0\(kind)".utf8)
        var header = [UInt8](repeating: 0, count: 48)
        header[0] = 0x43
        header[1] = 0x87
        header[7] = UInt8(text.count)
        for index in 0..<6 { header[8 + index] = UInt8(truncatingIfNeeded: isid >> UInt64(40 - 8 * index)) }
        header[27] = 1
        return header + text + [UInt8](repeating: 0, count: (4 - text.count % 4) % 4)
    }
}

@Suite struct SecurePortalTests {
    @Test("A session logs in, reads and writes through TLS")
    func session() throws {
        let rig = try SecureRig()
        let client = try rig.connect()
        try rig.logIn(client, tsih: 7)
        try client.begin()
        #expect(try rig.rig.news() == (7, nil))
        let data = [UInt8](repeating: 0x5e, count: 512)
        #expect(client.perform(Client.write(3), writes: data) == 0)
        #expect(try rig.rig.bytes("disk", block: 3) == data)
        // Many records in one go, as many commands as the window lets through: each is answered, whatever has left the socket with another.
        for start in stride(from: 0, to: 200, by: 20) {
            for block in start..<start + 20 { client.command(Client.write(UInt8(block)), writes: [UInt8](repeating: UInt8(block), count: 512)) }
            for _ in 0..<20 { try #require(client.pdu()?[3] == 0) }
        }
        #expect(try rig.rig.bytes("disk", block: 199) == [UInt8](repeating: 199, count: 512))
    }

    @Test("An initiator takes fresh keys, and asks for ours, while its commands are under way")
    func freshKeys() throws {
        let rig = try SecureRig()
        let client = try rig.connect()
        try rig.logIn(client, tsih: 7)
        try client.begin()
        let keys = try #require(client.secure)
        for start in stride(from: 0, to: 200, by: 20) {
            for block in start..<start + 20 {
                client.command(Client.write(UInt8(block)), writes: [UInt8](repeating: UInt8(block), count: 512))
                if block % 20 == 5 { keys.takeFreshKey(ofBoth: block % 40 == 5) }
            }
            for _ in 0..<20 { try #require(client.pdu()?[3] == 0) }
        }
        for block in stride(from: 0, to: 200, by: 13) { #expect(try rig.rig.bytes("disk", block: block) == [UInt8](repeating: UInt8(block), count: 512)) }
    }

    @Test("Another session of the same initiator port takes the place of the first, through TLS as in clear")
    func reinstatement() throws {
        let rig = try SecureRig()
        let first = try rig.connect()
        try rig.logIn(first, tsih: 1)
        try first.begin()
        let second = try rig.connect()
        try rig.logIn(second, tsih: 2)
        try second.begin()
        #expect(first.ends())
        #expect(try rig.rig.news() == (1, nil))
        #expect(try rig.rig.news() == (1, .reinstated))
        #expect(try rig.rig.news() == (2, nil))
    }

    @Test("A key that control does not know ends the handshake, and control is told why")
    func unknownKey() throws {
        let rig = try SecureRig()
        #expect(throws: TLSFailure.self) { try rig.connect(identity: Array("host-2".utf8)) }
        guard case .handshakeFailed(portal: SecureRig.portal, let cause, let reason, _) = try rig.question() else { throw Missing("another question") }
        #expect(cause == .preSharedKey && !reason.isEmpty)
    }

    @Test("A login in clear at a portal with TLS ends cleanly, and control is told")
    func clearLogin() throws {
        let rig = try SecureRig()
        let socket = try Socket.connect(to: rig.address)
        #expect(Socket.wait(socket.rawValue, .writable, nanoseconds: Rig.patience))
        let client = Client(socket)
        client.send(SecureRig.loginRequest(isid: 1))
        // The descriptor that comes along is closed again: as long as control has it, the connection stands.
        guard case .handshakeFailed(portal: SecureRig.portal, .notTLS, _, from: Source(rig.address)) = try rig.question() else { throw Missing("another question") }
        #expect(client.ends())
    }

    @Test("Hundreds of stalled handshakes hold no thread: a right one is through at once")
    func stalled() throws {
        let rig = try SecureRig()
        var stalled: [Client] = []
        for index in 0..<500 {
            let socket = try Socket.connect(to: rig.address)
            #expect(Socket.wait(socket.rawValue, .writable, nanoseconds: Rig.patience))
            let client = Client(socket)
            // Nothing, the first byte of a hello, or its header.
            client.send(Array([0x16, 3, 1, 2, 0].prefix(index % 6)))
            stalled.append(client)
        }
        let start = ContinuousClock.now
        let client = try rig.connect()
        try rig.logIn(client, tsih: 7)
        try client.begin()
        let took = ContinuousClock.now - start
        print("a right login beside \(stalled.count) stalled handshakes: \(took)")
        #expect(took < .seconds(5))
    }

    @Test("Sessions go on when what the portal accepts is replaced by as much, under load")
    func replacement() throws {
        let rig = try SecureRig()
        let client = try rig.connect()
        try rig.logIn(client, tsih: 7)
        try client.begin()
        for block in 0..<100 {
            try rig.secure()
            #expect(client.perform(Client.write(UInt8(block)), writes: [UInt8](repeating: 1, count: 512)) == 0)
        }
        let second = try rig.connect()
        try rig.logIn(second, tsih: 8, isid: 2)
        try second.begin()
    }

    @Test("Whoever waits for an old session to end is turned away when what has admitted him is taken back")
    func revokedWhileWaiting() throws {
        let rig = try SecureRig()
        let first = try rig.connect()
        try rig.logIn(first, tsih: 1)
        try first.begin()
        #expect(try rig.rig.news() == (1, nil))
        rig.rig.store(0).hold(.write)
        first.command(Client.write(1), writes: [UInt8](repeating: 1, count: 512))
        #expect(eventually { rig.rig.store(0).heldBack == 1 })
        let second = try rig.connect()
        try rig.logIn(second, tsih: 2)
        #expect(!second.hearsAnything(), "the old session is in the store")
        try rig.secure(by: try Issuer())
        #expect(try rig.rig.news() == (2, .neverBegan))
        #expect(second.loginStatus() == 0x0201 && second.ends())
        rig.rig.store(0).release()
        let end = try rig.rig.news()
        #expect(end.tsih == 1 && (end.end == .reinstated || end.end == .distrusted), "\(end)")
        #expect(first.ends())
    }

    @Test("A discovery session that sends without end in short records leaves the others their turns")
    func endlessDiscovery() throws {
        let rig = try SecureRig()
        let peer = try SecureRig.Carried(rig)
        peer.carry(peer.encrypt([SecureRig.loginRequest(isid: 1, "SessionType=Discovery\0")]))
        guard case .begin(let id, let login, _) = try rig.question() else { throw Missing("another question") }
        #expect(login.sessionType == .discovery)
        try rig.say(.proceed(id, SessionParameters(), portalGroupTag: 1, .none))
        #expect(peer.hears())
        peer.forgetAnswers()
        // NOP-Out beyond the window is passed over; the last one is immediate, and answered.
        func ping(isLast: Bool) -> [UInt8] {
            var header = [UInt8](repeating: 0, count: 48)
            header[0] = isLast ? 0x40 : 0
            header[1] = 0x80
            header[19] = 5
            for index in 20..<24 { header[index] = 0xff }
            header[24] = isLast ? 0 : 0x40
            return header
        }
        let records = peer.encrypt([[UInt8]](repeating: ping(isLast: false), count: 40_000) + [ping(isLast: true)])
        let clock = ContinuousClock()
        let begin = clock.now
        peer.carry(records)
        try rig.rig.settle()
        let settled = clock.now - begin
        #expect(peer.hears())
        let worked = clock.now - begin
        print("control is answered in \(settled) while \(worked) of records are worked on")
        #expect(settled * 4 < worked * 3)
    }

    @Test("When the portal closes, who logs in there is dropped, and sessions go on")
    func closing() throws {
        let rig = try SecureRig()
        let client = try rig.connect()
        try rig.logIn(client, tsih: 7)
        try client.begin()
        let waiting = try rig.connect()
        try rig.say(.stopListening(portal: SecureRig.portal))
        #expect(waiting.ends())
        #expect(client.perform(Client.write(1), writes: [UInt8](repeating: 1, count: 512)) == 0)
        #expect(try !rig.asksAnything())
    }
}
