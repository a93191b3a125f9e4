import Foundation
import Glibc
import Testing

/// Media that do not answer for a while, beside others that do.
@Suite(.enabled(if: Subject.isPortcullis && Mount.mayLoop, "only root mounts")) struct HangingMediumTests {
    /// The daemon's only reactor, serving a disk on a file system of its own (LUN 1) and one that is nobody else's business (LUN 2).
    private func daemon() throws -> Daemon {
        let daemon = try Daemon(wrapper: Mount.wrapper(Mount.ext4 + " && printf 'reactors: 1\\n' > $folder/tgtd.yaml && set -- \"$@\" --config $folder/tgtd.yaml", at: "medium"))
        let disk = daemon.folder.path("medium/disk")
        #expect(try daemon.inside("sh", "-c", "head -c 8M /dev/zero > \(disk) && sync \(disk)").succeeded)
        try daemon.addTarget()
        try daemon.addDisk(file: disk)
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("other", size: 8 << 20))
        try daemon.admit()
        return daemon
    }

    private func load(_ line: String, _ daemon: Daemon) throws -> Running {
        try Running([Subject.load, "io", "--portal", daemon.portal, "--target", Daemon.iqn("disk")] + words(line), folder: daemon.folder)
    }
    private func numbers(_ finished: Finished) throws -> [String: Double] {
        guard finished.succeeded, let found = try JSONSerialization.jsonObject(with: Data(finished.output.utf8)) as? [String: Double] else { throw Failure(finished.evidence) }
        return found
    }

    /// Others of the reactor wait at the most so long for what a medium holds up, in seconds: some milliseconds, on a machine that has others to do.
    private static let patience = 0.5

    @Test("Who writes to a file system that is frozen holds up nobody else on the reactor, and is answered when it thaws", arguments: [1, 32])
    func frozen(depth: Int) throws {
        let daemon = try daemon()
        let place = daemon.folder.path("medium")
        let writer = try load("--write --depth \(depth) --seconds 4", daemon)
        pause(seconds: 0.5)
        #expect(try daemon.inside("fsfreeze", "--freeze", place).succeeded)
        pause(seconds: 0.2)
        for direction in ["", "--write"] {
            let beside = try numbers(load("--lun 2 --first-isid 7 --seconds 1 \(direction)", daemon).wait(seconds: 30))
            print("beside a frozen file system: \(beside)")
            #expect(beside["requests"]! > 100 && beside["p999"]! < Self.patience * 1e6, "\(beside)")
        }
        #expect(try daemon.must("--op show --mode target").contains("Target 1"))
        #expect(try daemon.inside("fsfreeze", "--unfreeze", place).succeeded)
        let written = try numbers(writer.wait(seconds: 30))
        #expect(written["requests"]! > 100, "\(written)")
        // All is as it was: the reactor has its relief again.
        #expect(try numbers(load("--write --seconds 1", daemon).wait(seconds: 30))["requests"]! > 100)
        #expect(!daemon.log.contains("reactor"), daemon.evidence)
    }
}
