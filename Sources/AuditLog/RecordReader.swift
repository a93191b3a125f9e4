import Audit
import Reactor

/// Reads a trail's records from its first file on, and what is added later.
public struct RecordReader {
    private let storage: any AuditStorage
    private let names: TrailNames
    private var file: UInt32 = 0
    private var lines: LineReader?
    /// Lines that are no records, as far as was read.
    public private(set) var strange = 0

    public init(_ storage: any AuditStorage, trail: String) {
        self.storage = storage
        names = TrailNames(trail)
    }

    /// The next record; nil: there is none yet.
    public mutating func next() throws(FileError) -> ShownRecord? {
        while true {
            if let record = try nextHere() { return record }
            guard let later = names.numbers(among: try storage.names()).first(where: { $0 > file }) else {
                try comeBack()
                return nil
            }
            // A file is never added to once there is a later one: but until just now it was.
            if let record = try nextHere() { return record }
            file = later
            lines = LineReader(storage, names.file(later))
        }
    }

    /// The next record of this file.
    private mutating func nextHere() throws(FileError) -> ShownRecord? {
        while let line = try lines?.next() {
            if let record = ShownRecord(line) { return record }
            strange += 1
        }
        return nil
    }

    /// A start of tgtd cuts off what was not whole: what comes then stands in its place.
    private mutating func comeBack() throws(FileError) {
        guard let lines, !lines.unfinished.isEmpty else { return }
        self.lines = LineReader(storage, names.file(file), from: lines.consumed)
    }
}
