/* The parts of mq_config_parse; for the files config*.c only. */
#ifndef MQ_MODEL_CONFIG_PARTS_H
#define MQ_MODEL_CONFIG_PARTS_H

#include "model/config.h"

/* Of sizes, also those that nothing is allocated by: the BLAS counts in int, and the formats that
 * slices are written in have 32 bits for them. */
#define MQ_MAX_DIMENSION ((size_t)2147483647)

/* *text: the object that describes the language model, json itself or a member of it, which must
 * then be there. */
mq_status mq_config_find_text(const cJSON **text, const mq_arch *arch, const cJSON *json,
                              const char *file, mq_error *err);
/* Says that an error is of that member, if it is one; returns status. */
mq_status mq_config_in_text(mq_error *err, mq_status status, const mq_arch *arch);
/* What may stand beside that member as well as in it; the latter was parsed. */
mq_status mq_config_parse_beside(mq_config *config, const cJSON *json, const cJSON *text,
                                 const char *file, mq_error *err);

/* Every member of config.json, and of `text` in it, must be a field that arch reads, one known to
 * have no influence on the logits, one that has the only value which changes nothing, or null.
 * Otherwise MQ_ERR_INPUT naming it; also for a member that is there twice. */
mq_status mq_config_check_fields(const mq_arch *arch, const cJSON *json, const cJSON *text,
                                 const char *file, mq_error *err);

/* The activation of the feed-forward part. Needs arch. */
mq_status mq_config_parse_activation(mq_config *config, const cJSON *json, const char *file,
                                     mq_error *err);

/* Epsilon, scales and caps, and which linears have biases. Needs arch and sizes. */
mq_status mq_config_parse_numbers(mq_config *config, const cJSON *json, const char *file,
                                  mq_error *err);

/* Fills config->rope from either spelling. Needs arch, head_dim, unrotated_dim and
 * max_position_embeddings. */
mq_status mq_config_parse_rope(mq_config *config, const cJSON *json, const char *file,
                               mq_error *err);

/* Makes config->layer_rotation and unrotated_dim. Needs arch, head_dim, num_hidden_layers and
 * layer_is_local. */
mq_status mq_config_parse_rotations(mq_config *config, const cJSON *json, const char *file,
                                    mq_error *err);

/* Whether two rotations are the same. */
bool mq_rope_same(const mq_rope *a, const mq_rope *b);

/* A member that is there and not null, or NULL. */
const cJSON *mq_config_member(const cJSON *json, const char *key);

#endif
