import Audit
import Crypto
import Reactor

/// Why a trail cannot go on at a start; the description says what to do about it.
public struct TrailError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// How a trail is kept.
public struct TrailOptions: Hashable, Sendable {
    public var name: String
    /// Bytes of a file, after which the next one begins.
    public var fileLength: Int
    /// Files that stay; older ones are removed. nil: all.
    public var mostFiles: Int?
    /// Bytes that are reserved on the medium for saying that it is full. While they cannot be had, changes are refused.
    public var reserve: Int
    /// Bytes that stay free on the medium for others, but at most a quarter of it: whoever can have this trail written fills no disk.
    public var leaves: Int
    /// Records after which there is a checkpoint at the latest.
    public var checkpointRecords: UInt64
    /// Whether changes are refused while they cannot be recorded, or go on.
    public var refusesChanges: Bool

    public init(
        name: String, fileLength: Int = 64 << 20, mostFiles: Int? = nil, reserve: Int = 1 << 20, leaves: Int = 0, checkpointRecords: UInt64 = 64, refusesChanges: Bool = true
    ) {
        self.name = name
        self.fileLength = fileLength
        self.mostFiles = mostFiles
        self.reserve = reserve
        self.leaves = leaves
        self.checkpointRecords = checkpointRecords
        self.refusesChanges = refusesChanges
    }
}

/// Writes one trail: groups of records, each on the medium before the call returns. Belongs to one thread, which waits for the medium.
///
/// The order is: lines, flush, state (head and next keys), flush. What has been answered as recorded is on the medium, and nobody can make it again. After
/// a crash the state is at most one group behind the lines; nobody has been told of what stands behind it.
final class Trail {
    struct Entry: Sendable {
        let record: Record
        let time: Timestamp
        /// As that of the record.
        let weight: Int
        init(_ record: Record, _ time: Timestamp) {
            self.record = record
            self.time = time
            weight = record.weight
        }
    }

    /// What became of an entry.
    enum Kept: Hashable {
        case recorded(UInt64)
        /// A change that is not to be made: recorded as refused, if there is a number.
        case refused(UInt64?, FileError)
        /// A change that is not to be made, though it is recorded as allowed: whether that stays on the medium nobody knows.
        case takenBack(UInt64, FileError)
        /// Neither recorded nor forgotten: it may be given again.
        case failed(FileError)
    }

    let options: TrailOptions
    let names: TrailNames
    private let storage: any AuditStorage
    private let sealingKey: Secret

    private var chain: Chain
    /// The file that is written, and its bytes so far.
    private var file: UInt32
    private var length: Int
    /// There is no file, or none that may be written: the next record begins one.
    private var wantsFile = false
    /// As far as the medium has space for the file.
    private var reserved = 0
    /// The place that the next state takes.
    private var slot: Int
    /// Why all is not well; nil: it is.
    private(set) var trouble: FileError?
    /// What could not be recorded since then.
    private var unrecorded: (count: Int, since: Timestamp, reason: String)?
    /// What the start has found, to be recorded first.
    private var recovered: Record?

    /// The last lines that were written, for who wants a copy of them.
    private(set) var written: [[UInt8]] = []
    /// Records so far.
    var count: UInt64 { chain.count }
    /// Whether there are records that no checkpoint vouches for.
    var wantsCheckpoint: Bool { chain.sinceCheckpoint > 0 }

    // MARK: Start

    /// Goes on with the trail, or begins it if there is none.
    /// - Parameter sealingKey: of `Seal.keyLength` bytes
    init(_ storage: any AuditStorage, _ options: TrailOptions, sealingKey: Secret) throws {
        self.storage = storage
        self.options = options
        self.sealingKey = sealingKey
        names = TrailNames(options.name)
        let there = try storage.names()
        let files = names.numbers(among: there)
        let slots = there.contains(names.state) ? try storage.read(names.state, at: 0, count: TrailState.slotLength * TrailState.slots) : []
        if let (slot, state) = TrailState.newest(slots, sealingKey) {
            (chain, file, length) = (state.chain, state.file, state.length)
            self.slot = 1 - slot
            try recover(files)
        } else {
            guard files.isEmpty else {
                throw TrailError(
                    "\(names.state) of the audit trail \(options.name) is gone, damaged or sealed under another key, so the trail cannot go on; restore it, or move all files of the trail elsewhere to begin a new one")
            }
            chain = Chain(trail: options.name, key: Secret.random(count: Chain.keyLength), seed: Secret.random(count: Chain.keyLength))
            (file, length, slot) = (0, 0, 0)
            wantsFile = true
            try begin(there)
        }
    }

    /// Nothing of a trail that was begun and not finished has been told to anybody.
    private func begin(_ there: [String]) throws(FileError) {
        for name in [names.state, names.verificationKey] {
            if there.contains(name) { storage.remove(name) }
            try storage.create(name)
        }
        try storage.write(names.verificationKey, chain.verificationKey.text, at: 0)
        try storage.flush(names.verificationKey)
        try storage.write(names.state, [UInt8](repeating: 0, count: TrailState.slotLength * TrailState.slots), at: 0)
        try storage.flushNames()
        try keepState()
    }

    /// What stands behind the state was written, and perhaps flushed, when we ended: what is ours of it stays, the rest is cut off. What
    /// cannot come of that is evidence and stays as it is; a new file goes on, and says where the chain stands.
    private func recover(_ files: [UInt32]) throws(FileError) {
        var cut = 0
        if file > 0 {
            guard files.contains(file), try storage.length(of: names.file(file)) >= length else {
                recovered = .recovered(cut: 0, missing: "records up to \(chain.count), of file \(file) or of files before it")
                return goOnBehind(files)
            }
            cut = try goOn()
        }
        while cut == 0, files.contains(file + 1), let more = try goOnInNext() { cut += more }
        if cut > 0 { recovered = .recovered(cut: cut, missing: nil) }
        wantsFile = file == 0
        if let last = try names.numbers(among: storage.names()).last, last > file { return goOnBehind(files) }
        try keepState()
    }

    private func goOnBehind(_ files: [UInt32]) {
        file = max(file, files.last ?? 0)
        wantsFile = true
    }

    /// Reads on in the file from `length`.
    /// - Returns: bytes that were cut off
    private func goOn() throws(FileError) -> Int {
        let name = names.file(file)
        var reader = LineReader(storage, name, from: length)
        while let line = try reader.next(), chain.goOn(behind: line) { length += line.count + 1 }
        let cut = try storage.length(of: name) - length
        if cut > 0 {
            try storage.truncate(name, to: length)
            try storage.flush(name)
        }
        return cut
    }

    /// Reads on in the next file, which was begun when we ended; one that got no further than its first line, and not as far as to be ours, is no more.
    /// - Returns: bytes that were cut off; nil: that cannot come of a crash
    private func goOnInNext() throws(FileError) -> Int? {
        let name = names.file(file + 1)
        var reader = LineReader(storage, name)
        guard let first = try reader.next(), chain.goOn(behind: first) else {
            let cut = try storage.length(of: name)
            guard cut <= Self.longestFirstLine else { return nil }
            storage.remove(name)
            try storage.flushNames()
            // There is nothing to be cut in an empty one, and it is gone all the same.
            return max(cut, 1)
        }
        (file, length) = (file + 1, first.count + 1)
        return try goOn()
    }
    private static let longestFirstLine = 4096

    /// What the start has found, in words; nil: nothing.
    var finding: String? {
        guard case .recovered(let cut, let missing) = recovered else { return nil }
        return missing.map { "\($0) are missing" } ?? "\(cut) bytes behind the last record were cut off"
    }

    /// Whether what verifies this trail still lies beside it.
    func keyIsBeside() throws(FileError) -> Bool { try storage.names().contains(names.verificationKey) }

    // MARK: Writing

    /// Records all of these, or as much as can be done.
    func write(_ entries: [Entry], at now: Timestamp) -> [Kept] {
        written = []
        guard !entries.isEmpty || wantsFile || recovered != nil || unrecorded != nil else {
            lookAgain()
            return []
        }
        do throws(FileError) {
            if wantsFile || length >= options.fileLength { try beginFile(at: now) }
        } catch {
            trouble = error
            // The old file goes on, if there is one.
            if wantsFile { return failed(entries, error) }
        }
        var (next, lines, numbers) = encode(entries, refusing: nil, now)
        guard !lines.isEmpty else {
            lookAgain()
            return []
        }
        var tight: FileError?
        do throws(FileError) {
            try makeRoom(Self.length(of: lines))
        } catch {
            tight = error
            if options.refusesChanges { (next, lines, numbers) = encode(entries, refusing: error, now) }
        }
        do throws(FileError) {
            // The reserve is not to be lost to what does not fit into it.
            if let tight, length + Self.length(of: lines) > reserved { throw tight }
            try append(lines, next)
        } catch {
            trouble = error
            return failed(entries, error)
        }
        (unrecorded, recovered) = (nil, nil)
        var unkept: FileError?
        do throws(FileError) { try keepState() } catch { unkept = error }
        trouble = unkept ?? tight
        return zip(entries, numbers).map { entry, number in
            guard entry.isChange, options.refusesChanges else { return .recorded(number) }
            if let tight { return .refused(number, tight) }
            return unkept.map { .takenBack(number, $0) } ?? .recorded(number)
        }
    }

    private func failed(_ entries: [Entry], _ error: FileError) -> [Kept] {
        entries.map { $0.isChange && options.refusesChanges ? .refused(nil, error) : .failed(error) }
    }

    /// So many are not to be given again: only their number will be recorded.
    func lose(_ count: Int, since: Timestamp, _ reason: String) {
        unrecorded = (count: (unrecorded?.count ?? 0) + count, since: unrecorded?.since ?? since, reason: unrecorded?.reason ?? reason)
    }

    /// After trouble, when there is nothing to be written: whether that could be done again.
    private func lookAgain() {
        guard trouble != nil, !wantsFile else { return }
        do throws(FileError) {
            try makeRoom(0)
            try keepState()
            trouble = nil
        } catch {
            trouble = error
        }
    }

    /// Adds a checkpoint, if there is anything since the last one.
    func checkpoint(at now: Timestamp) {
        written = []
        guard wantsCheckpoint, !wantsFile else { return }
        var next = chain
        let line = next.checkpoint(at: now)
        do throws(FileError) {
            try makeRoom(line.count + 1)
            try append([line], next)
            try keepState()
            trouble = nil
        } catch {
            trouble = error
        }
    }

    /// The lines of these entries, and the chain behind them.
    /// - Parameter refusing: why changes are not to be made
    private func encode(_ entries: [Entry], refusing: FileError?, _ now: Timestamp) -> (chain: Chain, lines: [[UInt8]], numbers: [UInt64]) {
        var next = chain
        var lines: [[UInt8]] = []
        var numbers: [UInt64] = []
        if let recovered { lines.append(next.append(recovered, at: now)) }
        if let unrecorded { lines.append(next.append(.unrecorded(count: unrecorded.count, since: unrecorded.since, reason: unrecorded.reason), at: now)) }
        for entry in entries {
            var record = entry.record
            if let refusing, entry.isChange, case .attempt(var attempt) = record {
                attempt.decision = .refused
                attempt.reason = "audit: \(refusing.reason)"
                record = .attempt(attempt)
            }
            lines.append(next.append(record, at: entry.time))
            numbers.append(next.count)
        }
        if next.sinceCheckpoint >= options.checkpointRecords { lines.append(next.checkpoint(at: now)) }
        return (next, lines, numbers)
    }

    /// Bytes that lines take.
    private static func length(of lines: [[UInt8]]) -> Int { lines.reduce(0) { $0 + $1.count + 1 } }

    private static func bytes(_ lines: [[UInt8]]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length(of: lines))
        for line in lines {
            bytes += line
            bytes.append(UInt8(ascii: "\n"))
        }
        return bytes
    }

    /// Space for so many bytes, and the reserve behind them.
    private func makeRoom(_ count: Int) throws(FileError) {
        let end = length + count + options.reserve
        guard end > reserved else { return }
        if options.leaves > 0, let (free, total) = try storage.room(), free - (end - reserved) < min(options.leaves, total / 4) {
            throw FileError(names.file(file), "what is left of the medium is for others")
        }
        // More than is needed now, so that not every group asks.
        if (try? storage.reserve(names.file(file), length..<end + options.reserve)) != nil {
            reserved = end + options.reserve
        } else {
            _ = try storage.reserve(names.file(file), length..<end)
            reserved = end
        }
    }

    /// Puts lines on the medium, and goes on behind them.
    private func append(_ lines: [[UInt8]], _ next: Chain) throws(FileError) {
        let name = names.file(file), bytes = Self.bytes(lines)
        do throws(FileError) {
            try storage.write(name, bytes, at: length)
            try storage.flush(name)
        } catch {
            // A flush that failed tells nothing of what is on the medium: what comes next is written over it.
            try? storage.truncate(name, to: length)
            reserved = 0
            throw error
        }
        chain = next
        length += bytes.count
        written += lines
    }

    private func keepState() throws(FileError) {
        let state = TrailState(chain: chain, file: file, length: length)
        try storage.write(names.state, state.slot(sealingKey), at: slot * TrailState.slotLength)
        try storage.flush(names.state)
        slot = 1 - slot
        // On the medium with the next flush; who reads the file sees it at once.
        try storage.write(names.state, [UInt8](repeating: 0, count: TrailState.slotLength), at: slot * TrailState.slotLength)
    }

    // MARK: Files

    /// Ends the file with a checkpoint and begins the next one. If that cannot be done, the old one goes on.
    private func beginFile(at now: Timestamp) throws(FileError) {
        if !wantsFile, wantsCheckpoint {
            var next = chain
            try append([next.checkpoint(at: now)], next)
            try keepState()
        }
        let number = file + 1, name = names.file(number)
        var next = chain
        let line = next.beginFile(number, at: now), bytes = Self.bytes([line])
        do throws(FileError) {
            // One that could not be begun before.
            if try storage.names().contains(name) { storage.remove(name) }
            try storage.create(name)
            _ = try storage.reserve(name, 0..<bytes.count + options.reserve)
            try storage.write(name, bytes, at: 0)
            try storage.flush(name)
            try storage.flushNames()
        } catch {
            storage.remove(name)
            throw error
        }
        let old = wantsFile ? nil : (name: names.file(file), length: length)
        (chain, file, length, reserved) = (next, number, bytes.count, bytes.count + options.reserve)
        wantsFile = false
        written.append(line)
        try keepState()
        // What was reserved behind its end.
        if let old { try? storage.truncate(old.name, to: old.length) }
        try removeOldFiles(at: now)
    }

    private func removeOldFiles(at now: Timestamp) throws(FileError) {
        guard let most = options.mostFiles else { return }
        let old = names.numbers(among: try storage.names()).dropLast(most)
        guard let last = old.last else { return }
        var next = chain
        let line = next.append(.removed(through: last), at: now)
        try append([line], next)
        try keepState()
        for number in old { storage.remove(names.file(number)) }
    }
}

extension Trail.Entry {
    /// Whether something is about to change, which it must not unrecorded.
    var isChange: Bool {
        if case .attempt(let attempt) = record { attempt.decision == .allowed } else { false }
    }
}
