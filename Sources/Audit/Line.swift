import Crypto
import JSON

/// How a record lies in a file: one line of JSON, whose first three members and whose last one always stand in the same places.
///
///     {"sequence":7,"time":"2026-11-23T12:34:56.123456Z","kind":"attempt",…,"mac":"<64 hexadecimal digits>"}
///
/// What is signed and authenticated are these very bytes, so nobody has to agree on how JSON is spelled.
enum Line {
    private static let end = Array("\"}".utf8)
    private static let codeStart = Array(",\"mac\":\"".utf8)
    private static let signatureStart = Array(",\"signature\":\"".utf8)
    private static let kindStart = Array("\",\"kind\":\"".utf8)
    private static func start(_ sequence: UInt64) -> [UInt8] { Array("{\"sequence\":\(sequence),\"time\":\"".utf8) }

    /// All but the last members, with no closing brace.
    static func body(_ sequence: UInt64, _ time: Timestamp, _ kind: Record.Kind, _ members: [JSONValue.Member]) -> [UInt8] {
        var bytes = start(sequence) + "\(time)".utf8 + kindStart + kind.rawValue.utf8
        bytes.append(UInt8(ascii: "\""))
        for member in members {
            bytes.append(UInt8(ascii: ","))
            JSONValue.quote(member.name, into: &bytes)
            bytes.append(UInt8(ascii: ":"))
            member.value.write(into: &bytes)
        }
        return bytes
    }

    static func sealed(_ body: [UInt8], code: [UInt8]) -> [UInt8] { body + codeStart + JSONValue.hexadecimal(code).utf8 + end }
    static func signed(_ body: [UInt8], signature: [UInt8]) -> [UInt8] { body + signatureStart + JSONValue.hexadecimal(signature).utf8 + [UInt8(ascii: "\"")] }

    /// A line taken apart; nil if it has not this form.
    static func parts(_ line: ArraySlice<UInt8>) -> (body: ArraySlice<UInt8>, code: [UInt8])? {
        let tail = codeStart.count + 2 * HMAC.length + end.count
        guard line.count > tail, line.suffix(end.count).elementsEqual(end) else { return nil }
        let body = line.dropLast(tail)
        let rest = line[body.endIndex...]
        guard rest.starts(with: codeStart), let code = JSONValue.bytes(hexadecimal: rest.dropFirst(codeStart.count).dropLast(end.count)) else { return nil }
        return (body, code)
    }

    /// A checkpoint's body taken apart: what is signed, and the signature.
    static func signedParts(_ body: ArraySlice<UInt8>) -> (body: ArraySlice<UInt8>, signature: [UInt8])? {
        let tail = signatureStart.count + 2 * Ed25519.signatureLength + 1
        guard body.count > tail, body.last == UInt8(ascii: "\"") else { return nil }
        let rest = body.suffix(tail)
        guard rest.starts(with: signatureStart), let signature = JSONValue.bytes(hexadecimal: rest.dropFirst(signatureStart.count).dropLast()) else { return nil }
        return (body.dropLast(tail), signature)
    }

    /// Number and kind, if they stand where they belong.
    static func header(_ body: ArraySlice<UInt8>) -> (sequence: UInt64, kind: Record.Kind)? {
        let prefix = Array("{\"sequence\":".utf8)
        guard body.starts(with: prefix) else { return nil }
        let digits = body.dropFirst(prefix.count).prefix { (0x30...0x39).contains($0) }
        guard let sequence = UInt64(String(decoding: digits, as: UTF8.self)) else { return nil }
        let start = start(sequence)
        guard body.starts(with: start) else { return nil }
        let rest = body.dropFirst(start.count + Timestamp.length)
        guard rest.starts(with: kindStart) else { return nil }
        guard let kind = Record.Kind(rawValue: String(decoding: rest.dropFirst(kindStart.count).prefix { $0 != UInt8(ascii: "\"") }, as: UTF8.self)) else { return nil }
        return (sequence, kind)
    }

    /// Members of a body, as JSON.
    static func members(_ body: ArraySlice<UInt8>) -> JSONValue? { try? JSONValue(parsing: Array(body) + [UInt8(ascii: "}")]) }
}
