import Door
import Reactor

/// One of our own processes in another role, from its start until it is reaped, with our end of its door. The loop keeps it meanwhile.
final class DoorProcess<Incoming: DoorMessage, Outgoing: DoorMessage>: EventHandler {
    private let loop: EventLoop
    private let child: ChildProcess
    private let link: DoorLink<Incoming, Outgoing>
    private let onEnd: (ChildProcess.End) -> Void

    var pid: Int32 { child.pid }

    /// Starts tgtd in another role, with its end of the door and nothing else. If that fails, nothing of it is left.
    /// - Parameters:
    ///   - page: where it notes whose bytes it works on; stays the caller's
    ///   - onShut: its door is shut by the other side or for its fault
    ///   - onEnd: it has ended and is reaped: its descriptors are closed, its operations over
    init(
        _ role: Role, options: [String] = [], page: WorkPage? = nil, loop: EventLoop, onMessage: @escaping (Incoming, inout ReceivedDescriptors) -> Void,
        onShut: @escaping (DoorEnd) -> Void, onEnd: @escaping (ChildProcess.End) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.onEnd = onEnd
        var theirs: FileDescriptor?
        let ours = try Socket.messagePair().split(&theirs)
        link = try DoorLink(loop: loop, socket: ours, onMessage: onMessage, onEnd: onShut)
        // A trap prints no memory: it may be a peer's data.
        let passed = ["JOURNAL_STREAM", "TZ"].compactMap { name in Host.environment(name).map { "\(name)=\($0)" } }
        do throws(SystemError) {
            child = try ChildProcess(
                arguments: ["tgtd", "--role", role.rawValue, "--parent", "\(Host.processID)"] + options,
                environment: ["SWIFT_BACKTRACE=enable=no"] + passed, descriptors: [theirs.rawValue ?? -1] + (page.map { [$0.descriptor] } ?? []))
        } catch {
            link.close()
            throw error
        }
        do throws(SystemError) {
            try loop.add(child.descriptor, .readable, self)
        } catch {
            link.close()
            child.send(signal: Signal.kill)
            // It has not been asked for anything that could hold it up.
            _ = child.wait(nanoseconds: .max)
            throw error
        }
    }

    func send(_ message: Outgoing, passing descriptor: Int32? = nil) { link.send(message, passing: descriptor) }

    func send(_ message: Outgoing, giving descriptor: consuming FileDescriptor?) { link.send(message, giving: descriptor) }

    /// Shuts the door: a process that waits for a message ends.
    func shut() { link.close() }

    /// Ends it whatever it does.
    func kill() { child.send(signal: Signal.kill) }

    /// Ends it, and all that it has started.
    func killAll() { child.killAll() }

    func ready(_ events: Readiness) {
        guard let end = child.reap() else { return }
        loop.remove(child.descriptor)
        link.close()
        onEnd(end)
    }
}
