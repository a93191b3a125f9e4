/// What a command does: the handlers' names.
enum Action: Sendable {
    case testUnitReady, requestSense, inquiry, reportLUNs, sendDiagnostic
    case reserve, release, reservationIn, reservationOut
    case modeSense, modeSelect, startStopUnit, preventAllow, formatUnit
    case readCapacity10, readCapacity16, statusOfBlocks
    case reportOperationCodes, reportTaskManagement
    case read, write, writeAndVerify, verify, orWrite, writeSame, compareAndWrite, prefetch, synchronize, unmap

    /// Whether it leaves everything as it is: the medium, what is on it, and what other initiators find. These are the commands of
    /// an initiator that may only read. Of those that Write Exclusive allows to everybody (SPC-4 table 66, SBC-3 table 14), the ones
    /// that change something for others (preventing removal, starting and stopping) are none; MODE SENSE is one, for it says
    /// that writing is not allowed.
    var isRead: Bool {
        switch self {
        case .testUnitReady, .requestSense, .inquiry, .reportLUNs, .reservationIn, .modeSense, .readCapacity10, .readCapacity16,
             .statusOfBlocks, .reportOperationCodes, .reportTaskManagement, .read, .verify, .prefetch: true
        case .sendDiagnostic, .reserve, .release, .reservationOut, .modeSelect, .startStopUnit, .preventAllow, .formatUnit, .write,
             .writeAndVerify, .orWrite, .writeSame, .compareAndWrite, .synchronize, .unmap: false
        }
    }
}

/// Where a CDB has its LOGICAL BLOCK ADDRESS and its number of blocks.
enum Addressing: Sendable {
    case none
    /// 21 bits at byte 1; one byte at byte 4, in which 0 means 256 (SBC-3 §5.10).
    case six
    /// 32 bits at byte 2; 16 bits at byte 7.
    case ten
    /// 32 bits at byte 2; 32 bits at byte 6.
    case twelve
    /// 64 bits at byte 2; 32 bits at byte 10.
    case sixteen
    /// 64 bits at byte 2; one byte at byte 13 (COMPARE AND WRITE).
    case short16
    /// 64 bits at byte 2; no number of blocks (GET LBA STATUS).
    case addressOnly16

    /// Where the number of blocks stands, for field pointers.
    var countByte: Int {
        switch self {
        case .none, .addressOnly16: 2
        case .six: 4
        case .ten: 7
        case .twelve: 6
        case .sixteen: 10
        case .short16: 13
        }
    }
}

/// What a command takes as Data-Out.
enum DataOut: Sendable {
    case none
    /// As many blocks as the CDB says.
    case blocks
    /// None, as many blocks as the CDB says, or one: BYTCHK (SBC-3 §5.36).
    case verifiedBlocks
    /// One block, unless NDOB is set.
    case oneBlock
    /// The blocks to compare and the blocks to write.
    case twiceBlocks
    /// A parameter list whose length stands in one byte, two or four at this byte of the CDB.
    case list8(Int), list16(Int), list32(Int)
}

/// How a command gets on with reservations held by others: the rows of SPC-2 table 10, SPC-4 tables 66 and 67 and SBC-3
/// table 14, as far as they differ.
enum Sharing: Sendable {
    /// Allowed whatever is reserved.
    case free
    /// Stopped by RESERVE(6) only.
    case unreserved
    /// Stopped by RESERVE(6) and by exclusive access.
    case reads
    /// Stopped by every reservation.
    case writes
    /// `free` if it allows removal, else `writes`.
    case preventAllow
    /// `free` if it starts the unit, else `writes`.
    case startStop
    /// RESERVE(6) and RELEASE(6): conflict with any persistent registration (SPC-2 §5.5.1, CRH zero).
    case reserve, release
    /// Conflicts with any RESERVE(6); knows the persistent rules itself.
    case reservationOut
}

/// What a command needs of the logical unit before it may start.
struct Needs: OptionSet, Sendable {
    let rawValue: UInt8
    /// A medium that is there and online.
    static let medium = Needs(rawValue: 1)
    /// A medium that is not write protected, and no flush that failed.
    static let writing = Needs(rawValue: 2)
    /// Logical block provisioning management.
    static let thin = Needs(rawValue: 4)
    /// A unit attention does not stop it (SAM-5 §5.14.1).
    static let noAttention = Needs(rawValue: 8)
}

struct DeviceTypes: OptionSet, Sendable {
    let rawValue: UInt8
    static let disk = DeviceTypes(rawValue: 1)
    static let controller = DeviceTypes(rawValue: 2)
    static let all: DeviceTypes = [.disk, .controller]

    init(rawValue: UInt8) { self.rawValue = rawValue }
    init(_ type: LogicalUnitSettings.DeviceType) { self = type == .disk ? .disk : .controller }
}

/// One command: all that is known of it before a CDB arrives.
struct Command: Sendable {
    let name: StaticString
    let operationCode: UInt8
    /// In bits 4…0 of byte 1, where the operation code has service actions.
    let serviceAction: UInt8?
    /// Bytes of the CDB.
    let length: Int
    /// CDB USAGE DATA (SPC-4 §6.35.3): the bits that may be set; the operation code and service action themselves.
    let usage: InlineArray<16, UInt8>
    /// The bits that must be zero, as two big-endian words.
    private var reserved: (UInt64, UInt64) = (0, 0)
    let action: Action
    /// What an initiator that may only read is granted.
    let isRead: Bool
    let addressing: Addressing
    let dataOut: DataOut
    let sharing: Sharing
    let needs: Needs
    let devices: DeviceTypes

    init(_ name: StaticString, _ usage: [UInt8], service: Bool = false, _ action: Action, at addressing: Addressing = .none,
         out: DataOut = .none, _ sharing: Sharing, needs: Needs = [], on devices: DeviceTypes = .disk) {
        self.name = name
        operationCode = usage[0]
        serviceAction = service ? usage[1] & 0x1f : nil
        length = usage.count
        var padded = InlineArray<16, UInt8>(repeating: 0)
        for index in usage.indices { padded[index] = usage[index] }
        self.usage = padded
        self.action = action
        isRead = action.isRead
        self.addressing = addressing
        dataOut = out
        self.sharing = sharing
        self.needs = needs
        self.devices = devices
        var others = InlineArray<16, UInt8>(repeating: 0)
        for index in 1..<length { others[index] = ~allowedBits(index) }
        reserved = (others.span.uint64(at: 0), others.span.uint64(at: 8))
    }

    /// The bits that may be set in byte `index` of the CDB. In CONTROL, vendor-specific bits are nobody's business; NACA, LINK
    /// and the reserved ones must be zero (SAM-5 §5.2).
    func allowedBits(_ index: Int) -> UInt8 {
        if index == length - 1 { return 0xc0 }
        if index == 1, serviceAction != nil { return usage[1] | 0x1f }
        return usage[index]
    }

    /// Where a CDB has a bit that must be zero: the byte, and its highest such bit.
    func strayBit(_ cdb: CommandDescriptorBlock) -> (byte: Int, bit: UInt8)? {
        let bytes = cdb.bytes.span
        let stray = (bytes.uint64(at: 0) & reserved.0, bytes.uint64(at: 8) & reserved.1)
        guard stray.0 | stray.1 != 0 else { return nil }
        let zeros = stray.0 != 0 ? stray.0.leadingZeroBitCount : 64 + stray.1.leadingZeroBitCount
        return (zeros / 8, UInt8(7 - zeros % 8))
    }
}

/// Every command, sorted by operation code and service action.
enum CommandTable {
    static let commands: [Command] = [
        Command("TEST UNIT READY", [0x00, 0, 0, 0, 0, 0], .testUnitReady, .unreserved, needs: .medium, on: .all),
        Command("REQUEST SENSE", [0x03, 0x01, 0, 0, 0xff, 0], .requestSense, .free, needs: .noAttention, on: .all),
        Command("FORMAT UNIT", [0x04, 0, 0, 0, 0, 0], .formatUnit, .writes, needs: [.medium, .writing]),
        Command("READ(6)", [0x08, 0x1f, 0xff, 0xff, 0xff, 0], .read, at: .six, .reads, needs: .medium),
        Command("WRITE(6)", [0x0a, 0x1f, 0xff, 0xff, 0xff, 0], .write, at: .six, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("INQUIRY", [0x12, 0x01, 0xff, 0xff, 0xff, 0], .inquiry, .free, needs: .noAttention, on: .all),
        Command("MODE SELECT(6)", [0x15, 0x10, 0, 0, 0xff, 0], .modeSelect, out: .list8(4), .writes),
        Command("RESERVE(6)", [0x16, 0, 0, 0, 0, 0], .reserve, .reserve),
        Command("RELEASE(6)", [0x17, 0, 0, 0, 0, 0], .release, .release),
        Command("MODE SENSE(6)", [0x1a, 0x08, 0xff, 0xff, 0xff, 0], .modeSense, .writes),
        Command("START STOP UNIT", [0x1b, 0x01, 0, 0x0f, 0xf7, 0], .startStopUnit, .startStop),
        Command("SEND DIAGNOSTIC", [0x1d, 0x14, 0, 0, 0, 0], .sendDiagnostic, .writes),
        Command("PREVENT ALLOW MEDIUM REMOVAL", [0x1e, 0, 0, 0, 0x01, 0], .preventAllow, .preventAllow),
        Command("READ CAPACITY(10)", [0x25, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x01, 0], .readCapacity10, at: .ten, .free, needs: .medium),
        Command("READ(10)", ten(0x28, 0x18), .read, at: .ten, .reads, needs: .medium),
        Command("WRITE(10)", ten(0x2a, 0x18), .write, at: .ten, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("WRITE AND VERIFY(10)", ten(0x2e, 0x16), .writeAndVerify, at: .ten, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("VERIFY(10)", ten(0x2f, 0x16), .verify, at: .ten, out: .verifiedBlocks, .reads, needs: .medium),
        Command("PRE-FETCH(10)", ten(0x34, 0x02), .prefetch, at: .ten, .reads, needs: .medium),
        Command("SYNCHRONIZE CACHE(10)", ten(0x35, 0x06), .synchronize, at: .ten, .writes, needs: .medium),
        Command("WRITE SAME(10)", ten(0x41, 0x08), .writeSame, at: .ten, out: .oneBlock, .writes, needs: [.medium, .writing]),
        Command("UNMAP", [0x42, 0, 0, 0, 0, 0, 0x1f, 0xff, 0xff, 0], .unmap, out: .list16(7), .writes, needs: [.medium, .writing, .thin]),
        Command("MODE SELECT(10)", [0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0], .modeSelect, out: .list16(7), .writes),
        Command("MODE SENSE(10)", [0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0], .modeSense, .writes),
        reservationIn("PERSISTENT RESERVE IN, READ KEYS", 0x00),
        reservationIn("PERSISTENT RESERVE IN, READ RESERVATION", 0x01),
        reservationIn("PERSISTENT RESERVE IN, REPORT CAPABILITIES", 0x02),
        reservationIn("PERSISTENT RESERVE IN, READ FULL STATUS", 0x03),
        reservationOut("PERSISTENT RESERVE OUT, REGISTER", 0x00),
        reservationOut("PERSISTENT RESERVE OUT, RESERVE", 0x01),
        reservationOut("PERSISTENT RESERVE OUT, RELEASE", 0x02),
        reservationOut("PERSISTENT RESERVE OUT, CLEAR", 0x03),
        reservationOut("PERSISTENT RESERVE OUT, PREEMPT", 0x04),
        reservationOut("PERSISTENT RESERVE OUT, PREEMPT AND ABORT", 0x05),
        reservationOut("PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", 0x06),
        reservationOut("PERSISTENT RESERVE OUT, REGISTER AND MOVE", 0x07),
        Command("READ(16)", sixteen(0x88, 0x18), .read, at: .sixteen, .reads, needs: .medium),
        Command("COMPARE AND WRITE", [0x89, 0x18] + any(8) + [0, 0, 0, 0xff, 0x1f, 0], .compareAndWrite, at: .short16, out: .twiceBlocks,
                .writes, needs: [.medium, .writing]),
        Command("WRITE(16)", sixteen(0x8a, 0x18), .write, at: .sixteen, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("ORWRITE(16)", sixteen(0x8b, 0x18), .orWrite, at: .sixteen, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("WRITE AND VERIFY(16)", sixteen(0x8e, 0x16), .writeAndVerify, at: .sixteen, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("VERIFY(16)", sixteen(0x8f, 0x16), .verify, at: .sixteen, out: .verifiedBlocks, .reads, needs: .medium),
        Command("PRE-FETCH(16)", sixteen(0x90, 0x02), .prefetch, at: .sixteen, .reads, needs: .medium),
        Command("SYNCHRONIZE CACHE(16)", sixteen(0x91, 0x06), .synchronize, at: .sixteen, .writes, needs: .medium),
        Command("WRITE SAME(16)", sixteen(0x93, 0x09), .writeSame, at: .sixteen, out: .oneBlock, .writes, needs: [.medium, .writing]),
        Command("READ CAPACITY(16)", [0x9e, 0x10] + any(12) + [0x01, 0], service: true, .readCapacity16, at: .addressOnly16, .free, needs: .medium),
        Command("GET LBA STATUS", [0x9e, 0x12] + any(12) + [0, 0], service: true, .statusOfBlocks, at: .addressOnly16, .reads, needs: .medium),
        Command("REPORT LUNS", [0xa0, 0, 0xff, 0, 0, 0] + any(4) + [0, 0], .reportLUNs, .free, needs: .noAttention, on: .all),
        Command("REPORT SUPPORTED OPERATION CODES", [0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff] + any(4) + [0, 0], service: true,
                .reportOperationCodes, .reads, on: .all),
        Command("REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", [0xa3, 0x0d, 0x80, 0, 0, 0] + any(4) + [0, 0], service: true,
                .reportTaskManagement, .reads, on: .all),
        Command("READ(12)", twelve(0xa8, 0x18), .read, at: .twelve, .reads, needs: .medium),
        Command("WRITE(12)", twelve(0xaa, 0x18), .write, at: .twelve, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("WRITE AND VERIFY(12)", twelve(0xae, 0x16), .writeAndVerify, at: .twelve, out: .blocks, .writes, needs: [.medium, .writing]),
        Command("VERIFY(12)", twelve(0xaf, 0x16), .verify, at: .twelve, out: .verifiedBlocks, .reads, needs: .medium),
    ]

    private static func any(_ count: Int) -> [UInt8] { [UInt8](repeating: 0xff, count: count) }
    /// Flags, address, GROUP NUMBER, count.
    private static func ten(_ code: UInt8, _ flags: UInt8) -> [UInt8] { [code, flags] + any(4) + [0x1f, 0xff, 0xff, 0] }
    private static func twelve(_ code: UInt8, _ flags: UInt8) -> [UInt8] { [code, flags] + any(8) + [0x1f, 0] }
    private static func sixteen(_ code: UInt8, _ flags: UInt8) -> [UInt8] { [code, flags] + any(12) + [0x1f, 0] }

    private static func reservationIn(_ name: StaticString, _ service: UInt8) -> Command {
        Command(name, [0x5e, service, 0, 0, 0, 0, 0, 0xff, 0xff, 0], service: true, .reservationIn, .unreserved)
    }
    private static func reservationOut(_ name: StaticString, _ service: UInt8) -> Command {
        Command(name, [0x5f, service, 0xff, 0, 0] + any(4) + [0], service: true, .reservationOut, out: .list32(5), .reservationOut)
    }

    /// For each operation code, where its commands start in `commands`; -1 if it has none.
    private static let starts: [Int] = {
        var starts = [Int](repeating: -1, count: 256)
        for (index, command) in commands.enumerated().reversed() { starts[Int(command.operationCode)] = index }
        return starts
    }()

    enum LookUp {
        case command(Int)
        case unknownOperationCode
        case unknownServiceAction
    }

    /// The row for an operation code and, if it has any, service action, on devices of one type.
    static func find(_ operationCode: UInt8, service: UInt8, on devices: DeviceTypes) -> LookUp {
        var index = starts[Int(operationCode)]
        guard index >= 0 else { return .unknownOperationCode }
        var result = LookUp.unknownOperationCode
        while index < commands.count, commands[index].operationCode == operationCode {
            if commands[index].devices.isSuperset(of: devices) {
                guard let action = commands[index].serviceAction, action != service else { return .command(index) }
                result = .unknownServiceAction
            }
            index += 1
        }
        return result
    }
}
