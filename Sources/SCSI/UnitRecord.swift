/// What of one logical unit is kept outside of the process that serves it, for the next one.
public struct UnitRecord: Hashable, Sendable {
    /// Rises with every change: the keeper answers by it. It means nothing to another process.
    public var revision: UInt64
    public var reservations: PersistentReservations
    /// A flush has failed, and no administrator has taken note of that yet.
    public var flushFailed: Bool

    public init(revision: UInt64 = 0, reservations: PersistentReservations = PersistentReservations(), flushFailed: Bool = false) {
        self.revision = revision
        self.reservations = reservations
        self.flushFailed = flushFailed
    }
}

/// The registrations of a logical unit, and the reservation that one or all of them hold (SPC-4 §5.13).
public struct PersistentReservations: Hashable, Sendable {
    /// Bounds of what is kept of a logical unit, so that one initiator cannot make the keeper grow.
    public static let mostRegistrations = 256

    public struct Registration: Hashable, Sendable {
        public var initiator: InitiatorPort
        /// RELATIVE TARGET PORT IDENTIFIER of the port it was made through.
        public var relativeTargetPort: UInt16
        /// RESERVATION KEY, never 0.
        public var key: UInt64
        var nexus: NexusName { NexusName(initiator: initiator, portalGroupTag: relativeTargetPort) }

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

    /// PRGENERATION.
    public var generation: UInt32
    public var registrations: [Registration]
    public var kind: Kind?
    /// Index into `registrations` of the holder; nil without a reservation and for the all-registrants kinds.
    public var holder: Int?
    /// APTPL of the command that registered last: what is here, and what comes, outlives a loss of power (SPC-4 §5.13.5).
    public var outlivesPowerLoss: Bool

    public init(generation: UInt32 = 0, registrations: [Registration] = [], kind: Kind? = nil, holder: Int? = nil, outlivesPowerLoss: Bool = false) {
        self.generation = generation
        self.registrations = registrations
        self.kind = kind
        self.holder = holder
        self.outlivesPowerLoss = outlivesPowerLoss
    }

    /// What there is after a loss of power; nil: nothing. PRGENERATION is 0 then, whatever APTPL says (SPC-4 §6.15.2).
    public var afterPowerLoss: PersistentReservations? {
        guard outlivesPowerLoss else { return nil }
        var left = self
        left.generation = 0
        return left
    }
}
