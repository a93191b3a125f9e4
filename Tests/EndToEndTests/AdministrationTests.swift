import Foundation
import Testing

/// tgtadm's words, and Debian's own tgtadm, against the daemon.
@Suite struct AdministrationTests {
    static let clients = Subject.isReference ? [Subject.debianTgtadm] : [Subject.tgtadm, Subject.debianTgtadm]

    @Test("Targets, logical units and rules come and go", arguments: clients)
    func script(client: String) throws {
        let daemon = try Daemon()
        let file = try daemon.folder.sparseFile("disk", size: 105 << 20)
        #expect(try daemon.must("--op show --mode target", client: client) == "")
        try daemon.must("--op new --mode target --tid 1 --targetname \(Daemon.iqn("one"))", client: client)
        try daemon.must("--op new --mode target --tid=2 -T \(Daemon.iqn("two"))", client: client)
        try daemon.must("--op new --mode logicalunit --tid 1 --lun 1 --backing-store \(file)", client: client)
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params thin_provisioning=1,readonly=0,", client: client)
        try daemon.must("--op bind --mode target --tid 1 -I 127.0.0.0/8", client: client)
        try daemon.must("--op bind --mode target --tid 1 -Q \(Initiator.name)", client: client)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("one"))

        let shown = try daemon.must("--op show --mode target", client: client)
        let lines = shown.components(separatedBy: "\n")
        #expect(lines.filter { $0.hasPrefix("Target") } == ["Target 1: \(Daemon.iqn("one"))", "Target 2: \(Daemon.iqn("two"))"], "\(shown)")
        #expect(shown.components(separatedBy: "Target ").count == 3, "the word occurs in other lines too:\n\(shown)")
        for line in [
            "    System information:", "        Driver: iscsi", "        State: ready", "    I_T nexus information:",
            "            Initiator: \(Initiator.name) alias: none", "            Connection: 0", "                IP Address: 127.0.0.1",
            "    LUN information:", "        LUN: 0", "            Type: controller", "        LUN: 1", "            Type: disk",
            "            Size: 110 MB, Block size: 512", "            Online: Yes", "            Removable media: No", "            Readonly: No",
            "            Thin-provisioning: Yes", "            Backing store type: rdwr", "            Backing store path: \(file)",
            "            Backing store flags: ", "    Account information:", "    ACL information:", "        127.0.0.0/8", "        \(Initiator.name)",
        ] {
            #expect(lines.contains(line), "no line “\(line)” in\n\(shown)")
        }
        let system = try daemon.must("--op show --mode sys", client: client)
        #expect(system.contains("    iscsi: ready") && system.contains(" rdwr") && system.contains(" null"), "\(system)")

        #expect(try daemon.must("--op show --mode portal", client: client).contains("Portal: 127.0.0.1:\(daemon.port),1"))
        let connections = try daemon.must("--op show --mode conn --tid 1", client: client)
        #expect(connections.hasPrefix("Session: ") && connections.contains("\n    Connection: 0\n"), "\(connections)")

        try refuses(daemon, "--op delete --mode target --tid 1", "this target is still active", client: client)
        initiator.wire.shutdown()
        #expect(try eventually(within: 3) { try daemon.must("--op show --mode conn --tid 1", client: client).isEmpty })
        try daemon.must("--op unbind --mode target --tid 1 -I 127.0.0.0/8", client: client)
        try daemon.must("--op unbind --mode target --tid 1 -Q \(Initiator.name)", client: client)
        try daemon.must("--op delete --mode logicalunit --tid 1 --lun 1", client: client)
        try daemon.must("--op delete --mode target --tid 1:", client: client)
        try daemon.must("--op delete --mode target --tid 2 --force", client: client)
        #expect(try daemon.must("--op show --mode target", client: client) == "")
    }

    @Test("What cannot be done is answered with tgt's words and status 22", arguments: clients)
    func refusals(client: String) throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        for (line, words) in [
            ("--op new --mode target --tid 1 -T \(Daemon.iqn("other"))", "this target already exists"),
            ("--op new --mode target --tid 5 -T \(Daemon.iqn("disk"))", "this target already exists"),
            ("--op new --mode target --tid 5 -T bad_name", "invalid request"),
            ("--op delete --mode target --tid 77", "can't find the target"),
            ("--op new --mode logicalunit --tid 1 --lun 1 -b /dev/zero", "this logical unit number already exists"),
            ("--op new --mode logicalunit --tid 1 --lun 2 -b /nowhere/disk", "invalid request"),
            ("--op new --mode logicalunit --tid 1 --lun 2 -b /dev/zero", "invalid request"),
            ("--op new --mode logicalunit --tid 1 --lun 2 -b /tmp", "invalid request"),
            ("--op new --mode logicalunit --tid 1 --lun 2 -b /tmp --bstype nothing", "invalid request"),
            ("--op delete --mode logicalunit --tid 1 --lun 9", "can't find the logical unit"),
            ("--op delete --mode logicalunit --tid 1 --lun 0", "invalid request"),
            ("--op update --mode logicalunit --tid 1 --lun 1 --params nonsense=1", "invalid request"),
            ("--op update --mode target --tid 1 --name Nonsense --value 1", "invalid request"),
            ("--op update --mode target --tid 1 --name MaxBurstLength --value 5", "invalid request"),
            ("--op bind --mode target --tid 1 -I ALL", "this access control rule already exists"),
            ("--op unbind --mode target --tid 1 -I 1.2.3.4", "this access control rule does not exist"),
            ("--op unbind --mode target --tid 1 -Q iqn.none", "this access control rule does not exist"),
            ("--op bind --mode account --tid 1 --user nobody", "can't find the account"),
            ("--op show --mode conn --tid 9", "can't find the target"),
            ("--op delete --mode system", "invalid request"),
        ] {
            try refuses(daemon, line, words, client: client)
        }
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
    }

    private func refuses(_ daemon: Daemon, _ line: String, _ words: String, client: String) throws {
        let finished = try daemon.admin(line.split(separator: " ").map(String.init), client: client)
        #expect(finished.ending == .exited(22) && finished.output == "tgtadm: \(words)\n", "\(finished.evidence)")
    }

    @Test("Forced deletion ends sessions in the midst of their I/O, and nothing of it is left", .enabled(if: Subject.isPortcullis))
    func forcedDeletion() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let disk = daemon.folder.path("disk")
        let data = try #require(daemon.child(role: "data"))
        func holders() -> [pid_t] {
            [daemon.process.pid, data].filter { pid in
                let numbers = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd")) ?? []
                return numbers.contains { (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\($0)")) == disk }
            }
        }
        for round in 0..<3 {
            let idle = try (1...4).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: UInt8($0)) }
            let busy = try (0..<2).map { _ in
                try Running(["qemu-img", "bench", "-w", "-t", "none", "-f", "raw", "-c", "100000000", "-d", "32", "-s", "65536", daemon.url()], folder: daemon.folder)
            }
            let before = try daemon.must("--op stat --mode lu --tid 1 --lun 1")
            #expect(try eventually(within: 30) { try daemon.must("--op stat --mode lu --tid 1 --lun 1") != before }, "nobody writes")
            #expect(holders().count == 2)
            let active = try daemon.admin(["--op", "delete", "--mode", "target", "--tid", "1"])
            #expect(active.ending == .exited(22) && active.output == "tgtadm: this target is still active\n", "\(active.evidence)")
            let gone = try daemon.admin(["--op", "delete", "--mode", "target", "--tid", "1", "--force"])
            #expect(gone.succeeded, "\(gone.evidence)")
            print("a target with six sessions, two of them writing, is deleted in \(gone.elapsed)")
            #expect(holders().isEmpty, "the disk is still open")
            #expect(try daemon.must("--op show --mode target").isEmpty)
            #expect(idle.allSatisfy { $0.wire.closes(within: 10) })
            for writer in busy { writer.kill() }
            try daemon.addTarget()
            try daemon.addDisk(file: disk, settings: round == 0 ? "readonly=0" : "")
            try daemon.admit()
        }
    }

    @Test("Without a daemon tgtadm ends with status 107")
    func notRunning() throws {
        let folder = try Folder()
        let finished = try run(
            Subject.tgtadm, "--lld", "iscsi", "--op", "show", "--mode", "target", environment: ["TGT_IPC_SOCKET": folder.path("none")], folder: folder)
        #expect(finished.ending == .exited(107), "\(finished.evidence)")
        #expect(finished.output == "tgtadm: failed to send request hdr to tgt daemon, Transport endpoint is not connected\n")
    }

    @Test("The daemon stops when it is told to, once no target is left", arguments: clients)
    func deleteSystem(client: String) throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        try refuses(daemon, "--op delete --mode system", "invalid request", client: client)
        try daemon.must("--op delete --mode target --tid 1", client: client)
        try daemon.must("--op delete --mode system", client: client)
        #expect(daemon.process.wait(seconds: 10).succeeded)
    }

    @Test("A disk's parameters reach the initiator")
    func parameters() throws {
        let daemon = try Daemon.serving(size: 8 << 20, settings: "scsi_id=identity-1,scsi_sn=serial-1")
        let serial = try must("iscsi-inq", "-e", "1", "-c", "128", daemon.url(), folder: daemon.folder)
        #expect(serial.contains("serial-1"), "\(serial)")
        #expect(try must("iscsi-inq", "-e", "1", "-c", "131", daemon.url(), folder: daemon.folder).contains("identity-1"))
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params removable=1")
        #expect(try must("iscsi-inq", daemon.url(), folder: daemon.folder).contains("Removable:1"))
        // The write cache off (Caching page, WCE), in the words of many scripts.
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let page = try initiator.perform(cdb: [0x1a, 8, 8, 0, 255, 0], read: 255)
        #expect(page.data.count >= 7 && page.data[4] & 0x3f == 8 && page.data[6] == 0x10, "\(page)")
    }

    @Test("A medium can be taken out, changed and put in")
    func medium() throws {
        let daemon = try Daemon.serving(size: 8 << 20, settings: "removable=1")
        let other = try daemon.folder.sparseFile("other", size: 16 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params online=0")
        let offline = try (0..<3).map { _ in try initiator.perform(cdb: [0, 0, 0, 0, 0, 0]) }.last
        #expect(offline?.status == 2 && offline?.sense.count ?? 0 >= 14 && offline?.sense[2] ?? 0 & 0xf == 2)
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params path=\(other)")
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params online=1")
        #expect(try must("iscsi-readcapacity16", daemon.url(), folder: daemon.folder).contains("Total size:\(16 << 20)"))
    }

    @Test("The keys of a target are shown as they were set and negotiated so")
    func keys() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        for (name, value) in [
            ("MaxRecvDataSegmentLength", "65536"), ("FirstBurstLength", "131072"), ("MaxBurstLength", "1048576"), ("InitialR2T", "Yes"),
            ("ImmediateData", "No"), ("MaxOutstandingR2T", "4"), ("HeaderDigest", "CRC32C,None"), ("DefaultTime2Retain", "7"), ("nop_interval", "5"),
            ("nop_count", "3"),
        ] {
            try daemon.must("--op update --mode target --tid 1 --name \(name) --value \(value)")
            let shown = try daemon.must("--op show --mode target --tid 1")
            #expect(shown.contains("\(name)=\(name == "HeaderDigest" ? "CRC32C" : value)\n"), "\(shown)")
        }
        try QemuIO(daemon).check("write -P 0x31 0 4M", "read -P 0x31 0 4M")
    }

    @Test("Half a request, a request of nonsense and a client that leaves do no harm", .enabled(if: Subject.isPortcullis))
    func badRequests() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let script = """
            import os, socket, struct, sys
            path = sys.argv[1]
            def say(data, read=True):
                s = socket.socket(socket.AF_UNIX); s.settimeout(3); s.connect(path); s.sendall(data)
                if read:
                    try: s.recv(65536)
                    except OSError: pass
                s.close()
            def header(mode=1, op=2, lld=b"iscsi", length=120, tid=1): return struct.pack("<II64sIiQQIIIIII", mode, op, lld, length, tid, 0, 1, 0, 0, 0, 0, 0, 0)
            for cut in range(0, 120, 7): say(header()[:cut], read=False)
            for length in (0, 119, 121, 8312, 8313, 0xffffffff): say(header(length=length)[:120], read=length < 120 or length > 8312)
            for mode in (8, 0xffffffff): say(header(mode=mode))
            for op in (9, 0xffffffff): say(header(op=op))
            say(header(lld=b"x" * 64))
            say(header(op=0, length=123) + b"a=b"); say(header(op=5, length=125) + b"name=")
            """
        try must("python3", "-c", script, daemon.folder.path("socket.\(Daemon.controlPort)"), folder: daemon.folder)
        #expect(try daemon.must("--op show --mode target").contains("Target 1: "), daemon.evidence)
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
    }
}
