import CLinux

/// Signals as events of a loop.
public final class SignalSource: EventHandler {
    private let descriptor: FileDescriptor
    private let handler: (ReceivedSignal) -> Void

    /// Blocks `signals` in this thread and in those it starts later, and calls `handler` with each that comes.
    /// Make it before the first other thread, or that one takes them.
    public init(_ loop: EventLoop, _ signals: [Int32], handler: @escaping (ReceivedSignal) -> Void) throws(SystemError) {
        descriptor = FileDescriptor(owning: try unsafe check("signalfd", linux_signalfd(signals, Int32(signals.count))))
        self.handler = handler
        try loop.add(descriptor.rawValue, .readable, self)
    }

    public func ready(_ events: Readiness) {
        var received = ReceivedSignal(number: 0, pid: 0, uid: 0)
        while true {
            received.number = unsafe linux_signalfd_read(descriptor.rawValue, &received.pid, &received.uid)
            guard received.number > 0 else { return }
            handler(received)
        }
    }
}

/// A signal, and who has sent it, as the kernel says.
public struct ReceivedSignal: Hashable, Sendable {
    public var number: Int32
    /// Of the process, as we see it; 0: the kernel, or one outside of our namespace.
    public var pid: Int32
    public var uid: UInt32
}
