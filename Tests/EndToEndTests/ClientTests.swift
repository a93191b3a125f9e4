import Testing

/// Clients from Debian that know nothing of us: libiscsi's tools and QEMU's.
@Suite struct ClientTests {
    @Test("iscsi-ls finds the target, its portal and its disk")
    func list() throws {
        let daemon = try Daemon.serving(size: 128 << 20)
        let output = try must("iscsi-ls", "-s", "iscsi://\(daemon.portal)", folder: daemon.folder)
        #expect(output.contains("Target:\(Daemon.iqn("disk")) Portal:\(daemon.portal),1"), daemon.evidence)
        #expect(output.contains("Lun:0    Type:STORAGE_ARRAY_CONTROLLER"), "\(output)")
        #expect(output.contains("Lun:1    Type:DIRECT_ACCESS (Size:127M)") || output.contains("Lun:1    Type:DIRECT_ACCESS (Size:128M)"), "\(output)")
    }

    @Test("iscsi-inq reads the standard data and the vital product data pages")
    func inquiry() throws {
        let daemon = try Daemon.serving()
        let standard = try must("iscsi-inq", daemon.url(), folder: daemon.folder)
        #expect(standard.contains("Peripheral Device Type:DIRECT_ACCESS"), "\(standard)")
        #expect(standard.contains("Product:VIRTUAL-DISK"), "\(standard)")
        let pages = try must("iscsi-inq", "-e", "1", "-c", "0", daemon.url(), folder: daemon.folder)
        let codes = pages.split(separator: "\n").compactMap { line in
            line.hasPrefix("Page:0x") ? Int(line.dropFirst(7).prefix(2), radix: 16) : nil
        }
        // Those that iscsi-inq can take apart.
        let known = [0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2]
        #expect(Set(known).isSubset(of: codes), "\(pages)")
        for code in known { try must("iscsi-inq", "-e", "1", "-c", String(code), daemon.url(), folder: daemon.folder) }
    }

    @Test("iscsi-readcapacity16 sees the size and the block length", arguments: [512, 4096])
    func capacity(blockSize: Int) throws {
        let daemon = try Daemon.serving(size: 64 << 20, blockSize: blockSize)
        let output = try must("iscsi-readcapacity16", daemon.url(), folder: daemon.folder)
        #expect(output.contains("RETURNED LOGICAL BLOCK ADDRESS:\((64 << 20) / blockSize - 1)"), "\(output)")
        #expect(output.contains("LOGICAL BLOCK LENGTH IN BYTES:\(blockSize)"), "\(output)")
        #expect(output.contains("Total size:\(64 << 20)"), "\(output)")
    }

    @Test("A random image comes back as it went, through two sessions at once")
    func imagesInAndOut() throws {
        let size = Subject.soaks ? 1 << 30 : 96 << 20
        let daemon = try Daemon.serving(size: size)
        try daemon.addDisk(lun: 2, file: daemon.folder.sparseFile("second", size: size))
        let folder = daemon.folder
        let sources = try ["a", "b"].map { try folder.randomFile($0, size: size) }
        func both(_ words: (Int) -> [String]) throws {
            let running = try (0..<2).map { try Running(words($0), folder: folder) }
            for process in running {
                let finished = process.wait(seconds: 240)
                #expect(finished.succeeded, "\(finished.evidence)\n\(daemon.log.suffix(2000))")
            }
        }
        try both { ["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", sources[$0], daemon.url(lun: $0 + 1)] }
        try both { ["qemu-img", "convert", "-f", "raw", "-O", "raw", daemon.url(lun: $0 + 1), folder.path("back\($0)")] }
        for index in 0..<2 {
            #expect(try folder.sha256(sources[index]) == folder.sha256(folder.path("back\(index)")))
        }
    }

    @Test("Two sessions write one disk at once, each its half")
    func twoSessionsOneDisk() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let writers = try (0..<2).map { half in
            try Running(
                ["qemu-io", "-f", "raw"] + (0..<16).flatMap { ["-c", "write -P \(0x40 + half) \(half * 32 + $0 * 2)M 2M"] } + [daemon.url()],
                folder: daemon.folder)
        }
        for writer in writers {
            let finished = writer.wait(seconds: 120)
            #expect(finished.succeeded, "\(finished.evidence)")
        }
        try QemuIO(daemon).check("read -P 0x40 0 32M", "read -P 0x41 32M 32M")
    }

    @Test("Patterns of every size and place read back as written", arguments: [512, 4096])
    func patterns(blockSize: Int) throws {
        let daemon = try Daemon.serving(size: 64 << 20, blockSize: blockSize)
        let io = QemuIO(daemon)
        let places: [(pattern: Int, offset: Int, length: Int)] = [
            (0x11, 0, blockSize), (0x22, blockSize, 3 * blockSize), (0x33, 65_536, 65_536), (0x44, 1 << 20, (1 << 20) + blockSize),
            (0x55, 8 << 20, 8 << 20), (0x66, (64 << 20) - blockSize, blockSize),
        ]
        try io.check(places.map { "write -P \($0.pattern) \($0.offset) \($0.length)" })
        try io.check(places.map { "read -P \($0.pattern) \($0.offset) \($0.length)" })
        // Writes of less than a block, which QEMU makes of a read and a write.
        try io.check("write -P 0x77 \((20 << 20) + 100) 700", "read -P 0 \(20 << 20) 100", "read -P 0x77 \((20 << 20) + 100) 700")
    }

    @Test("Many requests at once, write-through, flush, zeroes and discard")
    func manyAtOnce() throws {
        let daemon = try Daemon.serving(size: 64 << 20)
        let io = QemuIO(daemon)
        let blocks = Array(stride(from: 0, to: 32 << 20, by: 256 << 10))
        try io.check(blocks.enumerated().map { "aio_write -P \($0.offset % 250 + 1) \($0.element) 256k" } + ["aio_flush", "flush"])
        try io.check(blocks.enumerated().map { "read -P \($0.offset % 250 + 1) \($0.element) 256k" })
        try io.check("write -f -P 0xaa 1M 1M", "read -P 0xaa 1M 1M")
        try io.check("write -z 2M 1M", "read -P 0 2M 1M", "read -P 0xaa 1M 1M")
        try io.check("write -z -u 4M 4M", "read -P 0 4M 4M", "discard 16M 4M", "read -P 0 16M 4M", "read -P \(80 % 250 + 1) 20M 256k")
    }

    @Test("An address past the end is refused and the session goes on")
    func pastTheEnd() throws {
        let daemon = try Daemon.serving(size: 8 << 20)
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let past = try initiator.perform(cdb: [0x28, 0, 0, 0, 0x40, 0, 0, 0, 1, 0], read: 512)
        #expect(past.status == 2)
        #expect(past.sense.count >= 14 && past.sense[2] & 0xf == 5 && past.sense[12] == 0x21)
        let last = try initiator.perform(cdb: [0x28, 0, 0, 0, 0x3f, 0xff, 0, 0, 1, 0], read: 512)
        #expect(last.status == 0 && last.data == [UInt8](repeating: 0, count: 512))
    }

    @Test("A disk that is read-only refuses writes and serves reads")
    func readOnly() throws {
        let daemon = try Daemon.serving(size: 8 << 20, settings: "readonly=1")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        let write = try initiator.perform(cdb: [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], write: [UInt8](repeating: 1, count: 512))
        #expect(write.status == 2 && write.sense.count >= 14 && write.sense[2] & 0xf == 7)
        #expect(try initiator.perform(cdb: [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], read: 512).status == 0)
    }
}

/// qemu-io on a daemon's first disk.
struct QemuIO {
    let daemon: Daemon
    init(_ daemon: Daemon) { self.daemon = daemon }

    func check(_ commands: String..., sourceLocation: SourceLocation = #_sourceLocation) throws {
        try check(commands, sourceLocation: sourceLocation)
    }
    /// Runs the commands in one session; a pattern that differs is a failure.
    func check(_ commands: [String], sourceLocation: SourceLocation = #_sourceLocation) throws {
        let finished = try Running(["qemu-io", "-f", "raw"] + commands.flatMap { ["-c", $0] } + [daemon.url()], folder: daemon.folder).wait(seconds: 120)
        #expect(
            finished.succeeded && !finished.output.contains("Pattern verification failed") && !finished.output.contains("failed:"),
            "\(finished.evidence)\n\(daemon.log.suffix(2000))", sourceLocation: sourceLocation)
    }
}
