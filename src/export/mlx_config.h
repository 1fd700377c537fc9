/* config.json as mlx-lm reads it, and what of a model mlx-lm does not read. */
#ifndef MQ_EXPORT_MLX_CONFIG_H
#define MQ_EXPORT_MLX_CONFIG_H

#include "base/json_build.h"
#include "export/plan.h"

/* Makes `made`, a copy of config.json, say to mlx-lm what it says to transformers: rotary settings
 * in the spelling that its families read, and by value whatever is left to a default, which is
 * often another one there. mq_config_same holds of it before and after. */
void mq_mlx_spell_config(mq_json *json, cJSON *made, const mq_config *config);

/* Warns of settings that mlx-lm has not for the model's family, which it leaves out without a word,
 * or does not load. `eval` reads the slice all the same. */
void mq_mlx_warn_of_reader(const mq_plan *plan);

#endif
