import Bytes
import CLinux
import Glibc
import Medium
import Reactor
import Testing

@testable import Storage

@Suite struct FileStoreTests {
    struct Ground: CustomTestStringConvertible {
        let place: Place
        let flags: StoreFlags
        let grain: Int
        var testDescription: String { "\(place.rawValue) [\(flags.words)] in steps of \(grain)" }
    }
    static let grounds = [
        Ground(place: .memory, flags: [], grain: 512), Ground(place: .disk, flags: [], grain: 512), Ground(place: .disk, flags: .sync, grain: 512),
        Ground(place: .disk, flags: .direct, grain: 512), Ground(place: .disk, flags: [.direct, .sync], grain: 4096),
        Ground(place: .disk, flags: .direct, grain: 1),
    ]

    @Test("every operation does to a file what it does to an array", arguments: grounds)
    func model(ground: Ground) throws {
        let blocks = ground.grain == 4096 ? 100 : ground.grain == 1 ? 409_600 : 800
        let file = try TestFile(ground.place, length: blocks * ground.grain)
        let store = try file.store(ground.flags)
        #expect(store.length == UInt64(blocks * ground.grain) && store.flags == ground.flags)
        let model = try compareWithModel(store, grain: ground.grain, seed: UInt64(ground.grain) + UInt64(ground.flags.rawValue))
        let contents = try file.contents()
        #expect(contents == model.bytes)
        #expect(contents.count == Int(store.length), "no write makes the file longer")
    }

    @Test("and to a block device, whatever its sectors", .enabled(if: LoopDevice.isAvailable), arguments: [512, 4096], [StoreFlags(), .direct])
    func device(sector: Int, flags: StoreFlags) throws {
        let device = try LoopDevice(length: 409_600, sector: sector)
        let opened = try StoreOpener.open(device.path, flags: flags)
        #expect(opened.isBlockDevice && opened.length == 409_600 && opened.physicalSector >= sector)
        do throws(StoreError) {
            _ = try StoreOpener.open(device.path)
            Issue.record("opened twice")
        } catch { #expect(error.reason == .inUse) }
        _ = try StoreOpener.open(device.path, exclusively: false)
        _ = try StoreOpener.open(device.path, readOnly: true)
        let store = try FileStore(adopting: opened.descriptor.duplicate())
        #expect(store.perform(.provisioning(Extent(512, 1024)), buffer: nil)
            == .provisioned([ProvisionedRun(extent: Extent(512, 1024), isMapped: true)]))
        let model = try compareWithModel(store, grain: 512, seed: UInt64(sector))
        #expect(try store.read(0, 409_600) == model.bytes)
        #expect(try device.file.contents() == model.bytes)
    }

    private func compareWithModel(_ store: FileStore, grain: Int, seed: UInt64) throws -> ModelStore {
        let length = Int(store.length)
        let blocks = length / grain
        var model = ModelStore(bytes: [UInt8](repeating: 0, count: length))
        var random = Seeded(seed)
        for step in 0..<100 {
            // Mostly small, sometimes larger than the scratch memory.
            let most = random.next(10) == 0 ? blocks : min(blocks, 40)
            let count = random.next(most) + 1
            let extent = Extent(random.next(blocks - count + 1) * grain, count * grain)
            let durable = random.next(20) == 0
            let operation: Operation
            switch random.next(12) {
            case 0: operation = .read(extent)
            case 1, 2: operation = .write(extent, durable: durable)
            case 3: operation = .flush
            case 4:
                let second = Extent(random.next(blocks) * grain, grain)
                operation = .discard([extent, second, Extent(0, 0)])
            case 5, 6: operation = .writeSame(extent, pattern: grain * (count % 2 == 0 ? 2 : 1), durable: durable)
            case 7: operation = .verify(extent)
            case 8: operation = .compare(extent)
            case 9: operation = .orWrite(extent, durable: durable)
            case 10: operation = .compareAndWrite(extent, durable: durable)
            default: operation = .prefetch(extent)
            }
            var data = pattern(max(1, operation.bufferLength), seed: step)
            // Half of the comparisons shall succeed, and half of the patterns are zeros.
            if random.next(2) == 0 {
                switch operation {
                case .compare, .compareAndWrite: data.replaceSubrange(0..<Int(extent.length), with: model.bytes[extent.range])
                case .writeSame: data = [UInt8](repeating: 0, count: data.count)
                default: break
                }
            }
            let buffer = try buffer(data)
            let expected = model.perform(operation, data)
            let outcome = store.performAtOnce(operation, buffer: buffer) ?? store.perform(operation, buffer: buffer)
            #expect(outcome == expected, "step \(step): \(operation)")
            if case .read(let extent) = operation { #expect(buffer.array(0..<Int(extent.length)) == Array(model.bytes[extent.range])) }
        }
        #expect(store.perform(.flush, buffer: nil) == .done)
        return model
    }

    @Test("in memory reads, writes and flushes are done at once")
    func atOnceInMemory() throws {
        let store = try TestFile(.memory, length: 8192).store()
        let data = pattern(8192, seed: 1)
        #expect(store.performAtOnce(.write(Extent(0, 8192), durable: true), buffer: try buffer(data)) == .done)
        let read = try buffer(count: 8192)
        #expect(store.performAtOnce(.read(Extent(0, 8192)), buffer: read) == .done)
        #expect(read.array(0..<8192) == data)
        #expect(store.performAtOnce(.flush, buffer: nil) == .done)
        #expect(store.performAtOnce(.verify(Extent(0, 512)), buffer: nil) == nil)
    }

    @Test("on a disk only what the cache holds is read at once, and nothing durable is done at once")
    func atOnceOnDisk() throws {
        let file = try TestFile(.disk, length: 1 << 20)
        let store = try file.store()
        let data = pattern(1 << 20, seed: 2)
        #expect(try store.write(0, data) == .done)
        let read = try buffer(count: 65536)
        #expect(store.performAtOnce(.read(Extent(4096, 65536)), buffer: read) == .done)
        #expect(read.array(0..<65536) == Array(data[4096..<4096 + 65536]))
        #expect(store.performAtOnce(.write(Extent(0, 512), durable: true), buffer: read) == nil)
        #expect(store.performAtOnce(.flush, buffer: nil) == nil)
        #expect(store.perform(.flush, buffer: nil) == .done)
        #expect(linux_dont_need(store.descriptor.rawValue, 0, 1 << 20) == 0)
        #expect(store.performAtOnce(.read(Extent(512 << 10, 65536)), buffer: read) == nil)
        #expect(try store.read(512 << 10, 65536) == Array(data[(512 << 10)..<(512 << 10) + 65536]))
        let direct = try file.store(.direct)
        #expect(direct.performAtOnce(.read(Extent(0, 4096)), buffer: read) == nil)
        #expect(direct.performAtOnce(.write(Extent(0, 4096), durable: false), buffer: read) == nil)
    }

    @Test("a thread may well do itself what goes into the page cache, and nothing else")
    func seldomHeldUp() throws {
        let file = try TestFile(.disk, length: 2 << 20)
        let most = Int(FileStore.mostAtOnce)
        let (small, large) = (Operation.write(Extent(0, most), durable: false), Operation.write(Extent(0, most + 512), durable: false))
        let store = try file.store()
        #expect(store.isSeldomHeldUp(by: small) && !store.isSeldomHeldUp(by: large))
        let others: [Medium.Operation] = [
            .write(Extent(0, 512), durable: true), .read(Extent(0, 512)), .flush, .discard([Extent(0, 512)]), .writeSame(Extent(0, 512), pattern: 512, durable: false),
            .verify(Extent(0, 512)), .compare(Extent(0, 512)), .orWrite(Extent(0, 512), durable: false), .compareAndWrite(Extent(0, 512), durable: false),
        ]
        for other in others { #expect(!store.isSeldomHeldUp(by: other), "\(other)") }
        for flags in [StoreFlags.direct, .sync] { #expect(try !file.store(flags).isSeldomHeldUp(by: small)) }
        #expect(!NullStore(length: 512).isSeldomHeldUp(by: .write(Extent(0, 512), durable: false)))
    }

    @Test("no more than a reactor can spare is done at once")
    func atOnceLimit() throws {
        let most = Int(FileStore.mostAtOnce)
        let store = try TestFile(.memory, length: most + 512).store()
        let data = try buffer(count: most + 512)
        for (length, isDone) in [(most - 512, true), (most, true), (most + 512, false)] {
            #expect((store.performAtOnce(.read(Extent(0, length)), buffer: data) != nil) == isDone)
            #expect((store.performAtOnce(.write(Extent(0, length), durable: false), buffer: data) != nil) == isDone)
        }
    }

    @Test("a file that shrank is unreadable where it is missing, and readable before that", arguments: Place.allCases)
    func shrunk(place: Place) throws {
        let file = try TestFile(place, length: 65536)
        let store = try file.store()
        file.truncate(32768 + 100)
        let data = try buffer(count: 65536)
        #expect(store.perform(.read(Extent(0, 32768)), buffer: data) == .done)
        for operation in [Operation.read(Extent(32768, 4096)), .verify(Extent(0, 65536)), .compare(Extent(40960, 512)), .orWrite(Extent(65024, 512), durable: false)] {
            #expect(store.perform(operation, buffer: data) == .failed(.unreadable))
        }
        #expect(store.performAtOnce(.read(Extent(32768, 4096)), buffer: data) == nil)
    }

    @Test("a store without writes refuses each of them and reads on")
    func readOnly() throws {
        let file = try TestFile(.memory, length: 8192)
        let data = try buffer(count: 8192)
        let stores = [try file.store(readOnly: true), try file.store(refusing: true)]
        for store in stores {
            #expect(store.isReadOnly)
            for operation in [
                Operation.write(Extent(0, 512), durable: false), .discard([Extent(0, 512)]), .writeSame(Extent(0, 512), pattern: 512, durable: false),
                .orWrite(Extent(0, 512), durable: false), .compareAndWrite(Extent(0, 512), durable: false),
            ] {
                #expect(store.perform(operation, buffer: data) == .failed(.readOnly))
                #expect(store.performAtOnce(operation, buffer: data) == .failed(.readOnly))
            }
            #expect(store.perform(.flush, buffer: nil) == .done)
            #expect(try store.read(0, 512) == [UInt8](repeating: 0, count: 512))
        }
    }

    @Test("discarded space is given back, zeros written keep theirs", arguments: Place.allCases)
    func space(place: Place) throws {
        let file = try TestFile(place, length: 1 << 20)
        let store = try file.store()
        func allocated() throws -> UInt64 {
            #expect(store.perform(.flush, buffer: nil) == .done)
            var info = linux_file_info()
            #expect(unsafe linux_describe(store.descriptor.rawValue, &info) == 0)
            return info.allocated
        }
        #expect(try store.write(0, pattern(1 << 20, seed: 3)) == .done)
        let full = try allocated()
        #expect(full >= 1 << 20)
        #expect(store.perform(.writeSame(Extent(0, 1 << 20), pattern: 512, durable: true), buffer: try buffer([UInt8](repeating: 0, count: 512))) == .done)
        #expect(try allocated() >= 1 << 20)
        #expect(store.perform(.discard([Extent(0, 256 << 10), Extent(512 << 10, 256 << 10)]), buffer: nil) == .done)
        #expect(try allocated() <= full - (512 << 10))
        #expect(try file.contents() == [UInt8](repeating: 0, count: 1 << 20))
    }

    @Test("provisioning tells data from holes, from the start of the extent to its end", arguments: Place.allCases)
    func provisioning(place: Place) throws {
        let file = try TestFile(place, length: 1 << 20)
        let store = try file.store()
        #expect(store.perform(.provisioning(Extent(4096, 8192)), buffer: nil)
            == .provisioned([ProvisionedRun(extent: Extent(4096, 8192), isMapped: false)]))
        #expect(try store.write(64 << 10, pattern(64 << 10, seed: 4), durable: true) == .done)
        #expect(store.perform(.provisioning(Extent(0, 1 << 20)), buffer: nil) == .provisioned([
            ProvisionedRun(extent: Extent(0, 64 << 10), isMapped: false),
            ProvisionedRun(extent: Extent(64 << 10, 64 << 10), isMapped: true),
            ProvisionedRun(extent: Extent(128 << 10, (1 << 20) - (128 << 10)), isMapped: false),
        ]))
        #expect(store.perform(.provisioning(Extent((64 << 10) + 512, 512)), buffer: nil)
            == .provisioned([ProvisionedRun(extent: Extent((64 << 10) + 512, 512), isMapped: true)]))
        #expect(store.perform(.provisioning(Extent(1 << 20, 0)), buffer: nil) == .provisioned([]))
    }

    @Test("an answer about provisioning is bounded")
    func provisioningLimit() throws {
        let pairs = FileStore.mostRuns
        let file = try TestFile(.memory, length: pairs * 8192)
        let store = try file.store()
        for pair in 0..<pairs { #expect(try store.write(pair * 8192, [1]) == .done) }
        guard case .provisioned(let runs) = store.perform(.provisioning(Extent(0, pairs * 8192)), buffer: nil) else { throw Unexpected(what: "no runs") }
        #expect(runs.count == FileStore.mostRuns)
        for (first, second) in zip(runs, runs.dropFirst()) {
            #expect(first.extent.end == second.extent.offset && first.isMapped != second.isMapped)
        }
    }

    @Test("the first byte that differs is named, wherever it lies", arguments: [0, 1, 511, 512, 262_143, 262_144, 299_999])
    func miscompare(place: Int) throws {
        let store = try TestFile(.memory, length: 300_000).store()
        let data = pattern(300_000, seed: 5)
        #expect(try store.write(0, data) == .done)
        var other = data
        other[place] ^= 1
        if place + 2 < other.count { other[place + 2] ^= 1 }
        #expect(store.perform(.compare(Extent(0, 300_000)), buffer: try buffer(other)) == .failed(.miscompare(offset: place)))
        #expect(store.perform(.compareAndWrite(Extent(0, 300_000), durable: false), buffer: try buffer(other + other)) == .failed(.miscompare(offset: place)))
        #expect(try store.read(0, 300_000) == data)
    }

    @Test("operations without length do nothing and succeed")
    func empty() throws {
        let store = try TestFile(.memory, length: 4096).store()
        let data = try buffer(count: 512)
        for operation in [
            Operation.read(Extent(4096, 0)), .write(Extent(0, 0), durable: true), .verify(Extent(0, 0)), .compare(Extent(0, 0)),
            .orWrite(Extent(0, 0), durable: false), .compareAndWrite(Extent(0, 0), durable: false), .discard([]), .discard([Extent(4096, 0)]),
            .writeSame(Extent(0, 0), pattern: 512, durable: false), .prefetch(Extent(0, 0)),
        ] { #expect(store.perform(operation, buffer: data) == .done) }
    }

    @Test("a file that is full says so")
    func noSpace() async {
        // RLIMIT_FSIZE stands for a full file system, EFBIG for ENOSPC.
        await #expect(processExitsWith: .success) {
            let file = try TestFile(.memory, length: 8192)
            let store = try file.store()
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 4096, rlim_max: 4096)
            let set = unsafe setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
            let whole = try store.write(4096, [UInt8](repeating: 1, count: 512))
            let across = try store.write(3584, [UInt8](repeating: 1, count: 1024))
            unsafe unlink(file.path)
            _exit(set == 0 && whole == .failed(.noSpace) && across == .failed(.noSpace) ? 0 : 1)
        }
    }

    @Test("COMPARE AND WRITE and ORWRITE are atomic against each other and against writes, on whatever they share", arguments: [
        Ground(place: .memory, flags: [], grain: 512), Ground(place: .disk, flags: .direct, grain: 512), Ground(place: .disk, flags: .direct, grain: 64),
    ])
    func atomic(ground: Ground) throws {
        let store = try TestFile(ground.place, length: 8192).store(ground.flags)
        try contest(Contest(store: store, rounds: ground.flags.isEmpty ? 500 : 40, grain: ground.grain))
    }

    private func contest(_ contest: Contest) throws {
        let threads = 4
        let workers = try (0..<threads).map { thread in
            let (pair, single) = (try buffer(count: 2 * contest.grain), try buffer(count: contest.grain))
            return try WorkerThread(name: "worker") { contest.run(thread, pair, single) }
        }
        for worker in workers { worker.join() }
        func bytes(_ extent: Extent) throws -> [UInt8] { try contest.store.read(Int(extent.offset), contest.grain) }
        #expect(number(try bytes(contest.counter)) == UInt64(threads * contest.rounds))
        #expect(try bytes(contest.bits).reduce(0) { $0 + $1.nonzeroBitCount } == threads * contest.rounds)
        #expect(contest.lost.value == 0)
    }

    /// Threads that count one block up by comparing and writing, set a bit each of another, and write a third that is their own.
    struct Contest: Sendable {
        let store: FileStore
        let rounds: Int
        /// Bytes of a block.
        let grain: Int
        var counter: Extent { Extent(grain, grain) }
        var bits: Extent { Extent(2 * grain, grain) }
        /// Writes that were gone when they were read.
        let lost = Counter()

        func own(_ thread: Int) -> Extent { Extent((3 + thread) * grain, grain) }

        func run(_ thread: Int, _ pair: Buffer, _ single: Buffer) {
            for round in 0..<rounds {
                repeat {
                    _ = store.perform(.read(counter), buffer: pair)
                    let old = pair.array(0..<grain)
                    var new: [UInt8] = []
                    new.append(bigEndian: number(old) + 1)
                    new += old[8...]
                    pair.copy(new.span, to: grain)
                } while store.perform(.compareAndWrite(counter, durable: false), buffer: pair) != .done
                var bit = [UInt8](repeating: 0, count: grain)
                bit[(thread * rounds + round) / 8] = 1 << UInt8((thread * rounds + round) % 8)
                single.copy(bit.span, to: 0)
                _ = store.perform(.orWrite(bits, durable: false), buffer: single)
                single.copy([UInt8](repeating: UInt8(truncatingIfNeeded: round + 1), count: grain).span, to: 0)
                let write = Operation.write(own(thread), durable: false)
                _ = store.performAtOnce(write, buffer: single) ?? store.perform(write, buffer: single)
                if store.perform(.compare(own(thread)), buffer: single) != .done { lost.add(1) }
            }
        }
    }

    @Test("while an operation is alone, nothing is done at once")
    func gate() throws {
        let gate = Gate()
        let entered = Counter()
        let leave = Counter()
        #expect(gate.passAtOnce { 1 } == 1)
        let worker = try WorkerThread(name: "alone") {
            gate.pass(alone: true) {
                entered.add(1)
                while leave.value == 0 { sched_yield() }
            }
        }
        while entered.value == 0 { sched_yield() }
        #expect(gate.passAtOnce { 1 } == nil)
        leave.add(1)
        worker.join()
        #expect(gate.pass(alone: false) { gate.passAtOnce { 2 } } == 2)
    }

    @Test("a file works in confinement")
    func confined() async {
        await #expect(processExitsWith: .success) {
            let files = [try TestFile(.memory, length: 1 << 20), try TestFile(.disk, length: 1 << 20)]
            var descriptors: [Int32] = []
            for file in files {
                let last: StoreFlags = file === files[1] ? .direct : []
                for flags in [StoreFlags(), .sync, last] { descriptors.append(try file.open(flags)) }
            }
            for file in files { unsafe unlink(file.path) }
            _ = try Sandbox.enter(identity: geteuid() == 0 ? Identity(uid: 65534, gid: 65534) : nil, parent: nil)
            for descriptor in descriptors {
                let store = try FileStore(adopting: FileDescriptor(owning: descriptor))
                let data = try buffer(pattern(8192, seed: 9))
                for operation in [
                    Operation.write(Extent(4096, 4096), durable: true), .compare(Extent(4096, 4096)), .orWrite(Extent(512, 512), durable: true),
                    .writeSame(Extent(8192, 4096), pattern: 512, durable: true), .discard([Extent(0, 1 << 20)]), .flush, .prefetch(Extent(0, 8192)),
                    .verify(Extent(0, 1 << 20)),
                ] {
                    guard (store.performAtOnce(operation, buffer: data) ?? store.perform(operation, buffer: data)) == .done else { _exit(1) }
                }
                guard case .provisioned = store.perform(.provisioning(Extent(0, 1 << 20)), buffer: nil) else { _exit(2) }
            }
            _exit(0)
        }
    }
}

/// SplitMix64.
struct Seeded {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next(_ bound: Int) -> Int {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return Int((mixed ^ (mixed >> 31)) % UInt64(bound))
    }
}
