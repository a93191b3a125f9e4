import Bytes
import CLinux
import Glibc
import Testing

@testable import Reactor

/// What a child of an exit test has insisted on so far. All it can tell is its exit code: how many things were so before one was
/// not.
private let insisted = Counter()

func insist(_ condition: Bool) {
    if !condition { _exit(Int32(100 + insisted.value)) }
    insisted.add(1)
}

@discardableResult
func insist<Value: ~Copyable>(_ body: () throws -> Value) -> Value {
    do {
        let value = try body()
        insisted.add(1)
        return value
    } catch { _exit(Int32(100 + insisted.value)) }
}

/// -errno, or what the call returned.
func result(_ value: Int32) -> Int32 { value == -1 ? -errno : value }

@Suite struct ProcessTests {
    let deadline: UInt64 = 10_000_000_000

    @Test("a child gets its arguments, its environment and its descriptors, and nothing else")
    func spawn() throws {
        let (read, write) = try pipe()
        let kept = try MessageEnds()
        let script = """
            for fd in 3 4; do test -e /proc/$$/fd/$fd || exit 10; done
            for fd in 5 6 7 8 9 \(kept.first.rawValue) \(kept.second.rawValue); do
              if test $fd -gt 4 && test -e /proc/$$/fd/$fd; then exit $fd; fi
            done
            echo "$0 $1 $GIFT $HOME" >&4
            exit 7
            """
        // The order of the descriptors is not that of their numbers.
        let child = try ChildProcess(
            path: "/bin/sh", arguments: ["sh", "-c", script, "name", "argument"], environment: ["GIFT=x y"],
            descriptors: [read.rawValue, write.rawValue])
        write.close()
        #expect(child.wait(nanoseconds: deadline) == .exited(7))
        var bytes = [UInt8](repeating: 0, count: 100)
        let count = unsafe Glibc.read(read.rawValue, &bytes, 100)
        #expect(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self) == "name argument x y \n")
    }

    @Test("descriptors may be given in any order, and one of them twice")
    func permuted() throws {
        let (read, write) = try pipe()
        let child = try ChildProcess(
            path: "/bin/sh", arguments: ["sh", "-c", "test -r /dev/fd/5 && printf a >&3; printf b >&4"], environment: [],
            descriptors: [write.rawValue, write.rawValue, read.rawValue])
        #expect(child.wait(nanoseconds: deadline) == .exited(0))
        write.close()
        var bytes: [UInt8] = [0, 0, 0]
        #expect(unsafe Glibc.read(read.rawValue, &bytes, 3) == 2)
        #expect(bytes == Array("ab\0".utf8))
    }

    @Test("a child that runs is not reaped, and one that is killed is")
    func killed() throws {
        let child = try ChildProcess(path: "/bin/sleep", arguments: ["sleep", "100"], environment: [])
        #expect(child.wait(nanoseconds: 20_000_000) == nil && child.reap() == nil)
        child.send(signal: SIGTERM)
        #expect(child.wait(nanoseconds: deadline) == .killed(signal: SIGTERM))
        child.send(signal: SIGTERM)
    }

    @Test("a child's signals are at their defaults")
    func signals() throws {
        let child = try ChildProcess(path: "/bin/sh", arguments: ["sh", "-c", "kill -PIPE $$"], environment: [])
        #expect(child.wait(nanoseconds: deadline) == .killed(signal: SIGPIPE))
    }

    @Test("the descriptor of a child tells a loop of its end")
    func watched() throws {
        let loop = try EventLoop()
        let child = try ChildProcess(path: "/bin/sh", arguments: ["sh", "-c", "exit 3"], environment: [])
        let recorder = Recorder()
        recorder.onReady = { _ in
            #expect(child.reap() == .exited(3))
            loop.stop()
        }
        try loop.add(child.descriptor, .readable, recorder)
        loop.run()
    }

    @Test("a program that does not exist is an error")
    func missing() {
        do {
            _ = try ChildProcess(path: "/nonexistent", arguments: ["x"], environment: [])
            Issue.record("started")
        } catch {
            #expect(error.description == "start /nonexistent: No such file or directory")
        }
    }

    @Test("signals become events of the loop")
    func signalSource() async {
        await #expect(processExitsWith: .success) {
            let loop = insist { try EventLoop() }
            var seen: [Int32] = []
            let source = insist {
                try SignalSource(loop, [SIGTERM, SIGHUP]) { signal in
                    insist(signal.pid == getpid() && signal.uid == getuid())
                    seen.append(signal.number)
                    if signal.number == SIGTERM { loop.stop() }
                }
            }
            raise(SIGHUP)
            raise(SIGTERM)
            while seen.count < 2 { loop.run() }
            insist(seen.sorted() == [SIGHUP, SIGTERM])
            withExtendedLifetime(source) {}
            _exit(0)
        }
    }

    @Test("a process is tied to the parent it has, and to no other")
    func tie() async {
        await #expect(processExitsWith: .success) {
            insist { try Sandbox.tie(toParent: getppid()) }
            do throws(SystemError) {
                try Sandbox.tie(toParent: getpid())
                _exit(1)
            } catch { insist(error.code == ESRCH) }
            _exit(0)
        }
    }

    @Test("without descriptors a listener rests, reports it once, and goes on when there are some again")
    func exhausted() async {
        await #expect(processExitsWith: .success) {
            let loop = insist { try EventLoop() }
            let bound = insist { try Socket.listen(on: #require(SocketAddress("127.0.0.1:0"))).release() }
            let address = insist { try #require(try Socket.localAddress(bound)) }
            var (accepted, troubles): ([Int32], [Int32]) = ([], [])
            let listener = insist {
                try Listener(
                    loop, FileDescriptor(owning: bound), onConnection: { connection, _ in accepted.append(connection.release()) },
                    onTrouble: { troubles.append($0.code) })
            }
            _ = insist { try Socket.connect(to: address).release() }
            var limit = rlimit()
            insist(unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            let old = limit.rlim_cur
            // 0, 1 and 2 are taken; what other threads close meanwhile lies above.
            limit.rlim_cur = 3
            insist(unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            // A spinning listener would take far more turns than its pauses allow.
            let start = linux_monotonic_nanoseconds()
            var turns = 0
            while linux_monotonic_nanoseconds() - start < 350_000_000 {
                loop.turn(waitingAtMost: 50_000_000)
                turns += 1
            }
            insist(accepted.isEmpty)
            insist(troubles == [EMFILE])
            insist(turns < 40)
            limit.rlim_cur = old
            insist(unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
            while accepted.isEmpty { loop.turn(waitingAtMost: 1_000_000_000) }
            listener.close()
            _exit(0)
        }
    }
}

@Suite struct SandboxTests {
    @Test("Landlock alone leaves no file to open, and no port to bind or reach")
    func landlock() async {
        await #expect(processExitsWith: .success) {
            insist(linux_set_no_new_privileges() == 0)
            let listener = insist { try Socket.listen(on: #require(SocketAddress("127.0.0.1:0"))).release() }
            let address = insist { try #require(try Socket.localAddress(listener)) }
            let abi = linux_landlock_restrict(Int32(LINUX_LANDLOCK_FILES | LINUX_LANDLOCK_TCP_BIND | LINUX_LANDLOCK_TCP_CONNECT | LINUX_LANDLOCK_SCOPES), nil, 0)
            if abi == -ENOSYS || abi == -EOPNOTSUPP { _exit(0) }
            insist(abi >= 1)
            insist(unsafe result(open("/etc/passwd", O_RDONLY)) == -EACCES)
            insist(unsafe result(open("/tmp", O_RDONLY | O_DIRECTORY)) == -EACCES)
            insist(unsafe result(open("/dev/null", O_WRONLY)) == -EACCES)
            insist(unsafe result(mkdir("/tmp/portcullis-\(getpid())", 0o700)) == -EACCES)
            if abi >= 4 {
                do {
                    _ = try Socket.listen(on: #require(SocketAddress("127.0.0.1:0"))).release()
                    _exit(2)
                } catch { insist((error as? SystemError)?.code == EACCES) }
                do {
                    _ = try Socket.connect(to: address).release()
                    _exit(3)
                } catch { insist((error as? SystemError)?.code == EACCES) }
            }
            _exit(0)
        }
    }

    @Test("inside, nothing can be opened, connected, started or traced, by whoever went in")
    func walls() async {
        await #expect(processExitsWith: .success) {
            let isRoot = geteuid() == 0
            let nobody = Identity(uid: 65534, gid: 65534)
            let parent = getppid()
            let walls = insist { try Sandbox.enter(identity: isRoot ? nobody : nil, parent: parent) }
            let abi = linux_landlock_abi()
            insist(walls.landlock != nil || abi < 0)
            if isRoot {
                insist(Identity.current == nobody && getuid() == 65534 && getgid() == 65534)
                insist(result(setuid(0)) < 0)
                insist(getgroups(0, nil) <= 0)
            }
            for path in ["/etc/passwd", "/dev/null", "/proc/self/status", "/tmp/x"] {
                insist(unsafe result(open(path, O_RDONLY)) < 0)
                insist(unsafe result(open(path, O_RDWR | O_CREAT, 0o600)) < 0)
                insist(unsafe result(unlink(path)) < 0)
            }
            insist(result(socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)) == -EPERM)
            insist(result(socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)) == -EPERM)
            insist(result(socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), 0)) == -EPERM)
            insist(result(kill(parent, 0)) == -EPERM)
            insist(linux_pidfd_open(getpid()) == -EPERM)
            insist(linux_set_dumpable(true) == -EPERM)
            do throws(SystemError) {
                _ = try ChildProcess(path: "/bin/true", arguments: ["true"], environment: [])
                _exit(2)
            } catch { insist(error.code == EPERM) }
            let code = unsafe mmap(nil, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | Int32(0x20), -1, 0)
            insist(unsafe code == MAP_FAILED && errno == EPERM)
            var limit = rlimit(rlim_cur: 1, rlim_max: 1)
            insist(unsafe getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit) == 0 && limit.rlim_max == 0)
            _exit(0)
        }
    }

    @Test("inside, who may connect reaches the ports it named by TCP, and nothing else")
    func connecting() async {
        await #expect(processExitsWith: .success) {
            let listeners = insist { try (0..<2).map { _ in try Socket.listen(on: #require(SocketAddress("127.0.0.1:0"))).release() } }
            let addresses = insist { try listeners.map { try #require(try Socket.localAddress($0)) } }
            let walls = insist {
                try Sandbox.enter(
                    identity: geteuid() == 0 ? Identity(uid: 65534, gid: 65534) : nil, parent: nil, connectingTo: [addresses[0].port])
            }
            let connection = insist { try Socket.connect(to: addresses[0]).release() }
            insist(Socket.wait(connection, .writable, nanoseconds: 5_000_000_000) && Socket.takeError(connection) == nil)
            if walls.landlock ?? 0 >= 4 {
                do throws(SystemError) {
                    _ = try Socket.connect(to: addresses[1]).release()
                    _exit(2)
                } catch { insist(error.code == EACCES) }
            }
            for (family, kind) in [(AF_INET, SOCK_DGRAM), (AF_INET6, SOCK_DGRAM), (AF_INET, SOCK_RAW), (AF_UNIX, SOCK_STREAM), (AF_NETLINK, SOCK_RAW)] {
                insist(result(socket(family, Int32(kind.rawValue), 0)) == -EPERM)
            }
            insist(unsafe result(open("/etc/passwd", O_RDONLY)) < 0)
            insist(linux_pidfd_open(getpid()) == -EPERM)
            do throws(SystemError) {
                _ = try Socket.listen(on: addresses[0].with(port: 0)).release()
                _exit(3)
            } catch { insist(error.code == EPERM || error.code == EACCES) }
            _exit(0)
        }
    }

    @Test("inside, loops, threads, timers, mailboxes, memory and the sockets one was given work")
    func livable() async {
        await #expect(processExitsWith: .success) {
            let listener = insist { try Socket.listen(on: #require(SocketAddress("127.0.0.1:0"))).release() }
            let address = insist { try #require(try Socket.localAddress(listener)) }
            let client = insist { try Socket.connect(to: address).release() }
            let ends = insist { try MessageEnds() }
            _ = insist { try Sandbox.enter(identity: geteuid() == 0 ? Identity(uid: 65534, gid: 65534) : nil, parent: nil) }

            let loop = insist { try EventLoop() }
            let counter = Counter()
            let thread = insist { try LoopThread(name: "inside") { loop in loop.after(nanoseconds: 1_000_000) { counter.add(1) } } }
            thread.mailbox.post { _ in counter.add(1) }
            while counter.value < 2 { sched_yield() }
            thread.stop()
            thread.join()
            var server: Int32 = -1
            let accepting = insist {
                try Listener(loop, FileDescriptor(owning: listener), onConnection: { connection, peer in
                    insist(peer?.host == "127.0.0.1")
                    server = connection.release()
                }, onTrouble: { _ in _exit(4) })
            }
            while server < 0 { loop.turn(waitingAtMost: 1_000_000_000) }
            accepting.close()
            insist { try Socket.setNoDelay(server) }
            let pool = BufferPool(budget: 64 << 20)
            guard let buffer = pool.allocate(16 << 20) else { _exit(5) }
            var queue = OutputQueue(pool: pool)
            queue.append(buffer, 0..<100)
            guard case .done = Socket.send(server, &queue) else { _exit(6) }
            insist(Socket.wait(client, .readable, nanoseconds: 1_000_000_000))
            guard case .received(100) = Socket.receive(client, into: buffer, 0..<1000) else { _exit(7) }
            guard case .done = Socket.sendMessage(ends.first.rawValue, [1], descriptors: [server]) else { _exit(8) }
            guard case .message([1], var came) = Socket.receiveMessage(ends.second.rawValue) else { _exit(9) }
            insist(came.take() != nil)
            _exit(0)
        }
    }
}
