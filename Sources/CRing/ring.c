#define _GNU_SOURCE
#include "CRing.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct read_ring {
    struct io_uring ring;
};

// Debian 12's liburing declares functions for what is registered here, and does not export them.
static int enter_into(const read_ring *ring, unsigned what, const void *argument, unsigned count) {
    long result = syscall(SYS_io_uring_register, ring->ring.ring_fd, what, argument, count);
    return result < 0 ? -errno : 0;
}

int ring_open(read_ring **out, unsigned entries) {
    read_ring *made = calloc(1, sizeof *made);
    if (!made) return -ENOMEM;
    int result = io_uring_queue_init(entries, &made->ring, IORING_SETUP_R_DISABLED);
    if (result < 0) {
        free(made);
        return result;
    }
    // One operation, without any flag, and nothing more to be registered.
    struct io_uring_restriction only[] = {
        {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = 0},
    };
    result = enter_into(made, IORING_REGISTER_RESTRICTIONS, only, sizeof only / sizeof only[0]);
    if (result == 0) result = enter_into(made, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (result < 0) {
        ring_close(made);
        return result;
    }
    *out = made;
    return 0;
}

/// Takes the ends of `count` operations out of the ring; `reads` gets their results.
static int collect(read_ring *ring, ring_read *reads, unsigned count) {
    for (unsigned done = 0; done < count; done++) {
        struct io_uring_cqe *end;
        int result;
        do result = io_uring_wait_cqe(&ring->ring, &end);
        while (result == -EINTR);
        if (result < 0) return result;
        reads[io_uring_cqe_get_data64(end)].result = end->res;
        io_uring_cqe_seen(&ring->ring, end);
    }
    return 0;
}

/// Has the kernel take what is prepared, and waits until it has done it.
static int submit(read_ring *ring, ring_read *reads, unsigned count) {
    unsigned taken = 0;
    while (taken < count) {
        int result = io_uring_submit_and_wait(&ring->ring, count - taken);
        // A signal, or no memory just now.
        if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) return result;
        if (result > 0) taken += (unsigned)result;
    }
    return collect(ring, reads, count);
}

int ring_perform(read_ring *ring, ring_read *reads, unsigned count) {
    for (unsigned index = 0; index < count; index++) {
        struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
        if (!entry) return -ENOSPC;
        io_uring_prep_read(entry, reads[index].fd, reads[index].bytes, reads[index].count, reads[index].offset);
        entry->rw_flags = RWF_NOWAIT;
        io_uring_sqe_set_data64(entry, index);
    }
    return submit(ring, reads, count);
}

int ring_try(read_ring *ring, uint8_t code) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (!entry) return -ENOSPC;
    io_uring_prep_rw(code, entry, -1, NULL, 0, 0);
    ring_read one = {.result = 0};
    int result = submit(ring, &one, 1);
    return result < 0 ? result : one.result;
}

void ring_close(read_ring *ring) {
    io_uring_queue_exit(&ring->ring);
    free(ring);
}
