import Foundation
import Glibc
import Testing
@testable import Reactor

@Suite struct PeerTests {
    @Test("A peer is known by its numbers, its groups and its program, with a descriptor and without", arguments: [true, false])
    func known(usesDescriptor: Bool) throws {
        let pair = try Socket.messagePair()
        let peer = try ConnectedPeer(of: pair.first.rawValue, usesDescriptor: usesDescriptor)
        #expect(peer.credentials == PeerCredentials(pid: getpid(), uid: geteuid(), gid: getegid()) && peer.groups.contains(getegid()) && peer.isAlive)
        #expect(peer.executable.map { URL(fileURLWithPath: $0).resolvingSymlinksInPath().path } == URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().path)
    }

    @Test("A peer that has ended is nobody", arguments: [true, false])
    func ended(usesDescriptor: Bool) throws {
        let path = NSTemporaryDirectory() + "peer-\(UUID().uuidString)"
        let listener = try Socket.listen(path: path)
        defer { Files.remove(path) }
        var status = stat()
        #expect(unsafe lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        let child = try ChildProcess(
            path: "/usr/bin/env", arguments: ["env", "python3", "-c", "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\(path)')"],
            environment: ["PATH=/usr/bin:/bin"])
        #expect(Socket.wait(listener.rawValue, .readable, nanoseconds: 10_000_000_000))
        // It is reaped, and has gone.
        #expect(child.wait(nanoseconds: 10_000_000_000) == .exited(0))
        switch try Socket.accept(listener.rawValue) {
        case .connection(let connection, _):
            #expect(throws: SystemError.self) { _ = try ConnectedPeer(of: connection.rawValue, usesDescriptor: usesDescriptor) }
        default: Issue.record("it did not connect")
        }
    }
}
