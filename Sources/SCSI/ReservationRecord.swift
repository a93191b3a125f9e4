/// What of one logical unit is kept outside of the process that serves it: its persistent reservations (SPC-4 §5.13), and whether
/// a flush of it has failed.
public struct ReservationRecord: Hashable, Sendable {
    /// Bounds of a record, so that one initiator cannot make the keeper grow.
    public static let mostRegistrations = 256

    public struct Registration: Hashable, Sendable {
        public var initiator: InitiatorPort
        /// RELATIVE TARGET PORT IDENTIFIER of the port it was made through.
        public var relativeTargetPort: UInt16
        /// RESERVATION KEY, never 0.
        public var key: UInt64
        public init(initiator: InitiatorPort, relativeTargetPort: UInt16, key: UInt64) {
            self.initiator = initiator
            self.relativeTargetPort = relativeTargetPort
            self.key = key
        }
    }

    /// Persistent reservation type codes (SPC-4 table 175).
    public enum Kind: UInt8, Sendable {
        case writeExclusive = 1, exclusiveAccess = 3
        case writeExclusiveRegistrantsOnly = 5, exclusiveAccessRegistrantsOnly = 6
        case writeExclusiveAllRegistrants = 7, exclusiveAccessAllRegistrants = 8
    }

    /// Rises with every change, so that a keeper can tell the newer of two records.
    public var revision: UInt64
    /// PRGENERATION.
    public var generation: UInt32
    public var registrations: [Registration]
    public var kind: Kind?
    /// Index into `registrations` of the holder; nil without a reservation and for the all-registrants kinds.
    public var holder: Int?
    /// A flush has failed, and no administrator has taken note of that yet.
    public var flushFailed: Bool

    public init(revision: UInt64 = 0, generation: UInt32 = 0, registrations: [Registration] = [], kind: Kind? = nil, holder: Int? = nil, flushFailed: Bool = false) {
        self.flushFailed = flushFailed
        self.revision = revision
        self.generation = generation
        self.registrations = registrations
        self.kind = kind
        self.holder = holder
    }
}
