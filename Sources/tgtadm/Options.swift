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
    ///   - program: what getopt_long says its complaints behind
    ///   - line: takes the options
    /// - Returns: words that belong to no option; or the end
    func take(_ program: [UInt8], _ words: [[UInt8]], _ line: inout TgtadmCommandLine) -> Result<[[UInt8]], TgtadmExit> {
        // getopt_long moves the pointers about.
        let strings = unsafe ([program] + TgtadmOption.unabbreviated(words)).map { word in
            unsafe (word + [0]).withUnsafeBytes { unsafe strdup($0.assumingMemoryBound(to: CChar.self).baseAddress!) }
        }
        defer { for unsafe string in unsafe strings { unsafe free(string) } }
        var pointers = unsafe strings + [nil]
        return unsafe pointers.withUnsafeMutableBufferPointer { unsafe take(Int32($0.count - 1), $0.baseAddress!, &line) }
    }

    private func take(
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
        var command = TgtadmCommandLine()
        return take(Array("tgtadm: \(place)".utf8), line.words, &command).flatMap { strays in
            if case .needsSecret(.file(let path)) = command.finish(strays: strays) { command.supply(secret: secret(inFile: path)) }
            return command.finishLine(strays: strays)
        }
    }
}

/// The bytes of a C string without its zero.
func bytes(_ string: UnsafePointer<CChar>) -> [UInt8] {
    unsafe Array(UnsafeRawBufferPointer(start: string, count: strlen(string)))
}
