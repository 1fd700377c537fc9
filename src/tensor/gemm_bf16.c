/* oneDNN's matmul behind gemm_bf16.h: one primitive a shape, and for each thread its own stream and
 * memory objects, whose addresses are set before every product. */
#include "tensor/gemm_bf16.h"

#ifdef MATQUANT_ONEDNN

#include <assert.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>

#include <dnnl.h>

#include "base/alloc.h"
#include "tensor/pack_bf16.h"

/* PLAIN: the weights before they are packed. */
enum { SOURCE, WEIGHTS, RESULT, SCRATCH, PLAIN, PACK_SCRATCH, ARGUMENTS };

typedef struct product {
    mq_gemm_shape shape;
    dnnl_primitive_t primitive;
    dnnl_primitive_t pack; /* NULL: the shape has no packed_b, or its layout is known */
    dnnl_memory_t (*memory)[ARGUMENTS]; /* [threads] */
    dnnl_memory_desc_t weights;         /* as they are multiplied from */
} product;

struct mq_gemm_bf16 {
    size_t threads;
    dnnl_engine_t engine;
    dnnl_stream_t *streams; /* [threads] */
    product *products;
    size_t count, capacity;
    size_t scratch;
    atomic_int
        *failure; /* a dnnl_status_t; behind a pointer since products run on a const object */
};

static mq_status failed(dnnl_status_t status, const char *what, mq_error *err) {
    return mq_fail(err, MQ_ERR_MACHINE, "oneDNN: %s failed (status %d)", what, (int)status);
}

/* --- what there is ---------------------------------------------------------------------------- */

bool mq_gemm_bf16_built(void) { return true; }

/* oneDNN's values are sets of instructions. Processors with AVX-512 and no bfloat16 are left out,
 * although oneDNN emulates it there: that is slower than float32. */
static bool has(dnnl_cpu_isa_t isa) { return (dnnl_get_effective_cpu_isa() & isa) == isa; }

bool mq_gemm_bf16_usable(void) { return has(dnnl_cpu_isa_avx512_core_bf16); }

void mq_gemm_bf16_describe(char *out, size_t size) {
    const dnnl_version_t *version = dnnl_version();
    snprintf(out, size, "oneDNN %d.%d.%d %s", version->major, version->minor, version->patch,
             has(dnnl_cpu_isa_avx512_core_amx)    ? "avx512_core_amx"
             : has(dnnl_cpu_isa_avx512_core_bf16) ? "avx512_core_bf16"
                                                  : "without bf16");
}

/* --- making and freeing ----------------------------------------------------------------------- */

mq_status mq_gemm_bf16_new(mq_gemm_bf16 **out, size_t threads, mq_error *err) {
    *out = NULL;
    if (!mq_gemm_bf16_usable()) {
        return mq_fail(err, MQ_ERR_MACHINE,
                       "this processor has no bfloat16 instructions (AVX512-BF16 or AMX) that "
                       "oneDNN could use");
    }
    mq_gemm_bf16 *gemm = mq_calloc(1, sizeof *gemm);
    if (gemm == NULL) {
        return mq_fail_memory(err, "oneDNN's products", sizeof *gemm);
    }
    gemm->threads = threads;
    gemm->streams = mq_calloc(threads, sizeof *gemm->streams);
    gemm->failure = mq_calloc(1, sizeof *gemm->failure);
    mq_status status = MQ_OK;
    if (gemm->streams == NULL || gemm->failure == NULL) {
        status = mq_fail_memory(err, "oneDNN's products", threads * sizeof *gemm->streams);
    }
    dnnl_status_t made = dnnl_success;
    if (status == MQ_OK) {
        atomic_init(gemm->failure, dnnl_success);
        made = dnnl_engine_create(&gemm->engine, dnnl_cpu, 0);
    }
    for (size_t t = 0; status == MQ_OK && made == dnnl_success && t < threads; t++) {
        made = dnnl_stream_create(&gemm->streams[t], gemm->engine, dnnl_stream_default_flags);
    }
    if (made != dnnl_success) {
        status = failed(made, "an engine", err);
    }
    if (status != MQ_OK) {
        mq_gemm_bf16_free(gemm);
        return status;
    }
    *out = gemm;
    return MQ_OK;
}

static void free_product(product *p, size_t threads) {
    for (size_t t = 0; p->memory != NULL && t < threads; t++) {
        for (size_t i = 0; i < ARGUMENTS; i++) {
            dnnl_memory_destroy(p->memory[t][i]); /* like all of these, does nothing with NULL */
        }
    }
    mq_free(p->memory);
    dnnl_primitive_destroy(p->primitive);
    dnnl_primitive_destroy(p->pack);
}

void mq_gemm_bf16_free(mq_gemm_bf16 *gemm) {
    if (gemm == NULL) {
        return;
    }
    for (size_t i = 0; i < gemm->count; i++) {
        free_product(&gemm->products[i], gemm->threads);
    }
    for (size_t t = 0; gemm->streams != NULL && t < gemm->threads; t++) {
        dnnl_stream_destroy(gemm->streams[t]);
    }
    dnnl_engine_destroy(gemm->engine);
    mq_free(gemm->products);
    mq_free(gemm->streams);
    mq_free(gemm->failure);
    mq_free(gemm);
}

/* --- preparing a shape ------------------------------------------------------------------------ */

static product *find(const mq_gemm_bf16 *gemm, const mq_gemm_shape *shape) {
    for (size_t i = 0; i < gemm->count; i++) {
        if (mq_gemm_same_shape(&gemm->products[i].shape, shape)) {
            return &gemm->products[i];
        }
    }
    return NULL;
}

/* A product of a packed b of that shape; NULL: there is none yet. */
static const product *find_packed(const mq_gemm_bf16 *gemm, size_t k, size_t n) {
    for (size_t i = 0; i < gemm->count; i++) {
        const product *p = &gemm->products[i];
        if (p->shape.packed_b && p->shape.k == k && p->shape.n == n) {
            return p;
        }
    }
    return NULL;
}

/* What op(x)[rows, columns] is in memory. */
static dnnl_status_t describe(dnnl_memory_desc_t *out, size_t rows, size_t columns, size_t ld,
                              bool trans, dnnl_data_type_t type) {
    const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    const dnnl_dims_t strides = {trans ? 1 : (dnnl_dim_t)ld, trans ? (dnnl_dim_t)ld : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

/* User-mode scratchpad: oneDNN allocates none of its own. The sum is what adds to c. */
static dnnl_status_t attributes(dnnl_primitive_attr_t *out, bool accumulate) {
    dnnl_post_ops_t sum = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    }
    if (status == dnnl_success && accumulate) {
        status = dnnl_post_ops_create(&sum);
        if (status == dnnl_success) {
            status = dnnl_post_ops_append_sum(sum, 1.0F);
        }
        if (status == dnnl_success) {
            status = dnnl_primitive_attr_set_post_ops(*out, sum);
        }
        dnnl_post_ops_destroy(sum);
    }
    return status;
}

#if defined(__x86_64__)

/* Whether packed weights are as pack_known makes them. */
static bool is_known(const dnnl_memory_desc_t *weights, const mq_gemm_shape *s) {
    const dnnl_dims_t dims = {(dnnl_dim_t)s->k, (dnnl_dim_t)s->n};
    dnnl_memory_desc_t known;
    return dnnl_memory_desc_init_by_tag(&known, 2, dims, dnnl_bf16, dnnl_BA16a64b2a) ==
               dnnl_success &&
           dnnl_memory_desc_equal(&known, weights) != 0;
}

static void pack_known(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *s) {
    mq_pack_bf16_avx512(packed, b, s->k, s->n, s->ldb, s->trans_b);
}

#else

static bool is_known(const dnnl_memory_desc_t *weights, const mq_gemm_shape *s) {
    (void)weights, (void)s;
    return false;
}

static void pack_known(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *s) {
    (void)packed, (void)b, (void)s; /* no shape is known */
}

#endif

/* From PLAIN to WEIGHTS. */
static dnnl_status_t make_pack(product *p, dnnl_memory_desc_t memory[ARGUMENTS],
                               const mq_gemm_bf16 *gemm) {
    if (is_known(&memory[WEIGHTS], &p->shape)) {
        return dnnl_success;
    }
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t made = NULL;
    dnnl_status_t status = attributes(&attr, false);
    if (status == dnnl_success) {
        status = dnnl_reorder_primitive_desc_create(&made, &memory[PLAIN], gemm->engine,
                                                    &memory[WEIGHTS], gemm->engine, attr);
    }
    if (status == dnnl_success) {
        memory[PACK_SCRATCH] = *dnnl_primitive_desc_query_md(made, dnnl_query_scratchpad_md, 0);
        status = dnnl_primitive_create(&p->pack, made);
    }
    dnnl_primitive_desc_destroy(made);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

/* What the product reads and writes; of packed weights, those that they are made of. A layout is
 * chosen by the first product of their shape. */
static dnnl_status_t describe_all(dnnl_memory_desc_t memory[ARGUMENTS], const mq_gemm_shape *s,
                                  const mq_gemm_bf16 *gemm) {
    const dnnl_dims_t dims = {(dnnl_dim_t)s->k, (dnnl_dim_t)s->n};
    dnnl_status_t status = describe(&memory[SOURCE], s->m, s->k, s->lda, s->trans_a, dnnl_bf16);
    if (status == dnnl_success) {
        status = describe(&memory[PLAIN], s->k, s->n, s->ldb, s->trans_b, dnnl_bf16);
    }
    memory[WEIGHTS] = memory[PLAIN];
    const product *first = s->packed_b ? find_packed(gemm, s->k, s->n) : NULL;
    if (first != NULL) {
        memory[WEIGHTS] = first->weights;
    } else if (status == dnnl_success && s->packed_b) {
        status =
            dnnl_memory_desc_init_by_tag(&memory[WEIGHTS], 2, dims, dnnl_bf16, dnnl_format_tag_any);
    }
    if (status == dnnl_success) {
        status = describe(&memory[RESULT], s->m, s->n, s->ldc, false, dnnl_f32);
    }
    return status;
}

static dnnl_status_t make_primitive(product *p, dnnl_memory_desc_t memory[ARGUMENTS],
                                    const mq_gemm_bf16 *gemm) {
    const mq_gemm_shape *s = &p->shape;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t made = NULL;
    dnnl_status_t status = describe_all(memory, s, gemm);
    if (status == dnnl_success) {
        status = dnnl_matmul_desc_init(&matmul, &memory[SOURCE], &memory[WEIGHTS], NULL,
                                       &memory[RESULT]);
    }
    if (status == dnnl_success) {
        status = attributes(&attr, s->accumulate);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(&made, &matmul, attr, gemm->engine, NULL);
    }
    if (status == dnnl_success) {
        memory[SCRATCH] = *dnnl_primitive_desc_query_md(made, dnnl_query_scratchpad_md, 0);
        memory[WEIGHTS] = *dnnl_primitive_desc_query_md(made, dnnl_query_weights_md, 0);
        status = dnnl_primitive_create(&p->primitive, made);
    }
    p->weights = memory[WEIGHTS];
    if (status == dnnl_success && s->packed_b) {
        status = make_pack(p, memory, gemm);
    }
    dnnl_primitive_desc_destroy(made);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static dnnl_status_t make_memory(product *p, const dnnl_memory_desc_t memory[ARGUMENTS],
                                 const mq_gemm_bf16 *gemm) {
    dnnl_status_t status = dnnl_success;
    for (size_t t = 0; t < gemm->threads; t++) {
        for (size_t i = 0; status == dnnl_success && i < ARGUMENTS; i++) {
            status =
                dnnl_memory_create(&p->memory[t][i], &memory[i], gemm->engine, DNNL_MEMORY_NONE);
        }
    }
    return status;
}

static mq_status reserve(mq_gemm_bf16 *gemm, mq_error *err) {
    if (gemm->count < gemm->capacity) {
        return MQ_OK;
    }
    const size_t capacity = 2 * gemm->capacity + 64;
    product *products = mq_realloc(gemm->products, capacity, sizeof *products);
    if (products == NULL) {
        return mq_fail_memory(err, "oneDNN's products", capacity * sizeof *products);
    }
    gemm->products = products;
    gemm->capacity = capacity;
    return MQ_OK;
}

mq_status mq_gemm_bf16_prepare(mq_gemm_bf16 *gemm, const mq_gemm_shape *shape, mq_error *err) {
    if (find(gemm, shape) != NULL) {
        return MQ_OK;
    }
    const mq_status status = reserve(gemm, err);
    if (status != MQ_OK) {
        return status;
    }
    product p = {.shape = *shape};
    p.memory = mq_calloc(gemm->threads, sizeof *p.memory);
    if (p.memory == NULL) {
        return mq_fail_memory(err, "oneDNN's products", gemm->threads * sizeof *p.memory);
    }
    /* A primitive splits its work for the threads that there are when it is made: for one, so that
     * the result does not depend on how many threads call it. */
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    dnnl_memory_desc_t memory[ARGUMENTS] = {0};
    dnnl_status_t made = make_primitive(&p, memory, gemm);
    omp_set_num_threads(threads);
    if (made == dnnl_success) {
        made = make_memory(&p, memory, gemm);
    }
    if (made != dnnl_success) {
        free_product(&p, gemm->threads);
        return failed(made, "preparing a product", err);
    }
    static const int scratches[] = {SCRATCH, PACK_SCRATCH};
    for (size_t i = 0; i < sizeof scratches / sizeof *scratches; i++) {
        const size_t size = dnnl_memory_desc_get_size(&memory[scratches[i]]);
        gemm->scratch = size > gemm->scratch ? size : gemm->scratch;
    }
    gemm->products[gemm->count++] = p;
    return MQ_OK;
}

size_t mq_gemm_bf16_scratch(const mq_gemm_bf16 *gemm) {
    return (gemm->scratch + MQ_ALIGNMENT - 1) / MQ_ALIGNMENT * MQ_ALIGNMENT;
}

/* --- products --------------------------------------------------------------------------------- */

/* oneDNN reads its operands only, but has no const. */
static void *writable(const void *operand) { return (void *)(uintptr_t)operand; }

/* An argument of a primitive: which, by oneDNN's number and by ours, and where it is now. */
typedef struct argument {
    int number, index;
    void *address;
} argument;

enum { MOST_ARGUMENTS = 4 };

/* Runs a primitive of p's on the calling thread. */
static void execute(const mq_gemm_bf16 *gemm, const product *p, const_dnnl_primitive_t primitive,
                    const argument *arguments, size_t count) {
    const size_t thread = (size_t)omp_get_thread_num();
    assert(thread < gemm->threads && count <= MOST_ARGUMENTS);
    dnnl_exec_arg_t given[MOST_ARGUMENTS];
    dnnl_status_t status = dnnl_success;
    for (size_t i = 0; status == dnnl_success && i < count; i++) {
        given[i] = (dnnl_exec_arg_t){arguments[i].number, p->memory[thread][arguments[i].index]};
        status = dnnl_memory_set_data_handle(given[i].memory, arguments[i].address);
    }
    if (status == dnnl_success) {
        status = dnnl_primitive_execute(primitive, gemm->streams[thread], (int)count, given);
    }
    if (status != dnnl_success) {
        atomic_store(gemm->failure, (int)status);
    }
}

size_t mq_gemm_bf16_packed_size(const mq_gemm_bf16 *gemm, size_t k, size_t n) {
    const product *p = find_packed(gemm, k, n);
    assert(p != NULL);
    return dnnl_memory_desc_get_size(&p->weights);
}

void mq_gemm_bf16_pack(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *shape,
                       const mq_gemm_bf16 *gemm, void *scratch) {
    const product *p = find(gemm, shape);
    assert(p != NULL && shape->packed_b);
    if (p->pack == NULL) {
        pack_known(packed, b, shape);
        return;
    }
    const argument arguments[] = {{DNNL_ARG_FROM, PLAIN, writable(b)},
                                  {DNNL_ARG_TO, WEIGHTS, packed},
                                  {DNNL_ARG_SCRATCHPAD, PACK_SCRATCH, scratch}};
    execute(gemm, p, p->pack, arguments, sizeof arguments / sizeof *arguments);
}

void mq_gemm_bf16_run(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                      const mq_gemm_bf16 *gemm, void *scratch) {
    const product *p = find(gemm, shape);
    assert(p != NULL);
    const argument arguments[] = {{DNNL_ARG_SRC, SOURCE, writable(a)},
                                  {DNNL_ARG_WEIGHTS, WEIGHTS, writable(b)},
                                  {DNNL_ARG_DST, RESULT, c},
                                  {DNNL_ARG_SCRATCHPAD, SCRATCH, scratch}};
    execute(gemm, p, p->primitive, arguments, sizeof arguments / sizeof *arguments);
}

mq_status mq_gemm_bf16_check(const mq_gemm_bf16 *gemm, mq_error *err) {
    const int status = atomic_load(gemm->failure);
    return status == dnnl_success ? MQ_OK : failed((dnnl_status_t)status, "a product", err);
}

#else /* without oneDNN nobody gets an object to call the others with */

#include <assert.h>
#include <stdio.h>

bool mq_gemm_bf16_built(void) { return false; }

bool mq_gemm_bf16_usable(void) { return false; }

void mq_gemm_bf16_describe(char *out, size_t size) { snprintf(out, size, "no oneDNN"); }

mq_status mq_gemm_bf16_new(mq_gemm_bf16 **out, size_t threads, mq_error *err) {
    (void)threads;
    *out = NULL;
    return mq_fail(err, MQ_ERR_USAGE, "this matquant was built without oneDNN");
}

void mq_gemm_bf16_free(mq_gemm_bf16 *gemm) { (void)gemm; }

mq_status mq_gemm_bf16_prepare(mq_gemm_bf16 *gemm, const mq_gemm_shape *shape, mq_error *err) {
    (void)gemm, (void)shape;
    return mq_fail(err, MQ_ERR_USAGE, "this matquant was built without oneDNN");
}

size_t mq_gemm_bf16_scratch(const mq_gemm_bf16 *gemm) {
    (void)gemm;
    return 0;
}

size_t mq_gemm_bf16_packed_size(const mq_gemm_bf16 *gemm, size_t k, size_t n) {
    (void)gemm, (void)k, (void)n;
    assert(false);
    return 0;
}

void mq_gemm_bf16_pack(mq_bf16 *packed, const mq_bf16 *b, const mq_gemm_shape *shape,
                       const mq_gemm_bf16 *gemm, void *scratch) {
    (void)gemm, (void)packed, (void)b, (void)shape, (void)scratch;
    assert(false);
}

void mq_gemm_bf16_run(float *c, const mq_bf16 *a, const mq_bf16 *b, const mq_gemm_shape *shape,
                      const mq_gemm_bf16 *gemm, void *scratch) {
    (void)gemm, (void)c, (void)a, (void)b, (void)shape, (void)scratch;
    assert(false);
}

mq_status mq_gemm_bf16_check(const mq_gemm_bf16 *gemm, mq_error *err) {
    (void)gemm;
    return mq_fail(err, MQ_ERR_USAGE, "this matquant was built without oneDNN");
}

#endif
