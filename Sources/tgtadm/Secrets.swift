import Glibc
import Management

/// The options' end; a secret that is not among them is read first.
func finish(_ line: inout TgtadmCommandLine, _ strays: [[UInt8]]) -> TgtadmCommandLine.Outcome {
    switch line.finish(strays: strays) {
    case .needsSecret(.file(let path)): line.supply(secret: secret(inFile: path))
    case .needsSecret(.terminal(let user, let end)):
        guard isatty(STDIN_FILENO) == 1 else { finish(end) }
        let secret = askForSecret("Secret of \(user): ")
        guard secret == askForSecret("Again: ") else { finish(TgtadmExit(errors: ["tgtadm: these are two different secrets"], code: TgtadmExit.invalid)) }
        line.supply(secret: secret)
    case let outcome: return outcome
    }
    return line.finish(strays: strays)
}

/// Ends the program if it cannot be read.
func secret(inFile path: [UInt8]) -> [UInt8] {
    guard let bytes = readAll(path, "a secret's file", limit: TgtadmCommandLine.greatestSecretFile) else { finish(TgtadmExit(code: TgtadmExit.invalid)) }
    return TgtadmCommandLine.secret(fromFile: bytes)
}

private func askForSecret(_ question: String) -> [UInt8] { typed(Array(question.utf8), at: STDIN_FILENO, isSecret: true) }

/// A line from the terminal, which does not show a secret one. It has no signals meanwhile: an interrupt ends the program when it shows again.
func typed(_ question: [UInt8], at terminal: Int32, isSecret: Bool) -> [UInt8] {
    var old = termios()
    guard unsafe tcgetattr(terminal, &old) == 0 else { finish(TgtadmExit(errors: ["tgtadm: the terminal does not answer"], code: TgtadmExit.invalid)) }
    var silent = old
    silent.c_lflag &= ~tcflag_t((isSecret ? ECHO : 0) | ISIG)
    unsafe tcsetattr(terminal, TCSAFLUSH, &silent)
    writeAll(question, to: STDERR_FILENO)
    var bytes = [UInt8](repeating: 0, count: TgtadmCommandLine.greatestSecretFile)
    let count = receive(from: terminal, into: &bytes, atMost: bytes.count)
    if isSecret { writeAll([UInt8(ascii: "\n")], to: STDERR_FILENO) }
    unsafe tcsetattr(terminal, TCSAFLUSH, &old)
    let line = bytes.prefix(max(0, count))
    let interrupts = [old.c_cc.0, old.c_cc.1]
    guard count > 0, !line.contains(where: interrupts.contains) else { finish(TgtadmExit(code: 130)) }
    return TgtadmCommandLine.secret(fromFile: Array(line))
}
