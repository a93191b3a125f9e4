extension Unicode.Scalar {
    /// Whether it is no letter that is seen: a control character of either kind, one that turns the direction of what follows, is invisible, or ends a line.
    /// In a log or at a terminal text with it can pretend to be something else.
    public var isHidden: Bool {
        switch value {
        case ..<0x20, 0x7f...0x9f, 0xad, 0x061c, 0x180e, 0x200b...0x200f, 0x2028...0x202e, 0x2060...0x206f, 0xfeff, 0xfff9...0xfffb, 0xe0000...0xe007f: true
        default: false
        }
    }
}

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
