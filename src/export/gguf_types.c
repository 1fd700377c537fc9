#include "export/gguf_types.h"

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

static bool holds(const type_rule *rule, const mq_plan *plan, const mq_master_view *view) {
    return mq_view_width(view, plan->job->width) <= rule->bits &&
           (!rule->symmetric || mq_plan_is_symmetric(plan)) && lies_in_groups(rule->type, view);
}

bool mq_gguf_holds_exactly(mq_ggml_type type, const mq_plan *plan, const mq_master_view *view) {
    for (size_t i = 0; i < RULES; i++) {
        if (rules[i].type == type) {
            return holds(&rules[i], plan, view);
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

mq_ggml_type mq_gguf_type_of_linear(const mq_plan *plan, const mq_master_view *view) {
    const unsigned width = mq_view_width(view, plan->job->width);
    const mq_ggml_type own = own_type(width);
    /* Fitted, where it is not exact: what holds the codes exactly takes 1.3 to 1.9 times the bytes.
     */
    if ((width == 2 || width == 3 || width == 6) && view->in % mq_ggml_block(own) == 0) {
        return own;
    }
    for (size_t i = 0; i < RULES; i++) {
        if (holds(&rules[i], plan, view)) {
            return rules[i].type;
        }
    }
    const mq_ggml_type fitted = width <= 4   ? MQ_GGML_Q4_1
                                : width == 5 ? MQ_GGML_Q5_1
                                             : MQ_GGML_Q8_0;
    return view->in % mq_ggml_block(fitted) == 0 ? fitted : MQ_GGML_F16;
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

/* Where all layers fall back, a wider slice of the same size, which is the better one. */
static const char *no_larger(mq_ggml_type taken) {
    return taken == MQ_GGML_F16    ? ""
           : taken == MQ_GGML_Q8_0 ? "; --bits 8 takes no more"
                                   : "; --bits 4 takes no more";
}

void mq_gguf_warn_of_fallbacks(const mq_plan *plan) {
    const mq_ggml_type wanted = own_type(plan->job->width);
    const size_t block = mq_ggml_block(wanted), block_bytes = mq_ggml_row_bytes(wanted, block);
    size_t layers = 0, all = 0, bytes = 0, wanted_bytes = 0;
    const mq_piece *example = NULL;
    for (size_t i = 0; i < plan->count; i++) {
        const mq_piece *piece = &plan->pieces[i];
        if (!is_of_block(piece)) {
            continue;
        }
        all++;
        const size_t weights = piece->linear->out * piece->linear->in;
        const size_t taken = piece->rows * piece->row_bytes, least = weights / block * block_bytes;
        if (piece->type != (unsigned)wanted && taken > least) {
            layers++;
            bytes += taken;
            wanted_bytes += least;
            example = piece;
        }
    }
    if (layers > 0) {
        const mq_master_view *linear = example->linear;
        const mq_ggml_type taken = (mq_ggml_type)example->type;
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "%zu layers such as %s have rows of %zu in groups of %zu, no multiple of the %zu of "
               "%s: stored as %s, %.1f MiB instead of %.1f%s",
               layers, example->spec.name, linear->in, linear->in / linear->groups, block,
               mq_ggml_name(wanted), mq_ggml_name(taken), (double)bytes / 0x1p20,
               (double)wanted_bytes / 0x1p20, layers == all ? no_larger(taken) : "");
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
