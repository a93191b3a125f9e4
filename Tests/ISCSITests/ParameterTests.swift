import Testing
@testable import ISCSI

@Suite struct NameTests {
    @Test("Letters, digits, dot, colon and dash make a name; case does not count")
    func folding() throws {
        let name = try ISCSIName("IQN.2001-04.com.Example:Disk-1".utf8)
        #expect(name == (try ISCSIName("iqn.2001-04.com.example:disk-1".utf8)))
        #expect(name.spelling == "IQN.2001-04.com.Example:Disk-1")
        #expect(name.bytes == Array("iqn.2001-04.com.example:disk-1".utf8))
        #expect(Set([name, try ISCSIName("iqn.2001-04.com.EXAMPLE:disk-1".utf8)]).count == 1)
    }

    @Test("One to 223 bytes", arguments: [(0, false), (1, true), (223, true), (224, false)])
    func length(count: Int, isName: Bool) {
        #expect(((try? ISCSIName([UInt8](repeating: 0x61, count: count))) != nil) == isName)
    }

    @Test("Any other byte is refused, and where it stands is told")
    func forbidden() {
        let permitted = Set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:-".utf8)
        for byte in UInt8.min...UInt8.max {
            do throws(ISCSIName.NameError) {
                _ = try ISCSIName([0x61, byte, 0x62])
                #expect(permitted.contains(byte))
            } catch {
                #expect(!permitted.contains(byte))
                #expect(error == .forbiddenByte(at: 1))
            }
        }
    }
}

@Suite struct SessionParametersTests {
    @Test("A new target shows tgt's keys in tgt's order, with our few defaults")
    func shown() {
        #expect(
            SessionParameters().shown.map { "\($0.name)=\($0.value)" } == [
                "MaxRecvDataSegmentLength=262144", "HeaderDigest=None", "DataDigest=None", "InitialR2T=No", "MaxOutstandingR2T=1",
                "ImmediateData=Yes", "FirstBurstLength=262144", "MaxBurstLength=262144", "DataPDUInOrder=Yes", "DataSequenceInOrder=Yes",
                "ErrorRecoveryLevel=0", "IFMarker=No", "OFMarker=No", "DefaultTime2Wait=2", "DefaultTime2Retain=20", "OFMarkInt=Reject",
                "IFMarkInt=Reject", "MaxConnections=1", "RDMAExtensions=Yes", "TargetRecvDataSegmentLength=262144",
                "InitiatorRecvDataSegmentLength=262144", "MaxOutstandingUnexpectedPDUs=0", "MaxXmitDataSegmentLength=262144", "MaxQueueCmd=128",
            ])
    }

    static let ranges: [(String, Int, Int)] = [
        ("MaxRecvDataSegmentLength", 512, 16_777_215), ("MaxOutstandingR2T", 1, 65535), ("FirstBurstLength", 512, 16_777_215),
        ("MaxBurstLength", 512, 16_777_215), ("ErrorRecoveryLevel", 0, 2), ("DefaultTime2Wait", 0, 3600), ("DefaultTime2Retain", 0, 3600),
        ("MaxConnections", 1, 65535), ("MaxXmitDataSegmentLength", 512, 16_777_215), ("MaxQueueCmd", 1, 512),
        ("TargetRecvDataSegmentLength", 512, 16_777_215), ("InitiatorRecvDataSegmentLength", 512, 16_777_215),
    ]

    @Test("Numbers are taken within their range, at its ends, and not outside", arguments: ranges)
    func numberRange(name: String, least: Int, most: Int) throws {
        var parameters = SessionParameters()
        for value in [least, most] {
            try parameters.set(name: name.lowercased().utf8, value: String(value).utf8)
            #expect(parameters.value(of: name.uppercased().utf8) == String(value))
        }
        for value in [String(least - 1), String(most + 1), "", "x", "1.5", "-1", " 600", "99999999999999999999999"] {
            #expect(throws: SessionParameters.ParameterError.invalidValue) { try parameters.set(name: name.utf8, value: value.utf8) }
        }
        #expect(parameters.value(of: name.utf8) == String(most))
    }

    @Test("Booleans are Yes and No in just this case")
    func booleans() throws {
        var parameters = SessionParameters()
        for name in ["InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder", "IFMarker", "OFMarker", "RDMAExtensions"] {
            for value in ["Yes", "No"] {
                try parameters.set(name: name.utf8, value: value.utf8)
                #expect(parameters.value(of: name.utf8) == value)
            }
            for value in ["yes", "NO", "1", ""] {
                #expect(throws: SessionParameters.ParameterError.invalidValue) { try parameters.set(name: name.utf8, value: value.utf8) }
            }
        }
    }

    @Test("Digests are a set, shown as tgt shows it")
    func digests() throws {
        var parameters = SessionParameters()
        for (value, shown) in [("CRC32C", "CRC32C"), ("CRC32C,None", "CRC32C"), ("None,CRC32C", "CRC32C"), ("None", "None")] {
            try parameters.set(name: "HeaderDigest".utf8, value: value.utf8)
            #expect(parameters.value(of: "headerdigest".utf8) == shown)
        }
        #expect(parameters.headerDigest == DigestSet.none)
        for value in ["", "crc32c", "CRC32C,", "MD5"] {
            #expect(throws: SessionParameters.ParameterError.invalidValue) { try parameters.set(name: "DataDigest".utf8, value: value.utf8) }
        }
    }

    @Test("Marker intervals are Irrelevant once set; MaxOutstandingUnexpectedPDUs is 0 or at least 2; there are no other keys")
    func oddities() throws {
        var parameters = SessionParameters()
        try parameters.set(name: "OFMarkInt".utf8, value: "2048".utf8)
        #expect(parameters.value(of: "OFMarkInt".utf8) == "Irrelevant")
        #expect(throws: SessionParameters.ParameterError.invalidValue) { try parameters.set(name: "IFMarkInt".utf8, value: "65536".utf8) }
        try parameters.set(name: "MaxOutstandingUnexpectedPDUs".utf8, value: "4294967295".utf8)
        #expect(throws: SessionParameters.ParameterError.invalidValue) { try parameters.set(name: "MaxOutstandingUnexpectedPDUs".utf8, value: "1".utf8) }
        for name in ["", "TargetName", "AuthMethod", "MaxBurst"] {
            #expect(throws: SessionParameters.ParameterError.unknownKey) { try parameters.set(name: name.utf8, value: "1".utf8) }
            #expect(parameters.value(of: name.utf8) == nil)
        }
    }

    @Test("Values from another process are taken only in range")
    func rawValues() throws {
        var parameters = SessionParameters()
        try parameters.set(name: "MaxQueueCmd".utf8, value: "7".utf8)
        #expect(SessionParameters(rawValues: parameters.rawValues) == parameters)
        var values = parameters.rawValues
        values[values.count - 1] = 513
        #expect(SessionParameters(rawValues: values) == nil)
        #expect(SessionParameters(rawValues: Array(parameters.rawValues.dropLast())) == nil)
    }

    @Test("Every row of the table of keys stands under its key")
    func table() {
        #expect(Key.table.count == Key.allCases.count)
        for key in Key.allCases {
            let name = key.description.name.lowercased().replacing("x#", with: "").replacing("chap_", with: "chap")
            #expect(name == "\(key)".lowercased())
        }
    }

    @Test("Numbers: decimal without leading zeros, hexadecimal behind 0x, 32 bits")
    func numbers() {
        let good: [(String, UInt32)] = [("0", 0), ("10", 10), ("0x1F", 31), ("0Xff", 255), ("4294967295", .max), ("0xffffffff", .max)]
        for (text, value) in good { #expect(number(Array(text.utf8)[...]) == value) }
        for text in ["", "00", "01", "0x", "x1", "1a", "4294967296", "0x100000000", "+1", "1 "] { #expect(number(Array(text.utf8)[...]) == nil) }
    }
}
