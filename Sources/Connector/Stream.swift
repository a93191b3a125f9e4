import Bytes
import Reactor

/// How far the making of a connection has come.
enum Greeting {
    /// It stands; in what way, for the log.
    case done(String)
    /// The next step when the descriptor is readable, or writable.
    case wantsInput, wantsOutput
    /// It will not stand, and why.
    case failed(String)
}

/// A connection as a relay sees it: bytes that come and go, without waiting.
protocol Stream: AnyObject {
    /// The next step of what has to happen before bytes can go.
    func greet() -> Greeting
    /// Receives into `buffer`, as much as there is and fits.
    func receive(into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult
    /// Sends from the front of `queue`, and takes what was sent out of it.
    func send(_ queue: inout OutputQueue) -> SendResult
    /// Tells the other side that nothing more comes from here; receiving goes on.
    func finish()
    /// false: there is more to receive than epoll knows of.
    var isDrained: Bool { get }
    /// Why it ended, if the other side has said so.
    var complaint: String? { get }
}

/// A TCP connection as it is.
final class ClearStream: Stream {
    private let descriptor: Int32

    /// - Parameter descriptor: stays its owner's
    init(_ descriptor: Int32) { self.descriptor = descriptor }

    func greet() -> Greeting { .done("clear") }
    func receive(into buffer: Buffer, _ range: Range<Int>) -> ReceiveResult { Socket.receive(descriptor, into: buffer, range) }
    func send(_ queue: inout OutputQueue) -> SendResult { Socket.send(descriptor, &queue) }
    func finish() { Socket.finishSending(descriptor) }
    var isDrained: Bool { true }
    var complaint: String? { nil }
}
