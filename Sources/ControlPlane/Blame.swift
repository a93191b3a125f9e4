import Door
import Reactor

/// Whom the word of a process that has ended accuses. It may be a lie, the last one of a process that was taken over: it is worth no more than
/// that one source waits, never a session, and not whoever is exempt.
extension Culprit {
    /// By the word of data: the peer of one of its sessions or, where newcomers come to it, too, one of those. No source's word is a TSIH.
    package func peer(in sessions: SessionTable, hasNewcomers: Bool) -> SocketAddress? {
        if let tsih = UInt16(exactly: word) { sessions.records[tsih]?.login.peer } else if hasNewcomers { newcomer } else { nil }
    }

    /// By the word of login, or of data where it meets newcomers: somebody. Control knows none of the connections that have not asked for anything yet,
    /// and whoever has login in its hands turns away whom it likes as it is. The wait before a process is started again bounds how often it accuses
    /// anybody.
    package var newcomer: SocketAddress? { Source(word: word)?.address }
}
