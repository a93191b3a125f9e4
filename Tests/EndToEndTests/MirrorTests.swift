import Foundation
import Testing

/// Whoever answers with what is not its own: initiators with our challenge, or with what somebody else once answered; and a login process that was taken over.
@Suite(.enabled(if: Subject.isPortcullis)) struct MirrorTests {
    private static let secret = "secret of alice!"

    private func serving() throws -> Daemon {
        let daemon = try Daemon.serving()
        for (user, secret) in [("alice", Self.secret), ("target", "secret of target")] {
            let file = try daemon.folder.write(secret, to: "\(user).secret")
            try daemon.must("--mode account --op new --user \(user) --password-file \(file)")
        }
        try daemon.must("--mode account --op bind --tid 1 --user alice")
        try daemon.must("--mode account --op bind --tid 1 --user target --outgoing")
        return daemon
    }

    /// A connection that has been given its challenge.
    private struct Challenged {
        let initiator: Initiator
        let isid: UInt8
        let identifier: String
        /// In hexadecimal.
        let challenge: String

        /// - Parameter number: of the address it comes from, and of its ISID
        init(_ daemon: Daemon, _ number: UInt8) throws {
            initiator = try Initiator(port: daemon.port, source: number)
            isid = number
            _ = try Self.ask(initiator, isid, ["InitiatorName=\(Initiator.name)", "SessionType=Normal", "TargetName=\(Daemon.iqn("disk"))", "AuthMethod=CHAP"])
            let answer = try Self.ask(initiator, isid, ["CHAP_A=7"])
            let keys = answer?.data.split(separator: 0).map { String(decoding: $0, as: UTF8.self) } ?? []
            identifier = try #require(keys.first { $0.hasPrefix("CHAP_I=") }.map { String($0.dropFirst(7)) })
            challenge = try #require(keys.first { $0.hasPrefix("CHAP_C=0x") }.map { String($0.dropFirst(9)) })
        }

        /// A request that stays in the security stage; nil: no answer, and the connection is closed.
        private static func ask(_ initiator: Initiator, _ isid: UInt8, _ keys: [String]) throws -> PDU? {
            var request = Initiator.loginRequest(keys: keys, isid: isid)
            request.header[1] = 0
            initiator.wire.send(request.bytes)
            if let answer = initiator.receive() { return answer }
            guard initiator.wire.isClosedNow() else { throw Failure("neither an answer nor an end") }
            return nil
        }

        /// Status class and detail; nil: closed without a word.
        func answer(_ response: String, challenge: String? = nil) throws -> UInt16? {
            let mutual = challenge.map { ["CHAP_I=1", "CHAP_C=0x\($0)"] } ?? []
            return try Self.ask(initiator, isid, ["CHAP_N=alice", "CHAP_R=0x\(response)"] + mutual)?.statusClassAndDetail
        }

        /// What alice would answer, by Python's digest.
        func rightResponse(_ folder: Folder) throws -> String {
            let program = "import hashlib, sys; print(hashlib.sha256(bytes([int(sys.argv[1])]) + sys.argv[2].encode() + bytes.fromhex(sys.argv[3])).hexdigest(), end='')"
            return try must("python3", "-c", program, identifier, MirrorTests.secret, challenge, folder: folder)
        }
    }

    @Test("A challenge of ours that comes back, on its own connection or another, ends that connection without a word; another's is answered")
    func reflection() throws {
        let daemon = try serving()
        let first = try Challenged(daemon, 11), second = try Challenged(daemon, 12), third = try Challenged(daemon, 13)
        #expect(try first.answer(first.rightResponse(daemon.folder), challenge: first.challenge) == nil)
        // The one for a connection that is gone.
        #expect(try second.answer(second.rightResponse(daemon.folder), challenge: first.challenge) == nil)
        #expect(daemon.log.contains("a challenge of our own"))
        var almost = third.challenge
        almost.replaceSubrange(almost.startIndex...almost.startIndex, with: almost.hasPrefix("0") ? "1" : "0")
        #expect(try third.answer(third.rightResponse(daemon.folder), challenge: almost) == 0)
    }

    @Test("A response that was right once is right nowhere else, and a second answer to one challenge is none")
    func replay() throws {
        let daemon = try serving()
        let first = try Challenged(daemon, 21), second = try Challenged(daemon, 22), third = try Challenged(daemon, 23)
        #expect(Set([first.challenge, second.challenge, third.challenge]).count == 3)
        let overheard = try first.rightResponse(daemon.folder)
        #expect(try first.answer(overheard) == 0)
        #expect(try second.answer(overheard) == 0x0201)
        #expect(try third.answer(overheard) == 0x0201)
        // It has had its answer.
        #expect(try third.answer(third.rightResponse(daemon.folder)) == nil)
    }

    /// Says something to control as login: takes login's end of the door and sends an answer for one connection, “alice” with zeros for a response.
    private static let impostor = """
        import ctypes, os, socket, sys
        login, connection = int(sys.argv[1]), int(sys.argv[2])
        libc = ctypes.CDLL(None, use_errno=True)
        door = libc.syscall(438, os.pidfd_open(login), 3, 0)  # pidfd_getfd
        if door < 0: raise OSError(ctypes.get_errno(), "pidfd_getfd")
        count = lambda n: n.to_bytes(4, "big")
        answer = bytes([6]) + connection.to_bytes(8, "big") + bytes([7]) + count(5) + b"alice" + count(32) + bytes(32) + bytes([0])
        # A batch of one, without a descriptor.
        socket.socket(fileno=door).send(bytes([0]) + count(len(answer)) + answer)
        """

    @Test("A login process that answers for a connection that has been judged is ended, whether the answer was wrong or right; one that answers in its turn is not", arguments: [false, true])
    func impostor(isRight: Bool) throws {
        let daemon = try serving()
        let program = try daemon.folder.write(Self.impostor, to: "impostor.py")
        // The first connection there is, and the second.
        let first = try Challenged(daemon, 31), second = try Challenged(daemon, 32)
        let login = try #require(daemon.child(role: "login"), daemon.evidence)
        func say(_ connection: Int) throws { _ = try must("python3", program, "\(login)", "\(connection)", folder: daemon.folder) }

        try say(2)
        #expect(eventually(within: 5) { daemon.log.contains("a wrong response for account “alice”") }, daemon.evidence)
        #expect(daemon.child(role: "login") == login && !daemon.log.contains("is ended"), "in its turn it is an answer like any other\n\(daemon.log)")

        let phase: String
        if isRight {
            #expect(try first.answer(first.rightResponse(daemon.folder)) == 0)
            try say(1)
            phase = "negotiating"
        } else {
            try say(2)
            phase = "unknown"
        }
        #expect(eventually(within: 5) { daemon.log.contains("authenticate in phase \(phase)") }, daemon.evidence)
        #expect(daemon.log.contains("the login process is ended: it sent what it may not"), daemon.evidence)
        #expect(eventually(within: 10) { daemon.child(role: "login").map { $0 != login } ?? false }, daemon.evidence)
        #expect(second.initiator.wire.closes(within: 5), "its connections end with it")
        var after: Challenged?
        _ = eventually(within: 10) {
            after = try? Challenged(daemon, 33)
            return after != nil
        }
        #expect(try after?.answer(after?.rightResponse(daemon.folder) ?? "") == 0, "its successor serves")
    }
}
