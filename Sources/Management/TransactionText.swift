import Bytes

/// The text of a transaction: one tgtadm command line on each line, with or without the word `tgtadm` in front. Empty lines, and
/// what follows a `#` at the beginning of a word, mean nothing.
///
/// Words are separated by blanks, and quoted as in a shell: between apostrophes everything stands for itself; between quotation
/// marks, and outside of both, a backslash takes from the next character its meaning. Nothing is expanded.
public struct TransactionText: Sendable {
    /// A command line.
    public struct Line: Hashable, Sendable {
        /// From 1.
        public var number: Int
        /// Without `tgtadm`; never empty.
        public var words: [[UInt8]]
    }

    /// Bytes of the whole text: its requests are about as long.
    public static let greatestLength = 4 * NativeProtocol.greatestRequest

    public let lines: [Line]

    /// Why a line is none.
    public struct Malformed: Error, Hashable, Sendable {
        public let line: Int
        public let reason: String
    }

    public init(_ text: [UInt8]) throws(Malformed) {
        var lines: [Line] = []
        var number = 0
        for line in text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            var words: [[UInt8]]
            do throws(Quoting) { words = try Self.words(line) } catch { throw Malformed(line: number, reason: error.rawValue) }
            if words.first?.elementsEqual("tgtadm".utf8) == true { words.removeFirst() }
            if !words.isEmpty { lines.append(Line(number: number, words: words)) }
        }
        self.lines = lines
    }

    private enum Quoting: String, Error {
        case apostrophe = "an apostrophe has no second one"
        case quotationMark = "a quotation mark has no second one"
        case backslash = "nothing follows the backslash"
        case zero = "there is a zero byte"
    }

    private static func words(_ line: ArraySlice<UInt8>) throws(Quoting) -> [[UInt8]] {
        var words: [[UInt8]] = []
        var word: [UInt8]?
        var quote: UInt8?
        var rest = line
        while let byte = rest.popFirst() {
            guard byte != 0 else { throw .zero }
            switch (byte, quote) {
            case (_, let open?) where byte == open: quote = nil
            case (_, UInt8(ascii: "'")): word?.append(byte)
            case (UInt8(ascii: "\\"), _):
                guard let next = rest.popFirst() else { throw .backslash }
                // Between quotation marks it stays before anything but these two, as in a shell.
                let isSpecial = quote == nil || next == UInt8(ascii: "\"") || next == UInt8(ascii: "\\")
                word = (word ?? []) + (isSpecial ? [next] : [byte, next])
            case (_, _?): word?.append(byte)
            case (UInt8(ascii: "'"), nil), (UInt8(ascii: "\""), nil):
                quote = byte
                word = word ?? []
            case (UInt8(ascii: " "), nil), (UInt8(ascii: "\t"), nil), (UInt8(ascii: "\r"), nil):
                if let whole = word { words.append(whole) }
                word = nil
            case (UInt8(ascii: "#"), nil) where word == nil: return words
            default:
                if word == nil { word = [] }
                word?.append(byte)
            }
        }
        guard quote == nil else { throw quote == UInt8(ascii: "'") ? .apostrophe : .quotationMark }
        if let word { words.append(word) }
        return words
    }
}
