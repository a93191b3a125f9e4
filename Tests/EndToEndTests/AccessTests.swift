import Glibc
import Testing

/// Who is let in. Two refusals count as one: "authorization failure" (0202) and "not found" (0203, what tgt says).
@Suite struct AccessTests {
    private static let refusals: Set<UInt16> = [0x0202, 0x0203]

    private func daemon(_ rules: String...) throws -> Daemon {
        let daemon = try Daemon()
        try daemon.addTarget()
        try daemon.addDisk(file: daemon.folder.sparseFile("disk", size: 8 << 20))
        for rule in rules { try daemon.admit(rule) }
        return daemon
    }
    private func status(_ daemon: Daemon, name: String = Initiator.name) throws -> UInt16 {
        let initiator = try Initiator(port: daemon.port)
        guard let status = initiator.login(target: Daemon.iqn("disk"), name: name) else { throw Failure("login was not answered\n\(daemon.log)") }
        return status
    }
    private func isListed(_ daemon: Daemon, name: String = Initiator.name) throws -> Bool {
        try run("iscsi-ls", "-i", name, "iscsi://\(daemon.portal)", folder: daemon.folder).output.contains("Target:\(Daemon.iqn("disk"))")
    }

    @Test("A target without a rule admits nobody and is not listed")
    func noRule() throws {
        let daemon = try daemon()
        #expect(Self.refusals.contains(try status(daemon)), daemon.evidence)
        #expect(try !isListed(daemon))
    }

    @Test("When a rule is unbound, the sessions that it admitted are gone with the answer", .enabled(if: Subject.isPortcullis))
    func unbind() throws {
        let daemon = try daemon("-I ALL")
        for _ in 0..<8 {
            let initiators = try (1...4).map { try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"), isid: $0) }
            try daemon.must("--op unbind --mode target --tid 1 -I ALL")
            #expect(try !daemon.must("--op show --mode conn --tid 1").contains("Session"), daemon.evidence)
            #expect(initiators.allSatisfy { $0.wire.closes(within: 1) })
            try daemon.admit()
        }
    }

    @Test("A data process that does not carry out the end of a session keeps the administrator no longer than five seconds", .enabled(if: Subject.isPortcullis))
    func unbindWithDeadline() throws {
        let daemon = try daemon("-I ALL")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        let data = try #require(daemon.child(role: "data"), daemon.evidence)
        kill(data, SIGSTOP)
        defer { kill(data, SIGCONT) }
        let begin = ContinuousClock.now
        try daemon.must("--op unbind --mode target --tid 1 -I ALL")
        #expect((.seconds(4)...(.seconds(10))).contains(ContinuousClock.now - begin), "\(ContinuousClock.now - begin)")
        #expect(daemon.log.contains("not over within 5 s"), daemon.evidence)
        kill(data, SIGCONT)
        #expect(initiator.wire.closes(within: 5))
    }

    @Test("ALL admits everybody")
    func all() throws {
        let daemon = try daemon("-I ALL")
        #expect(try status(daemon) == 0, daemon.evidence)
        #expect(try isListed(daemon))
    }

    // tgt takes no prefix of no bits or of all.
    @Test(
        "An address rule admits who comes from there",
        arguments: ["127.0.0.1", "127.0.0.0/8", "126.0.0.0/7"] + (Subject.isPortcullis ? ["0.0.0.0/0", "127.0.0.1/32", "::ffff:127.0.0.1"] : []))
    func addressThatMatches(rule: String) throws {
        let daemon = try daemon("-I \(rule)")
        #expect(try status(daemon) == 0, daemon.evidence)
        #expect(try isListed(daemon))
    }

    @Test("An address rule keeps others out", arguments: ["127.0.0.2", "10.0.0.0/8", "127.0.0.2/32", "::1"])
    func addressThatDoesNotMatch(rule: String) throws {
        let daemon = try daemon("-I \(rule)")
        #expect(Self.refusals.contains(try status(daemon)), daemon.evidence)
        #expect(try !isListed(daemon))
    }

    @Test("One of several addresses is enough")
    func severalAddresses() throws {
        let daemon = try daemon("-I 10.1.2.3", "-I 127.0.0.1")
        #expect(try status(daemon) == 0, daemon.evidence)
    }

    @Test("A name rule admits that initiator and no other")
    func name() throws {
        let daemon = try daemon("-Q \(Initiator.name)")
        #expect(try status(daemon) == 0, daemon.evidence)
        #expect(try isListed(daemon))
        #expect(Self.refusals.contains(try status(daemon, name: "iqn.2026-11.org.example:somebody-else")))
        #expect(try !isListed(daemon, name: "iqn.2026-11.org.example:somebody-else"))
    }

    @Test("Where names and addresses are given, one of each has to match", .enabled(if: Subject.isPortcullis))
    func nameAndAddress() throws {
        let both = try daemon("-Q \(Initiator.name)", "-I 127.0.0.1")
        #expect(try status(both) == 0, both.evidence)
        #expect(Self.refusals.contains(try status(both, name: "iqn.2026-11.org.example:somebody-else")))
        let elsewhere = try daemon("-Q \(Initiator.name)", "-I 10.0.0.1")
        #expect(Self.refusals.contains(try status(elsewhere)), elsewhere.evidence)
    }

    @Test("The case of an initiator's name makes no difference (RFC 7143 §4.2.7)", .enabled(if: Subject.isPortcullis))
    func foldedName() throws {
        let daemon = try daemon("-Q \(Initiator.name)")
        #expect(try status(daemon, name: Initiator.name.uppercased()) == 0, daemon.evidence)
        // U+212A KELVIN SIGN is no K.
        let kelvin = try self.daemon("-Q iqn.2026-11.org.example:k")
        #expect(try status(kelvin, name: "iqn.2026-11.org.example:\u{212A}") != 0)
    }

    @Test("A target that is not there is answered 0203")
    func unknownTarget() throws {
        let daemon = try daemon("-I ALL")
        let initiator = try Initiator(port: daemon.port)
        #expect(initiator.login(target: Daemon.iqn("nothing")) == 0x0203)
    }

    @Test("A target with a bound account refuses who does not authenticate: 0201")
    func boundAccount() throws {
        let daemon = try daemon("-I ALL")
        try daemon.must("--op new --mode account --user alice --password alicesecret12")
        try daemon.must("--op bind --mode account --tid 1 --user alice")
        #expect(try status(daemon) == 0x0201, daemon.evidence)
        #expect(try !run("iscsi-inq", daemon.url(), folder: daemon.folder).succeeded)
    }

    @Test("Discovery with a bound account refuses who does not authenticate: 0201")
    func boundDiscoveryAccount() throws {
        let daemon = try daemon("-I ALL")
        try daemon.must("--op new --mode account --user alice --password alicesecret12")
        try daemon.must("--op bind --mode account --user alice")
        #expect(try Initiator(port: daemon.port).login(target: nil) == 0x0201, daemon.evidence)
        #expect(try status(daemon) == 0)
    }

    @Test("A discovery session ends within five seconds when an account is bound to discovery", .enabled(if: Subject.isPortcullis))
    func discoveryAccountBound() throws {
        let daemon = try Daemon.serving()
        let initiator = try Initiator(port: daemon.port)
        #expect(initiator.login(target: nil) == 0)
        try daemon.must("--op new --mode account --user alice --password alicesecret12")
        try daemon.must("--op bind --mode account --user alice")
        #expect(initiator.wire.closes(within: 5), daemon.evidence)
    }

    @Test("A session ends within five seconds when its rule goes", .enabled(if: Subject.isPortcullis))
    func ruleWithdrawn() throws {
        let daemon = try daemon("-I 127.0.0.1")
        let initiator = try Initiator.login(port: daemon.port, target: Daemon.iqn("disk"))
        try initiator.settle()
        try daemon.must("--op unbind --mode target --tid 1 -I 127.0.0.1")
        #expect(initiator.wire.closes(within: 5), daemon.evidence)
        #expect(Self.refusals.contains(try status(daemon)))
    }

    @Test("A target taken offline refuses logins and takes them again when ready")
    func offline() throws {
        let daemon = try daemon("-I ALL")
        try daemon.must("--op update --mode target --tid 1 --name state --value offline")
        #expect(try status(daemon) == (Subject.isPortcullis ? 0x0301 : 0x0300), daemon.evidence)
        try daemon.must("--op update --mode target --tid 1 --name state --value ready")
        #expect(try status(daemon) == 0, daemon.evidence)
    }
}
