import Glibc
import Synchronization

@testable import Reactor

struct Unexpected: Error {
    let what: String
}

final class Counter: Sendable {
    private let count = Atomic<Int>(0)
    var value: Int { count.load(ordering: .sequentiallyConsistent) }
    func add(_ number: Int) { count.add(number, ordering: .sequentiallyConsistent) }
}

/// The descriptor of one end of a pipe, closed once.
final class End {
    private var fd: Int32
    init(_ fd: Int32) { self.fd = fd }
    var rawValue: Int32 { fd }
    func take() -> Int32 {
        defer { fd = -1 }
        return fd
    }
    deinit { if fd >= 0 { close(fd) } }
}

func pipe() throws -> (End, End) {
    var ends: [Int32] = [-1, -1]
    guard unsafe Glibc.pipe(&ends) == 0 else { throw SystemError("pipe", errno) }
    return (End(ends[0]), End(ends[1]))
}
