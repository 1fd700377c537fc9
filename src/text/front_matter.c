#include "text/front_matter.h"

#include <string.h>

#include "base/buffer.h"
#include "base/utf8.h"
#include "text/lines.h"

const char *const *mq_front_matter_keys(void) {
    static const char *const keys[] = {"license",  "license_name", "license_link",
                                       "language", "base_model",   NULL};
    return keys;
}

/* The rest of a line. */
typedef struct rest {
    const char *at, *end;
} rest;

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static bool is_at(const rest *line, char c) { return line->at < line->end && *line->at == c; }

/* At a space or at the line's end. */
static bool is_apart(const rest *line, const char *at) { return at >= line->end || is_space(*at); }

static void skip_spaces(rest *line) {
    while (line->at < line->end && is_space(*line->at)) {
        line->at++;
    }
}

/* Nothing more but a comment. */
static bool is_done(rest *line) {
    const char *before = line->at;
    skip_spaces(line);
    return line->at == line->end || (*line->at == '#' && line->at > before);
}

/* --- scalars ---------------------------------------------------------------------------------- */

/* 'it''s' */
static bool take_single_quoted(mq_buffer *out, rest *line) {
    for (line->at++; line->at < line->end; line->at++) {
        if (*line->at == '\'' && (++line->at == line->end || *line->at != '\'')) {
            return true;
        }
        mq_buffer_put(out, line->at, 1);
    }
    return false;
}

/* Of the escapes those of characters that stand for themselves. */
static bool take_double_quoted(mq_buffer *out, rest *line) {
    for (line->at++; line->at < line->end; line->at++) {
        if (*line->at == '"') {
            line->at++;
            return true;
        }
        if (*line->at == '\\' &&
            (++line->at == line->end || memchr("\"\\/ ", *line->at, 4) == NULL)) {
            return false;
        }
        mq_buffer_put(out, line->at, 1);
    }
    return false;
}

static bool ends_plain(const rest *line, bool in_list) {
    const char c = *line->at;
    return (c == '#' && is_space(line->at[-1])) || (in_list && (c == ',' || c == ']'));
}

static bool is_null(const char *text, size_t length) {
    static const char *const names[] = {"~", "null", "Null", "NULL"};
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        found = found || (strlen(names[i]) == length && memcmp(names[i], text, length) == 0);
    }
    return found;
}

/* A scalar without quotes must not begin like anything else, nor hold "key: value". */
static bool take_plain(mq_buffer *out, rest *line, bool in_list) {
    const char *begin = line->at;
    if (memchr("-?:,[]{}#&*!|>%@`", *begin, 17) != NULL) {
        return false;
    }
    for (line->at++; line->at < line->end && !ends_plain(line, in_list); line->at++) {
        const bool is_pair = *line->at == ':' && is_apart(line, line->at + 1);
        if (is_pair || (in_list && memchr("[{}", *line->at, 3) != NULL)) {
            return false;
        }
    }
    size_t length = (size_t)(line->at - begin);
    while (length > 0 && is_space(begin[length - 1])) {
        length--;
    }
    line->at = begin + length;
    mq_buffer_put(out, begin, length);
    return !is_null(begin, length);
}

/* Puts the scalar that comes next, under key or (NULL) at the end of a list. False: there is none.
 */
static bool take_scalar(mq_json *json, cJSON *at, const char *key, rest *line, bool in_list) {
    mq_buffer value = {0};
    bool good = false;
    skip_spaces(line);
    if (is_at(line, '\'')) {
        good = take_single_quoted(&value, line);
    } else if (is_at(line, '"')) {
        good = take_double_quoted(&value, line);
    } else if (line->at < line->end) {
        good = take_plain(&value, line, in_list);
    }
    good = good && value.length > 0 && memchr(value.text, '\0', value.length) == NULL &&
           mq_utf8_valid(NULL, value.text, value.length);
    if (good) {
        mq_json_put_text(json, at, key, value.text);
    }
    json->failed = json->failed || value.failed;
    mq_free(value.text);
    return good;
}

/* [a, "b"]; the list may end with a comma. */
static bool take_list(mq_json *json, const char *key, rest *line) {
    cJSON *list = mq_json_put_array(json, json->root, key);
    bool good = true, more = true;
    line->at++;
    while (good && more) {
        good = take_scalar(json, list, NULL, line, true);
        skip_spaces(line);
        more = is_at(line, ',');
        line->at += more;
        skip_spaces(line);
        more = more && !is_at(line, ']');
    }
    good = good && is_at(line, ']');
    line->at += good;
    return good;
}

/* --- lines ------------------------------------------------------------------------------------ */

typedef struct reader {
    mq_json json;
    const char *key;  /* whose value further lines may belong to; NULL: none that is read */
    bool has_value;   /* it stood behind the key */
    cJSON *list;      /* of lines "- a"; NULL: there was none yet */
    ptrdiff_t indent; /* of these lines */
} reader;

/* The value is none of those that are read. */
static void forget(reader *self) {
    cJSON_DeleteItemFromObjectCaseSensitive(self->json.root, self->key);
    self->key = NULL;
}

/* One of the keys that has no value yet; the line goes on behind its colon. */
static const char *take_key(const reader *self, rest *line) {
    for (const char *const *key = mq_front_matter_keys(); *key != NULL; key++) {
        const size_t length = strlen(*key);
        if ((size_t)(line->end - line->at) > length && memcmp(line->at, *key, length) == 0 &&
            line->at[length] == ':' && is_apart(line, line->at + length + 1) &&
            cJSON_GetObjectItemCaseSensitive(self->json.root, *key) == NULL) {
            line->at += length + 1;
            return *key;
        }
    }
    return NULL;
}

/* "key: value", or "key:" with a list to come. */
static void read_pair(reader *self, rest line) {
    self->key = take_key(self, &line);
    self->list = NULL;
    if (self->key == NULL) {
        return;
    }
    rest value = line;
    self->has_value = !is_done(&value);
    if (!self->has_value) {
        return;
    }
    line = value;
    const bool good = is_at(&line, '[')
                          ? take_list(&self->json, self->key, &line)
                          : take_scalar(&self->json, self->json.root, self->key, &line, false);
    if (!good || !is_done(&line)) {
        forget(self);
    }
}

/* "- a", or the second line of something longer. */
static void read_item(reader *self, rest line) {
    const char *begin = line.at;
    skip_spaces(&line);
    const ptrdiff_t indent = line.at - begin;
    bool good = !self->has_value && is_at(&line, '-') && is_apart(&line, line.at + 1);
    good = good && (self->list == NULL || indent == self->indent);
    if (good && self->list == NULL) {
        self->list = mq_json_put_array(&self->json, self->json.root, self->key);
        self->indent = indent;
    }
    line.at += good;
    if (!good || !take_scalar(&self->json, self->list, NULL, &line, false) || !is_done(&line)) {
        forget(self);
    }
}

static void read_line(reader *self, rest line) {
    rest content = line;
    skip_spaces(&content);
    if (is_at(&content, '#')) {
        return;
    }
    if (is_space(*line.at) || *line.at == '-') {
        if (self->key != NULL) {
            read_item(self, line);
        }
    } else {
        read_pair(self, line);
    }
}

static bool is_fence(const mq_line *line) {
    rest after = {line->text + 3, line->text + line->size};
    if (line->size < 3 || memcmp(line->text, "---", 3) != 0) {
        return false;
    }
    skip_spaces(&after);
    return after.at == after.end;
}

/* Whether there is a front matter; *first is its first line. */
static bool find(mq_line *first, const char *text, size_t size) {
    mq_line line = {0};
    if (!mq_next_line(&line, text, size) || line.number != 1 || !is_fence(&line)) {
        return false;
    }
    *first = line;
    while (mq_next_line(&line, text, size)) {
        if (is_fence(&line)) {
            return true;
        }
    }
    return false;
}

mq_status mq_front_matter_read(cJSON **out, const char *text, size_t size, mq_error *err) {
    const size_t mark = mq_utf8_mark(text, size);
    text += mark;
    size -= mark;
    reader self = {.json = mq_json_begin(cJSON_CreateObject())};
    mq_line line = {0};
    if (find(&line, text, size)) {
        while (mq_next_line(&line, text, size) && !is_fence(&line)) {
            read_line(&self, (rest){line.text, line.text + line.size});
        }
    }
    return mq_json_take(out, &self.json, MQ_OK, "the front matter of README.md", err);
}
