#include "export/gguf_blocks.h"

#include <math.h>
#include <string.h>

#include "tensor/dtype.h"

enum { SMALL = 32, SUPER = 256, SUB = 16, SUBS = SUPER / SUB };

static const struct {
    mq_ggml_type type;
    const char *name;
    size_t block, bytes;
} types[] = {
    {MQ_GGML_F32, "F32", 1, 4},        {MQ_GGML_F16, "F16", 1, 2},
    {MQ_GGML_BF16, "BF16", 1, 2},      {MQ_GGML_Q4_0, "Q4_0", SMALL, 18},
    {MQ_GGML_Q4_1, "Q4_1", SMALL, 20}, {MQ_GGML_Q5_0, "Q5_0", SMALL, 22},
    {MQ_GGML_Q5_1, "Q5_1", SMALL, 24}, {MQ_GGML_Q8_0, "Q8_0", SMALL, 34},
    {MQ_GGML_Q2_K, "Q2_K", SUPER, 84},
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

/* Rounded to float16, as the file will hold it; an overflow stays the largest number. */
static float to_half(unsigned char *out, double value) {
    const double largest = 65504.0;
    const uint16_t half = mq_f32_to_f16((float)(value > largest    ? largest
                                                : value < -largest ? -largest
                                                                   : value));
    out[0] = (unsigned char)(half & 0xff);
    out[1] = (unsigned char)(half >> 8);
    return mq_f16_to_f32(half);
}

static float half_of(double value) {
    unsigned char bytes[2];
    return to_half(bytes, value);
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

/* The block's own codes where it lies in one group. */
static affine affine_of(const mq_row *row, size_t first, unsigned last) {
    const size_t group_size = row->in / row->groups, group = first / group_size;
    if (group_size % SMALL != 0) {
        return fit_affine(row->values + first, last);
    }
    affine exact = {.scale = row->scales[group], .bias = row->biases[group]};
    memcpy(exact.codes, row->slices + first, SMALL);
    return exact;
}

/* Codes of 4 bits, or of 5 with their fifth bits before the others. */
static void put_codes(unsigned char *out, const uint8_t codes[SMALL], bool fifth) {
    unsigned char *halves = out + (fifth ? 4 : 0);
    uint32_t high = 0;
    for (size_t i = 0; i < SMALL / 2; i++) {
        const unsigned a = codes[i], b = codes[i + SMALL / 2];
        halves[i] = (unsigned char)((a & 15) | (b & 15) << 4);
        high |= (uint32_t)(a >> 4) << i | (uint32_t)(b >> 4) << (i + SMALL / 2);
    }
    if (fifth) {
        for (size_t i = 0; i < 4; i++) {
            out[i] = (unsigned char)(high >> (8 * i) & 0xff);
        }
    }
}

static void put_affine(unsigned char *out, const affine *block, bool fifth) {
    to_half(out, block->scale);
    to_half(out + 2, block->bias);
    put_codes(out + 4, block->codes, fifth);
}

static void encode_affine(unsigned char *out, const mq_row *row, mq_ggml_type type, double *error) {
    const bool fifth = type == MQ_GGML_Q5_1;
    for (size_t first = 0; first < row->in; first += SMALL) {
        const affine block = affine_of(row, first, fifth ? 31 : 15);
        put_affine(out, &block, fifth);
        *error += block.error;
        out += fifth ? 24 : 20;
    }
}

/* --- no offset: Q8_0 -------------------------------------------------------------------------- */

/* Fits are made in single precision, codes as floats, so that compilers turn the loops into
 * vectors; what the one that is kept costs is added up in double. */
typedef struct symmetric {
    float scale, error;
    float codes[SMALL];
} symmetric;

/* To the nearest whole number, ties to even; |value| < 2^22. */
static inline float round_small(float value) {
    const float shift = 0x1.8p23f; /* where the distance of neighbours is 1 */
    return (value + shift) - shift;
}

/* Σ a·b in a fixed order; count is a multiple of 8. */
static inline float sum_of_products(const float *a, const float *b, size_t count) {
    float lane[8] = {0};
    for (size_t i = 0; i < count; i += 8) {
        for (size_t l = 0; l < 8; l++) {
            lane[l] += a[i + l] * b[i + l];
        }
    }
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* scale: a float16. */
static void assign_symmetric(symmetric *out, const float *values, float scale) {
    const float inverse = scale != 0 ? 1 / scale : 0;
    float errors[SMALL];
    out->scale = scale;
    for (size_t i = 0; i < SMALL; i++) {
        /* -128 is left out, as llama.cpp does: its kernels negate codes. */
        float at = values[i] * inverse;
        at = at > -127 ? at : -127;
        at = at < 127 ? at : 127;
        out->codes[i] = round_small(at);
        errors[i] = scale * out->codes[i] - values[i];
    }
    out->error = sum_of_products(errors, errors, SMALL);
}

static float solve_symmetric(const float *values, const float *codes) {
    const float squares = sum_of_products(codes, codes, SMALL);
    return squares > 0 ? sum_of_products(codes, values, SMALL) / squares : 0;
}

/* From the slice's own step, which is exact where its zero point is a whole number and in reach,
 * and from the widest range. */
static symmetric fit_symmetric(const float *values, float step) {
    float largest = 0;
    for (size_t i = 0; i < SMALL; i++) {
        largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    }
    const float starts[] = {largest / 127, largest / 126.5f, largest / 127.4f, fabsf(step)};
    symmetric best = {.error = INFINITY}, next;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        float scale = half_of((double)starts[i]);
        for (size_t k = 0; k < 3; k++) {
            assign_symmetric(&next, values, scale);
            if (next.error < best.error) {
                best = next;
            }
            scale = half_of((double)solve_symmetric(values, next.codes));
            if (scale == next.scale) { /* nothing would change any more */
                break;
            }
        }
    }
    return best;
}

static void encode_symmetric(unsigned char *out, const mq_row *row, double *error) {
    const size_t group_size = row->in / row->groups;
    for (size_t first = 0; first < row->in; first += SMALL) {
        const float *values = row->values + first;
        const symmetric block = fit_symmetric(values, row->scales[first / group_size]);
        to_half(out, (double)block.scale);
        for (size_t i = 0; i < SMALL; i++) {
            const double off = (double)block.scale * (double)block.codes[i] - (double)values[i];
            out[2 + i] = (unsigned char)(signed char)block.codes[i];
            *error += off * off;
        }
        out += 2 + SMALL;
    }
}

/* --- no offset, codes of a symmetric zero point: Q4_0, Q5_0 ------------------------------------
 */

static void encode_centred(unsigned char *out, const mq_row *row, mq_ggml_type type) {
    const bool fifth = type == MQ_GGML_Q5_0;
    const unsigned shift = (fifth ? 16u : 8u) - (1u << (row->width - 1));
    const size_t group_size = row->in / row->groups;
    for (size_t first = 0; first < row->in; first += SMALL) {
        uint8_t codes[SMALL];
        for (size_t i = 0; i < SMALL; i++) {
            codes[i] = (uint8_t)(row->slices[first + i] + shift);
        }
        to_half(out, row->scales[first / group_size]);
        put_codes(out + 2, codes, fifth);
        out += fifth ? 22 : 18;
    }
}

/* --- super-blocks: Q2_K ----------------------------------------------------------------------- */

typedef struct super {
    double scale, minimum, error; /* d and dmin */
    uint8_t scales[SUBS], minima[SUBS], codes[SUPER];
} super;

/* What a sub-block would take if it could: w ~ scale·q - minimum, both at least 0. */
typedef struct wish {
    double scale, minimum;
} wish;

static wish wish_of(const mq_row *row, size_t first) {
    const size_t group_size = row->in / row->groups, group = first / group_size;
    const float *values = row->values + first;
    double low = values[0], high = values[0];
    for (size_t i = 1; i < SUB; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    double scale = (high - low) / 3, bias = low;
    if (group_size % SUB == 0) { /* its own grid, counted upwards */
        scale = row->scales[group];
        bias = row->biases[group];
        if (scale < 0) {
            bias += 3 * scale;
            scale = -scale;
        }
    }
    if (bias > 0) { /* no negative minimum: levels 0, h/3, 2h/3, h */
        scale = high / 3;
        bias = 0;
    }
    return (wish){scale, -bias};
}

/* codes as floats; the numbers of a pair are float16s times 0 … 15. */
static float sub_error(float codes[SUB], const float *values, float scale, float minimum) {
    const float inverse = scale != 0 ? 1 / scale : 0;
    float errors[SUB];
    for (size_t i = 0; i < SUB; i++) {
        float at = (values[i] + minimum) * inverse;
        at = at > 0 ? at : 0;
        at = at < 3 ? at : 3;
        codes[i] = round_small(at);
        errors[i] = scale * codes[i] - minimum - values[i];
    }
    return sum_of_products(errors, errors, SUB);
}

/* For d and dmin as they are: for each sub-block the best 4-bit pair near the wish, and its codes.
 */
static void assign_super(super *out, const float *values, const wish wishes[SUBS], double scale,
                         double minimum) {
    const float d = half_of(scale), dmin = half_of(minimum);
    out->scale = d;
    out->minimum = dmin;
    out->error = 0;
    for (size_t j = 0; j < SUBS; j++) {
        const unsigned s = nearest(d != 0 ? wishes[j].scale / d : 0, 15);
        const unsigned m = nearest(dmin != 0 ? wishes[j].minimum / dmin : 0, 15);
        float best = INFINITY, kept[SUB] = {0};
        for (unsigned ds = s > 0 ? s - 1 : 0; ds <= s + 1 && ds <= 15; ds++) {
            for (unsigned dm = m > 0 ? m - 1 : 0; dm <= m + 1 && dm <= 15; dm++) {
                float codes[SUB];
                const float error =
                    sub_error(codes, values + j * SUB, d * (float)ds, dmin * (float)dm);
                if (error < best) {
                    best = error;
                    out->scales[j] = (uint8_t)ds;
                    out->minima[j] = (uint8_t)dm;
                    memcpy(kept, codes, sizeof kept);
                }
            }
        }
        for (size_t i = 0; i < SUB; i++) {
            const double off = out->scale * out->scales[j] * (double)kept[i] -
                               out->minimum * out->minima[j] - (double)values[j * SUB + i];
            out->codes[j * SUB + i] = (uint8_t)kept[i];
            out->error += off * off;
        }
    }
}

/* Least squares for d and dmin with everything else as it is. */
static bool solve_super(double *scale, double *minimum, const super *block, const float *values) {
    double xx = 0, xy = 0, yy = 0, xw = 0, yw = 0;
    for (size_t i = 0; i < SUPER; i++) {
        const double x = (double)block->scales[i / SUB] * block->codes[i];
        const double y = -(double)block->minima[i / SUB], w = values[i];
        xx += x * x;
        xy += x * y;
        yy += y * y;
        xw += x * w;
        yw += y * w;
    }
    const double determinant = xx * yy - xy * xy;
    if (determinant <= 1e-9 * xx * yy) {
        return false;
    }
    *scale = (xw * yy - yw * xy) / determinant;
    *minimum = (yw * xx - xw * xy) / determinant;
    return true;
}

static super fit_super(const mq_row *row, size_t first) {
    const float *values = row->values + first;
    wish wishes[SUBS];
    double largest_scale = 0, largest_minimum = 0;
    for (size_t j = 0; j < SUBS; j++) {
        wishes[j] = wish_of(row, first + j * SUB);
        largest_scale = fmax(largest_scale, wishes[j].scale);
        largest_minimum = fmax(largest_minimum, wishes[j].minimum);
    }
    super best = {.error = INFINITY}, next;
    for (unsigned top = 15; top >= 11; top -= 2) { /* coarser steps may meet the wishes better */
        assign_super(&next, values, wishes, largest_scale / top, largest_minimum / top);
        for (size_t step = 0; step < 4 && next.error < best.error; step++) {
            double scale, minimum;
            best = next;
            if (!solve_super(&scale, &minimum, &best, values)) {
                break;
            }
            assign_super(&next, values, wishes, scale, minimum);
        }
    }
    return best;
}

static void encode_super(unsigned char *out, const mq_row *row, double *error) {
    for (size_t first = 0; first < row->in; first += SUPER) {
        const super block = fit_super(row, first);
        for (size_t j = 0; j < SUBS; j++) {
            out[j] = (unsigned char)(block.scales[j] | block.minima[j] << 4);
        }
        memset(out + SUBS, 0, SUPER / 4);
        for (size_t i = 0; i < SUPER; i++) {
            out[SUBS + i / 128 * 32 + i % 32] |=
                (unsigned char)(block.codes[i] << i % 128 / 32 * 2);
        }
        to_half(out + SUBS + SUPER / 4, block.scale);
        to_half(out + SUBS + SUPER / 4 + 2, block.minimum);
        *error += block.error;
        out += SUBS + SUPER / 4 + 4;
    }
}

/* --- a number each ---------------------------------------------------------------------------- */

/* float16 has to be finite (to_half). */
static void encode_half(unsigned char *out, const mq_row *row, double *error) {
    for (size_t i = 0; i < row->in; i++) {
        const double difference = to_half(out + 2 * i, row->values[i]) - row->values[i];
        *error += difference * difference;
    }
}

static void encode_bfloat(unsigned char *out, const mq_row *row, double *error) {
    mq_from_f32(out, MQ_BF16, row->values, row->in);
    for (size_t i = 0; i < row->in; i++) {
        const double difference = mq_bf16_to_f32(mq_f32_to_bf16(row->values[i])) - row->values[i];
        *error += difference * difference;
    }
}

void mq_ggml_encode(unsigned char *out, const mq_row *row, mq_ggml_type type, double *error) {
    switch (type) {
    case MQ_GGML_Q4_1:
    case MQ_GGML_Q5_1:
        encode_affine(out, row, type, error);
        return;
    case MQ_GGML_Q4_0:
    case MQ_GGML_Q5_0:
        encode_centred(out, row, type);
        return;
    case MQ_GGML_Q8_0:
        encode_symmetric(out, row, error);
        return;
    case MQ_GGML_Q2_K:
        encode_super(out, row, error);
        return;
    case MQ_GGML_F16:
        encode_half(out, row, error);
        return;
    case MQ_GGML_BF16:
        encode_bfloat(out, row, error);
        return;
    case MQ_GGML_F32:
        mq_from_f32(out, MQ_F32, row->values, row->in);
        return;
    }
}
