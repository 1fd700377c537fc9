/* Students and their teacher through the whole model, and back. */
#include "quant/distill.h"

#include <string.h>

#define NOWHERE SIZE_MAX

/* --- memory ----------------------------------------------------------------------------------- */

bool mq_distill_rounds_all(const mq_refit_setup *setup) {
    return setup->gemm != NULL && !setup->codes_move;
}

static void carve_block(mq_distill *distill, mq_slab *slab) {
    const mq_config *config = &distill->setup.model->config;
    const mq_selection *selection = distill->setup.selection;
    mq_block_params_carve_rest(&distill->params, slab, config);
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        if (!mq_distill_rounds_all(&distill->setup) ||
            mq_selection_keeps(selection, selection->layers, i)) {
            distill->params.linear[i] = mq_carve(slab, out, in * sizeof(float));
        }
        distill->codes[i] = mq_carve(slab, out, in);
    }
    if (distill->setup.gemm != NULL) {
        mq_block_params_carve_rounded(&distill->params, slab, config, NULL);
    }
    mq_rotations_carve(&distill->rotations, slab, config, distill->setup.length);
}

static void carve_inside(mq_distill *distill, mq_slab *slab) {
    const mq_config *config = &distill->setup.model->config;
    const bool rounds = distill->setup.gemm != NULL;
    const mq_activations_use use = {
        .config = config,
        .sequences = distill->batch,
        .length = distill->setup.length,
        .f32 = mq_distill_rounds_all(&distill->setup) ? MQ_PASS_NONE : MQ_PASS_BACKWARD,
        .bf16 = rounds ? MQ_PASS_BACKWARD : MQ_PASS_NONE,
        .gemm = distill->setup.gemm};
    mq_slab one = {0};
    mq_activations_carve_beside(&one, NULL, &use, distill->context);
    if (one.overflow) {
        slab->overflow = true;
        return;
    }
    const size_t most = distill->students == 1 ? config->num_hidden_layers : 1;
    const size_t kept = distill->setup.kept_bytes / one.used;
    distill->inside_count = kept < most ? (kept > 0 ? kept : 1) : most;
    distill->inside = mq_carve(slab, distill->inside_count, sizeof *distill->inside);
    mq_activations *first = mq_activations_carve(slab, &use, distill->context);
    for (size_t i = 0; i < distill->inside_count; i++) {
        mq_activations *own =
            i == 0 ? first : mq_activations_carve_beside(slab, first, &use, distill->context);
        if (distill->inside != NULL) {
            distill->inside[i] = (mq_distill_inside){own, NOWHERE, NOWHERE};
        }
    }
}

void mq_distill_carve(mq_distill *distill, mq_slab *slab) {
    const mq_refit_setup *setup = &distill->setup;
    const mq_config *config = &setup->model->config;
    const size_t row = config->hidden_size * sizeof(float);
    size_t all, measured, step, boundaries;
    if (!mq_mul_size(&all, setup->train + setup->validation, setup->length) ||
        !mq_mul_size(&measured, setup->validation, setup->length) ||
        !mq_mul_size(&step, distill->batch, setup->length) ||
        !mq_mul_size(&boundaries, step, (config->num_hidden_layers + 1) * distill->students)) {
        slab->overflow = true;
        return;
    }
    distill->teacher_hidden = mq_carve(slab, all, row);
    distill->hidden = mq_carve(slab, measured, row);
    distill->kl = mq_carve(slab, measured > step ? measured : step, sizeof(float));
    distill->boundary = mq_carve(slab, boundaries, row);
    for (size_t i = 0; i <= distill->students; i++) {
        distill->gradient[i] = mq_carve(slab, step, row);
    }
    distill->targets = mq_carve(slab, step, row);
    distill->ids = mq_carve(slab, step, sizeof(int32_t));
    distill->order = mq_carve(slab, setup->train, sizeof(size_t));
    distill->final_norm = mq_carve(slab, 1, row);
    distill->stored_norm = mq_carve(slab, 1, row);
    carve_block(distill, slab);
    carve_inside(distill, slab);
    distill->head = mq_head_gradient_carve(slab, config, step, setup->gemm, distill->context);
}

size_t mq_refit_batch(const mq_refit_setup *setup) {
    return setup->batch < setup->train ? setup->batch : setup->train;
}

/* The narrower a width, the more it gains from more text (SmolLM2, tests/bench/RESULTS.md, "The
 * refit": KL of int8 0.0053 to 0.0051, of int4 0.088 to 0.079, of int2 1.15 to 0.69), and a step of
 * each costs the same: where there is plenty, 2 bits get all of it, 3 to 5 bits a half, wider ones
 * a sixteenth. Whole steps only. Those are the last: of text that was read, what blocks have not
 * learned from; where the model has written some, what was read (job/job.h). */
size_t mq_refit_share(const mq_refit_setup *setup, unsigned width) {
    const bool wide = mq_refit_is_wide(width);
    const size_t part = width <= 2 ? 1 : wide ? 16 : 2;
    const size_t least = wide ? setup->least / 4 : setup->least;
    size_t share = setup->train / part > least ? setup->train / part : least;
    share = share < setup->train ? share : setup->train;
    const size_t batch = mq_refit_batch(setup), steps = share / batch;
    return batch * (steps > 1 ? steps : 1);
}

/* Of wide widths a token says more, before and after being nearly the same, and costs more, since
 * they are measured with float32 products. */
size_t mq_refit_measured(const mq_refit_setup *setup, unsigned width) {
    enum { PART = 4, LEAST = 8 };
    if (setup->codes_move || !mq_refit_is_wide(width)) {
        return setup->validation;
    }
    return mq_smaller(mq_larger(setup->validation / PART, LEAST), setup->validation);
}

size_t mq_distill_measuring_work(const mq_distill *distill, unsigned width) {
    const size_t work = mq_refit_measured(&distill->setup, width) / (4 * distill->batch);
    return work > 0 ? work : 1;
}

/* The largest share of train that any refitted width has, or any wide one (0: there is none). */
static size_t largest_share(const mq_refit_setup *setup, bool only_wide) {
    size_t most = 0;
    for (size_t i = 0; i < setup->width_count; i++) {
        if (!only_wide || mq_refit_is_wide(setup->widths[i])) {
            most = mq_larger(most, mq_refit_share(setup, setup->widths[i]));
        }
    }
    if (setup->width_count == 0) {
        most = only_wide ? mq_refit_share(setup, MQ_MAX_WIDTH) : setup->train;
    }
    return most;
}

/* Sequences at the start of train that no width trains on: they get no targets. */
static size_t unread(const mq_refit_setup *setup) {
    return setup->train - largest_share(setup, false);
}

/* What a width is measured with, through the blocks and at the head; NULL: float32. A narrow one as
 * it is trained: before and after are off by the same rounding, which is little beside what the
 * width itself is off by (tests/bench/RESULTS.md, "Products of bfloat16"), and it takes half the
 * time. */
static const mq_gemm_bf16 *measuring_gemm(const mq_refit_setup *setup, unsigned width) {
    return setup->codes_move || mq_refit_is_wide(width) ? NULL : setup->gemm;
}

/* --- passes in which nothing is trained ------------------------------------------------------- */

/* Full precision's, over some of the sequences of train and validation. Like those that follow it
 * has no ids: memory is predicted before there are any. */
typedef struct teaching {
    size_t first; /* sequence */
    mq_forward_run run;
} teaching;

enum { TEACHINGS = 3 };

static teaching teaching_of(const mq_refit_setup *setup, size_t first, size_t end, bool rounds) {
    return (teaching){first,
                      {.model = setup->model,
                       .sequences = end - first,
                       .length = setup->length,
                       .batch = setup->pass_batch,
                       .gemm = rounds ? setup->gemm : NULL,
                       .phase = rounds ? "full precision, bfloat16" : "full precision"}};
}

/* All that are read. Float32 are the targets in the middle: the last of train and the first of the
 * validation, which wide widths are trained and measured on. For narrow ones a target's rounding is
 * little beside what they are off by (KL of all three is the same, tests/bench/RESULTS.md), and
 * full precision's pass takes a third of the time. Without such products, and where codes move, all
 * are in the middle. */
static void plan_teaching(teaching out[TEACHINGS], const mq_refit_setup *setup) {
    const size_t begin = unread(setup), end = setup->train + setup->validation;
    size_t exact = begin, rounded = end; /* where the middle begins, and where it has ended */
    if (mq_distill_rounds_all(setup)) {
        const size_t wide = largest_share(setup, true);
        exact = setup->train - wide;
        rounded = setup->train + (wide > 0 ? mq_refit_measured(setup, MQ_MAX_WIDTH) : 0);
    }
    out[0] = teaching_of(setup, begin, exact, true);
    out[1] = teaching_of(setup, exact, rounded, false);
    out[2] = teaching_of(setup, rounded, end, true);
}

/* A student's, over so many sequences of the validation; gemm: its measuring_gemm. */
static mq_forward_run measuring_run(const mq_refit_setup *setup, const mq_model *model,
                                    size_t measured, const mq_gemm_bf16 *gemm) {
    return (mq_forward_run){.model = model,
                            .sequences = measured,
                            .length = setup->length,
                            .batch = setup->pass_batch,
                            .gemm = gemm,
                            .phase = "measure"};
}

mq_distill mq_distill_for(const mq_refit_setup *setup, size_t students, const mq_context *context) {
    return (mq_distill){.setup = *setup,
                        .context = context,
                        .batch = mq_refit_batch(setup),
                        .students = students,
                        .epsilon = mq_refit_epsilon(setup),
                        .loaded_layer = NOWHERE};
}

mq_adam mq_distill_adam(const mq_distill *distill, double rate, double rate_rounding, size_t step,
                        size_t steps) {
    mq_adam adam = mq_adam_at(MQ_ADAM_BETA1, distill->epsilon, rate, rate_rounding, step, steps);
    if (step < MQ_REFIT_WARMUP) {
        adam.rate_group *= (float)(step + 1) / (float)MQ_REFIT_WARMUP;
        adam.rate_rounding *= (float)(step + 1) / (float)MQ_REFIT_WARMUP;
    }
    return adam;
}

mq_status mq_distill_prepare(const mq_refit_setup *setup, mq_error *err) {
    if (setup->gemm == NULL) {
        return MQ_OK;
    }
    const mq_config *config = &setup->model->config;
    const size_t batch = mq_refit_batch(setup), rest = setup->validation % batch;
    mq_status status = mq_block_prepare(setup->gemm, config, batch, setup->length, true, err);
    teaching parts[TEACHINGS];
    plan_teaching(parts, setup);
    for (size_t i = 0; status == MQ_OK && i < TEACHINGS; i++) {
        if (parts[i].run.gemm != NULL) {
            status = mq_model_forward_prepare(setup->gemm, &parts[i].run, err);
        }
    }
    const mq_gemm_bf16 *narrow = measuring_gemm(setup, MQ_MIN_WIDTH);
    if (status == MQ_OK && narrow != NULL) {
        const mq_forward_run run = measuring_run(setup, setup->model, setup->validation, narrow);
        status = mq_model_forward_prepare(setup->gemm, &run, err);
    }
    if (status == MQ_OK) {
        status = mq_head_gradient_prepare(setup->gemm, config, batch * setup->length, err);
    }
    if (status == MQ_OK && rest > 0) { /* the last that are measured */
        status = mq_head_gradient_prepare(setup->gemm, config, rest * setup->length, err);
    }
    return status;
}

/* Full precision's pass over all sequences that are read, a student's over those of the validation,
 * with either kind of products, and their head. */
size_t mq_distill_beside(const mq_refit_setup *setup, const mq_context *context) {
    const mq_config *config = &setup->model->config;
    teaching parts[TEACHINGS];
    plan_teaching(parts, setup);
    size_t full = 0;
    for (size_t i = 0; i < TEACHINGS; i++) {
        if (parts[i].run.sequences > 0) {
            full = mq_larger(full, mq_model_forward_memory(&parts[i].run, context));
        }
    }
    const mq_forward_run wide = measuring_run(setup, setup->model, setup->validation, NULL);
    const mq_forward_run narrow =
        measuring_run(setup, setup->model, setup->validation, measuring_gemm(setup, MQ_MIN_WIDTH));
    const size_t student = mq_larger(mq_model_forward_memory(&wide, context),
                                     mq_model_forward_memory(&narrow, context));
    const size_t measured = mq_sum_capped(student, mq_student_read_memory(config));
    const size_t head = mq_head_memory(config, setup->validation * setup->length);
    return mq_larger(full, mq_larger(measured, head));
}

mq_status mq_distill_teach(mq_distill *distill, mq_error *err) {
    const mq_refit_setup *setup = &distill->setup;
    const mq_config *config = &setup->model->config;
    mq_rotations_fill(&distill->rotations, config, setup->length);
    teaching parts[TEACHINGS];
    plan_teaching(parts, setup);
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < TEACHINGS; i++) {
        const size_t first = parts[i].first * setup->length;
        parts[i].run.ids = setup->ids + first;
        status = mq_model_forward(distill->teacher_hidden + first * config->hidden_size,
                                  &parts[i].run, distill->context, err);
    }
    distill->started = mq_seconds();
    return status;
}

/* The head that makes a student's logits: the same model's as full precision's where it is the same
 * head, which is read once for both then. */
static const mq_model *head_of(const mq_distill *distill, const mq_student *student) {
    const bool own = distill->setup.embeddings[student->width] != NULL;
    return own ? &student->model : distill->setup.model;
}

/* --- measuring -------------------------------------------------------------------------------- */

/* kl[tokens] of hidden states and those of full precision, as in a step: of a step's tokens at a
 * time. */
static mq_status measure_narrow(mq_distill *distill, const mq_student *student,
                                const float *targets, size_t tokens, mq_error *err) {
    const mq_config *config = &distill->setup.model->config;
    const size_t step = distill->batch * distill->setup.length, width = config->hidden_size;
    mq_status status = mq_model_norm(distill->stored_norm, &student->model,
                                     mq_config_layout(config)->final_norm, width, err);
    for (size_t first = 0; status == MQ_OK && first < tokens; first += step) {
        const mq_head_kl of = {
            .model = {head_of(distill, student), distill->hidden + first * width},
            .reference = {distill->setup.model, targets + first * width},
            .norm = distill->stored_norm,
            .count = mq_smaller(step, tokens - first),
            .bf16 = true,
            .kl = distill->kl + first};
        status = mq_head_kl_gradient(&of, distill->head, err);
    }
    return status;
}

static mq_status measure_wide(mq_distill *distill, const mq_student *student, const float *targets,
                              size_t tokens, const mq_context *context, mq_error *err) {
    const mq_head_side mine = {&student->model, distill->hidden};
    const mq_head_side teachers = {distill->setup.model, targets};
    const mq_head_scores scores = {.kl = distill->kl};
    return mq_head_score(&scores, &mine, &teachers, NULL, tokens, context, err);
}

mq_status mq_distill_measure(double *kl, mq_distill *distill, mq_student *student, mq_error *err) {
    const mq_refit_setup *setup = &distill->setup;
    const mq_gemm_bf16 *gemm = measuring_gemm(setup, student->width);
    const size_t measured = mq_refit_measured(setup, student->width);
    const size_t at = setup->train * setup->length, tokens = measured * setup->length;
    const float *targets = distill->teacher_hidden + at * setup->model->config.hidden_size;
    const mq_context quiet = mq_context_inner(distill->context, NULL);
    mq_forward_run run = measuring_run(setup, &student->model, measured, gemm);
    run.ids = setup->ids + at;
    student->rounded = true;
    mq_status status = mq_model_forward(distill->hidden, &run, &quiet, err);
    if (status == MQ_OK) {
        status = gemm != NULL ? measure_narrow(distill, student, targets, tokens, err)
                              : measure_wide(distill, student, targets, tokens, &quiet, err);
    }
    student->rounded = false;
    double sum = 0.0;
    for (size_t t = 0; status == MQ_OK && t < tokens; t++) {
        sum += (double)distill->kl[t];
    }
    *kl = sum / (double)tokens;
    return status;
}

/* --- a step ----------------------------------------------------------------------------------- */

void mq_distill_gather(mq_distill *distill, size_t first) {
    const mq_refit_setup *setup = &distill->setup;
    const size_t length = setup->length, row = length * setup->model->config.hidden_size;
    for (size_t i = 0; i < distill->batch; i++) {
        const size_t sequence = distill->order[first + i];
        memcpy(distill->ids + i * length, setup->ids + sequence * length, length * sizeof(int32_t));
        memcpy(distill->targets + i * row, distill->teacher_hidden + sequence * row,
               row * sizeof(float));
    }
}

static mq_block_shape shape_of(const mq_distill *distill, size_t layer) {
    return mq_block_shape_of(&distill->setup.model->config, layer, &distill->rotations,
                             distill->batch, distill->setup.length);
}

static float *boundary_of(const mq_distill *distill, size_t index, size_t layer) {
    const mq_config *config = &distill->setup.model->config;
    return distill->boundary + (index * (config->num_hidden_layers + 1) + layer) * distill->batch *
                                   distill->setup.length * config->hidden_size;
}

/* A wide width's own numbers come out as good with rounded products, as long as its targets are not
 * rounded (int8's KL 0.00548 to 0.00545 with either, tests/bench/RESULTS.md). Of codes that move
 * that has not been tried. */
static bool wants_bf16(const mq_distill *distill, const mq_student *student) {
    return distill->setup.gemm != NULL &&
           (!distill->setup.codes_move || !mq_refit_is_wide(student->width));
}

/* The layer's weights as products want them. */
static mq_block_weights weights_of(const mq_distill *distill, const mq_student *student) {
    return wants_bf16(distill, student) ? mq_block_params_view_bf16(&distill->params)
                                        : mq_block_params_view(&distill->params);
}

static mq_status load(mq_distill *distill, const mq_student *student, size_t index, size_t layer,
                      mq_error *err) {
    mq_status status = mq_check_interrupt(distill->context, err);
    if (status == MQ_OK) {
        status = mq_student_load(&distill->params, wants_bf16(distill, student), distill->codes,
                                 student, layer, err);
    }
    distill->loaded_student = index;
    distill->loaded_layer = status == MQ_OK ? layer : NOWHERE;
    return status;
}

/* The place for a block's inside. Each of the last inside_count blocks has a place of its own. All
 * earlier blocks share the place of the first of these, one after the other: backward is done with
 * that block before it needs the place for them. */
static mq_distill_inside *inside_of(const mq_distill *distill, size_t layer) {
    const size_t from_last = distill->setup.model->config.num_hidden_layers - 1 - layer;
    const size_t last = distill->inside_count - 1;
    return &distill->inside[from_last < last ? from_last : last];
}

/* The layer's numbers have been loaded. */
static void block_forward(mq_distill *distill, const mq_student *student, size_t index,
                          size_t layer) {
    mq_distill_inside *inside = inside_of(distill, layer);
    const mq_block_weights weights = weights_of(distill, student);
    const mq_block_shape shape = shape_of(distill, layer);
    mq_block_forward(boundary_of(distill, index, layer + 1), boundary_of(distill, index, layer),
                     &weights, &shape, inside->activations, distill->context);
    inside->student = index;
    inside->layer = layer;
}

mq_status mq_distill_forward(mq_distill *distill, const mq_student *student, size_t index,
                             mq_error *err) {
    const mq_refit_setup *setup = &distill->setup;
    const size_t layers = setup->model->config.num_hidden_layers;
    const size_t tokens = distill->batch * setup->length;
    mq_status status =
        mq_model_embed(boundary_of(distill, index, 0), &student->model, distill->ids, tokens, err);
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = load(distill, student, index, layer, err);
        if (status == MQ_OK) {
            block_forward(distill, student, index, layer);
        }
    }
    if (status != MQ_OK) {
        return status;
    }
    const mq_head_kl of = {
        .model = {head_of(distill, student), boundary_of(distill, index, layers)},
        .reference = {setup->model, distill->targets},
        .norm = student->final_norm.value,
        .count = tokens,
        .weight = 1.0f / (float)tokens,
        .bf16 = wants_bf16(distill, student),
        .kl = distill->kl,
        .d_hidden = distill->gradient[index],
        .d_norm = distill->final_norm};
    return mq_head_kl_gradient(&of, distill->head, err);
}

mq_block_grads mq_distill_grads(const mq_distill *distill, const mq_block_params *to,
                                size_t layer) {
    mq_block_grads grads = {.input = NULL};
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        const bool quantized = distill->setup.selection->groups[layer][i] > 0;
        grads.linear[i] = quantized ? to->linear[i] : NULL;
    }
    for (int i = 0; i < MQ_NORM_COUNT; i++) {
        grads.norm[i] = to->norm[i];
    }
    return grads;
}

mq_status mq_distill_backward(mq_block_grads *grads, mq_distill *distill, const mq_student *student,
                              size_t index, size_t layer, mq_error *err) {
    /* Of the student that went forward last, the last block's numbers are still there. */
    if (distill->loaded_student != index || distill->loaded_layer != layer) {
        const mq_status status = load(distill, student, index, layer, err);
        if (status != MQ_OK) {
            return status;
        }
    }
    mq_distill_inside *inside = inside_of(distill, layer);
    if (inside->student != index || inside->layer != layer) {
        block_forward(distill, student, index, layer);
    }
    inside->layer = distill->loaded_layer = NOWHERE; /* they are about to change */
    float **mine = &distill->gradient[index], **spare = &distill->gradient[distill->students];
    const mq_block_weights weights = weights_of(distill, student);
    const mq_block_shape shape = shape_of(distill, layer);
    grads->input = layer > 0 ? *spare : NULL;
    mq_block_backward(grads, *mine, boundary_of(distill, index, layer), &weights, &shape,
                      inside->activations, distill->context);
    float *next = *mine;
    *mine = *spare;
    *spare = next;
    return distill->setup.gemm != NULL ? mq_gemm_bf16_check(distill->setup.gemm, err) : MQ_OK;
}
