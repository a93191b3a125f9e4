import Foundation
import Glibc
import Testing

/// The processes that face the network may die at any time: their clients finish all the same.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct CrashTests {
    /// "Within a second", and one more for a machine that is busy with other tests.
    static let restartLimit = 2.0

    @Test("Login and data run as processes of their own and hold no privileges")
    func processes() throws {
        let daemon = try Daemon.serving()
        for role in ["login", "data"] {
            let pid = try #require(daemon.child(role: role), daemon.evidence)
            #expect(Processes.status("NoNewPrivs", of: pid) == "1", "\(role)")
            // A filter of system calls; what Landlock forbids cannot be read here.
            #expect(Processes.status("Seccomp", of: pid) == "2", "\(role)")
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] where geteuid() == 0 || set != "CapBnd" {
                #expect(Processes.status(set, of: pid).map { $0.allSatisfy { $0 == "0" } } == true, "\(role) \(set)")
            }
            if geteuid() == 0 {
                let ids = (Processes.status("Uid", of: pid) ?? "") + " " + (Processes.status("Gid", of: pid) ?? "")
                #expect(ids.split(whereSeparator: \.isWhitespace).allSatisfy { $0 != "0" }, "\(role): \(ids)")
                #expect(Processes.status("Groups", of: pid) == "", "\(role)")
            }
        }
    }

    @Test("A process that is killed has a successor within a second, and the log says so", arguments: ["data", "login"])
    func successor(role: String) throws {
        let daemon = try Daemon.serving()
        let old = try #require(daemon.child(role: role), daemon.evidence)
        kill(old, SIGKILL)
        let back = eventually(within: Self.restartLimit) { daemon.child(role: role).map { $0 != old } == true }
        #expect(back, daemon.evidence)
        #expect(daemon.log.contains(role), daemon.evidence)
        try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        #expect(kill(daemon.process.pid, 0) == 0)
    }

    @Test("A process that dies again and again is started again more slowly, and the daemon stays")
    func backOff() throws {
        let daemon = try Daemon.serving()
        for _ in 0..<5 {
            if let pid = daemon.child(role: "login") { kill(pid, SIGKILL) }
            pause(seconds: 0.05)
        }
        #expect(eventually(within: 20) { (try? Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))) != nil }, daemon.evidence)
        #expect(try daemon.admin(["--op", "show", "--mode", "target"]).succeeded)
    }

    @Test("kill -9 of data and of login under a write: the client finishes and the image is intact")
    func killedUnderLoad() throws {
        let (size, rate) = Subject.soaks ? (512 << 20, "16M") : (64 << 20, "12M")
        let daemon = try Daemon.serving(size: size)
        let source = try daemon.folder.randomFile("source", size: size)
        let writer = try Running(
            ["qemu-img", "convert", "-n", "-r", rate, "-f", "raw", "-O", "raw", source, daemon.url()], folder: daemon.folder)
        var kills = 0
        for role in (0..<(Subject.soaks ? 8 : 1)).flatMap({ _ in ["data", "login", "data"] }) {
            pause(seconds: 1.2)
            guard writer.poll() == nil, let pid = daemon.child(role: role) else { continue }
            kill(pid, SIGKILL)
            kills += 1
        }
        #expect(kills >= 2, "the write was over too early for the test to mean anything")
        let finished = writer.wait(seconds: Subject.soaks ? 300 : 90)
        #expect(finished.succeeded, "\(finished.evidence)\n\(daemon.log.suffix(4000))")
        let back = daemon.folder.path("back")
        try must("qemu-img", "convert", "-f", "raw", "-O", "raw", daemon.url(), back, folder: daemon.folder, seconds: 120)
        #expect(try daemon.folder.sha256(back) == daemon.folder.sha256(source))
    }

    @Test("A session survives the death of login, and what was written survives the death of data")
    func whatSurvives() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        kill(try #require(daemon.child(role: "login"), daemon.evidence), SIGKILL)
        let pattern = [UInt8](repeating: 0xd7, count: 4096)
        #expect(try initiator.perform(cdb: [0x2a, 0, 0, 0, 0, 8, 0, 0, 8, 0], write: pattern).status == 0, daemon.evidence)
        let old = try #require(daemon.child(role: "data"), daemon.evidence)
        kill(old, SIGKILL)
        #expect(initiator.wire.closes(within: 2))
        #expect(eventually(within: Self.restartLimit) { daemon.child(role: "data").map { $0 != old } == true }, daemon.evidence)
        try QemuIO(daemon).check("read -P 0xd7 4096 4096", "read -P 0 0 4096")
    }

    @Test("A write past the greatest length of a file makes an error, and the data process lives")
    func fileSizeLimit() throws {
        let daemon = try Daemon(wrapper: ["prlimit", "--fsize=\(1 << 20)"])
        try daemon.addTarget()
        try daemon.addDisk(file: daemon.folder.sparseFile("disk", size: 16 << 20))
        try daemon.admit()
        let data = try #require(daemon.child(role: "data"), daemon.evidence)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        // Blocks of 512 bytes: the first behind 1 MiB.
        let answer = try initiator.perform(cdb: [0x2a, 0, 0, 0, 0x08, 0, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512))
        #expect(answer.status == 0x02, daemon.evidence)
        // DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
        #expect(answer.sense.count > 13 && answer.sense[2] & 0x0f == 7 && answer.sense[12] == 0x27 && answer.sense[13] == 7, "\(answer.sense)")
        #expect(try initiator.perform(cdb: [0x2a, 0, 0, 0, 0, 8, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512)).status == 0)
        #expect(daemon.child(role: "data") == data, daemon.evidence)
    }

    @Test("Killed while reservations are being kept: what an initiator was told is GOOD is there")
    func killedWhileKeeping() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        var current: UInt8 = 0
        for round in 0..<4 {
            let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
            try initiator.settle()
            let old = try #require(daemon.child(role: "data"), daemon.evidence)
            let delay = UInt32.random(in: 1_000...30_000)
            Thread.detachNewThread {
                usleep(delay)
                kill(old, SIGKILL)
            }
            func key(_ number: UInt8) -> [UInt8] { [0, 0, 0, 0, 0, 0, 0, number] }
            while true {
                // REGISTER another key, as fast as it goes.
                let next = current % 250 + 1
                let list = key(current) + key(next) + key(0)
                guard let answer = try? initiator.perform(cdb: [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], write: list) else { break }
                #expect(answer.status == 0, daemon.evidence)
                current = next
            }
            #expect(eventually(within: 5) { daemon.child(role: "data").map { $0 != old } == true }, daemon.evidence)
            var again: Initiator?
            #expect(eventually(within: 5) {
                again = try? Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
                return again != nil
            }, daemon.evidence)
            let successor = try #require(again)
            try successor.settle()
            let keys = try successor.perform(cdb: [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], read: 256).data
            let found = keys.count >= 16 ? keys[15] : 0
            #expect(found == current || found == current % 250 + 1, "round \(round): \(found) is kept, \(current) was GOOD")
            current = found
        }
    }

    @Test("The data process has as many reactors as processors, at most 16, or as many as the settings say", arguments: [nil, 3])
    func reactors(setting: Int?) throws {
        let folder = try Folder()
        var options: [String] = []
        if let setting {
            let settings = try folder.write("reactors: \(setting)\n", to: "tgtd.yaml")
            _ = unsafe chmod(settings, 0o600)
            options = ["--config", settings]
        }
        let daemon = try Daemon(options: options)
        let data = try #require(daemon.child(role: "data"), daemon.evidence)
        let expected = setting ?? min(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 16)
        #expect(eventually(within: 5) { Processes.threads(of: data).count { $0.hasPrefix("reactor ") } == expected }, "\(Processes.threads(of: data))")
    }

    @Test("A persistent reservation outlives the data process, for the nexus that made it")
    func reservations() throws {
        let daemon = try Daemon.serving(size: 16 << 20)
        let key: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8], none = [UInt8](repeating: 0, count: 8)
        let holder = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try holder.settle()
        // REGISTER, then RESERVE: Exclusive Access.
        let register = none + key + [UInt8](repeating: 0, count: 8), reserve = key + none + [UInt8](repeating: 0, count: 8)
        #expect(try holder.perform(cdb: [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], write: register).status == 0, daemon.evidence)
        #expect(try holder.perform(cdb: [0x5f, 1, 3, 0, 0, 0, 0, 0, 24, 0], write: reserve).status == 0, daemon.evidence)

        let old = try #require(daemon.child(role: "data"))
        kill(old, SIGKILL)
        #expect(eventually(within: Self.restartLimit) { daemon.child(role: "data").map { $0 != old } == true })

        let again = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try again.settle()
        let keys = try again.perform(cdb: [0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], read: 256)
        #expect(keys.data.count >= 16 && Array(keys.data[8..<16]) == key, daemon.evidence)
        #expect(try again.perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512)).status == 0)
        let stranger = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), name: "iqn.2026-11.org.example:stranger")
        let refused = (0..<4).contains { _ in
            (try? stranger.perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], write: [UInt8](repeating: 2, count: 512)).status) == 0x18
        }
        #expect(refused, "no RESERVATION CONFLICT for another initiator")
    }
}
