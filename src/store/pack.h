/* Slicing of codes, and packing of slices into MLX's affine format: each row an LSB-first bit
 * stream in U32 words. */
#ifndef MQ_STORE_PACK_H
#define MQ_STORE_PACK_H

#include "matquant/format.h"
#include <stddef.h>
#include <stdint.h>

/* slices[count] = mq_slice_code(codes[i], width, rule), in a loop that compilers vectorize. slices
 * may be codes. */
void mq_slice_codes(uint8_t *slices, const uint8_t *codes, size_t count, unsigned width,
                    mq_slice_rule rule);

/* words[count·bits/32] from codes[count] (the 8-bit master codes, sliced on the way by rule), bits
 * = mq_slice_bits(width, rule). count·bits must be a multiple of 32. */
void mq_pack_row(uint32_t *words, const uint8_t *codes, size_t count, unsigned width,
                 mq_slice_rule rule);
/* The same from slices[count] of so many bits, and back; 8 slices a time: count·bits must be a
 * multiple of 32. */
void mq_pack_slices(uint32_t *words, const uint8_t *slices, size_t count, unsigned bits);
void mq_unpack_row(uint8_t *slices, const uint32_t *words, size_t count, unsigned bits);

#endif
