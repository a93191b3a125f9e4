import Bytes
import Testing
@testable import SCSI

@Suite struct ReservationTests {
    typealias Kind = PersistentReservations.Kind
    static let kinds: [Kind] = [.writeExclusive, .exclusiveAccess, .writeExclusiveRegistrantsOnly, .exclusiveAccessRegistrantsOnly,
                                .writeExclusiveAllRegistrants, .exclusiveAccessAllRegistrants]

    enum Out: UInt8 { case register, reserve, release, clear, preempt, preemptAndAbort, registerAndIgnore, registerAndMove }

    @discardableResult
    func out(_ rig: Rig, _ nexus: NexusID, _ action: Out, _ kind: Kind? = nil, key: UInt64 = 0, new: UInt64 = 0, flags: UInt8 = 0, scope: UInt8 = 0) -> Answer {
        let list = big(key) + big(new) + [0, 0, 0, 0, flags, 0, 0, 0]
        return rig.run([0x5f, action.rawValue, scope << 4 | (kind?.rawValue ?? 0), 0, 0, 0, 0, 0, 24, 0], nexus, sending: list)
    }
    func keys(_ rig: Rig, _ nexus: NexusID? = nil) -> (generation: UInt64, keys: [UInt64]) {
        let data = rig.run([0x5e, 0, 0, 0, 0, 0, 0, 4, 0, 0], nexus).data
        guard data.count >= 8 else { return (.max, []) }
        #expect(number(data[4..<8]) == UInt64(data.count - 8))
        return (number(data[0..<4]), stride(from: 8, to: data.count, by: 8).map { number(data[$0..<$0 + 8]) })
    }
    /// Key and type of the reservation.
    func reservation(_ rig: Rig, _ nexus: NexusID? = nil) -> [UInt64] {
        let data = rig.run([0x5e, 1, 0, 0, 0, 0, 0, 4, 0, 0], nexus).data
        return data.count == 24 ? [number(data[8..<16]), UInt64(data[21])] : []
    }
    func attention(_ rig: Rig, _ nexus: NexusID) -> [UInt8] { rig.run(testUnitReady, nexus).code }
    /// a, b and c registered with keys 0xa, 0xb, 0xc; nobody is told anything.
    func registered(_ kind: Kind? = nil) -> Rig {
        let rig = Rig.with { $0.isThinProvisioned = true; $0.isRemovable = true }
        for (nexus, key) in [(rig.a, 0xa), (rig.b, 0xb), (rig.c, 0xc)] as [(NexusID, UInt64)] { #expect(out(rig, nexus, .register, new: key).isGood) }
        if let kind { #expect(out(rig, rig.a, .reserve, kind, key: 0xa).isGood) }
        return rig
    }

    // MARK: Who may pass

    /// SPC-4 table 66: allowed to (registered, not registered) nexuses that do not hold the reservation.
    static let matrix: [(kind: Kind, reading: (Bool, Bool), writing: (Bool, Bool))] = [
        (.writeExclusive, (true, true), (false, false)),
        (.exclusiveAccess, (false, false), (false, false)),
        (.writeExclusiveRegistrantsOnly, (true, true), (true, false)),
        (.exclusiveAccessRegistrantsOnly, (true, false), (true, false)),
        (.writeExclusiveAllRegistrants, (true, true), (true, false)),
        (.exclusiveAccessAllRegistrants, (true, false), (true, false)),
    ]
    static let free: Set<Action> = [.testUnitReady, .requestSense, .inquiry, .reservationIn, .readCapacity10, .readCapacity16]
    static let reading: Set<Action> = [.read, .verify, .prefetch, .statusOfBlocks, .reportOperationCodes, .reportTaskManagement]

    @Test("Every command passes, or conflicts with, every kind of persistent reservation as the standards' tables say")
    func matrix() {
        for (kind, reading, writing) in Self.matrix {
            for command in CommandTable.commands where ![.reportLUNs, .reservationOut, .reserve, .release].contains(command.action) {
                let name = "\(command.name) \(kind)"
                for isRegistered in [true, false] {
                    let rig = registered(kind)
                    if !isRegistered { #expect(out(rig, rig.b, .register, key: 0xb).isGood) }
                    let allowed = Self.free.contains(command.action) ? true
                        : Self.reading.contains(command.action) ? (isRegistered ? reading.0 : reading.1)
                        : isRegistered ? writing.0 : writing.1
                    // PREVENT is asked for by `plain`; START is not.
                    #expect(rig.run(plain(command), rig.b, sending: plainData(command)).isConflict == !allowed, "\(name) \(isRegistered)")
                    #expect(!rig.run(plain(command), rig.a, sending: plainData(command)).isConflict, "\(name): its holder passes")
                }
            }
        }
    }

    @Test("Allowing removal and starting pass every reservation; preventing and stopping do not")
    func partly() {
        for kind in Self.kinds {
            let rig = registered(kind)
            out(rig, rig.b, .register, key: 0xb)
            #expect(rig.run([0x1e, 0, 0, 0, 0, 0], rig.b).isGood && rig.run([0x1e, 0, 0, 0, 1, 0], rig.b).isConflict)
            #expect(rig.run([0x1b, 0, 0, 0, 1, 0], rig.b).isGood && rig.run([0x1b, 0, 0, 0, 0, 0], rig.b).isConflict && rig.run([0x1b, 0, 0, 0, 2, 0], rig.b).isConflict)
        }
    }

    @Test("RESERVE(6) stops all that others may not do, and only that; its holder releases it")
    func reserve6() {
        let passing: Set<Action> = [.requestSense, .inquiry, .readCapacity10, .readCapacity16, .release]
        for command in CommandTable.commands where command.action != .reportLUNs {
            let rig = Rig.with { $0.isThinProvisioned = true; $0.isRemovable = true }
            #expect(rig.run([0x16, 0, 0, 0, 0, 0]).isGood && rig.run([0x16, 0, 0, 0, 0, 0]).isGood)
            #expect(rig.run(plain(command), rig.b, sending: plainData(command)).isConflict == !passing.contains(command.action), "\(command.name)")
            #expect(rig.run(plain(command), rig.a, sending: plainData(command)).isConflict == (command.action == .reservationOut), "\(command.name)")
        }
        let rig = Rig()
        rig.run([0x16, 0, 0, 0, 0, 0])
        #expect(rig.run([0x1e, 0, 0, 0, 0, 0], rig.b).isGood && rig.run([0x1e, 0, 0, 0, 1, 0], rig.b).isConflict && rig.run([0x1b, 0, 0, 0, 1, 0], rig.b).isGood)
        #expect(rig.run([0x17, 0, 0, 0, 0, 0], rig.b).isGood && rig.run(testUnitReady, rig.b).isConflict, "RELEASE of another is no error and releases nothing")
        #expect(rig.run([0x17, 0, 0, 0, 0, 0]).isGood && rig.run(testUnitReady, rig.b).isGood)
    }

    @Test("RESERVE(6) ends with its nexus and with a reset of the logical unit")
    func reserve6Ends() {
        let rig = Rig()
        rig.run([0x16, 0, 0, 0, 0, 0])
        #expect(rig.unit.condition.reservedBy == rig.a)
        rig.unit.detach(rig.a)
        #expect(rig.run(testUnitReady, rig.b).isGood)
        rig.run([0x16, 0, 0, 0, 0, 0], rig.b)
        rig.unit.reset()
        #expect(attention(rig, rig.c) == [6, 0x29, 3] && rig.run(testUnitReady, rig.c).isGood)
    }

    @Test("RESERVE(6), RELEASE(6) and persistent registrations exclude each other")
    func exclusive() {
        let rig = Rig()
        out(rig, rig.a, .register, new: 1)
        for code in [0x16, 0x17] as [UInt8] { for nexus in [rig.a, rig.b] { #expect(rig.run([code, 0, 0, 0, 0, 0], nexus).isConflict) } }
        out(rig, rig.a, .register, key: 1)
        #expect(rig.run([0x16, 0, 0, 0, 0, 0]).isGood)
        #expect(out(rig, rig.a, .register, new: 1).isConflict && out(rig, rig.b, .registerAndIgnore, new: 1).isConflict)
    }

    @Test("A conflict comes before a unit attention, and leaves it pending")
    func precedence() {
        let rig = registered(.exclusiveAccess)
        rig.unit.post(.inquiryDataChanged, to: .only(rig.b))
        #expect(rig.run(read10(0, 1), rig.b).isConflict)
        #expect(attention(rig, rig.b) == [6, 0x3f, 3])
    }

    // MARK: Registering

    @Test("REGISTER wants the key there is; REGISTER AND IGNORE does not; both count PRGENERATION")
    func registering() {
        let rig = Rig()
        #expect(out(rig, rig.a, .register, key: 5, new: 1).isConflict)
        #expect(out(rig, rig.a, .register, new: 0).isGood && keys(rig) == (0, []))
        #expect(out(rig, rig.a, .register, new: 1).isGood && keys(rig) == (1, [1]))
        #expect(out(rig, rig.a, .register, new: 2).isConflict && out(rig, rig.a, .register, key: 9, new: 2).isConflict)
        #expect(out(rig, rig.a, .register, key: 1, new: 2).isGood && keys(rig) == (2, [2]))
        #expect(out(rig, rig.a, .registerAndIgnore, key: 77, new: 3).isGood && keys(rig) == (3, [3]))
        #expect(out(rig, rig.b, .registerAndIgnore, key: 77, new: 3).isGood && keys(rig) == (4, [3, 3]))
        #expect(out(rig, rig.b, .registerAndIgnore, new: 0).isGood && keys(rig) == (5, [3]))
        #expect(out(rig, rig.b, .registerAndIgnore, new: 0).isGood && keys(rig) == (5, [3]))
        #expect(out(rig, rig.a, .register, key: 3).isGood && keys(rig) == (6, []))
        #expect(rig.kept.map(\.revision) == [1, 2, 3, 4, 5, 6])
        #expect(rig.kept.last == rig.unit.record)
    }

    @Test("SPEC_I_PT, ALL_TG_PT and APTPL are refused with a pointer to the bit, as REPORT CAPABILITIES announces", arguments: [0, 2, 3] as [UInt8])
    func flags(bit: UInt8) {
        let rig = Rig()
        for action in [Out.register, .registerAndIgnore] {
            let answer = out(rig, rig.a, action, new: 1, flags: 1 << bit)
            #expect(answer.check(5, 0x26, 0) && Array(answer.sense[15..<18]) == [0x88 | bit, 0, 20])
        }
        #expect(rig.run([0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0]).data == [0, 8, 0, 0x80, 0xea, 1, 0, 0])
        #expect(rig.kept.isEmpty)
    }

    @Test("Only so many registrations are taken")
    func limit() {
        var record = UnitRecord()
        for index in 1..<PersistentReservations.mostRegistrations {
            record.reservations.registrations.append(.init(initiator: InitiatorPort(name: Array("iqn.\(index)".utf8), isid: 0), relativeTargetPort: 1, key: UInt64(index)))
        }
        let rig = Rig(record: record)
        #expect(out(rig, rig.a, .register, new: 1).isGood)
        #expect(out(rig, rig.b, .register, new: 1).check(5, 0x55, 4))
        #expect(out(rig, rig.a, .register, key: 1, new: 2).isGood && out(rig, rig.a, .register, key: 2).isGood && out(rig, rig.b, .register, new: 1).isGood)
    }

    @Test("A registration belongs to the initiator port: a new nexus of the same port has it, another does not")
    func nexusLoss() {
        let rig = registered(.exclusiveAccess)
        rig.unit.detach(rig.a)
        let again = NexusID(rawValue: 50)
        rig.unit.attach(again, Rig.name(rig.a))
        #expect(attention(rig, again) == [6, 0x29, 0])
        #expect(rig.run(read10(0, 1), again).isGood)
        #expect(rig.run(read10(0, 1), rig.b).isConflict)
        rig.unit.reset()
        #expect(attention(rig, again) == [6, 0x29, 3] && rig.run(read10(0, 1), again).isGood && rig.run(read10(0, 1), rig.b).isConflict, "a reset changes nothing")
    }

    @Test("A kept record is given back to a successor: the same reservation holds there")
    func successor() {
        for kind in Self.kinds {
            let first = registered(kind)
            let rig = Rig(record: first.unit.record)
            #expect(reservation(rig) == reservation(first) && keys(rig) == keys(first))
            #expect(rig.run(write10(0, 1), rig.a, sending: [UInt8](repeating: 0, count: 512)).isGood)
            #expect(rig.unit.record == first.unit.record)
        }
        let broken = UnitRecord(reservations: PersistentReservations(registrations: [], kind: .exclusiveAccess, holder: 7))
        #expect(Rig(record: broken).unit.record.reservations.kind == nil)
    }

    // MARK: Reserving and releasing

    @Test("RESERVE by the holder again is GOOD, by others or with another type a conflict; the all-registrants kinds have many holders")
    func reserving() {
        for kind in Self.kinds {
            let rig = registered()
            #expect(out(rig, rig.a, .reserve, kind, key: 1).isConflict && reservation(rig).isEmpty)
            #expect(out(rig, rig.a, .reserve, kind, key: 0xa).isGood)
            #expect(reservation(rig) == [kind.isAllRegistrants ? 0 : 0xa, UInt64(kind.rawValue)])
            #expect(out(rig, rig.a, .reserve, kind, key: 0xa).isGood)
            #expect(out(rig, rig.b, .reserve, kind, key: 0xb).isGood == kind.isAllRegistrants)
            for other in Self.kinds where other != kind { #expect(out(rig, rig.a, .reserve, other, key: 0xa).isConflict) }
            #expect(keys(rig).generation == 3)
        }
        let rig = registered()
        for type in [0, 2, 4, 9, 15] as [UInt8] {
            #expect(rig.run([0x5f, 1, type, 0, 0, 0, 0, 0, 24, 0], sending: big(UInt64(0xa)) + [UInt8](repeating: 0, count: 16)).check(5, 0x24, 0))
        }
        #expect(out(rig, rig.a, .reserve, .writeExclusive, key: 0xa, scope: 1).check(5, 0x24, 0))
        out(rig, rig.a, .register, key: 0xa)
        #expect(out(rig, rig.a, .reserve, .writeExclusive, key: 0).isConflict, "not registered")
    }

    @Test("RELEASE tells the other registrants, for the registrants-only and all-registrants kinds")
    func releasing() {
        for kind in Self.kinds {
            let rig = registered(kind)
            let wrong: Kind = kind == .writeExclusive ? .exclusiveAccess : .writeExclusive
            #expect(out(rig, rig.a, .release, wrong, key: 0xa).check(5, 0x26, 4))
            #expect(out(rig, rig.a, .release, kind, key: 1).isConflict)
            if !kind.isAllRegistrants { #expect(out(rig, rig.b, .release, kind, key: 0xb).isGood && !reservation(rig).isEmpty) }
            #expect(out(rig, rig.a, .release, kind, key: 0xa).isGood && reservation(rig).isEmpty)
            let told: [UInt8] = kind.isAllRegistrants || kind.isRegistrantsOnly ? [6, 0x2a, 4] : [0, 0, 0]
            #expect(attention(rig, rig.a).isEmpty)
            for nexus in [rig.b, rig.c] { #expect(told == [0, 0, 0] ? attention(rig, nexus).isEmpty : attention(rig, nexus) == told) }
            #expect(out(rig, rig.a, .release, kind, key: 0xa).isGood, "nothing to release")
            #expect(keys(rig).generation == 3 && keys(rig).keys == [0xa, 0xb, 0xc])
        }
    }

    @Test("Unregistering the holder releases; the others are told for the registrants-only kinds; all-registrants lasts until the last has gone")
    func unregistering() {
        for kind in Self.kinds {
            let rig = registered(kind)
            #expect(out(rig, rig.a, .register, key: 0xa).isGood)
            #expect(attention(rig, rig.a).isEmpty)
            if kind.isAllRegistrants {
                #expect(!reservation(rig).isEmpty && attention(rig, rig.b).isEmpty)
                out(rig, rig.b, .register, key: 0xb)
                #expect(!reservation(rig).isEmpty)
                out(rig, rig.c, .register, key: 0xc)
                #expect(reservation(rig).isEmpty)
            } else {
                #expect(reservation(rig).isEmpty)
                for nexus in [rig.b, rig.c] { #expect(attention(rig, nexus) == (kind.isRegistrantsOnly ? [6, 0x2a, 4] : [])) }
            }
            #expect(attention(rig, rig.a).isEmpty)
        }
    }

    @Test("Unregistering one that does not hold leaves the reservation with its holder")
    func holderMoves() {
        let rig = registered()
        out(rig, rig.c, .reserve, .exclusiveAccess, key: 0xc)
        out(rig, rig.a, .register, key: 0xa)
        #expect(reservation(rig) == [0xc, 3] && rig.run(read10(0, 1), rig.c).isGood && rig.run(read10(0, 1), rig.b).isConflict)
    }

    @Test("CLEAR takes everything and tells the other registrants")
    func clearing() {
        let rig = registered(.exclusiveAccess)
        #expect(out(rig, rig.b, .clear, key: 1).isConflict)
        #expect(out(rig, rig.b, .clear, key: 0xb).isGood)
        #expect(keys(rig, rig.b) == (4, []) && reservation(rig, rig.b).isEmpty && rig.kept.last?.reservations.generation == 4)
    }

    @Test("Who was cleared is told RESERVATIONS PREEMPTED, who cleared is not")
    func cleared() {
        let rig = registered(.writeExclusive)
        out(rig, rig.b, .clear, key: 0xb)
        #expect(attention(rig, rig.a) == [6, 0x2a, 3] && attention(rig, rig.c) == [6, 0x2a, 3] && attention(rig, rig.b).isEmpty)
    }

    // MARK: Preempting

    @Test("PREEMPT of the holder takes its reservation and its registration", arguments: [false, true])
    func preempting(aborting: Bool) {
        for old in Self.kinds where !old.isAllRegistrants {
            for new in Self.kinds {
                let rig = registered(old)
                let answer = out(rig, rig.b, aborting ? .preemptAndAbort : .preempt, new, key: 0xb, new: 0xa)
                #expect(answer.isGood && answer.aborts == (aborting ? [rig.a] : []))
                #expect(reservation(rig, rig.b) == [new.isAllRegistrants ? 0 : 0xb, UInt64(new.rawValue)])
                #expect(attention(rig, rig.a) == [6, 0x2a, 5] && attention(rig, rig.b).isEmpty)
                #expect(attention(rig, rig.c) == (old.isRegistrantsOnly && old != new ? [6, 0x2a, 4] : []))
                #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xb, 0xc] && rig.unit.record.reservations.generation == 4)
            }
        }
    }

    @Test("PREEMPT of others takes their registrations only, its own too if it has the key; a key nobody has is a conflict")
    func preemptingRegistrations() {
        for kind in Self.kinds {
            let rig = registered(kind)
            #expect(out(rig, rig.b, .preempt, kind, key: 0xb, new: 0x99).isConflict && out(rig, rig.b, .preempt, kind, key: 1, new: 0xc).isConflict)
            let answer = out(rig, rig.a, .preemptAndAbort, .exclusiveAccess, key: 0xa, new: 0xc)
            #expect(answer.isGood && answer.aborts == [rig.c])
            #expect(reservation(rig) == [kind.isAllRegistrants ? 0 : 0xa, UInt64(kind.rawValue)])
            #expect(attention(rig, rig.c) == [6, 0x2a, 5] && attention(rig, rig.b).isEmpty && attention(rig, rig.a).isEmpty)
            #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xa, 0xb])
        }
        let rig = registered(.writeExclusive)
        #expect(out(rig, rig.b, .preempt, .writeExclusive, key: 0xb, new: 0xb).isGood)
        #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xa, 0xc] && reservation(rig) == [0xa, 1])
        #expect(attention(rig, rig.b).isEmpty)
    }

    @Test("PREEMPT with key 0 takes an all-registrants reservation from everybody, and is an error otherwise")
    func preemptingAll() {
        for kind in Self.kinds {
            let rig = registered(kind)
            let answer = out(rig, rig.b, .preemptAndAbort, .writeExclusive, key: 0xb, new: 0)
            guard kind.isAllRegistrants else {
                #expect(answer.check(5, 0x26, 0) && reservation(rig) == [0xa, UInt64(kind.rawValue)])
                continue
            }
            #expect(answer.isGood && Set(answer.aborts) == [rig.a, rig.c] && reservation(rig, rig.b) == [0xb, 1])
            for nexus in [rig.a, rig.c] { #expect(attention(rig, nexus) == [6, 0x2a, 5]) }
            #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xb])
        }
        #expect(out(registered(), NexusID(rawValue: 1), .preempt, .writeExclusive, key: 0xa, new: 0).check(5, 0x26, 0))
    }

    @Test("The holder may preempt itself to change the type, and keeps its registration")
    func preemptingItself() {
        let rig = registered(.writeExclusive)
        #expect(out(rig, rig.a, .preempt, .exclusiveAccess, key: 0xa, new: 0xa).isGood)
        #expect(reservation(rig) == [0xa, 3] && rig.unit.record.reservations.registrations.count == 3)
        #expect(out(rig, rig.a, .preempt, nil, key: 0xa, new: 0xa).check(5, 0x24, 0) && reservation(rig) == [0xa, 3])
    }

    @Test("A preempted nexus is stopped at once")
    func fenced() {
        let rig = registered(.writeExclusiveRegistrantsOnly)
        let block = [UInt8](repeating: 0, count: 512)
        #expect(rig.run(write10(0, 1), rig.b, sending: block).isGood)
        out(rig, rig.a, .preemptAndAbort, .writeExclusiveRegistrantsOnly, key: 0xa, new: 0xb)
        #expect(rig.run(write10(0, 1), rig.b, sending: block).isConflict)
        #expect(out(rig, rig.b, .registerAndIgnore, new: 0xbb).check(6, 0x2a, 5))
        #expect(out(rig, rig.b, .registerAndIgnore, new: 0xbb).isGood && rig.run(write10(0, 1), rig.b, sending: block).isGood)
    }

    // MARK: READ FULL STATUS, REGISTER AND MOVE, lists

    @Test("READ FULL STATUS tells keys, holders and initiator ports")
    func fullStatus() {
        for kind in Self.kinds {
            let data = { (rig: Rig) in rig.run([0x5e, 3, 0, 0, 0, 0, 0, 16, 0, 0]).data }(registered(kind))
            #expect(number(data[0..<4]) == 3 && number(data[4..<8]) == UInt64(data.count - 8))
            var position = 8
            for (key, holds) in [(0xa, true), (0xb, kind.isAllRegistrants), (0xc, kind.isAllRegistrants)] as [(UInt64, Bool)] {
                #expect(number(data[position..<position + 8]) == key && data[position + 12] == (holds ? 1 : 0))
                #expect(data[position + 13] == (holds ? kind.rawValue : 0) && number(data[position + 18..<position + 20]) == 1)
                let length = Int(number(data[position + 20..<position + 24]))
                let port = data[position + 24..<position + 24 + length]
                #expect(TransportID.decode(port) == Rig.initiator(NexusID(rawValue: key - 9)))
                let text = port.dropFirst(4).prefix { $0 != 0 }
                #expect(Array(text) == Array("iqn.2001-04.com.example:host\(key - 9),i,0x80000000000\(key - 9)".utf8))
                position += 24 + length
            }
            #expect(position == data.count)
        }
    }

    @Test("TransportIDs survive every name length; none that is cut, or altered in its frame, is taken for one")
    func transportIDs() {
        for length in 1...Limits.nameBytes {
            let port = InitiatorPort(name: [UInt8](repeating: 0x61, count: length), isid: 0x0123_4567_89ab)
            let bytes = TransportID.encoded(port)
            #expect(bytes.count % 4 == 0 && bytes.count >= 24 && bytes.last == 0)
            #expect(TransportID.decode(bytes[...]) == port)
        }
        let port = Rig.initiator(NexusID(rawValue: 2))
        let bytes = TransportID.encoded(port)
        for count in 0..<bytes.count { #expect(TransportID.decode(bytes[..<count]) == nil) }
        for (index, value) in [(0, 0x05), (0, 0x44), (1, 1), (3, 1), (4, 0), (bytes.count - 1, 1), (5, 0xe9), (5, 0x2c)] as [(Int, UInt8)] {
            var altered = bytes
            altered[index] = value
            #expect(TransportID.decode(altered[...]) == nil, "\(index)")
        }
        #expect(TransportID.decode(TransportID.encoded(InitiatorPort(name: [UInt8](repeating: 0x61, count: 224), isid: 1))[...]) == nil)
        let upper = bytes.enumerated().map { $0.offset >= 4 && (0x61...0x7a).contains($0.element) ? $0.element & ~0x20 : $0.element }
        #expect(TransportID.decode(upper[...]) == port, "names are folded")
    }

    func move(_ rig: Rig, _ nexus: NexusID, key: UInt64, new: UInt64, to port: InitiatorPort, flags: UInt8 = 0, relative: UInt16 = 1) -> Answer {
        let identifier = TransportID.encoded(port)
        let list = big(key) + big(new) + [0, flags] + big(relative) + big(UInt32(identifier.count)) + identifier
        return rig.run([0x5f, 7, 0, 0, 0] + big(UInt32(list.count)) + [0], nexus, sending: list)
    }

    @Test("REGISTER AND MOVE hands the reservation to another initiator port, registered or not")
    func moving() {
        let kind = Kind.exclusiveAccess
        let rig = registered(kind)
        let host = Rig.initiator(rig.b)
        #expect(move(rig, rig.b, key: 0xb, new: 1, to: host).isConflict, "not the holder")
        #expect(move(rig, rig.a, key: 1, new: 1, to: host).isConflict)
        #expect(move(rig, rig.a, key: 0xa, new: 0, to: host).check(5, 0x26, 0))
        #expect(move(rig, rig.a, key: 0xa, new: 1, to: Rig.initiator(rig.a)).check(5, 0x26, 0), "to itself")
        #expect(move(rig, rig.a, key: 0xa, new: 1, to: host, flags: 1).check(5, 0x26, 0), "APTPL")
        #expect(move(rig, rig.a, key: 0xa, new: 1, to: host, relative: 2).check(5, 0x26, 0))
        #expect(move(rig, rig.a, key: 0xa, new: 0xbb, to: host).isGood && reservation(rig) == [0xbb, 3])
        #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xa, 0xbb, 0xc] && rig.unit.record.reservations.holder == 1)
        #expect(rig.run(read10(0, 1), rig.b).isGood && rig.run(read10(0, 1), rig.a).isConflict)
        let absent = InitiatorPort(name: Array("iqn.absent".utf8), isid: 5)
        #expect(move(rig, rig.b, key: 0xbb, new: 9, to: absent, flags: 2).isGood)
        #expect(rig.unit.record.reservations.registrations.map(\.key) == [0xa, 0xc, 9] && rig.unit.record.reservations.holder == 2)
        let newcomer = NexusID(rawValue: 60)
        rig.unit.attach(newcomer, NexusName(initiator: absent, portalGroupTag: 1))
        rig.run(testUnitReady, newcomer)
        #expect(rig.run(read10(0, 1), newcomer).isGood && rig.run(read10(0, 1), rig.b).isConflict)
        for kind in Self.kinds where kind.isAllRegistrants { #expect(move(registered(kind), rig.a, key: 0xa, new: 1, to: absent).isConflict) }
    }

    @Test("One initiator port through two target ports is two nexuses: each registers for itself, is told for itself, and one may move what it holds to the other")
    func twoPorts() {
        let rig = Rig()
        let (here, there) = (rig.a, NexusID(rawValue: 70))
        rig.unit.attach(there, Rig.name(rig.a, through: 9))
        rig.run(testUnitReady, there)
        #expect(out(rig, here, .register, new: 0xa).isGood && out(rig, here, .reserve, .exclusiveAccess, key: 0xa).isGood)
        #expect(rig.run(read10(0, 1), here).isGood && rig.run(read10(0, 1), there).isConflict)
        #expect(out(rig, there, .register, key: 0xa, new: 0xb).isConflict, "not registered there")
        #expect(out(rig, there, .register, new: 0xb).isGood)
        #expect(rig.unit.record.reservations.registrations.map(\.relativeTargetPort) == [1, 9])
        #expect(rig.unit.record.reservations.registrations.map(\.initiator) == [Rig.initiator(rig.a), Rig.initiator(rig.a)])
        #expect(move(rig, here, key: 0xa, new: 0xbb, to: Rig.initiator(rig.a), relative: 8).check(5, 0x26, 0), "there is no such port")
        #expect(move(rig, here, key: 0xa, new: 0xbb, to: Rig.initiator(rig.a), relative: 9).isGood)
        #expect(rig.run(read10(0, 1), there).isGood && rig.run(read10(0, 1), here).isConflict)
        // Preempted by the other, it is told; who preempts is not.
        #expect(out(rig, here, .preempt, .writeExclusive, key: 0xa, new: 0xbb).isGood)
        #expect(rig.run(testUnitReady, there).code == [6, 0x2a, 5] && rig.run(testUnitReady, here).isGood)
        // What it has comes back with the nexus, and with no other.
        rig.unit.detach(here)
        rig.unit.attach(here, Rig.name(rig.a, through: 9))
        rig.run(testUnitReady, here)
        #expect(out(rig, here, .register, key: 0xa).isConflict)
    }

    @Test("A parameter list of any other length is refused and changes nothing")
    func truncated() {
        let rig = registered(.writeExclusive)
        let before = rig.unit.record
        let list = big(UInt64(0xa)) + big(UInt64(0xd)) + [UInt8](repeating: 0, count: 300)
        for action in 0...7 as ClosedRange<UInt8> {
            for length in 0...60 where length != 24 {
                #expect(rig.run([0x5f, action, 1, 0, 0] + big(UInt32(length)) + [0], sending: Array(list[..<length])).status == .checkCondition, "\(action) \(length)")
            }
            for sent in 0..<24 { #expect(rig.run([0x5f, action, 1, 0, 0, 0, 0, 0, 24, 0], sending: Array(list[..<sent])).check(5, 0x1a, 0)) }
            for length in [65536, UInt32.max] as [UInt32] {
                let bytes = [0x5f, action, 1, 0, 0] + big(length) + [0]
                #expect(rig.unit.dataOutLength(cdb(bytes)) == 0 && rig.run(bytes, sending: list).check(5, 0x1a, 0))
            }
        }
        let identifier = TransportID.encoded(Rig.initiator(rig.b))
        let move = big(UInt64(0xa)) + big(UInt64(0xd)) + [0, 0, 0, 1] + big(UInt32(identifier.count)) + identifier
        for length in 0..<move.count { #expect(rig.run([0x5f, 7, 0, 0, 0] + big(UInt32(length)) + [0], sending: Array(move[..<length])).check(5, 0x1a, 0)) }
        #expect(rig.unit.record == before)
    }

    // MARK: What outlives a loss of power

    /// A unit whose reservations somebody keeps.
    private func keeping(_ record: UnitRecord = UnitRecord()) -> Rig {
        var settings = Rig.disk()
        settings.keepsReservations = true
        return Rig(settings, record: record)
    }
    private func capabilities(_ rig: Rig) -> [UInt8] { rig.run([0x5e, 2, 0, 0, 0, 0, 0, 0, 8, 0]).data }
    /// The unit after a loss of power.
    private func again(_ rig: Rig) -> Rig { keeping(UnitRecord(reservations: rig.unit.record.reservations.afterPowerLoss ?? PersistentReservations())) }

    @Test("With APTPL registrations and reservation are there after a loss of power, PRGENERATION begins anew; without it nothing is")
    func powerLoss() {
        for kind in Self.kinds {
            let rig = keeping()
            #expect(capabilities(rig) == [0, 8, 1, 0x80, 0xea, 1, 0, 0])
            #expect(out(rig, rig.a, .register, new: 0xa, flags: 1).isGood && capabilities(rig) == [0, 8, 1, 0x81, 0xea, 1, 0, 0])
            #expect(out(rig, rig.b, .registerAndIgnore, new: 0xb, flags: 1).isGood && out(rig, rig.a, .reserve, kind, key: 0xa).isGood)
            let next = again(rig)
            #expect(reservation(next) == reservation(rig) && keys(next) == (0, [0xa, 0xb]) && capabilities(next) == capabilities(rig))
            #expect(next.run(write10(0, 1), next.a, sending: [UInt8](repeating: 0, count: 512)).isGood && next.run(write10(0, 1), next.c, sending: [UInt8](repeating: 0, count: 512)).isConflict)
            // It stays so without another word of it, and for those that register later.
            #expect(out(next, next.a, .release, kind, key: 0xa).isGood && reservation(again(next)).isEmpty && keys(again(next)).keys == [0xa, 0xb])
            // Whoever registers last decides for all; b has been told of the release before.
            #expect(attention(next, next.b) == (kind.isRegistrantsOnly || kind.isAllRegistrants ? [6, 0x2a, 4] : []))
            #expect(out(next, next.b, .register, key: 0xb, new: 0xbb).isGood && capabilities(next)[3] == 0x80)
            #expect(keys(next).keys == [0xa, 0xbb] && keys(again(next)) == (0, []))
            #expect(out(next, next.c, .register, new: 0, flags: 1).isGood && capabilities(next)[3] == 0x80, "nothing is to be done")
            #expect(out(next, next.c, .register, new: 0xc, flags: 1).isGood && keys(again(next)).keys == [0xa, 0xbb, 0xc])
            #expect(out(next, next.c, .clear, key: 0xc).isGood && keys(again(next)).keys.isEmpty && capabilities(again(next))[3] == 0x81)
        }
    }

    @Test("REGISTER AND MOVE decides, too")
    func powerLossMoving() {
        let rig = keeping()
        out(rig, rig.a, .register, new: 0xa)
        out(rig, rig.a, .reserve, .exclusiveAccess, key: 0xa)
        #expect(again(rig).unit.record == UnitRecord())
        #expect(move(rig, rig.a, key: 0xa, new: 0xb, to: Rig.initiator(rig.b), flags: 1).isGood)
        #expect(reservation(again(rig)) == [0xb, 3] && keys(again(rig)).keys == [0xa, 0xb])
        #expect(move(rig, rig.b, key: 0xb, new: 0xc, to: Rig.initiator(rig.c)).isGood && again(rig).unit.record == UnitRecord())
    }

    // MARK: What is not kept

    @Test("What cannot be kept is told to its command and has never been there: no key, no reservation, no unit attention, no abort")
    func notKept() {
        let none = UInt64(0)
        let attempts: [(Out, Kind?, UInt64, UInt64, [UInt8])] = [
            (.register, nil, 0xa, 0xaa, [5, 0x55, 4]), (.register, nil, 0xa, none, [5, 0x55, 4]), (.registerAndIgnore, nil, none, 0xaa, [5, 0x55, 4]),
            (.release, .exclusiveAccessRegistrantsOnly, 0xa, none, [5, 0x55, 2]), (.clear, nil, 0xa, none, [5, 0x55, 2]),
            (.preempt, .writeExclusive, 0xa, 0xb, [5, 0x55, 2]), (.preemptAndAbort, .writeExclusive, 0xa, 0xb, [5, 0x55, 2]),
        ]
        for (action, kind, key, new, sense) in attempts {
            let rig = registered(.exclusiveAccessRegistrantsOnly)
            let before = rig.unit.record.reservations
            rig.isKept = false
            let answer = out(rig, rig.a, action, kind, key: key, new: new)
            #expect(answer.check(sense[0], sense[1], sense[2]) && answer.aborts.isEmpty, "\(action)")
            #expect(rig.unit.record.reservations == before)
            for nexus in [rig.b, rig.c] { #expect(rig.run(testUnitReady, nexus).isGood, "\(action)") }
            rig.isKept = true
            #expect(!out(rig, rig.a, action, kind, key: key, new: new).isConflict && rig.unit.record.reservations != before, "\(action), when it can be kept")
        }
        let rig = registered()
        rig.isKept = false
        #expect(out(rig, rig.a, .reserve, .exclusiveAccess, key: 0xa).check(5, 0x55, 2) && reservation(rig).isEmpty)
        #expect(rig.run(read10(0, 1), rig.b).isGood)
    }

    /// A command that waits for its keeper.
    private final class Begun {
        var task: DeviceTask
        let revision: UInt64

        init(_ task: consuming DeviceTask, _ revision: UInt64) {
            self.task = task
            self.revision = revision
        }
    }

    /// A PERSISTENT RESERVE OUT.
    private func begun(_ rig: Rig, _ nexus: NexusID, _ action: Out, _ kind: Kind? = nil, key: UInt64 = 0, new: UInt64 = 0) throws -> Begun {
        var task = DeviceTask(nexus: nexus, cdb: cdb([0x5f, action.rawValue, kind?.rawValue ?? 0, 0, 0, 0, 0, 0, 24, 0]), dataOutCount: 24)
        let buffer = rig.pool.allocate(24)
        (big(key) + big(new) + [UInt8](repeating: 0, count: 8)).span.copy(to: buffer)
        guard case .keep(let revision) = rig.unit.begin(&task, dataOut: buffer) else {
            Issue.record("\(action) is not to be kept")
            throw CancellationError()
        }
        return Begun(task, revision)
    }
    private func end(_ rig: Rig, _ command: Begun) -> (status: Status, sense: [UInt8]) {
        #expect(rig.unit.isDecided(command.revision))
        guard case .done(let completion) = rig.unit.resume(&command.task, after: .done, buffer: nil) else { return (.busy, []) }
        return (completion.status, completion.sense.count == 18 ? [completion.sense[2], completion.sense[12], completion.sense[13]] : [])
    }

    @Test("Until a change is kept nobody is held to it; what comes meanwhile builds upon it, is asked next, and waits even where it changes nothing")
    func pending() throws {
        let rig = registered()
        let reserve = try begun(rig, rig.a, .reserve, .exclusiveAccess, key: 0xa)
        #expect(reservation(rig).isEmpty && rig.run(read10(0, 1), rig.b).isGood)
        let record = try #require(rig.unit.recordToKeep())
        #expect(record.reservations.holder == 0 && rig.unit.recordToKeep() == nil)
        #expect(out(rig, rig.b, .reserve, .exclusiveAccess, key: 0xb).isConflict, "somebody was first")
        let again = try begun(rig, rig.a, .reserve, .exclusiveAccess, key: 0xa)
        let register = try begun(rig, rig.b, .register, key: 0xb, new: 0xbb)
        #expect(rig.unit.recordToKeep() == nil, "one question at a time")
        rig.unit.settle(isKept: true)
        #expect(end(rig, reserve).status == .good && !rig.unit.isDecided(again.revision) && !rig.unit.isDecided(register.revision))
        #expect(reservation(rig) == [0xa, 3] && rig.run(read10(0, 1), rig.b).isConflict && keys(rig).keys == [0xa, 0xb, 0xc])
        #expect(rig.unit.recordToKeep()?.reservations.registrations.map(\.key) == [0xa, 0xbb, 0xc])
        rig.unit.settle(isKept: true)
        #expect(end(rig, again).status == .good && end(rig, register).status == .good && keys(rig).keys == [0xa, 0xbb, 0xc])
        #expect(rig.unit.recordToKeep() == nil)
    }

    @Test("What builds upon a change that is not kept falls with it; a failed flush does not")
    func fallen() throws {
        let rig = registered(.writeExclusiveRegistrantsOnly)
        let before = rig.unit.record.reservations
        let clear = try begun(rig, rig.a, .clear, key: 0xa)
        #expect(rig.unit.recordToKeep()?.reservations.registrations.isEmpty == true)
        let register = try begun(rig, rig.b, .register, new: 0xd)
        var flush = DeviceTask(nexus: rig.a, cdb: cdb(ten(0x35, 0, 0)))
        guard case .medium = rig.unit.begin(&flush, dataOut: nil), case .keep(let failure) = rig.unit.resume(&flush, after: .failed(.flushFailed), buffer: nil) else {
            Issue.record("no flush")
            return
        }
        rig.unit.settle(isKept: false)
        #expect(end(rig, clear) == (.checkCondition, [5, 0x55, 2]) && end(rig, register) == (.checkCondition, [5, 0x55, 4]))
        #expect(rig.unit.record.reservations == before && !rig.unit.isDecided(failure) && rig.unit.condition.flushFailed)
        let record = try #require(rig.unit.recordToKeep())
        #expect(record.flushFailed && record.reservations == before)
        rig.unit.settle(isKept: true)
        #expect(end(rig, Begun(flush, failure)) == (.checkCondition, [3, 0x0c, 0]))
        // And what comes then is new.
        #expect(rig.run(testUnitReady, rig.b).isGood && out(rig, rig.a, .clear, key: 0xa).isGood && attention(rig, rig.b) == [6, 0x2a, 3])
    }
}
