/* One width of a master while it is refitted: its numbers, and the model that they make. */
#ifndef MQ_QUANT_REFIT_STUDENT_H
#define MQ_QUANT_REFIT_STUDENT_H

#include "quant/adam.h"
#include "quant/refit.h"

/* The pairs of one linear, [out, groups] each: a weight is scale·(s - centre) + middle, with centre
 * = 2^(r-1) - ½, so that neither number undoes what the other does. */
typedef struct mq_student_pairs {
    size_t out, in, groups; /* groups 0: not quantized */
    float *scale, *middle;
    float *m, *v; /* [out, groups, 2]: Adam's moments of log scale and of middle */
    uint16_t *best_scale, *best_bias; /* as stored */
} mq_student_pairs;

typedef struct mq_student_norm {
    size_t size; /* 0: the architecture has none */
    mq_dtype dtype;
    float unit; /* root of the mean square of the multiplier at the start: Adam's steps are in it */
    float *value, *m, *v; /* the multiplier, [size] */
    float *best;          /* the tensor as stored, [size] */
} mq_student_norm;

/* What rows [first, first + rows) of a tensor are: a linear or a norm, which is one row. */
typedef struct mq_student_name {
    char name[MQ_NAME_SIZE];
    size_t first, rows;
    size_t layer;
    int linear, norm; /* one of them; -1 */
} mq_student_name;

typedef struct mq_student {
    mq_weights weights; /* of model: whoever runs it reads the numbers below */
    mq_model model;     /* the teacher's configuration with these weights */
    const mq_refit_setup *setup;
    const mq_refit_store *store; /* during mq_refit_width */
    unsigned width;
    bool rounded; /* reading gives the numbers as they would be stored, else as they are trained */
    mq_student_pairs (*pairs)[MQ_LINEAR_COUNT]; /* [layers] */
    mq_student_norm (*norms)[MQ_NORM_COUNT];    /* [layers] */
    mq_student_norm final_norm;
    mq_student_name *names; /* sorted, those of one name by their rows */
    size_t name_count;
} mq_student;

void mq_student_carve(mq_student *student, const mq_refit_setup *setup, mq_slab *slab);
/* After carving on the real slab: names, shapes, dtypes. */
mq_status mq_student_open(mq_student *student, const mq_refit_setup *setup, mq_error *err);

/* Bytes that reading a linear through `weights` allocates meanwhile, at most. */
size_t mq_student_read_memory(const mq_config *config);

/* For tests: the numbers of the width that was refitted last. */
const mq_student *mq_refit_student(const mq_refit *refit);

/* The width's numbers as the store has them, norms as the source has them; they are the best so
 * far. */
mq_status mq_student_start(mq_student *student, unsigned width, const mq_refit_store *store,
                           mq_error *err);
/* The numbers as they are now, rounded, are the best so far. */
void mq_student_keep(mq_student *student);
/* Puts the best into the store; its pairs alone. */
mq_status mq_student_put(const mq_student *student, mq_error *err);
mq_status mq_student_put_pairs(const mq_student *student, mq_error *err);

/* A layer's parameters, and the codes[linear][out, in] that its weights were made of. bf16: all its
 * weights are there rounded, and in float32 those alone that are not quantized. */
mq_status mq_student_load(mq_block_params *params, bool bf16, uint8_t *const codes[MQ_LINEAR_COUNT],
                          const mq_student *student, size_t layer, mq_error *err);
/* One step of Adam on the pairs of a linear's rows [first, first + rows) for gradient[rows, in] of
 * the loss by their weights, on the calling thread; codes[out, in] are the linear's. */
void mq_student_step_rows(mq_student *student, size_t layer, mq_linear linear, size_t first,
                          size_t rows, const float *gradient, const uint8_t *codes,
                          const mq_adam *adam);
/* The same of all rows, gradient[out, in]. */
void mq_student_step_pairs(mq_student *student, size_t layer, mq_linear linear,
                           const float *gradient, const uint8_t *codes, const mq_adam *adam);
void mq_student_step_norm(mq_student_norm *norm, const float *gradient, const mq_adam *adam);

#endif
