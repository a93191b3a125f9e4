/// What a logical unit has kept for it, and how far its keeper has it.
///
/// A change of reservations is in force when it is kept, and never if it cannot be: until then commands are judged by what was before. One question is open
/// at a time. Changes that come meanwhile build upon the one that is asked about: they are the next question, or fall with it.
struct Keeping: Sendable {
    /// What PERSISTENT RESERVE OUT makes of reservations.
    struct Change: Sendable {
        var reservations: PersistentReservations
        /// Unit attentions for nexuses of these, when it is in force.
        private(set) var notices: [NexusName: [UnitAttention]] = [:]
        /// The revisions of the commands that have made it.
        fileprivate var revisions: [UInt64] = []

        init(_ reservations: PersistentReservations) { self.reservations = reservations }

        mutating func tell(_ attention: UnitAttention, _ registrations: some Sequence<PersistentReservations.Registration>, but own: NexusName) {
            for registration in registrations where registration.nexus != own { tell(attention, registration.nexus) }
        }

        private mutating func tell(_ attention: UnitAttention, _ nexus: NexusName) {
            if notices[nexus]?.contains(attention) != true { notices[nexus, default: []].append(attention) }
        }

        /// Another one upon this.
        fileprivate mutating func add(_ later: Change) {
            reservations = later.reservations
            revisions += later.revisions
            for (nexus, attentions) in later.notices { for attention in attentions { tell(attention, nexus) } }
        }
    }

    private(set) var inForce: PersistentReservations
    private(set) var flushFailed: Bool
    /// Of the last change, kept or not.
    private var revision: UInt64
    /// Of the question that is open, and what of it can be refused.
    private var asked: (revision: UInt64, change: Change?)?
    private var next: Change?
    /// The keeper does not know yet what `flushFailed` is.
    private var hasNews = false
    /// Of the last question that was answered.
    private var decidedThrough: UInt64
    /// Revisions that are not kept, until their commands have heard it.
    private var refused: Set<UInt64> = []

    init(_ record: UnitRecord) {
        inForce = record.reservations.normalised
        flushFailed = record.flushFailed
        revision = record.revision
        decidedThrough = record.revision
    }

    var record: UnitRecord { UnitRecord(revision: revision, reservations: inForce, flushFailed: flushFailed) }

    /// What the next change is a change of.
    var latest: PersistentReservations { (next ?? asked?.change)?.reservations ?? inForce }
    /// Whether all that has been changed is in force.
    var isSettled: Bool { next == nil && asked?.change == nil }

    /// - Returns: the revision that stands for it
    mutating func propose(_ change: Change) -> UInt64 {
        revision &+= 1
        var change = change
        change.revisions = [revision]
        if next == nil { next = change } else { next?.add(change) }
        return revision
    }

    /// It holds at once, whether it is kept or not.
    mutating func note(flushFailed: Bool) -> UInt64 {
        self.flushFailed = flushFailed
        revision &+= 1
        hasNews = true
        return revision
    }

    // MARK: The keeper

    /// The next question; nil: there is none, or one is open.
    mutating func ask() -> UnitRecord? {
        guard asked == nil, next != nil || hasNews else { return nil }
        asked = (revision, next)
        next = nil
        hasNews = false
        return UnitRecord(revision: revision, reservations: latest, flushFailed: flushFailed)
    }

    /// The answer.
    /// - Returns: what is in force from now on, if that is a change
    mutating func settle(isKept: Bool) -> Change? {
        guard let (revision, change) = asked else { return nil }
        asked = nil
        decidedThrough = revision
        guard let change else { return nil }
        if isKept {
            inForce = change.reservations
            return change
        }
        // What was built upon it falls, too.
        refused.formUnion(change.revisions + (next?.revisions ?? []))
        next = nil
        return nil
    }

    func isDecided(_ revision: UInt64) -> Bool { revision <= decidedThrough || refused.contains(revision) }

    /// Whether the change of a command is kept; asked once, when it is decided.
    mutating func isKept(_ revision: UInt64) -> Bool { refused.remove(revision) == nil }
}

extension PersistentReservations {
    /// Whether a logical unit could have come to them: whoever is not believed is held to that.
    public var isSound: Bool {
        registrations.count <= Self.mostRegistrations && self == normalised
            && registrations.allSatisfy { (1...Limits.nameBytes).contains($0.initiator.name.count) && $0.initiator.isid >> 48 == 0 && $0.key != 0 }
    }

    /// What a keeper gives back is believed only as far as it makes sense.
    var normalised: PersistentReservations {
        var those = self
        if let holder, !registrations.indices.contains(holder) { those.holder = nil }
        if let kind {
            if kind.isAllRegistrants { those.holder = nil }
            if kind.isAllRegistrants ? registrations.isEmpty : those.holder == nil { those.kind = nil }
        } else {
            those.holder = nil
        }
        return those
    }
}
