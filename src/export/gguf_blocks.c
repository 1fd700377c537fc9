#include "export/gguf_blocks.h"

#include <math.h>
#include <string.h>

#include "export/fit.h"
#include "export/gguf_put.h"

enum { SMALL = MQ_FIT_BLOCK, SUPER = MQ_FIT_SUBS * MQ_FIT_SUB };

static const struct {
    mq_ggml_type type;
    const char *name;
    size_t block, bytes;
} types[] = {
    {MQ_GGML_F32, "F32", 1, 4},         {MQ_GGML_F16, "F16", 1, 2},
    {MQ_GGML_BF16, "BF16", 1, 2},       {MQ_GGML_Q4_0, "Q4_0", SMALL, 18},
    {MQ_GGML_Q4_1, "Q4_1", SMALL, 20},  {MQ_GGML_Q5_0, "Q5_0", SMALL, 22},
    {MQ_GGML_Q5_1, "Q5_1", SMALL, 24},  {MQ_GGML_Q8_0, "Q8_0", SMALL, 34},
    {MQ_GGML_Q2_K, "Q2_K", SUPER, 84},  {MQ_GGML_Q3_K, "Q3_K", SUPER, 110},
    {MQ_GGML_Q4_K, "Q4_K", SUPER, 144}, {MQ_GGML_Q5_K, "Q5_K", SUPER, 176},
    {MQ_GGML_Q6_K, "Q6_K", SUPER, 210},
};

static size_t find_type(mq_ggml_type type) {
    size_t i = 0;
    while (types[i].type != type) {
        i++;
    }
    return i;
}

const char *mq_ggml_name(mq_ggml_type type) { return types[find_type(type)].name; }
size_t mq_ggml_block(mq_ggml_type type) { return types[find_type(type)].block; }

size_t mq_ggml_row_bytes(mq_ggml_type type, size_t count) {
    const size_t i = find_type(type);
    return count / types[i].block * types[i].bytes;
}

static float half_of(double value) { return mq_f16_to_f32(mq_half_within(value)); }

/* The group that a block lies in, or begins in: of blocks one after the other, from the first of a
 * row on. */
typedef struct block_group {
    size_t group, end, size;
} block_group;

static block_group first_group(const mq_row *row) {
    return (block_group){.size = row->in / row->groups, .end = row->in / row->groups};
}

static size_t group_at(block_group *self, size_t first) {
    while (first >= self->end) {
        self->group++;
        self->end += self->size;
    }
    return self->group;
}

static unsigned nearest(double value, unsigned last) {
    const double rounded = nearbyint(value);
    return rounded <= 0 ? 0 : rounded >= last ? last : (unsigned)rounded;
}

/* --- a float offset: Q4_1, Q5_1 --------------------------------------------------------------- */

typedef struct affine {
    double scale, bias, error;
    uint8_t codes[SMALL];
} affine;

/* The nearest codes of a grid whose numbers are float16. */
static void assign_affine(affine *out, const float *values, double scale, double bias,
                          unsigned last) {
    out->scale = half_of(scale);
    out->bias = half_of(bias);
    out->error = 0;
    for (size_t i = 0; i < SMALL; i++) {
        const double at = out->scale != 0 ? (values[i] - out->bias) / out->scale : 0;
        out->codes[i] = (uint8_t)nearest(at, last);
        const double error = out->scale * out->codes[i] + out->bias - values[i];
        out->error += error * error;
    }
}

/* Least squares for scale and bias with the codes as they are; false: they are all the same. */
static bool solve_affine(double *scale, double *bias, const float *values, const uint8_t *codes) {
    double q = 0, qq = 0, w = 0, qw = 0;
    for (size_t i = 0; i < SMALL; i++) {
        q += codes[i];
        qq += (double)codes[i] * codes[i];
        w += values[i];
        qw += codes[i] * (double)values[i];
    }
    const double determinant = SMALL * qq - q * q;
    if (determinant <= 0) {
        return false;
    }
    *scale = (SMALL * qw - q * w) / determinant;
    *bias = (w - *scale * q) / SMALL;
    return true;
}

/* Alternates nearest codes and least squares, from the range on: each step can only improve. */
static affine fit_affine(const float *values, unsigned last) {
    double low = values[0], high = values[0];
    for (size_t i = 1; i < SMALL; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    affine best, next;
    assign_affine(&best, values, (high - low) / last, low, last);
    for (size_t step = 0; step < 8; step++) {
        double scale, bias;
        if (!solve_affine(&scale, &bias, values, best.codes)) {
            break;
        }
        assign_affine(&next, values, scale, bias, last);
        if (next.error >= best.error) {
            break;
        }
        best = next;
    }
    return best;
}

/* Codes of 4 bits, or of 5 with their fifth bits before the others. */
static void put_codes(unsigned char *out, const uint8_t codes[SMALL], bool fifth) {
    unsigned char halves[SMALL / 2];
    for (size_t i = 0; i < SMALL / 2; i++) {
        halves[i] = (unsigned char)((codes[i] & 15) | (codes[i + SMALL / 2] & 15) << 4);
    }
    memcpy(out + (fifth ? 4 : 0), halves, sizeof halves);
    if (!fifth) {
        return;
    }
    uint32_t high = 0;
    for (size_t i = 0; i < SMALL; i++) {
        high |= (uint32_t)(codes[i] >> 4) << i;
    }
    for (size_t i = 0; i < 4; i++) {
        out[i] = (unsigned char)(high >> (8 * i) & 0xff);
    }
}

/* The slice's own codes: each block lies in one group. */
static void put_own_affine(unsigned char *out, const mq_row *row, bool fifth) {
    enum { AT_ONCE = 64 };
    const size_t size = row->in / row->groups, bytes = fifth ? 24 : 20;
    const uint8_t *codes = row->slices;
    for (size_t first = 0; first < row->groups; first += AT_ONCE) {
        const size_t left = row->groups - first, count = left < AT_ONCE ? left : AT_ONCE;
        uint16_t scales[AT_ONCE], biases[AT_ONCE];
        mq_from_f32(scales, MQ_F16, row->scales + first, count);
        mq_from_f32(biases, MQ_F16, row->biases + first, count);
        for (size_t g = 0; g < count; g++) {
            for (size_t i = 0; i < size; i += SMALL) {
                memcpy(out, &scales[g], sizeof *scales);
                memcpy(out + 2, &biases[g], sizeof *biases);
                put_codes(out + 4, codes, fifth);
                out += bytes;
                codes += SMALL;
            }
        }
    }
}

static void encode_affine(unsigned char *out, double *error, const mq_row *row, mq_ggml_type type) {
    const bool fifth = type == MQ_GGML_Q5_1;
    if (row->in / row->groups % SMALL == 0) {
        put_own_affine(out, row, fifth);
        return;
    }
    for (size_t first = 0; first < row->in; first += SMALL) {
        const affine block = fit_affine(row->values + first, fifth ? 31 : 15);
        mq_put_half(out, block.scale);
        mq_put_half(out + 2, block.bias);
        put_codes(out + 4, block.codes, fifth);
        *error += block.error;
        out += fifth ? 24 : 20;
    }
}

/* --- no offset: Q8_0 -------------------------------------------------------------------------- */

static void encode_symmetric(unsigned char *out, double *error, const mq_row *row) {
    enum { AT_ONCE = 64 };
    const mq_fit_kernels *kernels = mq_fit_kernels_best();
    const size_t blocks = row->in / SMALL;
    block_group at = first_group(row);
    for (size_t first = 0; first < blocks; first += AT_ONCE) {
        const size_t left = blocks - first, count = left < AT_ONCE ? left : AT_ONCE;
        float scales[AT_ONCE], steps[AT_ONCE], errors[AT_ONCE];
        int8_t codes[AT_ONCE * SMALL];
        uint16_t halves[AT_ONCE];
        for (size_t i = 0; i < count; i++) {
            steps[i] = row->scales[group_at(&at, (first + i) * SMALL)];
        }
        kernels->symmetric(scales, codes, errors, row->values + first * SMALL, steps, count);
        mq_from_f32(halves, MQ_F16, scales, count);
        for (size_t i = 0; i < count; i++) {
            memcpy(out, &halves[i], sizeof *halves);
            memcpy(out + 2, codes + i * SMALL, SMALL);
            *error += (double)errors[i];
            out += 2 + SMALL;
        }
    }
}

/* --- no offset, codes of a symmetric zero point: Q4_0, Q5_0 ------------------------------------
 */

static void encode_centred(unsigned char *out, const mq_row *row, mq_ggml_type type) {
    const bool fifth = type == MQ_GGML_Q5_0;
    const unsigned shift = (fifth ? 16u : 8u) - (1u << (row->width - 1));
    block_group at = first_group(row);
    for (size_t first = 0; first < row->in; first += SMALL) {
        uint8_t codes[SMALL];
        for (size_t i = 0; i < SMALL; i++) {
            codes[i] = (uint8_t)(row->slices[first + i] + shift);
        }
        mq_put_half(out, (double)row->scales[group_at(&at, first)]);
        put_codes(out + 2, codes, fifth);
        out += fifth ? 22 : 18;
    }
}

/* --- a number each ---------------------------------------------------------------------------- */

/* What float16 cannot hold becomes infinite: whoever asked for it has to look. */
static void encode_half(unsigned char *out, double *error, const mq_row *row) {
    mq_from_f32(out, MQ_F16, row->values, row->in);
    for (size_t i = 0; i < row->in; i++) {
        const double difference = mq_f16_to_f32(mq_f32_to_f16(row->values[i])) - row->values[i];
        *error += difference * difference;
    }
}

static void encode_bfloat(unsigned char *out, double *error, const mq_row *row) {
    mq_from_f32(out, MQ_BF16, row->values, row->in);
    for (size_t i = 0; i < row->in; i++) {
        const double difference = mq_bf16_to_f32(mq_f32_to_bf16(row->values[i])) - row->values[i];
        *error += difference * difference;
    }
}

void mq_ggml_encode(unsigned char *out, double *error, const mq_row *row, mq_ggml_type type) {
    switch (type) {
    case MQ_GGML_Q4_1:
    case MQ_GGML_Q5_1:
        encode_affine(out, error, row, type);
        return;
    case MQ_GGML_Q4_0:
    case MQ_GGML_Q5_0:
        encode_centred(out, row, type);
        return;
    case MQ_GGML_Q8_0:
        encode_symmetric(out, error, row);
        return;
    case MQ_GGML_Q2_K:
    case MQ_GGML_Q3_K:
    case MQ_GGML_Q4_K:
    case MQ_GGML_Q5_K:
    case MQ_GGML_Q6_K:
        mq_ggml_encode_super(out, error, row, type);
        return;
    case MQ_GGML_F16:
        encode_half(out, error, row);
        return;
    case MQ_GGML_BF16:
        encode_bfloat(out, error, row);
        return;
    case MQ_GGML_F32:
        mq_from_f32(out, MQ_F32, row->values, row->in);
        return;
    }
}
