import Bytes

/// Bounds of what one session may hold and make others wait for.
///
/// All of it together: the `shareOfMemory` of the memory for data, or what one command needs if that is more, and 8 MiB beside: answers and headers
/// (`unsentBeforeAnswersWait`, `unsentBeforeInputStops`), PDUs out of order (`FullFeatureLimits.heldBytes`), input that cannot be worked on yet,
/// text, pings, and what each task takes. An idle one holds some 10 KiB.
public enum SessionLimits {
    /// Nanoseconds in a second: the unit of `now` everywhere in this room.
    public static let second: UInt64 = 1_000_000_000

    /// How long a command may wait for memory, in nanoseconds. Then it is answered BUSY: initiators give a command 30 s or
    /// more, so that a later answer would reach nobody.
    public static let memoryWait = 30 * second

    /// How long a peer may leave answers unread while they hold buffers, or are as many as may wait, in nanoseconds. Then the
    /// connection is closed: the memory is everybody's.
    public static let outputStall = 60 * second

    /// How long a peer may be silent while writes of it hold buffers for data that have not come, in nanoseconds. Then the
    /// connection is closed, for the same reason.
    public static let inputStall = 60 * second

    /// Bytes of answers that wait to be sent, from which on nothing more is read from the connection. Small answers (status,
    /// NOP-In, text) come from a pool of their own, and this is what bounds it.
    public static let unsentBeforeInputStops = 1 << 20

    /// Bytes of input that are worked on before it is asked again whether too many answers wait.
    static let inputPiece = 64 << 10

    /// Bytes of answers that wait to be sent, from which on tasks that are done keep their answers back. Bounds the headers of
    /// Data-In PDUs, which a peer with a small MaxRecvDataSegmentLength can make many.
    public static let unsentBeforeAnswersWait = 4 << 20

    /// Bytes of buffers that a session which works keeps from one command to the next, while there is memory in plenty. It gives them back
    /// at the first tick at which it has been idle for a second, or memory is not in plenty any more.
    public static let spareMemory = 256 << 10

    /// Task management functions of one session that wait for tasks to leave the store. One more is rejected (RFC 7143
    /// §11.6.1, response 255). Initiators send one after the other.
    public static let pendingFunctions = 16

    /// The part of the memory for data that one session may hold, data on their way to it included: one that reads no answers keeps
    /// so much from the others until `outputStall`. A single command may have more.
    public static let shareOfMemory = 32

    /// Seconds between pings and pings without an answer, when nothing else has been set: off, as with tgt.
    public static let nopInterval: UInt32 = 0
    public static let nopCount: UInt32 = 0
}
