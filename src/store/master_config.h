/* "quantization_config" of a master's config.json, written and read. */
#ifndef MQ_STORE_MASTER_CONFIG_H
#define MQ_STORE_MASTER_CONFIG_H

#include "base/json.h"
#include "matquant/format.h"

typedef struct mq_master_settings {
    mq_slice_rule slice_rule;
    mq_zero_point zero_point;
    size_t group_size;  /* 0: one a row */
    unsigned widths[7]; /* descending */
    size_t width_count;
} mq_master_settings;

/* The object; NULL: no memory. */
cJSON *mq_master_settings_json(const mq_master_settings *settings, const char *const *ignored,
                               size_t ignored_count);
/* From config (all of config.json, which came from file): MQ_ERR_INPUT for everything that the
 * format says a reader must reject. */
mq_status mq_master_settings_parse(mq_master_settings *out, const cJSON *config, const char *file,
                                   mq_error *err);

bool mq_serves(const mq_master_settings *settings, unsigned width);
/* "8, 4, 2" into out; always terminated. */
const char *mq_widths_text(char *out, size_t size, const unsigned *widths, size_t count);

#endif
