/// A way into the rooms for bytes from outside: whatever they are, nothing traps and no invariant breaks.
///
/// The fuzzing program runs one of them without end; the tests replay what it has found worth keeping.
public struct Fuzzer: Sendable {
    public let name: String
    /// Works through one input. A broken invariant is a trap.
    public let run: @Sendable ([UInt8]) -> Void

    /// Every fuzzer; each has its corpus in the folder of its name.
    public static let all = [
        Fuzzer(name: "login", run: LoginFuzz.run),
        Fuzzer(name: "login-text", run: LoginTextFuzz.run),
        Fuzzer(name: "session", run: SessionFuzz.run),
        Fuzzer(name: "unit", run: UnitFuzz.run),
        Fuzzer(name: "management", run: ManagementFuzz.run),
        Fuzzer(name: "native", run: NativeFuzz.run),
        Fuzzer(name: "door", run: DoorFuzz.run),
        Fuzzer(name: "desk", run: DeskFuzz.run),
    ]

    public static func named(_ name: String) -> Fuzzer? { all.first { $0.name == name } }
}
