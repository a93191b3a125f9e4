/// Whose an object is. There is one tenant until policy names more (`Tenancy`).
public struct Tenant: Hashable, Sendable {
    public let name: String
    public init(name: String) { self.name = name }
    public static let `default` = Tenant(name: "default")
}

/// The number an administrator gives a target (`--tid`): 1…2³¹−1.
public struct TargetID: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: Int32

    /// nil unless positive.
    public init?(rawValue: Int32) {
        guard rawValue > 0 else { return nil }
        self.rawValue = rawValue
    }

    public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    public var description: String { String(rawValue) }
}

/// A logical unit of a target.
public struct LogicalUnitKey: Hashable, Comparable, Sendable {
    public let target: TargetID
    /// 0…16383.
    public let lun: Int

    public init(target: TargetID, lun: Int) {
        self.target = target
        self.lun = lun
    }

    public static func < (a: Self, b: Self) -> Bool { (a.target, a.lun) < (b.target, b.lun) }
}
