import Yams

/// A setting that is not right: where it stands and what would be.
public struct SettingsError: Error, Equatable, CustomStringConvertible {
    public var file: String
    public var line: Int?
    public var message: String
    public var description: String { line.map { "\(file):\($0): \(message)" } ?? "\(file): \(message)" }

    public init(file: String, line: Int?, message: String) {
        self.file = file
        self.line = line
        self.message = message
    }
}

/// A key of a settings file: its name, with a dot where it stands under another (`log.level`), and what takes its node, or says what
/// would be right.
public typealias SettingsKey<Subject> = (name: String, set: @Sendable (inout Subject, Node) -> String?)

/// A settings file (YAML) as it is read: only keys that are known, each once, and every error with its line.
public struct SettingsFile: Sendable {
    /// Its name, for errors.
    public let name: String

    public init(name: String) { self.name = name }

    /// Reads the file's text; an empty one leaves all as it is.
    public func read<Subject>(_ text: String, into subject: inout Subject, keys: [SettingsKey<Subject>]) throws(SettingsError) {
        if let root = try root(of: text) { try read(root, into: &subject, keys: keys) }
    }

    /// What stands in the file's text; nil: nothing.
    public func root(of text: String) throws(SettingsError) -> Node? {
        do {
            return try compose(yaml: text).flatMap { $0.null == nil ? $0 : nil }
        } catch {
            let (line, problem) = Self.place(of: error)
            throw SettingsError(file: name, line: line, message: "not YAML: \(problem)")
        }
    }

    private static func place(of error: any Error) -> (line: Int?, problem: String) {
        switch error as? YamlError {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _), .composer(_, let problem, let mark, _): (mark.line, problem)
        case .duplicatedKeysInMapping(let keys, let context): (context.mark.line, "\(keys.sorted().joined(separator: ", ")) stands there twice")
        default: (nil, "\(error)")
        }
    }

    /// Reads a mapping.
    /// - Parameter path: what it stands under, with a dot behind it
    public func read<Subject>(_ node: Node, into subject: inout Subject, keys: [SettingsKey<Subject>], path: String = "") throws(SettingsError) {
        guard let mapping = node.mapping else {
            throw SettingsError(file: name, line: node.mark?.line, message: "keys with values are wanted\(path.isEmpty ? "" : " under \(path.dropLast())")")
        }
        var seen: Set<String> = []
        for (keyNode, value) in mapping {
            let key = path + (keyNode.scalar?.string ?? "?")
            let line = keyNode.mark?.line
            guard seen.insert(key).inserted else { throw SettingsError(file: name, line: line, message: "\(key) is set twice") }
            if let known = keys.first(where: { $0.name == key }) {
                if let trouble = known.set(&subject, value) {
                    throw SettingsError(file: name, line: value.mark?.line ?? line, message: "\(key): \(trouble)")
                }
            } else if keys.contains(where: { $0.name.hasPrefix(key + ".") }) {
                try read(value, into: &subject, keys: keys, path: key + ".")
            } else {
                throw SettingsError(file: name, line: line, message: "there is no setting \(key)")
            }
        }
    }
}
