import CLinux
import Glibc

/// A thread of the system.
public final class WorkerThread: Sendable {
    private let thread: pthread_t

    private final class Start {
        let name: String
        let body: @Sendable () -> Void
        init(_ name: String, _ body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Starts a thread that runs `body` and ends with it. It inherits the blocked signals of this thread.
    ///
    /// - Parameter name: shown by ps and debuggers, at most 15 bytes of it.
    public init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let start = unsafe Unmanaged.passRetained(Start(name, body))
        var thread = pthread_t()
        let error = unsafe pthread_create(&thread, nil, { argument in
            let start = unsafe Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
            _ = unsafe linux_set_thread_name(start.name)
            start.body()
            return nil
        }, start.toOpaque())
        guard error == 0 else {
            unsafe start.release()
            throw SystemError("pthread_create", error)
        }
        self.thread = thread
    }

    /// Waits until the thread has ended. Once, and not from the thread itself.
    public func join() { _ = pthread_join(thread, nil) }
}

/// A thread that runs an event loop.
public final class LoopThread: Sendable {
    /// Reaches the loop from any thread.
    public let mailbox: Mailbox<@Sendable (EventLoop) -> Void>
    private let thread: WorkerThread

    /// Makes a loop and starts a thread that calls `setUp` with it and runs it until `stop`.
    public init(name: String, setUp: @escaping @Sendable (EventLoop) -> Void) throws(SystemError) {
        let loop = try EventLoop()
        mailbox = loop.mailbox
        // The loop has one user at a time: this thread until here, the new one from now on.
        nonisolated(unsafe) let handedOver = loop
        thread = try WorkerThread(name: name) {
            let loop = unsafe handedOver
            setUp(loop)
            loop.run()
        }
    }

    /// Ends the loop after its present turn.
    public func stop() { mailbox.post { $0.stop() } }

    /// Waits until the thread has ended. Once, and not from the thread itself.
    public func join() { thread.join() }
}
