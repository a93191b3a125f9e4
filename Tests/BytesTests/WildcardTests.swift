import Bytes
import Testing

@Suite struct WildcardTests {
    /// Every text of up to five letters.
    static let texts: [[UInt8]] = (0...5).flatMap { length in
        (0..<(1 << length)).map { number in (0..<length).map { number >> $0 & 1 == 0 ? UInt8(ascii: "a") : UInt8(ascii: "b") } }
    }
    /// Every pattern of up to four.
    static let patterns: [[UInt8]] = (0...4).flatMap { length in
        (0..<(1 << (2 * length))).map { number in (0..<length).map { Array("ab*?".utf8)[number >> (2 * $0) & 3] } }
    }

    /// What the words of a pattern mean, one after the other.
    static func means(_ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
        guard let first = pattern.first else { return text.isEmpty }
        switch first {
        case UInt8(ascii: "*"): return means(pattern.dropFirst(), text) || !text.isEmpty && means(pattern, text.dropFirst())
        case UInt8(ascii: "?"): return !text.isEmpty && means(pattern.dropFirst(), text.dropFirst())
        default: return text.first == first && means(pattern.dropFirst(), text.dropFirst())
        }
    }

    @Test("A pattern matches what its letters mean") func matches() {
        for pattern in Self.patterns {
            for text in Self.texts { #expect(Wildcard.matches(pattern[...], text[...]) == Self.means(pattern[...], text[...]), "\(pattern) \(text)") }
        }
    }

    @Test("Two patterns overlap if a text matches both") func overlap() {
        let short = Self.patterns.filter { $0.count <= 3 }
        let matched = short.map { pattern in Set(Self.texts.indices.filter { Wildcard.matches(pattern[...], Self.texts[$0][...]) }) }
        // Two patterns of three that have a common text have one of at most five letters.
        for (i, first) in short.enumerated() {
            for (j, second) in short.enumerated() { #expect(Wildcard.overlap(first, second) == !matched[i].isDisjoint(with: matched[j]), "\(first) \(second)") }
        }
    }
}
