/// Many reads of files with one system call (io_uring(7)), through liburing. A ring of these can do nothing else: the kernel holds it to that.
#pragma once

#include <stdint.h>
#include <sys/types.h>

#pragma clang assume_nonnull begin

typedef struct read_ring read_ring;

typedef struct {
    int fd;
    void *bytes;
    uint32_t count;
    uint64_t offset;
    /// Bytes read, or a negative error: -EAGAIN if it would have to wait for the medium.
    int32_t result;
} ring_read;

/// Makes a ring for `entries` reads at a time, restricted to reads that wait for nothing else (IORING_REGISTER_RESTRICTIONS).
/// 0 or a negative error.
int ring_open(read_ring *_Nullable *_Nonnull ring, unsigned entries);
/// Has all of them done, at most `entries`, and gives each its result. 0, or a negative error when nothing is known of them.
int ring_perform(read_ring *ring, ring_read *reads, unsigned count);
/// What the kernel answers to an operation with this code, whatever it would do: for tests of the restriction.
int ring_try(read_ring *ring, uint8_t code);
void ring_close(read_ring *ring);

#pragma clang assume_nonnull end
