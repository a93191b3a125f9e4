import Glibc
import Testing

/// Whatever a peer sends, no process stops, hangs or grows, and the next good login is served.
@Suite(.serialized) struct HostileTests {
    @Test("Nonsense before login ends the connection and nothing else", arguments: Hostility.beforeLogin)
    func beforeLogin(_ attack: Hostility.Attack) throws {
        let daemon = try Daemon.serving()
        let family = daemon.family
        for _ in 0..<(Subject.soaks ? 200 : 3) {
            let wire = try Wire(port: daemon.port)
            wire.send(attack.bytes, seconds: 2)
            if attack.closes && Subject.isPortcullis { #expect(wire.closes(within: 3), daemon.evidence) }
        }
        try stillServes(daemon, family: family)
    }

    @Test("Nonsense after login ends that session at most", .enabled(if: Subject.isPortcullis), arguments: Hostility.afterLogin)
    func afterLogin(_ attack: Hostility.Attack) throws {
        let daemon = try Daemon.serving()
        let family = daemon.family
        let witness = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), name: "iqn.2026-11.org.example:witness")
        try witness.settle()
        for _ in 0..<(Subject.soaks ? 200 : 3) {
            let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
            initiator.wire.send(attack.bytes, seconds: 2)
            if attack.closes { #expect(initiator.wire.closes(within: 5), daemon.evidence) }
        }
        #expect(try witness.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0)
        try stillServes(daemon, family: family)
    }

    /// Nobody died, and who behaves is served.
    private func stillServes(_ daemon: Daemon, family: [pid_t]) throws {
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: 9)
        try initiator.settle()
        #expect(try initiator.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096).data.count == 4096, daemon.evidence)
        if Subject.isPortcullis { #expect(daemon.family == family, "a process died\n\(daemon.log.suffix(4000))") }
        #expect(daemon.residentBytes < Hostility.memoryLimit)
    }

    @Test("A login that stands still is ended fifteen seconds after it was accepted", .enabled(if: Subject.isPortcullis))
    func silence() async throws {
        let daemon = try Daemon.serving()
        let family = daemon.family
        let login = Initiator.loginRequest(keys: ["InitiatorName=\(Initiator.name)", "SessionType=Discovery"]).bytes
        var unfinished = Initiator.loginRequest(keys: ["InitiatorName=\(Initiator.name)", "SessionType=Discovery"])
        unfinished.header[1] = 0x04
        let beginnings: [[UInt8]] = [[], [0x43], Array(login.prefix(20)), Array(login.prefix(48)), login.dropLast(4), unfinished.bytes]
        let wires = try beginnings.map { bytes in
            let wire = try Wire(port: daemon.port)
            wire.send(bytes)
            return wire
        }
        let dripping = try Wire(port: daemon.port)
        for second in 0..<12 {
            dripping.send([login[second]])
            try await Task.sleep(for: .seconds(1))
            // Meanwhile others get in.
            if second % 4 == 0 { #expect(try Initiator(port: daemon.port).login(target: Daemon.iqn("disk")) == 0) }
        }
        #expect(wires.allSatisfy { !$0.isClosedNow() }, "closed too early")
        try await Task.sleep(for: .seconds(5))
        #expect(wires.map { $0.isClosedNow() } == wires.map { _ in true }, daemon.evidence)
        #expect(dripping.isClosedNow(), daemon.evidence)
        #expect(daemon.family == family)
    }

    @Test("Many connections that say nothing keep nobody out")
    func manyIdle() throws {
        let daemon = try Daemon.serving()
        let idle = try (0..<150).map { _ in try Wire(port: daemon.port) }
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        #expect(idle.count == 150)
    }

    @Test("Connections cut at every byte of a login do no harm")
    func cutEverywhere() throws {
        let daemon = try Daemon.serving()
        let family = daemon.family
        let login = Initiator.loginRequest(keys: ["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn("disk"))"]).bytes
        for length in stride(from: 0, through: login.count, by: Subject.soaks ? 1 : 3) {
            try Wire(port: daemon.port).send(Array(login.prefix(length)))
        }
        try stillServes(daemon, family: family)
    }

    @Test("A session cut in the middle of a write leaves no trace but what was acknowledged")
    func cutInWrite() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let family = daemon.family
        for cut in [1, 47, 48, 100, 4095] {
            let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
            try initiator.settle()
            let write = initiator.command(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], write: 4096, data: [UInt8](repeating: 0xee, count: 4096))
            initiator.wire.send(Array(write.bytes.prefix(cut)))
        }
        try stillServes(daemon, family: family)
        try QemuIO(daemon).check("read -P 0 0 4096")
    }

    @Test("Answers that are never read cost a bounded amount of memory and nobody else's service", .enabled(if: Subject.isPortcullis))
    func answersNotRead() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let family = daemon.family
        let before = daemon.residentBytes
        let deaf = try (0..<8).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: UInt8($0 + 20)) }
        let end = ContinuousClock.now + .seconds(Subject.soaks ? 30 : 5)
        while ContinuousClock.now < end {
            for initiator in deaf where !initiator.wire.closed {
                _ = initiator.wire.sendNow(initiator.command(cdb: [0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], read: 1 << 20).bytes)
            }
            pause(seconds: 0.01)
        }
        let grown = daemon.residentBytes - before
        #expect(grown < Hostility.memoryLimit, "grown by \(grown >> 20) MiB")
        try stillServes(daemon, family: family)
    }

    @Test("Pings whose answers are never read end in a stop or an end, not in growth", .enabled(if: Subject.isPortcullis))
    func pingsNotRead() throws {
        let daemon = try Daemon.serving()
        let family = daemon.family
        let before = daemon.residentBytes
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        var ping = PDU(opcode: PDU.nopOut | PDU.immediate, data: [UInt8](repeating: 0x70, count: 8192))
        ping.put(77, at: 16)
        ping.put(0xffff_ffff, at: 20)
        ping.put(1, at: 24)
        let many = [UInt8]((0..<64).flatMap { _ in ping.bytes })
        let end = ContinuousClock.now + .seconds(5)
        while ContinuousClock.now < end, !initiator.wire.closed, initiator.wire.sendNow(many) > 0 {}
        #expect(daemon.residentBytes - before < Hostility.memoryLimit)
        initiator.wire.shutdown()
        try stillServes(daemon, family: family)
    }

    @Test("A CmdSN below the window is ignored, and the session goes on", .enabled(if: Subject.isPortcullis))
    func belowTheWindow() throws {
        let daemon = try Daemon.serving()
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let current = initiator.cmdSN
        initiator.cmdSN = current - 2
        initiator.wire.send(initiator.command(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], read: 512).bytes)
        #expect(initiator.receive(seconds: 1) == nil && !initiator.wire.closed, daemon.evidence)
        initiator.cmdSN = current
        #expect(try initiator.perform(cdb: [0, 0, 0, 0, 0, 0]).status == 0, daemon.evidence)
    }

    @Test("A new login of the same session ends the old one")
    func reinstatement() throws {
        let daemon = try Daemon.serving()
        let old = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try old.settle()
        let new = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try new.settle()
        // tgt forgets to where the login starts in the operational stage.
        if Subject.isPortcullis { #expect(old.wire.closes(within: 2), daemon.evidence) }
        let shown = try daemon.must("--op show --mode target")
        if Subject.isPortcullis { #expect(shown.components(separatedBy: "I_T nexus: ").count == 2, "\(shown)") }
    }
}

enum Hostility {
    /// What all processes may hold beyond file pages after an attack: the buffer budget and the program itself.
    static let memoryLimit = 400 << 20

    struct Attack: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let bytes: [UInt8]
        /// Whether the connection has to be closed over it.
        var closes = true

        init(_ name: String, closes: Bool = true, _ bytes: [UInt8]) {
            testDescription = name
            self.bytes = bytes
            self.closes = closes
        }
        init(_ name: String, closes: Bool = true, _ pdu: PDU, _ change: (inout PDU) -> Void) {
            var changed = pdu
            change(&changed)
            self.init(name, closes: closes, changed.bytesAsWritten)
        }
    }

    private static let keys = ["InitiatorName=\(Initiator.name)", "SessionType=Discovery"]
    private static func login(_ keys: [String] = keys, _ change: (inout PDU) -> Void = { _ in }) -> PDU {
        var pdu = Initiator.loginRequest(keys: keys)
        pdu.put(pdu.data.count, at: 5, bytes: 3)
        change(&pdu)
        return pdu
    }
    private static func noise(_ count: Int, seed: UInt64) -> [UInt8] {
        var state = seed
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 33)
        }
    }
    private static func request(_ opcode: UInt8, data: [UInt8] = [], _ change: (inout PDU) -> Void = { _ in }) -> PDU {
        var pdu = PDU(opcode: opcode, data: data)
        pdu.put(5, at: 16)
        pdu.put(0xffff_ffff, at: 20)
        pdu.put(1, at: 24)
        pdu.put(data.count, at: 5, bytes: 3)
        change(&pdu)
        return pdu
    }

    static let beforeLogin: [Attack] = [
        Attack("zeroes", [UInt8](repeating: 0, count: 4096)),
        Attack("ones", [UInt8](repeating: 0xff, count: 65_536)),
        Attack("noise", noise(65_536, seed: 1)),
        Attack("noise that begins as a login", [0x43] + noise(65_535, seed: 2)),
        Attack("a web browser", Array("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\r\n".utf8)),
        Attack("a TLS hello", [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3] + noise(501, seed: 3)),
        Attack("a SCSI command", request(PDU.scsiCommand).bytes),
        Attack("a ping", request(PDU.nopOut | PDU.immediate).bytes),
        Attack("a text request", request(PDU.text, data: Array("SendTargets=All\0".utf8)).bytes),
        Attack("a logout", request(PDU.logout).bytes),
        Attack("a task management request", request(PDU.taskManagement).bytes),
        Attack("data without a command", request(PDU.dataOut, data: noise(512, seed: 4)).bytes),
        Attack("an opcode of the target", request(PDU.loginResponse).bytes),
        Attack("a login of 16 MiB", login(), { $0.put(0xff_ffff, at: 5, bytes: 3); $0.data = noise(1 << 20, seed: 5) }),
        Attack("a login with additional headers of 1020 bytes", login(), { $0.header[4] = 255; $0.additional = noise(1020, seed: 6) }),
        Attack("a login with an additional header of length 0", login(), { $0.header[4] = 1; $0.additional = [0, 0, 0, 0] }),
        Attack("a login in a stage that is not", login(), { $0.header[1] = 0x88 }),
        Attack("a login that goes backwards", login(), { $0.header[1] = 0x84 }),
        Attack("a login that stays where it is", login(), { $0.header[1] = 0x85 }),
        Attack("a login that continues and transits", login(), { $0.header[1] = 0xc7 }),
        Attack("a login of another version", login(), { $0.header[2] = 9; $0.header[3] = 9 }),
        Attack("a login to a session that is not", login(), { $0.put(0xfffe, at: 14, bytes: 2) }),
        Attack("a login without a name", login(["SessionType=Discovery"]), { _ in }),
        Attack("a login with an empty name", login(["InitiatorName=", "SessionType=Discovery"]), { _ in }),
        Attack("a login with a name of 300 bytes", login(["InitiatorName=iqn.2026-11.org.example:" + String(repeating: "n", count: 300), "SessionType=Discovery"]), { _ in }),
        Attack("a login with a name that is no text", login(), { $0.data = Array("InitiatorName=".utf8) + [0xff, 0xfe, 0x80, 0x0a] + Array("\0SessionType=Discovery\0".utf8); $0.put($0.data.count, at: 5, bytes: 3) }),
        Attack("a login with a kind of session that is not", login(["InitiatorName=\(Initiator.name)", "SessionType=Sleep"]), { _ in }),
        Attack("a login without a target", login(["InitiatorName=\(Initiator.name)", "SessionType=Normal"]), { _ in }),
        Attack("a login with a key said twice", login(keys + ["HeaderDigest=None", "HeaderDigest=None"]), { _ in }),
        Attack("a login with a key and no value", closes: false, login(keys + ["HeaderDigest"]), { _ in }),
        Attack("a login with a key of 5000 bytes", closes: false, login(keys + ["X-" + String(repeating: "k", count: 5000) + "=1"]), { _ in }),
        Attack("a login of numbers out of range", closes: false, login(keys + ["MaxRecvDataSegmentLength=99999999999999999999", "MaxBurstLength=-1", "ErrorRecoveryLevel=0x"]), { _ in }),
        Attack("a login of nothing but separators", [UInt8](login([]).header.prefix(5)) + [0, 0x20, 0] + login([]).header.dropFirst(8) + [UInt8](repeating: 0, count: 8192)),
        Attack(
            "keys without end",
            (0..<512).flatMap { _ in login([], { $0.header[1] = 0x44; $0.data = [UInt8](repeating: 0x61, count: 8192); $0.put(8192, at: 5, bytes: 3) }).bytesAsWritten }),
        Attack(
            "a login without end",
            (0..<4096).flatMap { _ in login(keys, { $0.header[1] = 0x04 }).bytesAsWritten }),
    ]

    static let afterLogin: [Attack] = [
        Attack("zeroes", closes: false, [UInt8](repeating: 0, count: 4800)),
        Attack("ones", [UInt8](repeating: 0xff, count: 65_536)),
        Attack("noise", closes: false, noise(65_536, seed: 11)),
        Attack("an opcode that is not", closes: false, request(0x1c).bytes),
        Attack("an opcode of the target", closes: false, request(PDU.dataIn).bytes),
        Attack("another login", closes: false, login().bytesAsWritten),
        Attack("a segment of 16 MiB", request(PDU.nopOut), { $0.put(0xff_ffff, at: 5, bytes: 3); $0.data = noise(1 << 20, seed: 12) }),
        Attack("additional headers of 1020 bytes", closes: false, request(PDU.scsiCommand), { $0.header[4] = 255; $0.additional = noise(1020, seed: 13) }),
        Attack("an additional header of length 0", closes: false, request(PDU.scsiCommand), { $0.header[4] = 1; $0.additional = [0, 0, 0, 0] }),
        Attack("an additional header longer than all", closes: false, request(PDU.scsiCommand), { $0.header[4] = 1; $0.additional = [0xff, 0xff, 1, 0] }),
        Attack("data without a command", closes: false, request(PDU.dataOut, data: noise(512, seed: 14)).bytes),
        Attack("a SNACK", closes: false, request(PDU.snack).bytes),
        Attack("more immediate data than expected", closes: false, request(PDU.scsiCommand, data: noise(8192, seed: 15)), { $0.header[1] = 0xa1; $0.put(512, at: 20); $0.header[32] = 0x2a; $0.header[40] = 1 }),
        Attack("a write of 4 GiB", closes: false, request(PDU.scsiCommand), { $0.header[1] = 0xa1; $0.put(0xffff_fe00, at: 20); $0.header[32] = 0x8a; $0.put(0x7f_ffff, at: 42) }),
        Attack("a read of 4 GiB", closes: false, request(PDU.scsiCommand), { $0.header[1] = 0xc1; $0.put(0xffff_fe00, at: 20); $0.header[32] = 0x88; $0.put(0x7f_ffff, at: 42) }),
        Attack("a command of both directions", closes: false, request(PDU.scsiCommand), { $0.header[1] = 0xe1; $0.put(512, at: 20) }),
        Attack("a logical unit number of nonsense", closes: false, request(PDU.scsiCommand), { $0.put(0xffff_ffff, at: 8); $0.put(0xffff_ffff, at: 12) }),
        Attack("a CmdSN far above the window", closes: false, request(PDU.scsiCommand), { $0.put(0x4000_0000, at: 24) }),
        Attack("the same task tag many times", closes: false, (1...200).flatMap { number in request(PDU.scsiCommand, { $0.put(number, at: 24) }).bytes }),
        Attack("a text request without end", closes: false, (1...64).flatMap { number in
            request(PDU.text, data: [UInt8](repeating: 0x61, count: 8192), { $0.header[1] = 0x40; $0.put(number, at: 24) }).bytes
        }),
        // Not the resets (5, 6, 7), which concern others too and rightly so.
        Attack("task management of nothing", closes: false, (0...255).map { $0 & 0x7f }.filter { !(5...7).contains($0) }.flatMap { code in
            request(PDU.taskManagement | PDU.immediate, { $0.header[1] = 0x80 | UInt8(code) }).bytes
        }),
        Attack("a logout of another connection", closes: false, request(PDU.logout | PDU.immediate, { $0.header[1] = 0x81; $0.put(0x99, at: 20, bytes: 2) }).bytes),
        Attack("half a PDU and a close", closes: false, Array(request(PDU.scsiCommand).bytes.prefix(30))),
    ]
}
