import Crypto
import Foundation
import Reactor
import Synchronization

package struct Unexpected: Error, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
}

/// A private key and the certificate that goes with it, as files hold them.
package struct Credentials: Sendable {
    package let name: String
    /// PEM.
    package let certificate: [UInt8]
    package let key: [UInt8]
    /// Where `openssl` finds them.
    package let certificateFile: String
    package let keyFile: String

    package var chain: CertificateChain { get throws { try CertificateChain(pem: certificate) } }
    package var signing: SigningKey { get throws { try SigningKey(pem: Secret(key)) } }
}

/// An authority in a folder of its own, by the `openssl` program; both go with it.
package final class Issuer: Sendable {
    package enum Key: String, CaseIterable, Sendable {
        case p256 = "ec -pkeyopt ec_paramgen_curve:P-256"
        case p384 = "ec -pkeyopt ec_paramgen_curve:P-384"
        case ed25519 = "ed25519"
        case rsa = "rsa:2048"
        case p521 = "ec -pkeyopt ec_paramgen_curve:P-521"
    }

    package let folder: String
    /// Its own certificate, PEM.
    package let certificate: [UInt8]
    package var certificateFile: String { "\(folder)/ca.crt" }

    /// - Parameter upper: an authority that another one has made; nil: it signs itself
    package init(key: Key = .p256, below upper: Credentials? = nil) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("issuer-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try """
            [req]
            distinguished_name = dn
            [dn]
            [ca]
            default_ca = this
            [this]
            database = \(folder)/index
            new_certs_dir = \(folder)
            private_key = \(folder)/ca.key
            certificate = \(folder)/ca.crt
            default_md = sha256
            policy = any
            rand_serial = yes
            unique_subject = no
            copy_extensions = copy
            default_crl_days = 7
            [any]
            commonName = supplied
            """.write(toFile: "\(folder)/config", atomically: true, encoding: .utf8)
        try Data().write(to: URL(fileURLWithPath: "\(folder)/index"))
        if let upper {
            try Data(upper.certificate).write(to: URL(fileURLWithPath: "\(folder)/ca.crt"))
            try Data(upper.key).write(to: URL(fileURLWithPath: "\(folder)/ca.key"))
            certificate = upper.certificate
            return
        }
        try openssl(
            "req -x509 -config \(folder)/config -newkey \(key.rawValue) -nodes -keyout \(folder)/ca.key -out \(folder)/ca.crt -days 7 -subj /CN=authority-\(UUID().uuidString)"
                + " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign")
        certificate = try contents("\(folder)/ca.crt")
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    /// - Parameters:
    ///   - names: subjectAltName; empty: none
    ///   - dates: from and to, as ASN.1's GeneralizedTime
    package func issue(
        _ name: String, key: Key = .p256, names: String = "", extensions: [String] = [], dates: (from: String, to: String) = ("20200101000000Z", "20400101000000Z")
    ) throws -> Credentials {
        let base = "\(folder)/\(name)"
        let added = (names.isEmpty ? extensions : ["subjectAltName=\(names)"] + extensions).map { " -addext \($0)" }.joined()
        try openssl("req -new -config \(folder)/config -newkey \(key.rawValue) -nodes -keyout \(base).key -out \(base).csr -subj /CN=\(name)" + added)
        try register("-batch -notext -in \(base).csr -out \(base).crt -startdate \(dates.from) -enddate \(dates.to)")
        return try Credentials(
            name: name, certificate: contents("\(base).crt"), key: contents("\(base).key"), certificateFile: "\(base).crt", keyFile: "\(base).key")
    }

    /// An authority below this one.
    package func issueAuthority(_ name: String) throws -> Credentials {
        try issue(name, extensions: ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"])
    }

    /// `openssl ca`, one at a time: it keeps a list of what it has issued.
    private func register(_ words: String) throws { try database.withLock { _ in try openssl("ca -config \(folder)/config \(words)") } }
    private let database = Mutex(())

    package func revoke(_ credentials: Credentials) throws { try register("-revoke \(credentials.certificateFile)") }

    /// What is revoked so far, PEM.
    package func revocationList(seconds: Int = 86400) throws -> [UInt8] {
        try register("-gencrl -crlsec \(seconds) -out \(folder)/list.crl")
        return try contents("\(folder)/list.crl")
    }
}

package func contents(_ path: String) throws -> [UInt8] {
    guard let data = FileManager.default.contents(atPath: path) else { throw Unexpected(description: "no \(path)") }
    return Array(data)
}

/// Runs `openssl` with words that hold no spaces and nothing a shell would read.
package func openssl(_ words: String) throws {
    let log = FileManager.default.temporaryDirectory.appendingPathComponent("openssl-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: log) }
    // A child that gets no descriptors and no signal mask of this process, where other tests run: Foundation's would.
    let child = try ChildProcess(
        path: "/bin/sh", arguments: ["sh", "-c", "exec openssl \(words) < /dev/null > \(log) 2>&1"], environment: ["PATH=/usr/bin:/bin"])
    let end = child.wait(nanoseconds: 60_000_000_000)
    if end == nil { child.send(signal: SIGKILL) }
    guard end == .exited(0) else {
        throw Unexpected(description: "openssl \(words): \(end.map { "\($0)" } ?? "no end"): \((try? String(contentsOfFile: log, encoding: .utf8)) ?? "")")
    }
}
