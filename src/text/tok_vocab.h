/* The vocabulary and the merges of a byte-pair encoding, in hash tables made for reading. */
#ifndef MQ_TEXT_TOK_VOCAB_H
#define MQ_TEXT_TOK_VOCAB_H

#include "text/utf8.h"

/* No real vocabulary comes near it; without a limit one entry with a huge id could ask for any
 * amount of memory. */
#define MQ_MAX_TOKEN_ID ((1 << 22) - 1)

typedef struct mq_vocab_entry {
    const char *text; /* NULL: no token has this id */
    size_t size;
} mq_vocab_entry;

typedef struct mq_vocab {
    char *text; /* all spellings, each ended by a 0; mq_free */
    size_t text_used;
    mq_vocab_entry *entries; /* [size], by id */
    size_t size;             /* highest id + 1 */
    size_t count;            /* of tokens */
    int32_t *slots;          /* [slot_mask + 1] ids, -1: free */
    size_t slot_mask;
    int32_t (*char_pages)[256]; /* ids of one-character tokens, -1: none; page 0 is all -1 */
    uint16_t char_page[0x1100]; /* page of code points [256 i, 256 i + 256) */
} mq_vocab;

/* Room for `count` tokens of text_size bytes in all (each with its final 0) with ids up to max_id
 * (at most MQ_MAX_TOKEN_ID). */
mq_status mq_vocab_init(mq_vocab *vocab, size_t count, size_t text_size, size_t max_id,
                        mq_error *err);
/* Adds a token; at most as many and as long ones as was said. On MQ_ERR_INPUT err says what is
 * there twice. */
mq_status mq_vocab_add(mq_vocab *vocab, const char *text, size_t size, int32_t id, mq_error *err);
/* Builds the table of one-character tokens; after the last mq_vocab_add. */
mq_status mq_vocab_finish(mq_vocab *vocab, mq_error *err);
void mq_vocab_free(mq_vocab *vocab);

/* Ids, or -1. */
int32_t mq_vocab_find(const mq_vocab *vocab, const char *text, size_t size);
static inline int32_t mq_vocab_find_char(const mq_vocab *vocab, uint32_t code_point) {
    return vocab->char_pages[vocab->char_page[code_point >> 8]][code_point & 255];
}

typedef struct mq_merge {
    int32_t left, right; /* left -1: free slot */
    uint32_t rank;       /* lower ranks merge first */
    int32_t merged;
} mq_merge;

typedef struct mq_merges {
    mq_merge *slots;
    size_t slot_mask;
    size_t count;
    /* Pairs of characters (first << 21 | second) that stand side by side somewhere inside a token
     * that merging can make. Between any other two characters no merge ever reaches across, so a
     * word may be cut there. */
    uint64_t *joints;
    size_t joint_mask;
} mq_merges;

mq_status mq_merges_init(mq_merges *merges, size_t count, mq_error *err);
/* Adds left + right -> merged with the next rank. *duplicate: the pair is there already, nothing
 * was added. */
void mq_merges_add(mq_merges *merges, bool *duplicate, const mq_vocab *vocab, int32_t left,
                   int32_t right, int32_t merged);
void mq_merges_free(mq_merges *merges);

const mq_merge *mq_merges_find(const mq_merges *merges, int32_t left,
                               int32_t right); /* NULL: none */
bool mq_merges_joins(const mq_merges *merges, uint32_t first, uint32_t second);

uint64_t mq_hash_bytes(const char *data, size_t size);

#endif
