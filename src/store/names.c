#include "store/names.h"

#include <stdio.h>
#include <string.h>

#include "matquant/format.h"

/* Takes `end` off the first *length characters of name. */
static bool strip(size_t *length, const char *name, const char *end) {
    size_t size = strlen(end);
    if (*length <= size || memcmp(name + *length - size, end, size) != 0) {
        return false;
    }
    *length -= size;
    return true;
}

/* The R of a name that ends in ".wR", else 0. */
static unsigned strip_width(size_t *length, const char *name) {
    char suffix[] = ".w0";
    for (unsigned width = MQ_MIN_WIDTH; width <= MQ_MAX_WIDTH; width++) {
        suffix[2] = (char)('0' + width);
        if (strip(length, name, suffix)) {
            return width;
        }
    }
    return 0;
}

mq_name mq_name_parse(const char *name) {
    mq_name parsed = {.form = MQ_NAME_OTHER};
    size_t length = strlen(name);
    mq_name_form form = MQ_NAME_OTHER;
    unsigned width = strip_width(&length, name);
    if (width != 0) {
        form = strip(&length, name, ".scales")   ? MQ_NAME_SCALES
               : strip(&length, name, ".biases") ? MQ_NAME_BIASES
                                                 : MQ_NAME_WIDTH;
    } else if (strip(&length, name, ".codes")) {
        form = MQ_NAME_CODES;
    } else if (strip(&length, name, ".weight")) {
        form = MQ_NAME_WEIGHT;
    }
    if (form == MQ_NAME_OTHER || length >= sizeof parsed.stem) {
        return parsed;
    }
    parsed.form = form;
    parsed.width = width;
    memcpy(parsed.stem, name, length);
    return parsed;
}

const char *mq_name_make(char out[MQ_STORED_NAME_SIZE], const char *stem, const char *part,
                         unsigned width) {
    if (width == 0) {
        snprintf(out, MQ_STORED_NAME_SIZE, "%s.%s", stem, part);
    } else {
        snprintf(out, MQ_STORED_NAME_SIZE, "%s.%s.w%u", stem, part, width);
    }
    return out;
}

const char *mq_name_private(char out[MQ_STORED_NAME_SIZE], const char *name, unsigned width) {
    snprintf(out, MQ_STORED_NAME_SIZE, "%s.w%u", name, width);
    return out;
}
