import Reactor

extension ConnectorSettings {
    /// The same as a configuration of stunnel (5.68): what tgt-connect does can be done by it, slower.
    public var stunnel: String {
        var lines = ["; stunnel FILE", "foreground = yes", "syslog = no", "pid ="]
        for portal in portals { lines += ["", "[\(portal.title)]"] + portal.options.map { "\($0.name) = \($0.value)" } }
        return lines.joined(separator: "\n") + "\n"
    }
}

extension PortalSettings {
    fileprivate var options: [(name: String, value: String)] {
        var options = [
            ("client", "yes"), ("accept", "\(listen)"), ("connect", title), ("socket", "l:TCP_NODELAY=1"), ("socket", "r:TCP_NODELAY=1"),
            ("sslVersionMin", policy == .strict ? "TLSv1.3" : "TLSv1.2"),
        ]
        if let preSharedKeyFile {
            options.append(("PSKsecrets", preSharedKeyFile))
            if let identity { options.append(("PSKidentity", identity)) }
            // Without a suite for pre-shared keys stunnel would check a certificate that nobody shows.
            options += [("ciphersuites", "TLS_AES_128_GCM_SHA256"), ("ciphers", "PSK")]
            return options
        }
        if policy == .compatible { options.append(("ciphers", "ECDHE+AESGCM:ECDHE+CHACHA20")) }
        if let pin {
            // stunnel compares the whole certificate, not its key alone.
            options += [("CAfile", pin), ("verifyPeer", "yes")]
        } else if let ca {
            options += [("CAfile", ca), ("verifyChain", "yes"), (isAddress ? "checkIP" : "checkHost", expectedName)]
            if let crl { options.append(("CRLfile", crl)) }
        }
        if let certificate, let key { options += [("cert", certificate), ("key", key)] }
        return options
    }

    /// Whether the portal's certificate is for an address.
    private var isAddress: Bool { SocketAddress(expectedName, defaultPort: 1) != nil }
}
