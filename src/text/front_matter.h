/* What README.md of a model says of it in front of its text, for the hub: YAML between the first
 * two lines "---". */
#ifndef MQ_TEXT_FRONT_MATTER_H
#define MQ_TEXT_FRONT_MATTER_H

#include "base/json_build.h"

/* The keys that are read: license, license_name, license_link, language, base_model; ends with
 * NULL. */
const char *const *mq_front_matter_keys(void);

/* *out: an object with those of the keys that stand there at the top level. A value is a scalar on
 * the key's own line (a string, whatever YAML would take it for), or a list of such, [a, b] or
 * lines
 * "- a" (an array of strings). A key whose value is anything else, or is not UTF-8, is left out; no
 * text is an error. *out is the caller's (cJSON_Delete). MQ_ERR_MACHINE: no memory. */
mq_status mq_front_matter_read(cJSON **out, const char *text, size_t size, mq_error *err);

#endif
