#include "model/config_parts.h"

#include <string.h>

static bool same_numbers(const double *a, const double *b, size_t count) {
    bool same = true;
    for (size_t i = 0; i < count; i++) {
        same = same && !(a[i] < b[i]) && !(a[i] > b[i]);
    }
    return same;
}

/* Numbers of a rotation. */
#define ROPE_NUMBERS(r)                                                                            \
    {                                                                                              \
        (r)->rope_theta, (r)->factor, (r)->low_freq_factor, (r)->high_freq_factor, (r)->beta_fast, \
            (r)->beta_slow, (r)->attention_factor, (r)->mscale, (r)->mscale_all_dim                \
    }

bool mq_rope_same(const mq_rope *a, const mq_rope *b) {
    const double of_a[] = ROPE_NUMBERS(a), of_b[] = ROPE_NUMBERS(b);
    return a->type == b->type && a->truncate == b->truncate &&
           a->original_max_position_embeddings == b->original_max_position_embeddings &&
           same_numbers(of_a, of_b, sizeof of_a / sizeof *of_a) &&
           a->factor_count == b->factor_count &&
           same_numbers(a->short_factor, b->short_factor, a->factor_count) &&
           same_numbers(a->long_factor, b->long_factor, a->factor_count);
}

#define SIZES(c)                                                                                   \
    {                                                                                              \
        (c)->hidden_size, (c)->intermediate_size, (c)->num_hidden_layers,                          \
            (c)->num_attention_heads, (c)->num_key_value_heads, (c)->head_dim, (c)->vocab_size,    \
            (c)->max_position_embeddings, (c)->sliding_window, (c)->unrotated_dim                  \
    }
#define NUMBERS(c)                                                                                 \
    {                                                                                              \
        (c)->rms_norm_eps, (c)->attention_scale, (c)->attn_logit_softcapping,                      \
            (c)->final_logit_softcapping, (c)->embedding_multiplier, (c)->residual_multiplier,     \
            (c)->logits_scaling                                                                    \
    }

bool mq_config_same(const mq_config *a, const mq_config *b) {
    const size_t sizes_a[] = SIZES(a), sizes_b[] = SIZES(b);
    const double of_a[] = NUMBERS(a), of_b[] = NUMBERS(b);
    return a->arch == b->arch && memcmp(sizes_a, sizes_b, sizeof sizes_a) == 0 &&
           a->tie_word_embeddings == b->tie_word_embeddings &&
           a->attention_bias == b->attention_bias && a->mlp_bias == b->mlp_bias &&
           a->activation == b->activation && same_numbers(of_a, of_b, sizeof of_a / sizeof *of_a) &&
           memcmp(a->layer_is_local, b->layer_is_local,
                  a->num_hidden_layers * sizeof *a->layer_is_local) == 0 &&
           memcmp(a->layer_rotation, b->layer_rotation,
                  a->num_hidden_layers * sizeof *a->layer_rotation) == 0 &&
           mq_rope_same(&a->rope[0], &b->rope[0]) && mq_rope_same(&a->rope[1], &b->rope[1]);
}
