extension Span where Element == UInt8 {
    /// Those lines of a text that say something: not empty ones, and not those that begin with `#`; without the blanks around them. They are
    /// looked at where they stand, for a text may be secret.
    /// - Parameter body: is given a line, and its number, counted from 1
    public func forEachLine<E: Error>(_ body: (Span<UInt8>, _ number: Int) throws(E) -> Void) throws(E) {
        var (start, number) = (0, 0)
        while start < count {
            var end = start
            while end < count, self[end] != UInt8(ascii: "\n") { end += 1 }
            number += 1
            let next = end + 1
            while start < end, isBlank(self[start]) { start += 1 }
            while end > start, isBlank(self[end - 1]) { end -= 1 }
            if start < end, self[start] != UInt8(ascii: "#") { try body(extracting(start..<end), number) }
            start = next
        }
    }
}

/// Whether it stands between words, or at the end of a line as other systems write it.
public func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") || byte == UInt8(ascii: "\r") }
