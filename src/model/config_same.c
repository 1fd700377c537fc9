#include "model/config.h"

#include <string.h>

static const char weight[] = ".weight";

bool mq_config_is_unused_head(const mq_config *config, const char *name) {
    const char *head = config->arch->head;
    const size_t length = strlen(head) - strlen(weight);
    return config->tie_word_embeddings && strncmp(name, head, length) == 0 &&
           (name[length] == '\0' || strcmp(name + length, weight) == 0);
}

static bool same_numbers(const double *a, const double *b, size_t count) {
    bool same = true;
    for (size_t i = 0; i < count; i++) {
        same = same && !(a[i] < b[i]) && !(a[i] > b[i]);
    }
    return same;
}

static bool same_rope(const mq_rope *a, const mq_rope *b) {
    const double of_a[] = {a->rope_theta,       a->factor,    a->low_freq_factor,
                           a->high_freq_factor, a->beta_fast, a->beta_slow,
                           a->attention_factor, a->mscale,    a->mscale_all_dim};
    const double of_b[] = {b->rope_theta,       b->factor,    b->low_freq_factor,
                           b->high_freq_factor, b->beta_fast, b->beta_slow,
                           b->attention_factor, b->mscale,    b->mscale_all_dim};
    return a->type == b->type && a->truncate == b->truncate &&
           a->original_max_position_embeddings == b->original_max_position_embeddings &&
           same_numbers(of_a, of_b, sizeof of_a / sizeof *of_a);
}

static bool same_sizes(const mq_config *a, const mq_config *b) {
    const size_t of_a[] = {a->hidden_size,         a->intermediate_size,       a->num_hidden_layers,
                           a->num_attention_heads, a->num_key_value_heads,     a->head_dim,
                           a->vocab_size,          a->max_position_embeddings, a->sliding_window};
    const size_t of_b[] = {b->hidden_size,         b->intermediate_size,       b->num_hidden_layers,
                           b->num_attention_heads, b->num_key_value_heads,     b->head_dim,
                           b->vocab_size,          b->max_position_embeddings, b->sliding_window};
    return memcmp(of_a, of_b, sizeof of_a) == 0;
}

bool mq_config_same(const mq_config *a, const mq_config *b) {
    const double of_a[] = {a->rms_norm_eps, a->attention_scale, a->attn_logit_softcapping,
                           a->final_logit_softcapping};
    const double of_b[] = {b->rms_norm_eps, b->attention_scale, b->attn_logit_softcapping,
                           b->final_logit_softcapping};
    return a->arch == b->arch && same_sizes(a, b) &&
           a->tie_word_embeddings == b->tie_word_embeddings &&
           a->attention_bias == b->attention_bias && a->mlp_bias == b->mlp_bias &&
           a->activation == b->activation && same_numbers(of_a, of_b, sizeof of_a / sizeof *of_a) &&
           memcmp(a->layer_is_local, b->layer_is_local,
                  a->num_hidden_layers * sizeof *a->layer_is_local) == 0 &&
           same_rope(&a->rope[0], &b->rope[0]) && same_rope(&a->rope[1], &b->rope[1]);
}
