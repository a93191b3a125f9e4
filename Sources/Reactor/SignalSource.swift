import CLinux

/// Signals as events of a loop.
public final class SignalSource: EventHandler {
    private let descriptor: FileDescriptor
    private let handler: (Int32) -> Void

    /// Blocks `signals` in this thread and in those it starts later, and calls `handler` with the number of each that comes.
    /// Make it before the first other thread, or that one takes them.
    public init(_ loop: EventLoop, _ signals: [Int32], handler: @escaping (Int32) -> Void) throws(SystemError) {
        descriptor = FileDescriptor(owning: try unsafe check("signalfd", linux_signalfd(signals, Int32(signals.count))))
        self.handler = handler
        try loop.add(descriptor.rawValue, .readable, self)
    }

    public func ready(_ events: Readiness) {
        while case let signal = linux_signalfd_read(descriptor.rawValue), signal > 0 { handler(signal) }
    }
}
