import ISCSI
import SCSI
import Target
import Testing

private func block(_ value: UInt8, _ count: Int = 1) -> [UInt8] { [UInt8](repeating: value, count: 512 * count) }

@Suite struct SessionTests {
    // MARK: Reinstatement and ends

    @Test("A delayed write never lands after its nexus was replaced")
    func reinstatement() {
        let world = World()
        let old = world.ready()
        world.holdsOperations = true
        old.command(CDB.write(0, 1), write: block(1))
        old.command(CDB.write(0, 1), write: block(2), attribute: 2)
        world.run()
        #expect(world.connect() == nil)
        let gone = Flag()
        world.target.reinstate(old.session.start.name) { gone.raise() }
        world.run()
        #expect(old.closed == .reinstated)
        #expect(gone.count == 0)
        #expect(world.connect() == nil)
        world.releaseAll()
        #expect(gone.count == 1)
        #expect(old.session.isQuiet)
        world.holdsOperations = false
        let new = world.ready()
        let read = new.command(CDB.read(0, 1), read: 512)
        world.run()
        #expect(new.results[read]?.dataIn == block(1))
        #expect(world.store(1).writes == 1)
        #expect(world.held.isEmpty)
    }

    @Test("An initiator port without a session is free at once; another ISID is another port")
    func otherPorts() {
        let world = World()
        let client = world.ready()
        let free = Flag()
        world.target.reinstate(NexusName(initiator: InitiatorPort(name: client.session.start.name.initiator.name, isid: 2), portalGroupTag: 1)) { free.raise() }
        #expect(free.count == 1)
        #expect(world.connect(isid: 2) != nil)
        #expect(world.connect("IQN.2026-01.TEST:A") == nil)
        #expect(world.target.sessions.count == 2)
    }

    @Test("A new nexus is told POWER ON OCCURRED, and a RESERVE(6) of the old one is gone")
    func nothingIsLeft() {
        let world = World()
        let old = world.ready()
        old.command(CDB.reserve6)
        world.run()
        world.tear(old)
        #expect(old.session.isQuiet)
        #expect(world.target.sessions.isEmpty)
        let new = world.connect()!
        let first = new.command(CDB.testUnitReady)
        let second = new.command(CDB.testUnitReady)
        world.run()
        #expect(new.results[first]?.code == [6, 0x29, 0])
        #expect(new.results[second]?.status == 0)
    }

    @Test("A registration outlives its nexus")
    func registrationStays() {
        let world = World()
        let old = world.ready()
        old.command(CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 0x11))
        old.command(CDB.reserveOut(1, type: 3), write: CDB.reserveOutList(key: 0x11))
        world.run()
        world.tear(old)
        let (same, other) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        let mine = same.command(CDB.write(0, 1), write: block(1))
        let theirs = other.command(CDB.write(0, 1), write: block(2))
        world.run()
        #expect(same.results[mine]?.status == 0)
        #expect(other.results[theirs]?.status == 0x18)
    }

    @Test("When the connection is gone, nothing that was not begun is begun, and buffers go back")
    func torn() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        client.command(CDB.write(0, 1), write: block(1))
        client.command(CDB.write(1, 1), write: block(1), attribute: 2)
        client.holdsTransfers = true
        client.command(CDB.write(2, 100), write: block(1, 100))
        world.run()
        world.tear(client)
        #expect(!client.session.isQuiet)
        world.releaseAll()
        #expect(client.session.isQuiet)
        #expect(world.store(1).writes == 1)
        world.clients = []
        #expect(world.data.inUse == 0)
    }

    @Test("A failed flush is remembered even if nobody hears of it")
    func failedFlushOfTheDead() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        client.command(CDB.synchronizeCache)
        world.run()
        world.tear(client)
        world.store(1).failures = [.flushFailed]
        world.releaseAll()
        world.holdsOperations = false
        let next = world.ready()
        let write = next.command(CDB.write(0, 1), write: block(1))
        world.run()
        #expect(next.results[write]?.code == [3, 0x0c, 0])
    }

    @Test("All sessions can be ended, and it is told when nothing of them is left")
    func endAll() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        second.command(CDB.read(0, 1), read: 512)
        world.run()
        let gone = Flag()
        world.target.endSessions(.administrator) { gone.raise() }
        world.run()
        #expect(first.closed == .administrator && second.closed == .administrator)
        #expect(gone.count == 0)
        world.releaseAll()
        #expect(gone.count == 1)
        #expect(world.target.sessions.isEmpty)
    }

    // MARK: Logout

    @Test("Logout is answered when every task has left the store, and closes the connection after that", arguments: [0, 1] as [UInt8])
    func logout(reason: UInt8) {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        client.command(CDB.write(0, 1), write: block(1))
        world.run()
        client.logout(reason: reason)
        world.run()
        #expect(client.logoutResponse == nil)
        world.releaseAll()
        #expect(client.logoutResponse == 0)
        #expect(client.closed == .loggedOut)
        #expect(client.session.isQuiet)
    }

    @Test("Logout of another connection, or for recovery, is refused and the session goes on")
    func logoutRefused() {
        let world = World()
        let client = world.ready()
        client.logout(reason: 1, cid: 9)
        world.run()
        #expect(client.logoutResponse == 1)
        client.logout(reason: 2)
        world.run()
        #expect(client.logoutResponse == 2)
        let ready = client.command(CDB.testUnitReady)
        world.run()
        #expect(client.results[ready]?.status == 0)
    }

    // MARK: Pings

    @Test("A silent initiator is pinged, and closed when it does not answer")
    func silentInitiator() {
        let world = World()
        let client = world.connect(nopInterval: 5, nopCount: 2)!
        client.answersPings = false
        world.tick(seconds: 4)
        #expect(client.pings == 0)
        world.tick(seconds: 1)
        #expect(client.pings == 1)
        world.tick(seconds: 5)
        #expect(client.pings == 2)
        #expect(client.closed == nil)
        world.tick(seconds: 5)
        #expect(client.closed == .pingTimeout)
    }

    @Test("One that answers pings stays, and one that talks is not pinged")
    func answeredPings() {
        let world = World()
        let client = world.connect(nopInterval: 5, nopCount: 2)!
        world.tick(seconds: 60)
        #expect(client.closed == nil)
        #expect(client.pings >= 10)
        let before = client.pings
        for _ in 0..<20 {
            client.command(CDB.testUnitReady)
            world.tick(seconds: 2)
        }
        #expect(client.pings == before)
    }

    @Test("Without an interval nobody is pinged")
    func noPings() {
        let world = World()
        let client = world.connect()!
        world.tick(seconds: 300)
        #expect(client.pings == 0 && client.closed == nil)
    }

    // MARK: Memory

    private var immediate: NegotiatedParameters {
        var parameters = NegotiatedParameters()
        parameters.maxRecvDataSegmentLength = 65536
        parameters.firstBurstLength = 65536
        return parameters
    }

    @Test("A write without memory stops the reading until there is some")
    func writeWaitsForMemory() {
        let world = World(memory: 16384)
        let client = world.ready(parameters: immediate)
        var hog = world.data.allocate(8192)
        let write = client.command(CDB.write(0, 24), write: block(7, 24))
        let behind = client.command(CDB.testUnitReady)
        world.run()
        #expect(!client.session.wantsInput)
        #expect(client.results[behind] == nil)
        #expect(hog != nil)
        hog = nil
        world.run()
        #expect(client.session.wantsInput)
        #expect(client.results[write]?.status == 0 && client.results[behind]?.status == 0)
        let isWritten = world.store(1).bytes(0..<24 * 512) == block(7, 24)
        #expect(isWritten)
    }

    @Test("A write that has waited too long for memory is answered BUSY, and the connection goes on")
    func writeMemoryDeadline() {
        let world = World(memory: 16384)
        let client = world.ready(parameters: immediate)
        let hog = world.data.allocate(8192)
        let write = client.command(CDB.write(0, 24), write: block(7, 24))
        let behind = client.command(CDB.testUnitReady)
        world.run()
        world.tick(seconds: SessionLimits.memoryWait / SessionLimits.second - 1)
        #expect(client.results[write] == nil)
        world.tick(seconds: 1)
        #expect(client.results[write]?.status == 8)
        #expect(client.results[behind]?.status == 0)
        #expect(world.store(1).writes == 0)
        #expect(hog != nil)
    }

    @Test("A read without memory waits, and the connection goes on")
    func readWaitsForMemory() {
        let world = World(memory: 16384)
        let client = world.ready()
        var hog = world.data.allocate(8192)
        let read = client.command(CDB.read(0, 24), read: 24 * 512)
        let behind = client.command(CDB.testUnitReady)
        world.run()
        #expect(client.results[read] == nil)
        #expect(client.results[behind]?.status == 0)
        #expect(hog != nil)
        hog = nil
        world.run()
        #expect(client.results[read]?.dataIn.count == 24 * 512)
    }

    @Test("A read that has waited too long for memory is answered BUSY")
    func readMemoryDeadline() {
        let world = World(memory: 16384)
        let client = world.ready()
        let hog = world.data.allocate(16384)
        let read = client.command(CDB.read(0, 24), read: 24 * 512)
        world.run()
        world.tick(seconds: 29)
        #expect(client.results[read] == nil)
        world.tick(seconds: 2)
        #expect(client.results[read]?.status == 8)
        #expect(hog != nil)
    }

    @Test("A session whose own unread data hold all memory refuses a write rather than wait for ever")
    func noWaitForOneself() {
        var parameters = immediate
        parameters.immediateData = false
        let world = World(memory: 16384)
        let client = world.ready(parameters: parameters)
        client.holdsTransfers = true
        let first = client.command(CDB.write(0, 24), write: block(7, 24))
        let second = client.command(CDB.write(100, 24), write: block(8, 24))
        world.run()
        #expect(client.results[second]?.status == 0x28)
        client.holdsTransfers = false
        client.answerTransfers()
        world.run()
        #expect(client.results[first]?.status == 0)
        #expect(world.data.inUse == 0)
    }

    @Test("A read that waits for memory which tasks behind it hold is refused, so that those go on")
    func noWaitForThoseBehind() {
        let world = World(memory: 16384)
        let client = world.ready(parameters: immediate)
        let hog = world.data.allocate(8192)
        let read = client.command(CDB.read(0, 24), read: 24 * 512)
        let write = client.command(CDB.write(50, 8), write: block(9, 8), attribute: 2)
        world.run()
        #expect(client.results[read]?.status == 0x28)
        #expect(client.results[write]?.status == 0)
        #expect(hog != nil)
    }

    @Test("A write that waits for memory can be ended: by a reset, by the removal of its logical unit", arguments: [true, false])
    func endWaitingWrite(byReset: Bool) {
        let world = World(disks: 2, memory: 16384)
        let (first, second) = (world.ready(parameters: immediate), world.ready("iqn.2026-01.test:b"))
        let hog = world.data.allocate(8192)
        let write = first.command(CDB.write(0, 24), write: block(7, 24))
        let behind = first.command(CDB.inquiry(96), lun: 2, read: 96)
        world.run()
        #expect(!first.session.wantsInput)
        if byReset {
            let reset = second.function(5)
            world.run()
            #expect(second.functionResponses[reset] == 0)
            #expect(first.results[write] == nil)
        } else {
            world.target.remove(number: 1)
            world.run()
            #expect(first.results[write]?.code == [5, 0x25, 0])
        }
        #expect(first.results[behind]?.status == 0)
        #expect(hog != nil)
    }

    @Test("A session has its share of the memory again and again")
    func shareComesBack() {
        let world = World(blocks: 8192, memory: 20 << 20)
        let client = world.ready()
        for _ in 0..<20 {
            let read = client.command(CDB.read(0, 2048), read: 4096)
            let write = client.command(CDB.write(4096, 2048), write: block(0, 1))
            world.run()
            #expect(client.results[read]?.status == 0)
            #expect(client.results[write]?.status == 0)
        }
        #expect(world.data.inUse <= SessionLimits.spareMemory)
        world.tick(seconds: 2)
        #expect(world.data.inUse == 0)
    }

    @Test("Memory waited for in vain goes to the next when the one who waits is aborted")
    func abortedWaiter() {
        let world = World(memory: 16384)
        let client = world.ready()
        var hog = world.data.allocate(16384)
        let tall = client.command(CDB.read(0, 32), read: 32 * 512)
        let small = client.command(CDB.read(0, 8), read: 8 * 512)
        world.run()
        let function = client.function(1, of: tall)
        world.run()
        #expect(client.functionResponses[function] == 0)
        #expect(hog != nil)
        hog = nil
        world.run()
        #expect(client.results[tall] == nil)
        #expect(client.results[small]?.status == 0)
    }

    // MARK: Answers that are not read

    @Test("Requests whose answers are never read stop being read, and hold no more than a share of the memory")
    func unreadAnswers() {
        let world = World(blocks: 4096, memory: 64 << 20)
        let client = world.ready()
        client.reads = false
        for _ in 0..<60 { client.command(CDB.read(0, 2048), read: 1 << 20) }
        world.run()
        #expect(!client.session.wantsInput)
        #expect(world.data.inUse == (64 << 20) / SessionLimits.shareOfMemory)
        #expect(world.answers.inUse <= 4 << 20)
        world.tear(client)
        #expect(world.data.inUse == 0)
    }

    @Test("Pings whose answers are never read stop being read")
    func unreadPings() {
        let world = World()
        let client = world.ready()
        client.reads = false
        var ping = PDU(opcode: 0x00, immediate: true, itt: 7)
        ping.set32(20, 0xffff_ffff)
        ping.set32(24, client.cmdSN)
        ping.data = block(1, 16)
        for _ in 0..<300 { client.send(ping) }
        world.run()
        #expect(!client.session.wantsInput)
        #expect(world.answers.inUse <= 2 << 20)
        world.tick(seconds: 62)
        #expect(client.closed == .outputStalled)
        #expect(world.answers.inUse == 0)
    }

    @Test("A write whose data do not come ends the session after a while; other silence does not")
    func inputStall() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        first.holdsTransfers = true
        first.command(CDB.write(0, 100), write: block(1, 100))
        world.run()
        world.tick(seconds: 59)
        #expect(first.closed == nil)
        world.tick(seconds: 2)
        #expect(first.closed == .inputStalled)
        #expect(second.closed == nil)
        #expect(world.data.inUse == 0)
    }

    @Test("Answers that are not read for too long while they hold memory end the session")
    func outputStall() {
        let world = World()
        let client = world.ready()
        client.reads = false
        client.command(CDB.read(0, 64), read: 32768)
        world.run()
        world.tick(seconds: 58)
        #expect(client.closed == nil)
        world.tick(seconds: 4)
        #expect(client.closed == .outputStalled)
    }

    @Test("A session that has ended holds no memory for answers that nobody will read")
    func endedHoldsNothing() {
        let world = World()
        let client = world.ready()
        client.reads = false
        client.command(CDB.read(0, 64), read: 32768)
        world.run()
        #expect(world.data.inUse > 0)
        world.tear(client)
        #expect(world.data.inUse == 0 && world.answers.inUse == 0)
    }

    @Test("An idle session holds no memory")
    func idle() {
        let world = World()
        let client = world.ready()
        client.command(CDB.read(0, 64), read: 32768)
        world.run()
        #expect(world.data.inUse == 0)
        #expect(world.answers.inUse == 0)
    }

    // MARK: Bad input

    @Test("What breaks the protocol ends the session, nothing else")
    func badInput() {
        let world = World()
        let good = world.ready("iqn.2026-01.test:b")
        let client = world.ready()
        var pdu = PDU(opcode: 0x01, itt: 99)
        pdu.header[4] = 1
        client.send(pdu)
        world.run()
        let ready = good.command(CDB.testUnitReady)
        world.run()
        #expect(good.results[ready]?.status == 0)
        if client.closed != nil { #expect(client.session.isQuiet) }
    }

    @Test("Random bytes and PDUs with random changes never stop the target", arguments: 0..<8)
    func fuzz(seed: Int) {
        var random = Random(seed: UInt64(seed))
        let world = World(disks: 2, memory: 1 << 20)
        for round in 0..<60 {
            guard let client = world.connect("iqn.2026-01.test:f\(round)") else { continue }
            for _ in 0..<30 where client.closed == nil {
                let before = client.pending.count
                switch random.below(6) {
                case 0: client.command((0..<16).map { _ in UInt8(random.below(256)) }, lun: random.below(4), read: random.below(5000), attribute: UInt8(random.below(8)))
                case 1: client.command(CDB.write(UInt64(random.below(1100)), random.below(40)), lun: random.below(3), write: block(1, random.below(30)))
                case 2: _ = client.function(UInt8(random.below(10)), lun: random.below(3), of: UInt32(random.below(30)))
                case 3: client.command(CDB.read(UInt64(random.below(1100)), random.below(40)), lun: random.below(3), read: random.below(30000))
                case 4: if random.below(10) == 0 { client.logout(reason: UInt8(random.below(3)), cid: 7) }
                default: client.command(CDB.reserveOut(UInt8(random.below(9)), type: UInt8(random.below(9))), write: CDB.reserveOutList(key: UInt64(random.below(3)), actionKey: UInt64(random.below(3))))
                }
                if random.below(4) == 0 && client.pending.count > before {
                    let at = before + random.below(min(48, client.pending.count - before))
                    client.pending[at] = UInt8(random.below(256))
                }
                world.holdsOperations = random.below(2) == 0
                world.run()
                if random.below(3) == 0 && !world.held.isEmpty { world.release(random.below(world.held.count)) }
            }
            world.tear(client)
            world.releaseAll()
            #expect(client.session.isQuiet)
            world.clients.removeAll { $0 === client }
        }
        #expect(world.data.inUse == 0)
        #expect(world.target.sessions.isEmpty)
    }
}
