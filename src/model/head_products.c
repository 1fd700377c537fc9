#include "model/head_products.h"

#include <omp.h>
#include <string.h>

#include "model/kernels.h"
#include "tensor/gemm.h"

enum { ROWS = 128 }; /* of a bfloat16 product: of tokens */

/* A chunk's rows [count, hidden_size] as the b of the logits, and of the gradient. */
static mq_panelled for_logits(size_t hidden_size, size_t count) {
    return (mq_panelled){.k = mq_panels_of(hidden_size), .n = mq_panels_of(count), .trans_b = true};
}

static mq_panelled for_gradient(size_t hidden_size, size_t count) {
    return (mq_panelled){.k = mq_panels_of(count), .n = mq_panels_of(hidden_size)};
}

/* For so many tokens: in runs of ROWS, and what is left. */
static mq_status prepare_tokens(mq_gemm_bf16 *gemm, const mq_panelled *b, size_t tokens,
                                mq_error *err) {
    mq_status status = tokens >= ROWS ? mq_panelled_prepare(gemm, b, ROWS, err) : MQ_OK;
    if (status == MQ_OK && tokens % ROWS > 0) {
        status = mq_panelled_prepare(gemm, b, tokens % ROWS, err);
    }
    return status;
}

mq_status mq_head_products_prepare(mq_gemm_bf16 *gemm, const mq_config *config, size_t tokens,
                                   size_t rows, mq_error *err) {
    const mq_panelled logits = for_logits(config->hidden_size, rows);
    const mq_panelled gradient = for_gradient(config->hidden_size, rows);
    /* the logits of one side alone are made where the other has its own head */
    mq_status status = prepare_tokens(gemm, &logits, 2 * tokens, err);
    if (status == MQ_OK) {
        status = prepare_tokens(gemm, &logits, tokens, err);
    }
    return status == MQ_OK ? prepare_tokens(gemm, &gradient, tokens, err) : status;
}

static void carve_bf16(mq_head_products *m, mq_slab *slab, const mq_gemm_bf16 *gemm,
                       size_t threads) {
    const size_t row = m->hidden_size * sizeof(mq_bf16);
    const mq_panelled logits = for_logits(m->hidden_size, m->chunk_rows_bf16);
    const mq_panelled gradient = for_gradient(m->hidden_size, m->chunk_rows_bf16);
    m->packed_size = mq_larger(mq_panelled_size(gemm, &logits), mq_panelled_size(gemm, &gradient));
    m->normed_bf16 = mq_carve(slab, 2 * m->slab, row);
    m->rows_bf16 = mq_carve(slab, threads * m->chunk_rows_bf16, row);
    m->d_logits = mq_carve(slab, threads * m->slab, m->chunk_rows_bf16 * sizeof(mq_bf16));
    m->packed = mq_carve(slab, threads, m->packed_size * sizeof(mq_bf16));
    m->products = mq_products_carve(slab, gemm, threads);
}

mq_head_products mq_head_products_carve(mq_slab *slab, const mq_config *config, size_t tokens,
                                        size_t chunk_rows, size_t chunk_rows_bf16,
                                        const mq_gemm_bf16 *gemm, const mq_context *context) {
    const size_t row = config->hidden_size * sizeof(float), threads = mq_context_threads(context);
    mq_head_products m = {.hidden_size = config->hidden_size,
                          .chunk_rows = chunk_rows,
                          .chunk_rows_bf16 = mq_smaller(chunk_rows_bf16, chunk_rows),
                          .slab = tokens};
    m.normed = mq_carve(slab, 2 * tokens, row);
    m.rows = mq_carve(slab, threads * chunk_rows, row);
    if (gemm != NULL) {
        carve_bf16(&m, slab, gemm, threads);
    }
    return m;
}

static size_t thread(void) { return (size_t)omp_get_thread_num(); }

mq_status mq_head_rows_read(mq_head_rows *out, const mq_head_products *m, const mq_model *of,
                            size_t first, size_t count, bool bf16, mq_error *err) {
    const mq_weights *weights = of->weights;
    const char *head = mq_config_head(&of->config);
    if (bf16 && weights->class_->stored_bf16 != NULL) {
        const mq_bf16 *stored = weights->class_->stored_bf16(weights, head, first);
        if (stored != NULL) {
            *out = (mq_head_rows){.bf16 = stored, .count = count};
            return MQ_OK;
        }
    }
    float *rows = m->rows + thread() * m->chunk_rows * m->hidden_size;
    *out = (mq_head_rows){.f32 = rows, .count = count};
    const mq_status status = weights->class_->read(rows, weights, head, first, count, err);
    if (status == MQ_OK && bf16) {
        mq_bf16 *rounded = m->rows_bf16 + thread() * m->chunk_rows_bf16 * m->hidden_size;
        mq_kernels_best()->to_bf16(rounded, rows, count * m->hidden_size);
        out->bf16 = rounded;
    }
    return status;
}

void mq_head_round_normed(const mq_head_products *m, size_t tokens) {
    mq_round_panels(m->normed_bf16, tokens, 0, m->normed, tokens, m->hidden_size);
}

/* The rows packed for one of the products, in the thread's own memory. */
static mq_bf16 *pack(const mq_head_products *m, const mq_panelled *b, const mq_head_rows *rows,
                     size_t tokens) {
    mq_bf16 *packed = m->packed + thread() * m->packed_size;
    for (size_t j = 0; j < b->n.count; j++) {
        mq_panelled_pack(packed, rows->bf16, b, j, mq_smaller(tokens, ROWS), &m->products);
    }
    return packed;
}

static void logits_bf16(const mq_head_run *of, const mq_head_products *m,
                        const mq_head_rows *rows) {
    const mq_panelled b = for_logits(m->hidden_size, rows->count);
    const mq_bf16 *packed = pack(m, &b, rows, of->tokens);
    for (size_t t = 0; t < of->tokens; t += ROWS) {
        const size_t count = mq_smaller(ROWS, of->tokens - t);
        float *logits = of->logits + t * rows->count;
        mq_panelled_product(logits, m->normed_bf16, of->normed, of->first + t, count, packed, &b, 0,
                            false, &m->products);
        of->take(of->user, logits, of->first + t, count);
    }
}

void mq_head_rows_logits(const mq_head_run *of, const mq_head_products *m, const mq_head_rows *rows,
                         bool bf16) {
    if (bf16) {
        logits_bf16(of, m, rows);
        return;
    }
    const size_t width = m->hidden_size, tokens = of->tokens;
    const mq_gemm_shape shape = {.m = tokens,
                                 .n = rows->count,
                                 .k = width,
                                 .lda = width,
                                 .ldb = width,
                                 .ldc = rows->count,
                                 .trans_b = true};
    mq_gemm(of->logits, m->normed + of->first * width, rows->f32, &shape, 1.0F);
    of->take(of->user, of->logits, of->first, tokens);
}

static void d_normed_bf16(float *d_normed, const mq_head_products *m, const float *d_logits,
                          size_t tokens, const mq_head_rows *rows, bool begins) {
    const mq_panelled b = for_gradient(m->hidden_size, rows->count);
    mq_bf16 *rounded = m->d_logits + thread() * m->slab * m->chunk_rows_bf16;
    mq_kernels_best()->to_bf16(rounded, d_logits, tokens * rows->count);
    const mq_bf16 *packed = pack(m, &b, rows, tokens);
    for (size_t j = 0; j < b.n.count; j++) {
        for (size_t t = 0; t < tokens; t += ROWS) {
            mq_panelled_product(d_normed + mq_panel_at(&b.n, j, tokens, t), rounded, tokens, t,
                                mq_smaller(ROWS, tokens - t), packed, &b, j, !begins, &m->products);
        }
    }
}

void mq_head_rows_gradient(float *d_normed, const mq_head_products *m, const float *d_logits,
                           size_t tokens, const mq_head_rows *rows, bool begins, bool bf16) {
    if (bf16) {
        d_normed_bf16(d_normed, m, d_logits, tokens, rows, begins);
        return;
    }
    const size_t width = m->hidden_size;
    const mq_gemm_shape shape = {.m = tokens,
                                 .n = width,
                                 .k = rows->count,
                                 .lda = rows->count,
                                 .ldb = width,
                                 .ldc = width,
                                 .accumulate = !begins};
    mq_gemm(d_normed, d_logits, rows->f32, &shape, 1.0F);
}

void mq_head_from_panels(float *y, const float *x, size_t rows, size_t columns) {
    const mq_panels panels = mq_panels_of(columns);
    for (size_t j = 0; j < panels.count; j++) {
        const size_t width = mq_panel_width(&panels, j);
        for (size_t r = 0; r < rows; r++) {
            memcpy(y + r * columns + j * panels.width, x + mq_panel_at(&panels, j, rows, r),
                   width * sizeof *y);
        }
    }
}
