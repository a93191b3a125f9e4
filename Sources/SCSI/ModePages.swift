import Bytes
/// One mode page (SPC-4 §7.5): the bytes behind its header, and which bits of them an initiator may change.
struct ModePage: Sendable {
    let code: UInt8
    let subpage: UInt8
    let defaults: [UInt8]
    let changeable: [UInt8]
    var current: [UInt8]

    init(_ code: UInt8, subpage: UInt8 = 0, _ defaults: [UInt8], changeable: [Int: UInt8] = [:]) {
        self.code = code
        self.subpage = subpage
        self.defaults = defaults
        var mask = [UInt8](repeating: 0, count: defaults.count)
        for (index, bits) in changeable { mask[index] = bits }
        self.changeable = mask
        current = defaults
    }

    /// The same page as an administrator wants it.
    func replaced(by bytes: [UInt8]) -> ModePage {
        var mask: [Int: UInt8] = [:]
        for (index, bits) in changeable.enumerated() { mask[index] = bits }
        return ModePage(code, subpage: subpage, bytes, changeable: mask)
    }

    /// The page with its header, holding `bytes`.
    func encoded(_ bytes: [UInt8]) -> [UInt8] {
        guard subpage != 0 else { return [code, UInt8(bytes.count)] + bytes }
        var page: [UInt8] = [code | 0x40, subpage]
        page.append(bigEndian: UInt16(bytes.count))
        return page + bytes
    }
}

/// The mode pages of a disk and what the device server reads from them.
struct ModePages: Sendable {
    private(set) var pages: [ModePage]
    /// WCE of the caching page: writes need not be on stable storage when they are answered.
    private(set) var writeCacheEnabled = true
    /// SWP of the control page.
    private(set) var softwareWriteProtected = false
    /// D_SENSE of the control page.
    private(set) var descriptorSense = false

    static let caching: UInt8 = 0x08
    static let control: UInt8 = 0x0a
    private static let allPages: UInt8 = 0x3f
    private static let allSubpages: UInt8 = 0xff

    init(_ settings: LogicalUnitSettings) {
        guard settings.deviceType == .disk else {
            pages = []
            descriptorSense = settings.descriptorSense
            return
        }
        let zeros = { (count: Int) in [UInt8](repeating: 0, count: count) }
        pages = [
            // Disconnect-reconnect (SPC-4 §7.5.10): nothing limited.
            ModePage(0x02, zeros(14)),
            // Caching (SBC-3 §6.5.5): DISC, WCE; prefetch without bounds; FSW; 20 segments.
            ModePage(Self.caching, [0x14, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80, 0x14, 0, 0, 0, 0, 0, 0], changeable: [0: 0x04]),
            // Control (SPC-4 §7.5.8): TST one task set per nexus, GLTSD; QUEUE ALGORITHM MODIFIER unrestricted.
            ModePage(Self.control, [settings.descriptorSense ? 0x26 : 0x22, 0x10, 0, 0, 0, 0, 0, 0, 0, 0], changeable: [0: 0x04, 2: 0x08]),
            // Control extension (SPC-4 §7.5.9).
            ModePage(Self.control, subpage: 0x01, zeros(28)),
            // Informational exceptions control (SPC-4 §7.5.11): DEXCPT, nothing is reported.
            ModePage(0x1c, [0x08] + zeros(9)),
        ]
        for override in settings.modePages { replace(override) }
        derive()
    }

    /// A page that exists must keep its length: what we read from it stands at fixed places. Others are added as they are.
    private mutating func replace(_ override: LogicalUnitSettings.ModePageOverride) {
        let longest = override.subpage == 0 ? 0xff : 0xffff
        guard override.page < Self.allPages, override.subpage < Self.allSubpages, override.data.count <= longest else { return }
        if let index = pages.firstIndex(where: { $0.code == override.page && $0.subpage == override.subpage }) {
            guard pages[index].defaults.count == override.data.count else { return }
            pages[index] = pages[index].replaced(by: override.data)
        } else {
            pages.append(ModePage(override.page, subpage: override.subpage, override.data))
            pages.sort { ($0.code, $0.subpage) < ($1.code, $1.subpage) }
        }
    }

    private mutating func derive() {
        for page in pages where page.subpage == 0 {
            if page.code == Self.caching { writeCacheEnabled = page.current[0] & 0x04 != 0 }
            if page.code == Self.control {
                softwareWriteProtected = page.current[2] & 0x08 != 0
                descriptorSense = page.current[0] & 0x04 != 0
            }
        }
    }

    /// Every page as it is by default.
    mutating func reset() {
        for index in pages.indices { pages[index].current = pages[index].defaults }
        derive()
    }

    /// The pages that a MODE SENSE asks for; nil if there are none such.
    func selected(code: UInt8, subpage: UInt8, control: UInt8) -> [UInt8]? {
        var bytes: [UInt8] = []
        var found = code == Self.allPages && (subpage == 0 || subpage == Self.allSubpages)
        for page in pages where code == Self.allPages || page.code == code {
            guard page.subpage == subpage || subpage == Self.allSubpages else { continue }
            found = found || code == page.code
            guard found else { continue }
            switch control {
            case 1: bytes += page.encoded(page.changeable)
            case 2: bytes += page.encoded(page.defaults)
            default: bytes += page.encoded(page.current)
            }
        }
        return found ? bytes : nil
    }

    /// What the pages become by the pages of a MODE SELECT parameter list from byte `start` on.
    func changed(by list: [UInt8], from start: Int) throws(Sense) -> ModePages {
        var result = self
        var position = start
        while position < list.count {
            let rest = list.count - position
            let hasSubpage = list[position] & 0x40 != 0
            let header = hasSubpage ? 4 : 2
            guard rest >= header else { throw Sense.listLength }
            let code = list[position] & 0x3f
            let subpage = hasSubpage ? list[position + 1] : 0
            let length = hasSubpage ? Int(list.span.uint16(at: position + 2)) : Int(list[position + 1])
            guard let index = result.pages.firstIndex(where: { $0.code == code && $0.subpage == subpage && (subpage != 0) == hasSubpage }) else {
                throw Sense.parameter(position, bit: 5)
            }
            guard length == result.pages[index].current.count else { throw Sense.parameter(position + (hasSubpage ? 2 : 1)) }
            guard rest >= header + length else { throw Sense.listLength }
            let body = position + header
            for offset in 0..<length {
                let difference = list[body + offset] ^ result.pages[index].current[offset]
                guard difference & ~result.pages[index].changeable[offset] == 0 else { throw Sense.parameter(body + offset) }
                result.pages[index].current[offset] = list[body + offset]
            }
            position = body + length
        }
        result.derive()
        return result
    }

    func differs(from other: ModePages) -> Bool {
        pages.count != other.pages.count || zip(pages, other.pages).contains { $0.current != $1.current }
    }
}

extension DeviceServer {
    /// MODE SENSE(6) and (10) (SPC-4 §6.13, §6.14).
    func modeSense(_ cdb: CommandDescriptorBlock, mayOnlyRead: Bool) throws(Refusal) -> Step {
        let isSix = cdb.operationCode == 0x1a
        let allocated = isSix ? Int(cdb.bytes[4]) : Int(cdb.bytes.span.uint16(at: 7))
        let pageControl = cdb.bytes[2] >> 6
        guard pageControl != 3 else { throw .check(Sense(.illegalRequest, .savingParametersNotSupported)) }
        guard let selected = pages.selected(code: cdb.bytes[2] & 0x3f, subpage: cdb.bytes[3], control: pageControl) else {
            throw .check(.field(2, bit: 5))
        }
        let longBlocks = !isSix && cdb.bytes[1] & 0x10 != 0
        let descriptor = cdb.bytes[1] & 0x08 != 0 ? [] : blockDescriptor(long: longBlocks)
        // Write protected, DPO and FUA supported (SBC-3 §6.5.1).
        let deviceSpecific: UInt8 = (isWriteProtected || mayOnlyRead ? 0x80 : 0) | 0x10
        let body = descriptor + selected
        var data: [UInt8]
        if isSix {
            guard let length = UInt8(exactly: body.count + 3) else { throw .check(.field(2, bit: 5)) }
            data = [length, 0, deviceSpecific, UInt8(descriptor.count)]
        } else {
            guard let length = UInt16(exactly: body.count + 6) else { throw .check(.field(2, bit: 5)) }
            data = []
            data.append(bigEndian: length)
            data += [0, deviceSpecific, longBlocks && !descriptor.isEmpty ? 1 : 0, 0]
            data.append(bigEndian: UInt16(descriptor.count))
        }
        return .done(.data(data + body, allocated: allocated))
    }

    /// The mode parameter block descriptor (SBC-3 §6.5.2).
    private func blockDescriptor(long: Bool) -> [UInt8] {
        let blocks = hasAccessibleMedium ? settings.blockCount : 0
        var bytes: [UInt8] = []
        if long {
            bytes.append(bigEndian: blocks)
            bytes += [0, 0, 0, 0]
        } else {
            bytes.append(bigEndian: UInt32(clamping: blocks))
        }
        bytes.append(bigEndian: UInt32(settings.blockLength))
        return bytes
    }

    /// MODE SELECT(6) and (10) (SPC-4 §6.11, §6.12). Switching the write cache off first flushes it.
    mutating func modeSelect(_ task: inout DeviceTask, _ list: [UInt8]) throws(Refusal) -> Step {
        let isSix = task.cdb.operationCode == 0x15
        guard !list.isEmpty else { return .done(Completion()) }
        guard task.cdb.bytes[1] & 0x10 != 0 else { throw .check(.field(1, bit: 4)) }
        let changed: ModePages
        do throws(Sense) {
            changed = try pages.changed(by: list, from: try endOfBlockDescriptors(list, isSix: isSix))
        } catch {
            throw .check(error)
        }
        if pages.writeCacheEnabled, !changed.writeCacheEnabled, hasAccessibleMedium, task.phase == .start {
            try requireNoFailedFlush()
            task.phase = .modeSelect
            return .medium(.flush, bufferLength: task.dataOutCount)
        }
        if changed.differs(from: pages) {
            pages = changed
            post(.modeParametersChanged, to: .allBut(task.nexus))
        }
        return .done(Completion())
    }

    /// Checks the header and block descriptors of a parameter list; where the pages start.
    private func endOfBlockDescriptors(_ list: [UInt8], isSix: Bool) throws(Sense) -> Int {
        let header = isSix ? 4 : 8
        guard list.count >= header else { throw Sense.listLength }
        let isLong = !isSix && list[4] & 0x01 != 0
        let length = isSix ? Int(list[3]) : Int(list.span.uint16(at: 6))
        guard list[isSix ? 1 : 2] == 0 else { throw Sense.parameter(isSix ? 1 : 2) }
        guard length == 0 || length == (isLong ? 16 : 8) else { throw Sense.parameter(isSix ? 3 : 6) }
        guard list.count >= header + length else { throw Sense.listLength }
        guard length > 0 else { return header }
        let blocks = isLong ? list.span.uint64(at: header) : UInt64(list.span.uint32(at: header))
        let everything = isLong ? UInt64.max : UInt64(UInt32.max)
        guard blocks == 0 || blocks == everything || blocks == settings.blockCount else { throw Sense.parameter(header) }
        let blockLength = isLong ? list.span.uint32(at: header + 12) : list.span.uint24(at: header + 5)
        guard Int(blockLength) == settings.blockLength else { throw Sense.parameter(header + (isLong ? 12 : 5)) }
        return header + length
    }
}
