import Bytes
import ISCSI
import Medium
import SCSI
import Target

/// A whole target under two initiators, a store that delays and reorders, connections that break, and little memory: every
/// choice is the seed's, and an oracle looks at every block that is read.
final class Simulation {
    typealias Violation = Oracle.Violation

    private enum Kind {
        case read, write, orWrite, compareAndWrite, other
    }

    /// A command an initiator has no answer to yet.
    private struct Command {
        let kind: Kind
        let block: Int
        let count: Int
        /// Value written, by block; the bit, for OR-writes.
        var values: [UInt64] = []
        var expected: UInt64 = 0
        let issued: Int
    }

    private enum FunctionKind {
        case task(UInt32), all
    }

    private final class Initiator {
        let name: String
        var client: Client?
        var commands: [UInt32: Command] = [:]
        /// Functions under way, and the commands issued before them.
        var functions: [UInt32: (kind: FunctionKind, commands: Set<UInt32>)] = [:]
        var seen = 0

        init(name: String) { self.name = name }
    }

    private struct InStore {
        let client: Client
        let ticket: Ticket
        let store: MemoryStore
        let operation: Operation
        let buffer: Buffer?
        /// Takes much longer than others.
        var isSlow: Bool
        var outcome: Outcome?
    }

    private var random: Random
    private let world: World
    private var oracle = Oracle(blocks: 10, orBlocks: 6)
    private let initiators: [Initiator]
    private var inStore: [InStore] = []
    private var memoryWaiters: [Client] = []
    private var memoryReleasesSeen = 0
    private var step = 0
    private var nextValue: UInt64 = 1
    private let blockLength = World.blockLength
    /// How many of what has been seen: a simulation in which nothing happens shows nothing.
    private(set) var counts: [String: Int] = [:]

    init(seed: Int) {
        random = Random(seed: UInt64(seed))
        world = World(blocks: 64, memory: [8192, 16384, 65536, 1 << 20][random.below(4)])
        initiators = [Initiator(name: "iqn.2026-01.test:a"), Initiator(name: "iqn.2026-01.test:b")]
    }

    /// Runs `steps` steps, lets everything come to an end, and reads every block once more.
    func run(steps: Int) throws(Violation) {
        for _ in 0..<steps { try advance(calm: false) }
        try settle()
        for initiator in initiators {
            for block in 0..<oracle.blocks + oracle.orBlocks { read(initiator, block, 1) }
            try settle()
        }
        for initiator in initiators {
            guard let client = initiator.client else { throw Violation(description: "no session at the end") }
            client.session.end(.connectionLost)
            carryOutActions(client)
            guard client.session.isQuiet else { throw Violation(description: "a session is not quiet at the end") }
        }
        initiators.forEach { $0.client = nil }
        world.clients = []
        memoryWaiters = []
        guard world.data.inUse == 0 else { throw Violation(description: "\(world.data.inUse) bytes of memory are lost") }
    }

    /// No new faults until everybody has an answer.
    private func settle() throws(Violation) {
        var rounds = 0
        while initiators.contains(where: { $0.client == nil || !$0.commands.isEmpty || !$0.functions.isEmpty }) || !inStore.isEmpty {
            rounds += 1
            guard rounds < 20_000 else {
                let left = initiators.map { "\($0.name): \($0.commands.count) commands, \($0.functions.count) functions, pending \($0.client?.pending.count ?? -1), wants \($0.client?.session.wantsInput ?? false)" }
                throw Violation(description: "it never comes to an end: \(left), in store \(inStore.count)")
            }
            try advance(calm: true)
        }
    }

    // MARK: One step

    private func advance(calm: Bool) throws(Violation) {
        step += 1
        if random.oneIn(8) { world.clients.removeAll { $0.session.isQuiet } }
        switch random.below(100) {
        case 0..<22: for _ in 0..<3 { store() }
        case 22..<30: deliver()
        case 30..<33: wakeMemoryWaiters()
        case 33: tick()
        default: try act(initiators[random.below(initiators.count)], calm: calm)
        }
    }

    private func act(_ initiator: Initiator, calm: Bool) throws(Violation) {
        guard let client = initiator.client, client.closed == nil else { return logIn(initiator) }
        switch random.below(200) {
        case 0..<70: if !calm { issue(initiator, client) }
        case 70..<130: feed(client)
        case 130..<190: try listen(initiator, client)
        case 190: if !calm && random.oneIn(2) { tear(initiator, client) }
        case 191: if !calm && random.oneIn(2) { logInAgain(initiator) }
        default: manage(initiator, client, calm: calm)
        }
    }

    private func count(_ what: String) { counts[what, default: 0] += 1 }

    private func logIn(_ initiator: Initiator) {
        if let old = initiator.client, old.closed != nil {
            old.session.end(.connectionLost)
            carryOutActions(old)
            initiator.client = nil
        }
        var parameters = NegotiatedParameters()
        parameters.initialR2T = random.oneIn(2)
        parameters.immediateData = random.oneIn(2)
        parameters.maxOutstandingR2T = 1 + random.below(3)
        parameters.maxRecvDataSegmentLength = [512, 1024, 8192][random.below(3)]
        parameters.initiatorMaxRecvDataSegmentLength = [512, 1024, 8192][random.below(3)]
        parameters.maxXmitDataSegmentLength = parameters.initiatorMaxRecvDataSegmentLength
        parameters.maxBurstLength = [1024, 4096][random.below(2)]
        parameters.firstBurstLength = [512, 1024][random.below(2)]
        parameters.queueDepth = [4, 16, 128][random.below(3)]
        guard let client = world.connect(initiator.name, parameters: parameters) else { return }
        count("logins")
        // Nothing of the old nexus is under way any more.
        for command in initiator.commands.values { end(command, tookEffect: nil) }
        initiator.commands = [:]
        initiator.functions = [:]
        initiator.client = client
        initiator.seen = 0
    }

    private func issue(_ initiator: Initiator, _ client: Client) {
        guard Int32(bitPattern: client.maxCmdSN &- client.cmdSN) >= 0 else { return }
        let attribute = UInt8([1, 1, 1, 1, 2, 3][random.below(6)])
        let kind = random.below(10)
        switch kind {
        case 0..<4:
            let count = 1 + random.below(4)
            read(initiator, random.below(oracle.blocks + oracle.orBlocks - count + 1), count, attribute)
        case 4..<7:
            let count = 1 + random.below(4)
            let block = random.below(oracle.blocks - count + 1)
            var command = Command(kind: .write, block: block, count: count, issued: step)
            var data: [UInt8] = []
            for index in 0..<count {
                let value = newValue()
                command.values.append(value)
                oracle.issueWrite(block + index, value, step)
                data += content(value)
            }
            initiator.commands[client.command(CDB.write(UInt64(block), count), write: data, attribute: attribute)] = command
        case 7:
            let count = 1 + random.below(2)
            let block = random.below(oracle.orBlocks - count + 1)
            var command = Command(kind: .orWrite, block: block, count: count, issued: step)
            var data: [UInt8] = []
            for index in 0..<count {
                let bit = oracle.issueOr(block + index, step)
                command.values.append(bit.map { UInt64($0) } ?? 64)
                data += content(bit.map { 1 << UInt64($0) } ?? 0)
            }
            let cdb = CDB.orWrite(UInt64(oracle.blocks + block), count)
            initiator.commands[client.command(cdb, write: data, attribute: attribute)] = command
        case 8:
            let block = random.below(oracle.blocks)
            var command = Command(kind: .compareAndWrite, block: block, count: 1, issued: step)
            command.expected = oracle.guess(block, &random)
            command.values = [newValue()]
            oracle.issueWrite(block, command.values[0], step)
            let data = content(command.expected) + content(command.values[0])
            initiator.commands[client.command(CDB.compareAndWrite(UInt64(block), 1), write: data, attribute: attribute)] = command
        default:
            let cdb = random.oneIn(2) ? CDB.synchronizeCache : CDB.testUnitReady
            initiator.commands[client.command(cdb, attribute: attribute)] = Command(kind: .other, block: 0, count: 0, issued: step)
        }
    }

    private func read(_ initiator: Initiator, _ block: Int, _ count: Int, _ attribute: UInt8 = 1) {
        guard let client = initiator.client, Int32(bitPattern: client.maxCmdSN &- client.cmdSN) >= 0 else { return }
        let tag = client.command(CDB.read(UInt64(block), count), read: count * blockLength, attribute: attribute)
        initiator.commands[tag] = Command(kind: .read, block: block, count: count, issued: step)
    }

    private func newValue() -> UInt64 {
        nextValue += 1
        return nextValue
    }

    /// A block full of `value`.
    private func content(_ value: UInt64) -> [UInt8] {
        let word = (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(blockLength)
        for _ in 0..<blockLength / 8 { bytes += word }
        return bytes
    }

    private func feed(_ client: Client) {
        guard client.session.wantsInput else { return }
        let length = random.oneIn(3) ? random.below(200) : 4096
        let chunk = Array(client.pending.prefix(length))
        client.pending.removeFirst(client.session.receive(chunk.span, now: world.now))
        carryOutActions(client)
    }

    private func listen(_ initiator: Initiator, _ client: Client) throws(Violation) {
        let most = random.oneIn(3) ? random.below(300) : 16384
        var bytes: [UInt8] = []
        client.session.send(now: world.now) { output in
            for segment in output.segments where bytes.count < most {
                let range = segment.range.prefix(most - bytes.count)
                bytes += segment.buffer.array(range)
            }
            output.consume(bytes.count)
        }
        carryOutActions(client)
        client.take(bytes)
        while initiator.seen < client.order.count {
            let tag = client.order[initiator.seen]
            initiator.seen += 1
            guard let result = client.results.removeValue(forKey: tag) else { continue }
            guard let command = initiator.commands.removeValue(forKey: tag) else {
                throw Violation(description: "an answer to a command that was over: \(tag)")
            }
            try check(command, result)
        }
        for (tag, response) in client.functionResponses {
            client.functionResponses[tag] = nil
            guard let function = initiator.functions.removeValue(forKey: tag) else {
                throw Violation(description: "an answer to a function that was over: \(tag)")
            }
            count("functions")
            guard response == 0 || response == 1 else { continue }
            for aborted in function.commands {
                guard let command = initiator.commands.removeValue(forKey: aborted) else { continue }
                count("aborted")
                end(command, tookEffect: nil)
            }
        }
    }

    private func check(_ command: Command, _ result: Client.Result) throws(Violation) {
        guard result.status == 0 else {
            count("status \(result.status)")
            let isMiscompare = command.kind == .compareAndWrite && result.code.first == 0xe
            guard result.status == 0x08 || result.status == 0x28 || result.code.first == 6 || isMiscompare else {
                throw Violation(description: "\(command.kind) ended with status \(result.status), sense \(result.code)")
            }
            if isMiscompare { count("miscompares") }
            return end(command, tookEffect: false)
        }
        count("\(command.kind)")
        switch command.kind {
        case .read:
            guard result.dataIn.count == command.count * blockLength else { throw Violation(description: "a short read") }
            for index in 0..<command.count {
                let bytes = result.dataIn[index * blockLength..<(index + 1) * blockLength]
                guard bytes.dropFirst(8).elementsEqual(bytes.dropLast(8)) else { throw Violation(description: "a torn block") }
                let value = bytes.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
                let block = command.block + index
                if block < oracle.blocks {
                    try oracle.checkRead(block, value, issued: command.issued, now: step)
                } else {
                    try oracle.checkOrRead(block - oracle.blocks, value, issued: command.issued, now: step)
                }
            }
        case .compareAndWrite:
            try oracle.checkRead(command.block, command.expected, issued: command.issued, now: step)
            end(command, tookEffect: true)
        default: end(command, tookEffect: true)
        }
    }

    private func end(_ command: Command, tookEffect: Bool?) {
        switch command.kind {
        case .write, .compareAndWrite:
            let reading = initiators.flatMap { $0.commands.values.filter { $0.kind == .read || $0.kind == .compareAndWrite } }
            let oldest = reading.map(\.issued).min() ?? step
            for (index, value) in command.values.enumerated() {
                oracle.endWrite(command.block + index, value, step, tookEffect: tookEffect, oldestRead: min(oldest, command.issued))
            }
        case .orWrite:
            for (index, bit) in command.values.enumerated() where bit < 64 {
                oracle.endOr(command.block + index, Int(bit), step, tookEffect: tookEffect)
            }
        case .read, .other: break
        }
    }

    // MARK: What goes on outside of the sessions

    private func carryOutActions(_ client: Client) {
        while let action = client.session.nextAction() {
            switch action {
            case .perform(let ticket):
                client.session.perform(ticket, now: world.now) { operation, buffer, hold in
                    let store = (hold as! Hold<MemoryStore>).medium
                    inStore.append(InStore(client: client, ticket: ticket, store: store, operation: operation, buffer: buffer, isSlow: random.oneIn(16)))
                    return nil
                }
            case .keep(let ticket, let unit, _):
                while unit.recordToKeep() != nil { unit.settle(isKept: !random.oneIn(8)) }
                client.session.kept(ticket, now: world.now)
            case .askSendTargets(let request): client.session.answer(request, [])
            case .waitForMemory:
                memoryWaiters.append(client)
                world.data.whenReleased { [flag = world.memoryReleased] in flag.raise() }
                client.session.memoryAvailable(isReport: false, now: world.now)
            case .close(let reason, _):
                client.closed = reason
                count("closed")
            }
        }
    }

    /// The store begins, or ends, one of its operations: any.
    private func store() {
        guard !inStore.isEmpty else { return }
        let position = random.below(inStore.count)
        let operation = inStore[position]
        if operation.isSlow && !random.oneIn(24) { return }
        if operation.outcome == nil {
            inStore[position].outcome = operation.store.perform(operation.operation, operation.buffer)
            if random.oneIn(2) { return }
        }
        let outcome = inStore.remove(at: position).outcome!
        operation.client.session.completed(operation.ticket, outcome: outcome, now: world.now)
        carryOutActions(operation.client)
    }

    private func deliver() {
        guard let (nexus, notification) = world.mailbox.takeFirst() else { return }
        guard let client = world.clients.first(where: { $0.session.start.nexus == nexus }) else { return }
        client.session.notified(notification, now: world.now)
        carryOutActions(client)
    }

    private func wakeMemoryWaiters() {
        guard world.memoryReleased.count != memoryReleasesSeen else { return }
        memoryReleasesSeen = world.memoryReleased.count
        let waiters = memoryWaiters
        memoryWaiters = []
        for client in waiters {
            client.session.memoryAvailable(isReport: true, now: world.now)
            carryOutActions(client)
        }
    }

    private func tick() {
        world.now += UInt64(random.below(3)) * SessionLimits.second
        for client in world.clients {
            client.session.tick(now: world.now)
            carryOutActions(client)
        }
    }

    private func tear(_ initiator: Initiator, _ client: Client) {
        count("torn")
        delay(client)
        client.session.end(.connectionLost)
        carryOutActions(client)
        client.closed = .connectionLost
        initiator.client = nil
    }

    /// What a dead initiator has in the store is sometimes the last to get done: its successor must not see it happen.
    private func delay(_ client: Client) {
        guard random.oneIn(2) else { return }
        for index in inStore.indices where inStore[index].client === client { inStore[index].isSlow = true }
    }

    /// A new connection, while the target has not noticed that the old one is dead.
    private func logInAgain(_ initiator: Initiator) {
        guard let old = initiator.client else { return }
        count("reinstated")
        delay(old)
        world.target.reinstate(old.session.start.name) {}
        initiator.client = nil
    }

    private func manage(_ initiator: Initiator, _ client: Client, calm: Bool) {
        guard initiator.functions.count < 4 else { return }
        let stuck = initiator.commands.contains { $0.value.issued < step - 600 }
        if stuck && initiator.functions.isEmpty {
            let tag = client.function(2)
            initiator.functions[tag] = (.all, Set(initiator.commands.keys))
        } else if !calm && random.oneIn(3) {
            if random.oneIn(3), let task = initiator.commands.keys.min() {
                initiator.functions[client.function(1, of: task)] = (.task(task), [task])
            } else if random.oneIn(2) {
                initiator.functions[client.function(random.oneIn(2) ? 2 : 4)] = (.all, Set(initiator.commands.keys))
            } else if random.oneIn(3) {
                count("resets")
                initiator.functions[client.function(random.oneIn(3) ? 6 : 5)] = (.all, Set(initiator.commands.keys))
            }
        }
    }
}
