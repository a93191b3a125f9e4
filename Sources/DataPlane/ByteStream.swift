import Bytes
import Reactor
import TLS

/// The bytes of one connection, in clear or through TLS. It owns the descriptor; one thread at a time uses it.
final class ByteStream: Sendable {
    private let descriptor: OwnedDescriptor
    /// nil: in clear.
    let secure: SecureConnection?
    /// The portal by which it came, while that matters: with TLS.
    let portal: UInt32?

    init(_ descriptor: consuming FileDescriptor) {
        self.descriptor = OwnedDescriptor(descriptor)
        secure = nil
        portal = nil
    }

    /// Accepts the peer's TLS handshake, which has yet to be made.
    init(_ descriptor: consuming FileDescriptor, accepting context: ServerContext, portal: UInt32) {
        self.descriptor = OwnedDescriptor(descriptor)
        self.portal = portal
        secure = SecureConnection(accepting: context, descriptor: self.descriptor.rawValue)
    }

    /// For the event loop, and for whoever wants to see the peer's address. Not to be read or written.
    var number: Int32 { descriptor.rawValue }

    /// Whether what its peer has shown by TLS, if anything, is accepted by `context`.
    func isStillTrusted(by context: ServerContext) -> Bool { secure?.isStillTrusted(by: context) ?? true }

    /// Whether there may be input that the event loop does not tell of: it has left the socket already.
    var holdsInput: Bool { secure.map { !$0.isDrained } ?? false }

    func receive(into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult {
        secure?.receive(into: &array, range) ?? Socket.receive(number, into: &array, range)
    }

    /// Receives into the bytes of `buffer` in `range`, and what comes behind them perhaps into `array` at `behind`.
    func receive(into buffer: Buffer, _ range: Range<Int>, then array: inout [UInt8], _ behind: Range<Int>) -> ReceiveResult {
        secure?.receive(into: buffer, range) ?? Socket.receive(number, into: buffer, range, then: &array, behind)
    }

    /// What `receive` would give; it stays to be received.
    func peek(into array: inout [UInt8], _ range: Range<Int>) -> ReceiveResult {
        secure?.peek(into: &array, range) ?? Socket.peek(number, into: &array, range)
    }

    /// Sends from the front of `queue` what the kernel takes, and takes it out of the queue.
    func send(_ queue: inout OutputQueue) -> SendResult {
        secure?.send(&queue) ?? Socket.send(number, &queue)
    }

    /// Gives the connection up, which is in clear; nil: it is closed. Nobody may use the stream any more.
    func give() -> FileDescriptor? {
        precondition(secure == nil, "TLS stays where its keys are")
        return descriptor.give()
    }

    /// Tells the peer that this is the end, if there is room for it, and closes. Nobody may use it any more.
    func close() {
        secure?.finish()
        descriptor.close()
    }
}
