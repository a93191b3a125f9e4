#ifndef CCRC32C_H
#define CCRC32C_H

#include <stddef.h>
#include <stdint.h>

/// The CRC register after `count` more bytes; neither inverted at the start nor at the end.
uint32_t portcullis_crc32c(uint32_t state, const uint8_t *bytes, size_t count);

/// The same without the CPU's instruction: for CPUs that lack it, and for tests.
uint32_t portcullis_crc32c_portable(uint32_t state, const uint8_t *bytes, size_t count);

#endif
