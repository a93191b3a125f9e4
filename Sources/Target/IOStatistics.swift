/// What an I_T_L nexus has done so far: the columns of tgt's `--op stat`.
public struct IOStatistics: Hashable, Sendable {
    public struct Amount: Hashable, Sendable {
        public var bytes: UInt64 = 0
        public var commands: UInt64 = 0

        mutating func add(_ count: Int) {
            bytes &+= UInt64(count)
            commands &+= 1
        }
    }

    public var readSubmitted = Amount()
    public var readDone = Amount()
    public var writeSubmitted = Amount()
    public var writeDone = Amount()
    /// Commands that ended with a status other than GOOD and CONDITION MET.
    public var errors: UInt64 = 0

    public init() {}
}
