import Bytes

/// PERSISTENT RESERVE IN and OUT (SPC-4 §5.13, §6.15, §6.16).
///
/// A change is in force, and GOOD is sent, when its keeper has it: no command passes a reservation that another nexus may already have
/// been told of, and one that cannot be kept has never been there.
extension DeviceServer {
    func persistentReserveIn(_ cdb: CommandDescriptorBlock) -> Step {
        let allocated = Int(cdb.bytes.span.uint16(at: 7))
        var data: [UInt8] = []
        switch cdb.bytes[1] & 0x1f {
        case 0x00:
            data.append(bigEndian: reservations.generation)
            data.append(bigEndian: UInt32(8 * reservations.registrations.count))
            for registration in reservations.registrations { data.append(bigEndian: registration.key) }
        case 0x01:
            data.append(bigEndian: reservations.generation)
            data.append(bigEndian: UInt32(reservations.kind == nil ? 0 : 16))
            if let kind = reservations.kind {
                data.append(bigEndian: reservations.holder.map { reservations.registrations[$0].key } ?? 0)
                data += [0, 0, 0, 0, 0, kind.rawValue, 0, 0]
            }
        case 0x02:
            // Neither CRH, SIP_C nor ATP_C; PTPL_C if they are kept; TMV, PTPL_A; the types 1, 3, 5, 6, 7 and 8.
            data += [0x00, 0x08, settings.keepsReservations ? 0x01 : 0, reservations.outlivesPowerLoss ? 0x81 : 0x80, 0xea, 0x01, 0x00, 0x00]
        default:
            var descriptors: [UInt8] = []
            for index in reservations.registrations.indices { descriptors += fullStatus(index) }
            data.append(bigEndian: reservations.generation)
            data.append(bigEndian: UInt32(descriptors.count))
            data += descriptors
        }
        return .done(.data(data, allocated: allocated))
    }

    /// A full status descriptor (SPC-4 §6.15.5).
    private func fullStatus(_ index: Int) -> [UInt8] {
        let registration = reservations.registrations[index]
        let holds = reservations.isHolder(index)
        let port = TransportID.encoded(registration.initiator)
        var bytes: [UInt8] = []
        bytes.append(bigEndian: registration.key)
        bytes += [0, 0, 0, 0, holds ? 0x01 : 0, holds ? reservations.kind?.rawValue ?? 0 : 0, 0, 0, 0, 0]
        bytes.append(bigEndian: registration.relativeTargetPort)
        bytes.append(bigEndian: UInt32(port.count))
        return bytes + port
    }

    mutating func persistentReserveOut(_ task: inout DeviceTask, _ list: [UInt8]) throws(Refusal) -> Step {
        let isMove = task.cdb.bytes[1] & 0x1f == 0x07
        guard isMove ? list.count >= 24 : list.count == 24 else { throw .check(.listLength) }
        let key = list.span.uint64(at: 0), newKey = list.span.uint64(at: 8)
        guard let nexus = nexuses[task.nexus]?.name else { throw .check(.targetFailure) }
        var change = Keeping.Change(keeping.latest)
        let own = change.reservations.index(of: nexus)
        switch task.cdb.bytes[1] & 0x1f {
        case 0x00:
            try requireSupportedFlags(list[20])
            guard own.map({ change.reservations.registrations[$0].key == key }) ?? (key == 0) else { throw .conflict }
            try register(&change, own, nexus, newKey, flags: list[20])
        case 0x06:
            try requireSupportedFlags(list[20])
            try register(&change, own, nexus, newKey, flags: list[20])
        case let action:
            guard let own, change.reservations.registrations[own].key == key else { throw .conflict }
            switch action {
            case 0x01: try reserve(&change, own, kind(task.cdb))
            case 0x02: try release(&change, own, task.cdb)
            case 0x03: clear(&change, nexus)
            case 0x07: try move(&change, own, newKey, list)
            default: try preempt(&change, own, newKey, &task, aborting: action == 0x05)
            }
        }
        // What has been changed before may still come to nothing: then this has done nothing, either.
        guard change.reservations != keeping.latest || !keeping.isSettled else { return .done(Completion()) }
        let revision = keeping.propose(change)
        task.phase = .kept(revision)
        return .keep(revision)
    }

    /// SPEC_I_PT and ALL_TG_PT are not supported, APTPL only if somebody keeps it (REPORT CAPABILITIES says so).
    private func requireSupportedFlags(_ flags: UInt8) throws(Refusal) {
        for bit in [3, 2] as [UInt8] where flags & 1 << bit != 0 { throw .check(.parameter(20, bit: bit)) }
        try requireSupportedAPTPL(flags, at: 20)
    }

    private func requireSupportedAPTPL(_ flags: UInt8, at byte: Int) throws(Refusal) {
        guard flags & 0x01 == 0 || settings.keepsReservations else { throw .check(.parameter(byte, bit: 0)) }
    }

    /// SCOPE must be the logical unit, TYPE one of the six.
    private func kind(_ cdb: CommandDescriptorBlock) throws(Refusal) -> PersistentReservations.Kind {
        guard cdb.bytes[2] >> 4 == 0 else { throw .check(.field(2, bit: 7)) }
        guard let kind = PersistentReservations.Kind(rawValue: cdb.bytes[2] & 0x0f) else { throw .check(.field(2, bit: 3)) }
        return kind
    }

    private func register(
        _ change: inout Keeping.Change, _ own: Int?, _ nexus: NexusName, _ newKey: UInt64, flags: UInt8
    ) throws(Refusal) {
        // Nothing is to be done then (SPC-4 table 67).
        guard own != nil || newKey != 0 else { return }
        let old = change.reservations
        change.reservations.generation &+= 1
        change.reservations.outlivesPowerLoss = flags & 0x01 != 0
        switch own {
        case nil: try change.reservations.append(.init(initiator: nexus.initiator, relativeTargetPort: nexus.portalGroupTag, key: newKey))
        case let own? where newKey == 0:
            change.reservations.remove { index, _ in index == own }
            if old.kind?.isRegistrantsOnly == true, change.reservations.kind == nil {
                change.tell(.reservationsReleased, change.reservations.registrations, but: nexus)
            }
        case let own?: change.reservations.registrations[own].key = newKey
        }
    }

    private func reserve(_ change: inout Keeping.Change, _ own: Int, _ kind: PersistentReservations.Kind) throws(Refusal) {
        if let held = change.reservations.kind {
            guard change.reservations.isHolder(own), held == kind else { throw .conflict }
            return
        }
        change.reservations.reserve(kind, holder: own)
    }

    private func release(_ change: inout Keeping.Change, _ own: Int, _ cdb: CommandDescriptorBlock) throws(Refusal) {
        let old = change.reservations
        guard let held = old.kind, old.isHolder(own) else { return }
        guard cdb.bytes[2] == held.rawValue else { throw .check(Sense(.illegalRequest, .invalidReleaseOfPersistentReservation)) }
        if held.isRegistrantsOnly || held.isAllRegistrants {
            change.tell(.reservationsReleased, old.registrations, but: old.registrations[own].nexus)
        }
        change.reservations.kind = nil
        change.reservations.holder = nil
    }

    private func clear(_ change: inout Keeping.Change, _ nexus: NexusName) {
        change.tell(.reservationsPreempted, change.reservations.registrations, but: nexus)
        change.reservations.generation &+= 1
        change.reservations.registrations = []
        change.reservations.kind = nil
        change.reservations.holder = nil
    }

    /// PREEMPT and PREEMPT AND ABORT (SPC-4 §5.13.11.4): a reservation and its registrations, or registrations alone.
    private func preempt(_ change: inout Keeping.Change, _ own: Int, _ victim: UInt64, _ task: inout DeviceTask, aborting: Bool) throws(Refusal) {
        let old = change.reservations
        let nexus = old.registrations[own].nexus
        let takesReservation: Bool
        if victim == 0 {
            guard old.kind?.isAllRegistrants == true else { throw .check(.parameter(8)) }
            takesReservation = true
        } else {
            takesReservation = old.holder.map { old.registrations[$0].key == victim } ?? false
        }
        let goes = { (index: Int, registration: PersistentReservations.Registration) -> Bool in
            takesReservation ? index != own && (victim == 0 || registration.key == victim) : registration.key == victim
        }
        let gone = old.registrations.enumerated().filter { goes($0.offset, $0.element) }.map(\.element)
        guard takesReservation || !gone.isEmpty else { throw .conflict }
        change.reservations.generation &+= 1
        change.reservations.remove(where: goes)
        if takesReservation {
            let kind = try kind(task.cdb)
            guard let index = change.reservations.index(of: nexus) else { throw .check(.targetFailure) }
            change.reservations.reserve(kind, holder: index)
            if let before = old.kind, before != kind, before.isRegistrantsOnly || before.isAllRegistrants {
                change.tell(.reservationsReleased, change.reservations.registrations, but: nexus)
            }
        }
        change.tell(.registrationsPreempted, gone, but: nexus)
        guard aborting else { return }
        let preempted = Set(gone.map(\.nexus))
        task.abortsTasksOf = nexuses.filter { $0.key != task.nexus && preempted.contains($0.value.name) }.map(\.key)
    }

    /// REGISTER AND MOVE (SPC-4 §5.13.8).
    private func move(_ change: inout Keeping.Change, _ own: Int, _ newKey: UInt64, _ list: [UInt8]) throws(Refusal) {
        let old = change.reservations
        guard let kind = old.kind, !kind.isAllRegistrants, old.holder == own else { throw .conflict }
        guard newKey != 0 else { throw .check(.parameter(8)) }
        try requireSupportedAPTPL(list[17], at: 17)
        let port = list.span.uint16(at: 18)
        // The ports that there are: its own, and those of others that are here.
        guard port == old.registrations[own].relativeTargetPort || nexuses.values.contains(where: { $0.name.portalGroupTag == port }) else {
            throw .check(.parameter(18))
        }
        guard list.span.uint32(at: 20) == UInt32(exactly: list.count - 24) else { throw .check(.listLength) }
        guard let initiator = TransportID.decode(list[24...]), NexusName(initiator: initiator, portalGroupTag: port) != old.registrations[own].nexus
        else { throw .check(.parameter(24)) }
        change.reservations.generation &+= 1
        change.reservations.outlivesPowerLoss = list[17] & 0x01 != 0
        let registration = PersistentReservations.Registration(initiator: initiator, relativeTargetPort: port, key: newKey)
        if let index = old.index(of: registration.nexus) {
            change.reservations.registrations[index] = registration
            change.reservations.holder = index
        } else {
            try change.reservations.append(registration)
            change.reservations.holder = change.reservations.registrations.count - 1
        }
        if list[17] & 0x02 != 0 { change.reservations.remove { index, _ in index == own } }
    }

    /// What a command is told whose change could not be kept: nothing of it is in force (SPC-4 §5.13.5).
    static func notKept(_ cdb: CommandDescriptorBlock) -> Sense {
        let registers = [0x00, 0x06, 0x07].contains(cdb.bytes[1] & 0x1f)
        return Sense(.illegalRequest, registers ? .insufficientRegistrationResources : .insufficientReservationResources)
    }
}
