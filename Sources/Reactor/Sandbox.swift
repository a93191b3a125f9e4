import CLinux
import Glibc

/// A user and its main group.
public struct Identity: Hashable, Sendable {
    public let uid: UInt32
    public let gid: UInt32

    public init(uid: UInt32, gid: UInt32) {
        self.uid = uid
        self.gid = gid
    }

    /// Looks a user up by name. It may ask a directory service: not for a process that must not wait.
    public init?(user: String) {
        guard let entry = unsafe getpwnam(user) else { return nil }
        unsafe self.init(uid: entry.pointee.pw_uid, gid: entry.pointee.pw_gid)
    }

    /// Who a process that meets the network becomes: this user, else `tgt` if there is one, else `nobody`. Only root can make it somebody
    /// else; anybody else stays who they are (nil).
    public static func forNetwork(_ user: String?) throws(IdentityError) -> Identity? {
        guard Host.isRoot else { return nil }
        let names = user.map { [$0] } ?? ["tgt", "nobody"]
        for name in names {
            guard let identity = Identity(user: name) else { continue }
            guard identity.uid != 0 else { throw IdentityError(description: "the user \(name) is root: who meets the network must be somebody without rights") }
            return identity
        }
        let wanted = names.joined(separator: " or ")
        throw IdentityError(description: "there is no user \(wanted) for the processes that meet the network; make one, or name one (user: in the settings)")
    }

    /// The number of a group. It may ask a directory service, too.
    public static func group(named name: String) -> UInt32? { unsafe getgrnam(name).map { unsafe $0.pointee.gr_gid } }

    /// What this process is now.
    public static var current: Identity { Identity(uid: geteuid(), gid: getegid()) }
}

/// There is nobody whom a process that meets the network could become.
public struct IdentityError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
}

/// The way of a process into confinement; there is none back.
public enum Sandbox {
    /// What holds a process that has gone in.
    public struct Walls: Hashable, Sendable {
        /// The kernel's Landlock ABI; nil: it has none, or it is switched off.
        public let landlock: Int32?
    }

    /// Ties this process to `parent`: it is killed when the thread that started it ends. Confinement clears that tie when the
    /// user changes, and `enter` makes it anew.
    public static func tie(toParent parent: Int32) throws(SystemError) {
        _ = try check("prctl(PR_SET_PDEATHSIG)", linux_set_parent_death_signal(SIGKILL))
        // It may have ended before.
        guard getppid() == parent else { throw SystemError("getppid", ESRCH) }
    }

    /// For a process that runs code that is not ours, such as PAM's modules: it has no terminal; its
    /// memory and its time on a processor are bounded, nobody reads its memory, and it leaves no picture of it behind.
    /// - Parameters:
    ///   - memory: bytes of address space
    ///   - seconds: of processor time
    public static func bound(memory: UInt64, seconds: UInt64) throws(SystemError) {
        Console.leaveTerminal()
        Console.forgetTerminal()
        _ = try check("setrlimit(RLIMIT_CORE)", linux_forbid_core_dumps())
        _ = try check("prctl(PR_SET_DUMPABLE)", linux_set_dumpable(false))
        _ = try check("setrlimit(RLIMIT_AS)", linux_bound_resources(memory, seconds))
    }

    /// Processes whose parents end become this one's children, so that whoever ends it finds them (`ChildProcess.killAll`).
    public static func keepDescendants() throws(SystemError) { _ = try check("prctl(PR_SET_CHILD_SUBREAPER)", linux_keep_descendants()) }

    /// For a process that parses what peers send and needs nothing but the descriptors it is given: no other user's rights, no
    /// capabilities, no new privileges, no core dumps, no file by name, no new connections, no programs, no new code.
    ///
    /// Call it before the first thread is started and the first byte is read.
    ///
    /// - Parameters:
    ///   - identity: who to become; nil keeps the user, for a process that was not started by root
    ///   - parent: the process to die with
    ///   - ports: where it may still connect to by TCP: these ports of any host (a kernel without Landlock's network rules, before 6.7,
    ///     leaves it all ports if there are any)
    ///   - usesRings: whether it goes on using rings (io_uring) that it has made before; it can make none in any case
    /// - Throws: the first step that failed. The process must end then: it stands half-way.
    public static func enter(identity: Identity?, parent: Int32?, connectingTo ports: [UInt16] = [], usesRings: Bool = false) throws(SystemError) -> Walls {
        _ = try check("prctl(PR_SET_NO_NEW_PRIVS)", linux_set_no_new_privileges())
        _ = try check("setrlimit(RLIMIT_CORE)", linux_forbid_core_dumps())
        if let identity {
            precondition(identity.uid != 0, "root is not confined")
            // Without CAP_SETPCAP the set stays as it is; it only matters to programs, and none can be started.
            let bounding = linux_drop_bounding_set()
            if bounding != -EPERM { _ = try check("prctl(PR_CAPBSET_DROP)", bounding) }
            _ = try check("setresuid", linux_set_identity(identity.uid, identity.gid))
        }
        _ = try check("capset", linux_clear_capabilities())
        _ = try check("prctl(PR_SET_DUMPABLE)", linux_set_dumpable(false))
        if let parent { try tie(toParent: parent) }

        let what = LINUX_LANDLOCK_FILES | LINUX_LANDLOCK_TCP_BIND | LINUX_LANDLOCK_TCP_CONNECT | LINUX_LANDLOCK_SCOPES
        let abi = unsafe linux_landlock_restrict(Int32(what), ports, Int32(ports.count))
        // A kernel without Landlock has the filter of system calls, which denies the same; any other failure counts.
        let isAbsent = abi == -ENOSYS || abi == -EOPNOTSUPP
        if !isAbsent { _ = try check("landlock_restrict_self", abi) }
        _ = try check("seccomp", linux_seccomp_serve(!ports.isEmpty, usesRings))
        return Walls(landlock: isAbsent ? nil : abi)
    }
}
