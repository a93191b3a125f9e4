import SCSI
import Testing
@testable import Target

/// Who holds a medium: commands that have begun, and nexuses that have worked with it until they hear of another one.
@Suite struct MediumTests {
    @Test func idleSessionsLetGoOfAMediumThatIsChanged() throws {
        let world = World()
        let clients = [world.ready("iqn.2026-01.test:a"), world.ready("iqn.2026-01.test:b")]
        for client in clients { client.command(CDB.read(0, 1), read: 512) }
        world.run()
        weak let old = world.store(1)
        for hasMedium in [true, false] {
            world.changeMedium(1, hasMedium: hasMedium)
            world.run()
            #expect(old == nil)
        }
    }

    @Test func commandsThatHaveBegunHoldTheirs() throws {
        let world = World()
        let client = world.ready()
        world.holdsOperations = true
        let first = client.command(CDB.write(0, 1), write: [UInt8](repeating: 1, count: 512))
        world.run()
        weak let old = world.store(1)
        world.changeMedium(1)
        let second = client.command(CDB.write(1, 1), write: [UInt8](repeating: 2, count: 512))
        world.run()
        #expect(world.held.count == 2 && old != nil && world.held[0].store === old && world.held[1].store === world.store(1))
        world.release()
        #expect(client.results[first]?.status == 0 && old == nil)
        world.release()
        #expect(client.results[second]?.status == 0 && world.store(1).bytes(512..<513) == [2] && world.store(1).writes == 1)
    }

    /// What nobody has told of is seen by the next command.
    @Test func theNextCommandIsForTheMediumThatIsThere() throws {
        let world = World()
        let client = world.ready()
        let unit = try #require(world.target.unit(1))
        client.command(CDB.read(0, 1), read: 512)
        world.run()
        let new = MemoryStore(length: world.store(1).length)
        _ = unit.apply(unit.settings, medium: new)
        let write = client.command(CDB.write(0, 1), write: [UInt8](repeating: 3, count: 512))
        world.run()
        #expect(client.results[write]?.status == 0 && new.writes == 1 && world.store(1).writes == 0)
    }

    @Test func aUnitThatIsGoneLeavesItsMediumToNobody() throws {
        let world = World(disks: 2)
        let client = world.ready()
        client.command(CDB.read(0, 1), read: 512)
        world.run()
        weak let old = world.store(1)
        let released = Flag()
        let unit = try #require(world.target.unit(1))
        world.target.remove(number: 1) { released.raise() }
        world.stores[ObjectIdentifier(unit)] = nil
        world.run()
        unit.removeMedium()
        #expect(released.count == 1 && old == nil)
    }

    @Test func aSessionThatHasEndedHoldsNone() throws {
        let world = World()
        let client = world.ready()
        client.command(CDB.read(0, 1), read: 512)
        world.run()
        weak let old = world.store(1)
        world.tear(client)
        let unit = try #require(world.target.unit(1))
        unit.removeMedium()
        world.stores = [:]
        #expect(old == nil && client.session.isQuiet)
    }
}
