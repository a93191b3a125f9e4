import Bytes
import Crypto
import Foundation
import Issuing
import Reactor
import Testing

@testable import TLS

@Suite struct StreamTests {
    let party: Party
    init() throws { party = try Party.common.get() }

    private func pair(on wire: Wire? = nil, policy: TLSPolicy = .strict) throws -> Pair {
        let pair = try Pair(party.server { $0.policy = policy }, party.client(nil, .nobody, policy), on: wire)
        _ = try pair.connect()
        return pair
    }

    @Test("Through the smallest socket buffers, in pieces of any size, both ways at once, each byte arrives once and in order", arguments: [1, 7, 100, 4096, 16384, 16385, 100_000])
    func bothWays(piece: Int) throws {
        let pair = try pair(on: Wire(buffer: 1))
        let count = min(1_500_000, piece * 3000)
        let down = pattern(count, seed: 1), up = pattern(count, seed: 2)
        var waited = 0
        final class Way {
            var queue = OutputQueue(pool: answers)
            var queued = 0
            var arrived: [UInt8] = []
        }
        let ways = [Way(), Way()]
        let ends = [(pair.server, pair.client, down), (pair.client, pair.server, up)]
        var room = [UInt8](repeating: 0, count: 30000)
        var turns = 0
        while ways.contains(where: { $0.arrived.count < count }) {
            turns += 1
            guard turns < 1_000_000 else { throw Unexpected(description: "it stands still") }
            for (way, end) in zip(ways, ends) {
                // A few pieces wait at a time, as pieces and as buffers in turn.
                while way.queue.byteCount < 4 * piece, way.queued < count {
                    let next = min(piece, count - way.queued)
                    let bytes = end.2[way.queued..<way.queued + next]
                    if turns % 2 == 0 {
                        let buffer = answers.allocate(next)!
                        buffer.copy(Array(bytes).span, to: 0)
                        way.queue.append(buffer, 0..<next)
                    } else {
                        way.queue.append(copying: Array(bytes).span)
                    }
                    way.queued += next
                }
                switch end.0.send(&way.queue) {
                case .done: break
                case .wouldBlock: waited += 1
                case .closed(let error): throw error
                }
                if turns % 3 != 0 {
                    switch end.1.receive(into: &room, 0..<min(room.count, piece * 2 + 1)) {
                    case .received(let got): way.arrived += room[..<got]
                    case .wouldBlock: break
                    case .closed(let error): throw Unexpected(description: "\(error as Any)")
                    }
                }
            }
        }
        #expect(ways[0].arrived == down)
        #expect(ways[1].arrived == up)
        #expect(piece < 100 || waited > 10, "the socket was full now and then")
    }

    @Test("A large segment is encrypted from where it lies in records of 16 KiB; small ones are gathered into such records")
    func records() throws {
        let pair = try pair()
        var room = [UInt8](repeating: 0, count: 1 << 20)
        /// Lengths of the records on the wire, without what encryption adds.
        func sent(_ segments: [Int]) throws -> (records: [Int], copied: Int) {
            var queue = OutputQueue(pool: answers)
            for length in segments {
                let buffer = answers.allocate(length)!
                queue.append(buffer, 0..<length)
            }
            let before = pair.server.copied
            guard case .done = pair.server.send(&queue) else { throw Unexpected(description: "the socket is full") }
            var records: [Int] = []
            var count = 0
            while case .received(let more) = Socket.receive(pair.wire.client, into: &room, count..<room.count) { count += more }
            var start = 0
            while start < count {
                #expect(room[start] == 23)
                let length = Int(room[start + 3]) << 8 | Int(room[start + 4])
                // One byte of type and sixteen of tag (RFC 8446 §5.2).
                records.append(length - 17)
                start += 5 + length
            }
            return (records, pair.server.copied - before)
        }
        for (segments, records, copied) in [
            ([65536 + 48], [16384, 16384, 16384, 16384, 48], 0),
            ([48, 65536], [48, 16384, 16384, 16384, 16384], 0),
            ([48], [48], 0),
            ([16384], [16384], 0),
            ([100, 200, 300], [600], 600),
            ([4144, 4144, 4144, 4144, 4144], [16384, 4336], 20720),
            ([16000, 1000, 16384], [16384, 616, 16384], 16384),
            ([20000, 20000], [16384, 3616, 16384, 3616], 0),
            ([20000, 10, 10], [16384, 3636], 3636),
        ] {
            let found = try sent(segments)
            #expect(found.records == records, "\(segments)")
            #expect(found.copied == copied, "\(segments)")
            #expect(found.records.reduce(0, +) == segments.reduce(0, +))
        }
    }

    @Test("Of many small records, few calls of the kernel are made; a record that has come whole is all taken at once")
    func calls() throws {
        let pair = try pair(on: Wire(isTCP: true))
        for _ in 0..<100 {
            var queue = OutputQueue(pattern(48))
            guard case .done = pair.client.send(&queue) else { throw Unexpected(description: "the socket is full") }
        }
        usleep(20000)
        let before = pair.server.systemCalls.receive
        var room = [UInt8](repeating: 0, count: 10000)
        guard case .received(4800) = pair.server.receive(into: &room, 0..<10000) else { throw Unexpected(description: "they come in parts") }
        #expect(pair.server.systemCalls.receive - before == 1)
        #expect(pair.server.isDrained)
        guard case .wouldBlock = pair.server.receive(into: &room, 0..<10000) else { throw Unexpected(description: "there is more") }
    }

    @Test("What is not taken yet is known to be there; a look takes nothing", arguments: TLSPolicy.allCases)
    func peek(policy: TLSPolicy) throws {
        let pair = try pair(policy: policy)
        let bytes = pattern(40000)
        var queue = OutputQueue(bytes)
        guard case .done = pair.client.send(&queue) else { throw Unexpected(description: "the socket is full") }
        var room = [UInt8](repeating: 0, count: 50000)
        guard case .received(let looked) = pair.server.peek(into: &room, 0..<50000) else { throw Unexpected(description: "nothing") }
        #expect(looked == 16384 && room[..<looked] == bytes[..<looked])
        #expect(!pair.server.isDrained)
        guard case .received(100) = pair.server.receive(into: &room, 10..<110) else { throw Unexpected(description: "nothing") }
        #expect(room[10..<110] == bytes[..<100])
        #expect(!pair.server.isDrained)
        guard case .received(39900) = pair.server.receive(into: &room, 0..<39900) else { throw Unexpected(description: "nothing") }
        #expect(room[..<39900] == bytes[100...])
        #expect(pair.server.isDrained)
    }

    @Test("A goodbye ends a connection after what came before it; so does an end without one, which is no error")
    func ends() throws {
        for saysGoodbye in [true, false] {
            let pair = try pair()
            var queue = OutputQueue([1, 2, 3])
            _ = pair.client.send(&queue)
            if saysGoodbye { pair.client.finish() }
            if !saysGoodbye { pair.wire.closeClient() }
            var room = [UInt8](repeating: 0, count: 100)
            guard case .received(3) = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "the bytes are lost") }
            #expect(!pair.server.isDrained || !saysGoodbye, "no event tells of a goodbye")
            guard case .closed(nil) = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "it goes on") }
            guard case .closed(nil) = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "it comes back") }
            var answer = OutputQueue([4])
            guard case .closed = pair.server.send(&answer) else { throw Unexpected(description: "it sends to nobody") }
            pair.server.finish()
        }
    }

    @Test("A record that is changed on its way breaks the connection and gives no byte")
    func tampered() throws {
        let pair = try pair()
        let second = try Wire()
        var queue = OutputQueue(pattern(1000))
        _ = pair.client.send(&queue)
        var room = [UInt8](repeating: 0, count: 2000)
        guard case .received(let count) = Socket.receive(pair.wire.server, into: &room, 0..<2000) else { throw Unexpected(description: "nothing was sent") }
        _ = second
        room[500] ^= 1
        var start = 0
        // Back into the server's socket, from the client's end.
        _ = Socket.send(pair.wire.client, Array(room[..<count]), from: &start)
        var plain = [UInt8](repeating: 0, count: 2000)
        guard case .closed(let error?) = pair.server.receive(into: &plain, 0..<2000) else { throw Unexpected(description: "it is taken") }
        #expect(error.code == EPROTO)
        #expect(pair.server.failure == .protocolError("decryption failed or bad record mac"))
        #expect(plain == [UInt8](repeating: 0, count: 2000))
    }

    @Test("However short its records are, one receive takes some of them, and says that there are more")
    func shortRecords() throws {
        let pair = try pair(on: Wire(isTCP: true))
        try Socket.setNoDelay(pair.wire.client)
        for byte in 0..<400 {
            var queue = OutputQueue([UInt8(truncatingIfNeeded: byte)])
            guard case .done = pair.client.send(&queue) else { throw Unexpected(description: "a byte does not fit") }
        }
        usleep(20000)
        var all: [UInt8] = []
        var room = [UInt8](repeating: 0, count: 4096)
        while all.count < 400 {
            guard case .received(let count) = pair.server.receive(into: &room, 0..<4096) else { throw Unexpected(description: "\(all.count) bytes came") }
            #expect(count <= SecureConnection.recordsPerTurn)
            all += room.prefix(count)
            // The socket is empty after a receive or two: without this nobody would come back for the rest.
            if all.count < 250 { #expect(!pair.server.isDrained) }
        }
        #expect(all == (0..<400).map { UInt8(truncatingIfNeeded: $0) })
        guard case .wouldBlock = pair.server.receive(into: &room, 0..<4096) else { throw Unexpected(description: "there is more") }
        #expect(pair.server.isDrained)
    }

    @Test("Fresh keys are taken and confirmed; a flood of them ends the connection", arguments: [1, 15, 100])
    func keyUpdates(count: Int) throws {
        let pair = try pair()
        for _ in 0..<count { pair.client.takeFreshKey() }
        let isFlood = count > Int(SecureConnection.spareKeyUpdates)
        if !isFlood {
            #expect(try carry(pattern(100_000), from: pair.client, to: pair.server) == pattern(100_000))
            #expect(try carry(pattern(100_000), from: pair.server, to: pair.client) == pattern(100_000))
        } else {
            var room = [UInt8](repeating: 0, count: 100)
            _ = pair.server.receive(into: &room, 0..<100)
            guard case .closed = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "it goes on") }
            #expect(pair.server.failure == .protocolError("too many key updates"))
        }
    }

    @Test("Either side takes fresh keys in the middle of what goes both ways, asking the other for one or not")
    func keyUpdatesInTraffic() throws {
        let pair = try pair(on: Wire(isTCP: true))
        let bytes = pattern(300_000)
        for round in 0..<12 {
            // Half of it is on its way when the key changes.
            var (toServer, toClient) = (OutputQueue(bytes), OutputQueue(bytes))
            _ = (pair.client.send(&toServer), pair.server.send(&toClient))
            (round % 2 == 0 ? pair.client : pair.server).takeFreshKey(ofBoth: round % 3 != 0)
            var (atServer, atClient): ([UInt8], [UInt8]) = ([], [])
            var room = [UInt8](repeating: 0, count: 50_000)
            func move(_ queue: inout OutputQueue, _ sender: SecureConnection, _ receiver: SecureConnection, _ arrived: inout [UInt8]) throws {
                if !queue.isEmpty, case .closed(let error) = sender.send(&queue) { throw error }
                switch receiver.receive(into: &room, 0..<room.count) {
                case .received(let count): arrived += room[..<count]
                case .wouldBlock: break
                case .closed: throw Unexpected(description: "closed: \(receiver.failure as Any)")
                }
            }
            let end = ContinuousClock.now + .seconds(20)
            while atServer.count < bytes.count || atClient.count < bytes.count {
                try move(&toServer, pair.client, pair.server, &atServer)
                try move(&toClient, pair.server, pair.client, &atClient)
                if ContinuousClock.now > end { throw Unexpected(description: "it stands still") }
            }
            #expect(atServer == bytes && atClient == bytes)
        }
    }

    @Test("Where the kernel encrypts, a fresh key is not to be had: what came before is taken, then the connection ends with a goodbye")
    func keyUpdateWithKernel() throws {
        let pair = try pair()
        pair.server.behaveAsIfTheKernelSent()
        // The other side's own key is nothing to the kernel.
        pair.client.takeFreshKey(ofBoth: false)
        #expect(try carry(pattern(100_000), from: pair.client, to: pair.server) == pattern(100_000))
        #expect(try carry(pattern(100_000), from: pair.server, to: pair.client) == pattern(100_000))
        var queue = OutputQueue([1, 2, 3])
        _ = pair.client.send(&queue)
        pair.client.takeFreshKey()
        queue = OutputQueue([4, 5, 6])
        _ = pair.client.send(&queue)
        var room = [UInt8](repeating: 0, count: 100)
        guard case .received(6) = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "what came before is lost") }
        #expect(room[..<6] == [1, 2, 3, 4, 5, 6] && !pair.server.isDrained)
        queue = OutputQueue([7])
        guard case .closed = pair.server.send(&queue) else { throw Unexpected(description: "it sends with the old key") }
        guard case .closed(_?) = pair.server.receive(into: &room, 0..<100) else { throw Unexpected(description: "it goes on") }
        #expect(pair.server.failure == .kernelKeepsKey && "\(TLSFailure.kernelKeepsKey)".contains("the kernel"))
        guard case .closed(nil) = pair.client.receive(into: &room, 0..<100) else { throw Unexpected(description: "there is no goodbye") }
        #expect(pair.client.failure == nil)
    }

    @Test("Fresh keys that are asked for while the output is full are taken at once and confirmed later")
    func keyUpdateBehindOutput() throws {
        let pair = try pair(on: Wire(buffer: 1))
        var queue = OutputQueue(pattern(1_000_000))
        while case .done = pair.server.send(&queue) { queue.append(copying: pattern(100_000).span) }
        pair.client.takeFreshKey()
        #expect(try carry([7], from: pair.client, to: pair.server) == [7])
        // The other side reads again, and everything goes on.
        var room = [UInt8](repeating: 0, count: 100_000)
        while !queue.isEmpty {
            if case .closed(let error) = pair.client.receive(into: &room, 0..<room.count) { throw Unexpected(description: "\(error as Any)") }
            if case .closed(let error) = pair.server.send(&queue) { throw error }
        }
        while case .received = pair.client.receive(into: &room, 0..<room.count) {}
        #expect(try carry(pattern(100_000), from: pair.server, to: pair.client) == pattern(100_000))
    }

    @Test("An idle connection keeps little memory")
    func memory() async {
        let result = await #expect(processExitsWith: .success, observing: [\.standardOutputContent]) {
            let party = try Party()
            let server = try party.server { ($0.clientCA, $0.clientAuthentication) = (party.issuer.certificate, .required) }
            let client = try party.client(nil, party.identity(party.initiator))
            func connections(_ count: Int) throws -> [(SecureConnection, Wire)] {
                try (0..<count).map { _ in
                    let pair = try Pair(server, client)
                    _ = try pair.connect()
                    _ = try carry(pattern(20_000), from: pair.server, to: pair.client)
                    _ = try carry(pattern(20_000), from: pair.client, to: pair.server)
                    return (pair.server, pair.wire)
                }
            }
            func resident() throws -> Int { try Int(String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")[1])! * 4096 }
            // What is made once is made here.
            _ = try connections(10)
            let before = try resident()
            let held = try connections(400)
            let each = try (resident() - before) / held.count
            print("an idle TLS connection whose client has shown a certificate takes \(each) bytes")
            fflush(nil)
            _exit(each < 64 << 10 ? 0 : 1)
        }
        print(String(decoding: result?.standardOutputContent ?? [], as: UTF8.self))
    }
}
