import Bytes
import CLinux
import Glibc
import Medium
import Reactor
import Synchronization
import Testing

@testable import Storage

final class Results: Sendable {
    private let all = Mutex<[(Int, Outcome)]>([])
    func add(_ token: Int, _ outcome: Outcome) { all.withLock { $0.append((token, outcome)) } }
    var tokens: [Int] { all.withLock { $0.map(\.0) } }
    var outcomes: [Outcome] { all.withLock { $0.map(\.1) } }
    /// Waits until there are `count`, or so long that something must be wrong.
    func wait(for count: Int) {
        let deadline = linux_monotonic_nanoseconds() + 20_000_000_000
        while tokens.count < count, linux_monotonic_nanoseconds() < deadline { usleep(200) }
    }
}

@Suite struct PoolTests {
    @Test("everything submitted is done and delivered, by several threads")
    func all() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 4) { results.add($0, $1) }
        let file = try TestFile(.memory, length: 512 * 1000)
        let store = try file.store()
        let queue = pool.open(store)
        for block in 0..<1000 {
            let data = try buffer([UInt8](repeating: UInt8(truncatingIfNeeded: block), count: 512))
            let isTaken = pool.submit(.write(Extent(block * 512, 512), durable: false), buffer: data, on: queue, token: block)
            #expect(isTaken)
        }
        pool.stop()
        #expect(results.tokens.sorted() == Array(0..<1000) && results.outcomes.allSatisfy { $0 == .done })
        #expect(try file.contents() == (0..<1000).flatMap { [UInt8](repeating: UInt8(truncatingIfNeeded: $0), count: 512) })
    }

    @Test("one thread does a store's operations in their order")
    func order() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 1) { results.add($0, $1) }
        let queue = pool.open(NullStore())
        for token in 0..<500 { _ = pool.submit(.flush, buffer: nil, on: queue, token: token) }
        pool.stop()
        #expect(results.tokens == Array(0..<500))
    }

    @Test("a store that hangs leaves the others their threads")
    func fair() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 4, perStore: 3) { results.add($0, $1) }
        let stuck = FaultyStore(NullStore())
        stuck.hold(.any)
        let (slow, quick) = (pool.open(stuck), pool.open(NullStore()))
        for token in 0..<50 { _ = pool.submit(.flush, buffer: nil, on: slow, token: token) }
        for token in 100..<150 { _ = pool.submit(.flush, buffer: nil, on: quick, token: token) }
        results.wait(for: 50)
        #expect(results.tokens == Array(100..<150))
        while stuck.heldBack < 3 { usleep(200) }
        #expect(stuck.heldBack == 3)
        stuck.release()
        pool.stop()
        #expect(results.tokens.count == 100)
    }

    @Test("stores take turns")
    func turns() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 1) { results.add($0, $1) }
        let gate = FaultyStore(NullStore())
        gate.hold(.any)
        _ = pool.submit(.flush, buffer: nil, on: pool.open(gate), token: -1)
        let queues = (0..<3).map { _ in pool.open(NullStore()) }
        for (index, queue) in queues.enumerated() {
            for number in 0..<4 { _ = pool.submit(.flush, buffer: nil, on: queue, token: index + 10 * number) }
        }
        gate.heal()
        pool.stop()
        #expect(results.tokens == [-1, 0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32])
    }

    @Test("operations that are submitted together call one thread, and that one the next if there is work for it")
    func calls() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 4, perStore: 2) { results.add($0, $1) }
        let store = FaultyStore(NullStore())
        // As many threads as may be, all idle.
        store.hold(.any)
        for queue in [pool.open(store), pool.open(store)] { for token in 0..<2 { _ = pool.submit(.flush, buffer: nil, on: queue, token: token) } }
        while store.heldBack < 4 { usleep(200) }
        store.release()
        results.wait(for: 4)
        usleep(50_000)
        let before = pool.calls
        store.hold(.any)
        let queue = pool.open(store)
        for token in 0..<100 { _ = pool.submit(.flush, buffer: nil, on: queue, token: token) }
        while store.heldBack < 2 { usleep(200) }
        usleep(50_000)
        #expect(pool.calls - before == 2 && store.heldBack == 2)
        store.release()
        results.wait(for: 104)
        #expect(results.tokens.count == 104)
        pool.stop()
    }

    @Test("above its limit the pool refuses", arguments: [3, 4, 5])
    func limit(submitted: Int) throws {
        let pool = IOPool<Int>(threads: 1, queueLimit: 4) { _, _ in }
        let store = FaultyStore(NullStore())
        store.hold(.any)
        let queue = pool.open(store)
        _ = pool.submit(.flush, buffer: nil, on: queue, token: 0)
        while store.heldBack == 0 { usleep(200) }
        let taken = (0..<submitted).map { pool.submit(.flush, buffer: nil, on: queue, token: $0) }
        #expect(taken == (0..<submitted).map { $0 < 4 })
        store.heal()
        pool.stop()
        let isTaken = pool.submit(.flush, buffer: nil, on: queue, token: 9)
        #expect(!isTaken)
    }

    @Test("a buffer is let go before its outcome is out")
    func buffers() throws {
        let memory = BufferPool(budget: 1 << 20)
        let inUse = Mutex<[Int]>([])
        let pool = IOPool<Int>(threads: 1) { _, _ in inUse.withLock { $0.append(memory.inUse) } }
        let store = FaultyStore(NullStore())
        let queue = pool.open(store)
        for token in 0..<20 {
            // Not begun before the submitter has let go of it.
            store.hold(.any)
            _ = pool.submit(.read(Extent(0, 4096)), buffer: memory.allocate(4096), on: queue, token: token)
            store.release()
            while inUse.withLock({ $0.count }) <= token { usleep(200) }
        }
        #expect(inUse.withLock { $0 } == [Int](repeating: 0, count: 20))
        pool.stop()
    }

    @Test("a thread that waits for work holds no store")
    func stores() throws {
        let results = Results()
        let pool = IOPool<Int>(threads: 1) { results.add($0, $1) }
        weak var held: NullStore?
        do {
            let store = NullStore()
            held = store
            _ = pool.submit(.flush, buffer: nil, on: pool.open(store), token: 0)
            results.wait(for: 1)
        }
        let deadline = linux_monotonic_nanoseconds() + 20_000_000_000
        while held != nil, linux_monotonic_nanoseconds() < deadline { usleep(200) }
        #expect(held == nil)
        pool.stop()
    }
}

@Suite struct OtherStoreTests {
    @Test("the null store reads zeros, forgets writes and holds nothing")
    func null() throws {
        let store = NullStore()
        #expect(store.length == 1 << 40)
        let last = Int(store.length) - 512
        #expect(try store.write(last, pattern(512, seed: 1)) == .done)
        #expect(try store.read(last, 512) == [UInt8](repeating: 0, count: 512))
        var data = [UInt8](repeating: 0, count: 1024)
        #expect(store.perform(.compare(Extent(0, 512)), buffer: try buffer(data)) == .done)
        #expect(store.perform(.compareAndWrite(Extent(0, 512), durable: false), buffer: try buffer(data)) == .done)
        data[77] = 1
        #expect(store.performAtOnce(.compare(Extent(0, 512)), buffer: try buffer(data)) == .failed(.miscompare(offset: 77)))
        #expect(store.perform(.provisioning(Extent(512, 512)), buffer: nil) == .provisioned([ProvisionedRun(extent: Extent(512, 512), isMapped: false)]))
        for operation in [Operation.flush, .discard([Extent(0, 512)]), .verify(Extent(0, 512)), .prefetch(Extent(0, 512))] {
            #expect(store.perform(operation, buffer: nil) == .done)
        }
    }

    @Test("a faulty store fails what it is told to, as often as it is told")
    func failures() throws {
        var fault = FaultyStore.Fault(.write)
        fault.failure = .noSpace
        fault.skip = 1
        fault.times = 2
        let store = FaultyStore(NullStore(), faults: [fault])
        #expect(try (0..<5).map { _ in try store.write(0, [1]) } == [.done, .failed(.noSpace), .failed(.noSpace), .done, .done])
        #expect(try store.read(0, 10).count == 10)
        #expect(store.performAtOnce(.write(Extent(0, 1), durable: false), buffer: try buffer([1])) == nil)
        #expect(store.performAtOnce(.read(Extent(0, 1)), buffer: try buffer([1])) == .done)
        store.heal()
        #expect(store.performAtOnce(.write(Extent(0, 1), durable: false), buffer: try buffer([1])) == .done)
    }

    @Test("a torn write reaches the medium up to its tear")
    func torn() throws {
        let file = try TestFile(.memory, length: 4096)
        let store = try #require(FaultyStore(try file.store(), script: "write:fail=unwritable,tear=700"))
        #expect(try store.write(512, [UInt8](repeating: 7, count: 1024)) == .failed(.unwritable))
        let contents = try file.contents()
        #expect(contents[512..<1212].allSatisfy { $0 == 7 } && contents[1212...].allSatisfy { $0 == 0 })
    }

    @Test("one seed strikes the same operations again, another seed others")
    func seeded() throws {
        func run(_ seed: Int) throws -> [Outcome] {
            let store = try #require(FaultyStore(NullStore(), script: "seed=\(seed);read:fail=unreadable,percent=30"))
            let data = try buffer([0])
            return (0..<200).map { _ in store.perform(.read(Extent(0, 1)), buffer: data) }
        }
        #expect(try run(1) == run(1))
        #expect(try run(1) != run(2))
        let struck = try run(3).filter { $0 != .done }.count
        #expect((30...90).contains(struck))
    }

    @Test("scripts that make no sense are refused", arguments: [
        "write", "write:", "write:delay", "write:delay=x", "write:delay=-1", "erase:delay=1", "write:fail=now", "seed=x", "write:colour=1", ":delay=1",
    ])
    func scripts(text: String) { #expect(FaultyStore(NullStore(), script: text) == nil) }

    @Test("a delayed write lands after its delay")
    func delay() throws {
        let file = try TestFile(.memory, length: 512)
        let store = try #require(FaultyStore(try file.store(), script: "write:delay=30"))
        let results = Results()
        let pool = IOPool<Int>(threads: 1) { results.add($0, $1) }
        _ = pool.submit(.write(Extent(0, 512), durable: false), buffer: try buffer([UInt8](repeating: 1, count: 512)), on: pool.open(store), token: 1)
        #expect(try file.contents()[0] == 0)
        pool.stop()
        #expect(try file.contents()[0] == 1)
    }
}

@Suite struct OpenerTests {
    @Test("what is neither a file nor a block device is refused by name", arguments: [
        ("/dev", StoreError.Reason.isDirectory), ("/dev/null", .isCharacterDevice), ("/nonexistent/x", .missing), ("", .badPath),
        ("relative", .badPath), ("/etc/passwd/x", .missing), ("/tmp/\0x", .badPath),
    ])
    func refused(path: String, reason: StoreError.Reason) {
        do {
            _ = try StoreOpener.open(path)
            Issue.record("opened")
        } catch {
            #expect(error.reason == reason)
            #expect(!error.description.isEmpty)
        }
    }

    @Test("a pipe and a socket are refused without being opened")
    func special() throws {
        let path = "/dev/shm/portcullis-fifo-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        #expect(unsafe mkfifo(path, 0o600) == 0)
        defer { unsafe unlink(path) }
        do {
            _ = try StoreOpener.open(path)
            Issue.record("opened")
        } catch { #expect(error.reason == .isNeitherFileNorDevice) }
    }

    @Test("a file needs room for one block", arguments: [0, 511, 512, 513])
    func size(length: Int) throws {
        let file = try TestFile(.memory, length: length)
        do {
            let opened = try StoreOpener.open(file.path)
            #expect(opened.length == UInt64(length) && length >= 512 && !opened.isBlockDevice)
        } catch { #expect(error.reason == .isEmpty && length < 512) }
    }

    @Test("a file that may not be written is refused, unless it shall only be read")
    func permissions() async {
        await #expect(processExitsWith: .success) {
            let file = try TestFile(.memory, length: 512)
            unsafe chmod(file.path, 0o444)
            defer { unsafe unlink(file.path) }
            if geteuid() == 0, unsafe chown(file.path, 65534, 65534) == 0 { _ = setuid(65534) }
            do throws(StoreError) {
                _ = try StoreOpener.open(file.path)
                _exit(1)
            } catch { if error.reason != .notPermitted { _exit(2) } }
            let store = try file.store(readOnly: true)
            if !store.isReadOnly { _exit(3) }
        }
    }

    @Test("a direct file must end on the alignment")
    func alignment() throws {
        let file = try TestFile(.disk, length: 4096 + 100)
        do {
            _ = try StoreOpener.open(file.path, flags: .direct)
            Issue.record("opened")
        } catch {
            guard case .lengthOffAlignment(4196, _) = error.reason else { throw error }
        }
    }

    @Test("flags are read and shown in tgt's words")
    func flags() {
        for words in ["", "sync", "direct", "sync:direct"] { #expect(StoreFlags(words: words)?.words == words) }
        #expect(StoreFlags(words: "direct:sync") == [.sync, .direct])
        for words in [":", "sync:", "Sync", "sync,direct", "nosync", " sync"] { #expect(StoreFlags(words: words) == nil) }
    }
}
