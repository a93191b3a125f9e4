import ISCSI
import SCSI
import Target
import Testing

private func block(_ value: UInt8, _ count: Int = 1) -> [UInt8] { [UInt8](repeating: value, count: 512 * count) }

@Suite struct TaskManagementTests {
    @Test("ABORT TASK is answered when the task has left the store, and the task never")
    func abortTask() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        let task = client.command(CDB.write(0, 1), write: block(1))
        world.run()
        let function = client.function(1, of: task)
        world.run()
        #expect(client.functionResponses[function] == nil)
        world.releaseAll()
        #expect(client.functionResponses[function] == 0)
        #expect(client.results[task] == nil)
        #expect(world.data.inUse == 0)
    }

    @Test("A second function for a task that is being aborted waits for it as the first one does", arguments: [1, 2] as [UInt8])
    func abortTwice(first: UInt8) {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        let task = client.command(CDB.write(0, 1), write: block(1))
        world.run()
        let functions = [client.function(first, of: task), client.function(1, of: task), client.function(2)]
        world.run()
        #expect(functions.allSatisfy { client.functionResponses[$0] == nil })
        world.releaseAll()
        #expect(functions.allSatisfy { client.functionResponses[$0] == 0 })
    }

    @Test("A write that waits for its turn, or for its data, never starts once it is aborted")
    func abortDormant() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        let first = client.command(CDB.read(0, 1), read: 512)
        let dormant = client.command(CDB.write(1, 1), write: block(1), attribute: 2)
        client.holdsTransfers = true
        let collecting = client.command(CDB.write(2, 64), write: block(2, 64))
        world.run()
        let functions = [client.function(1, of: dormant), client.function(1, of: collecting)]
        world.run()
        #expect(functions.map { client.functionResponses[$0] } == [0, 0])
        client.holdsTransfers = false
        client.answerTransfers()
        world.run()
        world.releaseAll()
        #expect(world.store(1).writes == 0)
        #expect(client.results[first]?.status == 0)
        #expect(client.results[dormant] == nil && client.results[collecting] == nil)
        let after = client.command(CDB.read(9, 1), read: 512)
        world.run()
        world.releaseAll()
        #expect(client.results[after]?.status == 0)
    }

    @Test("A command and its ABORT TASK in one piece: nothing reaches the store")
    func abortBeforePerform() {
        let world = World()
        let client = world.ready()
        let task = client.command(CDB.write(0, 1), write: block(1))
        let function = client.function(1, of: task)
        world.run()
        #expect(client.functionResponses[function] == 0)
        #expect(client.results[task] == nil)
        #expect(world.store(1).writes == 0)
    }

    @Test("ABORT TASK of a task that is over, or that never was, says that it does not exist")
    func abortNobody() {
        let world = World()
        let client = world.ready()
        let task = client.command(CDB.testUnitReady)
        world.run()
        let functions = [client.function(1, of: task), client.function(1, of: 0x7777)]
        world.run()
        #expect(functions.map { client.functionResponses[$0] } == [1, 1])
    }

    @Test("ABORT TASK SET and CLEAR TASK SET end the tasks of one logical unit and one nexus", arguments: [2, 4] as [UInt8])
    func abortTaskSet(function: UInt8) {
        let world = World(disks: 2)
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        let ended = (0..<3).map { first.command(CDB.read($0, 1), read: 512) }
        let otherUnit = first.command(CDB.read(10, 1), lun: 2, read: 512)
        let otherNexus = second.command(CDB.read(11, 1), read: 512)
        world.run()
        let tag = first.function(function)
        world.run()
        for _ in 0..<3 {
            #expect(first.functionResponses[tag] == nil)
            world.release(world.heldBlocks.firstIndex { $0 < 3 }!)
        }
        #expect(first.functionResponses[tag] == 0)
        world.releaseAll()
        #expect(ended.allSatisfy { first.results[$0] == nil })
        #expect(first.results[otherUnit]?.status == 0)
        #expect(second.results[otherNexus]?.status == 0)
    }

    @Test("LOGICAL UNIT RESET waits for the tasks of all sessions, and all learn of it")
    func unitReset() {
        let world = World(disks: 2)
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        let own = first.command(CDB.write(0, 1), write: block(1))
        let others = second.command(CDB.write(1, 1), write: block(2))
        let untouched = second.command(CDB.write(2, 1), lun: 2, write: block(3))
        world.run()
        let reset = first.function(5)
        world.run()
        world.release(world.heldBlocks.firstIndex(of: 0)!)
        #expect(first.functionResponses[reset] == nil)
        world.release(world.heldBlocks.firstIndex(of: 1)!)
        #expect(first.functionResponses[reset] == 0)
        world.releaseAll()
        #expect(first.results[own] == nil && second.results[others] == nil)
        #expect(second.results[untouched]?.status == 0)
        for client in [first, second] {
            let tag = client.command(CDB.testUnitReady)
            world.run()
            #expect(client.results[tag]?.code.prefix(2) == [6, 0x29])
        }
    }

    @Test("LOGICAL UNIT RESET releases a RESERVE(6)")
    func resetReleases() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        first.command(CDB.reserve6)
        world.run()
        let conflict = second.command(CDB.testUnitReady)
        world.run()
        #expect(second.results[conflict]?.status == 0x18)
        let reset = second.function(5)
        world.run()
        #expect(second.functionResponses[reset] == 0)
        world.clearAttentions(second, 1)
        let free = second.command(CDB.testUnitReady)
        world.run()
        #expect(second.results[free]?.status == 0)
    }

    @Test("A session that ends while others wait for it does not keep them waiting")
    func endedSessionLetsGo() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        second.command(CDB.write(1, 1), write: block(2))
        world.run()
        let reset = first.function(5)
        world.run()
        world.tear(second)
        #expect(first.functionResponses[reset] == nil)
        world.releaseAll()
        #expect(first.functionResponses[reset] == 0)
    }

    @Test("A session that asks for a reset and is gone leaves it done")
    func resetByTheDead() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        second.command(CDB.write(1, 1), write: block(2))
        world.run()
        _ = first.function(5)
        world.run()
        world.tear(first)
        world.releaseAll()
        world.holdsOperations = false
        let ready = second.command(CDB.testUnitReady)
        world.run()
        #expect(second.results[ready]?.code.prefix(2) == [6, 0x29])
        #expect(first.session.isQuiet)
    }

    @Test("TARGET WARM RESET resets every logical unit and leaves the sessions")
    func warmReset() {
        let world = World(disks: 2)
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        second.command(CDB.read(0, 1), read: 512)
        first.command(CDB.read(1, 1), lun: 2, read: 512)
        world.run()
        let reset = first.function(6)
        world.run()
        #expect(first.functionResponses[reset] == nil)
        world.releaseAll()
        #expect(first.functionResponses[reset] == 0)
        #expect(first.closed == nil && second.closed == nil)
        for client in [first, second] {
            for number in [1, 2] {
                let tag = client.command(CDB.testUnitReady, lun: number)
                world.run()
                #expect(client.results[tag]?.code.prefix(2) == [6, 0x29])
            }
        }
    }

    @Test("TARGET COLD RESET ends all sessions, the asking one after its response")
    func coldReset() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        world.holdsOperations = true
        second.command(CDB.read(0, 1), read: 512)
        world.run()
        let reset = first.function(7)
        world.run()
        #expect(second.closed == .targetReset)
        #expect(first.functionResponses[reset] == nil)
        world.releaseAll()
        #expect(first.functionResponses[reset] == 0)
        #expect(first.closed == .targetReset)
        #expect(world.target.sessions.isEmpty)
    }

    @Test("What is not supported, and a LUN that is nobody's, are said to be so")
    func refused() {
        let world = World()
        let client = world.ready()
        let functions: [(UInt8, UInt8)] = [(3, 5), (8, 4), (9, 5), (0x7f, 5)]
        let tags = functions.map { client.function($0.0) }
        let unknown = [2, 4, 5].map { client.function($0, lun: 44) }
        world.run()
        #expect(tags.map { client.functionResponses[$0] } == functions.map(\.1))
        #expect(unknown.map { client.functionResponses[$0] } == [2, 2, 2])
    }

    @Test("More functions than may wait are rejected, and those that wait are answered")
    func tooMany() {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        client.command(CDB.read(0, 1), read: 512)
        world.run()
        var tags: [UInt32] = []
        for _ in 0...SessionLimits.pendingFunctions {
            tags.append(client.function(2))
            world.run()
        }
        let answered = tags.filter { client.functionResponses[$0] != nil }
        #expect(answered.count <= 1)
        #expect(answered.allSatisfy { client.functionResponses[$0] == 255 })
        world.releaseAll()
        #expect(tags.dropLast().allSatisfy { client.functionResponses[$0] == 0 || client.functionResponses[$0] == nil })
        #expect(client.closed == nil)
    }

    /// The first of two initiators has sent PREEMPT AND ABORT, which waits for a write of the second, who holds the reservation.
    private func preempting(in world: World) -> (first: Client, second: Client, preempt: UInt32, write: UInt32) {
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        first.command(CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 0x11))
        second.command(CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 0x22))
        world.run()
        second.command(CDB.reserveOut(1, type: 3), write: CDB.reserveOutList(key: 0x22))
        world.run()
        world.holdsOperations = true
        let write = second.command(CDB.write(0, 1), write: block(1))
        world.run()
        let preempt = first.command(CDB.reserveOut(5, type: 3), write: CDB.reserveOutList(key: 0x11, actionKey: 0x22))
        world.run()
        #expect(first.results[preempt] == nil)
        return (first, second, preempt, write)
    }

    @Test("PREEMPT AND ABORT ends the tasks of those it preempts before it is answered")
    func preemptAndAbort() {
        let world = World()
        let (first, second, preempt, write) = preempting(in: world)
        world.releaseAll()
        #expect(first.results[preempt]?.status == 0)
        #expect(second.results[write] == nil)
        #expect(!world.kept.isEmpty)
        let late = second.command(CDB.write(1, 1), write: block(2))
        world.run()
        #expect(second.results[late]?.status == 2 || second.results[late]?.status == 0x18)
    }

    @Test("A PREEMPT AND ABORT that is aborted while it waits for others is gone when they let go, however long its session has been idle")
    func abortedPreempt() {
        let world = World()
        let (first, second, preempt, _) = preempting(in: world)
        let abort = first.function(1, of: preempt)
        world.run()
        world.tick(seconds: 3)
        world.releaseAll()
        world.run()
        #expect(first.functionResponses[abort] == 0)
        #expect(first.results[preempt] == nil && first.closed == nil && second.closed == nil)
        let later = first.command(CDB.read(0, 1))
        world.run()
        world.releaseAll()
        #expect(first.results[later] != nil)
    }

    @Test("Two that preempt each other at once both come to an end")
    func mutualPreempt() {
        let world = World()
        let (first, second) = (world.ready(), world.ready("iqn.2026-01.test:b"))
        first.command(CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 0x11))
        second.command(CDB.reserveOut(0), write: CDB.reserveOutList(actionKey: 0x22))
        world.run()
        first.command(CDB.reserveOut(5, type: 3), write: CDB.reserveOutList(key: 0x11, actionKey: 0x22))
        second.command(CDB.reserveOut(5, type: 3), write: CDB.reserveOutList(key: 0x22, actionKey: 0x11))
        world.run()
        for client in [first, second] {
            let tag = client.command(CDB.inquiry(96), read: 96)
            world.run()
            #expect(client.results[tag]?.status == 0)
        }
    }
}
