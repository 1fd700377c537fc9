/* The recipes' defaults (docs/method.md, 6). */
#include "quant/recipe.h"

#include <string.h>

/* What the presets give to 2, 4 and 8 bits; between them straight lines. Balanced is the
 * default. What the others cost and bring on SmolLM2 is in tests/bench/RESULTS.md ("The
 * trade-off"); scripts/bench-tradeoff.sh measures the curve that they are points of. */
static const struct {
    double w2, w4, w8;
} presets[] = {
    [MQ_PRESET_NONE] = {1.0, 3.0, 10.0},
    [MQ_PRESET_BALANCED] = {1.0, 3.0, 10.0},
    [MQ_PRESET_NARROW] = {1.0, 2.0, 3.0},
    [MQ_PRESET_WIDE] = {1.0, 6.0, 40.0},
};

/* MatQuant, section 4.1: 0.1, 0.1, 1. */
double mq_quantize_default_lambda(mq_recipe recipe, mq_preset preset, unsigned width) {
    if (recipe == MQ_RECIPE_PAPER) {
        return width > 2 ? 0.1 : 1.0;
    }
    const size_t row = preset < sizeof presets / sizeof *presets ? preset : MQ_PRESET_NONE;
    const double w2 = presets[row].w2, w4 = presets[row].w4, w8 = presets[row].w8;
    return width <= 4 ? w2 + (w4 - w2) * ((double)width - 2.0) / 2.0
                      : w4 + (w8 - w4) * ((double)width - 4.0) / 4.0;
}

/* With a row a group balanced weights leave int8 further behind full precision than the recipe is
 * to have it; wide ones do not, and take little from int4 (tests/bench/RESULTS.md, "The
 * trade-off"). */
mq_preset mq_quantize_default_preset(size_t group_size) {
    return group_size == 0 ? MQ_PRESET_WIDE : MQ_PRESET_BALANCED;
}

mq_quantize_options mq_quantize_defaults(mq_recipe recipe) {
    mq_quantize_options options = {
        .recipe = recipe,
        .width_count = 3,
        .widths = {8, 4, 2},
        .loss = MQ_LOSS_RELATIVE,
        .slice_rule = MQ_SLICE_TOP,
        .group_size = MQ_GROUP_SIZE_AUTO,
        .scope = MQ_SCOPE_ALL,
        .embeddings_min_bits = 4,
        .samples = 64,
        .seq_len = 512,
        .epochs = 4,
        .batch = recipe == MQ_RECIPE_BEST ? 2 : 4, /* quant/nested.c says why */
        .rate = 1.0,
        .refit_batch = 1,
        .compensate = recipe == MQ_RECIPE_BEST,
        .fold = recipe == MQ_RECIPE_BEST,
        /* MatQuant and rounding know no refit; paper can be asked for one. */
        .refit = recipe == MQ_RECIPE_BEST,
        .extend = recipe == MQ_RECIPE_BEST,
        .bos = true,
    };
    for (size_t i = 0; i < options.width_count; i++) {
        options.lambda[i] = mq_quantize_default_lambda(recipe, MQ_PRESET_NONE, options.widths[i]);
    }
    if (recipe == MQ_RECIPE_PAPER) {
        options.loss = MQ_LOSS_L2;
        options.slice_rule = MQ_SLICE_ROUND;
    }
    return options;
}

/* What little time is best spent on, tried on SmolLM2 with groups of 64 (tests/bench/RESULTS.md,
 * "Beside other quantizers"): a second of the refit does more for the narrowest width than one of
 * the blocks, and the others' private numbers are good without it. With int8 in both steps of a
 * block all widths came out a little worse, int8 too. Folding costs int4 and int2 where learning is
 * this short; error compensation costs seconds and is worth them to int8. Weights of preset wide
 * take much off int8's KL and some off int4's, and add little to int2's: here int2's gain comes
 * from the refit, whatever the blocks' weights are. */
void mq_quantize_hurry(mq_quantize_options *options) {
    options->preset = MQ_PRESET_WIDE;
    for (size_t i = 0; i < options->width_count; i++) {
        options->lambda[i] =
            mq_quantize_default_lambda(options->recipe, options->preset, options->widths[i]);
    }
    options->samples = 4;
    options->epochs = 1;
    options->fold = false;
    options->extend = false;
    options->refit_tokens = 40 * options->seq_len;
    options->refit_epochs = 1;
    options->refit_width_count = 1;
    options->refit_widths[0] = options->widths[options->width_count - 1];
}

bool mq_recipe_is_trained(const mq_quantize_options *options, unsigned width) {
    bool found = false;
    for (size_t i = 0; i < options->width_count; i++) {
        found = found || options->widths[i] == width;
    }
    return found;
}

bool mq_recipe_compensates(const mq_quantize_options *options) {
    return options->compensate && mq_recipe_is_trained(options, MQ_MAX_WIDTH);
}

bool mq_recipe_is_teacher(const mq_quantize_options *options, unsigned width) {
    bool found = false;
    for (size_t i = 0; i < options->codistill_count; i++) {
        found = found || options->codistill[i].teacher == width;
    }
    return found;
}

size_t mq_recipe_refit_widths(unsigned widths[MQ_MAX_WIDTHS], const mq_quantize_options *options) {
    if (options->recipe == MQ_RECIPE_RTN || !options->refit) {
        return 0;
    }
    if (options->refit_width_count > 0) {
        memcpy(widths, options->refit_widths, options->refit_width_count * sizeof widths[0]);
        return options->refit_width_count;
    }
    size_t count = 0;
    for (size_t i = 0; i < options->width_count; i++) {
        if (i > 0) {
            /* They gain more than the wider ones: SmolLM2's int3 0.43 to 0.29 nats
             * (tests/bench/RESULTS.md, "The refit"). */
            for (unsigned width = options->widths[i - 1] - 1; width > options->widths[i]; width--) {
                if (width <= MQ_REFIT_BETWEEN) {
                    widths[count++] = width;
                }
            }
        }
        widths[count++] = options->widths[i];
    }
    return count;
}

/* Of the width number i with all its terms. */
static double lambda_of(const mq_quantize_options *options, size_t i) {
    double lambda = options->lambda[i];
    for (size_t j = 0; j < options->codistill_count; j++) {
        if (options->codistill[j].student == options->widths[i]) {
            lambda += options->codistill[j].lambda;
        }
    }
    return lambda;
}

/* A step of int8 costs as much as one of int2 and moves little: its loss is small from the start,
 * and what it asks of the narrower widths' rounding changes slowly. int4 has use for all of its
 * steps: with half of them it is as good in the first blocks and an eighth further from full
 * precision in the whole model. The trials are in tests/bench/RESULTS.md ("Widths in the loss,
 * visits, and text"). */
size_t mq_recipe_period(const mq_quantize_options *options, size_t index) {
    bool narrowest = true; /* of those that learn */
    for (size_t i = index + 1; i < options->width_count; i++) {
        narrowest = narrowest && !(lambda_of(options, i) > 0.0);
    }
    if (options->periods[index] > 0) {
        return options->periods[index];
    }
    const bool wide = options->widths[index] == MQ_MAX_WIDTH && !narrowest;
    return options->recipe == MQ_RECIPE_BEST && wide ? 8 : 1;
}

size_t mq_recipe_visits(const mq_quantize_options *options, size_t index, size_t steps) {
    return lambda_of(options, index) > 0.0 ? steps / mq_recipe_period(options, index) : 0;
}

mq_grid_options mq_recipe_grid(const mq_quantize_options *options) {
    mq_grid_options grid = {
        .width_count = options->width_count,
        .slice_rule = options->slice_rule,
        .zero_point = options->zero_point,
        .start = options->recipe == MQ_RECIPE_RTN ? MQ_START_RANGE : MQ_START_LEARNING,
    };
    for (size_t i = 0; i < options->width_count; i++) {
        grid.widths[i] = options->widths[i];
        grid.lambda[i] = lambda_of(options, i);
    }
    if (options->recipe == MQ_RECIPE_RTN) {
        grid.width_count = 0; /* nothing is learned: every width gets its least-squares pair */
    }
    return grid;
}

const mq_grid_class *mq_recipe_grid_class(const mq_quantize_options *options) {
    const bool nests =
        options->slice_rule == MQ_SLICE_TOP ||
        (options->zero_point == MQ_ZERO_SYMMETRIC && options->recipe != MQ_RECIPE_PAPER);
    return nests ? &mq_nested_grid : &mq_clip_grid;
}

double mq_recipe_epsilon(const mq_quantize_options *options, size_t hidden_size) {
    const size_t batch = options->batch < options->samples ? options->batch : options->samples;
    return mq_recipe_grid_class(options)->scaled_epsilon
               ? mq_adam_blocks_epsilon(hidden_size, (double)batch * (double)options->seq_len)
               : MQ_ADAM_EPSILON;
}

const mq_grid_class *mq_recipe_embedding_class(const mq_quantize_options *options) {
    return options->slice_rule == MQ_SLICE_TOP || options->zero_point == MQ_ZERO_SYMMETRIC
               ? &mq_nested_grid
               : &mq_clip_grid;
}

unsigned mq_recipe_embedding_min_width(const mq_quantize_options *options) {
    return options->embeddings == MQ_EMBEDDINGS_8 ? MQ_MAX_WIDTH : options->embeddings_min_bits;
}

/* The search weighs the widths' slices as the recipe weighs the widths that take them. */
mq_grid_options mq_recipe_embedding_grid(const mq_quantize_options *options) {
    mq_grid_options grid = {.slice_rule = options->slice_rule,
                            .zero_point = options->zero_point,
                            .start = MQ_START_SEARCH};
    const unsigned least = mq_recipe_embedding_min_width(options);
    for (size_t i = 0; i < options->width_count; i++) {
        const unsigned width = options->widths[i] > least ? options->widths[i] : least;
        if (grid.width_count > 0 && grid.widths[grid.width_count - 1] == width) {
            grid.lambda[grid.width_count - 1] += lambda_of(options, i);
            continue;
        }
        grid.widths[grid.width_count] = width;
        grid.lambda[grid.width_count++] = lambda_of(options, i);
    }
    return grid;
}
