// swift-tools-version: 6.2
import PackageDescription

/// Every target of ours: Swift 6 language mode comes with the tools version; unsafe constructs are marked; warnings are errors.
let house: [SwiftSetting] = [.strictMemorySafety(), .treatAllWarnings(as: .error)]

func room(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: house)
}
func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(name: name, dependencies: dependencies, swiftSettings: house)
}
func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: house)
}

let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let trees = Target.Dependency.product(name: "HashTreeCollections", package: "swift-collections")
let containers = Target.Dependency.product(name: "BasicContainers", package: "swift-collections")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "portcullis",
    products: [
        .executable(name: "tgtd", targets: ["tgtd"]),
        .executable(name: "tgtadm", targets: ["tgtadm"]),
        .executable(name: "tgt-audit", targets: ["tgt-audit"]),
        .executable(name: "tgt-connect", targets: ["tgt-connect"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    ],
    targets: [
        .target(name: "CLinux"),
        .target(name: "CForget"),
        .target(name: "CGetopt"),
        .target(name: "CCRC32C"),
        .target(name: "CRing", linkerSettings: [.linkedLibrary("uring")]),
        .target(name: "CTLS", dependencies: ["COpenSSL"]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CPAM", providers: [.apt(["libpam0g-dev"])]),

        // Memory and words that several rooms share.
        room("Bytes", [deque]),
        room("JSON", ["Bytes"]),
        room("Crypto", ["CCRC32C", "COpenSSL", "Bytes"]),
        room("Medium", ["Bytes"]),

        // Sans I/O: no system call, no thread, no clock.
        room("SCSI", ["Bytes", "Medium"]),
        room("ISCSI", ["Bytes", "Crypto", containers, deque]),
        room("Target", ["Bytes", "Medium", "SCSI", "ISCSI", containers, deque]),

        // The machine.
        room("Reactor", ["CLinux", "Bytes", deque]),
        room("TLS", ["CTLS", "COpenSSL", "Bytes", "Crypto", "Reactor"]),
        room("PAM", ["CPAM", "Crypto"]),
        room("Storage", ["CLinux", "CRing", "Bytes", "Medium", "Reactor", deque]),

        // What is configured, and who may do what.
        room("Model", ["Bytes", "JSON", "Crypto", "ISCSI", "SCSI", trees]),
        room("Access", ["Bytes", "ISCSI", "SCSI", "Model"]),
        room("Audit", ["Bytes", "JSON", "Crypto"]),
        room("Management", ["Bytes", "JSON"]),
        room("Administration", ["Bytes", "JSON", "Crypto", "ISCSI", "SCSI", "Model", "Access", "Management"]),

        room("SettingsFile", [yams]),
        room("Logs", ["Bytes", "Reactor", logging]),
        // What was done, on a medium.
        room("AuditLog", ["Audit", "Crypto", "JSON", "Reactor", logging]),

        // The processes.
        room("Door", ["Bytes", "Crypto", "ISCSI", "SCSI", "Reactor", "TLS", deque]),
        room("DataPlane", ["Bytes", "Crypto", "Medium", "SCSI", "ISCSI", "Target", "Reactor", "TLS", "Storage", "Door", logging, deque]),
        room("ControlPlane", ["Bytes", "JSON", "Crypto", "TLS", "SCSI", "ISCSI", "Reactor", "Storage", "PAM", "Door", "Model", "Access", "Management", "Administration", "Audit", "AuditLog", "SettingsFile", logging, yams, deque]),
        room("Connector", ["CForget", "Bytes", "Crypto", "Reactor", "TLS", "SettingsFile", logging, yams]),

        program("tgtd", ["CForget", "ControlPlane", "DataPlane", "Reactor", "Logs", logging]),
        program("tgtadm", ["CGetopt", "Management"]),
        program("tgt-audit", ["Audit", "AuditLog", "JSON", "Reactor", arguments]),
        program("tgt-connect", ["Connector", "Logs", "Management", "Reactor", logging, arguments]),

        tests("BytesTests", ["Bytes"]),
        tests("JSONTests", ["Bytes", "JSON"]),
        tests("ModelTests", ["Bytes", "JSON", "Crypto", "ISCSI", "SCSI", "Model"]),
        tests("AuditTests", ["Audit", "Crypto", "JSON"]),
        tests("AuditLogTests", ["AuditLog", "Audit", "Crypto", "JSON", "Reactor", logging, "audit-writer", "tgt-audit"]),
        // What the tests kill and starve.
        .executableTarget(
            name: "audit-writer", dependencies: ["AuditLog", "Audit", "Crypto", "JSON", "Reactor", logging], path: "Tests/AuditWriter", swiftSettings: house),
        // What measures targets.
        .executableTarget(
            name: "iscsi-load", dependencies: ["Bytes", "CLinux", "Crypto", "ISCSI", "Reactor", arguments], path: "Tests/Benchmark/Load",
            swiftSettings: house),
        tests("AccessTests", ["Bytes", "Crypto", "ISCSI", "SCSI", "Model", "Access"]),
        .testTarget(name: "ManagementTests", dependencies: ["Bytes", "Management"], exclude: ["Recorded"], swiftSettings: house),
        .testTarget(
            name: "AdministrationTests", dependencies: ["Bytes", "Crypto", "ISCSI", "Model", "Access", "Management", "Administration"],
            exclude: ["Recorded"], swiftSettings: house),
        .testTarget(name: "EndToEndTests", dependencies: ["Issuing", "iscsi-load"], exclude: ["vm", "Comparison"], swiftSettings: house),
        tests("DoorTests", ["Door", "Bytes", "Crypto", "TLS", "ISCSI", "Reactor", "SCSI"]),
        tests("ControlPlaneTests", ["ControlPlane", "PAM", "Administration", "Management", "TLS", "Access", "Issuing", "Crypto", "Reactor", "SettingsFile", "Door", "ISCSI", "Model", logging]),
        tests("ConnectorTests", ["Connector", "Bytes", "Crypto", "Reactor", "SettingsFile", logging]),
        tests("DataPlaneTests", ["DataPlane", "Issuing", "Crypto", "TLS", "Door", "Reactor", "Storage", "Medium", "Bytes", "ISCSI", "SCSI", logging]),
        tests("TargetTests", ["Target", "ISCSI", "SCSI", "Medium", "Bytes"]),
        tests("CryptoTests", ["Crypto", "Issuing", "CCRC32C"]),
        .target(name: "Issuing", dependencies: ["Crypto", "Reactor"], path: "Tests/Issuing", swiftSettings: house),
        tests("TLSTests", ["TLS", "Issuing", "Crypto", "Reactor", "Bytes"]),
        tests("ISCSITests", ["Bytes", "Crypto", "ISCSI"]),
        tests("ReactorTests", ["Reactor", "CLinux", "Bytes"]),
        tests("StorageTests", ["Storage", "Reactor", "CLinux", "Bytes", "Medium"]),
        tests("SCSITests", ["SCSI", "Medium", "Bytes"]),

        // What the fuzzers do with an input, and the tests with each that was kept.
        .target(
            name: "FuzzTargets",
            dependencies: ["Bytes", "Crypto", "Medium", "SCSI", "ISCSI", "Target", "Reactor", "Model", "Management", "Administration", "Door", "ControlPlane"],
            path: "Tests/Fuzz/Targets", swiftSettings: house),
        .testTarget(name: "FuzzCorpusTests", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Replay", swiftSettings: house),
    ]
)

/// The fuzzing program has libFuzzer's `main`, so only `make fuzz` builds it: with `--sanitize fuzzer`.
if Context.environment["PORTCULLIS_FUZZ"] != nil {
    package.targets.append(.executableTarget(name: "fuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Program", swiftSettings: house))
}

/// Measure connections alone, and single steps; nobody else needs them.
if Context.environment["PORTCULLIS_BENCHMARK"] != nil {
    package.targets += [
        .executableTarget(name: "tls-benchmark", dependencies: ["TLS", "Crypto", "Reactor", "Bytes"], path: "Tests/Benchmark/TLS", swiftSettings: house),
        .executableTarget(
            name: "micro-benchmark", dependencies: ["Bytes", "Crypto", "ISCSI", "Medium", "SCSI", "Target"], path: "Tests/Benchmark/Micro",
            swiftSettings: house),
    ]
}
