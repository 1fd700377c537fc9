/* Packed rows by their definition, bit by bit: what the tests hold store/pack.h against. */
#ifndef MQ_TEST_REFERENCE_PACK_H
#define MQ_TEST_REFERENCE_PACK_H

#include <string.h>

#include "store/pack.h"

static inline void pack_row_reference(uint32_t *words, const uint8_t *codes, size_t count,
                                      unsigned width, mq_slice_rule rule) {
    const unsigned bits = mq_slice_bits(width, rule);
    memset(words, 0, count * bits / 32 * sizeof *words);
    for (size_t i = 0; i < count; i++) {
        unsigned slice = mq_slice_code(codes[i], width, rule);
        for (unsigned bit = 0; bit < bits; bit++) {
            size_t position = i * bits + bit;
            words[position / 32] |= (uint32_t)(slice >> bit & 1u) << position % 32;
        }
    }
}

static inline void unpack_row_reference(uint8_t *slices, const uint32_t *words, size_t count,
                                        unsigned bits) {
    for (size_t i = 0; i < count; i++) {
        unsigned slice = 0;
        for (unsigned bit = 0; bit < bits; bit++) {
            size_t position = i * bits + bit;
            slice |= (words[position / 32] >> position % 32 & 1u) << bit;
        }
        slices[i] = (uint8_t)slice;
    }
}

#endif
