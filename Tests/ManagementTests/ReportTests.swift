import Testing

@testable import Management

@Suite("tgt's reports")
struct ReportTests {
    @Test("a target with sessions, logical units, accounts and rules is shown as tgt shows it")
    func target() {
        var report = TargetReport(tid: 1, name: "iqn.x:t1", state: "ready", nopInterval: 5, nopCount: 6)
        report.sessions = [
            SessionReport(tsih: 10, initiatorName: "iqn.two", alias: nil, connections: [.init(cid: 0, address: "127.0.0.1")]),
            SessionReport(tsih: 11, initiatorName: "iqn.three", alias: "host\\x0aTarget 2: x", connections: [.init(cid: 1, address: "2001:db8::1")]),
        ]
        var unit = LogicalUnitReport(lun: 1, type: "disk", scsiID: "IET     00010001", serialNumber: "beaf11", blockLength: 512, storeType: "rdwr")
        unit.byteCount = 100 << 20
        unit.storePath = utf8("/path")
        unit.storeFlags = "sync"
        unit.preventsRemoval = true
        unit.isSoftwareWriteProtected = true
        report.logicalUnits = [LogicalUnitReport(lun: 0, type: "controller", scsiID: "IET     00010000", serialNumber: "beaf10", blockLength: 1, storeType: "null"), unit]
        report.accounts = AccountsReport(incoming: ["u1"], outgoing: "u2")
        report.rules = ["127.0.0.0/8", "iqn.2000-01.test:ini0"]
        let blank = ""
        #expect(text(TargetReport.render([report])) == """
            Target 1: iqn.x:t1
                System information:
                    Driver: iscsi
                    State: ready
                    Nop interval: 5
                    Nop count: 6
                I_T nexus information:
                    I_T nexus: 10
                        Initiator: iqn.two alias: none
                        Connection: 0
                            IP Address: 127.0.0.1
                    I_T nexus: 11
                        Initiator: iqn.three alias: host\\x0aTarget 2: x
                        Connection: 1
                            IP Address: 2001:db8::1
                LUN information:
                    LUN: 0
                        Type: controller
                        SCSI ID: IET     00010000
                        SCSI SN: beaf10
                        Size: 0 MB, Block size: 1
                        Online: Yes
                        Removable media: No
                        Prevent removal: No
                        Readonly: No
                        SWP: No
                        Thin-provisioning: No
                        Backing store type: null
                        Backing store path: None
                        Backing store flags: \(blank)
                    LUN: 1
                        Type: disk
                        SCSI ID: IET     00010001
                        SCSI SN: beaf11
                        Size: 105 MB, Block size: 512
                        Online: Yes
                        Removable media: No
                        Prevent removal: Yes
                        Readonly: No
                        SWP: Yes
                        Thin-provisioning: No
                        Backing store type: rdwr
                        Backing store path: /path
                        Backing store flags: sync
                Account information:
                    u1
                    u2 (outgoing)
                ACL information:
                    127.0.0.0/8
                    iqn.2000-01.test:ini0

            """)
    }

    @Test("a failed flush has a line of its own, behind tgt's")
    func failedFlush() {
        var report = TargetReport(tid: 1, name: "a", state: "ready")
        var unit = LogicalUnitReport(lun: 1, type: "disk", scsiID: "a", serialNumber: "b", blockLength: 512, storeType: "rdwr")
        unit.flushFailed = true
        report.logicalUnits = [unit]
        #expect(text(TargetReport.render([report])).contains("            Backing store flags: \n            Flush failed: Yes\n    Account"))
    }

    @Test("sizes are decimal megabytes, rounded as tgt rounds", arguments: [
        (0, 0), (511, 0), (100 << 20, 105), (1 << 30, 1074), (10 << 20, 10), (1 << 40, 1_099_512), (1_000_000, 1), (UInt64.max, 18_446_744_073_710),
    ] as [(UInt64, Int64)])
    func sizes(bytes: UInt64, megabytes: Int64) {
        // tgt's arithmetic has a few units of error at the far end.
        #expect(abs(LogicalUnitReport.megabytes(bytes) - megabytes) <= megabytes / 100_000)
    }

    @Test("connections are shown newest session first")
    func connections() {
        let sessions = [
            SessionReport(tsih: 11, initiatorName: "iqn.one", alias: "x", connections: [.init(cid: 0, address: "127.0.0.1")]),
            SessionReport(tsih: 12, initiatorName: "iqn.two", connections: [.init(cid: 7, address: "10.0.0.1")]),
        ]
        #expect(text(SessionReport.renderConnections(sessions)) == """
            Session: 12
                Connection: 7
                    Initiator: iqn.two
                    IP Address: 10.0.0.1
            Session: 11
                Connection: 0
                    Initiator: iqn.one
                    IP Address: 127.0.0.1

            """)
    }

    @Test("statistics have tgt's columns")
    func statistics() {
        let row = CommandStatistics(
            tid: 1, lun: 2, tsih: 10, readSubmitted: (40_583_200, 9909), readDone: (40_579_104, 9908), writeSubmitted: (0, 0), writeDone: (0, 0), errors: 1)
        #expect(text(CommandStatistics.render([row])) == """
            tgt lun sid rd_subm(bytes,cmds) rd_done(bytes,cmds) wr_subm(bytes,cmds) wr_done(bytes,cmds) errs
              1   2  10     40583200   9909     40579104   9908            0      0            0      0    1

            """)
        var connection = ConnectionStatistics(tsih: 12, cid: 0)
        connection.receivedOctets = 451_820
        connection.sentOctets = 38_954_144
        connection.commandPDUs = 9404
        #expect(text(ConnectionStatistics.render([connection])) == """
            sid cid rxdata_octets txdata_octets dataout_pdus datain_pdus cmd_pdus rsp_pdus
             12   0        451820      38954144            0           0     9404        0

            """)
    }

    @Test("the system report ends with the limits, which tgt does not have")
    func limits() {
        var report = SystemReport(state: "ready", isDebugging: false, backingStores: [("null", false), ("rdwr", true)], deviceTypes: ["disk"])
        report.limits = [("sessions", "100")]
        #expect(text(report.rendered()).hasSuffix("    iSNSAccessControl=Off\nLimits:\n    sessions=100\n"))
        #expect(text(report.rendered()).contains(" rdwr"))
    }

    @Test("a path is shown in its own bytes")
    func path() {
        var report = TargetReport(tid: 1, name: "a", state: "ready")
        var unit = LogicalUnitReport(lun: 1, type: "disk", scsiID: "a", serialNumber: "b", blockLength: 512, storeType: "rdwr")
        unit.storePath = [0x2f, 0xff, 0xfe]
        report.logicalUnits = [unit]
        #expect(TargetReport.render([report]).contains([0x2f, 0xff, 0xfe, 0x0a]))
    }
}
