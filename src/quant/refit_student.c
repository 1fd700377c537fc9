/* The numbers of a width under refit: as a source of weights, and their step. */
#include "quant/refit_student.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "quant/grid.h"
#include "quant/refit_kernels.h"
#include "tensor/dtype.h"

/* --- what there is ---------------------------------------------------------------------------- */

static void carve_pairs(mq_student_pairs *pairs, mq_slab *slab) {
    const size_t row = pairs->groups * sizeof(float);
    pairs->scale = mq_carve(slab, pairs->out, row);
    pairs->middle = mq_carve(slab, pairs->out, row);
    pairs->m = mq_carve(slab, pairs->out, 2 * row);
    pairs->v = mq_carve(slab, pairs->out, 2 * row);
    pairs->best_scale = mq_carve(slab, pairs->out, pairs->groups * sizeof(uint16_t));
    pairs->best_bias = mq_carve(slab, pairs->out, pairs->groups * sizeof(uint16_t));
}

static void carve_norm(mq_student_norm *norm, size_t size, mq_slab *slab) {
    *norm = (mq_student_norm){.size = size};
    norm->value = mq_carve(slab, size, sizeof(float));
    norm->m = mq_carve(slab, size, sizeof(float));
    norm->v = mq_carve(slab, size, sizeof(float));
    norm->best = mq_carve(slab, size, sizeof(float));
}

static void carve_layer(mq_student *student, size_t layer, mq_slab *slab) {
    const mq_refit_setup *setup = student->setup;
    const mq_config *config = &setup->model->config;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        mq_student_pairs pairs = {.groups = setup->selection->groups[layer][i]};
        mq_config_linear_shape(&pairs.out, &pairs.in, config, (mq_linear)i);
        carve_pairs(&pairs, slab);
        if (student->pairs != NULL) {
            student->pairs[layer][i] = pairs;
        }
    }
    for (int i = 0; i < MQ_NORM_COUNT; i++) {
        mq_student_norm norm;
        carve_norm(&norm, mq_config_norm_size(config, (mq_norm)i), slab);
        if (student->norms != NULL) {
            student->norms[layer][i] = norm;
        }
    }
}

void mq_student_carve(mq_student *student, const mq_refit_setup *setup, mq_slab *slab) {
    const mq_config *config = &setup->model->config;
    const size_t layers = config->num_hidden_layers;
    *student = (mq_student){.setup = setup};
    student->pairs = mq_carve(slab, layers, sizeof *student->pairs);
    student->norms = mq_carve(slab, layers, sizeof *student->norms);
    student->name_count = layers * (MQ_LINEAR_COUNT + MQ_NORM_COUNT) + 1;
    student->names = mq_carve(slab, student->name_count, sizeof *student->names);
    for (size_t layer = 0; layer < layers; layer++) {
        carve_layer(student, layer, slab);
    }
    carve_norm(&student->final_norm, config->hidden_size, slab);
}

static int compare_names(const void *a, const void *b) {
    const mq_student_name *left = a, *right = b;
    const int order = strcmp(left->name, right->name);
    return order != 0 ? order : (left->first > right->first) - (left->first < right->first);
}

static mq_status set_dtype(mq_student_norm *norm, const char *name, const mq_student *student,
                           mq_error *err) {
    const mq_tensor_info *info = mq_tensors_find(student->setup->source, name);
    if (info == NULL) {
        return mq_fail_tensor(err, MQ_ERR_INPUT, student->setup->model->folder, name, "is missing");
    }
    norm->dtype = info->dtype;
    return MQ_OK;
}

static mq_student_name *add_name(mq_student *student) {
    mq_student_name *entry = &student->names[student->name_count++];
    *entry = (mq_student_name){.rows = 1, .linear = -1, .norm = -1};
    return entry;
}

static mq_status add_names(mq_student *student, size_t layer, mq_error *err) {
    const mq_config *config = &student->setup->model->config;
    mq_status status = MQ_OK;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        if (student->pairs[layer][i].groups > 0) {
            mq_student_name *entry = add_name(student);
            mq_config_linear_name(entry->name, config, layer, (mq_linear)i, "weight");
            entry->first = mq_config_linear_place(config, (mq_linear)i).first;
            entry->rows = student->pairs[layer][i].out;
            entry->layer = layer;
            entry->linear = i;
        }
    }
    for (int i = 0; status == MQ_OK && i < MQ_NORM_COUNT; i++) {
        if (student->norms[layer][i].size > 0) {
            mq_student_name *entry = add_name(student);
            mq_config_norm_name(entry->name, config, layer, (mq_norm)i);
            entry->layer = layer;
            entry->norm = i;
            status = set_dtype(&student->norms[layer][i], entry->name, student, err);
        }
    }
    return status;
}

/* Rows of codes that reading through the interface of weights holds. */
#define ROWS_AT_ONCE 64

/* --- reading ---------------------------------------------------------------------------------- */

static const mq_student *of(const mq_weights *self) {
    return (const mq_student *)(const void *)self;
}

/* A row of a tensor against those of an entry. */
static int compare_row(const void *a, const void *b) {
    const mq_student_name *row = a, *entry = b;
    const int order = strcmp(row->name, entry->name);
    return order != 0                                 ? order
           : row->first < entry->first                ? -1
           : row->first >= entry->first + entry->rows ? 1
                                                      : 0;
}

/* NULL: the student has no numbers of its own there. */
static const mq_student_name *find(const mq_student *student, const char *name, size_t row) {
    mq_student_name key = {.first = row};
    if (strlen(name) >= sizeof key.name) {
        return NULL;
    }
    memcpy(key.name, name, strlen(name) + 1);
    return bsearch(&key, student->names, student->name_count, sizeof key, compare_row);
}

static float centre_of(unsigned width) { return (float)(1u << (width - 1)) - 0.5f; }

static bool is_symmetric(const mq_student *student) {
    return student->setup->zero_point == MQ_ZERO_SYMMETRIC;
}

/* A pair as it is stored: the bias makes up for the rounding of its scale at the centre, unless it
 * has to follow it. */
static void round_pair(uint16_t *scale, uint16_t *bias, float exact_scale, float middle,
                       const mq_student *student) {
    const unsigned width = student->width;
    if (is_symmetric(student)) {
        mq_symmetric_pair(scale, bias, (double)exact_scale, width);
        return;
    }
    *scale = mq_f32_to_f16(exact_scale);
    *bias = mq_f32_to_f16(middle - mq_f16_to_f32(*scale) * centre_of(width));
}

/* A row of weights out of its codes, or these rounded to bfloat16: one of the two is NULL. */
static void make_row(float *values, mq_bf16 *rounded, const uint8_t *codes,
                     const mq_student *student, const mq_student_pairs *pairs, size_t row) {
    const mq_refit_kernels *kernels = mq_refit_kernels_best();
    const size_t count = pairs->in / pairs->groups;
    for (size_t g = 0; g < pairs->groups; g++) {
        const float middle = pairs->middle[row * pairs->groups + g];
        float scale = pairs->scale[row * pairs->groups + g];
        float bias = middle - scale * centre_of(student->width);
        if (student->rounded) {
            uint16_t stored_scale, stored_bias;
            round_pair(&stored_scale, &stored_bias, scale, middle, student);
            scale = mq_f16_to_f32(stored_scale);
            bias = mq_f16_to_f32(stored_bias);
        }
        kernels->weights(values ? values + g * count : NULL, rounded ? rounded + g * count : NULL,
                         codes + g * count, count, scale, bias, student->width,
                         student->setup->slice_rule);
    }
}

/* What the source's tensor would hold, from the multiplier. */
static void stored_norm(float *out, const mq_student_norm *norm, bool plus_one) {
    for (size_t i = 0; i < norm->size; i++) {
        const float value = plus_one ? norm->value[i] - 1.0f : norm->value[i];
        unsigned char bytes[sizeof(float)];
        mq_from_f32(bytes, norm->dtype, &value, 1);
        mq_to_f32(&out[i], bytes, norm->dtype, 1);
    }
}

static void read_norm(float *out, const mq_student *student, const mq_student_norm *norm) {
    const bool plus_one = student->setup->model->config.arch->norm_plus_one;
    if (student->rounded) {
        stored_norm(out, norm, plus_one);
        return;
    }
    for (size_t i = 0; i < norm->size; i++) {
        out[i] = plus_one ? norm->value[i] - 1.0f : norm->value[i];
    }
}

static const mq_student_norm *norm_of(const mq_student *student, const mq_student_name *entry) {
    return entry->layer < student->setup->selection->layers
               ? &student->norms[entry->layer][entry->norm]
               : &student->final_norm;
}

static bool student_has(const mq_weights *self, const char *name) {
    const mq_weights *teacher = of(self)->setup->model->weights;
    return teacher->class_->has(teacher, name);
}

static mq_status student_shape(size_t *rows, size_t *columns, const mq_weights *self,
                               const char *name, mq_error *err) {
    const mq_weights *teacher = of(self)->setup->model->weights;
    return teacher->class_->shape(rows, columns, teacher, name, err);
}

/* Rows of one linear at a time, as the blocks' loading reads them. */
static mq_status student_read(float *out, const mq_weights *self, const char *name, size_t first,
                              size_t count, mq_error *err) {
    const mq_student *student = of(self);
    const mq_student_name *entry = find(student, name, first);
    if (entry == NULL) {
        const mq_weights *own = student->setup->embeddings[student->width];
        const mq_weights *others = own != NULL ? own : student->setup->model->weights;
        return others->class_->read(out, others, name, first, count, err);
    }
    if (entry->linear < 0) {
        read_norm(out, student, norm_of(student, entry));
        return MQ_OK;
    }
    const mq_student_pairs *pairs = &student->pairs[entry->layer][entry->linear];
    first -= entry->first; /* the linear's own rows */
    uint8_t *codes = NULL;
    mq_status status = mq_new(&codes, ROWS_AT_ONCE, pairs->in, "codes", err);
    for (size_t done = 0; status == MQ_OK && done < count; done += ROWS_AT_ONCE) {
        const size_t rows = count - done < ROWS_AT_ONCE ? count - done : ROWS_AT_ONCE;
        status = student->store->codes(student->store->user, codes, entry->layer,
                                       (mq_linear)entry->linear, first + done, rows, err);
        for (size_t i = 0; status == MQ_OK && i < rows; i++) {
            make_row(out + (done + i) * pairs->in, NULL, codes + i * pairs->in, student, pairs,
                     first + done + i);
        }
    }
    mq_free(codes);
    return status;
}

static const char *student_where(const mq_weights *self, const char *name) {
    const mq_weights *teacher = of(self)->setup->model->weights;
    return teacher->class_->where(teacher, name);
}

size_t mq_student_read_memory(const mq_config *config) {
    size_t widest = 0;
    for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)i);
        widest = in > widest ? in : widest;
    }
    return ROWS_AT_ONCE * widest; /* a slab's carving has refused what does not fit in size_t */
}

static const mq_weights_class student_class = {student_has,   student_shape, student_read,
                                               student_where, NULL,          NULL};

mq_status mq_student_open(mq_student *student, const mq_refit_setup *setup, mq_error *err) {
    const size_t layers = setup->selection->layers;
    student->name_count = 0;
    mq_status status = MQ_OK;
    for (size_t layer = 0; status == MQ_OK && layer < layers; layer++) {
        status = add_names(student, layer, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    const char *final_norm = mq_config_layout(&setup->model->config)->final_norm;
    mq_student_name *entry = add_name(student);
    memcpy(entry->name, final_norm, strlen(final_norm) + 1);
    entry->layer = layers;
    entry->norm = 0;
    status = set_dtype(&student->final_norm, entry->name, student, err);
    qsort(student->names, student->name_count, sizeof *student->names, compare_names);
    student->weights.class_ = &student_class;
    student->model = *setup->model;
    student->model.weights = &student->weights;
    return status;
}

/* A linear's codes, and its weights out of them, or these rounded, as for make_row. Reading takes
 * as long as the rest, so threads share it, too. */
static mq_status load_linear(float *weights, mq_bf16 *rounded, uint8_t *codes,
                             const mq_student *student, size_t layer, mq_linear linear,
                             mq_error *err) {
    const mq_refit_store *store = student->store;
    const mq_student_pairs *pairs = &student->pairs[layer][linear];
    const size_t in = pairs->in;
    mq_first_error failed = {.status = MQ_OK};
#pragma omp parallel for schedule(static)
    for (size_t first = 0; first < pairs->out; first += ROWS_AT_ONCE) {
        const size_t rows = pairs->out - first < ROWS_AT_ONCE ? pairs->out - first : ROWS_AT_ONCE;
        mq_error own = {0};
        const mq_status read =
            store->codes(store->user, codes + first * in, layer, linear, first, rows, &own);
        for (size_t row = first; read == MQ_OK && row < first + rows; row++) {
            make_row(weights ? weights + row * in : NULL, rounded ? rounded + row * in : NULL,
                     codes + row * in, student, pairs, row);
        }
        mq_first_error_note(&failed, first, read, &own);
    }
    return mq_first_error_take(&failed, err);
}

mq_status mq_student_load(mq_block_params *params, bool bf16, uint8_t *const codes[MQ_LINEAR_COUNT],
                          const mq_student *student, size_t layer, mq_error *err) {
    bool skip[MQ_LINEAR_COUNT];
    mq_status status = MQ_OK;
    for (int i = 0; status == MQ_OK && i < MQ_LINEAR_COUNT; i++) {
        skip[i] = student->pairs[layer][i].groups > 0;
        if (skip[i]) {
            status = load_linear(bf16 ? NULL : params->linear[i], bf16 ? params->rounded[i] : NULL,
                                 codes[i], student, layer, (mq_linear)i, err);
        }
    }
    if (status == MQ_OK) {
        status = mq_block_params_load_rest(params, &student->model, layer, skip, err);
    }
    if (status == MQ_OK && bf16) {
        mq_block_params_round(params, &student->model.config, skip);
    }
    return status;
}

/* --- start, step, end ------------------------------------------------------------------------- */

static mq_status start_pairs(mq_student *student, size_t layer, mq_linear linear, mq_error *err) {
    mq_student_pairs *pairs = &student->pairs[layer][linear];
    const mq_status status =
        student->store->pairs(student->store->user, pairs->best_scale, pairs->best_bias, layer,
                              linear, student->width, err);
    if (status != MQ_OK) {
        return status;
    }
    const size_t groups = pairs->out * pairs->groups;
    for (size_t g = 0; g < groups; g++) {
        pairs->scale[g] = mq_f16_to_f32(pairs->best_scale[g]);
        pairs->middle[g] =
            mq_f16_to_f32(pairs->best_bias[g]) + pairs->scale[g] * centre_of(student->width);
    }
    memset(pairs->m, 0, 2 * groups * sizeof(float));
    memset(pairs->v, 0, 2 * groups * sizeof(float));
    return MQ_OK;
}

static mq_status start_norm(mq_student_norm *norm, const mq_student *student, const char *name,
                            mq_error *err) {
    const mq_model *teacher = student->setup->model;
    const mq_status status =
        teacher->weights->class_->read(norm->best, teacher->weights, name, 0, 1, err);
    if (status != MQ_OK) {
        return mq_error_in_file(err, status, teacher->folder);
    }
    double squares = 0.0;
    for (size_t i = 0; i < norm->size; i++) {
        norm->value[i] = norm->best[i] + (teacher->config.arch->norm_plus_one ? 1.0f : 0.0f);
        squares += (double)norm->value[i] * (double)norm->value[i];
    }
    norm->unit = (float)sqrt(squares / (double)norm->size);
    memset(norm->m, 0, norm->size * sizeof(float));
    memset(norm->v, 0, norm->size * sizeof(float));
    return MQ_OK;
}

mq_status mq_student_start(mq_student *student, unsigned width, const mq_refit_store *store,
                           mq_error *err) {
    student->width = width;
    student->store = store;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < student->name_count; i++) {
        const mq_student_name *entry = &student->names[i];
        if (entry->linear >= 0) {
            status = start_pairs(student, entry->layer, (mq_linear)entry->linear, err);
        } else {
            mq_student_norm *norm = entry->layer < student->setup->selection->layers
                                        ? &student->norms[entry->layer][entry->norm]
                                        : &student->final_norm;
            status = start_norm(norm, student, entry->name, err);
        }
    }
    return status;
}

void mq_student_step_rows(mq_student *student, size_t layer, mq_linear linear, size_t first,
                          size_t rows, const float *gradient, const uint8_t *codes,
                          const mq_adam *adam) {
    mq_student_pairs *pairs = &student->pairs[layer][linear];
    const size_t count = pairs->in / pairs->groups;
    const unsigned width = student->width;
    const float half = (float)(1u << (width - 1)); /* steps in half the range */
    const mq_slice_rule rule = student->setup->slice_rule;
    const bool symmetric = is_symmetric(student);
    const mq_refit_kernels *kernels = mq_refit_kernels_best();
    for (size_t i = 0; i < rows * pairs->groups; i++) {
        const size_t g = first * pairs->groups + i;
        float sum, sum_s;
        kernels->sums(&sum, &sum_s, gradient + i * count, codes + g * count, count,
                      centre_of(width), width, rule);
        const float scale = pairs->scale[g], unit = fabsf(scale) * half;
        float *m = pairs->m + 2 * g, *v = pairs->v + 2 * g;
        if (symmetric) { /* a weight is scale·(s - centre - ½) */
            const float by_log = scale * (sum_s - 0.5f * sum);
            const float step = mq_adam_update(&m[0], &v[0], adam, adam->rate_group, 0.0f, by_log);
            pairs->scale[g] = scale * expf(step);
            pairs->middle[g] = -0.5f * pairs->scale[g];
            continue;
        }
        const float log_step =
            mq_adam_update(&m[0], &v[0], adam, adam->rate_group, 0.0f, scale * sum_s);
        const float middle_step =
            mq_adam_update(&m[1], &v[1], adam, adam->rate_group, 0.0f, unit * sum);
        pairs->scale[g] = scale * expf(log_step);
        pairs->middle[g] += unit * middle_step;
    }
}

void mq_student_step_pairs(mq_student *student, size_t layer, mq_linear linear,
                           const float *gradient, const uint8_t *codes, const mq_adam *adam) {
    const mq_student_pairs *pairs = &student->pairs[layer][linear];
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < pairs->out; row++) {
        mq_student_step_rows(student, layer, linear, row, 1, gradient + row * pairs->in, codes,
                             adam);
    }
}

void mq_student_step_norm(mq_student_norm *norm, const float *gradient, const mq_adam *adam) {
    for (size_t i = 0; i < norm->size; i++) {
        norm->value[i] =
            mq_adam_update(&norm->m[i], &norm->v[i], adam, adam->rate_group * norm->unit,
                           norm->value[i], gradient[i] * norm->unit);
    }
}

static void keep_pairs(mq_student_pairs *pairs, const mq_student *student) {
#pragma omp parallel for schedule(static)
    for (size_t g = 0; g < pairs->out * pairs->groups; g++) {
        round_pair(&pairs->best_scale[g], &pairs->best_bias[g], pairs->scale[g], pairs->middle[g],
                   student);
    }
}

void mq_student_keep(mq_student *student) {
    const bool plus_one = student->setup->model->config.arch->norm_plus_one;
    for (size_t layer = 0; layer < student->setup->selection->layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            keep_pairs(&student->pairs[layer][i], student);
        }
        for (int i = 0; i < MQ_NORM_COUNT; i++) {
            mq_student_norm *norm = &student->norms[layer][i];
            stored_norm(norm->best, norm, plus_one);
        }
    }
    stored_norm(student->final_norm.best, &student->final_norm, plus_one);
}

mq_status mq_student_put_pairs(const mq_student *student, mq_error *err) {
    const mq_refit_store *store = student->store;
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < student->name_count; i++) {
        const mq_student_name *entry = &student->names[i];
        if (entry->linear >= 0) {
            const mq_student_pairs *pairs = &student->pairs[entry->layer][entry->linear];
            status = store->put_pairs(store->user, entry->layer, (mq_linear)entry->linear,
                                      student->width, pairs->best_scale, pairs->best_bias, err);
        }
    }
    return status;
}

mq_status mq_student_put(const mq_student *student, mq_error *err) {
    const mq_refit_store *store = student->store;
    mq_status status = mq_student_put_pairs(student, err);
    for (size_t i = 0; status == MQ_OK && i < student->name_count; i++) {
        const mq_student_name *entry = &student->names[i];
        if (entry->norm >= 0) {
            const mq_student_norm *norm = norm_of(student, entry);
            status = store->put_norm(store->user, entry->name, student->width, norm->best,
                                     norm->size, err);
        }
    }
    return status;
}
