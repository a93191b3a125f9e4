#define _GNU_SOURCE
#include "CLinux.h"
#include "internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

typedef _Atomic uint64_t word;

// The first word of the page is the crashed thread's. Each place has two: how many pieces of work its thread has begun, and what it is at.
static word *page;
static _Thread_local word *place;
/// Of a thread that rests: what it had.
static _Thread_local word *kept;

int linux_work_file(void) {
    int fd = RESULT(memfd_create("work", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (fd < 0) return fd;
    int result = RESULT(ftruncate(fd, PAGE));
    // Whoever is given it can only write into it.
    if (result == 0) result = RESULT(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    if (result == 0) return fd;
    close(fd);
    return result;
}

static void crashed(int number) {
    if (place) atomic_store_explicit(&page[0], atomic_load_explicit(&place[1], memory_order_relaxed), memory_order_relaxed);
    // The default way from here on: it was reset when this began.
    raise(number);
}

int linux_work_join(int fd) {
    void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return -errno;
    page = memory;
    const int crashes[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
    for (size_t index = 0; index < sizeof crashes / sizeof *crashes; index++) {
        struct sigaction action = {.sa_handler = crashed, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER | SA_ONSTACK)};
        sigemptyset(&action.sa_mask);
        int result = RESULT(sigaction(crashes[index], &action, NULL));
        if (result < 0) return result;
    }
    return 0;
}

void linux_work_take_place(int index) {
    if (!page || index < 0 || index >= LINUX_WORK_PLACES) return;
    place = &page[1 + 2 * index];
    // The thread's for good: one that has used up its own stack leaves word, too.
    size_t size = (size_t)sysconf(_SC_SIGSTKSZ);
    stack_t stack = {.ss_sp = malloc(size), .ss_size = size};
    if (stack.ss_sp) sigaltstack(&stack, NULL);
}

void linux_work_rest(void) {
    if (place) kept = place;
    place = NULL;
}

void linux_work_resume(void) {
    if (kept) place = kept;
}

// Only this thread writes there: plain stores that the compiler does not leave out.
void linux_work_note(uint64_t subject) {
    if (!place) return;
    if (subject) atomic_store_explicit(&place[0], atomic_load_explicit(&place[0], memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&place[1], subject, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
}
