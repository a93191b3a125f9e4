import CGetopt
import Glibc
import Management

// tgtadm: options through GNU getopt_long, one request over tgt's socket, its answer, an exit code.

/// Ends the program.
func finish(_ end: TgtadmExit) -> Never {
    writeAll(end.output, to: STDOUT_FILENO)
    for line in end.errors { writeAll(Array((line + "\n").utf8), to: STDERR_FILENO) }
    exit(end.code)
}

func writeAll(_ bytes: [UInt8], to descriptor: Int32) {
    var done = 0
    while done < bytes.count {
        let count = unsafe bytes.withUnsafeBytes { unsafe write(descriptor, $0.baseAddress! + done, $0.count - done) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        done += count
    }
}

/// What the command line asks for.
func parseArguments() -> TgtadmCommandLine.Command {
    let names = unsafe TgtadmOption.all.map { unsafe strdup($0.name) }
    var table = unsafe zip(TgtadmOption.all, names).map { known, name in
        unsafe option(name: name, has_arg: known.longTakesArgument ? required_argument : no_argument, flag: nil, val: Int32(known.letter))
    }
    unsafe table.append(option())
    var line = TgtadmCommandLine()
    while true {
        let letter = unsafe getopt_long(CommandLine.argc, CommandLine.unsafeArgv, TgtadmOption.shortOptions, table, nil)
        guard letter >= 0 else { break }
        let argument = unsafe option_argument().map { unsafe bytes($0) }
        if let end = line.take(UInt8(truncatingIfNeeded: letter), argument) { finish(end) }
    }
    let strays = unsafe (Int(option_index())..<Int(CommandLine.argc)).compactMap { unsafe CommandLine.unsafeArgv[$0] }
        .map { unsafe bytes($0) }
    switch line.finish(strays: strays) {
    case .send(let command): return command
    case .exit(let end): finish(end)
    }
}

/// The bytes of a C string without its zero.
func bytes(_ string: UnsafePointer<CChar>) -> [UInt8] {
    unsafe Array(UnsafeRawBufferPointer(start: string, count: strlen(string)))
}

/// A stream to the daemon's socket, or nil.
func connect(to path: [UInt8]) -> Int32? {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let room = MemoryLayout.size(ofValue: address.sun_path)
    guard path.count < room else {
        writeAll(Array("tgtadm: management path too long: ".utf8) + path + Array("\n".utf8), to: STDERR_FILENO)
        return nil
    }
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path) }
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    let result = unsafe withUnsafePointer(to: address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
    guard result == 0 else {
        close(descriptor)
        return nil
    }
    return descriptor
}

/// Sends the whole request; false if the daemon does not take it.
func sendAll(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
    var done = 0
    while done < bytes.count {
        let count = unsafe bytes.withUnsafeBytes { unsafe send(descriptor, $0.baseAddress! + done, $0.count - done, Int32(MSG_NOSIGNAL)) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return false }
        done += count
    }
    return true
}

/// Reads until the answer is whole or the daemon closes.
func receiveReply(from descriptor: Int32) -> TgtadmExit.Reply {
    var decoder = TgtResponseDecoder()
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        if count < 0 { return .reset }
        if count == 0 { return decoder.hasBegun ? .broken : .closed }
        do throws(TgtWireError) {
            if let response = try decoder.feed(buffer.span.extracting(..<count)) { return .response(response) }
        } catch {
            return .broken
        }
    }
}

let command = parseArguments()
let base = unsafe getenv(TgtadmCommandLine.socketVariable).map { unsafe bytes($0) } ?? Array(TgtadmCommandLine.defaultSocket.utf8)
let path = base + Array(".\(command.controlPort)".utf8)

guard let request = command.request.encoded(), let daemon = connect(to: path), sendAll(request, to: daemon) else { finish(.noDaemon) }
if command.isDebugging { writeAll(Array("tgtadm: sent \(request.count) bytes to tgtd\n".utf8), to: STDERR_FILENO) }
let reply = receiveReply(from: daemon)
close(daemon)
if command.endsDaemon(reply) {
    // It answers before it ends: wait until nobody listens any more.
    while let descriptor = connect(to: path) {
        close(descriptor)
        usleep(100_000)
    }
}
finish(TgtadmExit(reply))
