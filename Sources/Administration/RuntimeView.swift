import Bytes
import ISCSI
import JSON
import Model

/// What is going on at this moment, as control knows it from its own records and from the other processes.
public struct RuntimeView: Sendable {
    /// Normal sessions in the order of their logins.
    public var sessions: [Session] = []
    /// Of logical units that are served; a missing one is idle.
    public var logicalUnits: [LogicalUnitKey: LogicalUnitCondition] = [:]
    /// What commands each session has had at each logical unit; a missing one has had none.
    public var statistics: [Statistics] = []
    /// A missing one is open, and has nothing that ends.
    public var portals: [PortalAddress: PortalCondition] = [:]
    /// Limits of this daemon, for `show system`: name and value in the order to be shown.
    public var limits: [(name: String, value: String)] = []
    /// Why no change is taken: one that was made could not be kept. nil: changes are taken.
    public var hindrance: String?

    /// nil: nothing is known of that, and nothing said.
    public var penalties: Penalties?
    /// nil: no audit trail is kept, or nothing is said of it.
    public var audit: Audit?

    public init() {}

    /// Where it is written down who did what, and whether it can be.
    public struct Audit: Sendable {
        public var directory: String
        /// Why what administrators do cannot be written down as it should; nil: it can.
        public var trouble: String?
        /// The same of what comes from the network.
        public var networkTrouble: String?
        public init(directory: String, trouble: String? = nil, networkTrouble: String? = nil) {
            self.directory = directory
            self.trouble = trouble
            self.networkTrouble = networkTrouble
        }
    }

    /// Who has to wait after failures to log in.
    public struct Penalties: Sendable {
        /// The longest first. There may be very many, and few ask.
        public var waiting: @Sendable () -> [(source: String, secondsLeft: UInt64)] = { [] }
        /// Sources that have failed not long ago, waiting or not.
        public var remembered = 0
        /// Since the daemon has started: connections not accepted, answers not looked at.
        public var refusedConnections: UInt64 = 0
        public var refusedAnswers: UInt64 = 0
        public init() {}
    }

    public struct Session: Sendable {
        public var target: TargetID
        /// RFC 7143 §11.12.6; the `sid` of tgtadm.
        public var tsih: UInt16
        public var initiatorName: ISCSIName
        /// InitiatorAlias as it came: bytes from outside.
        public var initiatorAlias: [UInt8]?
        public var connections: [Connection]
        /// How its initiator has proved who it is; nil: not at all.
        public var authentication: Authentication?
        /// What TLS does for it; nil: it is in clear.
        public var protection: Protection?

        public init(target: TargetID, tsih: UInt16, initiatorName: ISCSIName, initiatorAlias: [UInt8]? = nil, connections: [Connection]) {
            self.target = target
            self.tsih = tsih
            self.initiatorName = initiatorName
            self.initiatorAlias = initiatorAlias
            self.connections = connections
        }
    }

    public struct Authentication: Sendable {
        public var account: AccountName
        public var algorithm: CHAPAlgorithm
        public var isMutual: Bool
        /// Whether whoever overheard it may try secrets at a great rate.
        public var isMD5InClear: Bool

        public init(account: AccountName, algorithm: CHAPAlgorithm, isMutual: Bool, isMD5InClear: Bool) {
            self.account = account
            self.algorithm = algorithm
            self.isMutual = isMutual
            self.isMD5InClear = isMD5InClear
        }
    }

    /// What TLS does for a session, and what its initiator has shown by it.
    public struct Protection: Sendable, CustomStringConvertible {
        public enum Shown: Sendable {
            case nothing
            /// - Parameter fingerprint: SHA-256 of the certificate
            case certificate(fingerprint: [UInt8])
            /// - Parameter identity: bytes from outside
            case preSharedKey(identity: [UInt8])
        }

        public var version: String
        public var cipher: String
        /// Whether the kernel encrypts what is sent.
        public var isByKernel: Bool
        public var shown: Shown
        /// The initiator that it proves to be; nil: the portal does not ask.
        public var provenName: ISCSIName?

        public init(version: String, cipher: String, isByKernel: Bool, shown: Shown, provenName: ISCSIName?) {
            self.version = version
            self.cipher = cipher
            self.isByKernel = isByKernel
            self.shown = shown
            self.provenName = provenName
        }

        /// For people; what came from outside is escaped.
        public var description: String {
            let way = "\(version) \(cipher)\(isByKernel ? " (kernel)" : "")"
            return switch shown {
            case .nothing: way
            case .certificate(let fingerprint): "\(way), certificate \(JSONValue.hexadecimal(fingerprint))"
            case .preSharedKey(let identity): "\(way), pre-shared key \"\(escaped(identity))\""
            }
        }
    }

    public struct Connection: Sendable {
        /// RFC 7143 §11.12.7.
        public var cid: UInt16
        public var address: NetworkAddress
        public var counters: ConnectionCounters

        public init(cid: UInt16, address: NetworkAddress, counters: ConnectionCounters = ConnectionCounters()) {
            self.cid = cid
            self.address = address
            self.counters = counters
        }
    }

    /// Since the connection began.
    public struct ConnectionCounters: Hashable, Sendable {
        public var receivedOctets: UInt64 = 0
        public var sentOctets: UInt64 = 0
        public var dataOutPDUs: UInt64 = 0
        public var dataInPDUs: UInt64 = 0
        public var commandPDUs: UInt64 = 0
        public var responsePDUs: UInt64 = 0
        public init() {}
    }

    public struct PortalCondition: Sendable {
        /// Whether somebody listens.
        public var isOpen = true
        /// When the first of its own certificates ends, in seconds since 1970; nil: it has none.
        public var certificateExpires: Int64?
        /// TLS handshakes that came to nothing since it is open: every cause, and how many.
        public var failedHandshakes: [(cause: String, count: UInt64)] = []
        public init() {}
    }

    public struct LogicalUnitCondition: Hashable, Sendable {
        /// An initiator has the medium locked (PREVENT ALLOW MEDIUM REMOVAL).
        public var preventsRemoval = false
        /// An initiator has set SWP (control mode page).
        public var isSoftwareWriteProtected = false
        /// A flush has failed: writes are refused until the logical unit was offline.
        public var flushFailed = false
        public init() {}
    }

    /// Bytes and commands.
    public struct Count: Hashable, Sendable {
        public var bytes: UInt64 = 0
        public var commands: UInt64 = 0
        public init(bytes: UInt64 = 0, commands: UInt64 = 0) {
            self.bytes = bytes
            self.commands = commands
        }
    }

    public struct Statistics: Sendable {
        public var key: LogicalUnitKey
        public var tsih: UInt16
        public var readSubmitted = Count()
        public var readDone = Count()
        public var writeSubmitted = Count()
        public var writeDone = Count()
        public var errors: UInt64 = 0
        public init(key: LogicalUnitKey, tsih: UInt16) {
            self.key = key
            self.tsih = tsih
        }
    }

    func sessions(of target: TargetID) -> [Session] { sessions.filter { $0.target == target } }
}
