/// A certificate authority of a test's own, made with certs/issue as an administrator would.
final class Authority {
    let folder: Folder
    var path: String { folder.path("pki") }

    static let script = "\(Subject.package)/certs/issue"

    init(_ words: String...) throws {
        folder = try Folder()
        try issue(["ca"] + words)
    }

    /// One call of certs/issue, whatever comes of it.
    func attempt(_ words: [String]) throws -> Finished {
        try Running([Self.script, "-d", path] + words, folder: folder).wait(seconds: 30)
    }

    /// One that has to succeed; what it printed.
    @discardableResult
    func issue(_ words: [String]) throws -> String {
        let finished = try attempt(words)
        guard finished.succeeded else { throw Failure(finished.evidence) }
        return finished.output
    }
    @discardableResult
    func issue(_ words: String...) throws -> String { try issue(words) }

    /// Certificate and key of a portal that is 127.0.0.1, or what `names` say.
    func portal(_ names: String..., options: [String] = []) throws -> Credentials {
        let names = names.isEmpty ? ["127.0.0.1"] : names
        try issue(["portal"] + names + options)
        return Credentials(folder: "\(path)/portals/\(names[0])")
    }

    func initiator(_ name: String, options: [String] = []) throws -> Credentials {
        try issue(["initiator", name] + options)
        return Credentials(folder: "\(path)/initiators/\(name)")
    }

    var certificate: String { "\(path)/ca.pem" }
    var revocations: String { "\(path)/crl.pem" }
    var preSharedKeys: String { "\(path)/portals.psk" }
}

/// What certs/issue has made for one portal or initiator.
struct Credentials {
    let folder: String
    var certificate: String { "\(folder)/certificate.pem" }
    var key: String { "\(folder)/key.pem" }
    /// identity:key
    var preSharedKey: String { "\(folder)/identity.psk" }
    var connectorSettings: String { "\(folder)/tgt-connect.yaml" }
}
