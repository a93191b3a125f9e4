import Crypto
import JSON

/// Reads a trail from its first file on and says where it was changed first.
///
/// What it finds depends on what it is given:
///
/// - With the secret key: every record that was changed, removed, inserted or moved, by whoever, and with whatever he found on the machine, as long
///   as it was written before he came. What he writes from then on nobody can tell from ours.
/// - With the public key alone: the same as far as the last checkpoint, but only between which two checkpoints. What follows the last checkpoint
///   could have been rewritten by who has taken the machine since.
/// - With the head as well: that records were cut off at the end. Without it nobody knows how many there were. A head and a trail that are put back
///   together as they once were look whole; against that helps to know a later head, or checkpoint, from elsewhere (the second sink).
public struct Verifier: Sendable {
    /// The first thing that is wrong.
    public struct Break: Error, Hashable, Sendable, CustomStringConvertible {
        public enum Cause: Hashable, Sendable {
            /// What stands there is no line of ours.
            case notARecord
            /// Another number stands there.
            case found(UInt64)
            /// It is not as it was written, or not where.
            case code
            /// It does not fit to what stands before it, somewhere since the last checkpoint that did: without the secret key nothing closer is known.
            case since(UInt64)
            /// The file begins otherwise than it was begun.
            case fileStart
            /// There are no more records, but there were.
            case missing(of: UInt64)
            /// The records up to here are not those that the head is about.
            case head
            /// Files before the first one are not there, and no record says that they were removed.
            case olderFiles(UInt32)
        }

        /// The first record that is not there as it was written.
        public let sequence: UInt64
        /// Where: the number of the file, and the line from 1 on; 0: none.
        public let file: UInt32
        public let line: Int
        public let cause: Cause

        public var description: String {
            let place = line == 0 ? "" : " (file \(file), line \(line))"
            return switch cause {
            case .notARecord: "record \(sequence)\(place): what stands there is no record"
            case .found(let other): "record \(sequence)\(place): record \(other) stands in its place"
            case .code: "record \(sequence)\(place): it was changed, or was not written by this trail"
            case .since(let checkpoint):
                "record \(sequence)\(place): it does not fit to what stands before it; one of the records \(checkpoint + 1) to \(sequence) was changed, removed or inserted"
            case .fileStart: "record \(sequence)\(place): the file does not go on where the one before ended"
            case .missing(let count): "record \(sequence): it is missing, and so is all up to record \(count)"
            case .head: "record \(sequence)\(place): up to here these are not the records that were kept"
            case .olderFiles(let number): "record 1: the files before file \(number) are not there, and no record says that they were removed"
            }
        }
    }

    /// What can be said of a trail without a break.
    public struct Conclusion: Hashable, Sendable {
        /// The records that were checked.
        public var first: UInt64
        public var last: UInt64
        public var checkpoints: UInt64
        /// The last one that a checkpoint vouches for; 0: none.
        public var lastCheckpoint: UInt64
        /// Whether every single record was checked, or signatures only.
        public var isByRecord: Bool
        /// How many records there were at least, by the heads; 0: nothing is known of that.
        public var proven: UInt64
        /// A line that nobody has ended: it is being written, or tgtd was killed while it was.
        public var hasUnfinishedLine: Bool
    }

    /// The trail begins with a file that this key cannot vouch for.
    public struct CannotBegin: Error, Hashable, Sendable, CustomStringConvertible {
        public let description = "the first files are not here; to begin later, the secret verification key is needed"
    }

    private let trail: String
    /// Those that are still to be met, the next one last.
    private var heads: [Head]
    /// Of the next record; nil: there is the public key alone.
    private var key: Secret?
    private var publicKey: [UInt8]
    private var link: [UInt8]
    private var count: UInt64 = 0
    private var checkpoints: UInt64 = 0
    private var lastCheckpoint: UInt64 = 0
    private var firstFile: UInt32?
    private var first: UInt64 = 1
    private(set) var file: UInt32 = 0
    private var line = 0
    /// The last file that a record says was removed.
    private var removed: UInt32 = 0
    private var startsFile = false
    private var proven: UInt64 = 0
    private var hasUnfinishedLine = false

    /// - Parameter heads: the one that is kept beside the trail, read before the first file was; and others that are known, however old
    public init(_ key: VerificationKey, heads: [Head]) {
        trail = key.trail
        self.heads = heads.sorted { $0.count > $1.count }
        self.key = key.key
        publicKey = key.publicKey
        link = Codes.firstLink(key.trail, key.publicKey)
    }

    /// The records so far.
    public var checked: UInt64 { count }

    private func broken(_ cause: Break.Cause) -> Break { Break(sequence: count + 1, file: file, line: line, cause: cause) }

    /// The lines that follow are those of this file, which comes behind the one before.
    public mutating func begin(file number: UInt32) throws(CannotBegin) {
        guard firstFile != nil || number == 1 || key != nil else { throw CannotBegin() }
        if firstFile == nil { firstFile = number }
        file = number
        line = 0
        startsFile = true
    }

    /// Checks a line, given without its end.
    public mutating func take(_ text: ArraySlice<UInt8>) throws(Break) {
        line += 1
        guard let (body, code) = Line.parts(text), let header = Line.header(body) else { throw broken(.notARecord) }
        if startsFile, count == 0, file != 1, header.kind == .file { try skip(to: header.sequence, body) }
        guard header.sequence == count + 1 else { throw broken(.found(header.sequence)) }
        if let key {
            guard isSameInConstantTime(code, HMAC.sha256(Codes.record(link, body), key: key)) else { throw broken(.code) }
            self.key = Codes.next(key)
        }
        guard startsFile == (header.kind == .file) else { throw broken(.fileStart) }
        startsFile = false
        switch header.kind {
        case .file: try checkFile(body)
        case .checkpoint: try checkSignature(body)
        case .removed: removed = max(removed, Line.members(body)?["throughFile"]?.number.flatMap { UInt32(exactly: $0) } ?? 0)
        default: break
        }
        link = Codes.link(after: link, text)
        count += 1
        try prove()
    }

    /// What stands behind the last end of a line. Only where nothing has been promised yet may there be anything.
    public mutating func takeUnfinished(_ text: ArraySlice<UInt8>) throws(Break) {
        guard !text.isEmpty else { return }
        line += 1
        guard heads.isEmpty else { throw broken(.notARecord) }
        hasUnfinishedLine = true
    }

    /// Nothing more comes.
    public func conclude() throws(Break) -> Conclusion {
        if let head = heads.first { throw Break(sequence: count + 1, file: file, line: 0, cause: .missing(of: head.count)) }
        if let firstFile, firstFile > 1, removed < firstFile - 1 { throw Break(sequence: 1, file: firstFile, line: 0, cause: .olderFiles(firstFile)) }
        return Conclusion(
            first: first, last: count, checkpoints: checkpoints, lastCheckpoint: lastCheckpoint, isByRecord: key != nil, proven: proven,
            hasUnfinishedLine: hasUnfinishedLine)
    }

    /// To the beginning of a file whose predecessors are not there any more: the key tells whether it was begun so.
    private mutating func skip(to sequence: UInt64, _ body: ArraySlice<UInt8>) throws(Break) {
        guard var key, let members = Line.members(body), let link = Self.bytes(members, "link"), let publicKey = Self.bytes(members, "publicKey"),
              let checkpoints = members["checkpoints"]?.number, checkpoints >= 0, sequence > 0, sequence <= Self.greatestSkip
        else { throw broken(.fileStart) }
        for _ in 1..<sequence { key = Codes.next(key) }
        self.key = key
        self.link = link
        self.publicKey = publicKey
        self.checkpoints = UInt64(checkpoints)
        first = sequence
        count = sequence - 1
    }
    /// Records: minutes of computing.
    private static let greatestSkip: UInt64 = 1 << 28

    private func checkFile(_ body: ArraySlice<UInt8>) throws(Break) {
        guard let members = Line.members(body), members["trail"]?.string == trail, members["file"]?.number == Int(file), Self.bytes(members, "link") == link,
              Self.bytes(members, "publicKey") == publicKey, members["checkpoints"]?.number == Int(checkpoints)
        else { throw broken(key == nil ? .since(lastCheckpoint) : .fileStart) }
    }

    private mutating func checkSignature(_ body: ArraySlice<UInt8>) throws(Break) {
        guard let (signed, signature) = Line.signedParts(body), let next = Line.members(body).flatMap({ Self.bytes($0, "nextPublicKey") }),
              Ed25519.isSignature(signature, of: Codes.checkpoint(link, Array(signed)), by: publicKey)
        else { throw broken(.since(lastCheckpoint)) }
        publicKey = next
        checkpoints += 1
        lastCheckpoint = count + 1
    }

    /// Where all records that a head is about have been read, it must be the head of these.
    private mutating func prove() throws(Break) {
        while let head = heads.last, head.count <= count {
            heads.removeLast()
            // It is about nothing that is here.
            if head.count < first { continue }
            let message = Codes.head(trail, count, checkpoints, link)
            let isTrue = head.trail == trail && head.count == count && head.link == link && head.checkpoints == checkpoints
                && Ed25519.isSignature(head.signature, of: message, by: publicKey)
            guard isTrue, key.map({ isSameInConstantTime(head.code, HMAC.sha256(message, key: $0)) }) ?? true else {
                throw Break(sequence: count, file: file, line: line, cause: .head)
            }
            proven = count
        }
    }

    private static func bytes(_ members: JSONValue, _ name: String) -> [UInt8]? { members[name]?.string.flatMap { JSONValue.bytes(hexadecimal: $0.utf8) } }
}
