/* The last bits of the nested grid's codes, chosen so that they make up for one another's errors.
 *
 * Learning decides the narrow widths' bits. What they took from the 8-bit code, its last bits can
 * give back in part: instead of rounding each weight to the nearest, they are set input by input,
 * and what is left of an error goes to the inputs that follow (compensate.h). Every weight stays
 * inside the bucket that the narrower widths have left it, so that no other width notices. */
#include <string.h>

#include <omp.h>

#include "quant/nested.h"
#include "tensor/gemm.h"

#define BLOCK 64 /* inputs whose errors are passed on together */

/* Rows of a layer that one thread works on at a time. For each such piece the BLAS packs the whole
 * factor anew, which of 32 rows takes longer than their product; of more there are fewer pieces for
 * the threads. By the shape alone, since the BLAS may round a row by how many there are. */
static size_t piece_rows(size_t out) { return out < 2048 ? 32 : 128; }

typedef struct workspace {
    float *weight;       /* [rows, in], in the order of the inputs: what is left to be rounded */
    float *error;        /* [rows, BLOCK], over U[i][i] */
    uint8_t *low, *high; /* [rows, in]: the codes that are left */
    float *scale, *bias; /* [rows, groups] */
} workspace;

static workspace carve(size_t rows, size_t in, size_t groups, mq_slab *slab) {
    workspace work;
    work.weight = mq_carve(slab, rows, in * sizeof(float));
    work.error = mq_carve(slab, rows, BLOCK * sizeof(float));
    work.low = mq_carve(slab, rows, in);
    work.high = mq_carve(slab, rows, in);
    work.scale = mq_carve(slab, rows, groups * sizeof(float));
    work.bias = mq_carve(slab, rows, groups * sizeof(float));
    return work;
}

size_t mq_nested_compensate_bytes(size_t out, size_t in, size_t groups) {
    mq_slab slab = {0};
    carve(piece_rows(out), in, groups, &slab);
    return slab.overflow ? SIZE_MAX : slab.used;
}

/* Rows [first, first + rows) of one layer. */
typedef struct pass {
    const mq_grid *grid;
    const mq_compensation *compensation;
    workspace work;
    size_t first, rows;
    uint8_t *codes; /* of the layer, [out, in] */
} pass;

static void load_weights(const pass *p) {
    const mq_nested *nested = p->grid->state;
    const size_t in = p->grid->in, groups = p->grid->groups;
    for (size_t r = 0; r < p->rows; r++) {
        const float *row = p->grid->weight + (p->first + r) * in;
        for (size_t i = 0; i < in; i++) {
            p->work.weight[r * in + i] = row[p->compensation->order[i]];
        }
        for (size_t g = 0; g < groups; g++) {
            mq_nested_level levels[MQ_MAX_LEVELS];
            float lo, hi;
            mq_nested_group(&lo, &hi, levels, nested, (p->first + r) * groups + g);
            p->work.scale[r * groups + g] = levels[nested->level_count - 1].scale;
            p->work.bias[r * groups + g] = levels[nested->level_count - 1].bias;
        }
    }
}

/* What the narrower levels have decided stays. */
static void load_buckets(const pass *p) {
    const mq_nested *nested = p->grid->state;
    const mq_slice_rule rule = nested->symmetric ? MQ_SLICE_ROUND : MQ_SLICE_TOP;
    const size_t count = p->rows * p->grid->in;
    const uint8_t *codes = p->codes + p->first * p->grid->in;
    memset(p->work.low, nested->symmetric ? 1 : 0, count);
    memset(p->work.high, 255, count);
    for (size_t j = 0; j + 1 < nested->level_count; j++) {
        const unsigned width = nested->level[j];
        for (size_t i = 0; i < count; i++) {
            mq_nested_bucket(&p->work.low[i], &p->work.high[i],
                             mq_slice_code(codes[i], width, rule), width, nested->symmetric);
        }
    }
}

/* The code of one weight whose compensated value is w; returns what it is then worth. */
static float round_one(const pass *p, size_t r, size_t input, float w) {
    const size_t in = p->grid->in, groups = p->grid->groups;
    const size_t pair = r * groups + input / (in / groups), at = r * in + input;
    const float scale = p->work.scale[pair], bias = p->work.bias[pair];
    const float low = (float)p->work.low[at], high = (float)p->work.high[at];
    float code = (w - bias) / scale + 0.5f;
    code = code > low ? code : low; /* also where it is not a number */
    code = code < high ? code : high;
    const uint8_t rounded = (uint8_t)code;
    p->codes[p->first * in + at] = rounded;
    return scale * (float)rounded + bias;
}

static void round_rows(const pass *p) {
    const size_t in = p->grid->in;
    const float *factor = p->compensation->factor;
    load_weights(p);
    load_buckets(p);
    for (size_t begin = 0; begin < in; begin += BLOCK) {
        const size_t end = begin + BLOCK < in ? begin + BLOCK : in;
        for (size_t r = 0; r < p->rows; r++) {
            float *row = p->work.weight + r * in;
            for (size_t i = begin; i < end; i++) {
                const float *u = factor + i * in;
                const float value = round_one(p, r, p->compensation->order[i], row[i]);
                const float error = (row[i] - value) / u[i];
                p->work.error[r * BLOCK + i - begin] = error;
                for (size_t j = i + 1; j < end; j++) {
                    row[j] -= error * u[j];
                }
            }
        }
        const mq_gemm_shape rest = {.m = p->rows,
                                    .n = in - end,
                                    .k = end - begin,
                                    .lda = BLOCK,
                                    .ldb = in,
                                    .ldc = in,
                                    .accumulate = true};
        mq_gemm(p->work.weight + end, p->work.error, factor + begin * in + end, &rest, -1.0f);
    }
}

void mq_nested_compensate(uint8_t *codes, const mq_grid *grid, const mq_compensation *compensation,
                          const mq_compensation_work *threads) {
    const size_t rows = piece_rows(grid->out);
#pragma omp parallel for schedule(dynamic) num_threads((int)threads->threads)
    for (size_t first = 0; first < grid->out; first += rows) {
        mq_slab slab = {.base = threads->memory + (size_t)omp_get_thread_num() * threads->bytes,
                        .size = threads->bytes};
        const pass p = {.grid = grid,
                        .compensation = compensation,
                        .work = carve(rows, grid->in, grid->groups, &slab),
                        .first = first,
                        .rows = grid->out - first < rows ? grid->out - first : rows,
                        .codes = codes};
        round_rows(&p);
    }
}
