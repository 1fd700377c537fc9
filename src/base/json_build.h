/* Building JSON through cJSON: members are put one after the other, and whether memory was there
 * for all of them is asked once, at the end. */
#ifndef MQ_BASE_JSON_BUILD_H
#define MQ_BASE_JSON_BUILD_H

#include <cjson/cJSON.h>

#include "base/error.h"

typedef struct mq_json {
    cJSON *root; /* the builder's own; NULL in one that puts into another's values */
    bool failed; /* memory was lacking: nothing is put any more */
} mq_json;

/* root, a value just created, becomes the builder's; NULL: there was no memory for it. A builder
 * without a root is {.root = NULL}. */
mq_json mq_json_begin(cJSON *root);

/* Each puts a value into `at`: an object, under key, or with key NULL an array, at its end. at is
 * the builder's root, what one of these functions returned (NULL after a failure), or another's.
 * Numbers that are not finite print as null. */
void mq_json_put_number(mq_json *json, cJSON *at, const char *key, double value);
void mq_json_put_size(mq_json *json, cJSON *at, const char *key, size_t value); /* up to 2^53 */
void mq_json_put_bool(mq_json *json, cJSON *at, const char *key, bool value);
void mq_json_put_text(mq_json *json, cJSON *at, const char *key, const char *value);
void mq_json_put_null(mq_json *json, cJSON *at, const char *key);
/* The new value, to put more into; NULL after a failure. */
cJSON *mq_json_put_object(mq_json *json, cJSON *at, const char *key);
cJSON *mq_json_put_array(mq_json *json, cJSON *at, const char *key);
/* A deep copy of a value. */
cJSON *mq_json_put_copy(mq_json *json, cJSON *at, const char *key, const cJSON *value);

/* MQ_OK, or what lack of memory for `what` (static text) is. */
mq_status mq_json_check(const mq_json *json, const char *what, mq_error *err);

/* Ends a builder with a root. *out is the root, the caller's (cJSON_Delete), if status, which
 * stands for all else that went into it, is MQ_OK and mq_json_check is; else NULL. */
mq_status mq_json_take(cJSON **out, mq_json *json, mq_status status, const char *what,
                       mq_error *err);

#endif
