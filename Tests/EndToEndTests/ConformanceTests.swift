import Foundation
import Testing

/// libiscsi's own test suite: every test that Debian's tgtd passes has to pass.
@Suite struct ConformanceTests {
    @Test("iscsi-test-cu", arguments: Conformance.families)
    func family(_ family: Conformance.Family) throws {
        for _ in 0..<(Subject.soaks ? 10 : 1) {
            let daemon = try Daemon.serving(portals: 2, settings: family.settings)
            let names = family.separately ? family.required.map { "\(family.name).\($0)" } : [family.name]
            var verdicts: [String: Conformance.Verdict] = [:]
            var output = ""
            for name in names where !family.required.isEmpty {
                let finished = try Running(
                    ["iscsi-test-cu", "-d", "-S", "-V", "-t", "ALL.\(name)", daemon.url()] + (family.paths == 2 ? [daemon.url(portal: 1)] : []),
                    folder: daemon.folder
                ).wait(seconds: Conformance.timeLimit)
                output += "\(finished.name) → \(finished.ending)\n\(finished.output)"
                verdicts.merge(Conformance.verdicts(in: finished.output)) { _, new in new }
            }
            for test in family.required {
                #expect(verdicts[test] == .passed, "\(family.name).\(test)\n\(Conformance.section(of: test, in: output))\n\(daemon.log.suffix(2000))")
            }
        }
    }

    @Test("The list is the one of the reference: 177 tests")
    func count() {
        #expect(Conformance.families.reduce(0) { $0 + $1.required.count } == 177)
    }

    @Test("The suite passes the same with header digests in force", arguments: ["Read10", "Write10", "iSCSIResiduals"])
    func withHeaderDigests(name: String) throws {
        let daemon = try Daemon.serving()
        try daemon.must("--op update --mode target --tid 1 --name HeaderDigest --value CRC32C")
        let finished = try run("iscsi-test-cu", "-d", "-S", "-V", "-t", "ALL.\(name)", daemon.url() + "?header_digest=crc32c", folder: daemon.folder)
        let verdicts = Conformance.verdicts(in: finished.output)
        #expect(!verdicts.isEmpty && verdicts.values.allSatisfy { $0 == .passed }, "\(finished.evidence)")
    }
}

enum Conformance {
    static let timeLimit = 60.0

    struct Family: CustomTestStringConvertible, Sendable {
        let name: String
        /// The tests Debian's tgtd passes.
        let required: [String]
        /// What the logical unit has to be.
        var settings = "thin_provisioning=1"
        /// Over how many portals the suite logs in.
        var paths = 1
        /// The first test of the family ends the session, and the others would then skip without a word.
        var separately = false
        var testDescription: String { name }

        init(_ name: String, _ required: String, settings: String = "thin_provisioning=1", paths: Int = 1, separately: Bool = false) {
            self.name = name
            self.required = required.split(separator: " ").map(String.init)
            self.settings = settings
            self.paths = paths
            self.separately = separately
        }
    }

    private static let readTests = "Simple BeyondEol ZeroBlocks ReadProtect DpoFua"
    private static let writeTests = "Simple BeyondEol ZeroBlocks WriteProtect DpoFua"
    private static let verifyTests = "Simple BeyondEol ZeroBlocks VerifyProtect Flags Dpo Mismatch MismatchNoCmp"
    private static let writeVerifyTests = "Simple BeyondEol ZeroBlocks WriteProtect Flags Dpo"
    private static let prefetchTests = "Simple BeyondEol ZeroBlocks Flags"
    private static let writeSameTests =
        "Simple BeyondEol ZeroBlocks WriteProtect Unmap UnmapUnaligned UnmapUntilEnd UnmapVPD Check InvalidDataOutSize"

    static let families: [Family] = [
        Family("GetLBAStatus", "Simple"),
        Family("Inquiry", "Standard AllocLength EVPD BlockLimits MandatoryVPDSBC SupportedVPD VersionDescriptors"),
        Family("Mandatory", "MandatorySBC"),
        Family("ModeSense6", "AllPages Control Control-D_SENSE Control-SWP Residuals"),
        Family("OrWrite", "Simple BeyondEol ZeroBlocks Protect DpoFua Verify"),
        Family("Prefetch10", prefetchTests),
        Family("Prefetch16", prefetchTests),
        Family("PreventAllow", "Simple ITNexusLoss Logout LUNReset 2ITNexuses", settings: "removable=1"),
        Family("PrinReadKeys", "Simple Truncate"),
        Family("PrinReportCapabilities", "Simple"),
        Family("ProutRegister", "Simple"),
        Family(
            "ProutReserve", "Simple AccessEA AccessWE AccessEARO AccessWERO AccessEAAR AccessWEAR OwnershipEAAR OwnershipWEAR"),
        Family("ProutClear", "Simple"),
        Family("ProutPreempt", "RemoveRegistration"),
        Family("Read6", "Simple BeyondEol"),
        Family("Read10", readTests + " Async"),
        Family("Read12", readTests),
        Family("Read16", readTests),
        Family("ReadCapacity10", "Simple"),
        Family("ReadCapacity16", "Simple Alloclen PI Support"),
        Family("ReportSupportedOpcodes", "Simple RCTD SERVACTV"),
        Family("Reserve6", "Simple Logout ITNexusLoss LUNReset"),
        Family("StartStopUnit", "Simple PwrCnd NoLoej", settings: "removable=1"),
        Family("TestUnitReady", "Simple"),
        Family("Unmap", "Simple VPD"),
        Family("Verify10", verifyTests),
        Family("Verify12", verifyTests),
        Family("Verify16", verifyTests),
        Family("Write10", writeTests + " Async"),
        Family("Write12", writeTests),
        Family("Write16", writeTests),
        Family("WriteSame10", writeSameTests),
        Family("WriteSame16", writeSameTests),
        Family("WriteVerify10", writeVerifyTests),
        Family("WriteVerify12", writeVerifyTests),
        Family("WriteVerify16", writeVerifyTests),
        Family("iSCSIcmdsn", "iSCSICmdSnTooHigh iSCSICmdSnTooLow"),
        Family(
            "iSCSIResiduals",
            "Read10Invalid Read10Residuals Read12Residuals Read16Residuals Write10Residuals Write12Residuals Write16Residuals "
                + "WriteVerify10Residuals WriteVerify12Residuals WriteVerify16Residuals"),
        Family("iSCSITMF", "AbortTaskSimpleAsync", separately: true),
        Family("MultipathIO", "Simple Reset", paths: 2),
    ]

    enum Verdict: Equatable { case passed, failed, skipped }

    /// The verdict of each test: CUnit's word, except that a test whose last line before it says SKIPPED has not passed.
    static func verdicts(in output: String) -> [String: Verdict] {
        var found: [String: Verdict] = [:]
        for part in output.components(separatedBy: "\n  Test: ").dropFirst() {
            guard let name = part.split(separator: " ", maxSplits: 1).first else { continue }
            let lines = part.split(separator: "\n")
            guard let end = lines.firstIndex(where: { $0.hasPrefix("passed") || $0.hasPrefix("FAILED") || $0.hasSuffix("...passed") || $0.hasSuffix("...FAILED") })
            else { continue }
            let before = lines[..<end].last ?? ""
            let passed = lines[end].hasPrefix("passed") || lines[end].hasSuffix("passed")
            found[String(name)] = !passed ? .failed : before.contains("[SKIPPED]") ? .skipped : .passed
        }
        return found
    }

    /// What the suite printed about one test.
    static func section(of test: String, in output: String) -> String {
        let parts = output.components(separatedBy: "\n  Test: ")
        return String((parts.first { $0.hasPrefix("\(test) ") } ?? output).suffix(3000))
    }
}
