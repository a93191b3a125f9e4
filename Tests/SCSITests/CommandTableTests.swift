import Bytes
import Medium
import Testing
@testable import SCSI

@Suite struct CommandTableTests {
    @Test("The table is sorted, without doubles, and every row has its operation code and a CDB of a known length")
    func order() {
        let keys = CommandTable.commands.map { Int($0.operationCode) << 8 | Int($0.serviceAction ?? 0) }
        #expect(keys == keys.sorted())
        #expect(Set(keys).count == keys.count)
        for command in CommandTable.commands {
            #expect([6, 10, 12, 16].contains(command.length), "\(command.name)")
            #expect(command.usage[0] == command.operationCode)
            #expect(command.usage[command.length - 1] == 0)
            let expected = switch command.operationCode >> 5 { case 0: 6; case 1, 2: 10; case 4: 16; default: 12 }
            #expect(command.length == expected, "\(command.name)")
        }
    }

    @Test("Every command of tgt's disk is there")
    func complete() {
        let codes: [UInt8] = [
            0x00, 0x03, 0x04, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42,
            0x55, 0x5a, 0x5e, 0x5f, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9e, 0xa0, 0xa3, 0xa8, 0xaa, 0xae, 0xaf,
        ]
        #expect(codes == Array(Set(CommandTable.commands.map(\.operationCode))).sorted())
    }

    @Test("Every command in its plainest form is understood; with any bit more that its usage data lack it is refused with a pointer to it")
    func strayBits() {
        let rig = Rig.with { $0.isThinProvisioned = true; $0.isRemovable = true }
        for command in CommandTable.commands where command.action != .reportLUNs {
            let good = plain(command)
            let answer = rig.run(good, sending: plainData(command))
            #expect(answer.isGood || answer.isConflict && command.action == .reservationOut, "\(command.name) \(answer)")
            for byte in 1..<command.length {
                for bit in 0..<8 where command.allowedBits(byte) & 1 << bit == 0 {
                    var bytes = good
                    bytes[byte] |= 1 << bit
                    let answer = rig.run(bytes, sending: plainData(command))
                    #expect(answer.check(5, 0x24, 0) || answer.isConflict, "\(command.name) byte \(byte) bit \(bit)")
                    guard answer.code == [5, 0x24, 0] else { continue }
                    #expect(answer.sense[15] == 0xc8 | UInt8(bit) && Int(answer.sense[17]) == byte)
                }
            }
            rig.run([0x17, 0, 0, 0, 0, 0])
        }
    }

    @Test("An initiator that may only read is granted what the table calls a read; everything else is DATA PROTECT and leaves no trace")
    func readOnly() {
        let reads: Set<String> = [
            "TEST UNIT READY", "REQUEST SENSE", "INQUIRY", "REPORT LUNS", "MODE SENSE(6)", "MODE SENSE(10)", "READ CAPACITY(10)", "READ CAPACITY(16)",
            "GET LBA STATUS", "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "READ(6)", "READ(10)", "READ(12)", "READ(16)",
            "VERIFY(10)", "VERIFY(12)", "VERIFY(16)", "PRE-FETCH(10)", "PRE-FETCH(16)", "PERSISTENT RESERVE IN, READ KEYS",
            "PERSISTENT RESERVE IN, READ RESERVATION", "PERSISTENT RESERVE IN, REPORT CAPABILITIES", "PERSISTENT RESERVE IN, READ FULL STATUS",
        ]
        #expect(Set(CommandTable.commands.filter(\.isRead).map { "\($0.name)" }) == reads)
        let rig = Rig.with { $0.isThinProvisioned = true; $0.isRemovable = true }
        let (medium, condition) = (rig.medium, rig.unit.condition)
        for command in CommandTable.commands where command.action != .reportLUNs {
            rig.operations = []
            let answer = rig.run(plain(command), sending: plainData(command), mayOnlyRead: true)
            #expect(rig.unit.isRead(cdb(plain(command))) == command.isRead)
            if command.isRead { #expect(answer.isGood, "\(command.name) \(answer)") } else { #expect(answer.check(7, 0x27, 0), "\(command.name) \(answer)") }
            if !command.isRead { #expect(rig.operations.isEmpty, "\(command.name)") }
        }
        #expect(rig.medium == medium && rig.unit.condition == condition && rig.kept.isEmpty)
        #expect(rig.run([0x1a, 0, 0x3f, 0, 0xff, 0], mayOnlyRead: true).data[2] == 0x90 && rig.run([0x1a, 0, 0x3f, 0, 0xff, 0]).data[2] == 0x10)
        #expect(rig.run([0xc0, 0, 0, 0, 0, 0], mayOnlyRead: true).check(5, 0x20, 0))
    }

    @Test("NACA, LINK and protection information are refused, GROUP NUMBER is not")
    func control() {
        let rig = Rig()
        for code in [0x28, 0x2a] as [UInt8] {
            var bytes = ten(code, 0, 0)
            bytes[6] = 0x1f
            #expect(rig.run(bytes).isGood)
            for control in [0x01, 0x04] as [UInt8] {
                bytes[9] = control
                #expect(rig.run(bytes).check(5, 0x24, 0))
            }
        }
        for protect in 1..<8 as Range<UInt8> {
            for code in [0x28, 0x2a, 0x2e, 0x2f, 0x41] as [UInt8] { #expect(rig.run(ten(code, 0, 1, flags: protect << 5), sending: [UInt8](repeating: 0, count: 512)).check(5, 0x24, 0)) }
        }
    }

    @Test("Unknown operation codes and service actions have their own sense")
    func unknown() {
        let rig = Rig()
        let known = Set(CommandTable.commands.map(\.operationCode))
        for code in UInt8.min...UInt8.max where !known.contains(code) {
            #expect(rig.run([code] + [UInt8](repeating: 0, count: 15)).check(5, 0x20, 0))
            #expect(rig.unit.dataOutLength(cdb([code])) == 0)
        }
        for action in 4..<0x20 as Range<UInt8> { #expect(rig.run([0x5e, action, 0, 0, 0, 0, 0, 0, 8, 0]).check(5, 0x24, 0)) }
    }

    @Test("A controller has the commands of every device, and none that needs a medium")
    func controller() {
        let unit = Rig(LogicalUnitSettings(controller: "IET     00010000", serialNumber: "beaf10", naa: []))
        #expect(unit.run(testUnitReady).isGood)
        #expect(unit.run([0x1a, 0, 0x3f, 0, 0xff, 0]).check(5, 0x20, 0))
        #expect(unit.run(read10(0, 1)).check(5, 0x20, 0))
        #expect(unit.run([0x12, 0, 0, 0, 0xff, 0]).data[0] == 0x0c)
        let listed = unit.run([0xa3, 0x0c, 0] + [UInt8](repeating: 0, count: 5) + [0xff, 0xff, 0, 0]).data
        #expect(stride(from: 4, to: listed.count, by: 8).map { listed[$0] } == [0x00, 0x03, 0x12, 0xa0, 0xa3, 0xa3])
        #expect(unit.run([0x12, 1, 0xb0, 0, 0xff, 0]).check(5, 0x24, 0))
    }

    // MARK: REPORT SUPPORTED OPERATION CODES

    func report(_ rig: Rig, options: UInt8, _ code: UInt8 = 0, _ action: UInt16 = 0, allocated: UInt32 = 65535) -> Answer {
        rig.run([0xa3, 0x0c, options, code] + big(action) + big(allocated) + [0, 0])
    }

    @Test("REPORT SUPPORTED OPERATION CODES lists the table, and describes each row alone", arguments: [false, true])
    func reported(timeouts: Bool) {
        let rig = Rig.with { $0.isThinProvisioned = true }
        let flag: UInt8 = timeouts ? 0x80 : 0
        let all = report(rig, options: flag).data
        let size = timeouts ? 20 : 8
        #expect(number(all[0..<4]) == UInt64(all.count - 4))
        #expect((all.count - 4) / size == CommandTable.commands.count)
        for (index, command) in CommandTable.commands.enumerated() {
            let entry = Array(all[4 + index * size..<4 + (index + 1) * size])
            #expect(entry[0] == command.operationCode && number(entry[2..<4]) == UInt64(command.serviceAction ?? 0))
            #expect(entry[5] == (timeouts ? 2 : 0) | (command.serviceAction == nil ? 0 : 1) && entry[7] == UInt8(command.length))
            if timeouts { #expect(Array(entry[8..<10]) == [0, 10]) }
            let action = UInt16(command.serviceAction ?? 0)
            let right: UInt8 = command.serviceAction == nil ? 1 : 2
            #expect(report(rig, options: flag | (3 - right), command.operationCode, action).check(5, 0x24, 0))
            for option in [right, 3] {
                let one = report(rig, options: flag | option, command.operationCode, action).data
                #expect(one[1] == flag | 0x03 && number(one[2..<4]) == UInt64(command.length))
                #expect(one.count == 4 + command.length + (timeouts ? 12 : 0))
                #expect(Array(one[4..<4 + command.length]) == (0..<command.length).map { command.usage[$0] })
            }
        }
    }

    @Test("What is not supported is reported as such")
    func unsupported() {
        let rig = Rig()
        #expect(report(rig, options: 1, 0x4d).data == [0, 1, 0, 0])
        #expect(report(rig, options: 2, 0x5e, 9).data == [0, 1, 0, 0])
        #expect(report(rig, options: 2, 0x5e, 0x0101).data == [0, 1, 0, 0])
        #expect(report(rig, options: 3, 0x28, 1).data == [0, 1, 0, 0])
        #expect(report(rig, options: 1, 0x42).data == [0, 1, 0, 0], "UNMAP, without thin provisioning")
        #expect(report(rig, options: 4).check(5, 0x24, 0))
        #expect(rig.run([0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]).data == [0xd8, 0, 0, 0])
        #expect(rig.run([0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 255, 0, 0]).data.count == 16)
    }

    // MARK: What commands need

    @Test("Write protection stops what writes and nothing else", arguments: [true, false])
    func writeProtection(byAdministrator: Bool) {
        for command in CommandTable.commands where command.action != .reportLUNs {
            let rig = Rig.with { $0.isThinProvisioned = true; $0.isReadOnly = byAdministrator }
            if !byAdministrator {
                #expect(rig.run([0x15, 0x10, 0, 0, 16, 0], sending: [0, 0, 0, 0, 0x0a, 10, 0x22, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0]).isGood)
            }
            let answer = rig.run(plain(command), sending: plainData(command))
            let isProtected = answer.check(7, 0x27, byAdministrator ? 0 : 2)
            let writes: Set<Action> = [.write, .writeAndVerify, .writeSame, .unmap, .compareAndWrite, .orWrite, .formatUnit]
            #expect(isProtected == writes.contains(command.action), "\(command.name) \(answer)")
        }
    }

    @Test("Without a medium, or offline, commands that need one say so; the others work")
    func readiness() {
        let needing = Set(CommandTable.commands.filter { $0.needs.contains(.medium) }.map { "\($0.name)" })
        let cases: [(code: [UInt8], change: (inout LogicalUnitSettings) -> Void)] = [
            ([2, 0x04, 0x03], { $0.isOnline = false }),
            ([2, 0x3a, 0x00], { $0.isRemovable = true; $0.isOnline = false }),
            ([2, 0x3a, 0x00], { $0.isRemovable = true; $0.hasMedium = false }),
            ([2, 0x3a, 0x00], { $0.isRemovable = true; $0.hasMedium = false; $0.blockCount = 0 }),
        ]
        for (code, change) in cases {
            for command in CommandTable.commands where command.action != .reportLUNs {
                let rig = Rig.with({ change(&$0); $0.isThinProvisioned = true })
                let answer = rig.run(plain(command), sending: plainData(command))
                #expect((answer.code == code) == needing.contains("\(command.name)"), "\(command.name) \(answer)")
                #expect(rig.operations.isEmpty)
            }
        }
    }

    @Test("Every answer is cut to each allocation length")
    func allocation() {
        let rig = Rig.with { $0.isThinProvisioned = true }
        let commands: [(bytes: [UInt8], at: Int, width: Int)] = [
            ([0x12, 0, 0, 0, 0, 0], 3, 2), ([0x12, 1, 0x00, 0, 0, 0], 3, 2), ([0x12, 1, 0x80, 0, 0, 0], 3, 2), ([0x12, 1, 0x83, 0, 0, 0], 3, 2),
            ([0x12, 1, 0x86, 0, 0, 0], 3, 2), ([0x12, 1, 0xb0, 0, 0, 0], 3, 2), ([0x12, 1, 0xb1, 0, 0, 0], 3, 2), ([0x12, 1, 0xb2, 0, 0, 0], 3, 2),
            ([0x03, 0, 0, 0, 0, 0], 4, 1), ([0x03, 1, 0, 0, 0, 0], 4, 1), ([0x1a, 0, 0x3f, 0xff, 0, 0], 4, 1),
            ([0x5a, 0x10, 0x3f, 0xff, 0, 0, 0, 0, 0, 0], 7, 2), ([0x5e, 0, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2), ([0x5e, 1, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),
            ([0x5e, 2, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2), ([0x5e, 3, 0, 0, 0, 0, 0, 0, 0, 0], 7, 2),
            ([0x9e, 0x10] + [UInt8](repeating: 0, count: 14), 10, 4), ([0x9e, 0x12] + [UInt8](repeating: 0, count: 14), 10, 4),
            ([0xa3, 0x0c] + [UInt8](repeating: 0, count: 10), 6, 4), ([0xa3, 0x0c, 1, 0x28] + [UInt8](repeating: 0, count: 8), 6, 4),
            ([0xa3, 0x0d] + [UInt8](repeating: 0, count: 10), 6, 4),
        ]
        rig.run([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], sending: big(UInt64(0)) + big(UInt64(7)) + [UInt8](repeating: 0, count: 8))
        for (bytes, at, width) in commands {
            func run(_ length: Int) -> Answer {
                var bytes = bytes
                bytes.replaceSubrange(at..<at + width, with: big(UInt32(length)).suffix(width))
                return rig.run(bytes)
            }
            let whole = run(width == 1 ? 255 : 65535).data
            #expect(!whole.isEmpty)
            for length in 0...min(whole.count + 1, width == 1 ? 255 : 65535) {
                let answer = run(length)
                #expect(answer.isGood && answer.data == Array(whole.prefix(length)))
            }
        }
    }
}
