import Glibc
import Management

func socketPath(_ controlPort: Int) -> [UInt8] {
    let base = unsafe getenv(TgtadmCommandLine.socketVariable).map { unsafe bytes($0) } ?? Array(TgtadmCommandLine.defaultSocket.utf8)
    return base + Array(".\(controlPort)".utf8)
}

/// It answers before it ends: waits until nobody listens any more.
func waitForTheEnd(of path: [UInt8]) {
    while let descriptor = connect(to: path) {
        close(descriptor)
        usleep(100_000)
    }
}

func carryOut(_ command: TgtadmCommandLine.Command) -> Never {
    let path = socketPath(command.controlPort)
    // What is no request is left to the daemon to refuse, in tgt's words.
    for warning in command.warnings { writeAll(Array((warning + "\n").utf8), to: STDERR_FILENO) }
    if let request = command.understood, let bytes = NativeRequest(.single(request), format: command.format).encoded() {
        switch ask(bytes, at: path, Answerer(file: command.answers)) {
        case .answer(let answer):
            debug(command.isDebugging, "sent \(bytes.count) bytes to tgtd")
            if !answer.reason.isEmpty { debug(command.isDebugging, answer.reason) }
            if command.endsDaemon(answer) { waitForTheEnd(of: path) }
            finish(TgtadmExit(answer, format: command.format, tellsReason: command.request == nil))
        case .noDaemon: finish(.noDaemon)
        case .lost: finish(TgtadmExit(.reset))
        case .notSpoken(let versions):
            if case .own(_, let words) = command.content { finish(.notSpoken(words, versions: versions)) }
            if command.format == .json { finish(.notSpoken("--json", versions: versions)) }
            debug(command.isDebugging, "tgtd speaks tgt's protocol")
        }
    }
    guard let request = command.request?.encoded(), let daemon = connect(to: path), sendAll(request, to: daemon) else { finish(.noDaemon) }
    debug(command.isDebugging, "sent \(request.count) bytes to tgtd")
    let reply = receiveReply(from: daemon)
    close(daemon)
    if command.endsDaemon(reply) { waitForTheEnd(of: path) }
    finish(TgtadmExit(reply))
}
