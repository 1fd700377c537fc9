/* NumPy's array format (numpy.lib.format, versions 1.0 to 3.0): a magic, a header that is a Python
 * dictionary in one line, and the numbers. */
#include <string.h>

#include "base/error.h"
#include "text/corpus_internal.h"

typedef struct npy {
    const char *path;
    mq_error *err;
    const unsigned char *data; /* the whole file */
    size_t size, at;           /* while reading the header, where; then, where the numbers begin */
    size_t header_end;
    size_t item_size; /* bytes: 1, 2, 4, 8 */
    bool is_signed;
    size_t dimensions, shape[2];
} npy;

static mq_status refuse(const npy *n, const char *what) {
    return mq_fail_offset(n->err, MQ_ERR_INPUT, n->path, NULL, n->at, "%s", what);
}

static void skip_spaces(npy *n) {
    while (n->at < n->header_end && (n->data[n->at] == ' ' || n->data[n->at] == '\n')) {
        n->at++;
    }
}

static bool accept(npy *n, const char *token) {
    size_t length = strlen(token);
    skip_spaces(n);
    if (n->header_end - n->at < length || memcmp(n->data + n->at, token, length) != 0) {
        return false;
    }
    n->at += length;
    return true;
}

/* Not its end, which strchr finds, too. */
static bool is_one_of(const char *set, char c) { return c != '\0' && strchr(set, c) != NULL; }

/* '<i4', '|u1', '=i8': the types that the machine (a little-endian one) can take as they are. */
static mq_status read_descr(npy *n) {
    char quote = accept(n, "'") ? '\'' : accept(n, "\"") ? '"' : '\0';
    if (!quote || n->header_end - n->at < 4 || n->data[n->at + 3] != (unsigned char)quote) {
        return refuse(n, "the element type is not an integer");
    }
    char order = (char)n->data[n->at], kind = (char)n->data[n->at + 1],
         size = (char)n->data[n->at + 2];
    if (order == '>') {
        return refuse(n, "big-endian numbers are not supported");
    }
    if (!is_one_of("<|=", order) || !is_one_of("iu", kind) || !is_one_of("1248", size)) {
        return refuse(n, "the element type is not an integer of 1, 2, 4 or 8 bytes");
    }
    n->is_signed = kind == 'i';
    n->item_size = (size_t)(size - '0');
    n->at += 4;
    return MQ_OK;
}

static mq_status read_shape(npy *n) {
    if (!accept(n, "(")) {
        return refuse(n, "the shape is not a tuple");
    }
    while (!accept(n, ")")) {
        size_t value = 0, digits = 0;
        skip_spaces(n);
        for (; n->at < n->header_end && n->data[n->at] >= '0' && n->data[n->at] <= '9';
             n->at++, digits++) {
            if (!mq_mul_size(&value, value, 10) ||
                !mq_add_size(&value, value, (size_t)(n->data[n->at] - '0'))) {
                return refuse(n, "a dimension that is too large");
            }
        }
        if (digits == 0) {
            return refuse(n, "the shape cannot be read");
        }
        if (n->dimensions == 2) {
            return refuse(n, "more than two dimensions");
        }
        n->shape[n->dimensions++] = value;
        if (!accept(n, ",") && !(n->at < n->header_end && n->data[n->at] == ')')) {
            return refuse(n, "the shape cannot be read");
        }
    }
    return n->dimensions ? MQ_OK : refuse(n, "a single number is no list of tokens");
}

static bool accept_key(npy *n, const char *single, const char *twice) {
    return (accept(n, single) || accept(n, twice)) && accept(n, ":");
}

static mq_status read_dictionary(npy *n) {
    bool have_descr = false, have_order = false, have_shape = false;
    if (!accept(n, "{")) {
        return refuse(n, "the header is not a dictionary");
    }
    while (!accept(n, "}")) {
        mq_status status = MQ_OK;
        if (!have_descr && accept_key(n, "'descr'", "\"descr\"")) {
            have_descr = true;
            status = read_descr(n);
        } else if (!have_order && accept_key(n, "'fortran_order'", "\"fortran_order\"")) {
            have_order = true;
            if (!accept(n, "False")) {
                status = refuse(n, "only C order is supported");
            }
        } else if (!have_shape && accept_key(n, "'shape'", "\"shape\"")) {
            have_shape = true;
            status = read_shape(n);
        } else {
            status = refuse(n, "the header cannot be read");
        }
        if (!status && !accept(n, ",") && !(n->at < n->header_end && n->data[n->at] == '}')) {
            status = refuse(n, "the header cannot be read");
        }
        if (status) {
            return status;
        }
    }
    skip_spaces(n);
    if (!have_descr || !have_order || !have_shape || n->at != n->header_end) {
        return refuse(n, "the header is not complete");
    }
    return MQ_OK;
}

static mq_status read_header(npy *n) {
    static const char magic[] = "\x93NUMPY";
    if (n->size < 10 || memcmp(n->data, magic, 6) != 0) {
        return refuse(n, "not a NumPy array file");
    }
    unsigned major = n->data[6];
    if (major < 1 || major > 3 || n->data[7] != 0) {
        n->at = 6;
        return refuse(n, "a version of the format that is not known");
    }
    size_t begin = major == 1 ? 10 : 12, length = 0;
    for (size_t i = begin; i > 8 && n->size >= begin; i--) {
        length = length << 8 | n->data[i - 1];
    }
    if (n->size < begin || length > n->size - begin) {
        n->at = 8;
        return refuse(n, "the file ends inside its header");
    }
    n->at = begin;
    n->header_end = begin + length;
    return read_dictionary(n);
}

/* Element i as an id, or -1 when it is negative or does not fit. */
static int32_t element(const npy *n, size_t i) {
    const unsigned char *bytes = n->data + n->at + i * n->item_size;
    uint64_t value = 0;
    for (size_t b = n->item_size; b > 0; b--) {
        value = value << 8 | bytes[b - 1];
    }
    bool negative = n->is_signed && bytes[n->item_size - 1] >= 0x80;
    return negative || value > INT32_MAX ? -1 : (int32_t)value;
}

static mq_status convert(int32_t **out, const npy *n, size_t count, size_t vocab_size) {
    mq_status status = mq_new(out, count, sizeof **out, "the tokens", n->err);
    for (size_t i = 0; i < count && !status; i++) {
        int32_t id = element(n, i);
        if (id < 0 || (size_t)id >= vocab_size) {
            status =
                mq_fail_offset(n->err, MQ_ERR_INPUT, n->path, NULL, n->at + i * n->item_size,
                               "a token that is not in the model's vocabulary of %zu", vocab_size);
        }
        (*out)[i] = id;
    }
    return status;
}

static mq_status read_rows(mq_token_rows *out, npy *n, const mq_corpus_options *options) {
    mq_status status = read_header(n);
    if (status) {
        return status;
    }
    size_t count, bytes;
    bool fits = mq_mul_size(&count, n->shape[0], n->dimensions == 2 ? n->shape[1] : 1) &&
                mq_mul_size(&bytes, count, n->item_size);
    if (!fits || bytes != n->size - n->at) {
        return refuse(n, "the file is not as long as its shape says");
    }
    if (count == 0) {
        return refuse(n, "there are no tokens in it");
    }
    if (n->dimensions == 2 && n->shape[1] < options->length) {
        return mq_fail_file(n->err, MQ_ERR_INPUT, n->path,
                            "rows of %zu tokens are shorter than the %zu asked for", n->shape[1],
                            options->length);
    }
    out->tokens = count;
    out->length = options->length;
    const size_t row = n->dimensions == 2 ? n->shape[1] : count;
    const size_t windows = row / options->length;
    out->count = count / row * windows;
    status = convert(&out->ids, n, count, options->vocab_size);
    for (size_t i = windows; status == MQ_OK && i < out->count; i++) { /* over what rows leave */
        memmove(out->ids + i * out->length,
                out->ids + i / windows * row + i % windows * out->length,
                out->length * sizeof *out->ids);
    }
    return status;
}

mq_status mq_corpus_read_npy(mq_token_rows *out, const char *path, const mq_corpus_options *options,
                             const mq_context *context, mq_error *err) {
    char *data = NULL;
    size_t size = 0;
    mq_status status =
        mq_read_file_digest(&data, &size, out->sha256, path, MQ_CORPUS_MAX_SIZE, context, err);
    if (!status) {
        npy n = {.path = path, .err = err, .data = (const unsigned char *)data, .size = size};
        status = read_rows(out, &n, options);
    }
    mq_free(data);
    return status;
}
