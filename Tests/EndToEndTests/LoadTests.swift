import Foundation
import Glibc
import Testing

/// The load client of the benchmarks: that it does what it measures, and what many sessions cost. How fast they are is not asserted.
@Suite(.enabled(if: Subject.isPortcullis)) struct LoadTests {
    private static let secret = "secret of alice!"

    /// The client with the words of `line`, on the target of a daemon that serves one.
    private func words(_ line: String, _ daemon: Daemon) -> [String] {
        let words = line.split(separator: " ").map(String.init)
        return [Subject.load] + words.prefix(1) + ["--portal", daemon.portal, "--target", Daemon.iqn("disk")] + words.dropFirst()
    }
    private func load(_ line: String, _ daemon: Daemon) throws -> Finished {
        try Running(words(line, daemon), folder: daemon.folder).wait(seconds: 60)
    }
    /// The numbers of the line that it prints.
    private func numbers(_ finished: Finished) throws -> [String: Double] {
        guard finished.succeeded, let found = try JSONSerialization.jsonObject(with: Data(finished.output.utf8)) as? [String: Double] else {
            throw Failure(finished.evidence)
        }
        return found
    }

    @Test("It reads and writes what it says, with and without digests, whether data come unasked or asked for", arguments: ["", "InitialR2T=Yes", "ImmediateData=No"])
    func transfers(parameter: String) throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        func allocated() throws -> Int {
            var status = stat()
            guard unsafe stat(daemon.folder.path("disk"), &status) == 0 else { throw Failure("the disk is there") }
            return Int(status.st_blocks) * 512
        }
        let changes = ["HeaderDigest=None,CRC32C", "DataDigest=None,CRC32C"] + (parameter.isEmpty ? [] : [parameter, "MaxRecvDataSegmentLength=65536"])
        for change in changes {
            let (name, value) = (change.prefix { $0 != "=" }, change.drop { $0 != "=" }.dropFirst())
            try daemon.must("--op update --mode target --tid 1 --name \(name) --value \(value)")
        }
        for digests in ["", "--header-digest --data-digest"] {
            for (size, depth, sessions) in [(4096, 1, 1), (4096, 128, 2), (262_144, 8, 1)] {
                for direction in ["", "--write"] {
                    let line = "io --size \(size) --depth \(depth) --sessions \(sessions) --requests 200 --seconds 30 --pid \(daemon.process.pid) \(direction) \(digests)"
                    let found = try numbers(load(line, daemon))
                    if direction.isEmpty, digests.isEmpty, size == 4096, depth == 1 { #expect(try allocated() == 0, "reads write nothing") }
                    #expect(found["requests"] == 200, "\(line): \(found)")
                    #expect(found["p50"]! > 0 && found["p50"]! <= found["p99"]! && found["p99"]! <= found["p999"]! && found["cpu"]! >= 0, "\(line): \(found)")
                }
            }
        }
        // 200 times 256 KiB at random places of 8 MiB.
        #expect(try allocated() > 7 << 20)
    }

    @Test("What is answered wrongly ends it: a status, a login, a digest that the target does not agree to")
    func refusals() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        #expect(try !load("io --requests 10 --data-digest", daemon).succeeded, "digests are not offered")
        try daemon.must("--op update --mode logicalunit --tid 1 --lun 1 --params readonly=1")
        let written = try load("io --requests 10 --write", daemon)
        #expect(!written.succeeded && written.output.contains("status"), "\(written.evidence)")
        try daemon.must("--op unbind --mode target --tid 1 -I ALL")
        let refused = try load("logins --requests 1 --seconds 30", daemon)
        #expect(!refused.succeeded && refused.output.contains("the login was answered"), "\(refused.evidence)")
    }

    @Test("It logs in and out, with and without CHAP")
    func logins() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        #expect(try numbers(load("logins --requests 20 --seconds 30 --parallel 4", daemon))["requests"] == 20)
        let secret = try daemon.folder.write(Self.secret, to: "secret")
        try daemon.must("--mode account --op new --user alice --password-file \(secret)")
        try daemon.must("--mode account --op bind --tid 1 --user alice")
        for algorithm in ["md5", "sha1", "sha256", "sha3-256"] {
            let found = try numbers(load("logins --requests 10 --seconds 30 --parallel 4 --chap \(algorithm) --user alice --secret \(secret)", daemon))
            #expect(found["requests"] == 10, "\(algorithm): \(found)")
        }
        let wrong = try daemon.folder.write("secret of bob!!!", to: "wrong")
        #expect(try !load("logins --requests 1 --seconds 30 --chap sha256 --user alice --secret \(wrong)", daemon).succeeded)
    }

    /// What an idle session may cost in all processes together: 10,000 of them fit into 400 MiB.
    private static let idleBytes = 40 << 10

    @Test("Many idle sessions cost little memory each, do not hinder a busy one, and leave nothing")
    func idle() throws {
        let count = Subject.soaks ? 10_000 : 1000
        let folder = try Folder()
        let settings = try folder.write("limits:\n  sessions-per-target: 10001\nlog:\n  level: notice\n", to: "tgtd.yaml")
        _ = unsafe chmod(settings, 0o600)
        let daemon = try Daemon.serving(size: 8 << 20, options: ["--config", settings])
        _ = try numbers(load("io --requests 1000 --depth 32 --seconds 30", daemon))
        let before = daemon.residentBytes
        let alone = try numbers(load("io --depth 32 --seconds 1", daemon))["rate"]!
        // Its standard input is a pipe that the shell holds open.
        let line = words("idle --sessions \(count) --first-isid 1000", daemon).joined(separator: " ")
        let crowd = try Running(["sh", "-c", "sleep 600 | \(line)"], folder: daemon.folder)
        #expect(eventually(within: 60) { crowd.output.contains("\n") }, "\(crowd.output)")
        #expect(try numbers(Finished(name: line, ending: .exited(0), output: crowd.output, elapsed: .zero))["sessions"] == Double(count))
        let each = (daemon.residentBytes - before) / count
        let beside = try numbers(load("io --depth 32 --seconds 1", daemon))["rate"]!
        #expect(each < Self.idleBytes)
        // Until the kernel has asked all of them often enough whether they are there.
        if Subject.soaks { Thread.sleep(forTimeInterval: 150) }
        #expect(crowd.poll() == nil && !crowd.output.contains("iscsi-load:"), "they have stayed: \(crowd.output)")
        print("an idle session costs \(each) bytes; one busy session beside \(count) idle ones has \(String(format: "%.2f", beside / alone)) of its rate alone")
        crowd.kill()
        #expect(eventually(within: 30) { (try? daemon.must("--op show --mode conn --tid 1"))?.contains("Session: ") == false }, "all sessions have ended")
        _ = try numbers(load("io --requests 100 --seconds 30", daemon))
    }

    /// What one session may make tgtd hold (README, Limits): a 32nd of the memory for data, 256 MiB by default, and 8 MiB beside.
    private static let sessionBytes = (256 << 20) / 32 + (8 << 20)

    /// How a session tries to make tgtd hold memory for it, and does not let go.
    enum Greed: String, CaseIterable {
        case readsWithoutTaking, writesWithoutData, halfOfTheData, outOfOrder
    }

    @Test("One session holds no more than its bound, whatever it asks for", arguments: Greed.allCases)
    func bound(greed: Greed) throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: 9)
        try initiator.settle()
        let before = daemon.residentBytes
        var sent = 0
        for _ in 0..<128 {
            // 1 MiB each: four times what one PDU may bring.
            var request =
                switch greed {
                case .readsWithoutTaking: initiator.command(cdb: [0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0], read: 1 << 20)
                case .writesWithoutData: initiator.command(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0], write: 1 << 20)
                case .halfOfTheData, .outOfOrder:
                    initiator.command(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0], write: 1 << 20, data: [UInt8](repeating: 1, count: 128 << 10))
                }
            // The first one in order never comes.
            if greed == .outOfOrder { request.put(request.number(at: 24) + 1, at: 24) }
            sent += initiator.wire.sendNow(request.bytes)
        }
        // It grows to what it may have within moments, and no more.
        let grown = (0..<10).map { _ in
            pause(seconds: 0.1)
            return daemon.residentBytes - before
        }.max() ?? 0
        print("a session (\(greed)) that has sent \(sent >> 10) KiB makes tgtd hold \(grown >> 10) KiB")
        #expect(sent > 0 && grown < Self.sessionBytes, "\(grown >> 10) KiB\n\(daemon.log.suffix(1000))")
        initiator.wire.reset()
        try QemuIO(daemon).check("read 0 4096")
    }
}
