import Foundation
import Glibc
import Testing

/// Persistent reservations outlive what their initiators want them to outlive (APTPL, SPC-4 §5.13.5): tgtd as a whole, and the host.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct ReservationTests {
    private static let exclusiveAccess: UInt8 = 3

    private enum Action: UInt8 { case register, reserve, release, clear }

    /// PERSISTENT RESERVE OUT; the status, and key, code and qualifier of the sense data.
    @discardableResult
    private func out(_ initiator: Initiator, _ action: Action, key: UInt8 = 0, new: UInt8 = 0, aptpl: Bool = false, lun: Int = 1) throws -> [UInt8] {
        let list = [0, 0, 0, 0, 0, 0, 0, key, 0, 0, 0, 0, 0, 0, 0, new, 0, 0, 0, 0, aptpl ? 1 : 0, 0, 0, 0]
        let type = [.reserve, .release].contains(action) ? Self.exclusiveAccess : 0
        let answer = try initiator.perform(cdb: [0x5f, action.rawValue, type, 0, 0, 0, 0, 0, 24, 0], lun: lun, write: list)
        return [answer.status] + (answer.sense.count > 13 ? [answer.sense[2] & 0x0f, answer.sense[12], answer.sense[13]] : [])
    }

    /// What PERSISTENT RESERVE IN says: the last byte of each key, of the holder's, PRGENERATION, PTPL_C and PTPL_A.
    private struct Shown: Equatable {
        var keys: [UInt8] = []
        var holder: UInt8?
        var generation = 0
        var ptplC = true
        var ptplA = false
    }
    private func shown(_ initiator: Initiator, lun: Int = 1) throws -> Shown {
        func ask(_ service: UInt8) throws -> [UInt8] { try initiator.perform(cdb: [0x5e, service, 0, 0, 0, 0, 0, 1, 0, 0], lun: lun, read: 256).data }
        let (keys, reservation, capabilities) = (try ask(0), try ask(1), try ask(2))
        guard keys.count >= 8, reservation.count >= 8, capabilities.count == 8 else { throw Failure("no answer to PERSISTENT RESERVE IN") }
        return Shown(
            keys: stride(from: 15, to: keys.count, by: 8).map { keys[$0] }, holder: reservation.count == 24 ? reservation[15] : nil,
            generation: keys[..<4].reduce(0) { $0 << 8 | Int($1) }, ptplC: capabilities[2] & 1 != 0, ptplA: capabilities[3] & 1 != 0)
    }

    private func login(_ daemon: Daemon, _ name: String = Initiator.name, lun: Int = 1) throws -> Initiator {
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), name: name)
        // A reservation is no unit attention.
        for _ in 0..<4 { _ = try initiator.perform(cdb: [0, 0, 0, 0, 0, 0], lun: lun) }
        return initiator
    }

    private static let stranger = "iqn.2026-11.org.example:stranger"
    /// The status of a write.
    private func write(_ initiator: Initiator) throws -> UInt8 {
        try initiator.perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512)).status
    }

    private func restart(_ daemon: Daemon, _ signal: Int32 = SIGKILL) throws {
        daemon.process.signal(signal)
        daemon.process.wait(seconds: 10)
        try daemon.restart()
    }

    @Test("With APTPL, what was answered GOOD is there when tgtd is started again, whether it was killed or stopped", arguments: [SIGKILL, SIGTERM])
    func outlives(signal: Int32) throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let holder = try login(daemon)
        #expect(try shown(holder) == Shown())
        #expect(try out(holder, .register, new: 7, aptpl: true) == [0])
        #expect(try out(login(daemon, "iqn.2026-11.org.example:other"), .register, new: 8, aptpl: true) == [0])
        #expect(try out(holder, .reserve, key: 7) == [0])
        try restart(daemon, signal)

        let (again, stranger) = (try login(daemon), try login(daemon, Self.stranger))
        #expect(try shown(again) == Shown(keys: [7, 8], holder: 7, ptplA: true), daemon.evidence)
        #expect(try write(again) == 0 && write(stranger) == 0x18)
        // Changed, and once more.
        #expect(try out(stranger, .register, new: 9, aptpl: true) == [0] && out(again, .release, key: 7) == [0])
        try restart(daemon, signal)
        let last = try login(daemon)
        #expect(try shown(last) == Shown(keys: [7, 8, 9], ptplA: true), daemon.evidence)
        #expect(try write(login(daemon, Self.stranger)) == 0)
        // And after the death of data alone, PRGENERATION goes on.
        #expect(try out(last, .reserve, key: 7) == [0])
        #expect(try out(last, .register, key: 7, new: 6, aptpl: true) == [0])
        let data = try #require(daemon.child(role: "data"), daemon.evidence)
        kill(data, SIGKILL)
        #expect(eventually(within: 5) { daemon.child(role: "data").map { $0 != data } == true })
        var after: Initiator?
        #expect(eventually(within: 5) {
            after = try? login(daemon)
            return after != nil
        })
        #expect(try shown(#require(after)) == Shown(keys: [6, 8, 9], holder: 6, generation: 1, ptplA: true), daemon.evidence)
    }

    @Test("Without APTPL nothing outlives tgtd, and whoever registered last has decided for all")
    func without() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let first = try login(daemon)
        #expect(try out(first, .register, new: 7, aptpl: true) == [0])
        #expect(try out(first, .reserve, key: 7) == [0])
        #expect(try out(login(daemon, Self.stranger), .register, new: 8) == [0])
        #expect(try shown(first) == Shown(keys: [7, 8], holder: 7, generation: 2))
        try restart(daemon)
        let again = try login(daemon)
        #expect(try shown(again) == Shown(), daemon.evidence)
        #expect(try write(again) == 0)
    }

    @Test("What is deleted takes its reservations with it: made anew with the same number it has none, at once and after a start")
    func deleted() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        for isTarget in [false, true] {
            let holder = try login(daemon)
            #expect(try out(holder, .register, new: 7, aptpl: true) == [0])
            #expect(try out(holder, .reserve, key: 7) == [0])
            if isTarget {
                try daemon.must("--op delete --mode target --tid 1 --force")
                try daemon.addTarget()
                try daemon.admit()
            } else {
                try daemon.must("--op delete --mode logicalunit --tid 1 --lun 1")
            }
            try daemon.addDisk(file: daemon.folder.path("disk"), settings: "")
            #expect(try shown(login(daemon)) == Shown(), daemon.evidence)
            try restart(daemon)
            #expect(try shown(login(daemon)) == Shown(), daemon.evidence)
        }
    }

    @Test("Without a state there is nothing to outlive: PTPL_C says so, and APTPL is refused")
    func stateless() throws {
        let daemon = try Daemon.serving(size: 16 << 20, options: ["--state", "none"])
        let initiator = try login(daemon)
        #expect(try shown(initiator) == Shown(ptplC: false))
        #expect(try out(initiator, .register, new: 7, aptpl: true) == [2, 5, 0x26, 0])
        #expect(try out(initiator, .register, new: 7) == [0])
        #expect(try shown(initiator) == Shown(keys: [7], generation: 1, ptplC: false))
    }

    @Test("What cannot be kept is refused and has changed nothing, here or on the medium; what needs no keeping goes on")
    func notKept() throws {
        let apart = try Folder()
        let daemon = try Daemon.serving(size: 16 << 20, options: StateTests.auditElsewhere(apart))
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("second", size: 1 << 20), settings: "")
        let holder = try login(daemon)
        #expect(try out(holder, .register, new: 7, aptpl: true) == [0])
        #expect(try out(holder, .reserve, key: 7) == [0])
        let before = try shown(holder)
        func limitFiles(_ bytes: String) throws {
            let finished = try run("prlimit", "--pid", "\(daemon.process.pid)", "--fsize=\(bytes)", folder: daemon.folder)
            guard finished.succeeded else { throw Failure(finished.evidence) }
        }
        // No file of the state is that short.
        try limitFiles("16:")
        // By the medium, then by the store that knows of it.
        for _ in 0..<2 {
            #expect(try out(holder, .register, key: 7, new: 6, aptpl: true) == [2, 5, 0x55, 4], daemon.evidence)
            #expect(try out(holder, .release, key: 7) == [2, 5, 0x55, 2])
            #expect(try out(login(daemon, Self.stranger), .register, new: 9, aptpl: true) == [2, 5, 0x55, 4])
            // To give it up has to be kept, too.
            #expect(try out(holder, .register, key: 7, new: 7) == [2, 5, 0x55, 4])
            #expect(try shown(holder) == before)
            #expect(try write(holder) == 0 && write(login(daemon, Self.stranger)) == 0x18)
        }
        let second = try login(daemon, lun: 2)
        #expect(try out(second, .register, new: 5, lun: 2) == [0] && out(second, .reserve, key: 5, lun: 2) == [0])
        #expect(try shown(second, lun: 2) == Shown(keys: [5], holder: 5, generation: 1))
        // Before anything could be written again.
        try restart(daemon)
        let again = try login(daemon)
        #expect(try shown(again) == Shown(keys: [7], holder: 7, ptplA: true), daemon.evidence)
        #expect(try out(again, .register, key: 7, new: 6, aptpl: true) == [0])

        // A medium that writes again has what holds, and not what was refused.
        try limitFiles("16:")
        #expect(try out(again, .clear, key: 6) == [2, 5, 0x55, 2])
        try limitFiles("unlimited:")
        #expect(eventually(within: 5) { daemon.log.contains("is kept again") }, daemon.evidence)
        try restart(daemon)
        let last = try login(daemon)
        #expect(try shown(last) == Shown(keys: [6], holder: 6, ptplA: true), daemon.evidence)
        #expect(try out(last, .clear, key: 6) == [0])
        try restart(daemon)
        #expect(try shown(login(daemon)) == Shown(ptplA: true), daemon.evidence)
    }

    @Test("kill -9 of tgtd in the midst of registering: what an initiator was told is GOOD is there, and what it was not told is whole or not there")
    func killedWhileRegistering() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        var current: UInt8 = 0
        for round in 0..<(Subject.soaks ? 30 : 6) {
            let initiator = try login(daemon)
            let delay = UInt32.random(in: 1_000...60_000)
            let process = daemon.process.pid
            Thread.detachNewThread {
                usleep(delay)
                kill(process, SIGKILL)
            }
            while true {
                let next = current % 250 + 1
                guard let answer = try? out(initiator, .register, key: current, new: next, aptpl: true) else { break }
                #expect(answer == [0], daemon.evidence)
                current = next
            }
            daemon.process.wait(seconds: 5)
            try daemon.restart()
            let found = try shown(login(daemon)).keys
            #expect(found == [current % 250 + 1] || found == (current == 0 ? [] : [current]), "round \(round): \(found) is kept, \(current) was GOOD")
            current = found.first ?? 0
        }
        #expect(current > 0)
    }
}
