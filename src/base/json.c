#include "base/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/plain_locale.h"
#include "base/utf8.h"

#define MAX_JSON_FILE ((size_t)256 << 20)
#define MAX_EXACT_INTEGER 9007199254740992.0 /* 2^53 */
#define MOST_WITH_POINT 1e15                 /* larger ones are printed with an exponent */

/* cJSON looks at neither: it takes a NUL for white space and copies any byte into its strings. */
static mq_status check_bytes(const char *text, size_t size, const char *file, mq_error *err) {
    size_t offset;
    if (!mq_utf8_valid(&offset, text, size)) {
        return mq_fail_offset(err, MQ_ERR_INPUT, file, NULL, offset, "JSON is not valid UTF-8");
    }
    const char *nul = memchr(text, '\0', size);
    return nul == NULL ? MQ_OK
                       : mq_fail_offset(err, MQ_ERR_INPUT, file, NULL, (uint64_t)(nul - text),
                                        "JSON holds a NUL byte");
}

/* cJSON keeps strings as C strings and would cut them at the character U+0000: two names could then
 * become one. */
static mq_status check_escapes(const char *text, size_t size, const char *file, mq_error *err) {
    static const char escape[] = "\\u0000";
    const char *end = text + size;
    for (const char *at = text; (at = memmem(at, (size_t)(end - at), escape, 6)) != NULL; at++) {
        const char *before = at; /* an even number of backslashes before it are escaped ones */
        while (before > text && before[-1] == '\\') {
            before--;
        }
        if ((at - before) % 2 == 0) {
            return mq_fail_offset(err, MQ_ERR_INPUT, file, NULL, (uint64_t)(at - text),
                                  "a string that holds the character U+0000 is not supported");
        }
    }
    return MQ_OK;
}

mq_status mq_json_parse(cJSON **out, const char *text, size_t size, const char *file,
                        mq_error *err) {
    mq_status status = check_bytes(text, size, file, err);
    if (status == MQ_OK) {
        status = check_escapes(text, size, file, err);
    }
    if (status != MQ_OK) {
        return status;
    }
    const char *end = text;
    errno = 0; /* cJSON does not say whether it was the text or the memory; malloc does */
    const mq_plain_locale locale = mq_plain_locale_begin();
    cJSON *value = cJSON_ParseWithLengthOpts(text, size, &end, false);
    mq_plain_locale_end(locale);
    if (value == NULL) {
        if (errno == ENOMEM) {
            return mq_error_in_file(err, mq_fail_memory(err, "JSON", size), file);
        }
        return mq_fail_offset(err, MQ_ERR_INPUT, file, NULL, (uint64_t)(end - text),
                              "JSON is malformed");
    }
    while (end < text + size && (*end == ' ' || *end == '\t' || *end == '\n' || *end == '\r')) {
        end++;
    }
    if (end != text + size) {
        cJSON_Delete(value);
        return mq_fail_offset(err, MQ_ERR_INPUT, file, NULL, (uint64_t)(end - text),
                              "something follows the JSON value");
    }
    *out = value;
    return MQ_OK;
}

/* The next number in JSON text that is known to be well-formed; *length 0: there is none. */
static const char *next_number(size_t *length, const char *at, const char *end) {
    bool in_string = false;
    for (; at < end && (in_string || strchr("-0123456789", *at) == NULL); at++) {
        if (*at == '"') {
            in_string = !in_string;
        } else if (*at == '\\' && in_string && at + 1 < end) {
            at++;
        }
    }
    *length = 0;
    while (at + *length < end && strchr("+-.eE0123456789", at[*length]) != NULL) {
        (*length)++;
    }
    return at;
}

static bool is_float(const char *number, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (number[i] == '.' || number[i] == 'e' || number[i] == 'E') {
            return true;
        }
    }
    return false;
}

/* Gives whole numbers that are written with a point or an exponent "30.0" as valuestring, which
 * cJSON copies and frees with the item, and mq_json_print prints. Numbers stand in the text in the
 * order of the tree. *at: where the next one is looked for. False: no memory. */
static bool keep_points(cJSON *value, const char **at, const char *end) {
    if (cJSON_IsNumber(value)) {
        size_t length;
        const char *number = next_number(&length, *at, end);
        *at = number + length;
        const double found = value->valuedouble;
        if (found == floor(found) && fabs(found) < MOST_WITH_POINT && is_float(number, length)) {
            char spelling[32];
            const int size = snprintf(spelling, sizeof spelling, "%.0f.0", found);
            value->valuestring = cJSON_malloc((size_t)size + 1);
            if (value->valuestring == NULL) {
                return false;
            }
            memcpy(value->valuestring, spelling, (size_t)size + 1);
        }
    }
    for (cJSON *item = value->child; item != NULL; item = item->next) {
        if (!keep_points(item, at, end)) {
            return false;
        }
    }
    return true;
}

mq_status mq_json_read(cJSON **out, const char *path, mq_error *err) {
    char *text = NULL;
    size_t size = 0;
    mq_status status = mq_read_file(&text, &size, path, MAX_JSON_FILE, err);
    if (status == MQ_OK) {
        status = mq_is_lfs_pointer(text, size) ? mq_fail_lfs_pointer(err, path)
                                               : mq_json_parse(out, text, size, path, err);
    }
    const char *at = text;
    if (status == MQ_OK && !keep_points(*out, &at, text + size)) {
        cJSON_Delete(*out);
        *out = NULL;
        status = mq_error_in_file(err, mq_fail_memory(err, "JSON", size), path);
    }
    mq_free(text);
    return status;
}

/* *item is the member, or NULL when it is absent (or null) and need not be there. */
static mq_status find_member(const cJSON **item, const cJSON *object, const char *key,
                             bool required, const char *file, mq_error *err) {
    if (!cJSON_IsObject(object)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "not an object where \"%s\" is looked for",
                            key);
    }
    *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNull(*item)) {
        *item = NULL;
    }
    if (*item == NULL && required) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "\"%s\" is missing", key);
    }
    return MQ_OK;
}

mq_status mq_json_get_size(size_t *out, const cJSON *object, const char *key, bool required,
                           const char *file, mq_error *err) {
    const cJSON *item = NULL;
    mq_status status = find_member(&item, object, key, required, file, err);
    if (status != MQ_OK || item == NULL) {
        return status;
    }
    double value = item->valuedouble;
    if (!cJSON_IsNumber(item) || !(value >= 0 && value <= MAX_EXACT_INTEGER) ||
        value != floor(value)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file,
                            "\"%s\" is not a whole number between 0 and 2^53", key);
    }
    *out = (size_t)value;
    return MQ_OK;
}

mq_status mq_json_get_double(double *out, const cJSON *object, const char *key, bool required,
                             const char *file, mq_error *err) {
    const cJSON *item = NULL;
    mq_status status = find_member(&item, object, key, required, file, err);
    if (status != MQ_OK || item == NULL) {
        return status;
    }
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "\"%s\" is not a finite number", key);
    }
    *out = item->valuedouble;
    return MQ_OK;
}

mq_status mq_json_get_bool(bool *out, const cJSON *object, const char *key, bool required,
                           const char *file, mq_error *err) {
    const cJSON *item = NULL;
    mq_status status = find_member(&item, object, key, required, file, err);
    if (status != MQ_OK || item == NULL) {
        return status;
    }
    if (!cJSON_IsBool(item)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "\"%s\" is not true or false", key);
    }
    *out = cJSON_IsTrue(item);
    return MQ_OK;
}

mq_status mq_json_get_string(const char **out, const cJSON *object, const char *key, bool required,
                             const char *file, mq_error *err) {
    const cJSON *item = NULL;
    mq_status status = find_member(&item, object, key, required, file, err);
    if (status != MQ_OK || item == NULL) {
        return status;
    }
    if (!cJSON_IsString(item)) {
        return mq_fail_file(err, MQ_ERR_INPUT, file, "\"%s\" is not a string", key);
    }
    *out = item->valuestring;
    return MQ_OK;
}
