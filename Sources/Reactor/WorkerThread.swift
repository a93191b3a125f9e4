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

    /// Calls this thread so from now on.
    static func rename(_ name: String) { _ = unsafe linux_set_thread_name(name) }

    /// Waits until the thread has ended. Once, and not from the thread itself.
    public func join() { _ = pthread_join(thread, nil) }
}

/// A thread that runs an event loop; or two, of which one runs it and the other stands by (`Relief`).
public final class LoopThread: Sendable {
    /// Reaches the loop from any thread.
    public let mailbox: Mailbox<@Sendable (EventLoop) -> Void>
    private let threads: [WorkerThread]

    /// Makes a loop and starts a thread that calls `setUp` with it and runs it until `stop`.
    ///
    /// - Parameters:
    ///   - relief: for a loop with detours: a second thread is started to stand by
    ///   - enter: called first on each of the threads
    public init(
        name: String, relief: Relief? = nil, enter: @escaping @Sendable () -> Void = {}, setUp: @escaping @Sendable (EventLoop) -> Void
    ) throws(SystemError) {
        let loop = try EventLoop()
        mailbox = loop.mailbox
        // The loop has one user at a time: this thread until here, the new one from now on, and who relieves it.
        nonisolated(unsafe) let handedOver = loop
        var threads = [
            try WorkerThread(name: name) {
                enter()
                let loop = unsafe handedOver
                setUp(loop)
                Self.serve(loop, name, relief)
            }
        ]
        if let relief {
            threads.append(
                try WorkerThread(name: relief.name) {
                    enter()
                    if relief.standBy() { Self.serve(unsafe handedOver, name, relief) }
                })
        }
        self.threads = threads
    }

    /// Runs the loop whenever it is this thread's.
    private static func serve(_ loop: EventLoop, _ name: String, _ relief: Relief?) {
        WorkerThread.rename(name)
        while !loop.run() {
            guard let relief else { preconditionFailure("a loop is lost to who relieves its thread") }
            WorkerThread.rename(relief.name)
            guard relief.standBy() else { return }
            WorkerThread.rename(name)
        }
        relief?.stop()
    }

    /// Ends the loop after its present turn.
    public func stop() { mailbox.post { $0.stop() } }

    /// Waits until its threads have ended. Once, and not from one of them.
    public func join() { for thread in threads { thread.join() } }
}
