/* Byte-pair encoding of one word (Sennrich et al. 2016), O(n log n) in its length.
 *
 * Symbols form a linked list, candidate merges a heap by rank, then position. Two things keep most
 * words out of it: a word is cut wherever no merge can reach across (tok_vocab.h), which for
 * SentencePiece-style vocabularies turns whole lines back into words; and short pieces that came up
 * before in this call are copied from the output. */
#include <string.h>

#include "text/tok_internal.h"

#define CACHE_KEY 48 /* longest piece that is remembered, in bytes */
#define CACHE_SLOTS_MAX ((size_t)1 << 15)
#define CUT_MIN 24 /* words shorter than this are not worth looking for cuts */

typedef struct cache_entry {
    uint64_t begin; /* where its ids lie in the output of this call */
    uint32_t count;
    uint32_t size; /* 0: free */
    char key[CACHE_KEY];
} cache_entry;

#define NONE UINT32_MAX

typedef struct symbol {
    int32_t id; /* -1: merged into the one before */
    uint32_t previous, next;
} symbol;

typedef struct candidate {
    uint64_t order; /* rank << 32 | position */
    int32_t merged;
} candidate;

struct mq_bpe {
    cache_entry *cache;
    size_t cache_mask;
    symbol *symbols;       /* [capacity] */
    candidate *candidates; /* [2·capacity], a binary heap */
    size_t capacity, symbol_count, candidate_count;
};

mq_status mq_bpe_new(struct mq_bpe **out, size_t text_size, mq_error *err) {
    size_t slots = 16;
    while (slots < CACHE_SLOTS_MAX && slots < text_size / 8) {
        slots *= 2;
    }
    struct mq_bpe *bpe = mq_calloc(1, sizeof *bpe);
    if (!bpe) {
        return mq_fail_memory(err, "the tokenizer", sizeof *bpe);
    }
    bpe->cache = mq_calloc(slots, sizeof *bpe->cache);
    if (!bpe->cache) {
        mq_free(bpe);
        return mq_fail_memory(err, "the tokenizer", slots * sizeof *bpe->cache);
    }
    bpe->cache_mask = slots - 1;
    *out = bpe;
    return MQ_OK;
}

void mq_bpe_free(struct mq_bpe *bpe) {
    if (bpe) {
        mq_free(bpe->cache);
        mq_free(bpe->symbols);
        mq_free(bpe->candidates);
        mq_free(bpe);
    }
}

/* --- the heap --------------------------------------------------------------------------------- */

static void sift_down(candidate *heap, size_t count, size_t at) {
    candidate moving = heap[at];
    for (size_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1].order < heap[child].order) {
            child++;
        }
        if (moving.order <= heap[child].order) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void heap_push(struct mq_bpe *bpe, candidate item) {
    size_t at = bpe->candidate_count++;
    while (at > 0 && item.order < bpe->candidates[(at - 1) / 2].order) {
        bpe->candidates[at] = bpe->candidates[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    bpe->candidates[at] = item;
}

static candidate heap_pop(struct mq_bpe *bpe) {
    candidate top = bpe->candidates[0];
    bpe->candidates[0] = bpe->candidates[--bpe->candidate_count];
    if (bpe->candidate_count) {
        sift_down(bpe->candidates, bpe->candidate_count, 0);
    }
    return top;
}

/* --- symbols ---------------------------------------------------------------------------------- */

/* Room for the symbols of size bytes (none has less than one). A merge takes one candidate out and
 * puts at most two in, so that the heap never holds more than twice the symbols. */
static mq_status reserve_symbols(struct mq_bpe *bpe, size_t size, mq_error *err) {
    if (size <= bpe->capacity) {
        return MQ_OK;
    }
    if (size >= NONE) {
        return mq_fail(err, MQ_ERR_INPUT, "a word of %zu bytes is too long to tokenize", size);
    }
    size_t capacity = size < 256 ? 256 : size;
    symbol *symbols;
    candidate *candidates;
    mq_status status = mq_new(&symbols, capacity, sizeof *symbols, "the tokenizer", err);
    if (status) {
        return status;
    }
    status = mq_new(&candidates, capacity, 2 * sizeof *candidates, "the tokenizer", err);
    if (status) {
        mq_free(symbols);
        return status;
    }
    mq_free(bpe->symbols);
    mq_free(bpe->candidates);
    bpe->symbols = symbols;
    bpe->candidates = candidates;
    bpe->capacity = capacity;
    return MQ_OK;
}

static void add_symbol(struct mq_bpe *bpe, int32_t id) {
    uint32_t at = (uint32_t)bpe->symbol_count++;
    bpe->symbols[at] = (symbol){id, at ? at - 1 : NONE, NONE};
    if (at) {
        bpe->symbols[at - 1].next = at;
    }
}

/* The tokens of a character's bytes, if the vocabulary has all of them. */
static bool add_bytes(struct mq_bpe *bpe, const mq_tokenizer *t, const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (t->byte_ids[(unsigned char)text[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < size; i++) {
        add_symbol(bpe, t->byte_ids[(unsigned char)text[i]]);
    }
    return true;
}

/* One symbol a character. An unknown token is held back until a known character follows, for
 * fuse_unk; that byte tokens overtake it is how `tokenizers` does it. Without an unknown token,
 * unknown characters vanish. */
static mq_status add_symbols(mq_encoder *encoder, const char *text, size_t size) {
    const mq_tokenizer *t = encoder->tokenizer;
    struct mq_bpe *bpe = encoder->bpe;
    bool unknown = false;
    bpe->symbol_count = 0;
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t c;
        length = mq_utf8_decode(&c, text + at, size - at);
        int32_t id = mq_vocab_find_char(&t->vocab, c);
        if (id >= 0) {
            if (unknown) {
                add_symbol(bpe, t->unk_id);
            }
            unknown = false;
            add_symbol(bpe, id);
        } else if (!(t->byte_fallback && add_bytes(bpe, t, text + at, length)) && t->unk_token) {
            if (t->unk_id < 0) {
                return mq_fail(
                    encoder->err, MQ_ERR_INPUT,
                    "the text needs the unknown token \"%.64s\", which is not in the vocabulary",
                    t->unk_token);
            }
            if (unknown && !t->fuse_unk) {
                add_symbol(bpe, t->unk_id);
            }
            unknown = true;
        }
    }
    if (unknown) {
        add_symbol(bpe, t->unk_id);
    }
    return MQ_OK;
}

/* --- merging ---------------------------------------------------------------------------------- */

static const mq_merge *merge_at(const struct mq_bpe *bpe, const mq_merges *merges, uint32_t at) {
    uint32_t next = bpe->symbols[at].next;
    return next == NONE ? NULL : mq_merges_find(merges, bpe->symbols[at].id, bpe->symbols[next].id);
}

static void propose(struct mq_bpe *bpe, const mq_merges *merges, uint32_t at) {
    const mq_merge *merge = merge_at(bpe, merges, at);
    if (merge) {
        heap_push(bpe, (candidate){(uint64_t)merge->rank << 32 | at, merge->merged});
    }
}

/* A candidate is stale when what stands there now does not merge into the token that it was for.
 * That another pair making the same token will do is how `tokenizers` does it, and decides results
 * where a vocabulary makes a token in two ways. */
static void merge_symbols(struct mq_bpe *bpe, const mq_merges *merges) {
    bpe->candidate_count = 0;
    for (size_t i = 0; i + 1 < bpe->symbol_count; i++) {
        const mq_merge *merge = merge_at(bpe, merges, (uint32_t)i);
        if (merge) {
            bpe->candidates[bpe->candidate_count++] =
                (candidate){(uint64_t)merge->rank << 32 | i, merge->merged};
        }
    }
    for (size_t i = bpe->candidate_count / 2; i > 0; i--) {
        sift_down(bpe->candidates, bpe->candidate_count, i - 1);
    }
    while (bpe->candidate_count) {
        candidate top = heap_pop(bpe);
        uint32_t at = (uint32_t)(top.order & UINT32_MAX);
        symbol *left = &bpe->symbols[at];
        if (left->id < 0) {
            continue;
        }
        const mq_merge *merge = merge_at(bpe, merges, at);
        if (!merge || merge->merged != top.merged) {
            continue;
        }
        symbol *right = &bpe->symbols[left->next];
        left->id = top.merged;
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE) {
            bpe->symbols[left->next].previous = at;
        }
        if (left->previous != NONE) {
            propose(bpe, merges, left->previous);
        }
        propose(bpe, merges, at);
    }
}

/* --- words ------------------------------------------------------------------------------------ */

static mq_status copy_ids(mq_encoder *encoder, uint64_t begin, uint32_t count) {
    mq_status status = MQ_OK;
    for (uint32_t i = 0; i < count && !status; i++) {
        status = mq_encoder_push(encoder, encoder->ids[begin + i]);
    }
    return status;
}

static mq_status encode_part(mq_encoder *encoder, const char *part, size_t size) {
    struct mq_bpe *bpe = encoder->bpe;
    cache_entry *entry = NULL;
    if (size <= CACHE_KEY) {
        entry = &bpe->cache[mq_hash_bytes(part, size) & bpe->cache_mask];
        if (entry->size == size && memcmp(entry->key, part, size) == 0) {
            return copy_ids(encoder, entry->begin, entry->count);
        }
    }
    size_t begin = encoder->count;
    mq_status status = reserve_symbols(bpe, size, encoder->err);
    if (!status) {
        status = add_symbols(encoder, part, size);
    }
    if (!status) {
        merge_symbols(bpe, &encoder->tokenizer->merges);
    }
    for (size_t i = 0; i < bpe->symbol_count && !status; i++) {
        if (bpe->symbols[i].id >= 0) {
            status = mq_encoder_push(encoder, bpe->symbols[i].id);
        }
    }
    if (entry && !status) {
        *entry = (cache_entry){
            .begin = begin, .count = (uint32_t)(encoder->count - begin), .size = (uint32_t)size};
        memcpy(entry->key, part, size);
    }
    return status;
}

mq_status mq_bpe_encode(mq_encoder *encoder, const char *word, size_t size) {
    const mq_tokenizer *t = encoder->tokenizer;
    mq_status status = mq_check_interrupt(encoder->context, encoder->err);
    if (status) {
        return status;
    }
    if (t->ignore_merges) {
        int32_t id = mq_vocab_find(&t->vocab, word, size);
        if (id >= 0) {
            return mq_encoder_push(encoder, id);
        }
    }
    if (size < CUT_MIN) {
        return encode_part(encoder, word, size);
    }
    /* a cut between two characters that both have tokens of their own and that no merge joins */
    size_t begin = 0;
    uint32_t last = 0;
    bool last_known = false;
    for (size_t at = 0, length; at < size; at += length) {
        uint32_t c;
        length = mq_utf8_decode(&c, word + at, size - at);
        bool known = mq_vocab_find_char(&t->vocab, c) >= 0;
        if (known && last_known && !mq_merges_joins(&t->merges, last, c)) {
            status = encode_part(encoder, word + begin, at - begin);
            /* where nothing splits the text, all of it is one word */
            status = status ? status : mq_check_interrupt(encoder->context, encoder->err);
            if (status) {
                return status;
            }
            begin = at;
        }
        last = c;
        last_known = known;
    }
    return encode_part(encoder, word + begin, size - begin);
}
