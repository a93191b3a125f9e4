import Bytes
import Crypto
import JSON

/// What is configured, as it lies on a disk: one JSON object on one line.
///
///     {"portcullisState":1,"sequence":…,"key":"…","salt":"…","configuration":{…},"mac":"…"}
///
/// `sequence` counts what has been written, `key` tells one key from another and says nothing about it. Secrets are sealed, each for its
/// account and place, under a key made of the key and `salt`, which is new in each document: no key seals more than one document has.
/// `mac` is HMAC-SHA-256 of everything in front of `,"mac"`: a document that is torn or was changed is none.
public struct StateDocument: Sendable {
    public static let version = 1

    /// Why bytes are no document of ours, and what would be right.
    public enum Trouble: Error, Hashable, Sendable, CustomStringConvertible {
        case foreign
        case newer(UInt64)
        case otherKey
        case damaged
        /// Whole, and not what this version writes.
        case unknown(String)

        public var description: String {
            switch self {
            case .foreign: "this is no state of tgtd, or its beginning is lost"
            case .newer(let version): "a newer tgtd has written this (version \(version), this one knows \(StateDocument.version)): start that one"
            case .otherKey: "this was written under another key: bring back the key that belongs to it"
            case .damaged: "this is torn, or somebody has changed it"
            case .unknown(let reason): "this was written by another version of tgtd: \(reason)"
            }
        }
    }

    public let sequence: UInt64
    public let configuration: Configuration

    public init(sequence: UInt64, configuration: Configuration) {
        self.sequence = sequence
        self.configuration = configuration
    }

    private static let start = Array(#"{"portcullisState":"#.utf8)
    private static let end = Array(#","mac":""#.utf8)
    private static let last = Array("\"}\n".utf8)
    private static let saltLength = 32
    private static let keyNameLength = 8

    /// - Parameter key: of `Seal.keyLength` bytes
    public func encoded(key: Secret) -> [UInt8] {
        let salt = Random.bytes(count: Self.saltLength)
        let members: [JSONValue.Member] = [
            .init("portcullisState", .number(Self.version)), .init("sequence", .number(Int(clamping: sequence))),
            .init("key", .string(Self.name(of: key))), .init("salt", .string(JSONValue.hexadecimal(salt))),
            .init("configuration", configuration.stored(DocumentSealer(key: Self.derived("seal", key, salt)))),
        ]
        let body = Array(JSONValue.object(members).text.dropLast())
        return body + Self.end + JSONValue.hexadecimal(Self.mac(body, key)).utf8 + Self.last
    }

    /// - Parameter base: a configuration without anything in it, as the installation and the settings say
    public init(_ bytes: [UInt8], key: Secret, base: Configuration) throws(Trouble) {
        let digits = bytes.dropFirst(Self.start.count).prefix { $0 != UInt8(ascii: ",") }
        guard bytes.starts(with: Self.start), let version = Number.decimal(digits), version > 0 else { throw .foreign }
        guard version <= Self.version else { throw .newer(version) }
        let macStart = bytes.count - Self.last.count - 2 * HMAC.length
        let body = Array(bytes.prefix(max(0, macStart - Self.end.count)))
        guard bytes.suffix(from: body.count).starts(with: Self.end), bytes.suffix(Self.last.count).elementsEqual(Self.last) else { throw .damaged }
        let document = try? JSONValue(parsing: body + [UInt8(ascii: "}")])
        guard let mac = JSONValue.bytes(hexadecimal: bytes[macStart..<bytes.count - Self.last.count]), isSameInConstantTime(mac, Self.mac(body, key)) else {
            let isOtherKey = document.flatMap { try? StoredMembers($0).name("key") }.map { $0 != Self.name(of: key) } ?? false
            throw isOtherKey ? .otherKey : .damaged
        }
        do throws(StoredError) {
            guard let document else { throw StoredError("no JSON") }
            var members = try StoredMembers(document)
            _ = try (members.value("portcullisState"), members.value("key"))
            sequence = try members.take("sequence")
            guard let salt = JSONValue.bytes(hexadecimal: try members.take("salt", as: String.self).utf8) else { throw StoredError("no salt") }
            var configuration = base
            try configuration.restore(members.value("configuration"), DocumentSealer(key: Self.derived("seal", key, salt)))
            self.configuration = configuration
            try members.end()
        } catch {
            throw .unknown(error.description)
        }
    }

    private static func derived(_ use: String, _ key: Secret, _ salt: [UInt8] = []) -> Secret { Secret(HMAC.sha256(Array("portcullis \(use) ".utf8) + salt, key: key)) }
    private static func mac(_ body: [UInt8], _ key: Secret) -> [UInt8] { HMAC.sha256(body, key: derived("mac", key)) }
    private static func name(of key: Secret) -> String {
        derived("name", key).withBytes { name in JSONValue.hexadecimal((0..<keyNameLength).map { name[$0] }) }
    }
}

extension StoredMembers {
    fileprivate func name(_ member: String) throws(StoredError) -> String {
        var members = self
        return try members.take(member)
    }
}

/// Seals under the key of one document: for tenant, account and place.
private struct DocumentSealer: SecretSealer {
    let key: Secret

    private static func context(_ account: Account.Key, _ place: Int) -> [UInt8] {
        // No name has a zero byte.
        Array("secret".utf8) + [0] + Array(account.tenant.name.utf8) + [0] + account.name.bytes + [0, UInt8(place)]
    }

    func seal(_ account: Account) -> [JSONValue] {
        account.secrets.enumerated().map { place, secret in
            .string(JSONValue.hexadecimal(Seal.seal(secret, key: key, context: Self.context(account.key, place))))
        }
    }

    func open(_ secrets: [JSONValue], of account: Account.Key) throws(StoredError) -> Account {
        guard (1...2).contains(secrets.count) else { throw StoredError("account \(account.name) has not one or two secrets") }
        var opened: [Secret] = []
        for (place, value) in secrets.enumerated() {
            guard let sealed = JSONValue.bytes(hexadecimal: try String(stored: value).utf8),
                  let secret = try? Seal.open(sealed, key: key, context: Self.context(account, place))
            else { throw StoredError("a secret of account \(account.name) is not the one that was sealed") }
            opened.append(secret)
        }
        return Account(account, restored: opened)
    }
}
