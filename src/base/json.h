/* Reading and writing JSON through cJSON, with errors that name the file and the field. */
#ifndef MQ_BASE_JSON_H
#define MQ_BASE_JSON_H

#include <cjson/cJSON.h>

#include "base/file.h"

/* Parses size bytes; on failure MQ_ERR_INPUT with file and the byte offset (within a byte of it).
 * Nothing but white space may follow the value; a NUL byte inside is an error, as is the escape
 * of one; nesting is limited by cJSON. *out is the caller's (cJSON_Delete).
 *
 * cJSON keeps numbers as double: integers above 2^53 are refused by mq_json_get_size. */
mq_status mq_json_parse(cJSON **out, const char *text, size_t size, const char *file,
                        mq_error *err);
/* The same of a file of at most 256 MiB. A whole number that is not written as an integer (30.0,
 * 1e6) is printed with a point by mq_json_print, also after cJSON_Duplicate: to some readers of a
 * config.json one without a point is of another type. */
mq_status mq_json_read(cJSON **out, const char *path, mq_error *err);

/* Members of an object, by exact name. `required` says whether absence (or null) is an error; when
 * it is absent and not required, *out is left as it was. A wrong type is always MQ_ERR_INPUT naming
 * file and key. */
mq_status mq_json_get_size(size_t *out, const cJSON *object, const char *key, bool required,
                           const char *file, mq_error *err);
mq_status mq_json_get_double(double *out, const cJSON *object, const char *key, bool required,
                             const char *file, mq_error *err);
mq_status mq_json_get_bool(bool *out, const cJSON *object, const char *key, bool required,
                           const char *file, mq_error *err);
/* *out points into the object. */
mq_status mq_json_get_string(const char **out, const cJSON *object, const char *key, bool required,
                             const char *file, mq_error *err);

/* Indented text of a value, with a final newline; numbers print as the shortest text that reads
 * back the same double. The caller's (mq_free); NULL: no memory. */
char *mq_json_print(const cJSON *value);

#endif
