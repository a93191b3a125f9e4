import Bytes

extension DeviceServer {
    /// REQUEST SENSE (SPC-4 §6.39): a pending unit attention, which is then told, or that there is nothing.
    mutating func requestSense(_ task: borrowing DeviceTask) -> Step {
        let sense = takeAttention(task.nexus).map { Sense(.unitAttention, $0.code) } ?? Sense(.noSense, .none)
        let data = sense.encoded(descriptorFormat: task.cdb.bytes[1] & 0x01 != 0)
        return .done(.data(data, allocated: Int(task.cdb.bytes[4])))
    }

    /// START STOP UNIT (SBC-3 §5.25). There is no motor: stopping flushes, LOEJ ejects and loads.
    mutating func startStopUnit(_ task: inout DeviceTask) throws(Refusal) -> Step {
        let flags = task.cdb.bytes[4]
        // With a power condition the other bits count for nothing (SBC-3 §5.25), and there is none to change to.
        guard flags & 0xf0 == 0 else { return .done(Completion()) }
        let starts = flags & 0x01 != 0, movesMedium = flags & 0x02 != 0, skipsFlush = flags & 0x04 != 0
        if movesMedium {
            guard settings.isRemovable else { throw .check(.field(4, bit: 1)) }
            guard preventing.isEmpty else { throw .check(Sense(.illegalRequest, .mediumRemovalPrevented)) }
        }
        if starts {
            guard movesMedium else { return .done(Completion()) }
            guard settings.isOnline, settings.hasMedium else { throw .check(Sense(.notReady, .mediumNotPresent)) }
            if isEjected {
                isEjected = false
                post(.notReadyToReadyChange, to: .allBut(task.nexus))
            }
            return .done(Completion())
        }
        guard hasAccessibleMedium, !skipsFlush else {
            if movesMedium { isEjected = true }
            return .done(Completion())
        }
        try requireNoFailedFlush()
        task.phase = movesMedium ? .eject : .good
        return .medium(.flush, bufferLength: 0)
    }

    // MARK: What is supported

    /// REPORT SUPPORTED OPERATION CODES (SPC-4 §6.35).
    func reportOperationCodes(_ cdb: CommandDescriptorBlock) throws(Refusal) -> Step {
        let bytes = cdb.bytes.span
        let allocated = Int(bytes.uint32(at: 6))
        let withTimeouts = bytes[2] & 0x80 != 0
        let code = bytes[3], service = bytes.uint16(at: 4)
        let mine = CommandTable.commands.filter(isOffered)
        switch bytes[2] & 0x07 {
        case 0:
            return .done(.data(allOperationCodes(mine, withTimeouts: withTimeouts), allocated: allocated))
        case 1:
            guard !mine.contains(where: { $0.operationCode == code && $0.serviceAction != nil }) else { throw .check(.field(2, bit: 2)) }
            let command = mine.first { $0.operationCode == code }
            return .done(.data(oneCommand(command, withTimeouts: withTimeouts), allocated: allocated))
        case 2:
            guard !mine.contains(where: { $0.operationCode == code && $0.serviceAction == nil }) else { throw .check(.field(2, bit: 2)) }
            let command = mine.first { $0.operationCode == code && $0.serviceAction.map(UInt16.init) == service }
            return .done(.data(oneCommand(command, withTimeouts: withTimeouts), allocated: allocated))
        case 3:
            let command = mine.first { $0.operationCode == code && UInt16($0.serviceAction ?? 0) == service }
            return .done(.data(oneCommand(command, withTimeouts: withTimeouts), allocated: allocated))
        default: throw .check(.field(2, bit: 2))
        }
    }

    private func isOffered(_ command: Command) -> Bool {
        command.devices.isSuperset(of: deviceTypes) && (settings.isThinProvisioned || !command.needs.contains(.thin))
    }

    /// A command timeouts descriptor that reports none (SPC-4 §6.35.4).
    private var timeouts: [UInt8] { [0x00, 0x0a] + [UInt8](repeating: 0, count: 10) }

    private func allOperationCodes(_ commands: [Command], withTimeouts: Bool) -> [UInt8] {
        var descriptors: [UInt8] = []
        for command in commands {
            let flags: UInt8 = (withTimeouts ? 0x02 : 0) | (command.serviceAction != nil ? 0x01 : 0)
            descriptors += [command.operationCode, 0, 0, command.serviceAction ?? 0, 0, flags, 0, UInt8(command.length)]
            if withTimeouts { descriptors += timeouts }
        }
        var data: [UInt8] = []
        data.append(bigEndian: UInt32(descriptors.count))
        return data + descriptors
    }

    private func oneCommand(_ command: Command?, withTimeouts: Bool) -> [UInt8] {
        guard let command else { return [0, 0x01, 0, 0] }
        let usage = (0..<command.length).map { command.usage[$0] }
        return [0, (withTimeouts ? 0x80 : 0) | 0x03, 0, UInt8(command.length)] + usage + (withTimeouts ? timeouts : [])
    }

    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.36): ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET.
    func reportTaskManagement(_ cdb: CommandDescriptorBlock) -> Step {
        let isExtended = cdb.bytes[2] & 0x80 != 0
        let functions: UInt8 = 0x80 | 0x40 | 0x10 | 0x08
        let data: [UInt8] = isExtended ? [functions, 0, 0, 12] + [UInt8](repeating: 0, count: 12) : [functions, 0, 0, 0]
        return .done(.data(data, allocated: Int(cdb.bytes.span.uint32(at: 6))))
    }
}
