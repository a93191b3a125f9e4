import Audit
import Crypto
import JSON
import Reactor

/// What a trail keeps beside its files: its head, where that is, and the sealed keys of its future.
///
/// Two places take turns, so that a write that is torn leaves the one before. When one is on the medium the other is overwritten with zeros: the
/// keys of the past are not to lie there.
struct TrailState {
    let chain: Chain
    /// The file that is written, and its bytes so far; 0: there is none yet.
    let file: UInt32
    let length: Int

    static let slotLength = 4096
    static let slots = 2

    private static func members(_ head: Head, _ sinceCheckpoint: UInt64, _ file: UInt32, _ length: Int) -> [JSONValue.Member] {
        [
            .init("head", .object(head.members)), .init("sinceCheckpoint", .number(Int(sinceCheckpoint))), .init("file", .number(Int(file))),
            .init("length", .number(length)),
        ]
    }

    func slot(_ sealingKey: Secret) -> [UInt8] {
        let members = Self.members(chain.head, chain.sinceCheckpoint, file, length)
        let sealed = chain.sealedKeys(sealingKey, context: JSONValue.object(members).text)
        let text = JSONValue.object(members + [.init("sealed", .string(JSONValue.hexadecimal(sealed)))]).text + [UInt8(ascii: "\n")]
        precondition(text.count <= Self.slotLength)
        return text + [UInt8](repeating: 0, count: Self.slotLength - text.count)
    }

    init(chain: Chain, file: UInt32, length: Int) {
        self.chain = chain
        self.file = file
        self.length = length
    }

    private init?(_ value: JSONValue, _ sealingKey: Secret) {
        guard let head = value["head"].flatMap({ Head($0) }), let since = value["sinceCheckpoint"]?.number.flatMap({ UInt64(exactly: $0) }),
              let file = value["file"]?.number.flatMap({ UInt32(exactly: $0) }), let length = value["length"]?.number, length >= 0,
              let sealed = value["sealed"]?.string.flatMap({ JSONValue.bytes(hexadecimal: $0.utf8) }),
              let chain = Chain(
                head, sinceCheckpoint: since, sealedKeys: sealed, sealingKey, context: JSONValue.object(Self.members(head, since, file, length)).text)
        else { return nil }
        self.init(chain: chain, file: file, length: length)
    }

    /// Those that are whole, the newest first.
    private static func values(_ bytes: [UInt8]) -> [(slot: Int, value: JSONValue)] {
        (0..<slots).compactMap { slot in
            let text = bytes.dropFirst(slot * slotLength).prefix(slotLength).prefix { $0 != UInt8(ascii: "\n") }
            return (try? JSONValue(parsing: Array(text))).map { (slot, $0) }
        }
    }

    /// The newest one that is true, and where it is; nil: there is none.
    static func newest(_ bytes: [UInt8], _ sealingKey: Secret) -> (slot: Int, state: TrailState)? {
        values(bytes).compactMap { slot, value in TrailState(value, sealingKey).map { (slot, $0) } }.max { ($0.1.chain.count, $0.1.length) < ($1.1.chain.count, $1.1.length) }
    }

    /// The newest head, for who has not the key; a verifier tells whether it is true.
    static func newestHead(_ bytes: [UInt8]) -> Head? { values(bytes).compactMap { $0.value["head"].flatMap { Head($0) } }.max { $0.count < $1.count } }
}

extension Head {
    /// The head that a trail's directory keeps; nil: there is none.
    public static func kept(_ storage: any AuditStorage, _ names: TrailNames) throws(FileError) -> Head? {
        guard try storage.names().contains(names.state) else { return nil }
        return TrailState.newestHead(try storage.read(names.state, at: 0, count: TrailState.slotLength * TrailState.slots))
    }
}
