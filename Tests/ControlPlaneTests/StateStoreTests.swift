import Crypto
import Glibc
import Logging
import Model
import Reactor
import Synchronization
import Testing

@testable import ControlPlane

/// A disk that waits, fails and tears on demand; what it has is a file of its own each time one begins.
private final class FaultyMedium: StateMedium {
    struct Now {
        /// Calls wait until this is false.
        var hangs = false
        /// What the next calls end in.
        var failure: FileError?
        /// How each file is, the newest last.
        var files: [[UInt8]] = []
        var appends = 0
        var calls = 0
    }
    let path = "/state"
    let key = Secret([UInt8](repeating: 9, count: Seal.keyLength))
    let now = Mutex(Now())

    private func call(_ body: (inout Now) -> Void) throws(FileError) {
        now.withLock { $0.calls += 1 }
        while now.withLock({ $0.hangs }) { usleep(1000) }
        try now.withLock { now throws(FileError) in
            if let failure = now.failure { throw failure }
            body(&now)
        }
    }

    func begin(_ text: [UInt8], number: UInt64) throws(FileError) { try call { $0.files.append(text) } }

    /// What fails leaves half of what it was to write.
    func append(_ text: [UInt8]) throws(FileError) {
        do throws(FileError) {
            try call { now in
                now.files[now.files.count - 1] += text
                now.appends += 1
            }
        } catch {
            now.withLock { now in now.files[now.files.count - 1] += text.prefix(text.count / 2) }
            throw error
        }
    }

    func set(_ change: (inout Now) -> Void) { now.withLock { change(&$0) } }
    var calls: Int { now.withLock { $0.calls } }
    var appends: Int { now.withLock { $0.appends } }
    var files: [[UInt8]] { now.withLock { $0.files } }

    /// What a start would find.
    func found() throws -> StateDocument { try StateDocument(files.last ?? [], key: key, base: World.base) }
}

/// A control process that only configures.
private final class World {
    static let base = Configuration(identitySource: IdentitySource(installation: [UInt8](0..<16)))
    static let target = TargetID(rawValue: 1)!

    let loop: EventLoop
    let medium = FaultyMedium()
    let store: StateStore
    var configuration = World.base
    var told: [StateStore.Trouble?] = []

    init(patience: UInt64 = 60_000_000_000) throws {
        loop = try EventLoop()
        store = try StateStore(loop: loop, medium: medium, sequence: 0, log: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }, patience: patience)
        keep(try configuration.newTarget(Self.target, name: Array("iqn.t".utf8)))
        try wait { told.count == 1 }
        #expect(told == [nil] && medium.files.count == 1)
        told = []
    }

    func keep(_ changes: [Change]) { store.keep(configuration, Set(changes.map(\.part))) { [unowned self] in told.append($0) } }
    func change(_ value: Int) throws { keep(try configuration.updateTarget(Self.target, name: Array("nop_interval".utf8), value: Array("\(value)".utf8))) }
    func wait(_ condition: () throws -> Bool) throws {
        for _ in 0..<20_000 where try !condition() { loop.turn(waitingAtMost: 1_000_000) }
        #expect(try condition())
    }
    func interval() throws -> Int? { try medium.found().configuration.targets[Self.target]?.nopInterval }
}

@Suite struct StateStoreTests {
    @Test("Changes that come while one is written are written together, by one flush, and each is told when it is there")
    func group() throws {
        let world = try World()
        world.medium.set { $0.hangs = true }
        for value in 1...1000 { try world.change(value) }
        try world.wait { world.medium.calls == 2 }
        #expect(world.told.isEmpty)
        world.medium.set { $0.hangs = false }
        try world.wait { world.told.count == 1000 }
        #expect(world.told.allSatisfy { $0 == nil } && world.medium.appends == 2 && world.medium.files.count == 1)
        #expect(try world.interval() == 1000 && world.medium.found().recordCount == 2)
    }

    @Test("Each change is on the medium when it is told, and a new file begins when the changes are longer than the whole")
    func compaction() throws {
        let world = try World()
        var files: [Int] = []
        for value in 1...5000 {
            try world.change(value)
            try world.wait { world.told.count == value }
            files.append(world.medium.files.count)
            if value.isMultiple(of: 97) || files.dropLast().last != files.last { #expect(try world.interval() == value) }
        }
        #expect(files.last! >= 2 && files.last! <= 5, "\(files.last!) files")
        for file in world.medium.files { #expect(file.count < StateWriter.leastJournal + 8192) }
        #expect(try world.medium.found().sequence == UInt64(files.last!))
    }

    @Test("A write that fails is said; whoever comes until one succeeds is told at once; then all of it is there, in a new file")
    func failure() throws {
        let world = try World()
        try world.change(1)
        try world.wait { world.told.count == 1 }
        let full = FileError("/state", "No space left on device")
        world.medium.set { $0.failure = full }
        try world.change(2)
        try world.wait { world.told.count == 2 }
        #expect(world.told == [nil, .failed(full)] && world.store.trouble == .failed(full))
        // The half of a record that is there is none.
        #expect(try world.interval() == 1 && world.medium.found().tornBytes > 0)
        let calls = world.medium.calls
        try world.change(3)
        try world.wait { world.told.count == 3 }
        #expect(world.told[2] == .failed(full) && world.medium.calls == calls)
        world.medium.set { $0.failure = nil }
        try world.wait { world.store.trouble == nil }
        #expect(try world.medium.files.count == 2 && world.interval() == 3 && world.medium.found().tornBytes == 0)
        try world.change(4)
        try world.wait { world.told.count == 4 }
        #expect(try world.told[3] == nil && world.interval() == 4)
    }

    @Test("A medium that hangs keeps nobody: the loop goes on, who waits is told that nobody knows, later ones at once; if it is over, all goes on")
    func hang() throws {
        let world = try World(patience: 1_000_000_000)
        world.medium.set { $0.hangs = true }
        let start = ContinuousClock.now
        try world.change(1)
        try world.change(2)
        var turns = 0
        try world.wait {
            turns += 1
            return world.told.count == 2
        }
        let silent = StateStore.Trouble.silent(path: "/state", seconds: 1)
        #expect(world.told == [silent, silent] && world.store.trouble == silent && turns > 100)
        #expect((.seconds(1) ... .seconds(3)).contains(ContinuousClock.now - start))
        for value in 3...100 { try world.change(value) }
        try world.wait { world.told.count == 100 }
        #expect(world.told.allSatisfy { $0 == silent } && world.medium.calls == 2, "one write waits, and no other")
        var isSettled = false
        world.store.settle { isSettled = true }
        #expect(isSettled, "a stop waits for it no more")
        world.medium.set { $0.hangs = false }
        try world.wait { world.store.trouble == nil && world.medium.appends == 2 }
        #expect(try world.interval() == 100 && world.told.count == 100)
        try world.change(101)
        try world.wait { world.told.count == 101 }
        #expect(try world.told.last == .some(nil) && world.interval() == 101)
    }

    @Test("A stop waits for what is being written, as long as the medium may take")
    func settle() throws {
        let world = try World(patience: 500_000_000)
        var ends = 0
        world.store.settle { ends += 1 }
        #expect(ends == 1)
        world.medium.set { $0.hangs = true }
        try world.change(1)
        try world.change(2)
        world.store.settle { ends += 1 }
        try world.wait { world.medium.calls == 2 }
        #expect(ends == 1)
        world.medium.set { $0.hangs = false }
        try world.wait { ends == 2 }
        #expect(try world.interval() == 2 && world.told == [nil, nil])
        world.medium.set { $0.hangs = true }
        try world.change(3)
        world.store.settle { ends += 1 }
        try world.wait { ends == 3 }
        #expect(world.told.count == 3 && world.store.trouble != nil)
    }
}
