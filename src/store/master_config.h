/* "quantization_config" of a master's config.json, written and read. */
#ifndef MQ_STORE_MASTER_CONFIG_H
#define MQ_STORE_MASTER_CONFIG_H

#include "base/json.h"
#include "base/json_build.h"
#include "matquant/format.h"

#define MQ_EMBEDDING_LAYERS 2 /* the embedding and the head */

typedef struct mq_master_settings {
    mq_slice_rule slice_rule;
    mq_zero_point zero_point;
    size_t group_size;  /* 0: one a row */
    unsigned widths[7]; /* descending */
    size_t width_count;
    unsigned embedding_bits;                           /* 0: embedding and head are not quantized */
    const char *embedding_layers[MQ_EMBEDDING_LAYERS]; /* prefixes; another's */
    size_t embedding_count;
} mq_master_settings;

/* The least width of a layer's slices: 0 of a linear of the blocks. */
unsigned mq_layer_min_width(const mq_master_settings *settings, const char *prefix);
/* The widths that such a layer is stored in, descending, of a master that serves served[count];
 * their number. */
size_t mq_layer_widths(unsigned widths[7], const unsigned served[], size_t count,
                       unsigned min_width);

/* Puts the object into config, a config.json; NULL after a failure. */
cJSON *mq_master_settings_put(mq_json *json, cJSON *config, const mq_master_settings *settings,
                              const char *const *ignored, size_t ignored_count);
/* From config (all of config.json, which came from file, and must outlive *out): MQ_ERR_INPUT for
 * everything that the format says a reader must reject. */
mq_status mq_master_settings_parse(mq_master_settings *out, const cJSON *config, const char *file,
                                   mq_error *err);

bool mq_serves(const mq_master_settings *settings, unsigned width);
/* "8, 4, 2" into out; always terminated. */
const char *mq_widths_text(char *out, size_t size, const unsigned *widths, size_t count);

#endif
