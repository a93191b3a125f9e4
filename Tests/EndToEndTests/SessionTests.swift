import Testing

/// What a session sees of portals, logical units and silence.
@Suite struct SessionTests {
    @Test("An IPv6 portal names itself in discovery and serves")
    func portalOfIPv6() throws {
        let daemon = try Daemon.serving(size: 8 << 20, host: "[::1]")
        let listed = try must("iscsi-ls", "iscsi://\(daemon.portal)", folder: daemon.folder)
        #expect(listed.contains("Portal:\(daemon.portal),1"), "\(listed)")
        try QemuIO(daemon).check("write -P 0x61 0 1M", "read -P 0x61 0 1M")
    }

    @Test("Logical unit numbers reach from 1 to 16383", arguments: [1, 255, 256, 16_383])
    func numbers(lun: Int) throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        try daemon.addDisk(lun: lun, file: daemon.folder.sparseFile("disk", size: 8 << 20))
        try daemon.admit()
        // libiscsi's number is the LUN's first two bytes as they are: flat addressing (SAM-5 §4.7.7.3) above 255.
        let number = lun < 256 ? lun : 0x4000 + lun
        let listed = try must("iscsi-ls", "-s", "iscsi://\(daemon.portal)", folder: daemon.folder)
        #expect(listed.contains("Lun:\(number) ") && listed.contains("DIRECT_ACCESS"), "\(listed)")
        let io = try run("qemu-io", "-f", "raw", "-c", "write -P 0x62 0 64k", "-c", "read -P 0x62 0 64k", daemon.url(lun: number), folder: daemon.folder)
        #expect(io.succeeded && !io.output.contains("failed"), "\(io.evidence)")
    }

    @Test("How a file is opened makes no difference to its data", arguments: ["", "sync", "direct", "sync:direct"])
    func flags(flags: String) throws {
        let daemon = try Daemon.serving(size: 32 << 20, more: flags.isEmpty ? "" : "--bsoflags \(flags)")
        #expect(try daemon.must("--op show --mode target").contains("            Backing store flags: \(flags)\n"))
        try QemuIO(daemon).check("write -P 0x71 0 4M", "write -P 0x72 4M 512", "write -P 0x73 \((4 << 20) + 512) 512", "flush")
        try QemuIO(daemon).check("read -P 0x71 0 4M", "read -P 0x72 4M 512", "read -P 0x73 \((4 << 20) + 512) 512", "read -P 0 5M 1M")
    }

    @Test("The store null swallows writes and reads zeroes", .enabled(if: Subject.isPortcullis))
    func null() throws {
        let daemon = try Daemon()
        try daemon.addTarget()
        try daemon.addDisk(file: "/dev/null", settings: "", more: "--bstype null")
        try daemon.admit()
        try QemuIO(daemon).check("write -P 0x11 0 1M", "read -P 0 0 1M", "read -P 0 512G 1M")
    }

    @Test("An initiator that does not answer pings is ended, one that does is kept")
    func pings() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try daemon.must("--op update --mode target --tid 1 --name nop_interval --value 1")
        try daemon.must("--op update --mode target --tid 1 --name nop_count --value 2")
        let silent = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        let alive = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: 2)
        let end = ContinuousClock.now + .seconds(6)
        var pings = 0
        while ContinuousClock.now < end {
            guard let ping = alive.receive(seconds: 0.2) else { continue }
            #expect(ping.opcode == PDU.nopIn)
            var pong = PDU(opcode: PDU.nopOut | PDU.immediate)
            pong.header.replaceSubrange(8..<16, with: ping.header[8..<16])
            pong.put(0xffff_ffff, at: 16)
            pong.put(ping.number(at: 20), at: 20)
            pong.put(alive.cmdSN, at: 24)
            pong.put(ping.number(at: 24) + 1, at: 28)
            alive.wire.send(pong.bytes)
            pings += 1
        }
        #expect(pings >= 2, daemon.evidence)
        #expect(silent.wire.isClosedNow(), daemon.evidence)
        #expect(try alive.perform(cdb: [0, 0, 0, 0, 0, 0]).status < 0x80, daemon.evidence)
    }

    @Test("A logout is answered and the connection closed")
    func logout() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        var logout = PDU(opcode: PDU.logout | PDU.immediate)
        logout.put(99, at: 16)
        logout.put(initiator.cmdSN, at: 24)
        initiator.wire.send(logout.bytes)
        let answer = try #require(initiator.receive())
        #expect(answer.opcode == 0x26 && answer.header[2] == 0 && answer.number(at: 16) == 99)
        #expect(initiator.wire.closes(within: 3))
        #expect(try daemon.must("--op show --mode conn --tid 1") == "")
    }

    @Test("A logical unit that is not there says so, and says what is", .enabled(if: Subject.isPortcullis))
    func unknownUnit() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        let inquiry = try initiator.perform(cdb: [0x12, 0, 0, 0, 96, 0], lun: 9, read: 96)
        #expect(inquiry.status == 0 && inquiry.data.first == 0x7f)
        let ready = try initiator.perform(cdb: [0, 0, 0, 0, 0, 0], lun: 9)
        #expect(ready.status == 2 && ready.sense.count >= 14 && ready.sense[2] & 0xf == 5 && ready.sense[12] == 0x25)
        let units = try initiator.perform(cdb: [0xa0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], lun: 9, read: 1024)
        #expect(units.status == 0 && units.data.count == 24 && units.data[3] == 16 && units.data[17] == 1)
    }

    @Test("A file that grew or shrank under the disk makes errors, not wrong data", .enabled(if: Subject.isPortcullis))
    func shrunk() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        try must("truncate", "-s", "1M", daemon.folder.path("disk"), folder: daemon.folder)
        let lost = try initiator.perform(cdb: [0x28, 0, 0, 0, 0x40, 0, 0, 0, 8, 0], read: 4096)
        #expect(lost.status == 2 && lost.sense.count >= 14 && lost.sense[2] & 0xf == 3, daemon.evidence)
        #expect(try initiator.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0], read: 4096).data.count == 4096)
    }
}
