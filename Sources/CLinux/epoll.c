#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

_Static_assert(LINUX_READABLE == EPOLLIN && LINUX_WRITABLE == EPOLLOUT && LINUX_ERROR == EPOLLERR, "epoll's own values");
_Static_assert(LINUX_HANGUP == EPOLLHUP && LINUX_PEER_CLOSED == EPOLLRDHUP, "epoll's own values");

enum { MOST_EVENTS = 256 };

int linux_epoll_create(void) { return RESULT(epoll_create1(EPOLL_CLOEXEC)); }

static int control(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data = {.u64 = data}};
    return RESULT(epoll_ctl(epoll, operation, fd, &event));
}

int linux_epoll_add(int epoll, int fd, uint32_t events, uint64_t data) { return control(epoll, EPOLL_CTL_ADD, fd, events, data); }
int linux_epoll_modify(int epoll, int fd, uint32_t events, uint64_t data) { return control(epoll, EPOLL_CTL_MOD, fd, events, data); }
int linux_epoll_remove(int epoll, int fd) { return control(epoll, EPOLL_CTL_DEL, fd, 0, 0); }

int linux_epoll_wait(int epoll, linux_event *events, int capacity, int64_t nanoseconds) {
    struct epoll_event ready[MOST_EVENTS];
    if (capacity > MOST_EVENTS) capacity = MOST_EVENTS;
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    int count = -1;
    errno = ENOSYS;
#ifdef SYS_epoll_pwait2
    count = (int)syscall(SYS_epoll_pwait2, epoll, ready, capacity, nanoseconds < 0 ? NULL : &limit, NULL, (size_t)8);
#endif
    if (count < 0 && errno == ENOSYS) {  // before Linux 5.11: milliseconds, rounded up
        int64_t milliseconds = nanoseconds < 0 ? -1 : (nanoseconds + 999999) / 1000000;
        if (milliseconds > INT32_MAX) milliseconds = INT32_MAX;
        count = epoll_wait(epoll, ready, capacity, (int)milliseconds);
    }
    if (count < 0) return -errno;
    for (int index = 0; index < count; index++) {
        events[index].data = ready[index].data.u64;
        events[index].events = ready[index].events;
    }
    return count;
}

void linux_yield(void) { sched_yield(); }

int linux_eventfd(void) { return RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

int linux_eventfd_signal(int fd) {
    uint64_t one = 1;
    ssize_t result = RESULT(write(fd, &one, sizeof one));
    return result < 0 && result != -EAGAIN ? (int)result : 0;  // a full counter is readable already
}

int linux_eventfd_clear(int fd) {
    uint64_t counter;
    ssize_t result = RESULT(read(fd, &counter, sizeof counter));
    return result < 0 && result != -EAGAIN ? (int)result : 0;
}

int linux_timerfd(void) { return RESULT(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)); }

int linux_timerfd_set(int fd, uint64_t nanoseconds) {
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(nanoseconds / 1000000000), .tv_nsec = (long)(nanoseconds % 1000000000)}};
    return RESULT(timerfd_settime(fd, 0, &when, NULL));
}

int linux_signalfd(const int *signals, int count) {
    sigset_t set;
    sigemptyset(&set);
    for (int index = 0; index < count; index++)
        if (sigaddset(&set, signals[index]) != 0) return -errno;
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error != 0) return -error;
    return RESULT(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

int linux_signalfd_read(int fd, int32_t *pid, uint32_t *uid) {
    struct signalfd_siginfo info;
    ssize_t result = RESULT(read(fd, &info, sizeof info));
    if (result < 0) return (int)result;
    if (result != sizeof info) return -EIO;
    *pid = (int32_t)info.ssi_pid;
    *uid = info.ssi_uid;
    return (int)info.ssi_signo;
}

uint64_t linux_monotonic_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t linux_sleeps_of_thread(void) {
    struct rusage usage = {0};
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
}
