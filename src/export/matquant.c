/* The master's own format, cut to one width: codes of a byte each whose lower bits are 0. It saves
 * the other widths' scales and biases only, but holds every width and grouping, and reads as a
 * master that serves one width. Exact.
 *
 * Its slice rule is "top" where the master's is "round": the slices are made already, and their top
 * bits are they. It stays "round-extra", whose last level no top bits can say: 255 rounds to it,
 * and every other slice's code to that slice. */
#include "export/export.h"

#include "store/folder.h"
#include "store/master_config.h"
#include "store/names.h"
#include "store/pack.h"

static mq_status fill_codes(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                            size_t count, mq_error *err) {
    (void)err;
    const size_t in = piece->linear->in, weights = count * in;
    const unsigned width = mq_plan_width(plan, piece->linear);
    mq_slice_codes(out, piece->linear->codes->data + first * in, weights, width,
                   mq_master_slice_rule(plan->job->master));
    for (size_t i = 0; i < weights; i++) {
        const unsigned code = (unsigned)out[i] << (MQ_MAX_WIDTH - width);
        out[i] = (uint8_t)(code < 255 ? code : 255);
    }
    return MQ_OK;
}

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const unsigned width = mq_plan_width(plan, view);
    char name[MQ_STORED_NAME_SIZE];
    mq_piece piece = {.spec = {.dtype = MQ_U8, .dims = 2, .shape = {view->out, view->in}},
                      .rows = view->out,
                      .row_bytes = view->in,
                      .fill = fill_codes,
                      .sources = {view->codes},
                      .linear = view};
    mq_status status = mq_plan_add(plan, mq_name_make(name, view->prefix, "codes", 0), &piece, err);
    static const char *const parts[] = {"scales", "biases"};
    for (size_t i = 0; status == MQ_OK && i < 2; i++) {
        const mq_tensor_info *source = i == 0 ? view->scales[width] : view->biases[width];
        piece = (mq_piece){.spec = {.dtype = MQ_F16, .dims = 2, .shape = {view->out, view->groups}},
                           .rows = 1,
                           .row_bytes = source->bytes,
                           .sources = {source},
                           .linear = view};
        status = mq_plan_add(plan, mq_name_make(name, view->prefix, parts[i], width), &piece, err);
    }
    return status;
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    return mq_plan_walk(plan, add_linear, mq_plan_add_copy, err);
}

static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    const mq_master *master = plan->job->master;
    const mq_slice_rule rule = mq_master_slice_rule(master);
    mq_master_settings settings = {.slice_rule = rule == MQ_SLICE_ROUND_EXTRA ? rule : MQ_SLICE_TOP,
                                   .zero_point = mq_master_zero_point(master),
                                   .group_size = mq_master_group_size(master),
                                   .widths = {plan->job->width},
                                   .width_count = 1};
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        if (view->min_width > 0 && settings.embedding_count < MQ_EMBEDDING_LAYERS) {
            settings.embedding_bits = mq_plan_width(plan, view);
            settings.embedding_layers[settings.embedding_count++] = view->prefix;
        }
    }
    mq_json json = {.root = NULL};
    cJSON *made = mq_master_settings_put(&json, config, &settings, NULL, 0);
    const cJSON *old =
        cJSON_GetObjectItemCaseSensitive(mq_master_config(master), "quantization_config");
    const cJSON *ignored = cJSON_GetObjectItemCaseSensitive(old, "ignored");
    if (ignored != NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(made, "ignored");
        mq_json_put_copy(&json, made, "ignored", ignored);
    }
    return mq_json_check(&json, MQ_CONFIG_FILE, err);
}

const mq_export_format mq_export_matquant = {
    .info = {"matquant", "the master's format with one width: one byte per weight, any grouping",
             "2 to 8"},
    .has_extra = true,
    .library = "matquant",
    .usage = "    matquant inspect path/to/this/folder\n"
             "    matquant verify path/to/this/folder\n"
             "    matquant eval path/to/this/folder --text test.txt\n",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
