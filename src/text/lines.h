/* Files of one JSON value a line (.jsonl). */
#ifndef MQ_TEXT_LINES_H
#define MQ_TEXT_LINES_H

#include "base/json.h"

/* One line of a text, without its newline. */
typedef struct mq_line {
    const char *text;
    size_t size;
    size_t offset, number; /* of its first byte in the text; from 1, blank lines counted */
} mq_line;

/* The next line of text[size] that is not blank; false when there is none. Begin with {0}. */
bool mq_next_line(mq_line *line, const char *text, size_t size);

/* The value on a line, the caller's (cJSON_Delete). MQ_ERR_INPUT naming file, line and offset, as
 * of mq_json_parse. */
mq_status mq_line_parse(cJSON **out, const mq_line *line, const char *path, mq_error *err);

#endif
