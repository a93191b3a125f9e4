import Foundation
import Testing

/// Linux's own initiator, in a small virtual machine.
@Suite struct KernelInitiatorTests {
    private static let folder = "\(Subject.package)/Tests/EndToEndTests/vm"
    private static let machine = ["\(folder)/linux-initiator.sh", "--cache", Subject.variable("LINUX_INITIATOR_CACHE") ?? "\(Subject.package)/.build-vm"]

    /// A portal's and an initiator's certificates, under names without a colon: those of a folder of an initiator have one.
    private struct Keys {
        static let initiator = "iqn.2026-11.org.example:guest"
        let authority: Authority
        let portal: Credentials
        let certificate: String
        let key: String

        init(_ address: String) throws {
            authority = try Authority()
            portal = try authority.portal(address)
            let initiator = try authority.initiator(Self.initiator)
            certificate = try authority.folder.write(authority.folder.text(of: initiator.certificate), to: "guest.pem")
            key = try authority.folder.write(authority.folder.text(of: initiator.key), to: "guest.key")
        }
    }

    @Test("Debian's kernel reaches a portal behind TLS through stunnel: discovery, login, data, a file system, recovery; certificates on both sides")
    func throughTLS() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let keys = try Keys("127.0.0.1")
        let port = try Ports.next()
        // What discovery answers is where the guest's stunnel listens.
        try daemon.must(
            "--op new --mode portal --param portal=127.0.0.1:\(port),tls=required,advertise=10.0.2.15:4001,tpgt=7,certificate=\(keys.portal.certificate),"
                + "key=\(keys.portal.key),client-ca=\(keys.authority.certificate),crl=\(keys.authority.revocations)")
        try daemon.must("--op update --mode target --tid 1 --name RequireTLS --value Yes")
        let finished = try Running(
            Self.machine + [
                "--timeout", "300", "--initiator", Keys.initiator, "--lun", "1", "-t", Daemon.iqn("disk"), "-p", "127.0.0.1:\(port)", "--label", "TLS", "--tls", "--tls-ca",
                 keys.authority.certificate, "--tls-cert", keys.certificate, "--tls-key", keys.key, "--tests", "params,inquiry,rw,ext4,recover,relogin",
            ], folder: daemon.folder
        ).wait(seconds: 320)
        let lines = finished.output.components(separatedBy: "\n")
        #expect(finished.succeeded, "\(finished.output.suffix(8000))\n\(daemon.log.suffix(4000))")
        #expect(lines.filter { $0.hasPrefix("ok ") && !$0.contains("# SKIP") }.count == 9, "\(finished.output.suffix(8000))")
        #expect(lines.contains { $0.contains("10.0.2.15:4001,7 \(Daemon.iqn("disk"))") }, "\(finished.output.suffix(8000))")
        #expect(daemon.log.contains("tls=TLSv1.3 TLS_"), daemon.evidence)
    }

    @Test("In Debian's kernel, tgtd has the kernel encrypt what it sends, by TLS 1.3 and by TLS 1.2, and all is as it should be")
    func kernelTLS() throws {
        let keys = try Keys("10.0.2.15")
        let files = [
            ("ca", keys.authority.certificate), ("certificate", keys.portal.certificate), ("key", keys.portal.key), ("initiator.certificate", keys.certificate),
            ("initiator.key", keys.key),
        ].flatMap { ["--add", "\($0.1):/add/keys/\($0.0)"] }
        let programs = [Subject.tgtd, Subject.tgtadm].flatMap { ["--add-program", $0] }
        let finished = try Running(
            Self.machine + ["--timeout", "300", "--mem", "1024", "--initiator", Keys.initiator, "--script", "\(Self.folder)/ktls-target.sh"] + programs + files,
            folder: keys.authority.folder
        ).wait(seconds: 320)
        #expect(finished.succeeded && finished.output.contains("ok 1 - run 01"), "\(finished.output.suffix(8000))")
        #expect(finished.output.contains("for which the kernel has encrypted: 3"), "\(finished.output.suffix(8000))")
    }

    @Test("Debian's kernel logs in, keeps a file system, resets, recovers; with digests and without, with CHAP by each algorithm, one-way and mutual")
    func kernel() throws {
        let daemon = try Daemon(portals: 2)
        for (index, name) in ["open", "digest"].enumerated() {
            try daemon.addTarget(index + 1, name: name)
            try daemon.addDisk(tid: index + 1, file: daemon.folder.sparseFile(name, size: 256 << 20))
            try daemon.admit(tid: index + 1)
        }
        for key in ["HeaderDigest", "DataDigest"] { try daemon.must("--op update --mode target --tid 2 --name \(key) --value CRC32C,None") }

        // For each algorithm one target, and one that wants both to prove who they are.
        let logins = ["MD5", "SHA1", "SHA256", "SHA3-256"].flatMap { [($0, false), ($0, true)] }
        try daemon.must("--mode account --op new --user alice --password alicesecret12")
        try daemon.must("--mode account --op new --user target --password targetsecret12")
        for (index, (_, isMutual)) in logins.enumerated() {
            let tid = index + 3
            try daemon.addTarget(tid, name: "chap\(index)")
            try daemon.addDisk(tid: tid, file: daemon.folder.sparseFile("chap\(index)", size: 64 << 20))
            try daemon.admit(tid: tid)
            try daemon.must("--mode account --op bind --tid \(tid) --user alice")
            if isMutual {
                try daemon.must("--mode account --op bind --tid \(tid) --user target --outgoing")
                try daemon.must("--mode target --op update --tid \(tid) --name RequireMutualCHAP --value Yes")
            }
        }

        let tests = "params,inquiry,rw,sync,writesame,unmap,pr,ext4,reset,recover,relogin" + (Subject.soaks ? ",caw,multipath,linkdown" : "")
        let words =
            Self.machine + [
                "--timeout", "600", "-p", daemon.portal, "--lun", "1", "-t", Daemon.iqn("open"), "--label", "open",
            ] + (Subject.soaks ? ["-p", daemon.portal, "-p", "127.0.0.1:\(daemon.ports[1])"] : []) + [
                "--tests", tests,
                "-t", Daemon.iqn("digest"), "--label", "digests", "--header-digest", "CRC32C", "--data-digest", "CRC32C", "--tests", "params,inquiry,rw,ext4,recover",
                "-t", Daemon.iqn("digest"), "--label", "R2T", "--header-digest", "CRC32C", "--data-digest", "None", "--set", "node.session.iscsi.InitialR2T=Yes",
                "--set", "node.session.iscsi.ImmediateData=No", "--tests", "params,rw",
            ] + logins.enumerated().flatMap { index, login in
                ["-t", Daemon.iqn("chap\(index)"), "--label", "CHAP \(login.0)\(login.1 ? " mutual" : "")", "--chap", "alice:alicesecret12", "--set", "node.session.auth.chap_algs=\(login.0)", "--tests", "rw"]
                    + (login.1 ? ["--mutual", "target:targetsecret12"] : [])
            } + [
                "-t", Daemon.iqn("chap0"), "--label", "wrong secret", "--chap", "alice:alicesecret13", "--refused",
                "-t", Daemon.iqn("chap7"), "--label", "wrong target", "--chap", "alice:alicesecret12", "--mutual", "target:targetsecret13", "--refused",
            ]
        let finished = try Running(words, folder: daemon.folder).wait(seconds: 900)
        let lines = finished.output.components(separatedBy: "\n")
        #expect(finished.succeeded, "\(finished.output.suffix(8000))\n\(daemon.log.suffix(4000))")
        #expect(lines.filter { $0.hasPrefix("not ok") } == [])
        for (algorithm, isMutual) in logins {
            let number = ["MD5": "MD5", "SHA1": "SHA-1", "SHA256": "SHA-256", "SHA3-256": "SHA3-256"][algorithm]!
            let account = "account=alice address=", proof = "chap=\(number)\(isMutual ? ", mutual" : "") initiator="
            #expect(daemon.log.components(separatedBy: "\n").contains { $0.contains(account) && $0.contains(proof) }, "\(algorithm) \(isMutual)")
        }
        #expect(lines.filter { $0.hasPrefix("ok ") }.count >= 18, "\(finished.output.suffix(8000))")
        // What may be missing is COMPARE AND WRITE, which is not asked for by default.
        #expect(lines.filter { $0.hasPrefix("ok ") && $0.contains("# SKIP") && !$0.contains("caw") } == [])
    }
}
