import Foundation
import Testing

/// What others' scripts ask tgtadm for, in their order and read as they read it. The parsing is theirs, line for line in effect:
/// whoever changes an output and breaks it breaks them.
@Suite struct ConsumerTests {
    static let clients = AdministrationTests.clients

    @Test("Cinder finds its target's number and LUN 1, and mends a LUN 1 that is missing", arguments: clients)
    func cinder(client: String) throws {
        let daemon = try Daemon()
        let volume = try daemon.folder.sparseFile("volume-0001", size: 16 << 20)
        let consumer = try Consumer(daemon, client: client)
        try consumer.python("""
            iqn = "iqn.2010-10.org.openstack:volume-0001"
            ok("--lld iscsi --op show --mode target")
            ok("--lld iscsi --op new --mode target --tid 7 -T iqn.2010-10.org.openstack:volume-0000")
            ok("--lld iscsi --op new --mode target --tid 8 -T " + iqn)
            code, out, err = tgtadm("--lld iscsi --op new --mode target --tid 8 -T " + iqn)
            assert code == 22 and "target already exists" in err, err

            def number():
                for line in ok("--op show --mode target").split("\\n"):
                    if iqn in line:
                        return line.split()[1][:-1]
            def has_lun(tid):
                capture, lines = False, []
                for line in ok("--op show --mode target").split("\\n"):
                    if iqn in line and "Target %s" % tid in line:
                        capture = True
                    elif capture and "Target " in line and iqn not in line:
                        capture = False
                    if capture:
                        lines.append(line)
                return "        LUN: 1" in lines

            tid = number()
            assert tid == "8", tid
            assert not has_lun(tid)
            ok("--lld iscsi --op new --mode logicalunit --tid %s --lun 1 -b \(volume)" % tid)
            assert has_lun(tid) and not has_lun("7")
            code, out, err = tgtadm("--lld iscsi --op unbind --mode target --tid 8 -I ALL")
            assert code == 22 and "access control rule does not exist" in err, err
            ok("--lld iscsi --op delete --mode target --tid " + tid)
            code, out, err = tgtadm("--lld iscsi --op delete --mode target --tid " + tid)
            assert code == 22 and "can't find the target" in err, err
            assert number() is None
            """)
    }

    @Test("Longhorn makes a frontend, and takes it away under an initiator that is still there", arguments: clients)
    func longhorn(client: String) throws {
        let daemon = try Daemon()
        let volume = try daemon.folder.sparseFile("volume", size: 16 << 20)
        let consumer = try Consumer(daemon, client: client)
        let shared = """
            name = "iqn.2019-10.io.longhorn:volume"
            def supports(store):
                return " " + store in ok("--lld iscsi --op show --mode system")
            def heading(line):
                return int(line.split(":")[0].split()[1])
            def number():
                for line in ok("--lld iscsi --op show --mode target").split("\\n"):
                    if line.endswith(" " + name):
                        return heading(line)
                return -1
            """
        try consumer.python(shared + """

            assert supports("rdwr") and not supports("longhorn")
            ok("--lld iscsi --op new --mode target --tid 1 -T iqn.2019-10.io.longhorn:other")
            used = [heading(line) for line in ok("--lld iscsi --op show --mode target").split("\\n") if line.startswith("Target ")]
            tid = next(n for n in range(1, 4095) if n not in used)
            assert tid == 2
            ok("--lld iscsi --op new --mode target --tid %d -T %s" % (tid, name))
            ok("--lld iscsi --op new --mode logicalunit --tid %d --lun 1 -b \(volume) --bstype rdwr" % tid)
            ok("--lld iscsi --op update --mode logicalunit --tid %d --lun 1 --params thin_provisioning=1" % tid)
            ok("--lld iscsi --op update --mode logicalunit --tid %d --lun 1 --params mode_page=8:0:18:0x10:0:0xff:0xff:0:0:0xff:0xff:0xff:0xff:0x80:0x14:0:0:0:0:0:0" % tid)
            ok("--lld iscsi --op bind --mode target --tid %d -I ALL" % tid)
            assert number() == tid
            """)
        let initiator = try Initiator.login(port: daemon.port, target: "iqn.2019-10.io.longhorn:volume")
        try initiator.settle()
        try consumer.python(shared + """

            tid = number()
            ok("--lld iscsi --op unbind --mode target --tid %d -I ALL" % tid)
            code, out, err = tgtadm("--lld iscsi --op unbind --mode target --tid %d -I ALL" % tid)
            assert code == 22 and "this access control rule does not exist" in err, err
            connections, session = {}, None
            for line in ok("--lld iscsi --op show --mode conn --tid %d" % tid).split("\\n"):
                line = line.strip()
                if line.startswith("Session: "):
                    session = int(line.split(": ")[1])
                if line.startswith("Connection: "):
                    connections.setdefault(session, []).append(int(line.split(": ")[1]))
            # Without the rule the session is over, or as good as over: rules apply to those who are in.
            assert connections in ({}, {session: [0]}), connections
            for session, cids in connections.items():
                for cid in cids:
                    code, out, err = tgtadm("--lld iscsi --op delete --mode conn --tid %d --sid %d --cid %d" % (tid, session, cid))
                    assert code == 0 or "can't find the" in err, err
            code, out, err = tgtadm("--lld iscsi --op delete --mode logicalunit --tid %d --lun 1" % tid)
            assert code == 0 or "this logical unit is still active" in err, err
            ok("--lld iscsi --op delete --mode target --tid %d" % tid)
            assert number() == -1
            for line in ok("--lld iscsi --op show --mode target").split("\\n"):
                if line.startswith("Target"):
                    ok("--lld iscsi --op delete --mode target --tid " + line.split()[1])
            ok("--op delete --mode system")
            """)
        #expect(initiator.wire.closes(within: 5))
        #expect(daemon.process.wait(seconds: 10).succeeded)
    }

    @Test("Pacemaker starts, monitors and stops a target and its logical unit", arguments: clients)
    func pacemaker(client: String) throws {
        let daemon = try Daemon()
        let device = try daemon.folder.sparseFile("device", size: 16 << 20)
        let consumer = try Consumer(daemon, client: client)
        let shared = """
            set -e
            iqn=iqn.2003-01.org.example.cluster:disk
            device=\(device)
            running() { tgtadm --lld iscsi --op show --mode target | grep -Eq "Target [0-9]+: ${iqn}"; }
            number() { tgtadm --lld iscsi --op show --mode target | sed -ne "s/^Target \\([[:digit:]]\\+\\): ${iqn}$/\\1/p"; }
            served() { tgtadm --lld iscsi --op show --mode target | grep -E -q "[[:space:]]+Backing store.*: ${device}$"; }
            """
        try consumer.shell(shared + """

            ! running
            tgtadm --lld iscsi --op new --mode target --tid=3 --targetname ${iqn}
            for parameter in DefaultTime2Wait=2 MaxBurstLength=262144; do
                tgtadm --lld iscsi --op update --mode target --tid=3 --name=${parameter%=*} --value=${parameter#*=}
            done
            tgtadm --lld iscsi --op bind --mode target --tid=3 --initiator-address=ALL
            running
            test "$(number)" = 3
            ! served
            tgtadm --lld iscsi --op new --mode logicalunit --tid=3 --lun=1 --backing-store ${device} --bstype rdwr --bsoflags sync --device-type disk
            tgtadm --lld iscsi --op update --mode logicalunit --tid=3 --lun=1 --params scsi_id=cluster-1,scsi_sn=0badcafe,vendor_id=ACME
            served
            """)
        let initiator = try Initiator.login(port: daemon.port, target: "iqn.2003-01.org.example.cluster:disk")
        try initiator.settle()
        try consumer.shell(shared + """

            tgtadm --lld iscsi --op delete --mode logicalunit --tid=3 --lun=1
            ! served
            tid=$(number)
            tgtadm --lld iscsi --op unbind --mode target --tid=${tid} --initiator-address=ALL
            for session in $(tgtadm --lld iscsi --op show --mode target --tid 3 > /dev/null; tgtadm --lld iscsi --op show --mode target | sed -ne 's/^        I_T nexus: \\([0-9]*\\)$/\\1/p'); do
                for connection in $(tgtadm --lld iscsi --op show --mode target | sed -ne "/I_T nexus: ${session}$/,/LUN information/ s/^ *Connection: \\([0-9]*\\)$/\\1/p"); do
                    echo "session ${session} connection ${connection}"
                    tgtadm --lld iscsi --op delete --mode connection --tid=${tid} --sid=${session} --cid=${connection}
                done
            done
            while tgtadm --lld iscsi --op show --mode target | grep -Eq "Target ${tid}:"; do
                tgtadm --lld iscsi --op delete --mode target --tid=${tid} || sleep 0.2
            done
            ! running
            """)
        #expect(initiator.wire.closes(within: 5))
    }

    @Test("OpenWrt configures everything while offline, and stops with what awk finds", arguments: clients)
    func openWrt(client: String) throws {
        let daemon = try Daemon(options: [])
        let device = try daemon.folder.sparseFile("device", size: 16 << 20)
        let consumer = try Consumer(daemon, client: client)
        try consumer.shell("""
            set -e
            tgtadm="tgtadm --lld iscsi"
            $tgtadm --mode sys --op update --name State -v offline
            $tgtadm --mode account --op new --user somebody --password secret-words
            $tgtadm --mode target --op new --tid 1 --targetname iqn.2012-06.org.openwrt:one
            $tgtadm --mode target --op bind --tid 1 --initiator-address ALL
            $tgtadm --mode target --op bind --tid 1 --initiator-name iqn.2012-06.org.openwrt:initiator
            $tgtadm --mode logicalunit --tid 1 --lun 1 --op new --backing-store \(device) --device-type disk --bstype rdwr --bsoflags sync:direct --blocksize=512
            $tgtadm --mode logicalunit --tid 1 --lun 1 --op update --param vendor_id=OpenWrt,scsi_sn=1,removable=0,readonly=0,product_id=disk,
            $tgtadm --mode target --op new --tid 2 --targetname iqn.2012-06.org.openwrt:two
            $tgtadm --mode account --op bind --tid 2 --user somebody
            """)
        #expect(throws: (any Error).self, "a system that is offline admits nobody") {
            try Initiator.login(port: daemon.port, target: "iqn.2012-06.org.openwrt:one", name: "iqn.2012-06.org.openwrt:initiator")
        }
        try consumer.shell("tgtadm --lld iscsi --mode sys --op update --name State -v ready")
        let initiator = try Initiator.login(port: daemon.port, target: "iqn.2012-06.org.openwrt:one", name: "iqn.2012-06.org.openwrt:initiator")
        try initiator.settle()
        try consumer.shell("""
            set -e
            tgtadm="tgtadm --lld iscsi"
            $tgtadm --mode sys --op update --name State -v offline
            $tgtadm --mode target --op show | awk '$1 == "Target" {sub(/:/,"",$2); print $2}' | xargs -r -n1 $tgtadm --mode target --op delete --force --tid
            test -z "$($tgtadm --mode target --op show)"
            $tgtadm --mode sys --op delete
            """)
        #expect(initiator.wire.closes(within: 5))
        #expect(daemon.process.wait(seconds: 10).succeeded)
    }

    @Test("avocado-vt finds numbers, paths, LUNs and accounts with its expressions", arguments: clients)
    func avocado(client: String) throws {
        let daemon = try Daemon()
        let image = try daemon.folder.sparseFile("emulated-iscsi", size: 16 << 20)
        try Consumer(daemon, client: client).python("""
            import re
            target, image = "iqn.2003-01.org.avocado:emulated", "\(image)"
            show = "--lld iscsi --mode target --op show"
            def number():
                found = ""
                for line in ok(show).split("\\n"):
                    if re.findall(r"Target\\s+(\\d+)", line):
                        found = re.findall(r"Target\\s+(\\d+)", line)[0]
                    if re.findall(r"Backing store path:\\s+(/+.+)", line) and image in line:
                        return found
                return ""
            def accounts():
                output = ok("--lld iscsi --op show --mode account")
                return [line.strip() for line in output.splitlines()[1:]] if output else output
            def bound():
                found = re.findall(r"Target\\s+\\d:\\s+%s.*Account information:\\s(.*)ACL information" % target, ok(show), re.S)
                return [line.strip() for line in found[0].strip().splitlines()]

            assert not re.findall("%s$" % target, ok(show), re.M) and number() == "" and not accounts()
            ok("--mode target --op new --tid 1 --lld iscsi --targetname " + target)
            ok("--lld iscsi --op bind --mode target --tid 1 -I ALL")
            assert re.findall("%s$" % target, ok(show), re.M)
            assert re.findall(r"Target\\s+(\\d+)", ok(show)) == ["1"]
            luns = len(re.findall(r"\\s+LUN:\\s(\\d+)", ok(show), re.M))
            assert luns == 1, luns
            ok("--mode logicalunit --op new --tid 1 --lld iscsi --lun %d --backing-store %s" % (luns, image))
            assert number() == "1" and re.findall(r"\\s+LUN:\\s(\\d+)", ok(show), re.M) == ["0", "1"]
            # Its secret stands on the command line; ours says that others see it there.
            assert tgtadm("--lld iscsi --op new --mode account --user redhat --password password-of-many")[0] == 0
            assert accounts() == ["redhat"], accounts()
            assert bound() == [], bound()
            ok("--lld iscsi --op bind --mode account --tid 1 --user redhat")
            assert bound() == ["redhat"], bound()
            ok("--lld iscsi --op unbind --mode account --tid 1 --user redhat")
            ok("--lld iscsi --op delete --mode account --user redhat")
            ok("--lld iscsi --mode target --op delete --tid 1")
            assert number() == ""
            """)
    }

    @Test("Start-up scripts know a daemon that is not running by status 107", arguments: clients)
    func initScript(client: String) throws {
        let folder = try Folder()
        let end = try run(
            "/bin/sh", "-c", "'\(client)' --op show --mode target > /dev/null 2>&1; test $? -eq 107 && '\(client)' --op update --mode sys --name State -v offline; test $? -eq 107",
            environment: ["TGT_IPC_SOCKET": folder.path("socket")], folder: folder)
        #expect(end.succeeded, "\(end.evidence)")
    }
}

/// A place where `tgtadm` is the client under test and speaks to `daemon` without being told its control port.
private struct Consumer {
    let daemon: Daemon
    let environment: [String: String]

    init(_ daemon: Daemon, client: String) throws {
        self.daemon = daemon
        let programs = daemon.folder.path("bin")
        try FileManager.default.createDirectory(atPath: programs, withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: "\(programs)/tgtadm", withDestinationPath: client)
        try FileManager.default.createSymbolicLink(atPath: daemon.folder.path("socket.0"), withDestinationPath: "socket.\(Daemon.controlPort)")
        environment = ["TGT_IPC_SOCKET": daemon.folder.path("socket"), "PATH": "\(programs):\(Subject.variable("PATH") ?? "/usr/bin:/bin")"]
    }

    func shell(_ script: String) throws { try run("bash", "-c", script) }

    /// `tgtadm(words)` gives exit code, output and errors; `ok(words)` has to succeed and gives the output.
    func python(_ script: String) throws {
        try run("python3", "-c", """
            import subprocess
            def tgtadm(words):
                end = subprocess.run(["tgtadm"] + words.split(), capture_output=True, text=True)
                return end.returncode, end.stdout, end.stderr
            def ok(words):
                code, out, err = tgtadm(words)
                assert code == 0 and err == "", (words, code, err)
                return out

            """ + script)
    }

    private func run(_ words: String...) throws {
        let end = try Running(words, environment: environment, folder: daemon.folder).wait(seconds: 60)
        #expect(end.succeeded, "\(end.ending): \(end.output)\ntgtd's log:\n\(daemon.log.suffix(2000))")
    }
}
