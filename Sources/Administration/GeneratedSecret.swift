import Crypto
import Management

/// A secret that is drawn for an account, and how it is shown: once.
enum GeneratedSecret {
    /// No less than what is strong (RFC 7143 §9.2.1), no more than a secret has room for.
    static let bits: ClosedRange<UInt32> = 96...1530

    /// Printable characters, each of 6 bits. 96 bits make 16, which every initiator takes.
    static func characters(bits: Int) -> Int { (bits + 5) / 6 }

    static func answer(_ secret: Secret, _ user: [UInt8], _ format: OutputFormat) -> Answer {
        secret.withBytes { bytes in
            var shown: [UInt8] = []
            for index in bytes.indices { shown.append(bytes[index]) }
            guard format == .json else { return .report(shown + [UInt8(ascii: "\n")]) }
            return .report(JSONWriter.document { writer in
                writer.object("account") { writer in
                    writer.field("name", String(decoding: user, as: UTF8.self))
                    writer.field("secret", String(decoding: shown, as: UTF8.self))
                }
            })
        }
    }
}
