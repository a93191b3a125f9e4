#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// MARK: Landlock. Its numbers are written out: the headers of Debian 12 stop at ABI 2.

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

struct ruleset {
    uint64_t files;
    uint64_t network;  // ABI 4
    uint64_t scopes;   // ABI 6
};

enum {
    RULESET_VERSION = 1,
    FILES_ABI_1 = (1 << 13) - 1,
    FILES_REFER = 1 << 13,      // ABI 2
    FILES_TRUNCATE = 1 << 14,   // ABI 3
    FILES_IOCTL_DEV = 1 << 15,  // ABI 5
    TCP_BIND = 1,
    TCP_CONNECT = 2,
    SCOPE_ABSTRACT_UNIX = 1,
    SCOPE_SIGNAL = 2,
};

int linux_landlock_abi(void) { return (int)RESULT(syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION)); }

struct port_rule {
    uint64_t allowed;
    uint64_t port;
};
enum { RULE_NET_PORT = 2 };

int linux_landlock_restrict(int what, const uint16_t *ports, int count) {
    int abi = linux_landlock_abi();
    if (abi < 0) return abi;
    struct ruleset rules = {0, 0, 0};
    if (what & LINUX_LANDLOCK_FILES) {
        rules.files = FILES_ABI_1;
        if (abi >= 2) rules.files |= FILES_REFER;
        if (abi >= 3) rules.files |= FILES_TRUNCATE;
        if (abi >= 5) rules.files |= FILES_IOCTL_DEV;
    }
    if (abi >= 4) {
        if (what & LINUX_LANDLOCK_TCP_BIND) rules.network |= TCP_BIND;
        if (what & LINUX_LANDLOCK_TCP_CONNECT) rules.network |= TCP_CONNECT;
    }
    if (abi >= 6 && what & LINUX_LANDLOCK_SCOPES) rules.scopes = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
    size_t size = abi >= 6 ? sizeof rules : abi >= 4 ? offsetof(struct ruleset, scopes) : offsetof(struct ruleset, network);
    int fd = (int)RESULT(syscall(SYS_landlock_create_ruleset, &rules, size, 0));
    if (fd < 0) return fd;
    int result = 0;
    for (int i = 0; i < count && result == 0 && rules.network & TCP_CONNECT; i++) {
        struct port_rule rule = {.allowed = TCP_CONNECT, .port = ports[i]};
        result = (int)RESULT(syscall(SYS_landlock_add_rule, fd, RULE_NET_PORT, &rule, 0));
    }
    if (result == 0) result = (int)RESULT(syscall(SYS_landlock_restrict_self, fd, 0));
    close(fd);
    return result < 0 ? result : abi;
}

// MARK: seccomp

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the filter of system calls knows x86-64 and aarch64"
#endif

enum { BLOCK_ZEROOUT = 0x127f, BLOCK_SECTOR = 0x1268, BLOCK_PHYSICAL_SECTOR = 0x127b };
#define BLOCK_SIZE64 0x80081272u
// The bits of socket's second argument that say its kind (SOCK_TYPE_MASK of the kernel).
#define SOCKET_KINDS 0xf
#define SET_NAME 15
#define SET_MEMORY_NAME 0x53564d41

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define FAIL(error) RETURN(SECCOMP_RET_ERRNO | (error))
// The low halves of arguments are what the kernel looks at for int and flag arguments; both machines are little-endian.
#define ARGUMENT(index) LOAD(args[index])
#define IF_EQUAL(value, then_skip, else_skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (then_skip), (else_skip))
#define IF_ANY_BIT(bits, then_skip, else_skip) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (bits), (then_skip), (else_skip))
// The accumulator holds the number of the call and is left so.
#define MAY(name) IF_EQUAL(SYS_##name, 0, 1), ALLOW

int linux_seccomp_serve(bool connects, bool has_rings) {
    struct sock_filter program[] = {
        LOAD(arch),
        IF_EQUAL(OUR_ARCHITECTURE, 1, 0),
        RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),

        // Waiting and data, the most frequent first.
        MAY(epoll_pwait2), MAY(epoll_pwait), MAY(epoll_ctl), MAY(recvfrom), MAY(sendmsg), MAY(recvmsg), MAY(sendto),
        MAY(futex), MAY(preadv2), MAY(pwritev2), MAY(pread64), MAY(pwrite64), MAY(preadv), MAY(pwritev), MAY(read),
        MAY(write), MAY(readv), MAY(writev), MAY(fdatasync), MAY(fsync), MAY(close), MAY(accept4), MAY(ppoll),
        // Rings that there are; none can be made, and nothing registered with one. Without them this is a call that is allowed anyway.
        IF_EQUAL(has_rings ? SYS_io_uring_enter : SYS_read, 0, 1), ALLOW,
#ifdef SYS_epoll_wait
        MAY(epoll_wait), MAY(poll),
#endif
        // The medium.
        MAY(fallocate), MAY(lseek), MAY(fadvise64), MAY(fstat), MAY(fstatfs), MAY(sync_file_range),
        // Sockets that were given to us.
        MAY(getsockopt), MAY(setsockopt), MAY(getsockname), MAY(getpeername), MAY(shutdown),
        // Descriptors to wait with.
        MAY(epoll_create1), MAY(eventfd2), MAY(timerfd_create), MAY(timerfd_settime), MAY(signalfd4), MAY(fcntl), MAY(dup),
        MAY(close_range),
        // Memory, threads and their ends.
        MAY(brk), MAY(munmap), MAY(mremap), MAY(madvise), MAY(set_robust_list), MAY(get_robust_list), MAY(rseq),
        MAY(membarrier), MAY(sched_yield), MAY(sched_getaffinity), MAY(sched_setaffinity), MAY(gettid), MAY(getpid),
        MAY(getppid), MAY(getuid), MAY(geteuid), MAY(getgid), MAY(getegid), MAY(rt_sigprocmask), MAY(rt_sigaction),
        MAY(rt_sigreturn), MAY(sigaltstack), MAY(tgkill), MAY(restart_syscall), MAY(exit), MAY(exit_group),
        MAY(prlimit64), MAY(getrusage), MAY(getcpu), MAY(sysinfo),
        // Time and chance.
        MAY(clock_gettime), MAY(clock_getres), MAY(clock_nanosleep), MAY(nanosleep), MAY(gettimeofday), MAY(getrandom),

        // glibc falls back to clone, whose flags can be seen here: threads yes, processes no.
        IF_EQUAL(SYS_clone3, 0, 1), FAIL(ENOSYS),
        IF_EQUAL(SYS_clone, 0, 4), ARGUMENT(0), IF_ANY_BIT(CLONE_THREAD, 0, 1), ALLOW, FAIL(EPERM),
        // No new code.
        IF_EQUAL(SYS_mmap, 1, 0), IF_EQUAL(SYS_mprotect, 0, 4), ARGUMENT(2), IF_ANY_BIT(PROT_EXEC, 1, 0), ALLOW, FAIL(EPERM),
        // Block devices.
        IF_EQUAL(SYS_ioctl, 0, 7), ARGUMENT(1), IF_EQUAL(BLOCK_ZEROOUT, 4, 0),
        IF_EQUAL(BLOCK_SIZE64, 3, 0), IF_EQUAL(BLOCK_SECTOR, 2, 0), IF_EQUAL(BLOCK_PHYSICAL_SECTOR, 1, 0), FAIL(EPERM), ALLOW,
        // Names of threads and of memory.
        IF_EQUAL(SYS_prctl, 0, 5), ARGUMENT(0), IF_EQUAL(SET_NAME, 2, 0), IF_EQUAL(SET_MEMORY_NAME, 1, 0), FAIL(EPERM), ALLOW,

        // New TCP connections, for who makes some: these CONNECTING instructions.
        MAY(connect),
        IF_EQUAL(SYS_socket, 0, 6), ARGUMENT(0), IF_EQUAL(AF_INET, 1, 0), IF_EQUAL(AF_INET6, 0, 3),
        ARGUMENT(1), IF_ANY_BIT(SOCKET_KINDS & ~SOCK_STREAM, 1, 0), ALLOW,

        FAIL(EPERM),
    };
    enum { CONNECTING = 9, ALL = sizeof program / sizeof program[0] };
    if (!connects) program[ALL - 1 - CONNECTING] = program[ALL - 1];
    struct sock_fprog filter = {.len = connects ? ALL : ALL - CONNECTING, .filter = program};
    return (int)RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter));
}
