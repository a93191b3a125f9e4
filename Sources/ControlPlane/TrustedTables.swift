import Bytes
import Crypto
import ISCSI

/// What is wrong in a file of lines: where, and what kind of trouble. It says nothing of what stands there.
package struct LineTrouble: Error, Hashable, Sendable, CustomStringConvertible {
    /// Counted from 1.
    let line: Int
    let reason: String
    package var description: String { "line \(line): \(reason)" }
}

/// Bounds of files of lines.
enum TableLimits {
    /// Entries: an initiator each.
    static let entries = 16_384
    /// Bytes of an identity of a pre-shared key: what stunnel and OpenSSL take.
    static let identity = 128
    /// Bytes of a pre-shared key: less can be guessed from a handshake that was recorded, more is used by no hash.
    static let key = 16...64
}

private func initiator(_ text: some Collection<UInt8>, _ number: Int) throws(LineTrouble) -> ISCSIName {
    do throws(ISCSIName.NameError) { return try ISCSIName(text) } catch { throw LineTrouble(line: number, reason: "no initiator name") }
}

/// The pre-shared keys of a portal: lines `identity:key:initiator-name`, the key in hexadecimal. stunnel's own files have the first two
/// alone, and stunnel splits at the first colon: so no identity has one. Without a line, nobody comes in: the last key may be revoked.
package struct PreSharedKeys: Sendable {
    package struct Entry: Sendable {
        package let key: Secret
        package let initiator: ISCSIName
    }

    private var entries: [[UInt8]: Entry] = [:]

    package init(parsing file: Secret) throws(LineTrouble) {
        var lines: [[UInt8]: Int] = [:]
        try file.withBytes { bytes throws(LineTrouble) in
            try bytes.forEachLine { line, number throws(LineTrouble) in
                var colons: [Int] = []
                for index in line.indices where line[index] == UInt8(ascii: ":") && colons.count < 2 { colons.append(index) }
                guard colons.count == 2 else { throw LineTrouble(line: number, reason: "not identity:key:initiator-name") }
                let (first, second) = (colons[0], colons[1])
                let identity = line.extracting(..<first).toArray()
                guard (1...TableLimits.identity).contains(identity.count), identity.allSatisfy({ (0x21...0x7e).contains($0) }) else {
                    throw LineTrouble(line: number, reason: "the identity has 1 to \(TableLimits.identity) printable characters without blanks and colons")
                }
                guard let key = Secret(hexadecimal: line.extracting(first + 1..<second)), TableLimits.key.contains(key.count) else {
                    throw LineTrouble(line: number, reason: "the key has \(2 * TableLimits.key.lowerBound) to \(2 * TableLimits.key.upperBound) hexadecimal digits, two for each byte")
                }
                let name = try initiator(line.extracting((second + 1)...).toArray(), number)
                guard entries.updateValue(Entry(key: key, initiator: name), forKey: identity) == nil else {
                    throw LineTrouble(line: number, reason: "its identity has a line already")
                }
                // Whoever has a key is whoever has that key.
                if let other = lines.updateValue(number, forKey: key.withBytes { Digest.sha256.hash($0.toArray()) }) {
                    throw LineTrouble(line: number, reason: "it has the key of line \(other)")
                }
                guard entries.count <= TableLimits.entries else { throw LineTrouble(line: number, reason: "there are more than \(TableLimits.entries) keys") }
            }
        }
    }

    package subscript(identity: [UInt8]) -> Entry? { entries[identity] }
}

/// Which initiators certificates are that do not say so themselves: lines `fingerprint initiator-name`, the fingerprint SHA-256 of the
/// certificate in hexadecimal, with or without colons.
package struct ClientMap: Sendable {
    private var names: [[UInt8]: ISCSIName] = [:]

    package init() {}

    package init(parsing file: borrowing Span<UInt8>) throws(LineTrouble) {
        try file.forEachLine { line, number throws(LineTrouble) in
            let words = line.toArray().split(whereSeparator: isBlank)
            guard words.count == 2 else { throw LineTrouble(line: number, reason: "not fingerprint and initiator-name") }
            let digits = words[0].filter { $0 != UInt8(ascii: ":") }
            guard let fingerprint = bytes(digits), fingerprint.count == Digest.sha256.length else {
                throw LineTrouble(line: number, reason: "the fingerprint is SHA-256, \(2 * Digest.sha256.length) hexadecimal digits")
            }
            let name = try initiator(words[1], number)
            guard names.updateValue(name, forKey: fingerprint) == nil else { throw LineTrouble(line: number, reason: "its certificate has a line already") }
            guard names.count <= TableLimits.entries else { throw LineTrouble(line: number, reason: "there are more than \(TableLimits.entries) certificates") }
        }
    }

    package subscript(fingerprint: [UInt8]) -> ISCSIName? { names[fingerprint] }
}

private func bytes(_ digits: [UInt8]) -> [UInt8]? { Secret(hexadecimal: digits.span)?.withBytes { $0.toArray() } }
