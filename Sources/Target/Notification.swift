import SCSI

/// Holds an answer back until everybody who has been asked has let go: each keeps a reference, and the last one to drop it
/// carries out what waits. So a session that ends, or a message that reaches nobody, never leaves another one waiting.
public final class Acknowledgement: Sendable {
    private let whenAllLetGo: @Sendable () -> Void

    /// - Parameter whenAllLetGo: called once, from the thread of whoever lets go last. It posts; it does not call back.
    public init(_ whenAllLetGo: @escaping @Sendable () -> Void) { self.whenAllLetGo = whenAllLetGo }

    deinit { whenAllLetGo() }
}

/// Why a session ends.
public enum EndReason: Hashable, Sendable {
    /// The peer has closed the connection, or it broke.
    case connectionLost
    /// The initiator has logged out (RFC 7143 §11.14).
    case loggedOut
    /// The same initiator port has logged in again (RFC 7143 §6.3.5).
    case reinstated
    /// An administrator, or a change of rules, has ended it.
    case administrator
    /// TARGET COLD RESET (RFC 7143 §11.5.1).
    case targetReset
    /// What was sent breaks the protocol; the text says how.
    case protocolError(String)
    /// `nopCount` pings in a row had no answer.
    case pingTimeout
    /// Data of writes did not come for `SessionLimits.inputStall`.
    case inputStalled
    /// Answers were not read for `SessionLimits.outputStall`.
    case outputStalled
    /// What the initiator has shown about itself is not trusted any more.
    case distrusted
}

/// What sessions tell each other, whichever reactors they live on.
public enum Notification: Sendable {
    /// Logical units came or went: tasks on those that went are ended. Let go when none is in the store any more.
    case logicalUnitsChanged(Acknowledgement)
    /// `unit` has another medium, or none: let go of the old one. Commands that have begun hold it until they are over.
    case mediumChanged(LogicalUnit)
    /// Abort all tasks on `unit`. Let go when none is in the store any more. `clearedByAnother`: the initiator is to learn it by
    /// COMMANDS CLEARED BY ANOTHER INITIATOR (SPC-4 §5.13.11.2.7); after a reset another unit attention tells it.
    case abortTasks(unit: LogicalUnit, clearedByAnother: Bool, Acknowledgement)
    /// Abort all tasks on these: they are reset. `endsSessions`: the session ends then.
    case targetReset(Set<LogicalUnit>, endsSessions: Bool, Acknowledgement)
    /// What the session may see and write has changed. Let go when nothing that it may not do any more is in the store.
    case maskChanged(LUNMask, Acknowledgement)
    /// End. Let go when nothing of the session is left in the store.
    case end(EndReason, Acknowledgement)
    /// To the session itself: all others have let go of the wait with this number.
    case othersLetGo(UInt64)
}

/// How to reach a session from anywhere.
public struct SessionHandle: Sendable {
    public let nexus: NexusID
    public let name: NexusName
    /// What it may see and write.
    public internal(set) var mask = LUNMask.all
    /// Posts to the mailbox of the session's reactor, which calls `Session.notified`. It must not call the session itself.
    public let deliver: @Sendable (Notification) -> Void

    public init(nexus: NexusID, _ name: NexusName, deliver: @escaping @Sendable (Notification) -> Void) {
        self.nexus = nexus
        self.name = name
        self.deliver = deliver
    }
}
