import Door
import Testing

@testable import DataPlane

/// Nothing of an old nexus outlives it, and no grant outlives its withdrawal.
@Suite struct ReinstatementTests {
    private let old = [UInt8](repeating: 0x0d, count: 512), new = [UInt8](repeating: 0x2e, count: 512)

    @Test("The login response that replaces a session waits for its writes", arguments: [false, true])
    func delayedWrite(continuing: Bool) throws {
        let rig = try Rig()
        let first = try rig.grant(tsih: 7)
        try first.begin()
        rig.store(0).hold(.write)
        first.command(Client.write(5), writes: old)
        #expect(eventually { rig.store(0).heldBack == 1 })

        let second = try rig.grant(tsih: continuing ? 7 : 8, continuing: continuing)
        try rig.settle()
        #expect(!second.hearsAnything(), "it is let in while a write of the old session is in the store")
        rig.store(0).release()
        try second.begin()
        #expect(try rig.bytes("disk", block: 5) == old, "the old write is over when the new session begins")
        #expect(second.perform(Client.write(5), writes: new) == 0)
        #expect(try rig.bytes("disk", block: 5) == new)

        // Control hears of the old one's end before it hears of the new one.
        #expect(try rig.news() == (7, nil))
        #expect(try rig.news() == (7, .reinstated))
        #expect(try rig.news() == (continuing ? 7 : 8, nil))
    }

    @Test("A write that comes back late from a connection that was lost does not outlive the nexus either")
    func lostConnection() throws {
        let rig = try Rig()
        let first = try rig.grant(tsih: 1)
        try first.begin()
        rig.store(0).hold(.write)
        first.command(Client.write(9), writes: old)
        #expect(eventually { rig.store(0).heldBack == 1 })
        first.reset()
        let second = try rig.grant(tsih: 2)
        try rig.settle()
        #expect(!second.hearsAnything())
        rig.store(0).release()
        try second.begin()
        #expect(try rig.bytes("disk", block: 9) == old)
    }

    @Test("A grant that waits for the old session's end is withdrawn when its session is to end")
    func endedBeforeItBegan() throws {
        let rig = try Rig()
        let first = try rig.grant(tsih: 1)
        try first.begin()
        rig.store(0).hold(.write)
        first.command(Client.write(0), writes: old)
        #expect(eventually { rig.store(0).heldBack == 1 })
        let second = try rig.grant(tsih: 2)
        // It has begun to end the old one: the reactor has looked at that, and its answer has been heard.
        for _ in 0..<2 { try rig.settle() }
        let end = try rig.ask { .endSession($0, tsih: 2) }
        #expect(try rig.answer(to: end) == nil)
        #expect(second.loginStatus() == 0x0203)
        #expect(second.ends())
        #expect(try rig.news() == (1, nil))
        #expect(try rig.news() == (2, .neverBegan))
        rig.store(0).release()
        #expect(try rig.news() == (1, .reinstated))
        try rig.must { .removeTarget($0, tid: Rig.tid, force: false) }
    }

    @Test("Whoever ends a session is answered when its I/O is over and its end has been reported")
    func endedWithWrites() throws {
        let rig = try Rig()
        let client = try rig.grant(tsih: 1)
        try client.begin()
        rig.store(0).hold(.write)
        client.command(Client.write(5), writes: old)
        #expect(eventually { rig.store(0).heldBack == 1 })
        let end = try rig.ask { .endSession($0, tsih: 1) }
        try rig.settle()
        #expect(!rig.hasHeard { if case .done(end) = $0 { true } else { false } }, "a write of it is in the store")
        rig.store(0).release()
        #expect(try rig.answer(to: end) == nil)
        #expect(rig.hasHeard { if case .sessionEnded(1, _, .administrator) = $0 { true } else { false } })
    }

    @Test("A session is ended however soon after its grant", arguments: 0..<8)
    func endedAtOnce(round: Int) throws {
        let rig = try Rig()
        for tsih in UInt16(1)...20 {
            let client = try rig.grant(tsih: tsih, isid: UInt64(tsih))
            for _ in 0..<round { _ = client.hearsAnything(within: 10_000) }
            let end = try rig.ask { .endSession($0, tsih: tsih) }
            #expect(try rig.answer(to: end) == nil)
            // Refused, or begun and ended; but not served.
            #expect(client.ends())
            let news = try rig.news()
            #expect(news.tsih == tsih && (news.end == nil || news.end == .neverBegan))
            if news.end == nil { #expect(try rig.news() == (tsih, .administrator)) }
        }
    }

    @Test("A target is removed however soon after a grant, and nobody is left on it", arguments: 0..<8)
    func removedAtOnce(round: Int) throws {
        let rig = try Rig()
        let clients = try (UInt16(1)...8).map { try rig.grant(tsih: $0, isid: UInt64($0)) }
        for _ in 0..<round { _ = clients[0].hearsAnything(within: 10_000) }
        let removal = try rig.ask { .removeTarget($0, tid: Rig.tid, force: true) }
        #expect(try rig.answer(to: removal) == nil)
        #expect(clients.allSatisfy { $0.ends() })
    }

    @Test("Of many logins of one initiator port the last one is served, and control's books come out even", arguments: 0..<4)
    func crowd(round: Int) throws {
        let rig = try Rig()
        let count = 24
        var clients: [Client] = []
        for _ in 0..<count {
            clients.append(try rig.grant(tsih: 3, continuing: true))
            for _ in 0..<round { _ = clients[0].hearsAnything(within: 10_000) }
        }
        try #require(clients.removeLast().loginStatus() == 0)
        var pending = count, isServed = false
        while pending > 0 || !isServed {
            // As control counts, and ends a data process that counts otherwise.
            switch try rig.news().end {
            case nil:
                #expect(!isServed && pending > 0)
                (pending, isServed) = (pending - 1, true)
            case .neverBegan?:
                #expect(pending > 0)
                pending -= 1
            case .some:
                #expect(isServed)
                isServed = false
            }
        }
    }
}
