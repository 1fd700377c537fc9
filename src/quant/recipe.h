/* Recipes: what the options mean for the grid and the loop. */
#ifndef MQ_QUANT_RECIPE_H
#define MQ_QUANT_RECIPE_H

#include "quant/grid.h"

/* MQ_ERR_USAGE for options that contradict each other or are out of range. */
mq_status mq_recipe_check(const mq_quantize_options *options, mq_error *err);

/* The widths that are refitted when the blocks are done, descending; their number, 0 without a
 * refit. */
size_t mq_recipe_refit_widths(unsigned widths[MQ_MAX_WIDTHS], const mq_quantize_options *options);

/* Whether the blocks learn this width. */
bool mq_recipe_is_trained(const mq_quantize_options *options, unsigned width);
/* Whether codes are compensated: only bits that int8 reads alone are, and it has to be trained. */
bool mq_recipe_compensates(const mq_quantize_options *options);
/* Whether a narrower width learns from this one's output. */
bool mq_recipe_is_teacher(const mq_quantize_options *options, unsigned width);

/* The loss of widths[index] is visited on every so many steps: as the options say, or the recipe.
 */
size_t mq_recipe_period(const mq_quantize_options *options, size_t index);
/* How many of a block's steps visit it (quant/visit.h), unless options->sampled. */
size_t mq_recipe_visits(const mq_quantize_options *options, size_t index, size_t steps);
/* A width's lambda for the grid is the sum of all its terms, co-distillation's too. */
mq_grid_options mq_recipe_grid(const mq_quantize_options *options);
const mq_grid_class *mq_recipe_grid_class(const mq_quantize_options *options);
/* Adam's epsilon for the grids of a model's blocks. */
double mq_recipe_epsilon(const mq_quantize_options *options, size_t hidden_size);
/* The same of the embeddings and the head, which nothing is learned of. */
mq_grid_options mq_recipe_embedding_grid(const mq_quantize_options *options);
const mq_grid_class *mq_recipe_embedding_class(const mq_quantize_options *options);
/* The fewest bits that a slice has of the embeddings and the head, where they are quantized. */
unsigned mq_recipe_embedding_min_width(const mq_quantize_options *options);

#endif
