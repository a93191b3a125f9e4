import Crypto
import Reactor
import TLS

/// What the files of one portal's settings hold.
struct PortalFiles {
    var ca: [UInt8]?
    var crl: [UInt8]?
    var pin: [UInt8]?
    /// PEM: certificates are public, their key is not.
    var certificate: (chain: [UInt8], key: Secret)?
    var preSharedKey: (identity: [UInt8], key: Secret)?

    /// - Parameter read: reads one of `settings.files`
    init(_ settings: PortalSettings, read: (NamedFile) throws(FileError) -> [UInt8] = Self.read) throws(FileError) {
        func contents(_ path: String, isPrivate: Bool = false) throws(FileError) -> [UInt8] { try read(NamedFile(path: path, isPrivate: isPrivate)) }
        if let path = settings.ca { ca = try contents(path) }
        if let path = settings.crl { crl = try contents(path) }
        if let path = settings.pin { pin = try contents(path) }
        if let path = settings.certificate, let key = settings.key { certificate = (try contents(path), Secret(try contents(key, isPrivate: true))) }
        if let path = settings.preSharedKeyFile {
            preSharedKey = try Self.line(of: settings.identity.map { Array($0.utf8) }, in: contents(path, isPrivate: true), path)
        }
    }

    private static func read(_ file: NamedFile) throws(FileError) -> [UInt8] {
        guard let bytes = try Files.readTrusted(file.path, limit: NamedFile.mostBytes, isPrivate: file.isPrivate) else {
            throw FileError(file.path, "there is no such file")
        }
        return bytes
    }

    /// The line of `identity`, or the first, of a file of `identity:key in hexadecimal`.
    static func line(of identity: [UInt8]?, in text: [UInt8], _ path: String) throws(FileError) -> (identity: [UInt8], key: Secret) {
        for (number, line) in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            guard let first = line.first, first != UInt8(ascii: "#") else { continue }
            let fields = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
            guard fields.count == 2, (1...PreSharedKey.mostIdentity).contains(fields[0].count), let key = hexadecimal(fields[1]), PreSharedKey.lengths.contains(key.count) else {
                throw FileError(path, "line \(number + 1) is not identity:key, with a key of 32 to 128 hexadecimal digits")
            }
            if identity == nil || identity == Array(fields[0]) { return (Array(fields[0]), Secret(key)) }
        }
        throw FileError(path, identity.map { "there is no key for \(String(decoding: $0, as: UTF8.self))" } ?? "there is no key in it")
    }

    private static func hexadecimal(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
        guard digits.count.isMultiple(of: 2) else { return nil }
        let values = digits.compactMap { Character(UnicodeScalar($0)).hexDigitValue }
        guard values.count == digits.count else { return nil }
        return stride(from: 0, to: values.count, by: 2).map { UInt8(values[$0] << 4 | values[$0 + 1]) }
    }
}
