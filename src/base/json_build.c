#include "base/json_build.h"

mq_json mq_json_begin(cJSON *root) { return (mq_json){.root = root, .failed = root == NULL}; }

/* item becomes at's; NULL: there was no memory for it. */
static cJSON *put(mq_json *json, cJSON *at, const char *key, cJSON *item) {
    bool good = !json->failed && at != NULL && item != NULL;
    if (good) {
        good = key != NULL ? cJSON_AddItemToObject(at, key, item) : cJSON_AddItemToArray(at, item);
    }
    if (!good) {
        cJSON_Delete(item);
        json->failed = true;
    }
    return good ? item : NULL;
}

void mq_json_put_number(mq_json *json, cJSON *at, const char *key, double value) {
    put(json, at, key, cJSON_CreateNumber(value));
}

void mq_json_put_size(mq_json *json, cJSON *at, const char *key, size_t value) {
    put(json, at, key, cJSON_CreateNumber((double)value));
}

void mq_json_put_bool(mq_json *json, cJSON *at, const char *key, bool value) {
    put(json, at, key, cJSON_CreateBool(value));
}

void mq_json_put_text(mq_json *json, cJSON *at, const char *key, const char *value) {
    put(json, at, key, cJSON_CreateString(value));
}

void mq_json_put_null(mq_json *json, cJSON *at, const char *key) {
    put(json, at, key, cJSON_CreateNull());
}

cJSON *mq_json_put_object(mq_json *json, cJSON *at, const char *key) {
    return put(json, at, key, cJSON_CreateObject());
}

cJSON *mq_json_put_array(mq_json *json, cJSON *at, const char *key) {
    return put(json, at, key, cJSON_CreateArray());
}

cJSON *mq_json_put_copy(mq_json *json, cJSON *at, const char *key, const cJSON *value) {
    return put(json, at, key, cJSON_Duplicate(value, true));
}

mq_status mq_json_check(const mq_json *json, const char *what, mq_error *err) {
    return json->failed ? mq_fail_memory(err, what, 0) : MQ_OK;
}

mq_status mq_json_take(cJSON **out, mq_json *json, mq_status status, const char *what,
                       mq_error *err) {
    if (status == MQ_OK) {
        status = mq_json_check(json, what, err);
    }
    *out = json->root;
    if (status != MQ_OK) {
        cJSON_Delete(json->root);
        *out = NULL;
    }
    json->root = NULL;
    return status;
}
