import Bytes
import ISCSI
import Medium
import SCSI
import Target

/// The full-feature phase, from the bytes of one or two initiators to their logical units and back: PDUs right and wrong, a store
/// that holds operations back or fails them, time, connections that break, administrators. In the end nothing is left of it.
enum SessionFuzz {
    static func run(_ bytes: [UInt8]) {
        var input = Input(bytes)
        let world = SessionWorld(Choices(input.byte()))
        while !input.isEmpty { world.step(&input) }
        world.close()
    }
}

/// A target with two disks, two initiators, and the reactor that carries everything out.
final class SessionWorld {
    /// An operation in the store.
    private struct Held {
        let session: Session
        let ticket: Ticket
        let disk: Disk
        let operation: Operation
        let buffer: Buffer?
    }

    /// All of an input is one thread.
    private final class Disk: MediumHandle, @unchecked Sendable {
        var content: MemoryMedium
        init(length: Int) { content = MemoryMedium(length: length) }
    }

    private static let blocks: UInt64 = 32
    private static let disks = [1, 300]
    /// Nanoseconds.
    private var now = 1000 * SessionLimits.second
    private let target = ServedTarget(name: iscsiName("iqn.2026-01.test:t"), tid: 1)
    /// A session's share of it is 128 KiB.
    private let data = BufferPool(budget: 4 << 20, cached: 0)
    private let answers = BufferPool(budget: 64 << 20, cached: 0)
    private let mail = Postbox()
    private let parameters: NegotiatedParameters
    private let holdsOperations: Bool
    private var units: [LogicalUnit] = []
    private var peers: [Peer] = []
    /// Sessions that have ended while something of them was in the store.
    private var leftBehind: [Session] = []
    private var held: [Held] = []
    private var waitingForMemory: [Session] = []
    private var releasesSeen = 0
    private var nexuses: UInt64 = 0

    init(_ choices: Choices) {
        var parameters = NegotiatedParameters()
        parameters.headerDigest = choices[0]
        parameters.dataDigest = choices[1]
        parameters.initialR2T = choices[2]
        parameters.immediateData = !choices[3]
        if choices[4] {
            parameters.firstBurstLength = 1024
            parameters.maxBurstLength = 2048
            parameters.maxXmitDataSegmentLength = 512
            parameters.maxOutstandingR2T = 3
        }
        parameters.queueDepth = choices[5] ? 4 : 32
        self.parameters = parameters
        holdsOperations = choices[6]
        for number in Self.disks { addDisk(number) }
        peers = [Peer("iqn.2026-01.test:a", parameters), Peer("iqn.2026-01.test:b", parameters)]
        connect(0)
        if choices[7] { connect(1) }
        run()
    }

    private func addDisk(_ number: Int) {
        guard target.unit(number) == nil else { return }
        let settings = LogicalUnitSettings(
            disk: Self.blocks, blockLength: number == 1 ? 512 : 4096, scsiID: "disk\(number)", serialNumber: "sn\(number)",
            naa: [0x60] + [UInt8](repeating: 1, count: 15))
        let unit = LogicalUnit(settings, targetName: target.name.bytes, medium: Disk(length: Int(Self.blocks) * settings.blockLength))
        units.append(unit)
        target.add(unit, number: number)
    }

    /// The initiator logs in, again if it has a session: that one goes first.
    private func connect(_ index: Int) {
        nexuses += 1
        let nexus = NexusID(rawValue: nexuses)
        let start = SessionStart(
            nexus: nexus, initiatorName: peers[index].name, isid: ISID(rawValue: 1), tsih: UInt16(truncatingIfNeeded: nexuses), cid: 0,
            parameters: parameters, expCmdSN: 100, statSN: 1, nopInterval: 5, nopCount: 2)
        for _ in 0..<2 {
            if let session = Session(start, target: target, data: data, answers: answers, now: now, deliver: { [mail] in mail.post(nexus, $0) }) {
                if let old = peers[index].session { leftBehind.append(old) }
                peers[index].begin(session, cmdSN: start.expCmdSN)
                return
            }
            target.reinstate(start.name) {}
            run()
        }
    }

    // MARK: Steps

    func step(_ input: inout Input) {
        let step = input.byte()
        let peer = peers[step & 0x80 != 0 && peers[1].session != nil ? 1 : 0]
        switch step & 0x0f {
        case 0, 1, 2: peer.command(&input, isShort: step & 0x10 != 0)
        case 3, 4: peer.dataOut(&input)
        case 5: peer.answerTransfer()
        case 6: peer.management(&input)
        case 7: peer.other(&input)
        case 8: peer.pending += input.take(1 + Int(step >> 4 & 7) * 8)
        case 9: finish(input.byte(), step & 0x10 != 0 ? Failure(input.byte()) : nil)
        case 10: pass(seconds: UInt64(input.byte()))
        case 11: peer.reads = step & 0x10 != 0
        case 12: breakConnection(peer)
        case 13: connect(step & 0x10 != 0 ? 1 : 0)
        case 14: administrate(&input)
        default: peer.cut = step & 0x10 != 0 ? 1 + input.number() : .max
        }
        run()
    }

    private func pass(seconds: UInt64) {
        now += seconds * SessionLimits.second
        for session in sessions { session.tick(now: now) }
    }

    private func breakConnection(_ peer: Peer) {
        peer.session?.end(.connectionLost)
        peer.pending = []
    }

    private func administrate(_ input: inout Input) {
        let choice = input.byte()
        let number = Self.disks[Int(choice >> 4 & 1)]
        switch choice & 7 {
        case 0: target.remove(number: number)
        case 1: addDisk(number)
        case 2, 3:
            guard let unit = target.unit(number) else { return }
            var settings = unit.settings
            settings.isOnline = choice & 0x20 == 0
            settings.isReadOnly = choice & 0x40 != 0
            settings.isThinProvisioned = choice & 0x80 != 0
            unit.apply(settings)
        case 4: target.endSessions(.administrator) {}
        default: target.unit(number)?.reset()
        }
    }

    // MARK: The reactor

    private var sessions: [Session] { peers.compactMap(\.session) + leftBehind }

    /// Goes on until nothing moves any more.
    private func run() {
        var moves = true
        while moves {
            moves = false
            while let (nexus, notification) = mail.next() {
                moves = true
                sessions.first { $0.start.nexus == nexus }?.notified(notification, now: now)
            }
            if mail.releases.count != releasesSeen {
                releasesSeen = mail.releases.count
                let waiting = waitingForMemory
                waitingForMemory = []
                for session in waiting { session.memoryAvailable(isReport: true, now: now) }
                moves = true
            }
            for peer in peers where serve(peer) { moves = true }
            for session in leftBehind where carryOut(session) { moves = true }
            leftBehind.removeAll { $0.isQuiet }
        }
    }

    private func serve(_ peer: Peer) -> Bool {
        guard let session = peer.session else { return false }
        var moves = false
        if session.endReason == nil, session.wantsInput {
            let piece = Array(peer.pending.prefix(peer.cut))
            let used = session.receive(piece.span, now: now)
            precondition(used <= piece.count)
            peer.pending.removeFirst(used)
            moves = used > 0
        }
        if carryOut(session) { moves = true }
        if peer.reads, session.unsent > 0 {
            session.send(now: now) { output in
                peer.take(output.segments.flatMap { $0.buffer.array($0.range) })
                output.consume(output.byteCount)
            }
            moves = true
        }
        return moves
    }

    private func carryOut(_ session: Session) -> Bool {
        var moves = false
        while let action = session.nextAction() {
            moves = true
            switch action {
            case .perform(let ticket):
                session.perform(ticket, now: now) { operation, buffer, hold in
                    guard let disk = (hold as? Hold<Disk>)?.medium else { preconditionFailure("a unit has one of our disks") }
                    held.append(Held(session: session, ticket: ticket, disk: disk, operation: operation, buffer: buffer))
                    return nil
                }
                if !holdsOperations { finish(0, nil) }
            case .keep(let ticket, let unit, _):
                while let record = unit.recordToKeep() {
                    precondition(record.reservations.isSound)
                    unit.settle(isKept: true)
                }
                session.kept(ticket, now: now)
            case .askSendTargets(let request):
                session.answer(request, [DiscoveredTarget(name: target.name, addresses: ["127.0.0.1:3260"], portalGroupTag: 1)])
            case .waitForMemory:
                waitingForMemory.append(session)
                data.whenReleased { [mail] in mail.releases.raise() }
                session.memoryAvailable(isReport: false, now: now)
            case .close: precondition(session.endReason != nil)
            }
        }
        return moves
    }

    /// The store is done with one of the operations that it holds.
    private func finish(_ choice: UInt8, _ failure: Failure?) {
        guard !held.isEmpty else { return }
        let held = held.remove(at: Int(choice) % held.count)
        let outcome = failure.map(Outcome.failed) ?? held.disk.content.perform(held.operation, held.buffer)
        held.session.completed(held.ticket, outcome: outcome, now: now)
    }

    // MARK: The end

    /// Everybody goes; then nothing may be left.
    func close() {
        for peer in peers {
            peer.reads = true
            peer.cut = .max
        }
        run()
        for session in sessions { session.end(.administrator) }
        run()
        while !held.isEmpty {
            finish(0, nil)
            run()
        }
        for session in sessions { precondition(session.isQuiet, "a session that has ended is quiet when the store is done") }
        precondition(target.sessions.isEmpty, "nobody is registered any more")
        for unit in units { precondition(!unit.isBusy, "every command has left its logical unit") }
        for peer in peers { peer.session = nil }
        leftBehind = []
        waitingForMemory = []
        precondition(data.inUse == 0 && answers.inUse == 0, "all memory is given back")
    }
}

func iscsiName(_ text: String) -> ISCSIName {
    do throws(ISCSIName.NameError) { return try ISCSIName(text.utf8) } catch { preconditionFailure("a name of ours") }
}
