#include "quant/select.h"

#include <string.h>

#include "quant/patterns.h"

static mq_status compile_all(mq_patterns *list, const char *const *text, size_t count,
                             const char *option, mq_error *err) {
    mq_status status = mq_patterns_begin(list, count, option, err);
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        status = mq_patterns_add(list, text[i], strlen(text[i]), err);
    }
    return status;
}

/* A pattern that no layer matches is a slip of the pen. */
static mq_status check_used(const mq_patterns *list, mq_error *err) {
    size_t length = 0;
    const char *unused = mq_patterns_unused(&length, list);
    return unused == NULL
               ? MQ_OK
               : mq_fail(err, MQ_ERR_USAGE,
                         "%s '%.*s' matches no linear layer of the blocks, such as "
                         "model.layers.0.mlp.up_proj; embeddings and head are quantized with "
                         "--embeddings alone",
                         list->option, (int)length, unused);
}

/* What the formats of other programs have, the largest first. */
static const size_t usual_groups[] = {128, 64, 32};
#define USUAL_GROUPS (sizeof usual_groups / sizeof usual_groups[0])

/* The largest group size of the usual ones that divides n; 0: none does. */
static size_t usual_group(size_t n) {
    for (size_t i = 0; i < USUAL_GROUPS; i++) {
        if (n % usual_groups[i] == 0) {
            return usual_groups[i];
        }
    }
    return 0;
}

static mq_status groups_of(size_t *groups, const mq_quantize_options *options, size_t group_size,
                           size_t in, const char *weight, mq_error *err) {
    const size_t wanted[2] = {group_size, options->group_fallback};
    for (size_t i = 0; i < (options->has_group_fallback ? 2u : 1u); i++) {
        if (wanted[i] == 0) {
            *groups = 1;
            return MQ_OK;
        }
        if (wanted[i] <= in && in % wanted[i] == 0) {
            *groups = in / wanted[i];
            return MQ_OK;
        }
    }
    return mq_fail_tensor(
        err, MQ_ERR_INPUT, NULL, weight,
        "group size %zu does not divide its %zu inputs; --group-size or --group-fallback %zu would",
        group_size, in, usual_group(in));
}

static mq_status is_wanted(bool *out, const mq_quantize_options *options, mq_linear linear,
                           const char *name, mq_patterns *include, mq_patterns *exclude,
                           mq_error *err) {
    const bool ffn = linear == MQ_GATE || linear == MQ_UP || linear == MQ_DOWN;
    size_t included = 0, excluded = 0;
    mq_status status = mq_patterns_match(&included, include, name, err);
    if (status == MQ_OK) {
        status = mq_patterns_match(&excluded, exclude, name, err);
    }
    *out = (include->count == 0 || included > 0) && excluded == 0 &&
           (ffn || options->scope == MQ_SCOPE_ALL);
    return status;
}

/* Marks the linears to quantize, by giving them one group per row for now. */
static mq_status mark_all(mq_selection *out, const mq_quantize_options *options,
                          const mq_config *config, mq_patterns *include, mq_patterns *exclude,
                          mq_error *err) {
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            const mq_linear linear = (mq_linear)i;
            char name[MQ_NAME_SIZE];
            mq_config_linear_name(name, config, layer, linear, "weight");
            name[strlen(name) - strlen(".weight")] = '\0';
            bool wanted;
            const mq_status status =
                is_wanted(&wanted, options, linear, name, include, exclude, err);
            if (status != MQ_OK) {
                return status;
            }
            out->groups[layer][linear] = wanted ? 1 : 0;
        }
    }
    const mq_status status = check_used(include, err);
    return status == MQ_OK ? check_used(exclude, err) : status;
}

/* Of the weights that are quantized, those in rows that `size` divides. */
static size_t weights_divided(const mq_selection *selection, const mq_quantize_options *options,
                              const mq_config *config, size_t size) {
    const bool embeddings = options->embeddings != MQ_EMBEDDINGS_KEEP;
    size_t weights = embeddings && config->hidden_size % size == 0
                         ? config->vocab_size * config->hidden_size
                         : 0;
    for (size_t at = 0; at < selection->layers * MQ_LINEAR_COUNT; at++) {
        const mq_linear linear = (mq_linear)(at % MQ_LINEAR_COUNT);
        size_t rows, columns;
        mq_config_linear_shape(&rows, &columns, config, linear);
        if (selection->groups[at / MQ_LINEAR_COUNT][linear] > 0 && columns % size == 0) {
            weights += rows * columns;
        }
    }
    return weights;
}

/* The group size. For MQ_GROUP_SIZE_AUTO it is the usual one that divides the rows of the most
 * weights, the largest of these: one that divides all rows if there is one. What it does not divide
 * uses the fallback, or is reported as an error. */
static size_t group_size_for(const mq_selection *selection, const mq_quantize_options *options,
                             const mq_config *config) {
    if (options->group_size != MQ_GROUP_SIZE_AUTO) {
        return options->group_size;
    }
    size_t best = usual_groups[0], most = 0;
    for (size_t i = 0; i < USUAL_GROUPS; i++) {
        const size_t weights = weights_divided(selection, options, config, usual_groups[i]);
        if (weights > most) {
            best = usual_groups[i];
            most = weights;
        }
    }
    return best;
}

/* Sets the groups of the marked linears, and counts tensors and weights. */
static mq_status group_all(mq_selection *out, const mq_quantize_options *options,
                           const mq_config *config, mq_error *err) {
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        for (int i = 0; i < MQ_LINEAR_COUNT; i++) {
            const mq_linear linear = (mq_linear)i;
            if (out->groups[layer][linear] == 0) {
                continue;
            }
            char weight[MQ_NAME_SIZE];
            mq_config_linear_name(weight, config, layer, linear, "weight");
            size_t rows, columns;
            mq_config_linear_shape(&rows, &columns, config, linear);
            const mq_linear_place place = mq_config_linear_place(config, linear);
            const mq_status status = groups_of(&out->groups[layer][linear], options,
                                               out->group_size, columns, weight, err);
            if (status != MQ_OK) {
                return status;
            }
            out->blocks = layer + 1;
            out->tensors += place.first == 0;
            out->weights += rows * columns;
        }
    }
    if (out->tensors == 0) {
        return mq_fail(err, MQ_ERR_USAGE,
                       "--scope, --include and --exclude leave no linear layer to quantize");
    }
    return options->embeddings == MQ_EMBEDDINGS_KEEP
               ? MQ_OK
               : groups_of(&out->embedding_groups, options, out->group_size, config->hidden_size,
                           mq_config_layout(config)->embedding, err);
}

mq_status mq_select(mq_selection *out, const mq_quantize_options *options, const mq_config *config,
                    mq_error *err) {
    *out = (mq_selection){.layers = config->num_hidden_layers};
    mq_status status =
        mq_new(&out->groups, out->layers, sizeof *out->groups, "the selection of layers", err);
    if (status != MQ_OK) {
        return status;
    }
    memset(out->groups, 0, out->layers * sizeof *out->groups);
    mq_patterns include = {0}, exclude = {0};
    status = compile_all(&include, options->include, options->include_count, "--include", err);
    if (status == MQ_OK) {
        status = compile_all(&exclude, options->exclude, options->exclude_count, "--exclude", err);
    }
    if (status == MQ_OK) {
        status = mark_all(out, options, config, &include, &exclude, err);
    }
    if (status == MQ_OK) {
        out->group_size = group_size_for(out, options, config);
        status = group_all(out, options, config, err);
    }
    mq_patterns_free(&include);
    mq_patterns_free(&exclude);
    if (status != MQ_OK) {
        mq_selection_free(out);
    }
    return status;
}

void mq_selection_free(mq_selection *selection) {
    mq_free(selection->groups);
    *selection = (mq_selection){0};
}

bool mq_selection_keeps(const mq_selection *selection, size_t layers, int linear) {
    for (size_t layer = 0; layer < layers; layer++) {
        if (selection->groups[layer][linear] == 0) {
            return true;
        }
    }
    return false;
}

size_t mq_selection_groups(const mq_selection *selection, const mq_config *config) {
    size_t groups = 0;
    for (size_t at = 0; at < selection->layers * MQ_LINEAR_COUNT; at++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, (mq_linear)(at % MQ_LINEAR_COUNT));
        groups += out * selection->groups[at / MQ_LINEAR_COUNT][at % MQ_LINEAR_COUNT];
    }
    return groups;
}
