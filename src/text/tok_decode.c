/* From ids back to text: a list of tokens that each decoder rewrites, joined at the end.
 *
 * Where `tokenizers` makes U+FFFD of ill-formed bytes, they stay as they are here, so that the text
 * of a token sequence that was cut inside a character is a prefix of the text of the whole. */
#include <string.h>

#include "text/tok_internal.h"

/* Strings end to end. */
typedef struct token_list {
    mq_bytes text;
    size_t *ends; /* [count] where each string ends in text */
    size_t count, capacity;
} token_list;

static void free_list(token_list *list) {
    mq_bytes_free(&list->text);
    mq_free(list->ends);
}

/* Ends a string: what was appended to list->text since the last one. */
static mq_status end_token(token_list *list, mq_error *err) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity < 64 ? 64 : 2 * list->capacity;
        size_t *ends = mq_realloc(list->ends, capacity, sizeof *ends);
        if (!ends) {
            return mq_fail_memory(err, "decoding", capacity * sizeof *ends);
        }
        list->ends = ends;
        list->capacity = capacity;
    }
    list->ends[list->count++] = list->text.size;
    return MQ_OK;
}

static size_t token_at(const token_list *list, size_t i, const char **text) {
    size_t begin = i ? list->ends[i - 1] : 0;
    *text = list->text.data ? list->text.data + begin : "";
    return list->ends[i] - begin;
}

/* --- decoders --------------------------------------------------------------------------------- */

/* A token all of whose characters stand for bytes becomes those bytes; any other (an added one)
 * stays. */
static mq_status byte_level(token_list *out, const char *text, size_t size, mq_error *err) {
    size_t begin = out->text.size;
    for (size_t at = 0; at < size;) {
        uint32_t c;
        at += mq_utf8_decode(&c, text + at, size - at);
        int byte = mq_char_to_byte(c);
        if (byte < 0) {
            out->text.size = begin;
            return mq_bytes_append(&out->text, text, size, err);
        }
        char one = (char)(unsigned char)byte;
        mq_status status = mq_bytes_append(&out->text, &one, 1, err);
        if (status) {
            return status;
        }
    }
    return MQ_OK;
}

static mq_status replace(token_list *out, const mq_decoder *decoder, mq_matcher *matcher,
                         const char *text, size_t size, mq_error *err) {
    mq_bytes repaired = {0}, made = {0};
    mq_status status = MQ_OK;
    if (decoder->pattern.kind == MQ_PATTERN_REGEX && !mq_utf8_valid(NULL, text, size)) {
        status =
            mq_utf8_repair(&repaired, text, size, err); /* PCRE2 matches in well-formed text only */
        text = repaired.data;
        size = repaired.size;
    }
    mq_step step = {.kind = MQ_STEP_REPLACE,
                    .pattern = decoder->pattern,
                    .content = decoder->content,
                    .content_size = decoder->content_size};
    if (!status) {
        status = mq_step_transform(&made, &step, matcher, text, size, false, err);
    }
    if (!status) {
        status = mq_bytes_append(&out->text, made.data, made.size, err);
    }
    mq_bytes_free(&repaired);
    mq_bytes_free(&made);
    return status;
}

/* "<0x0A>": the byte, or -1. */
static int byte_token(const char *text, size_t size) {
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') {
        return -1;
    }
    int value = 0;
    for (size_t i = 3; i < 5; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = 16 * value + digit;
    }
    return value;
}

/* Copies contents, up to `start` times less at the front and `stop` times at the back. */
static mq_status strip(token_list *out, const mq_decoder *decoder, const char *text, size_t size,
                       mq_error *err) {
    size_t length = decoder->content_size;
    for (size_t i = 0;
         i < decoder->start && size >= length && memcmp(text, decoder->content, length) == 0; i++) {
        text += length;
        size -= length;
    }
    for (size_t i = 0; i < decoder->stop && size >= length &&
                       memcmp(text + size - length, decoder->content, length) == 0;
         i++) {
        size -= length;
    }
    return mq_bytes_append(&out->text, text, size, err);
}

static mq_status metaspace(token_list *out, const mq_decoder *decoder, bool first_token,
                           const char *text, size_t size, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t at = 0; at < size && !status;) {
        bool found = size - at >= decoder->content_size &&
                     memcmp(text + at, decoder->content, decoder->content_size) == 0;
        if (!found) {
            status = mq_bytes_append(&out->text, text + at++, 1, err);
            continue;
        }
        at += decoder->content_size;
        if (!(first_token && decoder->drop_first_space)) {
            status = mq_bytes_append(&out->text, " ", 1, err);
        }
    }
    return status;
}

/* Byte tokens that follow each other become one string, and everything else stays. */
static mq_status byte_fallback(token_list *out, const char *text, size_t size, bool *in_bytes,
                               mq_error *err) {
    int value = byte_token(text, size);
    mq_status status = MQ_OK;
    if (value < 0 && *in_bytes) {
        status = end_token(out, err);
    }
    *in_bytes = value >= 0;
    if (!status && value >= 0) {
        char one = (char)(unsigned char)value;
        status = mq_bytes_append(&out->text, &one, 1, err);
    } else if (!status) {
        status = mq_bytes_append(&out->text, text, size, err);
        status = status ? status : end_token(out, err);
    }
    return status;
}

static mq_status decode_token(token_list *out, const mq_decoder *decoder, mq_matcher *matcher,
                              size_t index, const char *text, size_t size, mq_error *err) {
    switch (decoder->kind) {
    case MQ_DECODE_BYTE_LEVEL:
        return byte_level(out, text, size, err);
    case MQ_DECODE_REPLACE:
        return replace(out, decoder, matcher, text, size, err);
    case MQ_DECODE_STRIP:
        return strip(out, decoder, text, size, err);
    case MQ_DECODE_METASPACE:
        return metaspace(out, decoder, index == 0, text, size, err);
    case MQ_DECODE_BYTE_FALLBACK:
    case MQ_DECODE_FUSE:
        break;
    }
    return mq_bytes_append(&out->text, text, size, err);
}

static mq_status run_decoder(token_list *out, const mq_decoder *decoder, mq_matcher *matcher,
                             const token_list *in, mq_error *err) {
    bool joins = decoder->kind == MQ_DECODE_FUSE || decoder->kind == MQ_DECODE_BYTE_LEVEL;
    bool in_bytes = false;
    mq_status status = MQ_OK;
    out->text.size = out->count = 0;
    for (size_t i = 0; i < in->count && !status; i++) {
        const char *text;
        size_t size = token_at(in, i, &text);
        if (decoder->kind == MQ_DECODE_BYTE_FALLBACK) {
            status = byte_fallback(out, text, size, &in_bytes, err);
            continue;
        }
        status = decode_token(out, decoder, matcher, i, text, size, err);
        if (!status && !joins) {
            status = end_token(out, err);
        }
    }
    if (!status && (joins || in_bytes)) {
        status = end_token(out, err);
    }
    return status;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* `tokenizers` compares the spelling that it decodes to with those of the special tokens: one that
 * the normalizer changed is not recognized. */
static bool is_skipped(const mq_added_token *token) {
    return token->special && token->spelling_size == token->content_size &&
           memcmp(token->spelling, token->content, token->content_size) == 0;
}

/* Ids that name no token are left out. */
static mq_status list_tokens(token_list *out, const mq_tokenizer *t, const int32_t *ids,
                             size_t count, bool skip_special, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < count && !status; i++) {
        size_t id = (size_t)ids[i];
        if (ids[i] < 0 || id >= t->vocab_size) {
            continue;
        }
        const mq_added_token *added =
            t->added_index[id] >= 0 ? &t->added.tokens[t->added_index[id]] : NULL;
        mq_vocab_entry entry = {0};
        if (added) {
            entry = (mq_vocab_entry){added->spelling, added->spelling_size};
        } else if (id < t->vocab.size) {
            entry = t->vocab.entries[id];
        }
        if (!entry.text || (added && skip_special && is_skipped(added))) {
            continue;
        }
        status = mq_bytes_append(&out->text, entry.text, entry.size, err);
        status = status ? status : end_token(out, err);
    }
    return status;
}

static mq_status join(mq_bytes *out, const token_list *list, const char *between, mq_error *err) {
    mq_status status = MQ_OK;
    for (size_t i = 0; i < list->count && !status; i++) {
        const char *text;
        size_t size = token_at(list, i, &text);
        status = mq_bytes_append(out, between, i ? strlen(between) : 0, err);
        status = status ? status : mq_bytes_append(out, text, size, err);
    }
    return status ? status : mq_bytes_append(out, "", 1, err);
}

mq_status mq_tokenizer_decode(char **text, size_t *size, const mq_tokenizer *tokenizer,
                              const int32_t *ids, size_t count, bool skip_special, mq_error *err) {
    token_list lists[2] = {{{0}, NULL, 0, 0}, {{0}, NULL, 0, 0}};
    mq_matcher matcher = {0};
    mq_bytes joined = {0};
    mq_status status = mq_matcher_init(&matcher, err);
    if (!status) {
        status = list_tokens(&lists[0], tokenizer, ids, count, skip_special, err);
    }
    size_t current = 0;
    for (size_t i = 0; i < tokenizer->decoder_count && !status; i++) {
        status = run_decoder(&lists[1 - current], &tokenizer->decoders[i], &matcher,
                             &lists[current], err);
        current = 1 - current;
    }
    if (!status) {
        status = join(&joined, &lists[current], tokenizer->has_decoder ? "" : " ", err);
    }
    free_list(&lists[0]);
    free_list(&lists[1]);
    mq_matcher_free(&matcher);
    if (status) {
        mq_bytes_free(&joined);
        return status;
    }
    *text = joined.data;
    *size = joined.size - 1;
    return MQ_OK;
}

void mq_tokenizer_free_text(char *text) { mq_free(text); }
