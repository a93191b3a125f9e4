import Bytes
import Door
import Foundation
import Glibc
import ISCSI
import Logging
import Reactor
import SCSI
import Storage
import Synchronization
import TLS
import Testing

@testable import DataPlane

struct Missing: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

func name(_ text: String) -> ISCSIName {
    guard let name = try? ISCSIName(text.utf8) else { preconditionFailure("a test's name is a name") }
    return name
}

/// A data process in this one, with the test at control's end of its door. Its disk lies in a file, behind a store that can hold
/// operations back.
final class Rig {
    static let blocks: UInt64 = 2048
    static let patience: UInt64 = 10_000_000_000
    static let tid: Int32 = 1

    let folder: URL
    private let door: PlainDoor<DataReportMessage, DataOrderMessage>
    private let thread: WorkerThread
    private var requests: UInt64 = 0
    /// Answers and reports that nobody has asked for yet, in the order they came.
    private var reports: [DataReportMessage] = []

    private final class Stores: Sendable {
        let all = Mutex<[FaultyStore]>([])
    }
    private let made: Stores

    /// - Parameters:
    ///   - surprises: its stores do not say beforehand what they hold back
    ///   - configure: changes how the process is set up
    init(rings: [ReadRing] = [], surprises: Bool = false, _ configure: @escaping @Sendable (inout DataOptions) -> Void = { _ in }) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("portcullis-data-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        var theirs: FileDescriptor?
        door = PlainDoor(try Socket.messagePair().split(&theirs))
        guard let end = theirs.take() else { throw Missing("a pair has two ends") }
        let number = end.release()
        let made = Stores()
        self.made = made
        thread = try WorkerThread(name: "data") {
            do {
                var options = DataOptions(reactors: 1, ioThreads: 4, memory: 64 << 20)
                options.decorate = { store in
                    let faulty = FaultyStore(store, surprises: surprises)
                    made.all.withLock { $0.append(faulty) }
                    return faulty
                }
                configure(&options)
                let log = Logger(label: "data") { _ in SwiftLogNoOpLogHandler() }
                let loop = try EventLoop()
                let process = try DataProcess(loop: loop, door: FileDescriptor(owning: number), options: options, logins: LoginOptions(connections: 1000, connectionsPerSource: 1000), rings: rings, log: log)
                loop.run()
                withExtendedLifetime(process) {}
            } catch {
                preconditionFailure("no data process: \(error)")
            }
        }
        try must { .addTarget($0, tid: Self.tid, name: name("iqn.t")) }
        try must(passing: file("disk", blocks: Self.blocks)) {
            .addLogicalUnit($0, tid: Self.tid, lun: 1, Self.settings(Self.blocks), Self.description(Self.blocks), UnitRecord())
        }
    }

    deinit {
        for store in made.all.withLock({ $0 }) { store.heal() }
        // Its end of the door closes with ours, and it ends.
        try? FileManager.default.removeItem(at: folder)
    }

    /// The store that was made as this one, from 0.
    func store(_ index: Int) -> FaultyStore { made.all.withLock { $0[index] } }

    static func settings(_ blocks: UInt64) -> LogicalUnitSettings {
        LogicalUnitSettings(disk: blocks, blockLength: 512, scsiID: "id", serialNumber: "sn", naa: [UInt8](repeating: 0x60, count: 16))
    }
    static func description(_ blocks: UInt64) -> StoreDescription { StoreDescription(kind: .file, length: blocks * 512) }

    func path(_ file: String) -> String { folder.appendingPathComponent(file).path }

    /// A file of zeros, opened.
    func file(_ name: String, blocks: UInt64) throws -> FileDescriptor {
        let made = try Files.makeSparse(path(name), length: Int(blocks) * 512)
        guard made else { throw Missing("\(name) is there already") }
        return try open(name)
    }

    func open(_ name: String) throws -> FileDescriptor {
        let descriptor = unsafe Glibc.open(path(name), O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw Missing("\(name) cannot be opened") }
        return FileDescriptor(owning: descriptor)
    }

    /// What the file holds in these blocks.
    func bytes(_ name: String, block: Int, count: Int = 1) throws -> [UInt8] {
        let handle = try FileHandle(forReadingFrom: folder.appendingPathComponent(name))
        try handle.seek(toOffset: UInt64(block * 512))
        return Array(try handle.read(upToCount: count * 512) ?? Data())
    }

    /// Writes the file anew, past whoever serves it.
    func overwrite(_ name: String, with bytes: [UInt8]) throws {
        let handle = try FileHandle(forWritingTo: folder.appendingPathComponent(name))
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }

    /// Has the kernel forget what it holds of the file in memory.
    func dropCache(_ name: String) throws {
        let descriptor = try open(name)
        guard fdatasync(descriptor.rawValue) == 0, posix_fadvise(descriptor.rawValue, 0, 0, POSIX_FADV_DONTNEED) == 0 else { throw Missing("the cache stays") }
    }

    // MARK: Control's part

    func order(passing descriptor: Int32? = nil, _ message: DataOrderMessage) throws {
        guard door.send(message, passing: descriptor) else { throw Missing("the door takes nothing") }
    }

    /// Gives an order that wants an answer.
    func ask(passing descriptor: borrowing FileDescriptor? = nil, _ message: (RequestID) -> DataOrderMessage) throws -> RequestID {
        requests += 1
        let id = RequestID(rawValue: requests)
        let number: Int32? = switch descriptor {
        case .none: nil
        case .some(let descriptor): descriptor.rawValue
        }
        try order(passing: number, message(id))
        return id
    }

    func must(passing descriptor: consuming FileDescriptor? = nil, _ message: (RequestID) -> DataOrderMessage) throws {
        let id = try ask(passing: descriptor, message)
        try #require(try answer(to: id) == nil)
    }

    /// The answer to an order: its refusal, or nil when it is done.
    func answer(to id: RequestID) throws -> DataRefusal? {
        let report = try report {
            switch $0 {
            case .done(id): true
            case .refused(id, _): true
            default: false
            }
        }
        if case .refused(_, let refusal) = report { return refusal }
        return nil
    }

    /// The first report that is meant; those before it stay.
    func report(where isMeant: (DataReportMessage) -> Bool) throws -> DataReportMessage {
        while true {
            if let index = reports.firstIndex(where: isMeant) { return reports.remove(at: index) }
            guard try hear(within: Self.patience) else { throw Missing("no such report; \(reports)") }
        }
    }

    /// Whether such a report has come already.
    func hasHeard(_ isMeant: (DataReportMessage) -> Bool) -> Bool { reports.contains(where: isMeant) }

    /// The next news of a session: its TSIH, and how it ended, nil if it began.
    func news() throws -> (tsih: UInt16, end: SessionEnd?) {
        let report = try report {
            switch $0 {
            case .sessionBegan, .sessionEnded: true
            default: false
            }
        }
        switch report {
        case .sessionBegan(let tsih, _): return (tsih, nil)
        case .sessionEnded(let tsih, _, let end): return (tsih, end)
        default: throw Missing("that is no news")
        }
    }

    /// Whether something was said in time.
    private func hear(within nanoseconds: UInt64) throws -> Bool {
        guard let report = try door.next(within: nanoseconds) else { return false }
        reports.append(report)
        return true
    }

    /// Has data carry out all that was said before.
    func settle() throws {
        try order(.heartbeat(requests))
        let count = requests
        _ = try report { if case .heartbeat(count) = $0 { true } else { false } }
    }

    /// Grants a session; its connection.
    func grant(tsih: UInt16, isid: UInt64 = 1, initiator: String = "iqn.a", continuing: Bool = false) throws -> Client {
        var ours: FileDescriptor?
        let client = try Client.connected(&ours)
        let question = LoginQuestion(
            initiatorName: name(initiator), sessionType: .normal, targetName: name("iqn.t"), isid: ISID(rawValue: isid), tsih: continuing ? tsih : 0,
            cid: 0)
        var negotiated = NegotiatedParameters()
        (negotiated.maxRecvDataSegmentLength, negotiated.firstBurstLength) = (262_144, 262_144)
        negotiated.queueDepth = 32
        let outcome = LoginOutcome(
            identity: question, negotiated: negotiated, expCmdSN: 1, statSN: 1,
            finalResponse: FinalLoginResponse(currentStage: 1, initiatorTaskTag: 0, statSN: 0, text: []))
        try order(passing: ours.rawValue, .grant(SessionGrant(tid: Self.tid, tsih: tsih, outcome: outcome, nopInterval: 0, nopCount: 0)))
        return client
    }
}

/// The initiator's end of a granted connection.
final class Client {
    private var socket: FileDescriptor?
    /// nil: in clear.
    let secure: SecureConnection?
    private let pool = BufferPool(budget: 16 << 20)
    private var cmdSN: UInt32 = 1
    private var tag: UInt32 = 1

    init(_ socket: consuming FileDescriptor, secure: SecureConnection? = nil) {
        self.socket = consume socket
        self.secure = secure
    }

    /// - Parameter ours: gets the target's end
    static func connected(_ ours: inout FileDescriptor?) throws -> Client {
        let listener = try Socket.listen(on: SocketAddress("127.0.0.1:0")!)
        guard let address = try Socket.localAddress(listener.rawValue) else { throw Missing("a listener has an address") }
        let client = try Socket.connect(to: address)
        guard Socket.wait(listener.rawValue, .readable, nanoseconds: Rig.patience), case .connection(let end, _) = try Socket.accept(listener.rawValue) else {
            throw Missing("nobody connects")
        }
        ours = consume end
        return Client(client)
    }

    private var number: Int32 { socket.rawValue ?? -1 }

    /// So many bytes; nil when the connection ends before, or they do not come in time.
    func receive(_ count: Int, within nanoseconds: UInt64 = Rig.patience) -> [UInt8]? {
        var bytes: [UInt8] = []
        while bytes.count < count {
            var piece = [UInt8](repeating: 0, count: count - bytes.count)
            switch secure?.receive(into: &piece, 0..<piece.count) ?? Socket.receive(number, into: &piece, 0..<piece.count) {
            case .received(let got): bytes += piece.prefix(got)
            case .wouldBlock: guard Socket.wait(number, .readable, nanoseconds: nanoseconds) else { return nil }
            case .closed: return nil
            }
        }
        return bytes
    }

    /// What is there to receive; nil when nothing comes in time, or the connection ends.
    func some() -> [UInt8]? {
        var piece = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            switch secure?.receive(into: &piece, 0..<piece.count) ?? Socket.receive(number, into: &piece, 0..<piece.count) {
            case .received(let count): return Array(piece.prefix(count))
            case .wouldBlock: guard Socket.wait(number, .readable, nanoseconds: Rig.patience) else { return nil }
            case .closed: return nil
            }
        }
    }

    /// Whether the connection ends, whatever comes before.
    func ends() -> Bool {
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            switch secure?.receive(into: &piece, 0..<piece.count) ?? Socket.receive(number, into: &piece, 0..<piece.count) {
            case .received: continue
            case .wouldBlock: guard Socket.wait(number, .readable, nanoseconds: Rig.patience) else { return false }
            case .closed: return true
            }
        }
    }

    /// The status of the Login Response.
    func loginStatus() -> UInt16? { pdu().map { UInt16($0[36]) << 8 | UInt16($0[37]) } }

    /// Whether anything comes, or the connection ends, within a moment.
    func hearsAnything(within nanoseconds: UInt64 = 200_000_000) -> Bool { Socket.wait(number, .readable, nanoseconds: nanoseconds) }

    /// The header of the next PDU.
    func pdu() -> [UInt8]? { wholePDU()?.header }

    /// The next PDU with its data.
    func wholePDU() -> (header: [UInt8], data: [UInt8])? {
        guard let header = receive(48) else { return nil }
        let length = Int(header[5]) << 16 | Int(header[6]) << 8 | Int(header[7])
        guard let data = receive((length + 3) & ~3) else { return nil }
        return (header, Array(data.prefix(length)))
    }

    /// The Initiator Task Tag of the next request.
    var nextTag: UInt32 { tag }

    func send(_ bytes: [UInt8]) {
        if let secure {
            var queue = OutputQueue(pool: pool)
            queue.append(copying: bytes.span)
            while case .wouldBlock = secure.send(&queue) { _ = Socket.wait(number, .writable, nanoseconds: Rig.patience) }
            return
        }
        var start = 0
        while case .wouldBlock = Socket.send(number, bytes, from: &start) { _ = Socket.wait(number, .writable, nanoseconds: Rig.patience) }
    }

    private func request(_ opcode: UInt8, flags: UInt8) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 48)
        header[0] = opcode
        header[1] = flags
        put(tag, &header, 16)
        put(cmdSN, &header, 24)
        tag += 1
        cmdSN += 1
        return header
    }
    private func put(_ value: UInt32, _ header: inout [UInt8], _ offset: Int) {
        for index in 0..<4 { header[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(24 - 8 * index)) }
    }

    /// A command with its data, immediate.
    func command(_ cdb: [UInt8], lun: UInt8 = 1, writes data: [UInt8] = []) { send(request(cdb, lun: lun, writes: data)) }

    /// Its bytes.
    func request(_ cdb: [UInt8], lun: UInt8 = 1, attribute: UInt8 = 1, reads length: Int = 0, writes data: [UInt8] = []) -> [UInt8] {
        var header = request(0x01, flags: (data.isEmpty ? 0x80 : 0xa0) | (length > 0 ? 0x40 : 0) | attribute)
        header[9] = lun
        header[5] = UInt8(data.count >> 16)
        header[6] = UInt8(data.count >> 8 & 0xff)
        header[7] = UInt8(data.count & 0xff)
        put(UInt32(length + data.count), &header, 20)
        header.replaceSubrange(32..<32 + cdb.count, with: cdb)
        return header + data
    }

    /// A command and its status.
    func perform(_ cdb: [UInt8], lun: UInt8 = 1, writes data: [UInt8] = []) -> UInt8? {
        command(cdb, lun: lun, writes: data)
        return pdu().map { $0[3] }
    }

    /// WRITE(10) of one block.
    static func write(_ block: UInt8) -> [UInt8] { [0x2a, 0, 0, 0, 0, block, 0, 0, 1, 0] }

    /// Takes the Login Response and the unit attention of a new nexus.
    func begin() throws {
        try #require(loginStatus() == 0)
        _ = perform([0, 0, 0, 0, 0, 0])
        try #require(perform([0, 0, 0, 0, 0, 0]) == 0)
    }

    /// Asks to log out.
    func logout() { send(request(0x46, flags: 0x80)) }

    /// Breaks the connection: the peer is told so by a reset.
    func reset() {
        var linger = linger(l_onoff: 1, l_linger: 0)
        _ = unsafe setsockopt(number, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout.size(ofValue: linger)))
        socket = nil
    }
}

/// Waits until something is so.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = ContinuousClock.now + .nanoseconds(Int64(Rig.patience))
    while ContinuousClock.now < deadline {
        if try condition() { return true }
        usleep(2000)
    }
    return false
}
