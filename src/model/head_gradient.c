/* KL(reference ‖ model) at the head, and its gradient, for a slab of tokens at a time.
 *
 * The logits of a slab stay: first those of both sides are made, chunk by chunk of the vocabulary,
 * with their log-sum-exp; then, chunk by chunk again, the model's become gradients in place and are
 * multiplied with the head's rows. A chunk whose gradients have been used is free for the logits of
 * the next slab: one pass over the vocabulary ends a slab and begins the next, so that the head is
 * read once for both.
 *
 * Where both sides have the same head, one product makes the logits of both: what a product does
 * with the head's rows before it multiplies is much of its time where tokens are few. A chunk's
 * logits lie together, since rows as far apart as a vocabulary is large, often by a power of two,
 * fall on the same places of a cache.
 *
 * Chunks are those of pieces, and every piece sums into arrays of its own, which are added in the
 * order of the pieces: which thread had which does not show. */
#include "model/head_gradient.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "model/head_kernels.h"
#include "model/head_products.h"
#include "model/ops.h"

enum {
    PIECES = 32,            /* of the vocabulary, each one thread's */
    CHUNK_ROWS = 1024,      /* of the head made float32 at once */
    CHUNK_ROWS_BF16 = 256,  /* for products of bfloat16, which are so fast that both sides' logits
                               have to be found in the cache again (of AMX and SmolLM2's 512 tokens
                               a tenth of the time) */
    SLAB_BYTES = 192 << 20, /* of both sides' logits */
    MIN_SLAB = 32,
    MAX_SLAB = 512, /* tokens */
    AHEAD = 2       /* tokens whose logits are fetched before they are wanted */
};

struct mq_head_gradient {
    const mq_context *context;
    size_t slab;            /* tokens */
    float *reference_norm;  /* [hidden_size] */
    float *inv_rms[2];      /* [slab]: the model's, of the slab that ends and the one that begins */
    float *inv_rms_unused;  /* [slab]: the reference's */
    float *logits;          /* [2·slab·vocab_size]: chunk_of */
    float *max[2], *sum[2]; /* [PIECES, slab] */
    float *lse[2];          /* [slab] */
    float *kl;              /* [PIECES, slab] */
    float *d_normed;        /* [PIECES, slab, hidden_size], of bfloat16 products in panels; the sum
                               goes into the first */
    float *d_norm;          /* [hidden_size]: of one slab */
    float *norm_scratch;    /* [chunks, hidden_size] of mq_rmsnorm_backward */
    mq_head_products products; /* their normed: the model's tokens, then the reference's */
};

/* One call of mq_head_kl_gradient. */
typedef struct pass {
    const mq_head_kl *of;
    mq_head_gradient *memory;
    const mq_model *model; /* the reference, and whose shapes are meant */
    const mq_model *head;  /* whose head makes the model's logits; model: the same for both */
    bool bf16;             /* products of bfloat16 operands */
    const mq_head_kernels *kernels;
    size_t ending, beginning; /* tokens of the slab that becomes gradients in this pass over the
                                 vocabulary, and of the one that becomes logits; 0: there is none */
    float scale, softcap;     /* of logits */
} pass;

/* Rows [first, first + count) of the vocabulary, of which a piece is made up. */
typedef struct chunk {
    size_t piece, first, count;
    bool begins; /* the piece */
} chunk;

static size_t slab_tokens(const mq_config *config, size_t max_tokens) {
    const size_t fitting = SLAB_BYTES / (2 * sizeof(float)) / config->vocab_size;
    const size_t slab = fitting / MIN_SLAB * MIN_SLAB;
    return mq_smaller(mq_smaller(slab > MIN_SLAB ? slab : MIN_SLAB, MAX_SLAB), max_tokens);
}

mq_head_gradient *mq_head_gradient_carve(mq_slab *slab, const mq_config *config, size_t max_tokens,
                                         const mq_gemm_bf16 *gemm, const mq_context *context) {
    mq_head_gradient *out = mq_carve(slab, 1, sizeof *out);
    mq_head_gradient local = {.context = context, .slab = slab_tokens(config, max_tokens)};
    const size_t n = local.slab, row = config->hidden_size * sizeof(float);
    const size_t rows = (config->vocab_size + PIECES - 1) / PIECES; /* of the largest piece */
    local.reference_norm = mq_carve(slab, 1, row);
    local.logits = mq_carve(slab, 2 * n, config->vocab_size * sizeof(float));
    local.inv_rms_unused = mq_carve(slab, n, sizeof(float));
    for (size_t i = 0; i < 2; i++) {
        local.inv_rms[i] = mq_carve(slab, n, sizeof(float));
        local.max[i] = mq_carve(slab, PIECES, n * sizeof(float));
        local.sum[i] = mq_carve(slab, PIECES, n * sizeof(float));
        local.lse[i] = mq_carve(slab, n, sizeof(float));
    }
    local.kl = mq_carve(slab, PIECES, n * sizeof(float));
    local.d_normed = mq_carve(slab, PIECES * n, row);
    local.d_norm = mq_carve(slab, 1, row);
    local.norm_scratch = mq_carve(slab, mq_rmsnorm_chunks(n), row);
    local.products = mq_head_products_carve(slab, config, n, mq_smaller(CHUNK_ROWS, rows),
                                            mq_smaller(CHUNK_ROWS_BF16, rows), gemm, context);
    if (out != NULL) {
        *out = local;
    }
    return out;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static size_t piece_begin(const mq_config *config, size_t piece) {
    return config->vocab_size * piece / PIECES;
}

/* The chunk that begins at row `first` of a piece; count 0: the piece ends there. */
static chunk chunk_at(const mq_config *config, size_t piece, size_t first, bool bf16) {
    const size_t end = piece_begin(config, piece + 1);
    return (chunk){.piece = piece,
                   .first = first,
                   .count = mq_smaller(bf16 ? CHUNK_ROWS_BF16 : CHUNK_ROWS, end - first),
                   .begins = first == piece_begin(config, piece)};
}

/* tokens: of a slab. */
static mq_status prepare_slab(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                              mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t piece = 0; piece < PIECES; piece++) {
        chunk c = chunk_at(config, piece, piece_begin(config, piece), true);
        for (; status == MQ_OK && c.count > 0;
             c = chunk_at(config, piece, c.first + c.count, true)) {
            status = mq_head_products_prepare(gemm, config, tokens, c.count, err);
        }
    }
    return status;
}

mq_status mq_head_gradient_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                                   mq_error *err) {
    const size_t slab = slab_tokens(config, tokens), rest = tokens % slab;
    mq_status status = prepare_slab(gemm, config, slab, err);
    if (status == MQ_OK && rest > 0) {
        status = prepare_slab(gemm, config, rest, err);
    }
    return status;
}

/* --- chunks ----------------------------------------------------------------------------------- */

/* A chunk's logits for a slab of so many tokens: [tokens, count] of the model, then [tokens, count]
 * of the reference. */
static float *chunk_of(const pass *p, const chunk *c) {
    return p->memory->logits + 2 * p->memory->slab * c->first;
}

static mq_status read_rows(mq_head_rows *out, const pass *p, const mq_model *of, const chunk *c,
                           mq_error *err) {
    return mq_head_rows_read(out, &p->memory->products, of, c->first, c->count, p->bf16, err);
}

/* The piece's log-sum-exp of a token so far, with logits[count] of the chunk, made of
 * products here. */
static void add_logits(const pass *p, const chunk *c, size_t side, size_t token, float *logits) {
    const size_t at = c->piece * p->memory->slab + token;
    float *max = &p->memory->max[side][at], *sum = &p->memory->sum[side][at];
    float here_max, here_sum;
    p->kernels->finish(logits, c->count, p->scale, p->softcap);
    p->kernels->log_sum(&here_max, &here_sum, logits, c->count);
    if (c->begins) {
        *max = here_max;
        *sum = here_sum;
        return;
    }
    const float top = here_max > *max ? here_max : *max;
    *sum = *sum * expf(*max - top) + here_sum * expf(here_max - top);
    *max = top;
}

typedef struct taking {
    const pass *p;
    const chunk *c;
} taking;

/* Tokens from `first` on of both sides, the reference's behind all of the model's. */
static void take_logits(void *user, float *logits, size_t first, size_t tokens) {
    const taking *of = user;
    const size_t beginning = of->p->beginning, count = of->c->count;
    for (size_t t = 0; t < tokens; t++) {
        const size_t side = (first + t) / beginning, token = (first + t) % beginning;
        add_logits(of->p, of->c, side, token, logits + t * count);
    }
}

/* Logits of both sides, and the piece's log-sum-exp with them. rows: the model's; the reference's
 * take their place in memory where it has its own. */
static mq_status begin_chunk(const pass *p, const chunk *c, mq_head_rows rows, mq_error *err) {
    const mq_head_products *products = &p->memory->products;
    const size_t tokens = p->beginning;
    taking now = {p, c};
    mq_head_run of = {.logits = chunk_of(p, c),
                      .normed = 2 * tokens,
                      .tokens = p->head == p->model ? 2 * tokens : tokens,
                      .take = take_logits,
                      .user = &now};
    mq_head_rows_logits(&of, products, &rows, p->bf16);
    if (p->head == p->model) {
        return MQ_OK;
    }
    const mq_status status = read_rows(&rows, p, p->model, c, err);
    if (status == MQ_OK) {
        of.logits += tokens * c->count;
        of.first = tokens;
        mq_head_rows_logits(&of, products, &rows, p->bf16);
    }
    return status;
}

/* A token's logits of both sides into the cache: since they were made a whole vocabulary's have
 * gone through it, and a row is too short for the processor to foresee the next one. */
static void fetch_logits(const float *logits, const float *reference, size_t count) {
    const size_t line = 64 / sizeof *logits;
    for (size_t i = 0; i < count; i += line) {
        __builtin_prefetch(logits + i, 1);
        __builtin_prefetch(reference + i, 0);
    }
}

static bool wants_gradient(const pass *p) { return p->of->d_hidden != NULL; }

/* The model's logits become gradients by the products that they are made of, and these, if they are
 * wanted, go on to the normed hidden states. */
static void end_chunk(const pass *p, const chunk *c, const mq_head_rows *rows) {
    const mq_head_gradient *m = p->memory;
    const size_t at = c->piece * m->slab;
    float *logits = chunk_of(p, c);
    for (size_t t = 0; t < p->ending; t++) {
        if (t + AHEAD < p->ending) {
            fetch_logits(logits + (t + AHEAD) * c->count,
                         logits + (p->ending + t + AHEAD) * c->count, c->count);
        }
        const float kl = p->kernels->kl_gradient(
            logits + t * c->count, logits + (p->ending + t) * c->count, c->count, m->lse[0][t],
            m->lse[1][t], p->of->weight * p->scale, p->softcap);
        m->kl[at + t] = c->begins ? kl : m->kl[at + t] + kl;
    }
    if (wants_gradient(p)) {
        mq_head_rows_gradient(m->d_normed + at * p->model->config.hidden_size, &m->products, logits,
                              p->ending, rows, c->begins, p->bf16);
    }
}

static mq_status run_piece(const pass *p, size_t piece, mq_error *err) {
    const mq_config *config = &p->model->config;
    mq_status status = MQ_OK;
    chunk c = chunk_at(config, piece, piece_begin(config, piece), p->bf16);
    for (; status == MQ_OK && c.count > 0;
         c = chunk_at(config, piece, c.first + c.count, p->bf16)) {
        mq_head_rows rows = {0};
        if (p->beginning > 0 || wants_gradient(p)) {
            status = read_rows(&rows, p, p->head, &c, err);
        }
        if (status == MQ_OK && p->ending > 0) {
            end_chunk(p, &c, &rows);
        }
        if (status == MQ_OK && p->beginning > 0) {
            status = begin_chunk(p, &c, rows, err);
        }
    }
    return status;
}

static mq_status run_pieces(const pass *p, mq_error *err) {
    mq_first_error failed = {.status = MQ_OK};
    const int threads = (int)mq_context_threads(p->memory->context);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t piece = 0; piece < PIECES; piece++) {
        mq_error own;
        const mq_status status = run_piece(p, piece, &own);
        mq_first_error_note(&failed, piece, status, &own);
    }
    return mq_error_in_file(err, mq_first_error_take(&failed, err), p->model->folder);
}

static bool is_empty(const pass *p, size_t piece) {
    return piece_begin(&p->model->config, piece) == piece_begin(&p->model->config, piece + 1);
}

/* --- slabs ------------------------------------------------------------------------------------ */

static void merge_sums(const pass *p) {
    mq_head_gradient *m = p->memory;
    for (size_t side = 0; side < 2; side++) {
        for (size_t t = 0; t < p->beginning; t++) {
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

static void merge_kl(float *kl, const pass *p) {
    const mq_head_gradient *m = p->memory;
    for (size_t t = 0; t < p->ending; t++) {
        double total = (double)m->lse[0][t] - (double)m->lse[1][t];
        for (size_t piece = 0; piece < PIECES; piece++) {
            total += is_empty(p, piece) ? 0.0 : (double)m->kl[piece * m->slab + t];
        }
        /* not negative but for rounding; a NaN stays one */
        kl[t] = total < 0.0 ? 0.0F : (float)total;
    }
}

static void merge_gradients(const pass *p) {
    mq_head_gradient *m = p->memory;
    const size_t width = p->model->config.hidden_size;
    if (is_empty(p, 0)) { /* a vocabulary smaller than the number of pieces */
        memset(m->d_normed, 0, p->ending * width * sizeof(float));
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < p->ending * width; i++) {
        float sum = m->d_normed[i];
        for (size_t piece = 1; piece < PIECES; piece++) {
            if (!is_empty(p, piece)) {
                sum += m->d_normed[piece * m->slab * width + i];
            }
        }
        m->d_normed[i] = sum;
    }
}

/* Tokens [first, first + p->beginning) as products want them; inv_rms: their slab's. */
static void norm_slab(const pass *p, size_t first, float *inv_rms) {
    const mq_head_kl *of = p->of;
    mq_head_gradient *m = p->memory;
    const size_t width = p->model->config.hidden_size, tokens = p->beginning;
    const float eps = (float)p->model->config.rms_norm_eps;
    float *normed = m->products.normed;
    mq_rmsnorm_forward(normed, inv_rms, of->model.hidden + first * width, of->norm, tokens, width,
                       eps);
    mq_rmsnorm_forward(normed + tokens * width, m->inv_rms_unused,
                       of->reference.hidden + first * width, m->reference_norm, tokens, width, eps);
    if (p->bf16) {
        mq_head_round_normed(&m->products, 2 * tokens);
    }
}

/* Tokens [first, first + p->ending), whose kl and gradients have been summed piece by piece. */
static void give_slab(const pass *p, size_t first, const float *inv_rms) {
    const mq_head_kl *of = p->of;
    mq_head_gradient *m = p->memory;
    const size_t width = p->model->config.hidden_size;
    merge_kl(of->kl + first, p);
    if (!wants_gradient(p)) {
        return;
    }
    merge_gradients(p);
    const float *d_normed = m->d_normed;
    if (p->bf16) { /* what was normed for this pass has been used */
        mq_head_from_panels(m->products.normed, m->d_normed, p->ending, width);
        d_normed = m->products.normed;
    }
    mq_rmsnorm_backward(of->d_hidden + first * width, m->d_norm, d_normed,
                        of->model.hidden + first * width, inv_rms, of->norm, p->ending, width,
                        false, m->norm_scratch);
    for (size_t i = 0; i < width; i++) {
        of->d_norm[i] += m->d_norm[i];
    }
}

/* Pass number i over the vocabulary begins slab i and ends the one before it. */
static mq_status run_passes(pass *p, mq_error *err) {
    mq_head_gradient *m = p->memory;
    const size_t count = p->of->count, slabs = (count + m->slab - 1) / m->slab;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i <= slabs; i++) {
        const size_t first = i * m->slab;
        p->ending = p->beginning;
        p->beginning = i < slabs ? mq_smaller(m->slab, count - first) : 0;
        if (p->beginning > 0) {
            norm_slab(p, first, m->inv_rms[i % 2]);
        }
        status = run_pieces(p, err);
        if (status == MQ_OK && p->bf16) {
            status = mq_gemm_bf16_check(m->products.products.gemm, err);
        }
        if (status == MQ_OK && p->ending > 0) {
            give_slab(p, first - m->slab, m->inv_rms[(i + 1) % 2]);
        }
        if (status == MQ_OK) {
            merge_sums(p);
            status = mq_check_interrupt(m->context, err);
        }
    }
    return status;
}

mq_status mq_head_kl_gradient(const mq_head_kl *of, mq_head_gradient *memory, mq_error *err) {
    const mq_model *reference = of->reference.model;
    const mq_config *config = &reference->config;
    pass p = {.of = of,
              .memory = memory,
              .model = reference,
              .head = of->model.model,
              .bf16 = of->bf16,
              .kernels = mq_head_kernels_best(),
              .scale = (float)(1.0 / config->logits_scaling),
              .softcap = (float)config->final_logit_softcapping};
    if (of->d_norm != NULL) {
        memset(of->d_norm, 0, config->hidden_size * sizeof *of->d_norm);
    }
    mq_status status =
        mq_model_norm(memory->reference_norm, reference, mq_config_layout(config)->final_norm,
                      config->hidden_size, err);
    if (status == MQ_OK && of->count > 0) {
        mq_gemm_enter_single();
        status = run_passes(&p, err);
        mq_gemm_leave_single(memory->context);
    }
    return status;
}
