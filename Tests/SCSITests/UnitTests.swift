import Bytes
import Medium
import Testing
@testable import SCSI

@Suite struct UnitTests {
    func codes(_ rig: Rig, _ nexus: NexusID) -> [[UInt8]] {
        var codes: [[UInt8]] = []
        while true {
            let answer = rig.run(testUnitReady, nexus)
            guard answer.code.first == 6 else { return codes }
            codes.append(answer.code)
        }
    }

    @Test("A new nexus is told of a power-on once; attaching again tells it again")
    func attach() {
        let rig = Rig(quiet: false)
        #expect(codes(rig, rig.a) == [[6, 0x29, 0]] && codes(rig, rig.a) == [])
        rig.unit.attach(rig.a, Rig.name(rig.a))
        #expect(codes(rig, rig.a) == [[6, 0x29, 0]])
    }

    @Test("Unit attentions come one at a time in order, each once, resets first")
    func order() {
        let rig = Rig()
        for attention in [UnitAttention.modeParametersChanged, .inquiryDataChanged, .modeParametersChanged, .reportedLUNsDataChanged] { rig.unit.post(attention, to: .all) }
        rig.unit.reset()
        #expect(codes(rig, rig.a) == [[6, 0x29, 3], [6, 0x2a, 1], [6, 0x3f, 3], [6, 0x3f, 0xe]])
        rig.unit.post(.commandsClearedByAnotherInitiator, to: .allBut(rig.a))
        rig.unit.post(.capacityDataChanged, to: .only(rig.c))
        #expect(codes(rig, rig.a) == [] && codes(rig, rig.b).last == [6, 0x2f, 0] && Array(codes(rig, rig.c).suffix(2)) == [[6, 0x2f, 0], [6, 0x2a, 9]])
    }

    @Test("INQUIRY passes a unit attention, REQUEST SENSE takes it, REPORT LUNS clears its own, everything else is stopped by it")
    func exempt() {
        for command in CommandTable.commands where command.action != .reportLUNs {
            let rig = Rig.with { $0.isThinProvisioned = true }
            rig.unit.post(.inquiryDataChanged, to: .only(rig.a))
            let answer = rig.run(plain(command), sending: plainData(command))
            #expect((answer.code == [6, 0x3f, 3]) != [.inquiry, .requestSense].contains(command.action), "\(command.name)")
            #expect(codes(rig, rig.a) == (command.action == .inquiry ? [[6, 0x3f, 3]] : []))
        }
        let rig = Rig()
        rig.unit.post(.inquiryDataChanged, to: .only(rig.a))
        #expect(rig.run([0x4d, 0, 0, 0, 0, 0]).check(6, 0x3f, 3), "an unknown operation code as well")
        rig.unit.post(.inquiryDataChanged, to: .only(rig.a))
        let told = rig.run([0x03, 0, 0, 0, 18, 0]).data
        #expect([told[2], told[12], told[13]] == [6, 0x3f, 3] && rig.run([0x03, 0, 0, 0, 18, 0]).data[2] == 0)
        rig.unit.post(.reportedLUNsDataChanged, to: .all)
        rig.unit.reportedLUNs(to: rig.a)
        #expect(codes(rig, rig.a) == [] && codes(rig, rig.b) == [[6, 0x3f, 0xe]])
    }

    @Test("However much is posted to a nexus that does not listen, little is kept")
    func bounded() {
        let rig = Rig()
        for asc in UInt8.min...UInt8.max { rig.unit.post(UnitAttention(AdditionalSenseCode(asc, 0)), to: .all) }
        #expect(codes(rig, rig.a).count == Limits.attentions)
        rig.unit.post(.busDeviceReset, to: .only(NexusID(rawValue: 99)))
    }

    @Test("What the administrator changes is told in the standards' words")
    func told() {
        let changes: [(code: [UInt8], change: (inout LogicalUnitSettings) -> Void)] = [
            ([6, 0x3f, 3], { $0.vendor = "OTHER" }), ([6, 0x3f, 3], { $0.serialNumber = "1" }), ([6, 0x3f, 3], { $0.naa = [0x30, 1] }),
            ([6, 0x3f, 3], { $0.isThinProvisioned = true }), ([6, 0x3f, 3], { $0.rotationRate = 1 }), ([6, 0x3f, 3], { $0.optimalTransferLength = 1 << 24 }),
            ([6, 0x2a, 9], { $0.blockCount = 2048 }), ([6, 0x2a, 9], { $0.physicalBlockExponent = 3 }),
            ([6, 0x2a, 1], { $0.isReadOnly = true }), ([6, 0x2a, 1], { $0.modePages = [.init(page: 0x20, subpage: 0, data: [1])] }),
        ]
        for (code, change) in changes {
            let rig = Rig()
            rig.unit.apply(rig.unit.settings)
            #expect(codes(rig, rig.a) == [])
            var settings = rig.unit.settings
            change(&settings)
            rig.unit.apply(settings)
            #expect(rig.unit.settings == settings)
            for nexus in [rig.a, rig.b] { #expect(codes(rig, nexus) == [code]) }
        }
    }

    @Test("Going offline is told by what fails, coming back by a unit attention; so is a medium that comes")
    func onlineAgain() {
        let rig = Rig.with { $0.isRemovable = true }
        for change in [{ $0.isOnline = $1 }, { $0.hasMedium = $1 }] as [(inout LogicalUnitSettings, Bool) -> Void] {
            var settings = rig.unit.settings
            change(&settings, false)
            rig.unit.apply(settings)
            #expect(rig.run(testUnitReady).check(2, 0x3a, 0))
            settings.blockCount = 512
            change(&settings, true)
            rig.unit.apply(settings)
            #expect(codes(rig, rig.a) == [[6, 0x28, 0]])
        }
    }

    // MARK: Removable media

    func startStop(_ rig: Rig, _ nexus: NexusID? = nil, loej: Bool, start: Bool, noFlush: Bool = false, immediate: Bool = false) -> Answer {
        rig.run([0x1b, immediate ? 1 : 0, 0, 0, (noFlush ? 4 : 0) | (loej ? 2 : 0) | (start ? 1 : 0), 0], nexus)
    }

    @Test("Ejecting flushes and takes the medium away; loading brings it back and tells the others")
    func eject() {
        let rig = Rig.with { $0.isRemovable = true }
        #expect(startStop(rig, loej: true, start: false, immediate: true).isGood && rig.operations == [.flush])
        #expect(rig.unit.condition.isEjected && rig.run(testUnitReady).check(2, 0x3a, 0) && rig.run(testUnitReady, rig.b).check(2, 0x3a, 0))
        #expect(startStop(rig, loej: true, start: false).isGood)
        #expect(startStop(rig, loej: true, start: true).isGood && rig.run(testUnitReady).isGood)
        #expect(codes(rig, rig.b) == [[6, 0x28, 0]])
        #expect(startStop(rig, loej: true, start: true).isGood && codes(rig, rig.b) == [])
        rig.fault = { _ in .flushFailed }
        #expect(startStop(rig, loej: true, start: false).check(3, 0x0c, 0) && rig.run(testUnitReady).isGood)
        #expect(startStop(rig, loej: true, start: false, noFlush: true).isGood && rig.unit.condition.isEjected)
        let empty = Rig.with { $0.isRemovable = true; $0.hasMedium = false }
        #expect(startStop(empty, loej: true, start: true).check(2, 0x3a, 0))
    }

    @Test("Stopping without LOEJ flushes and changes nothing; LOEJ needs a removable medium, power conditions change nothing")
    func stop() {
        let rig = Rig.with { $0.isRemovable = true }
        for (start, noFlush, flushes) in [(false, false, true), (false, true, false), (true, false, false), (true, true, false)] {
            rig.operations = []
            #expect(startStop(rig, loej: false, start: start, noFlush: noFlush).isGood && rig.run(testUnitReady).isGood)
            #expect(rig.operations == (flushes ? [.flush] : []))
        }
        #expect(startStop(Rig(), loej: true, start: false).check(5, 0x24, 0) && startStop(Rig(), loej: false, start: false).isGood)
        for power in 1...15 as ClosedRange<UInt8> {
            rig.operations = []
            #expect(rig.run([0x1b, 0, 0, 0, power << 4 | 2, 0]).isGood && rig.operations.isEmpty && rig.run(testUnitReady).isGood)
        }
    }

    @Test("Nobody ejects or loads what some nexus prevents from removal; it ends with the nexus, a reset, and its own word")
    func prevent() {
        let endings: [(Rig) -> Void] = [
            { $0.run([0x1e, 0, 0, 0, 0, 0], $0.b) }, { $0.unit.detach($0.b) },
            { rig in
                rig.unit.reset()
                rig.run(testUnitReady)
            },
        ]
        for end in endings {
            let rig = Rig.with { $0.isRemovable = true }
            #expect(rig.run([0x1e, 0, 0, 0, 1, 0], rig.b).isGood && rig.run([0x1e, 0, 0, 0, 0, 0], rig.a).isGood)
            #expect(startStop(rig, loej: true, start: false).check(5, 0x53, 2) && rig.run(testUnitReady).isGood && rig.unit.condition.preventsRemoval)
            end(rig)
            #expect(!rig.unit.condition.preventsRemoval && startStop(rig, loej: true, start: false).isGood)
            _ = codes(rig, rig.c)
            #expect(rig.run([0x1e, 0, 0, 0, 1, 0], rig.c).isGood)
            #expect(startStop(rig, loej: true, start: true).check(5, 0x53, 2))
        }
    }

    @Test("Removal prevented while the cache is flushed is still prevented")
    func preventWhileFlushing() {
        let rig = Rig.with { $0.isRemovable = true }
        var task = DeviceTask(nexus: rig.a, cdb: cdb([0x1b, 0, 0, 0, 2, 0]))
        guard case .medium(.flush, _) = rig.unit.begin(&task, dataOut: nil) else {
            Issue.record("no flush")
            return
        }
        rig.run([0x1e, 0, 0, 0, 1, 0], rig.b)
        guard case .done(let completion) = rig.unit.resume(&task, after: .done, buffer: nil) else { return }
        #expect(completion.sense[12] == 0x53 && rig.run(testUnitReady).isGood)
    }

    @Test("A capacity whose bytes cannot be counted is cut to what can")
    func hugeCapacity() {
        let rig = Rig.with { $0.blockCount = .max }
        #expect(rig.unit.settings.blockCount == UInt64(Int64.max) / 512)
        #expect(rig.run(sixteen(0x8f, rig.unit.settings.blockCount - 1, 1)).isGood)
        #expect(rig.run(sixteen(0x90, 0, 0)).isGood)
    }
}
