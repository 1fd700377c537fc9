#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void cli_json_begin(cli_json *json) {
    json->root = cJSON_CreateObject();
    json->failed = json->root == NULL;
}

void cli_json_free(cli_json *json) {
    cJSON_Delete(json->root);
    json->root = NULL;
}

static cJSON *keep(cli_json *json, cJSON *item) {
    json->failed = json->failed || !item;
    return item;
}

void cli_json_number(cli_json *json, cJSON *object, const char *key, double value) {
    keep(json, isfinite(value) ? cJSON_AddNumberToObject(object, key, value)
                               : cJSON_AddNullToObject(object, key));
}

void cli_json_size(cli_json *json, cJSON *object, const char *key, size_t value) {
    char digits[24]; /* cJSON's own numbers are doubles, and large ones have an exponent */
    snprintf(digits, sizeof digits, "%zu", value);
    keep(json, cJSON_AddRawToObject(object, key, digits));
}

void cli_json_bool(cli_json *json, cJSON *object, const char *key, bool value) {
    keep(json, cJSON_AddBoolToObject(object, key, value));
}

void cli_json_null(cli_json *json, cJSON *object, const char *key) {
    keep(json, cJSON_AddNullToObject(object, key));
}

void cli_json_text(cli_json *json, cJSON *object, const char *key, const char *value) {
    if (!value) {
        cli_json_null(json, object, key);
        return;
    }
    char *clean = malloc(3 * strlen(value) + 1);
    if (!clean) {
        json->failed = true;
        return;
    }
    size_t used = 0;
    while (*value) {
        utf8proc_int32_t code_point;
        const utf8proc_ssize_t read = /* up to the NUL at most; not positive: ill-formed */
            utf8proc_iterate((const utf8proc_uint8_t *)value, -1, &code_point);
        const size_t length = read > 0 ? (size_t)read : 0;
        memcpy(clean + used, length ? value : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        value += length ? length : 1;
    }
    clean[used] = 0;
    keep(json, cJSON_AddStringToObject(object, key, clean));
    free(clean);
}

cJSON *cli_json_object(cli_json *json, cJSON *object, const char *key) {
    return keep(json, cJSON_AddObjectToObject(object, key));
}

cJSON *cli_json_array(cli_json *json, cJSON *object, const char *key) {
    return keep(json, cJSON_AddArrayToObject(object, key));
}

cJSON *cli_json_element(cli_json *json, cJSON *array) {
    cJSON *item = cJSON_CreateObject();
    if (!item || !cJSON_AddItemToArray(array, item)) {
        cJSON_Delete(item);
        json->failed = true;
        return NULL;
    }
    return item;
}

void cli_json_raw(cli_json *json, cJSON *object, const char *key, const char *text) {
    cJSON *value = cJSON_Parse(text);
    if (!value || !cJSON_AddItemToObject(object, key, value)) {
        cJSON_Delete(value);
        json->failed = true;
    }
}
