#include "export/integer_format.h"

#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "export/rows.h"
#include "store/names.h"

/* Of a quantized layer its view; of another tensor `codes` alone. */
struct mq_integer_part {
    mq_integer_part *next;
    mq_master_view view;
    char name[MQ_STORED_NAME_SIZE];
    mq_tensor_info codes, scales[MQ_MAX_WIDTH + 1], biases[MQ_MAX_WIDTH + 1];
};

static void free_own(void *own) {
    mq_integer_own *self = own;
    while (self->parts != NULL) {
        mq_integer_part *part = self->parts;
        self->parts = part->next;
        mq_free(part);
    }
    mq_integer_free(&self->kept);
    mq_free(self);
}

/* Whether the tensor has rows [first, first + rows). */
static mq_status check_rows(const mq_tensor_info *info, size_t first, size_t rows, mq_error *err) {
    const size_t there = info->dims > 0 ? info->shape[0] : 0;
    return there > 0 && first <= there && rows <= there - first
               ? MQ_OK
               : mq_fail_tensor(err, MQ_ERR_INPUT, info->file, info->name,
                                "has %zu rows, of which %zu from %zu on are needed", there, rows,
                                first);
}

/* Rows of a tensor that has them; NULL where that is. */
static const mq_tensor_info *cut_tensor(mq_tensor_info *out, const mq_tensor_info *info,
                                        size_t first, size_t rows) {
    if (info == NULL) {
        return NULL;
    }
    const size_t row = info->bytes / info->shape[0];
    *out = *info;
    out->elements = rows * (info->elements / info->shape[0]);
    out->bytes = rows * row;
    out->shape[0] = rows;
    out->data += first * row;
    out->file_offset += first * row;
    return out;
}

static mq_status new_part(mq_integer_part **out, mq_plan *plan, const char *name, mq_error *err) {
    mq_integer_own *own = mq_integer_of(plan);
    mq_integer_part *part = NULL;
    const mq_status status = mq_new(&part, 1, sizeof *part, "a part of a layer", err);
    if (status == MQ_OK) {
        *part = (mq_integer_part){.next = own->parts};
        snprintf(part->name, sizeof part->name, "%s", name);
        *out = own->parts = part;
    }
    return status;
}

mq_status mq_integer_cut(const mq_master_view **out, mq_plan *plan, const mq_master_view *view,
                         const char *prefix, size_t first, size_t rows, mq_error *err) {
    mq_integer_part *part = NULL;
    mq_status status = check_rows(view->codes, first, rows, err);
    for (unsigned width = 0; status == MQ_OK && width <= MQ_MAX_WIDTH; width++) {
        const mq_tensor_info *pair[] = {view->scales[width], view->biases[width]};
        for (size_t i = 0; status == MQ_OK && i < 2; i++) {
            status = pair[i] != NULL ? check_rows(pair[i], first, rows, err) : MQ_OK;
        }
    }
    status = status == MQ_OK ? new_part(&part, plan, prefix, err) : status;
    if (status != MQ_OK) {
        return status;
    }
    part->view = *view;
    part->view.prefix = part->name;
    part->view.out = rows;
    part->view.codes = cut_tensor(&part->codes, view->codes, first, rows);
    for (unsigned width = 0; width <= MQ_MAX_WIDTH; width++) {
        part->view.scales[width] =
            cut_tensor(&part->scales[width], view->scales[width], first, rows);
        part->view.biases[width] =
            cut_tensor(&part->biases[width], view->biases[width], first, rows);
    }
    *out = &part->view;
    return MQ_OK;
}

mq_status mq_integer_cut_plain(const mq_tensor_info **out, mq_plan *plan,
                               const mq_tensor_info *info, const char *name, size_t first,
                               size_t rows, mq_error *err) {
    mq_integer_part *part = NULL;
    mq_status status = check_rows(info, first, rows, err);
    status = status == MQ_OK ? new_part(&part, plan, name, err) : status;
    if (status == MQ_OK) {
        *out = cut_tensor(&part->codes, info, first, rows);
        part->codes.name = part->name;
    }
    return status;
}

/* A head beside embeddings that are the head is left out: gptqmodel loads no packed one, and
 * transformers 5 ties none whose numbers differ from the embeddings', as they may where only these
 * are packed. */
static bool is_used(const mq_config *config, const char *name) {
    return !mq_config_is_unused_head(config, name);
}

bool mq_integer_is_packed(const mq_plan *plan, const mq_master_view *view) {
    return view->min_width == 0 ||
           (is_used(plan->job->config, view->prefix) && !plan->job->options->plain_embeddings &&
            mq_integer_of(plan)->packs(plan, view));
}

mq_status mq_integer_add_dequantized(mq_plan *plan, const mq_master_view *view, const char *why,
                                     mq_error *err) {
    const mq_dtype dtype = mq_plan_dtype(plan);
    if (!plan->job->options->plain_embeddings) {
        mq_log(plan->job->context, MQ_LOG_WARNING, "%s: %s.weight is stored dequantized, in %s",
               why, view->prefix, mq_dtype_name(dtype));
    }
    return mq_add_dequantized(plan, view, dtype, err);
}

/* The largest group size that divides that of every packed layer; 0 when none is. */
static size_t common_group_size(const mq_plan *plan) {
    const mq_master *master = plan->job->master;
    size_t common = 0; /* greatest common divisor, by Euclid */
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        size_t rest = mq_integer_is_packed(plan, view) ? view->in / view->groups : 0;
        while (rest != 0) {
            const size_t next = common % rest;
            common = rest;
            rest = next;
        }
    }
    return common;
}

mq_status mq_integer_begin(mq_plan *plan, mq_integer_packs *packs, mq_dtype scale_dtype,
                           bool words_by_row, mq_error *err) {
    mq_integer_own *own = mq_calloc(1, sizeof *own);
    if (own == NULL) {
        return mq_fail_memory(err, "the plan", sizeof *own);
    }
    plan->own = own;
    plan->free_own = free_own;
    plan->has = is_used;
    own->packs = packs;
    own->layout.scale_dtype = scale_dtype;
    own->layout.words_by_row = words_by_row;
    own->layout.group_size = plan->group_size = common_group_size(plan);
    return plan->group_size != 0 ? MQ_OK
                                 : mq_fail(err, MQ_ERR_USAGE,
                                           "nothing in this master is "
                                           "quantized; use --format safetensors");
}

static const mq_master_view *packed(const mq_plan *plan, const char *weight) {
    const mq_name name = mq_name_parse(weight);
    const mq_master_view *view = mq_master_find(plan->job->master, name.stem);
    return view != NULL && mq_integer_is_packed(plan, view) ? view : NULL;
}

const mq_master_view *mq_integer_embedding(const mq_plan *plan) {
    return packed(plan, mq_config_layout(plan->job->config)->embedding);
}

const mq_master_view *mq_integer_head(const mq_plan *plan) {
    return packed(plan, mq_config_layout(plan->job->config)->head);
}

mq_status mq_integer_add(mq_plan *plan, const mq_master_view *view, const char *part,
                         mq_dtype dtype, size_t rows, size_t columns, mq_fill_rows *fill,
                         mq_error *err) {
    char name[MQ_STORED_NAME_SIZE + 32];
    snprintf(name, sizeof name, "%s.%s", view->prefix, part);
    mq_piece piece = {.spec = {.dtype = dtype, .dims = 2, .shape = {rows, columns}},
                      .rows = rows,
                      .row_bytes = columns * mq_dtype_size(dtype),
                      .fill = fill};
    if (fill == mq_fill_codes) {
        mq_piece_reads_all(&piece, plan, view);
        piece.is_inexact = true;
    }
    piece.linear = view;
    return mq_plan_add(plan, name, &piece, err);
}

/* --- fills ------------------------------------------------------------------------------------ */

static unsigned width_of(const mq_plan *plan, const mq_piece *piece) {
    return mq_plan_width(plan, piece->linear);
}

static mq_status fitted(const mq_integer_linear **out, mq_plan *plan, mq_piece *piece,
                        mq_error *err) {
    mq_integer_own *own = mq_integer_of(plan);
    mq_status status = mq_integer_fit(&own->kept, plan, piece->linear, &own->layout, err);
    *out = &own->kept;
    return status;
}

/* Each output row is one stream: `count` numbers, `stride` bytes apart, from first·next on. */
static void pack_rows(unsigned char *out, const mq_piece *piece, const uint8_t *from, size_t first,
                      size_t count, size_t next, size_t stride, size_t numbers, unsigned width) {
    for (size_t i = 0; i < count; i++) {
        /* rows of words in an aligned block */
        mq_pack_strided((uint32_t *)(void *)(out + i * piece->row_bytes), from + (first + i) * next,
                        stride, numbers, width);
    }
}

/* Output rows are words: row w holds word w of each of `columns` streams. 32 numbers are `width`
 * words, so that words [k·width, (k + 1)·width) come from numbers [32·k, 32·(k + 1)). */
static void pack_columns(unsigned char *out, const mq_piece *piece, const uint8_t *from,
                         size_t first, size_t count, size_t next, size_t stride, size_t numbers,
                         unsigned width) {
    const size_t columns = piece->spec.shape[1];
    uint32_t *words = (uint32_t *)(void *)out;
    for (size_t block = first / width; block * width < first + count; block++) {
        const size_t left = numbers - 32 * block, now = left < 32 ? left : 32;
        for (size_t c = 0; c < columns; c++) {
            uint32_t packed[8] = {0};
            mq_pack_strided(packed, from + c * next + 32 * block * stride, stride, now, width);
            for (size_t k = 0; k < width; k++) {
                const size_t row = block * width + k;
                if (row >= first && row < first + count) {
                    words[(row - first) * columns + c] = packed[k];
                }
            }
        }
    }
}

mq_status mq_fill_codes(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                        size_t count, mq_error *err) {
    const mq_integer_linear *linear = NULL;
    mq_status status = fitted(&linear, plan, piece, err);
    if (status == MQ_OK) {
        memcpy(out, linear->words + first * (piece->row_bytes / sizeof *linear->words),
               count * piece->row_bytes);
        piece->error = linear->error;
        piece->power = linear->power;
    }
    return status;
}

mq_status mq_fill_zeros_by_group(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                                 size_t count, mq_error *err) {
    const mq_integer_linear *linear = NULL;
    mq_status status = fitted(&linear, plan, piece, err);
    if (status == MQ_OK) {
        pack_rows(out, piece, linear->zeros, first, count, 1, linear->groups, piece->linear->out,
                  width_of(plan, piece));
    }
    return status;
}

mq_status mq_fill_zeros_by_words(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                                 size_t count, mq_error *err) {
    const mq_integer_linear *linear = NULL;
    mq_status status = fitted(&linear, plan, piece, err);
    if (status == MQ_OK) {
        pack_columns(out, piece, linear->zeros, first, count, 1, linear->groups, piece->linear->out,
                     width_of(plan, piece));
    }
    return status;
}

mq_status mq_fill_scales_by_row(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                                size_t count, mq_error *err) {
    const mq_integer_linear *linear = NULL;
    mq_status status = fitted(&linear, plan, piece, err);
    if (status == MQ_OK) {
        mq_from_f32(out, piece->spec.dtype, linear->scales + first * linear->groups,
                    count * linear->groups);
    }
    return status;
}

mq_status mq_fill_scales_by_group(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                                  size_t count, mq_error *err) {
    const mq_integer_linear *linear = NULL;
    mq_status status = fitted(&linear, plan, piece, err);
    const size_t columns = piece->linear->out, size = mq_dtype_size(piece->spec.dtype);
    float scales[256];
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        for (size_t done = 0; done < columns; done += sizeof scales / sizeof *scales) {
            const size_t left = columns - done, now = left < 256 ? left : 256;
            for (size_t c = 0; c < now; c++) {
                scales[c] = linear->scales[(done + c) * linear->groups + first + i];
            }
            mq_from_f32(out + (i * columns + done) * size, piece->spec.dtype, scales, now);
        }
    }
    return status;
}
