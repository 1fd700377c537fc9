/* KL(reference ‖ model) at the head, and its gradient, for a slab of tokens at a time.
 *
 * The logits of a slab stay: first those of both sides are made, piece by piece of the vocabulary,
 * with their log-sum-exp; then, piece by piece again, the model's become gradients in place and are
 * multiplied with the head's rows. Every piece sums into arrays of its own, which are added in the
 * order of the pieces: which thread had which does not show. */
#include "model/head_gradient.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "model/head_kernels.h"
#include "model/kernels.h"
#include "model/ops.h"
#include "tensor/gemm.h"

enum {
    PIECES = 32,            /* of the vocabulary, each one thread's */
    CHUNK_ROWS = 1024,      /* of the head made float32 at once */
    SLAB_BYTES = 192 << 20, /* of both sides' logits */
    MIN_SLAB = 32,
    MAX_SLAB = 512 /* tokens */
};

struct mq_head_gradient {
    size_t slab;             /* tokens */
    float *reference_norm;   /* [hidden_size] */
    float *normed[2];        /* [slab, hidden_size] */
    float *inv_rms[2];       /* [slab]: the model's is needed again backward */
    float *logits[2];        /* [slab, vocab_size] */
    float *max[2], *sum[2];  /* [PIECES, slab] */
    float *lse[2];           /* [slab] */
    float *kl;               /* [PIECES, slab] */
    float *d_normed;         /* [PIECES, slab, hidden_size]; the sum goes into the first */
    float *d_norm;           /* [hidden_size]: of one slab */
    float *norm_scratch;     /* [chunks, hidden_size] of mq_rmsnorm_backward */
    float *rows;             /* [threads, CHUNK_ROWS, hidden_size] */
    mq_bf16 *normed_bf16[2]; /* for products of bfloat16: normed, rows, */
    mq_bf16 *rows_bf16;
    mq_bf16 *d_logits; /* [threads, slab, CHUNK_ROWS] and the logits' gradients, rounded */
    unsigned char *gemm_scratch;
    size_t gemm_scratch_size; /* a thread's */
    mq_status status[PIECES];
    mq_error error[PIECES];
};

/* What one call is about. */
typedef struct pass {
    mq_head_gradient *memory;
    const mq_model *model;    /* the reference, and whose shapes are meant */
    const mq_model *head;     /* whose head makes the model's logits; model: the same for both */
    const mq_gemm_bf16 *gemm; /* NULL: float32 */
    const mq_head_kernels *kernels;
    const mq_kernels *elementwise;
    size_t tokens; /* of the slab */
    size_t threads;
    float weight, softcap;
} pass;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static size_t slab_tokens(const mq_config *config, size_t max_tokens) {
    const size_t fitting = SLAB_BYTES / (2 * sizeof(float)) / config->vocab_size;
    const size_t slab = fitting / MIN_SLAB * MIN_SLAB;
    return smaller(smaller(slab > MIN_SLAB ? slab : MIN_SLAB, MAX_SLAB), max_tokens);
}

static void carve_bf16(mq_head_gradient *m, mq_slab *slab, const mq_config *config,
                       const mq_gemm_bf16 *gemm, size_t threads) {
    const size_t row = config->hidden_size * sizeof(mq_bf16);
    for (size_t i = 0; i < 2; i++) {
        m->normed_bf16[i] = mq_carve(slab, m->slab, row);
    }
    m->rows_bf16 = mq_carve(slab, threads * CHUNK_ROWS, row);
    m->d_logits = mq_carve(slab, threads * m->slab, CHUNK_ROWS * sizeof(mq_bf16));
    m->gemm_scratch_size =
        (mq_gemm_bf16_scratch(gemm) + MQ_ALIGNMENT - 1) / MQ_ALIGNMENT * MQ_ALIGNMENT;
    m->gemm_scratch = mq_carve(slab, threads, m->gemm_scratch_size);
}

mq_head_gradient *mq_head_gradient_carve(mq_slab *slab, const mq_config *config, size_t max_tokens,
                                         const mq_gemm_bf16 *gemm, const mq_context *context) {
    mq_head_gradient *out = mq_carve(slab, 1, sizeof *out);
    mq_head_gradient local = {.slab = slab_tokens(config, max_tokens)};
    const size_t n = local.slab, row = config->hidden_size * sizeof(float);
    local.reference_norm = mq_carve(slab, 1, row);
    for (size_t i = 0; i < 2; i++) {
        local.normed[i] = mq_carve(slab, n, row);
        local.inv_rms[i] = mq_carve(slab, n, sizeof(float));
        local.logits[i] = mq_carve(slab, n, config->vocab_size * sizeof(float));
        local.max[i] = mq_carve(slab, PIECES, n * sizeof(float));
        local.sum[i] = mq_carve(slab, PIECES, n * sizeof(float));
        local.lse[i] = mq_carve(slab, n, sizeof(float));
    }
    local.kl = mq_carve(slab, PIECES, n * sizeof(float));
    local.d_normed = mq_carve(slab, PIECES * n, row);
    local.d_norm = mq_carve(slab, 1, row);
    local.norm_scratch = mq_carve(slab, mq_rmsnorm_chunks(n), row);
    local.rows = mq_carve(slab, mq_context_threads(context) * CHUNK_ROWS, row);
    if (gemm != NULL) {
        carve_bf16(&local, slab, config, gemm, mq_context_threads(context));
    }
    if (out != NULL) {
        *out = local;
    }
    return out;
}

/* --- products --------------------------------------------------------------------------------- */

static mq_gemm_shape logits_shape(const mq_config *config, size_t tokens, size_t count) {
    const size_t width = config->hidden_size;
    return (mq_gemm_shape){.m = tokens,
                           .n = count,
                           .k = width,
                           .lda = width,
                           .ldb = width,
                           .ldc = config->vocab_size,
                           .trans_b = true};
}

static mq_gemm_shape gradient_shape(const mq_config *config, size_t tokens, size_t count,
                                    bool begins) {
    const size_t width = config->hidden_size;
    return (mq_gemm_shape){.m = tokens,
                           .n = width,
                           .k = count,
                           .lda = CHUNK_ROWS,
                           .ldb = width,
                           .ldc = width,
                           .accumulate = !begins};
}

static size_t piece_begin(const mq_config *config, size_t piece) {
    return config->vocab_size * piece / PIECES;
}

static mq_status prepare_slab(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                              mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t piece = 0; piece < PIECES; piece++) {
        const size_t begin = piece_begin(config, piece), end = piece_begin(config, piece + 1);
        for (size_t first = begin; status == MQ_OK && first < end; first += CHUNK_ROWS) {
            const size_t count = smaller(CHUNK_ROWS, end - first);
            const mq_gemm_shape shapes[] = {logits_shape(config, tokens, count),
                                            gradient_shape(config, tokens, count, first == begin)};
            status = mq_gemm_bf16_prepare(gemm, &shapes[0], err);
            if (status == MQ_OK) {
                status = mq_gemm_bf16_prepare(gemm, &shapes[1], err);
            }
        }
    }
    return status;
}

mq_status mq_head_gradient_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t max_tokens,
                                   mq_error *err) {
    const size_t slab = slab_tokens(config, max_tokens), rest = max_tokens % slab;
    mq_status status = prepare_slab(gemm, config, slab, err);
    if (status == MQ_OK && rest > 0) {
        status = prepare_slab(gemm, config, rest, err);
    }
    return status;
}

static unsigned char *scratch_of(const pass *p) {
    return p->memory->gemm_scratch + (size_t)omp_get_thread_num() * p->memory->gemm_scratch_size;
}

/* Rows [first, first + count) of the head, in the thread's own memory: float32, and bfloat16 where
 * the products want that. */
typedef struct head_rows {
    const float *f32;
    const mq_bf16 *bf16;
} head_rows;

static mq_status read_rows(head_rows *out, const pass *p, const mq_model *of, size_t first,
                           size_t count, mq_error *err) {
    const mq_config *config = &of->config;
    const mq_weights *weights = of->weights;
    const char *name = config->tie_word_embeddings ? config->arch->embedding : config->arch->head;
    const size_t at = (size_t)omp_get_thread_num() * CHUNK_ROWS * config->hidden_size;
    float *rows = p->memory->rows + at;
    *out = (head_rows){.f32 = rows};
    const mq_status status = weights->class_->read(rows, weights, name, first, count, err);
    if (status == MQ_OK && p->gemm != NULL) {
        out->bf16 = p->memory->rows_bf16 + at;
        p->elementwise->to_bf16(p->memory->rows_bf16 + at, rows, count * config->hidden_size);
    }
    return status;
}

/* logits[tokens, count] (rows of vocab_size) = normed·rowsᵀ */
static void logits_product(float *logits, const pass *p, size_t side, const head_rows *rows,
                           size_t count) {
    const mq_head_gradient *m = p->memory;
    const size_t vocab = p->model->config.vocab_size, width = p->model->config.hidden_size;
    if (p->gemm != NULL) {
        const mq_gemm_shape shape = logits_shape(&p->model->config, p->tokens, count);
        mq_gemm_bf16_run(p->gemm, logits, m->normed_bf16[side], rows->bf16, &shape, scratch_of(p));
    } else {
        mq_gemm(logits, vocab, m->normed[side], width, false, rows->f32, width, true, p->tokens,
                count, width, 1.0F, 0.0F);
    }
}

/* d_normed[tokens, hidden_size] (+)= d_logits[tokens, count]·rows */
static void gradient_product(float *d_normed, const pass *p, const float *d_logits,
                             const head_rows *rows, size_t count, bool begins) {
    const mq_head_gradient *m = p->memory;
    const size_t vocab = p->model->config.vocab_size, width = p->model->config.hidden_size;
    if (p->gemm == NULL) {
        mq_gemm(d_normed, width, d_logits, vocab, false, rows->f32, width, false, p->tokens, width,
                count, 1.0F, begins ? 0.0F : 1.0F);
        return;
    }
    const mq_gemm_shape shape = gradient_shape(&p->model->config, p->tokens, count, begins);
    mq_bf16 *rounded = m->d_logits + (size_t)omp_get_thread_num() * m->slab * CHUNK_ROWS;
    for (size_t t = 0; t < p->tokens; t++) {
        p->elementwise->to_bf16(rounded + t * CHUNK_ROWS, d_logits + t * vocab, count);
    }
    mq_gemm_bf16_run(p->gemm, d_normed, rounded, rows->bf16, &shape, scratch_of(p));
}

/* --- pieces ----------------------------------------------------------------------------------- */

/* Logits of both sides for a chunk of the vocabulary, and the piece's log-sum-exp with it. */
static mq_status chunk_logits(const pass *p, size_t piece, size_t first, size_t count, bool begins,
                              mq_error *err) {
    const size_t vocab = p->model->config.vocab_size;
    head_rows rows;
    mq_status status = read_rows(&rows, p, p->head, first, count, err);
    for (size_t side = 0; side < 2; side++) {
        if (side == 1 && status == MQ_OK && p->head != p->model) {
            status = read_rows(&rows, p, p->model, first, count, err);
        }
        if (status != MQ_OK) {
            return status;
        }
        float *logits = p->memory->logits[side] + first;
        logits_product(logits, p, side, &rows, count);
        for (size_t t = 0; t < p->tokens; t++) {
            const size_t at = piece * p->memory->slab + t;
            float *max = &p->memory->max[side][at], *sum = &p->memory->sum[side][at];
            float here_max, here_sum;
            if (p->softcap > 0.0F) {
                p->kernels->softcap(logits + t * vocab, count, p->softcap);
            }
            p->kernels->log_sum(&here_max, &here_sum, logits + t * vocab, count);
            if (begins) {
                *max = here_max;
                *sum = here_sum;
                continue;
            }
            const float top = here_max > *max ? here_max : *max;
            *sum = *sum * expf(*max - top) + here_sum * expf(here_max - top);
            *max = top;
        }
    }
    return MQ_OK;
}

/* The chunk's logits of the model become gradients, and these go on to the normed hidden states. */
static mq_status chunk_gradients(const pass *p, size_t piece, size_t first, size_t count,
                                 bool begins, mq_error *err) {
    const mq_head_gradient *m = p->memory;
    const size_t vocab = p->model->config.vocab_size, width = p->model->config.hidden_size;
    head_rows rows;
    const mq_status status = read_rows(&rows, p, p->head, first, count, err);
    if (status != MQ_OK) {
        return status;
    }
    for (size_t t = 0; t < p->tokens; t++) {
        const size_t at = t * vocab + first;
        const float kl = p->kernels->kl_gradient(m->logits[0] + at, m->logits[1] + at, count,
                                                 m->lse[0][t], m->lse[1][t], p->weight, p->softcap);
        m->kl[piece * m->slab + t] = begins ? kl : m->kl[piece * m->slab + t] + kl;
    }
    gradient_product(m->d_normed + piece * m->slab * width, p, m->logits[0] + first, &rows, count,
                     begins);
    return MQ_OK;
}

typedef mq_status (*chunk_function)(const pass *p, size_t piece, size_t first, size_t count,
                                    bool begins, mq_error *err);

static mq_status for_chunks(const pass *p, size_t piece, chunk_function function, mq_error *err) {
    const mq_config *config = &p->model->config;
    const size_t begin = piece_begin(config, piece), end = piece_begin(config, piece + 1);
    mq_status status = MQ_OK;
    for (size_t first = begin; status == MQ_OK && first < end; first += CHUNK_ROWS) {
        status = function(p, piece, first, smaller(CHUNK_ROWS, end - first), first == begin, err);
    }
    return status;
}

static mq_status for_pieces(const pass *p, chunk_function function, mq_error *err) {
    mq_head_gradient *m = p->memory;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)p->threads)
    for (size_t piece = 0; piece < PIECES; piece++) {
        m->status[piece] = for_chunks(p, piece, function, &m->error[piece]);
    }
    for (size_t piece = 0; piece < PIECES; piece++) {
        if (m->status[piece] != MQ_OK) {
            if (err != NULL) {
                *err = m->error[piece];
            }
            return mq_error_in_file(err, m->status[piece], p->model->folder);
        }
    }
    return MQ_OK;
}

static bool is_empty(const pass *p, size_t piece) {
    return piece_begin(&p->model->config, piece) == piece_begin(&p->model->config, piece + 1);
}

/* --- slabs ------------------------------------------------------------------------------------ */

static void merge_sums(const pass *p) {
    mq_head_gradient *m = p->memory;
    for (size_t side = 0; side < 2; side++) {
        for (size_t t = 0; t < p->tokens; t++) {
            double top = -INFINITY, sum = 0.0;
            for (size_t piece = 0; piece < PIECES; piece++) {
                const double max = (double)m->max[side][piece * m->slab + t];
                top = !is_empty(p, piece) && max > top ? max : top;
            }
            for (size_t piece = 0; piece < PIECES; piece++) {
                if (!is_empty(p, piece)) {
                    const size_t at = piece * m->slab + t;
                    sum += (double)m->sum[side][at] * exp((double)m->max[side][at] - top);
                }
            }
            m->lse[side][t] = (float)(top + log(sum));
        }
    }
}

static void merge_gradients(float *kl, const pass *p) {
    mq_head_gradient *m = p->memory;
    const size_t width = p->model->config.hidden_size;
    for (size_t t = 0; t < p->tokens; t++) {
        double total = (double)m->lse[0][t] - (double)m->lse[1][t];
        for (size_t piece = 0; piece < PIECES; piece++) {
            total += is_empty(p, piece) ? 0.0 : (double)m->kl[piece * m->slab + t];
        }
        kl[t] = total > 0.0 ? (float)total : 0.0F; /* not negative but for rounding */
    }
    if (is_empty(p, 0)) { /* a vocabulary smaller than the number of pieces */
        memset(m->d_normed, 0, p->tokens * width * sizeof(float));
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < p->tokens * width; i++) {
        float sum = m->d_normed[i];
        for (size_t piece = 1; piece < PIECES; piece++) {
            if (!is_empty(p, piece)) {
                sum += m->d_normed[piece * m->slab * width + i];
            }
        }
        m->d_normed[i] = sum;
    }
}

static mq_status load_reference_norm(const pass *p, mq_error *err) {
    const mq_model *model = p->model;
    float *norm = p->memory->reference_norm;
    const mq_status status = model->weights->class_->read(
        norm, model->weights, model->config.arch->final_norm, 0, 1, err);
    for (size_t i = 0;
         status == MQ_OK && model->config.arch->norm_plus_one && i < model->config.hidden_size;
         i++) {
        norm[i] += 1.0F;
    }
    return status == MQ_OK ? MQ_OK : mq_error_in_file(err, status, model->folder);
}

mq_status mq_head_kl_gradient(float *kl, float *d_hidden, float *d_norm, const mq_model *model,
                              const mq_model *reference, const float *reference_hidden,
                              const float *norm, const float *hidden, size_t count, float weight,
                              const mq_gemm_bf16 *gemm, mq_head_gradient *memory,
                              const mq_context *context, mq_error *err) {
    const size_t width = reference->config.hidden_size;
    const float eps = (float)reference->config.rms_norm_eps;
    pass p = {.memory = memory,
              .model = reference,
              .head = model,
              .gemm = gemm,
              .kernels = mq_head_kernels_get(),
              .elementwise = mq_kernels_get(),
              .threads = mq_context_threads(context),
              .weight = weight,
              .softcap = (float)reference->config.final_logit_softcapping};
    memset(d_norm, 0, width * sizeof *d_norm);
    mq_status status = load_reference_norm(&p, err);
    mq_gemm_enter_single();
    for (size_t first = 0; status == MQ_OK && first < count; first += memory->slab) {
        const float *const inputs[2] = {hidden + first * width, reference_hidden + first * width};
        const float *const norms[2] = {norm, memory->reference_norm};
        p.tokens = smaller(memory->slab, count - first);
        for (size_t side = 0; side < 2; side++) {
            mq_rmsnorm_forward(memory->normed[side], memory->inv_rms[side], inputs[side],
                               norms[side], p.tokens, width, eps);
            if (gemm != NULL) {
                p.elementwise->to_bf16(memory->normed_bf16[side], memory->normed[side],
                                       p.tokens * width);
            }
        }
        status = for_pieces(&p, chunk_logits, err);
        if (status == MQ_OK) {
            merge_sums(&p);
            status = for_pieces(&p, chunk_gradients, err);
        }
        if (status == MQ_OK) {
            merge_gradients(kl + first, &p);
            mq_rmsnorm_backward(d_hidden + first * width, memory->d_norm, memory->d_normed,
                                inputs[0], memory->inv_rms[0], norm, p.tokens, width, false,
                                memory->norm_scratch);
            for (size_t i = 0; i < width; i++) {
                d_norm[i] += memory->d_norm[i];
            }
            status = mq_check_interrupt(context, err);
        }
        if (status == MQ_OK && gemm != NULL) {
            status = mq_gemm_bf16_check(gemm, err);
        }
    }
    mq_gemm_leave_single(context);
    return status;
}
