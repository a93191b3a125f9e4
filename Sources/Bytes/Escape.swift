/// Text made of bytes from outside, fit for a log line or a terminal: printable ASCII as it is, everything else and the
/// backslash as `\xNN`; at most `limit` bytes are shown, then `…`.
public func escaped(_ bytes: some Sequence<UInt8>, limit: Int = 256) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    var shown = 0
    for byte in bytes {
        if shown == limit { return String(decoding: text, as: UTF8.self) + "…" }
        shown += 1
        if byte >= 0x20, byte < 0x7f, byte != UInt8(ascii: "\\") {
            text.append(byte)
        } else {
            text += [UInt8(ascii: "\\"), UInt8(ascii: "x"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: text, as: UTF8.self)
}
