#include "quant/let.h"

#include <string.h>

void mq_let_carve(mq_let *let, mq_slab *slab, const mq_config *config, mq_block_params *params,
                  mq_grid *grid) {
    const size_t hidden = config->hidden_size, inner = config->intermediate_size;
    *let = (mq_let){.params = params, .grid = grid, .hidden = hidden, .inner = inner};
    float **const by_hidden[] = {&let->s,    &let->s_m,           &let->s_v,      &let->s_factor,
                                 &let->norm, &let->norm_gradient, &let->norm_part};
    float **const by_inner[] = {&let->t, &let->t_m, &let->t_v, &let->t_factor};
    for (size_t i = 0; i < sizeof by_hidden / sizeof by_hidden[0]; i++) {
        *by_hidden[i] = mq_carve(slab, hidden, sizeof(float));
    }
    for (size_t i = 0; i < sizeof by_inner / sizeof by_inner[0]; i++) {
        *by_inner[i] = mq_carve(slab, inner, sizeof(float));
    }
    float **const matrices[] = {&let->gate,          &let->up,          &let->down,
                                &let->gate_gradient, &let->up_gradient, &let->down_gradient};
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        *matrices[i] = mq_carve(slab, inner, hidden * sizeof(float));
    }
}

bool mq_let_scales_norm(const mq_selection *selection, size_t layer, const mq_config *config) {
    const size_t *groups = selection->groups[layer];
    return groups[MQ_GATE] > 0 && groups[MQ_UP] > 0 &&
           mq_config_norm_size(config, MQ_NORM_PRE_FFN) > 0;
}

void mq_let_begin(mq_let *let, const mq_selection *selection, size_t layer,
                  const mq_config *config) {
    const size_t *groups = selection->groups[layer];
    const size_t matrix = let->hidden * let->inner * sizeof(float);
    let->scales_norm = mq_let_scales_norm(selection, layer, config);
    let->scales_up = groups[MQ_UP] > 0 && groups[MQ_DOWN] > 0 && !mq_config_has_bias(config, MQ_UP);
    float *const zeros[2][3] = {{let->s, let->s_m, let->s_v}, {let->t, let->t_m, let->t_v}};
    for (size_t i = 0; i < 3; i++) {
        memset(zeros[0][i], 0, let->hidden * sizeof(float));
        memset(zeros[1][i], 0, let->inner * sizeof(float));
    }
    if (let->scales_norm) {
        memcpy(let->norm, let->params->norm[MQ_NORM_PRE_FFN], let->hidden * sizeof(float));
    }
    memcpy(let->gate, let->params->linear[MQ_GATE], matrix);
    memcpy(let->up, let->params->linear[MQ_UP], matrix);
    memcpy(let->down, let->params->linear[MQ_DOWN], matrix);
    const bool any = let->scales_norm || let->scales_up;
    let->grid[MQ_GATE].weight_gradient = let->scales_norm ? let->gate_gradient : NULL;
    let->grid[MQ_UP].weight_gradient = any ? let->up_gradient : NULL;
    let->grid[MQ_DOWN].weight_gradient = let->scales_up ? let->down_gradient : NULL;
}

void mq_let_clear(mq_let *let) { memset(let->norm_gradient, 0, let->hidden * sizeof(float)); }

void mq_let_add_norm(mq_let *let) {
    for (size_t c = 0; c < let->hidden; c++) {
        let->norm_gradient[c] += let->norm_part[c];
    }
}

/* --- the step --------------------------------------------------------------------------------- */

#define COLUMNS 64

/* sum[columns] += the sum over rows of a ⊙ b [rows, columns], rows in order. */
static void add_column_sums(float *sum, const float *a, const float *b, size_t rows,
                            size_t columns) {
#pragma omp parallel for
    for (size_t begin = 0; begin < columns; begin += COLUMNS) {
        const size_t end = begin + COLUMNS < columns ? begin + COLUMNS : columns;
        double part[COLUMNS] = {0};
        for (size_t row = 0; row < rows; row++) {
            for (size_t c = begin; c < end; c++) {
                part[c - begin] += (double)(a[row * columns + c] * b[row * columns + c]);
            }
        }
        for (size_t c = begin; c < end; c++) {
            sum[c] += (float)part[c - begin];
        }
    }
}

/* sum[rows] -= the sum over columns of a ⊙ b. */
static void subtract_row_sums(float *sum, const float *a, const float *b, size_t rows,
                              size_t columns) {
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++) {
        double part = 0.0;
        for (size_t c = 0; c < columns; c++) {
            part += (double)(a[row * columns + c] * b[row * columns + c]);
        }
        sum[row] -= (float)part;
    }
}

/* weight[rows, columns] = source, each row divided by by_row, each column times by_column; NULL: as
 * it is. */
static void scale_matrix(float *weight, const float *source, const float *by_row,
                         const float *by_column, size_t rows, size_t columns) {
#pragma omp parallel for
    for (size_t row = 0; row < rows; row++) {
        const float factor = by_row != NULL ? 1.0f / by_row[row] : 1.0f;
        for (size_t c = 0; c < columns; c++) {
            const float scale = by_column != NULL ? factor * by_column[c] : factor;
            weight[row * columns + c] = source[row * columns + c] * scale;
        }
    }
}

static void exponentials(float *out, const float *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        out[i] = expf(values[i]);
    }
}

/* The weights for s and t as they are, and the grids with them; the norm is not touched. */
static void transform(mq_let *let) {
    const float *s = let->scales_norm ? let->s_factor : NULL;
    const float *t = let->scales_up ? let->t_factor : NULL;
    exponentials(let->s_factor, let->s, let->hidden);
    exponentials(let->t_factor, let->t, let->inner);
    float *const *linear = let->params->linear;
    if (s != NULL) {
        scale_matrix(linear[MQ_GATE], let->gate, NULL, s, let->inner, let->hidden);
    }
    if (s != NULL || t != NULL) {
        scale_matrix(linear[MQ_UP], let->up, t, s, let->inner, let->hidden);
    }
    if (t != NULL) {
        scale_matrix(linear[MQ_DOWN], let->down, NULL, t, let->hidden, let->inner);
    }
    for (int i = MQ_GATE; i <= MQ_DOWN; i++) {
        if (let->grid[i].weight_gradient != NULL) {
            let->grid[i].class_->follow(&let->grid[i]);
        }
    }
}

static void step_vector(float *value, float *m, float *v, const float *gradient, size_t count,
                        const mq_adam *adam) {
    for (size_t i = 0; i < count; i++) {
        value[i] = mq_adam_update(&m[i], &v[i], adam, adam->rate_group, value[i], gradient[i]);
    }
}

/* By the logarithm of a scale, the slope of the loss is the sum of gradient · weight over the
 * transformed weights that it multiplies, less the same over those that it divides. */
void mq_let_step(mq_let *let, const mq_adam *adam) {
    const size_t hidden = let->hidden, inner = let->inner;
    float *const *linear = let->params->linear;
    float *norm = let->params->norm[MQ_NORM_PRE_FFN];
    float *by_s = let->norm_gradient, *by_t = let->gate_gradient; /* in place, when done with */
    if (let->scales_norm) {
        for (size_t c = 0; c < hidden; c++) {
            by_s[c] *= -norm[c];
        }
        add_column_sums(by_s, let->gate_gradient, linear[MQ_GATE], inner, hidden);
        add_column_sums(by_s, let->up_gradient, linear[MQ_UP], inner, hidden);
        step_vector(let->s, let->s_m, let->s_v, by_s, hidden, adam);
    }
    if (let->scales_up) {
        memset(by_t, 0, inner * sizeof(float));
        add_column_sums(by_t, let->down_gradient, linear[MQ_DOWN], hidden, inner);
        subtract_row_sums(by_t, let->up_gradient, linear[MQ_UP], inner, hidden);
        step_vector(let->t, let->t_m, let->t_v, by_t, inner, adam);
    }
    transform(let);
    for (size_t c = 0; let->scales_norm && c < hidden; c++) {
        norm[c] = let->norm[c] * expf(-let->s[c]);
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

/* The smallest normal float16: bfloat16's numbers from there up to 65,504 are float16's too. */
#define LEAST 6.103515625e-05f

/* A number of 8 significant bits near value that F32, F16 and BF16 hold. */
static float storable(float value) {
    const float rounded = mq_bf16_to_f32(mq_bf16_round(value));
    return fabsf(rounded) >= LEAST ? rounded : 0.0f;
}

void mq_let_finish(mq_let *let, float *gram, float *gram_down, bool norm_plus_one) {
    float *norm = let->params->norm[MQ_NORM_PRE_FFN];
    const float one = norm_plus_one ? 1.0f : 0.0f;
    for (size_t c = 0; let->scales_norm && c < let->hidden; c++) {
        const float stored = storable(let->norm[c] * expf(-let->s[c]) - one);
        const float scale = let->norm[c] / (one + stored);
        if (scale > 0.0f && isfinite(scale) && fabsf(stored) <= 65504.0f) {
            norm[c] = one + stored;
            let->s[c] = logf(scale);
        } else { /* a norm of zero, or a number too small: this channel stays */
            norm[c] = let->norm[c];
            let->s[c] = 0.0f;
        }
        gram[c] *= expf(-2.0f * let->s[c]);
    }
    for (size_t j = 0; let->scales_up && j < let->inner; j++) {
        gram_down[j] *= expf(-2.0f * let->t[j]);
    }
    transform(let);
}
