/* Added tokens: finding them in text, and the two passes over it.
 *
 * Tokens with normalized = false are looked for in the text as written, the others in what the
 * normalizer makes of the rest, where their own spelling is normalized too. In both, of those that
 * begin leftmost the longest wins. */
#include <stdlib.h>
#include <string.h>

#include "text/tok_internal.h"

/* --- search structures ------------------------------------------------------------------------ */

static int compare_spellings(const void *a, const void *b) {
    const mq_spelling *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    if (order == 0 && x->size != y->size) {
        order = x->size < y->size ? -1 : 1;
    }
    return order ? order : (x->token > y->token) - (x->token < y->token);
}

static void index_spellings(mq_spellings *s) {
    if (s->count) {
        qsort(s->items, s->count, sizeof *s->items, compare_spellings);
    }
    size_t i = 0;
    for (unsigned b = 0; b < 256; b++) {
        s->first[b] = (uint32_t)i;
        while (i < s->count && (unsigned char)s->items[i].text[0] == b) {
            i++;
        }
    }
    s->first[256] = (uint32_t)i;
}

static mq_status normalize_spellings(mq_tokenizer *tokenizer, mq_error *err) {
    mq_spellings *s = &tokenizer->added.as_normalized;
    mq_matcher matcher = {0};
    mq_bytes buffers[2] = {{0}, {0}};
    mq_status status = mq_matcher_init(&matcher, err);
    for (size_t i = 0; i < s->count && !status; i++) {
        mq_spelling *item = &s->items[i];
        const char *text = NULL;
        size_t size = 0;
        status = mq_normalize(&text, &size, buffers, &tokenizer->normalizer, &matcher, item->text,
                              item->size, err);
        if (!status && size == 0) {
            status = mq_fail(err, MQ_ERR_INPUT,
                             "nothing is left of the added token \"%.64s\" once it is normalized",
                             item->text);
        }
        if (!status) {
            item->size = size;
            status = mq_bytes_append(&s->text, text, size, err);
        }
    }
    /* only now that the buffer has stopped moving */
    size_t at = 0;
    for (size_t i = 0; i < s->count && !status; i++) {
        s->items[i].text = s->text.data + at;
        at += s->items[i].size;
    }
    mq_bytes_free(&buffers[0]);
    mq_bytes_free(&buffers[1]);
    mq_matcher_free(&matcher);
    return status;
}

/* Of sorted spellings, two that are the same: which of them is found is another matter in every
 * version of the tokenizers package. */
static mq_status check_distinct(const mq_spellings *s, const mq_added *added, mq_error *err) {
    for (size_t i = 1; i < s->count; i++) {
        const mq_spelling *a = &s->items[i - 1], *b = &s->items[i];
        if (a->size == b->size && memcmp(a->text, b->text, a->size) == 0) {
            return mq_fail(err, MQ_ERR_INPUT,
                           "the added tokens \"%.64s\" and \"%.64s\" are the same once they are "
                           "normalized",
                           added->tokens[a->token].content, added->tokens[b->token].content);
        }
    }
    return MQ_OK;
}

static void keep_spellings(mq_added *added, const mq_spellings *s) {
    for (size_t i = 0; i < s->count; i++) {
        added->tokens[s->items[i].token].spelling = s->items[i].text;
        added->tokens[s->items[i].token].spelling_size = s->items[i].size;
    }
}

mq_status mq_added_build(mq_tokenizer *tokenizer, mq_error *err) {
    mq_added *added = &tokenizer->added;
    bool single_word = false;
    mq_status status = mq_new(&added->as_written.items, added->count, sizeof(mq_spelling),
                              "the added tokens", err);
    if (!status) {
        status = mq_new(&added->as_normalized.items, added->count, sizeof(mq_spelling),
                        "the added tokens", err);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; i < added->count; i++) {
        const mq_added_token *token = &added->tokens[i];
        mq_spellings *s = token->normalized ? &added->as_normalized : &added->as_written;
        s->items[s->count++] = (mq_spelling){token->content, token->content_size, (uint32_t)i};
        single_word = single_word || token->single_word;
    }
    if (added->as_normalized.count && tokenizer->normalizer.count) {
        status = normalize_spellings(tokenizer, err);
    }
    if (!status && single_word) {
        status = mq_pattern_regex(&added->word, "\\A[" MQ_WORD_SET "]", err);
    }
    if (!status) {
        keep_spellings(added, &added->as_written);
        keep_spellings(added, &added->as_normalized);
        index_spellings(&added->as_written);
        index_spellings(&added->as_normalized);
        status = check_distinct(&added->as_normalized, added, err);
    }
    return status;
}

void mq_added_free(mq_added *added) {
    for (size_t i = 0; i < added->count; i++) {
        mq_free(added->tokens[i].content);
    }
    mq_free(added->tokens);
    mq_free(added->as_written.items);
    mq_free(added->as_normalized.items);
    mq_bytes_free(&added->as_normalized.text);
    mq_pattern_free(&added->word);
    *added = (mq_added){0};
}

/* The longest spelling that text (size > 0) begins with, or NULL. The range [low, high) holds those
 * that share the first `depth` bytes with it; a spelling that ends there is the first of the range.
 */
static const mq_spelling *longest_at(const mq_spellings *s, const char *text, size_t size) {
    const mq_spelling *best = NULL;
    size_t low = s->first[(unsigned char)text[0]], high = s->first[(unsigned char)text[0] + 1U];
    for (size_t depth = 1; low < high; depth++) {
        if (s->items[low].size == depth) {
            best = &s->items[low];
        }
        while (low < high && s->items[low].size == depth) {
            low++;
        }
        if (depth == size) {
            break;
        }
        unsigned char byte = (unsigned char)text[depth];
        size_t end = high;
        for (size_t span = high - low;
             span > 0;) { /* the first item whose next byte is not below */
            size_t half = span / 2;
            bool below = (unsigned char)s->items[low + half].text[depth] < byte;
            low += below ? half + 1 : 0;
            span = below ? span - half - 1 : half;
        }
        for (size_t from = low, span = end - low;
             span > 0;) { /* the first whose next byte is above */
            size_t half = span / 2;
            bool above = (unsigned char)s->items[from + half].text[depth] > byte;
            high = above ? from + half : high;
            from += above ? 0 : half + 1;
            span = above ? half : span - half - 1;
        }
    }
    return best;
}

/* --- the passes ------------------------------------------------------------------------------- */

static size_t white_space_before(const char *text, size_t end) {
    size_t start = end;
    while (start > 0) {
        size_t at = start - 1;
        while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80) {
            at--;
        }
        uint32_t c;
        mq_utf8_decode(&c, text + at, start - at);
        if (!mq_is_white_space(c)) {
            break;
        }
        start = at;
    }
    return start;
}

static size_t white_space_after(const char *text, size_t size, size_t start) {
    while (start < size) {
        uint32_t c;
        size_t length = mq_utf8_decode(&c, text + start, size - start);
        if (!mq_is_white_space(c)) {
            break;
        }
        start += length;
    }
    return start;
}

/* Whether neither the character before start nor the one at end belongs to a word. */
static mq_status stands_alone(bool *out, mq_encoder *encoder, const char *text, size_t size,
                              size_t start, size_t end) {
    size_t before = start;
    while (before > 0) {
        before--;
        if (((unsigned char)text[before] & 0xc0) != 0x80) {
            break;
        }
    }
    bool word_before = false, word_after = false;
    size_t from, to;
    const mq_pattern *word = &encoder->tokenizer->added.word;
    mq_find find = mq_find_begin(word, &encoder->matcher, text + before, start - before);
    mq_status status = mq_find_next(&find, &word_before, &from, &to, encoder->err);
    if (!status) {
        find = mq_find_begin(word, &encoder->matcher, text + end, size - end);
        status = mq_find_next(&find, &word_after, &from, &to, encoder->err);
    }
    *out = !word_before && !word_after;
    return status;
}

/* What is done with the text between added tokens; `first`: it is the beginning of all text. */
typedef mq_status between_fn(mq_encoder *encoder, const char *text, size_t size, bool first);

static mq_status cut_at_tokens(mq_encoder *encoder, const mq_spellings *spellings, const char *text,
                               size_t size, bool first, between_fn *between) {
    size_t done = 0;
    mq_status status = MQ_OK;
    for (size_t at = 0; at < size && spellings->count && !status;) {
        const mq_spelling *spelling = longest_at(spellings, text + at, size - at);
        if (!spelling) {
            at++;
            continue;
        }
        const mq_added_token *token = &encoder->tokenizer->added.tokens[spelling->token];
        size_t start = at, end = at + spelling->size;
        at = end;
        if (token->single_word) {
            bool alone = false;
            status = stands_alone(&alone, encoder, text, size, start, end);
            if (status || !alone) {
                continue;
            }
        }
        /* White space that the last token has taken is not taken again, but a token that begins
         * inside it still counts, unless it takes white space before it, too, and nothing else is
         * left of it: so it is in `tokenizers`. */
        start = token->lstrip ? mq_larger(white_space_before(text, start), done) : start;
        end = token->rstrip ? white_space_after(text, size, end) : end;
        if (token->lstrip && start >= end) {
            continue;
        }
        if (done < start) {
            status = between(encoder, text + done, start - done, first && done == 0);
        }
        if (!status) {
            status = mq_encoder_push(encoder, token->id);
        }
        done = end;
    }
    if (!status && done < size) {
        status = between(encoder, text + done, size - done, first && done == 0);
    }
    return status;
}

static mq_status encode_as_written(mq_encoder *encoder, const char *text, size_t size, bool first) {
    const mq_tokenizer *tokenizer = encoder->tokenizer;
    mq_status status = mq_normalize(&text, &size, encoder->normalized, &tokenizer->normalizer,
                                    &encoder->matcher, text, size, encoder->err);
    if (status || size == 0) {
        return status;
    }
    return cut_at_tokens(encoder, &tokenizer->added.as_normalized, text, size, first,
                         mq_encode_piece);
}

mq_status mq_encode_text(mq_encoder *encoder, const char *text, size_t size) {
    return cut_at_tokens(encoder, &encoder->tokenizer->added.as_written, text, size, true,
                         encode_as_written);
}
