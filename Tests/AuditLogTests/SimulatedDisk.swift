import Glibc
import Reactor

@testable import AuditLog

/// A file system that can crash between and within any two calls, fail, and be full. What was not flushed may be there after a crash, in part, or not.
final class SimulatedDisk: AuditStorage {
    private enum Change {
        case write(Int, [UInt8])
        case truncate(Int)
    }
    private struct File {
        /// On the medium.
        var kept: [UInt8] = []
        /// As it is read.
        var bytes: [UInt8] = []
        var pending: [Change] = []
        var reserved = 0
        var space: Int { max(bytes.count, reserved) }

        static func apply(_ change: Change, to bytes: inout [UInt8]) {
            switch change {
            case .write(let offset, let new):
                if bytes.count < offset + new.count { bytes += [UInt8](repeating: 0, count: offset + new.count - bytes.count) }
                bytes.replaceSubrange(offset..<offset + new.count, with: new)
            case .truncate(let length): bytes = Array(bytes.prefix(length)) + [UInt8](repeating: 0, count: max(0, length - bytes.count))
            }
        }
    }
    private enum NameChange { case create(String), remove(String) }

    /// nil: unlinked, but perhaps only here.
    private var files: [String: File] = [:]
    private var removed: [String: File] = [:]
    private var names_: Set<String> = []
    private var pendingNames: [NameChange] = []
    /// Calls that change something, so far.
    private(set) var steps = 0
    private(set) var flushes = 0
    /// The call at which the machine stops.
    var crashStep = Int.max
    private(set) var hasCrashed = false
    /// The calls that fail.
    var failing: Range<Int> = 0..<0
    /// Bytes for all files.
    var capacity = Int.max

    private func step() throws(FileError) {
        steps += 1
        if steps >= crashStep { hasCrashed = true }
        guard !hasCrashed else { throw FileError("disk", "crashed") }
        guard !failing.contains(steps) else { throw FileError("disk", "Input/output error") }
    }

    private func place(_ name: String) throws(FileError) -> File {
        guard let file = files[name] else { throw FileError(name, "No such file") }
        return file
    }

    private func checkRoom(_ more: Int) throws(FileError) {
        guard more <= 0 || files.values.reduce(0, { $0 + $1.space }) + more <= capacity else { throw FileError("disk", "No space left on device") }
    }

    func names() throws(FileError) -> [String] { Array(files.keys) }
    func length(of name: String) throws(FileError) -> Int { try place(name).bytes.count }
    func read(_ name: String, at offset: Int, count: Int) throws(FileError) -> [UInt8] { Array(try place(name).bytes.dropFirst(offset).prefix(count)) }

    func create(_ name: String) throws(FileError) {
        try step()
        guard files[name] == nil else { throw FileError(name, "File exists") }
        files[name] = File()
        pendingNames.append(.create(name))
    }

    func write(_ name: String, _ bytes: [UInt8], at offset: Int) throws(FileError) {
        guard !hasCrashed else { throw FileError("disk", "crashed") }
        var file = try place(name)
        // A write that stops half way has written the other half.
        do throws(FileError) { try step() } catch {
            let half = Array(bytes.prefix(bytes.count / 2))
            File.apply(.write(offset, half), to: &file.bytes)
            file.pending.append(.write(offset, half))
            files[name] = file
            throw error
        }
        try checkRoom(offset + bytes.count - file.space)
        File.apply(.write(offset, bytes), to: &file.bytes)
        file.pending.append(.write(offset, bytes))
        files[name] = file
    }

    func reserve(_ name: String, _ range: Range<Int>) throws(FileError) -> Bool {
        try step()
        var file = try place(name)
        try checkRoom(range.upperBound - file.space)
        file.reserved = max(file.reserved, range.upperBound)
        files[name] = file
        return true
    }

    func room() throws(FileError) -> (free: Int, total: Int)? {
        capacity == .max ? nil : (capacity - files.values.reduce(0) { $0 + $1.space }, capacity)
    }

    func truncate(_ name: String, to length: Int) throws(FileError) {
        try step()
        var file = try place(name)
        File.apply(.truncate(length), to: &file.bytes)
        file.pending.append(.truncate(length))
        file.reserved = 0
        files[name] = file
    }

    func flush(_ name: String) throws(FileError) {
        try step()
        flushes += 1
        var file = try place(name)
        file.kept = file.bytes
        file.pending = []
        files[name] = file
    }

    func flushNames() throws(FileError) {
        try step()
        pendingNames = []
        names_ = Set(files.keys)
        removed = [:]
    }

    func remove(_ name: String) {
        guard (try? step()) != nil, let file = files.removeValue(forKey: name) else { return }
        removed[name] = file
        pendingNames.append(.remove(name))
    }

    /// What is there after the crash, by chance.
    func restarted(_ generator: inout some RandomNumberGenerator) -> SimulatedDisk {
        let disk = SimulatedDisk()
        var names = names_
        // Names change in order, as in a journal.
        for change in pendingNames.prefix(Int.random(in: 0...pendingNames.count, using: &generator)) {
            switch change {
            case .create(let name): names.insert(name)
            case .remove(let name): names.remove(name)
            }
        }
        for name in names {
            guard let file = files[name] ?? removed[name] else { continue }
            var bytes = file.kept
            for change in file.pending {
                switch (change, Int.random(in: 0..<3, using: &generator)) {
                case (_, 0): break
                case (.write(let offset, let new), 1): File.apply(.write(offset, Array(new.prefix(Int.random(in: 0...new.count, using: &generator)))), to: &bytes)
                default: File.apply(change, to: &bytes)
                }
            }
            disk.files[name] = File(kept: bytes, bytes: bytes)
        }
        disk.names_ = names
        return disk
    }

    /// As somebody changes it behind our back.
    func change(_ name: String, _ body: (inout [UInt8]) -> Void) {
        guard var file = files[name] else { return }
        body(&file.bytes)
        file.kept = file.bytes
        files[name] = file
    }
    func take(_ name: String) { files[name] = nil; names_.remove(name) }
    func contents(_ name: String) -> [UInt8] { files[name]?.bytes ?? [] }
}
