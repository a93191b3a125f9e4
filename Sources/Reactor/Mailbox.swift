import CLinux
import Synchronization

/// Messages from any thread to the one that runs an event loop (`EventLoop.receive`). A post costs a lock, and a system call
/// only when the mailbox was empty; nothing is allocated in steady state. What may be posted is bounded by the posters: each
/// message answers a task or a connection that has been counted before.
public final class Mailbox<Message: Sendable>: Sendable {
    private let wake: FileDescriptor
    private let pending = Mutex<[Message]>([])

    public init() throws(SystemError) { wake = FileDescriptor(owning: try check("eventfd", linux_eventfd())) }

    /// Leaves `message` for the loop.
    public func post(_ message: Message) {
        let isFirst = pending.withLock { pending in
            pending.append(message)
            return pending.count == 1
        }
        if isFirst { _ = linux_eventfd_signal(wake.rawValue) }
    }

    var descriptor: Int32 { wake.rawValue }

    /// Exchanges what is pending for `batch`, which is empty and keeps its memory.
    func take(_ batch: inout [Message]) {
        _ = linux_eventfd_clear(wake.rawValue)
        pending.withLock { swap(&$0, &batch) }
    }
}

/// The loop's end of a mailbox.
final class MailboxReceiver<Message: Sendable>: EventHandler {
    private let mailbox: Mailbox<Message>
    private let handler: (Message) -> Void
    private var batch: [Message] = []

    init(_ mailbox: Mailbox<Message>, _ handler: @escaping (Message) -> Void) {
        self.mailbox = mailbox
        self.handler = handler
    }

    func ready(_ events: Readiness) {
        mailbox.take(&batch)
        for message in batch { handler(message) }
        batch.removeAll(keepingCapacity: batch.capacity <= EventLoop.keptCapacity)
    }
}
