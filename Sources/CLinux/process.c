#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

enum { FIRST_INHERITED = 3 };

int linux_spawn(const char *path, char *const *arguments, char *const *environment, const int *descriptors, int count) {
    if (count < 0 || count > LINUX_MOST_DESCRIPTORS) return -EINVAL;
    // Copies above the range they shall end in, so that no dup2 can overwrite the source of another.
    int copies[LINUX_MOST_DESCRIPTORS];
    int copied = 0;
    int result = 0;
    for (; copied < count; copied++) {
        copies[copied] = RESULT(fcntl(descriptors[copied], F_DUPFD_CLOEXEC, FIRST_INHERITED + count));
        if (copies[copied] < 0) {
            result = copies[copied];
            break;
        }
    }
    if (result == 0) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        sigemptyset(&none);
        sigfillset(&all);
        result = -posix_spawn_file_actions_init(&actions);
        if (result == 0) {
            result = -posix_spawnattr_init(&attributes);
            if (result == 0) {
                for (int index = 0; index < count && result == 0; index++)
                    result = -posix_spawn_file_actions_adddup2(&actions, copies[index], FIRST_INHERITED + index);
                if (result == 0) result = -posix_spawn_file_actions_addclosefrom_np(&actions, FIRST_INHERITED + count);
                if (result == 0) result = -posix_spawnattr_setsigmask(&attributes, &none);
                if (result == 0) result = -posix_spawnattr_setsigdefault(&attributes, &all);
                if (result == 0)
                    result = -posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
                pid_t pid = 0;
                if (result == 0) result = -posix_spawn(&pid, path, &actions, &attributes, arguments, environment);
                if (result == 0) result = pid;
                posix_spawnattr_destroy(&attributes);
            }
            posix_spawn_file_actions_destroy(&actions);
        }
    }
    for (int index = 0; index < copied; index++) close(copies[index]);
    return result;
}

int linux_pidfd_open(int pid) { return (int)RESULT(syscall(SYS_pidfd_open, pid, 0)); }
int linux_pidfd_send_signal(int pidfd, int signal) { return (int)RESULT(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0)); }

int linux_pidfd_reap(int pidfd, int *status) {
    siginfo_t info;
    memset(&info, 0, sizeof info);
    int result = RESULT(waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG));
    if (result < 0) return result;
    if (info.si_pid == 0) return 0;
    *status = info.si_code == CLD_EXITED ? info.si_status & 0xff : 256 + info.si_status;
    return 1;
}

int linux_set_thread_name(const char *name) { return RESULT(prctl(PR_SET_NAME, name, 0, 0, 0)); }
int linux_set_parent_death_signal(int signal) { return RESULT(prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0)); }
int linux_set_dumpable(bool dumpable) { return RESULT(prctl(PR_SET_DUMPABLE, dumpable ? 1 : 0, 0, 0, 0)); }
int linux_keep_descendants(void) { return RESULT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }
int linux_set_no_new_privileges(void) { return RESULT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

int linux_drop_bounding_set(void) {
    for (int capability = 0; capability < 64; capability++) {
        int held = RESULT(prctl(PR_CAPBSET_READ, capability, 0, 0, 0));
        if (held == -EINVAL) return 0;  // the kernel knows no more of them
        if (held < 0) return held;
        if (held == 0) continue;
        int result = RESULT(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0));
        if (result < 0) return result;
    }
    return 0;
}

int linux_set_identity(uint32_t uid, uint32_t gid) {
    int result = RESULT(setgroups(0, NULL));
    if (result == 0) result = RESULT(setresgid(gid, gid, gid));
    if (result == 0) result = RESULT(setresuid(uid, uid, uid));
    return result;
}

int linux_clear_capabilities(void) {
    int result = RESULT(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    if (result < 0 && result != -EINVAL) return result;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof none);
    return (int)RESULT(syscall(SYS_capset, &header, none));
}

int linux_forbid_core_dumps(void) {
    struct rlimit none = {0, 0};
    return RESULT(setrlimit(RLIMIT_CORE, &none));
}

int linux_bound_resources(uint64_t memory, uint64_t seconds) {
    struct rlimit space = {memory, memory}, time = {seconds, seconds};
    int result = RESULT(setrlimit(RLIMIT_AS, &space));
    return result < 0 ? result : RESULT(setrlimit(RLIMIT_CPU, &time));
}

int linux_raise_descriptor_limit(void) {
    struct rlimit limit;
    int result = RESULT(getrlimit(RLIMIT_NOFILE, &limit));
    if (result < 0) return result;
    limit.rlim_cur = limit.rlim_max;
    result = RESULT(setrlimit(RLIMIT_NOFILE, &limit));
    return result < 0 ? result : limit.rlim_cur > INT_MAX ? INT_MAX : (int)limit.rlim_cur;
}

int linux_close_from(int first) { return (int)RESULT(syscall(SYS_close_range, (unsigned)first, ~0u, 0)); }

void linux_open_system_log(const char *name) {
    openlog(name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

void linux_system_log(int priority, const char *text) {
    syslog(LOG_DAEMON | priority, "%s", text);
}
