#include "store/quantized_weights.h"

#include <string.h>

#include "store/names.h"
#include "store/pack.h"

void mq_dequantize_row(float *out, const uint8_t *slices, const float *scales, const float *biases,
                       size_t in, size_t groups) {
    size_t group_size = in / groups;
    for (size_t g = 0; g < groups; g++) {
        float scale = scales[g], bias = biases[g];
        for (size_t i = g * group_size; i < (g + 1) * group_size; i++) {
            out[i] = scale * (float)slices[i] + bias;
        }
    }
}

/* --- one linear layer, from either kind of folder --------------------------------------------- */

typedef struct stored_linear {
    size_t out, in, groups;
    unsigned width;
    const mq_tensor_info *codes;  /* a byte a weight, to be sliced by rule; NULL: */
    const mq_tensor_info *packed; /* slices in MLX's words */
    mq_slice_rule rule;
    const mq_tensor_info *scales, *biases;
} stored_linear;

/* What a row needs on its way; words because the file promises no alignment. */
typedef struct row_scratch {
    uint8_t *slices;
    uint32_t *words;
    float *scales, *biases;
    mq_slab slab;
} row_scratch;

static void carve_scratch(row_scratch *scratch, const stored_linear *linear) {
    scratch->slices = mq_carve(&scratch->slab, linear->in, 1);
    scratch->words = mq_carve(&scratch->slab, linear->packed == NULL ? 0 : linear->packed->shape[1],
                              sizeof *scratch->words);
    scratch->scales = mq_carve(&scratch->slab, linear->groups, sizeof *scratch->scales);
    scratch->biases = mq_carve(&scratch->slab, linear->groups, sizeof *scratch->biases);
}

static void read_slices(row_scratch *scratch, const stored_linear *linear, size_t row) {
    if (linear->codes != NULL) {
        mq_slice_codes(scratch->slices, linear->codes->data + row * linear->in, linear->in,
                       linear->width, linear->rule);
        return;
    }
    size_t bytes = linear->packed->shape[1] * sizeof *scratch->words;
    memcpy(scratch->words, linear->packed->data + row * bytes, bytes);
    mq_unpack_row(scratch->slices, scratch->words, linear->in, linear->width);
}

static mq_status read_rows(float *out, const stored_linear *linear, size_t first, size_t count,
                           mq_error *err) {
    row_scratch scratch = {0};
    carve_scratch(&scratch, linear);
    mq_status status = mq_slab_allocate(&scratch.slab, "a row of weights", err);
    if (status != MQ_OK) {
        return status;
    }
    carve_scratch(&scratch, linear);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        size_t row = first + i;
        status = mq_tensor_read_f32(scratch.scales, linear->scales, row * linear->groups,
                                    linear->groups, err);
        if (status == MQ_OK) {
            status = mq_tensor_read_f32(scratch.biases, linear->biases, row * linear->groups,
                                        linear->groups, err);
        }
        if (status == MQ_OK) {
            read_slices(&scratch, linear, row);
            mq_dequantize_row(out + i * linear->in, scratch.slices, scratch.scales, scratch.biases,
                              linear->in, linear->groups);
        }
    }
    mq_slab_free(&scratch.slab);
    return status;
}

/* --- the class -------------------------------------------------------------------------------- */

typedef struct quantized_weights {
    mq_weights weights;
    const mq_mixture *mixture; /* of a master; one of the two */
    const mq_slice_reader *slice;
    mq_weights *plain; /* for all other tensors */
} quantized_weights;

static const quantized_weights *of(const mq_weights *self) {
    return (const quantized_weights *)(const void *)self;
}

static bool find_linear(stored_linear *out, const quantized_weights *self, const char *name) {
    mq_name parsed = mq_name_parse(name);
    if (parsed.form != MQ_NAME_WEIGHT) {
        return false;
    }
    if (self->mixture != NULL) {
        const mq_master *master = self->mixture->master;
        const mq_master_view *view = mq_master_find(master, parsed.stem);
        if (view != NULL) {
            const unsigned width = mq_mixture_width(self->mixture, view);
            *out = (stored_linear){view->out,
                                   view->in,
                                   view->groups,
                                   width,
                                   view->codes,
                                   NULL,
                                   mq_master_slice_rule(master),
                                   view->scales[width],
                                   view->biases[width]};
        }
        return view != NULL;
    }
    const mq_slice_view *view = mq_slice_reader_find(self->slice, parsed.stem);
    if (view != NULL) {
        *out = (stored_linear){view->out,    view->in,     view->groups, view->width, NULL,
                               view->weight, MQ_SLICE_TOP, view->scales, view->biases};
    }
    return view != NULL;
}

/* The name under which this model's tensor NAME is stored. */
static const char *stored_name(const quantized_weights *self, const char *name) {
    const mq_mixture *mixture = self->mixture;
    const mq_tensor_info *own = mixture == NULL ? NULL : mq_mixture_private(mixture, name);
    return own == NULL ? name : own->name;
}

static bool quantized_has(const mq_weights *self, const char *name) {
    stored_linear linear;
    return find_linear(&linear, of(self), name) ||
           of(self)->plain->class_->has(of(self)->plain, name);
}

static mq_status quantized_shape(size_t *rows, size_t *columns, const mq_weights *self,
                                 const char *name, mq_error *err) {
    stored_linear linear;
    if (find_linear(&linear, of(self), name)) {
        *rows = linear.out;
        *columns = linear.in;
        return MQ_OK;
    }
    const mq_weights *plain = of(self)->plain;
    return plain->class_->shape(rows, columns, plain, stored_name(of(self), name), err);
}

static mq_status quantized_read(float *out, const mq_weights *self, const char *name, size_t first,
                                size_t count, mq_error *err) {
    stored_linear linear;
    if (find_linear(&linear, of(self), name)) {
        return read_rows(out, &linear, first, count, err);
    }
    const mq_weights *plain = of(self)->plain;
    return plain->class_->read(out, plain, stored_name(of(self), name), first, count, err);
}

static const char *quantized_where(const mq_weights *self, const char *name) {
    stored_linear linear;
    if (find_linear(&linear, of(self), name)) {
        return (linear.codes != NULL ? linear.codes : linear.packed)->file;
    }
    const mq_weights *plain = of(self)->plain;
    return plain->class_->where(plain, stored_name(of(self), name));
}

static void quantized_free(mq_weights *self) {
    quantized_weights *weights = (quantized_weights *)(void *)self;
    mq_weights_free(weights->plain);
    mq_free(weights);
}

static const mq_weights_class quantized_class = {quantized_has,   quantized_shape, quantized_read,
                                                 quantized_where, quantized_free,  NULL};

static mq_status make(mq_weights **out, quantized_weights values, const mq_tensors *tensors,
                      mq_error *err) {
    quantized_weights *weights = NULL;
    mq_status status = mq_new(&weights, 1, sizeof *weights, "the weights", err);
    if (status != MQ_OK) {
        return status;
    }
    *weights = values;
    weights->weights.class_ = &quantized_class;
    status = mq_plain_weights(&weights->plain, tensors, err);
    if (status != MQ_OK) {
        mq_free(weights);
        return status;
    }
    *out = &weights->weights;
    return MQ_OK;
}

mq_status mq_master_weights(mq_weights **out, const mq_mixture *mixture, mq_error *err) {
    return make(out, (quantized_weights){.mixture = mixture}, mq_master_tensors(mixture->master),
                err);
}

mq_status mq_slice_weights(mq_weights **out, const mq_slice_reader *slice, mq_error *err) {
    return make(out, (quantized_weights){.slice = slice}, mq_slice_reader_tensors(slice), err);
}

mq_status mq_quantized_check(const mq_config *config, const mq_master *master,
                             const mq_slice_reader *slice,
                             mq_status (*check)(const mq_model *model, mq_error *err),
                             mq_error *err) {
    mq_model model = {.config = *config};
    mq_mixture mixture = {0};
    mq_status status = MQ_OK;
    if (master != NULL) {
        unsigned
            widths[MQ_MAX_WIDTHS]; /* their shapes are the same, which the reader has checked */
        mq_master_widths(widths, master);
        status = mq_mixture_make(&mixture, master, widths[0], NULL, 0, err);
    }
    if (status == MQ_OK) {
        status = master != NULL ? mq_master_weights(&model.weights, &mixture, err)
                                : mq_slice_weights(&model.weights, slice, err);
    }
    if (status == MQ_OK) {
        status = check(&model, err);
    }
    mq_weights_free(model.weights);
    mq_mixture_free(&mixture);
    return status;
}
