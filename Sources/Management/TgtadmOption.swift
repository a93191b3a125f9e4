import Bytes

/// An option of tgtadm, as GNU getopt_long wants it described.
public struct TgtadmOption: Sendable {
    public let letter: UInt8
    public let name: String
    /// Whether `--name` takes an argument.
    public let longTakesArgument: Bool
    /// Whether `-letter` takes one: tgt's `-F` and `-O` do, though `--force` and `--outgoing` don't.
    public let shortTakesArgument: Bool
    /// Ours, not tgt's: there is no `-letter`, which is no letter.
    public var isLongOnly: Bool { letter >= 0x80 }

    private init(_ letter: Unicode.Scalar, _ name: String, long: Bool = true, short: Bool = true) {
        self.letter = UInt8(ascii: letter)
        self.name = name
        longTakesArgument = long
        shortTakesArgument = short
    }

    private init(longOnly letter: UInt8, _ name: String, takesArgument: Bool) {
        self.letter = letter
        self.name = name
        longTakesArgument = takesArgument
        shortTakesArgument = takesArgument
    }

    /// What stands for the options without a letter.
    static let json: UInt8 = 0x80
    static let transaction: UInt8 = 0x81
    static let allowWeak: UInt8 = 0x82
    static let luns: UInt8 = 0x90
    static let passwordFile: UInt8 = 0x91
    static let addSecret: UInt8 = 0x92
    static let retireSecret: UInt8 = 0x93
    static let bits: UInt8 = 0x94
    static let tls: UInt8 = 0x96
    static let tenant: UInt8 = 0xa0
    static let answers: UInt8 = 0xa1

    public static let all: [TgtadmOption] = [
        TgtadmOption("d", "debug", long: false, short: false),
        TgtadmOption("h", "help", long: false, short: false),
        TgtadmOption("V", "version", long: false, short: false),
        TgtadmOption("L", "lld"),
        TgtadmOption("o", "op"),
        TgtadmOption("m", "mode"),
        TgtadmOption("t", "tid"),
        TgtadmOption("s", "sid"),
        TgtadmOption("c", "cid"),
        TgtadmOption("l", "lun"),
        TgtadmOption("n", "name"),
        TgtadmOption("v", "value"),
        TgtadmOption("b", "backing-store"),
        TgtadmOption("E", "bstype"),
        TgtadmOption("S", "bsopts"),
        TgtadmOption("f", "bsoflags"),
        TgtadmOption("y", "blocksize"),
        TgtadmOption("T", "targetname"),
        TgtadmOption("I", "initiator-address"),
        TgtadmOption("Q", "initiator-name"),
        TgtadmOption("u", "user"),
        TgtadmOption("p", "password"),
        TgtadmOption("H", "host"),
        TgtadmOption("B", "bus"),
        TgtadmOption("F", "force", long: false),
        TgtadmOption("P", "params"),
        TgtadmOption("Y", "device-type"),
        TgtadmOption("O", "outgoing", long: false),
        TgtadmOption("C", "control-port"),
        TgtadmOption(longOnly: json, "json", takesArgument: false),
        TgtadmOption(longOnly: transaction, "transaction", takesArgument: true),
        TgtadmOption(longOnly: allowWeak, "allow-weak", takesArgument: false),
        TgtadmOption(longOnly: luns, "luns", takesArgument: true),
        TgtadmOption(longOnly: passwordFile, "password-file", takesArgument: true),
        TgtadmOption(longOnly: addSecret, "add-secret", takesArgument: false),
        TgtadmOption(longOnly: retireSecret, "retire-secret", takesArgument: true),
        TgtadmOption(longOnly: bits, "bits", takesArgument: true),
        TgtadmOption(longOnly: tls, "tls", takesArgument: true),
        TgtadmOption(longOnly: tenant, "tenant", takesArgument: true),
        TgtadmOption(longOnly: answers, "answers", takesArgument: true),
    ]

    /// The words with tgt's long options written out where ours, for getopt_long, have made an abbreviation of one ambiguous: what
    /// tgt's tgtadm takes goes on working.
    /// - Parameter words: behind the program's name
    public static func unabbreviated(_ words: [[UInt8]]) -> [[UInt8]] {
        var words = words
        var index = 0
        while index < words.count {
            defer { index += 1 }
            let word = words[index]
            if word.elementsEqual("--".utf8) { break }
            guard word.starts(with: "--".utf8) else {
                // The last letter of a bundle, if it takes an argument, takes the next word.
                if word.first == UInt8(ascii: "-"), let last = word.dropFirst().firstIndex(where: { letter in all.contains { $0.letter == letter && $0.shortTakesArgument } }),
                    last == word.count - 1 { index += 1 }
                continue
            }
            let name = word.dropFirst(2).prefix { $0 != UInt8(ascii: "=") }
            let meant = all.filter { $0.name.utf8.starts(with: name) }
            let known = meant.filter { !$0.isLongOnly }
            let isExact = meant.contains { name.elementsEqual($0.name.utf8) }
            if !isExact, known.count == 1, meant.count > 1 { words[index] = Array("--\(known[0].name)".utf8) + word.dropFirst(2 + name.count) }
            let option = meant.first { name.elementsEqual($0.name.utf8) } ?? (known.count == 1 ? known[0] : meant.count == 1 ? meant[0] : nil)
            if option?.longTakesArgument == true, word.count == 2 + name.count { index += 1 }
        }
        return words
    }

    /// The short options as getopt_long takes them.
    public static let shortOptions = all.filter { !$0.isLongOnly }.map { String(Unicode.Scalar($0.letter)) + ($0.shortTakesArgument ? ":" : "") }.joined()
}
