/* A choice's tokens, and what the choices of an item share. */
#include <string.h>

#include "eval/tasks.h"
#include "text/utf8.h"

/* What Python's str.rstrip takes for white space: the property White_Space and four separators. */
static bool is_space(uint32_t code_point) {
    return mq_is_white_space(code_point) || (code_point >= 0x1c && code_point <= 0x1f);
}

/* Bytes of text[size] without the white space at its end. */
static size_t without_spaces(const char *text, size_t size) {
    size_t kept = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code_point;
        at += mq_utf8_decode(&code_point, text + at, size - at);
        kept = is_space(code_point) ? kept : at;
    }
    return kept;
}

static mq_status append_ids(mq_task_set *set, const int32_t *ids, size_t count, size_t vocab_size,
                            mq_error *err) {
    const size_t needed = set->id_count + count;
    if (needed > set->id_capacity) {
        const size_t capacity = needed + needed / 2;
        int32_t *grown = mq_realloc(set->ids, capacity, sizeof *grown);
        if (!grown) {
            return mq_fail_memory(err, "the tasks' tokens", capacity * sizeof *grown);
        }
        set->ids = grown;
        set->id_capacity = capacity;
    }
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= vocab_size) {
            return mq_fail(err, MQ_ERR_INPUT,
                           "token %d is not in the model's vocabulary of %zu tokens: the tokenizer "
                           "is not the model's",
                           (int)ids[i], vocab_size);
        }
        set->ids[set->id_count++] = ids[i];
    }
    return MQ_OK;
}

/* Appends the context's tokens and those of the whole beyond their number. */
static mq_status append_pair(mq_task_choice *choice, mq_task_set *set, const char *whole,
                             size_t size, size_t context_size, const mq_task_encoding *encoding,
                             mq_error *err) {
    const mq_tokenizer *tokenizer = encoding->tokenizer;
    int32_t *ids = NULL, *context_ids = NULL;
    size_t count = 0, context_count = 0;
    mq_status status = mq_tokenizer_encode(&ids, &count, tokenizer, whole, size, false, err);
    if (!status) {
        status = mq_tokenizer_encode(&context_ids, &context_count, tokenizer, whole, context_size,
                                     false, err);
    }
    if (!status && count <= context_count) {
        status = mq_fail(err, MQ_ERR_INPUT, "a continuation that adds no token to its context");
    }
    if (!status && encoding->bos >= 0) {
        status = append_ids(set, &encoding->bos, 1, encoding->vocab_size, err);
    }
    if (!status) {
        status = append_ids(set, context_ids, context_count, encoding->vocab_size, err);
    }
    choice->context = set->id_count - choice->first;
    if (!status && choice->context == 0) { /* of nothing, or of what the tokenizer drops */
        status =
            mq_fail(err, MQ_ERR_INPUT,
                    "an empty context (no tokens), and there is no beginning-of-sequence token "
                    "to put in its place");
    }
    if (!status) {
        status =
            append_ids(set, ids + context_count, count - context_count, encoding->vocab_size, err);
    }
    choice->length = set->id_count - choice->first;
    mq_tokenizer_free_ids(ids);
    mq_tokenizer_free_ids(context_ids);
    return status;
}

/* Cuts the context on the left so that all tokens but the last are at most max_input_tokens. */
static mq_status truncate_context(mq_task_choice *choice, bool *truncated, size_t max_input_tokens,
                                  mq_error *err) {
    if (choice->length - 1 <= max_input_tokens) {
        return MQ_OK;
    }
    const size_t cut = choice->length - 1 - max_input_tokens;
    if (cut >= choice->context) {
        return mq_fail(err, MQ_ERR_INPUT,
                       "a continuation of %zu tokens is longer than the model's %zu positions",
                       choice->length - choice->context, max_input_tokens);
    }
    choice->first += cut;
    choice->length -= cut;
    choice->context -= cut;
    *truncated = true;
    return MQ_OK;
}

mq_status mq_task_encode(mq_task_choice *choice, bool *truncated, mq_task_set *set,
                         const char *context, const char *continuation,
                         const mq_task_encoding *encoding, mq_error *err) {
    const size_t context_size = without_spaces(context, strlen(context));
    *choice = (mq_task_choice){.first = set->id_count, .bytes = strlen(continuation)};
    mq_bytes whole = {0};
    mq_status status = mq_bytes_append(&whole, context, strlen(context), err);
    if (!status) {
        status = mq_bytes_append(&whole, continuation, choice->bytes, err);
    }
    if (!status) {
        status = append_pair(choice, set, whole.data, whole.size, context_size, encoding, err);
    }
    if (!status) {
        status = truncate_context(choice, truncated, encoding->max_input_tokens, err);
    }
    mq_bytes_free(&whole);
    return status;
}

/* Input tokens with which both begin. */
static size_t common(const mq_task_set *set, const mq_task_choice *a, const mq_task_choice *b) {
    const int32_t *x = set->ids + a->first, *y = set->ids + b->first;
    const size_t end = (a->length < b->length ? a->length : b->length) - 1;
    size_t i = 0;
    while (i < end && x[i] == y[i]) {
        i++;
    }
    return i;
}

void mq_task_share(mq_task_set *set, const mq_task_item *item) {
    for (size_t c = item->first; c < item->first + item->count; c++) {
        mq_task_choice *choice = &set->choices[c];
        choice->parent = c;
        choice->shared = 0;
        for (size_t earlier = item->first; earlier < c; earlier++) {
            const size_t length = common(set, choice, &set->choices[earlier]);
            if (length > choice->shared) {
                choice->parent = earlier;
                choice->shared = length;
            }
        }
    }
}
