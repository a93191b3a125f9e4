// What Glibc's module map leaves out: thin wrappers around Linux system calls, without policy.
//
// Unless said otherwise a function returns a value >= 0, or -errno. Calls that a signal interrupts before they did anything
// are repeated, except those that wait (`linux_epoll_wait`). Every descriptor made here is close-on-exec.
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#pragma clang assume_nonnull begin

// MARK: Waiting (epoll.c)

enum { LINUX_READABLE = 0x001, LINUX_WRITABLE = 0x004, LINUX_ERROR = 0x008, LINUX_HANGUP = 0x010, LINUX_PEER_CLOSED = 0x2000 };

typedef struct {
    uint64_t data;
    uint32_t events;
} linux_event;

int linux_epoll_create(void);
int linux_epoll_add(int epoll, int fd, uint32_t events, uint64_t data);
int linux_epoll_modify(int epoll, int fd, uint32_t events, uint64_t data);
int linux_epoll_remove(int epoll, int fd);
/// Waits up to `nanoseconds` (< 0: for ever) and fills at most `capacity` (<= 256) events; returns how many. -EINTR is returned.
int linux_epoll_wait(int epoll, linux_event *events, int capacity, int64_t nanoseconds);

/// Lets others have the processor that want it.
void linux_yield(void);

int linux_eventfd(void);
/// Makes the descriptor readable; never blocks.
int linux_eventfd_signal(int fd);
/// Makes it unreadable; returns 0 also when it was already.
int linux_eventfd_clear(int fd);

/// A non-blocking timer on the monotonic clock.
int linux_timerfd(void);
/// Fires once after `nanoseconds`; 0 disarms it.
int linux_timerfd_set(int fd, uint64_t nanoseconds);

/// Blocks the signals in the calling thread (threads it starts inherit that) and makes a non-blocking signalfd for them.
int linux_signalfd(const int *signals, int count);
/// The number of the next signal, or -EAGAIN; and who has sent it (0: the kernel).
int linux_signalfd_read(int fd, int32_t *pid, uint32_t *uid);

/// Nanoseconds of CLOCK_MONOTONIC.
uint64_t linux_monotonic_nanoseconds(void);
/// How often the calling thread has given up the processor of itself: to wait for something.
int64_t linux_sleeps_of_thread(void);

// MARK: Processes (process.c)

/// Starts `path` in a fresh address space with `arguments` and `environment` (both end with NULL). It gets descriptors 0, 1
/// and 2 as they are, `descriptors[i]` as 3+i, and no other; all signals at their default and none blocked. Returns its
/// process id.
int linux_spawn(const char *path, char *_Nullable const *_Nonnull arguments, char *_Nullable const *_Nonnull environment,
                const int *_Nullable descriptors, int count);
int linux_pidfd_open(int pid);
int linux_pidfd_send_signal(int pidfd, int signal);
/// Reaps the child behind `pidfd` without waiting: 1 and its end in `*status` (exit code, or 256 + signal), 0 while it runs.
int linux_pidfd_reap(int pidfd, int *status);

/// Names the calling thread, with at most 15 bytes of `name`.
int linux_set_thread_name(const char *name);
int linux_set_parent_death_signal(int signal);
int linux_set_dumpable(bool dumpable);
/// Makes this process the parent of its descendants whose own parents end (PR_SET_CHILD_SUBREAPER).
int linux_keep_descendants(void);
int linux_set_no_new_privileges(void);
/// Takes every capability out of the bounding set; needs CAP_SETPCAP.
int linux_drop_bounding_set(void);
/// No supplementary groups, then all group ids, then all user ids.
int linux_set_identity(uint32_t uid, uint32_t gid);
/// No capability of any kind is left to the calling thread.
int linux_clear_capabilities(void);
/// Raises the soft limit of open descriptors to the hard one, and returns that.
int linux_raise_descriptor_limit(void);
/// Sets soft and hard limit of core dumps to 0.
int linux_forbid_core_dumps(void);
/// Bounds this process and those that it starts: bytes of address space, seconds of processor time.
int linux_bound_resources(uint64_t memory, uint64_t seconds);
int linux_close_from(int first);
/// Connects to syslog(3) now; `name` must stay where it is.
void linux_open_system_log(const char *name);
/// syslog(3) with facility "daemon".
void linux_system_log(int priority, const char *text);

// MARK: Whose bytes are under work (work.c)

enum { LINUX_WORK_PLACES = 96 };
/// A page in memory that both of two processes can reach: zeroes, of a length that nobody can change.
int linux_work_file(void);
/// In the process that works: maps the page, and has each signal of a crash first write there what the thread that crashes was
/// working on. Once, before the first thread.
int linux_work_join(int fd);
/// This thread notes its work in place `index` of the page from now on; it has been joined.
void linux_work_take_place(int index);
/// What this thread works on from now on: 0 nothing. In front of it in its place stands how many pieces of work it has begun. Without a place
/// nothing happens.
void linux_work_note(uint64_t subject);
/// This thread leaves its place to another one, and has it again. Twice is once.
void linux_work_rest(void);
void linux_work_resume(void);

// MARK: Confinement (confine.c)

/// The Landlock ABI of this kernel, or -errno (-ENOSYS, -EOPNOTSUPP: none).
int linux_landlock_abi(void);
enum {
    LINUX_LANDLOCK_FILES = 1,        // no access to files by name
    LINUX_LANDLOCK_TCP_BIND = 2,     // no bind (ABI 4)
    LINUX_LANDLOCK_TCP_CONNECT = 4,  // no connect (ABI 4)
    LINUX_LANDLOCK_SCOPES = 8,       // no abstract sockets or signals to others (ABI 6)
};
/// Denies what `what` names, as far as the kernel knows it, but connecting to these `count` TCP ports; needs no_new_privs.
/// Returns the ABI.
int linux_landlock_restrict(int what, const uint16_t *_Nullable ports, int count);

/// Installs the filter of system calls for a process that serves what it has been given: an allow-list; everything else
/// fails with EPERM. Threads can be started, processes not; descriptors can be received and made for waiting, files and
/// sockets not opened, but TCP connections made if it `connects`; rings (io_uring) used if it `has_rings` already; no new memory can be
/// executed. Applies to all threads. Needs no_new_privs.
int linux_seccomp_serve(bool connects, bool has_rings);

// MARK: Files (file.c)

/// O_DIRECT and O_PATH, whose values differ between machines.
extern const int linux_o_direct, linux_o_path;
/// open with O_CLOEXEC.
int linux_open(const char *path, int flags);

enum { LINUX_RWF_DSYNC = 0x2, LINUX_RWF_NOWAIT = 0x8 };

ssize_t linux_read_at(int fd, void *bytes, size_t count, uint64_t offset, int flags);
ssize_t linux_write_at(int fd, const void *bytes, size_t count, uint64_t offset, int flags);
/// The same with several pieces of memory.
ssize_t linux_readv_at(int fd, const struct iovec *pieces, int count, uint64_t offset, int flags);
ssize_t linux_writev_at(int fd, const struct iovec *pieces, int count, uint64_t offset, int flags);
int linux_data_sync(int fd);

enum { LINUX_KIND_OTHER = 0, LINUX_KIND_FILE = 1, LINUX_KIND_BLOCK = 2, LINUX_KIND_CHARACTER = 3, LINUX_KIND_DIRECTORY = 4 };

typedef struct {
    uint64_t device;
    uint64_t inode;
    /// Of a block or character device: which.
    uint64_t special;
    /// Of a file: bytes.
    uint64_t size;
    /// Bytes that have space on the medium.
    uint64_t allocated;
    /// Bytes that are best read or written at once (st_blksize).
    uint32_t preferred;
    /// statfs f_type.
    uint64_t filesystem;
    int kind;
} linux_file_info;

int linux_describe(int fd, linux_file_info *info);
/// Whether the file lies in memory (tmpfs, ramfs), where nothing waits for a medium.
bool linux_is_memory_filesystem(uint64_t filesystem);

/// Bytes to which offsets and lengths of direct I/O must be aligned (STATX_DIOALIGN); 0: no direct I/O; -ENODATA: not told.
int linux_direct_alignment(int fd);

int linux_block_device_size(int fd, uint64_t *bytes);
/// Bytes of a logical and of a physical sector.
int linux_block_device_sectors(int fd, uint32_t *logical, uint32_t *physical);
/// BLKZEROOUT: reads as zeros afterwards, in whatever way the device does that best.
int linux_block_device_zero(int fd, uint64_t offset, uint64_t length);

/// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: reads as zeros and needs no space. On a block device that cannot promise the
/// zeros: -EOPNOTSUPP.
int linux_punch_hole(int fd, uint64_t offset, uint64_t length);
/// FALLOC_FL_KEEP_SIZE: there is space on the medium, also behind the end of the file.
int linux_reserve(int fd, uint64_t offset, uint64_t length);
/// FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE.
int linux_zero_range(int fd, uint64_t offset, uint64_t length);
/// Offset of the next data (SEEK_DATA) or hole (SEEK_HOLE) from `offset` on; -ENXIO: nothing behind it.
int64_t linux_seek_data(int fd, uint64_t offset);
int64_t linux_seek_hole(int fd, uint64_t offset);
/// POSIX_FADV_WILLNEED.
int linux_will_need(int fd, uint64_t offset, uint64_t length);
/// POSIX_FADV_DONTNEED: drops clean pages from the cache.
int linux_dont_need(int fd, uint64_t offset, uint64_t length);

/// flock LOCK_EX | LOCK_NB: -EWOULDBLOCK while another holds it.
int linux_try_lock(int fd);
/// lockf F_TLOCK over the whole file: -EAGAIN or -EACCES while another process holds it.
int linux_try_record_lock(int fd);

enum { LINUX_RESOLVE_NO_MAGICLINKS = 0x02, LINUX_RESOLVE_NO_SYMLINKS = 0x04, LINUX_RESOLVE_BENEATH = 0x08 };
/// What the device mapper calls the block device, if it is one of its own: bytes of the name without its end, or -errno.
/// `root` stands in front of /sys: "", or a tree of a test's own.
ssize_t linux_mapper_name(const char *root, uint64_t device, char *name, size_t capacity);
int linux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);

/// A lock for many readers or one writer, who waits for no reader that comes after him.
int linux_rwlock_init(pthread_rwlock_t *lock);

// MARK: Sockets (socket.c)

enum { LINUX_FAMILY_NONE = 0, LINUX_FAMILY_UNIX = 1, LINUX_FAMILY_IPV4 = 4, LINUX_FAMILY_IPV6 = 6 };

/// An address without its kernel layout. IPv4 uses the first four bytes; IPv4-mapped IPv6 addresses come out as IPv4.
typedef struct {
    uint8_t bytes[16];
    uint32_t scope;
    uint16_t port;
    uint16_t family;
} linux_address;

/// A TCP socket on its way to be a non-blocking listener; IPv6 ones are V6ONLY. `unpaced`: what is sent on its connections goes as fast as
/// it can, whatever congestion control the host has for its links.
int linux_bind_tcp(const linux_address *address, bool unpaced);
int linux_listen(int fd, int backlog);
/// A non-blocking TCP socket on its way to `address`: writable when it is there or has failed (`linux_socket_error`).
int linux_connect_tcp(const linux_address *address, bool unpaced);
/// A non-blocking AF_UNIX listener (SOCK_STREAM); `path` may hold any byte, a leading 0 means an abstract name. From its first moment on
/// only its owner can connect.
int linux_listen_unix(const char *path, size_t length, int backlog);
/// A blocking AF_UNIX connection (SOCK_STREAM).
int linux_connect_unix(const char *path, size_t length);
/// Sends one datagram to an AF_UNIX socket and forgets it (sd_notify).
int linux_send_datagram(const char *path, size_t length, const void *bytes, size_t count);
/// Accepts a non-blocking connection; `peer` may be NULL.
int linux_accept(int listener, linux_address *_Nullable peer);
int linux_local_address(int fd, linux_address *address);
/// Of a TCP connection that the peer has reset: where its first packet came from; once.
int linux_peer_address(int fd, linux_address *address);
/// Takes the pending error of a socket: 0 or -errno.
int linux_socket_error(int fd);
int linux_set_nodelay(int fd);
/// Probes after `idle` seconds, every `interval` seconds, `count` times.
int linux_set_keepalive(int fd, int idle, int interval, int count);
/// Changes the first of them alone.
int linux_set_keepalive_idle(int fd, int idle);
int linux_set_nonblocking(int fd, bool nonblocking);
int linux_set_buffers(int fd, int send, int receive);
/// shutdown(SHUT_WR).
int linux_finish_sending(int fd);

ssize_t linux_send_gathered(int fd, const struct iovec *pieces, int count);
ssize_t linux_receive(int fd, void *bytes, size_t count);
/// The same into two places; bytes come to the second when the first is full.
ssize_t linux_receive_both(int fd, void *bytes, size_t count, void *behind, size_t behind_count);
/// As `linux_receive`; the bytes stay where they are.
ssize_t linux_peek(int fd, void *bytes, size_t count);

/// A connected pair of AF_UNIX SOCK_SEQPACKET sockets, non-blocking.
int linux_seqpacket_pair(int *first, int *second);
enum { LINUX_MOST_DESCRIPTORS = 32 };
/// Sends one message with descriptors; it is sent as a whole or not at all.
ssize_t linux_send_message(int fd, const void *bytes, size_t count, const int *_Nullable descriptors, int descriptor_count);
/// Receives one message: its length, 0 at the end. A message that does not fit, in bytes or in descriptors, is -EMSGSIZE, and
/// no descriptor is left open. `*descriptor_count` says how many fit and then how many came. `*lost` becomes 1 if the kernel had
/// to drop descriptors because this process may open no more; the message is whole all the same.
ssize_t linux_receive_message(int fd, void *bytes, size_t capacity, int *descriptors, int *descriptor_count, int *lost);
int linux_peer_credentials(int fd, int32_t *pid, uint32_t *uid, uint32_t *gid);
/// The supplementary groups that the peer of an AF_UNIX connection had when it connected: how many; -ERANGE: more than `capacity`.
int linux_peer_groups(int fd, uint32_t *groups, int capacity);
/// A pidfd of the peer of an AF_UNIX connection. -ENOPROTOOPT: the kernel has none to give (before 6.5).
int linux_peer_pidfd(int fd);

#pragma clang assume_nonnull end
