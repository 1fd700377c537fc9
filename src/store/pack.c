/* Eight slices of r bits are exactly r bytes of the stream, whatever r is. So one routine packs
 * every width: it takes eight bytes as one 64-bit word and closes the gaps between neighbours three
 * times (pairs, fours, the whole), each time for all lanes at once. With the width known to the
 * compiler that is a dozen instructions for eight codes. */
#include "store/pack.h"

#include <assert.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors and the bit stream are little endian");

/* All in bytes: half of the last bit is added to what is left above it. The clamp to the last slice
 * is the clamp of the rounded code to 255; without one it goes up to 2^width. */
static inline void slice_codes(uint8_t *slices, const uint8_t *codes, size_t count, unsigned width,
                               mq_slice_rule rule) {
    const unsigned shift = MQ_MAX_WIDTH - width;
    if (rule == MQ_SLICE_TOP) {
        for (size_t i = 0; i < count; i++) {
            slices[i] = (uint8_t)(codes[i] >> shift);
        }
        return;
    }
    const uint8_t last = (uint8_t)((1u << width) - (rule == MQ_SLICE_ROUND ? 1 : 0));
    for (size_t i = 0; i < count; i++) {
        const uint8_t twice = (uint8_t)(codes[i] >> (shift - 1));
        const uint8_t rounded = (uint8_t)((twice >> 1) + (twice & 1));
        slices[i] = rounded < last ? rounded : last;
    }
}

void mq_slice_codes(uint8_t *slices, const uint8_t *codes, size_t count, unsigned width,
                    mq_slice_rule rule) {
    assert(width >= MQ_MIN_WIDTH && width <= MQ_MAX_WIDTH);
    if (width == MQ_MAX_WIDTH) {
        memmove(slices, codes, count);
        return;
    }
    switch (width) { /* known to the compiler, which then has bytes side by side */
#define SLICE(known)                                                                               \
    case known:                                                                                    \
        slice_codes(slices, codes, count, known, rule);                                            \
        break
        SLICE(2);
        SLICE(3);
        SLICE(4);
        SLICE(5);
        SLICE(6);
        SLICE(7);
#undef SLICE
    }
}

/* Eight slices, one a byte, to 8·width adjoining bits, and back. */
static inline uint64_t close_gaps(uint64_t lanes, unsigned width) {
    const uint64_t even8 = 0x00ff00ff00ff00ffu, even16 = 0x0000ffff0000ffffu,
                   even32 = 0x00000000ffffffffu;
    lanes = (lanes & even8) | ((lanes & ~even8) >> (8 - width));
    lanes = (lanes & even16) | ((lanes & ~even16) >> (16 - 2 * width));
    return (lanes & even32) | ((lanes & ~even32) >> (32 - 4 * width));
}

static inline uint64_t open_gaps(uint64_t bits, unsigned width) {
    const uint64_t one = 1;
    uint64_t low4 = (one << 4 * width) - 1;
    uint64_t lanes = (bits & low4) | ((bits >> 4 * width & low4) << 32);
    uint64_t low2 = ((one << 2 * width) - 1) * 0x0000000100000001u;
    lanes = (lanes & low2) | ((lanes >> 2 * width & low2) << 16);
    uint64_t low1 = ((one << width) - 1) * 0x0001000100010001u;
    return (lanes & low1) | ((lanes >> width & low1) << 8);
}

/* count is a multiple of 8: a multiple of 32 bits is one of 8 slices for every width below 8.
 *
 * Where there is room, whole words are moved instead of `width` bytes: what a store leaves behind
 * its own bytes, the next one overwrites, and what a load finds there is masked. */
static inline void pack_slices(unsigned char *stream, const uint8_t *slices, size_t count,
                               unsigned width) {
    size_t i = 0;
    for (; i + 32 <= count; i += 8) { /* four more groups are at least 8 bytes more */
        uint64_t lanes;
        memcpy(&lanes, slices + i, sizeof lanes);
        lanes = close_gaps(lanes, width);
        memcpy(stream + i / 8 * width, &lanes, sizeof lanes);
    }
    for (; i < count; i += 8) {
        uint64_t lanes;
        memcpy(&lanes, slices + i, sizeof lanes);
        lanes = close_gaps(lanes, width);
        memcpy(stream + i / 8 * width, &lanes, width);
    }
}

static inline void unpack_slices(uint8_t *slices, const unsigned char *stream, size_t count,
                                 unsigned width) {
    size_t i = 0;
    for (; i + 32 <= count; i += 8) {
        uint64_t bits;
        memcpy(&bits, stream + i / 8 * width, sizeof bits);
        bits = open_gaps(bits, width);
        memcpy(slices + i, &bits, sizeof bits);
    }
    for (; i < count; i += 8) {
        uint64_t bits = 0;
        memcpy(&bits, stream + i / 8 * width, width);
        bits = open_gaps(bits, width);
        memcpy(slices + i, &bits, sizeof bits);
    }
}

/* The width as a constant, so that shifts, masks and the size of the copies are known. */
static void pack_block(unsigned char *stream, const uint8_t *slices, size_t count, unsigned width) {
    switch (width) {
    case 2:
        pack_slices(stream, slices, count, 2);
        return;
    case 3:
        pack_slices(stream, slices, count, 3);
        return;
    case 4:
        pack_slices(stream, slices, count, 4);
        return;
    case 5:
        pack_slices(stream, slices, count, 5);
        return;
    case 6:
        pack_slices(stream, slices, count, 6);
        return;
    default:
        pack_slices(stream, slices, count, 7);
        return;
    }
}

void mq_pack_row(uint32_t *words, const uint8_t *codes, size_t count, unsigned width,
                 mq_slice_rule rule) {
    const unsigned bits = mq_slice_bits(width, rule);
    assert(count * bits % 32 == 0);
    unsigned char *stream = (unsigned char *)words;
    if (bits == 8) {
        mq_slice_codes(stream, codes, count, width, rule);
        return;
    }
    uint8_t slices[4096]; /* stays in the first-level cache between the two passes */
    for (size_t first = 0; first < count; first += sizeof slices) {
        size_t block = count - first < sizeof slices ? count - first : sizeof slices;
        mq_slice_codes(slices, codes + first, block, width, rule);
        pack_block(stream + first / 8 * bits, slices, block, bits);
    }
}

void mq_pack_slices(uint32_t *words, const uint8_t *slices, size_t count, unsigned bits) {
    assert(count * bits % 32 == 0);
    if (bits == 8) {
        memcpy(words, slices, count);
        return;
    }
    pack_block((unsigned char *)words, slices, count, bits);
}

void mq_unpack_row(uint8_t *slices, const uint32_t *words, size_t count, unsigned bits) {
    assert(count * bits % 32 == 0);
    const unsigned char *stream = (const unsigned char *)words;
    switch (bits) {
    case 2:
        unpack_slices(slices, stream, count, 2);
        return;
    case 3:
        unpack_slices(slices, stream, count, 3);
        return;
    case 4:
        unpack_slices(slices, stream, count, 4);
        return;
    case 5:
        unpack_slices(slices, stream, count, 5);
        return;
    case 6:
        unpack_slices(slices, stream, count, 6);
        return;
    case 7:
        unpack_slices(slices, stream, count, 7);
        return;
    default:
        memcpy(slices, stream, count);
        return;
    }
}
