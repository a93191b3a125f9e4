import CLinux
import Glibc

/// The right to a file descriptor, and the duty to close it.
public struct FileDescriptor: ~Copyable, Sendable {
    public let rawValue: Int32

    /// Takes over an open descriptor.
    public init(owning rawValue: Int32) {
        precondition(rawValue >= 0)
        self.rawValue = rawValue
    }

    /// Gives the descriptor up without closing it.
    public consuming func release() -> Int32 {
        let value = rawValue
        discard self
        return value
    }

    /// A second descriptor of the same open file.
    public func duplicate() throws(SystemError) -> FileDescriptor { try Self.duplicate(rawValue) }

    /// A second descriptor of the open file behind `descriptor`, which stays its owner's.
    public static func duplicate(_ descriptor: Int32) throws(SystemError) -> FileDescriptor {
        let copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw SystemError("fcntl", errno) }
        return FileDescriptor(owning: copy)
    }

    deinit { close(rawValue) }
}

extension Optional where Wrapped == FileDescriptor {
    /// Its number, while there is one.
    public var rawValue: Int32? {
        switch self {
        case .none: nil
        case .some(let descriptor): descriptor.rawValue
        }
    }
}

/// The descriptors that came with a message, in order. Those that nobody takes are closed.
public struct ReceivedDescriptors: ~Copyable, Sendable {
    private var rest: ArraySlice<Int32>
    /// There were more, but this process may open no more (EMFILE, or the system's ENFILE).
    public let someWereLost: Bool

    /// None.
    public init() { self.init([]) }

    init(_ descriptors: [Int32], someWereLost: Bool = false) {
        rest = descriptors[...]
        self.someWereLost = someWereLost
    }

    /// How many are left.
    public var count: Int { rest.count }

    /// The next one.
    public mutating func take() -> FileDescriptor? { rest.popFirst().map { FileDescriptor(owning: $0) } }

    /// The next `count`, or as many as are left.
    public mutating func take(first count: Int) -> ReceivedDescriptors {
        let first = rest.prefix(count)
        rest = rest.dropFirst(count)
        return ReceivedDescriptors(Array(first), someWereLost: someWereLost && first.count < count)
    }

    deinit { for descriptor in rest { close(descriptor) } }
}
