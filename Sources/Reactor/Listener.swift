/// Accepts connections on an event loop. When descriptors or memory run out it rests for a while instead of spinning, and
/// says so once per shortage.
public final class Listener: EventHandler {
    /// Connections accepted before others get their turn.
    static let mostPerTurn = 64

    private let loop: EventLoop
    private let descriptor: FileDescriptor
    private let onConnection: (consuming FileDescriptor, SocketAddress?) -> Void
    private let onTrouble: (SystemError) -> Void
    private var pause: TimerID?
    private var isShort = false
    private var isClosed = false

    /// - Parameters:
    ///   - descriptor: a non-blocking listener
    ///   - onConnection: gets each connection, with the peer's address unless it is AF_UNIX
    ///   - onTrouble: told of a shortage when it begins, and of errors of the listener itself
    public init(
        _ loop: EventLoop, _ descriptor: consuming FileDescriptor,
        onConnection: @escaping (consuming FileDescriptor, SocketAddress?) -> Void, onTrouble: @escaping (SystemError) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.descriptor = descriptor
        self.onConnection = onConnection
        self.onTrouble = onTrouble
        try loop.add(self.descriptor.rawValue, .readable, self)
    }

    /// The listening descriptor, which stays the listener's.
    public var fd: Int32 { descriptor.rawValue }

    public func ready(_ events: Readiness) {
        for _ in 0..<Self.mostPerTurn where !isClosed && pause == nil {
            do throws(SystemError) {
                switch try Socket.accept(fd) {
                case .connection(let connection, let peer):
                    onConnection(connection, peer)
                    if pause == nil { isShort = false }
                case .none: return
                case .exhausted(let error): return rest(for: error)
                }
            } catch {
                onTrouble(error)
                return rest()
            }
        }
    }

    /// Accepts nothing for a while, because what a connection needs has run out.
    public func rest(for shortage: SystemError) {
        if !isShort { onTrouble(shortage) }
        isShort = true
        rest()
    }

    private func rest() {
        guard !isClosed, pause == nil else { return }
        loop.remove(fd)
        pause = loop.after(nanoseconds: Socket.exhaustedPause) { [unowned self] in
            pause = nil
            do throws(SystemError) { try loop.add(fd, .readable, self) } catch { rest() }
        }
    }

    /// Accepts no more. The descriptor is closed when the listener goes.
    public func close() {
        guard !isClosed else { return }
        isClosed = true
        loop.remove(fd)
        if let pause { loop.cancel(pause) }
        pause = nil
    }

    // The loop holds the listener while it is watched, and a pause only refers to it.
    deinit { if let pause { loop.cancel(pause) } }
}
