import Glibc

/// A system call that failed: which, and why.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call, as its manual page names it, with its object where that helps.
    public let call: String
    /// errno.
    public let code: Int32

    public init(_ call: String, _ code: Int32) {
        self.call = call
        self.code = code
    }

    /// Whether it says that the other end of a socket is closed, with or without having read all that was sent to it.
    public var isPeerGone: Bool { code == ECONNRESET || code == EPIPE }

    /// Whether it says that descriptors or memory have run out, which passes.
    public var isShortage: Bool { [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(code) }

    /// What accept(2) says when this process may open no more.
    public static let tooManyFiles = SystemError("accept", EMFILE)

    /// "bind: Address already in use".
    public var description: String { "\(call): \(Self.text(of: code))" }

    /// What the C library says about an errno.
    public static func text(of code: Int32) -> String { unsafe String(cString: strerror(code)) }
}

/// The value of a CLinux call, or its error.
@inline(__always)
public func check<Value: SignedInteger>(_ call: @autoclosure () -> String, _ result: Value) throws(SystemError) -> Value {
    guard result >= 0 else { throw SystemError(call(), Int32(-Int64(result))) }
    return result
}
