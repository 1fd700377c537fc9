/* config.json as mlx-lm reads it, and what of a model mlx-lm does not read. */
#ifndef MQ_EXPORT_MLX_CONFIG_H
#define MQ_EXPORT_MLX_CONFIG_H

#include "export/plan.h"

/* Makes config.json say to mlx-lm what it says to transformers: rotary settings in the spelling
 * that its families read, and by value whatever is left to a default, which is often another one
 * there. mq_config_same holds of json before and after. */
mq_status mq_mlx_spell_config(cJSON *json, const mq_config *config, mq_error *err);

/* Warns of settings that mlx-lm has not for the model's family, which it leaves out without a word,
 * or does not load. `eval` reads the slice all the same. */
void mq_mlx_warn_of_reader(const mq_plan *plan);

#endif
