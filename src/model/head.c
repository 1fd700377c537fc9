/* The head: final norm, and logits by tiles of tokens × rows of the vocabulary that fit in a cache.
 *
 * Tokens are taken in groups, the vocabulary in slabs of rows that are made float32 once for a
 * whole group. A slab is cut in chunks, a group in tiles; every (tile, chunk) is one task for one
 * thread, with its own product and its own partial log-sum-exp. Partials are merged in the order of
 * the chunks: which thread had which task does not show. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "model/head_kernels.h"
#include "model/ops.h"
#include "model/weights.h"
#include "tensor/gemm.h"

enum {
    CHUNK_ROWS = 1024, /* of the vocabulary */
    TILE_TOKENS = 256,
    MAX_CHUNKS = 8,         /* in a slab */
    MAX_GROUP = 4096,       /* tokens */
    GROUP_BYTES = 16 << 20, /* of normed hidden states, and of a slab, where rows are long */
};

/* One task's part of a token's log-sum-exp. */
typedef struct head_partial {
    float max, sum; /* Σ exp(logit - max) */
    int32_t top;
} head_partial;

/* A token's, so far. */
typedef struct head_state {
    double max, sum;
    int32_t top;
    float target; /* its logit */
} head_state;

/* What there is for one model. */
typedef struct head_side {
    mq_head_side of;
    float *norm, *normed;   /* [hidden_size], [group, hidden_size] */
    float *inv_rms;         /* [group] */
    float *slab;            /* [chunks·CHUNK_ROWS, hidden_size] */
    float *tiles;           /* [threads, TILE_TOKENS, CHUNK_ROWS] */
    head_partial *partials; /* [chunks, group] */
    head_state *states;     /* [group] */
} head_side;

typedef struct head {
    head_side sides[2]; /* the model, and what it is compared with */
    size_t side_count;
    size_t group, chunks; /* tokens, chunks of a slab */
    size_t threads;
    float *cross_partials; /* [chunks, group] */
    double *cross;         /* [group]: Σ exp(reference - its max)·(reference - logit) */
    const mq_head_kernels *kernels;
    mq_slab memory;
} head;

static void carve_side(head_side *side, mq_slab *slab, const head *h, size_t width) {
    side->norm = mq_carve(slab, width, sizeof(float));
    side->normed = mq_carve(slab, h->group * width, sizeof(float));
    side->inv_rms = mq_carve(slab, h->group, sizeof(float));
    side->slab = mq_carve(slab, h->chunks * CHUNK_ROWS * width, sizeof(float));
    side->tiles = mq_carve(slab, h->threads * TILE_TOKENS * CHUNK_ROWS, sizeof(float));
    side->partials = mq_carve(slab, h->chunks * h->group, sizeof(head_partial));
    side->states = mq_carve(slab, h->group, sizeof(head_state));
}

/* widths: hidden_size of each side; count: tokens in all. */
static void head_carve(head *h, mq_slab *slab, const size_t *widths, size_t count) {
    size_t width = widths[0];
    for (size_t i = 1; i < h->side_count; i++) {
        width = mq_larger(width, widths[i]);
    }
    const size_t rows = GROUP_BYTES / (width * sizeof(float));
    h->group = mq_smaller(mq_smaller(mq_larger(rows, TILE_TOKENS), MAX_GROUP), mq_larger(count, 1));
    h->chunks = mq_smaller(mq_larger(rows / CHUNK_ROWS, 1), MAX_CHUNKS);
    h->threads = (size_t)omp_get_max_threads();
    for (size_t i = 0; i < h->side_count; i++) {
        carve_side(&h->sides[i], slab, h, widths[i]);
    }
    h->cross_partials = mq_carve(slab, h->chunks * h->group, sizeof(float));
    h->cross = mq_carve(slab, h->group, sizeof(double));
}

size_t mq_head_memory(const mq_config *config, size_t count) {
    head h = {.side_count = 2};
    mq_slab slab = {0};
    const size_t widths[2] = {config->hidden_size, config->hidden_size};
    head_carve(&h, &slab, widths, count);
    return slab.overflow ? SIZE_MAX : slab.used;
}

/* h->sides[].of are set; the rest is made for count tokens. */
static mq_status head_open(head *h, size_t count, mq_error *err) {
    size_t widths[2] = {0};
    for (size_t i = 0; i < h->side_count; i++) {
        widths[i] = h->sides[i].of.model->config.hidden_size;
    }
    h->kernels = mq_head_kernels_best();
    h->memory = (mq_slab){0};
    head_carve(h, &h->memory, widths, count);
    mq_status status = mq_slab_allocate(&h->memory, "the head", err);
    if (status != MQ_OK) {
        return status;
    }
    head_carve(h, &h->memory, widths, count);
    for (size_t i = 0; status == MQ_OK && i < h->side_count; i++) {
        const mq_model *model = h->sides[i].of.model;
        status = mq_model_norm(h->sides[i].norm, model,
                               mq_config_layout(&model->config)->final_norm, widths[i], err);
    }
    if (status != MQ_OK) {
        mq_slab_free(&h->memory);
    }
    return status;
}

/* Rows [first, first + rows) of the vocabulary into the side's slab. */
static mq_status load_slab(const head *h, head_side *side, size_t first, size_t rows,
                           mq_error *err) {
    const mq_config *config = &side->of.model->config;
    const mq_weights *weights = side->of.model->weights;
    const char *name = mq_config_head(config);
    mq_first_error failed = {.status = MQ_OK};
    const size_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
#pragma omp parallel for schedule(static, 1) num_threads((int)h->threads)
    for (size_t i = 0; i < chunks; i++) {
        const size_t begin = i * CHUNK_ROWS, count = mq_smaller(CHUNK_ROWS, rows - begin);
        mq_error own;
        const mq_status status = weights->class_->read(side->slab + begin * config->hidden_size,
                                                       weights, name, first + begin, count, &own);
        mq_first_error_note(&failed, i, status, &own);
    }
    return mq_error_in_file(err, mq_first_error_take(&failed, err), side->of.model->folder);
}

static void norm_group(head_side *side, size_t first, size_t tokens) {
    const mq_config *config = &side->of.model->config;
    const size_t width = config->hidden_size;
    mq_rmsnorm_forward(side->normed, side->inv_rms, side->of.hidden + first * width, side->norm,
                       tokens, width, (float)config->rms_norm_eps);
}

/* One (tile, chunk): where it lies. */
typedef struct head_task {
    size_t token, tokens;    /* in the group */
    size_t chunk, row, rows; /* chunk of the slab; rows of the vocabulary */
} head_task;

static head_task task_at(size_t index, size_t tokens, size_t first_row, size_t rows) {
    const size_t tiles = (tokens + TILE_TOKENS - 1) / TILE_TOKENS;
    head_task task = {.token = index % tiles * TILE_TOKENS, .chunk = index / tiles};
    task.tokens = mq_smaller(TILE_TOKENS, tokens - task.token);
    task.row = first_row + task.chunk * CHUNK_ROWS;
    task.rows = mq_smaller(CHUNK_ROWS, first_row + rows - task.row);
    return task;
}

static size_t task_count(size_t tokens, size_t rows) {
    return ((tokens + TILE_TOKENS - 1) / TILE_TOKENS) * ((rows + CHUNK_ROWS - 1) / CHUNK_ROWS);
}

/* logits[task->tokens, ld] of a task's rows. */
static void tile_logits(float *logits, size_t ld, const head *h, const head_side *side,
                        const head_task *task) {
    const mq_config *config = &side->of.model->config;
    const size_t width = config->hidden_size;
    const mq_gemm_shape shape = {.m = task->tokens,
                                 .n = task->rows,
                                 .k = width,
                                 .lda = width,
                                 .ldb = width,
                                 .ldc = ld,
                                 .trans_b = true};
    mq_gemm(logits, side->normed + task->token * width,
            side->slab + task->chunk * CHUNK_ROWS * width, &shape, 1.0F);
    for (size_t i = 0; i < task->tokens; i++) {
        h->kernels->finish(logits + i * ld, task->rows, (float)(1.0 / config->logits_scaling),
                           (float)config->final_logit_softcapping);
    }
}

static void score_tile(const head *h, head_side *side, const head_task *task, const float *logits,
                       const int32_t *targets, bool want_top) {
    for (size_t i = 0; i < task->tokens; i++) {
        const size_t token = task->token + i;
        const float *row = logits + i * CHUNK_ROWS;
        head_partial *partial = &side->partials[task->chunk * h->group + token];
        h->kernels->log_sum(&partial->max, &partial->sum, row, task->rows);
        if (want_top) {
            partial->top = (int32_t)(task->row + h->kernels->find(row, task->rows, partial->max));
        }
        const size_t target = targets != NULL ? (size_t)targets[token] : SIZE_MAX;
        if (target >= task->row && target - task->row < task->rows) {
            side->states[token].target = row[target - task->row];
        }
    }
}

/* Both sides of a task, and what couples them. */
static void run_task(head *h, const head_task *task, const int32_t *targets, bool want_top) {
    const size_t tile = (size_t)omp_get_thread_num() * TILE_TOKENS * CHUNK_ROWS;
    for (size_t i = 0; i < h->side_count; i++) {
        tile_logits(h->sides[i].tiles + tile, CHUNK_ROWS, h, &h->sides[i], task);
        score_tile(h, &h->sides[i], task, h->sides[i].tiles + tile, i == 0 ? targets : NULL,
                   want_top);
    }
    for (size_t i = 0; h->side_count == 2 && i < task->tokens; i++) {
        const size_t at = task->chunk * h->group + task->token + i, row = tile + i * CHUNK_ROWS;
        h->cross_partials[at] = h->kernels->cross(h->sides[0].tiles + row, h->sides[1].tiles + row,
                                                  task->rows, h->sides[1].partials[at].max);
    }
}

/* Merges a chunk's partial sums into a token's state. Either sum of exponentials is relative to its
 * own maximum, so both are first rescaled to the larger of the two maxima. */
static void merge(head *h, size_t token, size_t chunk) {
    const size_t at = chunk * h->group + token;
    for (size_t i = 0; i < h->side_count; i++) {
        head_state *state = &h->sides[i].states[token];
        const head_partial *partial = &h->sides[i].partials[at];
        const double max = (double)partial->max;
        const bool rises = max > state->max;
        const double old_scale = rises ? exp(state->max - max) : 1.0;
        const double new_scale = rises ? 1.0 : exp(max - state->max);
        state->sum = state->sum * old_scale + (double)partial->sum * new_scale;
        if (i == 1) {
            h->cross[token] =
                h->cross[token] * old_scale + (double)h->cross_partials[at] * new_scale;
        }
        if (rises) {
            state->max = max;
            state->top = partial->top;
        }
    }
}

/* Scores one group of tokens, hidden rows [first, first + tokens), leaving the states. */
static mq_status score_group(head *h, size_t first, size_t tokens, const int32_t *targets,
                             bool want_top, const mq_context *context, mq_error *err) {
    const size_t vocab = h->sides[0].of.model->config.vocab_size, slab = h->chunks * CHUNK_ROWS;
    for (size_t i = 0; i < h->side_count; i++) {
        norm_group(&h->sides[i], first, tokens);
        for (size_t t = 0; t < tokens; t++) {
            h->sides[i].states[t] = (head_state){.max = -INFINITY};
        }
    }
    memset(h->cross, 0, tokens * sizeof *h->cross);
    for (size_t row = 0; row < vocab; row += slab) {
        const size_t rows = mq_smaller(slab, vocab - row), tasks = task_count(tokens, rows);
        mq_status status = mq_check_interrupt(context, err);
        for (size_t i = 0; status == MQ_OK && i < h->side_count; i++) {
            status = load_slab(h, &h->sides[i], row, rows, err);
        }
        if (status != MQ_OK) {
            return status;
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)h->threads)
        for (size_t i = 0; i < tasks; i++) {
            const head_task task = task_at(i, tokens, row, rows);
            run_task(h, &task, targets, want_top);
        }
        for (size_t chunk = 0; chunk * CHUNK_ROWS < rows; chunk++) {
            for (size_t t = 0; t < tokens; t++) {
                merge(h, t, chunk);
            }
        }
    }
    return MQ_OK;
}

static mq_status check_vocabularies(const mq_model *model, const mq_model *reference,
                                    mq_error *err) {
    return model->config.vocab_size == reference->config.vocab_size
               ? MQ_OK
               : mq_fail_file(err, MQ_ERR_INPUT, reference->folder,
                              "vocab_size %zu differs from the model's %zu: their distributions "
                              "cannot be compared",
                              reference->config.vocab_size, model->config.vocab_size);
}

static mq_status check_targets(const mq_model *model, const int32_t *targets, size_t count,
                               mq_error *err) {
    for (size_t i = 0; targets != NULL && i < count; i++) {
        if (targets[i] < 0 || (size_t)targets[i] >= model->config.vocab_size) {
            return mq_fail_file(err, MQ_ERR_INPUT, model->folder,
                                "token %zu has id %d, but vocab_size is %zu", i, (int)targets[i],
                                model->config.vocab_size);
        }
    }
    return MQ_OK;
}

static void give_results(const mq_head_scores *out, const head *h, size_t first, size_t tokens) {
    for (size_t t = 0; t < tokens; t++) {
        const head_state *state = &h->sides[0].states[t];
        const double lse = state->max + log(state->sum);
        if (out->nll != NULL) {
            out->nll[first + t] = (float)(lse - (double)state->target);
        }
        if (out->top != NULL) {
            out->top[first + t] = state->top;
        }
        if (h->side_count == 2) {
            const head_state *reference = &h->sides[1].states[t];
            const double reference_lse = reference->max + log(reference->sum);
            const double kl = h->cross[t] / reference->sum - reference_lse + lse;
            if (out->kl != NULL) { /* not negative but for rounding */
                out->kl[first + t] = (float)(kl < 0.0 ? 0.0 : kl);
            }
            if (out->same_top != NULL) {
                out->same_top[first + t] = state->top == reference->top;
            }
        }
    }
}

mq_status mq_head_score(const mq_head_scores *out, const mq_head_side *model,
                        const mq_head_side *reference, const int32_t *targets, size_t count,
                        const mq_context *context, mq_error *err) {
    const bool want_top = out->top != NULL || out->same_top != NULL;
    head h = {.side_count = 1, .sides[0].of = *model};
    mq_status status = MQ_OK;
    targets = out->nll != NULL ? targets : NULL;
    if (reference != NULL) {
        h.side_count = 2;
        h.sides[1].of = *reference;
        status = check_vocabularies(model->model, reference->model, err);
    }
    if (status == MQ_OK) {
        status = check_targets(model->model, targets, count, err);
    }
    if (status == MQ_OK) {
        status = head_open(&h, count, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    mq_gemm_enter_single();
    for (size_t first = 0; status == MQ_OK && first < count; first += h.group) {
        const size_t tokens = mq_smaller(h.group, count - first);
        status = score_group(&h, first, tokens, targets != NULL ? targets + first : NULL, want_top,
                             context, err);
        if (status == MQ_OK) {
            give_results(out, &h, first, tokens);
        }
    }
    mq_gemm_leave_single(context);
    mq_slab_free(&h.memory);
    return status;
}

/* Logits of one group into logits[tokens, vocab]. */
static mq_status group_logits(float *logits, head *h, size_t first, size_t tokens,
                              const mq_context *context, mq_error *err) {
    const size_t vocab = h->sides[0].of.model->config.vocab_size, slab = h->chunks * CHUNK_ROWS;
    norm_group(&h->sides[0], first, tokens);
    for (size_t row = 0; row < vocab; row += slab) {
        const size_t rows = mq_smaller(slab, vocab - row), tasks = task_count(tokens, rows);
        mq_status status = mq_check_interrupt(context, err);
        if (status == MQ_OK) {
            status = load_slab(h, &h->sides[0], row, rows, err);
        }
        if (status != MQ_OK) {
            return status;
        }
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)h->threads)
        for (size_t i = 0; i < tasks; i++) {
            const head_task task = task_at(i, tokens, row, rows);
            tile_logits(logits + task.token * vocab + task.row, vocab, h, &h->sides[0], &task);
        }
    }
    return MQ_OK;
}

mq_status mq_head_logits(float *logits, const mq_model *model, const float *hidden, size_t count,
                         const mq_context *context, mq_error *err) {
    head h = {.side_count = 1, .sides[0].of = {model, hidden}};
    mq_status status = head_open(&h, count, err);
    if (status != MQ_OK) {
        return status;
    }
    mq_gemm_enter_single();
    for (size_t first = 0; status == MQ_OK && first < count; first += h.group) {
        status = group_logits(logits + first * model->config.vocab_size, &h, first,
                              mq_smaller(h.group, count - first), context, err);
    }
    mq_gemm_leave_single(context);
    mq_slab_free(&h.memory);
    return status;
}
