import Bytes
import Crypto
import JSON

/// What is configured, as it lies on a disk: lines of JSON. The first has all of it at one time,
///
///     {"portcullisState":2,"sequence":…,"key":"…","salt":"…","configuration":{…},"mac":"…"}
///
/// and each change since then a record of its own behind it, in the order of the changes (`StateJournal`). `sequence` counts the first lines that
/// have been written, `key` tells one key from another and says nothing about it. Secrets are sealed, each for its account and place, under a key
/// made of the key and `salt`, which is new in each file: no key seals more than one file has. `mac` is HMAC-SHA-256 of everything in front of
/// `,"mac"`: a document that is torn or was changed is none.
public struct StateDocument: Sendable {
    /// In version 1 nothing followed the first line.
    public static let version = 2

    /// Why bytes are no document of ours, and what would be right.
    public enum Trouble: Error, Hashable, Sendable, CustomStringConvertible {
        case foreign
        case newer(UInt64)
        case otherKey
        case damaged
        /// Of the changes behind the first line, counted from 1.
        case damagedRecord(Int)
        /// Whole, and not what this version writes.
        case unknown(String)

        public var description: String {
            switch self {
            case .foreign: "this is no state of tgtd, or its beginning is lost"
            case .newer(let version): "a newer tgtd has written this (version \(version), this one knows \(StateDocument.version)): start that one"
            case .otherKey: "this was written under another key: bring back the key that belongs to it"
            case .damaged: "this is torn, or somebody has changed it"
            case .damagedRecord(let number): "change \(number) in it is torn, or somebody has changed it"
            case .unknown(let reason): "this was written by another version of tgtd: \(reason)"
            }
        }
    }

    public let sequence: UInt64
    public let configuration: Configuration
    /// Changes that were read behind the first line.
    public private(set) var recordCount = 0
    /// Bytes at the end of what was read that are the beginning of a record: what was being written when tgtd or its host ended. Nobody has been
    /// told that it is kept, and it is not.
    public private(set) var tornBytes = 0

    public init(sequence: UInt64, configuration: Configuration) {
        self.sequence = sequence
        self.configuration = configuration
    }

    private static let start = Array(#"{"portcullisState":"#.utf8)
    private static let saltLength = 32
    private static let keyNameLength = 8

    /// The first line, and what writes the others.
    /// - Parameter key: of `Seal.keyLength` bytes
    public func encoded(key: Secret) -> (text: [UInt8], journal: StateJournal) {
        let salt = Random.bytes(count: Self.saltLength)
        let sealer = StateSealer(key: StateKey.seals.derived(key, salt))
        let members: [JSONValue.Member] = [
            .init("portcullisState", .number(Self.version)), .init("sequence", .number(Int(clamping: sequence))),
            .init("key", .string(Self.name(of: key))), .init("salt", .string(JSONValue.hexadecimal(salt))),
            .init("configuration", configuration.stored(sealer)),
        ]
        let body = Array(JSONValue.object(members).text.dropLast())
        let mac = Self.mac(body, key)
        return (StateLine.closed(body, mac), StateJournal(sealer: sealer, key: key, mac: mac))
    }

    /// - Parameter base: a configuration without anything in it, as the installation and the settings say
    public init(_ bytes: [UInt8], key: Secret, base: Configuration) throws(Trouble) {
        let digits = bytes.dropFirst(Self.start.count).prefix { $0 != UInt8(ascii: ",") }
        guard bytes.starts(with: Self.start), let version = Number.decimal(digits), version > 0 else { throw .foreign }
        guard version <= Self.version else { throw .newer(version) }
        guard let end = bytes.firstIndex(of: StateLine.newline), let (body, mac) = StateLine.opened(bytes[...end]) else { throw .damaged }
        let document = try? JSONValue(parsing: body + [UInt8(ascii: "}")])
        guard isSameInConstantTime(mac, Self.mac(body, key)) else {
            let isOtherKey = document.flatMap { try? StoredMembers($0).name("key") }.map { $0 != Self.name(of: key) } ?? false
            throw isOtherKey ? .otherKey : .damaged
        }
        var configuration = base
        var journal: StateJournal
        do throws(StoredError) {
            guard let document else { throw StoredError("no JSON") }
            var members = try StoredMembers(document)
            _ = try (members.value("portcullisState"), members.value("key"))
            sequence = try members.take("sequence")
            guard let salt = JSONValue.bytes(hexadecimal: try members.take("salt", as: String.self).utf8) else { throw StoredError("no salt") }
            let sealer = StateSealer(key: StateKey.seals.derived(key, salt))
            try configuration.restore(members.value("configuration"), sealer)
            try members.end()
            journal = StateJournal(sealer: sealer, key: key, mac: mac)
        } catch {
            throw .unknown(error.description)
        }
        // No text of ours has zero bytes: a file that has got its length and not its data ends in them.
        var rest = bytes[(end + 1)...]
        while rest.last == 0 { rest.removeLast() }
        tornBytes = bytes.endIndex - rest.endIndex
        while let end = rest.firstIndex(of: StateLine.newline) {
            recordCount += 1
            let isOurs: Bool
            do throws(StoredError) { isOurs = try journal.read(rest[...end], into: &configuration) } catch { throw .unknown("change \(recordCount): \(error)") }
            guard isOurs else { throw .damagedRecord(recordCount) }
            rest = rest[(end + 1)...]
        }
        guard StateJournal.isTorn(rest) else { throw .damagedRecord(recordCount + 1) }
        tornBytes += rest.count
        do throws(StoredError) { try configuration.index() } catch { throw .unknown(error.description) }
        self.configuration = configuration
    }

    private static func mac(_ body: [UInt8], _ key: Secret) -> [UInt8] { HMAC.sha256(body, key: StateKey.authenticates.derived(key)) }
    private static func name(of key: Secret) -> String {
        StateKey.names.derived(key).withBytes { name in JSONValue.hexadecimal((0..<keyNameLength).map { name[$0] }) }
    }
}

/// The changes behind a document, each one line that is written once and never again:
///
///     {"length":"0000012c","changes":[{"targetSettings":{…}},…],"mac":"…"}
///
/// `length` counts the line's bytes with its end; `mac` is HMAC-SHA-256 of the `mac` of the line before and everything in front of `,"mac"`: no
/// line can be changed, left out or moved. Only the end of the last one can be missing, as a crash while it is written leaves it.
public struct StateJournal: Sendable {
    private let sealer: StateSealer
    private let key: Secret
    /// Of the line before.
    private var mac: [UInt8]

    fileprivate init(sealer: StateSealer, key: Secret, mac: [UInt8]) {
        self.sealer = sealer
        self.key = StateKey.records.derived(key)
        self.mac = mac
    }

    private static let start = Array(#"{"length":""#.utf8)
    private static let lengthDigits = 8
    private static let middle = Array(#"","changes":"#.utf8)

    /// The next line: these parts as they are in `configuration`.
    public mutating func record(_ parts: Set<StatePart>, of configuration: Configuration) -> [UInt8] {
        let changes = JSONValue.array(parts.filter { !$0.isWithinOne(of: parts) }.compactMap { configuration.stored($0, sealer) }).text
        let length = Self.start.count + Self.lengthDigits + Self.middle.count + changes.count + StateLine.closingLength
        let digits = Array(String(length, radix: 16).utf8)
        precondition(digits.count <= Self.lengthDigits, "no change is that long")
        let zeros = [UInt8](repeating: UInt8(ascii: "0"), count: Self.lengthDigits - digits.count)
        let body = Self.start + zeros + digits + Self.middle + changes
        mac = HMAC.sha256(mac + body, key: key)
        return StateLine.closed(body, mac)
    }

    /// Takes in the next line.
    /// - Returns: false if it is not the one that was written
    fileprivate mutating func read(_ line: ArraySlice<UInt8>, into configuration: inout Configuration) throws(StoredError) -> Bool {
        guard let (body, mac) = StateLine.opened(line), isSameInConstantTime(mac, HMAC.sha256(self.mac + body, key: key)) else { return false }
        self.mac = mac
        guard let record = try? JSONValue(parsing: body + [UInt8(ascii: "}")]) else { throw StoredError("no JSON") }
        var members = try StoredMembers(record)
        _ = try members.value("length")
        guard case .array(let changes) = try members.value("changes") else { throw StoredError("changes: a list is wanted") }
        for change in changes { try configuration.restore(part: change, sealer) }
        try members.end()
        return true
    }

    /// Whether these bytes, behind the last line that has an end, are the beginning of a line: nothing, or one that lacks its end.
    fileprivate static func isTorn(_ bytes: ArraySlice<UInt8>) -> Bool {
        guard bytes.count > start.count else { return start.starts(with: bytes) }
        let digits = bytes.dropFirst(start.count).prefix(lengthDigits)
        guard bytes.starts(with: start), digits.allSatisfy({ Number.hexadecimal([$0]) != nil }) else { return false }
        return digits.count < lengthDigits || bytes.count < Number.hexadecimal(digits) ?? 0
    }
}

/// How each line ends.
private enum StateLine {
    static let newline = UInt8(ascii: "\n")
    private static let end = Array(#","mac":""#.utf8)
    private static let last = Array("\"}\n".utf8)
    /// Bytes behind the body.
    static let closingLength = end.count + 2 * HMAC.length + last.count

    static func closed(_ body: [UInt8], _ mac: [UInt8]) -> [UInt8] { body + end + JSONValue.hexadecimal(mac).utf8 + last }

    /// Body and code of a line; nil if it does not end so.
    static func opened(_ line: ArraySlice<UInt8>) -> (body: [UInt8], mac: [UInt8])? {
        let closing = line.suffix(closingLength)
        guard closing.count == closingLength, closing.starts(with: end), closing.suffix(last.count).elementsEqual(last),
              let mac = JSONValue.bytes(hexadecimal: closing.dropFirst(end.count).dropLast(last.count))
        else { return nil }
        return (Array(line.dropLast(closingLength)), mac)
    }
}

/// What the key is for; each use has a key of its own.
private enum StateKey: String {
    case seals = "seal", authenticates = "mac", records = "record", names = "name"

    func derived(_ key: Secret, _ salt: [UInt8] = []) -> Secret { HMAC.derive(Array("portcullis \(rawValue) ".utf8) + salt, from: key) }
}

extension StoredMembers {
    fileprivate func name(_ member: String) throws(StoredError) -> String {
        var members = self
        return try members.take(member)
    }
}

/// Seals under the key of one file: for tenant, account and place.
private struct StateSealer: SecretSealer {
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

    func open(_ secrets: [JSONValue], of account: Account.Key) throws(StoredError) -> [Secret] {
        guard (1...2).contains(secrets.count) else { throw StoredError("account \(account.name) has not one or two secrets") }
        var opened: [Secret] = []
        for (place, value) in secrets.enumerated() {
            guard let sealed = JSONValue.bytes(hexadecimal: try String(stored: value).utf8),
                  let secret = try? Seal.open(sealed, key: key, context: Self.context(account, place))
            else { throw StoredError("a secret of account \(account.name) is not the one that was sealed") }
            opened.append(secret)
        }
        return opened
    }
}
