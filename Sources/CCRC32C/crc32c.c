#include "CCRC32C.h"

#include <string.h>

// Castagnoli's polynomial, bits reversed (RFC 7143 section 13.1).
#define POLYNOMIAL 0x82f63b78u

// table[k][b]: what byte b does to the register when k more bytes follow it in the same step.
static uint32_t table[8][256];

static void fill_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit++) state = state >> 1 ^ (state & 1 ? POLYNOMIAL : 0);
        table[0][byte] = state;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int later = 1; later < 8; later++)
            table[later][byte] = table[later - 1][byte] >> 8 ^ table[0][table[later - 1][byte] & 0xff];
}

uint32_t portcullis_crc32c_portable(uint32_t state, const uint8_t *bytes, size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word = 0;
        for (int index = 7; index >= 0; index--) word = word << 8 | bytes[index];
        word ^= state;
        state = 0;
        for (int index = 0; index < 8; index++) state ^= table[7 - index][word >> 8 * index & 0xff];
    }
    for (; count > 0; bytes++, count--) state = state >> 8 ^ table[0][(state ^ *bytes) & 0xff];
    return state;
}

#if defined(__x86_64__)

static uint64_t load(const uint8_t *bytes) {
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

// The instruction takes three cycles and a new one can start in each: three lanes keep it busy. A lane's register is carried
// past the lanes behind it by what so many zero bytes do to it, which is linear and so four table look-ups.
#define LANE 1024
static uint32_t past_lane[4][256];
static uint32_t past_two_lanes[4][256];

static void fill_shift(uint32_t shift[4][256], size_t zeros) {
    uint32_t bit_after[32];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t state = 1u << bit;
        for (size_t index = 0; index < zeros; index++) state = state >> 8 ^ table[0][state & 0xff];
        bit_after[bit] = state;
    }
    for (int position = 0; position < 4; position++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t state = 0;
            for (int bit = 0; bit < 8; bit++)
                if (byte >> bit & 1) state ^= bit_after[8 * position + bit];
            shift[position][byte] = state;
        }
}

static int has_instruction;

__attribute__((constructor)) static void prepare(void) {
    fill_table();
    fill_shift(past_lane, LANE);
    fill_shift(past_two_lanes, 2 * LANE);
    __builtin_cpu_init();
    has_instruction = __builtin_cpu_supports("sse4.2");
}

static uint32_t shifted(uint32_t shift[4][256], uint32_t state) {
    return shift[0][state & 0xff] ^ shift[1][state >> 8 & 0xff] ^ shift[2][state >> 16 & 0xff] ^ shift[3][state >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t with_instruction(uint32_t start, const uint8_t *bytes, size_t count) {
    uint64_t state = start;
    for (; count >= 3 * LANE; bytes += 3 * LANE, count -= 3 * LANE) {
        uint64_t second = 0, third = 0;
        for (size_t offset = 0; offset < LANE; offset += 8) {
            state = __builtin_ia32_crc32di(state, load(bytes + offset));
            second = __builtin_ia32_crc32di(second, load(bytes + LANE + offset));
            third = __builtin_ia32_crc32di(third, load(bytes + 2 * LANE + offset));
        }
        state = shifted(past_two_lanes, (uint32_t)state) ^ shifted(past_lane, (uint32_t)second) ^ (uint32_t)third;
    }
    for (; count >= 8; bytes += 8, count -= 8) state = __builtin_ia32_crc32di(state, load(bytes));
    uint32_t rest = (uint32_t)state;
    for (; count > 0; bytes++, count--) rest = __builtin_ia32_crc32qi(rest, *bytes);
    return rest;
}

uint32_t portcullis_crc32c(uint32_t state, const uint8_t *bytes, size_t count) {
    return has_instruction ? with_instruction(state, bytes, count) : portcullis_crc32c_portable(state, bytes, count);
}

#else

__attribute__((constructor)) static void prepare(void) { fill_table(); }

uint32_t portcullis_crc32c(uint32_t state, const uint8_t *bytes, size_t count) {
    return portcullis_crc32c_portable(state, bytes, count);
}

#endif
