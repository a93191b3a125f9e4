import Glibc
import Management

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

/// Asks in our own protocol.
enum Native {
    case answer(NativeAnswer)
    case noDaemon
    /// The daemon speaks tgt's protocol, or other versions of ours. It has carried out nothing.
    case notSpoken(ClosedRange<UInt16>?)
    /// The daemon went away before its answer was whole: it may have carried out the request.
    case lost
}

/// - Parameter answerer: who answers what PAM asks
func ask(_ request: [UInt8], at path: [UInt8], _ answerer: Answerer) -> Native {
    guard let daemon = connect(to: path) else { return .noDaemon }
    defer { close(daemon) }
    // No more than this until it is welcome: a daemon that does not know it has nothing to carry out.
    guard sendAll(NativeHello(converses: answerer.isThere).encoded(), to: daemon) else { return .notSpoken(nil) }
    var start: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: NativeWelcome.length)
    while start.count < NativeWelcome.length {
        let count = receive(from: daemon, into: &buffer, atMost: NativeWelcome.length - start.count)
        guard count > 0 else { return .notSpoken(nil) }
        start += buffer[..<count]
    }
    guard let welcome = NativeWelcome(start) else { return .notSpoken(nil) }
    guard welcome.chosen == NativeProtocol.version else { return .notSpoken(welcome.versions) }
    // Whether it takes all of it or not, what it says counts.
    _ = sendAll(request, to: daemon)
    var decoder = NativeAnswerDecoder()
    buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = receive(from: daemon, into: &buffer, atMost: buffer.count)
        guard count > 0 else { return .lost }
        var messages: [NativeMessage] = []
        var answer: NativeAnswer?
        do throws(NativeWireError) { answer = try decoder.feed(buffer.span.extracting(..<count), into: &messages) } catch { return .lost }
        for message in messages {
            guard message.isQuestion else {
                answerer.show(message)
                continue
            }
            guard let reply = NativeMessage.encoded(answer: answerer.answer(message)), sendAll(reply, to: daemon) else {
                finish(TgtadmExit(errors: ["tgtadm: an answer has at most \(NativeMessage.greatestAnswer) bytes"], code: TgtadmExit.invalid))
            }
        }
        if let answer { return .answer(answer) }
    }
}

func receive(from descriptor: Int32, into buffer: inout [UInt8], atMost limit: Int) -> Int {
    while true {
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, min(limit, $0.count)) }
        if count < 0, errno == EINTR { continue }
        return count
    }
}

/// The file's bytes, or standard input's for `-`; nil after saying why not.
/// - Parameter what: it is, for who reads that it is too long
func readAll(_ path: [UInt8], _ what: String, limit: Int) -> [UInt8]? {
    let isInput = path.elementsEqual("-".utf8)
    let descriptor = isInput ? STDIN_FILENO : unsafe (path + [0]).withUnsafeBytes { name in
        unsafe open(name.assumingMemoryBound(to: CChar.self).baseAddress!, O_RDONLY | O_CLOEXEC)
    }
    defer { if !isInput, descriptor >= 0 { close(descriptor) } }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while bytes.count <= limit {
        let count = descriptor < 0 ? -1 : receive(from: descriptor, into: &buffer, atMost: buffer.count)
        guard count > 0 else {
            if count == 0 { return bytes }
            let reason = unsafe String(cString: strerror(errno))
            writeAll(Array("tgtadm: ".utf8) + path + Array(": \(reason)\n".utf8), to: STDERR_FILENO)
            return nil
        }
        bytes += buffer[..<count]
    }
    writeAll(Array("tgtadm: ".utf8) + path + Array(": \(what) has at most \(limit) bytes\n".utf8), to: STDERR_FILENO)
    return nil
}
