import Reactor

/// Something that lives as long as its loop runs, and on its thread alone.
protocol LoopDweller: AnyObject, SendableMetatype {
    var loop: EventLoop { get }
}

extension LoopDweller {
    /// What runs `work` on the loop's thread, from whichever it is called.
    func here<Value: Sendable>(_ work: @escaping @Sendable (Self, Value) -> Void) -> @Sendable (Value) -> Void {
        // The mailbox delivers on the loop's thread only.
        nonisolated(unsafe) let dweller = self
        let mailbox = loop.mailbox
        return { value in mailbox.post { _ in work(unsafe dweller, value) } }
    }

    /// The same of what is told nothing.
    func here(_ work: @escaping @Sendable (Self) -> Void) -> @Sendable () -> Void {
        let run = here { (dweller, _: Void) in work(dweller) }
        return { run(()) }
    }
}
