import Crypto
import JSON
import Model
import Reactor
import Synchronization

/// Where a state is written. Each call takes as long as the medium does; one thread calls.
protocol StateMedium: Sendable {
    /// What is written there, for words about it.
    var path: String { get }
    /// Its secrets are sealed under this.
    var key: Secret { get }
    /// A new file in the place of the one before, which stays as a predecessor; on the medium when this returns.
    func begin(_ text: [UInt8], number: UInt64) throws(FileError)
    /// More of the file that has been begun; on the medium when this returns. After a failure nothing more comes to this file.
    func append(_ text: [UInt8]) throws(FileError)
}

/// The directory of one control port: what is configured and must survive, its predecessors, the key of its secrets, the identity of the
/// installation. One daemon has it at a time.
final class StateDirectory: StateMedium {
    static let fileName = "state.json"
    static let keyName = "key"
    /// The key as a systemd credential (`LoadCredential=tgt-state-key:…`).
    static let credentialName = "tgt-state-key"
    /// Predecessors that stay, as `state.json.N` with their own number each.
    static let predecessors: UInt64 = 10
    /// Bytes: a hundred thousand logical units and their changes are a tenth of it.
    static let greatestLength = 1 << 30

    let path: String
    let key: Secret
    /// Held as long as we live.
    private let lock: FileDescriptor
    /// What has been begun, and how long it is.
    private let begun = Mutex<(file: DataFile, length: Int)?>(nil)
    private var file: String { path + "/" + Self.fileName }

    /// Takes the directory; at the first start makes it, and the key.
    init(_ path: String) throws {
        try Files.makeTrustedDirectory(path)
        guard let lock = try Files.lock(path + "/lock") else { throw StartError("another tgtd is using \(path)") }
        self.path = path
        self.lock = lock
        key = try Self.key(in: path)
    }

    private static func key(in directory: String) throws -> Secret {
        if let credentials = Host.environment("CREDENTIALS_DIRECTORY") {
            let path = credentials + "/" + credentialName
            // systemd answers for who may read it.
            if let text = try Files.readTrusted(path, limit: 256) { return try key(text, path) }
        }
        let path = directory + "/" + keyName
        if let text = try Files.readTrusted(path, limit: 256, isPrivate: true) { return try key(text, path) }
        guard try Files.readTrusted(directory + "/" + fileName, limit: greatestLength, isPrivate: true) == nil else {
            throw StartError("\(path): the key of \(fileName) is gone; restore it from a backup, or remove \(fileName) to start with nothing configured")
        }
        let fresh = Secret.random(count: Seal.keyLength)
        let text = fresh.withBytes { bytes in JSONValue.hexadecimal(bytes.indices.map { bytes[$0] }) }
        try Files.replace(path, with: Array((text + "\n").utf8))
        return fresh
    }

    private static func key(_ text: [UInt8], _ path: String) throws -> Secret {
        let digits = text.last == UInt8(ascii: "\n") ? text.dropLast() : text[...]
        guard let bytes = JSONValue.bytes(hexadecimal: digits), bytes.count == Seal.keyLength else {
            throw StartError("\(path): this is no key (\(2 * Seal.keyLength) hexadecimal digits and a line's end); restore it from a backup")
        }
        return Secret(bytes)
    }

    /// What was kept last; nil if nothing ever was.
    /// - Parameter base: as for `StateDocument`
    func read(base: Configuration) throws -> StateDocument? {
        guard let bytes = try Files.readTrusted(file, limit: Self.greatestLength, isPrivate: true) else { return nil }
        do throws(StateDocument.Trouble) {
            return try StateDocument(bytes, key: key, base: base)
        } catch {
            throw StartError("\(file): \(error). Or put one of its predecessors (\(Self.fileName).N beside it, the greatest number is the latest) in its place, or remove it to start with nothing configured")
        }
    }

    func begin(_ text: [UInt8], number: UInt64) throws(FileError) {
        try Files.replace(file, with: text, keeping: number > 1 ? "\(file).\(number - 1)" : nil)
        let fresh = try DataFile(file, .writing)
        begun.withLock { $0 = (fresh, text.count) }
        if number > Self.predecessors + 1 { Files.remove("\(file).\(number - Self.predecessors - 1)") }
    }

    func append(_ text: [UInt8]) throws(FileError) {
        guard let (file, length) = begun.withLock({ $0 }) else { preconditionFailure("a state is begun before more is written") }
        try file.write(text, at: length)
        try file.flush()
        begun.withLock { $0 = (file, length + text.count) }
    }
}
