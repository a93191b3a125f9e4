/// What a persistent reservation has to be asked before a command may pass it.
enum Access: Int, CaseIterable, Sendable { case nothing, reading, writing }

/// The conflict tables of the two kinds of reservation.
enum ReservationRules {
    /// Under RESERVE(6) of another nexus (SPC-2 table 10, SBC-3 table 14), and what a persistent reservation is asked.
    static func demands(_ sharing: Sharing, _ cdb: CommandDescriptorBlock) -> (conflictsWithReserve: Bool, access: Access) {
        switch sharing {
        case .free: (false, .nothing)
        case .unreserved: (true, .nothing)
        case .reads: (true, .reading)
        case .writes: (true, .writing)
        case .preventAllow: cdb.bytes[4] & 0x01 == 0 ? (false, .nothing) : (true, .writing)
        case .startStop: cdb.bytes[4] & 0xf1 == 0x01 ? (false, .nothing) : (true, .writing)
        case .reserve: (true, .nothing)
        case .release: (false, .nothing)
        case .reservationOut: (true, .nothing)
        }
    }

    /// A row of SPC-4 table 66: whether reading, whether writing is allowed to nexuses other than the holder.
    private struct Row {
        let registered: (reading: Bool, writing: Bool)
        let others: (reading: Bool, writing: Bool)
    }

    private static func row(_ kind: PersistentReservations.Kind) -> Row {
        switch kind {
        case .writeExclusive: Row(registered: (true, false), others: (true, false))
        case .exclusiveAccess: Row(registered: (false, false), others: (false, false))
        case .writeExclusiveRegistrantsOnly, .writeExclusiveAllRegistrants: Row(registered: (true, true), others: (true, false))
        case .exclusiveAccessRegistrantsOnly, .exclusiveAccessAllRegistrants: Row(registered: (true, true), others: (false, false))
        }
    }

    /// Whether a nexus that does not hold the reservation may have `access`.
    static func permits(_ access: Access, under kind: PersistentReservations.Kind, registered: Bool) -> Bool {
        let rights = registered ? row(kind).registered : row(kind).others
        return switch access {
        case .nothing: true
        case .reading: rights.reading
        case .writing: rights.writing
        }
    }
}

extension PersistentReservations.Kind {
    var isAllRegistrants: Bool { self == .writeExclusiveAllRegistrants || self == .exclusiveAccessAllRegistrants }
    var isRegistrantsOnly: Bool { self == .writeExclusiveRegistrantsOnly || self == .exclusiveAccessRegistrantsOnly }
}

extension PersistentReservations {
    func index(of nexus: NexusName) -> Int? { registrations.firstIndex { $0.nexus == nexus } }

    /// Whether the registration holds the reservation; each does under the all-registrants kinds (SPC-4 §5.13.10).
    func isHolder(_ index: Int) -> Bool {
        guard let kind else { return false }
        return kind.isAllRegistrants || holder == index
    }

    /// Takes registrations away; a reservation whose last holder is among them goes too.
    mutating func remove(where goes: (Int, Registration) -> Bool) {
        var kept: [Registration] = []
        var keptHolder: Int?
        for (index, registration) in registrations.enumerated() where !goes(index, registration) {
            if holder == index { keptHolder = kept.count }
            kept.append(registration)
        }
        registrations = kept
        holder = keptHolder
        if kind?.isAllRegistrants == true ? kept.isEmpty : keptHolder == nil { kind = nil }
    }

    /// There is room for only so many.
    mutating func append(_ registration: Registration) throws(Refusal) {
        guard registrations.count < Self.mostRegistrations else { throw .check(Sense(.illegalRequest, .insufficientRegistrationResources)) }
        registrations.append(registration)
    }

    mutating func reserve(_ kind: Kind, holder index: Int) {
        self.kind = kind
        holder = kind.isAllRegistrants ? nil : index
    }
}
