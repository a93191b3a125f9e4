import Reactor

/// Where trails lie: files in one directory, by their names. Every call takes as long as the medium does.
public protocol AuditStorage: AnyObject {
    func names() throws(FileError) -> [String]
    func length(of name: String) throws(FileError) -> Int
    /// So many bytes, or as many as there are.
    func read(_ name: String, at offset: Int, count: Int) throws(FileError) -> [UInt8]
    /// A new, empty file; it stays when the names are flushed.
    func create(_ name: String) throws(FileError)
    func write(_ name: String, _ bytes: [UInt8], at offset: Int) throws(FileError)
    /// Space on the medium for these bytes, also behind the end.
    /// - Returns: false if that cannot be had here
    func reserve(_ name: String, _ range: Range<Int>) throws(FileError) -> Bool
    /// Bytes that are free on the medium, and that it has; nil: that cannot be said.
    func room() throws(FileError) -> (free: Int, total: Int)?
    /// What is reserved behind the end is given back.
    func truncate(_ name: String, to length: Int) throws(FileError)
    /// What was written is on the medium when this returns.
    func flush(_ name: String) throws(FileError)
    func flushNames() throws(FileError)
    func remove(_ name: String)
}

/// A directory of the file system.
public final class AuditDirectory: AuditStorage {
    public let path: String
    private let isReadOnly: Bool
    /// Files that are open: those that are written all the time stay so.
    private var open: [String: DataFile] = [:]
    /// Held as long as we live, if we write.
    private let lock: FileDescriptor?
    private static let mostOpen = 8

    /// To write: makes the directory if it is missing. One process has it at a time.
    public init(writing path: String) throws(FileError) {
        try Files.makeTrustedDirectory(path)
        guard let lock = try Files.lock(path + "/lock") else { throw FileError(path, "another process writes its audit trails there") }
        self.path = path
        self.lock = consume lock
        isReadOnly = false
    }

    public init(reading path: String) {
        self.path = path
        lock = nil
        isReadOnly = true
    }

    private func place(_ name: String) -> String { path + "/" + name }

    private func file(_ name: String) throws(FileError) -> DataFile {
        if let file = open[name] { return file }
        return keep(name, try DataFile(place(name), isReadOnly ? .reading : .writing))
    }

    private func keep(_ name: String, _ file: DataFile) -> DataFile {
        if open.count >= Self.mostOpen { open = [:] }
        open[name] = file
        return file
    }

    public func names() throws(FileError) -> [String] { try Files.names(in: path) }
    public func length(of name: String) throws(FileError) -> Int { try file(name).length() }
    public func read(_ name: String, at offset: Int, count: Int) throws(FileError) -> [UInt8] { try file(name).read(at: offset, count: count) }
    public func create(_ name: String) throws(FileError) { _ = keep(name, try DataFile(place(name), .making)) }
    public func write(_ name: String, _ bytes: [UInt8], at offset: Int) throws(FileError) { try file(name).write(bytes, at: offset) }
    public func reserve(_ name: String, _ range: Range<Int>) throws(FileError) -> Bool { try file(name).reserve(range) }
    public func room() throws(FileError) -> (free: Int, total: Int)? { try Files.room(in: path) }
    public func truncate(_ name: String, to length: Int) throws(FileError) { try file(name).truncate(to: length) }
    public func flush(_ name: String) throws(FileError) { try file(name).flush() }
    public func flushNames() throws(FileError) { try Files.flushDirectory(path) }
    public func remove(_ name: String) {
        open[name] = nil
        Files.remove(place(name))
    }
}

/// What the files of a trail are called.
public struct TrailNames: Sendable {
    public let trail: String
    public init(_ trail: String) { self.trail = trail }

    /// The chain's keys and head.
    public var state: String { trail + ".state" }
    /// What verifies the trail: here until somebody carries it elsewhere.
    public var verificationKey: String { trail + ".verification-key" }
    private static let ending = ".jsonl"

    public func file(_ number: UInt32) -> String {
        let digits = String(number)
        return trail + "-" + String(repeating: "0", count: max(0, 8 - digits.utf8.count)) + digits + Self.ending
    }

    /// The number of a file of the trail; nil: it is none.
    public func number(of name: String) -> UInt32? {
        guard name.hasPrefix(trail + "-"), name.hasSuffix(Self.ending), let number = UInt32(name.dropFirst(trail.utf8.count + 1).dropLast(Self.ending.utf8.count)),
              number > 0, file(number) == name
        else { return nil }
        return number
    }

    /// The numbers of the trail's files, rising.
    public func numbers(among names: [String]) -> [UInt32] { names.compactMap(number).sorted() }
}

/// Reads the lines of one file after another; how much memory that takes does not depend on the files.
public struct LineReader {
    private let storage: any AuditStorage
    private let name: String
    /// Where the next bytes are read.
    private var offset: Int
    private var rest: [UInt8] = []
    private var position = 0
    static let piece = 1 << 20
    /// Bytes without an end of a line; more is no line of ours.
    static let longest = 64 << 20

    public init(_ storage: any AuditStorage, _ name: String, from offset: Int = 0) {
        self.storage = storage
        self.name = name
        self.offset = offset
    }

    /// The next line without its end; nil: there is no whole line any more.
    public mutating func next() throws(FileError) -> ArraySlice<UInt8>? {
        var searched = position
        while true {
            if let end = rest[searched...].firstIndex(of: UInt8(ascii: "\n")) {
                defer { position = end + 1 }
                return rest[position..<end]
            }
            guard rest.count - position <= Self.longest else { return nil }
            searched = rest.count - position
            rest.removeSubrange(..<position)
            position = 0
            let more = try storage.read(name, at: offset, count: Self.piece)
            guard !more.isEmpty else { return nil }
            offset += more.count
            rest += more
        }
    }

    /// What has no end of a line yet.
    public var unfinished: ArraySlice<UInt8> { rest[position...] }
    /// Where it stands in the file.
    public var consumed: Int { offset - (rest.count - position) }
}
