import JSON
import Model
import Reactor

/// The random identity of this installation, from which serial numbers and NAA names are made. It is made once and kept in a file of
/// its own: a restart never changes what initiators recognise a disk by.
enum Installation {
    static let fileName = "identity"

    /// Reads the identity that `directory` keeps, or makes it. A directory that can be written by others, or a file that is torn,
    /// is refused: a guess would show every initiator new disks.
    static func identity(in directory: String) throws -> [UInt8] {
        try Files.makeTrustedDirectory(directory)
        let path = directory + "/" + fileName
        if let text = try Files.readTrusted(path, limit: 256) {
            guard let identity = parse(text) else {
                throw StartError("\(path): this is no installation identity (32 hexadecimal digits and a line's end); restore it from a backup, or remove it to get a new one: then every initiator sees new disks")
            }
            return identity
        }
        let identity = fresh()
        try Files.replace(path, with: Array((JSONValue.hexadecimal(identity) + "\n").utf8))
        return identity
    }

    /// One for a daemon that keeps nothing.
    static func fresh() -> [UInt8] {
        var random = SystemRandomNumberGenerator()
        return (0..<IdentitySource.installationLength).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    static func parse(_ text: [UInt8]) -> [UInt8]? {
        guard text.count == 2 * IdentitySource.installationLength + 1, text.last == UInt8(ascii: "\n") else { return nil }
        return JSONValue.bytes(hexadecimal: text.dropLast())
    }
}
