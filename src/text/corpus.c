#include "text/corpus.h"

#include <stdio.h>
#include <string.h>

#include "text/corpus_internal.h"
#include "text/lines.h"
#include "text/tok_internal.h"
#include "text/utf8.h"

/* --- text ------------------------------------------------------------------------------------- */

/* Whether the file's name ends in extension, or in extension and ".gz", in letters of any case. */
static bool has_extension(const char *path, const char *extension) {
    char zipped[16];
    snprintf(zipped, sizeof zipped, "%s.gz", extension);
    return mq_ends_with_any_case(path, extension) || mq_ends_with_any_case(path, zipped);
}

/* Appends the "text" of one line. */
static mq_status append_document(mq_bytes *out, const mq_line *line, bool first, const char *path,
                                 mq_error *err) {
    cJSON *object = NULL;
    mq_status status = mq_line_parse(&object, line, path, err);
    if (status) {
        return status;
    }
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(object, "text");
    if (!text && cJSON_GetObjectItemCaseSensitive(object, "messages")) {
        status = mq_fail_offset(err, MQ_ERR_INPUT, path, NULL, line->offset,
                                "line %zu has \"messages\" and no \"text\": put each conversation "
                                "into \"text\", rendered with the chat template",
                                line->number);
    } else if (!cJSON_IsString(text)) {
        status = mq_fail_offset(err, MQ_ERR_INPUT, path, NULL, line->offset,
                                "line %zu is without a string \"text\"", line->number);
    }
    if (!status && !first) {
        status = mq_bytes_append(out, "\n\n", 2, err);
    }
    if (!status) {
        status = mq_bytes_append(out, text->valuestring, strlen(text->valuestring), err);
    }
    cJSON_Delete(object);
    return status;
}

/* The documents of a .jsonl file, joined by two newlines; blank lines are nothing. */
static mq_status join_documents(mq_bytes *out, const char *text, size_t size, const char *path,
                                const mq_context *context, mq_error *err) {
    mq_status status = MQ_OK;
    bool first = true;
    for (mq_line line = {0}; !status && mq_next_line(&line, text, size); first = false) {
        status = append_document(out, &line, first, path, err);
        status = status ? status : mq_check_interrupt(context, err);
    }
    return status;
}

static bool has_documents(const char *path) {
    return has_extension(path, ".jsonl") || has_extension(path, ".ndjson");
}

/* It would be learned from, and measured on, with all its brackets. */
static mq_status refuse_json(const char *path, mq_error *err) {
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "is JSON by its name: text is read from .jsonl, one object a line with the "
                        "key \"text\", or from .txt");
}

static mq_status refuse_dash(mq_error *err) {
    return mq_fail_file(err, MQ_ERR_INPUT, "-",
                        "there is no such file; standard input is /dev/stdin, which is read as "
                        "plain text, not as .jsonl");
}

/* Where the blanks that begin at `at` end. */
static size_t after_blanks(const mq_line *line, size_t at) {
    while (at < line->size && (line->text[at] == ' ' || line->text[at] == '\t')) {
        at++;
    }
    return at;
}

/* Whether "key": is somewhere in the line, as JSON spells a member. */
static bool has_member(const mq_line *line, const char *key) {
    const size_t length = strlen(key);
    for (size_t at = 0; at + length < line->size; at++) {
        if (memcmp(line->text + at, key, length) == 0) {
            const size_t next = after_blanks(line, at + length);
            if (next < line->size && line->text[next] == ':') {
                return true;
            }
        }
    }
    return false;
}

/* Documents under another name, such as a pipe's, for the same reason: a text whose first line is
 * an object with such a member, whole or broken, is no prose. */
static mq_status refuse_documents(const char *text, size_t size, const char *path, mq_error *err) {
    mq_line line = {0};
    if (!mq_next_line(&line, text, size) || line.text[after_blanks(&line, 0)] != '{' ||
        !(has_member(&line, "\"text\"") || has_member(&line, "\"messages\""))) {
        return MQ_OK;
    }
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "has JSON lines, by its first line, which are read from a file or pipe "
                        "whose name ends in .jsonl or .ndjson, with .gz or without");
}

/* What is known before the file is read: its name and, of plain text, the length, which a pipe says
 * to be 0. How long documents are, or what is gzipped, only reading shows. */
static mq_status check_unread(const char *path, mq_error *err) {
    size_t size;
    if (strcmp(path, "-") == 0 && !mq_path_exists(path)) {
        return refuse_dash(err);
    }
    if (has_extension(path, ".json")) {
        return refuse_json(path, err);
    }
    const bool is_plain = !has_documents(path) && !mq_ends_with_any_case(path, ".gz");
    return is_plain && mq_file_size(&size, path, NULL) == MQ_OK
               ? mq_error_in_file(err, mq_tok_check_length(size, err), path)
               : MQ_OK; /* what cannot be looked at cannot be read, which says why */
}

/* The whole text of the file; *out is the caller's. */
static mq_status read_text(mq_bytes *out, char sha256[65], const char *path,
                           const mq_context *context, mq_error *err) {
    char *data = NULL;
    size_t size = 0, offset;
    mq_status status = check_unread(path, err);
    if (!status) {
        status = mq_read_file_digest(&data, &size, sha256, path, MQ_CORPUS_MAX_SIZE, context, err);
    }
    if (!status && !mq_utf8_valid(&offset, data, size)) {
        status = mq_fail_offset(err, MQ_ERR_INPUT, path, NULL, offset, "the text is not UTF-8");
    }
    const size_t mark = mq_utf8_mark(data, size);
    if (!status && has_documents(path)) {
        memset(data, ' ', mark); /* a line of it alone is blank; offsets stay the file's */
        status = join_documents(out, data, size, path, context, err);
    } else if (!status) {
        if (mark > 0) {
            memmove(data, data + mark, size - mark + 1); /* with the end that reading puts there */
        }
        status = refuse_documents(data, size - mark, path, err);
        *out = (mq_bytes){data, size - mark, size};
        data = NULL;
    }
    mq_free(data);
    if (!status && out->size == 0) {
        status = mq_fail_file(err, MQ_ERR_INPUT, path, "there is no text in it");
    }
    return status;
}

static mq_status check_ids(const int32_t *ids, size_t count, size_t vocab_size, const char *path,
                           mq_error *err) {
    for (size_t i = 0; i < count; i++) {
        if ((size_t)ids[i] >= vocab_size) {
            return mq_fail_file(err, MQ_ERR_INPUT, path,
                                "the text has the token %d, but the model's vocabulary has %zu "
                                "tokens: the tokenizer "
                                "is not the model's",
                                ids[i], vocab_size);
        }
    }
    return MQ_OK;
}

/* Windows over the tokens of the text, `length` each. */
static mq_status read_windows(mq_token_rows *out, const char *path, const mq_tokenizer *tokenizer,
                              size_t length, const mq_corpus_options *options,
                              const mq_context *context, mq_error *err) {
    mq_bytes text = {0};
    size_t count = 0;
    mq_status status = read_text(&text, out->sha256, path, context, err);
    status = status ? status : mq_check_interrupt(context, err);
    if (!status) {
        status = mq_tokenizer_encode_in(&out->ids, &count, tokenizer, text.data, text.size, false,
                                        context, err);
        status = status ? mq_error_in_file(err, status, path) : MQ_OK;
    }
    mq_bytes_free(&text);
    if (!status) {
        status = check_ids(out->ids, count, options->vocab_size, path, err);
    }
    out->tokens = count;
    out->count = count / length;
    out->length = length;
    return status;
}

/* --- sequences -------------------------------------------------------------------------------- */

static mq_status too_short(const mq_token_rows *rows, size_t needed, const char *path,
                           mq_error *err) {
    size_t tokens;
    if (!mq_mul_size(&tokens, needed, rows->length)) {
        tokens = SIZE_MAX;
    }
    return mq_fail_file(err, MQ_ERR_INPUT, path,
                        "too short: %zu tokens give %zu sequences of %zu, and %zu (%zu tokens) "
                        "are needed; use more text, or fewer or shorter sequences",
                        rows->tokens, rows->count, rows->length, needed, tokens);
}

/* Which rows are taken, in order: [0, rows->count) or that shuffled. */
static mq_status choose_rows(size_t **out, const mq_token_rows *rows,
                             const mq_corpus_options *options, mq_error *err) {
    mq_status status = mq_new(out, rows->count, sizeof **out, "the sequences", err);
    if (status) {
        return status;
    }
    for (size_t i = 0; i < rows->count; i++) {
        (*out)[i] = i;
    }
    if (options->sample) {
        mq_random random;
        mq_random_seed(&random, options->seed, MQ_STREAM_CORPUS);
        mq_random_shuffle(&random, *out, rows->count);
    }
    return MQ_OK;
}

static mq_status build(mq_sequences *out, const mq_token_rows *rows,
                       const mq_corpus_options *options, int32_t bos, const char *path,
                       mq_error *err) {
    size_t least = options->min_count ? options->min_count : options->max_count;
    size_t needed = options->sample && least ? least : 1;
    if (rows->count < needed) {
        return too_short(rows, needed, path, err);
    }
    size_t count =
        options->max_count && options->max_count < rows->count ? options->max_count : rows->count;
    size_t total, *chosen = NULL;
    if (!mq_mul_size(&total, count, options->length)) {
        return mq_fail_memory(err, "the sequences", SIZE_MAX);
    }
    mq_status status = mq_new(&out->ids, total, sizeof *out->ids, "the sequences", err);
    status = status ? status : choose_rows(&chosen, rows, options, err);
    for (size_t i = 0; i < count && !status; i++) {
        int32_t *row = out->ids + i * options->length;
        if (bos >= 0) {
            *row++ = bos;
        }
        memcpy(row, rows->ids + chosen[i] * rows->length, rows->length * sizeof *row);
    }
    out->count = count;
    out->length = options->length;
    out->bos = bos >= 0;
    memcpy(out->sha256, rows->sha256, sizeof out->sha256);
    mq_free(chosen);
    return status;
}

bool mq_corpus_is_ids(const char *path) { return has_extension(path, ".npy"); }

mq_status mq_corpus_load(mq_sequences *out, const char *path, const mq_tokenizer *tokenizer,
                         const mq_corpus_options *options, const mq_context *context,
                         mq_error *err) {
    *out = (mq_sequences){0};
    bool is_npy = mq_corpus_is_ids(path);
    if (!is_npy && !tokenizer) {
        return mq_fail_file(err, MQ_ERR_USAGE, path, "text needs a tokenizer");
    }
    int32_t bos = options->bos && !is_npy ? mq_tokenizer_bos(tokenizer) : -1;
    size_t added = bos >= 0 ? 1 : 0;
    if (options->length <= added) {
        return mq_fail(err, MQ_ERR_USAGE, "sequences of %zu tokens are too short", options->length);
    }
    mq_token_rows rows = {0};
    mq_status status = is_npy ? mq_corpus_read_npy(&rows, path, options, context, err)
                              : read_windows(&rows, path, tokenizer, options->length - added,
                                             options, context, err);
    if (!status && bos >= 0) {
        status = check_ids(&bos, 1, options->vocab_size, path, err);
    }
    if (!status) {
        status = build(out, &rows, options, bos, path, err);
    }
    mq_free(rows.ids);
    if (status) {
        mq_sequences_free(out);
    }
    return status;
}

void mq_sequences_free(mq_sequences *sequences) {
    mq_free(sequences->ids);
    *sequences = (mq_sequences){0};
}
