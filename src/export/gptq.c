/* GPTQ's format, version 2 of its zero points: what gptqmodel reads.
 *
 * P.qweight I32 [words of in, out]: t of an output, an LSB-first bit stream down the column;
 * P.qzeros I32 [groups, words of out]: z as it is (version 1 had z - 1); P.scales F16 [groups,
 * out]; P.g_idx I32 [in]: the group of each input; w = scale·(t - z). */
#include "export/export.h"

#include <stdio.h>
#include <string.h>

#include "base/buffer.h"
#include "export/integer_format.h"
#include "export/rows.h"
#include "store/folder.h"
#include "store/names.h"

static mq_status fill_groups(unsigned char *out, mq_plan *plan, mq_piece *piece, size_t first,
                             size_t count, mq_error *err) {
    (void)piece;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        const int32_t group = (int32_t)((first + i) / plan->group_size);
        memcpy(out + i * sizeof group, &group, sizeof group);
    }
    return MQ_OK;
}

static bool has_width(unsigned width) {
    return width == 2 || width == 3 || width == 4 || width == 8;
}

static bool is_head(const mq_plan *plan, const mq_master_view *view) {
    const mq_name name = mq_name_parse(mq_config_layout(plan->job->config)->head);
    return strcmp(name.stem, view->prefix) == 0;
}

static bool can_pack(const mq_master_view *view) {
    return view->in % 32 == 0 && view->out % 32 == 0;
}

/* Of embedding and head a head of its own is packed: a linear like all others, if need be with a
 * width of its own. */
static bool packs(const mq_plan *plan, const mq_master_view *view) {
    return is_head(plan, view) && can_pack(view) && has_width(mq_plan_width(plan, view));
}

static mq_status add_dequantized(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    return mq_integer_add_dequantized(
        plan, view,
        is_head(plan, view) ? "GPTQ packs multiples of 32 numbers both ways, of 2, 3, 4 or 8 bits"
                            : "GPTQ has groups of tokens in embeddings, and none along their rows",
        err);
}

/* A family by model_type, that of the language model. */
typedef struct gptq_family {
    const char *model_type;
    size_t most_layers; /* with which gptqmodel loads quantized models of it: it knows large models
                           by their number, and leaves them to other programs; 0: any number */
    /* What it calls linears that are rows of one tensor when it has taken them apart, which it does
     * before it looks for them; NULL: it leaves them as they are. */
    const char *apart[MQ_LINEAR_COUNT];
} gptq_family;

static const gptq_family *family_of(const mq_config *config) {
    static const gptq_family families[] = {
        {.model_type = "gemma2", .most_layers = 42},
        {.model_type = "phi3", .apart = {[MQ_GATE] = "mlp.gate_proj", [MQ_UP] = "mlp.up_proj"}},
    };
    static const gptq_family other = {.most_layers = 0};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(families[i].model_type, mq_arch_text_model_type(config->arch)) == 0) {
            return &families[i];
        }
    }
    return &other;
}

/* A master may have tensors that are not the model's, and whose names end like its own. */
static bool is_own_layer(const mq_config *config, const char *layer) {
    char weight[MQ_STORED_NAME_SIZE];
    return mq_config_has_tensor(config, mq_name_make(weight, layer, "weight", 0));
}

/* What gptqmodel calls a linear whose rows are in a layer of the master, in name; NULL: they are
 * not, or it leaves the layer whole. */
static const char *name_of_part(char name[MQ_NAME_SIZE], const mq_config *config, const char *layer,
                                mq_linear linear) {
    const char *own = config->arch->linear[linear], *apart = family_of(config)->apart[linear];
    if (apart == NULL || !mq_ends_with(layer, own) || !is_own_layer(config, layer)) {
        return NULL;
    }
    const size_t length = strlen(layer), end = strlen(own);
    snprintf(name, MQ_NAME_SIZE, "%.*s%s", (int)(length - end), layer, apart);
    return name;
}

static mq_status add_packed(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    const unsigned width = mq_plan_width(plan, view);
    const size_t groups = view->in / plan->group_size;
    if (!has_width(width)) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
                              "takes %u bits, which GPTQ has not: it has 2, 3, 4 and 8", width);
    }
    if (!can_pack(view)) {
        return mq_fail_tensor(err, MQ_ERR_USAGE, view->codes->file, view->codes->name,
                              "[%zu, %zu] is no multiple of 32 both ways, as GPTQ packs; use "
                              "--format compressed-tensors",
                              view->out, view->in);
    }
    mq_status status = mq_integer_add(plan, view, "qweight", MQ_I32, view->in / 32 * width,
                                      view->out, mq_fill_codes, err);
    if (status == MQ_OK) {
        status = mq_integer_add(plan, view, "qzeros", MQ_I32, groups, view->out / 32 * width,
                                mq_fill_zeros_by_group, err);
    }
    if (status == MQ_OK) {
        status = mq_integer_add(plan, view, "scales", MQ_F16, groups, view->out,
                                mq_fill_scales_by_group, err);
    }
    if (status == MQ_OK) {
        status = mq_integer_add(plan, view, "g_idx", MQ_I32, view->in, 1, fill_groups, err);
    }
    if (status == MQ_OK) {
        plan->pieces[plan->count - 1].spec.dims = 1;
    }
    return status;
}

/* A layer of the master, quantized or not (one of the two is NULL), as gptqmodel has it: *parts of
 * it, 0: it is left whole. */
static mq_status add_apart(size_t *parts, mq_plan *plan, const char *layer,
                           const mq_master_view *view, const mq_tensor_info *plain, mq_error *err) {
    const mq_config *config = plan->job->config;
    mq_status status = MQ_OK;
    *parts = 0;
    for (mq_linear linear = 0; status == MQ_OK && linear < MQ_LINEAR_COUNT; linear++) {
        char name[MQ_NAME_SIZE], weight[MQ_STORED_NAME_SIZE];
        if (name_of_part(name, config, layer, linear) == NULL) {
            continue;
        }
        const size_t first = mq_config_linear_place(config, linear).first;
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, linear);
        (*parts)++;
        if (view != NULL) {
            const mq_master_view *part = NULL;
            status = mq_integer_cut(&part, plan, view, name, first, out, err);
            status = status == MQ_OK ? add_packed(plan, part, err) : status;
        } else {
            const mq_tensor_info *part = NULL;
            mq_name_make(weight, name, "weight", 0);
            status = mq_integer_cut_plain(&part, plan, plain, weight, first, out, err);
            status = status == MQ_OK ? mq_add_unquantized(plan, part, err) : status;
        }
    }
    return status;
}

static mq_status add_linear(mq_plan *plan, const mq_master_view *view, mq_error *err) {
    size_t parts;
    if (!mq_integer_is_packed(plan, view)) {
        return add_dequantized(plan, view, err);
    }
    const mq_status status = add_apart(&parts, plan, view->prefix, view, NULL, err);
    return status == MQ_OK && parts == 0 ? add_packed(plan, view, err) : status;
}

static mq_status add_plain(mq_plan *plan, const mq_tensor_info *info, mq_error *err) {
    const mq_name name = mq_name_parse(info->name);
    size_t parts = 0;
    const mq_status status =
        name.form == MQ_NAME_WEIGHT ? add_apart(&parts, plan, name.stem, NULL, info, err) : MQ_OK;
    return status == MQ_OK && parts == 0 ? mq_add_unquantized(plan, info, err) : status;
}

static void warn_of_reader(const mq_plan *plan) {
    const mq_config *config = plan->job->config;
    const gptq_family *family = family_of(config);
    if (family->most_layers > 0 && config->num_hidden_layers > family->most_layers) {
        mq_log(plan->job->context, MQ_LOG_WARNING,
               "gptqmodel does not load quantized models of %s with more than %zu layers",
               config->arch->architecture, family->most_layers);
    }
}

static mq_status make_plan(mq_plan *plan, mq_error *err) {
    static const size_t sizes[] = {1024, 512, 256, 128, 64, 32, 16};
    const unsigned width = plan->job->width;
    if (!has_width(width)) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "GPTQ has no %u bits; use --bits 2, 3, 4 or 8, or --format "
                       "compressed-tensors",
                       width);
    }
    mq_status status = mq_integer_begin(plan, packs, MQ_F16, false, err);
    if (status != MQ_OK) {
        return status;
    }
    /* gptqmodel finds layers by no other names, and leaves a vision tower that it does not find as
     * it was made, without a word. */
    plan->layout = MQ_LAYOUT_MODULES;
    warn_of_reader(plan);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (plan->group_size % sizes[i] == 0) {
            plan->group_size = mq_integer_of(plan)->layout.group_size = sizes[i];
            return mq_plan_walk(plan, add_linear, add_plain, err);
        }
    }
    return mq_fail(err, MQ_ERR_USAGE,
                   "GPTQ has groups of 16, 32, 64 ... 1024, and none of these divides this "
                   "master's; use --format compressed-tensors");
}

/* --- config.json ------------------------------------------------------------------------------ */

/* A layer's own settings, an object in dynamic: sign '-' takes it out, '+' puts them over the
 * model's. */
static cJSON *put_own(mq_json *json, cJSON *dynamic, char sign, const char *layer) {
    mq_buffer pattern = {0}; /* a regular expression */
    mq_buffer_put(&pattern, &sign, 1);
    mq_buffer_put_text(&pattern, ":^");
    for (const char *c = layer; *c != '\0'; c++) {
        mq_buffer_put(&pattern, *c == '.' ? "\\." : c, *c == '.' ? 2 : 1);
    }
    mq_buffer_put_text(&pattern, "$");
    json->failed = json->failed || pattern.failed;
    cJSON *own = mq_json_put_object(json, dynamic, pattern.text);
    mq_free(pattern.text);
    return own;
}

/* The settings of a layer of the master, by all names that gptqmodel has for it; bits 0: none. */
static void put_layer(mq_json *json, cJSON *dynamic, const mq_plan *plan, char sign,
                      const char *layer, unsigned bits) {
    const mq_config *config = plan->job->config;
    char part[MQ_NAME_SIZE], renamed[MQ_NAME_SIZE];
    size_t parts = 0;
    for (mq_linear linear = 0; linear <= MQ_LINEAR_COUNT; linear++) {
        const bool last = linear == MQ_LINEAR_COUNT;
        const char *name = last ? layer : name_of_part(part, config, layer, linear);
        if (name == NULL || (last && parts > 0)) {
            continue;
        }
        cJSON *own =
            put_own(json, dynamic, sign, mq_config_rename(renamed, config, name, plan->layout));
        if (bits > 0) {
            mq_json_put_size(json, own, "bits", bits);
        }
        parts++;
    }
}

/* Layers that the master left alone, and those that are packed in another width than most. */
static void put_dynamic(mq_json *json, cJSON *quantization, const mq_plan *plan) {
    const mq_master *master = plan->job->master;
    const cJSON *old =
        cJSON_GetObjectItemCaseSensitive(mq_master_config(master), "quantization_config");
    const cJSON *ignored = cJSON_GetObjectItemCaseSensitive(old, "ignored"), *item = NULL;
    cJSON *dynamic = mq_json_put_object(json, quantization, "dynamic");
    cJSON_ArrayForEach(item, ignored) { put_layer(json, dynamic, plan, '-', item->valuestring, 0); }
    for (size_t i = 0; i < mq_master_linear_count(master); i++) {
        const mq_master_view *view = mq_master_linear_at(master, i);
        const unsigned width = mq_plan_width(plan, view);
        if (width != plan->job->width && mq_integer_is_packed(plan, view)) {
            put_layer(json, dynamic, plan, '+', view->prefix, width);
        }
    }
    if (dynamic != NULL && dynamic->child == NULL) {
        cJSON_DeleteItemFromObjectCaseSensitive(quantization, "dynamic");
    }
}

/* Where transformers goes by the model's lengths, gptqmodel takes a missing factor for 1. */
static void fill_longrope(mq_json *json, cJSON *config, const mq_plan *plan) {
    static const char *const spellings[] = {"rope_scaling", "rope_parameters"};
    const mq_rope *rope = &plan->job->config->rope[0];
    for (size_t i = 0; rope->type == MQ_ROPE_LONGROPE && i < 2; i++) {
        cJSON *object = cJSON_GetObjectItemCaseSensitive(config, spellings[i]);
        if (cJSON_IsObject(object)) {
            cJSON_DeleteItemFromObjectCaseSensitive(object, "factor");
            mq_json_put_number(json, object, "factor", rope->factor);
        }
    }
}

static mq_status add_config(cJSON *config, mq_plan *plan, mq_error *err) {
    mq_json json = {.root = NULL};
    fill_longrope(&json, config, plan);
    cJSON *quantization = mq_json_put_object(&json, config, "quantization_config");
    mq_json_put_text(&json, quantization, "quant_method", "gptq");
    mq_json_put_text(&json, quantization, "checkpoint_format", "gptq_v2");
    mq_json_put_size(&json, quantization, "bits", plan->job->width);
    mq_json_put_size(&json, quantization, "group_size", plan->group_size);
    mq_json_put_bool(&json, quantization, "sym", mq_plan_is_symmetric(plan));
    mq_json_put_bool(&json, quantization, "desc_act", false);
    mq_json_put_bool(&json, quantization, "lm_head", mq_integer_head(plan) != NULL);
    mq_json_put_text(&json, quantization, "pack_dtype", "int32");
    put_dynamic(&json, quantization, plan);
    const mq_status status = mq_json_check(&json, MQ_CONFIG_FILE, err);
    /* The same once more in the file that gptqmodel looks for first. */
    return status == MQ_OK
               ? mq_write_json(plan->job->output, "quantize_config.json", quantization, err)
               : status;
}

const mq_export_format mq_export_gptq = {
    .info = {"gptq",
             "GPTQ's packed words with whole zero points (version 2), for gptqmodel: fitted, but "
             "exact from a master with a symmetric zero point",
             "2, 3, 4, 8"},
    .library = "transformers",
    .usage = "    from gptqmodel import GPTQModel\n"
             "    model = GPTQModel.load(\"path/to/this/folder\")\n"
             "    print(model.tokenizer.decode(model.generate(\"Once upon a time\")[0]))\n",
    .takes_dtype = true,
    .may_unpack = true,
    .mixes = true,
    .exact_with = "--zero-point symmetric",
    .plan = make_plan,
    .write = mq_export_folder,
    .config = add_config,
};
