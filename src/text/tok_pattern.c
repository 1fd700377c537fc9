#include "text/tok_pattern.h"

#include <string.h>

#include "base/error.h"

#define JIT_STACK_MIN ((size_t)32 << 10)
#define JIT_STACK_MAX ((size_t)16 << 20)

/* PCRE2's memory comes through base/alloc.h as everything else does. */
static void *pattern_alloc(size_t size, void *user) {
    (void)user;
    return mq_alloc(size, 1);
}

static void pattern_free(void *memory, void *user) {
    (void)user;
    mq_free(memory);
}

mq_status mq_matcher_init(mq_matcher *matcher, mq_error *err) {
    *matcher = (mq_matcher){0};
    pcre2_general_context *general =
        pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    if (general) {
        matcher->data = pcre2_match_data_create(1, general);
        matcher->context = pcre2_match_context_create(general);
        matcher->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, general);
    }
    pcre2_general_context_free(general);
    if (!matcher->data || !matcher->context || !matcher->stack) {
        mq_matcher_free(matcher);
        return mq_fail_memory(err, "matching", JIT_STACK_MIN);
    }
    pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    /* long runs of white space are backtracked over once, which the default limit would take for a
     * runaway */
    pcre2_set_match_limit(matcher->context, UINT32_MAX);
    return MQ_OK;
}

void mq_matcher_free(mq_matcher *matcher) {
    if (matcher->stack) {
        pcre2_jit_stack_free(matcher->stack);
    }
    pcre2_match_context_free(matcher->context);
    pcre2_match_data_free(matcher->data);
    *matcher = (mq_matcher){0};
}

mq_status mq_pattern_literal(mq_pattern *out, const char *text, size_t size, mq_error *err) {
    *out = (mq_pattern){.kind = MQ_PATTERN_LITERAL};
    if (size == 0) {
        return mq_fail(err, MQ_ERR_INPUT, "an empty pattern");
    }
    mq_status status = mq_new(&out->literal, size, 1, "a pattern", err);
    if (!status) {
        memcpy(out->literal, text, size);
        out->literal_size = size;
    }
    return status;
}

/* Oniguruma's Ruby syntax: ^ and $ stand at every line, only \n ends a line. */
static mq_status compile(mq_pattern *out, const mq_bytes *translated, const char *regex,
                         mq_error *err) {
    pcre2_general_context *general =
        pcre2_general_context_create(pattern_alloc, pattern_free, NULL);
    pcre2_compile_context *context = general ? pcre2_compile_context_create(general) : NULL;
    pcre2_general_context_free(general);
    if (!context) {
        return mq_fail_memory(err, "a pattern", translated->size);
    }
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code;
    PCRE2_SIZE at;
    out->code = pcre2_compile((PCRE2_SPTR)translated->data, translated->size,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!out->code) {
        if (code == PCRE2_ERROR_HEAP_FAILED) {
            return mq_fail_memory(err, "a pattern", translated->size);
        }
        PCRE2_UCHAR message[160];
        pcre2_get_error_message(code, message, sizeof message);
        return mq_fail(err, MQ_ERR_INPUT, "regular expression \"%.200s\": %s", regex,
                       (char *)message);
    }
    /* where no code can be generated (a hardened kernel) the interpreter gives the same matches */
    (void)pcre2_jit_compile(out->code, PCRE2_JIT_COMPLETE);
    return MQ_OK;
}

mq_status mq_pattern_regex(mq_pattern *out, const char *regex, mq_error *err) {
    *out = (mq_pattern){.kind = MQ_PATTERN_REGEX};
    if (!*regex) {
        return mq_fail(err, MQ_ERR_INPUT, "an empty pattern");
    }
    mq_bytes translated = {0};
    mq_status status = mq_regex_translate(&translated, regex, err);
    if (!status) {
        status = compile(out, &translated, regex, err);
    }
    mq_bytes_free(&translated);
    return status;
}

void mq_pattern_free(mq_pattern *pattern) {
    mq_free(pattern->literal);
    pcre2_code_free(pattern->code);
    *pattern = (mq_pattern){0};
}

mq_find mq_find_begin(const mq_pattern *pattern, mq_matcher *matcher, const char *text,
                      size_t size) {
    return (mq_find){pattern, matcher, text, size, 0, SIZE_MAX};
}

static bool find_literal(const mq_find *find, size_t *start, size_t *end) {
    const mq_pattern *pattern = find->pattern;
    const char *from = find->text + find->at;
    size_t left = find->size - find->at;
    const char *hit = pattern->literal_size == 1
                          ? memchr(from, pattern->literal[0], left)
                          : memmem(from, left, pattern->literal, pattern->literal_size);
    if (hit) {
        *start = (size_t)(hit - find->text);
        *end = *start + pattern->literal_size;
    }
    return hit != NULL;
}

static bool find_white_space(const mq_find *find, size_t *start, size_t *end) {
    for (size_t at = find->at; at < find->size;) {
        uint32_t c;
        size_t length = mq_utf8_decode(&c, find->text + at, find->size - at);
        if (mq_is_white_space(c)) {
            *start = at;
            *end = at + length;
            return true;
        }
        at += length;
    }
    return false;
}

static mq_status find_regex(mq_find *find, bool *found, size_t *start, size_t *end, mq_error *err) {
    const mq_matcher *m = find->matcher;
    const pcre2_code *code = find->pattern->code;
    PCRE2_SPTR text = (PCRE2_SPTR)find->text;
    int rc = pcre2_match(code, text, find->size, find->at, PCRE2_NO_UTF_CHECK, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(code, text, find->size, find->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         m->data, m->context);
    }
    *found = rc >= 0;
    if (rc >= 0) {
        const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(m->data);
        *start = offsets[0];
        *end = offsets[1];
        return MQ_OK;
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        return MQ_OK;
    }
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return mq_fail_memory(err, "matching", find->size);
    }
    PCRE2_UCHAR message[160];
    pcre2_get_error_message(rc, message, sizeof message);
    return mq_fail(err, MQ_ERR_INPUT,
                   "the text is too much for the tokenizer's regular expression: %s",
                   (char *)message);
}

mq_status mq_find_next(mq_find *find, bool *found, size_t *start, size_t *end, mq_error *err) {
    for (;;) {
        *found = false;
        if (find->at > find->size) {
            return MQ_OK;
        }
        mq_status status = MQ_OK;
        if (find->pattern->kind == MQ_PATTERN_REGEX) {
            status = find_regex(find, found, start, end, err);
        } else if (find->pattern->kind == MQ_PATTERN_LITERAL) {
            *found = find_literal(find, start, end);
        } else {
            *found = find_white_space(find, start, end);
        }
        if (status || !*found) {
            find->at = find->size + 1;
            return status;
        }
        if (*start < *end || *end != find->last_end) {
            find->at = find->last_end = *end;
            return MQ_OK;
        }
        /* an empty match where the last one ended: look one character further on */
        uint32_t c;
        find->at += find->at < find->size
                        ? mq_utf8_decode(&c, find->text + find->at, find->size - find->at)
                        : 1;
    }
}
