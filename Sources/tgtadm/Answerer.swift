import Glibc
import Management

/// Who answers what PAM asks: a file's lines, or whoever sits at the terminal.
final class Answerer {
    private var lines: ArraySlice<[UInt8]>?
    private let terminal: Int32

    /// - Parameter file: `-` is standard input; nil: the terminal, if there is one
    init(file: [UInt8]?) {
        if let file {
            guard let bytes = readAll(file, "a file of answers", limit: Self.greatestFile) else { finish(TgtadmExit(code: TgtadmExit.invalid)) }
            lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { Array($0) }[...]
            terminal = -1
        } else {
            terminal = unsafe open("/dev/tty", O_RDWR | O_CLOEXEC)
        }
    }

    private static let greatestFile = 64 << 10

    /// Whether there is anybody.
    var isThere: Bool { lines != nil || terminal >= 0 }

    func show(_ message: NativeMessage) { writeAll(message.shown + Array("\n".utf8), to: STDERR_FILENO) }

    /// Ends the program if there is no answer.
    func answer(_ message: NativeMessage) -> [UInt8] {
        guard lines != nil else { return typed(message.shown, at: terminal, isSecret: message.style == .secret) }
        guard let line = lines?.popFirst() else { finish(TgtadmExit(errors: ["tgtadm: there is no answer left for a question"], code: TgtadmExit.invalid)) }
        return line
    }
}
