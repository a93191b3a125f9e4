import Bytes

/// A JSON text (RFC 8259) as a value: what we keep, and read again. Numbers are integers of 64 bits; of members with one name there is one.
public indirect enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case number(Int)
    case string(String)
    case array([JSONValue])
    case object([Member])

    /// `"name":value`, in the order of writing.
    public struct Member: Hashable, Sendable {
        public let name: String
        public let value: JSONValue
        public init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    /// Why a text is none of ours, and where: bytes from its start.
    public struct SyntaxError: Error, Hashable, Sendable { public let offset: Int }

    /// Objects and arrays within one another.
    static let greatestDepth = 32

    public init(parsing text: [UInt8]) throws(SyntaxError) {
        var parser = JSONParser(text)
        self = try parser.whole()
    }

    /// An object's member of this name; nil: there is none, or this is no object.
    public subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }

    /// What it is, if it is that.
    public var string: String? { if case .string(let value) = self { value } else { nil } }
    public var number: Int? { if case .number(let value) = self { value } else { nil } }

    /// Without any blank.
    public var text: [UInt8] {
        var bytes: [UInt8] = []
        write(into: &bytes)
        return bytes
    }

    public func write(into bytes: inout [UInt8]) {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .number(let value): bytes += String(value).utf8
        case .string(let value): Self.quote(value, into: &bytes)
        case .array(let elements):
            bytes.append(UInt8(ascii: "["))
            for (index, element) in elements.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                element.write(into: &bytes)
            }
            bytes.append(UInt8(ascii: "]"))
        case .object(let members):
            bytes.append(UInt8(ascii: "{"))
            for (index, member) in members.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                Self.quote(member.name, into: &bytes)
                bytes.append(UInt8(ascii: ":"))
                member.value.write(into: &bytes)
            }
            bytes.append(UInt8(ascii: "}"))
        }
    }

    /// A string in its quotation marks; quotation marks, backslashes and what is hidden (`isHidden`) in it are escaped.
    public static func quote(_ text: String, into bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        if text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
            bytes += text.utf8
        } else {
            for scalar in text.unicodeScalars {
                switch scalar {
                case "\"", "\\": bytes += [UInt8(ascii: "\\"), UInt8(scalar.value)]
                case _ where scalar.isHidden: escape(scalar, into: &bytes)
                default: bytes += UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter
                }
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    /// `\uNNNN`, twice for what has more than 16 bits.
    private static func escape(_ scalar: Unicode.Scalar, into bytes: inout [UInt8]) {
        for unit in UTF16.encode(scalar) ?? UTF16.encodedReplacementCharacter {
            bytes += [UInt8(ascii: "\\"), UInt8(ascii: "u")]
            for shift in [12, 8, 4, 0] as [UInt16] { bytes.append(digits[Int(unit >> shift & 15)]) }
        }
    }

    /// The same text, with what is hidden in its strings escaped: for one that was written by who did not care. Outside of strings nothing is hidden.
    public static func shown(_ text: [UInt8]) -> String {
        var bytes: [UInt8] = []
        for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
            if scalar.isHidden { escape(scalar, into: &bytes) } else { bytes += UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    private static let digits = Array("0123456789abcdef".utf8)

    /// Two lower-case digits for each byte.
    public static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// The bytes of such digits; nil if they are none.
    public static func bytes(hexadecimal text: some Sequence<UInt8>) -> [UInt8]? {
        var nibbles: [UInt8] = []
        for digit in text {
            guard let value = digits.firstIndex(of: digit) else { return nil }
            nibbles.append(UInt8(value))
        }
        guard nibbles.count.isMultiple(of: 2) else { return nil }
        return stride(from: 0, to: nibbles.count, by: 2).map { nibbles[$0] << 4 | nibbles[$0 + 1] }
    }
}

/// Reads one text from its start to its end.
private struct JSONParser {
    private let text: [UInt8]
    private var position = 0
    private var depth = 0

    init(_ text: [UInt8]) { self.text = text }

    private var next: UInt8? { position < text.count ? text[position] : nil }
    private var trouble: JSONValue.SyntaxError { JSONValue.SyntaxError(offset: position) }

    mutating func whole() throws(JSONValue.SyntaxError) -> JSONValue {
        let value = try value()
        skipBlanks()
        guard position == text.count else { throw trouble }
        return value
    }

    private mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d { position += 1 }
    }

    /// Whether this comes next; then it is read.
    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        skipBlanks()
        guard next == UInt8(ascii: character) else { return false }
        position += 1
        return true
    }

    private mutating func value() throws(JSONValue.SyntaxError) -> JSONValue {
        skipBlanks()
        switch next {
        case UInt8(ascii: "{"): return try nested { parser throws(JSONValue.SyntaxError) in .object(try parser.members()) }
        case UInt8(ascii: "["): return try nested { parser throws(JSONValue.SyntaxError) in .array(try parser.elements()) }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return .number(try number())
        }
    }

    private mutating func nested(_ body: (inout Self) throws(JSONValue.SyntaxError) -> JSONValue) throws(JSONValue.SyntaxError) -> JSONValue {
        guard depth < JSONValue.greatestDepth else { throw trouble }
        depth += 1
        position += 1
        let value = try body(&self)
        depth -= 1
        return value
    }

    private mutating func elements() throws(JSONValue.SyntaxError) -> [JSONValue] {
        var elements: [JSONValue] = []
        if take("]") { return elements }
        repeat { elements.append(try value()) } while take(",")
        guard take("]") else { throw trouble }
        return elements
    }

    private mutating func members() throws(JSONValue.SyntaxError) -> [JSONValue.Member] {
        var members: [JSONValue.Member] = []
        var names: Set<String> = []
        if take("}") { return members }
        repeat {
            skipBlanks()
            let name = try string()
            guard names.insert(name).inserted, take(":") else { throw trouble }
            members.append(.init(name, try value()))
        } while take(",")
        guard take("}") else { throw trouble }
        return members
    }

    private mutating func word(_ word: StaticString, _ value: JSONValue) throws(JSONValue.SyntaxError) -> JSONValue {
        let end = position + word.utf8CodeUnitCount
        guard end <= text.count, String(decoding: text[position..<end], as: UTF8.self) == word.description else { throw trouble }
        position = end
        return value
    }

    private mutating func number() throws(JSONValue.SyntaxError) -> Int {
        let start = position
        if next == UInt8(ascii: "-") { position += 1 }
        let digits = position
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
        guard position > digits, position == digits + 1 || text[digits] != UInt8(ascii: "0"),
              let number = Int(String(decoding: text[start..<position], as: UTF8.self))
        else { throw trouble }
        return number
    }

    private mutating func string() throws(JSONValue.SyntaxError) -> String {
        guard next == UInt8(ascii: "\"") else { throw trouble }
        position += 1
        var bytes: [UInt8] = []
        while let byte = next, byte != UInt8(ascii: "\"") {
            guard byte >= 0x20 else { throw trouble }
            position += 1
            if byte == UInt8(ascii: "\\") { bytes += try escaped() } else { bytes.append(byte) }
        }
        guard next != nil, let string = String(validating: bytes, as: UTF8.self) else { throw trouble }
        position += 1
        return string
    }

    private static let escapes: [UInt8: UInt8] = [
        UInt8(ascii: "\""): 0x22, UInt8(ascii: "\\"): 0x5c, UInt8(ascii: "/"): 0x2f, UInt8(ascii: "b"): 0x08, UInt8(ascii: "f"): 0x0c,
        UInt8(ascii: "n"): 0x0a, UInt8(ascii: "r"): 0x0d, UInt8(ascii: "t"): 0x09,
    ]

    /// Behind a backslash. What is beyond 16 bits stands for itself in UTF-8, or as a pair of surrogates.
    private mutating func escaped() throws(JSONValue.SyntaxError) -> [UInt8] {
        guard let kind = next else { throw trouble }
        position += 1
        if let byte = Self.escapes[kind] { return [byte] }
        guard kind == UInt8(ascii: "u") else { throw trouble }
        let first = try unit()
        if let scalar = Unicode.Scalar(first) { return Array(String(Character(scalar)).utf8) }
        // The first of a pair.
        guard UTF16.isLeadSurrogate(first), take(exactly: UInt8(ascii: "\\")), take(exactly: UInt8(ascii: "u")) else { throw trouble }
        let second = try unit()
        guard UTF16.isTrailSurrogate(second) else { throw trouble }
        return Array(String(decoding: [first, second], as: UTF16.self).utf8)
    }

    private mutating func take(exactly byte: UInt8) -> Bool {
        guard next == byte else { return false }
        position += 1
        return true
    }

    /// Four digits.
    private mutating func unit() throws(JSONValue.SyntaxError) -> UInt16 {
        guard position + 4 <= text.count,
              let bytes = JSONValue.bytes(hexadecimal: text[position..<position + 4].map { (0x41...0x46).contains($0) ? $0 | 0x20 : $0 })
        else { throw trouble }
        position += 4
        return UInt16(bytes[0]) << 8 | UInt16(bytes[1])
    }
}
