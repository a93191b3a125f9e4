import Bytes
import ISCSI
import JSON
import SCSI

/// What is kept is not what this version keeps: which member, and what is wrong with it.
struct StoredError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A value that is kept: what it is as JSON, and again from that.
protocol Stored: Sendable {
    var stored: JSONValue { get }
    init(stored value: JSONValue) throws(StoredError)
}

/// One member of what is kept of a `Whole`: how it is called and where it stands.
struct StoredField<Whole>: Sendable {
    let name: String
    /// What an earlier version has kept may lack it: then its default stays.
    let isNewer: Bool
    let read: @Sendable (Whole) -> JSONValue
    let write: @Sendable (inout Whole, JSONValue) throws(StoredError) -> Void

    init<Value: Stored>(_ name: String, _ path: WritableKeyPath<Whole, Value> & Sendable, isNewer: Bool = false) {
        self.name = name
        self.isNewer = isNewer
        read = { $0[keyPath: path].stored }
        write = { whole, value throws(StoredError) in whole[keyPath: path] = try Value(stored: value) }
    }
}

extension [JSONValue.Member] {
    init<Whole>(_ whole: Whole, _ fields: [StoredField<Whole>]) { self = fields.map { .init($0.name, $0.read(whole)) } }
}

/// The members of an object: each is to be taken, once; one that is missing or left over is an error.
struct StoredMembers {
    private var values: [String: JSONValue]

    init(_ value: JSONValue) throws(StoredError) {
        guard case .object(let members) = value else { throw StoredError("an object is missing") }
        values = Dictionary(members.map { ($0.name, $0.value) }) { first, _ in first }
    }

    func has(_ name: String) -> Bool { values[name] != nil }

    mutating func value(_ name: String) throws(StoredError) -> JSONValue {
        guard let value = values.removeValue(forKey: name) else { throw StoredError("\(name) is missing") }
        return value
    }

    mutating func take<Value: Stored>(_ name: String, as type: Value.Type = Value.self) throws(StoredError) -> Value {
        let value = try value(name)
        do throws(StoredError) { return try Value(stored: value) } catch { throw StoredError("\(name): \(error)") }
    }

    mutating func take<Whole>(into whole: inout Whole, _ fields: [StoredField<Whole>]) throws(StoredError) {
        for field in fields where !(field.isNewer && values[field.name] == nil) {
            let value = try value(field.name)
            do throws(StoredError) { try field.write(&whole, value) } catch { throw StoredError("\(field.name): \(error)") }
        }
    }

    func end() throws(StoredError) {
        if let name = values.keys.min() { throw StoredError("there is a member \(escaped(name.utf8)) that this version does not know") }
    }
}

// MARK: What everything is made of

extension Bool: Stored {
    var stored: JSONValue { .bool(self) }
    init(stored value: JSONValue) throws(StoredError) {
        guard case .bool(let value) = value else { throw StoredError("true or false is wanted") }
        self = value
    }
}

extension String: Stored {
    var stored: JSONValue { .string(self) }
    init(stored value: JSONValue) throws(StoredError) {
        guard case .string(let value) = value else { throw StoredError("a string is wanted") }
        self = value
    }
}

extension FixedWidthInteger where Self: Stored {
    /// No number that is kept needs more than 63 bits.
    var stored: JSONValue { .number(Int(clamping: self)) }
    init(stored value: JSONValue) throws(StoredError) {
        guard case .number(let value) = value, let value = Self(exactly: value) else { throw StoredError("a number of its range is wanted") }
        self = value
    }
}
extension Int: Stored {}
extension Int32: Stored {}
extension UInt8: Stored {}
extension UInt16: Stored {}
extension UInt32: Stored {}
extension UInt64: Stored {}

extension RawRepresentable where Self: Stored, RawValue: Stored {
    var stored: JSONValue { rawValue.stored }
    init(stored value: JSONValue) throws(StoredError) {
        guard let value = Self(rawValue: try RawValue(stored: value)) else { throw StoredError("a value that exists is wanted") }
        self = value
    }
}
extension ServiceState: Stored {}
extension BackingStore.Kind: Stored {}
extension UnitAccess: Stored {}
extension LogicalUnitSettings.DeviceType: Stored {}
extension TargetID: Stored {
    var stored: JSONValue { rawValue.stored }
    init(stored value: JSONValue) throws(StoredError) {
        guard let id = TargetID(rawValue: try Int32(stored: value)) else { throw StoredError("the number of a target is wanted") }
        self = id
    }
}

extension Optional: Stored where Wrapped: Stored {
    var stored: JSONValue { map(\.stored) ?? .null }
    init(stored value: JSONValue) throws(StoredError) { self = value == .null ? nil : try Wrapped(stored: value) }
}

extension Array: Stored where Element: Stored {
    var stored: JSONValue { .array(map(\.stored)) }
    init(stored value: JSONValue) throws(StoredError) {
        guard case .array(let values) = value else { throw StoredError("a list is wanted") }
        self = try values.map { value throws(StoredError) in try Element(stored: value) }
    }
}

/// A text that an administrator could have written is kept as that text.
private protocol StoredText: Stored {
    var storedText: String { get }
    init(storedText: [UInt8]) throws
}
extension StoredText {
    var stored: JSONValue { .string(storedText) }
    init(stored value: JSONValue) throws(StoredError) {
        let text = Array(try String(stored: value).utf8)
        do { self = try Self(storedText: text) } catch { throw StoredError("\(error)") }
    }
}

extension ISCSIName: StoredText {
    var storedText: String { spelling }
    init(storedText: [UInt8]) throws { try self.init(storedText) }
}
extension AccountName: StoredText {
    var storedText: String { description }
    init(storedText: [UInt8]) throws { try self.init(storedText) }
}
extension BackingStore.Flags: Stored {
    var stored: JSONValue { names.stored }
    init(stored value: JSONValue) throws(StoredError) {
        let names = try [String](stored: value)
        do throws(ConfigurationError) { self = names.isEmpty ? [] : try Self(parsing: names.joined(separator: ":").utf8) } catch { throw StoredError("\(error)") }
    }
}
