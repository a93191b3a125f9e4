import Crypto
import JSON

/// The end of a trail at which records are added, with the keys of its future and none of its past.
///
/// Each record carries HMAC(kᵢ, link before it ‖ the record), where the link is a running SHA-256 over all lines before. Then kᵢ₊₁ = HMAC(kᵢ, “next”)
/// takes its place and kᵢ is wiped. Whoever takes a machine finds the next key, and cannot compute an earlier one: he cannot write again, in
/// another form, what was written before he came. Whoever keeps the first key elsewhere computes them all and checks every record (the idea of
/// Bellare and Yee, “Forward integrity for secure audit logs”, and of journald's sealing).
///
/// A key that checks can also forge, so there are checkpoints as well: records that carry an Ed25519 signature over the link, made by a
/// key that is wiped at once, and the public key of the next checkpoint's. For those the first public key is enough, which is no secret.
///
/// That the last records were cut off shows against the head: the number of records and the link, authenticated by the keys of the *next*
/// record and checkpoint. It replaces its predecessor, and for fewer records nobody can make one any more (as with the one aggregate tag of FssAgg).
public struct Chain: Sendable {
    /// Which trail: a word.
    public let trail: String
    /// Records so far, from 1 on; also the number of the last one.
    public internal(set) var count: UInt64 = 0
    /// Checkpoints so far.
    public internal(set) var checkpoints: UInt64 = 0
    /// Records since the last of them.
    public private(set) var sinceCheckpoint: UInt64 = 0
    var link: [UInt8]
    /// Of the next record.
    private var key: Secret
    /// Of the next checkpoint.
    private var seed: Secret
    /// Of the next checkpoint.
    private(set) var publicKey: [UInt8]

    /// Bytes of each of its two keys.
    public static let keyLength = 32

    /// A new chain.
    /// - Parameters:
    ///   - key: drawn at random, `keyLength` bytes; to be kept elsewhere, in `verificationKey`
    ///   - seed: drawn at random, `keyLength` bytes; to be forgotten
    public init(trail: String, key: Secret, seed: Secret) {
        precondition(key.count == Self.keyLength && seed.count == Ed25519.seedLength)
        precondition(Self.isTrailName(trail))
        self.trail = trail
        self.key = key
        self.seed = seed
        publicKey = Ed25519.publicKey(seed: seed)
        link = Codes.firstLink(trail, publicKey)
    }

    /// A word of small letters, digits and hyphens: it is part of file names.
    public static func isTrailName(_ text: String) -> Bool {
        (1...32).contains(text.utf8.count) && text.utf8.allSatisfy { (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == UInt8(ascii: "-") }
    }

    /// What checks the whole trail. Only of a new chain: of a later one nobody has it any more.
    public var verificationKey: VerificationKey {
        precondition(count == 0, "the first key is wiped when the first record is written")
        return VerificationKey(trail: trail, key: key, publicKey: publicKey)
    }

    // MARK: Adding

    /// Adds a record.
    /// - Returns: its line, without the end of the line
    public mutating func append(_ record: Record, at time: Timestamp) -> [UInt8] { append(record.kind, record.members, time) }

    /// Adds the first record of a file: which one it is, and where the chain stands, so that verification can begin with it.
    /// - Parameter number: from 1 on
    public mutating func beginFile(_ number: UInt32, at time: Timestamp) -> [UInt8] {
        append(
            .file,
            [
                .init("trail", .string(trail)), .init("file", .number(Int(number))), .init("link", .string(JSONValue.hexadecimal(link))),
                .init("checkpoints", .number(Int(checkpoints))), .init("publicKey", .string(JSONValue.hexadecimal(publicKey))),
            ], time)
    }

    /// Adds a checkpoint, after which nobody can sign another past.
    public mutating func checkpoint(at time: Timestamp) -> [UInt8] {
        let next = HMAC.derive(Codes.nextSeed, from: seed)
        let nextPublicKey = Ed25519.publicKey(seed: next)
        let body = Line.body(
            count + 1, time, .checkpoint, [.init("checkpoint", .number(Int(checkpoints + 1))), .init("nextPublicKey", .string(JSONValue.hexadecimal(nextPublicKey)))])
        let line = seal(Line.signed(body, signature: Ed25519.sign(Codes.checkpoint(link, body), seed: seed)))
        (seed, publicKey) = (next, nextPublicKey)
        checkpoints += 1
        sinceCheckpoint = 0
        return line
    }

    private mutating func append(_ kind: Record.Kind, _ members: [JSONValue.Member], _ time: Timestamp) -> [UInt8] {
        seal(Line.body(count + 1, time, kind, members))
    }

    private mutating func seal(_ body: [UInt8]) -> [UInt8] {
        let line = Line.sealed(body, code: HMAC.sha256(Codes.record(link, body[...]), key: key))
        advance(over: line[...])
        return line
    }

    private mutating func advance(over line: ArraySlice<UInt8>) {
        link = Codes.link(after: link, line)
        key = Codes.next(key)
        count += 1
        sinceCheckpoint += 1
    }

    /// Goes on behind a line that this chain must have written after all it knows of: after a crash.
    /// - Returns: false if it has not; then nothing has changed
    public mutating func goOn(behind line: ArraySlice<UInt8>) -> Bool {
        guard let (body, code) = Line.parts(line), let header = Line.header(body), header.sequence == count + 1,
              isSameInConstantTime(code, HMAC.sha256(Codes.record(link, body), key: key))
        else { return false }
        advance(over: line)
        guard header.kind == .checkpoint else { return true }
        seed = HMAC.derive(Codes.nextSeed, from: seed)
        publicKey = Ed25519.publicKey(seed: seed)
        checkpoints += 1
        sinceCheckpoint = 0
        return true
    }

    // MARK: What is kept

    /// Where it ends now.
    public var head: Head {
        let message = Codes.head(trail, count, checkpoints, link)
        return Head(
            trail: trail, count: count, checkpoints: checkpoints, link: link, code: HMAC.sha256(message, key: key), signature: Ed25519.sign(message, seed: seed))
    }

    /// The keys of its future, sealed for this head.
    /// - Parameter sealingKey: of `Seal.keyLength` bytes
    public func sealedKeys(_ sealingKey: Secret, context: [UInt8]) -> [UInt8] {
        Seal.seal(Secret(joining: key, seed), key: sealingKey, context: context)
    }

    /// The chain with this head; nil if the keys are not sealed so, or are another head's.
    /// - Parameter sinceCheckpoint: as it was
    public init?(_ head: Head, sinceCheckpoint: UInt64, sealedKeys: [UInt8], _ sealingKey: Secret, context: [UInt8]) {
        guard Self.isTrailName(head.trail), let both = try? Seal.open(sealedKeys, key: sealingKey, context: context), both.count == 2 * Self.keyLength else { return nil }
        trail = head.trail
        count = head.count
        checkpoints = head.checkpoints
        self.sinceCheckpoint = sinceCheckpoint
        link = head.link
        key = both.withBytes { Secret($0.extracting(0..<Self.keyLength)) }
        seed = both.withBytes { Secret($0.extracting(Self.keyLength..<2 * Self.keyLength)) }
        publicKey = Ed25519.publicKey(seed: seed)
        guard isSameInConstantTime(head.code, HMAC.sha256(Codes.head(trail, count, checkpoints, link), key: key)) else { return nil }
    }
}

/// Where a trail ends: how many records it has, and that they are these.
public struct Head: Hashable, Sendable {
    public let trail: String
    public let count: UInt64
    public let checkpoints: UInt64
    let link: [UInt8]
    /// By the key of the next record.
    let code: [UInt8]
    /// By the key of the next checkpoint.
    let signature: [UInt8]

    init(trail: String, count: UInt64, checkpoints: UInt64, link: [UInt8], code: [UInt8], signature: [UInt8]) {
        self.trail = trail
        self.count = count
        self.checkpoints = checkpoints
        self.link = link
        self.code = code
        self.signature = signature
    }

    public var members: [JSONValue.Member] {
        [
            .init("trail", .string(trail)), .init("count", .number(Int(count))), .init("checkpoints", .number(Int(checkpoints))),
            .init("link", .string(JSONValue.hexadecimal(link))), .init("mac", .string(JSONValue.hexadecimal(code))),
            .init("signature", .string(JSONValue.hexadecimal(signature))),
        ]
    }

    /// The head among these members; nil if it is not whole. Whether it is true, a `Verifier` says.
    public init?(_ value: JSONValue) {
        func bytes(_ name: String, _ count: Int) -> [UInt8]? { value[name]?.string.flatMap { JSONValue.bytes(hexadecimal: $0.utf8) }.flatMap { $0.count == count ? $0 : nil } }
        guard let trail = value["trail"]?.string, let count = value["count"]?.number, count >= 0, let checkpoints = value["checkpoints"]?.number, checkpoints >= 0,
              let link = bytes("link", Digest.sha256.length), let code = bytes("mac", HMAC.length), let signature = bytes("signature", Ed25519.signatureLength)
        else { return nil }
        self.init(trail: trail, count: UInt64(count), checkpoints: UInt64(checkpoints), link: link, code: code, signature: signature)
    }
}

/// What checks a trail, kept elsewhere than on its machine: one line of text,
///
///     portcullis-audit-1:TRAIL:KEY:PUBLIC-KEY
///
/// With KEY, 64 hexadecimal digits, every record can be checked; whoever has it could also forge records, so it is a secret. Without (two colons
/// in a row) checkpoints can be checked, and what stands before them; that is no secret.
public struct VerificationKey: Hashable, Sendable {
    public let trail: String
    /// Of the first record.
    public let key: Secret?
    /// Of the first checkpoint.
    public let publicKey: [UInt8]

    private static let format = "portcullis-audit-1"

    public init(trail: String, key: Secret?, publicKey: [UInt8]) {
        self.trail = trail
        self.key = key
        self.publicKey = publicKey
    }

    /// - Parameter text: one line, with or without its end; nil: this is no such key
    public init?(_ text: [UInt8]) {
        let line = text.last == UInt8(ascii: "\n") ? text.dropLast() : text[...]
        let parts = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0].elementsEqual(Self.format.utf8), let key = JSONValue.bytes(hexadecimal: parts[2]), let publicKey = JSONValue.bytes(hexadecimal: parts[3]),
              key.isEmpty || key.count == Chain.keyLength, publicKey.count == Ed25519.publicKeyLength
        else { return nil }
        let trail = String(decoding: parts[1], as: UTF8.self)
        guard Chain.isTrailName(trail) else { return nil }
        self.init(trail: trail, key: key.isEmpty ? nil : Secret(key), publicKey: publicKey)
    }

    /// The same without the secret.
    public var withoutSecret: VerificationKey { VerificationKey(trail: trail, key: nil, publicKey: publicKey) }

    /// With the secret, if it is there: for a file that is carried elsewhere.
    public var text: [UInt8] {
        let secret = key?.withBytes { bytes in JSONValue.hexadecimal(bytes.indices.map { bytes[$0] }) }
        return Array("\(Self.format):\(trail):\(secret ?? ""):\(JSONValue.hexadecimal(publicKey))\n".utf8)
    }
}

/// What is authenticated and signed, each for one use.
enum Codes {
    static let nextSeed = Array("portcullis audit: next checkpoint key".utf8)
    private static let nextKey = Array("portcullis audit: next key".utf8)

    static func next(_ key: Secret) -> Secret { HMAC.derive(nextKey, from: key) }

    static func firstLink(_ trail: String, _ publicKey: [UInt8]) -> [UInt8] {
        Digest.sha256.hash(Array("portcullis audit: chain \(trail)\n".utf8) + publicKey)
    }
    static func link(after link: [UInt8], _ line: ArraySlice<UInt8>) -> [UInt8] { Digest.sha256.hash(link + line) }
    static func record(_ link: [UInt8], _ body: ArraySlice<UInt8>) -> [UInt8] { Array("portcullis audit: record\n".utf8) + link + body }
    static func checkpoint(_ link: [UInt8], _ body: [UInt8]) -> [UInt8] { Array("portcullis audit: checkpoint\n".utf8) + link + body }
    static func head(_ trail: String, _ count: UInt64, _ checkpoints: UInt64, _ link: [UInt8]) -> [UInt8] {
        Array("portcullis audit: head \(trail) \(count) \(checkpoints)\n".utf8) + link
    }
}
