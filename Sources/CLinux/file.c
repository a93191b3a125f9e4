#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

_Static_assert(LINUX_RWF_DSYNC == RWF_DSYNC && LINUX_RWF_NOWAIT == RWF_NOWAIT, "the kernel's own values");

const int linux_o_direct = O_DIRECT, linux_o_path = O_PATH;

int linux_open(const char *path, int flags) { return RESULT(open(path, flags | O_CLOEXEC)); }

ssize_t linux_readv_at(int fd, const struct iovec *pieces, int count, uint64_t offset, int flags) {
    return RESULT(preadv2(fd, pieces, count, (off_t)offset, flags));
}

ssize_t linux_writev_at(int fd, const struct iovec *pieces, int count, uint64_t offset, int flags) {
    return RESULT(pwritev2(fd, pieces, count, (off_t)offset, flags));
}

ssize_t linux_read_at(int fd, void *bytes, size_t count, uint64_t offset, int flags) {
    struct iovec piece = {bytes, count};
    return linux_readv_at(fd, &piece, 1, offset, flags);
}

ssize_t linux_write_at(int fd, const void *bytes, size_t count, uint64_t offset, int flags) {
    struct iovec piece = {(void *)bytes, count};
    return linux_writev_at(fd, &piece, 1, offset, flags);
}

int linux_direct_alignment(int fd) {
#ifdef STATX_DIOALIGN
    struct statx status;
    int result = RESULT(statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status));
    if (result < 0) return result;
    if (status.stx_mask & STATX_DIOALIGN) return (int)status.stx_dio_offset_align;
#endif
    return -ENODATA;
}

int linux_rwlock_init(pthread_rwlock_t *lock) {
    pthread_rwlockattr_t attributes;
    int result = -pthread_rwlockattr_init(&attributes);
    if (result == 0) result = -pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    if (result == 0) result = -pthread_rwlock_init(lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    return result;
}

int linux_data_sync(int fd) { return RESULT(fdatasync(fd)); }

int linux_describe(int fd, linux_file_info *info) {
    struct stat status;
    struct statfs filesystem;
    // The plain call: glibc's fstat goes through newfstatat, which can name files and is denied to those who serve.
    int result = (int)RESULT(syscall(SYS_fstat, fd, &status));
    if (result == 0) result = RESULT(fstatfs(fd, &filesystem));
    if (result < 0) return result;
    memset(info, 0, sizeof *info);
    info->device = status.st_dev;
    info->inode = status.st_ino;
    info->special = status.st_rdev;
    info->size = (uint64_t)status.st_size;
    info->allocated = (uint64_t)status.st_blocks * 512;
    info->preferred = (uint32_t)status.st_blksize;
    info->filesystem = (uint64_t)(unsigned long)filesystem.f_type;
    switch (status.st_mode & S_IFMT) {
    case S_IFREG: info->kind = LINUX_KIND_FILE; break;
    case S_IFBLK: info->kind = LINUX_KIND_BLOCK; break;
    case S_IFCHR: info->kind = LINUX_KIND_CHARACTER; break;
    case S_IFDIR: info->kind = LINUX_KIND_DIRECTORY; break;
    default: info->kind = LINUX_KIND_OTHER;
    }
    return 0;
}

bool linux_is_memory_filesystem(uint64_t filesystem) { return filesystem == TMPFS_MAGIC || filesystem == RAMFS_MAGIC; }

int linux_block_device_size(int fd, uint64_t *bytes) { return RESULT(ioctl(fd, BLKGETSIZE64, bytes)); }

int linux_block_device_sectors(int fd, uint32_t *logical, uint32_t *physical) {
    int result = RESULT(ioctl(fd, BLKSSZGET, logical));
    return result < 0 ? result : RESULT(ioctl(fd, BLKPBSZGET, physical));
}

static int over_range(int fd, unsigned long request, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return RESULT(ioctl(fd, request, range));
}

int linux_block_device_zero(int fd, uint64_t offset, uint64_t length) { return over_range(fd, BLKZEROOUT, offset, length); }

int linux_punch_hole(int fd, uint64_t offset, uint64_t length) {
    return RESULT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length));
}

int linux_reserve(int fd, uint64_t offset, uint64_t length) {
    return RESULT(fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length));
}

int linux_zero_range(int fd, uint64_t offset, uint64_t length) {
    return RESULT(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length));
}

int64_t linux_seek_data(int fd, uint64_t offset) { return RESULT(lseek(fd, (off_t)offset, SEEK_DATA)); }
int64_t linux_seek_hole(int fd, uint64_t offset) { return RESULT(lseek(fd, (off_t)offset, SEEK_HOLE)); }

int linux_will_need(int fd, uint64_t offset, uint64_t length) {
    return -posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
}

int linux_dont_need(int fd, uint64_t offset, uint64_t length) {
    return -posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

int linux_try_lock(int fd) { return RESULT(flock(fd, LOCK_EX | LOCK_NB)); }

int linux_try_record_lock(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    return RESULT(fcntl(fd, F_SETLK, &whole));
}

int linux_openat2(int directory, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct {
        uint64_t flags, mode, resolve;
    } how = {flags | O_CLOEXEC, mode, resolve};
    return (int)RESULT(syscall(SYS_openat2, directory, path, &how, sizeof how));
}

ssize_t linux_mapper_name(const char *root, uint64_t device, char *name, size_t capacity) {
    char path[4096];
    int length_of_path = snprintf(path, sizeof path, "%s/sys/dev/block/%u:%u/dm/name", root, major((dev_t)device), minor((dev_t)device));
    if (length_of_path < 0 || (size_t)length_of_path >= sizeof path) return -ENAMETOOLONG;
    int fd = linux_open(path, O_RDONLY);
    if (fd < 0) return fd;
    ssize_t length = RESULT(read(fd, name, capacity));
    close(fd);
    while (length > 0 && name[length - 1] == '\n') length--;
    return length;
}
