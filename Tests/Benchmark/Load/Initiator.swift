import Bytes
import CLinux
import Crypto
import ISCSI
import Reactor

/// How an initiator proves who it is.
struct Proof {
    static let algorithms: [String: CHAPAlgorithm] = ["md5": .md5, "sha1": .sha1, "sha256": .sha256, "sha3-256": .sha3_256]

    let algorithm: CHAPAlgorithm
    let user: String
    let secret: Secret

    /// CHAP_R (RFC 1994 §4.1).
    func response(identifier: UInt8, challenge: [UInt8]) -> [UInt8] {
        var state = DigestState(digest)
        state.update([identifier].span)
        state.update(secret)
        state.update(challenge.span)
        return state.finish()
    }

    private var digest: Digest {
        switch algorithm {
        case .md5: .md5
        case .sha1: .sha1
        case .sha256: .sha256
        case .sha3_256: .sha3_256
        }
    }
}

/// What a session says of itself when it logs in.
struct LoginWords {
    let target: String
    let initiator: String
    var headerDigest = false
    var dataDigest = false
    var proof: Proof?
}

/// What all sessions of the process share: the loop, where input lands, what is written.
final class Client {
    /// Bytes received at once.
    static let inputSize = 512 << 10
    /// The longest data segment it takes, and the longest request.
    static let segment = 256 << 10

    let loop: EventLoop
    let address: SocketAddress
    let words: LoginWords
    /// The logical unit's number as a PDU has it (RFC 7143 §11.2.1.7).
    let lun: UInt64
    var input = [UInt8](repeating: 0, count: Client.inputSize)
    let pool = BufferPool(budget: 1 << 30)
    /// Random bytes: nobody measures how zeros are written.
    let payload: Buffer

    init(_ address: SocketAddress, _ words: LoginWords, lun: UInt8 = 1) throws {
        loop = try EventLoop()
        self.address = address
        self.words = words
        self.lun = UInt64(lun) << 48
        guard let payload = pool.allocate(Self.segment) else { preconditionFailure("there is memory for one segment") }
        payload.copy(Random.bytes(count: Self.segment).span, to: 0)
        self.payload = payload
        _ = try Host.raiseDescriptorLimit()
    }

    func run(until isDone: () -> Bool) { while !isDone() { loop.turn(waitingAtMost: 100_000_000) } }
}

/// Who is told what becomes of a session.
protocol InitiatorOwner: AnyObject {
    /// Commands may be sent.
    func loggedIn(_ session: Initiator)
    /// The command with this tag has ended with status GOOD and all its data.
    func answered(_ session: Initiator, _ tag: UInt32)
    /// The logout is answered; the connection is closed.
    func loggedOut(_ session: Initiator)
}

/// One session of an initiator (RFC 7143): logs in, keeps commands under way, logs out.
final class Initiator: EventHandler {
    /// Bytes of text and of small answers that are kept.
    private static let longestText = 8192

    private enum Stage { case connecting, login, ready, over }

    /// A command that is under way.
    private struct Task {
        /// Nanoseconds of the monotonic clock.
        var begun: UInt64 = 0
        var reads = 0
        var received = 0
        /// Bytes to write, and how many of them have gone.
        var writes = 0
        /// It asks for the capacity.
        var explores = false
        var isUnderWay = false
    }

    private let client: Client
    private unowned let owner: any InitiatorOwner
    private let isid: UInt32
    private var socket: FileDescriptor?
    private var stage = Stage.connecting
    private var login: Login
    private var framing = Framing()
    private var output: OutputQueue
    /// Of login responses and refusals: data of the PDU that is being read.
    private var collected: [UInt8] = []
    private var interest = Readiness.writable
    private var tasks: [Task]
    private var cmdSN: UInt32 = 1
    private var maxCmdSN: UInt32 = 1
    private var expStatSN: UInt32 = 0
    /// Commands that the target's window has no room for yet.
    private var waiting: [BasicHeader] = []
    private var digests = (header: false, data: false)
    private var explorations = 0

    /// Bytes of a block, and blocks of the logical unit.
    private(set) var blockLength = 512
    private(set) var blocks: UInt64 = 0

    /// Connects and logs in.
    /// - Parameters:
    ///   - isid: tells it from the initiator's other sessions
    ///   - depth: commands that may be under way at once
    init(_ client: Client, isid: UInt32, depth: Int = 1, owner: any InitiatorOwner) {
        self.client = client
        self.owner = owner
        self.isid = isid
        login = Login(client.words)
        output = OutputQueue(pool: client.pool)
        tasks = Array(repeating: Task(), count: depth)
        do {
            let connection = try Socket.connect(to: client.address)
            try Socket.setNoDelay(connection.rawValue)
            try client.loop.add(connection.rawValue, .writable, self)
            socket = consume connection
        } catch { fail("\(error)") }
    }

    private var number: Int32 { socket.rawValue ?? -1 }

    // MARK: Events

    func ready(_ events: Readiness) {
        if stage == .connecting {
            if let error = Socket.takeError(number) { fail("\(client.address): \(error)") }
            stage = .login
            sendLogin(login.request(isid: isid, expStatSN: expStatSN))
        } else if !events.isDisjoint(with: [.readable, .hangup, .error]) {
            receive()
        }
        flush()
    }

    private func receive() {
        while socket.rawValue != nil {
            switch Socket.receive(number, into: &client.input, 0..<client.input.count) {
            case .received(let count):
                let input = client.input
                take(input.span.extracting(0..<count))
                if count < client.input.count { return }
            case .wouldBlock: return
            case .closed(let error): fail("the target has closed the connection\(error.map { ": \($0)" } ?? "")\(stage == .login ? " while logging in" : "")")
            }
        }
    }

    private func take(_ input: Span<UInt8>) {
        var offset = 0
        while true {
            switch framing.step(input, &offset, headerDigest: digests.header, dataDigest: digests.data) {
            case .needsInput: return
            case .header: break
            case .data(let range, _):
                let task = framing.header.opcode == .dataIn ? Int(framing.header.initiatorTaskTag) : nil
                if let task, tasks.indices.contains(task) {
                    tasks[task].received += range.count
                    guard tasks[task].explores else { continue }
                }
                if collected.count + range.count <= Self.longestText { collected.append(copying: input.extracting(range)) }
            case .end:
                conclude(framing.header)
                collected.removeAll(keepingCapacity: true)
            case .headerDigestIsWrong: fail("the digest of a header is wrong")
            case .dataDigestIsWrong: fail("the digest of data is wrong")
            }
        }
    }

    private func conclude(_ header: BasicHeader) {
        switch header.opcode {
        case .dataIn?:
            // Only what ends a command has a StatSN.
            guard header.bytes[1] & 1 != 0 else { return }
            number(header)
            end(header)
        case .scsiResponse?:
            number(header)
            guard header.bytes[2] == 0 else { fail("a command has failed: response \(header.bytes[2])") }
            end(header)
        case .readyToTransfer?: sendData(header)
        case .loginResponse?: loginAnswered(header)
        case .nopIn?:
            if header.initiatorTaskTag == PDU.reservedTag, header.targetTransferTag != PDU.reservedTag { pong(header) }
        case .logoutResponse?:
            stage = .over
            close()
            owner.loggedOut(self)
        default: fail("the target sends a PDU of opcode \(header.bytes[0] & 0x3f)")
        }
    }

    /// StatSN, and the window (RFC 7143 §4.2.2).
    private func number(_ header: BasicHeader) {
        expStatSN = header.uint32(at: 24) &+ 1
        let most = header.uint32(at: 32)
        guard Int32(bitPattern: most &- maxCmdSN) > 0 else { return }
        maxCmdSN = most
        while !waiting.isEmpty, Int32(bitPattern: maxCmdSN &- cmdSN) >= 0 { send(command: waiting.removeFirst()) }
    }

    // MARK: Login and logout

    private func sendLogin(_ request: (header: BasicHeader, text: [UInt8])) {
        var header = request.header
        header.store(cmdSN, at: 24)
        header.store(dataSegmentLength: request.text.count)
        output.append(copying: header.bytes.span)
        output.append(copying: (request.text + [UInt8](repeating: 0, count: PDU.padding(request.text.count))).span)
        watch(.readable)
    }

    private func loginAnswered(_ header: BasicHeader) {
        let status = header.uint32(at: 36) >> 16
        guard status == 0 else { fail("the login was answered \(String(status, radix: 16))") }
        number(header)
        if let request = login.answered(header, collected, isid: isid, expStatSN: expStatSN) { return sendLogin(request) }
        digests = (login.agreed.headerDigest, login.agreed.dataDigest)
        stage = .ready
        owner.loggedIn(self)
    }

    func logout() {
        var header = BasicHeader(.logoutRequest, initiatorTaskTag: 0xffff_fffe)
        header.bytes[0] |= BasicHeader.immediateBit
        send(&header)
        flush()
    }

    private func close() {
        client.loop.remove(number)
        socket = nil
    }

    private func pong(_ ping: BasicHeader) {
        var header = BasicHeader(.nopOut, initiatorTaskTag: PDU.reservedTag)
        header.bytes[0] |= BasicHeader.immediateBit
        header.store(lun: ping.lun)
        header.store(ping.targetTransferTag, at: 20)
        send(&header)
    }

    // MARK: Commands

    /// Asks for the capacity until the unit attentions of a new nexus are taken; the answer is `answered`.
    func explore() {
        var header = BasicHeader(.scsiCommand, initiatorTaskTag: 0)
        header.bytes[1] = 0xc1
        header.store(lun: client.lun)
        header.store(UInt32(32), at: 20)
        // SERVICE ACTION IN(16), READ CAPACITY(16) (SBC-3 §5.16).
        (header.bytes[32], header.bytes[33], header.bytes[45]) = (0x9e, 0x10, 32)
        tasks[0] = Task(explores: true)
        explorations += 1
        issue(&header)
    }

    private func explored(_ header: BasicHeader) {
        guard header.bytes[3] == 0, collected.count >= 12 else {
            guard explorations < 8 else { fail("the logical unit does not tell its capacity: status \(header.bytes[3])") }
            return explore()
        }
        blocks = collected.span.uint64(at: 0) + 1
        blockLength = Int(collected.span.uint32(at: 8))
        owner.answered(self, 0)
    }

    /// READ(16) or WRITE(16) (SBC-3 §5.14, §5.40) with a free tag below the depth.
    func transfer(_ tag: UInt32, writes: Bool, block: UInt64, length: Int) {
        var header = BasicHeader(.scsiCommand, initiatorTaskTag: tag)
        // F, R or W, attribute simple.
        header.bytes[1] = writes ? 0xa1 : 0xc1
        header.store(lun: client.lun)
        header.store(UInt32(length), at: 20)
        header.bytes[32] = writes ? 0x8a : 0x88
        header.store(UInt32(truncatingIfNeeded: block >> 32), at: 34)
        header.store(UInt32(truncatingIfNeeded: block), at: 38)
        header.store(UInt32(length / blockLength), at: 42)
        tasks[Int(tag)] = Task(reads: writes ? 0 : length, writes: writes ? length : 0)
        issue(&header)
    }

    /// When the command began, in nanoseconds of the monotonic clock.
    func begun(_ tag: UInt32) -> UInt64 { tasks[Int(tag)].begun }

    private func issue(_ header: inout BasicHeader) {
        let tag = Int(header.initiatorTaskTag)
        tasks[tag].begun = linux_monotonic_nanoseconds()
        tasks[tag].isUnderWay = true
        if waiting.isEmpty, Int32(bitPattern: maxCmdSN &- cmdSN) >= 0 { send(command: header) } else { waiting.append(header) }
    }

    /// Sends a command, with as much of its data as may come unasked (RFC 7143 §4.2.5).
    private func send(command: BasicHeader) {
        var header = command
        header.store(cmdSN, at: 24)
        cmdSN &+= 1
        let writes = tasks[Int(header.initiatorTaskTag)].writes
        let agreed = login.agreed
        let unasked = min(writes, agreed.initialR2T ? 0 : agreed.firstBurst)
        let immediate = agreed.immediateData ? min(writes, agreed.segment, agreed.firstBurst) : 0
        if unasked > immediate { header.bytes[1] &= ~BasicHeader.finalBit }
        send(&header, immediate > 0 ? 0..<immediate : nil)
        if unasked > immediate { sendData(header.initiatorTaskTag, PDU.reservedTag, header.lun, immediate..<unasked) }
    }

    private func sendData(_ r2t: BasicHeader) {
        let start = Int(r2t.uint32(at: 40))
        sendData(r2t.initiatorTaskTag, r2t.targetTransferTag, r2t.lun, start..<start + Int(r2t.uint32(at: 44)))
    }

    private func sendData(_ tag: UInt32, _ transferTag: UInt32, _ lun: UInt64, _ range: Range<Int>) {
        var sequence: UInt32 = 0
        for start in stride(from: range.lowerBound, to: range.upperBound, by: login.agreed.segment) {
            let end = min(start + login.agreed.segment, range.upperBound)
            var header = BasicHeader(.dataOut, initiatorTaskTag: tag)
            header.bytes[1] = end == range.upperBound ? BasicHeader.finalBit : 0
            if transferTag != PDU.reservedTag { header.store(lun: lun) }
            header.store(transferTag, at: 20)
            header.store(sequence, at: 36)
            header.store(UInt32(start), at: 40)
            send(&header, start..<end)
            sequence += 1
        }
    }

    private func end(_ header: BasicHeader) {
        let tag = Int(header.initiatorTaskTag)
        guard tasks.indices.contains(tag), tasks[tag].isUnderWay else { fail("an answer to a command that is not under way") }
        tasks[tag].isUnderWay = false
        if tasks[tag].explores { return explored(header) }
        guard header.bytes[3] == 0, tasks[tag].received == tasks[tag].reads else {
            fail("a command was answered with status \(header.bytes[3]) and \(tasks[tag].received) of \(tasks[tag].reads) bytes")
        }
        owner.answered(self, header.initiatorTaskTag)
    }

    // MARK: Bytes

    private func send(_ header: inout BasicHeader, _ data: Range<Int>? = nil) {
        if header.bytes[0] & BasicHeader.immediateBit != 0 { header.store(cmdSN, at: 24) }
        header.store(expStatSN, at: 28)
        header.store(dataSegmentLength: data?.count ?? 0)
        output.append(copying: header.bytes.span)
        if digests.header { appendDigest { $0.update(header.bytes.span) } }
        guard let data else { return }
        output.append(client.payload, data)
        if digests.data { appendDigest { crc in client.payload.withBytes(data) { crc.update($0) } } }
    }

    private func appendDigest(_ update: (inout CRC32C) -> Void) {
        var crc = CRC32C()
        update(&crc)
        var bytes: [UInt8] = []
        bytes.append(bigEndian: crc.value.byteSwapped)
        output.append(copying: bytes.span)
    }

    /// Sends what has gathered, as far as the kernel takes it.
    func flush() {
        guard socket.rawValue != nil, stage != .connecting, !output.isEmpty || interest.contains(.writable) else { return }
        switch Socket.send(number, &output) {
        case .done: watch(.readable)
        case .wouldBlock: watch([.readable, .writable])
        case .closed(let error): fail("\(error)")
        }
    }

    private func watch(_ wanted: Readiness) {
        guard wanted != interest else { return }
        interest = wanted
        do { try client.loop.modify(number, wanted) } catch { fail("\(error)") }
    }
}
