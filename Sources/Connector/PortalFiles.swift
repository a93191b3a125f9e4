import Bytes
import Crypto
import Reactor
import TLS

/// What the files of one portal's settings hold: all of it as if it were secret, for one that is named for its certificate may hold the key, too.
struct PortalFiles {
    var ca: Secret?
    var crl: Secret?
    var pin: Secret?
    /// PEM.
    var certificate: (chain: Secret, key: Secret)?
    var preSharedKey: (identity: [UInt8], key: Secret)?

    /// - Parameter read: reads one of `settings.files`
    init(_ settings: PortalSettings, read: (NamedFile) throws(FileError) -> Secret = Self.read) throws(FileError) {
        func contents(_ path: String, isPrivate: Bool = false) throws(FileError) -> Secret { try read(NamedFile(path: path, isPrivate: isPrivate)) }
        if let path = settings.ca { ca = try contents(path) }
        if let path = settings.crl { crl = try contents(path) }
        if let path = settings.pin { pin = try contents(path) }
        if let path = settings.certificate, let key = settings.key { certificate = (try contents(path), try contents(key, isPrivate: true)) }
        if let path = settings.preSharedKeyFile {
            preSharedKey = try Self.line(of: settings.identity.map { Array($0.utf8) }, in: contents(path, isPrivate: true), path)
        }
    }

    private static func read(_ file: NamedFile) throws(FileError) -> Secret { try file.contents(of: file.open()) }

    /// The line of `identity`, or the first, of a file of `identity:key in hexadecimal`.
    static func line(of identity: [UInt8]?, in file: Secret, _ path: String) throws(FileError) -> (identity: [UInt8], key: Secret) {
        var found: (identity: [UInt8], key: Secret)?
        try file.withBytes { text throws(FileError) in
            try text.forEachLine { line, number throws(FileError) in
                guard found == nil else { return }
                var colon = 0
                while colon < line.count, line[colon] != UInt8(ascii: ":") { colon += 1 }
                guard (1...PreSharedKey.mostIdentity).contains(colon), colon < line.count,
                    let key = Secret(hexadecimal: line.extracting((colon + 1)...)), PreSharedKey.lengths.contains(key.count)
                else { throw FileError(path, "line \(number) is not identity:key, with a key of 32 to 128 hexadecimal digits") }
                let name = line.extracting(..<colon).toArray()
                if identity == nil || identity == name { found = (name, key) }
            }
        }
        if let found { return found }
        throw FileError(path, identity.map { "there is no key for \(String(decoding: $0, as: UTF8.self))" } ?? "there is no key in it")
    }
}
