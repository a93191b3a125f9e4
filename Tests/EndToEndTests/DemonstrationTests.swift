import Foundation
import Glibc
import Testing

/// What `make run` starts.
@Suite(.serialized, .enabled(if: Subject.isPortcullis)) struct DemonstrationTests {
    static let port = 3260

    @Test("The demonstration serves a disk that keeps what was written to it", .enabled(if: Wire.isFree(port: port), "port 3260 is taken"))
    func demonstration() throws {
        let folder = try Folder()
        let demo = folder.path("demo")
        let url = "iscsi://127.0.0.1:\(Self.port)/iqn.2026-11.org.example:demo/1"
        for (number, command) in ["write -P 0x99 5M 1M", "read -P 0x99 5M 1M"].enumerated() {
            let daemon = try Running([Subject.tgtd, "-f", "--demo", demo], folder: folder)
            // It says what to try when all of it is there.
            let built = eventually(within: 10) { daemon.poll() != nil || daemon.output.contains("iscsi-ls") }
            #expect(built && daemon.poll() == nil, "the demonstration prints no commands to try:\n\(daemon.output)")
            let listed = try must("iscsi-ls", "-s", "iscsi://127.0.0.1:\(Self.port)", folder: folder)
            #expect(listed.contains("iqn.2026-11.org.example:demo") && listed.contains("(Size:1"), "\(listed)\n\(daemon.output)")
            let io = try run("qemu-io", "-f", "raw", "-c", command, url, folder: folder)
            #expect(io.succeeded && !io.output.contains("failed"), "\(io.evidence)")
            if number == 0 {
                var status = stat()
                #expect(unsafe stat(demo, &status) == 0 && status.st_mode & 0o7777 == 0o700, "others can look into the demonstration's folder")
                // 1 GiB that occupies little.
                #expect(unsafe stat("\(demo)/disk.img", &status) == 0 && status.st_size == 1 << 30 && status.st_blocks * 512 < 64 << 20)
            }
            daemon.signal(SIGINT)
            let finished = daemon.wait(seconds: 10)
            #expect(finished.ending == .exited(0), "\(finished.evidence)")
        }
    }
}
