#include "export/gguf_types.h"

#include <stdio.h>

#include "base/context.h"
#include "export/gguf_plain.h"
#include "export/rows.h"

/* --- the choice ------------------------------------------------------------------------------- */

/* What a type asks of a slice that it is to hold exactly. */
typedef struct type_rule {
    mq_ggml_type type;
    unsigned bits;  /* of its codes */
    bool symmetric; /* it has no offset */
} type_rule;

static const type_rule rules[] = {
    {MQ_GGML_Q2_K, 2, false}, {MQ_GGML_Q3_K, 3, true},  {MQ_GGML_Q4_0, 4, true},
    {MQ_GGML_Q4_K, 4, false}, {MQ_GGML_Q4_1, 4, false}, {MQ_GGML_Q5_0, 5, true},
    {MQ_GGML_Q5_K, 5, false}, {MQ_GGML_Q5_1, 5, false}, {MQ_GGML_Q6_K, 6, true},
    {MQ_GGML_Q8_0, 8, true},
};
enum { RULES = sizeof rules / sizeof rules[0] }; /* from the smallest type on */

/* In blocks of the types whose numbers are shared by 32 weights this is a matter of whole blocks;
 * super-blocks of 256 have a scale for 16 or 32 weights that is a whole number of 4 to 8 bits times
 * one that they share: exact where the whole super-block lies in one group. */
static bool lies_in_groups(mq_ggml_type type, const mq_master_view *view) {
    return view->in / view->groups % mq_ggml_block(type) == 0;
}

static bool holds(const type_rule *rule, const mq_master *master, const mq_master_view *view,
                  unsigned width) {
    return width <= rule->bits &&
           (!rule->symmetric || mq_master_zero_point(master) == MQ_ZERO_SYMMETRIC) &&
           lies_in_groups(rule->type, view);
}

bool mq_gguf_holds_exactly(mq_ggml_type type, const mq_plan *plan, const mq_master_view *view) {
    for (size_t i = 0; i < RULES; i++) {
        if (rules[i].type == type) {
            return holds(&rules[i], plan->job->master, view, mq_plan_width(plan, view));
        }
    }
    return false;
}

bool mq_gguf_takes_values(mq_ggml_type type, const mq_plan *plan, const mq_master_view *view) {
    return type == MQ_GGML_Q8_0 || !mq_gguf_holds_exactly(type, plan, view);
}

/* The type that has as many bits as the width and no others; 4 and 5 bits have several. */
static mq_ggml_type own_type(unsigned width) {
    return width == 2   ? MQ_GGML_Q2_K
           : width == 3 ? MQ_GGML_Q3_K
           : width == 4 ? MQ_GGML_Q4_1
           : width == 5 ? MQ_GGML_Q5_1
           : width == 6 ? MQ_GGML_Q6_K
                        : MQ_GGML_Q8_0;
}

static mq_ggml_type type_for(const mq_master *master, const mq_master_view *view, unsigned width) {
    const mq_ggml_type own = own_type(width);
    /* Fitted, where it is not exact: what holds the codes exactly takes 1.3 to 1.9 times the bytes.
     */
    if ((width == 2 || width == 3 || width == 6) && view->in % mq_ggml_block(own) == 0) {
        return own;
    }
    for (size_t i = 0; i < RULES; i++) {
        if (holds(&rules[i], master, view, width)) {
            return rules[i].type;
        }
    }
    const mq_ggml_type fitted = width <= 4   ? MQ_GGML_Q4_1
                                : width == 5 ? MQ_GGML_Q5_1
                                             : MQ_GGML_Q8_0;
    return view->in % mq_ggml_block(fitted) == 0 ? fitted : MQ_GGML_F16;
}

mq_ggml_type mq_gguf_type_of_linear(const mq_plan *plan, const mq_master_view *view) {
    return type_for(plan->job->master, view, mq_plan_width(plan, view));
}

/* --- types that are larger than the width's own ----------------------------------------------- */

/* What the layer would take in the width's own type, were its rows whole blocks. */
static size_t own_bytes(const mq_master_view *view, unsigned width) {
    const mq_ggml_type own = own_type(width);
    const size_t block = mq_ggml_block(own);
    return view->out * view->in / block * mq_ggml_row_bytes(own, block);
}

static bool falls_back(mq_ggml_type type, const mq_master_view *view, unsigned width) {
    return type != own_type(width) &&
           view->out * mq_ggml_row_bytes(type, view->in) > own_bytes(view, width);
}

/* The widest that is served and takes no more bytes than this one. */
static unsigned widest_as_small(const mq_master *master, const mq_master_view *view,
                                unsigned width) {
    const size_t bytes = mq_ggml_row_bytes(type_for(master, view, width), view->in);
    unsigned widths[MQ_MAX_WIDTHS];
    const size_t count = mq_master_widths(widths, master); /* descending */
    for (size_t i = 0; i < count && widths[i] > width; i++) {
        if (mq_ggml_row_bytes(type_for(master, view, widths[i]), view->in) <= bytes) {
            return widths[i];
        }
    }
    return width;
}

void mq_gguf_choose_widths(mq_mixture *mixture, const mq_slice_options *options) {
    const mq_master *master = mixture->master;
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        mq_layer_width *layer = &mixture->layers[i];
        if (options->dtype == MQ_SLICE_DTYPE_SOURCE && !layer->given &&
            falls_back(type_for(master, view, layer->width), view, layer->width)) {
            layer->width = widest_as_small(master, view, layer->width);
        }
    }
}

/* --- rows ------------------------------------------------------------------------------------- */

static void encode_row(unsigned char *out, double *error, const mq_row *row,
                       const mq_piece *piece) {
    mq_ggml_encode(out, error, row, (mq_ggml_type)piece->type);
}

mq_status mq_gguf_fill_linear(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                              size_t count, mq_error *err) {
    const mq_status status = mq_fill_encoded(out, plan, piece, first, count, encode_row, err);
    return status == MQ_OK ? mq_gguf_check_halves(out, piece, count, err) : status;
}

/* --- what is said of it ----------------------------------------------------------------------- */

/* Of the blocks' layers; embeddings and head have widths of their own. */
static bool is_of_block(const mq_piece *piece) {
    return piece->linear != NULL && piece->linear->min_width == 0;
}

static unsigned asked_of(const mq_plan *plan, const mq_piece *piece) {
    return mq_mixture_asked(plan->job->mixture, piece->linear);
}

static bool is_fallback(const mq_plan *plan, const mq_piece *piece) {
    return piece->linear != NULL &&
           falls_back((mq_ggml_type)piece->type, piece->linear, asked_of(plan, piece));
}

/* Whether two fallbacks have the same type in place of the same, and the same width. */
static bool are_alike(const mq_plan *plan, const mq_piece *a, const mq_piece *b) {
    return a->type == b->type && asked_of(plan, a) == asked_of(plan, b) &&
           mq_plan_width(plan, a->linear) == mq_plan_width(plan, b->linear);
}

/* Of all fallbacks that are like this one. */
static void warn_of(const mq_plan *plan, const mq_piece *example) {
    size_t layers = 0, bytes = 0, own = 0;
    const unsigned asked = asked_of(plan, example), width = mq_plan_width(plan, example->linear);
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        if (is_fallback(plan, piece) && are_alike(plan, piece, example)) {
            layers++;
            bytes += piece->rows * piece->row_bytes;
            own += own_bytes(piece->linear, asked);
        }
    }
    const mq_master_view *view = example->linear;
    char advice[160] = "";
    if (width != asked) { /* what it is good for, and how to do without */
        snprintf(advice, sizeof advice,
                 "; they take %u bits, no larger there (--layer-bits '.=%u' keeps %u)", width,
                 asked, asked);
    }
    mq_log(plan->job->context, MQ_LOG_WARNING,
           "%zu layers such as %s have rows of %zu in groups of %zu, no multiple of the %zu of "
           "%s: stored as %s, %.1f MiB instead of %.1f%s",
           layers, view->prefix, view->in, view->in / view->groups, mq_ggml_block(own_type(asked)),
           mq_ggml_name(own_type(asked)), mq_ggml_name((mq_ggml_type)example->type),
           (double)bytes / 0x1p20, (double)own / 0x1p20, advice);
}

void mq_gguf_warn_of_fallbacks(const mq_plan *plan) {
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        bool is_first = is_fallback(plan, piece);
        for (size_t k = 0; is_first && k < i; k++) {
            is_first =
                !is_fallback(plan, &plan->pieces[k]) || !are_alike(plan, &plan->pieces[k], piece);
        }
        if (is_first) {
            warn_of(plan, piece);
        }
    }
}

unsigned mq_gguf_file_type(const mq_plan *plan) {
    static const unsigned file_types[] = {
        [MQ_GGML_F16] = 1,   [MQ_GGML_Q4_0] = 2,  [MQ_GGML_Q4_1] = 3,  [MQ_GGML_Q8_0] = 7,
        [MQ_GGML_Q5_0] = 8,  [MQ_GGML_Q5_1] = 9,  [MQ_GGML_Q2_K] = 10, [MQ_GGML_Q3_K] = 11,
        [MQ_GGML_Q4_K] = 14, [MQ_GGML_Q5_K] = 16, [MQ_GGML_Q6_K] = 18};
    size_t weights[sizeof file_types / sizeof file_types[0]] = {0};
    size_t most = MQ_GGML_F16;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        if (is_of_block(piece)) {
            weights[piece->type] += piece->linear->out * piece->linear->in;
            most = weights[piece->type] > weights[most] ? piece->type : most;
        }
    }
    return file_types[most];
}
