/* Rotation tables. transformers computes frequencies and angles in float32, and a rounded frequency
 * times a large position is off by much more than a rounding of the angle: so each step here rounds
 * to float where it does. */
#include <math.h>

#include "base/alloc.h"
#include "base/error.h"
#include "model/block.h"

static const double two_pi = 6.283185307179586476925286766559;

/* theta^(2i / rotary_dim), in float32. */
static float wavelength_ratio(double theta, size_t i, size_t rotary_dim) {
    const float exponent = (float)(2 * i) / (float)rotary_dim;
    return (float)pow((double)(float)theta, (double)exponent);
}

static size_t original_length(const mq_rope *rope, const mq_config *config) {
    return rope->original_max_position_embeddings != 0 ? rope->original_max_position_embeddings
                                                       : config->max_position_embeddings;
}

/* NTK-aware scaling of the base by the length at hand (bloc97, 2023). */
static double dynamic_theta(const mq_rope *rope, const mq_config *config, size_t length) {
    const double trained = (double)config->max_position_embeddings;
    const double now = (double)length > trained ? (double)length : trained;
    const double dim = (double)mq_config_rotary_dim(config);
    return rope->rope_theta *
           pow(rope->factor * now / trained - (rope->factor - 1.0), dim / (dim - 2.0));
}

/* Llama 3.1: long wavelengths are stretched by factor, short ones are left, those between
 * interpolated. */
static float llama3_frequency(const mq_rope *rope, float frequency, double original) {
    const float wavelength = (float)two_pi / frequency;
    const float factor = (float)rope->factor;
    const double low = rope->low_freq_factor, high = rope->high_freq_factor;
    if (wavelength > (float)(original / low)) {
        return frequency / factor;
    }
    if (wavelength < (float)(original / high)) {
        return frequency;
    }
    const float smooth = ((float)original / wavelength - (float)low) / (float)(high - low);
    return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

/* YaRN (Peng et al. 2023): the dimension whose wavelength turns `rotations` times within the
 * original length. */
static double yarn_dimension(const mq_rope *rope, double rotations, double dim, double original) {
    return dim * log(original / (rotations * two_pi)) / (2.0 * log(rope->rope_theta));
}

static float yarn_frequency(const mq_rope *rope, size_t i, size_t rotary_dim, double original) {
    const double dim = (double)rotary_dim;
    double low = yarn_dimension(rope, rope->beta_fast, dim, original);
    double high = yarn_dimension(rope, rope->beta_slow, dim, original);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0.0 ? 0.0 : low;
    high = high > dim - 1.0 ? dim - 1.0 : high;
    if (low == high) {
        high += 0.001;
    }
    float ramp = ((float)i - (float)low) / (float)(high - low);
    ramp = ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp;
    const float keep = 1.0f - ramp;
    const float ratio = wavelength_ratio(rope->rope_theta, i, rotary_dim);
    return 1.0f / ((float)rope->factor * ratio) * (1.0f - keep) + 1.0f / ratio * keep;
}

static float inverse_frequency(const mq_rope *rope, const mq_config *config, size_t i,
                               size_t length) {
    const size_t rotary_dim = mq_config_rotary_dim(config);
    const float plain = 1.0f / wavelength_ratio(rope->rope_theta, i, rotary_dim);
    switch (rope->type) {
    case MQ_ROPE_LINEAR:
        return plain / (float)rope->factor;
    case MQ_ROPE_DYNAMIC:
        return 1.0f / wavelength_ratio(dynamic_theta(rope, config, length), i, rotary_dim);
    case MQ_ROPE_LLAMA3:
        return llama3_frequency(rope, plain, (double)original_length(rope, config));
    case MQ_ROPE_YARN:
        return yarn_frequency(rope, i, rotary_dim, (double)original_length(rope, config));
    case MQ_ROPE_LONGROPE:
        return 1.0f /
               ((float)rope->short_factor[i] * wavelength_ratio(rope->rope_theta, i, rotary_dim));
    default:
        return plain;
    }
}

static double yarn_mscale(double factor, double mscale) {
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

double mq_rope_attention_factor(const mq_rope *rope) {
    if (rope->type != MQ_ROPE_YARN && rope->type != MQ_ROPE_LONGROPE) {
        return 1.0;
    }
    if (rope->attention_factor >= 0.0) {
        return rope->attention_factor;
    }
    if (rope->type == MQ_ROPE_LONGROPE) { /* Ding et al. 2024 */
        const double length = (double)rope->original_max_position_embeddings;
        return rope->factor <= 1.0 ? 1.0 : sqrt(1.0 + log(rope->factor) / log(length));
    }
    if (rope->mscale != 0.0 && rope->mscale_all_dim != 0.0) {
        return yarn_mscale(rope->factor, rope->mscale) /
               yarn_mscale(rope->factor, rope->mscale_all_dim);
    }
    return yarn_mscale(rope->factor, 1.0);
}

size_t mq_config_longest(const mq_config *config) {
    const mq_rope *rope = &config->rope[0];
    const size_t most = config->max_position_embeddings;
    return rope->type == MQ_ROPE_LONGROPE ? mq_smaller(rope->original_max_position_embeddings, most)
                                          : most;
}

mq_status mq_config_check_length(const mq_config *config, size_t length, mq_error *err) {
    const mq_rope *rope = &config->rope[0];
    if (rope->type != MQ_ROPE_LONGROPE || length <= rope->original_max_position_embeddings) {
        return MQ_OK;
    }
    return mq_fail(err, MQ_ERR_USAGE,
                   "sequences of %zu tokens are longer than the %zu that the model was made for "
                   "(original_max_position_embeddings); beyond those it rotates by long_factor, "
                   "which is not supported",
                   length, rope->original_max_position_embeddings);
}

void mq_rope_tables(float *cos_table, float *sin_table, const mq_rope *rope,
                    const mq_config *config, size_t length) {
    const size_t half = mq_config_rotary_dim(config) / 2;
    const float factor = (float)mq_rope_attention_factor(rope);
    for (size_t i = 0; i < half; i++) {
        const float frequency = inverse_frequency(rope, config, i, length);
        for (size_t position = 0; position < length; position++) {
            const float angle = (float)position * frequency;
            cos_table[position * half + i] = (float)cos((double)angle) * factor;
            sin_table[position * half + i] = (float)sin((double)angle) * factor;
        }
    }
}

/* --- all of a model's ------------------------------------------------------------------------- */

static bool has_tables(const mq_config *config, mq_rotation rotation) {
    bool found = false;
    for (size_t layer = 0; layer < config->num_hidden_layers; layer++) {
        found = found || config->layer_rotation[layer] == rotation;
    }
    return found && rotation != MQ_ROTATION_NONE;
}

void mq_rotations_carve(mq_rotations *rotations, mq_slab *slab, const mq_config *config,
                        size_t length) {
    const size_t row = mq_config_rotary_dim(config) / 2 * sizeof(float);
    for (mq_rotation i = 0; i < MQ_ROTATION_COUNT; i++) {
        const bool has = has_tables(config, i);
        rotations->cos_table[i] = has ? mq_carve(slab, length, row) : NULL;
        rotations->sin_table[i] = has ? mq_carve(slab, length, row) : NULL;
    }
}

void mq_rotations_fill(const mq_rotations *rotations, const mq_config *config, size_t length) {
    for (mq_rotation i = 0; i < MQ_ROTATION_NONE; i++) {
        if (rotations->cos_table[i] != NULL) {
            mq_rope_tables(rotations->cos_table[i], rotations->sin_table[i], &config->rope[i],
                           config, length);
        }
    }
}

mq_block_shape mq_block_shape_of(const mq_config *config, size_t layer,
                                 const mq_rotations *rotations, size_t sequences, size_t length) {
    const mq_rotation rotation = config->layer_rotation[layer];
    return (mq_block_shape){.config = config,
                            .layer = layer,
                            .sequences = sequences,
                            .length = length,
                            .cos_table = rotations->cos_table[rotation],
                            .sin_table = rotations->sin_table[rotation]};
}
