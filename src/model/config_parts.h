/* The parts of mq_config_parse; for the files config*.c only. */
#ifndef MQ_MODEL_CONFIG_PARTS_H
#define MQ_MODEL_CONFIG_PARTS_H

#include "model/config.h"

/* Of sizes, also those that nothing is allocated by: the BLAS counts in int, and the formats that
 * slices are written in have 32 bits for them. */
#define MQ_MAX_DIMENSION ((size_t)2147483647)

/* Every member of config.json must be a field that arch reads, one known to have no influence on
 * the logits, one that has the only value which changes nothing, or null. Otherwise MQ_ERR_INPUT
 * naming it; also for a member that is there twice. */
mq_status mq_config_check_fields(const mq_arch *arch, const cJSON *json, const char *file,
                                 mq_error *err);

/* Fills config->rope from either spelling. Needs arch, head_dim and max_position_embeddings. */
mq_status mq_config_parse_rope(mq_config *config, const cJSON *json, const char *file,
                               mq_error *err);

/* Makes config->layer_rotation. Needs arch, num_hidden_layers and layer_is_local. */
mq_status mq_config_parse_rotations(mq_config *config, const cJSON *json, const char *file,
                                    mq_error *err);

/* Whether two rotations are the same. */
bool mq_rope_same(const mq_rope *a, const mq_rope *b);

/* A member that is there and not null, or NULL. */
const cJSON *mq_config_member(const cJSON *json, const char *key);

#endif
