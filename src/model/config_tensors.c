/* The tensors that a model of a configuration has: their names, shapes, and which there are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"

void mq_config_linear_shape(size_t *out, size_t *in, const mq_config *config, mq_linear linear) {
    const size_t queries = config->num_attention_heads * config->head_dim;
    const size_t keys = config->num_key_value_heads * config->head_dim;
    const size_t shapes[MQ_LINEAR_COUNT][2] = {
        [MQ_Q] = {queries, config->hidden_size},
        [MQ_K] = {keys, config->hidden_size},
        [MQ_V] = {keys, config->hidden_size},
        [MQ_O] = {config->hidden_size, queries},
        [MQ_GATE] = {config->intermediate_size, config->hidden_size},
        [MQ_UP] = {config->intermediate_size, config->hidden_size},
        [MQ_DOWN] = {config->hidden_size, config->intermediate_size},
    };
    *out = shapes[linear][0];
    *in = shapes[linear][1];
}

mq_linear_place mq_config_linear_place(const mq_config *config, mq_linear linear) {
    const char *const *names = config->arch->linear;
    mq_linear_place place = {0, 0};
    for (mq_linear other = 0; other < MQ_LINEAR_COUNT; other++) {
        size_t out, in;
        mq_config_linear_shape(&out, &in, config, other);
        if (strcmp(names[other], names[linear]) == 0) {
            place.first += other < linear ? out : 0;
            place.rows += out;
        }
    }
    return place;
}

bool mq_config_has_bias(const mq_config *config, mq_linear linear) {
    if (linear == MQ_GATE || linear == MQ_UP || linear == MQ_DOWN) {
        return config->mlp_bias;
    }
    return config->attention_bias || (config->arch->qkv_bias && linear != MQ_O);
}

/* Of what a norm takes: heads of queries or keys; 0: the residual stream, or what is added to it.
 */
static size_t heads_of(const mq_config *config, mq_norm norm) {
    return norm == MQ_NORM_Q   ? config->num_attention_heads
           : norm == MQ_NORM_K ? config->num_key_value_heads
                               : 0;
}

size_t mq_config_norm_size(const mq_config *config, mq_norm norm) {
    if (config->arch->norm[norm] == NULL) {
        return 0;
    }
    const size_t heads = heads_of(config, norm);
    return heads == 0                    ? config->hidden_size
           : config->arch->qk_norm_whole ? heads * config->head_dim
                                         : config->head_dim;
}

size_t mq_config_norm_rows(const mq_config *config, mq_norm norm) {
    const size_t heads = heads_of(config, norm);
    return heads > 0 && !config->arch->qk_norm_whole ? heads : 1;
}

static void block_name(char name[MQ_NAME_SIZE], const mq_config *config, size_t layer,
                       const char *part, const char *suffix) {
    char prefix[MQ_NAME_SIZE / 2];
    snprintf(prefix, sizeof prefix, mq_config_layout(config)->block_prefix, layer);
    snprintf(name, MQ_NAME_SIZE, "%s%s.%s", prefix, part, suffix);
}

const char *const *mq_config_unused_heads(const char *names[MQ_LAYOUT_COUNT + 1],
                                          const mq_config *config) {
    size_t count = 0;
    for (int kind = 0; config->tie_word_embeddings && kind < MQ_LAYOUT_COUNT; kind++) {
        names[count++] = mq_arch_layout(config->arch, (mq_layout_kind)kind)->head;
    }
    names[count] = NULL;
    return names;
}

bool mq_config_is_unused_head(const mq_config *config, const char *name) {
    const char *head = mq_config_layout(config)->head;
    const size_t length = strlen(head) - strlen(".weight");
    return config->tie_word_embeddings && strncmp(name, head, length) == 0 &&
           (name[length] == '\0' || strcmp(name + length, ".weight") == 0);
}

void mq_config_linear_name(char name[MQ_NAME_SIZE], const mq_config *config, size_t layer,
                           mq_linear linear, const char *suffix) {
    block_name(name, config, layer, config->arch->linear[linear], suffix);
}

void mq_config_norm_name(char name[MQ_NAME_SIZE], const mq_config *config, size_t layer,
                         mq_norm norm) {
    block_name(name, config, layer, config->arch->norm[norm], "weight");
}

static bool is_of_block(const mq_config *config, size_t layer, const char *name) {
    char known[MQ_NAME_SIZE];
    bool found = false;
    for (int i = 0; !found && i < MQ_LINEAR_COUNT; i++) {
        mq_config_linear_name(known, config, layer, (mq_linear)i, "weight");
        found = strcmp(name, known) == 0;
        if (!found && mq_config_has_bias(config, (mq_linear)i)) {
            mq_config_linear_name(known, config, layer, (mq_linear)i, "bias");
            found = strcmp(name, known) == 0;
        }
    }
    for (int i = 0; !found && i < MQ_NORM_COUNT; i++) {
        if (mq_config_norm_size(config, (mq_norm)i) != 0) {
            mq_config_norm_name(known, config, layer, (mq_norm)i);
            found = strcmp(name, known) == 0;
        }
    }
    return found;
}

bool mq_config_has_tensor(const mq_config *config, const char *name) {
    const mq_layout *layout = mq_config_layout(config);
    if (strcmp(name, layout->embedding) == 0 || strcmp(name, layout->final_norm) == 0 ||
        strcmp(name, layout->head) == 0) {
        return true;
    }
    const size_t before = strcspn(layout->block_prefix, "%");
    if (strncmp(name, layout->block_prefix, before) != 0) {
        return false;
    }
    /* What is no number gives a block whose names are none of this one. */
    const unsigned long layer = strtoul(name + before, NULL, 10);
    return layer < config->num_hidden_layers && is_of_block(config, layer, name);
}

/* The number of the prefix that the name begins with; of their end: none. */
static size_t find_part(const mq_layout *layout, const char *name) {
    size_t at = 0;
    while (layout->other_parts[at] != NULL &&
           strncmp(name, layout->other_parts[at], strlen(layout->other_parts[at])) != 0) {
        at++;
    }
    return at;
}

bool mq_config_is_of_other_part(const mq_config *config, const char *name) {
    const mq_layout *layout = mq_config_layout(config);
    return layout->other_parts != NULL && layout->other_parts[find_part(layout, name)] != NULL;
}

/* --- layouts ---------------------------------------------------------------------------------- */

void mq_config_find_layout(mq_config *config, const mq_tensors *tensors) {
    config->layout = MQ_LAYOUT_PUBLISHED;
    for (int kind = 0; kind < MQ_LAYOUT_COUNT; kind++) {
        const mq_layout *layout = mq_arch_layout(config->arch, (mq_layout_kind)kind);
        if (mq_tensors_find(tensors, layout->final_norm) != NULL) {
            config->layout = (mq_layout_kind)kind;
            return;
        }
    }
}

/* What all names have in common that begin with a layout's name, a block's prefix or a tensor's: up
 * to the layer's number, or to ".weight", which the name of a layer ends without. */
static size_t stem_length(const char *own) {
    const size_t length = strcspn(own, "%");
    return own[length] == '%' ? length : length - strlen(".weight");
}

static bool has_stem(const char *name, const char *own) {
    const size_t length = stem_length(own);
    return strncmp(name, own, length) == 0 &&
           (own[length] == '%' || name[length] == '.' || name[length] == '\0');
}

/* begin[length] and end; from where there is no room for both, as there is for all names of ours.
 */
static const char *join(char name[MQ_NAME_SIZE], const char *begin, size_t length, const char *end,
                        const char *from) {
    const size_t rest = strlen(end) + 1;
    if (length + rest > MQ_NAME_SIZE) {
        return from;
    }
    memcpy(name, begin, length);
    memcpy(name + length, end, rest);
    return name;
}

const char *mq_config_rename(char name[MQ_NAME_SIZE], const mq_config *config, const char *from,
                             mq_layout_kind layout) {
    const mq_layout *own = mq_config_layout(config), *to = mq_arch_layout(config->arch, layout);
    if (own == to) {
        return from;
    }
    const char *const pairs[][2] = {{own->block_prefix, to->block_prefix},
                                    {own->embedding, to->embedding},
                                    {own->final_norm, to->final_norm},
                                    {own->head, to->head}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (has_stem(from, pairs[i][0])) {
            return join(name, pairs[i][1], stem_length(pairs[i][1]),
                        from + stem_length(pairs[i][0]), from);
        }
    }
    if (!mq_config_is_of_other_part(config, from)) {
        return from;
    }
    const size_t part = find_part(own, from);
    const char *begin = to->other_parts[part];
    return join(name, begin, strlen(begin), from + strlen(own->other_parts[part]), from);
}
