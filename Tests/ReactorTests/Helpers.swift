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

/// A descriptor that can be closed early.
final class End {
    private var descriptor: FileDescriptor?
    init(_ descriptor: consuming FileDescriptor) { self.descriptor = consume descriptor }
    var rawValue: Int32 { descriptor.rawValue ?? -1 }
    func close() { descriptor = nil }
}

struct MessageEnds {
    let first: End
    let second: End

    init() throws(SystemError) {
        var other: FileDescriptor?
        first = End(try Socket.messagePair().split(&other))
        guard let end = other.take() else { throw SystemError("socketpair", EBADF) }
        second = End(end)
    }
}

/// The reading end does not wait: what is to be read is there, or never comes.
func pipe() throws -> (End, End) {
    var ends: [Int32] = [-1, -1]
    guard unsafe Glibc.pipe(&ends) == 0 else { throw SystemError("pipe", errno) }
    try Socket.setNonBlocking(ends[0], true)
    return (End(FileDescriptor(owning: ends[0])), End(FileDescriptor(owning: ends[1])))
}
