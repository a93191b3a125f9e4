import Bytes
import CLinux
import Glibc
import Medium
import Reactor
import Testing

@testable import Storage

/// Rings are to be had here; where the kernel has none, these tests have nothing to try.
@Suite(.enabled(if: (try? ReadRing()) != nil)) struct ReadRingTests {
    @Test("what the cache holds is read together, and the rest is left for a thread that may wait", arguments: [2, 3, ReadRing.most])
    func cached(count: Int) throws {
        let file = try TestFile(.disk, length: 1 << 20)
        let store = try file.store()
        let data = pattern(1 << 20, seed: 3)
        #expect(try store.write(0, data) == .done)
        #expect(store.perform(.flush, buffer: nil) == .done)
        let ring = try ReadRing()
        var generator = SystemRandomNumberGenerator()
        func reads() throws -> [ReadRing.Read] {
            try (0..<count).map { _ in
                let length = 512 * Int.random(in: 1...32, using: &generator)
                return ReadRing.Read(Extent(512 * Int.random(in: 0...(1 << 20) / 512 - length / 512, using: &generator), length), into: try buffer(count: length))
            }
        }
        // Again and again: a ring is empty when a gathering is over.
        for _ in 0..<20 {
            var some = try reads()
            store.readAtOnce(&some, through: ring)
            for read in some { #expect(read.isDone && read.buffer.array(0..<Int(read.extent.length)) == Array(data[read.extent.range])) }
        }
        #expect(ring.count == UInt64(20 * count))

        #expect(linux_dont_need(store.descriptor.rawValue, 0, 1 << 20) == 0)
        var cold = [ReadRing.Read(Extent(512 << 10, 4096), into: try buffer(count: 4096)), ReadRing.Read(Extent(0, 512), into: try buffer(count: 512))]
        store.readAtOnce(&cold, through: ring)
        #expect(!cold[0].isDone && !cold[1].isDone)
        #expect(try store.read(512 << 10, 4096) == Array(data[(512 << 10)..<(512 << 10) + 4096]))
        // What was cold is warm, and its neighbour far away is not.
        store.readAtOnce(&cold, through: ring)
        #expect(cold[0].isDone && cold[0].buffer.array(0..<4096) == Array(data[(512 << 10)..<(512 << 10) + 4096]))
    }

    @Test("a read by itself needs no ring, and one past the end of the file is not done")
    func edges() throws {
        let file = try TestFile(.disk, length: 8192)
        let store = try file.store()
        #expect(try store.write(0, pattern(8192, seed: 4)) == .done)
        let ring = try ReadRing()
        var one = [ReadRing.Read(Extent(4096, 4096), into: try buffer(count: 4096))]
        store.readAtOnce(&one, through: ring)
        #expect(one[0].isDone && ring.count == 0)
        file.truncate(4096)
        var two = [ReadRing.Read(Extent(0, 4096), into: try buffer(count: 4096)), ReadRing.Read(Extent(4096, 4096), into: try buffer(count: 4096))]
        store.readAtOnce(&two, through: ring)
        #expect(two.map(\.isDone) == [true, false])
    }

    @Test("short reads of a file on a disk are gathered, longer ones, other operations and files in memory are not")
    func choice() throws {
        let disk = try TestFile(.disk, length: 1 << 20).store()
        let most = Int(FileStore.mostTogether)
        #expect(disk.fileToRead(for: .read(Extent(0, 512))) === disk && disk.fileToRead(for: .read(Extent(0, most))) === disk)
        #expect(disk.fileToRead(for: .read(Extent(0, most + 512))) == nil && disk.fileToRead(for: .read(Extent(0, 0))) == nil)
        #expect(disk.fileToRead(for: .write(Extent(0, 512), durable: false)) == nil && disk.fileToRead(for: .verify(Extent(0, 512))) == nil)
        #expect(try TestFile(.disk, length: 1 << 20).store(.direct).fileToRead(for: .read(Extent(0, 512))) == nil)
        #expect(try TestFile(.memory, length: 1 << 20).store().fileToRead(for: .read(Extent(0, 512))) == nil)
    }

    @Test("while an operation is alone in a file, no read of a gathering is done")
    func alone() throws {
        let file = try TestFile(.disk, length: 8192)
        let store = try file.store()
        #expect(try store.write(0, pattern(8192, seed: 5)) == .done)
        let ring = try ReadRing()
        var two = [ReadRing.Read(Extent(0, 512), into: try buffer(count: 512)), ReadRing.Read(Extent(512, 512), into: try buffer(count: 512))]
        store.alone { store.readAtOnce(&two, through: ring) }
        #expect(two.map(\.isDone) == [false, false])
        store.readAtOnce(&two, through: ring)
        #expect(two.map(\.isDone) == [true, true])
    }

    @Test("a ring does nothing but read, and in confinement it goes on and none is made")
    func restricted() async throws {
        let ring = try ReadRing()
        // IORING_OP_NOP, WRITEV, POLL_ADD, OPENAT, CLOSE, WRITE, SOCKET.
        for code: UInt8 in [0, 2, 6, 18, 19, 23, 45] { #expect(ring.refusal(of: code) == EACCES, "operation \(code)") }
        // A read without a file: it is let through.
        #expect(ring.refusal(of: 22) == EBADF)

        await #expect(processExitsWith: .success) {
            let store = try TestFile(.disk, length: 8192).store()
            guard try store.write(0, pattern(8192, seed: 6)) == .done else { _exit(1) }
            let ring = try ReadRing()
            _ = try Sandbox.enter(identity: geteuid() == 0 ? Identity(uid: 65534, gid: 65534) : nil, parent: nil, usesRings: true)
            var two = [ReadRing.Read(Extent(0, 512), into: try buffer(count: 512)), ReadRing.Read(Extent(512, 512), into: try buffer(count: 512))]
            store.readAtOnce(&two, through: ring)
            guard two.allSatisfy(\.isDone), ring.count == 2 else { _exit(2) }
            do throws(SystemError) {
                _ = try ReadRing()
                _exit(3)
            } catch { if error.code != EPERM { _exit(4) } }
            _exit(0)
        }
    }
}
