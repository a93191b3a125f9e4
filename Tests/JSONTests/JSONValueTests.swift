import Bytes
import JSON
import Testing

@Suite("JSON values")
struct JSONValueTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: Array(text.utf8)) }

    @Test("a value is what its text says, and its text says what it is")
    func roundTrip() throws {
        let odd = (0..<0x100).map { Character(Unicode.Scalar(UInt8($0))) }
        let value = JSONValue.object([
            .init("", .null), .init("a\"\\\n\u{7f}é🦊", .array([.bool(true), .bool(false), .number(.min), .number(.max), .number(0), .string(String(odd))])),
            .init("empty", .array([.object([]), .array([]), .string("")])),
        ])
        #expect(try JSONValue(parsing: value.text) == value)
        #expect(value.text.allSatisfy { $0 >= 0x20 && $0 != 0x7f })
    }

    @Test("what a terminal would not show as it is, is escaped, and is read again; in a text of others as well")
    func hidden() throws {
        let odd = "a\u{9b}2J\u{85}\u{ad}\u{200b}\u{202e}\u{2028}\u{2066}\u{feff}\u{e0041}é🦊"
        let text = JSONValue.string(odd).text
        #expect(try JSONValue(parsing: text) == .string(odd))
        let isHidden = String(decoding: text, as: UTF8.self).unicodeScalars.contains { $0.isHidden }
        #expect(!isHidden && String(decoding: text, as: UTF8.self).hasSuffix("\\udb40\\udc41é🦊\""))
        let raw = Array("[\"\(odd)\"]".utf8), shown = JSONValue.shown(raw)
        #expect(!shown.unicodeScalars.contains { $0.isHidden })
        #expect(try JSONValue(parsing: Array(shown.utf8)) == .array([.string(odd)]))
    }

    @Test("blanks and escapes are read as RFC 8259 says")
    func reading() throws {
        #expect(try parse(" { \"a\" :\t[ 1 ,\r\n-2 ] } ") == .object([.init("a", .array([.number(1), .number(-2)]))]))
        #expect(try parse(#""\"\\\/\b\f\n\r\t\u00E9\u00e9""#) == .string("\"\\/\u{8}\u{c}\n\r\téé"))
    }

    @Test("what is no text of ours is refused", arguments: [
        "", " ", "{", "[1", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "{a:1}", "01", "-", "1.5", "1e3", "9223372036854775808", "\"", "\"\\x\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\ud800x\"",
        "\"\\u12", "\"\n\"", "tru", "nul", "1 2", "[1]]", String(repeating: "[", count: 33) + String(repeating: "]", count: 33),
    ])
    func refused(text: String) {
        #expect(throws: JSONValue.SyntaxError.self) { try parse(text) }
    }

    @Test("bytes that are no UTF-8 are no string")
    func noText() {
        #expect(throws: JSONValue.SyntaxError.self) { try JSONValue(parsing: [0x22, 0xff, 0x22]) }
    }

    @Test("depth has a limit, and up to there it counts")
    func depth() throws {
        #expect(try parse(String(repeating: "[", count: 32) + String(repeating: "]", count: 32)) != .null)
    }

    @Test("every byte has its two digits")
    func hexadecimal() {
        let bytes = [UInt8](0...255)
        #expect(JSONValue.bytes(hexadecimal: JSONValue.hexadecimal(bytes).utf8) == bytes)
        for text in ["0", "0g", "AB", "000"] { #expect(JSONValue.bytes(hexadecimal: text.utf8) == nil) }
    }
}
