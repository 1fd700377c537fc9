/* The transforming steps of normalizers and pre-tokenizers. */
#include <string.h>
#include <utf8proc.h>

#include "text/tok_internal.h"
#include "text/tok_unicode.h"

void mq_steps_free(mq_steps *steps) {
    for (size_t i = 0; i < steps->count; i++) {
        mq_pattern_free(&steps->items[i].pattern);
        mq_free(steps->items[i].content);
    }
    steps->count = 0;
}

static bool begins_with(const char *text, size_t size, const char *start, size_t start_size) {
    return size >= start_size && memcmp(text, start, start_size) == 0;
}

static mq_status prepend(mq_bytes *out, const mq_step *step, const char *text, size_t size,
                         bool first, mq_error *err) {
    bool skip =
        size == 0 || (step->first_only && !first) ||
        (step->skip_if_present && begins_with(text, size, step->content, step->content_size));
    mq_status status = mq_bytes_append(out, step->content, skip ? 0 : step->content_size, err);
    return status ? status : mq_bytes_append(out, text, size, err);
}

static mq_status replace(mq_bytes *out, const mq_step *step, mq_matcher *matcher, const char *text,
                         size_t size, mq_error *err) {
    mq_find find = mq_find_begin(&step->pattern, matcher, text, size);
    size_t done = 0, start, end;
    bool found = size > 0; /* even a pattern that matches nothing leaves empty text empty */
    while (found) {
        mq_status status = mq_find_next(&find, &found, &start, &end, err);
        if (!status && found) {
            status = mq_bytes_append(out, text + done, start - done, err);
            done = end;
        }
        if (!status && found) {
            status = mq_bytes_append(out, step->content, step->content_size, err);
        }
        if (status) {
            return status;
        }
    }
    return mq_bytes_append(out, text + done, size - done, err);
}

static bool is_ascii(const char *text, size_t size) {
    unsigned char all = 0;
    for (size_t i = 0; i < size; i++) {
        all |= (unsigned char)text[i];
    }
    return all < 0x80;
}

/* Each character's own decomposition into points, as far as there is room for it: how many there
 * are, or utf8proc's error. */
static utf8proc_ssize_t decompose(utf8proc_int32_t *points, utf8proc_ssize_t room,
                                  utf8proc_option_t flags, const char *text, size_t size) {
    utf8proc_ssize_t count = 0;
    int boundary = UTF8PROC_BOUNDCLASS_START;
    for (size_t at = 0; at < size;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                         (utf8proc_ssize_t)(size - at), &c);
        if (length < 0) {
            return length;
        }
        at += (size_t)length;
        const bool fits = count < room;
        count += utf8proc_decompose_char(c, fits ? points + count : NULL, fits ? room - count : 0,
                                         flags, &boundary);
    }
    return count;
}

static size_t class_of(utf8proc_int32_t point) {
    return (size_t)utf8proc_get_property(point)->combining_class;
}

/* By counting: those of one class stay as they stood. */
static void sort_marks(utf8proc_int32_t *marks, size_t count, utf8proc_int32_t *scratch) {
    size_t begin[257] = {0}; /* where the next one of each class goes */
    for (size_t i = 0; i < count; i++) {
        begin[class_of(marks[i]) + 1]++;
    }
    for (size_t c = 1; c < 256; c++) {
        begin[c] += begin[c - 1];
    }
    for (size_t i = 0; i < count; i++) {
        scratch[begin[class_of(marks[i])]++] = marks[i];
    }
    memcpy(marks, scratch, count * sizeof *marks);
}

/* Unicode's canonical ordering (3.11, D109): each run of marks by their combining classes.
 * utf8proc's own moves one mark after another past all that stand before it. */
static mq_status order_marks(utf8proc_int32_t *points, size_t count, mq_error *err) {
    utf8proc_int32_t *scratch = NULL;
    mq_status status = MQ_OK;
    size_t begin = 0, last = 0;
    bool ordered = true;
    for (size_t i = 0; i <= count && !status; i++) {
        const size_t own = i < count ? class_of(points[i]) : 0; /* 0: no mark, and a run ends */
        if (own == 0 && !ordered && !scratch) {
            status = mq_new(&scratch, count, sizeof *scratch, "normalizing", err);
        }
        if (own == 0 && !ordered && !status) {
            sort_marks(points + begin, i - begin, scratch);
        }
        begin = own == 0 ? i + 1 : begin;
        ordered = own == 0 || (ordered && own >= last);
        last = own;
    }
    mq_free(scratch);
    return status;
}

/* Unicode normalization of a run of characters. */
static mq_status run_form(mq_bytes *out, int options, const char *text, size_t size,
                          mq_error *err) {
    if (is_ascii(text, size)) { /* and so in every form already */
        return mq_bytes_append(out, text, size, err);
    }
    utf8proc_option_t flags = (utf8proc_option_t)options;
    utf8proc_ssize_t count = decompose(NULL, 0, flags, text, size);
    if (count < 0) {
        return mq_fail(err, MQ_ERR_INPUT, "normalizing the text: %s", utf8proc_errmsg(count));
    }
    utf8proc_int32_t *points;
    mq_status status = mq_new(&points, (size_t)count, sizeof *points, "normalizing", err);
    if (status) {
        return status;
    }
    decompose(points, count, flags, text, size);
    status = order_marks(points, (size_t)count, err);
    if (!status) {
        count = utf8proc_normalize_utf32(points, count, flags);
    }
    if (count < 0) {
        status = mq_fail(err, MQ_ERR_INPUT, "normalizing the text: %s", utf8proc_errmsg(count));
    }
    for (utf8proc_ssize_t i = 0; i < count && !status; i++) {
        status = mq_bytes_append_char(out, (uint32_t)points[i], err);
    }
    mq_free(points);
    return status;
}

/* Characters that are left alone are starters that compose with nothing: what is before and after
 * them does not meet. */
static mq_status unicode_form(mq_bytes *out, int options, const char *text, size_t size,
                              mq_error *err) {
    size_t begin = 0;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t length = mq_utf8_decode(&c, text + at, size - at);
        if (mq_unicode_inert(c)) {
            mq_status status = run_form(out, options, text + begin, at - begin, err);
            status = status ? status : mq_bytes_append(out, text + at, length, err);
            if (status) {
                return status;
            }
            begin = at + length;
        }
        at += length;
    }
    return run_form(out, options, text + begin, size - begin, err);
}

/* Each character by itself. Only U+0130 has a lower case of two characters. */
static mq_status lowercase(mq_bytes *out, const char *text, size_t size, mq_error *err) {
    for (size_t at = 0; at < size;) {
        uint32_t c;
        at += mq_utf8_decode(&c, text + at, size - at);
        mq_status status = mq_bytes_append_char(
            out, c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c), err);
        if (!status && c == 0x130) {
            status = mq_bytes_append_char(out, 0x307, err);
        }
        if (status) {
            return status;
        }
    }
    return MQ_OK;
}

static mq_status strip(mq_bytes *out, const mq_step *step, const char *text, size_t size,
                       mq_error *err) {
    size_t start = 0, end = 0; /* end: after the last character that is not white space */
    bool inside = false;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        size_t length = mq_utf8_decode(&c, text + at, size - at);
        if (!mq_is_white_space(c)) {
            start = inside ? start : at;
            inside = true;
            end = at + length;
        }
        at += length;
    }
    start = step->strip_left ? (inside ? start : size) : 0;
    end = step->strip_right ? (inside ? end : start) : size;
    return mq_bytes_append(out, text + start, end - start, err);
}

uint32_t mq_byte_to_char(unsigned char byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173)) {
        return byte;
    }
    /* the bytes that are not printable, in order, from U+0100 on: 0-32, 127-160, 173 */
    return 256U + (byte <= 32 ? byte : byte <= 160 ? 33U + byte - 127U : 67U);
}

int mq_char_to_byte(uint32_t c) {
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 255 && c != 173)) {
        return (int)c;
    }
    if (c < 256 || c > 323) {
        return -1;
    }
    return c <= 288 ? (int)c - 256 : c <= 322 ? (int)c - 289 + 127 : 173;
}

static mq_status byte_chars(mq_bytes *out, const char *text, size_t size, mq_error *err) {
    mq_status status = mq_bytes_reserve(out, 2 * size, err);
    if (status) {
        return status;
    }
    for (size_t i = 0; i < size; i++) {
        out->size += mq_utf8_encode(out->data + out->size, mq_byte_to_char((unsigned char)text[i]));
    }
    return MQ_OK;
}

mq_status mq_step_transform(mq_bytes *out, const mq_step *step, mq_matcher *matcher,
                            const char *text, size_t size, bool first, mq_error *err) {
    out->size = 0;
    switch (step->kind) {
    case MQ_STEP_PREPEND:
        return prepend(out, step, text, size, first, err);
    case MQ_STEP_REPLACE:
        return replace(out, step, matcher, text, size, err);
    case MQ_STEP_UNICODE_FORM:
        return unicode_form(out, step->form_options, text, size, err);
    case MQ_STEP_LOWERCASE:
        return lowercase(out, text, size, err);
    case MQ_STEP_STRIP:
        return strip(out, step, text, size, err);
    case MQ_STEP_BYTE_CHARS:
        return byte_chars(out, text, size, err);
    case MQ_STEP_SPLIT:
        break;
    }
    return mq_bytes_append(out, text, size, err);
}

mq_status mq_normalize(const char **out, size_t *out_size, mq_bytes buffers[2],
                       const mq_steps *normalizer, mq_matcher *matcher, const char *text,
                       size_t size, mq_error *err) {
    *out = text;
    *out_size = size;
    for (size_t i = 0; *out_size > 0 && i < normalizer->count; i++) {
        mq_bytes *buffer = &buffers[i & 1];
        mq_status status =
            mq_step_transform(buffer, &normalizer->items[i], matcher, *out, *out_size, true, err);
        if (status) {
            return status;
        }
        *out = buffer->data;
        *out_size = buffer->size;
    }
    return MQ_OK;
}
