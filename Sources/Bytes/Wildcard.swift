/// Patterns with `*` (any run of bytes) and `?` (any one).
public enum Wildcard {
    private static let run = UInt8(ascii: "*")
    private static let one = UInt8(ascii: "?")

    public static func isWild(_ byte: UInt8) -> Bool { byte == run || byte == one }

    /// Whether the whole text matches. At most length of pattern times length of text steps: after a mismatch, only the last `*` takes one
    /// byte more.
    public static func matches(_ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
        var (p, n) = (pattern.startIndex, text.startIndex)
        var retry: (afterStar: Int, text: Int)?
        while n < text.endIndex {
            if p < pattern.endIndex, pattern[p] == run {
                p += 1
                retry = (p, n)
            } else if p < pattern.endIndex, pattern[p] == one || pattern[p] == text[n] {
                p += 1
                n += 1
            } else if let (afterStar, start) = retry {
                p = afterStar
                n = start + 1
                retry = (p, n)
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == run }
    }

    /// Whether there is a text that matches both: length of one times length of the other steps, none where they begin differently.
    public static func overlap(_ first: [UInt8], _ second: [UInt8]) -> Bool {
        for (a, b) in zip(first, second) {
            if isWild(a) || isWild(b) { break }
            if a != b { return false }
        }
        // Whether what follows position i of the first, and j of the second, can be the same; from the ends on.
        var after: [Bool] = []
        for i in stride(from: first.count, through: 0, by: -1) {
            var row = [Bool](repeating: false, count: second.count + 1)
            for j in stride(from: second.count, through: 0, by: -1) {
                let (a, b) = (i < first.count ? first[i] : nil, j < second.count ? second[j] : nil)
                row[j] = switch (a, b) {
                case (nil, nil): true
                case (run?, _): after[j] || b != nil && row[j + 1]
                case (_, run?): row[j + 1] || a != nil && after[j]
                case (let a?, let b?): (a == one || b == one || a == b) && after[j + 1]
                default: false
                }
            }
            after = row
        }
        return after[0]
    }
}
