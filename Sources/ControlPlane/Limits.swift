import Door
import ISCSI
import Management

/// Everything has a limit. These are the ones that an administrator may meet and set (`limits:` in the settings); `tgtadm --mode system
/// --op show` shows them, `policy/tgtd.yaml` says them again. Those that a protocol or an implementation needs are with the room
/// that keeps them: `NewcomerLimits`, `HandshakeLimits`, `DoorLimits`, `SessionLimits`, `FullFeatureLimits`, `ChannelLimits`, `OpeningLimits`, `SupervisionLimits`,
/// `ControlLimits`, `ManagementLimits`, `PeerLimits`, `AdministratorLimits`, `RefusedLimits`, `AuditLimits`, `RecordLimits`.
public struct Limits: Sendable, Equatable {
    public var unauthenticatedConnections = 1024
    public var unauthenticatedConnectionsPerSource = 512
    public var sessionsPerTarget = 1024
    public var managementConnections = 256
    public var managementConnectionsPerUser = 64
    public var managementIdleSeconds = 10

    public init() {}

    /// One limit: what it is called in the settings and in reports, what it may be, why it is there and what happens at it.
    struct Row: Sendable {
        let name: String
        let value: WritableKeyPath<Limits, Int> & Sendable
        let range: ClosedRange<Int>
        let reason: String
    }

    static let rows = [
        Row(
            name: "unauthenticated-connections", value: \.unauthenticatedConnections, range: 1...LoginDesk.mostApplicants,
            reason: "Connections that have not logged in, and discovery sessions: they are free for everybody. One more takes the place of the "
                + "oldest one of the source that has most, so that quiet sources get in. A source is an IPv4 address, or the /64 of an IPv6 address."),
        Row(
            name: "unauthenticated-connections-per-source", value: \.unauthenticatedConnectionsPerSource, range: 1...LoginDesk.mostApplicants,
            reason: "The same from one source: a hypervisor that connects the disks of all its guests at once. One more is closed at once."),
        Row(
            name: "sessions-per-target", value: \.sessionsPerTarget, range: 1...SessionTable.most,
            reason: "All hosts of a cluster over several paths each. One more login is answered 0302, out of resources; an initiator that "
                + "takes the place of its own session is no more."),
        Row(
            name: "management-connections", value: \.managementConnections, range: 1...4096,
            reason: "Administrators and their scripts at one time. One more takes the place of the one that has let us wait for its request "
                + "longest, of the user who has most; if none of his does, of who has next most; if nobody's does, it is closed."),
        Row(
            name: "management-connections-per-user", value: \.managementConnectionsPerUser, range: 1...4096,
            reason: "The same of one user: room for the others."),
        Row(
            name: "management-idle-seconds", value: \.managementIdleSeconds, range: 1...3600,
            reason: "Time for a whole request to come, and for its answer to be taken. Then the connection is closed: nobody waits for it."),
    ]

    /// Descriptors of a process for other things than connections: portals, doors, what it waits with, disks.
    private static let otherDescriptors = 128

    /// Descriptors that management connections leave to logins: as many as both doors by which these come may bring in one turn. A connection
    /// comes with the questions about it, the last one included; what cannot be opened here then is lost without a word.
    private static let descriptorsForLogins = 2 * DoorLimits.messagesPerTurn

    /// The number below which management connections have their descriptors: all but those for logins, or but a quarter where there are few. A
    /// new descriptor gets the lowest number that is free, so where they stay below it nothing that lasts is above.
    /// - Parameter descriptors: that the process may open
    static func descriptorsForManagement(of descriptors: Int) -> Int { descriptors - min(descriptorsForLogins, descriptors / 4) }

    /// What is wrong if a process may open no more than so many descriptors; nil: these limits can be reached.
    /// - Parameter descriptors: the hard limit of open files
    func shortage(of descriptors: Int) -> String? {
        // A management connection comes with a descriptor of its peer.
        let needed = max(unauthenticatedConnections, sessionsPerTarget, 2 * managementConnections) + Self.otherDescriptors
        guard descriptors < needed else { return nil }
        return "each process may open \(descriptors) files and the limits need \(needed): raise the hard limit of open files (LimitNOFILE= of the service, "
            + "ulimit -Hn) or set lower limits; until then newcomers wait or are refused when files run out"
    }

    /// For reports: these, and those that are set elsewhere or cannot be set.
    func shown(memory: Int) -> [(name: String, value: String)] {
        Self.rows.map { ($0.name, String(self[keyPath: $0.value])) } + [
            ("sessions", String(SessionTable.most)),
            ("connections-per-session", "1"),
            // The target's own MaxQueueCmd goes before it.
            ("tasks-per-session", String(SessionParameters().maxQueueCmd)),
            ("memory", String(memory)),
            ("management-request-bytes", String(TgtRequest.greatestLength)),
            ("transaction-bytes", String(NativeProtocol.greatestRequest)),
            ("transaction-requests", String(NativeProtocol.greatestTransaction)),
            ("management-held-bytes", String(ManagementLimits.heldBytes)),
        ]
    }
}
