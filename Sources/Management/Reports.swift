/// Text of a report as it grows: lines of bytes, indented by fours.
///
/// Bytes and not a string, since paths are whatever bytes the file system has.
struct ReportText {
    private(set) var bytes: [UInt8] = []

    mutating func line(_ indent: Int, _ text: String, _ tail: [UInt8] = []) {
        bytes += Array(repeating: UInt8(ascii: " "), count: 4 * indent)
        bytes += text.utf8
        bytes += tail
        bytes.append(UInt8(ascii: "\n"))
    }

    /// Numbers in columns, aligned to the right and separated by blanks.
    mutating func row(_ columns: [(value: UInt64, width: Int)]) {
        line(0, columns.map { column in
            let digits = String(column.value)
            return String(repeating: " ", count: max(0, column.width - digits.count)) + digits
        }.joined(separator: " "))
    }
}

/// A target with all it has: `--op show --mode target`.
public struct TargetReport: Sendable {
    public var tid: Int32
    public var name: String
    /// `ready` or `offline`.
    public var state: String
    public var nopInterval: Int
    public var nopCount: Int
    public var sessions: [SessionReport] = []
    public var logicalUnits: [LogicalUnitReport] = []
    public var accounts = AccountsReport()
    public var rules: [String] = []

    public init(tid: Int32, name: String, state: String, nopInterval: Int = 0, nopCount: Int = 0) {
        self.tid = tid
        self.name = name
        self.state = state
        self.nopInterval = nopInterval
        self.nopCount = nopCount
    }

    public static func render(_ targets: [TargetReport]) -> [UInt8] {
        var text = ReportText()
        for target in targets { target.append(to: &text) }
        return text.bytes
    }

    private func append(to text: inout ReportText) {
        text.line(0, "Target \(tid): \(name)")
        text.line(1, "System information:")
        text.line(2, "Driver: iscsi")
        text.line(2, "State: \(state)")
        if nopInterval != 0 {
            text.line(2, "Nop interval: \(nopInterval)")
            text.line(2, "Nop count: \(nopCount)")
        }
        text.line(1, "I_T nexus information:")
        for session in sessions {
            text.line(2, "I_T nexus: \(session.tsih)")
            text.line(3, "Initiator: \(session.initiatorName) alias: \(session.alias ?? "none")")
            if let authentication = session.authentication { text.line(3, "Account: \(authentication)") }
            if let protection = session.protection { text.line(3, "TLS: \(protection)") }
            for connection in session.connections {
                text.line(3, "Connection: \(connection.cid)")
                text.line(4, "IP Address: \(connection.address)")
            }
        }
        text.line(1, "LUN information:")
        for unit in logicalUnits { unit.append(to: &text) }
        text.line(1, "Account information:")
        accounts.append(to: &text, indent: 2)
        text.line(1, "ACL information:")
        for rule in rules { text.line(2, rule) }
    }
}

/// A session: in the report of its target, and in `--op show --mode connection`.
public struct SessionReport: Sendable {
    public var tsih: UInt16
    public var initiatorName: String
    /// Escaped: it is what the initiator has sent.
    public var alias: String?
    public var connections: [Connection]
    /// By which account and how; shown only if there is any, since tgt has no such line.
    public var authentication: String?
    /// What TLS does for it and what was shown by it; shown only if there is any, too.
    public var protection: String?

    public struct Connection: Sendable {
        public var cid: UInt16
        public var address: String
        public init(cid: UInt16, address: String) {
            self.cid = cid
            self.address = address
        }
    }

    public init(tsih: UInt16, initiatorName: String, alias: String? = nil, connections: [Connection]) {
        self.tsih = tsih
        self.initiatorName = initiatorName
        self.alias = alias
        self.connections = connections
    }

    /// The connections of a target's sessions, the newest session first.
    /// - Parameter sessions: in the order of their logins
    public static func renderConnections(_ sessions: [SessionReport]) -> [UInt8] {
        var text = ReportText()
        for session in sessions.reversed() {
            for connection in session.connections {
                text.line(0, "Session: \(session.tsih)")
                text.line(1, "Connection: \(connection.cid)")
                text.line(2, "Initiator: \(session.initiatorName)")
                text.line(2, "IP Address: \(connection.address)")
            }
        }
        return text.bytes
    }
}

public struct LogicalUnitReport: Sendable {
    public var lun: Int
    /// `disk` or `controller`.
    public var type: String
    public var scsiID: String
    public var serialNumber: String
    public var byteCount: UInt64 = 0
    /// Bytes; 1 for what has no blocks.
    public var blockLength: Int
    public var isOnline = true
    public var isRemovable = false
    public var preventsRemoval = false
    public var isReadOnly = false
    public var isSoftwareWriteProtected = false
    public var isThinProvisioned = false
    public var storeType: String
    public var storePath: [UInt8]?
    public var storeFlags = ""
    /// Shown only if so; tgt has no such line.
    public var flushFailed = false

    public init(lun: Int, type: String, scsiID: String, serialNumber: String, blockLength: Int, storeType: String) {
        self.lun = lun
        self.type = type
        self.scsiID = scsiID
        self.serialNumber = serialNumber
        self.blockLength = blockLength
        self.storeType = storeType
    }

    fileprivate func append(to text: inout ReportText) {
        func yes(_ flag: Bool) -> String { flag ? "Yes" : "No" }
        text.line(2, "LUN: \(lun)")
        text.line(3, "Type: \(type)")
        text.line(3, "SCSI ID: \(scsiID)")
        text.line(3, "SCSI SN: \(serialNumber)")
        text.line(3, "Size: \(Self.megabytes(byteCount)) MB, Block size: \(blockLength)")
        text.line(3, "Online: \(yes(isOnline))")
        text.line(3, "Removable media: \(yes(isRemovable))")
        text.line(3, "Prevent removal: \(yes(preventsRemoval))")
        text.line(3, "Readonly: \(yes(isReadOnly))")
        text.line(3, "SWP: \(yes(isSoftwareWriteProtected))")
        text.line(3, "Thin-provisioning: \(yes(isThinProvisioned))")
        text.line(3, "Backing store type: \(storeType)")
        text.line(3, "Backing store path: ", storePath ?? Array("None".utf8))
        text.line(3, "Backing store flags: \(storeFlags)")
        if flushFailed { text.line(3, "Flush failed: Yes") }
    }

    /// Decimal megabytes, rounded as tgt rounds.
    static func megabytes(_ byteCount: UInt64) -> Int64 {
        let sectors = Int64(byteCount / 512)
        return (sectors - (sectors / 625 - 974)) / 1950
    }
}

/// Accounts that are bound, the outgoing one last.
public struct AccountsReport: Sendable {
    public var incoming: [String] = []
    public var outgoing: String?
    public init(incoming: [String] = [], outgoing: String? = nil) {
        self.incoming = incoming
        self.outgoing = outgoing
    }

    fileprivate func append(to text: inout ReportText, indent: Int) {
        for name in incoming { text.line(indent, name) }
        if let outgoing { text.line(indent, "\(outgoing) (outgoing)") }
    }

    /// `--op show --mode account`: nothing at all without accounts.
    /// - Parameter names: the newest first
    public static func renderList(_ names: [String]) -> [UInt8] {
        var text = ReportText()
        if !names.isEmpty { text.line(0, "Account list:") }
        for name in names { text.line(1, name) }
        return text.bytes
    }
}

/// `--op show --mode target --tid N`: `name=value` lines.
public func renderParameters(_ parameters: [(name: String, value: String)]) -> [UInt8] {
    var text = ReportText()
    for (name, value) in parameters { text.line(0, "\(name)=\(value)") }
    return text.bytes
}

/// `--op show --mode system`.
public struct SystemReport: Sendable {
    public var state: String
    public var isDebugging: Bool
    public var backingStores: [(name: String, takesFlags: Bool)]
    public var deviceTypes: [String]
    /// Bound to discovery.
    public var accounts = AccountsReport()
    /// Numbers about who has to wait; tgt has no such section.
    public var penalties: [(name: String, value: String)] = []
    /// The daemon's limits; tgt has no such section.
    public var limits: [(name: String, value: String)] = []
    /// Where the audit trails are, and what is wrong with them; tgt has no such section.
    public var audit: [(name: String, value: String)] = []
    /// Why no change is taken at the moment; nil: changes are taken.
    public var hindrance: String?

    public init(state: String, isDebugging: Bool, backingStores: [(name: String, takesFlags: Bool)], deviceTypes: [String]) {
        self.state = state
        self.isDebugging = isDebugging
        self.backingStores = backingStores
        self.deviceTypes = deviceTypes
    }

    public func rendered() -> [UInt8] {
        var text = ReportText()
        text.line(0, "System:")
        text.line(1, "State: \(state)")
        text.line(1, "debug: \(isDebugging ? "on" : "off")")
        if let hindrance { text.line(1, "Nothing can be changed: \(hindrance)") }
        text.line(0, "LLDs:")
        text.line(1, "iscsi: ready")
        text.line(0, "Backing stores:")
        for store in backingStores { text.line(1, store.name + (store.takesFlags ? " (bsoflags sync:direct)" : "")) }
        text.line(0, "Device types:")
        for type in deviceTypes { text.line(1, type) }
        // tgt looks at the incoming ones only when it decides on the heading.
        if !accounts.incoming.isEmpty {
            text.line(1, "Account information:")
            text.line(0, "")
            accounts.append(to: &text, indent: 1)
        }
        text.line(0, "iSNS:")
        text.line(1, "iSNS=Off")
        text.line(1, "iSNSServerIP=")
        text.line(1, "iSNSServerPort=3205")
        text.line(1, "iSNSAccessControl=Off")
        if !penalties.isEmpty { text.line(0, "Penalties:") }
        for (name, value) in penalties { text.line(1, "\(name)=\(value)") }
        if !audit.isEmpty { text.line(0, "Audit:") }
        for (name, value) in audit { text.line(1, "\(name)=\(value)") }
        if !limits.isEmpty { text.line(0, "Limits:") }
        for (name, value) in limits { text.line(1, "\(name)=\(value)") }
        return text.bytes
    }
}

/// `--op show --mode access`: nothing at all if nobody has to wait.
public func renderPenalties(_ penalties: [(source: String, secondsLeft: UInt64)]) -> [UInt8] {
    var text = ReportText()
    for (source, seconds) in penalties { text.line(0, "Source: \(source), waits \(seconds) s") }
    return text.bytes
}

/// `--op show --mode lld`.
public func renderDrivers(targets: [(tid: Int32, name: String)]) -> [UInt8] {
    var text = ReportText()
    text.line(0, "LLDs:")
    text.line(1, "iscsi: ready")
    for (tid, name) in targets { text.line(2, "Target \(tid): \(name)") }
    return text.bytes
}

/// `--op show --mode portal`.
/// - Parameter portals: the newest first
public func renderPortals(_ portals: [PortalReport]) -> [UInt8] {
    var text = ReportText()
    for portal in portals {
        text.line(0, "Portal: \(portal.text),\(portal.groupTag)")
        for (name, value) in portal.parameters { text.line(1, "\(name): \(value)") }
        if !portal.isOpen { text.line(1, "open: No") }
    }
    return text.bytes
}

/// A portal; what tgt has no line for is shown only if there is any.
public struct PortalReport: Sendable {
    public var text: String
    public var groupTag: UInt16
    public var parameters: [(name: String, value: String)] = []
    /// Whether somebody listens.
    public var isOpen = true

    public init(text: String, groupTag: UInt16) {
        self.text = text
        self.groupTag = groupTag
    }
}

/// What the commands of one session have done at one logical unit: a line of `--op stat`.
public struct CommandStatistics: Hashable, Sendable {
    /// Bytes and commands.
    public typealias Count = (bytes: UInt64, commands: UInt64)

    public var tid: Int32
    public var lun: Int
    public var tsih: UInt16
    /// Bytes and commands, in pairs: reads submitted, reads done, writes submitted, writes done.
    public var counts: [UInt64]
    public var errors: UInt64

    public init(tid: Int32, lun: Int, tsih: UInt16, readSubmitted: Count, readDone: Count, writeSubmitted: Count, writeDone: Count, errors: UInt64) {
        self.tid = tid
        self.lun = lun
        self.tsih = tsih
        counts = [readSubmitted, readDone, writeSubmitted, writeDone].flatMap { [$0.bytes, $0.commands] }
        self.errors = errors
    }

    public static func render(_ rows: [CommandStatistics]) -> [UInt8] {
        var text = ReportText()
        text.line(0, "tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs")
        for row in rows {
            let keys: [(UInt64, Int)] = [(UInt64(max(0, row.tid)), 3), (UInt64(row.lun), 3), (UInt64(row.tsih), 3)]
            let counts = row.counts.enumerated().map { index, count in (count, index.isMultiple(of: 2) ? 12 : 6) }
            text.row(keys + counts + [(row.errors, 4)])
        }
        return text.bytes
    }
}

/// What has gone over one connection: a line of `--op stat --mode connection`.
public struct ConnectionStatistics: Hashable, Sendable {
    public var tsih: UInt16
    public var cid: UInt16
    public var receivedOctets: UInt64 = 0
    public var sentOctets: UInt64 = 0
    public var dataOutPDUs: UInt64 = 0
    public var dataInPDUs: UInt64 = 0
    public var commandPDUs: UInt64 = 0
    public var responsePDUs: UInt64 = 0

    public init(tsih: UInt16, cid: UInt16) {
        self.tsih = tsih
        self.cid = cid
    }

    public static func render(_ rows: [ConnectionStatistics]) -> [UInt8] {
        var text = ReportText()
        text.line(0, "sid cid rxdata_octets txdata_octets dataout_pdus datain_pdus cmd_pdus rsp_pdus")
        for row in rows {
            text.row([
                (UInt64(row.tsih), 3), (UInt64(row.cid), 3), (row.receivedOctets, 13), (row.sentOctets, 13),
                (row.dataOutPDUs, 12), (row.dataInPDUs, 11), (row.commandPDUs, 8), (row.responsePDUs, 8),
            ])
        }
        return text.bytes
    }
}
