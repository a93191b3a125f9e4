import Bytes

/// PERSISTENT RESERVE IN and OUT (SPC-4 §5.13, §6.15, §6.16).
///
/// A change holds in this process at once; GOOD is sent when its keeper has it. So no command passes a reservation that
/// another nexus may already have been told of.
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
            // Neither CRH, SIP_C, ATP_C nor PTPL_C; TMV; the types 1, 3, 5, 6, 7 and 8.
            data += [0x00, 0x08, 0x00, 0x80, 0xea, 0x01, 0x00, 0x00]
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
        let own = nexuses[task.nexus]?.registration
        switch task.cdb.bytes[1] & 0x1f {
        case 0x00:
            try requireSupportedFlags(list[20])
            guard own.map({ reservations.registrations[$0].key == key }) ?? (key == 0) else { throw .conflict }
            return try register(&task, own, newKey)
        case 0x06:
            try requireSupportedFlags(list[20])
            return try register(&task, own, newKey)
        case let action:
            guard let own, reservations.registrations[own].key == key else { throw .conflict }
            switch action {
            case 0x01: return try reserve(&task, own)
            case 0x02: return try release(&task, own)
            case 0x03: return clear(&task)
            case 0x07: return try move(&task, own, newKey, list)
            default: return try preempt(&task, own, newKey, aborting: action == 0x05)
            }
        }
    }

    /// SPEC_I_PT, ALL_TG_PT and APTPL are not supported (REPORT CAPABILITIES says so).
    private func requireSupportedFlags(_ flags: UInt8) throws(Refusal) {
        for bit in [3, 2, 0] as [UInt8] where flags & 1 << bit != 0 { throw .check(.parameter(20, bit: bit)) }
    }

    /// SCOPE must be the logical unit, TYPE one of the six.
    private func kind(_ cdb: CommandDescriptorBlock) throws(Refusal) -> ReservationRecord.Kind {
        guard cdb.bytes[2] >> 4 == 0 else { throw .check(.field(2, bit: 7)) }
        guard let kind = ReservationRecord.Kind(rawValue: cdb.bytes[2] & 0x0f) else { throw .check(.field(2, bit: 3)) }
        return kind
    }

    /// Every nexus of these registrations through our target port but the one that asks.
    private func others(_ registrations: some Sequence<ReservationRecord.Registration>, than nexus: NexusID) -> [NexusID] {
        registrations.flatMap { registration -> [NexusID] in
            guard registration.relativeTargetPort == targetPort.relativeIdentifier else { return [] }
            return nexuses.filter { $0.key != nexus && $0.value.initiator == registration.initiator }.map(\.key)
        }
    }

    private mutating func post(_ attention: UnitAttention, to nexuses: [NexusID]) {
        for nexus in nexuses { post(attention, to: .only(nexus)) }
    }

    private mutating func register(_ task: inout DeviceTask, _ own: Int?, _ newKey: UInt64) throws(Refusal) -> Step {
        var record = reservations
        record.generation &+= 1
        switch own {
        case nil where newKey == 0:
            return .done(Completion())
        case nil:
            guard let initiator = nexuses[task.nexus]?.initiator else { throw .check(.targetFailure) }
            guard record.registrations.count < ReservationRecord.mostRegistrations else {
                throw .check(Sense(.illegalRequest, .insufficientRegistrationResources))
            }
            record.registrations.append(.init(initiator: initiator, relativeTargetPort: targetPort.relativeIdentifier, key: newKey))
        case let own? where newKey == 0:
            record.remove { index, _ in index == own }
            if reservations.kind?.isRegistrantsOnly == true, record.kind == nil {
                post(.reservationsReleased, to: others(record.registrations, than: task.nexus))
            }
        case let own?:
            record.registrations[own].key = newKey
        }
        return commit(record, &task)
    }

    private mutating func reserve(_ task: inout DeviceTask, _ own: Int) throws(Refusal) -> Step {
        let kind = try kind(task.cdb)
        if let held = reservations.kind {
            guard reservations.isHolder(own), held == kind else { throw .conflict }
            return .done(Completion())
        }
        var record = reservations
        record.reserve(kind, holder: own)
        return commit(record, &task)
    }

    private mutating func release(_ task: inout DeviceTask, _ own: Int) throws(Refusal) -> Step {
        guard let held = reservations.kind, reservations.isHolder(own) else { return .done(Completion()) }
        guard task.cdb.bytes[2] == held.rawValue else {
            throw .check(Sense(.illegalRequest, .invalidReleaseOfPersistentReservation))
        }
        if held.isRegistrantsOnly || held.isAllRegistrants {
            post(.reservationsReleased, to: others(reservations.registrations, than: task.nexus))
        }
        var record = reservations
        record.kind = nil
        record.holder = nil
        return commit(record, &task)
    }

    private mutating func clear(_ task: inout DeviceTask) -> Step {
        post(.reservationsPreempted, to: others(reservations.registrations, than: task.nexus))
        var record = reservations
        record.generation &+= 1
        record.registrations = []
        record.kind = nil
        record.holder = nil
        return commit(record, &task)
    }

    /// PREEMPT and PREEMPT AND ABORT (SPC-4 §5.13.11.4): a reservation and its registrations, or registrations alone.
    private mutating func preempt(_ task: inout DeviceTask, _ own: Int, _ victim: UInt64, aborting: Bool) throws(Refusal) -> Step {
        let old = reservations
        let initiator = old.registrations[own].initiator
        let takesReservation: Bool
        if victim == 0 {
            guard old.kind?.isAllRegistrants == true else { throw .check(.parameter(8)) }
            takesReservation = true
        } else {
            takesReservation = old.holder.map { old.registrations[$0].key == victim } ?? false
        }
        let goes = { (index: Int, registration: ReservationRecord.Registration) -> Bool in
            takesReservation ? index != own && (victim == 0 || registration.key == victim) : registration.key == victim
        }
        let gone = old.registrations.enumerated().filter { goes($0.offset, $0.element) }.map(\.element)
        guard takesReservation || !gone.isEmpty else { throw .conflict }
        var record = old
        record.generation &+= 1
        record.remove(where: goes)
        if takesReservation {
            let kind = try kind(task.cdb)
            guard let index = record.index(of: initiator, port: targetPort.relativeIdentifier) else { throw .check(.targetFailure) }
            record.reserve(kind, holder: index)
            if let before = old.kind, before != kind, before.isRegistrantsOnly || before.isAllRegistrants {
                post(.reservationsReleased, to: others(record.registrations, than: task.nexus))
            }
        }
        let preempted = others(gone, than: task.nexus)
        post(.registrationsPreempted, to: preempted)
        if aborting { task.abortsTasksOf = preempted }
        return commit(record, &task)
    }

    /// REGISTER AND MOVE (SPC-4 §5.13.8).
    private mutating func move(_ task: inout DeviceTask, _ own: Int, _ newKey: UInt64, _ list: [UInt8]) throws(Refusal) -> Step {
        guard let kind = reservations.kind, !kind.isAllRegistrants, reservations.holder == own else { throw .conflict }
        guard newKey != 0 else { throw .check(.parameter(8)) }
        guard list[17] & 0x01 == 0 else { throw .check(.parameter(17, bit: 0)) }
        let port = list.span.uint16(at: 18)
        guard port == targetPort.relativeIdentifier else { throw .check(.parameter(18)) }
        guard list.span.uint32(at: 20) == UInt32(exactly: list.count - 24) else { throw .check(.listLength) }
        guard let initiator = TransportID.decode(list[24...]), initiator != reservations.registrations[own].initiator else {
            throw .check(.parameter(24))
        }
        var record = reservations
        record.generation &+= 1
        let registration = ReservationRecord.Registration(initiator: initiator, relativeTargetPort: port, key: newKey)
        if let index = record.index(of: initiator, port: port) {
            record.registrations[index] = registration
            record.holder = index
        } else {
            guard record.registrations.count < ReservationRecord.mostRegistrations else {
                throw .check(Sense(.illegalRequest, .insufficientRegistrationResources))
            }
            record.registrations.append(registration)
            record.holder = record.registrations.count - 1
        }
        if list[17] & 0x02 != 0 { record.remove { index, _ in index == own } }
        return commit(record, &task)
    }
}
