#define PCRE2_CODE_UNIT_WIDTH 8
#include "quant/patterns.h"

#include <pcre2.h>
#include <string.h>

struct mq_pattern {
    pcre2_code *code;
    const char *text; /* [length], the caller's */
    size_t length;
    bool used; /* found in a name so far */
};

mq_status mq_patterns_begin(mq_patterns *list, size_t capacity, const char *option, mq_error *err) {
    *list = (mq_patterns){.capacity = capacity, .option = option};
    list->items = mq_calloc(capacity, sizeof *list->items);
    list->match = pcre2_match_data_create(1, NULL);
    return list->items != NULL && list->match != NULL
               ? MQ_OK
               : mq_fail_memory(err, "the name patterns", capacity * sizeof *list->items);
}

mq_status mq_patterns_add(mq_patterns *list, const char *text, size_t length, mq_error *err) {
    int number;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)text, length, PCRE2_UTF, &number, &offset, NULL);
    if (code == NULL) {
        PCRE2_UCHAR message[128] = "";
        pcre2_get_error_message(number, message, sizeof message);
        return mq_fail(err, MQ_ERR_USAGE,
                       "%s '%.*s' is not a regular expression: %s at character %zu", list->option,
                       (int)length, text, (const char *)message, (size_t)offset);
    }
    list->items[list->count++] = (mq_pattern){.code = code, .text = text, .length = length};
    return MQ_OK;
}

void mq_patterns_free(mq_patterns *list) {
    for (size_t i = 0; i < list->count; i++) {
        pcre2_code_free(list->items[i].code);
    }
    mq_free(list->items);
    pcre2_match_data_free(list->match);
    *list = (mq_patterns){0};
}

mq_status mq_patterns_match(size_t *last, mq_patterns *list, const char *name, mq_error *err) {
    *last = 0;
    for (size_t i = 0; i < list->count; i++) {
        mq_pattern *item = &list->items[i];
        const int found =
            pcre2_match(item->code, (PCRE2_SPTR)name, strlen(name), 0, 0, list->match, NULL);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH) {
            PCRE2_UCHAR message[128] = "";
            pcre2_get_error_message(found, message, sizeof message);
            return mq_fail_tensor(err, MQ_ERR_USAGE, NULL, name,
                                  "a name pattern cannot be matched: %s", (const char *)message);
        }
        item->used = item->used || found >= 0;
        *last = found >= 0 ? i + 1 : *last;
    }
    return MQ_OK;
}

const char *mq_patterns_unused(size_t *length, const mq_patterns *list) {
    for (size_t i = 0; i < list->count; i++) {
        if (!list->items[i].used) {
            *length = list->items[i].length;
            return list->items[i].text;
        }
    }
    return NULL;
}
