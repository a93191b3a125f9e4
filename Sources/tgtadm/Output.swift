import Glibc
import Management

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

/// A line for those who asked to be told.
func debug(_ isOn: Bool, _ text: String) {
    if isOn { writeAll(Array("tgtadm: \(text)\n".utf8), to: STDERR_FILENO) }
}
