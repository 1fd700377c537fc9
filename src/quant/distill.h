/* What the stages that train end to end have in common (docs/method.md, 4): students, each the
 * model at one width, and their teacher, full precision, through the whole model. Forward keeps
 * what enters each block and the inside of the last ones, as many as fit into setup.kept_bytes
 * (with several students: of one block only); backward goes block by block and
 * makes the inside of the others again. Private to src/quant. */
#ifndef MQ_QUANT_DISTILL_H
#define MQ_QUANT_DISTILL_H

#include "model/head_gradient.h"
#include "quant/refit_student.h"

/* What is inside a block between forward and backward. */
typedef struct mq_distill_inside {
    mq_activations *activations;
    size_t student, layer; /* whose they are */
} mq_distill_inside;

typedef struct mq_distill {
    mq_refit_setup setup;
    const mq_context *context;
    size_t batch;    /* sequences a step */
    size_t students; /* that are under way at once, at most MQ_MAX_WIDTHS */
    double epsilon;  /* of Adam on their numbers */
    double started;  /* mq_seconds of the opening, for progress */

    float *teacher_hidden; /* [train + validation, length, hidden_size]: of the last block */
    float *hidden;         /* [validation, length, hidden_size]: a student's */
    float *kl;             /* [the larger of validation and batch, length] */
    float *boundary;       /* [students, layers + 1, batch·length, hidden_size]: what enters each
                              block */
    float *gradient[MQ_MAX_WIDTHS + 1]; /* [batch·length, hidden_size] for each student, and a spare
                                           one */
    mq_block_params params;             /* of the block that is being worked on */
    uint8_t *codes[MQ_LINEAR_COUNT];    /* of that block */
    float *final_norm;                  /* [hidden_size]: gradient */
    float *stored_norm;                 /* [hidden_size]: a student's final norm as it is stored */
    mq_distill_inside *inside;          /* [inside_count] */
    size_t inside_count;
    size_t loaded_student, loaded_layer; /* whose params and codes are */
    mq_head_gradient *head;
    mq_rotations rotations;
    size_t *order;  /* [train]: sequences in the order of the epoch */
    int32_t *ids;   /* [batch, length]: of the step */
    float *targets; /* [batch·length, hidden_size]: the teacher's of them */
} mq_distill;

/* Sets up the struct; setup is copied, what it points at must stay. */
mq_distill mq_distill_for(const mq_refit_setup *setup, size_t students, const mq_context *context);
void mq_distill_carve(mq_distill *distill, mq_slab *slab);
/* Whether all students' products are of bfloat16 operands, so that quantized linears have no
 * float32 weights. */
bool mq_distill_rounds_all(const mq_refit_setup *setup);
/* Bytes beside what is carved: those of the passes in which nothing is trained. */
size_t mq_distill_beside(const mq_refit_setup *setup, const mq_context *context);
/* Makes setup's gemm, if it has one, ready for all products. */
mq_status mq_distill_prepare(const mq_refit_setup *setup, mq_error *err);

/* After carving on the real slab: runs the full-precision model over all sequences that are read,
 * with setup's gemm over those that only narrow widths are trained or measured on. */
mq_status mq_distill_teach(mq_distill *distill, mq_error *err);

/* What measuring a width takes, in steps of training, for progress: a sequence is one of the four
 * passes that training on it is (forward to the boundaries, forward again inside the blocks, and
 * backward, which is two). Never 0: while the last step is done and the last measuring is not, the
 * job is not. */
size_t mq_distill_measuring_work(const mq_distill *distill, unsigned width);

/* Mean KL(full precision ‖ student) of the width's validation sequences, nats a token, with the
 * student's numbers as they would be stored. Products are float32, but for those of narrow widths
 * with setup's gemm where codes stand still. */
mq_status mq_distill_measure(double *kl, mq_distill *distill, mq_student *student, mq_error *err);

/* Adam at a step: the cosine of mq_adam_at after MQ_REFIT_WARMUP steps. */
mq_adam mq_distill_adam(const mq_distill *distill, double rate, double rate_rounding, size_t step,
                        size_t steps);

/* The sequences from `first` on in the order of the epoch become those of the step. */
void mq_distill_gather(mq_distill *distill, size_t first);

/* Student number `index` forward through the step's sequences: kl[batch·length] of their tokens,
 * gradient[index] of the mean by what leaves the last block, and final_norm by the final norm. */
mq_status mq_distill_forward(mq_distill *distill, const mq_student *student, size_t index,
                             mq_error *err);

/* Then, from the last block to the first: its gradients into grads, where input is set here, and
 * gradient[index] becomes that by what enters it; codes are the block's. The student's numbers of
 * blocks before this one, and its codes, are as they were in mq_distill_forward. */
mq_status mq_distill_backward(mq_block_grads *grads, mq_distill *distill, const mq_student *student,
                              size_t index, size_t layer, mq_error *err);

/* Where a block's gradients go: everything that can be trained end to end. */
mq_block_grads mq_distill_grads(const mq_distill *distill, const mq_block_params *to, size_t layer);

#endif
