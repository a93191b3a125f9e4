import CGetopt
import Glibc
import Management

/// GNU getopt_long with tgtadm's options. The names in its table stay as long as the program.
@safe struct Options {
    private let table: [option]

    init() {
        unsafe table = TgtadmOption.all.map { known in
            unsafe option(
                name: strdup(known.name), has_arg: known.longTakesArgument ? required_argument : no_argument, flag: nil, val: Int32(known.letter))
        } + [option()]
    }

    /// Takes a command line apart.
    /// - Parameters:
    ///   - count, words: the program's name and the words behind it, as `main` gets them
    ///   - line: takes the options
    /// - Returns: words that belong to no option; or the end
    func take(
        _ count: Int32, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>, _ line: inout TgtadmCommandLine
    ) -> Result<[[UInt8]], TgtadmExit> {
        option_restart()
        while true {
            let letter = unsafe getopt_long(count, words, TgtadmOption.shortOptions, table, nil)
            guard letter >= 0 else { break }
            let argument = unsafe option_argument().map { unsafe bytes($0) }
            if let end = line.take(UInt8(truncatingIfNeeded: letter), argument) { return .failure(end) }
        }
        return unsafe .success((Int(option_index())..<Int(count)).compactMap { unsafe words[$0] }.map { unsafe bytes($0) })
    }

    /// The request of a transaction's line.
    /// - Parameter place: where the line stands
    func request(of line: TransactionText.Line, place: String) -> Result<AdminRequest, TgtadmExit> {
        // getopt_long says itself what it does not know, behind the program's name.
        var words = unsafe ([Array("tgtadm: \(place)".utf8)] + line.words).map { word in
            unsafe (word + [0]).withUnsafeBytes { unsafe strdup($0.assumingMemoryBound(to: CChar.self).baseAddress!) }
        } + [nil]
        defer { for unsafe word in unsafe words { unsafe free(word) } }
        let count = unsafe Int32(words.count - 1)
        var command = TgtadmCommandLine()
        let strays = unsafe words.withUnsafeMutableBufferPointer { unsafe take(count, $0.baseAddress!, &command) }
        return strays.flatMap { command.finishLine(strays: $0) }
    }
}

/// The bytes of a C string without its zero.
func bytes(_ string: UnsafePointer<CChar>) -> [UInt8] {
    unsafe Array(UnsafeRawBufferPointer(start: string, count: strlen(string)))
}
