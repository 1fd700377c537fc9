#include "text/lines.h"

#include <string.h>

static bool is_blank(const mq_line *line) {
    for (size_t i = 0; i < line->size; i++) {
        if (line->text[i] != ' ' && line->text[i] != '\t' && line->text[i] != '\r') {
            return false;
        }
    }
    return true;
}

bool mq_next_line(mq_line *line, const char *text, size_t size) {
    size_t at = line->number == 0 ? 0 : line->offset + line->size + 1;
    for (; at < size; at = line->offset + line->size + 1) {
        const char *newline = memchr(text + at, '\n', size - at);
        line->text = text + at;
        line->size = newline ? (size_t)(newline - line->text) : size - at;
        line->offset = at;
        line->number++;
        if (!is_blank(line)) {
            return true;
        }
    }
    return false;
}

mq_status mq_line_parse(cJSON **out, const mq_line *line, const char *path, mq_error *err) {
    mq_error inner;
    mq_status status = mq_json_parse(out, line->text, line->size, path, &inner);
    if (status == MQ_ERR_INPUT) {
        return mq_fail_offset(err, status, path, NULL,
                              line->offset + (inner.has_offset ? inner.offset : 0), "line %zu: %s",
                              line->number, inner.message);
    }
    if (status && err) {
        *err = inner;
    }
    return status;
}
